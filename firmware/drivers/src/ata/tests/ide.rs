//! Through an IDE channel.

use std::cell::RefCell;
use std::rc::Rc;

use services::block::{BlockDevice, BlockError};

use super::{content, memory, read_anywhere};
use crate::ata::Unit;
use crate::ata::command::{self, FLUSH_CACHE_EXT, READ_DMA, READ_DMA_EXT, READ_SECTORS, WRITE_DMA};
use crate::ata::device::{Device, Found, SharedLink, find};
use crate::ata::ide::Channel;
use crate::ata::testing::World;
use crate::ata::testing::disk::{FakeDisk, Fault, Shared};
use crate::ata::testing::ide::{FakeIde, IdePorts, REGISTERS};
use crate::domain::{MILLISECOND, SECOND};

const UNIT: Unit = Unit::Ide { channel: 0, device: 0 };

struct Ide {
    world: World,
    ide: Rc<RefCell<FakeIde>>,
    link: SharedLink,
}

fn channel(master: Option<FakeDisk>, slave: Option<FakeDisk>) -> Ide {
    let world = World::new();
    let ide = FakeIde::new(master, slave);
    world.ports.devices.borrow_mut().push(Box::new(IdePorts(ide.clone(), world.hypervisor)));
    let link: SharedLink = Rc::new(RefCell::new(Channel::new(world.machine, REGISTERS)));
    Ide { world, ide, link }
}

impl Ide {
    fn find(&self, device: u8) -> Result<Found, command::Error> {
        find(&self.world.machine, &self.link, device, Unit::Ide { channel: 0, device })
    }

    fn device(&self, device: u8) -> Device {
        match self.find(device) {
            Ok(Found::Device(device)) => device,
            _ => panic!("no device"),
        }
    }

    fn accesses(&self) -> usize {
        std::mem::take(&mut self.ide.borrow_mut().accesses)
    }
}

fn with_disk(length: usize) -> (Ide, Device, Rc<Shared>) {
    let disk = FakeDisk::disk(content(length));
    let shared = disk.shared.clone();
    let ide = channel(Some(disk), None);
    let device = ide.device(0);
    (ide, device, shared)
}

#[test]
fn a_large_read_is_one_command() {
    let (ide, mut disk, shared) = with_disk(20 << 20);
    let into = memory(16 << 20, 0);
    disk.read(3, into).unwrap();
    assert!(*into == shared.bytes.borrow()[3 * 512..][..into.len()]);
    assert_eq!(*shared.seen.borrow(), [(READ_DMA_EXT, 3, 32768)]);
    assert_eq!((ide.ide.borrow().transfers, ide.world.frames.live()), (1, 1), "no buffer of ours");
}

#[test]
fn a_small_read_takes_eight_register_accesses() {
    let (ide, mut disk, shared) = with_disk(1 << 20);
    disk.read(0, memory(4096, 0)).unwrap();
    ide.accesses();
    disk.read(0, memory(4096, 0)).unwrap();
    assert_eq!(shared.seen.borrow().last(), Some(&(READ_DMA, 0, 8)));
    // The fake reports an interrupt, which is cleared; a device model does not while interrupts are off.
    assert!(ide.accesses() <= 8);
}

#[test]
fn any_memory_of_the_caller_will_do() {
    let (_, mut disk, shared) = with_disk(1 << 20);
    let expected = shared.bytes.borrow().clone();
    read_anywhere(&mut disk, &expected);
}

#[test]
fn a_sector_that_ends_like_the_mark_is_read_too() {
    let (_, mut disk, shared) = with_disk(1 << 20);
    let mark = [0xC5, 0x1A, 0x97, 0xE3, 0x0B, 0xD8, 0x6F, 0x54];
    shared.bytes.borrow_mut()[1016..1024].copy_from_slice(&mark);
    for shift in [0, 1] {
        let into = memory(512, shift);
        disk.read(1, into).unwrap();
        assert_eq!(into.last_chunk(), Some(&mark));
    }
}

#[test]
fn what_is_written_is_on_the_disk_and_flushed_once() {
    let (_, mut disk, shared) = with_disk(1 << 20);
    for (lba, shift) in [(0, 0), (100, 1), (2047, 6)] {
        let length = if lba == 2047 { 512 } else { 70 << 10 };
        let from = memory(length, shift);
        from.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index * 3) as u8 ^ 0x5A);
        disk.write(lba, from).unwrap();
        assert!(*from == shared.bytes.borrow()[lba as usize * 512..][..length]);
    }
    assert!(shared.seen.borrow().iter().all(|(code, ..)| *code == WRITE_DMA));
    shared.seen.borrow_mut().clear();
    disk.flush().unwrap();
    disk.flush().unwrap();
    assert_eq!(*shared.seen.borrow(), [(FLUSH_CACHE_EXT, 0, 0)]);
}

