//! What can go wrong, told so that a caller can act: surely not applied, or perhaps applied.

use serde::{Deserialize, Serialize};

use crate::id::{GroupId, MemberId, NodeId};

/// Why a command has no reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum CommandError {
    /// This attempt surely changed nothing, and never will. An earlier attempt at the same command whose end is unknown
    /// may still do so.
    #[error("not applied: {0}")]
    NotApplied(NotApplied),
    /// The command may have been applied, or may be still. The same session and sequence may be sent again.
    #[error("perhaps applied: {0}")]
    Unknown(Unknown),
}

/// Where a leader is known the caller goes there; what a person sees most often is that there is none.
fn not_leader(group: &GroupId, leader: Option<&NodeId>) -> String {
    match leader {
        Some(leader) => format!("group {group} is led by node {leader}, which was not asked"),
        None => format!("group {group} has no leader that the member which was asked knows of"),
    }
}

/// Why a command, or one attempt at it, surely changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NotApplied {
    /// The member that was asked does not lead its group.
    #[error("{}", not_leader(.group, .leader.as_ref()))]
    NotLeader {
        /// The group.
        group: GroupId,
        /// The node of the leader, where known.
        leader: Option<NodeId>,
    },
    /// The node has no member of the group.
    #[error("the node has no member of group {0}")]
    NoSuchGroup(GroupId),
    /// Too much waits already.
    #[error("overloaded; try again in {retry_after_ms} ms")]
    Overloaded {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The group's table of sessions is full of commands that their clients have not acknowledged.
    #[error("the session table of group {group} holds its limit of {limit} replies")]
    SessionTableFull {
        /// The group.
        group: GroupId,
        /// The limit.
        limit: u64,
    },
    /// The command wants its reply kept for longer than the group keeps any.
    #[error("the reply should be kept for {asked_ms} ms, over the limit of {limit_ms} ms")]
    RetryWindowTooLong {
        /// What was asked.
        asked_ms: u64,
        /// The limit.
        limit_ms: u64,
    },
    /// The payload is larger than the group allows.
    #[error("a payload of {bytes} bytes is over the limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The value refused the payload, on every member alike.
    #[error("refused: {0}")]
    Refused(String),
    /// The handler panicked, and its effect was undone on every member alike.
    #[error("the command handler panicked: {0}")]
    Panicked(String),
    /// The node could not be reached.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The group failed on this node and is fenced.
    #[error("group {group} is fenced on this node: {reason}")]
    Fenced {
        /// The group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The peer sent something that does not decode.
    #[error("the request does not decode: {0}")]
    Malformed(String),
    /// No group has this name; told by a layer above, where groups have names.
    #[error("no group named {0:?} exists")]
    NoSuchName(String),
}

/// Why it is not known whether a command was applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Unknown {
    /// No reply came in time.
    #[error("no reply in {limit_ms} ms")]
    Timeout {
        /// How long the caller waited.
        limit_ms: u64,
    },
    /// The leader lost its leadership with the command in its log.
    #[error("the leader of group {0} changed while the command was under way")]
    LeaderChanged(GroupId),
    /// The connection broke with the command under way.
    #[error("the connection was lost: {0}")]
    ConnectionLost(String),
    /// The command came after its `retry_until`: an earlier attempt may have been applied and forgotten.
    #[error("the command is {late_ms} ms past its retry window")]
    Expired {
        /// How late it is, in the group's stamped time.
        late_ms: u64,
    },
    /// The client had told the group that it waits for this command no more.
    #[error("the command was acknowledged before; its reply is gone")]
    AlreadyAcknowledged,
    /// The member was removed or stopped with the command under way.
    #[error("the member of group {0} stopped while the command was under way")]
    Stopped(GroupId),
    /// The command was applied, and its reply is larger than one message may be. Sending it again gives the same.
    #[error("the command was applied, but its reply of {bytes} bytes is over the limit of {limit_bytes}")]
    ReplyTooLarge {
        /// The size of the reply.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
}

/// Why a query has no answer. A query changes nothing, so it may always be asked again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum QueryError {
    /// The member that was asked does not lead its group.
    #[error("{}", not_leader(.group, .leader.as_ref()))]
    NotLeader {
        /// The group.
        group: GroupId,
        /// The node of the leader, where known.
        leader: Option<NodeId>,
    },
    /// The node has no member of the group.
    #[error("the node has no member of group {0}")]
    NoSuchGroup(GroupId),
    /// Too much waits already.
    #[error("overloaded; try again in {retry_after_ms} ms")]
    Overloaded {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The value refused the payload.
    #[error("refused: {0}")]
    Refused(String),
    /// The handler panicked.
    #[error("the query handler panicked: {0}")]
    Panicked(String),
    /// No answer came in time.
    #[error("no answer in {limit_ms} ms")]
    Timeout {
        /// How long the caller waited.
        limit_ms: u64,
    },
    /// The node could not be reached, or the connection was lost.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The group failed on this node and is fenced.
    #[error("group {group} is fenced on this node: {reason}")]
    Fenced {
        /// The group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The peer sent something that does not decode.
    #[error("the request does not decode: {0}")]
    Malformed(String),
    /// No group has this name; told by a layer above, where groups have names.
    #[error("no group named {0:?} exists")]
    NoSuchName(String),
    /// The payload is larger than one message may be.
    #[error("a payload of {bytes} bytes is over the limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The answer is larger than one message may be. Asking again gives the same.
    #[error("the answer of {bytes} bytes is over the limit of {limit_bytes}")]
    AnswerTooLarge {
        /// The size of the answer.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
}

/// Why an operation on a group's members failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GroupError {
    /// The node has no member of the group.
    #[error("the node has no member of group {0}")]
    NoSuchGroup(GroupId),
    /// The node has a member of the group already, or had one that was removed.
    #[error("the node has or had a member of group {0}")]
    AlreadyExists(GroupId),
    /// The node does not know the data type.
    #[error("the node knows no data type named {0:?}")]
    NoSuchData(String),
    /// The configuration cannot work.
    #[error("the configuration cannot work: {0}")]
    InvalidConfig(String),
    /// The member that was asked does not lead its group.
    #[error("{}", not_leader(.group, .leader.as_ref()))]
    NotLeader {
        /// The group.
        group: GroupId,
        /// The node of the leader, where known.
        leader: Option<NodeId>,
    },
    /// Another membership change is under way.
    #[error("another membership change of group {0} is under way")]
    ChangeInProgress(GroupId),
    /// The group has no such member, or not in the role that the operation needs.
    #[error("group {group} has no member {member} that could be {operation}")]
    NoSuchMember {
        /// The group.
        group: GroupId,
        /// The member.
        member: MemberId,
        /// What was to be done.
        operation: String,
    },
    /// A learner has not caught up yet, or has not been heard of for an election timeout.
    #[error("member {member} of group {group} is {behind} entries behind")]
    NotCaughtUp {
        /// The group.
        group: GroupId,
        /// The learner.
        member: MemberId,
        /// How many entries it lacks; `u64::MAX` while it waits for a snapshot.
        behind: u64,
    },
    /// It is not known whether the change was committed.
    #[error("the membership change of group {0} may or may not be committed")]
    Unknown(GroupId),
    /// Too much waits already, or the node shuts down.
    #[error("the node is overloaded or shutting down")]
    Unavailable,
    /// The group failed on this node and is fenced.
    #[error("group {group} is fenced on this node: {reason}")]
    Fenced {
        /// The group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
    /// The group has no such member.
    #[error("group {group} has no member {member}; removed before: {removed}")]
    NotMember {
        /// The group.
        group: GroupId,
        /// The member.
        member: MemberId,
        /// Whether it was one once; ids are never used again.
        removed: bool,
    },
    /// The operation needs another member than the leader.
    #[error("member {member} leads group {group}; its leadership must be handed over first")]
    Leads {
        /// The group.
        group: GroupId,
        /// The member that leads.
        member: MemberId,
    },
    /// Without the member the group could not go on.
    #[error(
        "without member {member} group {group} would have {healthy} healthy voters, and needs {needed} of {voters}"
    )]
    WouldBreakQuorum {
        /// The group.
        group: GroupId,
        /// The member that was to be removed.
        member: MemberId,
        /// How many voters would be left.
        voters: u64,
        /// How many of those the leader has heard of within an election timeout, itself included.
        healthy: u64,
        /// How many a majority needs.
        needed: u64,
    },
    /// The leader has not heard of the member within an election timeout.
    #[error("member {member} of group {group} has not been heard of for {limit_ms} ms")]
    Unresponsive {
        /// The group.
        group: GroupId,
        /// The member.
        member: MemberId,
        /// The election timeout.
        limit_ms: u64,
    },
    /// The leader is about to hand its leadership over.
    #[error("the leadership of group {group} is on its way to member {to}")]
    TransferInProgress {
        /// The group.
        group: GroupId,
        /// The member that is to lead.
        to: MemberId,
    },
    /// A later call cancelled the transfer of the leadership, or replaced it by one of its own.
    #[error("the transfer of the leadership of group {group} to member {to} was cancelled")]
    TransferCancelled {
        /// The group.
        group: GroupId,
        /// The member that was to lead.
        to: MemberId,
    },
    /// The leadership did not reach the member in time.
    #[error("the leadership of group {group} did not get to member {to} in {limit_ms} ms")]
    TransferTimedOut {
        /// The group.
        group: GroupId,
        /// The member that was to lead.
        to: MemberId,
        /// The election timeout.
        limit_ms: u64,
    },
    /// Another member was elected.
    #[error("member {leader} of group {group} was elected instead of member {to}")]
    TransferLost {
        /// The group.
        group: GroupId,
        /// The member that was to lead.
        to: MemberId,
        /// The member that does.
        leader: MemberId,
    },
    /// No leader was found in time.
    #[error("no leader of group {group} was found in {limit_ms} ms")]
    NoLeader {
        /// The group.
        group: GroupId,
        /// How long it was looked for.
        limit_ms: u64,
    },
    /// This node's member did not become a voter in time.
    #[error(
        "no voter of group {group} after {limit_ms} ms: {reason}; a learner may be left over: {leftover}"
    )]
    JoinTimedOut {
        /// The group.
        group: GroupId,
        /// How long it was tried.
        limit_ms: u64,
        /// What stood in the way last.
        reason: String,
        /// Whether the learner may still be a member.
        leftover: bool,
    },
    /// The node could not be reached: nothing was changed.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The peer sent something that does not decode.
    #[error("the request does not decode: {0}")]
    Malformed(String),
    /// What was kept of the group does not make a value again.
    #[error("group {group} cannot be restored: {reason}")]
    NotRestored {
        /// The group.
        group: GroupId,
        /// What is wrong.
        reason: String,
    },
    /// The node's member has become a voter, and is not taken back with a learner.
    #[error("member {member} of group {group} votes")]
    Votes {
        /// The group.
        group: GroupId,
        /// Who votes.
        member: MemberId,
    },
}

