//! What a desk has at hand of each quota: passes of unlimited ones that are used again, and leases of places; pure.

use std::collections::BTreeMap;
use std::time::Duration;

use raft_kv::rafted_value::env::MonoTime;

use super::wire::{PlaceFate, Told};
use crate::agent_id::QuotaName;
use crate::wire::Pass;

/// For how long a pass of an unlimited quota is used again without asking: how long after a quota was deleted or got a
/// limit an agent may still be activated by somebody who has not heard of it.
pub(super) const REUSE_MAX: Duration = Duration::from_secs(2);
/// For how long a lease is used: how long places that are not needed here may be missing elsewhere.
pub(super) const LEASE_MAX: Duration = Duration::from_millis(500);
/// For how long it is believed that a quota of which places were leased has room.
const ROOM_MAX: Duration = Duration::from_secs(1);
/// Quotas of which something is kept.
const QUOTAS_MAX: usize = 10_000;

/// What is at hand of all quotas.
#[derive(Default, Debug)]
pub(super) struct Held {
    quotas: BTreeMap<QuotaName, AtHand>,
    leases: BTreeMap<u64, Lease>,
}

/// What is at hand of one quota.
#[derive(Debug)]
struct AtHand {
    pass: Pass,
    /// Until when it is used.
    until: MonoTime,
    /// `None` where the quota is unlimited.
    lease: Option<u64>,
    /// Until when the quota is believed to have room.
    roomy_until: MonoTime,
}

/// Places that may be given to any agent of a quota.
#[derive(Debug)]
struct Lease {
    /// Those that nobody has.
    free: u32,
    /// Those that somebody has.
    out: u32,
    /// The number of what is told of it next.
    number: u32,
    /// Whether a place that comes back may be given to somebody else.
    is_open: bool,
}

/// Whose a place is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Of {
    /// Of an unlimited quota, where nothing needs to be told.
    Unlimited,
    /// One of its own.
    One(u64),
    /// One of this lease's.
    Lease(u64),
}

/// What became of a place of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Used {
        hash: u64,
        at_ms: u64,
    },
    Unused,
    /// Nobody here knows.
    Unknown,
}

impl Held {
    /// A place that can be had without asking anybody.
    pub(super) fn take(&mut self, quota: &QuotaName, now: MonoTime) -> Option<(Pass, Of)> {
        let at_hand = self.quotas.get(quota).filter(|at_hand| now < at_hand.until)?;
        let Some(id) = at_hand.lease else { return Some((at_hand.pass, Of::Unlimited)) };
        let lease = self.leases.get_mut(&id)?;
        lease.free = lease.free.checked_sub(1)?;
        lease.out += 1;
        Some((at_hand.pass, Of::Lease(id)))
    }

    /// Whether a quota had much room just now: a place that turns out not to be needed is in nobody's way.
    pub(super) fn is_roomy(&self, quota: &QuotaName, now: MonoTime) -> bool {
        self.quotas.get(quota).is_some_and(|at_hand| now < at_hand.roomy_until)
    }

    /// Keeps the pass of an unlimited quota, for so long.
    pub(super) fn keep_unlimited(
        &mut self,
        quota: &QuotaName,
        pass: Pass,
        now: MonoTime,
        reuse: Duration,
    ) -> Option<Told> {
        self.keep(quota, AtHand { pass, until: now + reuse, lease: None, roomy_until: now }, now)
    }

    /// Keeps a lease of which so many places were given to somebody already; until when it is to be
    /// [closed](Self::close), and what is to be told of the one before.
    pub(super) fn keep_lease(
        &mut self,
        quota: &QuotaName,
        (id, pass): (u64, Pass),
        (places, out): (u32, u32),
        now: MonoTime,
    ) -> (MonoTime, Option<Told>) {
        let until = now + LEASE_MAX;
        let lease = Lease { free: places.saturating_sub(out), out, number: 0, is_open: true };
        self.leases.insert(id, lease);
        let told =
            self.keep(quota, AtHand { pass, until, lease: Some(id), roomy_until: now + ROOM_MAX }, now);
        (until, told)
    }

