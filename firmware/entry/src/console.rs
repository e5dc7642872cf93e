//! The console of the guest: Xen's, as a terminal.

use alloc::boxed::Box;

use drivers::console::Console;
use drivers::domain::Domain;
use services::api;
use services::console::ByteConsole;
use services::device_path::{DevicePathBuf, Node};
use services::{Guid, Result};
use uefi_raw::guid;

/// `EFI_VT_UTF8_GUID` (UEFI 2.10 §10.3.4.10): the terminal's type in its device path.
const VT_UTF8: Guid = guid!("ad15a0d6-8bec-4acf-a073-d01de77e2d88");
/// The root of Xen's devices on PVH, as OvmfXen names it.
const XEN: Guid = guid!("a732241f-383d-4d9c-8ae1-8e09837589d7");

/// Opens Xen's console and makes it the system's; without one the firmware runs mute.
pub fn start(domain: Domain) -> Option<&'static Console> {
    let console: &'static Console = match Console::open(domain) {
        Ok(console) => Box::leak(Box::new(console)),
        Err(error) => {
            log::error!("{error}");
            return None;
        }
    };
    match install(console) {
        Ok(()) => Some(console),
        Err(status) => {
            log::error!("console: {status}");
            None
        }
    }
}

fn install(console: &'static Console) -> Result<()> {
    let path = DevicePathBuf::new()
        .with(&Node::VendorHardware { guid: XEN, data: alloc::vec![0] })?
        .with(&Node::VendorMessaging { guid: VT_UTF8, data: alloc::vec::Vec::new() })?;
    services::abi::console::install_terminal(path.as_path(), Box::new(Shared(console)))?;
    Ok(())
}

/// The one console, which the terminal and the hand-over both use.
struct Shared(&'static Console);

impl ByteConsole for Shared {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write_bytes(bytes);
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        self.0.read_bytes(into)
    }
}

/// Waits until a key is pressed on any console.
pub fn wait_for_key() {
    let table = api::system_table();
    // SAFETY: the firmware's own table; the protocol, if there is one, stays.
    unsafe {
        let input = (*table).stdin;
        if !input.is_null() {
            let _ = api::wait_for_event(&[(*input).wait_for_key]);
        }
    }
}
