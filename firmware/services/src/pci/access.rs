//! Reads and writes, by the widths of EFI_PCI_IO_PROTOCOL_WIDTH (UEFI 2.11 §14.4), which are those of root bridges too.

use alloc::boxed::Box;

use hw::device::{Ports, Window};

use super::{Address, Bar, PciDevice, PciError, PciRootBridge, PciSpaces, Result};

/// In place of a BAR's index: offsets are addresses.
pub const PASS_THROUGH: u8 = 0xFF;
/// Bytes of a function's configuration space.
const CONFIGURATION_SIZE: u64 = 256;
const PORT_COUNT: u64 = 1 << 16;

/// How a transfer goes on after each unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// In the device and in the buffer.
    Plain,
    /// In the buffer only: the device has one register for all.
    Fifo,
    /// In the device only: the buffer has one unit for all.
    Fill,
}

/// How something is read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    unit: u8,
    mode: Mode,
}

impl Access {
    /// The access that a width of the protocols stands for.
    pub const fn from_raw(width: u32) -> Result<Self> {
        let mode = match width / 4 {
            0 => Mode::Plain,
            1 => Mode::Fifo,
            2 => Mode::Fill,
            _ => return Err(PciError::InvalidParameter),
        };
        Ok(Self { unit: 1 << (width % 4), mode })
    }

    /// The same for functions that know single units only.
    pub const fn single(width: u32) -> Result<Self> {
        if width < 4 { Self::from_raw(width) } else { Err(PciError::InvalidParameter) }
    }

    /// Bytes in the caller's buffer.
    pub fn buffer_size(self, count: usize) -> Result<usize> {
        let count = if self.mode == Mode::Fill { count.min(1) } else { count };
        let size = count.checked_mul(self.unit.into()).filter(|size| isize::try_from(*size).is_ok());
        size.ok_or(PciError::InvalidParameter)
    }

    /// The part of the address space, `size` bytes, that a transfer at `offset` touches; an error where it is not inside or
    /// not aligned.
    fn span(self, offset: u64, count: usize, size: u64) -> Result<u64> {
        let count = if self.mode == Mode::Fifo { count.min(1) } else { count };
        let unit = u64::from(self.unit);
        let length = (count as u64).checked_mul(unit).ok_or(PciError::Unsupported)?;
        let end = offset.checked_add(length).ok_or(PciError::Unsupported)?;
        if offset.is_multiple_of(unit) && end <= size { Ok(length) } else { Err(PciError::Unsupported) }
    }
}

/// Registers that can be read and written. Offsets have been checked.
trait Registers {
    fn read(&self, at: u64, unit: u8) -> u64;
    fn write(&self, at: u64, unit: u8, value: u64);

    /// Reads one register again and again.
    fn read_fifo(&self, at: u64, unit: u8, into: &mut [u8]) {
        for value in into.chunks_exact_mut(unit.into()) {
            store(value, self.read(at, unit));
        }
    }

    /// Writes one register again and again.
    fn write_fifo(&self, at: u64, unit: u8, from: &[u8]) {
        for value in from.chunks_exact(unit.into()) {
            self.write(at, unit, load(value));
        }
    }
}

/// Puts the low bytes of a value into a unit of a buffer.
fn store(into: &mut [u8], value: u64) {
    for (byte, from) in into.iter_mut().zip(value.to_le_bytes()) {
        *byte = from;
    }
}

/// The value in a unit of a buffer.
fn load(from: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (byte, from) in bytes.iter_mut().zip(from) {
        *byte = *from;
    }
    u64::from_le_bytes(bytes)
}

impl Registers for Box<dyn Window> {
    fn read(&self, at: u64, unit: u8) -> u64 {
        let at = at as usize;
        match unit {
            1 => self.read_u8(at).into(),
            2 => self.read_u16(at).into(),
            4 => self.read_u32(at).into(),
            _ => self.read_u64(at),
        }
    }

    fn write(&self, at: u64, unit: u8, value: u64) {
        let at = at as usize;
        match unit {
            1 => self.write_u8(at, value as u8),
            2 => self.write_u16(at, value as u16),
            4 => self.write_u32(at, value as u32),
            _ => self.write_u64(at, value),
        }
    }
}

