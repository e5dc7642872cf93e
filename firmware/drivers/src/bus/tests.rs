use hw::fake::CountingAllocator;
use services::block::{BlockDevice, BlockError};

use super::*;
use crate::block::DataPath;
use crate::testing::{Fault, Vbd, World};
use crate::xenbus::State;

const XVDA: u32 = 51712;
const XVDB: u32 = 51728;

fn start(world: &World) -> XenBus {
    XenBus::start(world.domain, Options::default()).unwrap()
}

fn names(disks: &[Disk]) -> Vec<String> {
    disks.iter().map(|disk| disk.device().name.to_string()).collect()
}

fn read_all(disk: &mut Disk) -> Result<(), BlockError> {
    disk.read(0, &mut vec![0; 1 << 20])
}

/// Asserts that nothing of ours is left in xenstore, in the grant table and among the ports.
fn assert_clean(world: &World) {
    assert!(world.hypervisor.mapped.borrow().is_empty());
    assert!(world.hypervisor.open_ports.borrow().is_empty());
    assert!(world.daemon.watches.borrow().is_empty());
    assert!(world.daemon.is_idle());
    for (index, disk) in world.disks.iter().enumerate() {
        assert_eq!(world.front_keys(index), ["backend", "backend-id", "device-type", "state"]);
        assert_eq!(world.daemon.store.get(&format!("{}/state", disk.front)).unwrap(), "1");
        assert_eq!(world.daemon.store.get(&format!("{}/state", disk.back)).unwrap(), "2");
    }
}

#[test]
fn disks_are_found_in_order_and_named() {
    let world = World::new(&[XVDB, XVDA, 2048], |_| {});
    let bus = start(&world);
    let mut disks = bus.connect_disks();
    assert_eq!(names(&disks), ["sda", "xvda", "xvdb"]);
    assert_eq!(disks[1].device().to_string(), "device/vbd/51712 (xvda)");
    assert!(disks.iter_mut().all(|disk| read_all(disk).is_ok()));
    assert!(bus.connect_disks().is_empty());
    assert!(bus.failures().is_empty());
}

#[test]
fn without_disks_there_are_none_and_no_failures() {
    let world = World::new(&[], |_| {});
    let bus = start(&world);
    assert!(bus.connect_disks().is_empty() && bus.failures().is_empty());
    bus.hand_over();
    assert_clean(&world);
}

#[test]
fn connecting_takes_few_round_trips() {
    let world = World::new(&[XVDA], |_| {});
    let bus = start(&world);
    world.daemon.notified.set(0);
    assert_eq!(bus.connect_disks().len(), 1);
    // Names, description, watch, backend, ring, result, state; a wait looks at the ring once more for each.
    assert!(world.daemon.notified.get() <= 10, "{}", world.daemon.notified.get());
}

#[test]
fn slow_disks_are_waited_for_together() {
    let world = World::new(&[XVDA, XVDB], |disk| disk.delay.set(1000));
    let bus = start(&world);
    let before = world.hypervisor.time_ns.get();
    assert_eq!(bus.connect_disks().len(), 2);
    let together = world.hypervisor.time_ns.get() - before;
    let world = World::new(&[XVDA], |disk| disk.delay.set(1000));
    let bus = start(&world);
    let before = world.hypervisor.time_ns.get();
    assert_eq!(bus.connect_disks().len(), 1);
    let alone = world.hypervisor.time_ns.get() - before;
    assert!(alone > SECOND && together < alone * 3 / 2, "{alone} {together}");
}

#[test]
fn a_backend_that_is_not_ready_yet_is_waited_for() {
    let world = World::new(&[XVDA], |_| {});
    let state = format!("{}/state", world.disks[0].back);
    world.daemon.store.set(&state, 1);
    let (store, turns) = (world.daemon.store.clone(), std::cell::Cell::new(0));
    let mut serve = world.hypervisor.on_notify.take().unwrap();
    *world.hypervisor.on_notify.borrow_mut() = Some(Box::new(move |hypervisor, port| {
        turns.set(turns.get() + 1);
        if turns.get() == 50 {
            store.set(&state, 2);
        }
        serve(hypervisor, port);
    }));
    assert_eq!(start(&world).connect_disks().len(), 1);
}

#[test]
fn the_hand_over_leaves_nothing_behind() {
    for path in [DataPath::Copy, DataPath::Direct] {
        let world = World::new(&[XVDA, XVDB], |_| {});
        let bus = XenBus::start(world.domain, Options { path: Some(path), ..Options::default() }).unwrap();
        let mut disks = bus.connect_disks();
        for disk in &mut disks {
            read_all(disk).unwrap();
            disk.write(3, &[7; 8192]).unwrap();
        }
        let live = world.frames.live.get();
        bus.hand_over();
        // Memory is neither taken nor given back: the operating system has the memory map already.
        assert_eq!(world.frames.live.get(), live);
        assert_clean(&world);
        assert_eq!(world.daemon.reconnects.get(), 1);
        for disk in &world.disks {
            assert_eq!(disk.flushes.get(), 1);
            assert_eq!(*disk.history.borrow(), "134561");
        }
        assert_eq!(disks[0].read(0, &mut [0; 512]), Err(BlockError::Device));
        assert!(bus.connect_disks().is_empty());
        bus.hand_over();
    }
}

