//! The controllers in the UEFI driver model: a driver for PCI functions that makes a child of each disk and CD, and their
//! hand-over to the operating system.
//!
//! Device paths are those that EDK2 gives: `PciRoot(0x0)/Pci(0x1,0x1)/Ata(Primary,Master,0x0)` at an IDE controller,
//! `PciRoot(0x0)/Pci(0x4,0x0)/Sata(0x0,0xffff,0x0)` at an AHCI controller.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use services::api;
use services::device_path::{DevicePath, Node};
use services::handle::OpenAttributes;
use services::handle::driver::Driver;
use services::{Guid, Handle, Result, Status};

use super::device::{Device, Found, SharedLink, find};
use super::ide::{Channel, Registers};
use super::{Unit, ahci};
use crate::pci::{Bar, Bus, Class, Function, command};

/// EFI_PCI_IO_PROTOCOL (UEFI 2.10 §14.4).
const PCI_IO: Guid = api::PciIoProtocol::GUID;
const VERSION: u32 = 0x10;
/// `PortMultiplierPortNumber` of a device that is at no port multiplier (UEFI 2.10 §10.3.4.6).
const NO_MULTIPLIER: u16 = 0xFFFF;

/// Tells which units are not to be touched, because the same disk is there through another driver.
pub type Skip = Box<dyn Fn(&Unit) -> bool>;

/// The controllers in use.
#[derive(Default)]
pub struct Controllers {
    started: RefCell<Vec<Controller>>,
}

impl fmt::Debug for Controllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Controllers")
    }
}

/// A controller that the driver manages.
struct Controller {
    handle: Handle,
    function: Function,
    links: Vec<SharedLink>,
    children: Vec<(Handle, Device)>,
}

impl Controller {
    /// Stops all that goes on by itself. Allocates nothing.
    fn stop(&self) {
        self.children.iter().for_each(|(_, device)| device.close());
        for link in &self.links {
            if let Ok(mut link) = link.try_borrow_mut() {
                link.stop();
            }
        }
        self.function.disable(command::BUS_MASTER);
    }
}

impl Controllers {
    /// Leaves the controllers as the operating system expects to find them: what was written is flushed, nothing moves data, bus
    /// mastering is off. Afterwards all disks answer with errors.
    ///
    /// For ExitBootServices: does not allocate or free, needs no timer and no interrupt, and is bounded in time.
    pub fn hand_over(&self) {
        match self.started.try_borrow() {
            Ok(started) => started.iter().for_each(Controller::stop),
            Err(_) => log::error!("emulated disks: handed over while at work"),
        }
    }
}

/// Adds the driver for the IDE and AHCI controllers among `bus`'s functions. Disks come to be when those are connected. Units that
/// `skip` names are not even asked whether they exist; a controller where all are skipped is left alone.
pub fn install(bus: Rc<Bus>, skip: Skip) -> Result<Rc<Controllers>> {
    let controllers = Rc::new(Controllers::default());
    api::install_driver(Box::new(AtaDriver { bus, skip, controllers: controllers.clone() }))?;
    Ok(controllers)
}

/// What the guest's configuration calls the emulated disk at `path`; `None` if it is none. The four that the toolstack gives are
/// `hda` to `hdd`, at an AHCI controller too.
pub fn disk_name(path: &DevicePath) -> Option<String> {
    let unit = path.nodes().find_map(|node| match node {
        Node::Atapi { primary_secondary, slave_master, lun: 0 } if primary_secondary < 2 && slave_master < 2 => {
            Some(Unit::Ide { channel: primary_secondary, device: slave_master })
        }
        Node::Sata { port, lun: 0, .. } => Some(Unit::Ahci { port: u8::try_from(port).ok()? }),
        _ => None,
    })?;
    unit.name().map(Into::into)
}

fn node(unit: Unit) -> Node {
    match unit {
        Unit::Ide { channel, device } => Node::Atapi { primary_secondary: channel, slave_master: device, lun: 0 },
        Unit::Ahci { port } => Node::Sata { port: port.into(), port_multiplier_port: NO_MULTIPLIER, lun: 0 },
    }
}

/// Kinds of controllers (PCI Code and ID Assignment Specification §1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Ide,
    Ahci,
}

impl Kind {
    fn of(class: Class) -> Option<Self> {
        match class {
            Class { base: 1, sub: 1, .. } => Some(Self::Ide),
            Class { base: 1, sub: 6, interface: 1 } => Some(Self::Ahci),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ide => "IDE controller",
            Self::Ahci => "AHCI controller",
        }
    }

