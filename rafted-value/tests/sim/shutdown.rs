//! A host that shuts down leaves without an outage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{self, Change, Counters, GROUP, MS, SECOND, World};
use rafted_value::env::{Env, sleep};
use rafted_value::sim::{SimDisk, SimEnv};
use rafted_value::{
    ClientSession, Found, GroupConfig, GroupError, GroupId, Host, HostConfig, NodeId, Role, SessionId, encode,
};

fn shut_down(world: &World, node: usize) -> Duration {
    let (host, before) = (world.nodes[node].host.clone(), world.sim.elapsed());
    world.run(10 * SECOND, async move { host.shutdown().await });
    world.sim.elapsed() - before
}

#[test]
fn a_leader_that_shuts_down_has_a_successor_before_it_stops() {
    for seed in 0..10 {
        let mut world = World::with_group(seed, 3);
        world.sim.run_for(SECOND);
        let leader = world.leader();
        let took = shut_down(&world, leader);
        assert!(took < 60 * MS, "seed {seed}: {took:?}");
        let leads = |node: &usize| *node != leader && world.status(*node).role == Role::Leader;
        let successor = (0..3).find(leads).unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
        world.kill(leader);
        let (mut client, before) = (world.client(), world.sim.elapsed());
        client.favourite = successor;
        world.run(5 * SECOND, async move { client.add("a", 1).await });
        let outage = world.sim.elapsed() - before;
        assert!(outage < 100 * MS, "seed {seed}: nobody waits for an election, {outage:?}");
    }
}

#[test]
fn a_host_whose_groups_nobody_can_take_over_stops_in_bounded_time() {
    let mut world = World::new(20, 3);
    world.host_config = HostConfig { handover_max: 300 * MS, ..HostConfig::default() };
    let last = world.start_node();
    world.found(last);
    world.add_voter(last, 0);
    world.sim.run_for(SECOND);
    world.sim.pause(&world.nodes[0].env);
    let took = shut_down(&world, last);
    assert!((300 * MS..310 * MS).contains(&took), "{took:?}");
}

#[test]
fn a_host_that_leads_nothing_stops_at_once() {
    let world = World::with_group(21, 3);
    let follower = (world.leader() + 1) % 3;
    assert!(shut_down(&world, follower) < MS);
    let alone = World::with_group(22, 1);
    assert!(shut_down(&alone, 0) < MS, "there is nobody to hand over to");
}

/// A node that leads many groups hands all of them over, and not all to the same.
#[test]
fn the_groups_of_a_node_are_spread_over_their_other_members() {
    let world = World::new(23, 3);
    let nodes: Vec<NodeId> = world.nodes.iter().map(support::Node::id).collect();
    let hosts: Vec<Host> = world.nodes.iter().map(|node| node.host.clone()).collect();
    for group in 1..=40 {
        for host in hosts.clone() {
            let found = Found {
                group: GroupId(group),
                data: <Counters as rafted_value::Data>::NAME.into(),
                config: GroupConfig::default(),
                nodes: nodes.clone(),
            };
            world.run(SECOND, async move { host.found(found).await }).expect("it is new");
        }
    }
    world.sim.run_for(5 * SECOND);
    let leads = |node: usize| {
        let host = hosts[node].clone();
        let statuses = world.run(SECOND, async move { host.statuses().await });
        statuses.iter().filter(|status| status.role == Role::Leader).count()
    };
    let before = [leads(0), leads(1), leads(2)];
    assert_eq!(before.iter().sum::<usize>(), 40);
    let took = shut_down(&world, 0);
    assert!(took < 100 * MS, "{took:?}");
    let after = [leads(1), leads(2)];
    assert_eq!(after.iter().sum::<usize>(), 40);
    assert!(after[0] > before[1] && after[1] > before[2], "{before:?} to {after:?}");
}

