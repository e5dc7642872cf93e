//! Contents of a directory, held in memory as it stands on the disk together with what its entries mean.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use services::block::ByteDevice;
use services::file::FileError;

use super::entry::{Entry, VOLUME_ID};
use super::layout::{SLOT, Width};
use super::name::{self, ATTRIBUTE_LONG, ATTRIBUTES, FREE, LongName, ShortName};
use super::table::{Chain, Medium};

/// Most slots of a directory (§6.7).
const MAX_SLOTS: u32 = 65536;
/// Attribute bits that tell a long name entry.
const LONG_MASK: u8 = 0x3f;
/// First byte of the slot after the last.
const END: u8 = 0;

/// A directory in memory.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// Its clusters; none for the root of FAT12 and FAT16.
    pub chain: Chain,
    /// All slots.
    bytes: Vec<u8>,
    /// Files and directories in the order of their slots, dot entries left out.
    pub items: Vec<Item>,
}

/// A file or directory in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Item {
    pub name: String,
    /// Slots from the first long name entry to the short entry.
    pub slots: Range<u32>,
    pub entry: Entry,
}

impl Item {
    /// The slot of the short entry.
    fn short_slot(&self) -> u32 {
        self.slots.end.saturating_sub(1)
    }
}

impl Listing {
    /// Reads the directory that starts at `cluster`, or the root directory for 0.
    pub fn load<D: ByteDevice>(medium: &mut Medium<D>, cluster: u32) -> Result<Self, FileError> {
        let cluster = if cluster == 0 { medium.layout.root_cluster } else { cluster };
        let mut chain = Chain::new(cluster);
        let mut bytes;
        if cluster == 0 {
            let (offset, size) = medium.layout.root;
            bytes = vec![0; size as usize];
            medium.read(offset, &mut bytes, "the root directory")?;
        } else {
            let size = medium.layout.cluster;
            // A cluster may hold more than a directory may have.
            let most = (MAX_SLOTS * SLOT as u32).div_ceil(size);
            bytes = Vec::new();
            let mut index = 0;
            while let Some((cluster, count)) = medium.run(&mut chain, index, most + 1)? {
                if index + count > most {
                    return Err(medium.corrupted(format_args!(
                        "the directory at cluster {cluster} is endless",
                        cluster = chain.first()
                    )));
                }
                let start = bytes.len();
                bytes.resize(start + count as usize * size as usize, 0);
                let offset = medium.layout.cluster_offset(cluster);
                medium.read(offset, &mut bytes[start..], "a directory")?;
                index += count;
            }
        }
        let mut listing = Self { chain, bytes, items: Vec::new() };
        listing.parse(medium.layout.width);
        Ok(listing)
    }

    fn parse(&mut self, width: Width) {
        let mut long = LongName::default();
        let mut end = self.bytes.len();
        for (slot, raw) in (0..).zip(self.bytes.chunks_exact(SLOT)) {
            let Ok(raw) = <&[u8; SLOT]>::try_from(raw) else { continue };
            if raw[0] == END {
                end = slot as usize * SLOT;
                break;
            }
            if raw[0] == FREE {
                long.clear();
            } else if raw[ATTRIBUTES] & LONG_MASK == ATTRIBUTE_LONG {
                long.push(raw, slot);
            } else if raw[ATTRIBUTES] & VOLUME_ID != 0 {
                long.clear();
            } else {
                let mut entry = Entry::decode(raw);
                entry.cluster &= if width == Width::Fat32 { 0x0fff_ffff } else { 0xffff };
                let (name, first) =
                    long.take(&entry.name).unwrap_or_else(|| (name::short_text(&entry.name, entry.case), slot));
                if !matches!(name.as_str(), "" | "." | "..") {
                    self.items.push(Item { name, slots: first..slot + 1, entry });
                }
            }
        }
        // What stands behind the end does not count and must not come to life when the end moves.
        if let Some(rest) = self.bytes.get_mut(end..) {
            rest.fill(0);
        }
    }

    /// Bytes on the disk.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The item called `name`, which is tidied.
    pub fn find(&self, name: &str) -> Option<&Item> {
        let short = name::lookup_short(name);
        self.items
            .iter()
            .find(|item| name::equal(&item.name, name))
            .or_else(|| self.items.iter().find(|item| Some(item.entry.name) == short))
    }

