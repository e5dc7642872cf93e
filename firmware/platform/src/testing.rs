//! Memory of tests.

use core::ops::Range;
use std::vec::Vec;

use crate::PhysicalMemory;

/// Some bytes at an address, and nothing around them.
pub struct Memory {
    base: u64,
    pub bytes: Vec<u8>,
}

impl Memory {
    /// Zeros.
    pub fn new(range: Range<u64>) -> Self {
        Self { base: range.start, bytes: std::vec![0; (range.end - range.start) as usize] }
    }

    fn range(&self, address: u64, length: usize) -> Option<Range<usize>> {
        let start = usize::try_from(address.checked_sub(self.base)?).ok()?;
        let end = start.checked_add(length)?;
        (end <= self.bytes.len()).then_some(start..end)
    }

    /// The bytes of a range.
    pub fn at(&mut self, address: u64, length: usize) -> &mut [u8] {
        let range = self.range(address, length).unwrap();
        &mut self.bytes[range]
    }
}

impl PhysicalMemory for Memory {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let range = self.range(address, into.len());
        if let Some(range) = range.clone() {
            into.copy_from_slice(&self.bytes[range]);
        }
        range.is_some()
    }

    fn write(&mut self, address: u64, from: &[u8]) -> bool {
        let range = self.range(address, from.len());
        if let Some(range) = range.clone() {
            self.bytes[range].copy_from_slice(from);
        }
        range.is_some()
    }
}
