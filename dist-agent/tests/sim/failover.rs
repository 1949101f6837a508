//! A node dies in the middle of the load: nothing that was acknowledged is lost, and nothing happens twice.

use std::sync::Arc;
use std::time::Duration;

use dist_agent::raft_kv::rafted_value::env::sleep;
use dist_agent::{AgentError, AgentHandle, testing};
use parking_lot::Mutex;

use crate::agents::{Count, Counter};
use crate::cluster::{Cluster, NODES, types};

const AGENTS: usize = 12;
const CLIENTS: usize = 8;
const COMMANDS: usize = 60;

/// What the clients were told of one agent.
#[derive(Clone, Copy, Default, Debug)]
struct Told {
    acknowledged: u64,
    unknown: u64,
}

type Tally = Arc<Mutex<Vec<Told>>>;

async fn drive(counters: Vec<AgentHandle<Counter>>, picks: Vec<usize>, tally: Tally) {
    for pick in picks {
        match counters[pick].command(Count::Add(1)).await {
            Ok(_) => tally.lock()[pick].acknowledged += 1,
            Err(AgentError::Unknown(_)) => tally.lock()[pick].unknown += 1,
            Err(AgentError::NotApplied(_)) => {}
        }
    }
}

/// Kills a node of the seed's choice at a time of the seed's choice, starts it again, and compares. Gives a hash over
/// everything that happened.
fn check(seed: u64) -> u64 {
    let mut cluster = Cluster::new(seed);
    let mut rng = cluster.sim.rng();
    let counters: Vec<_> = (0..AGENTS).map(|n| cluster.counter(&format!("room-{n}"))).collect();
    let tally = Tally::new(Mutex::new(vec![Told::default(); AGENTS]));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let picks = (0..COMMANDS).map(|_| rng.below(AGENTS as u64) as usize).collect();
            cluster.spawn(drive(counters.clone(), picks, tally.clone()))
        })
        .collect();

    cluster.sim.run_for(rng.duration(Duration::ZERO, Duration::from_millis(100)));
    let victim = rng.below(NODES as u64) as usize;
    let before: u64 = tally.lock().iter().map(|told| told.acknowledged).sum();
    assert!(before < (CLIENTS * COMMANDS) as u64, "seed {seed}: the node dies in the middle of the load");
    cluster.kill(victim);
    cluster.sim.run_for(rng.duration(Duration::from_millis(100), Duration::from_secs(4)));
    cluster.restart(victim);
    for client in clients {
        cluster.wait(client).expect("the client is not killed");
    }

    let values = cluster.run(async move {
        let mut values = Vec::new();
        for counter in &counters {
            values.push(counter.query(()).await.unwrap_or(0));
        }
        values
    });
    let told = tally.lock().clone();
    for (agent, (told, value)) in told.iter().zip(&values).enumerate() {
        let least = told.acknowledged;
        let most = least + told.unknown;
        assert!((least..=most).contains(value), "seed {seed}: room-{agent} is {value}, told {told:?}");
    }
    let acknowledged: u64 = told.iter().map(|told| told.acknowledged).sum();
    assert!(acknowledged > before, "seed {seed}: nothing was acknowledged after the death");
    cluster.sim.trace_hash()
}

#[test]
fn a_node_that_is_killed_takes_no_acknowledged_command_with_it() {
    for seed in 100..106 {
        check(seed);
    }
}

/// Whatever a seed finds can be looked at again.
#[test]
fn a_seed_goes_the_same_way_twice() {
    assert_eq!(check(300), check(300));
}

/// After the restart the cluster is whole again: the node holds members of every shard, and another may die.
#[test]
fn after_a_restart_the_next_node_may_die() {
    let mut cluster = Cluster::new(200);
    let counter = cluster.counter("room-42");
    for victim in 0..NODES {
        let added = {
            let counter = counter.clone();
            cluster.run(async move { counter.command(Count::Add(1)).await })
        };
        assert_eq!(added, Ok(victim as u64 + 1));
        cluster.kill(victim);
        cluster.restart(victim);
        // Long enough for the fleet to take the dead node's members out and fill the new node.
        let env = cluster.nodes[victim].env.clone();
        cluster.wait(sleep(env.as_ref(), Duration::from_secs(30)));
    }
    let value = cluster.run(async move { counter.query(()).await });
    assert_eq!(value, Ok(NODES as u64));
}

/// The kit's restarted node is part of the cluster before it holds its agents: whoever killed the next one then lost them.
#[test]
fn nodes_are_restarted_one_after_the_other_when_the_cluster_is_whole_and_no_agent_is_lost() {
    let mut cluster = testing::Cluster::new(47, types());
    let counter = cluster.agent::<Counter>("tenant-a", "room-42");
    for round in 0..6 {
        let counter = counter.clone();
        assert_eq!(cluster.run(async move { counter.command(Count::Add(1)).await.unwrap() }), round + 1);
        cluster.kill(round as usize % 3);
        cluster.restart(round as usize % 3);
        cluster.wait_until_whole();
    }
}
