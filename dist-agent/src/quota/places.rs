//! Places that were taken and are not in any shard's count for sure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::QuotaLife;

/// Places by the hash of their agent, and how many there are for each quota.
#[derive(Clone, Default, Debug)]
pub(crate) struct Places {
    open: BTreeMap<(u64, u64), Open>,
    hashes: BTreeMap<u64, u64>,
    sums: BTreeMap<QuotaLife, Sum>,
}

/// A place that was taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    pub(super) hash: u64,
    pub(super) place: u64,
    pub(super) quota: QuotaLife,
    /// No agent is activated with it after this stamped time of its shard.
    until_ms: u64,
    /// The stamped time at which its agent was activated, where that is known.
    used_at_ms: Option<u64>,
    /// Whether a report may have counted its agent already.
    unsure: bool,
}

/// The places of one quota.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Sum {
    pub(super) places: u64,
    /// Those that may be counted twice.
    pub(super) unsure: u64,
}

impl Places {
    pub(super) fn of(open: Vec<Open>) -> Self {
        let mut places = Self::default();
        open.into_iter().for_each(|open| places.insert(open));
        places
    }

    pub(super) fn open(self) -> Vec<Open> {
        self.open.into_values().collect()
    }

    /// Takes a place.
    pub(super) fn take(&mut self, place: u64, quota: QuotaLife, hash: u64, until_ms: u64) {
        self.insert(Open { hash, place, quota, until_ms, used_at_ms: None, unsure: false });
    }

    /// Gives a place back.
    pub(super) fn give_back(&mut self, place: u64) {
        if let Some(hash) = self.hashes.get(&place) {
            self.remove((*hash, place));
        }
    }

    /// An agent was activated with a place; `counted_ms` is the time of the newest report that may have counted it.
    pub(super) fn used(&mut self, place: u64, at_ms: u64, counted_ms: impl FnOnce(u64) -> Option<u64>) {
        let Some(hash) = self.hashes.get(&place).copied() else { return };
        let counted_ms = counted_ms(hash);
        if counted_ms.is_some_and(|counted_ms| counted_ms > at_ms) {
            return self.remove((hash, place));
        }
        self.change((hash, place), |open| {
            open.used_at_ms = Some(at_ms);
            open.unsure = counted_ms == Some(at_ms);
        });
    }

    /// The shard of these hashes has reported what it held at a time: everything that was stamped earlier.
    pub(super) fn reported(&mut self, first: u64, last: u64, at_ms: u64) {
        let in_shard: Vec<_> = self.open.range((first, 0)..=(last, u64::MAX)).map(|(key, _)| *key).collect();
        for key in in_shard {
            let open = &self.open[&key];
            if at_ms > open.used_at_ms.unwrap_or(open.until_ms) {
                self.remove(key);
            } else if open.used_at_ms.is_none_or(|used_at_ms| used_at_ms == at_ms) {
                self.change(key, |open| open.unsure = true);
            }
        }
    }

    /// Forgets the places of a quota that is gone.
    pub(super) fn forget(&mut self, quota: &QuotaLife) {
        let of_quota = self.open.iter().filter(|(_, open)| open.quota == *quota);
        let of_quota: Vec<_> = of_quota.map(|(key, _)| *key).collect();
        of_quota.into_iter().for_each(|key| self.remove(key));
    }

    pub(super) fn sum(&self, quota: &QuotaLife) -> Sum {
        self.sums.get(quota).copied().unwrap_or_default()
    }

    /// The hashes of all agents whose place waits for a report.
    pub(super) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.open.keys().map(|(hash, _)| *hash)
    }

    fn insert(&mut self, open: Open) {
        let sum = self.sums.entry(open.quota.clone()).or_default();
        sum.places += 1;
        sum.unsure += u64::from(open.unsure);
        self.hashes.insert(open.place, open.hash);
        self.open.insert((open.hash, open.place), open);
    }

    fn remove(&mut self, key: (u64, u64)) {
        let open = self.open.remove(&key).expect("only places that are open are removed");
        self.hashes.remove(&open.place);
        let sum = self.sums.get_mut(&open.quota).expect("a place is in the sum");
        sum.places -= 1;
        sum.unsure -= u64::from(open.unsure);
        if sum.places == 0 {
            self.sums.remove(&open.quota);
        }
    }

    fn change(&mut self, key: (u64, u64), change: impl FnOnce(&mut Open)) {
        let open = self.open.get_mut(&key).expect("only places that are open are changed");
        let before = u64::from(open.unsure);
        change(open);
        let sum = self.sums.get_mut(&open.quota).expect("a place is in the sum");
        sum.unsure = sum.unsure - before + u64::from(open.unsure);
    }
}
