//! The file allocation table: a cache of windows over it, chains of clusters as runs, allocation.
//!
//! Every cluster number that comes from the disk passes [`Medium::next`], which refuses what is not on the volume; every
//! chain passes [`Medium::run`], which refuses what is longer than the volume.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use services::block::{BlockError, ByteDevice};
use services::file::FileError;

use super::layout::{Layout, Width};

/// Bytes of the FAT in one window: 16384 entries of FAT32, and all of a FAT12.
const WINDOW: u64 = 64 << 10;
/// Windows kept: 1 MiB, the FAT of a 1 GiB volume with 4 KiB clusters.
const MAX_WINDOWS: usize = 16;
/// Runs of a chain kept at a time. A more fragmented file is walked again where needed.
const MAX_RUNS: usize = 16 << 10;
/// Bits of a FAT32 entry that count.
const FAT32_BITS: u32 = 0x0fff_ffff;
/// Cluster whose entry holds the flags, and the flag "was unmounted" in each width (§4.2).
const FLAGS_ENTRY: u32 = 1;
const CLEAN_FAT16: u32 = 1 << 15;
const CLEAN_FAT32: u32 = 1 << 27;

/// A device with a FAT layout on it.
#[derive(Debug)]
pub(super) struct Medium<D> {
    pub disk: D,
    pub layout: Layout,
    /// For messages.
    pub name: String,
    windows: Vec<Window>,
    /// Counts uses of windows.
    age: u64,
    /// Free clusters, once known.
    pub free: Option<u32>,
    /// Where the search for a free cluster starts.
    pub hint: u32,
}

#[derive(Debug)]
struct Window {
    /// Offset within the FAT.
    offset: u64,
    bytes: Vec<u8>,
    dirty: Option<Range<usize>>,
    used: u64,
}

/// What an entry of the FAT says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Free,
    Next(u32),
    End,
    Bad,
}

/// Clusters that follow each other on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    /// Index within the file of the first cluster.
    pub index: u32,
    pub cluster: u32,
    pub count: u32,
}

impl Run {
    fn end(&self) -> u32 {
        self.index.saturating_add(self.count)
    }
}

/// A chain of clusters and what is known of it so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Chain {
    /// First cluster; 0 for none.
    first: u32,
    runs: Vec<Run>,
    /// The last run is the end of the chain.
    complete: bool,
}

impl Chain {
    pub fn new(first: u32) -> Self {
        Self { first, runs: Vec::new(), complete: first == 0 }
    }

    pub fn first(&self) -> u32 {
        self.first
    }

    /// Forgets what lies behind the first `count` clusters, of which the last is the end.
    fn cut(&mut self, count: u32) {
        self.runs.retain(|run| run.index < count);
        if let Some(last) = self.runs.last_mut() {
            last.count = last.count.min(count - last.index);
            self.complete = last.end() == count;
        } else {
            self.complete = false;
        }
        if count == 0 {
            *self = Self::new(0);
        }
    }

    fn push(&mut self, index: u32, cluster: u32) {
        match self.runs.last_mut() {
            Some(last) if last.cluster.checked_add(last.count) == Some(cluster) && last.end() == index => {
                last.count += 1
            }
            _ => {
                if self.runs.len() >= MAX_RUNS {
                    self.runs.drain(..MAX_RUNS / 2);
                }
                self.runs.push(Run { index, cluster, count: 1 });
            }
        }
    }
}

impl<D: ByteDevice> Medium<D> {
    pub fn new(disk: D, layout: Layout, name: String) -> Self {
        Self { disk, layout, name, windows: Vec::new(), age: 0, free: None, hint: 2 }
    }

    /// Logs what is damaged.
    pub fn corrupted(&self, what: fmt::Arguments<'_>) -> FileError {
        log::warn!("{}: damaged {} file system: {what}", self.name, self.layout.width);
        FileError::Corrupted
    }

    pub fn device_error(&self, doing: &str, error: BlockError) -> FileError {
        log::warn!("{}: {doing}: {error}", self.name);
        match error {
            BlockError::WriteProtected => FileError::WriteProtected,
            _ => FileError::Device,
        }
    }

    pub fn read(&mut self, offset: u64, into: &mut [u8], what: &str) -> Result<(), FileError> {
        self.disk
            .read_at(offset, into)
            .map_err(|error| self.device_error(&format!("reading {what} at byte {offset}"), error))
    }

    pub fn write(&mut self, offset: u64, from: &[u8], what: &str) -> Result<(), FileError> {
        self.disk
            .write_at(offset, from)
            .map_err(|error| self.device_error(&format!("writing {what} at byte {offset}"), error))
    }

