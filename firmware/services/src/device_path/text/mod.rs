//! Text forms of device paths (UEFI 2.10 §10.6).
//!
//! Nodes are joined by `/`, instances by `,`. [`to`] writes, [`from`] reads. The full form of a node always reads back
//! as the same node (the ports of IP nodes aside, for which the specification has no text): where the specific form
//! would not, for instance a file name with a comma in it, the generic `Path(type,subtype,data)` form is written.

mod from;
mod to;

#[cfg(test)]
mod tests;

/// How a path is written (UEFI 2.10 §10.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TextOptions {
    /// Shorter text that cannot be read back.
    pub display_only: bool,
    /// Forms that name a well-known vendor node, as `VenUtf8()`.
    pub allow_shortcuts: bool,
}

impl TextOptions {
    /// The whole path, in a form for people.
    pub const FULL: Self = Self { display_only: false, allow_shortcuts: true };
    /// What is enough to know a device again.
    pub const DISPLAY: Self = Self { display_only: true, allow_shortcuts: true };
}

/// Vendor nodes that have text forms of their own (UEFI 2.10 §10.3.4.17 and following).
pub(super) mod vendor {
    use uefi_raw::{Guid, guid};

    pub const PC_ANSI: Guid = guid!("e0c14753-f9be-11d2-9a0c-0090273fc14d");
    pub const VT_100: Guid = guid!("dfa66065-b419-11d3-9a2d-0090273fc14d");
    pub const VT_100_PLUS: Guid = guid!("7baec70b-57e0-4c76-8e87-2f9e28088343");
    pub const VT_UTF8: Guid = guid!("ad15a0d6-8bec-4acf-a073-d01de77e2d88");
    pub const UART_FLOW_CONTROL: Guid = guid!("37499a9d-542f-4c89-a026-35da142094e4");
    pub const SAS: Guid = guid!("d487ddb4-008b-11d9-afdc-001083ffca4d");
    pub const DEBUG_PORT: Guid = guid!("eba4e8d2-3858-41ec-a281-2647ba9660d0");
}

/// `_HID` and `_CID` values with text forms of their own: names and product numbers of `PNP` IDs.
const ACPI_NAMES: [(&str, u16); 6] = [
    ("PciRoot", 0x0A03),
    ("PcieRoot", 0x0A08),
    ("Floppy", 0x0604),
    ("Keyboard", 0x0301),
    ("Serial", 0x0501),
    ("ParallelPort", 0x0401),
];

/// USB device classes with text forms of their own.
const USB_CLASS_NAMES: [(&str, u8); 12] = [
    ("UsbAudio", 1),
    ("UsbCDCControl", 2),
    ("UsbHID", 3),
    ("UsbImage", 6),
    ("UsbPrinter", 7),
    ("UsbMassStorage", 8),
    ("UsbHub", 9),
    ("UsbCDCData", 10),
    ("UsbSmartCard", 11),
    ("UsbVideo", 14),
    ("UsbDiagnostic", 220),
    ("UsbWireless", 224),
];

/// Class of the devices that [`USB_APPLICATION_NAMES`] tells apart.
const USB_CLASS_APPLICATION: u8 = 254;

/// Sub-classes of [`USB_CLASS_APPLICATION`] with text forms of their own.
const USB_APPLICATION_NAMES: [(&str, u8); 3] =
    [("UsbDeviceFirmwareUpdate", 1), ("UsbIrdaBridge", 2), ("UsbTestAndMeasurement", 3)];

/// Device types of BIOS boot specification nodes.
const BBS_TYPES: [(&str, u16); 6] = [("Floppy", 1), ("HD", 2), ("CDROM", 3), ("PCMCIA", 4), ("USB", 5), ("Network", 6)];

/// RAM disk types.
const RAM_DISK_NAMES: [(&str, uefi_raw::protocol::device_path::media::RamDiskType); 4] = {
    use uefi_raw::protocol::device_path::media::RamDiskType as Type;
    [
        ("VirtualDisk", Type::VIRTUAL_DISK),
        ("VirtualCD", Type::VIRTUAL_CD),
        ("PersistentVirtualDisk", Type::PERSISTENT_VIRTUAL_DISK),
        ("PersistentVirtualCD", Type::PERSISTENT_VIRTUAL_CD),
    ]
};

/// The generic forms that name the type of a node.
const TYPE_NAMES: [(&str, uefi_raw::protocol::device_path::DeviceType); 5] = {
    use uefi_raw::protocol::device_path::DeviceType as Type;
    [
        ("HardwarePath", Type::HARDWARE),
        ("AcpiPath", Type::ACPI),
        ("Msg", Type::MESSAGING),
        ("MediaPath", Type::MEDIA),
        ("BbsPath", Type::BIOS_BOOT_SPEC),
    ]
};

/// The low half of every `PNP` EISA ID.
const PNP: u32 = 0x41D0;

/// Protocol numbers of IP nodes (RFC 1700).
const PROTOCOLS: [(&str, u16); 2] = [("TCP", 6), ("UDP", 17)];

/// Fields of the topology word of SAS nodes (UEFI 2.10 §10.3.4.18).
mod sas {
    pub const MORE_MASK: u16 = 0x000F;
    pub const NO_TOPOLOGY: u16 = 0;
    pub const ONE_BYTE: u16 = 1;
    pub const TWO_BYTES: u16 = 2;
    pub const SATA: u16 = 1 << 4;
    pub const EXTERNAL: u16 = 1 << 5;
    pub const EXPANDED: u16 = 1 << 6;
    pub const RESERVED: u16 = 1 << 7;
    pub const BAY_SHIFT: u32 = 8;
}

/// Login options of iSCSI nodes (UEFI 2.10 §10.3.4.20.1).
mod iscsi {
    pub const HEADER_CRC32C: u16 = 1 << 1;
    pub const DATA_CRC32C: u16 = 1 << 3;
    pub const NO_AUTHENTICATION: u16 = 1 << 11;
    pub const CHAP_UNI: u16 = 1 << 12;
}
