//! The port through which nodes talk: casts and calls between nodes, on ordered lanes, to named services.
//!
//! The port is owned here, by the layer that needs it. Its implementations are QUIC (the module `quic`, feature `quic`),
//! the nodes of one process ([`memory`]), and the simulated network (feature `sim`), which knows delay, loss, duplication, reordering and partition.

pub mod memory;
#[cfg(feature = "quic")]
pub mod quic;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::env::BoxFuture;
use crate::id::NodeId;

pub(crate) use watch::EVENTS_MAX;
pub use watch::{DownReason, Missed, PeerChange, PeerEvent, PeerWatch};

/// One of the lanes between two nodes; messages on one lane keep their order while the connection lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Lane {
    /// Raft's own messages: small and urgent.
    Control,
    /// Calls of clients and of the layers above.
    Normal,
    /// Snapshots: large, and never in the way of the others.
    Bulk,
}

/// Who handles a message on the node that receives it.
///
/// Numbers below 16 are rafted-value's, 16 to 31 raft-fleet's, 32 to 47 raft-kv's, 48 to 63 dist-agent's; the rest is
/// the user's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ServiceId(pub u16);

/// Which cluster a node belongs to; drawn at random when the cluster is formed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who answers at an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerInfo {
    /// The node's id in its present life.
    pub node: NodeId,
    /// The name its operator gave it, as its certificate says.
    pub name: String,
    /// Where others reach it.
    pub address: String,
    /// The cluster it belongs to, where it knows, as it says when it is dialled. A transport of one process, where there is
    /// one cluster only, does not tell.
    pub cluster: Option<ClusterId>,
}

/// Casts and calls between the nodes of a cluster.
///
/// A message to the own node is delivered as well, without touching the network.
pub trait Transport: Send + Sync + 'static {
    /// This node, as others see it.
    fn local(&self) -> PeerInfo;

    /// From now on only nodes of this cluster, or of none yet, are let in.
    fn set_cluster(&self, cluster: ClusterId);

    /// Where to dial `node`. A later address replaces an earlier one.
    fn set_address(&self, node: NodeId, address: &str);

    /// Queues a message and returns at once. It arrives at most once, or never: a peer that is gone loses it without
    /// a word.
    ///
    /// # Errors
    ///
    /// When it was surely not queued.
    fn cast(&self, to: NodeId, lane: Lane, service: ServiceId, payload: Bytes) -> Result<(), SendError>;

    /// Sends a message and waits for its reply.
    ///
    /// The message is handled at most once, also where it is late: a handler that refuses one need not remember it, and
    /// whoever was told that it did nothing may rely on that.
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        service: ServiceId,
        payload: Bytes,
        limit: Duration,
    ) -> BoxFuture<Result<Bytes, CallError>>;

    /// Dials an address and learns who is there; the connection serves later messages to that node.
    fn discover(&self, address: &str, limit: Duration) -> BoxFuture<Result<PeerInfo, CallError>>;

    /// From now on `handler` receives what is sent to `service` on this node. A later handler replaces an earlier one.
    fn register(&self, service: ServiceId, handler: Arc<dyn Handler>);

    /// Whether a connection to `node` stands now. A hint: it may break at any moment, and safety never leans on it.
    fn is_connected(&self, node: NodeId) -> bool;

    /// From now on this node sends no more bytes a second than these on its [bulk](Lane::Bulk) lanes, to all peers
    /// together; false where this transport knows no such limit, as the default does not, or for a rate of zero.
    fn limit_bulk(&self, bytes_per_second: u64) -> bool {
        let _ = bytes_per_second;
        false
    }

    /// What becomes of the peers from now on: connections that stand, fall silent and end, with the reason. Peers that
    /// are connected already are not repeated.
    ///
    /// Events wait in a bounded queue; a slow watcher is told how many it missed. The default never yields.
    fn watch_peers(&self) -> PeerWatch {
        PeerWatch::never()
    }
}

/// Receives the messages to one service. It is called on the transport's own task and must not block.
pub trait Handler: Send + Sync + 'static {
    /// A message that wants no reply.
    fn on_cast(&self, from: NodeId, payload: Bytes);

    /// A message that wants a reply; dropping `reply` tells the caller at once that none will come.
    fn on_call(&self, from: NodeId, payload: Bytes, reply: Reply);
}

/// Answers one call, from any task and at any time.
pub struct Reply(Box<dyn FnOnce(Bytes) + Send>);

impl Reply {
    /// A reply that is delivered by `send`; for implementations of [`Transport`].
    pub fn new(send: impl FnOnce(Bytes) + Send + 'static) -> Self {
        Self(Box::new(send))
    }

    /// Answers the call.
    pub fn send(self, payload: Bytes) {
        (self.0)(payload);
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// Why a cast was not queued.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No address is known for the node, or the last dial found nobody, or somebody else, there.
    #[error("node {node} is not reachable: {reason}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What stands in the way.
        reason: String,
    },
    /// The queue to the node is full.
    #[error("the queue to node {node} is full")]
    QueueFull {
        /// The node.
        node: NodeId,
    },
    /// The message is larger than the lane allows.
    #[error("a message of {bytes} bytes is over the limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
}

/// Why a call has no reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The message was surely not delivered.
    #[error("not sent: {0}")]
    NotSent(#[from] SendError),
    /// The node has no such service: the message was surely not handled.
    #[error("node {node} has no service {}", service.0)]
    NoService {
        /// The node.
        node: NodeId,
        /// The service.
        service: ServiceId,
    },
    /// The address could not be dialled, or whoever is there refused us.
    #[error("no peer at {address}: {reason}")]
    NoPeer {
        /// The address.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The connection broke, or the handler gave up, while the call was under way; it may have been handled.
    #[error("lost the connection to node {node} while waiting for its reply")]
    Lost {
        /// The node.
        node: NodeId,
    },
    /// No reply came in time; it may have been handled.
    #[error("no reply in {limit_ms} ms")]
    Timeout {
        /// How long the caller waited.
        limit_ms: u64,
    },
}

impl CallError {
    /// Whether the message was surely not handled by anyone.
    pub fn surely_not_handled(&self) -> bool {
        match self {
            CallError::NotSent(_) | CallError::NoService { .. } | CallError::NoPeer { .. } => true,
            CallError::Lost { .. } | CallError::Timeout { .. } => false,
        }
    }
}
