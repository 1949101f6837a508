//! The endpoint: what users of the crate hold.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::accept::accept_connections;
use crate::calls::Answer;
use crate::config::EndpointConfig;
use crate::counters::{Counters, LiveCounters};
use crate::deadlines::end_overdue_calls;
use crate::dial::dial;
use crate::error::{BindError, CallError, Destination, Failure, SendError};
use crate::expiry::{IdentityEvents, watch_expiry};
use crate::frame::Outcome;
use crate::handler::Handler;
use crate::id::{ClusterId, NodeId, ServiceId};
use crate::identity::Identity;
use crate::lane::Lane;
use crate::local::{LocalError, LocalLanes};
use crate::metrics::{publish, publish_now_and_then};
use crate::peer::Peer;
use crate::peer_event::PeerEvents;
use crate::peer_info::PeerInfo;
use crate::queue::{PushError, Pushed};
use crate::shared::Shared;
use crate::socket::open_socket;
use crate::tls::{client_config, server_config};

/// A node's door to the others: sends and receives messages over one connection per peer.
///
/// Clones share one endpoint; when the last one is dropped it closes as if by [`close`](Endpoint::close), in the
/// background: a program that ends right after it should wait for `close` instead.
#[derive(Clone)]
pub struct Endpoint {
    handle: Arc<Handle>,
}

/// What the clones share, apart from what the tasks hold: its end closes the endpoint.
struct Handle {
    shared: Arc<Shared>,
    local: LocalLanes,
    local_addr: SocketAddr,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.shared.is_closed() {
            let closing = Closing(self.shared.clone());
            self.shared.runtime.spawn(async move { closing.0.leave().await });
        }
    }
}

