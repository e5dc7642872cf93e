//! Device paths as text.

use alloc::string::{String, ToString};
use core::fmt::{self, Write};
use core::net::{Ipv4Addr, Ipv6Addr};

use uefi_raw::Guid;
use uefi_raw::protocol::device_path::media::RamDiskType;

use super::super::{DevicePath, Node, Signature};
use super::{
    ACPI_NAMES, BBS_TYPES, PNP, PROTOCOLS, RAM_DISK_NAMES, TYPE_NAMES, TextOptions, USB_APPLICATION_NAMES,
    USB_CLASS_APPLICATION, USB_CLASS_NAMES, iscsi, sas, vendor,
};

impl DevicePath {
    /// The path as text that reads back as the same path ([`TextOptions::FULL`]).
    pub fn to_text(&self) -> String {
        self.to_text_with(TextOptions::FULL)
    }

    /// The path as text.
    pub fn to_text_with(&self, options: TextOptions) -> String {
        let mut text = String::new();
        for node in self.nodes() {
            if node == Node::EndInstance {
                text.push(',');
                continue;
            }
            if !text.is_empty() && !text.ends_with(',') {
                text.push('/');
            }
            text.push_str(&node.to_text(options));
        }
        text
    }
}

/// As [`DevicePath::to_text`].
impl fmt::Display for DevicePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl fmt::Debug for DevicePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Node {
    /// The node as text.
    pub fn to_text(&self, options: TextOptions) -> String {
        let mut text = String::new();
        // Writing to a `String` does not fail.
        let _ = Specific { node: self, options }.write(&mut text);
        if options.display_only && !text.is_empty() {
            return text;
        }
        match Self::parse_text(&text) {
            Ok(read) if read == self.without_ports() => text,
            _ => Generic(self).to_string(),
        }
    }

    /// The node without what has no text.
    fn without_ports(&self) -> Self {
        let mut node = self.clone();
        if let Self::Ipv4 { local_port, remote_port, .. } | Self::Ipv6 { local_port, remote_port, .. } = &mut node {
            (*local_port, *remote_port) = (0, 0);
        }
        node
    }
}

/// `Path(type,subtype,data)`, or the same with the type as a name.
struct Generic<'a>(&'a Node);

impl fmt::Display for Generic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device_type, sub_type) = self.0.types();
        match TYPE_NAMES.iter().find(|(_, named)| *named == device_type) {
            Some((name, _)) => write!(f, "{name}({}", sub_type.0)?,
            None => write!(f, "Path({},{}", device_type.0, sub_type.0)?,
        }
        let data = self.0.to_bytes().unwrap_or_default();
        match data.get(super::super::HEADER_LENGTH..) {
            Some(data) if !data.is_empty() => write!(f, ",{})", Hex(data)),
            _ => f.write_str(")"),
        }
    }
}

/// The form that UEFI 2.10 §10.6.1.6 gives for the type of the node.
struct Specific<'a> {
    node: &'a Node,
    options: TextOptions,
}

