//! FAT12, FAT16 and FAT32 with long names, read and write (Microsoft FAT specification 1.03; UEFI 2.10 §13.3).
//!
//! [`Volume`] implements [`FileSystem`] over a [`ByteDevice`].
//!
//! Speed: runs of clusters are one transfer straight into the caller's buffer; the FAT is cached in windows, the chain of
//! each open file as runs, and each directory in use as a whole.
//!
//! Safety of what is on the disk: data goes out before the FAT that makes it reachable, and the FAT before the directory
//! entry; what goes away leaves the directory first. After a power cut clusters may be lost, and a file that was being moved
//! may be under both names. While something is pending the volume is marked as in use.
//!
//! Nothing on the disk is believed: a cluster number is checked where it is read, a chain cannot be longer than the
//! volume, a directory not longer than the specification allows.
//!
//! | module | what |
//! | --- | --- |
//! | `layout` | the boot sector |
//! | `table` | the FAT, chains, allocation |
//! | `name` | short and long names |
//! | `entry` | directory entries and time stamps |
//! | `directory` | a directory in memory |
//! | `info` | FSInfo |

mod directory;
mod entry;
mod info;
mod layout;
mod name;
mod table;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use services::block::ByteDevice;
use services::file::{Attributes, FileError, FileId, FileInfo, FileSystem, OpenMode, VolumeInfo};
use uefi_raw::time::Time;

use directory::{Item, Listing};
use entry::Entry;
use layout::{BOOT_SECTOR, Layout, SLOT};
use table::{Chain, Medium};

pub use layout::{MountError, Width};

/// Says what time it is.
pub type Clock = Box<dyn Fn() -> Time>;

/// Key of the root directory's node.
const ROOT: u64 = 0;
/// Directories kept in memory after they were closed, and the largest that is kept.
const PARKED: usize = 8;
const PARKED_SIZE: u64 = 128 << 10;
/// Most zeros written at a time.
const ZEROS: u64 = 64 << 10;
/// What the boot sector says when there is no label.
const NO_LABEL: [u8; 11] = *b"NO NAME    ";

/// A mounted FAT volume.
pub struct Volume<D: ByteDevice> {
    medium: Medium<D>,
    clock: Clock,
    nodes: BTreeMap<u64, Node>,
    opens: BTreeMap<u64, Open>,
    /// Directories closed last, by first cluster, the latest at the end.
    parked: Vec<(u32, Listing)>,
    next_key: u64,
    /// Something is or may be written; the volume is marked as in use.
    writing: bool,
    /// It was marked as unmounted when it was mounted, so it may be again.
    was_clean: bool,
}

/// A file or directory that is open at least once, or holds one that is.
struct Node {
    /// The directory it is in; only the root has none.
    parent: Option<u64>,
    /// Opens and nodes in this directory.
    uses: usize,
    name: String,
    /// Where it stands in its directory.
    slots: Range<u32>,
    entry: Entry,
    body: Body,
    /// The entry differs from what is on the disk.
    dirty: bool,
    deleted: bool,
}

enum Body {
    File(Chain),
    Directory(Option<Listing>),
}

#[derive(Clone, Copy)]
struct Open {
    node: u64,
    writable: bool,
}

