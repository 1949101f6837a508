//! Rates and capacities, each kept once a shard: buckets by the thousand share a few of them.
//!
//! A bucket names its limits by a number of four bytes instead of carrying twelve. That is worth the detour: with keys
//! of 8 bytes an entry has 24 bytes and not 32, and what a take costs among very many buckets is the cache.

use std::collections::BTreeMap;

use crate::rate::Rate;

/// What a bucket fills by and up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) rate: Rate,
    pub(crate) capacity: u32,
}

impl Limits {
    /// Orders limits in a map; which order does not matter.
    fn sort_key(self) -> (u64, u32) {
        (self.rate.period_nanos(), self.capacity)
    }
}

/// Names limits of one table for as long as a bucket uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitsId(u32);

impl LimitsId {
    /// The name of no limits: a shard has fewer than 2^32 of them.
    pub(crate) const NONE: LimitsId = LimitsId(u32::MAX);
}

/// The limits that the buckets of one shard use: at most as many as there are buckets.
#[derive(Default)]
pub(crate) struct LimitsTable {
    entries: Vec<Entry>,
    ids: BTreeMap<(u64, u32), LimitsId>,
    /// Entries that no bucket uses.
    free: Vec<LimitsId>,
}

struct Entry {
    limits: Limits,
    buckets: u32,
}

impl LimitsTable {
    /// The limits of a bucket.
    #[inline]
    pub(crate) fn get(&self, id: LimitsId) -> Limits {
        self.entries[id.0 as usize].limits
    }

    /// Names the limits of one more bucket.
    pub(crate) fn add(&mut self, limits: Limits) -> LimitsId {
        let id = match self.ids.get(&limits.sort_key()) {
            Some(&id) => id,
            None => self.name(limits),
        };
        self.entries[id.0 as usize].buckets += 1;
        id
    }

    /// Forgets the limits of one bucket.
    pub(crate) fn remove(&mut self, id: LimitsId) {
        let entry = &mut self.entries[id.0 as usize];
        entry.buckets -= 1;
        if entry.buckets == 0 {
            self.ids.remove(&entry.limits.sort_key());
            self.free.push(id);
        }
        if self.ids.is_empty() {
            // No bucket is left: the memory of the busiest moment goes back.
            *self = LimitsTable::default();
        }
    }

    fn name(&mut self, limits: Limits) -> LimitsId {
        let entry = Entry { limits, buckets: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id.0 as usize] = entry;
                id
            }
            None => {
                let id = u32::try_from(self.entries.len()).expect("a shard has fewer than 2^32 buckets");
                self.entries.push(entry);
                LimitsId(id)
            }
        };
        self.ids.insert(limits.sort_key(), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(capacity: u32) -> Limits {
        Limits { rate: Rate::per_second(1).unwrap(), capacity }
    }

    #[test]
    fn equal_limits_are_kept_once_and_numbers_are_used_again() {
        let mut table = LimitsTable::default();
        let one = table.add(limits(1));
        assert_eq!(table.add(limits(1)), one);
        let two = table.add(limits(2));
        assert_ne!(two, one);
        table.remove(one);
        assert_eq!(table.get(one), limits(1), "one more bucket uses it");
        table.remove(one);
        assert_eq!(table.add(limits(3)), one);
        assert_eq!((table.get(one), table.get(two)), (limits(3), limits(2)));
        assert_eq!(table.entries.len(), 2);
        table.remove(one);
        table.remove(two);
        assert_eq!(table.entries.capacity(), 0, "nothing is kept for no bucket");
    }
}
