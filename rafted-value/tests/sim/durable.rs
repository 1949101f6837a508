//! Groups that live on disks: nodes that die, all at once or one by one, and come back with what they had.

use crate::support::{Change, Counters, GROUP, MS, SECOND, World, stale};
use std::sync::Arc;

use rafted_value::env::{Env, sleep};
use rafted_value::sim::NetConfig;
use rafted_value::{
    ClientSession, Data, Durability, Found, Freshness, GroupConfig, GroupId, Role, SessionId, StoreConfig,
    encode,
};

fn durable(seed: u64, nodes: usize, durability: Durability) -> World {
    let mut world = World::empty(seed);
    world.config = GroupConfig { durability, ..GroupConfig::default() };
    world.start_durable_nodes(nodes);
    world.found_on_all();
    world
}

/// FAULTS 7: the term was not kept, and went back after a restart.
#[test]
fn a_whole_cluster_that_loses_power_comes_back_with_every_acknowledged_command() {
    for seed in 0..30 {
        let mut world = durable(seed, 3, Durability::Fsync);
        let mut client = world.client();
        let acknowledged = world.run(60 * SECOND, async move {
            for i in 1..=50 {
                assert_eq!(client.add("a", 1).await, i);
            }
            50
        });
        let term = (0..3).map(|node| world.status(node).term).max().unwrap();
        for node in 0..3 {
            world.lose_power(node);
        }
        for node in 0..3 {
            world.restart(node);
        }
        let mut client = world.client();
        let value = world.run(30 * SECOND, async move { client.read().await });
        assert_eq!(value.counts["a"], acknowledged, "seed {seed}");
        assert!(world.status(0).term >= term, "seed {seed}: the term went back");
    }
}

/// A single voter elects itself without asking anybody. It once sent its learners entries before its disk knew the term: after a
/// loss of power it led that term once more, with other entries under the same numbers.
#[test]
fn a_single_voter_sends_nothing_in_a_term_that_its_disk_does_not_know() {
    let mut world = World::empty(91);
    world.config = GroupConfig { durability: Durability::Fsync, ..GroupConfig::default() };
    world.start_durable_nodes(2);
    world.found(0);
    let (host, learner) = (world.nodes[0].host.clone(), world.nodes[1].id());
    world.run(10 * SECOND, async move { host.add_learner(GROUP, learner).await }).expect("it is the leader");
    world.sim.run_for(SECOND);
    let before = world.status(1).last_index;
    assert_eq!(before, world.status(0).last_index);
    world.lose_power(0);
    world.sync_takes = 300 * MS;
    world.restart(0);
    let (mut elected, mut heard) = (None, None);
    while heard.is_none() {
        world.sim.run_for(MS);
        let now = world.sim.elapsed();
        assert!(now < 30 * SECOND, "the learner hears nothing");
        elected = elected.or((world.status(0).role == Role::Leader).then_some(now));
        heard = (world.status(1).last_index > before).then_some(now);
    }
    let (elected, heard) = (elected.expect("a leader was heard"), heard.expect("the loop has ended"));
    assert!(heard - elected > 200 * MS, "elected at {elected:?}, heard of at {heard:?}");
}

#[test]
fn commands_under_way_when_power_fails_are_whole_or_not_there() {
    for seed in 0..40 {
        let mut world = durable(seed, 3, Durability::Fsync);
        let mut client = world.client();
        let counted = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(0));
        let told = counted.clone();
        let task = world.sim.spawn(async move {
            for i in 1..=100_000 {
                if client.change(&Change::Add("a".into(), 1)).await.is_ok() {
                    told.store(i, std::sync::atomic::Ordering::Relaxed);
                }
            }
        });
        world.sim.run_for((50 + 13 * u32::try_from(seed).unwrap()) * MS);
        for node in 0..3 {
            world.lose_power(node);
        }
        task.abort();
        let acknowledged = counted.load(std::sync::atomic::Ordering::Relaxed);
        for node in [2, 0, 1] {
            world.restart(node);
        }
        let mut client = world.client();
        let value = world.run(30 * SECOND, async move { client.read().await });
        let there = value.counts.get("a").copied().unwrap_or(0);
        assert!((acknowledged..=acknowledged + 1).contains(&there), "seed {seed}: {there} of {acknowledged}");
    }
}

