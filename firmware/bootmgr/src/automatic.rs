//! Entries that the boot manager makes by itself: one for each disk that something can be booted from, as long as the disk is
//! there.
//!
//! Nothing that a person did is undone: entries of others stay where they are, an entry that was taken out of `BootOrder` stays
//! out, and the order among automatic entries stays until the toolstack's order of devices changes.

use alloc::string::String;
use alloc::vec::Vec;

use crate::devices::{Class, DeviceOrder, Disk};
use crate::load_option::LoadOption;
use crate::variables::{self, BOOT, OURS, Variables};

/// Variable with the numbers of the entries made, for those of them that are not in `BootOrder`.
const ENTRIES: &str = "AutomaticEntries";
/// Variable with the order of devices that the entries were last sorted by.
const SORTED_BY: &str = "DeviceOrder";

/// Makes the entries agree with the disks, and returns the names of the disks that have one. `is_bootable` is asked about disks
/// without an entry.
pub fn synchronize<V: Variables + ?Sized>(
    variables: &mut V,
    disks: &[Disk],
    order: &DeviceOrder,
    mut is_bootable: impl FnMut(&mut V, &Disk) -> bool,
) -> Vec<String> {
    let boot_order = BOOT.order(variables);
    let noted = variables::numbers(variables, &OURS, ENTRIES);
    let mut table = Table { disks, order, boot_order, entries: Vec::new() };
    table.collect(variables, &noted);
    for disk in disks {
        if !table.has(disk) && is_bootable(variables, disk) {
            table.add(variables, disk);
        }
    }
    let sorted_by: Vec<u8> = order.all().into_iter().map(Class::code).collect();
    if variables.get(&OURS, SORTED_BY).is_some_and(|before| before != sorted_by) {
        table.sort();
    }
    // Failures are logged, and whatever has no entry is tried in the end all the same.
    let _ = BOOT.set_order(variables, &table.boot_order);
    let numbers: Vec<u16> = table.entries.iter().map(|(number, _)| *number).collect();
    let _ = variables::keep(variables, &OURS, ENTRIES, &variables::bytes_of(&numbers));
    let _ = variables::keep(variables, &OURS, SORTED_BY, &sorted_by);
    table.entries.iter().map(|(_, disk)| disk.name.clone()).collect()
}

/// The disk that an automatic entry is for.
pub fn disk_of<'a>(option: &LoadOption, disks: &'a [Disk]) -> Option<&'a Disk> {
    let of = |disk: &&Disk| disk.path.as_bytes() == option.path;
    if option.is_automatic() { disks.iter().find(of) } else { None }
}

struct Table<'a> {
    disks: &'a [Disk],
    order: &'a DeviceOrder,
    boot_order: Vec<u16>,
    /// Numbers of automatic entries and the disks they are for.
    entries: Vec<(u16, &'a Disk)>,
}

impl<'a> Table<'a> {
    /// Finds the automatic entries, and deletes those whose disk has gone or has another entry.
    fn collect<V: Variables + ?Sized>(&mut self, variables: &mut V, noted: &[u16]) {
        for number in [noted, &self.boot_order.clone()].concat() {
            if self.entries.iter().any(|(known, _)| *known == number) {
                continue;
            }
            let Some(Ok(option)) = BOOT.read(variables, number) else { continue };
            if !option.is_automatic() {
                continue;
            }
            match disk_of(&option, self.disks).filter(|disk| !self.has(disk)) {
                Some(disk) => self.entries.push((number, disk)),
                None => {
                    self.boot_order.retain(|other| *other != number);
                    let _ = variables::keep(variables, &variables::GLOBAL, &BOOT.name(number), &[]);
                }
            }
        }
    }

    fn has(&self, disk: &Disk) -> bool {
        self.entries.iter().any(|(_, other)| other.path == disk.path)
    }

    /// Makes an entry: behind those of others, among the automatic ones at the end where its kind belongs.
    fn add<V: Variables + ?Sized>(&mut self, variables: &mut V, disk: &'a Disk) {
        let option = LoadOption::automatic(&disk.name, &disk.path);
        let Some(number) = BOOT.free_number(variables) else { return };
        if BOOT.write(variables, number, &option).is_err() {
            return;
        }
        let tail = self.boot_order.iter().rposition(|number| self.disk(*number).is_none()).map_or(0, |last| last + 1);
        let later = |number: &u16| self.disk(*number).is_some_and(|other| self.rank(other) > self.rank(disk));
        let place = self.boot_order[tail..].iter().position(later).map_or(self.boot_order.len(), |place| tail + place);
        self.boot_order.insert(place, number);
        self.entries.push((number, disk));
    }

