//! Transfers against a scripted backend.

use std::rc::Rc;

use hw::fake::CountingAllocator;

use super::*;
use crate::bus::XenBus;
use crate::domain::{MILLISECOND, SECOND};
use crate::testing::{Fault, Random, Vbd, World, grant_entry};

const XVDA: u32 = 51712;

/// A world with one disk, and the disk connected.
fn connect_with(options: Options, prepare: impl Fn(&Vbd)) -> (World, Rc<Vbd>, XenBus, Disk) {
    let world = World::new(&[XVDA], prepare);
    let bus = XenBus::start(world.domain, options).unwrap();
    let disk = bus.connect_disks().pop().unwrap();
    let backend = world.disks[0].clone();
    (world, backend, bus, disk)
}

fn connect(path: DataPath) -> (World, Rc<Vbd>, XenBus, Disk) {
    connect_with(Options { path: Some(path), ..Options::default() }, |_| {})
}

/// Memory of `length` bytes that begins `misaligned` bytes after the start of a page.
fn memory(length: usize, misaligned: usize) -> &'static mut [u8] {
    let all = vec![0xEE; length + 2 * 4096].leak();
    let start = all.as_ptr().addr().next_multiple_of(4096) - all.as_ptr().addr() + misaligned;
    &mut all[start..start + length]
}

const BOTH: [DataPath; 2] = [DataPath::Copy, DataPath::Direct];

#[test]
fn reads_of_all_sizes_and_alignments_give_the_disks_content() {
    for path in BOTH {
        let (_, backend, _, mut disk) = connect(path);
        for (lba, sectors) in [(0, 1), (1, 8), (7, 9), (100, 88), (3, 89), (0, 512), (5, 3001), (0, 8192)] {
            for misaligned in [0, 512, 3584, 1, 4095] {
                let into = memory(sectors * 512, misaligned);
                disk.read(lba, into).unwrap();
                let start = lba as usize * 512;
                let expected = &backend.disk.borrow()[start..start + into.len()];
                assert!(*into == *expected, "{path:?} {lba} {sectors} {misaligned}");
            }
        }
    }
}

#[test]
fn writes_of_all_sizes_and_alignments_reach_the_disk_and_nothing_else() {
    for path in BOTH {
        let (_, backend, _, mut disk) = connect(path);
        let mut expected = backend.disk.borrow().clone();
        for (lba, sectors) in [(0, 1), (9, 8), (77, 200), (1000, 3001)] {
            for misaligned in [0, 1024, 3] {
                let from = memory(sectors * 512, misaligned);
                from.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index * 7 + sectors + misaligned) as u8);
                disk.write(lba, from).unwrap();
                expected[lba as usize * 512..][..from.len()].copy_from_slice(from);
                assert!(*backend.disk.borrow() == expected, "{path:?} {lba} {sectors} {misaligned}");
            }
        }
    }
}

#[test]
fn a_small_read_is_one_request_and_one_notification_and_no_grant_call() {
    let (world, backend, _, mut disk) = connect(DataPath::Copy);
    let into = memory(4096, 0);
    disk.read(0, into).unwrap();
    world.hypervisor.sent.borrow_mut().clear();
    backend.seen.borrow_mut().clear();
    let live = world.frames.live.get();
    disk.read(8, into).unwrap();
    assert_eq!(world.hypervisor.sent.borrow().len(), 1);
    assert_eq!(backend.seen.borrow().len(), 1);
    assert_eq!(world.frames.live.get(), live);
}

#[test]
fn a_large_read_keeps_several_requests_in_flight() {
    for path in BOTH {
        let (_, backend, _, mut disk) = connect(path);
        disk.read(0, memory(4 << 20, 0)).unwrap();
        assert!(backend.most_in_flight.get() >= 4, "{path:?}");
        assert!(backend.seen.borrow().iter().all(|seen| seen.indirect && seen.segments == 64), "{path:?}");
    }
}

#[test]
fn without_indirect_requests_the_usual_eleven_segments_are_used() {
    let options = Options { path: Some(DataPath::Copy), ..Options::default() };
    let (_, backend, _, mut disk) = connect_with(options, |backend| backend.withhold("feature-max-indirect-segments"));
    let into = memory(1 << 20, 0);
    disk.read(0, into).unwrap();
    assert!(*into == backend.disk.borrow()[..1 << 20]);
    assert!(backend.seen.borrow().iter().all(|seen| !seen.indirect && seen.segments <= 11));
    assert!(backend.most_in_flight.get() > 20);
}

