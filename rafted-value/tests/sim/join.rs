//! A node that joins through any member it knows: it becomes a voter, or it was never there.

use std::time::Duration;

use crate::support::{Change, Counters, GROUP, MS, SECOND, World, stale};
use rafted_value::env::Env;
use rafted_value::sim::NetConfig;
use rafted_value::{
    ClientSession, Data, Found, GroupConfig, GroupError, GroupId, MemberId, SessionId, encode,
};

fn join(world: &World, node: usize, via: usize, limit: Duration) -> Result<MemberId, GroupError> {
    let (host, via) = (world.nodes[node].host.clone(), world.nodes[via].id());
    world.run(30 * SECOND, async move { host.join(GROUP, via, limit).await })
}

#[test]
fn a_node_joins_through_a_follower_and_holds_everything() {
    let mut world = World::with_group(1, 3);
    let mut client = world.client();
    world.run(10 * SECOND, async move { client.add("a", 4).await });
    let follower = (world.leader() + 1) % 3;
    let node = world.start_node();
    let member = join(&world, node, follower, 5 * SECOND).unwrap();
    world.sim.run_for(SECOND);
    let status = world.status(node);
    assert_eq!(status.member, member);
    assert!(status.members.iter().any(|of| of.member == member && of.voter));
    let host = world.nodes[node].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 4);
    // Once more changes nothing.
    assert_eq!(join(&world, node, follower, 5 * SECOND), Ok(member));
}

#[test]
fn a_node_joins_while_the_leader_changes() {
    for seed in 10..20 {
        let mut world = World::with_group(seed, 3);
        world.sim.run_for(SECOND);
        let leader = world.leader();
        let node = world.start_node();
        let (host, via) = (world.nodes[node].host.clone(), world.nodes[(leader + 1) % 3].id());
        let joining = world.sim.spawn(async move { host.join(GROUP, via, 10 * SECOND).await });
        world.sim.run_for((seed as u32) * MS / 5);
        world.kill(leader);
        let member = world.run(20 * SECOND, joining).unwrap().unwrap();
        world.sim.run_for(SECOND);
        let voters = world.status(world.leader()).members;
        assert!(voters.iter().any(|of| of.member == member && of.voter), "seed {seed}");
    }
}

#[test]
fn without_a_leader_nothing_is_joined_and_nothing_is_left_over() {
    let mut world = World::with_group(20, 3);
    let alive = (world.leader() + 1) % 3;
    for node in 0..3 {
        if node != alive {
            world.kill(node);
        }
    }
    world.sim.run_for(3 * SECOND);
    let node = world.start_node();
    let error = join(&world, node, alive, SECOND).unwrap_err();
    assert_eq!(error, GroupError::NoLeader { group: GROUP, limit_ms: 1000 });
    assert_eq!(world.status(alive).members.len(), 3);
    assert!(!world.has_member(node));
}

#[test]
fn a_group_that_is_not_there_and_a_node_that_is_not_there_are_told_apart() {
    let mut world = World::new(21, 2);
    assert_eq!(join(&world, 1, 0, SECOND), Err(GroupError::NoSuchGroup(GROUP)));
    world.kill(0);
    world.sim.run_for(2 * SECOND);
    let error = join(&world, 1, 0, SECOND).unwrap_err();
    assert!(matches!(error, GroupError::Unreachable(_)), "{error}");
}

