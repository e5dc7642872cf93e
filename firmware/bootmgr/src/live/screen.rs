//! The console as the menu's display and keyboard.

use alloc::format;

use services::api;
use services::console::keys::scan;
use services::event::SECOND;
use uefi_raw::protocol::console::InputKey;

use crate::menu::Key;
use crate::menu::frame::{Display, Style};

const RETURN: u16 = 0x0D;
const BACKSPACE: u16 = 0x08;
/// What a key waits for while a countdown runs.
const HINT: &str = "Esc, F2 or Del: boot menu; Enter: at once";

/// All consoles together.
pub struct Screen {
    size: (usize, usize),
}

/// Lets `show` have the screen, and leaves it empty and in order behind.
pub fn with<R>(show: impl FnOnce(&mut Screen) -> R) -> R {
    // Without a console the menu draws nothing.
    let mut screen = Screen { size: api::console_size().unwrap_or((0, 0)) };
    api::show_cursor(false);
    let result = show(&mut screen);
    screen.clear();
    api::show_cursor(true);
    result
}

impl Display for Screen {
    fn size(&self) -> (usize, usize) {
        self.size
    }

    fn clear(&mut self) {
        api::clear_console(Style::NORMAL.0.into());
    }

    fn write(&mut self, column: usize, row: usize, style: Style, text: &str) {
        api::print_at(column, row, style.0.into(), text);
    }
}

/// Waits for a key that the menu knows; `None` if nothing has keys.
pub fn key() -> Option<Key> {
    loop {
        if let Some(key) = known(api::wait_for_key(None)?) {
            return Some(key);
        }
    }
}

fn known(InputKey { scan_code, unicode_char }: InputKey) -> Option<Key> {
    Some(match scan_code {
        scan::UP => Key::Up,
        scan::DOWN => Key::Down,
        scan::LEFT => Key::Left,
        scan::RIGHT => Key::Right,
        scan::HOME => Key::Home,
        scan::END => Key::End,
        scan::PAGE_UP => Key::PageUp,
        scan::PAGE_DOWN => Key::PageDown,
        scan::DELETE => Key::Delete,
        scan::ESC => Key::Escape,
        _ => match unicode_char {
            0 => return None,
            RETURN => Key::Enter,
            BACKSPACE => Key::Backspace,
            other => Key::Character(char::from_u32(other.into())?),
        },
    })
}

/// The keys that ask for the menu.
fn asks(key: InputKey) -> bool {
    const F2: u16 = scan::F1 + 1;
    matches!(key.scan_code, scan::ESC | F2 | scan::DELETE)
}

/// Whether somebody asks for the menu within so many seconds; 0 looks once, `u16::MAX` is as good as asking.
pub fn is_menu_wanted(seconds: u16) -> bool {
    if seconds == u16::MAX || api::take_key(asks) {
        return true;
    }
    let mut wanted = false;
    'countdown: for left in (1..=seconds).rev() {
        api::print(&format!("\rStarting in {left} s. {HINT} "));
        // Any other key begins the second anew.
        while let Some(key) = api::wait_for_key(Some(SECOND)) {
            wanted = asks(key);
            if wanted || key.unicode_char == RETURN {
                break 'countdown;
            }
        }
    }
    if seconds > 0 {
        api::print("\r\n");
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_protocol() {
        let key = |scan_code, unicode_char| known(InputKey { scan_code, unicode_char });
        assert_eq!(key(scan::UP, 0), Some(Key::Up));
        assert_eq!(key(0, RETURN), Some(Key::Enter));
        assert_eq!(key(0, u16::from(b'j')), Some(Key::Character('j')));
        assert_eq!(key(scan::F1, 0), None);
        assert_eq!(key(0, 0xD800), None);
        assert!(asks(InputKey { scan_code: scan::F1 + 1, unicode_char: 0 }));
        assert!(!asks(InputKey { scan_code: scan::F1, unicode_char: 0 }));
    }
}
