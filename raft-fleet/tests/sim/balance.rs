//! Where members and leaders come to be, and how they get there.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{Counter, Hoard, MS, SECOND, World, count_up, name, read};
use raft_fleet::rafted_value::sim::NetConfig;
use raft_fleet::{CallOptions, Data, FleetError, GroupConfig, NodeId, encode};

/// How many groups each node leads, the cluster's own included, and how many members it holds.
fn shares(world: &World) -> (BTreeMap<NodeId, usize>, BTreeMap<NodeId, usize>) {
    let (mut leads, mut holds) = (BTreeMap::new(), BTreeMap::new());
    for (leader, voters, _) in world.leaders().into_values() {
        *leads.entry(leader).or_default() += 1;
        voters.into_iter().for_each(|node| *holds.entry(node).or_default() += 1);
    }
    (leads, holds)
}

/// Whether every group is led by the node that placement prefers, and held by those that it names.
fn is_home(world: &World, place: usize) -> bool {
    let cluster = world.fleet(place).cluster();
    let views = world.nodes.iter().filter_map(|node| Some(node.fleet.as_ref()?.cluster().revision()));
    let newest = views.max().unwrap_or(0);
    let leaders = world.leaders();
    cluster.revision() == newest
        && cluster.groups().iter().all(|(name, entry)| {
            let desired = cluster.desired(name, entry.replicas);
            leaders.get(&entry.id).is_some_and(|(leader, voters, learners)| {
                let there = voters.len() == desired.len() && voters.iter().all(|node| desired.contains(node));
                there && *leader == desired[0] && *learners == 0
            })
        })
}

/// One to eight nodes in one to three zones, which come one by one and are drained one by one.
#[test]
fn members_and_leaders_follow_the_nodes_that_come_and_go() {
    for (seed, count) in [(900, 1), (901, 2), (902, 3), (903, 4)] {
        let mut world = World::formed(seed, count);
        world.add_groups(&world.fleet(0), 8);
        for place in count..2 * count {
            world.begin(place);
            world.finish(place, 30 * SECOND);
        }
        world.until(120 * SECOND, "all is at its place after nodes came", |world| is_home(world, 0));
        for place in (count..2 * count).rev() {
            let fleet = world.fleet(place);
            world.run(async move {
                fleet.deactivate().await.expect("it was active");
                fleet.drained(60 * SECOND).await.expect("it is empty in time");
            });
            world.stop(place);
            world.nodes.pop();
        }
        world.until(60 * SECOND, "all is at its place after nodes went", |world| is_home(world, 0));
        let told = world.run(count_up(world.fleet(0), name(3), 5, MS));
        assert_eq!(told.applied, 5, "{count} nodes");
    }
}

/// A leadership once stayed wherever an election had put it.
#[test]
fn leaderships_return_to_a_node_that_came_back() {
    let mut world = World::formed(910, 3);
    world.add_groups(&world.fleet(0), 12);
    world.until(20 * SECOND, "all is at its place", |world| is_home(world, 0));
    let led_before: Vec<usize> = shares(&world).0.into_values().collect();
    world.kill(1);
    world.sim.run_for(3 * SECOND);
    world.restart(1);
    world.until(30 * SECOND, "all is at its place again", |world| is_home(world, 0));
    assert!(shares(&world).0.contains_key(&world.id(1)));
    assert_eq!(shares(&world).0.len(), led_before.len());
}

#[test]
fn a_heavy_node_gets_the_larger_share() {
    let mut world = World::new(911, 4);
    for place in 0..4 {
        // The first is four times as large as the others.
        world.config.weight = (place == 0).then_some(4);
        world.begin(place);
    }
    (0..4).for_each(|place| world.finish(place, 30 * SECOND));
    for number in 0..21 {
        let fleet = world.fleet(1);
        world.run(async move {
            fleet.add_group(name(number), Counter::NAME, 1, GroupConfig::default()).await.expect("a new name")
        });
    }
    world.until(60 * SECOND, "all is at its place", |world| is_home(world, 1));
    let (_, holds) = shares(&world);
    let heavy = holds[&world.id(0)];
    assert!((8..=18).contains(&heavy), "about four of seven parts of 21: {holds:?}");
    let (fleet, node) = (world.fleet(2), world.id(0));
    let refused = world.run(async move {
        fleet.set_weight(node, 1).await.expect("the node is listed");
        fleet.set_weight(node, 0).await
    });
    assert!(matches!(refused, Err(FleetError::Refused(_))), "{refused:?}");
    world.until(60 * SECOND, "the others get their shares", |world| {
        shares(world).1.get(&world.id(0)).copied().unwrap_or(0) < heavy && is_home(world, 1)
    });
}

