//! A whole cluster in one thread, for tests of your own agents: its clock, network and deaths are simulated, and one seed
//! decides everything. A failover takes milliseconds of your time, and goes the same way whenever the seed is the same.
//!
//! ```
//! use dist_agent::testing::Cluster;
//! use dist_agent::{Agent, AgentContext, AgentTypes, QueryContext};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Default, Serialize, Deserialize)]
//! # struct Counter(i64);
//! # impl Agent for Counter {
//! #     const TYPE: &'static str = "counter";
//! #     type Command = i64;
//! #     type Reply = i64;
//! #     type Query = ();
//! #     type Answer = i64;
//! #     fn handle_command(&mut self, _: &mut AgentContext<'_>, add: i64) -> i64 { self.0 += add; self.0 }
//! #     fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> i64 { self.0 }
//! # }
//!
//! let mut cluster = Cluster::new(7, AgentTypes::new().with::<Counter>());
//! let counter = cluster.agent::<Counter>("tenant-a", "room-42");
//! let asked = counter.clone();
//! assert_eq!(cluster.run(async move { asked.command(5).await.unwrap() }), 5);
//! let leader = cluster.leader_of(counter.id()).unwrap();
//! cluster.kill(leader);
//! assert_eq!(cluster.run(async move { counter.query(()).await.unwrap() }), 5);
//! ```

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use raft_kv::rafted_value::env::sleep;
use raft_kv::rafted_value::sim::{NetConfig, Sim, SimDisk, SimEnv, SimRng, SimTask};
use raft_kv::rafted_value::{NodeId, node_on};

use crate::agent::Agent;
use crate::agent_id::AgentId;
use crate::agent_types::AgentTypes;
use crate::config::{DistAgentConfig, VALUE_TYPE};
use crate::handle::AgentHandle;
use crate::node::DistAgent;
use crate::quota::QuotaLimit;

/// The nodes of [`Cluster::new`].
const NODES: usize = 3;
/// The longest virtual time that [`Cluster::run`] waits.
const RUN_MAX: Duration = Duration::from_secs(600);

/// How long a sync of a disk takes.
const SYNC_TIME: Duration = Duration::from_micros(250);

/// What a simulated cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Decides everything that happens by chance.
    pub seed: u64,
    /// How many nodes host agents, beside a client that hosts none. Default 3.
    pub nodes: usize,
    /// How the network behaves. Default: as a good one does.
    pub network: NetConfig,
    /// Whether each node has a disk, and keeps on it what `config.agents.group.durability` and the like say: by default every
    /// command that was acknowledged. A sync takes 250 us. Default false.
    pub disks: bool,
    /// The settings of each node and of the client; where they find each other is filled in. Default: a tick of 1 s, 4
    /// shards, 30 s for a call, and a dead node is replaced after 10 s.
    pub config: DistAgentConfig,
}

impl ClusterOptions {
    /// The defaults.
    pub fn new(seed: u64) -> Self {
        let mut config =
            DistAgentConfig { tick_interval: Duration::from_secs(1), ..DistAgentConfig::default() };
        config.agents.shards = 4;
        config.call.timeout = Duration::from_secs(30);
        config.fleet.failure_window = Duration::from_secs(10);
        Self { seed, nodes: NODES, network: NetConfig::default(), disks: false, config }
    }
}

/// A simulated cluster that hosts agents, and a client of it. Time passes only in [`run`](Self::run),
/// [`run_for`](Self::run_for), [`tick`](Self::tick) and [`restart`](Self::restart).
pub struct Cluster {
    sim: Sim,
    types: AgentTypes,
    config: DistAgentConfig,
    places: Vec<Place>,
    client: DistAgent,
    client_env: Arc<SimEnv>,
}

/// One place for a node, its disk if it has one, and who lives there.
struct Place {
    disk: Option<SimDisk>,
    env: Arc<SimEnv>,
    node: Option<DistAgent>,
}

fn address(place: usize) -> String {
    format!("sim:{place}")
}

impl Cluster {
    /// Three nodes that host these agents, with the defaults of [`ClusterOptions`].
    ///
    /// # Panics
    ///
    /// Panics when the agent types cannot work together.
    pub fn new(seed: u64, types: AgentTypes) -> Self {
        Self::with(ClusterOptions::new(seed), types)
    }

