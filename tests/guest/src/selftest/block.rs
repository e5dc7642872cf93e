//! Block and disk protocols, and partitions (UEFI 2.10 §13.7 to §13.10, §13.18).

use alloc::string::String;
use alloc::vec::Vec;
use core::ptr::null_mut;

use uefi_raw::protocol::block::{BlockIo2Protocol, BlockIo2Token, BlockIoMedia, BlockIoProtocol};
use uefi_raw::protocol::disk::{DiskIo2Protocol, DiskIo2Token, DiskIoProtocol};
use uefi_raw::table::boot::EventType;
use uefi_raw::{Boolean, Guid, Handle, Status, guid};

use crate::harness::{Outcome, Test};
use crate::support::{handles_with, own_image, plain_event, protocol_of};

pub const TESTS: &[Test] = tests![
    every_medium_is_described,
    both_block_protocols_describe_the_same_medium,
    blocks_read_alike_in_one_piece_and_in_many,
    read_blocks_tells_what_is_wrong,
    write_blocks_tells_what_is_wrong,
    blocks_can_be_written_and_flushed,
    block_2_reads_with_an_event,
    block_2_reads_many_at_once,
    block_2_without_an_event_waits,
    block_2_tells_what_is_wrong,
    disk_io_reads_what_block_io_reads,
    disk_io_writes_only_what_it_is_told,
    disk_io_tells_what_is_wrong,
    disk_2_reads_and_writes_with_an_event,
    disk_2_tells_what_is_wrong,
    the_partition_is_described,
    the_partition_is_a_part_of_its_disk,
];

const MIB: usize = 1 << 20;
/// Bytes of the disk that belong to no partition, with any block size: between the partition table and 1 MiB.
const GAP: u64 = 0x8_0000;
const PARTITION_INFO: Guid = guid!("8cf2f62c-bc9b-4821-808d-ec9ec421a1a0");

fn partition() -> Handle {
    own_image().device_handle
}

/// The whole disk that this program's partition is on: the first disk that is no partition and begins with the same blocks.
fn disk() -> Result<Handle, String> {
    let found = handles_with(&BlockIoProtocol::GUID)
        .into_iter()
        .find(|handle| media(*handle).is_ok_and(|media| media.logical_partition.is_false()));
    found.ok_or_else(|| "no whole disk".into())
}

fn block_io(handle: Handle) -> Result<*mut BlockIoProtocol, String> {
    protocol_of(handle, &BlockIoProtocol::GUID).ok_or_else(|| "no BlockIo".into())
}

fn block_io_2(handle: Handle) -> Result<*mut BlockIo2Protocol, String> {
    protocol_of(handle, &BlockIo2Protocol::GUID).ok_or_else(|| "no BlockIo2".into())
}

fn disk_io(handle: Handle) -> Result<*mut DiskIoProtocol, String> {
    protocol_of(handle, &DiskIoProtocol::GUID).ok_or_else(|| "no DiskIo".into())
}

fn disk_io_2(handle: Handle) -> Result<*mut DiskIo2Protocol, String> {
    protocol_of(handle, &DiskIo2Protocol::GUID).ok_or_else(|| "no DiskIo2".into())
}

fn media(handle: Handle) -> Result<BlockIoMedia, String> {
    let block = block_io(handle)?;
    Ok(efi!(*(*block).media))
}

/// Memory that any disk can transfer to: its own pages.
struct Buffer(u64, usize);

impl Buffer {
    fn new(size: usize) -> Self {
        use uefi_raw::table::boot::{AllocateType, MemoryType};
        let mut address = 0;
        let pages = size.div_ceil(4096);
        let _ = bs!(allocate_pages(AllocateType::ANY_PAGES, MemoryType::LOADER_DATA, pages, &mut address));
        efi!((address as *mut u8).write_bytes(0xCC, pages * 4096));
        Self(address, size)
    }

    fn at<T>(&self) -> *mut T {
        self.0 as *mut T
    }