    fn keep(&mut self, quota: &QuotaName, at_hand: AtHand, now: MonoTime) -> Option<Told> {
        if self.quotas.len() >= QUOTAS_MAX {
            self.quotas.retain(|_, at_hand| now < at_hand.until.max(at_hand.roomy_until));
        }
        let lease = at_hand.lease;
        if self.quotas.len() < QUOTAS_MAX || self.quotas.contains_key(quota) {
            let before = self.quotas.insert(quota.clone(), at_hand);
            return before.and_then(|before| self.close(before.lease?));
        }
        // There is no room for it: nobody finds its places.
        self.close(lease?)
    }

    /// Forgets what is at hand of a quota, which is not good any more; what is to be told of it.
    pub(super) fn forget(&mut self, quota: &QuotaName) -> Option<Told> {
        let at_hand = self.quotas.remove(quota)?;
        self.close(at_hand.lease?)
    }

    /// Gives no more places of a lease; what is to be told of those that nobody has.
    pub(super) fn close(&mut self, id: u64) -> Option<Told> {
        let lease = self.leases.get_mut(&id)?;
        lease.is_open = false;
        let places = std::mem::take(&mut lease.free);
        let fate = (places > 0).then(|| PlaceFate::ReturnedOf { number: lease.number(), places });
        self.forget_if_over(id);
        fate.map(|fate| Told { place: id, fate })
    }

    /// A place of a lease has come to its end; what is to be told of that.
    pub(super) fn ended(&mut self, id: u64, end: End) -> Option<Told> {
        let lease = self.leases.get_mut(&id)?;
        lease.out = lease.out.saturating_sub(1);
        let fate = match end {
            End::Used { hash, at_ms } => Some(PlaceFate::UsedOf { number: lease.number(), hash, at_ms }),
            End::Unused if lease.is_open => {
                lease.free += 1;
                None
            }
            End::Unused => Some(PlaceFate::ReturnedOf { number: lease.number(), places: 1 }),
            // It counts until it can surely not be used any more.
            End::Unknown => None,
        };
        self.forget_if_over(id);
        fate.map(|fate| Told { place: id, fate })
    }

    fn forget_if_over(&mut self, id: u64) {
        if self.leases.get(&id).is_some_and(|lease| !lease.is_open && lease.out == 0) {
            self.leases.remove(&id);
        }
    }
}

impl Lease {
    fn number(&mut self) -> u32 {
        self.number += 1;
        self.number - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASS: Pass = Pass { generation: 1, until_ms: 60_000 };

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_nanos(ms * 1_000_000)
    }

    fn quota() -> QuotaName {
        QuotaName::new("q").unwrap()
    }

    /// Lease 7 of so many places, one of which went to who asked for it.
    fn leased(places: u32) -> Held {
        let mut held = Held::default();
        assert_eq!(held.keep_lease(&quota(), (7, PASS), (places, 1), at(0)), (at(500), None));
        held
    }

    fn returned(number: u32, places: u32) -> Option<Told> {
        Some(Told { place: 7, fate: PlaceFate::ReturnedOf { number, places } })
    }

    fn used(number: u32) -> Option<Told> {
        Some(Told { place: 7, fate: PlaceFate::UsedOf { number, hash: 3, at_ms: 4 } })
    }

    #[test]
    fn a_lease_gives_each_of_its_places_once_and_those_that_come_back_again() {
        let mut held = leased(3);
        assert_eq!(held.take(&quota(), at(1)), Some((PASS, Of::Lease(7))));
        assert_eq!(held.take(&quota(), at(1)), Some((PASS, Of::Lease(7))));
        assert_eq!(held.take(&quota(), at(1)), None);
        assert_eq!(held.ended(7, End::Unused), None);
        assert_eq!(held.take(&quota(), at(499)), Some((PASS, Of::Lease(7))));
        assert_eq!(held.ended(7, End::Used { hash: 3, at_ms: 4 }), used(0));
        assert_eq!(held.ended(7, End::Used { hash: 3, at_ms: 4 }), used(1));
        assert_eq!(held.take(&quota(), at(499)), None);
        assert_eq!(held.take(&QuotaName::new("other").unwrap(), at(1)), None);
    }

