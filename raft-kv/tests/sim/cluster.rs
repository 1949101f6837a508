//! Three simulated nodes with a value type, and a client.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_kv::raft_fleet::FleetConfig;
use raft_kv::rafted_value::env::{Env, sleep};
use raft_kv::rafted_value::sim::{NetConfig, Sim, SimDisk, SimEnv, SimTask};
use raft_kv::rafted_value::{CommandContext, NodeId, Refused, node_on};
use raft_kv::{Answer, Done, Key, KeyspaceName, KeyspacePolicy, Kv, KvConfig, KvError, KvTypes, ValuePerKey};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const NODES: usize = 3;

/// Values are texts that grow; an empty command removes one.
pub(crate) struct Texts;

impl ValuePerKey for Texts {
    type Value = Vec<u8>;

    fn command(
        &self,
        _: &CommandContext,
        _: &[u8],
        value: &mut Option<Vec<u8>>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        if command == "refuse" {
            return Err(Refused("as it was told".into()));
        }
        assert!(command != "panic", "as it was told");
        if command.is_empty() {
            *value = None;
        } else {
            value.get_or_insert_default().extend_from_slice(command);
        }
        let text = value.clone().unwrap_or_default();
        Ok(Done { size: text.len() as u64, reply: text.into(), load: 1 })
    }

    fn query(&self, _: &[u8], value: &Vec<u8>, _: &Bytes) -> Result<Answer, Refused> {
        Ok(Answer { answer: value.clone().into(), load: 1 })
    }

    fn encode(&self, _: &[u8], value: &Vec<u8>, out: &mut Vec<u8>) {
        out.extend_from_slice(value);
    }

    fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<Vec<u8>, String> {
        Ok(bytes.to_vec())
    }
}

/// A cluster without keyspaces.
pub(crate) struct Cluster {
    pub(crate) sim: Sim,
    pub(crate) nodes: Vec<(Arc<SimEnv>, Kv)>,
    pub(crate) client: Kv,
    client_env: Arc<SimEnv>,
    disks: Vec<SimDisk>,
    config: KvConfig,
    /// What each node knows.
    types: Rc<Types>,
}

type Types = dyn Fn(usize) -> KvTypes;

fn fleet() -> FleetConfig {
    let mut config = FleetConfig {
        seeds: (1..=NODES).map(|node| format!("sim:{node}")).collect(),
        bootstrap_expect: NODES,
        failure_window: 10 * SECOND,
        ..FleetConfig::default()
    };
    // The default follows the machine, which must not decide how a seed goes.
    config.host.loops = 2;
    config.host.divergence_check_commands = 50;
    config
}

pub(crate) fn config() -> KvConfig {
    KvConfig { routes_refresh: SECOND, ..KvConfig::default() }
}

async fn start(env: Arc<dyn Env>, config: KvConfig, types: KvTypes) -> Result<Kv, KvError> {
    Kv::start(env, fleet(), config, types).await
}

/// A node as it starts, with its disk if it has one.
fn door(sim: &Sim, disks: &[SimDisk], node: usize) -> Arc<SimEnv> {
    let (name, address) = (format!("node-{}", node + 1), format!("sim:{}", node + 1));
    let Some(disk) = disks.get(node) else { return sim.start_node(&name, &address) };
    let id = node_on(disk.disk().as_ref()).expect("the disk is whole");
    let id = id.unwrap_or_else(|| NodeId(sim.rng().next_u64().max(1)));
    let env = sim.start_node_on(id, disk.disk(), &name, &address);
    let clock = env.clone();
    disk.set_sync_latency(Some(Arc::new(move || sleep(clock.as_ref(), Duration::from_micros(250)))));
    env
}

fn types() -> Rc<Types> {
    Rc::new(|_| KvTypes::new().with("texts", Texts).with_bytes())
}

pub(crate) fn name(name: &str) -> KeyspaceName {
    KeyspaceName::new(name).expect("a valid name")
}

pub(crate) fn key(key: &str) -> Key {
    Key::new(key.to_owned()).expect("a valid key")
}

pub(crate) fn policy() -> KeyspacePolicy {
    KeyspacePolicy { shards: 4, ..KeyspacePolicy::of("texts") }
}

impl Cluster {
    /// Nodes that keep everything in memory.
    pub(crate) fn new(seed: u64) -> Self {
        Self::formed(seed, false, config(), types())
    }