/// Closes the endpoint at the latest when it is dropped: a runtime that is gone drops the task unseen.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handle = &self.handle;
        f.debug_struct("Endpoint")
            .field("node", &self.node())
            .field("local_addr", &handle.local_addr)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Opens the socket and starts to accept connections, on the current tokio runtime.
    ///
    /// # Errors
    /// When a setting is out of range, the identity is unusable, the node's name is not in its certificate, or
    /// the address cannot be listened on; each names the thing. [`BindError::NoRuntime`] where the current runtime was built
    /// without IO or time, or there is none.
    pub async fn bind(config: EndpointConfig) -> Result<Endpoint, BindError> {
        config.check()?;
        check_name(&config, &config.identity)?;
        let counters = Arc::new(LiveCounters::default());
        let (quinn, listener) = open_socket(&config, &counters)?;
        let listen_error = |source| BindError::Listen { listen: config.listen, source };
        let local_addr = quinn.local_addr().map_err(listen_error)?;
        let advertised: Arc<str> = match &config.advertise {
            Some(advertise) => Arc::from(advertise.as_str()),
            None => Arc::from(local_addr.to_string()),
        };
        let client = client_config(&config, &config.identity)
            .map_err(|source| BindError::Identity { name: config.name.clone(), source })?;
        let shared = Arc::new(Shared::new(config, advertised, quinn, client, counters));
        tokio::spawn(accept_connections(shared.clone()));
        shared.start_lifelines(listener);
        tokio::spawn(watch_expiry(Arc::downgrade(&shared)));
        tokio::spawn(end_overdue_calls(Arc::downgrade(&shared)));
        tokio::spawn(publish_now_and_then(Arc::downgrade(&shared)));
        let config = &shared.config;
        let local = LocalLanes::start(config.node, config.queue_messages_max, &shared.services);
        tracing::info!(node = %config.node, name = config.name, %local_addr, "endpoint bound");
        Ok(Endpoint { handle: Arc::new(Handle { shared, local, local_addr }) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.shared().config.node
    }

    /// The address the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.local_addr
    }

    /// `host:port` under which peers reach this node, as it tells them.
    pub fn advertised(&self) -> &str {
        &self.shared().advertised
    }

    /// The cluster this node belongs to, if it knows.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.shared().cluster()
    }

    /// Proves itself with another identity from now on: a renewed certificate, or one of another CA.
    ///
    /// Connections that stand keep the identity they were made with. To change the CA, first give every node an
    /// identity that trusts both, then certificates of the new one, and last identities that trust the new one only.
    ///
    /// # Errors
    /// When the identity is unusable or not for this node's name; the old one stays.
    pub fn reload_identity(&self, identity: &Identity) -> Result<(), BindError> {
        let config = &self.shared().config;
        check_name(config, identity)?;
        let unusable = |source| BindError::Identity { name: config.name.clone(), source };
        let server = server_config(config, identity).map_err(unusable)?;
        let client = client_config(config, identity).map_err(unusable)?;
        self.shared().replace_identity(server, client, identity.validity());
        tracing::info!(node = %config.node, name = config.name, "identity replaced");
        Ok(())
    }

    /// When the certificate of this node expires; [`Identity::expires_at`] of the current identity.
    pub fn identity_expires_at(&self) -> SystemTime {
        self.shared().identity_validity().until
    }

    /// A watch of this node's certificate: whether it is time to renew it, now and whenever that changes.
    ///
    /// The same is logged: a warning when the certificate is about to expire, and one more each day.
    pub fn watch_identity(&self) -> IdentityEvents {
        self.shared().identity_events.watch()
    }

    /// Fixes the cluster this node belongs to.
    ///
    /// Until then it talks to every node of its CA. From then on a peer that names another cluster is refused
    /// and cut off, whichever side dialled; a peer that names none yet is accepted.
    pub fn set_cluster(&self, id: ClusterId) {
        self.shared().set_cluster(id);
    }

    /// Says where a node lives: `host:port`, a name being looked up anew at each dial.
    ///
    /// It takes the place of what the node itself advertised. Nothing is dialled before something is sent; a new
    /// address ends the refusals that an unreachable old one had brought on, the same address changes nothing.
    pub fn set_address(&self, node: NodeId, address: &str) {
        if node == self.node() {
            return;
        }
        // An entry may be dropped from the map between finding and using it: then there is a new one.
        while !self.shared().is_closed()
            && !self.shared().peer_or_new(node).set_address(self.shared(), address)
        {}
    }

    /// Forgets a node: closes its connection, drops what waits for it and where it lives.
    ///
    /// It may connect again. To be used for nodes that are gone for good: an endpoint remembers every address
    /// it was given.
    pub fn forget(&self, node: NodeId) {
        if let Some(peer) = self.shared().peer(node) {
            self.shared().remove_peer(&peer);
            peer.forget(self.shared(), &Failure::NoAddress);
        }
    }

    /// Puts a handler in charge of a service, for all peers and this node itself; it replaces the one before.
    pub fn register(&self, service: ServiceId, handler: Arc<dyn Handler>) {
        self.shared().services.register(service, handler);
    }

    /// Sends a message that nobody answers. It never blocks: the message is queued or refused.
    ///
    /// Messages to the same node on the same lane arrive in order while the connection lives. `Ok` means queued:
    /// what was handed to a connection that breaks is lost without notice, in whole or its tail; what still
    /// waited goes through the next connection, or is dropped and counted when there is none.
    ///
    /// A message to this very node skips the network: a task delivers it, in order per lane, never on the
    /// caller's stack.
    ///
    /// # Errors
    /// When the address is unknown, the peer is out of reach, its queue is full or the payload too large; all
    /// are counted in [`Counters::casts_dropped`].
    pub fn cast(&self, to: NodeId, lane: Lane, service: ServiceId, payload: Bytes) -> Result<(), SendError> {
        self.try_cast(to, lane, service, payload)
            .inspect_err(|_| self.shared().counters.casts_dropped.increment())
    }

    fn try_cast(&self, to: NodeId, lane: Lane, service: ServiceId, payload: Bytes) -> Result<(), SendError> {
        if to == self.node() {
            return self.cast_locally(lane, service, payload);
        }
        let peer = self.peer(to).map_err(|failure| failure.send_error(to))?;
        let pushed = peer.lane(lane).push_cast(service, &payload);
        self.after_push(&peer, lane, pushed)
    }

    /// Queues one cast for several services of a node.
    pub(crate) fn cast_fan_out(
        &self,
        to: NodeId,
        lane: Lane,
        services: &[ServiceId],
        payload: &Bytes,
    ) -> Result<(), SendError> {
        let result = self.peer(to).map_err(|failure| failure.send_error(to)).and_then(|peer| {
            let pushed = peer.lane(lane).push_fan_out(services, payload);
            self.after_push(&peer, lane, pushed)
        });
        result.inspect_err(|_| self.shared().counters.casts_dropped.increment())
    }

    fn after_push(
        &self,
        peer: &Arc<Peer>,
        lane: Lane,
        pushed: Result<Pushed, PushError>,
    ) -> Result<(), SendError> {
        let to = peer.node;
        match pushed {
            Ok(pushed) => {
                self.follow_up(peer, lane, pushed);
                Ok(())
            }
            Err(PushError::TooLarge { bytes, bytes_max }) => {
                Err(SendError::TooLarge { lane, bytes, bytes_max })
            }
            Err(PushError::Gate(failure)) => {
                peer.want(self.shared());
                Err(failure.send_error(to))
            }
            Err(PushError::Full { messages, bytes }) => {
                Err(SendError::QueueFull { node: to, lane, messages, bytes })
            }
            Err(PushError::Calls | PushError::OtherLink) => Err(SendError::Closed),
        }
    }

    fn cast_locally(&self, lane: Lane, service: ServiceId, payload: Bytes) -> Result<(), SendError> {
        self.check_local_size(lane, &payload).map_err(|(bytes, bytes_max)| SendError::TooLarge {
            lane,
            bytes,
            bytes_max,
        })?;
        if self.shared().is_leaving() {
            return Err(SendError::Closed);
        }
        self.handle.local.push(lane, service, payload, None).map_err(|error| match error {
            LocalError::Full => {
                let messages = self.shared().config.queue_messages_max;
                SendError::QueueFull { node: self.node(), lane, messages, bytes: 0 }
            }
            LocalError::Closed => SendError::Closed,
        })
    }

    /// What a peer would refuse is refused here too.
    fn check_local_size(&self, lane: Lane, payload: &Bytes) -> Result<(), (usize, usize)> {
        let bytes_max = self.shared().config.message_bytes_max(lane);
        if payload.len() > bytes_max { Err((payload.len(), bytes_max)) } else { Ok(()) }
    }

    /// Sends a message and waits for its answer, at most for `timeout`.
    ///
    /// The message is queued before this returns: calls and casts to the same node on the same lane arrive in
    /// the order of their calls. The answer comes on the same lane. Dropping the future gives the answer up, not
    /// the call.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::surely_not_delivered`] tells whether it may be tried elsewhere. A call to
    /// a node known to be out of reach fails at once.
    pub fn call(
        &self,
        to: NodeId,
        lane: Lane,
        service: ServiceId,
        payload: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + 'static + use<> {
        let deadline = deadline_after(timeout);
        let queued = self.begin_call(to, lane, service, payload, deadline);
        if queued.is_err() {
            self.shared().counters.calls_refused.increment();
        }
        async move {
            let (answer, pending) = queued?;
            let answer = match pending {
                // The endpoint itself ends it in time.
                Some(_) => answer.await,
                None => timeout_at(deadline, answer).await.unwrap_or(Ok(Answer::TimedOut)),
            };
            match answer {
                Ok(answer) => answer_to_result(answer, to, service, timeout),
                // The waiter was dropped without a word: the endpoint is gone.
                Err(_) => Err(CallError::Lost { node: to }),
            }
        }
    }

    fn begin_call(
        &self,
        to: NodeId,
        lane: Lane,
        service: ServiceId,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<(oneshot::Receiver<Answer>, Option<PendingCall>), CallError> {
        let (waiter, answer) = oneshot::channel();
        if to == self.node() {
            self.call_locally(lane, service, payload, waiter)?;
            return Ok((answer, None));
        }
        let peer = self.peer(to).map_err(|failure| failure.call_error(Destination::Node(to)))?;
        match peer.lane(lane).push_call(service, &payload, &peer.calls, deadline, waiter) {
            Ok((correlation, pushed)) => {
                self.shared().deadlines.add(deadline);
                let pending = PendingCall { peer, correlation };
                self.follow_up(&pending.peer, lane, pushed);
                Ok((answer, Some(pending)))
            }
            Err(PushError::Gate(failure)) => {
                peer.want(self.shared());
                Err(failure.call_error(Destination::Node(to)))
            }
            Err(PushError::TooLarge { bytes, bytes_max }) => {
                Err(CallError::TooLarge { lane, bytes, bytes_max })
            }
            Err(PushError::Full { messages, bytes }) => {
                let detail = format!("the {lane} lane is full with {messages} messages of {bytes} bytes");
                Err(CallError::Overloaded { node: to, detail: Arc::from(detail) })
            }
            Err(PushError::Calls | PushError::OtherLink) => {
                let detail = format!("{} calls are in flight", self.shared().config.calls_in_flight_max);
                Err(CallError::Overloaded { node: to, detail: Arc::from(detail) })
            }
        }
    }

    fn call_locally(
        &self,
        lane: Lane,
        service: ServiceId,
        payload: Bytes,
        waiter: oneshot::Sender<Answer>,
    ) -> Result<(), CallError> {
        self.check_local_size(lane, &payload).map_err(|(bytes, bytes_max)| CallError::TooLarge {
            lane,
            bytes,
            bytes_max,
        })?;
        if self.shared().is_leaving() {
            return Err(CallError::Closed);
        }
        self.handle.local.push(lane, service, payload, Some(waiter)).map_err(|error| match error {
            LocalError::Full => {
                let detail = format!("the {lane} lane to itself is full");
                CallError::Overloaded { node: self.node(), detail: Arc::from(detail) }
            }
            LocalError::Closed => CallError::Closed,
        })
    }

    /// Does what a push has left to do.
    fn follow_up(&self, peer: &Arc<Peer>, lane: Lane, pushed: Pushed) {
        match pushed {
            Pushed::Done => {}
            Pushed::MustDial => peer.want(self.shared()),
            Pushed::MustFlush => match peer.link() {
                Some(link) => link.flush(lane),
                // The connection has just ended: the next one will see to the lane.
                None => peer.lane(lane).wake_writer(),
            },
        }
    }

    fn peer(&self, node: NodeId) -> Result<Arc<Peer>, Failure> {
        if self.shared().is_leaving() {
            return Err(Failure::Closed);
        }
        self.shared().peer(node).ok_or(Failure::NoAddress)
    }

    /// Dials an address and learns who lives there; the connection is kept and used for that node.
    ///
    /// # Errors
    /// `Unreachable` when nobody answers in time, `Refused` when one of the two does not want the other (this
    /// node's own address included).
    pub async fn discover(&self, address: &str, timeout: Duration) -> Result<PeerInfo, CallError> {
        if self.shared().is_leaving() {
            return Err(CallError::Closed);
        }
        dial(self.shared(), address, None, deadline_after(timeout))
            .await
            .map_err(|failure| failure.call_error(Destination::Address(Arc::from(address))))
    }

    /// Whether there is a connection to the node now; always true for this node itself.
    pub fn is_connected(&self, node: NodeId) -> bool {
        node == self.node() || self.shared().peer(node).is_some_and(|peer| peer.link().is_some())
    }

    /// The nodes there are connections to.
    pub fn connected(&self) -> Vec<NodeId> {
        let peers = self.shared().peers();
        peers.iter().filter(|peer| peer.link().is_some()).map(|peer| peer.node).collect()
    }

    /// Events of all peers from now on: who is connected, suspected, gone, and why.
    ///
    /// To know who is connected already, ask [`connected`](Endpoint::connected) after this. All of it is a hint: a
    /// peer that is reported down may live behind a broken network.
    pub fn watch_peers(&self) -> PeerEvents {
        self.shared().peer_events.watch()
    }

    /// Closes the endpoint. Nothing more is taken; what is queued is written, waiting for a connection that is being
    /// made where it must, and each peer gets a goodbye once it has everything. Calls in flight are lost.
    ///
    /// That takes at most [`close_timeout`](EndpointConfig::close_timeout); what was not written by then is dropped.
    pub async fn close(&self) {
        self.shared().leave().await;
        let idle = self.shared().quinn.wait_idle();
        let _ = timeout_at(Instant::now() + Duration::from_secs(1), idle).await;
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        self.shared().counters.snapshot()
    }

    /// Tells the recorder of the `metrics` facade everything that is counted and held, as it is now.
    ///
    /// It happens by itself every [`metrics_interval`](EndpointConfig::metrics_interval).
    pub fn publish_metrics(&self) {
        publish(self.shared());
    }
}

