//! Looking for functions.

use alloc::vec::Vec;

use services::pci::Address;

use super::function::{Function, limit_display_memory};
use super::register;
use crate::domain::EmulatedMachine;

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