#[test]
fn answers_may_come_in_any_order_and_a_few_at_a_time() {
    for path in BOTH {
        let (_, backend, _, mut disk) = connect(path);
        backend.reverse.set(true);
        backend.at_once.set(2);
        let into = memory(3 << 20, 0);
        disk.read(10, into).unwrap();
        assert!(*into == backend.disk.borrow()[5120..5120 + (3 << 20)]);
    }
}

#[test]
fn blocks_of_any_size_are_addressed_in_sectors_of_512() {
    for (path, block) in BOTH.into_iter().flat_map(|path| [(path, 4096), (path, 2048)]) {
        let options = Options { path: Some(path), ..Options::default() };
        let (_, backend, _, mut disk) =
            connect_with(options, |backend| backend.offer("sector-size", &block.to_string()));
        let geometry = disk.geometry();
        assert_eq!((geometry.block_size as usize, geometry.blocks as usize), (block, (4 << 20) / block));
        for misaligned in [0, 512] {
            let into = memory(3 * block, misaligned);
            disk.read(5, into).unwrap();
            assert!(*into == backend.disk.borrow()[5 * block..8 * block]);
        }
        assert!(backend.seen.borrow().iter().all(|seen| (seen.sector as usize).is_multiple_of(block / 512)));
        assert_eq!(disk.read(0, memory(512, 0)), Err(BlockError::InvalidParameter));
    }
}

#[test]
fn the_data_path_follows_what_the_backend_offers() {
    let (_, _, _, disk) = connect_with(Options::default(), |_| {});
    assert_eq!(disk.path(), Some(DataPath::Copy));
    let (_, _, _, disk) = connect_with(Options::default(), |backend| backend.withhold("feature-persistent"));
    assert_eq!(disk.path(), Some(DataPath::Direct));
}

#[test]
fn a_direct_read_grants_whole_pages_of_the_caller_only() {
    let (world, backend, _, mut disk) = connect(DataPath::Direct);
    let into = memory(3 * 4096, 512);
    let bounds = (into.as_ptr().addr(), into.as_ptr().addr() + into.len());
    let granted = Rc::new(std::cell::RefCell::new(Vec::new()));
    // Everything granted besides the ring is looked at when the backend is notified.
    let (hook, log) = (world.hypervisor.on_notify.take(), granted.clone());
    let mut hook = hook.unwrap();
    *world.hypervisor.on_notify.borrow_mut() = Some(Box::new(move |hypervisor, port| {
        let mapped = hypervisor.mapped.borrow().clone();
        for &frame in mapped.keys() {
            let page = hw::fake::FakeFrames::peer(hw::hypervisor::Gfn(frame));
            log.borrow_mut()
                .extend((8..512).filter(|e| page.read_u16(e * 8) & 3 == 1).map(|e| page.read_u32(e * 8 + 4)));
        }
        hook(hypervisor, port);
    }));
    disk.read(0, into).unwrap();
    assert!(*into == backend.disk.borrow()[..into.len()]);
    let frame = |address: usize| (address >> 12) as u32;
    let inside: Vec<u32> = (bounds.0.div_ceil(4096)..bounds.1 / 4096).map(|page| page as u32).collect();
    assert!(inside.iter().all(|page| granted.borrow().contains(page)));
    assert!(!granted.borrow().contains(&frame(bounds.0)) && !granted.borrow().contains(&frame(bounds.1)));
}

#[test]
fn what_is_not_on_the_disk_is_refused_without_asking_the_backend() {
    let (_, backend, _, mut disk) = connect(DataPath::Copy);
    backend.seen.borrow_mut().clear();
    for (lba, length) in [(8192, 512), (8191, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 100), (0, 513)] {
        assert_eq!(disk.read(lba, memory(length, 0)), Err(BlockError::InvalidParameter), "{lba} {length}");
    }
    assert_eq!(disk.read(8192, &mut []), Ok(()));
    assert!(backend.seen.borrow().is_empty());
}

#[test]
fn a_read_only_disk_is_not_written() {
    let (_, backend, _, mut disk) = connect_with(Options::default(), |backend| backend.offer("info", "4"));
    assert_eq!(disk.write(0, &[0; 512]), Err(BlockError::WriteProtected));
    assert!(backend.seen.borrow().is_empty());
}

