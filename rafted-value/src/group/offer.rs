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
use crate::env::MonoTime;
use crate::id::{MemberId, NodeId};
use crate::message::{Body, GroupMessage};
use crate::outputs::{Piece, ReadJob};
use crate::raft::convert::snapshot_to_wire;
use crate::store::{PinnedFile, StoreError};

/// How many pieces of one offer are being read at most; whoever asks for more asks again.
const READING_MAX: usize = 16;
/// How many pieces of one offer are answered in one turn at most; whoever asks for more asks again. A receiver wants four at
/// a time, and those again when they are late. One that asks without end, in messages of a few bytes each, would else
/// have the loop make gigabytes of answers before anybody else has his turn.
const PIECES_MAX: usize = 8;

/// A snapshot that a member was offered.
pub(super) struct Outgoing {
    /// Tells this offer from any other of this leader.
    offer: u64,
    index: u64,
    bytes: u64,
    source: Source,
    /// When a piece was asked for last, and how many were answered in that turn.
    answered: (MonoTime, usize),
}

/// What a member gets that asks for a piece.
enum Answer {
    Piece(Bytes),
    /// It is to be read from here first.
    Read(Arc<PinnedFile>),
}

/// Where pieces come from.
enum Source {
    Memory(Bytes),
    /// The offsets are of pieces that are being read.
    File(Arc<PinnedFile>, BTreeSet<u64>),
}

impl Outgoing {
    fn new(offer: u64, index: u64, bytes: u64, source: Source) -> Self {
        Self { offer, index, bytes, source, answered: (MonoTime::ZERO, 0) }
    }

    /// Answers a wish for the piece at `offset` that came in the turn of `now`; `None` where there is none, it is being
    /// read already, or enough was answered.
    fn answer(&mut self, now: MonoTime, offset: u64) -> Option<Answer> {
        if offset >= self.bytes {
            return None;
        }
        let before = if self.answered.0 == now { self.answered.1 } else { 0 };
        if before >= PIECES_MAX {
            return None;
        }
        let answer = match &mut self.source {
            Source::Memory(state) => {
                let start = usize::try_from(offset).expect("it is within what is in memory");
                Answer::Piece(state.slice(start..state.len().min(start + PIECE_BYTES)))
            }
            Source::File(file, reading) => {
                if reading.len() >= READING_MAX || !reading.insert(offset) {
                    return None;
                }
                Answer::Read(Arc::clone(file))
            }
        };
        self.answered = (now, before + 1);
        Some(answer)
    }

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
        let new = Outgoing::new(turn.now.nanos(), index, bytes, source);
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
        if let Some(sent) = self.snapshots_sent.get_mut(&to) {
            *sent = turn.now;
        }
        match outgoing.answer(turn.now, offset) {
            Some(Answer::Piece(bytes)) => self.send_piece(turn, (node, to), offer, offset, bytes),
            Some(Answer::Read(file)) => {
                let piece = Piece { group: self.id, member: self.member, node, to, offer, offset };
                turn.out.reads.push(ReadJob { piece, file, bytes_max: PIECE_BYTES });
            }
            None => tracing::trace!(group = %self.id, member = %to, offset, "a piece is not given now"),
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

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = PIECE_BYTES as u64;

    /// The offsets of the pieces that a member gets which asks for these in one turn.
    fn answered(outgoing: &mut Outgoing, now: u64, offsets: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let answer = |offset| outgoing.answer(MonoTime::from_nanos(now), offset).map(|_| offset);
        offsets.into_iter().filter_map(answer).collect()
    }

    fn outgoing(bytes: u64) -> Outgoing {
        Outgoing::new(7, 9, bytes, Source::Memory(vec![1; bytes as usize].into()))
    }

    /// A receiver that asked for a hundred pieces at once got them at once, and the loop's other groups waited.
    #[test]
    fn who_asks_for_many_pieces_gets_a_few_in_a_turn_and_may_ask_again_in_the_next() {
        let mut outgoing = outgoing(100 * PIECE);
        let all = || (0..100).map(|piece| piece * PIECE);
        let first: Vec<u64> = all().take(PIECES_MAX).collect();
        assert_eq!(answered(&mut outgoing, 5, all()), first);
        assert_eq!(answered(&mut outgoing, 5, all()), []);
        assert_eq!(
            answered(&mut outgoing, 6, all()),
            first,
            "in memory nothing is remembered of what was given"
        );
        assert_eq!(
            answered(&mut outgoing, 7, vec![3 * PIECE; 100]).len(),
            PIECES_MAX,
            "nor the same again and again"
        );
    }

    #[test]
    fn each_offer_has_a_few_pieces_of_its_own_in_a_turn() {
        let (mut one, mut other) = (outgoing(20 * PIECE), outgoing(20 * PIECE));
        for outgoing in [&mut one, &mut other] {
            assert_eq!(answered(outgoing, 5, (0..20).map(|piece| piece * PIECE)).len(), PIECES_MAX);
        }
    }

    #[test]
    fn what_is_not_there_is_not_given_and_does_not_count() {
        let mut outgoing = outgoing(PIECE + 10);
        assert_eq!(answered(&mut outgoing, 5, [PIECE + 10, u64::MAX, 2 * PIECE]), []);
        let Some(Answer::Piece(last)) = outgoing.answer(MonoTime::from_nanos(5), PIECE) else {
            panic!("it is there")
        };
        assert_eq!(last.len(), 10);
        assert_eq!(answered(&mut outgoing, 5, vec![0; 20]).len(), PIECES_MAX - 1);
    }
}
