//! What all tasks of one endpoint share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use quinn::VarInt;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use crate::config::EndpointConfig;
use crate::counters::LiveCounters;
use crate::deadlines::Deadlines;
use crate::error::Failure;
use crate::expiry::{IdentityEventSource, Validity};
use crate::hello::{Features, Hello};
use crate::id::{ClusterId, NodeId};
use crate::lane::Lane;
use crate::lane_settings::LaneSettings;
use crate::lifeline::{Lifelines, accept_lifelines};
use crate::log_limit::LogLimit;
use crate::peer::Peer;
use crate::peer_event::PeerEventSource;
use crate::refusal::Refusal;
use crate::services::Services;
use crate::token_bucket::TokenBucket;

/// The inside of an [`Endpoint`](crate::Endpoint).
pub(crate) struct Shared {
    pub(crate) config: EndpointConfig,
    /// `host:port` under which peers reach this node.
    pub(crate) advertised: Arc<str>,
    /// Drawn at bind: tells peers a restarted endpoint from the same one.
    pub(crate) instance: u64,
    pub(crate) quinn: quinn::Endpoint,
    client_config: RwLock<quinn::ClientConfig>,
    identity_validity: Mutex<Validity>,
    pub(crate) identity_events: IdentityEventSource,
    /// Told when the identity was replaced.
    pub(crate) identity_replaced: Arc<Notify>,
    pub(crate) services: Arc<Services>,
    /// The runtime that the endpoint was bound on.
    pub(crate) runtime: Handle,
    pub(crate) counters: Arc<LiveCounters>,
    cluster: RwLock<Option<ClusterId>>,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    /// Locked inside the lock of the peers or alone.
    lane_settings: RwLock<[LaneSettings; 3]>,
    pub(crate) bulk_rate: Mutex<TokenBucket>,
    /// Told when its rate is another.
    bulk_rate_changed: Notify,
    pub(crate) deadlines: Deadlines,
    pub(crate) peer_events: PeerEventSource,
    pub(crate) lifelines: Lifelines,
    /// Whether the port of lifelines is listened on.
    takes_lifelines: AtomicBool,
    lacks_lifeline: AtomicBool,
    lifeline_task: Mutex<Option<AbortHandle>>,
    is_leaving: AtomicBool,
    is_closed: AtomicBool,
    log_limit: LogLimit,
}

impl Shared {
    pub(crate) fn new(
        config: EndpointConfig,
        advertised: Arc<str>,
        quinn: quinn::Endpoint,
        client_config: quinn::ClientConfig,
        counters: Arc<LiveCounters>,
    ) -> Shared {
        let lane_settings = config.lanes;
        let identity_validity = config.identity.validity();
        let warning = config.identity_expiry_warning;
        let identity_events = IdentityEventSource::new(identity_validity, SystemTime::now(), warning);
        let bulk_rate = TokenBucket::new(config.bulk_bytes_per_second_max, Instant::now());
        Shared {
            cluster: RwLock::new(config.cluster),
            peer_events: PeerEventSource::new(config.peer_events_max),
            lifelines: Lifelines::new(config.connections_max),
            takes_lifelines: AtomicBool::new(false),
            lacks_lifeline: AtomicBool::new(false),
            lifeline_task: Mutex::new(None),
            is_leaving: AtomicBool::new(false),
            config,
            advertised,
            instance: random_u64(),
            quinn,
            client_config: RwLock::new(client_config),
            identity_validity: Mutex::new(identity_validity),
            identity_events,
            identity_replaced: Arc::default(),
            runtime: Handle::current(),
            services: Arc::new(Services::new(counters.clone())),
            counters,
            peers: RwLock::default(),
            lane_settings: RwLock::new(lane_settings),
            bulk_rate: Mutex::new(bulk_rate),
            bulk_rate_changed: Notify::new(),
            deadlines: Deadlines::new(Instant::now()),
            is_closed: AtomicBool::new(false),
            log_limit: LogLimit::new(Instant::now()),
        }
    }

