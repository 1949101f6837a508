//! Runs the tasks of all nodes in one thread, on a clock that jumps from timer to timer.
//!
//! The lock over the tasks is never held while a task is polled, woken or dropped: each may come back here to spawn,
//! sleep or look at the clock. It may be taken under the network's lock, never the other way round.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::task::unconstrained;
use tracing::Span;

use super::network::NetEvent;
use super::stats::{SimStats, TraceHash};
use super::waker::{RunQueue, TaskId, TaskWaker};
use crate::env::BoxFuture;

/// A node's place in the executor; a restarted node gets another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct NodeIndex(usize);

/// Tasks that belong to no node.
pub(super) const OUTSIDE: NodeIndex = NodeIndex(0);
/// The future that [`Sim::run_until`](super::Sim::run_until) drives.
const MAIN: TaskId = TaskId(0);
/// More polls and events than this at one instant of virtual time are a loop that will never end.
const STEPS_PER_INSTANT_MAX: u64 = 10_000_000;

/// The instant at which a timer fires, and its place among those of the same instant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct TimerKey(u64, u64);

/// What one step of the executor did.
pub(super) enum Step {
    /// A task was polled, or a timer woke one.
    Ran,
    /// The main future was woken.
    Main,
    /// The network has something to do.
    Network(NetEvent),
    /// Nothing is left to do before the end of the run, which the clock shows now.
    Idle,
}

/// Tasks, timers and the virtual clock.
pub(super) struct Executor {
    queue: Arc<RunQueue>,
    running: AtomicBool,
    state: Mutex<State>,
}

struct State {
    now: u64,
    next_id: u64,
    tasks: BTreeMap<TaskId, Task>,
    timers: BTreeMap<TimerKey, Due>,
    nodes: Vec<NodeTasks>,
    steps_this_instant: u64,
    trace: TraceHash,
    stats: SimStats,
}

struct Task {
    node: NodeIndex,
    name: &'static str,
    /// Absent while it is polled.
    future: Option<BoxFuture<()>>,
    waker: Arc<TaskWaker>,
}

enum Due {
    Wake(NodeIndex, Waker),
    Network(NetEvent),
}

struct NodeTasks {
    alive: bool,
    paused: bool,
    /// Tasks that could run if the node were not paused.
    stalled: Vec<TaskId>,
    span: Span,
}

impl Executor {
    pub(super) fn new() -> Arc<Self> {
        let state = State {
            now: 0,
            next_id: 1,
            tasks: BTreeMap::new(),
            timers: BTreeMap::new(),
            nodes: vec![NodeTasks::new(Span::none())],
            steps_this_instant: 0,
            trace: TraceHash::default(),
            stats: SimStats::default(),
        };
        Arc::new(Self { queue: Arc::default(), running: AtomicBool::new(false), state: Mutex::new(state) })
    }

    /// Virtual time: nanoseconds since the simulation started.
    pub(super) fn now(&self) -> u64 {
        self.state.lock().now
    }

    pub(super) fn stats(&self) -> SimStats {
        self.state.lock().stats
    }

    pub(super) fn count(&self, what: impl FnOnce(&mut SimStats)) {
        what(&mut self.state.lock().stats);
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.state.lock().trace.value()
    }

    /// Adds an event of this instant to the trace.
    pub(super) fn record<const N: usize>(&self, kind: u8, numbers: [u64; N], bytes: &[u8]) {
        let mut state = self.state.lock();
        let now = state.now;
        state.trace.add(kind, [now], &[]);
        state.trace.add(kind, numbers, bytes);
    }

    /// Room for the tasks of a node that starts now, polled within `span`.
    pub(super) fn add_node(&self, span: Span) -> NodeIndex {
        let mut state = self.state.lock();
        state.nodes.push(NodeTasks::new(span));
        NodeIndex(state.nodes.len() - 1)
    }

