//! Ranges of key hashes: what a shard is responsible for.

use std::fmt;

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
