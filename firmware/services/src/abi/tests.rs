//! The edges over a core of the test's own, with drivers and images that are functions of the test.

use std::alloc::Layout;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Mutex;

use super::*;
use crate::hardware::{Hardware, Protection, Reset};
use crate::memory::map::RAM_CAPABILITIES;
use core::ffi::c_void;
use core::ptr;
use uefi_raw::table::boot::MemoryType;
use uefi_raw::time::Time;
use uefi_raw::{Guid, Handle, Status, guid};

const ONE: Guid = guid!("11111111-0000-0000-0000-000000000000");
const TWO: Guid = guid!("22222222-0000-0000-0000-000000000000");

/// A machine that writes down what is asked of it.
#[derive(Default)]
pub(super) struct Machine {
    protections: Mutex<Vec<(u64, u64, Protection)>>,
}

impl Hardware for Machine {
    fn now(&self) -> u64 {
        0
    }
    fn arm_timer(&self, _: Option<u64>) {}
    fn stall(&self, _: usize) {}
    fn idle(&self) {}
    fn protect(&self, address: u64, pages: u64, protection: Protection) -> Result<()> {
        self.protections.lock().unwrap().push((address, pages, protection));
        Ok(())
    }
    fn protection(&self, _: u64) -> Result<Protection> {
        Ok(Protection::default())
    }
    fn time(&self) -> Result<Time> {
        Err(Status::UNSUPPORTED)
    }
    fn reset(&self, how: Reset) -> ! {
        panic!("{how:?}")
    }
    fn random(&self, _: &mut [u8]) -> Result<()> {
        Err(Status::UNSUPPORTED)
    }
}

/// A core with 4 MiB of memory and a machine. It is never freed, like the real one.
pub(super) fn core() -> (&'static Core, &'static Machine) {
    const SIZE: usize = 4 << 20;
    let core: &Core = Box::leak(Box::new(Core::new()));
    let machine: &Machine = Box::leak(Box::default());
    core.hardware.with(|hardware| *hardware = Some(machine));
    // SAFETY: the layout is not empty.
    let memory = unsafe { std::alloc::alloc(Layout::from_size_align(SIZE, 1 << 16).unwrap()) };
    let start = memory.expose_provenance() as u64;
    let added =
        core.memory.with(|memory| memory.add(start..start + SIZE as u64, MemoryType::CONVENTIONAL, RAM_CAPABILITIES));
    added.unwrap();
    (core, machine)
}

fn pointer(n: usize) -> *mut c_void {
    ptr::without_provenance_mut(n)
}

mod drivers {
    use super::driver::{connect, disconnect, install_driver};
    use super::handle::{install, open, reinstall, uninstall};
    use super::*;
    use crate::device_path::DevicePath;
    use crate::handle::OpenAttributes;
    use crate::handle::driver::Driver;
    use uefi_raw::protocol::driver::{ComponentName2Protocol, DriverBindingProtocol};

    type Log = Rc<RefCell<Vec<String>>>;

    /// A driver for controllers that have `consumes`; installs `produces` on them, or on a child.
    struct Scripted {
        core: &'static Core,
        log: Log,
        name: &'static str,
        version: u32,
        consumes: Guid,
        child: Option<Guid>,
        /// Whether Stop fails.
        stays: bool,
    }

    impl Scripted {
        fn new(core: &'static Core, log: &Log, name: &'static str, version: u32) -> Self {
            Self { core, log: log.clone(), name, version, consumes: ONE, child: None, stays: false }
        }

        fn install(self) -> Handle {
            install_driver(self.core, Box::new(self)).unwrap()
        }

        fn note(&self, what: &str) {
            self.log.borrow_mut().push(format!("{} {what}", self.name));
        }
    }

    impl Driver for Scripted {
        fn name(&self) -> &str {
            self.name
        }

        fn version(&self) -> u32 {
            self.version
        }

        fn supported(&self, controller: Handle, _: Option<&DevicePath>) -> Result<()> {
            let found = self.core.handles.with(|handles| handles.interface(controller, &self.consumes));
            found.map(drop).map_err(Status::from)
        }

        fn start(&self, binding: Handle, controller: Handle, _: Option<&DevicePath>) -> Result<()> {
            open(self.core, controller, &self.consumes, binding, controller, OpenAttributes::BY_DRIVER)?;
            self.note("starts");
            if let Some(guid) = self.child {
                let child = install(self.core, None, &[(guid, pointer(7))])?;
                open(self.core, controller, &self.consumes, binding, child, OpenAttributes::BY_CHILD_CONTROLLER)?;
            }
            Ok(())
        }

        fn stop(&self, binding: Handle, controller: Handle, children: &[Handle]) -> Result<()> {
            self.note(&format!("stops {}", children.len()));
            if self.stays {
                return Err(Status::DEVICE_ERROR);
            }
            let close = |for_whom| {
                self.core.handles.with(|handles| handles.close(controller, &self.consumes, binding, for_whom))
            };
            if children.is_empty() {
                close(controller)?;
            }
            for child in children {
                close(*child)?;
                uninstall(self.core, *child, &[(self.child.unwrap(), pointer(7))])?;
            }
            Ok(())
        }

        fn controller_name(&self, _: Handle, child: Option<Handle>) -> Option<String> {
            child.is_none().then(|| "controller".into())
        }
    }

    fn log_of(log: &Log) -> Vec<String> {
        log.borrow_mut().drain(..).collect()
    }

    fn controller(core: &Core) -> Handle {
        install(core, None, &[(ONE, pointer(1))]).unwrap()
    }

    #[test]
    fn the_highest_version_gets_the_controller() {
        let (core, _) = core();
        let log = Log::default();
        Scripted::new(core, &log, "old", 1).install();
        Scripted::new(core, &log, "new", 2).install();
        connect(core, controller(core), &[], None, false).unwrap();
        assert_eq!(log_of(&log), ["new starts"]);
    }

