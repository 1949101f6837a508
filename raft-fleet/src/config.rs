//! The settings of a fleet and of one call, with their defaults and limits.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use rafted_value::{GroupConfig, HostConfig, SessionId};

use crate::cluster_state::NODES_MAX;
use crate::config_maker::GroupConfigMaker;
use crate::formation::FormationConfig;
use crate::group_name::check_word;
use crate::placement::WEIGHT_MAX;

/// The settings of one node's, or one client's, part in a fleet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FleetConfig {
    /// The zone (rack, data centre) that this node is in; members are spread over zones. Default "default".
    pub zone: String,
    /// Addresses of nodes to begin with; the own address may be among them. Default: none.
    pub seeds: Vec<String>,
    /// How many nodes must see each other before they form a cluster: the number of nodes that are started at first,
    /// the same on each. A node that finds a cluster joins it instead. With 1, a node that finds no cluster at its seeds
    /// is a cluster by itself: that is for a node alone, and refused where several seeds are named. Default 1.
    pub bootstrap_expect: usize,
    /// The settings of the node's groups, among them what all members on this node have in common: its loops, its storage,
    /// and how many snapshots it takes in at a time. Where [`HostConfig::cluster`] names a cluster, the node takes part in
    /// no other; it is for nodes that come to a cluster that is there.
    pub host: HostConfig,
    /// The settings of the group that replicates the cluster state; those of the node that proposes the cluster count.
    pub cluster_group: GroupConfig,
    /// Makes the settings of groups that are added by name alone. Default: [`GroupConfig`]'s defaults for all.
    pub group_config: GroupConfigMaker,
    /// Members of that group, at most; those of the node that proposes the cluster count. Default 7.
    pub cluster_members_max: u32,
    /// How often the members of all groups led here are compared with where they should be; a change of the cluster
    /// state does it at once. Default 1 s.
    pub balancing_interval: Duration,
    /// Groups whose members are changed at a time. Default 16.
    pub adjustments_max: usize,
    /// How long one group may keep one of those places while it waits for a member to catch up. Default 2 s.
    pub adjustment_wait_max: Duration,
    /// Members on other nodes that this one brings up to date at a time, over all groups that it leads; those of new groups
    /// are not counted, which have nothing to send yet. Default 8.
    pub snapshots_max: usize,
    /// Bytes that this node sends in a second to bring members up to date, over all groups and to all nodes together: the
    /// rate of its transport's bulk lane, on which the states of groups travel. What is written meanwhile is sent as it
    /// is to any member, so that a low rate delays a move and never keeps it from its end. Default `None`: what the
    /// transport is set to, 64 MiB over QUIC.
    pub snapshot_bytes_per_second_max: Option<u64>,
    /// A leadership goes to the group's preferred node once nothing else has been left to do for the group for so long:
    /// by then everybody knows the address of a node that is new. Default 2 s.
    pub leader_home_wait: Duration,
    /// A new group is used without members on nodes that are away once it has waited for them for so long and has a
    /// majority. Default 5 s.
    pub founding_wait: Duration,
    /// A node that has been silent for this long is purged, and its members are replaced. Default 60 s.
    pub failure_window: Duration,
    /// How often nodes are asked whether they live; one that has not answered for three times as long is listed among
    /// [`unreachable_nodes`](crate::Fleet::unreachable_nodes). Default 1 s.
    pub ping_interval: Duration,
    /// Whether this node joins again by itself after it was purged while it was away. Else it only says so, and
    /// [`activate`](crate::Fleet::activate) brings it back. Default true.
    pub rejoin: bool,
    /// The share of members and leaders that this node is to have, as a multiple of what a node of weight 1 gets; at most
    /// [`WEIGHT_MAX`](crate::WEIGHT_MAX). Default: what the cluster remembers for the node's name, at first 1.
    pub weight: Option<u32>,
    /// How often the view of the cluster state is refreshed. Default 250 ms.
    pub view_refresh: Duration,
    /// How often it is refreshed while somebody waits for a change of it. Default 25 ms.
    pub view_refresh_urgent: Duration,
    /// How long [`add_group`](crate::Fleet::add_group) waits for the group to serve. Default 30 s.
    pub add_group_wait: Duration,
    /// How long a node tries to become part of a cluster before it gives up with an error that says what it saw. All
    /// nodes of a first start must come within this time; a node of a cluster that is away for longer is to be started
    /// again by whoever supervises it. Default 5 min.
    pub formation_wait: Duration,
    /// How often a node that is not part of a cluster yet logs a warning that says what it sees. Default 5 s.
    pub formation_report_interval: Duration,
    /// How long a client looks for a cluster. Default 30 s.
    pub connect_wait: Duration,
    /// How the fleet's own commands and queries are sent.
    pub call: CallOptions,
    /// Commands and queries of this node's or client's callers that may be under way at a time; one more is refused at
    /// once as overloaded, unless it is [essential](CallOptions::essential). Default 8,192.
    pub calls_max: usize,
    /// Sessions a group, over which commands are spread. Default 4.
    pub sessions: usize,
    /// Commands that wait in one session at a time; more wait for room. Default 16,384.
    pub session_waiting_max: usize,
    /// How often an unformed node says hello to every address it knows. Default 200 ms.
    pub hello_interval: Duration,
    /// How long one call of the formation, or one dial of an address, may take. Default 500 ms.
    pub hello_timeout: Duration,
    /// A node that has not answered a hello for this long is not counted. Default 2 s.
    pub seen_max: Duration,
    /// A proposal to found a cluster that not all have granted after this long is abandoned. Default 5 s.
    pub proposal_max: Duration,
    /// How long the death of a proposer must have been seen before its proposal is given up. Default 2 s.
    pub renounce_after: Duration,
    /// Addresses that are remembered while there is no cluster. Default 256.
    pub addresses_max: usize,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            zone: "default".into(),
            seeds: Vec::new(),
            bootstrap_expect: 1,
            host: HostConfig::default(),
            cluster_group: GroupConfig::default(),
            group_config: GroupConfigMaker::default(),
            cluster_members_max: 7,
            balancing_interval: Duration::from_secs(1),
            adjustments_max: 16,
            snapshots_max: 8,
            snapshot_bytes_per_second_max: None,
            adjustment_wait_max: Duration::from_secs(2),
            leader_home_wait: Duration::from_secs(2),
            founding_wait: Duration::from_secs(5),
            failure_window: Duration::from_secs(60),
            ping_interval: Duration::from_secs(1),
            rejoin: true,
            weight: None,
            view_refresh: Duration::from_millis(250),
            view_refresh_urgent: Duration::from_millis(25),
            add_group_wait: Duration::from_secs(30),
            formation_wait: Duration::from_secs(300),
            formation_report_interval: Duration::from_secs(5),
            connect_wait: Duration::from_secs(30),
            call: CallOptions::default(),
            calls_max: 8_192,
            sessions: 4,
            session_waiting_max: 16_384,
            hello_interval: Duration::from_millis(200),
            hello_timeout: Duration::from_millis(500),
            seen_max: Duration::from_secs(2),
            proposal_max: Duration::from_secs(5),
            renounce_after: Duration::from_secs(2),
            addresses_max: 256,
        }
    }
}

