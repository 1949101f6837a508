//! The settings of a node's part in the store, with their defaults and limits.

use std::time::Duration;

use raft_fleet::CallOptions;
use raft_fleet::rafted_value::GroupConfig;

/// The settings of [`Kv`](crate::Kv) on one node.
#[derive(Clone, Debug)]
pub struct KvConfig {
    /// How often the list of keyspaces is read again in the background. Default 5 s.
    pub routes_refresh: Duration,
    /// How many shards of a keyspace are made at a time. Default 4.
    pub creations_max: usize,
    /// For how long each step of making a keyspace is tried again before its caller is told what stands in the way;
    /// whoever asks again continues where it stopped. Default 120 s.
    pub creation_timeout: Duration,
    /// How many members the group of the list of keyspaces should have. Default 3.
    pub keyspaces_replicas: u32,
    /// The settings of the group of the list of keyspaces.
    pub keyspaces_group: GroupConfig,
    /// How often a node looks whether values of the shards that it leads want to be woken. Default 100 ms; nothing but a
    /// number is looked at while nothing is due.
    pub wake_interval: Duration,
    /// How many values of a shard one command wakes; the next command wakes the next. Default 500.
    pub wake_keys_max: u32,
    /// How commands and queries of this layer itself are sent.
    pub call: CallOptions,
}

impl Default for KvConfig {
    fn default() -> Self {
        Self {
            routes_refresh: Duration::from_secs(5),
            creations_max: 4,
            creation_timeout: Duration::from_secs(120),
            keyspaces_replicas: 3,
            keyspaces_group: GroupConfig::default(),
            wake_interval: Duration::from_millis(100),
            wake_keys_max: 500,
            call: CallOptions::default(),
        }
    }
}

impl KvConfig {
    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// A sentence that names the setting and its number.
    pub fn validate(&self) -> Result<(), String> {
        if self.routes_refresh.is_zero() {
            return Err("routes_refresh is 0".into());
        }
        if self.wake_interval.is_zero() {
            return Err("wake_interval is 0".into());
        }
        if self.wake_keys_max == 0 {
            return Err("wake_keys_max is 0".into());
        }
        if self.creations_max == 0 {
            return Err("creations_max is 0".into());
        }
        if self.keyspaces_replicas == 0 {
            return Err("keyspaces_replicas is 0".into());
        }
        self.keyspaces_group.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_a_zero_is_named() {
        assert_eq!(KvConfig::default().validate(), Ok(()));
        let config = KvConfig { creations_max: 0, ..KvConfig::default() };
        assert_eq!(config.validate(), Err("creations_max is 0".into()));
    }
}
