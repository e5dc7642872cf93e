//! What a monitor says of itself (VESA E-EDID 1.4).

/// Bytes of a block.
pub const BLOCK: usize = 128;
const HEADER: [u8; 8] = [0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0];
/// The first of the detailed timings: the preferred mode (§3.10.1).
const PREFERRED: usize = 54;
const EXTENSIONS: usize = 126;
/// Blocks that are looked at: a hostile count of 255 is not worth their reading.
const BLOCKS_MAX: usize = 4;

/// Whether this is a first block with a correct checksum.
pub fn is_valid(block: &[u8; BLOCK]) -> bool {
    block.starts_with(&HEADER) && sum(block) == 0
}

/// How many blocks follow the first one that matter here.
pub fn extensions(block: &[u8; BLOCK]) -> usize {
    usize::from(block[EXTENSIONS]).min(BLOCKS_MAX - 1)
}

/// Whether this is a block that follows, with a correct checksum.
pub fn is_valid_extension(block: &[u8]) -> bool {
    block.len() == BLOCK && sum(block) == 0
}

/// Pixels in a line and lines of the preferred mode; `None` if the block does not name one.
pub fn preferred(block: &[u8; BLOCK]) -> Option<(usize, usize)> {
    let timing = &block[PREFERRED..];
    // Without a pixel clock it is no timing.
    if timing[0] == 0 && timing[1] == 0 {
        return None;
    }
    let size = |low: u8, high: u8| usize::from(high >> 4) << 8 | usize::from(low);
    let (width, height) = (size(timing[2], timing[4]), size(timing[5], timing[7]));
    (width != 0 && height != 0).then_some((width, height))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(width: u16, height: u16) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(&HEADER);
        block[PREFERRED] = 1;
        block[PREFERRED + 2] = width as u8;
        block[PREFERRED + 4] = (width >> 8 << 4) as u8;
        block[PREFERRED + 5] = height as u8;
        block[PREFERRED + 7] = (height >> 8 << 4) as u8;
        block[BLOCK - 1] = sum(&block).wrapping_neg();
        block
    }

    #[test]
    fn the_first_timing_is_the_preferred_mode() {
        assert_eq!(preferred(&block(1280, 800)), Some((1280, 800)));
        assert_eq!(preferred(&block(3840, 2160)), Some((3840, 2160)));
        assert_eq!(preferred(&block(0, 800)), None);
        assert_eq!(preferred(&[0; BLOCK]), None);
    }

    #[test]
    fn a_wrong_checksum_or_header_is_found() {
        let good = block(1024, 768);
        assert!(is_valid(&good));
        for at in [0, 9, PREFERRED, BLOCK - 1] {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(!is_valid(&bad));
        }
        assert!(!is_valid(&[0; BLOCK]) && !is_valid(&[0xFF; BLOCK]));
    }

    #[test]
    fn not_all_extensions_are_believed_in() {
        let mut many = block(640, 480);
        many[EXTENSIONS] = 255;
        assert_eq!(extensions(&many), 3);
        assert!(is_valid_extension(&[0; BLOCK]));
        assert!(!is_valid_extension(&[1; BLOCK - 1]));
    }
}
