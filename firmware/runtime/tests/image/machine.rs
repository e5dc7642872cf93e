//! A core around the driver: loads the image, makes the tables, and offers the boot services that the driver uses.

use std::cell::Cell;
use std::ffi::c_void;
use std::mem::transmute;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, ptr};

use handoff::relocation::{self, Fixup};
use handoff::{Clock, Handoff, HypercallInstruction, PROTOCOL_GUID, RuntimeImage, VARIABLE_REGION_SIZE};
use object::LittleEndian as LE;
use object::pe::{IMAGE_DIRECTORY_ENTRY_BASERELOC, ImageNtHeaders64};
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader, PeFile};
use uefi_raw::table::Header;
use uefi_raw::table::boot::{BootServices, InterfaceType, Tpl};
use uefi_raw::table::configuration::ConfigurationTable;
use uefi_raw::table::runtime::RuntimeServices;
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Guid, Handle, Status};

use super::VENDOR;
use super::memory::Memory;

type EntryPoint = unsafe extern "efiapi" fn(Handle, *mut SystemTable) -> Status;

thread_local! {
    static HANDOFF: Cell<*mut Handoff> = const { Cell::new(ptr::null_mut()) };
    static TPL_CALLS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// A started driver.
pub struct Machine {
    image: Memory,
    data: Memory,
    contents: *mut Contents,
    boot_services: Box<[u64; size_of::<BootServices>() / 8]>,
    _fixups: Vec<Fixup>,
}

/// What the core keeps in EfiRuntimeServicesData.
#[repr(C)]
struct Contents {
    handoff: Handoff,
    system_table: SystemTable,
    runtime_services: [u64; size_of::<RuntimeServices>() / 8],
    configuration: ConfigurationTable,
    vendor: [u16; 4],
    region: [u64; VARIABLE_REGION_SIZE / 8],
}

impl Machine {
    pub fn start() -> Self {
        let path = env::var("RUNTIME_IMAGE").expect("RUNTIME_IMAGE names the image");
        let file = fs::read(path).expect("the image can be read");
        let data = Memory::new(size_of::<Contents>());
        let contents = data.physical.cast::<Contents>();
        let mut boot_services = Box::new([0; size_of::<BootServices>() / 8]);
        // SAFETY: fresh memory of the right size; only the functions that the driver calls are filled in.
        unsafe {
            let boot_services = boot_services.as_mut_ptr().cast::<BootServices>();
            (&raw mut (*boot_services).header.size).write(size_of::<BootServices>() as u32);
            (&raw mut (*boot_services).raise_tpl).write(raise_tpl);
            (&raw mut (*boot_services).restore_tpl).write(restore_tpl);
            (&raw mut (*boot_services).locate_protocol).write(locate_protocol);
            (&raw mut (*boot_services).install_protocol_interface).write(install_protocol_interface);
            fill(contents, boot_services);
        }
        let (image, fixups, entry) = load(&file);
        let registered =
            RuntimeImage { base: image.physical, size: image.size, fixups: fixups.as_ptr(), fixup_count: fixups.len() };
        // SAFETY: filled above; the entry point is the driver's.
        unsafe {
            (*contents).handoff.register_image(registered).expect("room");
            HANDOFF.set(&raw mut (*contents).handoff);
            let entry = transmute::<*mut u8, EntryPoint>(image.physical.add(entry));
            assert_eq!(entry(ptr::null_mut(), &raw mut (*contents).system_table), Status::SUCCESS);
        }
        Self { image, data, contents, boot_services, _fixups: fixups }
    }

    pub fn services(&self) -> &RuntimeServices {
        // SAFETY: all functions are filled in once the driver has started.
        unsafe { &*self.services_address().cast() }
    }

    pub fn services_address(&self) -> *mut c_void {
        // SAFETY: within the contents.
        unsafe { (&raw mut (*self.contents).runtime_services).cast() }
    }

    pub fn boot_services(&self) -> *const BootServices {
        self.boot_services.as_ptr().cast()
    }

    pub fn handoff(&self) -> &Handoff {
        // SAFETY: valid until the physical mapping goes.
        unsafe { &(*self.contents).handoff }
    }

    pub fn handoff_mut(&mut self) -> &mut Handoff {
        // SAFETY: as above; the driver does not run meanwhile.
        unsafe { &mut (*self.contents).handoff }
    }

    pub fn exit_boot_services(&self) {
        self.handoff().set_at_runtime();
        // SAFETY: within the contents; nobody calls a boot service any more, which the null pointer shows.
        unsafe { (*self.contents).system_table.boot_services = ptr::null_mut() };
    }

    pub fn image(&self) -> (usize, usize, usize) {
        self.image.range()
    }

    pub fn data(&self) -> (usize, usize, usize) {
        self.data.range()
    }

    pub fn forget_physical(&self) {
        self.image.forget_physical();
        self.data.forget_physical();
    }

    pub fn virtual_system_table(&self) -> &SystemTable {
        let contents = self.data.to_virtual(self.contents);
        // SAFETY: the same memory at its virtual address.
        unsafe { &(*contents).system_table }
    }

    pub fn virtual_services(&self) -> &RuntimeServices {
        let contents = self.data.to_virtual(self.contents);
        // SAFETY: as above.
        unsafe { &*(&raw const (*contents).runtime_services).cast() }
    }
}

/// How often the task priority was raised and restored in this thread.
pub fn tpl_calls() -> (u32, u32) {
    TPL_CALLS.get()
}

/// # Safety
/// `contents` is zeroed memory of its size.
unsafe fn fill(contents: *mut Contents, boot_services: *mut BootServices) {
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let region = (&raw mut (*contents).region).cast::<u8>();
        region.write_bytes(0xff, VARIABLE_REGION_SIZE);
        let handoff = Handoff::new(HypercallInstruction::None, clock(), region, VARIABLE_REGION_SIZE);
        (&raw mut (*contents).handoff).write(handoff);
        let runtime_services = (&raw mut (*contents).runtime_services).cast::<RuntimeServices>();
        (&raw mut (*runtime_services).header.size).write(size_of::<RuntimeServices>() as u32);
        let configuration = ConfigurationTable { vendor_guid: VENDOR, vendor_table: ptr::null_mut() };
        (&raw mut (*contents).configuration).write(configuration);
        (&raw mut (*contents).vendor).write([u16::from(b'X'), 0, 0, 0]);
        let header = Header { size: size_of::<SystemTable>() as u32, ..Header::default() };
        (&raw mut (*contents).system_table).write(SystemTable {
            header,
            firmware_vendor: (&raw const (*contents).vendor).cast(),
            runtime_services,
            boot_services,
            number_of_configuration_table_entries: 1,
            configuration_table: &raw mut (*contents).configuration,
            ..SystemTable::default()
        });
    }
}

