//! QEMU's standard VGA (PCI 1234:1111) and virtio-vga (1af4:1050), which has the same registers.
//!
//! The DISPI registers are 16 bits each. They are found in BAR 2 from offset 0x500 on, one behind the other, with VGA's own
//! ports from 0x3C0 on at 0x400 and the monitor's EDID at 0; without that BAR they are reached through an index and a data port.
//! Video memory is BAR 0. Sources: QEMU `docs/specs/standard-vga.rst`, Bochs `vbe_display_api.txt`.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hw::device::{Ports, Window};
use services::graphics::edid::{self, BLOCK};
use services::graphics::{Adapter, AdapterError, Mode};

use super::{Problem, choose, mode32};

const INDEX_PORT: u16 = 0x1CE;
const DATA_PORT: u16 = 0x1CF;
const INPUT_STATUS_PORT: u16 = 0x3DA;
const ATTRIBUTE_PORT: u16 = 0x3C0;

/// Offsets in BAR 2.
const VGA_PORTS: usize = 0x400;
const DISPI: usize = 0x500;
/// Bytes of BAR 2 that are used.
const BAR2_USED: usize = 0x600;

/// DISPI registers.
const ID: u16 = 0;
const XRES: u16 = 1;
const YRES: u16 = 2;
const BPP: u16 = 3;
const ENABLE: u16 = 4;
const BANK: u16 = 5;
const VIRTUAL_WIDTH: u16 = 6;
const X_OFFSET: u16 = 8;
const Y_OFFSET: u16 = 9;
const MEMORY_64K: u16 = 10;

/// The ID is this, with the version in the last digit.
const ID_BASE: u16 = 0xB0C0;
const ENABLED: u16 = 1 << 0;
const LINEAR: u16 = 1 << 6;
/// The attribute controller shows what the memory holds.
const SCREEN_ON: u8 = 0x20;

/// Widths are multiples of 8, as the registers want them.
const MODES: [(usize, usize); 21] = [
    (640, 480),
    (800, 480),
    (800, 600),
    (1024, 600),
    (1024, 768),
    (1152, 864),
    (1280, 720),
    (1280, 768),
    (1280, 800),
    (1280, 960),
    (1280, 1024),
    (1360, 768),
    (1440, 900),
    (1600, 900),
    (1600, 1200),
    (1680, 1050),
    (1920, 1080),
    (1920, 1200),
    (2560, 1440),
    (2560, 1600),
    (3840, 2160),
];

/// The adapter.
pub struct Bochs {
    registers: Registers,
    memory: Box<dyn Window>,
    modes: Vec<Mode>,
    preferred: usize,
    edid: Vec<u8>,
}

/// Where the registers are.
enum Registers {
    Window(Box<dyn Window>),
    Ports(&'static dyn Ports),
}

impl Registers {
    fn read(&self, register: u16) -> u16 {
        match self {
            Self::Window(window) => window.read_u16(DISPI + usize::from(register) * 2),
            Self::Ports(ports) => {
                ports.write_u16(INDEX_PORT, register);
                ports.read_u16(DATA_PORT)
            }
        }
    }

    fn write(&self, register: u16, value: u16) {
        match self {
            Self::Window(window) => window.write_u16(DISPI + usize::from(register) * 2, value),
            Self::Ports(ports) => {
                ports.write_u16(INDEX_PORT, register);
                ports.write_u16(DATA_PORT, value);
            }
        }
    }

