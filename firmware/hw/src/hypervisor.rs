//! What the firmware asks of Xen, as one trait: the real thing issues hypercalls, a test scripts the answers.

use core::fmt;

/// A negative errno of a hypercall (`public/errno.h`), stored positive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u32);

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errno {}", self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xen error {}", self.0)
    }
}

/// Result of a hypercall.
pub type Result<T> = core::result::Result<T, Errno>;

/// A local event channel port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EventPort(pub u32);

/// Guest frame number: guest-physical address divided by 4096.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Gfn(pub u64);

/// A domain number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DomainId(pub u16);

/// Reason given to `SCHEDOP_shutdown` (`public/sched.h`, `SHUTDOWN_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum ShutdownReason {
    /// The domain ends.
    PowerOff = 0,
    /// The domain starts anew.
    Reboot = 1,
    /// The domain failed; the toolstack follows `on_crash`.
    Crash = 3,
}

/// One entry of `XENMEM_memory_map`: an E820 entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct E820Entry {
    /// First byte.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
    /// E820 type: 1 RAM, 2 reserved, 3 ACPI, 4 NVS, 5 unusable, 6 disabled, 7 persistent.
    pub kind: u32,
}

/// The hypercalls the firmware uses. All of them are legal with interrupts disabled.
pub trait Hypervisor {
    /// `HVMOP_get_param` for this domain; `index` is one of `HVM_PARAM_*`.
    fn hvm_param(&self, index: u32) -> Result<u64>;
    /// `HVMOP_set_param` for this domain.
    fn set_hvm_param(&self, index: u32, value: u64) -> Result<()>;
    /// Maps grant table frame `index` at `gfn` (`XENMEM_add_to_physmap`, `XENMAPSPACE_grant_table`).
    fn map_grant_frame(&self, index: u32, gfn: Gfn) -> Result<()>;
    /// Maps the shared info page at `gfn`.
    fn map_shared_info(&self, gfn: Gfn) -> Result<()>;
    /// Takes whatever is mapped at `gfn` out of the guest's physical address space (`XENMEM_remove_from_physmap`).
    fn unmap(&self, gfn: Gfn) -> Result<()>;
    /// Maximum number of grant table frames (`GNTTABOP_query_size`).
    fn grant_frames_max(&self) -> Result<u32>;
    /// `EVTCHNOP_alloc_unbound`: a port that `remote` can bind to.
    fn allocate_port(&self, remote: DomainId) -> Result<EventPort>;
    /// `EVTCHNOP_send`.
    fn notify(&self, port: EventPort) -> Result<()>;
    /// `EVTCHNOP_close`.
    fn close_port(&self, port: EventPort) -> Result<()>;
    /// `SCHEDOP_poll`: blocks the virtual CPU until `port` is pending or Xen's system time reaches `deadline_ns`.
    fn poll(&self, port: EventPort, deadline_ns: u64) -> Result<()>;
    /// `XENMEM_memory_map` into `entries`; returns how many were written.
    fn memory_map(&self, entries: &mut [E820Entry]) -> Result<usize>;
    /// `SCHEDOP_shutdown`. Does not come back on a real machine.
    fn shutdown(&self, reason: ShutdownReason);
    /// Tests and clears the pending bit of `port` in the shared info page.
    fn take_pending(&self, port: EventPort) -> bool;
    /// Xen's system time: nanoseconds since the host started (`vcpu_time_info`).
    fn system_time_ns(&self) -> u64;
    /// Wall-clock time: nanoseconds since 1970-01-01 UTC (`shared_info.wc_*` plus system time).
    fn wall_clock_ns(&self) -> u64;
}
