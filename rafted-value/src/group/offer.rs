//! Large snapshots at the leader that gives them: named in an offer, handed out in the pieces that are asked for.
//!
//! A state in memory is shared with the log. One in a file is read piece by piece, off the loop, and a piece leaves only
//! if its checksum is right. The file of an offer is pinned: newer snapshots, of which the log keeps two, do not take it
//! away, so that a transfer that takes long never begins again because of them. It goes when the member has it, when the
//! member is given a newer one because it fell silent, and when this member leads no more: one file for each member at
//! most.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use raft::SnapshotStatus;
use raft::eraftpb::Message;

use super::{Group, Turn};
use crate::config::PIECE_BYTES;
use crate::id::{MemberId, NodeId};
use crate::message::{Body, GroupMessage};
use crate::outputs::{Piece, ReadJob};
use crate::raft::convert::snapshot_to_wire;
use crate::store::{PinnedFile, StoreError};

/// How many pieces of one offer are being read at most; whoever asks for more asks again.
const READING_MAX: usize = 16;

/// A snapshot that a member was offered.
pub(super) struct Outgoing {
    /// Tells this offer from any other of this leader.
    offer: u64,
    index: u64,
    bytes: u64,
    source: Source,
}

/// Where pieces come from.
enum Source {
    Memory(Bytes),
    /// The offsets are of pieces that are being read.
    File(Arc<PinnedFile>, BTreeSet<u64>),
}

impl Outgoing {
    /// What it holds in memory beside a log whose snapshot is at `index`.
    pub(super) fn held_bytes(&self, index: u64) -> u64 {
        match &self.source {
            Source::Memory(state) if self.index != index => state.len() as u64,
            Source::Memory(_) | Source::File(..) => 0,
        }
    }
}

impl Group {
    /// Offers a member the snapshot of a message of raft that is too large to travel, or not in memory; false if the
    /// message can be sent as it is.
    pub(super) fn offer_in_pieces(&mut self, turn: &mut Turn<'_>, message: &mut Message) -> bool {
        let to = MemberId(message.to);
        self.snapshots_sent.insert(to, turn.now);
        let log = self.raw.store();
        if message.get_snapshot().data.is_empty() {
            // raft has no state that is in a file, and the log may have a newer one since raft asked.
            message.set_snapshot(log.snapshot_ref().clone());
        }
        let data = &message.get_snapshot().data;
        let (source, bytes) = match log.file() {
            // Nobody gets it; raft is told when it misses the answer.
            Some(_) if data.is_empty() && log.is_damaged() => return true,
            Some(file) if data.is_empty() => (Source::File(file.pin(), BTreeSet::new()), file.meta().bytes),
            _ if data.len() <= PIECE_BYTES => return false,
            _ => (Source::Memory(data.clone()), data.len() as u64),
        };
        let Some(node) = self.node_of(to) else { return true };
        let index = message.get_snapshot().get_metadata().index;
        let new = Outgoing { offer: turn.now.nanos(), index, bytes, source };
        // Who was offered it before goes on where it was.
        let known = self.outgoing.remove(&to).filter(|known| known.index == index);
        let outgoing = self.outgoing.entry(to).or_insert(known.unwrap_or(new));
        tracing::debug!(group = %self.id, member = %to, index, bytes, "offers a snapshot");
        let mut snapshot = snapshot_to_wire(message.take_snapshot());
        snapshot.state = Bytes::new();
        let body = Body::Offer { offer: outgoing.offer, snapshot, bytes };
        let (from, term) = (self.member, message.term);
        turn.out.send(node, &GroupMessage { group: self.id, from, to, term, body });
        true
    }

    /// A member asks for a piece.
    pub(super) fn receive_pull(
        &mut self,
        turn: &mut Turn<'_>,
        node: NodeId,
        to: MemberId,
        offer: u64,
        offset: u64,
    ) {
        let Some(outgoing) = self.outgoing.get_mut(&to).filter(|outgoing| outgoing.offer == offer) else {
            return;
        };
        if offset >= outgoing.bytes {
            return;
        }
        if let Some(sent) = self.snapshots_sent.get_mut(&to) {
            *sent = turn.now;
        }
        match &mut outgoing.source {
            Source::Memory(state) => {
                let start = usize::try_from(offset).expect("it is within what is in memory");
                let bytes = state.slice(start..state.len().min(start + PIECE_BYTES));
                self.send_piece(turn, (node, to), offer, offset, bytes);
            }
            Source::File(file, reading) => {
                if reading.len() < READING_MAX && reading.insert(offset) {
                    let file = Arc::clone(file);
                    let piece = Piece { group: self.id, member: self.member, node, to, offer, offset };
                    turn.out.reads.push(ReadJob { piece, file, bytes_max: PIECE_BYTES });
                }
            }
        }
    }

    fn send_piece(
        &self,
        turn: &mut Turn<'_>,
        (node, to): (NodeId, MemberId),
        offer: u64,
        offset: u64,
        bytes: Bytes,
    ) {
        let (from, term) = (self.member, self.raw.raft.term);
        let body = Body::Piece { offer, offset, bytes };
        turn.out.send(node, &GroupMessage { group: self.id, from, to, term, body });
    }

    /// A piece was read, or its file is not what it should be.
    pub(crate) fn piece_read(&mut self, turn: &mut Turn<'_>, piece: Piece, read: Result<Bytes, StoreError>) {
        let Piece { node, to, offer, offset, .. } = piece;
        let Some(outgoing) = self.outgoing.get_mut(&to).filter(|outgoing| outgoing.offer == offer) else {
            return;
        };
        if let Source::File(_, reading) = &mut outgoing.source {
            reading.remove(&offset);
        }
        match read {
            Ok(bytes) => self.send_piece(turn, (node, to), offer, offset, bytes),
            Err(error) => {
                let index = outgoing.index;
                self.withdraw(index, &error);
            }
        }
    }

    /// Takes back what was offered of a snapshot that cannot be read: nobody gets the rest of it, and raft asks for
    /// another one. If it is the newest there is, one is taken, which replaces its file.
    fn withdraw(&mut self, index: u64, error: &StoreError) {
        metrics::counter!("rafted_value_snapshots_damaged_total").increment(1);
        tracing::error!(group = %self.id, member = %self.member, index, %error, "a snapshot cannot be read; its receivers get another one");
        let offered = self.outgoing.iter().filter(|(_, outgoing)| outgoing.index == index);
        for to in offered.map(|(to, _)| *to).collect::<Vec<_>>() {
            self.outgoing.remove(&to);
            self.snapshots_sent.remove(&to);
            self.raw.report_snapshot(to.0, SnapshotStatus::Failure);
        }
        if index == self.raw.store().snapshot_index() {
            self.raw.mut_store().mark_damaged();
        }
    }

    /// A member does not answer. Where there is a newer snapshot, it is given that one, and the old one goes.
    pub(super) fn give_up_offer(&mut self, to: MemberId) {
        let newest = self.raw.store().snapshot_index();
        if self.outgoing.get(&to).is_some_and(|outgoing| outgoing.index != newest) {
            self.outgoing.remove(&to);
        }
    }
}
