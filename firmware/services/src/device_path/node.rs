//! Typed device path nodes (UEFI 2.10 §10.3).

use alloc::string::String;
use alloc::vec::Vec;

use uefi_raw::Guid;
use uefi_raw::protocol::device_path::{DeviceSubType, DeviceType};

use super::{DevicePathError, HEADER_LENGTH};

/// How a disk with a partition is identified (`SignatureType` of a hard drive node).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signature {
    /// Not at all.
    None,
    /// By the 32-bit signature of its MBR.
    Mbr(u32),
    /// By the GUID of its GPT entry.
    Guid(Guid),
    /// In a way this firmware does not know.
    Other {
        /// `SignatureType`.
        kind: u8,
        /// `Signature`.
        bytes: [u8; 16],
    },
}

impl Signature {
    const NONE: u8 = 0;
    const MBR: u8 = 1;
    const GUID: u8 = 2;

    fn new(kind: u8, bytes: [u8; 16]) -> Self {
        let [b0, b1, b2, b3, rest @ ..] = bytes;
        match kind {
            Self::NONE if bytes == [0; 16] => Self::None,
            Self::MBR if rest == [0; 12] => Self::Mbr(u32::from_le_bytes([b0, b1, b2, b3])),
            Self::GUID => Self::Guid(Guid::from_bytes(bytes)),
            kind => Self::Other { kind, bytes },
        }
    }

    fn kind_and_bytes(self) -> (u8, [u8; 16]) {
        match self {
            Self::None => (Self::NONE, [0; 16]),
            Self::Mbr(signature) => (Self::MBR, u128::from(signature).to_le_bytes()),
            Self::Guid(guid) => (Self::GUID, guid.to_bytes()),
            Self::Other { kind, bytes } => (kind, bytes),
        }
    }
}

/// Format of a partition table (`MBRType` of a hard drive node).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionFormat(pub u8);

impl PartitionFormat {
    /// Legacy MBR.
    pub const MBR: Self = Self(1);
    /// GUID partition table.
    pub const GPT: Self = Self(2);
}

/// A device path node. A node whose data does not have the form of its type is [`Node::Unknown`].
///
/// Fields have the names and units of UEFI 2.10 §10.3; byte arrays are in the order of memory. Reserved fields are zero.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields are those of the tables in UEFI 2.10 §10.3 that each variant names")]
pub enum Node {
    /// §10.3.2.1
    Pci { device: u8, function: u8 },
    /// §10.3.2.2
    PcCard { function: u8 },
    /// §10.3.2.3; `end` is the last byte.
    MemoryMapped { memory_type: u32, start: u64, end: u64 },
    /// §10.3.2.4
    VendorHardware { guid: Guid, data: Vec<u8> },
    /// §10.3.2.5
    Controller { number: u32 },
    /// §10.3.2.6
    Bmc { interface_type: u8, base_address: u64 },

    /// §10.3.3
    Acpi { hid: u32, uid: u32 },
    /// §10.3.3, expanded
    AcpiExpanded { hid: u32, uid: u32, cid: u32, hid_str: String, uid_str: String, cid_str: String },
    /// §10.3.3.1
    AcpiAdr { adr: Vec<u32> },
    /// §10.3.3.2
    AcpiNvdimm { nfit_device_handle: u32 },

