//! EDK2's fault tolerant write: a volume's store is replaced as a whole by way of a spare copy and a journal that says how
//! far it got, so that a cut anywhere leaves the old store or the new one (`MdeModulePkg/Universal/FaultTolerantWriteDxe`;
//! the interface is in the Platform Initialization Specification 1.8, volume 5, §2).
//!
//! ```text
//! working block header, 32 bytes       write header, 40 bytes          record, 40 bytes, as many as the header says
//!  0 Signature       GUID               0 Flags            u8           0 Flags           u8
//! 16 Crc             u32                4 CallerId         GUID         8 Lba             u64  first block written
//! 20 Flags           u32               24 NumberOfWrites   u64         16 Offset          u64  in that block
//! 24 WriteQueueSize  u64               32 PrivateDataSize  u64         24 Length          u64
//!                                                                      32 RelativeOffset  i64  of the block, from the spare area
//!                                                                      40 private data
//! ```
//!
//! Flags are cleared bit by bit, as flash can. [`recover`] does at opening what EDK2 does at start; [`replace`] writes.

use core::ops::Range;

use uefi_raw::{Guid, guid};

use crate::backend::{BackendError, Medium};
use crate::format::ERASED;
use crate::volume::{self, BLOCK_SIZE};

/// Signature of the journal (`gEdkiiWorkingBlockSignatureGuid`).
const SIGNATURE: Guid = guid!("9e58292b-7c68-497d-a0ce-6500fd9f1b95");
/// Who writes (`gEfiCallerIdGuid` of EDK2's driver, which is what it notes when the variable driver reclaims).
const CALLER: Guid = guid!("fe5cea76-4f72-49e8-986f-2cd899dffe5d");

/// Bytes of the header.
pub const HEADER_SIZE: usize = 32;
const WRITE_SIZE: usize = 40;
const RECORD_SIZE: usize = 40;
/// Offset of the flags in the working block header, and the values of its first byte.
const STATE_OFFSET: usize = 20;
const STATE_VALID: u8 = 0xfe;
const STATE_INVALID: u8 = 0xfc;

/// Bits of a write header's flags that are cleared.
mod write {
    pub const ALLOCATED: u8 = 1 << 0;
    pub const RECORDS_ALLOCATED: u8 = 1 << 1;
    pub const COMPLETE: u8 = 1 << 2;
}

/// Bits of a record's flags that are cleared.
mod record {
    pub const BOOT_BLOCK: u8 = 1 << 0;
    pub const SPARE_COMPLETE: u8 = 1 << 1;
    pub const DESTINATION_COMPLETE: u8 = 1 << 2;
}

/// Where the areas are in a volume: store and event log in front, the journal, the spare area. EDK2's builds give the
/// event log and the journal a block each, and the spare area as much as all of the rest. The places do not depend on
/// any content: what a variable holds must not pass for a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Areas {
    /// Volume header and store.
    pub store: Range<usize>,
    /// The journal.
    pub working: Range<usize>,
    /// The spare area.
    pub spare: Range<usize>,
}

impl Areas {
    /// The areas of a volume of `size` bytes; `None` if it is too small or of no whole blocks.
    pub const fn of(size: usize) -> Option<Self> {
        let half = size / 2;
        if !size.is_multiple_of(2 * BLOCK_SIZE) || half < 3 * BLOCK_SIZE {
            return None;
        }
        let working = half - BLOCK_SIZE;
        Some(Self { store: 0..working - BLOCK_SIZE, working: working..half, spare: half..size })
    }
}

/// What [`recover`] found and did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recovery {
    /// Nothing was under way.
    Clean,
    /// A write was under way whose new content was complete in the spare area: it was completed.
    Completed,
    /// A write was under way whose new content was not complete: the old content stays.
    Abandoned,
    /// The journal was rewritten by EDK2 when it was cut: it was taken from the spare area.
    Restored,
    /// There is no valid journal, so nothing can be said to be under way: an empty one was made.
    Reset,
    /// The volume has no room for a journal; nothing was done.
    None,
}

/// The last write that the journal tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pending {
    /// Offset of the write header in the volume.
    header: usize,
    header_flags: u8,
    /// Offset of the first record that is not complete; of the last one if all are.
    record: usize,
    record_flags: u8,
    target: Option<Target>,
}

/// What a record says is to be copied, once it was found to be inside the store's part of the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Target {
    start: usize,
    size: usize,
}

/// State of the queue of writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Queue {
    /// All writes are complete, and there is nothing behind them. The offset in the volume for the next one.
    Idle(usize),
    Pending(Pending),
    /// It does not end, or what is behind it is not erased.
    Broken,
}

