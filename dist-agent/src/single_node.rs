//! A cluster of one node inside of this process: the quickest way to agents.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use raft_kv::rafted_value::disk::{Disk, RealDisk};
use raft_kv::rafted_value::env::{Env, RealEnv, random_u64_from_os};
use raft_kv::rafted_value::transport::memory::MemoryNetwork;
use raft_kv::rafted_value::{NodeId, node_on};

use crate::agent_types::AgentTypes;
use crate::config::DistAgentConfig;
use crate::error::StartError;
use crate::node::DistAgent;

impl DistAgent {
    /// A cluster of this process alone, in memory: no port, no certificate, no other node. The same agents run in a
    /// cluster of many without a change. [`SingleNode`] has more to choose from.
    ///
    /// # Errors
    ///
    /// When two types share a name, or the node does not become ready in time.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub async fn single_node(types: AgentTypes) -> Result<Self, StartError> {
        SingleNode::new(types).start().await
    }
}

/// A cluster of this process alone, as it is to be.
///
/// ```no_run
/// # use std::time::Duration;
/// # use dist_agent::{AgentTypes, SingleNode};
/// # async fn example(types: AgentTypes) -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = SingleNode::new(types)
///     .directory("/var/lib/my-service")
///     .config(|config| config.tick_interval = Duration::from_secs(1))
///     .start()
///     .await?;
/// # drop(cluster);
/// # Ok(())
/// # }
/// ```
pub struct SingleNode {
    types: AgentTypes,
    config: DistAgentConfig,
    directory: Option<PathBuf>,
}

impl SingleNode {
    /// In memory, with the default settings.
    pub fn new(types: AgentTypes) -> Self {
        let mut config = DistAgentConfig::default();
        config.fleet.bootstrap_expect = 1;
        config.kv.keyspaces_replicas = 1;
        config.agents.replicas = 1;
        config.agents.shards = SHARDS;
        Self { types, config, directory: None }
    }

    /// Keeps agents and quotas in this directory, which is made where there is none: what was acknowledged is there again
    /// when the program starts anew, or the machine. Each command waits for the disk.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Changes settings.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut DistAgentConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// When two types share a name, a setting cannot work, the directory cannot be used, or the node does not become ready
    /// in time.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub async fn start(self) -> Result<DistAgent, StartError> {
        let network = MemoryNetwork::new();
        let fresh = || NodeId(random_u64_from_os().max(1));
        let env: Arc<dyn Env> = match self.directory {
            None => RealEnv::new(network.join(fresh(), NAME)),
            Some(directory) => {
                let storage = |error: String| StartError::Storage { directory: directory.clone(), error };
                let disk = RealDisk::open(&directory).map_err(|error| storage(error.to_string()))?;
                let disk: Arc<dyn Disk> = Arc::new(disk);
                let kept = node_on(disk.as_ref()).map_err(|error| storage(error.to_string()))?;
                RealEnv::with_disk(network.join(kept.unwrap_or_else(fresh), NAME), disk)
            }
        };
        DistAgent::start(env, self.config, self.types).await
    }
}

impl fmt::Debug for SingleNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleNode")
            .field("types", &self.types)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// The name of the node; nobody else sees it.
const NAME: &str = "single-node";
/// Shards of a node on its own: they share its cores and nothing else.
const SHARDS: u32 = 4;