    /// §10.3.4.1
    Atapi { primary_secondary: u8, slave_master: u8, lun: u16 },
    /// §10.3.4.2
    Scsi { target: u16, lun: u16 },
    /// §10.3.4.3
    FibreChannel { wwn: u64, lun: u64 },
    /// §10.3.4.3, Ex
    FibreChannelEx { wwn: [u8; 8], lun: [u8; 8] },
    /// §10.3.4.4
    Ieee1394 { guid: u64 },
    /// §10.3.4.5
    Usb { parent_port: u8, interface: u8 },
    /// §10.3.4.6
    Sata { port: u16, port_multiplier_port: u16, lun: u16 },
    /// §10.3.4.7
    UsbWwid { interface: u16, vendor: u16, product: u16, serial_number: String },
    /// §10.3.4.8
    LogicalUnit { lun: u8 },
    /// §10.3.4.9
    UsbClass { vendor: u16, product: u16, class: u8, sub_class: u8, protocol: u8 },
    /// §10.3.4.10
    I2o { tid: u32 },
    /// §10.3.4.11
    Mac { address: [u8; 32], if_type: u8 },
    /// §10.3.4.12; `network` is gateway and subnet mask, which old nodes lack.
    Ipv4 {
        local: [u8; 4],
        remote: [u8; 4],
        local_port: u16,
        remote_port: u16,
        protocol: u16,
        static_address: bool,
        network: Option<([u8; 4], [u8; 4])>,
    },
    /// §10.3.4.13; `network` is prefix length and gateway, which old nodes lack.
    Ipv6 {
        local: [u8; 16],
        remote: [u8; 16],
        local_port: u16,
        remote_port: u16,
        protocol: u16,
        origin: u8,
        network: Option<(u8, [u8; 16])>,
    },
    /// §10.3.4.14
    Vlan { id: u16 },
    /// §10.3.4.15
    Infiniband { resource_flags: u32, port_gid: [u8; 16], service_id: u64, target_port_id: u64, device_id: u64 },
    /// §10.3.4.16; 0 is the default.
    Uart { baud_rate: u64, data_bits: u8, parity: u8, stop_bits: u8 },
    /// §10.3.4.17
    VendorMessaging { guid: Guid, data: Vec<u8> },
    /// §10.3.4.19
    SasEx { address: [u8; 8], lun: [u8; 8], topology: u16, relative_target_port: u16 },
    /// §10.3.4.20
    Iscsi { protocol: u16, options: u16, lun: [u8; 8], portal_group_tag: u16, target: String },
    /// §10.3.4.21; the EUI-64 in the order of memory, which text reverses.
    Nvme { namespace: u32, eui64: [u8; 8] },
    /// §10.3.4.22
    Uri { uri: String },
    /// §10.3.4.23
    Ufs { target: u8, lun: u8 },
    /// §10.3.4.24
    Sd { slot: u8 },
    /// §10.3.4.25
    Bluetooth { address: [u8; 6] },
    /// §10.3.4.26; padded with zeros.
    Wifi { ssid: [u8; 32] },
    /// §10.3.4.27
    Emmc { slot: u8 },
    /// §10.3.4.28
    BluetoothLe { address: [u8; 6], address_type: u8 },
    /// §10.3.4.29; an IPv4 address takes the first four bytes of its sixteen.
    Dns { ipv6: bool, servers: Vec<[u8; 16]> },
    /// §10.3.4.30
    NvdimmNamespace { uuid: Guid },
    /// §10.3.4.31; `vendor` is present if and only if `service` is 0xFF.
    RestService { service: u8, access_mode: u8, vendor: Option<(Guid, Vec<u8>)> },
    /// §10.3.4.32
    NvmeOf { nid_type: u8, nid: [u8; 16], subsystem_nqn: String },

    /// §10.3.5.1; blocks.
    HardDrive { partition: u32, start: u64, size: u64, format: PartitionFormat, signature: Signature },
    /// §10.3.5.2; blocks.
    CdRom { boot_entry: u32, start: u64, size: u64 },
    /// §10.3.5.3
    VendorMedia { guid: Guid, data: Vec<u8> },
    /// §10.3.5.4; without the terminating NUL.
    FilePath(String),
    /// §10.3.5.5
    MediaProtocol { guid: Guid },
    /// §10.3.5.6
    FirmwareFile { guid: Guid },
    /// §10.3.5.7
    FirmwareVolume { guid: Guid },
    /// §10.3.5.8; `end` is the last byte.
    RelativeOffsetRange { start: u64, end: u64 },
    /// §10.3.5.9; `end` is the last byte.
    RamDisk { start: u64, end: u64, disk_type: Guid, instance: u16 },

    /// §10.3.6
    BiosBootSpecification { device_type: u16, status: u16, description: String },

    /// §10.3.1, End This Instance
    EndInstance,
    /// Any other type, or data that does not fit its type.
    Unknown { device_type: DeviceType, sub_type: DeviceSubType, data: Vec<u8> },
}

impl Node {
    /// `service` of a [`Node::RestService`] that a vendor defines.
    pub const REST_VENDOR: u8 = 0xFF;

