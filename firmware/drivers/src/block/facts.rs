//! What a backend says about a disk, checked (`public/io/blkif.h`, "Backend XenBus Nodes").

use alloc::vec::Vec;

use arrayvec::ArrayString;
use services::block::Geometry;
use xen_abi::{VDISK_CDROM, VDISK_READONLY, VDISK_REMOVABLE};

use crate::diagnostics::{Reason, excerpt};
use crate::xenstore::parse_decimal;

/// Bytes of a sector on the wire and in `sectors`, whatever the disk's own block size.
pub const SECTOR: u64 = 512;
/// Largest logical block that is supported: a page.
const BLOCK_MAX: u64 = 4096;
/// Largest physical sector that is believed.
const PHYSICAL_MAX: u64 = 1 << 20;
/// More sectors than this cannot be: the size in bytes would not fit in 63 bits.
const SECTORS_MAX: u64 = (i64::MAX as u64) / SECTOR;
/// More segments than this are not used in one request.
const SEGMENTS_MAX: u64 = 256;

/// The backend's keys that are read once it is connected, in the order that [`Facts::parse`] takes their values.
pub const KEYS: [&str; 10] = [
    "sectors",
    "sector-size",
    "physical-sector-size",
    "info",
    "mode",
    "removable",
    "feature-flush-cache",
    "feature-barrier",
    "feature-persistent",
    "feature-max-indirect-segments",
];

/// How writes are made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// They are when they complete.
    None,
    /// `BLKIF_OP_FLUSH_DISKCACHE`.
    Cache,
    /// `BLKIF_OP_WRITE_BARRIER`.
    Barrier,
}

/// What a backend says about a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Size, blocks, access.
    pub geometry: Geometry,
    /// A CD-ROM drive.
    pub cdrom: bool,
    /// How to flush.
    pub flush: Flush,
    /// Whether the backend can keep grants mapped.
    pub persistent: bool,
    /// Most segments of an indirect request; 0 without such requests.
    pub indirect_segments: usize,
}

impl Facts {
    /// Checks the values of the keys in `KEYS`, in that order; what is not there is `None`. `device_type` is from the frontend's directory.
    pub fn parse(values: &[Option<Vec<u8>>], device_type: &str) -> Result<Self, Reason> {
        let text = |key: &str| {
            let index = KEYS.iter().position(|other| *other == key)?;
            values.get(index)?.as_deref()
        };
        let flag = |key| text(key).and_then(parse_decimal).is_some_and(|number| number != 0);
        let sectors = number("sectors", text("sectors"))?.ok_or(Reason::Missing("sectors"))?;
        let info = number("info", text("info"))?.unwrap_or(0);
        let block_size = number("sector-size", text("sector-size"))?.unwrap_or(SECTOR);
        if !block_size.is_power_of_two() || !(SECTOR..=BLOCK_MAX).contains(&block_size) {
            return Err(nonsense("sector-size", text("sector-size")));
        }
        let cdrom = info & u64::from(VDISK_CDROM) != 0 || device_type == "cdrom";
        if sectors == 0 && cdrom {
            return Err(Reason::NoMedium);
        }
        if sectors > SECTORS_MAX || sectors * SECTOR < block_size {
            return Err(nonsense("sectors", text("sectors")));
        }
        let physical = number("physical-sector-size", text("physical-sector-size"))?.unwrap_or(block_size);
        // It only steers performance, so nonsense is as good as nothing.
        let believable = physical.is_power_of_two() && (block_size..=PHYSICAL_MAX).contains(&physical);
        let flush = if flag("feature-flush-cache") {
            Flush::Cache
        } else if flag("feature-barrier") {
            Flush::Barrier
        } else {
            Flush::None
        };
        let indirect = number("feature-max-indirect-segments", text("feature-max-indirect-segments"))?.unwrap_or(0);
        Ok(Self {
            geometry: Geometry {
                block_size: block_size as u32,
                blocks: sectors * SECTOR / block_size,
                // "w", or "w!" where the toolstack was told to share it.
                read_only: info & u64::from(VDISK_READONLY) != 0
                    || text("mode").is_some_and(|mode| !mode.starts_with(b"w")),
                removable: info & u64::from(VDISK_REMOVABLE) != 0 || flag("removable") || cdrom,
                io_align: 1,
                blocks_per_physical: if believable { (physical / block_size) as u32 } else { 1 },
            },
            cdrom,
            flush,
            persistent: flag("feature-persistent"),
            indirect_segments: indirect.min(SEGMENTS_MAX) as usize,
        })
    }
}

