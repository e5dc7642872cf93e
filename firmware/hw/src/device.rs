//! What device drivers of HVM guests reach devices through: I/O ports and windows of memory-mapped registers.
//!
//! | type | what |
//! | --- | --- |
//! | [`Ports`] | I/O ports, as a trait |
//! | [`Window`] | a range of memory that a device answers in (registers, video memory), as a trait |
//! | [`Windows`] | gives out windows by address |
//! | [`MachinePorts`], [`MachineWindow`] | the real ones |
//!
//! Memory that a device reads and writes by itself (DMA) is [`SharedPages`](crate::shared::SharedPages): a device is no more
//! trusted than another domain.

use alloc::boxed::Box;

/// I/O ports. What no device claims reads as all ones and ignores writes.
pub trait Ports {
    /// Reads a byte.
    fn read_u8(&self, port: u16) -> u8;
    /// Reads 16 bits.
    fn read_u16(&self, port: u16) -> u16;
    /// Reads 32 bits.
    fn read_u32(&self, port: u16) -> u32;
    /// Writes a byte.
    fn write_u8(&self, port: u16, value: u8);
    /// Writes 16 bits.
    fn write_u16(&self, port: u16, value: u16);
    /// Writes 32 bits.
    fn write_u32(&self, port: u16, value: u32);

    /// Reads `into.len()` times a byte from one port.
    fn read_bytes(&self, port: u16, into: &mut [u8]) {
        into.fill_with(|| self.read_u8(port));
    }

    /// Reads `into.len() / 2` times 16 bits from one port; a last odd byte is left alone.
    fn read_words(&self, port: u16, into: &mut [u8]) {
        for word in into.chunks_exact_mut(2) {
            word.copy_from_slice(&self.read_u16(port).to_le_bytes());
        }
    }

    /// Writes `from.len() / 2` times 16 bits to one port; a last odd byte is left out.
    fn write_words(&self, port: u16, from: &[u8]) {
        for word in from.chunks_exact(2) {
            self.write_u16(port, u16::from_le_bytes([word[0], word[1]]));
        }
    }

    /// Writes bytes to one port.
    fn write_bytes(&self, port: u16, from: &[u8]) {
        for byte in from {
            self.write_u8(port, *byte);
        }
    }
}

/// A range of memory that belongs to a device. Offsets are in bytes and are checked: an access outside, or one that is not
/// aligned to its size, panics, as it is a bug of the caller and never the device's doing.
pub trait Window {
    /// Address of its first byte, as the device's BAR has it.
    fn address(&self) -> u64;
    /// Its length in bytes.
    fn len(&self) -> usize;
    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads a byte.
    fn read_u8(&self, offset: usize) -> u8;
    /// Reads 16 bits.
    fn read_u16(&self, offset: usize) -> u16;
    /// Reads 32 bits.
    fn read_u32(&self, offset: usize) -> u32;
    /// Reads 64 bits.
    fn read_u64(&self, offset: usize) -> u64;
    /// Writes a byte.
    fn write_u8(&self, offset: usize, value: u8);
    /// Writes 16 bits.
    fn write_u16(&self, offset: usize, value: u16);
    /// Writes 32 bits.
    fn write_u32(&self, offset: usize, value: u32);
    /// Writes 64 bits.
    fn write_u64(&self, offset: usize, value: u64);
    /// Writes bytes; for memory such as a frame buffer, not for registers: the width of the accesses is not defined.
    fn write_bytes(&self, offset: usize, from: &[u8]);
    /// Reads bytes; for memory such as a frame buffer or an option ROM.
    fn read_bytes(&self, offset: usize, into: &mut [u8]);
    /// Fills `count` aligned 32-bit words.
    fn fill_u32(&self, offset: usize, count: usize, value: u32);
}

/// Gives out windows.
pub trait Windows {
    /// The window of `length` bytes at `address`; `None` where it is not in the address space the firmware maps, or is RAM.
    fn window(&self, address: u64, length: usize) -> Option<Box<dyn Window>>;
}

/// The machine's ports.
#[derive(Debug)]
pub struct MachinePorts(());

impl MachinePorts {
    /// Takes the ports into use.
    ///
    /// # Safety
    /// What drivers do with them can have any effect that a device can have: only drivers that know their device get them.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

macro_rules! port_access {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, port: u16) -> $type {
            #[cfg(target_os = "none")]
            // SAFETY: whoever made this value vouches for its users.
            unsafe {
                x86_64::instructions::port::Port::new(port).read()
            }
            #[cfg(not(target_os = "none"))]
            {
                let _ = port;
                <$type>::MAX
            }
        }

        fn $write(&self, port: u16, value: $type) {
            #[cfg(target_os = "none")]
            // SAFETY: as above.
            unsafe {
                x86_64::instructions::port::Port::new(port).write(value);
            }
            #[cfg(not(target_os = "none"))]
            let _ = (port, value);
        }
    };
}

impl Ports for MachinePorts {
    port_access!(read_u8, write_u8, u8);
    port_access!(read_u16, write_u16, u16);
    port_access!(read_u32, write_u32, u32);

