//! Text terminal in and out.
//!
//! | type | what |
//! | --- | --- |
//! | [`ByteConsole`] | what a driver provides: bytes to and from a terminal |
//! | [`TextDevice`] | anything that shows text or has keys: a [`Terminal`], a frame buffer, a keyboard |
//! | [`Terminal`] | a VT-UTF8 terminal over a [`ByteConsole`] |
//! | [`Consoles`] | all devices together: output goes to each, keys come from any |
//!
//! The protocols over these are in [`abi::console`](crate::abi::console).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use uefi_raw::protocol::console::{KeyData, KeyShiftState, KeyState, KeyToggleState};

pub mod font;
pub mod graphics;
pub mod grid;
pub mod keys;
pub mod screen;

pub use screen::Attribute;

use keys::KeyDecoder;
use screen::Screen;

/// A pair of byte streams to a terminal. Neither direction waits for the other side longer than a bounded time.
pub trait ByteConsole {
    /// Writes all of `bytes`, in order. What the other side does not take within a bounded time is dropped.
    fn write(&mut self, bytes: &[u8]);
    /// Reads what has arrived, up to the length of `into`, and returns how much that is; 0 without waiting if nothing is there.
    fn read(&mut self, into: &mut [u8]) -> usize;
}

/// What is known of a device that shows text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutputState {
    /// Number of the mode.
    pub mode: usize,
    /// Column of the cursor.
    pub column: usize,
    /// Row of the cursor.
    pub row: usize,
    /// Colours of what is written next.
    pub attribute: Attribute,
    /// Whether the cursor is shown.
    pub cursor_visible: bool,
}

/// A device that shows text (UEFI 2.10 §12.4).
pub trait TextOutput {
    /// Columns and rows of the modes; all devices have 80 × 25 as mode 0. A size of 0 is that of a mode that is missing.
    fn modes(&self) -> &[(usize, usize)];
    /// The state.
    fn state(&self) -> OutputState;
    /// Writes; returns whether all of it could be shown.
    fn write(&mut self, text: &[u16]) -> bool;
    /// Whether `text` could be shown.
    fn can_show(&self, text: &[u16]) -> bool;
    /// Selects one of [`modes`](Self::modes) and clears.
    fn set_mode(&mut self, mode: usize);
    /// Selects colours.
    fn set_attribute(&mut self, attribute: Attribute);
    /// Clears; the cursor goes to the upper left.
    fn clear(&mut self);
    /// Moves the cursor to a place that is on the screen.
    fn set_cursor(&mut self, column: usize, row: usize);
    /// Shows or hides the cursor.
    fn show_cursor(&mut self, visible: bool);
    /// Back to the state it began with, cleared.
    fn reset(&mut self);
    /// Makes the device ready for the operating system, which may not set colours and cursor itself. What it shows stays.
    /// Must not allocate.
    fn leave(&mut self);
}

/// A device that has keys (UEFI 2.10 §12.2, §12.3).
pub trait TextInput {
    /// Takes what has arrived until `now` (100 ns) and gives each key to `keys`, at most `limit` of them.
    fn poll(&mut self, now: u64, limit: usize, keys: &mut dyn FnMut(KeyData));
    /// Forgets what has arrived.
    fn reset(&mut self);
    /// Whether what has arrived may be the beginning of a key, which the rest or some time will tell.
    fn is_undecided(&self) -> bool {
        false
    }
    /// Which modifiers are held and which toggles are on now, as far as the device knows.
    fn key_state(&self) -> KeyState {
        NO_KEY_STATE
    }
    /// Sets the toggles and their lights (UEFI 2.10 §12.2.4); `false` if the device does not take this state.
    fn set_state(&mut self, state: KeyToggleState) -> bool {
        can_set_state(state)
    }
    /// Makes the device ready for the operating system. Must not allocate.
    fn leave(&mut self) {}
}

