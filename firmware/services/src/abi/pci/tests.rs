//! Both protocols through their function pointers, over a function and a bridge that are arrays.

use std::boxed::Box;
use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec;

use core::ffi::c_void;
use core::ptr::null_mut;

use hw::device::{Ports, Window, Windows};
use hw::fake::{FakeDevice, FakePorts, FakeWindows};
use uefi_raw::Handle;
use uefi_raw::protocol::pci::root_bridge::{
    PciRootBridgeIoProtocol, PciRootBridgeIoProtocolOperation as Operation, PciRootBridgeIoProtocolWidth as Width,
};
use uefi_raw::table::boot::{AllocateType, MemoryType};

use super::*;
use crate::api;
use crate::device_path::{DevicePathBuf, Node};
use crate::fake;
use crate::pci::{Address, Attributes, Bar, PciDevice, PciRootBridge, PciSpaces, Resource};

const PASS_THROUGH: u8 = 0xFF;
const MEMORY: u64 = 0xF000_0000;
const PORTS: u16 = 0xC000;

/// 16 ports that keep what is written, and count reads.
#[derive(Clone, Default)]
struct FakeRegisters(Rc<RefCell<([u8; 16], usize)>>);

impl FakeDevice for FakeRegisters {
    fn read(&mut self, port: u16, width: u8) -> Option<u32> {
        let at = usize::from(port.checked_sub(PORTS).filter(|at| *at < 16)?);
        let mut state = self.0.borrow_mut();
        state.1 += 1;
        let mut bytes = [0; 4];
        bytes[..usize::from(width)].copy_from_slice(&state.0[at..at + usize::from(width)]);
        Some(u32::from_le_bytes(bytes))
    }

    fn write(&mut self, port: u16, width: u8, value: u32) -> bool {
        let Some(at) = port.checked_sub(PORTS).filter(|at| *at < 16) else { return false };
        let width = usize::from(width);
        self.0.borrow_mut().0[usize::from(at)..][..width].copy_from_slice(&value.to_le_bytes()[..width]);
        true
    }
}

/// A network card with 4 KiB of memory, 16 ports, and a configuration space.
#[derive(Clone)]
struct Card {
    windows: Rc<FakeWindows>,
    ports: Rc<FakePorts>,
    registers: FakeRegisters,
    space: Rc<RefCell<[u8; 256]>>,
    class: [u8; 3],
    bus: u8,
}

impl Card {
    fn new() -> Self {
        let windows = FakeWindows::default();
        windows.add(MEMORY, 4096);
        let registers = FakeRegisters::default();
        let ports = FakePorts::with(registers.clone());
        let space = Rc::new(RefCell::new([0; 256]));
        Self { windows: Rc::new(windows), ports: Rc::new(ports), registers, space, class: [2, 0, 0], bus: 0 }
    }

    /// Its protocol, on a handle with a path that no other test has.
    fn publish(&self, device: u8) -> (Handle, *mut PciIoProtocol) {
        let path = DevicePathBuf::new().with(&Node::Pci { device, function: 7 }).unwrap();
        let handle = api::install_pci_function(&path, Box::new(self.clone())).unwrap();
        (handle, api::protocol(handle, &PciIoProtocol::GUID).unwrap().cast())
    }

    fn publish_bridge(&self, uid: u32) -> *mut PciRootBridgeIoProtocol {
        let path = DevicePathBuf::new().with(&Node::Acpi { hid: 0x0A03_41D0, uid }).unwrap();
        let handle = api::install_pci_root_bridge(&path, Box::new(self.clone())).unwrap();
        api::protocol(handle, &PciRootBridgeIoProtocol::GUID).unwrap().cast()
    }
}

impl PciSpaces for Card {
    fn window(&self, address: u64, length: usize) -> Option<Box<dyn Window>> {
        self.windows.window(address, length)
    }
    fn ports(&self) -> &dyn Ports {
        &*self.ports
    }
}

