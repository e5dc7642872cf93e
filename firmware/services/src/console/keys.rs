//! From the bytes of a terminal's keyboard to keys.
//!
//! Understood are the sequences of xterm, VT220, VT100, the Linux console and, from UEFI 2.10 appendix B, those of
//! VT-UTF8 and ANSI terminals.

use uefi_raw::protocol::console::{InputKey, KeyData, KeyShiftState, KeyState, KeyToggleState};

/// Scan codes (UEFI 2.10 §12.1.2, §12.2.3).
#[expect(missing_docs, reason = "the names say it")]
pub mod scan {
    pub const UP: u16 = 0x01;
    pub const DOWN: u16 = 0x02;
    pub const RIGHT: u16 = 0x03;
    pub const LEFT: u16 = 0x04;
    pub const HOME: u16 = 0x05;
    pub const END: u16 = 0x06;
    pub const INSERT: u16 = 0x07;
    pub const DELETE: u16 = 0x08;
    pub const PAGE_UP: u16 = 0x09;
    pub const PAGE_DOWN: u16 = 0x0A;
    /// The first of ten; F11 and F12 follow.
    pub const F1: u16 = 0x0B;
    pub const F11: u16 = 0x15;
    pub const F12: u16 = 0x16;
    pub const ESC: u16 = 0x17;
    pub const PAUSE: u16 = 0x48;
    /// The first of twelve.
    pub const F13: u16 = 0x68;
    pub const MUTE: u16 = 0x7F;
    pub const VOLUME_UP: u16 = 0x80;
    pub const VOLUME_DOWN: u16 = 0x81;
}

/// How long the rest of a sequence may take to arrive, in units of 100 ns. After that an escape byte is the Esc key.
pub const SEQUENCE_TIMEOUT: u64 = 100 * 10_000;

/// Decodes the bytes of one terminal.
#[derive(Clone, Debug, Default)]
pub struct KeyDecoder {
    state: State,
    /// When the last byte came, if a sequence is not complete.
    since: u64,
    /// Whether the last byte was a carriage return, so that a line feed belongs to it.
    after_return: bool,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Ground,
    /// After ESC.
    Escape,
    /// After ESC O, with the modifier some terminals put here.
    SingleShift(u16),
    /// After ESC `[`.
    Control(Sequence),
    /// After ESC `[` `[` (Linux console) or ESC `[` O (ANSI): the next byte says which function key.
    Function { base: u8 },
    /// Inside of a UTF-8 sequence.
    Utf8 { code: u32, least: u32, missing: u8 },
}

/// What came between ESC `[` and the final byte.
#[derive(Clone, Copy, Debug, Default)]
struct Sequence {
    parameters: [u16; 2],
    index: usize,
    /// Holds bytes that no key has.
    foreign: bool,
}

impl KeyDecoder {
    /// A decoder that has seen nothing.
    pub const fn new() -> Self {
        Self { state: State::Ground, since: 0, after_return: false }
    }

    /// Takes a byte that arrived at the time `now` (100 ns) and gives the keys that are complete with it to `keys`.
    pub fn byte(&mut self, byte: u8, now: u64, keys: &mut impl FnMut(KeyData)) {
        self.expire(now, keys);
        self.since = now;
        let after_return = core::mem::replace(&mut self.after_return, byte == control::RETURN);
        self.state = match core::mem::take(&mut self.state) {
            State::Ground if byte == control::LINE_FEED && after_return => State::Ground,
            State::Ground => self.ground(byte, keys),
            State::Escape => self.escape(byte, keys),
            State::SingleShift(modifier) => single_shift(modifier, byte, keys),
            State::Control(sequence) => control_sequence(sequence, byte, keys),
            State::Function { base } => {
                function_key(byte, base, keys);
                State::Ground
            }
            State::Utf8 { code, least, missing } => self.continuation(code, least, missing, byte, keys),
        };
    }

    /// Gives the Esc key to `keys` if an escape byte came long enough before `now` and nothing followed.
    pub fn expire(&mut self, now: u64, keys: &mut impl FnMut(KeyData)) {
        if now.saturating_sub(self.since) < SEQUENCE_TIMEOUT {
            return;
        }
        if matches!(core::mem::take(&mut self.state), State::Escape) {
            keys(special(scan::ESC, KeyShiftState::empty()));
        }
    }

