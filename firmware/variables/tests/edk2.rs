//! EDK2 itself, in plain QEMU, opens a store of ours that was cut in the middle of a fault tolerant write, and decides about
//! it as `journal::recover` does.
//!
//! `EDK2_CODE` names EDK2's code image and `EDK2_VARS` the empty store that belongs to it, a distribution's
//! `OVMF_CODE_4M.fd` and `OVMF_VARS_4M.fd`: `cargo test -p variables --test edk2 -- --ignored`.
#![expect(clippy::expect_used, reason = "these are tests, helper functions included")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use uefi_raw::{Guid, guid};
use variables::backend::{BackendError, Medium, NoMedium};
use variables::journal::{self, Recovery};
use variables::store::Meta;
use variables::{Key, Store, volume};

const VENDOR: Guid = guid!("11111111-2222-3333-4444-555555555555");
const NAME: [u16; 2] = [0x4f, 0x6b];
const META: Meta = Meta { attributes: 3, time_stamp: [0; 16] };
const PATIENCE: Duration = Duration::from_secs(120);

/// A file whose power is cut after so many bytes.
struct File {
    bytes: Vec<u8>,
    budget: usize,
}

impl Medium for File {
    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), BackendError> {
        let length = bytes.len().min(self.budget);
        self.bytes[offset..offset + length].copy_from_slice(&bytes[..length]);
        self.budget -= length;
        if length == bytes.len() { Ok(()) } else { Err(BackendError) }
    }
}

/// QEMU, which ends with the test.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn file(variable: &str) -> PathBuf {
    env::var_os(variable).map(PathBuf::from).expect("EDK2_CODE and EDK2_VARS name EDK2's images")
}

/// EDK2's empty store after a write of ours that was cut after `budget` bytes.
fn cut_after(budget: usize) -> Vec<u8> {
    let mut new = fs::read(file("EDK2_VARS")).expect("EDK2's empty store");
    let mut medium = File { bytes: new.clone(), budget };
    let offset = volume::store_offset(&new).expect("a volume of variables");
    let mut store = Store::open(volume::region(&mut new), offset).map_err(|(_, error)| error).expect("a store");
    store.write(Key::new(VENDOR, &NAME), META, b"written by way of the journal").expect("memory cannot fail");
    journal::replace(&mut new, &mut medium).expect_err("the power is cut");
    medium.bytes
}

fn has_variable(bytes: &mut [u8]) -> bool {
    let Ok(offset) = volume::store_offset(bytes) else { return false };
    Store::open(volume::region(bytes), offset).is_ok_and(|store| store.find(Key::new(VENDOR, &NAME)).is_some())
}

/// Starts EDK2 with the store at `path`, and says whether the store ever holds the variable, until it does or EDK2 has written
/// variables of its own. What comes after a completed write is not looked at: in QEMU the flash gives its status in place of
/// its content after EDK2 has erased the spare area last, and EDK2 takes that for an empty store.
fn edk2_completes(path: &Path) -> bool {
    let drive =
        |unit: u8, rest: &str, file: &Path| format!("if=pflash,format=raw,unit={unit}{rest},file={}", file.display());
    let child = Command::new("qemu-system-x86_64")
        .args(["-machine", "q35", "-accel", "tcg", "-m", "256", "-display", "none", "-serial", "none", "-net", "none"])
        .args(["-drive", &drive(0, ",readonly=on", &file("EDK2_CODE")), "-drive", &drive(1, "", path)])
        .stdin(Stdio::null())
        .spawn();
    let _qemu = Qemu(child.expect("qemu-system-x86_64 runs"));
    let started = Instant::now();
    loop {
        let mut bytes = fs::read(path).expect("the store is there");
        if has_variable(&mut bytes) {
            return true;
        }
        let count = volume::store_offset(&bytes).ok().and_then(|offset| {
            let store = Store::open(volume::region(&mut bytes), offset).ok()?;
            Some(store.report().variables)
        });
        if count.is_some_and(|count| count > 0) {
            return false;
        }
        assert!(started.elapsed() < PATIENCE, "EDK2 neither completes the write nor writes variables of its own");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "starts EDK2, which EDK2_CODE and EDK2_VARS name"]
fn edk2_decides_about_a_cut_write_as_we_do() {
    // Header and record take 118 bytes, the spare copy and the store 256 KiB each: the cut is in the record, in the spare copy,
    // and in the store, in front of the variable.
    for (budget, expected) in
        [(90, Recovery::Abandoned), (0x2_0000, Recovery::Abandoned), (0x4_0000 + 200, Recovery::Completed)]
    {
        let cut = cut_after(budget);
        assert!(!has_variable(&mut cut.clone()), "the store is not there yet");
        let mut ours = cut.clone();
        assert_eq!(journal::recover(&mut ours, &mut NoMedium), Ok(expected), "cut after {budget:#x} bytes");
        let path = env::temp_dir().join(format!("variables-edk2-{}.fd", std::process::id()));
        fs::write(&path, &cut).expect("a temporary file can be written");
        let theirs = edk2_completes(&path);
        fs::remove_file(&path).expect("the temporary file can be removed");
        let is_new = expected == Recovery::Completed;
        assert_eq!((has_variable(&mut ours), theirs), (is_new, is_new), "cut after {budget:#x} bytes");
    }
}
