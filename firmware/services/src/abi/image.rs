//! Image services (UEFI 2.10 §7.4).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr::{self, NonNull};

use handoff::relocation::{self, Fixup};
use handoff::{Handoff, RuntimeImage};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::{MemoryType, PAGE_SIZE, Tpl};
use uefi_raw::{Boolean, Char16, Guid, Handle, Status, guid};

use super::control::{Context, enter, leave};
use super::handle::{install, locate_path, uninstall};
use super::misc::status;
use super::{CORE, load_file, table};
use crate::Result;
use crate::api::event::{raise_in, restore_in};
use crate::api::memory::{allocate_pages_in, allocate_pool_in, free_pages_in, free_pool_in};
use crate::core_state::Core;
use crate::device_path::{DevicePath, DevicePathBuf};
use crate::image::pe::{Pe, PeError, Segment, Subsystem};
use crate::image::{Image, ImageError, LoadError};
use crate::memory::Placement;
use crate::tcg2::hook::LoadedFile;

/// EFI_LOADED_IMAGE_DEVICE_PATH_PROTOCOL (UEFI 2.10 §9.2).
const LOADED_IMAGE_DEVICE_PATH: Guid = guid!("bc62157e-3e33-4fec-9920-2d3b36d750df");

/// EFI_HII_PACKAGE_LIST_PROTOCOL (UEFI 2.10 §7.4.1).
const HII_PACKAGE_LIST: Guid = guid!("6a1ee763-d47a-43b4-aabe-ef1de2ab56fc");

/// Revision of EFI_LOADED_IMAGE_PROTOCOL.
const LOADED_IMAGE_REVISION: u32 = 0x1000;

/// LoadImage.
pub(super) unsafe extern "efiapi" fn load_image(
    boot_policy: Boolean,
    parent: Handle,
    path: *const DevicePathProtocol,
    source: *const u8,
    source_size: usize,
    image: *mut Handle,
) -> Status {
    if image.is_null() || (!source.is_null() && isize::try_from(source_size).is_err()) {
        return Status::INVALID_PARAMETER;
    }
    let path = if path.is_null() {
        None
    } else {
        // SAFETY: not null, and a device path (the caller).
        match unsafe { DevicePath::from_ptr(path) } {
            Ok(path) => Some(path),
            Err(_) => return Status::INVALID_PARAMETER,
        }
    };
    let source = if source.is_null() {
        None
    } else {
        // SAFETY: not null, as long as the caller says, and no longer than memory can be.
        Some(unsafe { core::slice::from_raw_parts(source, source_size) })
    };
    match load(&CORE, boot_policy.into(), parent, path, source) {
        Ok(handle) => {
            // SAFETY: not null.
            unsafe { image.write(handle) };
            Status::SUCCESS
        }
        Err(error) => {
            match path {
                Some(path) => log::warn!("{}: {error}", path.to_text()),
                None => log::warn!("image in memory: {error}"),
            }
            error.into()
        }
    }
}

/// StartImage.
pub(super) unsafe extern "efiapi" fn start_image(
    image: Handle,
    exit_data_size: *mut usize,
    exit_data: *mut *mut Char16,
) -> Status {
    let exit = match start(&CORE, image) {
        Ok(exit) => exit,
        Err(error) => return error,
    };
    if exit_data_size.is_null() || exit_data.is_null() {
        return exit.status;
    }
    let data = exit.data.as_deref().unwrap_or_default();
    let copy =
        if data.is_empty() { None } else { allocate_pool_in(&CORE, MemoryType::BOOT_SERVICES_DATA, data.len()).ok() };
    // SAFETY: neither is null, and the copy has room for the data.
    unsafe {
        match copy {
            Some(copy) => {
                copy.copy_from_nonoverlapping(NonNull::from(data).cast(), data.len());
                exit_data.write(copy.as_ptr().cast());
                exit_data_size.write(data.len());
            }
            None => {
                exit_data.write(ptr::null_mut());
                exit_data_size.write(0);
            }
        }
    }
    exit.status
}

/// Exit. Returns only if it fails, or to unload an image that was not started.
pub(super) unsafe extern "efiapi" fn exit(
    image: Handle,
    exit_status: Status,
    data_size: usize,
    data: *mut Char16,
) -> Status {
    // SAFETY: the caller answers for its data.
    unsafe { exit_in(&CORE, image, exit_status, data_size, data.cast()) }
}

