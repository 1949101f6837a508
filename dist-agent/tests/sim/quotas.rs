//! Quotas: how many agents there may be, whoever activates them, however many at once, whatever dies.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dist_agent::raft_kv::rafted_value::env::{sleep, timeout};
use dist_agent::raft_kv::rafted_value::sim::{plant, watch_shown};
use dist_agent::sim::{QuotasShown, RESERVE_NO_QUOTA};
use dist_agent::{
    AgentError, AgentHandle, AgentNotApplied, AgentPosition, AgentQueryError, DistAgent, QuotaError,
    QuotaLimit, QuotaUsage,
};
use futures_util::future::join_all;

use crate::agents::{Count, Counter};
use crate::cluster::{Cluster, NODES, Node, SECOND};

pub(crate) fn counter(agents: &DistAgent, quota: &str, key: &str) -> AgentHandle<Counter> {
    agents.agent(quota, key).expect("a valid identity")
}

/// How many agents of a quota there are, as the shards list them.
pub(crate) async fn active(agents: &DistAgent, quota: &str) -> u64 {
    let mut position = Some(AgentPosition::default());
    let mut found = std::collections::BTreeSet::new();
    while let Some(from) = position {
        let page = agents.list_agents::<Counter>(quota, "", &from, 97).await.expect("a page");
        found.extend(page.agents);
        position = page.next;
    }
    found.len() as u64
}

pub(crate) fn full(result: &Result<u64, AgentError>, limit: u64) -> bool {
    matches!(result, Err(AgentError::NotApplied(AgentNotApplied::QuotaLimitReached { limit: of, .. })) if *of == limit)
}

#[test]
fn an_agent_needs_a_quota_that_is_there_and_has_a_place() {
    let cluster = Cluster::new(71);
    let agents = cluster.client.clone();
    cluster.run(async move {
        let counter = |quota: &str, key: &str| counter(&agents, quota, key);
        let error = counter("unheard-of", "a").command(Count::Add(1)).await.unwrap_err();
        assert!(matches!(error, AgentError::NotApplied(AgentNotApplied::QuotaNotFound(_))), "{error}");
        assert_eq!(
            agents.quota_usage("unheard-of").await.unwrap_err().to_string(),
            "there is no quota named \"unheard-of\""
        );
        agents.put_quota("none", 0).await.unwrap();
        assert!(full(&counter("none", "a").command(Count::Add(1)).await, 0));
        agents.put_quota("two", 2).await.unwrap();
        for key in ["a", "b"] {
            assert_eq!(counter("two", key).command(Count::Add(1)).await, Ok(1));
        }
        assert!(full(&counter("two", "c").command(Count::Add(1)).await, 2));
        let not_found = AgentQueryError::AgentNotFound(counter("two", "c").id().clone());
        assert_eq!(counter("two", "c").query(()).await, Err(not_found));
        // Those that are there are not in the way of anything.
        assert_eq!(counter("two", "a").command(Count::Add(1)).await, Ok(2));
        agents.put_quota("two", 1).await.unwrap();
        assert_eq!(counter("two", "b").command(Count::Add(1)).await, Ok(2));
        agents.put_quota("two", QuotaLimit::Unlimited).await.unwrap();
        assert_eq!(counter("two", "c").command(Count::Add(1)).await, Ok(1));
        let names: Vec<_> =
            agents.list_quotas().await.unwrap().iter().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(names, ["none", "tenant-a", "two"]);
    });
}

