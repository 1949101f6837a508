#![doc = include_str!("../README.md")]

mod agent;
mod agent_id;
mod agent_type;
mod agent_types;
mod agent_values;
mod call;
mod config;
mod context;
mod error;
mod handle;
mod hooks;
mod list;
mod node;
mod on_tick;
mod quota;
mod quotas;
mod rate_limits;
mod single_node;
mod state_watch;
mod wire;

pub use foretoken::{Rate, RateError};
pub use raft_kv;
pub use rand_chacha::rand_core;

pub use self::agent::Agent;
pub use self::agent_id::{AgentId, AgentIdError, AgentKey, AgentTypeName, QuotaName};
pub use self::agent_types::{AgentTypes, AgentTypesError};
pub use self::config::{AgentsPolicy, DistAgentConfig};
pub use self::context::{AgentContext, QueryContext};
pub use self::error::{
    AgentError, AgentNotApplied, AgentQueryError, AgentUnknown, ListError, QuotaError, StartError,
};
pub use self::handle::AgentHandle;
pub use self::hooks::{AgentHooks, HookContext};
pub use self::list::{AgentPage, AgentPosition};
pub use self::node::DistAgent;
pub use self::on_tick::OnTick;
pub use self::quota::{QuotaLimit, QuotaUsage};

/// The workspace's README is tested here: its agent must compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct WorkspaceReadme;
