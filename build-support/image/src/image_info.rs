//! The descriptor inside the core that tells it where the parts of its image are.
//!
//! The core reserves 64 bytes under the symbol `image_info` and starts them with the magic; the rest is filled in here,
//! differently for each image the core goes into.

use crate::bytes::Record;
use serde::Serialize;

/// First bytes of the descriptor, already there in the core.
pub const MAGIC: [u8; 8] = *b"OVMFXEN\0";
/// Version of the descriptor that this crate writes.
pub const VERSION: u32 = 1;
/// Size of the descriptor in bytes.
pub const LENGTH: usize = 64;

/// What the core learns about its image. Offsets count from the first byte of the image, sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// None defined yet.
    pub flags: u32,
    /// Size of the image.
    pub fd_size: u64,
    /// The flattened core.
    pub core_offset: u64,
    /// The variable volume; zero when the image has none.
    pub vars_offset: u64,
    /// Size of the variable volume; zero when the image has none.
    pub vars_size: u64,
    /// The code volume.
    pub code_offset: u64,
    /// Size of the code volume.
    pub code_size: u64,
}

impl ImageInfo {
    /// Reads a descriptor back; `None` if the bytes are none, or one of another version.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        (bytes.starts_with(&MAGIC) && word(8) == VERSION).then(|| Self {
            flags: word(12),
            fd_size: long(16),
            core_offset: long(24),
            vars_offset: long(32),
            vars_size: long(40),
            code_offset: long(48),
            code_size: long(56),
        })
    }

    /// Whether it can be that of an image of `size` bytes: regions inside, the code at the end.
    pub fn is_plausible(&self, size: u64) -> bool {
        let end = |offset: u64, size: u64| offset.checked_add(size);
        self.fd_size == size
            && size < 1 << 32
            && end(self.code_offset, self.code_size) == Some(size)
            && end(self.vars_offset, self.vars_size).is_some_and(|end| end <= self.code_offset)
            && (self.code_offset..size).contains(&self.core_offset)
    }

    /// The size of the volume that begins at `offset`, if one does.
    pub fn volume_at(&self, offset: u64) -> Option<u64> {
        match offset {
            _ if offset == self.code_offset => Some(self.code_size),
            _ if offset == self.vars_offset && self.vars_size != 0 => Some(self.vars_size),
            _ => None,
        }
    }

    /// The descriptor's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        Record::default()
            .bytes(&MAGIC)
            .u32(VERSION)
            .u32(self.flags)
            .u64(self.fd_size)
            .u64(self.core_offset)
            .u64(self.vars_offset)
            .u64(self.vars_size)
            .u64(self.code_offset)
            .u64(self.code_size)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_core_reads_them() {
        let info = ImageInfo {
            flags: 2,
            fd_size: 3,
            core_offset: 4,
            vars_offset: 5,
            vars_size: 6,
            code_offset: 7,
            code_size: 8,
        };
        let bytes = info.to_bytes();
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(&bytes[..8], b"OVMFXEN\0");
        assert_eq!((bytes[8], bytes[12]), (1, 2));
        assert_eq!(ImageInfo::from_bytes(&bytes), Some(info));
        for (field, offset) in (16..64).step_by(8).enumerate() {
            assert_eq!(u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap()), 3 + field as u64);
        }
    }
}
