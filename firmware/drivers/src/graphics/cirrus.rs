//! Cirrus Logic GD5446 (PCI 1013:00b8), as QEMU emulates it.
//!
//! Lines are at most 4088 bytes apart (CR13 and a bit of CR1B, in units of 8 bytes), and there are 10 bits for the number of lines.
//! So resolutions up to 800 × 600 have 32 bits per pixel, larger ones 24, and 1920 × 1080, whose lines are interlaced to be counted by
//! 540, has 16, which is also what 4 MiB have room for. Video memory is the first part of BAR 0. Sources: Cirrus Logic, CL-GD5446 Technical Reference Manual, chapters 4
//! and 9; IBM VGA registers.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hw::device::{Ports, Window};
use services::graphics::{Adapter, AdapterError, Mode, PixelFormat};

use super::{Problem, choose, mode32};

const MISCELLANEOUS: u16 = 0x3C2;
const SEQUENCER: u16 = 0x3C4;
const PIXEL_MASK: u16 = 0x3C6;
const GRAPHICS: u16 = 0x3CE;
const CRT: u16 = 0x3D4;
const ATTRIBUTE: u16 = 0x3C0;
const INPUT_STATUS: u16 = 0x3DA;

/// Sequencer register that unlocks the extensions, its key, and what it reads as then.
const UNLOCK: u8 = 0x06;
const KEY: u8 = 0x12;
/// Sequencer register whose value 4 means 4 MiB of memory; with less there are 2.
const MEMORY_SIZE: u8 = 0x15;
const FOUR_MIB: u8 = 4;
/// CRT register whose lowest bit doubles the lines.
const INTERLACE: u8 = 0x1A;
/// Most video memory there can be.
pub const MEMORY_MAX: usize = 4 << 20;

const fn mode24(width: usize, height: usize) -> Mode {
    Mode::new(width, height, PixelFormat::Bgr24)
}

const MODES: [Mode; 7] = [
    mode32(640, 480),
    mode32(800, 600),
    mode24(1024, 768),
    mode24(1280, 720),
    mode24(1280, 800),
    mode24(1280, 1024),
    Mode::new(1920, 1080, PixelFormat::Rgb565),
];
/// More lines than this are interlaced.
const LINES_MAX: usize = 1024;

/// The adapter.
pub struct Cirrus {
    ports: &'static dyn Ports,
    memory: Box<dyn Window>,
    modes: Vec<Mode>,
    preferred: usize,
}

impl Cirrus {
    /// The adapter with `memory` behind BAR 0.
    pub fn open(memory: Option<Box<dyn Window>>, ports: &'static dyn Ports) -> Result<Self, Problem> {
        let memory = memory.filter(|memory| !memory.is_empty()).ok_or(Problem::NoVideoMemory)?;
        // Index and value in one access.
        ports.write_u16(SEQUENCER, pair(UNLOCK, KEY));
        let [_, key] = ports.read_u16(SEQUENCER).to_le_bytes();
        if key != KEY {
            return Err(Problem::NotTheAdapter(key.into()));
        }
        ports.write_u8(SEQUENCER, MEMORY_SIZE);
        let said = if ports.read_u8(SEQUENCER + 1) == FOUR_MIB { MEMORY_MAX } else { MEMORY_MAX / 2 };
        let (modes, preferred) = choose(MODES.into_iter(), said.min(memory.len()), None)?;
        Ok(Self { ports, memory, modes, preferred })
    }

    fn write(&self, port: u16, registers: &[(u8, u8)]) {
        for (index, value) in registers {
            self.ports.write_u16(port, pair(*index, *value));
        }
    }

    fn write_attributes(&self, registers: &[(u8, u8)]) {
        // Reading the status makes the next write an index.
        self.ports.read_u8(INPUT_STATUS);
        for (index, value) in registers {
            self.ports.write_u8(ATTRIBUTE, *index);
            self.ports.write_u8(ATTRIBUTE, *value);
        }
        // The screen is on, and takes no more indices.
        self.ports.write_u8(ATTRIBUTE, 0x20);
    }

    /// The register behind the pixel mask: the fifth access in a row reaches it.
    fn write_hidden_dac(&self, value: u8) {
        self.ports.write_u8(PIXEL_MASK, 0xFF);
        for _ in 0..4 {
            self.ports.read_u8(PIXEL_MASK);
        }
        self.ports.write_u8(PIXEL_MASK, value);
    }
}

const fn pair(index: u8, value: u8) -> u16 {
    u16::from_le_bytes([index, value])
}

