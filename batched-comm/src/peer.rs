//! Everything an endpoint holds about one other node: its queues, its calls, its connection, its address.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::admits;
use crate::calls::CallTable;
use crate::config::EndpointConfig;
use crate::dial::dial_until_connected;
use crate::error::Failure;
use crate::hello::Confirm;
use crate::id::NodeId;
use crate::lane::Lane;
use crate::lane_settings::LaneSettings;
use crate::link::Link;
use crate::peer_event::{DownReason, PeerChange};
use crate::queue::{Gate, LaneQueue, QueueLimits};
use crate::refusal::Refusal;
use crate::sending_stats::Collectors;
use crate::shared::{Shared, random_u64};

/// One other node.
///
/// Locks are taken in this order: the state, a lane's queue, the calls.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) calls: CallTable,
    lanes: [LaneQueue; 3],
    pub(crate) collectors: Collectors,
    state: Mutex<PeerState>,
    /// Told whenever the state changes in a way that somebody may wait for.
    pub(crate) changed: Notify,
}

/// What is known about the way to a node.
pub(crate) struct PeerState {
    /// `host:port`.
    address: Option<Arc<str>>,
    /// The user named the address, rather than the peer itself: the entry stays when the peer goes.
    is_address_given: bool,
    link: Option<Arc<Link>>,
    /// The id of the last connection that was lost.
    previous: Option<u64>,
    /// A connection dialled here waits for the peer's verdict.
    is_confirming: bool,
    is_dialling: bool,
    /// The entry is not in the map any more.
    is_forgotten: bool,
    /// Dials that went wrong, and connections that broke right away, since the last good one.
    failures: u32,
    /// Whether the last connection was short, and ended because another took its place.
    was_superseded: bool,
    /// What watchers have been told.
    told: Told,
    /// When something was last sent without a connection.
    wanted: Instant,
}

/// What watchers have been told of a peer last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Up,
    Suspect,
    Down,
}

/// How a connection ended, as its own tasks see it.
pub(crate) enum Ending<'a> {
    /// QUIC says so.
    Closed(&'a quinn::ConnectionError),
    /// The peer's system has ended the lifeline.
    Died,
    /// The peer has said goodbye.
    Left,
}

impl Ending<'_> {
    fn reason(&self) -> DownReason {
        let error = match self {
            Ending::Died => return DownReason::Died,
            Ending::Left => return DownReason::Left,
            Ending::Closed(error) => error,
        };
        match (error, Refusal::of_connection(error)) {
            (_, Some(Refusal::ShuttingDown)) => DownReason::Left,
            (_, Some(Refusal::Superseded)) => DownReason::Broken,
            (_, Some(refusal)) => DownReason::Refused(refusal),
            (quinn::ConnectionError::TimedOut, None) => DownReason::Silent,
            // The reset comes from another process with this one's key.
            (quinn::ConnectionError::Reset, None) => DownReason::Replaced,
            (_, None) => DownReason::Broken,
        }
    }

    /// What whoever waits for the peer is told, if it must not wait on.
    fn failure(&self, is_short: bool) -> Option<Failure> {
        let unreachable = |reason: &str| Some(Failure::Unreachable(Arc::from(reason)));
        match (self, self.reason()) {
            (Ending::Died, _) => unreachable("its process has ended"),
            (Ending::Left, _) => {
                Some(Failure::Refused(Refusal::ShuttingDown, Arc::from("it has said goodbye")))
            }
            (Ending::Closed(error), DownReason::Refused(refusal)) => {
                Some(Failure::Refused(refusal, Arc::from(error.to_string())))
            }
            (Ending::Closed(error), DownReason::Left) => {
                Some(Failure::Refused(Refusal::ShuttingDown, Arc::from(error.to_string())))
            }
            (Ending::Closed(error), _) if is_short => unreachable(&error.to_string()),
            (Ending::Closed(_), _) => None,
        }
    }
}

/// The end of a dial's own handshake: whether to go on with the new connection.
pub(crate) enum Confirmation<'a> {
    /// There is one already.
    Connected,
    /// Ask the peer for its verdict; until the guard drops, no other dial of this node does.
    Ask { previous: Option<u64>, guard: ConfirmGuard<'a> },
}

/// While it lives, a connection dialled here waits for the peer's verdict.
pub(crate) struct ConfirmGuard<'a>(&'a Peer);

impl Drop for ConfirmGuard<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_confirming = false;
        self.0.changed.notify_waiters();
    }
}

