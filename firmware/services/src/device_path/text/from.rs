//! Device paths from text.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use uefi_raw::Guid;
use uefi_raw::protocol::device_path::{DeviceSubType, DeviceType};

use super::super::{DevicePathBuf, DevicePathError, Node, PartitionFormat, Signature};
use super::{
    ACPI_NAMES, BBS_TYPES, PNP, PROTOCOLS, RAM_DISK_NAMES, TYPE_NAMES, USB_APPLICATION_NAMES, USB_CLASS_APPLICATION,
    USB_CLASS_NAMES, iscsi, sas, vendor,
};

impl DevicePathBuf {
    /// Reads the text of a path.
    ///
    /// # Errors
    /// `Text` where a node is not understood, `TooLong`.
    pub fn parse_text(text: &str) -> Result<Self, DevicePathError> {
        let mut path = Self::new();
        let mut rest = text.trim();
        let length = rest.len();
        while !rest.is_empty() {
            let at = length - rest.len();
            // A separator in front of the first node is usual in texts written by hand.
            if let Some(after) = rest.strip_prefix('/') {
                rest = after;
                continue;
            }
            if let Some(after) = rest.strip_prefix(',') {
                path.push(&Node::EndInstance)?;
                rest = after;
                continue;
            }
            let (node, after) = split_node(rest).ok_or(DevicePathError::Text { at })?;
            path.push(&read_node(node).ok_or(DevicePathError::Text { at })?)?;
            rest = after;
        }
        Ok(path)
    }
}

impl Node {
    /// Reads the text of a single node.
    ///
    /// # Errors
    /// `Text` if it is not understood or is more than a node.
    pub fn parse_text(text: &str) -> Result<Self, DevicePathError> {
        match split_node(text) {
            Some((node, "")) => read_node(node).ok_or(DevicePathError::Text { at: 0 }),
            _ => Err(DevicePathError::Text { at: 0 }),
        }
    }
}

/// Splits the first node off. A node is `Name(arguments)` with a name that is known, or else the text of a file path,
/// which ends at the next separator. `None` if a parenthesis is not closed or text follows it.
fn split_node(text: &str) -> Option<(&str, &str)> {
    let end = match named(text) {
        Some((name, _)) => closing_parenthesis(text, name.len())? + 1,
        None => text.find(['/', ',']).unwrap_or(text.len()),
    };
    let (node, rest) = text.split_at(end);
    (!node.is_empty() && (rest.is_empty() || rest.starts_with(['/', ',']))).then_some((node, rest))
}

fn read_node(text: &str) -> Option<Node> {
    let Some((name, read)) = named(text) else { return Some(Node::FilePath(text.into())) };
    let arguments = text[name.len()..].strip_prefix('(')?.strip_suffix(')')?;
    let mut arguments = Arguments { name, rest: Some(arguments).filter(|rest| !rest.is_empty()) };
    let node = read(&mut arguments)?;
    arguments.rest.is_none().then_some(node)
}

/// The name that `text` begins with, if a parenthesis follows it and it names a kind of node.
fn named(text: &str) -> Option<(&str, Read)> {
    let (name, _) = text.split_once('(')?;
    let known = |names: &[&str]| names.contains(&name);
    if ACPI_NAMES.iter().any(|(known, _)| *known == name) {
        return Some((name, read_acpi_name));
    }
    if USB_CLASS_NAMES.iter().chain(&USB_APPLICATION_NAMES).any(|(known, _)| *known == name) {
        return Some((name, read_usb_class_name));
    }
    if RAM_DISK_NAMES.iter().any(|(known, _)| *known == name) || known(&["RamDisk"]) {
        return Some((name, read_ram_disk));
    }
    if TYPE_NAMES.iter().any(|(known, _)| *known == name) || known(&["Path"]) {
        return Some((name, read_generic));
    }
    READERS.iter().find(|(known, _)| *known == name).map(|(_, read)| (name, *read))
}

