//! Groups that have lost their majority: reported, never deleted, and brought back by a plan that says what it costs.

use crate::support::{Counter, MS, SECOND, World, address, count_up, name, read};
use raft_fleet::rafted_value::encode;
use raft_fleet::rafted_value::sim::SimDisk;
use raft_fleet::{
    CLUSTER_GROUP, CallOptions, Data, Fleet, FleetError, GroupConfig, LeaderlessGroup, NodeId, Presence,
    Removal, RemovalPlan,
};

fn leaderless(world: &World, place: usize) -> Vec<LeaderlessGroup> {
    let fleet = world.fleet(place);
    world.run(async move { fleet.find_groups_without_leader().await })
}

fn plan(world: &World, place: usize, nodes: &[NodeId]) -> RemovalPlan {
    let (fleet, nodes) = (world.fleet(place), nodes.to_vec());
    world.run(async move { fleet.plan_removal(&nodes).await })
}

fn carry_out(world: &World, place: usize, plan: RemovalPlan) -> Result<(), FleetError> {
    let fleet = world.fleet(place);
    world.run(async move { fleet.remove_dead_members(&plan).await })
}

/// The places of a group's voters.
fn holders(world: &World, group: usize) -> Vec<usize> {
    let id = world.fleet(0).cluster().groups()[&name(group)].id;
    let voters = world.leaders()[&id].1.clone();
    (0..world.nodes.len()).filter(|place| voters.contains(&world.id(*place))).collect()
}

/// Five nodes, nobody is purged, and two of the three members of group 0 are dead for good. Gives the place of the third, the
/// dead, and how many groups are like that.
fn majority_lost(seed: u64) -> (World, usize, [NodeId; 2], usize) {
    let mut world = World::formed(seed, 5);
    world.add_groups(&world.fleet(0), 6);
    assert_eq!(world.run(count_up(world.fleet(0), name(0), 9, MS)).applied, 9);
    world.sim.run_for(SECOND);
    let places = holders(&world, 0);
    let dead = [world.id(places[0]), world.id(places[1])];
    let has_both = |voters: &Vec<NodeId>| voters.len() == 3 && dead.iter().all(|node| voters.contains(node));
    let lost = world.leaders().values().filter(|(_, voters, _)| has_both(voters)).count();
    world.kill(places[0]);
    world.kill(places[1]);
    (world, places[2], dead, lost)
}

#[test]
fn a_group_that_lost_its_majority_is_found_and_goes_on_by_a_plan_that_says_what_it_costs() {
    for seed in 700..704 {
        let (world, survivor, dead, lost) = majority_lost(seed);
        let early = plan(&world, survivor, &dead);
        if let Some(removal) = early.groups.iter().find(|removal| removal.group == CLUSTER_GROUP) {
            let forced = matches!(removal.how, Removal::ByForce { .. });
            assert!(!forced, "three of five are left, and only have no leader yet: {early}");
        }
        world.until(10 * SECOND, "only groups without a majority are found", |world| {
            let found = leaderless(world, survivor);
            // A leader that has just lost its followers is one for a moment yet.
            found.len() == lost && found.iter().all(|group| group.name.is_some() && group.silent.len() == 2)
        });
        let found = leaderless(&world, survivor);
        let group = found.iter().find(|group| group.name == Some(name(0))).expect("group 0 is among them");
        assert_eq!(group.members.len(), 1);
        assert_eq!(group.members[0].node, world.id(survivor));

        let alive = plan(&world, survivor, &[world.id(survivor)]);
        assert_eq!(carry_out(&world, survivor, alive), Err(FleetError::NodeAlive(world.id(survivor))));

        let plan = plan(&world, survivor, &dead);
        let text = plan.to_string();
        let expected = format!(
            "group \"group-0\" has 1 of 3 voters left, on [{:?}]; they go on with what the newest holds, up to index ",
            world.id(survivor)
        );
        assert!(text.contains(&expected) && text.contains("whatever only the others held is lost"), "{text}");
        assert!(matches!(plan.groups[0].how, Removal::ByLeader { .. }), "the cluster's own group: {text}");
        assert_eq!(plan.lossy().count(), found.len(), "seed {seed}: {text}");

        carry_out(&world, survivor, plan).unwrap();
        assert!(dead.iter().all(|node| !world.fleet(survivor).cluster().nodes().contains_key(node)));
        world.until(30 * SECOND, "all is whole", |world| {
            let leaders = world.leaders();
            leaders.len() == 7
                && leaders.iter().all(|(group, (_, voters, _))| *group == CLUSTER_GROUP || voters.len() == 3)
        });
        assert_eq!(world.run(read(world.fleet(survivor), name(0))), 9, "seed {seed}");
        // A leader that has just begun has not heard of all its followers yet.
        world.until(5 * SECOND, "all are led", |world| leaderless(world, survivor).is_empty());
    }
}