    #[test]
    fn what_is_left_of_a_lease_whose_time_is_over_is_returned_and_what_comes_back_later_too() {
        let mut held = leased(5);
        assert!(held.take(&quota(), at(1)).is_some());
        assert!(held.take(&quota(), at(1)).is_some());
        assert_eq!(held.take(&quota(), at(500)), None);
        assert_eq!(held.close(7), returned(0, 2));
        assert_eq!(held.close(7), None);
        assert_eq!(held.ended(7, End::Unused), returned(1, 1));
        assert_eq!(held.ended(7, End::Used { hash: 3, at_ms: 4 }), used(2));
        assert_eq!(held.ended(7, End::Unused), returned(3, 1));
        assert!(held.leases.is_empty());
        assert!(held.is_roomy(&quota(), at(999)) && !held.is_roomy(&quota(), at(1_000)));
    }

    /// Whether the agent was activated only its shard knows, and only the shard's count may end the place.
    #[test]
    fn a_place_of_which_nobody_knows_is_not_returned() {
        let mut held = leased(2);
        assert_eq!(held.ended(7, End::Unknown), None);
        assert_eq!(held.close(7), returned(0, 1));
        assert!(held.leases.is_empty());
    }

    #[test]
    fn a_new_lease_ends_the_one_before() {
        let mut held = leased(3);
        let (until, told) = held.keep_lease(&quota(), (8, PASS), (4, 4), at(100));
        assert_eq!((until, told), (at(600), returned(0, 2)));
        assert_eq!(held.take(&quota(), at(101)), None);
        assert_eq!(held.ended(7, End::Unused), returned(1, 1));
        assert_eq!(held.ended(8, End::Unused), None);
        assert_eq!(held.take(&quota(), at(101)), Some((PASS, Of::Lease(8))));
    }

    #[test]
    fn a_pass_of_an_unlimited_quota_is_used_again_for_a_while() {
        let mut held = Held::default();
        let told = held.keep_unlimited(&quota(), PASS, at(0), Duration::from_millis(50));
        assert_eq!(told, None);
        for _ in 0..3 {
            assert_eq!(held.take(&quota(), at(49)), Some((PASS, Of::Unlimited)));
        }
        assert_eq!(held.take(&quota(), at(50)), None);
        assert!(!held.is_roomy(&quota(), at(1)));
    }

    #[test]
    fn a_quota_that_is_forgotten_gives_nothing_and_its_places_come_back() {
        let mut held = leased(3);
        assert_eq!(held.forget(&quota()), returned(0, 2));
        assert_eq!(held.forget(&quota()), None);
        assert_eq!(held.take(&quota(), at(1)), None);
        assert_eq!(held.ended(7, End::Unused), returned(1, 1));
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut held = Held::default();
        for n in 0..QUOTAS_MAX {
            let quota = QuotaName::new(n.to_string()).unwrap();
            held.keep_unlimited(&quota, PASS, at(0), Duration::from_millis(50));
        }
        let one_more = held.keep_lease(&quota(), (7, PASS), (3, 1), at(1));
        assert_eq!(one_more, (at(501), returned(0, 2)));
        assert_eq!((held.quotas.len(), held.take(&quota(), at(2))), (QUOTAS_MAX, None));
        // Those that are over make room.
        assert_eq!(held.keep_lease(&quota(), (8, PASS), (3, 1), at(51)), (at(551), None));
        assert_eq!(held.take(&quota(), at(52)), Some((PASS, Of::Lease(8))));
    }
}
