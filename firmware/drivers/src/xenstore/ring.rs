//! The two byte streams between this domain and the daemon (`struct xenstore_domain_interface`).
//!
//! The indices that are ours to move are kept here and only written to the page; what the daemon writes there cannot
//! change them. Its own indices are read once for each use and checked against ours.

use alloc::vec::Vec;
use core::mem::offset_of;

use hw::shared::{SharedPages, memory_barrier, read_barrier, write_barrier};
use xen_abi::{
    XENSTORE_CONNECTED, XENSTORE_RECONNECT, XENSTORE_RING_SIZE, XENSTORE_SERVER_FEATURE_RECONNECTION,
    xenstore_domain_interface as interface,
};

use super::Break;

/// What [`Ring::read`] took.
pub(super) struct Taken {
    pub(super) bytes: usize,
    /// Whether the daemon was waiting for room.
    pub(super) was_full: bool,
}

#[derive(Debug)]
pub(super) struct Ring {
    page: SharedPages,
    /// Next byte of a request to write (`req_prod`).
    request: u32,
    /// Next byte of a response to read (`rsp_cons`).
    response: u32,
}

impl Ring {
    /// Takes a ring over as somebody else left it. What the daemon said to them is dropped.
    pub(super) fn attach(page: SharedPages) -> Result<Self, Break> {
        let request = page.read_u32(offset_of!(interface, req_prod));
        let response = page.read_u32(offset_of!(interface, rsp_cons));
        let mut ring = Self { page, request, response };
        ring.room()?;
        let stale = ring.waiting()?;
        ring.consume(stale);
        Ok(ring)
    }

    /// Writes the concatenation of `parts` from byte `skip` on, as far as there is room; returns how many bytes.
    pub(super) fn write<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>, mut skip: usize) -> Result<usize, Break> {
        let mut room = self.room()?;
        // Only overwrite what the daemon has read.
        memory_barrier();
        let mut written = 0;
        for part in parts {
            let part = part.get(skip..).inspect(|_| skip = 0).unwrap_or_else(|| {
                skip -= part.len();
                &[]
            });
            let now = &part[..part.len().min(room)];
            self.copy_in(self.request.wrapping_add(written as u32), now);
            written += now.len();
            room -= now.len();
            if room == 0 {
                break;
            }
        }
        write_barrier();
        self.request = self.request.wrapping_add(written as u32);
        self.page.write_u32(offset_of!(interface, req_prod), self.request);
        memory_barrier();
        Ok(written)
    }

    /// Appends up to `most` bytes that have arrived to `into`, within its capacity.
    pub(super) fn read(&mut self, into: &mut Vec<u8>, most: usize) -> Result<Taken, Break> {
        let waiting = self.waiting()?;
        let bytes = waiting.min(most).min(into.capacity() - into.len());
        let old = into.len();
        into.resize(old + bytes, 0);
        self.copy_out(self.response, &mut into[old..]);
        let before = self.response;
        self.consume(bytes);
        // Looked at only after the daemon can see the room: it may have filled the ring, and gone to sleep, in between.
        let produced = self.page.read_u32(offset_of!(interface, rsp_prod));
        Ok(Taken { bytes, was_full: bytes > 0 && produced.wrapping_sub(before) as usize >= SIZE })
    }

    /// Whether a response has arrived, or the indices make no sense, which the next read will say.
    pub(super) fn has_responses(&self) -> bool {
        self.waiting() != Ok(0)
    }

    /// Whether a request can be written, or the indices make no sense.
    pub(super) fn has_room(&self) -> bool {
        self.room() != Ok(0)
    }

    /// Whether the daemon can start a connection afresh.
    pub(super) fn can_reconnect(&self) -> bool {
        self.page.read_u32(offset_of!(interface, server_features)) & XENSTORE_SERVER_FEATURE_RECONNECTION != 0
    }

    /// Asks for it. The caller must notify the daemon.
    pub(super) fn ask_to_reconnect(&self) {
        self.page.write_u32(offset_of!(interface, connection), XENSTORE_RECONNECT);
        memory_barrier();
    }

    /// Whether the connection is in its steady state.
    pub(super) fn is_connected(&self) -> bool {
        self.page.read_u32(offset_of!(interface, connection)) == XENSTORE_CONNECTED
    }

    fn room(&self) -> Result<usize, Break> {
        let used = self.request.wrapping_sub(self.page.read_u32(offset_of!(interface, req_cons))) as usize;
        SIZE.checked_sub(used).ok_or(Break::Indices)
    }

    fn waiting(&self) -> Result<usize, Break> {
        let waiting = self.page.read_u32(offset_of!(interface, rsp_prod)).wrapping_sub(self.response) as usize;
        read_barrier();
        if waiting <= SIZE { Ok(waiting) } else { Err(Break::Indices) }
    }

    fn consume(&mut self, bytes: usize) {
        // The daemon may overwrite what we have read, and only that.
        memory_barrier();
        self.response = self.response.wrapping_add(bytes as u32);
        self.page.write_u32(offset_of!(interface, rsp_cons), self.response);
        memory_barrier();
    }

    fn copy_in(&self, index: u32, bytes: &[u8]) {
        let start = index as usize % SIZE;
        let (before, after) = bytes.split_at(bytes.len().min(SIZE - start));
        self.page.copy_in(offset_of!(interface, req) + start, before);
        self.page.copy_in(offset_of!(interface, req), after);
    }

    fn copy_out(&self, index: u32, into: &mut [u8]) {
        let start = index as usize % SIZE;
        let (before, after) = into.split_at_mut(into.len().min(SIZE - start));
        self.page.copy_out(offset_of!(interface, rsp) + start, before);
        self.page.copy_out(offset_of!(interface, rsp), after);
    }
}

const SIZE: usize = XENSTORE_RING_SIZE as usize;
