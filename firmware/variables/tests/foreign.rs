//! Variable volumes that others made: by EDK2 with keys enrolled, by virt-fw-vars.
//!
//! `VARS_FILES` names the files, separated by colons, for example a distribution's `OVMF_VARS_4M.fd`:
//! `VARS_FILES=... cargo test -p variables --test foreign -- --ignored`. `VIRT_FW_VARS` names the program of that name
//! (PyPI `virt-firmware`), to read what we write.
#![expect(clippy::expect_used, reason = "these are tests, helper functions included")]

use std::env;
use std::fs;
use std::process::Command;

use signatures::Certificate;
use uefi_raw::table::runtime::{VariableAttributes, VariableVendor};
use variables::signature_list::SignatureLists;
use variables::volume::{self, REGION_SIZE};
use variables::{Key, Limits, NoVerifier, Store, Variables};

type Volume = Variables<&'static mut [u8], &'static mut [u8], NoVerifier>;

fn files() -> Vec<(String, Vec<u8>)> {
    let list = env::var("VARS_FILES").expect("VARS_FILES names the files to read");
    list.split(':').map(|path| (path.to_owned(), fs::read(path).expect(path))).collect()
}

fn open(region: Vec<u8>) -> Volume {
    let offset = volume::store_offset(&region).expect("a volume of variables");
    let non_volatile = Store::open(region.leak(), offset).map_err(|(_, error)| error).expect("a store");
    let volatile = Store::format(vec![0; 0x1_0000].leak(), 0).expect("room for a header");
    Variables::new(volatile, non_volatile, NoVerifier, Limits::DEFAULT)
}

fn list(variables: &Volume) -> Vec<(uefi_raw::Guid, Vec<u16>, u32, Vec<u8>)> {
    let mut found = vec![];
    let (mut vendor, mut name) = (uefi_raw::Guid::ZERO, vec![]);
    while let Ok(next) = variables.next(Key::new(vendor, &name)) {
        vendor = next.vendor;
        name = next.name.as_chunks().0.iter().map(|&unit| u16::from_le_bytes(unit)).collect();
        name.pop();
        let value = variables.get(Key::new(vendor, &name)).expect("a listed variable can be read");
        found.push((vendor, name.clone(), value.attributes.bits(), value.data.to_vec()));
    }
    found
}

#[test]
#[ignore = "reads the files named in VARS_FILES"]
fn foreign_volumes_are_read_without_damage() {
    for (path, bytes) in files() {
        let variables = open(bytes[..REGION_SIZE].to_vec());
        let report = variables.non_volatile().report();
        println!("{path}: {report:?}");
        for (vendor, name, attributes, data) in list(&variables) {
            println!("{vendor} {} {attributes:#x} {}", String::from_utf16_lossy(&name), data.len());
        }
        assert_eq!((report.damaged, report.broken_off), (0, false), "{path}");
        assert_eq!(list(&variables).len(), report.variables, "{path}");
    }
}

#[test]
#[ignore = "reads the files named in VARS_FILES"]
fn a_blank_foreign_volume_is_what_format_makes() {
    for (path, bytes) in files() {
        let mut ours = vec![0; REGION_SIZE];
        volume::format(&mut ours).expect("large enough");
        let theirs = open(bytes[..REGION_SIZE].to_vec());
        if theirs.non_volatile().report().variables == 0 {
            assert!(ours == bytes[..REGION_SIZE], "{path}");
        } else {
            assert!(ours[..100] == bytes[..100], "{path}");
        }
    }
}

#[test]
#[ignore = "reads the files named in VARS_FILES"]
fn reclaiming_a_foreign_volume_loses_nothing() {
    for (path, bytes) in files() {
        let mut variables = open(bytes[..REGION_SIZE].to_vec());
        let before = list(&variables);
        variables.non_volatile_mut().reclaim().expect("memory cannot fail");
        assert_eq!(list(&variables), before, "{path}");
        let report = variables.non_volatile().report();
        assert_eq!(report.used + variables.non_volatile().available(), report.capacity, "{path}");
    }
}

#[test]
#[ignore = "reads the files named in VARS_FILES"]
fn a_foreign_volume_with_a_platform_key_is_in_user_mode() {
    let mut with_keys = 0;
    for (path, bytes) in files() {
        let mut variables = open(bytes[..REGION_SIZE].to_vec());
        variables.tell_secure_boot(false).expect("room");
        let global = VariableVendor::GLOBAL_VARIABLE.0;
        let get = |name: &str| {
            let name: Vec<u16> = name.encode_utf16().collect();
            variables.get(Key::new(global, &name)).ok().map(|variable| variable.data.to_vec())
        };
        assert_eq!(get("SetupMode"), Some(vec![u8::from(get("PK").is_none())]), "{path}");
        for lists in [get("PK"), get("KEK")].into_iter().flatten() {
            let lists = SignatureLists::new(&lists).expect("signature lists");
            for certificate in lists.certificates() {
                let certificate = Certificate::new(certificate).expect("a certificate");
                println!("{path}: {}", String::from_utf8_lossy(certificate.common_name()));
                certificate.key().expect("a key that is known");
                with_keys += 1;
            }
        }
    }
    assert!(with_keys > 0, "none of the files has keys");
}

#[test]
#[ignore = "runs the program named in VIRT_FW_VARS"]
fn virt_fw_vars_reads_what_we_write() {
    let program = env::var("VIRT_FW_VARS").expect("VIRT_FW_VARS names virt-fw-vars");
    let mut region = vec![0; REGION_SIZE];
    volume::format(&mut region).expect("large enough");
    let mut variables = open(region);
    let attributes =
        VariableAttributes::NON_VOLATILE | VariableAttributes::BOOTSERVICE_ACCESS | VariableAttributes::RUNTIME_ACCESS;
    let mut set = |name: &str, data: &[u8]| {
        let name: Vec<u16> = name.encode_utf16().collect();
        variables.set(Key::new(VariableVendor::GLOBAL_VARIABLE.0, &name), attributes, data).expect("written");
    };
    set("Timeout", &[7, 0]);
    set("Timeout", &[9, 0]);
    set("BootOrder", &[1, 0, 2, 0]);
    set("PlatformLang", b"en\0");
    set("BootOrder", &[]);
    let mut volume = variables.non_volatile().backend().to_vec();
    volume.resize(volume::VOLUME_SIZE as usize, 0xff);
    let path = env::temp_dir().join(format!("variables-{}.fd", std::process::id()));
    fs::write(&path, volume).expect("a temporary file can be written");
    let output = Command::new(program).arg("--input").arg(&path).arg("--print").output().expect("runs");
    fs::remove_file(&path).expect("the temporary file can be removed");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["PlatformLang : ascii: \"en\"", "Timeout : word: 0x0009"]);
}
