//! The devices of this guest: Xen's paravirtual ones, and those that the device model of an HVM guest emulates.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use bootmgr::live;
use drivers::ata::{self, Controllers, disk_index};
use drivers::bus::{StartError, XenBus};
use drivers::domain::{Domain, EmulatedMachine};
use drivers::graphics::{self, Displays};
use drivers::pci::{self, Bar, class};
use drivers::usb;
use platform::{GuestKind, Platform};
use services::api::{self, ShownLogo};
use services::device_path::DevicePath;
use uefi_raw::protocol::pci::root_bridge::PciRootBridgeIoProtocol;

use crate::boot::{must, should};
use crate::emulated;
use crate::machine::Machine;

/// Devices that have been found and are not yet part of the driver model.
pub struct Found {
    xen: Option<Result<XenBus, StartError>>,
    emulated: Option<(EmulatedMachine, Rc<pci::Bus>)>,
}

impl Found {
    /// Looks for devices. The backends of paravirtual disks take long to connect, so they hear of us now, and are waited for when
    /// the disks are needed. An HVM guest without the Xen platform device is to use emulated devices only.
    pub fn find(domain: Domain, platform: &Platform) -> Self {
        let emulated = (platform.kind == GuestKind::Hvm).then(|| {
            let machine = emulated::machine(domain, platform);
            (machine, Rc::new(pci::Bus::new(pci::scan(machine))))
        });
        let paravirtual = emulated.as_ref().is_none_or(|(_, pci)| pci.has_xen_platform());
        let xen = paravirtual
            .then(|| XenBus::start(domain, drivers::block::Options::default()).inspect(XenBus::begin_connecting));
        Self { xen, emulated }
    }

    /// The machine with the emulated devices.
    pub fn machine(&self) -> Option<EmulatedMachine> {
        self.emulated.as_ref().map(|(machine, _)| *machine)
    }

    /// Adds the drivers. Disks come to be when [`Devices::connect`] is called. What cannot be used is said. Keyboards call
    /// `restart` for Ctrl-Alt-Del.
    pub fn publish(self, restart: impl Fn() + 'static) -> Devices {
        let pci = self.emulated.as_ref().map(|(_, pci)| pci.clone());
        let xen = match self.xen {
            Some(Ok(bus)) => {
                let bus = Rc::new(bus);
                match pci.clone() {
                    Some(pci) => must("Xen bus", drivers::binding::install_on_platform_device(bus.clone(), pci)),
                    None => must("Xen bus", drivers::binding::install(bus.clone()).map(drop)),
                }
                Some(bus)
            }
            Some(Err(error)) => {
                live::say(&alloc::format!("{error}"));
                None
            }
            None => None,
        };
        let mut displays = None;
        let ata = self.emulated.and_then(|(machine, pci)| {
            should("PCI", pci::publish(machine, pci.clone()))?;
            displays = should("displays", graphics::install(pci.clone()));
            should("USB", usb::install(pci.clone(), restart));
            let xen = xen.clone();
            should("emulated disks", ata::install(pci, alloc::boxed::Box::new(move |unit| is_paravirtual(&xen, unit))))
        });
        Devices { xen, pci, ata, displays }
    }
}

/// Whether the emulated disk at `unit` is one that the paravirtual driver has.
fn is_paravirtual(xen: &Option<Rc<XenBus>>, unit: &ata::Unit) -> bool {
    let disks = xen.iter().flat_map(|bus| bus.disks());
    let mut numbers = disks.filter_map(|disk| disk_index(disk.device().number));
    unit.index().is_some_and(|index| numbers.any(|number| number == index))
}

/// The devices in use.
#[derive(Clone)]
pub struct Devices {
    xen: Option<Rc<XenBus>>,
    pci: Option<Rc<pci::Bus>>,
    ata: Option<Rc<Controllers>>,
    displays: Option<Displays>,
}

impl Devices {
    /// Makes the displays consoles, before anything else that takes time, and shows the logo on the first one.
    pub fn show(&self, machine: &Machine) -> Option<ShownLogo> {
        let pci = self.pci.as_ref()?;
        for root in api::handles_with(&PciRootBridgeIoProtocol::GUID) {
            should("PCI bus", api::connect(root, false));
        }
        for (handle, function) in pci.published().iter().filter(|(_, function)| graphics::is_display(function)) {
            if let Some(Bar::Memory { address, size, prefetchable: true, .. }) = function.bar(0) {
                machine.combine_writes(address, size);
            }
            // What is wrong with an adapter is told by its driver.
            let _ = api::connect(*handle, true);
        }
        api::show_logo(&self.displays.as_ref()?.first()?)
    }

    /// Lets the drivers have everything there is. Paravirtual disks come first: what they serve is not looked for among the
    /// emulated disks.
    pub fn connect(&self) {
        if let Some(pci) = &self.pci {
            let published = pci.published().into_iter();
            for (handle, _) in published.filter(|(_, function)| function.is_xen_platform()) {
                // What is wrong with a disk is told by the bus.
                let _ = api::connect(handle, true);
            }
        }
        api::connect_all();
    }

    /// Starts the drivers in the option ROMs of network cards.
    pub fn start_network_drivers(&self) {
        if let Some(pci) = &self.pci {
            let started = pci.load_option_roms(|function| function.class.base == class::NETWORK);
            log::info!("{started} drivers from option ROMs of network cards");
        }
    }

    /// What could not be used, in words.
    pub fn failures(&self) -> Vec<String> {
        let failures = self.xen.iter().flat_map(|bus| bus.failures());
        failures.map(|failure| alloc::format!("{failure}")).collect()
    }

    /// Leaves the devices as the operating system expects to find them. Allocates nothing.
    pub fn hand_over(&self) {
        if let Some(bus) = &self.xen {
            bus.hand_over();
        }
        if let Some(controllers) = &self.ata {
            controllers.hand_over();
        }
        if let Some(pci) = &self.pci {
            pci.stop_bus_masters();
        }
    }
}

/// What the guest's configuration calls the disk at `path`.
pub fn disk_name(path: &DevicePath) -> Option<String> {
    drivers::binding::disk_name(path).or_else(|| ata::disk_name(path))
}