impl From<NotApplied> for CommandError {
    fn from(error: NotApplied) -> Self {
        CommandError::NotApplied(error)
    }
}

impl From<Unknown> for CommandError {
    fn from(error: Unknown) -> Self {
        CommandError::Unknown(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &impl Serialize, golden: &[u8]) {
        assert_eq!(crate::data::encode(value)[..], *golden);
    }

    /// Variants are only ever added at the end: nodes of two versions tell each other what went wrong.
    #[test]
    fn the_last_errors_of_each_kind_have_these_golden_bytes() {
        let (bytes, limit_bytes) = (300, 200);
        check(&CommandError::NotApplied(NotApplied::Malformed("m".into())), &[0, 11, 1, b'm']);
        check(&CommandError::NotApplied(NotApplied::NoSuchName("n".into())), &[0, 12, 1, b'n']);
        check(&CommandError::Unknown(Unknown::Stopped(GroupId(7))), &[1, 5, 7]);
        let reply = Unknown::ReplyTooLarge { bytes, limit_bytes };
        check(&CommandError::Unknown(reply), &[1, 6, 0xac, 2, 0xc8, 1]);
        check(&QueryError::Malformed("m".into()), &[9, 1, b'm']);
        check(&QueryError::NoSuchName("n".into()), &[10, 1, b'n']);
        check(&QueryError::TooLarge { bytes, limit_bytes }, &[11, 0xac, 2, 0xc8, 1]);
        check(&QueryError::AnswerTooLarge { bytes, limit_bytes }, &[12, 0xac, 2, 0xc8, 1]);
    }
}
