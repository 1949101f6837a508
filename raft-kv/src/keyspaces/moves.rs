//! Moves of ranges between shards, as the whole cluster knows them: who performs each, and how far it has come.
//!
//! A move is held by one performer at a time, under a lease in stamped time and an epoch. Whoever takes it over after the
//! lease has run out gets the next epoch, and neither this list nor the shards listen to the one before.

use raft_fleet::rafted_value::NodeId;
use serde::{Deserialize, Serialize};

use super::{Keyspaces, KeyspacesReply};
use crate::key_range::KeyRange;
use crate::keyspace::{Keyspace, KeyspaceName, KeyspaceState, ShardPlace};

/// What a move is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MoveKind {
    /// Some of a shard's range becomes a new shard.
    Split,
    /// All of a shard's range goes to its neighbour, and the shard ends.
    Merge,
}

/// How far a move has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MovePhase {
    /// The range is on its way.
    Moving,
    /// The range has its new owner, and what is left at the old one is tidied up.
    Moved,
    /// The range stays where it was, and both shards are told so.
    Aborting(String),
}

/// A range of key hashes on its way from one shard of a keyspace to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// Grows from move to move over the whole cluster.
    pub id: u64,
    /// The keyspace.
    pub keyspace: KeyspaceName,
    /// The generation of the keyspace.
    pub generation: u64,
    /// What it is for.
    pub kind: MoveKind,
    /// The shard that has the range.
    pub from: u32,
    /// The shard that gets it.
    pub to: u32,
    /// The range.
    pub range: KeyRange,
    /// How far it has come.
    pub phase: MovePhase,
    /// How many performers it has had.
    pub epoch: u64,
    /// Until when, in stamped time, its performer has it for itself.
    pub until_ms: u64,
    /// The node that performs it, or did last.
    pub performer: Option<NodeId>,
}

impl Move {
    /// From now on this node performs it; the move as it is then.
    fn begin_epoch(&mut self, now_ms: u64, node: NodeId, lease_ms: u64) -> Move {
        self.epoch += 1;
        self.performer = Some(node);
        self.until_ms = now_ms.saturating_add(lease_ms);
        self.clone()
    }
}

/// Why a move does not begin.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MoveRefusal {
    /// The keyspace has no such shard, or not with such a neighbour.
    #[error("the keyspace has no shard {0}, or not as a neighbour")]
    NoSuchShard(u32),
    /// The shard takes part in a move already.
    #[error("shard {0} takes part in a move already")]
    ShardMoves(u32),
    /// The split would leave one side without a hash.
    #[error("shard {shard} holds the key hashes {range} and cannot be split at {at:016x}")]
    NotInRange {
        /// The shard.
        shard: u32,
        /// Its range.
        range: KeyRange,
        /// Where it was to be split.
        at: u64,
    },
    /// The keyspace has as many, or as few, shards as its policy allows.
    #[error("the keyspace has {shards} shards, its limit")]
    ShardLimit {
        /// How many it has.
        shards: u32,
    },
    /// As many moves are under way as there may be.
    #[error("{moves} moves are under way, as many as there may be")]
    TooManyMoves {
        /// How many.
        moves: u32,
    },
    /// The keyspace's shards are still being made.
    #[error("the keyspace is still being created")]
    StillCreating,
}

/// What a performer tells of its move.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum MoveReport {
    /// It is at work.
    AtWork { lease_ms: u64 },
    /// The range has its new owner.
    Moved,
    /// It cannot be done.
    Abort(String),
    /// Nothing is left to do.
    Ended,
}

