//! Simulated nodes with hosts, a replicated register of numbers, and a client that retries as a user would.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "test code, though not in a test function")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rafted_value::env::{Env, sleep};
use rafted_value::sim::{NetConfig, Sim, SimDisk, SimEnv, SimTask};
use rafted_value::{
    ClientSession, CommandContext, CommandError, Data, Durability, Found, Freshness, GroupCaller,
    GroupConfig, GroupError, GroupId, GroupStatus, Host, HostConfig, MemberId, NodeId, NotApplied,
    QueryError, Registry, Role, SessionId, encode,
};
use serde::{Deserialize, Serialize};

thread_local! {
    /// Handler runs of this test; a simulation has one thread.
    static RUNS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How often a command handler ran on this thread so far.
pub fn runs() -> u64 {
    RUNS.get()
}

pub const GROUP: GroupId = GroupId(77);
pub const SECOND: Duration = Duration::from_secs(1);
pub const MS: Duration = Duration::from_millis(1);

/// Named counters; a command can be told to panic, and the order of commands is kept.
#[derive(Default, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Counters {
    pub counts: BTreeMap<String, i64>,
    pub log: Vec<i64>,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub enum Change {
    Add(String, i64),
    Panic,
    Fill(usize),
}

impl Data for Counters {
    const NAME: &'static str = "counters";
    type Command = Change;
    type Reply = i64;
    type Query = ();
    type Answer = Counters;

    fn command(&mut self, _: &CommandContext, change: Change) -> i64 {
        RUNS.set(RUNS.get() + 1);
        match change {
            Change::Add(name, amount) => {
                self.log.push(amount);
                let count = self.counts.entry(name).or_default();
                *count += amount;
                *count
            }
            Change::Panic => {
                self.log.clear();
                panic!("told to panic");
            }
            Change::Fill(bytes) => {
                self.counts.insert("x".repeat(bytes), 0);
                0
            }
        }
    }

    fn query(&self, (): ()) -> Counters {
        self.clone()
    }

    fn command_kind(change: &Change) -> &'static str {
        match change {
            Change::Add(..) => "add",
            Change::Panic => "panic",
            Change::Fill(_) => "fill",
        }
    }
}

pub struct Node {
    pub env: Arc<SimEnv>,
    pub host: Host,
    pub alive: bool,
    pub disk: Option<SimDisk>,
}

/// A simulation with some nodes.
pub struct World {
    pub sim: Sim,
    pub nodes: Vec<Node>,
    pub config: GroupConfig,
    pub host_config: HostConfig,
    pub registry: Registry,
    /// How long a sync takes on the disk of a node that comes up from now on.
    pub sync_takes: Duration,
}

impl World {
    /// A simulation without nodes.
    pub fn empty(seed: u64) -> Self {
        Self::empty_with_registry(seed, Registry::new().with::<Counters>())
    }

    fn empty_with_registry(seed: u64, registry: Registry) -> Self {
        let sim = Sim::new(seed, NetConfig::default());
        let host_config = HostConfig { loops: 2, divergence_check_commands: 8, ..HostConfig::default() };
        let config = GroupConfig::default();
        Self { sim, nodes: Vec::new(), config, host_config, registry, sync_takes: MS / 4 }
    }

    pub fn new(seed: u64, nodes: usize) -> Self {
        Self::with_registry(seed, nodes, Registry::new().with::<Counters>())
    }

    /// Nodes that know these data types and hooks.
    pub fn with_registry(seed: u64, nodes: usize, registry: Registry) -> Self {
        let mut world = Self::empty_with_registry(seed, registry);
        for _ in 0..nodes {
            world.start_node();
        }
        world
    }

    /// One group over all nodes, founded on the first.
    pub fn with_group(seed: u64, nodes: usize) -> Self {
        let world = Self::new(seed, nodes);
        world.found_on_all();
        world
    }

    /// The group, founded on the first node and grown over all others.
    pub fn found_on_all(&self) {
        self.found(0);
        for node in 1..self.nodes.len() {
            self.add_voter(0, node);
        }
    }

    /// Nodes on disks whose group has been written to until its members have snapshots in files.
    pub fn with_large_snapshots(seed: u64, nodes: usize) -> Self {
        let mut world = Self::empty(seed);
        world.config = GroupConfig {
            durability: Durability::Fsync,
            log_bytes_min: 10_000,
            log_expansion_factor: 1,
            ..GroupConfig::default()
        };
        world.start_durable_nodes(nodes);
        world.found_on_all();
        let mut client = world.client();
        world.run(20 * SECOND, async move {
            client.change(&Change::Fill(300_000)).await.unwrap();
            client.change(&Change::Add("y".repeat(400_000), 1)).await.unwrap();
            client.add("a", 1).await;
        });
        world.sim.run_for(2 * SECOND);
        world
    }

