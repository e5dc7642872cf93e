//! Finds keyboards: gives each device an address, looks behind hubs, and leaves keyboards in their boot protocol.
//!
//! What devices say of themselves is not trusted: lengths are checked, and there is a limit to devices and depth.

use alloc::vec::Vec;

use super::uhci::{RECOVERY, RESET_TIME};
use super::{Host, Pipe, Setup};
use crate::domain::MILLISECOND;

/// Requests (USB 1.1 §9.4, §11.16; HID 1.11 §7.2).
mod request {
    pub const GET_STATUS: u8 = 0;
    pub const CLEAR_FEATURE: u8 = 1;
    pub const SET_FEATURE: u8 = 3;
    pub const SET_ADDRESS: u8 = 5;
    pub const GET_DESCRIPTOR: u8 = 6;
    pub const SET_CONFIGURATION: u8 = 9;
    pub const SET_REPORT: u8 = 9;
    pub const SET_IDLE: u8 = 10;
    pub const SET_PROTOCOL: u8 = 11;
}

/// Kinds of requests.
mod kind {
    pub const TO_DEVICE: u8 = 0x00;
    pub const FROM_DEVICE: u8 = 0x80;
    pub const TO_INTERFACE_CLASS: u8 = 0x21;
    pub const FROM_HUB: u8 = 0xA0;
    pub const FROM_HUB_PORT: u8 = 0xA3;
    pub const TO_HUB_PORT: u8 = 0x23;
}

/// Descriptors.
mod descriptor {
    pub const DEVICE: u8 = 1;
    pub const CONFIGURATION: u8 = 2;
    pub const INTERFACE: u8 = 4;
    pub const ENDPOINT: u8 = 5;
    pub const HUB: u8 = 0x29;
}

/// Features of a hub's port.
mod feature {
    pub const RESET: u16 = 4;
    pub const POWER: u16 = 8;
    pub const CONNECTION_CHANGED: u16 = 16;
    pub const RESET_CHANGED: u16 = 20;
}

/// Status of a hub's port.
mod hub_port {
    pub const CONNECTED: u16 = 1 << 0;
    pub const ENABLED: u16 = 1 << 1;
    pub const RESETTING: u16 = 1 << 4;
    pub const LOW_SPEED: u16 = 1 << 9;
}

const HUB_CLASS: u8 = 9;
/// Human interface, boot protocol, keyboard.
const BOOT_KEYBOARD: [u8; 3] = [3, 1, 1];
/// Most devices that get an address.
const DEVICES: u8 = 16;
/// Most hubs between a device and the controller (USB 1.1 §4.1.1).
const DEPTH: usize = 5;
/// Most ports of a hub that are looked at.
const HUB_PORTS: u8 = 8;
/// How often a port in reset is looked at.
const RESET_LOOKS: usize = 20;

/// A keyboard that reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Ports on the way to it, from the controller's on, counted from 0.
    pub ports: Vec<u8>,
    /// Its control endpoint.
    pub control: Pipe,
    /// Its interface.
    pub interface: u8,
    /// What [`Host::report`] takes.
    pub reports: usize,
}

/// Puts the keyboard's lights to `lights`: bit 0 for Num Lock, then Caps Lock, Scroll Lock.
pub fn set_lights(host: &mut dyn Host, keyboard: &Found, lights: u8) -> bool {
    const OUTPUT: u16 = 2 << 8;
    let setup = Setup {
        kind: kind::TO_INTERFACE_CLASS,
        request: request::SET_REPORT,
        value: OUTPUT,
        index: keyboard.interface.into(),
    };
    host.control(keyboard.control, setup, &mut [lights]).is_ok()
}

/// All keyboards behind a controller.
pub fn keyboards(host: &mut dyn Host) -> Vec<Found> {
    let mut search = Search { host, next_address: 1, found: Vec::new() };
    for port in 0..search.host.ports() {
        if let Some(low_speed) = search.host.reset_port(port) {
            search.device(&[port], low_speed);
        }
    }
    search.found
}

struct Search<'a> {
    host: &'a mut dyn Host,
    next_address: u8,
    found: Vec<Found>,
}

