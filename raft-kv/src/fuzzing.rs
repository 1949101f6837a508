//! The decoders that read bytes of a peer or of a disk, as functions that a fuzzer calls. Behind the feature `fuzzing`,
//! for nobody else.

use std::sync::Arc;

use bytes::Bytes;
use raft_fleet::rafted_value::{
    Command, CommandContext, CommandError, Data, RawData, RecordTable, Refused, RestoreError, SessionId,
    encode,
};

use crate::bytes_store::fuzzing as bytes_store;
use crate::key_range::KeyRange;
use crate::keyspace::{KeyspaceName, KeyspacePolicy};
use crate::keyspaces::{Keyspaces, KeyspacesAnswer, KeyspacesCommand, KeyspacesQuery, KeyspacesReply};
use crate::mover::stats::fuzzing as stats;
use crate::routes::Route;
use crate::shard::fuzzing as wire;
use crate::shard::{MoveStep, ShardCommand, ShardData};
use crate::value_type::{Answer, Done, ValuePerKey};

/// Numbers below 100, so that some bytes are none, each of which wants to be woken and is counted.
struct Numbers;

impl ValuePerKey for Numbers {
    type Value = u8;

    fn command(
        &self,
        _: &CommandContext,
        _: &[u8],
        value: &mut Option<u8>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        if command.len() > 1 {
            return Err(Refused("more than one byte".into()));
        }
        *value = command.first().map(|byte| byte % 100);
        Ok(Done { reply: Bytes::new(), load: 1, size: 1 })
    }

    fn wake_at(&self, value: &u8) -> Option<u64> {
        value.is_multiple_of(2).then_some(u64::from(*value))
    }

    fn wake(&self, _: &CommandContext, _: &[u8], value: &mut Option<u8>, _: bool) -> crate::Woken {
        *value = value.map(|value| value | 1);
        crate::Woken { load: 1, size: 1 }
    }

    fn class<'k>(&self, key: &'k [u8], value: &u8) -> Option<(&'k [u8], u64)> {
        Some((&key[..1], u64::from(value % 3)))
    }

    fn query(&self, _: &[u8], value: &u8, _: &Bytes) -> Result<Answer, Refused> {
        Ok(Answer { answer: vec![*value].into(), load: 1 })
    }

    fn encode(&self, _: &[u8], value: &u8, out: &mut Vec<u8>) {
        out.push(*value);
    }

    fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<u8, String> {
        match bytes {
            [number] if *number < 100 => Ok(*number),
            _ => Err("no number below 100".into()),
        }
    }
}

/// A shard with what its group keeps beside it.
struct Member {
    shard: ShardData<Numbers>,
    records: RecordTable,
    sequence: u64,
}

const STEP: MoveStep = MoveStep { move_id: 3, epoch: 1, step: 1 };

impl Member {
    fn run(&mut self, payload: Bytes) -> Result<Bytes, CommandError> {
        self.sequence += 1;
        let (session, sequence) = (SessionId::new(0, 1), self.sequence);
        let command =
            Command { session, sequence, acknowledged: 1, retry_until_ms: 90_000, key_hash: 0, payload };
        self.records.run(&mut self.shard, 7, sequence, &command)
    }

