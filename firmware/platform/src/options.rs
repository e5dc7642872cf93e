//! What the guest's command line asks of the firmware: words that start with `ovmf.`; all others belong to what is booted.
//! HVM guests have OEM strings for it ([`crate::smbios::options`]), and a command line where a kernel is booted directly.

/// What the firmware's words start with.
pub const PREFIX: &[u8] = b"ovmf.";

/// Options of one start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// `ovmf.timeline`: print the boot timeline when the first program is started.
    pub timeline: bool,
    /// `ovmf.log=error|warn|info|debug|trace`: what goes to Xen's log.
    pub log: log::LevelFilter,
    /// `ovmf.wait`: where nothing boots, wait for a key and show the boot menu instead of shutting down.
    pub wait: bool,
    /// `ovmf.menu`: show the boot menu before anything is started.
    pub menu: bool,
    /// `ovmf.boot-order=toolstack`: try devices in the order of the guest's configuration before the boot entries of
    /// `BootOrder`.
    pub toolstack_order: bool,
    /// `ovmf.variables=daemon`: wait for the daemon that keeps the variables, which may attach after the guest has started.
    pub variable_daemon: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeline: false,
            log: log::LevelFilter::Warn,
            wait: false,
            menu: false,
            toolstack_order: false,
            variable_daemon: false,
        }
    }
}

impl Options {
    /// Reads the options; `report` is told of each word that starts like one and is none.
    pub fn parse(command_line: &[u8], report: impl FnMut(&[u8])) -> Self {
        let mut options = Self::default();
        options.add(command_line, report);
        options
    }

    /// Reads more options, as [`parse`](Self::parse) does.
    pub fn add(&mut self, command_line: &[u8], mut report: impl FnMut(&[u8])) {
        let words = command_line.split(u8::is_ascii_whitespace).filter(|word| word.starts_with(PREFIX));
        for word in words {
            match word {
                b"ovmf.timeline" => self.timeline = true,
                b"ovmf.wait" => self.wait = true,
                b"ovmf.menu" => self.menu = true,
                b"ovmf.boot-order=toolstack" => self.toolstack_order = true,
                b"ovmf.variables=daemon" => self.variable_daemon = true,
                _ => match word.strip_prefix(b"ovmf.log=").and_then(level) {
                    Some(level) => self.log = level,
                    None => report(word),
                },
            }
        }
    }
}

/// Logs a word that starts like an option and is none.
pub fn unknown(word: &[u8]) {
    log::warn!("unknown option {}", word.escape_ascii());
}

fn level(name: &[u8]) -> Option<log::LevelFilter> {
    core::str::from_utf8(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_are_taken_and_others_left_alone() {
        let mut unknown = std::vec::Vec::new();
        let options = Options::parse(b"root=/dev/xvda2 ovmf.timeline ovmf.log=debug ovmf.colour", |word| {
            unknown.push(word.to_vec())
        });
        assert_eq!(options, Options { timeline: true, log: log::LevelFilter::Debug, ..Options::default() });
        assert_eq!(unknown, [b"ovmf.colour".to_vec()]);
    }

    #[test]
    fn options_add_up() {
        let mut options = Options::parse(b"ovmf.wait ", |_| {});
        options.add(b"quiet ovmf.boot-order=toolstack ovmf.menu ovmf.variables=daemon", |_| {});
        assert!(options.wait && options.menu && options.toolstack_order && options.variable_daemon);
    }

    #[test]
    fn a_wrong_level_is_reported_and_changes_nothing() {
        let mut unknown = 0;
        assert_eq!(Options::parse(b"ovmf.log=\xff", |_| unknown += 1), Options::default());
        assert_eq!(unknown, 1);
    }
}
