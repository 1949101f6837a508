//! Places that were taken and are not in any shard's count for sure.
//!
//! Most are taken by number for one agent each. A **lease** is of many, for agents that are not known yet: it is used up one
//! by one as it is told of agents that were activated with it, and the rest comes back. Of what is left of a lease nobody
//! knows whether it was used and counted; it is over when every shard has reported from a time at which it could not be
//! used any longer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::QuotaLife;

/// Places by the hash of their agent, leases, and how many places there are for each quota.
#[derive(Clone, Default, Debug)]
pub(crate) struct Places {
    open: BTreeMap<(u64, u64), Open>,
    hashes: BTreeMap<u64, u64>,
    leases: BTreeMap<u64, Lease>,
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

/// Places of which a desk gives one to whichever agent of the quota is activated next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Lease {
    quota: QuotaLife,
    /// Places of which nothing was told.
    left: u32,
    /// The number of what is told next; what has a lower one was told before.
    number: u32,
    /// No agent is activated with it after this stamped time of its shard.
    until_ms: u64,
}

/// The places of one quota.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Sum {
    /// All of them.
    pub(super) places: u64,
    /// Those that may be counted twice, or not be needed.
    pub(super) unsure: u64,
    /// Those of leases of which nothing was told.
    pub(super) leased: u64,
}

impl Places {
    pub(super) fn of(open: Vec<Open>, leases: BTreeMap<u64, Lease>) -> Self {
        let mut places = Self::default();
        open.into_iter().for_each(|open| places.insert(open));
        for (id, lease) in leases {
            places.insert_lease(id, lease);
        }
        places
    }

    pub(super) fn into_parts(self) -> (Vec<Open>, BTreeMap<u64, Lease>) {
        (self.open.into_values().collect(), self.leases)
    }

    /// Takes a place.
    pub(super) fn take(&mut self, place: u64, quota: QuotaLife, hash: u64, until_ms: u64) {
        self.insert(Open { hash, place, quota, until_ms, used_at_ms: None, unsure: false });
    }

    /// Takes so many places for agents that are not known yet.
    pub(super) fn lease(&mut self, id: u64, quota: QuotaLife, places: u32, until_ms: u64) {
        self.insert_lease(id, Lease { quota, left: places, number: 0, until_ms });
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

    /// An agent was activated with a place of a lease, which gets a number of its own.
    pub(super) fn used_of(
        &mut self,
        (id, number): (u64, u32),
        place: u64,
        (hash, at_ms): (u64, u64),
        counted_ms: Option<u64>,
    ) {
        let Some(quota) = self.end_of(id, number, 1) else { return };
        if counted_ms.is_none_or(|counted_ms| counted_ms <= at_ms) {
            let unsure = counted_ms == Some(at_ms);
            self.insert(Open { hash, place, quota, until_ms: at_ms, used_at_ms: Some(at_ms), unsure });
        }
    }

    /// Gives places of a lease back.
    pub(super) fn give_back_of(&mut self, (id, number): (u64, u32), places: u32) {
        self.end_of(id, number, places);
    }

    /// Every shard has reported from a later time than this.
    pub(super) fn all_reported(&mut self, oldest_ms: u64) {
        let over = self.leases.iter().filter(|(_, lease)| lease.until_ms < oldest_ms);
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.remove_lease(id));
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
        let leases = self.leases.iter().filter(|(_, lease)| lease.quota == *quota);
        let leases: Vec<_> = leases.map(|(id, _)| *id).collect();
        leases.into_iter().for_each(|id| self.remove_lease(id));
    }

    pub(super) fn sum(&self, quota: &QuotaLife) -> Sum {
        self.sums.get(quota).copied().unwrap_or_default()
    }

    /// The hashes of all agents whose place waits for a report.
    pub(super) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.open.keys().map(|(hash, _)| *hash)
    }

    /// How many leases there are, of which any may wait for a report from anywhere.
    pub(super) fn leases(&self) -> u64 {
        self.leases.len() as u64
    }

    /// Ends so many places of a lease, unless that was told before; whose they were.
    fn end_of(&mut self, id: u64, number: u32, places: u32) -> Option<QuotaLife> {
        let lease = self.leases.get_mut(&id).filter(|lease| lease.number <= number)?;
        lease.number = number.saturating_add(1);
        let places = places.min(lease.left);
        lease.left -= places;
        let (quota, is_over) = (lease.quota.clone(), lease.left == 0);
        self.change_leased(&quota, |leased| leased - u64::from(places));
        if is_over {
            self.leases.remove(&id);
        }
        Some(quota)
    }

    fn insert_lease(&mut self, id: u64, lease: Lease) {
        if lease.left == 0 {
            // It is over.
            return;
        }
        self.sums.entry(lease.quota.clone()).or_default();
        self.change_leased(&lease.quota, |leased| leased + u64::from(lease.left));
        self.leases.insert(id, lease);
    }

    fn remove_lease(&mut self, id: u64) {
        let lease = self.leases.remove(&id).expect("only leases that are there are removed");
        self.change_leased(&lease.quota, |leased| leased - u64::from(lease.left));
    }

    /// Changes how many places of leases a quota has; they are in all its sums.
    fn change_leased(&mut self, quota: &QuotaLife, change: impl FnOnce(u64) -> u64) {
        let sum = self.sums.get_mut(quota).expect("a lease is in the sum");
        let (before, after) = (sum.leased, change(sum.leased));
        sum.leased = after;
        sum.places = sum.places - before + after;
        sum.unsure = sum.unsure - before + after;
        if sum.places == 0 {
            self.sums.remove(quota);
        }
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
