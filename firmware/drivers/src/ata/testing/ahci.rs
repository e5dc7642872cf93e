//! An AHCI controller, which checks what a controller relies on.

use std::cell::RefCell;
use std::rc::Rc;

use hw::device::{Window, Windows};
use hw::fake::FakeHypervisor;

use super::disk::{Answer, FakeDisk, Fault};
use super::{dma_read, dma_write};
use crate::ata::command::PACKET;
use crate::domain::MILLISECOND;

/// Where its registers are.
pub const ADDRESS: u64 = 0xF000_0000;
const PORTS: usize = 6;
const READY: u8 = 0x50;
/// How long a look at a register takes.
const LOOK: u64 = MILLISECOND / 10;

#[derive(Default)]
struct PortState {
    device: Option<FakeDisk>,
    list: u64,
    fis: u64,
    command: u32,
    interrupts: u32,
    task_file: u32,
    sata_control: u32,
    issue: u32,
    fresh: bool,
}

/// A controller.
pub struct FakeAhci {
    ports: [PortState; PORTS],
    pub control: u32,
    /// Accesses to any register since the test last looked.
    pub accesses: usize,
    /// Entries of the table of memory of the last command.
    pub entries: usize,
    hypervisor: &'static FakeHypervisor,
}

impl FakeAhci {
    /// A controller with these devices at its first ports.
    pub fn new(hypervisor: &'static FakeHypervisor, devices: Vec<Option<FakeDisk>>) -> Rc<RefCell<Self>> {
        let mut ports: [PortState; PORTS] = Default::default();
        for (port, device) in ports.iter_mut().zip(devices) {
            (port.device, port.fresh, port.task_file) = (device, true, 0x7F);
        }
        Rc::new(RefCell::new(Self { ports, control: 2, accesses: 0, entries: 0, hypervisor }))
    }

    /// Whether a port's engines run: commands, and what the device sends.
    pub fn running(&self, port: usize) -> (bool, bool) {
        let command = self.ports[port].command;
        (command & 1 != 0, command & 1 << 4 != 0)
    }

    fn read(&mut self, offset: usize) -> u32 {
        self.accesses += 1;
        self.hypervisor.time_ns.set(self.hypervisor.time_ns.get() + LOOK);
        if offset < 0x100 {
            return match offset {
                0x00 => 1 << 31 | 5,
                0x04 => self.control,
                0x0C => (1 << PORTS) - 1,
                offset => panic!("read of {offset:#x}"),
            };
        }
        let port = &self.ports[offset / 0x80 - 2];
        let fault = port.device.as_ref().map_or(Fault::None, |device| device.shared.fault.get());
        if fault == Fault::Pulled {
            return u32::MAX;
        }
        match offset % 0x80 {
            0x10 => port.interrupts,
            // The engines run as they are told to.
            0x18 => port.command | (port.command & 1) << 15 | (port.command & 1 << 4) << 10,
            0x20 => port.task_file,
            0x24 if port.device.as_ref().is_some_and(|device| device.atapi) => 0xEB14_0101,
            0x24 => 0x101,
            0x28 if port.device.is_some() => 0x113,
            0x28 => 0,
            0x2C => port.sata_control,
            0x38 => port.issue,
            offset => panic!("read of a port's {offset:#x}"),
        }
    }

    fn write(&mut self, offset: usize, value: u32) {
        self.accesses += 1;
        if offset < 0x100 {
            assert_eq!(offset, 4);
            self.control = value;
            return;
        }
        let number = offset / 0x80 - 2;
        let port = &mut self.ports[number];
        let running = port.command & (1 | 1 << 4) != 0;
        match offset % 0x80 {
            0x00 => port.list = port.list & !0xFFFF_FFFF | u64::from(value),
            0x04 => port.list = port.list & 0xFFFF_FFFF | u64::from(value) << 32,
            0x08 => port.fis = port.fis & !0xFFFF_FFFF | u64::from(value),
            0x0C => port.fis = port.fis & 0xFFFF_FFFF | u64::from(value) << 32,
            0x10 => port.interrupts &= !value,
            0x18 => {
                assert!(value & 1 == 0 || value & 1 << 4 != 0, "commands without room for answers");
                port.command = value & 0xF;
                port.command |= value & 1 << 4;
                if value & 1 == 0 {
                    port.issue = 0;
                }
                if value & 1 << 4 != 0 && port.fresh {
                    port.fresh = false;
                    let dead = port.device.as_ref().is_some_and(|device| device.shared.fault.get() == Fault::Dead);
                    port.task_file = if dead { 0x80 } else { READY.into() };
                }
            }
            0x2C => {
                if port.sata_control & 1 != 0 && value & 1 == 0 {
                    (port.fresh, port.task_file) = (true, 0x7F);
                }
                port.sata_control = value;
            }
            0x30 => {}
            0x38 => {
                assert!(port.command & 1 != 0 && value == 1 && port.issue == 0);
                port.issue = 1;
                self.run(number);
            }
            offset => panic!("write of a port's {offset:#x}"),
        }
        assert!(!(running && matches!(offset % 0x80, 0..=0xC)), "addresses of a running port");
    }

