//! The bus, its functions and their ROMs.

use std::rc::Rc;

use hw::device::Windows;
use hw::fake::CountingAllocator;
use services::Status;
use services::api;
use services::pci::{PciRootBridge, Resource};
use uefi_raw::protocol::pci::root_bridge::PciRootBridgeIoProtocol;

use super::bus::RootBridge;
use super::testing::{FakeFunction, at, machine};
use super::*;

const HOST_BRIDGE: [u8; 3] = [6, 0, 0];
const PCI_BRIDGE: [u8; 3] = [6, 4, 0];
const NETWORK: [u8; 3] = [2, 0, 0];
const BUS_MASTER: u32 = 4;

fn network() -> FakeFunction {
    FakeFunction::new(0x8086, 0x100E, NETWORK)
}

fn only(function: FakeFunction) -> Function {
    let (machine, _, _) = machine([(at(0, 0, 0), function)]);
    scan(machine).remove(0)
}

#[test]
fn a_scan_finds_what_there_is_and_no_more() {
    let host = FakeFunction::new(0x8086, 0x1237, HOST_BRIDGE);
    let isa = FakeFunction::new(0x8086, 0x7000, [6, 1, 0]).multi_function();
    let ide = FakeFunction::new(0x8086, 0x7010, [1, 1, 0x80]);
    // No function 0 says that there are more of them.
    let hidden = network();
    let (machine, _, _) = machine([
        (at(0, 0, 0), host),
        (at(0, 1, 0), isa),
        (at(0, 1, 1), ide),
        (at(0, 31, 0), network()),
        (at(0, 31, 3), hidden),
    ]);
    let found: Vec<_> = scan(machine).iter().map(|function| (function.address().to_string(), function.id.1)).collect();
    let expected = [("00:00.0", 0x1237), ("00:01.0", 0x7000), ("00:01.1", 0x7010), ("00:1f.0", 0x100E)];
    assert_eq!(found, expected.map(|(text, id)| (text.to_string(), id)));
}

#[test]
fn bars_are_sized_and_left_as_they_were() {
    let function = network()
        .bar(0, 0xF300_0000, 0x2_0000)
        .bar(1, 0xC001, 0x40)
        .wide_bar(2, 0x8_0000_000C, 1 << 33)
        .bar(4, 0xF000_0008, 0x10);
    let (machine, functions, _) = machine([(at(0, 3, 0), function)]);
    functions.borrow_mut().get_mut(&at(0, 3, 0)).unwrap().put(4, 0x107);
    let before = functions.borrow()[&at(0, 3, 0)].space;
    let function = scan(machine).remove(0);
    let memory = |address, size, prefetchable, wide| Some(Bar::Memory { address, size, prefetchable, wide });
    assert_eq!(function.bar(0), memory(0xF300_0000, 0x2_0000, false, false));
    assert_eq!(function.bar(1), Some(Bar::Ports { first: 0xC000, count: 0x40 }));
    assert_eq!(function.bar(2), memory(0x8_0000_0000, 1 << 33, true, true));
    assert_eq!(function.bar(3), None);
    assert_eq!(function.bar(4), memory(0xF000_0000, 0x10, true, false));
    assert_eq!([5, 6, 255].map(|index| function.bar(index)), [None; 3]);
    assert_eq!(functions.borrow()[&at(0, 3, 0)].space, before);
}

/// Its first BAR would claim 16 bytes if it were asked.
#[test]
fn the_memory_of_a_display_reaches_to_the_next_bar_at_most_and_is_not_probed() {
    let display = |value| {
        let display = FakeFunction::new(0x1234, 0x1111, [3, 0, 0]);
        display.bar(0, value, 0x10).bar(2, 0xF301_0000, 0x1000)
    };
    let memory = |functions: &[Function]| functions[0].bar(0);
    let size = |size| Some(Bar::Memory { address: 0xF000_0000, size, prefetchable: true, wide: false });
    for (value, next, expected) in [
        (0xF000_0008, 0xF200_0000, size(32 << 20)),
        (0xF000_0008, 0xF080_0000, size(8 << 20)),
        (0xF000_0008, 0xF000_0000, size(32 << 20)),
        // Not prefetchable: registers, which are probed.
        (
            0xF000_0000,
            0xF200_0000,
            Some(Bar::Memory { address: 0xF000_0000, size: 0x10, prefetchable: false, wide: false }),
        ),
        (0x0000_0008, 0xF200_0000, None),
    ] {
        let (machine, functions, _) =
            machine([(at(0, 2, 0), display(value)), (at(0, 3, 0), network().bar(0, next, 0x1000))]);
        let before = functions.borrow()[&at(0, 2, 0)].space;
        let found = scan(machine);
        assert_eq!(memory(&found), expected, "{value:#x} {next:#x}");
        assert!(found[0].bar(2).is_some());
        assert_eq!(functions.borrow()[&at(0, 2, 0)].space, before);
    }
}

