//! One established connection to a peer, and its tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::admission::CurrentLink;
use crate::frame::{FrameError, Head, Outcome};
use crate::handshake::Introduction;
use crate::hello::{Features, Hello};
use crate::id::ClusterId;
use crate::lane::Lane;
use crate::peer::{Ending, Peer};
use crate::queue::{PushError, Pushed};
use crate::reader::read_lane;
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::writer::{LaneStream, write_lane};

/// An established connection. It is the peer's current one until it is lost or replaced.
pub(crate) struct Link {
    /// Drawn by the side that dialled; never 0.
    pub(crate) id: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) connection: quinn::Connection,
    pub(crate) established: Instant,
    /// What the peer said of itself.
    pub(crate) hello: Hello,
    /// What both sides can do.
    pub(crate) features: Features,
    /// Told when the endpoint is about to close and everything was written.
    pub(crate) leaving: Notify,
    /// Told when the peer has acknowledged the goodbye.
    pub(crate) left: Notify,
    /// Lanes whose writer has not ended.
    lanes_written: watch::Sender<usize>,
    dialled_here: bool,
    /// The cluster this node named in the handshake.
    announced: Option<ClusterId>,
    /// The cluster the peer has named last.
    peer_cluster: Mutex<Option<ClusterId>>,
    /// Lanes the peer has opened.
    lanes_open: Mutex<[bool; 3]>,
    /// Calls of the peer in the hands of handlers.
    calls_handled: AtomicUsize,
    streams: [LaneStream; 3],
}

impl Link {
    pub(crate) fn new(
        id: u64,
        shared: Arc<Shared>,
        peer: Arc<Peer>,
        connection: quinn::Connection,
        dialled_here: bool,
        said: Introduction,
    ) -> Link {
        let Introduction { announced, hello, features } = said;
        Link {
            id,
            shared,
            peer,
            connection,
            established: Instant::now(),
            features,
            leaving: Notify::new(),
            left: Notify::new(),
            lanes_written: watch::Sender::new(Lane::ALL.len()),
            dialled_here,
            announced,
            peer_cluster: Mutex::new(hello.cluster),
            hello,
            lanes_open: Mutex::new([false; 3]),
            calls_handled: AtomicUsize::new(0),
            streams: Default::default(),
        }
    }

    pub(crate) fn is_dialled_here(&self) -> bool {
        self.dialled_here
    }

