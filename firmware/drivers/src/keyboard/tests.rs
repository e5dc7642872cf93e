use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use hw::device::Windows;
use hw::fake::{CountingAllocator, FakeDevice, FakeHypervisor, FakePorts, FakeWindows};
use services::console::keys::scan;
use uefi_raw::protocol::console::KeyShiftState;

use super::*;
use crate::testing::{domain, leak};

/// A controller with a keyboard, as a test plays it.
struct Fake {
    mode: u8,
    /// The command that the next data byte belongs to.
    expecting: Option<u8>,
    /// What waits: byte, and whether it is the mouse's.
    output: VecDeque<(u8, bool)>,
    lights: u8,
    expecting_lights: bool,
    scanning: bool,
    accesses: usize,
    behaviour: Behaviour,
}

#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    Good,
    /// The status register reads as this.
    Status(u8),
    /// A key comes whenever one is read.
    Babbling,
    /// Nothing behind the controller.
    NoKeyboard,
    /// Every first command is asked for again.
    Resending(bool),
    /// A key comes before each answer.
    KeyFirst,
    /// Does not know lights.
    NoLights,
}

impl Fake {
    fn keyboard(&mut self, byte: u8) {
        match &mut self.behaviour {
            Behaviour::NoKeyboard => return,
            Behaviour::Resending(asked) => {
                *asked = !*asked;
                if *asked {
                    return self.output.push_back((0xFE, false));
                }
            }
            Behaviour::KeyFirst if self.scanning => self.output.push_back((0x1E, false)),
            Behaviour::NoLights if byte == 0xED => return,
            _ => {}
        }
        match byte {
            lights if std::mem::take(&mut self.expecting_lights) => self.lights = lights,
            0xED => self.expecting_lights = true,
            0xF4 => self.scanning = true,
            _ => {}
        }
        self.output.push_back((0xFA, false));
    }
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Fake>>);

impl FakeDevice for Shared {
    fn read(&mut self, port: u16, _width: u8) -> Option<u32> {
        let mut fake = self.0.borrow_mut();
        match port {
            0x64 => {
                fake.accesses += 1;
                Some(CountingAllocator::uncounted(|| match fake.behaviour {
                    Behaviour::Status(status) => status.into(),
                    Behaviour::Babbling => 1,
                    _ => fake.output.front().map_or(0x14, |(_, mouse)| 0x15 | u32::from(*mouse) << 5),
                }))
            }
            0x60 => {
                fake.accesses += 1;
                Some(fake.output.pop_front().map_or(0x1E, |(byte, _)| byte.into()))
            }
            _ => None,
        }
    }

    fn write(&mut self, port: u16, _width: u8, value: u32) -> bool {
        let mut fake = self.0.borrow_mut();
        let byte = value as u8;
        fake.accesses += 1;
        match (port, fake.expecting.take()) {
            (0x64, _) => match byte {
                0x20 => {
                    let mode = fake.mode;
                    fake.output.push_back((mode, false));
                }
                0xAD => fake.mode |= 0x10,
                _ => fake.expecting = Some(byte),
            },
            (0x60, Some(0x60)) => fake.mode = byte,
            (0x60, None) => fake.keyboard(byte),
            _ => return false,
        }
        true
    }
}

struct World {
    hypervisor: &'static FakeHypervisor,
    fake: Rc<RefCell<Fake>>,
    machine: EmulatedMachine,
    restarts: Rc<Cell<usize>>,
}

impl World {
    fn new(behaviour: Behaviour) -> Self {
        let fake = Rc::new(RefCell::new(Fake {
            mode: 0x03,
            expecting: None,
            output: VecDeque::new(),
            lights: 0,
            expecting_lights: false,
            scanning: false,
            accesses: 0,
            behaviour,
        }));
        let (hypervisor, domain) = domain();
        let windows: &'static dyn Windows = leak(FakeWindows::default());
        let machine = EmulatedMachine { domain, ports: leak(FakePorts::with(Shared(fake.clone()))), windows };
        Self { hypervisor, fake, machine, restarts: Rc::default() }
    }

