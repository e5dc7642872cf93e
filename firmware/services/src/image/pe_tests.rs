use super::*;

const HEADERS: u32 = 0x400;
const NT: usize = 0x80;

/// A section to be built.
#[derive(Clone)]
pub(crate) struct Part {
    name: &'static str,
    address: u32,
    data: Vec<u8>,
    virtual_size: u32,
    characteristics: u32,
}

const CODE: u32 = pe::IMAGE_SCN_MEM_READ | pe::IMAGE_SCN_MEM_EXECUTE;
const DATA: u32 = pe::IMAGE_SCN_MEM_READ | pe::IMAGE_SCN_MEM_WRITE;
const CONST: u32 = pe::IMAGE_SCN_MEM_READ;

fn part(name: &'static str, address: u32, data: &[u8], virtual_size: u32, characteristics: u32) -> Part {
    Part { name, address, data: data.to_vec(), virtual_size, characteristics }
}

/// A PE file to be built; the fields that tests change.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) machine: u16,
    pub(crate) magic: u16,
    pub(crate) subsystem: u16,
    pub(crate) characteristics: u16,
    pub(crate) dll_characteristics: u16,
    pub(crate) base: u64,
    pub(crate) alignment: u32,
    pub(crate) size: u32,
    pub(crate) headers: u32,
    pub(crate) entry: u32,
    pub(crate) relocations: (u32, u32),
    pub(crate) resources: (u32, u32),
    pub(crate) parts: Vec<Part>,
}

impl File {
    pub(crate) fn new() -> Self {
        Self {
            machine: pe::IMAGE_FILE_MACHINE_AMD64,
            magic: pe::IMAGE_NT_OPTIONAL_HDR64_MAGIC,
            subsystem: pe::IMAGE_SUBSYSTEM_EFI_APPLICATION,
            characteristics: 0x22,
            dll_characteristics: pe::IMAGE_DLLCHARACTERISTICS_NX_COMPAT,
            base: 0x10_0000,
            alignment: 0x1000,
            size: 0x5000,
            headers: HEADERS,
            entry: 0x1010,
            relocations: (0, 0),
            resources: (0, 0),
            parts: vec![
                part(".text", 0x1000, &[0x90; 0x200], 0x180, CODE),
                part(".data", 0x2000, &[0xdd; 0x200], 0x1800, DATA),
                part(".rodata", 0x4000, &[0xcc; 0x200], 0x200, CONST),
            ],
        }
    }

    /// With a relocation section instead of `.rodata`.
    pub(crate) fn with_relocations(block: &[u8]) -> Self {
        let mut file = Self::new();
        file.relocations = (0x4000, block.len() as u32);
        file.parts[2] = part(".reloc", 0x4000, block, block.len() as u32, CONST);
        file
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0; HEADERS as usize];
        let mut put = |offset: usize, bytes: &[u8]| out[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &(NT as u32).to_le_bytes());
        put(NT, b"PE\0\0");
        put(NT + 4, &self.machine.to_le_bytes());
        put(NT + 6, &(self.parts.len() as u16).to_le_bytes());
        put(NT + 20, &(112 + 16 * 8_u16).to_le_bytes());
        put(NT + 22, &self.characteristics.to_le_bytes());
        let optional = NT + 24;
        put(optional, &self.magic.to_le_bytes());
        put(optional + 16, &self.entry.to_le_bytes());
        put(optional + 24, &self.base.to_le_bytes());
        put(optional + 32, &self.alignment.to_le_bytes());
        put(optional + 36, &0x200_u32.to_le_bytes());
        put(optional + 56, &self.size.to_le_bytes());
        put(optional + 60, &self.headers.to_le_bytes());
        put(optional + 68, &self.subsystem.to_le_bytes());
        put(optional + 70, &self.dll_characteristics.to_le_bytes());
        put(optional + 108, &16_u32.to_le_bytes());
        for (index, (address, size)) in [(2, self.resources), (5, self.relocations)] {
            put(optional + 112 + index * 8, &address.to_le_bytes());
            put(optional + 112 + index * 8 + 4, &size.to_le_bytes());
        }
        let mut raw = HEADERS;
        for (index, part) in self.parts.iter().enumerate() {
            let header = optional + 112 + 16 * 8 + index * 40;
            put(header, part.name.as_bytes());
            put(header + 8, &part.virtual_size.to_le_bytes());
            put(header + 12, &part.address.to_le_bytes());
            put(header + 16, &(part.data.len() as u32).to_le_bytes());
            put(header + 20, &raw.to_le_bytes());
            put(header + 36, &part.characteristics.to_le_bytes());
            raw += part.data.len() as u32;
        }
        for part in &self.parts {
            out.extend_from_slice(&part.data);
        }
        out
    }

    fn error(&self) -> PeError {
        Pe::parse(&self.bytes()).map(|_| ()).unwrap_err()
    }

    fn load_at(&self, base: u64) -> Result<Vec<u8>, PeError> {
        let bytes = self.bytes();
        let pe = Pe::parse(&bytes)?;
        let mut memory = vec![0xaa; pe.size()];
        pe.load(&mut memory, base)?;
        Ok(memory)
    }
}

