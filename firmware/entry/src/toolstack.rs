//! What the toolstack says about booting: on HVM through the device model. On PVH it has only modules ([`crate::modules`]).

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString};

use bootmgr::devices::{Class, DeviceOrder};
use bootmgr::live::Kernel;
use drivers::cmos::{self, BootDevice};
use drivers::direct_boot::DirectBoot;
use drivers::domain::EmulatedMachine;
use drivers::fw_cfg::FwCfg;
use platform::options::{self, Options};

use crate::logger;

/// What the toolstack says.
#[derive(Debug)]
pub struct Toolstack {
    machine: Option<EmulatedMachine>,
    direct: Option<DirectBoot>,
    /// Whether its order comes before boot entries.
    order_first: bool,
}

impl Toolstack {
    /// Asks the device model, if there is one. A kernel's command line can have words for the firmware, as that of a PVH guest.
    pub fn ask(machine: Option<EmulatedMachine>, options: &mut Options) -> Self {
        let fw_cfg = machine.and_then(FwCfg::open).map(Rc::new);
        let direct = fw_cfg.and_then(DirectBoot::find);
        if let Some(direct) = &direct {
            options.add(&direct.command_line, options::unknown);
            logger::set_level(options.log);
        }
        Self { machine, direct, order_first: options.toolstack_order }
    }

    /// The kernel that the guest's configuration names.
    pub fn kernel(&self) -> Option<Kernel> {
        let direct = self.direct.as_ref()?;
        Some(Kernel {
            program: direct.kernel().map(Cow::Owned).map_err(|error| error.to_string()),
            initrd: direct.initrd().map(|initrd| Box::new(initrd) as _),
            command_line: String::from_utf8_lossy(&direct.command_line).into_owned(),
        })
    }

    /// The order in which `boot=` of the guest's configuration has devices tried.
    pub fn device_order(&self) -> DeviceOrder {
        let devices = self.machine.map(|machine| cmos::boot_order(machine.ports)).unwrap_or_default();
        let class = |device| match device {
            BootDevice::HardDisk => Class::HardDisk,
            BootDevice::Cd => Class::Cd,
            BootDevice::Network => Class::Network,
        };
        DeviceOrder { classes: devices.into_iter().map(class).collect(), first: self.order_first }
    }
}