    fn switch_screen_on(&self) {
        match self {
            Self::Window(window) => {
                let at = |port: u16| VGA_PORTS + usize::from(port - ATTRIBUTE_PORT);
                // Reading the status makes the next write an index.
                window.read_u8(at(INPUT_STATUS_PORT));
                window.write_u8(at(ATTRIBUTE_PORT), SCREEN_ON);
            }
            Self::Ports(ports) => {
                ports.read_u8(INPUT_STATUS_PORT);
                ports.write_u8(ATTRIBUTE_PORT, SCREEN_ON);
            }
        }
    }
}

const fn is_id(id: u16) -> bool {
    id & 0xFFF0 == ID_BASE
}

impl Bochs {
    /// The adapter with `memory` behind BAR 0 and `registers` behind BAR 2.
    pub fn open(
        memory: Option<Box<dyn Window>>,
        registers: Option<Box<dyn Window>>,
        ports: &'static dyn Ports,
    ) -> Result<Self, Problem> {
        let memory = memory.filter(|memory| !memory.is_empty()).ok_or(Problem::NoVideoMemory)?;
        let window = registers.filter(|window| window.len() >= BAR2_USED).map(Registers::Window);
        let mut edid = Vec::new();
        let registers = match window.filter(|window| is_id(window.read(ID))) {
            Some(Registers::Window(window)) => {
                edid = read_edid(&*window);
                Registers::Window(window)
            }
            _ => Registers::Ports(ports),
        };
        if let Registers::Ports(_) = registers {
            let id = registers.read(ID);
            if !is_id(id) {
                return Err(Problem::NotTheAdapter(id));
            }
        }
        let said = usize::from(registers.read(MEMORY_64K)) << 16;
        let size = if said == 0 { memory.len() } else { said.min(memory.len()) };
        let wanted = edid.first_chunk().and_then(edid::preferred);
        // What the monitor prefers is a mode too, if it is not in the list.
        let own = wanted.filter(|size| !MODES.contains(size) && size.0.is_multiple_of(8));
        let modes = MODES.into_iter().chain(own).map(|(width, height)| mode32(width, height));
        let (modes, preferred) = choose(modes, size, wanted)?;
        Ok(Self { registers, memory, modes, preferred, edid })
    }
}

/// The monitor's EDID; empty if it is not what it should be.
fn read_edid(window: &dyn Window) -> Vec<u8> {
    let mut first = [0; BLOCK];
    window.read_bytes(0, &mut first);
    if !edid::is_valid(&first) {
        log::debug!("display: no EDID, or a damaged one");
        return Vec::new();
    }
    let mut all = first.to_vec();
    for number in 1..=edid::extensions(&first) {
        let mut block = [0; BLOCK];
        window.read_bytes(number * BLOCK, &mut block);
        if !edid::is_valid_extension(&block) {
            log::debug!("display: block {number} of the EDID is damaged");
            break;
        }
        all.extend(block);
    }
    all
}

impl Adapter for Bochs {
    fn modes(&self) -> &[Mode] {
        &self.modes
    }

    fn preferred(&self) -> usize {
        self.preferred
    }

    fn set_mode(&mut self, mode: usize) -> Result<bool, AdapterError> {
        let mode = self.modes.get(mode).ok_or(AdapterError)?;
        let (width, height) = (mode.width as u16, mode.height as u16);
        // Off first: switching on is what makes the adapter take the size, and clear.
        for (register, value) in [
            (ENABLE, 0),
            (XRES, width),
            (YRES, height),
            (BPP, 32),
            (BANK, 0),
            (ENABLE, ENABLED | LINEAR),
            (VIRTUAL_WIDTH, width),
            (X_OFFSET, 0),
            (Y_OFFSET, 0),
        ] {
            self.registers.write(register, value);
        }
        self.registers.switch_screen_on();
        let is_so = self.registers.read(ENABLE) & ENABLED != 0 && self.registers.read(XRES) == width;
        if is_so { Ok(true) } else { Err(AdapterError) }
    }

    fn memory(&self) -> &dyn Window {
        &*self.memory
    }

    fn edid(&self) -> &[u8] {
        &self.edid
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use hw::device::Windows;
    use hw::fake::{FakeDevice, FakePorts, FakeWindows};

    use super::*;

    /// Registers behind ports.
    #[derive(Default)]
    struct Registers {
        index: u16,
        values: [u16; 16],
        attribute: Option<u8>,
    }

    struct Device(Rc<RefCell<Registers>>);

    impl FakeDevice for Device {
        fn read(&mut self, port: u16, _: u8) -> Option<u32> {
            let registers = self.0.borrow();
            match port {
                DATA_PORT => Some(registers.values[usize::from(registers.index)].into()),
                INPUT_STATUS_PORT => Some(0),
                _ => None,
            }
        }

        fn write(&mut self, port: u16, _: u8, value: u32) -> bool {
            let mut registers = self.0.borrow_mut();
            match port {
                INDEX_PORT => registers.index = value as u16,
                DATA_PORT => {
                    let index = usize::from(registers.index);
                    registers.values[index] = value as u16;
                }
                ATTRIBUTE_PORT => registers.attribute = Some(value as u8),
                _ => return false,
            }
            true
        }
    }

    fn ports(id: u16, memory_64k: u16) -> (&'static FakePorts, Rc<RefCell<Registers>>) {
        let registers = Rc::new(RefCell::new(Registers::default()));
        registers.borrow_mut().values[usize::from(ID)] = id;
        registers.borrow_mut().values[usize::from(MEMORY_64K)] = memory_64k;
        (Box::leak(Box::new(FakePorts::with(Device(registers.clone())))), registers)
    }

    fn window(length: usize) -> Option<Box<dyn Window>> {
        let windows = FakeWindows::default();
        windows.add(0xF000_0000, length);
        windows.window(0xF000_0000, length)
    }

    fn block(width: u16, height: u16, extensions: u8) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[1..7].fill(0xFF);
        block[54] = 1;
        block[56] = width as u8;
        block[58] = (width >> 8 << 4) as u8;
        block[59] = height as u8;
        block[61] = (height >> 8 << 4) as u8;
        block[126] = extensions;
        block[127] = block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
        block
    }

