//! The TPM 2.0 of an HVM guest: what the device model's `tpm-crb` or `tpm-tis` show at the address that PCs have it at
//! (TCG PC Client Platform TPM Profile 1.05, "PTP").
//!
//! | module | what |
//! | --- | --- |
//! | [`crb`] | the command response buffer interface |
//! | [`fifo`] | the FIFO interface, also known as TIS |
//!
//! Only locality 0 is used: the others are for code that a PC runs beside the firmware.

use alloc::boxed::Box;

use hw::device::Window;
use services::tcg2::{Transport, TransportError};

use crate::domain::{EmulatedMachine, MILLISECOND};

pub mod crb;
pub mod fifo;
#[cfg(test)]
mod tests;

/// Where the registers of locality 0 are, and how many bytes.
pub const ADDRESS: u64 = 0xFED4_0000;
const LENGTH: usize = 0x1000;
/// TPM_INTERFACE_ID_x and TPM_CRB_INTF_ID_x: one register for both interfaces.
const INTERFACE_ID: usize = 0x30;
/// Its field InterfaceType.
const TYPE: u32 = 0xF;
const TYPE_FIFO: u32 = 0;
const TYPE_CRB: u32 = 1;
/// How long a register may take that changes without a command: PTP's longest such time, TIMEOUT_B, is 2 s.
const REGISTER_WAIT: u64 = 2000 * MILLISECOND;

/// How the registers work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interface {
    /// Command response buffer.
    Crb,
    /// FIFO.
    Fifo,
}

/// A TPM that was found.
pub struct Device {
    /// How its registers work.
    pub interface: Interface,
    /// What commands go through.
    pub transport: Box<dyn Transport>,
}

impl core::fmt::Debug for Device {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Device({:?})", self.interface)
    }
}

/// Looks for a TPM 2.0. One read of a register where there is none; a TPM 1.2 does not have that register.
pub fn find(machine: EmulatedMachine) -> Option<Device> {
    let window = machine.windows.window(ADDRESS, LENGTH)?;
    let id = window.read_u32(INTERFACE_ID);
    // Nobody there, or RAM.
    if id == u32::MAX || id == 0 {
        return None;
    }
    let registers = Registers { machine, window };
    let device: Result<Device, TransportError> = match id & TYPE {
        TYPE_CRB => crb::Crb::new(registers).map(|crb| Device { interface: Interface::Crb, transport: Box::new(crb) }),
        TYPE_FIFO => {
            fifo::Fifo::new(registers).map(|fifo| Device { interface: Interface::Fifo, transport: Box::new(fifo) })
        }
        _ => Err(TransportError::Interface),
    };
    device.inspect_err(|error| log::error!("TPM (interface {id:#x}): {error:?}")).ok()
}

/// The registers of locality 0.
pub(crate) struct Registers {
    machine: EmulatedMachine,
    window: Box<dyn Window>,
}

impl core::fmt::Debug for Registers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Registers")
    }
}

impl Registers {
    /// Waits until the masked bits of a 32-bit register have a value. Returns the register.
    fn wait_u32(&self, offset: usize, mask: u32, value: u32, nanoseconds: u64) -> Result<u32, TransportError> {
        let found = self.machine.poll(nanoseconds, || {
            let register = self.window.read_u32(offset);
            (register & mask == value && register != u32::MAX).then_some(register)
        });
        found.ok_or(TransportError::TimedOut)
    }
}

/// The length of a response, from the size field of its header; checked against what there is room for.
fn response_length(header: &[u8], room: usize) -> Result<usize, TransportError> {
    /// Tag, size, code.
    const HEADER: usize = 10;
    let size = header.get(2..).and_then(|rest| rest.first_chunk()).map(|size| u32::from_be_bytes(*size) as usize);
    size.filter(|size| (HEADER..=room).contains(size)).ok_or(TransportError::ResponseLength)
}
