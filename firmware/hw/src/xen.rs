//! Xen itself: CPUID leaves, hypercalls, the shared info page. The real half of [`crate::hypervisor`].

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::cell::Cell;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::from_mut;

use xen_abi as abi;

use crate::hypervisor::{DomainId, E820Entry, Errno, EventPort, Gfn, Hypervisor, Result, ShutdownReason};
use crate::shared::{PAGE_SIZE, SharedPages, read_barrier};

/// First CPUID leaf where Xen may be found, and the last; with Viridian leaves in front it moves up by 0x100.
const CPUID_FIRST: u32 = 0x4000_0000;
const CPUID_LAST: u32 = 0x4000_FF00;
const CPUID_STEP: usize = 0x100;
/// "XenVMMXenVMM" in EBX, ECX, EDX (`public/arch-x86/cpuid.h`).
const SIGNATURE: [u32; 3] = [0x566e_6558, 0x6558_4d4d, 0x4d4d_566e];

/// The instruction that enters the hypervisor on this CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instruction {
    /// Intel and compatible.
    Vmcall,
    /// AMD and compatible.
    Vmmcall,
}

/// What Xen says of itself through CPUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XenCpuid {
    /// First of Xen's leaves.
    pub base: u32,
    /// Version: major, minor.
    pub version: (u16, u16),
    /// How to make hypercalls.
    pub instruction: Instruction,
}

/// Looks for Xen in the CPUID leaves; `None` where the machine is not a Xen guest.
pub fn detect() -> Option<XenCpuid> {
    let base = (CPUID_FIRST..=CPUID_LAST).step_by(CPUID_STEP).find(|&leaf| {
        let found = __cpuid(leaf);
        [found.ebx, found.ecx, found.edx] == SIGNATURE
    })?;
    let version = __cpuid(base + 1).eax;
    Some(XenCpuid { base, version: ((version >> 16) as u16, version as u16), instruction: instruction() })
}

/// AMD and Hygon have VMMCALL, everybody else VMCALL; Xen does not trap the wrong one on all hardware.
fn instruction() -> Instruction {
    let vendor = __cpuid(0);
    let mut name = [0u8; 12];
    name[0..4].copy_from_slice(&vendor.ebx.to_le_bytes());
    name[4..8].copy_from_slice(&vendor.edx.to_le_bytes());
    name[8..12].copy_from_slice(&vendor.ecx.to_le_bytes());
    match &name {
        b"AuthenticAMD" | b"HygonGenuine" => Instruction::Vmmcall,
        _ => Instruction::Vmcall,
    }
}

/// Hypercalls of the domain the firmware runs in.
#[derive(Debug)]
pub struct Xen {
    instruction: Instruction,
    shared_info: Option<SharedPages>,
    /// The clock when the shared info page was given up; nothing reads the page from then on.
    last: Cell<Option<LastLook>>,
}

// SAFETY: one CPU; the shared page is only read and written with volatile accesses, and `last` is written once, when nothing
// else runs any more.
unsafe impl Sync for Xen {}

/// What of the shared info page the clock goes on with.
#[derive(Clone, Copy, Debug)]
struct LastLook {
    time: Option<TimeInfo>,
    boot_wall_clock_ns: u64,
}

impl Xen {
    /// Hypercalls by `instruction`; without a shared info page there are no clock and no events yet.
    pub const fn new(instruction: Instruction) -> Self {
        Self { instruction, shared_info: None, last: Cell::new(None) }
    }

    /// Maps the shared info page at `page`, a hole in the guest's memory. Needed before clock and events are used.
    pub fn attach_shared_info(&mut self, page: SharedPages) -> Result<()> {
        self.map_shared_info(page.gfn(0))?;
        self.shared_info = Some(page);
        // Xen chooses the page's layout, 32 or 64 bit, and fills in the wall clock, when this parameter is set; hvmloader has
        // left the other layout behind. The value 0 is the one there is: events interrupt nothing.
        self.set_hvm_param(abi::HVM_PARAM_CALLBACK_IRQ, 0)
    }