impl Registers for &dyn Ports {
    fn read(&self, at: u64, unit: u8) -> u64 {
        let at = at as u16;
        match unit {
            1 => self.read_u8(at).into(),
            2 => self.read_u16(at).into(),
            _ => self.read_u32(at).into(),
        }
    }

    fn write(&self, at: u64, unit: u8, value: u64) {
        let at = at as u16;
        match unit {
            1 => self.write_u8(at, value as u8),
            2 => self.write_u16(at, value as u16),
            _ => self.write_u32(at, value as u32),
        }
    }

    // A disk's sectors come this way: one request to the device model for all of it.
    fn read_fifo(&self, at: u64, unit: u8, into: &mut [u8]) {
        if unit == 2 {
            return self.read_words(at as u16, into);
        }
        for value in into.chunks_exact_mut(unit.into()) {
            store(value, self.read(at, unit));
        }
    }

    fn write_fifo(&self, at: u64, unit: u8, from: &[u8]) {
        if unit == 2 {
            return self.write_words(at as u16, from);
        }
        for value in from.chunks_exact(unit.into()) {
            self.write(at, unit, load(value));
        }
    }
}

/// Configuration space of one function, 64 bits as two times 32.
struct Configuration<R, W> {
    read: R,
    write: W,
}

impl<R: Fn(u16, u8) -> u32, W: Fn(u16, u8, u32)> Registers for Configuration<R, W> {
    fn read(&self, at: u64, unit: u8) -> u64 {
        let at = at as u16;
        match unit {
            8 => u64::from((self.read)(at, 4)) | u64::from((self.read)(at + 4, 4)) << 32,
            _ => (self.read)(at, unit).into(),
        }
    }

    fn write(&self, at: u64, unit: u8, value: u64) {
        let at = at as u16;
        match unit {
            8 => {
                (self.write)(at, 4, value as u32);
                (self.write)(at + 4, 4, (value >> 32) as u32);
            }
            _ => (self.write)(at, unit, value as u32),
        }
    }
}

/// What is read or written: registers, and where in them.
pub struct Target<'a> {
    /// None for a transfer of no length.
    registers: Option<Box<dyn Registers + 'a>>,
    /// On the bus.
    address: u64,
    /// In the registers.
    at: u64,
    access: Access,
    count: usize,
}

impl<'a> Target<'a> {
    /// Memory: of a BAR, or with [`PASS_THROUGH`] anywhere that a device can be.
    pub fn memory(device: &dyn PciDevice, access: Access, bar: u8, offset: u64, count: usize) -> Result<Self> {
        if bar == PASS_THROUGH {
            return Self::bus_memory(device, access, offset, count);
        }
        match device.bar(bar) {
            Some(Bar::Memory { address, size, .. }) => {
                access.span(offset, count, size)?;
                Self::bus_memory(device, access, address.wrapping_add(offset), count)
            }
            _ => Err(PciError::Unsupported),
        }
    }

    /// Memory by its address.
    pub fn bus_memory<S: PciSpaces + ?Sized>(spaces: &S, access: Access, address: u64, count: usize) -> Result<Self> {
        let length = access.span(address, count, u64::MAX)?;
        if length == 0 {
            return Ok(Self { registers: None, address, at: 0, access, count });
        }
        let length = usize::try_from(length).map_err(|_| PciError::Unsupported)?;
        let window = spaces.window(address, length).ok_or(PciError::Unsupported)?;
        Ok(Self { registers: Some(Box::new(window)), address, at: 0, access, count })
    }

    /// Ports: of a BAR, or with [`PASS_THROUGH`] any.
    pub fn ports(device: &'a dyn PciDevice, access: Access, bar: u8, offset: u64, count: usize) -> Result<Self> {
        if bar == PASS_THROUGH {
            return Self::bus_ports(device, access, offset, count);
        }
        match device.bar(bar) {
            Some(Bar::Ports { first, count: size }) => {
                access.span(offset, count, size.into())?;
                Self::bus_ports(device, access, u64::from(first) + offset, count)
            }
            _ => Err(PciError::Unsupported),
        }
    }