    #[test]
    fn a_preferred_driver_is_asked_before_higher_versions() {
        let (core, _) = core();
        let log = Log::default();
        let old = Scripted::new(core, &log, "old", 1).install();
        Scripted::new(core, &log, "new", 2).install();
        connect(core, controller(core), &[old], None, false).unwrap();
        assert_eq!(log_of(&log), ["old starts"]);
    }

    #[test]
    fn nobody_wanting_it_is_not_found_unless_the_remaining_path_is_empty() {
        let (core, _) = core();
        let handle = install(core, None, &[(TWO, pointer(1))]).unwrap();
        Scripted::new(core, &Log::default(), "other", 1).install();
        assert_eq!(connect(core, handle, &[], None, true), Err(Status::NOT_FOUND));
        assert_eq!(connect(core, handle, &[], Some(DevicePath::empty()), false), Ok(()));
        assert_eq!(connect(core, pointer(0xbad0), &[], None, false), Err(Status::INVALID_PARAMETER));
    }

    #[test]
    fn recursion_connects_the_children_that_a_bus_driver_makes() {
        let (core, _) = core();
        let log = Log::default();
        let child = Some(TWO);
        Scripted { child, ..Scripted::new(core, &log, "bus", 1) }.install();
        Scripted { consumes: TWO, ..Scripted::new(core, &log, "device", 1) }.install();
        let handle = controller(core);
        connect(core, handle, &[], None, false).unwrap();
        assert_eq!(log_of(&log), ["bus starts"]);
        // The bus driver has started already; its child has not been connected.
        assert_eq!(connect(core, handle, &[], None, true), Err(Status::NOT_FOUND));
        assert_eq!(log_of(&log), ["device starts"]);
    }

    #[test]
    fn disconnecting_stops_the_children_first_and_their_drivers_before() {
        let (core, _) = core();
        let log = Log::default();
        Scripted { child: Some(TWO), ..Scripted::new(core, &log, "bus", 1) }.install();
        Scripted { consumes: TWO, ..Scripted::new(core, &log, "device", 1) }.install();
        let handle = controller(core);
        connect(core, handle, &[], None, true).unwrap();
        log_of(&log);
        let child = core.handles.with(|handles| handles.children(handle, None)).unwrap()[0];
        disconnect(core, handle, None, None).unwrap();
        assert_eq!(log_of(&log), ["bus stops 1", "device stops 0", "bus stops 0"]);
        assert!(!core.handles.with(|handles| handles.exists(child)));
        assert_eq!(disconnect(core, handle, None, None), Ok(()));
    }

    #[test]
    fn disconnecting_the_last_child_disconnects_the_controller() {
        let (core, _) = core();
        let log = Log::default();
        let bus = Scripted { child: Some(TWO), ..Scripted::new(core, &log, "bus", 1) }.install();
        let handle = controller(core);
        connect(core, handle, &[], None, true).unwrap();
        let child = core.handles.with(|handles| handles.children(handle, None)).unwrap()[0];
        assert_eq!(disconnect(core, handle, Some(bus), Some(handle)), Err(Status::NOT_FOUND));
        disconnect(core, handle, Some(bus), Some(child)).unwrap();
        assert_eq!(log_of(&log), ["bus starts", "bus stops 1", "bus stops 0"]);
    }

    #[test]
    fn a_handle_that_is_no_driver_cannot_be_disconnected() {
        let (core, _) = core();
        let handle = controller(core);
        assert_eq!(disconnect(core, handle, Some(handle), None), Err(Status::INVALID_PARAMETER));
        assert_eq!(disconnect(core, handle, None, Some(pointer(0xbad0))), Err(Status::INVALID_PARAMETER));
    }

    #[test]
    fn an_exclusive_open_disconnects_the_driver() {
        let (core, _) = core();
        let log = Log::default();
        Scripted::new(core, &log, "driver", 1).install();
        let handle = controller(core);
        connect(core, handle, &[], None, false).unwrap();
        let agent = install(core, None, &[(TWO, pointer(1))]).unwrap();
        open(core, handle, &ONE, agent, ptr::null_mut(), OpenAttributes::EXCLUSIVE).unwrap();
        assert_eq!(log_of(&log), ["driver starts", "driver stops 0"]);
        assert_eq!(connect(core, handle, &[], None, false), Err(Status::NOT_FOUND));
    }

    #[test]
    fn a_driver_that_stays_keeps_its_protocol() {
        let (core, _) = core();
        let log = Log::default();
        Scripted { stays: true, ..Scripted::new(core, &log, "driver", 1) }.install();
        let handle = controller(core);
        connect(core, handle, &[], None, false).unwrap();
        let agent = install(core, None, &[(TWO, pointer(1))]).unwrap();
        let exclusive = open(core, handle, &ONE, agent, ptr::null_mut(), OpenAttributes::EXCLUSIVE);
        assert_eq!(exclusive, Err(Status::ACCESS_DENIED));
        assert_eq!(uninstall(core, handle, &[(ONE, pointer(1))]), Err(Status::ACCESS_DENIED));
        assert_eq!(core.handles.with(|handles| handles.interface(handle, &ONE)), Ok(pointer(1)));
    }

    #[test]
    fn a_refused_uninstall_connects_the_drivers_again() {
        let (core, _) = core();
        let log = Log::default();
        Scripted::new(core, &log, "driver", 1).install();
        let handle = controller(core);
        connect(core, handle, &[], None, false).unwrap();
        let agent = install(core, None, &[(TWO, pointer(1))]).unwrap();
        open(core, handle, &ONE, agent, agent, OpenAttributes::BY_CHILD_CONTROLLER).unwrap();
        assert_eq!(uninstall(core, handle, &[(ONE, pointer(1))]), Err(Status::ACCESS_DENIED));
        assert_eq!(log_of(&log), ["driver starts", "driver stops 0", "driver starts"]);
    }