    /// Whether the bytes so far may be the beginning of a key, or the Esc key alone.
    pub const fn is_undecided(&self) -> bool {
        !matches!(self.state, State::Ground)
    }

    fn ground(&self, byte: u8, keys: &mut impl FnMut(KeyData)) -> State {
        match byte {
            control::ESCAPE => return State::Escape,
            0xC2..0xE0 => return State::Utf8 { code: u32::from(byte & 0x1F), least: 0x80, missing: 1 },
            0xE0..0xF0 => return State::Utf8 { code: u32::from(byte & 0x0F), least: 0x800, missing: 2 },
            0xF0..0xF5 => return State::Utf8 { code: u32::from(byte & 0x07), least: 0x1_0000, missing: 3 },
            0x80.. => {}
            byte => {
                if let Some(key) = ascii(byte) {
                    keys(key);
                }
            }
        }
        State::Ground
    }

    fn escape(&self, byte: u8, keys: &mut impl FnMut(KeyData)) -> State {
        let key = match byte {
            b'[' => return State::Control(Sequence::default()),
            b'O' => return State::SingleShift(0),
            control::ESCAPE => {
                keys(special(scan::ESC, KeyShiftState::empty()));
                return State::Escape;
            }
            b'1'..=b'9' => scan::F1 + u16::from(byte - b'1'),
            b'0' => scan::F1 + 9,
            b'!' => scan::F11,
            b'@' => scan::F12,
            b'h' => scan::HOME,
            b'k' => scan::END,
            b'+' => scan::INSERT,
            b'-' => scan::DELETE,
            b'?' => scan::PAGE_UP,
            b'/' => scan::PAGE_DOWN,
            _ => {
                return self.ground(byte, &mut |mut key: KeyData| {
                    key.key_state.key_shift_state |= KeyShiftState::LEFT_ALT;
                    keys(key);
                });
            }
        };
        keys(special(key, KeyShiftState::empty()));
        State::Ground
    }

    fn continuation(&self, code: u32, least: u32, missing: u8, byte: u8, keys: &mut impl FnMut(KeyData)) -> State {
        if byte & 0xC0 != 0x80 {
            // What came is no character; this byte may begin one.
            return self.ground(byte, keys);
        }
        let code = code << 6 | u32::from(byte & 0x3F);
        if missing > 1 {
            return State::Utf8 { code, least, missing: missing - 1 };
        }
        // Characters that take two units have no key.
        if let Some(unit) = char::from_u32(code).filter(|_| code >= least).and_then(|_| u16::try_from(code).ok()) {
            keys(character(unit, KeyShiftState::empty()));
        }
        State::Ground
    }
}

mod control {
    pub const BACKSPACE: u8 = 0x08;
    pub const TAB: u8 = 0x09;
    pub const LINE_FEED: u8 = 0x0A;
    pub const RETURN: u8 = 0x0D;
    pub const ESCAPE: u8 = 0x1B;
    pub const DELETE: u8 = 0x7F;
}

fn ascii(byte: u8) -> Option<KeyData> {
    let none = KeyShiftState::empty();
    Some(match byte {
        0 => return None,
        // What terminals send for the key left of Home is either of these.
        control::BACKSPACE | control::DELETE => character(control::BACKSPACE.into(), none),
        control::RETURN | control::LINE_FEED => character(control::RETURN.into(), none),
        control::TAB => character(byte.into(), none),
        0x01..=0x1A => character((byte | 0x60).into(), KeyShiftState::LEFT_CONTROL),
        0x1C..=0x1F => character((byte | 0x40).into(), KeyShiftState::LEFT_CONTROL),
        _ => character(byte.into(), none),
    })
}