    /// A shard that waits for its range, serves it, gives half of it away, has given it up, or gets half of it.
    fn new(state: u8) -> Self {
        let shard = ShardData::new(Arc::new(Numbers));
        let mut member = Self { shard, records: RecordTable::default(), sequence: 0 };
        let (low, high) = (KeyRange::part(0, 2), KeyRange::part(1, 2));
        let value_size_max = 10;
        let tell = |member: &mut Self, command: ShardCommand<'_>, rest: &[u8]| {
            member.run(command.encode(rest)).expect("it is taken");
        };
        if state == 0 {
            return member;
        }
        let range = if state == 4 { low } else { KeyRange::ALL };
        tell(&mut member, ShardCommand::Initialise { range, value_size_max }, &[]);
        for n in 0..8_u8 {
            let name = [b'k', b'0' + n];
            tell(&mut member, ShardCommand::Command { key: &name }, &[n]);
        }
        if state == 2 || state == 3 {
            tell(&mut member, ShardCommand::Send { step: STEP, range: high, to: 5 }, &[]);
            tell(&mut member, ShardCommand::Command { key: b"k1" }, &[9]);
        }
        if state == 3 {
            let ask = wire::final_ask(1 << 10);
            tell(&mut member, ShardCommand::GiveUp { step: STEP, ask }, &[]);
        }
        if state == 4 {
            tell(&mut member, ShardCommand::Receive { step: STEP, range: high, value_size_max }, &[]);
        }
        member
    }

    fn written(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.shard.snapshot(&mut bytes);
        bytes
    }
}

fn restored(bytes: &[u8]) -> Result<ShardData<Numbers>, RestoreError> {
    let mut shard = ShardData::new(Arc::new(Numbers));
    shard.restore(bytes).map(|()| shard)
}

/// What a shard is told, behind a byte for what the shard is just then: what it refuses changes nothing, and whatever it
/// has become is written down as what comes back the same.
pub fn command(bytes: &[u8]) {
    let Some((state, payload)) = bytes.split_first() else { return };
    wire::command(payload);
    let mut member = Member::new(state % 5);
    let payload = Bytes::copy_from_slice(payload);
    assert!(!member.shard.command_kind(&payload).is_empty());
    let before = member.written();
    let refused = member.run(payload).is_err();
    let after = member.written();
    assert!(!refused || before == after, "a refused command has changed something");
    snapshot(&after);
    wire::agrees(&member.shard, &restored(&after).expect("it was just written"));
}

/// What a shard is asked, behind such a byte.
pub fn query(bytes: &[u8]) {
    let Some((state, payload)) = bytes.split_first() else { return };
    wire::query(payload);
    let member = Member::new(state % 5);
    let _ = member.shard.query(&Bytes::copy_from_slice(payload));
}

/// What it replies and answers, and what goes from shard to shard.
pub fn reply(bytes: &[u8]) {
    wire::reply(bytes);
    wire::rest(&Numbers, bytes);
}

/// A shard in bytes: what comes back is written down as what comes back again.
pub fn snapshot(bytes: &[u8]) {
    let Ok(shard) = restored(bytes) else { return };
    let mut written = Vec::new();
    shard.snapshot(&mut written);
    let again = restored(&written).expect("it was just written");
    let mut twice = Vec::new();
    again.snapshot(&mut twice);
    assert_eq!(written, twice);
}

/// What the list of keyspaces is told and asked: it stays one that can be written down.
pub fn list(bytes: &[u8]) {
    let mut list = Keyspaces::default();
    let context = |now_ms| CommandContext { now_ms, index: 1, seed: 1 };
    let name = KeyspaceName::new("n").expect("a short name");
    let policy = KeyspacePolicy { shards: 2, ..KeyspacePolicy::of("numbers") };
    list.command(&context(1), KeyspacesCommand::Register { name: name.clone(), policy });
    list.command(&context(1), KeyspacesCommand::MarkReady { name: name.clone(), generation: 1 });
    let at = KeyRange::part(0, 2).first() + 9;
    let split = KeyspacesCommand::Split { name, generation: 1, shard: 0, at, moves_max: 4 };
    list.command(&context(1), split);
    if let Ok(command) = postcard::from_bytes::<KeyspacesCommand>(bytes) {
        list.command(&context(5), command.clone());
        list.command(&context(9), command);
        let again: Keyspaces = postcard::from_bytes(&encode(&list)).expect("it was just written");
        assert_eq!(again.query(KeyspacesQuery::List), list.query(KeyspacesQuery::List));
        assert_eq!(again.query(KeyspacesQuery::Moves), list.query(KeyspacesQuery::Moves));
    }
    if let Ok(query) = postcard::from_bytes::<KeyspacesQuery>(bytes) {
        let _ = list.query(query);
    }
}

