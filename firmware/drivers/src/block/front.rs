//! The data path of a connected disk.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use hw::hypervisor::{DomainId, EventPort};
use hw::shared::{PAGE_SIZE, SharedPages};
use services::block::{BlockError, Geometry};
use xen_abi::{
    BLKIF_MAX_SEGMENTS_PER_REQUEST, BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_INDIRECT, BLKIF_OP_READ, BLKIF_OP_WRITE,
    BLKIF_OP_WRITE_BARRIER, BLKIF_RSP_EOPNOTSUPP, BLKIF_RSP_OKAY,
};

use super::facts::{Facts, Flush, SECTOR};
use super::pool::Pool;
use super::ring::{BadIndex, FrontRing, RequestHead, Response, Segment};
use super::{DataPath, Options};
use crate::domain::{Domain, SECOND};
use crate::grants::{Access, GrantError, GrantRef, GrantTable};

/// A backend that answers nothing for so long is given up.
const TIMEOUT: u64 = 30 * SECOND;
/// After so long the wait is mentioned.
const PATIENCE: u64 = 5 * SECOND;
/// Most requests in flight.
const REQUESTS_MAX: usize = 64;
/// Most segments of a request, so that its pages fit in a slot.
pub(super) const SEGMENTS_MAX: usize = 256;
const DIRECT_SEGMENTS: usize = BLKIF_MAX_SEGMENTS_PER_REQUEST as usize;
/// Most of the caller's pages granted at once.
const REFERENCES_MAX: usize = 1024;
/// Looks at the ring between two looks at the clock.
const SPINS: u32 = 64;

/// Why a disk is not used any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The backend did not answer.
    Silent,
    /// It answered a request that was not open.
    UnknownId(u64),
    /// It answered with another operation than was asked for.
    WrongOperation(u8),
    /// It wrote an index that cannot be.
    BadIndex,
    /// The connection has been closed.
    Closed,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => write!(f, "the backend did not answer for {} s", TIMEOUT / SECOND),
            Self::UnknownId(id) => write!(f, "the backend answered request {id:#x}, which is not open"),
            Self::WrongOperation(operation) => write!(f, "the backend answered with operation {operation}"),
            Self::BadIndex => f.write_str("the backend wrote an impossible ring index"),
            Self::Closed => f.write_str("the connection is closed"),
        }
    }
}

impl From<BadIndex> for Death {
    fn from(BadIndex: BadIndex) -> Self {
        Self::BadIndex
    }
}

/// Read or write, with the caller's memory.
pub(super) enum Buffer<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
}

impl Buffer<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Read(into) => into.len(),
            Self::Write(from) => from.len(),
        }
    }

    /// Address of byte `offset`.
    fn at(&mut self, offset: usize) -> *const u8 {
        match self {
            // Through the mutable reference, as the backend will write there.
            Self::Read(into) => into.as_mut_ptr().wrapping_add(offset),
            Self::Write(from) => from.as_ptr().wrapping_add(offset),
        }
    }

    fn operation(&self) -> u8 {
        match self {
            Self::Read(_) => BLKIF_OP_READ as u8,
            Self::Write(_) => BLKIF_OP_WRITE as u8,
        }
    }
}

/// A piece of a transfer: one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Chunk {
    offset: usize,
    length: usize,
    /// Whether the caller's own pages are granted.
    direct: bool,
}

impl Chunk {
    /// Pages it touches: it begins with a page, or fits in one of ours.
    fn pages(&self) -> usize {
        self.length.div_ceil(PAGE_SIZE)
    }
}

/// A request that may be in flight.
#[derive(Debug)]
struct Slot {
    /// The id in the request; other ids for this slot are not ours. Changes with each use.
    id: u64,
    busy: bool,
    operation: u8,
    indirect: bool,
    direct: bool,
    offset: usize,
    length: usize,
    /// Pages of the pool, or grants of the caller's pages.
    pages: Vec<u32>,
    /// The page of segments for indirect requests, granted for good.
    segments: Option<(SharedPages, GrantRef)>,
}

/// What a connected disk is made of.
pub(super) struct Parts {
    pub(super) domain: Domain,
    pub(super) grants: Rc<GrantTable>,
    pub(super) peer: DomainId,
    pub(super) number: u32,
    pub(super) title: String,
    pub(super) ring: FrontRing,
    pub(super) port: EventPort,
    pub(super) facts: Facts,
}