    fn bytes(&self) -> &[u8] {
        efi!(core::slice::from_raw_parts(self.at(), self.1))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = bs!(free_pages(self.0, self.1.div_ceil(4096)));
    }
}

fn read(handle: Handle, lba: u64, size: usize) -> Result<Buffer, String> {
    let (block, buffer, id) = (block_io(handle)?, Buffer::new(size), media(handle)?.media_id);
    let status = call!(block.read_blocks(id, lba, size, buffer.at()));
    if status.is_success() { Ok(buffer) } else { Err(alloc::format!("reading {size} bytes at {lba}: {status:?}")) }
}

fn every_medium_is_described() -> Outcome {
    let handles = handles_with(&BlockIoProtocol::GUID);
    check!(handles.len() >= 2, "{} handles", handles.len());
    for handle in handles {
        let media = media(handle)?;
        check!(media.media_present.is_true() && media.last_block > 0, "{media:?}");
        check!(media.block_size >= 512 && media.block_size.is_power_of_two(), "{media:?}");
        check!(media.io_align == 0 || media.io_align.is_power_of_two(), "{media:?}");
        check!(efi!((*block_io(handle)?).revision) >= BlockIoProtocol::REVISION);
    }
    Ok(())
}

fn both_block_protocols_describe_the_same_medium() -> Outcome {
    for handle in handles_with(&BlockIo2Protocol::GUID) {
        same!(efi!(*(*block_io_2(handle)?).media), media(handle)?);
    }
    Ok(())
}

fn blocks_read_alike_in_one_piece_and_in_many() -> Outcome {
    for handle in [partition(), disk()?] {
        let size = media(handle)?.block_size as usize;
        let whole = read(handle, 0, 2 * MIB + size)?;
        for (lba, block) in whole.bytes().chunks(size).enumerate().step_by(97) {
            check!(read(handle, lba as u64, size)?.bytes() == block, "block {lba}");
        }
    }
    Ok(())
}

fn read_blocks_tells_what_is_wrong() -> Outcome {
    for handle in [partition(), disk()?] {
        let (block, media, buffer) = (block_io(handle)?, media(handle)?, Buffer::new(2 * 4096));
        let (id, size, last) = (media.media_id, media.block_size as usize, media.last_block);
        want!(MEDIA_CHANGED, call!(block.read_blocks(id + 1, 0, size, buffer.at())));
        want!(BAD_BUFFER_SIZE, call!(block.read_blocks(id, 0, size + 1, buffer.at())));
        want!(BAD_BUFFER_SIZE, call!(block.read_blocks(id, 0, 1, buffer.at())));
        want!(INVALID_PARAMETER, call!(block.read_blocks(id, last + 1, size, buffer.at())));
        want!(INVALID_PARAMETER, call!(block.read_blocks(id, last, 2 * size, buffer.at())));
        want!(INVALID_PARAMETER, call!(block.read_blocks(id, u64::MAX, size, buffer.at())));
        want!(INVALID_PARAMETER, call!(block.read_blocks(id, 0, size, null_mut())));
        want!(SUCCESS, call!(block.read_blocks(id, 0, 0, buffer.at())));
        want!(SUCCESS, call!(block.read_blocks(id, last, size, buffer.at())));
    }
    Ok(())
}

fn write_blocks_tells_what_is_wrong() -> Outcome {
    let handle = partition();
    let (block, media, buffer) = (block_io(handle)?, media(handle)?, Buffer::new(2 * 4096));
    let (id, size, last) = (media.media_id, media.block_size as usize, media.last_block);
    want!(MEDIA_CHANGED, call!(block.write_blocks(id + 1, 0, size, buffer.at())));
    want!(BAD_BUFFER_SIZE, call!(block.write_blocks(id, 0, size + 1, buffer.at())));
    want!(INVALID_PARAMETER, call!(block.write_blocks(id, last + 1, size, buffer.at())));
    want!(INVALID_PARAMETER, call!(block.write_blocks(id, last, 2 * size, buffer.at())));
    want!(INVALID_PARAMETER, call!(block.write_blocks(id, 0, size, null_mut())));
    want!(SUCCESS, call!(block.write_blocks(id, 0, 0, buffer.at())));
    Ok(())
}

