//! Simulated nodes with fleets, a counter to replicate, and clients that count what they were told.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "test code, though not in a test function")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use raft_fleet::rafted_value::env::sleep;
use raft_fleet::rafted_value::node_on;
use raft_fleet::rafted_value::sim::{NetConfig, Sim, SimDisk, SimEnv, SimTask};
use raft_fleet::{
    CallOptions, CommandContext, CommandError, Data, Fleet, FleetConfig, FleetError, Freshness, GroupConfig,
    GroupId, GroupName, HostConfig, MemberId, NodeId, Registry, encode,
};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MS: Duration = Duration::from_millis(1);

/// An integer that can be added to.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub struct Counter(u64);

impl Data for Counter {
    const NAME: &'static str = "counter";
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, _: &CommandContext, add: u64) -> u64 {
        self.0 += add;
        self.0
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }
}

/// Counts its commands; replies and answers are as long as is asked for.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub struct Echo(u64);

impl Data for Echo {
    const NAME: &'static str = "echo";
    type Command = (usize, Vec<u8>);
    type Reply = (u64, Vec<u8>);
    type Query = (usize, Vec<u8>);
    type Answer = (u64, Vec<u8>);

    fn command(&mut self, _: &CommandContext, (length, _): (usize, Vec<u8>)) -> (u64, Vec<u8>) {
        self.0 += 1;
        (self.0, vec![0; length])
    }

    fn query(&self, (length, _): (usize, Vec<u8>)) -> (u64, Vec<u8>) {
        (self.0, vec![0; length])
    }
}

/// Keeps all that it is given; a reply is how much that is.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub struct Hoard(Vec<u8>);

impl Data for Hoard {
    const NAME: &'static str = "hoard";
    type Command = Vec<u8>;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, _: &CommandContext, more: Vec<u8>) -> u64 {
        self.0.extend(more);
        self.0.len() as u64
    }

    fn query(&self, (): ()) -> u64 {
        self.0.len() as u64
    }
}

pub fn name(number: usize) -> GroupName {
    GroupName::new(&format!("group-{number}")).unwrap()
}

/// One place for a node, and the life that it has at the moment.
pub struct Node {
    pub env: Arc<SimEnv>,
    pub fleet: Option<Fleet>,
    starting: Option<SimTask<Result<Fleet, FleetError>>>,
}

pub struct World {
    pub sim: Sim,
    pub nodes: Vec<Node>,
    pub config: FleetConfig,
    /// The disks of the places, where the nodes keep anything.
    pub disks: Vec<SimDisk>,
    /// Where nodes are that have moved.
    pub moved: BTreeMap<usize, String>,
    /// The names of nodes that are not called after their place.
    pub names: BTreeMap<usize, String>,
}

