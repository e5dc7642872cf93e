use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::device_path::DevicePathBuf;
use crate::fake;
use uefi_raw::protocol::console::KeyShiftState;

#[derive(Clone, Default)]
struct Wire {
    written: Arc<Mutex<Vec<u8>>>,
    typed: Arc<Mutex<Vec<u8>>>,
}

impl ByteConsole for Wire {
    fn write(&mut self, bytes: &[u8]) {
        self.written.lock().unwrap().extend(bytes);
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        let mut typed = self.typed.lock().unwrap();
        let length = into.len().min(typed.len());
        into[..length].iter_mut().zip(typed.drain(..length)).for_each(|(to, from)| *to = from);
        length
    }
}

impl Wire {
    fn type_keys(&self, bytes: &[u8]) {
        self.typed.lock().unwrap().extend(bytes);
    }

    fn take_written(&self) -> Vec<u8> {
        mem::take(&mut self.written.lock().unwrap())
    }
}

/// The protocols of a handle, as an application has them.
struct Console {
    output: *mut SimpleTextOutputProtocol,
    input: *mut SimpleTextInputProtocol,
    input_ex: *mut SimpleTextInputExProtocol,
}

impl Console {
    fn of(handle: Handle) -> Self {
        Self {
            output: api::protocol(handle, &SimpleTextOutputProtocol::GUID).unwrap().cast(),
            input: api::protocol(handle, &SimpleTextInputProtocol::GUID).unwrap().cast(),
            input_ex: api::protocol(handle, &SimpleTextInputExProtocol::GUID).unwrap().cast(),
        }
    }

    fn write(&self, text: &str) -> Status {
        let text: Vec<u16> = text.encode_utf16().chain([0]).collect();
        // SAFETY: an interface and a string.
        unsafe { ((*self.output).output_string)(self.output, text.as_ptr()) }
    }

    fn mode(&self) -> SimpleTextOutputMode {
        // SAFETY: always readable.
        unsafe { (*self.output).mode.read() }
    }

    fn read(&self) -> Option<InputKey> {
        let mut key = InputKey::default();
        // SAFETY: an interface and a variable.
        let status = unsafe { ((*self.input).read_key_stroke)(self.input, &raw mut key) };
        (status == Status::SUCCESS).then_some(key)
    }

    fn read_ex(&self) -> (Status, KeyData) {
        let mut key = KeyData::default();
        // SAFETY: an interface and a variable.
        let status = unsafe { ((*self.input_ex).read_key_stroke_ex)(self.input_ex, &raw mut key) };
        (status, key)
    }
}

static NOTIFIED: AtomicU16 = AtomicU16::new(0);

unsafe extern "efiapi" fn notified(key: *const KeyData) -> Status {
    // SAFETY: a key, says the caller.
    NOTIFIED.fetch_add(unsafe { (*key).key.unicode_char }, Ordering::Relaxed);
    Status::SUCCESS
}

