//! Text output and input (UEFI 2.10 §12.2 to §12.4).

use alloc::string::String;
use core::ptr::null_mut;

use guest::table;
use uefi_raw::protocol::console::{
    InputKey, KeyData, SimpleTextInputExProtocol, SimpleTextOutputMode, SimpleTextOutputProtocol,
};
use uefi_raw::{Boolean, Status};

use crate::harness::{Outcome, Test};
use crate::support::{protocol_of, wide};

pub const TESTS: &[Test] = tests![
    mode_zero_is_80_by_25,
    modes_that_do_not_exist_are_unsupported,
    the_mode_can_be_set_and_clears_the_screen,
    attributes_are_kept,
    attributes_that_do_not_exist_are_unsupported,
    the_cursor_can_be_set,
    the_cursor_stays_on_the_screen,
    the_cursor_follows_the_text,
    a_full_line_wraps,
    the_cursor_can_be_hidden,
    plain_text_can_be_printed,
    the_second_console_prints_too,
    no_key_is_ready_without_typing,
    key_notifications_come_and_go,
];

fn output() -> *mut SimpleTextOutputProtocol {
    table().stdout
}

fn mode() -> SimpleTextOutputMode {
    efi!(*(*output()).mode)
}

fn print(text: &str) -> Status {
    let output = output();
    call!(output.output_string(wide(text).as_ptr()))
}

fn mode_zero_is_80_by_25() -> Outcome {
    let (output, mut columns, mut rows) = (output(), 0, 0);
    want!(SUCCESS, call!(output.query_mode(0, &mut columns, &mut rows)));
    same!((columns, rows), (80, 25));
    Ok(())
}

fn modes_that_do_not_exist_are_unsupported() -> Outcome {
    let (output, mut columns, mut rows) = (output(), 0, 0);
    let max = mode().max_mode as usize;
    want!(UNSUPPORTED, call!(output.query_mode(max, &mut columns, &mut rows)));
    want!(UNSUPPORTED, call!(output.set_mode(max)));
    Ok(())
}

fn the_mode_can_be_set_and_clears_the_screen() -> Outcome {
    let (output, before) = (output(), mode());
    let _ = print("x");
    want!(SUCCESS, call!(output.set_mode(before.mode as usize)));
    let after = mode();
    same!((after.mode, after.cursor_column, after.cursor_row), (before.mode, 0, 0));
    Ok(())
}

fn attributes_are_kept() -> Outcome {
    let (output, before) = (output(), mode());
    want!(SUCCESS, call!(output.set_attribute(0x1F)));
    let inside = mode().attribute;
    want!(SUCCESS, call!(output.set_attribute(before.attribute as usize)));
    same!((inside, mode().attribute), (0x1F, before.attribute));
    Ok(())
}

fn attributes_that_do_not_exist_are_unsupported() -> Outcome {
    let (output, before) = (output(), mode().attribute);
    let status = call!(output.set_attribute(0x1_0000));
    let attribute = mode().attribute;
    want!(SUCCESS, call!(output.set_attribute(before as usize)));
    same!((status, attribute), (Status::UNSUPPORTED, before));
    Ok(())
}

fn the_cursor_can_be_set() -> Outcome {
    let output = output();
    want!(SUCCESS, call!(output.set_cursor_position(7, 3)));
    let inside = mode();
    want!(SUCCESS, call!(output.set_cursor_position(0, 24)));
    same!((inside.cursor_column, inside.cursor_row), (7, 3));
    Ok(())
}

fn the_cursor_stays_on_the_screen() -> Outcome {
    let (output, mut columns, mut rows) = (output(), 0, 0);
    want!(SUCCESS, call!(output.query_mode(mode().mode as usize, &mut columns, &mut rows)));
    want!(UNSUPPORTED, call!(output.set_cursor_position(columns, 0)));
    want!(UNSUPPORTED, call!(output.set_cursor_position(0, rows)));
    Ok(())
}

