//! What a variable is called.

use uefi_raw::Guid;

/// Vendor and name, without the terminating NUL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key<'a> {
    /// Vendor: the name space.
    pub vendor: Guid,
    /// UCS-2 units, not terminated.
    pub name: &'a [u16],
}

impl<'a> Key<'a> {
    /// The variable `name` of `vendor`.
    pub const fn new(vendor: Guid, name: &'a [u16]) -> Self {
        Self { vendor, name }
    }

    /// Whether the name can be stored: not empty, no NUL inside.
    pub fn is_valid(&self) -> bool {
        !self.name.is_empty() && !self.name.contains(&0)
    }

    /// Bytes of the stored name, NUL included.
    pub fn stored_size(&self) -> usize {
        (self.name.len() + 1) * size_of::<u16>()
    }

    /// Whether this is the variable called `name` (ASCII) of `vendor`.
    pub fn is(&self, vendor: Guid, name: &str) -> bool {
        self.vendor == vendor && equals_ascii(self.name, name)
    }
}

/// Whether `name` reads as the ASCII text.
pub fn equals_ascii(name: &[u16], text: &str) -> bool {
    name.iter().copied().eq(text.bytes().map(u16::from))
}

/// A stored name: little-endian UCS-2 bytes with their NUL, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredName<'a>(&'a [u8]);

impl<'a> StoredName<'a> {
    /// Checks that `bytes` are a name: not empty, NUL at the end and nowhere else.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (units, rest) = bytes.as_chunks();
        let (last, name) = units.split_last()?;
        (rest.is_empty() && *last == [0, 0] && !name.is_empty() && !name.contains(&[0, 0])).then_some(Self(bytes))
    }

    /// The bytes with their NUL.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The UCS-2 units without NUL.
    pub fn units(&self) -> impl ExactSizeIterator<Item = u16> + use<'a> {
        let units = self.0.as_chunks().0;
        let count = units.len().saturating_sub(1);
        units.iter().take(count).map(|&unit| u16::from_le_bytes(unit))
    }

    /// Whether this is `name`.
    pub fn equals(&self, name: &[u16]) -> bool {
        self.units().eq(name.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_name_needs_a_terminator_and_a_letter() {
        assert_eq!(StoredName::new(b"A\0\0\0").map(|name| name.equals(&[0x41])), Some(true));
        for bad in [&b""[..], b"\0\0", b"A\0", b"A\0\0", b"A\0\0\0\0", b"A\0\0\0B\0\0\0"] {
            assert_eq!(StoredName::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_key_is_compared_with_ascii() {
        let name: Vec<u16> = "MTC".encode_utf16().collect();
        let key = Key::new(Guid::ZERO, &name);
        assert!(key.is(Guid::ZERO, "MTC"));
        assert!(!key.is(Guid::ZERO, "MTCX"));
        assert!(!key.is(Guid::ZERO, "MT"));
    }
}
