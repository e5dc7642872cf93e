use hw::device::Windows;
use hw::fake::{FakeDevice, FakePorts, FakeWindows};
use services::device_path::DevicePathBuf;
use uefi_raw::protocol::console::{GraphicsOutputProtocol, SimpleTextOutputProtocol};
use uefi_raw::protocol::device_path::DevicePathProtocol;

use super::*;
use crate::domain::EmulatedMachine;
use crate::pci;
use crate::testing::{domain, leak};

const MEMORY: u32 = 0xF000_0000;
const REGISTERS: u32 = 0xF300_0000;

/// A function at 00:02.0: identity, and BARs 0 and 2 with sizes, of which 0 is none.
struct Configuration {
    address: u32,
    space: [u32; 64],
    sizes: [u32; 6],
}

impl Configuration {
    fn new((vendor, device): (u16, u16), memory: u32, registers: u32) -> Self {
        let mut space = [0; 64];
        space[0] = u32::from(device) << 16 | u32::from(vendor);
        space[2] = 0x0300_0000;
        (space[4], space[6]) = (if memory == 0 { 0 } else { MEMORY }, if registers == 0 { 0 } else { REGISTERS });
        Self { address: 0, space, sizes: [memory, 0, registers, 0, 0, 0] }
    }
}

impl FakeDevice for Configuration {
    fn read(&mut self, port: u16, width: u8) -> Option<u32> {
        let at = port.checked_sub(0xCFC).filter(|at| *at < 4)?;
        let ours = self.address & 0x00FF_FF00 == 0x1000;
        let word = if ours { self.space[(self.address & 0xFC) as usize / 4] } else { u32::MAX };
        Some(word >> (at * 8) & (u32::MAX >> (32 - u32::from(width) * 8)))
    }

    fn write(&mut self, port: u16, width: u8, value: u32) -> bool {
        if port == 0xCF8 {
            self.address = value;
            return true;
        }
        let index = (self.address & 0xFC) as usize / 4;
        if port == 0xCFC && width == 4 && (4..10).contains(&index) {
            let size = self.sizes[index - 4];
            self.space[index] = if size == 0 { 0 } else { value & !(size - 1) };
        }
        (0xCFC..0xD00).contains(&port)
    }
}

/// A controller for the function, with a device path that no other test has, and EFI_PCI_IO_PROTOCOL.
fn publish(bus: &Bus, device: u8, configuration: Configuration) -> Handle {
    let windows = leak(FakeWindows::default());
    for (address, size) in [(MEMORY, configuration.sizes[0]), (REGISTERS, configuration.sizes[2])] {
        windows.add(address.into(), size as usize);
    }
    if configuration.sizes[2] != 0 {
        windows.window(REGISTERS.into(), 0x1000).unwrap().write_u16(0x500, 0xB0C5);
    }
    let machine = EmulatedMachine { domain: domain().1, ports: leak(FakePorts::with(configuration)), windows };
    let [function] = &pci::scan(machine)[..] else { panic!("one function") };
    let path = DevicePathBuf::new()
        .with(&Node::Acpi { hid: 0x0A03_41D0, uid: 0 })
        .unwrap()
        .with(&Node::Pci { device, function: 0 })
        .unwrap();
    let path = leak(path).as_bytes().as_ptr().cast_mut().cast();
    let interfaces = [(DevicePathProtocol::GUID, path), (PciIoProtocol::GUID, core::ptr::null_mut())];
    let handle = api::install_protocols(None, &interfaces).unwrap();
    bus.add(handle, function.clone());
    handle
}

/// One test for all, as the core is one for the process.
#[test]
fn adapters_become_displays_with_consoles_and_odd_ones_are_left_out() {
    let _alone = crate::testing::DRIVER_MODEL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let bus = Rc::new(Bus::default());
    let displays = install(bus.clone()).unwrap();
    assert!(displays.first().is_none());
    let good = publish(&bus, 0x12, Configuration::new((0x1234, 0x1111), 16 << 20, 0x1000));
    api::connect(good, true).unwrap();
    let display = displays.first().unwrap();
    assert_eq!((display.borrow().mode().width, display.borrow().address()), (1280, u64::from(MEMORY)));
    let child = *api::handles_with(&GraphicsOutputProtocol::GUID).last().unwrap();
    assert_eq!(api::device_path(child).unwrap().to_string(), "PciRoot(0x0)/Pci(0x12,0x0)/AcpiAdr(0x80010100)");
    assert!(api::protocol(child, &SimpleTextOutputProtocol::GUID).is_ok());
    assert_eq!(api::connect(good, true), Err(Status::NOT_FOUND));
    assert!(api::disconnect(good).is_err());

    let others = [
        Configuration::new((0x1234, 0x1111), 0, 0x1000),
        Configuration::new((0x1AF4, 0x1050), 4096, 0x1000),
        Configuration::new((0x1234, 0x1111), 16 << 20, 0),
        Configuration::new((0x1013, 0x00B8), 16 << 20, 0),
        Configuration::new((0x1AF4, 0x1041), 16 << 20, 0x1000),
    ];
    for (device, configuration) in (0x13..).zip(others) {
        let odd = publish(&bus, device, configuration);
        for _ in 0..2 {
            assert!(api::connect(odd, true).is_err());
        }
    }
    assert_eq!(api::handles_with(&GraphicsOutputProtocol::GUID).len(), 1);
}
