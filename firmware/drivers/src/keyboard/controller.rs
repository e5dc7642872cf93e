//! The i8042 controller and the keyboard behind it, as bytes.
//!
//! The keyboard sends scan code set 2, the controller translates it to set 1: that is what systems expect to find. Its
//! interrupts are off, as nobody would take them. Sources: Intel UPI-41AH/42AH data sheet, IBM Personal System/2 Hardware
//! Interface Technical Reference, "Keyboard and Auxiliary Device Controller".

use alloc::collections::VecDeque;

use uefi_raw::protocol::console::KeyToggleState;

use crate::domain::{EmulatedMachine, MILLISECOND};

const DATA: u16 = 0x60;
/// Status when read, command when written.
const STATUS: u16 = 0x64;

mod status {
    /// A byte waits in the data register.
    pub const OUTPUT_FULL: u8 = 1 << 0;
    /// The controller has not taken the last byte yet.
    pub const INPUT_FULL: u8 = 1 << 1;
    /// The byte that waits is the mouse's.
    pub const FROM_MOUSE: u8 = 1 << 5;
    /// No controller.
    pub const ABSENT: u8 = 0xFF;
}

/// Commands to the controller.
mod command {
    pub const READ_MODE: u8 = 0x20;
    pub const WRITE_MODE: u8 = 0x60;
    pub const DISABLE_KEYBOARD: u8 = 0xAD;
}

/// The controller's mode ("command byte").
mod mode {
    pub const KEYBOARD_INTERRUPT: u8 = 1 << 0;
    pub const MOUSE_INTERRUPT: u8 = 1 << 1;
    pub const SYSTEM: u8 = 1 << 2;
    pub const KEYBOARD_OFF: u8 = 1 << 4;
    pub const TRANSLATE: u8 = 1 << 6;
}

/// Commands to the keyboard, and its answers.
mod keyboard {
    pub const SET_LIGHTS: u8 = 0xED;
    pub const ENABLE: u8 = 0xF4;
    pub const SET_DEFAULTS: u8 = 0xF6;
    pub const ACKNOWLEDGE: u8 = 0xFA;
    pub const RESEND: u8 = 0xFE;
}

/// Longest wait for the controller to take or give a byte.
const CONTROLLER_TIMEOUT: u64 = 20 * MILLISECOND;
/// Longest wait for the keyboard to acknowledge a command.
const KEYBOARD_TIMEOUT: u64 = 100 * MILLISECOND;
/// Most bytes that are dropped to empty the controller: more than it and the keyboard can hold.
const DRAIN: usize = 64;
/// How often a command is sent before it counts as refused.
const ATTEMPTS: usize = 3;
/// Most bytes of keys that are set aside while an answer is waited for.
const ASIDE: usize = 32;

/// A controller with a keyboard.
pub struct Controller {
    machine: EmulatedMachine,
    /// Bytes of keys that came while an answer was waited for.
    aside: VecDeque<u8>,
    /// The keyboard did not acknowledge lights: it is not asked again.
    no_lights: bool,
}

impl Controller {
    /// Sets controller and keyboard up; `None` where there are none, after one look if the controller is missing.
    pub fn open(machine: EmulatedMachine) -> Option<Self> {
        if machine.ports.read_u8(STATUS) == status::ABSENT {
            return None;
        }
        let mut new = Self { machine, aside: VecDeque::with_capacity(ASIDE), no_lights: false };
        // So that no key comes in between.
        new.command(command::DISABLE_KEYBOARD)?;
        if !new.drain() {
            log::warn!("PS/2: the controller gives bytes without end");
            return None;
        }
        new.command(command::READ_MODE)?;
        let found = machine.poll(CONTROLLER_TIMEOUT, || new.read().map(|(byte, _)| byte))?;
        let off = mode::KEYBOARD_INTERRUPT | mode::MOUSE_INTERRUPT | mode::KEYBOARD_OFF;
        new.command(command::WRITE_MODE)?;
        new.data(found & !off | mode::SYSTEM | mode::TRANSLATE)?;
        if !new.tell(&[keyboard::SET_DEFAULTS, keyboard::ENABLE]) {
            log::debug!("PS/2: a controller, but no keyboard");
            return None;
        }
        Some(new)
    }

    /// The next byte of a key. Does not wait.
    pub fn byte(&mut self) -> Option<u8> {
        if let Some(byte) = self.aside.pop_front() {
            return Some(byte);
        }
        for _ in 0..DRAIN {
            // Nobody reads the mouse.
            if let (byte, false) = self.read()? {
                return Some(byte);
            }
        }
        None
    }

    /// Shows toggles.
    pub fn set_lights(&mut self, toggles: KeyToggleState) {
        if self.no_lights {
            return;
        }
        let light = |toggle, bit| if toggles.contains(toggle) { bit } else { 0 };
        let lights = light(KeyToggleState::SCROLL_LOCK_ACTIVE, 1 << 0)
            | light(KeyToggleState::NUM_LOCK_ACTIVE, 1 << 1)
            | light(KeyToggleState::CAPS_LOCK_ACTIVE, 1 << 2);
        self.no_lights = !self.tell(&[keyboard::SET_LIGHTS, lights]);
    }

    /// Takes what has arrived, so that the system's driver finds the controller empty. Mode and keyboard are as a system expects
    /// them: translation on, both devices on, no interrupts. Allocates nothing.
    pub fn leave(&mut self) {
        self.drain();
    }

    /// A byte and whether it is the mouse's; `None` if nothing waits.
    fn read(&self) -> Option<(u8, bool)> {
        let now = self.machine.ports.read_u8(STATUS);
        if now & status::OUTPUT_FULL == 0 || now == status::ABSENT {
            return None;
        }
        Some((self.machine.ports.read_u8(DATA), now & status::FROM_MOUSE != 0))
    }

    /// Reads until nothing waits; `false` if that does not come to an end.
    fn drain(&self) -> bool {
        (0..DRAIN).any(|_| self.read().is_none())
    }

    fn ready(&self) -> Option<()> {
        let look = || (self.machine.ports.read_u8(STATUS) & status::INPUT_FULL == 0).then_some(());
        self.machine.poll(CONTROLLER_TIMEOUT, look)
    }

    fn command(&self, command: u8) -> Option<()> {
        self.ready()?;
        self.machine.ports.write_u8(STATUS, command);
        Some(())
    }

    fn data(&self, byte: u8) -> Option<()> {
        self.ready()?;
        self.machine.ports.write_u8(DATA, byte);
        Some(())
    }

    /// Sends bytes to the keyboard, each of which it acknowledges; `false` if it does not.
    fn tell(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| (0..ATTEMPTS).find_map(|_| self.send(*byte)).unwrap_or(false))
    }

    /// Sends a byte: `Some(true)` when acknowledged, `None` when the keyboard wants it again.
    fn send(&mut self, byte: u8) -> Option<bool> {
        if self.data(byte).is_none() {
            return Some(false);
        }
        let machine = self.machine;
        let answer = machine.poll(KEYBOARD_TIMEOUT, || match self.read()? {
            (answer @ (keyboard::ACKNOWLEDGE | keyboard::RESEND), false) => Some(answer),
            (key, false) => {
                if self.aside.len() < ASIDE {
                    self.aside.push_back(key);
                }
                None
            }
            (_, true) => None,
        });
        match answer {
            Some(keyboard::RESEND) => None,
            answer => Some(answer.is_some()),
        }
    }
}
