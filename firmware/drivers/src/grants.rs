//! The grant table, version 1 (`public/grant_table.h`): which of our pages another domain may use.
//!
//! Frames of the table are mapped on demand, at guest frames that are neither RAM nor device. References 0 to 7 belong
//! to the toolstack, which has put the xenstore and console pages there; they are never touched.

use alloc::vec::Vec;
use core::fmt;
use core::mem::offset_of;

use hw::hypervisor::{DomainId, Errno, Gfn};
use hw::shared::{PAGE_SIZE, SharedPages, memory_barrier, write_barrier};
use services::lock::Lock;
use xen_abi::{GTF_permit_access, GTF_reading, GTF_readonly, GTF_writing, grant_entry_v1};

use crate::domain::Domain;

/// References the toolstack and the hypervisor keep for themselves.
const RESERVED: u32 = 8;
const ENTRIES_PER_FRAME: u32 = (PAGE_SIZE / size_of::<grant_entry_v1>()) as u32;
/// Most frames we map: 8192 references, far more than all devices together use.
const FRAMES_MAX: u32 = 16;
const IN_USE: u16 = (GTF_reading | GTF_writing) as u16;

/// A grant reference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GrantRef(pub u32);

/// What the other domain may do with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read it.
    ReadOnly,
    /// Read and write it.
    ReadWrite,
}

/// Why a grant cannot be made or taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrantError {
    /// All references are taken.
    Exhausted,
    /// There is no guest frame to map a table frame at.
    NoFrame,
    /// The frame's number does not fit in an entry.
    FrameNumber(Gfn),
    /// The other domain has the page mapped.
    InUse,
    /// The table has been handed over.
    ShutDown,
    /// A hypercall failed.
    Hypervisor(Errno),
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted => f.write_str("all grant references are taken"),
            Self::NoFrame => f.write_str("no free guest frame for the grant table"),
            Self::FrameNumber(gfn) => write!(f, "guest frame {:#x} cannot be granted", gfn.0),
            Self::InUse => f.write_str("the backend still has the page mapped"),
            Self::ShutDown => f.write_str("the grant table has been handed over"),
            Self::Hypervisor(error) => write!(f, "grant table: {error}"),
        }
    }
}

impl core::error::Error for GrantError {}

/// Result of a grant operation.
pub type Result<T> = core::result::Result<T, GrantError>;

/// The grant table of this domain.
#[derive(Debug)]
pub struct GrantTable {
    domain: Domain,
    table: Lock<Table>,
}

#[derive(Debug)]
struct Table {
    frames: Vec<SharedPages>,
    /// Free references, last used first. Its capacity covers all of them, so giving one back never allocates.
    free: Vec<u32>,
    frames_max: u32,
    /// References that could not be revoked. They are not used again.
    leaked: usize,
    down: bool,
}

impl GrantTable {
    /// The table with its first frame mapped.
    pub fn open(domain: Domain) -> Result<Self> {
        let frames_max = domain.hypervisor.grant_frames_max().map_err(GrantError::Hypervisor)?.min(FRAMES_MAX);
        let mut table = Table { frames: Vec::new(), free: Vec::new(), frames_max, leaked: 0, down: false };
        table.grow(domain)?;
        Ok(Self { domain, table: Lock::new("grant table", table) })
    }

    /// Takes a reference out of the free ones. It permits nothing yet.
    pub fn reserve(&self) -> Result<GrantRef> {
        self.table.with(|table| {
            if table.down {
                return Err(GrantError::ShutDown);
            }
            if table.free.is_empty() {
                table.grow(self.domain)?;
            }
            table.free.pop().map(GrantRef).ok_or(GrantError::Exhausted)
        })
    }

    /// Lets `peer` use frame `gfn` through a reserved reference. Cheap: three stores.
    pub fn permit(&self, reference: GrantRef, peer: DomainId, gfn: Gfn, access: Access) -> Result<()> {
        let frame = u32::try_from(gfn.0).map_err(|_| GrantError::FrameNumber(gfn))?;
        let flags = match access {
            Access::ReadOnly => GTF_permit_access | GTF_readonly,
            Access::ReadWrite => GTF_permit_access,
        };
        self.table.with(|table| {
            let (page, offset) = table.entry(reference).ok_or(GrantError::ShutDown)?;
            page.write_u16(offset + offset_of!(grant_entry_v1, domid), peer.0);
            page.write_u32(offset + offset_of!(grant_entry_v1, frame), frame);
            // The flags make the entry valid, so they come last.
            write_barrier();
            page.write_u16(offset + offset_of!(grant_entry_v1, flags), flags as u16);
            Ok(())
        })
    }

