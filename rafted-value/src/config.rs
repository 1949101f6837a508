//! The settings of a group and of a host, with their defaults and limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::StoreConfig;
use crate::transport::ClusterId;

/// What a group's members keep on the disk of their node.
///
/// It binds members on hosts that have a disk; on others every member lives in memory, whatever this says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub enum Durability {
    /// Nothing but that it existed: a member whose node restarts is lost, and must be removed and added anew.
    Memory,
    /// Everything, but only votes, terms and membership wait for the disk; a command is acknowledged once the operating
    /// system has it. It survives the end of the process, and a loss of power only where the machine was stopped in
    /// order: after any other restart of the machine the member counts as one that lost its state. A change of the
    /// members that was answered is known to a quorum of disks, as under `Fsync`.
    Async,
    /// Everything, and a member acknowledges only what is on the disk. The default.
    #[default]
    Fsync,
}

/// The settings of one group, part of its replicated state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupConfig {
    /// How often a leader tells its followers that it lives, in ms. Default 50.
    pub heartbeat_ms: u32,
    /// For how long a follower that acknowledged a heartbeat votes for nobody else, in ms. Default 200.
    pub promise_ms: u32,
    /// How far two clocks may drift apart over one promise, in ms; the lease is shorter by this much, and a margin of
    /// `promise_ms` or more switches it off. Default 20.
    pub clock_drift_margin_ms: u32,
    /// A follower that hears nothing campaigns after a random time of at least this, in ms. Default 600.
    pub election_timeout_min_ms: u32,
    /// ... and at most this, in ms. Default 1,200. After elections that it has lost a candidate waits longer, until somebody
    /// leads: the span between the two doubles each time, up to eight times what it is.
    pub election_timeout_max_ms: u32,
    /// Replies that clients have not acknowledged, over all sessions; more are refused. Default 100,000.
    pub session_replies_max: u64,
    /// The longest time for which a reply may be kept, in ms. Default 600,000 (ten minutes).
    pub retry_window_max_ms: u64,
    /// The largest payload of a command, in bytes; at most 3 MiB. Default 1 MiB.
    pub command_bytes_max: u64,
    /// A snapshot is taken when the log is this many times larger than the last one; of a group to which nothing is added any
    /// more, once it is larger at all. Members do so in turn: each after the first waits for an eighth more. Default 10.
    pub log_expansion_factor: u32,
    /// No snapshot is taken before the log has this many bytes, all of which each member holds in memory; at most 16 GiB.
    /// Default 1 MiB.
    pub log_bytes_min: u64,
    /// What members on hosts with a disk keep there; fixed when the group is founded. Default [`Durability::Fsync`].
    pub durability: Durability,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            promise_ms: 200,
            clock_drift_margin_ms: 20,
            election_timeout_min_ms: 600,
            election_timeout_max_ms: 1200,
            session_replies_max: 100_000,
            retry_window_max_ms: 600_000,
            command_bytes_max: 1 << 20,
            log_expansion_factor: 10,
            log_bytes_min: 1 << 20,
            durability: Durability::Fsync,
        }
    }
}

/// The longest promise that followers keep, whatever they are asked, in ms.
pub(crate) const PROMISE_MAX_MS: u32 = 60_000;
/// The largest limit of a command's payload, so that an append of one entry fits every transport.
const COMMAND_BYTES_MAX: u64 = 3 << 20;
/// The largest log that may be held before a snapshot is taken, whatever the last one's size: as large as a segment of it
/// can be on a disk.
const LOG_BYTES_MIN_MAX: u64 = 16 << 30;

