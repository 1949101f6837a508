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
    /// How often the node that leads the list of keyspaces looks at all shards for what should be split or merged.
    /// Default 10 s.
    pub stats_interval: Duration,
    /// How often a node looks for moves (of ranges, at splits and merges) that nobody performs, beside when a performer's
    /// time runs out or its process ends. Default 500 ms.
    pub moves_poll: Duration,
    /// How many moves may be under way in the cluster, as far as this node starts them. Default 4.
    pub moves_max: u32,
    /// How many of them one node performs at a time; at most 256, none with 0. Default 2.
    pub moves_performed_max: usize,
    /// Another node takes a move over when its performer has been silent for so long; sooner where the transport tells
    /// that its process has ended. Default 2 s.
    pub move_lease: Duration,
    /// The same between giving the range up and taking it in, when nobody serves it. Default 300 ms.
    pub move_pause_lease: Duration,
    /// For how long one step of a move is tried before its performer leaves it to the next. Default 30 s.
    pub move_step_timeout: Duration,
    /// The bytes of entries that are copied at a time, at most a quarter of what a command of the group may have.
    /// Default 256 KiB.
    pub move_chunk_bytes: u64,
    /// How long a performer rests after each chunk. Default 0.
    pub move_chunk_pause: Duration,
    /// For how long a shard that was merged into its neighbour still sends callers there before its group is removed.
    /// Default 1 s.
    pub move_linger: Duration,
    /// A move whose range changes faster than it is copied is given up after so many rounds: chunks of what has changed
    /// after which no less was left than before. Default 200.
    pub move_rounds_max: u64,
    /// The range is given up when no more than so many bytes of changes and of records of commands were left the last time:
    /// about as much is handed over while nobody serves it. Default 128 KiB.
    pub move_tail_bytes: u64,
    /// ... or after so many more rounds, however much is left. Default 8.
    pub move_tail_rounds_max: u32,
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
            stats_interval: Duration::from_secs(10),
            moves_poll: Duration::from_millis(500),
            moves_max: 4,
            moves_performed_max: 2,
            move_lease: Duration::from_secs(2),
            move_pause_lease: Duration::from_millis(300),
            move_step_timeout: Duration::from_secs(30),
            move_chunk_bytes: 256 << 10,
            move_chunk_pause: Duration::ZERO,
            move_linger: Duration::from_secs(1),
            move_rounds_max: 200,
            move_tail_bytes: 128 << 10,
            move_tail_rounds_max: 8,
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
        for (name, duration) in [
            ("routes_refresh", self.routes_refresh),
            ("stats_interval", self.stats_interval),
            ("moves_poll", self.moves_poll),
            ("move_step_timeout", self.move_step_timeout),
        ] {
            if duration.is_zero() {
                return Err(format!("{name} is 0"));
            }
        }
        for (name, lease) in [("move_lease", self.move_lease), ("move_pause_lease", self.move_pause_lease)] {
            if lease < Duration::from_millis(30) {
                return Err(format!("{name} is {lease:?}, below 30 ms"));
            }
        }
        if self.moves_performed_max > MOVES_PERFORMED_MAX {
            let asked = self.moves_performed_max;
            return Err(format!("moves_performed_max is {asked}, over {MOVES_PERFORMED_MAX}"));
        }
        if self.move_chunk_bytes == 0 {
            return Err("move_chunk_bytes is 0".into());
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
        self.call.validate().map_err(|reason| format!("call: {reason}"))?;
        if self.call.number.is_some() {
            return Err("call: number is one command's, and no setting".into());
        }
        self.keyspaces_group.validate().map_err(|reason| format!("keyspaces_group: {reason}"))
    }
}

/// The most moves that one node may be told to perform at a time.
const MOVES_PERFORMED_MAX: usize = 256;

pub(crate) fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use raft_fleet::CommandNumber;
    use raft_fleet::rafted_value::SessionId;

    use super::*;

    #[test]
    fn the_defaults_work_and_a_zero_is_named() {
        assert_eq!(KvConfig::default().validate(), Ok(()));
        let config = KvConfig { creations_max: 0, ..KvConfig::default() };
        assert_eq!(config.validate(), Err("creations_max is 0".into()));
        let config = KvConfig { moves_performed_max: usize::MAX, ..KvConfig::default() };
        assert!(config.validate().unwrap_err().starts_with("moves_performed_max is"));
        // Once nobody looked at these.
        let call = CallOptions { attempts_max: 0, ..CallOptions::default() };
        let config = KvConfig { call, ..KvConfig::default() };
        assert_eq!(config.validate(), Err("call: attempts_max is 0".into()));
        let number = Some(CommandNumber { session: SessionId::new(1, 2), sequence: 3 });
        let call = CallOptions { number, ..CallOptions::default() };
        let config = KvConfig { call, ..KvConfig::default() };
        assert_eq!(config.validate(), Err("call: number is one command's, and no setting".into()));
    }
}
