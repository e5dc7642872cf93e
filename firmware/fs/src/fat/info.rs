//! The FSInfo sector of FAT32: hints about free clusters (Microsoft FAT specification 1.03 §5).

use services::block::ByteDevice;
use services::file::FileError;

use super::layout::BOOT_SECTOR;
use super::table::Medium;

/// Signatures and where they stand.
const SIGNATURES: [(usize, u32); 3] = [(0, 0x4161_5252), (484, 0x6141_7272), (508, 0xaa55_0000)];
/// Where the number of free clusters stands, and the next one to look at.
const FREE: usize = 488;
const NEXT: usize = 492;
/// What stands there when it is not known.
const UNKNOWN: u32 = u32::MAX;

/// Takes the hints over as far as they can be true. A sector that is not there is no harm.
pub(super) fn load<D: ByteDevice>(medium: &mut Medium<D>) {
    let Some(sector) = read(medium) else { return };
    let long = |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
    medium.free = Some(long(FREE)).filter(|&free| free <= medium.layout.clusters);
    medium.hint = Some(long(NEXT)).filter(|&next| medium.layout.is_data(next)).unwrap_or(2);
}

/// Writes what is known now.
pub(super) fn store<D: ByteDevice>(medium: &mut Medium<D>) -> Result<(), FileError> {
    let (Some(offset), Some(mut sector)) = (medium.layout.fs_info, read(medium)) else { return Ok(()) };
    sector[FREE..FREE + 4].copy_from_slice(&medium.free.unwrap_or(UNKNOWN).to_le_bytes());
    let next = if medium.layout.is_data(medium.hint) { medium.hint } else { UNKNOWN };
    sector[NEXT..NEXT + 4].copy_from_slice(&next.to_le_bytes());
    medium.write(offset, &sector, "FSInfo")
}

fn read<D: ByteDevice>(medium: &mut Medium<D>) -> Option<[u8; BOOT_SECTOR]> {
    let offset = medium.layout.fs_info?;
    let mut sector = [0; BOOT_SECTOR];
    medium.disk.read_at(offset, &mut sector).ok()?;
    let sound = SIGNATURES.iter().all(|&(at, value)| sector[at..at + 4] == value.to_le_bytes());
    sound.then_some(sector)
}