    /// The run that holds cluster number `index` of the chain, from that cluster on, as long as possible but not longer than
    /// needed for `want` clusters. `None` past the end.
    pub fn run(&mut self, chain: &mut Chain, index: u32, want: u32) -> Result<Option<(u32, u32)>, FileError> {
        if chain.runs.first().is_some_and(|run| run.index > index) {
            // That part was dropped; walk from the start.
            *chain = Chain::new(chain.first);
        }
        if chain.first != 0 && chain.runs.is_empty() {
            self.check(chain.first, "a file or directory")?;
            chain.push(0, chain.first);
        }
        let goal = index.saturating_add(want.max(1));
        while let Some(last) = chain.runs.last().copied() {
            // Enough is known once a run with `index` in it is followed by another, or reaches the goal.
            if chain.complete || last.index > index || last.end() >= goal {
                break;
            }
            let tail = last.cluster + (last.count - 1);
            match self.next(tail)? {
                Some(_) if last.end() >= self.layout.clusters => {
                    return Err(self.corrupted(format_args!("the chain from cluster {} loops", chain.first)));
                }
                Some(next) => chain.push(last.end(), next),
                None => chain.complete = true,
            }
        }
        let place = chain.runs.partition_point(|run| run.end() <= index);
        Ok(chain.runs.get(place).filter(|run| run.index <= index).map(|run| {
            let skip = index - run.index;
            (run.cluster + skip, (run.count - skip).min(want.max(1)))
        }))
    }

    /// Number of clusters in the chain.
    pub fn length(&mut self, chain: &mut Chain) -> Result<u32, FileError> {
        let known = chain.runs.last().map_or(0, Run::end);
        if !chain.complete && self.run(chain, known.max(1) - 1, u32::MAX)?.is_some() {
            while !chain.complete {
                let known = chain.runs.last().map_or(0, Run::end);
                self.run(chain, known, u32::MAX)?;
            }
        }
        Ok(chain.runs.last().map_or(0, Run::end))
    }

    /// Puts `count` more clusters behind the chain; nothing is changed if there is not enough room.
    pub fn extend(&mut self, chain: &mut Chain, count: u32) -> Result<(), FileError> {
        if count == 0 {
            return Ok(());
        }
        let length = self.length(chain)?;
        let tail = chain.runs.last().map(|run| run.cluster + (run.count - 1));
        let found = self.find_free(tail.map_or(self.hint, |tail| tail + 1), count)?;
        let mut index = length;
        let mut before = tail;
        for run in found {
            for cluster in run.cluster..run.cluster + run.count {
                self.set(cluster, Link::End)?;
                if let Some(before) = before {
                    self.set(before, Link::Next(cluster))?;
                } else {
                    *chain = Chain::new(cluster);
                }
                chain.push(index, cluster);
                index += 1;
                before = Some(cluster);
            }
        }
        chain.complete = true;
        if let Some(last) = before {
            self.hint = last + 1;
        }
        if let Some(free) = &mut self.free {
            *free = free.saturating_sub(count);
        }
        Ok(())
    }

    /// Shortens the chain to `keep` clusters and frees the rest.
    pub fn truncate(&mut self, chain: &mut Chain, keep: u32) -> Result<(), FileError> {
        let first_gone = match keep.checked_sub(1) {
            None => Some(chain.first).filter(|&first| first != 0),
            Some(last) => match self.run(chain, last, 2)? {
                None => None,
                Some((cluster, 2..)) => Some(cluster + 1),
                Some((cluster, _)) => self.next(cluster)?,
            },
        };
        let Some(first_gone) = first_gone else { return Ok(()) };
        if let Some(last) = keep.checked_sub(1)
            && let Some((cluster, _)) = self.run(chain, last, 1)?
        {
            self.set(cluster, Link::End)?;
        }
        chain.cut(keep);
        self.release(first_gone)
    }

    /// Frees the chain from `cluster` on. Ends at once where it meets what is free already, so a loop does no harm.
    fn release(&mut self, first: u32) -> Result<(), FileError> {
        let mut cluster = first;
        while self.layout.is_data(cluster) {
            let link = self.link(cluster)?;
            if link == Link::Free {
                break;
            }
            self.set(cluster, Link::Free)?;
            self.hint = self.hint.min(cluster);
            if let Some(free) = &mut self.free {
                *free += 1;
            }
            match link {
                Link::Next(next) => cluster = next,
                _ => break,
            }
        }
        Ok(())
    }

