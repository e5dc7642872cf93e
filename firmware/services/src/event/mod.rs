//! Task priority levels, events, timers, event groups (UEFI 2.10 §7.1).
//!
//! [`Events`] is the database: which events there are, which notifications wait at which level, which timer is due next,
//! what the current level is. It calls nothing; it hands a [`Notification`] to the edge, which runs it outside the lock
//! and returns it ([`Events::next_above`], [`Events::finished`]). An event's id is an index with a generation, so that an
//! id that was closed is never taken for a newer event.
//!
//! The current level, and which notifications may run, obey one rule: a notification runs only if its level is above the
//! level that it interrupts, and nothing lowers the level below that of the innermost notification that runs
//! ([`Events::floor`](Events)). So at any time the notifications on the stack have strictly rising levels, and so have
//! the timer interrupts that run them; see [`timer_tick`](crate::abi::event::timer_tick).

pub mod group;
mod timers;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::{fmt, mem, ptr};

use uefi_raw::table::boot::{EventNotifyFn, EventType, Tpl};
use uefi_raw::{Event, Guid, Status};

use timers::Timers;

/// Units of 100 ns in a second.
pub const SECOND: u64 = 10_000_000;
/// A periodic timer asked to signal "every tick": the tick of firmware that has one.
const DEFAULT_PERIOD: u64 = SECOND / 100;
/// The shortest period, so that no caller can keep the CPU in the timer interrupt.
const SHORTEST_PERIOD: u64 = SECOND / 1000;

/// Levels are below this.
const LEVELS: usize = 32;
/// No slot: the end of a chain.
const NONE: u32 = u32::MAX;
/// Bits of an id that hold the slot, counted from 1 so that no id is null.
const SLOT_BITS: u32 = 24;

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Not a combination of event type flags that exists.
    Kind(EventType),
    /// A notification without a function, or at a level where none may run.
    Notification,
    /// No such event.
    Unknown(Event),
    /// The event has no timer.
    NotATimer,
    /// An event whose signal is its notification cannot be waited for.
    NotWaitable,
    /// No memory, or too many events.
    OutOfMemory,
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::OutOfMemory => Self::OUT_OF_RESOURCES,
            _ => Self::INVALID_PARAMETER,
        }
    }
}

/// When a timer is due, in units of 100 ns from now (UEFI 2.10 §7.1.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// Never.
    Cancel,
    /// Again and again. 0 stands for every tick, which is 10 ms; less than 1 ms becomes 1 ms.
    Periodic(u64),
    /// Once. 0 means at once.
    Relative(u64),
}

/// What to run when an event is notified.
#[derive(Default)]
pub enum Notify {
    /// Nothing.
    #[default]
    None,
    /// A function of a loaded image.
    Function(EventNotifyFn, *mut c_void),
    /// A closure of ours.
    Closure(Box<dyn FnMut(Event)>),
    /// The closure is running.
    Running,
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Function(..) => "Function",
            Self::Closure(_) => "Closure",
            Self::Running => "Running",
        })
    }
}

/// A notification that the edge has to run at the level it is given for, and then to return.
#[derive(Debug)]
#[must_use]
pub struct Notification {
    /// The event.
    pub event: Event,
    /// What to run.
    pub notify: Notify,
    floor: usize,
}

/// What looking at an event found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// It was signaled, and is no longer.
    Signaled,
    /// It is not signaled.
    NotReady,
    /// It is not signaled, but its notification is queued now and may signal it.
    Queued,
}

#[derive(Debug)]
struct Record {
    kind: EventType,
    level: usize,
    notify: Notify,
    group: Option<Guid>,
    signaled: bool,
    queued: bool,
    next: u32,
    previous: u32,
    period: u64,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    record: Option<Record>,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    first: u32,
    last: u32,
}

/// The database.
#[derive(Debug)]
pub struct Events {
    slots: Vec<Slot>,
    free: Vec<u32>,
    groups: Vec<(Guid, Vec<u32>)>,
    queues: [Queue; LEVELS],
    /// One bit per level with a queue that is not empty.
    pending: u32,
    level: usize,
    /// The level of the innermost notification that runs; the current level is never below.
    floor: usize,
    /// Whether interrupts were enabled when the level was raised to `HIGH_LEVEL`.
    enabled_below_high: bool,
    timers: Timers,
    timer_events: usize,
    timers_stopped: bool,
    armed: Option<u64>,
    watchdog: Option<(u64, u64)>,
    monotonic: u64,
}

