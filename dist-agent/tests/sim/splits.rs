//! Shards are split while agents live in them: nothing of an agent stays behind, and nothing counts twice.

use std::collections::BTreeSet;
use std::time::Duration;

use dist_agent::testing::{Cluster, ClusterOptions};
use dist_agent::{AgentError, AgentNotApplied, AgentPosition, AgentTypes, DistAgent, SplitMergePolicy};

use crate::agents::{Count, Counter, Sleep, Sleeper};

const AGENTS: usize = 80;
const TIMEOUTS: u32 = 12;

/// One shard at first, which is split whenever it has more than a few agents.
fn cluster(seed: u64) -> Cluster {
    let mut options = ClusterOptions::new(seed);
    options.config.agents.shards = 1;
    options.config.agents.split_merge =
        SplitMergePolicy { max_keys: Some(30), cooling_ms: 1_000, ..SplitMergePolicy::default() };
    options.config.kv.stats_interval = Duration::from_secs(1);
    Cluster::with(options, AgentTypes::new().with::<Counter>().with::<Sleeper>())
}

async fn listed(client: &DistAgent) -> (usize, BTreeSet<String>) {
    let (mut position, mut given, mut keys) = (Some(AgentPosition::default()), 0, BTreeSet::new());
    while let Some(from) = position {
        let page = client.list_agents::<Counter>("tenant-b", "room-", &from, 13).await.expect("a page");
        given += page.agents.len();
        keys.extend(page.agents.iter().map(|id| id.key.as_str().to_owned()));
        position = page.next;
    }
    (given, keys)
}

#[test]
fn agents_their_timers_and_their_quota_survive_the_splits_of_their_shard() {
    for seed in 131..134 {
        let cluster = cluster(seed);
        let client = cluster.client().clone();
        let sleepers: Vec<_> =
            (0..12).map(|n| cluster.agent::<Sleeper>("tenant-a", &format!("{n}"))).collect();
        let asked = sleepers.clone();
        cluster.run(async move {
            client.put_quota("tenant-b", AGENTS as u64).await.unwrap();
            for sleeper in &asked {
                sleeper.command(Sleep::Timeouts(TIMEOUTS)).await.unwrap();
            }
        });
        let counters: Vec<_> =
            (0..AGENTS).map(|n| cluster.agent::<Counter>("tenant-b", &format!("room-{n}"))).collect();
        for round in 1..=6 {
            let asked = counters.clone();
            cluster.run(async move {
                for counter in &asked {
                    assert_eq!(counter.command(Count::Add(1)).await, Ok(round), "seed {seed}");
                }
            });
            cluster.run_for(Duration::from_secs(3));
        }
        cluster.run_for(Duration::from_secs(20));
        let (client, late) = (cluster.client().clone(), cluster.agent::<Counter>("tenant-b", "late"));
        cluster.run(async move {
            let keyspaces = client.kv().list_keyspaces().await.unwrap();
            let statuses = client.kv().shard_statuses(&keyspaces[0].name).await.unwrap();
            assert!(statuses.len() > 2, "seed {seed}: {} shards", statuses.len());
            let (given, keys) = listed(&client).await;
            assert_eq!((given, keys.len()), (AGENTS, AGENTS), "seed {seed}");
            assert_eq!(client.quota_usage("tenant-b").await.unwrap().agents, AGENTS as u64, "seed {seed}");
            let error = late.command(Count::Add(1)).await.unwrap_err();
            let full = AgentNotApplied::QuotaLimitReached { quota: late.id().quota.clone(), limit: 80 };
            assert_eq!(error, AgentError::NotApplied(full), "seed {seed}");
            for sleeper in &sleepers {
                let timeouts = sleeper.query(()).await.unwrap();
                assert_eq!(timeouts.len(), TIMEOUTS as usize, "seed {seed}: {timeouts:?}");
                assert!(timeouts.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {timeouts:?}");
            }
        });
    }
}