    /// Nodes with disks, whose syncs take a little while.
    pub fn start_durable_nodes(&mut self, nodes: usize) {
        for _ in 0..nodes {
            let disk = SimDisk::new(self.sim.rng());
            let id = NodeId(1000 + self.nodes.len() as u64);
            let index = self.nodes.len();
            let (env, host) = self.bring_up(index, id, &disk);
            self.nodes.push(Node { env, host, alive: true, disk: Some(disk) });
        }
    }

    fn bring_up(&self, index: usize, id: NodeId, disk: &SimDisk) -> (Arc<SimEnv>, Host) {
        let env = self.sim.start_node_on(id, disk.disk(), &format!("node-{index}"), &format!("sim:{index}"));
        let (clock, takes) = (env.clone(), self.sync_takes);
        disk.set_sync_latency(Some(Arc::new(move || sleep(clock.as_ref(), takes))));
        for (other, node) in self.nodes.iter().enumerate().filter(|(other, _)| *other != index) {
            env.transport().set_address(node.id(), &format!("sim:{other}"));
            node.env.transport().set_address(id, &format!("sim:{index}"));
        }
        let registry = self.registry.clone();
        let open = Host::open(env.clone(), self.host_config.clone(), registry);
        let host = self.run(10 * SECOND, open).unwrap();
        (env, host)
    }

    /// The power of a node's machine fails.
    pub fn lose_power(&mut self, node: usize) {
        self.kill(node);
        self.nodes[node].disk().crash();
    }

    /// A node comes back with its disk.
    pub fn restart(&mut self, node: usize) {
        let (id, disk) = (self.nodes[node].id(), self.nodes[node].disk().clone());
        let (env, host) = self.bring_up(node, id, &disk);
        self.nodes[node] = Node { env, host, alive: true, disk: Some(disk) };
    }

    pub fn start_node(&mut self) -> usize {
        let index = self.nodes.len();
        let env = self.sim.start_node(&format!("node-{index}"), &format!("sim:{index}"));
        for other in &self.nodes {
            env.transport().set_address(other.id(), &other.address());
            other.env.transport().set_address(env.transport().local().node, &format!("sim:{index}"));
        }
        let host = Host::start(env.clone(), self.host_config.clone(), self.registry.clone());
        self.nodes.push(Node { env, host, alive: true, disk: None });
        index
    }

    pub fn found(&self, node: usize) {
        let found = Found {
            group: GROUP,
            data: Counters::NAME.into(),
            config: self.config.clone(),
            nodes: vec![self.nodes[node].id()],
        };
        let host = self.nodes[node].host.clone();
        self.run(5 * SECOND, async move { host.found(found).await }).unwrap();
        self.sim.run_for(200 * MS);
    }

    pub fn add_voter(&self, leader: usize, node: usize) -> MemberId {
        let (host, id) = (self.nodes[leader].host.clone(), self.nodes[node].id());
        let env = self.nodes[leader].env.clone();
        self.run(10 * SECOND, async move {
            let member = host.add_learner(GROUP, id).await.unwrap();
            loop {
                match host.promote(GROUP, member).await {
                    Ok(()) => return member,
                    Err(GroupError::NotCaughtUp { .. } | GroupError::ChangeInProgress(_)) => {
                        sleep(env.as_ref(), 10 * MS).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        })
    }

    pub fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.sim.run_until(limit, future).expect("it ends in time")
    }

    /// What a task of ours ends with, soon.
    pub fn end<T: Send + 'static>(&self, task: SimTask<T>) -> T {
        self.run(5 * SECOND, task).expect("nobody aborts it")
    }

    pub fn kill(&mut self, node: usize) {
        self.sim.kill(&self.nodes[node].env);
        self.nodes[node].alive = false;
        if let Some(disk) = &self.nodes[node].disk {
            disk.kill();
        }
    }

    /// Cuts a node off from all others.
    pub fn cut_off(&self, node: usize) {
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        let others: Vec<String> = others.map(|other| self.nodes[other].address()).collect();
        self.sim.partition(&[self.nodes[node].address()], &others);
    }

    pub fn status(&self, node: usize) -> GroupStatus {
        let host = self.nodes[node].host.clone();
        self.run(SECOND, async move { host.status(GROUP).await }).expect("a member is there")
    }

    /// The node that leads in the highest term among those that live, once there is one.
    pub fn leader(&self) -> usize {
        for _ in 0..100 {
            let leads = |node: &usize| self.nodes[*node].alive && self.has_member(*node);
            let leaders = (0..self.nodes.len()).filter(leads).map(|node| (self.status(node), node));
            let leader = leaders.filter(|(status, _)| status.role == Role::Leader && status.ready);
            if let Some((_, node)) = leader.max_by_key(|(status, _)| status.term) {
                return node;
            }
            self.sim.run_for(50 * MS);
        }
        panic!("no leader in five seconds");
    }

    /// The member of the group on a node.
    pub fn member(&self, node: usize) -> MemberId {
        self.status(node).member
    }

    /// Asks the leader's host to hand the leadership over to another node's member, or to keep it.
    pub fn replace_leader(&self, leader: usize, to: Option<usize>) -> SimTask<Result<(), GroupError>> {
        self.replace_leader_to(leader, to.map(|node| self.member(node)))
    }

    pub fn replace_leader_to(&self, leader: usize, to: Option<MemberId>) -> SimTask<Result<(), GroupError>> {
        let host = self.nodes[leader].host.clone();
        self.sim.spawn(async move { host.replace_leader(GROUP, to).await })
    }

    /// The member on a node as the member on another says, for a node that cannot speak.
    pub fn member_on(&self, asked: usize, node: usize) -> Option<MemberId> {
        let members = self.status(asked).members;
        members.iter().find(|member| member.node == self.nodes[node].id()).map(|member| member.member)
    }

    pub fn has_member(&self, node: usize) -> bool {
        let host = self.nodes[node].host.clone();
        self.run(SECOND, async move { host.status(GROUP).await }).is_some()
    }

    pub fn client(&mut self) -> Client {
        let address = format!("sim:client-{}", self.sim.elapsed().as_nanos());
        let env = self.sim.start_node("client", &address);
        for node in &self.nodes {
            env.transport().set_address(node.id(), &node.address());
        }
        Client::new(env, self.nodes.iter().map(Node::id).collect())
    }
}

impl Node {
    pub fn disk(&self) -> &SimDisk {
        self.disk.as_ref().expect("the node has a disk")
    }

