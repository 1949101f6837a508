//! What travels between clients and shards: a small versioned head, then the value type's own bytes, which are
//! never copied on the way in.
//!
//! The enums are append-only: a variant that was released keeps its place and its fields.

use bytes::Bytes;
use raft_fleet::rafted_value::{RecordPosition, Refused};
use serde::de::Deserialize;
use serde::ser::Serialize;

use super::ShardStatus;
use super::all_keys::{AllCommand, AllKeys};
use super::moves::{Gone, MoveStep, Outcome, Progress};
use crate::key;
use crate::key_range::KeyRange;

/// What changes a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum ShardCommand<'a> {
    /// Makes a new shard responsible for a range, whose values may be so large; repeating it changes nothing.
    Initialise { range: KeyRange, value_size_max: u64 },
    /// A command for the value of one key; its bytes follow.
    Command {
        #[serde(borrow)]
        key: &'a [u8],
    },
    /// A command for the values of all keys of a range, as far as they are here; its bytes follow.
    CommandAll(AllCommand),
    /// Some of the range is about to go to another shard.
    Send { step: MoveStep, range: KeyRange, to: u32 },
    /// A range is about to come, whose values may be so large.
    Receive { step: MoveStep, range: KeyRange, value_size_max: u64 },
    /// The range that is about to go is served no more.
    GiveUp { step: MoveStep, ask: FinalAsk },
    /// Slots of a range that comes; a [`FinalHead`] and the slots follow. With the last the range is served.
    Install { step: MoveStep, cover: Cover, last: bool },
    /// The range that was given up is served elsewhere.
    Finish { step: MoveStep },
    /// The range stays where it was.
    Abort { step: MoveStep },
    /// Removes some entries that are not the shard's.
    Forget { slots_max: u32 },
    /// Wakes the values that are due, at most so many of them.
    Wake { keys_max: u32 },
    /// Counts the values of each class at a place in the log.
    Tally,
    /// Visits the values whose keys begin with `prefix` and lie behind `after`, looking at so many; what the value type
    /// needs to know follows.
    Sweep {
        #[serde(borrow)]
        prefix: &'a [u8],
        #[serde(borrow)]
        after: &'a [u8],
        keys_max: u32,
    },
    /// Asks for records of the range that is about to go, while it is served.
    Records { step: MoveStep, ask: RecordsAsk },
    /// Asks how many sessions and replies the shard's table has.
    CountRecords,
}

/// Which records the performer of a move wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct RecordsAsk {
    /// Those that have changed at this stamped time or later.
    pub(crate) since_ms: u64,
    /// Those behind this one.
    pub(crate) after: Option<RecordPosition>,
    pub(crate) bytes_max: u64,
}

/// What the performer of a move has of the end of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct FinalAsk {
    pub(crate) changes_after: u64,
    pub(crate) records: RecordsAsk,
}

/// What slots stand for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Cover {
    /// All that these hashes hold.
    Range(KeyRange),
    /// All that has changed up to this version.
    Changes { to: u64 },
    /// No slots, but a page of records; with the last of them, all that were there before this stamped time have come.
    Records { until_ms: Option<u64> },
    /// The same, unless the receiver's table came to more sessions and replies than this.
    RecordsWithin { until_ms: Option<u64>, count_max: u64 },
}

/// What goes with a range besides its entries.
#[derive(Clone, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct FinalHead {
    /// What commands to all keys have covered.
    pub(crate) all: AllKeys,
    /// A page of records; empty where there is none.
    pub(crate) records: Bytes,
}

/// Where a key is that is not here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Elsewhere {
    /// What the shard is responsible for.
    pub(crate) range: Option<KeyRange>,
    /// Where its range went, if it was here once.
    pub(crate) hint: Option<Gone>,
    /// Whether it is about to be served here.
    pub(crate) coming: bool,
}

