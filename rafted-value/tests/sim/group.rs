//! One group over simulated nodes: commands, queries, failover, membership, snapshots, panics.

use std::time::Duration;

use crate::support::{self, Change, Counters, GROUP, MS, SECOND, World, stale};
use rafted_value::sim::NetConfig;
use rafted_value::{CommandError, Freshness, GroupConfig, GroupError, NotApplied, QueryError, Role, encode};

#[test]
fn a_group_of_one_answers_at_once() {
    let mut world = World::with_group(1, 1);
    let mut client = world.client();
    let (total, read) = world.run(SECOND, async move { (client.add("a", 5).await, client.read().await) });
    assert_eq!((total, read.counts["a"]), (5, 5));
    assert!(world.status(0).leased);
}

#[test]
fn three_members_hold_the_same_value() {
    let mut world = World::with_group(2, 3);
    let mut client = world.client();
    world.run(10 * SECOND, async move {
        for i in 1..=100 {
            assert_eq!(client.add("a", 1).await, i);
        }
    });
    world.sim.run_for(SECOND);
    for node in 0..3 {
        let host = world.nodes[node].host.clone();
        let value = world.run(SECOND, async move { stale(&host).await });
        assert_eq!(value.counts["a"], 100);
    }
}

#[test]
fn killing_the_leader_loses_and_doubles_nothing() {
    for seed in 0..20 {
        let mut world = World::with_group(seed, 3);
        let mut client = world.client();
        let task = world.sim.spawn(async move {
            for i in 1..=300 {
                assert_eq!(client.add("a", 1).await, i);
            }
            client.read().await
        });
        world.sim.run_for(Duration::from_millis(100 + 7 * seed));
        let leader = world.leader();
        world.kill(leader);
        let value = world.run(60 * SECOND, task).expect("the client ends");
        assert_eq!(value.counts["a"], 300, "seed {seed}");
    }
}

#[test]
fn a_new_member_gets_a_snapshot_and_votes() {
    let mut world = World::with_group(3, 2);
    let mut client = world.client();
    world.run(30 * SECOND, async move {
        for _ in 0..50 {
            client.add("a", 2).await;
        }
    });
    world.start_node();
    world.add_voter(0, 2);
    world.sim.run_for(SECOND);
    let status = world.status(2);
    assert_eq!(status.members.iter().filter(|member| member.voter).count(), 3);
    world.kill(0);
    let leader = world.leader();
    let host = world.nodes[leader].host.clone();
    let answer = world.run(5 * SECOND, async move {
        host.query(GROUP, Freshness::Latest, encode(&()), SECOND).await.unwrap()
    });
    let value: Counters = postcard::from_bytes(&answer).unwrap();
    assert_eq!(value.counts["a"], 100);
}

#[test]
fn a_removed_member_ends_even_when_it_was_away() {
    let world = World::with_group(4, 3);
    let leader = world.leader();
    let away = (leader + 1) % 3;
    world.cut_off(away);
    let members = world.status(leader).members;
    let member = members.iter().find(|member| member.node == world.nodes[away].id()).unwrap().member;
    let host = world.nodes[leader].host.clone();
    world.run(5 * SECOND, async move { host.remove_member(GROUP, member).await.unwrap() });
    assert!(world.has_member(away));
    world.sim.heal();
    world.sim.run_for(5 * SECOND);
    assert!(!world.has_member(away));
    let again = world.add_voter(world.leader(), away);
    assert!(again > member);
    world.sim.run_for(SECOND);
    assert_eq!(world.status(away).member, again);
}

#[test]
fn a_learner_that_was_removed_while_it_was_away_ends() {
    let mut world = World::with_group(13, 1);
    let node = world.start_node();
    let (host, id) = (world.nodes[0].host.clone(), world.nodes[node].id());
    let learner = world.run(5 * SECOND, async move { host.add_learner(GROUP, id).await.unwrap() });
    world.sim.run_for(SECOND);
    world.cut_off(node);
    let host = world.nodes[0].host.clone();
    world.run(5 * SECOND, async move { host.remove_member(GROUP, learner).await.unwrap() });
    assert!(world.has_member(node));
    world.sim.heal();
    world.sim.run_for(5 * SECOND);
    assert!(!world.has_member(node));
}

