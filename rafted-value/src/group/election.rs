//! When a member campaigns, votes and promises: our clock decides, not raft's ticks.

use std::time::Duration;

use raft::StateRole;
use rand_core::RngCore;

use super::{Group, Turn};
use crate::config::PROMISE_MAX_MS;
use crate::env::MonoTime;
use crate::id::{MemberId, NodeId};
use crate::message::{Body, GroupMessage};
use crate::raft::forget_leader_lease;

/// Between its shortest and its longest wait a member has this many instants to campaign at. Few enough that the groups
/// of a dead node's leaders campaign together, many enough that two members seldom choose the same.
const CAMPAIGN_INSTANTS: u64 = 32;
/// How often a follower of a dead leader tries again after a short wait; then it waits as everybody does, since it is
/// the other voters that are missing.
const HURRIED_TRIES_MAX: u32 = 6;
/// How often the span that waits are drawn from doubles while elections are lost.
const DOUBLINGS_MAX: u32 = 3;
const MS: u64 = 1_000_000;

/// A follower of a leader whose process has ended, until somebody else leads.
///
/// The end is a hint of the transport: where it is wrong, the leader's beats go on, each with a promise, and nothing
/// happens. Where it is right, messages that were on their way may still come in after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bereaved {
    leader: u64,
    term: u64,
    /// How long after the end of its promise this member's turn comes; `None` for one that has no vote.
    turn: Option<Duration>,
    /// Campaigns and votes after which nobody led.
    tries: u32,
}

impl Group {
    /// Waits for a random time within the election timeout before it campaigns (Raft, section 5.2).
    ///
    /// After elections that this member has lost, the time may be longer: what is right where votes take a moment is too
    /// short where disks take as long as the timeout, and then every candidate gives up before its votes come in, or asks
    /// for them when the others vote for themselves.
    pub(super) fn draw_election_deadline(&mut self, turn: &mut Turn<'_>) {
        let span = self.campaign_span() << self.elections_lost.min(DOUBLINGS_MAX);
        let min = u64::from(self.config.election_timeout_min_ms) * MS;
        let wait = min + turn.rng.next_u64() % span.max(1);
        self.election_wait = Duration::from_nanos(wait);
        self.election_deadline = turn.now + self.election_wait;
        self.bereaved = None;
    }

    /// By how much the waits of two members may differ, in nanoseconds.
    fn campaign_span(&self) -> u64 {
        u64::from(self.config.election_timeout_max_ms - self.config.election_timeout_min_ms) * MS
    }

    /// Whether this member follows a leader on that node.
    pub(crate) fn follows(&self, node: NodeId) -> bool {
        self.leading.is_none() && self.leader_node() == Some(node)
    }

    /// The process of the leader's node has ended: a follower waits for its promise, and for nothing else.
    /// Members take turns, so that they do not split the vote; who comes first differs from group to group.
    pub(crate) fn hear_of_death(&mut self, turn: &mut Turn<'_>, node: NodeId) {
        let (leader, term) = (self.raw.raft.leader_id, self.raw.raft.term);
        let voters = self.raw.raft.prs().conf().voters().ids();
        let others: Vec<u64> = voters.iter().filter(|voter| *voter != leader).collect();
        let beat = self.beat();
        tracing::debug!(group = %self.id, member = %self.member, %node, "the leader's process has ended");
        let Some(rank) = others.iter().position(|voter| *voter == self.member.0) else {
            // It does not campaign, but others may ask for its vote: they may know that it has one.
            self.bereaved = Some(Bereaved { leader, term, turn: None, tries: 0 });
            return;
        };
        let turn_of = (rank as u64 + self.id.0) % others.len() as u64;
        // The last beat may have come to another member a little later, and its promise with it.
        let wait = beat / 8 + beat / 2 * turn_of as u32;
        self.bereaved = Some(Bereaved { leader, term, turn: Some(wait), tries: 0 });
        self.await_turn(turn.now);
    }

    pub(super) fn beat(&self) -> Duration {
        Duration::from_millis(self.config.heartbeat_ms.into())
    }

