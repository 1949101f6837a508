//! When a member campaigns, votes and promises: our clock decides, not raft's ticks.

use std::time::Duration;

use rand_core::RngCore;

use super::{Group, Turn};
use crate::config::PROMISE_MAX_MS;
use crate::env::MonoTime;
use crate::id::NodeId;
use crate::message::{Body, GroupMessage};

/// Between its shortest and its longest wait a member has this many instants to campaign at. Few enough that the groups
/// of a dead node's leaders campaign together, many enough that two members seldom choose the same.
const CAMPAIGN_INSTANTS: u64 = 32;
const MS: u64 = 1_000_000;

impl Group {
    /// Waits for a random time within the election timeout before it campaigns (Raft, section 5.2).
    pub(super) fn draw_election_deadline(&mut self, turn: &mut Turn<'_>) {
        let (min, max) = (self.config.election_timeout_min_ms, self.config.election_timeout_max_ms);
        let span = u64::from(max - min) * MS;
        let wait = u64::from(min) * MS + turn.rng.next_u64() % span.max(1);
        self.election_wait = Duration::from_nanos(wait);
        self.election_deadline = turn.now + self.election_wait;
        self.hurries = false;
    }

    /// Whether this member follows a leader on that node.
    pub(crate) fn follows(&self, node: NodeId) -> bool {
        self.leading.is_none() && self.leader_node() == Some(node)
    }

    /// The process of the leader's node has ended: a follower waits for its promise, and for nothing else.
    /// Members take turns, so that they do not split the vote; who comes first differs from group to group.
    pub(crate) fn hear_of_death(&mut self, turn: &mut Turn<'_>, node: NodeId) {
        let voters = self.raw.raft.prs().conf().voters().ids();
        let leader = self.raw.raft.leader_id;
        let others: Vec<u64> = voters.iter().filter(|voter| *voter != leader).collect();
        let Some(rank) = others.iter().position(|voter| *voter == self.member.0) else { return };
        let turn_of = (rank as u64 + self.id.0) % others.len() as u64;
        // The last beat may have come to another member a little later, and its promise with it.
        let beat = u64::from(self.config.heartbeat_ms) * MS;
        let wait = beat / 8 + beat / 2 * turn_of;
        self.election_deadline = turn.now.max(self.promise.end()) + Duration::from_nanos(wait);
        self.hurries = true;
        tracing::debug!(group = %self.id, member = %self.member, %node, "the leader's process has ended");
    }

    /// When the deadline and the promise are over, on a grid that is finer than the heartbeats: with those for a grid,
    /// members whose waits span no more than a heartbeat drew the same number of them again and again, split every
    /// vote, and elected nobody.
    pub(super) fn campaign_instant(&self) -> MonoTime {
        let span = u64::from(self.config.election_timeout_max_ms - self.config.election_timeout_min_ms) * MS;
        let grid = (span / CAMPAIGN_INSTANTS).clamp(MS, u64::from(self.config.heartbeat_ms) * MS);
        let due = self.election_deadline.max(self.promise.end());
        if self.hurries {
            return due;
        }
        MonoTime::from_nanos(due.nanos().div_ceil(grid).saturating_mul(grid))
    }

    /// Campaigns if no leader was heard for long enough and no promise stands in the way.
    pub(super) fn campaign_if_due(&mut self, turn: &mut Turn<'_>) {
        if self.leading.is_some() || turn.now < self.election_deadline || self.promise.runs(turn.now) {
            return;
        }
        if !self.keeper.is_settled() {
            tracing::debug!(group = %self.id, member = %self.member, "does not campaign before the disk has all it knows");
        } else if self.raw.raft.promotable() {
            tracing::debug!(group = %self.id, member = %self.member, term = self.raw.raft.term, "campaigns");
            self.campaign();
        } else {
            self.ask_whether_removed(turn);
        }
        self.draw_election_deadline(turn);
    }

    /// A learner, or who is no member any more, hears nothing: perhaps it was removed while it was away. It asks for
    /// votes that nobody will give to an empty log, and whoever has applied its removal says so.
    fn ask_whether_removed(&self, turn: &mut Turn<'_>) {
        let Some(machine) = &self.machine else { return };
        let term = self.raw.raft.term + 1;
        let body = Body::Vote { pre: true, log_term: 0, index: 0, commit: 0, commit_term: 0, priority: 0 };
        for (&to, &node) in machine.nodes().iter().filter(|(member, _)| **member != self.member) {
            let question = GroupMessage { group: self.id, from: self.member, to, term, body: body.clone() };
            turn.out.send(node, &question);
        }
    }

    /// A group of one needs no vote but its own, and no wait.
    pub(super) fn campaign_alone(&mut self) {
        let own = self.member.0;
        let alone = self.raw.raft.prs().conf().voters().ids().iter().all(|voter| voter == own);
        if alone && self.leading.is_none() && self.raw.raft.promotable() && self.keeper.is_settled() {
            self.campaign();
        }
    }

    pub(super) fn campaign(&mut self) {
        if let Err(error) = self.raw.campaign() {
            tracing::debug!(group = %self.id, %error, "cannot campaign");
        }
    }

    /// A candidate asks, and no promise runs.
    pub(super) fn receive_vote(&mut self, turn: &mut Turn<'_>, message: GroupMessage, pre: bool) {
        let (candidate, term) = (message.from, message.term);
        if planted!(BreakPromise) && self.leading.is_none() {
            // raft has a guard of its own, by ticks since it heard of its leader.
            self.raw.raft.leader_id = raft::INVALID_ID;
        }
        self.step(message);
        let raft = &self.raw.raft;
        if !pre && raft.term == term && raft.vote == candidate.0 {
            self.draw_election_deadline(turn);
        }
    }

    /// A leader, or a former one, says that it lives.
    pub(super) fn receive_beat(
        &mut self,
        turn: &mut Turn<'_>,
        message: GroupMessage,
        round: u64,
        promise_ms: u32,
    ) {
        let term = message.term;
        self.keeper.note_promise(promise_ms.min(PROMISE_MAX_MS));
        if self.receive_from_leader(turn, message) {
            self.promise.make(turn.now, Duration::from_millis(promise_ms.into()));
            let newest = if self.accepted.0 == term { self.accepted.1.max(round) } else { round };
            if self.machine.is_some() {
                self.accepted = (term, newest);
            }
        }
    }

    /// Gives a leader's message to raft; true if its sender is the leader of the term this member is in.
    pub(super) fn receive_from_leader(&mut self, turn: &mut Turn<'_>, message: GroupMessage) -> bool {
        let (leader, term) = (message.from, message.term);
        self.step(message);
        let raft = &self.raw.raft;
        let accepted = raft.term == term && raft.leader_id == leader.0 && leader != self.member;
        if accepted {
            self.draw_election_deadline(turn);
        }
        accepted
    }
}
