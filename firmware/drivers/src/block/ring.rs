//! The request ring of a disk: a head of indices and entries that hold a request and later its response (`public/io/ring.h`).
//!
//! The indices that are ours are kept here; those of the backend are read once for each use and checked.

use core::mem::offset_of;

use hw::shared::{SharedPages, memory_barrier, read_barrier, write_barrier};
use xen_abi::{
    BLKIF_OP_INDIRECT, blkif_request, blkif_request_indirect, blkif_request_segment, blkif_response, blkif_sring,
};

const ENTRIES_OFFSET: usize = offset_of!(blkif_sring, ring);
const ENTRY: usize = size_of::<blkif_request>();
const SEGMENT: usize = size_of::<blkif_request_segment>();
const _: () = assert!(ENTRY >= size_of::<blkif_request_indirect>() && ENTRY >= size_of::<blkif_response>());

/// The backend wrote an index that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BadIndex;

/// A response, copied out of the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Response {
    pub(super) id: u64,
    pub(super) operation: u8,
    pub(super) status: i16,
}

/// What all requests have.
#[derive(Clone, Copy)]
pub(super) struct RequestHead {
    pub(super) operation: u8,
    pub(super) id: u64,
    /// First sector, in units of 512 bytes.
    pub(super) sector: u64,
    pub(super) handle: u16,
}

/// A part of a granted page, in sectors of 512 bytes, both ends included.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) grant: u32,
    pub(super) first: u8,
    pub(super) last: u8,
}

impl Segment {
    fn write(self, page: &SharedPages, offset: usize) {
        page.write_u32(offset + offset_of!(blkif_request_segment, gref), self.grant);
        page.write_u8(offset + offset_of!(blkif_request_segment, first_sect), self.first);
        page.write_u8(offset + offset_of!(blkif_request_segment, last_sect), self.last);
    }

    /// Writes segment `index` of an indirect request into its page of segments.
    pub(super) fn write_indirect(self, page: &SharedPages, index: usize) {
        self.write(page, index * SEGMENT);
    }
}

#[derive(Debug)]
pub(super) struct FrontRing {
    pages: SharedPages,
    entries: u32,
    /// Requests written, and of these, published (`req_prod_pvt`, `req_prod`).
    written: u32,
    published: u32,
    /// Responses taken (`rsp_cons`).
    taken: u32,
}

impl FrontRing {
    /// An empty ring in fresh pages.
    pub(super) fn new(pages: SharedPages) -> Self {
        let fits = (pages.len() - ENTRIES_OFFSET) / ENTRY;
        let entries = 1 << fits.ilog2();
        pages.write_u32(offset_of!(blkif_sring, req_prod), 0);
        pages.write_u32(offset_of!(blkif_sring, rsp_prod), 0);
        pages.write_u32(offset_of!(blkif_sring, req_event), 1);
        pages.write_u32(offset_of!(blkif_sring, rsp_event), 1);
        Self { pages, entries, written: 0, published: 0, taken: 0 }
    }

    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    pub(super) fn pages(&self) -> &SharedPages {
        &self.pages
    }

    pub(super) fn into_pages(self) -> SharedPages {
        self.pages
    }

    /// Whether there is an entry for another request.
    pub(super) fn has_room(&self) -> bool {
        self.written.wrapping_sub(self.taken) < self.entries
    }

    /// Writes a request. The caller has made sure that there is room.
    pub(super) fn put(&mut self, head: RequestHead, segments: impl ExactSizeIterator<Item = Segment>) {
        let entry = self.next_entry();
        let pages = &self.pages;
        pages.write_u8(entry + offset_of!(blkif_request, operation), head.operation);
        pages.write_u8(entry + offset_of!(blkif_request, nr_segments), segments.len() as u8);
        pages.write_u16(entry + offset_of!(blkif_request, handle), head.handle);
        pages.write_u64(entry + offset_of!(blkif_request, id), head.id);
        pages.write_u64(entry + offset_of!(blkif_request, sector_number), head.sector);
        for (index, segment) in segments.enumerate() {
            segment.write(pages, entry + offset_of!(blkif_request, seg) + index * SEGMENT);
        }
    }

    /// Writes an indirect request, whose segments are in the page granted by `page_of_segments`.
    pub(super) fn put_indirect(&mut self, head: RequestHead, segments: u16, page_of_segments: u32) {
        let entry = self.next_entry();
        let pages = &self.pages;
        pages.write_u8(entry + offset_of!(blkif_request_indirect, operation), BLKIF_OP_INDIRECT as u8);
        pages.write_u8(entry + offset_of!(blkif_request_indirect, indirect_op), head.operation);
        pages.write_u16(entry + offset_of!(blkif_request_indirect, nr_segments), segments);
        pages.write_u64(entry + offset_of!(blkif_request_indirect, id), head.id);
        pages.write_u64(entry + offset_of!(blkif_request_indirect, sector_number), head.sector);
        pages.write_u16(entry + offset_of!(blkif_request_indirect, handle), head.handle);
        pages.write_u32(entry + offset_of!(blkif_request_indirect, indirect_grefs), page_of_segments);
    }

    /// Makes the requests written since last time visible to the backend; returns whether it wants to be notified.
    pub(super) fn publish(&mut self) -> bool {
        if self.written == self.published {
            return false;
        }
        let before = self.published;
        write_barrier();
        self.pages.write_u32(offset_of!(blkif_sring, req_prod), self.written);
        self.published = self.written;
        // The backend must see the requests before we look whether it went to sleep: a real fence, as the store above and the
        // load below are otherwise reordered and a notification is lost.
        memory_barrier();
        let event = self.pages.read_u32(offset_of!(blkif_sring, req_event));
        self.written.wrapping_sub(event) < self.written.wrapping_sub(before)
    }

