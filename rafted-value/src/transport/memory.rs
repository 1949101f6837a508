//! Nodes of one process that talk without a network: for programs of one process, examples and tests in real time.
//!
//! Messages are handed over where they are sent, in order and without loss. Faults belong to the simulation.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{broadcast, oneshot};

use super::{
    CallError, ClusterId, DownReason, EVENTS_MAX, Handler, Lane, PeerChange, PeerEvent, PeerInfo, PeerWatch,
    Reply, SendError, ServiceId, Transport,
};
use crate::env::BoxFuture;
use crate::id::NodeId;

/// Where the nodes of one process find each other.
#[derive(Clone)]
pub struct MemoryNetwork {
    nodes: Arc<RwLock<BTreeMap<NodeId, Weak<MemoryTransport>>>>,
    events: broadcast::Sender<PeerEvent>,
}

/// One node's place on a [`MemoryNetwork`]; dropped, it is gone from there.
pub struct MemoryTransport {
    network: MemoryNetwork,
    local: PeerInfo,
    handlers: RwLock<BTreeMap<ServiceId, Arc<dyn Handler>>>,
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self { nodes: Arc::default(), events: broadcast::channel(EVENTS_MAX).0 }
    }
}

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells the watchers of all nodes.
    fn tell(&self, node: NodeId, change: PeerChange) {
        // Nobody may be watching.
        let _ = self.events.send(PeerEvent { node, change });
    }

    /// Adds a node. Its address is `memory:` and its name; names should differ.
    pub fn join(&self, node: NodeId, name: impl Into<String>) -> Arc<MemoryTransport> {
        let name = name.into();
        let local = PeerInfo { node, address: format!("memory:{name}"), name, cluster: None };
        let transport =
            Arc::new(MemoryTransport { network: self.clone(), local, handlers: RwLock::default() });
        self.nodes.write().insert(node, Arc::downgrade(&transport));
        self.tell(node, PeerChange::Up);
        transport
    }

    fn find(&self, node: NodeId) -> Result<Arc<MemoryTransport>, SendError> {
        let found = self.nodes.read().get(&node).and_then(Weak::upgrade);
        found.ok_or_else(|| SendError::Unreachable { node, reason: "it is not in this process".into() })
    }
}

impl MemoryTransport {
    fn handler(&self, service: ServiceId) -> Option<Arc<dyn Handler>> {
        self.handlers.read().get(&service).cloned()
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        let mut nodes = self.network.nodes.write();
        // A later node of the same id is none of ours.
        if nodes.get(&self.local.node).is_some_and(|node| node.strong_count() == 0) {
            nodes.remove(&self.local.node);
            drop(nodes);
            self.network.tell(self.local.node, PeerChange::Down(DownReason::Left));
        }
    }
}

impl Transport for MemoryTransport {
    fn local(&self) -> PeerInfo {
        self.local.clone()
    }

    /// One process is one cluster: there is nobody to keep out.
    fn set_cluster(&self, _: ClusterId) {}

    /// Nodes are found by their ids alone.
    fn set_address(&self, _: NodeId, _: &str) {}

    fn cast(&self, to: NodeId, _: Lane, service: ServiceId, payload: Bytes) -> Result<(), SendError> {
        if let Some(handler) = self.network.find(to)?.handler(service) {
            handler.on_cast(self.local.node, payload);
        }
        Ok(())
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a transport in real time, which stands behind the door itself"
    )]
    fn call(
        &self,
        to: NodeId,
        _: Lane,
        service: ServiceId,
        payload: Bytes,
        limit: Duration,
    ) -> BoxFuture<Result<Bytes, CallError>> {
        let (from, network) = (self.local.node, self.network.clone());
        Box::pin(async move {
            let handler = network.find(to)?.handler(service);
            let handler = handler.ok_or(CallError::NoService { node: to, service })?;
            let (sender, receiver) = oneshot::channel();
            let reply = Reply::new(move |payload| {
                // The caller may have gone.
                let _ = sender.send(payload);
            });
            handler.on_call(from, payload, reply);
            match tokio::time::timeout(limit, receiver).await {
                Ok(Ok(payload)) => Ok(payload),
                Ok(Err(_)) => Err(CallError::Lost { node: to }),
                Err(_) => {
                    Err(CallError::Timeout { limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) })
                }
            }
        })
    }

    fn discover(&self, address: &str, _: Duration) -> BoxFuture<Result<PeerInfo, CallError>> {
        // Whoever drops the last handle of a node takes it out of the table: not while that is read.
        let alive: Vec<_> = self.network.nodes.read().values().filter_map(Weak::upgrade).collect();
        let found = alive.iter().map(|node| &node.local).find(|peer| peer.address == address).cloned();
        let address = address.to_owned();
        let missing = CallError::NoPeer { address, reason: "it is not in this process".into() };
        Box::pin(async move { found.ok_or(missing) })
    }

    fn register(&self, service: ServiceId, handler: Arc<dyn Handler>) {
        self.handlers.write().insert(service, handler);
    }

    fn is_connected(&self, node: NodeId) -> bool {
        self.network.find(node).is_ok()
    }

    /// All nodes are connected as long as they are there; the own one is told of as well.
    fn watch_peers(&self) -> PeerWatch {
        PeerWatch::of_broadcast(self.network.events.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// How often a node leaves while it is looked at.
    const ROUNDS: usize = 100;
    /// Long enough to be copied for a while.
    const NAME_BYTES: usize = 1 << 20;

    /// Nodes join, and leave the moment somebody who looks for an address holds them as well.
    fn join_and_leave() {
        let network = MemoryNetwork::new();
        let is_over = Arc::new(AtomicBool::new(false));
        let (seeker, seeks_on) = (network.join(NodeId(1), "node-1"), is_over.clone());
        let searches = thread::Builder::new().spawn(move || {
            while !seeks_on.load(Ordering::Relaxed) {
                drop(seeker.discover("memory:nobody", Duration::ZERO));
            }
        });
        for _ in 0..ROUNDS {
            let node = network.join(NodeId(2), "x".repeat(NAME_BYTES));
            while Arc::strong_count(&node) == 1 {
                thread::yield_now();
            }
            drop(node);
        }
        is_over.store(true, Ordering::Relaxed);
        searches.expect("there is a thread for it").join().expect("it does not panic");
        assert!(network.nodes.read().is_empty());
    }

    /// A search once dropped the last handle of a node while it read the table that the node takes itself out of.
    #[test]
    fn a_node_that_leaves_while_it_is_looked_at_stops_nobody() {
        let (sender, receiver) = mpsc::channel();
        // Not joined: it would stop this test as well.
        let rounds = thread::Builder::new().spawn(move || {
            join_and_leave();
            sender.send(()).expect("the test waits");
        });
        rounds.expect("there is a thread for it");
        receiver.recv_timeout(Duration::from_secs(30)).expect("nobody waits for ever");
    }
}
