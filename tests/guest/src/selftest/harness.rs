//! Running tests and saying how they went, with or without boot services; and the memory that the tests use.

use alloc::string::String;
use core::alloc::{GlobalAlloc, Layout};
use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use uefi_raw::table::boot::MemoryType;

use crate::xen;

/// Unsafe code of the tests.
macro_rules! efi {
    ($($code:tt)*) => {{
        // SAFETY: that the firmware keeps its side of the specification is what this program tests: it calls the
        // firmware's functions with arguments that they have to accept or to refuse, and follows the pointers they return.
        #[allow(clippy::macro_metavars_in_unsafe, reason = "the code is the macro's only argument")]
        unsafe { $($code)* }
    }};
}

/// Calls a boot service.
macro_rules! bs {
    ($service:ident($($argument:expr),* $(,)?)) => { efi!((guest::boot().$service)($($argument),*)) };
}

/// Calls a runtime service at the address it has now.
macro_rules! rs {
    ($service:ident($($argument:expr),* $(,)?)) => {
        efi!(((*$crate::runtime::services()).$service)($($argument),*))
    };
}

/// Calls a function of a protocol, with the protocol as the first argument.
macro_rules! call {
    ($protocol:ident.$function:ident($($argument:expr),* $(,)?)) => {
        efi!(((*$protocol).$function)($protocol, $($argument),*))
    };
}

/// Fails unless the call returns this status.
macro_rules! want {
    ($status:ident, $call:expr $(,)?) => {{
        let status: uefi_raw::Status = $call;
        if status != uefi_raw::Status::$status {
            return Err($crate::harness::failure(
                file!(),
                line!(),
                format_args!("{status:?} instead of {}", stringify!($status)),
            ));
        }
    }};
}

/// Fails unless the condition holds; more arguments are a text for the case that it does not.
macro_rules! check {
    ($condition:expr $(,)?) => {
        if !$condition {
            return Err($crate::harness::failure(file!(), line!(), format_args!("{}", stringify!($condition))));
        }
    };
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::harness::failure(file!(), line!(), format_args!($($text)+)));
        }
    };
}

/// Fails unless both are the same.
macro_rules! same {
    ($left:expr, $right:expr $(,)?) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err($crate::harness::failure(
                file!(),
                line!(),
                format_args!("{} is {left:x?} and not {right:x?}", stringify!($left)),
            ));
        }
    }};
}

/// A list of tests, each by its function's name.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        &[$($crate::harness::Test { name: stringify!($name), run: $name }),*]
    };
}

/// How a test ends: well, or with a reason.
pub type Outcome = Result<(), String>;

/// One claim about the firmware.
pub struct Test {
    /// The claim.
    pub name: &'static str,
    /// Shows it.
    pub run: fn() -> Outcome,
}

/// The reason of a failure: where, and what.
pub fn failure(file: &str, line: u32, what: fmt::Arguments<'_>) -> String {
    let file = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let mut text = String::new();
    let _ = write!(text, "{file}:{line}: {what}");
    text
}

/// How many tests went which way.
#[derive(Default)]
pub struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    /// Runs a group of tests.
    pub fn run(&mut self, group: &str, tests: &[Test]) {
        for test in tests {
            match (test.run)() {
                Ok(()) => {
                    self.passed += 1;
                    say(format_args!("SELFTEST ok {group}.{}", test.name));
                }
                Err(reason) => {
                    self.failed += 1;
                    say(format_args!("SELFTEST FAIL {group}.{} {reason}", test.name));
                }
            }
        }
    }

    /// Counts something that could not even be tried.
    pub fn failed(&mut self, name: &str) {
        self.failed += 1;
        say(format_args!("SELFTEST FAIL {name}"));
    }

    /// Prints the last line.
    pub fn print(&self) {
        say(format_args!("SELFTEST DONE passed={} failed={}", self.passed, self.failed));
    }
}

/// Prints a line where the lab can see it.
pub fn say(text: fmt::Arguments<'_>) {
    let _ = writeln!(guest::Port, "{text}");
    if BOOT_SERVICES.load(Ordering::Relaxed) {
        let _ = writeln!(guest::Console, "{text}");
    } else {
        let _ = write!(xen::Console, "{text}\r\n");
    }
}

static BOOT_SERVICES: AtomicBool = AtomicBool::new(true);

/// From now on there are no boot services.
pub fn boot_services_ended() {
    guest::boot_services_ended();
    BOOT_SERVICES.store(false, Ordering::Relaxed);
}

/// The firmware's pool, and after it a piece of memory of our own that is never given back.
struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

const ARENA_SIZE: usize = 256 * 1024;

#[repr(align(16))]
struct Arena(core::cell::UnsafeCell<[u8; ARENA_SIZE]>);

// SAFETY: pieces of it are given out once each, by an atomic counter.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(core::cell::UnsafeCell::new([0; ARENA_SIZE]));
static ARENA_USED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: AllocatePool gives 8-byte alignment, and more is made from a longer block; the arena's pieces do not overlap.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !BOOT_SERVICES.load(Ordering::Relaxed) {
            let room = layout.size().next_multiple_of(16);
            let start = ARENA_USED.fetch_add(room, Ordering::Relaxed);
            if layout.align() > 16 || start + room > ARENA_SIZE {
                return ptr::null_mut();
            }
            // SAFETY: inside the arena.
            return unsafe { ARENA.0.get().cast::<u8>().add(start) };
        }
        if layout.align() > 8 {
            return ptr::null_mut();
        }
        let mut block = ptr::null_mut();
        let _ = bs!(allocate_pool(MemoryType::LOADER_DATA, layout.size(), &mut block));
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        if BOOT_SERVICES.load(Ordering::Relaxed) {
            let _ = bs!(free_pool(block));
        }
    }
}