fn blocks_can_be_written_and_flushed() -> Outcome {
    let handle = disk()?;
    let (block, media) = (block_io(handle)?, media(handle)?);
    let (id, size) = (media.media_id, media.block_size as usize);
    let lba = GAP / size as u64;
    let new = Buffer::new(8 * size);
    for (index, byte) in efi!(core::slice::from_raw_parts_mut(new.at::<u8>(), new.1)).iter_mut().enumerate() {
        *byte = ((index * 7) >> 3) as u8;
    }
    want!(SUCCESS, call!(block.write_blocks(id, lba, 8 * size, new.at())));
    want!(SUCCESS, call!(block.flush_blocks()));
    check!(read(handle, lba, 8 * size)?.bytes() == new.bytes());
    want!(SUCCESS, call!(block.reset(Boolean::FALSE)));
    check!(read(handle, lba + 3, size)?.bytes() == &new.bytes()[3 * size..4 * size]);
    Ok(())
}

fn token() -> BlockIo2Token {
    BlockIo2Token { event: plain_event(EventType::empty()), transaction_status: Status::NOT_READY }
}

fn wait(event: &uefi_raw::Event) -> Status {
    let mut index = 0;
    let status = bs!(wait_for_event(1, event, &mut index));
    let _ = bs!(close_event(*event));
    status
}

fn block_2_reads_with_an_event() -> Outcome {
    let handle = partition();
    let (block, media) = (block_io_2(handle)?, media(handle)?);
    let (buffer, mut token) = (Buffer::new(MIB), token());
    want!(SUCCESS, call!(block.read_blocks_ex(media.media_id, 0, &mut token, MIB, buffer.at())));
    want!(SUCCESS, wait(&token.event));
    let status = efi!((&raw const token.transaction_status).read_volatile());
    same!(status, Status::SUCCESS);
    check!(read(handle, 0, MIB)?.bytes() == buffer.bytes());
    Ok(())
}

fn block_2_reads_many_at_once() -> Outcome {
    const MANY: usize = 40;
    let handle = partition();
    let (block, media) = (block_io_2(handle)?, media(handle)?);
    let buffers: Vec<Buffer> = (0..MANY).map(|_| Buffer::new(16 * 4096)).collect();
    let mut tokens: Vec<BlockIo2Token> = (0..MANY).map(|_| token()).collect();
    let blocks = 16 * 4096 / u64::from(media.block_size);
    for (index, (buffer, token)) in buffers.iter().zip(&mut tokens).enumerate() {
        let lba = index as u64 * blocks;
        want!(SUCCESS, call!(block.read_blocks_ex(media.media_id, lba, token, 16 * 4096, buffer.at())));
    }
    for (index, (buffer, token)) in buffers.iter().zip(&tokens).enumerate() {
        want!(SUCCESS, wait(&token.event));
        same!(efi!((&raw const token.transaction_status).read_volatile()), Status::SUCCESS);
        check!(read(handle, index as u64 * blocks, 16 * 4096)?.bytes() == buffer.bytes(), "request {index}");
    }
    Ok(())
}

fn block_2_without_an_event_waits() -> Outcome {
    let handle = partition();
    let (block, media) = (block_io_2(handle)?, media(handle)?);
    let size = media.block_size as usize;
    let mut token = BlockIo2Token { event: null_mut(), transaction_status: Status::NOT_READY };
    for token in [null_mut(), &raw mut token] {
        let buffer = Buffer::new(size);
        want!(SUCCESS, call!(block.read_blocks_ex(media.media_id, 0, token, size, buffer.at())));
        check!(read(handle, 0, size)?.bytes() == buffer.bytes());
    }
    want!(SUCCESS, call!(block.flush_blocks_ex(null_mut())));
    Ok(())
}