/// What a shard answers to a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum ShardReply {
    /// The command ran; the value type's reply follows.
    Done,
    /// The shard is responsible for the range it was given.
    Initialised,
    /// The shard is responsible for another range already.
    OtherRange { range: KeyRange },
    /// The key is not served here; nothing changed, and nothing is remembered of the command.
    Elsewhere(Elsewhere),
    /// A command to all keys has run on these hashes, now or before; now on so many keys.
    AllDone { covered: KeyRange, keys: u64, refused: u64 },
    /// A command to all keys is past its time.
    Expired,
    /// The shard remembers as many commands to all keys as it can.
    TooManyAll,
    /// A later step of the move, or of a later one, was seen; nothing changed.
    Stale,
    /// The shard takes part in another move; nothing changed.
    Busy,
    /// The step does not fit what the shard is; nothing changed.
    OutOfStep,
    /// Changes are noted, or the range is given up already.
    Sending { given_up: bool },
    /// So much has arrived.
    Receiving(Progress),
    /// The range is given up. A [`FinalHead`] and slots follow: all that changed up to `changes`, and a page of records
    /// once that is all. `complete` when there is nothing more to ask for.
    GivenUp { changes: u64, records_next: Option<RecordPosition>, complete: bool },
    /// The move has ended, now or before.
    Ended(Outcome),
    /// Some entries were removed; whether more are left.
    Forgotten { left: bool },
    /// So many values were woken; whether more are due.
    Woken { keys: u32, more: bool },
    /// The tally follows.
    Tally,
    /// Where to go on follows.
    Swept,
    /// A [`FinalHead`] with a page of records follows, which was made at this stamped time.
    Records { stamp_ms: u64, next: Option<RecordPosition> },
    /// The value would be larger than its keyspace allows; nothing changed.
    TooLarge { size: u64, limit: u64 },
    /// The table has so many sessions and replies.
    RecordsCounted { count: u64 },
    /// The records that were brought find no room beside those that are there; nothing changed.
    TooManyRecords,
}

/// What asks a shard.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum ShardQuery<'a> {
    /// A query of the value of one key; its bytes follow.
    Query {
        #[serde(borrow)]
        key: &'a [u8],
    },
    /// How much the shard holds.
    Status,
    /// Slots of the range that is about to go, from a hash on.
    Chunk { move_id: u64, from: u64, bytes_max: u64 },
    /// What has changed in that range.
    Changes { move_id: u64, after: u64, bytes_max: u64 },
    /// Keys in the order of their hashes.
    Keys {
        range: KeyRange,
        #[serde(borrow)]
        prefix: &'a [u8],
        keys_max: u32,
    },
    /// The same query of many keys; its bytes follow.
    Many {
        #[serde(borrow)]
        keys: Vec<&'a [u8]>,
    },
    /// Where the weight of the shard lies.
    Weights,
    /// When the first value wants to be woken.
    NextWake,
    /// Counts the values of each class.
    Tally,
}

/// A key in a listing.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct FoundKey {
    pub(crate) key: Bytes,
    pub(crate) size: u64,
}

/// What became of one of many queries.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum KeyAnswer {
    Answer(Bytes),
    KeyNotFound,
    Elsewhere(Elsewhere),
    Refused(String),
}

/// Keys, sizes and loads in equal parts of a range.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Weights {
    pub(crate) range: KeyRange,
    pub(crate) keys: Vec<u64>,
    pub(crate) size: Vec<u64>,
    pub(crate) load: Vec<u64>,
}

/// What a shard answers to a query.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum ShardAnswer {
    /// The value type's answer follows.
    Answer,
    /// The key has no value.
    KeyNotFound,
    /// The key is not served here.
    Elsewhere(Elsewhere),
    /// How much the shard holds.
    Status(ShardStatus),
    /// All that these hashes hold follows.
    Chunk { page: KeyRange },
    /// All that changed up to this version follows; so many changes are left.
    Changes { to: u64, left: u64 },
    /// The shard takes no part in that move, or not as its sender.
    NoSuchMove,
    /// The keys of these hashes.
    Keys { page: KeyRange, found: Vec<FoundKey> },
    /// One for each key, in the order of the query.
    Many(Vec<KeyAnswer>),
    /// Where the weight lies.
    Weights(Weights),
    /// When the first value wants to be woken, in milliseconds since 1970.
    NextWake(Option<u64>),
    /// The tally follows.
    Tally,
}

impl<'a> ShardCommand<'a> {
    /// The command in bytes, followed by `rest`.
    pub(crate) fn encode(&self, rest: &[u8]) -> Bytes {
        join(self, rest)
    }

    /// Reads what [`encode`](Self::encode) wrote; the bytes are a stranger's.
    pub(super) fn split(payload: &'a [u8]) -> Result<(Self, &'a [u8]), Refused> {
        let (command, rest) = split::<Self>("command", payload)?;
        match command {
            ShardCommand::Command { key } => key::check(key).map_err(|error| Refused(error.to_string()))?,
            ShardCommand::CommandAll(_) | ShardCommand::Install { .. } | ShardCommand::Sweep { .. } => {}
            _ => end("command", rest)?,
        }
        Ok((command, rest))
    }

