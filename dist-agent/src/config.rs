//! The settings of a node or a client, with their defaults.

use std::time::Duration;

use raft_kv::raft_fleet::{CallOptions, FleetConfig};
use raft_kv::rafted_value::GroupConfig;
use raft_kv::{KeyspacePolicy, KvConfig, SplitMergePolicy};

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
    /// The length of a tick: how precise timeouts are (see [`OnTick`](crate::OnTick)). The node that comes first decides for
    /// the cluster; one that comes later with another length logs a warning and takes that of the cluster, as clients
    /// do ([`DistAgent::tick_interval`](crate::DistAgent::tick_interval)). 1 ms to 49 days; default 60 s.
    pub tick_interval: Duration,
    /// For how long an activation may use the place in a quota that it was given; what a client that died had taken is over
    /// after that. 1 s to 15 minutes; default 60 s.
    pub quota_place: Duration,
    /// How many places of one quota a node or client takes at a time where agent after agent is new; what it does not use it
    /// gives back within half a second. 0: each activation asks for its own. Default 1,024.
    pub quota_lease_places: u32,
    /// It takes no more of them than one of so many that are left: what others may have to wait for near a quota's limit.
    /// At least 1; default 64.
    pub quota_lease_share: u32,
    /// How often a node counts the agents of the shards it leads, where that has changed: how soon the places of agents
    /// that ended, and of activations of which nothing was heard, are free again. Default 1 s.
    pub quota_interval: Duration,
    /// How often a node or client asks which versions of agent types the cluster has agreed on; a call that needs a later one
    /// than is known asks at once. Default 2 s.
    pub versions_interval: Duration,
    /// How many answers a node or client keeps for handles that take older ones
    /// ([`stale_ok`](crate::AgentHandle::stale_ok)). Default 10,000.
    pub answers_max: usize,
    /// How often a watch asks its agent for changes while there are none. Default 100 ms.
    pub watch_interval: Duration,
    /// How many buckets for rate limits a node or client keeps, one for each agent that is called with one. Default
    /// 100,000.
    pub rate_limits_max: usize,
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
            tick_interval: Duration::from_secs(60),
            quota_place: Duration::from_secs(60),
            quota_lease_places: 1_024,
            quota_lease_share: 64,
            quota_interval: Duration::from_secs(1),
            versions_interval: Duration::from_secs(2),
            answers_max: 10_000,
            watch_interval: Duration::from_millis(100),
            rate_limits_max: 100_000,
            call: CallOptions::default(),
            ready_timeout: Duration::from_secs(60),
        }
    }
}

impl DistAgentConfig {
    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// A sentence that names the setting and its number.
    pub fn validate(&self) -> Result<(), String> {
        let tick_ms = self.tick_interval.as_millis();
        if tick_ms == 0 || tick_ms > u128::from(u32::MAX) {
            return Err(format!("tick_interval is {:?}, not 1 ms to 49 days", self.tick_interval));
        }
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(15 * 60));
        if self.quota_place < least || self.quota_place > most {
            return Err(format!("quota_place is {:?}, not 1 s to 15 minutes", self.quota_place));
        }
        if self.quota_lease_share == 0 {
            return Err("quota_lease_share is 0".into());
        }
        if self.quota_interval.is_zero() {
            return Err("quota_interval is 0".into());
        }
        if self.versions_interval.is_zero() {
            return Err("versions_interval is 0".into());
        }
        if self.watch_interval.is_zero() {
            return Err("watch_interval is 0".into());
        }
        if self.rate_limits_max == 0 {
            return Err("rate_limits_max is 0".into());
        }
        self.call.validate()?;
        self.agents.keyspace_policy().validate()
    }

    /// The length of a tick, in milliseconds.
    pub(crate) fn tick_ms(&self) -> u32 {
        u32::try_from(self.tick_interval.as_millis()).unwrap_or(u32::MAX)
    }
}

/// How the agents are spread over the cluster; fixed by the first node that hosts agents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentsPolicy {
    /// Into how many shards the agents are divided at first, each a group of its own. Default 16.
    pub shards: u32,
    /// When shards are split and merged, by the agents in them (`max_keys`) and by their load (a query counts one, a command
    /// three). Default: never.
    pub split_merge: SplitMergePolicy,
    /// How many members each shard should have. Default 3.
    pub replicas: u32,
    /// The settings of each shard's group.
    pub group: GroupConfig,
}

impl Default for AgentsPolicy {
    fn default() -> Self {
        let split_merge = SplitMergePolicy::default();
        Self { shards: 16, split_merge, replicas: 3, group: GroupConfig::default() }
    }
}

impl AgentsPolicy {
    pub(crate) fn keyspace_policy(&self) -> KeyspacePolicy {
        let Self { shards, split_merge, replicas, group } = self.clone();
        KeyspacePolicy { shards, split_merge, replicas, group, ..KeyspacePolicy::of(VALUE_TYPE) }
    }
}

/// The name of the agents' value type in the store.
pub(crate) const VALUE_TYPE: &str = "dist-agent";
