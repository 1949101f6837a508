//! The network: who listens where, which connections stand, what is under way, what is cut.
//!
//! Its lock is never held while a handler is called or dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::config::NetConfig;
use super::dial::{Dial, DialAttempt};
use super::endpoint::reply_to;
use super::executor::Executor;
use super::link::{Body, CallId, Link, LinkKey, Message};
use super::random::{SimRng, Stream, nanos};
use crate::id::NodeId;
use crate::transport::{CallError, ClusterId, Handler, Lane, PeerInfo, SendError, ServiceId};

/// The outcome of a call.
pub(super) type CallResult = Result<Bytes, CallError>;

/// What the network does when its time has come.
pub(super) enum NetEvent {
    /// Messages of `from` to `to` may have arrived on `lane`.
    Arrival { from: NodeId, to: NodeId, lane: Lane },
    /// A message arrives outside of its lane's order.
    Straggler(Message),
    /// A dial may be answered.
    Dial(DialAttempt),
    /// A connection is given up if the same silence still lasts.
    Silence { link: LinkKey, silence: u64 },
}

/// The network of one simulation.
pub(super) struct Network(Mutex<NetState>);

/// What the network knows.
pub(super) struct NetState {
    pub(super) executor: Arc<Executor>,
    pub(super) config: NetConfig,
    pub(super) stations: BTreeMap<NodeId, Station>,
    /// Who listens at an address.
    pub(super) listeners: BTreeMap<String, NodeId>,
    pub(super) links: BTreeMap<LinkKey, Link>,
    /// Ways, from one address to another, on which nothing gets through.
    cuts: BTreeSet<(String, String)>,
    seed: u64,
    /// One source for each direction between two nodes, so that one message more disturbs no other pair.
    sources: BTreeMap<(NodeId, NodeId), SimRng>,
    silences: SimRng,
    next_id: u64,
}

/// A node that is alive, as the network sees it.
pub(super) struct Station {
    pub(super) info: PeerInfo,
    pub(super) cluster: Option<ClusterId>,
    pub(super) paused: bool,
    /// Where to dial other nodes.
    pub(super) addresses: BTreeMap<NodeId, String>,
    pub(super) dials: BTreeMap<NodeId, Dial>,
    pub(super) discoveries: BTreeMap<u64, oneshot::Sender<Result<PeerInfo, CallError>>>,
    pub(super) dial_rng: SimRng,
    pub(super) handlers: BTreeMap<ServiceId, Arc<dyn Handler>>,
    /// Calls of this node that have no reply yet.
    pub(super) calls: BTreeMap<CallId, PendingCall>,
}

/// A call that waits for its reply.
pub(super) struct PendingCall {
    pub(super) to: NodeId,
    /// Whether the request has left; until then it waits for a connection.
    pub(super) sent: bool,
    pub(super) caller: oneshot::Sender<CallResult>,
}

impl Network {
    pub(super) fn new(executor: Arc<Executor>, seed: u64, config: NetConfig) -> Arc<Self> {
        config.check();
        Arc::new(Self(Mutex::new(NetState {
            executor,
            config,
            stations: BTreeMap::new(),
            listeners: BTreeMap::new(),
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            seed,
            sources: BTreeMap::new(),
            silences: SimRng::new(seed, Stream::Silence),
            next_id: 0,
        })))
    }

    /// Locks what the network knows.
    pub(super) fn state(&self) -> parking_lot::MutexGuard<'_, NetState> {
        self.0.lock()
    }

    /// Does what is due.
    pub(super) fn handle(self: &Arc<Self>, event: NetEvent) {
        match event {
            NetEvent::Arrival { from, to, lane } => {
                while let Some(message) = self.next_arrived(from, to, lane) {
                    self.deliver(message);
                }
            }
            NetEvent::Straggler(message) => {
                if self.state().can_arrive(&message) {
                    self.deliver(message);
                }
            }
            NetEvent::Dial(attempt) => self.state().answer_dial(attempt),
            NetEvent::Silence { link, silence } => self.state().end_silence(link, silence),
        }
    }

    fn next_arrived(&self, from: NodeId, to: NodeId, lane: Lane) -> Option<Message> {
        let mut state = self.state();
        if !state.is_passable(from, to) {
            return None;
        }
        let now = state.executor.now();
        state.links.get_mut(&LinkKey::new(from, to))?.pop(from, lane, now)
    }

    /// Gives a message to its handler or caller. No lock is held while a handler runs.
    fn deliver(self: &Arc<Self>, message: Message) {
        let mut state = self.state();
        let executor = Arc::clone(&state.executor);
        let Some(station) = state.stations.get_mut(&message.to) else {
            executor.count(|stats| stats.lost += 1);
            return;
        };
        let (kind, what, bytes) = message.trace();
        executor.record(kind, [message.from.0, message.to.0, message.lane as u64, what], bytes);
        executor.count(|stats| stats.delivered += 1);
        let Message { from, to, lane, body } = message;
        match body {
            Body::Cast { service, payload } => {
                let Some(handler) = station.handlers.get(&service).map(Arc::clone) else { return };
                drop(state);
                handler.on_cast(from, payload);
            }
            Body::Request { call, service, payload } => {
                match station.handlers.get(&service).map(Arc::clone) {
                    Some(handler) => {
                        drop(state);
                        handler.on_call(from, payload, reply_to(self, to, from, lane, call));
                    }
                    None => state.answer(Message {
                        from: to,
                        to: from,
                        lane,
                        body: Body::NoService { call, service },
                    }),
                }
            }
            Body::Reply { call, payload } => station.finish(call, Ok(payload)),
            Body::GaveUp { call } => station.finish(call, Err(CallError::Lost { node: from })),
            Body::NoService { call, service } => {
                station.finish(call, Err(CallError::NoService { node: from, service }));
            }
        }
    }
}

