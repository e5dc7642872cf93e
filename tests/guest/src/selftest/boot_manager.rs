//! What the boot manager tells (UEFI 2.10 §3.3, §8.5.4).

use alloc::format;
use alloc::vec::Vec;

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::table::runtime::{VariableAttributes, VariableVendor};
use uefi_raw::{Guid, Status};

use crate::harness::{Outcome, Test};
use crate::support::{own_image, protocol_of};
use crate::variable::{RT, get_of};

pub const TESTS: &[Test] = tests![
    the_entry_that_was_started_is_told,
    the_started_entry_is_in_the_order,
    what_can_be_asked_for_is_told,
    the_started_entry_leads_to_this_device,
];

const GLOBAL: Guid = VariableVendor::GLOBAL_VARIABLE.0;

fn global(name: &str) -> Result<(Vec<u8>, VariableAttributes), Status> {
    get_of(&GLOBAL, name)
}

fn the_entry_that_was_started_is_told() -> Outcome {
    let (current, attributes) = global("BootCurrent").map_err(|status| format!("BootCurrent: {status:?}"))?;
    same!(attributes, RT);
    same!(current.len(), 2);
    Ok(())
}

fn the_started_entry_is_in_the_order() -> Outcome {
    let (current, _) = global("BootCurrent").map_err(|status| format!("BootCurrent: {status:?}"))?;
    let (order, _) = global("BootOrder").map_err(|status| format!("BootOrder: {status:?}"))?;
    check!(order.chunks(2).any(|number| number == current));
    Ok(())
}

fn what_can_be_asked_for_is_told() -> Outcome {
    let (supported, attributes) =
        global("OsIndicationsSupported").map_err(|status| format!("OsIndicationsSupported: {status:?}"))?;
    same!(attributes, RT);
    same!(supported.len(), 8);
    check!(supported[0] & 1 != 0, "the firmware's menu cannot be asked for");
    Ok(())
}

/// The entry's device path is where the path of the device begins that this program came from.
fn the_started_entry_leads_to_this_device() -> Outcome {
    let (current, _) = global("BootCurrent").map_err(|status| format!("BootCurrent: {status:?}"))?;
    let name = format!("Boot{:04X}", u16::from_le_bytes([current[0], current[1]]));
    let (option, _) = global(&name).map_err(|status| format!("{name}: {status:?}"))?;
    let path_length = usize::from(u16::from_le_bytes([option[4], option[5]]));
    let description = option[6..].chunks_exact(2).position(|unit| unit == [0, 0]).ok_or("no description")?;
    let path = &option[6 + (description + 1) * 2..][..path_length - 4];
    let Some(device) = protocol_of::<u8>(own_image().device_handle, &DevicePathProtocol::GUID) else {
        return Err("this program's device has no path".into());
    };
    let begins = path.iter().enumerate().all(|(place, byte)| efi!(*device.add(place)) == *byte);
    check!(begins, "{name} leads elsewhere");
    Ok(())
}