/// UnloadImage.
pub(super) unsafe extern "efiapi" fn unload_image(image: Handle) -> Status {
    status(unload(&CORE, image))
}

/// How an image ended.
#[derive(Debug)]
pub(crate) struct Exit {
    /// What it returned, or gave to Exit.
    pub status: Status,
    /// A text and perhaps more, from Exit.
    pub data: Option<Box<[u8]>>,
}

/// Loads an image from memory (`source`), or from the file at `path`.
pub(crate) fn load(
    core: &Core,
    boot_policy: bool,
    parent: Handle,
    path: Option<&DevicePath>,
    source: Option<&[u8]>,
) -> core::result::Result<Handle, LoadError> {
    if core.handles.with(|handles| handles.interface(parent, &LoadedImageProtocol::GUID)).is_err() {
        return Err(LoadError::Service(Status::INVALID_PARAMETER));
    }
    let file;
    let (source, device, file_path) = match (source, path) {
        (Some(source), Some(path)) => {
            let found = locate_path(core, &DevicePathProtocol::GUID, path);
            let (device, file_path) = found.unwrap_or((ptr::null_mut(), path));
            (source, device, Some(file_path))
        }
        (Some(source), None) => (source, ptr::null_mut(), None),
        (None, Some(path)) => {
            file = load_file::read(core, boot_policy, path)?;
            (file.data.as_slice(), file.device, Some(file.file_path))
        }
        (None, None) => return Err(LoadError::NotFound),
    };
    let pe = Pe::parse(source)?;
    let memory = Memory::for_image(core, &pe)?;
    // SAFETY: just allocated, of this length or longer, and known to nobody else yet.
    let bytes = unsafe { core::slice::from_raw_parts_mut(pointer(memory.base), pe.size()) };
    pe.load(bytes, memory.base)?;

    let package_list = pe.hii_package_list(bytes).and_then(|range| bytes.get_mut(range));
    let package_list = package_list.map(|list| list.as_mut_ptr().cast::<c_void>());
    let fixups = if pe.subsystem() == Subsystem::RuntimeDriver { Some(fixups(core, &pe, bytes)?) } else { None };
    let image = Image {
        handle: ptr::null_mut(),
        protocol: ptr::null_mut(),
        path: path.map(alloc::borrow::ToOwned::to_owned),
        file_path: file_path.map(alloc::borrow::ToOwned::to_owned),
        pages: memory.keep(),
        base: bytes.as_ptr().addr() as u64,
        size: pe.size() as u64,
        entry: bytes.as_ptr().addr() as u64 + pe.entry() as u64,
        subsystem: pe.subsystem(),
        segments: pe.segments(),
        fixups,
        package_list,
        load_options: None,
        started: false,
        exit_to: None,
        exit_data: None,
    };
    measure(core, boot_policy, parent, source, &pe, &image);
    protect(core, &image);
    register(core, parent, device, image).map_err(LoadError::Service)
}

/// Measures an image, where there is a TPM. The firmware's own, which come from no device, are part of the firmware and
/// measured with it.
fn measure(core: &Core, boot_policy: bool, parent: Handle, file: &[u8], pe: &Pe<'_>, image: &Image) {
    let Some(measurer) = core.measure.with(|measurer| *measurer) else { return };
    let by_firmware = core.images.with(|images| images.firmware()) == parent;
    if by_firmware && image.path.is_none() {
        return;
    }
    measurer.image(
        core,
        &LoadedFile {
            file,
            subsystem: image.subsystem,
            base: image.base,
            size: image.size,
            linked_for: pe.preferred_base(),
            path: image.path.as_ref().map(DevicePathBuf::as_path),
            boot_option: by_firmware && boot_policy,
        },
    );
}

