//! From services to the boot manager.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bootmgr::devices::DeviceOrder;
use bootmgr::live::{self, Host, Kernel, Shell};
use bootmgr::policy::Wishes;
use drivers::console::Console;
use drivers::domain::Domain;
use fs::diagnosis::Diagnosis;
use handoff::StoreState;
use hw::xen::XenCpuid;
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
use crate::devices::{Devices, Found};
use crate::frames::Frames;
use crate::home::{self, AttachedXen};
use crate::machine::Machine;
use crate::modules::Modules;
use crate::start::{Identity, Start};
use crate::toolstack::Toolstack;
use crate::{acpi, console, devices, information, logger, runtime_driver, shell, smbios, timeline, tpm};

/// Starts everything and boots. Ends with the domain.
pub fn run(mut start: Start, xen: AttachedXen, machine: &'static Machine) -> ! {
    let top = home::mapped_top(&start.platform);
    let frames = Box::leak(Box::new(Frames::new(&xen, top)));
    let domain = Domain { hypervisor: xen.xen, frames };

    let found = Found::find(domain, &start.platform);
    timeline::mark("devices found");
    let toolstack = Toolstack::ask(found.machine(), &mut start.platform.options);
    timeline::mark("disks told");

    must("system table", abi::start());
    timeline::mark("services");

    let console = console::start(domain, found.machine(), machine);
    let tpm = found.machine().and_then(|machine| tpm::start(machine, &start));
    let devices = found.publish(|| machine.reset(Reset::Restart));
    let logo = devices.show(machine);
    live::say(concat!("ovmf-xen ", env!("CARGO_PKG_VERSION"), "   Esc, F2 or Del: boot menu"));
    timeline::mark("consoles");
    let performance = acpi::publish(start.platform.rsdp, Identity { top }, tpm, logo).ok();
    should("SMBIOS", smbios::publish(&start.platform, xen.xen, start.xen, Identity { top }));
    let mut modules = Modules::sort(&start.platform);
    should("variables", runtime_driver::hand_over(&mut start, &xen, modules.take_variables()));
    should("runtime driver", runtime_driver::start(&start));
    let shell = shell::find(&start);
    runtime_driver::release_file(&start);
    services::api::measure_secure_boot_variables();
    services::api::keep_fallback_from_resetting();
    timeline::mark("runtime driver");

    let diagnosis = must("file system drivers", fs::bindings::install(now));
    prepare_hand_over(devices.clone(), console, &xen, machine, performance);
    devices.connect();
    timeline::mark("devices");

    let wishes = Wishes { menu: start.platform.options.menu, wait: start.platform.options.wait };
    let host = BootHost {
        platform: start.platform,
        xen: start.xen,
        toolstack,
        modules,
        shell,
        devices,
        diagnosis,
        performance,
    };
    live::boot(&host, wishes);
    nothing_left(&host.platform, machine)
}

/// What ExitBootServices does to the machine: devices first, as closing them needs events, then the timer, and last the shared
/// page.
fn prepare_hand_over(
    devices: Devices,
    console: Option<&'static Console>,
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
        devices.hand_over();
        // The operating system goes on with the same rings. Last of the devices, as the others may have something to say.
        if let Some(console) = console {
            console.drain();
        }
        machine.quiesce();
        note(Moment::ExitDone);
        if let Err(error) = xen.detach_shared_info() {
            log::warn!("the shared info page stays mapped: {error}");
        }
    }));
}

/// Nothing could be booted, and nobody asks for the menu: say so, and end.
fn nothing_left(platform: &Platform, machine: &Machine) -> ! {
    let how = match platform.kind {
        GuestKind::Pvh => "'ovmf.wait' in the guest's cmdline=",
        GuestKind::Hvm => "smbios=[\"oem=ovmf.wait\"]",
    };
    live::say(&alloc::format!("Shutting the guest down. (With {how} it waits for a key as long as it takes.)"));
    machine.reset(Reset::PowerOff)
}

/// What the boot manager needs to know of this machine.
struct BootHost {
    platform: Platform,
    xen: XenCpuid,
    toolstack: Toolstack,
    modules: Modules,
    shell: Option<Shell>,
    devices: Devices,
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
        devices::disk_name(path)
    }

    fn diagnosis(&self, disk: Handle) -> Option<String> {
        self.diagnosis.reason(disk)
    }

    fn failures(&self) -> Vec<String> {
        self.devices.failures()
    }

    fn kernel(&self) -> Option<Kernel> {
        self.toolstack.kernel().or_else(|| self.modules.kernel(&self.platform))
    }

    fn shell(&self) -> Option<&Shell> {
        self.shell.as_ref()
    }

    fn device_order(&self) -> DeviceOrder {
        self.toolstack.device_order()
    }

    fn start_network_drivers(&self) {
        self.devices.start_network_drivers();
    }

    fn variables_last(&self) -> bool {
        runtime_driver::store_report().is_some_and(|report| report.state == StoreState::Daemon)
    }

    fn information(&self) -> Vec<(String, String)> {
        information::about(&self.platform, self.xen)
    }

    fn log(&self) -> Vec<String> {
        logger::lines()
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
pub fn must<T>(what: &str, result: services::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(status) => panic!("{what}: {status}"),
    }
}

/// The firmware is of use without it.
pub fn should<T>(what: &str, result: services::Result<T>) -> Option<T> {
    result.inspect_err(|status| log::error!("{what}: {status}")).ok()
}
