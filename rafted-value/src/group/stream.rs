//! Large snapshots on their way, at whoever gets them: offered whole, pulled in pieces.
//!
//! The leader only names what it has; the receiver asks for piece after piece, a few at a time, and asks again for what
//! does not come. So the receiver sets the pace, nothing large stands in a queue, and a transfer goes on where it was
//! when a connection broke. Raft sees the snapshot once all of it is there. Until then it is held in memory, as it must be
//! whole in order to be decoded.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{Group, Turn};
use crate::arrivals::{Arrival, Arrivals};
use crate::config::PIECE_BYTES;
use crate::env::MonoTime;
use crate::errand::{Errand, Work};
use crate::id::{MemberId, NodeId};
use crate::message::{Body, GroupMessage, WireSnapshot};

/// How many pieces a receiver has asked for and not got, at most.
const PIECES_WANTED_MAX: u64 = 4;
/// A receiver asks again for a piece that has not come in a tenth of the time after which the leader gives up.
const ASKS_BEFORE_GIVING_UP: u32 = 10;
/// ... and waits twice as long after each piece that came twice, so often at most: a slow way would else be filled with
/// what nobody needs, and never get anything through.
const HASTY_MAX: u32 = 2;

/// A snapshot that comes in pieces.
pub(super) struct Incoming {
    leader: MemberId,
    offer: u64,
    /// Everything but the state.
    meta: WireSnapshot,
    bytes: u64,
    state: Vec<u8>,
    /// Pieces that overtook others.
    early: BTreeMap<u64, Bytes>,
    /// Everything before this was asked for.
    asked: u64,
    heard: MonoTime,
    /// How often it was asked in vain: pieces have come twice, as the way is slower than was thought.
    hasty: u32,
    /// Nothing is missing any more.
    whole: bool,
    /// Its place among the snapshots that come to this node; without one nothing is asked for.
    place: Option<Arrival>,
}

impl Incoming {
    fn new(leader: MemberId, offer: u64, meta: WireSnapshot, bytes: u64, now: MonoTime) -> Self {
        // The length is what a peer says: room is made as the pieces come.
        Self {
            leader,
            offer,
            meta,
            bytes,
            state: Vec::new(),
            early: BTreeMap::new(),
            asked: 0,
            heard: now,
            hasty: 0,
            whole: false,
            place: None,
        }
    }

    /// Takes a place among the snapshots that come to this node, if it has none; says whether it has one now.
    fn has_place(&mut self, arrivals: &Arrivals) -> bool {
        if self.place.is_none() {
            self.place = arrivals.enter();
        }
        self.place.is_some()
    }

    /// How much of it is held.
    pub(super) fn held_bytes(&self) -> u64 {
        (self.state.len() + self.early.values().map(Bytes::len).sum::<usize>()) as u64
    }

    /// Whether this leader's snapshot is whole and was being decoded.
    pub(super) fn is_decoded_for(&self, leader: MemberId) -> bool {
        self.whole && self.leader == leader
    }

    fn is_of(&self, leader: MemberId, offer: u64) -> bool {
        self.leader == leader && self.offer == offer
    }

    /// The whole state, which is being decoded from now on.
    fn take_whole(&mut self) -> Bytes {
        self.asked = self.bytes;
        self.whole = true;
        std::mem::take(&mut self.state).into()
    }

    fn is_whole(&self) -> bool {
        self.state.len() as u64 == self.bytes
    }

    /// Takes a piece in; false if it is none that was asked for.
    fn take(&mut self, offset: u64, piece: Bytes, now: MonoTime) -> bool {
        let whole = (self.bytes.saturating_sub(offset)).min(PIECE_BYTES as u64) == piece.len() as u64;
        let expected =
            !self.whole && offset.is_multiple_of(PIECE_BYTES as u64) && offset < self.asked && whole;
        if !expected {
            return false;
        }
        // Whatever comes, comes instead of what is asked for again.
        self.heard = now;
        if offset < self.state.len() as u64 || self.early.contains_key(&offset) {
            self.hasty = (self.hasty + 1).min(HASTY_MAX);
            return true;
        }
        self.early.insert(offset, piece);
        while let Some(next) = self.early.remove(&(self.state.len() as u64)) {
            self.state.extend_from_slice(&next);
        }
        true
    }