/// A connected disk.
pub(super) struct Front {
    parts: Parts,
    path: DataPath,
    /// Most segments of a request.
    segments_max: usize,
    spin_ns: u64,
    timeout_ns: u64,
    slots: Vec<Slot>,
    free_slots: Vec<u16>,
    in_flight: usize,
    uses: u64,
    pool: Pool,
    /// References for the caller's pages, reserved once and then used again and again.
    references: Vec<GrantRef>,
    references_made: usize,
    /// Whether something was written since the last flush.
    dirty: bool,
    death: Option<Death>,
}

impl Front {
    /// A disk whose backend is connected.
    pub(super) fn new(parts: Parts, options: &Options) -> Self {
        let path = options.path.unwrap_or(if parts.facts.persistent { DataPath::Copy } else { DataPath::Direct });
        let indirect = parts.facts.indirect_segments.min(options.segments).min(SEGMENTS_MAX);
        let requests = (parts.ring.entries() as usize).min(REQUESTS_MAX);
        let segments_max = indirect.max(DIRECT_SEGMENTS);
        let slot = |_| Slot {
            id: 0,
            busy: false,
            operation: 0,
            indirect: false,
            direct: false,
            offset: 0,
            length: 0,
            pages: Vec::with_capacity(segments_max),
            segments: None,
        };
        Self {
            path,
            segments_max,
            spin_ns: options.spin_ns,
            timeout_ns: TIMEOUT,
            slots: (0..requests).map(slot).collect(),
            free_slots: (0..requests as u16).rev().collect(),
            in_flight: 0,
            uses: 0,
            pool: Pool::new(options.pool_pages),
            references: Vec::new(),
            references_made: 0,
            dirty: false,
            death: None,
            parts,
        }
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.parts.facts.geometry
    }

    pub(super) fn facts(&self) -> Facts {
        self.parts.facts
    }

    pub(super) fn path(&self) -> DataPath {
        self.path
    }

    /// Reads or writes blocks from `lba` on.
    pub(super) fn transfer(&mut self, lba: u64, mut buffer: Buffer<'_>) -> Result<(), BlockError> {
        self.check_alive()?;
        let first_sector = self.first_sector(lba, buffer.len())?;
        if matches!(buffer, Buffer::Write(_)) {
            if self.geometry().read_only {
                return Err(BlockError::WriteProtected);
            }
            self.dirty = true;
        }
        let operation = buffer.operation();
        let (mut offset, mut good) = (0, true);
        loop {
            while good && let Some(chunk) = self.next_chunk(offset, &mut buffer) {
                let sector = first_sector + (offset / SECTOR as usize) as u64;
                if let Err(error) = self.submit(chunk, sector, operation, &mut buffer) {
                    log::error!("{}: {error}", self.parts.title);
                    good = false;
                }
                offset += chunk.length;
                if operation == WRITE {
                    // The backend begins while the next part is copied.
                    self.publish();
                }
            }
            self.publish();
            if self.in_flight == 0 {
                break;
            }
            self.wait().map_err(|death| self.die(death))?;
            while let Some(response) = self.next_response()? {
                let status = self.complete(response, &mut buffer).map_err(|death| self.die(death))?;
                if status != OKAY && good {
                    let (what, end) = (if operation == READ { "read" } else { "write" }, buffer.len() as u64 / SECTOR);
                    let title = &self.parts.title;
                    log::error!("{title}: {what} of {end} sectors at {first_sector} failed: backend status {status}");
                    good = false;
                }
            }
        }
        if good && offset < buffer.len() {
            log::error!("{}: no memory for disk buffers", self.parts.title);
            good = false;
        }
        if good { Ok(()) } else { Err(BlockError::Device) }
    }

