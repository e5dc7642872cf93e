//! The paravirtual console (`public/io/console.h`): two rings of bytes in a page that the toolstack set up.
//!
//! Output waits for room no longer than a bounded time; once nobody has drained the ring for so long, what does not fit
//! is dropped at once until there is room again.

use core::cell::Cell;
use core::fmt;
use core::mem::offset_of;

use hw::hypervisor::{Errno, EventPort, Gfn};
use hw::interrupts;
use hw::shared::{SharedPages, memory_barrier, read_barrier, write_barrier};
use services::console::ByteConsole;
use xen_abi::{HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN, xencons_interface as interface};

use crate::domain::{Domain, MILLISECOND, SECOND};

const IN: Stream = Stream {
    offset: offset_of!(interface, in_),
    size: size_of_field(|page: &interface| &page.in_),
    consumer: offset_of!(interface, in_cons),
    producer: offset_of!(interface, in_prod),
};
const OUT: Stream = Stream {
    offset: offset_of!(interface, out),
    size: size_of_field(|page: &interface| &page.out),
    consumer: offset_of!(interface, out_cons),
    producer: offset_of!(interface, out_prod),
};
/// The byte that follows the structure in newer headers: 1 while the other end is not there.
const CONNECTION: usize = size_of::<interface>();
const DISCONNECTED: u8 = 1;
/// Longest wait of one write for room in the ring.
const WRITE_TIMEOUT: u64 = SECOND;
/// Longest wait for the last output to be taken at the hand-over.
const DRAIN_TIMEOUT: u64 = 200 * MILLISECOND;

const fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Why there is no console.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleError {
    /// The toolstack gave none.
    NoRing,
    /// A hypercall failed.
    Hypervisor(Errno),
}

impl fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRing => f.write_str("the toolstack gave no console ring"),
            Self::Hypervisor(error) => write!(f, "console: {error}"),
        }
    }
}

impl core::error::Error for ConsoleError {}

/// The console. Usable through a shared reference, also from a notification that interrupts a write.
#[derive(Debug)]
pub struct Console {
    domain: Domain,
    page: SharedPages,
    port: EventPort,
    /// Nobody drained the ring for [`WRITE_TIMEOUT`]: do not wait until there is room again.
    stalled: Cell<bool>,
    dropped: Cell<u64>,
}

/// One direction: where its bytes and indices are in the page.
struct Stream {
    offset: usize,
    size: usize,
    consumer: usize,
    producer: usize,
}

impl Console {
    /// Takes the console that the toolstack set up into use.
    pub fn open(domain: Domain) -> Result<Self, ConsoleError> {
        let parameter = |index| domain.hypervisor.hvm_param(index).map_err(ConsoleError::Hypervisor);
        let gfn = parameter(HVM_PARAM_CONSOLE_PFN)?;
        let port = u32::try_from(parameter(HVM_PARAM_CONSOLE_EVTCHN)?).unwrap_or(0);
        if gfn == 0 || port == 0 {
            return Err(ConsoleError::NoRing);
        }
        let page = domain.frames.map(Gfn(gfn), 1).ok_or(ConsoleError::NoRing)?;
        Ok(Self { domain, page, port: EventPort(port), stalled: Cell::new(false), dropped: Cell::new(0) })
    }

    /// Writes bytes, waiting for room up to a second in all; what has found none by then is dropped.
    pub fn write_bytes(&self, mut bytes: &[u8]) {
        let mut deadline = None;
        let mut told = 0;
        while !bytes.is_empty() {
            let written = self.put(bytes);
            bytes = &bytes[written..];
            told += written;
            if written > 0 {
                self.stalled.set(false);
            }
            if bytes.is_empty() {
                break;
            }
            self.notify();
            told = 0;
            let deadline = *deadline.get_or_insert_with(|| self.domain.deadline(WRITE_TIMEOUT));
            if !self.wait_for_room(deadline) {
                self.dropped.set(self.dropped.get() + bytes.len() as u64);
                break;
            }
        }
        if told > 0 {
            self.notify();
        }
    }

