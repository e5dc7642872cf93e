//! EFI_SERIAL_IO_PROTOCOL (UEFI 2.10 §12.8).

use alloc::boxed::Box;
use core::slice;

use uefi_raw::protocol::console::serial::{
    ControlBits, Parity, SerialIoMode, SerialIoProtocol, SerialIoProtocolRevision, StopBits,
};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::{Handle, Status};

use super::gate::Gate;
use crate::device_path::DevicePath;
use crate::serial::{Attributes, SerialPort, Unsupported};
use crate::{Result, api};

/// The interface and what it leads to. Never freed: callers may keep the pointer.
#[repr(C)]
struct SerialIo {
    protocol: SerialIoProtocol,
    mode: SerialIoMode,
    port: Gate<Box<dyn SerialPort>>,
}

/// Makes a handle with the device path `path` and EFI_SERIAL_IO_PROTOCOL.
pub fn install(path: &DevicePath, port: Box<dyn SerialPort>) -> Result<Handle> {
    let mode = mode(&*port);
    let interface = Box::into_raw(Box::new(SerialIo {
        protocol: SerialIoProtocol {
            revision: SerialIoProtocolRevision::REVISION_1_0,
            reset,
            set_attributes,
            set_control_bits,
            get_control_bits,
            write,
            read,
            mode: core::ptr::null(),
        },
        mode,
        port: Gate::new(port),
    }));
    // SAFETY: a new structure; `mode` points into it.
    unsafe { (*interface).protocol.mode = &raw const (*interface).mode };
    let bytes: &'static mut [u8] = path.as_bytes().to_vec().leak();
    let path = (DevicePathProtocol::GUID, bytes.as_mut_ptr().cast());
    api::install_protocols(None, &[path, (SerialIoProtocol::GUID, interface.cast())])
}

fn mode(port: &dyn SerialPort) -> SerialIoMode {
    let Attributes { baud_rate, receive_fifo_depth, timeout, parity, data_bits, stop_bits } = port.attributes();
    let (control_mask, data_bits) = (port.control_mask(), data_bits.into());
    SerialIoMode { control_mask, timeout, baud_rate, receive_fifo_depth, data_bits, parity, stop_bits }
}

/// Uses the port behind an interface, and makes the mode structure say what is so afterwards.
///
/// # Safety
/// `this` is an interface of [`install`].
unsafe fn with<R>(this: *const SerialIoProtocol, f: impl FnOnce(&mut dyn SerialPort) -> R) -> Result<R> {
    let this = this.cast::<SerialIo>();
    // SAFETY: interfaces are never freed; the mode is written through a pointer, as it is read.
    unsafe {
        (*this).port.with(|port| {
            let result = f(&mut **port);
            (&raw const (*this).mode).cast_mut().write(mode(&**port));
            result
        })
    }
}

/// The status of a change of settings.
fn changed(result: Result<core::result::Result<(), Unsupported>>, refused: Status) -> Status {
    match result {
        Ok(Ok(())) => Status::SUCCESS,
        Ok(Err(Unsupported)) => refused,
        Err(status) => status,
    }
}

/// Writes how much was transferred; the status says whether that is all.
///
/// # Safety
/// `size` is a variable of the caller.
unsafe fn transferred(result: Result<usize>, size: *mut usize) -> Status {
    // SAFETY: the caller.
    let wanted = unsafe { size.replace(*result.as_ref().unwrap_or(&0)) };
    match result {
        Ok(done) if done == wanted => Status::SUCCESS,
        Ok(_) => Status::TIMEOUT,
        Err(status) => status,
    }
}

unsafe extern "efiapi" fn reset(this: *mut SerialIoProtocol) -> Status {
    // SAFETY: one of our interfaces, says the caller.
    changed(unsafe { with(this, |port| port.reset()) }.map(Ok), Status::DEVICE_ERROR)
}

unsafe extern "efiapi" fn set_attributes(
    this: *mut SerialIoProtocol,
    baud_rate: u64,
    receive_fifo_depth: u32,
    timeout: u32,
    parity: Parity,
    data_bits: u8,
    stop_bits: StopBits,
) -> Status {
    let asked = Attributes { baud_rate, receive_fifo_depth, timeout, parity, data_bits, stop_bits }.or_default();
    // SAFETY: one of our interfaces, says the caller.
    changed(unsafe { with(this, |port| port.set_attributes(asked)) }, Status::INVALID_PARAMETER)
}

unsafe extern "efiapi" fn set_control_bits(this: *mut SerialIoProtocol, control: ControlBits) -> Status {
    // SAFETY: one of our interfaces, says the caller.
    changed(unsafe { with(this, |port| port.set_control(control)) }, Status::UNSUPPORTED)
}

