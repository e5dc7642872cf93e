//! The first steps, run where the domain builder or hvmloader put the file: find Xen, read what they left, move away.
//!
//! The image is copied to the top of low memory and continues there ([`crate::home`]); what was loaded becomes free memory.

use core::arch::global_asm;
use core::ffi::c_void;
use core::fmt::Display;
use core::ops::Range;
use core::ptr;

use hw::mtrr::AllCached;
use hw::xen::{Xen, XenCpuid};
use hw::{cpu, port, xen};
use platform::start_info::{self, Taken};
use platform::{GuestKind, PhysicalMemory, Platform, hvm_info};

use crate::home;

/// Control register bits for the assembly (Intel SDM vol. 3 §2.5, §4.5).
mod constants {
    /// CR4.PAE.
    pub const CR4_PAE: u32 = 1 << 5;
    /// CR0.PE.
    pub const CR0_PE: u32 = 1;
    /// CR0.PG and CR0.PE.
    pub const CR0_PG_PE: u32 = 1 << 31 | 1;
    /// IA32_EFER.
    pub const EFER: u32 = 0xC000_0080;
    /// IA32_EFER.LME.
    pub const EFER_LME: u32 = 1 << 8;
    /// Present and writable.
    pub const TABLE: u32 = 0b11;
    /// Present, writable, large.
    pub const LARGE_PAGE: u32 = 0b1000_0011;
}

global_asm!(
    include_str!("start.s"),
    in_place = sym in_place,
    START_MAGIC = const xen_abi::XEN_HVM_START_MAGIC_VALUE,
    CR4_PAE = const constants::CR4_PAE,
    CR0_PG_PE = const constants::CR0_PG_PE,
    EFER = const constants::EFER,
    EFER_LME = const constants::EFER_LME,
    TABLE = const constants::TABLE,
    LARGE_PAGE = const constants::LARGE_PAGE,
    options(att_syntax),
);

global_asm!(include_str!("reset_vector.s"), CR0_PE = const constants::CR0_PE, options(att_syntax));

unsafe extern "C" {
    static image_start: u8;
    static text_end: u8;
    static constant_end: u8;
    static bss_start: u8;
    static image_end: u8;
    static rela_start: Relocation;
    static rela_end: Relocation;
    fn relocate(base: *mut u8);
    fn continue_on_stack(function: usize, stack_end: u64, argument: *const c_void) -> !;
}

/// An address in the image that depends on where it is (`Elf64_Rela`).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Relocation {
    /// Where the address is, from the image's beginning.
    pub offset: u64,
    _info: u64,
    _addend: i64,
}

/// All of them. The file has zeros in their places.
pub fn relocations() -> &'static [Relocation] {
    let (first, end) = (&raw const rela_start, &raw const rela_end);
    // SAFETY: the linker script puts the table, whole entries, between the two symbols.
    unsafe { core::slice::from_raw_parts(first, (end as usize - first as usize) / size_of::<Relocation>()) }
}

/// Where this image lies, and the parts that are protected differently.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// First byte; code until `text_end`.
    pub start: u64,
    /// Constants from here on.
    pub text_end: u64,
    /// Data from here on.
    pub constant_end: u64,
    /// First byte behind the image.
    pub end: u64,
    /// How many bytes of it came from the file; zeros follow.
    pub loaded: u64,
}

impl Image {
    /// Where the running image is.
    fn running() -> Self {
        Self {
            start: (&raw const image_start) as u64,
            text_end: (&raw const text_end) as u64,
            constant_end: (&raw const constant_end) as u64,
            end: (&raw const image_end) as u64,
            loaded: (&raw const bss_start) as u64 - (&raw const image_start) as u64,
        }
    }

    fn moved_to(self, start: u64) -> Self {
        let moved = |address: u64| address - self.start + start;
        Self {
            start,
            text_end: moved(self.text_end),
            constant_end: moved(self.constant_end),
            end: moved(self.end),
            loaded: self.loaded,
        }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.end - self.start
    }
}

/// Where the parts of the file are; the image tool fills it in (`build-support/image`).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ImageInfo {
    magic: [u8; 8],
    version: u32,
    flags: u32,
    /// Size of the whole file.
    pub fd_size: u64,
    /// Offset of this image in the file.
    pub core_offset: u64,
    /// Offset of the variable volume; size 0 where the file has none.
    pub vars_offset: u64,
    /// Size of the variable volume.
    pub vars_size: u64,
    /// Offset of the code volume.
    pub code_offset: u64,
    /// Size of the code volume.
    pub code_size: u64,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.image_info")]
static mut image_info: ImageInfo = ImageInfo {
    magic: *b"OVMFXEN\0",
    version: 1,
    flags: 0,
    fd_size: 0,
    core_offset: 0,
    vars_offset: 0,
    vars_size: 0,
    code_offset: 0,
    code_size: 0,
};

/// The parts of the file, as the image tool wrote them.
fn file_layout() -> ImageInfo {
    // SAFETY: nobody writes it at run time. Volatile, because the compiler must not take the zeros above for the truth.
    unsafe { (&raw const image_info).read_volatile() }
}