    #[test]
    fn reinstalling_moves_the_driver_to_the_new_interface() {
        let (core, _) = core();
        let log = Log::default();
        Scripted::new(core, &log, "driver", 1).install();
        let handle = controller(core);
        connect(core, handle, &[], None, false).unwrap();
        reinstall(core, handle, &ONE, pointer(1), pointer(2)).unwrap();
        assert_eq!(log_of(&log), ["driver starts", "driver stops 0", "driver starts"]);
        assert_eq!(reinstall(core, handle, &ONE, pointer(1), pointer(3)), Err(Status::NOT_FOUND));
    }

    #[test]
    fn a_tree_that_bites_its_tail_is_walked_once() {
        let (core, _) = core();
        let (a, b) = (controller(core), controller(core));
        for (parent, child) in [(a, b), (b, a)] {
            open(core, parent, &ONE, a, child, OpenAttributes::BY_CHILD_CONTROLLER).unwrap();
        }
        assert_eq!(connect(core, a, &[], None, true), Err(Status::NOT_FOUND));
    }

    #[test]
    fn a_driver_has_names_in_english() {
        let (core, _) = core();
        let handle = Scripted::new(core, &Log::default(), "driver", 1).install();
        let interface = |guid| core.handles.with(|handles| handles.interface(handle, guid)).unwrap();
        let binding: *mut DriverBindingProtocol = interface(&DriverBindingProtocol::GUID).cast();
        let names: *mut ComponentName2Protocol = interface(&ComponentName2Protocol::GUID).cast();
        let mut name = ptr::null();
        // SAFETY: both were installed by `install_driver`, and the strings end with null.
        unsafe {
            assert_eq!((*binding).driver_binding_handle, handle);
            assert_eq!(((*names).get_driver_name)(names, c"en-US".as_ptr().cast(), &raw mut name), Status::SUCCESS);
            assert_eq!(core::slice::from_raw_parts(name, 7), "driver\0".encode_utf16().collect::<Vec<_>>());
            let german = ((*names).get_driver_name)(names, c"de".as_ptr().cast(), &raw mut name);
            assert_eq!(german, Status::UNSUPPORTED);
            assert_eq!(((*names).get_driver_name)(names, ptr::null(), &raw mut name), Status::INVALID_PARAMETER);
        }
    }
}

mod variadic_services {
    use super::*;

    type InstallTwo = unsafe extern "efiapi" fn(
        *mut Handle,
        *const Guid,
        *mut c_void,
        *const Guid,
        *mut c_void,
        *const c_void,
    ) -> Status;
    type UninstallTwo =
        unsafe extern "efiapi" fn(Handle, *const Guid, *mut c_void, *const Guid, *mut c_void, *const c_void) -> Status;

    #[test]
    fn arguments_in_registers_and_on_the_stack_arrive() {
        let own = [guid!("f0000000-0000-0000-0000-000000000001"), guid!("f0000000-0000-0000-0000-000000000002")];
        // SAFETY: the types are those of calls with this many arguments.
        let (install, uninstall) = unsafe {
            (
                core::mem::transmute::<variadic::Install, InstallTwo>(variadic::install_multiple_protocol_interfaces()),
                core::mem::transmute::<variadic::Uninstall, UninstallTwo>(
                    variadic::uninstall_multiple_protocol_interfaces(),
                ),
            )
        };
        let mut handle = ptr::null_mut();
        // SAFETY: pairs and a null, as the services want it.
        let installed = unsafe { install(&raw mut handle, &own[0], pointer(1), &own[1], pointer(2), ptr::null()) };
        assert_eq!(installed, Status::SUCCESS);
        let interface = |n: usize| CORE.handles.with(|handles| handles.interface(handle, &own[n]));
        assert_eq!((interface(0), interface(1)), (Ok(pointer(1)), Ok(pointer(2))));
        // SAFETY: as above.
        let wrong = unsafe { uninstall(handle, &own[0], pointer(1), &own[1], pointer(3), ptr::null()) };
        assert_eq!(wrong, Status::INVALID_PARAMETER);
        assert!(interface(0).is_ok());
        // SAFETY: as above.
        let gone = unsafe { uninstall(handle, &own[0], pointer(1), &own[1], pointer(2), ptr::null()) };
        assert_eq!(gone, Status::SUCCESS);
        assert!(!CORE.handles.with(|handles| handles.exists(handle)));
    }

    #[test]
    fn a_device_path_can_be_installed_once() {
        let (core, _) = core();
        let path = crate::device_path::DevicePath::empty();
        let entry = (uefi_raw::protocol::device_path::DevicePathProtocol::GUID, path.as_ptr().cast_mut().cast());
        handle::install_unique(core, None, &[entry]).unwrap();
        assert_eq!(handle::install_unique(core, None, &[(ONE, pointer(1)), entry]), Err(Status::ALREADY_STARTED));
        assert!(core.handles.with(|handles| handles.instances(&ONE).is_empty()));
        let nothing = (entry.0, ptr::null_mut());
        assert_eq!(handle::install_unique(core, None, &[nothing]), Err(Status::INVALID_PARAMETER));
    }
}

mod images {
    use super::image::{exit_in, load, set_load_options, start, unload};
    use super::*;
    use crate::handle::OpenAttributes;
    use crate::image::LoadError;
    use crate::image::pe::tests::{File, block};
    use object::pe;
    use uefi_raw::protocol::file_system::{
        FileAttribute, FileInfo, FileMode, FileProtocolRevision, FileProtocolV1, SimpleFileSystemProtocol,
    };
    use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
    use uefi_raw::protocol::media::{LoadFile2Protocol, LoadFileProtocol};
    use uefi_raw::table::boot::Tpl;
    use uefi_raw::table::system::SystemTable;
    use uefi_raw::{Boolean, protocol::device_path::DevicePathProtocol};

