//! Quotas: how many agents each tenant may have.
//!
//! A **ledger**, replicated in a group of its own, knows every quota and how many agents it has. An activation first takes
//! a **place** from it and shows that to the agent's shard, which looks at it once more when the command runs. What
//! shards hold is counted by the shards themselves and **reported** with their stamped time, so that a count follows the
//! agents wherever they go and does not vanish with a node.
//!
//! Where agent after agent is new and a quota has room, places are **leased**: a node or client takes many at once, gives them
//! out itself and tells of them afterwards, so that an activation costs hardly more than another command. No more than a
//! share of what is left is leased at a time, what was not used comes back within half a second, and nobody is told that a
//! quota is full while places of leases may come back: near its limit a quota is counted place by place.
//!
//! A place is given back when its activation is known to have failed, and becomes part of the shard's count when a
//! report was taken later than the activation. One of which nothing is heard any more is over when its shard has
//! reported from a time at which it could not be used any longer. No clock but the shard's own decides any of that.

mod counts;
mod desk;
mod ending;
mod held;
mod ledger;
mod limit;
mod places;
mod reporter;
mod versions;
mod wire;

pub(crate) use self::desk::{Desk, NoPlace, Place};
pub(crate) use self::ledger::{COMMAND_BYTES_MAX, GROUP, Ledger};
pub use self::limit::{QuotaLimit, QuotaUsage};
pub(crate) use self::reporter::Reporter;
pub(crate) use self::versions::{Join, NodeTypes, Span, TYPES_MAX, VERSIONS_MAX};
#[cfg(any(feature = "fuzzing", test))]
pub(crate) use self::wire::{Ask, LeaseTerms, PlaceFate, Report, Told, UnnamedReport};
pub(crate) use self::wire::{LedgerAnswer, LedgerCommand, LedgerQuery, LedgerReply};