impl<D: ByteDevice> Volume<D> {
    /// Mounts the volume on `disk`. `name` is what messages call it.
    pub fn mount(mut disk: D, name: &str, clock: Clock) -> Result<Self, MountError> {
        let mut boot = [0; BOOT_SECTOR];
        if disk.size() < BOOT_SECTOR as u64 {
            return Err(MountError::NotFat("the device is too small"));
        }
        disk.read_at(0, &mut boot).map_err(MountError::Device)?;
        let layout = Layout::parse(&boot, disk.size())?;
        let mut medium = Medium::new(disk, layout, String::from(name));
        info::load(&mut medium);
        let was_clean = medium.is_clean().unwrap_or(false) && !medium.layout.state_dirty;
        if let Some(note) = &medium.layout.note {
            log::warn!("{name}: {note}");
        }
        if !was_clean {
            log::warn!("{name}: the file system was not unmounted; a check of it is due");
            // What FSInfo says may be out of date then.
            medium.free = None;
        }
        let now = clock();
        let root = Node {
            parent: None,
            uses: 1,
            name: String::new(),
            slots: 0..0,
            entry: Entry { cluster: medium.layout.root_cluster, ..Entry::new([b' '; 11], entry::DIRECTORY, &now) },
            body: Body::Directory(None),
            dirty: false,
            deleted: false,
        };
        Ok(Self {
            medium,
            clock,
            nodes: BTreeMap::from([(ROOT, root)]),
            opens: BTreeMap::new(),
            parked: Vec::new(),
            next_key: ROOT + 1,
            writing: false,
            was_clean,
        })
    }

    /// Kind of the volume.
    pub fn width(&self) -> Width {
        self.medium.layout.width
    }

    /// Writes what is pending. Dropping the volume does so too, but cannot say what went wrong.
    pub fn unmount(mut self) -> Result<(), FileError> {
        self.flush_all()
    }

    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn open_of(&self, file: FileId) -> Result<Open, FileError> {
        let open = *self.opens.get(&file.0).ok_or(FileError::InvalidParameter)?;
        // UEFI 2.10 §13.5: what is done to a deleted file is a device error.
        if self.node(open.node)?.deleted { Err(FileError::Device) } else { Ok(open) }
    }

    fn node(&self, node: u64) -> Result<&Node, FileError> {
        self.nodes.get(&node).ok_or(FileError::InvalidParameter)
    }

    fn node_mut(&mut self, node: u64) -> Result<&mut Node, FileError> {
        self.nodes.get_mut(&node).ok_or(FileError::InvalidParameter)
    }

    fn add_open(&mut self, node: u64, writable: bool) -> Result<FileId, FileError> {
        self.node_mut(node)?.uses += 1;
        let key = self.key();
        self.opens.insert(key, Open { node, writable });
        Ok(FileId(key))
    }

    /// Takes back one use of a node, and of its parents where that was the last.
    fn release(&mut self, node: u64) {
        let mut next = Some(node);
        while let Some(key) = next {
            let Some(node) = self.nodes.get_mut(&key) else { return };
            node.uses = node.uses.saturating_sub(1);
            if node.uses > 0 || key == ROOT {
                return;
            }
            let Some(node) = self.nodes.remove(&key) else { return };
            if let Body::Directory(Some(listing)) = node.body
                && !node.deleted
                && listing.size() <= PARKED_SIZE
            {
                if self.parked.len() >= PARKED {
                    self.parked.remove(0);
                }
                self.parked.push((node.entry.cluster, listing));
            }
            next = node.parent;
        }
    }

    /// Runs `f` on the contents of a directory. If it fails, they are read anew next time.
    fn with_listing<R>(
        &mut self,
        directory: u64,
        f: impl FnOnce(&mut Medium<D>, &mut Listing) -> Result<R, FileError>,
    ) -> Result<R, FileError> {
        let node = self.nodes.get_mut(&directory).ok_or(FileError::InvalidParameter)?;
        let Body::Directory(listing) = &mut node.body else { return Err(FileError::AccessDenied) };
        let mut listing = match listing.take() {
            Some(listing) => listing,
            None => match self.parked.iter().position(|(cluster, _)| *cluster == node.entry.cluster) {
                Some(place) => self.parked.remove(place).1,
                None => Listing::load(&mut self.medium, node.entry.cluster)?,
            },
        };
        let result = f(&mut self.medium, &mut listing);
        if let Body::Directory(place) = &mut node.body
            && result.is_ok()
        {
            *place = Some(listing);
        }
        result
    }