impl GroupConfig {
    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// A sentence that names the setting and its number.
    pub fn validate(&self) -> Result<(), String> {
        let Self {
            heartbeat_ms, promise_ms, election_timeout_min_ms: min, election_timeout_max_ms: max, ..
        } = *self;
        if heartbeat_ms == 0 {
            return Err("heartbeat_ms is 0".into());
        }
        if promise_ms < heartbeat_ms {
            return Err(format!("promise_ms {promise_ms} is below heartbeat_ms {heartbeat_ms}"));
        }
        if promise_ms > PROMISE_MAX_MS {
            return Err(format!("promise_ms {promise_ms} is over the limit of {PROMISE_MAX_MS}"));
        }
        if min < heartbeat_ms.saturating_mul(2) {
            return Err(format!("election_timeout_min_ms {min} is below twice heartbeat_ms {heartbeat_ms}"));
        }
        if min < promise_ms {
            return Err(format!("election_timeout_min_ms {min} is below promise_ms {promise_ms}"));
        }
        if max <= min {
            return Err(format!("election_timeout_max_ms {max} is not above election_timeout_min_ms {min}"));
        }
        if self.command_bytes_max > COMMAND_BYTES_MAX {
            let asked = self.command_bytes_max;
            return Err(format!("command_bytes_max {asked} is over the limit of {COMMAND_BYTES_MAX}"));
        }
        if self.log_expansion_factor == 0 {
            return Err("log_expansion_factor is 0".into());
        }
        if self.log_bytes_min > LOG_BYTES_MIN_MAX {
            let asked = self.log_bytes_min;
            return Err(format!("log_bytes_min {asked} is over the limit of {LOG_BYTES_MIN_MAX}"));
        }
        Ok(())
    }
}

/// Beats of a loop after which it counts as silent at least; a group falls quiet only if its shortest election timeout is
/// at least so many of them.
pub(crate) const LOOP_BEATS_MIN: u32 = 4;
/// A snapshot of no more than this travels in one message; a larger one in pieces of this size.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// The settings of one node's host.
///
/// Each has limits, which its text names, and [`validate`](HostConfig::validate) tells what is out of them: that is for whoever
/// would rather be told, as layers above are. A host itself takes the nearest value within them, as
/// [`within_limits`](HostConfig::within_limits) does, and logs a warning; only a [`store`](HostConfig::store) that cannot work
/// is an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostConfig {
    /// How many loops share the node's groups; 1 to 256. Default: the number of cores, at most 8.
    pub loops: usize,
    /// What may wait in front of one loop before new requests are refused as overloaded; 8 to 1,048,576. Default 65,536.
    pub inbox_max: usize,
    /// How many inputs one turn of a loop takes at most; 1 to 65,536. Default 4,096.
    pub turn_inputs_max: usize,
    /// Commands that go into one log entry at most; 1 to 16,384. Default 1,024.
    pub entry_commands_max: usize,
    /// Bytes of commands that go into one log entry, unless one alone is larger; 1 byte to 1 MiB. Default 256 KiB.
    pub entry_bytes_max: usize,
    /// Commands and queries of one group that wait in a loop at most; more are refused. 1 to 1,048,576. Default 65,536.
    pub group_waiting_max: usize,
    /// How long the commands of one group may wait for each other: a leader that gets more than can be done refuses those
    /// that would wait longer, by what was done a second lately, or longer than three times what a command waits that finds
    /// few before it. It should be well below the time that callers give an attempt. 1 ms to an hour. Default 200 ms.
    pub wait_target: Duration,
    /// A member that was made by a message but never got its state is dropped after this long; 1 s to a day. Default
    /// 60 s.
    pub uninitialised_max: Duration,
    /// A snapshot that is not acknowledged is sent again after this long; one that its receiver pulls in pieces, when no
    /// piece was asked for in this time. 100 ms to an hour. Default 10 s.
    pub snapshot_retry: Duration,
    /// A state of so many bytes or more that comes from a leader is decoded beside the loop, and a member that holds about
    /// so much is dropped there when it ends; any number. (A member's own is encoded beside it, however large, where its
    /// value offers that: [`Data::freeze`](crate::Data::freeze).) Default 1 MiB.
    pub snapshot_beside_bytes: u64,
    /// The largest snapshot that is taken in, in bytes; all of it is held in memory. 256 KiB to 1 TiB. Default 4 GiB.
    pub snapshot_bytes_max: u64,
    /// Snapshots that come in pieces (those above 256 KiB) to this node's members at a time, over all groups; the others
    /// wait for their turn. 1 to 1,024. Default 8.
    pub snapshots_incoming_max: usize,
    /// The storage of a host that keeps its groups on a disk. [`Host::open`](crate::Host::open) refuses one that cannot
    /// work, as [`StoreConfig::validate`] says.
    pub store: StoreConfig,
    /// The cluster that the node belongs to, where it is known: its directory remembers it, and is refused to a node of
    /// another one. Default `None`.
    pub cluster: Option<ClusterId>,
    /// For how long a host that shuts down hands the leadership of its groups over before it stops; zero for not at
    /// all, an hour at most. Default 1 s.
    pub handover_max: Duration,
    /// After how many commands the states of a group's members are compared, by the leader's setting; a member that is
    /// not as the majority is fenced. Each comparison costs every member one encoding of the whole value, in its loop,
    /// and needs a value that has one encoding (no hash maps). Any number; zero for never, the default.
    pub divergence_check_commands: u64,
    /// A group that this node leads and of which nothing was asked for so long falls quiet: it neither beats nor ticks,
    /// and its members lean on the loops of each other's nodes. It wakes when something is asked of it, and on any doubt;
    /// the first query then takes a round of heartbeats, as a quiet leader has no lease. Any time; zero for never.
    /// Default 5 s.
    pub quiet_after: Duration,
    /// How often a loop tells those that lean on it that it turns; alike on all nodes. Groups whose shortest election
    /// timeout is below four such beats never fall quiet. 1 ms to a minute. Default 100 ms.
    pub loop_beat: Duration,
    /// A loop that was not heard for so long wakes all quiet groups that lean on it; at least four times
    /// [`loop_beat`](HostConfig::loop_beat), an hour at most. Where it is no longer than a group's shortest election
    /// timeout, a leader whose node is gone is missed as early in a quiet group as in any other. Default 400 ms.
    pub loop_silence_max: Duration,
    /// A quiet group's leader asks its members anew after this long at most, whatever happens; 100 ms to an hour.
    /// Default 60 s.
    pub quiet_max: Duration,
}

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

