//! An image split into code and variables, and put together again: `join(split(x))` is `x`, byte for byte.
//!
//! An image of ours keeps an empty volume where the variables were, and its core is told that there are none: split off
//! the combined image of a build, the code is the build's own `OVMF_CODE.fd`. An image without our descriptor is taken for
//! one of EDK2, whose code is what follows the variables.

use std::ops::Range;

use thiserror::Error;

use crate::dissect::{Content, Descriptor, Dissection};
use crate::image_info::{self, ImageInfo};
use crate::{ffs, fv};

/// Offset of the sum over a file's contents in its header.
const FILE_SUM: usize = 17;

/// Why an image cannot be split, or its parts not be joined.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum JoinError {
    /// No variables in the image.
    #[error("there is no volume of variables in it; is it a code image already?")]
    NoVariables,
    /// Only variables.
    #[error("there is nothing but variables in it; it needs no splitting")]
    NoCode,
    /// EDK2's images have the variables in front.
    #[error("its variables at {0:#x} are not in front, and it has no descriptor of ovmf-xen that says how to split it")]
    Order(usize),
    /// The descriptor says otherwise than the volumes.
    #[error("its descriptor says that the variables are at {stated:#x}, and they are at {found:#x}: it is damaged")]
    Descriptor {
        /// What the descriptor says.
        stated: u64,
        /// Where they are.
        found: u64,
    },
    /// The file that the descriptor is in was not found.
    #[error("the file with the core is not found in the code volume, which is damaged")]
    NoCore,
    /// The code image has variables of its own.
    #[error("the code has variables already, at {0:#x}; split it first")]
    HasVariables(u64),
    /// The variables are none.
    #[error("the variables are not one volume of variables: {0}")]
    NotVariables(String),
    /// The place is of another size.
    #[error("the code has room for {room:#x} bytes of variables, and these are {size:#x}; take a store of that size")]
    Size {
        /// What the code has.
        room: u64,
        /// What is to go there.
        size: u64,
    },
    /// No place for variables.
    #[error("the code has no empty volume as a place for variables, and it is no code of EDK2")]
    NoRoom,
    /// What was split does not give the image back.
    #[error("it cannot be split so that joining gives it back; the place at {0:#x} would differ")]
    NotReversible(usize),
}

/// Splits a combined image into code and variables.
///
/// # Errors
/// It is not both, or is damaged so that joining would not give it back.
pub fn split(image: &[u8]) -> Result<(Vec<u8>, Vec<u8>), JoinError> {
    let dissection = Dissection::of(image);
    let vars = dissection.variables().ok_or(JoinError::NoVariables)?.range();
    if vars.len() == image.len() {
        return Err(JoinError::NoCode);
    }
    let code = match dissection.descriptor {
        Some(descriptor) if descriptor.info.vars_offset != vars.start as u64 => {
            return Err(JoinError::Descriptor { stated: descriptor.info.vars_offset, found: vars.start as u64 });
        }
        Some(descriptor) => {
            let mut code = image.to_vec();
            code[vars.clone()].copy_from_slice(&fv::empty(vars.len()));
            let info = ImageInfo { vars_offset: 0, vars_size: 0, ..descriptor.info };
            describe(&mut code, &dissection, &descriptor, info)?;
            code
        }
        None if vars.start != 0 => return Err(JoinError::Order(vars.start)),
        None => image[vars.end..].to_vec(),
    };
    let variables = image[vars].to_vec();
    let again = join(&code, &variables)?;
    match again.iter().zip(image).position(|(one, other)| one != other) {
        None if again.len() == image.len() => Ok((code, variables)),
        at => Err(JoinError::NotReversible(at.unwrap_or(image.len().min(again.len())))),
    }
}

/// Puts code and variables together.
///
/// # Errors
/// One of them is not what it should be, or there is no room for the variables.
pub fn join(code: &[u8], variables: &[u8]) -> Result<Vec<u8>, JoinError> {
    check_variables(variables)?;
    let dissection = Dissection::of(code);
    if let Some(region) = dissection.variables() {
        return Err(JoinError::HasVariables(region.offset));
    }
    let Some(descriptor) = dissection.descriptor else { return join_edk2(&dissection, code, variables) };
    let place = place(code, &dissection, variables.len())?;
    let mut image = code.to_vec();
    image[place.clone()].copy_from_slice(variables);
    let info = ImageInfo { vars_offset: place.start as u64, vars_size: place.len() as u64, ..descriptor.info };
    describe(&mut image, &dissection, &descriptor, info)?;
    Ok(image)
}

fn join_edk2(dissection: &Dissection, code: &[u8], variables: &[u8]) -> Result<Vec<u8>, JoinError> {
    let in_front = dissection.regions.first().is_some_and(|region| matches!(region.content, Content::Code(_)));
    if in_front { Ok([variables, code].concat()) } else { Err(JoinError::NoRoom) }
}

