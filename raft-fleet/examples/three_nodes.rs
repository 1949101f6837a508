//! A walk through a cluster of three nodes: it forms, a node is killed, another one is drained and restarted, and then two
//! of three are lost for good. A client counts on eight groups all the while.
//!
//! It runs on the simulated network, so that a minute of cluster takes seconds:
//! `cargo run -p raft-fleet --example three_nodes --features sim`. The nodes of a real cluster differ in their `Env` only.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use raft_fleet::rafted_value::env::sleep;
use raft_fleet::rafted_value::sim::{NetConfig, Sim, SimEnv, SimTask};
use raft_fleet::{
    CallOptions, CommandContext, Data, Fleet, FleetConfig, FleetError, GroupConfig, GroupName, NodeId,
    Registry, encode,
};

/// An integer that can be added to.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Counter(u64);

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

type Told<T> = Result<T, Box<dyn Error + Send + Sync>>;

const GROUPS: usize = 8;
/// How often each group is counted up in each part of the walk.
const COMMANDS: u64 = 200;
const MINUTE: Duration = Duration::from_secs(60);

fn config() -> FleetConfig {
    FleetConfig {
        seeds: (1..=3).map(|number| format!("host-{number}:7000")).collect(),
        bootstrap_expect: 3,
        ..FleetConfig::default()
    }
}

/// A node in its present life.
struct Node {
    env: Arc<SimEnv>,
    fleet: Fleet,
}

/// What is written down along the way.
struct Walk {
    sim: Sim,
    nodes: Vec<Node>,
    client_env: Arc<SimEnv>,
    client: Fleet,
    said: String,
}

/// A client on every group.
type Counting = Vec<SimTask<Told<(u64, Duration)>>>;
type Starting = (Arc<SimEnv>, SimTask<Result<Fleet, FleetError>>);

fn start(sim: &Sim, number: usize) -> Starting {
    let env = sim.start_node(&format!("node-{number}"), &format!("host-{number}:7000"));
    let config = FleetConfig { zone: format!("zone-{number}"), ..config() };
    let task = sim.spawn_on(&env, Fleet::start(env.clone(), config, Registry::new().with::<Counter>()));
    (env, task)
}

fn finish(sim: &Sim, (env, task): Starting) -> Told<Node> {
    let fleet = sim.run_until(MINUTE, task).flatten().ok_or("a node did not start")??;
    Ok(Node { env, fleet })
}

fn name(number: usize) -> Told<GroupName> {
    Ok(GroupName::new(&format!("counter-{number}"))?)
}

/// Adds one to a counter again and again; gives the last reply and the longest wait.
async fn count(fleet: Fleet, name: GroupName) -> Told<(u64, Duration)> {
    let (mut last, mut slowest) = (0, Duration::ZERO);
    for _ in 0..COMMANDS {
        let before = fleet.env().now();
        let reply = fleet.command(&name, 0, encode(&1_u64), &CallOptions::default()).await?;
        last = postcard::from_bytes(&reply)?;
        slowest = slowest.max(fleet.env().now().since(before));
        sleep(fleet.env().as_ref(), Duration::from_millis(50)).await;
    }
    Ok((last, slowest))
}

impl Walk {
    fn begin() -> Told<Self> {
        let sim = Sim::new(7, NetConfig::default());
        let started: Vec<_> = (1..=3).map(|number| start(&sim, number)).collect();
        let nodes = started.into_iter().map(|starting| finish(&sim, starting)).collect::<Told<_>>()?;
        let client_env = sim.start_node("client", "client:7000");
        let client = Fleet::connect(client_env.clone(), config());
        let client = sim.run_until(MINUTE, client).ok_or("the client found nobody")??;
        Ok(Self { sim, nodes, client_env, client, said: String::new() })
    }

    fn say(&mut self, what: &str) {
        let seconds = self.sim.elapsed().as_secs_f64();
        self.said.push_str(&format!("{seconds:>6.2} s  {what}\n"));
    }

    /// Runs the client on all groups, and tells the total and the longest wait in the end.
    fn counting(&self) -> Told<Counting> {
        let count =
            |number| Ok(self.sim.spawn_on(&self.client_env, count(self.client.clone(), name(number)?)));
        (0..GROUPS).map(count).collect()
    }

    fn counted(&mut self, tasks: Counting, expected: u64) -> Told<()> {
        let mut slowest = Duration::ZERO;
        for task in tasks {
            let (last, wait) =
                self.sim.run_until(2 * MINUTE, task).flatten().ok_or("the client was killed")??;
            assert_eq!(last, expected, "nothing lost, nothing doubled");
            slowest = slowest.max(wait);
        }
        let millis = slowest.as_millis();
        self.say(&format!(
            "every counter stands at {expected}; the longest wait of a command was {millis} ms"
        ));
        Ok(())
    }