/// The state of a device that has no modifiers and toggles, or with nothing held and all off.
pub const NO_KEY_STATE: KeyState =
    KeyState { key_shift_state: KeyShiftState::VALID, key_toggle_state: KeyToggleState::VALID };

/// A device that shows text, has keys, or both.
pub trait TextDevice {
    /// The part that shows text.
    fn output(&mut self) -> Option<&mut dyn TextOutput>;
    /// The part that has keys.
    fn input(&mut self) -> Option<&mut dyn TextInput>;
}

/// A VT-UTF8 terminal. Each request is one write to the byte device.
pub struct Terminal {
    device: Box<dyn ByteConsole>,
    screen: Screen,
    decoder: KeyDecoder,
}

impl Terminal {
    /// The terminal behind `device`. Nothing is written: what it shows stays.
    pub const fn new(device: Box<dyn ByteConsole>) -> Self {
        Self { device, screen: Screen::new(), decoder: KeyDecoder::new() }
    }

    fn send<R>(&mut self, request: impl FnOnce(&mut Screen, &mut Vec<u8>) -> R) -> R {
        let mut bytes = Vec::new();
        let result = request(&mut self.screen, &mut bytes);
        if !bytes.is_empty() {
            self.device.write(&bytes);
        }
        result
    }
}

impl TextDevice for Terminal {
    fn output(&mut self) -> Option<&mut dyn TextOutput> {
        Some(self)
    }

    fn input(&mut self) -> Option<&mut dyn TextInput> {
        Some(self)
    }
}

impl TextOutput for Terminal {
    fn modes(&self) -> &[(usize, usize)] {
        &screen::MODES
    }

    fn state(&self) -> OutputState {
        let (column, row) = self.screen.cursor();
        let (mode, attribute) = (self.screen.mode(), self.screen.attribute());
        OutputState { mode, column, row, attribute, cursor_visible: self.screen.cursor_visible() }
    }

    fn write(&mut self, text: &[u16]) -> bool {
        self.send(|screen, out| screen.write(text, out))
    }

    fn can_show(&self, text: &[u16]) -> bool {
        screen::can_show(text)
    }

    fn set_mode(&mut self, mode: usize) {
        self.send(|screen, out| screen.set_mode(mode, out));
    }

    fn set_attribute(&mut self, attribute: Attribute) {
        self.send(|screen, out| screen.set_attribute(attribute, out));
    }

    fn clear(&mut self) {
        self.send(Screen::clear);
    }

    fn set_cursor(&mut self, column: usize, row: usize) {
        self.send(|screen, out| screen.set_cursor(column, row, out));
    }

    fn show_cursor(&mut self, visible: bool) {
        self.send(|screen, out| screen.show_cursor(visible, out));
    }

    fn reset(&mut self) {
        self.send(Screen::reset);
    }

    fn leave(&mut self) {
        let state = self.state();
        if state.attribute != Attribute::DEFAULT || !state.cursor_visible {
            self.device.write(screen::LEAVE);
        }
    }
}

impl TextInput for Terminal {
    fn poll(&mut self, now: u64, limit: usize, mut keys: &mut dyn FnMut(KeyData)) {
        let mut chunk = [0; 64];
        let mut room = limit;
        // A byte completes two keys at most: Esc, and itself.
        while room >= 2 {
            let length = room.div_euclid(2).min(chunk.len());
            let length = self.device.read(&mut chunk[..length]).min(length);
            if length == 0 {
                break;
            }
            for byte in &chunk[..length] {
                self.decoder.byte(*byte, now, &mut keys);
            }
            room -= 2 * length;
        }
        if room >= 1 {
            self.decoder.expire(now, &mut keys);
        }
    }

    fn reset(&mut self) {
        let mut chunk = [0; 64];
        // Bounded, for the other side may send without end.
        for _ in 0..MAX_RESET_READS {
            if self.device.read(&mut chunk) == 0 {
                break;
            }
        }
        self.decoder = KeyDecoder::new();
    }