#[test]
fn a_port_bar_that_decodes_16_bits_has_its_size() {
    let function = only(network().with(0x10, 0xC101, 0x0000_FF00));
    assert_eq!(function.bar(0), Some(Bar::Ports { first: 0xC100, count: 0x100 }));
}

#[test]
fn bars_that_make_no_sense_are_none() {
    // Nothing assigned, with flags; a size that is no power of two; a wide one in the last register.
    let function = only(network().bar(0, 0x8, 0x1000).with(0x14, 0xF000_0000, 0xFF0F_0000).bar(2, 0x1, 0x10).bar(
        5,
        0xE000_0004,
        0x1000,
    ));
    assert_eq!([0, 1, 2, 3, 4, 5].map(|index| function.bar(index)), [None; 6]);
}

#[test]
fn a_bridge_has_two_bars_at_the_most() {
    let bridge = FakeFunction::new(0x1B36, 1, PCI_BRIDGE).bar(0, 0xF000_0000, 0x1000).bar(2, 0xE000_0000, 0x1000);
    let function = only(bridge.bridge_to(1));
    assert!(function.is_bridge() && function.bar(0).is_some());
    assert_eq!(function.bar(2), None);
}

#[test]
fn buses_behind_bridges_are_visited_once_whatever_bridges_say() {
    let bridge = |secondary| FakeFunction::new(0x1B36, 1, PCI_BRIDGE).bridge_to(secondary);
    let (machine, _, _) = machine([
        (at(0, 1, 0), bridge(5)),
        (at(0, 2, 0), bridge(0)),
        (at(0, 3, 0), bridge(5)),
        (at(5, 1, 0), bridge(5)),
        (at(5, 2, 0), bridge(0)),
        (at(5, 3, 0), bridge(255)),
        (at(255, 7, 0), network()),
    ]);
    let functions = scan(machine);
    assert_eq!(functions.len(), 7);
    let bridges: Vec<_> = functions.iter().map(Function::bridge).collect();
    let (first, second) = (Some(at(0, 1, 0)), Some(at(5, 3, 0)));
    assert_eq!(bridges, [None, None, None, first, first, first, second]);
}

#[test]
fn a_list_of_capabilities_that_bites_its_tail_ends() {
    let with_list = || network().with(4, 0x0010_0000, 0);
    let function = only(with_list().with(0x34, 0x40, 0).with(0x40, 0x0000_5005, 0).with(0x50, 0x0000_4011, 0));
    assert_eq!(function.capability(0x11), Some(0x50));
    assert_eq!(function.capability(0x12), None);
    // The list leads into the header; there is no list.
    assert_eq!(only(with_list().with(0x34, 0x10, 0)).capability(5), None);
    assert_eq!(only(network().with(0x34, 0x40, 0).with(0x40, 5, 0)).capability(5), None);
}

#[test]
fn only_bus_masters_that_were_started_since_are_stopped_and_without_memory() {
    let left_on = |class| {
        let mut function = FakeFunction::new(0x1234, 0x1111, class);
        function.put(4, BUS_MASTER);
        function
    };
    let platform = FakeFunction::new(0x5853, 1, [0xFF, 0x80, 0]);
    let (machine, functions, _) = machine([
        (at(0, 1, 0), left_on([1, 1, 0])),
        (at(0, 2, 0), network()),
        (at(0, 3, 0), left_on([2, 0, 0])),
        (at(0, 4, 0), left_on([3, 0, 0])),
        (at(0, 5, 0), left_on([6, 4, 0])),
        (at(0, 6, 0), platform),
        (at(0, 7, 0), network()),
    ]);
    let bus = Rc::new(Bus::new(scan(machine)));
    for (index, function) in bus.functions().iter().enumerate() {
        if index != 0 && index != 6 {
            function.clone().enable(command::BUS_MASTER);
        }
    }
    // A program may do it itself.
    let root = RootBridge { machine, bus: bus.clone() };
    root.write_configuration(at(0, 7, 0), register::COMMAND, 4, BUS_MASTER | 3);
    let before = CountingAllocator::count();
    CountingAllocator::uncounted(|| bus.stop_bus_masters());
    assert_eq!(CountingAllocator::count(), before);
    let masters: Vec<_> = functions.borrow().values().map(|function| function.get(4) & BUS_MASTER != 0).collect();
    assert_eq!(masters, [true, false, false, true, true, true, false]);
}