    /// The item whose short entry is in the slot before `slots.end`.
    pub fn at(&self, slots: &Range<u32>) -> Option<&Item> {
        let place = self.items.binary_search_by_key(&slots.end, |item| item.slots.end).ok()?;
        self.items.get(place)
    }

    /// Whether a short name is taken.
    pub fn has_short(&self, short: &ShortName) -> bool {
        self.items.iter().any(|item| item.entry.name == *short)
    }

    /// Adds an item and writes it; returns its slots.
    pub fn insert<D: ByteDevice>(
        &mut self,
        medium: &mut Medium<D>,
        name: &str,
        entry: Entry,
    ) -> Result<Range<u32>, FileError> {
        let mut raw: Vec<[u8; SLOT]> = if name::exact_short(name) == Some(entry.name) {
            Vec::new()
        } else {
            name::long_entries(name, &entry.name)
        };
        raw.push(entry.encode());
        let slots = self.find_room(medium, raw.len() as u32)?;
        for (slot, raw) in slots.clone().zip(&raw) {
            self.put(slot, raw);
        }
        self.write(medium, slots.clone())?;
        let item = Item { name: String::from(name), slots: slots.clone(), entry };
        let place = self.items.partition_point(|other| other.slots.end < slots.end);
        self.items.insert(place, item);
        Ok(slots)
    }

    /// Changes the entry of an item and writes it.
    pub fn update<D: ByteDevice>(
        &mut self,
        medium: &mut Medium<D>,
        slots: &Range<u32>,
        entry: Entry,
    ) -> Result<(), FileError> {
        let place = self.items.binary_search_by_key(&slots.end, |item| item.slots.end);
        let Some(item) = place.ok().and_then(|place| self.items.get_mut(place)) else {
            return Err(FileError::Device);
        };
        item.entry = entry;
        let slot = item.short_slot();
        self.put(slot, &entry.encode());
        self.write(medium, slot..slot + 1)
    }

    /// Removes an item from the directory; its clusters stay as they are.
    pub fn remove<D: ByteDevice>(&mut self, medium: &mut Medium<D>, slots: &Range<u32>) -> Result<(), FileError> {
        for slot in slots.clone() {
            if let Some(first) = self.bytes.get_mut(slot as usize * SLOT) {
                *first = FREE;
            }
        }
        self.items.retain(|item| item.slots.end != slots.end);
        self.write(medium, slots.clone())
    }

    /// The volume label's slot and text.
    pub fn label(&self) -> Option<(u32, ShortName)> {
        for (slot, raw) in (0..).zip(self.bytes.chunks_exact(SLOT)) {
            match (raw[0], raw[ATTRIBUTES]) {
                (END, _) => break,
                (FREE, _) => {}
                (_, attributes) if attributes & LONG_MASK != ATTRIBUTE_LONG && attributes & VOLUME_ID != 0 => {
                    return raw.get(..11).and_then(|raw| raw.try_into().ok()).map(|label| (slot, label));
                }
                _ => {}
            }
        }
        None
    }

    /// Sets or, with `None`, removes the volume label. Only the root directory has one.
    pub fn set_label<D: ByteDevice>(&mut self, medium: &mut Medium<D>, entry: Option<Entry>) -> Result<(), FileError> {
        let slot = match (self.label(), entry) {
            (None, None) => return Ok(()),
            (Some((slot, _)), _) => slot,
            (None, Some(_)) => self.find_room(medium, 1)?.start,
        };
        match entry {
            Some(entry) => self.put(slot, &entry.encode()),
            None => self.put(slot, &{
                let mut free = [0; SLOT];
                free[0] = FREE;
                free
            }),
        }
        self.write(medium, slot..slot + 1)
    }

    /// Makes `..` of this directory name another parent; 0 is the root.
    pub fn set_parent<D: ByteDevice>(&mut self, medium: &mut Medium<D>, cluster: u32) -> Result<(), FileError> {
        let Some(raw) = self.bytes.get(SLOT..2 * SLOT).and_then(|raw| <&[u8; SLOT]>::try_from(raw).ok()) else {
            return Ok(());
        };
        if raw[..11] != *b"..         " {
            return Ok(());
        }
        let entry = Entry { cluster, ..Entry::decode(raw) };
        self.put(1, &entry.encode());
        self.write(medium, 1..2)
    }

