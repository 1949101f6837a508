//! Nodes that are silent: who says so, when they are purged, and how they come back.

use std::time::Duration;

use crate::support::{self, Counter, MS, SECOND, World, address, count_up, name};
use raft_fleet::{CLUSTER_GROUP, Data, FleetError, Presence};

fn lists(world: &World, at: usize, node: raft_fleet::NodeId) -> bool {
    world.fleet(at).cluster().nodes().contains_key(&node)
}

/// The place of the cluster group's leader, which is the one that asks others whether they live.
fn observer(world: &World) -> usize {
    let leader = world.leaders()[&CLUSTER_GROUP].0;
    let is_leader = |node: &support::Node| node.fleet.as_ref().is_some_and(|fleet| fleet.node() == leader);
    world.nodes.iter().position(is_leader).expect("a living node leads")
}

/// A formed cluster with a longer failure window.
fn patient(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, count);
    world.config.failure_window = 12 * SECOND;
    (0..count).for_each(|place| world.begin(place));
    (0..count).for_each(|place| world.finish(place, 30 * SECOND));
    world
}

#[test]
fn everybody_sees_which_nodes_are_silent_and_since_when() {
    let mut world = patient(800, 4);
    world.sim.run_for(5 * SECOND);
    assert!(world.fleet(0).unreachable_nodes().is_empty());
    let (victim, dead) = (3, world.id(3));
    let died = world.sim.elapsed();
    world.kill(victim);
    world.until(8 * SECOND, "all see that it is silent", |world| {
        (0..3).all(|place| world.fleet(place).unreachable_nodes().contains_key(&dead))
    });
    assert!(world.sim.elapsed() - died >= 2 * SECOND, "one lost answer is no silence");
    let (_env, client) = world.client("client");
    assert_eq!(client.unreachable_nodes().len(), 1, "a client sees it too");
    world.until(30 * SECOND, "it is purged", |world| !lists(world, 0, dead));
    let after = world.sim.elapsed() - died;
    assert!((11 * SECOND..16 * SECOND).contains(&after), "{after:?}");
    assert!(world.fleet(0).unreachable_nodes().is_empty());
}

#[test]
fn a_node_that_answers_again_within_the_window_is_not_purged() {
    let world = World::formed(801, 3);
    let node = world.id(2);
    for _ in 0..3 {
        world.sim.pause(&world.nodes[2].env);
        world.until(8 * SECOND, "it is suspected", |world| {
            world.fleet(0).unreachable_nodes().contains_key(&node)
        });
        world.sim.resume(&world.nodes[2].env);
        world.until(5 * SECOND, "it is heard of", |world| world.fleet(0).unreachable_nodes().is_empty());
    }
    assert!(lists(&world, 0, node));
}

/// The machines of a cluster were once all stopped for a minute, as a laptop or a hypervisor does: the one that woke up a moment
/// after the others had been silent for that minute, and was purged within two seconds.
#[test]
fn a_cluster_that_stood_still_as_a_whole_purges_nobody_for_that() {
    for seed in 840..844 {
        let world = patient(seed, 4);
        world.sim.run_for(5 * SECOND);
        let last = (0..4).find(|place| *place != observer(&world)).unwrap();
        let node = world.id(last);
        world.nodes.iter().for_each(|node| world.sim.pause(&node.env));
        world.sim.run_for(60 * SECOND);
        let others = world.nodes.iter().enumerate().filter(|(place, _)| *place != last);
        others.for_each(|(_, node)| world.sim.resume(&node.env));
        for _ in 0..40 {
            world.sim.run_for(100 * MS);
            assert!((0..4).all(|place| lists(&world, place, node)), "seed {seed}");
        }
        world.sim.resume(&world.nodes[last].env);
        world.sim.run_for(4 * SECOND);
        world.until(10 * SECOND, "all are heard of", |world| world.fleet(0).unreachable_nodes().is_empty());
    }
}

/// The window once began anew with each new leader of the cluster group.
#[test]
fn a_change_of_the_observer_does_not_lengthen_the_window() {
    for seed in 810..813 {
        let mut world = patient(seed, 5);
        world.sim.run_for(5 * SECOND);
        let first = observer(&world);
        let victim = (0..5).find(|place| *place != first).unwrap();
        let dead = world.id(victim);
        let died = world.sim.elapsed();
        world.kill(victim);
        world.until(8 * SECOND, "it is suspected", |world| {
            world.fleet(first).unreachable_nodes().contains_key(&dead)
        });
        world.sim.run_for(4 * SECOND);
        world.stop(first);
        world.restart(first);
        assert_ne!(observer(&world), first);
        world.until(20 * SECOND, "it is purged", |world| !lists(world, first, dead));
        let after = world.sim.elapsed() - died;
        // The new one has to hear nothing of it for as long as whoever suspects a node.
        assert!((11 * SECOND..18 * SECOND).contains(&after), "seed {seed}: {after:?}");
    }
}

#[test]
fn a_node_that_fails_right_after_it_joined_is_purged_as_well() {
    for seed in 820..824 {
        let mut world = World::formed(seed, 3);
        world.add_groups(&world.fleet(0), 4);
        world.begin(3);
        let listed = |world: &World| world.fleet(0).cluster().nodes().len() == 4;
        let end = world.sim.elapsed() + 10 * SECOND;
        while !listed(&world) {
            assert!(world.sim.elapsed() < end);
            world.sim.run_for(5 * MS);
        }
        world.kill(3);
        world.until(20 * SECOND, "it is purged", |world| world.fleet(0).cluster().nodes().len() == 3);
        world.until(20 * SECOND, "all is whole", |world| world.is_whole(4, 3));
        assert_eq!(world.run(count_up(world.fleet(1), name(0), 5, MS)).applied, 5, "seed {seed}");
    }
}