/// In the original, 300 concurrent activations under a limit of 10 were all accepted (fault 23), and their commands were mixed
/// up (fault 15). Here a quota of 1,000 ends at exactly 1,000, on three nodes, and every command that was accepted ran once.
#[test]
fn a_quota_of_1000_under_64_concurrent_activators_on_three_nodes_ends_at_exactly_1000() {
    let cluster = Cluster::new(72);
    let client = cluster.client.clone();
    cluster.run(async move { client.put_quota("crowd", 1_000).await.unwrap() });
    let accepted = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..64)
        .map(|activator: usize| {
            let node = &cluster.nodes[activator % NODES];
            let (agents, accepted) = (node.agents.clone(), accepted.clone());
            cluster.sim.spawn_on(&node.env, async move {
                for n in 0..24 {
                    let counter = counter(&agents, "crowd", &format!("{activator}-{n}"));
                    match counter.command(Count::Add(1)).await {
                        Ok(total) => {
                            assert_eq!(total, 1);
                            accepted.fetch_add(1, Ordering::Relaxed);
                        }
                        result => assert!(full(&result, 1_000), "{result:?}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        cluster.wait(task).expect("the node lives");
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 1_000);
    cluster.sim.run_for(5 * SECOND);
    let client = cluster.client.clone();
    cluster.run(async move {
        assert_eq!(active(&client, "crowd").await, 1_000);
        let usage = QuotaUsage { agents: 1_000, limit: QuotaLimit::Agents(1_000) };
        assert_eq!(client.quota_usage("crowd").await, Ok(usage));
    });
}

/// Where the last agents that were called were new, and the quota has much room, a place is taken before anybody has asked
/// whether the agent is active.
#[test]
fn a_place_that_was_taken_on_the_chance_goes_back_where_the_agent_was_active() {
    let cluster = Cluster::new(89);
    let client = cluster.client.clone();
    cluster.run(async move {
        client.put_quota("roomy", 1_000_000).await.unwrap();
        for n in 0..20 {
            assert_eq!(counter(&client, "roomy", &n.to_string()).command(Count::Add(1)).await, Ok(1));
        }
        for n in 0..20 {
            assert_eq!(counter(&client, "roomy", &n.to_string()).command(Count::Add(1)).await, Ok(2));
        }
    });
    // What became of a place is told behind the caller's back, and shards report now and then.
    cluster.sim.run_for(5 * SECOND);
    let client = cluster.client.clone();
    cluster.run(async move {
        let usage = QuotaUsage { agents: 20, limit: QuotaLimit::Agents(1_000_000) };
        assert_eq!(client.quota_usage("roomy").await, Ok(usage));
    });
}

/// Clients of one agent race for the last place. In the original, one of them was told that the limit was reached, another's
/// command was lost, and a third got an internal value as its reply (faults 15, 16).
#[test]
fn all_who_activate_one_agent_at_once_share_its_place() {
    let cluster = Cluster::new(73);
    let client = cluster.client.clone();
    cluster.run(async move {
        client.put_quota("one", 1).await.unwrap();
        let counter = counter(&client, "one", "shared");
        let results = join_all((0..32).map(|_| counter.command(Count::Add(1)))).await;
        let mut replies: Vec<u64> = results.iter().filter_map(|result| result.clone().ok()).collect();
        replies.sort_unstable();
        assert_eq!(replies, (1..=replies.len() as u64).collect::<Vec<_>>());
        assert!(!replies.is_empty());
        assert!(results.iter().all(|result| result.is_ok() || full(result, 1)), "{results:?}");
        assert_eq!(counter.query(()).await, Ok(replies.len() as u64));
    });
}

#[test]
fn an_activation_that_fails_or_ends_at_once_gives_its_place_back() {
    let cluster = Cluster::new(74);
    let client = cluster.client.clone();
    cluster.run(async move {
        client.put_quota("one", 1).await.unwrap();
        for _ in 0..3 {
            let error = counter(&client, "one", "a").command(Count::AddAndPanic(1)).await.unwrap_err();
            assert!(matches!(error, AgentError::NotApplied(AgentNotApplied::Panicked { .. })), "{error}");
            assert_eq!(counter(&client, "one", "b").command(Count::End).await, Ok(0));
        }
        assert_eq!(counter(&client, "one", "c").command(Count::Add(1)).await, Ok(1));
    });
}

/// A place that a client had taken when it died is free again once it cannot be used any more.
#[test]
fn what_a_dead_node_had_taken_and_not_used_is_free_again() {
    let mut cluster = Cluster::new(75);
    let client = cluster.client.clone();
    cluster.run(async move { client.put_quota("few", 8).await.unwrap() });
    // It dies with places taken and perhaps used.
    let agents = cluster.nodes[0].agents.clone();
    for n in 0..8 {
        let counter = counter(&agents, "few", &format!("doomed-{n}"));
        drop(
            cluster.sim.spawn_on(&cluster.nodes[0].env, async move { counter.command(Count::Add(1)).await }),
        );
    }
    cluster.sim.run_for(Duration::from_millis(3));
    cluster.kill(0);
    cluster.restart(0);
    cluster.sim.run_for(70 * SECOND);
    let client = cluster.client.clone();
    cluster.run(async move {
        let doomed = active(&client, "few").await;
        assert_eq!(client.quota_usage("few").await.unwrap().agents, doomed);
        for n in 0..8 {
            let result = counter(&client, "few", &format!("next-{n}")).command(Count::Add(1)).await;
            assert!(if n < 8 - doomed { result == Ok(1) } else { full(&result, 8) }, "{n}: {result:?}");
        }
    });
}

/// Counts are those of the shards: what failed over still counts, and nothing is in the way of a failover.
#[test]
fn agents_count_on_when_the_node_that_led_them_dies() {
    for victim in 0..NODES {
        let cluster = Cluster::new(76 + victim as u64);
        let client = cluster.client.clone();
        cluster.run(async move {
            client.put_quota("ten", 10).await.unwrap();
            for n in 0..10 {
                assert_eq!(counter(&client, "ten", &format!("{n}")).command(Count::Add(1)).await, Ok(1));
            }
        });
        cluster.kill(victim);
        let client = cluster.client.clone();
        cluster.run(async move {
            for n in 0..10 {
                assert_eq!(counter(&client, "ten", &format!("{n}")).command(Count::Add(1)).await, Ok(2));
            }
            let result = counter(&client, "ten", "eleventh").command(Count::Add(1)).await;
            assert!(full(&result, 10), "{result:?}");
            assert_eq!(client.quota_usage("ten").await.unwrap().agents, 10);
        });
    }
}

#[test]
fn the_place_of_an_agent_that_ended_is_free_a_moment_later() {
    let cluster = Cluster::new(80);
    let client = cluster.client.clone();
    cluster.run(async move {
        client.put_quota("one", 1).await.unwrap();
        assert_eq!(counter(&client, "one", "a").command(Count::Add(1)).await, Ok(1));
        assert_eq!(counter(&client, "one", "a").command(Count::End).await, Ok(1));
    });
    cluster.sim.run_for(4 * SECOND);
    let client = cluster.client.clone();
    cluster.run(async move {
        assert_eq!(client.quota_usage("one").await.unwrap().agents, 0);
        assert_eq!(counter(&client, "one", "b").command(Count::Add(1)).await, Ok(1));
    });
}

/// In the original, a client that had seen that there was no quota removed an agent that another had activated after it was
/// made (fault 18).
#[test]
fn the_agents_of_a_deleted_quota_end_and_those_of_its_successor_live() {
    let cluster = Cluster::new(81);
    let client = cluster.client.clone();
    cluster.run(async move {
        client.put_quota("gone", 50).await.unwrap();
        client.put_quota("gone-not", 50).await.unwrap();
        for n in 0..20 {
            for quota in ["gone", "gone-not"] {
                counter(&client, quota, &format!("{n}")).command(Count::Add(1)).await.unwrap();
            }
        }
        client.delete_quota("gone").await.unwrap();
        assert!(matches!(client.delete_quota("gone").await, Err(QuotaError::NotFound(_))));
        let error = counter(&client, "gone", "new").command(Count::Add(1)).await.unwrap_err();
        assert!(matches!(error, AgentError::NotApplied(AgentNotApplied::QuotaNotFound(_))), "{error}");
        client.put_quota("gone", 5).await.unwrap();
        counter(&client, "gone", "successor").command(Count::Add(7)).await.unwrap();
    });
    cluster.sim.run_for(6 * SECOND);
    let client = cluster.client.clone();
    cluster.run(async move {
        assert_eq!(active(&client, "gone").await, 1);
        assert_eq!(counter(&client, "gone", "successor").query(()).await, Ok(7));
        assert_eq!(active(&client, "gone-not").await, 20);
    });
}

/// Whatever happens while many activate: no more than the limit, nothing lost that was accepted, and in the end exactly the
/// limit.
#[test]
fn a_limit_holds_while_nodes_die_and_are_cut_off() {
    for seed in 82..88 {
        let mut cluster = Cluster::new(seed);
        let client = cluster.client.clone();
        cluster.run(async move { client.put_quota("crowd", 60).await.unwrap() });
        let accepted = Arc::new(AtomicU64::new(0));
        let activate = |cluster: &Cluster, activator: usize| {
            let (agents, accepted) = (cluster.client.clone(), accepted.clone());
            cluster.spawn(async move {
                for n in 0..10 {
                    let counter = counter(&agents, "crowd", &format!("{activator}-{n}"));
                    if counter.command(Count::Add(1)).await.is_ok() {
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        let first: Vec<_> = (0..10).map(|activator| activate(&cluster, activator)).collect();
        let mut rng = cluster.sim.rng();
        cluster.sim.run_for(rng.duration(Duration::ZERO, Duration::from_millis(40)));
        let victim = rng.below(NODES as u64) as usize;
        if seed % 2 == 0 {
            cluster.kill(victim);
            cluster.sim.run_for(rng.duration(Duration::ZERO, 3 * SECOND));
            cluster.restart(victim);
        } else {
            let cut = cluster.nodes[victim].env.clone();
            let rest: Vec<_> = (0..NODES)
                .filter(|node| *node != victim)
                .map(|node| cluster.nodes[node].env.clone())
                .collect();
            let rest: Vec<_> = rest.into_iter().chain([cluster.client_env.clone()]).collect();
            cluster.sim.partition(&[cut], &rest);
            cluster.sim.run_for(rng.duration(Duration::ZERO, 3 * SECOND));
            cluster.sim.heal();
        }
        for task in first {
            cluster.wait(task).expect("the client lives");
        }
        let client = cluster.client.clone();
        let active_then = cluster.run(async move { active(&client, "crowd").await });
        assert!(active_then <= 60, "seed {seed}: {active_then} agents");
        assert!(accepted.load(Ordering::Relaxed) <= active_then, "seed {seed}: an accepted agent is lost");
        // Whatever was taken and not used is free by then.
        cluster.sim.run_for(70 * SECOND);
        for activator in 10..20 {
            let task = activate(&cluster, activator);
            cluster.wait(task).expect("the client lives");
        }
        cluster.sim.run_for(5 * SECOND);
        let client = cluster.client.clone();
        cluster.run(async move {
            assert_eq!(active(&client, "crowd").await, 60, "seed {seed}");
            assert_eq!(client.quota_usage("crowd").await.unwrap().agents, 60, "seed {seed}");
        });
    }
}

/// Whoever goes while the ledger's answer lies ready for it once took its place along, for a minute.
#[test]
fn a_place_whose_taker_goes_at_any_moment_is_free_again_at_once_unless_it_was_sent() {
    for polls in 1..8 {
        let cluster = Cluster::new(300 + polls);
        let client = cluster.client.clone();
        let asked = client.clone();
        cluster.run(async move {
            client.put_quota("one", 1).await.unwrap();
            let counter = counter(&client, "one", "gone");
            let mut call = Box::pin(counter.command(Count::Add(1)));
            for _ in 0..polls {
                // Whatever it waits for has come by the next time.
                if futures_util::poll!(&mut call).is_ready() {
                    break;
                }
                sleep(client.fleet().env().as_ref(), Duration::from_millis(100)).await;
            }
        });
        cluster.sim.run_for(5 * SECOND);
        cluster.run(async move {
            let usage = asked.quota_usage("one").await.unwrap().agents;
            let is_active = active(&asked, "one").await == 1;
            assert!(usage == 0 || is_active, "after {polls} polls {usage} places are taken by nobody");
            if !is_active {
                assert_eq!(counter(&asked, "one", "next").command(Count::Add(1)).await, Ok(1));
            }
        });
    }
}

/// What a harness judges must be what the ledger says to everybody: quotas with a limit, full and not, lowered and deleted.
#[test]
fn the_ledger_shows_the_limited_quotas_as_it_counts_them() {
    let cluster = Cluster::new(320);
    let newest: Rc<RefCell<Option<QuotasShown>>> = Rc::default();
    let _watching = watch_shown({
        let newest = newest.clone();
        move |_, shown| {
            if let Some(quotas) = shown.downcast_ref::<QuotasShown>() {
                *newest.borrow_mut() = Some(quotas.clone());
            }
        }
    });
    let check = |limited: &'static [&'static str]| {
        // Places that were taken are reported as agents within about a second.
        cluster.sim.run_for(5 * SECOND);
        let client = cluster.client.clone();
        let told = cluster.run(async move {
            let mut told = Vec::new();
            for quota in client.list_quotas().await.unwrap() {
                let usage = client.quota_usage(quota.as_str()).await.unwrap();
                if limited.contains(&quota.as_str()) {
                    assert_eq!(usage.agents, active(&client, quota.as_str()).await, "{quota}");
                    told.push((quota, usage));
                }
            }
            told
        });
        assert_eq!(told.len(), limited.len());
        assert_eq!(*newest.borrow(), Some(QuotasShown { quotas: told, leases: 0 }));
    };
    let client = cluster.client.clone();
    cluster.run(async move {
        client.put_quota("few", 3).await.unwrap();
        client.put_quota("many", 50).await.unwrap();
        for n in 0..8 {
            drop(counter(&client, "few", &format!("{n}")).command(Count::Add(1)).await);
            counter(&client, "many", &format!("{n}")).command(Count::Add(1)).await.unwrap();
            counter(&client, "tenant-a", &format!("{n}")).command(Count::Add(1)).await.unwrap();
        }
    });
    check(&["few", "many"]);
    let client = cluster.client.clone();
    cluster.run(async move {
        client.put_quota("many", 5).await.unwrap();
        counter(&client, "many", "0").command(Count::End).await.unwrap();
        client.delete_quota("few").await.unwrap();
    });
    check(&["many"]);
}

/// How many of those who come at once are let into a quota of three.
fn let_in(plants: bool) -> usize {
    let cluster = Cluster::new(321);
    let client = cluster.client.clone();
    let _planted = plants.then(|| plant(RESERVE_NO_QUOTA));
    cluster.run(async move {
        client.put_quota("three", 3).await.expect("it is put");
        let come = (0..12).map(|n| {
            let counter = counter(&client, "three", &format!("{n}"));
            async move { counter.command(Count::Add(1)).await }
        });
        let told = join_all(come).await;
        assert!(told.iter().all(|told| told == &Ok(1) || full(told, 3)), "{told:?}");
        told.iter().filter(|told| told.is_ok()).count()
    })
}

#[test]
fn a_place_is_given_to_many_only_while_that_is_planted() {
    assert_eq!(let_in(false), 3);
    let let_in = let_in(true);
    assert!(let_in > 3, "{let_in} were let in");
}

/// Callers come at once and go at random: nothing is overshot, and once nothing is heard any more of those who went, the
/// quota is exactly full.
#[test]
fn a_limit_of_10_holds_under_10000_activations_of_which_half_are_abandoned() {
    const CALLS: usize = 10_000;
    let cluster = Cluster::new(310);
    let client = cluster.client.clone();
    cluster.run(async move { client.put_quota("crowd", 10).await.unwrap() });
    let accepted = Arc::new(AtomicU64::new(0));
    let mut rng = cluster.sim.rng();
    let tasks: Vec<_> = (0..CALLS)
        .map(|n| {
            let Node { env, agents } = &cluster.nodes[n % NODES];
            let (agents, clock, accepted) = (agents.clone(), env.clone(), accepted.clone());
            let patience = rng.duration(Duration::ZERO, Duration::from_millis(100));
            let patience = if n % 2 == 0 { patience } else { 60 * SECOND };
            cluster.sim.spawn_on(env, async move {
                let counter = counter(&agents, "crowd", &format!("{n}"));
                match timeout(clock.as_ref(), patience, counter.command(Count::Add(1))).await {
                    Some(Ok(total)) => {
                        assert_eq!(total, 1);
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(result) => assert!(full(&result, 10), "{result:?}"),
                    None => assert!(n % 2 == 0, "no answer in a minute"),
                }
            })
        })
        .collect();
    for task in tasks {
        cluster.wait(task).expect("the node lives");
    }
    let accepted = accepted.load(Ordering::Relaxed);
    cluster.sim.run_for(70 * SECOND);
    let client = cluster.client.clone();
    cluster.run(async move {
        let now = active(&client, "crowd").await;
        assert!(accepted <= now && now <= 10, "{accepted} were accepted, and {now} are active");
        for n in 0..12 {
            let result = counter(&client, "crowd", &format!("late-{n}")).command(Count::Add(1)).await;
            assert!(if n < 10 - now { result == Ok(1) } else { full(&result, 10) }, "{n}: {result:?}");
        }
        assert_eq!(active(&client, "crowd").await, 10);
    });
}