/// The learner gets nothing of what the leader sends, so that it never catches up: it must not stay a member for ever.
#[test]
fn a_join_that_times_out_half_way_leaves_no_learner() {
    let mut world = World::with_group(22, 3);
    let leader = world.leader();
    let node = world.start_node();
    let (to, from) = ([world.nodes[node].address()], [world.nodes[leader].address()]);
    let (host, via) = (world.nodes[node].host.clone(), world.nodes[leader].id());
    let joining = world.sim.spawn(async move { host.join(GROUP, via, 2 * SECOND).await });
    while world.status(leader).members.len() == 3 {
        world.sim.run_for(MS / 10);
    }
    // Nothing gets through for the whole of its patience.
    world.sim.partition(&to, &from);
    world.sim.run_for(2 * SECOND);
    world.sim.heal();
    let error = world.run(10 * SECOND, joining).unwrap().unwrap_err();
    assert!(matches!(error, GroupError::JoinTimedOut { limit_ms: 2000, leftover: false, .. }), "{error}");
    world.sim.run_for(2 * SECOND);
    assert_eq!(world.status(world.leader()).members.len(), 3);
    assert!(!world.has_member(node));
    // It can join later.
    join(&world, node, leader, 5 * SECOND).unwrap();
}

/// A voter that called once more, and was not answered in time, was told that it had not joined, and its node ended it for
/// ever, while the group went on to count it.
#[test]
fn a_voter_that_joins_once_more_in_vain_stays() {
    for seed in 60..70 {
        let world = World::with_group(seed, 3);
        world.sim.run_for(SECOND);
        let leader = world.leader();
        let node = (leader + 1) % 3;
        let member = world.member(node);
        world.sim.pause(&world.nodes[leader].env);
        let (host, via) = (world.nodes[node].host.clone(), world.nodes[leader].id());
        let joining = world.sim.spawn(async move { host.join(GROUP, via, 200 * MS).await });
        world.sim.run_for(400 * MS);
        world.sim.resume(&world.nodes[leader].env);
        assert_eq!(world.run(20 * SECOND, joining), Some(Ok(member)), "seed {seed}");
        world.sim.run_for(SECOND);
        assert_eq!(world.member(node), member, "seed {seed}");
        let voters = world.status(world.leader()).members;
        assert!(voters.iter().any(|of| of.member == member && of.voter), "seed {seed}");
    }
}

/// It was no member that its disk kept, and waited for ever to be one: nobody was told why it was silent.
#[test]
fn a_member_that_waits_for_its_state_is_fenced_when_the_disk_of_its_node_fails() {
    let mut world = World::empty(90);
    world.host_config.loops = 1;
    world.start_durable_nodes(3);
    world.found_on_all();
    let mut client = world.client();
    world.run(30 * SECOND, async move { client.change(&Change::Fill(2_000_000)).await.expect("it is led") });
    world.start_durable_nodes(1);
    let id = world.nodes[3].id();
    let found = Found {
        group: GroupId(78),
        data: Counters::NAME.into(),
        config: GroupConfig::default(),
        nodes: vec![id],
    };
    let host = world.nodes[3].host.clone();
    world.run(SECOND, async move { host.found(found).await }).expect("a new group");
    world.sim.run_for(SECOND);
    // The state takes half a minute.
    world.sim.set_net_config(NetConfig { bandwidth_bytes_per_second: 70_000, ..NetConfig::default() });
    let (host, via) = (world.nodes[3].host.clone(), world.nodes[world.leader()].id());
    drop(world.sim.spawn(async move { host.join(GROUP, via, 60 * SECOND).await }));
    world.sim.run_for(2 * SECOND);
    assert!(world.has_member(3) && world.status(3).data.is_empty(), "it waits for its state");
    world.nodes[3].disk().fail_writes(1);
    let (host, until) = (world.nodes[3].host.clone(), world.nodes[3].env.wall_ms() + 60_000);
    let command =
        ClientSession::new(SessionId::new(7, 8), 10).begin(until, 0, encode(&Change::Add("a".into(), 1)));
    let command = command.expect("there is room");
    let answer = world.run(5 * SECOND, async move { host.command(GroupId(78), command, SECOND).await });
    assert!(answer.is_err(), "{answer:?}");
    let fenced = world.status(3).fenced.expect("its disk failed");
    assert!(fenced.contains("can keep nothing"), "{fenced}");
}