    /// Datagrams of the peer that have arrived on this connection.
    pub(crate) fn datagrams_heard(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// Writes what waits, says goodbye, and returns when the peer has all of it or the connection has ended.
    pub(crate) async fn leave(&self) {
        let leaving = async {
            for lane in Lane::ALL {
                self.peer.lane(lane).finish(self.id);
            }
            // The sender lives as long as the link.
            let _ = self.lanes_written.subscribe().wait_for(|writers| *writers == 0).await;
            self.leaving.notify_one();
            self.left.notified().await;
        };
        tokio::select! {
            () = leaving => {}
            _ = self.connection.closed() => {}
        }
    }

    /// A lane's writer has ended.
    pub(crate) fn lane_written(&self) {
        self.lanes_written.send_modify(|writers| *writers -= 1);
    }

    /// What the decision about another connection needs to know of this one.
    pub(crate) fn summary(&self) -> CurrentLink {
        CurrentLink { id: self.id, dialled_here: self.dialled_here, instance: self.hello.instance }
    }

    /// Starts reading and writing; the tasks end with the connection.
    pub(crate) fn start(self: &Arc<Link>) {
        for lane in Lane::ALL {
            tokio::spawn(write_lane(self.clone(), lane));
        }
        tokio::spawn(accept_lanes(self.clone()));
        // The cluster may have been learned while the handshake was under way.
        if let Some(id) = self.shared.cluster()
            && self.announced != Some(id)
        {
            self.announce_cluster(id);
        }
    }

    pub(crate) fn stream(&self, lane: Lane) -> &LaneStream {
        &self.streams[lane.index()]
    }

    /// Writes what waits on a lane, as far as the connection takes it now.
    pub(crate) fn flush(&self, lane: Lane) {
        self.stream(lane).flush(self, lane);
    }

    /// Marks a lane as opened by the peer; false when it was already.
    pub(crate) fn open_lane(&self, lane: Lane) -> bool {
        !std::mem::replace(&mut self.lanes_open.lock()[lane.index()], true)
    }

    /// Takes one of the peer's places for calls in the hands of handlers; false when there is none left.
    pub(crate) fn begin_call(&self) -> bool {
        let handled = self.calls_handled.fetch_add(1, Ordering::Relaxed);
        let has_place = handled < self.shared.config.calls_in_flight_max;
        if !has_place {
            self.calls_handled.fetch_sub(1, Ordering::Relaxed);
        }
        has_place
    }

    /// Answers a call that [`begin_call`](Link::begin_call) let in.
    pub(crate) fn answer(&self, lane: Lane, correlation: u64, outcome: Outcome) {
        self.calls_handled.fetch_sub(1, Ordering::Relaxed);
        let (mut head, mut payload) = match outcome {
            Outcome::Reply(payload) => (Head::Reply { correlation }, payload),
            Outcome::NoHandler => (Head::NoHandler { correlation }, Bytes::new()),
            Outcome::NoReply => (Head::NoReply { correlation }, Bytes::new()),
            Outcome::Overloaded => (Head::Overloaded { correlation }, Bytes::new()),
        };
        let bytes_max = self.shared.config.message_bytes_max(lane);
        if payload.len() > bytes_max {
            let bytes = payload.len();
            tracing::warn!(node = %self.peer.node, %lane, bytes, bytes_max, "reply is too large");
            self.shared.counters.replies_dropped.increment();
            (head, payload) = (Head::NoReply { correlation }, Bytes::new());
        }
        self.push_answer(lane, head, &payload);
    }

    /// Tells the peer that a call was not taken.
    pub(crate) fn refuse_call(&self, lane: Lane, correlation: u64) {
        self.shared.counters.calls_overloaded.increment();
        self.push_answer(lane, Head::Overloaded { correlation }, &Bytes::new());
    }

    fn push_answer(&self, lane: Lane, head: Head, payload: &Bytes) {
        let mut result = self.peer.lane(lane).push_answer(self.id, head, payload);
        if let (Err(PushError::Full { .. }), Head::Reply { correlation }) = (&result, head) {
            self.shared.counters.replies_dropped.increment();
            // There is no room for the payload; the news that there is none may still fit.
            result = self.peer.lane(lane).push_answer(self.id, Head::NoReply { correlation }, &Bytes::new());
        }
        match result {
            Ok(Pushed::MustFlush) => self.flush(lane),
            Ok(_) => {}
            Err(_) => self.shared.counters.replies_dropped.increment(),
        }
    }

    /// Tells the peer which cluster this node belongs to, or cuts it off when it belongs to another.
    pub(crate) fn announce_cluster(&self, id: ClusterId) {
        if self.check_cluster() {
            let payload = Bytes::copy_from_slice(&id.0.to_le_bytes());
            self.push_answer(Lane::Control, Head::Cluster, &payload);
        }
    }

    /// Takes the peer's announcement.
    pub(crate) fn learn_cluster(&self, id: ClusterId) {
        *self.peer_cluster.lock() = Some(id);
        self.check_cluster();
    }

    fn check_cluster(&self) -> bool {
        match (self.shared.cluster(), *self.peer_cluster.lock()) {
            (Some(here), Some(there)) if here != there => {
                let detail = format!("the peer belongs to cluster {there}, this node to {here}");
                self.shared.refuse(&self.connection, Refusal::OtherCluster, &detail);
                false
            }
            _ => true,
        }
    }

    /// Closes the connection because of what the peer sent.
    pub(crate) fn refuse_frame(&self, error: FrameError) {
        self.shared.counters.frames_refused.increment();
        let detail = error.to_string();
        tracing::warn!(node = %self.peer.node, detail, "connection closed: bad frame");
        self.connection.close(Refusal::Malformed.code(), detail.as_bytes());
    }
}

/// Waits for the lanes that the peer opens, and for the end of the connection.
async fn accept_lanes(link: Arc<Link>) {
    let error = loop {
        match link.connection.accept_uni().await {
            Ok(stream) => drop(tokio::spawn(read_lane(link.clone(), stream))),
            Err(error) => break error,
        }
    };
    link.peer.lost(&link, &Ending::Closed(&error));
}