/// Where the parenthesis that opens at `open` is closed.
fn closing_parenthesis(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quoted = false;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'"' => quoted = !quoted,
            b'(' if !quoted => depth += 1,
            b')' if !quoted => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

type Read = fn(&mut Arguments<'_>) -> Option<Node>;

/// Readers of the nodes with a name of their own. An argument that the specification calls optional may be missing.
static READERS: &[(&str, Read)] = &[
    ("Pci", |a| Some(Node::Pci { device: a.number()?, function: a.number()? })),
    ("PcCard", |a| Some(Node::PcCard { function: a.number()? })),
    ("MemoryMapped", |a| Some(Node::MemoryMapped { memory_type: a.number()?, start: a.number()?, end: a.number()? })),
    ("VenHw", |a| Some(Node::VendorHardware { guid: a.guid()?, data: a.data()? })),
    ("Ctrl", |a| Some(Node::Controller { number: a.number()? })),
    ("BMC", |a| Some(Node::Bmc { interface_type: a.number()?, base_address: a.number()? })),
    ("Acpi", |a| Some(Node::Acpi { hid: a.eisa_id()?, uid: a.optional_number()? })),
    ("AcpiEx", |a| {
        let (hid, cid, uid) = (a.eisa_id()?, a.eisa_id()?, a.optional_number()?);
        let (hid_str, cid_str, uid_str) = (a.string(), a.string(), a.string());
        Some(Node::AcpiExpanded { hid, uid, cid, hid_str, uid_str, cid_str })
    }),
    ("AcpiExp", |a| {
        let (hid, cid, uid_str) = (a.eisa_id()?, a.eisa_id()?, a.string());
        Some(Node::AcpiExpanded { hid, uid: 0, cid, hid_str: String::new(), uid_str, cid_str: String::new() })
    }),
    ("AcpiAdr", |a| {
        let mut adr = Vec::from([a.number()?]);
        while a.rest.is_some() {
            adr.push(a.number()?);
        }
        Some(Node::AcpiAdr { adr })
    }),
    ("Ata", |a| {
        let primary_secondary = a.choice(&[("Primary", 0), ("Secondary", 1)])?;
        let slave_master = a.choice(&[("Master", 0), ("Slave", 1)])?;
        Some(Node::Atapi { primary_secondary, slave_master, lun: a.number()? })
    }),
    ("Scsi", |a| Some(Node::Scsi { target: a.number()?, lun: a.number()? })),
    ("Fibre", |a| Some(Node::FibreChannel { wwn: a.number()?, lun: a.number()? })),
    ("FibreEx", |a| Some(Node::FibreChannelEx { wwn: a.big_endian()?, lun: a.big_endian()? })),
    ("I1394", |a| Some(Node::Ieee1394 { guid: u64::from_str_radix(strip_0x(a.next()?), 16).ok()? })),
    ("USB", |a| Some(Node::Usb { parent_port: a.number()?, interface: a.number()? })),
    ("I2O", |a| Some(Node::I2o { tid: a.number()? })),
    ("Infiniband", |a| {
        Some(Node::Infiniband {
            resource_flags: a.number()?,
            port_gid: a.guid()?.to_bytes(),
            service_id: a.number()?,
            target_port_id: a.number()?,
            device_id: a.number()?,
        })
    }),
    ("VenMsg", |a| Some(Node::VendorMessaging { guid: a.guid()?, data: a.data()? })),
    ("VenPcAnsi", |_| Some(Node::VendorMessaging { guid: vendor::PC_ANSI, data: Vec::new() })),
    ("VenVt100", |_| Some(Node::VendorMessaging { guid: vendor::VT_100, data: Vec::new() })),
    ("VenVt100Plus", |_| Some(Node::VendorMessaging { guid: vendor::VT_100_PLUS, data: Vec::new() })),
    ("VenUtf8", |_| Some(Node::VendorMessaging { guid: vendor::VT_UTF8, data: Vec::new() })),
    ("DebugPort", |_| Some(Node::VendorMessaging { guid: vendor::DEBUG_PORT, data: Vec::new() })),
    ("UartFlowCtrl", |a| {
        let map: u32 = a.choice(&[("None", 0), ("Hardware", 1), ("XonXoff", 2)])?;
        Some(Node::VendorMessaging { guid: vendor::UART_FLOW_CONTROL, data: map.to_le_bytes().to_vec() })
    }),
    ("SAS", |a| {
        let (address, lun, port): (u64, u64, u16) = (a.number()?, a.number()?, a.number()?);
        let topology = a.sas_topology()?;
        let reserved: u32 = a.optional_number()?;
        let mut data = reserved.to_le_bytes().to_vec();
        data.extend_from_slice(&address.to_le_bytes());
        data.extend_from_slice(&lun.to_le_bytes());
        data.extend_from_slice(&topology.to_le_bytes());
        data.extend_from_slice(&port.to_le_bytes());
        Some(Node::VendorMessaging { guid: vendor::SAS, data })
    }),
    ("SasEx", |a| {
        let (address, lun, relative_target_port) = (a.big_endian()?, a.big_endian()?, a.number()?);
        Some(Node::SasEx { address, lun, topology: a.sas_topology()?, relative_target_port })
    }),
    ("NVMe", |a| {
        let namespace = a.number()?;
        let mut eui64 = [0; 8];
        let mut groups = a.next()?.split('-');
        for byte in eui64.iter_mut().rev() {
            *byte = u8::from_str_radix(groups.next()?, 16).ok()?;
        }
        groups.next().is_none().then_some(Node::Nvme { namespace, eui64 })
    }),
    ("UFS", |a| Some(Node::Ufs { target: a.number()?, lun: a.number()? })),
    ("SD", |a| Some(Node::Sd { slot: a.number()? })),
    ("eMMC", |a| Some(Node::Emmc { slot: a.number()? })),
    ("MAC", |a| {
        let bytes = a.data()?;
        let mut address = [0; 32];
        address.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(Node::Mac { address, if_type: a.optional_number()? })
    }),
    ("IPv4", read_ipv4),
    ("IPv6", read_ipv6),
    ("Vlan", |a| Some(Node::Vlan { id: a.number()? })),
    ("Uart", |a| {
        let baud_rate = a.number_or("DEFAULT", 0)?;
        let data_bits = a.number_or("DEFAULT", 0)?;
        let parity = a.choice(&[("D", 0), ("N", 1), ("E", 2), ("O", 3), ("M", 4), ("S", 5)])?;
        let stop_bits = a.choice(&[("D", 0), ("1", 1), ("1.5", 2), ("2", 3)])?;
        Some(Node::Uart { baud_rate, data_bits, parity, stop_bits })
    }),
    ("UsbClass", |a| {
        Some(Node::UsbClass {
            vendor: a.number()?,
            product: a.number()?,
            class: a.number()?,
            sub_class: a.number()?,
            protocol: a.number()?,
        })
    }),
    ("UsbWwid", |a| {
        let (vendor, product, interface) = (a.number()?, a.number()?, a.number()?);
        let text = a.rest.take().unwrap_or_default();
        let serial_number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).into();
        Some(Node::UsbWwid { interface, vendor, product, serial_number })
    }),
    ("Unit", |a| Some(Node::LogicalUnit { lun: a.number()? })),
    ("Sata", |a| Some(Node::Sata { port: a.number()?, port_multiplier_port: a.number()?, lun: a.number()? })),
    ("iSCSI", |a| {
        let (target, portal_group_tag, lun) = (a.string(), a.number()?, a.big_endian()?);
        let mut options = a.choice(&[("None", 0), ("CRC32C", iscsi::HEADER_CRC32C)])?;
        options |= a.choice(&[("None", 0), ("CRC32C", iscsi::DATA_CRC32C)])?;
        options |= a.choice(&[("CHAP_BI", 0), ("CHAP_UNI", iscsi::CHAP_UNI), ("None", iscsi::NO_AUTHENTICATION)])?;
        let protocol = if a.rest.is_some() { a.choice(&[("TCP", 0)])? } else { 0 };
        Some(Node::Iscsi { protocol, options, lun, portal_group_tag, target })
    }),
    ("Dns", |a| {
        let ipv6 = a.rest?.contains(':');
        let mut servers = Vec::new();
        while a.rest.is_some() {
            servers.push(if ipv6 {
                a.ipv6()?
            } else {
                let mut server = [0; 16];
                server[..4].copy_from_slice(&a.ipv4()?);
                server
            });
        }
        Some(Node::Dns { ipv6, servers })
    }),
    ("Uri", |a| Some(Node::Uri { uri: a.rest.take().unwrap_or_default().into() })),
    ("Bluetooth", |a| Some(Node::Bluetooth { address: a.data()?.try_into().ok()? })),
    ("BluetoothLE", |a| Some(Node::BluetoothLe { address: a.data()?.try_into().ok()?, address_type: a.number()? })),
    ("Wi-Fi", |a| {
        let text = a.rest.take().unwrap_or_default();
        let mut ssid = [0; 32];
        ssid.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Node::Wifi { ssid })
    }),
    ("HD", read_hard_drive),
    ("CDROM", |a| {
        Some(Node::CdRom { boot_entry: a.number()?, start: a.optional_number()?, size: a.optional_number()? })
    }),
    ("VenMedia", |a| Some(Node::VendorMedia { guid: a.guid()?, data: a.data()? })),
    ("Media", |a| Some(Node::MediaProtocol { guid: a.guid()? })),
    ("Fv", |a| Some(Node::FirmwareVolume { guid: a.guid()? })),
    ("FvFile", |a| Some(Node::FirmwareFile { guid: a.guid()? })),
    ("Offset", |a| Some(Node::RelativeOffsetRange { start: a.number()?, end: a.number()? })),
    ("BBS", |a| {
        let device_type = a.named_number(&BBS_TYPES)?;
        let description = a.string();
        Some(Node::BiosBootSpecification { device_type, status: a.optional_number()?, description })
    }),
];

