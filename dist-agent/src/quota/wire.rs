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
    /// Ends whatever quota has the name and, with it, its agents.
    Delete { quota: QuotaName },
    /// Takes places for agents, and tells what became of places that were taken before.
    Places { asked: Vec<Ask>, told: Vec<Told>, pass_ms: u64 },
    /// What a shard held.
    Report(Report),
    /// What the whole cluster shall share is said; whoever says it first decides.
    Agree { tick_ms: u32 },
    /// A node says which versions of which agent types it can run.
    Join(Join),
    /// Ends a quota and, with it, its agents, and no other quota that got its name since.
    DeleteThis { quota: QuotaName, generation: u64 },
    /// What a shard held, of more quotas than a command can name.
    ReportUnnamed(UnnamedReport),
}

/// Places for agents of one quota are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) quota: QuotaName,
    /// The hashes of the agents' keys, which say in which shards they will be counted.
    pub(crate) hashes: Vec<u64>,
    /// Whoever asks expects to need more of them soon, for other agents.
    pub(crate) lease: Option<LeaseTerms>,
}

/// Of what size a lease of places may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LeaseTerms {
    /// Places, at most.
    pub(crate) places_max: u32,
    /// At most one of so many that are left.
    pub(crate) share: u32,
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
    /// One place of a lease was used for the agent whose key has this hash. What is told of a lease is numbered: it may be
    /// told twice, and late.
    UsedOf { number: u32, hash: u64, at_ms: u64 },
    /// So many places of a lease will surely not be used.
    ReturnedOf { number: u32, places: u32 },
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

/// A [`Report`] that has room for all quotas that there may be: which of them one is says its name too, to the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct UnnamedReport {
    /// As of [`Report`].
    pub(crate) first: u64,
    /// As of [`Report`].
    pub(crate) last: u64,
    /// As of [`Report`].
    pub(crate) at_ms: u64,
    /// By which quota of all that there ever were.
    pub(crate) counts: Vec<(u64, u64)>,
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

/// What was given to one ask. Passes are good until a stamped time of the agent's shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Given {
    /// There is no such quota.
    NoSuchQuota,
    /// The quota is not limited, and nothing needs to be told.
    Unlimited { generation: u64, until_ms: u64 },
    /// A place for each of the first so many of those who asked, numbered from the first on. There is none for the rest: the
    /// quota is full, or may be, where some places may be counted twice or some agents not at all, which will be known soon.
    Places { first: u64, places: u32, generation: u64, until_ms: u64, limit: u64, unsure: bool },
    /// So many places for any agents of the quota, at least one for each of those who asked.
    Lease { lease: u64, places: u32, generation: u64, until_ms: u64 },
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
    /// Which quota of those that there were has the name.
    Generation { quota: QuotaName },
}

/// What the ledger answers to a query.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum LedgerAnswer {
    /// Names, in their order.
    List(Vec<QuotaName>),
    /// `None` if there is no such quota.
    Usage(Option<QuotaUsage>),
    /// The parts of the space of key hashes, of [`PARTS`](super::places::PARTS) equal ones, in which places wait for a
    /// report.
    Waiting(Vec<u8>),
    /// `None` if nobody has said yet.
    Agreed { tick_ms: Option<u32> },
    /// By type, and the nodes.
    Versions { agreed: BTreeMap<AgentTypeName, u32>, nodes: Vec<u64> },
    /// `None` if there is no such quota.
    Generation(Option<u64>),
}