#[test]
fn a_purged_node_is_told_so_and_can_be_activated_again() {
    let mut world = World::new(830, 3);
    world.config.rejoin = false;
    (0..3).for_each(|place| world.begin(place));
    (0..3).for_each(|place| world.finish(place, 30 * SECOND));
    world.add_groups(&world.fleet(0), 4);
    let cut = world.id(1);
    world.sim.partition(&[address(1)], &[address(0), address(2)]);
    world.until(20 * SECOND, "it is purged", |world| !lists(world, 0, cut));
    world.sim.heal();
    world.until(10 * SECOND, "it knows", |world| world.fleet(1).presence() == Presence::Purged);
    world.sim.run_for(10 * SECOND);
    assert_eq!(world.fleet(1).presence(), Presence::Purged, "it waits for a word");
    assert_eq!(
        world.run(count_up(world.fleet(1), name(0), 5, MS)).applied,
        5,
        "it can do all that a client can"
    );
    let fleet = world.fleet(1);
    let again = world.run(async move {
        fleet.activate("zone-1").await.expect("it is not listed");
        fleet.activate("zone-1").await
    });
    assert_eq!(again, Err(FleetError::NotInactive));
    world.until(30 * SECOND, "all is whole", |world| world.is_whole(4, 3));
}

/// The node comes back while the cluster gives it up: before, after and in the middle of that.
#[test]
fn a_node_that_comes_back_in_the_moment_of_its_purge_is_a_member_again() {
    for seed in 860..872 {
        let mut world = World::formed_on_disks(seed, 3);
        let mut rng = world.sim.rng();
        world.add_groups(&world.fleet(0), 4);
        let (client_env, client) = world.client("client");
        let task = world.sim.spawn_on(&client_env, count_up(client, name(0), 300, 50 * MS));
        let victim = (seed % 3) as usize;
        world.lose_power(victim);
        world.sim.run_for(4_800 * MS + Duration::from_millis(rng.next_u64() % 1_500));
        world.begin(victim);
        world.finish(victim, 60 * SECOND);
        world.until(60 * SECOND, "all is whole", |world| {
            world.fleet(victim).presence() == Presence::Active && world.is_whole(4, 3)
        });
        let told = world.sim.run_until(60 * SECOND, task).flatten().expect("the client ends");
        assert_eq!((told.applied, told.unknown), (300, 0), "seed {seed}");
    }
}

/// Only the connection between a node and the leader of the cluster group is cut: in the original each of the two would
/// purge the other. Here a third that hears of it speaks for it.
#[test]
fn a_node_that_anybody_hears_of_is_not_purged() {
    for seed in 840..843 {
        let world = patient(seed, 3);
        world.add_groups(&world.fleet(0), 2);
        world.sim.run_for(5 * SECOND);
        let (leads, nodes) = (observer(&world), world.fleet(0).cluster().nodes().clone());
        let deaf = (0..3).find(|place| *place != leads).unwrap();
        world.sim.partition_one_way(&[address(leads)], &[address(deaf)]);
        world.sim.run_for(60 * SECOND);
        for place in 0..3 {
            assert_eq!(world.fleet(place).cluster().nodes(), &nodes, "seed {seed}");
        }
        world.sim.heal();
        world.until(30 * SECOND, "all is whole", |world| world.is_whole(2, 3));
    }
}

/// Two of five are cut off together: they purge nobody, however long it takes, and are purged themselves.
#[test]
fn a_minority_purges_nobody() {
    for seed in 850..852 {
        let world = World::formed(seed, 5);
        world.sim.run_for(3 * SECOND);
        let leads = observer(&world);
        let minority = [leads, (leads + 1) % 5];
        let majority: Vec<usize> = (0..5).filter(|place| !minority.contains(place)).collect();
        let at = |places: &[usize]| places.iter().copied().map(address).collect::<Vec<_>>();
        world.sim.partition(&at(&minority), &at(&majority));
        let witness = majority[0];
        world.until(40 * SECOND, "the minority is purged", |world| {
            minority.iter().all(|place| !lists(world, witness, world.id(*place)))
        });
        for place in minority {
            assert_eq!(world.fleet(place).cluster().nodes().len(), 5, "seed {seed}");
        }
        world.sim.heal();
        world.until(40 * SECOND, "all are together again", |world| {
            (0..5).all(|place| world.fleet(place).cluster().nodes().len() == 5)
        });
    }
}

/// A group that a dead node was to found once waited until that node was purged.
#[test]
fn groups_are_founded_while_any_one_node_is_away() {
    for victim in 0..3 {
        for notice in [Duration::ZERO, 10 * SECOND] {
            let mut world = World::new(880 + victim as u64, 3);
            world.config.failure_window = 600 * SECOND;
            world.config.add_group_wait = 30 * SECOND;
            (0..3).for_each(|place| world.begin(place));
            (0..3).for_each(|place| world.finish(place, 30 * SECOND));
            world.kill(victim);
            world.sim.run_for(notice);
            let begun = world.sim.elapsed();
            let fleet = world.fleet((victim + 1) % 3);
            world.run(async move {
                let add = |number| fleet.add_usual_group(name(number), Counter::NAME);
                futures_util::future::try_join_all((0..8).map(add)).await.expect("all are founded")
            });
            let took = world.sim.elapsed() - begun;
            assert!(took < 20 * SECOND, "without node {victim}, known for {notice:?}: {took:?}");
        }
    }
}
