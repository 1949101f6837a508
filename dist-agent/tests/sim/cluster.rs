//! Three simulated nodes that host counters, and a client.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dist_agent::raft_kv::rafted_value::env::Env;
use dist_agent::raft_kv::rafted_value::sim::{NetConfig, Sim, SimEnv};
use dist_agent::{AgentHandle, AgentTypes, DistAgent, DistAgentConfig, QuotaLimit, StartError};

use crate::agents::{Counter, Fragile, Sleeper};
use crate::bad_input::Talker;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// The length of a tick.
pub(crate) const TICK: Duration = Duration::from_millis(500);
pub(crate) const NODES: usize = 3;

/// A cluster that is ready for agents.
pub(crate) struct Cluster {
    pub(crate) sim: Sim,
    pub(crate) nodes: Vec<Node>,
    pub(crate) client: DistAgent,
    pub(crate) client_env: Arc<SimEnv>,
}

pub(crate) struct Node {
    pub(crate) env: Arc<SimEnv>,
    pub(crate) agents: DistAgent,
}

fn name(index: usize) -> String {
    format!("node-{}", index + 1)
}

fn address(index: usize) -> String {
    format!("sim:{}", index + 1)
}

/// The same on every node, and small enough to be quick.
pub(crate) fn config() -> DistAgentConfig {
    let mut config = DistAgentConfig::default();
    config.fleet.seeds = (0..NODES).map(address).collect();
    config.fleet.bootstrap_expect = NODES;
    config.fleet.failure_window = 10 * SECOND;
    // The default follows the machine, which must not decide how a seed goes.
    config.fleet.host.loops = 2;
    config.agents.shards = 4;
    config.call.timeout = 30 * SECOND;
    config.tick_interval = TICK;
    // Small quotas are leased from too.
    config.quota_lease_share = 4;
    config
}

/// Starts one node's part on its door.
pub(crate) async fn start(env: Arc<dyn Env>) -> Result<DistAgent, StartError> {
    DistAgent::start(env, config(), types()).await
}

/// What every node hosts.
pub(crate) fn types() -> AgentTypes {
    AgentTypes::new().with::<Counter>().with::<Fragile>().with::<Sleeper>().with::<Talker>()
}

impl Cluster {
    /// Three nodes and a client.
    pub(crate) fn new(seed: u64) -> Self {
        let sim = Sim::new(seed, NetConfig::default());
        let envs: Vec<_> = (0..NODES).map(|index| sim.start_node(&name(index), &address(index))).collect();
        let started: Vec<_> = envs.iter().map(|env| sim.spawn_on(env, start(env.clone()))).collect();
        let client_env = sim.start_node("client", "sim:client");
        let client = sim.spawn_on(&client_env, DistAgent::connect(client_env.clone(), config()));
        let mut nodes = Vec::new();
        for (env, agents) in envs.into_iter().zip(started) {
            nodes.push(Node {
                env,
                agents: wait(&sim, agents).expect("not killed").expect("the node starts"),
            });
        }
        let client = wait(&sim, client).expect("not killed").expect("the client connects");
        let operator = client.clone();
        let put = async move { operator.put_quota("tenant-a", QuotaLimit::Unlimited).await };
        wait(&sim, sim.spawn_on(&client_env, put)).expect("not killed").expect("the quota is put");
        Self { sim, nodes, client, client_env }
    }

    /// Runs `future` on the client.
    pub(crate) fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        wait(&self.sim, self.sim.spawn_on(&self.client_env, future)).expect("the client is not killed")
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> dist_agent::raft_kv::rafted_value::sim::SimTask<T> {
        self.sim.spawn_on(&self.client_env, future)
    }

    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        wait(&self.sim, future)
    }

    /// A sleeper, from the client's side.
    pub(crate) fn sleeper(&self, key: &str) -> AgentHandle<Sleeper> {
        self.client.agent("tenant-a", key).expect("a valid identity")
    }

    /// A counter, from the client's side.
    pub(crate) fn counter(&self, key: &str) -> AgentHandle<Counter> {
        self.client.agent("tenant-a", key).expect("a valid identity")
    }

    pub(crate) fn kill(&self, index: usize) {
        self.sim.kill(&self.nodes[index].env);
    }

    /// Starts a node that was killed again, empty; it takes its part in the background.
    pub(crate) fn restart(&mut self, index: usize) {
        let env = self.sim.start_node(&name(index), &address(index));
        let agents = self.sim.spawn_on(&env, start(env.clone()));
        let agents = wait(&self.sim, agents).expect("not killed").expect("the node starts again");
        self.nodes[index] = Node { env, agents };
    }
}

/// Lets the world go on until the future is done.
fn wait<F: Future>(sim: &Sim, future: F) -> F::Output {
    sim.run_until(300 * SECOND, future)
        .unwrap_or_else(|| panic!("nothing after 300 s of virtual time, seed {}", sim.seed()))
}
