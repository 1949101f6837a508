//! This node's line to each group: who led it last, and the sessions that its commands go through.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rafted_value::env::{Env, MonoTime};
use rafted_value::{ClientSession, Command, GroupId, NodeId, SessionId};

use super::window::Window;

/// The line to one group. All its locks are held for a few instructions.
pub(crate) struct Line {
    /// The node that led last, as far as known; zero is none.
    leader: AtomicU64,
    /// Commands are spread over several sessions, so that callers do not wait for one lock.
    sessions: Vec<Mutex<ClientSession>>,
    turn: AtomicUsize,
    pub(super) window: Window,
}

impl Line {
    fn new(env: &dyn Env, sessions: usize, waiting_max: usize) -> Self {
        let session = || {
            let id = SessionId::new(env.random_u64(), env.random_u64());
            Mutex::new(ClientSession::new(id, waiting_max))
        };
        Self {
            leader: AtomicU64::new(0),
            sessions: std::iter::repeat_with(session).take(sessions.max(1)).collect(),
            turn: AtomicUsize::new(0),
            window: Window::default(),
        }
    }

    /// The node that led last, as far as known.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let node = self.leader.load(Ordering::Relaxed);
        (node != 0).then_some(NodeId(node))
    }

    pub(crate) fn set_leader(&self, node: NodeId) {
        // Most calls find it as it is: a store would take the cache line from other cores.
        if self.leader.load(Ordering::Relaxed) != node.0 {
            self.leader.store(node.0, Ordering::Relaxed);
        }
    }

    /// Forgets the leader if it still is this node.
    pub(crate) fn forget_leader(&self, node: NodeId) {
        // Somebody else may have found a newer leader meanwhile.
        let _ = self.leader.compare_exchange(node.0, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A place for one command, if the group takes so many.
    pub(super) fn enter(self: &Arc<Self>, now: MonoTime, essential: bool) -> Option<Place> {
        self.window.enter(now, essential).then(|| Place(Arc::clone(self)))
    }

    /// Numbers a command; `None` when too many wait already.
    pub(super) fn begin(
        self: &Arc<Self>,
        place: &mut Option<Place>,
        retry_until_ms: u64,
        key_hash: u64,
        payload: Bytes,
    ) -> Option<Ticket> {
        let session = self.turn.fetch_add(1, Ordering::Relaxed) % self.sessions.len();
        let command = self.sessions[session].lock().begin(retry_until_ms, key_hash, payload)?;
        Some(Ticket { line: Some((Arc::clone(self), session)), command, _place: place.take() })
    }
}

/// One of the commands that are under way to a group.
pub(super) struct Place(Arc<Line>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.window.leave();
    }
}

/// A command that waits for its reply. Dropping it tells the group, with the session's next command, that nobody does.
pub(crate) struct Ticket {
    /// The line and which of its sessions; none for a command whose number its caller chose.
    line: Option<(Arc<Line>, usize)>,
    command: Command,
    _place: Option<Place>,
}

impl Ticket {
    /// A command with a number of the caller's choice. Its reply stays for as long as its group keeps it: somebody else
    /// may send it again.
    pub(super) fn of(command: Command, place: Option<Place>) -> Self {
        Self { line: None, command, _place: place }
    }

    pub(crate) fn command(&self) -> &Command {
        &self.command
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some((line, session)) = &self.line {
            line.sessions[*session].lock().finish(self.command.sequence);
        }
    }
}

/// The lines to all groups that were called; those to groups that are gone are dropped.
pub(crate) struct Lines {
    lines: RwLock<BTreeMap<GroupId, Arc<Line>>>,
    sessions: usize,
    waiting_max: usize,
}

impl Lines {
    pub(crate) fn new(sessions: usize, waiting_max: usize) -> Self {
        Self { lines: RwLock::new(BTreeMap::new()), sessions, waiting_max }
    }

    /// The line to a group.
    pub(crate) fn of(&self, env: &dyn Env, group: GroupId) -> Arc<Line> {
        if let Some(line) = self.lines.read().get(&group) {
            return Arc::clone(line);
        }
        let fresh = Arc::new(Line::new(env, self.sessions, self.waiting_max));
        Arc::clone(self.lines.write().entry(group).or_insert(fresh))
    }

    /// Drops the lines to groups that are not listed.
    pub(crate) fn retain(&self, listed: impl Fn(GroupId) -> bool) {
        if self.lines.read().keys().all(|group| listed(*group)) {
            return;
        }
        self.lines.write().retain(|group, _| listed(*group));
    }
}
