//! The driver model (UEFI 2.10 §7.3.12, §11.1), with a driver that does what a test tells it.

use core::ffi::c_void;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use guest::image;
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::driver::DriverBindingProtocol;
use uefi_raw::table::boot::InterfaceType;
use uefi_raw::{Boolean, Handle, Status};

use crate::harness::{Outcome, Test};
use crate::support::{NOBODYS, OURS, OURS_TOO, handle_with, handles_with, open, protocol_of};

pub const TESTS: &[Test] = tests![
    a_driver_starts_on_a_controller_it_supports,
    a_driver_is_not_asked_again_while_it_manages_the_controller,
    a_controller_without_driver_is_not_found,
    a_driver_that_fails_to_start_is_not_found,
    the_driver_of_the_higher_version_comes_first,
    the_driver_named_by_the_caller_comes_first,
    recursion_connects_the_children,
    disconnecting_stops_children_and_driver,
    one_child_can_be_disconnected,
    a_controller_goes_only_after_its_driver_has_stopped,
    a_protocol_whose_driver_cannot_stop_stays,
    wrong_arguments_are_refused,
];

static INTERFACE: u64 = 0;
static CHILD: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static STARTS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
static STOPS: AtomicUsize = AtomicUsize::new(0);
static MOOD: AtomicUsize = AtomicUsize::new(MANAGE);

/// What the drivers do.
const MANAGE: usize = 0;
const MAKE_CHILD: usize = 1;
const FAIL: usize = 2;
const REFUSE_TO_STOP: usize = 3;

fn interface() -> *const c_void {
    (&raw const INTERFACE).cast()
}

/// A driver of controllers with the protocol `OURS`; its children have `OURS_TOO`.
struct Driver {
    binding: DriverBindingProtocol,
}

impl Driver {
    /// A driver of this version, which counts its starts in `STARTS[which]`; installed until it is dropped.
    fn install(which: usize, version: u32) -> alloc::boxed::Box<Self> {
        let start = [start_first, start_second][which];
        let mut driver = alloc::boxed::Box::new(Self {
            binding: DriverBindingProtocol {
                supported,
                start,
                stop,
                version,
                image_handle: image(),
                driver_binding_handle: null_mut(),
            },
        });
        STARTS[which].store(0, Ordering::SeqCst);
        STOPS.store(0, Ordering::SeqCst);
        MOOD.store(MANAGE, Ordering::SeqCst);
        let handle = handle_with(&DriverBindingProtocol::GUID, (&raw const driver.binding).cast());
        driver.binding.driver_binding_handle = handle;
        driver
    }

    fn handle(&self) -> Handle {
        self.binding.driver_binding_handle
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let binding = (&raw const self.binding).cast();
        let _ = bs!(uninstall_protocol_interface(self.handle(), &DriverBindingProtocol::GUID, binding));
    }
}

unsafe extern "efiapi" fn supported(
    this: *const DriverBindingProtocol,
    controller: Handle,
    _: *const DevicePathProtocol,
) -> Status {
    let agent = efi!((*this).driver_binding_handle);
    let mut interface = null_mut();
    let status = bs!(open_protocol(controller, &OURS, &mut interface, agent, controller, open::BY_DRIVER));
    if status == Status::SUCCESS {
        let _ = bs!(close_protocol(controller, &OURS, agent, controller));
    }
    status
}

unsafe extern "efiapi" fn start_first(
    this: *const DriverBindingProtocol,
    controller: Handle,
    _: *const DevicePathProtocol,
) -> Status {
    started(0, this, controller)
}

unsafe extern "efiapi" fn start_second(
    this: *const DriverBindingProtocol,
    controller: Handle,
    _: *const DevicePathProtocol,
) -> Status {
    started(1, this, controller)
}

fn started(which: usize, this: *const DriverBindingProtocol, controller: Handle) -> Status {
    STARTS[which].fetch_add(1, Ordering::SeqCst);
    let mood = MOOD.load(Ordering::SeqCst);
    if mood == FAIL {
        return Status::DEVICE_ERROR;
    }
    let agent = efi!((*this).driver_binding_handle);
    let mut place = null_mut();
    let status = bs!(open_protocol(controller, &OURS, &mut place, agent, controller, open::BY_DRIVER));
    if status != Status::SUCCESS || mood != MAKE_CHILD {
        return status;
    }
    let child = handle_with(&OURS_TOO, interface());
    CHILD.store(child, Ordering::SeqCst);
    bs!(open_protocol(controller, &OURS, &mut place, agent, child, open::BY_CHILD_CONTROLLER))
}