/// A member became leader with its own removal in its log, committed it and was gone before the only other one knew:
/// that one asked for its vote for ever.
#[test]
fn a_leader_that_commits_its_own_removal_stays_until_the_others_know() {
    let mut told = 0;
    for seed in 200..230 {
        let world = World::with_group(seed, 2);
        world.sim.run_for(SECOND);
        let leader = world.leader();
        let other = 1 - leader;
        let (here, there) = ([world.nodes[leader].address()], [world.nodes[other].address()]);
        let slow = NetConfig { delay_min: 10 * MS, delay_max: 15 * MS, ..NetConfig::default() };
        world.sim.set_net_config(slow);
        let members = world.status(leader).members;
        let removed = members.iter().find(|member| member.node == world.nodes[other].id()).unwrap().member;
        // The removal gets to the other one, and nothing comes back.
        world.sim.partition_one_way(&there, &here);
        let host = world.nodes[leader].host.clone();
        let task = world.sim.spawn(async move { host.remove_member(GROUP, removed).await });
        world.sim.run_for(30 * MS);
        world.cut_off(other);
        assert!(world.run(10 * SECOND, task).unwrap().is_err(), "nobody can commit it");
        world.sim.heal();
        // Where the other one is elected, the removal gets committed, and no word of that gets out.
        for _ in 0..2000 {
            if !world.has_member(other) || world.status(other).role == Role::Leader {
                world.sim.run_for(16 * MS);
                world.sim.partition_one_way(&there, &here);
                world.sim.run_for(3 * SECOND);
                break;
            }
            world.sim.run_for(2 * MS);
        }
        let knows = !world.has_member(other) || world.status(other).members.len() == 1;
        told += i32::from(knows && world.status(leader).members.len() == 2);
        world.sim.heal();
        world.sim.run_for(10 * SECOND);
        assert!(world.status(leader).ready, "seed {seed}: nobody leads");
        assert_eq!(world.status(leader).members.len(), 1, "seed {seed}");
        assert!(!world.has_member(other), "seed {seed}: it was told");
    }
    assert!(told > 0, "no seed tells the story");
}

/// FAULTS 3: a command whose handler raises killed the members one after another, until the group was gone.
#[test]
fn a_handler_that_panics_changes_nothing_on_any_member() {
    let mut world = World::with_group(5, 3);
    let mut client = world.client();
    world.run(10 * SECOND, async move {
        client.add("a", 1).await;
        for _ in 0..3 {
            let error = client.change(&Change::Panic).await.unwrap_err();
            assert!(matches!(error, CommandError::NotApplied(NotApplied::Panicked(_))), "{error}");
        }
        assert_eq!(client.add("a", 1).await, 2);
    });
    world.sim.run_for(SECOND);
    for node in 0..3 {
        let host = world.nodes[node].host.clone();
        let value = world.run(SECOND, async move { stale(&host).await });
        assert_eq!((value.counts["a"], value.log), (2, vec![1, 1]));
    }
}

/// Entries kept for a follower that is away once counted as a reason for the next snapshot: from the first one on, every
/// command had the whole value written down, on every member.
#[test]
fn entries_kept_for_a_late_follower_are_no_reason_for_a_snapshot() {
    let mut world = World::new(12, 3);
    world.config = GroupConfig { log_bytes_min: 10_000, ..GroupConfig::default() };
    world.found(0);
    world.add_voter(0, 1);
    world.add_voter(0, 2);
    world.cut_off(2);
    let mut client = world.client();
    let host = world.nodes[1].host.clone();
    let snapshots = world.run(60 * SECOND, async move {
        let mut snapshots = std::collections::BTreeSet::new();
        for _ in 0..500 {
            client.add("a", 1).await;
            snapshots.insert(host.status(GROUP).await.unwrap().snapshot_index);
        }
        snapshots
    });
    assert!((3..30).contains(&snapshots.len()), "{snapshots:?}");
}