#[test]
fn a_member_that_restarts_goes_on_with_its_own_log() {
    let mut world = durable(5, 3, Durability::Fsync);
    let mut client = world.client();
    world.run(30 * SECOND, async move {
        for _ in 0..20 {
            client.add("a", 1).await;
        }
    });
    let before = world.status(2);
    world.lose_power(2);
    world.sim.run_for(2 * SECOND);
    world.restart(2);
    world.sim.run_for(2 * SECOND);
    let after = world.status(2);
    assert_eq!((after.member, after.snapshot_index), (before.member, before.snapshot_index));
    assert_eq!(after.applied_index, world.status(world.leader()).applied_index);
    assert_eq!(world.status(world.leader()).members.len(), 3);
}

#[test]
fn a_group_of_one_comes_back_at_once() {
    let mut world = durable(6, 1, Durability::Fsync);
    let mut client = world.client();
    world.run(SECOND, async move { client.add("a", 7).await });
    world.lose_power(0);
    world.restart(0);
    let mut client = world.client();
    let value = world.run(300 * MS, async move { client.read().await });
    assert_eq!(value.counts["a"], 7);
}

#[test]
fn a_command_that_is_sent_again_after_a_restart_runs_once() {
    let mut world = durable(7, 3, Durability::Fsync);
    let mut client = world.client();
    let until = client.env.wall_ms();
    let command = client.session.begin(until + 60_000, 0, encode(&Change::Add("a".into(), 3))).unwrap();
    let (host, sent) = (world.nodes[world.leader()].host.clone(), command.clone());
    world.run(SECOND, async move { host.command(GROUP, sent, SECOND).await.unwrap() });
    for node in 0..3 {
        world.lose_power(node);
    }
    for node in 0..3 {
        world.restart(node);
    }
    let host = world.nodes[world.leader()].host.clone();
    let again = world.run(SECOND, async move { host.command(GROUP, command, SECOND).await.unwrap() });
    assert_eq!(again[..], encode(&3i64)[..]);
    let mut client = world.client();
    let value = world.run(SECOND, async move { client.read().await });
    assert_eq!(value.counts["a"], 3);
}

#[test]
fn large_snapshots_are_files_and_come_back() {
    let mut world = World::empty(8);
    world.config = GroupConfig { log_bytes_min: 10_000, ..GroupConfig::default() };
    world.start_durable_nodes(3);
    world.found_on_all();
    let mut client = world.client();
    world.run(60 * SECOND, async move {
        client.change(&Change::Fill(300_000)).await.unwrap();
        for _ in 0..400 {
            client.add("a", 1).await;
        }
    });
    let mut longest = 0;
    for node in 0..3 {
        let folder = world.nodes[node].disk().disk().list("snap").unwrap();
        longest = longest.max(folder.len());
    }
    assert!(longest > 0, "no snapshot has a file");
    assert!(longest <= 2, "{longest} snapshots of one group are kept");
    for node in 0..3 {
        world.lose_power(node);
        world.restart(node);
    }
    let mut client = world.client();
    let value = world.run(30 * SECOND, async move { client.read().await });
    assert_eq!(value.counts["a"], 400);
    assert!(value.counts.keys().any(|key| key.len() == 300_000));
}