#[test]
fn the_hand_over_closes_disks_that_nobody_has_waited_for() {
    let world = World::new(&[XVDA], |disk| disk.delay.set(1000));
    let bus = start(&world);
    bus.begin_connecting();
    bus.hand_over();
    assert_clean(&world);
}

#[test]
fn disks_that_are_being_connected_are_not_lost_to_a_call_at_the_wrong_time() {
    let world = World::new(&[XVDA], |_| {});
    let bus = start(&world);
    bus.begin_connecting();
    let at_work = bus.store.borrow_mut();
    assert!(bus.connect_disks().is_empty());
    drop(at_work);
    assert_eq!(bus.connect_disks().len(), 1);
    assert_eq!(world.hypervisor.open_ports.borrow().len(), 1);
}

#[test]
fn the_hand_over_neither_allocates_nor_frees() {
    for fault in [Fault::None, Fault::Stuck] {
        let world = World::new(&[XVDA, XVDB], |_| {});
        let bus = start(&world);
        for disk in &mut bus.connect_disks() {
            read_all(disk).unwrap();
            disk.write(0, &[1; 512]).unwrap();
        }
        world.disks[0].fault.set(fault);
        let before = CountingAllocator::count();
        bus.hand_over();
        assert_eq!(CountingAllocator::count() - before, 0, "{fault:?}");
    }
}

#[test]
fn the_hand_over_goes_on_without_a_backend_that_does_not_follow() {
    let world = World::new(&[XVDA, XVDB], |_| {});
    let bus = start(&world);
    let disks = bus.connect_disks();
    assert_eq!(disks.len(), 2);
    world.disks[0].fault.set(Fault::Stuck);
    let before = world.hypervisor.time_ns.get();
    bus.hand_over();
    assert!(world.hypervisor.time_ns.get() - before < 2 * CLOSE_TIMEOUT);
    assert!(world.hypervisor.mapped.borrow().is_empty() && world.hypervisor.open_ports.borrow().is_empty());
    // Where the backend did not follow, the state says so to the next driver.
    assert_eq!(world.daemon.store.get(&format!("{}/state", world.disks[0].front)).unwrap(), "6");
    assert_eq!(world.daemon.store.get(&format!("{}/state", world.disks[1].front)).unwrap(), "1");
}

#[test]
fn the_hand_over_is_bounded_when_everybody_is_dead() {
    let world = World::new(&[XVDA], |_| {});
    let bus = start(&world);
    let mut disks = bus.connect_disks();
    disks[0].write(0, &[0; 512]).unwrap();
    world.disks[0].fault.set(Fault::Silent);
    world.daemon.dead.set(true);
    let before = world.hypervisor.time_ns.get();
    bus.hand_over();
    assert!(world.hypervisor.time_ns.get() - before < 30 * SECOND);
    assert!(world.hypervisor.mapped.borrow().is_empty() && world.hypervisor.open_ports.borrow().is_empty());
}

#[test]
fn a_disk_can_be_disconnected_and_connected_again() {
    let world = World::new(&[XVDA, XVDB], |_| {});
    let bus = start(&world);
    let live = world.frames.live.get();
    let mut disks = bus.connect_disks();
    disks.iter_mut().for_each(|disk| read_all(disk).unwrap());
    bus.disconnect(&disks).unwrap();
    assert_eq!(world.frames.live.get(), live);
    assert_eq!(bus.leaked_grants(), 0);
    assert!(world.hypervisor.open_ports.borrow().is_empty() && world.daemon.watches.borrow().is_empty());
    assert_eq!(disks[0].read(0, &mut [0; 512]), Err(BlockError::Device));
    let mut disks = bus.connect_disks();
    assert_eq!(names(&disks), ["xvda", "xvdb"]);
    disks.iter_mut().for_each(|disk| read_all(disk).unwrap());
    bus.disconnect(&disks[..1]).unwrap();
    assert_eq!(names(&bus.disks()), ["xvdb"]);
    bus.hand_over();
    assert_clean(&world);
}

/// The failures of a world with one disk, and whether nothing is left of the attempt.
fn failure_of(prepare: impl Fn(&World)) -> (World, Failure) {
    let world = World::new(&[XVDA], |_| {});
    prepare(&world);
    let bus = start(&world);
    assert!(bus.connect_disks().is_empty());
    let failure = bus.failures().pop().unwrap();
    bus.hand_over();
    assert!(world.hypervisor.open_ports.borrow().is_empty() && world.hypervisor.mapped.borrow().is_empty());
    assert!(world.daemon.watches.borrow().is_empty());
    (world, failure)
}

