//! What a turn of the engine wants done: messages to send and callers to answer. The shell performs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::errand::Errand;
use crate::error::{GroupError, QueryError};
use crate::group::CommandResult;
use crate::id::{GroupId, MemberId, NodeId};
use crate::keepsake::Keepsake;
use crate::message::{BatchWriter, Body, GroupMessage, WireSnapshot};
use crate::neighbours::LoopMessage;
use crate::status::GroupStatus;
use crate::store::{PinnedFile, Record};
use crate::transport::Lane;
use crate::waiter::Waiter;

/// An answer and who waits for it.
pub(crate) enum Answer {
    Command(Waiter<CommandResult>, CommandResult),
    Query(Waiter<Result<Bytes, QueryError>>, Result<Bytes, QueryError>),
    Member(Waiter<Result<MemberId, GroupError>>, Result<MemberId, GroupError>),
    Statuses(Waiter<Vec<GroupStatus>>, Vec<GroupStatus>),
    Keepsake(Waiter<Result<Option<Keepsake>, GroupError>>, Result<Option<Keepsake>, GroupError>),
}

/// Who is told once a record is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ack {
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    /// The `Ready` whose keeping is acknowledged, with all before it.
    pub(crate) number: u64,
    /// Whether it must have reached the disk, and not only the operating system.
    pub(crate) sync: bool,
    /// Whether it is for the record that a member begins with: one of before may have the same number.
    pub(crate) begins: bool,
}

/// A snapshot to be written to a file of its own.
#[derive(Debug)]
pub(crate) struct SnapshotJob {
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    pub(crate) snapshot: WireSnapshot,
}

/// A piece of a snapshot, for a member that asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) group: GroupId,
    /// Whose snapshot it is.
    pub(crate) member: MemberId,
    pub(crate) node: NodeId,
    pub(crate) to: MemberId,
    pub(crate) offer: u64,
    pub(crate) offset: u64,
}

/// A piece to be read out of its file.
#[derive(Debug)]
pub(crate) struct ReadJob {
    pub(crate) piece: Piece,
    pub(crate) file: Arc<PinnedFile>,
    pub(crate) bytes_max: usize,
}

/// What a turn wants done.
#[derive(Default)]
pub(crate) struct Outputs {
    pub(crate) messages: BTreeMap<(NodeId, Lane), BatchWriter>,
    /// Records to be written, in order.
    pub(crate) records: Vec<Record>,
    /// Whom to tell when they are.
    pub(crate) acks: Vec<Ack>,
    pub(crate) snapshots: Vec<SnapshotJob>,
    /// Pieces of snapshots to be read.
    pub(crate) reads: Vec<ReadJob>,
    pub(crate) answers: Vec<Answer>,
    /// What is to be done beside the loop.
    pub(crate) errands: Vec<Errand>,
    /// What this loop says to others.
    pub(crate) beats: Vec<(NodeId, LoopMessage)>,
}

impl Outputs {
    /// Sends `message` to the member's node.
    pub(crate) fn send(&mut self, to: NodeId, message: &GroupMessage) {
        let large = matches!(message.body, Body::Snapshot { .. } | Body::Piece { .. });
        let lane = if large { Lane::Bulk } else { Lane::Control };
        self.messages.entry((to, lane)).or_default().push(message);
    }

    /// Writes a record to the disk.
    pub(crate) fn keep(&mut self, record: Record, ack: Option<Ack>) {
        self.records.push(record);
        self.acks.extend(ack);
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
            Answer::Keepsake(waiter, keepsake) => waiter.answer(keepsake),
        }
    }
}
