//! One node's end of the simulated network.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::clock::NodeClock;
use super::dial::{Dial, Purpose};
use super::executor::{Executor, NodeIndex};
use super::link::{Body, CallId, LinkKey, Message};
use super::network::{CallResult, Network, PendingCall, Station};
use super::sleep::Sleep;
use crate::env::BoxFuture;
use crate::id::NodeId;
use crate::transport::{
    CallError, ClusterId, DownReason, Handler, Lane, PeerInfo, PeerWatch, Reply, SendError, ServiceId,
    Transport,
};

/// The [`Transport`] of a simulated node.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) info: PeerInfo,
    pub(super) network: Arc<Network>,
    pub(super) executor: Arc<Executor>,
    pub(super) index: NodeIndex,
    pub(super) clock: Arc<Mutex<NodeClock>>,
}

impl Endpoint {
    /// Completes when `limit` has passed on the node's clock.
    fn sleep(&self, limit: Duration) -> Sleep {
        let deadline = self.clock.lock().read(self.executor.now()) + limit;
        Sleep::new(Arc::clone(&self.executor), self.index, Arc::clone(&self.clock), deadline)
    }

    fn begin_call(
        &self,
        to: NodeId,
        lane: Lane,
        service: ServiceId,
        payload: Bytes,
    ) -> Result<PendingReply, SendError> {
        let from = self.info.node;
        let (caller, result) = oneshot::channel();
        let mut state = self.network.state();
        let call = CallId(state.draw_id());
        if let Some(station) = state.stations.get_mut(&from) {
            station.calls.insert(call, PendingCall { to, sent: false, caller });
        }
        let pending = PendingReply { endpoint: self.clone(), call, result };
        let sent = state.send(Message { from, to, lane, body: Body::Request { call, service, payload } });
        let connected = state.links.contains_key(&LinkKey::new(from, to));
        if let Some(waiting) = state.stations.get_mut(&from).and_then(|station| station.calls.get_mut(&call))
        {
            waiting.sent = connected;
        }
        drop(state);
        sent.map(|()| pending)
    }
}

impl Transport for Endpoint {
    fn local(&self) -> PeerInfo {
        let state = self.network.state();
        let station = state.stations.get(&self.info.node);
        station.map_or_else(|| self.info.clone(), |station| station.info.clone())
    }

    fn set_cluster(&self, cluster: ClusterId) {
        let mut state = self.network.state();
        let Some(station) = state.stations.get_mut(&self.info.node) else { return };
        station.info.cluster = Some(cluster);
        let is_stranger = |other: &&Station| other.info.cluster.is_some_and(|theirs| theirs != cluster);
        let strangers = state.stations.values().filter(is_stranger);
        let links: Vec<_> = strangers.map(|other| LinkKey::new(self.info.node, other.info.node)).collect();
        for link in links {
            state.disconnect(link, DownReason::Disconnected);
        }
    }

    fn set_address(&self, node: NodeId, address: &str) {
        let mut state = self.network.state();
        let Some(station) = state.stations.get_mut(&self.info.node) else { return };
        let before = station.addresses.insert(node, address.to_owned());
        let moved = before.is_none_or(|before| before != address);
        if moved && matches!(station.dials.get(&node), Some(Dial::Failed { .. })) {
            station.dials.remove(&node);
        }
    }

