//! Handing the leadership over to a chosen member: the one exemption from promises.
//!
//! The leader gives up its lease before the first message to its successor leaves, and as long as the transfer is under
//! way. That message, and the votes that its receiver then asks for, carry an [`Exemption`]. See there why an abort is
//! safe although messages that were sent come in later. Raft dissertation, section 3.10.

use std::time::Duration;

use raft::INVALID_ID;

use super::{Group, Turn};
use crate::env::MonoTime;
use crate::error::GroupError;
use crate::id::MemberId;
use crate::lease::Exemption;
use crate::message::{Body, GroupMessage};
use crate::waiter::Waiter;

/// A transfer that this leader has begun.
pub(super) struct Transfer {
    pub(super) target: MemberId,
    deadline: MonoTime,
    /// When the newest message to the target left.
    sent: Option<MonoTime>,
    waiter: Waiter<Result<MemberId, GroupError>>,
}

/// A leader that has stepped down during a transfer, and does not know yet who leads now.
pub(super) struct Succession {
    /// The term it led.
    term: u64,
    target: MemberId,
    deadline: MonoTime,
    waiter: Waiter<Result<MemberId, GroupError>>,
}

impl Group {
    /// Hands the leadership over to `target`; with `None`, or this member itself, a transfer under way is cancelled.
    pub(crate) fn request_transfer(
        &mut self,
        turn: &mut Turn<'_>,
        target: Option<MemberId>,
        waiter: Waiter<Result<MemberId, GroupError>>,
    ) {
        let target = target.filter(|target| *target != self.member);
        if let Err(error) = self.check_transfer(turn.now, target) {
            turn.out.member(waiter, Err(error));
            return;
        }
        self.abort_transfer(turn, |group, to| GroupError::TransferCancelled { group, to });
        let Some(target) = target else {
            turn.out.member(waiter, Ok(self.member));
            return;
        };
        tracing::info!(group = %self.id, member = %self.member, %target, "hands its leadership over");
        metrics::counter!("rafted_value_transfers_begun_total").increment(1);
        let deadline = turn.now + self.election_timeout();
        // From here on there is no lease.
        self.transfer = Some(Transfer { target, deadline, sent: None, waiter });
        self.raw.transfer_leader(target.0);
    }

    fn check_transfer(&self, now: MonoTime, target: Option<MemberId>) -> Result<(), GroupError> {
        let (Some(_), Some(machine)) = (self.leading, &self.machine) else {
            return Err(GroupError::NotLeader { group: self.id, leader: self.leader_to_ask() });
        };
        let Some(member) = target else { return Ok(()) };
        if !machine.nodes().contains_key(&member) {
            return Err(self.not_member(member));
        }
        if !self.raw.raft.prs().conf().voters().contains(member.0) {
            let operation = "given the leadership: it does not vote".to_owned();
            return Err(GroupError::NoSuchMember { group: self.id, member, operation });
        }
        if !self.serving || self.change_under_way() {
            return Err(GroupError::ChangeInProgress(self.id));
        }
        if !self.hears(now, member) {
            let limit_ms = self.config.election_timeout_min_ms.into();
            return Err(GroupError::Unresponsive { group: self.id, member, limit_ms });
        }
        Ok(())
    }

    /// Whether this leader has heard of a member within an election timeout.
    pub(super) fn hears(&self, now: MonoTime, member: MemberId) -> bool {
        let progress = self.raw.raft.prs().get(member.0);
        member == self.member
            || self.rounds.heard_since(member, now - self.election_timeout())
            || progress.is_some_and(|progress| progress.recent_active)
    }

    pub(super) fn not_member(&self, member: MemberId) -> GroupError {
        let given = self.machine.as_ref().is_some_and(|machine| member < machine.next_member());
        GroupError::NotMember { group: self.id, member, removed: given && member.0 != INVALID_ID }
    }

    pub(super) fn election_timeout(&self) -> Duration {
        Duration::from_millis(self.config.election_timeout_min_ms.into())
    }

    /// Ends a transfer under way, if there is one. Nothing that was sent is recalled: only rounds that are sent from
    /// now on give a lease again.
    fn abort_transfer(
        &mut self,
        turn: &mut Turn<'_>,
        why: impl FnOnce(crate::id::GroupId, MemberId) -> GroupError,
    ) {
        let Some(transfer) = self.transfer.take() else { return };
        self.raw.raft.abort_leader_transfer();
        self.rounds.disown(turn.now);
        tracing::info!(group = %self.id, member = %self.member, target = %transfer.target, "keeps its leadership");
        turn.out.member(transfer.waiter, Err(why(self.id, transfer.target)));
    }