#[test]
fn a_cluster_that_lost_its_own_majority_goes_on_with_the_node_that_is_left() {
    for seed in 710..713 {
        let mut world = World::formed(seed, 3);
        world.add_groups(&world.fleet(0), 3);
        assert_eq!(world.run(count_up(world.fleet(0), name(1), 5, MS)).applied, 5);
        world.sim.run_for(SECOND);
        let dead = [world.id(0), world.id(1)];
        world.kill(0);
        world.kill(1);
        world.sim.run_for(5 * SECOND);
        let found = leaderless(&world, 2);
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[0].name, None, "the cluster's own group comes first");
        let plan = plan(&world, 2, &dead);
        assert_eq!(plan.lossy().count(), 4, "{plan}");
        carry_out(&world, 2, plan).unwrap();
        assert_eq!(world.run(read(world.fleet(2), name(1))), 5, "seed {seed}");
        world.restart(0);
        world.restart(1);
        world.until(60 * SECOND, "all is whole", |world| world.is_whole(3, 3));
        assert_eq!(world.run(read(world.fleet(0), name(1))), 5, "seed {seed}");
    }
}

/// Fault 27: the original deletes a group, with its data, when all its members look dead. Here they are even purged, and
/// a person asks to go on without them; the entry stays, and so do the bytes.
#[test]
fn a_group_whose_members_were_all_purged_is_reported_and_comes_back_with_its_nodes() {
    for seed in 720..722 {
        let mut world = World::formed_on_disks(seed, 7);
        world.add_groups(&world.fleet(0), 2);
        assert_eq!(world.run(count_up(world.fleet(0), name(0), 7, MS)).applied, 7);
        let places = holders(&world, 0);
        let dead: Vec<NodeId> = places.iter().map(|place| world.id(*place)).collect();
        places.iter().for_each(|place| world.lose_power(*place));
        let witness = (0..7).find(|place| !places.contains(place)).unwrap();
        world.until(60 * SECOND, "all three are purged", |world| {
            dead.iter().all(|node| !world.fleet(witness).cluster().nodes().contains_key(node))
        });
        let found = leaderless(&world, witness);
        let group = found.iter().find(|group| group.name == Some(name(0))).expect("it is reported");
        assert_eq!(
            group.to_string(),
            "group \"group-0\" has no leader: members on [] answer, those on [] do not"
        );
        let plan = plan(&world, witness, &dead);
        let says =
            "group \"group-0\" has no member left that answers; nothing is done, and its entry is kept";
        assert!(plan.to_string().contains(says), "{plan}");
        assert!(matches!(carry_out(&world, witness, plan), Err(FleetError::Removal { .. })));
        assert!(world.fleet(witness).cluster().groups().contains_key(&name(0)));

        places.iter().for_each(|place| world.begin(*place));
        places.iter().for_each(|place| world.finish(*place, 60 * SECOND));
        for place in places {
            assert_eq!(world.fleet(place).presence(), Presence::Active, "who was purged is taken in again");
        }
        world.until(60 * SECOND, "the group serves", |world| leaderless(world, witness).is_empty());
        assert_eq!(world.run(read(world.fleet(witness), name(0))), 7, "seed {seed}");
    }
}

#[test]
fn what_is_on_its_way_is_visible_and_comes_to_an_end() {
    let mut world = World::formed(730, 3);
    world.config.adjustments_max = 1;
    world.add_groups(&world.fleet(0), 12);
    let moves = |world: &World| {
        let fleet = world.fleet(0);
        world.run(async move { fleet.moves().await })
    };
    world.until(20 * SECOND, "all are at their places", |world| moves(world).is_empty());
    world.begin(3);
    world.finish(3, 10 * SECOND);
    let newcomer = world.id(3);
    let mut most = 0;
    world.until(30 * SECOND, "moves are seen", |world| {
        let seen = moves(world);
        most = most.max(seen.iter().filter(|step| step.node == newcomer).count());
        most > 3
    });
    world.until(60 * SECOND, "all are at their places", |world| moves(world).is_empty());
    let data = Counter::NAME;
    let fleet = world.fleet(3);
    world.run(async move { fleet.add_group(name(20), data, 3, GroupConfig::default()).await.unwrap() });
}

/// Five nodes on disks, of which the last two joined later; three groups have a member on each, and so has the cluster's own.
fn three_and_two(seed: u64) -> World {
    let mut world = World::formed_on_disks(seed, 3);
    for place in 3..5 {
        world.disks.push(SimDisk::new(world.sim.rng()));
        world.restart(place);
    }
    for group in 0..3 {
        let fleet = world.fleet(group);
        world.run(async move {
            let config = GroupConfig::default();
            fleet.add_group(name(group), Counter::NAME, 5, config).await.expect("a new name");
        });
        assert_eq!(world.run(count_up(world.fleet(0), name(group), 7, MS)).applied, 7);
    }
    world.until(30 * SECOND, "all five hold everything", |world| world.is_whole(3, 5));
    // What a majority has acknowledged is everywhere.
    world.sim.run_for(SECOND);
    world
}