impl Station {
    /// Ends a call; nothing happens if it has ended.
    pub(super) fn finish(&mut self, call: CallId, result: CallResult) {
        if let Some(pending) = self.calls.remove(&call) {
            // The caller may have gone; then nobody wants the result.
            let _ = pending.caller.send(result);
        }
    }
}

impl NetState {
    /// A number that no other id of this network has.
    pub(super) fn draw_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Lets a node in.
    pub(super) fn listen(&mut self, info: PeerInfo) {
        let node = info.node;
        assert!(!self.listeners.contains_key(&info.address), "another node listens at {}", info.address);
        self.listeners.insert(info.address.clone(), node);
        let here = (info.address.clone(), info.address.clone());
        self.links.insert(LinkKey::new(node, node), Link::new(here));
        let station = Station {
            info,
            cluster: None,
            paused: false,
            addresses: BTreeMap::new(),
            dials: BTreeMap::new(),
            discoveries: BTreeMap::new(),
            dial_rng: SimRng::new(self.seed, Stream::Dials(node)),
            handlers: BTreeMap::new(),
            calls: BTreeMap::new(),
        };
        self.stations.insert(node, station);
    }

    /// Takes a node out without a word to anyone. The caller drops what is left of it after the lock.
    pub(super) fn vanish(&mut self, node: NodeId) -> Option<Station> {
        let station = self.stations.remove(&node)?;
        self.listeners.remove(&station.info.address);
        self.links.remove(&LinkKey::new(node, node));
        self.review_links();
        Some(station)
    }

    /// Sends a message over a connection, or makes one first.
    pub(super) fn send(&mut self, message: Message) -> Result<(), SendError> {
        let (from, to) = (message.from, message.to);
        let (bytes, limit_bytes) = (message.bytes(), self.config.message_bytes_max);
        if bytes > limit_bytes {
            return Err(SendError::TooLarge { bytes, limit_bytes });
        }
        if !self.stations.contains_key(&from) {
            return Err(SendError::Unreachable { node: to, reason: "this node was killed".to_owned() });
        }
        if self.links.contains_key(&LinkKey::new(from, to)) {
            self.transmit(message)
        } else {
            self.send_after_dial(message)
        }
    }

    /// Sends an answer over the connection that the call came by; without it, the answer is lost.
    pub(super) fn answer(&mut self, message: Message) {
        let alive = self.stations.contains_key(&message.from);
        if !alive || self.transmit(message).is_err() {
            self.executor.count(|stats| stats.lost += 1);
        }
    }

    /// Puts a message on its lane of a connection that stands.
    pub(super) fn transmit(&mut self, message: Message) -> Result<(), SendError> {
        let (from, to, lane) = (message.from, message.to, message.lane);
        let Some(link) = self.links.get_mut(&LinkKey::new(from, to)) else {
            return Err(SendError::Unreachable { node: to, reason: "not connected".to_owned() });
        };
        if link.waiting(from, lane) >= self.config.queue_messages_max {
            return Err(SendError::QueueFull { node: to });
        }
        let now = self.executor.now();
        if from == to {
            let arrival = link.push(message, now, 0);
            self.executor.schedule(arrival, NetEvent::Arrival { from, to, lane });
            return Ok(());
        }
        let seed = self.seed;
        let rng = self.sources.entry((from, to)).or_insert_with(|| SimRng::new(seed, Stream::Link(from, to)));
        let fate = Fate::draw(&self.config, rng);
        if fate.lost {
            self.executor.count(|stats| stats.lost += 1);
            return Ok(());
        }
        if fate.duplicated {
            self.executor.count(|stats| stats.duplicated += 1);
            self.executor.schedule(now + fate.delay + fate.straggling, NetEvent::Straggler(message.clone()));
        }
        if fate.reordered {
            self.executor.count(|stats| stats.reordered += 1);
            self.executor.schedule(now + fate.delay + fate.straggling, NetEvent::Straggler(message));
        } else {
            let bandwidth = self.config.bandwidth_bytes_per_second;
            let transfer = (message.bytes() as u64).saturating_mul(1_000_000_000) / bandwidth;
            let arrival = link.push(message, now + fate.delay, transfer);
            self.executor.schedule(arrival, NetEvent::Arrival { from, to, lane });
        }
        Ok(())
    }

