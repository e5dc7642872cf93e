//! Memory at two addresses: a physical and a virtual one.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

const PROT_ALL: c_int = 1 | 2 | 4;
const MAP_SHARED: c_int = 1;

unsafe extern "C" {
    fn memfd_create(name: *const c_char, flags: u32) -> c_int;
    fn ftruncate(descriptor: c_int, length: i64) -> c_int;
    fn mmap(at: *mut c_void, size: usize, protection: c_int, flags: c_int, descriptor: c_int, from: i64)
    -> *mut c_void;
    fn munmap(at: *mut c_void, size: usize) -> c_int;
    fn close(descriptor: c_int) -> c_int;
}

/// Pages mapped twice.
pub struct Memory {
    pub physical: *mut u8,
    pub virtual_start: *mut u8,
    pub size: usize,
}

impl Memory {
    pub fn new(size: usize) -> Self {
        let size = size.next_multiple_of(4096);
        // SAFETY: plain system calls with valid arguments.
        unsafe {
            let descriptor = memfd_create(c"memory".as_ptr(), 0);
            assert!(descriptor >= 0 && ftruncate(descriptor, size as i64) == 0);
            let map = || mmap(ptr::null_mut(), size, PROT_ALL, MAP_SHARED, descriptor, 0).cast::<u8>();
            let memory = Self { physical: map(), virtual_start: map(), size };
            close(descriptor);
            assert!(memory.physical.addr() != usize::MAX && memory.virtual_start.addr() != usize::MAX);
            memory
        }
    }

    /// Physical address, virtual address, size.
    pub fn range(&self) -> (usize, usize, usize) {
        (self.physical.addr(), self.virtual_start.addr(), self.size)
    }

    /// The virtual address of something at a physical one.
    pub fn to_virtual<T>(&self, physical: *mut T) -> *mut T {
        self.virtual_start.wrapping_add(physical.addr() - self.physical.addr()).cast()
    }

    /// From now on only virtual addresses work.
    pub fn forget_physical(&self) {
        // SAFETY: this mapping was made by `new`.
        assert_eq!(unsafe { munmap(self.physical.cast(), self.size) }, 0);
    }
}
