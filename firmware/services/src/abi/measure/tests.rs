//! The whole of it over a core of the test's own and a TPM in software: what is in the PCRs is what the log says.

use super::*;
use crate::abi::image::load;
use crate::abi::table::{build, exit_in};
use crate::abi::tests::core;
use crate::fake::install_exclusive;
use crate::image::pe::tests::File;
use crate::tcg2::digest::{Algorithm, Hasher};
use crate::tcg2::fake::{FakeTransport, LoggedEvent, read_log, replay};
use std::sync::MutexGuard;
use uefi_raw::protocol::tcg::v2::{
    Tcg2BootServiceCapability, Tcg2EventLogBitmap, Tcg2HashAlgorithmBitmap, Tcg2HashLogExtendEventFlags, Tcg2Protocol,
};
use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Boolean, Status};

const BANKS: [Algorithm; 2] = [Algorithm::Sha1, Algorithm::Sha256];

struct World {
    core: &'static Core,
    transport: FakeTransport,
    log: LogArea,
    /// The task priority level is the one core's.
    _level: MutexGuard<'static, ()>,
}

impl World {
    fn new() -> Self {
        let (_, level) = install_exclusive();
        let (core, _) = core();
        build(core).unwrap();
        let transport = FakeTransport::new(&BANKS);
        let log = install(core, Box::new(transport.clone())).unwrap();
        Self { core, transport, log, _level: level }
    }

    fn load(&self, boot_policy: bool, path: Option<&DevicePath>) -> Handle {
        let parent = self.core.images.with(|images| images.firmware());
        load(self.core, boot_policy, parent, path, Some(&File::new().bytes())).unwrap()
    }

    /// The log, which must explain the PCRs.
    fn events(&self) -> Vec<LoggedEvent> {
        let measurer = self.core.measure.with(|slot| *slot).unwrap();
        let bytes = measurer.object.tcg2.with(|tcg2| tcg2.log().bytes().to_vec()).unwrap();
        let (_, events) = read_log(&bytes).unwrap();
        for bank in BANKS {
            for (index, pcr) in replay(&events, bank).iter().enumerate() {
                assert_eq!(self.transport.0.borrow().pcr(bank, index), pcr, "PCR {index}");
            }
        }
        events
    }

    fn protocol(&self) -> *mut Tcg2Protocol {
        self.core.handles.with(|handles| handles.instances(&Tcg2Protocol::GUID)[0].1).cast()
    }
}

fn kinds(events: &[LoggedEvent]) -> Vec<(u32, Measured)> {
    events.iter().map(|event| (event.pcr, Measured(event.kind))).collect()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    let mut hasher = Hasher::new(&[Algorithm::Sha256]);
    hasher.update(bytes);
    hasher.finish()[0].bytes().to_vec()
}

fn file_path() -> DevicePathBuf {
    DevicePathBuf::from_nodes(&[Node::FilePath("\\a.efi".into())]).unwrap()
}

#[test]
fn the_firmware_is_its_version_and_its_parts() {
    let world = World::new();
    firmware(world.core, "1", &[FirmwarePart { description: "CODE", address: 0x1000, bytes: b"code" }]);
    let events = world.events();
    assert_eq!(kinds(&events), [(0, Measured::CRTM_VERSION), (0, Measured::EFI_PLATFORM_FIRMWARE_BLOB2)]);
    assert_eq!(events[0].content, [b'1', 0, 0, 0]);
    assert_eq!(events[1].digests[1].1, sha256(b"code"));
}

unsafe extern "efiapi" fn get_variable(
    name: *const u16,
    _: *const Guid,
    _: *mut VariableAttributes,
    size: *mut usize,
    data: *mut u8,
) -> Status {
    // SAFETY: a name ends with a null, and there is room as said.
    unsafe {
        let name: Vec<u16> = (0..).map(|at| name.add(at).read()).take_while(|unit| *unit != 0).collect();
        let content: &[u8] = match std::string::String::from_utf16(&name).unwrap().as_str() {
            "SecureBoot" => &[1],
            "BootOrder" => &[5, 0, 0xAB, 0],
            "Boot0005" => b"five",
            _ => return Status::NOT_FOUND,
        };
        let room = size.replace(content.len());
        if room < content.len() {
            return Status::BUFFER_TOO_SMALL;
        }
        data.copy_from_nonoverlapping(content.as_ptr(), content.len());
    }
    Status::SUCCESS
}