impl Specific<'_> {
    fn write(&self, f: &mut String) -> fmt::Result {
        let display_only = self.options.display_only;
        match self.node {
            Node::Pci { device, function } => write!(f, "Pci({device:#x},{function:#x})"),
            Node::PcCard { function } => write!(f, "PcCard({function:#x})"),
            Node::MemoryMapped { memory_type, start, end } => {
                write!(f, "MemoryMapped({memory_type:#x},{start:#x},{end:#x})")
            }
            Node::VendorHardware { guid, data } => write_vendor(f, "VenHw", *guid, data),
            Node::VendorMessaging { guid, data } => self.write_vendor_messaging(f, *guid, data),
            Node::VendorMedia { guid, data } => write_vendor(f, "VenMedia", *guid, data),
            Node::Controller { number } => write!(f, "Ctrl({number:#x})"),
            Node::Bmc { interface_type, base_address } => write!(f, "BMC({interface_type:#x},{base_address:#x})"),
            Node::Acpi { hid, uid } => write_acpi(f, *hid, *uid),
            Node::AcpiExpanded { .. } => self.write_acpi_expanded(f),
            Node::AcpiAdr { adr } => {
                f.write_str("AcpiAdr(")?;
                write_list(f, adr.iter(), |f, adr| write!(f, "{adr:#x}"))?;
                f.write_str(")")
            }
            Node::Atapi { lun, .. } if display_only => write!(f, "Ata({lun:#x})"),
            Node::Atapi { primary_secondary, slave_master, lun } => {
                let bus = if *primary_secondary == 0 { "Primary" } else { "Secondary" };
                let device = if *slave_master == 0 { "Master" } else { "Slave" };
                write!(f, "Ata({bus},{device},{lun:#x})")
            }
            Node::Scsi { target, lun } => write!(f, "Scsi({target:#x},{lun:#x})"),
            Node::FibreChannel { wwn, lun } => write!(f, "Fibre({wwn:#x},{lun:#x})"),
            Node::FibreChannelEx { wwn, lun } => write!(f, "FibreEx(0x{},0x{})", Hex(wwn), Hex(lun)),
            Node::Ieee1394 { guid } => write!(f, "I1394({guid:016x})"),
            Node::Usb { parent_port, interface } => write!(f, "USB({parent_port:#x},{interface:#x})"),
            Node::Sata { port, port_multiplier_port, lun } => {
                write!(f, "Sata({port:#x},{port_multiplier_port:#x},{lun:#x})")
            }
            Node::UsbWwid { interface, vendor, product, serial_number } => {
                write!(f, "UsbWwid({vendor:#x},{product:#x},{interface:#x},\"{serial_number}\")")
            }
            Node::LogicalUnit { lun } => write!(f, "Unit({lun:#x})"),
            Node::UsbClass { .. } => self.write_usb_class(f),
            Node::I2o { tid } => write!(f, "I2O({tid:#x})"),
            Node::Mac { address, if_type } => {
                let length = if *if_type <= 1 { 6 } else { address.len() };
                write!(f, "MAC({},{if_type:#x})", Hex(&address[..length]))
            }
            Node::Ipv4 { .. } => self.write_ipv4(f),
            Node::Ipv6 { .. } => self.write_ipv6(f),
            Node::Vlan { id } => write!(f, "Vlan({id})"),
            Node::Infiniband { resource_flags, port_gid, service_id, target_port_id, device_id } => {
                let gid = UpperGuid(Guid::from_bytes(*port_gid));
                write!(f, "Infiniband({resource_flags:#x},{gid},{service_id:#x},{target_port_id:#x},{device_id:#x})")
            }
            Node::Uart { .. } => self.write_uart(f),
            Node::SasEx { address, lun, topology, relative_target_port } => {
                write!(f, "SasEx(0x{},0x{},{relative_target_port:#x},", Hex(address), Hex(lun))?;
                write_sas_topology(f, *topology)?;
                f.write_str(")")
            }
            Node::Iscsi { protocol, options, lun, portal_group_tag, target } => {
                write!(f, "iSCSI({target},{portal_group_tag:#x},0x{}", Hex(lun))?;
                for bit in [iscsi::HEADER_CRC32C, iscsi::DATA_CRC32C] {
                    f.write_str(if options & bit == 0 { ",None" } else { ",CRC32C" })?;
                }
                f.write_str(match options & (iscsi::NO_AUTHENTICATION | iscsi::CHAP_UNI) {
                    0 => ",CHAP_BI",
                    iscsi::CHAP_UNI => ",CHAP_UNI",
                    _ => ",None",
                })?;
                f.write_str(if *protocol == 0 { ",TCP)" } else { ",reserved)" })
            }
            Node::Nvme { namespace, eui64 } => {
                write!(f, "NVMe({namespace:#x},")?;
                for (index, byte) in eui64.iter().rev().enumerate() {
                    write!(f, "{}{byte:02X}", if index == 0 { "" } else { "-" })?;
                }
                f.write_str(")")
            }
            Node::Uri { uri } => write!(f, "Uri({uri})"),
            Node::Ufs { target, lun } => write!(f, "UFS({target:#x},{lun:#x})"),
            Node::Sd { slot } => write!(f, "SD({slot:#x})"),
            Node::Emmc { slot } => write!(f, "eMMC({slot:#x})"),
            Node::Bluetooth { address } => write!(f, "Bluetooth({})", Hex(address)),
            Node::BluetoothLe { address, address_type } => {
                write!(f, "BluetoothLE({},{address_type:#04x})", Hex(address))
            }
            Node::Wifi { ssid } => {
                let end = ssid.iter().position(|byte| *byte == 0).unwrap_or(ssid.len());
                write!(f, "Wi-Fi({})", String::from_utf8_lossy(&ssid[..end]))
            }
            Node::Dns { ipv6, servers } => {
                f.write_str("Dns(")?;
                write_list(f, servers.iter(), |f, server| {
                    if *ipv6 {
                        write!(f, "{}", Ipv6(server))
                    } else {
                        let [a, b, c, d, ..] = *server;
                        write!(f, "{}", Ipv4Addr::new(a, b, c, d))
                    }
                })?;
                f.write_str(")")
            }
            Node::HardDrive { .. } => self.write_hard_drive(f),
            Node::CdRom { boot_entry, .. } if display_only => write!(f, "CDROM({boot_entry:#x})"),
            Node::CdRom { boot_entry, start, size } => write!(f, "CDROM({boot_entry:#x},{start:#x},{size:#x})"),
            Node::FilePath(path) => f.write_str(path),
            Node::MediaProtocol { guid } => write!(f, "Media({})", UpperGuid(*guid)),
            Node::FirmwareFile { guid } => write!(f, "FvFile({})", UpperGuid(*guid)),
            Node::FirmwareVolume { guid } => write!(f, "Fv({})", UpperGuid(*guid)),
            Node::RelativeOffsetRange { start, end } => write!(f, "Offset({start:#x},{end:#x})"),
            Node::RamDisk { start, end, disk_type, instance } => {
                match RAM_DISK_NAMES.iter().find(|(_, named)| *named == RamDiskType(*disk_type)) {
                    Some((name, _)) => write!(f, "{name}({start:#x},{end:#x},{instance})"),
                    None => write!(f, "RamDisk({start:#x},{end:#x},{instance},{})", UpperGuid(*disk_type)),
                }
            }
            Node::BiosBootSpecification { device_type, status, description } => {
                match BBS_TYPES.iter().find(|(_, named)| named == device_type) {
                    Some((name, _)) => write!(f, "BBS({name},{description}")?,
                    None => write!(f, "BBS({device_type:#x},{description}")?,
                }
                if display_only { f.write_str(")") } else { write!(f, ",{status:#x})") }
            }
            Node::AcpiNvdimm { .. }
            | Node::NvdimmNamespace { .. }
            | Node::RestService { .. }
            | Node::NvmeOf { .. }
            | Node::EndInstance
            | Node::Unknown { .. } => Ok(()),
        }
    }

    fn write_vendor_messaging(&self, f: &mut String, guid: Guid, data: &[u8]) -> fmt::Result {
        if !self.options.allow_shortcuts {
            return write_vendor(f, "VenMsg", guid, data);
        }
        match (guid, data) {
            (vendor::PC_ANSI, []) => f.write_str("VenPcAnsi()"),
            (vendor::VT_100, []) => f.write_str("VenVt100()"),
            (vendor::VT_100_PLUS, []) => f.write_str("VenVt100Plus()"),
            (vendor::VT_UTF8, []) => f.write_str("VenUtf8()"),
            (vendor::DEBUG_PORT, []) => f.write_str("DebugPort()"),
            (vendor::UART_FLOW_CONTROL, [0, 0, 0, 0]) => f.write_str("UartFlowCtrl(None)"),
            (vendor::UART_FLOW_CONTROL, [1, 0, 0, 0]) => f.write_str("UartFlowCtrl(Hardware)"),
            (vendor::UART_FLOW_CONTROL, [2, 0, 0, 0]) => f.write_str("UartFlowCtrl(XonXoff)"),
            (vendor::SAS, data) => match Sas::read(data) {
                Some(sas) => sas.write(f),
                None => write_vendor(f, "VenMsg", guid, data),
            },
            _ => write_vendor(f, "VenMsg", guid, data),
        }
    }

    fn write_acpi_expanded(&self, f: &mut String) -> fmt::Result {
        let Node::AcpiExpanded { hid, uid, cid, hid_str, uid_str, cid_str } = self.node else { return Ok(()) };
        let (hid_text, cid_text) = (EisaId(*hid), EisaId(*cid));
        if self.options.display_only {
            for (name, product) in &ACPI_NAMES[..2] {
                let id = PNP | u32::from(*product) << 16;
                if *hid == id || *cid == id {
                    return match uid_str.as_str() {
                        "" => write!(f, "{name}({uid:#x})"),
                        text => write!(f, "{name}({text})"),
                    };
                }
            }
        }
        if hid_str.is_empty() && cid_str.is_empty() && !uid_str.is_empty() && *uid == 0 {
            return write!(f, "AcpiExp({hid_text},{cid_text},{uid_str})");
        }
        if !self.options.display_only {
            return write!(f, "AcpiEx({hid_text},{cid_text},{uid:#x},{hid_str},{cid_str},{uid_str})");
        }
        f.write_str("AcpiEx(")?;
        for (text, id) in [(hid_str, hid_text), (cid_str, cid_text)] {
            match text.as_str() {
                "" => write!(f, "{id},")?,
                text => write!(f, "{text},")?,
            }
        }
        match uid_str.as_str() {
            "" => write!(f, "{uid:#x})"),
            text => write!(f, "{text})"),
        }
    }

    fn write_usb_class(&self, f: &mut String) -> fmt::Result {
        let Node::UsbClass { vendor, product, class, sub_class, protocol } = self.node else { return Ok(()) };
        if let Some((name, _)) = USB_CLASS_NAMES.iter().find(|(_, named)| named == class) {
            return write!(f, "{name}({vendor:#x},{product:#x},{sub_class:#x},{protocol:#x})");
        }
        match USB_APPLICATION_NAMES.iter().find(|(_, named)| named == sub_class) {
            Some((name, _)) if *class == USB_CLASS_APPLICATION => {
                write!(f, "{name}({vendor:#x},{product:#x},{protocol:#x})")
            }
            _ => write!(f, "UsbClass({vendor:#x},{product:#x},{class:#x},{sub_class:#x},{protocol:#x})"),
        }
    }

    fn write_ipv4(&self, f: &mut String) -> fmt::Result {
        let Node::Ipv4 { local, remote, protocol, static_address, network, .. } = self.node else { return Ok(()) };
        write!(f, "IPv4({}", Ipv4Addr::from(*remote))?;
        if self.options.display_only {
            return f.write_str(")");
        }
        let origin = if *static_address { "Static" } else { "DHCP" };
        write!(f, ",{},{origin},{}", Protocol(*protocol), Ipv4Addr::from(*local))?;
        if let Some((gateway, mask)) = network {
            write!(f, ",{},{}", Ipv4Addr::from(*gateway), Ipv4Addr::from(*mask))?;
        }
        f.write_str(")")
    }

    fn write_ipv6(&self, f: &mut String) -> fmt::Result {
        let Node::Ipv6 { local, remote, protocol, origin, network, .. } = self.node else { return Ok(()) };
        write!(f, "IPv6({}", Ipv6(remote))?;
        if self.options.display_only {
            return f.write_str(")");
        }
        let origin = match origin {
            0 => "Static",
            1 => "StatelessAutoConfigure",
            _ => "StatefulAutoConfigure",
        };
        write!(f, ",{},{origin},{}", Protocol(*protocol), Ipv6(local))?;
        if let Some((prefix_length, gateway)) = network {
            write!(f, ",{prefix_length:#x},{}", Ipv6(gateway))?;
        }
        f.write_str(")")
    }

    fn write_uart(&self, f: &mut String) -> fmt::Result {
        let Node::Uart { baud_rate, data_bits, parity, stop_bits } = self.node else { return Ok(()) };
        match baud_rate {
            0 => f.write_str("Uart(DEFAULT,")?,
            rate => write!(f, "Uart({rate},")?,
        }
        match data_bits {
            0 => f.write_str("DEFAULT,")?,
            bits => write!(f, "{bits},")?,
        }
        let parity = b"DNEOMS".get(usize::from(*parity)).copied().unwrap_or(b'x');
        let stop_bits = ["D", "1", "1.5", "2"].get(usize::from(*stop_bits)).copied().unwrap_or("x");
        write!(f, "{},{stop_bits})", char::from(parity))
    }

    fn write_hard_drive(&self, f: &mut String) -> fmt::Result {
        let Node::HardDrive { partition, start, size, signature, .. } = self.node else { return Ok(()) };
        match signature {
            Signature::Mbr(signature) => write!(f, "HD({partition},MBR,{signature:#010x}")?,
            Signature::Guid(guid) => write!(f, "HD({partition},GPT,{}", UpperGuid(*guid))?,
            Signature::None => write!(f, "HD({partition},0,0")?,
            Signature::Other { kind, .. } => write!(f, "HD({partition},{kind},0")?,
        }
        if self.options.display_only { f.write_str(")") } else { write!(f, ",{start:#x},{size:#x})") }
    }
}