    pub fn id(&self) -> NodeId {
        self.env.transport().local().node
    }

    pub fn address(&self) -> String {
        self.env.transport().local().address
    }
}

/// A client that retries through failures with one session.
pub struct Client {
    pub env: Arc<SimEnv>,
    pub caller: GroupCaller,
    pub nodes: Vec<NodeId>,
    pub session: ClientSession,
    pub favourite: usize,
}

impl Client {
    pub fn new(env: Arc<SimEnv>, nodes: Vec<NodeId>) -> Self {
        let session = ClientSession::new(SessionId::new(env.random_u64(), env.random_u64()), 1000);
        let caller = GroupCaller::new(env.clone());
        Self { env, caller, nodes, session, favourite: 0 }
    }

    pub async fn change(&mut self, change: &Change) -> Result<i64, CommandError> {
        let until = self.env.wall_ms() + 60_000;
        let command = self.session.begin(until, 0, encode(change)).unwrap();
        let deadline = self.env.now() + 30 * SECOND;
        let mut perhaps = false;
        loop {
            let node = self.nodes[self.favourite % self.nodes.len()];
            let error = match self.caller.command_at(node, GROUP, &command, 500 * MS).await {
                Ok(reply) => {
                    self.session.finish(command.sequence);
                    return Ok(postcard::from_bytes(&reply).unwrap());
                }
                Err(error) => error,
            };
            match &error {
                CommandError::NotApplied(NotApplied::NotLeader { leader: Some(leader), .. })
                    if self.nodes.contains(leader) && *leader != node =>
                {
                    self.favourite = self.nodes.iter().position(|node| node == leader).unwrap();
                }
                CommandError::NotApplied(
                    NotApplied::NotLeader { .. }
                    | NotApplied::Unreachable(_)
                    | NotApplied::NoSuchGroup(_)
                    | NotApplied::Fenced { .. },
                ) => self.favourite += 1,
                CommandError::Unknown(_) => {
                    perhaps = true;
                    self.favourite += 1;
                }
                CommandError::NotApplied(_) => {
                    assert!(
                        !perhaps || !matches!(error, CommandError::NotApplied(NotApplied::Overloaded { .. }))
                    );
                    self.session.finish(command.sequence);
                    return Err(error);
                }
            }
            if self.env.now() > deadline {
                self.session.finish(command.sequence);
                return Err(error);
            }
            sleep(self.env.as_ref(), 20 * MS).await;
        }
    }

    pub async fn add(&mut self, name: &str, amount: i64) -> i64 {
        self.change(&Change::Add(name.into(), amount)).await.unwrap()
    }

    pub async fn read(&mut self) -> Counters {
        for _ in 0..500 {
            let node = self.nodes[self.favourite % self.nodes.len()];
            let answer = self.caller.query_at(node, GROUP, Freshness::Latest, encode(&()), 500 * MS).await;
            match answer {
                Ok(answer) => return postcard::from_bytes(&answer).unwrap(),
                Err(QueryError::NotLeader { leader: Some(leader), .. }) if self.nodes.contains(&leader) => {
                    self.favourite = self.nodes.iter().position(|node| *node == leader).unwrap();
                }
                Err(_) => self.favourite += 1,
            }
            sleep(self.env.as_ref(), 20 * MS).await;
        }
        panic!("no answer in 500 tries");
    }
}

pub async fn stale(host: &Host) -> Counters {
    let answer = host.query(GROUP, Freshness::Stale, encode(&()), SECOND).await.unwrap();
    postcard::from_bytes(&answer).unwrap()
}

pub fn bytes(value: &impl Serialize) -> Bytes {
    encode(value)
}
