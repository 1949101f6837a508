//! The ledger of quotas: what it does while it has no leader, and with names that are long and many.

use std::time::Duration;

use dist_agent::raft_kv::raft_fleet::{CallOptions, GroupName};
use dist_agent::raft_kv::rafted_value::encode;
use dist_agent::raft_kv::rafted_value::env::sleep;
use dist_agent::raft_kv::rafted_value::sim::NetConfig;
use dist_agent::testing::{Cluster, ClusterOptions};
use dist_agent::{AgentError, AgentNotApplied, AgentTypes, DistAgent, QuotaLimit};
use futures_util::future::join_all;

use crate::agents::{Count, Counter};
use crate::cluster::SECOND;

/// Which node leads the ledger.
fn leader_of_ledger(cluster: &Cluster) -> usize {
    let leads = |node: &usize| {
        cluster.run_on(*node, |node| async move {
            let name = GroupName::new("dist-agent-quotas").expect("a name");
            let group = node.fleet().cluster().groups()[&name].id;
            node.fleet().host().expect("a node").status(group).await.is_some_and(|status| status.ready)
        })
    };
    (0..3).find(leads).expect("somebody leads")
}

/// The ledger answers callers by the hundreds and in a time of its own. A call once waited for it as long as that took,
/// however little time its handle gave it.
#[test]
fn a_call_ends_in_its_time_though_the_ledger_has_no_leader() {
    let mut cluster = Cluster::new(921, AgentTypes::new().with::<Counter>());
    let leads = leader_of_ledger(&cluster);
    let led = |key: &String| {
        let counter = cluster.agent::<Counter>("tenant-a", key);
        cluster.leader_of(counter.id()).is_some_and(|node| node != leads)
    };
    let key = (0..).map(|n| n.to_string()).find(led).expect("other nodes lead shards too");
    let counter = cluster.agent::<Counter>("tenant-a", &key);
    cluster.kill(leads);
    let (begin, limit) = (cluster.sim().elapsed(), Duration::from_millis(200));
    let asked = counter.timeout(limit);
    let told = cluster.run(async move { asked.command(Count::Add(1)).await });
    let took = cluster.sim().elapsed() - begin;
    assert!(took <= limit + Duration::from_millis(20), "{took:?}: {told:?}");
    assert!(matches!(told, Err(AgentError::NotApplied(AgentNotApplied::NoPlace { .. }))), "{told:?}");
    assert_eq!(cluster.run(async move { counter.command(Count::Add(1)).await }), Ok(1));
}

/// A report names every quota of which a shard has agents. Where agents may be told little only, reports were once refused as
/// too large, for ever: what ended was never free again.
#[test]
fn places_are_free_again_however_little_an_agent_may_be_told() {
    const QUOTAS: usize = 30;
    let mut options = ClusterOptions::new(922);
    options.nodes = 1;
    options.config.agents.shards = 1;
    options.config.agents.replicas = 1;
    options.config.kv.keyspaces_replicas = 1;
    options.config.agents.group.command_bytes_max = 1_024;
    let cluster = Cluster::with(options, AgentTypes::new().with::<Counter>());
    let client = cluster.client().clone();
    let quota = |n: usize| format!("{n:0>100}");
    cluster.run(async move {
        for n in 0..QUOTAS {
            client.put_quota(&quota(n), 1).await.unwrap();
            let counter = client.agent::<Counter>(&quota(n), "one").unwrap();
            assert_eq!(counter.command(Count::Add(1)).await, Ok(1));
        }
    });
    cluster.run_for(5 * SECOND);
    let client = cluster.client().clone();
    cluster.run(async move {
        let ended = client.agent::<Counter>(&quota(7), "one").unwrap();
        assert_eq!(ended.command(Count::End).await, Ok(1));
    });
    cluster.run_for(5 * SECOND);
    let client = cluster.client().clone();
    cluster.run(async move {
        assert_eq!(client.quota_usage(&quota(7)).await.unwrap().agents, 0);
        assert_eq!(client.quota_usage(&quota(8)).await.unwrap().agents, 1);
        let next = client.agent::<Counter>(&quota(7), "next").unwrap();
        assert_eq!(next.command(Count::Add(1)).await, Ok(1));
    });
}

/// What was at hand of a quota was forgotten before it was deleted, and others who activated agents meanwhile brought it back: for
/// two seconds more a client went on by a quota that it had deleted itself, and by a limit that it had changed.
#[test]
fn whoever_deletes_a_quota_or_changes_its_limit_goes_by_that_at_once() {
    let cluster = Cluster::new(923, AgentTypes::new().with::<Counter>());
    let client = cluster.client().clone();
    let add = |quota: &str, key: &str| {
        let counter = cluster.agent::<Counter>(quota, key);
        async move { counter.command(Count::Add(1)).await }
    };
    cluster.run(async move {
        for quota in ["deleted", "limited"] {
            client.put_quota(quota, QuotaLimit::Unlimited).await.unwrap();
        }
    });
    let busy: Vec<_> = (0..100)
        .flat_map(|n| ["deleted", "limited"].map(|quota| (quota, n)))
        .map(|(quota, n)| {
            let (env, add) = (cluster.client().fleet().env().clone(), add(quota, &format!("{n}")));
            cluster.spawn(async move {
                sleep(env.as_ref(), Duration::from_micros(500) * n).await;
                drop(add.await);
            })
        })
        .collect();
    let (client, env) = (cluster.client().clone(), cluster.client().fleet().env().clone());
    let (deleted, limited) = (add("deleted", "late"), add("limited", "late"));
    cluster.run(async move {
        sleep(env.as_ref(), Duration::from_millis(20)).await;
        client.delete_quota("deleted").await.unwrap();
        client.put_quota("limited", 0).await.unwrap();
        let told = deleted.await;
        assert!(matches!(told, Err(AgentError::NotApplied(AgentNotApplied::QuotaNotFound(_)))), "{told:?}");
        let told = limited.await;
        assert!(
            matches!(told, Err(AgentError::NotApplied(AgentNotApplied::QuotaLimitReached { .. }))),
            "{told:?}"
        );
    });
    busy.into_iter().for_each(|busy| cluster.finish(busy));
}