#[test]
fn the_log_is_compacted_and_a_late_member_still_gets_everything() {
    let mut world = World::new(6, 3);
    world.config = GroupConfig { log_bytes_min: 10_000, ..GroupConfig::default() };
    world.found(0);
    world.add_voter(0, 1);
    let mut client = world.client();
    world.run(60 * SECOND, async move {
        for _ in 0..500 {
            client.add("a", 1).await;
        }
    });
    let status = world.status(0);
    assert!(status.snapshot_index > 100, "{status:?}");
    assert!(status.log_bytes < 100_000, "{status:?}");
    world.add_voter(0, 2);
    world.sim.run_for(SECOND);
    let host = world.nodes[2].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 500);
}

/// A log that nobody adds to any more was once held up to ten times the size of the value, for as long as the group lived.
#[test]
fn an_idle_group_holds_no_log_that_is_longer_than_its_snapshot() {
    let mut world = World::with_group(9, 3);
    let mut client = world.client();
    let name = "x".repeat(1_000);
    world.run(60 * SECOND, async move {
        for _ in 0..200 {
            client.add(&name, 1).await;
        }
    });
    for node in 0..3 {
        assert!(world.status(node).log_bytes > 150_000, "{:?}", world.status(node));
    }
    world.sim.run_for(3 * SECOND);
    for node in 0..3 {
        assert!(world.status(node).log_bytes < 25_000, "{:?}", world.status(node));
    }
    let host = world.nodes[1].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts.values().sum::<i64>(), 200);
}

#[test]
fn a_leader_that_is_cut_off_answers_no_query_once_its_lease_has_ended() {
    let world = World::with_group(7, 3);
    let leader = world.leader();
    world.cut_off(leader);
    world.sim.run_for(250 * MS);
    assert!(!world.status(leader).leased);
    let host = world.nodes[leader].host.clone();
    let answer = world
        .run(5 * SECOND, async move { host.query(GROUP, Freshness::Latest, encode(&()), 400 * MS).await });
    assert!(matches!(answer, Err(QueryError::Timeout { .. } | QueryError::NotLeader { .. })), "{answer:?}");
    world.sim.run_for(3 * SECOND);
    assert_ne!(world.status(leader).role, Role::Leader, "a leader without a quorum steps down");
}

#[test]
fn without_a_lease_queries_are_confirmed_by_a_round() {
    let mut world = World::new(8, 3);
    world.config = GroupConfig { clock_drift_margin_ms: 1000, ..GroupConfig::default() };
    world.found(0);
    world.add_voter(0, 1);
    world.add_voter(0, 2);
    let mut client = world.client();
    assert!(!world.status(0).leased);
    let (value, took) = {
        let sim = world.sim.clone();
        world.run(10 * SECOND, async move {
            client.add("a", 3).await;
            let before = sim.elapsed();
            (client.read().await, sim.elapsed() - before)
        })
    };
    assert_eq!(value.counts["a"], 3);
    assert!(took < 20 * MS, "{took:?}: it waits for its own round, not for the next heartbeat");
}

#[test]
fn a_follower_points_to_the_leader_and_a_stranger_says_so() {
    let mut world = World::with_group(9, 2);
    world.start_node();
    let leader = world.leader();
    let follower = world.nodes[1 - leader].host.clone();
    let stranger = world.nodes[2].host.clone();
    let leader_id = world.nodes[leader].id();
    world.run(SECOND, async move {
        let error = follower.query(GROUP, Freshness::Latest, encode(&()), SECOND).await.unwrap_err();
        assert_eq!(error, QueryError::NotLeader { group: GROUP, leader: Some(leader_id) });
        let error = stranger.query(GROUP, Freshness::Latest, encode(&()), SECOND).await.unwrap_err();
        assert_eq!(error, QueryError::NoSuchGroup(GROUP));
        let error = follower.add_learner(GROUP, leader_id).await.unwrap_err();
        assert!(matches!(error, GroupError::NotLeader { .. }));
    });
}