#[test]
fn a_root_bridge_tells_what_its_functions_take() {
    let (machine, _, _) = machine([
        (at(0, 2, 0), network().bar(0, 0xF100_0000, 0x2_0000).bar(1, 0xC041, 0x40)),
        (at(0, 3, 0), network().bar(0, 0xF000_0008, 0x100_0000).wide_bar(2, 0x8_0000_0004, 0x1000)),
    ]);
    let root = RootBridge { machine, bus: Rc::new(Bus::new(scan(machine))) };
    let memory = |range, bits| Resource::Memory { range, prefetchable: false, bits };
    assert_eq!(
        root.resources(),
        [
            Resource::Buses(0..=0),
            Resource::Ports(0xC040..=0xC07F),
            memory(0xF000_0000..=0xF101_FFFF, 32),
            memory(0x8_0000_0000..=0x8_0000_0FFF, 64),
        ]
    );
    assert_eq!(root.read_configuration(at(0, 3, 0), 0, 2), 0x8086);
    assert_eq!(root.read_configuration(at(0, 9, 0), 0, 4), u32::MAX);
}

/// One test for the whole life, as the core is one for the process.
#[test]
fn functions_come_with_connect_go_with_disconnect_and_come_back() {
    let _alone = crate::testing::DRIVER_MODEL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let bridge = FakeFunction::new(0x1B36, 1, PCI_BRIDGE).bridge_to(1);
    let with_rom = network().with(0x30, 0xF200_0000, 0xFFFF_0001);
    let (machine, functions, windows) = machine([
        (at(0, 2, 0), FakeFunction::new(0x5853, 1, [0xFF, 0x80, 0])),
        (at(0, 3, 0), bridge),
        (at(1, 4, 2), with_rom),
        (at(1, 4, 0), network().multi_function()),
    ]);
    windows.add(0xF200_0000, 0x1_0000);
    windows.window(0xF200_0000, 0x1_0000).unwrap().write_bytes(0, &rom_of(&[(3, 1, 0), (3, 1, 1), (3, 1, 2)]));
    let bus = Rc::new(Bus::new(scan(machine)));
    assert!(bus.has_xen_platform());
    let root = publish(machine, bus.clone()).unwrap();
    assert_eq!(api::device_path(root).unwrap().to_string(), "PciRoot(0x0)");
    assert!(bus.published().is_empty());
    for _ in 0..2 {
        api::connect(root, true).unwrap();
        let paths: Vec<_> =
            bus.published().iter().map(|(handle, _)| api::device_path(*handle).unwrap().to_string()).collect();
        let expected = ["Pci(0x2,0x0)", "Pci(0x3,0x0)", "Pci(0x3,0x0)/Pci(0x4,0x0)", "Pci(0x3,0x0)/Pci(0x4,0x2)"];
        assert_eq!(paths, expected.map(|path| format!("PciRoot(0x0)/{path}")));
        for (handle, function) in bus.published() {
            assert_eq!(bus.function(handle).unwrap().address(), function.address());
            assert!(!api::is_managed(handle));
        }
        assert_eq!(api::connect(root, false), Err(Status::NOT_FOUND));
        assert!(api::is_managed(root));
        // No program in it is one.
        assert_eq!(bus.load_option_roms(|function| function.class.base == class::NETWORK), 0);
        assert!(!bus.functions()[3].take_rom());
        assert_eq!(functions.borrow()[&at(1, 4, 2)].get(0x30), 0xF200_0000);
        api::disconnect(root).unwrap();
        assert!(bus.published().is_empty());
    }
    assert_eq!(api::handles_with(&PciRootBridgeIoProtocol::GUID), [root]);
}