/// Runs an image. Applications, and drivers that fail, are unloaded when they end.
pub(crate) fn start(core: &Core, image: Handle) -> Result<Exit> {
    let mut context = Context::default();
    let context = &raw mut context;
    let system_table = core.tables.with(|tables| tables.system());
    let entry = core.images.with(|images| images.begin(image, context.cast()))?;
    let (tpl, floor) = core.events.with(|events| (events.level(), events.floor()));

    // SAFETY: the entry point of a loaded image; the context is this frame's, which waits.
    let status = unsafe { enter(pointer(entry).cast(), image, system_table.cast(), context) };

    // It may have ended with any level raised, and a level can only be restored from above; by Exit even from within a
    // notification.
    core.events.with(|events| events.unwind(floor));
    raise_in(core, Tpl::HIGH_LEVEL);
    restore_in(core, tpl);
    let data = core.images.with(|images| images.end(image));
    // A runtime driver fills in the services it provides.
    table::refresh(core);
    let stays = core.images.with(|images| images.get(image).is_ok_and(|i| i.subsystem != Subsystem::Application));
    if (!stays || status.is_error())
        && let Err(error) = discard(core, image)
    {
        log::warn!("image {image:p} stays loaded after its end: {error:?}");
    }
    Ok(Exit { status, data })
}

/// Ends the image that runs, from any depth of its calls, and everything that it started and that runs. Returns only if it
/// fails, or to unload an image that was not started.
///
/// # Safety
/// `data` is null or points to `data_size` bytes. The caller's frames up to the image's entry own nothing that has to be
/// dropped.
pub(super) unsafe fn exit_in(
    core: &Core,
    image: Handle,
    exit_status: Status,
    data_size: usize,
    data: *const u8,
) -> Status {
    let exit_to = match core.images.with(|images| images.exit_of(image)) {
        Ok(Some(exit_to)) => exit_to,
        Ok(None) => return status(unload(core, image)),
        Err(error) => return error.into(),
    };
    if !data.is_null() && data_size > 0 {
        // SAFETY: not null, and as long as the caller says.
        keep_exit_data(core, image, unsafe { core::slice::from_raw_parts(data, data_size) });
    }
    // SAFETY: `start` is waiting with this context; nothing here has to be dropped, and the rest is the caller's promise.
    unsafe { leave(exit_to.cast(), exit_status) }
}

/// Unloads an image: one that was started is asked to let go first, and must know how.
pub(crate) fn unload(core: &Core, image: Handle) -> Result<()> {
    let (started, running, protocol) = core
        .images
        .with(|images| images.get(image).map(|found| (found.started, found.exit_to.is_some(), found.protocol)))?;
    if running {
        return Err(ImageError::Running.into());
    }
    if started {
        // SAFETY: the image is loaded, so its protocol is there.
        let unload = unsafe { (*protocol).unload }.ok_or(Status::UNSUPPORTED)?;
        // SAFETY: the image answers for its function.
        let unloaded = unsafe { unload(image) };
        if unloaded.is_error() {
            return Err(unloaded);
        }
    }
    discard(core, image)
}

/// Gives an image its load options; UEFI strings are UTF-16 with a null.
pub(crate) fn set_load_options(core: &Core, image: Handle, options: &[u8]) -> Result<()> {
    let size = u32::try_from(options.len()).map_err(|_| Status::INVALID_PARAMETER)?;
    let protocol = core.images.with(|images| images.get(image).map(|image| image.protocol))?;
    let copy = if options.is_empty() {
        None
    } else {
        let copy = allocate_pool_in(core, MemoryType::LOADER_DATA, options.len())?;
        // SAFETY: just allocated, of this length.
        unsafe { copy.copy_from_nonoverlapping(NonNull::from(options).cast(), options.len()) };
        Some(copy.as_ptr())
    };
    // SAFETY: the image is loaded, so its protocol is there.
    unsafe {
        (*protocol).load_options_size = size;
        (*protocol).load_options = copy.unwrap_or(ptr::null_mut()).cast();
    }
    let old =
        core.images.with(|images| images.get_mut(image).map(|i| core::mem::replace(&mut i.load_options, copy)))?;
    if let Some(old) = old {
        free_pool_in(core, old)?;
    }
    Ok(())
}

/// Makes the firmware itself an image: the agent of its own drivers and the parent of the first images.
pub(super) fn register_firmware(core: &Core) -> Result<Handle> {
    let protocol = Box::into_raw(Box::new(loaded_image(core, ptr::null_mut(), ptr::null_mut())));
    let handle = install(core, None, &[(LoadedImageProtocol::GUID, protocol.cast())])?;
    core.images.with(|images| images.set_firmware(handle));
    Ok(handle)
}