impl PciDevice for Card {
    fn address(&self) -> Address {
        Address { bus: self.bus, device: 3, function: 1 }
    }
    fn bar(&self, index: u8) -> Option<Bar> {
        match index {
            0 => Some(Bar::Memory { address: MEMORY, size: 4096, prefetchable: true, wide: true }),
            2 => Some(Bar::Ports { first: PORTS, count: 16 }),
            _ => None,
        }
    }
    fn class(&self) -> [u8; 3] {
        self.class
    }
    fn is_bridge(&self) -> bool {
        false
    }
    fn read_configuration(&self, offset: u16, unit: u8) -> u32 {
        let mut bytes = [0; 4];
        bytes[..unit.into()].copy_from_slice(&self.space.borrow()[offset.into()..][..unit.into()]);
        u32::from_le_bytes(bytes)
    }
    fn write_configuration(&self, offset: u16, unit: u8, value: u32) {
        self.space.borrow_mut()[offset.into()..][..unit.into()].copy_from_slice(&value.to_le_bytes()[..unit.into()]);
    }
}

impl PciRootBridge for Card {
    fn read_configuration(&self, address: Address, offset: u16, unit: u8) -> u32 {
        if address == PciDevice::address(self) { PciDevice::read_configuration(self, offset, unit) } else { u32::MAX }
    }
    fn write_configuration(&self, address: Address, offset: u16, unit: u8, value: u32) {
        if address == PciDevice::address(self) {
            PciDevice::write_configuration(self, offset, unit, value);
        }
    }
    fn resources(&self) -> Vec<Resource> {
        vec![Resource::Buses(0..=0), Resource::Ports(0xC000..=0xC00F)]
    }
}

/// Calls a function of a protocol.
macro_rules! call {
    ($protocol:ident.$($function:ident).+ ($($argument:expr),* $(,)?)) => {
        // SAFETY: the protocol is installed, and the arguments are this test's.
        unsafe { ((*$protocol).$($function).+)($protocol, $($argument),*) }
    };
}

fn bytes<T>(values: &mut [T]) -> *mut c_void {
    values.as_mut_ptr().cast()
}

#[test]
fn memory_is_read_and_written_in_every_width() {
    fake::install();
    let (_, io) = Card::new().publish(1);
    let mut eight = [1, 2, 3, 4, 5, 6, 7, 8_u8];
    for width in 0..4 {
        let offset = 64 * u64::from(width);
        let count = 8 >> width;
        assert_eq!(call!(io.mem.write(width, 0, offset, count, bytes(&mut eight))), Status::SUCCESS);
        let mut back = [0_u8; 8];
        assert_eq!(call!(io.mem.read(width, 0, offset, count, bytes(&mut back))), Status::SUCCESS);
        assert_eq!(back, eight);
    }
}

#[test]
fn fifo_stays_in_the_device_and_fill_in_the_buffer() {
    fake::install();
    let card = Card::new();
    let (_, io) = card.publish(2);
    let mut words = [0x1111, 0x2222, 0x3333_u16];
    // FIFO: the last one stays.
    assert_eq!(call!(io.io.write(5, 2, 2, 3, bytes(&mut words))), Status::SUCCESS);
    assert_eq!(card.registers.0.borrow().0[..6], [0, 0, 0x33, 0x33, 0, 0]);
    let mut back = [0_u16; 3];
    assert_eq!(call!(io.io.read(5, 2, 2, 3, bytes(&mut back))), Status::SUCCESS);
    assert_eq!(back, [0x3333; 3]);
    // Fill: the first one everywhere.
    assert_eq!(call!(io.mem.write(9, 0, 0, 3, bytes(&mut words))), Status::SUCCESS);
    let mut all = [0_u16; 4];
    assert_eq!(call!(io.mem.read(1, 0, 0, 4, bytes(&mut all))), Status::SUCCESS);
    assert_eq!(all, [0x1111, 0x1111, 0x1111, 0]);
    // Reading so leaves the last one.
    assert_eq!(call!(io.mem.write(1, 0, 0, 3, bytes(&mut words))), Status::SUCCESS);
    let mut one = [0_u16; 2];
    assert_eq!(call!(io.mem.read(9, 0, 0, 3, bytes(&mut one))), Status::SUCCESS);
    assert_eq!(one, [0x3333, 0]);
}