    fn is_undecided(&self) -> bool {
        self.decoder.is_undecided()
    }
}

/// Keys that are kept until somebody reads them. More stay with the device.
const MAX_KEYS: usize = 256;

const MAX_RESET_READS: usize = 64;

/// Which devices a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// All of them.
    All,
    /// The one that [`Consoles::add`] gave this number.
    One(usize),
}

impl Target {
    fn includes(self, device: usize) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == device,
        }
    }
}

/// A key that somebody wants to be told of (UEFI 2.10 §12.2.5).
#[derive(Clone, Copy, Debug)]
struct Notification {
    number: usize,
    target: Target,
    key: KeyData,
    function: *const (),
}

impl Notification {
    /// A state of zero in the registration means any.
    fn matches(&self, device: usize, key: &KeyData) -> bool {
        let (wanted, state) = (self.key.key_state, key.key_state);
        self.target.includes(device)
            && self.key.key == key.key
            && (wanted.key_shift_state.is_empty() || wanted.key_shift_state == state.key_shift_state)
            && (wanted.key_toggle_state.is_empty() || wanted.key_toggle_state == state.key_toggle_state)
    }
}

/// A notification that is due. The function is the one of the registration.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// What was given to [`Consoles::register`].
    pub function: *const (),
    /// The key.
    pub key: KeyData,
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleError {
    /// No such mode, colours or place, or nothing that could show it.
    Unsupported,
    /// No such registration.
    NotRegistered,
}

struct Device {
    device: Box<dyn TextDevice>,
    keys: VecDeque<KeyData>,
}

/// The database: all devices.
#[derive(Default)]
pub struct Consoles {
    devices: Vec<Device>,
    /// The modes of all devices together.
    common: Vec<(usize, usize)>,
    notifications: Vec<Notification>,
    next_notification: usize,
}

impl core::fmt::Debug for Consoles {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Consoles").field("devices", &self.devices.len()).finish_non_exhaustive()
    }
}

impl Consoles {
    /// An empty database.
    pub const fn new() -> Self {
        Self { devices: Vec::new(), common: Vec::new(), notifications: Vec::new(), next_notification: 0 }
    }

    /// Adds a device and returns its number. It is brought into the mode that the others are in.
    pub fn add(&mut self, mut device: Box<dyn TextDevice>) -> usize {
        if let (Some(output), Some(common)) = (device.output(), self.state(Target::All)) {
            let size = self.common.get(common.mode).copied();
            if let Some(mode) = output.modes().iter().position(|mode| Some(*mode) == size)
                && mode != output.state().mode
            {
                output.set_mode(mode);
            }
            if common.attribute != output.state().attribute {
                output.set_attribute(common.attribute);
            }
        }
        self.devices.push(Device { device, keys: VecDeque::new() });
        self.common = self.common_modes();
        self.devices.len() - 1
    }

    /// How many modes `target` has. All devices together have the modes whose sizes all of them have.
    pub fn mode_count(&mut self, target: Target) -> usize {
        self.with_modes(target, <[_]>::len)
    }

    /// Columns and rows of a mode.
    pub fn mode_size(&mut self, target: Target, mode: usize) -> Result<(usize, usize), ConsoleError> {
        let size = self.with_modes(target, |modes| modes.get(mode).copied());
        size.filter(|size| *size != (0, 0)).ok_or(ConsoleError::Unsupported)
    }

    /// The state of `target`; of several devices that of the first. `None` if nothing shows text.
    pub fn state(&mut self, target: Target) -> Option<OutputState> {
        self.outputs(target).next().map(|output| output.state())
    }

    /// Writes; returns whether all of it could be shown.
    pub fn write(&mut self, target: Target, text: &[u16]) -> bool {
        let mut all = true;
        self.outputs(target).for_each(|output| all &= output.write(text));
        all
    }