    /// Runs the command in slot 0.
    fn run(&mut self, number: usize) {
        let port = &mut self.ports[number];
        assert!(port.list.is_multiple_of(1024) && port.fis.is_multiple_of(256));
        let Some(device) = &mut port.device else { return };
        let fault = device.shared.fault.get();
        let mut header = [0; 32];
        dma_read(port.list, &mut header);
        let flags = u32::from_le_bytes(header[..4].try_into().unwrap());
        let table = u64::from_le_bytes(header[8..16].try_into().unwrap());
        assert!(table.is_multiple_of(128) && flags & 0x1F == 5);
        let mut fis = [0; 20];
        dma_read(table, &mut fis);
        assert_eq!(fis[..2], [0x27, 0x80]);
        if matches!(fault, Fault::Stuck | Fault::Dead) {
            port.task_file = 0x80;
            return;
        }
        let pieces: Vec<(u64, usize)> = (0..u64::from(flags >> 16))
            .map(|index| {
                let mut entry = [0; 16];
                dma_read(table + 0x80 + index * 16, &mut entry);
                let address = u64::from_le_bytes(entry[..8].try_into().unwrap());
                let length = u32::from_le_bytes(entry[12..].try_into().unwrap()) as usize + 1;
                assert!(address.is_multiple_of(2) && length.is_multiple_of(2) && length <= 4 << 20);
                (address, length)
            })
            .collect();
        self.entries = pieces.len();
        if fault == Fault::Dma {
            port.interrupts |= 1 << 29;
            port.task_file = 0x80;
            return;
        }
        let answer = if fis[2] == PACKET {
            assert!(flags & 1 << 5 != 0 && (fis[3] & 1 == 1) != pieces.is_empty());
            let mut packet = [0; 12];
            dma_read(table + 0x40, &mut packet);
            device.packet(&packet)
        } else {
            let wide = matches!(fis[2], 0x24 | 0x25 | 0x34 | 0x35 | 0xEA);
            let top = if wide { fis[8] } else { fis[7] & 0xF };
            let lba = u64::from_le_bytes([fis[4], fis[5], fis[6], top, fis[9], fis[10], 0, 0]);
            device.command(fis[2], lba, u16::from_le_bytes([fis[12], fis[13]]))
        };
        let total: usize = pieces.iter().map(|piece| piece.1).sum();
        let mut moved = 0;
        let (mut state, mut error) = (READY, 0);
        match answer {
            _ if fault == Fault::NoData => {}
            Answer::Done => {}
            Answer::Abort(code) => (state, error) = (READY | 1, code),
            Answer::Give(data) => {
                assert_eq!(flags & 1 << 6, 0, "direction");
                for (address, length) in pieces {
                    let length = length.min(data.len() - moved);
                    dma_write(address, &data[moved..moved + length]);
                    moved += length;
                }
            }
            Answer::Take(start, length) => {
                assert_ne!(flags & 1 << 6, 0, "direction");
                assert_eq!(total, length);
                let mut data = vec![0; length];
                for (address, length) in pieces {
                    dma_read(address, &mut data[moved..moved + length]);
                    moved += length;
                }
                device.take(start, &data);
            }
        }
        dma_write(port.list + 4, &(moved as u32).to_le_bytes());
        port.task_file = u32::from(state) | u32::from(error) << 8;
        if state & 1 == 0 {
            port.issue = 0;
        } else {
            port.interrupts |= 1 << 30;
        }
        // Data that was given by a PIO command ends without registers from the device.
        if fis[2] != 0xEC {
            dma_write(port.fis + 0x40, &[0x34, 0x40, state, error]);
        }
    }
}

/// The controller's registers.
pub struct AhciWindow(pub Rc<RefCell<FakeAhci>>);

impl Window for AhciWindow {
    fn address(&self) -> u64 {
        ADDRESS
    }
    fn len(&self) -> usize {
        0x1000
    }
    fn read_u32(&self, offset: usize) -> u32 {
        self.0.borrow_mut().read(offset)
    }
    fn write_u32(&self, offset: usize, value: u32) {
        self.0.borrow_mut().write(offset, value);
    }
    fn read_u8(&self, _: usize) -> u8 {
        unreachable!("registers have 32 bits")
    }
    fn read_u16(&self, _: usize) -> u16 {
        unreachable!("registers have 32 bits")
    }
    fn read_u64(&self, _: usize) -> u64 {
        unreachable!("registers have 32 bits")
    }
    fn write_u8(&self, _: usize, _: u8) {
        unreachable!("registers have 32 bits")
    }
    fn write_u16(&self, _: usize, _: u16) {
        unreachable!("registers have 32 bits")
    }
    fn write_u64(&self, _: usize, _: u64) {
        unreachable!("registers have 32 bits")
    }
    fn write_bytes(&self, _: usize, _: &[u8]) {
        unreachable!("registers have 32 bits")
    }
    fn read_bytes(&self, _: usize, _: &mut [u8]) {
        unreachable!("registers have 32 bits")
    }
    fn fill_u32(&self, _: usize, _: usize, _: u32) {
        unreachable!("registers have 32 bits")
    }
}

impl Windows for AhciWindow {
    fn window(&self, address: u64, length: usize) -> Option<Box<dyn Window>> {
        (address == ADDRESS && length == 0x1000).then(|| Box::new(Self(self.0.clone())) as Box<dyn Window>)
    }
}