    /// Free clusters, near `start` and together where possible.
    fn find_free(&mut self, start: u32, count: u32) -> Result<Vec<Run>, FileError> {
        let end = self.layout.clusters + 2;
        let start = if self.layout.is_data(start) { start } else { 2 };
        let mut runs: Vec<Run> = Vec::new();
        let mut missing = count;
        for cluster in (start..end).chain(2..start) {
            if missing == 0 {
                break;
            }
            if self.link(cluster)? != Link::Free {
                continue;
            }
            missing -= 1;
            match runs.last_mut() {
                Some(last) if last.cluster + last.count == cluster => last.count += 1,
                _ => runs.push(Run { index: 0, cluster, count: 1 }),
            }
        }
        if missing > 0 { Err(FileError::Full) } else { Ok(runs) }
    }

    /// Number of free clusters; the first time this reads the whole FAT.
    pub fn free_clusters(&mut self) -> Result<u32, FileError> {
        if let Some(free) = self.free {
            return Ok(free);
        }
        let mut free = 0;
        for cluster in 2..self.layout.clusters + 2 {
            free += u32::from(self.link(cluster)? == Link::Free);
        }
        self.free = Some(free);
        Ok(free)
    }

    /// The cluster after `cluster` in its chain, or `None` at the end.
    pub fn next(&mut self, cluster: u32) -> Result<Option<u32>, FileError> {
        match self.link(cluster)? {
            Link::Next(next) => {
                self.check(next, &format!("cluster {cluster}"))?;
                Ok(Some(next))
            }
            Link::End => Ok(None),
            Link::Free => Err(self.corrupted(format_args!("cluster {cluster} is in use and marked free"))),
            Link::Bad => Err(self.corrupted(format_args!("cluster {cluster} is in use and marked bad"))),
        }
    }

    fn check(&self, cluster: u32, from: &str) -> Result<(), FileError> {
        if self.layout.is_data(cluster) {
            return Ok(());
        }
        Err(self.corrupted(format_args!(
            "{from} leads to cluster {cluster}, the volume has 2 to {}",
            self.layout.clusters + 1
        )))
    }

    fn link(&mut self, cluster: u32) -> Result<Link, FileError> {
        let value = self.get(cluster)?;
        let (bad, highest) = match self.layout.width {
            Width::Fat12 => (0xff7, 0xfff),
            Width::Fat16 => (0xfff7, 0xffff),
            Width::Fat32 => (0x0fff_fff7, FAT32_BITS),
        };
        Ok(match value & highest {
            0 => Link::Free,
            value if value == bad => Link::Bad,
            value if value > bad => Link::End,
            value => Link::Next(value),
        })
    }

    fn set(&mut self, cluster: u32, link: Link) -> Result<(), FileError> {
        let value = match link {
            Link::Free => 0,
            Link::Next(next) => next,
            Link::End => FAT32_BITS,
            // Clusters are never marked bad by us.
            Link::Bad => return Err(FileError::Unsupported),
        };
        self.put(cluster, value)
    }

    /// Whether the volume was unmounted when it was last used; FAT12 does not say.
    pub fn is_clean(&mut self) -> Result<bool, FileError> {
        let flags = self.get(FLAGS_ENTRY)?;
        Ok(match self.layout.width {
            Width::Fat12 => true,
            Width::Fat16 => flags & CLEAN_FAT16 != 0,
            Width::Fat32 => flags & CLEAN_FAT32 != 0,
        })
    }

    /// Notes that the volume is in use (not clean), or no longer.
    pub fn set_clean(&mut self, clean: bool) -> Result<(), FileError> {
        let bit = match self.layout.width {
            Width::Fat12 => return Ok(()),
            Width::Fat16 => CLEAN_FAT16,
            Width::Fat32 => CLEAN_FAT32,
        };
        let flags = self.get(FLAGS_ENTRY)?;
        self.put(FLAGS_ENTRY, if clean { flags | bit } else { flags & !bit })?;
        self.flush_table()
    }

    fn entry_offset(&self, cluster: u32) -> u64 {
        let cluster = u64::from(cluster);
        match self.layout.width {
            Width::Fat12 => cluster + cluster / 2,
            Width::Fat16 => cluster * 2,
            Width::Fat32 => cluster * 4,
        }
    }

    fn get(&mut self, cluster: u32) -> Result<u32, FileError> {
        let offset = self.entry_offset(cluster);
        let width = self.layout.width;
        let bytes = self.window(offset)?;
        let word = u32::from(bytes[0]) | u32::from(bytes[1]) << 8;
        Ok(match (width, bytes) {
            (Width::Fat12, _) if cluster % 2 == 1 => word >> 4,
            (Width::Fat12, _) => word & 0xfff,
            (Width::Fat16, _) => word,
            (Width::Fat32, &mut [_, _, c, d, ..]) => word | u32::from(c) << 16 | u32::from(d) << 24,
            (Width::Fat32, _) => return Err(FileError::Corrupted),
        })
    }

