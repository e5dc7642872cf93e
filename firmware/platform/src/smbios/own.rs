//! SMBIOS tables of our own, for guests that get none: PVH. They say what hvmloader's say, as far as there is something to say:
//! no BIOS area, no slots, no ports.

use arrayvec::ArrayVec;

use super::{END, ENTRY_POINT_MAX, Form, HEADER, legacy, modern, put, seal};
use crate::memory::{Kind, MemoryMap};

/// Longest table; more than the structures below can take.
pub const TABLE_MAX: usize = 1024;
/// Version of the specification that the tables follow.
const VERSION: [u8; 2] = [3, 0];
const FIRMWARE_VENDOR: &str = "ovmf-xen";
const FIRMWARE_VERSION: &str = env!("CARGO_PKG_VERSION");
/// When this version was released, or is going to be: the same source has to give the same bytes.
const FIRMWARE_DATE: &str = "12/01/2026";
const MANUFACTURER: &str = "Xen";
const PRODUCT: &str = "PVH domU";
/// Longest string that is kept.
const STRING_MAX: usize = 64;

/// Values that several structures use.
const NONE: [u8; 2] = [0xFF, 0xFF];
const NO_ERROR_INFORMATION: [u8; 2] = [0xFE, 0xFF];
const OTHER: u8 = 1;
const UNKNOWN: u8 = 2;

/// Handles, as hvmloader numbers them.
mod handle {
    pub const FIRMWARE: u16 = 0x0000;
    pub const SYSTEM: u16 = 0x0100;
    pub const ENCLOSURE: u16 = 0x0300;
    pub const PROCESSOR: u16 = 0x0401;
    pub const MEMORY_ARRAY: u16 = 0x1000;
    pub const MEMORY_DEVICE: u16 = 0x1100;
    pub const MEMORY_MAPPED: u16 = 0x1300;
    pub const BOOT: u16 = 0x2000;
    pub const END: u16 = 0x7F00;
}

/// What the tables tell.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Xen's version: `4.20.0`.
    pub xen: &'a str,
    /// The domain's UUID, in the order of its text.
    pub uuid: [u8; 16],
    /// Number of processors.
    pub processors: usize,
    /// What they are.
    pub processor: Processor<'a>,
    /// The memory.
    pub memory: &'a MemoryMap,
}

/// A processor, by CPUID.
#[derive(Clone, Copy, Debug)]
pub struct Processor<'a> {
    /// Leaf 0: `GenuineIntel`.
    pub vendor: &'a str,
    /// Leaf 1: EAX and EDX.
    pub identity: (u32, u32),
    /// Frequency, or 0.
    pub mhz: u16,
}

/// A table, and what its entry points tell of it.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The structures.
    pub bytes: ArrayVec<u8, TABLE_MAX>,
    count: u16,
    largest: usize,
}

impl Table {
    /// Makes the table; `None` if it does not fit, which no facts bring about.
    pub fn new(facts: &Facts<'_>) -> Option<Self> {
        let mut table = Self::default();
        table.firmware()?;
        table.system(facts)?;
        table.enclosure()?;
        table.processor(facts)?;
        table.memory(facts.memory)?;
        // System Boot Information (§7.33): no errors.
        table.add(32, handle::BOOT, &[&[0; 7]], &[])?;
        table.add(END, handle::END, &[], &[])?;
        Some(table)
    }