impl Keyspaces {
    /// A new shard gets the part of a shard's range from `at` on.
    pub(super) fn start_split(
        &mut self,
        name: &KeyspaceName,
        generation: u64,
        shard: u32,
        at: u64,
        moves_max: u32,
    ) -> Result<Move, KeyspacesReply> {
        let keyspace = self.ready(name, generation)?;
        let place = *keyspace.shard(shard).ok_or(refuse(MoveRefusal::NoSuchShard(shard)))?;
        self.check_free(keyspace, &[shard], moves_max)?;
        let splits = self.moves_of(keyspace).filter(|present| present.kind == MoveKind::Split).count();
        let shards = u32::try_from(keyspace.shards.len() + splits).unwrap_or(u32::MAX);
        if shards >= keyspace.policy.split_merge.max_shards {
            return Err(refuse(MoveRefusal::ShardLimit { shards }));
        }
        let Some((_, range)) = place.range.split_at(at) else {
            return Err(refuse(MoveRefusal::NotInRange { shard, range: place.range, at }));
        };
        let keyspace = self.keyspaces.get_mut(name).expect("found above");
        let to = keyspace.next_shard;
        keyspace.next_shard += 1;
        Ok(self.add_move(name, generation, MoveKind::Split, shard, to, range))
    }

    /// A shard's whole range goes to its neighbour.
    pub(super) fn start_merge(
        &mut self,
        name: &KeyspaceName,
        generation: u64,
        from: u32,
        to: u32,
        moves_max: u32,
    ) -> Result<Move, KeyspacesReply> {
        let keyspace = self.ready(name, generation)?;
        let place = |shard| keyspace.shard(shard).copied().ok_or(refuse(MoveRefusal::NoSuchShard(shard)));
        let (range, neighbour) = (place(from)?.range, place(to)?.range);
        if range.joined(neighbour).is_none() {
            return Err(refuse(MoveRefusal::NoSuchShard(to)));
        }
        self.check_free(keyspace, &[from, to], moves_max)?;
        let merges = self.moves_of(keyspace).filter(|present| present.kind == MoveKind::Merge).count();
        let shards = u32::try_from(keyspace.shards.len().saturating_sub(merges)).unwrap_or(u32::MAX);
        if shards <= keyspace.policy.split_merge.min_shards {
            return Err(refuse(MoveRefusal::ShardLimit { shards }));
        }
        Ok(self.add_move(name, generation, MoveKind::Merge, from, to, range))
    }

    /// Gives the first move to a node whose performer is silent, or is said to be gone. That it is gone need not be true:
    /// two performers at once are in each other's way, and no more than that.
    pub(super) fn claim(
        &mut self,
        now_ms: u64,
        node: NodeId,
        gone: Option<NodeId>,
        lease_ms: u64,
    ) -> Option<Move> {
        let waits =
            |present: &&mut Move| present.until_ms < now_ms || (gone.is_some() && present.performer == gone);
        let claimed = self.moves.values_mut().find(waits)?;
        Some(claimed.begin_epoch(now_ms, node, lease_ms))
    }

    /// Gives a move back to the node that performed it in this epoch and has forgotten it, as it does when it starts again,
    /// unless somebody has claimed it since.
    pub(super) fn resume(
        &mut self,
        now_ms: u64,
        id: u64,
        epoch: u64,
        node: NodeId,
        lease_ms: u64,
    ) -> Option<Move> {
        let own = |present: &&mut Move| present.epoch == epoch && present.performer == Some(node);
        let resumed = self.moves.get_mut(&id).filter(own)?;
        Some(resumed.begin_epoch(now_ms, node, lease_ms))
    }

    /// Hears the performer of a move, unless it was replaced; the move as it is then.
    pub(super) fn hear(&mut self, now_ms: u64, id: u64, epoch: u64, report: MoveReport) -> Option<Move> {
        let present = self.moves.get_mut(&id).filter(|present| present.epoch == epoch)?;
        match report {
            MoveReport::AtWork { lease_ms } => present.until_ms = now_ms.saturating_add(lease_ms),
            // The shards have the last word: they may have done it before either heard of an abort.
            MoveReport::Moved if present.phase != MovePhase::Moved => {
                present.phase = MovePhase::Moved;
                let moved = present.clone();
                self.rearrange(&moved);
                return Some(moved);
            }
            MoveReport::Abort(reason) if present.phase == MovePhase::Moving => {
                present.phase = MovePhase::Aborting(reason);
            }
            MoveReport::Ended if present.phase != MovePhase::Moving => {
                let ended = self.moves.remove(&id);
                if let Some(ended) = &ended {
                    self.cool(now_ms, ended);
                }
                return ended;
            }
            MoveReport::Moved | MoveReport::Abort(_) | MoveReport::Ended => {}
        }
        Some(present.clone())
    }

