//! A keyboard in its boot protocol: each report says which keys are held (HID 1.11 appendix B.1).
//!
//! Held keys repeat here, as keyboards do not do it by themselves; they repeat as often as somebody looks.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;

use services::console::{TextDevice, TextInput, TextOutput};
use uefi_raw::protocol::console::{KeyData, KeyState, KeyToggleState};

use super::Host;
use super::enumerate::{Found, set_lights};
use crate::keyboard::layout::{Change, Key, Layout};

/// A key that is held repeats after this time, and again after each of these (100 ns).
const REPEAT_AFTER: u64 = 500 * 10_000;
const REPEAT_EVERY: u64 = 40 * 10_000;
/// Most reports that one look takes.
const REPORTS_AT_ONCE: usize = 32;
/// Length of a report: modifiers, nothing, six keys.
const REPORT: usize = 8;
const KEYS: usize = 2;
/// Usages below are not keys but errors: too many held, and so on.
const FIRST_USAGE: u8 = 4;

/// Modifiers by their bits.
const MODIFIERS: [Key; 8] = [
    Key::plain(0x1D),
    Key::plain(0x2A),
    Key::plain(0x38),
    Key::extended(0x5B),
    Key::extended(0x1D),
    Key::plain(0x36),
    Key::extended(0x38),
    Key::extended(0x5C),
];

/// Keys by their usages from [`FIRST_USAGE`] on (HID Usage Tables 1.12 §10), as scan code set 1 numbers them: the highest bit for
/// the prefix, 0 for none.
const USAGES: &[u8] = &[
    // A to Z
    0x1E, 0x30, 0x2E, 0x20, 0x12, 0x21, 0x22, 0x23, 0x17, 0x24, 0x25, 0x26, 0x32, //
    0x31, 0x18, 0x19, 0x10, 0x13, 0x1F, 0x14, 0x16, 0x2F, 0x11, 0x2D, 0x15, 0x2C, //
    // 1 to 0
    0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, //
    // Enter, Esc, Backspace, Tab, Space, - = [ ] \ (and the same elsewhere) ; ' ` , . / Caps Lock
    0x1C, 0x01, 0x0E, 0x0F, 0x39, 0x0C, 0x0D, 0x1A, 0x1B, 0x2B, 0x2B, 0x27, 0x28, 0x29, 0x33, 0x34, 0x35, 0x3A, //
    // F1 to F12
    0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0x40, 0x41, 0x42, 0x43, 0x44, 0x57, 0x58, //
    // Print Screen, Scroll Lock, Pause, Insert, Home, Page Up, Delete, End, Page Down, Right, Left, Down, Up
    0xB7, 0x46, 0xC6, 0xD2, 0xC7, 0xC9, 0xD3, 0xCF, 0xD1, 0xCD, 0xCB, 0xD0, 0xC8, //
    // Num Lock, number pad / * - + Enter 1 to 0 and the point
    0x45, 0xB5, 0x37, 0x4A, 0x4E, 0x9C, 0x4F, 0x50, 0x51, 0x4B, 0x4C, 0x4D, 0x47, 0x48, 0x49, 0x52, 0x53, //
    // The key beside left shift, Menu, Power, = of the number pad, F13 to F24
    0x56, 0xDD, 0, 0, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x6B, 0x6C, 0x6D, 0x6E, 0x76,
];

fn key(usage: u8) -> Option<Key> {
    let code = *USAGES.get(usize::from(usage.checked_sub(FIRST_USAGE)?))?;
    let key = if code & 0x80 == 0 { Key::plain(code) } else { Key::extended(code) };
    (code != 0).then_some(key)
}

/// A keyboard as a console device.
pub struct Keyboard<H> {
    host: Rc<RefCell<H>>,
    device: Found,
    layout: Layout,
    /// The last report.
    held: [u8; REPORT],
    /// The key that repeats, and when it does so next.
    repeating: Option<(Key, u64)>,
    restart: Rc<dyn Fn()>,
}

impl<H: Host> Keyboard<H> {
    /// The keyboard `device` behind `host`; Ctrl-Alt-Del calls `restart`.
    pub fn new(host: Rc<RefCell<H>>, device: Found, restart: Rc<dyn Fn()>) -> Self {
        Self { host, device, layout: Layout::default(), held: [0; REPORT], repeating: None, restart }
    }

    fn take(&mut self, now: u64, limit: usize, keys: &mut dyn FnMut(KeyData)) {
        let lights = self.layout.lights();
        // A report can be of as many keys as it has room for.
        let mut room = limit;
        for _ in 0..REPORTS_AT_ONCE {
            if room < REPORT + KEYS {
                break;
            }
            let mut report = [0; REPORT];
            let Some(length) = self.next_report(&mut report) else { break };
            if length > KEYS {
                self.report(report, now, &mut |key| {
                    keys(key);
                    room -= 1;
                });
            }
        }
        if let Some((key, due)) = self.repeating
            && now >= due
            && room > 0
        {
            self.repeating = Some((key, now.saturating_add(REPEAT_EVERY)));
            self.change(key, true, keys);
        }
        self.show(lights);
    }

