//! Log lines go to Xen's log, through the debug port that every guest has.

use core::fmt::{self, Write};

use hw::port;

/// The debug port as a text sink.
#[derive(Debug)]
pub struct DebugPort;

impl Write for DebugPort {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        port::debug_write(text.as_bytes());
        Ok(())
    }
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // Nothing to be done if the port fails, and it cannot.
        let microseconds = crate::timeline::nanoseconds() / 1000;
        let (level, text) = (record.level(), record.args());
        let _ =
            writeln!(DebugPort, "ovmf-xen [{:4}.{:03} ms] {level}: {text}", microseconds / 1000, microseconds % 1000);
    }

    fn flush(&self) {}
}

/// Starts logging what is at least as important as `level`. Each byte costs a visit to the hypervisor, so the default is low.
pub fn start(level: log::LevelFilter) {
    static LOGGER: Logger = Logger;
    // Fails only if there is a logger already.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}