    type Entry = unsafe extern "efiapi" fn(Handle, *mut SystemTable) -> Status;

    fn started() -> (&'static Core, &'static Machine) {
        let (core, machine) = core();
        table::build(core).unwrap();
        (core, machine)
    }

    /// Loads an image and has it run `entry` in place of its code.
    fn load_with(core: &Core, subsystem: u16, entry: Entry) -> Handle {
        let file = File { subsystem, ..File::new() }.bytes();
        let parent = core.images.with(|images| images.firmware());
        let handle = load(core, false, parent, None, Some(&file)).unwrap();
        core.images.with(|images| images.get_mut(handle).unwrap().entry = entry as usize as u64);
        handle
    }

    fn protocol(core: &Core, handle: Handle) -> *mut LoadedImageProtocol {
        core.handles.with(|handles| handles.interface(handle, &LoadedImageProtocol::GUID)).unwrap().cast()
    }

    unsafe extern "efiapi" fn succeeds(_: Handle, _: *mut SystemTable) -> Status {
        Status::SUCCESS
    }

    unsafe extern "efiapi" fn fails(_: Handle, _: *mut SystemTable) -> Status {
        Status::NOT_READY
    }

    /// The core of the test that runs on this thread, for entry points.
    fn current(set: Option<&'static Core>) -> &'static Core {
        std::thread_local!(static CURRENT: RefCell<Option<&'static Core>> = const { RefCell::new(None) });
        CURRENT.with(|current| {
            if set.is_some() {
                *current.borrow_mut() = set;
            }
            current.borrow().unwrap()
        })
    }

    #[test]
    fn a_loaded_image_is_described_by_its_protocol_and_goes_without_a_trace() {
        let (core, machine) = started();
        let before = core.handles.with(|handles| handles.all().len());
        let free = |core: &Core| core.memory.with(|memory| memory.inventory());
        let free_before = format!("{:?}", free(core));
        let handle = load_with(core, pe::IMAGE_SUBSYSTEM_EFI_APPLICATION, succeeds);
        // SAFETY: just loaded.
        let loaded = unsafe { &*protocol(core, handle) };
        assert_eq!(loaded.revision, 0x1000);
        assert_eq!(loaded.parent_handle, core.images.with(|images| images.firmware()));
        assert_eq!(
            (loaded.image_code_type, loaded.image_data_type),
            (MemoryType::LOADER_CODE, MemoryType::LOADER_DATA)
        );
        assert_eq!(loaded.image_size, 0x5000);
        // SAFETY: as long as the image.
        let bytes = unsafe { core::slice::from_raw_parts(loaded.image_base.cast::<u8>(), 0x5000) };
        assert_eq!((&bytes[..2], bytes[0x1000], bytes[0x2000]), (&b"MZ"[..], 0x90, 0xdd));
        let base = loaded.image_base.addr() as u64;
        let code = Protection { read_protect: false, read_only: true, execute_protect: false };
        assert!(machine.protections.lock().unwrap().contains(&(base + 0x1000, 1, code)));
        unload(core, handle).unwrap();
        assert_eq!(core.handles.with(|handles| handles.all().len()), before);
        assert_eq!(format!("{:?}", free(core)), free_before);
    }

    #[test]
    fn a_file_that_is_no_program_leaves_nothing_behind() {
        let (core, _) = started();
        let parent = core.images.with(|images| images.firmware());
        let before = core.handles.with(|handles| handles.all().len());
        let relocated = File::with_relocations(&block(0x2000, &[(5, 0)])).bytes();
        for file in [&b"no program"[..], &relocated] {
            assert!(matches!(load(core, false, parent, None, Some(file)), Err(LoadError::Pe(_))));
        }
        assert_eq!(load(core, false, parent, None, None), Err(LoadError::NotFound));
        let orphan = load(core, false, pointer(0xbad0), None, Some(&relocated));
        assert_eq!(orphan, Err(LoadError::Service(Status::INVALID_PARAMETER)));
        assert_eq!(core.handles.with(|handles| handles.all().len()), before);
    }

    #[test]
    fn applications_and_failing_drivers_are_unloaded_at_their_end() {
        let (core, _) = started();
        let cases: [(u16, Entry, Status, bool); 4] = [
            (pe::IMAGE_SUBSYSTEM_EFI_APPLICATION, succeeds, Status::SUCCESS, false),
            (pe::IMAGE_SUBSYSTEM_EFI_APPLICATION, fails, Status::NOT_READY, false),
            (pe::IMAGE_SUBSYSTEM_EFI_BOOT_SERVICE_DRIVER, succeeds, Status::SUCCESS, true),
            (pe::IMAGE_SUBSYSTEM_EFI_BOOT_SERVICE_DRIVER, fails, Status::NOT_READY, false),
        ];
        for (subsystem, entry, status, stays) in cases {
            let handle = load_with(core, subsystem, entry);
            assert_eq!(start(core, handle).unwrap().status, status);
            assert_eq!(core.handles.with(|handles| handles.exists(handle)), stays);
        }
    }

    #[test]
    fn an_image_starts_once() {
        let (core, _) = started();
        let handle = load_with(core, pe::IMAGE_SUBSYSTEM_EFI_BOOT_SERVICE_DRIVER, succeeds);
        start(core, handle).unwrap();
        assert_eq!(start(core, handle).unwrap_err(), Status::INVALID_PARAMETER);
        assert_eq!(start(core, pointer(0xbad0)).unwrap_err(), Status::INVALID_PARAMETER);
    }

    unsafe extern "efiapi" fn exits_with_data(image: Handle, _: *mut SystemTable) -> Status {
        let core = current(None);
        crate::api::event::raise_in(core, Tpl::NOTIFY);
        let data = *b"b\0y\0e\0\0\0";
        deep(core, image, &data, 10)
    }

    #[inline(never)]
    fn deep(core: &Core, image: Handle, data: &[u8], depth: usize) -> Status {
        if depth > 0 {
            return core::hint::black_box(deep(core, image, data, depth - 1));
        }
        // SAFETY: nothing to drop up to the entry point.
        unsafe { exit_in(core, image, Status::ABORTED, data.len(), data.as_ptr()) }
    }

    #[test]
    fn exit_returns_from_any_depth_with_data_and_the_task_priority_of_before() {
        let (core, _) = started();
        current(Some(core));
        let handle = load_with(core, pe::IMAGE_SUBSYSTEM_EFI_APPLICATION, exits_with_data);
        let exit = start(core, handle).unwrap();
        assert_eq!(exit.status, Status::ABORTED);
        assert_eq!(exit.data.as_deref(), Some(&b"b\0y\0e\0\0\0"[..]));
        assert_eq!(core.events.with(|events| events.level()), Tpl::APPLICATION);
    }

    unsafe extern "efiapi" fn starts_another(image: Handle, _: *mut SystemTable) -> Status {
        let core = current(None);
        // What runs cannot be unloaded, nor can another image be left.
        assert_eq!(unload(core, image), Err(Status::UNSUPPORTED));
        let inner = load_with(core, pe::IMAGE_SUBSYSTEM_EFI_APPLICATION, leaves_the_outer);
        assert_eq!(start(core, inner).unwrap().status, Status::INVALID_PARAMETER);
        Status::TIMEOUT
    }

    unsafe extern "efiapi" fn leaves_the_outer(image: Handle, _: *mut SystemTable) -> Status {
        let core = current(None);
        let outer = core.images.with(|images| images.iter().find(|i| i.started && i.handle != image).unwrap().handle);
        // SAFETY: it fails.
        unsafe { exit_in(core, outer, Status::SUCCESS, 0, ptr::null()) }
    }

    #[test]
    fn only_the_innermost_image_can_exit() {
        let (core, _) = started();
        current(Some(core));
        let handle = load_with(core, pe::IMAGE_SUBSYSTEM_EFI_APPLICATION, starts_another);
        assert_eq!(start(core, handle).unwrap().status, Status::TIMEOUT);
        assert_eq!(core.images.with(|images| images.current()), None);
    }

    #[test]
    fn exit_of_an_image_that_has_not_started_unloads_it() {
        let (core, _) = started();
        let handle = load_with(core, pe::IMAGE_SUBSYSTEM_EFI_APPLICATION, succeeds);
        // SAFETY: no data.
        assert_eq!(unsafe { exit_in(core, handle, Status::SUCCESS, 0, ptr::null()) }, Status::SUCCESS);
        assert!(!core.handles.with(|handles| handles.exists(handle)));
    }

    unsafe extern "efiapi" fn agrees(_: Handle) -> Status {
        Status::SUCCESS
    }

    unsafe extern "efiapi" fn refuses(_: Handle) -> Status {
        Status::ACCESS_DENIED
    }

    #[test]
    fn a_started_driver_is_unloaded_only_by_its_own_function() {
        let (core, _) = started();
        let handle = load_with(core, pe::IMAGE_SUBSYSTEM_EFI_BOOT_SERVICE_DRIVER, succeeds);
        start(core, handle).unwrap();
        assert_eq!(unload(core, handle), Err(Status::UNSUPPORTED));
        // SAFETY: the image is loaded.
        unsafe { (*protocol(core, handle)).unload = Some(refuses) };
        assert_eq!(unload(core, handle), Err(Status::ACCESS_DENIED));
        // SAFETY: as above.
        unsafe { (*protocol(core, handle)).unload = Some(agrees) };
        assert_eq!(unload(core, handle), Ok(()));
        assert_eq!(unload(core, handle), Err(Status::INVALID_PARAMETER));
    }

    #[test]
    fn what_an_image_has_open_is_closed_at_its_end() {
        let (core, _) = started();
        let other = handle::install(core, None, &[(ONE, pointer(1))]).unwrap();
        let image = load_with(core, pe::IMAGE_SUBSYSTEM_EFI_APPLICATION, succeeds);
        handle::open(core, other, &ONE, image, ptr::null_mut(), OpenAttributes::EXCLUSIVE).unwrap();
        start(core, image).unwrap();
        assert_eq!(handle::uninstall(core, other, &[(ONE, pointer(1))]), Ok(()));
    }

    #[test]
    fn load_options_are_a_copy() {
        let (core, _) = started();
        let handle = load_with(core, pe::IMAGE_SUBSYSTEM_EFI_APPLICATION, succeeds);
        set_load_options(core, handle, b"first").unwrap();
        set_load_options(core, handle, b"quiet\0").unwrap();
        // SAFETY: loaded, and the options are as long as they say.
        let options = unsafe {
            let loaded = &*protocol(core, handle);
            core::slice::from_raw_parts(loaded.load_options.cast::<u8>(), loaded.load_options_size as usize)
        };
        assert_eq!(options, b"quiet\0");
    }

    unsafe extern "efiapi" fn gives_file(
        policy: Boolean,
        size: *mut usize,
        buffer: *mut c_void,
        wanted: Boolean,
    ) -> Status {
        let file = File::new().bytes();
        if policy != wanted {
            return Status::UNSUPPORTED;
        }
        // SAFETY: the loader's pointers.
        unsafe {
            if size.replace(file.len()) < file.len() {
                return Status::BUFFER_TOO_SMALL;
            }
            buffer.cast::<u8>().copy_from_nonoverlapping(file.as_ptr(), file.len());
        }
        Status::SUCCESS
    }

    unsafe extern "efiapi" fn load_file_2(
        _: *mut LoadFile2Protocol,
        _: *const DevicePathProtocol,
        policy: Boolean,
        size: *mut usize,
        buffer: *mut c_void,
    ) -> Status {
        // SAFETY: handed on.
        unsafe { gives_file(policy, size, buffer, Boolean::FALSE) }
    }

    unsafe extern "efiapi" fn load_file(
        _: *mut LoadFileProtocol,
        _: *const DevicePathProtocol,
        policy: Boolean,
        size: *mut usize,
        buffer: *mut c_void,
    ) -> Status {
        // SAFETY: handed on.
        unsafe { gives_file(policy, size, buffer, Boolean::TRUE) }
    }

    static LOAD_FILE_2: LoadFile2Protocol = LoadFile2Protocol { load_file: load_file_2 };
    static LOAD_FILE: LoadFileProtocol = LoadFileProtocol { load_file };

    #[test]
    fn a_boot_selection_comes_from_load_file_and_anything_else_from_load_file_2() {
        let (core, _) = started();
        let path = crate::device_path::DevicePath::empty();
        let parent = core.images.with(|images| images.firmware());
        let device = [
            (DevicePathProtocol::GUID, path.as_ptr().cast_mut().cast()),
            (LoadFile2Protocol::GUID, ptr::from_ref(&LOAD_FILE_2).cast_mut().cast()),
        ];
        let device = handle::install(core, None, &device).unwrap();
        let image = load(core, false, parent, Some(path), None).unwrap();
        // SAFETY: just loaded.
        assert_eq!(unsafe { (*protocol(core, image)).device_handle }, device);
        assert_eq!(load(core, true, parent, Some(path), None), Err(LoadError::NotFound));
        let load_file = (LoadFileProtocol::GUID, ptr::from_ref(&LOAD_FILE).cast_mut().cast());
        handle::install(core, Some(device), &[load_file]).unwrap();
        assert!(load(core, true, parent, Some(path), None).is_ok());
    }

    /// A volume on which every directory holds the directory "dir" and the file "file", read in pieces.
    #[repr(C)]
    struct Volume {
        protocol: SimpleFileSystemProtocol,
        open_files: std::cell::Cell<usize>,
        data: Vec<u8>,
    }

    #[repr(C)]
    struct OpenFile {
        protocol: FileProtocolV1,
        volume: *const Volume,
        directory: bool,
        position: usize,
    }

    impl Volume {
        fn install(core: &Core, path: &crate::device_path::DevicePath, data: Vec<u8>) -> (Handle, *const Self) {
            let protocol = SimpleFileSystemProtocol { revision: 0x1_0000, open_volume };
            let volume = Box::into_raw(Box::new(Self { protocol, open_files: 0.into(), data }));
            let interfaces = [
                (DevicePathProtocol::GUID, path.as_ptr().cast_mut().cast()),
                (SimpleFileSystemProtocol::GUID, volume.cast::<c_void>()),
            ];
            (handle::install(core, None, &interfaces).unwrap(), volume)
        }

        fn open(this: *const Self, directory: bool) -> *mut FileProtocolV1 {
            // SAFETY: the tests' volumes are never freed.
            let open = unsafe { &(*this).open_files };
            open.set(open.get() + 1);
            let protocol = FileProtocolV1 {
                revision: FileProtocolRevision::REVISION_1,
                open: open_file,
                close,
                delete: close,
                read,
                write,
                get_position,
                set_position,
                get_info,
                set_info,
                flush: close,
            };
            Box::into_raw(Box::new(OpenFile { protocol, volume: this, directory, position: 0 })).cast()
        }
    }

    unsafe extern "efiapi" fn open_volume(
        this: *mut SimpleFileSystemProtocol,
        root: *mut *mut FileProtocolV1,
    ) -> Status {
        // SAFETY: a place for it.
        unsafe { root.write(Volume::open(this.cast(), true)) };
        Status::SUCCESS
    }

    unsafe extern "efiapi" fn open_file(
        this: *mut FileProtocolV1,
        file: *mut *mut FileProtocolV1,
        name: *const u16,
        _: FileMode,
        _: FileAttribute,
    ) -> Status {
        // SAFETY: an open file of this volume, and a name that ends with null.
        let (volume, name) = unsafe {
            let units: Vec<u16> = (0..).map(|n| name.add(n).read()).take_while(|unit| *unit != 0).collect();
            ((*this.cast::<OpenFile>()).volume, String::from_utf16(&units).unwrap())
        };
        let directory = match name.as_str() {
            "dir" => true,
            "file" => false,
            _ => return Status::NOT_FOUND,
        };
        // SAFETY: a place for it.
        unsafe { file.write(Volume::open(volume, directory)) };
        Status::SUCCESS
    }

    unsafe extern "efiapi" fn close(this: *mut FileProtocolV1) -> Status {
        // SAFETY: opened by `open`.
        let file = unsafe { Box::from_raw(this.cast::<OpenFile>()) };
        // SAFETY: never freed.
        let open = unsafe { &(*file.volume).open_files };
        open.set(open.get() - 1);
        Status::SUCCESS
    }

    unsafe extern "efiapi" fn read(this: *mut FileProtocolV1, size: *mut usize, buffer: *mut c_void) -> Status {
        // SAFETY: an open file, and a buffer of this size.
        unsafe {
            let file = &mut *this.cast::<OpenFile>();
            let rest = &(&(*file.volume).data)[file.position..];
            let count = rest.len().min(*size).min(700);
            buffer.cast::<u8>().copy_from_nonoverlapping(rest.as_ptr(), count);
            file.position += count;
            *size = count;
        }
        Status::SUCCESS
    }

    unsafe extern "efiapi" fn get_info(
        this: *mut FileProtocolV1,
        kind: *const Guid,
        size: *mut usize,
        buffer: *mut c_void,
    ) -> Status {
        // SAFETY: an open file, and a buffer of this size.
        unsafe {
            assert_eq!(*kind, FileInfo::ID);
            // Longer than anybody expects at first.
            if size.replace(3000) < 3000 {
                return Status::BUFFER_TOO_SMALL;
            }
            let file = &*this.cast::<OpenFile>();
            let info = buffer.cast::<FileInfo>();
            (*info).file_size = (*file.volume).data.len() as u64;
            (*info).attribute = if file.directory { FileAttribute::DIRECTORY } else { FileAttribute::empty() };
        }
        Status::SUCCESS
    }

    unsafe extern "efiapi" fn write(_: *mut FileProtocolV1, _: *mut usize, _: *const c_void) -> Status {
        Status::UNSUPPORTED
    }

    unsafe extern "efiapi" fn get_position(_: *const FileProtocolV1, _: *mut u64) -> Status {
        Status::UNSUPPORTED
    }

    unsafe extern "efiapi" fn set_position(_: *mut FileProtocolV1, _: u64) -> Status {
        Status::UNSUPPORTED
    }

    unsafe extern "efiapi" fn set_info(_: *mut FileProtocolV1, _: *const Guid, _: usize, _: *const c_void) -> Status {
        Status::UNSUPPORTED
    }

    #[test]
    fn a_file_is_read_through_its_file_system_and_all_is_closed() {
        let (core, _) = started();
        let device = crate::device_path::DevicePathBuf::parse_text("PciRoot(0x0)").unwrap();
        let device: &'static _ = Box::leak(Box::new(device));
        let (handle, volume) = Volume::install(core, device, File::new().bytes());
        let parent = core.images.with(|images| images.firmware());
        let load = |text: &str| {
            let path = crate::device_path::DevicePathBuf::parse_text(text).unwrap();
            load(core, false, parent, Some(&path), None)
        };
        let image = load("PciRoot(0x0)/dir/file").unwrap();
        // SAFETY: just loaded.
        let (from, rest) = unsafe {
            let loaded = &*protocol(core, image);
            (loaded.device_handle, crate::device_path::DevicePath::from_ptr(loaded.file_path).unwrap())
        };
        assert_eq!((from, rest.to_text().as_str()), (handle, "dir/file"));
        assert_eq!(load("PciRoot(0x0)/dir"), Err(LoadError::Directory));
        assert_eq!(load("PciRoot(0x0)/dir/other"), Err(LoadError::NotFound));
        assert_eq!(load("PciRoot(0x0)"), Err(LoadError::NotFound));
        // SAFETY: never freed.
        assert_eq!(unsafe { (*volume).open_files.get() }, 0);
    }

    #[test]
    fn runtime_images_are_known_to_the_runtime_driver() {
        use handoff::{Clock, Handoff, HypercallInstruction};
        let (core, _) = started();
        let handoff =
            Box::into_raw(Box::new(Handoff::new(HypercallInstruction::None, Clock::default(), ptr::null_mut(), 0)));
        handle::install(core, None, &[(handoff::PROTOCOL_GUID, handoff.cast())]).unwrap();
        let mut file = File::with_relocations(&block(0x2000, &[(10, 8), (10, 0x10)]));
        file.subsystem = pe::IMAGE_SUBSYSTEM_EFI_RUNTIME_DRIVER;
        let parent = core.images.with(|images| images.firmware());
        let image = load(core, false, parent, None, Some(&file.bytes())).unwrap();
        // SAFETY: the test's own.
        let images = unsafe { (*handoff).images() };
        assert_eq!((images.len(), images[0].size, images[0].fixup_count), (1, 0x5000, 2));
        // SAFETY: as many as it says.
        let fixups = unsafe { core::slice::from_raw_parts(images[0].fixups, 2) };
        let delta = (images[0].base.addr() as u64).wrapping_sub(0x10_0000);
        assert_eq!((fixups[1].rva, fixups[1].value), (0x2010, 0xdddd_dddd_dddd_dddd_u64.wrapping_add(delta)));
        unload(core, image).unwrap();
        // SAFETY: as above.
        assert!(unsafe { (*handoff).images() }.is_empty());
    }
}

mod tables {
    use super::table::{at_exit_boot_services, build, edit_system_table, exit_in, set_configuration};
    use super::*;
    use crate::api::event::create_in;
    use crate::event::{Notify, group};
    use crate::image::pe::tests::File;
    use crate::memory::map::DESCRIPTOR_SIZE;
    use crate::table::{attributes, crc32};
    use object::pe;
    use uefi_raw::table::Header;
    use uefi_raw::table::boot::{EventType, MemoryAttribute, MemoryDescriptor, Tpl};

    fn crc_is_right(header: *mut Header) -> bool {
        // SAFETY: a table that `build` made.
        unsafe {
            let size = (*header).size as usize;
            let mut copy = core::slice::from_raw_parts(header.cast::<u8>(), size).to_vec();
            copy[core::mem::offset_of!(Header, crc)..][..4].fill(0);
            crc32(&copy) == (*header).crc
        }
    }

    #[test]
    fn all_tables_have_signature_version_and_checksum() {
        let (core, _) = core();
        let system = build(core).unwrap();
        // SAFETY: just built.
        let (boot, runtime, vendor) = unsafe {
            (
                (*system).boot_services,
                (*system).runtime_services,
                core::slice::from_raw_parts((*system).firmware_vendor, 9),
            )
        };
        assert_eq!(String::from_utf16(vendor).unwrap(), "ovmf-xen\0");
        for (header, signature) in
            [(system.cast::<Header>(), b"IBI SYST"), (boot.cast(), b"BOOTSERV"), (runtime.cast(), b"RUNTSERV")]
        {
            // SAFETY: as above.
            let found = unsafe { *header };
            assert_eq!(found.signature.to_le_bytes(), *signature);
            assert_eq!((found.revision.major(), found.revision.minor()), (2, 100));
            assert!(crc_is_right(header));
        }
        edit_system_table(core, |system| system.stdin_handle = pointer(0x10));
        assert!(crc_is_right(system.cast()));
    }

    #[test]
    fn configuration_tables_survive_the_growth_of_their_array() {
        let (core, _) = core();
        let system = build(core).unwrap();
        // SAFETY: just built.
        let before = unsafe { (*system).number_of_configuration_table_entries };
        for n in 1..=40_u8 {
            set_configuration(core, &Guid::from_bytes([n; 16]), pointer(n.into())).unwrap();
        }
        set_configuration(core, &Guid::from_bytes([5; 16]), ptr::null_mut()).unwrap();
        // SAFETY: as many as it says.
        let list = unsafe {
            let count = (*system).number_of_configuration_table_entries;
            core::slice::from_raw_parts((*system).configuration_table, count)
        };
        assert_eq!(list.len(), before + 39);
        let own: Vec<_> = list[before..].iter().map(|entry| entry.vendor_table.addr()).collect();
        assert_eq!(own, (1..=40).filter(|n| *n != 5).collect::<Vec<_>>());
        assert!(crc_is_right(system.cast()));
        let unknown = set_configuration(core, &Guid::from_bytes([99; 16]), ptr::null_mut());
        assert_eq!(unknown, Err(Status::NOT_FOUND));
    }

    #[test]
    fn installing_a_configuration_table_signals_its_group() {
        let (core, _) = core();
        build(core).unwrap();
        let told = Rc::new(RefCell::new(0));
        listen(core, &ONE, &told, |told| *told.borrow_mut() += 1);
        set_configuration(core, &ONE, pointer(1)).unwrap();
        assert_eq!(*told.borrow(), 1);
    }

    fn listen<T: 'static>(core: &Core, group: &Guid, state: &Rc<T>, notify: impl Fn(&T) + 'static) {
        let state = state.clone();
        let closure = Notify::Closure(Box::new(move |_| notify(&state)));
        create_in(core, EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, closure, Some(*group)).unwrap();
    }

    #[test]
    fn exit_boot_services_with_a_stale_key_can_be_tried_again() {
        let (core, _) = core();
        let system = build(core).unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        listen(core, &group::BEFORE_EXIT_BOOT_SERVICES, &order, |order| order.borrow_mut().push("before"));
        listen(core, &group::EXIT_BOOT_SERVICES, &order, |order| order.borrow_mut().push("exit"));
        for name in ["first", "second"] {
            let order = order.clone();
            at_exit_boot_services(core, Box::new(move || order.borrow_mut().push(name)));
        }
        let holders = Rc::strong_count(&order);
        edit_system_table(core, |system| system.stdout_handle = pointer(0x10));
        let key = core.memory.with(|memory| memory.key());
        assert_eq!(exit_in(core, key.wrapping_add(1)), Status::INVALID_PARAMETER);
        assert_eq!(*order.borrow(), ["before"]);
        // SAFETY: built above.
        assert!(unsafe { !(*system).boot_services.is_null() });
        assert_eq!(exit_in(core, key), Status::SUCCESS);
        assert_eq!(*order.borrow(), ["before", "exit", "first", "second"]);
        assert_eq!(Rc::strong_count(&order), holders, "something was freed");
        // SAFETY: as above.
        let after = unsafe { &*system };
        assert!(after.boot_services.is_null() && after.stdout_handle.is_null());
        assert!(crc_is_right(system.cast()) && crc_is_right(after.runtime_services.cast()));
    }

    #[test]
    fn runtime_images_are_in_the_memory_attributes_table_and_writable_again() {
        let (core, machine) = core();
        build(core).unwrap();
        let subsystem = pe::IMAGE_SUBSYSTEM_EFI_RUNTIME_DRIVER;
        let file = File { subsystem, ..File::new() }.bytes();
        let parent = core.images.with(|images| images.firmware());
        let image = image::load(core, false, parent, None, Some(&file)).unwrap();
        let base = core.images.with(|images| images.get(image).unwrap().base);
        let key = core.memory.with(|memory| memory.key());
        assert_eq!(exit_in(core, key), Status::SUCCESS);
        assert_eq!(core.memory.with(|memory| memory.key()), key, "the map changed");

        let table = core.tables.with(|tables| tables.find_configuration(&attributes::GUID)).unwrap();
        // SAFETY: the table is as long as it says.
        let entries: Vec<MemoryDescriptor> = unsafe {
            let header = table.cast::<attributes::Header>().read();
            assert_eq!((header.version, header.descriptor_size as usize), (1, DESCRIPTOR_SIZE));
            let first = table.byte_add(size_of::<attributes::Header>());
            (0..header.number_of_entries as usize)
                .map(|n| first.byte_add(n * DESCRIPTOR_SIZE).cast::<MemoryDescriptor>().read_unaligned())
                .collect()
        };
        let code: Vec<_> = entries.iter().filter(|entry| entry.ty == MemoryType::RUNTIME_SERVICES_CODE).collect();
        let pieces: Vec<_> = code
            .iter()
            .map(|e| ((e.phys_start - base) >> 12, e.page_count, e.att.contains(MemoryAttribute::READ_ONLY)))
            .collect();
        assert_eq!(pieces, [(0, 1, false), (1, 1, true), (2, 2, false), (4, 1, false)]);
        assert!(entries.iter().any(|entry| entry.ty == MemoryType::RUNTIME_SERVICES_DATA));
        let protections = machine.protections.lock().unwrap();
        let last: Vec<_> =
            protections.iter().rev().take(4).map(|(at, pages, p)| ((at - base) >> 12, *pages, *p)).collect();
        let ordinary = Protection::default();
        assert_eq!(last, [(4, 1, ordinary), (2, 2, ordinary), (1, 1, ordinary), (0, 1, ordinary)]);
    }
}