    /// Runs `f` on the chain and the entry of a file.
    fn with_chain<R>(
        &mut self,
        file: u64,
        f: impl FnOnce(&mut Medium<D>, &mut Chain, &mut Entry) -> Result<R, FileError>,
    ) -> Result<R, FileError> {
        let node = self.nodes.get_mut(&file).ok_or(FileError::InvalidParameter)?;
        match &mut node.body {
            Body::File(chain) => f(&mut self.medium, chain, &mut node.entry),
            Body::Directory(_) => Err(FileError::AccessDenied),
        }
    }

    /// The node of an item of a directory, new or shared with who has it open.
    fn node_for(&mut self, directory: u64, item: &Item) -> Result<u64, FileError> {
        let known = self
            .nodes
            .iter()
            .find(|(_, node)| node.parent == Some(directory) && node.slots.end == item.slots.end && !node.deleted);
        if let Some((&key, _)) = known {
            return Ok(key);
        }
        let cluster = item.entry.cluster;
        let body = if item.entry.is_directory() {
            self.check_directory(directory, cluster, &item.name)?;
            Body::Directory(None)
        } else {
            let most = u64::from(self.medium.layout.clusters) * u64::from(self.medium.layout.cluster);
            if u64::from(item.entry.size) > most {
                let size = item.entry.size;
                return Err(self
                    .medium
                    .corrupted(format_args!("\"{}\" has {size} bytes, the volume {most}", item.name)));
            }
            Body::File(Chain::new(cluster))
        };
        let key = self.key();
        self.node_mut(directory)?.uses += 1;
        let node = Node {
            parent: Some(directory),
            uses: 0,
            name: item.name.clone(),
            slots: item.slots.clone(),
            entry: item.entry,
            body,
            dirty: false,
            deleted: false,
        };
        self.nodes.insert(key, node);
        Ok(key)
    }

    /// A directory must not be one of those that lead to it: whoever walks the tree would never come to an end.
    fn check_directory(&self, parent: u64, cluster: u32, name: &str) -> Result<(), FileError> {
        if !self.medium.layout.is_data(cluster) {
            return Err(self.medium.corrupted(format_args!("directory \"{name}\" starts at cluster {cluster}")));
        }
        let mut next = Some(parent);
        while let Some(key) = next {
            let node = self.node(key)?;
            if node.entry.cluster == cluster {
                return Err(self.medium.corrupted(format_args!("directory \"{name}\" contains itself")));
            }
            next = node.parent;
        }
        Ok(())
    }

    /// Makes a file or directory; its node has no use yet.
    fn create(&mut self, directory: u64, name: &str, attributes: Attributes) -> Result<u64, FileError> {
        name::check(name)?;
        self.begin_write()?;
        let now = (self.clock)();
        let attributes = (attributes.bits() & Attributes::all().bits()) as u8;
        let short = self.short_name(directory, name, None)?;
        let mut entry = Entry::new(short, attributes, &now);
        let mut chain = Chain::new(0);
        if entry.is_directory() {
            let parent = self.node(directory)?;
            let parent_cluster = if parent.parent.is_none() { 0 } else { parent.entry.cluster };
            if let Err(error) = new_directory(&mut self.medium, &mut chain, parent_cluster, entry) {
                self.medium.truncate(&mut chain, 0)?;
                return Err(error);
            }
            entry.cluster = chain.first();
        }
        let slots = self.with_listing(directory, |medium, listing| listing.insert(medium, name, entry));
        let slots = match slots {
            Ok(slots) => slots,
            Err(error) => {
                self.medium.truncate(&mut chain, 0)?;
                self.medium.flush_table()?;
                return Err(error);
            }
        };
        self.node_for(directory, &Item { name: String::from(name), slots, entry })
    }

    /// The short name for a name new to a directory. The item at `own` may have it already.
    fn short_name(
        &mut self,
        directory: u64,
        name: &str,
        own: Option<&Range<u32>>,
    ) -> Result<name::ShortName, FileError> {
        let (own, name) = (own.cloned(), String::from(name));
        // Not an error of the listing, so it is kept.
        self.with_listing(directory, |_, listing| {
            let own = own.and_then(|own| listing.at(&own)).map(|item| item.entry.name);
            Ok(match name::exact_short(&name) {
                Some(short) => Ok(short),
                None => name::unique_short(&name, |short| Some(*short) != own && listing.has_short(short)),
            })
        })?
    }