#[test]
fn variables_that_are_missing_are_measured_as_empty_where_they_decide_about_secure_boot() {
    let world = World::new();
    let system = world.core.tables.with(|tables| tables.system());
    // SAFETY: the core's own tables.
    unsafe { (*(*system).runtime_services).get_variable = get_variable };
    secure_boot_variables(world.core);
    world.load(true, Some(file_path().as_path()));
    let events = world.events();
    assert!(kinds(&events[..5]).iter().all(|kind| *kind == (7, Measured::EFI_VARIABLE_DRIVER_CONFIG)));
    assert_eq!(events[0].content, [event::variable_head(&GLOBAL, "SecureBoot", 1), alloc::vec![1]].concat());
    assert_eq!(events[4].content, event::variable_head(&SECURITY_DATABASE, "dbx", 0));
    assert_eq!(events[4].digests[1].1, sha256(&events[4].content));
    // Boot000AB does not exist.
    assert_eq!(kinds(&events[5..7]), [(1, Measured::EFI_VARIABLE_BOOT); 2]);
    assert_eq!(events[6].digests[1].1, sha256(b"five"));
    assert_eq!(kinds(&events[7..8]), [(4, Measured::EFI_ACTION)]);
}

unsafe extern "efiapi" fn set_variable(
    _: *const u16,
    vendor: *const Guid,
    attributes: VariableAttributes,
    size: usize,
    data: *const u8,
) -> Status {
    // SAFETY: there are as many bytes as said.
    let said = unsafe { (vendor.read(), core::slice::from_raw_parts(data, size)) };
    assert_eq!((said, attributes), ((SHIM_LOCK, &[1, 0, 0, 0][..]), VariableAttributes::BOOTSERVICE_ACCESS));
    WAS_SET.set(true);
    Status::SUCCESS
}

std::thread_local!(static WAS_SET: Cell<bool> = const { Cell::new(false) });

#[test]
fn shim_s_fallback_is_asked_not_to_reset_where_there_is_a_tpm() {
    let world = World::new();
    let system = world.core.tables.with(|tables| tables.system());
    // SAFETY: the core's own tables.
    unsafe { (*(*system).runtime_services).set_variable = set_variable };
    keep_fallback_from_resetting(world.core);
    assert!(WAS_SET.replace(false));
    world.core.measure.with(|slot| *slot = None);
    keep_fallback_from_resetting(world.core);
    assert!(!WAS_SET.get());
}

#[test]
fn separators_come_once_before_the_first_boot_option() {
    let world = World::new();
    world.load(true, Some(file_path().as_path()));
    world.load(true, Some(file_path().as_path()));
    let events = world.events();
    let mut expected = alloc::vec![(4, Measured::EFI_ACTION)];
    expected.extend((0..8).map(|pcr| (pcr, Measured::SEPARATOR)));
    expected.push((4, Measured::EFI_BOOT_SERVICES_APPLICATION));
    expected.extend([(4, Measured::EFI_ACTION), (4, Measured::EFI_ACTION)]);
    expected.push((4, Measured::EFI_BOOT_SERVICES_APPLICATION));
    assert_eq!(kinds(&events), expected);
    assert_eq!(events[0].content, event::CALLING_APPLICATION);
    assert_eq!(events[10].content, event::RETURNING_FROM_APPLICATION);
    assert_eq!(events[9].content[32..], *file_path().as_path().as_bytes());
    // The platform hierarchy is turned off before a program is there to use it.
    assert!(world.transport.0.borrow().commands.contains(&0x121));
}

#[test]
fn the_firmware_s_own_images_are_part_of_it() {
    let world = World::new();
    world.load(false, None);
    assert_eq!(world.events(), []);
    // Not a boot option, but from somewhere.
    world.load(false, Some(file_path().as_path()));
    assert_eq!(kinds(&world.events()), [(4, Measured::EFI_BOOT_SERVICES_APPLICATION)]);
}

#[test]
fn leaving_is_measured_and_gives_the_tpm_back() {
    let world = World::new();
    assert_eq!(exit_in(world.core, usize::MAX), Status::INVALID_PARAMETER);
    assert!(!world.transport.0.borrow().released);
    let key = world.core.memory.with(|memory| memory.key());
    assert_eq!(exit_in(world.core, key), Status::SUCCESS);
    assert!(world.transport.0.borrow().released);
    let texts: Vec<Vec<u8>> = world.events().into_iter().map(|event| event.content).collect();
    let invocation = event::EXIT_BOOT_SERVICES;
    let outcomes = [event::EXIT_BOOT_SERVICES_FAILED, event::EXIT_BOOT_SERVICES_SUCCEEDED];
    assert_eq!(texts, [invocation, outcomes[0], invocation, outcomes[1]]);
    hw::interrupts::enable();
}