    // One instruction for all of it: Xen hands a repeated access to the device model as one request.
    #[cfg(target_os = "none")]
    fn read_bytes(&self, port: u16, into: &mut [u8]) {
        // SAFETY: as above; the instruction writes no more than the slice.
        unsafe {
            core::arch::asm!("rep insb", in("dx") port, inout("rdi") into.as_mut_ptr() => _,
                inout("rcx") into.len() => _, options(nostack, preserves_flags));
        }
    }

    #[cfg(target_os = "none")]
    fn read_words(&self, port: u16, into: &mut [u8]) {
        // SAFETY: as above; the instruction writes no more than the whole words of the slice.
        unsafe {
            core::arch::asm!("rep insw", in("dx") port, inout("rdi") into.as_mut_ptr() => _,
                inout("rcx") into.len() / 2 => _, options(nostack, preserves_flags));
        }
    }

    #[cfg(target_os = "none")]
    fn write_words(&self, port: u16, from: &[u8]) {
        // SAFETY: as above; the instruction only reads the slice.
        unsafe {
            core::arch::asm!("rep outsw", in("dx") port, inout("rsi") from.as_ptr() => _,
                inout("rcx") from.len() / 2 => _, options(nostack, preserves_flags));
        }
    }

    #[cfg(target_os = "none")]
    fn write_bytes(&self, port: u16, from: &[u8]) {
        // SAFETY: as above; the instruction only reads the slice.
        unsafe {
            core::arch::asm!("rep outsb", in("dx") port, inout("rsi") from.as_ptr() => _,
                inout("rcx") from.len() => _, options(nostack, preserves_flags));
        }
    }
}

/// A mapped range of device memory.
#[derive(Debug)]
pub struct MachineWindow {
    base: *mut u8,
    length: usize,
}

impl MachineWindow {
    /// Takes `length` bytes at `base`, which is also their address on the bus, into use.
    ///
    /// # Safety
    /// The range must be mapped for as long as the value lives, and be a device's: no Rust object may lie in it.
    pub const unsafe fn new(base: *mut u8, length: usize) -> Self {
        Self { base, length }
    }

    fn at<T>(&self, offset: usize, count: usize) -> *mut T {
        let size = size_of::<T>().checked_mul(count);
        let end = size.and_then(|size| offset.checked_add(size));
        assert!(end.is_some_and(|end| end <= self.length), "access outside a device's window");
        // SAFETY: checked to lie within the range.
        let place = unsafe { self.base.add(offset) }.cast::<T>();
        assert!(place.is_aligned(), "access to a device's window that is not aligned");
        place
    }
}

macro_rules! window_access {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, offset: usize) -> $type {
            // SAFETY: in bounds and aligned; volatile because the device may change it at any time.
            unsafe { self.at::<$type>(offset, 1).read_volatile() }
        }

        fn $write(&self, offset: usize, value: $type) {
            // SAFETY: in bounds and aligned.
            unsafe { self.at::<$type>(offset, 1).write_volatile(value) }
        }
    };
}

impl Window for MachineWindow {
    fn address(&self) -> u64 {
        self.base.addr() as u64
    }

    fn len(&self) -> usize {
        self.length
    }

    window_access!(read_u8, write_u8, u8);
    window_access!(read_u16, write_u16, u16);
    window_access!(read_u32, write_u32, u32);
    window_access!(read_u64, write_u64, u64);

    fn write_bytes(&self, offset: usize, from: &[u8]) {
        // SAFETY: in bounds, and the range holds no Rust object, so the two do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), self.at::<u8>(offset, from.len()), from.len()) }
    }

    fn read_bytes(&self, offset: usize, into: &mut [u8]) {
        // SAFETY: as above.
        unsafe { core::ptr::copy_nonoverlapping(self.at::<u8>(offset, into.len()), into.as_mut_ptr(), into.len()) }
    }

    fn fill_u32(&self, offset: usize, count: usize, value: u32) {
        let first = self.at::<u32>(offset, count);
        for index in 0..count {
            // SAFETY: in bounds and aligned.
            unsafe { first.add(index).write_volatile(value) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_reads_what_was_written_with_any_width() {
        let mut memory = [0u64; 4];
        // SAFETY: the array lives longer than the window and is not touched otherwise.
        let window = unsafe { MachineWindow::new(memory.as_mut_ptr().cast(), 32) };
        window.write_u32(4, 0x1122_3344);
        assert_eq!(window.read_u64(0), 0x1122_3344_0000_0000);
        window.write_bytes(9, &[1, 2, 3]);
        assert_eq!((window.read_u8(9), window.read_u16(10)), (1, 0x0302));
        window.fill_u32(16, 4, 0xAABB_CCDD);
        let mut bytes = [0; 5];
        window.read_bytes(27, &mut bytes);
        assert_eq!(bytes, [0xAA, 0xDD, 0xCC, 0xBB, 0xAA]);
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn an_access_outside_a_window_is_refused() {
        let mut memory = [0u32; 1];
        // SAFETY: as above.
        let window = unsafe { MachineWindow::new(memory.as_mut_ptr().cast(), 4) };
        window.fill_u32(0, 2, 0);
    }

    #[test]
    #[should_panic(expected = "aligned")]
    fn an_access_that_is_not_aligned_is_refused() {
        let mut memory = [0u32; 2];
        // SAFETY: as above.
        let window = unsafe { MachineWindow::new(memory.as_mut_ptr().cast(), 8) };
        window.read_u32(2);
    }
}