/// Members once campaigned at heartbeats only. Where the election timeout spans no more than one, all of them drew the
/// same number of heartbeats each time, every vote was split, and no leader was elected for ever.
#[test]
fn members_whose_heartbeats_coincide_elect_a_leader() {
    for seed in 0..10 {
        let mut world = World::new(100 + seed, 3);
        world.config = GroupConfig {
            heartbeat_ms: 50,
            promise_ms: 50,
            election_timeout_min_ms: 100,
            election_timeout_max_ms: 150,
            ..GroupConfig::default()
        };
        world.found(0);
        world.add_voter(0, 1);
        world.add_voter(0, 2);
        // A vote takes so long that the other candidate has voted for itself by then.
        let slow = NetConfig { delay_min: 10 * MS, delay_max: 20 * MS, ..NetConfig::default() };
        world.sim.set_net_config(slow);
        world.kill(0);
        world.sim.run_for(10 * SECOND);
        assert!([1, 2].iter().any(|node| world.status(*node).ready), "seed {seed}: nobody leads");
    }
}

#[test]
fn a_group_cannot_be_founded_twice_or_of_an_unknown_type() {
    let world = World::with_group(10, 1);
    let node = world.nodes[0].id();
    let host = world.nodes[0].host.clone();
    let found = |group: u64, data: &str| rafted_value::Found {
        group: rafted_value::GroupId(group),
        data: data.into(),
        config: GroupConfig::default(),
        nodes: vec![node],
    };
    let (again, unknown, bad) = (found(GROUP.0, "counters"), found(5, "tree"), {
        let mut bad = found(6, "counters");
        bad.config.election_timeout_min_ms = 10;
        bad
    });
    world.run(SECOND, async move {
        assert_eq!(host.found(again).await, Err(GroupError::AlreadyExists(GROUP)));
        assert_eq!(host.found(unknown).await, Err(GroupError::NoSuchData("tree".into())));
        assert!(matches!(host.found(bad).await, Err(GroupError::InvalidConfig(_))));
    });
}

/// FAULTS 5: one follower that was busy for 450 ms started an election and deposed a healthy leader.
#[test]
fn a_busy_follower_does_not_depose_a_healthy_leader() {
    let world = World::with_group(11, 3);
    let leader = world.leader();
    let term = world.status(leader).term;
    let busy = (leader + 1) % 3;
    for _ in 0..5 {
        world.sim.pause(&world.nodes[busy].env);
        world.sim.run_for(1500 * MS);
        world.sim.resume(&world.nodes[busy].env);
        world.sim.run_for(500 * MS);
    }
    let status = world.status(leader);
    assert_eq!((status.role, status.term), (Role::Leader, term));
}

/// A promise longer than followers keep gave a leader a lease that nobody honoured: a stale read.
#[test]
fn a_promise_that_followers_would_not_keep_is_refused() {
    let config = GroupConfig {
        promise_ms: 120_000,
        election_timeout_min_ms: 120_000,
        election_timeout_max_ms: 121_000,
        ..GroupConfig::default()
    };
    assert!(config.validate().unwrap_err().contains("promise_ms 120000"));
    let config = GroupConfig { command_bytes_max: 16 << 20, ..GroupConfig::default() };
    assert!(config.validate().unwrap_err().contains("command_bytes_max"));
    let config = GroupConfig { heartbeat_ms: u32::MAX, promise_ms: u32::MAX, ..GroupConfig::default() };
    assert!(config.validate().is_err());
}

