//! SMBIOS (DMTF DSP0134, SMBIOS 3.7): what hvmloader leaves behind is checked and passed on as it is, with what `smbios=` and
//! `smbios_firmware=` of the guest's configuration put into it. PVH guests get tables from nobody; [`own`] makes theirs.
//!
//! | item | what |
//! | --- | --- |
//! | [`find`] | entry points in the BIOS area |
//! | [`EntryPoint`] | an entry point that leads to a table whose structures are whole |
//! | [`Structures`] | the structures of a table, in order |
//! | [`options`] | words for the firmware among the OEM strings |
//! | [`own`] | tables of our own |
//!
//! hvmloader's tables follow SMBIOS 2.4, where a UUID is 16 bytes in the order of its text; from 2.6 on, its first three fields
//! are little-endian (§7.2.1). The version therefore is never changed on the way.

pub mod own;

use core::ops::Range;

use arrayvec::ArrayVec;

use crate::acpi::{array, sum};
use crate::options::PREFIX;
use crate::{COMMAND_LINE_MAX, PhysicalMemory, legacy_area};

/// Longest entry point.
pub const ENTRY_POINT_MAX: usize = 32;
/// Type of the structure that ends a table (§7.44).
const END: u8 = 127;
/// Type of the OEM strings (§7.12).
const OEM_STRINGS: u8 = 11;
/// Size of the header every structure starts with (§6.1.2).
const HEADER: u64 = 4;

/// The two forms of an entry point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Of SMBIOS 2.1 (§5.2.1): the table lies below 4 GiB.
    Legacy,
    /// Of SMBIOS 3.0 (§5.2.2).
    Modern,
}

/// Offsets in an entry point of SMBIOS 2.1.
mod legacy {
    pub const ANCHOR: &[u8] = b"_SM_";
    pub const CHECKSUM: usize = 0x04;
    pub const LENGTH: usize = 0x05;
    pub const VERSION: usize = 0x06;
    pub const LARGEST: usize = 0x08;
    /// The second half, with an anchor and a checksum of its own.
    pub const HALF: usize = 0x10;
    pub const HALF_ANCHOR: &[u8] = b"_DMI_";
    pub const HALF_CHECKSUM: usize = 0x15;
    pub const TABLE_LENGTH: usize = 0x16;
    pub const TABLE: usize = 0x18;
    pub const COUNT: usize = 0x1C;
    pub const BCD_VERSION: usize = 0x1E;
    pub const SIZE: usize = 0x1F;
    /// What version 2.1 of the specification gave as the size, by mistake.
    pub const SIZE_OF_2_1: usize = 0x1E;
}

/// Offsets in an entry point of SMBIOS 3.0.
mod modern {
    pub const ANCHOR: &[u8] = b"_SM3_";
    pub const CHECKSUM: usize = 0x05;
    pub const LENGTH: usize = 0x06;
    pub const VERSION: usize = 0x07;
    pub const REVISION: usize = 0x0A;
    pub const TABLE_LENGTH: usize = 0x0C;
    pub const TABLE: usize = 0x10;
    pub const SIZE: usize = 0x18;
}

/// An entry point that leads to a table whose structures are whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryPoint {
    form: Form,
    bytes: ArrayVec<u8, ENTRY_POINT_MAX>,
    /// The table, to the end of its last structure.
    table: Range<u64>,
}

/// The entry points that hvmloader left behind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// The one of SMBIOS 2.1.
    pub legacy: Option<EntryPoint>,
    /// The one of SMBIOS 3.0, which is preferred.
    pub modern: Option<EntryPoint>,
}

impl Found {
    /// The table, if there is any.
    pub fn table(&self) -> Option<Range<u64>> {
        self.modern.as_ref().or(self.legacy.as_ref()).map(EntryPoint::table)
    }
}

/// Looks for entry points in the BIOS area.
pub fn find(memory: &dyn PhysicalMemory) -> Found {
    let look = |form, anchor: &[u8]| legacy_area::find(memory, anchor, |at| EntryPoint::read(memory, form, at));
    Found { legacy: look(Form::Legacy, legacy::ANCHOR), modern: look(Form::Modern, modern::ANCHOR) }
}

