//! Disks and CDs as a whole, through each controller.

mod ahci;
mod binding;
mod ide;

use services::block::BlockDevice;

/// Bytes that differ from their neighbours.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 509) as u8).collect()
}

/// Bytes that start `shift` behind a 64 KiB boundary, in memory that lives for ever.
fn memory(length: usize, shift: usize) -> &'static mut [u8] {
    let memory = vec![0u8; length + (128 << 10)].leak();
    let start = memory.as_ptr().align_offset(64 << 10) + shift;
    &mut memory[start..start + length]
}

/// Reads with buffers at all kinds of places.
fn read_anywhere(disk: &mut dyn BlockDevice, expected: &[u8]) {
    for shift in [0, 1, 2, 510, 4095, 65535] {
        for length in [512, 4096, 65536, 300 << 10] {
            let into = memory(length, shift);
            disk.read(7, into).unwrap();
            assert!(*into == expected[7 * 512..][..length], "{shift} {length}");
        }
    }
}
