//! Looking for functions.

use alloc::vec::Vec;

use services::pci::Address;

use super::function::{Function, XEN_PLATFORM, limit_display_memory};
use super::{Configuration, register};
use crate::domain::EmulatedMachine;

/// Whether the xen-platform device is in one of the first slots: QEMU puts it into the first that the chipset leaves free. A look
/// that costs little, before a [`scan`], which takes as long as backends need to connect. `false` does not say that there is none.
pub fn shows_xen_platform(machine: EmulatedMachine) -> bool {
    const SLOTS: u8 = 4;
    let configuration = Configuration::new(machine.ports);
    (0..SLOTS).any(|device| {
        let id = configuration.read_u32(Address { bus: 0, device, function: 0 }, register::VENDOR);
        XEN_PLATFORM.contains(&(id as u16, (id >> 16) as u16))
    })
}

/// All functions, by address: bus 0 and what its bridges lead to.
pub fn scan(machine: EmulatedMachine) -> Vec<Function> {
    let mut functions = Vec::new();
    // A bus is visited once, whatever bridges say.
    let mut buses = alloc::vec![(0, None)];
    let mut next = 0;
    while let Some(&(bus, bridge)) = buses.get(next) {
        next += 1;
        for device in 0..32 {
            for function in scan_device(machine, bridge, bus, device) {
                if function.is_bridge() {
                    let secondary = function.read_u8(register::SECONDARY_BUS);
                    if buses.iter().all(|(known, _)| *known != secondary) {
                        buses.push((secondary, Some(function.address())));
                    }
                }
                functions.push(function);
            }
        }
    }
    functions.sort_by_key(Function::address);
    limit_display_memory(&mut functions);
    functions
}

fn scan_device(machine: EmulatedMachine, bridge: Option<Address>, bus: u8, device: u8) -> Vec<Function> {
    let read = |function| Function::read(machine, bridge, Address { bus, device, function });
    let Some((first, more)) = read(0) else { return Vec::new() };
    let mut functions = alloc::vec![first];
    if more {
        functions.extend((1..8).filter_map(read).map(|(function, _)| function));
    }
    functions
}
