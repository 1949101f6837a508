//! How many bytes the cluster state can come to have, so that it always fits the message in which nodes tell each other.
//!
//! A sum of lengths, and never below what the state really takes up: it is part of the replicated state who is refused, so
//! that all members must come to the same number, and it is cheap. To encode the state for each group that is added would
//! cost as much as all groups that are there.
//!
//! A removed group takes up more than one that is listed: all nodes are to say that they hold no member of it, and its name
//! and those who keep what it had are there too. The first is over within moments, and where many are removed at once the rest
//! has to wait for it; the second stays, and so each listed group counts as what it leaves.

use std::collections::BTreeSet;

use rafted_value::{Durability, GroupConfig};

use super::command::ClusterRefusal;
use super::{
    CLUSTER_STATE_BYTES_MAX, ClusterState, GroupEntry, GroupState, KeptGroup, NodeEntry, RemovedGroup,
};
use crate::group_name::{GroupName, NAME_BYTES_MAX};

/// The most that a number of 64 bits takes up; ids of nodes, which are drawn, take up nearly that.
const NUMBER_BYTES: u64 = 10;
/// What is there once: the version, the cluster, the revision, and the lengths of the tables.
const FIXED_BYTES: u64 = 160;
/// Two nodes, or one and a life, and a number: a suspicion, or a life.
const TRIPLE_BYTES: u64 = 3 * NUMBER_BYTES;
/// A node that keeps what a removed group had, and how new that is.
const HOLDER_BYTES: u64 = 2 * NUMBER_BYTES;
/// Ids of groups count from 1: those of 34 billion groups fit.
const GROUP_ID_BYTES: u64 = 5;
/// Groups are removed while the state has no more bytes than this beyond those that it may have.
const REMOVAL_BYTES: u64 = 7 << 16;
/// The longest name with its length.
const NAME_BYTES: u64 = NAME_BYTES_MAX as u64 + 2;

impl ClusterState {
    /// Refuses what would take up so many bytes more than there may be.
    pub(super) fn check_room(&self, more: u64) -> Result<(), ClusterRefusal> {
        self.check_bytes(more, CLUSTER_STATE_BYTES_MAX)
    }

    /// Refuses to remove a group while too many are waited for that were removed before; one can always be removed, or there
    /// would be no way back from a state that has grown in other ways, as by nodes that joined.
    pub(super) fn check_room_to_remove(
        &self,
        name: &GroupName,
        entry: &GroupEntry,
    ) -> Result<(), ClusterRefusal> {
        if self.removed.is_empty() {
            return Ok(());
        }
        let GroupEntry { data, replicas, config, state, .. } = entry;
        let nodes = self.nodes.len() as u64;
        let leaves = *state == GroupState::Running && config.durability != Durability::Memory;
        let kept = if leaves { kept_bytes(name, data, nodes) } else { 0 };
        let before = self.group_bytes(name, data, *replicas, config, self.pins.get(name));
        let more = (removed_bytes(name, nodes) + kept).saturating_sub(before);
        self.check_bytes(more, CLUSTER_STATE_BYTES_MAX + REMOVAL_BYTES)
    }

    fn check_bytes(&self, more: u64, limit_bytes: u64) -> Result<(), ClusterRefusal> {
        if more == 0 || self.about_bytes_max().saturating_add(more) <= limit_bytes {
            return Ok(());
        }
        let bytes = self.bytes_max().saturating_add(more);
        if bytes <= limit_bytes {
            return Ok(());
        }
        Err(ClusterRefusal::TooManyBytes { bytes, limit_bytes })
    }

    /// At least as many bytes as the state has, with what its groups leave for good and what is still to be said of those that
    /// were removed.
    pub(super) fn bytes_max(&self) -> u64 {
        let groups = self.groups.iter().map(|(name, entry)| {
            let GroupEntry { data, replicas, config, .. } = entry;
            self.group_bytes(name, data, *replicas, config, self.pins.get(name))
        });
        let removed = self.removed.values().map(|removed| removed_bytes(&removed.name, pending(removed)));
        let kept = self.kept.iter().map(|(name, kept)| kept_bytes(name, &kept.data, self.holders_max(kept)));
        let nodes = self.nodes.values().map(node_bytes);
        self.bytes_of_nodes() + nodes.chain(groups).chain(removed).chain(kept).sum::<u64>()
    }