    /// Takes the shared info page out of the guest's memory again, for the hand-over to the operating system: no event is
    /// left pending in it, as Xen keeps its content. The clock goes on from what the page last said.
    pub fn detach_shared_info(&self) -> Result<()> {
        match self.let_go() {
            Some(frame) => self.unmap(frame),
            None => Ok(()),
        }
    }

    /// Stops using the shared info page; returns where it is mapped.
    fn let_go(&self) -> Option<Gfn> {
        let page = self.page()?;
        for word in (offset_of!(abi::shared_info, evtchn_pending)..offset_of!(abi::shared_info, evtchn_mask)).step_by(8)
        {
            page.write_u64(word, 0);
        }
        page.write_u64(offset_of!(abi::vcpu_info, evtchn_pending_sel), 0);
        page.write_u8(offset_of!(abi::vcpu_info, evtchn_upcall_pending), 0);
        self.last.set(Some(LastLook { time: self.time_info(), boot_wall_clock_ns: self.boot_wall_clock_ns() }));
        Some(page.gfn(0))
    }

    /// The shared info page, while it is there.
    fn page(&self) -> Option<&SharedPages> {
        self.shared_info.as_ref().filter(|_| self.last.get().is_none())
    }

    /// The clock parameters Xen keeps for this CPU; a consistent snapshot.
    pub fn time_info(&self) -> Option<TimeInfo> {
        if let Some(last) = self.last.get() {
            return last.time;
        }
        let page = self.page()?;
        let at = |field: usize| offset_of!(abi::vcpu_info, time) + field;
        // Xen makes the version odd while it writes; bounded, as a torn read is better than a hang.
        for _ in 0..1000 {
            let version = page.read_u32(at(offset_of!(abi::vcpu_time_info, version)));
            read_barrier();
            let info = TimeInfo {
                tsc_timestamp: page.read_u64(at(offset_of!(abi::vcpu_time_info, tsc_timestamp))),
                system_time: page.read_u64(at(offset_of!(abi::vcpu_time_info, system_time))),
                multiplier: page.read_u32(at(offset_of!(abi::vcpu_time_info, tsc_to_system_mul))),
                shift: page.read_u8(at(offset_of!(abi::vcpu_time_info, tsc_shift))) as i8,
            };
            read_barrier();
            if version & 1 == 0 && version == page.read_u32(at(offset_of!(abi::vcpu_time_info, version))) {
                return Some(info);
            }
        }
        None
    }

    /// Wall-clock time at system time 0: nanoseconds since 1970-01-01 UTC.
    fn boot_wall_clock_ns(&self) -> u64 {
        if let Some(last) = self.last.get() {
            return last.boot_wall_clock_ns;
        }
        let Some(page) = self.page() else { return 0 };
        for _ in 0..1000 {
            let version = page.read_u32(offset_of!(abi::shared_info, wc_version));
            read_barrier();
            let low = u64::from(page.read_u32(offset_of!(abi::shared_info, wc_sec)));
            let high = u64::from(page.read_u32(offset_of!(abi::shared_info, wc_sec_hi)));
            let nanoseconds = u64::from(page.read_u32(offset_of!(abi::shared_info, wc_nsec)));
            read_barrier();
            if version & 1 == 0 && version == page.read_u32(offset_of!(abi::shared_info, wc_version)) {
                return ((high << 32) | low).wrapping_mul(1_000_000_000).wrapping_add(nanoseconds);
            }
        }
        0
    }

    /// The domain's UUID, in the order of its text (`XENVER_guest_handle`).
    pub fn guest_handle(&self) -> Result<[u8; 16]> {
        let mut handle = [0; 16];
        // SAFETY: the operation writes a `xen_domain_handle_t`, 16 bytes.
        unsafe { self.call2(abi::__HYPERVISOR_xen_version, abi::XENVER_guest_handle, from_mut(&mut handle).cast()) }?;
        Ok(handle)
    }

    /// What follows major and minor number in Xen's version (`XENVER_extraversion`), up to a zero byte: `.0`.
    pub fn extra_version(&self) -> Result<[u8; 16]> {
        let mut text = [0; 16];
        // SAFETY: the operation writes a `xen_extraversion_t`, 16 bytes.
        unsafe { self.call2(abi::__HYPERVISOR_xen_version, abi::XENVER_extraversion, from_mut(&mut text).cast()) }?;
        Ok(text)
    }

