//! Keyboards at the USB controller of an HVM guest (`usbdevice=['keyboard']`).
//!
//! Once there is such a keyboard, the device model sends all keys to it and none to the PS/2 keyboard, whether anybody drives it
//! or not; so it has to be driven. Nothing else is: no mouse, no disk, no other controller than the one that `usb=1` gives.
//!
//! | module | what |
//! | --- | --- |
//! | [`binding`] | the controller in the UEFI driver model |
//! | [`uhci`] | the controller: control transfers, and reports asked for in the background |
//! | [`enumerate`] | devices behind ports and hubs, and the keyboards among them |
//! | [`keyboard`] | from a keyboard's reports to keys: a console device |
//!
//! Sources: Universal Serial Bus Specification 1.1, chapters 9 and 11; Universal Host Controller Interface Design Guide 1.1;
//! Device Class Definition for Human Interface Devices 1.11, appendix B (boot protocol).

mod binding;
mod enumerate;
mod keyboard;
#[cfg(test)]
mod testing;
mod uhci;

pub use binding::install;

/// Why a transfer failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum UsbError {
    /// The device refused.
    Stalled,
    /// It did not answer, or not in time, or what came makes no sense.
    Failed,
}

/// A device, for its control endpoint; or an endpoint of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pipe {
    /// 0 for a device that has just been reset.
    address: u8,
    endpoint: u8,
    low_speed: bool,
    max_packet: u8,
}

/// The first packet of a control transfer (USB 1.1 §9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Setup {
    kind: u8,
    request: u8,
    value: u16,
    index: u16,
}

impl Setup {
    /// Bit of `kind`: the device sends the data.
    const IN: u8 = 0x80;
}

/// What stands between devices and their drivers.
trait Host {
    /// Ports of the controller itself.
    fn ports(&self) -> u8;
    /// Resets the device at a port, counted from 0: it answers at address 0 then. Tells whether it is a low-speed device; `None`
    /// if there is none.
    fn reset_port(&mut self, port: u8) -> Option<bool>;
    /// A control transfer with `data`, whose direction `setup` tells; how much was transferred.
    fn control(&mut self, pipe: Pipe, setup: Setup, data: &mut [u8]) -> Result<usize, UsbError>;
    /// Has an endpoint asked for reports from now on; the number to ask with, or `None` if there are too many.
    fn open(&mut self, pipe: Pipe) -> Option<usize>;
    /// The next report of an endpoint, if there is one; its length. Does not wait.
    fn report(&mut self, number: usize, into: &mut [u8]) -> Option<usize>;
    /// Lets time pass.
    fn wait(&self, nanoseconds: u64);
    /// Ends all of it: nothing moves data any more. Allocates nothing.
    fn stop(&mut self);
}
