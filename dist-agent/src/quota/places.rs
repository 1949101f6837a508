//! Places that were taken and are not in any shard's count for sure.
//!
//! Most are taken by number for one agent each. A **lease** is of many, for agents that are not known yet: it is used up one
//! by one as it is told of agents that were activated with it, and the rest comes back. Of what is left of a lease nobody
//! knows whether it was used and counted; it is over when every shard has reported from a time at which it could not be
//! used any longer.
//!
//! Nobody speaks of a used place of a lease again, so it needs no number. There may be hundreds of thousands of them in a
//! storm of activations: they lie in no order, by part of the space of key hashes, and a report walks those of its parts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Into how many equal parts the space of key hashes is divided, to say where a report is waited for.
pub(crate) const PARTS: u64 = 256;

/// Which of the [`PARTS`] equal parts a hash lies in.
pub(crate) fn part_of(hash: u64) -> u8 {
    (hash / (u64::MAX / PARTS + 1)) as u8
}

/// Which quota of those that there ever were, whatever its name.
type Generation = u64;

/// Places by the hash of their agent, leases, and how many places there are for each quota.
#[derive(Clone, Default, Debug)]
pub(crate) struct Places {
    open: BTreeMap<(u64, u64), Open>,
    hashes: BTreeMap<u64, u64>,
    used: BTreeMap<u8, Vec<Used>>,
    leases: BTreeMap<u64, Lease>,
    sums: BTreeMap<Generation, Sum>,
}

/// Places in the form in which they are stored.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredPlaces {
    open: Vec<Open>,
    used: Vec<Used>,
    leases: BTreeMap<u64, Lease>,
}

/// A place that was taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    hash: u64,
    place: u64,
    quota: Generation,
    /// No agent is activated with it after this stamped time of its shard.
    until_ms: u64,
    /// The stamped time at which its agent was activated, where that is known.
    used_at_ms: Option<u64>,
    /// Whether a report may have counted its agent already.
    unsure: bool,
}

/// A place of a lease with which an agent was activated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Used {
    hash: u64,
    quota: Generation,
    /// The stamped time of its activation.
    at_ms: u64,
    /// Whether a report may have counted the agent already.
    unsure: bool,
}

