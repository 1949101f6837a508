//! Dialling: how a node finds out who listens at an address, and a connection comes to stand.

use std::time::Duration;

use super::link::{Body, CallId, Link, LinkKey, Message};
use super::network::{NetEvent, NetState};
use super::random::after;
use crate::id::NodeId;
use crate::transport::{CallError, PeerChange, PeerInfo, SendError};

/// A dial that nobody answers is repeated this often.
const REPEAT: Duration = Duration::from_millis(100);

/// The state of one node's way to another to which it has no connection.
pub(super) enum Dial {
    /// A connection is being made; these messages wait for it.
    UnderWay { waiting: Vec<Message> },
    /// It could not be made.
    Failed { reason: String, retry_at: u64 },
}

/// One dial of an address.
pub(super) struct DialAttempt {
    from: NodeId,
    address: String,
    purpose: Purpose,
    /// How long question and answer take.
    round_trip: Duration,
    deadline: u64,
}

/// Why an address is dialled.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// To connect to this node.
    Connect(NodeId),
    /// To tell this discovery who is there.
    Discover(u64),
}

/// What a dial meets.
enum Answer {
    Peer(PeerInfo),
    Refused(String),
    None,
}

impl NetState {
    /// Lets a message wait for a connection that is made for it.
    pub(super) fn send_after_dial(&mut self, message: Message) -> Result<(), SendError> {
        let (from, node) = (message.from, message.to);
        let unreachable = |reason: &str| SendError::Unreachable { node, reason: reason.to_owned() };
        let (now, waiting_max) = (self.executor.now(), self.config.queue_messages_max);
        let Some(station) = self.stations.get_mut(&from) else {
            return Err(unreachable("this node was killed"));
        };
        let address = station.addresses.get(&node).cloned();
        match station.dials.get_mut(&node) {
            Some(Dial::UnderWay { waiting }) if waiting.len() >= waiting_max => {
                return Err(SendError::QueueFull { node });
            }
            Some(Dial::UnderWay { waiting }) => {
                waiting.push(message);
                return Ok(());
            }
            Some(Dial::Failed { reason, retry_at }) if now < *retry_at => return Err(unreachable(reason)),
            Some(Dial::Failed { .. }) | None => {}
        }
        let Some(address) = address else { return Err(unreachable("its address is not known")) };
        station.dials.insert(node, Dial::UnderWay { waiting: vec![message] });
        self.dial(from, address, Purpose::Connect(node));
        Ok(())
    }

    /// Dials an address.
    pub(super) fn dial(&mut self, from: NodeId, address: String, purpose: Purpose) {
        let (min, max, now) = (self.config.delay_min, self.config.delay_max, self.executor.now());
        let deadline = after(now, self.config.dial_timeout);
        let Some(station) = self.stations.get_mut(&from) else { return };
        let round_trip = station.dial_rng.duration(min, max) + station.dial_rng.duration(min, max);
        let attempt = DialAttempt { from, address, purpose, round_trip, deadline };
        self.executor.schedule(after(now, round_trip), NetEvent::Dial(attempt));
    }

    /// Ends a dial with what answers at the address now, or repeats it.
    pub(super) fn answer_dial(&mut self, mut attempt: DialAttempt) {
        let (now, from) = (self.executor.now(), attempt.from);
        let Some(station) = self.stations.get(&from) else { return };
        if let Purpose::Connect(node) = attempt.purpose
            && let Some(address) = station.addresses.get(&node)
        {
            // A newer address may have become known since.
            attempt.address.clone_from(address);
        }
        match (self.look(from, &attempt.address), attempt.purpose) {
            (Answer::Peer(peer), Purpose::Connect(node)) if peer.node == node => self.connect(from, node),
            (Answer::Peer(peer), Purpose::Connect(node)) => {
                let reason = format!("node {} is at {} now", peer.node, attempt.address);
                self.fail_dial(from, node, &reason);
            }
            (Answer::Peer(peer), Purpose::Discover(discovery)) => {
                self.connect(from, peer.node);
                self.end_discovery(from, discovery, Ok(peer));
            }
            (Answer::None, _) if now < attempt.deadline => {
                let again = after(now, attempt.round_trip.max(REPEAT)).min(attempt.deadline);
                self.executor.schedule(again, NetEvent::Dial(attempt));
            }
            (Answer::None, purpose) => {
                let waited = self.config.dial_timeout.as_millis();
                self.end_dial(from, purpose, &attempt.address, &format!("no answer in {waited} ms"));
            }
            (Answer::Refused(reason), purpose) => self.end_dial(from, purpose, &attempt.address, &reason),
        }
    }

