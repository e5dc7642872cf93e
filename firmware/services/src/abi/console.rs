//! EFI_SIMPLE_TEXT_INPUT_PROTOCOL, EFI_SIMPLE_TEXT_INPUT_EX_PROTOCOL and EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL
//! (UEFI 2.10 §12.2 to §12.4).
//!
//! Each device has them on a handle of its own, and all devices together have them on one more handle, the splitter's,
//! which the system table names. Devices are used at `NOTIFY` level, outside of any lock: whoever uses them takes the
//! whole database out for that time, so a use within a use (from above `NOTIFY`) finds nothing there and is refused.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::mem;

use uefi_raw::protocol::console::{
    InputKey, KeyData, KeyNotifyFn, KeyToggleState, SimpleTextInputExProtocol, SimpleTextInputProtocol,
    SimpleTextOutputMode, SimpleTextOutputProtocol,
};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::table::boot::{EventType, Tpl};
use uefi_raw::{Boolean, Char16, Event, Handle, Status};

use super::CORE;
use super::misc::status;
use super::text::units;
use crate::console::keys::without_state;
use crate::console::{
    ByteConsole, ConsoleError, Consoles, Due, NO_KEY_STATE, OutputState, Target, Terminal, TextDevice, can_register,
};
use crate::device_path::DevicePath;
use crate::event::{SECOND, Timer, group};
use crate::{Result, api};

/// Installs a VT-UTF8 terminal: its protocols on a new handle with the device path `path`, and its part in the
/// splitter. With the first terminal, the console fields of the system table are set.
///
/// What the terminal shows stays; applications that want it cleared say so.
pub fn install_terminal(path: &DevicePath, device: Box<dyn ByteConsole>) -> Result<Handle> {
    install_device(path, Box::new(Terminal::new(device)))
}

/// Installs any device that shows text or has keys, as [`install_terminal`] does.
pub fn install_device(path: &DevicePath, device: Box<dyn TextDevice>) -> Result<Handle> {
    let bytes: &'static mut [u8] = path.as_bytes().to_vec().leak();
    // First of all, for it fails if there is such a path already.
    let handle = api::install_protocols(None, &[(DevicePathProtocol::GUID, bytes.as_mut_ptr().cast())])?;
    install_on(handle, device)?;
    Ok(handle)
}

/// Installs the protocols of a device on a handle that is there already, such as that of a display, which has a device path.
pub fn install_on(handle: Handle, mut device: Box<dyn TextDevice>) -> Result<()> {
    let (shows_text, has_keys) = (device.output().is_some(), device.input().is_some());
    let number = with(|consoles| consoles.add(device))?;
    install_splitter()?;
    let mut interfaces = Vec::new();
    if shows_text {
        interfaces.push(output_interface(Target::One(number)));
    }
    if has_keys {
        interfaces.extend(input_interfaces(Target::One(number))?);
    }
    refresh();
    api::install_protocols(Some(handle), &interfaces).map(drop)
}

/// What the edge of the consoles keeps.
#[derive(Debug)]
pub struct State {
    /// `None` while somebody uses it.
    consoles: Option<Consoles>,
    outputs: Vec<*mut TextOutput>,
    splitter: Option<Splitter>,
    /// Key notifications that are to be called.
    due: Vec<Due>,
}

impl State {
    /// No devices.
    pub const fn new() -> Self {
        Self { consoles: Some(Consoles::new()), outputs: Vec::new(), splitter: None, due: Vec::new() }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy, Debug)]
struct Splitter {
    /// Runs at `CALLBACK` level and calls the key notifications that are due.
    deliver: Event,
    /// Looks for keys from time to time, as long as somebody wants to be notified of them.
    watch: Event,
}

/// How often keys are looked for while somebody wants to be notified of them, in units of 100 ns.
const WATCH_PERIOD: u64 = SECOND / 20;

fn install_splitter() -> Result<()> {
    if CORE.consoles.with(|state| state.splitter.is_some()) {
        return Ok(());
    }
    let deliver = api::create_event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, Some(Box::new(|_| deliver())))?;
    let watch_type = EventType::TIMER | EventType::NOTIFY_SIGNAL;
    let look = |_| {
        // Who uses the devices right now looks for keys too.
        let _ = poll(Target::All);
    };
    let watch = api::create_event(watch_type, Tpl::CALLBACK, Some(Box::new(look)))?;
    api::create_group_event(&group::EXIT_BOOT_SERVICES, Tpl::NOTIFY, Box::new(|_| leave()))?;
    CORE.consoles.with(|state| state.splitter = Some(Splitter { deliver, watch }));

    let output = output_interface(Target::All);
    let inputs = input_interfaces(Target::All)?;
    let handle = api::install_protocols(None, &[&[output][..], &inputs].concat())?;
    if api::system_table().is_null() {
        log::warn!("no system table to name the console in");
        return Ok(());
    }
    api::edit_system_table(|system| {
        (system.stdin_handle, system.stdin) = (handle, inputs[0].1.cast());
        (system.stdout_handle, system.stdout) = (handle, output.1.cast());
        (system.stderr_handle, system.stderr) = (handle, output.1.cast());
    });
    Ok(())
}

