//! A shard in bytes: a versioned head, then the slots in the order of their hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft_fleet::rafted_value::Frozen;
use serde::{Deserialize, Serialize};

use super::ShardData;
use super::all_keys::AllKeys;
use super::arriving::Arriving;
use super::entries::Entry;
use super::moves::{Gone, Incoming, MoveStep, Moves, Outcome, Outgoing};
use super::slots::{SlotWriter, append, read_slot, take};
use crate::key_range::KeyRange;
use crate::value_type::ValuePerKey;

/// Opens a snapshot; append-only.
#[derive(Serialize, Deserialize)]
enum Head {
    /// `slots` times a slot, in ascending order of hashes.
    V1 { range: Option<KeyRange>, value_size_max: u64, moves: StoredMoves, all: AllKeys, slots: u64 },
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
        self.write_head(out);
        let mut writer = SlotWriter::new(&*self.value_type);
        for (hash, slot) in self.entries.slots() {
            writer.write(hash, Some(slot), out);
        }
    }

    /// What writes the same later and on another thread, from copies of the values; `None` where they have none. It
    /// costs in proportion to the entries, whatever their size, and a small part of writing them.
    pub(super) fn frozen(&self) -> Option<Frozen> {
        let mut head = Vec::new();
        self.write_head(&mut head);
        let mut slots = Vec::with_capacity(self.entries.slots().len());
        // The keys are copied to one place: a small allocation for each would cost more than all else.
        let (mut keys, mut entries) = (Vec::new(), Vec::with_capacity(slots.capacity()));
        for (hash, slot) in self.entries.slots() {
            slots.push((hash, slot.entries().len()));
            for Entry { key, value, size } in slot.entries() {
                let value = value.as_ref().expect("between commands every entry has a value");
                keys.extend_from_slice(key);
                entries.push((key.len(), *size, self.value_type.copy(key, value)?));
            }
        }
        let value_type = Arc::clone(&self.value_type);
        Some(Box::new(move |out: &mut Vec<u8>| {
            out.extend_from_slice(&head);
            let (mut writer, mut keys) = (SlotWriter::new(&*value_type), &keys[..]);
            let mut entries = entries.into_iter();
            for (hash, count) in slots {
                writer.open(hash, count, out);
                for (key_bytes, size, value) in entries.by_ref().take(count) {
                    let (key, rest) = keys.split_at(key_bytes);
                    writer.entry(key, &value, size, out);
                    keys = rest;
                }
            }
        }))
    }

    /// Appends everything but the slots.
    pub(super) fn write_head(&self, out: &mut Vec<u8>) {
        let (range, value_size_max) = (self.range, self.value_size_max);
        let (moves, all) = (StoredMoves::of(&self.moves), self.all.clone());
        let slots = self.entries.slots().len() as u64;
        append(out, &Head::V1 { range, value_size_max, moves, all, slots });
    }

    /// The shard that [`write_snapshot`](Self::write_snapshot) wrote.
    pub(super) fn read_snapshot(value_type: Arc<V>, bytes: &[u8]) -> Result<Self, String> {
        let (Head::V1 { range, value_size_max, moves, all, slots }, mut rest) = take::<Head>("head", bytes)?;
        let mut shard = Self::new(value_type);
        (shard.range, shard.value_size_max, shard.moves, shard.all) =
            (range, value_size_max, moves.into(), all);
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
        shard.count();
        shard.arriving = Arriving::of(&*shard.value_type, &shard.entries, shard.moves.incoming);
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
