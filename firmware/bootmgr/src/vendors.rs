//! Boot programs of installed systems: `\EFI\VENDOR\…` (UEFI 2.10 §13.3.1.1), for volumes that no boot entry leads to.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::devices::Volume;
use crate::firmware::Firmware;

/// Folder of the vendors' folders.
const VENDORS: &str = "\\EFI";
/// Folders in it that are no vendor's: the removable media path has its own turn, and the others hold no boot program.
const OTHERS: [&str; 3] = ["boot", "tools", "linux"];
/// Boot programs as the systems call them, in lower case: Debian, Ubuntu, Fedora, CentOS, Red Hat, Rocky, Alma, Arch and others
/// have `shimx64.efi` or `grubx64.efi`, openSUSE `shim.efi`. What Secure Boot lets in comes first.
const PROGRAMS: [&str; 8] = [
    "shimx64.efi",
    "shim.efi",
    "grubx64.efi",
    "grub.efi",
    "systemd-bootx64.efi",
    "refind_x64.efi",
    "limine_x64.efi",
    "loader.efi",
];
/// A vendor with a folder more; it comes last, as the others' programs offer it in their menus.
const MICROSOFT: &str = "microsoft";
const MICROSOFT_PROGRAM: &str = "\\EFI\\Microsoft\\Boot\\bootmgfw.efi";

/// The boot programs of all vendors on a volume: vendors by name, of each those that are there.
pub fn programs(firmware: &mut dyn Firmware, volume: &Volume) -> Vec<String> {
    let mut vendors: Vec<String> = folders(firmware, volume);
    vendors.sort_by_key(|name| name.to_lowercase());
    let mut found = Vec::new();
    for vendor in vendors {
        let folder = format!("{VENDORS}\\{vendor}");
        let files = firmware.list(volume, &folder).unwrap_or_default();
        for program in PROGRAMS {
            let file = files.iter().find(|file| !file.is_directory && file.name.eq_ignore_ascii_case(program));
            found.extend(file.map(|file| format!("{folder}\\{}", file.name)));
        }
    }
    if firmware.exists(volume, MICROSOFT_PROGRAM) {
        found.push(MICROSOFT_PROGRAM.into());
    }
    found
}

fn folders(firmware: &mut dyn Firmware, volume: &Volume) -> Vec<String> {
    let entries = firmware.list(volume, VENDORS).unwrap_or_default().into_iter();
    let names = entries.filter(|entry| entry.is_directory).map(|entry| entry.name);
    let is_vendor = |name: &String| {
        let name = name.to_lowercase();
        !OTHERS.contains(&name.as_str()) && name != MICROSOFT
    };
    names.filter(is_vendor).collect()
}