impl World {
    /// A world in which `count` nodes are to form a cluster; none is started yet.
    pub fn new(seed: u64, count: usize) -> Self {
        let config = FleetConfig {
            seeds: (0..count).map(address).collect(),
            bootstrap_expect: count,
            host: HostConfig { loops: 2, ..HostConfig::default() },
            failure_window: 5 * SECOND,
            ..FleetConfig::default()
        };
        Self {
            sim: Sim::new(seed, NetConfig::default()),
            nodes: Vec::new(),
            config,
            disks: Vec::new(),
            moved: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// A world with a formed cluster of `count` nodes.
    pub fn formed(seed: u64, count: usize) -> Self {
        let mut world = Self::new(seed, count);
        (0..count).for_each(|place| world.begin(place));
        (0..count).for_each(|place| world.finish(place, 30 * SECOND));
        world
    }

    /// The same where each node keeps its state on a disk.
    pub fn formed_on_disks(seed: u64, count: usize) -> Self {
        let mut world = Self::new(seed, count);
        world.disks = (0..count).map(|_| SimDisk::new(world.sim.rng())).collect();
        (0..count).for_each(|place| world.begin(place));
        (0..count).for_each(|place| world.finish(place, 30 * SECOND));
        world
    }

    /// The machine of a node stops: what its disk has not synced may be gone.
    pub fn lose_power(&mut self, place: usize) {
        self.kill(place);
        self.disks[place].crash();
    }

    fn door(&self, place: usize) -> Arc<SimEnv> {
        let address = self.moved.get(&place).cloned().unwrap_or_else(|| address(place));
        let label = self.names.get(&place).cloned().unwrap_or_else(|| format!("node-{place}"));
        let Some(disk) = self.disks.get(place) else { return self.sim.start_node(&label, &address) };
        let node = node_on(disk.disk().as_ref()).unwrap();
        let node = node.unwrap_or_else(|| NodeId(self.sim.rng().next_u64().max(1)));
        let env = self.sim.start_node_on(node, disk.disk(), &label, &address);
        let clock = env.clone();
        disk.set_sync_latency(Some(Arc::new(move || sleep(clock.as_ref(), MS / 4))));
        env
    }

    /// Starts the node at a place; a second time, this is its restart.
    pub fn begin(&mut self, place: usize) {
        self.begin_as(place, false);
    }

    /// The same for a node that comes back, whether or not anybody leads the cluster.
    pub fn begin_without_leader(&mut self, place: usize) {
        self.begin_as(place, true);
    }

    fn begin_as(&mut self, place: usize, without_leader: bool) {
        let env = self.door(place);
        let config = FleetConfig { zone: format!("zone-{}", place % 3), ..self.config.clone() };
        let registry = Registry::new().with::<Counter>().with::<Echo>().with::<Hoard>();
        let door: Arc<SimEnv> = env.clone();
        let start = async move {
            match without_leader {
                false => Fleet::start(door, config, registry).await,
                true => Fleet::start_without_leader(door, config, registry).await,
            }
        };
        let starting = Some(self.sim.spawn_on(&env, start));
        let node = Node { env, fleet: None, starting };
        if place < self.nodes.len() {
            self.nodes[place] = node;
        } else {
            assert_eq!(place, self.nodes.len());
            self.nodes.push(node);
        }
    }

    /// Waits until a node is part of the cluster.
    pub fn finish(&mut self, place: usize, limit: Duration) {
        let fleet = self.try_finish(place, limit).expect("the node starts in time").unwrap();
        self.nodes[place].fleet = Some(fleet);
    }

    pub fn try_finish(&mut self, place: usize, limit: Duration) -> Option<Result<Fleet, FleetError>> {
        let starting = self.nodes[place].starting.take().unwrap();
        self.sim.run_until(limit, starting).flatten()
    }

    pub fn restart(&mut self, place: usize) {
        self.begin(place);
        self.finish(place, 30 * SECOND);
    }

    pub fn kill(&mut self, place: usize) {
        self.nodes[place].fleet = None;
        self.sim.kill(&self.nodes[place].env);
        self.disks.get(place).iter().for_each(|disk| disk.kill());
    }

    /// The program of a node ends in order.
    pub fn stop(&mut self, place: usize) {
        let fleet = self.fleet(place);
        let env = self.nodes[place].env.clone();
        let stopped = self.sim.spawn_on(&env, async move { fleet.shutdown().await });
        self.sim.run_until(30 * SECOND, stopped).flatten().expect("a node stops in time");
        self.kill(place);
    }

    pub fn fleet(&self, place: usize) -> Fleet {
        self.nodes[place].fleet.clone().unwrap()
    }

    pub fn id(&self, place: usize) -> NodeId {
        self.fleet(place).node()
    }

    /// A client that hosts nothing.
    pub fn client(&mut self, name: &str) -> (Arc<SimEnv>, Fleet) {
        let env = self.sim.start_node(name, &format!("{name}:1"));
        let door: Arc<SimEnv> = env.clone();
        let config = self.config.clone();
        let connect = self.sim.spawn_on(&env, async move { Fleet::connect(door, config).await });
        let fleet = self.sim.run_until(60 * SECOND, connect).flatten().unwrap().unwrap();
        (env, fleet)
    }

    pub fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        self.sim.run_until(120 * SECOND, self.sim.spawn(future)).flatten().expect("it ends in time")
    }

    pub fn add_groups(&self, fleet: &Fleet, count: usize) {
        for number in 0..count {
            let fleet = fleet.clone();
            self.run(async move {
                fleet.add_group(name(number), Counter::NAME, 3, GroupConfig::default()).await.unwrap()
            });
        }
    }

    /// Members of all groups as their leaders see them: voters and learners by group.
    pub fn leaders(&self) -> BTreeMap<GroupId, (NodeId, Vec<NodeId>, usize)> {
        let mut leaders = BTreeMap::new();
        for fleet in self.nodes.iter().filter_map(|node| node.fleet.clone()) {
            let statuses = self.run(async move { fleet.host().unwrap().statuses().await });
            for status in statuses.into_iter().filter(|status| status.ready) {
                let voters = status.members.iter().filter(|member| member.voter).map(|member| member.node);
                let learners = status.members.iter().filter(|member| !member.voter).count();
                let leader = status.leader.unwrap();
                leaders.insert(status.group, (leader, voters.collect(), learners));
            }
        }
        leaders
    }

    /// Lets time pass until `holds`, at most `limit`.
    pub fn until(&self, limit: Duration, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let end = self.sim.elapsed() + limit;
        while !holds(self) {
            assert!(self.sim.elapsed() < end, "{what}: not within {limit:?}; {:#?}", self.leaders());
            self.sim.run_for(100 * MS);
        }
    }

    /// Whether every group, the cluster's own included, has `voters` voters, all of them on living nodes.
    pub fn is_whole(&self, groups: usize, voters: usize) -> bool {
        let living: Vec<NodeId> =
            self.nodes.iter().filter_map(|node| Some(node.fleet.as_ref()?.node())).collect();
        let leaders = self.leaders();
        leaders.len() == groups + 1
            && leaders.values().all(|(_, nodes, learners)| {
                nodes.len() == voters && *learners == 0 && nodes.iter().all(|node| living.contains(node))
            })
    }
}

/// The members of all groups that a node holds.
pub fn members(world: &World, place: usize) -> BTreeMap<GroupId, MemberId> {
    let fleet = world.fleet(place);
    let statuses = world.run(async move { fleet.host().expect("a full node").statuses().await });
    statuses.into_iter().map(|status| (status.group, status.member)).collect()
}

pub fn address(place: usize) -> String {
    format!("host-{place}:1")
}

/// What a client was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Told {
    pub applied: u64,
    pub not_applied: u64,
    pub unknown: u64,
    /// The longest time that one call took.
    pub slowest: Duration,
}