/// Finishes what a cut left undone, in the order in which EDK2 decides about it: `volume` is the memory of a whole volume,
/// and what changes in it is written to `medium` as well.
///
/// # Errors
/// The medium's.
pub fn recover(volume: &mut [u8], medium: &mut impl Medium) -> Result<Recovery, BackendError> {
    let Some(areas) = Areas::of(volume.len()) else { return Ok(Recovery::None) };
    let mut volume = Writer { volume, medium };
    let mut recovery = Recovery::Clean;
    if !is_valid(volume.at(&areas.working), &areas) {
        recovery = volume.restore_journal(&areas)?;
    }
    match queue(volume.volume, &areas) {
        Queue::Idle(_) => Ok(recovery),
        Queue::Broken => {
            volume.reset_journal(&areas)?;
            Ok(if recovery == Recovery::Clean { Recovery::Reset } else { recovery })
        }
        Queue::Pending(pending) => {
            let finished = volume.finish(&areas, &pending, recovery == Recovery::Clean)?;
            if !matches!(queue(volume.volume, &areas), Queue::Idle(_)) {
                // What is behind it is not erased, or is another write, which cannot be.
                volume.reset_journal(&areas)?;
            }
            Ok(if recovery == Recovery::Clean { finished } else { recovery })
        }
    }
}

/// Replaces volume header and store on the medium by what is in `volume`; at a cut anywhere the medium holds all of the
/// old or all of the new, once [`recover`] has seen it.
///
/// # Errors
/// The medium's. It then holds the old or the new content, and [`recover`] has to see it before the next write.
pub fn replace(volume: &mut [u8], medium: &mut impl Medium) -> Result<(), BackendError> {
    let areas = Areas::of(volume.len()).ok_or(BackendError)?;
    let mut volume = Writer { volume, medium };
    let header = match queue(volume.volume, &areas) {
        Queue::Idle(at) if at + WRITE_SIZE + RECORD_SIZE <= areas.working.end => at,
        _ => {
            volume.reset_journal(&areas)?;
            areas.working.start + HEADER_SIZE
        }
    };
    let record = header + WRITE_SIZE;
    // The flags come last, so that a header whose sizes are not there yet is not believed.
    volume.put(header + 1, &new_write()[1..])?;
    volume.put(header, &[!write::ALLOCATED])?;
    volume.put(header, &[!(write::ALLOCATED | write::RECORDS_ALLOCATED)])?;
    volume.put(record + 1, &new_record(&areas)[1..])?;
    volume.copy(areas.store.clone(), areas.spare.start)?;
    volume.put(record, &[!record::SPARE_COMPLETE])?;
    volume.persist(areas.store.clone())?;
    volume.put(record, &[!(record::SPARE_COMPLETE | record::DESTINATION_COMPLETE)])?;
    volume.put(header, &[!(write::ALLOCATED | write::RECORDS_ALLOCATED | write::COMPLETE)])?;
    volume.erase(areas.spare.start..areas.spare.start + areas.store.len())
}

/// Makes an empty journal after [`replace`] failed on the way: what the medium may hold half of is written there once more,
/// from the spare area, whatever the store in memory is by now.
///
/// # Errors
/// The medium's; it has to be tried again.
pub fn start_anew(volume: &mut [u8], medium: &mut impl Medium) -> Result<(), BackendError> {
    let areas = Areas::of(volume.len()).ok_or(BackendError)?;
    let pending = match queue(volume, &areas) {
        Queue::Pending(pending) if pending.can_complete() => Some(pending),
        _ => None,
    };
    let mut volume = Writer { volume, medium };
    if let Some((pending, target)) = pending.and_then(|pending| Some((pending, pending.target?))) {
        // Whether this byte is durable is what is not known.
        volume.persist(pending.record..pending.record + 1)?;
        let spare = areas.spare.start..areas.spare.start + target.size;
        volume.medium.write(target.start, volume.volume.get(spare).ok_or(BackendError)?)?;
    }
    volume.reset_journal(&areas)
}

/// How the journal of a volume stands, for tools: what [`recover`] would do, without doing it.
pub fn inspect(volume: &[u8]) -> Recovery {
    let Some(areas) = Areas::of(volume.len()) else { return Recovery::None };
    let part = |range: &Range<usize>| volume.get(range.clone()).unwrap_or_default();
    if !is_valid(part(&areas.working), &areas) {
        return if is_valid(part(&areas.spare), &areas) { Recovery::Restored } else { Recovery::Reset };
    }
    match queue(volume, &areas) {
        Queue::Idle(_) => Recovery::Clean,
        Queue::Broken => Recovery::Reset,
        Queue::Pending(pending) if pending.can_complete() => Recovery::Completed,
        Queue::Pending(_) => Recovery::Abandoned,
    }
}

