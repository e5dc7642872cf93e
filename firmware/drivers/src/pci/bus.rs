//! The bus: all functions, and those that have been published as handles.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;

use hw::device::{Ports, Window};
use services::Handle;
use services::pci::{Address, Bar, PciRootBridge, PciSpaces, Resource};

use super::{Configuration, Function, class};
use crate::domain::EmulatedMachine;

/// First address that does not fit 32 bits.
const FOUR_GIB: u64 = 1 << 32;

/// The bus. Device drivers hold it to find the function behind a controller.
#[derive(Debug, Default)]
pub struct Bus {
    functions: Vec<Function>,
    published: RefCell<Vec<(Handle, Function)>>,
}

impl Bus {
    /// A bus with the functions of a [`scan`](super::scan), none of them published.
    pub fn new(functions: Vec<Function>) -> Self {
        Self { functions, published: RefCell::default() }
    }

    /// All functions, by address.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// Whether there is a xen-platform device: without it (`xen_platform_pci=0`) the guest is to use emulated devices only.
    pub fn has_xen_platform(&self) -> bool {
        self.functions.iter().any(Function::is_xen_platform)
    }

    /// The function that `controller` stands for; `None` if it is no PCI function of ours.
    pub fn function(&self, controller: Handle) -> Option<Function> {
        let published = self.published.borrow();
        published.iter().find(|(handle, _)| *handle == controller).map(|(_, function)| function.clone())
    }

    /// Handles and their functions.
    pub fn published(&self) -> Vec<(Handle, Function)> {
        self.published.borrow().clone()
    }

    /// Notes that `handle` stands for `function`.
    pub fn add(&self, handle: Handle, function: Function) {
        self.published.borrow_mut().push((handle, function));
    }

    /// Notes that `handle` stands for nothing any more.
    pub(super) fn remove(&self, handle: Handle) {
        self.published.borrow_mut().retain(|(other, _)| *other != handle);
    }

    /// Stops the bus masters that were started since the scan; for ExitBootServices. Bridges pass on what is behind them,
    /// displays and the xen-platform device hold no memory of the firmware. Allocates nothing.
    pub fn stop_bus_masters(&self) {
        let exempt = |function: &Function| {
            function.is_bridge()
                || function.is_xen_platform()
                || [class::BRIDGE, class::DISPLAY].contains(&function.class.base)
        };
        self.functions.iter().filter(|function| !exempt(function)).for_each(Function::stop_mastering);
    }

    fn at(&self, address: Address) -> Option<&Function> {
        let index = self.functions.binary_search_by_key(&address, Function::address).ok()?;
        self.functions.get(index)
    }

    /// What the functions take, as one range of each kind.
    fn resources(&self) -> Vec<Resource> {
        let bars = || self.functions.iter().flat_map(|function| (0..6).filter_map(|index| function.bar(index)));
        let last_bus = self.functions.iter().map(|function| function.address().bus).max().unwrap_or(0);
        let mut resources = alloc::vec![Resource::Buses(0..=last_bus)];
        let ports = bars().filter_map(|bar| match Resource::of(bar) {
            Resource::Ports(range) => Some(range),
            _ => None,
        });
        resources.extend(ports.reduce(|a, b| *a.start().min(b.start())..=*a.end().max(b.end())).map(Resource::Ports));
        for (bits, low) in [(32, true), (64, false)] {
            let memory = bars().filter_map(|bar| match bar {
                Bar::Memory { address, size, .. } if (address < FOUR_GIB) == low => {
                    Some(address..=address.saturating_add(size - 1))
                }
                _ => None,
            });
            let whole = memory.reduce(|a, b| *a.start().min(b.start())..=*a.end().max(b.end()));
            resources.extend(whole.map(|range| Resource::Memory { range, prefetchable: false, bits }));
        }
        resources
    }
}

/// The root bridge of a bus.
pub(super) struct RootBridge {
    pub(super) machine: EmulatedMachine,
    pub(super) bus: alloc::rc::Rc<Bus>,
}

impl PciSpaces for RootBridge {
    fn window(&self, address: u64, length: usize) -> Option<Box<dyn Window>> {
        self.machine.windows.window(address, length)
    }

    fn ports(&self) -> &dyn Ports {
        self.machine.ports
    }
}

impl PciRootBridge for RootBridge {
    fn read_configuration(&self, address: Address, offset: u16, unit: u8) -> u32 {
        let configuration = Configuration::new(self.machine.ports);
        match unit {
            1 => configuration.read_u8(address, offset).into(),
            2 => configuration.read_u16(address, offset).into(),
            _ => configuration.read_u32(address, offset),
        }
    }

    fn write_configuration(&self, address: Address, offset: u16, unit: u8, value: u32) {
        if let Some(function) = self.bus.at(address) {
            function.note_write(offset, value);
        }
        let configuration = Configuration::new(self.machine.ports);
        match unit {
            1 => configuration.write_u8(address, offset, value as u8),
            2 => configuration.write_u16(address, offset, value as u16),
            _ => configuration.write_u32(address, offset, value),
        }
    }

    fn resources(&self) -> Vec<Resource> {
        self.bus.resources()
    }
}