    /// What a report calls such a command.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            ShardCommand::Initialise { .. } => "initialise",
            ShardCommand::Command { .. } => "command",
            ShardCommand::CommandAll(_) => "command to all keys",
            ShardCommand::Send { .. } => "send",
            ShardCommand::Receive { .. } => "receive",
            ShardCommand::GiveUp { .. } => "give up",
            ShardCommand::Install { .. } => "install",
            ShardCommand::Finish { .. } => "finish",
            ShardCommand::Abort { .. } => "abort",
            ShardCommand::Forget { .. } => "forget",
            ShardCommand::Wake { .. } => "wake",
            ShardCommand::Tally => "tally",
            ShardCommand::Sweep { .. } => "sweep",
            ShardCommand::Records { .. } => "records",
            ShardCommand::CountRecords => "count records",
        }
    }
}

impl<'a> ShardQuery<'a> {
    /// The query in bytes, followed by `rest`.
    pub(crate) fn encode(&self, rest: &[u8]) -> Bytes {
        join(self, rest)
    }

    /// Reads what [`encode`](Self::encode) wrote; the bytes are a stranger's.
    pub(super) fn split(payload: &'a [u8]) -> Result<(Self, &'a [u8]), Refused> {
        let (query, rest) = split::<Self>("query", payload)?;
        let check = |key| key::check(key).map_err(|error| Refused(error.to_string()));
        match &query {
            ShardQuery::Query { key } => check(key)?,
            ShardQuery::Many { keys } => keys.iter().try_for_each(|key| check(key))?,
            _ => end("query", rest)?,
        }
        Ok((query, rest))
    }
}

impl ShardReply {
    /// The reply in bytes, followed by `rest`.
    pub(super) fn encode(&self, rest: &[u8]) -> Bytes {
        join(self, rest)
    }
}

impl ShardAnswer {
    /// The answer in bytes, followed by `rest`.
    pub(super) fn encode(&self, rest: &[u8]) -> Bytes {
        join(self, rest)
    }
}

impl FinalHead {
    /// The head in bytes, followed by slots.
    pub(crate) fn encode(&self, slots: &[u8]) -> Bytes {
        join(self, slots)
    }
}

/// A shard's reply and what follows it.
///
/// # Errors
///
/// What is wrong with the bytes.
pub(crate) fn split_reply(bytes: &Bytes) -> Result<(ShardReply, Bytes), String> {
    let (reply, rest) = split::<ShardReply>("reply", bytes).map_err(|Refused(reason)| reason)?;
    Ok((reply, bytes.slice_ref(rest)))
}

/// A shard's answer and what follows it.
///
/// # Errors
///
/// What is wrong with the bytes.
pub(crate) fn split_answer(bytes: &Bytes) -> Result<(ShardAnswer, Bytes), String> {
    let (answer, rest) = split::<ShardAnswer>("answer", bytes).map_err(|Refused(reason)| reason)?;
    Ok((answer, bytes.slice_ref(rest)))
}

/// What goes with a range, and the slots that follow it.
///
/// # Errors
///
/// What is wrong with the bytes.
pub(crate) fn split_final(bytes: &[u8]) -> Result<(FinalHead, &[u8]), String> {
    split("rest", bytes).map_err(|Refused(reason)| reason)
}

fn join(head: &impl Serialize, rest: &[u8]) -> Bytes {
    let bytes = Vec::with_capacity(32 + rest.len());
    let mut bytes = postcard::to_extend(head, bytes).expect("the head serialises");
    bytes.extend_from_slice(rest);
    bytes.into()
}

fn split<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<(T, &'a [u8]), Refused> {
    postcard::take_from_bytes(bytes)
        .map_err(|error| Refused(format!("the {what} of a shard does not decode: {error}")))
}

