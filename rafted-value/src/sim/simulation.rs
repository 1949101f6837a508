//! The handle of a simulation: it starts nodes, breaks things, and lets time pass.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::pending;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tracing::info_span;
use twox_hash::XxHash3_64;

use super::clock::NodeClock;
use super::config::{ClockConfig, NetConfig};
use super::env::SimEnv;
use super::executor::{Executor, OUTSIDE, Step};
use super::network::Network;
use super::place::Place;
use super::random::{SimRng, Stream, after};
use super::sleep::Sleep;
use super::stats::SimStats;
use crate::disk::Disk;
use crate::env::{BoxFuture, Env, MonoTime, TaskHandle};
use crate::id::NodeId;
use crate::transport::PeerInfo;

/// A simulated world. Clones are handles of the same one; it ends, with all its tasks, when the last is dropped.
///
/// A task that holds a handle keeps the world alive until it ends.
#[derive(Clone)]
pub struct Sim(Arc<World>);

struct World {
    seed: u64,
    executor: Arc<Executor>,
    network: Arc<Network>,
    /// True time, for those who are outside of all nodes.
    clock: Arc<Mutex<NodeClock>>,
    births: Mutex<Births>,
}

/// What decides how the next node and the next test source start.
struct Births {
    rng: SimRng,
    clocks: ClockConfig,
    sources: u64,
}

impl Sim {
    /// An empty world in which `seed` decides everything.
    ///
    /// # Panics
    ///
    /// Panics when `config` makes no sense, such as a probability above 1.
    pub fn new(seed: u64, config: NetConfig) -> Self {
        let executor = Executor::new();
        let network = Network::new(Arc::clone(&executor), seed, config);
        let births =
            Births { rng: SimRng::new(seed, Stream::Nodes), clocks: ClockConfig::default(), sources: 0 };
        let clock = Arc::new(Mutex::new(NodeClock::exact()));
        Self(Arc::new(World { seed, executor, network, clock, births: Mutex::new(births) }))
    }

