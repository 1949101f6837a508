//! What can go wrong, told so that a caller can act: surely not applied, or perhaps applied.

use std::path::PathBuf;
use std::time::Duration;

use raft_kv::raft_fleet::FleetError;
use raft_kv::rafted_value::{CommandError, NotApplied, QueryError};
use raft_kv::{KvCommandError, KvError, KvNotApplied, KvQueryError, KvUnknown};
use serde::{Deserialize, Serialize};

use crate::agent_id::{AgentId, AgentIdError, QuotaName};
use crate::agent_types::AgentTypesError;

/// Why a command has no reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AgentError {
    /// The command surely changed nothing, and never will. It may be sent again. Of a call under an idempotency key this is
    /// said of that call alone: an earlier one under the same key that ended as [`Unknown`](Self::Unknown) may have been
    /// applied, or may be still, so go on under that key until one is answered, for as long as the key is good.
    #[error("not applied: {0}")]
    NotApplied(AgentNotApplied),
    /// The command may have been applied, or may be still.
    #[error("perhaps applied: {0}")]
    Unknown(AgentUnknown),
}

/// Why a command surely changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentNotApplied {
    /// The agent is not active, and there is no quota of this name in which it could be activated.
    #[error("there is no quota named {0:?}")]
    QuotaNotFound(QuotaName),
    /// The agent is not active, and its quota has as many agents as it may.
    #[error("quota {quota:?} has its limit of {limit} agents")]
    QuotaLimitReached {
        /// The quota.
        quota: QuotaName,
        /// How many agents it may have.
        limit: u64,
    },
    /// The ledger of quotas did not say whether there is a place for the agent.
    #[error("the ledger of quotas did not give {agent} a place: {reason}")]
    NoPlace {
        /// The agent.
        agent: AgentId,
        /// What happened.
        reason: String,
    },
    /// The agent is not active, and the handle says that it shall not be activated.
    #[error("{0} is not active")]
    NotActive(AgentId),
    /// More calls than the handle allows came from this node.
    #[error("the rate limit of {agent} is reached; try again in {wait:?}")]
    RateLimitReached {
        /// The agent.
        agent: AgentId,
        /// When there will be enough tokens, if nobody else takes them.
        wait: Duration,
    },
    /// The handle's rate limit cannot work, or no more of them fit into the memory.
    #[error("the rate limit of {agent}: {reason}")]
    RateLimit {
        /// The agent.
        agent: AgentId,
        /// What is wrong.
        reason: String,
    },
    /// Not every node of the cluster knows the agent's type.
    #[error("not every node of the cluster knows the type of {0}")]
    UnknownAgentType(AgentId),
    /// The command needs a later version of the agent's type than all nodes can run: the cluster is being upgraded. See
    /// [`Agent::version_needed`](crate::Agent::version_needed).
    #[error(
        "the command for {agent} needs version {needed} of its type, and the cluster is still at {agreed}: it is being upgraded"
    )]
    Upgrading {
        /// The agent.
        agent: AgentId,
        /// The version that the command needs.
        needed: u32,
        /// The version that the cluster has agreed on.
        agreed: u32,
    },
    /// The ledger did not say as which version of its type the agent runs.
    #[error("the ledger did not say as which version {agent} runs: {reason}")]
    NoVersion {
        /// The agent.
        agent: AgentId,
        /// What happened.
        reason: String,
    },
    /// The command could not be encoded, and was not sent.
    #[error("the command for {agent} does not encode: {reason}")]
    Unencodable {
        /// The agent.
        agent: AgentId,
        /// What its `Serialize` said.
        reason: String,
    },
    /// The nodes that host the agent hold a state of it that does not decode as one of its type. They keep the bytes.
    #[error("the state of {agent} does not decode on the nodes that host it: {reason}")]
    UnreadableState {
        /// The agent.
        agent: AgentId,
        /// What is wrong.
        reason: String,
    },
    /// The members refused the command: it does not decode as one of the agent's type, or the agent that it would have
    /// activated has a state or gives a reply that does not encode.
    #[error("{agent} refused the command: {reason}")]
    Refused {
        /// The agent.
        agent: AgentId,
        /// What is wrong.
        reason: String,
    },
    /// The agent's handler panicked, or left a state or gave a reply that does not encode; the agent is as it was
    /// before.
    #[error("the command handler of {agent} panicked: {message}")]
    Panicked {
        /// The agent.
        agent: AgentId,
        /// What the panic said.
        message: String,
    },
    /// The command did not get through.
    #[error(transparent)]
    Store(KvNotApplied),
}

