//! What QEMU hands to firmware (`docs/specs/fw_cfg.rst` of QEMU): numbered items, and files by name.
//!
//! On Xen the device model has it only where the guest's configuration names a kernel: see [`crate::direct_boot`].
//!
//! Large items come by DMA where the device model offers it. Without that they come byte by byte through a port, which Xen at
//! least hands over page by page.

use alloc::vec::Vec;
use core::fmt;

use hw::shared::{PAGE_SIZE, SharedPages};

use crate::domain::{EmulatedMachine, SECOND};

/// 16 bits: the item that is read next, from its start.
const SELECTOR: u16 = 0x510;
/// 8 bits: the next byte of it.
const DATA: u16 = 0x511;
/// 32 bits each, big-endian: address of a DMA request; writing the lower half starts it.
const DMA_HIGH: u16 = 0x514;
const DMA_LOW: u16 = 0x518;
/// What the interface offers: bit 1 is DMA.
const HAS_DMA: u8 = 1 << 1;

/// A DMA request: control and length of 32 bits, address of 64 bits, big-endian.
mod request {
    pub const CONTROL: usize = 0;
    pub const LENGTH: usize = 4;
    pub const ADDRESS: usize = 8;
    /// Bits of the control field; it is zero when all went well.
    pub const ERROR: u32 = 1 << 0;
    pub const READ: u32 = 1 << 1;
    pub const SELECT: u32 = 1 << 3;
}

/// Pages of a DMA buffer, behind the page with the request.
const BUFFER_PAGES: usize = 256;
/// Shorter reads are quicker without DMA.
const DMA_MINIMUM: usize = 256;
/// How long the device model may take for a buffer. It usually is done at once.
const DMA_TIMEOUT: u64 = 10 * SECOND;
/// Most files that are looked at.
const FILES_MAX: u32 = 1024;
/// An entry of the directory: size of 32 bits, item of 16 bits, big-endian, 16 bits of nothing, name.
const ENTRY: usize = 64;
const ENTRY_NAME: usize = 8;

/// Number of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item(pub u16);

impl Item {
    /// "QEMU".
    const SIGNATURE: Self = Self(0x00);
    /// What the interface offers.
    const FEATURES: Self = Self(0x01);
    /// The directory of files.
    const FILES: Self = Self(0x19);
}

/// Why something cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The device model refused a DMA request.
    Refused,
    /// The device model did not finish a DMA request.
    Silent,
    /// Too little memory for this many bytes.
    Memory(u64),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("the device model's configuration interface refused a request"),
            Self::Silent => f.write_str("the device model's configuration interface did not answer"),
            Self::Memory(size) => write!(f, "too little memory for {size} bytes"),
        }
    }
}

impl core::error::Error for Error {}

/// A file: an item with its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File {
    /// The item.
    pub item: Item,
    /// Its size in bytes.
    pub size: u32,
}

/// The interface.
#[derive(Debug)]
pub struct FwCfg {
    machine: EmulatedMachine,
    has_dma: bool,
}

impl FwCfg {
    /// Looks for the interface.
    pub fn open(machine: EmulatedMachine) -> Option<Self> {
        let mut this = Self { machine, has_dma: false };
        let mut signature = [0; 4];
        this.read_by_port(Item::SIGNATURE, &mut signature);
        if signature != *b"QEMU" {
            return None;
        }
        let mut features = [0];
        this.read_by_port(Item::FEATURES, &mut features);
        this.has_dma = features[0] & HAS_DMA != 0;
        Some(this)
    }

    /// Reads an item from its start. What lies behind its end reads as zeros.
    pub fn read(&self, item: Item, into: &mut [u8]) -> Result<(), Error> {
        if !self.has_dma || into.len() < DMA_MINIMUM {
            self.read_by_port(item, into);
            return Ok(());
        }
        let pages = 1 + into.len().div_ceil(PAGE_SIZE).min(BUFFER_PAGES);
        let Some(buffer) = self.machine.domain.frames.allocate(pages) else {
            return Err(Error::Memory((pages * PAGE_SIZE) as u64));
        };
        let result = self.read_by_dma(item, into, &buffer);
        // A device model that is late may still write to it.
        if result != Err(Error::Silent) {
            self.machine.domain.frames.free(buffer);
        }
        result
    }

