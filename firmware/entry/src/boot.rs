//! From services to the boot manager.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;

use bootmgr::live::{self, Host};
use drivers::bus::{Handover, StartError, XenBus};
use drivers::domain::Domain;
use drivers::pci::{self, Function};
use fs::diagnosis::Diagnosis;
use platform::performance::Moment;
use platform::{GuestKind, Platform};
use services::Handle;
use services::abi;
use services::device_path::DevicePath;
use services::event::group;
use services::hardware::{Hardware, Reset};
use uefi_raw::table::boot::Tpl;
use uefi_raw::time::Time;

use crate::acpi::BootPerformance;
use crate::frames::Frames;
use crate::home::{self, AttachedXen};
use crate::machine::Machine;
use crate::start::{Identity, Start};
use crate::{acpi, console, emulated, runtime_driver, smbios, timeline};

/// Starts everything and boots. Ends with the domain.
pub fn run(start: Start, xen: AttachedXen, machine: &'static Machine) -> ! {
    let top = home::mapped_top(&start.platform);
    let frames = Box::leak(Box::new(Frames::new(&xen, top)));
    let domain = Domain { hypervisor: xen.xen, frames };

    let emulated = (start.platform.kind == GuestKind::Hvm).then(|| emulated::machine(domain, &start.platform));
    let functions = emulated.map(pci::scan).unwrap_or_default();
    let bus = start_bus(domain, &start.platform, &functions);
    timeline::mark("disks told");

    must("system table", abi::start());
    timeline::mark("services");

    let console = console::start(domain);
    live::say(concat!("ovmf-xen ", env!("CARGO_PKG_VERSION")));
    let bus = publish_bus(bus);
    let performance = acpi::publish(start.platform.rsdp, Identity { top }).ok();
    should("SMBIOS", smbios::publish(&start.platform, xen.xen, start.xen, Identity { top }));
    should("variables", runtime_driver::hand_over(&start, &xen));
    should("runtime driver", runtime_driver::start(&start));
    runtime_driver::release_file(&start);
    timeline::mark("runtime driver");

    let diagnosis = must("file system drivers", fs::bindings::install(now));
    prepare_hand_over(Handover { bus: bus.clone(), console }, &xen, machine, performance);
    services::api::connect_all();
    timeline::mark("devices");

    let host = BootHost { platform: start.platform, bus, diagnosis, performance };
    live::boot(&host);
    nothing_left(&host.platform, machine)
}

/// Xenstore and the paravirtual disks. Their backends take long to connect, so they hear of us first, and are waited for last.
/// `None` for an HVM guest without the Xen platform device: it is to use emulated devices only.
fn start_bus(domain: Domain, platform: &Platform, functions: &[Function]) -> Option<Result<XenBus, StartError>> {
    if platform.kind == GuestKind::Hvm && !functions.iter().any(Function::is_xen_platform) {
        return None;
    }
    let bus = XenBus::start(domain, drivers::block::Options::default());
    Some(bus.inspect(XenBus::begin_connecting))
}

/// Makes the disks devices of the driver model; without a bus the firmware can only say so.
fn publish_bus(bus: Option<Result<XenBus, StartError>>) -> Option<Rc<XenBus>> {
    match bus? {
        Ok(bus) => {
            let bus = Rc::new(bus);
            must("Xen bus", drivers::binding::install(bus.clone()));
            Some(bus)
        }
        Err(error) => {
            live::say(&alloc::format!("{error}"));
            None
        }
    }
}

/// What ExitBootServices does to the machine: devices first, as closing them needs events, then the timer, and last the shared
/// page.
fn prepare_hand_over(
    handover: Handover,
    xen: &AttachedXen,
    machine: &'static Machine,
    performance: Option<BootPerformance>,
) {
    let xen = xen.xen;
    let note = move |moment| {
        if let Some(mut performance) = performance {
            performance.note(moment, timeline::nanoseconds());
        }
    };
    let entry = Box::new(move |_| note(Moment::ExitEntry));
    should(
        "boot performance",
        services::api::create_group_event(&group::BEFORE_EXIT_BOOT_SERVICES, Tpl::NOTIFY, entry),
    );
    services::api::at_exit_boot_services(Box::new(move || {
        handover.run();
        machine.quiesce();
        note(Moment::ExitDone);
        if let Err(error) = xen.detach_shared_info() {
            log::warn!("the shared info page stays mapped: {error}");
        }
    }));
}

/// Nothing could be booted: say what happens now, and do it.
fn nothing_left(platform: &Platform, machine: &Machine) -> ! {
    if platform.options.wait {
        live::say("Nothing left to boot. Press a key to restart the guest.");
        console::wait_for_key();
        machine.reset(Reset::Restart)
    }
    live::say(
        "Nothing left to boot: shutting the guest down. (With 'ovmf.wait' in the guest's cmdline= it waits for a key.)",
    );
    machine.reset(Reset::PowerOff)
}

/// What the boot manager needs to know of this machine.
struct BootHost {
    platform: Platform,
    bus: Option<Rc<XenBus>>,
    diagnosis: Diagnosis,
    performance: Option<BootPerformance>,
}

impl BootHost {
    fn note(&self, moment: Moment) {
        if let Some(mut performance) = self.performance {
            performance.note(moment, timeline::nanoseconds());
        }
    }
}

impl Host for BootHost {
    fn disk_name(&self, path: &DevicePath) -> Option<String> {
        drivers::binding::disk_name(path)
    }

    fn diagnosis(&self, disk: Handle) -> Option<String> {
        self.diagnosis.reason(disk)
    }

    fn failures(&self) -> alloc::vec::Vec<String> {
        self.bus.iter().flat_map(|bus| bus.failures()).map(|failure| alloc::format!("{failure}")).collect()
    }

    fn loading(&self) {
        timeline::mark("loading");
        self.note(Moment::LoadStart);
    }

    fn starting(&self) {
        timeline::mark("starting");
        self.note(Moment::StartImage);
        if self.platform.options.timeline {
            timeline::print();
        }
    }
}

/// Time stamps of files.
fn now() -> Time {
    abi::CORE.hardware().time().unwrap_or_default()
}

/// Nothing works without it.
fn must<T>(what: &str, result: services::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(status) => panic!("{what}: {status}"),
    }
}

/// The firmware is of use without it.
fn should<T>(what: &str, result: services::Result<T>) -> Option<T> {
    result.inspect_err(|status| log::error!("{what}: {status}")).ok()
}