    fn ready(&self, name: &KeyspaceName, generation: u64) -> Result<&Keyspace, KeyspacesReply> {
        match self.keyspaces.get(name).filter(|keyspace| keyspace.generation == generation) {
            Some(keyspace) if keyspace.state == KeyspaceState::Ready => Ok(keyspace),
            Some(_) => Err(refuse(MoveRefusal::StillCreating)),
            None => Err(KeyspacesReply::NoSuchKeyspace),
        }
    }

    fn check_free(&self, keyspace: &Keyspace, shards: &[u32], moves_max: u32) -> Result<(), KeyspacesReply> {
        let busy =
            |shard: u32| self.moves_of(keyspace).any(|present| [present.from, present.to].contains(&shard));
        if let Some(shard) = shards.iter().find(|shard| busy(**shard)) {
            return Err(refuse(MoveRefusal::ShardMoves(*shard)));
        }
        let moves = u32::try_from(self.moves.len()).unwrap_or(u32::MAX);
        if moves >= moves_max {
            return Err(refuse(MoveRefusal::TooManyMoves { moves }));
        }
        Ok(())
    }

    fn moves_of(&self, keyspace: &Keyspace) -> impl Iterator<Item = &Move> {
        self.moves.values().filter(|present| present.generation == keyspace.generation)
    }

    fn add_move(
        &mut self,
        name: &KeyspaceName,
        generation: u64,
        kind: MoveKind,
        from: u32,
        to: u32,
        range: KeyRange,
    ) -> Move {
        self.newest_move += 1;
        let (id, keyspace, phase) = (self.newest_move, name.clone(), MovePhase::Moving);
        let (epoch, until_ms, performer) = (0, 0, None);
        let started =
            Move { id, keyspace, generation, kind, from, to, range, phase, epoch, until_ms, performer };
        self.moves.insert(id, started.clone());
        started
    }

    /// The range has its new owner.
    fn rearrange(&mut self, moved: &Move) {
        let keyspace = self.keyspaces.get_mut(&moved.keyspace);
        let Some(keyspace) = keyspace.filter(|keyspace| keyspace.generation == moved.generation) else {
            return;
        };
        keyspace.revision += 1;
        keyspace.shards.retain_mut(|shard| {
            if shard.number != moved.from {
                return true;
            }
            let left = shard.range.without(moved.range);
            (shard.range, shard.moved) = (left.unwrap_or(shard.range), moved.id);
            left.is_some()
        });
        let range = moved.range;
        match keyspace.shards.iter_mut().find(|shard| shard.number == moved.to) {
            Some(receiver) => {
                receiver.range = receiver.range.joined(range).unwrap_or(receiver.range);
                receiver.moved = moved.id;
            }
            None => {
                let (number, moved) = (moved.to, moved.id);
                keyspace.shards.push(ShardPlace { number, range, moved, changed_ms: 0 });
            }
        }
        keyspace.shards.sort_by_key(|shard| shard.range.first());
    }

    /// The shards of a move that has ended, one way or the other, are left alone for a while.
    fn cool(&mut self, now_ms: u64, ended: &Move) {
        let keyspace = self.keyspaces.get_mut(&ended.keyspace);
        let Some(keyspace) = keyspace.filter(|keyspace| keyspace.generation == ended.generation) else {
            return;
        };
        for shard in &mut keyspace.shards {
            if [ended.from, ended.to].contains(&shard.number) {
                shard.changed_ms = now_ms;
            }
        }
    }
}

fn refuse(refusal: MoveRefusal) -> KeyspacesReply {
    KeyspacesReply::MoveRefused(refusal)
}