fn block_2_tells_what_is_wrong() -> Outcome {
    let handle = partition();
    let (block, media, buffer) = (block_io_2(handle)?, media(handle)?, Buffer::new(2 * 4096));
    let (id, size, last) = (media.media_id, media.block_size as usize, media.last_block);
    let mut token = token();
    want!(MEDIA_CHANGED, call!(block.read_blocks_ex(id + 1, 0, &mut token, size, buffer.at())));
    want!(BAD_BUFFER_SIZE, call!(block.read_blocks_ex(id, 0, &mut token, size + 1, buffer.at())));
    want!(INVALID_PARAMETER, call!(block.read_blocks_ex(id, last + 1, &mut token, size, buffer.at())));
    want!(INVALID_PARAMETER, call!(block.read_blocks_ex(id, 0, &mut token, size, null_mut())));
    want!(MEDIA_CHANGED, call!(block.write_blocks_ex(id + 1, 0, &mut token, size, buffer.at())));
    want!(INVALID_PARAMETER, call!(block.write_blocks_ex(id, last, &mut token, 2 * size, buffer.at())));
    want!(NOT_READY, bs!(check_event(token.event)));
    want!(SUCCESS, call!(block.flush_blocks_ex(&mut token)));
    want!(SUCCESS, wait(&token.event));
    want!(SUCCESS, call!(block.reset(Boolean::FALSE)));
    Ok(())
}

fn disk_io_reads_what_block_io_reads() -> Outcome {
    for handle in [partition(), disk()?] {
        let (disk, media) = (disk_io(handle)?, media(handle)?);
        let whole = read(handle, 0, 256 * 1024)?;
        for (offset, size) in
            [(0, 1), (1, 1), (511, 2), (4095, 4098), (100, 100_000), (512, 512), (8192, 65536), (7, 0)]
        {
            let mut bytes = alloc::vec![0u8; size];
            want!(SUCCESS, call!(disk.read_disk(media.media_id, offset as u64, size, bytes.as_mut_ptr().cast())));
            check!(bytes == whole.bytes()[offset..offset + size], "{size} bytes at {offset}");
        }
    }
    Ok(())
}

fn disk_io_writes_only_what_it_is_told() -> Outcome {
    let handle = disk()?;
    let (disk, media) = (disk_io(handle)?, media(handle)?);
    let lba = GAP / u64::from(media.block_size);
    for (offset, size) in [(1, 1), (500, 20), (4090, 9000), (4096, 4096), (3, 4093)] {
        let mut expected = read(handle, lba, 32 * 1024)?.bytes().to_vec();
        let bytes: Vec<u8> = expected[offset..offset + size].iter().map(|byte| !byte).collect();
        expected[offset..offset + size].copy_from_slice(&bytes);
        let at = GAP + offset as u64;
        want!(SUCCESS, call!(disk.write_disk(media.media_id, at, size, bytes.as_ptr().cast())));
        check!(read(handle, lba, 32 * 1024)?.bytes() == expected, "{size} bytes at {offset}");
    }
    Ok(())
}

fn disk_io_tells_what_is_wrong() -> Outcome {
    let handle = partition();
    let (disk, media) = (disk_io(handle)?, media(handle)?);
    let end = (media.last_block + 1) * u64::from(media.block_size);
    let mut bytes = [0u8; 64];
    let (id, buffer) = (media.media_id, bytes.as_mut_ptr());
    want!(MEDIA_CHANGED, call!(disk.read_disk(id + 1, 0, 64, buffer.cast())));
    want!(INVALID_PARAMETER, call!(disk.read_disk(id, end, 64, buffer.cast())));
    want!(INVALID_PARAMETER, call!(disk.read_disk(id, end - 63, 64, buffer.cast())));
    want!(INVALID_PARAMETER, call!(disk.read_disk(id, u64::MAX - 3, 64, buffer.cast())));
    want!(SUCCESS, call!(disk.read_disk(id, end - 64, 64, buffer.cast())));
    want!(MEDIA_CHANGED, call!(disk.write_disk(id + 1, 0, 64, buffer.cast())));
    want!(INVALID_PARAMETER, call!(disk.write_disk(id, end - 63, 64, buffer.cast())));
    Ok(())
}

