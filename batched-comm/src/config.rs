//! Every setting and every limit of an endpoint.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{ClusterId, NodeId};
use crate::identity::Identity;
use crate::lane::Lane;
use crate::lane_settings::LaneSettings;
use crate::pack::PACK_BYTES_MAX;
use crate::resolver::{Resolver, SystemResolver};

/// The settings of an [`Endpoint`](crate::Endpoint); [`EndpointConfig::new`] fills in the defaults.
///
/// Nodes of one cluster should agree on the limits of message sizes: a message that the sender may send and the
/// receiver may not take closes the connection.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// The UDP address to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// `host:port` under which peers reach this node; empty when they are not to dial it. Default: the address that was
    /// bound. Of one that stands for all addresses, as `0.0.0.0:7000`, peers take the port, and the address they see.
    pub advertise: Option<String>,
    /// This node's id.
    pub node: NodeId,
    /// This node's name: it must be among the DNS names of its certificate.
    pub name: String,
    /// The cluster this node belongs to, when it knows. Default: none yet.
    pub cluster: Option<ClusterId>,
    /// What this node proves itself with at first; see [`reload_identity`](crate::Endpoint::reload_identity).
    pub identity: Identity,
    /// How long before the certificate expires that is told, to [`watch_identity`](crate::Endpoint::watch_identity) and
    /// to the log, there once a day from then on; never before two thirds of its time have passed. Default: 7 days.
    pub identity_expiry_warning: Duration,
    /// Looks names up, at each dial. Default: the system's way.
    pub resolver: Arc<dyn Resolver>,
    /// Whether a peer that dialled may go on from another address, as when a router gives it another port, without a
    /// new connection. Its lifeline does not move along: a death there then shows by missed beats. Default: true.
    pub migration: bool,
    /// Largest payload on the control and normal lanes. Default: 4 MiB.
    pub message_bytes_max: usize,
    /// Largest payload on the bulk lane. Default: 64 MiB.
    pub bulk_message_bytes_max: usize,
    /// How each lane is written at first: control, normal, bulk. Default: [`LaneSettings::of`] each.
    pub lanes: [LaneSettings; 3],
    /// Bytes that this node sends in a second on its bulk lanes, all peers together; `None` for no cap.
    /// Default: 64 MiB.
    pub bulk_bytes_per_second_max: Option<u64>,
    /// Batches in one collection of sending statistics. Default: 65,536.
    pub stats_batches_max: usize,
    /// Bytes that a peer may have under way on one lane, and so what a lane carries at most in a round trip. What is under
    /// way on the bulk lane stands in front of small messages, wherever it queues up: larger windows are for networks whose
    /// round trips are long. Default: 1 MiB, 64 MiB/s at 16 ms.
    pub lane_window_bytes: u32,
    /// Messages that may wait on one lane to one peer; one more is refused. Default: 65,536.
    pub queue_messages_max: usize,
    /// Bytes that may wait on one lane to one peer; a message that would exceed them is refused, except that an
    /// empty queue takes any one message. Default: 16 MiB.
    pub queue_bytes_max: usize,
    /// Calls to one peer that may wait for an answer, and calls of one peer that may be in the hands of handlers
    /// here. Default: 16,384.
    pub calls_in_flight_max: usize,
    /// How long a dial may take, name resolution and handshake included, and how long an incoming handshake may
    /// take; 1 ms to 1 day. Default: 1 s.
    pub connect_timeout: Duration,
    /// The wait after the first dial that went wrong; it doubles from there, drawn from half to the whole.
    /// Default: 50 ms.
    pub reconnect_backoff_min: Duration,
    /// The longest wait between two dials. Default: 1 s.
    pub reconnect_backoff_max: Duration,
    /// Dialling in the background ends when nothing was sent to a peer for so long. Default: 60 s.
    pub reconnect_give_up: Duration,
    /// A silent connection is probed after this time. Default: 500 ms.
    pub keep_alive_interval: Duration,
    /// A connection from which nothing came for this time is dead: its calls in flight are lost. At most 1 day.
    /// Default: 3 s.
    pub idle_timeout: Duration,
    /// Beats, each a `keep_alive_interval`, in which nothing came from a peer until it is suspected; at least 2.
    /// Default: 3.
    pub suspect_after_beats_missed: u32,
    /// Whether to hold a lifeline to each peer: an idle TCP connection, on the port of the same number, that tells of
    /// a killed process within a round trip. Default: true. Where that port cannot be listened on or reached,
    /// connections do without.
    pub lifeline: bool,
    /// How often the counters and what is held are told to the `metrics` facade; `None` for only when
    /// [`publish_metrics`](crate::Endpoint::publish_metrics) is called. Default: 10 s.
    pub metrics_interval: Option<Duration>,
    /// Events of peers that wait for a slow watch; it misses the oldest ones past that. Default: 1,024.
    pub peer_events_max: usize,
    /// How long [`close`](crate::Endpoint::close) waits until what is queued was sent and the peers know.
    /// Default: 1 s.
    pub close_timeout: Duration,
    /// A peer that stops in the middle of a message is cut off after this time. Default: 10 s.
    pub stall_timeout: Duration,
    /// Connections, handshakes and dials included; further ones are refused. When half as many peers are known, those that
    /// nobody here has named are forgotten once they are gone, rather than dialled. Default: 1,024.
    pub connections_max: usize,
    /// Incoming handshakes under way at one time; past half of it a peer must first prove that its address is its
    /// own. Default: 128.
    pub handshakes_max: usize,
    /// Size asked for the UDP socket's buffers, each; the system caps it (on Linux at `net.core.rmem_max` and
    /// `wmem_max`, to be raised for heavy traffic). Default: 4 MiB.
    pub socket_buffer_bytes: usize,
    /// Largest UDP payload that path discovery tries; the network's own limit is found by probing.
    /// Default: 8,952, a jumbo frame over IPv6.
    pub datagram_bytes_max: u16,
}

