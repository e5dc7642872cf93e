//! Shows every mode of the display: prints `MODE width height`, then fills the quarters of the screen with red, green, blue and
//! white, reads them back, and waits for a key. Powers off after the last one.
#![no_std]
#![no_main]

use core::ptr::null_mut;

use guest::{boot, println, table};
use uefi_raw::protocol::console::{
    GraphicsOutputBltOperation, GraphicsOutputBltPixel, GraphicsOutputModeInformation, GraphicsOutputProtocol,
};
use uefi_raw::{Handle, Status};

const fn pixel(red: u8, green: u8, blue: u8) -> GraphicsOutputBltPixel {
    GraphicsOutputBltPixel { blue, green, red, reserved: 0 }
}

/// The colours of the quarters: above left and right, below left and right.
const QUARTERS: [GraphicsOutputBltPixel; 4] =
    [pixel(0xFF, 0, 0), pixel(0, 0xFF, 0), pixel(0, 0, 0xFF), pixel(0xFF, 0xFF, 0xFF)];

#[unsafe(export_name = "efi_main")]
extern "efiapi" fn main(handle: Handle, system_table: *mut uefi_raw::table::system::SystemTable) -> Status {
    guest::start(handle, system_table);
    let mut interface = null_mut();
    // SAFETY: a boot service with valid arguments.
    let found = unsafe { (boot().locate_protocol)(&GraphicsOutputProtocol::GUID, null_mut(), &mut interface) };
    if found == Status::SUCCESS {
        show_all(interface.cast());
    } else {
        println!("GUEST-FAIL modes {found:?}");
    }
    guest::power_off()
}

fn show_all(graphics: *mut GraphicsOutputProtocol) {
    // SAFETY: the firmware's protocol.
    let count = unsafe { (*(*graphics).mode).max_mode };
    for number in 0..count {
        let (mut size, mut info) = (0, core::ptr::null_mut::<GraphicsOutputModeInformation>());
        // SAFETY: the firmware's protocol, valid arguments.
        let status = unsafe { ((*graphics).query_mode)(graphics, number, &mut size, (&raw mut info).cast()) };
        if status != Status::SUCCESS {
            return println!("GUEST-FAIL modes QueryMode({number}): {status:?}");
        }
        // SAFETY: the firmware gave the description.
        let (width, height) = unsafe { ((*info).horizontal_resolution as usize, (*info).vertical_resolution as usize) };
        println!("MODE {width} {height}");
        if let Err(problem) = show(graphics, number, width, height) {
            println!("GUEST-FAIL modes {width} x {height}: {problem}");
        }
        wait_for_key();
    }
    println!("GUEST-OK modes count={count}");
}

fn show(graphics: *mut GraphicsOutputProtocol, number: u32, width: usize, height: usize) -> Result<(), &'static str> {
    let (half_width, half_height) = (width / 2, height / 2);
    // SAFETY: the firmware's protocol, valid arguments.
    unsafe {
        if ((*graphics).set_mode)(graphics, number) != Status::SUCCESS {
            return Err("SetMode");
        }
        for (quarter, colour) in QUARTERS.iter().enumerate() {
            let (x, y) = (quarter % 2 * half_width, quarter / 2 * half_height);
            let fill = GraphicsOutputBltOperation::BLT_VIDEO_FILL;
            let mut colour = *colour;
            if ((*graphics).blt)(graphics, &mut colour, fill, 0, 0, x, y, half_width, half_height, 0) != Status::SUCCESS
            {
                return Err("Blt, fill");
            }
            let mut read = pixel(1, 2, 3);
            let (right, below) = (x + half_width - 1, y + half_height - 1);
            let to_buffer = GraphicsOutputBltOperation::BLT_VIDEO_TO_BLT_BUFFER;
            if ((*graphics).blt)(graphics, &mut read, to_buffer, right, below, 0, 0, 1, 1, 0) != Status::SUCCESS {
                return Err("Blt, read");
            }
            if (read.red, read.green, read.blue) != (colour.red, colour.green, colour.blue) {
                return Err("the pixels read are not those written");
            }
        }
    }
    Ok(())
}

fn wait_for_key() {
    let input = table().stdin;
    let mut key = Default::default();
    let mut index = 0;
    // SAFETY: the firmware's console and its event.
    unsafe {
        let mut event = (*input).wait_for_key;
        let _ = (boot().wait_for_event)(1, &mut event, &mut index);
        let _ = ((*input).read_key_stroke)(input, &mut key);
    }
}