    /// The seed it was made with.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Virtual time since the simulation started.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.0.executor.now())
    }

    /// A random source of its own for the test's load and faults: the n-th call gives the n-th source of the seed.
    pub fn rng(&self) -> SimRng {
        let mut births = self.0.births.lock();
        births.sources += 1;
        SimRng::new(self.0.seed, Stream::Test(births.sources))
    }

    /// A random source of its own for what has this name. Unlike [`rng`](Self::rng) it leaves all other sources as they are:
    /// for what comes to a test later, whose seeds should go on to mean what they meant.
    pub fn named_rng(&self, name: &str) -> SimRng {
        SimRng::new(self.0.seed, Stream::Named(XxHash3_64::oneshot(name.as_bytes())))
    }

    /// A hash over every message that was delivered (time, nodes, lane, service, bytes), every connection that was made
    /// or lost, and every timer that fired. Two runs with equal hashes went the same way.
    pub fn trace_hash(&self) -> u64 {
        self.0.executor.trace_hash()
    }

    /// What has happened so far, in numbers.
    pub fn stats(&self) -> SimStats {
        self.0.executor.stats()
    }

    /// Starts a node with a new id at `address`; after [`kill`](Self::kill), this is its restart.
    ///
    /// # Panics
    ///
    /// Panics when a node that is alive listens there.
    pub fn start_node(&self, name: &str, address: &str) -> Arc<SimEnv> {
        let node = NodeId(self.0.births.lock().rng.next_u64().max(1));
        self.start(node, SimRng::new(self.0.seed, Stream::Program(node)), name, address, None)
    }

    /// Starts a node with the id and the disk that an earlier life of it had. Connections of that life are over.
    ///
    /// # Panics
    ///
    /// Panics when a node that is alive listens there, or has this id.
    pub fn start_node_on(&self, node: NodeId, disk: Arc<dyn Disk>, name: &str, address: &str) -> Arc<SimEnv> {
        let life = NodeId(self.0.births.lock().rng.next_u64());
        self.start(node, SimRng::new(self.0.seed, Stream::Program(life)), name, address, Some(disk))
    }

    fn start(
        &self,
        node: NodeId,
        rng: SimRng,
        name: &str,
        address: &str,
        disk: Option<Arc<dyn Disk>>,
    ) -> Arc<SimEnv> {
        let World { executor, network, births, .. } = &*self.0;
        let births = &mut *births.lock();
        let clock = NodeClock::draw(executor.now(), &births.clocks, &mut births.rng);
        let info = PeerInfo { node, name: name.to_owned(), address: address.to_owned(), cluster: None };
        network.state().listen(info.clone());
        let index = executor.add_node(info_span!("node", %node, name));
        SimEnv::new(info, index, clock, rng, network, executor, disk)
    }

    /// Kills a node: its tasks are dropped (their destructors run, but can neither spawn nor send), it listens no more,
    /// and nobody is told. Does nothing to a node that is dead.
    pub fn kill(&self, env: &SimEnv) {
        let station = self.0.network.state().vanish(env.info.node);
        self.0.executor.kill(env.index);
        drop(station);
    }

    /// Lets a node that has just started speak another version of the wire format than the one, 1, that others speak: it
    /// makes no connection to them, nor they to it, and either side is told why.
    pub fn speak(&self, env: &SimEnv, wire_version: u16) {
        self.0.network.state().speak(env.info.node, wire_version);
    }

    /// Stops a node as SIGSTOP does: its tasks do not run and messages to it wait, but its clock goes on.
    pub fn pause(&self, env: &SimEnv) {
        self.0.network.state().set_paused(env.info.node, true);
        self.0.executor.pause(env.index);
    }

    /// Lets a paused node go on.
    pub fn resume(&self, env: &SimEnv) {
        self.0.executor.resume(env.index);
        self.0.network.state().set_paused(env.info.node, false);
    }

    /// Cuts every way between a place of `left` and one of `right`, in both directions.
    pub fn partition(&self, left: &[impl Place], right: &[impl Place]) {
        self.set_cuts(left, right, true);
        self.set_cuts(right, left, true);
    }

    /// Cuts every way from a place of `from` to one of `to`, in this direction only.
    pub fn partition_one_way(&self, from: &[impl Place], to: &[impl Place]) {
        self.set_cuts(from, to, true);
    }

    /// Mends every way between a place of `left` and one of `right`, in both directions.
    pub fn heal_between(&self, left: &[impl Place], right: &[impl Place]) {
        self.set_cuts(left, right, false);
        self.set_cuts(right, left, false);
    }

    /// Mends every way.
    pub fn heal(&self) {
        let mut network = self.0.network.state();
        network.cuts.mend_all();
        network.review_links();
    }

    fn set_cuts(&self, from: &[impl Place], to: &[impl Place], cut: bool) {
        let mut network = self.0.network.state();
        for from in from {
            for to in to {
                let (from, to) = (from.address(), to.address());
                if cut { network.cuts.cut(from, to) } else { network.cuts.mend(from, to) }
            }
        }
        network.review_links();
    }

    /// How the network behaves now.
    pub fn net_config(&self) -> NetConfig {
        self.0.network.state().config.clone()
    }

    /// Changes how the network treats messages that are sent from now on.
    ///
    /// # Panics
    ///
    /// Panics when `config` makes no sense.
    pub fn set_net_config(&self, config: NetConfig) {
        config.check();
        self.0.network.state().config = config;
    }

    /// Changes how the clocks of nodes differ that start from now on.
    pub fn set_clock_config(&self, config: ClockConfig) {
        self.0.births.lock().clocks = config;
    }

    /// From now on the node's monotonic clock runs faster by `drift_ppm` parts per million; slower, when negative.
    ///
    /// # Panics
    ///
    /// Panics from a drift of a million on: time would stand still.
    pub fn set_drift(&self, env: &SimEnv, drift_ppm: i64) {
        env.clock.lock().set_drift(self.0.executor.now(), drift_ppm);
        self.0.executor.wake_sleepers(env.index);
    }

    /// Sets the node's wall clock forward.
    pub fn advance_wall(&self, env: &SimEnv, by: Duration) {
        env.clock.lock().step_wall(by, true);
    }

    /// Sets the node's wall clock back.
    pub fn set_back_wall(&self, env: &SimEnv, by: Duration) {
        env.clock.lock().step_wall(by, false);
    }

    /// Runs `future` on a node, like [`Env::spawn`], and gives a future of its output.
    pub fn spawn_on<T: Send + 'static>(
        &self,
        env: &SimEnv,
        future: impl Future<Output = T> + Send + 'static,
    ) -> SimTask<T> {
        let (task, future) = SimTask::new(future);
        let handle = env.spawn("sim", future);
        SimTask { handle: Some(handle), ..task }
    }

    /// Runs `future` outside of all nodes: a task that breaks things, or watches.
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> SimTask<T> {
        let (task, future) = SimTask::new(future);
        let (handle, future) = TaskHandle::wrap(future);
        self.0.executor.spawn(OUTSIDE, "outside", future);
        SimTask { handle: Some(handle), ..task }
    }

    /// Completes after `duration` of virtual time, outside of all nodes.
    pub fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        let (executor, clock) = (Arc::clone(&self.0.executor), Arc::clone(&self.0.clock));
        let deadline = MonoTime::from_nanos(executor.now()) + duration;
        Box::pin(Sleep::new(executor, OUTSIDE, clock, deadline))
    }

    /// Lets `duration` of virtual time pass.
    ///
    /// # Panics
    ///
    /// Panics when called from within the simulation, when a task panics, and when tasks keep each other busy for ever
    /// without time passing.
    pub fn run_for(&self, duration: Duration) {
        let _: Option<()> = self.run_until(duration, pending());
    }

    /// Lets virtual time pass until `future` completes, and gives its output; `None` when `limit` passes first.
    ///
    /// # Panics
    ///
    /// As [`run_for`](Self::run_for).
    pub fn run_until<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let World { executor, network, .. } = &*self.0;
        let _running = executor.enter();
        let end = after(executor.now(), limit);
        let mut future = pin!(future);
        let main = executor.main_waker();
        let waker = main.waker();
        waker.wake_by_ref();
        loop {
            match executor.step(end) {
                Step::Ran => {}
                Step::Network(event) => network.handle(event),
                Step::Main => {
                    main.rearm();
                    let mut polled = unconstrained(future.as_mut());
                    if let Poll::Ready(output) = Pin::new(&mut polled).poll(&mut Context::from_waker(&waker))
                    {
                        return Some(output);
                    }
                }
                Step::Idle => return None,
            }
        }
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.0.seed)
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Tasks and handlers hold their node's door, which holds both: only this takes them apart.
        let stations = std::mem::take(&mut self.network.state().stations);
        self.executor.clear();
        drop(stations);
    }
}

/// A task of a simulation: a future of its output, or of `None` when it was aborted or its node killed. Dropping it
/// leaves the task running.
pub struct SimTask<T> {
    handle: Option<TaskHandle>,
    output: oneshot::Receiver<T>,
}

impl<T: Send + 'static> SimTask<T> {
    fn new(future: impl Future<Output = T> + Send + 'static) -> (Self, BoxFuture<()>) {
        let (send, output) = oneshot::channel();
        let task = async move {
            // Nobody may be waiting for the output.
            let _ = send.send(future.await);
        };
        (Self { handle: None, output }, Box::pin(task))
    }

    /// Ends the task at its next await.
    pub fn abort(&self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}

impl<T> Future for SimTask<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.output).poll(context).map(Result::ok)
    }
}

impl<T> fmt::Debug for SimTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimTask")
    }
}