/// What the first steps found out, for the rest.
#[derive(Debug)]
pub struct Start {
    /// TSC at the firmware's first instruction.
    pub tsc: u64,
    /// TSC when the start information had been read.
    pub read: u64,
    /// TSC when the image had been moved.
    pub moved: u64,
    /// Xen, as CPUID describes it.
    pub xen: XenCpuid,
    /// The machine.
    pub platform: Platform,
    /// Memory that the start information lies in.
    pub taken: Taken,
    /// The loaded file.
    pub file: Range<u64>,
    /// Its parts.
    pub layout: ImageInfo,
    /// Where this image has moved.
    pub image: Image,
    /// Memory for stacks and page tables, below the image.
    pub reserve: Range<u64>,
}

/// Called by the assembly: 64-bit mode, identity map of 4 GiB, a small stack. Without start information hvmloader has been here.
extern "C" fn in_place(base: *mut u8, start_information: u32, tsc: u64) -> ! {
    let Some(xen) = xen::detect() else { no_xen() };
    let memory = Identity { top: 4 << 30 };
    let hypercalls = Xen::new(xen.instruction);
    let (platform, taken) = match start_information {
        0 => hvm_info::read(&memory, &hypercalls).map(|platform| (platform, Taken::new())).unwrap_or_else(refuse),
        address => start_info::read(address, &memory, &hypercalls).unwrap_or_else(refuse),
    };
    let read = hw::tsc::read();
    let here = Image::running();
    let layout = file_layout();
    let loaded = base as u64 - layout.core_offset..base as u64 - layout.core_offset + layout.fd_size;

    let reserve = home::reserve_size(&platform);
    let mut avoid = taken.clone();
    let _ = avoid.try_push(loaded.clone());
    let place = place(&platform, reserve + here.size(), &avoid);
    let image = here.moved_to(place + reserve);
    // hvmloader leaves the space below 4 GiB, where the file is, uncached.
    let cached = (platform.kind == GuestKind::Hvm).then(AllCached::begin);
    move_image(here, image);
    let file = match platform.kind {
        GuestKind::Pvh => loaded,
        GuestKind::Hvm => copy_file(loaded, &platform, place..image.end),
    };
    drop(cached);

    let start = Start {
        tsc,
        read,
        moved: hw::tsc::read(),
        xen,
        platform,
        taken,
        file,
        layout,
        image,
        reserve: place..place + reserve,
    };
    let home = home::at_home as *const () as u64 - here.start + image.start;
    // SAFETY: the copy is complete and relocated, and the stack is free memory.
    unsafe { continue_on_stack(home as usize, home::stack_end(&start.reserve), (&raw const start).cast()) }
}

/// Free low memory, as high as possible.
fn place(platform: &Platform, size: u64, avoid: &[Range<u64>]) -> u64 {
    let place = platform.memory.place_high(size, avoid);
    place.unwrap_or_else(|| refuse(format_args!("no {} KiB of free memory below 4 GiB", size / 1024)))
}

/// Brings the file into ordinary memory, where the rest of the firmware takes it apart and frees it.
fn copy_file(loaded: Range<u64>, platform: &Platform, core: Range<u64>) -> Range<u64> {
    let size = loaded.end - loaded.start;
    let place = place(platform, size, &[core]);
    // SAFETY: the loaded file, to free RAM of its size.
    unsafe { ptr::copy_nonoverlapping(loaded.start as *const u8, place as *mut u8, size as usize) };
    place..place + size
}

/// Copies the running image and fills in the copy's addresses.
fn move_image(from: Image, to: Image) {
    // SAFETY: `to` is free RAM of this size; what is behind the file's end is the zero-initialised part.
    unsafe {
        let loaded = from.loaded as usize;
        ptr::copy_nonoverlapping(from.start as *const u8, to.start as *mut u8, loaded);
        ((to.start as usize + loaded) as *mut u8).write_bytes(0, from.size() as usize - loaded);
        relocate(to.start as *mut u8);
    }
}

/// Memory through the identity map.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// First address that is not mapped.
    pub top: u64,
}

impl Identity {
    fn covers(&self, address: u64, length: usize) -> bool {
        // The page at 0 is no memory anybody hands over, and unmapped later.
        address >= 4096 && address.checked_add(length as u64).is_some_and(|end| end <= self.top)
    }
}

impl PhysicalMemory for Identity {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let covered = self.covers(address, into.len());
        if covered {
            // SAFETY: mapped; reading what is no memory gives all ones.
            unsafe { ptr::copy_nonoverlapping(address as *const u8, into.as_mut_ptr(), into.len()) };
        }
        covered
    }

    fn write(&mut self, address: u64, from: &[u8]) -> bool {
        let covered = self.covers(address, from.len());
        if covered {
            // SAFETY: mapped; the caller owns the range.
            unsafe { ptr::copy_nonoverlapping(from.as_ptr(), address as *mut u8, from.len()) };
        }
        covered
    }
}

/// Started by something else: say so where a person will look, and stop.
fn no_xen() -> ! {
    let message = b"ovmf-xen: this is not a Xen guest. This firmware boots Xen PVH and HVM guests only: type='pvh', kernel='OVMF.fd'.\r\n";
    port::debug_write(message);
    port::serial_write(message);
    cpu::stop()
}

/// The toolstack handed over something the firmware cannot start from.
fn refuse<T>(reason: impl Display) -> T {
    use core::fmt::Write;
    let _ = writeln!(crate::logger::DebugPort, "ovmf-xen: cannot start: {reason}");
    cpu::stop()
}