impl Pending {
    /// Whether the new content is complete and was not yet copied to where it belongs.
    const fn can_complete(&self) -> bool {
        let flags = self.record_flags;
        flags & record::SPARE_COMPLETE == 0
            && flags & record::DESTINATION_COMPLETE != 0
            && flags & record::BOOT_BLOCK != 0
            && self.target.is_some()
    }
}

/// A volume in memory, and the medium that follows it.
struct Writer<'a, M> {
    volume: &'a mut [u8],
    medium: &'a mut M,
}

impl<M: Medium> Writer<'_, M> {
    fn at(&self, range: &Range<usize>) -> &[u8] {
        self.volume.get(range.clone()).unwrap_or_default()
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) -> Result<(), BackendError> {
        let end = offset.checked_add(bytes.len()).ok_or(BackendError)?;
        self.volume.get_mut(offset..end).ok_or(BackendError)?.copy_from_slice(bytes);
        self.persist(offset..end)
    }

    fn copy(&mut self, from: Range<usize>, to: usize) -> Result<(), BackendError> {
        let end = to + from.len();
        if from.end > self.volume.len() || end > self.volume.len() {
            return Err(BackendError);
        }
        self.volume.copy_within(from, to);
        self.persist(to..end)
    }

    fn erase(&mut self, range: Range<usize>) -> Result<(), BackendError> {
        self.volume.get_mut(range.clone()).ok_or(BackendError)?.fill(ERASED);
        self.persist(range)
    }

    fn persist(&mut self, range: Range<usize>) -> Result<(), BackendError> {
        let offset = range.start;
        self.medium.write(offset, self.volume.get(range).ok_or(BackendError)?)
    }

    /// Clears bits of a byte of flags.
    fn clear(&mut self, at: usize, flags: u8, bits: u8) -> Result<(), BackendError> {
        if flags & bits == 0 { Ok(()) } else { self.put(at, &[flags & !bits]) }
    }

    /// EDK2 rewrites its journal by way of the spare area; else there is none, and an empty one is made.
    fn restore_journal(&mut self, areas: &Areas) -> Result<Recovery, BackendError> {
        if !is_valid(self.at(&areas.spare), areas) {
            self.reset_journal(areas)?;
            return Ok(Recovery::Reset);
        }
        let length = areas.working.len();
        self.copy(areas.spare.start..areas.spare.start + length, areas.working.start)?;
        Ok(Recovery::Restored)
    }

    /// An empty journal. Until the last step there is no valid one, which means that nothing is under way.
    fn reset_journal(&mut self, areas: &Areas) -> Result<(), BackendError> {
        let start = areas.working.start;
        self.put(start + STATE_OFFSET, &[STATE_INVALID])?;
        let mut header = header(areas.working.len());
        header[STATE_OFFSET] = STATE_INVALID;
        self.put(start, &header)?;
        self.erase(start + HEADER_SIZE..areas.working.end)?;
        self.put(start + STATE_OFFSET, &[STATE_VALID])
    }

    /// Completes or abandons the write. A journal that was restored belongs to no write any more.
    fn finish(&mut self, areas: &Areas, pending: &Pending, trusted: bool) -> Result<Recovery, BackendError> {
        let mut recovery = Recovery::Abandoned;
        if let Some(target) = pending.target.filter(|_| trusted && pending.can_complete()) {
            self.copy(areas.spare.start..areas.spare.start + target.size, target.start)?;
            self.clear(pending.record, pending.record_flags, record::DESTINATION_COMPLETE)?;
            recovery = Recovery::Completed;
        } else if pending.record_flags & record::DESTINATION_COMPLETE == 0 {
            // Only the last note is missing.
            recovery = Recovery::Clean;
        }
        if pending.header_flags & write::RECORDS_ALLOCATED == 0 {
            self.clear(pending.header, pending.header_flags, write::COMPLETE)?;
        }
        if recovery == Recovery::Completed {
            self.erase(areas.spare.clone())?;
        }
        Ok(recovery)
    }
}

/// Whether `working` begins with the header that EDK2 wants to see: it compares all of it.
fn is_valid(working: &[u8], areas: &Areas) -> bool {
    working.first_chunk() == Some(&header(areas.working.len()))
}