/// One test, for there is one core.
#[test]
fn terminals_and_splitter_serve_applications() {
    let (hardware, _guard) = fake::install_exclusive();
    let wires = [Wire::default(), Wire::default()];
    let path = DevicePathBuf::parse_text("VenHw(C12A7328-F81F-11D2-BA4B-00A0C93EC93B)/VenUtf8()").unwrap();
    let before = api::handles_with(&SimpleTextOutputProtocol::GUID);
    let first = install_terminal(&path, Box::new(wires[0].clone())).unwrap();
    let again = install_terminal(&path, Box::new(wires[1].clone()));
    assert_eq!(again, Err(Status::ALREADY_STARTED));
    let other_path = DevicePathBuf::parse_text("PciRoot(0x0)/Serial(0x0)/Uart(115200,8,N,1)/VenUtf8()").unwrap();
    let second = install_terminal(&other_path, Box::new(wires[1].clone())).unwrap();
    assert_eq!(api::device_path(first).unwrap(), path);
    let mut handles = api::handles_with(&SimpleTextOutputProtocol::GUID);
    handles.retain(|handle| !before.contains(handle) && *handle != first && *handle != second);
    let [splitter] = handles[..] else { panic!("{} splitters", handles.len()) };
    let (all, one) = (Console::of(splitter), Console::of(second));

    // Output.
    assert_eq!(all.mode().max_mode, 3);
    assert_eq!(all.write("both"), Status::SUCCESS);
    assert_eq!(one.write("\r\none \u{1B}"), Status::WARN_UNKNOWN_GLYPH);
    assert_eq!(wires[0].take_written(), b"both");
    assert_eq!(wires[1].take_written(), b"both\r\none ?");
    assert_eq!((all.mode().cursor_column, all.mode().cursor_row), (4, 0));
    assert_eq!((one.mode().cursor_column, one.mode().cursor_row), (5, 1));
    // SAFETY: interfaces and variables.
    unsafe {
        let (mut columns, mut rows) = (0, 0);
        let output = all.output;
        assert_eq!(((*output).query_mode)(output, 2, &raw mut columns, &raw mut rows), Status::SUCCESS);
        assert_eq!((columns, rows), (100, 31));
        assert_eq!(((*output).query_mode)(output, 3, &raw mut columns, &raw mut rows), Status::UNSUPPORTED);
        assert_eq!(((*output).set_mode)(output, 2), Status::SUCCESS);
        assert_eq!(((*output).set_attribute)(output, 0x1F), Status::SUCCESS);
        assert_eq!(((*output).set_attribute)(output, 0x80), Status::UNSUPPORTED);
        assert_eq!(((*output).enable_cursor)(output, Boolean::FALSE), Status::SUCCESS);
        assert_eq!(((*output).set_cursor_position)(output, 99, 30), Status::SUCCESS);
        assert_eq!(((*output).set_cursor_position)(output, 100, 30), Status::UNSUPPORTED);
        assert_eq!(((*output).test_string)(output, [0x2500, 0].as_ptr()), Status::SUCCESS);
        assert_eq!(((*output).test_string)(output, [0x1B, 0].as_ptr()), Status::UNSUPPORTED);
        assert_eq!(((*output).output_string)(output, core::ptr::null()), Status::INVALID_PARAMETER);
    }
    for mode in [all.mode(), one.mode()] {
        assert_eq!((mode.mode, mode.attribute, mode.cursor_column, mode.cursor_row), (2, 0x1F, 99, 30));
        assert!(!bool::from(mode.cursor_visible));
    }

    // Input.
    assert_eq!(all.read(), None);
    let (state, key) = all.read_ex();
    assert_eq!((state, key.key), (Status::NOT_READY, InputKey::default()));
    wires[1].type_keys(b"a\x03\x1b[A\x03");
    assert_eq!(all.read(), Some(InputKey { scan_code: 0, unicode_char: b'a'.into() }));
    assert_eq!(all.read(), Some(InputKey { scan_code: 0, unicode_char: 3 }));
    assert_eq!(one.read(), Some(InputKey { scan_code: 1, unicode_char: 0 }));
    let (_, key) = all.read_ex();
    assert_eq!(key.key.unicode_char, b'c'.into());
    assert!(key.key_state.key_shift_state.contains(KeyShiftState::LEFT_CONTROL));

    // Waiting: the escape key is known only after some time, which passes while the machine is idle.
    // SAFETY: an interface.
    let event = unsafe { (*all.input).wait_for_key };
    assert_eq!(api::check_event(event), Err(Status::NOT_READY));
    wires[0].type_keys(b"\x1b");
    assert_eq!(api::check_event(event), Err(Status::NOT_READY));
    assert_eq!(api::wait_for_event(&[event]), Ok(0));
    assert_eq!(all.read(), Some(InputKey { scan_code: 0x17, unicode_char: 0 }));

    // Notifications.
    let mut wanted = KeyData::default();
    wanted.key.unicode_char = b'c'.into();
    wanted.key_state.key_shift_state = KeyShiftState::VALID | KeyShiftState::LEFT_CONTROL;
    let mut handle = core::ptr::null_mut();
    // SAFETY: an interface and variables.
    unsafe {
        let input = all.input_ex;
        let nobody = register_key_notify(input, &raw const wanted, None, &raw mut handle);
        assert_eq!(nobody, Status::INVALID_PARAMETER);
        let register = (*input).register_key_notify;
        assert_eq!(register(input, &raw const wanted, notified, &raw mut handle), Status::SUCCESS);
        wires[0].type_keys(b"\x03");
        hardware.pass(SECOND);
        assert_eq!(NOTIFIED.load(Ordering::Relaxed), b'c'.into());
        assert_eq!(((*input).unregister_key_notify)(input, handle), Status::SUCCESS);
        assert_eq!(((*input).unregister_key_notify)(input, handle), Status::INVALID_PARAMETER);
        wires[0].type_keys(b"\x03");
        hardware.pass(SECOND);
        assert_eq!(NOTIFIED.load(Ordering::Relaxed), b'c'.into());
        assert_eq!(((*all.input).reset)(all.input, Boolean::FALSE), Status::SUCCESS);
        assert_eq!(all.read(), None);
        let state = KeyToggleState::empty();
        assert_eq!(((*input).set_state)(input, &raw const state), Status::UNSUPPORTED);
    }
}

#[test]
fn use_within_a_use_is_refused() {
    let (_, _guard) = fake::install_exclusive();
    assert_eq!(with(|_| with(|_| ())), Ok(Err(Status::DEVICE_ERROR)));
}