    /// Takes the permission back; the reference stays reserved. Fails while the other domain has the page mapped.
    pub fn revoke(&self, reference: GrantRef) -> Result<()> {
        self.table.with(|table| match table.entry(reference) {
            Some((page, offset)) => revoke_entry(page, offset + offset_of!(grant_entry_v1, flags)),
            None => Err(GrantError::ShutDown),
        })
    }

    /// Reserves a reference and permits access with it.
    pub fn grant(&self, peer: DomainId, gfn: Gfn, access: Access) -> Result<GrantRef> {
        let reference = self.reserve()?;
        match self.permit(reference, peer, gfn, access) {
            Ok(()) => Ok(reference),
            Err(error) => {
                self.release(reference);
                Err(error)
            }
        }
    }

    /// Revokes and gives the reference back. Where the other domain has the page mapped the reference is leaked: it is not
    /// used again, and the caller must not reuse the page.
    pub fn end(&self, reference: GrantRef) -> Result<()> {
        match self.revoke(reference) {
            Ok(()) => {
                self.release(reference);
                Ok(())
            }
            Err(error) => {
                self.table.with(|table| table.leaked += 1);
                Err(error)
            }
        }
    }

    /// Gives a reserved reference back that permits nothing.
    pub fn release(&self, reference: GrantRef) {
        self.table.with(|table| table.free.push(reference.0));
    }

    /// References that could not be revoked.
    pub fn leaked(&self) -> usize {
        self.table.with(|table| table.leaked)
    }

    /// Revokes everything and unmaps the table. Returns how many entries the other domain still has in use. Does not
    /// allocate; afterwards nothing can be granted.
    pub fn shut_down(&self) -> usize {
        self.table.with(|table| {
            if table.down {
                return 0;
            }
            table.down = true;
            let in_use = table.revoke_all();
            for frame in &table.frames {
                if let Err(error) = self.domain.hypervisor.unmap(frame.gfn(0)) {
                    log::warn!("grant table frame at {:#x}: unmapping failed: {error}", frame.gfn(0).0);
                }
            }
            in_use
        })
    }
}

impl Table {
    /// Maps one more frame of the table.
    fn grow(&mut self, domain: Domain) -> Result<()> {
        let index = self.frames.len() as u32;
        if index >= self.frames_max {
            return Err(GrantError::Exhausted);
        }
        let page = domain.frames.hole(1).ok_or(GrantError::NoFrame)?;
        domain.hypervisor.map_grant_frame(index, page.gfn(0)).map_err(GrantError::Hypervisor)?;
        self.frames.push(page);
        let all = self.frames.len() * ENTRIES_PER_FRAME as usize;
        self.free.reserve(all - self.free.len());
        let first = index * ENTRIES_PER_FRAME;
        self.free.extend((first.max(RESERVED)..first + ENTRIES_PER_FRAME).rev());
        Ok(())
    }

    /// The page and offset of an entry.
    fn entry(&self, reference: GrantRef) -> Option<(&SharedPages, usize)> {
        if self.down || reference.0 < RESERVED {
            return None;
        }
        let page = self.frames.get((reference.0 / ENTRIES_PER_FRAME) as usize)?;
        Some((page, (reference.0 % ENTRIES_PER_FRAME) as usize * size_of::<grant_entry_v1>()))
    }

    fn revoke_all(&self) -> usize {
        let mut in_use = 0;
        for (number, page) in self.frames.iter().enumerate() {
            let first = if number == 0 { RESERVED } else { 0 };
            for entry in first..ENTRIES_PER_FRAME {
                let flags = entry as usize * size_of::<grant_entry_v1>() + offset_of!(grant_entry_v1, flags);
                if page.read_u16(flags) != 0 && revoke_entry(page, flags).is_err() {
                    in_use += 1;
                }
            }
        }
        in_use
    }
}

/// Clears the flags of an entry unless the other domain uses it. Xen sets the use bits at any time, hence the exchange.
fn revoke_entry(page: &SharedPages, flags: usize) -> Result<()> {
    let mut found = page.read_u16(flags);
    loop {
        if found & IN_USE != 0 {
            return Err(GrantError::InUse);
        }
        match page.compare_exchange_u16(flags, found, 0) {
            Ok(_) => break,
            Err(now) => found = now,
        }
    }
    memory_barrier();
    if page.read_u16(flags) == 0 { Ok(()) } else { Err(GrantError::InUse) }
}

