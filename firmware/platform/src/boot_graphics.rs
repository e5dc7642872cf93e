//! The picture that the firmware has drawn, as an ACPI table (ACPI 6.5 §5.2.23): an operating system can go on showing it.

use crate::acpi::{self, HEADER};

/// Size of the table.
pub const BGRT: usize = HEADER + 20;

const VERSION: u16 = 1;
/// The picture is on the screen, upright.
const DISPLAYED: u8 = 1;
/// A bitmap file.
const BITMAP: u8 = 0;

/// A BGRT for the bitmap file at `address`, in boot services data, that is shown with its upper left corner at (`x`, `y`).
pub fn bgrt(address: u64, (x, y): (u32, u32)) -> [u8; BGRT] {
    let mut table = [0; BGRT];
    let (header, body) = table.split_at_mut(HEADER);
    header.copy_from_slice(&acpi::header(b"BGRT", 1, BGRT as u32));
    body[..2].copy_from_slice(&VERSION.to_le_bytes());
    (body[2], body[3]) = (DISPLAYED, BITMAP);
    body[4..12].copy_from_slice(&address.to_le_bytes());
    body[12..16].copy_from_slice(&x.to_le_bytes());
    body[16..20].copy_from_slice(&y.to_le_bytes());
    acpi::seal(&mut table);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_where_the_picture_is() {
        let table = bgrt(0x1122_3344, (470, 68));
        assert_eq!(acpi::sum(&table), 0);
        assert_eq!((&table[..4], table[4], table.len()), (&b"BGRT"[..], 56, 56));
        assert_eq!(table[36..40], [1, 0, 1, 0]);
        assert_eq!(table[40..48], 0x1122_3344u64.to_le_bytes());
        assert_eq!((table[48..52].to_vec(), table[52..56].to_vec()), (vec![0xD6, 1, 0, 0], vec![68, 0, 0, 0]));
    }
}