    /// Marks the volume as in use before anything of it changes.
    fn begin_write(&mut self) -> Result<(), FileError> {
        if self.medium.disk.read_only() {
            return Err(FileError::WriteProtected);
        }
        if !self.writing {
            if self.was_clean {
                self.medium.set_clean(false)?;
            }
            self.writing = true;
        }
        Ok(())
    }

    /// Writes what is left to write, and marks the volume as unmounted if nothing is pending.
    fn end_write(&mut self) -> Result<(), FileError> {
        if !self.writing {
            return Ok(());
        }
        self.medium.flush_table()?;
        if self.nodes.values().any(|node| node.dirty && !node.deleted) {
            return Ok(());
        }
        info::store(&mut self.medium)?;
        if self.was_clean {
            self.medium.set_clean(true)?;
        }
        self.medium.disk.flush().map_err(|error| self.medium.device_error("flushing", error))?;
        self.writing = false;
        Ok(())
    }

    /// Writes the entry of a node if it changed: first the FAT that it leads to.
    fn flush_node(&mut self, key: u64) -> Result<(), FileError> {
        let node = self.node(key)?;
        let (Some(parent), true, false) = (node.parent, node.dirty, node.deleted) else { return Ok(()) };
        let (slots, entry) = (node.slots.clone(), node.entry);
        self.medium.flush_table()?;
        self.with_listing(parent, |medium, listing| listing.update(medium, &slots, entry))?;
        self.node_mut(key)?.dirty = false;
        Ok(())
    }

    fn flush_all(&mut self) -> Result<(), FileError> {
        let keys: Vec<u64> = self.nodes.keys().copied().collect();
        for key in keys {
            self.flush_node(key)?;
        }
        self.end_write()
    }

    /// Changes the size of a file. What is new is zero.
    fn resize(&mut self, file: u64, size: u64) -> Result<(), FileError> {
        let old = u64::from(self.node(file)?.entry.size);
        let new = u32::try_from(size).map_err(|_| FileError::Full)?;
        if size == old {
            return Ok(());
        }
        self.begin_write()?;
        let now = (self.clock)();
        if size > old {
            self.node_mut(file)?.dirty = true;
            return self.with_chain(file, |medium, chain, entry| {
                reserve(medium, chain, entry, size)?;
                zero(medium, chain, old, size)?;
                entry.size = new;
                entry.set_modified(&now);
                Ok(())
            });
        }
        let keep = size.div_ceil(u64::from(self.medium.layout.cluster)) as u32;
        let node = self.node_mut(file)?;
        node.dirty = true;
        node.entry.size = new;
        node.entry.set_modified(&now);
        if keep == 0 {
            node.entry.cluster = 0;
        }
        // The entry must not claim what is freed next.
        self.flush_node(file)?;
        self.with_chain(file, |medium, chain, _| medium.truncate(chain, keep))?;
        self.medium.flush_table()
    }

