//! CMOS memory of an HVM guest's clock, behind an index and a data port.
//!
//! Xen has the clock's own registers; what lies above them is the device model's, which keeps there what a PC's firmware wants
//! to know (QEMU, `hw/i386/pc.c`).

use arrayvec::ArrayVec;
use hw::device::Ports;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
/// First and second boot device, four bits each, from the lowest on.
const BOOT_DEVICES: u8 = 0x3D;
/// Third boot device, in the upper four bits.
const MORE_BOOT_DEVICES: u8 = 0x38;

/// A kind of device in the order that `boot=` of the guest's configuration gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootDevice {
    /// `c`.
    HardDisk,
    /// `d`.
    Cd,
    /// `n`.
    Network,
}

/// Reads a byte. Interrupts that cannot be masked stay as enabled as they are at reset.
pub fn read(ports: &dyn Ports, index: u8) -> u8 {
    ports.write_u8(INDEX, index);
    ports.read_u8(DATA)
}

/// What `boot=` of the guest's configuration says: up to three kinds of devices. Empty where there is no device model.
pub fn boot_order(ports: &dyn Ports) -> ArrayVec<BootDevice, 3> {
    let (two, third) = (read(ports, BOOT_DEVICES), read(ports, MORE_BOOT_DEVICES));
    let mut order = ArrayVec::new();
    for code in [two & 0xF, two >> 4, third >> 4] {
        let device = match code {
            2 => BootDevice::HardDisk,
            3 => BootDevice::Cd,
            4 => BootDevice::Network,
            // Nothing, or floppy disks (1), for which there is no driver.
            _ => continue,
        };
        // Named twice, it still has its first place.
        if !order.contains(&device) {
            order.push(device);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::fake::{FakeDevice, FakePorts};

    /// A clock with these bytes at the two places.
    struct Cmos {
        bytes: [u8; 2],
        index: u32,
    }

    impl FakeDevice for Cmos {
        fn read(&mut self, port: u16, _width: u8) -> Option<u32> {
            let byte = match self.index {
                0x3D => self.bytes[0],
                0x38 => self.bytes[1],
                _ => 0,
            };
            (port == DATA).then_some(byte.into())
        }
        fn write(&mut self, port: u16, _width: u8, value: u32) -> bool {
            self.index = value;
            port == INDEX
        }
    }

    fn order(bytes: [u8; 2]) -> Vec<BootDevice> {
        boot_order(&FakePorts::with(Cmos { bytes, index: 0 })).to_vec()
    }

    #[test]
    fn the_toolstacks_letters_are_read_in_order() {
        // boot="cdn"
        assert_eq!(order([0x32, 0x41]), [BootDevice::HardDisk, BootDevice::Cd, BootDevice::Network]);
        // boot="d"
        assert_eq!(order([0x03, 0x01]), [BootDevice::Cd]);
        // boot="cda", the default
        assert_eq!(order([0x32, 0x11]), [BootDevice::HardDisk, BootDevice::Cd]);
    }

    #[test]
    fn nothing_is_read_where_there_is_no_device_model() {
        assert!(boot_order(&FakePorts::default()).is_empty());
        assert!(order([0, 0]).is_empty());
    }
}