#[test]
fn an_address_in_place_of_a_bar_passes_through() {
    fake::install();
    let (_, io) = Card::new().publish(3);
    let mut value = [0xA5_u8];
    assert_eq!(call!(io.mem.write(0, PASS_THROUGH, MEMORY + 9, 1, bytes(&mut value))), Status::SUCCESS);
    assert_eq!(call!(io.io.write(0, PASS_THROUGH, u64::from(PORTS) + 1, 1, bytes(&mut value))), Status::SUCCESS);
    let mut back = [0_u8; 2];
    assert_eq!(call!(io.mem.read(0, 0, 9, 1, bytes(&mut back[..1]))), Status::SUCCESS);
    assert_eq!(call!(io.io.read(0, 2, 1, 1, bytes(&mut back[1..]))), Status::SUCCESS);
    assert_eq!(back, [0xA5; 2]);
    // No device there.
    assert_eq!(call!(io.mem.read(0, PASS_THROUGH, MEMORY - 1, 1, bytes(&mut back))), Status::UNSUPPORTED);
}

#[test]
fn what_is_not_there_is_not_accessed() {
    fake::install();
    let (_, io) = Card::new().publish(4);
    let mut buffer = [0_u64; 4];
    let at = bytes(&mut buffer);
    type Case = (u32, u8, u64, usize, *mut c_void, Status);
    let memory: [Case; 14] = [
        (12, 0, 0, 1, at, Status::INVALID_PARAMETER),
        (u32::MAX, 0, 0, 1, at, Status::INVALID_PARAMETER),
        (0, 0, 0, 1, null_mut(), Status::INVALID_PARAMETER),
        (0, 0, 4096, 1, at, Status::UNSUPPORTED),
        (3, 0, 4092, 1, at, Status::UNSUPPORTED),
        (2, 0, 2, 1, at, Status::UNSUPPORTED),
        (0, 0, u64::MAX, 2, at, Status::UNSUPPORTED),
        (8, 0, 0, usize::MAX, at, Status::UNSUPPORTED),
        (3, 0, 0, usize::MAX, at, Status::INVALID_PARAMETER),
        (4, 0, 0, usize::MAX, at, Status::INVALID_PARAMETER),
        (0, 1, 0, 1, at, Status::UNSUPPORTED),
        (0, 2, 0, 1, at, Status::UNSUPPORTED),
        (0, 6, 0, 1, at, Status::UNSUPPORTED),
        (0, 0, 4096, 0, at, Status::SUCCESS),
    ];
    for (width, bar, offset, count, buffer, status) in memory {
        assert_eq!(call!(io.mem.read(width, bar, offset, count, buffer)), status, "{width} {bar} {offset:#x} {count}");
        assert_eq!(call!(io.mem.write(width, bar, offset, count, buffer)), status, "{width} {bar} {offset:#x} {count}");
    }
    let ports: [Case; 6] = [
        (3, 2, 0, 1, at, Status::INVALID_PARAMETER),
        (2, 2, 16, 1, at, Status::UNSUPPORTED),
        (1, 2, 15, 1, at, Status::UNSUPPORTED),
        (0, 0, 0, 1, at, Status::UNSUPPORTED),
        (0, PASS_THROUGH, 0x1_0000, 1, at, Status::UNSUPPORTED),
        (2, PASS_THROUGH, 0xFFFC, 2, at, Status::UNSUPPORTED),
    ];
    for (width, bar, offset, count, buffer, status) in ports {
        assert_eq!(call!(io.io.read(width, bar, offset, count, buffer)), status, "{width} {bar} {offset:#x} {count}");
        assert_eq!(call!(io.io.write(width, bar, offset, count, buffer)), status, "{width} {bar} {offset:#x} {count}");
    }
    for (width, offset, count, status) in [
        (0, 256, 1, Status::UNSUPPORTED),
        (2, 254, 1, Status::UNSUPPORTED),
        (2, u32::MAX - 3, 1, Status::UNSUPPORTED),
        (0, 255, 1, Status::SUCCESS),
        (2, 252, 1, Status::SUCCESS),
    ] {
        assert_eq!(call!(io.pci.read(width, offset, count, at)), status, "{width} {offset} {count}");
        assert_eq!(call!(io.pci.write(width, offset, count, at)), status, "{width} {offset} {count}");
    }
}