/// Whatever its records are like: a damaged store is told by `inspect`, and mended by the firmware.
fn check_variables(variables: &[u8]) -> Result<(), JoinError> {
    let dissection = Dissection::of(variables);
    match dissection.variables() {
        Some(region) if region.range() == (0..variables.len()) => Ok(()),
        Some(region) => {
            let (at, size) = (region.offset, region.size);
            Err(JoinError::NotVariables(format!("there is one of {size:#x} bytes at {at:#x}, and something beside it")))
        }
        None => Err(JoinError::NotVariables("the file has no volume of variables".to_owned())),
    }
}

/// The empty volume that keeps the place of `size` bytes of variables.
fn place(code: &[u8], dissection: &Dissection, size: usize) -> Result<Range<usize>, JoinError> {
    let spare = dissection.regions.iter().find(|region| matches!(region.content, Content::Spare));
    let range = spare.ok_or(JoinError::NoRoom)?.range();
    if range.len() != size {
        return Err(JoinError::Size { room: range.len() as u64, size: size as u64 });
    }
    if code[range.clone()] == fv::empty(size) { Ok(range) } else { Err(JoinError::NoRoom) }
}

/// Changes the descriptor in the core, and with it the sum of the file that the core is in.
fn describe(
    image: &mut [u8],
    dissection: &Dissection,
    descriptor: &Descriptor,
    info: ImageInfo,
) -> Result<(), JoinError> {
    let at = descriptor.offset as usize;
    let files = dissection.regions.iter().flat_map(|region| match &region.content {
        Content::Code(volume) => volume.files.as_slice(),
        _ => &[],
    });
    let file = files.into_iter().find(|file| file.range().contains(&at)).ok_or(JoinError::NoCore)?;
    let header = file.offset as usize;
    let place = at..at + image_info::LENGTH;
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let bytes = info.to_bytes();
    let grown = sum(&bytes).wrapping_sub(sum(&image[place.clone()]));
    image[place].copy_from_slice(&bytes);
    if image[header + ffs::ATTRIBUTES] & ffs::ATTRIBUTE_CHECKSUM != 0 {
        image[header + FILE_SUM] = image[header + FILE_SUM].wrapping_sub(grown);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn what_a_build_makes_is_what_splitting_gives() {
        let [combined, code, vars] = testing::images();
        assert_eq!(split(&combined).unwrap(), (code.clone(), vars.clone()));
        assert_eq!(join(&code, &vars).unwrap(), combined);
    }

    #[test]
    fn joining_what_was_split_gives_the_image_back_whatever_the_variables_hold() {
        let [mut image, ..] = testing::images();
        for at in (0x1000 + 72..0x8_5000).step_by(0x1_3333) {
            image[at] ^= 0x5a;
            let (code, vars) = split(&image).unwrap();
            assert!(join(&code, &vars).unwrap() == image);
        }
    }

    #[test]
    fn no_changed_byte_makes_a_split_that_does_not_join() {
        let [image, ..] = testing::images();
        let mut random = testing::Random::new(3);
        for _ in 0..60 {
            let mut damaged = image.clone();
            for _ in 0..=random.below(3) {
                let at = match random.below(4) {
                    0 => random.below(0x1100),
                    1 => 0x8_5000 + random.below(0x3000),
                    _ => random.below(image.len()),
                };
                damaged[at] = random.next() as u8;
            }
            if let Ok((code, vars)) = split(&damaged) {
                assert!(join(&code, &vars).unwrap() == damaged);
            }
        }
    }

    #[test]
    fn an_image_of_edk2_is_variables_and_then_code() {
        let [_, _, vars] = testing::images();
        let layout = crate::layout::Layout::parse(include_str!("../../layout.toml")).unwrap();
        let volume =
            crate::fv::Volume { size: 0x4000, name: layout.guids.core, files: vec![], reset_code: vec![0x90; 32] };
        let code = volume.to_bytes().unwrap();
        let image = join(&code, &vars).unwrap();
        assert_eq!(image, [vars.clone(), code.clone()].concat());
        assert_eq!(split(&image).unwrap(), (code, vars));
    }

    #[test]
    fn what_cannot_be_split_or_joined_says_why() {
        let [combined, code, vars] = testing::images();
        assert_eq!(split(&code), Err(JoinError::NoVariables));
        assert_eq!(split(&vars), Err(JoinError::NoCode));
        assert_eq!(split(&[0; 5000]), Err(JoinError::NoVariables));
        assert_eq!(join(&combined, &vars), Err(JoinError::HasVariables(0x1000)));
        assert!(matches!(join(&code, &vars[..0x8_3000]), Err(JoinError::Size { size: 0x8_3000, .. })));
        assert!(matches!(join(&code, &code), Err(JoinError::NotVariables(_))));
        assert_eq!(join(&vars, &vars), Err(JoinError::HasVariables(0)));
        assert_eq!(join(&[0xff; 0x2000], &vars), Err(JoinError::NoRoom));
        let layout =
            crate::layout::VarsLayout { store: 0xe000, event_log: 0x1000, ftw_working: 0x1000, ftw_spare: 0x1_0000 };
        let small = crate::vars::empty(&layout);
        assert_eq!(join(&code, &small), Err(JoinError::Size { room: 0x8_4000, size: 0x2_0000 }));
    }
}
