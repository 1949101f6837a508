//! Changes of the membership: one at a time, a learner first, a voter when it has caught up.
//!
//! A change counts on each member from when that member applies it, which is when it hears that the entry is committed.
//! Where nobody but the leader knew, its end would leave members of two memberships: of a pair and a third that was
//! promoted, one still asks for the votes of the pair, and the other believes that it has none. So a change of the voters
//! is done only when a quorum of the new voters tells that it knows: they then survive the loss of any minority, and
//! their requests for votes tell the others.

use std::time::Duration;

use raft::StateRole;
use raft::eraftpb::{Entry, EntryType};

use super::machine::Machine;
use super::{Group, Turn};
use crate::config::GroupConfig;
use crate::env::MonoTime;
use crate::error::GroupError;
use crate::id::{MemberId, NodeId};
use crate::message::{ChangeKind, MemberChange};
use crate::raft::convert::{change_to_raft, write_change};
use crate::waiter::Waiter;

/// A learner that lacks no more than this many entries has caught up.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// A change that was proposed and is not applied yet.
pub(super) struct PendingChange {
    term: u64,
    index: u64,
    member: MemberId,
    pub(super) waiter: Waiter<Result<MemberId, GroupError>>,
}

/// A change that was applied, and who waits for it, with the answer.
pub(super) struct Settled {
    pub(super) waiter: Waiter<Result<MemberId, GroupError>>,
    pub(super) answer: Result<MemberId, GroupError>,
    /// Whether it is of the voters, so that enough of them must know it first.
    of_voters: bool,
}

/// What is asked of the membership or the settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ChangeRequest {
    AddLearner(NodeId),
    Promote(MemberId),
    Remove(MemberId),
    /// Removes the learner on a node, if there is one.
    RemoveLearnerOn(NodeId),
    ForceRemove(MemberId),
    Configure(Box<GroupConfig>),
}

/// What became of a member that was to be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removal {
    /// It was removed.
    Removed,
    /// It had been removed before.
    GoneBefore,
}

impl Group {
    /// Proposes a change of the membership, or says why not.
    pub(crate) fn request_change(
        &mut self,
        turn: &mut Turn<'_>,
        request: ChangeRequest,
        waiter: Waiter<Result<MemberId, GroupError>>,
    ) {
        let request = match request {
            ChangeRequest::ForceRemove(member) => {
                return match self.force_remove(member) {
                    Ok(member) => self.answer_forced(turn, member, waiter),
                    Err(error) => turn.out.member(waiter, Err(error)),
                };
            }
            ChangeRequest::Configure(config) => return self.request_config(turn, *config, waiter),
            request => request,
        };
        match self.plan_change(turn.now, &request) {
            Ok(Planned::Already(member)) => turn.out.member(waiter, Ok(member)),
            Ok(Planned::Propose(change)) => self.propose_change(turn, change, waiter),
            Err(error) => turn.out.member(waiter, Err(error)),
        }
    }

    fn plan_change(&self, now: MonoTime, request: &ChangeRequest) -> Result<Planned, GroupError> {
        let machine = self.machine_as_leader()?;
        let conf = self.raw.raft.prs().conf();
        let no_such = |member: MemberId, operation: &str| GroupError::NoSuchMember {
            group: self.id,
            member,
            operation: operation.to_owned(),
        };
        let change = match *request {
            ChangeRequest::AddLearner(node) => {
                if let Some((&member, _)) = machine.nodes().iter().find(|(_, n)| **n == node) {
                    return Ok(Planned::Already(member));
                }
                MemberChange { kind: ChangeKind::AddLearner, member: machine.next_member(), node }
            }
            ChangeRequest::Promote(member) => {
                if conf.voters().contains(member.0) {
                    return self.check_voters_know().map(|()| Planned::Already(member));
                }
                let node = *machine.nodes().get(&member).ok_or_else(|| no_such(member, "promoted"))?;
                self.check_caught_up(now, member)?;
                MemberChange { kind: ChangeKind::Promote, member, node }
            }
            ChangeRequest::Remove(member) => {
                let Some(&node) = machine.nodes().get(&member) else {
                    self.check_voters_know()?;
                    return Err(self.not_member(member));
                };
                if member == self.member {
                    return Err(GroupError::Leads { group: self.id, member });
                }
                self.check_quorum_without(now, member)?;
                MemberChange { kind: ChangeKind::Remove, member, node }
            }
            ChangeRequest::RemoveLearnerOn(node) => {
                let learner = machine
                    .nodes()
                    .iter()
                    .find(|(member, of)| **of == node && !conf.voters().contains(member.0));
                // Whoever was there has an id below the next one.
                let last = MemberId(machine.next_member().0 - 1);
                let Some((&member, _)) = learner else {
                    let voter = machine.nodes().iter().find(|(_, of)| **of == node);
                    return match voter {
                        Some((&member, _)) => Err(GroupError::Votes { group: self.id, member }),
                        None => Ok(Planned::Already(last)),
                    };
                };
                MemberChange { kind: ChangeKind::Remove, member, node }
            }
            ChangeRequest::ForceRemove(_) | ChangeRequest::Configure(_) => {
                unreachable!("they are planned elsewhere")
            }
        };
        self.check_may_change()?;
        Ok(Planned::Propose(change))
    }

