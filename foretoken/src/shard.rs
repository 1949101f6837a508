//! A part of the buckets, behind one lock: found by hash, swept a few slots at a time.

use std::hash::Hash;
use std::task::Waker;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::bucket::Bucket;
use crate::line::Line;

/// The size, in slots, below which a table is never shrunk.
const SHRINK_MIN: usize = 64;

/// Some of the buckets, and how far the sweep through them has come.
pub(crate) struct Shard<K> {
    buckets: HashTable<(K, Bucket)>,
    /// The lines of those buckets that somebody waits for.
    lines: HashTable<(K, Line)>,
    /// The last ticket that was handed out.
    ticket: u64,
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
        Shard { buckets: HashTable::new(), lines: HashTable::new(), ticket: 0, cursor: 0 }
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, hash: u64, key: &K) -> Option<&mut Bucket> {
        self.buckets.find_mut(hash, |(k, _)| k == key).map(|(_, bucket)| bucket)
    }

    pub(crate) fn find(&self, hash: u64, key: &K) -> Option<&Bucket> {
        self.buckets.find(hash, |(k, _)| k == key).map(|(_, bucket)| bucket)
    }

    /// The line of a bucket, if somebody waits for it.
    pub(crate) fn line(&self, hash: u64, key: &K) -> Option<&Line> {
        self.lines.find(hash, |(k, _)| k == key).map(|(_, line)| line)
    }

    /// The bucket and the line of `key`, if somebody waits for it.
    pub(crate) fn bucket_and_line(&mut self, hash: u64, key: &K) -> Option<(&mut Bucket, &mut Line)> {
        let (_, bucket) = self.buckets.find_mut(hash, |(k, _)| k == key)?;
        let (_, line) = self.lines.find_mut(hash, |(k, _)| k == key)?;
        Some((bucket, line))
    }

    /// Goes to the end of the line of a bucket that is there, and answers the ticket.
    pub(crate) fn join(
        &mut self,
        hash: u64,
        key: K,
        n: u32,
        waker: Waker,
        rehash: impl Fn(&K) -> u64,
    ) -> u64 {
        self.ticket += 1;
        if let Some(bucket) = self.find_mut(hash, &key) {
            bucket.add_waiter();
        }
        let same_key = |entry: &(K, Line)| entry.0 == key;
        match self.lines.entry(hash, same_key, |(k, _)| rehash(k)) {
            Entry::Occupied(mut entry) => entry.get_mut().1.join(self.ticket, n, waker),
            Entry::Vacant(entry) => {
                let mut line = Line::default();
                line.join(self.ticket, n, waker);
                entry.insert((key, line));
            }
        }
        self.ticket
    }

    /// Gives up the place of `ticket`. Answers whom to wake, as it is first now, and a waker to drop.
    pub(crate) fn leave(&mut self, hash: u64, key: &K, ticket: u64) -> (Option<Waker>, Option<Waker>) {
        if let Some(bucket) = self.find_mut(hash, key) {
            bucket.remove_waiter();
        }
        let Ok(mut entry) = self.lines.find_entry(hash, |(k, _)| k == key) else { return (None, None) };
        let wakers = entry.get_mut().1.leave(ticket);
        if entry.get().1.is_empty() {
            entry.remove();
        }
        if self.lines.is_empty() && self.lines.num_buckets() > SHRINK_MIN {
            self.lines = HashTable::new();
        }
        wakers
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
                .is_some_and(|(_, bucket)| bucket.is_idle_for(now_nanos, idle_nanos))
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
