use std::boxed::Box;
use std::vec;

use super::*;
use crate::console::graphics::GraphicsConsole;
use crate::device_path::Node;
use crate::graphics::testing::{ADDRESS, FakeAdapter, picture};

const MODES: [Mode; 2] =
    [Mode::new(640, 480, PixelFormat::Bgrx32), Mode { width: 8, height: 4, stride: 10, format: PixelFormat::Bgr24 }];

fn path(adr: u32) -> DevicePathBuf {
    DevicePathBuf::new().with(&Node::AcpiAdr { adr: vec![adr] }).unwrap()
}

fn interface(adr: u32, edid: &[u8]) -> (Handle, *mut GraphicsOutputProtocol, SharedDisplay) {
    crate::fake::install();
    let mut adapter = FakeAdapter::new(&MODES, 0);
    adapter.edid = edid.to_vec();
    let (handle, display) = install(&path(adr), Box::new(adapter)).unwrap();
    let interface = api::protocol(handle, &GraphicsOutputProtocol::GUID).unwrap().cast();
    (handle, interface, display)
}

fn mode(interface: *mut GraphicsOutputProtocol) -> (GraphicsOutputProtocolMode, GraphicsOutputModeInformation) {
    // SAFETY: ours.
    unsafe { (*(*interface).mode, *(*(*interface).mode).info) }
}

#[test]
fn the_mode_structure_says_what_is_so() {
    let (_, gop, _) = interface(1, &[]);
    let (now, info) = mode(gop);
    assert_eq!((now.max_mode, now.mode, now.frame_buffer_base), (2, 0, ADDRESS));
    assert_eq!((now.frame_buffer_size, now.size_of_info), (640 * 480 * 4, 36));
    assert_eq!((info.horizontal_resolution, info.vertical_resolution, info.pixels_per_scan_line), (640, 480, 640));
    assert_eq!(info.pixel_format, GraphicsPixelFormat::PIXEL_BLUE_GREEN_RED_RESERVED_8_BIT_PER_COLOR);
    // SAFETY: ours.
    unsafe {
        assert_eq!(((*gop).set_mode)(gop, 2), Status::UNSUPPORTED);
        assert_eq!(((*gop).set_mode)(gop, 1), Status::SUCCESS);
    }
    let (now, info) = mode(gop);
    assert_eq!((now.mode, now.frame_buffer_size, info.pixels_per_scan_line), (1, 120, 10));
    assert_eq!((info.pixel_format, info.pixel_information.red), (GraphicsPixelFormat::PIXEL_BIT_MASK, 0x00FF_0000));
}

#[test]
fn the_text_console_brings_back_its_mode_in_the_structure_too() {
    use crate::console::TextOutput;
    let (_, gop, display) = interface(2, &[]);
    let mut console = GraphicsConsole::new(display).unwrap();
    // SAFETY: ours.
    let _ = unsafe { ((*gop).set_mode)(gop, 1) };
    console.reset();
    assert_eq!(mode(gop).0.mode, 0);
}

#[test]
fn query_mode_gives_a_copy_and_refuses_what_makes_no_sense() {
    let (_, gop, _) = interface(3, &[]);
    let (mut size, mut info) = (0, ptr::null_mut());
    // SAFETY: ours, with variables of ours.
    unsafe {
        assert_eq!(((*gop).query_mode)(gop, 1, &mut size, &mut info), Status::SUCCESS);
        assert_eq!((size, (*info).horizontal_resolution), (36, 8));
        api::free_pool(ptr::NonNull::new(info).unwrap().cast()).unwrap();
        for (this, number, size, info) in [
            (gop.cast_const(), 2, &raw mut size, &raw mut info),
            (gop.cast_const(), 0, ptr::null_mut(), &raw mut info),
            (gop.cast_const(), 0, &raw mut size, ptr::null_mut()),
            (ptr::null(), 0, &raw mut size, &raw mut info),
        ] {
            assert_eq!(((*gop).query_mode)(this, number, size, info), Status::INVALID_PARAMETER);
        }
    }
}

