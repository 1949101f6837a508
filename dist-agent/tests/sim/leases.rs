//! Leases of places: many agents are activated by a few commands of the ledger, and nobody is refused for it.

use std::time::Duration;

use dist_agent::raft_kv::raft_fleet::GroupName;
use dist_agent::raft_kv::rafted_value::env::sleep;
use dist_agent::{DistAgent, QuotaLimit, QuotaUsage};
use futures_util::future::join_all;

use crate::agents::Count;
use crate::cluster::{Cluster, SECOND};
use crate::quotas::{active, counter, full};

/// How many entries the ledger's log has.
async fn ledger_entries(agents: &DistAgent) -> u64 {
    let name = GroupName::new("dist-agent-quotas").expect("a name");
    let group = agents.fleet().cluster().groups()[&name].id;
    agents.fleet().host().expect("a node").status(group).await.expect("it is everywhere").commit_index
}

/// Activates so many agents, some at a time; how many were not refused.
async fn activate(agents: DistAgent, quota: &'static str, name: &'static str, count: usize) -> usize {
    let mut accepted = 0;
    let names: Vec<_> = (0..count).map(|n| format!("{name}-{n}")).collect();
    for some in names.chunks(7) {
        let handles: Vec<_> = some.iter().map(|key| counter(&agents, quota, key)).collect();
        for result in join_all(handles.iter().map(|handle| handle.command(Count::Add(1)))).await {
            match result {
                Ok(total) => {
                    assert_eq!(total, 1);
                    accepted += 1;
                }
                refused => assert!(
                    matches!(&refused, Err(error) if error.to_string().contains("quota")),
                    "{refused:?}"
                ),
            }
        }
    }
    accepted
}

#[test]
fn many_activations_are_a_few_commands_of_the_ledger_and_all_of_them_count() {
    let cluster = Cluster::new(901);
    let client = cluster.client.clone();
    cluster.run(async move { client.put_quota("roomy", 100_000).await.unwrap() });
    let entries = |cluster: &Cluster| {
        let agents = cluster.nodes[0].agents.clone();
        cluster
            .wait(cluster.sim.spawn_on(&cluster.nodes[0].env, async move { ledger_entries(&agents).await }))
    };
    cluster.sim.run_for(5 * SECOND);
    let before = entries(&cluster).expect("not killed");
    let client = cluster.client.clone();
    let usage = cluster.run(async move {
        assert_eq!(activate(client.clone(), "roomy", "one", 700).await, 700);
        client.quota_usage("roomy").await.unwrap()
    });
    // What was activated from here is counted at once, whether its shard was counted or not.
    assert!(usage.agents >= 700, "{usage:?}");
    let after = entries(&cluster).expect("not killed");
    // The first few ask one by one, before it is known that many come; shards report by the second.
    assert!(after - before < 100, "{} commands of the ledger for 700 activations", after - before);
    cluster.sim.run_for(5 * SECOND);
    let client = cluster.client.clone();
    cluster.run(async move {
        let usage = QuotaUsage { agents: 700, limit: QuotaLimit::Agents(100_000) };
        assert_eq!(client.quota_usage("roomy").await, Ok(usage));
        assert_eq!(active(&client, "roomy").await, 700);
    });
}

/// A client that has leased places holds no others up for long, and they are not told that the quota is full.
#[test]
fn places_that_were_leased_and_are_not_needed_go_to_others() {
    for seed in 902..906 {
        let cluster = Cluster::new(seed);
        let client = cluster.client.clone();
        let (limit, first) = (200, 40);
        cluster.run(async move {
            client.put_quota("shared", limit as u64).await.unwrap();
            assert_eq!(activate(client, "shared", "first", first).await, first);
        });
        let node = cluster.nodes[0].agents.clone();
        let others = async move { activate(node, "shared", "other", limit).await };
        let accepted = cluster.wait(cluster.sim.spawn_on(&cluster.nodes[0].env, others));
        assert_eq!(accepted, Some(limit - first), "seed {seed}");
        cluster.sim.run_for(5 * SECOND);
        let client = cluster.client.clone();
        cluster.run(async move {
            assert_eq!(active(&client, "shared").await, limit as u64, "seed {seed}");
            assert!(full(&counter(&client, "shared", "more").command(Count::Add(1)).await, limit as u64));
        });
    }
}

/// A client that dies with a lease takes what it had not used along, until its places can surely not be used any more.
#[test]
fn what_a_dead_client_had_leased_is_free_again() {
    let cluster = Cluster::new(907);
    let client = cluster.client.clone();
    cluster.run(async move {
        client.put_quota("shared", 100).await.unwrap();
        assert_eq!(activate(client, "shared", "first", 30).await, 30);
    });
    cluster.sim.kill(&cluster.client_env);
    cluster.sim.run_for(Duration::from_secs(70));
    let node = cluster.nodes[0].agents.clone();
    let others = async move {
        let accepted = activate(node.clone(), "shared", "other", 100).await;
        assert_eq!(active(&node, "shared").await, 100);
        assert_eq!(node.quota_usage("shared").await.unwrap().agents, 100);
        accepted
    };
    let accepted = cluster.wait(cluster.sim.spawn_on(&cluster.nodes[0].env, others));
    assert_eq!(accepted, Some(70));
}

/// A node that expects new agents asks whether one is active before it asks for a place. Where the quota was full by the time
/// it had an answer, it once refused the command though another client had activated the agent meanwhile.
#[test]
fn whoever_finds_the_quota_full_looks_whether_the_agent_has_come_to_be() {
    const LIMIT: usize = 8;
    let cluster = Cluster::new(908);
    let client = cluster.client.clone();
    cluster.run(async move { client.put_quota("eight", LIMIT as u64).await.unwrap() });
    let (other, patient) = (cluster.nodes[1].agents.clone(), cluster.nodes[0].agents.clone());
    let many = |agents: DistAgent, name| async move { activate(agents, "tenant-a", name, 10).await };
    cluster.run(many(cluster.client.clone(), "client"));
    let many = cluster.sim.spawn_on(&cluster.nodes[0].env, many(patient.clone(), "node"));
    assert_eq!(cluster.wait(many), Some(10));
    // The client has leased two places and used one, and others have the rest.
    let client = cluster.client.clone();
    cluster.run(async move { assert_eq!(activate(client, "eight", "leased", 1).await, 1) });
    let rest = cluster
        .sim
        .spawn_on(&cluster.nodes[1].env, async move { activate(other, "eight", "other", LIMIT - 2).await });
    assert_eq!(cluster.wait(rest), Some(LIMIT - 2));
    // It waits for what may come back of the lease, until the client has used that up for the same agent.
    let asked = cluster.sim.spawn_on(&cluster.nodes[0].env, async move {
        counter(&patient, "eight", "shared").command(Count::Add(1)).await
    });
    let client = cluster.client.clone();
    cluster.run(async move {
        sleep(client.fleet().env().as_ref(), Duration::from_millis(50)).await;
        assert_eq!(counter(&client, "eight", "shared").command(Count::Add(1)).await, Ok(1));
    });
    assert_eq!(cluster.wait(asked), Some(Ok(2)));
}