    /// Whether `text` could be shown.
    pub fn can_show(&mut self, target: Target, text: &[u16]) -> bool {
        self.outputs(target).all(|output| output.can_show(text))
    }

    /// Selects a mode and clears.
    pub fn set_mode(&mut self, target: Target, mode: usize) -> Result<(), ConsoleError> {
        let size = self.mode_size(target, mode)?;
        for output in self.outputs(target) {
            if let Some(mode) = output.modes().iter().position(|mode| *mode == size) {
                output.set_mode(mode);
            }
        }
        Ok(())
    }

    /// Selects colours, as UEFI 2.10 §12.4.7 encodes them.
    pub fn set_attribute(&mut self, target: Target, bits: usize) -> Result<(), ConsoleError> {
        let attribute = Attribute::new(bits).ok_or(ConsoleError::Unsupported)?;
        self.outputs(target).for_each(|output| output.set_attribute(attribute));
        Ok(())
    }

    /// Clears; the cursor goes to the upper left.
    pub fn clear(&mut self, target: Target) {
        self.outputs(target).for_each(|output| output.clear());
    }

    /// Moves the cursor.
    pub fn set_cursor(&mut self, target: Target, column: usize, row: usize) -> Result<(), ConsoleError> {
        let mode = self.state(target).ok_or(ConsoleError::Unsupported)?.mode;
        let (columns, rows) = self.mode_size(target, mode)?;
        if column >= columns || row >= rows {
            return Err(ConsoleError::Unsupported);
        }
        self.outputs(target).for_each(|output| output.set_cursor(column, row));
        Ok(())
    }

    /// Shows or hides the cursor.
    pub fn show_cursor(&mut self, target: Target, visible: bool) {
        self.outputs(target).for_each(|output| output.show_cursor(visible));
    }

    /// Resets the outputs.
    pub fn reset_output(&mut self, target: Target) {
        self.outputs(target).for_each(|output| output.reset());
    }

    /// Forgets all keys, read or not.
    pub fn reset_input(&mut self, target: Target) {
        for device in self.selected(target) {
            device.keys.clear();
            if let Some(input) = device.device.input() {
                input.reset();
            }
        }
    }

    /// Takes the keys that have arrived until `now` (100 ns) and returns the notifications that are due.
    pub fn poll(&mut self, target: Target, now: u64) -> Vec<Due> {
        let mut due = Vec::new();
        for (number, Device { device, keys }) in self.devices.iter_mut().enumerate() {
            if !target.includes(number) {
                continue;
            }
            let Some(input) = device.input() else { continue };
            let limit = MAX_KEYS.saturating_sub(keys.len());
            input.poll(now, limit, &mut |key| {
                keys.push_back(key);
                let wanted = self.notifications.iter().filter(|wanted| wanted.matches(number, &key));
                due.extend(wanted.map(|wanted| Due { function: wanted.function, key }));
            });
        }
        due
    }

    /// Whether a key waits.
    pub fn has_key(&mut self, target: Target) -> bool {
        self.selected(target).any(|device| !device.keys.is_empty())
    }

    /// Takes the next key.
    pub fn next_key(&mut self, target: Target) -> Option<KeyData> {
        self.selected(target).find_map(|device| device.keys.pop_front())
    }

    /// Takes the first key that `wanted` says yes to; the others stay.
    pub fn take_key(&mut self, target: Target, wanted: impl Fn(&KeyData) -> bool) -> Option<KeyData> {
        self.selected(target).find_map(|device| {
            let place = device.keys.iter().position(&wanted)?;
            device.keys.remove(place)
        })
    }

    /// Whether a device has the beginning of a key.
    pub fn is_undecided(&mut self, target: Target) -> bool {
        self.inputs(target).any(|input| input.is_undecided())
    }