    fn next_report(&self, into: &mut [u8]) -> Option<usize> {
        self.host.try_borrow_mut().ok()?.report(self.device.reports, into)
    }

    /// Follows a report.
    fn report(&mut self, report: [u8; REPORT], now: u64, keys: &mut dyn FnMut(KeyData)) {
        let before = core::mem::replace(&mut self.held, report);
        for (bit, key) in MODIFIERS.into_iter().enumerate() {
            let held = |report: [u8; REPORT]| report[0] & 1 << bit != 0;
            if held(before) != held(report) {
                self.change(key, held(report), keys);
            }
        }
        // Too many keys at once, or another error: which ones are held is not told.
        if report[KEYS..].iter().any(|usage| (1..FIRST_USAGE).contains(usage)) {
            self.held[KEYS..].copy_from_slice(&before[KEYS..]);
            return;
        }
        for usage in &before[KEYS..] {
            if let Some(key) = key(*usage)
                && !report[KEYS..].contains(usage)
            {
                self.repeating = self.repeating.filter(|(repeating, _)| *repeating != key);
                self.change(key, false, keys);
            }
        }
        for usage in &report[KEYS..] {
            if let Some(key) = key(*usage)
                && !before[KEYS..].contains(usage)
            {
                self.repeating = Some((key, now.saturating_add(REPEAT_AFTER)));
                self.change(key, true, keys);
            }
        }
    }

    fn change(&mut self, key: Key, pressed: bool, keys: &mut dyn FnMut(KeyData)) {
        match self.layout.change(key, pressed) {
            Change::None => {}
            Change::Key(key) => keys(key),
            Change::Restart => (self.restart)(),
        }
    }

    /// Shows the toggles if they are others than before.
    fn show(&mut self, before: KeyToggleState) {
        let now = self.layout.lights();
        if now == before {
            return;
        }
        let light = |toggle, bit| if now.contains(toggle) { bit } else { 0 };
        let lights = light(KeyToggleState::NUM_LOCK_ACTIVE, 1 << 0)
            | light(KeyToggleState::CAPS_LOCK_ACTIVE, 1 << 1)
            | light(KeyToggleState::SCROLL_LOCK_ACTIVE, 1 << 2);
        if let Ok(mut host) = self.host.try_borrow_mut() {
            let _ = set_lights(&mut *host, &self.device, lights);
        }
    }
}

impl<H: Host> TextDevice for Keyboard<H> {
    fn output(&mut self) -> Option<&mut dyn TextOutput> {
        None
    }

    fn input(&mut self) -> Option<&mut dyn TextInput> {
        Some(self)
    }
}

impl<H: Host> TextInput for Keyboard<H> {
    fn poll(&mut self, now: u64, limit: usize, keys: &mut dyn FnMut(KeyData)) {
        self.take(now, limit, keys);
    }

    fn reset(&mut self) {
        self.repeating = None;
        self.take(0, usize::MAX, &mut |_| {});
        self.repeating = None;
    }

    fn key_state(&self) -> KeyState {
        self.layout.state()
    }

    fn set_state(&mut self, state: KeyToggleState) -> bool {
        let before = self.layout.lights();
        let taken = self.layout.set_toggles(state);
        self.show(before);
        taken
    }

    fn leave(&mut self) {
        if let Ok(mut host) = self.host.try_borrow_mut() {
            host.stop();
        }
    }
}

