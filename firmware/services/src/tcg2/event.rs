//! What events have in them (TCG PC Client Platform Firmware Profile 1.05 §10.2).

use alloc::vec::Vec;

use uefi_raw::Guid;

/// Content of EV_SEPARATOR: firmware ends here, what the boot manager loads begins.
pub const SEPARATOR: [u8; 4] = [0; 4];
/// Content of EV_EFI_ACTION before a boot option is tried.
pub const CALLING_APPLICATION: &[u8] = b"Calling EFI Application from Boot Option";
/// Content of EV_EFI_ACTION when a boot option came back.
pub const RETURNING_FROM_APPLICATION: &[u8] = b"Returning from EFI Application from Boot Option";
/// Content of EV_EFI_ACTION when ExitBootServices is called.
pub const EXIT_BOOT_SERVICES: &[u8] = b"Exit Boot Services Invocation";
/// Content of EV_EFI_ACTION when it did not work.
pub const EXIT_BOOT_SERVICES_FAILED: &[u8] = b"Exit Boot Services Returned with Failure";
/// Content of EV_EFI_ACTION when it worked.
pub const EXIT_BOOT_SERVICES_SUCCEEDED: &[u8] = b"Exit Boot Services Returned with Success";

/// UEFI_VARIABLE_DATA without its data, which follows.
pub fn variable_head(vendor: &Guid, name: &str, data_length: usize) -> Vec<u8> {
    let mut head = vendor.to_bytes().to_vec();
    head.extend((name.encode_utf16().count() as u64).to_le_bytes());
    head.extend((data_length as u64).to_le_bytes());
    head.extend(utf16(name));
    head
}

/// A text in UTF-16.
pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// UEFI_IMAGE_LOAD_EVENT without the device path, which follows.
pub fn image_load_head(base: u64, size: u64, linked_for: u64, path_length: usize) -> [u8; 32] {
    words([base, size, linked_for, path_length as u64])
}

/// UEFI_PLATFORM_FIRMWARE_BLOB2. The description ends with a null, as tools expect.
pub fn firmware_blob(description: &str, base: u64, length: u64) -> Vec<u8> {
    let description = description.as_bytes().iter().copied().take(u8::MAX as usize - 1).chain([0]);
    let mut blob = alloc::vec![description.clone().count() as u8];
    blob.extend(description);
    blob.extend(words::<16>([base, length]));
    blob
}

/// UEFI_GPT_DATA of a GPT header and the partition entries behind it, of which those in use count.
///
/// `None` if the header says something about the entries that cannot be.
pub fn gpt(header: &[u8], entries: &[u8]) -> Option<Vec<u8>> {
    let header = header.get(..GPT_HEADER)?;
    let size = gpt_entries(header)?.entry_size;
    let in_use = || entries.chunks_exact(size).filter(|entry| entry.iter().take(16).any(|byte| *byte != 0));
    let mut event = header.to_vec();
    event.extend((in_use().count() as u64).to_le_bytes());
    in_use().for_each(|entry| event.extend(entry));
    Some(event)
}

/// Length of EFI_PARTITION_TABLE_HEADER without its reserved rest.
pub const GPT_HEADER: usize = 92;
/// Most bytes of partition entries that are measured: eight times what partitioning tools make room for.
const GPT_ENTRIES_MAX: usize = 128 << 10;

/// Where the entries of a GPT are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GptEntries {
    /// The block that they begin in.
    pub first_block: u64,
    /// Length of one.
    pub entry_size: usize,
    /// Length of all of them.
    pub length: usize,
}

/// Where a GPT header says that its entries are (UEFI 2.10 §5.3.2); `None` if it is none, or says what cannot be.
pub fn gpt_entries(header: &[u8]) -> Option<GptEntries> {
    let word = |at: usize| header.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    if !header.starts_with(b"EFI PART") {
        return None;
    }
    let first_block = u64::from_le_bytes(*header.get(72..)?.first_chunk()?);
    let (count, entry_size) = (word(80)? as usize, word(84)? as usize);
    let length = count.checked_mul(entry_size)?;
    let fits = entry_size >= 128 && entry_size.is_power_of_two() && length <= GPT_ENTRIES_MAX;
    fits.then_some(GptEntries { first_block, entry_size, length })
}

fn words<const N: usize>(words: impl IntoIterator<Item = u64>) -> [u8; N] {
    let mut bytes = [0; N];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use uefi_raw::guid;

    #[test]
    fn a_variable_has_its_lengths_in_characters_and_bytes() {
        let vendor = guid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
        let head = variable_head(&vendor, "db", 7);
        assert_eq!(head[..16], vendor.to_bytes());
        assert_eq!(head[16..], [2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, b'd', 0, b'b', 0]);
    }

    #[test]
    fn a_firmware_blob_has_its_description_place_and_length() {
        let blob = firmware_blob("CODE", 0x1000, 2);
        assert_eq!(blob, b"\x05CODE\0\0\x10\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
    }

    fn header(count: u32, size: u32) -> Vec<u8> {
        let mut header = alloc::vec![0; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[72] = 2;
        header[80..84].copy_from_slice(&count.to_le_bytes());
        header[84..88].copy_from_slice(&size.to_le_bytes());
        header
    }

    #[test]
    fn of_a_gpt_the_header_and_the_entries_in_use_count() {
        let header = header(3, 128);
        let mut entries = alloc::vec![0; 3 * 128];
        entries[128] = 5;
        let event = gpt(&header, &entries).unwrap();
        assert_eq!(event[..92], header[..92]);
        assert_eq!(event[92..100], 1u64.to_le_bytes());
        assert_eq!(event[100..], entries[128..256]);
    }

    #[test]
    fn a_gpt_that_cannot_be_is_refused() {
        for (count, size) in [(128, 64), (128, 200), (u32::MAX, 128), (u32::MAX, u32::MAX), (1, 0)] {
            assert_eq!(gpt_entries(&header(count, size)), None, "{count} {size}");
        }
        assert_eq!(gpt_entries(&[0; 512]), None);
        assert_eq!(gpt_entries(b"EFI PART"), None);
        assert!(gpt(&header(128, 128)[..91], &[]).is_none());
    }
}
