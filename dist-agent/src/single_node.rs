//! A cluster of one node inside of this process: the quickest way to agents.

use raft_kv::rafted_value::NodeId;
use raft_kv::rafted_value::env::{RealEnv, random_u64_from_os};
use raft_kv::rafted_value::transport::memory::MemoryNetwork;

use crate::agent_types::AgentTypes;
use crate::config::DistAgentConfig;
use crate::error::StartError;
use crate::node::DistAgent;

impl DistAgent {
    /// A cluster of this process alone, in memory: no port, no certificate, no other node. The same agents run in a
    /// cluster of many without a change.
    ///
    /// # Errors
    ///
    /// When two types share a name, or the node does not become ready in time.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub async fn single_node(types: AgentTypes) -> Result<Self, StartError> {
        let node = NodeId(random_u64_from_os().max(1));
        let env = RealEnv::new(MemoryNetwork::new().join(node, "single-node"));
        let mut config = DistAgentConfig::default();
        config.fleet.bootstrap_expect = 1;
        config.kv.keyspaces_replicas = 1;
        config.agents.replicas = 1;
        config.agents.shards = SHARDS;
        Self::start(env, config, types).await
    }
}

/// Shards of a node on its own: they share its cores and nothing else.
const SHARDS: u32 = 4;