impl Peer {
    pub(crate) fn new(node: NodeId, config: &EndpointConfig, settings: [LaneSettings; 3]) -> Peer {
        let lane = |lane| {
            let limits = QueueLimits {
                messages_max: config.queue_messages_max,
                bytes_max: config.queue_bytes_max,
                payload_bytes_max: config.message_bytes_max(lane),
            };
            LaneQueue::new(lane, limits, settings[lane.index()])
        };
        Peer {
            node,
            calls: CallTable::new(config.calls_in_flight_max, random_u64() as u32),
            lanes: Lane::ALL.map(lane),
            collectors: Collectors::default(),
            state: Mutex::new(PeerState {
                address: None,
                is_address_given: false,
                link: None,
                previous: None,
                is_confirming: false,
                is_dialling: false,
                is_forgotten: false,
                failures: 0,
                was_superseded: false,
                told: Told::Down,
                wanted: Instant::now(),
            }),
            changed: Notify::new(),
        }
    }

    pub(crate) fn lane(&self, lane: Lane) -> &LaneQueue {
        &self.lanes[lane.index()]
    }

    /// How many messages wait on all lanes, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let waiting = self.lanes.iter().map(LaneQueue::waiting);
        waiting.fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1))
    }

    /// The current connection.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.state.lock().link.clone()
    }

    /// Where to dial, by the user's word; false when this entry has been dropped.
    pub(crate) fn set_address(&self, shared: &Shared, address: &str) -> bool {
        let mut state = self.state.lock();
        if state.is_forgotten {
            return false;
        }
        state.is_address_given = true;
        if state.address.as_deref() == Some(address) {
            return true;
        }
        state.address = Some(Arc::from(address));
        state.failures = 0;
        if state.link.is_none() {
            self.set_gates(if state.is_dialling { &Gate::Open } else { &Gate::Idle });
        }
        drop(state);
        tracing::debug!(node = %shared.config.node, peer = %self.node, address, "address set");
        self.changed.notify_waiters();
        true
    }

    /// Where to dial, by the peer's own word, unless the user has said otherwise.
    pub(crate) fn learn_address(&self, address: &str) {
        let mut state = self.state.lock();
        if !state.is_address_given && !address.is_empty() {
            state.address = Some(Arc::from(address));
        }
    }

    pub(crate) fn address(&self) -> Option<Arc<str>> {
        self.state.lock().address.clone()
    }

    fn set_gates(&self, gate: &Gate) {
        for lane in &self.lanes {
            lane.set_gate(gate.clone());
        }
    }

    /// Something is to be sent and there is no connection: sees to it that somebody dials.
    pub(crate) fn want(self: &Arc<Peer>, shared: &Arc<Shared>) {
        let mut state = self.state.lock();
        state.wanted = Instant::now();
        if state.link.is_none() && !state.is_dialling {
            self.start_dialling(shared, &mut state);
        }
    }

    fn start_dialling(self: &Arc<Peer>, shared: &Arc<Shared>, state: &mut PeerState) {
        if state.is_forgotten || shared.is_closed() {
            return;
        }
        if state.address.is_none() {
            self.refuse_all(shared, &Failure::NoAddress);
            return;
        }
        if !std::mem::replace(&mut state.is_dialling, true) {
            // Whoever sends need not be on the runtime.
            shared.runtime.spawn(dial_until_connected(shared.clone(), self.clone()));
        }
        if state.failures == 0 {
            self.set_gates(&Gate::Open);
        }
    }

    /// Closes the gates: what is queued is dropped or failed, and what comes is refused with `failure`.
    fn refuse_all(&self, shared: &Shared, failure: &Failure) {
        let casts: u64 = self.lanes.iter().map(|lane| lane.refuse(failure)).sum();
        shared.counters.casts_dropped.add(casts);
        shared.counters.calls_refused.add(self.calls.fail_queued(failure));
    }

    /// Takes the queues from a connection; its calls are lost.
    fn detach(&self, shared: &Shared) {
        let mut taken = [0; 3];
        for lane in Lane::ALL {
            taken[lane.index()] = self.lane(lane).detach();
        }
        shared.counters.calls_lost.add(self.calls.fail_sent(taken));
    }

    /// Whether there is a connection to this node on which it was heard lately.
    pub(crate) fn is_heard(&self) -> bool {
        let state = self.state.lock();
        state.link.is_some() && state.told == Told::Up
    }

    /// A dial has reached this node: whether its connection is needed. Waits for another dial's verdict.
    pub(crate) async fn confirm(&self, instance: u64) -> Confirmation<'_> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                let is_current = state.link.as_ref().is_some_and(|link| link.hello.instance == instance);
                if is_current {
                    return Confirmation::Connected;
                }
                if !state.is_confirming {
                    state.is_confirming = true;
                    return Confirmation::Ask { previous: state.previous, guard: ConfirmGuard(self) };
                }
            }
            changed.await;
        }
    }

    /// The accepting side's verdict on a connection the peer has confirmed; taken ones are started.
    pub(crate) fn admit(self: &Arc<Peer>, link: Arc<Link>, confirm: Confirm) -> bool {
        let mut state = self.state.lock();
        let current = state.link.as_ref().map(|link| link.summary());
        let here = link.shared.config.node;
        let is_admitted = admits(here, self.node, current, state.is_confirming, link.hello.instance, confirm);
        if is_admitted {
            self.install(&mut state, link);
        }
        is_admitted
    }

    /// Starts a connection that was dialled here and accepted there.
    pub(crate) fn accepted(self: &Arc<Peer>, link: Arc<Link>) {
        self.install(&mut self.state.lock(), link);
    }

    fn install(self: &Arc<Peer>, state: &mut MutexGuard<'_, PeerState>, link: Arc<Link>) {
        let shared = link.shared.clone();
        if state.is_forgotten || shared.is_closed() {
            link.connection.close(Refusal::ShuttingDown.code(), b"the endpoint is closed");
            return;
        }
        if let Some(old) = state.link.take() {
            if old.hello.instance != link.hello.instance {
                self.tell(&shared, state, PeerChange::Down(DownReason::Replaced));
            }
            self.detach(&shared);
            shared.close_superseded(&old.connection);
            shared.counters.connections_lost.increment();
        }
        state.link = Some(link.clone());
        for lane in &self.lanes {
            lane.attach(link.id);
        }
        shared.counters.connections_established.increment();
        let address = link.connection.remote_address();
        tracing::info!(node = %shared.config.node, peer = %self.node, %address, "connected");
        self.tell(&shared, state, PeerChange::Up);
        link.start();
        self.changed.notify_waiters();
    }

    /// A connection has ended. If it was the current one its calls are lost and a new one is sought.
    ///
    /// A peer that has left is dialled again when something is sent to it, any other at once.
    pub(crate) fn lost(self: &Arc<Peer>, link: &Link, ending: &Ending<'_>) {
        let shared = &link.shared;
        let mut state = self.state.lock();
        if state.link.as_ref().is_none_or(|current| current.id != link.id) {
            return;
        }
        state.link = None;
        state.previous = Some(link.id);
        state.wanted = Instant::now();
        self.detach(shared);
        shared.counters.connections_lost.increment();
        let reason = ending.reason();
        match ending {
            Ending::Closed(error) => {
                tracing::info!(node = %shared.config.node, peer = %self.node, ?reason, %error, "peer down");
            }
            _ => tracing::info!(node = %shared.config.node, peer = %self.node, ?reason, "peer down"),
        }
        if reason == DownReason::Died {
            shared.counters.peers_died.increment();
        }
        self.tell(shared, &mut state, PeerChange::Down(reason));
        // A connection that broke right away counts as a dial that went wrong: no tight loop of reconnects.
        let is_short = link.established.elapsed() < shared.config.reconnect_backoff_max;
        let is_superseded = matches!(
            ending,
            Ending::Closed(error) if Refusal::of_connection(error) == Some(Refusal::Superseded)
        );
        // Another connection took the place of one that was made at the same time. Where it happens again, another process
        // pushes this one out, and is pushed out in turn.
        let is_harmless = is_superseded && !state.was_superseded;
        state.was_superseded = is_short && is_superseded;
        state.failures = if is_short && !is_harmless { state.failures.saturating_add(1) } else { 0 };
        if let Some(failure) = ending.failure(state.failures > 0) {
            state.failures = state.failures.max(1);
            self.refuse_all(shared, &failure);
        }
        // Whoever has a certificate may come and go under ever other ids: not all of them are looked for.
        let is_one_too_many = !state.is_address_given && shared.knows_too_many();
        if reason != DownReason::Left && !is_one_too_many {
            self.start_dialling(shared, &mut state);
        }
        drop(state);
        self.drop_if_unused(shared);
        self.changed.notify_waiters();
    }

    /// Whether this connection's beats are missed, or heard again.
    pub(crate) fn suspected(&self, link: &Link, change: PeerChange) {
        let mut state = self.state.lock();
        if state.link.as_ref().is_some_and(|current| current.id == link.id) {
            let node = link.shared.config.node;
            tracing::info!(%node, peer = %self.node, ?change, "the peer's silence has changed");
            if change == PeerChange::Suspect {
                link.shared.counters.peers_suspected.increment();
            }
            self.tell(&link.shared, &mut state, change);
        }
    }

    /// Tells watchers what is new to them. Under the lock of the state, so that events keep their order.
    fn tell(&self, shared: &Shared, state: &mut PeerState, change: PeerChange) {
        let told = match change {
            PeerChange::Up => Told::Up,
            PeerChange::Suspect => Told::Suspect,
            PeerChange::Down(_) => Told::Down,
        };
        if std::mem::replace(&mut state.told, told) != told {
            shared.peer_events.tell(self.node, change);
        }
    }

    /// Has everything that waits for this peer written and says goodbye; the caller bounds the time.
    pub(crate) async fn leave(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(link) = self.link() {
                return link.leave().await;
            }
            if !self.lanes.iter().any(LaneQueue::awaits_connection) {
                return;
            }
            changed.await;
        }
    }

    /// How long to wait before the next dial; `None` when there is a connection, or nobody wants one any more:
    /// then the dialling has ended.
    pub(crate) fn next_dial(&self, shared: &Shared) -> Option<Duration> {
        let mut state = self.state.lock();
        let config = &shared.config;
        if state.link.is_some() || state.is_forgotten || shared.is_closed() {
            state.is_dialling = false;
            return None;
        }
        if state.failures > 0 && state.wanted.elapsed() >= config.reconnect_give_up {
            state.is_dialling = false;
            if state.is_address_given {
                self.set_gates(&Gate::Idle);
                state.failures = 0;
            } else {
                self.drop_entry(shared, &mut state);
            }
            return None;
        }
        Some(match state.failures {
            0 => Duration::ZERO,
            failures => crate::backoff::backoff(
                failures,
                config.reconnect_backoff_min,
                config.reconnect_backoff_max,
                random_u64(),
            ),
        })
    }

    /// The task that dialled has broken: whoever waits is told, and whoever sends next begins another.
    pub(crate) fn dialling_broke(&self, shared: &Shared) {
        let mut state = self.state.lock();
        state.is_dialling = false;
        if state.link.is_none() {
            self.refuse_all(shared, &Failure::Unreachable(Arc::from("the dial panicked")));
            self.set_gates(&Gate::Idle);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Drops the entry of a peer that nobody has named and that is not connected: peers come and go, and each
    /// incarnation has its own id.
    pub(crate) fn drop_if_unused(&self, shared: &Shared) {
        let mut state = self.state.lock();
        let is_used =
            state.link.is_some() || state.is_dialling || state.is_confirming || state.is_address_given;
        if !is_used && !state.is_forgotten {
            self.drop_entry(shared, &mut state);
        }
    }

    fn drop_entry(&self, shared: &Shared, state: &mut PeerState) {
        state.is_forgotten = true;
        self.refuse_all(shared, &Failure::NoAddress);
        shared.remove_peer(self);
    }

    /// A dial went wrong: whoever waits is told, and until one goes right whoever comes is told at once.
    pub(crate) fn dial_failed(&self, shared: &Shared, address: &str, failure: &Failure) {
        let mut state = self.state.lock();
        // A connection from the other side, or another address by now: the failure says nothing.
        if state.link.is_some() || state.is_forgotten || state.address.as_deref() != Some(address) {
            return;
        }
        state.failures = state.failures.saturating_add(1);
        self.refuse_all(shared, failure);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Another node has taken this one's place: its connection is dead even if nobody has noticed yet.
    pub(crate) fn gone(&self, shared: &Shared, successor: NodeId) {
        let mut state = self.state.lock();
        let Some(link) = state.link.take() else { return };
        tracing::info!(node = %shared.config.node, peer = %self.node, %successor, "peer was replaced");
        state.previous = Some(link.id);
        self.tell(shared, &mut state, PeerChange::Down(DownReason::Replaced));
        self.detach(shared);
        shared.counters.connections_lost.increment();
        let detail = format!("node {successor} has taken its place");
        self.refuse_all(shared, &Failure::Refused(Refusal::OtherNode, Arc::from(detail)));
        shared.close_superseded(&link.connection);
        drop(state);
        // The end of the connection finds nothing to do: it is not the current one any more.
        self.drop_if_unused(shared);
        self.changed.notify_waiters();
    }

    /// Closes the connection, fails what waits with `failure` and refuses what comes.
    pub(crate) fn forget(&self, shared: &Shared, failure: &Failure) {
        let mut state = self.state.lock();
        state.is_forgotten = true;
        let link = state.link.take();
        if let Some(link) = link {
            self.tell(shared, &mut state, PeerChange::Down(DownReason::Forgotten));
            self.detach(shared);
            shared.counters.connections_lost.increment();
            link.connection.close(Refusal::ShuttingDown.code(), b"the peer is not wanted any more");
        }
        self.refuse_all(shared, failure);
        drop(state);
        self.changed.notify_waiters();
    }
}
