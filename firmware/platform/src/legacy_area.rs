//! The BIOS area below 1 MiB, where a PC's firmware leaves the anchors of its tables, on boundaries of 16 bytes: the ACPI root
//! pointer (ACPI 6.5 §5.2.5.1), SMBIOS entry points (SMBIOS 3.7 §5.2). hvmloader leaves both there.

use core::ops::Range;

use crate::PhysicalMemory;

const AREA: Range<u64> = 0xE_0000..0x10_0000;
const STEP: usize = 16;
/// Bytes read at a time.
const CHUNK: usize = 4096;

/// Calls `found` with the address of everything in the area that begins with `anchor`, in order, until it gives a value.
pub fn find<T>(memory: &dyn PhysicalMemory, anchor: &[u8], mut found: impl FnMut(u64) -> Option<T>) -> Option<T> {
    let mut chunk = [0; CHUNK];
    for base in AREA.step_by(CHUNK) {
        if !memory.read(base, &mut chunk) {
            continue;
        }
        let anchors = chunk.chunks(STEP).enumerate().filter(|(_, bytes)| bytes.starts_with(anchor));
        if let Some(value) = anchors.map(|(index, _)| base + (index * STEP) as u64).find_map(&mut found) {
            return Some(value);
        }
    }
    None
}