impl Search<'_> {
    /// Looks at the device that has just been reset. `None` where something failed, which ends the look at this device only.
    fn device(&mut self, ports: &[u8], low_speed: bool) -> Option<()> {
        if self.next_address > DEVICES {
            return None;
        }
        let mut pipe = Pipe { address: 0, endpoint: 0, low_speed, max_packet: 8 };
        let mut device = [0; 8];
        if self.descriptor(pipe, descriptor::DEVICE, &mut device)? < device.len() {
            return None;
        }
        let (class, max_packet) = (device[4], device[7]);
        pipe.max_packet = Some(max_packet).filter(|size| [8, 16, 32, 64].contains(size))?;
        let address = self.next_address;
        self.tell(pipe, kind::TO_DEVICE, request::SET_ADDRESS, address.into(), 0)?;
        self.next_address += 1;
        self.host.wait(RECOVERY);
        pipe.address = address;
        let mut configuration = [0; 256];
        let length = self.descriptor(pipe, descriptor::CONFIGURATION, &mut configuration)?;
        let configuration = configuration.get(..length)?;
        let value = u16::from(*configuration.get(5)?);
        if class == HUB_CLASS {
            self.tell(pipe, kind::TO_DEVICE, request::SET_CONFIGURATION, value, 0)?;
            return self.hub(pipe, ports);
        }
        let (interface, endpoint, max_packet) = boot_keyboard(configuration)?;
        self.tell(pipe, kind::TO_DEVICE, request::SET_CONFIGURATION, value, 0)?;
        self.tell(pipe, kind::TO_INTERFACE_CLASS, request::SET_PROTOCOL, 0, interface.into())?;
        // Reports come when something has changed only. Devices need not be able to.
        let _ = self.tell(pipe, kind::TO_INTERFACE_CLASS, request::SET_IDLE, 0, interface.into());
        let reports = self.host.open(Pipe { endpoint, max_packet, ..pipe })?;
        self.found.push(Found { ports: ports.to_vec(), control: pipe, interface, reports });
        Some(())
    }

    fn hub(&mut self, hub: Pipe, ports: &[u8]) -> Option<()> {
        if ports.len() > DEPTH {
            return None;
        }
        let mut descriptor = [0; 8];
        let setup = Setup {
            kind: kind::FROM_HUB,
            request: request::GET_DESCRIPTOR,
            value: u16::from(descriptor::HUB) << 8,
            index: 0,
        };
        if self.host.control(hub, setup, &mut descriptor).ok()? < 6 {
            return None;
        }
        let (count, power_on) = (descriptor[2].min(HUB_PORTS), u64::from(descriptor[5]) * 2 * MILLISECOND);
        for port in 1..=count {
            self.tell(hub, kind::TO_HUB_PORT, request::SET_FEATURE, feature::POWER, port.into())?;
        }
        self.host.wait(power_on);
        for port in 1..=count {
            if let Some(low_speed) = self.reset_hub_port(hub, port) {
                let mut way = ports.to_vec();
                way.push(port - 1);
                self.device(&way, low_speed);
            }
        }
        Some(())
    }

    fn reset_hub_port(&mut self, hub: Pipe, port: u8) -> Option<bool> {
        if self.hub_port(hub, port)? & hub_port::CONNECTED == 0 {
            return None;
        }
        let change =
            |search: &mut Self, request, feature| search.tell(hub, kind::TO_HUB_PORT, request, feature, port.into());
        change(self, request::SET_FEATURE, feature::RESET)?;
        let mut looks = 0;
        let now = loop {
            self.host.wait(RESET_TIME);
            let now = self.hub_port(hub, port)?;
            if now & hub_port::RESETTING == 0 {
                break now;
            }
            looks += 1;
            if looks == RESET_LOOKS {
                return None;
            }
        };
        change(self, request::CLEAR_FEATURE, feature::RESET_CHANGED)?;
        change(self, request::CLEAR_FEATURE, feature::CONNECTION_CHANGED)?;
        self.host.wait(RECOVERY);
        (now & hub_port::ENABLED != 0).then_some(now & hub_port::LOW_SPEED != 0)
    }

    fn hub_port(&mut self, hub: Pipe, port: u8) -> Option<u16> {
        let mut status = [0; 4];
        let setup = Setup { kind: kind::FROM_HUB_PORT, request: request::GET_STATUS, value: 0, index: port.into() };
        let length = self.host.control(hub, setup, &mut status).ok()?;
        (length == status.len()).then_some(u16::from_le_bytes([status[0], status[1]]))
    }

    fn descriptor(&mut self, pipe: Pipe, which: u8, into: &mut [u8]) -> Option<usize> {
        let value = u16::from(which) << 8;
        let setup = Setup { kind: kind::FROM_DEVICE, request: request::GET_DESCRIPTOR, value, index: 0 };
        self.host.control(pipe, setup, into).ok()
    }

    fn tell(&mut self, pipe: Pipe, kind: u8, request: u8, value: u16, index: u16) -> Option<()> {
        self.host.control(pipe, Setup { kind, request, value, index }, &mut []).ok().map(drop)
    }
}