unsafe extern "efiapi" fn stop(
    this: *const DriverBindingProtocol,
    controller: Handle,
    count: usize,
    children: *const Handle,
) -> Status {
    if MOOD.load(Ordering::SeqCst) == REFUSE_TO_STOP {
        return Status::DEVICE_ERROR;
    }
    STOPS.fetch_add(1, Ordering::SeqCst);
    let agent = efi!((*this).driver_binding_handle);
    if count == 0 {
        return bs!(close_protocol(controller, &OURS, agent, controller));
    }
    for child in efi!(core::slice::from_raw_parts(children, count)) {
        let _ = bs!(close_protocol(controller, &OURS, agent, *child));
        let _ = bs!(uninstall_protocol_interface(*child, &OURS_TOO, interface()));
    }
    Status::SUCCESS
}

fn connect(controller: Handle, recursive: bool) -> Status {
    bs!(connect_controller(controller, null(), null(), Boolean::from(recursive)))
}

fn disconnect(controller: Handle) -> Status {
    bs!(disconnect_controller(controller, null_mut(), null_mut()))
}

fn remove(controller: Handle) -> Status {
    bs!(uninstall_protocol_interface(controller, &OURS, interface()))
}

fn a_driver_starts_on_a_controller_it_supports() -> Outcome {
    let _driver = Driver::install(0, 0x10);
    let controller = handle_with(&OURS, interface());
    want!(SUCCESS, connect(controller, false));
    same!(STARTS[0].load(Ordering::SeqCst), 1);
    want!(SUCCESS, disconnect(controller));
    same!(STOPS.load(Ordering::SeqCst), 1);
    want!(SUCCESS, remove(controller));
    Ok(())
}

fn a_driver_is_not_asked_again_while_it_manages_the_controller() -> Outcome {
    let _driver = Driver::install(0, 0x10);
    let controller = handle_with(&OURS, interface());
    want!(SUCCESS, connect(controller, false));
    let _ = connect(controller, false);
    same!(STARTS[0].load(Ordering::SeqCst), 1);
    want!(SUCCESS, disconnect(controller));
    want!(SUCCESS, remove(controller));
    Ok(())
}

fn a_controller_without_driver_is_not_found() -> Outcome {
    let controller = handle_with(&OURS, interface());
    want!(NOT_FOUND, connect(controller, false));
    want!(SUCCESS, disconnect(controller));
    want!(SUCCESS, remove(controller));
    Ok(())
}

fn a_driver_that_fails_to_start_is_not_found() -> Outcome {
    let _driver = Driver::install(0, 0x10);
    MOOD.store(FAIL, Ordering::SeqCst);
    let controller = handle_with(&OURS, interface());
    want!(NOT_FOUND, connect(controller, false));
    same!(STARTS[0].load(Ordering::SeqCst), 1);
    want!(SUCCESS, remove(controller));
    Ok(())
}

fn the_driver_of_the_higher_version_comes_first() -> Outcome {
    let _low = Driver::install(0, 0x10);
    let _high = Driver::install(1, 0x20);
    let controller = handle_with(&OURS, interface());
    want!(SUCCESS, connect(controller, false));
    same!(STARTS.each_ref().map(|starts| starts.load(Ordering::SeqCst)), [0, 1]);
    want!(SUCCESS, disconnect(controller));
    want!(SUCCESS, remove(controller));
    Ok(())
}

fn the_driver_named_by_the_caller_comes_first() -> Outcome {
    let low = Driver::install(0, 0x10);
    let _high = Driver::install(1, 0x20);
    let controller = handle_with(&OURS, interface());
    let drivers = [low.handle(), null_mut()];
    want!(SUCCESS, bs!(connect_controller(controller, drivers.as_ptr(), null(), Boolean::FALSE)));
    same!(STARTS.each_ref().map(|starts| starts.load(Ordering::SeqCst)), [1, 0]);
    want!(SUCCESS, disconnect(controller));
    want!(SUCCESS, remove(controller));
    Ok(())
}

