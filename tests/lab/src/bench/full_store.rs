//! A variable store that is as full as an operating system can make it.

use anyhow::{Result, anyhow, ensure};
use uefi_raw::{Guid, guid};
use variables::format::RecordHeader;
use variables::store::{Meta, StoreError};
use variables::{Key, Limits, Store, volume};

const VENDOR: Guid = guid!("5f0f2b3a-6a0d-4a57-9d0e-6b6a3ed0b1c8");
/// Bytes of the variables, in turn: from a boot entry's to a small signature list's.
const SIZES: [usize; 4] = [32, 128, 512, 2048];
/// Records begin at multiples of it.
const ALIGNMENT: usize = 4;
/// Non-volatile, for firmware and operating system.
const META: Meta = Meta { attributes: 7, time_stamp: [0; 16] };

/// Fills the store of a volume up to what the firmware reserves for itself. Returns the volume.
///
/// # Errors
/// It is no volume of variables, or has no room.
pub fn fill(volume: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = volume.to_vec();
    volume::prepare(&mut bytes).map_err(|error| anyhow!("the variable store cannot be used: {error:?}"))?;
    let offset = volume::store_offset(&bytes).map_err(|error| anyhow!("no variable store: {error:?}"))?;
    let mut store = Store::open(volume::region(&mut bytes), offset).map_err(|(_, error)| anyhow!("{error:?}"))?;
    let mut count = 0;
    let mut room = store.available().saturating_sub(Limits::DEFAULT.reserved);
    for number in 0.. {
        let name: Vec<u16> = format!("Fill{number:04}").encode_utf16().collect();
        let size = SIZES[number % SIZES.len()];
        let record = RecordHeader::SIZE + (name.len() + 1) * size_of::<u16>() + size;
        let Some(left) = room.checked_sub(record.next_multiple_of(ALIGNMENT)) else { break };
        room = left;
        match store.write(Key::new(VENDOR, &name), META, &vec![number as u8 | 1; size]) {
            Ok(()) => count += 1,
            Err(StoreError::Full) => break,
            Err(StoreError::Backend) => unreachable!("memory does not fail"),
        }
    }
    ensure!(count > 0, "the variable store has no room for a variable");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_has_little_more_than_the_reserve_left() {
        let mut empty = vec![0xff; volume::VOLUME_SIZE as usize];
        volume::format(&mut empty[..volume::REGION_SIZE]).unwrap();
        let mut full = fill(&empty).unwrap();
        let store = Store::open(volume::region(&mut full), volume::STORE_OFFSET).unwrap();
        let left = store.available() - Limits::DEFAULT.reserved;
        assert!(left < 2 * SIZES[3], "{left}");
        assert!(store.report().variables > 200 && store.report().damaged == 0);
        assert!(fill(&[0; 100]).is_err());
    }
}