    /// Whether a message can get from one node to the other now.
    fn is_passable(&self, from: NodeId, to: NodeId) -> bool {
        let Some(link) = self.links.get(&LinkKey::new(from, to)) else { return false };
        let (low, high) = (&link.addresses.0, &link.addresses.1);
        let cut = if from <= to { self.is_cut(low, high) } else { self.is_cut(high, low) };
        !cut && self.stations.get(&to).is_none_or(|station| !station.paused)
    }

    fn can_arrive(&self, message: &Message) -> bool {
        let passable = self.is_passable(message.from, message.to);
        if !passable {
            self.executor.count(|stats| stats.lost += 1);
        }
        passable
    }

    /// Whether nothing gets from one address to the other.
    pub(super) fn is_cut(&self, from: &str, to: &str) -> bool {
        !self.cuts.is_empty() && from != to && self.cuts.contains(&(from.to_owned(), to.to_owned()))
    }

    /// Cuts a way, or mends it; [`review_links`](Self::review_links) must follow.
    pub(super) fn set_cut(&mut self, from: &str, to: &str, cut: bool) {
        let way = (from.to_owned(), to.to_owned());
        if cut {
            self.cuts.insert(way)
        } else {
            self.cuts.remove(&way)
        };
    }

    /// Mends all ways; [`review_links`](Self::review_links) must follow.
    pub(super) fn mend_all(&mut self) {
        self.cuts.clear();
    }

    /// Stops a node or lets it go on.
    pub(super) fn set_paused(&mut self, node: NodeId, paused: bool) {
        if let Some(station) = self.stations.get_mut(&node) {
            station.paused = paused;
            self.review_links();
        }
    }

    /// Starts and ends silences after what is cut, paused or dead has changed, and sends on what waited for that.
    pub(super) fn review_links(&mut self) {
        let (stations, now) = (&self.stations, self.executor.now());
        let abandoned = |key: &LinkKey| !stations.contains_key(&key.0) && !stations.contains_key(&key.1);
        self.links.retain(|key, _| !abandoned(key));
        let keys: Vec<LinkKey> = self.links.keys().copied().collect();
        for key in keys {
            let silent = self.is_silent(key);
            let fresh = self.draw_id();
            let wait = nanos(self.silences.duration(self.config.silence_min, self.config.silence_max));
            let back = nanos(self.config.delay_max);
            let Some(link) = self.links.get_mut(&key) else { continue };
            match (silent, link.silence) {
                (true, None) => {
                    link.silence = Some(fresh);
                    self.executor.schedule(now + wait, NetEvent::Silence { link: key, silence: fresh });
                }
                (false, Some(_)) => link.silence = None,
                _ => {}
            }
            for (from, lane) in link.postpone(now, now + back) {
                let to = if from == key.0 { key.1 } else { key.0 };
                self.executor.schedule(now + back, NetEvent::Arrival { from, to, lane });
            }
        }
    }

    /// Whether one end of a connection hears nothing of the other.
    fn is_silent(&self, key: LinkKey) -> bool {
        if key.0 == key.1 {
            return false;
        }
        let up = |node| self.stations.get(&node).is_some_and(|station| !station.paused);
        let cut = self.links.get(&key).is_some_and(|link| {
            self.is_cut(&link.addresses.0, &link.addresses.1)
                || self.is_cut(&link.addresses.1, &link.addresses.0)
        });
        cut || !up(key.0) || !up(key.1)
    }

    fn end_silence(&mut self, key: LinkKey, silence: u64) {
        if self.links.get(&key).is_some_and(|link| link.silence == Some(silence)) {
            self.disconnect(key);
        }
    }

    /// Ends a connection: what is under way on it is lost, and calls that went over it end.
    pub(super) fn disconnect(&mut self, key: LinkKey) {
        let Some(link) = self.links.remove(&key) else { return };
        self.executor.record(b'd', [key.0.0, key.1.0], &[]);
        self.executor.count(|stats| {
            stats.disconnected += 1;
            stats.lost += link.under_way() as u64;
        });
        for (caller, callee) in [(key.0, key.1), (key.1, key.0)] {
            let Some(station) = self.stations.get_mut(&caller) else { continue };
            let sent = station.calls.iter().filter(|(_, call)| call.sent && call.to == callee);
            let calls: Vec<CallId> = sent.map(|(id, _)| *id).collect();
            for call in calls {
                station.finish(call, Err(CallError::Lost { node: callee }));
            }
        }
    }
}

/// What happens to one message on its way.
struct Fate {
    delay: u64,
    /// How much later it arrives if it leaves its place.
    straggling: u64,
    lost: bool,
    duplicated: bool,
    reordered: bool,
}

impl Fate {
    /// Draws the same amount for each message, so that switching a fault on moves no other message's delay.
    fn draw(config: &NetConfig, rng: &mut SimRng) -> Self {
        Self {
            delay: nanos(rng.duration(config.delay_min, config.delay_max)),
            straggling: nanos(rng.duration(std::time::Duration::ZERO, config.straggling_max)),
            lost: rng.chance(config.loss),
            duplicated: rng.chance(config.duplication),
            reordered: rng.chance(config.reordering),
        }
    }
}
