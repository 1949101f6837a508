//! Settings that change while the group lives: replicated, in force everywhere, and never at the price of a promise.

use std::time::Duration;

use crate::support::{Change, GROUP, MS, SECOND, World};
use rafted_value::sim::NetConfig;
use rafted_value::{CommandError, GroupConfig, GroupError, NotApplied, Role, encode};

fn configure(world: &World, leader: usize, config: &GroupConfig) -> Result<(), GroupError> {
    let (host, config) = (world.nodes[leader].host.clone(), config.clone());
    world.run(5 * SECOND, async move { host.change_config(GROUP, config).await })
}

fn slow() -> GroupConfig {
    GroupConfig {
        heartbeat_ms: 500,
        promise_ms: 1000,
        election_timeout_min_ms: 2000,
        election_timeout_max_ms: 3000,
        ..GroupConfig::default()
    }
}

fn quick() -> GroupConfig {
    GroupConfig {
        heartbeat_ms: 10,
        promise_ms: 40,
        clock_drift_margin_ms: 4,
        election_timeout_min_ms: 60,
        election_timeout_max_ms: 120,
        ..GroupConfig::default()
    }
}

#[test]
fn new_settings_are_in_force_on_every_member_and_change_no_leader() {
    for seed in 0..10 {
        let world = World::with_group(seed, 3);
        let leader = world.leader();
        let term = world.status(leader).term;
        for config in [slow(), quick(), GroupConfig::default(), slow(), quick()] {
            configure(&world, leader, &config).unwrap();
            world.sim.run_for(4 * SECOND);
            for node in 0..3 {
                assert_eq!(world.status(node).config, config, "seed {seed}");
            }
            let status = world.status(leader);
            assert_eq!((status.role, status.term, status.leased), (Role::Leader, term, true), "seed {seed}");
        }
    }
}

#[test]
fn a_leader_is_replaced_by_the_new_election_timeout() {
    for (config, patience) in [(slow(), 3 * SECOND + 500 * MS), (quick(), 300 * MS)] {
        let mut world = World::with_group(20, 3);
        let leader = world.leader();
        configure(&world, leader, &config).unwrap();
        world.sim.run_for(2 * SECOND);
        // Its followers have nothing but its silence.
        world.sim.set_net_config(NetConfig { death_notice: 0.0, ..NetConfig::default() });
        world.kill(leader);
        let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
        let ready = |world: &World| others.iter().any(|node| world.status(*node).ready);
        let min = Duration::from_millis(config.election_timeout_min_ms.into());
        world.sim.run_for(min - Duration::from_millis(config.heartbeat_ms.into()) - 10 * MS);
        assert!(!ready(&world), "nobody is that impatient");
        world.sim.run_for(patience);
        assert!(ready(&world), "nobody leads");
    }
}

/// A follower that is silent for longer than the old election timeout once made raft's count of ticks step down.
#[test]
fn a_leader_waits_for_its_quorum_as_long_as_the_new_settings_say() {
    let world = World::with_group(21, 3);
    let leader = world.leader();
    let term = world.status(leader).term;
    configure(&world, leader, &slow()).unwrap();
    world.sim.run_for(3 * SECOND);
    world.cut_off(leader);
    world.sim.run_for(1500 * MS);
    assert_eq!(world.status(leader).role, Role::Leader);
    world.sim.heal();
    world.sim.run_for(2 * SECOND);
    assert_eq!((world.status(leader).role, world.status(leader).term), (Role::Leader, term));
    configure(&world, leader, &quick()).unwrap();
    world.sim.run_for(SECOND);
    world.cut_off(leader);
    world.sim.run_for(200 * MS);
    assert_ne!(world.status(leader).role, Role::Leader, "twice the new timeout without a quorum");
}

/// With a longer promise in its settings a leader must not count it from a round that asked for the shorter one.
#[test]
fn a_longer_promise_gives_a_longer_lease_only_for_rounds_that_asked_for_it() {
    for seed in 30..50 {
        let mut world = World::new(seed, 3);
        world.config = quick();
        world.found(0);
        world.add_voter(0, 1);
        world.add_voter(0, 2);
        world.sim.run_for(SECOND);
        let long = GroupConfig { promise_ms: 5000, election_timeout_min_ms: 5000, ..slow() };
        let long = GroupConfig { election_timeout_max_ms: 6000, ..long };
        let host = world.nodes[0].host.clone();
        let task = world.sim.spawn(async move { host.change_config(GROUP, long).await });
        // The change is committed, and no round that the leader sends after it gets out.
        while world.status(0).config.promise_ms == 40 {
            world.sim.run_for(MS / 10);
        }
        world.cut_off(0);
        world.end(task).unwrap();
        let mut elected = false;
        for _ in 0..300 {
            let leased = (0..3).filter(|node| world.status(*node).leased).count();
            assert!(leased <= 1, "seed {seed}");
            elected |= (1..3).any(|node| world.status(node).ready);
            world.sim.run_for(MS);
        }
        let new = (1..3).all(|node| world.status(node).config.promise_ms == 40);
        assert!(elected || !new, "seed {seed}: followers with old settings elect by them");
    }
}