#[test]
fn what_is_not_on_the_disk_is_refused_without_asking_it() {
    let (_, mut disk, shared) = with_disk(4096);
    for (lba, length) in [(8, 512), (7, 1024), (u64::MAX, 512), (0, 100)] {
        assert_eq!(disk.read(lba, memory(length, 0)), Err(BlockError::InvalidParameter), "{lba} {length}");
    }
    assert_eq!(disk.read(8, &mut []), Ok(()));
    assert!(shared.seen.borrow().is_empty());
}

#[test]
fn absent_devices_are_found_out_at_once() {
    let ide = channel(Some(FakeDisk::disk(content(4096))), None);
    ide.accesses();
    assert!(matches!(ide.find(1), Ok(Found::Nothing)));
    assert!(ide.accesses() <= 4);
    let world = World::new();
    let link: SharedLink = Rc::new(RefCell::new(Channel::new(world.machine, REGISTERS)));
    let start = world.now();
    assert!(matches!(find(&world.machine, &link, 0, UNIT), Ok(Found::Nothing)), "floating bus");
    assert!(world.now() - start < MILLISECOND);
}

#[test]
fn both_devices_of_a_channel_can_be_used_in_turn() {
    let ide = channel(Some(FakeDisk::disk(content(4096))), Some(FakeDisk::disk(vec![0x77; 8192])));
    let (mut master, mut slave) = (ide.device(0), ide.device(1));
    for _ in 0..2 {
        let (one, two) = (memory(512, 0), memory(512, 0));
        master.read(1, one).unwrap();
        slave.read(1, two).unwrap();
        assert!(*one == content(1024)[512..] && *two == [0x77; 512]);
    }
}

#[test]
fn identities_that_make_no_sense_are_refused() {
    for fill in [0, 0xFF, 0x5A] {
        let mut disk = FakeDisk::disk(content(4096));
        disk.identity = [fill; 512];
        assert!(channel(Some(disk), None).find(0).is_err(), "{fill:#x}");
    }
    assert!(channel(Some(FakeDisk::disk(Vec::new())), None).find(0).is_err(), "no sectors");
}

#[test]
fn a_bad_sector_is_an_error_and_the_disk_goes_on() {
    let (_, mut disk, shared) = with_disk(1 << 20);
    shared.fault.set(Fault::BadSector);
    assert_eq!(disk.read(0, memory(512, 0)), Err(BlockError::Device));
    shared.fault.set(Fault::None);
    assert_eq!(disk.read(0, memory(512, 0)), Ok(()));
    assert!(shared.seen.borrow().iter().all(|(code, ..)| *code == READ_DMA), "DMA is still trusted");
}

#[test]
fn where_dma_fails_data_goes_through_the_data_register() {
    let (_, mut disk, shared) = with_disk(1 << 20);
    shared.fault.set(Fault::Dma);
    let into = memory(300 << 10, 0);
    disk.read(1, into).unwrap();
    assert!(*into == shared.bytes.borrow()[512..][..into.len()]);
    assert!(shared.seen.borrow()[1..].iter().all(|(code, ..)| *code == READ_SECTORS || *code == READ_SECTORS + 4));
    let from = memory(4096, 0);
    from.fill(0xC3);
    disk.write(5, from).unwrap();
    assert_eq!(shared.bytes.borrow()[5 * 512..][..4096], [0xC3; 4096]);
}

#[test]
fn nothing_hangs_whatever_a_device_does() {
    for fault in [Fault::Stuck, Fault::Dead, Fault::NoData, Fault::Pulled] {
        let (ide, mut disk, shared) = with_disk(1 << 20);
        shared.fault.set(fault);
        ide.world.hypervisor.step_ns.set(MILLISECOND);
        let start = ide.world.now();
        assert_eq!(disk.read(0, memory(4096, 0)), Err(BlockError::Device), "{fault:?}");
        assert_eq!(disk.write(0, memory(4096, 0)), Err(BlockError::Device), "{fault:?}");
        assert!(ide.world.now() - start < 150 * SECOND, "{fault:?}");
        ide.link.borrow_mut().stop();
    }
}

#[test]
fn a_device_that_is_stuck_while_it_is_looked_for_is_an_error() {
    for fault in [Fault::Stuck, Fault::Dead, Fault::NoData, Fault::Pulled] {
        let disk = FakeDisk::disk(content(4096));
        disk.shared.fault.set(fault);
        let ide = channel(Some(disk), None);
        let start = ide.world.now();
        assert!(!matches!(ide.find(0), Ok(Found::Device(_))), "{fault:?}");
        assert!(ide.world.now() - start < 15 * SECOND, "{fault:?}");
    }
}