fn read_acpi_name(a: &mut Arguments<'_>) -> Option<Node> {
    let (_, product) = ACPI_NAMES.iter().find(|(name, _)| *name == a.name)?;
    Some(Node::Acpi { hid: PNP | u32::from(*product) << 16, uid: a.optional_number()? })
}

fn read_usb_class_name(a: &mut Arguments<'_>) -> Option<Node> {
    let (vendor, product) = (a.number()?, a.number()?);
    let (class, sub_class) = match USB_CLASS_NAMES.iter().find(|(name, _)| *name == a.name) {
        Some((_, class)) => (*class, a.number()?),
        None => (USB_CLASS_APPLICATION, USB_APPLICATION_NAMES.iter().find(|(name, _)| *name == a.name)?.1),
    };
    Some(Node::UsbClass { vendor, product, class, sub_class, protocol: a.number()? })
}

fn read_ram_disk(a: &mut Arguments<'_>) -> Option<Node> {
    let (start, end, instance) = (a.number()?, a.number()?, a.optional_number()?);
    let disk_type = match RAM_DISK_NAMES.iter().find(|(name, _)| *name == a.name) {
        Some((_, disk_type)) => disk_type.0,
        None => a.guid()?,
    };
    Some(Node::RamDisk { start, end, disk_type, instance })
}

