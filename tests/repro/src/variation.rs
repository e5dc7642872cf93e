//! What is varied: things about the machine that may not matter.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use lab::command;

use crate::build::{Build, quote};
use crate::inputs::{Inputs, copy_checkout};

/// Something about the machine that may not matter.
#[derive(Debug, Clone, Copy)]
pub struct Variation {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is other than usual.
    pub what: &'static str,
    /// Variations that it takes: another user reads nothing of this one's.
    pub needs: &'static [&'static str],
    apply: fn(&Inputs, &mut Build) -> Result<Applied>,
}

/// What became of a variation.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    /// The build is varied.
    Yes,
    /// It cannot be done here, and why.
    LeftOut(String),
}

/// All variations, in the order in which they are applied.
pub const VARIATIONS: [Variation; 17] = [
    Variation {
        name: "checkout-path",
        what: "the checkout is in another folder, whose name has a blank and a letter beyond ASCII",
        needs: &[],
        apply: checkout_path,
    },
    Variation { name: "home", what: "HOME is another, empty folder", needs: &[], apply: home },
    Variation {
        name: "cargo-home",
        what: "CARGO_HOME is another folder, and the crates come from a folder instead of a registry",
        needs: &[],
        apply: cargo_home,
    },
    Variation {
        name: "cargo-config",
        what: "CARGO_HOME/config.toml has compiler flags, a wrapper of the compiler and another release profile",
        needs: &["cargo-home"],
        apply: cargo_config,
    },
    Variation {
        name: "toolchain-path",
        what: "the toolchain is in another folder, without rustup",
        // In cargo's usual home rustup's programs would be found first.
        needs: &["cargo-home"],
        apply: toolchain_path,
    },
    Variation {
        name: "rust-src",
        what: "the toolchain has the source of its library (or has not, where it usually has)",
        needs: &["cargo-home", "toolchain-path"],
        apply: rust_src,
    },
    Variation {
        name: "user",
        what: "another user, without a name in /etc/passwd and without rights",
        needs: &["checkout-path", "home", "cargo-home", "toolchain-path"],
        apply: user,
    },
    Variation { name: "umask", what: "umask 077", needs: &[], apply: umask },
    Variation { name: "locale", what: "Turkish", needs: &[], apply: locale },
    Variation { name: "time-zone", what: "14 hours ahead of UTC", needs: &[], apply: time_zone },
    Variation { name: "clock", what: "the clock is 5000 days ahead", needs: &[], apply: clock },
    Variation { name: "cores", what: "one processor instead of all", needs: &[], apply: cores },
    Variation { name: "host-name", what: "another host name, other process numbers", needs: &[], apply: host_name },
    Variation {
        name: "file-order",
        what: "folders list their files the other way round (disorderfs)",
        needs: &[],
        apply: file_order,
    },
    Variation {
        name: "environment",
        what: "variables that compilers, cargo and make look at are set",
        needs: &[],
        apply: environment,
    },
    Variation { name: "xen-headers", what: "Xen's headers are of another release", needs: &[], apply: xen_headers },
    Variation { name: "libclang", what: "bindgen reads them with another libclang", needs: &[], apply: libclang },
];

/// A user that no system has.
const USER: u32 = 54_321;
/// Found in an image, these would be noticed.
const USER_NAME: &str = "reprouser";
const HOST_NAME: &str = "reprohost";
const DAYS_AHEAD: u64 = 5000;

impl Variation {
    /// The variation of a name.
    ///
    /// # Errors
    /// There is none; the message lists those that there are.
    pub fn named(name: &str) -> Result<Self> {
        match VARIATIONS.iter().find(|variation| variation.name == name) {
            Some(variation) => Ok(*variation),
            None => bail!("no variation {name:?}; there are: {}", VARIATIONS.map(|known| known.name).join(", ")),
        }
    }

    /// Varies a build.
    ///
    /// # Errors
    /// What the variation takes cannot be had.
    pub fn apply(&self, inputs: &Inputs, build: &mut Build) -> Result<Applied> {
        (self.apply)(inputs, build)
    }
}

