//! How many agents the shards hold, as they reported it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::wire::Report;
use crate::agent_id::QuotaName;

/// A quota of which there may have been several of one name, one after the other.
pub(crate) type QuotaLife = (QuotaName, u64);

/// The newest report from each part of the space of key hashes. Parts never overlap.
#[derive(Clone, Default, Debug)]
pub(crate) struct Counts {
    parts: BTreeMap<u64, Part>,
    /// The sums over all parts, whatever was reported of each.
    totals: BTreeMap<QuotaLife, u128>,
}

/// What was reported of one part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    first: u64,
    last: u64,
    at_ms: u64,
    counts: BTreeMap<QuotaLife, u64>,
}

impl Counts {
    /// Those with these parts, which came from [`parts`](Self::parts).
    pub(super) fn of(parts: Vec<Part>) -> Self {
        let mut counts = Self::default();
        parts.into_iter().for_each(|part| counts.add(part));
        counts
    }

    pub(super) fn parts(self) -> Vec<Part> {
        self.parts.into_values().collect()
    }

    /// Takes over a report; false if a newer one is known.
    ///
    /// Shards are split and merged, so a report may cover a part of what an earlier one covered, or several. Where the
    /// agents of the earlier one were is not known; until the rest is reported too, all of them count there. It may be too
    /// many for a moment, and is never too few.
    pub(super) fn learn(&mut self, report: &Report) -> bool {
        let Report { first, last, at_ms, .. } = *report;
        let touched = self.parts.range(..=last).rev().take_while(|(_, part)| part.last >= first);
        let touched: Vec<u64> = touched.map(|(first, _)| *first).collect();
        if touched.iter().any(|part| self.parts[part].at_ms > at_ms) {
            return false;
        }
        let mut counts = BTreeMap::new();
        for (quota, generation, count) in &report.counts {
            let counted: &mut u64 = counts.entry((quota.clone(), *generation)).or_insert(0);
            *counted = counted.saturating_add(*count);
        }
        for key in touched {
            let old = self.take(key);
            if old.last > last {
                self.add(Part { first: last + 1, counts: old.counts.clone(), ..old });
            }
            if old.first < first {
                self.add(Part { last: first - 1, ..old });
            }
        }
        self.add(Part { first, last, at_ms, counts });
        true
    }

    /// The stamped time of the newest report that covers a hash.
    pub(super) fn at(&self, hash: u64) -> Option<u64> {
        let (_, part) = self.parts.range(..=hash).next_back()?;
        (part.last >= hash).then_some(part.at_ms)
    }

    /// How many agents there are.
    pub(super) fn total(&self, quota: &QuotaLife) -> u64 {
        self.totals.get(quota).map_or(0, |total| u64::try_from(*total).unwrap_or(u64::MAX))
    }

    /// The stamped time of the oldest report, if every part of the space was reported from.
    pub(super) fn oldest(&self) -> Option<u64> {
        let (mut next, mut oldest) = (Some(0), u64::MAX);
        for part in self.parts.values() {
            if next != Some(part.first) {
                return None;
            }
            oldest = oldest.min(part.at_ms);
            next = part.last.checked_add(1);
        }
        next.is_none().then_some(oldest)
    }

    fn add(&mut self, mut part: Part) {
        part.counts.retain(|_, count| *count > 0);
        for (quota, count) in &part.counts {
            *self.totals.entry(quota.clone()).or_insert(0) += u128::from(*count);
        }
        self.parts.insert(part.first, part);
    }

    fn take(&mut self, first: u64) -> Part {
        let part = self.parts.remove(&first).expect("only parts that are there are taken");
        for (quota, count) in &part.counts {
            let total = self.totals.get_mut(quota).expect("what is counted is in the sum");
            *total -= u128::from(*count);
            if *total == 0 {
                self.totals.remove(quota);
            }
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Counts {
        /// Whether every part of the space was reported from later than this.
        fn are_all_later_than(&self, time_ms: u64) -> bool {
            self.oldest().is_some_and(|oldest| oldest > time_ms)
        }
    }

    fn quota() -> QuotaLife {
        (QuotaName::new("q").unwrap(), 1)
    }

    fn learn(counts: &mut Counts, first: u64, last: u64, at_ms: u64, agents: u64) -> u64 {
        let (quota, generation) = quota();
        let counted = if agents == 0 { vec![] } else { vec![(quota, generation, agents)] };
        counts.learn(&Report { first, last, at_ms, counts: counted });
        counts.total(&self::quota())
    }

    #[test]
    fn a_report_replaces_the_one_before_and_an_older_one_changes_nothing() {
        let mut counts = Counts::default();
        assert_eq!(learn(&mut counts, 0, 99, 5, 10), 10);
        assert_eq!(learn(&mut counts, 100, u64::MAX, 4, 1), 11);
        assert_eq!(learn(&mut counts, 0, 99, 6, 7), 8);
        assert_eq!(learn(&mut counts, 0, 99, 5, 10), 8);
        assert_eq!((counts.at(50), counts.at(100)), (Some(6), Some(4)));
        assert!(counts.are_all_later_than(3));
        assert!(!counts.are_all_later_than(4));
    }

    #[test]
    fn a_shard_that_is_split_or_merged_is_never_counted_as_less_than_it_was() {
        let mut counts = Counts::default();
        learn(&mut counts, 0, 99, 5, 10);
        // The half that reports first has 4, perhaps new ones: all of the 10 may be in the other.
        assert_eq!(learn(&mut counts, 50, 99, 6, 4), 14);
        assert_eq!(learn(&mut counts, 0, 49, 6, 6), 10);
        assert_eq!(learn(&mut counts, 0, 49, 7, 0), 4);
        assert_eq!(learn(&mut counts, 0, 99, 8, 9), 9);
        assert_eq!(learn(&mut counts, 30, 69, 9, 1), 19);
        assert_eq!((counts.at(0), counts.at(30), counts.at(70)), (Some(8), Some(9), Some(8)));
        assert_eq!(learn(&mut counts, 0, 99, 10, 2), 2);
        assert!(!counts.are_all_later_than(0), "the rest of the space has never reported");
    }
    /// Quotas of which two shards had said that they have no agents once ended the ledger when one of them said so again.
    #[test]
    fn a_report_of_no_agents_is_one_of_nothing() {
        let mut counts = Counts::default();
        let (name, generation) = quota();
        for at_ms in [1, 2, 3] {
            for (first, last) in [(0, 9), (10, 19)] {
                let none = vec![(name.clone(), generation, 0)];
                assert!(counts.learn(&Report { first, last, at_ms, counts: none }));
            }
        }
        assert_eq!(counts.total(&quota()), 0);
    }

    /// What a node reports is a number of its own; the sum of two such numbers once ended the ledger.
    #[test]
    fn no_report_is_too_large_to_be_counted() {
        let mut counts = Counts::default();
        let (name, generation) = quota();
        let twice = vec![(name.clone(), generation, u64::MAX), (name, generation, 1)];
        assert!(counts.learn(&Report { first: 0, last: 9, at_ms: 1, counts: twice }));
        assert_eq!(learn(&mut counts, 10, 19, 1, u64::MAX), u64::MAX);
        assert_eq!(learn(&mut counts, 20, 29, 1, 3), u64::MAX);
        assert_eq!(learn(&mut counts, 0, 9, 2, 4), u64::MAX);
        assert_eq!(learn(&mut counts, 10, 19, 2, 5), 12);
    }
}