#[test]
fn an_async_member_survives_the_end_of_its_process_but_not_of_the_machine() {
    let mut world = durable(9, 3, Durability::Async);
    let mut client = world.client();
    world.run(30 * SECOND, async move {
        for _ in 0..20 {
            client.add("a", 1).await;
        }
    });
    let member = world.status(2).member;
    world.kill(2);
    world.restart(2);
    world.sim.run_for(SECOND);
    assert_eq!(world.status(2).member, member);
    world.lose_power(2);
    world.restart(2);
    world.sim.run_for(3 * SECOND);
    assert!(!world.has_member(2), "it may have lost what it acknowledged");
    // A new member takes its place.
    let leader = world.leader();
    let host = world.nodes[leader].host.clone();
    world.run(5 * SECOND, async move { host.remove_member(GROUP, member).await.unwrap() });
    let new = world.add_voter(leader, 2);
    assert!(new > member);
}

#[test]
fn a_member_in_memory_never_comes_back_on_a_node_that_does() {
    let mut world = durable(10, 3, Durability::Memory);
    let mut client = world.client();
    world.run(30 * SECOND, async move { client.add("a", 1).await });
    world.kill(2);
    world.restart(2);
    world.sim.run_for(3 * SECOND);
    assert!(!world.has_member(2));
    let leader = world.leader();
    assert_eq!(world.status(leader).role, Role::Leader);
    let host = world.nodes[leader].host.clone();
    let answer = world
        .run(SECOND, async move { host.query(GROUP, Freshness::Latest, encode(&()), SECOND).await.unwrap() });
    let value: Counters = postcard::from_bytes(&answer).unwrap();
    assert_eq!(value.counts["a"], 1);
}

#[test]
fn a_disk_that_fails_fences_its_members_and_the_others_go_on() {
    let mut world = durable(11, 3, Durability::Fsync);
    let leader = world.leader();
    world.nodes[leader].disk().fail_syncs(1);
    let mut client = world.client();
    world.run(30 * SECOND, async move {
        for i in 1..=20 {
            assert_eq!(client.add("a", 1).await, i);
        }
    });
    let fenced = world.status(leader).fenced.expect("its disk failed");
    assert!(fenced.contains("can keep nothing"), "{fenced}");
    assert_ne!(world.leader(), leader);
}

#[test]
fn members_on_disks_and_in_memory_give_each_other_snapshots() {
    let mut world = durable(12, 2, Durability::Fsync);
    let mut client = world.client();
    world.run(30 * SECOND, async move {
        client.change(&Change::Fill(400_000)).await.unwrap();
        client.add("a", 4).await;
    });
    let in_memory = world.start_node();
    world.add_voter(world.leader(), in_memory);
    world.sim.run_for(SECOND);
    let host = world.nodes[in_memory].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 4);
    assert_eq!(world.status(in_memory).durability, Durability::Memory);
    assert_eq!(world.status(0).durability, Durability::Fsync);
}

/// A leader that commits its own removal stays until the other of two knows it. Started again, it found its removal
/// committed in its log and ended, and the other one asked for its vote for ever (simulation, seed 10663).
#[test]
fn a_member_that_alone_knows_of_its_removal_stays_over_a_restart() {
    let mut told = 0;
    for seed in 500..530 {
        let mut world = durable(seed, 2, Durability::Fsync);
        world.sim.run_for(SECOND);
        let leader = world.leader();
        let other = 1 - leader;
        let (here, there) = ([world.nodes[leader].address()], [world.nodes[other].address()]);
        world.sim.set_net_config(NetConfig {
            delay_min: 10 * MS,
            delay_max: 15 * MS,
            ..NetConfig::default()
        });
        let removed = world.member_on(leader, other).unwrap();
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
            if world.status(other).role == Role::Leader {
                world.sim.run_for(16 * MS);
                world.sim.partition_one_way(&there, &here);
                world.sim.run_for(100 * MS);
                break;
            }
            if !world.has_member(other) || world.status(leader).members.len() == 1 {
                break;
            }
            world.sim.run_for(2 * MS);
        }
        let knows = world.has_member(other) && world.status(other).members.len() == 1;
        told += i32::from(knows && world.status(leader).members.len() == 2);
        world.lose_power(other);
        world.restart(other);
        world.sim.heal();
        world.sim.run_for(10 * SECOND);
        assert!(world.status(leader).ready, "seed {seed}: nobody leads");
        assert_eq!(world.status(leader).members.len(), 1, "seed {seed}");
        assert!(!world.has_member(other), "seed {seed}: it was told");
    }
    assert!(told > 0, "no seed tells the story");
}