pub(crate) fn block(page: u32, entries: &[(u16, u16)]) -> Vec<u8> {
    let mut bytes = page.to_le_bytes().to_vec();
    bytes.extend((8 + 2 * entries.len() as u32).to_le_bytes());
    bytes.extend(entries.iter().flat_map(|(kind, offset)| (kind << 12 | offset).to_le_bytes()));
    bytes
}

#[test]
fn sections_are_copied_to_their_places_and_the_rest_is_zero() {
    let file = File::new();
    let memory = file.load_at(0x10_0000).unwrap();
    assert_eq!(memory[..HEADERS as usize], file.bytes()[..HEADERS as usize]);
    assert!(memory[0x400..0x1000].iter().all(|byte| *byte == 0));
    // VirtualSize is shorter than the data of .text, and longer than that of .data.
    assert!(memory[0x1000..0x1180].iter().all(|byte| *byte == 0x90));
    assert!(memory[0x1180..0x2000].iter().all(|byte| *byte == 0));
    assert!(memory[0x2000..0x2200].iter().all(|byte| *byte == 0xdd));
    assert!(memory[0x2200..0x4000].iter().all(|byte| *byte == 0));
    assert!(memory[0x4000..0x4200].iter().all(|byte| *byte == 0xcc));
    assert!(memory[0x4200..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_section_without_virtual_size_is_as_long_as_its_data() {
    let mut file = File::new();
    file.parts[1].virtual_size = 0;
    assert!(file.load_at(0x10_0000).unwrap()[0x2000..0x2200].iter().all(|byte| *byte == 0xdd));
}

#[test]
fn relocations_add_the_distance_to_the_linked_address() {
    let file = File::with_relocations(&block(0x2000, &[(10, 8), (0, 0), (3, 0x20), (0, 0)]));
    let moved = file.load_at(0x10_0000 + 0x1_2345).unwrap();
    let dir64 = u64::from_le_bytes(moved[0x2008..0x2010].try_into().unwrap());
    assert_eq!(dir64, 0xdddd_dddd_dddd_dddd + 0x1_2345);
    let highlow = u32::from_le_bytes(moved[0x2020..0x2024].try_into().unwrap());
    assert_eq!(highlow, 0xdddd_dddd + 0x1_2345);
    let in_place = file.load_at(0x10_0000).unwrap();
    assert!(in_place[0x2000..0x2200].iter().all(|byte| *byte == 0xdd));
}

#[test]
fn a_block_whose_length_is_no_multiple_of_four_is_understood() {
    // As Linux has it.
    let file = File::with_relocations(&block(0, &[(0, 0)]));
    assert!(file.load_at(0x50_0000).is_ok());
}

#[test]
fn a_32_bit_address_that_does_not_reach_is_refused() {
    let file = File::with_relocations(&block(0x2000, &[(3, 0)]));
    let bytes = file.bytes();
    assert!(Pe::parse(&bytes).unwrap().needs_low_memory());
    assert_eq!(file.load_at(1 << 32), Err(PeError::RelocationOverflow));
}

#[test]
fn relocations_outside_the_image_or_unknown_are_refused() {
    let at = |entries: &[(u16, u16)], page| File::with_relocations(&block(page, entries)).load_at(0).unwrap_err();
    assert_eq!(at(&[(10, 0xff9)], 0x4000), PeError::RelocationOutside);
    assert_eq!(at(&[(3, 0xffd)], 0x4000), PeError::RelocationOutside);
    assert_eq!(at(&[(10, 0)], 0xffff_f000), PeError::RelocationOutside);
    assert_eq!(at(&[(5, 0)], 0x2000), PeError::RelocationType(5));
    let mut cut = File::with_relocations(&block(0x2000, &[(10, 0), (10, 8)]));
    cut.relocations.1 -= 2;
    assert_eq!(cut.load_at(0), Err(PeError::Relocations));
}

#[test]
fn a_relocation_directory_outside_the_image_is_refused() {
    let mut file = File::with_relocations(&block(0x2000, &[(10, 0), (10, 8)]));
    file.relocations.0 = 0x7f00_4000;
    assert_eq!(file.load_at(0), Err(PeError::Relocations));
}

#[test]
fn a_stripped_image_loads_at_its_own_address_only() {
    let mut file = File::new();
    file.characteristics |= pe::IMAGE_FILE_RELOCS_STRIPPED;
    assert!(file.load_at(0x10_0000).is_ok());
    assert_eq!(file.load_at(0x20_0000), Err(PeError::NotRelocatable { base: 0x10_0000 }));
}

#[test]
fn a_relocatable_image_may_have_nothing_to_relocate() {
    assert!(File::new().load_at(0x20_0000).is_ok());
}

#[test]
fn what_is_no_pe_file_is_said_to_be_none() {
    for bytes in [&b""[..], b"M", b"ZM", &[0; 512], b"\x7fELF"] {
        assert_eq!(Pe::parse(bytes).map(|_| ()), Err(PeError::NoMzHeader));
    }
    for bytes in [&b"MZ"[..], &[b'M', b'Z', 0, 0].repeat(16)] {
        assert_eq!(Pe::parse(bytes).map(|_| ()), Err(PeError::NoPeHeader));
    }
}

#[test]
fn another_machine_is_named() {
    let mut file = File::new();
    file.machine = pe::IMAGE_FILE_MACHINE_ARM64;
    let text = file.error().to_string();
    assert_eq!(text, "built for AArch64 (0xaa64), this is x86-64 (0x8664)");
    assert_eq!(Status::from(file.error()), Status::UNSUPPORTED);
    // A 32-bit image has shorter headers; the machine is what counts.
    file.machine = pe::IMAGE_FILE_MACHINE_I386;
    file.magic = pe::IMAGE_NT_OPTIONAL_HDR32_MAGIC;
    assert_eq!(file.error(), PeError::OtherMachine(pe::IMAGE_FILE_MACHINE_I386));
}

#[test]
fn what_is_no_efi_program_is_refused() {
    let mut file = File::new();
    file.subsystem = 3;
    assert_eq!(file.error(), PeError::NotEfi(3));
    file.magic = pe::IMAGE_NT_OPTIONAL_HDR32_MAGIC;
    assert_eq!(file.error(), PeError::NotPe32Plus(0x10b));
}

#[test]
fn the_subsystem_decides_the_memory_types() {
    let types = [
        (pe::IMAGE_SUBSYSTEM_EFI_APPLICATION, MemoryType::LOADER_CODE, MemoryType::LOADER_DATA),
        (pe::IMAGE_SUBSYSTEM_EFI_BOOT_SERVICE_DRIVER, MemoryType::BOOT_SERVICES_CODE, MemoryType::BOOT_SERVICES_DATA),
        (pe::IMAGE_SUBSYSTEM_EFI_RUNTIME_DRIVER, MemoryType::RUNTIME_SERVICES_CODE, MemoryType::RUNTIME_SERVICES_DATA),
    ];
    for (subsystem, code, data) in types {
        let bytes = File { subsystem, ..File::new() }.bytes();
        let subsystem = Pe::parse(&bytes).unwrap().subsystem();
        assert_eq!((subsystem.code_type(), subsystem.data_type()), (code, data));
    }
}

#[test]
fn a_cut_off_file_names_the_section() {
    let bytes = File::new().bytes();
    let error = Pe::parse(&bytes[..0x500]).unwrap_err();
    assert_eq!(error.to_string(), "truncated: section .text ends at 0x600 of 0x500");
    assert_eq!(Status::from(error), Status::LOAD_ERROR);
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let bytes = File::new().bytes();
    for length in (0..bytes.len()).step_by(if cfg!(miri) { 101 } else { 1 }) {
        assert!(Pe::parse(&bytes[..length]).is_err(), "{length:#x}");
    }
}

#[test]
fn sections_and_entry_point_lie_inside_the_image() {
    let mut file = File::new();
    file.parts[2].address = 0x4f00;
    let section = SectionName(*b".rodata\0");
    assert_eq!(file.error(), PeError::SectionOutside { section, end: 0x5100, image: 0x5000 });
    file.parts[2].address = 0xffff_fff0;
    assert!(matches!(file.error(), PeError::SectionOutside { .. }));
    for entry in [0, 0x5000, u32::MAX] {
        assert_eq!(File { entry, ..File::new() }.error(), PeError::EntryPoint(entry));
    }
}

#[test]
fn headers_hold_the_section_table_and_fit_file_and_image() {
    for headers in [0, 0x100, 0x5001, 0x10_0000, u32::MAX] {
        assert_eq!(File { headers, ..File::new() }.error(), PeError::Headers, "{headers:#x}");
    }
    for alignment in [0, 3, 0x1001] {
        assert_eq!(File { alignment, ..File::new() }.error(), PeError::SectionAlignment(alignment));
    }
}

#[test]
fn page_aligned_sections_are_protected_by_kind() {
    let bytes = File::new().bytes();
    let segments = Pe::parse(&bytes).unwrap().segments();
    let access: Vec<_> = segments
        .iter()
        .map(|s| (s.offset >> 12, s.pages, s.protection.read_only, s.protection.execute_protect))
        .collect();
    assert_eq!(access, [(0, 1, true, true), (1, 1, true, false), (2, 2, false, true), (4, 1, true, true)]);
}

#[test]
fn code_stays_writable_without_nx_compat() {
    let bytes = File { dll_characteristics: 0, ..File::new() }.bytes();
    let segments = Pe::parse(&bytes).unwrap().segments();
    assert!(segments.iter().all(|segment| !segment.protection.read_only));
    assert_eq!(segments.iter().filter(|segment| !segment.protection.execute_protect).count(), 1);
}

#[test]
fn sections_that_share_pages_are_not_protected() {
    let bytes = File { alignment: 0x200, ..File::new() }.bytes();
    assert_eq!(Pe::parse(&bytes).unwrap().segments(), []);
    let mut overlapping = File::new();
    overlapping.parts[0].virtual_size = 0x1001;
    let bytes = overlapping.bytes();
    assert_eq!(Pe::parse(&bytes).unwrap().segments(), []);
}

#[test]
fn alignment_is_a_page_or_what_the_image_asks_for() {
    for (alignment, expected) in [(0x20, 0x1000), (0x1000, 0x1000), (0x20_0000, 0x20_0000)] {
        let bytes = File { alignment, ..File::new() }.bytes();
        assert_eq!(Pe::parse(&bytes).unwrap().alignment(), expected);
    }
}

/// A resource section at `address` with a package list of `length` bytes as the resource "HII".
fn resources(address: u32, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let table = |named: u16, ids: u16, name: u32, offset: u32| {
        let mut table = vec![0; 12];
        table.extend(named.to_le_bytes());
        table.extend(ids.to_le_bytes());
        table.extend(name.to_le_bytes());
        table.extend(offset.to_le_bytes());
        table
    };
    bytes.extend(table(1, 0, 0x8000_0000 | 88, 0x8000_0000 | 24));
    bytes.extend(table(0, 1, 1, 0x8000_0000 | 48));
    bytes.extend(table(0, 1, 0x409, 72));
    bytes.extend((address + 96).to_le_bytes());
    bytes.extend(24_u32.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(3_u16.to_le_bytes());
    bytes.extend("HII".encode_utf16().flat_map(u16::to_le_bytes));
    bytes.extend([0x55; 16]);
    bytes.extend(length.to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn a_hii_package_list_is_found_in_the_resources() {
    let with = |length| {
        let mut file = File::new();
        let data = resources(0x4000, length);
        file.resources = (0x4000, data.len() as u32);
        file.parts[2] = part(".rsrc", 0x4000, &data, data.len() as u32, CONST);
        let bytes = file.bytes();
        let memory = file.load_at(0).unwrap();
        Pe::parse(&bytes).unwrap().hii_package_list(&memory)
    };
    assert_eq!(with(24), Some(0x4060..0x4078));
    assert_eq!(with(25), None);
}

#[test]
fn no_damage_to_a_file_is_more_than_an_error() {
    let mut file = File::with_relocations(&block(0x2000, &[(10, 8), (3, 0x20)]));
    let data = resources(0x2000, 24);
    file.resources = (0x2000, data.len() as u32);
    file.parts[1].data[..data.len()].copy_from_slice(&data);
    let good = file.bytes();
    let mut memory = Vec::new();
    let mut try_one = |bytes: &[u8]| {
        if let Ok(pe) = Pe::parse(bytes)
            && pe.size() < 1 << 20
        {
            memory.clear();
            memory.resize(pe.size(), 0);
            let _ = pe.load(&mut memory, 0x1234_5000);
            let _ = (pe.segments(), pe.hii_package_list(&memory), pe.needs_low_memory());
        }
    };
    let step = if cfg!(miri) { 211 } else { 1 };
    for offset in (0..good.len()).step_by(step) {
        for value in [0, 1, 0x7f, 0x80, 0xff, good[offset] ^ 1, good[offset].wrapping_add(1)] {
            let mut bad = good.clone();
            bad[offset] = value;
            try_one(&bad);
        }
    }
    // Several places at once, from a simple generator.
    let mut seed = 0x2545_f491_u32;
    let mut next = |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed as usize % bound
    };
    for _ in 0..if cfg!(miri) { 5 } else { 20_000 } {
        let mut bad = good.clone();
        for _ in 0..8 {
            let offset = if next(2) == 0 { next(HEADERS as usize) } else { next(bad.len()) };
            bad[offset] = next(256) as u8;
        }
        bad.truncate(bad.len() - next(2) * next(bad.len()));
        try_one(&bad);
    }
}

/// The offsets that an Authenticode digest covers in these files: all but the checksum and the place of the signatures.
fn covered(file: &[u8]) -> Vec<(usize, usize)> {
    let pe = Pe::parse(file).unwrap();
    let pieces = pe.authenticode().unwrap();
    pieces.iter().map(|piece| (piece.as_ptr().addr() - file.as_ptr().addr(), piece.len())).collect()
}

#[test]
fn an_authenticode_digest_leaves_checksum_and_signatures_out() {
    let mut file = File::new().bytes();
    let end = file.len();
    let checksum = NT + 24 + 64;
    let entry = NT + 24 + 112 + 4 * 8;
    let start = [
        (0, checksum),
        (checksum + 4, entry - checksum - 4),
        (entry + 8, HEADERS as usize - entry - 8),
        (0x400, 0x200),
        (0x600, 0x200),
        (0x800, 0x200),
    ];
    assert_eq!(covered(&file), start);
    // Bytes behind the sections count, signatures at the end do not.
    file.extend([1; 24]);
    file[entry..entry + 8].copy_from_slice(&[0, 0, 0, 0, 16, 0, 0, 0]);
    let with_rest: Vec<_> = start.into_iter().chain([(end, 8)]).collect();
    assert_eq!(covered(&file), with_rest);
    // Signatures longer than the file: there is no digest.
    file[entry + 4..entry + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Pe::parse(&file).unwrap().authenticode(), None);
}
