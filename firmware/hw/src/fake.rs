//! Scripted stand-ins for the hardware traits.
#![expect(clippy::expect_used, reason = "a fake is part of a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::vec::Vec;

use core::ptr::NonNull;

use crate::device::{MachineWindow, Ports, Window, Windows};
use crate::hypervisor::{DomainId, E820Entry, Errno, EventPort, Gfn, Hypervisor, Result, ShutdownReason};
use crate::shared::{FrameAllocator, PAGE_SIZE, SharedPages};

/// A global allocator for a test binary that tells whether code between two points allocates or frees. Fakes do not count.
///
/// ```ignore
/// #[global_allocator]
/// static ALLOCATOR: hw::fake::CountingAllocator = hw::fake::CountingAllocator;
/// ```
pub struct CountingAllocator;

std::thread_local! {
    /// Allocations and frees of this thread.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

impl CountingAllocator {
    /// How often this thread has allocated or freed so far.
    pub fn count() -> usize {
        COUNT.get()
    }

    /// Runs `f` without counting.
    pub fn uncounted<R>(f: impl FnOnce() -> R) -> R {
        let before = COUNT.get();
        let result = f();
        COUNT.set(before);
        result
    }
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: forwarded.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: forwarded.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What a test does when the code under test sends an event: play the other domain.
pub type NotifyHook = Box<dyn FnMut(&FakeHypervisor, EventPort)>;

/// A hypervisor whose state a test sets and reads.
#[derive(Default)]
pub struct FakeHypervisor {
    /// HVM parameters by index.
    pub params: RefCell<BTreeMap<u32, u64>>,
    /// Frames mapped: (what, index) by frame.
    pub mapped: RefCell<BTreeMap<u64, (&'static str, u32)>>,
    /// Ports allocated and not yet closed.
    pub open_ports: RefCell<BTreeSet<u32>>,
    /// Ports with a pending event.
    pub pending: RefCell<BTreeSet<u32>>,
    /// Events sent so far.
    pub sent: RefCell<Vec<EventPort>>,
    /// The last shutdown asked for.
    pub shutdown: Cell<Option<ShutdownReason>>,
    /// System time; each read adds [`step_ns`](Self::step_ns), a poll moves it in steps to the deadline unless an event is pending.
    pub time_ns: Cell<u64>,
    /// What a read of the system time adds to it: a microsecond, unless a test has long to wait.
    pub step_ns: Cell<u64>,
    /// The other domain; runs on every notify and on every poll.
    pub on_notify: RefCell<Option<NotifyHook>>,
    next_port: Cell<u32>,
}

impl FakeHypervisor {
    /// A hypervisor with nothing in it.
    pub fn new() -> Self {
        let new = Self::default();
        new.next_port.set(5);
        new.step_ns.set(1000);
        new
    }

    /// Marks an event pending, as the other domain does by notifying us.
    pub fn raise(&self, port: EventPort) {
        self.pending.borrow_mut().insert(port.0);
    }

    fn run_hook(&self, port: EventPort) {
        let hook = self.on_notify.borrow_mut().take();
        if let Some(mut hook) = hook {
            hook(self, port);
            let mut slot = self.on_notify.borrow_mut();
            if slot.is_none() {
                *slot = Some(hook);
            }
        }
    }
}

impl Hypervisor for FakeHypervisor {
    fn hvm_param(&self, index: u32) -> Result<u64> {
        self.params.borrow().get(&index).copied().ok_or(Errno(22))
    }

    fn set_hvm_param(&self, index: u32, value: u64) -> Result<()> {
        self.params.borrow_mut().insert(index, value);
        Ok(())
    }

    fn map_grant_frame(&self, index: u32, gfn: Gfn) -> Result<()> {
        self.mapped.borrow_mut().insert(gfn.0, ("grant", index));
        Ok(())
    }

    fn map_shared_info(&self, gfn: Gfn) -> Result<()> {
        self.mapped.borrow_mut().insert(gfn.0, ("shared_info", 0));
        Ok(())
    }

    fn unmap(&self, gfn: Gfn) -> Result<()> {
        CountingAllocator::uncounted(|| self.mapped.borrow_mut().remove(&gfn.0)).map(|_| ()).ok_or(Errno(22))
    }

    fn grant_frames_max(&self) -> Result<u32> {
        Ok(32)
    }

    fn allocate_port(&self, _remote: DomainId) -> Result<EventPort> {
        let port = self.next_port.get();
        self.next_port.set(port + 1);
        self.open_ports.borrow_mut().insert(port);
        Ok(EventPort(port))
    }

    fn notify(&self, port: EventPort) -> Result<()> {
        CountingAllocator::uncounted(|| {
            self.sent.borrow_mut().push(port);
            self.run_hook(port);
        });
        Ok(())
    }

    fn close_port(&self, port: EventPort) -> Result<()> {
        let was_open = CountingAllocator::uncounted(|| self.open_ports.borrow_mut().remove(&port.0));
        if was_open { Ok(()) } else { Err(Errno(22)) }
    }

    fn poll(&self, port: EventPort, deadline_ns: u64) -> Result<()> {
        // Time passes in steps, so that the other domain can act in between.
        let step = (deadline_ns.saturating_sub(self.time_ns.get()) / 1000).max(1_000_000);
        loop {
            CountingAllocator::uncounted(|| self.run_hook(port));
            let now = self.time_ns.get();
            if self.pending.borrow().contains(&port.0) || now >= deadline_ns {
                return Ok(());
            }
            let nobody = self.on_notify.borrow().is_none();
            self.time_ns.set(if nobody { deadline_ns } else { now.saturating_add(step).min(deadline_ns) });
        }
    }

    fn memory_map(&self, _entries: &mut [E820Entry]) -> Result<usize> {
        Err(Errno(38))
    }

    fn shutdown(&self, reason: ShutdownReason) {
        self.shutdown.set(Some(reason));
    }

    fn take_pending(&self, port: EventPort) -> bool {
        CountingAllocator::uncounted(|| self.pending.borrow_mut().remove(&port.0))
    }

    fn system_time_ns(&self) -> u64 {
        self.time_ns.set(self.time_ns.get() + self.step_ns.get());
        self.time_ns.get()
    }

    fn wall_clock_ns(&self) -> u64 {
        1_700_000_000_000_000_000 + self.system_time_ns()
    }
}

/// Page source over the test's heap. A frame's number is made of its address, cut to the 32 bits that a grant entry holds,
/// so a test can find the memory of a frame that was granted. Pages are leaked: the other domain of a test may hold on
/// to them.
#[derive(Default, Debug)]
pub struct FakeFrames {
    /// Pages handed out and not yet freed.
    pub live: Cell<usize>,
}

/// The pages behind the frame numbers given out so far, by all tests of the process.
static PAGES: Mutex<BTreeMap<u64, usize>> = Mutex::new(BTreeMap::new());

impl FakeFrames {
    /// The memory of a frame this allocator gave out, seen by the other domain.
    ///
    /// # Panics
    /// If no such frame was given out: the code under test made it up.
    pub fn peer(gfn: Gfn) -> SharedPages {
        let page = PAGES.lock().expect("no test panics inside").get(&gfn.0).copied();
        let page = page.unwrap_or_else(|| panic!("frame {:#x} was never given out", gfn.0));
        let base = NonNull::new(core::ptr::with_exposed_provenance_mut(page)).expect("page of live memory");
        // SAFETY: tests only ask for frames they have seen granted, which live for ever.
        unsafe { SharedPages::new(base, 1, gfn) }
    }

    fn number(address: *const u8) -> Gfn {
        let page = address.expose_provenance() & !(PAGE_SIZE - 1);
        let number = (page / PAGE_SIZE) as u64 & u64::from(u32::MAX);
        let before = PAGES.lock().expect("no test panics inside").insert(number, page);
        assert!(before.is_none_or(|before| before == page), "two pages with one frame number");
        Gfn(number)
    }
}

impl FrameAllocator for FakeFrames {
    fn allocate(&self, pages: usize) -> Option<SharedPages> {
        let layout = std::alloc::Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).ok()?;
        // SAFETY: the size is not zero.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?;
        self.live.set(self.live.get() + pages);
        for page in (0..pages).rev() {
            Self::number(base.as_ptr().wrapping_add(page * PAGE_SIZE));
        }
        // SAFETY: fresh memory, never freed.
        Some(unsafe { SharedPages::new(base, pages, Self::number(base.as_ptr())) })
    }

    fn free(&self, pages: SharedPages) {
        self.live.set(self.live.get() - pages.pages());
    }

    fn map(&self, first: Gfn, pages: usize) -> Option<SharedPages> {
        assert_eq!(pages, 1, "tests map single pages");
        Some(Self::peer(first))
    }

    fn hole(&self, pages: usize) -> Option<SharedPages> {
        let hole = self.allocate(pages);
        // Holes are no memory.
        self.live.set(self.live.get() - hole.as_ref().map_or(0, SharedPages::pages));
        hole
    }

    fn frame_of(&self, address: *const u8) -> Gfn {
        Self::number(address)
    }
}

/// Page source like [`FakeFrames`], whose frames are numbered from 1 on as they are first seen: below 4 GiB, as devices with
/// 32-bit addresses need them. Those of one allocation are in a row.
#[derive(Default, Debug)]
pub struct LowFrames(FakeFrames);

/// The frames given out so far by all tests of the process.
static LOW_FRAMES: Mutex<LowNumbers> = Mutex::new(LowNumbers { pages: Vec::new(), numbers: BTreeMap::new() });

struct LowNumbers {
    /// Pages by frame number less 1, each as [`FakeFrames`] numbers it. Memory used a second time may be there twice.
    pages: Vec<Gfn>,
    /// The latest frame number by page.
    numbers: BTreeMap<u64, u64>,
}

impl LowNumbers {
    fn add(&mut self, page: Gfn) -> Gfn {
        self.pages.push(page);
        let number = self.pages.len() as u64;
        self.numbers.insert(page.0, number);
        Gfn(number)
    }
}

impl LowFrames {
    /// The memory of a frame this allocator gave out, seen by a device.
    ///
    /// # Panics
    /// If no such frame was given out: the code under test made it up.
    pub fn peer(gfn: Gfn) -> SharedPages {
        let index = usize::try_from(gfn.0).unwrap_or(0).wrapping_sub(1);
        let page = LOW_FRAMES.lock().expect("no test panics inside").pages.get(index).copied();
        FakeFrames::peer(page.unwrap_or_else(|| panic!("frame {:#x} was never given out", gfn.0)))
    }

    /// Pages handed out and not yet freed.
    pub fn live(&self) -> usize {
        self.0.live.get()
    }
}

impl FrameAllocator for LowFrames {
    fn allocate(&self, pages: usize) -> Option<SharedPages> {
        let mut memory = self.0.allocate(pages)?;
        let mut numbers = LOW_FRAMES.lock().expect("no test panics inside");
        let first = numbers.pages.len() as u64 + 1;
        for page in 0..pages {
            numbers.add(memory.gfn(page));
        }
        memory.renumber(Gfn(first));
        Some(memory)
    }

    fn free(&self, pages: SharedPages) {
        self.0.free(pages);
    }

    fn map(&self, first: Gfn, _pages: usize) -> Option<SharedPages> {
        Some(Self::peer(first))
    }

    fn hole(&self, _pages: usize) -> Option<SharedPages> {
        None
    }

    fn frame_of(&self, address: *const u8) -> Gfn {
        let page = self.0.frame_of(address);
        let mut numbers = LOW_FRAMES.lock().expect("no test panics inside");
        let known = numbers.numbers.get(&page.0).copied();
        known.map_or_else(|| numbers.add(page), Gfn)
    }
}

/// A device behind ports, as a test plays it.
pub trait FakeDevice {
    /// The guest reads `width` bytes (1, 2 or 4) from `port`; `None` if the port is not this device's.
    fn read(&mut self, port: u16, width: u8) -> Option<u32>;
    /// The guest writes `width` bytes to `port`; `false` if the port is not this device's.
    fn write(&mut self, port: u16, width: u8, value: u32) -> bool;
}

/// Ports with the devices a test puts behind them. What none of them claims reads as all ones.
#[derive(Default)]
pub struct FakePorts {
    /// The devices, asked in this order.
    pub devices: RefCell<Vec<Box<dyn FakeDevice>>>,
}

impl FakePorts {
    /// Ports with one device.
    pub fn with(device: impl FakeDevice + 'static) -> Self {
        Self { devices: RefCell::new(std::vec![Box::new(device)]) }
    }

    fn read(&self, port: u16, width: u8) -> u32 {
        self.devices.borrow_mut().iter_mut().find_map(|device| device.read(port, width)).unwrap_or(u32::MAX)
    }

    fn write(&self, port: u16, width: u8, value: u32) {
        let _ = self.devices.borrow_mut().iter_mut().any(|device| device.write(port, width, value));
    }
}

impl Ports for FakePorts {
    fn read_u8(&self, port: u16) -> u8 {
        self.read(port, 1) as u8
    }
    fn read_u16(&self, port: u16) -> u16 {
        self.read(port, 2) as u16
    }
    fn read_u32(&self, port: u16) -> u32 {
        self.read(port, 4)
    }
    fn write_u8(&self, port: u16, value: u8) {
        self.write(port, 1, value.into());
    }
    fn write_u16(&self, port: u16, value: u16) {
        self.write(port, 2, value.into());
    }
    fn write_u32(&self, port: u16, value: u32) {
        self.write(port, 4, value);
    }
}

/// Windows over the test's heap, zeroed, found by the address they stand for: one range of memory, whatever the length asked
/// for. The memory is leaked, so a test can look at it after the driver is gone.
#[derive(Default, Debug)]
pub struct FakeWindows {
    ranges: RefCell<BTreeMap<u64, (*mut u8, usize)>>,
}

impl FakeWindows {
    /// Puts `length` bytes of memory at `address`.
    pub fn add(&self, address: u64, length: usize) {
        let memory = Box::leak(std::vec![0u64; length.div_ceil(8)].into_boxed_slice());
        self.ranges.borrow_mut().insert(address, (memory.as_mut_ptr().cast(), length));
    }
}

impl Windows for FakeWindows {
    fn window(&self, address: u64, length: usize) -> Option<Box<dyn Window>> {
        let ranges = self.ranges.borrow();
        let (&start, &(memory, size)) = ranges.range(..=address).next_back()?;
        let offset = usize::try_from(address - start).ok()?;
        if offset.checked_add(length)? > size {
            return None;
        }
        // SAFETY: within leaked memory that only windows are made of.
        let window = unsafe { MachineWindow::new(memory.add(offset), length) };
        Some(Box::new(FakeWindow { address, window }))
    }
}

/// A window that says it is where the test put it.
struct FakeWindow {
    address: u64,
    window: MachineWindow,
}

impl Window for FakeWindow {
    fn address(&self) -> u64 {
        self.address
    }
    fn len(&self) -> usize {
        self.window.len()
    }
    fn read_u8(&self, offset: usize) -> u8 {
        self.window.read_u8(offset)
    }
    fn read_u16(&self, offset: usize) -> u16 {
        self.window.read_u16(offset)
    }
    fn read_u32(&self, offset: usize) -> u32 {
        self.window.read_u32(offset)
    }
    fn read_u64(&self, offset: usize) -> u64 {
        self.window.read_u64(offset)
    }
    fn write_u8(&self, offset: usize, value: u8) {
        self.window.write_u8(offset, value);
    }
    fn write_u16(&self, offset: usize, value: u16) {
        self.window.write_u16(offset, value);
    }
    fn write_u32(&self, offset: usize, value: u32) {
        self.window.write_u32(offset, value);
    }
    fn write_u64(&self, offset: usize, value: u64) {
        self.window.write_u64(offset, value);
    }
    fn write_bytes(&self, offset: usize, from: &[u8]) {
        self.window.write_bytes(offset, from);
    }
    fn read_bytes(&self, offset: usize, into: &mut [u8]) {
        self.window.read_bytes(offset, into);
    }
    fn fill_u32(&self, offset: usize, count: usize, value: u32) {
        self.window.fill_u32(offset, count, value);
    }
}