impl Events {
    /// An empty database.
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            groups: Vec::new(),
            queues: [Queue { first: NONE, last: NONE }; LEVELS],
            pending: 0,
            level: Tpl::APPLICATION.0,
            floor: Tpl::APPLICATION.0,
            enabled_below_high: false,
            timers: Timers::new(),
            timer_events: 0,
            timers_stopped: false,
            armed: None,
            watchdog: None,
            monotonic: 0,
        }
    }

    // Events.

    /// Makes an event. The notification is taken if all goes well, and only by the two kinds that have one; what remains
    /// is for the caller to drop outside the lock.
    ///
    /// # Errors
    /// [`Error::Kind`], [`Error::Notification`], [`Error::OutOfMemory`].
    pub fn create(
        &mut self,
        kind: EventType,
        level: Tpl,
        notify: &mut Notify,
        group: Option<Guid>,
    ) -> Result<Event, Error> {
        let (kind, group) = normalize(kind, group)?;
        let notifies = kind.intersects(EventType::NOTIFY_SIGNAL | EventType::NOTIFY_WAIT);
        if notifies && (matches!(notify, Notify::None) || level <= Tpl::APPLICATION || level >= Tpl::HIGH_LEVEL) {
            return Err(Error::Notification);
        }
        if kind.contains(EventType::TIMER) {
            // So that setting a timer never needs memory.
            self.timers.reserve(self.timer_events + 1, self.slots.len() + 1).ok_or(Error::OutOfMemory)?;
        }
        let slot = self.take_slot()?;
        if let Some(group) = group
            && self.join(group, slot).is_none()
        {
            self.free.push(slot);
            return Err(Error::OutOfMemory);
        }
        self.timer_events += usize::from(kind.contains(EventType::TIMER));
        let notify = if notifies { mem::take(notify) } else { Notify::None };
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.record = Some(Record {
            kind,
            level: level.0,
            notify,
            group,
            signaled: false,
            queued: false,
            next: NONE,
            previous: NONE,
            period: 0,
        });
        Ok(id(slot, entry.generation))
    }

    /// Ends an event, with its timer and any notification that waits. Returns what to drop outside the lock.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub fn close(&mut self, event: Event) -> Result<Notify, Error> {
        let slot = self.slot(event)?;
        self.unqueue(slot);
        self.timers.remove(slot);
        let Some(record) = self.slots[slot as usize].record.take() else { return Err(Error::Unknown(event)) };
        if record.kind.contains(EventType::TIMER) {
            self.timer_events -= 1;
        }
        if let Some(group) = record.group
            && let Some((_, members)) = self.groups.iter_mut().find(|(guid, _)| *guid == group)
        {
            members.retain(|&member| member != slot);
        }
        self.free.push(slot);
        Ok(record.notify)
    }

    /// Signals an event, and with it its group.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub fn signal(&mut self, event: Event) -> Result<(), Error> {
        let slot = self.slot(event)?;
        self.signal_slot(slot);
        Ok(())
    }

    /// Signals all events of a group, in the order they were made.
    pub fn signal_group(&mut self, group: &Guid) {
        let Some(index) = self.groups.iter().position(|(guid, _)| guid == group) else { return };
        for member in 0..self.groups[index].1.len() {
            let slot = self.groups[index].1[member];
            self.signal_one(slot);
        }
    }

    /// Whether a group has members.
    pub fn has_members(&self, group: &Guid) -> bool {
        self.groups.iter().any(|(guid, members)| guid == group && !members.is_empty())
    }

    /// Looks at an event, and takes its signal away if it has one.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::NotWaitable`].
    pub fn check(&mut self, event: Event) -> Result<Check, Error> {
        let slot = self.slot(event)?;
        let record = self.record(slot).ok_or(Error::Unknown(event))?;
        if record.kind.contains(EventType::NOTIFY_SIGNAL) {
            return Err(Error::NotWaitable);
        }
        if mem::take(&mut record.signaled) {
            return Ok(Check::Signaled);
        }
        if record.kind.contains(EventType::NOTIFY_WAIT) {
            self.queue(slot);
            return Ok(Check::Queued);
        }
        Ok(Check::NotReady)
    }

    /// Takes an event's signal away and tells whether it had one. False for an event that is gone.
    pub fn take_signal(&mut self, event: Event) -> bool {
        let slot = self.slot(event).ok();
        slot.and_then(|slot| self.record(slot)).is_some_and(|record| mem::take(&mut record.signaled))
    }

    /// Tells of each event to be notified when the runtime services get virtual addresses and that has a function.
    pub fn virtual_address_change(&self, mut tell: impl FnMut(Event, EventNotifyFn, *mut c_void)) {
        let members = self.groups.iter().find(|(guid, _)| *guid == group::VIRTUAL_ADDRESS_CHANGE);
        for &slot in members.map_or(&[][..], |(_, members)| members) {
            if let Some(Slot { generation, record: Some(record) }) = self.slots.get(slot as usize)
                && let Notify::Function(function, context) = record.notify
            {
                tell(id(slot, *generation), function, context);
            }
        }
    }

    // Timers.

    /// Sets or cancels an event's timer. After [`Self::stop_timers`] it is never due.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::NotATimer`].
    pub fn set_timer(&mut self, event: Event, timer: Timer, now: u64) -> Result<(), Error> {
        let slot = self.slot(event)?;
        let record = self.record(slot).ok_or(Error::Unknown(event))?;
        if !record.kind.contains(EventType::TIMER) {
            return Err(Error::NotATimer);
        }
        let delay = match timer {
            Timer::Cancel | Timer::Relative(_) => {
                record.period = 0;
                if let Timer::Relative(delay) = timer { Some(delay) } else { None }
            }
            Timer::Periodic(0) => {
                record.period = DEFAULT_PERIOD;
                Some(DEFAULT_PERIOD)
            }
            Timer::Periodic(period) => {
                record.period = period.max(SHORTEST_PERIOD);
                Some(record.period)
            }
        };
        match delay {
            Some(delay) if !self.timers_stopped => self.timers.set(slot, now.saturating_add(delay)),
            _ => self.timers.remove(slot),
        }
        Ok(())
    }

    /// Signals every event whose timer is due. Returns the watchdog's code if the watchdog is due.
    pub fn expire(&mut self, now: u64) -> Option<u64> {
        while let Some((deadline, slot)) = self.timers.first()
            && deadline <= now
        {
            match self.record(slot).map(|record| record.period) {
                Some(period) if period != 0 => {
                    let next = deadline.saturating_add(period);
                    self.timers.set(slot, if next > now { next } else { now.saturating_add(period) });
                }
                _ => self.timers.remove(slot),
            }
            self.signal_slot(slot);
        }
        self.watchdog.filter(|(deadline, _)| *deadline <= now && !self.timers_stopped).map(|(_, code)| code)
    }

    /// The deadline to arm the hardware for, if it is another than before.
    pub fn take_deadline(&mut self) -> Option<Option<u64>> {
        let timer = self.timers.first().map(|(deadline, _)| deadline);
        let watchdog = self.watchdog.map(|(deadline, _)| deadline);
        let next = match (timer, watchdog) {
            _ if self.timers_stopped => None,
            (Some(timer), Some(watchdog)) => Some(timer.min(watchdog)),
            (timer, watchdog) => timer.or(watchdog),
        };
        (mem::replace(&mut self.armed, next) != next).then_some(next)
    }

    /// The hardware's timer has fired, so that it is armed no longer.
    pub fn disarmed(&mut self) {
        self.armed = None;
    }

    /// Cancels all timers and the watchdog for good, as ExitBootServices does.
    pub fn stop_timers(&mut self) {
        self.timers_stopped = true;
        self.timers.clear();
        self.watchdog = None;
    }

    /// Sets the watchdog to a deadline with a code to report, or stops it.
    pub fn set_watchdog(&mut self, deadline: Option<(u64, u64)>) {
        self.watchdog = deadline;
    }

    /// The next number of a count that never repeats while the firmware runs; the upper half is [`Self::set_high_count`].
    pub fn next_monotonic_count(&mut self) -> u64 {
        self.monotonic = self.monotonic.wrapping_add(1);
        self.monotonic
    }

    /// Sets the upper half of the monotonic count, which survives resets, and starts the lower half anew.
    pub fn set_high_count(&mut self, high: u32) {
        self.monotonic = u64::from(high) << u32::BITS;
    }

    // Levels.

    /// The current level.
    pub fn level(&self) -> Tpl {
        Tpl(self.level)
    }

    /// Raises the level; returns what it was. `enabled` is whether interrupts were enabled before. A level below the
    /// current one changes nothing: the specification leaves it undefined.
    pub fn raise(&mut self, level: Tpl, enabled: bool) -> Tpl {
        let before = self.level;
        if level.0 > before {
            if level >= Tpl::HIGH_LEVEL && before < Tpl::HIGH_LEVEL.0 {
                self.enabled_below_high = enabled;
            }
            self.level = level.0.min(Tpl::HIGH_LEVEL.0);
        }
        Tpl(before)
    }

    /// The level that lowering to `level` may really go to, and whether interrupts are enabled there, given that they are
    /// `enabled` now.
    pub fn plan_restore(&self, level: Tpl, enabled: bool) -> (usize, bool) {
        let target = level.0.clamp(self.floor, self.level.max(self.floor));
        let from_high = self.level >= Tpl::HIGH_LEVEL.0 && target < Tpl::HIGH_LEVEL.0;
        (target, if from_high { self.enabled_below_high } else { enabled })
    }

    /// Begins a timer interrupt: raises the level to the highest, and returns the level that was interrupted. Whether
    /// interrupts are enabled below it is left as it is, in case a program enabled them at the highest level.
    pub fn interrupt(&mut self) -> usize {
        mem::replace(&mut self.level, Tpl::HIGH_LEVEL.0)
    }

    /// The level of the innermost notification that runs, for [`Self::unwind`].
    pub fn floor(&self) -> Tpl {
        Tpl(self.floor)
    }

    /// Forgets the notifications that have begun to run since [`Self::floor`] was `floor`: an image has left them by Exit.
    pub fn unwind(&mut self, floor: Tpl) {
        self.floor = self.floor.min(floor.0);
    }

    /// Whether a notification waits above the current level.
    #[inline]
    pub fn must_dispatch(&self) -> bool {
        self.highest_pending().is_some_and(|level| level > self.level)
    }

    /// The next notification above `target`, at whose level we are from now on; or nothing, and then the level is `target`.
    pub fn next_above(&mut self, target: usize) -> Option<Notification> {
        while let Some(level) = self.highest_pending()
            && level > target
        {
            let slot = self.queues[level].first;
            self.unqueue(slot);
            let floor = self.floor;
            let Some(Slot { generation, record: Some(record) }) = self.slots.get_mut(slot as usize) else { continue };
            if record.kind.contains(EventType::NOTIFY_SIGNAL) {
                record.signaled = false;
            }
            let event = id(slot, *generation);
            let notify = match record.notify {
                Notify::Function(function, context) => Notify::Function(function, context),
                _ => mem::replace(&mut record.notify, Notify::Running),
            };
            (self.level, self.floor) = (level, level);
            return Some(Notification { event, notify, floor });
        }
        self.level = target;
        None
    }

    /// Takes a notification back after it ran. Returns what to drop outside the lock: the closure, if its event is gone.
    pub fn finished(&mut self, notification: Notification) -> Notify {
        self.floor = notification.floor;
        if let Ok(slot) = self.slot(notification.event)
            && let Some(record) = self.record(slot)
            && matches!(record.notify, Notify::Running)
        {
            record.notify = notification.notify;
            return Notify::None;
        }
        notification.notify
    }

    fn highest_pending(&self) -> Option<usize> {
        self.pending.checked_ilog2().map(|level| level as usize)
    }

    fn take_slot(&mut self) -> Result<u32, Error> {
        if let Some(slot) = self.free.pop() {
            return Ok(slot);
        }
        if self.slots.len() >= (1 << SLOT_BITS) - 1 {
            return Err(Error::OutOfMemory);
        }
        // Room to free every slot, too, so that closing never needs memory.
        self.slots.try_reserve(1).map_err(|_| Error::OutOfMemory)?;
        let needed = self.slots.len() + 1;
        self.free.try_reserve(needed).map_err(|_| Error::OutOfMemory)?;
        self.slots.push(Slot { generation: 0, record: None });
        Ok(needed as u32 - 1)
    }

    fn join(&mut self, group: Guid, slot: u32) -> Option<()> {
        let index = match self.groups.iter().position(|(guid, _)| *guid == group) {
            Some(index) => index,
            None => {
                self.groups.try_reserve(1).ok()?;
                self.groups.push((group, Vec::new()));
                self.groups.len() - 1
            }
        };
        let members = &mut self.groups[index].1;
        members.try_reserve(1).ok()?;
        members.push(slot);
        Some(())
    }

    fn slot(&self, event: Event) -> Result<u32, Error> {
        let value = event.addr();
        let slot = (value & ((1 << SLOT_BITS) - 1)).checked_sub(1).ok_or(Error::Unknown(event))?;
        match self.slots.get(slot) {
            Some(Slot { generation, record: Some(_) }) if id(slot as u32, *generation) == event => Ok(slot as u32),
            _ => Err(Error::Unknown(event)),
        }
    }

    fn record(&mut self, slot: u32) -> Option<&mut Record> {
        self.slots.get_mut(slot as usize)?.record.as_mut()
    }

    fn signal_slot(&mut self, slot: u32) {
        match self.record(slot).and_then(|record| record.group) {
            Some(group) => self.signal_group(&group),
            None => self.signal_one(slot),
        }
    }

    fn signal_one(&mut self, slot: u32) {
        if let Some(record) = self.record(slot)
            && !mem::replace(&mut record.signaled, true)
            && record.kind.contains(EventType::NOTIFY_SIGNAL)
        {
            self.queue(slot);
        }
    }

    /// Puts a notification at the end of its level's queue, unless it waits already.
    fn queue(&mut self, slot: u32) {
        let Some(record) = self.record(slot) else { return };
        if mem::replace(&mut record.queued, true) {
            return;
        }
        let level = record.level;
        let last = mem::replace(&mut self.queues[level].last, slot);
        if let Some(record) = self.record(slot) {
            (record.previous, record.next) = (last, NONE);
        }
        match self.record(last) {
            Some(before) => before.next = slot,
            None => self.queues[level].first = slot,
        }
        self.pending |= 1 << level;
    }

    /// Takes a notification out of its queue, if it is in one.
    fn unqueue(&mut self, slot: u32) {
        let Some(record) = self.record(slot) else { return };
        if !mem::take(&mut record.queued) {
            return;
        }
        let (level, next, previous) = (record.level, record.next, record.previous);
        match self.record(previous) {
            Some(before) => before.next = next,
            None => self.queues[level].first = next,
        }
        match self.record(next) {
            Some(after) => after.previous = previous,
            None => self.queues[level].last = previous,
        }
        if self.queues[level].first == NONE {
            self.pending &= !(1 << level);
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

/// The two old kinds that name a group become members of it; anything else must be a combination that makes sense.
fn normalize(kind: EventType, group: Option<Guid>) -> Result<(EventType, Option<Guid>), Error> {
    let old_group = match kind {
        EventType::SIGNAL_EXIT_BOOT_SERVICES => Some((EventType::NOTIFY_SIGNAL, group::EXIT_BOOT_SERVICES)),
        EventType::SIGNAL_VIRTUAL_ADDRESS_CHANGE => {
            Some((EventType::RUNTIME | EventType::NOTIFY_SIGNAL, group::VIRTUAL_ADDRESS_CHANGE))
        }
        _ => None,
    };
    match (old_group, group) {
        (Some((kind, group)), None) => Ok((kind, Some(group))),
        (Some(_), Some(_)) => Err(Error::Kind(kind)),
        (None, group) => {
            let known = EventType::TIMER | EventType::RUNTIME | EventType::NOTIFY_WAIT | EventType::NOTIFY_SIGNAL;
            let both = EventType::NOTIFY_WAIT | EventType::NOTIFY_SIGNAL;
            if kind.bits() & !known.bits() != 0 || kind.contains(both) {
                return Err(Error::Kind(kind));
            }
            Ok((kind, group))
        }
    }
}

fn id(slot: u32, generation: u32) -> Event {
    ptr::without_provenance_mut((generation as usize) << SLOT_BITS | (slot as usize + 1))
}
