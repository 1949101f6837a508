//! Learners whose node has lost what they knew, or is gone: they are never promoted, cost their group nothing, and make
//! room for others under new ids.

use crate::support::{GROUP, SECOND, World, stale};
use rafted_value::{Durability, GroupConfig, GroupError, MemberId, Removal};

/// Two voters and a third node with a learner that has everything.
fn with_learner(seed: u64, durability: Durability) -> (World, usize, MemberId) {
    let mut world = World::empty(seed);
    world.config = GroupConfig { durability, ..GroupConfig::default() };
    world.start_durable_nodes(3);
    world.found(0);
    world.add_voter(0, 1);
    let mut client = world.client();
    world.run(20 * SECOND, async move { client.add("a", 7).await });
    let leader = world.leader();
    let (host, node) = (world.nodes[leader].host.clone(), world.nodes[2].id());
    let learner =
        world.run(5 * SECOND, async move { host.add_learner(GROUP, node).await.expect("it leads") });
    world.sim.run_for(SECOND);
    assert_eq!(world.member(2), learner);
    let host = world.nodes[2].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 7);
    (world, leader, learner)
}

fn promote(world: &World, leader: usize, member: MemberId) -> Result<(), GroupError> {
    let host = world.nodes[leader].host.clone();
    world.run(5 * SECOND, async move { host.promote(GROUP, member).await })
}

fn remove(world: &World, leader: usize, member: MemberId) -> Result<Removal, GroupError> {
    let host = world.nodes[leader].host.clone();
    world.run(5 * SECOND, async move { host.remove_member(GROUP, member).await })
}

#[test]
fn a_learner_that_lost_its_state_is_never_promoted_and_makes_room_for_one_of_a_new_id() {
    for (seed, durability) in [(1, Durability::Async), (2, Durability::Memory), (3, Durability::Async)] {
        let (mut world, leader, learner) = with_learner(seed, durability);
        world.lose_power(2);
        world.sim.run_for(SECOND);
        world.restart(2);
        world.sim.run_for(5 * SECOND);
        assert!(!world.has_member(2), "{durability:?}: it does not come back under its old id");
        let status = world.status(leader);
        let seen = status.members.iter().find(|member| member.member == learner).unwrap();
        assert_eq!((seen.voter, seen.responsive), (false, Some(false)), "{durability:?}");
        let refused = promote(&world, leader, learner);
        assert!(matches!(refused, Err(GroupError::NotCaughtUp { .. })), "{durability:?}: {refused:?}");
        let mut client = world.client();
        assert_eq!(world.run(20 * SECOND, async move { client.add("a", 1).await }), 8, "{durability:?}");

        assert_eq!(remove(&world, leader, learner), Ok(Removal::Removed));
        let successor = world.add_voter(leader, 2);
        assert!(successor > learner, "{durability:?}");
        world.sim.run_for(SECOND);
        let host = world.nodes[2].host.clone();
        assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 8, "{durability:?}");
        // It is one of three from now on: any two of them are enough.
        world.lose_power((leader + 1) % 2);
        let mut client = world.client();
        assert_eq!(world.run(20 * SECOND, async move { client.add("a", 1).await }), 9, "{durability:?}");
    }
}

#[test]
fn a_learner_whose_node_is_gone_costs_its_group_nothing_and_is_removed() {
    let (mut world, leader, learner) = with_learner(4, Durability::Fsync);
    world.lose_power(2);
    world.sim.run_for(2 * SECOND);
    let refused = promote(&world, leader, learner);
    assert!(matches!(refused, Err(GroupError::NotCaughtUp { .. })), "{refused:?}");
    let mut client = world.client();
    assert_eq!(world.run(20 * SECOND, async move { client.add("a", 1).await }), 8);
    assert_eq!(remove(&world, leader, learner), Ok(Removal::Removed));
    // It learns of that when it comes back.
    world.restart(2);
    world.sim.run_for(10 * SECOND);
    assert!(!world.has_member(2));
}

/// A member that was removed while it was away, and whose companions are all gone, is ended by whoever knows.
#[test]
fn a_former_member_is_ended_and_a_later_one_may_come() {
    let (world, leader, learner) = with_learner(5, Durability::Fsync);
    let host = world.nodes[2].host.clone();
    world.run(SECOND, async move { host.drop_former_member(GROUP, learner).await.unwrap() });
    assert!(!world.has_member(2));
    assert_eq!(remove(&world, leader, learner), Ok(Removal::Removed));
    assert!(world.add_voter(leader, 2) > learner);
}