    fn put(&mut self, cluster: u32, value: u32) -> Result<(), FileError> {
        let offset = self.entry_offset(cluster);
        let old = self.get(cluster)?;
        let width = self.layout.width;
        let bytes = self.window(offset)?;
        let length = match width {
            Width::Fat12 => {
                let word = u16::from_le_bytes([bytes[0], bytes[1]]);
                let value = value as u16 & 0xfff;
                let word = if cluster % 2 == 1 { word & 0x000f | value << 4 } else { word & 0xf000 | value };
                bytes[..2].copy_from_slice(&word.to_le_bytes());
                2
            }
            Width::Fat16 => {
                bytes[..2].copy_from_slice(&(value as u16).to_le_bytes());
                2
            }
            Width::Fat32 => {
                // The upper four bits are not ours to change.
                let value = old & !FAT32_BITS | value & FAT32_BITS;
                bytes[..4].copy_from_slice(&value.to_le_bytes());
                4
            }
        };
        let at = (offset % WINDOW) as usize;
        if let Some(window) = self.windows.last_mut() {
            let dirty = window.dirty.get_or_insert(at..at + length);
            *dirty = dirty.start.min(at)..dirty.end.max(at + length);
        }
        Ok(())
    }

    /// The bytes of the FAT from `offset` to the end of its window, at least 2 of them (4 on FAT32). The window becomes the
    /// last one of the list.
    fn window(&mut self, offset: u64) -> Result<&mut [u8], FileError> {
        let start = offset - offset % WINDOW;
        let at = (offset - start) as usize;
        if self.windows.last().is_none_or(|window| window.offset != start) {
            self.age += 1;
            match self.windows.iter().position(|window| window.offset == start) {
                Some(found) => {
                    let last = self.windows.len() - 1;
                    self.windows.swap(found, last);
                }
                None => self.load(start)?,
            }
        }
        let needed = if self.layout.width == Width::Fat32 { 4 } else { 2 };
        match self.windows.last_mut() {
            Some(window) if window.bytes.len() >= at + needed => {
                window.used = self.age;
                Ok(&mut window.bytes[at..])
            }
            // The layout was clamped to what the FAT holds, so this does not happen.
            _ => Err(FileError::Corrupted),
        }
    }

    fn load(&mut self, start: u64) -> Result<(), FileError> {
        let length = self.layout.fat_size.saturating_sub(start).min(WINDOW);
        if length == 0 {
            return Err(FileError::Corrupted);
        }
        if self.windows.len() >= MAX_WINDOWS
            && let Some(oldest) = (0..self.windows.len()).min_by_key(|&i| self.windows[i].used)
        {
            self.write_window(oldest)?;
            self.windows.swap_remove(oldest);
        }
        let mut bytes = vec![0; length as usize];
        let active = self.layout.active_copy.unwrap_or(0);
        let mut result = Err(FileError::Device);
        // A copy that cannot be read is what the other copies are for.
        for copy in
            (active..self.layout.fat_copies).take(if self.layout.active_copy.is_some() { 1 } else { usize::MAX })
        {
            result = self.read(self.copy_offset(copy) + start, &mut bytes, "the FAT");
            if result.is_ok() {
                break;
            }
        }
        result?;
        self.windows.push(Window { offset: start, bytes, dirty: None, used: self.age });
        Ok(())
    }

    fn copy_offset(&self, copy: u8) -> u64 {
        self.layout.fat_offset + u64::from(copy) * self.layout.fat_size
    }

    /// Writes a changed window to all copies in use.
    fn write_window(&mut self, index: usize) -> Result<(), FileError> {
        let Some(window) = self.windows.get_mut(index) else { return Ok(()) };
        let Some(dirty) = window.dirty.clone() else { return Ok(()) };
        // Whole blocks, so that the device need not read first.
        let unit = (self.layout.sector as usize).max(self.disk.block_size() as usize).min(WINDOW as usize);
        let start = dirty.start - dirty.start % unit;
        let end = dirty.end.next_multiple_of(unit).min(window.bytes.len());
        let offset = window.offset + start as u64;
        let bytes = core::mem::take(&mut window.bytes);
        let copies = match self.layout.active_copy {
            Some(active) => active..active + 1,
            None => 0..self.layout.fat_copies,
        };
        let mut result = Ok(());
        for copy in copies {
            result = result.and(self.write(self.copy_offset(copy) + offset, &bytes[start..end], "the FAT"));
        }
        if let Some(window) = self.windows.get_mut(index) {
            window.bytes = bytes;
            if result.is_ok() {
                window.dirty = None;
            }
        }
        result
    }

    /// Writes all changed windows.
    pub fn flush_table(&mut self) -> Result<(), FileError> {
        for index in 0..self.windows.len() {
            self.write_window(index)?;
        }
        Ok(())
    }
}