    fn end_dial(&mut self, from: NodeId, purpose: Purpose, address: &str, reason: &str) {
        match purpose {
            Purpose::Connect(node) => self.fail_dial(from, node, &format!("{reason} at {address}")),
            Purpose::Discover(discovery) => {
                let nobody = CallError::NoPeer { address: address.to_owned(), reason: reason.to_owned() };
                self.end_discovery(from, discovery, Err(nobody));
            }
        }
    }

    fn end_discovery(&mut self, from: NodeId, discovery: u64, result: Result<PeerInfo, CallError>) {
        let Some(station) = self.stations.get_mut(&from) else { return };
        if let Some(caller) = station.discoveries.remove(&discovery) {
            // Whoever asked may have gone.
            let _ = caller.send(result);
        }
    }

    /// Who answers at an address.
    fn look(&self, from: NodeId, address: &str) -> Answer {
        let (Some(here), Some(node)) = (self.stations.get(&from), self.listeners.get(address)) else {
            return Answer::None;
        };
        let Some(there) = self.stations.get(node) else { return Answer::None };
        let own = &here.info.address;
        if here.paused || there.paused || self.cuts.contains(own, address) || self.cuts.contains(address, own)
        {
            return Answer::None;
        }
        let (ours, theirs) = (here.wire_version, there.wire_version);
        match (here.info.cluster, there.info.cluster) {
            _ if ours != theirs => Answer::Refused(format!(
                "another wire version: node {node} speaks version {theirs}, this node {ours}"
            )),
            (Some(ours), Some(theirs)) if ours != theirs => {
                Answer::Refused(format!("node {node} is of cluster {theirs}, this one of {ours}"))
            }
            _ => Answer::Peer(there.info.clone()),
        }
    }

    /// Makes a connection if there is none, and sends what waited for it on both sides.
    fn connect(&mut self, a: NodeId, b: NodeId) {
        let key = LinkKey::new(a, b);
        if self.links.contains_key(&key) {
            return;
        }
        let (Some(low), Some(high)) = (self.stations.get(&key.0), self.stations.get(&key.1)) else { return };
        let addresses = (low.info.address.clone(), high.info.address.clone());
        self.links.insert(key, Link::new(addresses));
        self.executor.record(b'u', [key.0.0, key.1.0], &[]);
        self.executor.count(|stats| stats.connected += 1);
        for (from, to) in [(a, b), (b, a)] {
            self.tell_watchers(from, to, PeerChange::Up);
            let dial = self.stations.get_mut(&from).and_then(|station| station.dials.remove(&to));
            let Some(Dial::UnderWay { waiting }) = dial else { continue };
            for message in waiting {
                self.send_waiting(message);
            }
        }
    }

    fn send_waiting(&mut self, message: Message) {
        let Some(station) = self.stations.get_mut(&message.from) else { return };
        let (from, request) = (message.from, message.request());
        if let Some(request) = request {
            // A call that timed out meanwhile was told that it was never sent.
            let Some(call) = station.calls.get_mut(&request) else { return };
            call.sent = true;
        }
        if let Err(error) = self.transmit(message)
            && let (Some(request), Some(station)) = (request, self.stations.get_mut(&from))
        {
            station.finish(request, Err(CallError::NotSent(error)));
        }
    }

    /// No connection could be made: what waited for it is lost, and calls are told so.
    fn fail_dial(&mut self, from: NodeId, node: NodeId, reason: &str) {
        let retry_at = after(self.executor.now(), self.config.redial_wait);
        let Some(station) = self.stations.get_mut(&from) else { return };
        let Some(Dial::UnderWay { waiting }) = station.dials.remove(&node) else { return };
        station.dials.insert(node, Dial::Failed { reason: reason.to_owned(), retry_at });
        for message in waiting {
            match message.request() {
                Some(call) => {
                    let unreachable = SendError::Unreachable { node, reason: reason.to_owned() };
                    station.finish(call, Err(CallError::NotSent(unreachable)));
                }
                None => self.executor.count(|stats| stats.lost += 1),
            }
        }
    }
}

impl Message {
    /// The call that this message asks for.
    pub(super) fn request(&self) -> Option<CallId> {
        match self.body {
            Body::Request { call, .. } => Some(call),
            _ => None,
        }
    }
}