#[test]
fn each_transfer_reaches_the_screen() {
    use GraphicsOutputBltOperation as Operation;
    let (_, gop, display) = interface(4, &[]);
    // SAFETY: ours.
    let _ = unsafe { ((*gop).set_mode)(gop, 1) };
    // SAFETY: ours; the buffer is as large as the transfer needs where it succeeds.
    let blt = |buffer: &mut [GraphicsOutputBltPixel],
               operation,
               from: (usize, usize),
               to: (usize, usize),
               size: (usize, usize)| unsafe {
        ((*gop).blt)(gop, buffer.as_mut_ptr(), operation, from.0, from.1, to.0, to.1, size.0, size.1, 0)
    };
    let pixel = |red| GraphicsOutputBltPixel { red, ..Default::default() };
    assert_eq!(blt(&mut [pixel(7)], Operation::BLT_VIDEO_FILL, (0, 0), (1, 1), (2, 2)), Status::SUCCESS);
    let mut four = [pixel(1), pixel(2), pixel(3), pixel(4)];
    assert_eq!(blt(&mut four, Operation::BLT_BUFFER_TO_VIDEO, (0, 0), (4, 0), (2, 2)), Status::SUCCESS);
    assert_eq!(blt(&mut [], Operation::BLT_VIDEO_TO_VIDEO, (4, 0), (6, 2), (2, 2)), Status::SUCCESS);
    let red: vec::Vec<u8> = picture(&display.borrow()).iter().map(|pixel| pixel.to_le_bytes()[2]).collect();
    assert_eq!(red, [0, 0, 0, 0, 1, 2, 0, 0, 0, 7, 7, 0, 3, 4, 0, 0, 0, 7, 7, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4]);
    assert_eq!(blt(&mut four, Operation::BLT_VIDEO_TO_BLT_BUFFER, (1, 0), (0, 0), (2, 2)), Status::SUCCESS);
    assert_eq!(four.map(|pixel| pixel.red), [0, 0, 7, 7]);

    assert_eq!(blt(&mut four, Operation(9), (0, 0), (0, 0), (1, 1)), Status::INVALID_PARAMETER);
    assert_eq!(blt(&mut four, Operation::BLT_VIDEO_FILL, (0, 0), (8, 0), (1, 1)), Status::INVALID_PARAMETER);
    for operation in [Operation::BLT_VIDEO_FILL, Operation::BLT_BUFFER_TO_VIDEO, Operation::BLT_VIDEO_TO_BLT_BUFFER] {
        // SAFETY: null is what a caller must not give, and may.
        let status = unsafe { ((*gop).blt)(gop, ptr::null_mut(), operation, 0, 0, 0, 0, 1, 1, 0) };
        assert_eq!(status, Status::INVALID_PARAMETER);
    }
}

#[test]
fn a_display_in_use_is_refused() {
    let (_, gop, display) = interface(5, &[]);
    let used = display.borrow_mut();
    // SAFETY: ours.
    assert_eq!(unsafe { ((*gop).set_mode)(gop, 1) }, Status::DEVICE_ERROR);
    drop(used);
}

#[test]
fn an_edid_is_published_and_can_be_overridden() {
    unsafe extern "efiapi" fn get_edid(
        _: *mut EdidOverrideProtocol,
        _: *const Handle,
        attributes: *mut u32,
        size: *mut usize,
        edid: *mut *mut u8,
    ) -> Status {
        static EDID: [u8; 3] = [9; 3];
        // SAFETY: variables of the caller.
        unsafe {
            attributes.write(0);
            size.write(3);
            edid.write(EDID.as_ptr().cast_mut());
        }
        Status::SUCCESS
    }
    let of = |handle, guid: &Guid| {
        let edid = api::protocol(handle, guid).ok()?.cast::<EdidDiscoveredProtocol>();
        // SAFETY: ours.
        Some(unsafe { slice::from_raw_parts((*edid).edid, (*edid).size_of_edid as usize) }.to_vec())
    };
    let (handle, _, _) = interface(6, &[1, 2]);
    assert_eq!(of(handle, &EdidDiscoveredProtocol::GUID), Some(vec![1, 2]));
    assert_eq!(of(handle, &EDID_ACTIVE), Some(vec![1, 2]));
    let mut protocol = EdidOverrideProtocol { get_edid };
    let override_handle = api::install_protocol(None, &EdidOverrideProtocol::GUID, (&raw mut protocol).cast()).unwrap();
    let (handle, _, _) = interface(7, &[1, 2]);
    assert_eq!(of(handle, &EdidDiscoveredProtocol::GUID), Some(vec![1, 2]));
    assert_eq!(of(handle, &EDID_ACTIVE), Some(vec![9; 3]));
    api::uninstall_protocol(override_handle, &EdidOverrideProtocol::GUID, (&raw mut protocol).cast()).unwrap();
}
