//! A part of the buckets, behind one lock: found by hash, swept a few slots at a time.

use std::hash::Hash;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::bucket::Bucket;

/// The size, in slots, below which a table is never shrunk.
const SHRINK_MIN: usize = 64;

/// Some of the buckets, and how far the sweep through them has come.
pub(crate) struct Shard<K> {
    buckets: HashTable<(K, Bucket)>,
    /// The slot at which the next examination starts.
    cursor: usize,
}

/// What one examination of a shard did.
pub(crate) struct Examined {
    /// Buckets that were dropped.
    pub(crate) dropped: usize,
    /// Whether the end of the table was reached; the next examination starts at its beginning.
    pub(crate) at_end: bool,
}

impl<K: Hash + Eq> Shard<K> {
    pub(crate) fn new() -> Shard<K> {
        Shard { buckets: HashTable::new(), cursor: 0 }
    }

    pub(crate) fn find_mut(&mut self, hash: u64, key: &K) -> Option<&mut Bucket> {
        self.buckets.find_mut(hash, |(k, _)| k == key).map(|(_, bucket)| bucket)
    }

    /// Adds a bucket whose key is not there yet.
    pub(crate) fn insert(&mut self, hash: u64, key: K, bucket: Bucket, rehash: impl Fn(&K) -> u64) {
        let same_key = |entry: &(K, Bucket)| entry.0 == key;
        match self.buckets.entry(hash, same_key, |(k, _)| rehash(k)) {
            Entry::Occupied(mut entry) => entry.get_mut().1 = bucket,
            Entry::Vacant(entry) => {
                entry.insert((key, bucket));
            }
        }
    }

    /// Lets the next examination start at the first slot.
    pub(crate) fn rewind(&mut self) {
        self.cursor = 0;
    }

    /// Looks at up to `slots` slots from the cursor on, and drops the buckets that have been full for `idle_nanos`.
    ///
    /// A table that grows in between is ordered anew: a bucket can be missed, and is met by the next pass.
    pub(crate) fn examine(
        &mut self,
        slots: usize,
        now_nanos: u64,
        idle_nanos: u64,
        rehash: impl Fn(&K) -> u64,
    ) -> Examined {
        let slots_all = self.buckets.num_buckets();
        let end = self.cursor.saturating_add(slots).min(slots_all);
        let mut dropped = 0;
        for slot in self.cursor..end {
            if self
                .buckets
                .get_bucket(slot)
                .is_some_and(|(_, bucket)| bucket.is_full_for(now_nanos, idle_nanos))
                && let Ok(entry) = self.buckets.get_bucket_entry(slot)
            {
                entry.remove();
                dropped += 1;
            }
        }
        let at_end = end >= slots_all;
        self.cursor = if at_end { 0 } else { end };
        if at_end && slots_all > SHRINK_MIN && self.buckets.len() < slots_all / 8 {
            self.buckets.shrink_to(self.buckets.len() * 2, |(k, _)| rehash(k));
        }
        Examined { dropped, at_end }
    }
}