/// Makes runtime images writable again, which SetVirtualAddressMap needs: called by ExitBootServices. Only pages whose
/// access was changed before are touched, so that no page table has to be split, and nothing allocated.
pub(super) fn unprotect_runtime_images(core: &Core) {
    let segment = |index| core.images.with(|images| images.runtime_segments().get(index).copied());
    for segment in (0..).map_while(segment) {
        let ordinary = crate::hardware::Protection::default();
        if let Err(error) = core.hardware().protect(segment.start, segment.pages, ordinary) {
            log::warn!("runtime image at {:#x} stays protected: {error}", segment.start);
        }
    }
}

/// Pages for an image, given back if it is not kept.
struct Memory<'a> {
    core: &'a Core,
    base: u64,
    pages: Option<(u64, u64)>,
}

impl<'a> Memory<'a> {
    fn for_image(core: &'a Core, pe: &Pe<'_>) -> core::result::Result<Self, LoadError> {
        let size = pe.size() as u64;
        let page = PAGE_SIZE as u64;
        let ty = pe.subsystem().code_type();
        if !pe.is_relocatable() {
            let base = pe.preferred_base();
            let pages = size.div_ceil(page);
            return match allocate_pages_in(core, Placement::At(base), ty, pages) {
                Ok(base) => Ok(Self { core, base, pages: Some((base, pages)) }),
                Err(_) => Err(PeError::NotRelocatable { base }.into()),
            };
        }
        let placement = if pe.needs_low_memory() { Placement::Below(u32::MAX.into()) } else { Placement::Any };
        let pages = size.div_ceil(page) + (pe.alignment() / page - 1);
        let first = allocate_pages_in(core, placement, ty, pages).map_err(|_| LoadError::Memory(size))?;
        Ok(Self { core, base: first.next_multiple_of(pe.alignment()), pages: Some((first, pages)) })
    }

    /// The pages: the first one's address and their number.
    fn keep(mut self) -> (u64, u64) {
        self.pages.take().unwrap_or_default()
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        if let Some((first, pages)) = self.pages {
            free_pages(self.core, first, pages);
        }
    }
}

/// Writes down what has to change when a runtime image moves; in memory that the runtime driver reads.
fn fixups(core: &Core, pe: &Pe<'_>, image: &mut [u8]) -> core::result::Result<(*mut Fixup, usize), LoadError> {
    let directory = pe.relocations();
    let count = relocation::count(directory).map_err(PeError::from)?;
    let size = count * size_of::<Fixup>();
    let memory = allocate_pool_in(core, MemoryType::RUNTIME_SERVICES_DATA, size.max(1))
        .map_err(|_| LoadError::Memory(size as u64))?;
    let list: *mut Fixup = memory.as_ptr().cast();
    // SAFETY: just allocated with room for them; the pool's alignment is theirs or more.
    let fixups = unsafe {
        list.write_bytes(0, count);
        core::slice::from_raw_parts_mut(list, count)
    };
    match relocation::capture(image, directory, fixups) {
        Ok(_) => Ok((list, count)),
        Err(error) => {
            free_pool(core, memory.as_ptr());
            Err(PeError::from(error).into())
        }
    }
}

/// Gives an image a handle with its protocols, and makes it known to those who have to know.
fn register(core: &Core, parent: Handle, device: Handle, mut image: Image) -> Result<Handle> {
    image.protocol = Box::into_raw(Box::new(LoadedImageProtocol {
        file_path: image.file_path.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
        image_base: pointer(image.base).cast(),
        image_size: image.size,
        image_code_type: image.subsystem.code_type(),
        image_data_type: image.subsystem.data_type(),
        ..loaded_image(core, parent, device)
    }));
    let installed = install(core, None, &interfaces(&image));
    let Ok(handle) = installed else {
        free(core, image);
        return installed;
    };
    image.handle = handle;
    with_handoff(core, &image, |handoff, runtime| {
        if handoff.register_image(runtime).is_err() {
            log::error!(
                "too many runtime images: the one at {:#x} will not work after SetVirtualAddressMap",
                image.base
            );
        }
    });
    core.images.with(|images| images.add(image));
    Ok(handle)
}

/// Takes an image away: what it has opened, its protocols, its memory.
fn discard(core: &Core, handle: Handle) -> Result<()> {
    let image = core.images.with(|images| images.remove(handle))?;
    core.handles.with(|handles| handles.close_all_of(handle));
    with_handoff(core, &image, |handoff, runtime| handoff.unregister_image(runtime.base));
    if let Err(error) = uninstall(core, handle, &interfaces(&image)) {
        // Somebody uses its protocols: keep what they point to.
        log::warn!("protocols of image {handle:p} stay: {error}");
        free_pages(core, image.pages.0, image.pages.1);
        core::mem::forget(image);
        return Ok(());
    }
    free(core, image);
    Ok(())
}

