//! Option ROMs (PCI Firmware Specification 3.3 §5; EFI images in them: UEFI 2.11 §14.4.2).
//!
//! A ROM is a chain of images, each with a header, a data structure (`PCIR`) and a type. What is in it is the device's, or of
//! whoever gave the guest a ROM file: every offset and length is checked.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use services::pci::Address;

use super::decompress::{self, decompress};
use super::{Function, command, register};

/// Largest ROM there can be, as the address has 32 bits with these left for the size; nobody has one of more than some MiB.
const LARGEST: u32 = 16 << 20;
/// Bits of the register that are no address.
const FLAGS: u32 = 0x7FF;
const ENABLE: u32 = 1;

const HEADER_SIGNATURE: u16 = 0xAA55;
const DATA_SIGNATURE: &[u8] = b"PCIR";
const EFI_SIGNATURE: u32 = 0x0EF1;
/// Unit of lengths.
const BLOCK: usize = 512;
/// Images in a chain; a ROM has two or three.
const IMAGES_MAX: usize = 32;
/// Type of an image with an EFI program.
const EFI_CODE: u8 = 3;
/// Of the indicator: no image follows.
const LAST: u8 = 0x80;
/// PE machine type of programs for this processor.
const MACHINE_X64: u16 = 0x8664;
/// Values of the compression field.
const PLAIN: u16 = 0;
const COMPRESSED: u16 = 1;

/// What is wrong with a ROM or an image in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RomError {
    /// An image does not begin as one.
    Header,
    /// Its data structure is not there.
    Data,
    /// It is longer than the ROM, or has no length.
    Length,
    /// Its program is compressed in an unknown way.
    Compression(u16),
    /// Its program does not decompress.
    Damaged(decompress::Error),
}

impl fmt::Display for RomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("an image has no header"),
            Self::Data => f.write_str("an image has no PCI data structure"),
            Self::Length => f.write_str("an image does not fit the ROM"),
            Self::Compression(kind) => write!(f, "an image is compressed in an unknown way ({kind})"),
            Self::Damaged(error) => write!(f, "an image does not decompress: {error}"),
        }
    }
}

impl core::error::Error for RomError {}

/// An image of a ROM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// Where it is in the ROM.
    pub place: Range<usize>,
    /// The EFI program for this processor in it, if it has one.
    pub program: Option<Program>,
}

/// An EFI program as it lies in a ROM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    place: Range<usize>,
    compression: u16,
}

impl Program {
    /// The program's bytes.
    ///
    /// # Errors
    /// Why it cannot be decompressed.
    pub fn bytes<'a>(&self, rom: &'a [u8]) -> Result<Cow<'a, [u8]>, RomError> {
        let stored = rom.get(self.place.clone()).ok_or(RomError::Length)?;
        match self.compression {
            PLAIN => Ok(Cow::Borrowed(stored)),
            COMPRESSED => decompress(stored).map(Cow::Owned).map_err(RomError::Damaged),
            other => Err(RomError::Compression(other)),
        }
    }
}

/// The images of a ROM, up to the first that is none; and what is wrong with that one.
pub fn images(rom: &[u8]) -> (Vec<Image>, Option<RomError>) {
    let mut images = Vec::new();
    let mut start = 0;
    while images.len() < IMAGES_MAX {
        match image(rom, start) {
            Ok((image, last)) => {
                start = image.place.end;
                images.push(image);
                if last {
                    break;
                }
            }
            Err(error) => return (images, Some(error)),
        }
    }
    (images, None)
}

/// The image at `start`, and whether it is the last one.
fn image(rom: &[u8], start: usize) -> Result<(Image, bool), RomError> {
    let rest = rom.get(start..).ok_or(RomError::Header)?;
    if u16_at(rest, 0) != Some(HEADER_SIGNATURE) {
        return Err(RomError::Header);
    }
    let (length, kind, last) = data_structure(rest)?;
    let bytes = rest.get(..length).filter(|bytes| !bytes.is_empty()).ok_or(RomError::Length)?;
    let program = if kind == EFI_CODE { program(bytes, start) } else { None };
    Ok((Image { place: start..start + length, program }, last))
}

