use std::boxed::Box;
use std::cell::RefCell;
use std::format;
use std::rc::Rc;
use std::string::String;

use super::*;
use crate::graphics::testing::{FakeAdapter, art, picture, save};
use crate::graphics::{Display, PixelFormat, blt};
use crate::table::crc32;

const SMALL: Mode = Mode::new(640, 480, PixelFormat::Bgrx32);
const LARGE: Mode = Mode::new(1280, 800, PixelFormat::Bgrx32);

fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn console(modes: &[Mode]) -> (GraphicsConsole, SharedDisplay) {
    let display = Display::start(Box::new(FakeAdapter::new(modes, 0))).unwrap();
    let display = Rc::new(RefCell::new(display));
    (GraphicsConsole::new(display.clone()).unwrap(), display)
}

/// The pixels of a cell, as characters.
fn cell(console: &GraphicsConsole, display: &SharedDisplay, column: usize, row: usize) -> Vec<String> {
    let display = display.borrow();
    let (columns, rows) = console.grid.size();
    let mode = display.mode();
    let left = (mode.width - columns * font::WIDTH) / 2 + column * font::WIDTH;
    let top = (mode.height - rows * font::HEIGHT) / 2 + row * font::HEIGHT;
    let lines = art(&picture(&display), mode.width);
    lines[top..top + font::HEIGHT].iter().map(|line| line[left..left + font::WIDTH].into()).collect()
}

fn hash(display: &SharedDisplay) -> u32 {
    let bytes: Vec<u8> = picture(&display.borrow()).iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
    crc32(&bytes)
}

#[test]
fn modes_are_those_that_the_screen_has_room_for() {
    let modes = |width, height| modes(&Mode::new(width, height, PixelFormat::Bgrx32));
    let none = (0, 0);
    assert_eq!(modes(640, 480), Some([(80, 25), none, none, (80, 30)].into()));
    assert_eq!(modes(800, 600), Some([(80, 25), none, (100, 31), (100, 37)].into()));
    assert_eq!(modes(1024, 768), Some([(80, 25), none, (100, 31), (128, 40), (128, 48)].into()));
    assert_eq!(modes(1280, 800), Some([(80, 25), (80, 50), (100, 31), (128, 40), (160, 50)].into()));
    assert_eq!(modes(640, 400), Some([(80, 25), none, none].into()));
    assert_eq!(modes(640, 399), None);
    assert_eq!(modes(1920, 1080).unwrap().last(), Some(&(240, 67)));
}

#[test]
fn a_character_is_drawn_in_its_cell_and_its_colours() {
    let (mut console, display) = console(&[SMALL]);
    console.set_mode(3);
    console.show_cursor(false);
    console.set_attribute(Attribute::new(0x1E).unwrap());
    console.set_cursor(3, 2);
    assert!(console.write(&units("Q")));
    let expected: Vec<String> = art(
        &Index::glyph(font::find('Q').unwrap().number())
            .iter()
            .flat_map(|line| (0..8).map(move |bit| if line << bit & 0x80 != 0 { 0x00FF_FFFF } else { 0xAA }))
            .collect::<Vec<_>>(),
        8,
    );
    assert_eq!(cell(&console, &display, 3, 2), expected);
    let pixels = picture(&display.borrow());
    let at = |x: usize, y: usize| pixels[(2 * 16 + y) * 640 + 3 * 8 + x];
    assert_eq!((at(1, 2), at(0, 0)), (0x00FF_FF55, 0x0000_00AA));
    assert!(pixels.iter().enumerate().all(|(at, pixel)| {
        let (x, y) = (at % 640, at / 640);
        *pixel == 0 || ((24..32).contains(&x) && (32..48).contains(&y))
    }));
}

#[test]
fn the_cursor_moves_without_a_trace() {
    let (mut console, display) = console(&[SMALL]);
    console.clear();
    let with_cursor = cell(&console, &display, 0, 0);
    assert_eq!(with_cursor[13], "########");
    console.set_cursor(10, 5);
    assert!(cell(&console, &display, 0, 0).iter().all(|line| line == "........"));
    assert_eq!(cell(&console, &display, 10, 5), with_cursor);
    console.show_cursor(false);
    assert!(picture(&display.borrow()).iter().all(|pixel| *pixel == 0));
}

#[test]
fn scrolled_text_looks_as_if_it_were_written_there() {
    for mode in [SMALL, Mode::new(640, 480, PixelFormat::Bgr24), Mode { stride: 700, ..SMALL }] {
        let (mut scrolled, scrolled_display) = console(&[mode]);
        scrolled.set_mode(3);
        let (mut written, written_display) = console(&[mode]);
        written.set_mode(3);
        for line in 0..75 {
            scrolled.write(&units(&format!("line {line} {}\r\n", "─┼".repeat(line % 30))));
        }
        for line in 46..75 {
            written.write(&units(&format!("line {line} {}\r\n", "─┼".repeat(line % 30))));
        }
        assert!(picture(&scrolled_display.borrow()) == picture(&written_display.borrow()), "{mode:?}");
    }
}

#[test]
fn nothing_is_drawn_until_something_is_written() {
    let (mut console, display) = console(&[SMALL]);
    let all = blt::Area { source: (0, 0), target: (0, 0), width: 640, height: 480 };
    blt::fill(&mut display.borrow_mut(), &all, 0x0000_8000).unwrap();
    console.set_attribute(Attribute::DEFAULT);
    console.show_cursor(false);
    assert!(picture(&display.borrow()).iter().all(|pixel| *pixel == 0x8000));
    console.write(&units("x"));
    let green = picture(&display.borrow()).iter().filter(|pixel| **pixel == 0x8000).count();
    assert_eq!(green, 640 * 480 - 8 * 16);
}

