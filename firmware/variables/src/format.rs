//! Byte layout of an authenticated variable store, as EDK2 writes it (`MdeModulePkg/Include/Guid/VariableFormat.h`).
//!
//! ```text
//! store header, 28 bytes                record header, 60 bytes, aligned to 4
//!  0 Signature  GUID                     0 StartId         0x55AA
//! 16 Size       u32, header included     2 State           u8, bits are only ever cleared
//! 20 Format     0x5A                     3 Reserved        0
//! 21 State      0xFE                     4 Attributes      u32
//! 22 Reserved   u16                      8 MonotonicCount  u64
//! 24 Reserved1  u32                     16 TimeStamp       EFI_TIME
//!                                       32 PubKeyIndex     u32
//!                                       36 NameSize        u32, bytes, NUL included
//!                                       40 DataSize        u32
//!                                       44 VendorGuid      GUID
//!                                       60 name, data, 0xFF to the next multiple of 4
//! ```

use uefi_raw::{Guid, guid};

/// Signature of a store of authenticated variables (`gEfiAuthenticatedVariableGuid`).
pub const AUTHENTICATED_STORE_GUID: Guid = guid!("aaf32c78-947b-439a-a180-2e144ec37792");

/// What unwritten bytes hold.
pub const ERASED: u8 = 0xff;

/// Records begin at multiples of this.
pub const RECORD_ALIGNMENT: usize = 4;

/// Bits of a record's state; a transition clears them, as flash can.
pub mod state {
    /// Nothing of the record but perhaps some of its header is there.
    pub const ERASED: u8 = 0xff;
    /// The header is complete, so the sizes can be believed.
    pub const HEADER_VALID_ONLY: u8 = 0x7f;
    /// The record is complete.
    pub const ADDED: u8 = 0x3f;
    /// To be cleared (by AND) when a newer record is about to be written.
    pub const IN_DELETED_TRANSITION: u8 = 0xfe;
    /// To be cleared (by AND) when the record is void.
    pub const DELETED: u8 = 0xfd;
    /// Valid unless a complete newer record of the same name exists.
    pub const ADDED_IN_TRANSITION: u8 = ADDED & IN_DELETED_TRANSITION;
}

const START_ID: u16 = 0x55aa;
const STORE_FORMATTED: u8 = 0x5a;
const STORE_HEALTHY: u8 = 0xfe;

/// Rounds up to [`RECORD_ALIGNMENT`]; `None` on overflow.
pub const fn align(offset: usize) -> Option<usize> {
    offset.checked_next_multiple_of(RECORD_ALIGNMENT)
}

/// The header of a store, as far as it varies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreHeader {
    /// Bytes of the store, this header included.
    pub size: u32,
}

/// Why bytes are no store header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreHeaderError {
    /// Fewer bytes than a header has.
    Short,
    /// Another signature than [`AUTHENTICATED_STORE_GUID`].
    Signature,
    /// Not marked as formatted and healthy.
    State,
    /// Too small for its own header.
    Size,
}

impl StoreHeader {
    /// Encoded size.
    pub const SIZE: usize = 28;

    /// Reads and checks a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreHeaderError> {
        let bytes = bytes.first_chunk::<{ Self::SIZE }>().ok_or(StoreHeaderError::Short)?;
        if field(bytes, 0) != AUTHENTICATED_STORE_GUID.to_bytes() {
            return Err(StoreHeaderError::Signature);
        }
        if field(bytes, 20) != [STORE_FORMATTED, STORE_HEALTHY] {
            return Err(StoreHeaderError::State);
        }
        let size = u32::from_le_bytes(field(bytes, 16));
        if (size as usize) < Self::SIZE { Err(StoreHeaderError::Size) } else { Ok(Self { size }) }
    }

    /// Writes the header.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        put(&mut bytes, 0, AUTHENTICATED_STORE_GUID.to_bytes());
        put(&mut bytes, 16, self.size.to_le_bytes());
        put(&mut bytes, 20, [STORE_FORMATTED, STORE_HEALTHY]);
        bytes
    }
}

