//! The firmware volume around the store (PI vol. 3 §3.2.1, NV data file system), in the shape of EDK2's 4M layout.

use core::mem::size_of;

use uefi_raw::firmware_storage::FirmwareVolumeHeader;
use uefi_raw::{Guid, guid};

use crate::backend::NoMedium;
use crate::format::{ERASED, StoreHeader, StoreHeaderError};
use crate::journal::{self, Areas, Recovery};
use crate::store::Store;

/// File system GUID of a volume of variables (`gEfiSystemNvDataFvGuid`).
pub const NV_DATA_GUID: Guid = guid!("fff12b8d-7696-4c8b-a985-2747075b4f50");

/// Length of the whole volume: store, event log, fault tolerant write areas.
pub const VOLUME_SIZE: u64 = 0x8_4000;

/// Bytes from the start of the volume to the end of the store.
pub const REGION_SIZE: usize = 0x4_0000;

/// Offset of the store in the volume.
pub const STORE_OFFSET: usize = HEADER_SIZE;

/// Block of the flash that the format was made for; areas of a volume are whole blocks.
pub const BLOCK_SIZE: usize = 0x1000;
/// Attributes EDK2 gives its volume: everything enabled, sticky write, memory mapped, erased bits are 1.
const ATTRIBUTES: u32 = 0x0004_feff;
const REVISION: u8 = 2;
/// One block map entry and the terminating one follow the fixed part.
const HEADER_SIZE: usize = size_of::<FirmwareVolumeHeader>() + 2 * size_of::<[u32; 2]>();

/// Why bytes are no volume of variables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VolumeError {
    /// Nothing was ever written: all bytes erased (or zero).
    Blank,
    /// Not a firmware volume, or not one that holds variables.
    Signature,
    /// The header's 16-bit sum is not zero.
    Checksum,
    /// The header does not fit the bytes.
    Size,
}

/// Why a volume cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// Its header.
    Volume(VolumeError),
    /// The store in it, which may also be larger than [`REGION_SIZE`] allows.
    Store(StoreHeaderError),
}

/// Makes a whole volume in memory, of a file of any origin, ready to be used: a write that was cut is finished, and
/// [`region`] can be opened then.
pub fn prepare(volume: &mut [u8]) -> Result<Recovery, Unusable> {
    // Memory cannot fail; a volume without a journal has nothing to finish.
    let recovery = journal::recover(volume, &mut NoMedium).unwrap_or(Recovery::None);
    let offset = store_offset(volume).map_err(Unusable::Volume)?;
    match Store::open(region(volume), offset) {
        Ok(_) => Ok(recovery),
        Err((_, error)) => Err(Unusable::Store(error)),
    }
}

/// The part of a whole volume with the store: no more than [`REGION_SIZE`].
pub fn region(volume: &mut [u8]) -> &mut [u8] {
    let end = Areas::of(volume.len()).map_or(volume.len(), |areas| areas.store.end).min(REGION_SIZE);
    volume.get_mut(..end).unwrap_or_default()
}

/// Checks the volume header and returns the offset of the store behind it.
pub fn store_offset(bytes: &[u8]) -> Result<usize, VolumeError> {
    let header = bytes.get(..HEADER_SIZE).ok_or(VolumeError::Size)?;
    if header.iter().all(|&byte| byte == ERASED) || header.iter().all(|&byte| byte == 0) {
        return Err(VolumeError::Blank);
    }
    if header[40..44] != FirmwareVolumeHeader::SIGNATURE || header[16..32] != NV_DATA_GUID.to_bytes() {
        return Err(VolumeError::Signature);
    }
    let length = usize::from(u16::from_le_bytes([header[48], header[49]]));
    let header = bytes.get(..length).filter(|header| header.len() >= HEADER_SIZE).ok_or(VolumeError::Size)?;
    if sum16(header) == 0 { Ok(length) } else { Err(VolumeError::Checksum) }
}

/// Makes `bytes`, the first [`REGION_SIZE`] bytes of a volume, an empty store in a volume. Shorter or longer is
/// possible, as long as the two headers fit; the store then ends with `bytes`.
pub fn format(bytes: &mut [u8]) -> Result<(), VolumeError> {
    bytes.fill(ERASED);
    let store_size = bytes.len().checked_sub(HEADER_SIZE).and_then(|size| u32::try_from(size).ok());
    let store_size = store_size.ok_or(VolumeError::Size)?;
    let (header, store) = bytes.split_first_chunk_mut().ok_or(VolumeError::Size)?;
    *header = volume_header();
    let store_header = store.first_chunk_mut().ok_or(VolumeError::Size)?;
    *store_header = StoreHeader { size: store_size }.encode();
    Ok(())
}