#[test]
fn a_failing_tpm_hinders_no_image() {
    let world = World::new();
    world.transport.0.borrow_mut().say = Some(None);
    world.load(true, Some(file_path().as_path()));
}

#[test]
fn a_tpm_that_does_not_work_leaves_nothing_behind() {
    let (_, _level) = install_exclusive();
    let (core, _) = core();
    build(core).unwrap();
    let before = std::format!("{:?}", core.memory.with(|memory| memory.inventory()));
    let transport = FakeTransport::new(&BANKS);
    transport.0.borrow_mut().refuse = std::vec![0x101];
    assert_eq!(install(core, Box::new(transport)), Err(Status::DEVICE_ERROR));
    assert_eq!(std::format!("{:?}", core.memory.with(|memory| memory.inventory())), before);
    assert!(core.handles.with(|handles| handles.instances(&Tcg2Protocol::GUID).is_empty()));
}

#[test]
fn the_protocol_tells_of_the_tpm_to_callers_of_both_versions() {
    let world = World::new();
    let this = world.protocol();
    let mut capability = Tcg2BootServiceCapability::default();
    // SAFETY: the protocol is installed, the structure has the size it says.
    let mut ask = |size: usize| unsafe {
        capability = Tcg2BootServiceCapability { size: size as u8, ..Default::default() };
        (((*this).get_capability)(this, &raw mut capability), capability)
    };
    let (status, told) = ask(36);
    assert_eq!((status, told.size, told.structure_version.minor), (Status::SUCCESS, 36, 1));
    assert_eq!((told.tpm_present_flag, told.number_of_pcr_banks), (1, 2));
    assert_eq!(told.active_pcr_banks, Tcg2HashAlgorithmBitmap::SHA1 | Tcg2HashAlgorithmBitmap::SHA256);
    let (status, told) = ask(28);
    assert_eq!((status, told.size, told.structure_version.minor), (Status::SUCCESS, 28, 0));
    assert_eq!(told.number_of_pcr_banks, 0);
    let (status, told) = ask(27);
    assert_eq!((status, told.size), (Status::BUFFER_TOO_SMALL, 36));
}

#[test]
fn the_protocol_gives_out_the_log_and_measures_for_programs() {
    let world = World::new();
    let this = world.protocol();
    let (mut location, mut last, mut truncated) = (0, 0, Boolean::TRUE);
    // SAFETY: the protocol is installed, the places are this function's.
    let mut log = |format| unsafe {
        let status = ((*this).get_event_log)(this, format, &raw mut location, &raw mut last, &raw mut truncated);
        (status, location, last, bool::from(truncated))
    };
    assert_eq!(log(Tcg2EventLogBitmap::TCG_1_2).0, Status::INVALID_PARAMETER);
    assert_eq!(log(Tcg2EventLogBitmap::TCG_2), (Status::SUCCESS, world.log.address, world.log.address, false));

    let mut event = std::vec![0u8; 4];
    event.extend(14u32.to_le_bytes());
    event.extend(1u16.to_le_bytes());
    event.extend(8u32.to_le_bytes());
    event.extend(Measured::IPL.0.to_le_bytes());
    event.extend(b"kernel");
    let hash = |event: &mut Vec<u8>, size: usize, flags, data: &[u8]| {
        event[..4].copy_from_slice(&(size as u32).to_le_bytes());
        let (data, length) = (data.as_ptr().expose_provenance() as u64, data.len() as u64);
        // SAFETY: the event has the size it says, the data its length.
        unsafe { ((*this).hash_log_extend_event)(this, flags, data, length, event.as_ptr().cast()) }
    };
    let none = Tcg2HashLogExtendEventFlags::empty();
    let whole = event.len();
    assert_eq!(hash(&mut event, whole, none, b"command line"), Status::SUCCESS);
    assert_eq!(hash(&mut event, whole, Tcg2HashLogExtendEventFlags::PE_COFF_IMAGE, b"MZ no"), Status::UNSUPPORTED);
    assert_eq!(hash(&mut event, 17, none, b"x"), Status::INVALID_PARAMETER);
    event[10] = 24;
    assert_eq!(hash(&mut event, whole, none, b"x"), Status::INVALID_PARAMETER);
    let events = world.events();
    assert_eq!(kinds(&events), [(8, Measured::IPL)]);
    assert_eq!((&events[0].content[..], &events[0].digests[1].1), (&b"kernel"[..], &sha256(b"command line")));
    event[10] = 8;
    let extended = hash(&mut event, whole, Tcg2HashLogExtendEventFlags::EFI_TCG2_EXTEND_ONLY, b"x");
    assert_eq!(extended, Status::SUCCESS);
    let measurer = world.core.measure.with(|slot| *slot).unwrap();
    let logged = measurer.object.tcg2.with(|tcg2| read_log(tcg2.log().bytes()).unwrap().1.len());
    assert_eq!(logged, Ok(1));
}

