//! From services to the boot manager.

use alloc::boxed::Box;
use alloc::string::String;

use bootmgr::live::{self, Host};
use drivers::domain::Domain;
use hw::hypervisor::Hypervisor;
use platform::performance::Moment;
use services::device_path::DevicePath;
use services::hardware::{Hardware, Reset};
use services::lock::Lock;
use services::{Handle, Status};

use crate::acpi::BootPerformance;
use crate::frames::Frames;
use crate::home::{self, AttachedXen};
use crate::machine::Machine;
use crate::start::{Identity, Start};
use crate::{acpi, runtime_driver, timeline};

/// Starts everything and boots. Ends with the domain.
pub fn run(start: Start, xen: AttachedXen, machine: &'static Machine) -> ! {
    let top = home::mapped_top(&start.platform);
    let frames = Box::leak(Box::new(Frames::new(&xen, top)));
    let domain = Domain { hypervisor: xen.xen, frames };

    must("system table", services::abi::start());
    must("device path protocols", services::abi::device_path::install());
    must("collation protocol", services::abi::unicode::install());
    timeline::mark("services");

    let performance = acpi::publish(start.platform.rsdp, Identity { top }).ok();
    should("variables", runtime_driver::hand_over(&start, &xen));
    should("runtime driver", runtime_driver::start(&start));
    runtime_driver::release_file(&start);
    timeline::mark("runtime driver");

    timeline::mark("end");
    for (name, ticks) in timeline::steps() {
        log::error!("{name} {ticks}");
    }
    machine.reset(Reset::PowerOff)
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