    fn move_to(&mut self, key: u64, directory: u64, name: &str) -> Result<(), FileError> {
        let name = name::tidy(name);
        name::check(name)?;
        let node = self.node(key)?;
        let Some(old_directory) = node.parent else { return Err(FileError::AccessDenied) };
        let (old_slots, is_directory) = (node.slots.clone(), node.entry.is_directory());
        if directory == old_directory && node.name == name {
            return Ok(());
        }
        if is_directory {
            let mut next = Some(directory);
            while let Some(above) = next {
                if above == key {
                    return Err(FileError::AccessDenied);
                }
                next = self.node(above)?.parent;
            }
        }
        let found = self.with_listing(directory, |_, listing| Ok(listing.find(name).map(|item| item.slots.clone())))?;
        if found.is_some_and(|slots| directory != old_directory || slots != old_slots) {
            return Err(FileError::AccessDenied);
        }
        self.begin_write()?;
        self.flush_node(key)?;
        let own = (directory == old_directory).then_some(&old_slots);
        let short = self.short_name(directory, name, own)?;
        let mut entry = Entry { name: short, case: 0, ..self.node(key)?.entry };
        if !is_directory {
            entry.attributes |= Attributes::ARCHIVE.bits() as u8;
        }
        let slots = self.with_listing(directory, |medium, listing| listing.insert(medium, name, entry))?;
        self.with_listing(old_directory, |medium, listing| listing.remove(medium, &old_slots))?;
        let node = self.node_mut(key)?;
        node.parent = Some(directory);
        node.slots = slots;
        node.entry = entry;
        node.name = String::from(name);
        if directory != old_directory {
            self.node_mut(directory)?.uses += 1;
            self.release(old_directory);
            if is_directory {
                let parent = self.node(directory)?;
                let cluster = if parent.parent.is_none() { 0 } else { parent.entry.cluster };
                self.with_listing(key, |medium, listing| listing.set_parent(medium, cluster))?;
            }
        }
        Ok(())
    }

    /// Deletes the file of an open that is no longer in the list.
    fn delete_node(&mut self, open: Open) -> Result<(), FileError> {
        let key = open.node;
        let node = self.node(key)?;
        let Some(parent) = node.parent else { return Err(FileError::AccessDenied) };
        if node.deleted {
            return Err(FileError::Device);
        }
        if !open.writable || node.entry.public_attributes().contains(Attributes::READ_ONLY) {
            return Err(FileError::AccessDenied);
        }
        let slots = node.slots.clone();
        if node.entry.is_directory() && self.with_listing(key, |_, listing| Ok(!listing.items.is_empty()))? {
            return Err(FileError::AccessDenied);
        }
        self.begin_write()?;
        self.with_listing(parent, |medium, listing| listing.remove(medium, &slots))?;
        let node = self.nodes.get_mut(&key).ok_or(FileError::InvalidParameter)?;
        node.deleted = true;
        let mut chain = match core::mem::replace(&mut node.body, Body::Directory(None)) {
            Body::File(chain) => chain,
            Body::Directory(_) => Chain::new(node.entry.cluster),
        };
        self.medium.truncate(&mut chain, 0)
    }

    fn info_of(&self, item: &Item) -> FileInfo {
        let cluster = u64::from(self.medium.layout.cluster);
        let directory = item.entry.is_directory();
        let size = if directory { 0 } else { u64::from(item.entry.size) };
        FileInfo {
            name: item.name.clone(),
            size,
            allocated: if directory { cluster } else { size.next_multiple_of(cluster) },
            created: item.entry.created(),
            accessed: item.entry.accessed(),
            modified: item.entry.modified(),
            attributes: item.entry.public_attributes(),
        }
    }
}

impl<D: ByteDevice> Drop for Volume<D> {
    fn drop(&mut self) {
        // What fails is logged where it fails.
        let _ = self.flush_all();
    }
}

/// Writes the first cluster of a new directory with its dot entries.
fn new_directory<D: ByteDevice>(
    medium: &mut Medium<D>,
    chain: &mut Chain,
    parent: u32,
    entry: Entry,
) -> Result<(), FileError> {
    medium.extend(chain, 1)?;
    let mut bytes = vec![0; medium.layout.cluster as usize];
    let dots = [(*b".          ", chain.first()), (*b"..         ", parent)];
    for (slot, (name, cluster)) in bytes.chunks_exact_mut(SLOT).zip(dots) {
        let dot = Entry { name, cluster, attributes: entry::DIRECTORY, ..entry };
        slot.copy_from_slice(&dot.encode());
    }
    medium.write(medium.layout.cluster_offset(chain.first()), &bytes, "a new directory")?;
    medium.flush_table()
}

