//! What a node answers to other nodes: Raft's messages, and clients' commands and queries.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::engine::Input;
use crate::error::{CommandError, GroupError, NotApplied, QueryError};
use crate::group::change::ChangeRequest;
use crate::host::Inboxes;
use crate::id::{GroupId, MemberId, NodeId};
use crate::message::read_batch;
use crate::neighbours::{LoopId, LoopMessage};
use crate::request::{Command, Freshness};
use crate::transport::{Handler, Reply, ServiceId};
use crate::waiter::Waiter;

/// Batches of members' messages.
pub(crate) const PEER_SERVICE: ServiceId = ServiceId(1);
/// Commands and queries.
pub(crate) const GROUP_SERVICE: ServiceId = ServiceId(2);

/// What loops say to each other.
pub(crate) const LOOP_SERVICE: ServiceId = ServiceId(3);

/// What a client on another node asks; append-only. The reply is a `Result` of the kind's own error, in postcard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum GroupRequest {
    Command {
        group: GroupId,
        command: Command,
    },
    Query {
        group: GroupId,
        freshness: Freshness,
        payload: Bytes,
    },
    /// Adds a learner on the asker's own node.
    Join {
        group: GroupId,
    },
    /// Makes a learner a voter.
    Promote {
        group: GroupId,
        member: MemberId,
    },
    /// Removes the learner on the asker's own node, if there is one.
    Leave {
        group: GroupId,
    },
}

impl GroupRequest {
    /// The group that is asked.
    pub(crate) fn group(&self) -> GroupId {
        match *self {
            GroupRequest::Command { group, .. }
            | GroupRequest::Query { group, .. }
            | GroupRequest::Join { group }
            | GroupRequest::Promote { group, .. }
            | GroupRequest::Leave { group } => group,
        }
    }
}

/// Receives the messages of other nodes' members.
pub(crate) struct PeerService {
    inboxes: Inboxes,
}

impl PeerService {
    pub(crate) fn new(inboxes: Inboxes) -> Self {
        Self { inboxes }
    }
}

impl Handler for PeerService {
    fn on_cast(&self, from: NodeId, payload: Bytes) {
        let messages = match read_batch(&payload) {
            Ok(messages) => messages,
            Err(error) => {
                metrics::counter!("rafted_value_messages_refused_total").increment(1);
                tracing::warn!(%from, %error, "a batch of a peer is refused");
                return;
            }
        };
        let mut by_loop = Vec::new();
        by_loop.resize_with(self.inboxes.len(), Vec::new);
        for message in messages {
            by_loop[self.inboxes.of(message.group)].push(message);
        }
        for (position, messages) in by_loop.into_iter().enumerate() {
            if !messages.is_empty()
                && let Err(refusal) = self.inboxes.put(position, Input::Peer { from, messages })
            {
                refusal.answer();
            }
        }
    }

    fn on_call(&self, from: NodeId, _: Bytes, _: Reply) {
        tracing::warn!(%from, "a call to the service of members' messages, which has no replies");
    }
}

/// Receives what loops of other nodes say to those of this one.
pub(crate) struct LoopService {
    inboxes: Inboxes,
    loops: Vec<LoopId>,
}

impl LoopService {
    /// For loops with these ids, in the order of their inboxes.
    pub(crate) fn new(inboxes: Inboxes, loops: Vec<LoopId>) -> Self {
        Self { inboxes, loops }
    }
}

impl Handler for LoopService {
    fn on_cast(&self, from: NodeId, payload: Bytes) {
        let (speaker, to) = match postcard::from_bytes(&payload) {
            Ok(LoopMessage::Beat { from, to }) => (from, to),
            Err(error) => {
                metrics::counter!("rafted_value_messages_refused_total").increment(1);
                tracing::warn!(%from, %error, "what a loop says does not decode");
                return;
            }
        };
        // A loop that has ended is leaned on in vain; silence says so.
        let Some(position) = self.loops.iter().position(|own| *own == to) else { return };
        if let Err(refusal) = self.inboxes.put(position, Input::Beat { speaker }) {
            refusal.answer();
        }
    }

    fn on_call(&self, from: NodeId, _: Bytes, _: Reply) {
        tracing::warn!(%from, "a call to the service of loops, which has no replies");
    }
}