type Interface = (uefi_raw::Guid, *mut c_void);

/// EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL and what it leads to. Never freed: callers may keep the pointers.
#[repr(C)]
#[derive(Debug)]
struct TextOutput {
    protocol: SimpleTextOutputProtocol,
    mode: SimpleTextOutputMode,
    target: Target,
}

fn output_interface(target: Target) -> Interface {
    let output = Box::into_raw(Box::new(TextOutput {
        protocol: SimpleTextOutputProtocol {
            reset: reset_output,
            output_string,
            test_string,
            query_mode,
            set_mode,
            set_attribute,
            clear_screen,
            set_cursor_position,
            enable_cursor,
            mode: core::ptr::null(),
        },
        mode: SimpleTextOutputMode::default(),
        target,
    }));
    // SAFETY: a new structure; `mode` points into it.
    unsafe { (*output).protocol.mode = &raw const (*output).mode };
    CORE.consoles.with(|state| state.outputs.push(output));
    (SimpleTextOutputProtocol::GUID, output.cast())
}

/// EFI_SIMPLE_TEXT_INPUT_PROTOCOL and whose it is. Never freed.
#[repr(C)]
struct TextInput {
    protocol: SimpleTextInputProtocol,
    target: Target,
}

/// EFI_SIMPLE_TEXT_INPUT_EX_PROTOCOL and whose it is. Never freed.
#[repr(C)]
struct TextInputEx {
    protocol: SimpleTextInputExProtocol,
    target: Target,
}

fn input_interfaces(target: Target) -> Result<[Interface; 2]> {
    let wait_for_key = wait_event(target)?;
    let input = Box::new(TextInput {
        protocol: SimpleTextInputProtocol { reset: reset_input, read_key_stroke, wait_for_key },
        target,
    });
    let input_ex = Box::new(TextInputEx {
        protocol: SimpleTextInputExProtocol {
            reset: reset_input_ex,
            read_key_stroke_ex,
            wait_for_key_ex: wait_event(target)?,
            set_state,
            // SAFETY: a function that may be null is passed as one that may not; null is what a caller must not give and may.
            register_key_notify: unsafe {
                mem::transmute::<RegisterKeyNotify<Option<KeyNotifyFn>>, RegisterKeyNotify<KeyNotifyFn>>(
                    register_key_notify,
                )
            },
            unregister_key_notify,
        },
        target,
    });
    Ok([
        (SimpleTextInputProtocol::GUID, Box::into_raw(input).cast()),
        (SimpleTextInputExProtocol::GUID, Box::into_raw(input_ex).cast()),
    ])
}

/// An event that is signaled when a key waits; looks for keys whenever somebody asks for it.
fn wait_event(target: Target) -> Result<Event> {
    let notify = move |event| {
        if poll(target).is_ok() && with(|consoles| consoles.has_key(target)) == Ok(true) {
            let _ = api::signal_event(event);
        }
    };
    api::create_event(EventType::NOTIFY_WAIT, Tpl::NOTIFY, Some(Box::new(notify)))
}

unsafe extern "efiapi" fn reset_output(this: *mut SimpleTextOutputProtocol, _extended: Boolean) -> Status {
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { output_target(this) };
    status(change(|consoles| consoles.reset_output(target)))
}

unsafe extern "efiapi" fn output_string(this: *mut SimpleTextOutputProtocol, text: *const Char16) -> Status {
    if text.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: one of our interfaces and a string, says the caller.
    let (target, text) = unsafe { (output_target(this), units(text)) };
    match change(|consoles| consoles.write(target, &text)) {
        Ok(true) => Status::SUCCESS,
        Ok(false) => Status::WARN_UNKNOWN_GLYPH,
        Err(error) => error,
    }
}

unsafe extern "efiapi" fn test_string(this: *mut SimpleTextOutputProtocol, text: *const Char16) -> Status {
    if text.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: one of our interfaces and a string, says the caller.
    let (target, text) = unsafe { (output_target(this), units(text)) };
    match with(|consoles| consoles.can_show(target, &text)) {
        Ok(true) => Status::SUCCESS,
        Ok(false) => Status::UNSUPPORTED,
        Err(error) => error,
    }
}