    /// Ports by their number.
    pub fn bus_ports<S: PciSpaces + ?Sized>(spaces: &'a S, access: Access, port: u64, count: usize) -> Result<Self> {
        if access.unit == 8 {
            return Err(PciError::InvalidParameter);
        }
        access.span(port, count, PORT_COUNT)?;
        Ok(Self { registers: Some(Box::new(spaces.ports())), address: port, at: port, access, count })
    }

    /// Configuration space of a function.
    pub fn configuration(device: &'a dyn PciDevice, access: Access, offset: u32, count: usize) -> Result<Self> {
        let read = |offset, unit| device.read_configuration(offset, unit);
        let write = |offset, unit, value| device.write_configuration(offset, unit, value);
        Self::any_configuration(read, write, access, offset.into(), count)
    }

    /// Configuration space by an address of EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL.Pci (UEFI 2.11 table 14-6): register, function,
    /// device and bus in a byte each, and above them the register again where it does not fit a byte.
    pub fn bus_configuration(bridge: &'a dyn PciRootBridge, access: Access, at: u64, count: usize) -> Result<Self> {
        let [register, function, device, bus, ..] = at.to_le_bytes();
        let extended = at >> 32;
        let offset = if extended == 0 { register.into() } else { extended };
        if device > 31 || function > 7 {
            return Err(PciError::Unsupported);
        }
        let address = Address { bus, device, function };
        let read = move |offset, unit| bridge.read_configuration(address, offset, unit);
        let write = move |offset, unit, value| bridge.write_configuration(address, offset, unit, value);
        Self::any_configuration(read, write, access, offset, count)
    }

    fn any_configuration(
        read: impl Fn(u16, u8) -> u32 + 'a,
        write: impl Fn(u16, u8, u32) + 'a,
        access: Access,
        offset: u64,
        count: usize,
    ) -> Result<Self> {
        access.span(offset, count, CONFIGURATION_SIZE)?;
        let registers: Box<dyn Registers> = Box::new(Configuration { read, write });
        Ok(Self { registers: Some(registers), address: offset, at: offset, access, count })
    }

    /// Reads into a buffer of [`Access::buffer_size`].
    pub fn read(&self, into: &mut [u8]) {
        let Some(registers) = self.registers() else { return };
        let unit = self.access.unit;
        match self.access.mode {
            Mode::Fifo => registers.read_fifo(self.at, unit, into),
            Mode::Plain => {
                for (at, value) in self.places().zip(into.chunks_exact_mut(unit.into())) {
                    store(value, registers.read(at, unit));
                }
            }
            Mode::Fill => self.places().for_each(|at| store(into, registers.read(at, unit))),
        }
    }

    /// Writes a buffer of [`Access::buffer_size`].
    pub fn write(&self, from: &[u8]) {
        let Some(registers) = self.registers() else { return };
        let unit = self.access.unit;
        match self.access.mode {
            Mode::Fifo => registers.write_fifo(self.at, unit, from),
            Mode::Plain => {
                for (at, value) in self.places().zip(from.chunks_exact(unit.into())) {
                    registers.write(at, unit, load(value));
                }
            }
            Mode::Fill => self.places().for_each(|at| registers.write(at, unit, load(from))),
        }
    }

    /// Reads the first unit.
    pub fn read_one(&self) -> u64 {
        self.registers().map_or(0, |registers| registers.read(self.at, self.access.unit))
    }

    /// Copies to another place in memory; the two may overlap (UEFI 2.11 §14.4, CopyMem).
    pub fn copy_to(&self, to: &Self) {
        let (Some(from), Some(into)) = (self.registers(), to.registers()) else { return };
        let unit = self.access.unit;
        let copy = |(source, target)| into.write(target, unit, from.read(source, unit));
        if to.address > self.address {
            self.places().zip(to.places()).rev().for_each(copy);
        } else {
            self.places().zip(to.places()).for_each(copy);
        }
    }

    /// Offset of each unit.
    fn places(&self) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + use<> {
        let (at, unit) = (self.at, u64::from(self.access.unit));
        (0..self.count).map(move |index| at + index as u64 * unit)
    }

    fn registers(&self) -> Option<&(dyn Registers + 'a)> {
        self.registers.as_deref().filter(|_| self.count != 0)
    }
}