fn read_generic(a: &mut Arguments<'_>) -> Option<Node> {
    let device_type = match TYPE_NAMES.iter().find(|(name, _)| *name == a.name) {
        Some((_, device_type)) => *device_type,
        None => DeviceType(a.number()?),
    };
    let sub_type = DeviceSubType(a.number()?);
    let data = a.data()?;
    // An end of the whole path in the middle of it would cut it off.
    (device_type != DeviceType::END).then(|| Node::decode(device_type, sub_type, &data))
}

fn read_ipv4(a: &mut Arguments<'_>) -> Option<Node> {
    let remote = a.ipv4()?;
    let protocol = a.protocol()?;
    let static_address = a.optional_choice(&[("DHCP", false), ("Static", true)])?;
    let local = if a.rest.is_some() { a.ipv4()? } else { [0; 4] };
    let network = if a.rest.is_some() { Some((a.ipv4()?, a.ipv4()?)) } else { None };
    Some(Node::Ipv4 { local, remote, local_port: 0, remote_port: 0, protocol, static_address, network })
}

fn read_ipv6(a: &mut Arguments<'_>) -> Option<Node> {
    let remote = a.ipv6()?;
    let protocol = a.protocol()?;
    let origin = a.optional_choice(&[("Static", 0), ("StatelessAutoConfigure", 1), ("StatefulAutoConfigure", 2)])?;
    let local = if a.rest.is_some() { a.ipv6()? } else { [0; 16] };
    let network = if a.rest.is_some() { Some((a.number()?, a.ipv6()?)) } else { None };
    Some(Node::Ipv6 { local, remote, local_port: 0, remote_port: 0, protocol, origin, network })
}

fn read_hard_drive(a: &mut Arguments<'_>) -> Option<Node> {
    let partition = a.number()?;
    let (format, signature) = match a.next()? {
        "MBR" => (PartitionFormat::MBR, Signature::Mbr(a.number()?)),
        "GPT" => (PartitionFormat::GPT, Signature::Guid(a.guid()?)),
        kind => {
            let kind = parse_number(kind)?;
            let signature: u8 = a.number()?;
            if (kind, signature) != (0_u8, 0) {
                return None;
            }
            (PartitionFormat(0), Signature::None)
        }
    };
    let (start, size) = (a.optional_number()?, a.optional_number()?);
    Some(Node::HardDrive { partition, start, size, format, signature })
}

/// What stands between the parentheses of a node, taken from the front. `rest` is `None` when nothing is left.
struct Arguments<'a> {
    name: &'a str,
    rest: Option<&'a str>,
}

