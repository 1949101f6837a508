//! A part of the buckets, behind one lock: found by hash, swept a few slots at a time.
//!
//! What a take needs of a shard lies in one line of the cache, its lock included: among very many buckets each take comes to
//! another shard, and every line that it touches has to be fetched.

use std::hash::Hash;
use std::task::Waker;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::bucket::{Bucket, Packed};
use crate::limits::{Limits, LimitsId, LimitsTable};
use crate::line::Line;
use crate::rate::Rate;

/// The size, in slots, below which a table is never shrunk.
const SHRINK_MIN: usize = 64;

/// Some of the buckets, and how far the sweep through them has come.
pub(crate) struct Shard<K> {
    buckets: HashTable<(K, Packed)>,
    /// The limits that were looked up last, which most takes name again.
    recent: Recent,
    rest: Box<Rest<K>>,
}

/// What few takes need.
struct Rest<K> {
    limits: LimitsTable,
    /// The lines of those buckets that somebody waits for.
    lines: HashTable<(K, Line)>,
    /// The last ticket that was handed out.
    ticket: u64,
    /// The slot at which the next examination starts.
    cursor: usize,
}

/// Limits by their name: their parts, as 16 bytes and not 24.
#[derive(Clone, Copy)]
struct Recent {
    rate: Rate,
    capacity: u32,
    id: LimitsId,
}

impl Recent {
    /// No bucket has limits of this name.
    const NONE: Recent = Recent { rate: Rate::SLOWEST, capacity: 0, id: LimitsId::NONE };

    #[inline]
    fn new(Limits { rate, capacity }: Limits, id: LimitsId) -> Recent {
        Recent { rate, capacity, id }
    }