#[test]
fn a_group_that_is_told_to_move_while_its_host_stops_is_answered() {
    let world = World::with_group(24, 3);
    world.sim.run_for(SECOND);
    let leader = world.leader();
    let slow = (leader + 1) % 3;
    let member = world.member(slow);
    let env: &SimEnv = &world.nodes[slow].env;
    world.sim.pause(env);
    let moving = world.replace_leader_to(leader, Some(member));
    world.sim.run_for(10 * MS);
    shut_down(&world, leader);
    let error = world.end(moving).expect_err("the member has ended");
    assert!(matches!(error, GroupError::TransferCancelled { .. }), "{error}");
}

fn writes_a_snapshot(disk: &SimDisk) -> bool {
    disk.files().keys().any(|name| name.ends_with(".snap.tmp"))
}

/// A node with a disk, and a group of one that has a snapshot of some MiB written, whose sync takes five seconds.
fn while_a_snapshot_is_written(seed: u64) -> World {
    let mut world = World::empty(seed);
    world.config = GroupConfig { log_bytes_min: 100_000, ..GroupConfig::default() };
    world.start_durable_nodes(1);
    world.found_on_all();
    let node = &world.nodes[0];
    let (host, env) = (node.host.clone(), node.env.clone());
    let mut session = ClientSession::new(SessionId::new(1, 1), 2);
    let fill = session.begin(env.wall_ms() + 60_000, 0, encode(&Change::Fill(3 << 20))).expect("it is first");
    world.run(SECOND, async move { host.command(GROUP, fill, SECOND).await }).expect("it leads");
    let (disk, slow) = (node.disk().clone(), AtomicBool::new(true));
    node.disk().set_sync_latency(Some(Arc::new(move || {
        let slow = writes_a_snapshot(&disk) && slow.swap(false, Ordering::Relaxed);
        sleep(env.as_ref(), if slow { 5 * SECOND } else { MS })
    })));
    let host = node.host.clone();
    let add = session.begin(node.env.wall_ms() + 60_000, 0, encode(&Change::Add("y".repeat(200_000), 1)));
    let add = add.expect("one may wait");
    world.sim.spawn(async move { host.command(GROUP, add, SECOND).await });
    while !writes_a_snapshot(world.nodes[0].disk()) {
        world.sim.run_for(MS);
    }
    world
}

#[test]
fn another_host_of_the_same_process_opens_a_directory_as_soon_as_the_first_has_shut_down() {
    let mut world = while_a_snapshot_is_written(30);
    shut_down(&world, 0);
    let (env, config, registry) =
        (world.nodes[0].env.clone(), world.host_config.clone(), world.registry.clone());
    let host =
        world.run(SECOND, Host::open(env.clone(), config.clone(), registry.clone())).expect("it is free");
    world.sim.run_for(10 * SECOND);
    let status = world.run(SECOND, async move { host.status(GROUP).await }).expect("the member is back");
    assert_eq!((status.fenced, status.ready), (None, true));
    // Nobody else may open it meanwhile.
    world.run(SECOND, Host::open(env, config, registry)).expect_err("it is in use");
    world.kill(0);
}

/// The writer of snapshots once went on after the directory was given up, and renamed what may be the next life's.
#[test]
fn the_files_of_a_host_that_has_shut_down_change_no_more() {
    let world = while_a_snapshot_is_written(31);
    shut_down(&world, 0);
    let files = world.nodes[0].disk().files();
    world.sim.run_for(10 * SECOND);
    assert!(world.nodes[0].disk().files() == files, "somebody still writes");
}

/// The second caller was once told at once, while the first still waited for the disk.
#[test]
fn whoever_shuts_a_host_down_waits_for_its_disk_however_many_do_and_whoever_gave_up() {
    let world = while_a_snapshot_is_written(32);
    let host = world.nodes[0].host.clone();
    let given_up = world.sim.spawn(async move { host.shutdown().await });
    world.sim.run_for(10 * MS);
    given_up.abort();
    for _ in 0..2 {
        shut_down(&world, 0);
        let files = world.nodes[0].disk().files();
        world.sim.run_for(3 * SECOND);
        assert!(world.nodes[0].disk().files() == files, "it was told too early");
    }
}