    /// The places where the toolstack puts disks.
    fn units(self) -> [Unit; 4] {
        [0, 1, 2, 3].map(|index| match self {
            Self::Ide => Unit::Ide { channel: index / 2, device: index % 2 },
            Self::Ahci => Unit::Ahci { port: index },
        })
    }
}

/// The registers of both channels: at the places they always had, or at those of the BARs.
fn ide_registers(function: &Function, channel: u8) -> Option<Registers> {
    const LEGACY: [(u16, u16); 2] = [(0x1F0, 0x3F6), (0x170, 0x376)];
    const BUS_MASTER_BAR: u8 = 4;
    const BUS_MASTER_PORTS: u16 = 8;
    const MASTER: u8 = 1 << 7;
    /// Where a block of control registers has the one that there is.
    const CONTROL: u16 = 2;
    let ports = |bar, least: u32| match function.bar(bar)? {
        Bar::Ports { first, count } if count >= least && u32::from(first) + least <= 1 << 16 => Some(first),
        _ => None,
    };
    let native = function.class.interface & 1 << (channel * 2) != 0;
    let (command, control) = match native {
        true => (ports(channel * 2, 8)?, ports(channel * 2 + 1, 4)? + CONTROL),
        false => LEGACY[usize::from(channel)],
    };
    let bus_master = ports(BUS_MASTER_BAR, 2 * u32::from(BUS_MASTER_PORTS));
    let bus_master = bus_master.filter(|_| function.class.interface & MASTER != 0);
    let bus_master = bus_master.map_or(0, |first| first + u16::from(channel) * BUS_MASTER_PORTS);
    Some(Registers { command, control, bus_master })
}

struct AtaDriver {
    bus: Rc<Bus>,
    skip: Skip,
    controllers: Rc<Controllers>,
}

impl Driver for AtaDriver {
    fn name(&self) -> &str {
        "Emulated disks and CDs (ATA, ATAPI)"
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn supported(&self, controller: Handle, _: Option<&DevicePath>) -> Result<()> {
        let (_, kind) = self.controller(controller)?;
        if self.is_managed(controller) {
            return Err(Status::ALREADY_STARTED);
        }
        // Where all disks are there through another driver, nobody needs this controller.
        if kind.units().iter().any(|unit| self.wants(*unit)) { Ok(()) } else { Err(Status::UNSUPPORTED) }
    }

    fn start(&self, binding: Handle, controller: Handle, remaining: Option<&DevicePath>) -> Result<()> {
        let (function, kind) = self.controller(controller)?;
        // A path that ends here asks for no child (UEFI 2.10 §11.1); all children are made together later.
        if remaining.is_some_and(DevicePath::is_empty) {
            return Ok(());
        }
        api::open_protocol(controller, &PCI_IO, binding, controller, OpenAttributes::BY_DRIVER)?;
        let (links, devices) = match kind {
            Kind::Ide => self.start_ide(&function),
            Kind::Ahci => self.start_ahci(&function),
        };
        let started = Controller { handle: controller, function, links, children: Vec::new() };
        self.controllers.started.borrow_mut().push(started);
        for device in devices {
            let title = device.title();
            match self.add_child(binding, controller, device) {
                Ok(()) => log::info!("{title}"),
                Err(status) => log::error!("{title}: making a handle: {status}"),
            }
        }
        Ok(())
    }

    fn stop(&self, binding: Handle, controller: Handle, children: &[Handle]) -> Result<()> {
        if children.is_empty() {
            let index = self.controllers.started.borrow().iter().position(|started| started.handle == controller);
            let started = index.map(|index| self.controllers.started.borrow_mut().swap_remove(index));
            started.ok_or(Status::NOT_FOUND)?.stop();
            return api::close_protocol(controller, &PCI_IO, binding, controller);
        }
        let mut result = Ok(());
        for &child in children {
            if let Err(status) = self.remove_child(binding, controller, child) {
                result = Err(status);
            }
        }
        result
    }

    fn controller_name(&self, controller: Handle, child: Option<Handle>) -> Option<String> {
        let started = self.controllers.started.borrow();
        let started = started.iter().find(|started| started.handle == controller)?;
        match child {
            None => Some(Kind::of(started.function.class)?.name().into()),
            Some(child) => {
                started.children.iter().find(|(handle, _)| *handle == child).map(|(_, device)| device.title())
            }
        }
    }
}

impl AtaDriver {
    fn controller(&self, controller: Handle) -> Result<(Function, Kind)> {
        let function = self.bus.function(controller).ok_or(Status::UNSUPPORTED)?;
        let kind = Kind::of(function.class).ok_or(Status::UNSUPPORTED)?;
        Ok((function, kind))
    }

