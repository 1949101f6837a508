//! The door of one simulated node.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::clock::NodeClock;
use super::endpoint::Endpoint;
use super::executor::{Executor, NodeIndex};
use super::network::Network;
use super::random::SimRng;
use super::sleep::Sleep;
use crate::disk::Disk;
use crate::env::{BoxFuture, Env, MonoTime, TaskHandle};
use crate::id::NodeId;
use crate::transport::{PeerInfo, Transport};

/// The [`Env`] of one life of one simulated node, made by [`Sim::start_node`](super::Sim::start_node).
///
/// Once the node is killed it spawns nothing and reaches nobody; its clock goes on.
pub struct SimEnv {
    pub(super) info: PeerInfo,
    pub(super) index: NodeIndex,
    pub(super) clock: Arc<Mutex<NodeClock>>,
    executor: Arc<Executor>,
    rng: Mutex<SimRng>,
    transport: Arc<dyn Transport>,
    disk: Option<Arc<dyn Disk>>,
}

impl SimEnv {
    pub(super) fn new(
        info: PeerInfo,
        index: NodeIndex,
        clock: NodeClock,
        rng: SimRng,
        network: &Arc<Network>,
        executor: &Arc<Executor>,
        disk: Option<Arc<dyn Disk>>,
    ) -> Arc<Self> {
        let clock = Arc::new(Mutex::new(clock));
        let endpoint = Endpoint {
            info: info.clone(),
            network: Arc::clone(network),
            executor: Arc::clone(executor),
            index,
            clock: Arc::clone(&clock),
        };
        let (executor, transport) = (Arc::clone(executor), Arc::new(endpoint));
        Arc::new(Self { info, index, clock, executor, rng: Mutex::new(rng), transport, disk })
    }

    /// The node's id in this life.
    pub fn node(&self) -> NodeId {
        self.info.node
    }

    /// The name it was started with.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.info.address
    }

    /// Whether it has not been killed.
    pub fn is_alive(&self) -> bool {
        self.executor.is_alive(self.index)
    }
}

impl Env for SimEnv {
    fn now(&self) -> MonoTime {
        self.clock.lock().read(self.executor.now())
    }

    fn wall_ms(&self) -> u64 {
        self.clock.lock().wall_ms(self.executor.now())
    }

    fn random_u64(&self) -> u64 {
        self.rng.lock().next_u64()
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<()>) -> TaskHandle {
        let (handle, task) = TaskHandle::wrap(task);
        self.executor.spawn(self.index, name, task);
        handle
    }

    /// The simulated disk takes its time without holding anybody up.
    fn spawn_blocking(&self, name: &'static str, task: BoxFuture<()>) -> TaskHandle {
        self.spawn(name, task)
    }

    fn sleep_until(&self, deadline: MonoTime) -> BoxFuture<()> {
        let (executor, clock) = (Arc::clone(&self.executor), Arc::clone(&self.clock));
        Box::pin(Sleep::new(executor, self.index, clock, deadline))
    }

    fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    fn disk(&self) -> Option<&Arc<dyn Disk>> {
        self.disk.as_ref()
    }
}

impl fmt::Debug for SimEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} at {})", self.info.node, self.info.name, self.info.address)
    }
}