impl FleetConfig {
    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// A sentence that names the setting and its number.
    pub fn validate(&self) -> Result<(), String> {
        check_word("zone", &self.zone).map_err(|error| error.to_string())?;
        for seed in &self.seeds {
            check_word("seed", seed).map_err(|error| error.to_string())?;
        }
        self.cluster_group.validate()?;
        self.call.validate()?;
        if self.call.number.is_some() {
            return Err("number is one command's, and no setting".into());
        }
        if let Some(weight) = self.weight.filter(|weight| !(1..=WEIGHT_MAX).contains(weight)) {
            return Err(format!("weight {weight} is not in the range from 1 to {WEIGHT_MAX}"));
        }
        for (name, count) in [
            ("bootstrap_expect", self.bootstrap_expect),
            ("cluster_members_max", self.cluster_members_max as usize),
            ("adjustments_max", self.adjustments_max),
            ("snapshots_max", self.snapshots_max),
            ("calls_max", self.calls_max),
            ("sessions", self.sessions),
            ("session_waiting_max", self.session_waiting_max),
            ("addresses_max", self.addresses_max),
        ] {
            if count == 0 {
                return Err(format!("{name} is 0"));
            }
        }
        for (name, duration) in [
            ("balancing_interval", self.balancing_interval),
            ("ping_interval", self.ping_interval),
            ("view_refresh", self.view_refresh),
            ("view_refresh_urgent", self.view_refresh_urgent),
            ("hello_interval", self.hello_interval),
            ("hello_timeout", self.hello_timeout),
            ("proposal_max", self.proposal_max),
            ("add_group_wait", self.add_group_wait),
            ("connect_wait", self.connect_wait),
            ("formation_wait", self.formation_wait),
            ("formation_report_interval", self.formation_report_interval),
        ] {
            if duration.is_zero() {
                return Err(format!("{name} is 0"));
            }
        }
        if self.snapshot_bytes_per_second_max == Some(0) {
            return Err("snapshot_bytes_per_second_max is 0: no member would ever be up to date".into());
        }
        self.host.validate().map_err(|error| format!("host: {error}"))?;
        if self.bootstrap_expect > NODES_MAX {
            return Err(format!(
                "bootstrap_expect {} is over the limit of {NODES_MAX}",
                self.bootstrap_expect
            ));
        }
        if self.seeds.len() > self.addresses_max {
            return Err(format!("{} seeds are over addresses_max {}", self.seeds.len(), self.addresses_max));
        }
        if self.failure_window < self.ping_interval.saturating_mul(2) {
            return Err(format!(
                "failure_window {:?} is below twice ping_interval {:?}",
                self.failure_window, self.ping_interval
            ));
        }
        if self.seen_max < self.hello_interval.saturating_mul(2) {
            return Err(format!(
                "seen_max {:?} is below twice hello_interval {:?}",
                self.seen_max, self.hello_interval
            ));
        }
        Ok(())
    }