fn volume_header() -> [u8; HEADER_SIZE] {
    let mut header = [0; HEADER_SIZE];
    header[16..32].copy_from_slice(&NV_DATA_GUID.to_bytes());
    header[32..40].copy_from_slice(&VOLUME_SIZE.to_le_bytes());
    header[40..44].copy_from_slice(&FirmwareVolumeHeader::SIGNATURE);
    header[44..48].copy_from_slice(&ATTRIBUTES.to_le_bytes());
    header[48..50].copy_from_slice(&(HEADER_SIZE as u16).to_le_bytes());
    header[55] = REVISION;
    header[56..60].copy_from_slice(&((VOLUME_SIZE / BLOCK_SIZE as u64) as u32).to_le_bytes());
    header[60..64].copy_from_slice(&(BLOCK_SIZE as u32).to_le_bytes());
    let checksum = 0u16.wrapping_sub(sum16(&header));
    header[50..52].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn sum16(bytes: &[u8]) -> u16 {
    bytes.as_chunks().0.iter().fold(0, |sum, &pair| sum.wrapping_add(u16::from_le_bytes(pair)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "a quarter of a megabyte takes minutes")]
    fn an_empty_volume_is_byte_for_byte_that_of_edk2() {
        let mut bytes = vec![0; REGION_SIZE];
        format(&mut bytes).unwrap();
        let expected = [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85,
            0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50, 0x00, 0x40, 0x08, 0x00, 0, 0, 0, 0, 0x5f, 0x46, 0x56, 0x48, 0xff, 0xfe,
            0x04, 0x00, 0x48, 0x00, 0xaf, 0xb8, 0, 0, 0, 0x02, 0x84, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92, 0xb8, 0xff,
            0x03, 0x00, 0x5a, 0xfe, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(bytes[..100], expected);
        assert!(bytes[100..].iter().all(|&byte| byte == ERASED));
        assert_eq!(store_offset(&bytes), Ok(STORE_OFFSET));
    }

    #[test]
    fn blank_and_damaged_headers_are_told_apart() {
        assert_eq!(store_offset(&[0xff; 100]), Err(VolumeError::Blank));
        assert_eq!(store_offset(&[0; 100]), Err(VolumeError::Blank));
        assert_eq!(store_offset(&[0; 10]), Err(VolumeError::Size));
        let mut bytes = vec![0; 0x200];
        format(&mut bytes).unwrap();
        bytes[33] ^= 1;
        assert_eq!(store_offset(&bytes), Err(VolumeError::Checksum));
        bytes[41] = 0;
        assert_eq!(store_offset(&bytes), Err(VolumeError::Signature));
    }

    #[test]
    fn a_header_length_beyond_the_bytes_is_refused() {
        let mut bytes = vec![0; 0x200];
        format(&mut bytes).unwrap();
        bytes[48..50].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(store_offset(&bytes[..0x100]), Err(VolumeError::Size));
        bytes[48..50].copy_from_slice(&0u16.to_le_bytes());
        assert_eq!(store_offset(&bytes), Err(VolumeError::Size));
    }

    fn volume_of(size: usize) -> Vec<u8> {
        let mut volume = vec![ERASED; size];
        format(region(&mut volume)).unwrap();
        volume
    }

    #[test]
    #[cfg_attr(miri, ignore = "a quarter of a megabyte takes minutes")]
    fn volumes_of_2_and_4_mib_images_can_be_used() {
        for (size, store) in [(0x2_0000, 0xe000), (0x8_4000, REGION_SIZE), (0x3000, 0x3000)] {
            let mut volume = volume_of(size);
            assert_eq!(region(&mut volume).len(), store);
            prepare(&mut volume).unwrap();
            volume[STORE_OFFSET] ^= 1;
            assert_eq!(prepare(&mut volume), Err(Unusable::Store(StoreHeaderError::Signature)));
            volume[33] ^= 1;
            assert_eq!(prepare(&mut volume), Err(Unusable::Volume(VolumeError::Checksum)));
        }
    }

    #[test]
    fn a_store_behind_the_region_cannot_be_used() {
        let mut volume = volume_of(0x2_0000);
        volume[STORE_OFFSET + 16..STORE_OFFSET + 20].copy_from_slice(&0x1_0000u32.to_le_bytes());
        assert_eq!(prepare(&mut volume), Err(Unusable::Store(StoreHeaderError::Size)));
        assert_eq!(prepare(&mut []), Err(Unusable::Volume(VolumeError::Size)));
    }

    #[test]
    fn too_few_bytes_cannot_be_formatted() {
        assert_eq!(format(&mut [0; 99]), Err(VolumeError::Size));
    }
}