/// Why it is not known whether a command was applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentUnknown {
    /// The agent's shard did not answer.
    #[error(transparent)]
    Store(KvUnknown),
    /// The reply does not decode as one of the agent's type.
    #[error("the reply of {agent} is not understood: {reason}")]
    Reply {
        /// The agent.
        agent: AgentId,
        /// What is wrong.
        reason: String,
    },
}

/// Why a query has no answer. A query changes nothing, so it may always be asked again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentQueryError {
    /// More calls than the handle allows came from this node.
    #[error("the rate limit of {agent} is reached; try again in {wait:?}")]
    RateLimitReached {
        /// The agent.
        agent: AgentId,
        /// When there will be enough tokens, if nobody else takes them.
        wait: Duration,
    },
    /// The handle's rate limit cannot work, or no more of them fit into the memory.
    #[error("the rate limit of {agent}: {reason}")]
    RateLimit {
        /// The agent.
        agent: AgentId,
        /// What is wrong.
        reason: String,
    },
    /// The agent is not active: it never had a command, or it deactivated itself.
    #[error("{0} is not active")]
    AgentNotFound(AgentId),
    /// The node that hosts the agent does not know its type.
    #[error("the node that hosts {0} does not know its type")]
    UnknownAgentType(AgentId),
    /// The query could not be encoded, and was not sent.
    #[error("the query for {agent} does not encode: {reason}")]
    Unencodable {
        /// The agent.
        agent: AgentId,
        /// What its `Serialize` said.
        reason: String,
    },
    /// The node that hosts the agent holds a state of it that does not decode as one of its type. It keeps the bytes.
    #[error("the state of {agent} does not decode on the node that hosts it: {reason}")]
    UnreadableState {
        /// The agent.
        agent: AgentId,
        /// What is wrong.
        reason: String,
    },
    /// The agent's shard did not answer.
    #[error(transparent)]
    Store(KvQueryError),
    /// The answer does not decode as one of the agent's type.
    #[error("the answer of {agent} is not understood: {reason}")]
    Answer {
        /// The agent.
        agent: AgentId,
        /// What is wrong.
        reason: String,
    },
}

