//! The controllers in the driver model.

use std::cell::RefCell;
use std::rc::Rc;

use hw::fake::CountingAllocator;
use services::device_path::{DevicePathBuf, Node};
use services::{Handle, api};
use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::device_path::DevicePathProtocol;

use super::content;
use crate::ata::testing::World;
use crate::ata::testing::ahci::{AhciWindow, FakeAhci};
use crate::ata::testing::disk::FakeDisk;
use crate::ata::testing::ide::{FakeIde, IdePorts};
use crate::ata::testing::pci::{FakePci, PciPorts};
use crate::ata::{Unit, disk_name, install};
use crate::domain::EmulatedMachine;
use crate::pci::{self, Bus};
use crate::testing::{DRIVER_MODEL, leak};

const IDE: u32 = 1 << 3 | 1;
const AHCI: u32 = 0x1D << 3;

/// The handle of a controller's function, as the PCI bus makes it.
fn publish(bus: &Bus, device: u8, function: u8) -> Handle {
    let found =
        bus.functions().iter().find(|found| (found.address().device, found.address().function) == (device, function));
    let root = DevicePathBuf::new().with(&Node::Acpi { hid: 0x0A03_41D0, uid: 0 }).unwrap();
    let path = leak(root.with(&Node::Pci { device, function }).unwrap());
    let interfaces = [
        (DevicePathProtocol::GUID, path.as_bytes().as_ptr().cast_mut().cast()),
        (api::PciIoProtocol::GUID, std::ptr::null_mut()),
    ];
    let handle = api::install_protocols(None, &interfaces).unwrap();
    bus.add(handle, found.unwrap().clone());
    handle
}

/// The emulated disks there are: paths and names.
fn disks() -> Vec<(String, String)> {
    let paths = api::handles_with(&BlockIoProtocol::GUID).into_iter().map(|handle| api::device_path(handle).unwrap());
    paths.filter_map(|path| Some((path.to_string(), disk_name(&path)?))).collect()
}

/// One test for the whole life, as the core is one for the process.
#[test]
fn disks_come_with_connect_and_go_with_disconnect_and_in_the_end_nothing_moves() {
    let _alone = DRIVER_MODEL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = World::new();
    let ide = FakeIde::new(Some(FakeDisk::disk(content(4096))), Some(FakeDisk::disk(content(8192))));
    let unwanted = ide.borrow().devices[0].as_ref().unwrap().shared.clone();
    let ahci = FakeAhci::new(
        world.hypervisor,
        vec![Some(FakeDisk::disk(content(4096))), None, Some(FakeDisk::cd(content(4096)))],
    );
    let configuration = FakePci::new();
    world.ports.devices.borrow_mut().push(Box::new(IdePorts(ide.clone(), world.hypervisor)));
    world.ports.devices.borrow_mut().push(Box::new(PciPorts(configuration.clone())));
    let machine = EmulatedMachine { windows: leak(AhciWindow(ahci.clone())), ..world.machine };
    let bus = Rc::new(Bus::new(pci::scan(machine)));
    let skipped: Rc<RefCell<Vec<Unit>>> = Rc::default();
    let asked = skipped.clone();
    let controllers = install(bus.clone(), Box::new(move |unit| asked.borrow().contains(unit))).unwrap();
    let (ide_handle, ahci_handle) = (publish(&bus, 1, 1), publish(&bus, 0x1D, 0));

    // The paravirtual driver has all that the toolstack gives.
    skipped.borrow_mut().extend((0..4).map(|index| Unit::Ide { channel: index / 2, device: index % 2 }));
    assert!(api::connect(ide_handle, true).is_err());
    assert_eq!((disks().len(), ide.borrow().accesses), (0, 0));

    skipped.borrow_mut().truncate(1);
    for _ in 0..2 {
        api::connect(ide_handle, true).unwrap();
        assert_eq!(disks(), [("PciRoot(0x0)/Pci(0x1,0x1)/Ata(Primary,Slave,0x0)".into(), "hdb".into())]);
        api::connect(ahci_handle, true).unwrap();
        let names = ["hdb", "hda", "hdc"];
        assert_eq!(disks().into_iter().map(|disk| disk.1).collect::<Vec<_>>(), names);
        assert_eq!(disks()[2].0, "PciRoot(0x0)/Pci(0x1d,0x0)/Sata(0x2,0xffff,0x0)");
        assert_eq!((configuration.borrow().command(IDE) & 5, configuration.borrow().command(AHCI) & 6), (5, 6));
        assert_eq!((ahci.borrow().running(0), ahci.borrow().running(1)), ((true, true), (false, false)));
        api::disconnect(ide_handle).unwrap();
        api::disconnect(ahci_handle).unwrap();
        assert!(disks().is_empty());
        assert_eq!(world.frames.live(), 0);
        assert_eq!((configuration.borrow().command(IDE) & 4, configuration.borrow().command(AHCI) & 4), (0, 0));
    }
    assert!(unwanted.seen.borrow().is_empty(), "a skipped disk is not touched");

    api::connect(ide_handle, true).unwrap();
    api::connect(ahci_handle, true).unwrap();
    let before = CountingAllocator::count();
    controllers.hand_over();
    assert_eq!(CountingAllocator::count(), before);
    assert_eq!(ahci.borrow().running(0), (false, false));
    assert_eq!((configuration.borrow().command(IDE) & 4, configuration.borrow().command(AHCI) & 4), (0, 0));
    api::disconnect(ide_handle).unwrap();
    api::disconnect(ahci_handle).unwrap();
}
