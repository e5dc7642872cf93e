//! All that a store holds, deleted and damaged records included, for tools that show it.

use core::ops::Range;

use super::{Entry, Record, Store};
use crate::backend::Backend;
use crate::format::{RecordHeader, state};

/// What a place of a store holds, for tools that show all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// A variable.
    Variable(Record),
    /// A complete record whose name another record has, which counts.
    Superseded(Record),
    /// A deleted record.
    Deleted,
    /// A record whose writing was cut.
    Unfinished,
    /// A record that claims to be valid and has no data, or a name that is none.
    Damaged,
    /// A record that does not fit into the store: the walk ends here.
    Broken,
    /// Bytes that are neither a record nor erased: the walk ends here.
    Soiled,
}

impl<B: Backend> Store<B> {
    /// All places of the store that hold something, as ranges of the backend's bytes.
    pub fn walk(&self) -> impl Iterator<Item = (Range<usize>, Slot)> + '_ {
        let mut position = Some(self.first());
        core::iter::from_fn(move || {
            let start = position?;
            let (next, slot) = match self.entry(start) {
                Entry::Live(record) if self.is_chosen(&record) => (record.next, Slot::Variable(record)),
                Entry::Live(record) => (record.next, Slot::Superseded(record)),
                Entry::Damaged { next } => (next, Slot::Damaged),
                Entry::Dead { next } => (next, if self.is_deleted(start) { Slot::Deleted } else { Slot::Unfinished }),
                Entry::Broken => (self.limit, Slot::Broken),
                Entry::End if self.soiled => (self.limit, Slot::Soiled),
                Entry::End => return None,
            };
            position = (!matches!(slot, Slot::Broken | Slot::Soiled)).then_some(next);
            Some((start..next, slot))
        })
    }

    /// Whether the record at `position` was complete once.
    fn is_deleted(&self, position: usize) -> bool {
        let header = RecordHeader::decode(self.bytes(position..self.limit));
        header.is_some_and(|header| !header.is_unfinished() && header.state & !state::ADDED == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;
    use crate::store::Meta;
    use uefi_raw::Guid;

    fn slots(store: &Store<Vec<u8>>) -> Vec<(usize, Slot)> {
        store.walk().map(|(range, slot)| (range.start, slot)).collect()
    }

    #[test]
    fn records_of_every_kind_are_told_apart() {
        let mut store = Store::format(vec![0; 1024], 0).unwrap();
        let key = |name| Key::new(Guid::ZERO, name);
        for (name, data) in [(&[0x41][..], [1; 4]), (&[0x42], [2; 4]), (&[0x41], [3; 4]), (&[0x43], [4; 4])] {
            store.write(key(name), Meta::default(), &data).unwrap();
        }
        let size = 68;
        let found = slots(&store);
        assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 2, 3].map(|index| 28 + index * size));
        assert_eq!(found[0].1, Slot::Deleted);
        assert!(matches!(found[1].1, Slot::Variable(record) if store.data(&record) == [2; 4]));
        let mut bytes = store.backend().clone();
        bytes[28 + RecordHeader::STATE_OFFSET] = state::HEADER_VALID_ONLY;
        bytes[28 + size + 60] = 0; // an empty name
        bytes.copy_within(28 + 2 * size..28 + 3 * size, 28 + 3 * size); // the second copy of a name
        bytes[28 + 4 * size..][..4].copy_from_slice(&[1, 2, 3, 4]);
        let store = Store::open(bytes, 0).map_err(|(_, error)| error).unwrap();
        let found = slots(&store);
        assert_eq!((found[0].1, found[1].1, found[4].1), (Slot::Unfinished, Slot::Damaged, Slot::Soiled));
        assert!(matches!((found[2].1, found[3].1), (Slot::Variable(_), Slot::Superseded(_))));
    }
}
