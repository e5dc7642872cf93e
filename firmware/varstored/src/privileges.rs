//! From root to a user without rights.
//!
//! The handles of Xen that are open by then go on to work: the kernel looks at who opens its devices, not at who uses
//! them. libxentoolcore's `xentoolcore_restrict_all` would bind them to one domain for good, and this process serves all of
//! them; so what is left is root's power over guests, without root's power over dom0's files.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::unistd::{self, Uid, User};

/// Makes the folder of the stores, the user's alone.
///
/// # Errors
/// The file system's; there is no such user.
pub fn prepare_folder(folder: &Path, user: &str) -> Result<()> {
    let named = || folder.display().to_string();
    fs::create_dir_all(folder).with_context(named)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700)).with_context(named)?;
    let user = find(user)?;
    let owned = fs::read_dir(folder).with_context(named)?;
    // An administrator puts a store there as root.
    for path in owned.map(|entry| Ok(entry?.path())).chain([Ok(folder.to_owned())]) {
        let path = path.map_err(|error: std::io::Error| error).with_context(named)?;
        if !path.is_symlink() {
            unistd::chown(&path, Some(user.uid), Some(user.gid)).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Becomes the user.
///
/// # Errors
/// There is no such user; the kernel refuses.
pub fn become_user(user: &str) -> Result<()> {
    let user = find(user)?;
    unistd::setgroups(&[user.gid]).context("giving up root's groups")?;
    unistd::setresgid(user.gid, user.gid, user.gid).context("giving up root's group")?;
    unistd::setresuid(user.uid, user.uid, user.uid).context("giving up root")?;
    nix::sys::prctl::set_no_new_privs().context("giving up new privileges")?;
    if !user.uid.is_root() && unistd::setuid(Uid::from_raw(0)).is_ok() {
        bail!("root could be had back");
    }
    Ok(())
}

fn find(name: &str) -> Result<User> {
    User::from_name(name).with_context(|| format!("looking for the user {name}"))?.with_context(|| {
        format!(
            "there is no user {name}: make one with `useradd --system --no-create-home --shell /usr/sbin/nologin {name}`, \
             or name another with `user =` in the configuration"
        )
    })
}