    /// BAR 2 with an EDID.
    fn bar2(edid: &[u8]) -> Box<dyn Window> {
        let window = window(0x1000).unwrap();
        window.write_bytes(0, edid);
        window.write_u16(DISPI, 0xB0C5);
        window
    }

    #[test]
    fn a_mode_is_set_through_ports() {
        let (ports, registers) = ports(0xB0C5, 0);
        let mut bochs = Bochs::open(window(16 << 20), None, ports).unwrap();
        let mode = bochs.modes()[bochs.preferred()];
        assert_eq!((mode.width, mode.height), (1280, 800));
        assert_eq!(bochs.set_mode(bochs.preferred()), Ok(true));
        let registers = registers.borrow();
        assert_eq!(registers.values[1..7], [1280, 800, 32, 0x41, 0, 1280]);
        assert_eq!(registers.attribute, Some(SCREEN_ON));
    }

    #[test]
    fn a_mode_is_set_through_memory_where_there_is_some() {
        let (ports, registers) = ports(0, 0);
        let mut bochs = Bochs::open(window(16 << 20), Some(bar2(&[])), ports).unwrap();
        bochs.set_mode(4).unwrap();
        let super::Registers::Window(window) = &bochs.registers else { panic!("not through memory") };
        assert_eq!((window.read_u16(DISPI + 2), window.read_u16(DISPI + 4)), (1024, 768));
        assert_eq!(window.read_u8(VGA_PORTS), SCREEN_ON);
        assert_eq!(registers.borrow().attribute, None);
    }

    #[test]
    fn the_memory_limits_the_modes() {
        let largest = |memory: usize, said| {
            let (ports, _) = ports(0xB0C0, said);
            Bochs::open(window(memory), None, ports).map(|bochs| bochs.modes.last().map(|mode| mode.width))
        };
        assert_eq!(largest(16 << 20, 0x100), Ok(Some(2560)));
        assert_eq!(largest(8 << 20, 0), Ok(Some(1920)));
        // What the register says and what the BAR has: the smaller counts.
        assert_eq!(largest(16 << 20, 0x20), Ok(Some(800)));
        assert_eq!(largest(1 << 20, 0x100), Err(Problem::TooLittleVideoMemory(1 << 20)));
    }

    #[test]
    fn the_monitor_has_a_say() {
        let (ports, _) = ports(0, 0);
        for (size, edid, expected) in [
            ((1920, 1080), 0, (1920, 1080)),
            ((1928, 1084), 0, (1928, 1084)),
            ((1930, 1084), 0, (1280, 800)),
            ((8000, 4000), 0, (1280, 800)),
            ((1920, 1080), 200, (1280, 800)),
        ] {
            let mut block = block(size.0, size.1, 0);
            block[20] = edid;
            let bochs = Bochs::open(window(16 << 20), Some(bar2(&block)), ports).unwrap();
            let mode = bochs.modes()[bochs.preferred()];
            assert_eq!((mode.width, mode.height), expected);
            assert_eq!(bochs.edid().len(), if edid == 0 { BLOCK } else { 0 });
        }
    }

    #[test]
    fn only_intact_blocks_of_an_edid_are_taken() {
        let (ports, _) = ports(0, 0);
        let length = |edid: &[u8]| Bochs::open(window(16 << 20), Some(bar2(edid)), ports).unwrap().edid().len();
        let two = block(1280, 800, 2);
        assert_eq!(length(&two), 3 * BLOCK);
        assert_eq!(length(&[&two[..], &[2; 128], &[2; 128]].concat()), 3 * BLOCK);
        assert_eq!(length(&[&two[..], &[1; 127]].concat()), BLOCK);
        // More blocks than there is room for before the registers.
        assert_eq!(length(&block(1280, 800, 255)), 4 * BLOCK);
    }

    #[test]
    fn what_is_not_the_adapter_is_left_out() {
        let (wrong, _) = ports(0x1234, 0);
        assert_eq!(Bochs::open(window(16 << 20), None, wrong).err(), Some(Problem::NotTheAdapter(0x1234)));
        let (ports, _) = ports(0xB0C5, 0);
        assert_eq!(Bochs::open(None, None, ports).err(), Some(Problem::NoVideoMemory));
        // A BAR 2 that is too short is not used.
        assert!(Bochs::open(window(16 << 20), window(0x500), ports).is_ok());
    }

    #[test]
    fn an_adapter_that_ignores_us_is_an_error() {
        let (ports, registers) = ports(0xB0C5, 0);
        let mut bochs = Bochs::open(window(16 << 20), None, ports).unwrap();
        ports.devices.borrow_mut().clear();
        assert_eq!(bochs.set_mode(99), Err(AdapterError));
        registers.borrow_mut().values[1] = 0;
        assert_eq!(bochs.set_mode(0), Err(AdapterError));
    }
}