    /// Says what cannot work for a node that others reach at `address`, if anything; a client needs less.
    pub(crate) fn validate_for_node(&self, address: &str) -> Result<(), String> {
        self.validate()?;
        if address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified()) {
            return Err(format!(
                "this node says that others reach it at {address}, which is no address of a machine; name one that is, \
                 with `advertise` in the settings of its endpoint"
            ));
        }
        let seeds = self.seeds.iter().collect::<BTreeSet<_>>().len();
        if self.bootstrap_expect == 1 && seeds > 1 {
            return Err(format!(
                "bootstrap_expect 1 lets each of {seeds} seeds found a cluster of its own when it does not see the \
                 others; give every node the number of nodes that are started at first"
            ));
        }
        Ok(())
    }

    /// The part of the settings that formation needs.
    pub(crate) fn formation(&self) -> FormationConfig {
        FormationConfig {
            bootstrap_expect: self.bootstrap_expect,
            seeds: self.seeds.clone(),
            cluster_members_max: self.cluster_members_max,
            cluster_group: self.cluster_group.clone(),
            seen_max: self.seen_max,
            proposal_max: self.proposal_max,
            backoff_max: self.seen_max,
            renounce_after: self.renounce_after,
            addresses_max: self.addresses_max,
            refused_max: 1024,
            cluster: self.host.cluster,
        }
    }
}

/// How one command or query is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallOptions {
    /// The longest time for the whole call, every attempt included. Default 5 s.
    pub timeout: Duration,
    /// The longest time for one attempt at one node. Default 500 ms; no more than `retry_interval` at a node without a
    /// connection while others have one. At least 1 ms.
    pub attempt_timeout: Duration,
    /// The most attempts, the first included; the time limits them anyway. At least 1. Default: no limit.
    pub attempts_max: u32,
    /// How often a group may refuse the call as overloaded and is asked again, each time after twice the wait; refused once
    /// more, the caller is told so. [Essential](CallOptions::essential) calls go on until their time is up. Default 3.
    pub refusals_max: u32,
    /// The number of a command, where its caller chooses it; see [`CommandNumber`]. Default: none, one is given.
    pub number: Option<CommandNumber>,
    /// The wait between two attempts where a new leader must first be found. At least 1 ms. Default 50 ms.
    pub retry_interval: Duration,
    /// For how much longer than `timeout` the group keeps the reply for a late attempt, within what the group allows.
    /// Default 60 s.
    pub retry_margin: Duration,
    /// Whether the call goes out even while [`calls_max`](FleetConfig::calls_max) are under way, and is sent again as often
    /// as a busy group refuses it: for what must go on when callers ask too much, as the moves of a layer above. Default
    /// false.
    pub essential: bool,
}

/// The number of a command of the caller's choice: whoever sends a command with it again, from wherever, while the group
/// keeps the reply (`timeout` and `retry_margin` after the first), gets the reply of the first. No two commands of one
/// group may share it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandNumber {
    /// The session; no other caller may use it.
    pub session: SessionId,
    /// The number in the session.
    pub sequence: u64,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_millis(500),
            attempts_max: u32::MAX,
            refusals_max: 3,
            number: None,
            retry_interval: Duration::from_millis(50),
            retry_margin: Duration::from_secs(60),
            essential: false,
        }
    }
}

impl CallOptions {
    /// These options with another time for the whole call.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// These options for a call that goes out however many are under way.
    #[must_use]
    pub fn as_essential(self) -> Self {
        Self { essential: true, ..self }
    }