    /// The typed node of these bytes.
    pub fn decode(device_type: DeviceType, sub_type: DeviceSubType, data: &[u8]) -> Self {
        let node = match device_type {
            DeviceType::HARDWARE => decode_hardware(sub_type, data),
            DeviceType::ACPI => decode_acpi(sub_type, data),
            DeviceType::MESSAGING => decode_messaging(sub_type, data),
            DeviceType::MEDIA => decode_media(sub_type, data),
            DeviceType::BIOS_BOOT_SPEC => decode_bbs(sub_type, data),
            DeviceType::END if sub_type == DeviceSubType::END_INSTANCE && data.is_empty() => Some(Self::EndInstance),
            _ => None,
        };
        node.unwrap_or_else(|| Self::Unknown { device_type, sub_type, data: data.to_vec() })
    }

    /// Header and data.
    ///
    /// # Errors
    /// `TooLong` if the length does not fit the header.
    pub fn to_bytes(&self) -> Result<Vec<u8>, DevicePathError> {
        let (device_type, sub_type) = self.types();
        let mut bytes = Vec::from([device_type.0, sub_type.0, 0, 0]);
        self.encode_data(&mut Writer(&mut bytes));
        let length = u16::try_from(bytes.len()).map_err(|_| DevicePathError::TooLong)?;
        bytes[2..HEADER_LENGTH].copy_from_slice(&length.to_le_bytes());
        Ok(bytes)
    }

