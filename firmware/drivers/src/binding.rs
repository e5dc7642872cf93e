//! The bus in the UEFI driver model: a driver that makes a child for each disk, of a root handle (PVH) or of the platform
//! device's PCI function (HVM).
//!
//! Device paths are those that OvmfXen gives, so that boot options made with it go on working.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ptr;

use services::api::{self, PciIoProtocol};
use services::device_path::{DevicePath, DevicePathBuf, Node};
use services::handle::OpenAttributes;
use services::handle::driver::Driver;
use services::{Guid, Handle, Result, Status};
use uefi_raw::guid;
use uefi_raw::protocol::device_path::DevicePathProtocol;

use crate::block::{Disk, device_name};
use crate::bus::XenBus;
use crate::pci;

/// The node of the root handle on PVH; also where the console's device path starts.
pub const ROOT_NODE: Guid = guid!("a732241f-383d-4d9c-8ae1-8e09837589d7");
/// The node of a device: followed by its type and number.
const DEVICE_NODE: Guid = guid!("3d3ca290-b9a5-11e3-b75d-b8ac6f7d65e6");
/// Type of a disk in a device's node.
const DISK_TYPE: u8 = 1;
/// A protocol without interface, by which the driver knows the root handle and says that it manages it.
const XEN_BUS: Guid = guid!("c2f0ba5e-3c6f-4f0e-9d3a-6d9f5a1f7b52");
const VERSION: u32 = 1;

/// PVH: makes the root handle and adds the driver. Disks come to be when the root handle is connected.
pub fn install(bus: Rc<XenBus>) -> Result<Handle> {
    let path = DevicePathBuf::new().with(&Node::VendorHardware { guid: ROOT_NODE, data: Vec::new() })?;
    // The handle stays for good, and so does its path.
    let path: &'static DevicePathBuf = Box::leak(Box::new(path));
    let interface = path.as_bytes().as_ptr().cast_mut().cast();
    let root = api::install_protocols(None, &[(DevicePathProtocol::GUID, interface), (XEN_BUS, ptr::null_mut())])?;
    install_driver(bus, Parent::Root(root))?;
    Ok(root)
}

/// HVM: adds the driver. Disks come to be when the Xen platform device, a function of `pci`, is connected.
pub fn install_on_platform_device(bus: Rc<XenBus>, pci: Rc<pci::Bus>) -> Result<()> {
    install_driver(bus, Parent::PlatformDevice(pci))
}

fn install_driver(bus: Rc<XenBus>, parent: Parent) -> Result<()> {
    let driver = XenBusDriver { bus, parent, managing: Cell::new(None), children: RefCell::default() };
    api::install_driver(Box::new(driver)).map(drop)
}

/// What the disks are children of.
enum Parent {
    /// A handle of the bus's own.
    Root(Handle),
    /// The platform device on this bus.
    PlatformDevice(Rc<pci::Bus>),
}

impl Parent {
    fn is(&self, controller: Handle) -> bool {
        match self {
            Self::Root(root) => *root == controller,
            Self::PlatformDevice(pci) => pci.function(controller).is_some_and(|function| function.is_xen_platform()),
        }
    }

    /// The protocol by which the driver says that it manages the parent.
    const fn protocol(&self) -> &'static Guid {
        match self {
            Self::Root(_) => &XEN_BUS,
            Self::PlatformDevice(_) => &PciIoProtocol::GUID,
        }
    }
}

/// The device path of a disk below `root`.
fn disk_path(root: &DevicePath, number: u32) -> Result<DevicePathBuf> {
    let mut data = alloc::vec![DISK_TYPE];
    // OvmfXen has 16 bits for the number; larger ones (from xvdq on) would not be unique.
    match u16::try_from(number) {
        Ok(number) => data.extend(number.to_le_bytes()),
        Err(_) => data.extend(number.to_le_bytes()),
    }
    Ok(DevicePathBuf::from(root).with(&Node::VendorHardware { guid: DEVICE_NODE, data })?)
}

/// What the guest's configuration calls the disk at `path` (`xvda`); `None` if it is not one of this bus.
pub fn disk_name(path: &DevicePath) -> Option<String> {
    let data = path.nodes().find_map(|node| match node {
        Node::VendorHardware { guid: DEVICE_NODE, data } => Some(data),
        _ => None,
    })?;
    let (kind, number) = data.split_first()?;
    let number = match *number {
        [a, b] => u32::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => return None,
    };
    (*kind == DISK_TYPE).then(|| device_name(number).as_str().into())
}

struct XenBusDriver {
    bus: Rc<XenBus>,
    parent: Parent,
    managing: Cell<Option<Handle>>,
    children: RefCell<Vec<(Handle, Disk)>>,
}

