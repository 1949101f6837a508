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
    /// Rounds up to this time give no lease.
    disowned: Option<MonoTime>,
}

impl Rounds {
    /// Forgets everything: a new term begins, or leadership ended.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Rounds sent up to `time` give no lease any more: followers were told that they need not keep what those asked
    /// for, or promised less than is asked for now. They still confirm queries, which rest on no promise.
    pub(crate) fn disown(&mut self, time: MonoTime) {
        self.disowned = self.disowned.max(Some(time));
    }

    /// Whether a lease may rest on a confirmed round. One sent at the very instant up to which rounds are disowned may
    /// have gone out before, and does not count.
    pub(crate) fn gives_lease(&self, confirmed: MonoTime) -> bool {
        self.disowned < Some(confirmed)
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

/// What lifts a promise: the leader of `term` hands its leadership over, and has given up its lease beforehand for every
/// round that it sent up to `round`.
///
/// Nothing that was sent can be recalled. After an abort the leader counts later rounds only, and whoever has
/// acknowledged one of those knows by that that the exemption is over. So a quorum for a lease and a quorum of exempted
/// votes never come about together: they share a member, which keeps to whichever it did first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exemption {
    pub(crate) term: u64,
    pub(crate) round: u64,
}

impl Exemption {
    /// Whether it speaks of all that a member has promised, which accepted the round `accepted.1` of term `accepted.0`
    /// last. What earlier leaders were promised is void once a later one was elected, and there was an election of
    /// `term`.
    pub(crate) fn covers(self, accepted: (u64, u64)) -> bool {
        accepted.0 < self.term || (accepted.0 == self.term && accepted.1 <= self.round)
    }
}

/// A follower's promise to help nobody else to be elected.
#[derive(Debug, Default)]
pub(crate) struct Promise {
    until: MonoTime,
    /// Up to here it is not known any more to whom, and for which round, the promise was made.
    blind_until: MonoTime,
}

impl Promise {
    /// A heartbeat was accepted at `now`; a promise is never shortened by a later one.
    pub(crate) fn make(&mut self, now: MonoTime, asked: Duration) {
        self.until = self.until.max(now + asked.min(PROMISE_MAX));
    }

    /// A member that has lost what it knew of its promises keeps the longest there may be, and no exemption lifts it.
    pub(crate) fn make_blind(&mut self, now: MonoTime, longest: Duration) {
        self.make(now, longest);
        self.blind_until = self.until;
    }

    /// Whether a vote must be withheld at `now`, from a candidate with this exemption, by a member that accepted the
    /// round `accepted.1` of term `accepted.0` last.
    pub(crate) fn withholds(
        &self,
        now: MonoTime,
        exemption: Option<Exemption>,
        accepted: (u64, u64),
    ) -> bool {
        let exempt = exemption.is_some_and(|exemption| exemption.covers(accepted));
        self.runs(now) && (now < self.blind_until || !exempt)
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
    use proptest::prelude::*;

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
    fn a_disowned_round_gives_no_lease_and_a_later_one_does() {
        let mut rounds = Rounds::default();
        assert!(rounds.gives_lease(at(0)));
        rounds.disown(at(20));
        rounds.disown(at(10));
        assert!(!rounds.gives_lease(at(20)), "sent at the same instant, perhaps before");
        assert!(rounds.gives_lease(at(21)));
        rounds.reset();
        assert!(rounds.gives_lease(at(5)));
    }

    #[test]
    fn an_exemption_lifts_no_promise_of_a_later_round_or_term() {
        let exemption = Exemption { term: 5, round: 100 };
        let mut promise = Promise::default();
        promise.make(at(100), 200 * MS);
        let withheld = |accepted| promise.withholds(at(150), Some(exemption), accepted);
        assert!(!withheld((5, 100)));
        assert!(withheld((5, 101)), "a later round was acknowledged: the transfer is over");
        assert!(!withheld((4, 900)), "the leader of an earlier term has no lease once another was elected");
        assert!(withheld((6, 1)), "the exemption is of a leader that was replaced");
        assert!(promise.withholds(at(150), None, (5, 100)));
        assert!(!promise.withholds(at(300), None, (5, 101)), "no promise runs");
    }

    #[test]
    fn no_exemption_lifts_what_a_restarted_member_may_have_promised() {
        let exemption = Some(Exemption { term: 5, round: u64::MAX });
        let mut promise = Promise::default();
        promise.make_blind(at(100), 200 * MS);
        assert!(promise.withholds(at(299), exemption, (0, 0)));
        promise.make(at(250), 200 * MS);
        assert!(!promise.withholds(at(300), exemption, (5, 7)), "what was promised since then is known");
    }

    proptest! {
        /// Rounds, acknowledgements, transfers and cancels in any order and however late: while a leader holds a lease,
        /// those who might vote by an exemption that was ever given are no majority.
        #[test]
        fn no_quorum_both_gives_a_lease_and_votes_by_an_exemption(
            followers in 1u64..6,
            steps in proptest::collection::vec((0u8..6, 1u64..6, 0u64..4), 1..80),
        ) {
            let (mut rounds, mut now, mut transfer) = (Rounds::default(), 1, false);
            let mut sent: Vec<u64> = Vec::new();
            let mut exemptions: Vec<Exemption> = Vec::new();
            let mut accepted = BTreeMap::<u64, u64>::new();
            for (kind, who, late) in steps {
                now += late;
                match kind {
                    0 => {
                        rounds.send(at(now));
                        sent.push(at(now).nanos());
                    }
                    1..=3 if who <= followers => {
                        let round = sent.iter().rev().nth(late as usize).copied().unwrap_or(0);
                        let newest = accepted.entry(who).or_default();
                        *newest = round.max(*newest);
                        rounds.acknowledge(MemberId(who), MonoTime::from_nanos(*newest));
                    }
                    4 => {
                        transfer = true;
                        exemptions.push(Exemption { term: 1, round: at(now).nanos() });
                    }
                    5 if transfer => {
                        transfer = false;
                        rounds.disown(at(now));
                    }
                    _ => {}
                }
                let own = MemberId(followers + 1);
                let confirmed = rounds.confirmed(own, voters(followers + 1), at(now));
                let leased = !transfer && confirmed.is_some_and(|round| rounds.gives_lease(round));
                let might_vote = |who: &u64| {
                    let newest = accepted.get(who).copied().unwrap_or(0);
                    exemptions.iter().any(|exemption| exemption.covers((1, newest)))
                };
                // The leader itself votes by an exemption only while it transfers.
                let votes = (1..=followers).filter(might_vote).count() as u64;
                prop_assert!(!leased || 2 * votes <= followers + 1, "{votes} votes of {followers} followers");
            }
        }
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