    fn is_managed(&self, controller: Handle) -> bool {
        self.controllers.started.borrow().iter().any(|started| started.handle == controller)
    }

    fn wants(&self, unit: Unit) -> bool {
        !(self.skip)(&unit)
    }

    fn start_ide(&self, function: &Function) -> (Vec<SharedLink>, Vec<Device>) {
        let (mut links, mut devices) = (Vec::new(), Vec::new());
        function.enable(command::IO | command::BUS_MASTER);
        for channel in 0..2 {
            let units = [0, 1].map(|device| Unit::Ide { channel, device });
            if !units.iter().any(|unit| self.wants(*unit)) {
                continue;
            }
            let Some(registers) = ide_registers(function, channel) else {
                log::warn!("{}: IDE channel {channel} has no registers", function.address());
                continue;
            };
            let link: SharedLink = Rc::new(RefCell::new(Channel::new(function.machine(), registers)));
            for (device, unit) in (0..).zip(units) {
                if self.wants(unit) {
                    devices.extend(look(function, &link, device, unit));
                }
            }
            links.push(link);
        }
        (links, devices)
    }

    fn start_ahci(&self, function: &Function) -> (Vec<SharedLink>, Vec<Device>) {
        const REGISTERS: u8 = 5;
        let (mut links, mut devices) = (Vec::new(), Vec::new());
        function.enable(command::MEMORY | command::BUS_MASTER);
        let registers = function.window(REGISTERS).map(Rc::from);
        let Some(ahci) = registers.and_then(|registers| ahci::Controller::start(function.machine(), registers)) else {
            log::warn!("{}: the AHCI controller has no registers", function.address());
            return (links, devices);
        };
        for number in ahci.ports() {
            let unit = Unit::Ahci { port: number };
            if self.wants(unit) {
                let link: SharedLink = Rc::new(RefCell::new(ahci.port(number)));
                devices.extend(look(function, &link, 0, unit));
                links.push(link);
            }
        }
        (links, devices)
    }

    fn add_child(&self, binding: Handle, controller: Handle, device: Device) -> Result<()> {
        let path = api::device_path(controller)?.with(&node(device.unit()))?;
        let child = api::install_block_device(&path, Box::new(device.clone()))?;
        if let Err(status) =
            api::open_protocol(controller, &PCI_IO, binding, child, OpenAttributes::BY_CHILD_CONTROLLER)
        {
            // Nobody can have begun to use it.
            let _ = api::uninstall_block_device(child);
            return Err(status);
        }
        let mut started = self.controllers.started.borrow_mut();
        let started = started.iter_mut().find(|started| started.handle == controller).ok_or(Status::NOT_FOUND)?;
        started.children.push((child, device));
        Ok(())
    }

    /// Takes a child's handle away; while somebody holds on to it, it stays a child.
    fn remove_child(&self, binding: Handle, controller: Handle, child: Handle) -> Result<()> {
        api::close_protocol(controller, &PCI_IO, binding, child)?;
        if let Err(status) = api::uninstall_block_device(child) {
            api::open_protocol(controller, &PCI_IO, binding, child, OpenAttributes::BY_CHILD_CONTROLLER)?;
            return Err(status);
        }
        let mut started = self.controllers.started.borrow_mut();
        let started = started.iter_mut().find(|started| started.handle == controller).ok_or(Status::NOT_FOUND)?;
        if let Some(index) = started.children.iter().position(|(handle, _)| *handle == child) {
            started.children.swap_remove(index).1.close();
        }
        Ok(())
    }
}

/// The disk or CD at a place; what is there and cannot be used is logged.
fn look(function: &Function, link: &SharedLink, device: u8, unit: Unit) -> Option<Device> {
    match find(&function.machine(), link, device, unit) {
        Ok(Found::Device(device)) => return Some(device),
        Ok(Found::Nothing) => {}
        Ok(Found::NoMedium) => log::info!("{unit}: no medium in the drive"),
        Ok(Found::Other) => log::info!("{unit}: neither a disk nor a CD drive"),
        Err(error) => log::error!("{unit}: {error}"),
    }
    None
}