/// What printing a text from the start of row 2 does to the cursor; the screen is clear after it.
fn cursor_after(text: &str) -> Result<(i32, i32), String> {
    let output = output();
    let _ = call!(output.clear_screen());
    let _ = call!(output.set_cursor_position(0, 2));
    let status = print(text);
    let mode = mode();
    let _ = call!(output.clear_screen());
    if status.is_success() { Ok((mode.cursor_column, mode.cursor_row)) } else { Err(alloc::format!("{status:?}")) }
}

fn the_cursor_follows_the_text() -> Outcome {
    for (text, column, row) in
        [("abc", 3, 2), ("abc\r", 0, 2), ("abc\n", 3, 3), ("abc\u{8}", 2, 2), ("\u{8}", 0, 2), ("a\r\nb", 1, 3)]
    {
        same!((text, cursor_after(text)?), (text, (column, row)));
    }
    Ok(())
}

fn a_full_line_wraps() -> Outcome {
    let (output, mut columns, mut rows) = (output(), 0, 0);
    want!(SUCCESS, call!(output.query_mode(mode().mode as usize, &mut columns, &mut rows)));
    let line = "w".repeat(columns);
    same!(cursor_after(&line)?, (0, 3));
    same!(cursor_after(&(line + "ab"))?, (2, 3));
    same!(cursor_after(&"\r\n".repeat(rows + 10))?, (0, rows as i32 - 1));
    Ok(())
}

fn the_cursor_can_be_hidden() -> Outcome {
    let output = output();
    let hidden = call!(output.enable_cursor(Boolean::FALSE));
    let inside = mode().cursor_visible;
    let _ = call!(output.enable_cursor(Boolean::TRUE));
    check!(hidden == Status::UNSUPPORTED || (hidden == Status::SUCCESS && inside.is_false()), "{hidden:?} {inside:?}");
    check!(mode().cursor_visible.is_true());
    Ok(())
}

fn plain_text_can_be_printed() -> Outcome {
    let output = output();
    want!(SUCCESS, call!(output.test_string(wide("The quick brown fox, 0123456789: {}[]~").as_ptr())));
    want!(SUCCESS, call!(output.test_string(wide("\u{2554}\u{2550}\u{2557}").as_ptr())));
    Ok(())
}

fn the_second_console_prints_too() -> Outcome {
    let error = table().stderr;
    want!(SUCCESS, call!(error.output_string(wide("This is standard error.\r\n").as_ptr())));
    Ok(())
}

fn no_key_is_ready_without_typing() -> Outcome {
    let input = table().stdin;
    want!(SUCCESS, call!(input.reset(Boolean::FALSE)));
    let mut key = InputKey::default();
    want!(NOT_READY, call!(input.read_key_stroke(&mut key)));
    want!(NOT_READY, bs!(check_event((*input).wait_for_key)));
    let extended = protocol_of::<SimpleTextInputExProtocol>(table().stdin_handle, &SimpleTextInputExProtocol::GUID);
    let extended = extended.ok_or("no SimpleTextInputEx")?;
    let mut key = KeyData::default();
    want!(NOT_READY, call!(extended.read_key_stroke_ex(&mut key)));
    want!(NOT_READY, bs!(check_event((*extended).wait_for_key_ex)));
    want!(INVALID_PARAMETER, call!(extended.read_key_stroke_ex(null_mut())));
    Ok(())
}

unsafe extern "efiapi" fn key_typed(_: *const KeyData) -> Status {
    Status::SUCCESS
}

fn key_notifications_come_and_go() -> Outcome {
    let extended = protocol_of::<SimpleTextInputExProtocol>(table().stdin_handle, &SimpleTextInputExProtocol::GUID);
    let extended = extended.ok_or("no SimpleTextInputEx")?;
    let (key, mut handle) = (KeyData::default(), null_mut());
    want!(SUCCESS, call!(extended.register_key_notify(&key, key_typed, &mut handle)));
    check!(!handle.is_null());
    want!(SUCCESS, call!(extended.unregister_key_notify(handle)));
    want!(INVALID_PARAMETER, call!(extended.unregister_key_notify(null_mut())));
    want!(INVALID_PARAMETER, call!(extended.register_key_notify(core::ptr::null(), key_typed, &mut handle)));
    Ok(())
}