#[cfg(test)]
mod tests {
    use hw::fake::{FakeFrames, FakeHypervisor};

    use super::*;
    use crate::testing::{domain, grant_entry};

    const PEER: DomainId = DomainId(0);

    /// Marks an entry as mapped by the other domain, or not.
    fn set_mapped(hypervisor: &FakeHypervisor, reference: GrantRef, mapped: bool) {
        let (page, offset) = grant_entry(hypervisor, reference.0);
        let flags = page.read_u16(offset);
        page.write_u16(offset, if mapped { flags | GTF_writing as u16 } else { flags & !(GTF_writing as u16) });
    }

    #[test]
    fn an_entry_says_who_may_use_which_frame_and_how() {
        let (hypervisor, domain) = domain();
        let table = GrantTable::open(domain).unwrap();
        let reference = table.grant(DomainId(7), Gfn(0x1234), Access::ReadOnly).unwrap();
        let (page, offset) = grant_entry(hypervisor, reference.0);
        assert_eq!(page.read_u16(offset), (GTF_permit_access | GTF_readonly) as u16);
        assert_eq!(page.read_u16(offset + 2), 7);
        assert_eq!(page.read_u32(offset + 4), 0x1234);
    }

    #[test]
    fn the_toolstacks_references_are_never_given_out() {
        let (_, domain) = domain();
        let table = GrantTable::open(domain).unwrap();
        for _ in 0..ENTRIES_PER_FRAME * 2 {
            assert!(table.reserve().unwrap().0 >= RESERVED);
        }
        assert_eq!(table.permit(GrantRef(1), PEER, Gfn(1), Access::ReadWrite), Err(GrantError::ShutDown));
    }

    #[test]
    fn the_table_grows_until_xen_allows_no_more() {
        let (hypervisor, domain) = domain();
        let table = GrantTable::open(domain).unwrap();
        let mut count = 0;
        let error = loop {
            match table.reserve() {
                Ok(_) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, GrantError::Exhausted);
        assert_eq!(count, FRAMES_MAX * ENTRIES_PER_FRAME - RESERVED);
        assert_eq!(hypervisor.mapped.borrow().len(), FRAMES_MAX as usize);
    }

    #[test]
    fn a_page_in_use_is_not_taken_back() {
        let (hypervisor, domain) = domain();
        let table = GrantTable::open(domain).unwrap();
        let reference = table.grant(PEER, Gfn(0x99), Access::ReadWrite).unwrap();
        set_mapped(hypervisor, reference, true);
        assert_eq!(table.revoke(reference), Err(GrantError::InUse));
        assert_eq!(table.end(reference), Err(GrantError::InUse));
        assert_eq!(table.leaked(), 1);
        assert_ne!(table.reserve(), Ok(reference));
        set_mapped(hypervisor, reference, false);
        assert_eq!(table.revoke(reference), Ok(()));
    }

    #[test]
    fn teardown_leaves_no_permission_and_no_mapping() {
        let (hypervisor, domain) = domain();
        let table = GrantTable::open(domain).unwrap();
        let (page, offset) = grant_entry(hypervisor, 1);
        page.write_u16(offset, GTF_permit_access as u16);
        for frame in 0..600 {
            table.grant(PEER, Gfn(frame), Access::ReadWrite).unwrap();
        }
        let frames: Vec<Gfn> = hypervisor.mapped.borrow().keys().copied().map(Gfn).collect();
        assert_eq!(table.shut_down(), 0);
        assert!(hypervisor.mapped.borrow().is_empty());
        for (number, gfn) in frames.into_iter().enumerate() {
            let page = FakeFrames::peer(gfn);
            for entry in 0..ENTRIES_PER_FRAME as usize {
                let toolstack = number == 0 && entry == 1;
                assert_eq!(page.read_u16(entry * 8) != 0, toolstack, "entry {entry} of frame {number}");
            }
        }
        assert_eq!(table.reserve(), Err(GrantError::ShutDown));
    }

    #[test]
    fn a_frame_beyond_an_entrys_reach_is_refused() {
        let (_, domain) = domain();
        let table = GrantTable::open(domain).unwrap();
        let gfn = Gfn(1 << 32);
        assert_eq!(table.grant(PEER, gfn, Access::ReadWrite), Err(GrantError::FrameNumber(gfn)));
    }
}