    /// Reads `size` bytes of an item into memory of its own.
    pub fn read_whole(&self, item: Item, size: u32) -> Result<Vec<u8>, Error> {
        let mut data = Vec::new();
        data.try_reserve_exact(size as usize).map_err(|_| Error::Memory(size.into()))?;
        data.resize(size as usize, 0);
        self.read(item, &mut data)?;
        Ok(data)
    }

    /// Reads an item that is a number of 32 bits; 0 if there is no such item.
    pub fn number(&self, item: Item) -> u32 {
        let mut bytes = [0; 4];
        self.read_by_port(item, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// The file of this name.
    pub fn file(&self, name: &str) -> Option<File> {
        let mut count = [0; 4];
        self.read_by_port(Item::FILES, &mut count);
        let count = u32::from_be_bytes(count).min(FILES_MAX);
        let directory = self.read_whole(Item::FILES, 4 + count * ENTRY as u32).ok()?;
        directory.get(4..)?.chunks_exact(ENTRY).find_map(|entry| {
            let (number, text) = entry.split_at_checked(ENTRY_NAME)?;
            let [a, b, c, d, e, f, ..] = *number else { return None };
            let is_it = text.split(|byte| *byte == 0).next()? == name.as_bytes();
            is_it.then_some(File { item: Item(u16::from_be_bytes([e, f])), size: u32::from_be_bytes([a, b, c, d]) })
        })
    }

    fn read_by_port(&self, item: Item, into: &mut [u8]) {
        self.machine.ports.write_u16(SELECTOR, item.0);
        self.machine.ports.read_bytes(DATA, into);
    }

    /// Reads through a buffer whose first page is for the request.
    fn read_by_dma(&self, item: Item, into: &mut [u8], buffer: &SharedPages) -> Result<(), Error> {
        let address = buffer.gfn(0).0 * PAGE_SIZE as u64;
        let data = address + PAGE_SIZE as u64;
        let mut control = u32::from(item.0) << 16 | request::SELECT | request::READ;
        for piece in into.chunks_mut(buffer.len() - PAGE_SIZE) {
            buffer.copy_in(request::LENGTH, &(piece.len() as u32).to_be_bytes());
            buffer.copy_in(request::ADDRESS, &data.to_be_bytes());
            buffer.write_u32(request::CONTROL, control.to_be());
            hw::shared::memory_barrier();
            self.machine.ports.write_u32(DMA_HIGH, ((address >> 32) as u32).to_be());
            self.machine.ports.write_u32(DMA_LOW, (address as u32).to_be());
            let done = self.machine.poll(DMA_TIMEOUT, || {
                let control = u32::from_be(buffer.read_u32(request::CONTROL));
                (control == 0 || control & request::ERROR != 0).then_some(control)
            });
            match done {
                None => return Err(Error::Silent),
                Some(0) => buffer.copy_out(PAGE_SIZE, piece),
                Some(_) => return Err(Error::Refused),
            }
            // The next piece follows this one.
            control = request::READ;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use hw::fake::{FakeDevice, FakeFrames, FakeHypervisor, FakePorts, FakeWindows};
    use hw::hypervisor::Gfn;

    use super::*;
    use crate::domain::Domain;
    use crate::testing::{domain, leak};

    /// How the device model answers DMA requests.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Dma {
        None,
        Works,
        Refuses,
        Hangs,
    }

    /// The device model's side.
    pub struct Qemu {
        pub items: BTreeMap<u16, Vec<u8>>,
        pub dma: Dma,
        selected: u16,
        offset: usize,
        high: u32,
        clock: &'static FakeHypervisor,
    }

    impl Qemu {
        pub fn new(dma: Dma) -> Self {
            let features = if dma == Dma::None { 1 } else { 3 };
            let items = BTreeMap::from([(0, b"QEMU".to_vec()), (1, vec![features, 0, 0, 0])]);
            Self { items, dma, selected: 0, offset: 0, high: 0, clock: leak(FakeHypervisor::new()) }
        }

        /// The interface as the firmware sees it.
        pub fn interface(self) -> Option<FwCfg> {
            let domain = Domain { hypervisor: self.clock, frames: leak(FakeFrames::default()) };
            let ports = leak(FakePorts::with(self));
            FwCfg::open(EmulatedMachine { domain, ports, windows: leak(FakeWindows::default()) })
        }

        fn next(&mut self) -> u8 {
            let byte = self.items.get(&self.selected).and_then(|item| item.get(self.offset)).copied();
            self.offset += 1;
            byte.unwrap_or(0)
        }

        fn transfer(&mut self, request: u64) {
            let page = FakeFrames::peer(Gfn(request / PAGE_SIZE as u64));
            let control = u32::from_be(page.read_u32(0));
            let (length, address) = (u32::from_be(page.read_u32(4)), u64::from_be(page.read_u64(8)));
            assert_eq!(address % PAGE_SIZE as u64, 0);
            match self.dma {
                Dma::Works => {}
                Dma::Refuses => return page.write_u32(0, 1u32.to_be()),
                Dma::None | Dma::Hangs => return self.clock.time_ns.set(DMA_TIMEOUT),
            }
            if control & request::SELECT != 0 {
                (self.selected, self.offset) = ((control >> 16) as u16, 0);
            }
            for index in 0..length as usize {
                let byte = self.next();
                FakeFrames::peer(Gfn(address / PAGE_SIZE as u64 + (index / PAGE_SIZE) as u64))
                    .write_u8(index % PAGE_SIZE, byte);
            }
            page.write_u32(0, 0);
        }
    }

    impl FakeDevice for Qemu {
        fn read(&mut self, port: u16, width: u8) -> Option<u32> {
            (port == DATA && width == 1).then(|| self.next().into())
        }
        fn write(&mut self, port: u16, width: u8, value: u32) -> bool {
            match (port, width) {
                (SELECTOR, 2) => (self.selected, self.offset) = (value as u16, 0),
                (DMA_HIGH, 4) => self.high = value.swap_bytes(),
                (DMA_LOW, 4) => self.transfer(u64::from(self.high) << 32 | u64::from(value.swap_bytes())),
                _ => return false,
            }
            true
        }
    }

    #[test]
    fn nothing_is_found_where_no_device_answers() {
        let (_, domain) = domain();
        let (ports, windows) = (leak(FakePorts::default()), leak(FakeWindows::default()));
        assert!(FwCfg::open(EmulatedMachine { domain, ports, windows }).is_none());
    }

    #[test]
    fn an_item_is_the_same_with_and_without_dma() {
        let content: Vec<u8> = (0..3 * 1024 * 1024 + 17_u32).map(|index| (index % 251) as u8).collect();
        for dma in [Dma::None, Dma::Works] {
            let mut qemu = Qemu::new(dma);
            qemu.items.insert(0x11, content.clone());
            let interface = qemu.interface().unwrap();
            let read = interface.read_whole(Item(0x11), content.len() as u32).unwrap();
            assert!(read == content, "{dma:?}");
        }
    }

    #[test]
    fn a_device_model_that_refuses_or_hangs_is_reported() {
        for (dma, error) in [(Dma::Refuses, Error::Refused), (Dma::Hangs, Error::Silent)] {
            let interface = Qemu::new(dma).interface().unwrap();
            assert_eq!(interface.read(Item(0x11), &mut [0; 1000]), Err(error));
        }
    }

    #[test]
    fn what_is_not_there_is_empty() {
        let interface = Qemu::new(Dma::Works).interface().unwrap();
        assert_eq!(interface.number(Item(0x7777)), 0);
        assert_eq!(interface.file("etc/boot/kernel"), None);
    }

    #[test]
    fn a_file_is_found_by_its_whole_name() {
        let mut qemu = Qemu::new(Dma::None);
        let mut directory = 2u32.to_be_bytes().to_vec();
        for (item, name) in [(0x20u16, "opt/name"), (0x21, "opt/na")] {
            directory.extend(77u32.to_be_bytes());
            directory.extend(item.to_be_bytes());
            directory.extend([0, 0]);
            directory.extend(name.bytes().chain(core::iter::repeat(0)).take(56));
        }
        qemu.items.insert(0x19, directory);
        let interface = qemu.interface().unwrap();
        assert_eq!(interface.file("opt/na"), Some(File { item: Item(0x21), size: 77 }));
        assert_eq!(interface.file("opt/n"), None);
    }

    #[test]
    fn a_directory_of_absurd_length_does_no_harm() {
        let mut qemu = Qemu::new(Dma::None);
        qemu.items.insert(0x19, u32::MAX.to_be_bytes().to_vec());
        assert_eq!(qemu.interface().unwrap().file("opt/na"), None);
    }
}
