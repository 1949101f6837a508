//! The real transport: batched-comm's QUIC endpoint behind the [`Transport`] port.

use std::sync::Arc;
use std::time::Duration;

/// The crate underneath, whose endpoints and certificates a node needs.
pub use batched_comm;

use batched_comm::Endpoint;
use bytes::Bytes;
use futures_util::stream;

use super::{
    CallError, ClusterId, DownReason, Handler, Lane, Missed, PeerChange, PeerEvent, PeerInfo, PeerWatch,
    Reply, SendError, ServiceId, Transport,
};
use crate::env::{BoxFuture, RealEnv};
use crate::id::NodeId;

/// QUIC between nodes, mutually authenticated.
pub struct QuicTransport {
    endpoint: Endpoint,
    local: PeerInfo,
}

impl QuicTransport {
    /// The port on an endpoint, whose config gave this node's id, name and address.
    pub fn new(endpoint: Endpoint, name: impl Into<String>) -> Arc<Self> {
        let local = PeerInfo {
            node: NodeId(endpoint.node().0),
            name: name.into(),
            address: endpoint.advertised().to_owned(),
            cluster: None,
        };
        Arc::new(Self { endpoint, local })
    }

    /// The endpoint underneath.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl RealEnv {
    /// The real door of a node that talks through `endpoint`, on the tokio runtime that the caller is in.
    ///
    /// # Panics
    ///
    /// As [`RealEnv::new`].
    pub fn over_quic(endpoint: Endpoint, name: impl Into<String>) -> Arc<Self> {
        Self::new(QuicTransport::new(endpoint, name))
    }
}

impl Transport for QuicTransport {
    fn local(&self) -> PeerInfo {
        PeerInfo { cluster: self.endpoint.cluster().map(cluster_of_quic), ..self.local.clone() }
    }

    fn set_cluster(&self, cluster: ClusterId) {
        self.endpoint.set_cluster(batched_comm::ClusterId(cluster.0));
    }

    fn set_address(&self, node: NodeId, address: &str) {
        self.endpoint.set_address(to_quic(node), address);
    }

    fn cast(&self, to: NodeId, lane: Lane, service: ServiceId, payload: Bytes) -> Result<(), SendError> {
        let service = batched_comm::ServiceId(service.0);
        self.endpoint
            .cast(to_quic(to), lane_to_quic(lane), service, payload)
            .map_err(|error| send_error(to, error))
    }

    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        service: ServiceId,
        payload: Bytes,
        limit: Duration,
    ) -> BoxFuture<Result<Bytes, CallError>> {
        let call = self.endpoint.call(
            to_quic(to),
            lane_to_quic(lane),
            batched_comm::ServiceId(service.0),
            payload,
            limit,
        );
        Box::pin(async move { call.await.map_err(|error| call_error(to, service, error)) })
    }

    fn discover(&self, address: &str, limit: Duration) -> BoxFuture<Result<PeerInfo, CallError>> {
        let (endpoint, address) = (self.endpoint.clone(), address.to_owned());
        Box::pin(async move {
            match endpoint.discover(&address, limit).await {
                Ok(peer) => Ok(PeerInfo {
                    node: NodeId(peer.node.0),
                    name: peer.name,
                    address: peer.advertised,
                    cluster: peer.cluster.map(cluster_of_quic),
                }),
                Err(error) => Err(CallError::NoPeer { address, reason: error.to_string() }),
            }
        })
    }

    fn register(&self, service: ServiceId, handler: Arc<dyn Handler>) {
        self.endpoint.register(batched_comm::ServiceId(service.0), Arc::new(Adapter(handler)));
    }

    fn is_connected(&self, node: NodeId) -> bool {
        self.endpoint.is_connected(to_quic(node))
    }

    fn limit_bulk(&self, bytes_per_second: u64) -> bool {
        self.endpoint.set_bulk_bytes_per_second_max(Some(bytes_per_second)).is_ok()
    }

    fn watch_peers(&self) -> PeerWatch {
        PeerWatch::new(stream::unfold(self.endpoint.watch_peers(), |mut events| async move {
            let event = events.next().await?;
            let event = event.map(peer_event).map_err(|missed| Missed { events: missed.events });
            Some((event, events))
        }))
    }
}

/// A handler of ours as batched-comm's.
struct Adapter(Arc<dyn Handler>);

impl batched_comm::Handler for Adapter {
    fn on_cast(&self, from: batched_comm::NodeId, payload: Bytes) {
        self.0.on_cast(NodeId(from.0), payload);
    }

    fn on_call(&self, from: batched_comm::NodeId, payload: Bytes, reply: batched_comm::Reply) {
        self.0.on_call(NodeId(from.0), payload, Reply::new(move |payload| reply.send(payload)));
    }
}

fn to_quic(node: NodeId) -> batched_comm::NodeId {
    batched_comm::NodeId(node.0)
}

fn cluster_of_quic(cluster: batched_comm::ClusterId) -> ClusterId {
    ClusterId(cluster.0)
}

fn lane_to_quic(lane: Lane) -> batched_comm::Lane {
    match lane {
        Lane::Control => batched_comm::Lane::Control,
        Lane::Normal => batched_comm::Lane::Normal,
        Lane::Bulk => batched_comm::Lane::Bulk,
    }
}

fn peer_event(event: batched_comm::PeerEvent) -> PeerEvent {
    let change = match event.change {
        batched_comm::PeerChange::Up => PeerChange::Up,
        batched_comm::PeerChange::Down(reason) => PeerChange::Down(match reason {
            batched_comm::DownReason::Died | batched_comm::DownReason::Replaced => DownReason::Died,
            batched_comm::DownReason::Left => DownReason::Left,
            batched_comm::DownReason::Silent => DownReason::Silent,
            _ => DownReason::Disconnected,
        }),
        // Whatever else there may be one day, it is no reason to act.
        _ => PeerChange::Suspect,
    };
    PeerEvent { node: NodeId(event.node.0), change }
}

fn send_error(node: NodeId, error: batched_comm::SendError) -> SendError {
    match error {
        batched_comm::SendError::QueueFull { .. } => SendError::QueueFull { node },
        batched_comm::SendError::TooLarge { bytes, bytes_max, .. } => {
            SendError::TooLarge { bytes, limit_bytes: bytes_max }
        }
        other => SendError::Unreachable { node, reason: other.to_string() },
    }
}

fn call_error(node: NodeId, service: ServiceId, error: batched_comm::CallError) -> CallError {
    match error {
        batched_comm::CallError::NoHandler { .. } => CallError::NoService { node, service },
        batched_comm::CallError::Overloaded { .. } => SendError::QueueFull { node }.into(),
        batched_comm::CallError::TooLarge { bytes, bytes_max, .. } => {
            SendError::TooLarge { bytes, limit_bytes: bytes_max }.into()
        }
        batched_comm::CallError::Timeout { timeout, .. } => {
            CallError::Timeout { limit_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) }
        }
        other if other.surely_not_delivered() => {
            SendError::Unreachable { node, reason: other.to_string() }.into()
        }
        _ => CallError::Lost { node },
    }
}
