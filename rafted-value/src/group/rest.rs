//! Groups of which nothing is asked: they fall quiet, and neither beat nor tick.
//!
//! The leader of an idle group asks its members, in place of a beat, whether they can do without further ones. A member
//! that has everything consents, and from then on leans on the loop that drives the leader; once all have consented, the
//! leader leans on theirs. Whoever is in doubt wakes: for anything that is asked or said, for a loop that falls silent, for
//! a node that ends, and after `quiet_max` without a reason. TiKV hibernates its regions in this way.
//!
//! Nothing that is safe rests on this. A promise ends when it ends, a quiet leader has no lease once its last round is
//! old, and whoever is woken by a mistake, or sleeps too long by one, is early or late and nothing else. Where one is quiet
//! and another is not, the other's first word wakes it; where that is lost, the loops' silence does, as they share one
//! group less.

use std::time::Duration;

use raft::{INVALID_INDEX, ProgressState, StateRole};

use super::{Group, Turn};
use crate::config::LOOP_BEATS_MIN;
use crate::env::MonoTime;
use crate::id::{MemberId, NodeId};
use crate::message::{Body, GroupMessage};
use crate::neighbours::LoopId;
use crate::raft::forget_leader_lease;

/// Beats in a row in which a leader asks for consent, before it waits anew: somebody is away.
const ASKS_MAX: u8 = 3;

/// Whether a member rests.
#[derive(Debug)]
pub(super) struct Rest {
    /// When something was asked of the group last.
    stirred: MonoTime,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Awake,
    Asking(Box<Asking>),
    Quiet(Box<Quiet>),
}

/// A leader's question to its members.
#[derive(Debug)]
struct Asking {
    /// Consents to earlier rounds do not count.
    since: MonoTime,
    asked: u8,
    consents: Vec<(MemberId, NodeId, LoopId)>,
}

/// A member that does without beats.
#[derive(Debug)]
struct Quiet {
    /// The loops that it leans on.
    leans: Vec<(NodeId, LoopId)>,
}

impl Rest {
    pub(super) fn awake(now: MonoTime) -> Self {
        Self { stirred: now, stage: Stage::Awake }
    }

    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.stage, Stage::Quiet(_))
    }

    /// Whether the leader's beats ask for consent.
    pub(super) fn asks(&self) -> bool {
        matches!(self.stage, Stage::Asking(_))
    }
}

impl Group {
    /// Something is asked of the group, or said in it: it is not idle.
    pub(crate) fn stir(&mut self, turn: &mut Turn<'_>) {
        self.rest.stirred = turn.now;
        if self.rest.asks() {
            self.rest.stage = Stage::Awake;
        }
        self.wake(turn);
    }

    /// A client asks something that only the leader can answer.
    pub(crate) fn stir_leader(&mut self, turn: &mut Turn<'_>) {
        if self.leading.is_some() {
            self.stir(turn);
        }
    }

    /// Whether this member leans on the loop.
    pub(crate) fn leans_on(&self, id: LoopId) -> bool {
        matches!(&self.rest.stage, Stage::Quiet(quiet) if quiet.leans.iter().any(|(_, lean)| *lean == id))
    }

    /// A loop that this member may lean on was not heard since `heard`, or its node is in doubt.
    pub(crate) fn doubt(&mut self, turn: &mut Turn<'_>, heard: MonoTime) {
        if !self.rest.is_quiet() {
            return;
        }
        self.stir(turn);
        if self.leading.is_none() {
            // It waits as if the leader's last beat had come when its loop was heard last, and a moment for its answer.
            self.election_deadline = (heard + self.election_wait).max(turn.now + self.beat());
            forget_leader_lease(&mut self.raw.raft);
            self.say_wake(turn, self.raw.raft.leader_id);
        }
    }

    /// Beats and ticks again.
    fn wake(&mut self, turn: &mut Turn<'_>) {
        if !self.rest.is_quiet() {
            return;
        }
        self.release(turn);
        metrics::counter!("rafted_value_groups_woken_total").increment(1);
        self.plan_tick(turn.now);
        if self.leading.is_some() {
            self.raw.ping();
        } else {
            self.draw_election_deadline(turn);
        }
    }