#[test]
fn flush_is_asked_for_once_after_a_write_and_not_after_reads() {
    let (_, backend, _, mut disk) = connect(DataPath::Copy);
    disk.read(0, memory(512, 0)).unwrap();
    disk.flush().unwrap();
    assert_eq!(backend.flushes.get(), 0);
    disk.write(0, &[1; 512]).unwrap();
    disk.flush().unwrap();
    disk.flush().unwrap();
    assert_eq!(backend.flushes.get(), 1);
    assert_eq!(backend.seen.borrow().last().unwrap().operation, 3);
}

#[test]
fn a_barrier_does_for_a_flush_and_nothing_where_nothing_is_offered() {
    let (_, backend, _, mut disk) = connect_with(Options::default(), |backend| backend.withhold("feature-flush-cache"));
    disk.write(0, &[1; 512]).unwrap();
    disk.flush().unwrap();
    assert_eq!(backend.seen.borrow().last().unwrap().operation, 2);
    let (_, backend, _, mut disk) = connect_with(Options::default(), |backend| {
        backend.withhold("feature-flush-cache");
        backend.withhold("feature-barrier");
    });
    disk.write(0, &[1; 512]).unwrap();
    disk.flush().unwrap();
    assert_eq!(backend.flushes.get(), 0);
}

#[test]
fn a_flush_the_backend_cannot_do_is_not_asked_for_again() {
    let (_, backend, _, mut disk) = connect(DataPath::Copy);
    backend.fault.set(Fault::NoFlush);
    disk.write(0, &[1; 512]).unwrap();
    assert_eq!(disk.flush(), Ok(()));
    disk.write(0, &[1; 512]).unwrap();
    assert_eq!(disk.flush(), Ok(()));
    assert_eq!(backend.flushes.get(), 1);
}

#[test]
fn an_error_of_the_backend_fails_the_transfer_but_not_the_disk() {
    for path in BOTH {
        let (_, backend, _, mut disk) = connect(path);
        backend.fault.set(Fault::Error);
        assert_eq!(disk.read(0, memory(1 << 20, 0)), Err(BlockError::Device));
        assert_eq!(disk.write(0, memory(1 << 20, 0)), Err(BlockError::Device));
        backend.fault.set(Fault::None);
        let into = memory(1 << 20, 0);
        disk.write(0, into).unwrap();
        disk.read(0, into).unwrap();
    }
}

#[test]
fn a_lying_backend_costs_the_disk_and_only_the_disk() {
    for path in BOTH {
        for fault in [Fault::UnknownId, Fault::DuplicateId, Fault::WrongOperation, Fault::BadIndex] {
            let (_, backend, _, mut disk) = connect(path);
            backend.fault.set(fault);
            assert_eq!(disk.read(0, memory(1 << 20, 0)), Err(BlockError::Device), "{fault:?}");
            backend.fault.set(Fault::None);
            let before = backend.seen.borrow().len();
            assert_eq!(disk.read(0, memory(512, 0)), Err(BlockError::Device), "{fault:?}");
            assert_eq!(disk.write(0, &[0; 512]), Err(BlockError::Device), "{fault:?}");
            assert_eq!(disk.flush(), Err(BlockError::Device), "{fault:?}");
            assert_eq!(backend.seen.borrow().len(), before, "{fault:?}");
        }
    }
}

#[test]
fn a_silent_backend_is_given_up_after_a_while() {
    for path in BOTH {
        let (world, backend, _, mut disk) = connect(path);
        backend.fault.set(Fault::Silent);
        let start = world.hypervisor.time_ns.get();
        assert_eq!(disk.read(0, memory(8192, 0)), Err(BlockError::Device));
        let waited = world.hypervisor.time_ns.get() - start;
        assert!((30 * SECOND..32 * SECOND).contains(&waited));
        assert_eq!(disk.read(0, memory(512, 0)), Err(BlockError::Device));
        assert!(world.hypervisor.time_ns.get() - start < waited + MILLISECOND);
    }
}

#[test]
fn pages_that_were_in_flight_to_a_dead_backend_are_not_given_back() {
    let (_, backend, bus, mut disk) = connect(DataPath::Copy);
    disk.read(0, memory(4096, 0)).unwrap();
    backend.fault.set(Fault::Silent);
    assert_eq!(disk.read(0, memory(4096, 0)), Err(BlockError::Device));
    backend.fault.set(Fault::Stuck);
    bus.disconnect(&[disk]).unwrap();
    assert!(bus.leaked_grants() > 0);
}

