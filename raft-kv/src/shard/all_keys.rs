//! Which commands to all keys have run where.
//!
//! A command to all keys runs page by page, each over a range of hashes, and its pages may be asked of one shard, then of
//! its halves, then of the shard that they became again. What has run is therefore written down by the command's id and
//! by hashes: it goes to both halves at a split, is joined at a merge, and no hash is covered twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::key_range::KeyRange;

/// Commands to all keys that a shard remembers at most; more are refused until some are past their time.
const COMMANDS_MAX: usize = 256;
/// Ranges that one of them may have been cut into.
const RANGES_MAX: usize = 4096;

/// A command to all keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct AllCommand {
    /// Drawn at random by the caller; the same for every page and every attempt.
    pub(crate) id: u128,
    /// After this stamped time it runs nowhere any more.
    pub(crate) until_ms: u64,
    /// The hashes of this page.
    pub(crate) range: KeyRange,
    /// It runs on the keys of about so many hashes.
    pub(crate) keys_max: u32,
}

/// What has run, by id.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct AllKeys(BTreeMap<u128, Covered>);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Covered {
    until_ms: u64,
    /// Ascending, and neither overlapping nor touching.
    ranges: Vec<KeyRange>,
}

/// Why a command to all keys does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotAll {
    /// It is past its time.
    Expired,
    /// Too many are remembered.
    TooMany,
}

impl AllKeys {
    /// Forgets what is past its time, and says whether a command may run.
    pub(super) fn admit(&mut self, now_ms: u64, command: &AllCommand) -> Result<(), NotAll> {
        self.0.retain(|_, covered| covered.until_ms >= now_ms);
        if command.until_ms < now_ms {
            return Err(NotAll::Expired);
        }
        let full = match self.0.get(&command.id) {
            Some(covered) => covered.ranges.len() >= RANGES_MAX,
            None => self.0.len() >= COMMANDS_MAX,
        };
        if full { Err(NotAll::TooMany) } else { Ok(()) }
    }

    /// The first part of `range` that the command has run on; it begins where `range` begins or later.
    pub(super) fn covered(&self, id: u128, range: KeyRange) -> Option<KeyRange> {
        self.0.get(&id)?.ranges.iter().find_map(|covered| covered.common(range))
    }

    /// Notes that the command has run on a range.
    pub(super) fn cover(&mut self, id: u128, until_ms: u64, range: KeyRange) {
        let covered = self.0.entry(id).or_insert(Covered { until_ms, ranges: Vec::new() });
        let mut joined = range;
        covered.ranges.retain(|present| {
            let meets = present.overlaps(joined) || present.joined(joined).is_some();
            if meets {
                let (first, last) = (present.first().min(joined.first()), present.last().max(joined.last()));
                joined = KeyRange::new(first, last).expect("the first is at most the last");
            }
            !meets
        });
        let at = covered.ranges.partition_point(|present| present.first() < joined.first());
        covered.ranges.insert(at, joined);
    }

    /// What was run within a range.
    pub(super) fn within(&self, range: KeyRange) -> AllKeys {
        let within = self.0.iter().filter_map(|(id, Covered { until_ms, ranges })| {
            let ranges: Vec<KeyRange> = ranges.iter().filter_map(|covered| covered.common(range)).collect();
            (!ranges.is_empty()).then_some((*id, Covered { until_ms: *until_ms, ranges }))
        });
        AllKeys(within.collect())
    }

    /// Takes over what another shard knows.
    pub(super) fn join(&mut self, other: AllKeys) {
        for (id, Covered { until_ms, ranges }) in other.0 {
            for range in ranges {
                self.cover(id, until_ms, range);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: u64, last: u64) -> KeyRange {
        KeyRange::new(first, last).unwrap()
    }

    #[test]
    fn a_command_past_its_time_is_refused_and_forgotten() {
        let mut all = AllKeys::default();
        let command = AllCommand { id: 1, until_ms: 100, range: KeyRange::ALL, keys_max: 1 };
        assert_eq!(all.admit(100, &command), Ok(()));
        all.cover(1, 100, range(0, 9));
        assert_eq!(all.admit(101, &command), Err(NotAll::Expired));
        assert_eq!(all, AllKeys::default());
    }

    #[test]
    fn a_shard_remembers_so_many_and_refuses_more() {
        let mut all = AllKeys::default();
        for id in 0..COMMANDS_MAX as u128 {
            all.cover(id, 100, range(0, 9));
        }
        let command = |id| AllCommand { id, until_ms: 100, range: KeyRange::ALL, keys_max: 1 };
        assert_eq!(all.admit(50, &command(3)), Ok(()));
        assert_eq!(all.admit(50, &command(1000)), Err(NotAll::TooMany));
    }

    proptest! {
        #[test]
        fn ranges_are_a_set_of_hashes(steps in proptest::collection::vec((0u64..40, 0u64..10), 0..20)) {
            let (mut all, mut set) = (AllKeys::default(), std::collections::BTreeSet::new());
            for (first, more) in steps {
                all.cover(1, 9, range(first, first + more));
                set.extend(first..=first + more);
            }
            for hash in 0..60 {
                prop_assert_eq!(all.covered(1, range(hash, hash)).is_some(), set.contains(&hash));
            }
            let mut halves = all.within(range(0, 20));
            halves.join(all.within(range(21, u64::MAX)));
            prop_assert_eq!(&halves, &all);
            let ranges = all.0.get(&1).map_or(Vec::new(), |covered| covered.ranges.clone());
            prop_assert!(ranges.windows(2).all(|pair| pair[0].last() + 1 < pair[1].first()));
        }
    }
}