/// `chosen` and what they need, in the order in which they are applied.
#[must_use]
pub fn with_needs(chosen: &[Variation]) -> Vec<Variation> {
    let is_needed =
        |name: &str| chosen.iter().any(|variation| variation.name == name || variation.needs.contains(&name));
    VARIATIONS.into_iter().filter(|variation| is_needed(variation.name)).collect()
}

fn checkout_path(_: &Inputs, build: &mut Build) -> Result<Applied> {
    let source = build.folder.join("another checkout, à côté");
    copy_checkout(&build.source, &source)?;
    build.source = source;
    Ok(Applied::Yes)
}

fn home(inputs: &Inputs, build: &mut Build) -> Result<Applied> {
    let home = build.folder.join("home/reprohome");
    fs::create_dir_all(&home)?;
    build.set("HOME", home.display().to_string());
    build.traces.path("home directory", &home);
    // Where these are, HOME usually says.
    build.set("CARGO_HOME", inputs.cargo_home.display().to_string());
    build.set("RUSTUP_HOME", inputs.rustup_home.display().to_string());
    Ok(Applied::Yes)
}

fn cargo_home(inputs: &Inputs, build: &mut Build) -> Result<Applied> {
    let home = build.folder.join("another cargo home");
    let crates = inputs.crates()?;
    let config = format!(
        "[source.crates-io]\nreplace-with = \"folder\"\n[source.folder]\ndirectory = {:?}\n",
        crates.display().to_string()
    );
    command::write(&home.join("config.toml"), config)?;
    // rustup's programs are in the usual one.
    build.prepend_path(&inputs.cargo_home.join("bin"));
    build.set("CARGO_HOME", home.display().to_string());
    build.traces.path("cargo's home", &home);
    build.traces.path("folder of the crates", &crates);
    Ok(Applied::Yes)
}

fn cargo_config(_: &Inputs, build: &mut Build) -> Result<Applied> {
    let path = build.folder.join("another cargo home/config.toml");
    let flags = r#"["-Copt-level=0", "-Ccodegen-units=16", "-Cdebuginfo=2", "-Cstrip=symbols"]"#;
    let config = format!(
        "{}[build]\nrustflags = {flags}\nrustc-wrapper = \"/usr/bin/false\"\n\
         [target.x86_64-unknown-none]\nrustflags = {flags}\n[target.x86_64-unknown-uefi]\nrustflags = {flags}\n\
         [profile.release]\nopt-level = 0\nlto = false\ncodegen-units = 16\ndebug = true\nstrip = true\n\
         overflow-checks = true\ndebug-assertions = true\nincremental = true\n",
        fs::read_to_string(&path)?
    );
    command::write(&path, config)?;
    Ok(Applied::Yes)
}

fn use_toolchain(build: &mut Build, toolchain: &Path) {
    build.prepend_path(&toolchain.join("bin"));
    build.set("RUSTUP_HOME", build.folder.join("no rustup").display().to_string());
    build.traces.path("toolchain", toolchain);
}

fn toolchain_path(inputs: &Inputs, build: &mut Build) -> Result<Applied> {
    use_toolchain(build, &inputs.toolchain(inputs.has_rust_src())?);
    Ok(Applied::Yes)
}

fn rust_src(inputs: &Inputs, build: &mut Build) -> Result<Applied> {
    use_toolchain(build, &inputs.toolchain(!inputs.has_rust_src())?);
    Ok(Applied::Yes)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}

fn needs_root() -> Applied {
    Applied::LeftOut("it takes root".to_owned())
}