    /// Leans on nobody any more.
    fn release(&mut self, turn: &mut Turn<'_>) {
        if let Stage::Quiet(quiet) = std::mem::replace(&mut self.rest.stage, Stage::Awake) {
            for (_, id) in quiet.leans {
                turn.neighbours.release(id);
            }
        }
    }

    /// The member ends: those who lean on it are told, as its loop goes on.
    pub(super) fn end_rest(&mut self, turn: &mut Turn<'_>) {
        if self.rest.is_quiet() {
            self.release(turn);
            let others: Vec<u64> = self.raw.raft.prs().iter().map(|(member, _)| *member).collect();
            for member in others {
                self.say_wake(turn, member);
            }
        }
    }

    fn say_wake(&self, turn: &mut Turn<'_>, member: u64) {
        let (to, term) = (MemberId(member), self.raw.raft.term);
        if let Some(node) = self.node_of(to).filter(|_| to != self.member) {
            let body = Body::Wake;
            turn.out.send(node, &GroupMessage { group: self.id, from: self.member, to, term, body });
        }
    }

    fn lean_on(&mut self, turn: &mut Turn<'_>, leans: Vec<(NodeId, LoopId)>, for_at_most: Duration) {
        self.release(turn);
        for (node, id) in &leans {
            turn.neighbours.lean(*node, *id, turn.now);
        }
        metrics::counter!("rafted_value_groups_quieted_total").increment(1);
        self.next_tick = turn.now + for_at_most;
        self.rest.stage = Stage::Quiet(Box::new(Quiet { leans }));
        self.trim();
    }

    /// A heartbeat is due: whether this leader asks, goes on asking, or gives up. A quiet leader asks again; a quiet
    /// follower that was not asked again for so long is in doubt.
    pub(super) fn tick_rest(&mut self, turn: &mut Turn<'_>) {
        if self.rest.is_quiet() && self.leading.is_none() {
            tracing::debug!(group = %self.id, member = %self.member, "was quiet for too long");
            return self.doubt(turn, turn.now);
        }
        if let Stage::Asking(asking) = &mut self.rest.stage {
            asking.asked += 1;
            if asking.asked > ASKS_MAX {
                self.stir(turn);
            }
        } else if self.leading.is_some() && (self.rest.is_quiet() || self.is_rested(turn)) {
            self.release(turn);
            // What was heard of members before they were quiet is as good as new.
            self.raw.raft.election_elapsed = 0;
            self.rest.stage =
                Stage::Asking(Box::new(Asking { since: turn.now, asked: 1, consents: Vec::new() }));
        }
        if !self.rest.asks() {
            return;
        }
        if self.may_rest() {
            self.rest_with_all(turn);
        } else {
            self.stir(turn);
        }
    }

    fn is_rested(&self, turn: &Turn<'_>) -> bool {
        let limits = turn.limits;
        // A follower that campaigns sooner than it could hear of its leader's loop would have no rest.
        let patient = self.election_timeout() >= limits.loop_beat * LOOP_BEATS_MIN;
        let after = limits.quiet_after;
        !after.is_zero() && patient && turn.now.since(self.rest.stirred) >= after && self.may_rest()
    }

    /// Whether all members have everything, as far as this leader knows, and nobody waits for anything.
    fn may_rest(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        let last = log.last_index();
        let has_everything = |(member, progress): (&u64, &raft::Progress)| {
            *member == self.member.0
                || (progress.state == ProgressState::Replicate
                    && progress.matched == last
                    && progress.pending_request_snapshot == INVALID_INDEX)
        };
        self.serving
            && self.holds_all(last)
            && self.raw.raft.prs().iter().all(has_everything)
            && self.waiting == 0
            && self.change.is_none()
            && self.transfer.is_none()
            && self.succession.is_none()
            && self.snapshots_sent.is_empty()
            && self.outgoing.is_empty()
            && self.commit_cap().is_none()
            && !self.config_is_new
            && !self.membership_forced
    }

    /// Whether everything in the log of this member is committed up to `commit`, applied, and where it has to be.
    fn holds_all(&self, commit: u64) -> bool {
        let log = &self.raw.raft.raft_log;
        log.committed == commit
            && log.last_index() == commit
            && log.applied == commit
            && self.machine.is_some()
            && self.incoming_snapshot.is_none()
            && self.keeper.is_settled()
    }

