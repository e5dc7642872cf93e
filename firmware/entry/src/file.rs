//! The loaded file: its parts, and their end.

use core::ops::Range;
use core::slice;

use hw::paging::PAGE;

use crate::start::Start;

/// A part of the loaded file; `None` where the file has none, or its description is wrong.
pub fn part(start: &Start, offset: u64, size: u64) -> Option<&[u8]> {
    let (address, size) = place(start, offset, size)?;
    // SAFETY: within the loaded file, which nobody writes and which is freed only after the last look at it.
    Some(unsafe { slice::from_raw_parts(address as *const u8, size) })
}

/// The same, to be changed: nobody else looks at it at that time.
pub fn part_mut(start: &mut Start, offset: u64, size: u64) -> Option<&mut [u8]> {
    let (address, size) = place(start, offset, size)?;
    // SAFETY: within the loaded file, which is memory of the firmware's, and of which no other reference exists now.
    Some(unsafe { slice::from_raw_parts_mut(address as *mut u8, size) })
}

fn place(start: &Start, offset: u64, size: u64) -> Option<(u64, usize)> {
    let address = start.file.start.checked_add(offset)?;
    if size == 0 || address.checked_add(size)? > start.file.end {
        return None;
    }
    Some((address, size as usize))
}

/// Frees the memory of the loaded file, but for `kept`, which is a part of it.
pub fn release_all_but(start: &Start, kept: Option<&[u8]>) {
    let Range { start: first, end } = start.file;
    let kept = kept.map_or(end..end, |kept| {
        let address = kept.as_ptr() as u64;
        address..address + kept.len() as u64
    });
    release(first..kept.start);
    release(kept.end..end);
}

/// Gives the whole pages of a range back that the toolstack filled.
pub fn release(range: Range<u64>) {
    let first = range.start.next_multiple_of(PAGE);
    let pages = (range.end / PAGE).saturating_sub(first / PAGE);
    if pages != 0
        && let Err(status) = services::api::release_memory(first, pages)
    {
        log::warn!("{pages} pages of a loaded file stay in memory at {first:#x}: {status}");
    }
}