    /// Waits until all members and leaders are where they should be.
    fn settle(&mut self) -> Told<()> {
        let fleet = self.nodes[0].fleet.clone();
        let settled = async move {
            while !fleet.moves().await.is_empty() {
                sleep(fleet.env().as_ref(), Duration::from_millis(100)).await;
            }
        };
        Ok(self.sim.run_until(MINUTE, settled).ok_or("the cluster does not settle")?)
    }

    fn groups(&mut self) -> Told<()> {
        let zones = self.nodes[0].fleet.cluster().active_nodes().len();
        self.say(&format!("three nodes formed a cluster of {zones} zones"));
        for number in 0..GROUPS {
            let add = self.nodes[0].fleet.add_group(name(number)?, Counter::NAME, 3, GroupConfig::default());
            self.sim.run_until(MINUTE, add).ok_or("a group did not come to be")??;
        }
        self.say(&format!("{GROUPS} groups of three members serve"));
        Ok(())
    }

    fn kill(&mut self) -> Told<()> {
        let tasks = self.counting()?;
        self.sim.run_for(Duration::from_secs(2));
        self.sim.kill(&self.nodes[1].env);
        self.say("node-2 is killed while a client counts on every group");
        self.sim.run_for(Duration::from_secs(3));
        let starting = start(&self.sim, 2);
        self.nodes[1] = finish(&self.sim, starting)?;
        self.say("node-2 is started again, empty, and was taken in at once");
        self.counted(tasks, COMMANDS)?;
        self.settle()
    }

    fn drain(&mut self) -> Told<()> {
        let tasks = self.counting()?;
        self.sim.run_for(Duration::from_secs(1));
        let leaving = self.nodes[2].fleet.clone();
        let status = self.sim.run_until(MINUTE, leaving.drain_status()).ok_or("no answer")??;
        self.say(&format!(
            "node-3 is deactivated while it leads {} groups and holds {} members",
            status.leaders_left, status.members_left
        ));
        let drained = async {
            leaving.deactivate().await?;
            leaving.drained(MINUTE).await
        };
        self.sim.run_until(MINUTE, drained).ok_or("no answer")??;
        self.say("node-3 is empty and safe to stop");
        self.sim.run_until(MINUTE, leaving.shutdown()).ok_or("it does not stop")?;
        self.sim.kill(&self.nodes[2].env);
        let starting = start(&self.sim, 3);
        self.nodes[2] = finish(&self.sim, starting)?;
        self.say("node-3 was stopped and is started again");
        self.counted(tasks, 2 * COMMANDS)?;
        self.settle()
    }

    fn lose_the_majority(&mut self) -> Told<()> {
        let dead: Vec<NodeId> = self.nodes[1..].iter().map(|node| node.fleet.node()).collect();
        self.nodes[1..].iter().for_each(|node| self.sim.kill(&node.env));
        self.say("node-2 and node-3 are lost for good");
        self.sim.run_for(Duration::from_secs(5));
        let left = self.nodes[0].fleet.clone();
        let leaderless = self.sim.run_until(MINUTE, left.find_groups_without_leader()).ok_or("no answer")?;
        self.say(&format!("{} groups have no leader, the cluster's own among them", leaderless.len()));
        let plan = self.sim.run_until(MINUTE, left.plan_removal(&dead)).ok_or("no answer")?;
        self.say("what it costs to go on with node-1 alone, as the plan says:");
        plan.groups.iter().take(2).for_each(|removal| self.said.push_str(&format!("          {removal}\n")));
        self.sim.run_until(MINUTE, left.remove_dead_members(&plan)).ok_or("no answer")??;
        self.say("an operator has read that and wants it");
        let tasks = self.counting()?;
        let starting = [start(&self.sim, 2), start(&self.sim, 3)];
        self.nodes.truncate(1);
        for starting in starting {
            let node = finish(&self.sim, starting)?;
            self.nodes.push(node);
        }
        self.say("two empty machines take the places of the lost ones");
        self.counted(tasks, 3 * COMMANDS)?;
        self.settle()?;
        let held = self.nodes[1].fleet.drain_status();
        let held = self.sim.run_until(MINUTE, held).ok_or("no answer")??;
        self.say(&format!("node-2 holds {} members again", held.members_left));
        Ok(())
    }
}

/// The whole walk, line by line.
///
/// # Errors
///
/// What did not go as it should.
pub fn story() -> Told<String> {
    let mut walk = Walk::begin()?;
    walk.groups()?;
    walk.kill()?;
    walk.drain()?;
    walk.lose_the_majority()?;
    Ok(walk.said)
}

fn main() -> Told<()> {
    print!("{}", story()?);
    Ok(())
}
