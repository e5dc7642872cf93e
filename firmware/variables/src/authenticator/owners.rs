//! Who owns private authenticated variables (UEFI 2.10 §8.2.6): a variable that only the firmware writes, in EDK2's form
//! (`SecurityPkg/Library/AuthVariableLib`, "certdb"), so that a store moves between the two.
//!
//! ```text
//!  0 size of all, u32
//!    for each variable:
//!  0 VendorGuid    GUID
//! 16 CertNodeSize  u32, of all this
//! 20 NameSize      u32, UCS-2 units without NUL
//! 24 CertDataSize  u32, 32
//! 28 name, digest
//! ```

use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, guid};

use crate::error::Error;
use crate::name::Key;
use crate::store::Meta;

/// SHA-256 of the common name of the signer's certificate and of what is signed of the topmost certificate.
pub type Owner = [u8; 32];

/// Vendor of the two variables (`gEfiCertDbGuid`).
pub const VENDOR: Guid = guid!("d9bee56e-75dc-49d9-b4d7-b534210f637a");

const NAME: &[u16] = &[0x63, 0x65, 0x72, 0x74, 0x64, 0x62];
const VOLATILE_NAME: &[u16] = &[0x63, 0x65, 0x72, 0x74, 0x64, 0x62, 0x76];
const SIZE_SIZE: usize = 4;
const HEADER_SIZE: usize = 28;

/// The variable in which the owners of variables with such attributes are, and its attributes.
pub fn database(attributes: VariableAttributes) -> (Key<'static>, Meta) {
    let non_volatile = attributes.intersection(VariableAttributes::NON_VOLATILE);
    let name = if non_volatile.is_empty() { VOLATILE_NAME } else { NAME };
    let attributes = non_volatile
        | VariableAttributes::BOOTSERVICE_ACCESS
        | VariableAttributes::RUNTIME_ACCESS
        | VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS;
    (Key::new(VENDOR, name), Meta { attributes: attributes.bits(), ..Meta::default() })
}

/// The owner of a variable.
pub fn find<'a>(database: &'a [u8], key: Key<'_>) -> Option<&'a [u8]> {
    nodes(database).find(|node| node.is(key)).map(|node| node.digest)
}

/// Makes the content of the database with another owner of `key`, or none; returns its size.
///
/// # Errors
/// [`Error::Full`] if it does not fit.
pub fn replace(database: &[u8], key: Key<'_>, owner: Option<&Owner>, new: &mut [u8]) -> Result<usize, Error> {
    rewrite(database, |node| !node.is(key), owner.map(|owner| (key, owner)), new)
}

/// Makes the content of the database with those owners only whose variables exist: of that vendor and name (UCS-2,
/// little-endian, without NUL). Returns its size.
///
/// # Errors
/// [`Error::Full`] if it does not fit.
pub fn retain(database: &[u8], exists: impl Fn(Guid, &[u8]) -> bool, new: &mut [u8]) -> Result<usize, Error> {
    rewrite(database, |node| exists(node.vendor, node.name), None, new)
}

fn rewrite(
    database: &[u8],
    keep: impl Fn(&Node<'_>) -> bool,
    added: Option<(Key<'_>, &Owner)>,
    new: &mut [u8],
) -> Result<usize, Error> {
    let mut end = SIZE_SIZE;
    let mut put = |bytes: &[u8]| -> Result<(), Error> {
        let start = end;
        end += bytes.len();
        new.get_mut(start..end).ok_or(Error::Full)?.copy_from_slice(bytes);
        Ok(())
    };
    for node in nodes(database).filter(keep) {
        put(node.bytes)?;
    }
    if let Some((key, owner)) = added {
        put(&key.vendor.to_bytes())?;
        put(&number(HEADER_SIZE + 2 * key.name.len() + owner.len())?)?;
        put(&number(key.name.len())?)?;
        put(&number(owner.len())?)?;
        for unit in key.name {
            put(&unit.to_le_bytes())?;
        }
        put(owner)?;
    }
    new.get_mut(..SIZE_SIZE).ok_or(Error::Full)?.copy_from_slice(&number(end)?);
    Ok(end)
}

fn number(number: usize) -> Result<[u8; 4], Error> {
    u32::try_from(number).map(u32::to_le_bytes).map_err(|_| Error::Full)
}

struct Node<'a> {
    bytes: &'a [u8],
    vendor: Guid,
    /// UCS-2, little-endian, without NUL.
    name: &'a [u8],
    digest: &'a [u8],
}

impl Node<'_> {
    fn is(&self, key: Key<'_>) -> bool {
        let units = self.name.as_chunks().0.iter().map(|&unit| u16::from_le_bytes(unit));
        self.vendor == key.vendor && units.eq(key.name.iter().copied())
    }
}

