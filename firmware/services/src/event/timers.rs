//! Deadlines, the earliest first: a binary heap that knows where each slot is, so that a timer can be moved or removed.

use alloc::vec::Vec;

const ABSENT: u32 = u32::MAX;

#[derive(Debug)]
pub struct Timers {
    heap: Vec<(u64, u32)>,
    /// Place in the heap, by slot.
    places: Vec<u32>,
}

impl Timers {
    pub const fn new() -> Self {
        Self { heap: Vec::new(), places: Vec::new() }
    }

    /// Makes room for `count` timers in all, in slots below `slots`.
    pub fn reserve(&mut self, count: usize, slots: usize) -> Option<()> {
        self.heap.try_reserve(count.saturating_sub(self.heap.len())).ok()?;
        let more = slots.saturating_sub(self.places.len());
        self.places.try_reserve(more).ok()?;
        self.places.extend(core::iter::repeat_n(ABSENT, more));
        Some(())
    }

    /// The earliest deadline and its slot.
    pub fn first(&self) -> Option<(u64, u32)> {
        self.heap.first().copied()
    }

    /// Sets or moves a slot's deadline.
    pub fn set(&mut self, slot: u32, deadline: u64) {
        let place = match self.place(slot) {
            Some(place) => {
                self.heap[place].0 = deadline;
                place
            }
            None => {
                self.heap.push((deadline, slot));
                self.heap.len() - 1
            }
        };
        self.settle(place);
    }

    /// Removes a slot's deadline, if it has one.
    pub fn remove(&mut self, slot: u32) {
        let Some(place) = self.place(slot) else { return };
        self.places[slot as usize] = ABSENT;
        let Some(last) = self.heap.pop() else { return };
        if place < self.heap.len() {
            self.heap[place] = last;
            self.settle(place);
        }
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.heap.clear();
        self.places.fill(ABSENT);
    }

    fn place(&self, slot: u32) -> Option<usize> {
        self.places.get(slot as usize).copied().filter(|&place| place != ABSENT).map(|place| place as usize)
    }

    /// Moves the entry at `place` to where it belongs.
    fn settle(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].0 <= entry.0 {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        loop {
            let left = 2 * place + 1;
            let Some(&first) = self.heap.get(left) else { break };
            let (child, value) = match self.heap.get(left + 1) {
                Some(&second) if second.0 < first.0 => (left + 1, second),
                _ => (left, first),
            };
            if value.0 >= entry.0 {
                break;
            }
            self.put(place, value);
            place = child;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: (u64, u32)) {
        self.heap[place] = entry;
        self.places[entry.1 as usize] = place as u32;
    }
}