/// A clock that is right now; how fast it goes is no matter, as long as the tests do not take an hour.
fn clock() -> Clock {
    let wall_clock_ns = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    // SAFETY: no side effects.
    let tsc = unsafe { std::arch::x86_64::_rdtsc() };
    Clock { tsc, wall_clock_ns, multiplier: 1 << 31, shift: 0, reserved: [0; 3] }
}

/// Loads the image at its physical address; returns its fix-ups and the offset of its entry point.
fn load(file: &[u8]) -> (Memory, Vec<Fixup>, usize) {
    let pe = PeFile::<ImageNtHeaders64>::parse(file).expect("a PE");
    let header = pe.nt_headers().optional_header();
    let memory = Memory::new(header.size_of_image() as usize);
    // SAFETY: fresh memory of that size.
    let image = unsafe { std::slice::from_raw_parts_mut(memory.physical, memory.size) };
    for section in pe.section_table().iter() {
        let at = section.virtual_address.get(LE) as usize;
        let bytes = section.pe_data(file).expect("section data");
        let size = bytes.len().min(section.virtual_size.get(LE) as usize);
        image[at..at + size].copy_from_slice(&bytes[..size]);
    }
    let directory = pe.data_directory(IMAGE_DIRECTORY_ENTRY_BASERELOC).expect("relocations");
    let (at, size) = directory.address_range();
    let directory = image[at as usize..][..size as usize].to_vec();
    let delta = (memory.physical.addr() as u64).wrapping_sub(header.image_base());
    relocation::relocate(image, &directory, delta).expect("relocated");
    let mut fixups = vec![Fixup::default(); relocation::count(&directory).expect("a directory")];
    relocation::capture(image, &directory, &mut fixups).expect("captured");
    (memory, fixups, header.address_of_entry_point() as usize)
}

unsafe extern "efiapi" fn raise_tpl(_: Tpl) -> Tpl {
    TPL_CALLS.set((TPL_CALLS.get().0 + 1, TPL_CALLS.get().1));
    Tpl::APPLICATION
}

unsafe extern "efiapi" fn restore_tpl(tpl: Tpl) {
    assert!(tpl == Tpl::APPLICATION);
    TPL_CALLS.set((TPL_CALLS.get().0, TPL_CALLS.get().1 + 1));
}

unsafe extern "efiapi" fn locate_protocol(
    protocol: *const Guid,
    _: *const c_void,
    interface: *mut *mut c_void,
) -> Status {
    // SAFETY: the driver passes valid pointers.
    unsafe {
        assert_eq!(*protocol, PROTOCOL_GUID);
        *interface = HANDOFF.get().cast();
    }
    Status::SUCCESS
}

unsafe extern "efiapi" fn install_protocol_interface(
    handle: *mut Handle,
    _: *const Guid,
    _: InterfaceType,
    _: *const c_void,
) -> Status {
    // SAFETY: the driver passes a valid pointer.
    unsafe { *handle = ptr::without_provenance_mut(1) };
    Status::SUCCESS
}
