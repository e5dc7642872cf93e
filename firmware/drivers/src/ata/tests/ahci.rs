//! Through an AHCI controller.

use std::cell::RefCell;
use std::rc::Rc;

use services::block::{BlockDevice, BlockError};

use super::{content, memory, read_anywhere};
use crate::ata::Unit;
use crate::ata::ahci::Controller;
use crate::ata::command::{Error, FLUSH_CACHE_EXT, READ_DMA, READ_DMA_EXT, WRITE_DMA};
use crate::ata::device::{Device, Found, SharedLink, find};
use crate::ata::testing::World;
use crate::ata::testing::ahci::{AhciWindow, FakeAhci};
use crate::ata::testing::disk::{FakeDisk, Fault, Shared};
use crate::domain::{MILLISECOND, SECOND};

struct Ahci {
    world: World,
    ahci: Rc<RefCell<FakeAhci>>,
    link: SharedLink,
}

fn port(device: Option<FakeDisk>) -> Ahci {
    let world = World::new();
    let ahci = FakeAhci::new(world.hypervisor, vec![None, device]);
    let controller = Controller::start(world.machine, Rc::new(AhciWindow(ahci.clone()))).unwrap();
    assert_eq!(controller.ports().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    let link: SharedLink = Rc::new(RefCell::new(controller.port(1)));
    Ahci { world, ahci, link }
}

impl Ahci {
    fn find(&self) -> Result<Found, Error> {
        find(&self.world.machine, &self.link, 0, Unit::Ahci { port: 1 })
    }

    fn accesses(&self) -> usize {
        std::mem::take(&mut self.ahci.borrow_mut().accesses)
    }
}

fn with(device: FakeDisk) -> (Ahci, Device, Rc<Shared>) {
    let shared = device.shared.clone();
    let ahci = port(Some(device));
    let Ok(Found::Device(device)) = ahci.find() else { panic!("no device") };
    shared.seen.borrow_mut().clear();
    (ahci, device, shared)
}

#[test]
fn a_large_read_is_one_command() {
    let (ahci, mut disk, shared) = with(FakeDisk::disk(content(20 << 20)));
    let into = memory(16 << 20, 0);
    disk.read(3, into).unwrap();
    assert!(*into == shared.bytes.borrow()[3 * 512..][..into.len()]);
    assert_eq!(*shared.seen.borrow(), [(READ_DMA_EXT, 3, 32768)]);
    assert_eq!(ahci.world.frames.live(), 1, "no buffer of ours");
}

#[test]
fn a_read_takes_two_register_accesses() {
    let (ahci, mut disk, shared) = with(FakeDisk::disk(content(1 << 20)));
    ahci.accesses();
    disk.read(0, memory(4096, 0)).unwrap();
    assert_eq!(*shared.seen.borrow(), [(READ_DMA, 0, 8)]);
    assert_eq!(ahci.accesses(), 2);
}

#[test]
fn any_memory_of_the_caller_will_do() {
    let (_, mut disk, shared) = with(FakeDisk::disk(content(1 << 20)));
    let expected = shared.bytes.borrow().clone();
    read_anywhere(&mut disk, &expected);
}

#[test]
fn what_is_written_is_on_the_disk_and_flushed_at_the_end() {
    let (ahci, mut disk, shared) = with(FakeDisk::disk(content(1 << 20)));
    for shift in [0, 1] {
        let from = memory(70 << 10, shift);
        from.fill(0xA5 + shift as u8);
        disk.write(100, from).unwrap();
        assert!(*from == shared.bytes.borrow()[51200..][..from.len()]);
    }
    disk.close();
    ahci.link.borrow_mut().stop();
    let codes: Vec<u8> = shared.seen.borrow().iter().map(|seen| seen.0).collect();
    assert_eq!(codes, [WRITE_DMA, WRITE_DMA, FLUSH_CACHE_EXT]);
}

#[test]
fn interrupts_are_off_and_in_the_end_the_port_is_stopped() {
    let (ahci, mut disk, _) = with(FakeDisk::disk(content(4096)));
    assert_eq!(ahci.ahci.borrow().control, 1 << 31);
    assert_eq!(ahci.ahci.borrow().running(1), (true, true));
    let before = hw::fake::CountingAllocator::count();
    disk.close();
    ahci.link.borrow_mut().stop();
    assert_eq!(hw::fake::CountingAllocator::count(), before);
    assert_eq!(ahci.ahci.borrow().running(1), (false, false));
    assert_eq!(disk.read(0, memory(512, 0)), Err(BlockError::Device));
}

#[test]
fn an_empty_port_is_found_out_with_one_access() {
    let ahci = port(None);
    ahci.accesses();
    assert!(matches!(ahci.find(), Ok(Found::Nothing)));
    assert_eq!(ahci.accesses(), 1);
    assert_eq!(ahci.world.frames.live(), 0);
}

#[test]
fn a_cd_is_read_in_its_own_blocks() {
    let cd = FakeDisk::cd(content(1 << 20));
    cd.shared.sense.borrow_mut().extend([(6, 0x29, 0), (2, 4, 1)]);
    let (_, mut cd, shared) = with(cd);
    assert_eq!((cd.geometry().block_size, cd.geometry().blocks), (2048, 512));
    let into = memory(900 << 10, 2);
    cd.read(3, into).unwrap();
    assert!(*into == content(1 << 20)[3 * 2048..][..into.len()]);
    assert_eq!(*shared.seen.borrow(), [(0x28, 3, 450)]);
    assert_eq!(cd.write(0, memory(2048, 0)), Err(BlockError::WriteProtected));
}

#[test]
fn an_empty_drive_is_no_disk() {
    assert!(matches!(port(Some(FakeDisk::cd(Vec::new()))).find(), Ok(Found::NoMedium)));
}

#[test]
fn a_bad_sector_is_an_error_and_the_disk_goes_on() {
    for device in [FakeDisk::disk(content(1 << 20)), FakeDisk::cd(content(1 << 20))] {
        let (_, mut device, shared) = with(device);
        shared.fault.set(Fault::BadSector);
        assert_eq!(device.read(0, memory(2048, 0)), Err(BlockError::Device));
        shared.fault.set(Fault::None);
        assert_eq!(device.read(0, memory(2048, 0)), Ok(()));
    }
}

#[test]
fn nothing_hangs_whatever_a_device_does() {
    for fault in [Fault::Stuck, Fault::Dead, Fault::NoData, Fault::Dma, Fault::Pulled] {
        let (ahci, mut disk, shared) = with(FakeDisk::disk(content(1 << 20)));
        shared.fault.set(fault);
        ahci.world.hypervisor.step_ns.set(MILLISECOND);
        let start = ahci.world.now();
        assert_eq!(disk.read(0, memory(4096, 0)), Err(BlockError::Device), "{fault:?}");
        assert!(ahci.world.now() - start < 75 * SECOND, "{fault:?}");
        ahci.link.borrow_mut().stop();
    }
}

#[test]
fn a_device_that_was_stuck_is_reset_and_goes_on() {
    let (ahci, mut disk, shared) = with(FakeDisk::disk(content(1 << 20)));
    ahci.world.hypervisor.step_ns.set(MILLISECOND);
    shared.fault.set(Fault::Stuck);
    assert_eq!(disk.read(0, memory(4096, 0)), Err(BlockError::Device));
    shared.fault.set(Fault::None);
    assert_eq!(disk.read(0, memory(4096, 0)), Ok(()));
}

#[test]
fn a_device_that_is_stuck_while_it_is_looked_for_is_no_device() {
    for fault in [Fault::Stuck, Fault::Dead, Fault::NoData, Fault::Dma, Fault::Pulled] {
        let disk = FakeDisk::disk(content(4096));
        disk.shared.fault.set(fault);
        let ahci = port(Some(disk));
        ahci.world.hypervisor.step_ns.set(MILLISECOND);
        let start = ahci.world.now();
        assert!(!matches!(ahci.find(), Ok(Found::Device(_))), "{fault:?}");
        assert!(ahci.world.now() - start < 15 * SECOND, "{fault:?}");
    }
}

#[test]
fn a_controller_that_is_gone_is_left_alone() {
    let world = World::new();
    let disk = FakeDisk::disk(content(4096));
    let ahci = FakeAhci::new(world.hypervisor, vec![Some(disk)]);
    ahci.borrow_mut().control = u32::MAX;
    assert!(Controller::start(world.machine, Rc::new(AhciWindow(ahci))).is_none());
}
