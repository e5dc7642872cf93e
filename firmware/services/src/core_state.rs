//! The state of the UEFI core.

use crate::abi::console::State as Consoles;
use crate::abi::measure::Measurer;
use crate::event::Events;
use crate::handle::Handles;
use crate::hardware::Hardware;
use crate::hii::Hii;
use crate::image::Images;
use crate::lock::Lock;
use crate::memory::Memory;
use crate::table::Tables;

/// All databases of the core. The firmware has one ([`crate::abi::CORE`]); logic never refers to it, only the edge does.
pub struct Core {
    /// Memory map and pools; also the firmware's heap.
    pub memory: Lock<Memory>,
    /// Task priority, events, timers.
    pub events: Lock<Events>,
    /// Handles and protocols.
    pub handles: Lock<Handles>,
    /// Loaded images.
    pub images: Lock<Images>,
    /// Consoles.
    pub consoles: Lock<Consoles>,
    /// HII package lists.
    pub hii: Lock<Hii>,
    /// System and configuration tables.
    pub tables: Lock<Tables>,
    /// What images are measured with, where there is a TPM.
    pub measure: Lock<Option<&'static Measurer>>,
    /// The machine; set once, before anything else runs.
    pub hardware: Lock<Option<&'static dyn Hardware>>,
}

impl Core {
    /// An empty core.
    pub const fn new() -> Self {
        Self {
            memory: Lock::new("memory", Memory::new()),
            events: Lock::new("events", Events::new()),
            handles: Lock::new("handles", Handles::new()),
            images: Lock::new("images", Images::new()),
            consoles: Lock::new("consoles", Consoles::new()),
            hii: Lock::new("hii", Hii::new()),
            tables: Lock::new("tables", Tables::new()),
            measure: Lock::new("measure", None),
            hardware: Lock::new("hardware", None),
        }
    }

    /// The machine.
    ///
    /// # Panics
    /// Before it is set: a bug in the order of start-up.
    pub fn hardware(&self) -> &'static dyn Hardware {
        match self.hardware.with(|hardware| *hardware) {
            Some(hardware) => hardware,
            None => panic!("hardware used before it is set"),
        }
    }
}

impl Default for Core {
    fn default() -> Self {
        Self::new()
    }
}