fn recursion_connects_the_children() -> Outcome {
    let _bus = Driver::install(0, 0x10);
    MOOD.store(MAKE_CHILD, Ordering::SeqCst);
    let controller = handle_with(&OURS, interface());
    want!(SUCCESS, connect(controller, true));
    let mut child = CHILD.load(Ordering::SeqCst);
    same!(protocol_of::<c_void>(child, &OURS_TOO), Some(interface().cast_mut()));
    MOOD.store(MANAGE, Ordering::SeqCst);
    let native = InterfaceType::NATIVE_INTERFACE;
    want!(SUCCESS, bs!(install_protocol_interface(&mut child, &OURS, native, interface())));
    // Nothing new is connected to the controller itself.
    let _ = connect(controller, true);
    same!(STARTS[0].load(Ordering::SeqCst), 2);
    want!(SUCCESS, disconnect(child));
    want!(SUCCESS, remove(child));
    want!(SUCCESS, disconnect(controller));
    want!(SUCCESS, remove(controller));
    Ok(())
}

fn disconnecting_stops_children_and_driver() -> Outcome {
    let _bus = Driver::install(0, 0x10);
    MOOD.store(MAKE_CHILD, Ordering::SeqCst);
    let controller = handle_with(&OURS, interface());
    want!(SUCCESS, connect(controller, false));
    same!(handles_with(&OURS_TOO).len(), 1);
    want!(SUCCESS, disconnect(controller));
    same!((handles_with(&OURS_TOO).len(), STOPS.load(Ordering::SeqCst)), (0, 2));
    want!(SUCCESS, remove(controller));
    Ok(())
}

fn one_child_can_be_disconnected() -> Outcome {
    let bus = Driver::install(0, 0x10);
    MOOD.store(MAKE_CHILD, Ordering::SeqCst);
    let controller = handle_with(&OURS, interface());
    want!(SUCCESS, connect(controller, false));
    let child = CHILD.load(Ordering::SeqCst);
    want!(SUCCESS, bs!(disconnect_controller(controller, bus.handle(), child)));
    same!(handles_with(&OURS_TOO).len(), 0);
    let _ = disconnect(controller);
    want!(SUCCESS, remove(controller));
    Ok(())
}

fn a_controller_goes_only_after_its_driver_has_stopped() -> Outcome {
    let _driver = Driver::install(0, 0x10);
    let controller = handle_with(&OURS, interface());
    want!(SUCCESS, connect(controller, false));
    want!(SUCCESS, remove(controller));
    same!(STOPS.load(Ordering::SeqCst), 1);
    Ok(())
}

fn a_protocol_whose_driver_cannot_stop_stays() -> Outcome {
    let _driver = Driver::install(0, 0x10);
    let controller = handle_with(&OURS, interface());
    want!(SUCCESS, connect(controller, false));
    MOOD.store(REFUSE_TO_STOP, Ordering::SeqCst);
    let status = remove(controller);
    let there = protocol_of::<c_void>(controller, &OURS).is_some();
    MOOD.store(MANAGE, Ordering::SeqCst);
    want!(SUCCESS, disconnect(controller));
    want!(SUCCESS, remove(controller));
    same!((status, there), (Status::ACCESS_DENIED, true));
    Ok(())
}

fn wrong_arguments_are_refused() -> Outcome {
    let controller = handle_with(&NOBODYS, interface());
    want!(INVALID_PARAMETER, connect(null_mut(), false));
    want!(INVALID_PARAMETER, disconnect(null_mut()));
    want!(INVALID_PARAMETER, bs!(disconnect_controller(controller, 0x1_2345_6789_u64 as Handle, null_mut())));
    want!(INVALID_PARAMETER, bs!(disconnect_controller(controller, null_mut(), 0x1_2345_6789_u64 as Handle)));
    want!(SUCCESS, bs!(uninstall_protocol_interface(controller, &NOBODYS, interface())));
    Ok(())
}