    /// Makes completed writes durable.
    pub(super) fn flush(&mut self) -> Result<(), BlockError> {
        self.check_alive()?;
        let operation = match self.parts.facts.flush {
            Flush::Cache => BLKIF_OP_FLUSH_DISKCACHE as u8,
            Flush::Barrier => BLKIF_OP_WRITE_BARRIER as u8,
            Flush::None => return Ok(()),
        };
        if !self.dirty {
            return Ok(());
        }
        // Nothing is in flight between two calls, so there is a slot and room.
        let Some(index) = self.free_slots.pop() else { return Err(BlockError::Device) };
        let id = self.occupy(index, operation, Chunk { offset: 0, length: 0, direct: false });
        let head = RequestHead { operation, id, sector: 0, handle: self.parts.number as u16 };
        self.parts.ring.put(head, [].into_iter());
        self.publish();
        let status = loop {
            self.wait().map_err(|death| self.die(death))?;
            if let Some(response) = self.next_response()? {
                break self.complete(response, &mut Buffer::Write(&[])).map_err(|death| self.die(death))?;
            }
        };
        match status {
            OKAY => {
                self.dirty = false;
                Ok(())
            }
            NOT_SUPPORTED => {
                log::warn!("{}: the backend offers to flush but cannot", self.parts.title);
                self.parts.facts.flush = Flush::None;
                Ok(())
            }
            status => {
                log::error!("{}: flush failed: backend status {status}", self.parts.title);
                Err(BlockError::Device)
            }
        }
    }

    /// Flushes what was written, in at most `timeout_ns`, and refuses everything from then on. Does not allocate.
    pub(super) fn quiesce(&mut self, timeout_ns: u64) {
        self.timeout_ns = timeout_ns;
        if self.death.is_none() {
            // A failure has been logged; there is nobody left to tell.
            let _ = self.flush();
            self.death = Some(Death::Closed);
        }
    }

    /// Takes all grants back and frees all pages that the backend no longer has mapped. Only when it is closed.
    pub(super) fn free(mut self, ring_grants: &[GrantRef]) {
        let Parts { domain, grants, ring, .. } = self.parts;
        self.pool.close(domain, &grants);
        for slot in self.slots {
            if let Some((page, grant)) = slot.segments
                && grants.end(grant).is_ok()
            {
                domain.frames.free(page);
            }
            if slot.busy && slot.direct {
                for reference in slot.pages {
                    // Leaked and counted where the backend holds on to it.
                    let _ = grants.end(GrantRef(reference));
                }
            }
        }
        for reference in self.references {
            grants.release(reference);
        }
        let in_use = ring_grants.iter().filter(|&&grant| grants.end(grant).is_err()).count();
        if in_use == 0 {
            domain.frames.free(ring.into_pages());
        }
    }

    fn check_alive(&self) -> Result<(), BlockError> {
        match self.death {
            None => Ok(()),
            Some(_) => Err(BlockError::Device),
        }
    }

    /// The first sector of a transfer of `length` bytes from `lba` on, if it is on the disk.
    fn first_sector(&self, lba: u64, length: usize) -> Result<u64, BlockError> {
        let Geometry { block_size, blocks, .. } = self.geometry();
        let count = length as u64 / u64::from(block_size);
        let whole = (length as u64).is_multiple_of(u64::from(block_size));
        if !whole || lba.checked_add(count).is_none_or(|end| end > blocks) {
            return Err(BlockError::InvalidParameter);
        }
        // Sectors of the whole disk fit in 64 bits, so those of a part do.
        Ok(lba * (u64::from(block_size) / SECTOR))
    }

    /// The next request of a transfer, as large as it may be with what is free; `None` when it has to wait, or all is done.
    fn next_chunk(&mut self, offset: usize, buffer: &mut Buffer<'_>) -> Option<Chunk> {
        let left = buffer.len() - offset;
        if left == 0 || self.free_slots.is_empty() || !self.parts.ring.has_room() {
            return None;
        }
        let most = left.min(self.segments_max * PAGE_SIZE);
        let into_page = buffer.at(offset).addr() % PAGE_SIZE;
        let aligned = into_page.is_multiple_of(self.geometry().block_size as usize);
        let (wanted, direct) = match self.path {
            // Only whole pages of the caller are granted, so that the backend sees nothing of its neighbours.
            DataPath::Direct if into_page == 0 && left >= PAGE_SIZE => (most / PAGE_SIZE * PAGE_SIZE, true),
            DataPath::Direct if aligned => (left.min(PAGE_SIZE - into_page), false),
            _ => (most, false),
        };
        let pages = wanted.div_ceil(PAGE_SIZE);
        let free = if direct { self.references_available(pages) } else { self.pool_available(pages) };
        // A small request now would be slower than a large one as soon as an answer frees what it needs.
        let fits = free >= pages || self.in_flight == 0 && free > 0;
        fits.then(|| Chunk { offset, length: wanted.min(free * PAGE_SIZE), direct })
    }

