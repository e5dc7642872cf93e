//! Which keys a store may hold, told by a bit for each hash: most variables that are asked for at a start are not there, and to
//! find that out by a walk takes long in a full store.

use uefi_raw::Guid;

/// Bits of 8192: few of a full store's small variables share one.
const WORDS: usize = 128;

/// The hashes that were inserted.
#[derive(Clone, Copy, Debug)]
pub struct Filter([u64; WORDS]);

impl Filter {
    pub const fn new() -> Self {
        Self([0; WORDS])
    }

    /// Whether a key with that hash was inserted.
    pub fn contains(&self, hash: u64) -> bool {
        let (word, bit) = Self::place(hash);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Inserts a hash; says whether one like it was there.
    pub fn insert(&mut self, hash: u64) -> bool {
        let was_there = self.contains(hash);
        let (word, bit) = Self::place(hash);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
        was_there
    }

    const fn place(hash: u64) -> (usize, u64) {
        ((hash >> 6) as usize % WORDS, 1 << (hash % 64))
    }
}

/// The hash of a key (FNV-1a), its name without NUL.
pub fn hash(vendor: Guid, name: impl Iterator<Item = u16>) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325u64;
    let step = |hash: u64, unit: u64| (hash ^ unit).wrapping_mul(0x100_0000_01b3);
    let vendor = vendor.to_bytes().into_iter().fold(start, |hash, byte| step(hash, u64::from(byte)));
    // Only low bits are taken, and the product's low bits know nothing of its high ones.
    let hash = name.fold(vendor, |hash, unit| step(hash, u64::from(unit)));
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_contained_and_little_else() {
        let mut filter = Filter::new();
        let hash =
            |number: u16| hash(Guid::ZERO, format!("Fill{number:04}").encode_utf16().collect::<Vec<_>>().into_iter());
        let repeated = (0..400).filter(|&number| filter.insert(hash(number))).count();
        assert!(repeated < 30, "{repeated}");
        assert!((0..400).all(|number| filter.contains(hash(number))));
        let found = (1000..2000).filter(|&number| filter.contains(hash(number))).count();
        assert!(found < 100, "{found}");
    }
}