/// Length in bytes, type, and whether no image follows.
fn data_structure(image: &[u8]) -> Result<(usize, u8, bool), RomError> {
    let at = usize::from(u16_at(image, 0x18).ok_or(RomError::Header)?);
    let data = image.get(at..).ok_or(RomError::Data)?;
    if !data.starts_with(DATA_SIGNATURE) {
        return Err(RomError::Data);
    }
    let length = u16_at(data, 0x10).ok_or(RomError::Data)?;
    let (kind, indicator) = data.get(0x14).zip(data.get(0x15)).ok_or(RomError::Data)?;
    Ok((usize::from(length) * BLOCK, *kind, indicator & LAST != 0))
}

/// The program of an EFI image that is `start` bytes into its ROM; `None` if it is not for this processor or no program.
fn program(image: &[u8], start: usize) -> Option<Program> {
    let size = usize::from(u16_at(image, 2)?) * BLOCK;
    let (signature, machine, compression) = (u32_at(image, 4)?, u16_at(image, 10)?, u16_at(image, 12)?);
    let offset = usize::from(u16_at(image, 0x16)?);
    // A length of zero stands for the whole image.
    let end = if size == 0 { image.len() } else { size.min(image.len()) };
    let fits = signature == EFI_SIGNATURE && machine == MACHINE_X64 && offset < end;
    fits.then_some(Program { place: start + offset..start + end, compression })
}

/// Reads the ROM of a function, as long as its images are; `None` if it has none, or hvmloader has assigned no address.
pub fn read(function: &Function) -> Option<Vec<u8>> {
    if function.is_bridge() {
        return None;
    }
    let value = function.read_u32(register::ROM);
    let address = value & !FLAGS;
    if address == 0 || value == u32::MAX {
        return None;
    }
    let mask = function.probe_u32(register::ROM, value, !FLAGS) & !FLAGS;
    let size = (!mask).wrapping_add(1);
    if !size.is_power_of_two() || size > LARGEST {
        log::warn!("PCI {}: an option ROM of {size:#x} bytes is not read", function.address());
        return None;
    }
    let off = function.read_u16(register::COMMAND) & command::MEMORY == 0;
    function.enable(command::MEMORY);
    function.write_u32(register::ROM, address | ENABLE);
    let rom = copy(function.address(), function, u64::from(address), size as usize);
    function.write_u32(register::ROM, value);
    if off {
        function.disable(command::MEMORY);
    }
    rom
}

fn copy(at: Address, function: &Function, address: u64, size: usize) -> Option<Vec<u8>> {
    let window = function.machine().windows.window(address, size)?;
    let length = chain_length(size, |offset, into| window.read_bytes(offset, into));
    if length == 0 {
        log::debug!("PCI {at}: nothing in the option ROM");
        return None;
    }
    let mut rom = Vec::new();
    rom.try_reserve_exact(length).ok()?;
    rom.resize(length, 0);
    window.read_bytes(0, &mut rom);
    Some(rom)
}

/// Bytes of all images in a ROM of `size` bytes. Reads their headers only: the space is often larger than what is in it, and
/// reading is slow.
fn chain_length(size: usize, mut read: impl FnMut(usize, &mut [u8])) -> usize {
    /// All of a header, and all of a data structure that matters.
    const HEAD: usize = 0x1A;
    let mut end = 0;
    for _ in 0..IMAGES_MAX {
        let mut head = [0; HEAD];
        if size - end < HEAD {
            break;
        }
        read(end, &mut head);
        let data = usize::from(u16_at(&head, 0x18).unwrap_or(0));
        if u16_at(&head, 0) != Some(HEADER_SIGNATURE) || data > size - end - HEAD {
            break;
        }
        let mut fields = [0; HEAD];
        read(end + data, &mut fields);
        let length = usize::from(u16_at(&fields, 0x10).unwrap_or(0)) * BLOCK;
        if !fields.starts_with(DATA_SIGNATURE) || length == 0 || length > size - end {
            break;
        }
        end += length;
        if fields[0x15] & LAST != 0 {
            break;
        }
    }
    end
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}