impl EntryPoint {
    /// The entry point at `address`, if it is right and so are all structures of its table.
    fn read(memory: &dyn PhysicalMemory, form: Form, address: u64) -> Option<Self> {
        let mut bytes = [0; ENTRY_POINT_MAX];
        let minimum = match form {
            Form::Legacy => legacy::SIZE,
            Form::Modern => modern::SIZE,
        };
        memory.read(address, &mut bytes[..minimum]).then_some(())?;
        let claimed = usize::from(match form {
            Form::Legacy => bytes[legacy::LENGTH],
            Form::Modern => bytes[modern::LENGTH],
        });
        let length = if form == Form::Legacy && claimed == legacy::SIZE_OF_2_1 { legacy::SIZE } else { claimed };
        if !(minimum..=ENTRY_POINT_MAX).contains(&length) || !memory.read(address, &mut bytes[..length]) {
            return None;
        }
        let half = &bytes[legacy::HALF..legacy::SIZE];
        if sum(&bytes[..claimed]) != 0
            || (form == Form::Legacy && (!half.starts_with(legacy::HALF_ANCHOR) || sum(half) != 0))
        {
            return None;
        }
        let (table, size, count) = match form {
            Form::Legacy => (
                u32::from_le_bytes(array(&bytes, legacy::TABLE)).into(),
                u16::from_le_bytes(array(&bytes, legacy::TABLE_LENGTH)).into(),
                Some(u16::from_le_bytes(array(&bytes, legacy::COUNT))),
            ),
            Form::Modern => (
                u64::from_le_bytes(array(&bytes, modern::TABLE)),
                u32::from_le_bytes(array(&bytes, modern::TABLE_LENGTH)),
                None,
            ),
        };
        let table = table..table.checked_add(size.into())?;
        let end = whole(memory, table.clone(), count)?;
        let bytes = bytes.iter().copied().take(length).collect();
        Some(Self { form, bytes, table: table.start..end })
    }

    /// Which form it has.
    pub const fn form(&self) -> Form {
        self.form
    }

    /// The table it leads to.
    pub fn table(&self) -> Range<u64> {
        self.table.clone()
    }

    /// Version of the specification that the table follows.
    pub fn version(&self) -> (u8, u8) {
        let at = match self.form {
            Form::Legacy => legacy::VERSION,
            Form::Modern => modern::VERSION,
        };
        let [major, minor] = array(&self.bytes, at);
        (major, minor)
    }

    /// The same entry point for its table at another address; `None` if it cannot lead there.
    pub fn leading_to(&self, table: u64) -> Option<ArrayVec<u8, ENTRY_POINT_MAX>> {
        let mut bytes = self.bytes.clone();
        let size = self.table.end - self.table.start;
        match self.form {
            Form::Legacy => {
                put(&mut bytes, legacy::TABLE, &u32::try_from(table).ok()?.to_le_bytes());
                put(&mut bytes, legacy::TABLE_LENGTH, &u16::try_from(size).ok()?.to_le_bytes());
            }
            Form::Modern => {
                put(&mut bytes, modern::TABLE, &table.to_le_bytes());
                put(&mut bytes, modern::TABLE_LENGTH, &u32::try_from(size).ok()?.to_le_bytes());
            }
        }
        seal(self.form, &mut bytes);
        Some(bytes)
    }
}

/// Sets the checksums of an entry point.
fn seal(form: Form, bytes: &mut [u8]) {
    let set = |bytes: &mut [u8], checksum: usize| {
        put(bytes, checksum, &[0]);
        let value = sum(bytes).wrapping_neg();
        put(bytes, checksum, &[value]);
    };
    match form {
        Form::Legacy => {
            let (first, half) = bytes.split_at_mut(legacy::HALF.min(bytes.len()));
            set(half, legacy::HALF_CHECKSUM - legacy::HALF);
            // The other half sums up to zero, so the first one has to.
            set(first, legacy::CHECKSUM);
        }
        Form::Modern => set(bytes, modern::CHECKSUM),
    }
}

/// End of the last structure, if all are whole: `count` of them where it is known, else all up to the one that ends the table.
fn whole(memory: &dyn PhysicalMemory, table: Range<u64>, count: Option<u16>) -> Option<u64> {
    let mut structures = Structures::new(memory, table.clone());
    let mut end = table.start;
    let mut seen = 0u16;
    for structure in structures.by_ref() {
        end = structure.strings.end;
        seen = seen.saturating_add(1);
        if structure.kind == END || count == Some(seen) {
            return Some(end);
        }
    }
    // A table of SMBIOS 3.0 may fill its space without a structure that says so.
    (count.is_none() && seen > 0 && end == table.end).then_some(end)
}

/// A structure of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Structure {
    /// Its type.
    pub kind: u8,
    /// Header and fields.
    pub formatted: Range<u64>,
    /// Its strings, each with a zero, and the zero that ends them (§6.1.3).
    pub strings: Range<u64>,
}

/// The structures of a table, in order. Ends before the first one that is not whole.
pub struct Structures<'a> {
    memory: &'a dyn PhysicalMemory,
    rest: Range<u64>,
}

