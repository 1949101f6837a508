//! The entries of a shard, in the order of their keys' hashes, so that a range of hashes is a range of entries.
//!
//! That order is what makes moves, listings and commands to all keys simple: each goes on at a hash, and a hash means
//! the same to every shard, whatever was split or merged meanwhile. Keys whose hashes are alike share a slot and go
//! everywhere together.

use std::collections::{BTreeMap, btree_map};
use std::ops::RangeInclusive;

/// The entries, by hash.
pub(super) struct Entries<T> {
    slots: BTreeMap<u64, Slot<T>>,
}

/// The entries of one hash, in the order of their keys; never none. Nearly always one.
pub(super) enum Slot<T> {
    One(Entry<T>),
    Several(Vec<Entry<T>>),
}

/// A key with its value.
pub(super) struct Entry<T> {
    pub(super) key: Box<[u8]>,
    /// Always `Some` between commands; the handler works on the `Option` in place.
    pub(super) value: Option<T>,
    pub(super) size: u64,
}

/// How many entries there are, and the sum of their sizes; the sum wraps, so that no value type can make it panic.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counts {
    pub(super) keys: u64,
    pub(super) size: u64,
}

impl Counts {
    pub(super) fn add(&mut self, size: u64) {
        self.keys += 1;
        self.size = self.size.wrapping_add(size);
    }

    pub(super) fn remove(&mut self, size: u64) {
        self.keys -= 1;
        self.size = self.size.wrapping_sub(size);
    }

    pub(super) fn join(&mut self, other: Counts) {
        self.keys += other.keys;
        self.size = self.size.wrapping_add(other.size);
    }
}

impl<T> Slot<T> {
    /// The entries of one hash; `None` when there are none.
    pub(super) fn of(mut entries: Vec<Entry<T>>) -> Option<Self> {
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        match entries.len() {
            0 => None,
            1 => entries.pop().map(Slot::One),
            _ => Some(Slot::Several(entries)),
        }
    }

    pub(super) fn entries(&self) -> &[Entry<T>] {
        match self {
            Slot::One(entry) => std::slice::from_ref(entry),
            Slot::Several(entries) => entries,
        }
    }

    fn insert(&mut self, entry: Entry<T>) {
        let mut entries = match std::mem::replace(self, Slot::Several(Vec::new())) {
            Slot::One(present) => vec![present],
            Slot::Several(present) => present,
        };
        let at = entries.binary_search_by(|present| present.key.cmp(&entry.key));
        entries.insert(at.expect_err("an entry is added where there is none"), entry);
        *self = Slot::Several(entries);
    }

    fn entries_mut(&mut self) -> &mut [Entry<T>] {
        match self {
            Slot::One(entry) => std::slice::from_mut(entry),
            Slot::Several(entries) => entries,
        }
    }
}

impl<T> Entries<T> {
    pub(super) fn new() -> Self {
        Self { slots: BTreeMap::new() }
    }

    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<&Entry<T>> {
        self.slots.get(&hash)?.entries().iter().find(|entry| *entry.key == *key)
    }

    pub(super) fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry<T>> {
        self.slots.get_mut(&hash)?.entries_mut().iter_mut().find(|entry| *entry.key == *key)
    }

    /// Adds an entry whose key has none.
    pub(super) fn insert(&mut self, hash: u64, entry: Entry<T>) {
        match self.slots.entry(hash) {
            btree_map::Entry::Vacant(place) => {
                place.insert(Slot::One(entry));
            }
            btree_map::Entry::Occupied(mut place) => place.get_mut().insert(entry),
        }
    }

    /// Removes the entry of a key.
    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) {
        match self.slots.remove(&hash) {
            Some(Slot::Several(mut entries)) => {
                entries.retain(|entry| *entry.key != *key);
                self.slots.extend(Slot::of(entries).map(|slot| (hash, slot)));
            }
            Some(Slot::One(entry)) if *entry.key != *key => {
                self.slots.insert(hash, Slot::One(entry));
            }
            Some(Slot::One(_)) | None => {}
        }
    }

    /// Replaces whatever one hash holds; gives what it held.
    pub(super) fn replace(&mut self, hash: u64, slot: Option<Slot<T>>) -> Option<Slot<T>> {
        match slot {
            Some(slot) => self.slots.insert(hash, slot),
            None => self.slots.remove(&hash),
        }
    }

    pub(super) fn slot(&self, hash: u64) -> Option<&Slot<T>> {
        self.slots.get(&hash)
    }

    /// The slots of a range of hashes, which is not empty, in order.
    pub(super) fn range(&self, hashes: RangeInclusive<u64>) -> impl Iterator<Item = (u64, &Slot<T>)> {
        self.slots.range(hashes).map(|(hash, slot)| (*hash, slot))
    }

    /// Every slot, in the order of the hashes.
    pub(super) fn slots(&self) -> impl ExactSizeIterator<Item = (u64, &Slot<T>)> {
        self.slots.iter().map(|(hash, slot)| (*hash, slot))
    }

    /// How much a range of hashes holds, for comparison with what was counted on the way.
    #[cfg(test)]
    pub(super) fn count(&self, hashes: RangeInclusive<u64>) -> Counts {
        let mut counts = Counts::default();
        for (_, slot) in self.range(hashes) {
            slot.entries().iter().for_each(|entry| counts.add(entry.size));
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> Entry<u8> {
        Entry { key: key.as_bytes().into(), value: Some(0), size: 2 }
    }

    fn keys(entries: &Entries<u8>, hash: u64) -> Vec<&[u8]> {
        entries.slot(hash).map_or(Vec::new(), |slot| slot.entries().iter().map(|entry| &*entry.key).collect())
    }

    #[test]
    fn keys_of_one_hash_live_beside_each_other() {
        let mut entries = Entries::new();
        for key in ["b", "c", "a"] {
            entries.insert(7, entry(key));
        }
        entries.insert(8, entry("d"));
        assert_eq!(keys(&entries, 7), [b"a", b"b", b"c"]);
        assert_eq!(entries.count(7..=7), Counts { keys: 3, size: 6 });
        assert_eq!(entries.count(0..=u64::MAX).keys, 4);
        entries.remove(7, b"b");
        entries.remove(7, b"never there");
        assert_eq!(keys(&entries, 7), [b"a", b"c"]);
        entries.remove(7, b"a");
        entries.remove(7, b"x");
        assert!(entries.get_mut(7, b"c").is_some() && entries.get(7, b"a").is_none());
        entries.remove(7, b"c");
        assert!(entries.slot(7).is_none());
    }
}
