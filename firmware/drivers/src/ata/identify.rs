//! What a device says about itself (ACS-3 §7.12, §7.13), checked.

use alloc::string::String;

use super::command::{Error, Identity, Way};

/// Sector numbers of 48-bit commands end here.
const WIDE_END: u64 = 1 << 48;
/// Sector numbers of 28-bit commands end here.
const NARROW_END: u64 = 1 << 28;
/// Largest sector that is believed.
const SECTOR_MAX: u32 = 64 << 10;

/// A disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// Its name for people.
    pub model: String,
    /// Number of sectors.
    pub sectors: u64,
    /// Bytes in a sector.
    pub sector_size: u32,
    /// Sectors in a physical one.
    pub sectors_per_physical: u32,
    /// Whether it has the 48-bit commands.
    pub wide: bool,
    /// How it moves data.
    pub way: Way,
    /// Whether it has FLUSH CACHE EXT.
    pub flush_wide: bool,
    /// Whether it has FLUSH CACHE.
    pub flush: bool,
}

/// A CD or DVD drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CdDrive {
    /// Its name for people.
    pub model: String,
    /// How it moves data.
    pub way: Way,
}

struct Words<'a>(&'a Identity);

impl Words<'_> {
    fn at(&self, word: usize) -> u16 {
        u16::from_le_bytes([self.0[word * 2], self.0[word * 2 + 1]])
    }

    fn bit(&self, word: usize, bit: u32) -> bool {
        self.at(word) >> bit & 1 != 0
    }

    /// Several words as one number, the lowest first.
    fn number(&self, word: usize, count: usize) -> u64 {
        (0..count).rev().fold(0, |number, index| number << 16 | u64::from(self.at(word + index)))
    }

    /// Whether a word says of itself that it is valid: bit 15 is clear and bit 14 is set.
    fn valid(&self, word: usize) -> bool {
        self.at(word) >> 14 == 0b01
    }

    /// Words 27 to 46 hold the model, two characters each, the first in the upper byte.
    fn model(&self) -> String {
        let characters = (27..47).flat_map(|word| self.at(word).to_be_bytes());
        let printable = |byte: u8| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' };
        let model: String = characters.take_while(|&byte| byte != 0).map(printable).collect();
        model.trim().into()
    }

    /// The last word may hold a mark, and then a byte that makes the sum of all bytes zero.
    fn intact(&self) -> bool {
        const MARK: u8 = 0xA5;
        let sum = self.0.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        self.0[510] != MARK || sum == 0
    }

    fn check(&self) -> Result<(), Error> {
        let first = self.0[0];
        if self.0.iter().all(|&byte| byte == first) || !self.intact() {
            return Err(Error::Nonsense("identity"));
        }
        Ok(())
    }

    fn way(&self) -> Way {
        if self.bit(49, 8) { Way::Dma } else { Way::Pio }
    }
}

/// A disk, as IDENTIFY DEVICE describes it.
pub fn disk(identity: &Identity) -> Result<Disk, Error> {
    let words = Words(identity);
    words.check()?;
    // Bit 15 of word 0 is clear for an ATA device; bit 9 of word 49 says that it counts sectors, not cylinders.
    if words.bit(0, 15) || !words.bit(49, 9) {
        return Err(Error::Nonsense("kind"));
    }
    let features = words.valid(83);
    let wide = features && words.bit(83, 10);
    let sectors = match words.number(100, 4) {
        sectors if wide && sectors != 0 => sectors,
        _ => words.number(60, 2),
    };
    if sectors == 0 || sectors > if wide { WIDE_END } else { NARROW_END } {
        return Err(Error::Nonsense("size"));
    }
    let described = words.valid(106);
    let sector_size = match described && words.bit(106, 12) {
        true => u32::try_from(words.number(117, 2) * 2).unwrap_or(u32::MAX),
        false => 512,
    };
    if !sector_size.is_power_of_two() || !(512..=SECTOR_MAX).contains(&sector_size) {
        return Err(Error::Nonsense("sector size"));
    }
    let exponent = if described && words.bit(106, 13) { u32::from(words.at(106) & 0xF) } else { 0 };
    Ok(Disk {
        model: words.model(),
        sectors,
        sector_size,
        sectors_per_physical: 1 << exponent,
        wide,
        way: words.way(),
        flush_wide: features && words.bit(83, 13),
        flush: features && words.bit(83, 12),
    })
}

/// A CD drive, as IDENTIFY PACKET DEVICE describes it; `None` for another packet device, or one whose packets are not of 12 bytes.
pub fn cd_drive(identity: &Identity) -> Result<Option<CdDrive>, Error> {
    const PACKET: u16 = 0b10;
    const CD: u16 = 5;
    let words = Words(identity);
    words.check()?;
    let general = words.at(0);
    if general >> 14 != PACKET {
        return Err(Error::Nonsense("kind"));
    }
    let usable = general >> 8 & 0x1F == CD && general & 0b11 == 0;
    Ok(usable.then(|| CdDrive { model: words.model(), way: words.way() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ata::testing::disk::{cd_identity, disk_identity};

    fn set(identity: &mut Identity, word: usize, value: u16) {
        identity[word * 2..word * 2 + 2].copy_from_slice(&value.to_le_bytes());
    }

    #[test]
    fn a_disk_is_as_it_says() {
        let found = disk(&disk_identity(1 << 33)).unwrap();
        assert_eq!((found.sectors, found.sector_size, found.wide, found.way), (1 << 33, 512, true, Way::Dma));
        assert_eq!(found.model, "FAKE HARDDISK");
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for sectors in [0, (1 << 48) + 1, u64::MAX] {
            assert_eq!(disk(&disk_identity(sectors)), Err(Error::Nonsense("size")), "{sectors}");
        }
        for words in [1u32, 255, 384, 1 << 20, u32::MAX] {
            let mut identity = disk_identity(1000);
            set(&mut identity, 106, 0x5000);
            set(&mut identity, 117, words as u16);
            set(&mut identity, 118, (words >> 16) as u16);
            assert_eq!(disk(&identity), Err(Error::Nonsense("sector size")), "{words}");
        }
    }

    #[test]
    fn large_logical_sectors_are_believed() {
        let mut identity = disk_identity(1000);
        set(&mut identity, 106, 0x5000);
        set(&mut identity, 117, 2048);
        assert_eq!(disk(&identity).unwrap().sector_size, 4096);
    }

    #[test]
    fn garbage_is_refused() {
        assert!(disk(&[0; 512]).is_err() && disk(&[0xFF; 512]).is_err() && cd_drive(&[0x5A; 512]).is_err());
        let mut identity = disk_identity(1000);
        set(&mut identity, 255, 0x00A5);
        assert_eq!(disk(&identity), Err(Error::Nonsense("identity")), "wrong checksum");
        assert_eq!(disk(&cd_identity()), Err(Error::Nonsense("kind")));
        assert_eq!(cd_drive(&disk_identity(1000)), Err(Error::Nonsense("kind")));
    }

    #[test]
    fn a_packet_device_that_is_no_cd_drive_is_left_alone() {
        let mut identity = cd_identity();
        assert!(cd_drive(&identity).unwrap().is_some());
        set(&mut identity, 0, 0x8180);
        assert_eq!(cd_drive(&identity), Ok(None));
    }

    #[test]
    fn a_device_without_48_bit_commands_is_used_with_28() {
        let mut identity = disk_identity(1 << 27);
        set(&mut identity, 83, 0x5000);
        let found = disk(&identity).unwrap();
        assert_eq!((found.sectors, found.wide, found.flush_wide, found.flush), (1 << 27, false, false, true));
    }
}
