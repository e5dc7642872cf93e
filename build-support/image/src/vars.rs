//! The empty variable volume, byte for byte as EDK2 makes it, so that stores and tools of either serve the other.
//!
//! From front to back: the volume header, the header of the authenticated variable store, erased flash, an erased event
//! log, the header of the fault-tolerant write journal, and an erased spare area. The formats are EDK2's own
//! (`MdeModulePkg/Include/Guid/VariableFormat.h`, `SystemNvDataGuid.h`); the Platform Initialization Specification
//! defines only the volume header.

use crate::fv::{self, volume_header};
use crate::layout::VarsLayout;
use uefi_raw::firmware_storage::FirmwareVolumeAttributes;
use variables::format::{ERASED, StoreHeader};
use variables::journal;
use variables::volume::NV_DATA_GUID;

/// The volume's bytes, [`VarsLayout::total`] of them.
pub fn empty(layout: &VarsLayout) -> Vec<u8> {
    let mut out = vec![ERASED; layout.total() as usize];
    // A layout that was checked has room: every part is a page or more.
    let store = StoreHeader { size: (layout.store - fv::HEADER_LENGTH as u64) as u32 };
    put(&mut out, 0, &volume(layout));
    put(&mut out, fv::HEADER_LENGTH as u64, &store.encode());
    put(&mut out, layout.working_offset(), &journal::header(layout.ftw_working as usize));
    out
}

fn volume(layout: &VarsLayout) -> Vec<u8> {
    volume_header(NV_DATA_GUID, layout.total(), fv::ATTRIBUTES | FirmwareVolumeAttributes::ALIGNMENT_16, 0)
}

fn put(out: &mut [u8], offset: u64, bytes: &[u8]) {
    let start = offset as usize;
    out[start..start + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use sha2::{Digest as _, Sha256};

    /// SHA-256 of `/usr/share/OVMF/OVMF_VARS_4M.fd` in Debian's package ovmf 2025.02-8+deb13u1.
    const DEBIAN_OVMF_VARS_4M: &str = "5d2ac383371b408398accee7ec27c8c09ea5b74a0de0ceea6513388b15be5d1e";

    #[test]
    fn our_store_is_byte_for_byte_that_of_a_4_mib_ovmf() {
        let layout = Layout::parse(include_str!("../../layout.toml")).unwrap();
        assert_eq!(hex::encode(Sha256::digest(empty(&layout.vars))), DEBIAN_OVMF_VARS_4M);
    }

    #[test]
    fn a_store_of_another_size_is_described_by_its_headers() {
        let layout = VarsLayout { store: 0x2000, event_log: 0x1000, ftw_working: 0x2000, ftw_spare: 0x5000 };
        let bytes = empty(&layout);
        assert_eq!(bytes.len(), 0xa000);
        assert_eq!(bytes[32..40], 0xa000u64.to_le_bytes());
        assert_eq!(bytes[72 + 16..72 + 20], (0x2000u32 - 72).to_le_bytes());
        assert_eq!(bytes[0x3000 + 24..0x3000 + 32], (0x2000u64 - 32).to_le_bytes());
        assert!(bytes[0x5000..].iter().all(|byte| *byte == 0xff));
    }
}