    fn open(&self) -> Option<Keyboard> {
        let restarts = self.restarts.clone();
        Keyboard::open(self.machine, Box::new(move || restarts.set(restarts.get() + 1)))
    }

    fn press(&self, bytes: &[u8]) {
        self.fake.borrow_mut().output.extend(bytes.iter().map(|byte| (*byte, false)));
    }

    /// Port accesses of `f`.
    fn accesses<R>(&self, f: impl FnOnce() -> R) -> (usize, R) {
        let before = self.fake.borrow().accesses;
        let result = f();
        (self.fake.borrow().accesses - before, result)
    }
}

fn keys(keyboard: &mut Keyboard, limit: usize) -> Vec<KeyData> {
    let mut keys = Vec::new();
    keyboard.poll(0, limit, &mut |key| keys.push(key));
    keys
}

fn text(keyboard: &mut Keyboard) -> String {
    let character = |key: KeyData| char::from_u32(key.key.unicode_char.into()).unwrap();
    keys(keyboard, 100).into_iter().map(character).collect()
}

#[test]
fn without_a_controller_one_access_says_so() {
    let world = World::new(Behaviour::Status(0xFF));
    let (accesses, keyboard) = world.accesses(|| world.open());
    assert!(keyboard.is_none());
    assert_eq!(accesses, 1);
}

#[test]
fn the_keyboard_is_set_to_translation_without_interrupts() {
    let world = World::new(Behaviour::Good);
    let (accesses, keyboard) = world.accesses(|| world.open());
    assert!(keyboard.is_some() && accesses <= 20, "{accesses}");
    let fake = world.fake.borrow();
    assert_eq!((fake.mode, fake.scanning), (0x44, true));
}

#[test]
fn keys_from_before_the_firmware_are_forgotten() {
    let world = World::new(Behaviour::Good);
    world.press(&[0x1E, 0x9E]);
    let mut keyboard = world.open().unwrap();
    assert_eq!(text(&mut keyboard), "");
}

#[test]
fn keys_arrive_in_order_and_looking_for_none_costs_one_access() {
    let world = World::new(Behaviour::Good);
    let mut keyboard = world.open().unwrap();
    world.press(&[0x2A, 0x23, 0xA3, 0xAA, 0x17, 0x97, 0xE0, 0x48, 0xE0, 0xC8]);
    let found = keys(&mut keyboard, 100);
    let found: Vec<_> = found.iter().map(|key| (key.key.scan_code, key.key.unicode_char)).collect();
    assert_eq!(found, [(0, u16::from(b'H')), (0, u16::from(b'i')), (scan::UP, 0)]);
    let (accesses, none) = world.accesses(|| keys(&mut keyboard, 100));
    assert_eq!((accesses, none.len()), (1, 0));
}

#[test]
fn keys_beyond_the_limit_stay_in_the_keyboard() {
    let world = World::new(Behaviour::Good);
    let mut keyboard = world.open().unwrap();
    world.press(&[0x1E, 0x1E, 0x1E]);
    assert_eq!(keys(&mut keyboard, 2).len(), 2);
    assert_eq!(keys(&mut keyboard, 0).len(), 0);
    assert_eq!(keys(&mut keyboard, 2).len(), 1);
}

#[test]
fn what_the_mouse_says_is_dropped() {
    let world = World::new(Behaviour::Good);
    let mut keyboard = world.open().unwrap();
    world.fake.borrow_mut().output.extend([(0x1E, true), (0x30, false), (0x1E, true)]);
    assert_eq!(text(&mut keyboard), "b");
}

#[test]
fn toggles_have_lights() {
    let world = World::new(Behaviour::Good);
    let mut keyboard = world.open().unwrap();
    world.press(&[0x3A, 0xBA, 0x1E]);
    assert_eq!(text(&mut keyboard), "A");
    assert_eq!(world.fake.borrow().lights, 4);
    assert!(keyboard.set_state(KeyToggleState::VALID | KeyToggleState::NUM_LOCK_ACTIVE));
    assert_eq!(world.fake.borrow().lights, 2);
    assert!(!keyboard.set_state(KeyToggleState::empty()));
    assert_eq!(keyboard.key_state().key_toggle_state, KeyToggleState::VALID | KeyToggleState::NUM_LOCK_ACTIVE);
}

