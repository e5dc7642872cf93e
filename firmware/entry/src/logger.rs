//! Log lines go to Xen's log, through the debug port that every guest has, and the last of them stay in memory for a person to
//! read in the menu.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};

use hw::port;
use log::LevelFilter;
use services::lock::Lock;

/// Bytes of log that are kept.
const KEPT: usize = 8 << 10;
/// What is kept, whatever goes to the debug port. It costs a copy, where a byte for the port costs a visit to the hypervisor.
const KEPT_LEVEL: LevelFilter = LevelFilter::Info;

/// The debug port as a text sink.
#[derive(Debug)]
pub struct DebugPort;

impl Write for DebugPort {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        port::debug_write(text.as_bytes());
        Ok(())
    }
}

/// The last bytes written; older ones are overwritten.
struct Ring {
    bytes: [u8; KEPT],
    written: usize,
}

impl Write for Ring {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.bytes[self.written % KEPT] = byte;
            self.written += 1;
        }
        Ok(())
    }
}

static RING: Lock<Ring> = Lock::new("log", Ring { bytes: [0; KEPT], written: 0 });
/// What goes to the debug port, as a number.
static PORT_LEVEL: AtomicUsize = AtomicUsize::new(0);

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let microseconds = crate::timeline::nanoseconds() / 1000;
        let (level, text) = (record.level(), record.args());
        let (milliseconds, rest) = (microseconds / 1000, microseconds % 1000);
        // Nothing to be done if either fails, and they cannot.
        if level as usize <= PORT_LEVEL.load(Ordering::Relaxed) {
            let _ = writeln!(DebugPort, "ovmf-xen [{milliseconds:4}.{rest:03} ms] {level}: {text}");
        }
        if level <= KEPT_LEVEL {
            RING.with(|ring| {
                let _ = writeln!(ring, "{milliseconds:6}.{rest:03} {level}: {text}");
            });
        }
    }

    fn flush(&self) {}
}

/// Starts logging what is at least as important as `level`. Each byte costs a visit to the hypervisor, so the default is low.
pub fn start(level: LevelFilter) {
    static LOGGER: Logger = Logger;
    // Fails only if there is a logger already.
    let _ = log::set_logger(&LOGGER);
    set_level(level);
}

/// Changes what goes to the debug port.
pub fn set_level(level: LevelFilter) {
    PORT_LEVEL.store(level as usize, Ordering::Relaxed);
    log::set_max_level(level.max(KEPT_LEVEL));
}

/// The last lines, without the time's unit: milliseconds.
pub fn lines() -> Vec<String> {
    let bytes = RING.with(|ring| {
        let (new, old) = ring.bytes.split_at(ring.written % KEPT);
        if ring.written < KEPT { new.to_vec() } else { [old, new].concat() }
    });
    let text = String::from_utf8_lossy(&bytes);
    let cut = if bytes.len() < KEPT { 0 } else { text.find('\n').map_or(0, |end| end + 1) };
    text[cut..].lines().map(String::from).collect()
}