/// Every peer would refuse a node whose name is not in its certificate.
fn check_name(config: &EndpointConfig, identity: &Identity) -> Result<(), BindError> {
    if identity.names().contains(&config.name) {
        return Ok(());
    }
    Err(BindError::NameNotCertified { name: config.name.clone(), certified: identity.names().to_vec() })
}

/// When a time from now on is over; times beyond what a clock can tell end in a century.
fn deadline_after(timeout: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now + CENTURY)
}

/// Takes its call out of the table when nobody waits for the answer any more.
struct PendingCall {
    peer: Arc<Peer>,
    correlation: u64,
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.peer.calls.remove(self.correlation);
    }
}

fn answer_to_result(
    answer: Answer,
    node: NodeId,
    service: ServiceId,
    timeout: Duration,
) -> Result<Bytes, CallError> {
    match answer {
        Answer::Outcome(Outcome::Reply(payload)) => Ok(payload),
        Answer::Outcome(Outcome::NoHandler) => Err(CallError::NoHandler { node, service }),
        Answer::Outcome(Outcome::NoReply) => Err(CallError::NoReply { node }),
        Answer::Outcome(Outcome::Overloaded) => {
            let detail = Arc::from("its handlers hold as many calls of this node as they may");
            Err(CallError::Overloaded { node, detail })
        }
        Answer::Lost => Err(CallError::Lost { node }),
        Answer::TimedOut => Err(CallError::Timeout { to: Destination::Node(node), timeout }),
        Answer::NotSent(failure) => Err(failure.call_error(Destination::Node(node))),
    }
}