fn user(_: &Inputs, build: &mut Build) -> Result<Applied> {
    if !is_root() {
        return Ok(needs_root());
    }
    let id = USER.to_string();
    build.prefix.extend(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"].map(str::to_owned));
    build.user = Some(USER);
    for name in ["USER", "LOGNAME"] {
        build.set(name, USER_NAME);
    }
    build.traces.text("name of the user", USER_NAME);
    // The checkout is the user's own, as it would be.
    let mut own = Command::new("chown");
    own.args(["-R", &format!("{USER}:{USER}")]).arg(&build.source);
    own.args(["home", "another cargo home"].map(|folder| build.folder.join(folder)));
    command::output(&mut own)?;
    Ok(Applied::Yes)
}

fn umask(_: &Inputs, build: &mut Build) -> Result<Applied> {
    build.setup.push("umask 077".to_owned());
    Ok(Applied::Yes)
}

fn locale(inputs: &Inputs, build: &mut Build) -> Result<Applied> {
    const NAME: &str = "tr_TR.UTF-8";
    let folder = inputs.scratch.join("locales");
    fs::create_dir_all(&folder)?;
    let made = folder.join(NAME);
    if !made.exists() {
        let mut make = Command::new("localedef");
        make.args(["-i", "tr_TR", "-f", "UTF-8"]).arg(&made);
        if let Err(error) = command::output(&mut make) {
            return Ok(Applied::LeftOut(format!("{error:#} (Debian package locales)")));
        }
    }
    build.set("LOCPATH", folder.display().to_string());
    for name in ["LANG", "LC_ALL", "LANGUAGE"] {
        build.set(name, NAME);
    }
    build.traces.text("locale", NAME);
    Ok(Applied::Yes)
}

fn time_zone(_: &Inputs, build: &mut Build) -> Result<Applied> {
    build.set("TZ", "Pacific/Kiritimati");
    Ok(Applied::Yes)
}

fn clock(inputs: &Inputs, build: &mut Build) -> Result<Applied> {
    let ahead = Duration::from_secs(DAYS_AHEAD * 86_400);
    let source = inputs.scratch.join("clock.c");
    let library = inputs.scratch.join("clock.so");
    command::write(&source, include_str!("clock.c"))?;
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O2", &format!("-DAHEAD={}", ahead.as_secs()), "-o"]);
    command::output(compile.arg(&library).arg(&source))?;
    build.set("LD_PRELOAD", library.display().to_string());
    build.clock_offset = ahead;
    Ok(Applied::Yes)
}

fn cores(_: &Inputs, build: &mut Build) -> Result<Applied> {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Ok(Applied::LeftOut("this machine has only one processor".to_owned()));
    }
    build.prefix.extend(["taskset", "--cpu-list", "0"].map(str::to_owned));
    Ok(Applied::Yes)
}

fn host_name(_: &Inputs, build: &mut Build) -> Result<Applied> {
    if !is_root() {
        return Ok(needs_root());
    }
    build.own_namespaces = true;
    build.setup.push(format!("hostname {HOST_NAME}"));
    build.set("HOSTNAME", HOST_NAME);
    build.traces.text("host name", HOST_NAME);
    Ok(Applied::Yes)
}

fn file_order(inputs: &Inputs, build: &mut Build) -> Result<Applied> {
    if !is_root() {
        return Ok(needs_root());
    }
    let Some(disorderfs) = program("disorderfs") else {
        return Ok(Applied::LeftOut("disorderfs is not installed".to_owned()));
    };
    let mount = |from: &Path, at: &Path| {
        format!(
            "{disorderfs} --quiet --multi-user=yes --sort-dirents=yes --reverse-dirents=yes {} {}",
            quote(from),
            quote(at)
        )
    };
    let folders = |number: usize| -> Result<[PathBuf; 2]> {
        let folders = ["real", "turned"].map(|name| build.folder.join(format!("{name}{number}")));
        folders.iter().try_for_each(fs::create_dir_all)?;
        Ok(folders)
    };
    let [real, turned] = folders(0)?;
    let mut tried = Command::new("unshare");
    tried.args(["--mount", "--pid", "--fork", "--kill-child", "bash", "-c", &mount(&real, &turned)]);
    if let Err(error) = command::output(&mut tried) {
        return Ok(Applied::LeftOut(format!("it cannot be mounted: {error:#}")));
    }
    let mut setup = Vec::new();
    for (number, folder) in [build.source.clone(), inputs.crates()?].into_iter().enumerate() {
        let [real, turned] = folders(number)?;
        // Not over itself: disorderfs would wait for itself.
        setup.push(format!("mount --bind {} {}", quote(&folder), quote(&real)));
        setup.push(mount(&real, &turned));
        setup.push(format!("mount --bind {} {}", quote(&turned), quote(&folder)));
    }
    build.setup.extend(setup);
    build.own_namespaces = true;
    Ok(Applied::Yes)
}