impl<'a> Arguments<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest.take()?;
        match text.split_once(',') {
            Some((argument, rest)) => {
                self.rest = Some(rest);
                Some(argument.trim())
            }
            None => Some(text.trim()),
        }
    }

    fn number<T: TryFrom<u64>>(&mut self) -> Option<T> {
        parse_number(self.next()?)
    }

    /// 0 if it is missing or empty; `None` if it is there and no number.
    fn optional_number<T: TryFrom<u64>>(&mut self) -> Option<T> {
        match self.next() {
            None | Some("") => T::try_from(0).ok(),
            Some(text) => parse_number(text),
        }
    }

    /// `value` for the word `name`.
    fn number_or<T: TryFrom<u64>>(&mut self, name: &str, value: T) -> Option<T> {
        match self.next()? {
            text if text == name => Some(value),
            text => parse_number(text),
        }
    }

    /// The number of a name, or a number.
    fn named_number<T: TryFrom<u64> + Copy>(&mut self, names: &[(&str, T)]) -> Option<T> {
        let text = self.next()?;
        match names.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Some(*value),
            None => parse_number(text),
        }
    }

    fn choice<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.next()?;
        choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
    }

    /// The first choice if it is missing or empty.
    fn optional_choice<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        match self.next() {
            None | Some("") => choices.first().map(|(_, value)| *value),
            Some(text) => choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value),
        }
    }

    /// Empty if it is missing.
    fn string(&mut self) -> String {
        self.next().unwrap_or_default().into()
    }

    fn guid(&mut self) -> Option<Guid> {
        Guid::try_parse(self.next()?).ok()
    }

    /// Bytes as digits; none if missing.
    fn data(&mut self) -> Option<Vec<u8>> {
        let digits = strip_0x(self.next().unwrap_or_default()).as_bytes();
        let (pairs, odd) = digits.as_chunks::<2>();
        if !odd.is_empty() {
            return None;
        }
        let digit = |digit: u8| char::from(digit).to_digit(16);
        pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()).collect()
    }

    /// A number stored with its most significant byte first.
    fn big_endian(&mut self) -> Option<[u8; 8]> {
        self.number().map(u64::to_be_bytes)
    }

    fn eisa_id(&mut self) -> Option<u32> {
        let text = self.next()?;
        let bytes = text.as_bytes();
        let (Some(letters), Some(digits)) = (bytes.first_chunk::<3>(), text.get(3..)) else {
            return parse_number(text);
        };
        if digits.len() != 4 || !letters.iter().all(u8::is_ascii_uppercase) {
            return parse_number(text);
        }
        let vendor = letters.iter().fold(0, |id, letter| id << 5 | u32::from(letter - b'@'));
        Some(u32::from(u16::from_str_radix(digits, 16).ok()?) << 16 | vendor)
    }

    fn ipv4(&mut self) -> Option<[u8; 4]> {
        self.next()?.parse::<Ipv4Addr>().ok().map(|address| address.octets())
    }

    fn ipv6(&mut self) -> Option<[u8; 16]> {
        self.next()?.parse::<Ipv6Addr>().ok().map(|address| address.octets())
    }

    /// UDP if it is missing, as UEFI 2.10 §10.6.1.6 says.
    fn protocol(&mut self) -> Option<u16> {
        if self.rest.is_some() { self.named_number(&PROTOCOLS) } else { Some(PROTOCOLS[1].1) }
    }

    fn sas_topology(&mut self) -> Option<u16> {
        let kind = match self.next()? {
            "NoTopology" => None,
            "SAS" => Some(0),
            "SATA" => Some(sas::SATA),
            text => {
                let topology = parse_number(text)?;
                return self.skip_topology().map(|()| topology);
            }
        };
        let Some(kind) = kind else { return self.skip_topology().map(|()| sas::NO_TOPOLOGY) };
        let location = self.choice(&[("Internal", 0), ("External", sas::EXTERNAL)])?;
        let connection = self.choice(&[("Direct", 0), ("Expanded", sas::EXPANDED)])?;
        let bay = match self.number::<u16>()? {
            0 => sas::ONE_BYTE,
            bay => u16::from(u8::try_from(bay - 1).ok()?) << sas::BAY_SHIFT | sas::TWO_BYTES,
        };
        Some(kind | location | connection | bay)
    }

    /// The three zeros that stand where there is no topology.
    fn skip_topology(&mut self) -> Option<()> {
        for _ in 0..3 {
            self.optional_number::<u16>()?;
        }
        Some(())
    }
}

/// Decimal, or hexadecimal after `0x`.
fn parse_number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let digits = strip_0x(text);
    let radix = if digits.len() < text.len() { 16 } else { 10 };
    // `from_str_radix` would take a sign.
    let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(digits, radix).ok().filter(|_| plain).and_then(|number| T::try_from(number).ok())
}

fn strip_0x(text: &str) -> &str {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text)
}