/// A leader whose clock ran a year ahead stamped a single command, and every later one was past its window for ever.
#[test]
fn a_leader_with_a_wrong_clock_spoils_the_group_for_nobody_after_it() {
    let mut world = World::with_group(12, 3);
    let leader = world.leader();
    let year = Duration::from_secs(365 * 24 * 3600);
    world.sim.advance_wall(&world.nodes[leader].env, year);
    let mut client = world.client();
    let host = world.nodes[leader].host.clone();
    let until = rafted_value::env::Env::wall_ms(client.env.as_ref()) + 60_000;
    let change = encode(&Change::Add("a".into(), 1));
    let command = client.session.begin(until, 0, change).unwrap();
    let refused = world.run(5 * SECOND, async move { host.command(GROUP, command, SECOND).await });
    assert!(
        matches!(refused, Err(CommandError::Unknown(rafted_value::Unknown::Expired { .. }))),
        "{refused:?}"
    );
    world.kill(leader);
    let total = world.run(30 * SECOND, async move { client.add("a", 1).await });
    assert_eq!(total, 1);
}

/// A learner that had caught up and then died was promoted: a group of one became two, and lost its quorum.
#[test]
fn a_learner_that_is_not_heard_of_is_not_promoted() {
    let mut world = World::with_group(13, 1);
    world.start_node();
    let (host, node) = (world.nodes[0].host.clone(), world.nodes[1].id());
    let member = world.run(5 * SECOND, async move { host.add_learner(GROUP, node).await.unwrap() });
    world.sim.run_for(5 * SECOND);
    world.kill(1);
    world.sim.run_for(5 * SECOND);
    let host = world.nodes[0].host.clone();
    let promoted = world.run(5 * SECOND, async move { host.promote(GROUP, member).await });
    assert!(matches!(promoted, Err(GroupError::NotCaughtUp { .. })), "{promoted:?}");
    let mut client = world.client();
    assert_eq!(world.run(5 * SECOND, async move { client.add("a", 1).await }), 1);
}

/// The first snapshot carries the group's settings; before, a joined member counted by the defaults.
#[test]
fn a_member_that_joined_leads_by_the_settings_of_its_group() {
    let mut world = World::new(14, 3);
    world.config = GroupConfig {
        heartbeat_ms: 200,
        promise_ms: 400,
        election_timeout_min_ms: 4000,
        election_timeout_max_ms: 5000,
        ..GroupConfig::default()
    };
    world.found(0);
    world.add_voter(0, 1);
    world.add_voter(0, 2);
    world.sim.run_for(SECOND);
    world.kill(0);
    world.sim.run_for(6 * SECOND);
    let leader = world.leader();
    let term = world.status(leader).term;
    let follower = 3 - leader;
    // Longer than twelve ticks of the default settings, shorter than the group's own election timeout.
    world.sim.pause(&world.nodes[follower].env);
    world.sim.run_for(3500 * MS);
    world.sim.resume(&world.nodes[follower].env);
    world.sim.run_for(2 * SECOND);
    let status = world.status(leader);
    assert_eq!((status.role, status.term), (Role::Leader, term));
}

/// Each panic once replayed everything since the snapshot: a burst stopped all groups of its loop.
#[test]
fn a_burst_of_panics_costs_in_proportion_to_its_length() {
    let mut world = World::with_group(15, 3);
    let mut client = world.client();
    let before = support::runs();
    let total = world.run(120 * SECOND, async move {
        for _ in 0..200 {
            client.add("a", 1).await;
        }
        for _ in 0..100 {
            assert!(client.change(&Change::Panic).await.is_err());
        }
        client.add("a", 1).await
    });
    assert_eq!(total, 201);
    world.sim.run_for(SECOND);
    let runs = support::runs() - before;
    // Three members, 300 commands, and for each panic no more than the panicking command again.
    assert!(runs < 3 * (301 + 200 + 200), "{runs} handler runs");
    for node in 0..3 {
        let host = world.nodes[node].host.clone();
        assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 201);
    }
}