/// The console device.
pub fn device<H: Host + 'static>(host: Rc<RefCell<H>>, device: Found, restart: Rc<dyn Fn()>) -> Box<dyn TextDevice> {
    Box::new(Keyboard::new(host, device, restart))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use hw::fake::CountingAllocator;
    use services::console::keys::scan;
    use uefi_raw::protocol::console::KeyShiftState;

    use super::super::enumerate::keyboards;
    use super::super::testing::{FakeHost, KEYBOARD};
    use super::*;

    struct World {
        host: Rc<RefCell<FakeHost>>,
        keyboard: Keyboard<FakeHost>,
        restarts: Rc<Cell<usize>>,
    }

    fn world() -> World {
        let mut host = FakeHost::new(&[(&[0], KEYBOARD)]);
        let [device] = &keyboards(&mut host)[..] else { panic!("no keyboard") };
        let (device, host, restarts) = (device.clone(), Rc::new(RefCell::new(host)), Rc::new(Cell::new(0)));
        let counted = restarts.clone();
        let restart = Rc::new(move || counted.set(counted.get() + 1));
        World { keyboard: Keyboard::new(host.clone(), device, restart), host, restarts }
    }

    impl World {
        /// A report with these modifiers and keys.
        fn hold(&self, modifiers: u8, keys: &[u8]) {
            let mut report = vec![modifiers, 0, 0, 0, 0, 0, 0, 0];
            report[2..2 + keys.len()].copy_from_slice(keys);
            self.host.borrow_mut().reports.push_back(report);
        }

        fn keys(&mut self, now: u64) -> Vec<(u16, char)> {
            let mut keys = Vec::new();
            self.keyboard.poll(now, 100, &mut |KeyData { key, .. }| {
                keys.push((key.scan_code, char::from_u32(key.unicode_char.into()).unwrap()));
            });
            keys
        }

        fn text(&mut self) -> String {
            self.keys(0).into_iter().map(|(_, character)| character).collect()
        }
    }

    #[test]
    fn keys_that_are_new_in_a_report_are_pressed() {
        let mut world = world();
        world.hold(0, &[0x0B]);
        world.hold(0, &[0x0B, 0x0C]);
        world.hold(0, &[0x0C]);
        world.hold(0x02, &[0x0C]);
        world.hold(0x02, &[0x0C, 0x1E]);
        world.hold(0, &[]);
        assert_eq!(world.text(), "hi!");
    }

    #[test]
    fn each_usage_has_the_key_that_it_names() {
        let mut world = world();
        let mut tap = |usages: std::ops::RangeInclusive<u8>| {
            let mut keys = Vec::new();
            for usage in usages {
                world.hold(0, &[usage]);
                world.hold(0, &[]);
                keys.extend(world.keys(0));
            }
            keys
        };
        let text = |keys: Vec<(u16, char)>| keys.into_iter().map(|(_, character)| character).collect::<String>();
        assert_eq!(text(tap(0x04..=0x27)), "abcdefghijklmnopqrstuvwxyz1234567890");
        assert_eq!(tap(0x29..=0x29), [(scan::ESC, '\0')]);
        assert_eq!(text(tap(0x28..=0x28)), "\r");
        assert_eq!(text(tap(0x2A..=0x38)), "\x08\t -=[]\\\\;'`,./");
        let scans = |keys: Vec<(u16, char)>| keys.into_iter().map(|(scan, _)| scan).collect::<Vec<_>>();
        assert_eq!(scans(tap(0x3A..=0x45)), (0x0B..=0x16).collect::<Vec<_>>());
        assert_eq!(scans(tap(0x48..=0x52)), [0x48, 7, 5, 9, 8, 6, 0x0A, 3, 4, 2, 1]);
        assert_eq!(text(tap(0x53..=0x63)), "/*-+\r1234567890.");
        assert_eq!(scans(tap(0x68..=0x73)), (0x68..=0x73).collect::<Vec<_>>());
        assert_eq!(USAGES.len(), 0x74 - 4);
    }

    #[test]
    fn a_held_key_repeats_and_stops() {
        let mut world = world();
        world.hold(0, &[0x04]);
        assert_eq!(world.keys(0).len(), 1);
        assert_eq!(world.keys(REPEAT_AFTER - 1).len(), 0);
        assert_eq!(world.keys(REPEAT_AFTER).len(), 1);
        assert_eq!(world.keys(REPEAT_AFTER + 1).len(), 0);
        assert_eq!(world.keys(REPEAT_AFTER + REPEAT_EVERY).len(), 1);
        world.hold(0, &[]);
        assert_eq!(world.keys(10 * REPEAT_AFTER).len(), 0);
    }

    #[test]
    fn too_many_keys_at_once_change_nothing() {
        let mut world = world();
        world.hold(0, &[0x04]);
        world.hold(0, &[1, 1, 1, 1, 1, 1]);
        world.hold(0, &[0x04]);
        assert_eq!(world.text(), "a");
    }

    #[test]
    fn toggles_have_lights() {
        let mut world = world();
        world.hold(0, &[0x39]);
        world.hold(0, &[]);
        world.hold(0, &[0x04]);
        assert_eq!(world.text(), "A");
        assert_eq!(world.host.borrow().device(&[0]).lights, 2);
        assert!(world.keyboard.set_state(KeyToggleState::VALID | KeyToggleState::NUM_LOCK_ACTIVE));
        assert_eq!(world.host.borrow().device(&[0]).lights, 1);
    }

    #[test]
    fn modifiers_are_told_and_control_alt_delete_restarts() {
        let mut world = world();
        world.hold(0x10, &[]);
        assert_eq!(world.text(), "");
        let state = world.keyboard.key_state().key_shift_state;
        assert_eq!(state, KeyShiftState::VALID | KeyShiftState::RIGHT_CONTROL);
        world.hold(0x14, &[0x4C]);
        assert_eq!(world.text(), "");
        assert_eq!(world.restarts.get(), 1);
    }

    #[test]
    fn reports_of_any_content_and_length_and_without_end_do_no_harm() {
        let mut world = world();
        for value in 0..=255 {
            let reports = &mut world.host.borrow_mut().reports;
            reports.push_back(vec![value; usize::from(value) % 9]);
        }
        for _ in 0..20 {
            assert!(world.keys(0).len() <= 100);
        }
        world.host.borrow_mut().reports.clear();
        world.host.borrow_mut().babbling = true;
        assert!(world.keys(0).len() <= 100);
        world.keyboard.reset();
    }

    #[test]
    fn leaving_stops_the_controller_and_allocates_nothing() {
        let mut world = world();
        let before = CountingAllocator::count();
        world.keyboard.leave();
        assert_eq!(CountingAllocator::count(), before);
        assert!(world.host.borrow().stopped);
    }
}