/// Makes the chain long enough for `size` bytes.
fn reserve<D: ByteDevice>(
    medium: &mut Medium<D>,
    chain: &mut Chain,
    entry: &mut Entry,
    size: u64,
) -> Result<(), FileError> {
    let needed = size.div_ceil(u64::from(medium.layout.cluster)) as u32;
    // Only when the end may be behind what is known, so that writing within a file does not walk all of it.
    let last = needed.saturating_sub(1);
    if needed > 0 && medium.run(chain, last, 1)?.is_none() {
        let have = medium.length(chain)?;
        medium.extend(chain, needed - have)?;
        entry.cluster = chain.first();
    }
    Ok(())
}

/// Calls `f` with each piece of `range` of a file: offset on the disk, and which part of the range it is.
fn pieces<D: ByteDevice>(
    medium: &mut Medium<D>,
    chain: &mut Chain,
    range: Range<u64>,
    mut f: impl FnMut(&mut Medium<D>, u64, Range<usize>) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let size = u64::from(medium.layout.cluster);
    let mut at = range.start;
    while at < range.end {
        let (index, skip) = ((at / size) as u32, at % size);
        let want = (skip + (range.end - at)).div_ceil(size).min(u64::from(u32::MAX)) as u32;
        let Some((cluster, count)) = medium.run(chain, index, want)? else {
            let first = chain.first();
            return Err(medium.corrupted(format_args!("the chain from cluster {first} ends before its file does")));
        };
        let length = (u64::from(count) * size - skip).min(range.end - at);
        let done = (at - range.start) as usize;
        let offset = medium.layout.cluster_offset(cluster) + skip;
        f(medium, offset, done..done + length as usize)?;
        at += length;
    }
    Ok(())
}

/// Fills bytes `from..to` of a file with zeros.
fn zero<D: ByteDevice>(medium: &mut Medium<D>, chain: &mut Chain, from: u64, to: u64) -> Result<(), FileError> {
    let zeros = vec![0; (to.saturating_sub(from)).min(ZEROS) as usize];
    let mut at = from;
    while at < to {
        let end = to.min(at + ZEROS);
        pieces(medium, chain, at..end, |medium, offset, part| {
            medium.write(offset, zeros.get(part).unwrap_or(&[]), "a file")
        })?;
        at = end;
    }
    Ok(())
}

impl<D: ByteDevice> FileSystem for Volume<D> {
    fn volume(&mut self) -> Result<VolumeInfo, FileError> {
        let label = self.with_listing(ROOT, |_, listing| Ok(listing.label()))?;
        let stored = Some(self.medium.layout.label).filter(|&label| label != NO_LABEL);
        let free = self.medium.free_clusters()?;
        let layout = &self.medium.layout;
        Ok(VolumeInfo {
            label: label.map(|(_, label)| label).or(stored).map(|label| name::label_text(&label)).unwrap_or_default(),
            size: u64::from(layout.clusters) * u64::from(layout.cluster),
            free: u64::from(free) * u64::from(layout.cluster),
            block_size: layout.cluster,
            read_only: self.medium.disk.read_only(),
        })
    }

    fn set_label(&mut self, label: &str) -> Result<(), FileError> {
        let label = name::label(label)?;
        self.begin_write()?;
        let now = (self.clock)();
        let none = label == [b' '; 11];
        let entry = (!none).then(|| Entry::new(label, entry::VOLUME_ID, &now));
        self.with_listing(ROOT, |medium, listing| listing.set_label(medium, entry))?;
        let stored = if none { NO_LABEL } else { label };
        self.medium.layout.label = stored;
        if let Some(at) = self.medium.layout.label_offset {
            for boot in [Some(0), self.medium.layout.backup_boot].into_iter().flatten() {
                self.medium.write(boot + at, &stored, "the boot sector")?;
            }
        }
        self.end_write()
    }

    fn open_root(&mut self) -> Result<FileId, FileError> {
        self.add_open(ROOT, !self.medium.disk.read_only())
    }

