//! Three nodes form a cluster, one is killed and comes back empty; a client counts on eight groups all the while.
//!
//! It runs on the simulated network, so that half a minute of cluster takes a fraction of a second:
//! `cargo run -p raft-fleet --example three_nodes --features sim`. The nodes of a real cluster differ in their `Env` only.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use raft_fleet::rafted_value::env::sleep;
use raft_fleet::rafted_value::sim::{NetConfig, Sim, SimEnv, SimTask};
use raft_fleet::{
    CallOptions, CommandContext, Data, Fleet, FleetConfig, FleetError, GroupConfig, GroupName, Registry,
    encode,
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

const GROUPS: usize = 8;
const COMMANDS: u64 = 200;

fn config() -> FleetConfig {
    FleetConfig {
        seeds: (1..=3).map(|number| format!("host-{number}:7000")).collect(),
        bootstrap_expect: 3,
        ..FleetConfig::default()
    }
}

fn start(sim: &Sim, number: usize) -> (Arc<SimEnv>, SimTask<Result<Fleet, FleetError>>) {
    let env = sim.start_node(&format!("node-{number}"), &format!("host-{number}:7000"));
    let config = FleetConfig { zone: format!("zone-{number}"), ..config() };
    let task = sim.spawn_on(&env, Fleet::start(env.clone(), config, Registry::new().with::<Counter>()));
    (env, task)
}

/// Adds one to a counter again and again; gives the last reply and the longest wait.
async fn count(fleet: Fleet, name: GroupName) -> Result<(u64, Duration), Box<dyn Error + Send + Sync>> {
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

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let sim = Sim::new(7, NetConfig::default());
    let minute = Duration::from_secs(60);
    let say = |what: &str| println!("{:>7.2} s  {what}", sim.elapsed().as_secs_f64());

    let started: Vec<_> = (1..=3).map(|number| start(&sim, number)).collect();
    let (mut envs, mut fleets) = (Vec::new(), Vec::new());
    for (env, task) in started {
        envs.push(env);
        fleets.push(sim.run_until(minute, task).flatten().ok_or("a node did not start")??);
    }
    say(&format!("three nodes formed a cluster of {} zones", fleets[0].cluster().active_nodes().len()));

    let names = (0..GROUPS).map(|number| GroupName::new(&format!("counter-{number}")));
    let names: Vec<GroupName> = names.collect::<Result<_, _>>()?;
    for name in &names {
        let add = fleets[0].add_group(name.clone(), Counter::NAME, 3, GroupConfig::default());
        sim.run_until(minute, add).ok_or("a group did not come to be")??;
    }
    say(&format!("{GROUPS} groups of three members serve"));

    let client_env = sim.start_node("client", "client:7000");
    let client = Fleet::connect(client_env.clone(), config());
    let client = sim.run_until(minute, client).ok_or("the client found nobody")??;
    let counts: Vec<_> =
        names.iter().map(|name| sim.spawn_on(&client_env, count(client.clone(), name.clone()))).collect();
    sim.run_for(Duration::from_secs(2));
    sim.kill(&envs[1]);
    say("node-2 is killed while a client counts on every group");
    sim.run_for(Duration::from_secs(3));

    let (_env, task) = start(&sim, 2);
    let back = sim.run_until(minute, task).flatten().ok_or("node-2 did not come back")??;
    say("node-2 is started again, empty, and was taken in at once");

    for (name, count) in names.iter().zip(counts) {
        let (last, slowest) = sim.run_until(minute, count).flatten().ok_or("the client was killed")??;
        println!("           {name}: {last} of {COMMANDS}, the slowest took {slowest:?}");
        assert_eq!(last, COMMANDS, "nothing lost, nothing doubled");
    }
    let host = back.host().ok_or("a full node has a host")?;
    let members = sim.run_until(minute, host.statuses()).ok_or("no statuses")?;
    say(&format!("node-2 holds {} members again", members.len()));
    Ok(())
}