    #[inline]
    fn limits(self) -> Limits {
        Limits { rate: self.rate, capacity: self.capacity }
    }
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
        let rest = Rest { limits: LimitsTable::default(), lines: HashTable::new(), ticket: 0, cursor: 0 };
        Shard { buckets: HashTable::new(), recent: Recent::NONE, rest: Box::new(rest) }
    }

    /// The bucket of `key`.
    pub(crate) fn bucket(&self, hash: u64, key: &K) -> Option<Bucket> {
        let (_, packed) = self.buckets.find(hash, |(k, _)| k == key)?;
        Some(packed.unpacked(self.rest.limits.get(packed.limits)))
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
            _ => self.rest.lines.find_mut(hash, |(k, _)| k == key).map(|(_, line)| line),
        };
        let id = packed.limits;
        if self.recent.id != id {
            self.recent = Recent::new(self.rest.limits.get(id), id);
        }
        let limits = self.recent.limits();
        let mut bucket = packed.unpacked(limits);
        let answer = change(&mut bucket, line);
        if bucket.limits != limits {
            self.rest.limits.remove(id);
            self.recent = Recent::new(bucket.limits, self.rest.limits.add(bucket.limits));
        }
        *packed = bucket.packed(self.recent.id);
        Some(answer)
    }

    /// The line of a bucket, if somebody waits for it.
    pub(crate) fn line(&self, hash: u64, key: &K) -> Option<&Line> {
        self.rest.lines.find(hash, |(k, _)| k == key).map(|(_, line)| line)
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
        self.rest.ticket += 1;
        let ticket = self.rest.ticket;
        self.update(hash, &key, |bucket, _| bucket.add_waiter());
        let same_key = |entry: &(K, Line)| entry.0 == key;
        match self.rest.lines.entry(hash, same_key, |(k, _)| rehash(k)) {
            Entry::Occupied(mut entry) => entry.get_mut().1.join(ticket, n, waker),
            Entry::Vacant(entry) => {
                let mut line = Line::default();
                line.join(ticket, n, waker);
                entry.insert((key, line));
            }
        }
        ticket
    }

    /// Gives up the place of `ticket`. Answers whom to wake, as it is first now, and a waker to drop.
    pub(crate) fn leave(&mut self, hash: u64, key: &K, ticket: u64) -> (Option<Waker>, Option<Waker>) {
        self.update(hash, key, |bucket, _| bucket.remove_waiter());
        let Ok(mut entry) = self.rest.lines.find_entry(hash, |(k, _)| k == key) else { return (None, None) };
        let wakers = entry.get_mut().1.leave(ticket);
        if entry.get().1.is_empty() {
            entry.remove();
        }
        let lines = &mut self.rest.lines;
        if lines.is_empty() && lines.num_buckets() > SHRINK_MIN {
            *lines = HashTable::new();
        }
        wakers
    }

    /// Adds a bucket, or replaces the one of its key.
    pub(crate) fn insert(&mut self, hash: u64, key: K, bucket: Bucket, rehash: impl Fn(&K) -> u64) {
        if self.update(hash, &key, |there, _| *there = bucket.clone()).is_none() {
            let packed = bucket.packed(self.rest.limits.add(bucket.limits));
            self.buckets.insert_unique(hash, (key, packed), |(k, _)| rehash(k));
        }
    }

    /// Lets the next examination start at the first slot.
    pub(crate) fn rewind(&mut self) {
        self.rest.cursor = 0;
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
        let end = self.rest.cursor.saturating_add(slots).min(slots_all);
        let mut dropped = 0;
        for slot in self.rest.cursor..end {
            if self
                .buckets
                .get_bucket(slot)
                .is_some_and(|(_, packed)| packed.is_idle_for(now_nanos, idle_nanos))
                && let Ok(entry) = self.buckets.get_bucket_entry(slot)
            {
                let ((_, packed), _) = entry.remove();
                self.rest.limits.remove(packed.limits);
                // The name may be given to others.
                self.recent = Recent::NONE;
                dropped += 1;
            }
        }
        let at_end = end >= slots_all;
        self.rest.cursor = if at_end { 0 } else { end };
        if at_end && slots_all > SHRINK_MIN && self.buckets.len() < slots_all / 8 {
            self.buckets.shrink_to(self.buckets.len() * 2, |(k, _)| rehash(k));
        }
        Examined { dropped, at_end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foretoken::Padded;

    /// A take once touched four lines of a shard, a sixth of all it did among 100,000 buckets.
    #[test]
    fn what_a_take_needs_of_a_shard_lies_in_one_line_of_the_cache() {
        let padded = Padded::<u64>::new();
        let start = std::ptr::from_ref(&padded).addr();
        let shard = padded.0.lock();
        let end = std::ptr::from_ref(&*shard).addr() + size_of::<Shard<u64>>();
        assert!(end - start <= 64, "{} bytes", end - start);
        assert_eq!(start % 128, 0);
        assert!(size_of::<parking_lot::Mutex<Shard<u64>>>() <= 64, "the lock included");
    }

    fn bucket(capacity: u32) -> Bucket {
        Bucket::full(0, Rate::per_second(1).unwrap(), capacity)
    }

    /// Names of limits are given again: what was looked up under a name must not outlive it.
    #[test]
    fn limits_that_were_looked_up_are_not_taken_for_those_that_got_their_name() {
        let mut shard: Shard<u64> = Shard::new();
        let capacity = |shard: &mut Shard<u64>, key: u64| {
            shard.update(key, &key, |bucket, _| bucket.limits.capacity).unwrap()
        };
        shard.insert(1, 1, bucket(10), |key| *key);
        assert_eq!(capacity(&mut shard, 1), 10);
        assert_eq!(shard.examine(usize::MAX, 1, 0, |key| *key).dropped, 1);
        shard.insert(2, 2, bucket(20), |key| *key);
        assert_eq!(capacity(&mut shard, 2), 20);
        shard.insert(3, 3, bucket(30), |key| *key);
        assert_eq!((capacity(&mut shard, 3), capacity(&mut shard, 2)), (30, 20));
        shard.insert(2, 2, bucket(40), |key| *key);
        assert_eq!((capacity(&mut shard, 2), capacity(&mut shard, 3)), (40, 30));
        shard.update(3, &3, |there, _| *there = bucket(50));
        assert_eq!((capacity(&mut shard, 3), capacity(&mut shard, 2)), (50, 40));
    }
}
