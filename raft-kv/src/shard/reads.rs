//! What a shard answers without changing.

use bytes::Bytes;
use raft_fleet::rafted_value::Refused;

use super::slots::SlotWriter;
use super::wire::{FoundKey, KeyAnswer, ShardAnswer, Weights};
use super::{BUCKETS, ShardData, bucket_of};
use crate::key;
use crate::key_range::KeyRange;
use crate::value_type::{Answer, ValuePerKey};

/// Slots that one listing looks at, however few of them match.
const LOOKED_AT_MAX: usize = 20_000;
/// Bytes of answers after which the rest of many keys is left to the next query.
const ANSWERS_BYTES_MAX: usize = 1 << 20;
/// Bytes of keys that one listing gives, unless one key alone has more.
const KEYS_BYTES_MAX: usize = 256 << 10;

impl<V: ValuePerKey> ShardData<V> {
    pub(super) fn query_key(&self, key: &[u8], query: &Bytes) -> Result<Bytes, Refused> {
        let hash = key::hash(key);
        if let Err(elsewhere) = self.responsible(hash) {
            return Ok(ShardAnswer::Elsewhere(elsewhere).encode(&[]));
        }
        match self.ask(hash, key, query)? {
            Some(answer) => Ok(ShardAnswer::Answer.encode(&answer)),
            None => Ok(ShardAnswer::KeyNotFound.encode(&[])),
        }
    }

    /// Asks a key that is served here; `None` where it has no value.
    fn ask(&self, hash: u64, key: &[u8], query: &Bytes) -> Result<Option<Bytes>, Refused> {
        let Some(value) = self.entries.get(hash, key).and_then(|entry| entry.value.as_ref()) else {
            self.load.count_miss(hash);
            return Ok(None);
        };
        let Answer { answer, load } = self.value_type.query(key, value, query)?;
        self.load.count(hash, load);
        Ok(Some(answer))
    }

    /// Asks the same of many keys; what is wrong with one leaves the others alone. The first ones only where all answers
    /// would be too much for one message.
    pub(super) fn query_many(&self, keys: &[&[u8]], query: &Bytes) -> Bytes {
        let (mut answers, mut bytes) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            if bytes >= ANSWERS_BYTES_MAX {
                break;
            }
            let answer = self.ask_one_of_many(key, query);
            bytes += match &answer {
                KeyAnswer::Answer(answer) => answer.len(),
                KeyAnswer::Refused(reason) => reason.len(),
                KeyAnswer::KeyNotFound | KeyAnswer::Elsewhere(_) => 0,
            };
            answers.push(answer);
        }
        ShardAnswer::Many(answers).encode(&[])
    }

    fn ask_one_of_many(&self, key: &[u8], query: &Bytes) -> KeyAnswer {
        let hash = key::hash(key);
        if let Err(elsewhere) = self.responsible(hash) {
            return KeyAnswer::Elsewhere(elsewhere);
        }
        match self.ask(hash, key, query) {
            Ok(Some(answer)) => KeyAnswer::Answer(answer),
            Ok(None) => KeyAnswer::KeyNotFound,
            Err(Refused(reason)) => KeyAnswer::Refused(reason),
        }
    }

    /// The keys of the first hashes of a range that begin with a prefix.
    pub(super) fn keys(&self, range: KeyRange, prefix: &[u8], keys_max: u32) -> Bytes {
        let Some(served) = self.served(range.first()) else {
            return ShardAnswer::Elsewhere(self.elsewhere(range.first())).encode(&[]);
        };
        let mut page = served.common(range).expect("its first hash is served");
        let keys_max = usize::try_from(keys_max.max(1)).expect("fits");
        let (mut found, mut bytes) = (Vec::new(), 0);
        for (looked_at, (hash, slot)) in self.entries.range(page.hashes()).enumerate() {
            let full = found.len() >= keys_max || bytes >= KEYS_BYTES_MAX || looked_at >= LOOKED_AT_MAX;
            if full {
                page = page.split_at(hash).expect("some hashes lie before it").0;
                break;
            }
            for entry in slot.entries().iter().filter(|entry| entry.key.starts_with(prefix)) {
                bytes += entry.key.len();
                found.push(FoundKey { key: Bytes::copy_from_slice(&entry.key), size: entry.size });
            }
        }
        ShardAnswer::Keys { page, found }.encode(&[])
    }

    /// The first slots of the range that is on its way, from a hash on; no more bytes than may be, unless one slot alone
    /// has more.
    pub(super) fn chunk(&self, move_id: u64, from: u64, bytes_max: u64) -> Bytes {
        let Some(range) = self.outgoing_of(move_id).filter(|range| range.contains(from)) else {
            return ShardAnswer::NoSuchMove.encode(&[]);
        };
        let mut page = KeyRange::new(from, range.last()).expect("it lies in the range");
        let (mut out, mut writer) = (Vec::new(), SlotWriter::new(&*self.value_type));
        for (hash, slot) in self.entries.range(page.hashes()) {
            let before = out.len();
            writer.write(hash, Some(slot), &mut out);
            if before > 0 && out.len() as u64 > bytes_max {
                out.truncate(before);
                page = page.split_at(hash).expect("some hashes lie before it").0;
                break;
            }
        }
        ShardAnswer::Chunk { page }.encode(&out)
    }

    /// What has changed in the range that is on its way.
    pub(super) fn changes(&self, move_id: u64, after: u64, bytes_max: u64) -> Bytes {
        if self.outgoing_of(move_id).is_none() {
            return ShardAnswer::NoSuchMove.encode(&[]);
        }
        let mut out = Vec::new();
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let (to, left) = self.write_changes(after, bytes_max, &mut out);
        ShardAnswer::Changes { to, left }.encode(&out)
    }

    fn outgoing_of(&self, move_id: u64) -> Option<KeyRange> {
        let newest = self.moves.newest.filter(|newest| newest.move_id == move_id);
        newest.and(self.moves.outgoing.as_ref()).map(|outgoing| outgoing.range)
    }

    /// Where the weight of the shard lies; it costs in proportion to its keys.
    pub(super) fn weights(&self) -> Weights {
        let range = self.range.unwrap_or(KeyRange::ALL);
        let (mut keys, mut size) = (vec![0; BUCKETS], vec![0_u64; BUCKETS]);
        for (hash, slot) in self.entries.range(range.hashes()) {
            let bucket = bucket_of(range, hash);
            for entry in slot.entries() {
                keys[bucket] += 1;
                size[bucket] = size[bucket].wrapping_add(entry.size);
            }
        }
        Weights { range, keys, size, load: self.load.buckets() }
    }
}
