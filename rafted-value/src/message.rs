//! What the members of groups say to each other, in our own encoding.
//!
//! No protobuf parser ever sees bytes from the network (protobuf 2.28 carries RUSTSEC-2024-0437): a batch is a version
//! byte and then postcard messages one after the other, and whatever does not decode is an error value. Released
//! variants are frozen; a change is a new variant at the end.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{GroupId, MemberId, NodeId};
use crate::neighbours::LoopId;

/// The version that opens every batch.
pub(crate) const BATCH_VERSION: u8 = 1;

/// One message from a member to a member of the same group.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct GroupMessage {
    pub(crate) group: GroupId,
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    pub(crate) term: u64,
    pub(crate) body: Body,
}

/// What Raft says, plus the round and promise of our lease.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Body {
    /// A leader lives. `round` is the leader's own clock when it sent this, in ns; `promise_ms` is for how long it
    /// wants votes withheld.
    Beat { commit: u64, round: u64, promise_ms: u32 },
    /// A beat of this round was accepted and its promise is kept.
    BeatAck { commit: u64, round: u64 },
    /// Entries that follow the entry at `index`.
    Append { log_term: u64, index: u64, commit: u64, entries: Vec<WireEntry> },
    /// How an append went.
    AppendAck {
        log_term: u64,
        index: u64,
        commit: u64,
        reject: bool,
        reject_hint: u64,
        request_snapshot: u64,
    },
    /// A candidate asks for a vote, or whether it would get one.
    Vote { pre: bool, log_term: u64, index: u64, commit: u64, commit_term: u64, priority: i64 },
    /// The answer to a vote.
    VoteAck { pre: bool, reject: bool, commit: u64, commit_term: u64 },
    /// The whole state.
    Snapshot { snapshot: WireSnapshot },
    /// The receiver was removed from the group for ever.
    Removed,
    /// The leader hands its leadership over to the receiver, and has given up its lease for all rounds up to `round`.
    TransferNow { round: u64 },
    /// A vote asked for at the wish of the leader of the term before, whose exemption holds up to `round`.
    TransferVote { log_term: u64, index: u64, commit: u64, commit_term: u64, round: u64 },
    /// A leader has a snapshot for the receiver, who pulls its `bytes` in pieces; the state in it is empty. `offer` tells
    /// it from every other of this leader.
    Offer { offer: u64, snapshot: WireSnapshot, bytes: u64 },
    /// Asks for the piece at `offset`.
    Pull { offer: u64, offset: u64 },
    /// The piece at `offset`.
    Piece { offer: u64, offset: u64, bytes: Bytes },
    /// The hash of the sender's state at the check at `index`.
    StateHash { index: u64, hash: u64 },
    /// A beat of a leader whose group is idle: may it stop beating? `leader_loop` will say in its place that it lives.
    Rest { commit: u64, round: u64, promise_ms: u32, leader_loop: LoopId },
    /// A beat of this round was accepted, and the sender does without further ones as long as it hears `leader_loop`;
    /// `member_loop` says that it lives itself.
    RestAck { commit: u64, round: u64, member_loop: LoopId },
    /// The sender of this is not quiet any more, and knows no reason why the receiver should be.
    Wake,
}

/// A log entry on its way.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct WireEntry {
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) body: WireEntryBody,
}

impl WireEntry {
    /// No less than it has in a record.
    pub(crate) fn about_bytes(&self) -> u64 {
        let body = match &self.body {
            WireEntryBody::Normal(data) => data.len() as u64,
            WireEntryBody::Change(_) => 0,
        };
        body + 64
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum WireEntryBody {
    /// What the group's state machine reads; empty for a new leader's first entry.
    Normal(Bytes),
    /// A change of one member.
    Change(MemberChange),
}

/// One change of a group's membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct MemberChange {
    pub(crate) kind: ChangeKind,
    pub(crate) member: MemberId,
    pub(crate) node: NodeId,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum ChangeKind {
    AddLearner,
    Promote,
    Remove,
}

/// A snapshot on its way.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct WireSnapshot {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) voters: Vec<MemberId>,
    pub(crate) learners: Vec<MemberId>,
    pub(crate) state: Bytes,
}

/// Why a batch from a peer was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("an empty batch")]
    Empty,
    #[error("batch version {0}, where this node speaks {BATCH_VERSION}")]
    Version(u8),
    #[error("message {position} of a batch does not decode: {reason}")]
    Malformed { position: usize, reason: String },
}

/// Messages to one node on one lane, written as they come and cut where a batch is large enough.
#[derive(Debug, Default)]
pub(crate) struct BatchWriter {
    buffer: Vec<u8>,
    full: Vec<Bytes>,
}

/// A batch is cut when it is larger than this, so that it fits every transport's limit with room to spare.
const BATCH_BYTES: usize = 512 << 10;

impl BatchWriter {
    pub(crate) fn push(&mut self, message: &GroupMessage) {
        if self.buffer.is_empty() {
            self.buffer.push(BATCH_VERSION);
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = postcard::to_extend(message, buffer).expect("messages serialise");
        if self.buffer.len() >= BATCH_BYTES {
            self.cut();
        }
    }

    /// The batches so far.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        self.cut();
        std::mem::take(&mut self.full)
    }