/// Each of the quotas had a sweep of the whole shard to itself, one after the other, and no shard was looked at meanwhile: what
/// came free of other quotas stayed taken.
#[test]
fn the_agents_of_many_deleted_quotas_end_at_once_and_hold_up_nobody() {
    const AGENTS: usize = 2_000;
    const DELETED: usize = 40;
    let mut options = ClusterOptions::new(924);
    options.config.agents.shards = 1;
    let cluster = Cluster::with(options, AgentTypes::new().with::<Counter>());
    let client = cluster.client().clone();
    let quota = |n: usize| format!("deleted-{n}");
    cluster.run(async move {
        client.put_quota("one", 1).await.unwrap();
        let add = |quota: &str, key: &str| {
            let counter = client.agent::<Counter>(quota, key).unwrap();
            async move { assert_eq!(counter.command(Count::Add(1)).await, Ok(1)) }
        };
        add("one", "one").await;
        join_all((0..AGENTS).map(|n| add("tenant-a", &format!("{n}")))).await;
        for n in 0..DELETED {
            client.put_quota(&quota(n), QuotaLimit::Unlimited).await.unwrap();
            add(&quota(n), "one").await;
        }
    });
    cluster.run_for(5 * SECOND);
    let delay = Duration::from_millis(50);
    let network = cluster.sim().net_config();
    cluster.sim().set_net_config(NetConfig { delay_min: delay, delay_max: delay, ..network });
    let client = cluster.client().clone();
    cluster.run(async move {
        let delete = |n| {
            let client = client.clone();
            async move { client.delete_quota(&quota(n)).await.unwrap() }
        };
        join_all((0..DELETED).map(delete)).await;
    });
    cluster.run_for(2 * SECOND);
    let client = cluster.client().clone();
    cluster.run(async move {
        let ended = client.agent::<Counter>("one", "one").unwrap();
        assert_eq!(ended.command(Count::End).await, Ok(1));
    });
    cluster.run_for(6 * SECOND);
    let client = cluster.client().clone();
    let usage = cluster.run(async move { client.quota_usage("one").await.unwrap() });
    assert_eq!(usage.agents, 0);
    let left = cluster.run_on(0, |node| async move { node.local_agents().await });
    assert_eq!(left, AGENTS as u64);
}

/// Agents of an unlimited quota take no places, and are counted a second later. Right after such a quota got a limit, as many more
/// agents as the limit said were let in.
#[test]
fn a_quota_that_gets_a_limit_counts_the_agents_that_came_while_it_had_none() {
    const AGENTS: usize = 300;
    let cluster = Cluster::new(925, AgentTypes::new().with::<Counter>());
    let client = cluster.client().clone();
    cluster.run(async move {
        let add = |quota: &str, key: String| {
            let counter = client.agent::<Counter>(quota, &key).unwrap();
            async move { counter.command(Count::Add(1)).await }
        };
        for quota in ["full", "roomy"] {
            client.put_quota(quota, QuotaLimit::Unlimited).await.unwrap();
            let told = join_all((0..AGENTS).map(|n| add(quota, format!("{n}")))).await;
            assert!(told.iter().all(|told| *told == Ok(1)));
        }
        client.put_quota("full", 100).await.unwrap();
        client.put_quota("roomy", AGENTS as u64 + 1).await.unwrap();
        let told = join_all((0..50).map(|n| add("full", format!("late-{n}")))).await;
        assert!(told.iter().all(|told| crate::quotas::full(told, 100)), "{told:?}");
        // Whoever is let in waits until that is known, and is not refused.
        let told = join_all((0..3).map(|n| add("roomy", format!("late-{n}")))).await;
        assert_eq!(told.iter().filter(|told| **told == Ok(1)).count(), 1, "{told:?}");
    });
}

/// A move that was undone once left the ledger with the count of a shard that had covered the ranges of others for a moment; those
/// had not changed since their own reports, and so were never reported again (seed 60175 of the stack).
#[test]
fn a_count_that_another_report_has_replaced_is_right_again_in_a_while() {
    let cluster = Cluster::new(77, AgentTypes::new().with::<Counter>());
    let counter = cluster.agent::<Counter>("tenant-a", "room-42");
    cluster.run(async move { counter.command(Count::Add(1)).await.unwrap() });
    cluster.run_for(Duration::from_secs(5));
    let client = cluster.client().clone();
    let usage = |client: DistAgent| async move { client.quota_usage("tenant-a").await.unwrap().agents };
    let counted = cluster.run(async move {
        assert_eq!(usage(client.clone()).await, 1);
        let now_ms = client.fleet().env().wall_ms();
        // What the ledger is told: a report, of all hashes, at this time, of five agents of the first quota.
        let report = encode(&(3_u8, 0_u64, u64::MAX, now_ms, vec![("tenant-a", 1_u64, 5_u64)]));
        let group = GroupName::new("dist-agent-quotas").unwrap();
        client.fleet().command(&group, 0, report, &CallOptions::default()).await.unwrap();
        usage(client).await
    });
    assert_eq!(counted, 5);
    cluster.run_for(Duration::from_secs(120));
    let client = cluster.client().clone();
    assert_eq!(cluster.run(usage(client)), 1);
}