impl<'a> Structures<'a> {
    /// The structures in a range of memory.
    pub fn new(memory: &'a dyn PhysicalMemory, table: Range<u64>) -> Self {
        Self { memory, rest: table }
    }
}

impl Iterator for Structures<'_> {
    type Item = Structure;

    fn next(&mut self) -> Option<Structure> {
        let start = self.rest.start;
        let mut header = [0; HEADER as usize];
        if self.rest.end.checked_sub(start)? < HEADER || !self.memory.read(start, &mut header) {
            return None;
        }
        let [kind, length, ..] = header;
        let strings = start.checked_add(length.into())?;
        if u64::from(length) < HEADER || strings > self.rest.end {
            return None;
        }
        let mut reader = Reader::new(self.memory, strings..self.rest.end);
        // The strings end with two zeros, even where there are none.
        let mut before = reader.next()?;
        loop {
            let byte = reader.next()?;
            if (before, byte) == (0, 0) {
                break;
            }
            before = byte;
        }
        self.rest.start = reader.position();
        Some(Structure { kind, formatted: start..strings, strings: strings..reader.position() })
    }
}

/// Bytes of memory, one after the other; read in pieces.
struct Reader<'a> {
    memory: &'a dyn PhysicalMemory,
    /// What has not been read.
    rest: Range<u64>,
    piece: ArrayVec<u8, 64>,
    /// How much of the piece has been given out.
    used: usize,
}

impl<'a> Reader<'a> {
    fn new(memory: &'a dyn PhysicalMemory, range: Range<u64>) -> Self {
        Self { memory, rest: range, piece: ArrayVec::new(), used: 0 }
    }

    /// Address of the next byte.
    fn position(&self) -> u64 {
        self.rest.start - (self.piece.len() - self.used) as u64
    }
}

impl Iterator for Reader<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.used == self.piece.len() {
            let left = self.rest.end.saturating_sub(self.rest.start);
            let size = left.min(self.piece.capacity() as u64);
            let mut piece = [0; 64];
            let piece = &mut piece[..size as usize];
            if piece.is_empty() || !self.memory.read(self.rest.start, piece) {
                return None;
            }
            self.piece = piece.iter().copied().collect();
            self.used = 0;
            self.rest.start += size;
        }
        let byte = self.piece.get(self.used).copied();
        self.used += 1;
        byte
    }
}

