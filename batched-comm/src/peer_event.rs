//! What becomes of the peers, told to whoever watches: a bounded stream of events.

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::id::NodeId;
use crate::refusal::Refusal;

/// Something became of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct PeerEvent {
    /// The peer.
    pub node: NodeId,
    /// What became of it.
    pub change: PeerChange,
}

/// What became of a peer, as far as it can be seen from here.
///
/// Each peer's events alternate: `Up` first, then any number of `Suspect` and `Up` in turn, `Down` last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub enum PeerChange {
    /// A connection is established, or a suspected peer was heard again.
    Up,
    /// It has missed several beats. Its connection still stands.
    Suspect,
    /// Its connection has ended.
    Down(DownReason),
}

/// How the connection to a peer ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[non_exhaustive]
pub enum DownReason {
    /// The peer's system closed its end of the lifeline: the process has ended, however it ended.
    Died,
    /// Another process has taken its place: the same node restarted, or a new one where it lived.
    Replaced,
    /// It said goodbye.
    Left,
    /// Nothing came from it for the whole idle timeout.
    Silent,
    /// One of the two did not want the other any more.
    Refused(Refusal),
    /// This node has forgotten the peer.
    Forgotten,
    /// The connection broke in another way.
    Broken,
}

/// Where events come from.
pub(crate) struct PeerEventSource {
    /// `None` once the endpoint is closed.
    sender: Mutex<Option<broadcast::Sender<PeerEvent>>>,
    events_max: usize,
}

impl PeerEventSource {
    pub(crate) fn new(events_max: usize) -> PeerEventSource {
        PeerEventSource { sender: Mutex::new(Some(broadcast::channel(events_max).0)), events_max }
    }

    /// Tells whoever watches.
    pub(crate) fn tell(&self, node: NodeId, change: PeerChange) {
        if let Some(sender) = &*self.sender.lock() {
            // Nobody may be watching.
            let _ = sender.send(PeerEvent { node, change });
        }
    }

    /// A watch of what is told from now on.
    pub(crate) fn watch(&self) -> PeerEvents {
        match &*self.sender.lock() {
            Some(sender) => PeerEvents(sender.subscribe()),
            None => PeerEvents(broadcast::channel(self.events_max).1),
        }
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.sender.lock().take();
    }
}

/// Events were missed because they were not taken in time: the oldest ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{events} events of peers were missed")]
pub struct EventsMissed {
    /// How many.
    pub events: u64,
}

/// The events of all peers since [`Endpoint::watch_peers`](crate::Endpoint::watch_peers).
#[derive(Debug)]
pub struct PeerEvents(broadcast::Receiver<PeerEvent>);

impl PeerEvents {
    /// The next event; `None` once the endpoint is closed.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// When this watch was too slow and events were lost to it: ask
    /// [`Endpoint::connected`](crate::Endpoint::connected) for what holds now.
    pub async fn next(&mut self) -> Option<Result<PeerEvent, EventsMissed>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(events)) => Some(Err(EventsMissed { events })),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_watch_is_told_how_much_it_missed_and_goes_on_with_the_rest() {
        let source = PeerEventSource::new(4);
        let mut events = source.watch();
        for node in 0..10 {
            source.tell(NodeId(node), PeerChange::Up);
        }
        assert_eq!(events.next().await, Some(Err(EventsMissed { events: 6 })));
        let next = events.next().await;
        assert_eq!(next, Some(Ok(PeerEvent { node: NodeId(6), change: PeerChange::Up })));
        source.close();
        for _ in 7..10 {
            assert!(events.next().await.is_some());
        }
        assert_eq!(events.next().await, None);
        assert_eq!(source.watch().next().await, None);
    }
}