/// A leader that is cut off still counts on the long promise that it was given before the settings changed.
#[test]
fn a_shorter_promise_cuts_none_that_an_old_leader_relies_on() {
    for seed in 50..60 {
        let mut world = World::new(seed, 3);
        world.config = GroupConfig {
            promise_ms: 2000,
            election_timeout_min_ms: 2000,
            election_timeout_max_ms: 2100,
            ..GroupConfig::default()
        };
        world.found(0);
        world.add_voter(0, 1);
        world.add_voter(0, 2);
        world.sim.run_for(SECOND);
        let host = world.nodes[0].host.clone();
        let task = world.sim.spawn(async move { host.change_config(GROUP, quick()).await });
        while world.status(0).config.promise_ms == 2000 {
            world.sim.run_for(MS / 10);
        }
        let promised = world.sim.elapsed();
        world.end(task).unwrap();
        world.sim.run_for(20 * MS);
        world.cut_off(0);
        // Their election timeout is short now, and their word is not.
        while world.sim.elapsed() < promised + 1900 * MS {
            assert!((1..3).all(|node| world.status(node).role != Role::Leader), "seed {seed}");
            world.sim.run_for(20 * MS);
        }
        world.sim.run_for(SECOND);
        assert!((1..3).any(|node| world.status(node).ready), "seed {seed}: nobody leads");
    }
}

#[test]
fn limits_below_what_is_kept_refuse_what_is_new_and_forget_nothing() {
    let mut world = World::with_group(60, 3);
    let leader = world.leader();
    let host = world.nodes[leader].host.clone();
    let mut client = world.client();
    let until = rafted_value::env::Env::wall_ms(client.env.as_ref()) + 60_000;
    let mut begin = || client.session.begin(until, 0, encode(&Change::Add("a".into(), 1))).unwrap();
    let commands: Vec<_> = (0..20).map(|_| begin()).collect();
    let new = begin();
    let all = commands.clone();
    world.run(5 * SECOND, async move {
        for command in all {
            host.command(GROUP, command, SECOND).await.unwrap();
        }
    });
    let small = GroupConfig { session_replies_max: 5, ..GroupConfig::default() };
    configure(&world, leader, &small).unwrap();
    assert_eq!(world.status(leader).session_replies, 20);
    let host = world.nodes[leader].host.clone();
    world.run(5 * SECOND, async move {
        for (i, command) in (1..).zip(commands) {
            let reply = host.command(GROUP, command, SECOND).await.unwrap();
            assert_eq!(postcard::from_bytes::<i64>(&reply), Ok(i), "a retry is told what the first was told");
        }
        let refused = host.command(GROUP, new, SECOND).await;
        let full = NotApplied::SessionTableFull { group: GROUP, limit: 5 };
        assert_eq!(refused, Err(CommandError::NotApplied(full)));
    });
}

#[test]
fn settings_that_cannot_work_and_changes_in_each_others_way_are_refused() {
    let world = World::with_group(61, 3);
    let leader = world.leader();
    let bad = GroupConfig { election_timeout_min_ms: 10, ..GroupConfig::default() };
    assert!(matches!(configure(&world, leader, &bad), Err(GroupError::InvalidConfig(_))));
    let follower = (leader + 1) % 3;
    assert!(matches!(configure(&world, follower, &slow()), Err(GroupError::NotLeader { .. })));
    let (first, second) = (world.nodes[leader].host.clone(), world.nodes[leader].host.clone());
    let one = world.sim.spawn(async move { first.change_config(GROUP, slow()).await });
    let two = world.sim.spawn(async move { second.change_config(GROUP, quick()).await });
    assert_eq!(world.end(one), Ok(()));
    assert_eq!(world.end(two), Err(GroupError::ChangeInProgress(GROUP)));
}

#[test]
fn who_joins_later_and_who_was_away_has_the_new_settings() {
    let mut world = World::new(62, 4);
    world.config = GroupConfig { log_bytes_min: 2_000, log_expansion_factor: 1, ..GroupConfig::default() };
    world.found(0);
    world.add_voter(0, 1);
    world.add_voter(0, 2);
    world.cut_off(2);
    let new = GroupConfig { log_bytes_min: 2_000, log_expansion_factor: 1, ..slow() };
    configure(&world, 0, &new).unwrap();
    let mut client = world.client();
    world.run(60 * SECOND, async move {
        for _ in 0..200 {
            client.add("a", 1).await;
        }
    });
    // What it lacks is compacted away: it gets a snapshot.
    world.sim.heal();
    world.sim.set_net_config(NetConfig::default());
    world.sim.run_for(10 * SECOND);
    assert_eq!(world.status(2).config, new);
    let leader = world.leader();
    world.add_voter(leader, 3);
    world.sim.run_for(SECOND);
    assert_eq!(world.status(3).config, new);
}