impl HostConfig {
    /// The same with every setting brought within its limits, but for the [`store`](HostConfig::store), which is checked
    /// where it is opened.
    ///
    /// The limits keep what is bounded bounded, and sums of times from running over. They are applied rather than
    /// refused as these settings are one node's own affair, none of them can spoil what the group agrees on, and a node
    /// that starts with a warning is of more use than one that does not start.
    #[must_use]
    pub fn within_limits(self) -> Self {
        let loop_beat = self.loop_beat.clamp(MS, 60_000 * MS);
        Self {
            loops: self.loops.clamp(1, 256),
            inbox_max: self.inbox_max.clamp(8, 1 << 20),
            turn_inputs_max: self.turn_inputs_max.clamp(1, 65_536),
            // What comes of both must fit a transport's message: a command has some fifty bytes beside its payload.
            entry_commands_max: self.entry_commands_max.clamp(1, 16_384),
            entry_bytes_max: self.entry_bytes_max.clamp(1, 1 << 20),
            group_waiting_max: self.group_waiting_max.clamp(1, 1 << 20),
            wait_target: self.wait_target.clamp(MS, HOUR),
            uninitialised_max: self.uninitialised_max.clamp(1000 * MS, 24 * HOUR),
            snapshot_retry: self.snapshot_retry.clamp(100 * MS, HOUR),
            // What travels in one message is taken in anyway.
            snapshot_bytes_max: self.snapshot_bytes_max.clamp(PIECE_BYTES as u64, 1 << 40),
            snapshots_incoming_max: self.snapshots_incoming_max.clamp(1, 1024),
            handover_max: self.handover_max.min(HOUR),
            loop_beat,
            loop_silence_max: self.loop_silence_max.clamp(loop_beat * LOOP_BEATS_MIN, HOUR),
            quiet_max: self.quiet_max.clamp(100 * MS, HOUR),
            ..self
        }
    }