#[test]
fn a_pinned_group_stays_in_its_zones() {
    let world = World::formed(912, 6);
    let fleet = world.fleet(0);
    let pinned = world.run(async move {
        let config = GroupConfig::default();
        fleet.add_pinned_group(name(0), Counter::NAME, 3, config.clone(), ["nowhere"]).await.unwrap_err();
        fleet.add_pinned_group(name(0), Counter::NAME, 3, config, ["zone-1"]).await.expect("a new name");
        count_up(fleet, name(0), 5, MS).await
    });
    assert_eq!(pinned.applied, 5);
    let id = world.fleet(0).cluster().groups()[&name(0)].id;
    let zones = |world: &World| {
        let cluster = world.fleet(0).cluster();
        let mut zones: Vec<String> =
            world.leaders()[&id].1.iter().map(|node| cluster.nodes()[node].zone.clone()).collect();
        zones.sort();
        zones
    };
    assert_eq!(zones(&world), ["zone-1", "zone-1"], "as many members as the zone has nodes");
    let fleet = world.fleet(3);
    world.run(async move {
        fleet.pin_group(&name(0), ["zone-0", "zone-2"]).await.expect("there is such a group");
    });
    world.until(30 * SECOND, "it moves", |world| {
        let zones = zones(world);
        zones.len() == 3 && !zones.contains(&"zone-1".to_owned())
    });
    assert_eq!(world.run(read(world.fleet(2), name(0))), 5);
    let fleet = world.fleet(3);
    world.run(async move {
        fleet.pin_group(&name(0), []).await.expect("there is such a group");
    });
    world.until(30 * SECOND, "it is spread over all zones", |world| {
        zones(world) == ["zone-0", "zone-1", "zone-2"]
    });
}

/// The learners of groups led by a node that have nothing yet.
fn empty_learners(world: &World, place: usize) -> usize {
    let fleet = world.fleet(place);
    let statuses = world.run(async move { fleet.host().expect("a full node").statuses().await });
    let members = statuses.iter().flat_map(|status| &status.members);
    members.filter(|member| !member.voter && member.matched == Some(0)).count()
}

/// The most learners that one node brings up to date at a time while a fourth node takes its share.
fn most_at_a_time(seed: u64, snapshots_max: usize) -> usize {
    let mut world = World::new(seed, 3);
    world.config.snapshots_max = snapshots_max;
    (0..3).for_each(|place| world.begin(place));
    (0..3).for_each(|place| world.finish(place, 30 * SECOND));
    world.add_groups(&world.fleet(0), 16);
    // So slow that what is under way is seen.
    let slow = NetConfig { delay_min: 20 * MS, delay_max: 30 * MS, ..world.sim.net_config() };
    world.sim.set_net_config(slow);
    world.begin(3);
    world.finish(3, 10 * SECOND);
    let mut most = 0;
    let end = world.sim.elapsed() + 60 * SECOND;
    while !is_home(&world, 0) {
        assert!(world.sim.elapsed() < end, "{:#?}", world.leaders());
        for place in 0..4 {
            most = most.max(empty_learners(&world, place));
        }
        world.sim.run_for(5 * MS);
    }
    most
}

#[test]
fn a_node_brings_few_members_up_to_date_at_a_time() {
    assert_eq!(most_at_a_time(913, 1), 1);
    assert!(most_at_a_time(913, 16) > 2, "the limit is what keeps it low");
}

/// How long it takes until a second node has a member of each of six groups of 400 KB, all of them sent by the first.
fn time_to_double(seed: u64, bytes_per_second: Option<u64>) -> Duration {
    let mut world = World::new(seed, 1);
    world.config.snapshot_bytes_per_second_max = bytes_per_second;
    world.begin(0);
    world.finish(0, 10 * SECOND);
    let fleet = world.fleet(0);
    world.run(async move {
        for number in 0..6 {
            let config = GroupConfig { log_bytes_min: 10_000, ..GroupConfig::default() };
            fleet.add_group(name(number), Hoard::NAME, 2, config).await.expect("a new name");
            let (filling, options) = (encode(&vec![7_u8; 400_000]), CallOptions::default());
            fleet.command(&name(number), 0, filling, &options).await.expect("it leads");
        }
    });
    world.begin(1);
    world.finish(1, 10 * SECOND);
    let begun = world.sim.elapsed();
    world.until(60 * SECOND, "all have two members", |world| world.is_whole(6, 2));
    world.sim.elapsed() - begun
}

/// The number of members under way alone says nothing of a network that their states fill.
#[test]
fn the_states_of_groups_travel_at_no_more_than_their_bytes_a_second() {
    let (free, slow) = (time_to_double(930, None), time_to_double(930, Some(400_000)));
    assert!(free < 3 * SECOND, "{free:?}");
    // 2.4 MB at 400 KB a second.
    assert!((5 * SECOND..12 * SECOND).contains(&slow), "{slow:?}");
}

/// What has begun is in the membership of each group, so that whoever leads it next goes on.
#[test]
fn a_move_goes_on_when_nodes_die_in_the_middle_of_it() {
    for seed in 920..924 {
        let mut world = World::formed(seed, 3);
        world.add_groups(&world.fleet(0), 12);
        let (client_env, client) = world.client("client");
        let task = world.sim.spawn_on(&client_env, count_up(client.clone(), name(0), 200, 20 * MS));
        world.begin(3);
        world.finish(3, 10 * SECOND);
        world.sim.run_for(MS * (seed as u32 % 7) * 60);
        let victim = (seed % 4) as usize;
        world.kill(victim);
        world.sim.run_for(2 * SECOND);
        world.restart(victim);
        world.until(120 * SECOND, "all is at its place", |world| is_home(world, 0));
        let told = world.sim.run_until(60 * SECOND, task).flatten().expect("the client ends");
        assert_eq!((told.applied, told.unknown), (200, 0), "seed {seed}");
    }
}