/// The files of a member that ended were removed before the disk knew that it had: after a loss of power the log spoke of a
/// snapshot that was not there, and the group was fenced on that node for ever.
#[test]
fn a_member_that_ends_while_power_fails_is_whole_or_not_there() {
    for seed in 0..10 {
        let mut world = World::with_large_snapshots(seed, 3);
        let leader = world.leader();
        let node = (0..3).find(|node| *node != leader).expect("there are others");
        let snapshots = |world: &World| {
            world.nodes[node].disk().files().into_keys().filter(|name| name.ends_with(".snap")).count()
        };
        assert!(snapshots(&world) > 0);
        let host = world.nodes[node].host.clone();
        let ends = world.sim.spawn_on(&world.nodes[node].env, async move { host.drop_member(GROUP).await });
        while snapshots(&world) > 0 {
            world.sim.run_for(MS);
        }
        drop(ends);
        world.lose_power(node);
        world.restart(node);
        world.sim.run_for(SECOND);
        let host = world.nodes[node].host.clone();
        let fenced =
            world.run(SECOND, async move { host.status(GROUP).await }).and_then(|status| status.fenced);
        assert_eq!(fenced, None, "seed {seed}");
    }
}

/// First members in memory voted and acknowledged before the disk knew that they were there. One that was killed before was
/// founded once more, with the id that had acknowledged entries and without them.
#[test]
fn first_members_in_memory_say_nothing_before_their_disks_know_of_them() {
    let mut world = World::empty(81);
    world.config = GroupConfig { durability: Durability::Memory, ..GroupConfig::default() };
    world.start_durable_nodes(3);
    // The first has a disk that is fast, and asks the others for their votes.
    for node in &world.nodes[1..] {
        let clock = node.env.clone();
        node.disk().set_sync_latency(Some(Arc::new(move || sleep(clock.as_ref(), 5 * SECOND))));
    }
    let nodes: Vec<_> = world.nodes.iter().map(|node| node.id()).collect();
    for node in 0..3 {
        let found = Found {
            group: GROUP,
            data: Counters::NAME.into(),
            config: world.config.clone(),
            nodes: nodes.clone(),
        };
        let host = world.nodes[node].host.clone();
        drop(world.sim.spawn(async move { host.found(found).await }));
    }
    let leads = |node: usize| world.has_member(node) && world.status(node).role == Role::Leader;
    world.sim.run_for(4 * SECOND);
    assert!(!(0..3).any(leads));
    world.sim.run_for(4 * SECOND);
    assert!((0..3).any(leads));
}

/// Hosts whose logs are written in small segments, the oldest of which holds a group's records.
fn small_segments(seed: u64, nodes: usize, config: GroupConfig) -> World {
    let mut world = World::empty(seed);
    world.config = config;
    world.host_config.loops = 1;
    world.host_config.store =
        StoreConfig { segment_bytes: 200_000, record_bytes_max: 4 << 20, ..StoreConfig::default() };
    world.start_durable_nodes(nodes);
    world.found_on_all();
    world
}

/// Fills the log of a node with what another group writes and compacts.
fn write_beside(world: &mut World, node: usize, changes: usize) {
    let (host, id) = (world.nodes[node].host.clone(), world.nodes[node].id());
    let config = GroupConfig { log_bytes_min: 100_000, log_expansion_factor: 1, ..GroupConfig::default() };
    let found = Found { group: GroupId(78), data: Counters::NAME.into(), config, nodes: vec![id] };
    let env = world.nodes[node].env.clone();
    let task = world.sim.spawn(async move {
        host.found(found).await.expect("a new group");
        let mut session = ClientSession::new(SessionId::new(7, 8), 10);
        for _ in 0..changes {
            let until = env.wall_ms() + 60_000;
            let change = encode(&Change::Add("y".repeat(10_000), 1));
            let command = session.begin(until, 0, change).expect("there is room");
            host.command(GroupId(78), command.clone(), SECOND).await.expect("it leads");
            session.finish(command.sequence);
        }
    });
    world.run(600 * SECOND, task).expect("all is written");
}

