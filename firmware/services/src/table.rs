//! System table, configuration tables, checksums (UEFI 2.10 §4).
//!
//! [`Tables`] is the bookkeeping: which configuration tables there are, and what is to be done in ExitBootServices. The
//! tables in memory that others read are [`crate::abi::table`]'s. [`attributes`] computes the memory attributes table.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use uefi_raw::table::configuration::ConfigurationTable;
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Guid, Status};

pub mod attributes;

/// There is no such configuration table to remove.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSuchTable;

impl From<NoSuchTable> for Status {
    fn from(_: NoSuchTable) -> Self {
        Self::NOT_FOUND
    }
}

/// The tables' bookkeeping.
pub struct Tables {
    system: *mut SystemTable,
    array: *mut ConfigurationTable,
    capacity: usize,
    configuration: Vec<(Guid, *mut c_void)>,
    teardowns: Vec<Teardown>,
    /// Whether the first call of ExitBootServices has been announced.
    exit_announced: bool,
}

/// Something to be done in ExitBootServices. Called once, and never dropped: what it holds would be freed with it.
pub type Teardown = Box<dyn FnMut()>;

impl Tables {
    /// Nothing installed.
    pub const fn new() -> Self {
        Self {
            system: ptr::null_mut(),
            array: ptr::null_mut(),
            capacity: 0,
            configuration: Vec::new(),
            teardowns: Vec::new(),
            exit_announced: false,
        }
    }

    /// The system table; null until it is made.
    pub fn system(&self) -> *mut SystemTable {
        self.system
    }

    /// Sets [`Self::system`].
    pub fn set_system(&mut self, system: *mut SystemTable) {
        self.system = system;
    }

    /// The array of configuration tables that the system table shows, and how many it has room for.
    pub fn array(&self) -> (*mut ConfigurationTable, usize) {
        (self.array, self.capacity)
    }

    /// Sets [`Self::array`].
    pub fn set_array(&mut self, array: *mut ConfigurationTable, capacity: usize) {
        (self.array, self.capacity) = (array, capacity);
    }

    /// Adds or replaces the configuration table `guid`, or removes it if `table` is null (UEFI 2.10 §7.5.6).
    pub fn set_configuration(&mut self, guid: &Guid, table: *mut c_void) -> Result<(), NoSuchTable> {
        let known = self.configuration.iter().position(|(other, _)| other == guid);
        match (known, table.is_null()) {
            (Some(index), true) => drop(self.configuration.remove(index)),
            (Some(index), false) => self.configuration[index].1 = table,
            (None, true) => return Err(NoSuchTable),
            (None, false) => self.configuration.push((*guid, table)),
        }
        Ok(())
    }

    /// The configuration tables in order of installation.
    pub fn configuration(&self) -> impl ExactSizeIterator<Item = ConfigurationTable> {
        self.configuration.iter().map(|(guid, table)| ConfigurationTable { vendor_guid: *guid, vendor_table: *table })
    }

    /// The configuration table `guid`.
    pub fn find_configuration(&self, guid: &Guid) -> Option<*mut c_void> {
        self.configuration.iter().find(|(other, _)| other == guid).map(|(_, table)| *table)
    }

    /// Adds something to be done in ExitBootServices.
    pub fn add_teardown(&mut self, teardown: Teardown) {
        self.teardowns.push(teardown);
    }

    /// Takes out what is to be done in ExitBootServices, in the order in which it was added. Allocates nothing.
    pub fn take_teardowns(&mut self) -> Vec<Teardown> {
        core::mem::take(&mut self.teardowns)
    }

    /// Whether ExitBootServices has still to be announced; true once.
    pub fn announce_exit(&mut self) -> bool {
        !core::mem::replace(&mut self.exit_announced, true)
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Tables {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tables").field("configuration", &self.configuration).finish_non_exhaustive()
    }
}

/// CRC-32 as UEFI uses it everywhere: polynomial 0x04C11DB7, reflected, as in Ethernet.
pub fn crc32(bytes: &[u8]) -> u32 {
    let update = |crc: u32, byte: &u8| CRC_OF_BYTE[usize::from(crc as u8 ^ byte)] ^ (crc >> u8::BITS);
    !bytes.iter().fold(!0, update)
}

/// The polynomial with its bits reversed.
const POLYNOMIAL: u32 = 0xedb8_8320;

static CRC_OF_BYTE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < u8::BITS {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;
    use uefi_raw::guid;

    const ONE: Guid = guid!("11111111-1111-1111-1111-111111111111");
    const TWO: Guid = guid!("22222222-2222-2222-2222-222222222222");

    fn table(n: usize) -> *mut c_void {
        ptr::without_provenance_mut(n)
    }

    #[test]
    fn crc_has_the_standard_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn configuration_tables_are_added_replaced_and_removed_in_place() {
        let mut tables = Tables::new();
        tables.set_configuration(&ONE, table(1)).unwrap();
        tables.set_configuration(&TWO, table(2)).unwrap();
        tables.set_configuration(&ONE, table(3)).unwrap();
        let list: Vec<_> = tables.configuration().map(|t| (t.vendor_guid, t.vendor_table.addr())).collect();
        assert_eq!(list, [(ONE, 3), (TWO, 2)]);
        tables.set_configuration(&ONE, ptr::null_mut()).unwrap();
        assert_eq!(tables.configuration().len(), 1);
        assert_eq!(tables.find_configuration(&ONE), None);
    }

    #[test]
    fn a_table_that_is_not_there_cannot_be_removed() {
        assert_eq!(Tables::new().set_configuration(&ONE, ptr::null_mut()), Err(NoSuchTable));
    }

    #[test]
    fn teardowns_are_taken_once_in_order() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut tables = Tables::new();
        for n in 0..3 {
            let order = order.clone();
            tables.add_teardown(Box::new(move || order.borrow_mut().push(n)));
        }
        tables.take_teardowns().iter_mut().for_each(|teardown| teardown());
        assert!(tables.take_teardowns().is_empty());
        assert_eq!(*order.borrow(), [0, 1, 2]);
    }

    #[test]
    fn exit_is_announced_once() {
        let mut tables = Tables::new();
        assert_eq!([tables.announce_exit(), tables.announce_exit()], [true, false]);
    }
}