/// Places of which a desk gives one to whichever agent of the quota is activated next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Lease {
    quota: Generation,
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
    /// Takes a place.
    pub(super) fn take(&mut self, place: u64, quota: Generation, hash: u64, until_ms: u64) {
        self.insert(Open { hash, place, quota, until_ms, used_at_ms: None, unsure: false });
    }

    /// Takes so many places for agents that are not known yet.
    pub(super) fn lease(&mut self, id: u64, quota: Generation, places: u32, until_ms: u64) {
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

    /// An agent was activated with a place of a lease; `counted_ms` is the time of the newest report that may have counted
    /// it.
    pub(super) fn used_of(
        &mut self,
        (id, number): (u64, u32),
        (hash, at_ms): (u64, u64),
        counted_ms: Option<u64>,
    ) {
        let Some(quota) = self.end_of(id, number, 1) else { return };
        if counted_ms.is_none_or(|counted_ms| counted_ms <= at_ms) {
            self.insert_used(Used { hash, quota, at_ms, unsure: counted_ms == Some(at_ms) });
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
        let Self { used, sums, .. } = self;
        for used in used.range_mut(part_of(first)..=part_of(last)).map(|(_, used)| used) {
            used.retain_mut(|used| {
                if !(first..=last).contains(&used.hash) || used.at_ms > at_ms {
                    return true;
                }
                let before = u64::from(used.unsure);
                used.unsure = true;
                change_sum(sums, used.quota, |sum| match used.at_ms == at_ms {
                    true => sum.unsure += 1 - before,
                    false => (sum.places, sum.unsure) = (sum.places - 1, sum.unsure - before),
                });
                used.at_ms == at_ms
            });
        }
        self.used.retain(|_, used| !used.is_empty());
    }

    /// Forgets the places of a quota that is gone.
    pub(super) fn forget(&mut self, quota: Generation) {
        let of_quota = self.open.iter().filter(|(_, open)| open.quota == quota);
        let of_quota: Vec<_> = of_quota.map(|(key, _)| *key).collect();
        of_quota.into_iter().for_each(|key| self.remove(key));
        self.used.values_mut().for_each(|used| used.retain(|used| used.quota != quota));
        self.used.retain(|_, used| !used.is_empty());
        self.leases.retain(|_, lease| lease.quota != quota);
        self.sums.remove(&quota);
    }

    pub(super) fn sum(&self, quota: Generation) -> Sum {
        self.sums.get(&quota).copied().unwrap_or_default()
    }

    /// The parts of the space in which the place of some agent waits for a report.
    pub(super) fn parts(&self) -> BTreeSet<u8> {
        self.open.keys().map(|(hash, _)| part_of(*hash)).chain(self.used.keys().copied()).collect()
    }

    /// How many leases there are, of which any may wait for a report from anywhere.
    pub(super) fn leases(&self) -> u64 {
        self.leases.len() as u64
    }

    /// Ends so many places of a lease, unless that was told before; whose they were.
    fn end_of(&mut self, id: u64, number: u32, places: u32) -> Option<Generation> {
        let lease = self.leases.get_mut(&id).filter(|lease| lease.number <= number)?;
        lease.number = number.saturating_add(1);
        let places = places.min(lease.left);
        lease.left -= places;
        let (quota, is_over) = (lease.quota, lease.left == 0);
        if is_over {
            self.leases.remove(&id);
        }
        change_sum(&mut self.sums, quota, |sum| sum.end_leased(places));
        Some(quota)
    }

    fn insert_lease(&mut self, id: u64, lease: Lease) {
        if lease.left == 0 {
            // It is over.
            return;
        }
        let (sum, left) = (self.sums.entry(lease.quota).or_default(), u64::from(lease.left));
        (sum.places, sum.unsure, sum.leased) = (sum.places + left, sum.unsure + left, sum.leased + left);
        self.leases.insert(id, lease);
    }

    fn remove_lease(&mut self, id: u64) {
        let lease = self.leases.remove(&id).expect("only leases that are there are removed");
        change_sum(&mut self.sums, lease.quota, |sum| sum.end_leased(lease.left));
    }

    fn insert_used(&mut self, used: Used) {
        let sum = self.sums.entry(used.quota).or_default();
        sum.places += 1;
        sum.unsure += u64::from(used.unsure);
        self.used.entry(part_of(used.hash)).or_default().push(used);
    }

    fn insert(&mut self, open: Open) {
        let sum = self.sums.entry(open.quota).or_default();
        sum.places += 1;
        sum.unsure += u64::from(open.unsure);
        self.hashes.insert(open.place, open.hash);
        self.open.insert((open.hash, open.place), open);
    }

    fn remove(&mut self, key: (u64, u64)) {
        let open = self.open.remove(&key).expect("only places that are open are removed");
        self.hashes.remove(&open.place);
        change_sum(&mut self.sums, open.quota, |sum| {
            sum.places -= 1;
            sum.unsure -= u64::from(open.unsure);
        });
    }

    fn change(&mut self, key: (u64, u64), change: impl FnOnce(&mut Open)) {
        let open = self.open.get_mut(&key).expect("only places that are open are changed");
        let before = u64::from(open.unsure);
        change(open);
        let after = u64::from(open.unsure);
        change_sum(&mut self.sums, open.quota, |sum| sum.unsure = sum.unsure - before + after);
    }
}

impl Sum {
    /// So many places of leases are none any more; they were in all sums.
    fn end_leased(&mut self, places: u32) {
        let places = u64::from(places);
        (self.places, self.unsure, self.leased) =
            (self.places - places, self.unsure - places, self.leased - places);
    }
}

/// Changes the sum of a quota that has places, and forgets it with the last of them.
fn change_sum(sums: &mut BTreeMap<Generation, Sum>, quota: Generation, change: impl FnOnce(&mut Sum)) {
    let sum = sums.get_mut(&quota).expect("every place is in the sum of its quota");
    change(sum);
    if sum.places == 0 {
        sums.remove(&quota);
    }
}

impl From<StoredPlaces> for Places {
    fn from(StoredPlaces { open, used, leases }: StoredPlaces) -> Self {
        let mut places = Self::default();
        open.into_iter().for_each(|open| places.insert(open));
        used.into_iter().for_each(|used| places.insert_used(used));
        for (id, lease) in leases {
            places.insert_lease(id, lease);
        }
        places
    }
}

impl From<Places> for StoredPlaces {
    fn from(Places { open, used, leases, .. }: Places) -> Self {
        let (open, used) = (open.into_values().collect(), used.into_values().flatten().collect());
        Self { open, used, leases }
    }
}