    /// Type and sub-type.
    pub const fn types(&self) -> (DeviceType, DeviceSubType) {
        use DeviceSubType as S;
        use DeviceType as T;
        match self {
            Self::Pci { .. } => (T::HARDWARE, S::HARDWARE_PCI),
            Self::PcCard { .. } => (T::HARDWARE, S::HARDWARE_PCCARD),
            Self::MemoryMapped { .. } => (T::HARDWARE, S::HARDWARE_MEMORY_MAPPED),
            Self::VendorHardware { .. } => (T::HARDWARE, S::HARDWARE_VENDOR),
            Self::Controller { .. } => (T::HARDWARE, S::HARDWARE_CONTROLLER),
            Self::Bmc { .. } => (T::HARDWARE, S::HARDWARE_BMC),
            Self::Acpi { .. } => (T::ACPI, S::ACPI),
            Self::AcpiExpanded { .. } => (T::ACPI, S::ACPI_EXPANDED),
            Self::AcpiAdr { .. } => (T::ACPI, S::ACPI_ADR),
            Self::AcpiNvdimm { .. } => (T::ACPI, S::ACPI_NVDIMM),
            Self::Atapi { .. } => (T::MESSAGING, S::MESSAGING_ATAPI),
            Self::Scsi { .. } => (T::MESSAGING, S::MESSAGING_SCSI),
            Self::FibreChannel { .. } => (T::MESSAGING, S::MESSAGING_FIBRE_CHANNEL),
            Self::FibreChannelEx { .. } => (T::MESSAGING, S::MESSAGING_FIBRE_CHANNEL_EX),
            Self::Ieee1394 { .. } => (T::MESSAGING, S::MESSAGING_1394),
            Self::Usb { .. } => (T::MESSAGING, S::MESSAGING_USB),
            Self::Sata { .. } => (T::MESSAGING, S::MESSAGING_SATA),
            Self::UsbWwid { .. } => (T::MESSAGING, S::MESSAGING_USB_WWID),
            Self::LogicalUnit { .. } => (T::MESSAGING, S::MESSAGING_DEVICE_LOGICAL_UNIT),
            Self::UsbClass { .. } => (T::MESSAGING, S::MESSAGING_USB_CLASS),
            Self::I2o { .. } => (T::MESSAGING, S::MESSAGING_I2O),
            Self::Mac { .. } => (T::MESSAGING, S::MESSAGING_MAC_ADDRESS),
            Self::Ipv4 { .. } => (T::MESSAGING, S::MESSAGING_IPV4),
            Self::Ipv6 { .. } => (T::MESSAGING, S::MESSAGING_IPV6),
            Self::Vlan { .. } => (T::MESSAGING, S::MESSAGING_VLAN),
            Self::Infiniband { .. } => (T::MESSAGING, S::MESSAGING_INFINIBAND),
            Self::Uart { .. } => (T::MESSAGING, S::MESSAGING_UART),
            Self::VendorMessaging { .. } => (T::MESSAGING, S::MESSAGING_VENDOR),
            Self::SasEx { .. } => (T::MESSAGING, S::MESSAGING_SCSI_SAS_EX),
            Self::Iscsi { .. } => (T::MESSAGING, S::MESSAGING_ISCSI),
            Self::Nvme { .. } => (T::MESSAGING, S::MESSAGING_NVME_NAMESPACE),
            Self::Uri { .. } => (T::MESSAGING, S::MESSAGING_URI),
            Self::Ufs { .. } => (T::MESSAGING, S::MESSAGING_UFS),
            Self::Sd { .. } => (T::MESSAGING, S::MESSAGING_SD),
            Self::Bluetooth { .. } => (T::MESSAGING, S::MESSAGING_BLUETOOTH),
            Self::Wifi { .. } => (T::MESSAGING, S::MESSAGING_WIFI),
            Self::Emmc { .. } => (T::MESSAGING, S::MESSAGING_EMMC),
            Self::BluetoothLe { .. } => (T::MESSAGING, S::MESSAGING_BLUETOOTH_LE),
            Self::Dns { .. } => (T::MESSAGING, S::MESSAGING_DNS),
            Self::NvdimmNamespace { .. } => (T::MESSAGING, S::MESSAGING_NVDIMM_NAMESPACE),
            Self::RestService { .. } => (T::MESSAGING, S::MESSAGING_REST_SERVICE),
            Self::NvmeOf { .. } => (T::MESSAGING, S::MESSAGING_NVME_OF_NAMESPACE),
            Self::HardDrive { .. } => (T::MEDIA, S::MEDIA_HARD_DRIVE),
            Self::CdRom { .. } => (T::MEDIA, S::MEDIA_CD_ROM),
            Self::VendorMedia { .. } => (T::MEDIA, S::MEDIA_VENDOR),
            Self::FilePath(_) => (T::MEDIA, S::MEDIA_FILE_PATH),
            Self::MediaProtocol { .. } => (T::MEDIA, S::MEDIA_PROTOCOL),
            Self::FirmwareFile { .. } => (T::MEDIA, S::MEDIA_PIWG_FIRMWARE_FILE),
            Self::FirmwareVolume { .. } => (T::MEDIA, S::MEDIA_PIWG_FIRMWARE_VOLUME),
            Self::RelativeOffsetRange { .. } => (T::MEDIA, S::MEDIA_RELATIVE_OFFSET_RANGE),
            Self::RamDisk { .. } => (T::MEDIA, S::MEDIA_RAM_DISK),
            Self::BiosBootSpecification { .. } => (T::BIOS_BOOT_SPEC, S::BIOS_BOOT_SPECIFICATION),
            Self::EndInstance => (T::END, S::END_INSTANCE),
            Self::Unknown { device_type, sub_type, .. } => (*device_type, *sub_type),
        }
    }

