//! The processor's own state: descriptor tables, exception and interrupt entry, random numbers.

use core::arch::x86_64::__cpuid;
use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;

use x86_64::registers::control::{Cr2, Cr3};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PrivilegeLevel, VirtAddr};

/// Vector of the timer interrupt.
pub const TIMER_VECTOR: u8 = 0x40;
/// Vector of spurious interrupts.
pub const SPURIOUS_VECTOR: u8 = 0xFF;

/// Registers at an exception, as the entry code pushes them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Frame {
    /// R15 down to RAX.
    pub registers: [u64; 15],
    /// Exception vector.
    pub vector: u64,
    /// Error code, or 0 where the exception has none.
    pub error: u64,
    /// Where it happened.
    pub rip: u64,
    /// Code segment.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
}

impl Frame {
    /// Names of `registers`, in their order.
    pub const NAMES: [&'static str; 15] =
        ["r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rdi", "rsi", "rbp", "rbx", "rdx", "rcx", "rax"];

    /// Name of the exception (Intel SDM vol. 3 §6.3.1).
    pub fn exception(&self) -> &'static str {
        match self.vector {
            0 => "divide error",
            1 => "debug",
            2 => "non-maskable interrupt",
            3 => "breakpoint",
            4 => "overflow",
            5 => "bound range exceeded",
            6 => "invalid opcode",
            7 => "device not available",
            8 => "double fault",
            10 => "invalid TSS",
            11 => "segment not present",
            12 => "stack fault",
            13 => "general protection",
            14 => "page fault",
            16 => "x87 error",
            17 => "alignment check",
            18 => "machine check",
            19 => "SIMD error",
            _ => "exception",
        }
    }

    /// Faulting address of a page fault.
    pub fn fault_address(&self) -> Option<u64> {
        (self.vector == 14).then(Cr2::read_raw)
    }
}

/// What the firmware does on an exception and on a timer interrupt.
#[derive(Clone, Copy, Debug)]
pub struct Handlers {
    /// Must not return: the firmware's state is lost.
    pub exception: fn(&Frame) -> !,
    /// Runs with interrupts disabled and must return with interrupts disabled.
    pub timer: fn(),
}

/// Everything the CPU needs to refer to while the firmware runs. One static of it.
#[derive(Debug)]
pub struct Descriptors {
    inner: UnsafeCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
    idt: InterruptDescriptorTable,
    handlers: Option<Handlers>,
}

// SAFETY: written once by `load`, before interrupts are enabled, and only read afterwards.
unsafe impl Sync for Descriptors {}

/// The tables in use.
static DESCRIPTORS: Descriptors = Descriptors {
    inner: UnsafeCell::new(Inner {
        gdt: GlobalDescriptorTable::new(),
        tss: TaskStateSegment::new(),
        idt: InterruptDescriptorTable::new(),
        handlers: None,
    }),
};

/// Loads GDT, TSS and IDT. Exceptions run on a stack of their own that ends at `exception_stack_top`.
///
/// # Safety
/// Call once, with interrupts disabled, when the image is at its final address. The stack must be free for this use.
pub unsafe fn load(handlers: Handlers, exception_stack_top: u64) {
    use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
    // SAFETY: nobody else uses it yet, and from here on it is only read.
    let inner = unsafe { &mut *DESCRIPTORS.inner.get() };
    inner.handlers = Some(handlers);
    inner.tss.interrupt_stack_table[0] = VirtAddr::new_truncate(exception_stack_top);
    // SAFETY: the TSS is static.
    let tss = unsafe { Descriptor::tss_segment_unchecked(&inner.tss) };
    inner.gdt = GlobalDescriptorTable::new();
    let code = inner.gdt.append(Descriptor::kernel_code_segment());
    let data = inner.gdt.append(Descriptor::kernel_data_segment());
    let task = inner.gdt.append(tss);
    // SAFETY: the table is static and its selectors fit it.
    unsafe {
        inner.gdt.load_unsafe();
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        FS::set_reg(SegmentSelector::new(0, PrivilegeLevel::Ring0));
        GS::set_reg(SegmentSelector::new(0, PrivilegeLevel::Ring0));
        x86_64::instructions::tables::load_tss(task);
    }
    fill(&mut inner.idt);
    // SAFETY: the table is static.
    unsafe { inner.idt.load_unsafe() };
}

/// Distance between two exception stubs.
const STUB: u64 = 16;

fn fill(idt: &mut InterruptDescriptorTable) {
    unsafe extern "C" {
        static exception_stub_first: u8;
    }
    let stub = |vector: u64| VirtAddr::from_ptr(&raw const exception_stub_first) + vector * STUB;
    macro_rules! exceptions {
        ($($name:ident $vector:literal),*) => {
            // SAFETY: the stubs push a `Frame` and do not return; the stack exists.
            $(unsafe { idt.$name.set_handler_addr(stub($vector)).set_stack_index(0); })*
        };
    }
    exceptions!(divide_error 0, debug 1, non_maskable_interrupt 2, breakpoint 3, overflow 4, bound_range_exceeded 5,
        invalid_opcode 6, device_not_available 7, double_fault 8, invalid_tss 10, segment_not_present 11,
        stack_segment_fault 12, general_protection_fault 13, page_fault 14, x87_floating_point 16, alignment_check 17,
        machine_check 18, simd_floating_point 19);
    for vector in 32..=255u8 {
        let handler = if vector == TIMER_VECTOR { timer_entry as *const () } else { ignored_entry as *const () };
        // SAFETY: both save what they change and end with IRETQ. They run on the interrupted stack, so that nested
        // interrupts each have their own frame.
        unsafe { idt[vector].set_handler_addr(VirtAddr::from_ptr(handler)) };
    }
}

