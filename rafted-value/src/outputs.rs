//! What a turn of the engine wants done: messages to send and callers to answer. The shell performs it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::{GroupError, QueryError};
use crate::group::CommandResult;
use crate::id::{GroupId, MemberId, NodeId};
use crate::message::{BatchWriter, Body, GroupMessage};
use crate::status::GroupStatus;
use crate::transport::Lane;
use crate::waiter::Waiter;

/// An answer and who waits for it.
pub(crate) enum Answer {
    Command(Waiter<CommandResult>, CommandResult),
    Query(Waiter<Result<Bytes, QueryError>>, Result<Bytes, QueryError>),
    Member(Waiter<Result<MemberId, GroupError>>, Result<MemberId, GroupError>),
    Statuses(Waiter<Vec<GroupStatus>>, Vec<GroupStatus>),
}

/// A membership that one member acts by from now on, though no entry of the log says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ForcedMembership {
    pub(crate) group: GroupId,
    /// The member that acts by it.
    pub(crate) member: MemberId,
    /// Who was removed.
    pub(crate) removed: MemberId,
    /// What that member had applied then.
    pub(crate) index: u64,
    pub(crate) voters: Vec<MemberId>,
    pub(crate) learners: Vec<MemberId>,
}

/// What a turn wants done.
#[derive(Default)]
pub(crate) struct Outputs {
    /// To be kept, where groups are kept, before anything of this turn is sent or answered.
    pub(crate) memberships: Vec<ForcedMembership>,
    pub(crate) messages: BTreeMap<(NodeId, Lane), BatchWriter>,
    pub(crate) answers: Vec<Answer>,
}

impl Outputs {
    /// Sends `message` to the member's node.
    pub(crate) fn send(&mut self, to: NodeId, message: &GroupMessage) {
        let lane = if matches!(message.body, Body::Snapshot { .. }) { Lane::Bulk } else { Lane::Control };
        self.messages.entry((to, lane)).or_default().push(message);
    }

    pub(crate) fn command(&mut self, waiter: Waiter<CommandResult>, result: CommandResult) {
        self.answers.push(Answer::Command(waiter, result));
    }

    pub(crate) fn query(
        &mut self,
        waiter: Waiter<Result<Bytes, QueryError>>,
        result: Result<Bytes, QueryError>,
    ) {
        self.answers.push(Answer::Query(waiter, result));
    }

    pub(crate) fn member(
        &mut self,
        waiter: Waiter<Result<MemberId, GroupError>>,
        result: Result<MemberId, GroupError>,
    ) {
        self.answers.push(Answer::Member(waiter, result));
    }
}

impl Answer {
    /// Tells the waiter.
    pub(crate) fn deliver(self) {
        match self {
            Answer::Command(waiter, result) => waiter.answer(result),
            Answer::Query(waiter, result) => waiter.answer(result),
            Answer::Member(waiter, result) => waiter.answer(result),
            Answer::Statuses(waiter, statuses) => waiter.answer(statuses),
        }
    }
}