unsafe extern "efiapi" fn query_mode(
    this: *const SimpleTextOutputProtocol,
    mode: usize,
    columns: *mut usize,
    rows: *mut usize,
) -> Status {
    if columns.is_null() || rows.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { output_target(this) };
    status(with(|consoles| consoles.mode_size(target, mode)).and_then(|size| Ok(size?)).map(|size| {
        // SAFETY: not null, and variables of the caller.
        unsafe {
            columns.write(size.0);
            rows.write(size.1);
        }
    }))
}

unsafe extern "efiapi" fn set_mode(this: *mut SimpleTextOutputProtocol, mode: usize) -> Status {
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { output_target(this) };
    status(change(|consoles| consoles.set_mode(target, mode)).and_then(|set| Ok(set?)))
}

unsafe extern "efiapi" fn set_attribute(this: *mut SimpleTextOutputProtocol, attribute: usize) -> Status {
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { output_target(this) };
    status(change(|consoles| consoles.set_attribute(target, attribute)).and_then(|set| Ok(set?)))
}

unsafe extern "efiapi" fn clear_screen(this: *mut SimpleTextOutputProtocol) -> Status {
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { output_target(this) };
    status(change(|consoles| consoles.clear(target)))
}

unsafe extern "efiapi" fn set_cursor_position(
    this: *mut SimpleTextOutputProtocol,
    column: usize,
    row: usize,
) -> Status {
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { output_target(this) };
    status(change(|consoles| consoles.set_cursor(target, column, row)).and_then(|set| Ok(set?)))
}

unsafe extern "efiapi" fn enable_cursor(this: *mut SimpleTextOutputProtocol, visible: Boolean) -> Status {
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { output_target(this) };
    status(change(|consoles| consoles.show_cursor(target, visible.into())))
}

unsafe extern "efiapi" fn reset_input(this: *mut SimpleTextInputProtocol, _extended: Boolean) -> Status {
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { (*this.cast::<TextInput>()).target };
    status(with(|consoles| consoles.reset_input(target)))
}

unsafe extern "efiapi" fn read_key_stroke(this: *mut SimpleTextInputProtocol, key: *mut InputKey) -> Status {
    if key.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { (*this.cast::<TextInput>()).target };
    let next = loop {
        match next_key(target) {
            // A modifier alone is nothing that this protocol knows.
            Ok(next) if next.key == InputKey::default() => {}
            next => break next,
        }
    };
    status(next.map(|next| {
        // SAFETY: not null, and a variable of the caller.
        unsafe { key.write(without_state(next)) }
    }))
}

unsafe extern "efiapi" fn reset_input_ex(this: *mut SimpleTextInputExProtocol, _extended: Boolean) -> Status {
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { input_ex_target(this) };
    status(with(|consoles| consoles.reset_input(target)))
}

unsafe extern "efiapi" fn read_key_stroke_ex(this: *mut SimpleTextInputExProtocol, key: *mut KeyData) -> Status {
    if key.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { input_ex_target(this) };
    let next = next_key(target);
    let written = next.unwrap_or_else(|_| {
        let key_state = with(|consoles| consoles.key_state(target)).unwrap_or(NO_KEY_STATE);
        KeyData { key: InputKey::default(), key_state }
    });
    // SAFETY: not null, and a variable of the caller.
    unsafe { key.write(written) };
    status(next.map(|_| ()))
}

unsafe extern "efiapi" fn set_state(this: *mut SimpleTextInputExProtocol, state: *const KeyToggleState) -> Status {
    if state.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: one of our interfaces, and a byte of the caller.
    let (target, state) = unsafe { (input_ex_target(this), state.cast::<u8>().read()) };
    let state = KeyToggleState::from_bits_retain(state);
    status(with(|consoles| consoles.set_key_state(target, state)).and_then(|set| Ok(set?)))
}

/// RegisterKeyNotify with a notification function of type `F`.
type RegisterKeyNotify<F> =
    unsafe extern "efiapi" fn(*mut SimpleTextInputExProtocol, *const KeyData, F, *mut *mut c_void) -> Status;

unsafe extern "efiapi" fn register_key_notify(
    this: *mut SimpleTextInputExProtocol,
    key: *const KeyData,
    function: Option<KeyNotifyFn>,
    handle: *mut *mut c_void,
) -> Status {
    let Some(function) = function else { return Status::INVALID_PARAMETER };
    if key.is_null() || handle.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: one of our interfaces and a key of the caller.
    let (target, key) = unsafe { (input_ex_target(this), key.read_unaligned()) };
    if !can_register(&key) {
        return Status::INVALID_PARAMETER;
    }
    let registered = with(|consoles| consoles.register(target, key, function as *const ()));
    status(registered.and_then(|number| {
        // SAFETY: not null, and a variable of the caller.
        unsafe { handle.write(core::ptr::without_provenance_mut(number)) };
        watch(Timer::Periodic(WATCH_PERIOD))
    }))
}