    /// What this leader has applied, once that is all that its predecessors committed.
    fn machine_as_leader(&self) -> Result<&Machine, GroupError> {
        let (Some(_), Some(machine)) = (self.leading, &self.machine) else {
            return Err(GroupError::NotLeader { group: self.id, leader: self.leader_to_ask() });
        };
        if self.serving { Ok(machine) } else { Err(GroupError::ChangeInProgress(self.id)) }
    }

    /// Whether this member may propose a change now: one at a time, and none during a transfer.
    pub(super) fn check_may_change(&self) -> Result<(), GroupError> {
        self.machine_as_leader()?;
        // A leader may change the membership only once it has applied an entry of its term; see Ongaro's message of
        // 10 July 2015 to raft-dev about single-server changes.
        if self.change_under_way() {
            return Err(GroupError::ChangeInProgress(self.id));
        }
        match self.successor() {
            Some(to) => Err(GroupError::TransferInProgress { group: self.id, to }),
            None => Ok(()),
        }
    }

    /// Whether those that are left without a member, and are heard of, are a majority.
    fn check_quorum_without(&self, now: MonoTime, member: MemberId) -> Result<(), GroupError> {
        let voters = self.raw.raft.prs().conf().voters();
        if !voters.contains(member.0) {
            return Ok(());
        }
        let left: Vec<MemberId> = voters.ids().iter().map(MemberId).filter(|id| *id != member).collect();
        let healthy = left.iter().filter(|id| self.hears(now, **id)).count() as u64;
        let voters = left.len() as u64;
        let needed = voters / 2 + 1;
        if healthy >= needed {
            return Ok(());
        }
        Err(GroupError::WouldBreakQuorum { group: self.id, member, voters, healthy, needed })
    }

    /// Whether a change was proposed and is not applied yet, or too few voters know it.
    pub(super) fn change_under_way(&self) -> bool {
        self.raw.raft.has_pending_conf() || self.change.is_some() || !self.voters_know()
    }

    /// Whether a quorum of the voters has told this leader that it knows the newest change of them.
    fn voters_know(&self) -> bool {
        let progress = self.raw.raft.prs();
        let voters = progress.conf().voters().ids();
        let knows = |voter: u64| {
            let told = progress.get(voter).map_or(0, |progress| progress.committed_index);
            voter == self.member.0 || told >= self.voters_since
        };
        let (all, knowing) = (voters.len(), voters.iter().filter(|voter| knows(*voter)).count());
        knowing > all / 2
    }

    /// What is so already is said only of what would survive the leader.
    fn check_voters_know(&self) -> Result<(), GroupError> {
        if self.voters_know() { Ok(()) } else { Err(GroupError::ChangeInProgress(self.id)) }
    }

    /// A learner that has caught up and is heard of: one that died since would cost the group its quorum.
    fn check_caught_up(&self, now: MonoTime, member: MemberId) -> Result<(), GroupError> {
        let progress = self.raw.raft.prs().get(member.0);
        let matched = progress.map_or(0, |progress| progress.matched);
        let behind = if matched == 0 { u64::MAX } else { self.raw.raft.raft_log.last_index() - matched };
        let recently = now - Duration::from_millis(self.config.election_timeout_min_ms.into());
        if behind > CAUGHT_UP_ENTRIES || !self.rounds.heard_since(member, recently) {
            return Err(GroupError::NotCaughtUp { group: self.id, member, behind });
        }
        Ok(())
    }

    fn propose_change(
        &mut self,
        turn: &mut Turn<'_>,
        change: MemberChange,
        waiter: Waiter<Result<MemberId, GroupError>>,
    ) {
        let mut entry = Entry { context: write_change(&change), ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChange);
        self.propose_change_entry(turn, entry, change.member, waiter);
    }