fn write_acpi(f: &mut String, hid: u32, uid: u32) -> fmt::Result {
    let name = ACPI_NAMES.iter().find(|(_, product)| hid == PNP | u32::from(*product) << 16);
    match name {
        Some((name, _)) => write!(f, "{name}({uid:#x})"),
        None => write!(f, "Acpi({},{uid:#x})", EisaId(hid)),
    }
}

fn write_vendor(f: &mut String, name: &str, guid: Guid, data: &[u8]) -> fmt::Result {
    write!(f, "{name}({}", UpperGuid(guid))?;
    if !data.is_empty() {
        write!(f, ",{}", Hex(data))?;
    }
    f.write_str(")")
}

fn write_list<T>(
    f: &mut String,
    items: impl Iterator<Item = T>,
    write: impl Fn(&mut String, T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        write(f, item)?;
    }
    Ok(())
}

fn write_sas_topology(f: &mut String, topology: u16) -> fmt::Result {
    let more = topology & sas::MORE_MASK;
    if topology & sas::RESERVED != 0 || more > sas::TWO_BYTES {
        return write!(f, "{topology:#x},0,0,0");
    }
    if more == sas::NO_TOPOLOGY {
        return f.write_str("NoTopology,0,0,0");
    }
    f.write_str(if topology & sas::SATA != 0 { "SATA," } else { "SAS," })?;
    f.write_str(if topology & sas::EXTERNAL != 0 { "External," } else { "Internal," })?;
    f.write_str(if topology & sas::EXPANDED != 0 { "Expanded," } else { "Direct," })?;
    if more == sas::ONE_BYTE { f.write_str("0") } else { write!(f, "{:#x}", (topology >> sas::BAY_SHIFT) + 1) }
}

