//! What an endpoint counts: everything that was refused, dropped or lost, and the traffic.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::refusal::Refusal;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A snapshot of what an endpoint has counted since it was bound.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// Every counter with its name, for whatever draws or exports them.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }

            /// Every counter by the name of its metric, with what it counts.
            pub(crate) fn described(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
                [$((
                    concat!("batched_comm_", stringify!($name), "_total"),
                    concat!($($doc),+).trim_ascii(),
                    self.$name,
                ),)+]
                .into_iter()
            }
        }

        /// The live counters behind [`Counters`].
        #[derive(Default)]
        pub(crate) struct LiveCounters {
            $(pub(crate) $name: Counter,)+
        }

        impl LiveCounters {
            pub(crate) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.0.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Datagrams that were not QUIC, or carried a connection id this endpoint has never given out.
    datagrams_garbage,
    /// Handshakes of peers with a certificate of another CA, or none.
    refused_other_authority,
    /// Handshakes of peers with an expired or otherwise unusable certificate.
    refused_certificate,
    /// Handshakes of peers of another cluster.
    refused_other_cluster,
    /// Handshakes of peers that speak another wire version.
    refused_other_wire_version,
    /// Dials that found another node at the address.
    refused_other_node,
    /// Handshakes of peers that claim this node's id.
    refused_own_node,
    /// Handshakes of peers whose id a living process at another address has.
    refused_id_taken,
    /// Handshakes of peers whose name is not theirs.
    refused_name,
    /// Handshakes refused because there are too many connections.
    refused_too_many_connections,
    /// Handshakes with something that is not this protocol.
    refused_malformed,
    /// TCP connections for lifelines that were refused: too many, too slow, a nonce nobody waits for.
    lifelines_refused,
    /// Lifelines that were bound to a connection, from both sides.
    lifelines_held,
    /// Connections left without a lifeline, and lifelines that broke without telling anything.
    lifelines_missing,
    /// Incoming handshakes that ended before they said anything: time out, garbage, a vanished peer.
    handshakes_broken,
    /// Dials that went wrong without a refusal.
    dials_unreachable,
    /// Connections that were established, from both sides.
    connections_established,
    /// Established connections that ended.
    connections_lost,
    /// Peers that were suspected for their silence.
    peers_suspected,
    /// Peers whose process was seen to end.
    peers_died,
    /// Connections closed because a frame was oversized, truncated, stalled or malformed.
    frames_refused,
    /// Casts refused or dropped: no connection, no address, a full queue, too large.
    casts_dropped,
    /// Casts that arrived for a service without a handler.
    casts_without_handler,
    /// Calls refused before they were sent: no connection, no address, a limit.
    calls_refused,
    /// Calls that were in flight when their connection ended.
    calls_lost,
    /// Calls from peers refused because too many are in the hands of handlers.
    calls_overloaded,
    /// Answers that came after their call was given up, or that nobody asked for.
    replies_unexpected,
    /// Replies that could not be sent: too large, their connection gone, their lane full.
    replies_dropped,
    /// Handlers that panicked.
    handler_panics,
    /// Messages sent: casts, calls, answers.
    messages_sent,
    /// Batches they were sent in.
    batches_sent,
    /// Bytes in them, frame headers included, after compression.
    bytes_sent,
    /// The same before compression.
    bytes_sent_raw,
    /// Messages received.
    messages_received,
}

/// One number that only grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }
}

impl LiveCounters {
    /// Counts a refused connection by its reason.
    pub(crate) fn count_refusal(&self, refusal: Refusal) {
        match refusal {
            Refusal::OtherAuthority => self.refused_other_authority.increment(),
            Refusal::Certificate => self.refused_certificate.increment(),
            Refusal::OtherCluster => self.refused_other_cluster.increment(),
            Refusal::OtherWireVersion => self.refused_other_wire_version.increment(),
            Refusal::OtherNode => self.refused_other_node.increment(),
            Refusal::OwnNode => self.refused_own_node.increment(),
            Refusal::IdTaken => self.refused_id_taken.increment(),
            Refusal::Name => self.refused_name.increment(),
            Refusal::TooManyConnections => self.refused_too_many_connections.increment(),
            Refusal::Malformed => self.refused_malformed.increment(),
            Refusal::Superseded | Refusal::ShuttingDown => {}
        }
    }
}