fn segments(world: &World, node: usize) -> usize {
    world.nodes[node].disk().disk().list("log").expect("there is a log").len()
}

/// A group whose log does not fit into one record was fenced when the log was to do without its older parts; then the log was
/// not asked again once a snapshot had made it smaller, which a follower does not make it all at once.
#[test]
fn a_group_with_a_long_log_survives_that_it_is_to_be_written_anew() {
    for (seed, nodes) in [(82, 1), (84, 3)] {
        let config = GroupConfig { log_bytes_min: 64 << 20, ..GroupConfig::default() };
        let mut world = small_segments(seed, nodes, config);
        let mut client = world.client();
        world.run(60 * SECOND, async move {
            for _ in 0..60 {
                client.add(&"y".repeat(100_000), 1).await;
            }
        });
        let last = (world.leader() + nodes - 1) % nodes;
        write_beside(&mut world, last, 3000);
        assert_eq!(world.status(last).fenced, None);
        assert!(world.status(world.leader()).ready);
        assert!(segments(&world, last) < 40, "{} segments of {nodes}", segments(&world, last));
    }
}

/// Its snapshot was the newest that there could be, and what it kept behind that for a member that is away stayed too.
#[test]
fn a_group_at_rest_does_without_a_long_log_that_nobody_but_the_dead_could_use() {
    let config = GroupConfig { log_bytes_min: 64 << 20, ..GroupConfig::default() };
    let mut world = small_segments(85, 3, config);
    let leader = world.leader();
    world.kill((leader + 1) % 3);
    let mut client = world.client();
    world.run(60 * SECOND, async move {
        for _ in 0..60 {
            client.add(&"y".repeat(100_000), 1).await;
        }
    });
    world.sim.run_for(20 * SECOND);
    let status = world.status(leader);
    assert_eq!((status.role, status.snapshot_index), (Role::Leader, status.applied_index), "it is at rest");
    write_beside(&mut world, leader, 3000);
    assert!(segments(&world, leader) < 40, "{} segments", segments(&world, leader));
    world.restart((leader + 1) % 3);
    let mut client = world.client();
    assert_eq!(world.run(20 * SECOND, async move { client.add(&"y".repeat(100_000), 1).await }), 61);
    world.sim.run_for(5 * SECOND);
    assert_eq!(world.status((leader + 1) % 3).applied_index, world.status(leader).applied_index);
}

/// Nobody wrote the records of a fenced member anew, and all that came after them stayed on the disk until it was full.
#[test]
fn a_fenced_member_holds_up_no_log_and_comes_back_with_all_it_had() {
    for durability in [Durability::Fsync, Durability::Memory] {
        let config = GroupConfig { durability, ..GroupConfig::default() };
        let mut world = small_segments(83, 1, config);
        let mut client = world.client();
        world.run(60 * SECOND, async move { client.add("a", 7).await });
        let host = world.nodes[0].host.clone();
        let retired = world.sim.spawn(async move { host.retire(GROUP).await });
        world.end(retired).expect("it is there");
        assert!(world.status(0).fenced.is_some());
        write_beside(&mut world, 0, 3000);
        assert!(segments(&world, 0) < 40, "{} segments", segments(&world, 0));
        world.kill(0);
        world.restart(0);
        if durability == Durability::Memory {
            assert!(!world.has_member(0), "it was in memory");
            continue;
        }
        let mut client = world.client();
        assert_eq!(world.run(20 * SECOND, async move { client.add("a", 1).await }), 8);
    }
}