    /// A cluster of one's own choice, ready for agents. The quota `tenant-a` is there, and unlimited.
    ///
    /// # Panics
    ///
    /// Panics when the agent types or the settings cannot work, or there are no nodes.
    pub fn with(options: ClusterOptions, types: AgentTypes) -> Self {
        let ClusterOptions { seed, nodes, network, disks, mut config } = options;
        assert!(nodes > 0, "a cluster needs a node");
        config.fleet.seeds = (0..nodes).map(address).collect();
        config.fleet.bootstrap_expect = nodes;
        // The default follows the machine, which must not decide how a seed goes.
        config.fleet.host.loops = 2;
        let sim = Sim::new(seed, network);
        let begin = |place| {
            let disk = disks.then(|| SimDisk::new(sim.rng()));
            let (env, started) = begin(&sim, place, disk.as_ref(), &config, &types);
            (disk, env, started)
        };
        let begun: Vec<_> = (0..nodes).map(begin).collect();
        let client_env = sim.start_node("client", "sim:client");
        let connect = DistAgent::connect(client_env.clone(), config.clone());
        let connected = sim.spawn_on(&client_env, async move {
            let client = connect.await.map_err(|error| error.to_string())?;
            let put = client.put_quota("tenant-a", QuotaLimit::Unlimited).await;
            put.map(|()| client).map_err(|error| error.to_string())
        });
        let finish = |(disk, env, node)| Place { disk, env, node: Some(wait(&sim, node)) };
        let places = begun.into_iter().map(finish).collect();
        let client = wait(&sim, connected);
        Self { sim, types, config, places, client, client_env }
    }

    /// A handle to an agent, from the client's side.
    ///
    /// # Panics
    ///
    /// Panics when the quota or the key cannot be.
    pub fn agent<A: Agent>(&self, quota: &str, key: &str) -> AgentHandle<A> {
        self.client.agent(quota, key).expect("a test names agents that can be")
    }

    /// The client.
    pub fn client(&self) -> &DistAgent {
        &self.client
    }

    /// A node, unless it is dead. What is done through it must run on it: see [`run_on`](Self::run_on).
    pub fn node(&self, node: usize) -> Option<&DistAgent> {
        self.places[node].node.as_ref()
    }

