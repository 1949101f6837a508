//! What a member's shard has to do: counters of its own that are never part of what is replicated.
//!
//! Load is counted in buckets over the shard's range, so that a split can be made where it halves the load. One key
//! that has more than half of the load is found by the majority vote of Boyer and Moore (1981), with weights: no split
//! helps against it.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::key_range::KeyRange;

/// Into how many parts a shard's range is divided to see where its weight lies.
pub(crate) const BUCKETS: usize = 64;

/// The counters of one member in this life, since its range last changed.
pub(super) struct Load {
    range: KeyRange,
    total: AtomicU64,
    misses: AtomicU64,
    /// Half as much is left of them each time so many things were counted: they tell of the present.
    buckets: [AtomicU64; BUCKETS],
    heaviest: Mutex<Heaviest>,
}

/// After so many counts buckets and the heaviest hash are halved.
const HALVED_AFTER: u64 = 1 << 16;

/// The hash that may have most of the load.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Heaviest {
    /// The hash.
    hash: u64,
    /// How far it is ahead of all others together.
    lead: u64,
    /// Its load since it was last behind; at most what it really has.
    load: u64,
    counts: u64,
}

impl Load {
    pub(super) fn new(range: Option<KeyRange>) -> Self {
        Self {
            range: range.unwrap_or(KeyRange::ALL),
            total: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            heaviest: Mutex::default(),
        }
    }

    /// Counts what was done for a hash.
    pub(super) fn count(&self, hash: u64, load: u64) {
        self.total.fetch_add(load, Ordering::Relaxed);
        self.place(hash, load);
    }

    /// Counts a query for a hash without a value; what that costs is the keyspace's business, but where it is counts as
    /// a load of 1.
    pub(super) fn count_miss(&self, hash: u64) {
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.place(hash, 1);
    }

    fn place(&self, hash: u64, load: u64) {
        self.buckets[bucket_of(self.range, hash)].fetch_add(load, Ordering::Relaxed);
        let mut heaviest = self.heaviest.lock();
        heaviest.count(hash, load);
        if heaviest.counts >= HALVED_AFTER {
            heaviest.halve();
            for bucket in &self.buckets {
                // Counts come from one loop; should another come between, it is lost here and nowhere else.
                bucket.store(bucket.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(super) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    pub(super) fn buckets(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect()
    }

    /// The hash that has more than half of the load, and how many thousandths of it.
    pub(super) fn hot(&self) -> Option<(u64, u16)> {
        let heaviest = *self.heaviest.lock();
        let recent: u64 = self.buckets().into_iter().fold(0, u64::saturating_add);
        let permille = u128::from(heaviest.load) * 1000 / u128::from(recent.max(1));
        let permille = u16::try_from(permille.min(1000)).expect("at most 1000");
        (permille > 500).then_some((heaviest.hash, permille))
    }
}

impl Heaviest {
    fn halve(&mut self) {
        let Self { lead, load, counts, .. } = self;
        (*lead, *load, *counts) = (*lead / 2, *load / 2, 0);
    }

    fn count(&mut self, hash: u64, load: u64) {
        self.counts += 1;
        if hash == self.hash {
            self.lead = self.lead.saturating_add(load);
            self.load = self.load.saturating_add(load);
        } else if load <= self.lead {
            self.lead -= load;
        } else {
            *self = Self { hash, lead: load - self.lead, load, counts: self.counts };
        }
    }
}

/// Which part of a range a hash lies in; the nearest one for a hash outside of it.
pub(crate) fn bucket_of(range: KeyRange, hash: u64) -> usize {
    let offset = u128::from(hash.clamp(range.first(), range.last()) - range.first());
    usize::try_from(offset * BUCKETS as u128 / range.width()).expect("below the number of buckets")
}

/// The first hash of a part of a range.
pub(crate) fn bucket_start(range: KeyRange, bucket: usize) -> u64 {
    let offset = (range.width() * bucket as u128).div_ceil(BUCKETS as u128);
    range.first() + u64::try_from(offset).expect("within the range")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hash_with_most_of_the_load_is_found_among_others() {
        let load = Load::new(Some(KeyRange::ALL));
        for n in 0..1000_u64 {
            load.count(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1);
            load.count(42, 2);
        }
        let (hash, permille) = load.hot().unwrap();
        assert_eq!(hash, 42);
        assert!((600..=667).contains(&permille), "{permille}");
    }

    #[test]
    fn load_that_is_spread_has_no_hash_with_half_of_it() {
        let load = Load::new(Some(KeyRange::ALL));
        for n in 0..1000_u64 {
            load.count(n % 10, 1);
        }
        assert_eq!(load.hot(), None);
    }

    /// A hot key of the past once stayed one because what followed were queries for keys that are not there.
    #[test]
    fn misses_are_load_where_they_are() {
        let load = Load::new(Some(KeyRange::ALL));
        for _ in 0..100 {
            load.count(1, 1);
        }
        for n in 0..300_u64 {
            load.count_miss(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        assert_eq!((load.hot(), load.total(), load.misses()), (None, 100, 300));
        assert!(load.buckets()[32..].iter().sum::<u64>() > 100);
    }

    #[test]
    fn load_that_is_long_over_says_nothing_of_the_present() {
        let load = Load::new(Some(KeyRange::ALL));
        for _ in 0..20_000 {
            load.count(1, 1);
        }
        for _ in 0..20 * HALVED_AFTER {
            load.count(u64::MAX, 1);
        }
        assert_eq!(load.hot(), Some((u64::MAX, 1000)));
        assert_eq!(load.buckets()[0], 0);
        assert_eq!(load.total(), 20_000 + 20 * HALVED_AFTER);
    }

    proptest! {
        #[test]
        fn a_bucket_starts_at_the_first_hash_that_lies_in_it(first: u64, width: u64, bucket in 1usize..BUCKETS) {
            let range = KeyRange::new(first, first.saturating_add(width).max(first)).unwrap();
            prop_assume!(range.width() >= 64);
            let start = bucket_start(range, bucket);
            prop_assert_eq!(bucket_of(range, start), bucket);
            prop_assert_eq!(bucket_of(range, start - 1), bucket - 1);
        }
    }
}
