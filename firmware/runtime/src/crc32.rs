//! CRC-32 of UEFI's tables (UEFI 2.10 §4.2), bit by bit: a few hundred bytes, a few times.

/// The polynomial 0x04C11DB7, bits reversed.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// Checksum of the bytes.
pub fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    !bytes.into_iter().fold(u32::MAX, |crc, byte| (0..u8::BITS).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

const fn step(crc: u32) -> u32 {
    if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ POLYNOMIAL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_algorithm_is_met() {
        assert_eq!(crc32(*b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32([]), 0);
    }
}