    fn encode_data(&self, out: &mut Writer<'_>) {
        match self {
            Self::Pci { device, function } => out.u8(*function).u8(*device),
            Self::PcCard { function } => out.u8(*function),
            Self::MemoryMapped { memory_type, start, end } => out.u32(*memory_type).u64(*start).u64(*end),
            Self::Controller { number } => out.u32(*number),
            Self::Bmc { interface_type, base_address } => out.u8(*interface_type).u64(*base_address),
            Self::VendorHardware { guid, data }
            | Self::VendorMessaging { guid, data }
            | Self::VendorMedia { guid, data } => out.guid(*guid).bytes(data),
            Self::Acpi { hid, uid } => out.u32(*hid).u32(*uid),
            Self::AcpiExpanded { hid, uid, cid, hid_str, uid_str, cid_str } => {
                out.u32(*hid).u32(*uid).u32(*cid).c_str(hid_str).c_str(uid_str).c_str(cid_str)
            }
            Self::AcpiAdr { adr } => adr.iter().fold(out, |out, adr| out.u32(*adr)),
            Self::AcpiNvdimm { nfit_device_handle } => out.u32(*nfit_device_handle),
            Self::Atapi { primary_secondary, slave_master, lun } => {
                out.u8(*primary_secondary).u8(*slave_master).u16(*lun)
            }
            Self::Scsi { target, lun } => out.u16(*target).u16(*lun),
            Self::FibreChannel { wwn, lun } => out.u32(0).u64(*wwn).u64(*lun),
            Self::FibreChannelEx { wwn, lun } => out.u32(0).bytes(wwn).bytes(lun),
            Self::Ieee1394 { guid } => out.u32(0).u64(*guid),
            Self::Usb { parent_port, interface } => out.u8(*parent_port).u8(*interface),
            Self::Sata { port, port_multiplier_port, lun } => out.u16(*port).u16(*port_multiplier_port).u16(*lun),
            Self::UsbWwid { interface, vendor, product, serial_number } => {
                out.u16(*interface).u16(*vendor).u16(*product).utf16(serial_number)
            }
            Self::LogicalUnit { lun } => out.u8(*lun),
            Self::UsbClass { vendor, product, class, sub_class, protocol } => {
                out.u16(*vendor).u16(*product).u8(*class).u8(*sub_class).u8(*protocol)
            }
            Self::I2o { tid } => out.u32(*tid),
            Self::Mac { address, if_type } => out.bytes(address).u8(*if_type),
            Self::Ipv4 { local, remote, local_port, remote_port, protocol, static_address, network } => {
                let out = out.bytes(local).bytes(remote).u16(*local_port).u16(*remote_port).u16(*protocol);
                let out = out.u8((*static_address).into());
                match network {
                    Some((gateway, mask)) => out.bytes(gateway).bytes(mask),
                    None => out,
                }
            }
            Self::Ipv6 { local, remote, local_port, remote_port, protocol, origin, network } => {
                let out = out.bytes(local).bytes(remote).u16(*local_port).u16(*remote_port).u16(*protocol);
                let out = out.u8(*origin);
                match network {
                    Some((prefix_length, gateway)) => out.u8(*prefix_length).bytes(gateway),
                    None => out,
                }
            }
            Self::Vlan { id } => out.u16(*id),
            Self::Infiniband { resource_flags, port_gid, service_id, target_port_id, device_id } => {
                out.u32(*resource_flags).bytes(port_gid).u64(*service_id).u64(*target_port_id).u64(*device_id)
            }
            Self::Uart { baud_rate, data_bits, parity, stop_bits } => {
                out.u32(0).u64(*baud_rate).u8(*data_bits).u8(*parity).u8(*stop_bits)
            }
            Self::SasEx { address, lun, topology, relative_target_port } => {
                out.bytes(address).bytes(lun).u16(*topology).u16(*relative_target_port)
            }
            Self::Iscsi { protocol, options, lun, portal_group_tag, target } => {
                out.u16(*protocol).u16(*options).bytes(lun).u16(*portal_group_tag).c_str(target)
            }
            Self::Nvme { namespace, eui64 } => out.u32(*namespace).bytes(eui64),
            Self::Uri { uri } => out.bytes(uri.as_bytes()),
            Self::Ufs { target, lun } => out.u8(*target).u8(*lun),
            Self::Sd { slot } | Self::Emmc { slot } => out.u8(*slot),
            Self::Bluetooth { address } => out.bytes(address),
            Self::Wifi { ssid } => out.bytes(ssid),
            Self::BluetoothLe { address, address_type } => out.bytes(address).u8(*address_type),
            Self::Dns { ipv6, servers } => servers.iter().fold(out.u8((*ipv6).into()), |out, server| out.bytes(server)),
            Self::NvdimmNamespace { uuid } => out.guid(*uuid),
            Self::RestService { service, access_mode, vendor } => {
                let out = out.u8(*service).u8(*access_mode);
                match vendor {
                    Some((guid, data)) => out.guid(*guid).bytes(data),
                    None => out,
                }
            }
            Self::NvmeOf { nid_type, nid, subsystem_nqn } => out.u8(*nid_type).bytes(nid).c_str(subsystem_nqn),
            Self::HardDrive { partition, start, size, format, signature } => {
                let (kind, bytes) = signature.kind_and_bytes();
                out.u32(*partition).u64(*start).u64(*size).bytes(&bytes).u8(format.0).u8(kind)
            }
            Self::CdRom { boot_entry, start, size } => out.u32(*boot_entry).u64(*start).u64(*size),
            Self::FilePath(path) => out.utf16(path).u16(0),
            Self::MediaProtocol { guid } | Self::FirmwareFile { guid } | Self::FirmwareVolume { guid } => {
                out.guid(*guid)
            }
            Self::RelativeOffsetRange { start, end } => out.u32(0).u64(*start).u64(*end),
            Self::RamDisk { start, end, disk_type, instance } => {
                out.u64(*start).u64(*end).guid(*disk_type).u16(*instance)
            }
            Self::BiosBootSpecification { device_type, status, description } => {
                out.u16(*device_type).u16(*status).c_str(description)
            }
            Self::EndInstance => out,
            Self::Unknown { data, .. } => out.bytes(data),
        };
    }
}