    /// Reads what has arrived; 0 if nothing has.
    pub fn read_bytes(&self, into: &mut [u8]) -> usize {
        let state = interrupts::disable();
        let consumer = self.page.read_u32(IN.consumer);
        let waiting = self.page.read_u32(IN.producer).wrapping_sub(consumer) as usize;
        read_barrier();
        // More than the ring holds is nonsense; start afresh where the other end says it is.
        let take = if waiting <= IN.size { waiting.min(into.len()) } else { 0 };
        let start = consumer as usize % IN.size;
        let (before, after) = into[..take].split_at_mut(take.min(IN.size - start));
        self.page.copy_out(IN.offset + start, before);
        self.page.copy_out(IN.offset, after);
        memory_barrier();
        let consumed = if waiting <= IN.size { take } else { waiting };
        self.page.write_u32(IN.consumer, consumer.wrapping_add(consumed as u32));
        interrupts::restore(state);
        if consumed > 0 {
            self.notify();
        }
        take
    }

    /// Bytes of output that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Waits a bounded time for the other end to take what has been written, for the hand-over to the operating system. The
    /// port and the ring stay as they are. Does not allocate.
    pub fn drain(&self) {
        if self.is_disconnected() || self.stalled.get() || self.room() == OUT.size {
            return;
        }
        self.notify();
        let deadline = self.domain.deadline(DRAIN_TIMEOUT);
        self.domain.wait_for(self.port, deadline, || (self.room() >= OUT.size || self.is_disconnected()).then_some(()));
    }

    /// Puts as much as there is room for on the ring.
    fn put(&self, bytes: &[u8]) -> usize {
        // A notification that writes must not come between the copy and the index.
        let state = interrupts::disable();
        let take = bytes.len().min(self.room());
        memory_barrier();
        let producer = self.page.read_u32(OUT.producer);
        let start = producer as usize % OUT.size;
        let (before, after) = bytes[..take].split_at(take.min(OUT.size - start));
        self.page.copy_in(OUT.offset + start, before);
        self.page.copy_in(OUT.offset, after);
        write_barrier();
        self.page.write_u32(OUT.producer, producer.wrapping_add(take as u32));
        interrupts::restore(state);
        take
    }

    /// Free bytes of the output ring; none while the indices make no sense.
    fn room(&self) -> usize {
        let used = self.page.read_u32(OUT.producer).wrapping_sub(self.page.read_u32(OUT.consumer)) as usize;
        OUT.size.saturating_sub(used)
    }

    fn wait_for_room(&self, deadline: u64) -> bool {
        if self.stalled.get() || self.is_disconnected() {
            return false;
        }
        let ready = || (self.room() > 0 || self.is_disconnected()).then_some(());
        self.stalled.set(self.domain.wait_for(self.port, deadline, ready).is_none());
        self.room() > 0
    }

    fn is_disconnected(&self) -> bool {
        self.page.read_u8(CONNECTION) == DISCONNECTED
    }

    fn notify(&self) {
        // Without the event the other end looks later or never; there is nowhere to say so.
        let _ = self.domain.hypervisor.notify(self.port);
    }
}

impl ByteConsole for &'static Console {
    fn write(&mut self, bytes: &[u8]) {
        self.write_bytes(bytes);
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        self.read_bytes(into)
    }
}

#[cfg(test)]
mod tests {
    use hw::fake::{FakeFrames, FakeHypervisor};
    use hw::shared::FrameAllocator;

    use super::*;
    use crate::testing::domain;

    const PORT: EventPort = EventPort(2);

    /// A console whose indices stand at `index`, and the page as the other end sees it.
    fn console_at(index: u32) -> (&'static FakeHypervisor, Console, SharedPages) {
        let (hypervisor, domain) = domain();
        let page = FakeFrames::default().allocate(1).unwrap();
        hypervisor.params.borrow_mut().insert(HVM_PARAM_CONSOLE_PFN, page.gfn(0).0);
        hypervisor.params.borrow_mut().insert(HVM_PARAM_CONSOLE_EVTCHN, PORT.0.into());
        for field in [IN.consumer, IN.producer, OUT.consumer, OUT.producer] {
            page.write_u32(field, index);
        }
        (hypervisor, Console::open(domain).unwrap(), page)
    }