    fn open(&mut self, parent: FileId, name: &str, mode: OpenMode) -> Result<FileId, FileError> {
        let directory = self.open_of(parent)?.node;
        let name = name::tidy(name);
        let writable = mode != OpenMode::Read;
        let found = self.with_listing(directory, |_, listing| Ok(listing.find(name).cloned()))?;
        let node = match (found, mode) {
            (None, OpenMode::Create(attributes)) => self.create(directory, name, attributes)?,
            (None, _) => return Err(FileError::NotFound),
            (Some(_), OpenMode::ReadWrite | OpenMode::Create(_)) if self.medium.disk.read_only() => {
                return Err(FileError::WriteProtected);
            }
            (Some(item), _) => {
                let attributes = item.entry.public_attributes();
                let is_directory = item.entry.is_directory();
                if writable && !is_directory && attributes.contains(Attributes::READ_ONLY) {
                    return Err(FileError::AccessDenied);
                }
                if let OpenMode::Create(wanted) = mode
                    && wanted.contains(Attributes::DIRECTORY) != is_directory
                {
                    return Err(FileError::AccessDenied);
                }
                self.node_for(directory, &item)?
            }
        };
        self.add_open(node, writable)
    }

    fn open_parent(&mut self, file: FileId) -> Result<FileId, FileError> {
        let open = self.open_of(file)?;
        let parent = self.node(open.node)?.parent.ok_or(FileError::NotFound)?;
        self.add_open(parent, open.writable)
    }

    fn close(&mut self, file: FileId) -> Result<(), FileError> {
        let open = self.opens.remove(&file.0).ok_or(FileError::InvalidParameter)?;
        let result = self.flush_node(open.node);
        if result.is_err()
            && let Ok(node) = self.node_mut(open.node)
        {
            // It cannot be written; do not keep the volume in use for it.
            node.dirty = node.uses > 1 && node.dirty;
        }
        self.release(open.node);
        result.and(self.end_write())
    }

    fn delete(&mut self, file: FileId) -> Result<(), FileError> {
        let open = self.opens.remove(&file.0).ok_or(FileError::InvalidParameter)?;
        let result = self.delete_node(open);
        let flushed = self.flush_node(open.node);
        self.release(open.node);
        result.and(flushed).and(self.end_write())
    }

    fn read(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        let node = self.open_of(file)?.node;
        self.with_chain(node, |medium, chain, entry| {
            let left = u64::from(entry.size).saturating_sub(offset);
            let length = (into.len() as u64).min(left);
            if length == 0 {
                return Ok(0);
            }
            pieces(medium, chain, offset..offset + length, |medium, at, part| match into.get_mut(part) {
                Some(part) => medium.read(at, part, "a file"),
                None => Ok(()),
            })?;
            Ok(length as usize)
        })
    }

    fn write(&mut self, file: FileId, offset: u64, from: &[u8]) -> Result<(), FileError> {
        let open = self.open_of(file)?;
        if self.node(open.node)?.entry.is_directory() || !open.writable {
            return Err(FileError::AccessDenied);
        }
        if from.is_empty() {
            return Ok(());
        }
        let end =
            offset.checked_add(from.len() as u64).and_then(|end| u32::try_from(end).ok()).ok_or(FileError::Full)?;
        self.begin_write()?;
        let now = (self.clock)();
        self.node_mut(open.node)?.dirty = true;
        self.with_chain(open.node, |medium, chain, entry| {
            reserve(medium, chain, entry, u64::from(end))?;
            if offset > u64::from(entry.size) {
                zero(medium, chain, u64::from(entry.size), offset)?;
            }
            pieces(medium, chain, offset..u64::from(end), |medium, at, part| {
                medium.write(at, from.get(part).unwrap_or(&[]), "a file")
            })?;
            entry.size = entry.size.max(end);
            entry.set_modified(&now);
            entry.attributes |= Attributes::ARCHIVE.bits() as u8;
            Ok(())
        })
    }

