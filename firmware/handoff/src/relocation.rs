//! PE base relocations (PE/COFF §5.6) and what is kept of them for SetVirtualAddressMap.
//!
//! An image is relocated when it is loaded. A runtime image is relocated again to its virtual address, but by then it
//! may have changed some of the places that its relocations name, for example by ConvertPointer in a notification. So
//! the loader keeps a [`Fixup`] with the value of each place after loading, and a place that no longer holds that value
//! is left as it is.

/// No operation, pads a block (`IMAGE_REL_BASED_ABSOLUTE`).
pub const ABSOLUTE: u16 = 0;
/// A 32-bit address (`IMAGE_REL_BASED_HIGHLOW`).
pub const HIGHLOW: u16 = 3;
/// A 64-bit address (`IMAGE_REL_BASED_DIR64`).
pub const DIR64: u16 = 10;

const BLOCK_HEADER_SIZE: usize = 8;
const ENTRY_SIZE: usize = 2;
const TYPE_SHIFT: u32 = 12;
const OFFSET_MASK: u16 = 0xfff;

/// Something is wrong with a relocation directory or one of its places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// A block is shorter than its header, of odd length, or longer than the directory.
    Block,
    /// A place lies outside the image.
    OutsideImage,
    /// A type of relocation that a 64-bit x86 image cannot have.
    Type(u16),
}

/// One relocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relocation {
    /// Offset of the place from the image's base.
    pub rva: u32,
    /// Type: [`DIR64`] and so on.
    pub kind: u16,
}

/// A 64-bit place in a runtime image and what it held once the image was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Fixup {
    /// Offset of the place from the image's base.
    pub rva: u32,
    /// Zero.
    pub reserved: u32,
    /// Value after relocation at load time.
    pub value: u64,
}

/// The relocations of a directory (the bytes of the `.reloc` data directory entry), padding left out.
pub const fn relocations(directory: &[u8]) -> Relocations<'_> {
    Relocations { directory, page: 0, block: &[] }
}

/// Iterator of [`relocations`]; ends after the first error.
#[derive(Clone, Debug)]
pub struct Relocations<'a> {
    directory: &'a [u8],
    page: u32,
    block: &'a [u8],
}

impl Iterator for Relocations<'_> {
    type Item = Result<Relocation, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((entry, rest)) = self.block.split_first_chunk::<ENTRY_SIZE>() else {
                match self.enter_block()? {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                }
            };
            self.block = rest;
            let entry = u16::from_le_bytes(*entry);
            let kind = entry >> TYPE_SHIFT;
            if kind == ABSOLUTE {
                continue;
            }
            let Some(rva) = self.page.checked_add(u32::from(entry & OFFSET_MASK)) else {
                (self.directory, self.block) = (&[], &[]);
                return Some(Err(Error::OutsideImage));
            };
            return Some(Ok(Relocation { rva, kind }));
        }
    }
}

impl Relocations<'_> {
    fn enter_block(&mut self) -> Option<Result<(), Error>> {
        let directory = core::mem::take(&mut self.directory);
        if directory.is_empty() {
            return None;
        }
        let Some((page, size)) = block_header(directory) else { return Some(Err(Error::Block)) };
        if page == 0 && size == 0 {
            // Zeros to the end of the section: some linkers round the directory's size up.
            return None;
        }
        let block = directory.get(BLOCK_HEADER_SIZE..size).filter(|block| block.len().is_multiple_of(ENTRY_SIZE));
        let (Some(block), Some(rest)) = (block, directory.get(size..)) else { return Some(Err(Error::Block)) };
        (self.page, self.block, self.directory) = (page, block, rest);
        Some(Ok(()))
    }
}

fn block_header(directory: &[u8]) -> Option<(u32, usize)> {
    let (page, rest) = directory.split_first_chunk()?;
    let (size, _) = rest.split_first_chunk()?;
    Some((u32::from_le_bytes(*page), usize::try_from(u32::from_le_bytes(*size)).ok()?))
}

/// Adds `delta` (new base minus linked base) to each place of the loaded `image`.
pub fn relocate(image: &mut [u8], directory: &[u8], delta: u64) -> Result<(), Error> {
    for relocation in relocations(directory) {
        let place = dir64(image, relocation?)?;
        *place = u64::from_le_bytes(*place).wrapping_add(delta).to_le_bytes();
    }
    Ok(())
}

/// Number of [`Fixup`]s that [`capture`] makes of `directory`.
pub fn count(directory: &[u8]) -> Result<usize, Error> {
    relocations(directory).try_fold(0, |count, relocation| relocation.map(|_| count + 1))
}

/// Writes down what the places of the loaded and relocated `image` hold; `into` has [`count`] elements or more, of
/// which the used ones are returned.
pub fn capture<'a>(image: &mut [u8], directory: &[u8], into: &'a mut [Fixup]) -> Result<&'a [Fixup], Error> {
    let mut used = 0;
    for (relocation, fixup) in relocations(directory).zip(into.iter_mut()) {
        let relocation = relocation?;
        let value = u64::from_le_bytes(*dir64(image, relocation)?);
        *fixup = Fixup { rva: relocation.rva, reserved: 0, value };
        used += 1;
    }
    Ok(into.get(..used).unwrap_or_default())
}