/// Data of the vendor node that older SAS devices have (UEFI 2.10 §10.3.4.18).
struct Sas {
    reserved: u32,
    address: u64,
    lun: u64,
    topology: u16,
    relative_target_port: u16,
}

impl Sas {
    fn read(data: &[u8]) -> Option<Self> {
        let (reserved, data) = data.split_first_chunk()?;
        let (address, data) = data.split_first_chunk()?;
        let (lun, data) = data.split_first_chunk()?;
        let (topology, data) = data.split_first_chunk()?;
        Some(Self {
            reserved: u32::from_le_bytes(*reserved),
            address: u64::from_le_bytes(*address),
            lun: u64::from_le_bytes(*lun),
            topology: u16::from_le_bytes(*topology),
            relative_target_port: u16::from_le_bytes(data.try_into().ok()?),
        })
    }

    fn write(&self, f: &mut String) -> fmt::Result {
        write!(f, "SAS({:#x},{:#x},{:#x},", self.address, self.lun, self.relative_target_port)?;
        write_sas_topology(f, self.topology)?;
        write!(f, ",{:#x})", self.reserved)
    }
}

/// Bytes as digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A GUID with capital letters, as device path texts have them.
struct UpperGuid(Guid);

impl fmt::Display for UpperGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_ascii_hex_lower().iter().try_for_each(|digit| f.write_char(char::from(digit.to_ascii_uppercase())))
    }
}

/// An IPv6 address without abbreviation.
struct Ipv6<'a>(&'a [u8; 16]);

impl fmt::Display for Ipv6<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, group) in Ipv6Addr::from(*self.0).segments().iter().enumerate() {
            write!(f, "{}{group:04x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// Protocol of an IP node.
struct Protocol(u16);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOCOLS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// A compressed EISA ID: three letters and four digits where it has them, `0` for none, else the number.
#[derive(Clone, Copy)]
struct EisaId(u32);

impl fmt::Display for EisaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [10, 5, 0].map(|shift| self.0 >> shift & 0x1F);
        if self.0 == 0 {
            f.write_str("0")
        } else if self.0 & 0x8000 == 0 && letters.iter().all(|letter| (1..=26).contains(letter)) {
            letters.iter().try_for_each(|letter| write!(f, "{}", char::from(b'@' + *letter as u8)))?;
            write!(f, "{:04X}", self.0 >> 16)
        } else {
            write!(f, "{:#010x}", self.0)
        }
    }
}
