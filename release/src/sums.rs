//! Lists of files with their SHA-256, as `sha256sum` writes and `sha256sum --check` reads them.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::digest::{is_hex, sha256};

/// Files by name, with the SHA-256 of each in hex.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sums(BTreeMap<String, String>);

/// Why a text is no list of sums.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SumsError {
    /// Not "HASH, two blanks, NAME".
    #[error("line {0} is not a SHA-256, two blanks and a file name")]
    Line(usize),
    /// Names repeat or are not sorted.
    #[error("line {0}: the names must be sorted, each once")]
    Order(usize),
    /// The text ends inside a line.
    #[error("the last line does not end")]
    Cut,
}

impl Sums {
    /// Reads the text of a list. Only what [`Sums`] writes is accepted, so that a list has one form.
    pub fn parse(text: &str) -> Result<Self, SumsError> {
        let mut sums = BTreeMap::new();
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(SumsError::Cut);
        }
        for (index, line) in text.split_terminator('\n').enumerate() {
            let number = index + 1;
            let (hash, name) = line.split_once("  ").ok_or(SumsError::Line(number))?;
            if !is_hex(hash, 32) || name.is_empty() || name.contains(['\\', '\r', '\0']) {
                return Err(SumsError::Line(number));
            }
            if sums.last_key_value().is_some_and(|(last, _): (&String, _)| last.as_str() >= name) {
                return Err(SumsError::Order(number));
            }
            sums.insert(name.to_owned(), hash.to_owned());
        }
        Ok(Self(sums))
    }

    /// Adds a file by its content.
    pub fn add(&mut self, name: &str, content: &[u8]) {
        self.0.insert(name.to_owned(), sha256(content));
    }

    /// The SHA-256 of a file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// How many files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no file is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// SHA-256 of the list's text: one digest for all files.
    #[must_use]
    pub fn digest(&self) -> String {
        sha256(self.to_string().as_bytes())
    }

    /// What `other` has else: a line per file, "changed", "new" or "gone".
    #[must_use]
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (name, hash) in &self.0 {
            match other.get(name) {
                None => changes.push(format!("{name}: gone")),
                Some(found) if found != hash => changes.push(format!("{name}: changed")),
                Some(_) => {}
            }
        }
        changes.extend(other.names().filter(|name| self.get(name).is_none()).map(|name| format!("{name}: new")));
        changes
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, hash)| writeln!(f, "{hash}  {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(files: &[(&str, &str)]) -> Sums {
        let mut sums = Sums::default();
        files.iter().for_each(|(name, content)| sums.add(name, content.as_bytes()));
        sums
    }

    #[test]
    fn a_list_reads_what_it_writes() {
        let list = sums(&[("b", "2"), ("a", "1"), ("c d", "3")]);
        assert_eq!(Sums::parse(&list.to_string()), Ok(list));
    }

    #[test]
    fn any_other_form_is_refused_with_its_line() {
        let text = sums(&[("a", "1"), ("b", "2")]).to_string();
        assert_eq!(Sums::parse(text.trim_end()), Err(SumsError::Cut));
        assert_eq!(Sums::parse(&text.replacen("  b", " *b", 1)), Err(SumsError::Line(2)));
        assert_eq!(Sums::parse(&text.to_uppercase()), Err(SumsError::Line(1)));
        assert_eq!(Sums::parse(&text.replacen("  a", "  c", 1)), Err(SumsError::Order(2)));
        assert_eq!(Sums::parse(&format!("{text}\n")), Err(SumsError::Line(3)));
    }

    #[test]
    fn changes_are_named() {
        let (old, new) = (sums(&[("a", "1"), ("b", "2"), ("c", "3")]), sums(&[("b", "0"), ("c", "3"), ("d", "4")]));
        assert_eq!(old.changes(&new), ["a: gone", "b: changed", "d: new"]);
        assert!(old.changes(&old).is_empty());
    }
}
