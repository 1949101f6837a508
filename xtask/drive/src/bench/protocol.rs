//! What the bench and its node processes say to each other, a JSON line each.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::BoxError;

/// What a load does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Commands through the log.
    Command,
    /// Linearizable queries, answered under the lease.
    Query,
}

/// An order to a node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Found these groups here and add a voter on every other node; without a lease, each query takes a round.
    Found { first: u64, groups: u64, lease: bool },
    /// Found a group here whose state, or whose log where it is `carried`, has so many bytes, with a voter on every other
    /// node. It takes no snapshot until it is told to; one that is `held` is encoded in its loop.
    FoundLarge { group: u64, held: bool, bytes: u64, carried: bool },
    /// Have all members of a large group take a snapshot, and wait for the one here.
    Snapshot { group: u64 },
    /// Put a new member of a large group in the place of the one on a node, and wait until it has everything and votes.
    Renew { group: u64, node: u64 },
    /// Have the member on a node lead a group, if it is led here; say how it stands then.
    HandOver { group: u64, to: u64 },
    /// Drive these groups, which `leader` leads; through the network if that is another node.
    Load { first: u64, groups: u64, clients: usize, seconds: f64, kind: Kind, leader: u64 },
    /// Append to a file beside the node's store and sync it, again and again.
    Sync { seconds: f64 },
    /// Send commands to a group led by `leader`, which is about to end, until another leader has answered some.
    Outlast { group: u64, leader: u64 },
    /// Say who leads a group, and whether all its members are there and have everything.
    Status { group: u64 },
    /// Measure the bare round trip to another node's echo.
    Echo { to: SocketAddr, seconds: f64 },
    /// Give each of these agents its first command.
    Activate { first: u64, agents: u64, clients: usize },
    /// Call agents at random, wherever they are.
    Call { agents: u64, clients: usize, seconds: f64, kind: Kind },
    /// Let the first of the agents have a timeout at each of so many ticks.
    Ticks { agents: u64, ticks: u32 },
    /// Say what this process has used so far.
    Usage,
    /// What only a node of a fleet can do.
    Fleet(FleetOrder),
    /// Take part in a store, or do something with it.
    Kv(KvOrder),
}

/// An order to a node of a fleet.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FleetOrder {
    /// Add so many groups of three members, and wait until each serves.
    Add { groups: usize },
    /// Wait until all members and leaders are where they should be.
    Settle,
    /// Send commands to so many groups by name.
    Load { groups: usize, clients: usize, seconds: f64 },
    /// Send commands to the member of a group on this node, past the fleet.
    Direct { group: usize, clients: usize, seconds: f64 },
    /// Say which node leads a group.
    Leader { group: usize },
    /// Send one command after the other to a group, and measure the longest time between two replies.
    Gap { group: usize, seconds: f64 },
    /// Hold no members any more, and wait until none is left.
    Drain,
    /// Hold members again.
    Activate,
    /// Say how many bytes were sent to other nodes so far.
    Sent,
}

/// An order to a node of a store of bytes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KvOrder {
    /// Form the store with all other nodes.
    Start {},
    /// Make a keyspace with so many shards.
    Register { name: String, shards: u32 },
    /// Give so many keys a value.
    Fill { name: String, keys: u64, bytes: usize },
    /// Drive a keyspace.
    Load(KvLoad),
    /// Drive a keyspace until its first shard is split, or merged into its neighbour.
    LoadAndMove { load: KvLoad, merge: bool },
}

/// How a keyspace is driven.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct KvLoad {
    pub(crate) name: String,
    pub(crate) clients: usize,
    pub(crate) seconds: f64,
    pub(crate) kind: Kind,
    pub(crate) keys: u64,
    pub(crate) bytes: usize,
    /// Straight to the groups, past the store.
    pub(crate) bare: bool,
}

/// A node's answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Listening { echo: SocketAddr },
    Founded,
    Loaded(Loaded),
    Echoed { p50_us: f64 },
    Synced { per_second: f64 },
    Took { seconds: f64 },
    Outlasted { outage_ms: f64 },
    KvLoaded { loaded: Loaded, moved: Option<f64> },
    Status(Standing),
    Usage(Usage),
    Led { node: u64 },
    Gap { longest_ms: f64 },
    Sent { bytes: u64 },
    Failed { reason: String },
}

impl Answer {
    /// What a load measured.
    pub(crate) fn loaded(self) -> Result<Loaded, BoxError> {
        match self {
            Answer::Loaded(loaded) => Ok(loaded),
            other => Err(format!("a load was answered by {other:?}").into()),
        }
    }
}

/// What a load measured.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) operations: u64,
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// The longest that anybody waited: clients that wait for their answer ask nothing, and a standstill of all of them
    /// shows in no percentile.
    pub(crate) max_us: f64,
}

impl Loaded {
    /// What operations that took these times, in nanoseconds, and those that failed come to.
    pub(crate) fn of(latencies: &Histogram<u64>, errors: u64, time: Duration) -> Self {
        let us = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            operations: latencies.len(),
            errors,
            seconds: time.as_secs_f64(),
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: us(1.0),
        }
    }
}

/// How a group stands, as one member sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Whether the member that was asked leads, and serves.
    pub(crate) leads: bool,
    /// Whether it knows every member to be near and to have all that is committed; of a node of agents, in all groups that
    /// it leads.
    pub(crate) whole: bool,
    /// How many groups a node of agents leads, and how many there are beside the cluster's own.
    #[serde(default)]
    pub(crate) led: u64,
    #[serde(default)]
    pub(crate) groups: u64,
    /// Bytes that a node of agents keeps in logs, and in snapshots that are in memory.
    #[serde(default)]
    pub(crate) log_bytes: u64,
    #[serde(default)]
    pub(crate) snapshot_bytes: u64,
}

/// What a process has used.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    /// The most that was ever resident.
    pub(crate) resident_peak_bytes: u64,
}