/// Why something about quotas, or a list, could not be done. Asking again is safe.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaError {
    /// There is no quota of this name.
    #[error("there is no quota named {0:?}")]
    NotFound(QuotaName),
    /// The cluster has as many quotas as it can, or so many were deleted of which agents may still be there: for a quarter
    /// of an hour.
    #[error("the cluster has {limit} quotas, its limit")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// The name cannot be one of a quota.
    #[error(transparent)]
    Name(#[from] AgentIdError),
    /// The ledger of quotas did not take the change; it may have been made or not.
    #[error("the ledger of quotas: {0}")]
    Command(#[from] CommandError),
    /// The ledger of quotas did not answer.
    #[error("the ledger of quotas: {0}")]
    Query(#[from] QueryError),
    /// The ledger's answer is not understood.
    #[error("the answer of the ledger of quotas is not understood: {0}")]
    Answer(String),
}

/// Why agents could not be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The quota or the type cannot be.
    #[error(transparent)]
    Name(#[from] AgentIdError),
    /// A shard did not answer.
    #[error(transparent)]
    Store(#[from] KvError),
}

/// Why the agent types of a build do not fit the cluster.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BuildMismatch {
    /// The cluster has agents of a type that this build does not have.
    #[error("this build does not know agent type {agent_type:?}, which the cluster runs as version {agreed}")]
    UnknownType {
        /// The type.
        agent_type: String,
        /// The version that the cluster has agreed on.
        agreed: u32,
    },
    /// This build cannot run what the cluster has agreed on, or not the oldest version that it may have stored: see
    /// [`Agent::VERSION_MIN`](crate::Agent::VERSION_MIN).
    #[error(
        "this build runs agent type {agent_type:?} as versions {first} to {last}, and the cluster has agents of versions {oldest} to {agreed}"
    )]
    Versions {
        /// The type.
        agent_type: String,
        /// The oldest version that this build can go on with.
        first: u32,
        /// Its own version.
        last: u32,
        /// The oldest version that the cluster may have stored.
        oldest: u32,
        /// The version that the cluster has agreed on.
        agreed: u32,
    },
    /// Other nodes write the same version in another form: [`Agent::VERSION`](crate::Agent::VERSION) was not raised when the
    /// state changed, or [`Agent::write_as`](crate::Agent::write_as) does not write what the earlier build wrote.
    #[error("version {version} of agent type {agent_type:?} has another form on other nodes of the cluster")]
    Form {
        /// The type.
        agent_type: String,
        /// The version.
        version: u32,
    },
    /// A node has more than the cluster can take.
    #[error(
        "the cluster takes {nodes} nodes of {types} agent types with {versions} versions each, and no more"
    )]
    TooMany {
        /// The most nodes.
        nodes: usize,
        /// The most types of a node.
        types: usize,
        /// The most versions of a type.
        versions: usize,
    },
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The agent types cannot work together.
    #[error(transparent)]
    AgentTypes(#[from] AgentTypesError),
    /// A setting cannot work.
    #[error("the configuration cannot work: {0}")]
    InvalidConfig(String),
    /// The directory cannot be used; nothing in it was overwritten.
    #[error("the directory {directory:?}: {error}")]
    Storage {
        /// The directory.
        directory: PathBuf,
        /// What happened.
        error: String,
    },
    /// The store below did not start, or the agents' keyspace could not be made.
    #[error(transparent)]
    Store(#[from] KvError),
    /// The group of the ledger of quotas could not be made.
    #[error("the ledger of quotas: {0}")]
    Ledger(#[from] FleetError),
    /// What the whole cluster shares could not be read or said.
    #[error("the settings that the cluster shares: {0}")]
    Agreed(#[from] QuotaError),
    /// The agent types of this build do not fit those of the cluster's other nodes. Nothing was changed.
    #[error("this build cannot be part of the cluster: {0}")]
    Build(#[from] BuildMismatch),
    /// The cluster has no agents yet and did not get any in time.
    #[error("the cluster was not ready for agents in {limit_ms} ms: {last}")]
    NotReady {
        /// The limit.
        limit_ms: u64,
        /// What was seen last.
        last: String,
    },
}

impl AgentError {
    pub(crate) fn of_store(agent: &AgentId, error: KvCommandError) -> Self {
        let agent = agent.clone();
        match error {
            KvCommandError::Unknown(error) => AgentError::Unknown(AgentUnknown::Store(error)),
            KvCommandError::NotApplied(KvNotApplied::Group(NotApplied::Refused(reason))) => {
                AgentNotApplied::Refused { agent, reason }.into()
            }
            KvCommandError::NotApplied(KvNotApplied::Group(NotApplied::Panicked(message))) => {
                AgentNotApplied::Panicked { agent, message }.into()
            }
            KvCommandError::NotApplied(error) => AgentNotApplied::Store(error).into(),
        }
    }
}

impl AgentQueryError {
    pub(crate) fn of_store(agent: &AgentId, error: KvQueryError) -> Self {
        match error {
            KvQueryError::KeyNotFound => AgentQueryError::AgentNotFound(agent.clone()),
            error => AgentQueryError::Store(error),
        }
    }
}

impl From<AgentNotApplied> for AgentError {
    fn from(error: AgentNotApplied) -> Self {
        AgentError::NotApplied(error)
    }
}

impl From<AgentUnknown> for AgentError {
    fn from(error: AgentUnknown) -> Self {
        AgentError::Unknown(error)
    }
}