/// Frees all that belongs to an image without protocols.
fn free(core: &Core, image: Image) {
    free_pages(core, image.pages.0, image.pages.1);
    for pool in [image.fixups.map(|(list, _)| list.cast()), image.load_options].into_iter().flatten() {
        free_pool(core, pool);
    }
    // SAFETY: made from a box in `register`, and nobody can find it any more.
    drop(unsafe { Box::from_raw(image.protocol) });
}

/// The protocols on an image's handle.
fn interfaces(image: &Image) -> Vec<(Guid, *mut c_void)> {
    let path = image.path.as_ref().map_or(ptr::null(), |path| path.as_ptr());
    let mut interfaces = alloc::vec![
        (LoadedImageProtocol::GUID, image.protocol.cast()),
        (LOADED_IMAGE_DEVICE_PATH, path.cast_mut().cast()),
    ];
    interfaces.extend(image.package_list.map(|list| (HII_PACKAGE_LIST, list)));
    interfaces
}

fn loaded_image(core: &Core, parent: Handle, device: Handle) -> LoadedImageProtocol {
    LoadedImageProtocol {
        revision: LOADED_IMAGE_REVISION,
        parent_handle: parent,
        system_table: core.tables.with(|tables| tables.system()),
        device_handle: device,
        file_path: ptr::null(),
        reserved: ptr::null(),
        load_options_size: 0,
        load_options: ptr::null(),
        image_base: ptr::null(),
        image_size: 0,
        image_code_type: MemoryType::BOOT_SERVICES_CODE,
        image_data_type: MemoryType::BOOT_SERVICES_DATA,
        unload: None,
    }
}

/// Sets the access rights of an image's pages. They are ordinary again once the pages are free.
fn protect(core: &Core, image: &Image) {
    for Segment { offset, pages, protection } in &image.segments {
        let address = image.base + offset;
        let marked = core.memory.with(|memory| memory.mark_custom(address, *pages)).map_err(Status::from);
        if let Err(error) = marked.and_then(|()| core.hardware().protect(address, *pages, *protection)) {
            log::warn!("image at {:#x} stays unprotected in part: {error}", image.base);
        }
    }
}

/// The contract with the runtime driver, once it is installed.
pub(super) fn handoff(core: &Core) -> Option<&'static mut Handoff> {
    let found = core.handles.with(|handles| handles.instances(&handoff::PROTOCOL_GUID).first().map(|(_, i)| *i));
    let handoff = found.filter(|interface| !interface.is_null())?;
    // SAFETY: the core installed it for good, its borrows here are short and do not meet, and the runtime driver reads it
    // only in SetVirtualAddressMap.
    Some(unsafe { &mut *handoff.cast() })
}

/// Calls `change` if the image is a runtime image and there is a runtime driver's list to change.
fn with_handoff(core: &Core, image: &Image, change: impl FnOnce(&mut Handoff, RuntimeImage)) {
    let Some((fixups, fixup_count)) = image.fixups else { return };
    let Some(handoff) = handoff(core) else { return };
    let runtime = RuntimeImage { base: pointer(image.base), size: image.size as usize, fixups, fixup_count };
    change(handoff, runtime);
}

/// The image may be loaded again before anybody has read its data.
fn keep_exit_data(core: &Core, image: Handle, data: &[u8]) {
    let data: Box<[u8]> = data.into();
    let _ = core.images.with(|images| images.get_mut(image).map(|image| image.exit_data = Some(data)));
}

fn free_pages(core: &Core, first: u64, pages: u64) {
    if let Err(error) = free_pages_in(core, first, pages) {
        log::warn!("pages of an image at {first:#x}: {error}");
    }
}

fn free_pool(core: &Core, block: *mut u8) {
    if let Err(error) = free_pool_in(core, block) {
        log::warn!("memory of an image: {error}");
    }
}

/// Memory that the page allocator gave out is outside Rust's own.
fn pointer(address: u64) -> *mut u8 {
    ptr::with_exposed_provenance_mut(address as usize)
}