    /// Brings the automatic entries into the toolstack's order; the places of all others stay.
    fn sort(&mut self) {
        let places: Vec<usize> =
            (0..self.boot_order.len()).filter(|place| self.disk(self.boot_order[*place]).is_some()).collect();
        let mut sorted: Vec<u16> = places.iter().map(|place| self.boot_order[*place]).collect();
        sorted.sort_by_key(|number| self.disk(*number).map(|disk| self.rank(disk)));
        for (place, number) in places.into_iter().zip(sorted) {
            self.boot_order[place] = number;
        }
    }

    fn disk(&self, number: u16) -> Option<&'a Disk> {
        self.entries.iter().find(|(other, _)| *other == number).map(|(_, disk)| *disk)
    }

    fn rank(&self, disk: &Disk) -> usize {
        self.order.rank(disk.class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Store, disk, entry};

    const CD_FIRST: [Class; 2] = [Class::Cd, Class::HardDisk];

    fn run(store: &mut Store, disks: &[Disk], classes: &[Class]) {
        let order = DeviceOrder { classes: classes.to_vec(), first: false };
        synchronize(store, disks, &order, |_, disk| disk.name != "blank");
    }

    fn names(store: &Store) -> Vec<String> {
        let name = |number| BOOT.read(store, number).unwrap().unwrap().description;
        BOOT.order(store).into_iter().map(name).collect()
    }

    fn three() -> [Disk; 3] {
        [disk("xvda", Class::HardDisk), disk("xvdb", Class::Cd), disk("blank", Class::HardDisk)]
    }

    #[test]
    fn each_bootable_disk_becomes_an_entry_behind_those_of_others() {
        let mut store = Store::default();
        store.put("Boot0000", &entry(1, "debian"));
        store.put("BootOrder", &[0, 0]);
        run(&mut store, &three(), &[]);
        assert_eq!(names(&store), ["debian", "xvda", "xvdb"]);
        let before = store.clone();
        run(&mut store, &three(), &[]);
        assert_eq!(store, before);
        assert_eq!(store.writes, before.writes, "nothing is written twice");
    }

    #[test]
    fn a_disk_that_comes_later_is_placed_by_its_kind() {
        let mut store = Store::default();
        run(&mut store, &three()[1..2], &[]);
        run(&mut store, &three(), &[]);
        assert_eq!(names(&store), ["xvda", "xvdb"]);
    }

    #[test]
    fn an_entry_goes_with_its_disk_and_nothing_else_does() {
        let mut store = Store::default();
        run(&mut store, &three(), &[]);
        store.put("Boot0007", &entry(1, "fedora"));
        store.put("BootOrder", &[1, 0, 7, 0, 0, 0]);
        run(&mut store, &three()[..1], &[]);
        assert_eq!(names(&store), ["fedora", "xvda"]);
        assert_eq!(store.get(&variables::GLOBAL, "Boot0001"), None);
    }

    #[test]
    fn an_entry_that_was_taken_out_of_the_order_stays_out() {
        let mut store = Store::default();
        run(&mut store, &three(), &[]);
        store.put("BootOrder", &[1, 0]);
        run(&mut store, &three(), &[]);
        assert_eq!(names(&store), ["xvdb"]);
        run(&mut store, &three()[1..], &[]);
        assert_eq!(store.get(&variables::GLOBAL, "Boot0000"), None, "it goes with its disk all the same");
    }

    #[test]
    fn the_order_is_the_users_until_the_toolstacks_changes() {
        let mut store = Store::default();
        run(&mut store, &three(), &CD_FIRST);
        assert_eq!(names(&store), ["xvdb", "xvda"]);
        store.put("Boot0007", &entry(1, "fedora"));
        store.put("BootOrder", &[0, 0, 7, 0, 1, 0]);
        run(&mut store, &three(), &CD_FIRST);
        assert_eq!(names(&store), ["xvda", "fedora", "xvdb"]);
        run(&mut store, &three(), &[Class::HardDisk]);
        assert_eq!(names(&store), ["xvda", "fedora", "xvdb"]);
        run(&mut store, &three(), &CD_FIRST);
        assert_eq!(names(&store), ["xvdb", "fedora", "xvda"]);
    }

    #[test]
    fn a_full_store_is_no_reason_to_stop() {
        let mut store = Store { full: true, ..Store::default() };
        run(&mut store, &three(), &[]);
        assert!(store.variables.is_empty());
    }
}