    /// Registers `function` to be called for `key`. Returns the number of the registration, which is that of an earlier
    /// one if that was for the same.
    pub fn register(&mut self, target: Target, key: KeyData, function: *const ()) -> usize {
        let same = |old: &&Notification| old.target == target && old.key == key && old.function == function;
        if let Some(old) = self.notifications.iter().find(same) {
            return old.number;
        }
        self.next_notification += 1;
        let number = self.next_notification;
        self.notifications.push(Notification { number, target, key, function });
        number
    }

    /// Removes a registration.
    pub fn unregister(&mut self, target: Target, number: usize) -> Result<(), ConsoleError> {
        let found = self.notifications.iter().position(|old| old.number == number && old.target == target);
        self.notifications.swap_remove(found.ok_or(ConsoleError::NotRegistered)?);
        Ok(())
    }

    /// Which modifiers are held and which toggles are on, on any of the devices.
    pub fn key_state(&mut self, target: Target) -> KeyState {
        self.inputs(target).map(|input| input.key_state()).fold(NO_KEY_STATE, |all, one| KeyState {
            key_shift_state: all.key_shift_state | one.key_shift_state,
            key_toggle_state: all.key_toggle_state | one.key_toggle_state,
        })
    }

    /// Sets the toggles of all devices that take this state.
    pub fn set_key_state(&mut self, target: Target, state: KeyToggleState) -> Result<(), ConsoleError> {
        let mut taken = false;
        self.inputs(target).for_each(|input| taken |= input.set_state(state));
        if taken { Ok(()) } else { Err(ConsoleError::Unsupported) }
    }

    /// Makes the devices ready for the operating system. Allocates nothing.
    pub fn leave(&mut self) {
        self.outputs(Target::All).for_each(|output| output.leave());
        self.inputs(Target::All).for_each(|input| input.leave());
    }

    /// Whether anybody wants to be told of keys.
    pub const fn has_notifications(&self) -> bool {
        !self.notifications.is_empty()
    }

    fn with_modes<R>(&mut self, target: Target, f: impl FnOnce(&[(usize, usize)]) -> R) -> R {
        match target {
            Target::All => f(&self.common),
            Target::One(_) => {
                let output = self.outputs(target).next();
                f(output.as_ref().map_or(&[], |output| output.modes()))
            }
        }
    }

    fn common_modes(&mut self) -> Vec<(usize, usize)> {
        let mut outputs = self.outputs(Target::All);
        let Some(first) = outputs.next() else { return Vec::new() };
        let mut modes = first.modes().to_vec();
        for other in outputs {
            for mode in &mut modes {
                if !other.modes().contains(mode) {
                    *mode = (0, 0);
                }
            }
        }
        while modes.last() == Some(&(0, 0)) {
            modes.pop();
        }
        modes
    }

    fn selected(&mut self, target: Target) -> impl Iterator<Item = &mut Device> {
        let devices = self.devices.iter_mut().enumerate();
        devices.filter(move |(number, _)| target.includes(*number)).map(|(_, device)| device)
    }

    fn outputs(&mut self, target: Target) -> impl Iterator<Item = &mut dyn TextOutput> {
        self.selected(target).filter_map(|device| device.device.output())
    }

    fn inputs(&mut self, target: Target) -> impl Iterator<Item = &mut dyn TextInput> {
        self.selected(target).filter_map(|device| device.device.input())
    }
}

/// Whether a device takes this state (UEFI 2.10 §12.2.4): a terminal has no lights, so all that can be asked of it is
/// what it does anyway.
pub fn can_set_state(state: KeyToggleState) -> bool {
    state.contains(KeyToggleState::VALID) && KeyToggleState::all().contains(state)
}

/// Whether `key` can be registered: its states are zero or say they are valid.
pub fn can_register(key: &KeyData) -> bool {
    let state = key.key_state;
    (state.key_shift_state.is_empty() || state.key_shift_state.contains(KeyShiftState::VALID))
        && (state.key_toggle_state.is_empty() || state.key_toggle_state.contains(KeyToggleState::VALID))
}

#[cfg(test)]
mod tests;
