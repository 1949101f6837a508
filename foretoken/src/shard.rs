//! A part of the buckets, behind one lock: found by hash, swept a few slots at a time.

use std::hash::Hash;
use std::task::Waker;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::bucket::{Bucket, Packed};
use crate::limits::LimitsTable;
use crate::line::Line;

/// The size, in slots, below which a table is never shrunk.
const SHRINK_MIN: usize = 64;

/// Some of the buckets, and how far the sweep through them has come.
pub(crate) struct Shard<K> {
    buckets: HashTable<(K, Packed)>,
    limits: LimitsTable,
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
        Shard {
            buckets: HashTable::new(),
            limits: LimitsTable::default(),
            lines: HashTable::new(),
            ticket: 0,
            cursor: 0,
        }
    }

    /// The bucket of `key`.
    pub(crate) fn bucket(&self, hash: u64, key: &K) -> Option<Bucket> {
        let (_, packed) = self.buckets.find(hash, |(k, _)| k == key)?;
        Some(packed.unpacked(self.limits.get(packed.limits)))
    }

    /// Changes the bucket of `key`, beside its line if somebody waits for it; `None` if there is none.
    #[inline(always)]
    pub(crate) fn update<R>(
        &mut self,
        hash: u64,
        key: &K,
        change: impl FnOnce(&mut Bucket, Option<&mut Line>) -> R,
    ) -> Option<R> {
        let (_, packed) = self.buckets.find_mut(hash, |(k, _)| k == key)?;
        let line = match packed.waiters() {
            0 => None,
            _ => self.lines.find_mut(hash, |(k, _)| k == key).map(|(_, line)| line),
        };
        let limits = self.limits.get(packed.limits);
        let mut bucket = packed.unpacked(limits);
        let answer = change(&mut bucket, line);
        let mut id = packed.limits;
        if bucket.limits != limits {
            self.limits.remove(id);
            id = self.limits.add(bucket.limits);
        }
        *packed = bucket.packed(id);
        Some(answer)
    }

    /// The line of a bucket, if somebody waits for it.
    pub(crate) fn line(&self, hash: u64, key: &K) -> Option<&Line> {
        self.lines.find(hash, |(k, _)| k == key).map(|(_, line)| line)
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
        self.update(hash, &key, |bucket, _| bucket.add_waiter());
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
        self.update(hash, key, |bucket, _| bucket.remove_waiter());
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

    /// Adds a bucket, or replaces the one of its key.
    pub(crate) fn insert(&mut self, hash: u64, key: K, bucket: Bucket, rehash: impl Fn(&K) -> u64) {
        if self.update(hash, &key, |there, _| *there = bucket.clone()).is_none() {
            let packed = bucket.packed(self.limits.add(bucket.limits));
            self.buckets.insert_unique(hash, (key, packed), |(k, _)| rehash(k));
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
                .is_some_and(|(_, packed)| packed.is_idle_for(now_nanos, idle_nanos))
                && let Ok(entry) = self.buckets.get_bucket_entry(slot)
            {
                let ((_, packed), _) = entry.remove();
                self.limits.remove(packed.limits);
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