#[test]
fn the_callers_pages_are_out_of_reach_of_a_dead_backend() {
    let (world, backend, _, mut disk) = connect(DataPath::Direct);
    let into = memory(8192, 0);
    let page = (into.as_ptr().addr() / 4096) as u32;
    backend.fault.set(Fault::Silent);
    assert_eq!(disk.read(0, into), Err(BlockError::Device));
    let entries = (8..512).map(|reference| grant_entry(world.hypervisor, reference));
    let of_caller: Vec<u16> = entries
        .filter(|(table, entry)| [page, page + 1].contains(&table.read_u32(entry + 4)))
        .map(|(table, entry)| table.read_u16(entry))
        .collect();
    assert_eq!(of_caller, [0, 0]);
}

#[test]
fn a_backend_that_keeps_the_callers_pages_gets_no_more_of_them() {
    let (_, backend, bus, mut disk) = connect(DataPath::Direct);
    backend.fault.set(Fault::KeepsMapping);
    let into = memory(4096, 0);
    disk.read(0, into).unwrap();
    assert_eq!(disk.path(), Some(DataPath::Copy));
    disk.read(8, into).unwrap();
    assert!(*into == backend.disk.borrow()[4096..8192]);
    bus.disconnect(&[disk]).unwrap();
}

#[test]
fn the_ring_may_have_one_to_sixteen_pages() {
    for order in 0..=4 {
        let options = Options { ring_order: order, path: Some(DataPath::Copy), segments: 11, ..Options::default() };
        let (_, backend, _, mut disk) = connect_with(options, |_| {});
        for _ in 0..4 {
            let into = memory(2 << 20, 0);
            disk.read(1, into).unwrap();
            assert!(*into == backend.disk.borrow()[512..512 + (2 << 20)]);
        }
    }
}

#[test]
fn a_transfer_ends_where_memory_ends() {
    let options = Options { path: Some(DataPath::Copy), pool_pages: 0, ..Options::default() };
    let (_, _, _, mut disk) = connect_with(options, |_| {});
    assert_eq!(disk.read(0, memory(512, 0)), Err(BlockError::Device));
    let options = Options { path: Some(DataPath::Copy), pool_pages: 32, ..Options::default() };
    let (_, backend, _, mut disk) = connect_with(options, |_| {});
    let into = memory(1 << 20, 0);
    disk.read(0, into).unwrap();
    assert!(*into == backend.disk.borrow()[..1 << 20]);
}

#[test]
fn a_small_transfer_does_not_allocate() {
    for path in BOTH {
        let (_, _, _, mut disk) = connect(path);
        let memory = memory(4096, 0);
        disk.read(0, memory).unwrap();
        let before = CountingAllocator::count();
        disk.read(8, memory).unwrap();
        disk.write(8, memory).unwrap();
        disk.flush().unwrap();
        assert_eq!(CountingAllocator::count() - before, 0, "{path:?}");
    }
}

#[test]
fn noise_in_the_ring_never_does_more_than_fail() {
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    for round in 0..100 {
        let path = BOTH[round % 2];
        let (world, backend, bus, mut disk) = connect(path);
        backend.fault.set(Fault::Silent);
        let ring = backend.ring_head();
        let mut serve = world.hypervisor.on_notify.take().unwrap();
        let mut noise = Random(random.below(u64::MAX) | 1);
        *world.hypervisor.on_notify.borrow_mut() = Some(Box::new(move |hypervisor, port| {
            for _ in 0..noise.below(4) {
                // Anywhere but the requests' producer, mostly near what is plausible.
                let offset = 4 + noise.below(1023) as usize * 4 % 4092;
                let value = if noise.below(2) == 0 { noise.below(4) } else { noise.below(1 << 32) };
                ring.write_u32(offset, value as u32);
            }
            if noise.below(2) == 0 {
                ring.write_u32(8, noise.below(8) as u32);
            }
            serve(hypervisor, port);
        }));
        for _ in 0..3 {
            let _ =
                disk.read(random.below(9000), memory(random.below(100) as usize * 512, random.below(4096) as usize));
            let _ = disk.write(random.below(9000), memory(random.below(100) as usize * 512, 0));
            let _ = disk.flush();
        }
        bus.hand_over();
    }
}
