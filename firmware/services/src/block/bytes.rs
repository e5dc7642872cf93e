//! Byte-addressed access to a block device: what EFI_DISK_IO_PROTOCOL offers and file systems want.
//!
//! [`Bytes`] turns a [`BlockDevice`] into a [`ByteDevice`]. Whole aligned blocks go straight between the device and the
//! caller's buffer; only the ragged ends, or a buffer that is not aligned as the device wants it, pass through a buffer of
//! its own.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{BlockDevice, BlockError, Geometry};

/// A disk, or a part of one, addressed in bytes.
pub trait ByteDevice {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Bytes in a block of the device below: the unit in which writes need no reading first.
    fn block_size(&self) -> u32;
    /// Whether writes are refused.
    fn read_only(&self) -> bool;
    /// Fills `into` from the byte `offset` on.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<(), BlockError>;
    /// Writes `from` at the byte `offset`.
    fn write_at(&mut self, offset: u64, from: &[u8]) -> Result<(), BlockError>;
    /// Makes all completed writes durable.
    fn flush(&mut self) -> Result<(), BlockError>;
}

impl<T: ByteDevice + ?Sized> ByteDevice for Box<T> {
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn block_size(&self) -> u32 {
        (**self).block_size()
    }
    fn read_only(&self) -> bool {
        (**self).read_only()
    }
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<(), BlockError> {
        (**self).read_at(offset, into)
    }
    fn write_at(&mut self, offset: u64, from: &[u8]) -> Result<(), BlockError> {
        (**self).write_at(offset, from)
    }
    fn flush(&mut self) -> Result<(), BlockError> {
        (**self).flush()
    }
}

/// Up to this many bytes, one transfer through the bounce buffer beats three transfers of head, middle and tail.
const ONE_TRANSFER: usize = 16 << 10;
/// Largest transfer through the bounce buffer.
const BOUNCE: usize = 512 << 10;

/// Byte-addressed view of a block device.
#[derive(Debug)]
pub struct Bytes<B> {
    device: B,
    geometry: Geometry,
    bounce: Bounce,
}

impl<B: BlockDevice> Bytes<B> {
    /// A view of `device`.
    pub fn new(device: B) -> Self {
        let geometry = device.geometry();
        Self { device, geometry, bounce: Bounce::default() }
    }

    /// The device below.
    pub fn device(&mut self) -> &mut B {
        &mut self.device
    }

    fn block(&self) -> usize {
        self.geometry.block_size as usize
    }

    fn check(&self, offset: u64, length: usize) -> Result<(), BlockError> {
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.size() && self.geometry.block_size.is_power_of_two() => Ok(()),
            _ => Err(BlockError::InvalidParameter),
        }
    }

    /// How many of `length` bytes at `address` in memory and `skip` bytes into a block to move next, and whether
    /// straight.
    fn step(&self, skip: usize, address: usize, length: usize) -> (usize, bool) {
        let block = self.block();
        let aligned = |address: usize| address.is_multiple_of((self.geometry.io_align as usize).max(1));
        let whole = length - length % block;
        if skip == 0 && whole > 0 && aligned(address) {
            return (whole, true);
        }
        if skip + length <= ONE_TRANSFER.max(block) {
            return (length, false);
        }
        if skip != 0 && aligned(address.wrapping_add(block - skip)) {
            return (block - skip, false);
        }
        (length.min(BOUNCE.max(block) - skip), false)
    }
}

impl<B: BlockDevice> ByteDevice for Bytes<B> {
    fn size(&self) -> u64 {
        self.geometry.blocks.saturating_mul(u64::from(self.geometry.block_size))
    }

    fn block_size(&self) -> u32 {
        self.geometry.block_size
    }

