//! A shard in bytes: a versioned head, then the slots in the order of their hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ShardData;
use super::all_keys::AllKeys;
use super::moves::{Gone, Incoming, MoveStep, Moves, Outcome, Outgoing};
use super::slots::{append, read_slot, take, write_slot};
use crate::key_range::KeyRange;
use crate::value_type::ValuePerKey;

/// Opens a snapshot; append-only.
#[derive(Serialize, Deserialize)]
enum Head {
    /// `slots` times a slot, in ascending order of hashes.
    V1 { range: Option<KeyRange>, moves: StoredMoves, all: AllKeys, slots: u64 },
}

#[derive(Serialize, Deserialize)]
struct StoredMoves {
    newest: Option<MoveStep>,
    outcome: Option<Outcome>,
    outgoing: Option<StoredOutgoing>,
    incoming: Option<Incoming>,
    gone: Vec<Gone>,
}

#[derive(Serialize, Deserialize)]
struct StoredOutgoing {
    range: KeyRange,
    to: u32,
    given_up: bool,
    version: u64,
    changes: BTreeMap<u64, u64>,
}

impl<V: ValuePerKey> ShardData<V> {
    /// Appends the whole shard to `out`.
    pub(super) fn write_snapshot(&self, out: &mut Vec<u8>) {
        let slots = self.entries.slots();
        let (range, moves, all) = (self.range, StoredMoves::of(&self.moves), self.all.clone());
        append(out, &Head::V1 { range, moves, all, slots: slots.len() as u64 });
        for (hash, slot) in slots {
            write_slot(&*self.value_type, hash, Some(slot), out);
        }
    }

    /// The shard that [`write_snapshot`](Self::write_snapshot) wrote.
    pub(super) fn read_snapshot(value_type: Arc<V>, bytes: &[u8]) -> Result<Self, String> {
        let (Head::V1 { range, moves, all, slots }, mut rest) = take::<Head>("head", bytes)?;
        let mut shard = Self::new(value_type);
        (shard.range, shard.moves, shard.all) = (range, moves.into(), all);
        let mut last = None;
        for _ in 0..slots {
            let ((hash, slot), left) = read_slot(&*shard.value_type, rest)?;
            if last.is_some_and(|last| last >= hash) {
                return Err(format!("the hash {hash:016x} is out of order"));
            }
            if slot.is_none() {
                return Err(format!("the hash {hash:016x} holds nothing"));
            }
            shard.entries.replace(hash, slot);
            (last, rest) = (Some(hash), left);
        }
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the last entry", rest.len()));
        }
        shard.range_changed();
        if let Some(served) = shard.serves() {
            shard.index(served);
        }
        Ok(shard)
    }
}

impl StoredMoves {
    fn of(moves: &Moves) -> Self {
        let Moves { newest, outcome, outgoing, incoming, gone } = moves.clone();
        let outgoing = outgoing.map(|outgoing| {
            let Outgoing { range, to, given_up, version, changes, .. } = outgoing;
            StoredOutgoing { range, to, given_up, version, changes }
        });
        Self { newest, outcome, outgoing, incoming, gone }
    }
}

impl From<StoredMoves> for Moves {
    fn from(stored: StoredMoves) -> Self {
        let StoredMoves { newest, outcome, outgoing, incoming, gone } = stored;
        let outgoing = outgoing.map(|outgoing| {
            let StoredOutgoing { range, to, given_up, version, changes } = outgoing;
            Outgoing::restored(range, to, given_up, version, changes)
        });
        Self { newest, outcome, outgoing, incoming, gone }
    }
}
