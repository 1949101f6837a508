//! The shard against a plain map, and what it must refuse.

mod edges;
mod handover;
mod moves;

use std::collections::BTreeMap;

use proptest::prelude::*;
use raft_fleet::rafted_value::{Command, CommandError, NotApplied, RecordTable, SessionId};

use super::wire::split_final;
use super::*;
use crate::value_type::Answer;

/// No value starts like this but those that a test writes into a snapshot: no command of the property test
/// makes one. (It was `bad` once, and the property test drew `+bad` one day.)
const BAD: &[u8] = b"!bad";

/// Values are byte strings; the first byte of a command says what to do with them.
struct Strings;

impl ValuePerKey for Strings {
    type Value = Vec<u8>;

    fn command(
        &self,
        _: &CommandContext,
        _: &[u8],
        value: &mut Option<Vec<u8>>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        let before = value.clone().unwrap_or_default();
        match command.first() {
            Some(b'+') => value.get_or_insert_default().extend_from_slice(&command[1..]),
            Some(b'-') => *value = None,
            Some(b'?') => {}
            Some(b't') => {
                *value = None;
                return Err(Refused("it took the value out, which no command that is refused may".into()));
            }
            _ => return Err(Refused("neither + nor - nor ?".into())),
        }
        let size = value.as_ref().map_or(0, Vec::len) as u64;
        Ok(Done { reply: before.into(), load: 3, size })
    }

    fn copy(&self, _: &[u8], value: &Vec<u8>) -> Option<Vec<u8>> {
        (!value.ends_with(b"uncopied")).then(|| value.clone())
    }

    fn class<'k>(&self, key: &'k [u8], _: &Vec<u8>) -> Option<(&'k [u8], u64)> {
        Some((&key[..1], 0))
    }

    fn query(&self, _: &[u8], value: &Vec<u8>, _: &Bytes) -> Result<Answer, Refused> {
        Ok(Answer { answer: value.clone().into(), load: 1 })
    }

    fn encode(&self, _: &[u8], value: &Vec<u8>, out: &mut Vec<u8>) {
        out.extend_from_slice(value);
    }

    fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<Vec<u8>, String> {
        if bytes.starts_with(BAD) { Err("it is bad".into()) } else { Ok(bytes.to_vec()) }
    }
}

/// A shard with what its group keeps beside it.
struct Member {
    shard: ShardData<Strings>,
    records: RecordTable,
    index: u64,
    /// Whoever sends commands to it alone has a session of this name.
    id: u64,
}

impl Member {
    fn new() -> Self {
        Self { shard: ShardData::new(Arc::new(Strings)), records: RecordTable::default(), index: 0, id: 0 }
    }

    /// Runs a command under a number.
    fn run(&mut self, now_ms: u64, command: &Command) -> Result<(ShardReply, Bytes), CommandError> {
        self.index += 1;
        let reply = self.records.run(&mut self.shard, now_ms, self.index, command)?;
        Ok(split_reply(&reply).unwrap())
    }

    /// Runs a command that nobody repeats.
    fn tell(&mut self, command: &ShardCommand<'_>, rest: &[u8]) -> (ShardReply, Bytes) {
        let payload = command.encode(rest);
        let sequence = self.index + 1;
        let session = SessionId::new(1, self.id);
        let command =
            Command { session, sequence, acknowledged: sequence, retry_until_ms: 9000, key_hash: 0, payload };
        self.run(1, &command).unwrap()
    }
}

fn shard(range: KeyRange) -> Member {
    let mut member = Member::new();
    assert_eq!(
        member.tell(&ShardCommand::Initialise { range, value_size_max: u64::MAX }, &[]).0,
        ShardReply::Initialised
    );
    member
}

fn command(member: &mut Member, key: &str, command: &str) -> Result<(ShardReply, Bytes), String> {
    let payload = ShardCommand::Command { key: key.as_bytes() }.encode(command.as_bytes());
    let sequence = member.index + 1;
    let (session, acknowledged, retry_until_ms) = (SessionId::new(0, 1), sequence, 9000);
    let command = Command { session, sequence, acknowledged, retry_until_ms, key_hash: 0, payload };
    member.run(1, &command).map_err(|error| match error {
        CommandError::NotApplied(NotApplied::Refused(reason)) => reason,
        other => panic!("{other}"),
    })
}

fn query(member: &Member, key: &str) -> (ShardAnswer, Bytes) {
    let payload = ShardQuery::Query { key: key.as_bytes() }.encode(&[]);
    split_answer(&member.shard.query(&payload).unwrap()).unwrap()
}

fn snapshot(member: &Member) -> Vec<u8> {
    let mut bytes = Vec::new();
    member.shard.snapshot(&mut bytes);
    bytes
}

fn restored(bytes: &[u8]) -> Result<ShardData<Strings>, RestoreError> {
    let mut shard = ShardData::new(Arc::new(Strings));
    shard.restore(bytes).map(|()| shard)
}