    /// Takes in what a message means for a member that rests, or is to; true if it means nothing else.
    pub(super) fn receive_in_rest(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        message: &GroupMessage,
    ) -> bool {
        let quiet = self.rest.is_quiet();
        let of_leader = message.from.0 == self.raw.raft.leader_id;
        match message.body {
            Body::Rest { .. } => self.receive_rest(turn, from, message),
            Body::RestAck { .. } => self.receive_consent(turn, from, message),
            // A leader says so when it ends.
            Body::Wake if quiet && of_leader => self.doubt(turn, turn.now),
            Body::Wake => self.stir(turn),
            Body::Beat { .. } | Body::BeatAck { .. } if !quiet => return false,
            _ => {
                self.stir(turn);
                if quiet && self.leading.is_none() && !of_leader {
                    self.say_wake(turn, self.raw.raft.leader_id);
                }
                return false;
            }
        }
        true
    }

    /// A leader asks for consent, with a beat.
    fn receive_rest(&mut self, turn: &mut Turn<'_>, from: NodeId, message: &GroupMessage) {
        let Body::Rest { commit, round, promise_ms, leader_loop } = message.body else { return };
        let (leader, term) = (message.from, message.term);
        let beat = GroupMessage { body: Body::Beat { commit, round, promise_ms }, ..message.clone() };
        self.receive_beat(turn, beat, round, promise_ms);
        let raft = &self.raw.raft;
        let follows = raft.state == StateRole::Follower
            && raft.term == term
            && raft.leader_id == leader.0
            && self.accepted == (term, round);
        if follows && self.holds_all(commit) && self.keeper.may_answer(term, promise_ms) {
            // Who is not asked again in this time has been forgotten.
            let for_at_most = turn.limits.quiet_max * 2;
            self.lean_on(turn, vec![(from, leader_loop)], for_at_most);
        } else {
            self.stir(turn);
        }
    }

    /// A member consents.
    fn receive_consent(&mut self, turn: &mut Turn<'_>, from: NodeId, message: &GroupMessage) {
        let Body::RestAck { commit, round, member_loop } = message.body else { return };
        let member = message.from;
        if self.leading != Some(message.term) || self.raw.raft.prs().get(member.0).is_none() {
            return;
        }
        let round_at = MonoTime::from_nanos(round);
        self.rounds.acknowledge(member, round_at);
        let ack = GroupMessage { body: Body::BeatAck { commit, round }, ..message.clone() };
        self.step(ack);
        if let Stage::Asking(asking) = &mut self.rest.stage
            && round_at >= asking.since
        {
            asking.consents.retain(|(known, ..)| *known != member);
            asking.consents.push((member, from, member_loop));
            self.rest_with_all(turn);
        }
    }

    /// Falls quiet once all members have consented and still nothing was asked.
    fn rest_with_all(&mut self, turn: &mut Turn<'_>) {
        let Stage::Asking(asking) = &self.rest.stage else { return };
        let members = self.raw.raft.prs();
        let others = members.iter().filter(|(member, _)| **member != self.member.0).count();
        let consented = asking.consents.iter().filter(|(member, ..)| members.get(member.0).is_some());
        if consented.count() < others || !self.may_rest() {
            return;
        }
        let leans = asking.consents.iter().map(|(_, node, id)| (*node, *id)).collect();
        // Groups that fell quiet together do not all ask again at once.
        let share = u32::try_from(self.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48).unwrap_or(0);
        let for_at_most = turn.limits.quiet_max / 2 + turn.limits.quiet_max / 2 * share / (1 << 16);
        self.lean_on(turn, leans, for_at_most);
    }

    /// What a beat, or the answer to one, says beside it.
    pub(super) fn with_rest(&self, body: Body, own: LoopId) -> Body {
        match body {
            Body::Beat { commit, round, promise_ms } if self.rest.asks() => {
                Body::Rest { commit, round, promise_ms, leader_loop: own }
            }
            Body::BeatAck { commit, round } if self.rest.is_quiet() => {
                Body::RestAck { commit, round, member_loop: own }
            }
            body => body,
        }
    }
}