#[test]
fn keys_pressed_while_the_lights_change_are_kept() {
    let world = World::new(Behaviour::KeyFirst);
    let mut keyboard = world.open().unwrap();
    keys(&mut keyboard, 100);
    assert!(keyboard.set_state(KeyToggleState::VALID | KeyToggleState::NUM_LOCK_ACTIVE));
    assert_eq!(text(&mut keyboard), "aa");
}

#[test]
fn a_keyboard_without_lights_is_waited_for_once() {
    let world = World::new(Behaviour::NoLights);
    let mut keyboard = world.open().unwrap();
    world.press(&[0x3A, 0xBA]);
    keys(&mut keyboard, 100);
    let waited = world.hypervisor.time_ns.get();
    world.press(&[0x3A, 0xBA, 0x1E]);
    assert_eq!(text(&mut keyboard), "a");
    assert!(world.hypervisor.time_ns.get() < waited + 1_000_000);
}

#[test]
fn a_command_that_was_not_understood_is_sent_again() {
    let world = World::new(Behaviour::Resending(false));
    assert!(world.open().is_some());
}

#[test]
fn a_controller_without_a_keyboard_gives_no_device() {
    let world = World::new(Behaviour::NoKeyboard);
    assert!(world.open().is_none());
    assert!(world.hypervisor.time_ns.get() < 500_000_000);
}

#[test]
fn hostile_controllers_are_given_up_soon() {
    for behaviour in [Behaviour::Babbling, Behaviour::Status(0x03), Behaviour::Status(0x01), Behaviour::Status(0x02)] {
        let world = World::new(behaviour);
        assert!(world.open().is_none());
        assert!(world.hypervisor.time_ns.get() < 500_000_000);
        assert!(world.fake.borrow().accesses < 200_000);
    }
}

#[test]
fn a_keyboard_that_turns_hostile_gets_no_further() {
    for behaviour in [Behaviour::Babbling, Behaviour::Status(0xFF), Behaviour::Status(0x21), Behaviour::Status(0x02)] {
        let world = World::new(Behaviour::Good);
        let mut keyboard = world.open().unwrap();
        world.fake.borrow_mut().behaviour = behaviour;
        let (accesses, _) = world.accesses(|| {
            keys(&mut keyboard, 100);
            keyboard.reset();
            keyboard.leave();
        });
        assert!(accesses <= 3 * 2 * DRAIN_MOST, "{accesses}");
    }
}

/// More than any loop over bytes makes.
const DRAIN_MOST: usize = 64;

#[test]
fn control_alt_delete_calls_for_a_restart() {
    let world = World::new(Behaviour::Good);
    let mut keyboard = world.open().unwrap();
    world.press(&[0x1D, 0x38, 0xE0, 0x53]);
    assert_eq!(keys(&mut keyboard, 100).len(), 0);
    assert_eq!(world.restarts.get(), 1);
}

#[test]
fn modifiers_held_across_a_reset_are_still_held() {
    let world = World::new(Behaviour::Good);
    let mut keyboard = world.open().unwrap();
    world.press(&[0x1E, 0x1D, 0x1E]);
    keyboard.reset();
    assert_eq!(keyboard.key_state().key_shift_state, KeyShiftState::VALID | KeyShiftState::LEFT_CONTROL);
    assert_eq!(keys(&mut keyboard, 100).len(), 0);
}

#[test]
fn the_system_gets_an_empty_controller_and_nothing_is_allocated() {
    let world = World::new(Behaviour::Good);
    let mut keyboard = world.open().unwrap();
    world.press(&[0x1E, 0x9E, 0xE0]);
    let before = CountingAllocator::count();
    keyboard.leave();
    assert_eq!(CountingAllocator::count(), before);
    assert!(world.fake.borrow().output.is_empty());
}