    fn read_only(&self) -> bool {
        self.geometry.read_only
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<(), BlockError> {
        self.check(offset, into.len())?;
        let block = self.block();
        let (mut at, mut rest) = (offset, into);
        while !rest.is_empty() {
            let skip = (at % block as u64) as usize;
            let lba = at / block as u64;
            let (length, straight) = self.step(skip, rest.as_ptr() as usize, rest.len());
            let (now, later) = rest.split_at_mut(length);
            if straight {
                self.device.read(lba, now)?;
            } else {
                let covered = (skip + length).next_multiple_of(block);
                let bounce = self.bounce.get(covered, self.geometry.io_align as usize);
                self.device.read(lba, bounce)?;
                now.copy_from_slice(&bounce[skip..skip + length]);
            }
            at += length as u64;
            rest = later;
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, from: &[u8]) -> Result<(), BlockError> {
        self.check(offset, from.len())?;
        if self.geometry.read_only {
            return Err(BlockError::WriteProtected);
        }
        let block = self.block();
        let (mut at, mut rest) = (offset, from);
        while !rest.is_empty() {
            let skip = (at % block as u64) as usize;
            let lba = at / block as u64;
            let (length, straight) = self.step(skip, rest.as_ptr() as usize, rest.len());
            let (now, later) = rest.split_at(length);
            if straight {
                self.device.write(lba, now)?;
            } else {
                let covered = (skip + length).next_multiple_of(block);
                let bounce = self.bounce.get(covered, self.geometry.io_align as usize);
                let ragged_end = skip + length != covered;
                if skip != 0 || (ragged_end && covered == block) {
                    self.device.read(lba, &mut bounce[..block])?;
                }
                if ragged_end && covered > block {
                    let last = covered - block;
                    self.device.read(lba + (last / block) as u64, &mut bounce[last..])?;
                }
                bounce[skip..skip + length].copy_from_slice(now);
                self.device.write(lba, bounce)?;
            }
            at += length as u64;
            rest = later;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        self.device.flush()
    }
}

/// A buffer with the alignment the device wants, as large as was ever needed.
#[derive(Debug, Default)]
struct Bounce(Vec<u8>);

impl Bounce {
    fn get(&mut self, length: usize, align: usize) -> &mut [u8] {
        let align = if align.is_power_of_two() { align } else { 1 };
        let needed = length.saturating_add(align);
        if self.0.len() < needed {
            self.0 = alloc::vec![0; needed];
        }
        let skip = self.0.as_ptr().align_offset(align).min(align);
        &mut self.0[skip..skip + length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk in memory that insists on its alignment and counts transfers.
    struct Disk {
        bytes: Vec<u8>,
        block: u32,
        align: u32,
        transfers: usize,
    }

    impl Disk {
        fn new(blocks: usize, block: u32, align: u32) -> Self {
            let bytes = (0..blocks * block as usize).map(|i| (i * 7 + i / 251) as u8).collect();
            Self { bytes, block, align, transfers: 0 }
        }

        fn range(&mut self, lba: u64, buffer: &[u8]) -> core::ops::Range<usize> {
            assert_eq!(buffer.len() % self.block as usize, 0);
            assert_eq!(buffer.as_ptr() as usize % self.align as usize, 0);
            self.transfers += 1;
            let start = lba as usize * self.block as usize;
            start..start + buffer.len()
        }
    }

    impl BlockDevice for Disk {
        fn geometry(&self) -> Geometry {
            Geometry {
                block_size: self.block,
                blocks: self.bytes.len() as u64 / u64::from(self.block),
                read_only: false,
                removable: false,
                io_align: self.align,
                blocks_per_physical: 1,
            }
        }
        fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
            let range = self.range(lba, into);
            into.copy_from_slice(&self.bytes[range]);
            Ok(())
        }
        fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
            let range = self.range(lba, from);
            self.bytes[range].copy_from_slice(from);
            Ok(())
        }
        fn flush(&mut self) -> Result<(), BlockError> {
            Ok(())
        }
    }

    const CASES: [(usize, usize); 9] =
        [(0, 1), (511, 2), (0, 512), (1, 511), (100, 5000), (512, 4096), (3, 600_000), (4096, 700_001), (1_048_575, 1)];

    #[test]
    fn reads_any_range_at_any_alignment() {
        for (block, align) in [(512, 1), (512, 512), (4096, 4096), (4096, 8)] {
            let disk = Disk::new((1 << 20) / block as usize, block, align);
            let expected = disk.bytes.clone();
            let mut bytes = Bytes::new(disk);
            for (offset, length) in CASES {
                for shift in [0, 1, 8] {
                    let mut buffer = alloc::vec![0; length + shift];
                    bytes.read_at(offset as u64, &mut buffer[shift..]).unwrap();
                    assert_eq!(&buffer[shift..], &expected[offset..offset + length], "{offset} {length}");
                }
            }
        }
    }

    #[test]
    fn writes_touch_only_their_range() {
        for (block, align) in [(512, 1), (512, 512), (4096, 4096)] {
            for (offset, length) in CASES {
                let disk = Disk::new((1 << 20) / block as usize, block, align);
                let mut expected = disk.bytes.clone();
                let mut bytes = Bytes::new(disk);
                let data: Vec<u8> = (0..length).map(|i| !(i as u8)).collect();
                bytes.write_at(offset as u64, &data).unwrap();
                expected[offset..offset + length].copy_from_slice(&data);
                assert!(bytes.device.bytes == expected, "{block} {align} {offset} {length}");
            }
        }
    }

    #[test]
    fn an_aligned_read_is_one_transfer() {
        let mut bytes = Bytes::new(Disk::new(2048, 512, 1));
        bytes.read_at(512, &mut alloc::vec![0; 600 << 10]).unwrap();
        assert_eq!(bytes.device.transfers, 1);
    }

    #[test]
    fn ranges_past_the_end_are_refused() {
        let mut bytes = Bytes::new(Disk::new(4, 512, 1));
        assert_eq!(bytes.read_at(2048, &mut [0]), Err(BlockError::InvalidParameter));
        assert_eq!(bytes.read_at(u64::MAX, &mut [0; 2]), Err(BlockError::InvalidParameter));
        assert_eq!(bytes.write_at(2047, &[0; 2]), Err(BlockError::InvalidParameter));
    }
}