/// Whether `params` in the backend's directory says that a drive is empty: nothing, or nothing after a `driver:` prefix.
pub fn is_empty_medium(params: &[u8]) -> bool {
    params.rsplit(|&byte| byte == b':').next().is_none_or(<[u8]>::is_empty)
}

/// The name of a virtual device number (`docs/man/xen-vbd-interface`): `xvda`, `sdb1`, `hdc`; `vbd` for others.
pub fn device_name(number: u32) -> ArrayString<16> {
    const EXTENDED: u32 = 1 << 28;
    let (prefix, disk, partition) = if number & EXTENDED != 0 {
        ("xvd", (number & (EXTENDED - 1)) >> 8, number & 0xFF)
    } else {
        match number >> 8 {
            202 => ("xvd", (number & 0xFF) >> 4, number & 0xF),
            8 => ("sd", (number & 0xFF) >> 4, number & 0xF),
            3 => ("hd", (number & 0xFF) >> 6, number & 0x3F),
            22 => ("hd", 2 + ((number & 0xFF) >> 6), number & 0x3F),
            _ => ("vbd", 0, 0),
        }
    };
    let mut name = ArrayString::new();
    // Three letters of prefix, five of disk and three digits fit.
    let _ = name.try_push_str(prefix);
    if prefix != "vbd" {
        push_letters(&mut name, disk);
        if partition != 0 {
            let _ = core::fmt::Write::write_fmt(&mut name, format_args!("{partition}"));
        }
    }
    name
}

/// a to z, aa to zz, aaa and so on.
fn push_letters(name: &mut ArrayString<16>, disk: u32) {
    if disk >= 26 {
        push_letters(name, disk / 26 - 1);
    }
    let _ = name.try_push(char::from(b'a' + (disk % 26) as u8));
}

fn number(key: &'static str, text: Option<&[u8]>) -> Result<Option<u64>, Reason> {
    text.map(|value| parse_decimal(value).ok_or_else(|| nonsense(key, Some(value)))).transpose()
}