#[test]
fn configuration_space_is_read_and_written_in_every_width() {
    fake::install();
    let card = Card::new();
    let (_, io) = card.publish(5);
    let mut value = [0x8877_6655_4433_2211_u64];
    assert_eq!(call!(io.pci.write(3, 0x40, 1, bytes(&mut value))), Status::SUCCESS);
    assert_eq!(card.space.borrow()[0x40..0x48], [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
    let mut back = [0_u64];
    assert_eq!(call!(io.pci.read(1, 0x42, 3, bytes(&mut back))), Status::SUCCESS);
    assert_eq!(back, [0x8877_6655_4433]);
    assert_eq!(call!(io.pci.read(3, 0x40, 1, bytes(&mut back))), Status::SUCCESS);
    assert_eq!(back, value);
}

#[test]
fn memory_is_copied_also_over_itself() {
    fake::install();
    let (_, io) = Card::new().publish(6);
    let mut numbers: Vec<u8> = (0..16).collect();
    assert_eq!(call!(io.mem.write(0, 0, 0, 16, bytes(&mut numbers))), Status::SUCCESS);
    assert_eq!(call!(io.copy_mem(2, 0, 4, 0, 0, 3)), Status::SUCCESS);
    let mut back = [0_u8; 16];
    assert_eq!(call!(io.mem.read(0, 0, 0, 16, bytes(&mut back))), Status::SUCCESS);
    assert_eq!(back, [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(call!(io.copy_mem(2, 0, 0, 0, 4, 3)), Status::SUCCESS);
    assert_eq!(call!(io.mem.read(0, 0, 0, 16, bytes(&mut back))), Status::SUCCESS);
    assert_eq!(back, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 8, 9, 10, 11]);
    assert_eq!(call!(io.copy_mem(2, 0, 4096, 0, 0, 1)), Status::UNSUPPORTED);
    assert_eq!(call!(io.copy_mem(4, 0, 0, 0, 0, 1)), Status::INVALID_PARAMETER);
}

#[test]
fn polling_ends_with_the_value_or_in_time() {
    fake::install();
    let card = Card::new();
    let (_, io) = card.publish(7);
    card.registers.0.borrow_mut().0[4] = 0x81;
    let mut found = 0;
    assert_eq!(call!(io.poll_io(0, 2, 4, 0x80, 0x80, 10, &mut found)), Status::SUCCESS);
    assert_eq!(found, 0x81);
    assert_eq!(call!(io.poll_io(0, 2, 4, 0x80, 0, 1000, &mut found)), Status::TIMEOUT);
    // Without a delay: once, whatever comes.
    card.registers.0.borrow_mut().1 = 0;
    assert_eq!(call!(io.poll_io(0, 2, 4, 0x80, 0, 0, &mut found)), Status::SUCCESS);
    assert_eq!(card.registers.0.borrow().1, 1);
    assert_eq!(call!(io.poll_mem(3, 0, 8, u64::MAX, 0, 1, &mut found)), Status::SUCCESS);
    assert_eq!(found, 0);
    assert_eq!(call!(io.poll_mem(0, 0, 0, 0, 0, 0, null_mut())), Status::INVALID_PARAMETER);
    assert_eq!(call!(io.poll_mem(4, 0, 0, 0, 0, 0, &mut found)), Status::INVALID_PARAMETER);
    assert_eq!(call!(io.poll_mem(0, 0, 4096, 0, 0, 0, &mut found)), Status::UNSUPPORTED);
}

#[test]
fn a_function_tells_where_it_is() {
    let (_, io) = Card::new().publish(8);
    let (mut segment, mut bus, mut device, mut function) = (9, 9, 9, 9);
    assert_eq!(call!(io.get_location(&mut segment, &mut bus, &mut device, &mut function)), Status::SUCCESS);
    assert_eq!((segment, bus, device, function), (0, 0, 3, 1));
    assert_eq!(call!(io.get_location(&mut segment, &mut bus, &mut device, null_mut())), Status::INVALID_PARAMETER);
    assert_eq!(call!(io.flush()), Status::SUCCESS);
}

#[test]
fn switches_are_bits_of_the_command_register_and_the_rest_is_noted() {
    const GET: u32 = 0;
    const SET: u32 = 1;
    const ENABLE: u32 = 2;
    const DISABLE: u32 = 3;
    const SUPPORTED: u32 = 4;
    let card = Card::new();
    let (_, io) = card.publish(9);
    let get = || {
        let mut result = 0;
        assert_eq!(call!(io.attributes(GET, 0, &mut result)), Status::SUCCESS);
        Attributes::from_bits(result).unwrap()
    };
    let switches = Attributes::IO | Attributes::MEMORY | Attributes::BUS_MASTER;
    let mut supported = 0;
    assert_eq!(call!(io.attributes(SUPPORTED, 0, &mut supported)), Status::SUCCESS);
    assert_eq!(Attributes::from_bits_retain(supported), switches | Attributes::DUAL_ADDRESS_CYCLE);
    card.space.borrow_mut()[5] = 4;
    let all = (switches | Attributes::DUAL_ADDRESS_CYCLE).bits();
    assert_eq!(call!(io.attributes(ENABLE, all, null_mut())), Status::SUCCESS);
    assert_eq!(card.space.borrow()[4..6], [7, 4]);
    assert_eq!(get().bits(), all);
    assert_eq!(call!(io.attributes(DISABLE, Attributes::IO.bits(), null_mut())), Status::SUCCESS);
    assert_eq!(card.space.borrow()[4..6], [6, 4]);
    assert_eq!(call!(io.attributes(SET, Attributes::IO.bits(), null_mut())), Status::SUCCESS);
    assert_eq!((card.space.borrow()[4], get()), (1, Attributes::IO));
    for (operation, attributes, status) in [
        (ENABLE, Attributes::VGA_IO.bits(), Status::UNSUPPORTED),
        (ENABLE, 1 << 60, Status::UNSUPPORTED),
        (5, 0, Status::INVALID_PARAMETER),
        (GET, 0, Status::INVALID_PARAMETER),
        (SUPPORTED, 0, Status::INVALID_PARAMETER),
    ] {
        assert_eq!(call!(io.attributes(operation, attributes, null_mut())), status);
    }
}

#[test]
fn only_displays_and_disks_on_the_root_bus_have_the_ranges_of_old() {
    let supported = |class, bus| crate::pci::attributes::supported(&Card { class, bus, ..Card::new() });
    assert!(supported([3, 0, 0], 0).contains(Attributes::VGA_IO | Attributes::VGA_MEMORY));
    assert!(!supported([3, 0, 0], 1).contains(Attributes::VGA_IO));
    assert!(supported([1, 1, 0x80], 0).contains(Attributes::IDE_PRIMARY_IO));
    assert!(!supported([1, 1, 0x85], 0).contains(Attributes::IDE_PRIMARY_IO));
}

#[test]
fn a_bar_is_described_by_a_descriptor_and_an_end_tag() {
    fake::install();
    let (_, io) = Card::new().publish(10);
    let (mut supports, mut resources) = (9, null_mut());
    assert_eq!(call!(io.get_bar_attributes(0, &mut supports, &mut resources)), Status::SUCCESS);
    assert_eq!(supports, 0);
    // SAFETY: as long as a descriptor and an end tag.
    let list = unsafe { core::slice::from_raw_parts(resources.cast::<u8>(), 48) };
    assert_eq!(list[..6], [0x8A, 43, 0, 0, 0, 6]);
    let value = |index: usize| u64::from_le_bytes(list[6 + 8 * index..][..8].try_into().unwrap());
    assert_eq!([0, 1, 2, 3, 4].map(value), [64, MEMORY, MEMORY + 4095, 0, 4096]);
    assert_eq!(list[46..], [0x79, 0]);
    api::free_pool(core::ptr::NonNull::new(resources.cast()).unwrap()).unwrap();
    assert_eq!(call!(io.get_bar_attributes(2, &mut supports, null_mut())), Status::SUCCESS);
    assert_eq!(call!(io.get_bar_attributes(1, &mut supports, null_mut())), Status::UNSUPPORTED);
    assert_eq!(call!(io.get_bar_attributes(0, null_mut(), null_mut())), Status::INVALID_PARAMETER);
    let (mut offset, mut length) = (0, 4096);
    assert_eq!(call!(io.set_bar_attributes(0, 0, &mut offset, &mut length)), Status::SUCCESS);
    assert_eq!(call!(io.set_bar_attributes(0x80, 0, &mut offset, &mut length)), Status::UNSUPPORTED);
    length = 4097;
    assert_eq!(call!(io.set_bar_attributes(0, 0, &mut offset, &mut length)), Status::UNSUPPORTED);
    assert_eq!(call!(io.set_bar_attributes(0, 0, null_mut(), &mut length)), Status::INVALID_PARAMETER);
}

#[test]
fn buffers_are_mapped_where_they_are_and_known_again() {
    let (_, io) = Card::new().publish(11);
    let mut buffer = [0_u8; 100];
    let host = bytes(&mut buffer);
    // The test's memory may lie above 4 GiB, where only these devices reach it without a copy.
    assert_eq!(call!(io.attributes(2, Attributes::DUAL_ADDRESS_CYCLE.bits(), null_mut())), Status::SUCCESS);
    let (mut size, mut device, mut mapping) = (100, 0, null_mut());
    for operation in 0..3 {
        assert_eq!(call!(io.map(operation, host, &mut size, &mut device, &mut mapping)), Status::SUCCESS);
        assert_eq!((device, size), (host.addr() as u64, 100));
        assert_eq!(call!(io.unmap(mapping)), Status::SUCCESS);
        assert_eq!(call!(io.unmap(mapping)), Status::INVALID_PARAMETER);
    }
    assert_eq!(call!(io.map(3, host, &mut size, &mut device, &mut mapping)), Status::INVALID_PARAMETER);
    assert_eq!(call!(io.map(0, null_mut(), &mut size, &mut device, &mut mapping)), Status::INVALID_PARAMETER);
    assert_eq!(call!(io.map(0, host, null_mut(), &mut device, &mut mapping)), Status::INVALID_PARAMETER);
    assert_eq!(call!(io.map(0, host, &mut size, null_mut(), &mut mapping)), Status::INVALID_PARAMETER);
    assert_eq!(call!(io.map(0, host, &mut size, &mut device, null_mut())), Status::INVALID_PARAMETER);
    size = 0;
    assert_eq!(call!(io.map(0, host, &mut size, &mut device, &mut mapping)), Status::INVALID_PARAMETER);
    assert_eq!(call!(io.unmap(null_mut())), Status::INVALID_PARAMETER);
}

#[test]
fn buffers_for_devices_are_pages_of_data() {
    fake::install();
    let card = Card::new();
    let (_, io) = card.publish(12);
    assert_eq!(call!(io.attributes(2, Attributes::DUAL_ADDRESS_CYCLE.bits(), null_mut())), Status::SUCCESS);
    let mut host = null_mut();
    let data = MemoryType::BOOT_SERVICES_DATA;
    assert_eq!(call!(io.allocate_buffer(0, data, 2, &mut host, 0x880)), Status::SUCCESS);
    assert!(!host.is_null() && host.addr().is_multiple_of(4096));
    assert_eq!(call!(io.free_buffer(2, host)), Status::SUCCESS);
    assert_eq!(call!(io.free_buffer(2, host)), Status::INVALID_PARAMETER);
    let loader = MemoryType::LOADER_DATA;
    assert_eq!(call!(io.allocate_buffer(0, loader, 1, &mut host, 0)), Status::INVALID_PARAMETER);
    assert_eq!(call!(io.allocate_buffer(0, data, 1, null_mut(), 0)), Status::INVALID_PARAMETER);
    assert_eq!(call!(io.allocate_buffer(0, data, 1, &mut host, 0x100)), Status::UNSUPPORTED);
}

#[test]
fn the_option_rom_is_told_and_goes_with_the_function() {
    let (handle, io) = Card::new().publish(13);
    // SAFETY: the protocol is installed.
    let rom = || unsafe { ((*io).rom_size, (*io).rom_image.cast::<u8>()) };
    assert_eq!(rom(), (0, null_mut()));
    api::set_pci_rom(handle, vec![0x55, 0xAA, 7]).unwrap();
    let (size, image) = rom();
    // SAFETY: the protocol says so.
    assert_eq!(unsafe { core::slice::from_raw_parts(image, size as usize) }, [0x55, 0xAA, 7]);
    api::uninstall_pci_function(handle).unwrap();
    assert_eq!(api::uninstall_pci_function(handle), Err(Status::INVALID_PARAMETER));
}

#[test]
fn a_root_bridge_reaches_every_space_by_address() {
    fake::install();
    let card = Card::new();
    let bridge = card.publish_bridge(1);
    let mut value = [0x1234_5678_u32];
    let configuration = 3 << 16 | 1 << 8;
    assert_eq!(call!(bridge.mem.write(Width::UINT32, MEMORY + 8, 1, bytes(&mut value))), Status::SUCCESS);
    assert_eq!(call!(bridge.io.write(Width::UINT32, 0xC004, 1, bytes(&mut value))), Status::SUCCESS);
    assert_eq!(call!(bridge.pci.write(Width::UINT32, configuration | 0x44, 1, bytes(&mut value))), Status::SUCCESS);
    assert_eq!(card.space.borrow()[0x44..0x48], [0x78, 0x56, 0x34, 0x12]);
    let mut back = [0_u32; 4];
    let at = back.as_mut_ptr();
    let read = |index: usize| at.wrapping_add(index).cast::<c_void>();
    assert_eq!(call!(bridge.mem.read(Width::UINT32, MEMORY + 8, 1, read(0))), Status::SUCCESS);
    assert_eq!(call!(bridge.io.read(Width::UINT32, 0xC004, 1, read(1))), Status::SUCCESS);
    // The register above 32 bits counts where it is not zero.
    assert_eq!(call!(bridge.pci.read(Width::UINT32, configuration | 0x44 << 32, 1, read(2))), Status::SUCCESS);
    assert_eq!(call!(bridge.pci.read(Width::UINT32, 4 << 16, 1, read(3))), Status::SUCCESS);
    assert_eq!(back, [value[0], value[0], value[0], u32::MAX]);
    assert_eq!(call!(bridge.copy_mem(Width::UINT32, MEMORY + 16, MEMORY + 8, 1)), Status::SUCCESS);
    let mut found = 0;
    let wanted = u64::from(value[0]);
    assert_eq!(call!(bridge.poll_mem(Width::UINT32, MEMORY + 16, u64::MAX, wanted, 0, &mut found)), Status::SUCCESS);
    assert_eq!(call!(bridge.poll_io(Width::UINT32, 0xC004, u64::MAX, wanted, 10, &mut found)), Status::SUCCESS);
    assert_eq!(found, wanted);
}

#[test]
fn a_root_bridge_refuses_what_is_not_there() {
    let bridge = Card::new().publish_bridge(2);
    let mut buffer = [0_u64; 2];
    let at = bytes(&mut buffer);
    for (width, address, count, status) in [
        (Width::UINT8, MEMORY + 4096, 1, Status::UNSUPPORTED),
        (Width::UINT8, u64::MAX, 1, Status::UNSUPPORTED),
        (Width::UINT32, MEMORY + 1, 1, Status::UNSUPPORTED),
        (Width::MAXIMUM, MEMORY, 1, Status::INVALID_PARAMETER),
        (Width::UINT64, 0, usize::MAX, Status::INVALID_PARAMETER),
    ] {
        assert_eq!(call!(bridge.mem.read(width, address, count, at)), status, "{width:?} {address:#x}");
        assert_eq!(call!(bridge.mem.write(width, address, count, at)), status, "{width:?} {address:#x}");
    }
    assert_eq!(call!(bridge.io.read(Width::UINT64, 0, 1, at)), Status::INVALID_PARAMETER);
    assert_eq!(call!(bridge.io.read(Width::UINT8, 0x1_0000, 1, at)), Status::UNSUPPORTED);
    for address in [8 << 8, 32 << 16, 256 << 32, 0xFF, u64::MAX] {
        assert_eq!(call!(bridge.pci.read(Width::UINT16, address, 1, at)), Status::UNSUPPORTED, "{address:#x}");
    }
    assert_eq!(call!(bridge.mem.read(Width::UINT8, MEMORY, 1, null_mut())), Status::INVALID_PARAMETER);
    assert_eq!(call!(bridge.flush()), Status::SUCCESS);
}

#[test]
fn a_root_bridge_maps_with_32_and_64_bits() {
    fake::install();
    let bridge = Card::new().publish_bridge(3);
    let mut buffer = [7_u8; 64];
    let host = bytes(&mut buffer);
    let (mut size, mut device, mut mapping) = (64, 0, null_mut());
    for operation in [Operation::BUS_MASTER_READ64, Operation::BUS_MASTER_COMMON_BUFFER64] {
        assert_eq!(call!(bridge.map(operation, host, &mut size, &mut device, &mut mapping)), Status::SUCCESS);
        assert_eq!(device, host.addr() as u64);
        assert_eq!(call!(bridge.unmap(mapping)), Status::SUCCESS);
    }
    assert_eq!(
        call!(bridge.map(Operation::MAXIMUM, host, &mut size, &mut device, &mut mapping)),
        Status::INVALID_PARAMETER
    );
    let mut pages = null_mut();
    let wide = Attributes::DUAL_ADDRESS_CYCLE.bits();
    let (any, data) = (AllocateType::ANY_PAGES, MemoryType::RUNTIME_SERVICES_DATA);
    assert_eq!(call!(bridge.allocate_buffer(any, data, 1, &mut pages, wide)), Status::SUCCESS);
    assert_eq!(call!(bridge.free_buffer(1, pages)), Status::SUCCESS);
}

#[test]
fn a_root_bridge_tells_attributes_and_resources() {
    let bridge = Card::new().publish_bridge(4);
    let (mut supports, mut set) = (0, 0);
    assert_eq!(call!(bridge.get_attributes(&mut supports, &mut set)), Status::SUCCESS);
    assert!(supports == set && supports & Attributes::VGA_IO.bits() != 0);
    assert_eq!(call!(bridge.get_attributes(null_mut(), null_mut())), Status::INVALID_PARAMETER);
    assert_eq!(call!(bridge.set_attributes(supports, null_mut(), null_mut())), Status::SUCCESS);
    assert_eq!(call!(bridge.set_attributes(0x800, null_mut(), null_mut())), Status::UNSUPPORTED);
    let mut resources = core::ptr::null();
    assert_eq!(call!(bridge.configuration(&mut resources)), Status::SUCCESS);
    // SAFETY: two descriptors and an end tag.
    let list = unsafe { core::slice::from_raw_parts(resources.cast::<u8>(), 2 * 46 + 2) };
    assert_eq!((list[3], list[46 + 3], list[92]), (2, 1, 0x79));
    assert_eq!(call!(bridge.configuration(null_mut())), Status::INVALID_PARAMETER);
}