/// Takes in commands and queries of clients on other nodes.
pub(crate) struct GroupService {
    inboxes: Inboxes,
}

impl GroupService {
    pub(crate) fn new(inboxes: Inboxes) -> Self {
        Self { inboxes }
    }
}

impl Handler for GroupService {
    fn on_cast(&self, from: NodeId, _: Bytes) {
        tracing::warn!(%from, "a cast to the service of groups, which answers calls");
    }

    fn on_call(&self, from: NodeId, payload: Bytes, reply: Reply) {
        let request = match postcard::from_bytes(&payload) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(%from, %error, "a request of a client does not decode");
                reply.send(refuse_malformed(&payload, error.to_string()));
                return;
            }
        };
        let (group, input) = match request {
            GroupRequest::Command { group, command } => {
                (group, Input::Command { group, command, waiter: Waiter::Remote(reply) })
            }
            GroupRequest::Query { group, freshness, payload } => {
                (group, Input::Query { group, freshness, payload, waiter: Waiter::Remote(reply) })
            }
            GroupRequest::Join { group } => change(group, ChangeRequest::AddLearner(from), reply),
            GroupRequest::Promote { group, member } => change(group, ChangeRequest::Promote(member), reply),
            GroupRequest::Leave { group } => change(group, ChangeRequest::RemoveLearnerOn(from), reply),
        };
        if let Err(refusal) = self.inboxes.put(self.inboxes.of(group), input) {
            refusal.answer();
        }
    }
}

fn change(group: GroupId, request: ChangeRequest, reply: Reply) -> (GroupId, Input) {
    (group, Input::Change { group, request, waiter: Waiter::Remote(reply) })
}

/// The refusal that the caller of a request that does not decode can read: its first byte still tells the kind.
fn refuse_malformed(payload: &[u8], reason: String) -> Bytes {
    match payload.first() {
        Some(1) => crate::data::encode(&QueryReply::Err(QueryError::Malformed(reason))),
        Some(2..=4) => crate::data::encode(&MemberReply::Err(GroupError::Malformed(reason))),
        _ => crate::data::encode(&CommandReply::Err(NotApplied::Malformed(reason).into())),
    }
}

/// The reply to a command as it travels.
pub(crate) type CommandReply = Result<Bytes, CommandError>;
/// The reply to a query as it travels.
pub(crate) type QueryReply = Result<Bytes, QueryError>;
/// The reply to a change of the membership as it travels.
pub(crate) type MemberReply = Result<MemberId, GroupError>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    #[test]
    fn requests_have_these_golden_bytes() {
        let command = Command {
            session: SessionId::new(0, 1),
            sequence: 2,
            acknowledged: 2,
            retry_until_ms: 9,
            key_hash: 0,
            payload: Bytes::from_static(b"a"),
        };
        let request = GroupRequest::Command { group: GroupId(7), command };
        let golden = [0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 9, 0, 1, 97];
        assert_eq!(crate::data::encode(&request)[..], golden);
        let request =
            GroupRequest::Query { group: GroupId(7), freshness: Freshness::Stale, payload: Bytes::new() };
        assert_eq!(crate::data::encode(&request)[..], [1, 7, 1, 0]);
        let group = GroupId(7);
        assert_eq!(crate::data::encode(&GroupRequest::Join { group })[..], [2, 7]);
        let request = GroupRequest::Promote { group, member: MemberId(300) };
        assert_eq!(crate::data::encode(&request)[..], [3, 7, 172, 2]);
        assert_eq!(crate::data::encode(&GroupRequest::Leave { group })[..], [4, 7]);
    }

    #[test]
    fn replies_have_these_golden_bytes() {
        let leader = Some(NodeId(300));
        let refusal: CommandReply = Err(NotApplied::NotLeader { group: GroupId(7), leader }.into());
        assert_eq!(crate::data::encode(&refusal)[..], [1, 0, 0, 7, 1, 172, 2]);
        let answer: QueryReply = Ok(Bytes::from_static(b"z"));
        assert_eq!(crate::data::encode(&answer)[..], [0, 1, 122]);
        let change: MemberReply = Err(GroupError::NoLeader { group: GroupId(7), limit_ms: 300 });
        assert_eq!(crate::data::encode(&change)[..], [1, 19, 7, 172, 2]);
    }
}