    /// The same with what a single call cannot work with brought to the least that works: a call has its own end, and
    /// nobody to be told of a setting but its caller, who waits for something else.
    pub(crate) fn within_limits(self) -> Self {
        let least = Duration::from_millis(1);
        Self {
            attempt_timeout: self.attempt_timeout.max(least),
            retry_interval: self.retry_interval.max(least),
            attempts_max: self.attempts_max.max(1),
            ..self
        }
    }

    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// A sentence that names the setting.
    pub fn validate(&self) -> Result<(), String> {
        for (name, duration) in [
            ("timeout", self.timeout),
            ("attempt_timeout", self.attempt_timeout),
            ("retry_interval", self.retry_interval),
        ] {
            if duration.is_zero() {
                return Err(format!("{name} is 0"));
            }
        }
        if self.attempts_max == 0 {
            return Err("attempts_max is 0".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_what_cannot_is_named() {
        assert_eq!(FleetConfig::default().validate(), Ok(()));
        let check = |change: fn(&mut FleetConfig), expected: &str| {
            let mut config = FleetConfig::default();
            change(&mut config);
            assert_eq!(config.validate(), Err(expected.into()));
        };
        check(|config| config.zone = "rack 1".into(), "the zone holds the character ' ' at byte 4");
        check(|config| config.bootstrap_expect = 0, "bootstrap_expect is 0");
        check(|config| config.bootstrap_expect = 5000, "bootstrap_expect 5000 is over the limit of 1024");
        check(
            |config| config.failure_window = Duration::ZERO,
            "failure_window 0ns is below twice ping_interval 1s",
        );
        check(
            |config| config.cluster_group.election_timeout_min_ms = 60,
            "election_timeout_min_ms 60 is below twice heartbeat_ms 50",
        );
        check(|config| config.weight = Some(65), "weight 65 is not in the range from 1 to 64");
        check(
            |config| config.snapshot_bytes_per_second_max = Some(0),
            "snapshot_bytes_per_second_max is 0: no member would ever be up to date",
        );
        check(|config| config.host.snapshots_incoming_max = 0, "host: snapshots_incoming_max 0 is below 1");
        check(|config| config.call.retry_interval = Duration::ZERO, "retry_interval is 0");
        check(|config| config.call.timeout = Duration::ZERO, "timeout is 0");
        let number = CommandNumber { session: rafted_value::SessionId::new(1, 2), sequence: 3 };
        let check_number = FleetConfig {
            call: CallOptions { number: Some(number), ..CallOptions::default() },
            ..FleetConfig::default()
        };
        assert_eq!(check_number.validate(), Err("number is one command's, and no setting".into()));
        check(|config| config.ping_interval = Duration::ZERO, "ping_interval is 0");
        check(|config| config.balancing_interval = Duration::ZERO, "balancing_interval is 0");
        check(|config| config.proposal_max = Duration::ZERO, "proposal_max is 0");
        check(|config| config.add_group_wait = Duration::ZERO, "add_group_wait is 0");
        check(|config| config.host.loops = 0, "host: loops 0 is below 1");
        check(|config| config.host.loops = 5000, "host: loops 5000 is over the limit of 256");
        check(
            |config| config.host.inbox_max = usize::MAX,
            "host: inbox_max 18446744073709551615 is over the limit of 1048576",
        );
        check(|config| config.host.group_waiting_max = 0, "host: group_waiting_max 0 is below 1");
        check(
            |config| config.host.loop_silence_max = Duration::from_millis(300),
            "host: loop_silence_max 300ms is below 400ms",
        );
        check(|config| config.host.store.batch_bytes = 0, "host: store: batch_bytes 0 is below 1");
        check(
            |config| config.cluster_group.log_bytes_min = u64::MAX,
            "log_bytes_min 18446744073709551615 is over the limit of 17179869184",
        );
        check(
            |config| config.seeds = vec!["a:1".into(), "b 1".into()],
            "the seed holds the character ' ' at byte 1",
        );
    }

    /// Three nodes that each expect only themselves were once three clusters when they did not see each other at first.
    #[test]
    fn one_expected_node_with_several_seeds_is_refused() {
        let seeds = |seeds: &[&str], bootstrap_expect: usize| FleetConfig {
            seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
            bootstrap_expect,
            ..FleetConfig::default()
        };
        let error = seeds(&["a:1", "b:1", "c:1"], 1).validate_for_node("a:1").unwrap_err();
        assert!(
            error.starts_with("bootstrap_expect 1 lets each of 3 seeds found a cluster of its own"),
            "{error}"
        );
        for config in [seeds(&["a:1", "b:1"], 2), seeds(&["a:1", "a:1"], 1), seeds(&[], 1)] {
            assert_eq!(config.validate_for_node("a:1"), Ok(()));
        }
        assert_eq!(seeds(&["a:1", "b:1", "c:1"], 1).validate(), Ok(()), "a client expects nobody");
    }

    #[test]
    fn an_address_that_no_machine_has_is_refused() {
        let config = FleetConfig::default();
        for address in ["0.0.0.0:7000", "[::]:7000"] {
            let error = config.validate_for_node(address).unwrap_err();
            assert!(error.contains(address) && error.contains("advertise"), "{error}");
        }
        for address in ["127.0.0.1:7000", "node-1.example.org:7000", "memory:node-1"] {
            assert_eq!(config.validate_for_node(address), Ok(()));
        }
    }
}
