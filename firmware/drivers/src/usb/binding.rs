//! The controller in the UEFI driver model: a driver for PCI functions that makes console devices of keyboards.
//!
//! Consoles stay for good, so a keyboard whose controller is given to another driver stays too, without keys.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use services::abi::pci::PciIoProtocol;
use services::api;
use services::device_path::{DevicePath, Node};
use services::handle::OpenAttributes;
use services::handle::driver::Driver;
use services::{Handle, Result, Status};

use super::enumerate::{Found, keyboards};
use super::uhci::Uhci;
use super::{Host, keyboard};
use crate::pci::{Bar, Bus, Class, Function, command};

const VERSION: u32 = 0x10;
/// A serial bus, USB, UHCI (PCI Code and ID Assignment Specification §1.13).
const UHCI_CLASS: Class = Class { base: 0x0C, sub: 3, interface: 0 };

/// Where its registers are, and how many ports they take at least.
const BAR: u8 = 4;
const PORTS: u32 = 0x14;
/// Configuration register by which firmware takes keyboard and mouse over for old systems; the value ends that.
const LEGACY: (u16, u16) = (0xC0, 0x8F00);

/// Adds the driver for USB controllers among `bus`'s functions. Keyboards come to be when those are connected; Ctrl-Alt-Del on one
/// calls `restart`. What ExitBootServices needs is done by the consoles.
pub fn install(bus: Rc<Bus>, restart: impl Fn() + 'static) -> Result<()> {
    let driver = UsbDriver { bus, restart: Rc::new(restart), looked_at: RefCell::default() };
    api::install_driver(Box::new(driver)).map(drop)
}

/// What drives a controller that has keyboards.
type SharedHost = Rc<RefCell<Uhci>>;

struct UsbDriver {
    bus: Rc<Bus>,
    restart: Rc<dyn Fn()>,
    /// Controllers, with what drives them where there are keyboards.
    looked_at: RefCell<Vec<(Handle, Option<SharedHost>)>>,
}

impl Driver for UsbDriver {
    fn name(&self) -> &str {
        "USB keyboards (UHCI)"
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn supported(&self, controller: Handle, _: Option<&DevicePath>) -> Result<()> {
        let function = self.bus.function(controller).filter(|function| function.class == UHCI_CLASS);
        let looked_at = self.looked_at.borrow();
        match looked_at.iter().find(|(handle, _)| *handle == controller) {
            _ if function.is_none() => Err(Status::UNSUPPORTED),
            None => Ok(()),
            Some((_, Some(_))) => Err(Status::ALREADY_STARTED),
            // There was no keyboard, and none comes.
            Some((_, None)) => Err(Status::UNSUPPORTED),
        }
    }

    fn start(&self, binding: Handle, controller: Handle, _: Option<&DevicePath>) -> Result<()> {
        let function = self.bus.function(controller).ok_or(Status::UNSUPPORTED)?;
        api::open_protocol(controller, &PciIoProtocol::GUID, binding, controller, OpenAttributes::BY_DRIVER)?;
        let host = self.start_keyboards(controller, function);
        let started = host.is_some();
        self.looked_at.borrow_mut().push((controller, host));
        if started {
            return Ok(());
        }
        api::close_protocol(controller, &PciIoProtocol::GUID, binding, controller)?;
        Err(Status::NOT_FOUND)
    }

    fn stop(&self, binding: Handle, controller: Handle, _: &[Handle]) -> Result<()> {
        let mut looked_at = self.looked_at.borrow_mut();
        let entry = looked_at.iter_mut().find(|(handle, host)| *handle == controller && host.is_some());
        let host = entry.and_then(|(_, host)| host.take()).ok_or(Status::NOT_FOUND)?;
        drop(looked_at);
        host.try_borrow_mut().map_err(|_| Status::DEVICE_ERROR)?.stop();
        api::close_protocol(controller, &PciIoProtocol::GUID, binding, controller)
    }

    fn controller_name(&self, controller: Handle, child: Option<Handle>) -> Option<String> {
        let looked_at = self.looked_at.borrow();
        let managed = looked_at.iter().any(|(handle, host)| *handle == controller && host.is_some());
        (managed && child.is_none()).then(|| "USB controller (UHCI)".into())
    }
}

impl UsbDriver {
    /// Makes console devices of all keyboards; `None` where there are none, and the controller is stopped.
    fn start_keyboards(&self, controller: Handle, function: Function) -> Option<SharedHost> {
        let address = function.address();
        let registers = match function.bar(BAR)? {
            Bar::Ports { first, count } if count >= PORTS => first,
            _ => return None,
        };
        function.enable(command::IO | command::BUS_MASTER);
        function.write_u16(LEGACY.0, LEGACY.1);
        let host = Uhci::start(function.machine(), registers).map(|mut host| (keyboards(&mut host), host));
        let found = host.as_ref().map_or(0, |(found, _)| found.len());
        log::info!("{address}: {found} USB keyboards");
        let Some((found, host)) = host.filter(|(found, _)| !found.is_empty()) else {
            function.disable(command::BUS_MASTER);
            return None;
        };
        let host = Rc::new(RefCell::new(host));
        for device in found {
            if let Err(status) = self.add(controller, &host, device) {
                log::error!("{address}: a USB keyboard: {status}");
            }
        }
        Some(host)
    }

    fn add(&self, controller: Handle, host: &SharedHost, device: Found) -> Result<()> {
        let mut path = api::device_path(controller)?;
        for (index, port) in device.ports.iter().enumerate() {
            let interface = if index + 1 == device.ports.len() { device.interface } else { 0 };
            path = path.with(&Node::Usb { parent_port: *port, interface })?;
        }
        let device = keyboard::device(host.clone(), device, self.restart.clone());
        services::abi::console::install_device(path.as_path(), device).map(drop)
    }
}
