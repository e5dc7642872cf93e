//! From keys to what UEFI knows of them (UEFI 2.10 §12.2.3), on the US layout.
//!
//! Shift and the toggles are taken into account here: a character that they change comes without them. Control and Alt do
//! not change what a key is, they are told beside it; [`without_state`](services::console::keys::without_state) makes control
//! characters of that for those who want them.

use services::console::can_set_state;
use services::console::keys::scan;
use uefi_raw::protocol::console::{InputKey, KeyData, KeyShiftState, KeyState, KeyToggleState};

/// A key by its place on the keyboard: the number it has in scan code set 1, with the highest bit set for the keys that set
/// has a prefix for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key(u8);

const EXTENDED: u8 = 0x80;

impl Key {
    /// The Pause key; together with control, keyboards send it as this one.
    pub const PAUSE: Self = Self::extended(0x46);

    /// A key without prefix.
    pub const fn plain(code: u8) -> Self {
        Self(code & !EXTENDED)
    }

    /// A key with prefix.
    pub const fn extended(code: u8) -> Self {
        Self(code | EXTENDED)
    }

    /// The modifier that holding the key is.
    const fn modifier(self) -> Option<KeyShiftState> {
        Some(match self.0 {
            0x1D => KeyShiftState::LEFT_CONTROL,
            0x2A => KeyShiftState::LEFT_SHIFT,
            0x36 => KeyShiftState::RIGHT_SHIFT,
            0x38 => KeyShiftState::LEFT_ALT,
            // Print Screen; with Alt it has another number.
            0xB7 | 0x54 => KeyShiftState::SYS_REQ,
            0x9D => KeyShiftState::RIGHT_CONTROL,
            0xB8 => KeyShiftState::RIGHT_ALT,
            0xDB => KeyShiftState::LEFT_LOGO,
            0xDC => KeyShiftState::RIGHT_LOGO,
            0xDD => KeyShiftState::MENU_KEY,
            _ => return None,
        })
    }

    /// What pressing the key turns on and off.
    const fn toggle(self) -> Option<KeyToggleState> {
        Some(match self.0 {
            0x3A => KeyToggleState::CAPS_LOCK_ACTIVE,
            0x45 => KeyToggleState::NUM_LOCK_ACTIVE,
            0x46 => KeyToggleState::SCROLL_LOCK_ACTIVE,
            _ => return None,
        })
    }

    /// What the key has printed on it.
    fn cap(self) -> Option<Cap> {
        let code = self.0;
        for (first, plain, shifted) in CHARACTERS {
            if let Some(index) = code.checked_sub(*first).map(usize::from)
                && let (Some(plain), Some(shifted)) = (plain.get(index), shifted.get(index))
            {
                return Some(Cap::Character { plain: *plain, shifted: *shifted });
            }
        }
        if let Some(index) = code.checked_sub(PAD_FIRST).map(usize::from)
            && let (Some(scan), Some(character)) = (PAD_SCANS.get(index), PAD_CHARACTERS.get(index))
        {
            return Some(Cap::Pad { scan: *scan, character: *character });
        }
        Some(Cap::Special(match code {
            0x01 => scan::ESC,
            0x3B..=0x44 => scan::F1 + u16::from(code - 0x3B),
            0x57 => scan::F11,
            0x58 => scan::F12,
            0x64..=0x6E => scan::F13 + u16::from(code - 0x64),
            0x76 => scan::F13 + 11,
            0xA0 => scan::MUTE,
            0xAE => scan::VOLUME_DOWN,
            0xB0 => scan::VOLUME_UP,
            0xC6 => scan::PAUSE,
            0xC7 => scan::HOME,
            0xC8 => scan::UP,
            0xC9 => scan::PAGE_UP,
            0xCB => scan::LEFT,
            0xCD => scan::RIGHT,
            0xCF => scan::END,
            0xD0 => scan::DOWN,
            0xD1 => scan::PAGE_DOWN,
            0xD2 => scan::INSERT,
            0xD3 => scan::DELETE,
            _ => return None,
        }))
    }
}

