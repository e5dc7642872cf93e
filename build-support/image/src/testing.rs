//! Inputs for this crate's tests: small, but of the real formats, each part replaceable by a wrong one.

use crate::image_info;
use object::elf;

/// A core to be written as ELF64: text at 0, data on the next page, a relocation, symbols.
#[derive(Clone)]
pub(crate) struct Core {
    pub(crate) kind: u16,
    pub(crate) machine: u16,
    pub(crate) text: Vec<u8>,
    pub(crate) text_flags: u32,
    pub(crate) data: Vec<u8>,
    pub(crate) data_address: u64,
    pub(crate) bss: u64,
    pub(crate) rela: Option<(u64, u64)>,
    pub(crate) extra_dynamic: Option<(u64, u64)>,
    pub(crate) symbols: Vec<(&'static str, u64)>,
}

/// One entry of the relocation table.
pub(crate) struct Relocation {
    pub(crate) offset: u64,
    pub(crate) kind: u64,
    pub(crate) addend: i64,
}

const ELF_HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const SECTION_HEADER: u64 = 64;
const CONTENTS: u64 = 0x1000;
const RELA_IN_DATA: usize = 0x80;
const DYNAMIC_IN_DATA: usize = 0x100;

impl Core {
    pub(crate) const DATA: u64 = 0x1000;
    pub(crate) const PVH_ENTRY: u64 = 0x20;
    pub(crate) const HVM_ENTRY: u64 = 0x30;
    pub(crate) const INFO_IN_DATA: usize = 0x40;

    pub(crate) fn with_symbol(mut self, name: &'static str, address: u64) -> Self {
        self.symbols.retain(|symbol| symbol.0 != name);
        self.symbols.push((name, address));
        self
    }

    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.symbols.retain(|symbol| symbol.0 != name);
        self
    }

    pub(crate) fn with_reset_vector(self, start: u64, end: u64) -> Self {
        self.with_symbol("reset_vector_start", start).with_symbol("reset_vector_end", end)
    }