fn end(what: &str, rest: &[u8]) -> Result<(), Refused> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(Refused(format!("the {what} of a shard does not decode: {} bytes follow it", rest.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], golden: &[u8]) {
        assert_eq!(bytes, golden);
    }

    fn range() -> KeyRange {
        KeyRange::new(1, 300).unwrap()
    }

    const STEP: MoveStep = MoveStep { move_id: 7, epoch: 8, step: 9 };

    /// Nodes of two versions talk to each other, and old logs are read again.
    #[test]
    fn the_bytes_of_commands_never_change() {
        let range = range();
        let initialise = ShardCommand::Initialise { range, value_size_max: 5 };
        check(&initialise.encode(&[]), &[0, 1, 0xac, 2, 5]);
        check(&ShardCommand::Command { key: b"key" }.encode(b"cmd"), b"\x01\x03keycmd");
        let all = AllCommand { id: 5, until_ms: 6, range, keys_max: 10 };
        check(&ShardCommand::CommandAll(all).encode(b"c"), &[2, 5, 6, 1, 0xac, 2, 10, b'c']);
        check(&ShardCommand::Send { step: STEP, range, to: 4 }.encode(&[]), &[3, 7, 8, 9, 1, 0xac, 2, 4]);
        let receive = ShardCommand::Receive { step: STEP, range, value_size_max: 5 };
        check(&receive.encode(&[]), &[4, 7, 8, 9, 1, 0xac, 2, 5]);
        let records = RecordsAsk { since_ms: 4, after: None, bytes_max: 3 };
        let ask = FinalAsk { changes_after: 2, records };
        check(&ShardCommand::GiveUp { step: STEP, ask }.encode(&[]), &[5, 7, 8, 9, 2, 4, 0, 3]);
        check(&ShardCommand::Records { step: STEP, ask: records }.encode(&[]), &[13, 7, 8, 9, 4, 0, 3]);
        let install = |cover, last| ShardCommand::Install { step: STEP, cover, last }.encode(b"s");
        check(&install(Cover::Range(range), false), &[6, 7, 8, 9, 0, 1, 0xac, 2, 0, b's']);
        check(&install(Cover::Changes { to: 4 }, true), &[6, 7, 8, 9, 1, 4, 1, b's']);
        check(&install(Cover::Records { until_ms: Some(4) }, false), &[6, 7, 8, 9, 2, 1, 4, 0, b's']);
        let within = Cover::RecordsWithin { until_ms: Some(4), count_max: 5 };
        check(&install(within, false), &[6, 7, 8, 9, 3, 1, 4, 5, 0, b's']);
        check(&ShardCommand::CountRecords.encode(&[]), &[14]);
        check(&ShardCommand::Finish { step: STEP }.encode(&[]), &[7, 7, 8, 9]);
        check(&ShardCommand::Abort { step: STEP }.encode(&[]), &[8, 7, 8, 9]);
        check(&ShardCommand::Forget { slots_max: 3 }.encode(&[]), &[9, 3]);
        check(&ShardCommand::Wake { keys_max: 300 }.encode(&[]), &[10, 0xac, 2]);
        check(&ShardCommand::Tally.encode(&[]), &[11]);
        let sweep = ShardCommand::Sweep { prefix: b"p", after: b"pa", keys_max: 300 };
        check(&sweep.encode(b"s"), b"\x0c\x01p\x02pa\xac\x02s");
        let head = FinalHead { all: AllKeys::default(), records: Bytes::from("rec") };
        check(&head.encode(b"s"), b"\x00\x03recs");
    }

    #[test]
    fn the_bytes_of_queries_never_change() {
        let range = range();
        check(&ShardQuery::Query { key: b"key" }.encode(b"q"), b"\x00\x03keyq");
        check(&ShardQuery::Status.encode(&[]), &[1]);
        check(&ShardQuery::Chunk { move_id: 1, from: 2, bytes_max: 3 }.encode(&[]), &[2, 1, 2, 3]);
        check(&ShardQuery::Changes { move_id: 1, after: 2, bytes_max: 3 }.encode(&[]), &[3, 1, 2, 3]);
        let keys = ShardQuery::Keys { range, prefix: b"p", keys_max: 9 };
        check(&keys.encode(&[]), &[4, 1, 0xac, 2, 1, b'p', 9]);
        check(&ShardQuery::Many { keys: vec![b"a", b"bc"] }.encode(b"q"), b"\x05\x02\x01a\x02bcq");
        check(&ShardQuery::Weights.encode(&[]), &[6]);
        check(&ShardQuery::NextWake.encode(&[]), &[7]);
        check(&ShardQuery::Tally.encode(&[]), &[8]);
    }

    #[test]
    fn the_bytes_of_replies_never_change() {
        let range = range();
        let gone = Gone { range, to: 4, move_id: 7 };
        let elsewhere = Elsewhere { range: Some(range), hint: Some(gone), coming: true };
        check(&ShardReply::Done.encode(b"r"), b"\x00r");
        check(&ShardReply::Initialised.encode(&[]), &[1]);
        check(&ShardReply::OtherRange { range }.encode(&[]), &[2, 1, 0xac, 2]);
        let bytes = [3, 1, 1, 0xac, 2, 1, 1, 0xac, 2, 4, 7, 1];
        check(&ShardReply::Elsewhere(elsewhere).encode(&[]), &bytes);
        let done = ShardReply::AllDone { covered: range, keys: 5, refused: 6 };
        check(&done.encode(&[]), &[4, 1, 0xac, 2, 5, 6]);
        check(&ShardReply::Expired.encode(&[]), &[5]);
        check(&ShardReply::TooManyAll.encode(&[]), &[6]);
        check(&ShardReply::Stale.encode(&[]), &[7]);
        check(&ShardReply::Busy.encode(&[]), &[8]);
        check(&ShardReply::OutOfStep.encode(&[]), &[9]);
        check(&ShardReply::Sending { given_up: true }.encode(&[]), &[10, 1]);
        let progress = Progress { copied: Some(3), changes: 4, records_ms: 5 };
        check(&ShardReply::Receiving(progress).encode(&[]), &[11, 1, 3, 4, 5]);
        let given_up = ShardReply::GivenUp { changes: 4, records_next: None, complete: true };
        check(&given_up.encode(b"x"), &[12, 4, 0, 1, b'x']);
        check(&ShardReply::Ended(Outcome::Aborted).encode(&[]), &[13, 1]);
        check(&ShardReply::Forgotten { left: true }.encode(&[]), &[14, 1]);
        check(&ShardReply::Woken { keys: 3, more: true }.encode(&[]), &[15, 3, 1]);
        check(&ShardReply::Tally.encode(b"t"), b"\x10t");
        check(&ShardReply::Swept.encode(b"k"), b"\x11k");
        check(&ShardReply::Records { stamp_ms: 5, next: None }.encode(b"h"), b"\x12\x05\x00h");
        check(&ShardReply::TooLarge { size: 6, limit: 5 }.encode(&[]), &[19, 6, 5]);
        check(&ShardReply::RecordsCounted { count: 5 }.encode(&[]), &[20, 5]);
        check(&ShardReply::TooManyRecords.encode(&[]), &[21]);
    }

    #[test]
    fn the_bytes_of_answers_never_change() {
        let range = range();
        let elsewhere = Elsewhere { range: None, hint: None, coming: false };
        check(&ShardAnswer::Answer.encode(b"a"), b"\x00a");
        check(&ShardAnswer::KeyNotFound.encode(&[]), &[1]);
        check(&ShardAnswer::Elsewhere(elsewhere).encode(&[]), &[2, 0, 0, 0]);
        let (range_of, hot_hash) = (Some(range), Some(7));
        let status = ShardStatus {
            range: range_of,
            keys: 3,
            size: 4,
            load: 5,
            misses: 6,
            moving: true,
            hot_hash,
            hot_permille: 8,
            hands_over: true,
        };
        check(&ShardAnswer::Status(status).encode(&[]), &[3, 1, 1, 0xac, 2, 3, 4, 5, 6, 1, 1, 7, 8, 1]);
        check(&ShardAnswer::Chunk { page: range }.encode(b"s"), &[4, 1, 0xac, 2, b's']);
        check(&ShardAnswer::Changes { to: 3, left: 4 }.encode(b"s"), &[5, 3, 4, b's']);
        check(&ShardAnswer::NoSuchMove.encode(&[]), &[6]);
        let found = vec![FoundKey { key: Bytes::from("k"), size: 9 }];
        check(&ShardAnswer::Keys { page: range, found }.encode(&[]), &[7, 1, 0xac, 2, 1, 1, b'k', 9]);
        let many = vec![KeyAnswer::Answer(Bytes::from("a")), KeyAnswer::KeyNotFound];
        check(&ShardAnswer::Many(many).encode(&[]), &[8, 2, 0, 1, b'a', 1]);
        let weights = Weights { range, keys: vec![1], size: vec![2], load: vec![3] };
        check(&ShardAnswer::Weights(weights).encode(&[]), &[9, 1, 0xac, 2, 1, 1, 1, 2, 1, 3]);
        check(&ShardAnswer::NextWake(Some(300)).encode(&[]), &[10, 1, 0xac, 2]);
        check(&ShardAnswer::Tally.encode(b"t"), b"\x0bt");
    }

    #[test]
    fn a_head_that_does_not_decode_is_refused() {
        for bytes in
            [&b""[..], b"\x19", b"\x01\x05key", b"\x01\x00rest", b"\x00\x02\x01", b"\x00\x01\x02rest"]
        {
            assert!(ShardCommand::split(bytes).is_err(), "{bytes:?}");
        }
        assert!(ShardQuery::split(b"\x01rest").is_err());
        assert!(ShardQuery::split(b"\x05\x01\x00q").is_err());
    }
}