fn environment(_: &Inputs, build: &mut Build) -> Result<Applied> {
    for (name, value) in [
        ("RUSTFLAGS", "-Copt-level=0 -Cdebuginfo=2"),
        ("CARGO_ENCODED_RUSTFLAGS", "-Copt-level=1"),
        ("CARGO_BUILD_RUSTFLAGS", "-Copt-level=1"),
        ("CARGO_BUILD_TARGET", "x86_64-unknown-linux-gnu"),
        ("CARGO_BUILD_JOBS", "1"),
        ("CARGO_TARGET_X86_64_UNKNOWN_NONE_RUSTFLAGS", "-Copt-level=0"),
        ("CARGO_TARGET_X86_64_UNKNOWN_UEFI_LINKER", "/usr/bin/false"),
        ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
        ("CARGO_PROFILE_RELEASE_LTO", "off"),
        ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
        ("CARGO_INCREMENTAL", "1"),
        ("RUSTC_WRAPPER", "/usr/bin/false"),
        ("RUSTC_BOOTSTRAP", "1"),
        ("RUSTUP_TOOLCHAIN", "nightly"),
        ("CFLAGS", "-g3"),
        ("CPATH", "/nonexistent"),
        ("C_INCLUDE_PATH", "/nonexistent"),
        ("LDFLAGS", "-Wl,--build-id"),
        ("MAKEFLAGS", "-j7"),
        ("SOURCE_DATE_EPOCH", "1111111111"),
        ("EMAIL", "reprouser@reprohost"),
        ("REPRO_NOISE", "a variable that nothing knows"),
    ] {
        build.set(name, value);
    }
    Ok(Applied::Yes)
}

fn xen_headers(inputs: &Inputs, build: &mut Build) -> Result<Applied> {
    let Some(headers) = inputs.other_xen_headers()? else {
        return Ok(Applied::LeftOut("Debian's releases have the same".to_owned()));
    };
    build.traces.path("folder of Xen's headers", &headers);
    build.set("XEN_HEADERS", headers.display().to_string());
    Ok(Applied::Yes)
}

fn libclang(inputs: &Inputs, build: &mut Build) -> Result<Applied> {
    match inputs.other_libclang()? {
        Ok([clang, llvm]) => {
            build.set("LIBCLANG_PATH", clang.display().to_string());
            build.set("LD_LIBRARY_PATH", format!("{}:{}", clang.display(), llvm.display()));
            Ok(Applied::Yes)
        }
        Err(reason) => Ok(Applied::LeftOut(reason)),
    }
}

/// The path of a program, if it is there.
fn program(name: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let file = path
        .split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(|file| fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0))?;
    Some(file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_variation_needs_is_there_and_comes_before_it() {
        for (index, variation) in VARIATIONS.iter().enumerate() {
            for need in variation.needs {
                assert!(VARIATIONS[..index].iter().any(|before| before.name == *need), "{} {need}", variation.name);
                let further = Variation::named(need).unwrap().needs;
                assert!(further.iter().all(|need| variation.needs.contains(need)), "{} {further:?}", variation.name);
            }
        }
    }

    #[test]
    fn needs_are_added_once_in_order() {
        let chosen = ["cores", "rust-src", "user"].map(|name| Variation::named(name).unwrap());
        let names: Vec<&str> = with_needs(&chosen).iter().map(|variation| variation.name).collect();
        assert_eq!(names, ["checkout-path", "home", "cargo-home", "toolchain-path", "rust-src", "user", "cores"]);
    }

    #[test]
    fn an_unknown_variation_is_answered_with_those_there_are() {
        assert!(Variation::named("phase-of-the-moon").unwrap_err().to_string().contains("time-zone"));
    }
}