#[test]
fn a_dead_channel_is_given_up() {
    let (ide, mut disk, shared) = with_disk(1 << 20);
    shared.fault.set(Fault::Dead);
    assert_eq!(disk.read(0, memory(512, 0)), Err(BlockError::Device));
    ide.accesses();
    assert_eq!(disk.read(0, memory(512, 0)), Err(BlockError::Device));
    assert_eq!(ide.accesses(), 0);
}

#[test]
fn after_the_end_the_bus_master_is_stopped_and_interrupts_are_as_after_a_reset() {
    let (ide, mut disk, _) = with_disk(4096);
    disk.read(0, memory(512, 0)).unwrap();
    assert_eq!(ide.ide.borrow().control, 2);
    disk.close();
    ide.link.borrow_mut().stop();
    assert_eq!((ide.ide.borrow().control, ide.ide.borrow().bus_master), (0, 0));
    assert_eq!(disk.read(0, memory(512, 0)), Err(BlockError::Device));
}

#[test]
fn closing_a_disk_flushes_it_without_allocating() {
    use hw::fake::CountingAllocator;
    let (ide, mut disk, shared) = with_disk(4096);
    disk.write(0, memory(512, 0)).unwrap();
    shared.seen.borrow_mut().reserve(1);
    let before = CountingAllocator::count();
    disk.close();
    ide.link.borrow_mut().stop();
    assert_eq!(CountingAllocator::count(), before);
    assert_eq!(shared.seen.borrow().last(), Some(&(FLUSH_CACHE_EXT, 0, 0)));
}

#[test]
fn a_cd_is_read_in_its_own_blocks() {
    let cd = FakeDisk::cd(content(1 << 20));
    let shared = cd.shared.clone();
    shared.sense.borrow_mut().extend([(6, 0x29, 0), (6, 0x28, 0), (2, 4, 1)]);
    let ide = channel(None, Some(cd));
    let mut cd = ide.device(1);
    let geometry = cd.geometry();
    assert_eq!((geometry.block_size, geometry.blocks, geometry.read_only, geometry.removable), (2048, 512, true, true));
    shared.seen.borrow_mut().clear();
    let into = memory(900 << 10, 2);
    cd.read(3, into).unwrap();
    assert!(*into == content(1 << 20)[3 * 2048..][..into.len()]);
    assert_eq!(*shared.seen.borrow(), [(0x28, 3, 450)]);
    assert_eq!(cd.write(0, memory(2048, 0)), Err(BlockError::WriteProtected));
    assert_eq!(cd.flush(), Ok(()));
}

#[test]
fn an_empty_drive_is_no_disk() {
    assert!(matches!(channel(Some(FakeDisk::cd(Vec::new())), None).find(0), Ok(Found::NoMedium)));
}

#[test]
fn a_reset_of_the_drive_is_overlooked_and_a_change_of_the_medium_is_not() {
    let cd = FakeDisk::cd(content(1 << 20));
    let shared = cd.shared.clone();
    let ide = channel(Some(cd), None);
    let mut cd = ide.device(0);
    shared.sense.borrow_mut().push((6, 0x29, 0));
    assert_eq!(cd.read(0, memory(2048, 0)), Ok(()));
    shared.sense.borrow_mut().push((6, 0x28, 0));
    assert_eq!(cd.read(0, memory(2048, 0)), Err(BlockError::NoMedia));
    shared.sense.borrow_mut().push((2, 0x3A, 0));
    assert_eq!(cd.read(0, memory(2048, 0)), Err(BlockError::NoMedia));
    shared.fault.set(Fault::BadSector);
    assert_eq!(cd.read(0, memory(2048, 0)), Err(BlockError::Device));
}

#[test]
fn where_dma_fails_a_cd_is_read_through_the_data_register() {
    let cd = FakeDisk::cd(content(1 << 16));
    let shared = cd.shared.clone();
    let ide = channel(Some(cd), None);
    let mut cd = ide.device(0);
    shared.fault.set(Fault::Dma);
    let into = memory(6144, 0);
    cd.read(1, into).unwrap();
    assert!(*into == content(1 << 16)[2048..8192]);
}

#[test]
fn a_drive_whose_medium_never_gets_ready_is_given_up() {
    let cd = FakeDisk::cd(content(4096));
    cd.shared.sense.borrow_mut().extend([(2, 4, 1); 10_000]);
    let ide = channel(Some(cd), None);
    ide.world.hypervisor.step_ns.set(MILLISECOND);
    let start = ide.world.now();
    assert!(ide.find(0).is_err());
    assert!(ide.world.now() - start < 10 * SECOND);
}

#[test]
fn a_device_is_told_apart_after_a_reset_of_the_channel() {
    let ide = channel(Some(FakeDisk::cd(content(4096))), None);
    ide.world.machine.ports.write_u8(REGISTERS.control, 4);
    ide.world.machine.ports.write_u8(REGISTERS.control, 2);
    assert!(matches!(ide.find(0), Ok(Found::Device(_))));
}
