//! The two 8259 interrupt controllers of an HVM guest.

use crate::port;

/// Mask registers of the first and the second controller.
const MASKS: [u16; 2] = [0x21, 0xA1];

/// Masks all interrupts. As they are after a reset, the controllers would deliver the interval timer's with the vector of the
/// double fault as soon as the local APIC lets them.
pub fn mask() {
    for register in MASKS {
        // SAFETY: only masks; operating systems that use the controllers initialise them first.
        unsafe { port::write_u8(register, 0xFF) };
    }
}