#[test]
fn a_backend_that_does_nothing_is_reported_by_name_and_state() {
    let (_, failure) = failure_of(|world| world.disks[0].fault.set(Fault::Stuck));
    assert_eq!(
        failure.to_string(),
        "device/vbd/51712 (xvda): waiting for the backend: the backend is still in state InitWait after 20 s; does its \
         driver run in dom0?"
    );
}

#[test]
fn a_backend_that_goes_away_is_reported_at_once() {
    let (world, failure) = failure_of(|world| world.disks[0].fault.set(Fault::Leaves));
    assert_eq!(failure.reason, Reason::Leaving(State::Closing));
    assert!(world.hypervisor.time_ns.get() < SECOND);
    assert_clean(&world);
}

#[test]
fn absurd_descriptions_are_reported_with_key_and_value() {
    for (key, value) in [("sectors", "99999999999999999999"), ("sector-size", "0"), ("info", "\x1b[2J")] {
        let (world, failure) = failure_of(|world| world.disks[0].offer(key, value));
        assert_eq!(failure.step, Step::ReadingDescription);
        assert!(matches!(failure.reason, Reason::Value(found, _) if found == key));
        assert!(!failure.to_string().contains('\x1b'));
        assert_clean(&world);
    }
}

#[test]
fn nonsense_in_the_devices_own_directory_is_reported() {
    let set = |key: &'static str, value: &'static str| {
        move |world: &World| world.daemon.store.set(&format!("{}/{key}", world.disks[0].front), value)
    };
    for (key, value) in [
        ("backend", ""),
        ("backend", "relative/path"),
        ("backend", "/local/\x07bell"),
        ("backend-id", "32752"),
        ("backend-id", "-1"),
        ("backend-id", "65536"),
    ] {
        let (_, failure) = failure_of(set(key, value));
        assert!(matches!(failure.reason, Reason::Value(found, _) if found == key), "{key} {value}");
    }
    let gone = |world: &World| assert!(world.daemon.store.remove(&format!("{}/backend", world.disks[0].front)));
    assert_eq!(failure_of(gone).1.reason, Reason::Missing("backend"));
}

#[test]
fn an_empty_drive_is_no_disk() {
    let (_, failure) = failure_of(|world| {
        world.daemon.store.set(&format!("{}/device-type", world.disks[0].front), "cdrom");
        world.daemon.store.set(&format!("{}/params", world.disks[0].back), "aio:");
    });
    assert_eq!(failure.reason, Reason::NoMedium);
}

#[test]
fn one_bad_disk_does_not_keep_the_others_away() {
    let world = World::new(&[XVDA, XVDB], |_: &Vbd| {});
    world.disks[0].offer("sectors", "-5");
    let bus = start(&world);
    assert_eq!(names(&bus.connect_disks()), ["xvdb"]);
    assert_eq!(bus.failures().len(), 1);
}

#[test]
fn names_in_xenstore_that_are_no_numbers_are_no_disks() {
    let world = World::new(&[XVDA], |_| {});
    for name in ["51728x", "-1", "99999999999"] {
        world.daemon.store.set(&format!("device/vbd/{name}/state"), 1);
    }
    assert_eq!(names(&start(&world).connect_disks()), ["xvda"]);
}

#[test]
fn a_disk_that_somebody_left_connected_is_closed_first() {
    let world = World::new(&[XVDA], |_| {});
    for (directory, key, value) in [
        (&world.disks[0].back, "state", "4"),
        (&world.disks[0].front, "ring-ref", "9"),
        (&world.disks[0].front, "state", "4"),
    ] {
        world.daemon.store.set(&format!("{directory}/{key}"), value);
    }
    let bus = start(&world);
    let mut disks = bus.connect_disks();
    read_all(&mut disks[0]).unwrap();
    bus.hand_over();
    assert_clean(&world);
}

#[test]
fn without_a_xenstore_daemon_the_reason_is_said_and_nothing_hangs() {
    let world = World::new(&[XVDA], |_| {});
    world.daemon.dead.set(true);
    let bus = start(&world);
    assert!(bus.connect_disks().is_empty());
    assert_eq!(
        bus.failures()[0].to_string(),
        "device/vbd: looking for devices: xenstored did not answer within 10000 ms; is it running in dom0?"
    );
    bus.hand_over();
}

#[test]
fn without_a_ring_there_is_no_bus() {
    let (_, domain) = crate::testing::domain();
    let error = XenBus::start(domain, Options::default()).err().unwrap();
    assert!(matches!(error, StartError::Xenstore(_)));
}