/// What is printed on a key.
enum Cap {
    /// A character, and another with shift.
    Character { plain: u8, shifted: u8 },
    /// A key without character.
    Special(u16),
    /// A key of the number pad: a character with Num Lock, else a key without one.
    Pad { scan: u16, character: u8 },
}

/// Characters of keys that follow each other, from the key with the first number on: alone, and with shift.
const CHARACTERS: &[(u8, &[u8], &[u8])] = &[
    (0x02, b"1234567890-=\x08\x09", b"!@#$%^&*()_+\x08\x09"),
    (0x10, b"qwertyuiop[]\r", b"QWERTYUIOP{}\r"),
    (0x1E, b"asdfghjkl;'`", b"ASDFGHJKL:\"~"),
    (0x2B, b"\\zxcvbnm,./", b"|ZXCVBNM<>?"),
    (0x37, b"*", b"*"),
    (0x39, b" ", b" "),
    (0x4A, b"-", b"-"),
    (0x4E, b"+", b"+"),
    (0x56, b"\\", b"|"),
    (0x9C, b"\r", b"\r"),
    (0xB5, b"/", b"/"),
];

/// The number pad from its key 7 on.
const PAD_FIRST: u8 = 0x47;
const PAD_CHARACTERS: &[u8; 13] = b"789-456+1230.";
const PAD_SCANS: [u16; 13] = [
    scan::HOME,
    scan::UP,
    scan::PAGE_UP,
    0,
    scan::LEFT,
    0,
    scan::RIGHT,
    0,
    scan::END,
    scan::DOWN,
    scan::PAGE_DOWN,
    scan::INSERT,
    scan::DELETE,
];

const SHIFT: KeyShiftState = KeyShiftState::LEFT_SHIFT.union(KeyShiftState::RIGHT_SHIFT);
const CONTROL: KeyShiftState = KeyShiftState::LEFT_CONTROL.union(KeyShiftState::RIGHT_CONTROL);
const ALT: KeyShiftState = KeyShiftState::LEFT_ALT.union(KeyShiftState::RIGHT_ALT);
const LIGHTS: KeyToggleState =
    KeyToggleState::CAPS_LOCK_ACTIVE.union(KeyToggleState::NUM_LOCK_ACTIVE).union(KeyToggleState::SCROLL_LOCK_ACTIVE);
/// Ctrl-Alt with one of these restarts.
const DELETE: [Key; 2] = [Key::plain(0x53), Key::extended(0x53)];

/// What a key that was pressed or let go amounts to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing that anybody is told of.
    None,
    /// A key.
    Key(KeyData),
    /// Ctrl-Alt-Del.
    Restart,
}

/// Modifiers and toggles of a keyboard.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    held: KeyShiftState,
    toggles: KeyToggleState,
    /// Toggle keys that are held: one that repeats counts once.
    toggle_keys: KeyToggleState,
}

impl Default for Layout {
    fn default() -> Self {
        Self { held: KeyShiftState::empty(), toggles: KeyToggleState::empty(), toggle_keys: KeyToggleState::empty() }
    }
}

impl Layout {
    /// Follows a key that was pressed, or repeats, or was let go.
    pub fn change(&mut self, key: Key, pressed: bool) -> Change {
        if let Some(modifier) = key.modifier() {
            let before = self.held;
            self.held.set(modifier, pressed);
            return self.partial(self.held != before);
        }
        if let Some(toggle) = key.toggle() {
            let before = self.toggles;
            if pressed && !self.toggle_keys.contains(toggle) {
                self.toggles.toggle(toggle);
            }
            self.toggle_keys.set(toggle, pressed);
            return self.partial(self.toggles != before);
        }
        if !pressed {
            return Change::None;
        }
        if DELETE.contains(&key) && self.held.intersects(CONTROL) && self.held.intersects(ALT) {
            return Change::Restart;
        }
        key.cap().and_then(|cap| self.press(&cap)).map_or(Change::None, Change::Key)
    }

