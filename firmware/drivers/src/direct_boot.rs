//! The kernel that the configuration of an HVM guest names: `kernel=`, `ramdisk=` and `cmdline=` become the device model's
//! `-kernel`, `-initrd` and `-append`, and come to us through [`FwCfg`].
//!
//! QEMU writes into the setup header what a boot loader would (loader type, command line and RAM disk addresses,
//! `x86_load_linux` in `hw/i386/x86-common.c`); newer versions also have the kernel as it was, which a signature covers.

use alloc::rc::Rc;
use alloc::vec::Vec;

use services::Status;
use services::file::FileSource;

use crate::fw_cfg::{Error, File, FwCfg, Item};

/// Sizes and contents (`include/standard-headers/linux/qemu_fw_cfg.h` of QEMU).
mod item {
    use super::Item;

    pub const KERNEL_SIZE: Item = Item(0x08);
    pub const INITRD_SIZE: Item = Item(0x0B);
    pub const KERNEL_DATA: Item = Item(0x11);
    pub const INITRD_DATA: Item = Item(0x12);
    pub const COMMAND_LINE_SIZE: Item = Item(0x14);
    pub const COMMAND_LINE_DATA: Item = Item(0x15);
    pub const SETUP_SIZE: Item = Item(0x17);
    pub const SETUP_DATA: Item = Item(0x18);
}

/// The kernel without what QEMU writes into it.
const UNCHANGED_KERNEL: &str = "etc/boot/kernel";
/// More of a command line is not read.
const COMMAND_LINE_MAX: u32 = 64 << 10;

/// What is to be booted. Kernel and RAM disk are read when they are asked for.
#[derive(Debug)]
pub struct DirectBoot {
    fw_cfg: Rc<FwCfg>,
    /// The pieces of the kernel.
    kernel: Vec<File>,
    initrd: u32,
    /// `cmdline=`, without the final zero.
    pub command_line: Vec<u8>,
}

impl DirectBoot {
    /// What the guest's configuration names; `None` if that is nothing.
    pub fn find(fw_cfg: Rc<FwCfg>) -> Option<Self> {
        let piece = |size, item| File { item, size: fw_cfg.number(size) };
        let mut kernel =
            alloc::vec![piece(item::SETUP_SIZE, item::SETUP_DATA), piece(item::KERNEL_SIZE, item::KERNEL_DATA)];
        kernel.retain(|piece| piece.size != 0);
        if kernel.is_empty() {
            return None;
        }
        if let Some(file) = fw_cfg.file(UNCHANGED_KERNEL) {
            kernel = alloc::vec![file];
        }
        let size = fw_cfg.number(item::COMMAND_LINE_SIZE).min(COMMAND_LINE_MAX);
        let mut command_line = fw_cfg.read_whole(item::COMMAND_LINE_DATA, size).unwrap_or_default();
        let end = command_line.iter().position(|byte| *byte == 0).unwrap_or(command_line.len());
        command_line.truncate(end);
        let initrd = fw_cfg.number(item::INITRD_SIZE);
        Some(Self { fw_cfg, kernel, initrd, command_line })
    }

    /// Reads the kernel: an EFI program, if it can be started here.
    ///
    /// # Errors
    /// Those of the interface; too little memory.
    pub fn kernel(&self) -> Result<Vec<u8>, Error> {
        let sizes = self.kernel.iter().map(|piece| u64::from(piece.size));
        let size: u64 = sizes.sum();
        let mut whole = Vec::new();
        whole.try_reserve_exact(size as usize).map_err(|_| Error::Memory(size))?;
        whole.resize(size as usize, 0);
        let mut rest = whole.as_mut_slice();
        for piece in &self.kernel {
            let (into, behind) = rest.split_at_mut(piece.size as usize);
            self.fw_cfg.read(piece.item, into)?;
            rest = behind;
        }
        Ok(whole)
    }

    /// The RAM disk.
    pub fn initrd(&self) -> Option<Initrd> {
        (self.initrd != 0).then(|| Initrd { fw_cfg: self.fw_cfg.clone(), size: self.initrd })
    }
}

/// A RAM disk that is read when the kernel asks for it.
#[derive(Debug)]
pub struct Initrd {
    fw_cfg: Rc<FwCfg>,
    size: u32,
}

impl FileSource for Initrd {
    fn size(&self) -> usize {
        self.size as usize
    }

    fn read(&mut self, into: &mut [u8]) -> services::Result<()> {
        self.fw_cfg.read(item::INITRD_DATA, into).map_err(|error| {
            log::error!("ramdisk=: {error}");
            Status::DEVICE_ERROR
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fw_cfg::tests::{Dma, Qemu};

    fn qemu() -> Qemu {
        let mut qemu = Qemu::new(Dma::Works);
        let mut put = |(size, data): (Item, Item), content: &[u8]| {
            qemu.items.insert(size.0, (content.len() as u32).to_le_bytes().to_vec());
            qemu.items.insert(data.0, content.to_vec());
        };
        put((item::SETUP_SIZE, item::SETUP_DATA), &[b'S'; 512]);
        put((item::KERNEL_SIZE, item::KERNEL_DATA), &[b'K'; 5000]);
        put((item::COMMAND_LINE_SIZE, item::COMMAND_LINE_DATA), b"root=/dev/xvda ovmf.wait\0");
        put((item::INITRD_SIZE, item::INITRD_DATA), &[b'I'; 3000]);
        qemu
    }

    fn find(qemu: Qemu) -> Option<DirectBoot> {
        DirectBoot::find(Rc::new(qemu.interface()?))
    }

    #[test]
    fn a_kernel_is_setup_and_rest_put_together() {
        let found = find(qemu()).unwrap();
        let kernel = found.kernel().unwrap();
        assert_eq!((kernel.len(), kernel[511], kernel[512], kernel[5511]), (5512, b'S', b'K', b'K'));
        assert_eq!(found.command_line, b"root=/dev/xvda ovmf.wait");
    }

    #[test]
    fn the_kernel_as_it_was_is_preferred() {
        let mut qemu = qemu();
        let mut directory = 1u32.to_be_bytes().to_vec();
        directory.extend(600u32.to_be_bytes());
        directory.extend([0, 0x20, 0, 0]);
        directory.extend(UNCHANGED_KERNEL.bytes().chain(core::iter::repeat(0)).take(56));
        qemu.items.insert(0x19, directory);
        qemu.items.insert(0x20, vec![b'U'; 600]);
        assert_eq!(find(qemu).unwrap().kernel().unwrap(), [b'U'; 600]);
    }

    #[test]
    fn a_ram_disk_is_read_when_it_is_asked_for() {
        let mut initrd = find(qemu()).unwrap().initrd().unwrap();
        let mut content = vec![0; initrd.size()];
        initrd.read(&mut content).unwrap();
        assert_eq!(content, [b'I'; 3000]);
        let mut without = qemu();
        without.items.remove(&item::INITRD_SIZE.0);
        assert!(find(without).unwrap().initrd().is_none());
    }

    #[test]
    fn without_a_kernel_there_is_nothing_to_boot() {
        assert!(find(Qemu::new(Dma::None)).is_none());
    }
}