/// Gives the dead up by one plan. The last change of the cluster, which was that a group is in use, is known to be committed by
/// none of the members that came back; the group was once left out.
async fn repair(fleet: Fleet, dead: Vec<NodeId>) {
    let plan = fleet.plan_removal(&dead).await;
    assert_eq!(plan.groups[0].group, CLUSTER_GROUP);
    let forced = plan.groups.iter().filter(|removal| matches!(removal.how, Removal::ByForce { .. })).count();
    assert_eq!(forced, 4, "{plan}");
    fleet.remove_dead_members(&plan).await.expect("all that is left answers");
}

/// What is left after the loss of three of five.
fn check_repaired(world: &World, dead: &[NodeId], left: [usize; 2]) {
    world.until(30 * SECOND, "both are listed, without the dead", |world| {
        left.iter().all(|place| {
            let fleet = world.fleet(*place);
            let nodes = fleet.cluster().nodes().clone();
            fleet.presence() == Presence::Active && dead.iter().all(|node| !nodes.contains_key(node))
        })
    });
    world.until(30 * SECOND, "all that is left serves", |world| world.is_whole(3, 2));
    for group in 0..3 {
        assert_eq!(world.run(read(world.fleet(left[0]), name(group))), 7);
    }
    // Both have taken up their duties again: what is added is founded and filled, wherever that is.
    for group in 3..7 {
        let fleet = world.fleet(left[group % 2]);
        world.run(async move {
            let config = GroupConfig::default();
            fleet.add_group(name(group), Counter::NAME, 2, config).await.expect("a new name");
        });
    }
    world.until(30 * SECOND, "all are whole", |world| world.is_whole(7, 2));
}

/// The start of every node once waited for a leader, and nobody could be asked to bring one back but by a client.
#[test]
fn a_node_that_comes_back_to_a_cluster_without_a_majority_can_repair_it() {
    // Who is left, and how many of those had ended too: a node that joined later, both of these, and one with a founder.
    for (seed, left, returning) in [(740, [3, 4], 1), (741, [4, 3], 2), (742, [0, 3], 2), (743, [3, 0], 1)] {
        let mut world = three_and_two(seed);
        let lost: Vec<usize> = (0..5).filter(|place| !left.contains(place)).collect();
        let dead: Vec<NodeId> = lost.iter().map(|place| world.id(*place)).collect();
        lost.iter().chain(&left[..returning]).for_each(|place| world.lose_power(*place));
        world.sim.run_for(SECOND);

        world.begin(left[0]);
        assert!(world.try_finish(left[0], 20 * SECOND).is_none(), "seed {seed}: nobody leads the cluster");
        world.lose_power(left[0]);
        for place in &left[..returning] {
            world.begin_without_leader(*place);
            world.finish(*place, 10 * SECOND);
        }
        let here = left[0];
        let found = leaderless(&world, here);
        assert!((3..=4).contains(&found.len()) && found[0].name.is_none(), "seed {seed}: {found:?}");
        world.run(repair(world.fleet(here), dead.clone()));
        check_repaired(&world, &dead, left);
    }
}

#[test]
fn a_client_repairs_a_cluster_whose_nodes_wait_for_a_majority() {
    let mut world = three_and_two(750);
    let dead: Vec<NodeId> = (0..3).map(|place| world.id(place)).collect();
    (0..5).for_each(|place| world.lose_power(place));
    (3..5).for_each(|place| world.begin(place));
    world.sim.run_for(5 * SECOND);
    world.config.seeds = vec![address(0), address(4)];
    let (_env, client) = world.client("operator");
    world.run(repair(client, dead.clone()));
    (3..5).for_each(|place| world.finish(place, 30 * SECOND));
    check_repaired(&world, &dead, [3, 4]);
}

/// A node is part of the cluster before it holds its members: whoever stopped the next one then, in memory, lost all groups.
#[test]
fn nodes_in_memory_are_killed_one_after_the_other_as_soon_as_the_cluster_is_whole_and_nothing_is_lost() {
    for seed in 670..674 {
        let mut world = World::formed(seed, 3);
        world.add_groups(&world.fleet(0), 6);
        for round in 0..6 {
            let place = round % 3;
            let fleet = world.fleet(place);
            world.run(async move { fleet.wait_until_whole(60 * SECOND).await }).expect("it is whole in time");
            world.kill(place);
            let other = world.fleet((place + 1) % 3);
            let told = other.clone();
            let early = world.run(async move { told.wait_until_whole(SECOND / 2).await });
            assert!(matches!(early, Err(FleetError::Timeout { .. })), "seed {seed}: {early:?}");
            for group in 0..6 {
                let other = other.clone();
                let reply = world.run(async move {
                    let options = CallOptions::default().with_timeout(20 * SECOND);
                    other.command(&name(group), 0, encode(&1_u64), &options).await.expect("two are left")
                });
                assert_eq!(postcard::from_bytes(&reply), Ok(round as u64 + 1), "seed {seed}");
            }
            world.restart(place);
        }
    }
}
