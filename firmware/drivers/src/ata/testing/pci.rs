//! Configuration space with an IDE and an AHCI controller, as hvmloader leaves it.

use std::cell::RefCell;
use std::rc::Rc;

use hw::fake::FakeDevice;

use super::ahci;

/// Offset of the command register.
const COMMAND: usize = 4;

struct FakeFunction {
    device_function: u32,
    space: [u8; 256],
    /// What stays of all ones in each BAR.
    masks: [u32; 6],
}

impl FakeFunction {
    fn new(device_function: u32, id: u32, class: u32) -> Self {
        let mut space = [0; 256];
        space[..4].copy_from_slice(&id.to_le_bytes());
        space[8..12].copy_from_slice(&(class << 8).to_le_bytes());
        Self { device_function, space, masks: [0; 6] }
    }

    fn with_bar(mut self, index: usize, value: u32, mask: u32) -> Self {
        self.space[0x10 + index * 4..][..4].copy_from_slice(&value.to_le_bytes());
        self.masks[index] = mask;
        self
    }
}

/// Configuration space of bus 0.
pub struct FakePci {
    address: u32,
    functions: Vec<FakeFunction>,
}

impl FakePci {
    /// An IDE controller at 01.1 and an AHCI controller at 1d.0.
    pub fn new() -> Rc<RefCell<Self>> {
        let mut bridge = FakeFunction::new(1 << 3, 0x7000_8086, 0x06_0100);
        bridge.space[0x0E] = 0x80;
        let functions = vec![
            bridge,
            FakeFunction::new(1 << 3 | 1, 0x7010_8086, 0x01_0180).with_bar(4, 0xC001, 0xFFF1),
            FakeFunction::new(0x1D << 3, 0x2922_8086, 0x01_0601).with_bar(5, ahci::ADDRESS as u32, 0xFFFF_F000),
        ];
        Rc::new(RefCell::new(Self { address: 0, functions }))
    }

    /// The command register of a function.
    pub fn command(&self, device_function: u32) -> u8 {
        let found = self.functions.iter().find(|function| function.device_function == device_function);
        found.unwrap().space[COMMAND]
    }

    fn selected(&mut self) -> Option<(&mut FakeFunction, usize)> {
        let wanted = self.address >> 8 & 0xFFFF;
        let offset = (self.address & 0xFC) as usize;
        self.functions.iter_mut().find(|function| function.device_function == wanted).map(|found| (found, offset))
    }
}

/// The ports of it.
pub struct PciPorts(pub Rc<RefCell<FakePci>>);

impl FakeDevice for PciPorts {
    fn read(&mut self, port: u16, _: u8) -> Option<u32> {
        let mut pci = self.0.borrow_mut();
        let into = match port {
            0xCFC..=0xCFF => usize::from(port - 0xCFC),
            _ => return None,
        };
        let Some((function, offset)) = pci.selected() else { return Some(u32::MAX) };
        let mut bytes = [0; 4];
        bytes[..4 - into].copy_from_slice(&function.space[offset + into..offset + 4]);
        Some(u32::from_le_bytes(bytes))
    }

    fn write(&mut self, port: u16, width: u8, value: u32) -> bool {
        let mut pci = self.0.borrow_mut();
        if port == 0xCF8 {
            pci.address = value;
            return true;
        }
        let (0xCFC..=0xCFF, Some((function, offset))) = (port, pci.selected()) else { return false };
        let at = offset + usize::from(port - 0xCFC);
        let bar = at.wrapping_sub(0x10) / 4;
        if width == 4 && bar < 6 {
            let old = u32::from_le_bytes(function.space[at..at + 4].try_into().unwrap());
            let fixed = if function.masks[bar] & 1 != 0 { old & 3 } else { 0 };
            let value = value & function.masks[bar] | fixed;
            function.space[at..at + 4].copy_from_slice(&value.to_le_bytes());
        } else if at == COMMAND {
            function.space[COMMAND] = value as u8 & 7;
        }
        true
    }
}