/// The entries; of a damaged database none, or those before the damage.
fn nodes(database: &[u8]) -> impl Iterator<Item = Node<'_>> {
    let size = database.first_chunk().map(|&size| u32::from_le_bytes(size) as usize);
    let is_whole = size == Some(database.len());
    let mut rest = if is_whole { database.get(SIZE_SIZE..).unwrap_or_default() } else { &[] };
    core::iter::from_fn(move || {
        let (node, after) = first_node(rest)?;
        rest = after;
        Some(node)
    })
}

fn first_node(bytes: &[u8]) -> Option<(Node<'_>, &[u8])> {
    let (vendor, rest) = bytes.split_first_chunk()?;
    let (numbers, _) = rest.split_first_chunk::<12>()?;
    let (numbers, _) = numbers.as_chunks();
    let [size, units, digest_size] = *numbers else { return None };
    let size = usize::try_from(u32::from_le_bytes(size)).ok()?;
    let name_end = usize::try_from(u32::from_le_bytes(units)).ok()?.checked_mul(2)?.checked_add(HEADER_SIZE)?;
    let digest_end = usize::try_from(u32::from_le_bytes(digest_size)).ok()?.checked_add(name_end)?;
    if size != digest_end {
        return None;
    }
    let (node, after) = bytes.split_at_checked(size)?;
    let (name, digest) = node.get(HEADER_SIZE..)?.split_at_checked(name_end - HEADER_SIZE)?;
    Some((Node { bytes: node, vendor: Guid::from_bytes(*vendor), name, digest }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Key<'static> = Key::new(VENDOR, &[0x41]);
    const B: Key<'static> = Key::new(Guid::ZERO, &[0x41, 0x42]);

    fn replaced(database: &[u8], key: Key<'_>, owner: Option<&Owner>) -> Vec<u8> {
        let mut new = vec![0; 200];
        let size = replace(database, key, owner, &mut new).unwrap();
        new.truncate(size);
        new
    }

    #[test]
    fn owners_come_and_go() {
        let database = replaced(&[], A, Some(&[1; 32]));
        assert_eq!(database.len(), 4 + 28 + 2 + 32);
        assert_eq!(database[..4], (database.len() as u32).to_le_bytes());
        let database = replaced(&database, B, Some(&[2; 32]));
        assert_eq!((find(&database, A), find(&database, B)), (Some(&[1; 32][..]), Some(&[2; 32][..])));
        let database = replaced(&database, A, Some(&[3; 32]));
        assert_eq!((find(&database, A), find(&database, B)), (Some(&[3; 32][..]), Some(&[2; 32][..])));
        let database = replaced(&database, B, None);
        assert_eq!((find(&database, A), find(&database, B)), (Some(&[3; 32][..]), None));
        assert_eq!(replaced(&database, A, None), [4, 0, 0, 0]);
    }

    #[test]
    fn owners_of_nothing_are_dropped() {
        let database = replaced(&replaced(&[], A, Some(&[1; 32])), B, Some(&[2; 32]));
        let mut new = [0; 200];
        assert_eq!(retain(&database, |_, _| true, &mut new), Ok(database.len()));
        assert_eq!(new[..database.len()], database);
        let size = retain(&database, |vendor, name| (vendor, name) == (VENDOR, b"A\0"), &mut new).unwrap();
        assert_eq!(new[..size], replaced(&[], A, Some(&[1; 32])));
        assert_eq!(retain(&database, |_, _| true, &mut new[..20]), Err(Error::Full));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let size = replaced(&[], A, Some(&[1; 32])).len();
        for room in 0..size {
            assert_eq!(replace(&[], A, Some(&[1; 32]), &mut vec![0; room]), Err(Error::Full));
        }
    }

    #[test]
    fn damaged_databases_own_nothing_and_do_not_panic() {
        let database = replaced(&replaced(&[], A, Some(&[1; 32])), B, Some(&[2; 32]));
        for at in 0..database.len() {
            assert_eq!(find(&database[..at], A), None);
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = database.clone();
                damaged[at] = value;
                let _ = (find(&damaged, A), find(&damaged, B));
            }
        }
    }
}