    /// Puts a change into the log, on behalf of the member whose id its waiter is told.
    pub(super) fn propose_change_entry(
        &mut self,
        turn: &mut Turn<'_>,
        entry: Entry,
        member: MemberId,
        waiter: Waiter<Result<MemberId, GroupError>>,
    ) {
        // Commands that came before it in this turn go before it into the log.
        self.propose(turn);
        let term = self.raw.raft.term;
        match self.propose_entries([entry]) {
            Ok(index) => self.change = Some(PendingChange { term, index, member, waiter }),
            Err(error) => {
                tracing::debug!(group = %self.id, %error, "raft did not take a membership change");
                turn.out.member(waiter, Err(GroupError::Unavailable));
            }
        }
    }

    /// Applies a committed change.
    pub(super) fn apply_change(&mut self, turn: &mut Turn<'_>, entry: &Entry, change: &MemberChange) {
        let machine =
            self.machine.as_mut().expect("changes are applied after the snapshot that precedes them");
        if change.kind == ChangeKind::Promote && !machine.nodes().contains_key(&change.member) {
            // It was removed by force while this was on its way, and ids are never used again.
            return self.settle_change(turn, entry, false);
        }
        machine.apply_change(change);
        let (member, node) = (change.member, change.node);
        let voted = self.raw.raft.prs().conf().voters().contains(member.0);
        let of_voters = voted == (change.kind == ChangeKind::Remove);
        match change.kind {
            ChangeKind::Promote if !voted => {
                machine.tell(|hook, group, value| hook.follower_added(group, value, member, node));
            }
            ChangeKind::Remove if voted => {
                machine.tell(|hook, group, value| hook.follower_removed(group, value, member, node));
            }
            _ => {}
        }
        self.raw.apply_conf_change(&change_to_raft(change)).expect("a single simple change always applies");
        self.forgo_append_windows();
        if of_voters {
            self.voters_since = entry.index;
        }
        tracing::info!(group = %self.id, kind = ?change.kind, member = %change.member, node = %change.node, "membership changed");
        if change.kind == ChangeKind::Remove {
            self.snapshots_sent.remove(&change.member);
            self.outgoing.remove(&change.member);
            self.routes.remove(&change.member);
            if change.member == self.member {
                self.leave();
            }
        }
        self.settle_change(turn, entry, of_voters);
    }

    /// Tells whoever waits for the change that this entry holds, once it is sure to stay.
    pub(super) fn settle_change(&mut self, turn: &mut Turn<'_>, entry: &Entry, of_voters: bool) {
        let pending = self.change.take_if(|pending| pending.index <= entry.index);
        let settled = pending.map(|pending| {
            let same = pending.index == entry.index && pending.term == entry.term;
            let answer = if same { Ok(pending.member) } else { Err(GroupError::Unknown(self.id)) };
            Settled { waiter: pending.waiter, answer, of_voters }
        });
        if settled.is_some() || entry.get_entry_type() != EntryType::EntryNormal {
            self.keep_change(turn, entry.index, settled);
        }
    }

    /// Answers whoever waits for a change that this member's disk knows, or has it wait until the voters know it too.
    pub(super) fn answer_change(&mut self, turn: &mut Turn<'_>, settled: Settled) {
        if !settled.of_voters || settled.answer.is_err() {
            turn.out.member(settled.waiter, settled.answer);
        } else if self.leading.is_none() {
            turn.out.member(settled.waiter, Err(GroupError::Unknown(self.id)));
        } else {
            debug_assert!(self.spreading.is_none(), "there is one change at a time");
            self.spreading = Some(settled);
        }
    }

    /// Answers whoever waits for a change of the voters once enough of them know it.
    pub(super) fn watch_spreading(&mut self, turn: &mut Turn<'_>) {
        if self.spreading.is_some()
            && self.voters_know()
            && let Some(settled) = self.spreading.take()
        {
            turn.out.member(settled.waiter, settled.answer);
        }
    }

    /// This member has applied its own removal.
    ///
    /// A follower that hears of it from its leader may go: that one knows. A leader that found its removal in the log
    /// when it was elected may be the only one that knows, and so may a member that finds it in its log when it starts
    /// again: where it went at once, others could go on asking for its vote for ever, as the remaining one of two. It
    /// stays, leads no more, and answers, until someone tells it that it was removed.
    fn leave(&mut self) {
        if self.is_leader() {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        } else if self.raw.raft.leader_id != raft::INVALID_ID {
            self.removed = true;
        }
    }

    /// Whether this member leads, in raft's own words.
    pub(super) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }
}

enum Planned {
    /// It is so already.
    Already(MemberId),
    Propose(MemberChange),
}