/// The registers of the CRT controller for a mode.
fn crt(mode: &Mode) -> [(u8, u8); 28] {
    let columns = mode.width / 8;
    let lines = if mode.height > LINES_MAX { mode.height / 2 } else { mode.height };
    let (shown, blank, sync, total) = (lines - 1, lines, lines + 3, lines + 30);
    let offset = mode.stride * mode.format.bytes() / 8;
    let bit = |value: usize, from: u8, to: u8| ((value >> from & 1) as u8) << to;
    // Bits that have no room in the registers of their values. The line compare is beyond the screen.
    let overflow = bit(total, 8, 0)
        | bit(shown, 8, 1)
        | bit(sync, 8, 2)
        | bit(blank, 8, 3)
        | 1 << 4
        | bit(total, 9, 5)
        | bit(shown, 9, 6)
        | bit(sync, 9, 7);
    [
        // Unlocks registers 0 to 7.
        (0x11, 0x00),
        (0x00, (columns + 20).min(0xFF) as u8),
        (0x01, (columns - 1) as u8),
        (0x02, columns as u8),
        (0x03, 0x80 | (columns + 20) as u8 & 0x1F),
        (0x04, (columns + 4) as u8),
        (0x05, (columns + 12) as u8 & 0x1F | bit(columns + 20, 5, 7)),
        (0x06, total as u8),
        (0x07, overflow),
        (0x08, 0),
        (0x09, 0x40 | bit(blank, 9, 5)),
        (0x0A, 0x20),
        (0x0B, 0),
        (0x0C, 0),
        (0x0D, 0),
        (0x0E, 0),
        (0x0F, 0),
        (0x10, sync as u8),
        (0x11, (sync + 6) as u8 & 0x0F),
        (0x12, shown as u8),
        (0x13, offset as u8),
        (0x14, 0),
        (0x15, blank as u8),
        (0x16, (blank + 28) as u8),
        (0x17, 0xE3),
        (0x18, 0xFF),
        // Extended addresses; bit 8 of the offset.
        (0x1B, 0x02 | bit(offset, 8, 4)),
        (0x1D, 0),
    ]
}

impl Adapter for Cirrus {
    fn modes(&self) -> &[Mode] {
        &self.modes
    }

    fn preferred(&self) -> usize {
        self.preferred
    }

    fn set_mode(&mut self, mode: usize) -> Result<bool, AdapterError> {
        let mode = *self.modes.get(mode).ok_or(AdapterError)?;
        // In the sequencer, and behind the pixel mask.
        let (depth, dac) = match mode.format {
            PixelFormat::Bgrx32 => (0x08, 0xC5),
            PixelFormat::Bgr24 => (0x04, 0xC5),
            PixelFormat::Rgb565 => (0x06, 0xC1),
        };
        self.ports.write_u8(MISCELLANEOUS, 0xEF);
        // Extended mode of this depth, no hardware cursor, no memory-mapped registers.
        self.write(
            SEQUENCER,
            &[
                (UNLOCK, KEY),
                (0x00, 0x03),
                (0x01, 0x01),
                (0x02, 0x0F),
                (0x03, 0x00),
                (0x04, 0x0E),
                (0x07, depth | 1),
                (0x12, 0x00),
                (0x17, 0x00),
            ],
        );
        // The colours of a pixel lie side by side; banks of 16 KiB, the first of them.
        self.write(
            GRAPHICS,
            &[
                (0x00, 0x00),
                (0x01, 0x00),
                (0x02, 0x00),
                (0x03, 0x00),
                (0x04, 0x00),
                (0x05, 0x40),
                (0x06, 0x05),
                (0x07, 0x0F),
                (0x08, 0xFF),
                (0x09, 0x00),
                (0x0B, 0x20),
            ],
        );
        self.write(CRT, &crt(&mode));
        self.write(CRT, &[(INTERLACE, u8::from(mode.height > LINES_MAX))]);
        self.write_hidden_dac(dac);
        self.write_attributes(&[(0x10, 0x41), (0x11, 0x00), (0x12, 0x0F), (0x13, 0x00), (0x14, 0x00)]);
        self.ports.write_u8(CRT, 0x01);
        let is_so = usize::from(self.ports.read_u8(CRT + 1)) == mode.width / 8 - 1;
        // What the memory holds is shown.
        if is_so { Ok(false) } else { Err(AdapterError) }
    }