    fn cast(&self, to: NodeId, lane: Lane, service: ServiceId, payload: Bytes) -> Result<(), SendError> {
        let from = self.info.node;
        self.network.state().send(Message { from, to, lane, body: Body::Cast { service, payload } })
    }

    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        service: ServiceId,
        payload: Bytes,
        limit: Duration,
    ) -> BoxFuture<CallResult> {
        let endpoint = self.clone();
        Box::pin(async move {
            let pending = endpoint.begin_call(to, lane, service, payload)?;
            pending.wait(to, limit).await
        })
    }

    fn discover(&self, address: &str, limit: Duration) -> BoxFuture<Result<PeerInfo, CallError>> {
        let (endpoint, address) = (self.clone(), address.to_owned());
        Box::pin(async move {
            let (caller, result) = oneshot::channel();
            {
                let mut state = endpoint.network.state();
                let discovery = state.draw_id();
                match state.stations.get_mut(&endpoint.info.node) {
                    Some(station) => drop(station.discoveries.insert(discovery, caller)),
                    None => drop(caller),
                }
                state.dial(endpoint.info.node, address.clone(), Purpose::Discover(discovery));
            }
            let reason = match select(result, endpoint.sleep(limit)).await {
                Either::Left((Ok(result), _)) => return result,
                Either::Left((Err(_), _)) => "this node was killed".to_owned(),
                Either::Right(_) => format!("no answer in {} ms", limit.as_millis()),
            };
            Err(CallError::NoPeer { address, reason })
        })
    }

    fn register(&self, service: ServiceId, handler: Arc<dyn Handler>) {
        let mut state = self.network.state();
        let unused = match state.stations.get_mut(&self.info.node) {
            Some(station) => station.handlers.insert(service, handler),
            None => Some(handler),
        };
        // Its destructor may come back here.
        drop(state);
        drop(unused);
    }

    fn is_connected(&self, node: NodeId) -> bool {
        let state = self.network.state();
        state.stations.contains_key(&self.info.node)
            && state.links.contains_key(&LinkKey::new(self.info.node, node))
    }

    fn limit_bulk(&self, bytes_per_second: u64) -> bool {
        let mut state = self.network.state();
        let station = state.stations.get_mut(&self.info.node).filter(|_| bytes_per_second > 0);
        station.map(|station| station.bulk.limit(bytes_per_second)).is_some()
    }

    /// It ends when the node is killed.
    fn watch_peers(&self) -> PeerWatch {
        match self.network.state().stations.get(&self.info.node) {
            Some(station) => PeerWatch::of_broadcast(station.events.subscribe()),
            None => PeerWatch::never(),
        }
    }
}

/// A call under way; dropping it forgets the call.
struct PendingReply {
    endpoint: Endpoint,
    call: CallId,
    result: oneshot::Receiver<CallResult>,
}

impl PendingReply {
    async fn wait(mut self, node: NodeId, limit: Duration) -> CallResult {
        let sleep = self.endpoint.sleep(limit);
        match select(&mut self.result, sleep).await {
            Either::Left((Ok(result), _)) => return result,
            // The own node was killed.
            Either::Left((Err(_), _)) => return Err(CallError::Lost { node }),
            Either::Right(_) => {}
        }
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Err(match self.forget() {
            Some(false) => {
                let reason = format!("no connection in {limit_ms} ms");
                CallError::NotSent(SendError::Unreachable { node, reason })
            }
            Some(true) | None => CallError::Timeout { limit_ms },
        })
    }

    /// Whether the request had left; `None` if the call has ended.
    fn forget(&self) -> Option<bool> {
        let mut state = self.endpoint.network.state();
        let station = state.stations.get_mut(&self.endpoint.info.node)?;
        station.calls.remove(&self.call).map(|call| call.sent)
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The handler's way to answer a call of `caller` to `node`.
pub(super) fn reply_to(
    network: &Arc<Network>,
    node: NodeId,
    caller: NodeId,
    lane: Lane,
    call: CallId,
) -> Reply {
    let body = Body::GaveUp { call };
    let answer =
        Answer { network: Arc::clone(network), message: Message { from: node, to: caller, lane, body } };
    Reply::new(move |payload| answer.give(payload))
}

/// Sends its message when it is dropped: that the handler gave up, unless it gave another answer.
struct Answer {
    network: Arc<Network>,
    message: Message,
}

impl Answer {
    fn give(mut self, payload: Bytes) {
        if let Body::GaveUp { call } = self.message.body {
            self.message.body = Body::Reply { call, payload };
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.network.state().answer(self.message.clone());
    }
}
