//! Identities: nodes, groups, members of groups, and client sessions.
//!
//! All are opaque numbers that are never used twice for two things: what would make Raft vote twice, or a stale
//! message reach the wrong place, is the reuse of a name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One life of one node.
///
/// A node that keeps its state on disk keeps its id; a node that starts empty draws a new one, so that whatever
/// was promised under the old id cannot be broken by its successor. Zero is never a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// One replicated value, for ever: a group that is removed and made anew under the same name has a new id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u64);

/// One member of one group (the id that Raft knows), allocated by the group when the member is added and never again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId(pub u64);

/// The member that founds a group.
pub const FOUNDER: MemberId = MemberId(1);

/// One client's line of numbered commands to one group; drawn at random, 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// The session with these 128 bits, which the caller draws at random.
    pub fn new(high: u64, low: u64) -> Self {
        Self(((u128::from(high) << 64) | u128::from(low)).to_le_bytes())
    }

    /// The 128 bits.
    pub fn bits(self) -> u128 {
        u128::from_le_bytes(self.0)
    }
}

macro_rules! hex_display {
    ($name:ident, $letter:literal, $bits:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{:x}"), $bits(self))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

hex_display!(NodeId, "n", |id: &NodeId| id.0);
hex_display!(GroupId, "g", |id: &GroupId| id.0);
hex_display!(MemberId, "m", |id: &MemberId| id.0);
hex_display!(SessionId, "s", |id: &SessionId| id.bits());
