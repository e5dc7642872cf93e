//! The console for our own code: all devices together, as the system table's protocols have them.

use alloc::vec::Vec;

use uefi_raw::protocol::console::InputKey;
use uefi_raw::table::boot::{EventType, Tpl};

use crate::Result;
use crate::abi::console::{change, next_key, poll, with};
use crate::api;
use crate::console::Target;
use crate::console::keys::{SEQUENCE_TIMEOUT, without_state};
use crate::event::Timer;

/// How often an undecided key is looked at again, in microseconds.
const LOOK_AGAIN: usize = 5_000;
/// Units of 100 ns in a microsecond.
const UNITS: usize = 10;

/// Columns and rows; `None` where nothing shows text.
pub fn console_size() -> Option<(usize, usize)> {
    with(|consoles| {
        let mode = consoles.state(Target::All)?.mode;
        consoles.mode_size(Target::All, mode).ok()
    })
    .ok()
    .flatten()
}

/// Writes in the colours and at the place that are set.
pub fn print(text: &str) {
    let text: Vec<u16> = text.encode_utf16().collect();
    // What cannot be shown is shown as something else.
    let _ = change(|consoles| consoles.write(Target::All, &text));
}

/// Writes at a place of the screen, in the colours of UEFI 2.10 §12.4.7. A place outside is left alone.
pub fn print_at(column: usize, row: usize, colours: usize, text: &str) {
    let text: Vec<u16> = text.encode_utf16().collect();
    let _ = change(|consoles| {
        consoles.set_cursor(Target::All, column, row)?;
        consoles.set_attribute(Target::All, colours)?;
        consoles.write(Target::All, &text);
        Ok::<(), crate::console::ConsoleError>(())
    });
}

/// Clears the screen in these colours.
pub fn clear_console(colours: usize) {
    let _ = change(|consoles| {
        consoles.set_attribute(Target::All, colours)?;
        consoles.clear(Target::All);
        Ok::<(), crate::console::ConsoleError>(())
    });
}

/// Shows or hides the cursor.
pub fn show_cursor(visible: bool) {
    let _ = change(|consoles| consoles.show_cursor(Target::All, visible));
}

/// Takes the first waiting key that `wanted` says yes to; the others stay for whoever is started. Does not wait, but for the
/// rest of a key that has begun.
pub fn take_key(wanted: impl Fn(InputKey) -> bool) -> bool {
    for _ in 0..=SEQUENCE_TIMEOUT as usize / (LOOK_AGAIN * UNITS) {
        let looked = poll(Target::All).and_then(|()| {
            with(|consoles| consoles.take_key(Target::All, |key| wanted(without_state(*key))).is_some())
        });
        match looked {
            Ok(false) if with(|consoles| consoles.is_undecided(Target::All)) == Ok(true) => api::stall(LOOK_AGAIN),
            taken => return taken == Ok(true),
        }
    }
    false
}

/// Waits for a key, no longer than `limit` (100 ns) if there is one. `None` if none came, or nothing has keys.
pub fn wait_for_key(limit: Option<u64>) -> Option<InputKey> {
    let table = api::system_table();
    if table.is_null() {
        return None;
    }
    // SAFETY: the firmware's own table.
    let input = unsafe { (*table).stdin };
    if input.is_null() {
        return None;
    }
    // SAFETY: the protocol of the console, which stays.
    let key_event = unsafe { (*input).wait_for_key };
    let timer = limit.and_then(|limit| {
        let timer = api::create_event(EventType::TIMER, Tpl::CALLBACK, None).ok()?;
        api::set_timer(timer, Timer::Relative(limit)).ok().map(|()| timer)
    });
    let events: Vec<_> = core::iter::once(key_event).chain(timer).collect();
    let key = loop {
        let signaled: Result<usize> = api::wait_for_event(&events);
        if signaled != Ok(0) {
            break None;
        }
        match next_key(Target::All) {
            // A modifier alone is no key.
            Ok(key) if key.key == InputKey::default() => {}
            Ok(key) => break Some(without_state(key)),
            // Somebody else took it.
            Err(_) => {}
        }
    };
    if let Some(timer) = timer {
        let _ = api::close_event(timer);
    }
    key
}