    /// One hypercall with two arguments.
    ///
    /// # Safety
    /// `argument` must point to what the operation expects, writable where Xen answers in it.
    unsafe fn call2(&self, number: u32, operation: u32, argument: *mut c_void) -> Result<u64> {
        // SAFETY: forwarded.
        unsafe { self.call3(number, operation.into(), argument as u64, 0) }
    }

    /// One hypercall with three arguments.
    ///
    /// # Safety
    /// The arguments must be what hypercall `number` expects.
    unsafe fn call3(&self, number: u32, first: u64, second: u64, third: u64) -> Result<u64> {
        let mut result = u64::from(number);
        // SAFETY: Xen preserves all registers but RAX and, in debug builds, the argument registers; it reads and writes
        // the memory the arguments point to, which the default clobber of memory covers.
        unsafe {
            match self.instruction {
                Instruction::Vmcall => asm!("vmcall", inout("rax") result, inout("rdi") first => _,
                    inout("rsi") second => _, inout("rdx") third => _),
                Instruction::Vmmcall => asm!("vmmcall", inout("rax") result, inout("rdi") first => _,
                    inout("rsi") second => _, inout("rdx") third => _),
            }
        }
        match i64::from_ne_bytes(result.to_ne_bytes()) {
            error @ -4095..0 => Err(Errno(error.unsigned_abs() as u32)),
            _ => Ok(result),
        }
    }

    fn add_to_physmap(&self, space: u32, index: u32, gfn: Gfn) -> Result<()> {
        let mut request = abi::xen_add_to_physmap { domid: SELF, size: 0, space, idx: u64::from(index), gpfn: gfn.0 };
        // SAFETY: the structure of this operation.
        unsafe { self.call2(abi::__HYPERVISOR_memory_op, abi::XENMEM_add_to_physmap, from_mut(&mut request).cast()) }?;
        Ok(())
    }
}

/// `DOMID_SELF`.
const SELF: u16 = 0x7FF0;

/// The clock of one virtual CPU (`vcpu_time_info`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeInfo {
    /// TSC when `system_time` was taken.
    pub tsc_timestamp: u64,
    /// Nanoseconds since the host started.
    pub system_time: u64,
    /// TSC ticks to nanoseconds: multiply, then shift right by 32.
    pub multiplier: u32,
    /// Shift of the ticks to the left before the multiplication; to the right if negative.
    pub shift: i8,
}

impl TimeInfo {
    /// System time in nanoseconds when the TSC reads `tsc`. A TSC below the reference, as after a move to a CPU whose TSC is
    /// behind, counts as the reference.
    pub fn system_time_at(&self, tsc: u64) -> u64 {
        self.system_time.wrapping_add(self.ticks_to_ns(tsc.saturating_sub(self.tsc_timestamp)))
    }

    /// Length of `ticks` in nanoseconds.
    pub fn ticks_to_ns(&self, ticks: u64) -> u64 {
        let shifted = if self.shift >= 0 {
            ticks.wrapping_shl(u32::from(self.shift.unsigned_abs()))
        } else {
            ticks.wrapping_shr(u32::from(self.shift.unsigned_abs()))
        };
        ((u128::from(shifted) * u128::from(self.multiplier)) >> 32) as u64
    }
}

impl Hypervisor for Xen {
    fn hvm_param(&self, index: u32) -> Result<u64> {
        let mut request = abi::xen_hvm_param { domid: SELF, index, ..Default::default() };
        // SAFETY: the structure of this operation.
        unsafe { self.call2(abi::__HYPERVISOR_hvm_op, abi::HVMOP_get_param, from_mut(&mut request).cast()) }?;
        Ok(request.value)
    }

