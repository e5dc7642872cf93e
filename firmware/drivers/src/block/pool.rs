//! Pages that stay granted to the backend, and that data is copied through.
//!
//! Last used, first used again: these are the pages a backend that keeps grants mapped will have mapped. The pool grows when a
//! transfer is larger than it and never shrinks.

use alloc::vec::Vec;

use hw::hypervisor::DomainId;
use hw::shared::{PAGE_SIZE, SharedPages};

use crate::domain::Domain;
use crate::grants::{Access, GrantRef, GrantTable};

/// Pages allocated at a time.
const CHUNK: usize = 32;

#[derive(Debug)]
pub(super) struct Pool {
    chunks: Vec<SharedPages>,
    grants: Vec<GrantRef>,
    free: Vec<u32>,
    /// Most pages.
    most: usize,
}

impl Pool {
    /// A pool of at most `most` pages, none yet.
    pub(super) const fn new(most: usize) -> Self {
        Self { chunks: Vec::new(), grants: Vec::new(), free: Vec::new(), most }
    }

    /// Free pages, growing the pool towards `wanted` as far as that goes.
    pub(super) fn available(&mut self, wanted: usize, domain: Domain, grants: &GrantTable, peer: DomainId) -> usize {
        while self.free.len() < wanted && self.grants.len() + CHUNK <= self.most {
            if !self.grow(domain, grants, peer) {
                // Do with what there is.
                self.most = self.grants.len();
            }
        }
        self.free.len()
    }

    /// Takes a page.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Gives a page back.
    pub(super) fn give(&mut self, page: u32) {
        self.free.push(page);
    }

    /// The grant of a page.
    pub(super) fn grant(&self, page: u32) -> GrantRef {
        self.grants[page as usize]
    }

    pub(super) fn copy_in(&self, page: u32, from: &[u8]) {
        let (chunk, offset) = self.place(page);
        chunk.copy_in(offset, from);
    }

    pub(super) fn copy_out(&self, page: u32, into: &mut [u8]) {
        let (chunk, offset) = self.place(page);
        chunk.copy_out(offset, into);
    }

    /// Takes the grants back and frees the pages, but for those the backend still has mapped.
    pub(super) fn close(&mut self, domain: Domain, grants: &GrantTable) {
        self.free.clear();
        let references = core::mem::take(&mut self.grants);
        for (chunk, references) in core::mem::take(&mut self.chunks).into_iter().zip(references.chunks(CHUNK)) {
            let in_use = references.iter().filter(|&&reference| grants.end(reference).is_err()).count();
            if in_use == 0 {
                domain.frames.free(chunk);
            }
        }
    }

    fn place(&self, page: u32) -> (&SharedPages, usize) {
        (&self.chunks[page as usize / CHUNK], page as usize % CHUNK * PAGE_SIZE)
    }

    fn grow(&mut self, domain: Domain, grants: &GrantTable, peer: DomainId) -> bool {
        let Some(chunk) = domain.frames.allocate(CHUNK) else { return false };
        let first = self.grants.len();
        for page in 0..CHUNK {
            match grants.grant(peer, chunk.gfn(page), Access::ReadWrite) {
                Ok(reference) => self.grants.push(reference),
                Err(error) => {
                    log::warn!("disk buffers: {error}");
                    for reference in self.grants.drain(first..) {
                        // Nobody has been told of these grants, so they are not in use.
                        let _ = grants.end(reference);
                    }
                    domain.frames.free(chunk);
                    return false;
                }
            }
        }
        self.chunks.push(chunk);
        self.free.reserve(self.grants.len());
        self.free.extend((first as u32..self.grants.len() as u32).rev());
        true
    }
}
