//! The shard against a plain map, and what it must refuse.

use proptest::prelude::*;

use super::*;

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
            _ => return Err(Refused("neither + nor - nor ?".into())),
        }
        let size = value.as_ref().map_or(0, Vec::len) as u64;
        Ok(Done { reply: before.into(), load: 3, size })
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

const CONTEXT: CommandContext = CommandContext { now_ms: 1, index: 1, seed: 1 };

fn shard(range: KeyRange) -> ShardData<Strings> {
    let mut shard = ShardData::new(Arc::new(Strings));
    let reply = shard.command(&CONTEXT, &ShardCommand::Initialise { range }.encode(&[])).unwrap();
    assert_eq!(split_reply(&reply).unwrap().0, ShardReply::Initialised);
    shard
}

fn command(shard: &mut ShardData<Strings>, key: &str, command: &str) -> Result<(ShardReply, Bytes), Refused> {
    let payload = ShardCommand::Command { key: key.as_bytes() }.encode(command.as_bytes());
    shard.command(&CONTEXT, &payload).map(|reply| split_reply(&reply).unwrap())
}

fn query(shard: &ShardData<Strings>, key: &str) -> (ShardAnswer, Bytes) {
    let payload = ShardQuery::Query { key: key.as_bytes() }.encode(&[]);
    split_answer(&shard.query(&payload).unwrap()).unwrap()
}

fn snapshot(shard: &ShardData<Strings>) -> Vec<u8> {
    let mut bytes = Vec::new();
    shard.snapshot(&mut bytes);
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
    assert_eq!((shard.status().keys, shard.status().size), (1, 4));
    assert_eq!(command(&mut shard, "k", "-").unwrap(), (ShardReply::Done, Bytes::from("abcd")));
    assert_eq!(query(&shard, "k").0, ShardAnswer::KeyNotFound);
    assert_eq!((shard.status().keys, shard.status().size), (0, 0));
}

#[test]
fn a_command_that_leaves_no_value_adds_no_key() {
    let mut shard = shard(KeyRange::ALL);
    command(&mut shard, "k", "?").unwrap();
    assert_eq!(shard.status().keys, 0);
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
    assert_eq!(command(&mut shard, &outside, "+ab").unwrap().0, ShardReply::OutOfRange { range });
    assert_eq!(query(&shard, &outside).0, ShardAnswer::OutOfRange { range });
    assert_eq!(shard.status().keys, 0);
}

#[test]
fn a_shard_serves_nothing_before_it_has_its_range_and_keeps_the_one_it_has() {
    let mut shard = ShardData::new(Arc::new(Strings));
    assert_eq!(command(&mut shard, "k", "+ab").unwrap().0, ShardReply::NotInitialised);
    assert_eq!(query(&shard, "k").0, ShardAnswer::NotInitialised);
    let range = KeyRange::part(0, 2);
    assert_eq!(shard.initialise(range), ShardReply::Initialised);
    assert_eq!(shard.initialise(range), ShardReply::Initialised);
    assert_eq!(shard.initialise(KeyRange::ALL), ShardReply::OtherRange { range });
}

#[test]
fn the_load_of_commands_queries_and_misses_is_counted_and_not_replicated() {
    let mut shard = shard(KeyRange::ALL);
    command(&mut shard, "k", "+ab").unwrap();
    query(&shard, "k");
    query(&shard, "missing");
    assert_eq!(shard.status().load, 3 + 1 + 1);
    assert_eq!(restored(&snapshot(&shard)).unwrap().status().load, 0);
}

/// Snapshots are read by later versions.
#[test]
fn the_bytes_of_a_snapshot_never_change() {
    let mut shard = shard(KeyRange::ALL);
    command(&mut shard, "b", "+xyz").unwrap();
    command(&mut shard, "a", "+").unwrap();
    let golden = [
        &[0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2][..],
        b"\x01a\x00\x00",
        b"\x01b\x03\x03xyz",
    ]
    .concat();
    assert_eq!(snapshot(&shard), golden);
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
    let head = &good[..14];
    for (entries, reason) in [
        (&b"\x01b\x01\x012\x01a\x01\x011"[..], "out of order"),
        (b"\x01a\x01\x011\x01a\x01\x011", "out of order"),
        (b"\x01a\x01\x011\x00\x01\x011", "empty"),
        (b"\x01a\x01\x011\x01b\x01\x04!bad", "it is bad"),
        (b"\x01a\x01\x011\x01b\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut off"),
    ] {
        let error = shard.restore(&[head, entries].concat()).unwrap_err();
        assert!(error.reason.contains(reason), "{error}");
        assert_eq!(snapshot(&shard), before);
    }
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
                Step::Snapshot => shard = restored(&snapshot(&shard)).unwrap(),
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
        prop_assert_eq!(shard.status().keys, map.len() as u64);
        prop_assert_eq!(shard.status().size, map.values().map(|value| value.len() as u64).sum::<u64>());
    }

    #[test]
    fn bytes_of_a_stranger_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut shard = shard(KeyRange::ALL);
        let payload = Bytes::from(bytes);
        let _ = shard.command(&CONTEXT, &payload);
        let _ = shard.query(&payload);
        let _ = restored(&payload);
        let _ = split_reply(&payload);
        let _ = split_answer(&payload);
    }
}
