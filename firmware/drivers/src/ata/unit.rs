//! Which disk of the guest's configuration a place at a controller is.

use core::fmt;

/// Disks that the device model emulates, in the order of their names: `hda` to `hdd`.
const NAMES: [&str; 4] = ["hda", "hdb", "hdc", "hdd"];

/// A place at a controller where a disk or a CD drive can be.
///
/// The toolstack puts the disk that the configuration calls `hda`, `xvda` or `sda` at the primary channel of the IDE controller as
/// master, or at port 0 of the AHCI controller (`hdtype="ahci"`); the second as primary slave or at port 1, and so on. There are
/// four at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// At an IDE controller.
    Ide {
        /// 0 for the primary, 1 for the secondary channel.
        channel: u8,
        /// 0 for the master, 1 for the slave.
        device: u8,
    },
    /// At an AHCI controller.
    Ahci {
        /// The port, from 0.
        port: u8,
    },
}

impl Unit {
    /// The number of the disk in the guest's configuration: 0 for `xvda`; `None` for one the toolstack does not give.
    pub fn index(&self) -> Option<u32> {
        let index = match *self {
            Self::Ide { channel, device } => channel * 2 + device,
            Self::Ahci { port } => port,
        };
        (usize::from(index) < NAMES.len()).then_some(index.into())
    }

    /// What `xl.cfg` calls it, `hda` to `hdd`, at either controller; `None` for one the toolstack does not give.
    pub fn name(&self) -> Option<&'static str> {
        NAMES.get(self.index()? as usize).copied()
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self) {
            (Some(name), _) => f.write_str(name),
            (None, Self::Ide { channel, device }) => write!(f, "IDE channel {channel} device {device}"),
            (None, Self::Ahci { port }) => write!(f, "AHCI port {port}"),
        }
    }
}

/// The number of a paravirtual disk among the disks of the configuration: 0 for 51712 (`xvda`), 768 (`hda`) and 2048 (`sda`). An
/// emulated disk is the same one if its [`Unit::index`] is the same.
///
/// Source: Xen's `docs/man/xen-vbd-interface.7`.
pub const fn disk_index(number: u32) -> Option<u32> {
    const EXTENDED: u32 = 1 << 28;
    if number & EXTENDED != 0 {
        return Some((number & !EXTENDED) >> 8);
    }
    let (major, minor) = (number >> 8, number & 0xFF);
    match major {
        // xvd and sd have 16 numbers for a disk and its partitions, hd has 64.
        202 | 8 => Some(minor >> 4),
        3 => Some(minor >> 6),
        22 => Some(2 + (minor >> 6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_called_what_the_configuration_calls_them() {
        assert_eq!(Unit::Ide { channel: 0, device: 0 }.to_string(), "hda");
        assert_eq!(Unit::Ide { channel: 1, device: 0 }.to_string(), "hdc");
        assert_eq!(Unit::Ahci { port: 3 }.to_string(), "hdd");
        assert_eq!(Unit::Ahci { port: 4 }.to_string(), "AHCI port 4");
    }

    #[test]
    fn a_paravirtual_disk_and_its_emulated_half_have_the_same_index() {
        for numbers in [[51712, 768, 2048], [51728, 832, 2064], [51744, 5632, 2080], [51760, 5696, 2096]] {
            let indices = numbers.map(disk_index);
            assert!(indices[0].is_some() && indices.iter().all(|index| *index == indices[0]));
        }
        assert_eq!(disk_index(1 << 28 | 26 << 8), Some(26));
        assert_eq!(disk_index(1), None);
    }
}
