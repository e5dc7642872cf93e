//! The driver model's logic: which drivers are asked for a controller, and in which order (UEFI 2.10 §7.3.12).

use alloc::string::String;
use alloc::vec::Vec;

use uefi_raw::Handle;

use crate::Result;
use crate::device_path::DevicePath;

/// A driver of the firmware's own that takes part in the driver model. [`crate::api::install_driver`] makes it an
/// EFI_DRIVER_BINDING_PROTOCOL with EFI_COMPONENT_NAME2_PROTOCOL. The functions are called without any lock held and may
/// use every service.
pub trait Driver {
    /// Name for people, as `drivers` in the UEFI Shell shows it.
    fn name(&self) -> &str;

    /// Drivers with a higher version are asked first; 0x10 and above is for drivers that come with a device (UEFI 2.10 §11.1).
    fn version(&self) -> u32;

    /// Whether it can manage `controller`. Called often, for every controller; must change nothing.
    fn supported(&self, controller: Handle, remaining: Option<&DevicePath>) -> Result<()>;

    /// Begins to manage `controller`. `binding` is the handle of the driver itself: the agent to open protocols with.
    fn start(&self, binding: Handle, controller: Handle, remaining: Option<&DevicePath>) -> Result<()>;

    /// Destroys these children of `controller`, or, if there are none, ceases to manage it.
    fn stop(&self, binding: Handle, controller: Handle, children: &[Handle]) -> Result<()>;

    /// Name of a controller it manages, or of a child it has made.
    fn controller_name(&self, _controller: Handle, _child: Option<Handle>) -> Option<String> {
        None
    }
}

/// What the order of drivers depends on; `T` is whatever it takes to call one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate<T> {
    /// The handle that has the driver binding protocol.
    pub binding: Handle,
    /// The image that installed it.
    pub image: Handle,
    /// Its version.
    pub version: u32,
    /// The driver.
    pub driver: T,
}

/// Puts `all` drivers into the order in which they are asked. `preferred` are image handles in order of preference: the
/// caller's list, then the platform's, then the bus driver's (UEFI 2.10 §7.3.12 gives the precedence). An image may have
/// several drivers. All others follow by version, highest first, those of the same version in the order of `all`.
pub fn order<T: Clone>(preferred: &[Handle], all: &[Candidate<T>]) -> Vec<Candidate<T>> {
    let mut rest: Vec<_> = all.to_vec();
    rest.sort_by_key(|candidate| core::cmp::Reverse(candidate.version));
    let mut ordered = Vec::with_capacity(rest.len());
    for image in preferred {
        let (chosen, others) = rest.into_iter().partition(|c: &Candidate<T>| c.image == *image || c.binding == *image);
        ordered.extend::<Vec<_>>(chosen);
        rest = others;
    }
    ordered.extend(rest);
    ordered
}