    fn set_hvm_param(&self, index: u32, value: u64) -> Result<()> {
        let mut request = abi::xen_hvm_param { domid: SELF, index, value, ..Default::default() };
        // SAFETY: the structure of this operation.
        unsafe { self.call2(abi::__HYPERVISOR_hvm_op, abi::HVMOP_set_param, from_mut(&mut request).cast()) }?;
        Ok(())
    }

    fn map_grant_frame(&self, index: u32, gfn: Gfn) -> Result<()> {
        self.add_to_physmap(abi::XENMAPSPACE_grant_table, index, gfn)
    }

    fn map_shared_info(&self, gfn: Gfn) -> Result<()> {
        self.add_to_physmap(abi::XENMAPSPACE_shared_info, 0, gfn)
    }

    fn unmap(&self, gfn: Gfn) -> Result<()> {
        let mut request = abi::xen_remove_from_physmap { domid: SELF, gpfn: gfn.0 };
        // SAFETY: the structure of this operation.
        unsafe {
            self.call2(abi::__HYPERVISOR_memory_op, abi::XENMEM_remove_from_physmap, from_mut(&mut request).cast())
        }?;
        Ok(())
    }

    fn grant_frames_max(&self) -> Result<u32> {
        let mut request = abi::gnttab_query_size { dom: SELF, ..Default::default() };
        // SAFETY: the structure of this operation, one of it.
        unsafe {
            self.call3(
                abi::__HYPERVISOR_grant_table_op,
                abi::GNTTABOP_query_size.into(),
                from_mut(&mut request) as u64,
                1,
            )
        }?;
        match request.status {
            0 => Ok(request.max_nr_frames),
            status => Err(Errno(u32::from(status.unsigned_abs()))),
        }
    }

    fn allocate_port(&self, remote: DomainId) -> Result<EventPort> {
        let mut request = abi::evtchn_alloc_unbound { dom: SELF, remote_dom: remote.0, port: 0 };
        // SAFETY: the structure of this operation.
        unsafe {
            self.call2(abi::__HYPERVISOR_event_channel_op, abi::EVTCHNOP_alloc_unbound, from_mut(&mut request).cast())
        }?;
        Ok(EventPort(request.port))
    }

    fn notify(&self, port: EventPort) -> Result<()> {
        let mut request = abi::evtchn_send { port: port.0 };
        // SAFETY: the structure of this operation.
        unsafe { self.call2(abi::__HYPERVISOR_event_channel_op, abi::EVTCHNOP_send, from_mut(&mut request).cast()) }?;
        Ok(())
    }

    fn close_port(&self, port: EventPort) -> Result<()> {
        // `evtchn_close` has the layout of `evtchn_send`: the port alone.
        let mut request = abi::evtchn_send { port: port.0 };
        // SAFETY: the structure of this operation.
        unsafe { self.call2(abi::__HYPERVISOR_event_channel_op, abi::EVTCHNOP_close, from_mut(&mut request).cast()) }?;
        Ok(())
    }

    fn poll(&self, port: EventPort, deadline_ns: u64) -> Result<()> {
        let mut port = port.0;
        let mut request = abi::sched_poll { nr_ports: 1, timeout: deadline_ns, ..Default::default() };
        request.ports.p = &raw mut port;
        // SAFETY: the structure of this operation; the port outlives the call.
        unsafe { self.call2(abi::__HYPERVISOR_sched_op, abi::SCHEDOP_poll, from_mut(&mut request).cast()) }?;
        Ok(())
    }

    fn memory_map(&self, entries: &mut [E820Entry]) -> Result<usize> {
        /// An entry as Xen writes it: 20 bytes, packed.
        #[derive(Clone, Copy)]
        #[repr(C, packed)]
        struct Entry {
            address: u64,
            size: u64,
            kind: u32,
        }
        let mut buffer = [Entry { address: 0, size: 0, kind: 0 }; 128];
        let mut request = abi::xen_memory_map { nr_entries: buffer.len() as u32, ..Default::default() };
        request.buffer.p = buffer.as_mut_ptr().cast();
        // SAFETY: the structure of this operation; the buffer has the number of entries given.
        unsafe { self.call2(abi::__HYPERVISOR_memory_op, abi::XENMEM_memory_map, from_mut(&mut request).cast()) }?;
        let count = (request.nr_entries as usize).min(buffer.len()).min(entries.len());
        for (to, from) in entries.iter_mut().zip(&buffer[..count]) {
            *to = E820Entry { address: from.address, size: from.size, kind: from.kind };
        }
        Ok(count)
    }

