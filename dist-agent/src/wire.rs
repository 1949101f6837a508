//! What travels between handles and agents: one byte of ours in front of the user's own.
//!
//! What this crate says and what users say never share a name: a user's value is only ever inside of `User`. The
//! enums are append-only: a variant that was released keeps its place.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What changes an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum AgentCommand {
    /// A command of the agent's type follows.
    Run {
        /// The length of a tick in milliseconds, as the caller knows it: handlers on all members must agree on it.
        tick_ms: u32,
        /// What lets the command activate an agent; without it only one that is active runs it.
        pass: Option<Pass>,
        /// The version of the agent's type that the caller knows all nodes can run: the agent runs as this one or, if it runs
        /// as a later one already, as that.
        version: u32,
    },
    /// A command of the agent's type follows, which only an agent that is active runs.
    RunIfActive {
        /// As of [`Run`](Self::Run).
        tick_ms: u32,
        /// As of [`Run`](Self::Run).
        version: u32,
        /// A number by which the caller knows a reply of its own from a recorded one.
        call: u64,
    },
}

/// What lets a command activate an agent: its quota has a place for it, until then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Pass {
    /// Which quota of this name, of those that there were.
    pub(crate) generation: u64,
    /// The last moment, in stamped time of the agent's shard, at which it is good.
    pub(crate) until_ms: u64,
}

/// What is done to all agents of quotas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum AgentSweep {
    /// Those that were activated under this generation of it end.
    EndQuota { generation: u64 },
    /// Those that were activated under any of some generations end; the list follows.
    EndQuotas,
}

/// What an agent's place answers to a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum AgentReply {
    /// A reply of the agent's type follows.
    User,
    /// The type is not known to the members; nothing changed. Not said any more: a member that does not know it ends.
    UnknownAgentType,
    /// The members hold a state that does not decode; nothing changed. What is wrong follows, as text.
    UnreadableState,
    /// A reply of the agent's type follows; the command has activated the agent, at this stamped time, and it lives on.
    Activated { at_ms: u64 },
    /// The agent is not active, and the command had no pass; nothing changed.
    NotActive,
    /// The agent is not active, and the pass was good until an earlier moment; nothing changed.
    PassExpired,
    /// The agent is not active, nothing changed, and it was this call that found so.
    NotActiveFor { call: u64 },
}

/// What asks an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum AgentQuery {
    /// A query of the agent's type follows.
    User,
    /// The changes behind this revision are asked for, of this life of the agent; of its present one if zero.
    Changes { life: u64, revision: u64 },
    /// Nothing but whether it is there.
    IsActive,
}

/// What an agent's place answers to a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum AgentAnswer {
    /// An answer of the agent's type follows.
    User,
    /// The type is not known to the member. Not said any more.
    UnknownAgentType,
    /// The member holds a state that does not decode. What is wrong follows, as text.
    UnreadableState,
    /// Changes of this life of the agent follow.
    Changes { life: u64 },
    /// Changes before this revision are not kept any more.
    Compacted { oldest: u64 },
    /// The life that was asked about is over, and another has begun.
    OtherLife,
    /// The agent is there.
    Active,
}

/// No head has more bytes.
const HEAD_BYTES_MAX: usize = 48;
/// Most values have no more, and are written where no memory is asked for.
const TYPICAL_BYTES: usize = 128;

/// A head and what follows it, in bytes.
pub(crate) fn join(head: &impl Serialize, rest: &[u8]) -> Bytes {
    let mut room = [0; HEAD_BYTES_MAX];
    let head = postcard::to_slice(head, &mut room).expect("the head serialises");
    let mut bytes = Vec::with_capacity(head.len() + rest.len());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(rest);
    bytes.into()
}

/// A head followed by a value of the user's, in bytes.
///
/// # Errors
///
/// What the value's `Serialize` says.
pub(crate) fn join_value(head: &impl Serialize, value: &impl Serialize) -> Result<Bytes, String> {
    let mut room = [0; HEAD_BYTES_MAX];
    let head = postcard::to_slice(head, &mut room).expect("the head serialises");
    write_behind(head, value)
}

/// The bytes of a value of the user's.
///
/// # Errors
///
/// What the value's `Serialize` says.
pub(crate) fn try_encode(value: &impl Serialize) -> Result<Bytes, String> {
    write_behind(&[], value)
}

fn write_behind(head: &[u8], value: &impl Serialize) -> Result<Bytes, String> {
    let mut room = [0; HEAD_BYTES_MAX + TYPICAL_BYTES];
    let (of_head, of_value) = room.split_at_mut(head.len());
    of_head.copy_from_slice(head);
    if let Ok(value) = postcard::to_slice(value, of_value) {
        let end = head.len() + value.len();
        return Ok(Bytes::copy_from_slice(&room[..end]));
    }
    // A lack of room does not always show as such: what is written by way of `Display` has an error of its own.
    postcard::to_extend(value, head.to_vec()).map(Bytes::from).map_err(|error| error.to_string())
}