    /// No less than that, from how many entries there are, as if all names were as long as they can be.
    fn about_bytes_max(&self) -> u64 {
        let nodes = self.nodes.len() as u64;
        let group = removed_bytes_of(NAME_BYTES, nodes) + kept_bytes_of(NAME_BYTES, NAME_BYTES, nodes);
        let groups = (self.groups.len() + self.removed.len() + self.kept.len()) as u64;
        // Those that are gone may still keep what they had.
        let holders = self.kept.values().map(|kept| kept.holders.len() as u64).sum::<u64>();
        let pins = self.pins.iter().map(|(name, zones)| pin_bytes(name, zones)).sum::<u64>();
        self.bytes_of_nodes() + nodes * 4 * NAME_BYTES + groups * group + holders * HOLDER_BYTES + pins
    }

    /// What there is of nodes besides their entries.
    fn bytes_of_nodes(&self) -> u64 {
        let weights = self.weights.len() as u64 * (NAME_BYTES + NUMBER_BYTES);
        FIXED_BYTES + weights + (self.suspects.len() + self.lives.len()) as u64 * TRIPLE_BYTES
    }

    /// What a listed group takes up, or what it leaves once it was removed, whichever is more.
    pub(super) fn group_bytes(
        &self,
        name: &GroupName,
        data: &str,
        replicas: u32,
        config: &GroupConfig,
        zones: Option<&BTreeSet<String>>,
    ) -> u64 {
        let nodes = self.nodes.len() as u64;
        let pin = zones.filter(|zones| !zones.is_empty()).map_or(0, |zones| pin_bytes(name, zones));
        let state = 1 + NUMBER_BYTES;
        let around = GROUP_ID_BYTES + number(replicas.into()) + config_bytes(config) + state;
        let listed = text(name.as_str()) + text(data) + around + pin;
        let kept = match config.durability {
            Durability::Memory => 0,
            _ => kept_bytes(name, data, nodes.min(replicas.into())),
        };
        listed.max(kept)
    }

    /// How many bytes more a group takes up once it is pinned to these zones.
    pub(super) fn pin_more_bytes(&self, name: &GroupName, zones: &BTreeSet<String>) -> u64 {
        let Some(GroupEntry { data, replicas, config, .. }) = self.groups.get(name) else { return 0 };
        let bytes = |zones| self.group_bytes(name, data, *replicas, config, zones);
        bytes(Some(zones)).saturating_sub(bytes(self.pins.get(name)))
    }

    /// Those that keep what a removed group had, and those that may come to.
    fn holders_max(&self, kept: &KeptGroup) -> u64 {
        let pending = self.removed.get(&kept.group).map_or(0, pending);
        kept.holders.len() as u64 + pending
    }
}

/// What the zones of a group take up.
fn pin_bytes(name: &GroupName, zones: &BTreeSet<String>) -> u64 {
    text(name.as_str()) + number(zones.len() as u64) + zones.iter().map(|zone| text(zone)).sum::<u64>()
}

fn pending(removed: &RemovedGroup) -> u64 {
    removed.pending.len() as u64
}

fn node_bytes(node: &NodeEntry) -> u64 {
    NUMBER_BYTES + text(&node.name) + text(&node.zone) + text(&node.address) + 1
}

fn removed_bytes(name: &GroupName, pending: u64) -> u64 {
    removed_bytes_of(text(name.as_str()), pending)
}

fn removed_bytes_of(name: u64, pending: u64) -> u64 {
    GROUP_ID_BYTES + name + number(pending) + pending * NUMBER_BYTES
}

fn kept_bytes(name: &GroupName, data: &str, holders: u64) -> u64 {
    kept_bytes_of(text(name.as_str()), text(data), holders)
}

fn kept_bytes_of(name: u64, data: u64, holders: u64) -> u64 {
    let restored_as = 1 + GROUP_ID_BYTES;
    name + GROUP_ID_BYTES + data + number(holders) + holders * HOLDER_BYTES + restored_as
}

fn config_bytes(config: &GroupConfig) -> u64 {
    let GroupConfig {
        heartbeat_ms,
        promise_ms,
        clock_drift_margin_ms,
        election_timeout_min_ms,
        election_timeout_max_ms,
        session_replies_max,
        retry_window_max_ms,
        command_bytes_max,
        log_expansion_factor,
        log_bytes_min,
        durability: _,
    } = *config;
    let short = [
        heartbeat_ms,
        promise_ms,
        clock_drift_margin_ms,
        election_timeout_min_ms,
        election_timeout_max_ms,
        log_expansion_factor,
    ];
    let long = [session_replies_max, retry_window_max_ms, command_bytes_max, log_bytes_min];
    1 + short.into_iter().map(u64::from).chain(long).map(number).sum::<u64>()
}

/// A text with its length.
fn text(text: &str) -> u64 {
    let bytes = text.len() as u64;
    number(bytes) + bytes
}

/// A number, seven bits in a byte.
fn number(number: u64) -> u64 {
    u64::from((u64::BITS - number.leading_zeros()).max(1).div_ceil(7))
}