unsafe extern "efiapi" fn unregister_key_notify(this: *mut SimpleTextInputExProtocol, handle: *mut c_void) -> Status {
    // SAFETY: one of our interfaces, says the caller.
    let target = unsafe { input_ex_target(this) };
    let left = with(|consoles| consoles.unregister(target, handle.addr()).map(|()| consoles.has_notifications()));
    status(left.and_then(|left| match left? {
        true => Ok(()),
        false => watch(Timer::Cancel),
    }))
}

/// # Safety
/// `this` is an interface of [`output_interface`].
unsafe fn output_target(this: *const SimpleTextOutputProtocol) -> Target {
    // SAFETY: the caller.
    unsafe { (*this.cast::<TextOutput>()).target }
}

/// # Safety
/// `this` is the second interface of [`input_interfaces`].
unsafe fn input_ex_target(this: *const SimpleTextInputExProtocol) -> Target {
    // SAFETY: the caller.
    unsafe { (*this.cast::<TextInputEx>()).target }
}

impl From<ConsoleError> for Status {
    fn from(error: ConsoleError) -> Self {
        match error {
            ConsoleError::Unsupported => Self::UNSUPPORTED,
            ConsoleError::NotRegistered => Self::INVALID_PARAMETER,
        }
    }
}

/// Uses the devices. `DEVICE_ERROR` if they are in use.
pub(crate) fn with<R>(f: impl FnOnce(&mut Consoles) -> R) -> Result<R> {
    api::at_tpl(Tpl::NOTIFY, || {
        let mut consoles = CORE.consoles.with(|state| state.consoles.take()).ok_or(Status::DEVICE_ERROR)?;
        let result = f(&mut consoles);
        CORE.consoles.with(|state| state.consoles = Some(consoles));
        Ok(result)
    })
}

/// Uses the devices in a way that changes what [`SimpleTextOutputMode`] says.
pub(crate) fn change<R>(f: impl FnOnce(&mut Consoles) -> R) -> Result<R> {
    let result = with(f);
    refresh();
    result
}

/// Makes the mode structures say what is so.
fn refresh() {
    api::at_tpl(Tpl::NOTIFY, || {
        CORE.consoles.with(|state| {
            let Some(consoles) = &mut state.consoles else { return };
            for output in &state.outputs {
                // SAFETY: interfaces are never freed.
                let target = unsafe { (**output).target };
                let modes = consoles.mode_count(target);
                if let Some(now) = consoles.state(target) {
                    // SAFETY: as above; whoever reads it meanwhile does so through a pointer too.
                    unsafe { (&raw mut (**output).mode).write(mode_structure(modes, now)) };
                }
            }
        });
    });
}

fn mode_structure(modes: usize, now: OutputState) -> SimpleTextOutputMode {
    // All of them are small.
    let number = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    SimpleTextOutputMode {
        max_mode: number(modes),
        mode: number(now.mode),
        attribute: now.attribute.bits().into(),
        cursor_column: number(now.column),
        cursor_row: number(now.row),
        cursor_visible: now.cursor_visible.into(),
    }
}

/// Takes the keys that have arrived and has the notifications called that are due.
pub(crate) fn poll(target: Target) -> Result<()> {
    let now = CORE.hardware.with(|hardware| *hardware).map_or(0, |hardware| hardware.now());
    let due = with(|consoles| consoles.poll(target, now))?;
    if !due.is_empty() {
        let splitter = CORE.consoles.with(|state| {
            state.due.extend(due);
            state.splitter
        });
        if let Some(splitter) = splitter {
            api::signal_event(splitter.deliver)?;
        }
    }
    Ok(())
}

pub(crate) fn next_key(target: Target) -> Result<KeyData> {
    poll(target)?;
    with(|consoles| consoles.next_key(target))?.ok_or(Status::NOT_READY)
}

fn watch(timer: Timer) -> Result<()> {
    match CORE.consoles.with(|state| state.splitter) {
        Some(splitter) => api::set_timer(splitter.watch, timer),
        None => Ok(()),
    }
}

/// Calls the key notifications that are due.
fn deliver() {
    for due in CORE.consoles.with(|state| mem::take(&mut state.due)) {
        // SAFETY: registered as such a function.
        let function = unsafe { mem::transmute::<*const (), KeyNotifyFn>(due.function) };
        // SAFETY: the key lives until the function returns; the rest is the promise of who registered it.
        let _ = unsafe { function(&due.key) };
    }
}

/// Leaves the devices to the operating system. Allocates nothing.
fn leave() {
    let _ = with(Consoles::leave);
}

#[cfg(test)]
mod tests;
