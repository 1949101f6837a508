//! What travels between clients and shards: a small versioned head, then the value type's own bytes, which are
//! never copied on the way in.
//!
//! The enums are append-only: a variant that was released keeps its place and its fields.

use bytes::Bytes;
use raft_fleet::rafted_value::Refused;
use serde::de::Deserialize;
use serde::ser::Serialize;

use super::ShardStatus;
use crate::key;
use crate::key_range::KeyRange;

/// What changes a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum ShardCommand<'a> {
    /// Makes a new shard responsible for a range; repeating it changes nothing.
    Initialise { range: KeyRange },
    /// A command for the value of one key; its bytes follow.
    Command {
        #[serde(borrow)]
        key: &'a [u8],
    },
    /// Wakes the values that are due, at most so many of them.
    Wake { keys_max: u32 },
    /// Counts the values of each class at a place in the log.
    Tally,
    /// Visits the values whose keys begin with `prefix` and come after `after`, at most so many; what the value type needs
    /// to know follows.
    Sweep {
        #[serde(borrow)]
        prefix: &'a [u8],
        #[serde(borrow)]
        after: &'a [u8],
        keys_max: u32,
    },
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
    /// The shard is not responsible for anything yet; nothing changed.
    NotInitialised,
    /// The key is another shard's; nothing changed.
    OutOfRange { range: KeyRange },
    /// So many values were woken; whether more are due.
    Woken { keys: u32, more: bool },
    /// The tally follows.
    Tally,
    /// Where to go on follows.
    Swept,
}

/// What asks a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum ShardQuery<'a> {
    /// A query of the value of one key; its bytes follow.
    Query {
        #[serde(borrow)]
        key: &'a [u8],
    },
    /// How much the shard holds.
    Status,
    /// When the first value wants to be woken.
    NextWake,
    /// Counts the values of each class.
    Tally,
    /// Lists the keys that begin with `prefix` and come after `after`, at most so many.
    List {
        #[serde(borrow)]
        prefix: &'a [u8],
        #[serde(borrow)]
        after: &'a [u8],
        keys_max: u32,
    },
}

/// What a shard answers to a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum ShardAnswer {
    /// The value type's answer follows.
    Answer,
    /// The key has no value.
    KeyNotFound,
    /// The shard is not responsible for anything yet.
    NotInitialised,
    /// The key is another shard's.
    OutOfRange { range: KeyRange },
    /// How much the shard holds.
    Status(ShardStatus),
    /// When the first value wants to be woken, in milliseconds since 1970.
    NextWake(Option<u64>),
    /// The tally follows.
    Tally,
    /// The keys follow.
    Keys,
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
            ShardCommand::Sweep { .. } => {}
            ShardCommand::Initialise { .. } | ShardCommand::Wake { .. } | ShardCommand::Tally => {
                end("command", rest)?;
            }
        }
        Ok((command, rest))
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
        match query {
            ShardQuery::Query { key } => key::check(key).map_err(|error| Refused(error.to_string()))?,
            ShardQuery::Status | ShardQuery::NextWake | ShardQuery::Tally | ShardQuery::List { .. } => {
                end("query", rest)?;
            }
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

    /// Nodes of two versions talk to each other, and old logs are read again.
    #[test]
    fn the_bytes_of_commands_and_queries_never_change() {
        let range = KeyRange::new(1, 300).unwrap();
        check(&ShardCommand::Initialise { range }.encode(&[]), &[0, 1, 0xac, 2]);
        check(&ShardCommand::Command { key: b"key" }.encode(b"cmd"), b"\x01\x03keycmd");
        check(&ShardQuery::Query { key: b"key" }.encode(b"q"), b"\x00\x03keyq");
        check(&ShardQuery::Status.encode(&[]), &[1]);
        check(&ShardCommand::Wake { keys_max: 300 }.encode(&[]), &[2, 0xac, 2]);
        check(&ShardQuery::NextWake.encode(&[]), &[2]);
        check(&ShardCommand::Tally.encode(&[]), &[3]);
        let sweep = ShardCommand::Sweep { prefix: b"p", after: b"pa", keys_max: 300 };
        check(&sweep.encode(b"s"), b"\x04\x01p\x02pa\xac\x02s");
        check(&ShardQuery::Tally.encode(&[]), &[3]);
        let list = ShardQuery::List { prefix: b"p", after: b"pa", keys_max: 300 };
        check(&list.encode(&[]), b"\x04\x01p\x02pa\xac\x02");
    }

    #[test]
    fn the_bytes_of_replies_and_answers_never_change() {
        let range = KeyRange::new(1, 300).unwrap();
        check(&ShardReply::Done.encode(b"r"), b"\x00r");
        check(&ShardReply::Initialised.encode(&[]), &[1]);
        check(&ShardReply::OtherRange { range }.encode(&[]), &[2, 1, 0xac, 2]);
        check(&ShardReply::NotInitialised.encode(&[]), &[3]);
        check(&ShardReply::OutOfRange { range }.encode(&[]), &[4, 1, 0xac, 2]);
        check(&ShardAnswer::Answer.encode(b"a"), b"\x00a");
        check(&ShardAnswer::KeyNotFound.encode(&[]), &[1]);
        check(&ShardAnswer::NotInitialised.encode(&[]), &[2]);
        check(&ShardAnswer::OutOfRange { range }.encode(&[]), &[3, 1, 0xac, 2]);
        let status = ShardStatus { range: Some(range), keys: 3, size: 4, load: 5 };
        check(&ShardAnswer::Status(status).encode(&[]), &[4, 1, 1, 0xac, 2, 3, 4, 5]);
        check(&ShardReply::Woken { keys: 3, more: true }.encode(&[]), &[5, 3, 1]);
        check(&ShardAnswer::NextWake(Some(300)).encode(&[]), &[5, 1, 0xac, 2]);
        check(&ShardReply::Tally.encode(b"t"), b"\x06t");
        check(&ShardReply::Swept.encode(b"k"), b"\x07k");
        check(&ShardAnswer::Tally.encode(b"t"), b"\x06t");
        check(&ShardAnswer::Keys.encode(b"k"), b"\x07k");
    }

    #[test]
    fn a_head_that_does_not_decode_is_refused() {
        for bytes in
            [&b""[..], b"\x09", b"\x01\x05key", b"\x01\x00rest", b"\x00\x02\x01", b"\x00\x01\x02rest"]
        {
            assert!(ShardCommand::split(bytes).is_err(), "{bytes:?}");
        }
        assert!(ShardQuery::split(b"\x01rest").is_err());
    }
}