/// Adds one to a group's counter, `count` times, and checks that each reply is the next number.
pub async fn count_up(fleet: Fleet, group: GroupName, count: u64, pause: Duration) -> Told {
    let mut told = Told::default();
    let env = fleet.env().clone();
    let options = CallOptions::default().with_timeout(20 * SECOND);
    for _ in 0..count {
        let before = env.now();
        match fleet.command(&group, 0, encode(&1_u64), &options).await {
            Ok(reply) => {
                told.applied += 1;
                let total: u64 = postcard::from_bytes(&reply).unwrap();
                assert_eq!(total, told.applied, "a command of {group} was lost or doubled");
            }
            Err(CommandError::NotApplied(_)) => told.not_applied += 1,
            Err(CommandError::Unknown(_)) => told.unknown += 1,
        }
        told.slowest = told.slowest.max(env.now().since(before));
        raft_fleet::rafted_value::env::sleep(env.as_ref(), pause).await;
    }
    told
}

pub async fn read(fleet: Fleet, group: GroupName) -> u64 {
    let answer = fleet.query(&group, Freshness::Latest, encode(&()), &CallOptions::default()).await.unwrap();
    postcard::from_bytes(&answer).unwrap()
}

/// Like [`count_up`], where a command may stay unknown; the counts must then never go back or jump too far.
pub async fn count_loosely(fleet: Fleet, group: GroupName, count: u64, pause: Duration) -> Told {
    let mut told = Told::default();
    let env = fleet.env().clone();
    let options = CallOptions::default().with_timeout(20 * SECOND);
    for _ in 0..count {
        match fleet.command(&group, 0, encode(&1_u64), &options).await {
            Ok(reply) => {
                told.applied += 1;
                let total: u64 = postcard::from_bytes(&reply).unwrap();
                let range = told.applied..=told.applied + told.unknown;
                assert!(range.contains(&total), "{group}: {total} of {told:?}");
            }
            Err(CommandError::NotApplied(_)) => told.not_applied += 1,
            Err(CommandError::Unknown(_)) => told.unknown += 1,
        }
        raft_fleet::rafted_value::env::sleep(env.as_ref(), pause).await;
    }
    told
}
