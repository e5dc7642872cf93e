use std::sync::{Arc, Mutex};

use uefi_raw::protocol::console::InputKey;

use super::screen::tests::Model;
use super::*;

/// Two ends of a wire.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Ends>>);

/// What was written, and what is there to read.
#[derive(Default)]
struct Ends(Vec<Vec<u8>>, VecDeque<u8>);

impl Wire {
    fn type_keys(&self, bytes: &[u8]) {
        self.0.lock().unwrap().1.extend(bytes);
    }

    fn writes(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().0.clone()
    }

    fn model(&self) -> Model {
        let mut model = Model::new(100, 50);
        self.writes().iter().for_each(|bytes| model.feed(bytes));
        model
    }
}

impl ByteConsole for Wire {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().0.push(bytes.to_vec());
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        let mut wire = self.0.lock().unwrap();
        let length = into.len().min(wire.1.len());
        into[..length].iter_mut().zip(wire.1.drain(..length)).for_each(|(to, from)| *to = from);
        length
    }
}

fn terminals(count: usize) -> (Consoles, Vec<Wire>) {
    let wires: Vec<Wire> = (0..count).map(|_| Wire::default()).collect();
    let mut consoles = Consoles::new();
    for wire in &wires {
        consoles.add(Box::new(Terminal::new(Box::new(wire.clone()))));
    }
    (consoles, wires)
}

fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn read_text(consoles: &mut Consoles, target: Target) -> String {
    consoles.poll(target, 0);
    let keys = core::iter::from_fn(|| consoles.next_key(target));
    keys.map(|key| char::from_u32(key.key.unicode_char.into()).unwrap()).collect()
}

#[test]
fn new_terminal_is_left_as_it_is() {
    let (_, wires) = terminals(1);
    assert!(wires[0].writes().is_empty());
}

#[test]
fn string_is_one_write() {
    let (mut consoles, wires) = terminals(1);
    assert!(consoles.write(Target::All, &units("first\r\nsecond")));
    assert_eq!(wires[0].writes(), [b"first\r\nsecond"]);
}

#[test]
fn output_goes_to_all_or_to_one() {
    let (mut consoles, wires) = terminals(2);
    consoles.write(Target::All, &units("all\r\n"));
    consoles.write(Target::One(1), &units("one"));
    assert_eq!(wires[0].model().line(0), "all");
    assert_eq!(wires[1].model().line(0), "all");
    assert_eq!(wires[0].model().line(1), "");
    assert_eq!(wires[1].model().line(1), "one");
}

#[test]
fn keys_come_from_any() {
    let (mut consoles, wires) = terminals(2);
    wires[0].type_keys(b"a");
    wires[1].type_keys(b"b");
    assert_eq!(read_text(&mut consoles, Target::One(1)), "b");
    assert_eq!(read_text(&mut consoles, Target::All), "a");
}

#[test]
fn keys_beyond_the_limit_stay_with_the_device() {
    let (mut consoles, wires) = terminals(1);
    let text: String = (0..1000).map(|index| char::from(b'a' + (index % 26) as u8)).collect();
    wires[0].type_keys(text.as_bytes());
    let mut read = String::new();
    for _ in 0..100 {
        read += &read_text(&mut consoles, Target::All);
    }
    assert_eq!(read, text);
}

#[test]
fn endless_input_does_not_hang_a_poll() {
    struct Endless;
    impl ByteConsole for Endless {
        fn write(&mut self, _: &[u8]) {}
        fn read(&mut self, into: &mut [u8]) -> usize {
            into.fill(b'x');
            into.len()
        }
    }
    let mut consoles = Consoles::new();
    consoles.add(Box::new(Terminal::new(Box::new(Endless))));
    consoles.reset_input(Target::All);
    consoles.poll(Target::All, 0);
    assert!((1..=MAX_KEYS).contains(&core::iter::from_fn(|| consoles.next_key(Target::All)).count()));
}

#[test]
fn reset_forgets_keys() {
    let (mut consoles, wires) = terminals(1);
    wires[0].type_keys(b"ab");
    consoles.poll(Target::All, 0);
    wires[0].type_keys(b"c\x1b[");
    consoles.reset_input(Target::All);
    wires[0].type_keys(b"d");
    assert_eq!(read_text(&mut consoles, Target::All), "d");
}

