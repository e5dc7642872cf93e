//! The bus in the UEFI driver model: a root bridge, and a driver that makes a child of it for each function.
//!
//! Device paths are those that EDK2 gives: `PciRoot(0x0)/Pci(device,function)`, with the bridges on the way in between.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;

use services::api;
use services::device_path::{DevicePath, DevicePathBuf, Node};
use services::handle::OpenAttributes;
use services::handle::driver::Driver;
use services::{Handle, Result, Status};
use uefi_raw::protocol::pci::root_bridge::PciRootBridgeIoProtocol;

use super::bus::RootBridge;
use super::{Bus, Function};
use crate::domain::EmulatedMachine;

/// The root bridge's node: EISA identifier PNP0A03.
pub(crate) const ROOT: Node = Node::Acpi { hid: 0x0A03_41D0, uid: 0 };
const VERSION: u32 = 1;

/// Makes the root bridge's handle and adds the driver. Functions become handles when the root bridge is connected.
pub fn publish(machine: EmulatedMachine, bus: Rc<Bus>) -> Result<Handle> {
    let path = DevicePathBuf::new().with(&ROOT)?;
    let root = api::install_pci_root_bridge(&path, Box::new(RootBridge { machine, bus: bus.clone() }))?;
    api::install_driver(Box::new(PciBusDriver { bus, root, path, managing: Cell::new(false) }))?;
    Ok(root)
}

struct PciBusDriver {
    bus: Rc<Bus>,
    root: Handle,
    path: DevicePathBuf,
    managing: Cell<bool>,
}

impl Driver for PciBusDriver {
    fn name(&self) -> &str {
        "PCI bus"
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn supported(&self, controller: Handle, _: Option<&DevicePath>) -> Result<()> {
        match (controller == self.root, self.managing.get()) {
            (false, _) => Err(Status::UNSUPPORTED),
            (true, true) => Err(Status::ALREADY_STARTED),
            (true, false) => Ok(()),
        }
    }

    fn start(&self, binding: Handle, controller: Handle, remaining: Option<&DevicePath>) -> Result<()> {
        // A path that ends here asks for no child (UEFI 2.11 §11.1); all children are made together later.
        if remaining.is_some_and(DevicePath::is_empty) {
            return Ok(());
        }
        api::open_protocol(controller, &PciRootBridgeIoProtocol::GUID, binding, controller, OpenAttributes::BY_DRIVER)?;
        self.managing.set(true);
        for function in self.bus.functions() {
            if let Err(status) = self.add_child(binding, function) {
                log::error!("PCI {}: making a handle: {status}", function.address());
            }
        }
        Ok(())
    }

    fn stop(&self, binding: Handle, controller: Handle, children: &[Handle]) -> Result<()> {
        if children.is_empty() {
            api::close_protocol(controller, &PciRootBridgeIoProtocol::GUID, binding, controller)?;
            self.managing.set(false);
            return Ok(());
        }
        let mut result = Ok(());
        for &child in children {
            if let Err(status) = self.remove_child(binding, child) {
                result = Err(status);
            }
        }
        result
    }

    fn controller_name(&self, controller: Handle, child: Option<Handle>) -> Option<String> {
        if controller != self.root {
            return None;
        }
        let Some(child) = child else { return Some("PCI root bridge".into()) };
        let function = self.bus.function(child)?;
        let (vendor, device) = function.id;
        Some(alloc::format!("PCI {} {vendor:04x}:{device:04x}", function.address()))
    }
}

impl PciBusDriver {
    fn add_child(&self, binding: Handle, function: &Function) -> Result<()> {
        let path = function_path(&self.path, self.bus.functions(), function)?;
        let child = api::install_pci_function(&path, Box::new(function.clone()))?;
        if let Err(status) = self.open_for(binding, child) {
            // Nobody can have begun to use it.
            let _ = api::uninstall_pci_function(child);
            return Err(status);
        }
        self.bus.add(child, function.clone());
        Ok(())
    }

    /// Takes a child's handle away; while somebody holds on to it, it stays a child.
    fn remove_child(&self, binding: Handle, child: Handle) -> Result<()> {
        api::close_protocol(self.root, &PciRootBridgeIoProtocol::GUID, binding, child)?;
        if let Err(status) = api::uninstall_pci_function(child) {
            self.open_for(binding, child)?;
            return Err(status);
        }
        self.bus.remove(child);
        Ok(())
    }

    fn open_for(&self, binding: Handle, child: Handle) -> Result<()> {
        let how = OpenAttributes::BY_CHILD_CONTROLLER;
        api::open_protocol(self.root, &PciRootBridgeIoProtocol::GUID, binding, child, how).map(drop)
    }
}

/// The device path of a function below `root`.
fn function_path(root: &DevicePath, functions: &[Function], function: &Function) -> Result<DevicePathBuf> {
    let mut way: Vec<_> = alloc::vec![function.address()];
    let mut bridge = function.bridge();
    // No way is longer than there are bridges.
    while let Some(address) = bridge.filter(|_| way.len() <= functions.len()) {
        way.push(address);
        bridge = functions.iter().find(|other| other.address() == address).and_then(Function::bridge);
    }
    let mut path = DevicePathBuf::from(root);
    for address in way.iter().rev() {
        path.push(&Node::Pci { device: address.device, function: address.function })?;
    }
    Ok(path)
}