    fn pool_available(&mut self, wanted: usize) -> usize {
        self.pool.available(wanted, self.parts.domain, &self.parts.grants, self.parts.peer)
    }

    fn references_available(&mut self, wanted: usize) -> usize {
        while self.references.len() < wanted && self.references_made < REFERENCES_MAX {
            let Ok(reference) = self.parts.grants.reserve() else { break };
            self.references_made += 1;
            self.references.push(reference);
        }
        self.references.len()
    }

    /// Writes one request to the ring.
    fn submit(&mut self, chunk: Chunk, sector: u64, operation: u8, buffer: &mut Buffer<'_>) -> Result<(), GrantError> {
        let Some(index) = self.free_slots.pop() else { return Err(GrantError::Exhausted) };
        let indirect = chunk.pages() > DIRECT_SEGMENTS;
        if indirect && let Err(error) = self.make_segment_page(index) {
            self.free_slots.push(index);
            return Err(error);
        }
        let id = self.occupy(index, operation, chunk);
        if let Err(error) = self.fill_pages(index, chunk, buffer) {
            self.vacate(index);
            return Err(error);
        }
        let slot = &mut self.slots[usize::from(index)];
        slot.indirect = indirect;
        let head = RequestHead { operation, id, sector, handle: self.parts.number as u16 };
        let segments = slot.pages.iter().enumerate().map(|(page, &number)| {
            let bytes = (chunk.length - page * PAGE_SIZE).min(PAGE_SIZE);
            let grant = if chunk.direct { number } else { self.pool.grant(number).0 };
            Segment { grant, first: 0, last: (bytes / SECTOR as usize - 1) as u8 }
        });
        match &slot.segments {
            Some((page, grant)) if indirect => {
                let count = segments.len();
                for (number, segment) in segments.enumerate() {
                    segment.write_indirect(page, number);
                }
                self.parts.ring.put_indirect(head, count as u16, grant.0);
            }
            _ => self.parts.ring.put(head, segments),
        }
        Ok(())
    }

    /// Gives a slot its pages: grants the caller's, or copies what is to be written into ours.
    fn fill_pages(&mut self, index: u16, chunk: Chunk, buffer: &mut Buffer<'_>) -> Result<(), GrantError> {
        let slot = &mut self.slots[usize::from(index)];
        let access = if matches!(buffer, Buffer::Read(_)) { Access::ReadWrite } else { Access::ReadOnly };
        for page in 0..chunk.pages() {
            let start = chunk.offset + page * PAGE_SIZE;
            if chunk.direct {
                let reference = self.references.pop().ok_or(GrantError::Exhausted)?;
                slot.pages.push(reference.0);
                let gfn = self.parts.domain.frames.frame_of(buffer.at(start));
                self.parts.grants.permit(reference, self.parts.peer, gfn, access)?;
            } else {
                let number = self.pool.take().ok_or(GrantError::Exhausted)?;
                slot.pages.push(number);
                if let Buffer::Write(from) = buffer {
                    let end = (start + PAGE_SIZE).min(chunk.offset + chunk.length);
                    self.pool.copy_in(number, &from[start..end]);
                }
            }
        }
        Ok(())
    }

