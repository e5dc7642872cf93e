//! The PS/2 keyboard of an HVM guest: an i8042 controller and an AT keyboard.
//!
//! | module | what |
//! | --- | --- |
//! | [`controller`] | the controller's two registers |
//! | [`scan_codes`] | from the bytes of scan code set 1 to keys |
//! | [`layout`] | from keys to what UEFI knows: characters, scan codes, modifiers, toggles |
//!
//! [`Keyboard`] puts them together as a console device with keys only. There is no interrupt: keys wait in the keyboard until
//! somebody looks for them, which costs one look at the status register when there are none.

mod controller;
pub mod layout;
mod scan_codes;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;

use services::console::{TextDevice, TextInput, TextOutput};
use services::device_path::{DevicePathBuf, Node};
use services::{Handle, Result};
use uefi_raw::protocol::console::{KeyData, KeyState, KeyToggleState};

use crate::domain::EmulatedMachine;
use crate::pci::ROOT;
use controller::Controller;
use layout::{Change, Layout};
use scan_codes::Decoder;

/// Most bytes that one look takes: a keyboard that never stops gets no further.
const BYTES_AT_ONCE: usize = 64;
/// Node of the ISA bridge.
pub(crate) const ISA_BRIDGE: Node = Node::Pci { device: 1, function: 0 };
/// Node of the keyboard: PNP0303.
const KEYBOARD: Node = Node::Acpi { hid: 0x0303_41D0, uid: 0 };

/// A keyboard that is there.
pub struct Keyboard {
    controller: Controller,
    decoder: Decoder,
    layout: Layout,
    /// What Ctrl-Alt-Del does.
    restart: Box<dyn Fn()>,
}

/// Makes the keyboard a console device, with the device path that other firmware gives it. `None` where there is none.
/// Ctrl-Alt-Del calls `restart`.
pub fn install(machine: EmulatedMachine, restart: impl Fn() + 'static) -> Result<Option<Handle>> {
    let Some(keyboard) = Keyboard::open(machine, Box::new(restart)) else { return Ok(None) };
    let path = DevicePathBuf::new().with(&ROOT)?.with(&ISA_BRIDGE)?.with(&KEYBOARD)?;
    services::abi::console::install_device(path.as_path(), Box::new(keyboard)).map(Some)
}

impl Keyboard {
    /// Looks for a keyboard and sets it up.
    pub fn open(machine: EmulatedMachine, restart: Box<dyn Fn()>) -> Option<Self> {
        let controller = Controller::open(machine)?;
        Some(Self { controller, decoder: Decoder::default(), layout: Layout::default(), restart })
    }

    /// Takes bytes that have arrived, until `limit` keys are given or there are no more.
    fn take(&mut self, limit: usize, keys: &mut dyn FnMut(KeyData)) {
        let mut given = 0;
        let lights = self.layout.lights();
        for _ in 0..BYTES_AT_ONCE {
            if given >= limit {
                break;
            }
            let Some(byte) = self.controller.byte() else { break };
            let Some((key, pressed)) = self.decoder.byte(byte) else { continue };
            match self.layout.change(key, pressed) {
                Change::None => {}
                Change::Key(key) => {
                    keys(key);
                    given += 1;
                }
                Change::Restart => (self.restart)(),
            }
        }
        if self.layout.lights() != lights {
            self.controller.set_lights(self.layout.lights());
        }
    }
}

impl TextDevice for Keyboard {
    fn output(&mut self) -> Option<&mut dyn TextOutput> {
        None
    }

    fn input(&mut self) -> Option<&mut dyn TextInput> {
        Some(self)
    }
}

impl TextInput for Keyboard {
    fn poll(&mut self, _now: u64, limit: usize, keys: &mut dyn FnMut(KeyData)) {
        self.take(limit, keys);
    }

    fn reset(&mut self) {
        // Modifiers that are pressed or let go meanwhile count.
        self.take(usize::MAX, &mut |_| {});
    }

    fn key_state(&self) -> KeyState {
        self.layout.state()
    }

    fn set_state(&mut self, state: KeyToggleState) -> bool {
        let lights = self.layout.lights();
        let taken = self.layout.set_toggles(state);
        if self.layout.lights() != lights {
            self.controller.set_lights(self.layout.lights());
        }
        taken
    }

    fn leave(&mut self) {
        self.controller.leave();
    }
}