    /// Ends a node for ever: its tasks are dropped, and it gets no new ones.
    pub(super) fn kill(&self, node: NodeIndex) {
        let dropped: Vec<Task> = {
            let mut state = self.state.lock();
            state.nodes[node.0].alive = false;
            state.nodes[node.0].stalled.clear();
            let of_node = |task: &Task| task.node == node;
            let ids: Vec<_> =
                state.tasks.iter().filter(|(_, task)| of_node(task)).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| state.tasks.remove(id)).collect()
        };
        drop(dropped);
    }

    /// From now on the node's tasks do not run; what wakes them is kept.
    pub(super) fn pause(&self, node: NodeIndex) {
        self.state.lock().nodes[node.0].paused = true;
    }

    /// The node's tasks run again.
    pub(super) fn resume(&self, node: NodeIndex) {
        let mut state = self.state.lock();
        state.nodes[node.0].paused = false;
        for task in std::mem::take(&mut state.nodes[node.0].stalled) {
            self.queue.push(task);
        }
    }

    pub(super) fn is_alive(&self, node: NodeIndex) -> bool {
        self.state.lock().nodes[node.0].alive
    }

    /// Runs `future` from the next step on. A node that was killed runs nothing.
    pub(super) fn spawn(&self, node: NodeIndex, name: &'static str, future: BoxFuture<()>) {
        let mut state = self.state.lock();
        if !state.nodes[node.0].alive {
            drop(state);
            drop(future);
            return;
        }
        let id = TaskId(state.next_id());
        let waker = TaskWaker::new(id, &self.queue);
        let wake = waker.waker();
        state.tasks.insert(id, Task { node, name, future: Some(future), waker });
        drop(state);
        wake.wake();
    }

    /// Wakes `waker` at `time`.
    pub(super) fn wake_at(&self, time: u64, node: NodeIndex, waker: Waker) -> TimerKey {
        self.state.lock().add(time, Due::Wake(node, waker))
    }

    /// Hands `event` to the network at `time`.
    pub(super) fn schedule(&self, time: u64, event: NetEvent) {
        self.state.lock().add(time, Due::Network(event));
    }

    /// Makes a timer wake `waker` instead; false when it has fired.
    pub(super) fn rewake(&self, timer: TimerKey, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        let Some(Due::Wake(_, present)) = state.timers.get_mut(&timer) else { return false };
        if present.will_wake(waker) {
            return true;
        }
        let replaced = std::mem::replace(present, waker.clone());
        drop(state);
        drop(replaced);
        true
    }

    /// Takes a timer away.
    pub(super) fn cancel(&self, timer: TimerKey) {
        let removed = self.state.lock().timers.remove(&timer);
        drop(removed);
    }

    /// Wakes all sleepers of a node, whose clock has changed.
    pub(super) fn wake_sleepers(&self, node: NodeIndex) {
        let woken: Vec<Due> = {
            let mut state = self.state.lock();
            let of_node = |due: &Due| matches!(due, Due::Wake(sleeper, _) if *sleeper == node);
            let keys: Vec<_> =
                state.timers.iter().filter(|(_, due)| of_node(due)).map(|(key, _)| *key).collect();
            keys.iter().filter_map(|key| state.timers.remove(key)).collect()
        };
        for due in woken {
            if let Due::Wake(_, waker) = due {
                waker.wake();
            }
        }
    }

    /// Marks the executor as running until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Running {
        let nested = self.running.swap(true, Ordering::Relaxed);
        assert!(!nested, "a simulation cannot be run from within itself");
        Running(Arc::clone(self))
    }

    /// The waker of the main future.
    pub(super) fn main_waker(&self) -> Arc<TaskWaker> {
        TaskWaker::new(MAIN, &self.queue)
    }

    /// Does the next thing: a task that can run, else the next timer up to `end`.
    pub(super) fn step(&self, end: u64) -> Step {
        match self.queue.pop() {
            Some(MAIN) => Step::Main,
            Some(task) => {
                self.poll(task);
                Step::Ran
            }
            None => self.jump(end),
        }
    }

    fn poll(&self, id: TaskId) {
        let Some((mut future, waker, span)) = self.state.lock().take_to_poll(id) else { return };
        waker.rearm();
        let entered = span.enter();
        // Within a runtime a task that has done much is told to wait for its turn, which never comes: this thread does not yield.
        let polled = Pin::new(&mut unconstrained(&mut future)).poll(&mut Context::from_waker(&waker.waker()));
        drop(entered);
        let mut state = self.state.lock();
        let ended = match polled {
            Poll::Ready(()) => state.tasks.remove(&id),
            Poll::Pending => match state.tasks.get_mut(&id) {
                Some(task) => {
                    task.future = Some(future);
                    return;
                }
                // Its node was killed while it ran.
                None => None,
            },
        };
        drop(state);
        drop((ended, future));
    }

    fn jump(&self, end: u64) -> Step {
        let mut state = self.state.lock();
        let due = match state.timers.first_entry() {
            Some(first) if first.key().0 <= end => first.remove_entry(),
            _ => {
                state.now = state.now.max(end);
                return Step::Idle;
            }
        };
        let (TimerKey(time, _), due) = due;
        if time > state.now {
            state.now = time;
            state.steps_this_instant = 0;
        }
        state.steps_this_instant += 1;
        assert!(
            state.steps_this_instant <= STEPS_PER_INSTANT_MAX,
            "no time passes any more; messages or timers go round in circles"
        );
        match due {
            Due::Network(event) => Step::Network(event),
            Due::Wake(node, waker) => {
                let now = state.now;
                state.trace.add(b't', [now, node.0 as u64], &[]);
                state.stats.timers += 1;
                drop(state);
                waker.wake();
                Step::Ran
            }
        }
    }

    /// Drops everything; nothing can be spawned afterwards.
    pub(super) fn clear(&self) {
        let dropped = {
            let mut state = self.state.lock();
            for node in &mut state.nodes {
                node.alive = false;
            }
            (std::mem::take(&mut state.tasks), std::mem::take(&mut state.timers))
        };
        drop(dropped);
    }
}

/// The right to step the executor.
pub(super) struct Running(Arc<Executor>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Relaxed);
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn add(&mut self, time: u64, due: Due) -> TimerKey {
        let key = TimerKey(time.max(self.now), self.next_id());
        self.timers.insert(key, due);
        key
    }

    fn take_to_poll(&mut self, id: TaskId) -> Option<(BoxFuture<()>, Arc<TaskWaker>, Span)> {
        let task = self.tasks.get_mut(&id)?;
        let node = &mut self.nodes[task.node.0];
        if node.paused {
            node.stalled.push(id);
            return None;
        }
        self.stats.polls += 1;
        self.steps_this_instant += 1;
        assert!(
            self.steps_this_instant <= STEPS_PER_INSTANT_MAX,
            "no time passes any more; task {} is polled again and again",
            task.name
        );
        Some((task.future.take()?, Arc::clone(&task.waker), node.span.clone()))
    }
}

impl NodeTasks {
    fn new(span: Span) -> Self {
        Self { alive: true, paused: false, stalled: Vec::new(), span }
    }
}