    /// An entry point for the table at an address; `None` if it cannot lead there.
    pub fn entry_point(&self, form: Form, table: u64) -> Option<ArrayVec<u8, ENTRY_POINT_MAX>> {
        let mut bytes = ArrayVec::<u8, ENTRY_POINT_MAX>::from([0; ENTRY_POINT_MAX]);
        let length = u16::try_from(self.bytes.len()).ok()?;
        match form {
            Form::Legacy => {
                bytes.truncate(legacy::SIZE);
                put(&mut bytes, 0, legacy::ANCHOR);
                put(&mut bytes, legacy::LENGTH, &[legacy::SIZE as u8]);
                put(&mut bytes, legacy::VERSION, &VERSION);
                put(&mut bytes, legacy::LARGEST, &u16::try_from(self.largest).ok()?.to_le_bytes());
                put(&mut bytes, legacy::HALF, legacy::HALF_ANCHOR);
                put(&mut bytes, legacy::TABLE_LENGTH, &length.to_le_bytes());
                put(&mut bytes, legacy::TABLE, &u32::try_from(table).ok()?.to_le_bytes());
                put(&mut bytes, legacy::COUNT, &self.count.to_le_bytes());
                put(&mut bytes, legacy::BCD_VERSION, &[VERSION[0] << 4 | VERSION[1]]);
            }
            Form::Modern => {
                bytes.truncate(modern::SIZE);
                put(&mut bytes, 0, modern::ANCHOR);
                put(&mut bytes, modern::LENGTH, &[modern::SIZE as u8]);
                put(&mut bytes, modern::VERSION, &VERSION);
                put(&mut bytes, modern::REVISION, &[1]);
                put(&mut bytes, modern::TABLE_LENGTH, &u32::from(length).to_le_bytes());
                put(&mut bytes, modern::TABLE, &table.to_le_bytes());
            }
        }
        seal(form, &mut bytes);
        Some(bytes)
    }

    /// Adds a structure; strings are numbered from 1, in this order.
    fn add(&mut self, kind: u8, handle: u16, fields: &[&[u8]], strings: &[&str]) -> Option<()> {
        let start = self.bytes.len();
        let length = HEADER as usize + fields.iter().map(|field| field.len()).sum::<usize>();
        self.bytes.try_extend_from_slice(&[kind, u8::try_from(length).ok()?]).ok()?;
        self.bytes.try_extend_from_slice(&handle.to_le_bytes()).ok()?;
        for field in fields {
            self.bytes.try_extend_from_slice(field).ok()?;
        }
        for string in strings {
            let mut text = string.bytes().filter(|byte| (b' '..=b'~').contains(byte)).take(STRING_MAX);
            // A string of no length would end the strings.
            let first = text.next().unwrap_or(b'?');
            for byte in [first].into_iter().chain(text).chain([0]) {
                self.bytes.try_push(byte).ok()?;
            }
        }
        self.bytes.try_extend_from_slice(if strings.is_empty() { &[0, 0] } else { &[0] }).ok()?;
        self.count += 1;
        self.largest = self.largest.max(self.bytes.len() - start);
        Some(())
    }

    /// Platform Firmware Information (§7.1).
    fn firmware(&mut self) -> Option<()> {
        /// Characteristics are not told.
        const CHARACTERISTICS: u64 = 1 << 3;
        /// Targeted content distribution, UEFI, virtual machine.
        const EXTENSION: [u8; 2] = [0, 1 << 2 | 1 << 3 | 1 << 4];
        const NO_SEGMENT: [u8; 2] = [0; 2];
        const NO_CONTROLLER: [u8; 2] = [0xFF; 2];
        let release = [number(env!("CARGO_PKG_VERSION_MAJOR")), number(env!("CARGO_PKG_VERSION_MINOR"))];
        self.add(
            0,
            handle::FIRMWARE,
            &[&[1, 2], &NO_SEGMENT, &[3, 0], &CHARACTERISTICS.to_le_bytes(), &EXTENSION, &release, &NO_CONTROLLER],
            &[FIRMWARE_VENDOR, FIRMWARE_VERSION, FIRMWARE_DATE],
        )
    }

    /// System Information (§7.2).
    fn system(&mut self, facts: &Facts<'_>) -> Option<()> {
        const POWER_SWITCH: u8 = 6;
        let [a, b, c, d, e, f, g, h, rest @ ..] = facts.uuid;
        let serial = uuid_text(&facts.uuid);
        self.add(
            1,
            handle::SYSTEM,
            &[&[1, 2, 3, 4], &[d, c, b, a, f, e, h, g], &rest, &[POWER_SWITCH, 0, 0]],
            &[MANUFACTURER, PRODUCT, facts.xen, &serial],
        )
    }