/// The header of an empty journal of `length` bytes, itself included: `EFI_FAULT_TOLERANT_WORKING_BLOCK_HEADER`.
pub fn header(length: usize) -> [u8; HEADER_SIZE] {
    let mut header = [ERASED; HEADER_SIZE];
    header[..16].copy_from_slice(&SIGNATURE.to_bytes());
    header[24..].copy_from_slice(&(length.saturating_sub(HEADER_SIZE) as u64).to_le_bytes());
    // The sum is that of the header with sum and flags erased.
    let sum = crc32(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header[STATE_OFFSET] = STATE_VALID;
    header
}

fn new_write() -> [u8; WRITE_SIZE] {
    let mut header = [ERASED; WRITE_SIZE];
    header[4..20].copy_from_slice(&CALLER.to_bytes());
    header[24..32].copy_from_slice(&1u64.to_le_bytes());
    header[32..40].copy_from_slice(&0u64.to_le_bytes());
    header
}

/// EDK2's variable driver writes the store, which begins in the first block behind the volume header.
fn new_record(areas: &Areas) -> [u8; RECORD_SIZE] {
    let offset = volume::STORE_OFFSET;
    let mut record = [ERASED; RECORD_SIZE];
    record[8..16].copy_from_slice(&0u64.to_le_bytes());
    record[16..24].copy_from_slice(&(offset as u64).to_le_bytes());
    record[24..32].copy_from_slice(&((areas.store.len() - offset) as u64).to_le_bytes());
    record[32..40].copy_from_slice(&(areas.spare.start as i64).wrapping_neg().to_le_bytes());
    record
}

/// Walks over the completed writes.
fn queue(volume: &[u8], areas: &Areas) -> Queue {
    let end = areas.working.end;
    let mut at = areas.working.start + HEADER_SIZE;
    loop {
        let Some(header) = volume.get(at..end).and_then(|rest| rest.first_chunk::<WRITE_SIZE>()) else {
            // No room for another write: the journal has to be made anew, and nothing is under way.
            return Queue::Idle(end);
        };
        let flags = header[0];
        if flags == ERASED {
            let erased = volume.get(at..end).is_some_and(|rest| rest.iter().all(|&byte| byte == ERASED));
            return if erased { Queue::Idle(at) } else { Queue::Broken };
        }
        let records = number(header, 24);
        let record_size = number(header, 32).and_then(|private| private.checked_add(RECORD_SIZE));
        let size = records.zip(record_size).and_then(|(count, size)| count.checked_mul(size)?.checked_add(WRITE_SIZE));
        let next = size.and_then(|size| at.checked_add(size)).filter(|&next| next <= end);
        let (Some(next), Some(record_size)) = (next, record_size) else {
            // The header was cut: it has no records.
            let allocated = flags & (write::RECORDS_ALLOCATED | write::COMPLETE);
            let only_header = allocated == (write::RECORDS_ALLOCATED | write::COMPLETE);
            let pending = Pending { header: at, header_flags: flags, record: at, record_flags: ERASED, target: None };
            return if only_header { Queue::Pending(pending) } else { Queue::Broken };
        };
        if flags & write::COMPLETE != 0 {
            return pending(volume, areas, at, flags, next, record_size).map_or(Queue::Broken, Queue::Pending);
        }
        at = next;
    }
}

/// The write at `header`, whose records end at `end`.
fn pending(
    volume: &[u8],
    areas: &Areas,
    header: usize,
    header_flags: u8,
    end: usize,
    record_size: usize,
) -> Option<Pending> {
    let mut at = header + WRITE_SIZE;
    loop {
        let bytes = volume.get(at..end)?.first_chunk::<RECORD_SIZE>()?;
        let last = at + record_size >= end;
        if bytes[0] & record::DESTINATION_COMPLETE != 0 || last {
            let target = target(bytes, areas);
            return Some(Pending { header, header_flags, record: at, record_flags: bytes[0], target });
        }
        at += record_size;
    }
}

/// What the record wants to have written, if that is whole blocks of the store's part: nothing else of the volume is
/// written by way of the journal, and nothing outside of it is ours.
fn target(record: &[u8; RECORD_SIZE], areas: &Areas) -> Option<Target> {
    let start = number(record, 8)?.checked_mul(BLOCK_SIZE)?;
    let relative = i64::from_le_bytes(field(record, 32));
    if i64::try_from(start).ok()? - i64::try_from(areas.spare.start).ok()? != relative {
        return None;
    }
    let size = number(record, 16)?.checked_add(number(record, 24)?)?.checked_next_multiple_of(BLOCK_SIZE)?;
    let end = start.checked_add(size)?;
    (size != 0 && size <= areas.spare.len() && end <= areas.working.start).then_some(Target { start, size })
}

fn number(bytes: &[u8; 40], offset: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(field(bytes, offset))).ok()
}

fn field(bytes: &[u8; 40], offset: usize) -> [u8; 8] {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[offset..offset + 8]);
    value
}

/// CRC-32 as UEFI has it (reflected, polynomial 0x04C11DB7).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests;
