//! Display adapters in the UEFI driver model: a child handle for the monitor, with the display's protocols and a text console.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use services::abi::pci::PciIoProtocol;
use services::device_path::{DevicePath, Node};
use services::graphics::{Adapter, SharedDisplay};
use services::handle::OpenAttributes;
use services::handle::driver::Driver;
use services::{Handle, Result, Status, api};

use super::Problem;
use super::bochs::Bochs;
use super::cirrus::{self, Cirrus};
use crate::pci::{Bar, Bus, Function, command};

/// `_ADR` of the monitor (ACPI 6.5 §B.4.2): the first one at a VGA connector, as the platform's firmware can find it.
const MONITOR: u32 = 0x8001_0100;
const VERSION: u32 = 0x10;

/// An adapter that there is a driver for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    StandardVga,
    VirtioVga,
    Cirrus,
}

impl Kind {
    const fn of(id: (u16, u16)) -> Option<Self> {
        match id {
            (0x1234, 0x1111) => Some(Self::StandardVga),
            (0x1AF4, 0x1050) => Some(Self::VirtioVga),
            (0x1013, 0x00B8) => Some(Self::Cirrus),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::StandardVga => "QEMU standard VGA",
            Self::VirtioVga => "virtio VGA",
            Self::Cirrus => "Cirrus Logic GD5446",
        }
    }

    fn open(self, function: &Function) -> core::result::Result<Box<dyn Adapter>, Problem> {
        let ports = function.machine().ports;
        Ok(match self {
            Self::StandardVga | Self::VirtioVga => {
                Box::new(Bochs::open(function.window(0), function.window(2), ports)?)
            }
            // Behind the video memory, its BAR has the same once more in other byte orders.
            Self::Cirrus => {
                let memory = match function.bar(0) {
                    Some(Bar::Memory { address, size, .. }) => {
                        let size = usize::try_from(size).unwrap_or(usize::MAX).min(cirrus::MEMORY_MAX);
                        function.machine().windows.window(address, size)
                    }
                    _ => None,
                };
                Box::new(Cirrus::open(memory, ports)?)
            }
        })
    }
}

/// An adapter that is managed.
#[derive(Debug)]
struct Output {
    controller: Handle,
    child: Handle,
    display: SharedDisplay,
}

/// The displays that there are; [`install`] gives it, and what is connected later is in it too.
#[derive(Clone, Default, Debug)]
pub struct Displays {
    outputs: Rc<RefCell<Vec<Output>>>,
}

impl Displays {
    /// The first display.
    pub fn first(&self) -> Option<SharedDisplay> {
        self.outputs.borrow().first().map(|output| output.display.clone())
    }
}

/// Whether there is a driver for this function.
pub const fn is_display(function: &Function) -> bool {
    Kind::of(function.id).is_some()
}

/// Adds the driver. Displays come to be when the adapters' handles are connected.
pub fn install(bus: Rc<Bus>) -> Result<Displays> {
    let displays = Displays::default();
    api::install_driver(Box::new(GraphicsDriver { bus, displays: displays.clone(), refused: RefCell::default() }))?;
    Ok(displays)
}

struct GraphicsDriver {
    bus: Rc<Bus>,
    displays: Displays,
    /// Adapters that are left out: what is wrong is said once.
    refused: RefCell<Vec<Handle>>,
}

impl GraphicsDriver {
    fn kind(&self, controller: Handle) -> Option<(Kind, Function)> {
        let function = self.bus.function(controller)?;
        Kind::of(function.id).map(|kind| (kind, function))
    }

    /// Makes the monitor's handle.
    fn add(&self, binding: Handle, controller: Handle, kind: Kind, function: &Function) -> Result<Output> {
        let adapter = kind.open(function).map_err(|problem| {
            log::warn!("{} at {}: {problem}", kind.name(), function.address());
            Status::UNSUPPORTED
        })?;
        let path = api::device_path(controller)?.with(&Node::AcpiAdr { adr: alloc::vec![MONITOR] })?;
        let (child, display) = api::install_display(&path, adapter)?;
        let how = OpenAttributes::BY_CHILD_CONTROLLER;
        api::open_protocol(controller, &PciIoProtocol::GUID, binding, child, how)?;
        api::install_graphics_console(child, display.clone())?;
        Ok(Output { controller, child, display })
    }
}

impl Driver for GraphicsDriver {
    fn name(&self) -> &str {
        "Display driver (standard VGA, virtio VGA, Cirrus Logic)"
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn supported(&self, controller: Handle, remaining: Option<&DevicePath>) -> Result<()> {
        if self.kind(controller).is_none() || self.refused.borrow().contains(&controller) {
            return Err(Status::UNSUPPORTED);
        }
        // A path that goes on goes on to the monitor.
        let next = remaining.and_then(|path| path.nodes().next());
        if next.is_some_and(|node| !matches!(node, Node::AcpiAdr { .. })) {
            return Err(Status::UNSUPPORTED);
        }
        let started = self.displays.outputs.borrow().iter().any(|output| output.controller == controller);
        if started { Err(Status::ALREADY_STARTED) } else { Ok(()) }
    }

    fn start(&self, binding: Handle, controller: Handle, _remaining: Option<&DevicePath>) -> Result<()> {
        let (kind, function) = self.kind(controller).ok_or(Status::UNSUPPORTED)?;
        api::open_protocol(controller, &PciIoProtocol::GUID, binding, controller, OpenAttributes::BY_DRIVER)?;
        function.enable(command::IO | command::MEMORY);
        match self.add(binding, controller, kind, &function) {
            Ok(output) => {
                self.displays.outputs.borrow_mut().push(output);
                Ok(())
            }
            Err(status) => {
                log::warn!("{} at {} is left out: {status}", kind.name(), function.address());
                self.refused.borrow_mut().push(controller);
                let _ = api::close_protocol(controller, &PciIoProtocol::GUID, binding, controller);
                Err(status)
            }
        }
    }

    /// The console cannot be taken away from those who use it, so the display stays.
    fn stop(&self, _binding: Handle, _controller: Handle, _children: &[Handle]) -> Result<()> {
        Err(Status::UNSUPPORTED)
    }

    fn controller_name(&self, controller: Handle, child: Option<Handle>) -> Option<String> {
        let (kind, function) = self.kind(controller)?;
        let outputs = self.displays.outputs.borrow();
        let output = outputs.iter().find(|output| output.controller == controller)?;
        match child {
            None => Some(format!("{} at {}", kind.name(), function.address())),
            Some(child) if child == output.child => Some("Monitor".into()),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
