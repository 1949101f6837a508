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
    User,
}

/// What an agent's place answers to a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum AgentReply {
    /// A reply of the agent's type follows.
    User,
    /// The type is not known to the members; nothing changed.
    UnknownAgentType,
    /// The members hold a state that does not decode; nothing changed. What is wrong follows, as text.
    UnreadableState,
}

/// What asks an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum AgentQuery {
    /// A query of the agent's type follows.
    User,
}

/// What an agent's place answers to a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum AgentAnswer {
    /// An answer of the agent's type follows.
    User,
    /// The type is not known to the member.
    UnknownAgentType,
    /// The member holds a state that does not decode. What is wrong follows, as text.
    UnreadableState,
}

/// A head and what follows it, in bytes.
pub(crate) fn join(head: &impl Serialize, rest: &[u8]) -> Bytes {
    let bytes = Vec::with_capacity(1 + rest.len());
    let mut bytes = postcard::to_extend(head, bytes).expect("the head serialises");
    bytes.extend_from_slice(rest);
    bytes.into()
}

/// A head followed by a value of the user's, in bytes.
///
/// # Errors
///
/// What the value's `Serialize` says.
pub(crate) fn join_value(head: &impl Serialize, value: &impl Serialize) -> Result<Bytes, String> {
    let bytes = postcard::to_extend(head, Vec::with_capacity(64)).expect("the head serialises");
    postcard::to_extend(value, bytes).map(Bytes::from).map_err(|error| error.to_string())
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
        assert_eq!(join(&AgentCommand::User, b"x"), &b"\x00x"[..]);
        assert_eq!(join(&AgentReply::User, b"x"), &b"\x00x"[..]);
        assert_eq!(join(&AgentReply::UnknownAgentType, b""), &b"\x01"[..]);
        assert_eq!(join(&AgentReply::UnreadableState, b"why"), &b"\x02why"[..]);
        assert_eq!(join(&AgentQuery::User, b"x"), &b"\x00x"[..]);
        assert_eq!(join(&AgentAnswer::User, b"x"), &b"\x00x"[..]);
        assert_eq!(join(&AgentAnswer::UnknownAgentType, b""), &b"\x01"[..]);
        assert_eq!(join(&AgentAnswer::UnreadableState, b"why"), &b"\x02why"[..]);
        assert_eq!(join_value(&AgentCommand::User, &300_u32).unwrap(), &b"\x00\xac\x02"[..]);
    }

    #[test]
    fn an_unknown_head_is_an_error() {
        assert!(split::<AgentCommand>(b"").is_err());
        assert!(split::<AgentCommand>(b"\x07rest").is_err());
        assert_eq!(split::<AgentCommand>(b"\x00rest"), Ok((AgentCommand::User, &b"rest"[..])));
    }
}
