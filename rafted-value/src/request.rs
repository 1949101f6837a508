//! What clients ask of a group.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::SessionId;

/// A command with what makes it run exactly once however often it is sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Command {
    /// The client's session with this group.
    pub session: SessionId,
    /// The number of the command in its session; the same at each attempt.
    pub sequence: u64,
    /// The client waits for no command of this session below this number.
    pub acknowledged: u64,
    /// The last moment, in milliseconds since 1970 of the group's stamped time, at which an attempt may be applied;
    /// fixed at the first attempt. The group keeps the reply until then, or until it is acknowledged.
    pub retry_until_ms: u64,
    /// A hash of the key that the command is about, so that its record can follow its key when a shard is split;
    /// zero where there is no key.
    pub key_hash: u64,
    /// The command itself.
    pub payload: Bytes,
}

/// How fresh an answer must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Freshness {
    /// Linearizable: the leader answers, under its lease or after a round of heartbeats.
    Latest,
    /// Any member answers at once from what it has applied, however old.
    Stale,
}