    fn entry(&mut self, directory: FileId, index: u64) -> Result<Option<FileInfo>, FileError> {
        let directory = self.open_of(directory)?.node;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(mut item) = self.with_listing(directory, |_, listing| Ok(listing.items.get(index).cloned()))? else {
            return Ok(None);
        };
        // Whoever has it open may know better.
        let known = self
            .nodes
            .values()
            .find(|node| node.parent == Some(directory) && node.slots.end == item.slots.end && !node.deleted);
        if let Some(node) = known {
            item.entry = node.entry;
        }
        Ok(Some(self.info_of(&item)))
    }

    fn info(&mut self, file: FileId) -> Result<FileInfo, FileError> {
        let key = self.open_of(file)?.node;
        let node = self.node(key)?;
        let item = Item { name: node.name.clone(), slots: node.slots.clone(), entry: node.entry };
        let mut info = self.info_of(&item);
        if info.attributes.contains(Attributes::DIRECTORY) {
            info.allocated = self.with_listing(key, |_, listing| Ok(listing.size()))?;
        }
        Ok(info)
    }

    fn size(&mut self, file: FileId) -> Result<u64, FileError> {
        let node = self.node(self.open_of(file)?.node)?;
        Ok(if node.entry.is_directory() { 0 } else { u64::from(node.entry.size) })
    }

    fn set_info(&mut self, file: FileId, info: &FileInfo) -> Result<(), FileError> {
        let open = self.open_of(file)?;
        let old = self.info(file)?;
        let is_directory = old.attributes.contains(Attributes::DIRECTORY);
        let node = self.node(open.node)?;
        let parent = node.parent;
        let (renamed, resized) = (info.name != old.name, info.size != old.size);
        if info.attributes.contains(Attributes::DIRECTORY) != is_directory {
            return Err(FileError::AccessDenied);
        }
        let locked = !open.writable || (old.attributes.contains(Attributes::READ_ONLY) && !is_directory);
        if (resized && (is_directory || locked)) || (renamed && (locked || parent.is_none())) {
            return Err(FileError::AccessDenied);
        }
        let apply = |entry: &mut Entry| {
            let all = Attributes::all().bits() as u8;
            entry.attributes = entry.attributes & !all | info.attributes.bits() as u8 & all;
            let wanted = |new: &Time, old: &Time| new.year != 0 && new != old;
            if wanted(&info.created, &old.created) {
                entry.set_created(&info.created);
            }
            if wanted(&info.modified, &old.modified) {
                let accessed = entry.accessed;
                entry.set_modified(&info.modified);
                entry.accessed = accessed;
            }
            if wanted(&info.accessed, &old.accessed) {
                entry.set_accessed(&info.accessed);
            }
        };
        let mut entry = node.entry;
        apply(&mut entry);
        if entry == node.entry && !renamed && !resized {
            return Ok(());
        }
        // The root has no entry to hold any of this.
        let Some(parent) = parent else { return Err(FileError::AccessDenied) };
        self.begin_write()?;
        if renamed {
            self.move_to(open.node, parent, &info.name)?;
        }
        if resized {
            self.resize(open.node, info.size)?;
        }
        let node = self.node_mut(open.node)?;
        apply(&mut node.entry);
        node.dirty = true;
        self.flush_node(open.node)?;
        self.end_write()
    }

    fn rename(&mut self, file: FileId, directory: FileId, name: &str) -> Result<(), FileError> {
        let open = self.open_of(file)?;
        let directory = self.open_of(directory)?.node;
        let node = self.node(open.node)?;
        let read_only = node.entry.public_attributes().contains(Attributes::READ_ONLY) && !node.entry.is_directory();
        if !open.writable || read_only || !self.node(directory)?.entry.is_directory() {
            return Err(FileError::AccessDenied);
        }
        self.move_to(open.node, directory, name)?;
        self.end_write()
    }

    fn flush(&mut self, file: FileId) -> Result<(), FileError> {
        let node = self.open_of(file)?.node;
        self.flush_node(node)?;
        self.end_write()
    }
}

#[cfg(test)]
mod tests;