    /// Makes the page that a slot's segments are written to, once.
    fn make_segment_page(&mut self, index: u16) -> Result<(), GrantError> {
        let Parts { domain, grants, peer, .. } = &self.parts;
        let slot = &mut self.slots[usize::from(index)];
        if slot.segments.is_none() {
            let page = domain.frames.allocate(1).ok_or(GrantError::NoFrame)?;
            // A backend that keeps grants mapped maps them for writing.
            match grants.grant(*peer, page.gfn(0), Access::ReadWrite) {
                Ok(grant) => slot.segments = Some((page, grant)),
                Err(error) => {
                    domain.frames.free(page);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Puts a slot in flight; returns the id of its request.
    fn occupy(&mut self, index: u16, operation: u8, chunk: Chunk) -> u64 {
        self.uses = self.uses.wrapping_add(1);
        let slot = &mut self.slots[usize::from(index)];
        slot.id = self.uses << u16::BITS | u64::from(index);
        slot.busy = true;
        slot.operation = operation;
        slot.indirect = false;
        slot.direct = chunk.direct;
        slot.offset = chunk.offset;
        slot.length = chunk.length;
        self.in_flight += 1;
        slot.id
    }

    /// Takes a slot out of flight and its pages back.
    fn vacate(&mut self, index: u16) {
        let slot = &mut self.slots[usize::from(index)];
        for number in slot.pages.drain(..) {
            if !slot.direct {
                self.pool.give(number);
                continue;
            }
            match self.parts.grants.revoke(GrantRef(number)) {
                Ok(()) => self.references.push(GrantRef(number)),
                Err(error) => {
                    // It keeps grants mapped though we did not offer that. From now on it gets only pages of ours.
                    log::warn!("{}: {error} after its answer; copying from now on", self.parts.title);
                    self.path = DataPath::Copy;
                }
            }
        }
        slot.busy = false;
        self.in_flight -= 1;
        self.free_slots.push(index);
    }

    fn publish(&mut self) {
        if self.parts.ring.publish()
            && let Err(error) = self.parts.domain.hypervisor.notify(self.parts.port)
        {
            log::warn!("{}: notifying the backend failed: {error}", self.parts.title);
        }
    }

    /// Waits for a response: first looking, then asleep in the hypervisor.
    fn wait(&self) -> Result<(), Death> {
        let Parts { domain, ring, port, title, .. } = &self.parts;
        let start = domain.now();
        loop {
            for _ in 0..SPINS {
                if ring.has_responses() {
                    return Ok(());
                }
                core::hint::spin_loop();
            }
            if domain.now().saturating_sub(start) >= self.spin_ns {
                break;
            }
        }
        let asleep = |nanoseconds: u64| {
            let deadline = start.saturating_add(nanoseconds);
            domain.wait_for(*port, deadline, || ring.has_responses_or_arm().then_some(()))
        };
        if asleep(PATIENCE.min(self.timeout_ns)).is_some() {
            return Ok(());
        }
        log::warn!("{title}: still waiting for the backend to answer");
        asleep(self.timeout_ns).ok_or(Death::Silent)
    }

    fn next_response(&mut self) -> Result<Option<Response>, BlockError> {
        self.parts.ring.take().map_err(|bad| self.die(bad.into()))
    }

    /// Takes a response to heart: what was read goes to the caller. Returns the status.
    fn complete(&mut self, response: Response, buffer: &mut Buffer<'_>) -> Result<i16, Death> {
        let index = response.id as u16;
        let slot = self.slots.get(usize::from(index)).filter(|slot| slot.busy && slot.id == response.id);
        let slot = slot.ok_or(Death::UnknownId(response.id))?;
        // Backends differ in which of its two operations they name for an indirect request.
        let named = response.operation == slot.operation || slot.indirect && response.operation == INDIRECT;
        if !named {
            return Err(Death::WrongOperation(response.operation));
        }
        if let Buffer::Read(into) = buffer
            && response.status == OKAY
            && !slot.direct
        {
            let into = &mut into[slot.offset..slot.offset + slot.length];
            for (&page, into) in slot.pages.iter().zip(into.chunks_mut(PAGE_SIZE)) {
                self.pool.copy_out(page, into);
            }
        }
        self.vacate(index);
        Ok(response.status)
    }

    /// Declares the disk unusable. Pages of ours that are in flight stay granted and are not used again: the backend may still
    /// write to them. The caller's go back to the caller, so a backend that wakes up later must not reach them.
    fn die(&mut self, death: Death) -> BlockError {
        let title = &self.parts.title;
        log::error!("{title}: {death}; the disk is not used any more");
        self.death = Some(death);
        let in_flight = self.slots.iter().filter(|slot| slot.busy && slot.direct);
        for &reference in in_flight.flat_map(|slot| &slot.pages) {
            if let Err(error) = self.parts.grants.revoke(GrantRef(reference)) {
                log::error!("{title}: {error}, and may write to memory that is used for something else");
            }
        }
        BlockError::Device
    }
}

const READ: u8 = BLKIF_OP_READ as u8;
const WRITE: u8 = BLKIF_OP_WRITE as u8;
const INDIRECT: u8 = BLKIF_OP_INDIRECT as u8;
const OKAY: i16 = BLKIF_RSP_OKAY as i16;
const NOT_SUPPORTED: i16 = BLKIF_RSP_EOPNOTSUPP as i16;
