//! Package lists as bytes (UEFI 2.10 §33.3.1 to §33.3.3).

use alloc::vec::Vec;

use uefi_raw::Guid;

use super::HiiError;
use super::strings::Strings;

/// Type of a package (`EFI_HII_PACKAGE_TYPE_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackageType(pub u8);

#[expect(missing_docs, reason = "names of the specification")]
impl PackageType {
    pub const ALL: Self = Self(0x00);
    pub const GUID: Self = Self(0x01);
    pub const STRINGS: Self = Self(0x04);
    pub const DEVICE_PATH: Self = Self(0x08);
    pub const KEYBOARD_LAYOUT: Self = Self(0x09);
    pub const END: Self = Self(0xDF);
}

/// Bytes of a package header: 24 bits of length, 8 bits of type.
pub const PACKAGE_HEADER: usize = 4;
/// Bytes of a package list header: GUID and length.
pub const LIST_HEADER: usize = 20;
/// Longest package list that is accepted.
pub const MAX_LIST: usize = 64 << 20;

/// A package of a list.
#[derive(Clone, Debug)]
pub struct Package {
    kind: PackageType,
    contents: Contents,
}

#[derive(Clone, Debug)]
enum Contents {
    Strings(Strings),
    /// Header and body.
    Other(Vec<u8>),
}

impl Package {
    /// A package of header and body.
    fn parse(kind: PackageType, bytes: &[u8]) -> Result<Self, HiiError> {
        let contents = match kind {
            PackageType::STRINGS => Contents::Strings(Strings::parse(bytes)?),
            _ => Contents::Other(bytes.to_vec()),
        };
        Ok(Self { kind, contents })
    }

    /// A package of any type but strings.
    pub fn new(kind: PackageType, body: &[u8]) -> Result<Self, HiiError> {
        let mut bytes = header(kind, PACKAGE_HEADER + body.len())?.to_vec();
        bytes.extend_from_slice(body);
        Self::parse(kind, &bytes)
    }

    /// A package of strings.
    pub const fn of_strings(strings: Strings) -> Self {
        Self { kind: PackageType::STRINGS, contents: Contents::Strings(strings) }
    }

    /// The type.
    pub const fn kind(&self) -> PackageType {
        self.kind
    }

    /// The GUID of a package of type [`PackageType::GUID`].
    pub fn guid(&self) -> Option<Guid> {
        match &self.contents {
            Contents::Other(bytes) if self.kind == PackageType::GUID => {
                bytes.get(PACKAGE_HEADER..)?.first_chunk().copied().map(Guid::from_bytes)
            }
            _ => None,
        }
    }

    /// The strings of a package of type [`PackageType::STRINGS`].
    pub const fn strings(&self) -> Option<&Strings> {
        match &self.contents {
            Contents::Strings(strings) => Some(strings),
            Contents::Other(_) => None,
        }
    }

    /// The same, to change them.
    pub const fn strings_mut(&mut self) -> Option<&mut Strings> {
        match &mut self.contents {
            Contents::Strings(strings) => Some(strings),
            Contents::Other(_) => None,
        }
    }

    /// Header and body.
    pub fn to_bytes(&self) -> Result<Vec<u8>, HiiError> {
        match &self.contents {
            Contents::Strings(strings) => strings.to_bytes(),
            Contents::Other(bytes) => Ok(bytes.clone()),
        }
    }

    /// The keyboard layouts of a package of type [`PackageType::KEYBOARD_LAYOUT`] and their GUIDs.
    pub fn keyboard_layouts(&self) -> Vec<(Guid, &[u8])> {
        let mut layouts = Vec::new();
        let Contents::Other(bytes) = &self.contents else { return layouts };
        let body = bytes.get(PACKAGE_HEADER..).filter(|_| self.kind == PackageType::KEYBOARD_LAYOUT);
        let Some((count, mut rest)) = body.and_then(|body| body.split_first_chunk()) else { return layouts };
        for _ in 0..u16::from_le_bytes(*count) {
            let Some(length) = rest.first_chunk().map(|length| usize::from(u16::from_le_bytes(*length))) else { break };
            let Some((layout, next)) = rest.split_at_checked(length) else { break };
            let Some(guid) = layout.get(2..).and_then(<[u8]>::first_chunk) else { break };
            layouts.push((Guid::from_bytes(*guid), layout));
            rest = next;
        }
        layouts
    }
}

/// The header of a package of `length` bytes.
pub(super) fn header(kind: PackageType, length: usize) -> Result<[u8; PACKAGE_HEADER], HiiError> {
    let [low, middle, high, 0] = u32::try_from(length).map_err(|_| HiiError::Malformed)?.to_le_bytes() else {
        return Err(HiiError::Malformed);
    };
    Ok([low, middle, high, kind.0])
}

/// GUID and packages of a list, without its end package.
///
/// # Errors
/// `Malformed` if a length is not that of what is there, or the end is missing.
pub fn parse_list(bytes: &[u8]) -> Result<(Guid, Vec<Package>), HiiError> {
    let (guid, after_guid) = bytes.split_first_chunk::<16>().ok_or(HiiError::Malformed)?;
    let length = after_guid.first_chunk().copied().map(u32::from_le_bytes).ok_or(HiiError::Malformed)?;
    let length = usize::try_from(length).map_err(|_| HiiError::Malformed)?;
    let mut rest = bytes.get(LIST_HEADER..length).ok_or(HiiError::Malformed)?;
    let mut packages = Vec::new();
    loop {
        let [low, middle, high, kind] = *rest.first_chunk().ok_or(HiiError::Malformed)?;
        let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
        if length < PACKAGE_HEADER {
            return Err(HiiError::Malformed);
        }
        let (package, next) = rest.split_at_checked(length).ok_or(HiiError::Malformed)?;
        match PackageType(kind) {
            PackageType::END => return Ok((Guid::from_bytes(*guid), packages)),
            kind => packages.push(Package::parse(kind, package)?),
        }
        rest = next;
    }
}

/// A list as bytes, with its end package.
pub fn list_to_bytes(guid: Guid, packages: &[Package]) -> Result<Vec<u8>, HiiError> {
    let mut bytes = guid.to_bytes().to_vec();
    bytes.extend_from_slice(&[0; 4]);
    for package in packages {
        bytes.extend_from_slice(&package.to_bytes()?);
    }
    bytes.extend_from_slice(&header(PackageType::END, PACKAGE_HEADER)?);
    let length = u32::try_from(bytes.len()).map_err(|_| HiiError::Malformed)?;
    bytes[16..LIST_HEADER].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}