fn single_shift(modifier: u16, byte: u8, keys: &mut impl FnMut(KeyData)) -> State {
    let shift = modifiers(modifier);
    match byte {
        b'0'..=b'9' => {
            return State::SingleShift(modifier.saturating_mul(10).saturating_add(u16::from(byte - b'0')));
        }
        b'P'..=b'[' => keys(special(function_scan(u16::from(byte - b'P')), shift)),
        b'M' => keys(character(control::RETURN.into(), shift)),
        // The number pad in application mode.
        b'j'..=b'y' => keys(character((byte - 0x40).into(), shift)),
        _ => {
            if let Some(scan) = cursor_key(byte) {
                keys(special(scan, shift));
            }
        }
    }
    State::Ground
}

fn control_sequence(mut sequence: Sequence, byte: u8, keys: &mut impl FnMut(KeyData)) -> State {
    match byte {
        b'0'..=b'9' => {
            if let Some(parameter) = sequence.parameters.get_mut(sequence.index) {
                *parameter = parameter.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
            }
            State::Control(sequence)
        }
        b';' => {
            sequence.index = sequence.index.saturating_add(1);
            State::Control(sequence)
        }
        // Other parameter bytes and intermediate bytes (ECMA-48 §5.4): no key has them.
        0x20..=0x3F => State::Control(Sequence { foreign: true, ..sequence }),
        b'[' => State::Function { base: b'A' },
        b'O' if sequence.parameters == [0; 2] => State::Function { base: b'P' },
        0x40..=0x7E => {
            if !sequence.foreign {
                sequence_key(sequence.parameters, byte, keys);
            }
            State::Ground
        }
        control::ESCAPE => State::Escape,
        _ => State::Ground,
    }
}

fn sequence_key([first, modifier]: [u16; 2], last: u8, keys: &mut impl FnMut(KeyData)) {
    let shift = modifiers(modifier);
    let scan = match last {
        b'~' => match first {
            1 | 7 => scan::HOME,
            2 => scan::INSERT,
            3 => scan::DELETE,
            4 | 8 => scan::END,
            5 => scan::PAGE_UP,
            6 => scan::PAGE_DOWN,
            11..=15 => function_scan(first - 11),
            17..=21 => function_scan(first - 12),
            23..=24 => function_scan(first - 13),
            _ => return,
        },
        b'Z' => return keys(character(control::TAB.into(), KeyShiftState::LEFT_SHIFT)),
        // xterm sends the first function keys this way when a modifier is held.
        b'P'..=b'S' if first == 1 && (2..=16).contains(&modifier) => function_scan(u16::from(last - b'P')),
        b'@' | b'L' => scan::INSERT,
        b'P' if [first, modifier] == [0; 2] => scan::DELETE,
        b'V' | b'I' => scan::PAGE_UP,
        b'U' | b'G' => scan::PAGE_DOWN,
        b'K' => scan::END,
        last => match cursor_key(last) {
            Some(scan) => scan,
            None => return,
        },
    };
    keys(special(scan, shift));
}

fn function_key(byte: u8, base: u8, keys: &mut impl FnMut(KeyData)) {
    if let Some(index @ 0..12) = byte.checked_sub(base) {
        keys(special(function_scan(index.into()), KeyShiftState::empty()));
    }
}

/// Scan code of function key `index`, counted from 0.
const fn function_scan(index: u16) -> u16 {
    scan::F1 + index
}

/// Keys that end in the same letter in all forms.
const fn cursor_key(last: u8) -> Option<u16> {
    Some(match last {
        b'A' => scan::UP,
        b'B' => scan::DOWN,
        b'C' => scan::RIGHT,
        b'D' => scan::LEFT,
        b'H' => scan::HOME,
        b'F' => scan::END,
        _ => return None,
    })
}

/// The modifier parameter of xterm: one more than the sum of shift 1, alt 2, control 4, meta 8.
fn modifiers(parameter: u16) -> KeyShiftState {
    let bits = parameter.saturating_sub(1);
    [
        (1, KeyShiftState::LEFT_SHIFT),
        (2, KeyShiftState::LEFT_ALT),
        (4, KeyShiftState::LEFT_CONTROL),
        (8, KeyShiftState::LEFT_LOGO),
    ]
    .into_iter()
    .filter(|(bit, _)| bits & bit != 0)
    .fold(KeyShiftState::empty(), |shift, (_, flag)| shift | flag)
}

fn special(scan_code: u16, shift: KeyShiftState) -> KeyData {
    KeyData { key: InputKey { scan_code, unicode_char: 0 }, key_state: key_state(shift) }
}