#[test]
fn modes_are_reported_and_set_on_all() {
    let (mut consoles, wires) = terminals(2);
    assert_eq!(consoles.mode_count(Target::All), 3);
    assert_eq!(consoles.mode_size(Target::All, 2), Ok((100, 31)));
    assert_eq!(consoles.mode_size(Target::One(1), 1), Ok((80, 50)));
    assert_eq!(consoles.mode_size(Target::All, 3), Err(ConsoleError::Unsupported));
    consoles.set_mode(Target::All, 2).unwrap();
    assert_eq!(consoles.set_mode(Target::All, 3), Err(ConsoleError::Unsupported));
    for number in 0..2 {
        assert_eq!(consoles.state(Target::One(number)).unwrap().mode, 2);
    }
    consoles.write(Target::All, &units(&"x".repeat(99)));
    assert_eq!(wires[1].model().line(0).len(), 99);
}

#[test]
fn device_added_later_joins_the_mode() {
    let (mut consoles, _) = terminals(1);
    consoles.set_mode(Target::All, 1).unwrap();
    consoles.set_attribute(Target::All, 0x1F).unwrap();
    let wire = Wire::default();
    let number = consoles.add(Box::new(Terminal::new(Box::new(wire))));
    let state = consoles.state(Target::One(number)).unwrap();
    assert_eq!((state.mode, state.attribute.bits()), (1, 0x1F));
}

#[test]
fn operating_system_gets_ordinary_colours_and_a_cursor() {
    let (mut consoles, wires) = terminals(1);
    consoles.leave();
    assert!(wires[0].writes().is_empty());
    consoles.show_cursor(Target::All, false);
    consoles.leave();
    assert!(wires[0].model().cursor_visible);
}

#[test]
fn bad_places_and_colours_are_refused() {
    let (mut consoles, _) = terminals(1);
    assert_eq!(consoles.set_cursor(Target::All, 80, 0), Err(ConsoleError::Unsupported));
    assert_eq!(consoles.set_cursor(Target::All, 0, 25), Err(ConsoleError::Unsupported));
    assert_eq!(consoles.set_cursor(Target::All, 79, 24), Ok(()));
    assert_eq!(consoles.set_attribute(Target::All, 0x80), Err(ConsoleError::Unsupported));
}

#[test]
fn without_devices_nothing_happens() {
    let mut consoles = Consoles::new();
    assert!(consoles.write(Target::All, &units("x")));
    assert_eq!(consoles.state(Target::All), None);
    assert_eq!(consoles.set_mode(Target::All, 0), Err(ConsoleError::Unsupported));
    assert_eq!(consoles.next_key(Target::All), None);
}

const fn function(number: usize) -> *const () {
    core::ptr::without_provenance(number)
}

fn control_c(shift: KeyShiftState) -> KeyData {
    let mut key = KeyData { key: InputKey { scan_code: 0, unicode_char: b'c'.into() }, ..KeyData::default() };
    key.key_state.key_shift_state = shift;
    key
}

#[test]
fn registered_key_is_due_once_and_still_read() {
    let (mut consoles, wires) = terminals(1);
    let left = control_c(KeyShiftState::VALID | KeyShiftState::LEFT_CONTROL);
    let right = control_c(KeyShiftState::VALID | KeyShiftState::RIGHT_CONTROL);
    consoles.register(Target::All, left, function(1));
    consoles.register(Target::All, right, function(2));
    wires[0].type_keys(b"xc\x03");
    let due = consoles.poll(Target::All, 0);
    assert_eq!(due.iter().map(|due| due.function).collect::<Vec<_>>(), [function(1)]);
    assert_eq!(read_text(&mut consoles, Target::All), "xcc");
}

#[test]
fn registration_without_state_means_any_state() {
    let (mut consoles, wires) = terminals(1);
    consoles.register(Target::All, control_c(KeyShiftState::empty()), function(1));
    wires[0].type_keys(b"c\x03");
    assert_eq!(consoles.poll(Target::All, 0).len(), 2);
}

#[test]
fn registration_at_one_device_is_for_that_device() {
    let (mut consoles, wires) = terminals(2);
    consoles.register(Target::One(1), control_c(KeyShiftState::empty()), function(1));
    wires[0].type_keys(b"c");
    assert_eq!(consoles.poll(Target::All, 0).len(), 0);
    wires[1].type_keys(b"c");
    assert_eq!(consoles.poll(Target::All, 0).len(), 1);
}

#[test]
fn registration_ends() {
    let (mut consoles, wires) = terminals(1);
    let number = consoles.register(Target::All, control_c(KeyShiftState::empty()), function(1));
    assert_eq!(consoles.register(Target::All, control_c(KeyShiftState::empty()), function(1)), number);
    assert_eq!(consoles.unregister(Target::All, number), Ok(()));
    assert_eq!(consoles.unregister(Target::All, number), Err(ConsoleError::NotRegistered));
    assert!(!consoles.has_notifications());
    wires[0].type_keys(b"c");
    assert_eq!(consoles.poll(Target::All, 0).len(), 0);
}

