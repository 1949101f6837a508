//! The lease under which a leader answers queries alone, and the promise of its followers that makes it safe.
//!
//! A heartbeat carries the leader's own clock (its *round*) and asks for a promise: for so long after receiving it, the
//! follower helps nobody else to be elected. Once a quorum has acknowledged a round, no other leader can exist before
//! `round + promise`, whatever the followers' clocks read, as long as clocks run at nearly one speed; the drift margin
//! pays for "nearly". Raft dissertation, section 6.4.1, with the promise kept by us because Raft's own check counts
//! ticks. The same rounds confirm a query without a lease (section 6.4, ReadIndex): a quorum that acknowledges a round
//! sent after the query came proves that its receiver led then.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::PROMISE_MAX_MS;
use crate::env::MonoTime;
use crate::id::MemberId;

/// No follower promises for longer than this, whatever it is asked; no configuration asks for more.
const PROMISE_MAX: Duration = Duration::from_millis(PROMISE_MAX_MS as u64);

/// A leader's knowledge of which rounds its followers have acknowledged, for one term.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    sent: Option<MonoTime>,
    acknowledged: BTreeMap<MemberId, MonoTime>,
}

impl Rounds {
    /// Forgets everything: a new term begins, or leadership ended.
    pub(crate) fn reset(&mut self) {
        self.sent = None;
        self.acknowledged.clear();
    }

    /// A round of heartbeats goes out at `now`.
    pub(crate) fn send(&mut self, now: MonoTime) {
        self.sent = self.sent.max(Some(now));
    }

    /// When the newest round went out.
    pub(crate) fn newest(&self) -> Option<MonoTime> {
        self.sent
    }

    /// A follower accepted a round of this term. One that was never sent is ignored.
    pub(crate) fn acknowledge(&mut self, member: MemberId, round: MonoTime) {
        if self.sent.is_some_and(|sent| round <= sent) {
            let newest = self.acknowledged.entry(member).or_insert(round);
            *newest = round.max(*newest);
        }
    }

    /// Whether a member has acknowledged a round that was sent at `time` or later.
    pub(crate) fn heard_since(&self, member: MemberId, time: MonoTime) -> bool {
        self.acknowledged.get(&member).is_some_and(|round| *round >= time)
    }

    /// The send time of the newest round that a quorum of `voters`, the leader `own` included, has acknowledged; for a
    /// group of one that is `now`.
    pub(crate) fn confirmed(
        &self,
        own: MemberId,
        voters: impl Iterator<Item = MemberId>,
        now: MonoTime,
    ) -> Option<MonoTime> {
        let mut rounds: Vec<Option<MonoTime>> = voters
            .map(|voter| if voter == own { Some(now) } else { self.acknowledged.get(&voter).copied() })
            .collect();
        if rounds.is_empty() {
            return None;
        }
        rounds.sort_unstable_by(|a, b| b.cmp(a));
        rounds[rounds.len() / 2]
    }
}

/// When the lease that rests on a confirmed round ends; in the past where the margin eats the whole promise.
pub(crate) fn lease_end(confirmed: MonoTime, promise: Duration, drift_margin: Duration) -> MonoTime {
    confirmed + promise.min(PROMISE_MAX).saturating_sub(drift_margin)
}

/// A follower's promise to help nobody else to be elected.
#[derive(Debug, Default)]
pub(crate) struct Promise {
    until: MonoTime,
}

impl Promise {
    /// A heartbeat was accepted at `now`; a promise is never shortened by a later one.
    pub(crate) fn make(&mut self, now: MonoTime, asked: Duration) {
        self.until = self.until.max(now + asked.min(PROMISE_MAX));
    }

    /// When the promise ends.
    pub(crate) fn end(&self) -> MonoTime {
        self.until
    }

    /// Whether the promise runs.
    pub(crate) fn runs(&self, now: MonoTime) -> bool {
        now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_nanos(ms * 1_000_000)
    }

    fn voters(n: u64) -> impl Iterator<Item = MemberId> {
        (1..=n).map(MemberId)
    }

    #[test]
    fn a_round_is_confirmed_by_a_quorum_and_no_less() {
        let mut rounds = Rounds::default();
        rounds.send(at(10));
        rounds.send(at(20));
        rounds.acknowledge(MemberId(2), at(10));
        assert_eq!(rounds.confirmed(MemberId(1), voters(5), at(30)), None);
        rounds.acknowledge(MemberId(3), at(20));
        assert_eq!(rounds.confirmed(MemberId(1), voters(5), at(30)), Some(at(10)));
        assert_eq!(rounds.confirmed(MemberId(1), voters(3), at(30)), Some(at(20)));
        assert_eq!(rounds.confirmed(MemberId(1), voters(4), at(30)), Some(at(10)));
    }

    #[test]
    fn a_group_of_one_confirms_itself() {
        assert_eq!(Rounds::default().confirmed(MemberId(1), voters(1), at(30)), Some(at(30)));
    }

    #[test]
    fn an_acknowledgement_of_a_round_never_sent_counts_for_nothing() {
        let mut rounds = Rounds::default();
        rounds.acknowledge(MemberId(2), at(5));
        rounds.send(at(10));
        rounds.acknowledge(MemberId(2), at(11));
        assert_eq!(rounds.confirmed(MemberId(1), voters(3), at(30)), None);
    }

    #[test]
    fn an_older_acknowledgement_takes_nothing_back() {
        let mut rounds = Rounds::default();
        rounds.send(at(20));
        rounds.acknowledge(MemberId(2), at(20));
        rounds.acknowledge(MemberId(2), at(10));
        assert_eq!(rounds.confirmed(MemberId(1), voters(3), at(30)), Some(at(20)));
    }

    #[test]
    fn a_margin_as_long_as_the_promise_switches_the_lease_off() {
        assert_eq!(lease_end(at(100), 200 * MS, 20 * MS), at(280));
        assert_eq!(lease_end(at(100), 200 * MS, 300 * MS), at(100));
    }

    #[test]
    fn a_later_shorter_promise_does_not_shorten_the_first() {
        let mut promise = Promise::default();
        promise.make(at(100), 200 * MS);
        promise.make(at(110), 10 * MS);
        assert!(promise.runs(at(299)));
        assert!(!promise.runs(at(300)));
    }
}
