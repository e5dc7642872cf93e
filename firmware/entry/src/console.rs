//! The consoles of the guest: Xen's, as a terminal; for HVM guests also the serial port and the keyboard.

use alloc::boxed::Box;

use drivers::binding::ROOT_NODE;
use drivers::console::Console;
use drivers::domain::{Domain, EmulatedMachine};
use drivers::{keyboard, serial};
use services::console::ByteConsole;
use services::device_path::{DevicePathBuf, Node};
use services::hardware::{Hardware, Reset};
use services::{Guid, Result};
use uefi_raw::guid;

use crate::boot::should;
use crate::machine::Machine;

/// `EFI_VT_UTF8_GUID` (UEFI 2.10 §10.3.4.10): the terminal's type in its device path.
const VT_UTF8: Guid = guid!("ad15a0d6-8bec-4acf-a073-d01de77e2d88");

/// Opens Xen's console and makes it the system's, and beside it the serial port and the keyboard of an HVM guest. Without Xen's
/// console its log takes what is written: programs use the console without asking whether there is one.
pub fn start(domain: Domain, emulated: Option<EmulatedMachine>, machine: &'static Machine) -> Option<&'static Console> {
    let console = Console::open(domain).inspect_err(|error| log::error!("{error}")).ok();
    let console: Option<&'static Console> = console.map(|console| &*Box::leak(Box::new(console)));
    let device: Box<dyn ByteConsole> = match console {
        Some(console) => Box::new(console),
        None => Box::new(Log),
    };
    if let Err(status) = install(device) {
        log::error!("console: {status}");
    }
    if let Some(emulated) = emulated {
        should("serial port", serial::install(emulated));
        should("keyboard", keyboard::install(emulated, || machine.reset(Reset::Restart)));
    }
    console
}

fn install(device: Box<dyn ByteConsole>) -> Result<()> {
    let path = DevicePathBuf::new()
        .with(&Node::VendorHardware { guid: ROOT_NODE, data: alloc::vec![0] })?
        .with(&Node::VendorMessaging { guid: VT_UTF8, data: alloc::vec::Vec::new() })?;
    services::abi::console::install_terminal(path.as_path(), device)?;
    Ok(())
}

/// Xen's log as a console without keys.
struct Log;

impl ByteConsole for Log {
    fn write(&mut self, bytes: &[u8]) {
        hw::port::debug_write(bytes);
    }

    fn read(&mut self, _into: &mut [u8]) -> usize {
        0
    }
}