#[test]
fn a_command_creates_changes_and_removes_the_value_of_its_key() {
    let mut shard = shard(KeyRange::ALL);
    assert_eq!(query(&shard, "k").0, ShardAnswer::KeyNotFound);
    assert_eq!(command(&mut shard, "k", "+ab").unwrap(), (ShardReply::Done, Bytes::new()));
    assert_eq!(command(&mut shard, "k", "+cd").unwrap(), (ShardReply::Done, Bytes::from("ab")));
    assert_eq!(query(&shard, "k"), (ShardAnswer::Answer, Bytes::from("abcd")));
    assert_eq!((shard.shard.status().keys, shard.shard.status().size), (1, 4));
    assert_eq!(command(&mut shard, "k", "-").unwrap(), (ShardReply::Done, Bytes::from("abcd")));
    assert_eq!(query(&shard, "k").0, ShardAnswer::KeyNotFound);
    assert_eq!((shard.shard.status().keys, shard.shard.status().size), (0, 0));
}

#[test]
fn a_command_that_leaves_no_value_adds_no_key() {
    let mut shard = shard(KeyRange::ALL);
    command(&mut shard, "k", "?").unwrap();
    assert_eq!(shard.shard.status().keys, 0);
}

#[test]
fn a_refused_command_changes_nothing() {
    let mut shard = shard(KeyRange::ALL);
    command(&mut shard, "k", "+ab").unwrap();
    let before = snapshot(&shard);
    assert!(command(&mut shard, "k", "nonsense").is_err());
    assert!(command(&mut shard, "new", "nonsense").is_err());
    assert_eq!(snapshot(&shard), before);
}

#[test]
fn a_key_outside_of_the_range_is_refused_by_name_and_changes_nothing() {
    let range = KeyRange::part(0, 2);
    let mut shard = shard(range);
    let outside =
        (0..).map(|n| format!("key-{n}")).find(|key| !range.contains(key::hash(key.as_bytes()))).unwrap();
    let elsewhere = Elsewhere { range: Some(range), hint: None, coming: false };
    assert_eq!(command(&mut shard, &outside, "+ab").unwrap().0, ShardReply::Elsewhere(elsewhere));
    assert_eq!(query(&shard, &outside).0, ShardAnswer::Elsewhere(elsewhere));
    assert_eq!(shard.records.replies(), 1, "only the shard's beginning is remembered");
    assert_eq!(shard.shard.status().keys, 0);
}

#[test]
fn a_shard_serves_nothing_before_it_has_its_range_and_keeps_the_one_it_has() {
    let mut member = Member::new();
    let nowhere = Elsewhere { range: None, hint: None, coming: false };
    assert_eq!(command(&mut member, "k", "+ab").unwrap().0, ShardReply::Elsewhere(nowhere));
    assert_eq!(query(&member, "k").0, ShardAnswer::Elsewhere(nowhere));
    let range = KeyRange::part(0, 2);
    assert_eq!(member.shard.initialise(range, 9), ShardReply::Initialised);
    assert_eq!(member.shard.initialise(range, 9), ShardReply::Initialised);
    assert_eq!(member.shard.initialise(KeyRange::ALL, 9), ShardReply::OtherRange { range });
}

#[test]
fn the_load_of_commands_queries_and_misses_is_counted_and_not_replicated() {
    let mut shard = shard(KeyRange::ALL);
    command(&mut shard, "k", "+ab").unwrap();
    query(&shard, "k");
    query(&shard, "missing");
    let status = shard.shard.status();
    assert_eq!((status.load, status.misses), (3 + 1, 1));
    assert_eq!(restored(&snapshot(&shard)).unwrap().status().load, 0);
}

/// Snapshots are read by later versions.
#[test]
fn the_bytes_of_a_snapshot_never_change() {
    let mut shard = shard(KeyRange::ALL);
    command(&mut shard, "b", "+xyz").unwrap();
    command(&mut shard, "a", "+").unwrap();
    let slot = |key: &str, rest: &[u8]| {
        let hash = postcard::to_stdvec(&key::hash(key.as_bytes())).unwrap();
        (key::hash(key.as_bytes()), [&hash[..], &[1, 1], key.as_bytes(), rest].concat())
    };
    let mut slots = [slot("a", b"\x00\x00"), slot("b", b"\x03\x03xyz")];
    slots.sort();
    let all = [0xff; 9];
    // Version, range, no limit, no move under way, nothing gone, no command to all keys, two slots.
    let head = [&[0, 1, 0][..], &all, &[1], &all, &[1, 0, 0, 0, 0, 0, 0, 2]].concat();
    let golden = [&head[..], &slots[0].1, &slots[1].1].concat();
    assert_eq!(snapshot(&shard), golden);
}