    /// Whether this member has heard that the process of the leader that it follows has ended.
    pub(super) fn mourns(&self) -> Option<&Bereaved> {
        let (leader, term) = (self.raw.raft.leader_id, self.raw.raft.term);
        self.bereaved.as_ref().filter(|bereaved| (bereaved.leader, bereaved.term) == (leader, term))
    }

    /// A member that mourns campaigns in its turn after its promise; what it has heard of the leader since counts for
    /// the promise, and is no reason to wait for an election timeout.
    fn await_turn(&mut self, now: MonoTime) {
        if let Some(turn) = self.mourns().and_then(|bereaved| bereaved.turn) {
            self.election_deadline = now.max(self.promise.end()) + turn;
        }
    }

    /// Waits for somebody to lead, after a campaign or a vote: not for long if the group has none that lives.
    ///
    /// Two members that ask at the same moment split the vote, and one that lacks an entry is refused while the other's
    /// turn is over: each then waited for a whole election timeout.
    fn await_leader(&mut self, turn: &mut Turn<'_>, at_least: Duration) {
        let beat = self.beat();
        match &mut self.bereaved {
            Some(bereaved) if bereaved.turn.is_some() && bereaved.tries < HURRIED_TRIES_MAX => {
                bereaved.tries += 1;
                let more = turn.rng.next_u64() % (2 * beat.as_nanos() as u64).max(1);
                self.election_deadline = turn.now + at_least + Duration::from_nanos(more);
            }
            _ => self.draw_election_deadline(turn),
        }
    }

    /// When the deadline and the promise are over, on a grid that is finer than the heartbeats: with those for a grid,
    /// members whose waits span no more than a heartbeat drew the same number of them again and again, split every
    /// vote, and elected nobody.
    pub(super) fn campaign_instant(&self) -> MonoTime {
        let grid =
            (self.campaign_span() / CAMPAIGN_INSTANTS).clamp(MS, u64::from(self.config.heartbeat_ms) * MS);
        let due = self.election_deadline.max(self.promise.end());
        if self.bereaved.is_some() {
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
            // Short waits after a death are their own remedy.
            if self.raw.raft.state == StateRole::Candidate && self.bereaved.is_none() {
                self.elections_lost = self.elections_lost.saturating_add(1);
            }
            self.campaign();
        } else {
            self.ask_whether_removed(turn);
        }
        self.await_leader(turn, self.beat() / 2);
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
        if pre && self.expects_another(turn.now, candidate) {
            return;
        }
        if self.mourns().is_some() {
            // raft counts ticks since it heard of the leader, and would not listen for an election timeout.
            forget_leader_lease(&mut self.raw.raft);
        }
        if planted!(BreakPromise) && self.leading.is_none() {
            // raft has a guard of its own, by ticks since it heard of its leader.
            self.raw.raft.leader_id = raft::INVALID_ID;
        }
        let newer = term > self.raw.raft.term;
        self.step(message);
        let raft = &self.raw.raft;
        // Whoever asks for a vote in earnest was told by a majority that it would get theirs.
        if !pre && raft.term == term && (raft.vote == candidate.0 || (newer && self.bereaved.is_some())) {
            self.await_leader(turn, 2 * self.beat());
        }
    }

    /// Whether this member gave its vote to another candidate a moment ago, in the place of a leader that died. Whoever
    /// asks in between would be elected over that one when it has just begun to lead, and those who followed it by then
    /// would not listen to anybody for an election timeout.
    fn expects_another(&self, now: MonoTime, candidate: MemberId) -> bool {
        let raft = &self.raw.raft;
        self.bereaved.is_some_and(|bereaved| raft.term > bereaved.term)
            && ![raft::INVALID_ID, self.member.0, candidate.0].contains(&raft.vote)
            && now < self.election_deadline
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
            self.await_turn(turn.now);
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
            self.elections_lost = 0;
        }
        if accepted && self.mourns().is_none() {
            self.draw_election_deadline(turn);
        } else if accepted {
            self.await_turn(turn.now);
        }
        accepted
    }
}