    /// Whether a response is there (or the index is bad, which [`take`](Self::take) will say).
    pub(super) fn has_responses(&self) -> bool {
        self.responses() != self.taken
    }

    /// The same before going to sleep: asks the backend for a notification with the next response, then looks again.
    pub(super) fn has_responses_or_arm(&self) -> bool {
        if self.has_responses() {
            return true;
        }
        self.pages.write_u32(offset_of!(blkif_sring, rsp_event), self.taken.wrapping_add(1));
        memory_barrier();
        self.has_responses()
    }

    /// Takes a response.
    pub(super) fn take(&mut self) -> Result<Option<Response>, BadIndex> {
        let waiting = self.responses().wrapping_sub(self.taken);
        if waiting > self.published.wrapping_sub(self.taken) {
            return Err(BadIndex);
        }
        if waiting == 0 {
            return Ok(None);
        }
        read_barrier();
        let entry = self.entry(self.taken);
        let response = Response {
            id: self.pages.read_u64(entry + offset_of!(blkif_response, id)),
            operation: self.pages.read_u8(entry + offset_of!(blkif_response, operation)),
            status: self.pages.read_u16(entry + offset_of!(blkif_response, status)) as i16,
        };
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(response))
    }

    fn responses(&self) -> u32 {
        self.pages.read_u32(offset_of!(blkif_sring, rsp_prod))
    }

    fn next_entry(&mut self) -> usize {
        let entry = self.entry(self.written);
        self.written = self.written.wrapping_add(1);
        entry
    }

    fn entry(&self, index: u32) -> usize {
        ENTRIES_OFFSET + (index & (self.entries - 1)) as usize * ENTRY
    }

    #[cfg(test)]
    pub(super) fn start_at(mut self, index: u32) -> Self {
        for field in [offset_of!(blkif_sring, req_prod), offset_of!(blkif_sring, rsp_prod)] {
            self.pages.write_u32(field, index);
        }
        for field in [offset_of!(blkif_sring, req_event), offset_of!(blkif_sring, rsp_event)] {
            self.pages.write_u32(field, index.wrapping_add(1));
        }
        (self.written, self.published, self.taken) = (index, index, index);
        self
    }
}

#[cfg(test)]
mod tests {
    use hw::fake::FakeFrames;
    use hw::shared::FrameAllocator;

    use super::*;

    fn ring(pages: usize) -> FrontRing {
        FrontRing::new(FakeFrames::default().allocate(pages).unwrap())
    }

    fn put(ring: &mut FrontRing, id: u64) {
        ring.put(RequestHead { operation: 0, id, sector: 0, handle: 0 }, [].into_iter());
    }

    fn respond(ring: &FrontRing, index: u32) {
        ring.pages.write_u32(offset_of!(blkif_sring, rsp_prod), index);
    }

    #[test]
    fn the_layout_is_that_of_the_header() {
        assert_eq!((ENTRIES_OFFSET, ENTRY, SEGMENT), (64, 112, 8));
        assert_eq!([1, 2, 4, 8, 16].map(|pages| ring(pages).entries()), [32, 64, 128, 256, 512]);
    }

    #[test]
    fn the_backend_is_notified_only_when_it_asked() {
        let mut ring = ring(1);
        assert!(!ring.publish());
        put(&mut ring, 0);
        assert!(ring.publish());
        put(&mut ring, 1);
        assert!(!ring.publish());
        ring.pages.write_u32(offset_of!(blkif_sring, req_event), 3);
        put(&mut ring, 2);
        put(&mut ring, 3);
        assert!(ring.publish());
    }

    #[test]
    fn indices_wrap() {
        let mut ring = ring(1).start_at(u32::MAX - 1);
        for id in 0..4 {
            put(&mut ring, id);
        }
        assert!(ring.publish());
        respond(&ring, 2);
        let ids: Vec<u64> = (0..4).map(|_| ring.take().unwrap().unwrap().id).collect();
        // A response overwrites the entry, whose id is still where the request's was not.
        assert_eq!(ids.len(), 4);
        assert_eq!(ring.take(), Ok(None));
    }

    #[test]
    fn the_ring_fills() {
        let mut ring = ring(1);
        for id in 0..32 {
            assert!(ring.has_room());
            put(&mut ring, id);
        }
        assert!(!ring.has_room());
    }

    #[test]
    fn more_responses_than_requests_are_a_lie() {
        let mut ring = ring(1);
        put(&mut ring, 0);
        ring.publish();
        respond(&ring, 2);
        assert_eq!(ring.take(), Err(BadIndex));
        respond(&ring, u32::MAX);
        assert_eq!(ring.take(), Err(BadIndex));
    }

    #[test]
    fn before_sleep_a_notification_is_asked_for() {
        let mut ring = ring(1);
        put(&mut ring, 0);
        ring.publish();
        assert!(!ring.has_responses_or_arm());
        assert_eq!(ring.pages.read_u32(offset_of!(blkif_sring, rsp_event)), 1);
        respond(&ring, 1);
        assert!(ring.has_responses_or_arm());
        ring.take().unwrap();
        assert!(!ring.has_responses_or_arm());
        assert_eq!(ring.pages.read_u32(offset_of!(blkif_sring, rsp_event)), 2);
    }
}
