//! Messages on the error output, with the priorities that systemd reads when it is there.

use std::env;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Journal {
    /// A number in angle brackets in front, as in `sd-daemon(3)`.
    priorities: bool,
}

impl Log for Journal {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let priority = match record.level() {
            Level::Error => "<3>",
            Level::Warn => "<4>",
            Level::Info => "<6>",
            Level::Debug | Level::Trace => "<7>",
        };
        let priority = if self.priorities { priority } else { "" };
        // Nobody can be told that nobody can be told.
        let _ = writeln!(std::io::stderr(), "{priority}{}", record.args());
    }

    fn flush(&self) {}
}

/// Starts it.
pub fn start(level: LevelFilter) {
    let journal = Journal { priorities: env::var_os("JOURNAL_STREAM").is_some() };
    if log::set_boxed_logger(Box::new(journal)).is_ok() {
        log::set_max_level(level);
    }
}

/// Tells systemd, if it wants to know, that guests are served (`sd_notify(3)`).
pub fn ready() {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let told = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address));
    if let Err(error) = told {
        log::warn!("systemd is not told that guests are served: {error}");
    }
}