unsafe extern "efiapi" fn get_control_bits(this: *const SerialIoProtocol, control: *mut ControlBits) -> Status {
    if control.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: one of our interfaces, says the caller.
    match unsafe { with(this, |port| port.control()) } {
        Ok(now) => {
            // SAFETY: not null, and a variable of the caller.
            unsafe { control.write(now) };
            Status::SUCCESS
        }
        Err(status) => status,
    }
}

unsafe extern "efiapi" fn write(this: *mut SerialIoProtocol, size: *mut usize, buffer: *const u8) -> Status {
    if size.is_null() || buffer.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null, and as long as the caller says.
    unsafe {
        let bytes = slice::from_raw_parts(buffer, *size);
        transferred(with(this, |port| port.write(bytes)), size)
    }
}

unsafe extern "efiapi" fn read(this: *mut SerialIoProtocol, size: *mut usize, buffer: *mut u8) -> Status {
    if size.is_null() || buffer.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null, and as long as the caller says.
    unsafe {
        let into = slice::from_raw_parts_mut(buffer, *size);
        transferred(with(this, |port| port.read(into)), size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_path::DevicePathBuf;
    use crate::fake;

    /// A line that takes and gives three characters at once.
    struct Line(Attributes);

    impl SerialPort for Line {
        fn attributes(&self) -> Attributes {
            self.0
        }
        fn set_attributes(&mut self, attributes: Attributes) -> core::result::Result<(), Unsupported> {
            if attributes.baud_rate > 115_200 {
                return Err(Unsupported);
            }
            self.0 = attributes;
            Ok(())
        }
        fn control(&self) -> ControlBits {
            ControlBits::INPUT_BUFFER_EMPTY
        }
        fn set_control(&mut self, control: ControlBits) -> core::result::Result<(), Unsupported> {
            if ControlBits::DATA_TERMINAL_READY.contains(control) { Ok(()) } else { Err(Unsupported) }
        }
        fn control_mask(&self) -> ControlBits {
            ControlBits::DATA_TERMINAL_READY
        }
        fn write(&mut self, bytes: &[u8]) -> usize {
            bytes.len().min(3)
        }
        fn read(&mut self, into: &mut [u8]) -> usize {
            let length = into.len().min(3);
            into[..length].copy_from_slice(&b"abc"[..length]);
            length
        }
        fn reset(&mut self) {
            self.0 = Attributes::DEFAULT;
        }
    }

    #[test]
    fn applications_set_the_line_up_and_use_it() {
        let (_, _guard) = fake::install_exclusive();
        let path = DevicePathBuf::parse_text("PciRoot(0x0)/Pci(0x1,0x0)/Serial(0x7)/Uart(115200,8,N,1)").unwrap();
        let handle = install(path.as_path(), Box::new(Line(Attributes::DEFAULT))).unwrap();
        let interface = api::protocol(handle, &SerialIoProtocol::GUID).unwrap().cast::<SerialIoProtocol>();
        // SAFETY: an interface and variables.
        unsafe {
            let line = &*interface;
            let mode = line.mode;
            assert_eq!(((*mode).baud_rate, (*mode).timeout, (*mode).data_bits), (115_200, 1_000_000, 8));
            let set = |baud| (line.set_attributes)(interface, baud, 0, 5, Parity::EVEN, 7, StopBits::TWO);
            assert_eq!(set(115_201), Status::INVALID_PARAMETER);
            assert_eq!((*mode).timeout, 1_000_000);
            assert_eq!(set(0), Status::SUCCESS);
            assert_eq!(((*mode).baud_rate, (*mode).timeout, (*mode).parity), (115_200, 5, Parity::EVEN));
            assert_eq!((line.reset)(interface), Status::SUCCESS);
            assert_eq!((*mode).timeout, 1_000_000);

            assert_eq!((line.set_control_bits)(interface, ControlBits::REQUEST_TO_SEND), Status::UNSUPPORTED);
            assert_eq!((line.set_control_bits)(interface, ControlBits::DATA_TERMINAL_READY), Status::SUCCESS);
            let mut control = ControlBits::empty();
            assert_eq!((line.get_control_bits)(interface, &raw mut control), Status::SUCCESS);
            assert_eq!(control, ControlBits::INPUT_BUFFER_EMPTY);

            let (mut size, mut buffer) = (3, [0; 5]);
            assert_eq!((line.write)(interface, &raw mut size, buffer.as_ptr()), Status::SUCCESS);
            size = 5;
            assert_eq!((line.write)(interface, &raw mut size, buffer.as_ptr()), Status::TIMEOUT);
            assert_eq!(size, 3);
            size = 5;
            assert_eq!((line.read)(interface, &raw mut size, buffer.as_mut_ptr()), Status::TIMEOUT);
            assert_eq!((size, &buffer), (3, b"abc\0\0"));
            size = 0;
            assert_eq!((line.read)(interface, &raw mut size, core::ptr::null_mut()), Status::INVALID_PARAMETER);
        }
    }
}