/// A large shard is turned into bytes beside its loop, while commands change it.
#[test]
fn a_frozen_shard_is_written_as_it_was_whatever_is_done_to_it_meanwhile() {
    let mut member = shard(KeyRange::ALL);
    assert!(member.shard.freeze().is_some(), "an empty one has every copy");
    for n in 0..300 {
        command(&mut member, &format!("key-{n}"), &format!("+{n}")).unwrap();
    }
    let (before, frozen) = (snapshot(&member), member.shard.freeze().unwrap());
    for n in 0..300 {
        command(&mut member, &format!("key-{n}"), if n % 2 == 0 { "-" } else { "+x" }).unwrap();
    }
    let mut written = b"head".to_vec();
    frozen(&mut written);
    assert_eq!(written, [b"head", &before[..]].concat());
    command(&mut member, "key-1", "+uncopied").unwrap();
    assert!(member.shard.freeze().is_none());
}

#[test]
fn a_snapshot_that_is_damaged_is_refused_and_leaves_the_shard_as_it_was() {
    let mut shard = shard(KeyRange::ALL);
    command(&mut shard, "a", "+1").unwrap();
    command(&mut shard, "b", "+2").unwrap();
    let good = snapshot(&shard);
    for length in 0..good.len() {
        assert!(restored(&good[..length]).is_err(), "cut at {length}");
    }
    assert!(restored(&[&good[..], b"x"].concat()).is_err());
    let before = snapshot(&shard);
    let slots_bytes: usize = ["a", "b"].iter().map(|key| slot(key, b"\x01\x011").len()).sum();
    let head = &good[..good.len() - slots_bytes];
    let (low, high) = if key::hash(b"a") < key::hash(b"b") { ("a", "b") } else { ("b", "a") };
    let other_hash = [&postcard::to_stdvec(&7_u64).unwrap()[..], b"\x01\x01a\x01\x011"].concat();
    for (slots, reason) in [
        ([slot(high, b"\x01\x011"), slot(low, b"\x01\x011")].concat(), "out of order"),
        ([slot(low, b"\x01\x011"), slot(low, b"\x01\x011")].concat(), "out of order"),
        ([slot(low, b"\x01\x011"), other_hash].concat(), "does not have the hash"),
        ([slot(low, b"\x01\x011"), slot(high, b"\x01\x04!bad")].concat(), "it is bad"),
        (slot(low, b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "cut off"),
    ] {
        let error = shard.shard.restore(&[head, &slots].concat()).unwrap_err();
        assert!(error.reason.contains(reason), "{error}");
        assert_eq!(snapshot(&shard), before);
    }
}

fn slot(key: &str, rest: &[u8]) -> Vec<u8> {
    let hash = postcard::to_stdvec(&key::hash(key.as_bytes())).unwrap();
    [&hash[..], &[1, 1], key.as_bytes(), rest].concat()
}

#[derive(Clone, Debug)]
enum Step {
    Command { key: u8, command: String },
    Snapshot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![
        3 => "\\+[a-z]{0,4}",
        1 => Just("-".to_owned()),
        1 => Just("?".to_owned()),
        1 => Just("nonsense".to_owned()),
    ];
    let step = prop_oneof![
        10 => (0_u8..12, command).prop_map(|(key, command)| Step::Command { key, command }),
        1 => Just(Step::Snapshot),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn a_shard_is_a_map_however_often_it_is_snapshotted(steps in steps()) {
        let mut shard = shard(KeyRange::ALL);
        let mut map = BTreeMap::<u8, Vec<u8>>::new();
        for step in steps {
            match step {
                Step::Snapshot => shard.shard = restored(&snapshot(&shard)).unwrap(),
                Step::Command { key, command: text } => {
                    let reply = command(&mut shard, &key.to_string(), &text);
                    let before = map.get(&key).cloned().unwrap_or_default();
                    match text.as_bytes()[0] {
                        b'+' => map.entry(key).or_default().extend_from_slice(&text.as_bytes()[1..]),
                        b'-' => drop(map.remove(&key)),
                        b'?' => {}
                        _ => {
                            prop_assert!(reply.is_err());
                            continue;
                        }
                    }
                    prop_assert_eq!(reply.unwrap(), (ShardReply::Done, Bytes::from(before)));
                }
            }
        }
        for key in 0..12 {
            let expected = match map.get(&key) {
                Some(value) => (ShardAnswer::Answer, Bytes::from(value.clone())),
                None => (ShardAnswer::KeyNotFound, Bytes::new()),
            };
            prop_assert_eq!(query(&shard, &key.to_string()), expected);
        }
        prop_assert_eq!(shard.shard.status().keys, map.len() as u64);
        prop_assert_eq!(shard.shard.status().size, map.values().map(|value| value.len() as u64).sum::<u64>());
    }

    #[test]
    fn bytes_of_a_stranger_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut shard = shard(KeyRange::ALL);
        let payload = Bytes::from(bytes);
        let session = SessionId::new(0, 9);
        let command =
            Command { session, sequence: 1, acknowledged: 1, retry_until_ms: 9, key_hash: 0, payload: payload.clone() };
        let _ = shard.records.run(&mut shard.shard, 1, 9, &command);
        let _ = shard.shard.query(&payload);
        let _ = restored(&payload);
        let _ = split_reply(&payload);
        let _ = split_answer(&payload);
        let _ = split_final(&payload);
    }
}