/// A chain of images: type, blocks of 512 bytes, compression.
fn rom_of(images: &[(u8, u16, u16)]) -> Vec<u8> {
    let mut rom = Vec::new();
    for (index, (kind, blocks, compression)) in images.iter().enumerate() {
        let mut image = vec![index as u8 + 1; usize::from(*blocks) * 512];
        image[..2].copy_from_slice(&[0x55, 0xAA]);
        image[2..4].copy_from_slice(&blocks.to_le_bytes());
        image[4..8].copy_from_slice(&0x0EF1_u32.to_le_bytes());
        image[8..10].copy_from_slice(&11_u16.to_le_bytes());
        image[10..12].copy_from_slice(&0x8664_u16.to_le_bytes());
        image[12..14].copy_from_slice(&compression.to_le_bytes());
        image[0x16..0x18].copy_from_slice(&0x40_u16.to_le_bytes());
        image[0x18..0x1A].copy_from_slice(&0x20_u16.to_le_bytes());
        let data = &mut image[0x20..0x38];
        data.fill(0);
        data[..4].copy_from_slice(b"PCIR");
        data[0x10..0x12].copy_from_slice(&blocks.to_le_bytes());
        data[0x14] = *kind;
        data[0x15] = if index + 1 == images.len() { 0x80 } else { 0 };
        rom.extend(image);
    }
    rom
}

#[test]
fn every_image_of_a_rom_is_found_and_its_program() {
    let rom = rom_of(&[(0, 2, 0), (3, 1, 0), (3, 1, 1)]);
    let (images, error) = rom::images(&rom);
    assert_eq!(error, None);
    let places: Vec<_> = images.iter().map(|image| image.place.clone()).collect();
    assert_eq!(places, [0..1024, 1024..1536, 1536..2048]);
    assert_eq!(images[0].program, None);
    assert_eq!(&*images[1].program.as_ref().unwrap().bytes(&rom).unwrap(), &rom[1024 + 0x40..1536]);
    assert!(matches!(images[2].program.as_ref().unwrap().bytes(&rom), Err(rom::RomError::Damaged(_))));
}

#[test]
fn programs_for_other_processors_are_none() {
    let mut rom = rom_of(&[(3, 1, 0)]);
    rom[10..12].copy_from_slice(&0x014C_u16.to_le_bytes());
    assert_eq!(rom::images(&rom).0[0].program, None);
}

#[test]
fn a_rom_of_any_length_or_with_any_byte_changed_is_survived() {
    let rom = rom_of(&[(0, 1, 0), (3, 2, 0), (3, 1, 1)]);
    let read = |rom: &[u8]| {
        let (images, _) = rom::images(rom);
        for image in images {
            assert!(image.place.end <= rom.len());
            let _ = image.program.map(|program| program.bytes(rom).map(|bytes| bytes.len()));
        }
    };
    for length in 0..rom.len() {
        read(&rom[..length]);
    }
    for at in 0..rom.len() {
        for value in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut changed = rom.clone();
            changed[at] = value;
            read(&changed);
        }
    }
}

#[test]
fn a_chain_of_images_without_end_ends() {
    let one = rom_of(&[(0, 1, 0), (0, 1, 0)])[..512].to_vec();
    let (images, error) = rom::images(&one.repeat(100));
    assert_eq!((images.len(), error), (32, None));
}

#[test]
fn a_rom_is_read_as_long_as_its_images_and_the_function_left_as_it_was() {
    let rom = rom_of(&[(0, 2, 0), (3, 1, 0)]);
    let function = network().with(0x30, 0xF200_0000, 0xFFFF_0001);
    let (machine, functions, windows) = machine([(at(0, 3, 0), function)]);
    windows.add(0xF200_0000, 0x1_0000);
    windows.window(0xF200_0000, 0x1_0000).unwrap().write_bytes(0, &rom);
    let before = functions.borrow()[&at(0, 3, 0)].space;
    assert_eq!(rom::read(&scan(machine)[0]).unwrap(), rom);
    assert_eq!(functions.borrow()[&at(0, 3, 0)].space, before);
}

#[test]
fn where_there_is_no_rom_none_is_read() {
    // No address; a size that is no power of two; larger than any; no memory; nothing in it.
    for (value, writable) in
        [(0, 0xFFFF_0001), (0xF200_0000, 0xFF0F_0001), (0xC000_0000, 0xC000_0001), (0xF200_0000, 0xFFFF_0001)]
    {
        assert_eq!(rom::read(&only(network().with(0x30, value, writable))), None);
    }
    let (machine, _, windows) = machine([(at(0, 3, 0), network().with(0x30, 0xF200_0000, 0xFFFF_0001))]);
    windows.add(0xF200_0000, 0x1_0000);
    assert_eq!(rom::read(&scan(machine)[0]), None);
}