    /// The same with other settings.
    pub(crate) fn with_config(seed: u64, config: KvConfig) -> Self {
        Self::formed(seed, false, config, types())
    }

    /// The same with value types of a test's own, which may differ from node to node.
    pub(crate) fn with_types(seed: u64, types: impl Fn(usize) -> KvTypes + 'static) -> Self {
        Self::formed(seed, false, config(), Rc::new(types))
    }

    /// Nodes that keep their groups on disks.
    pub(crate) fn on_disks(seed: u64) -> Self {
        Self::on_disks_with(seed, config())
    }

    /// The same with other settings.
    pub(crate) fn on_disks_with(seed: u64, config: KvConfig) -> Self {
        Self::formed(seed, true, config, types())
    }

    fn formed(seed: u64, on_disks: bool, config: KvConfig, types: Rc<Types>) -> Self {
        let sim = Sim::new(seed, NetConfig::default());
        let disks: Vec<SimDisk> = (0..NODES).filter(|_| on_disks).map(|_| SimDisk::new(sim.rng())).collect();
        let envs: Vec<_> = (0..NODES).map(|node| door(&sim, &disks, node)).collect();
        let started: Vec<_> = (0..NODES)
            .map(|node| sim.spawn_on(&envs[node], start(envs[node].clone(), config.clone(), types(node))))
            .collect();
        let mut nodes = Vec::new();
        for (env, kv) in envs.into_iter().zip(started) {
            nodes.push((env, wait(&sim, kv).expect("not killed").expect("the node starts")));
        }
        let client_env = sim.start_node("client", "sim:client");
        let client = sim.spawn_on(&client_env, Kv::connect(client_env.clone(), fleet(), config.clone()));
        let client = wait(&sim, client).expect("not killed").expect("the client connects");
        Self { sim, nodes, client, client_env, disks, config, types }
    }

    /// All machines stop at once, and start again with what their disks had synced.
    pub(crate) fn lose_power(&mut self) {
        for (node, disk) in self.disks.iter().enumerate() {
            self.sim.kill(&self.nodes[node].0);
            disk.kill();
            disk.crash();
        }
        let envs: Vec<_> = (0..NODES).map(|node| door(&self.sim, &self.disks, node)).collect();
        let started: Vec<_> = (0..NODES).map(|node| self.spawn_start(node, &envs[node])).collect();
        for (node, (env, kv)) in envs.into_iter().zip(started).enumerate() {
            let kv = wait(&self.sim, kv).expect("not killed").expect("the node starts again");
            self.nodes[node] = (env, kv);
        }
    }

    fn spawn_start(&self, node: usize, env: &Arc<SimEnv>) -> SimTask<Result<Kv, KvError>> {
        self.sim.spawn_on(env, start(env.clone(), self.config.clone(), (self.types)(node)))
    }

    /// Runs something on the client.
    pub(crate) fn run<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        run: impl FnOnce(Kv) -> F,
    ) -> T {
        let task = self.sim.spawn_on(&self.client_env, run(self.client.clone()));
        wait(&self.sim, task).expect("the client is not killed")
    }

    pub(crate) fn client_env(&self) -> &Arc<SimEnv> {
        &self.client_env
    }

    /// Starts something on the client.
    pub(crate) fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        run: impl FnOnce(Kv) -> F,
    ) -> SimTask<T> {
        self.sim.spawn_on(&self.client_env, run(self.client.clone()))
    }

    /// Starts a node anew that was killed; it comes back empty.
    pub(crate) fn restart(&mut self, node: usize) {
        let env = door(&self.sim, &self.disks, node);
        let started = self.spawn_start(node, &env);
        let kv = wait(&self.sim, started).expect("not killed").expect("the node starts again");
        self.nodes[node] = (env, kv);
    }

    /// Starts something on a node.
    pub(crate) fn spawn_on<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        node: usize,
        run: impl FnOnce(Kv) -> F,
    ) -> SimTask<T> {
        let (env, kv) = &self.nodes[node];
        self.sim.spawn_on(env, run(kv.clone()))
    }

    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        wait(&self.sim, future)
    }
}

/// Lets the world go on until the future is done.
fn wait<F: Future>(sim: &Sim, future: F) -> F::Output {
    sim.run_until(300 * SECOND, future)
        .unwrap_or_else(|| panic!("nothing after 300 s of virtual time, seed {}", sim.seed()))
}
