#![doc = include_str!("../README.md")]

mod agent;
mod agent_id;
mod agent_types;
mod agent_values;
mod context;
mod wire;

pub use raft_kv;
pub use rand_chacha::rand_core;

pub use self::agent::Agent;
pub use self::agent_id::{AgentId, AgentIdError, AgentKey, AgentTypeName, QuotaName};
pub use self::agent_types::{AgentTypes, AgentTypesError};
pub use self::context::{AgentContext, QueryContext};