    fn shutdown(&self, reason: ShutdownReason) {
        let mut request = abi::sched_shutdown { reason: reason as u32 };
        // SAFETY: the structure of this operation. A failure leaves the caller to stop by other means.
        let _ = unsafe { self.call2(abi::__HYPERVISOR_sched_op, abi::SCHEDOP_shutdown, from_mut(&mut request).cast()) };
    }

    fn take_pending(&self, port: EventPort) -> bool {
        let Some(page) = self.page() else { return false };
        let offset = offset_of!(abi::shared_info, evtchn_pending) + port.0 as usize / 64 * 8;
        if offset + 8 > offset_of!(abi::shared_info, evtchn_mask) {
            return false;
        }
        page.test_and_clear_bit(offset, port.0 % 64)
    }

    fn system_time_ns(&self) -> u64 {
        self.time_info().map_or(0, |info| info.system_time_at(crate::tsc::read()))
    }

    fn wall_clock_ns(&self) -> u64 {
        self.boot_wall_clock_ns().wrapping_add(self.system_time_ns())
    }
}

const _: () = assert!(size_of::<abi::shared_info>() <= PAGE_SIZE);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeFrames;
    use crate::shared::FrameAllocator;

    #[test]
    fn ticks_become_nanoseconds_with_either_sign_of_shift() {
        // 2.5 GHz: 0.4 ns a tick, as Xen writes it: shift -1, multiplier 0.8 * 2^32.
        let slow = TimeInfo { tsc_timestamp: 1000, system_time: 5, multiplier: 0xCCCC_CCCC, shift: -1 };
        assert_eq!(slow.ticks_to_ns(2_500_000_000).next_multiple_of(10), 1_000_000_000);
        // 500 MHz: 2 ns a tick.
        let fast = TimeInfo { multiplier: 1 << 31, shift: 2, ..slow };
        assert_eq!(fast.ticks_to_ns(500), 1000);
        assert_eq!(fast.system_time_at(1500), 1005);
    }

    #[test]
    fn a_counter_behind_the_reference_does_not_make_time_jump() {
        let info = TimeInfo { tsc_timestamp: 1000, system_time: 5, multiplier: 1 << 31, shift: 1 };
        assert_eq!(info.system_time_at(999), 5);
    }

    #[test]
    fn the_clock_goes_on_without_the_shared_page() {
        let page = FakeFrames::default().allocate(1).unwrap();
        let peer = FakeFrames::peer(page.gfn(0));
        let time = |field| offset_of!(abi::vcpu_info, time) + field;
        peer.write_u64(time(offset_of!(abi::vcpu_time_info, system_time)), 7_000_000_000);
        peer.write_u32(time(offset_of!(abi::vcpu_time_info, tsc_to_system_mul)), 1 << 31);
        peer.write_u32(offset_of!(abi::shared_info, wc_sec), 100);
        peer.write_u64(offset_of!(abi::shared_info, evtchn_pending), u64::MAX);
        let xen = Xen { shared_info: Some(page), ..Xen::new(Instruction::Vmcall) };
        let before = (xen.time_info(), xen.boot_wall_clock_ns());
        assert!(xen.let_go().is_some());
        assert_eq!(peer.read_u64(offset_of!(abi::shared_info, evtchn_pending)), 0);
        // What is read where no page is mapped: the version stays odd, the clock would stand at 0.
        peer.fill(0xFF);
        assert_eq!((xen.time_info(), xen.boot_wall_clock_ns()), before);
        assert!(!xen.take_pending(EventPort(1)));
        assert_eq!(xen.let_go(), None);
    }

    #[test]
    fn a_machine_without_xen_is_told_apart() {
        // The build machine is no Xen guest, or if it is, the leaf answers with a plausible version.
        assert!(detect().is_none_or(|xen| xen.version.0 >= 3));
    }
}