/// Adds `delta` to each place of the image at `base`, `size` bytes long, that still holds what was captured; other places,
/// and places outside the image, are left alone. Returns how many were changed. No reference to the image is made, as it
/// may be the very one that runs this.
///
/// # Safety
/// The image's memory must be readable and writable.
pub unsafe fn apply(base: *mut u8, size: usize, fixups: &[Fixup], delta: u64) -> usize {
    let mut changed = 0;
    for fixup in fixups {
        let place = usize::try_from(fixup.rva).ok();
        let end = place.and_then(|place| place.checked_add(size_of::<u64>()));
        let (Some(place), Some(true)) = (place, end.map(|end| end <= size)) else { continue };
        // SAFETY: checked to lie within the image.
        let place = unsafe { base.add(place) }.cast::<u64>();
        // SAFETY: as above, and the caller vouches for the memory.
        if unsafe { place.read_unaligned() } == fixup.value {
            // SAFETY: as above.
            unsafe { place.write_unaligned(fixup.value.wrapping_add(delta)) };
            changed += 1;
        }
    }
    changed
}

fn dir64(image: &mut [u8], relocation: Relocation) -> Result<&mut [u8; 8], Error> {
    if relocation.kind != DIR64 {
        return Err(Error::Type(relocation.kind));
    }
    let rva = usize::try_from(relocation.rva).map_err(|_| Error::OutsideImage)?;
    image.get_mut(rva..).and_then(|tail| tail.first_chunk_mut()).ok_or(Error::OutsideImage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(page: u32, entries: &[u16]) -> Vec<u8> {
        let size = (BLOCK_HEADER_SIZE + entries.len() * ENTRY_SIZE) as u32;
        let mut bytes = page.to_le_bytes().to_vec();
        bytes.extend(size.to_le_bytes());
        bytes.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
        bytes
    }

    const fn dir64_at(offset: u16) -> u16 {
        DIR64 << TYPE_SHIFT | offset
    }

    #[test]
    fn blocks_follow_each_other_and_padding_is_left_out() {
        let directory = [block(0x1000, &[dir64_at(8), 0]), block(0x3000, &[dir64_at(0xff8)])].concat();
        let rvas: Vec<_> = relocations(&directory).map(|relocation| relocation.unwrap().rva).collect();
        assert_eq!(rvas, [0x1008, 0x3ff8]);
        assert_eq!(count(&directory), Ok(2));
    }

    #[test]
    fn zeros_after_the_last_block_end_the_directory() {
        let directory = [block(0x1000, &[dir64_at(8)]), vec![0; 16]].concat();
        assert_eq!(count(&directory), Ok(1));
    }

    #[test]
    fn damaged_blocks_are_errors_and_end_the_walk() {
        let mut long = block(0, &[dir64_at(0)]);
        long[4] = 100;
        let mut short = block(0, &[dir64_at(0)]);
        short[4] = 4;
        let mut odd = block(0, &[dir64_at(0), 0]);
        odd[4] = 11;
        for directory in [&long[..], &short, &odd, &[1, 2, 3]] {
            let mut walk = relocations(directory);
            assert_eq!(walk.next(), Some(Err(Error::Block)));
            assert_eq!(walk.next(), None);
        }
        let far = block(u32::MAX, &[dir64_at(1), dir64_at(2)]);
        assert_eq!(relocations(&far).collect::<Vec<_>>(), [Err(Error::OutsideImage)]);
    }

    #[test]
    fn relocating_moves_every_place() {
        let mut image = vec![0; 32];
        image[8..16].copy_from_slice(&0x1_4000_1000u64.to_le_bytes());
        let delta = 0x20_0000u64.wrapping_sub(0x1_4000_0000);
        relocate(&mut image, &block(0, &[dir64_at(8)]), delta).unwrap();
        assert_eq!(image[8..16], 0x20_1000u64.to_le_bytes());
    }

    #[test]
    fn a_place_across_the_end_of_the_image_is_an_error() {
        let directory = block(0, &[dir64_at(25)]);
        assert_eq!(relocate(&mut [0; 32], &directory, 1), Err(Error::OutsideImage));
        assert_eq!(capture(&mut [0; 32], &directory, &mut [Fixup::default()]), Err(Error::OutsideImage));
    }

    #[test]
    fn a_32_bit_relocation_is_refused() {
        let directory = block(0, &[HIGHLOW << TYPE_SHIFT]);
        assert_eq!(relocate(&mut [0; 32], &directory, 1), Err(Error::Type(HIGHLOW)));
    }

    #[test]
    fn only_places_that_still_hold_their_captured_value_move_again() {
        let mut image = vec![7; 32];
        let mut fixups = [Fixup::default(); 2];
        let fixups = capture(&mut image, &block(0, &[dir64_at(0), dir64_at(16)]), &mut fixups).unwrap();
        image[16] = 9;
        let outside = [Fixup { rva: 25, ..fixups[0] }, Fixup { rva: u32::MAX, ..fixups[0] }];
        let (base, size) = (image.as_mut_ptr(), image.len());
        // SAFETY: the image is a vector of that size.
        assert_eq!(unsafe { apply(base, size, fixups, 1) }, 1);
        // SAFETY: as above.
        assert_eq!(unsafe { apply(base, size, &outside, 1) }, 0);
        assert_eq!((image[0], image[16]), (8, 9));
    }
}