fn token_2() -> DiskIo2Token {
    DiskIo2Token { event: plain_event(EventType::empty()), transaction_status: Status::NOT_READY }
}

fn disk_2_reads_and_writes_with_an_event() -> Outcome {
    let handle = disk()?;
    let (disk, id) = (disk_io_2(handle)?, media(handle)?.media_id);
    let bytes: Vec<u8> = (0..10_000u32).map(|index| (index % 251) as u8).collect();
    let (mut back, mut token) = (alloc::vec![0u8; bytes.len()], token_2());
    let at = GAP + 777;
    want!(SUCCESS, call!(disk.write_disk_ex(id, at, &mut token, bytes.len(), bytes.as_ptr().cast())));
    want!(SUCCESS, wait(&token.event));
    same!(efi!((&raw const token.transaction_status).read_volatile()), Status::SUCCESS);
    let mut token = token_2();
    want!(SUCCESS, call!(disk.read_disk_ex(id, at, &mut token, back.len(), back.as_mut_ptr().cast())));
    want!(SUCCESS, wait(&token.event));
    same!(efi!((&raw const token.transaction_status).read_volatile()), Status::SUCCESS);
    check!(back == bytes);
    let mut token = token_2();
    want!(SUCCESS, call!(disk.flush_disk_ex(&mut token)));
    want!(SUCCESS, wait(&token.event));
    want!(SUCCESS, call!(disk.read_disk_ex(id, at, null_mut(), back.len(), back.as_mut_ptr().cast())));
    want!(SUCCESS, call!(disk.cancel()));
    Ok(())
}

fn disk_2_tells_what_is_wrong() -> Outcome {
    let handle = partition();
    let (disk, media, mut token) = (disk_io_2(handle)?, media(handle)?, token_2());
    let end = (media.last_block + 1) * u64::from(media.block_size);
    let mut bytes = [0u8; 64];
    let buffer = bytes.as_mut_ptr();
    want!(MEDIA_CHANGED, call!(disk.read_disk_ex(media.media_id + 1, 0, &mut token, 64, buffer.cast())));
    want!(INVALID_PARAMETER, call!(disk.read_disk_ex(media.media_id, end, &mut token, 64, buffer.cast())));
    want!(MEDIA_CHANGED, call!(disk.write_disk_ex(media.media_id + 1, 0, &mut token, 64, buffer.cast())));
    want!(NOT_READY, bs!(check_event(token.event)));
    want!(SUCCESS, bs!(close_event(token.event)));
    Ok(())
}

/// First and last block of this program's partition.
fn extent() -> Result<(u64, u64), String> {
    let info = protocol_of::<u8>(partition(), &PARTITION_INFO).ok_or("no PartitionInfo")?;
    let word = |at: usize| efi!(info.add(at).cast::<u64>().read_unaligned());
    // After revision, type, the system flag and 7 reserved bytes: the GPT entry with two GUIDs in front.
    Ok((word(16 + 32), word(16 + 40)))
}

fn the_partition_is_described() -> Outcome {
    const REVISION: u32 = 0x1000;
    const GPT: u32 = 2;
    const ESP: Guid = guid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    let info = protocol_of::<u8>(partition(), &PARTITION_INFO).ok_or("no PartitionInfo")?;
    let half = |at: usize| efi!(info.add(at).cast::<u32>().read_unaligned());
    same!((half(0), half(4)), (REVISION, GPT));
    same!(efi!(*info.add(8)), 1);
    same!(efi!(info.add(16).cast::<Guid>().read_unaligned()), ESP);
    let (first, last) = extent()?;
    same!(last - first, media(partition())?.last_block);
    check!(media(partition())?.logical_partition.is_true());
    Ok(())
}

fn the_partition_is_a_part_of_its_disk() -> Outcome {
    let (first, _) = extent()?;
    check!(read(partition(), 0, 65536)?.bytes() == read(disk()?, first, 65536)?.bytes());
    Ok(())
}