    /// Whether every setting is within its limits, those of the [`store`](HostConfig::store) included.
    ///
    /// The limits are those of [`within_limits`](HostConfig::within_limits): what it would leave as it is works, and nothing
    /// else does.
    ///
    /// # Errors
    ///
    /// The first setting that is out of them, with its value and the nearest one that would do.
    pub fn validate(&self) -> Result<(), HostConfigError> {
        let near = self.clone().within_limits();
        for ((field, value), (_, limit)) in self.numbers().into_iter().zip(near.numbers()) {
            if value != limit {
                return Err(HostConfigError::Number { field, value, limit });
            }
        }
        for ((field, value), (_, limit)) in self.times().into_iter().zip(near.times()) {
            if value != limit {
                return Err(HostConfigError::Time { field, value, limit });
            }
        }
        self.store.validate().map_err(HostConfigError::Store)
    }

    fn numbers(&self) -> [(&'static str, u64); 10] {
        [
            ("loops", self.loops as u64),
            ("inbox_max", self.inbox_max as u64),
            ("turn_inputs_max", self.turn_inputs_max as u64),
            ("entry_commands_max", self.entry_commands_max as u64),
            ("entry_bytes_max", self.entry_bytes_max as u64),
            ("group_waiting_max", self.group_waiting_max as u64),
            ("snapshot_beside_bytes", self.snapshot_beside_bytes),
            ("snapshot_bytes_max", self.snapshot_bytes_max),
            ("snapshots_incoming_max", self.snapshots_incoming_max as u64),
            ("divergence_check_commands", self.divergence_check_commands),
        ]
    }

    fn times(&self) -> [(&'static str, Duration); 8] {
        [
            ("wait_target", self.wait_target),
            ("uninitialised_max", self.uninitialised_max),
            ("snapshot_retry", self.snapshot_retry),
            ("handover_max", self.handover_max),
            ("quiet_after", self.quiet_after),
            ("loop_beat", self.loop_beat),
            ("loop_silence_max", self.loop_silence_max),
            ("quiet_max", self.quiet_max),
        ]
    }
}

/// What of a host's settings is out of its limits.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostConfigError {
    /// A number.
    #[error("{field} {value} is {} {limit}", side(value > limit))]
    Number {
        /// The setting.
        field: &'static str,
        /// What it was to be.
        value: u64,
        /// The nearest value that it can have.
        limit: u64,
    },
    /// A time.
    #[error("{field} {value:?} is {} {limit:?}", side(value > limit))]
    Time {
        /// The setting.
        field: &'static str,
        /// What it was to be.
        value: Duration,
        /// The nearest value that it can have, given the others.
        limit: Duration,
    },
    /// A setting of the store, as [`StoreConfig::validate`] says.
    #[error("store: {0}")]
    Store(String),
}

/// On which side of its limit a value is.
fn side(is_over: bool) -> &'static str {
    if is_over { "over the limit of" } else { "below" }
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            loops: std::thread::available_parallelism().map_or(2, |cores| cores.get().min(8)),
            inbox_max: 65_536,
            turn_inputs_max: 4096,
            entry_commands_max: 1024,
            entry_bytes_max: 256 << 10,
            group_waiting_max: 65_536,
            wait_target: Duration::from_millis(200),
            uninitialised_max: Duration::from_secs(60),
            snapshot_retry: Duration::from_secs(10),
            snapshot_beside_bytes: 1 << 20,
            snapshot_bytes_max: 4 << 30,
            snapshots_incoming_max: 8,
            store: StoreConfig::default(),
            cluster: None,
            handover_max: Duration::from_secs(1),
            divergence_check_commands: 0,
            quiet_after: Duration::from_secs(5),
            loop_beat: Duration::from_millis(100),
            loop_silence_max: Duration::from_millis(400),
            quiet_max: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_the_limits() {
        assert_eq!(HostConfig::default().within_limits(), HostConfig::default());
    }