/// The header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// See [`state`].
    pub state: u8,
    /// `VariableAttributes` as stored.
    pub attributes: u32,
    /// Unused since counter-based authentication went away; kept as found.
    pub monotonic_count: u64,
    /// Time stamp of the last authenticated write, as the bytes of an EFI_TIME; else zeros.
    pub time_stamp: [u8; 16],
    /// Unused, kept as found.
    pub public_key_index: u32,
    /// Bytes of the name, NUL included.
    pub name_size: u32,
    /// Bytes of the data.
    pub data_size: u32,
    /// Vendor.
    pub vendor: Guid,
}

impl RecordHeader {
    /// Encoded size.
    pub const SIZE: usize = 60;
    /// Offset of the state.
    pub const STATE_OFFSET: usize = 2;

    /// Reads the header at the start of `bytes`; `None` if there is none (too short, or no start marker).
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<{ Self::SIZE }>()?;
        (u16::from_le_bytes(field(bytes, 0)) == START_ID).then(|| Self {
            state: bytes[Self::STATE_OFFSET],
            attributes: u32::from_le_bytes(field(bytes, 4)),
            monotonic_count: u64::from_le_bytes(field(bytes, 8)),
            time_stamp: field(bytes, 16),
            public_key_index: u32::from_le_bytes(field(bytes, 32)),
            name_size: u32::from_le_bytes(field(bytes, 36)),
            data_size: u32::from_le_bytes(field(bytes, 40)),
            vendor: Guid::from_bytes(field(bytes, 44)),
        })
    }

    /// Writes the header.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        put(&mut bytes, 0, START_ID.to_le_bytes());
        bytes[Self::STATE_OFFSET] = self.state;
        put(&mut bytes, 4, self.attributes.to_le_bytes());
        put(&mut bytes, 8, self.monotonic_count.to_le_bytes());
        put(&mut bytes, 16, self.time_stamp);
        put(&mut bytes, 32, self.public_key_index.to_le_bytes());
        put(&mut bytes, 36, self.name_size.to_le_bytes());
        put(&mut bytes, 40, self.data_size.to_le_bytes());
        put(&mut bytes, 44, self.vendor.to_bytes());
        bytes
    }

    /// Whether the header itself was never completed; its sizes then mean nothing and the record ends with it.
    pub fn is_unfinished(&self) -> bool {
        self.state == state::ERASED || [self.attributes, self.name_size, self.data_size].contains(&u32::MAX)
    }

    /// Whether the state is one of a variable that can be read.
    pub fn is_live(&self) -> bool {
        matches!(self.state, state::ADDED | state::ADDED_IN_TRANSITION)
    }

    /// Bytes of header, name and data, without padding.
    pub fn record_size(&self) -> Option<usize> {
        let name = usize::try_from(self.name_size).ok()?;
        let data = usize::try_from(self.data_size).ok()?;
        Self::SIZE.checked_add(name)?.checked_add(data)
    }
}

/// The `N` bytes of `bytes` at `offset`; both constants of this file.
fn field<const N: usize, const S: usize>(bytes: &[u8; S], offset: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[offset..offset + N]);
    value
}

fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_header_is_byte_for_byte_that_of_edk2() {
        let expected = [
            0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92, 0xb8, 0xff,
            0x03, 0x00, 0x5a, 0xfe, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(StoreHeader { size: 0x3_ffb8 }.encode(), expected);
        assert_eq!(StoreHeader::decode(&expected), Ok(StoreHeader { size: 0x3_ffb8 }));
    }

    #[test]
    fn a_record_header_round_trips() {
        let header = RecordHeader {
            state: state::ADDED,
            attributes: 0x27,
            monotonic_count: 0x0102_0304_0506_0708,
            time_stamp: core::array::from_fn(|index| index as u8),
            public_key_index: 9,
            name_size: 14,
            data_size: 4,
            vendor: guid!("d9bee56e-75dc-49d9-b4d7-b534210f637a"),
        };
        let bytes = header.encode();
        assert_eq!(bytes[..8], [0xaa, 0x55, 0x3f, 0, 0x27, 0, 0, 0]);
        assert_eq!(bytes[44..48], [0x6e, 0xe5, 0xbe, 0xd9]);
        assert_eq!(RecordHeader::decode(&bytes), Some(header));
    }
}
