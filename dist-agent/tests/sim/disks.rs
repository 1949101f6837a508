//! Nodes with disks: what a cluster has acknowledged outlives the loss of its power as a whole.

use std::sync::Arc;
use std::time::Duration;

use dist_agent::testing::{Cluster, ClusterOptions};
use dist_agent::{AgentError, AgentHandle, AgentNotApplied, AgentTypes};
use parking_lot::Mutex;

use crate::agents::{Count, Counter, Sleep, Sleeper};

const AGENTS: usize = 8;
const CLIENTS: usize = 6;
const SECOND: Duration = Duration::from_secs(1);

/// What clients were told of each agent: acknowledged commands, and those of which it is not known.
type Tally = Arc<Mutex<[(u64, u64); AGENTS]>>;

fn cluster(seed: u64) -> Cluster {
    let options = ClusterOptions { disks: true, ..ClusterOptions::new(seed) };
    Cluster::with(options, AgentTypes::new().with::<Counter>().with::<Sleeper>())
}

async fn drive(counters: Vec<AgentHandle<Counter>>, commands: usize, tally: Tally) {
    for n in 0..commands {
        let agent = n % AGENTS;
        match counters[agent].command(Count::Add(1)).await {
            Ok(_) => tally.lock()[agent].0 += 1,
            Err(AgentError::Unknown(_)) => tally.lock()[agent].1 += 1,
            Err(AgentError::NotApplied(_)) => {}
        }
    }
}

/// All machines stop at once in the middle of the load, and their disks keep what they had synced and perhaps some of the rest.
#[test]
fn a_cluster_that_loses_its_power_comes_back_with_every_agent_quota_and_timer() {
    for seed in 400..404 {
        let mut cluster = cluster(seed);
        let mut rng = cluster.rng();
        let counters: Vec<_> =
            (0..AGENTS).map(|n| cluster.agent::<Counter>("few", &format!("room-{n}"))).collect();
        let sleeper = cluster.agent::<Sleeper>("tenant-a", "sleeper");
        let (client, asked, first) = (cluster.client().clone(), sleeper.clone(), counters.clone());
        cluster.run(async move {
            client.put_quota("few", AGENTS as u64).await.unwrap();
            for counter in &first {
                counter.command(Count::Add(1)).await.unwrap();
            }
            asked.command(Sleep::Timeouts(3)).await.unwrap();
        });
        let tally = Tally::new(Mutex::new([(1, 0); AGENTS]));
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| cluster.spawn(drive(counters.clone(), 200, tally.clone()))).collect();
        cluster.run_for(rng.duration(Duration::ZERO, Duration::from_millis(300)));
        let before: u64 = tally.lock().iter().map(|(acknowledged, _)| acknowledged).sum();
        assert!(before < (CLIENTS * 200) as u64, "seed {seed}: the power goes in the middle of the load");
        cluster.lose_power();
        for client in clients {
            cluster.finish(client);
        }
        cluster.run_for(10 * SECOND);
        let told = *tally.lock();
        let (client, late) = (cluster.client().clone(), cluster.agent::<Counter>("few", "late"));
        cluster.run(async move {
            for (counter, (acknowledged, unknown)) in counters.iter().zip(told) {
                let total = counter.query(()).await.unwrap();
                let may_be = acknowledged..=acknowledged + unknown;
                assert!(may_be.contains(&total), "seed {seed}: {total} is not in {may_be:?}");
            }
            assert_eq!(client.quota_usage("few").await.unwrap().agents, AGENTS as u64, "seed {seed}");
            let refused = late.command(Count::Add(1)).await;
            let is_full =
                AgentNotApplied::QuotaLimitReached { quota: late.id().quota.clone(), limit: AGENTS as u64 };
            assert_eq!(refused, Err(AgentError::NotApplied(is_full)), "seed {seed}");
            assert_eq!(sleeper.query(()).await.unwrap().len(), 3, "seed {seed}: each timeout came once");
        });
    }
}

/// The nodes of a cluster that is stopped as a whole come back one after the other, and are the same members.
#[test]
fn a_cluster_whose_nodes_are_all_killed_is_there_again_when_a_majority_is() {
    let mut cluster = cluster(410);
    let counter = cluster.agent::<Counter>("tenant-a", "room-42");
    let first = counter.clone();
    cluster.run(async move { assert_eq!(first.command(Count::Add(5)).await, Ok(5)) });
    for node in 0..3 {
        cluster.kill(node);
    }
    // Longer than a dead node is waited for: nobody is left to give them up.
    cluster.run_for(60 * SECOND);
    cluster.restart_all(&[0, 2]);
    let asked = counter.clone();
    cluster.run(async move { assert_eq!(asked.command(Count::Add(1)).await, Ok(6)) });
    cluster.restart(1);
    cluster.run_for(5 * SECOND);
    cluster.kill(2);
    cluster.run(async move { assert_eq!(counter.command(Count::Add(1)).await, Ok(7)) });
}
