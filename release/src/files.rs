//! Reading and replacing files.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// More than any firmware image has: a device or a disk image named by mistake is not read whole.
const SIZE_LIMIT: u64 = 64 << 20;

/// The content of an image or variable store.
///
/// # Errors
/// It cannot be read, or is larger than any image.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let name = || path.display().to_string();
    let size = fs::metadata(path).with_context(name)?.len();
    if size > SIZE_LIMIT {
        bail!("{}: has {size} bytes; firmware images have {} MiB at most", name(), SIZE_LIMIT >> 20);
    }
    fs::read(path).with_context(name)
}

/// Puts `bytes` into the file at once: under its name there is the old content or the new, at any time. An existing file
/// keeps its permissions.
///
/// # Errors
/// The file system's.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // Through a link the file it leads to is meant, not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let partial = path.with_added_extension(format!("{}.part", std::process::id()));
    let written = write_and_rename(&partial, path, bytes);
    if written.is_err() {
        // What is left of it is of no use; that it was not made is the news.
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn write_and_rename(partial: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(partial)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(fs::rename(partial, path)?)
}

/// Writes to standard output. A reader that has seen enough (`head`) is no error.
///
/// # Errors
/// It cannot be written.
pub fn print(bytes: impl AsRef<[u8]>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// Text of strangers for a terminal: control characters are written out.
#[must_use]
pub fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_permissions() {
        let folder = std::env::temp_dir().join(format!("ovmf-xen-files-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.fd");
        fs::write(&path, "old").unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        assert!(fs::metadata(&path).unwrap().permissions().readonly());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&folder).unwrap();
        assert!(replace(&path, b"").unwrap_err().to_string().contains("a.fd"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mü"), "a\\u{1b}[31mü");
    }
}
