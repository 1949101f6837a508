//! What the bench and its node processes say to each other, a JSON line each.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

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
    /// Found these groups here and add a voter on every other node.
    Found { first: u64, groups: u64 },
    /// Drive these groups, which this node leads.
    Load { first: u64, groups: u64, clients: usize, seconds: f64, kind: Kind },
    /// Measure the bare round trip to another node's echo.
    Echo { to: SocketAddr, seconds: f64 },
    /// Say what this process has used so far.
    Usage,
    /// End.
    Quit,
}

/// A node's answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Listening { echo: SocketAddr },
    Founded,
    Loaded(Loaded),
    Echoed { p50_us: f64 },
    Usage(Usage),
    Failed { reason: String },
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
}

/// What a process has used.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
}