impl EndpointConfig {
    /// The defaults, with what has none.
    pub fn new(
        listen: SocketAddr,
        node: NodeId,
        name: impl Into<String>,
        identity: Identity,
    ) -> EndpointConfig {
        EndpointConfig {
            listen,
            advertise: None,
            node,
            name: name.into(),
            cluster: None,
            identity,
            identity_expiry_warning: Duration::from_secs(7 * 24 * 3600),
            resolver: Arc::new(SystemResolver),
            migration: true,
            message_bytes_max: 4 << 20,
            bulk_message_bytes_max: 64 << 20,
            lanes: Lane::ALL.map(LaneSettings::of),
            bulk_bytes_per_second_max: Some(64 << 20),
            stats_batches_max: 65_536,
            lane_window_bytes: 1 << 20,
            queue_messages_max: 65_536,
            queue_bytes_max: 16 << 20,
            calls_in_flight_max: 16_384,
            connect_timeout: Duration::from_secs(1),
            reconnect_backoff_min: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            reconnect_give_up: Duration::from_secs(60),
            keep_alive_interval: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(3),
            suspect_after_beats_missed: 3,
            lifeline: true,
            metrics_interval: Some(Duration::from_secs(10)),
            peer_events_max: 1024,
            close_timeout: Duration::from_secs(1),
            stall_timeout: Duration::from_secs(10),
            connections_max: 1024,
            handshakes_max: 128,
            socket_buffer_bytes: 4 << 20,
            datagram_bytes_max: 8952,
        }
    }

    /// The largest payload of a lane.
    pub(crate) fn message_bytes_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Control | Lane::Normal => self.message_bytes_max,
            Lane::Bulk => self.bulk_message_bytes_max,
        }
    }

    /// Room for every lane's window and more, in each direction: a lane that is full, because nobody reads it or because
    /// a snapshot goes through it, never takes the room of another.
    pub(crate) fn connection_window_bytes(&self) -> u32 {
        self.lane_window_bytes.saturating_mul(4)
    }

    /// The most memory that one peer can make this node hold: what waits for it, what it has sent half of, and the
    /// windows of its connection. Handlers' own memory is not in it.
    pub fn memory_bytes_per_peer_max(&self) -> usize {
        let lanes: usize = Lane::ALL
            .into_iter()
            .map(|lane| {
                let message_bytes = self.message_bytes_max(lane);
                // Answers may use a queue to twice its limit, and a message over it if it is alone; of a message that
                // is arriving there are the old and the new buffer while it grows.
                let answers = self.queue_bytes_max.saturating_mul(2);
                answers.saturating_add(message_bytes.saturating_mul(4)).saturating_add(2 * PACK_BYTES_MAX)
            })
            .fold(0, usize::saturating_add);
        lanes.saturating_add(2 * self.connection_window_bytes() as usize)
    }
}
