//! EFI_SIGNATURE_LIST (UEFI 2.10 §32.4.1): content of PK, KEK, db, dbx, dbt, dbr.
//!
//! ```text
//!  0 SignatureType        GUID
//! 16 SignatureListSize    u32, of all this
//! 20 SignatureHeaderSize  u32
//! 24 SignatureSize        u32, of each of the following, owner included
//! 28 header, then signatures: owner (GUID), data
//! ```

use uefi_raw::{Guid, guid};

use crate::error::Error;

/// A DER-encoded X.509 certificate (`EFI_CERT_X509_GUID`).
pub const X509: Guid = guid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
/// A SHA-256 digest (`EFI_CERT_SHA256_GUID`).
pub const SHA256: Guid = guid!("c1c41626-504c-4092-aca9-41f936934328");

const HEADER_SIZE: usize = 28;
const OWNER_SIZE: usize = 16;

/// One signature: a key, a certificate, or a digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature<'a> {
    /// What the data are.
    pub kind: Guid,
    /// Who put it there.
    pub owner: Guid,
    /// The certificate or digest.
    pub data: &'a [u8],
    /// Owner and data as they are stored.
    pub bytes: &'a [u8],
}

/// Signature lists, one after the other, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignatureLists<'a>(&'a [u8]);

impl<'a> SignatureLists<'a> {
    /// Checks that `bytes` consist of signature lists; `None` if not.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            (_, rest) = List::first(rest)?;
        }
        Some(Self(bytes))
    }

    /// All signatures in their order.
    pub fn signatures(&self) -> impl Iterator<Item = Signature<'a>> + Clone + use<'a> {
        self.lists().flat_map(|list| list.signatures())
    }

    /// The certificates among them.
    pub fn certificates(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.signatures().filter(|signature| signature.kind == X509).map(|signature| signature.data)
    }

    /// Copies to `new` those of `added` that are not here; returns how many bytes that is.
    ///
    /// # Errors
    /// [`Error::Full`] if it does not fit.
    pub fn missing(&self, added: SignatureLists<'_>, new: &mut [u8]) -> Result<usize, Error> {
        let mut end = 0;
        for list in added.lists() {
            let start = end;
            end = put(new, end, list.head)?;
            let empty = end;
            for signature in list.signatures() {
                let is_here = |here: Signature<'_>| here.kind == signature.kind && here.bytes == signature.bytes;
                if !self.signatures().any(is_here) {
                    end = put(new, end, signature.bytes)?;
                }
            }
            if end == empty {
                end = start;
                continue;
            }
            let size = u32::try_from(end - start).map_err(|_| Error::Full)?;
            put(new, start + size_of::<Guid>(), &size.to_le_bytes())?;
        }
        Ok(end)
    }

    fn lists(&self) -> impl Iterator<Item = List<'a>> + Clone + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (list, after) = List::first(rest)?;
            rest = after;
            Some(list)
        })
    }
}

#[derive(Clone)]
struct List<'a> {
    kind: Guid,
    /// Everything before the signatures.
    head: &'a [u8],
    signatures: &'a [u8],
    signature_size: usize,
}

impl<'a> List<'a> {
    /// The list at the start of `bytes`, and what follows it.
    fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (kind, rest) = bytes.split_first_chunk()?;
        let (numbers, _) = rest.split_first_chunk::<12>()?;
        let number = |bytes: [u8; 4]| usize::try_from(u32::from_le_bytes(bytes)).ok();
        let [list_size, header_size, signature_size] = *numbers.as_chunks().0 else { return None };
        let (list, after) = bytes.split_at_checked(number(list_size)?)?;
        let (head, signatures) = list.split_at_checked(HEADER_SIZE.checked_add(number(header_size)?)?)?;
        let signature_size = number(signature_size)?;
        let is_good = signature_size > OWNER_SIZE && signatures.len().is_multiple_of(signature_size);
        is_good.then_some((Self { kind: Guid::from_bytes(*kind), head, signatures, signature_size }, after))
    }

    fn signatures(&self) -> impl Iterator<Item = Signature<'a>> + Clone + use<'a> {
        let kind = self.kind;
        self.signatures.chunks_exact(self.signature_size).filter_map(move |bytes| {
            let (owner, data) = bytes.split_first_chunk()?;
            Some(Signature { kind, owner: Guid::from_bytes(*owner), data, bytes })
        })
    }
}

fn put(new: &mut [u8], at: usize, bytes: &[u8]) -> Result<usize, Error> {
    let end = at + bytes.len();
    new.get_mut(at..end).ok_or(Error::Full)?.copy_from_slice(bytes);
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kind: Guid, signatures: &[[u8; 18]]) -> Vec<u8> {
        let mut bytes = kind.to_bytes().to_vec();
        bytes.extend((28 + 18 * signatures.len() as u32).to_le_bytes());
        bytes.extend([0, 0, 0, 0, 18, 0, 0, 0]);
        bytes.extend(signatures.iter().flatten());
        bytes
    }

    #[test]
    fn signatures_are_listed_in_order() {
        let bytes = [list(SHA256, &[[1; 18], [2; 18]]), list(SHA256, &[]), list(X509, &[[3; 18]])].concat();
        let lists = SignatureLists::new(&bytes).unwrap();
        let found: Vec<_> = lists.signatures().map(|signature| (signature.kind, signature.data[0])).collect();
        assert_eq!(found, [(SHA256, 1), (SHA256, 2), (X509, 3)]);
        assert_eq!(lists.certificates().collect::<Vec<_>>(), [[3; 2]]);
        assert_eq!(SignatureLists::new(&[]).unwrap().signatures().count(), 0);
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let here = [list(SHA256, &[[1; 18], [2; 18]]), list(X509, &[[3; 18]])].concat();
        let here = SignatureLists::new(&here).unwrap();
        let added =
            [list(SHA256, &[[2; 18], [4; 18], [1; 18]]), list(X509, &[[3; 18]]), list(X509, &[[2; 18]])].concat();
        let added = SignatureLists::new(&added).unwrap();
        let mut new = [0; 300];
        let size = here.missing(added, &mut new).unwrap();
        assert_eq!(new[..size], [list(SHA256, &[[4; 18]]), list(X509, &[[2; 18]])].concat());
        assert_eq!(here.missing(here, &mut new), Ok(0));
        assert_eq!(here.missing(added, &mut new[..size - 1]), Err(Error::Full));
    }

    #[test]
    fn damaged_lists_are_refused() {
        let good = list(SHA256, &[[1; 18], [2; 18]]);
        for end in 1..good.len() {
            assert_eq!(SignatureLists::new(&good[..end]), None, "{end}");
        }
        for (at, value) in [(16, 63), (16, 65), (19, 1), (20, 1), (23, 0x80), (24, 16), (24, 0), (24, 19), (27, 0xff)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(SignatureLists::new(&bad), None, "{at} {value}");
        }
    }
}