/// A head and what follows it; the bytes are a stranger's.
pub(crate) fn split<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), String> {
    postcard::take_from_bytes(bytes).map_err(|error| format!("the head does not decode: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of two versions talk to each other, and old logs are read again.
    #[test]
    fn the_bytes_of_the_heads_never_change() {
        let run = AgentCommand::Run { tick_ms: 300, pass: None, version: 5 };
        assert_eq!(join(&run, b"x"), &b"\x00\xac\x02\x00\x05x"[..]);
        let pass = Some(Pass { generation: 2, until_ms: 300 });
        let run = AgentCommand::Run { tick_ms: 1, pass, version: 300 };
        assert_eq!(join(&run, b"x"), &b"\x00\x01\x01\x02\xac\x02\xac\x02x"[..]);
        let run = AgentCommand::RunIfActive { tick_ms: 300, version: 5, call: 300 };
        assert_eq!(join(&run, b"x"), &b"\x01\xac\x02\x05\xac\x02x"[..]);
        assert_eq!(join(&AgentSweep::EndQuota { generation: 2 }, b""), &b"\x00\x02"[..]);
        let list = try_encode(&[2_u64, 300].as_slice()).unwrap();
        assert_eq!(join(&AgentSweep::EndQuotas, &list), &b"\x01\x02\x02\xac\x02"[..]);
        assert_eq!(join(&AgentReply::User, b"x"), &b"\x00x"[..]);
        assert_eq!(join(&AgentReply::UnknownAgentType, b""), &b"\x01"[..]);
        assert_eq!(join(&AgentReply::UnreadableState, b"why"), &b"\x02why"[..]);
        assert_eq!(join(&AgentReply::Activated { at_ms: 300 }, b"x"), &b"\x03\xac\x02x"[..]);
        assert_eq!(join(&AgentReply::NotActive, b""), &b"\x04"[..]);
        assert_eq!(join(&AgentReply::PassExpired, b""), &b"\x05"[..]);
        assert_eq!(join(&AgentReply::NotActiveFor { call: 300 }, b""), &b"\x06\xac\x02"[..]);
        assert_eq!(join(&AgentQuery::User, b"x"), &b"\x00x"[..]);
        let changes = AgentQuery::Changes { life: 2, revision: 300 };
        assert_eq!(join(&changes, b""), &b"\x01\x02\xac\x02"[..]);
        assert_eq!(join(&AgentQuery::IsActive, b""), &b"\x02"[..]);
        assert_eq!(join(&AgentAnswer::Active, b""), &b"\x06"[..]);
        assert_eq!(join(&AgentAnswer::Changes { life: 2 }, b"x"), &b"\x03\x02x"[..]);
        assert_eq!(join(&AgentAnswer::Compacted { oldest: 300 }, b""), &b"\x04\xac\x02"[..]);
        assert_eq!(join(&AgentAnswer::OtherLife, b""), &b"\x05"[..]);
        assert_eq!(join(&AgentAnswer::User, b"x"), &b"\x00x"[..]);
        assert_eq!(join(&AgentAnswer::UnknownAgentType, b""), &b"\x01"[..]);
        assert_eq!(join(&AgentAnswer::UnreadableState, b"why"), &b"\x02why"[..]);
        assert_eq!(join_value(&AgentQuery::User, &300_u32).unwrap(), &b"\x00\xac\x02"[..]);
    }

    #[test]
    fn a_value_of_any_size_follows_its_head() {
        for size in (0..400).chain([100_000]) {
            let value = vec![7_u8; size];
            let bytes = join_value(&AgentReply::Activated { at_ms: u64::MAX }, &value).unwrap();
            let (head, rest) = split::<AgentReply>(&bytes).unwrap();
            assert_eq!(head, AgentReply::Activated { at_ms: u64::MAX });
            assert_eq!(postcard::from_bytes::<Vec<u8>>(rest).unwrap(), value);
            assert_eq!(try_encode(&value).unwrap(), rest);
        }
    }

    /// Such a value's lack of room looks like a fault of the value.
    #[test]
    fn a_long_value_that_is_written_by_way_of_its_display_is_encoded() {
        struct Shown(String);
        impl Serialize for Shown {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }
        let text = "x".repeat(1_000);
        assert_eq!(try_encode(&Shown(text.clone())), try_encode(&text));
    }

    #[test]
    fn the_longest_head_fits() {
        let pass = Some(Pass { generation: u64::MAX, until_ms: u64::MAX });
        let head = AgentCommand::Run { tick_ms: u32::MAX, pass, version: u32::MAX };
        assert_eq!(split(&join(&head, b"x")), Ok((head, &b"x"[..])));
        let head = AgentCommand::RunIfActive { tick_ms: u32::MAX, version: u32::MAX, call: u64::MAX };
        assert_eq!(split(&join(&head, b"x")), Ok((head, &b"x"[..])));
    }

    #[test]
    fn an_unknown_head_is_an_error() {
        assert!(split::<AgentCommand>(b"").is_err());
        assert!(split::<AgentCommand>(b"\x07rest").is_err());
        assert_eq!(split::<AgentQuery>(b"\x00rest"), Ok((AgentQuery::User, &b"rest"[..])));
    }
}
