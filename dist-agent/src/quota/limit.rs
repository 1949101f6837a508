//! How many agents a quota allows, and how many it has.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many agents of a quota may be active at a time.
///
/// It is looked at when an agent is activated, and at no other time: agents that are active stay so when the limit is
/// lowered, when their node dies and when they move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum QuotaLimit {
    /// At most so many; with zero no agent can be activated.
    Agents(u64),
    /// Any number.
    Unlimited,
}

impl From<u64> for QuotaLimit {
    fn from(agents: u64) -> Self {
        Self::Agents(agents)
    }
}

impl fmt::Display for QuotaLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agents(agents) => agents.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// How full a quota is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuotaUsage {
    /// The agents that are active or just being activated. One that ended counts until its shard has been counted anew,
    /// about a second; one that is just being activated may count twice until then.
    pub agents: u64,
    /// How many there may be.
    pub limit: QuotaLimit,
}
