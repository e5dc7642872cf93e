//! Scan code set 1, as the translating controller gives it.

use super::layout::Key;

/// The key was let go.
const RELEASED: u8 = 0x80;
/// The next byte is of a key that the first keyboards did not have.
const EXTENDED: u8 = 0xE0;
/// Two more bytes follow, of the Pause key, the only one that begins so.
const PAUSE: u8 = 0xE1;
/// The keyboard lost keys, or its self-test failed.
const OVERRUN: [u8; 2] = [0x00, 0xFF];
/// Shift keys that nobody pressed: keyboards put them around extended keys so that old software takes those for keys of the
/// number pad.
const FAKE_SHIFTS: [u8; 2] = [0x2A, 0x36];

/// Where in a sequence the bytes are.
#[derive(Clone, Copy, Default, Debug)]
pub enum Decoder {
    /// Between keys.
    #[default]
    Ground,
    /// After [`EXTENDED`].
    Extended,
    /// In the Pause key, with so many bytes to come.
    Pause {
        /// Bytes to come.
        missing: u8,
    },
}

impl Decoder {
    /// Takes a byte; the key that is complete with it, and whether it is pressed.
    pub fn byte(&mut self, byte: u8) -> Option<(Key, bool)> {
        let pressed = byte & RELEASED == 0;
        match (core::mem::take(self), byte) {
            (_, byte) if OVERRUN.contains(&byte) => None,
            (_, EXTENDED) => {
                *self = Self::Extended;
                None
            }
            (_, PAUSE) => {
                *self = Self::Pause { missing: 2 };
                None
            }
            (Self::Pause { missing: 2.. }, _) => {
                *self = Self::Pause { missing: 1 };
                None
            }
            (Self::Pause { .. }, _) => Some((Key::PAUSE, pressed)),
            (Self::Extended, byte) if FAKE_SHIFTS.contains(&(byte & !RELEASED)) => None,
            (Self::Extended, byte) => Some((Key::extended(byte & !RELEASED), pressed)),
            (Self::Ground, byte) => Some((Key::plain(byte), pressed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<(Key, bool)> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|byte| decoder.byte(*byte)).collect()
    }

    #[test]
    fn plain_and_extended_keys_are_told_apart() {
        assert_eq!(keys(&[0x1C, 0x9C]), [(Key::plain(0x1C), true), (Key::plain(0x1C), false)]);
        assert_eq!(keys(&[0xE0, 0x1C, 0xE0, 0x9C]), [(Key::extended(0x1C), true), (Key::extended(0x1C), false)]);
    }

    #[test]
    fn shifts_that_nobody_pressed_are_left_out() {
        let print_screen = [0xE0, 0x2A, 0xE0, 0x37, 0xE0, 0xB7, 0xE0, 0xAA];
        assert_eq!(keys(&print_screen), [(Key::extended(0x37), true), (Key::extended(0x37), false)]);
    }

    #[test]
    fn the_pause_key_is_one_key() {
        let pause = [0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5, 0x1E];
        assert_eq!(keys(&pause), [(Key::PAUSE, true), (Key::PAUSE, false), (Key::plain(0x1E), true)]);
    }

    #[test]
    fn lost_keys_leave_no_half_sequence() {
        assert_eq!(keys(&[0xE0, 0xFF, 0x48]), [(Key::plain(0x48), true)]);
        assert_eq!(keys(&[0xE0, 0xE1, 0xE0, 0x48]), [(Key::extended(0x48), true)]);
    }
}
