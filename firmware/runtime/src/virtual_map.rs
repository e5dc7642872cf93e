//! The memory map given to SetVirtualAddressMap (UEFI 2.10 §8.4): from physical to virtual addresses.

use core::mem::offset_of;

use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor};

/// Bytes of a page of the map.
const PAGE_SIZE: u64 = 4096;

/// Why a map cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// Descriptors of another version, or too small.
    Descriptor,
}

/// An array of descriptors, read by the size that the caller states.
#[derive(Clone, Copy, Debug)]
pub struct VirtualMap<'a> {
    bytes: &'a [u8],
    descriptor_size: usize,
}

#[derive(Clone, Copy)]
struct Range {
    physical: u64,
    virtual_start: u64,
    /// In bytes.
    length: u64,
}

impl<'a> VirtualMap<'a> {
    /// A map of descriptors of that size and version. Bytes that make no whole descriptor are left out.
    pub const fn new(bytes: &'a [u8], descriptor_size: usize, version: u32) -> Result<Self, MapError> {
        if version != MemoryDescriptor::VERSION || descriptor_size < size_of::<MemoryDescriptor>() {
            return Err(MapError::Descriptor);
        }
        Ok(Self { bytes, descriptor_size })
    }

    /// The virtual address of a physical one, if a range that is needed at runtime contains it.
    pub fn convert(&self, address: u64) -> Option<u64> {
        let range = self.range_of(address)?;
        Some(range.virtual_start.wrapping_add(address - range.physical))
    }

    /// Distance from physical to virtual address (modulo 2^64) of `length` bytes at `address`, if all of them move by
    /// the same: they may be described by several ranges.
    pub fn distance(&self, address: u64, length: u64) -> Option<u64> {
        let end = address.checked_add(length)?;
        let first = self.range_of(address)?;
        let distance = first.virtual_start.wrapping_sub(first.physical);
        let mut covered = address;
        while covered < end {
            let range = self.range_of(covered)?;
            if range.virtual_start.wrapping_sub(range.physical) != distance {
                return None;
            }
            covered = range.physical.saturating_add(range.length);
        }
        Some(distance)
    }

    fn range_of(&self, address: u64) -> Option<Range> {
        self.ranges().find(|range| address.checked_sub(range.physical).is_some_and(|offset| offset < range.length))
    }

    fn ranges(&self) -> impl Iterator<Item = Range> + 'a {
        self.bytes.chunks_exact(self.descriptor_size).filter_map(|descriptor| {
            let attributes = field(descriptor, offset_of!(MemoryDescriptor, att))?;
            let pages = field(descriptor, offset_of!(MemoryDescriptor, page_count))?;
            MemoryAttribute::from_bits_retain(attributes).contains(MemoryAttribute::RUNTIME).then_some(())?;
            Some(Range {
                physical: field(descriptor, offset_of!(MemoryDescriptor, phys_start))?,
                virtual_start: field(descriptor, offset_of!(MemoryDescriptor, virt_start))?,
                length: pages.saturating_mul(PAGE_SIZE),
            })
        })
    }
}

fn field(descriptor: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*descriptor.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTOR_SIZE: usize = 48;
    const RUNTIME: u64 = MemoryAttribute::RUNTIME.bits();

    fn map(ranges: &[(u64, u64, u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![];
        for (physical, virtual_start, pages, attributes) in ranges {
            bytes.extend([0; 8]);
            bytes.extend([physical, virtual_start, pages, attributes].iter().flat_map(|field| field.to_le_bytes()));
            bytes.extend([0xcc; DESCRIPTOR_SIZE - 40]);
        }
        bytes
    }

    fn open(bytes: &[u8]) -> VirtualMap<'_> {
        VirtualMap::new(bytes, DESCRIPTOR_SIZE, 1).unwrap()
    }

    #[test]
    fn addresses_inside_a_runtime_range_are_converted() {
        let bytes = map(&[(0x1000, 0x9000, 1, 0), (0x4000, 0xffff_8000_0000_0000, 2, RUNTIME)]);
        let map = open(&bytes);
        assert_eq!(map.convert(0x4000), Some(0xffff_8000_0000_0000));
        assert_eq!(map.convert(0x5fff), Some(0xffff_8000_0000_1fff));
        for outside in [0, 0x1000, 0x3fff, 0x6000, u64::MAX] {
            assert_eq!(map.convert(outside), None, "{outside:#x}");
        }
    }

    #[test]
    fn a_span_may_cross_ranges_that_move_alike() {
        let bytes = map(&[(0x2000, 0xa000, 1, RUNTIME), (0x1000, 0x9000, 1, RUNTIME), (0x3000, 0xf000, 1, RUNTIME)]);
        let map = open(&bytes);
        assert_eq!(map.distance(0x1800, 0x1000), Some(0x8000));
        assert_eq!(map.distance(0x1800, 0x1801), None);
        assert_eq!(map.distance(0x3800, 0x801), None);
        assert_eq!(map.distance(u64::MAX, 2), None);
    }

    #[test]
    fn foreign_descriptors_are_refused() {
        assert_eq!(VirtualMap::new(&[], 39, 1).map(|_| ()), Err(MapError::Descriptor));
        assert_eq!(VirtualMap::new(&[], 48, 2).map(|_| ()), Err(MapError::Descriptor));
    }

    #[test]
    fn nonsense_ranges_do_not_overflow() {
        let bytes = map(&[(u64::MAX, u64::MAX, u64::MAX, u64::MAX), (0x1000, u64::MAX, 1, RUNTIME)]);
        let map = open(&bytes);
        assert_eq!(map.convert(0x1001), Some(0));
        assert_eq!(map.convert(u64::MAX), Some(u64::MAX));
        assert_eq!(map.distance(0x1000, 0x1000), Some(u64::MAX - 0x1000));
        assert_eq!(open(&bytes[..47]).convert(0x1001), None);
    }
}