impl Driver for XenBusDriver {
    fn name(&self) -> &str {
        "Xen paravirtual devices"
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn supported(&self, controller: Handle, _: Option<&DevicePath>) -> Result<()> {
        match self.managing.get() {
            None if self.parent.is(controller) => Ok(()),
            Some(managed) if managed == controller => Err(Status::ALREADY_STARTED),
            _ => Err(Status::UNSUPPORTED),
        }
    }

    fn start(&self, binding: Handle, controller: Handle, remaining: Option<&DevicePath>) -> Result<()> {
        // A path that ends here asks for no child (UEFI 2.10 §11.1); all children are made together later.
        if remaining.is_some_and(DevicePath::is_empty) {
            return Ok(());
        }
        let path = api::device_path(controller)?;
        api::open_protocol(controller, self.parent.protocol(), binding, controller, OpenAttributes::BY_DRIVER)?;
        self.managing.set(Some(controller));
        for disk in self.bus.connect_disks() {
            if let Err(status) = self.add_child(binding, controller, &path, &disk) {
                log::error!("{}: making a handle: {status}", *disk.device());
                self.close(&[disk]);
            }
        }
        Ok(())
    }

    fn stop(&self, binding: Handle, controller: Handle, children: &[Handle]) -> Result<()> {
        if children.is_empty() {
            api::close_protocol(controller, self.parent.protocol(), binding, controller)?;
            self.managing.set(None);
            return Ok(());
        }
        let mut result = Ok(());
        let mut gone = Vec::new();
        for &child in children {
            match self.remove_child(binding, controller, child) {
                Ok(disk) => gone.push(disk),
                Err(status) => result = Err(status),
            }
        }
        self.close(&gone);
        result
    }

    fn controller_name(&self, controller: Handle, child: Option<Handle>) -> Option<String> {
        if self.managing.get() != Some(controller) {
            return None;
        }
        let Some(child) = child else { return Some("Xen bus".into()) };
        let children = self.children.borrow();
        let (_, disk) = children.iter().find(|(handle, _)| *handle == child)?;
        let device = disk.device();
        Some(alloc::format!("PV disk {} ({})", device.name, device.frontend))
    }
}

impl XenBusDriver {
    fn add_child(&self, binding: Handle, controller: Handle, path: &DevicePath, disk: &Disk) -> Result<()> {
        let path = disk_path(path, disk.device().number)?;
        let child = api::install_block_device(&path, Box::new(disk.clone()))?;
        if let Err(status) = self.open_for(binding, controller, child) {
            // Nobody can have begun to use it.
            let _ = api::uninstall_block_device(child);
            return Err(status);
        }
        self.children.borrow_mut().push((child, disk.clone()));
        Ok(())
    }

    /// Takes a child's handle away; while somebody holds on to it, it stays a child.
    fn remove_child(&self, binding: Handle, controller: Handle, child: Handle) -> Result<Disk> {
        let index = self.children.borrow().iter().position(|(handle, _)| *handle == child);
        let index = index.ok_or(Status::NOT_FOUND)?;
        api::close_protocol(controller, self.parent.protocol(), binding, child)?;
        if let Err(status) = api::uninstall_block_device(child) {
            self.open_for(binding, controller, child)?;
            return Err(status);
        }
        Ok(self.children.borrow_mut().swap_remove(index).1)
    }

    fn open_for(&self, binding: Handle, controller: Handle, child: Handle) -> Result<()> {
        let how = OpenAttributes::BY_CHILD_CONTROLLER;
        api::open_protocol(controller, self.parent.protocol(), binding, child, how).map(drop)
    }

    fn close(&self, disks: &[Disk]) {
        if !disks.is_empty()
            && let Err(failure) = self.bus.disconnect(disks)
        {
            log::error!("{failure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use services::block::BlockDevice;
    use uefi_raw::protocol::block::BlockIoProtocol;

    use super::*;
    use crate::block::Options;
    use crate::testing::{DRIVER_MODEL, World};

    fn text(path: &DevicePath) -> String {
        path.to_string()
    }

    #[test]
    fn disks_have_the_paths_that_ovmfxen_gives() {
        let root = DevicePathBuf::new().with(&Node::VendorHardware { guid: ROOT_NODE, data: vec![] }).unwrap();
        assert_eq!(
            text(&disk_path(&root, 51712).unwrap()).to_ascii_lowercase(),
            "venhw(a732241f-383d-4d9c-8ae1-8e09837589d7)/venhw(3d3ca290-b9a5-11e3-b75d-b8ac6f7d65e6,0100ca)"
        );
        assert!(text(&disk_path(&root, 0x1000_1000).unwrap()).ends_with(",0100100010)"));
    }

    #[test]
    fn a_disk_is_called_what_the_configuration_calls_it() {
        let root = DevicePathBuf::new().with(&Node::VendorHardware { guid: ROOT_NODE, data: vec![] }).unwrap();
        assert_eq!(disk_name(&disk_path(&root, 51728).unwrap()).as_deref(), Some("xvdb"));
        assert_eq!(disk_name(&disk_path(&root, 0x1000_1000).unwrap()).as_deref(), Some("xvdq"));
        assert_eq!(disk_name(&root), None);
    }

    /// One test for the whole life, as the core is one for the process.
    #[test]
    fn disks_come_with_connect_go_with_disconnect_and_come_back() {
        let _alone = DRIVER_MODEL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let world = World::new(&[51712, 51728], |_| {});
        let bus = Rc::new(XenBus::start(world.domain, Options::default()).unwrap());
        let disks = || api::handles_with(&BlockIoProtocol::GUID);
        let root = install(bus.clone()).unwrap();
        assert!(disks().is_empty());
        for _ in 0..2 {
            api::connect(root, true).unwrap();
            assert_eq!(disks().len(), 2);
            assert_eq!(api::connect(root, false), Err(Status::NOT_FOUND));
            api::disconnect(root).unwrap();
            assert!(disks().is_empty());
            assert!(world.hypervisor.open_ports.borrow().is_empty());
        }
        api::connect(root, true).unwrap();
        assert!(bus.disks().iter_mut().all(|disk| disk.read(0, &mut [0; 512]).is_ok()));
        bus.hand_over();
        assert!(world.hypervisor.mapped.borrow().is_empty());
    }
}
