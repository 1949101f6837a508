//! The settings of a node or a client, with their defaults.

use std::time::Duration;

use raft_kv::raft_fleet::{CallOptions, FleetConfig};
use raft_kv::rafted_value::GroupConfig;
use raft_kv::{KeyspacePolicy, KvConfig};

/// The settings of [`DistAgent`](crate::DistAgent) on one node or client.
#[derive(Clone, Debug)]
pub struct DistAgentConfig {
    /// How the node finds and joins its cluster.
    pub fleet: FleetConfig,
    /// The settings of the store below.
    pub kv: KvConfig,
    /// How the agents are spread. The node that comes first decides for the cluster; one that comes later with other
    /// settings logs a warning and takes what it finds.
    pub agents: AgentsPolicy,
    /// How commands and queries are sent unless their handle says otherwise.
    pub call: CallOptions,
    /// How long a client waits for a cluster that is just being made. Default 60 s.
    pub ready_timeout: Duration,
}

impl Default for DistAgentConfig {
    fn default() -> Self {
        Self {
            fleet: FleetConfig::default(),
            kv: KvConfig::default(),
            agents: AgentsPolicy::default(),
            call: CallOptions::default(),
            ready_timeout: Duration::from_secs(60),
        }
    }
}

/// How the agents are spread over the cluster; fixed by the first node that hosts agents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentsPolicy {
    /// Into how many shards the agents are divided, each a group of its own. Default 16.
    pub shards: u32,
    /// How many members each shard should have. Default 3.
    pub replicas: u32,
    /// The settings of each shard's group.
    pub group: GroupConfig,
}

impl Default for AgentsPolicy {
    fn default() -> Self {
        Self { shards: 16, replicas: 3, group: GroupConfig::default() }
    }
}

impl AgentsPolicy {
    pub(crate) fn keyspace_policy(&self) -> KeyspacePolicy {
        let Self { shards, replicas, group } = self.clone();
        KeyspacePolicy { shards, replicas, group, ..KeyspacePolicy::of(VALUE_TYPE) }
    }
}

/// The name of the agents' value type in the store.
pub(crate) const VALUE_TYPE: &str = "dist-agent";