fn decode_hardware(sub_type: DeviceSubType, data: &[u8]) -> Option<Node> {
    let mut r = Reader(data);
    let node = match sub_type {
        DeviceSubType::HARDWARE_PCI => {
            let function = r.u8()?;
            Node::Pci { device: r.u8()?, function }
        }
        DeviceSubType::HARDWARE_PCCARD => Node::PcCard { function: r.u8()? },
        DeviceSubType::HARDWARE_MEMORY_MAPPED => {
            Node::MemoryMapped { memory_type: r.u32()?, start: r.u64()?, end: r.u64()? }
        }
        DeviceSubType::HARDWARE_VENDOR => Node::VendorHardware { guid: r.guid()?, data: r.rest() },
        DeviceSubType::HARDWARE_CONTROLLER => Node::Controller { number: r.u32()? },
        DeviceSubType::HARDWARE_BMC => Node::Bmc { interface_type: r.u8()?, base_address: r.u64()? },
        _ => return None,
    };
    r.finish(node)
}

fn decode_acpi(sub_type: DeviceSubType, data: &[u8]) -> Option<Node> {
    let mut r = Reader(data);
    let node = match sub_type {
        DeviceSubType::ACPI => Node::Acpi { hid: r.u32()?, uid: r.u32()? },
        DeviceSubType::ACPI_EXPANDED => Node::AcpiExpanded {
            hid: r.u32()?,
            uid: r.u32()?,
            cid: r.u32()?,
            hid_str: r.c_str()?,
            uid_str: r.c_str()?,
            cid_str: r.c_str()?,
        },
        DeviceSubType::ACPI_ADR => {
            let mut adr = Vec::from([r.u32()?]);
            while !r.is_empty() {
                adr.push(r.u32()?);
            }
            Node::AcpiAdr { adr }
        }
        DeviceSubType::ACPI_NVDIMM => Node::AcpiNvdimm { nfit_device_handle: r.u32()? },
        _ => return None,
    };
    r.finish(node)
}

