//! USB devices as a test plays them, behind a [`Host`].

use std::collections::{BTreeMap, VecDeque};

use super::{Host, Pipe, Setup, UsbError};

/// A device.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    pub class: u8,
    pub configuration: &'static [u8],
    pub address: u8,
    pub configured: u8,
    pub boot_protocol: bool,
    pub lights: u8,
    /// The request that it does not answer.
    pub fails_at: Option<u8>,
}

/// QEMU's keyboard.
pub const KEYBOARD: Device = Device {
    class: 0,
    configuration: &[
        9, 2, 34, 0, 1, 1, 8, 0xA0, 50, 9, 4, 0, 0, 1, 3, 1, 1, 0, 9, 0x21, 0x11, 1, 0, 1, 0x22, 0x3F, 0, 7, 5, 0x81,
        3, 8, 0, 10,
    ],
    address: 0,
    configured: 0,
    boot_protocol: false,
    lights: 0,
    fails_at: None,
};

/// QEMU's tablet.
pub const TABLET: Device = Device {
    configuration: &[
        9, 2, 34, 0, 1, 1, 7, 0xA0, 50, 9, 4, 0, 0, 1, 3, 0, 0, 0, 9, 0x21, 1, 0, 0, 1, 0x22, 74, 0, 7, 5, 0x81, 3, 8,
        0, 10,
    ],
    ..KEYBOARD
};

/// A hub with eight ports.
pub const HUB: Device = Device {
    class: 9,
    configuration: &[9, 2, 25, 0, 1, 1, 0, 0xE0, 0, 9, 4, 0, 0, 1, 9, 0, 0, 0, 7, 5, 0x81, 3, 2, 0, 0xFF],
    ..KEYBOARD
};

/// Devices by the ports on the way to them.
pub struct FakeHost {
    devices: BTreeMap<Vec<u8>, Device>,
    /// The one that answers at address 0.
    new: Option<Vec<u8>>,
    pub opened: Vec<Pipe>,
    pub reports: VecDeque<Vec<u8>>,
    /// Reports come without end.
    pub babbling: bool,
    pub stopped: bool,
}

impl FakeHost {
    pub fn new(devices: &[(&[u8], Device)]) -> Self {
        Self {
            devices: devices.iter().map(|(way, device)| (way.to_vec(), *device)).collect(),
            new: None,
            opened: Vec::new(),
            reports: VecDeque::new(),
            babbling: false,
            stopped: false,
        }
    }

    pub fn device(&self, way: &[u8]) -> &Device {
        &self.devices[way]
    }

    fn at(&self, address: u8) -> Option<Vec<u8>> {
        if address == 0 {
            return self.new.clone();
        }
        self.devices.iter().find(|(_, device)| device.address == address).map(|(way, _)| way.clone())
    }
}

impl Host for FakeHost {
    fn ports(&self) -> u8 {
        2
    }

    fn reset_port(&mut self, port: u8) -> Option<bool> {
        self.new = Some(vec![port]);
        self.devices.contains_key(&[port][..]).then_some(false)
    }

    fn control(&mut self, pipe: Pipe, setup: Setup, data: &mut [u8]) -> Result<usize, UsbError> {
        let way = self.at(pipe.address).ok_or(UsbError::Failed)?;
        let child = |port: u16| [&way[..], &[port as u8 - 1]].concat();
        let device = self.devices.get_mut(&way).ok_or(UsbError::Failed)?;
        if device.fails_at == Some(setup.request) {
            return Err(UsbError::Stalled);
        }
        let answer = match (setup.kind, setup.request, setup.value) {
            (0x80, 6, 0x100) => vec![18, 1, 0, 2, device.class, 0, 0, 8, 1, 2],
            (0x80, 6, 0x200) => device.configuration.to_vec(),
            (0, 5, address) => {
                device.address = address as u8;
                self.new = None;
                vec![]
            }
            (0, 9, value) => {
                device.configured = value as u8;
                vec![]
            }
            (0x21, 11, 0) => {
                device.boot_protocol = true;
                vec![]
            }
            (0x21, 10, 0) => vec![],
            (0x21, 9, 0x200) => {
                device.lights = data[0];
                return Ok(1);
            }
            (0xA0, 6, 0x2900) if device.class == 9 => vec![10, 0x29, 8, 0x0A, 0, 1, 0, 0, 0, 0xFF],
            (0xA3, 0, 0) => {
                let connected = self.devices.contains_key(&child(setup.index));
                vec![if connected { 3 } else { 0 }, 1, 0, 0]
            }
            (0x23, 3, 4) => {
                self.new = Some(child(setup.index));
                vec![]
            }
            (0x23, 1 | 3, _) => vec![],
            _ => return Err(UsbError::Stalled),
        };
        let length = answer.len().min(data.len());
        data[..length].copy_from_slice(&answer[..length]);
        Ok(length)
    }

    fn open(&mut self, pipe: Pipe) -> Option<usize> {
        self.opened.push(pipe);
        Some(self.opened.len() - 1)
    }

    fn report(&mut self, _number: usize, into: &mut [u8]) -> Option<usize> {
        let report = if self.babbling { vec![0xFF; 8] } else { self.reports.pop_front()? };
        into[..report.len()].copy_from_slice(&report);
        Some(report.len())
    }

    fn wait(&self, _nanoseconds: u64) {}

    fn stop(&mut self) {
        self.stopped = true;
    }
}
