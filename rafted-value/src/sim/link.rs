//! A connection between two nodes: ordered lanes in both directions.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::id::NodeId;
use crate::transport::{Lane, ServiceId};

/// One message under way.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) lane: Lane,
    pub(super) body: Body,
}

/// What a message says.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Cast { service: ServiceId, payload: Bytes },
    Request { call: CallId, service: ServiceId, payload: Bytes },
    Reply { call: CallId, payload: Bytes },
    GaveUp { call: CallId },
    NoService { call: CallId, service: ServiceId },
}

/// One call; never used twice in a simulation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct CallId(pub(super) u64);

impl Message {
    /// The size of what it carries.
    pub(super) fn bytes(&self) -> usize {
        self.trace().2.len()
    }

    /// Kind, service or call, and payload: what the trace remembers.
    pub(super) fn trace(&self) -> (u8, u64, &[u8]) {
        match &self.body {
            Body::Cast { service, payload } => (b'c', u64::from(service.0), payload),
            Body::Request { service, payload, .. } => (b'q', u64::from(service.0), payload),
            Body::Reply { call, payload } => (b'r', call.0, payload),
            Body::GaveUp { call } => (b'g', call.0, &[]),
            Body::NoService { call, .. } => (b'n', call.0, &[]),
        }
    }
}

/// Names a connection: both nodes, the lower id first. A node's way to itself is one as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LinkKey(pub(super) NodeId, pub(super) NodeId);

impl LinkKey {
    pub(super) fn new(a: NodeId, b: NodeId) -> Self {
        Self(a.min(b), a.max(b))
    }
}

/// A connection that stands.
#[derive(Debug)]
pub(super) struct Link {
    /// Where the two nodes of the key are.
    pub(super) addresses: (String, String),
    /// Set while one end hears nothing of the other; the connection is given up if it is still this one later.
    pub(super) silence: Option<u64>,
    lanes: BTreeMap<(NodeId, Lane), LaneQueue>,
}

/// The messages under way on one lane in one direction.
#[derive(Debug, Default)]
struct LaneQueue {
    messages: VecDeque<(u64, Message)>,
    last_arrival: u64,
}

impl Link {
    pub(super) fn new(addresses: (String, String)) -> Self {
        Self { addresses, silence: None, lanes: BTreeMap::new() }
    }

    /// How many messages of `from` wait on `lane`.
    pub(super) fn waiting(&self, from: NodeId, lane: Lane) -> usize {
        self.lanes.get(&(from, lane)).map_or(0, |queue| queue.messages.len())
    }

    /// How many messages are under way.
    pub(super) fn under_way(&self) -> usize {
        self.lanes.values().map(|queue| queue.messages.len()).sum()
    }

    /// Puts a message behind the others of its lane; it could arrive at `earliest` and then takes `transfer` to be
    /// read. Gives the time at which it does arrive.
    pub(super) fn push(&mut self, message: Message, earliest: u64, transfer: u64) -> u64 {
        let queue = self.lanes.entry((message.from, message.lane)).or_default();
        let arrival = earliest.max(queue.last_arrival).saturating_add(transfer);
        queue.last_arrival = arrival;
        queue.messages.push_back((arrival, message));
        arrival
    }

    /// The next message of a lane, if it has arrived by `now`.
    pub(super) fn pop(&mut self, from: NodeId, lane: Lane, now: u64) -> Option<Message> {
        let queue = self.lanes.get_mut(&(from, lane))?;
        let (arrival, _) = queue.messages.front()?;
        if *arrival > now {
            return None;
        }
        queue.messages.pop_front().map(|(_, message)| message)
    }

    /// Messages that should have arrived before now, but could not, arrive at `later`. Gives the lanes on which
    /// something waits that is due, and when it arrives.
    pub(super) fn postpone(&mut self, now: u64, later: u64) -> Vec<(NodeId, Lane, u64)> {
        let mut lanes = Vec::new();
        for ((from, lane), queue) in &mut self.lanes {
            let Some((first, _)) = queue.messages.front() else { continue };
            match first.cmp(&now) {
                Ordering::Less => {
                    for (due, _) in &mut queue.messages {
                        *due = later.max(*due);
                    }
                    queue.last_arrival = later.max(queue.last_arrival);
                    lanes.push((*from, *lane, later));
                }
                // It may have been turned away at this very instant.
                Ordering::Equal => lanes.push((*from, *lane, now)),
                Ordering::Greater => {}
            }
        }
        lanes
    }
}