fn nonsense(key: &'static str, text: Option<&[u8]>) -> Reason {
    Reason::Value(key, excerpt(text.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux's backend says of a small disk, changed at some keys.
    fn parse(changes: &[(&str, &str)]) -> Result<Facts, Reason> {
        let usual = [("sectors", "2048"), ("sector-size", "512"), ("info", "0"), ("mode", "w")];
        let value = |key: &str| {
            let found = changes.iter().chain(&usual).find(|(name, _)| *name == key)?;
            (!found.1.is_empty()).then(|| found.1.as_bytes().to_vec())
        };
        Facts::parse(&KEYS.map(value), "disk")
    }

    #[test]
    fn sectors_are_512_bytes_whatever_the_block_size() {
        assert_eq!(parse(&[]).unwrap().geometry.blocks, 2048);
        let large = parse(&[("sector-size", "4096")]).unwrap().geometry;
        assert_eq!((large.block_size, large.blocks), (4096, 256));
    }

    #[test]
    fn a_disk_is_read_only_when_anything_says_so() {
        assert!(!parse(&[]).unwrap().geometry.read_only);
        assert!(parse(&[("mode", "r")]).unwrap().geometry.read_only);
        assert!(parse(&[("info", "4")]).unwrap().geometry.read_only);
    }

    #[test]
    fn absurd_values_are_refused_by_name() {
        for (key, value) in [
            ("sectors", "0"),
            ("sectors", "18446744073709551615"),
            ("sectors", "36028797018963968"),
            ("sectors", "-1"),
            ("sectors", "12 "),
            ("sector-size", "0"),
            ("sector-size", "511"),
            ("sector-size", "256"),
            ("sector-size", "8192"),
            ("sector-size", "4294967808"),
            ("info", "many"),
            ("feature-max-indirect-segments", "x"),
        ] {
            assert_eq!(parse(&[(key, value)]), Err(Reason::Value(key, value.into())), "{key} = {value}");
        }
        assert_eq!(parse(&[("sectors", "")]), Err(Reason::Missing("sectors")));
        assert_eq!(parse(&[("sectors", "7"), ("sector-size", "4096")]), Err(Reason::Value("sectors", "7".into())));
    }

    #[test]
    fn a_physical_sector_that_makes_no_sense_is_ignored() {
        let physical = |value| parse(&[("physical-sector-size", value)]).unwrap().geometry.blocks_per_physical;
        assert_eq!(["4096", "3000", "256", "1099511627776", ""].map(physical), [8, 1, 1, 1, 1]);
    }

    #[test]
    fn features_are_used_as_offered() {
        let facts = parse(&[("feature-barrier", "1"), ("feature-max-indirect-segments", "100000")]).unwrap();
        assert_eq!((facts.flush, facts.persistent, facts.indirect_segments), (Flush::Barrier, false, 256));
        let facts = parse(&[("feature-barrier", "1"), ("feature-flush-cache", "1"), ("feature-persistent", "1")]);
        let facts = facts.unwrap();
        assert_eq!((facts.flush, facts.persistent, facts.indirect_segments), (Flush::Cache, true, 0));
    }

    #[test]
    fn a_cd_is_read_only_and_can_be_taken_out() {
        // As libxl and QEMU describe it, and as a backend that knows nothing of CDs does.
        for info in ["5", "0"] {
            let values = [("sectors", "2048"), ("sector-size", "2048"), ("info", info), ("mode", "r")];
            let value = |key: &str| Some(values.iter().find(|(name, _)| *name == key)?.1.as_bytes().to_vec());
            let facts = Facts::parse(&KEYS.map(value), "cdrom").unwrap();
            let geometry = facts.geometry;
            assert!(facts.cdrom && geometry.read_only && geometry.removable);
            assert_eq!((geometry.block_size, geometry.blocks), (2048, 512));
        }
    }

    #[test]
    fn an_empty_drive_is_told_apart_from_a_broken_disk() {
        assert_eq!(parse(&[("info", "1"), ("sectors", "0")]), Err(Reason::NoMedium));
        assert!(["", "aio:", "qcow2:"].iter().all(|params| is_empty_medium(params.as_bytes())));
        assert!(!is_empty_medium(b"/dev/loop0") && !is_empty_medium(b"aio:/images/a.iso"));
    }

    #[test]
    fn device_numbers_have_the_names_people_give() {
        for (number, name) in [
            (51712, "xvda"),
            (51713, "xvda1"),
            (51728, "xvdb"),
            (51952, "xvdp"),
            ((1 << 28) | (16 << 8), "xvdq"),
            ((1 << 28) | (26 << 8) | 3, "xvdaa3"),
            (2048, "sda"),
            (2065, "sdb1"),
            (768, "hda"),
            (832, "hdb"),
            (5632, "hdc"),
            (5696, "hdd"),
            (7, "vbd"),
        ] {
            assert_eq!(device_name(number).as_str(), name);
        }
        for number in [u32::MAX, (1 << 28) - 1, u32::MAX - 255] {
            device_name(number);
        }
    }
}
