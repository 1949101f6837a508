//! Members that come and go: which removals a leader refuses, and what a group survives.

use crate::support::{GROUP, MS, SECOND, World, stale};
use rafted_value::{GroupError, MemberId, Removal};

fn remove(world: &World, leader: usize, member: MemberId) -> Result<Removal, GroupError> {
    let host = world.nodes[leader].host.clone();
    world.run(5 * SECOND, async move { host.remove_member(GROUP, member).await })
}

#[test]
fn a_follower_is_removed_once_and_was_gone_the_second_time() {
    let world = World::with_group(1, 3);
    let leader = world.leader();
    let member = world.member((leader + 1) % 3);
    assert_eq!(remove(&world, leader, member), Ok(Removal::Removed));
    assert_eq!(remove(&world, leader, member), Ok(Removal::GoneBefore));
    let stranger = MemberId(77);
    let error = GroupError::NotMember { group: GROUP, member: stranger, removed: false };
    assert_eq!(remove(&world, leader, stranger), Err(error));
}

#[test]
fn a_leader_is_not_removed_before_another_leads() {
    let world = World::with_group(2, 3);
    let leader = world.leader();
    let member = world.member(leader);
    assert_eq!(remove(&world, leader, member), Err(GroupError::Leads { group: GROUP, member }));
    let next = (leader + 1) % 3;
    let moved = world.replace_leader(leader, Some(next));
    world.end(moved).unwrap();
    world.sim.run_for(100 * MS);
    assert_eq!(remove(&world, next, member), Ok(Removal::Removed));
    world.sim.run_for(5 * SECOND);
    assert!(!world.has_member(leader));
}

#[test]
fn a_removal_that_would_break_the_healthy_majority_is_refused_with_its_numbers() {
    let mut world = World::with_group(3, 3);
    let leader = world.leader();
    let (alive, dead) = ((leader + 1) % 3, (leader + 2) % 3);
    let (alive_member, dead_member) = (world.member(alive), world.member(dead));
    world.kill(dead);
    world.sim.run_for(3 * SECOND);
    let refused =
        GroupError::WouldBreakQuorum { group: GROUP, member: alive_member, voters: 2, healthy: 1, needed: 2 };
    assert_eq!(remove(&world, leader, alive_member), Err(refused));
    assert_eq!(remove(&world, leader, dead_member), Ok(Removal::Removed));
    assert_eq!(remove(&world, leader, alive_member), Ok(Removal::Removed));
    let mut client = world.client();
    assert_eq!(world.run(5 * SECOND, async move { client.add("a", 1).await }), 1);
}

#[test]
fn nothing_is_removed_while_another_change_or_a_transfer_is_under_way() {
    let world = World::with_group(4, 5);
    let leader = world.leader();
    let (first, second, slow) = ((leader + 1) % 5, (leader + 2) % 5, (leader + 3) % 5);
    let (one, two) = (world.member(first), world.member(second));
    let (host, both) = (world.nodes[leader].host.clone(), world.nodes[leader].host.clone());
    let under_way = world.sim.spawn(async move { both.remove_member(GROUP, one).await });
    let refused = world.sim.spawn(async move { host.remove_member(GROUP, two).await });
    assert_eq!(world.end(under_way), Ok(Removal::Removed));
    assert_eq!(world.end(refused), Err(GroupError::ChangeInProgress(GROUP)));

    let to = world.member(slow);
    world.sim.pause(&world.nodes[slow].env);
    let moving = world.replace_leader_to(leader, Some(to));
    world.sim.run_for(10 * MS);
    assert_eq!(remove(&world, leader, two), Err(GroupError::TransferInProgress { group: GROUP, to }));
    drop(moving);
}

/// One group over so many nodes, with disks or without.
fn group(seed: u64, members: usize, durable: bool) -> World {
    if !durable {
        return World::with_group(seed, members);
    }
    let mut world = World::empty(seed);
    world.start_durable_nodes(members);
    world.found_on_all();
    world
}

