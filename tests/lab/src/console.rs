//! A log that grows, read as it does: a guest's console or the hypervisor's.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Result;
use regex::bytes::Regex;

use crate::command::last_lines;

/// A growing log file, cleaned of terminal control, with the position up to which it has been looked at.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    offset: u64,
    plain: Plain,
    /// Up to here `expect` has matched.
    matched: usize,
    /// Up to here `fresh` has handed out.
    shown: usize,
}

impl Log {
    /// Follows `path` from `offset` on; the file need not exist yet.
    #[must_use]
    pub fn follow(path: &Path, offset: u64) -> Self {
        Self { path: path.to_owned(), offset, plain: Plain::default(), matched: 0, shown: 0 }
    }

    /// Takes in what the file has grown by.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn poll(&mut self) -> Result<()> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(()) };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        self.offset += file.read_to_end(&mut bytes)? as u64;
        self.plain.push(&bytes);
        Ok(())
    }

    /// The first match of `pattern` after the last one, as text; later searches start behind it.
    pub fn expect(&mut self, pattern: &Regex) -> Option<Match> {
        let captures = pattern.captures(&self.plain.text[self.matched..])?;
        let whole = captures.get(0)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = Match {
            text: text(whole.as_bytes()),
            epoch: captures.name("epoch").and_then(|epoch| text(epoch.as_bytes()).parse().ok()),
        };
        self.matched += whole.end();
        Some(found)
    }

    /// The first match of `pattern` anywhere in the log.
    #[must_use]
    pub fn contains(&self, pattern: &Regex) -> Option<String> {
        pattern.find(&self.plain.text).map(|found| String::from_utf8_lossy(found.as_bytes()).into_owned())
    }

    /// The whole lines that came since the last call.
    pub fn fresh(&mut self) -> Vec<String> {
        let rest = &self.plain.text[self.shown..];
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let text = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.shown += end + 1;
        text.split('\n').map(str::to_owned).collect()
    }

    /// The last `count` lines.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> String {
        last_lines(&self.text(), count)
    }

    /// Whether nothing came yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plain.text.is_empty()
    }

    /// The whole cleaned text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.plain.text).into_owned()
    }
}

/// What an expectation matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The matched text.
    pub text: String,
    /// The number in the group named `epoch`, if the pattern has one.
    pub epoch: Option<u64>,
}

/// Text without terminal control: escape sequences and carriage returns are dropped, setting the cursor's position
/// counts as a new line.
#[derive(Debug, Default)]
struct Plain {
    text: Vec<u8>,
    escape: Escape,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// ESC was seen.
    Started,
    /// ESC and an intermediate byte (such as `(`) were seen; one more byte ends it.
    Intermediate,
    /// ESC `[` was seen.
    Control,
}

impl Plain {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.escape = match (self.escape, byte) {
                (_, 0x1b) => Escape::Started,
                (Escape::Started, b'[') => Escape::Control,
                (Escape::Started, 0x20..=0x2f) => Escape::Intermediate,
                (Escape::Control, 0x40..=0x7e) => {
                    if matches!(byte, b'H' | b'f' | b'E') {
                        self.new_line();
                    }
                    Escape::None
                }
                (Escape::Control, _) => Escape::Control,
                (Escape::Started | Escape::Intermediate, _) => Escape::None,
                (Escape::None, b'\r' | 0) => Escape::None,
                (Escape::None, byte) => {
                    self.text.push(*byte);
                    Escape::None
                }
            };
        }
    }

    fn new_line(&mut self) {
        if self.text.last().is_some_and(|last| *last != b'\n') {
            self.text.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(parts: &[&[u8]]) -> String {
        let mut plain = Plain::default();
        for part in parts {
            plain.push(part);
        }
        String::from_utf8(plain.text).unwrap()
    }

    fn log(text: &[u8]) -> Log {
        let mut log = Log::follow(Path::new("/nonexistent"), 0);
        log.plain.push(text);
        log
    }

    #[test]
    fn colours_are_dropped() {
        assert_eq!(plain(&[b"\x1b[1m\x1b[37;40mShell> \x1b[0mls\r\n"]), "Shell> ls\n");
    }

    #[test]
    fn an_escape_sequence_may_be_split_between_reads() {
        assert_eq!(plain(&[b"a\x1b[3", b"7mb"]), "ab");
    }

    #[test]
    fn setting_the_cursor_starts_a_line() {
        assert_eq!(plain(&[b"a\x1b[02;01Hb"]), "a\nb");
    }

    #[test]
    fn an_expectation_starts_behind_the_last_match() {
        let mut log = log(b"one two one");
        let one = Regex::new("one").unwrap();
        assert!(log.expect(&one).is_some());
        assert!(log.expect(&one).is_some());
        assert!(log.expect(&one).is_none());
    }

    #[test]
    fn a_group_named_epoch_is_read_as_a_number() {
        let found = log(b"epoch=17 ").expect(&Regex::new(r"epoch=(?<epoch>\d+)").unwrap());
        assert_eq!(found.unwrap().epoch, Some(17));
    }

    #[test]
    fn only_whole_lines_are_fresh() {
        let mut log = log(b"one\ntw");
        assert_eq!(log.fresh(), ["one"]);
        log.plain.push(b"o\n");
        assert_eq!(log.fresh(), ["two"]);
    }
}