/// The boot keyboard in a configuration: interface, endpoint that reports, and its packets' size.
fn boot_keyboard(mut configuration: &[u8]) -> Option<(u8, u8, u8)> {
    const IN: u8 = 0x80;
    const INTERRUPT: u8 = 3;
    let mut interface = None;
    while let [length, which, ..] = *configuration {
        let (one, rest) = configuration.split_at_checked(length.max(2).into())?;
        configuration = rest;
        match (which, one) {
            (descriptor::INTERFACE, [_, _, number, _, _, class @ .., _]) if class == BOOT_KEYBOARD => {
                interface = Some(*number);
            }
            (descriptor::INTERFACE, _) => interface = None,
            (descriptor::ENDPOINT, [_, _, address, attributes, size, 0, ..])
                if address & IN != 0 && attributes & 3 == INTERRUPT && (3..=64).contains(size) =>
            {
                if let Some(interface) = interface {
                    return Some((interface, address & 0xF, *size));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Device, FakeHost, HUB, KEYBOARD, TABLET};
    use super::*;

    fn find(devices: &[(&[u8], Device)]) -> (FakeHost, Vec<Vec<u8>>) {
        let mut host = FakeHost::new(devices);
        let found = keyboards(&mut host).into_iter().map(|keyboard| keyboard.ports).collect();
        (host, found)
    }

    #[test]
    fn a_keyboard_at_a_port_reports_in_its_boot_protocol() {
        let (host, found) = find(&[(&[1], KEYBOARD)]);
        assert_eq!(found, [[1]]);
        let keyboard = host.device(&[1]);
        assert_eq!((keyboard.configured, keyboard.boot_protocol, keyboard.address), (1, true, 1));
        assert_eq!(host.opened, [Pipe { address: 1, endpoint: 1, low_speed: false, max_packet: 8 }]);
    }

    #[test]
    fn keyboards_behind_hubs_are_found_and_other_devices_left_alone() {
        let (host, found) =
            find(&[(&[0], TABLET), (&[1], HUB), (&[1, 0], KEYBOARD), (&[1, 2], HUB), (&[1, 2, 1], KEYBOARD)]);
        assert_eq!(found, [&[1, 0][..], &[1, 2, 1]]);
        assert_eq!(host.device(&[0]).configured, 0);
    }

    #[test]
    fn hubs_below_hubs_come_to_an_end() {
        let way = [0; 7];
        let devices: Vec<_> = (1..=7).map(|depth| (&way[..depth], HUB)).collect();
        let (host, found) = find(&devices);
        assert!(found.is_empty());
        assert_eq!(host.device(&way[..7]).address, 0);
    }

    #[test]
    fn more_devices_than_there_are_addresses_come_to_an_end() {
        let ways: Vec<Vec<u8>> = (0..8).flat_map(|hub| (0..8).map(move |port| vec![0, hub, port])).collect();
        let hubs: Vec<Vec<u8>> = (0..8).map(|hub| vec![0, hub]).collect();
        let mut devices: Vec<(&[u8], Device)> = vec![(&[0], HUB)];
        devices.extend(hubs.iter().map(|way| (&way[..], HUB)));
        devices.extend(ways.iter().map(|way| (&way[..], KEYBOARD)));
        assert!(find(&devices).1.len() < 16);
    }

    #[test]
    fn devices_that_fail_at_any_request_do_no_harm_to_others() {
        for request in 0..12 {
            let broken = Device { fails_at: Some(request), ..KEYBOARD };
            let (_, found) = find(&[(&[0], broken), (&[1], KEYBOARD)]);
            assert!(found.contains(&vec![1]), "{request}");
        }
    }

    #[test]
    fn descriptors_without_a_keyboard_or_with_nonsense_give_none() {
        let good = KEYBOARD.configuration.to_vec();
        assert_eq!(boot_keyboard(&good), Some((0, 1, 8)));
        assert_eq!(boot_keyboard(TABLET.configuration), None);
        for cut in 0..good.len() {
            assert_eq!(boot_keyboard(&good[..cut]), None);
        }
        for index in 0..good.len() {
            for value in [0, 1, 2, 9, 0x7F, 0xFF] {
                let mut bad = good.clone();
                bad[index] = value;
                let _ = boot_keyboard(&bad);
            }
        }
    }
}