#[test]
fn state_must_say_that_it_is_valid() {
    assert!(can_set_state(KeyToggleState::VALID | KeyToggleState::EXPOSED));
    assert!(!can_set_state(KeyToggleState::CAPS_LOCK_ACTIVE));
    assert!(!can_set_state(KeyToggleState::from_bits_retain(0xFF)));
}

/// A device with keys only, and with toggles.
#[derive(Clone, Default)]
struct Keys(Arc<Mutex<KeysState>>);

#[derive(Default)]
struct KeysState {
    waiting: VecDeque<KeyData>,
    toggles: KeyToggleState,
    left: bool,
}

impl TextDevice for Keys {
    fn output(&mut self) -> Option<&mut dyn TextOutput> {
        None
    }

    fn input(&mut self) -> Option<&mut dyn TextInput> {
        Some(self)
    }
}

impl TextInput for Keys {
    fn poll(&mut self, _now: u64, limit: usize, keys: &mut dyn FnMut(KeyData)) {
        let mut state = self.0.lock().unwrap();
        let count = limit.min(state.waiting.len());
        state.waiting.drain(..count).for_each(keys);
    }

    fn reset(&mut self) {
        self.0.lock().unwrap().waiting.clear();
    }

    fn key_state(&self) -> KeyState {
        KeyState {
            key_shift_state: KeyShiftState::VALID | KeyShiftState::LEFT_ALT,
            key_toggle_state: self.0.lock().unwrap().toggles,
        }
    }

    fn set_state(&mut self, state: KeyToggleState) -> bool {
        self.0.lock().unwrap().toggles = state;
        true
    }

    fn leave(&mut self) {
        self.0.lock().unwrap().left = true;
    }
}

#[test]
fn keys_alone_are_a_device_beside_terminals() {
    let (mut consoles, wires) = terminals(1);
    let keyboard = Keys::default();
    let number = consoles.add(Box::new(keyboard.clone()));
    consoles.write(Target::All, &units("shown"));
    assert_eq!(wires[0].writes(), [b"shown"]);
    assert_eq!(consoles.state(Target::One(number)), None);
    let mut key = KeyData::default();
    key.key.unicode_char = b'k'.into();
    keyboard.0.lock().unwrap().waiting.push_back(key);
    wires[0].type_keys(b"w");
    assert_eq!(read_text(&mut consoles, Target::All), "wk");
}

#[test]
fn toggles_are_set_where_there_are_any_and_shown_together() {
    let (mut consoles, _) = terminals(1);
    let keyboard = Keys::default();
    consoles.add(Box::new(keyboard.clone()));
    let caps = KeyToggleState::VALID | KeyToggleState::CAPS_LOCK_ACTIVE;
    assert_eq!(consoles.set_key_state(Target::All, caps), Ok(()));
    assert_eq!(keyboard.0.lock().unwrap().toggles, caps);
    let state = consoles.key_state(Target::All);
    assert_eq!(state.key_toggle_state, caps);
    assert_eq!(state.key_shift_state, KeyShiftState::VALID | KeyShiftState::LEFT_ALT);
    assert_eq!(consoles.key_state(Target::One(0)), NO_KEY_STATE);
    assert_eq!(consoles.set_key_state(Target::One(0), KeyToggleState::empty()), Err(ConsoleError::Unsupported));
}

#[test]
fn devices_with_keys_are_left_to_the_system_too() {
    let (mut consoles, _) = terminals(1);
    let keyboard = Keys::default();
    consoles.add(Box::new(keyboard.clone()));
    consoles.leave();
    assert!(keyboard.0.lock().unwrap().left);
}

#[test]
fn a_key_that_is_looked_for_is_taken_and_the_others_stay() {
    let (mut consoles, wires) = terminals(2);
    wires[1].type_keys(b"a\x1bOQb\x1b");
    consoles.poll(Target::All, 0);
    let is_f2 = |key: &KeyData| key.key.scan_code == keys::scan::F1 + 1;
    assert!(consoles.take_key(Target::All, is_f2).is_some());
    assert!(consoles.take_key(Target::All, is_f2).is_none());
    assert!(consoles.is_undecided(Target::All), "Esc, or the beginning of another key");
    consoles.poll(Target::All, keys::SEQUENCE_TIMEOUT);
    assert!(!consoles.is_undecided(Target::All));
    let left: Vec<u16> =
        core::iter::from_fn(|| consoles.next_key(Target::All)).map(|key| key.key.unicode_char).collect();
    assert_eq!(left, [u16::from(b'a'), u16::from(b'b'), 0]);
}