/// Groups of three to seven members tolerate the loss of one, one, two, two and three of them.
#[test]
fn a_group_survives_the_loss_of_every_minority() {
    check_survives_losses(false);
}

#[test]
fn a_group_on_disks_survives_the_loss_of_every_minority() {
    check_survives_losses(true);
}

fn check_survives_losses(durable: bool) {
    for (members, losses) in [(3, 1), (4, 1), (5, 2), (6, 2), (7, 3)] {
        let mut world = group(10 + members as u64, members, durable);
        let mut client = world.client();
        let mut total = 0;
        for lost in 0..=losses {
            let mut hand = client;
            let (sum, back) = world.run(60 * SECOND, async move { (hand.add("a", 1).await, hand) });
            (total, client) = (sum, back);
            if lost < losses {
                // The leader goes first: that is the hardest loss.
                let leader = world.leader();
                world.kill(leader);
            }
        }
        assert_eq!(total, losses + 1, "{members} members");
        let alive = (0..members).filter(|node| world.nodes[*node].alive).count();
        assert_eq!(alive, members - losses as usize);
        // One more, and nobody may answer.
        if members % 2 == 1 {
            let leader = world.leader();
            world.kill(leader);
            world.sim.run_for(5 * SECOND);
            let leads = |node: &usize| world.nodes[*node].alive && world.status(*node).ready;
            assert_eq!((0..members).find(leads), None, "{members} members");
        }
    }
}

/// ... and a split of the network that leaves a majority together, wherever the leader is.
#[test]
fn a_group_survives_every_split_that_leaves_a_majority_together() {
    check_survives_splits(false);
}

#[test]
fn a_group_on_disks_survives_every_split_that_leaves_a_majority_together() {
    check_survives_splits(true);
}

fn check_survives_splits(durable: bool) {
    for (members, losses) in [(3, 1), (4, 1), (5, 2), (6, 2), (7, 3)] {
        let mut world = group(20 + members as u64, members, durable);
        // Its last member knows that it votes.
        world.sim.run_for(SECOND);
        let mut client = world.client();
        for round in 0..2 {
            let leader = world.leader();
            // Once the leader is cut off, once it is not.
            let first = if round == 0 { leader } else { leader + 1 };
            let minority: Vec<usize> = (0..losses).map(|step| (first + step) % members).collect();
            let side = |inside: bool| -> Vec<String> {
                let nodes = (0..members).filter(|node| minority.contains(node) == inside);
                nodes.map(|node| world.nodes[node].address()).collect()
            };
            world.sim.partition(&side(true), &side(false));
            let mut hand = client;
            let (sum, back) = world.run(60 * SECOND, async move { (hand.add("a", 1).await, hand) });
            assert_eq!(sum, round + 1, "{members} members");
            client = back;
            world.sim.heal();
            world.sim.run_for(5 * SECOND);
        }
        let statuses: Vec<_> = (0..members).map(|node| world.status(node)).collect();
        let applied: Vec<u64> = statuses.iter().map(|status| status.applied_index).collect();
        assert!(applied.iter().all(|index| *index == applied[0]), "{members} members: {applied:?}");
    }
}

/// Whoever ends a former member may have asked about it a while ago. The node has a new one by then, which was ended in its
/// place.
#[test]
fn the_end_of_a_former_member_is_not_that_of_its_successor() {
    let mut world = World::with_group(90, 3);
    let mut client = world.client();
    world.run(10 * SECOND, async move { client.add("a", 4).await });
    let leader = world.leader();
    let node = (leader + 1) % 3;
    let former = world.member(node);
    let host = world.nodes[leader].host.clone();
    world.run(5 * SECOND, async move { host.remove_member(GROUP, former).await.expect("there are three") });
    let newer = world.add_voter(leader, node);
    let host = world.nodes[node].host.clone();
    world.run(SECOND, async move { host.drop_former_member(GROUP, former).await.expect("it has ended") });
    world.sim.run_for(SECOND);
    assert_eq!(world.member(node), newer);
    let host = world.nodes[node].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 4);
}
