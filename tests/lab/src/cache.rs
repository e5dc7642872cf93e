//! What is expensive to make and the same every time: kept in a folder, keyed by the hash of what it is made from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The cache folder: `$OVMF_XEN_CACHE`, else `~/.cache/ovmf-xen`.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache, making its folder when it is missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open() -> Result<Self> {
        let root = match std::env::var_os("OVMF_XEN_CACHE") {
            Some(path) => PathBuf::from(path),
            None => home()?.join(".cache/ovmf-xen"),
        };
        fs::create_dir_all(&root).with_context(|| format!("cannot make the cache folder {}", root.display()))?;
        Ok(Self { root: root.canonicalize()? })
    }

    /// A path inside the cache.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The folder of `kind` made from `key`. When it is not there yet, `build` fills an empty folder that then
    /// becomes it; folders of the same kind that nobody has used for some days are removed.
    ///
    /// # Errors
    /// What `build` reports, or the file system.
    pub fn entry(&self, kind: &str, key: &Key, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let name = format!("{kind}-{}", key.digest());
        let path = self.path(&name);
        if path.is_dir() {
            fs::write(path.join(USED), "")?;
            return Ok(path);
        }
        let partial = self.path(&format!("partial-{name}-{}", std::process::id()));
        remove(&partial)?;
        fs::create_dir_all(&partial)?;
        build(&partial).inspect_err(|_| drop(remove(&partial)))?;
        fs::write(partial.join(USED), "")?;
        self.remove_unused(kind)?;
        fs::rename(&partial, &path).with_context(|| format!("cannot put {} in place", path.display()))?;
        Ok(path)
    }

    fn remove_unused(&self, kind: &str) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let of_kind = name.strip_prefix(kind).is_some_and(|rest| rest.strip_prefix('-').is_some_and(is_digest));
            if of_kind && is_unused(&entry.path()) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A file in each entry whose time tells when it was last asked for.
const USED: &str = ".used";
/// Another checkout may have another recipe and share this cache, so an entry stays for a while.
const KEPT: Duration = Duration::from_secs(3 * 24 * 3600);

fn is_unused(entry: &Path) -> bool {
    let used = fs::metadata(entry.join(USED)).and_then(|metadata| metadata.modified());
    used.is_ok_and(|used| SystemTime::now().duration_since(used).is_ok_and(|age| age > KEPT))
}

/// What an entry is made from, folded into one digest.
#[derive(Debug, Clone, Default)]
pub struct Key(Sha256);

impl Key {
    /// Adds one ingredient. Its length is part of the digest, so neighbours cannot run together.
    #[must_use]
    pub fn with(mut self, ingredient: impl AsRef<[u8]>) -> Self {
        let bytes = ingredient.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// The digest as a folder name carries it.
    #[must_use]
    pub fn digest(&self) -> String {
        let full = hex::encode(self.0.clone().finalize());
        full[..DIGEST_CHARACTERS].to_owned()
    }
}

/// Characters of the digest that a folder's name carries.
const DIGEST_CHARACTERS: usize = 16;

fn is_digest(text: &str) -> bool {
    text.len() == DIGEST_CHARACTERS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn home() -> Result<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).context("neither OVMF_XEN_CACHE nor HOME is set")
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(name: &str) -> Cache {
        let root = std::env::temp_dir().join(format!("lab-cache-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Cache { root }
    }

    #[test]
    fn an_entry_is_built_once() {
        let cache = cache("once");
        let key = Key::default().with("a");
        let first = cache.entry("thing", &key, |path| Ok(fs::write(path.join("file"), "x")?)).unwrap();
        let second = cache.entry("thing", &key, |_| panic!("built twice")).unwrap();
        assert_eq!(first, second);
        assert!(first.join("file").exists());
        fs::remove_dir_all(&cache.root).unwrap();
    }

    #[test]
    fn a_new_key_leaves_what_was_used_lately_and_removes_the_rest() {
        let cache = cache("replace");
        let [recent, unused] =
            ["a", "b"].map(|key| cache.entry("thing", &Key::default().with(key), |_| Ok(())).unwrap());
        let long_ago = SystemTime::now() - 2 * KEPT;
        fs::File::options().write(true).open(unused.join(USED)).unwrap().set_modified(long_ago).unwrap();
        let new = cache.entry("thing", &Key::default().with("c"), |_| Ok(())).unwrap();
        assert!(new.exists() && recent.exists() && !unused.exists());
        fs::remove_dir_all(&cache.root).unwrap();
    }

    #[test]
    fn a_failed_build_leaves_nothing() {
        let cache = cache("failed");
        let result = cache.entry("thing", &Key::default(), |_| anyhow::bail!("no"));
        assert!(result.is_err());
        assert_eq!(fs::read_dir(&cache.root).unwrap().count(), 0);
        fs::remove_dir_all(&cache.root).unwrap();
    }

    #[test]
    fn neighbouring_ingredients_do_not_run_together() {
        assert_ne!(Key::default().with("ab").with("c").digest(), Key::default().with("a").with("bc").digest());
    }
}