    /// The offsets to ask for now.
    fn ask(&mut self) -> Vec<u64> {
        if self.whole {
            return Vec::new();
        }
        let end = (self.state.len() as u64 + PIECES_WANTED_MAX * PIECE_BYTES as u64).min(self.bytes);
        let offsets = (self.asked..end).step_by(PIECE_BYTES).collect();
        self.asked = self.asked.max(end);
        offsets
    }

    /// Asks anew for all that is missing.
    fn ask_again(&mut self) -> Vec<u64> {
        if self.whole {
            return Vec::new();
        }
        self.asked = self.state.len() as u64;
        let offsets = self.ask();
        offsets.into_iter().filter(|offset| !self.early.contains_key(offset)).collect()
    }
}

impl Group {
    /// A leader has a snapshot for this member.
    pub(super) fn receive_offer(&mut self, turn: &mut Turn<'_>, from: NodeId, message: GroupMessage) {
        let Body::Offer { offer, ref snapshot, bytes } = message.body else { return };
        let raft = &self.raw.raft;
        if message.term < raft.term {
            return;
        }
        let limit_bytes = turn.limits.snapshot_bytes_max;
        if bytes > limit_bytes {
            metrics::counter!("rafted_value_snapshots_refused_total").increment(1);
            tracing::warn!(group = %self.id, %from, bytes, limit_bytes, "a snapshot over the limit is refused");
            return;
        }
        let log = &raft.raft_log;
        if snapshot.index <= log.committed || log.match_term(snapshot.index, snapshot.term) {
            // raft needs none of it, and tells the leader so.
            let body = Body::Snapshot { snapshot: snapshot.clone() };
            self.receive_from_leader(turn, GroupMessage { body, ..message });
            return;
        }
        let goes_on =
            self.incoming_snapshot.as_ref().is_some_and(|incoming| incoming.is_of(message.from, offer));
        if !goes_on {
            self.incoming_snapshot =
                Some(Box::new(Incoming::new(message.from, offer, snapshot.clone(), bytes, turn.now)));
        }
        let Some(incoming) = &mut self.incoming_snapshot else { return };
        incoming.heard = turn.now;
        if incoming.has_place(turn.arrivals) {
            let offsets = incoming.ask_again();
            self.pull(turn, from, message.from, offsets);
        }
    }

    fn pull(&self, turn: &mut Turn<'_>, node: NodeId, to: MemberId, offsets: Vec<u64>) {
        let Some(incoming) = &self.incoming_snapshot else { return };
        let term = self.raw.raft.term.max(1);
        for offset in offsets {
            let body = Body::Pull { offer: incoming.offer, offset };
            turn.out.send(node, &GroupMessage { group: self.id, from: self.member, to, term, body });
        }
    }

    /// A piece has come; with the last one, raft gets the whole.
    pub(super) fn receive_piece(&mut self, turn: &mut Turn<'_>, from: NodeId, message: GroupMessage) {
        let Body::Piece { offer, offset, bytes } = message.body else { return };
        let Some(incoming) = &mut self.incoming_snapshot else { return };
        if incoming.leader == message.from && incoming.offer != offer {
            // Of an earlier offer: what was asked for since is behind it.
            incoming.heard = turn.now;
        }
        if !incoming.is_of(message.from, offer) || !incoming.take(offset, bytes, turn.now) {
            return;
        }
        if !incoming.is_whole() {
            let offsets = incoming.ask();
            self.pull(turn, from, message.from, offsets);
            return;
        }
        let snapshot = WireSnapshot { state: incoming.take_whole(), ..incoming.meta.clone() };
        let message = GroupMessage { body: Body::Snapshot { snapshot }, ..message };
        if incoming.bytes < turn.limits.snapshot_beside_bytes {
            self.incoming_snapshot = None;
            self.receive_from_leader(turn, message);
            return;
        }
        let (message, registry) = (Box::new(message), self.registry.clone());
        let work = Work::Decode { from, message, registry };
        turn.out.errands.push(Errand { group: self.id, member: self.member, work });
    }