    /// System Enclosure (§7.4).
    fn enclosure(&mut self) -> Option<()> {
        const SAFE: u8 = 3;
        self.add(
            3,
            handle::ENCLOSURE,
            &[&[1, OTHER, 0, 0, 0], &[SAFE, SAFE, SAFE, UNKNOWN], &[0; 4], &[0, 0, 0, 0, 0]],
            &[MANUFACTURER],
        )
    }

    /// Processor Information (§7.5): one package with all virtual CPUs as cores, as nobody has said how they belong together.
    fn processor(&mut self, facts: &Facts<'_>) -> Option<()> {
        const CENTRAL: u8 = 3;
        /// Populated and enabled.
        const STATUS: u8 = 1 << 6 | 1;
        const IS_64_BIT: u16 = 1 << 2;
        const MULTI_CORE: u16 = 1 << 3;
        let wide = u16::try_from(facts.processors.max(1)).unwrap_or(u16::MAX - 1);
        let narrow = u8::try_from(wide).unwrap_or(u8::MAX);
        let mhz = facts.processor.mhz.to_le_bytes();
        let characteristics = IS_64_BIT | if wide > 1 { MULTI_CORE } else { 0 };
        let wide = wide.to_le_bytes();
        self.add(
            4,
            handle::PROCESSOR,
            &[
                &[1, CENTRAL, OTHER, 2],
                &facts.processor.identity.0.to_le_bytes(),
                &facts.processor.identity.1.to_le_bytes(),
                &[0, 0, 0, 0],
                &mhz,
                &mhz,
                &[STATUS, OTHER],
                &NONE,
                &NONE,
                &NONE,
                &[0, 0, 0],
                &[narrow; 3],
                &characteristics.to_le_bytes(),
                &u16::from(OTHER).to_le_bytes(),
                &wide,
                &wide,
                &wide,
            ],
            &["CPU 1", facts.processor.vendor],
        )
    }

    /// Physical Memory Array, Memory Device, Memory Array Mapped Addresses (§7.17, §7.18, §7.20): one device with all memory.
    fn memory(&mut self, memory: &MemoryMap) -> Option<()> {
        const SYSTEM_MEMORY: u8 = 3;
        const DIMM: u8 = 9;
        const RAM: u8 = 7;
        const WIDTH: [u8; 2] = [64, 0];
        const IN_EXTENDED_SIZE: u16 = 0x7FFF;
        const IN_EXTENDED_CAPACITY: u32 = 1 << 31;
        let array = handle::MEMORY_ARRAY.to_le_bytes();
        // Rounded up to what the guest's configuration says: the map leaves out the area of a PC's BIOS.
        let mebibytes = memory.ram().div_ceil(1 << 20);
        let capacity = u32::try_from(mebibytes << 10).unwrap_or(u32::MAX).min(IN_EXTENDED_CAPACITY);
        let extended = if capacity == IN_EXTENDED_CAPACITY { mebibytes << 20 } else { 0 };
        self.add(
            16,
            handle::MEMORY_ARRAY,
            &[
                &[OTHER, SYSTEM_MEMORY, UNKNOWN],
                &capacity.to_le_bytes(),
                &NO_ERROR_INFORMATION,
                &1u16.to_le_bytes(),
                &extended.to_le_bytes(),
            ],
            &[],
        )?;
        let size = u16::try_from(mebibytes).unwrap_or(u16::MAX).min(IN_EXTENDED_SIZE);
        let extended = if size == IN_EXTENDED_SIZE { u32::try_from(mebibytes).unwrap_or(u32::MAX >> 1) } else { 0 };
        self.add(
            17,
            handle::MEMORY_DEVICE,
            &[
                &array,
                &NO_ERROR_INFORMATION,
                &WIDTH,
                &WIDTH,
                &size.to_le_bytes(),
                &[DIMM, 0, 1, 0, RAM],
                &[UNKNOWN, 0],
                &[0; 2],
                &[0; 4],
                &[0],
                &extended.to_le_bytes(),
                &[0; 8],
            ],
            &["DIMM 0"],
        )?;
        for (index, (start, end)) in (handle::MEMORY_MAPPED..).zip(spans(memory)) {
            // In KiB, the last one included.
            let address = |address: u64| u32::try_from(address >> 10).unwrap_or(u32::MAX);
            let fits = address(end - 1) != u32::MAX;
            let (first, last) = if fits { (address(start), address(end - 1)) } else { (u32::MAX, u32::MAX) };
            let (wide_first, wide_last) = if fits { (0, 0) } else { (start, end - 1) };
            self.add(
                19,
                index,
                &[
                    &first.to_le_bytes(),
                    &last.to_le_bytes(),
                    &array,
                    &[1],
                    &wide_first.to_le_bytes(),
                    &wide_last.to_le_bytes(),
                ],
                &[],
            )?;
        }
        Some(())
    }
}

