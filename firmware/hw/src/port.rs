//! I/O ports. On the host (tests) writes vanish and reads give all ones, as unclaimed ports do.

/// Xen's debug console: bytes written here go to the hypervisor's log.
pub const XEN_DEBUG: u16 = 0xE9;
/// Data register of the first serial port.
pub const COM1: u16 = 0x3F8;

/// Writes a byte to a port.
///
/// # Safety
/// The port's device must tolerate the write.
pub unsafe fn write_u8(port: u16, value: u8) {
    #[cfg(target_os = "none")]
    // SAFETY: the caller vouches for the device.
    unsafe {
        x86_64::instructions::port::Port::new(port).write(value);
    }
    #[cfg(not(target_os = "none"))]
    let _ = (port, value);
}

/// Reads a byte from a port.
///
/// # Safety
/// The port's device must tolerate the read.
pub unsafe fn read_u8(port: u16) -> u8 {
    #[cfg(target_os = "none")]
    // SAFETY: the caller vouches for the device.
    unsafe {
        x86_64::instructions::port::Port::new(port).read()
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = port;
        0xFF
    }
}

/// Writes bytes to Xen's debug console.
pub fn debug_write(bytes: &[u8]) {
    for &byte in bytes {
        // SAFETY: every HVM-container domain has this port, and it only takes bytes.
        unsafe { write_u8(XEN_DEBUG, byte) };
    }
}

/// Writes bytes to the first serial port, waiting for each at most as long as a slow line takes.
pub fn serial_write(bytes: &[u8]) {
    /// Line status register: transmitter empty.
    const EMPTY: u8 = 0x20;
    for &byte in bytes {
        // SAFETY: an unclaimed port reads as all ones, which says "empty"; a serial port only takes bytes.
        unsafe {
            let mut patience = 100_000;
            while read_u8(COM1 + 5) & EMPTY == 0 && patience > 0 {
                patience -= 1;
            }
            write_u8(COM1, byte);
        }
    }
}
