//! A group that has lost its majority, put to work again by its operator.

use crate::support::{Change, GROUP, MS, SECOND, World, stale};
use rafted_value::{CommandError, Durability, GroupConfig, GroupError, MemberId, NotApplied};

fn force(world: &World, node: usize, member: MemberId) -> Result<(), GroupError> {
    let host = world.nodes[node].host.clone();
    world.run(5 * SECOND, async move { host.force_remove_member(GROUP, member).await })
}

fn check_recovers(seed: u64, members: usize, lost: usize, leader_is_lost: bool) {
    let mut world = World::with_group(seed, members);
    let mut client = world.client();
    let mut client = world.run(30 * SECOND, async move {
        for i in 1..=20 {
            assert_eq!(client.add("a", 1).await, i);
        }
        client
    });
    let leader = world.leader();
    let first = if leader_is_lost { leader } else { leader + 1 };
    let dead: Vec<usize> = (0..lost).map(|step| (first + step) % members).collect();
    let dead_members: Vec<MemberId> = dead.iter().map(|node| world.member(*node)).collect();
    let survivors: Vec<usize> = (0..members).filter(|node| !dead.contains(node)).collect();
    for node in &dead {
        world.kill(*node);
    }
    world.sim.run_for(5 * SECOND);
    assert!(survivors.iter().all(|node| !world.status(*node).ready), "a minority does not serve");
    for node in &survivors {
        for member in &dead_members {
            force(&world, *node, *member).expect("it is a member");
        }
    }
    let serving = world.leader();
    assert!(survivors.contains(&serving));
    assert_eq!(world.status(serving).members.len(), survivors.len());
    // Nothing that was acknowledged is lost: the survivors held all of it.
    assert_eq!(world.run(60 * SECOND, async move { client.add("a", 1).await }), 21);
    // A panic rebuilds the value from the snapshot and the log, which must not bring the dead back.
    let mut client = world.client();
    let error =
        world.run(30 * SECOND, async move { client.change(&Change::Panic).await.expect_err("it panics") });
    assert!(matches!(error, CommandError::NotApplied(NotApplied::Panicked(_))), "{error}");
    assert_eq!(world.status(serving).members.len(), survivors.len());
    // And it grows again, through a snapshot that names its members.
    let node = world.start_node();
    world.add_voter(world.leader(), node);
    world.sim.run_for(SECOND);
    assert_eq!(world.status(node).members.len(), survivors.len() + 1);
    let host = world.nodes[node].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 21);
}

#[test]
fn the_last_of_three_members_serves_again_with_all_acknowledged_data() {
    for seed in 0..5 {
        check_recovers(seed, 3, 2, true);
        check_recovers(seed + 10, 3, 2, false);
    }
}

#[test]
fn the_last_two_of_five_members_serve_again_with_all_acknowledged_data() {
    for seed in 20..25 {
        check_recovers(seed, 5, 3, true);
        check_recovers(seed + 10, 5, 3, false);
    }
}

/// The leader has lost its majority and does not know it yet: it goes on in its term.
#[test]
fn a_leader_that_removes_by_force_goes_on_without_an_election() {
    let mut world = World::with_group(40, 3);
    let leader = world.leader();
    let term = world.status(leader).term;
    let dead: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    let members: Vec<MemberId> = dead.iter().map(|node| world.member(*node)).collect();
    let mut client = world.client();
    client.favourite = leader;
    for node in dead {
        world.kill(node);
    }
    let waiting = world.sim.spawn(async move { client.add("a", 5).await });
    for member in members {
        force(&world, leader, member).unwrap();
    }
    assert_eq!(world.end(waiting), 5);
    let status = world.status(leader);
    assert_eq!((status.term, status.leased, status.members.len()), (term, true, 1));
}

#[test]
fn force_removes_neither_a_stranger_nor_the_member_itself() {
    let world = World::with_group(41, 2);
    let own = world.member(0);
    assert!(matches!(force(&world, 0, own), Err(GroupError::NoSuchMember { .. })));
    let stranger = MemberId(50);
    let error = GroupError::NotMember { group: GROUP, member: stranger, removed: false };
    assert_eq!(force(&world, 0, stranger), Err(error));
}

/// The record of the removal shares its number with one of before, whose acknowledgement was taken for its own.
#[test]
fn a_removal_by_force_is_told_once_the_disk_knows_it() {
    for seed in 50..70 {
        let mut world = World::empty(seed);
        world.config = GroupConfig { durability: Durability::Fsync, ..GroupConfig::default() };
        world.sync_takes = 40 * MS;
        world.start_durable_nodes(3);
        world.found_on_all();
        let leader = world.leader();
        let survivor = (leader + 1) % 3;
        let members: Vec<MemberId> =
            (0..3).filter(|node| *node != survivor).map(|node| world.member(node)).collect();
        let mut client = world.client();
        drop(
            world.sim.spawn(async move { while client.change(&Change::Add("a".into(), 1)).await.is_ok() {} }),
        );
        world.sim.run_for(SECOND + seed as u32 * 3 * MS);
        (0..3).filter(|node| *node != survivor).for_each(|node| world.kill(node));
        let begun = world.sim.elapsed();
        force(&world, survivor, members[0]).expect("it is a member");
        let took = world.sim.elapsed() - begun;
        assert!(took >= 40 * MS, "seed {seed}: told after {took:?}");
    }
}

/// It was told with the record of a snapshot that the member had just begun with, in which the removed member still is: after a
/// loss of power that one was back.
#[test]
fn a_removal_by_force_beside_an_install_is_told_once_the_disk_knows_it() {
    for step in 0..16 {
        let mut world = World::with_large_snapshots(70 + u64::from(step), 2);
        let leader = world.leader();
        let gone = world.member(leader);
        world.sync_takes = 40 * MS;
        world.start_durable_nodes(1);
        let (host, learner) = (world.nodes[leader].host.clone(), world.nodes[2].id());
        world.run(10 * SECOND, async move { host.add_learner(GROUP, learner).await }).expect("it leads");
        let has_state = |world: &World| world.has_member(2) && !world.status(2).members.is_empty();
        while !has_state(&world) {
            assert!(world.sim.elapsed() < 60 * SECOND, "the learner gets no state");
            world.sim.run_for(MS);
        }
        world.sim.run_for(step * 10 * MS);
        world.kill(0);
        world.kill(1);
        force(&world, 2, gone).expect("it is a member");
        world.lose_power(2);
        world.restart(2);
        let members = world.status(2).members;
        assert!(
            !members.is_empty() && members.iter().all(|of| of.member != gone),
            "step {step}: {members:?}"
        );
    }
}