fn character(unicode_char: u16, shift: KeyShiftState) -> KeyData {
    KeyData { key: InputKey { scan_code: 0, unicode_char }, key_state: key_state(shift) }
}

fn key_state(shift: KeyShiftState) -> KeyState {
    KeyState { key_shift_state: KeyShiftState::VALID | shift, key_toggle_state: KeyToggleState::VALID }
}

/// The key as `EFI_SIMPLE_TEXT_INPUT_PROTOCOL` has it: without shift state, so that control and a letter are a control
/// character.
pub const fn without_state(key: KeyData) -> InputKey {
    let InputKey { scan_code, unicode_char } = key.key;
    let controlled =
        key.key_state.key_shift_state.intersects(KeyShiftState::LEFT_CONTROL.union(KeyShiftState::RIGHT_CONTROL));
    match unicode_char {
        0x40..0x80 if controlled => InputKey { scan_code, unicode_char: unicode_char & 0x1F },
        _ => key.key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: KeyShiftState = KeyShiftState::empty();

    /// The keys of bytes that arrive at once and are followed by silence.
    fn keys(bytes: &[u8]) -> Vec<KeyData> {
        let mut decoder = KeyDecoder::default();
        let mut keys = Vec::new();
        for byte in bytes {
            decoder.byte(*byte, 0, &mut |key| keys.push(key));
        }
        decoder.expire(SEQUENCE_TIMEOUT, &mut |key| keys.push(key));
        keys
    }

    #[test]
    fn sequences_of_all_terminals_are_understood() {
        for (scan, sequences) in [
            (scan::UP, &["\x1b[A", "\x1bOA"][..]),
            (scan::DOWN, &["\x1b[B", "\x1bOB"]),
            (scan::RIGHT, &["\x1b[C", "\x1bOC"]),
            (scan::LEFT, &["\x1b[D", "\x1bOD"]),
            (scan::HOME, &["\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~", "\x1bh"]),
            (scan::END, &["\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~", "\x1bk", "\x1b[K"]),
            (scan::INSERT, &["\x1b[2~", "\x1b+", "\x1b[@"]),
            (scan::DELETE, &["\x1b[3~", "\x1b-", "\x1b[P"]),
            (scan::PAGE_UP, &["\x1b[5~", "\x1b?", "\x1b[V"]),
            (scan::PAGE_DOWN, &["\x1b[6~", "\x1b/", "\x1b[U"]),
            (scan::F1, &["\x1bOP", "\x1b[11~", "\x1b[[A", "\x1b[OP", "\x1b1"]),
            (scan::F1 + 1, &["\x1bOQ", "\x1b[12~", "\x1b[[B", "\x1b[OQ", "\x1b2"]),
            (scan::F1 + 4, &["\x1b[15~", "\x1b[[E", "\x1b[OT", "\x1bOT", "\x1b5"]),
            (scan::F1 + 5, &["\x1b[17~", "\x1b6"]),
            (scan::F1 + 9, &["\x1b[21~", "\x1b0", "\x1b[OY"]),
            (scan::F11, &["\x1b[23~", "\x1b!", "\x1b[OZ"]),
            (scan::F12, &["\x1b[24~", "\x1b@", "\x1b[O[", "\x1bO["]),
            (scan::ESC, &["\x1b"]),
        ] {
            for sequence in sequences {
                assert_eq!(keys(sequence.as_bytes()), [special(scan, NONE)], "{sequence:?}");
            }
        }
    }

    #[test]
    fn modifiers_are_shift_state() {
        assert_eq!(keys(b"\x1b[1;5C"), [special(scan::RIGHT, KeyShiftState::LEFT_CONTROL)]);
        assert_eq!(keys(b"\x1b[3;2~"), [special(scan::DELETE, KeyShiftState::LEFT_SHIFT)]);
        assert_eq!(keys(b"\x1b[1;2P"), [special(scan::F1, KeyShiftState::LEFT_SHIFT)]);
        assert_eq!(keys(b"\x1b[Z"), [character(9, KeyShiftState::LEFT_SHIFT)]);
        assert_eq!(keys(b"\x1bx"), [character(b'x'.into(), KeyShiftState::LEFT_ALT)]);
    }

    #[test]
    fn control_characters_are_letters_with_control() {
        assert_eq!(keys(&[3]), [character(b'c'.into(), KeyShiftState::LEFT_CONTROL)]);
        assert_eq!(keys(&[0x1C]), [character(b'\\'.into(), KeyShiftState::LEFT_CONTROL)]);
        assert_eq!(without_state(keys(&[3])[0]), InputKey { scan_code: 0, unicode_char: 3 });
        assert_eq!(without_state(keys(&[0x1C])[0]), InputKey { scan_code: 0, unicode_char: 0x1C });
        assert_eq!(without_state(keys(b"c")[0]), InputKey { scan_code: 0, unicode_char: b'c'.into() });
    }

    #[test]
    fn enter_is_one_key_however_it_is_sent() {
        let enter = character(13, NONE);
        assert_eq!(keys(b"\r"), [enter]);
        assert_eq!(keys(b"\n"), [enter]);
        assert_eq!(keys(b"\r\n"), [enter]);
        assert_eq!(keys(b"\r\r\n\n"), [enter; 3]);
    }

    #[test]
    fn both_bytes_for_backspace_are_backspace() {
        assert_eq!(keys(&[8, 0x7F]), [character(8, NONE); 2]);
    }

    #[test]
    fn utf8_is_decoded_within_the_first_plane() {
        let units = |text: &str| text.encode_utf16().map(|unit| character(unit, NONE)).collect::<Vec<_>>();
        assert_eq!(keys("aäя日".as_bytes()), units("aäя日"));
        assert_eq!(keys("😀x".as_bytes()), units("x"));
    }

    #[test]
    fn malformed_utf8_yields_nothing_and_loses_nothing() {
        for bytes in [&b"\xC3x"[..], b"\xE2\x82x", b"\x80x", b"\xC0\x80x", b"\xE0\x80\x80x", b"\xED\xA0\x80x", b"\xFFx"]
        {
            assert_eq!(keys(bytes), [character(b'x'.into(), NONE)], "{bytes:x?}");
        }
    }

    #[test]
    fn unknown_sequences_are_swallowed_whole() {
        for bytes in
            [&b"\x1b[200~x"[..], b"\x1b[?1;2cx", b"\x1b[99999999;99999999;1;1;1Rx", b"\x1b[<0;1;1Mx", b"\x1bOzx"]
        {
            assert_eq!(keys(bytes), [character(b'x'.into(), NONE)], "{bytes:?}");
        }
    }

    #[test]
    fn escape_waits_for_its_sequence_but_not_for_ever() {
        let mut decoder = KeyDecoder::default();
        let mut keys = Vec::new();
        decoder.byte(0x1B, 0, &mut |key| keys.push(key));
        decoder.expire(SEQUENCE_TIMEOUT - 1, &mut |key| keys.push(key));
        assert_eq!(keys, []);
        decoder.byte(b'[', SEQUENCE_TIMEOUT - 1, &mut |key| keys.push(key));
        decoder.byte(b'A', SEQUENCE_TIMEOUT, &mut |key| keys.push(key));
        assert_eq!(keys, [special(scan::UP, NONE)]);
    }

    #[test]
    fn character_long_after_escape_is_its_own_key() {
        let mut decoder = KeyDecoder::default();
        let mut keys = Vec::new();
        decoder.byte(0x1B, 0, &mut |key| keys.push(key));
        decoder.byte(b'[', SEQUENCE_TIMEOUT, &mut |key| keys.push(key));
        assert_eq!(keys, [special(scan::ESC, NONE), character(b'['.into(), NONE)]);
    }

    #[test]
    fn two_escapes_are_two_keys() {
        assert_eq!(keys(b"\x1b\x1b"), [special(scan::ESC, NONE); 2]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn no_bytes_panic() {
        let mut decoder = KeyDecoder::default();
        let mut seed = 1_u32;
        for time in 0..20_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let byte = if seed >> 30 == 0 { 0x1B } else { (seed >> 16) as u8 };
            decoder.byte(byte, time, &mut |_| {});
        }
    }
}