    /// Lets the client do something, and time pass until it is done.
    ///
    /// # Panics
    ///
    /// Panics when it panics, and when it is not done after 10 minutes of virtual time.
    pub fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        self.finish(self.sim.spawn_on(&self.client_env, future))
    }

    /// Lets a node do something, and time pass until it is done.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run), and when the node is dead.
    pub fn run_on<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        node: usize,
        run: impl FnOnce(DistAgent) -> F,
    ) -> T {
        let Place { env, node: Some(node), .. } = &self.places[node] else { panic!("node {node} is dead") };
        self.finish(self.sim.spawn_on(env, run(node.clone())))
    }

    /// Lets the client begin something that goes on while other things happen; [`finish`](Self::finish) waits for it.
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> SimTask<T> {
        self.sim.spawn_on(&self.client_env, future)
    }

    /// Lets time pass until a task is done.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run), and when the task's node was killed.
    pub fn finish<T: Send + 'static>(&self, task: SimTask<T>) -> T {
        let seed = self.sim.seed();
        let done = self.sim.run_until(RUN_MAX, task);
        let done = done.unwrap_or_else(|| panic!("not done after {RUN_MAX:?} of virtual time, seed {seed}"));
        done.unwrap_or_else(|| panic!("the node of the task was killed, seed {seed}"))
    }

    /// Lets time pass.
    pub fn run_for(&self, duration: Duration) {
        self.sim.run_for(duration);
    }

    /// Lets one tick pass, and whatever is due at it happen.
    pub fn tick(&self) {
        self.sim.run_for(self.config.tick_interval + 2 * self.config.kv.wake_interval);
    }

    /// Kills a node: nobody is told, and all that was in its memory is gone. What it has written to its disk stays there.
    /// Does nothing to one that is dead.
    pub fn kill(&mut self, node: usize) {
        let place = &mut self.places[node];
        if place.node.take().is_some() {
            self.sim.kill(&place.env);
            place.disk.iter().for_each(SimDisk::kill);
        }
    }

    /// All nodes lose their power at once, and start again with what their disks had synced: of whatever else they had
    /// written some is kept, some lost and some torn. Lets time pass until they are a cluster again.
    ///
    /// # Panics
    ///
    /// Panics when the nodes have no disks, and when they are no cluster again after 10 minutes of virtual time.
    pub fn lose_power(&mut self) {
        for node in 0..self.places.len() {
            self.kill(node);
            self.places[node].disk.as_ref().expect("a node without a disk comes back empty").crash();
        }
        let all: Vec<usize> = (0..self.places.len()).collect();
        self.restart_all(&all);
    }

    /// Starts a node that was killed again, with what is on its disk if it has one and else with an empty memory, and lets
    /// time pass until it is part of the cluster; it holds its agents only a little later, see
    /// [`wait_until_whole`](Self::wait_until_whole).
    ///
    /// # Panics
    ///
    /// Panics when the node lives, and when it is not taken in within 10 minutes of virtual time.
    pub fn restart(&mut self, node: usize) {
        self.restart_all(&[node]);
    }

    /// The same with several at the same time, of which none may be able to start without the others.
    ///
    /// # Panics
    ///
    /// As [`restart`](Self::restart).
    pub fn restart_all(&mut self, nodes: &[usize]) {
        let types = self.types.clone();
        self.restart_all_as(nodes, &types);
    }

    /// The same as another build of the program, which hosts these types.
    ///
    /// # Panics
    ///
    /// As [`restart`](Self::restart).
    pub fn restart_all_as(&mut self, nodes: &[usize], types: &AgentTypes) {
        let Self { sim, config, places, .. } = self;
        let begin = |node: &usize| {
            assert!(places[*node].node.is_none(), "node {node} lives");
            begin(sim, *node, places[*node].disk.as_ref(), config, types)
        };
        let begun: Vec<_> = nodes.iter().map(begin).collect();
        for (node, (env, started)) in nodes.iter().zip(begun) {
            let place = &mut places[*node];
            (place.env, place.node) = (env, Some(wait(sim, started)));
        }
    }

    /// Lets time pass until the cluster bears the loss of one more node: a node that was restarted is part of the cluster before
    /// it holds its members.
    ///
    /// # Panics
    ///
    /// Panics when it is not whole after 10 minutes of virtual time.
    pub fn wait_until_whole(&self) {
        let client = self.client.clone();
        let whole = self.run(async move { client.wait_until_whole(RUN_MAX / 2).await });
        whole.unwrap_or_else(|error| panic!("seed {}: {error}", self.sim.seed()));
    }

    /// [`restart`](Self::restart) as another build of the program, which hosts these types. [`restart`](Self::restart) starts it as the first
    /// build again.
    ///
    /// # Errors
    ///
    /// When it does not become part of the cluster, for one because its build does not fit; it is dead then.
    ///
    /// # Panics
    ///
    /// Panics when the node lives.
    pub fn restart_as(&mut self, node: usize, types: &AgentTypes) -> Result<(), String> {
        assert!(self.places[node].node.is_none(), "node {node} lives");
        let Self { sim, config, places, .. } = self;
        let place = &mut places[node];
        let (env, started) = begin(sim, node, place.disk.as_ref(), config, types);
        let done = sim.run_until(RUN_MAX, started).flatten();
        match done.unwrap_or_else(|| Err(format!("nothing happened in {RUN_MAX:?}"))) {
            Ok(started) => (place.env, place.node) = (env, Some(started)),
            Err(error) => {
                sim.kill(&env);
                place.disk.iter().for_each(SimDisk::kill);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Cuts all ways between some nodes and the others; the client is on the side of the others.
    pub fn partition(&self, nodes: &[usize]) {
        let (mut away, mut others) = (Vec::new(), vec![self.client_env.clone()]);
        for (number, place) in self.places.iter().enumerate() {
            let side = if nodes.contains(&number) { &mut away } else { &mut others };
            side.push(place.env.clone());
        }
        self.sim.partition(&away, &others);
    }

    /// Mends all ways.
    pub fn heal(&self) {
        self.sim.heal();
    }

    /// Which node leads the shard of an agent, if one does. The nodes are asked, which takes a moment of time.
    pub fn leader_of(&self, agent: &AgentId) -> Option<usize> {
        let hash = agent.store_key().hash();
        (0..self.places.len()).filter(|node| self.node(*node).is_some()).find(|node| {
            self.run_on(*node, move |node| async move {
                for shard in node.kv().led_shards(VALUE_TYPE).await {
                    if shard.read_tally().await.is_ok_and(|tally| tally.range.contains(hash)) {
                        return true;
                    }
                }
                false
            })
        })
    }

    /// A random source of the seed, for what a test does by chance.
    pub fn rng(&self) -> SimRng {
        self.sim.rng()
    }

    /// The simulated world, for whatever else can be done to it.
    pub fn sim(&self) -> &Sim {
        &self.sim
    }
}

type Started = SimTask<Result<DistAgent, String>>;

fn begin(
    sim: &Sim,
    place: usize,
    disk: Option<&SimDisk>,
    config: &DistAgentConfig,
    types: &AgentTypes,
) -> (Arc<SimEnv>, Started) {
    let name = format!("node-{place}");
    let env = match disk {
        Some(disk) => open(sim, disk, &name, &address(place)),
        None => sim.start_node(&name, &address(place)),
    };
    let start = DistAgent::start(env.clone(), config.clone(), types.clone());
    let started = sim.spawn_on(&env, async move { start.await.map_err(|error| error.to_string()) });
    (env, started)
}

/// The door of a node with a disk, under the id that it had in its life before.
fn open(sim: &Sim, disk: &SimDisk, name: &str, address: &str) -> Arc<SimEnv> {
    let kept = node_on(disk.disk().as_ref()).expect("no simulated disk holds another's files");
    let node = kept.unwrap_or_else(|| NodeId(sim.rng().next_u64().max(1)));
    let env = sim.start_node_on(node, disk.disk(), name, address);
    let clock = env.clone();
    disk.set_sync_latency(Some(Arc::new(move || sleep(clock.as_ref(), SYNC_TIME))));
    env
}

fn wait(sim: &Sim, started: Started) -> DistAgent {
    let done = sim.run_until(RUN_MAX, started).flatten();
    let done = done.unwrap_or_else(|| Err(format!("nothing happened in {RUN_MAX:?}")));
    done.unwrap_or_else(|error| panic!("a node does not start, seed {}: {error}", sim.seed()))
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("sim", &self.sim)
            .field("nodes", &self.places.len())
            .finish_non_exhaustive()
    }
}
