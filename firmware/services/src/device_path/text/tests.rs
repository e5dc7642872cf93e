use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use uefi_raw::{Guid, guid};

use super::super::*;
use super::vendor;

const GUID: Guid = guid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
const DISPLAY: TextOptions = TextOptions::DISPLAY;
const PLAIN: TextOptions = TextOptions { display_only: false, allow_shortcuts: false };

/// Nodes and their full form, as UEFI 2.10 §10.6.1.6 has it.
fn table() -> Vec<(Node, &'static str)> {
    let text = String::from;
    vec![
        (Node::Pci { device: 0x1F, function: 1 }, "Pci(0x1f,0x1)"),
        (Node::PcCard { function: 3 }, "PcCard(0x3)"),
        (
            Node::MemoryMapped { memory_type: 11, start: 0xFED0_0000, end: 0x1_FED0_0FFF },
            "MemoryMapped(0xb,0xfed00000,0x1fed00fff)",
        ),
        (Node::VendorHardware { guid: GUID, data: vec![] }, "VenHw(C12A7328-F81F-11D2-BA4B-00A0C93EC93B)"),
        (Node::VendorHardware { guid: GUID, data: vec![1, 0xAB] }, "VenHw(C12A7328-F81F-11D2-BA4B-00A0C93EC93B,01ab)"),
        (Node::Controller { number: 1 }, "Ctrl(0x1)"),
        (Node::Bmc { interface_type: 1, base_address: 0xCA2 }, "BMC(0x1,0xca2)"),
        (Node::Acpi { hid: 0x0A03_41D0, uid: 0 }, "PciRoot(0x0)"),
        (Node::Acpi { hid: 0x0A08_41D0, uid: 1 }, "PcieRoot(0x1)"),
        (Node::Acpi { hid: 0x0604_41D0, uid: 0 }, "Floppy(0x0)"),
        (Node::Acpi { hid: 0x0301_41D0, uid: 0 }, "Keyboard(0x0)"),
        (Node::Acpi { hid: 0x0501_41D0, uid: 2 }, "Serial(0x2)"),
        (Node::Acpi { hid: 0x0401_41D0, uid: 0 }, "ParallelPort(0x0)"),
        (Node::Acpi { hid: 0x0C0F_41D0, uid: 0x12 }, "Acpi(PNP0C0F,0x12)"),
        (Node::Acpi { hid: 0x0A03_0000, uid: 0x12 }, "Acpi(0x0a030000,0x12)"),
        (
            Node::AcpiExpanded {
                hid: 0x0A08_41D0,
                uid: 0,
                cid: 0x0A03_41D0,
                hid_str: text(""),
                uid_str: text("PCI0"),
                cid_str: text(""),
            },
            "AcpiExp(PNP0A08,PNP0A03,PCI0)",
        ),
        (
            Node::AcpiExpanded {
                hid: 0,
                uid: 3,
                cid: 0,
                hid_str: text("ACPI0004"),
                uid_str: text("U"),
                cid_str: text("C"),
            },
            "AcpiEx(0,0,0x3,ACPI0004,C,U)",
        ),
        (Node::AcpiAdr { adr: vec![0x8001_0100, 2] }, "AcpiAdr(0x80010100,0x2)"),
        (Node::AcpiNvdimm { nfit_device_handle: 0x10 }, "AcpiPath(4,10000000)"),
        (Node::Atapi { primary_secondary: 1, slave_master: 0, lun: 0 }, "Ata(Secondary,Master,0x0)"),
        (Node::Scsi { target: 2, lun: 1 }, "Scsi(0x2,0x1)"),
        (Node::FibreChannel { wwn: 0x1234, lun: 5 }, "Fibre(0x1234,0x5)"),
        (
            Node::FibreChannelEx { wwn: [1, 2, 3, 4, 5, 6, 7, 8], lun: [0, 0, 0, 0, 0, 0, 0, 9] },
            "FibreEx(0x0102030405060708,0x0000000000000009)",
        ),
        (Node::Ieee1394 { guid: 0xABCD }, "I1394(000000000000abcd)"),
        (Node::Usb { parent_port: 2, interface: 0 }, "USB(0x2,0x0)"),
        (Node::Sata { port: 1, port_multiplier_port: 0xFFFF, lun: 0 }, "Sata(0x1,0xffff,0x0)"),
        (
            Node::UsbWwid { interface: 1, vendor: 0x46D, product: 0xC52B, serial_number: text("SN, (1)") },
            "UsbWwid(0x46d,0xc52b,0x1,\"SN, (1)\")",
        ),
        (Node::LogicalUnit { lun: 7 }, "Unit(0x7)"),
        (
            Node::UsbClass { vendor: 0xFFFF, product: 0xFFFF, class: 8, sub_class: 6, protocol: 0x50 },
            "UsbMassStorage(0xffff,0xffff,0x6,0x50)",
        ),
        (Node::UsbClass { vendor: 1, product: 2, class: 254, sub_class: 2, protocol: 3 }, "UsbIrdaBridge(0x1,0x2,0x3)"),
        (
            Node::UsbClass { vendor: 1, product: 2, class: 0x77, sub_class: 2, protocol: 3 },
            "UsbClass(0x1,0x2,0x77,0x2,0x3)",
        ),
        (Node::I2o { tid: 0x20 }, "I2O(0x20)"),
        (mac([0x00, 0x16, 0x3E, 0x01, 0x02, 0x03]), "MAC(00163e010203,0x1)"),
        (
            Node::Ipv4 {
                local: [192, 168, 0, 2],
                remote: [10, 0, 0, 1],
                local_port: 0,
                remote_port: 0,
                protocol: 6,
                static_address: true,
                network: Some(([192, 168, 0, 1], [255, 255, 255, 0])),
            },
            "IPv4(10.0.0.1,TCP,Static,192.168.0.2,192.168.0.1,255.255.255.0)",
        ),
        (
            Node::Ipv6 {
                local: [0; 16],
                remote: [0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                local_port: 0,
                remote_port: 0,
                protocol: 17,
                origin: 1,
                network: Some((64, [0; 16])),
            },
            "IPv6(fe80:0000:0000:0000:0000:0000:0000:0001,UDP,StatelessAutoConfigure,\
             0000:0000:0000:0000:0000:0000:0000:0000,0x40,0000:0000:0000:0000:0000:0000:0000:0000)",
        ),
        (Node::Vlan { id: 100 }, "Vlan(100)"),
        (
            Node::Infiniband {
                resource_flags: 1,
                port_gid: GUID.to_bytes(),
                service_id: 2,
                target_port_id: 3,
                device_id: 4,
            },
            "Infiniband(0x1,C12A7328-F81F-11D2-BA4B-00A0C93EC93B,0x2,0x3,0x4)",
        ),
        (Node::Uart { baud_rate: 115_200, data_bits: 8, parity: 1, stop_bits: 1 }, "Uart(115200,8,N,1)"),
        (Node::Uart { baud_rate: 0, data_bits: 0, parity: 0, stop_bits: 2 }, "Uart(DEFAULT,DEFAULT,D,1.5)"),
        (vendor_messaging(vendor::PC_ANSI, &[]), "VenPcAnsi()"),
        (vendor_messaging(vendor::VT_100, &[]), "VenVt100()"),
        (vendor_messaging(vendor::VT_100_PLUS, &[]), "VenVt100Plus()"),
        (vendor_messaging(vendor::VT_UTF8, &[]), "VenUtf8()"),
        (vendor_messaging(vendor::DEBUG_PORT, &[]), "DebugPort()"),
        (vendor_messaging(vendor::UART_FLOW_CONTROL, &[1, 0, 0, 0]), "UartFlowCtrl(Hardware)"),
        (
            vendor_messaging(
                vendor::SAS,
                &[0, 0, 0, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x32, 4, 7, 0],
            ),
            "SAS(0x1234,0x1,0x7,SATA,External,Direct,0x5,0x0)",
        ),
        (vendor_messaging(GUID, &[0xFF]), "VenMsg(C12A7328-F81F-11D2-BA4B-00A0C93EC93B,ff)"),
        (
            Node::SasEx { address: [1, 2, 3, 4, 5, 6, 7, 8], lun: [0; 8], topology: 0, relative_target_port: 1 },
            "SasEx(0x0102030405060708,0x0000000000000000,0x1,NoTopology,0,0,0)",
        ),
        (
            Node::Iscsi {
                protocol: 0,
                options: 0x1002,
                lun: [0, 1, 0, 0, 0, 0, 0, 0],
                portal_group_tag: 1,
                target: text("iqn.2005-03.org.example:disk"),
            },
            "iSCSI(iqn.2005-03.org.example:disk,0x1,0x0001000000000000,CRC32C,None,CHAP_UNI,TCP)",
        ),
        (Node::Nvme { namespace: 1, eui64: [8, 7, 6, 5, 4, 3, 2, 0xA1] }, "NVMe(0x1,A1-02-03-04-05-06-07-08)"),
        (Node::Uri { uri: text("http://example.org/a,b(1)") }, "Uri(http://example.org/a,b(1))"),
        (Node::Uri { uri: text("") }, "Uri()"),
        (Node::Ufs { target: 0, lun: 2 }, "UFS(0x0,0x2)"),
        (Node::Sd { slot: 1 }, "SD(0x1)"),
        (Node::Emmc { slot: 1 }, "eMMC(0x1)"),
        (Node::Bluetooth { address: [1, 2, 3, 4, 5, 6] }, "Bluetooth(010203040506)"),
        (Node::BluetoothLe { address: [1, 2, 3, 4, 5, 6], address_type: 1 }, "BluetoothLE(010203040506,0x01)"),
        (wifi("guest net"), "Wi-Fi(guest net)"),
        (
            Node::Dns { ipv6: false, servers: vec![[9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0; 16]] },
            "Dns(9.9.9.9,0.0.0.0)",
        ),
        (Node::NvdimmNamespace { uuid: GUID }, "Msg(32,28732ac11ff8d211ba4b00a0c93ec93b)"),
        (Node::RestService { service: 1, access_mode: 2, vendor: None }, "Msg(33,0102)"),
        (
            Node::HardDrive {
                partition: 1,
                start: 0x800,
                size: 0x100000,
                format: PartitionFormat::GPT,
                signature: Signature::Guid(GUID),
            },
            "HD(1,GPT,C12A7328-F81F-11D2-BA4B-00A0C93EC93B,0x800,0x100000)",
        ),
        (
            Node::HardDrive {
                partition: 2,
                start: 0x3F,
                size: 0x1000,
                format: PartitionFormat::MBR,
                signature: Signature::Mbr(0xABCDEF),
            },
            "HD(2,MBR,0x00abcdef,0x3f,0x1000)",
        ),
        (Node::CdRom { boot_entry: 0, start: 0x14, size: 0x5A0 }, "CDROM(0x0,0x14,0x5a0)"),
        (Node::VendorMedia { guid: GUID, data: vec![0x10] }, "VenMedia(C12A7328-F81F-11D2-BA4B-00A0C93EC93B,10)"),
        (Node::FilePath(text("\\EFI\\BOOT\\BOOTX64.EFI")), "\\EFI\\BOOT\\BOOTX64.EFI"),
        (Node::FilePath(text("\\Program Files (x86)\\a.efi")), "\\Program Files (x86)\\a.efi"),
        (Node::FilePath(text("\\a,b")), "MediaPath(4,5c0061002c0062000000)"),
        (Node::MediaProtocol { guid: GUID }, "Media(C12A7328-F81F-11D2-BA4B-00A0C93EC93B)"),
        (Node::FirmwareFile { guid: GUID }, "FvFile(C12A7328-F81F-11D2-BA4B-00A0C93EC93B)"),
        (Node::FirmwareVolume { guid: GUID }, "Fv(C12A7328-F81F-11D2-BA4B-00A0C93EC93B)"),
        (Node::RelativeOffsetRange { start: 0x100, end: 0x1FF }, "Offset(0x100,0x1ff)"),
        (
            Node::RamDisk {
                start: 0x1000,
                end: 0x1FFF,
                disk_type: guid!("77ab535a-45fc-624b-5560-f7b281d1f96e"),
                instance: 2,
            },
            "VirtualDisk(0x1000,0x1fff,2)",
        ),
        (
            Node::RamDisk { start: 0, end: 1, disk_type: GUID, instance: 0 },
            "RamDisk(0x0,0x1,0,C12A7328-F81F-11D2-BA4B-00A0C93EC93B)",
        ),
        (Node::BiosBootSpecification { device_type: 2, status: 3, description: text("disk") }, "BBS(HD,disk,0x3)"),
        (
            Node::Unknown { device_type: DeviceType(0x42), sub_type: DeviceSubType(9), data: vec![0xDE, 0xAD] },
            "Path(66,9,dead)",
        ),
        (Node::Unknown { device_type: DeviceType::MESSAGING, sub_type: DeviceSubType(99), data: vec![] }, "Msg(99)"),
    ]
}

fn mac(bytes: [u8; 6]) -> Node {
    let mut address = [0; 32];
    address[..6].copy_from_slice(&bytes);
    Node::Mac { address, if_type: 1 }
}

fn wifi(name: &str) -> Node {
    let mut ssid = [0; 32];
    ssid[..name.len()].copy_from_slice(name.as_bytes());
    Node::Wifi { ssid }
}

fn vendor_messaging(guid: Guid, data: &[u8]) -> Node {
    Node::VendorMessaging { guid, data: data.to_vec() }
}

fn parse(text: &str) -> Result<Vec<Node>, DevicePathError> {
    DevicePathBuf::parse_text(text).map(|path| path.nodes().collect())
}

#[test]
fn full_text_is_that_of_the_specification() {
    for (node, text) in table() {
        assert_eq!(node.to_text(TextOptions::FULL), text);
    }
}

#[test]
fn full_text_reads_back() {
    for (node, text) in table() {
        assert_eq!(Node::parse_text(text), Ok(node), "{text}");
    }
}

#[test]
fn text_without_shortcuts_reads_back() {
    for (node, _) in table() {
        let text = node.to_text(PLAIN);
        assert_eq!(Node::parse_text(&text), Ok(node), "{text}");
    }
}

#[test]
fn encoded_node_decodes_to_itself() {
    for (node, text) in table() {
        let bytes = node.to_bytes().unwrap();
        assert_eq!(RawNode::first(&bytes).unwrap().decode(), node, "{text}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn no_shortened_node_panics_or_overruns() {
    for (node, _) in table() {
        let mut bytes = node.to_bytes().unwrap();
        for length in (HEADER_LENGTH..bytes.len()).rev() {
            bytes.truncate(length);
            bytes[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_le_bytes());
            let node = RawNode::first(&bytes).unwrap().decode();
            let text = node.to_text(PLAIN);
            let read = Node::parse_text(&text).unwrap();
            assert_eq!(read.types(), node.types());
        }
    }
}

#[test]
fn vendor_shortcuts_are_only_used_where_allowed() {
    let node = vendor_messaging(vendor::VT_UTF8, &[]);
    assert_eq!(node.to_text(PLAIN), "VenMsg(AD15A0D6-8BEC-4ACF-A073-D01DE77E2D88)");
}

#[test]
fn display_only_text_is_shorter() {
    let text = |text| Node::parse_text(text).unwrap().to_text(DISPLAY);
    assert_eq!(text("HD(2,MBR,0x00abcdef,0x3f,0x1000)"), "HD(2,MBR,0x00abcdef)");
    assert_eq!(text("CDROM(0x0,0x14,0x5a0)"), "CDROM(0x0)");
    assert_eq!(text("Ata(Secondary,Master,0x1)"), "Ata(0x1)");
    assert_eq!(text("IPv4(10.0.0.1,TCP,Static,192.168.0.2)"), "IPv4(10.0.0.1)");
    assert_eq!(text("BBS(HD,disk,0x3)"), "BBS(HD,disk)");
    assert_eq!(text("AcpiExp(PNP0A08,PNP0A03,PCI0)"), "PciRoot(PCI0)");
    assert_eq!(text("MediaPath(4,5c0061002c0062000000)"), "\\a,b");
}

#[test]
fn ports_of_ip_nodes_have_no_text() {
    let mut node = Node::parse_text("IPv4(10.0.0.1,TCP,Static,192.168.0.2)").unwrap();
    if let Node::Ipv4 { remote_port, .. } = &mut node {
        *remote_port = 3260;
    }
    assert_eq!(node.to_text(TextOptions::FULL), "IPv4(10.0.0.1,TCP,Static,192.168.0.2)");
}

#[test]
fn paths_read_back_with_separators_and_instances() {
    for text in [
        "",
        "PciRoot(0x0)/Pci(0x1,0x1)/Ata(Primary,Master,0x0)/HD(2,MBR,0x00abcdef,0x3f,0x1000)/\\EFI\\x.efi",
        "VenHw(C12A7328-F81F-11D2-BA4B-00A0C93EC93B)/VenUtf8(),PciRoot(0x0)/Serial(0x0)",
        "Uri(http://a/b)/\\x",
    ] {
        assert_eq!(DevicePathBuf::parse_text(text).unwrap().to_text(), text);
    }
}

#[test]
fn leading_separator_and_missing_optional_arguments_are_accepted() {
    assert_eq!(
        parse("/PciRoot()/HD(1,MBR,0x1)/\\f").unwrap(),
        [
            Node::Acpi { hid: 0x0A03_41D0, uid: 0 },
            Node::HardDrive {
                partition: 1,
                start: 0,
                size: 0,
                format: PartitionFormat::MBR,
                signature: Signature::Mbr(1)
            },
            Node::FilePath("\\f".into()),
        ]
    );
}

#[test]
fn numbers_are_decimal_or_hexadecimal() {
    assert_eq!(parse("Pci(31,0x1F)").unwrap(), [Node::Pci { device: 31, function: 31 }]);
}

#[test]
fn unknown_name_is_a_file_path() {
    assert_eq!(parse("Nonsense(1)").unwrap(), [Node::FilePath("Nonsense(1)".into())]);
}

#[test]
fn malformed_text_is_refused_with_its_place() {
    for (text, at) in [
        ("Pci(0x1", 0),
        ("Pci(0x1,0x1", 0),
        ("Pci(0x1,0x1)x", 0),
        ("Pci(0x1)", 0),
        ("Pci(0x1,0x100)", 0),
        ("Pci(0x1,+1)", 0),
        ("Pci(0x1,0x1,0x1)", 0),
        ("PciRoot(0x0)/Pci(zz,0x1)", 13),
        ("VenHw(nonsense)", 0),
        ("VenHw(C12A7328-F81F-11D2-BA4B-00A0C93EC93B,abc)", 0),
        ("Path(127,255)", 0),
        ("NVMe(0x1,01-02)", 0),
        ("MAC(0011223344556677889900112233445566778899001122334455667788990011ff,0x1)", 0),
        ("HD(1,7,0)", 0),
        ("IPv4(10.0.0.256)", 0),
    ] {
        assert_eq!(parse(text), Err(DevicePathError::Text { at }), "{text}");
    }
}
