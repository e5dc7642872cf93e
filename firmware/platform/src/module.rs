//! What a module is: the file that `ramdisk=` of a PVH guest names.

/// Offset of the file system GUID in EFI_FIRMWARE_VOLUME_HEADER, and of the signature.
const FILE_SYSTEM: usize = 16;
const SIGNATURE: usize = 40;
/// `gEfiSystemNvDataFvGuid`, as it is stored: a volume of variables.
const NV_DATA: [u8; 16] =
    [0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50];
/// Offset of `e_lfanew` in a DOS header.
const PE_OFFSET: usize = 0x3c;
/// IMAGE_FILE_MACHINE_AMD64.
const AMD64: u16 = 0x8664;
/// Offset of the signature of a Linux kernel's setup header (Linux, `Documentation/arch/x86/boot.rst`).
const LINUX_SIGNATURE: usize = 0x202;

/// What a module holds, as far as its first bytes tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contents {
    /// A volume of variables.
    Variables,
    /// An EFI program: a kernel with EFI stub, a unified kernel image, a boot loader.
    Program,
    /// Something that is of no use here, in words.
    Other(&'static str),
}

/// Beginnings of files that are given as `ramdisk=` out of habit or by mistake.
const BEGINNINGS: [(&[u8], &str); 12] = [
    (b"070701", INITIAL_RAM_DISK),
    (b"070702", INITIAL_RAM_DISK),
    (b"\xc7\x71", INITIAL_RAM_DISK),
    (b"\x1f\x8b", COMPRESSED),
    (b"\xfd7zXZ", COMPRESSED),
    (b"\x28\xb5\x2f\xfd", COMPRESSED),
    (b"\x02\x21\x4c\x18", COMPRESSED),
    (b"\x04\x22\x4d\x18", COMPRESSED),
    (b"BZh", COMPRESSED),
    (b"\x5d\x00\x00", COMPRESSED),
    (b"\x7fELF", "an ELF file. What can be started is an EFI program, as Linux kernels with EFI stub are"),
    (b"OVMFXEN\0", "a piece of this firmware"),
];
const INITIAL_RAM_DISK: &str =
    "an initial RAM disk, which is of use with a kernel only: make a unified kernel image of both";
const COMPRESSED: &str =
    "compressed, perhaps an initial RAM disk, which is of use with a kernel only: make a unified kernel image of both";

impl Contents {
    /// Looks at a module.
    pub fn of(module: &[u8]) -> Self {
        if module.get(SIGNATURE..SIGNATURE + 4) == Some(b"_FVH") {
            let variables = module.get(FILE_SYSTEM..FILE_SYSTEM + 16) == Some(&NV_DATA);
            return if variables { Self::Variables } else { Self::Other("a firmware volume without variables") };
        }
        if module.starts_with(b"MZ") {
            return program(module);
        }
        if module.get(LINUX_SIGNATURE..LINUX_SIGNATURE + 4) == Some(b"HdrS") {
            return Self::Other("a Linux kernel without EFI stub (CONFIG_EFI_STUB)");
        }
        let known = BEGINNINGS.iter().find(|(beginning, _)| module.starts_with(beginning));
        Self::Other(known.map_or("neither variables nor an EFI program", |(_, what)| what))
    }
}

/// What starts like a DOS program.
fn program(module: &[u8]) -> Contents {
    let offset = module.get(PE_OFFSET..).and_then(|rest| rest.first_chunk()).map(|at| u32::from_le_bytes(*at) as usize);
    let header = offset.and_then(|offset| module.get(offset..)).and_then(|rest| rest.first_chunk::<6>());
    match header {
        Some([b'P', b'E', 0, 0, low, high]) if u16::from_le_bytes([*low, *high]) == AMD64 => Contents::Program,
        Some([b'P', b'E', 0, 0, ..]) => Contents::Other("a program for another machine than x86-64"),
        _ => Contents::Other("a DOS program, or an EFI program cut short"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn pe(machine: u16) -> Vec<u8> {
        let mut file = vec![0; 0x100];
        file[..2].copy_from_slice(b"MZ");
        file[PE_OFFSET] = 0x80;
        file[0x80..0x84].copy_from_slice(b"PE\0\0");
        file[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
        file
    }

    fn volume(file_system: &[u8; 16]) -> Vec<u8> {
        let mut volume = vec![0; 0x80];
        volume[FILE_SYSTEM..FILE_SYSTEM + 16].copy_from_slice(file_system);
        volume[SIGNATURE..SIGNATURE + 4].copy_from_slice(b"_FVH");
        volume
    }

    fn words(module: &[u8]) -> &'static str {
        match Contents::of(module) {
            Contents::Other(words) => words,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn variables_and_programs_are_told_apart() {
        assert_eq!(Contents::of(&volume(&NV_DATA)), Contents::Variables);
        assert_eq!(Contents::of(&pe(AMD64)), Contents::Program);
    }

    #[test]
    fn what_is_of_no_use_is_called_by_its_name() {
        assert!(words(&volume(&[7; 16])).contains("firmware volume"));
        assert!(words(&pe(0xaa64)).contains("another machine"));
        assert!(words(b"MZ").contains("cut short"));
        let mut kernel = vec![0; 0x400];
        kernel[LINUX_SIGNATURE..LINUX_SIGNATURE + 4].copy_from_slice(b"HdrS");
        assert!(words(&kernel).contains("without EFI stub"));
        assert!(words(b"070701000").contains("initial RAM disk"));
        assert!(words(b"\x1f\x8b\x08").contains("compressed"));
        assert!(words(b"\x7fELF\x02").contains("ELF"));
        for module in [&b""[..], b"#!/bin/sh", &[0xff; 600]] {
            assert!(words(module).contains("neither"));
        }
    }

    #[test]
    fn no_cut_panics_or_makes_something_else() {
        for whole in [volume(&NV_DATA), pe(AMD64)] {
            for length in 0..whole.len() {
                let contents = Contents::of(&whole[..length]);
                assert!(matches!(contents, Contents::Other(_)) || contents == Contents::of(&whole));
            }
        }
    }
}
