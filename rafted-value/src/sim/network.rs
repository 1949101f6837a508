//! The network: who listens where, which connections stand, what is under way, what is cut.
//!
//! Its lock is never held while a handler is called or dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{broadcast, oneshot};

use super::bulk::BulkRate;
use super::config::NetConfig;
use super::dial::{Dial, DialAttempt};
use super::endpoint::reply_to;
use super::executor::Executor;
use super::fate::Fate;
use super::faults::Cuts;
use super::link::{Body, CallId, Link, LinkKey, Message};
use super::random::{SimRng, Stream, after};
use crate::id::NodeId;
use crate::transport::{
    CallError, DownReason, EVENTS_MAX, Handler, Lane, PeerEvent, PeerInfo, SendError, ServiceId,
};

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
    /// A peer is told that the other end of the connection was killed.
    Death(LinkKey),
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
    pub(super) cuts: Cuts,
    seed: u64,
    /// One source for each direction between two nodes, so that one message more disturbs no other pair.
    sources: BTreeMap<(NodeId, NodeId), SimRng>,
    pub(super) silences: SimRng,
    pub(super) deaths: SimRng,
    next_id: u64,
}

/// A node that is alive, as the network sees it.
pub(super) struct Station {
    pub(super) info: PeerInfo,
    /// The version of the wire format that it speaks.
    pub(super) wire_version: u16,
    pub(super) paused: bool,
    /// Where to dial other nodes.
    pub(super) addresses: BTreeMap<NodeId, String>,
    pub(super) dials: BTreeMap<NodeId, Dial>,
    pub(super) discoveries: BTreeMap<u64, oneshot::Sender<Result<PeerInfo, CallError>>>,
    pub(super) dial_rng: SimRng,
    pub(super) handlers: BTreeMap<ServiceId, Arc<dyn Handler>>,
    /// Calls of this node that have no reply yet.
    pub(super) calls: BTreeMap<CallId, PendingCall>,
    /// How fast this node sends on its bulk lanes.
    pub(super) bulk: BulkRate,
    /// What becomes of this node's peers.
    pub(super) events: broadcast::Sender<PeerEvent>,
}

/// What nodes speak unless they are told otherwise.
const WIRE_VERSION: u16 = 1;

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
            cuts: Cuts::default(),
            seed,
            sources: BTreeMap::new(),
            silences: SimRng::new(seed, Stream::Silence),
            deaths: SimRng::new(seed, Stream::Deaths),
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
                // What a handler sends to its own node meanwhile has an event of its own.
                let waiting = self.state().waiting(from, to, lane);
                for _ in 0..waiting {
                    let Some(message) = self.next_arrived(from, to, lane) else { break };
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
            NetEvent::Death(link) => self.state().tell_death(link),
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

    /// Lets a node in. What an earlier life of it was connected to is told that it is over, as by a reset.
    pub(super) fn listen(&mut self, info: PeerInfo) {
        let node = info.node;
        assert!(!self.stations.contains_key(&node), "node {node} is alive");
        let former: Vec<LinkKey> =
            self.links.keys().filter(|key| key.0 == node || key.1 == node).copied().collect();
        former.into_iter().for_each(|key| self.disconnect(key, DownReason::Died));
        assert!(!self.listeners.contains_key(&info.address), "another node listens at {}", info.address);
        self.listeners.insert(info.address.clone(), node);
        let here = (info.address.clone(), info.address.clone());
        self.links.insert(LinkKey::new(node, node), Link::new(here));
        let station = Station {
            info,
            wire_version: WIRE_VERSION,
            paused: false,
            addresses: BTreeMap::new(),
            dials: BTreeMap::new(),
            discoveries: BTreeMap::new(),
            dial_rng: SimRng::new(self.seed, Stream::Dials(node)),
            handlers: BTreeMap::new(),
            calls: BTreeMap::new(),
            bulk: BulkRate::default(),
            events: broadcast::channel(EVENTS_MAX).0,
        };
        self.stations.insert(node, station);
    }

    /// Takes a node out without a word to anyone. The caller drops what is left of it after the lock.
    pub(super) fn vanish(&mut self, node: NodeId) -> Option<Station> {
        let station = self.stations.remove(&node)?;
        self.listeners.remove(&station.info.address);
        self.links.remove(&LinkKey::new(node, node));
        self.announce_death(node);
        self.review_links();
        Some(station)
    }

    /// Sends a message over a connection, or makes one first.
    pub(super) fn send(&mut self, message: Message) -> Result<(), SendError> {
        let (from, to) = (message.from, message.to);
        let limit_bytes = match message.lane {
            Lane::Control | Lane::Normal => self.config.message_bytes_max,
            Lane::Bulk => self.config.bulk_message_bytes_max,
        };
        let bytes = message.bytes();
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
        let station = self.stations.get_mut(&from).filter(|_| lane == Lane::Bulk);
        let departure = station.map_or(now, |station| station.bulk.depart(now, message.bytes()));
        let seed = self.seed;
        let rng = self.sources.entry((from, to)).or_insert_with(|| SimRng::new(seed, Stream::Link(from, to)));
        let fate = Fate::draw(&self.config, rng);
        let (arrival, straggling) =
            (after(departure, fate.delay), after(departure, fate.delay.saturating_add(fate.straggling)));
        if fate.lost {
            self.executor.count(|stats| stats.lost += 1);
            return Ok(());
        }
        // A request that was refused is told never to run: no transport may bring it again.
        if fate.duplicated && message.request().is_none() {
            self.executor.count(|stats| stats.duplicated += 1);
            self.executor.schedule(straggling, NetEvent::Straggler(message.clone()));
        }
        if fate.reordered {
            self.executor.count(|stats| stats.reordered += 1);
            self.executor.schedule(straggling, NetEvent::Straggler(message));
        } else {
            let bandwidth = self.config.bandwidth_bytes_per_second;
            let transfer = (message.bytes() as u64).saturating_mul(1_000_000_000) / bandwidth;
            let arrival = link.push(message, arrival, transfer);
            self.executor.schedule(arrival, NetEvent::Arrival { from, to, lane });
        }
        Ok(())
    }

    fn waiting(&self, from: NodeId, to: NodeId, lane: Lane) -> usize {
        self.links.get(&LinkKey::new(from, to)).map_or(0, |link| link.waiting(from, lane))
    }

    /// Whether a message can get from one node to the other now.
    fn is_passable(&self, from: NodeId, to: NodeId) -> bool {
        let Some(link) = self.links.get(&LinkKey::new(from, to)) else { return false };
        let (low, high) = (&link.addresses.0, &link.addresses.1);
        let cut = if from <= to { self.cuts.contains(low, high) } else { self.cuts.contains(high, low) };
        !cut && self.stations.get(&to).is_none_or(|station| !station.paused)
    }

    fn can_arrive(&self, message: &Message) -> bool {
        let passable = self.is_passable(message.from, message.to);
        if !passable {
            self.executor.count(|stats| stats.lost += 1);
        }
        passable
    }
}
