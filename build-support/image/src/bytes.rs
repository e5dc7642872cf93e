//! Little-endian writing and the two checksums that firmware volumes use.

/// A growing little-endian record.
#[derive(Default)]
pub(crate) struct Record(Vec<u8>);

impl Record {
    pub(crate) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// The value that makes the 8-bit sum of `data` and itself zero.
pub(crate) fn checksum8(data: &[u8]) -> u8 {
    data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

/// The value that makes the 16-bit sum of `data`, read as little-endian words, and itself zero. An odd last byte counts
/// as a word.
pub(crate) fn checksum16(data: &[u8]) -> u16 {
    data.chunks(2)
        .map(|word| u16::from_le_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
        .fold(0u16, u16::wrapping_add)
        .wrapping_neg()
}
