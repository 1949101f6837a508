//! Ranges of key hashes: what a shard is responsible for.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// A range of 64-bit key hashes with both ends in it, never empty.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct KeyRange {
    first: u64,
    last: u64,
}

impl KeyRange {
    /// The range of all hashes.
    pub const ALL: KeyRange = KeyRange { first: 0, last: u64::MAX };

    /// The range from `first` to `last`, both in it; `None` when `last` is below `first`.
    pub fn new(first: u64, last: u64) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The range of shard `index` of `shards` equal ones (to within one hash).
    ///
    /// The parts of one number of shards meet and cover all hashes, and [`part_of`](KeyRange::part_of) names the one
    /// that a hash lies in.
    ///
    /// # Panics
    ///
    /// Panics when `index` is not below `shards`.
    pub fn part(index: u32, shards: u32) -> Self {
        assert!(index < shards, "part {index} of {shards}");
        let start = |index: u32| (u128::from(index) << 64).div_ceil(u128::from(shards));
        let first = u64::try_from(start(index)).expect("index is below shards");
        let last = u64::try_from(start(index + 1) - 1).expect("index + 1 is at most shards");
        Self { first, last }
    }

    /// Which of `shards` equal ranges a hash lies in.
    ///
    /// # Panics
    ///
    /// Panics when `shards` is zero.
    pub fn part_of(hash: u64, shards: u32) -> u32 {
        assert!(shards > 0, "no shards");
        u32::try_from((u128::from(hash) * u128::from(shards)) >> 64).expect("below shards")
    }

    /// The lowest hash in it.
    pub fn first(self) -> u64 {
        self.first
    }

    /// The highest hash in it.
    pub fn last(self) -> u64 {
        self.last
    }

    /// All of its hashes.
    pub fn hashes(self) -> RangeInclusive<u64> {
        self.first..=self.last
    }

    /// How many hashes it holds.
    pub fn width(self) -> u128 {
        u128::from(self.last - self.first) + 1
    }

    /// Whether some hash lies in both.
    pub fn overlaps(self, other: KeyRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether every hash of the other lies in it.
    pub fn covers(self, other: KeyRange) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// What lies in both.
    pub fn common(self, other: KeyRange) -> Option<KeyRange> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// The range below `at` and the one from it on; `None` where one of them would be empty.
    pub fn split_at(self, at: u64) -> Option<(KeyRange, KeyRange)> {
        let below = at.checked_sub(1).and_then(|last| Self::new(self.first, last))?;
        Some((below, Self::new(at, self.last)?))
    }

    /// The one range that two make which meet; `None` where they do not.
    pub fn joined(self, other: KeyRange) -> Option<KeyRange> {
        let (low, high) = if self.first < other.first { (self, other) } else { (other, self) };
        (low.last.checked_add(1) == Some(high.first)).then_some(Self { first: low.first, last: high.last })
    }

    /// What is left without `part`, which must lie at one end; `None` where nothing is, or two pieces are.
    pub fn without(self, part: KeyRange) -> Option<KeyRange> {
        if !self.covers(part) {
            return None;
        }
        match (part.first == self.first, part.last == self.last) {
            (true, false) => Self::new(part.last + 1, self.last),
            (false, true) => Self::new(self.first, part.first - 1),
            _ => None,
        }
    }

    /// Whether a hash lies in it.
    pub fn contains(self, hash: u64) -> bool {
        self.first <= hash && hash <= self.last
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}..={:016x}", self.first, self.last)
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<(u64, u64)> for KeyRange {
    type Error = &'static str;

    fn try_from((first, last): (u64, u64)) -> Result<Self, &'static str> {
        Self::new(first, last).ok_or("the key range ends before it starts")
    }
}

impl From<KeyRange> for (u64, u64) {
    fn from(range: KeyRange) -> Self {
        (range.first, range.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_shard_has_all_hashes() {
        assert_eq!(KeyRange::part(0, 1), KeyRange::ALL);
    }

    #[test]
    fn what_is_split_or_taken_away_joins_again() {
        let (low, high) = KeyRange::ALL.split_at(1000).unwrap();
        assert_eq!((low.last(), high.first()), (999, 1000));
        assert_eq!(low.joined(high), Some(KeyRange::ALL));
        assert_eq!(high.joined(low), Some(KeyRange::ALL));
        assert_eq!(low.joined(low), None);
        assert_eq!(KeyRange::ALL.without(high), Some(low));
        assert_eq!(KeyRange::ALL.without(low), Some(high));
        assert_eq!(KeyRange::ALL.without(KeyRange::ALL), None);
        assert_eq!(KeyRange::ALL.without(KeyRange::new(5, 9).unwrap()), None);
        assert_eq!(low.without(high), None);
        assert_eq!(KeyRange::ALL.split_at(0), None);
        assert_eq!(low.split_at(1000), None);
        assert_eq!(high.common(KeyRange::new(5, 1001).unwrap()), KeyRange::new(1000, 1001));
        assert_eq!(KeyRange::ALL.width(), 1 << 64);
    }

    proptest! {
        #[test]
        fn the_parts_cover_every_hash_once(shards in 1_u32..3000) {
            let mut next = Some(0);
            for index in 0..shards {
                let part = KeyRange::part(index, shards);
                prop_assert_eq!(Some(part.first()), next);
                prop_assert_eq!(KeyRange::part_of(part.first(), shards), index);
                prop_assert_eq!(KeyRange::part_of(part.last(), shards), index);
                next = part.last().checked_add(1);
            }
            prop_assert_eq!(next, None);
        }

        #[test]
        fn a_hash_lies_in_the_part_that_is_named_for_it(hash: u64, shards in 1_u32..=u32::MAX) {
            prop_assert!(KeyRange::part(KeyRange::part_of(hash, shards), shards).contains(hash));
        }
    }
}
