//! What becomes of the peers of a node: a bounded stream of events, for whoever wants to act before a timeout does.
//!
//! It is a hint, in both directions: a peer that is reported down may be alive behind a broken network, and one that
//! is not reported may be dead. Safety never leans on it; it only lets a node stop waiting for somebody who is gone.

use std::pin::Pin;

use futures_util::stream::{self, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::id::NodeId;

/// Something became of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerEvent {
    /// The peer.
    pub node: NodeId,
    /// What became of it.
    pub change: PeerChange,
}

/// What became of a peer, as far as its node can be seen from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PeerChange {
    /// A connection stands, or one that was silent is heard again.
    Up,
    /// It has missed several beats; the connection still stands. Nothing more than a suspicion.
    Suspect,
    /// The connection has ended.
    Down(DownReason),
}

/// Why a peer is down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DownReason {
    /// Its process has ended: its system says so, or another process has taken its place.
    Died,
    /// It said goodbye.
    Left,
    /// Nothing was heard of it for too long.
    Silent,
    /// The connection ended in another way: one side refused or forgot the other, or it broke.
    Disconnected,
}

impl DownReason {
    /// Whether the process behind the node has ended, so that nothing of it is under way any more.
    pub fn is_final(self) -> bool {
        matches!(self, DownReason::Died | DownReason::Left)
    }
}

/// So many events were missed because they were not taken in time; what they said is lost.
///
/// Whoever needs to know asks [`Transport::is_connected`](super::Transport::is_connected) about each peer that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{events} events of peers were missed")]
pub struct Missed {
    /// How many.
    pub events: u64,
}

/// The events of all peers from the moment of [`Transport::watch_peers`](super::Transport::watch_peers).
pub struct PeerWatch(Pin<Box<dyn Stream<Item = Result<PeerEvent, Missed>> + Send>>);

impl PeerWatch {
    /// A watch that never yields, of a transport that does not know.
    pub fn never() -> Self {
        Self::new(stream::pending())
    }

    /// A watch of these events; for implementations of [`Transport`](super::Transport).
    pub fn new(events: impl Stream<Item = Result<PeerEvent, Missed>> + Send + 'static) -> Self {
        Self(Box::pin(events))
    }

    /// A watch of what is broadcast; it ends with the last sender.
    pub(crate) fn of_broadcast(events: broadcast::Receiver<PeerEvent>) -> Self {
        Self::new(stream::unfold(events, |mut events| async move {
            match events.recv().await {
                Ok(event) => Some((Ok(event), events)),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    Some((Err(Missed { events: missed }), events))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        }))
    }

    /// The next event; `None` when the transport has closed.
    pub async fn next(&mut self) -> Option<Result<PeerEvent, Missed>> {
        self.0.next().await
    }
}

impl std::fmt::Debug for PeerWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerWatch")
    }
}

/// How many events wait for a slow watcher; it misses the oldest ones past that.
pub(crate) const EVENTS_MAX: usize = 1024;
