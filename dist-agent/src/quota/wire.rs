//! What is said to the ledger of quotas and what it says; append-only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limit::{QuotaLimit, QuotaUsage};
use super::versions::Join;
use crate::agent_id::{AgentTypeName, QuotaName};
use crate::error::BuildMismatch;

/// What changes the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum LedgerCommand {
    /// Makes a quota, or changes the limit of one.
    Put { quota: QuotaName, limit: QuotaLimit },
    /// Ends a quota and, with it, its agents.
    Delete { quota: QuotaName },
    /// Takes places for agents, and tells what became of places that were taken before.
    Places { asked: Vec<Ask>, told: Vec<Told>, pass_ms: u64 },
    /// What a shard held.
    Report(Report),
    /// What the whole cluster shall share is said; whoever says it first decides.
    Agree { tick_ms: u32 },
    /// A node says which versions of which agent types it can run.
    Join(Join),
}

/// A place for one agent is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) quota: QuotaName,
    /// The hash of the agent's key, which says in which shard it will be counted.
    pub(crate) hash: u64,
}

/// What became of a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) place: u64,
    pub(crate) fate: PlaceFate,
}

/// What became of a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum PlaceFate {
    /// It will surely not be used.
    Returned,
    /// An agent was activated with it, at this stamped time of its shard.
    Used { at_ms: u64 },
}

/// How many agents a shard held at one moment, by quota and by which quota of that name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The first and the last key hash of the shard.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The stamped time of the shard: whatever was stamped earlier is counted.
    pub(crate) at_ms: u64,
    pub(crate) counts: Vec<(QuotaName, u64, u64)>,
}

/// What the ledger answers to a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum LedgerReply {
    /// The quota is as it was asked for.
    Done,
    /// There is no such quota.
    NoSuchQuota,
    /// There are too many quotas.
    TooManyQuotas { limit: u64 },
    /// What was given to each ask, in their order.
    Places(Vec<Given>),
    /// The agents of these quotas, by which quota of that name, are to end.
    Ended(Vec<(QuotaName, u64)>),
    /// What the whole cluster shares.
    Agreed { tick_ms: u32 },
    /// The node is taken in; what is agreed of each agent type.
    Joined(BTreeMap<AgentTypeName, u32>),
    /// The node cannot run what is agreed, and is not taken in.
    Mismatch(BuildMismatch),
}

/// What was given to one ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Given {
    /// A place, good until this stamped time of the agent's shard. Place zero is of an unlimited quota, where nothing needs
    /// to be told.
    Place { place: u64, generation: u64, until_ms: u64 },
    /// There is no such quota.
    NoSuchQuota,
    /// The quota is full.
    Full { limit: u64 },
    /// The quota may be full: some places may have been counted twice. Soon it will be known.
    MayBeFull { limit: u64 },
    /// As [`Place`](Self::Place), and the quota has room for [`ROOM_MIN`](super::ledger::ROOM_MIN) more.
    PlaceOfMany { place: u64, generation: u64, until_ms: u64 },
}

/// What asks the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum LedgerQuery {
    /// The names of quotas behind this one, at most so many.
    List { after: Option<QuotaName>, max: u32 },
    /// How full a quota is.
    Usage { quota: QuotaName },
    /// Where a report would release something.
    Waiting,
    /// What the whole cluster shares.
    Agreed,
    /// Which versions of agent types are agreed, and which nodes have said what they can run.
    Versions,
}

/// What the ledger answers to a query.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum LedgerAnswer {
    /// Names, in their order.
    List(Vec<QuotaName>),
    /// `None` if there is no such quota.
    Usage(Option<QuotaUsage>),
    /// The parts of the space of key hashes, of [`PARTS`](super::ledger::PARTS) equal ones, in which places wait for a
    /// report.
    Waiting(Vec<u8>),
    /// `None` if nobody has said yet.
    Agreed { tick_ms: Option<u32> },
    /// By type, and the nodes.
    Versions { agreed: BTreeMap<AgentTypeName, u32>, nodes: Vec<u64> },
}