    fn put(&mut self, slot: u32, raw: &[u8; SLOT]) {
        let at = slot as usize * SLOT;
        if let Some(place) = self.bytes.get_mut(at..at + SLOT) {
            place.copy_from_slice(raw);
        }
    }

    /// Free slots in a row; the directory grows if it must and can.
    fn find_room<D: ByteDevice>(&mut self, medium: &mut Medium<D>, count: u32) -> Result<Range<u32>, FileError> {
        let mut start = 0;
        let mut slots: u32 = 0;
        for raw in self.bytes.chunks_exact(SLOT) {
            slots += 1;
            if !matches!(raw[0], END | FREE) {
                start = slots;
            } else if slots - start == count {
                return Ok(start..slots);
            }
        }
        if self.chain.first() == 0 || start + count > MAX_SLOTS {
            return Err(FileError::Full);
        }
        self.grow(medium, (start + count) as usize * SLOT)?;
        Ok(start..start + count)
    }

    /// Adds clusters, blank on the disk before they are linked, until there are `needed` bytes.
    fn grow<D: ByteDevice>(&mut self, medium: &mut Medium<D>, needed: usize) -> Result<(), FileError> {
        let cluster = medium.layout.cluster as usize;
        let before = medium.length(&mut self.chain)?;
        let count = needed.saturating_sub(self.bytes.len()).div_ceil(cluster) as u32;
        medium.extend(&mut self.chain, count)?;
        if let Err(error) = blank(medium, &mut self.chain, before, count) {
            medium.truncate(&mut self.chain, before)?;
            return Err(error);
        }
        medium.flush_table()?;
        self.bytes.resize(self.bytes.len() + count as usize * cluster, 0);
        Ok(())
    }

    /// Writes slots, and the end mark behind them so that old bytes do not come to life.
    fn write<D: ByteDevice>(&self, medium: &mut Medium<D>, slots: Range<u32>) -> Result<(), FileError> {
        let unit = (medium.layout.sector as usize).max(medium.disk.block_size() as usize);
        let mut end = slots.end as usize * SLOT;
        if self.bytes.get(end) == Some(&END) {
            end += SLOT;
        }
        let mut at = slots.start as usize * SLOT;
        if self.chain.first() == 0 {
            at -= at % medium.layout.sector as usize;
            let end = end.next_multiple_of(medium.layout.sector as usize).min(self.bytes.len());
            let bytes = self.bytes.get(at..end).unwrap_or(&[]);
            return medium.write(medium.layout.root.0 + at as u64, bytes, "the root directory");
        }
        let cluster = medium.layout.cluster as usize;
        let unit = unit.min(cluster);
        at -= at % unit;
        end = end.next_multiple_of(unit).min(self.bytes.len());
        // The chain is complete since the directory was loaded, so walking a copy of it reads nothing.
        let mut chain = self.chain.clone();
        while at < end {
            let index = (at / cluster) as u32;
            let Some((found, _)) = medium.run(&mut chain, index, 1)? else {
                return Err(medium.corrupted(format_args!("a directory ends before its entries do")));
            };
            let stop = end.min((index as usize + 1) * cluster);
            let offset = medium.layout.cluster_offset(found) + (at % cluster) as u64;
            medium.write(offset, self.bytes.get(at..stop).unwrap_or(&[]), "a directory")?;
            at = stop;
        }
        Ok(())
    }
}

/// Fills clusters `from..from + count` of a chain with zeros.
pub(super) fn blank<D: ByteDevice>(
    medium: &mut Medium<D>,
    chain: &mut Chain,
    from: u32,
    count: u32,
) -> Result<(), FileError> {
    let zeros = vec![0; medium.layout.cluster as usize];
    for index in from..from + count {
        if let Some((cluster, _)) = medium.run(chain, index, 1)? {
            medium.write(medium.layout.cluster_offset(cluster), &zeros, "a new directory")?;
        }
    }
    Ok(())
}