// One stub of 16 bytes for each exception: pushes an error code where the CPU does not, then the vector.
core::arch::global_asm!(
    ".text",
    ".balign 16",
    ".globl exception_stub_first",
    ".hidden exception_stub_first",
    "exception_stub_first:",
    ".set vector, 0",
    ".rept 32",
    ".balign 16",
    ".if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)",
    "push 0",
    ".endif",
    "push vector",
    "jmp {common}",
    ".set vector, vector + 1",
    ".endr",
    common = sym exception_common,
);

#[unsafe(naked)]
extern "C" fn exception_common() {
    naked_asm!(
        "push rax", "push rcx", "push rdx", "push rbx", "push rbp", "push rsi", "push rdi", "push r8",
        "push r9", "push r10", "push r11", "push r12", "push r13", "push r14", "push r15",
        "cld",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {handler}",
        "ud2",
        handler = sym exception,
    )
}

extern "C" fn exception(frame: *const Frame) -> ! {
    // SAFETY: the stub has just pushed it.
    let frame = unsafe { &*frame };
    // SAFETY: written before the IDT was loaded.
    match unsafe { (*DESCRIPTORS.inner.get()).handlers } {
        Some(handlers) => (handlers.exception)(frame),
        None => stop(),
    }
}

/// Saves what a called function may change: the integer registers and, as notification functions of loaded programs use
/// them, the vector registers.
#[unsafe(naked)]
extern "C" fn timer_entry() {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "push rax", "push rcx", "push rdx", "push rsi", "push rdi", "push r8", "push r9", "push r10", "push r11",
        "cld",
        "sub rsp, 512",
        "and rsp, -16",
        "fxsave64 [rsp]",
        "call {handler}",
        "fxrstor64 [rsp]",
        "lea rsp, [rbp - 72]",
        "pop r11", "pop r10", "pop r9", "pop r8", "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rax",
        "pop rbp",
        "iretq",
        handler = sym timer,
    )
}

extern "C" fn timer() {
    // SAFETY: written before the IDT was loaded.
    if let Some(handlers) = unsafe { (*DESCRIPTORS.inner.get()).handlers } {
        (handlers.timer)();
    }
}

/// Interrupts nobody asked for: spurious ones need no end-of-interrupt, and no others are unmasked.
#[unsafe(naked)]
extern "C" fn ignored_entry() {
    naked_asm!("iretq")
}

/// Enables SSE, write protection in supervisor mode and no-execute pages, as UEFI programs expect the CPU to be
/// (UEFI 2.10 §2.3.4), and switches to the page tables at `root`.
///
/// # Safety
/// The tables must map the running code, the stack and all memory in use.
pub unsafe fn set_up(root: u64) {
    use x86_64::registers::control::{Cr0, Cr0Flags, Cr3Flags, Cr4, Cr4Flags, Efer, EferFlags};
    use x86_64::structures::paging::PhysFrame;
    // SAFETY: the state a UEFI program expects; the caller vouches for the tables.
    unsafe {
        Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE));
        Cr4::update(|cr4| cr4.insert(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE));
        Cr0::update(|cr0| {
            cr0.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
            cr0.insert(Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::NUMERIC_ERROR | Cr0Flags::WRITE_PROTECT);
        });
        Cr3::write(PhysFrame::containing_address(x86_64::PhysAddr::new_truncate(root)), Cr3Flags::empty());
        // x87: all exceptions masked, double extended precision; SSE: all exceptions masked.
        let (control, mxcsr) = (0x037F_u16, 0x1F80_u32);
        asm!("fninit", "fldcw [{}]", "ldmxcsr [{}]", in(reg) &raw const control, in(reg) &raw const mxcsr);
    }
}

/// Whether the CPU has pages of 1 GiB.
pub fn has_huge_pages() -> bool {
    __cpuid(0x8000_0000).eax >= 0x8000_0001 && __cpuid(0x8000_0001).edx & (1 << 26) != 0
}

/// Number of physical address bits.
pub fn physical_address_bits() -> u32 {
    if __cpuid(0x8000_0000).eax >= 0x8000_0008 { __cpuid(0x8000_0008).eax & 0xFF } else { 36 }
}

/// A random number from the CPU, or `None` where it has no generator or the generator fails.
pub fn random() -> Option<u64> {
    if __cpuid(1).ecx & (1 << 30) == 0 {
        return None;
    }
    // The generator may be busy; Intel advises ten tries.
    (0..10).find_map(|_| {
        let (value, ok): (u64, u8);
        // SAFETY: the CPU has RDRAND.
        unsafe { asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack)) };
        (ok != 0).then_some(value)
    })
}

/// Stops this CPU for good.
#[cfg(target_os = "none")]
pub fn stop() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// On the host the CPU is not ours to stop.
#[cfg(not(target_os = "none"))]
pub fn stop() -> ! {
    panic!("the CPU was stopped")
}
