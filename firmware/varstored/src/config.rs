//! What the administrator wants: `/etc/ovmf-xen/varstored.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// Where it is read from when nothing else is said; it may be missing.
pub const DEFAULT_PATH: &str = "/etc/ovmf-xen/varstored.toml";

/// The configuration. All of it has a default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The folder with the stores, `NAME.fd` or `UUID.fd` each.
    pub folder: PathBuf,
    /// What a guest's first store is a copy of; an empty one where it is missing.
    pub template: Option<PathBuf>,
    /// Which guests are served.
    pub guests: Guests,
    /// The user that the daemon becomes once it has opened its devices.
    pub user: String,
}

/// Which guests are served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Guests {
    /// All of them: the word `all`.
    All(All),
    /// Those with these names or UUIDs.
    Listed(Vec<String>),
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum All {
    /// The word.
    All,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: "/var/lib/ovmf-xen/vars".into(),
            template: None,
            guests: Guests::All(All::All),
            user: "ovmf-varstored".into(),
        }
    }
}

impl Config {
    /// Reads the file; without one at the default path everything is as by default.
    ///
    /// # Errors
    /// The file cannot be read, or says what is not understood.
    pub fn read(path: Option<&Path>) -> Result<Self> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        if path.is_none() && !file.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        toml::from_str(&text).with_context(|| file.display().to_string())
    }
}

impl Guests {
    /// Whether the guest of that name and UUID is served.
    #[must_use]
    pub fn contains(&self, name: &str, uuid: &str) -> bool {
        match self {
            Self::All(All::All) => true,
            Self::Listed(listed) => listed.iter().any(|entry| entry == name || entry.eq_ignore_ascii_case(uuid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    }

    #[test]
    fn guests_are_all_or_listed() {
        let config: Config = toml::from_str("guests = 'all'").unwrap();
        assert!(config.guests.contains("a", "b"));
        let config: Config = toml::from_str("guests = ['web', '2A7C0000-0000-0000-0000-000000000001']").unwrap();
        assert!(config.guests.contains("web", ""));
        assert!(config.guests.contains("other", "2a7c0000-0000-0000-0000-000000000001"));
        assert!(!config.guests.contains("other", ""));
        assert!(toml::from_str::<Config>("guests = 'some'").is_err());
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(toml::from_str::<Config>("guest = 'all'").unwrap_err().to_string().contains("guest"));
    }
}