    pub(crate) fn with_relocation(mut self, relocation: Relocation) -> Self {
        let words = [relocation.offset, relocation.kind, relocation.addend as u64];
        for (index, word) in words.iter().enumerate() {
            let at = RELA_IN_DATA + index * 8;
            self.data[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        self
    }

    /// The file's bytes.
    pub(crate) fn elf(&self) -> Vec<u8> {
        let data = self.data_contents();
        let data_offset = CONTENTS + 0x1000;
        let symbols_offset = data_offset + data.len() as u64;
        let (symbols, strings) = self.symbol_table();
        let strings_offset = symbols_offset + symbols.len() as u64;
        let sections_offset = (strings_offset + strings.len() as u64).next_multiple_of(8);

        let mut out = Vec::new();
        out.extend(elf::ELFMAG);
        out.extend([2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        push16(&mut out, &[self.kind, self.machine]);
        push32(&mut out, &[1]);
        push64(&mut out, &[0, ELF_HEADER, sections_offset]);
        push32(&mut out, &[0]);
        push16(&mut out, &[ELF_HEADER as u16, PROGRAM_HEADER as u16, 3, SECTION_HEADER as u16, 3, 2]);

        let text = self.text.len() as u64;
        let length = data.len() as u64;
        segment(&mut out, 1, self.text_flags, CONTENTS, 0, text, text);
        segment(&mut out, 1, 6, data_offset, self.data_address, length, length + self.bss);
        let dynamic = DYNAMIC_IN_DATA as u64;
        segment(
            &mut out,
            2,
            6,
            data_offset + dynamic,
            self.data_address.wrapping_add(dynamic),
            length - dynamic,
            length - dynamic,
        );

        out.resize(CONTENTS as usize, 0);
        out.extend(&self.text);
        out.resize(data_offset as usize, 0);
        out.extend(data);
        let symbols_length = symbols.len() as u64;
        let strings_length = strings.len() as u64;
        out.extend(symbols);
        out.extend(strings);
        out.resize(sections_offset as usize, 0);
        section(&mut out, 0, 0, 0, 0, 0);
        section(&mut out, 2, symbols_offset, symbols_length, 2, 24);
        section(&mut out, 3, strings_offset, strings_length, 0, 0);
        out
    }

    pub(crate) fn data_contents(&self) -> Vec<u8> {
        let mut data = self.data.clone();
        let (table, size) = self.rela.unwrap_or((Self::DATA + RELA_IN_DATA as u64, 24));
        push64(&mut data, &[7, table, 8, size]);
        if let Some((tag, value)) = self.extra_dynamic {
            push64(&mut data, &[tag, value]);
        }
        push64(&mut data, &[0, 0]);
        data.truncate(self.data.len() + 64);
        data
    }

    fn symbol_table(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut symbols, mut strings) = (vec![0; 24], vec![0]);
        for (name, address) in &self.symbols {
            push32(&mut symbols, &[strings.len() as u32]);
            symbols.extend([0x10, 0]);
            push16(&mut symbols, &[0xfff1]);
            push64(&mut symbols, &[*address, 0]);
            strings.extend(name.as_bytes());
            strings.push(0);
        }
        (symbols, strings)
    }
}

impl Default for Core {
    fn default() -> Self {
        let mut data = vec![0xd0; DYNAMIC_IN_DATA];
        data[Self::INFO_IN_DATA..Self::INFO_IN_DATA + 8].copy_from_slice(&image_info::MAGIC);
        let core = Self {
            kind: elf::ET_DYN,
            machine: elf::EM_X86_64,
            text: (0..0x100).map(|byte| byte as u8).collect(),
            text_flags: elf::PF_R | elf::PF_X,
            data,
            data_address: Self::DATA,
            bss: 0x5000,
            rela: None,
            extra_dynamic: None,
            symbols: vec![
                ("pvh_entry", Self::PVH_ENTRY),
                ("hvm_entry", Self::HVM_ENTRY),
                ("reset_vector_start", 0xc0),
                ("reset_vector_end", 0x100),
                ("image_info", Self::DATA + Self::INFO_IN_DATA as u64),
            ],
        };
        core.with_relocation(Relocation { offset: Self::DATA, kind: 8, addend: 0x10 })
    }
}

/// The smallest PE32+ that passes for a runtime driver: headers and one empty section.
pub(crate) fn runtime_driver() -> Vec<u8> {
    runtime_driver_with(0x8664, 12)
}

/// The smallest PE32+ that passes for a UEFI application.
pub(crate) fn application() -> Vec<u8> {
    runtime_driver_with(0x8664, 10)
}

/// The same with another machine and subsystem.
pub(crate) fn runtime_driver_with(machine: u16, subsystem: u16) -> Vec<u8> {
    let mut out = b"MZ".to_vec();
    out.resize(0x3c, 0);
    push32(&mut out, &[0x40]);
    out.extend(b"PE\0\0");
    push16(&mut out, &[machine, 1]);
    push32(&mut out, &[0, 0, 0]);
    push16(&mut out, &[112, 0x2022]);
    let optional = out.len();
    push16(&mut out, &[0x20b, 0]);
    push32(&mut out, &[0, 0, 0, 0x1000, 0x1000]);
    push64(&mut out, &[0]);
    push32(&mut out, &[0x1000, 0x200]);
    push16(&mut out, &[0; 6]);
    push32(&mut out, &[0, 0x2000, 0x200, 0]);
    push16(&mut out, &[subsystem, 0]);
    push64(&mut out, &[0; 4]);
    push32(&mut out, &[0, 0]);
    assert_eq!(out.len() - optional, 112);
    out.extend(b".text\0\0\0");
    push32(&mut out, &[0x10, 0x1000, 0x200, 0x200, 0, 0, 0, 0x6000_0020]);
    out.resize(0x400, 0xcc);
    out
}

fn segment(out: &mut Vec<u8>, kind: u32, flags: u32, offset: u64, address: u64, in_file: u64, in_memory: u64) {
    push32(out, &[kind, flags]);
    push64(out, &[offset, address, address, in_file, in_memory, 0x1000]);
}

fn section(out: &mut Vec<u8>, kind: u32, offset: u64, size: u64, link: u32, entry: u64) {
    push32(out, &[0, kind]);
    push64(out, &[0, 0, offset, size]);
    push32(out, &[link, 1]);
    push64(out, &[1, entry]);
}

fn push16(out: &mut Vec<u8>, values: &[u16]) {
    values.iter().for_each(|value| out.extend(value.to_le_bytes()));
}

fn push32(out: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|value| out.extend(value.to_le_bytes()));
}

fn push64(out: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| out.extend(value.to_le_bytes()));
}

/// The images of our layout with the test core: OVMF.fd, OVMF_CODE.fd, OVMF_VARS.fd.
pub(crate) fn images() -> [Vec<u8>; 3] {
    images_with(None)
}

/// The same with a shell.
pub(crate) fn images_with(shell: Option<&[u8]>) -> [Vec<u8>; 3] {
    let layout = crate::layout::Layout::parse(include_str!("../../layout.toml")).unwrap();
    let core = crate::core_image::CoreImage::from_elf(&Core::default().elf()).unwrap();
    let contents = crate::assemble::Contents { core: &core, runtime: &runtime_driver(), shell };
    let images = crate::assemble::assemble(&layout, &contents).unwrap();
    images.into_iter().map(|image| image.bytes).collect::<Vec<_>>().try_into().unwrap()
}

/// A complete record of a variable store, padded.
pub(crate) fn record(name: &str, attributes: u32, data: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut out = vec![0xaa, 0x55, 0x3f, 0];
    push32(&mut out, &[attributes]);
    out.resize(36, 0);
    push32(&mut out, &[name.len() as u32, data.len() as u32]);
    out.extend([0x11; 16]);
    out.extend(name);
    out.extend(data);
    out.resize(out.len().next_multiple_of(4), 0xff);
    out
}

/// Repeatable randomness.
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of that seed, which must not be 0.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