    fn memory(&self) -> &dyn Window {
        &*self.memory
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use hw::device::Windows;
    use hw::fake::{FakeDevice, FakePorts, FakeWindows};

    use super::*;

    /// The registers, and how the emulation understands them.
    #[derive(Default)]
    struct Vga {
        index: [u8; 3],
        registers: [[u8; 32]; 3],
        attribute_index: Option<u8>,
        is_on: bool,
    }

    impl Vga {
        fn crt(&self, register: usize) -> usize {
            self.registers[2][register].into()
        }

        fn resolution(&self) -> (usize, usize) {
            let overflow = self.crt(7);
            let lines = self.crt(0x12) | (overflow & 2) << 7 | (overflow & 0x40) << 3;
            ((self.crt(1) + 1) * 8, (lines + 1) << (self.crt(INTERLACE.into()) & 1))
        }

        fn line(&self) -> usize {
            (self.crt(0x13) | (self.crt(0x1B) & 0x10) << 4) * 8
        }

        fn bits(&self) -> usize {
            match self.registers[0][7] & 0x0F {
                9 => 32,
                5 => 24,
                7 => 16,
                _ => 0,
            }
        }
    }

    struct Device(Rc<RefCell<Vga>>);

    impl FakeDevice for Device {
        fn read(&mut self, port: u16, width: u8) -> Option<u32> {
            let mut vga = self.0.borrow_mut();
            let set = match port & !1 {
                SEQUENCER => 0,
                GRAPHICS => 1,
                CRT => 2,
                INPUT_STATUS => {
                    vga.attribute_index = None;
                    return Some(0);
                }
                _ => return (port == PIXEL_MASK).then_some(0xFF),
            };
            let index = vga.index[set];
            let value = vga.registers[set][usize::from(index)];
            Some(match (port & 1, width) {
                (0, 2) => u32::from(pair(index, value)),
                (0, _) => index.into(),
                _ => value.into(),
            })
        }

        fn write(&mut self, port: u16, width: u8, value: u32) -> bool {
            let mut vga = self.0.borrow_mut();
            let [index, data, ..] = value.to_le_bytes();
            let set = match port {
                SEQUENCER => 0,
                GRAPHICS => 1,
                CRT => 2,
                ATTRIBUTE => {
                    if vga.attribute_index.take().is_none() {
                        (vga.attribute_index, vga.is_on) = (Some(index), index & 0x20 != 0);
                    }
                    return true;
                }
                _ => return [PIXEL_MASK, MISCELLANEOUS].contains(&port),
            };
            vga.index[set] = index;
            if width == 2 {
                vga.registers[set][usize::from(index)] = data;
            }
            true
        }
    }

    fn adapter(memory: usize, size: u8) -> (Result<Cirrus, Problem>, Rc<RefCell<Vga>>, &'static FakePorts) {
        let vga = Rc::new(RefCell::new(Vga::default()));
        vga.borrow_mut().registers[0][usize::from(MEMORY_SIZE)] = size;
        let ports = Box::leak(Box::new(FakePorts::with(Device(vga.clone()))));
        let windows = FakeWindows::default();
        windows.add(0xF000_0000, memory);
        (Cirrus::open(windows.window(0xF000_0000, memory), ports), vga, ports)
    }

    #[test]
    fn the_registers_say_what_the_mode_is() {
        let (cirrus, vga, _) = adapter(4 << 20, FOUR_MIB);
        let mut cirrus = cirrus.unwrap();
        assert_eq!(cirrus.modes().len(), MODES.len());
        for (number, mode) in MODES.iter().enumerate() {
            assert_eq!(cirrus.set_mode(number), Ok(false));
            let vga = vga.borrow();
            assert_eq!(vga.resolution(), (mode.width, mode.height));
            assert_eq!(vga.line(), mode.stride * mode.format.bytes());
            assert_eq!(vga.bits(), mode.format.bytes() * 8);
            assert!(vga.is_on);
        }
        assert_eq!(cirrus.modes()[cirrus.preferred()], mode24(1280, 800));
    }

    #[test]
    fn less_memory_means_fewer_modes() {
        let (cirrus, ..) = adapter(4 << 20, 3);
        let cirrus = cirrus.unwrap();
        assert_eq!(cirrus.modes(), &MODES[..2]);
        assert_eq!(cirrus.preferred(), 1);
        assert_eq!(adapter(1 << 20, FOUR_MIB).0.err(), Some(Problem::TooLittleVideoMemory(1 << 20)));
    }

    #[test]
    fn what_does_not_answer_is_left_out() {
        let ports = Box::leak(Box::new(FakePorts::default()));
        let windows = FakeWindows::default();
        windows.add(0xF000_0000, 4 << 20);
        let memory = windows.window(0xF000_0000, 4 << 20);
        assert_eq!(Cirrus::open(memory, ports).err(), Some(Problem::NotTheAdapter(0xFF)));
        assert_eq!(Cirrus::open(None, ports).err(), Some(Problem::NoVideoMemory));
        let (cirrus, _, ports) = adapter(4 << 20, FOUR_MIB);
        ports.devices.borrow_mut().clear();
        assert_eq!(cirrus.unwrap().set_mode(0), Err(AdapterError));
    }
}
