//! Differences made on purpose, to see that they are found and named.

use std::path::Path;

use anyhow::{Result, bail};
use lab::command;

/// A way in which a build could depend on the machine: a build script tells the compiler what it finds.
#[derive(Debug, Clone, Copy)]
pub struct Plant {
    /// Its name on the command line.
    pub name: &'static str,
    /// The variation that it makes a difference under.
    pub culprit: &'static str,
    /// What the build script finds, in Rust.
    finds: &'static str,
}

/// All plants.
pub const PLANTS: [Plant; 3] = [
    Plant { name: "home", culprit: "home", finds: r#"std::env::var("HOME").unwrap_or_default()"# },
    Plant {
        name: "clock",
        culprit: "clock",
        finds: "std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs() / 8_640_000)",
    },
    Plant { name: "cores", culprit: "cores", finds: "std::thread::available_parallelism().map_or(0, usize::from)" },
];

/// A file of the firmware, what is in it, and what is put in its place.
type Change = (&'static str, &'static str, &'static str);
const SCRIPT: Change = (
    "firmware/entry/build.rs",
    "fn main() {\n",
    "fn main() {\n    println!(\"cargo:rustc-env=PLANTED={}\", FINDS);\n    println!(\"cargo:rerun-if-changed=/nonexistent\");\n",
);
const USE: Change = (
    "firmware/entry/src/tpm.rs",
    r#"concat!("ovmf-xen ", env!("CARGO_PKG_VERSION"))"#,
    r#"concat!("ovmf-xen ", env!("CARGO_PKG_VERSION"), " ", env!("PLANTED"))"#,
);

impl Plant {
    /// The plant of a name.
    ///
    /// # Errors
    /// There is none; the message lists those that there are.
    pub fn named(name: &str) -> Result<Self> {
        match PLANTS.iter().find(|plant| plant.name == name) {
            Some(plant) => Ok(*plant),
            None => bail!("no plant {name:?}; there are: {}", PLANTS.map(|known| known.name).join(", ")),
        }
    }

    /// Changes a checkout.
    ///
    /// # Errors
    /// The firmware's source is no longer what this was made for.
    pub fn put_into(&self, checkout: &Path) -> Result<()> {
        for (file, from, to) in [SCRIPT, USE] {
            let path = checkout.join(file);
            let text = String::from_utf8_lossy(&command::read(&path)?).into_owned();
            if text.matches(from).count() != 1 {
                bail!("{file} does not have {from:?} once: bring tests/repro/src/plant.rs up to date");
            }
            command::write(&path, text.replace(from, &to.replace("FINDS", self.finds)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::variation::Variation;

    #[test]
    fn every_plant_has_a_variation_as_its_culprit() {
        for plant in PLANTS {
            Variation::named(plant.culprit).unwrap();
        }
    }

    #[test]
    fn the_firmware_is_what_plants_were_made_for() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (file, from, _) in [SCRIPT, USE] {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            assert_eq!(text.matches(from).count(), 1, "{file}");
        }
    }
}