    /// Asks again for what does not come, and gives up what nobody sends any more.
    pub(super) fn press_for_pieces(&mut self, turn: &mut Turn<'_>) {
        let Some(incoming) = &mut self.incoming_snapshot else { return };
        let limit: Duration = turn.limits.snapshot_retry;
        let silence = turn.now.since(incoming.heard);
        let leader = incoming.leader;
        if silence > limit * ASKS_BEFORE_GIVING_UP {
            tracing::debug!(group = %self.id, %leader, "gives up a snapshot that does not come");
            self.incoming_snapshot = None;
        } else if incoming.place.is_none()
            || (silence > (limit / ASKS_BEFORE_GIVING_UP) * (1 << incoming.hasty)
                && turn.now >= self.pieces_due)
        {
            if !incoming.has_place(turn.arrivals) {
                return;
            }
            self.pieces_due = turn.now + limit / ASKS_BEFORE_GIVING_UP;
            // Nothing is on its way at all: what is missing is lost.
            incoming.hasty = incoming.hasty.saturating_sub(1);
            let offsets = incoming.ask_again();
            if let Some(node) = self.node_of(leader) {
                self.pull(turn, node, leader, offsets);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = PIECE_BYTES as u64;

    fn incoming(bytes: u64) -> Incoming {
        let meta = WireSnapshot {
            index: 9,
            term: 2,
            voters: vec![MemberId(1)],
            learners: Vec::new(),
            state: Bytes::new(),
        };
        Incoming::new(MemberId(1), 7, meta, bytes, MonoTime::ZERO)
    }

    fn piece(fill: u8, bytes: u64) -> Bytes {
        vec![fill; bytes as usize].into()
    }

    #[test]
    fn pieces_that_overtake_each_other_are_put_in_order() {
        let mut incoming = incoming(2 * PIECE + 10);
        assert_eq!(incoming.ask(), [0, PIECE, 2 * PIECE]);
        assert!(incoming.take(2 * PIECE, piece(3, 10), MonoTime::ZERO));
        assert!(incoming.take(PIECE, piece(2, PIECE), MonoTime::ZERO));
        assert!(!incoming.is_whole());
        assert!(incoming.take(0, piece(1, PIECE), MonoTime::ZERO));
        assert!(incoming.is_whole() && incoming.early.is_empty());
        assert_eq!(
            (incoming.state[0], incoming.state[PIECE_BYTES], incoming.state[2 * PIECE_BYTES]),
            (1, 2, 3)
        );
    }

    #[test]
    fn no_more_than_a_few_pieces_are_asked_for_at_a_time() {
        let mut incoming = incoming(100 * PIECE);
        assert_eq!(incoming.ask().len() as u64, PIECES_WANTED_MAX);
        assert!(incoming.ask().is_empty());
        incoming.take(0, piece(1, PIECE), MonoTime::ZERO);
        assert_eq!(incoming.ask(), [PIECES_WANTED_MAX * PIECE]);
    }

    #[test]
    fn what_is_missing_is_asked_for_again_and_what_came_early_is_not() {
        let mut incoming = incoming(100 * PIECE);
        incoming.ask();
        incoming.take(0, piece(1, PIECE), MonoTime::ZERO);
        incoming.take(2 * PIECE, piece(1, PIECE), MonoTime::ZERO);
        assert_eq!(incoming.ask_again(), [PIECE, 3 * PIECE, 4 * PIECE]);
    }

    /// They fill the way that the others must take.
    #[test]
    fn pieces_that_come_twice_make_the_receiver_wait_longer_and_are_taken_once() {
        let mut incoming = incoming(3 * PIECE);
        incoming.ask();
        let later = MonoTime::from_nanos(5);
        incoming.take(0, piece(1, PIECE), MonoTime::ZERO);
        incoming.take(2 * PIECE, piece(3, PIECE), MonoTime::ZERO);
        for (offset, byte) in [(0, 9), (2 * PIECE, 9), (0, 9)] {
            assert!(incoming.take(offset, piece(byte, PIECE), later));
        }
        assert_eq!((incoming.hasty, incoming.heard), (HASTY_MAX, later));
        assert!(incoming.take(PIECE, piece(2, PIECE), later));
        assert!(incoming.is_whole());
        assert_eq!((incoming.state[0], incoming.state[2 * PIECE_BYTES]), (1, 3));
    }

    #[test]
    fn a_piece_of_the_wrong_length_or_place_is_refused() {
        let mut incoming = incoming(2 * PIECE);
        incoming.ask();
        for (offset, bytes) in [(0, PIECE - 1), (1, PIECE), (2 * PIECE, PIECE), (0, PIECE + 1), (u64::MAX, 0)]
        {
            assert!(!incoming.take(offset, piece(1, bytes), MonoTime::ZERO), "{bytes} bytes at {offset}");
        }
        assert!(incoming.state.is_empty() && incoming.early.is_empty());
    }
}