    /// What this node says of itself.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            node: self.config.node,
            instance: self.instance,
            cluster: self.cluster(),
            name: self.config.name.clone(),
            advertised: self.advertised.to_string(),
        }
    }

    /// What this node can do.
    pub(crate) fn features(&self) -> Features {
        if self.config.lifeline { Features::ALL } else { Features::ALL.without(Features::LIFELINE) }
    }

    /// Starts to take lifelines in, if they are wanted.
    pub(crate) fn start_lifelines(self: &Arc<Shared>, listener: Option<TcpListener>) {
        if self.config.lifeline {
            self.takes_lifelines.store(listener.is_some(), Ordering::Release);
            let task = tokio::spawn(accept_lifelines(self.clone(), listener));
            *self.lifeline_task.lock() = Some(task.abort_handle());
        }
    }

    /// Whether peers can reach the port of lifelines, as far as this node knows.
    pub(crate) fn takes_lifelines(&self) -> bool {
        self.takes_lifelines.load(Ordering::Acquire)
    }

    pub(crate) fn set_takes_lifelines(&self) {
        self.takes_lifelines.store(true, Ordering::Release);
    }

    /// True once: the first time that a connection stays without a lifeline.
    pub(crate) fn is_first_missing_lifeline(&self) -> bool {
        !self.lacks_lifeline.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.read()
    }

    /// Fixes the cluster, and tells the connected peers; those of another one are cut off.
    pub(crate) fn set_cluster(&self, id: ClusterId) {
        *self.cluster.write() = Some(id);
        for peer in self.peers() {
            if let Some(link) = peer.link() {
                link.announce_cluster(id);
            }
        }
    }

    /// What this node proves itself with when it dials.
    pub(crate) fn client_config(&self) -> quinn::ClientConfig {
        self.client_config.read().clone()
    }

    pub(crate) fn identity_validity(&self) -> Validity {
        *self.identity_validity.lock()
    }

    /// From now on connections are made with another identity.
    pub(crate) fn replace_identity(
        &self,
        server: quinn::ServerConfig,
        client: quinn::ClientConfig,
        validity: Validity,
    ) {
        self.quinn.set_server_config(Some(server));
        *self.client_config.write() = client;
        *self.identity_validity.lock() = validity;
        self.identity_replaced.notify_one();
    }

    /// The peer of that id, if there is one.
    pub(crate) fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().get(&node).cloned()
    }

    /// The peer of that id, made if there is none.
    pub(crate) fn peer_or_new(&self, node: NodeId) -> Arc<Peer> {
        if let Some(peer) = self.peer(node) {
            return peer;
        }
        let mut peers = self.peers.write();
        peers
            .entry(node)
            .or_insert_with(|| Arc::new(Peer::new(node, &self.config, *self.lane_settings.read())))
            .clone()
    }

    /// Changes how a lane to every peer is written, those to come included.
    pub(crate) fn set_lane_settings(&self, lane: Lane, settings: LaneSettings) {
        self.lane_settings.write()[lane.index()] = settings;
        for peer in self.peers() {
            peer.lane(lane).set_settings(settings);
        }
    }

    /// How a lane to peers that have no settings of their own is written.
    pub(crate) fn lane_settings(&self, lane: Lane) -> LaneSettings {
        self.lane_settings.read()[lane.index()]
    }

    /// How many bytes go out on a bulk lane at once.
    pub(crate) fn bulk_slice_bytes(&self) -> usize {
        self.bulk_rate.lock().slice_bytes()
    }

    /// Waits until so many bytes may be sent on bulk lanes.
    pub(crate) async fn await_bulk_tokens(&self, bytes: usize) {
        let changed = self.bulk_rate_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let wait = self.bulk_rate.lock().take(bytes, Instant::now());
        if !wait.is_zero() {
            // What waits at a rate that is no more goes at once; the new one holds from the next on.
            let _ = timeout(wait, changed).await;
        }
    }

    /// Changes the rate of the bulk lanes.
    pub(crate) fn set_bulk_rate(&self, bytes_per_second: Option<u64>) {
        self.bulk_rate.lock().set_bytes_per_second(bytes_per_second, Instant::now());
        self.bulk_rate_changed.notify_waiters();
    }

    /// Whether so many peers are known that dialling them all would keep others out: a dial is a connection too.
    pub(crate) fn knows_too_many(&self) -> bool {
        self.peers.read().len() > self.config.connections_max / 2
    }

    /// Every peer.
    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        self.peers.read().values().cloned().collect()
    }

    /// A node that restarted under a new id at the same place, with the same name, has arrived: its predecessor
    /// is gone, and whoever waits for it is told now rather than after its silence.
    pub(crate) fn retire_predecessors(&self, hello: &Hello) {
        for peer in self.peers() {
            let is_predecessor = peer.node != hello.node
                && peer.link().is_some_and(|link| {
                    link.hello.name == hello.name
                        && !hello.advertised.is_empty()
                        && link.hello.advertised == hello.advertised
                });
            if is_predecessor {
                peer.gone(self, hello.node);
            }
        }
    }

    /// Drops a peer from the map, unless another has taken its entry. The caller has seen to its messages.
    pub(crate) fn remove_peer(&self, peer: &Peer) {
        let mut peers = self.peers.write();
        if peers.get(&peer.node).is_some_and(|entry| std::ptr::eq(Arc::as_ptr(entry), peer)) {
            peers.remove(&peer.node);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Whether the endpoint takes nothing more from its user.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    /// Has everything that waits written, says goodbye to all peers at the same time, and closes.
    pub(crate) async fn leave(self: &Arc<Shared>) {
        if !self.is_leaving.swap(true, Ordering::AcqRel) {
            let mut goodbyes = JoinSet::new();
            for peer in self.peers() {
                goodbyes.spawn(async move { peer.leave().await });
            }
            let all = async { while goodbyes.join_next().await.is_some() {} };
            if timeout(self.config.close_timeout, all).await.is_err() {
                tracing::info!(node = %self.config.node, "closed before every peer had everything");
            }
        }
        self.close();
    }

    /// Ends everything: what is queued is dropped, what is in flight is lost, peers are told.
    pub(crate) fn close(&self) {
        self.is_leaving.store(true, Ordering::Release);
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(task) = self.lifeline_task.lock().take() {
            task.abort();
        }
        for peer in self.peers() {
            peer.forget(self, &Failure::Closed);
        }
        self.quinn.close(Refusal::ShuttingDown.code(), b"the endpoint is closed");
        self.peer_events.close();
        self.identity_events.close();
        self.identity_replaced.notify_one();
    }

    /// Counts and logs a connection that this node refuses, and tells the peer.
    pub(crate) fn refuse(&self, connection: &quinn::Connection, refusal: Refusal, detail: &str) {
        if self.may_log() {
            let peer = connection.remote_address();
            tracing::warn!(node = %self.config.node, %peer, %refusal, detail, "connection refused by this node");
        }
        self.refuse_silently(connection, refusal, detail);
    }

    /// Counts a connection that this node refuses, and tells the peer.
    pub(crate) fn refuse_silently(&self, connection: &quinn::Connection, refusal: Refusal, detail: &str) {
        self.counters.count_refusal(refusal);
        connection.close(refusal.code(), detail.as_bytes());
    }

    /// Whether a line that a stranger provoked may be logged now.
    pub(crate) fn may_log(&self) -> bool {
        self.log_limit.permits(Instant::now())
    }

    /// Closes a connection that nobody needs.
    pub(crate) fn close_superseded(&self, connection: &quinn::Connection) {
        let code: VarInt = Refusal::Superseded.code();
        connection.close(code, b"another connection is kept");
    }
}

/// A random number of the system.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("the system provides random numbers");
    u64::from_le_bytes(bytes)
}