fn decode_messaging(sub_type: DeviceSubType, data: &[u8]) -> Option<Node> {
    let mut r = Reader(data);
    let node = match sub_type {
        DeviceSubType::MESSAGING_ATAPI => {
            Node::Atapi { primary_secondary: r.u8()?, slave_master: r.u8()?, lun: r.u16()? }
        }
        DeviceSubType::MESSAGING_SCSI => Node::Scsi { target: r.u16()?, lun: r.u16()? },
        DeviceSubType::MESSAGING_FIBRE_CHANNEL => {
            r.reserved()?;
            Node::FibreChannel { wwn: r.u64()?, lun: r.u64()? }
        }
        DeviceSubType::MESSAGING_FIBRE_CHANNEL_EX => {
            r.reserved()?;
            Node::FibreChannelEx { wwn: r.array()?, lun: r.array()? }
        }
        DeviceSubType::MESSAGING_1394 => {
            r.reserved()?;
            Node::Ieee1394 { guid: r.u64()? }
        }
        DeviceSubType::MESSAGING_USB => Node::Usb { parent_port: r.u8()?, interface: r.u8()? },
        DeviceSubType::MESSAGING_SATA => Node::Sata { port: r.u16()?, port_multiplier_port: r.u16()?, lun: r.u16()? },
        DeviceSubType::MESSAGING_USB_WWID => {
            Node::UsbWwid { interface: r.u16()?, vendor: r.u16()?, product: r.u16()?, serial_number: r.utf16()? }
        }
        DeviceSubType::MESSAGING_DEVICE_LOGICAL_UNIT => Node::LogicalUnit { lun: r.u8()? },
        DeviceSubType::MESSAGING_USB_CLASS => Node::UsbClass {
            vendor: r.u16()?,
            product: r.u16()?,
            class: r.u8()?,
            sub_class: r.u8()?,
            protocol: r.u8()?,
        },
        DeviceSubType::MESSAGING_I2O => Node::I2o { tid: r.u32()? },
        DeviceSubType::MESSAGING_MAC_ADDRESS => Node::Mac { address: r.array()?, if_type: r.u8()? },
        DeviceSubType::MESSAGING_IPV4 => Node::Ipv4 {
            local: r.array()?,
            remote: r.array()?,
            local_port: r.u16()?,
            remote_port: r.u16()?,
            protocol: r.u16()?,
            static_address: r.bool()?,
            network: if r.is_empty() { None } else { Some((r.array()?, r.array()?)) },
        },
        DeviceSubType::MESSAGING_IPV6 => Node::Ipv6 {
            local: r.array()?,
            remote: r.array()?,
            local_port: r.u16()?,
            remote_port: r.u16()?,
            protocol: r.u16()?,
            origin: r.u8()?,
            network: if r.is_empty() { None } else { Some((r.u8()?, r.array()?)) },
        },
        DeviceSubType::MESSAGING_VLAN => Node::Vlan { id: r.u16()? },
        DeviceSubType::MESSAGING_INFINIBAND => Node::Infiniband {
            resource_flags: r.u32()?,
            port_gid: r.array()?,
            service_id: r.u64()?,
            target_port_id: r.u64()?,
            device_id: r.u64()?,
        },
        DeviceSubType::MESSAGING_UART => {
            r.reserved()?;
            Node::Uart { baud_rate: r.u64()?, data_bits: r.u8()?, parity: r.u8()?, stop_bits: r.u8()? }
        }
        DeviceSubType::MESSAGING_VENDOR => Node::VendorMessaging { guid: r.guid()?, data: r.rest() },
        DeviceSubType::MESSAGING_SCSI_SAS_EX => {
            Node::SasEx { address: r.array()?, lun: r.array()?, topology: r.u16()?, relative_target_port: r.u16()? }
        }
        DeviceSubType::MESSAGING_ISCSI => Node::Iscsi {
            protocol: r.u16()?,
            options: r.u16()?,
            lun: r.array()?,
            portal_group_tag: r.u16()?,
            target: r.c_str()?,
        },
        DeviceSubType::MESSAGING_NVME_NAMESPACE => Node::Nvme { namespace: r.u32()?, eui64: r.array()? },
        DeviceSubType::MESSAGING_URI => Node::Uri { uri: r.text()? },
        DeviceSubType::MESSAGING_UFS => Node::Ufs { target: r.u8()?, lun: r.u8()? },
        DeviceSubType::MESSAGING_SD => Node::Sd { slot: r.u8()? },
        DeviceSubType::MESSAGING_BLUETOOTH => Node::Bluetooth { address: r.array()? },
        DeviceSubType::MESSAGING_WIFI => Node::Wifi { ssid: r.array()? },
        DeviceSubType::MESSAGING_EMMC => Node::Emmc { slot: r.u8()? },
        DeviceSubType::MESSAGING_BLUETOOTH_LE => Node::BluetoothLe { address: r.array()?, address_type: r.u8()? },
        DeviceSubType::MESSAGING_DNS => {
            let ipv6 = r.bool()?;
            let mut servers = Vec::new();
            while !r.is_empty() {
                servers.push(r.array()?);
            }
            Node::Dns { ipv6, servers }
        }
        DeviceSubType::MESSAGING_NVDIMM_NAMESPACE => Node::NvdimmNamespace { uuid: r.guid()? },
        DeviceSubType::MESSAGING_REST_SERVICE => {
            let (service, access_mode) = (r.u8()?, r.u8()?);
            let vendor = if service == Node::REST_VENDOR { Some((r.guid()?, r.rest())) } else { None };
            Node::RestService { service, access_mode, vendor }
        }
        DeviceSubType::MESSAGING_NVME_OF_NAMESPACE => {
            Node::NvmeOf { nid_type: r.u8()?, nid: r.array()?, subsystem_nqn: r.c_str()? }
        }
        _ => return None,
    };
    r.finish(node)
}