    /// Has the other end take everything it is told of; returns what it took.
    fn drain_on_notify(hypervisor: &'static FakeHypervisor, gfn: Gfn) -> &'static core::cell::RefCell<Vec<u8>> {
        let taken = crate::testing::leak(core::cell::RefCell::new(Vec::new()));
        *hypervisor.on_notify.borrow_mut() = Some(Box::new(move |hypervisor, port| {
            taken.borrow_mut().extend(take_output(&FakeFrames::peer(gfn)));
            hypervisor.raise(port);
        }));
        taken
    }

    fn take_output(page: &SharedPages) -> Vec<u8> {
        let (mut consumer, producer) = (page.read_u32(OUT.consumer), page.read_u32(OUT.producer));
        let mut taken = Vec::new();
        while consumer != producer {
            taken.push(page.read_u8(OUT.offset + consumer as usize % OUT.size));
            consumer = consumer.wrapping_add(1);
        }
        page.write_u32(OUT.consumer, consumer);
        taken
    }

    fn type_in(page: &SharedPages, text: &[u8]) {
        for &byte in text {
            let producer = page.read_u32(IN.producer);
            page.write_u8(IN.offset + producer as usize % IN.size, byte);
            page.write_u32(IN.producer, producer.wrapping_add(1));
        }
    }

    #[test]
    fn the_layout_is_that_of_the_header() {
        assert_eq!((IN.size, OUT.size, CONNECTION), (1024, 2048, 3088));
    }

    #[test]
    fn output_longer_than_the_ring_arrives_whole_and_in_order() {
        let (hypervisor, console, page) = console_at(u32::MAX - 700);
        let taken = drain_on_notify(hypervisor, page.gfn(0));
        let text: Vec<u8> = (0..10_000u32).map(|number| number as u8).collect();
        console.write_bytes(&text);
        assert!(*taken.borrow() == text);
        assert_eq!(console.dropped(), 0);
    }

    #[test]
    fn a_short_write_costs_one_notification() {
        let (hypervisor, console, _) = console_at(0);
        console.write_bytes(b"hello\r\n");
        assert_eq!(*hypervisor.sent.borrow(), [PORT]);
    }

    #[test]
    fn when_nobody_drains_a_write_waits_once_and_later_ones_not_at_all() {
        let (hypervisor, console, page) = console_at(0);
        console.write_bytes(&[b'a'; 3000]);
        let waited = hypervisor.time_ns.get();
        assert!((WRITE_TIMEOUT..2 * WRITE_TIMEOUT).contains(&waited));
        console.write_bytes(&[b'b'; 100]);
        assert!(hypervisor.time_ns.get() < waited + MILLISECOND);
        assert_eq!(console.dropped(), 3000 - 2048 + 100);
        assert_eq!(take_output(&page), [b'a'; 2048]);
        console.write_bytes(b"back");
        assert_eq!(take_output(&page), b"back");
    }

    #[test]
    fn a_disconnected_console_is_not_waited_for() {
        let (hypervisor, console, page) = console_at(0);
        page.write_u8(CONNECTION, DISCONNECTED);
        console.write_bytes(&[b'a'; 5000]);
        console.drain();
        assert!(hypervisor.time_ns.get() < MILLISECOND);
    }

    #[test]
    fn input_is_read_across_the_wrap_of_the_indices() {
        let (_, console, page) = console_at(u32::MAX - 2);
        type_in(&page, b"typed");
        let mut into = [0; 4];
        assert_eq!(console.read_bytes(&mut into), 4);
        assert_eq!(&into, b"type");
        assert_eq!(console.read_bytes(&mut into), 1);
        assert_eq!(console.read_bytes(&mut into), 0);
    }

    #[test]
    fn impossible_indices_give_nothing_and_do_not_hang() {
        let (hypervisor, console, page) = console_at(0);
        page.write_u32(IN.producer, 5000);
        page.write_u32(OUT.consumer, 7);
        let mut into = [0; 16];
        assert_eq!(console.read_bytes(&mut into), 0);
        console.write_bytes(b"lost");
        assert_eq!(console.dropped(), 4);
        assert!(hypervisor.time_ns.get() < 2 * WRITE_TIMEOUT);
        type_in(&page, b"ok");
        assert_eq!(console.read_bytes(&mut into), 2);
    }

    #[test]
    fn the_last_output_is_waited_for_a_bounded_time() {
        let (hypervisor, console, _) = console_at(0);
        console.write_bytes(b"bye");
        console.drain();
        assert!((DRAIN_TIMEOUT..2 * DRAIN_TIMEOUT).contains(&hypervisor.time_ns.get()));
    }
}