#[test]
fn a_picture_stays_beside_text_until_the_screen_scrolls_or_is_cleared() {
    let (mut console, display) = console(&[SMALL]);
    console.clear();
    let green = |display: &SharedDisplay| picture(&display.borrow()).iter().filter(|pixel| **pixel == 0x8000).count();
    let all = blt::Area { source: (0, 0), target: (0, 0), width: 640, height: 480 };
    for scroll in [true, false] {
        blt::fill(&mut display.borrow_mut(), &all, 0x0000_8000).unwrap();
        console.write(&units("\r\n     "));
        // Five cells, and the cursor where it was and where it is.
        assert!((640 * 480 - 7 * 128..=640 * 480 - 6 * 128).contains(&green(&display)));
        if scroll {
            console.write(&units(&"\n".repeat(30)));
            // What is outside of the text stays.
            assert_eq!(green(&display), 640 * 80);
        }
        console.clear();
        assert_eq!(green(&display), 0);
    }
}

#[test]
fn text_in_a_foreign_mode_is_centred_and_reset_brings_the_first_mode_back() {
    let (mut console, display) = console(&[LARGE, SMALL]);
    console.set_mode(4);
    for number in [1, 0] {
        display.borrow_mut().set_mode(number).unwrap();
        display.borrow_mut().touch();
        console.write(&units("x"));
        assert_eq!(console.state().mode, 4);
    }
    display.borrow_mut().set_mode(1).unwrap();
    console.reset();
    assert_eq!(display.borrow().number(), 0);
    assert_eq!((console.state().mode, console.state().column, console.state().row), (0, 0, 0));
    // 80 × 25 in the middle of 1280 × 800.
    assert_eq!(cell(&console, &display, 0, 0)[13], "########");
}

#[test]
fn a_mode_that_is_missing_is_not_selected() {
    let (mut console, _display) = console(&[SMALL]);
    console.set_mode(1);
    console.set_mode(9);
    assert_eq!(console.state().mode, 0);
}

#[test]
fn a_display_in_use_is_left_alone() {
    let (mut console, display) = console(&[SMALL]);
    console.clear();
    let before = hash(&display);
    let used = display.borrow_mut();
    console.write(&units("text\r\n"));
    console.clear();
    console.reset();
    drop(used);
    assert_eq!(hash(&display), before);
    console.write(&units("seen"));
    assert_ne!(hash(&display), before);
}

/// A screen as a boot menu might have it: everything that can be drawn, in all colours.
fn menu(console: &mut GraphicsConsole) {
    let colour = |bits: usize| Attribute::new(bits).unwrap();
    console.set_attribute(Attribute::DEFAULT);
    console.clear();
    let write = |console: &mut GraphicsConsole, column, row, bits, text: &str| {
        console.set_attribute(colour(bits));
        console.set_cursor(column, row);
        assert!(console.write(&units(text)), "{text}");
    };
    write(console, 2, 1, 0x0F, "ovmf-xen — boot menu".replace('—', "–").as_str());
    write(console, 2, 3, 0x07, &format!("┌{}┐", "─".repeat(40)));
    for (row, text) in ["Debian GNU/Linux (xvda)", "UEFI Shell", "Setup ►"].iter().enumerate() {
        write(console, 2, 4 + row, 0x07, "│");
        write(console, 3, 4 + row, if row == 0 { 0x70 } else { 0x07 }, &format!(" {text:<38} "));
        write(console, 43, 4 + row, 0x07, "│");
    }
    write(console, 2, 7, 0x07, &format!("└{}┘", "─".repeat(40)));
    write(console, 2, 9, 0x0A, "╔═╦═╗ ╓─╥─╖ ╒═╤═╕  ▁▂▃▄▅▆▇█▉▊▋▌▍▎▏  ░░▒▒▓▓██  ▖▗▘▙▚▛▜▝▞▟ ▀▔▕▐");
    write(console, 2, 10, 0x0A, "╠═╬═╣ ╟─╫─╢ ╞═╪═╡  ▲▼◄► ←↑→↓↔↕  ╭─╮ ╱╲╳");
    write(console, 2, 11, 0x0A, "╚═╩═╝ ╙─╨─╜ ╘═╧═╛  ┏━┳━┓ ┡╇┩    ╰─╯");
    write(console, 2, 13, 0x0B, "The quick brown fox jumps over the lazy dog. 0123456789 (){}[]<>/\\|@#$%^&*");
    write(console, 2, 14, 0x0E, "¡¢£¤¥¦§¨©ª«¬®¯°±²³´µ¶·¸¹º»¼½¾¿ ÀÁÂÃÄÅÆÇÈÉÊË ÑÒÓÔÕÖ×ØÙÚÛÜÝÞß ñòóôõö÷øùúûüýþÿ");
    for bits in 0..128 {
        write(console, 2 + bits % 16 * 4, 16 + bits / 16, bits, " Aa ");
    }
    console.set_attribute(Attribute::DEFAULT);
    console.set_cursor(22, 1);
}

/// The picture is held in its checksum. With `OVMF_XEN_PICTURES=FOLDER` one can look at it.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_menu_looks_as_it_did() {
    let (mut console, display) = console(&[SMALL]);
    menu(&mut console);
    save(&display.borrow(), "menu");
    assert_eq!(hash(&display), 0x7887_C53C, "{:#010x}", hash(&display));
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_screen_of_24_bits_looks_the_same() {
    let (mut console32, display32) = console(&[SMALL]);
    menu(&mut console32);
    let (mut console24, display24) = console(&[Mode::new(640, 480, PixelFormat::Bgr24)]);
    menu(&mut console24);
    assert!(picture(&display32.borrow()) == picture(&display24.borrow()));
}
