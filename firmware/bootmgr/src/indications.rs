//! What the operating system asks of the next start, and what it is told: what this boot manager can do (UEFI 2.10 §8.5.4, §3.3),
//! and how long variables live.

use services::device_path::{DevicePathBuf, Node};

use crate::firmware::Firmware;
use crate::load_option::{ACTIVE, LoadOption};
use crate::policy::REMOVABLE_PATH;
use crate::variables::{self, GLOBAL, OURS, VOLATILE};

/// `EFI_OS_INDICATIONS_BOOT_TO_FW_UI`.
const MENU: u64 = 0x01;
/// `EFI_OS_INDICATIONS_START_PLATFORM_RECOVERY`.
const RECOVERY: u64 = 0x40;
/// `EFI_BOOT_OPTION_SUPPORT_APP`: applications are entries that only a person chooses.
const SUPPORTS_APPLICATIONS: u32 = 0x02;
/// `EFI_BOOT_OPTION_SUPPORT_SYSPREP`.
const SUPPORTS_SYSTEM_PREPARATION: u32 = 0x10;

/// Tells in a word whose the variables are: `host`, where they outlast the guest, or `guest`, with which they end. Their attributes
/// cannot tell it, as the caller gives them.
const STORAGE: &str = "VariableStorage";

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Indications {
    /// The firmware's menu.
    pub menu: bool,
    /// Platform recovery in place of boot entries.
    pub recovery: bool,
}

/// Reads `OsIndications` and takes out what is about to be done: each is for one start.
pub fn take(firmware: &mut dyn Firmware) -> Indications {
    let Some(bits) = firmware.get(&GLOBAL, "OsIndications").and_then(|data| <[u8; 8]>::try_from(data).ok()) else {
        return Indications::default();
    };
    let bits = u64::from_le_bytes(bits);
    let _ = variables::keep(firmware, &GLOBAL, "OsIndications", &(bits & !(MENU | RECOVERY)).to_le_bytes());
    Indications { menu: bits & MENU != 0, recovery: bits & RECOVERY != 0 }
}

/// Says what can be asked for, what platform recovery is (the removable media path of every volume), and how long variables live.
pub fn publish(firmware: &mut dyn Firmware) {
    let supported = (MENU | RECOVERY).to_le_bytes();
    let options = (SUPPORTS_APPLICATIONS | SUPPORTS_SYSTEM_PREPARATION).to_le_bytes();
    let recovery = DevicePathBuf::new().with(&Node::FilePath(REMOVABLE_PATH.into())).map(|path| {
        let description = "Removable media path of any volume".into();
        let option =
            LoadOption { attributes: ACTIVE, description, path: path.as_bytes().to_vec(), optional_data: [].into() };
        option.to_bytes()
    });
    let storage: &[u8] = if firmware.variables_last() { b"host" } else { b"guest" };
    let facts = [
        (GLOBAL, "OsIndicationsSupported", &supported[..]),
        (GLOBAL, "BootOptionSupport", &options),
        (OURS, STORAGE, storage),
    ];
    let recovery = recovery.iter().map(|option| (GLOBAL, "PlatformRecovery0000", option.as_slice()));
    for (vendor, name, data) in facts.into_iter().chain(recovery) {
        if let Err(status) = firmware.set(&vendor, name, VOLATILE, data) {
            log::warn!("{name} cannot be written: {status}");
        }
    }
}