    #[test]
    fn what_is_within_the_limits_stays_as_it_is() {
        let config = HostConfig {
            loops: usize::MAX,
            inbox_max: 0,
            loop_beat: Duration::MAX,
            loop_silence_max: Duration::ZERO,
            quiet_max: Duration::MAX,
            ..HostConfig::default()
        };
        let limited = config.clone().within_limits();
        assert_ne!(limited, config);
        assert_eq!(
            limited.loop_silence_max,
            4 * limited.loop_beat,
            "a silence is never shorter than four beats"
        );
        assert_eq!(limited.clone().within_limits(), limited);
    }

    /// Of every setting that has limits, one value below and one above them.
    #[test]
    fn what_is_out_of_its_limits_is_named_with_its_value_and_the_limit() {
        assert_eq!(HostConfig::default().validate(), Ok(()));
        let check = |change: fn(&mut HostConfig), says: &str| {
            let mut config = HostConfig::default();
            change(&mut config);
            let said = config.validate().map_err(|error| error.to_string());
            assert_eq!(said, Err(says.to_owned()));
            let limited = config.within_limits().validate();
            assert!(matches!(limited, Ok(()) | Err(HostConfigError::Store(_))), "{says}: {limited:?}");
        };
        check(|config| config.loops = 0, "loops 0 is below 1");
        check(|config| config.loops = 257, "loops 257 is over the limit of 256");
        check(|config| config.inbox_max = 7, "inbox_max 7 is below 8");
        check(|config| config.inbox_max = 1 << 30, "inbox_max 1073741824 is over the limit of 1048576");
        check(|config| config.turn_inputs_max = 0, "turn_inputs_max 0 is below 1");
        check(
            |config| config.entry_commands_max = 16_385,
            "entry_commands_max 16385 is over the limit of 16384",
        );
        check(|config| config.entry_bytes_max = 0, "entry_bytes_max 0 is below 1");
        check(|config| config.group_waiting_max = 0, "group_waiting_max 0 is below 1");
        check(|config| config.snapshot_bytes_max = 1, "snapshot_bytes_max 1 is below 262144");
        check(|config| config.snapshots_incoming_max = 0, "snapshots_incoming_max 0 is below 1");
        check(|config| config.uninitialised_max = MS, "uninitialised_max 1ms is below 1s");
        check(|config| config.snapshot_retry = Duration::ZERO, "snapshot_retry 0ns is below 100ms");
        check(|config| config.handover_max = 2 * HOUR, "handover_max 7200s is over the limit of 3600s");
        check(|config| config.loop_silence_max = 300 * MS, "loop_silence_max 300ms is below 400ms");
        check(|config| config.quiet_max = 2 * HOUR, "quiet_max 7200s is over the limit of 3600s");
        check(|config| config.store.batch_bytes = 0, "store: batch_bytes 0 is below 1");
        let error = HostConfig { loop_beat: Duration::ZERO, ..HostConfig::default() }.validate();
        let expected = HostConfigError::Time { field: "loop_beat", value: Duration::ZERO, limit: MS };
        assert_eq!(error, Err(expected));
    }

    /// Whoever adds a setting is told here to name it where the limits are checked.
    #[test]
    fn every_setting_of_a_host_is_looked_at() {
        let config = HostConfig::default();
        let text = format!("{config:#?}");
        let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
        let fields =
            lines.filter(|line| !line.starts_with([' ', '}'])).filter_map(|line| line.split(':').next());
        let numbers = config.numbers().map(|(field, _)| field);
        let times = config.times().map(|(field, _)| field);
        for field in fields.filter(|field| !["store", "cluster"].contains(field)) {
            assert!(numbers.contains(&field) || times.contains(&field), "{field}");
        }
    }

    /// A group whose log was to grow for ever before its first snapshot once came to be.
    #[test]
    fn a_log_that_is_to_outgrow_every_memory_is_refused() {
        let config = |log_bytes_min| GroupConfig { log_bytes_min, ..GroupConfig::default() };
        assert_eq!(config(16 << 30).validate(), Ok(()));
        let refused = config((16 << 30) + 1).validate();
        assert_eq!(refused, Err("log_bytes_min 17179869185 is over the limit of 17179869184".into()));
    }
}
