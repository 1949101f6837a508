//! A change of the voters is done when it survives the leader.
//!
//! A member applies a change when it hears that the entry is committed. The answer to whoever asked for it once left as
//! soon as the leader had applied it; a leader that died within milliseconds of it left, of two voters and a third that
//! was promoted, one that still asked for the votes of the pair and one that believed that it had none. Nothing was
//! lost, but nobody could be elected before the leader came back.

use crate::support::{GROUP, MS, SECOND, World};
use rafted_value::{Durability, GroupConfig, GroupError, MemberId, Removal};

/// The network: some messages are much later than others, so that the second message to a follower is often on its way
/// when the leader dies.
fn world(seed: u64, nodes: usize, durability: Durability) -> World {
    let mut world = World::empty(seed);
    world.config = GroupConfig { durability, ..GroupConfig::default() };
    if durability == Durability::Memory {
        for _ in 0..nodes {
            world.start_node();
        }
    } else {
        world.start_durable_nodes(nodes);
    }
    world
}

/// A group whose third member has just become a voter: the answer has come, and nothing after it.
fn promoted(seed: u64, durability: Durability) -> World {
    let world = world(seed, 3, durability);
    world.found(0);
    world.add_voter(0, 1);
    world.add_voter(0, 2);
    world
}

/// Whether anybody leads soon after the leader's end.
fn check_is_led(world: &World, seed: u64, what: &str) {
    world.sim.run_for(5 * SECOND);
    let leads =
        |node: &usize| world.nodes[*node].alive && world.has_member(*node) && world.status(*node).ready;
    assert!((0..world.nodes.len()).any(|node| leads(&node)), "seed {seed}: nobody leads {what}");
}

fn check_has_three_voters(world: &World, seed: u64) {
    let members = world.status(world.leader()).members;
    assert_eq!(members.iter().filter(|member| member.voter).count(), 3, "seed {seed}");
}

fn check_promotion_survives_the_leader(durability: Durability) {
    for seed in 0..150 {
        let mut world = promoted(seed, durability);
        world.kill(0);
        check_is_led(&world, seed, "after the promotion of a third");
        check_has_three_voters(&world, seed);
    }
}

#[test]
fn a_leader_that_dies_right_after_a_promotion_leaves_members_who_can_elect_another() {
    check_promotion_survives_the_leader(Durability::Memory);
}

/// The disks of the voters know it as well: their power fails together with the leader's, which stays away.
#[test]
fn a_promotion_survives_a_loss_of_power_and_the_leader_that_does_not_come_back() {
    check_promotion_survives_the_leader(Durability::Fsync);
    for seed in 0..60 {
        let mut world = promoted(1000 + seed, Durability::Fsync);
        for node in 0..3 {
            world.lose_power(node);
        }
        world.restart(1);
        world.restart(2);
        check_is_led(&world, seed, "after all lost their power");
    }
}

/// Nothing of it was in memory only: all processes end together with the leader's, which stays away.
#[test]
fn a_promotion_of_an_async_member_survives_the_end_of_all_processes_and_the_leader_that_stays_away() {
    check_promotion_survives_the_leader(Durability::Async);
    for seed in 0..60 {
        let mut world = promoted(4000 + seed, Durability::Async);
        for node in 0..3 {
            world.kill(node);
        }
        world.restart(1);
        world.restart(2);
        check_is_led(&world, seed, "after all processes ended");
        check_has_three_voters(&world, seed);
    }
}

/// The leader's member is lost with its machine's power, and a new one takes its place.
#[test]
fn a_promotion_of_an_async_member_survives_the_leader_whose_machine_loses_its_power() {
    for seed in 0..60 {
        let mut world = promoted(5000 + seed, Durability::Async);
        let lost = world.member(0);
        world.lose_power(0);
        check_is_led(&world, seed, "after the leader's machine lost its power");
        check_has_three_voters(&world, seed);
        world.restart(0);
        world.sim.run_for(SECOND);
        assert!(!world.has_member(0), "seed {seed}: it may have lost what it acknowledged");
        let leader = world.leader();
        let host = world.nodes[leader].host.clone();
        let answer = world.run(5 * SECOND, async move { host.remove_member(GROUP, lost).await });
        assert_eq!(answer, Ok(Removal::Removed), "seed {seed}");
        assert!(world.add_voter(leader, 0) > lost, "seed {seed}");
        check_has_three_voters(&world, seed);
    }
}

/// The fourth is switched off as soon as it is removed, and the leader dies: two of the three that are left are there.
#[test]
fn a_leader_that_dies_right_after_a_removal_leaves_members_who_can_elect_another() {
    let kept = [Durability::Memory, Durability::Async, Durability::Fsync];
    for seed in 0..150 {
        let mut world = world(2000 + seed, 4, kept[seed as usize % kept.len()]);
        world.found_on_all();
        world.sim.run_for(SECOND);
        let leader = world.leader();
        let removed = (leader + 1 + seed as usize / kept.len() % 3) % 4;
        let (host, member) = (world.nodes[leader].host.clone(), world.member(removed));
        let answer = world.run(5 * SECOND, async move { host.remove_member(GROUP, member).await });
        assert_eq!(answer, Ok(Removal::Removed), "seed {seed}");
        world.kill(removed);
        world.kill(leader);
        check_is_led(&world, seed, "after a removal");
    }
}

/// A leader that hears nothing can have applied a promotion that nobody else knows; whoever asks again must not be told
/// that it is so already.
#[test]
fn what_only_the_leader_knows_is_not_said_to_be_so_already() {
    let mut refused = 0;
    for seed in 3000..3060 {
        let world = world(seed, 2, Durability::Memory);
        world.found(0);
        let (host, id) = (world.nodes[0].host.clone(), world.nodes[1].id());
        let learner: MemberId =
            world.run(5 * SECOND, async move { host.add_learner(GROUP, id).await.unwrap() });
        world.sim.run_for(SECOND);
        let there = [world.nodes[1].address()];
        let here = [world.nodes[0].address()];
        // The leader of one commits it alone, and no answer of the second comes.
        world.sim.partition_one_way(&there, &here);
        let first = world.nodes[0].host.clone();
        let promoting = world.sim.spawn(async move { first.promote(GROUP, learner).await });
        world.sim.run_for(10 * MS);
        let again = world.nodes[0].host.clone();
        let again = world.run(SECOND, async move { again.promote(GROUP, learner).await });
        assert_eq!(again, Err(GroupError::ChangeInProgress(GROUP)), "seed {seed}");
        if seed % 2 == 0 {
            // It is heard in time.
            world.sim.heal();
            assert_eq!(world.end(promoting), Ok(()), "seed {seed}");
        } else {
            // It steps down, and cannot say how many know.
            let answer = world.end(promoting);
            assert_eq!(answer, Err(GroupError::Unknown(GROUP)), "seed {seed}");
            refused += 1;
            world.sim.heal();
            check_is_led(&world, seed, "once it hears again");
        }
    }
    assert!(refused > 0);
}