/// What the guest's configuration says to the firmware in OEM strings (`smbios=["oem=ovmf.wait"]`): those that begin like a word
/// for it, with spaces between them, as on a command line. One that does not fit is left out.
pub fn options(memory: &dyn PhysicalMemory, table: Range<u64>) -> ArrayVec<u8, COMMAND_LINE_MAX> {
    let mut line = ArrayVec::new();
    for structure in Structures::new(memory, table).filter(|structure| structure.kind == OEM_STRINGS) {
        let mut start = line.len();
        let mut fits = true;
        for byte in Reader::new(memory, structure.strings) {
            if byte != 0 {
                fits &= line.try_push(byte).is_ok();
                continue;
            }
            let is_ours = line.get(start..).is_some_and(|string| string.starts_with(PREFIX));
            if !(fits && is_ours && line.try_push(b' ').is_ok()) {
                line.truncate(start);
            }
            start = line.len();
            fits = true;
        }
    }
    line
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + value.len()) {
        to.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;
    use std::vec::Vec;

    const ENTRY: u64 = 0xE_B000;
    const TABLE: u64 = 0xE_B01F;

    fn structure(kind: u8, fields: &[u8], strings: &[&str]) -> Vec<u8> {
        let mut bytes = std::vec![kind, 4 + fields.len() as u8, 0, kind];
        bytes.extend(fields);
        strings.iter().for_each(|string| bytes.extend(string.bytes().chain([0])));
        bytes.extend(if strings.is_empty() { &[0, 0][..] } else { &[0][..] });
        bytes
    }

    fn table(strings: &[&str]) -> Vec<u8> {
        [
            structure(1, &[1; 23], &["Xen", "HVM domU"]),
            structure(11, &[strings.len() as u8], strings),
            structure(END, &[], &[]),
        ]
        .concat()
    }

    fn legacy_entry(table: u32, length: u16, count: u16) -> Vec<u8> {
        let mut bytes = std::vec![0; legacy::SIZE];
        put(&mut bytes, 0, legacy::ANCHOR);
        put(&mut bytes, legacy::LENGTH, &[legacy::SIZE as u8, 2, 4]);
        put(&mut bytes, legacy::HALF, legacy::HALF_ANCHOR);
        put(&mut bytes, legacy::TABLE_LENGTH, &length.to_le_bytes());
        put(&mut bytes, legacy::TABLE, &table.to_le_bytes());
        put(&mut bytes, legacy::COUNT, &count.to_le_bytes());
        seal(Form::Legacy, &mut bytes);
        bytes
    }

    /// Memory as hvmloader leaves it.
    fn hvm(strings: &[&str]) -> (Memory, usize) {
        let mut memory = Memory::new(0xE_0000..0x10_0000);
        let table = table(strings);
        assert!(memory.write(ENTRY, &legacy_entry(TABLE as u32, table.len() as u16, 3)));
        assert!(memory.write(TABLE, &table));
        (memory, table.len())
    }

    #[test]
    fn what_hvmloader_leaves_is_found() {
        let (memory, length) = hvm(&[]);
        let found = find(&memory);
        assert_eq!(found.table(), Some(TABLE..TABLE + length as u64));
        assert_eq!(found.legacy.unwrap().version(), (2, 4));
        assert_eq!(found.modern, None);
    }

    #[test]
    fn an_entry_point_of_either_form_moves_with_its_table() {
        let (mut memory, length) = hvm(&[]);
        let mut bytes = std::vec![0; modern::SIZE];
        put(&mut bytes, 0, modern::ANCHOR);
        put(&mut bytes, modern::LENGTH, &[modern::SIZE as u8, 3, 2]);
        put(&mut bytes, modern::TABLE_LENGTH, &0x1000u32.to_le_bytes());
        put(&mut bytes, modern::TABLE, &TABLE.to_le_bytes());
        seal(Form::Modern, &mut bytes);
        assert!(memory.write(0xE_A000, &bytes));
        let found = find(&memory);
        let (legacy, modern) = (found.legacy.unwrap(), found.modern.unwrap());
        assert_eq!((modern.version(), modern.table()), ((3, 2), legacy.table()));
        for entry in [&legacy, &modern] {
            let moved = entry.leading_to(0xF_0000).unwrap();
            memory.at(0xF_0000, length).copy_from_slice(&table(&[]));
            assert!(memory.write(0xE_0000, &moved));
            let read = EntryPoint::read(&memory, entry.form(), 0xE_0000).unwrap();
            assert_eq!(read.table(), 0xF_0000..0xF_0000 + length as u64);
        }
        assert!(legacy.leading_to(1 << 32).is_none());
        assert!(modern.leading_to(1 << 32).is_some());
    }

    #[test]
    fn no_byte_of_an_entry_point_may_be_wrong() {
        for offset in 0..legacy::SIZE as u64 {
            let (mut memory, _) = hvm(&[]);
            memory.at(ENTRY + offset, 1)[0] ^= 0x55;
            assert_eq!(find(&memory), Found::default(), "{offset}");
        }
    }

    #[test]
    fn a_table_that_is_cut_anywhere_is_refused() {
        let (mut memory, length) = hvm(&["one"]);
        for cut in 0..length {
            assert!(memory.write(ENTRY, &legacy_entry(TABLE as u32, cut as u16, 3)));
            assert_eq!(find(&memory).legacy, None, "{cut}");
        }
    }

    #[test]
    fn a_table_outside_memory_or_of_short_structures_is_refused() {
        let (mut memory, _) = hvm(&[]);
        for table in [0x10_0000, 0xF_FFFE, u32::MAX] {
            assert!(memory.write(ENTRY, &legacy_entry(table, 100, 3)));
            assert_eq!(find(&memory).legacy, None, "{table:#x}");
        }
        assert!(memory.write(ENTRY, &legacy_entry(TABLE as u32, 200, 3)));
        memory.at(TABLE, 2)[1] = 3;
        assert_eq!(find(&memory).legacy, None);
    }

    fn words(strings: &[&str]) -> Vec<u8> {
        let (memory, _) = hvm(strings);
        options(&memory, find(&memory).table().unwrap()).to_vec()
    }

    #[test]
    fn oem_strings_that_are_words_for_the_firmware_become_a_command_line() {
        assert_eq!(
            words(&["ovmf.wait", "io.systemd.credential:a=b", "ovmf.log=debug ovmf.timeline", "not ovmf.x"]),
            b"ovmf.wait ovmf.log=debug ovmf.timeline "
        );
        assert_eq!(words(&[]), b"");
    }

    #[test]
    fn an_oem_string_that_does_not_fit_is_left_out_whole() {
        let long = std::format!("ovmf.{}", "x".repeat(COMMAND_LINE_MAX));
        assert_eq!(words(&["ovmf.wait", &long, "ovmf.timeline"]), b"ovmf.wait ovmf.timeline ");
    }
}