    /// Ends a transfer that has taken too long, or that raft has given up.
    pub(super) fn watch_transfer(&mut self, turn: &mut Turn<'_>) {
        let limit_ms = self.config.election_timeout_min_ms.into();
        let late = self.transfer.as_ref().is_some_and(|transfer| {
            let given_up = self.raw.raft.lead_transferee != Some(transfer.target.0);
            turn.now >= transfer.deadline || (self.is_leader() && given_up)
        });
        if late {
            metrics::counter!("rafted_value_transfers_timed_out_total").increment(1);
            self.abort_transfer(turn, |group, to| GroupError::TransferTimedOut { group, to, limit_ms });
        }
    }

    /// Whether a message to the successor is so young that the next heartbeat should wait: a voter that accepts a
    /// later round ignores the exemption.
    pub(super) fn spares_heartbeat(&self, now: MonoTime) -> bool {
        let sent = self.transfer.as_ref().and_then(|transfer| transfer.sent);
        sent.is_some_and(|sent| now.since(sent) < self.beat())
    }

    /// Whether raft's message to the successor of the leader of `term` may go out: never without a transfer under way,
    /// during which there is no lease.
    pub(super) fn may_send_transfer(&mut self, now: MonoTime, target: u64, term: u64) -> bool {
        match &mut self.transfer {
            Some(transfer) if transfer.target.0 == target && self.leading == Some(term) => {
                transfer.sent = Some(now);
                true
            }
            _ => false,
        }
    }

    /// The leader wants this member to lead.
    pub(super) fn receive_transfer(&mut self, turn: &mut Turn<'_>, message: GroupMessage, round: u64) {
        let exemption = Exemption { term: message.term, round };
        let raft = &self.raw.raft;
        let follows = self.machine.is_some()
            && raft.term == message.term
            && raft.leader_id == message.from.0
            && self.leading.is_none();
        if !follows
            || !exemption.covers(self.accepted)
            || self.promise.withholds(turn.now, Some(exemption), self.accepted)
        {
            tracing::debug!(group = %self.id, member = %self.member, "a transfer that is over");
            return;
        }
        self.exemption = Some(exemption);
        self.step(message);
        self.draw_election_deadline(turn);
    }

    /// A member asks for a vote at the wish of a leader.
    pub(super) fn receive_transfer_vote(&mut self, turn: &mut Turn<'_>, mut message: GroupMessage) {
        let Body::TransferVote { log_term, index, commit, commit_term, round } = message.body else { return };
        let exemption = Exemption { term: message.term.saturating_sub(1), round };
        let covers = match self.leading {
            // The leader itself acknowledges each of its rounds when it sends it, and so is bound unless it transfers.
            Some(term) if term == exemption.term => {
                self.transfer.as_ref().is_some_and(|transfer| transfer.target == message.from)
            }
            _ => exemption.covers(self.accepted),
        };
        if self.promise.withholds(turn.now, Some(exemption).filter(|_| covers), self.accepted) {
            tracing::debug!(group = %self.id, candidate = %message.from, "a vote is withheld: a promise runs");
            return;
        }
        if !covers {
            message.body = Body::Vote { pre: false, log_term, index, commit, commit_term, priority: 0 };
        }
        self.receive_vote(turn, message, false);
    }

    /// This member leads no more: what becomes of the transfer is for others to decide.
    pub(super) fn await_successor(&mut self, term: u64) {
        if let Some(Transfer { target, deadline, waiter, .. }) = self.transfer.take() {
            self.succession = Some(Succession { term, target, deadline, waiter });
        }
    }

    /// Tells who asked for a transfer who leads now, or that it is not known in time.
    pub(super) fn watch_succession(&mut self, turn: &mut Turn<'_>) {
        let Some(succession) = &self.succession else { return };
        let (group, to) = (self.id, succession.target);
        let (leader, term) = (self.raw.raft.leader_id, self.raw.raft.term);
        let result = if leader == to.0 && term > succession.term {
            Ok(to)
        } else if leader != INVALID_ID && term > succession.term {
            Err(GroupError::TransferLost { group, to, leader: MemberId(leader) })
        } else if turn.now >= succession.deadline {
            let limit_ms = self.config.election_timeout_min_ms.into();
            Err(GroupError::TransferTimedOut { group, to, limit_ms })
        } else {
            return;
        };
        if result.is_ok() {
            metrics::counter!("rafted_value_transfers_done_total").increment(1);
        }
        if let Some(succession) = self.succession.take() {
            turn.out.member(succession.waiter, result);
        }
    }

    /// The member ends: nobody will tell what becomes of a transfer.
    pub(super) fn drop_transfer(&mut self, turn: &mut Turn<'_>) {
        let transfer = self.transfer.take().map(|transfer| transfer.waiter);
        for waiter in transfer.into_iter().chain(self.succession.take().map(|succession| succession.waiter)) {
            turn.out.member(waiter, Err(GroupError::Unavailable));
        }
    }

    /// Who is to lead next, as a hint for clients.
    pub(super) fn successor(&self) -> Option<MemberId> {
        self.transfer.as_ref().map(|transfer| transfer.target)
    }
}