    fn cut(&mut self) {
        if !self.buffer.is_empty() {
            self.full.push(std::mem::take(&mut self.buffer).into());
        }
    }
}

/// The messages of a batch.
pub(crate) fn read_batch(batch: &[u8]) -> Result<Vec<GroupMessage>, BatchError> {
    let (&version, mut rest) = batch.split_first().ok_or(BatchError::Empty)?;
    if version != BATCH_VERSION {
        return Err(BatchError::Version(version));
    }
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (message, after) = postcard::take_from_bytes(rest)
            .map_err(|error| BatchError::Malformed { position: messages.len(), reason: error.to_string() })?;
        messages.push(message);
        rest = after;
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beat(group: u64) -> GroupMessage {
        let body = Body::Beat { commit: 300, round: 1 << 40, promise_ms: 200 };
        GroupMessage { group: GroupId(group), from: MemberId(1), to: MemberId(2), term: 7, body }
    }

    #[test]
    fn a_batch_has_these_golden_bytes() {
        let mut writer = BatchWriter::default();
        writer.push(&beat(5));
        let change = MemberChange { kind: ChangeKind::Promote, member: MemberId(3), node: NodeId(9) };
        let entries = vec![
            WireEntry { term: 7, index: 4, body: WireEntryBody::Normal(Bytes::from_static(b"ab")) },
            WireEntry { term: 7, index: 5, body: WireEntryBody::Change(change) },
        ];
        let body = Body::Append { log_term: 6, index: 3, commit: 2, entries };
        writer.push(&GroupMessage { body, ..beat(5) });
        let batches = writer.take();
        assert_eq!(batches.len(), 1);
        let golden = [
            1, 5, 1, 2, 7, 0, 172, 2, 128, 128, 128, 128, 128, 32, 200, 1, // beat
            5, 1, 2, 7, 2, 6, 3, 2, 2, 7, 4, 0, 2, 97, 98, 7, 5, 1, 1, 3, 9, // append
        ];
        assert_eq!(batches[0][..], golden);
        assert_eq!(read_batch(&batches[0]).unwrap().len(), 2);
    }

    #[test]
    fn the_messages_of_a_transfer_have_these_golden_bytes() {
        let mut writer = BatchWriter::default();
        writer.push(&GroupMessage { body: Body::TransferNow { round: 300 }, ..beat(5) });
        let body = Body::TransferVote { log_term: 6, index: 3, commit: 2, commit_term: 6, round: 300 };
        writer.push(&GroupMessage { body, ..beat(5) });
        assert_eq!(writer.take()[0][..], [1, 5, 1, 2, 7, 8, 172, 2, 5, 1, 2, 7, 9, 6, 3, 2, 6, 172, 2]);
    }

    #[test]
    fn the_hash_of_a_state_has_these_golden_bytes() {
        let mut writer = BatchWriter::default();
        writer.push(&GroupMessage { body: Body::StateHash { index: 300, hash: 5 }, ..beat(5) });
        assert_eq!(writer.take()[0][..], [1, 5, 1, 2, 7, 13, 172, 2, 5]);
    }

    #[test]
    fn the_messages_of_a_quiet_group_have_these_golden_bytes() {
        let mut writer = BatchWriter::default();
        let body = Body::Rest { commit: 3, round: 300, promise_ms: 200, leader_loop: LoopId(9) };
        writer.push(&GroupMessage { body, ..beat(5) });
        let body = Body::RestAck { commit: 3, round: 300, member_loop: LoopId(300) };
        writer.push(&GroupMessage { body, ..beat(5) });
        writer.push(&GroupMessage { body: Body::Wake, ..beat(5) });
        let golden = [
            1, 5, 1, 2, 7, 14, 3, 172, 2, 200, 1, 9, // rest
            5, 1, 2, 7, 15, 3, 172, 2, 172, 2, // consent
            5, 1, 2, 7, 16, // wake
        ];
        assert_eq!(writer.take()[0][..], golden);
    }

    #[test]
    fn a_large_batch_is_cut() {
        let mut writer = BatchWriter::default();
        let entry = WireEntryBody::Normal(vec![7; 400 << 10].into());
        for _ in 0..4 {
            let entries = vec![WireEntry { term: 1, index: 1, body: entry.clone() }];
            let body = Body::Append { log_term: 0, index: 0, commit: 0, entries };
            writer.push(&GroupMessage { body, ..beat(1) });
        }
        assert_eq!(
            writer.take().iter().map(|batch| read_batch(batch).unwrap().len()).collect::<Vec<_>>(),
            [2, 2]
        );
    }

    #[test]
    fn another_version_is_named() {
        assert_eq!(read_batch(&[9, 1, 1]), Err(BatchError::Version(9)));
        assert_eq!(read_batch(&[]), Err(BatchError::Empty));
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_or_messages_but_never_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_batch(&bytes);
            bytes.insert(0, BATCH_VERSION);
            let _ = read_batch(&bytes);
        }
    }
}