fn decode_media(sub_type: DeviceSubType, data: &[u8]) -> Option<Node> {
    let mut r = Reader(data);
    let node = match sub_type {
        DeviceSubType::MEDIA_HARD_DRIVE => {
            let (partition, start, size) = (r.u32()?, r.u64()?, r.u64()?);
            let signature = r.array()?;
            let format = PartitionFormat(r.u8()?);
            Node::HardDrive { partition, start, size, format, signature: Signature::new(r.u8()?, signature) }
        }
        DeviceSubType::MEDIA_CD_ROM => Node::CdRom { boot_entry: r.u32()?, start: r.u64()?, size: r.u64()? },
        DeviceSubType::MEDIA_VENDOR => Node::VendorMedia { guid: r.guid()?, data: r.rest() },
        DeviceSubType::MEDIA_FILE_PATH => Node::FilePath(r.utf16_until_nul()?),
        DeviceSubType::MEDIA_PROTOCOL => Node::MediaProtocol { guid: r.guid()? },
        DeviceSubType::MEDIA_PIWG_FIRMWARE_FILE => Node::FirmwareFile { guid: r.guid()? },
        DeviceSubType::MEDIA_PIWG_FIRMWARE_VOLUME => Node::FirmwareVolume { guid: r.guid()? },
        DeviceSubType::MEDIA_RELATIVE_OFFSET_RANGE => {
            r.reserved()?;
            Node::RelativeOffsetRange { start: r.u64()?, end: r.u64()? }
        }
        DeviceSubType::MEDIA_RAM_DISK => {
            Node::RamDisk { start: r.u64()?, end: r.u64()?, disk_type: r.guid()?, instance: r.u16()? }
        }
        _ => return None,
    };
    r.finish(node)
}

fn decode_bbs(sub_type: DeviceSubType, data: &[u8]) -> Option<Node> {
    let mut r = Reader(data);
    let node = match sub_type {
        DeviceSubType::BIOS_BOOT_SPECIFICATION => {
            Node::BiosBootSpecification { device_type: r.u16()?, status: r.u16()?, description: r.c_str()? }
        }
        _ => return None,
    };
    r.finish(node)
}

/// Little-endian fields off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn guid(&mut self) -> Option<Guid> {
        self.array().map(Guid::from_bytes)
    }

    fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// The reserved 32 bits some nodes have.
    fn reserved(&mut self) -> Option<()> {
        self.u32().map(|_| ())
    }

    fn rest(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.0).to_vec()
    }

    /// All that is left, as text.
    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.rest()).ok()
    }

    /// Text up to a NUL, which is taken too, or up to the end.
    fn c_str(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        core::str::from_utf8(text).ok().map(String::from)
    }

    /// All that is left, as UTF-16 without a terminator.
    fn utf16(&mut self) -> Option<String> {
        let (units, odd) = self.0.as_chunks();
        self.0 = odd;
        char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit))).collect::<Result<_, _>>().ok()
    }

    /// UTF-16 up to a NUL or up to the end; all that is left is taken.
    fn utf16_until_nul(&mut self) -> Option<String> {
        let (units, odd) = self.0.as_chunks();
        self.0 = odd;
        let units = units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
        char::decode_utf16(units).collect::<Result<_, _>>().ok()
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `node`, if nothing is left.
    fn finish(&self, node: Node) -> Option<Node> {
        self.is_empty().then_some(node)
    }
}

/// Little-endian fields onto the end of a vector.
struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn guid(&mut self, guid: Guid) -> &mut Self {
        self.bytes(&guid.to_bytes())
    }

    fn c_str(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes()).u8(0)
    }

    fn utf16(&mut self, text: &str) -> &mut Self {
        text.encode_utf16().fold(self, |out, unit| out.u16(unit))
    }
}