/// The memory below 4 GiB and that above, each without its holes.
fn spans(memory: &MemoryMap) -> impl Iterator<Item = (u64, u64)> {
    const GIB_4: u64 = 4 << 30;
    let ram = || memory.regions().iter().filter(|region| region.kind == Kind::Ram);
    [(0, GIB_4), (GIB_4, u64::MAX)].into_iter().filter_map(move |(from, to)| {
        let within = || ram().filter(move |region| (from..to).contains(&region.start));
        Some((within().next()?.start, within().next_back()?.end))
    })
}

/// A UUID as people write it.
fn uuid_text(uuid: &[u8; 16]) -> arrayvec::ArrayString<36> {
    let mut text = arrayvec::ArrayString::new();
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            let _ = text.try_push('-');
        }
        // There is room for 32 digits and four dashes.
        let _ = core::fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
    }
    text
}

/// A part of our version number.
fn number(text: &str) -> u8 {
    text.parse().unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{EntryPoint, Structures, array};
    use super::*;
    use crate::PhysicalMemory;
    use crate::testing::Memory;
    use hw::hypervisor::E820Entry;
    use std::collections::BTreeMap;
    use std::string::{String, ToString};
    use std::vec::Vec;

    const UUID: [u8; 16] = [0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0xDE, 0xF0, 1, 2, 3, 4, 5, 6, 7, 8];
    const GIB: u64 = 1 << 30;

    fn map(size: u64) -> MemoryMap {
        let low = size.min(3 * GIB);
        let entry = |address, size| E820Entry { address, size, kind: 1 };
        MemoryMap::new(&[entry(0, low), entry(4 * GIB, size - low)])
    }

    fn table(memory: &MemoryMap, processors: usize) -> Table {
        let processor = Processor { vendor: "AuthenticAMD", identity: (0x80_0F12, 0x1234_5678), mhz: 2600 };
        Table::new(&Facts { xen: "4.20.0", uuid: UUID, processors, processor, memory }).unwrap()
    }

    /// Formatted part and strings.
    type Parts = (Vec<u8>, Vec<String>);

    /// The structures, by type.
    fn read(table: &Table) -> BTreeMap<u8, Vec<Parts>> {
        let mut memory = Memory::new(0x1000..0x2000);
        assert!(memory.write(0x1000, &table.bytes));
        let mut all: BTreeMap<u8, Vec<_>> = BTreeMap::new();
        let found: Vec<_> = Structures::new(&memory, 0x1000..0x1000 + table.bytes.len() as u64).collect();
        for structure in found {
            let mut bytes =
                |range: core::ops::Range<u64>| memory.at(range.start, (range.end - range.start) as usize).to_vec();
            let strings = bytes(structure.strings);
            let strings = strings.split(|byte| *byte == 0).filter(|string| !string.is_empty());
            let strings = strings.map(|string| String::from_utf8_lossy(string).to_string()).collect();
            all.entry(structure.kind).or_default().push((bytes(structure.formatted), strings));
        }
        all
    }

    #[test]
    fn both_entry_points_lead_to_the_whole_table() {
        let table = table(&map(GIB), 1);
        for form in [Form::Legacy, Form::Modern] {
            let mut memory = Memory::new(0xE_0000..0x10_0000);
            assert!(memory.write(0xE_1000, &table.bytes));
            assert!(memory.write(0xE_0000, &table.entry_point(form, 0xE_1000).unwrap()));
            let entry = EntryPoint::read(&memory, form, 0xE_0000).unwrap();
            assert_eq!(entry.table(), 0xE_1000..0xE_1000 + table.bytes.len() as u64);
            assert_eq!(entry.version(), (3, 0));
        }
    }

    #[test]
    fn structures_are_as_long_as_the_specification_says() {
        let found = read(&table(&map(5 * GIB), 1));
        let lengths: Vec<_> = found.iter().map(|(kind, all)| (*kind, all[0].0.len(), all.len())).collect();
        let expected = [
            (0, 0x18, 1),
            (1, 0x1B, 1),
            (3, 0x16, 1),
            (4, 0x30, 1),
            (16, 0x17, 1),
            (17, 0x28, 1),
            (19, 0x1F, 2),
            (32, 0x0B, 1),
            (127, 4, 1),
        ];
        assert_eq!(lengths, expected);
    }

    #[test]
    fn the_uuid_is_the_domains_in_the_order_of_this_version() {
        let (fields, strings) = &read(&table(&map(GIB), 1))[&1][0];
        assert_eq!(fields[8..16], [0x78, 0x56, 0x34, 0x12, 0xBC, 0x9A, 0xF0, 0xDE]);
        assert_eq!(fields[16..24], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(strings[..], ["Xen", "PVH domU", "4.20.0", "12345678-9abc-def0-0102-030405060708"]);
    }

    #[test]
    fn processors_beyond_what_a_byte_holds_are_in_the_wide_fields() {
        for (count, narrow) in [(1, 1), (255, 255), (300, 255)] {
            let (fields, strings) = &read(&table(&map(GIB), count))[&4][0];
            assert_eq!((fields[0x23], u16::from_le_bytes(array(fields, 0x2A))), (narrow, count as u16));
            assert_eq!(strings[1], "AuthenticAMD");
        }
    }

    #[test]
    fn memory_of_any_size_is_told() {
        for (gibibytes, short, extended) in [(1, 1024, 0), (40, 0x7FFF, 40 << 10), (8192, 0x7FFF, 8192 << 10)] {
            let found = read(&table(&map(gibibytes * GIB), 1));
            let device = &found[&17][0].0;
            assert_eq!(
                (u16::from_le_bytes(array(device, 0x0C)), u32::from_le_bytes(array(device, 0x1C))),
                (short, extended)
            );
            let array_ = &found[&16][0].0;
            let capacity = u32::from_le_bytes(array(array_, 7));
            let whole =
                if capacity == 1 << 31 { u64::from_le_bytes(array(array_, 0x0F)) } else { u64::from(capacity) << 10 };
            assert_eq!(whole, gibibytes * GIB);
        }
    }

    #[test]
    fn memory_on_either_side_of_the_hole_is_mapped() {
        let found = read(&table(&map(5 * GIB), 1));
        let range = |index: usize| {
            let fields = &found[&19][index].0;
            (u32::from_le_bytes(array(fields, 4)), u32::from_le_bytes(array(fields, 8)))
        };
        assert_eq!(range(0), (0, (3 << 20) - 1));
        assert_eq!(range(1), (4 << 20, (6 << 20) - 1));
        let huge = read(&table(&map(8192 * GIB), 1));
        let fields = &huge[&19][1].0;
        assert_eq!(
            (u32::from_le_bytes(array(fields, 4)), u64::from_le_bytes(array(fields, 0x0F))),
            (u32::MAX, 4 * GIB)
        );
    }

    #[test]
    fn strange_strings_do_no_harm() {
        let memory = map(GIB);
        let processor = Processor { vendor: "\0", identity: (0, 0), mhz: 0 };
        let long = "\0".repeat(100) + &"x".repeat(4000);
        let facts = Facts { xen: &long, uuid: UUID, processors: 0, processor, memory: &memory };
        let found = read(&Table::new(&facts).unwrap());
        assert_eq!(found[&1][0].1[2].len(), STRING_MAX);
        assert_eq!(found[&4][0].1[1], "?");
    }
}