    /// What is held and on.
    pub fn state(&self) -> KeyState {
        self.state_with(self.held)
    }

    /// The toggles that have a light.
    pub fn lights(&self) -> KeyToggleState {
        self.toggles & LIGHTS
    }

    /// Sets the toggles, and whether modifiers alone are told; `false` for a state that there is not.
    pub fn set_toggles(&mut self, state: KeyToggleState) -> bool {
        let possible = can_set_state(state);
        if possible {
            self.toggles = state & !KeyToggleState::VALID;
        }
        possible
    }

    fn state_with(&self, held: KeyShiftState) -> KeyState {
        KeyState {
            key_shift_state: KeyShiftState::VALID | held,
            key_toggle_state: KeyToggleState::VALID | self.toggles,
        }
    }

    /// A modifier or toggle that changed is a key without scan code and character, for who asked for that.
    fn partial(&self, changed: bool) -> Change {
        if changed && self.toggles.contains(KeyToggleState::EXPOSED) {
            Change::Key(KeyData { key: InputKey::default(), key_state: self.state() })
        } else {
            Change::None
        }
    }

    fn press(&self, cap: &Cap) -> Option<KeyData> {
        let shift = self.held.intersects(SHIFT);
        let on = |toggle| self.toggles.contains(toggle);
        let (scan_code, unicode_char, shift_used) = match *cap {
            Cap::Special(scan) => (scan, 0, false),
            Cap::Character { plain, shifted } => {
                let capital = plain.is_ascii_lowercase() && on(KeyToggleState::CAPS_LOCK_ACTIVE);
                let character = if shift != capital { shifted } else { plain };
                (0, character, plain != shifted)
            }
            Cap::Pad { scan, character } => {
                if shift != on(KeyToggleState::NUM_LOCK_ACTIVE) {
                    (0, character, true)
                } else if scan == 0 {
                    return None;
                } else {
                    (scan, 0, true)
                }
            }
        };
        let held = if shift_used { self.held & !SHIFT } else { self.held };
        let key = InputKey { scan_code, unicode_char: unicode_char.into() };
        Some(KeyData { key, key_state: self.state_with(held) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS_LOCK: Key = Key::plain(0x3A);
    const NUM_LOCK: Key = Key::plain(0x45);
    const LEFT_SHIFT: Key = Key::plain(0x2A);
    const RIGHT_CONTROL: Key = Key::extended(0x1D);
    const LEFT_ALT: Key = Key::plain(0x38);

    /// Presses a key and lets it go; the key that this gives as scan code, character, modifiers.
    fn tap(layout: &mut Layout, key: Key) -> Option<(u16, char, KeyShiftState)> {
        let change = layout.change(key, true);
        assert!(matches!(
            layout.change(key, false),
            Change::None | Change::Key(KeyData { key: InputKey { scan_code: 0, unicode_char: 0 }, .. })
        ));
        match change {
            Change::Key(KeyData { key, key_state }) => {
                assert!(key_state.key_shift_state.contains(KeyShiftState::VALID));
                assert!(key_state.key_toggle_state.contains(KeyToggleState::VALID));
                let character = char::from_u32(key.unicode_char.into()).unwrap();
                Some((key.scan_code, character, key_state.key_shift_state & !KeyShiftState::VALID))
            }
            _ => None,
        }
    }

    /// What the keys with these numbers give as text.
    fn text(layout: &mut Layout, keys: impl IntoIterator<Item = u8>) -> String {
        keys.into_iter().filter_map(|code| tap(layout, Key::plain(code))).map(|(_, character, _)| character).collect()
    }

    #[test]
    fn the_keys_have_their_characters_with_and_without_shift() {
        let mut layout = Layout::default();
        let rows = || (0x02..=0x0D).chain(0x10..=0x1B).chain(0x1E..=0x29).chain(0x2B..=0x35).chain([0x39, 0x56]);
        assert_eq!(text(&mut layout, rows()), "1234567890-=qwertyuiop[]asdfghjkl;'`\\zxcvbnm,./ \\");
        layout.change(LEFT_SHIFT, true);
        assert_eq!(text(&mut layout, rows()), "!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:\"~|ZXCVBNM<>? |");
        layout.change(LEFT_SHIFT, false);
        assert_eq!(text(&mut layout, [0x0E, 0x0F, 0x1C]), "\x08\t\r");
    }

    #[test]
    fn every_scan_code_of_uefi_has_its_key() {
        let mut layout = Layout::default();
        let plain =
            [(0x01, 0x17)].into_iter().chain((0x3B..=0x44).zip(0x0B..=0x14)).chain([(0x57, 0x15), (0x58, 0x16)]);
        let plain = plain.chain((0x64..=0x6E).zip(0x68..=0x72)).chain([(0x76, 0x73)]);
        let extended = [
            (0x48, 1),
            (0x50, 2),
            (0x4D, 3),
            (0x4B, 4),
            (0x47, 5),
            (0x4F, 6),
            (0x52, 7),
            (0x53, 8),
            (0x49, 9),
            (0x51, 10),
            (0x46, 0x48),
            (0x20, 0x7F),
            (0x30, 0x80),
            (0x2E, 0x81),
        ];
        let keys = plain.map(|(code, scan)| (Key::plain(code), scan));
        for (key, scan) in keys.chain(extended.map(|(code, scan)| (Key::extended(code), scan))) {
            assert_eq!(tap(&mut layout, key), Some((scan, '\0', KeyShiftState::empty())), "{key:x?}");
        }
    }

    #[test]
    fn shift_that_made_the_character_is_not_told_and_other_shift_is() {
        let mut layout = Layout::default();
        layout.change(LEFT_SHIFT, true);
        assert_eq!(tap(&mut layout, Key::plain(0x1E)), Some((0, 'A', KeyShiftState::empty())));
        assert_eq!(tap(&mut layout, Key::plain(0x3B)), Some((scan::F1, '\0', KeyShiftState::LEFT_SHIFT)));
        assert_eq!(tap(&mut layout, Key::plain(0x0F)), Some((0, '\t', KeyShiftState::LEFT_SHIFT)));
    }

    #[test]
    fn caps_lock_changes_letters_only_and_shift_undoes_it() {
        let mut layout = Layout::default();
        tap(&mut layout, CAPS_LOCK);
        assert_eq!(text(&mut layout, [0x1E, 0x02]), "A1");
        layout.change(LEFT_SHIFT, true);
        assert_eq!(text(&mut layout, [0x1E, 0x02]), "a!");
    }

    #[test]
    fn a_toggle_key_that_repeats_counts_once() {
        let mut layout = Layout::default();
        for _ in 0..5 {
            layout.change(CAPS_LOCK, true);
        }
        layout.change(CAPS_LOCK, false);
        assert_eq!(layout.lights(), KeyToggleState::CAPS_LOCK_ACTIVE);
    }

    #[test]
    fn the_number_pad_moves_or_writes() {
        let mut layout = Layout::default();
        let pad = 0x47..=0x53;
        assert_eq!(text(&mut layout, pad.clone()), "\0\0\0-\0\0+\0\0\0\0\0");
        assert_eq!(tap(&mut layout, Key::plain(0x48)), Some((scan::UP, '\0', KeyShiftState::empty())));
        assert_eq!(tap(&mut layout, Key::plain(0x4C)), None);
        tap(&mut layout, NUM_LOCK);
        assert_eq!(text(&mut layout, pad), "789-456+1230.");
        layout.change(LEFT_SHIFT, true);
        assert_eq!(tap(&mut layout, Key::plain(0x48)), Some((scan::UP, '\0', KeyShiftState::empty())));
        assert_eq!(text(&mut layout, [0x37]), "*");
        assert_eq!(tap(&mut layout, Key::extended(0x35)).unwrap().1, '/');
        assert_eq!(tap(&mut layout, Key::extended(0x1C)).unwrap().1, '\r');
    }

    #[test]
    fn control_is_told_beside_the_letter() {
        let mut layout = Layout::default();
        layout.change(RIGHT_CONTROL, true);
        assert_eq!(tap(&mut layout, Key::plain(0x2E)), Some((0, 'c', KeyShiftState::RIGHT_CONTROL)));
        let Change::Key(key) = layout.change(Key::plain(0x2E), true) else { panic!("no key") };
        assert_eq!(services::console::keys::without_state(key).unicode_char, 3);
        layout.change(RIGHT_CONTROL, false);
        assert_eq!(tap(&mut layout, Key::plain(0x2E)), Some((0, 'c', KeyShiftState::empty())));
    }

    #[test]
    fn each_modifier_is_told_by_its_own_name() {
        for (key, modifier) in [
            (Key::plain(0x1D), KeyShiftState::LEFT_CONTROL),
            (Key::plain(0x2A), KeyShiftState::LEFT_SHIFT),
            (Key::plain(0x36), KeyShiftState::RIGHT_SHIFT),
            (Key::plain(0x38), KeyShiftState::LEFT_ALT),
            (Key::extended(0x1D), KeyShiftState::RIGHT_CONTROL),
            (Key::extended(0x38), KeyShiftState::RIGHT_ALT),
            (Key::extended(0x5B), KeyShiftState::LEFT_LOGO),
            (Key::extended(0x5C), KeyShiftState::RIGHT_LOGO),
            (Key::extended(0x5D), KeyShiftState::MENU_KEY),
            (Key::extended(0x37), KeyShiftState::SYS_REQ),
        ] {
            let mut layout = Layout::default();
            assert_eq!(layout.change(key, true), Change::None);
            assert_eq!(tap(&mut layout, Key::plain(0x3B)), Some((scan::F1, '\0', modifier)));
            layout.change(key, false);
            assert_eq!(layout.state().key_shift_state, KeyShiftState::VALID);
        }
    }

    #[test]
    fn control_alt_delete_restarts() {
        let mut layout = Layout::default();
        layout.change(RIGHT_CONTROL, true);
        assert!(tap(&mut layout, Key::extended(0x53)).is_some());
        layout.change(LEFT_ALT, true);
        assert_eq!(layout.change(Key::extended(0x53), true), Change::Restart);
        assert_eq!(layout.change(Key::plain(0x53), true), Change::Restart);
        assert_eq!(layout.change(Key::extended(0x53), false), Change::None);
    }

    #[test]
    fn modifiers_alone_are_told_to_who_asked() {
        let mut layout = Layout::default();
        assert_eq!(layout.change(LEFT_ALT, true), Change::None);
        assert!(layout.set_toggles(KeyToggleState::VALID | KeyToggleState::EXPOSED));
        assert_eq!(layout.change(LEFT_ALT, true), Change::None, "it repeats");
        let Change::Key(key) = layout.change(LEFT_ALT, false) else { panic!("no key") };
        assert_eq!((key.key, key.key_state.key_shift_state), (InputKey::default(), KeyShiftState::VALID));
    }

    #[test]
    fn toggles_can_be_set_if_the_state_says_it_is_valid() {
        let mut layout = Layout::default();
        assert!(!layout.set_toggles(KeyToggleState::CAPS_LOCK_ACTIVE));
        assert!(!layout.set_toggles(KeyToggleState::from_bits_retain(0xB8)));
        assert!(layout.set_toggles(KeyToggleState::VALID | KeyToggleState::NUM_LOCK_ACTIVE));
        assert_eq!(layout.lights(), KeyToggleState::NUM_LOCK_ACTIVE);
        assert_eq!(text(&mut layout, [0x4C]), "5");
        assert_eq!(layout.state().key_toggle_state, KeyToggleState::VALID | KeyToggleState::NUM_LOCK_ACTIVE);
    }

    #[test]
    fn no_key_has_two_meanings_and_none_panics() {
        for code in 0..=u8::MAX {
            let key = Key(code);
            let meanings = [key.modifier().is_some(), key.toggle().is_some(), key.cap().is_some()];
            assert!(meanings.iter().filter(|has| **has).count() <= 1, "{code:x}");
        }
    }
}