#[test]
fn a_program_can_send_a_command_and_use_one_buffer_for_both() {
    let world = World::new();
    let this = world.protocol();
    let mut buffer = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
    // SAFETY: the buffer is as long as said.
    let status = unsafe { ((*this).submit_command)(this, 12, buffer.as_ptr(), 12, buffer.as_mut_ptr()) };
    assert_eq!((status, &buffer[..10]), (Status::SUCCESS, &[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0][..]));
}

#[test]
fn only_the_active_banks_can_be_asked_for() {
    let world = World::new();
    let this = world.protocol();
    world.transport.0.borrow_mut().inactive.clear();
    // SAFETY: the protocol is installed.
    let set = |banks| unsafe { ((*this).set_active_pcr_banks)(this, banks) };
    assert_eq!(set(Tcg2HashAlgorithmBitmap::SHA1 | Tcg2HashAlgorithmBitmap::SHA256), Status::SUCCESS);
    assert_eq!(set(Tcg2HashAlgorithmBitmap::SHA256), Status::UNSUPPORTED);
    assert_eq!(set(Tcg2HashAlgorithmBitmap::SHA512), Status::INVALID_PARAMETER);
    assert_eq!(set(Tcg2HashAlgorithmBitmap::empty()), Status::INVALID_PARAMETER);
}

/// A disk with a GPT of one entry.
struct Disk(Vec<u8>);

impl BlockDevice for Disk {
    fn geometry(&self) -> crate::block::Geometry {
        crate::block::Geometry {
            block_size: 512,
            blocks: (self.0.len() / 512) as u64,
            read_only: true,
            removable: false,
            io_align: 1,
            blocks_per_physical: 1,
        }
    }
    fn read(&mut self, lba: u64, into: &mut [u8]) -> core::result::Result<(), crate::block::BlockError> {
        into.copy_from_slice(&self.0[lba as usize * 512..][..into.len()]);
        Ok(())
    }
    fn write(&mut self, _: u64, _: &[u8]) -> core::result::Result<(), crate::block::BlockError> {
        Err(crate::block::BlockError::WriteProtected)
    }
    fn flush(&mut self) -> core::result::Result<(), crate::block::BlockError> {
        Ok(())
    }
}

#[test]
fn the_gpt_of_the_disk_that_a_program_comes_from_is_measured_once() {
    let world = World::new();
    let mut content = alloc::vec![0; 64 * 512];
    content[512..520].copy_from_slice(b"EFI PART");
    content[512 + 72] = 2;
    content[512 + 80..512 + 88].copy_from_slice(&[128, 0, 0, 0, 128, 0, 0, 0]);
    content[1024 + 128] = 7;
    let vendor = Node::VendorHardware { guid: guid!("2fd0bf83-5d38-4f7c-a1a2-0b6a35eb0a4c"), data: Vec::new() };
    let mut path = DevicePathBuf::from_nodes(&[vendor]).unwrap();
    api::install_block_device(path.as_path(), Box::new(Disk(content.clone()))).unwrap();
    path.push(&Node::HardDrive {
        partition: 1,
        start: 34,
        size: 1,
        format: crate::device_path::PartitionFormat(2),
        signature: Signature::Guid(GLOBAL),
    })
    .unwrap();
    world.load(false, Some(path.as_path()));
    world.load(false, Some(path.as_path()));
    let events = world.events();
    let program = (4, Measured::EFI_BOOT_SERVICES_APPLICATION);
    assert_eq!(kinds(&events), [(5, Measured::EFI_GPT_EVENT), program, program]);
    assert_eq!(events[0].content[..92], content[512..604]);
    assert_eq!(events[0].content[92..100], 1u64.to_le_bytes());
    assert_eq!(events[0].content[100..], content[1024 + 128..1024 + 256]);
}