/// What the list answers, and how it is written down.
pub fn listed(bytes: &[u8]) {
    let _ = postcard::from_bytes::<KeyspacesReply>(bytes);
    if let Ok(KeyspacesAnswer::V1(listed) | KeyspacesAnswer::Page { listed, .. }) =
        postcard::from_bytes(bytes)
    {
        for keyspace in listed.keyspaces.into_iter().filter(|keyspace| keyspace.check_shards().is_ok()) {
            let route = Route::new(keyspace);
            for hash in [0, 1 << 63, u64::MAX] {
                assert!(route.shard(hash).range.contains(hash));
            }
        }
    }
    if let Ok(list) = postcard::from_bytes::<Keyspaces>(bytes) {
        let again: Keyspaces = postcard::from_bytes(&encode(&list)).expect("it was just written");
        assert_eq!(again.query(KeyspacesQuery::List), list.query(KeyspacesQuery::List));
    }
}

/// What a store of bytes is told and answers, and what nodes ask each other.
pub fn bytes(bytes: &[u8]) {
    bytes_store::bytes(bytes);
    stats::bytes(bytes);
}

#[cfg(test)]
mod seeds;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 7] = [
        ("command", command),
        ("query", query),
        ("reply", reply),
        ("snapshot", snapshot),
        ("list", list),
        ("listed", listed),
        ("bytes", bytes),
    ];

    /// The seeds of a target.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let mut files: Vec<_> =
            std::fs::read_dir(seeds::folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    #[test]
    fn every_target_survives_its_seeds() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name} has no seeds");
            seeds.iter().for_each(|seed| target(seed));
        }
    }

    /// Seeds that mean nothing would lead a fuzzer nowhere.
    #[test]
    fn the_seeds_decode() {
        assert!(
            seeds("command").iter().all(|seed| Member::new(seed[0]).run(seed[1..].to_vec().into()).is_ok())
        );
        let asked = |seed: &Vec<u8>| Member::new(seed[0]).shard.query(&seed[1..].to_vec().into()).is_ok();
        assert!(seeds("query").iter().all(asked));
        assert!(seeds("snapshot").iter().all(|seed| restored(seed).is_ok()));
        assert!(seeds("list").iter().all(|seed| {
            postcard::from_bytes::<KeyspacesCommand>(seed).is_ok()
                || postcard::from_bytes::<KeyspacesQuery>(seed).is_ok()
        }));
        assert!(seeds("listed").iter().any(|seed| postcard::from_bytes::<Keyspaces>(seed).is_ok()));
    }

    /// The same mutations in every run: each seed cut off at every length, and with every bit of its beginning turned.
    #[test]
    fn every_target_survives_its_seeds_cut_off_anywhere_and_with_any_bit_turned() {
        const BYTES_MAX: usize = 120;
        for (name, target) in TARGETS {
            for seed in seeds(name) {
                let mut bytes = seed[..seed.len().min(2 * BYTES_MAX)].to_vec();
                (0..=bytes.len()).for_each(|kept| target(&bytes[..kept]));
                for bit in 0..8 * bytes.len().min(BYTES_MAX) {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    target(&bytes);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_target_survives_mutations_of_its_seeds(
            seed: prop::sample::Index,
            places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            kept: prop::sample::Index,
        ) {
            for (name, target) in TARGETS {
                let seeds = seeds(name);
                let mut bytes = seeds[seed.index(seeds.len())].clone();
                for (place, value) in &places {
                    let place = place.index(bytes.len());
                    bytes[place] = *value;
                }
                target(&bytes);
                bytes.truncate(kept.index(bytes.len() + 1));
                target(&bytes);
            }
        }
    }
}
