//! Copies and old backups of a node's directory: whichever is started first is the node, and no other ever is again.

use std::time::Duration;

use crate::support::{MS, SECOND, World, address, count_up, members, name, read};
use raft_fleet::rafted_value::sim::SimDisk;
use raft_fleet::rafted_value::{Command, SessionId};
use raft_fleet::{CLUSTER_GROUP, ClusterCommand, FleetError, Life, NodeId, NodeInfo, encode};

/// What `cp -r` makes of the directory at a place.
fn copy(world: &World, place: usize) -> SimDisk {
    let copy = SimDisk::new(world.sim.rng());
    world.disks[place].files().into_iter().for_each(|(file, bytes)| copy.put(&file, Some(bytes)));
    copy
}

/// Starts the node of a place on another disk, which must be refused, and puts its own back.
fn refuse(world: &mut World, place: usize, disk: SimDisk, node: NodeId, last: u64, known: u64) {
    let original = std::mem::replace(&mut world.disks[place], disk);
    world.begin(place);
    let refused = world.try_finish(place, 60 * SECOND).expect("it ends").map(drop).expect_err("it is a copy");
    let directory = world.disks[place].disk().place();
    assert_eq!(refused, FleetError::Copied { directory: directory.clone(), node, last, known });
    let said = refused.to_string();
    for part in [directory, node.to_string(), format!("life {last}"), format!("life {known}")] {
        assert!(said.contains(&part), "{said} says nothing of {part}");
    }
    world.kill(place);
    world.disks[place] = original;
}

fn lives(world: &World, place: usize, node: NodeId) -> u64 {
    world.fleet(place).cluster().lives()[&node].number
}

#[test]
fn a_copy_that_is_started_after_the_original_has_gone_on_is_refused_unopened_wherever_it_is() {
    for (seed, elsewhere) in [(1400, false), (1401, true), (1402, true)] {
        let mut world = World::formed_on_disks(seed, 3);
        world.add_groups(&world.fleet(0), 2);
        let node = world.id(2);
        let before = members(&world, 2);
        world.lose_power(2);
        let backup = copy(&world, 2);
        world.restart(2);
        assert_eq!(world.run(count_up(world.fleet(2), name(0), 10, MS)).applied, 10);
        world.until(SECOND, "all know of its life", |world| {
            (0..3).all(|place| lives(world, place, node) == 2)
        });
        world.lose_power(2);

        if elsewhere {
            world.moved.insert(2, "elsewhere:7".into());
        }
        let files = backup.files();
        refuse(&mut world, 2, backup.clone(), node, 1, 2);
        assert_eq!(backup.files(), files, "nothing in it was opened");
        assert_eq!(world.fleet(0).cluster().nodes()[&node].address, address(2), "nobody was led astray");
        assert_eq!(world.run(count_up(world.fleet(0), name(1), 10, MS)).applied, 10);

        world.moved.clear();
        world.restart(2);
        assert_eq!((world.id(2), members(&world, 2)), (node, before), "seed {seed}");
        world.until(SECOND, "all know of its life", |world| {
            (0..3).all(|place| lives(world, place, node) == 3)
        });
        world.until(10 * SECOND, "all groups are whole", |world| world.is_whole(2, 3));
        assert_eq!(world.run(read(world.fleet(2), name(0))), 10);
        // Nor is it later, when more lives have passed.
        world.lose_power(2);
        refuse(&mut world, 2, backup, node, 1, 3);
    }
}

/// Nobody can tell which of the two is the copy, and nothing was lost yet.
#[test]
fn of_a_directory_that_was_copied_at_rest_the_first_to_be_started_is_the_node() {
    let mut world = World::formed_on_disks(1410, 3);
    world.add_groups(&world.fleet(0), 2);
    assert_eq!(world.run(count_up(world.fleet(0), name(0), 10, MS)).applied, 10);
    let (node, before) = (world.id(1), members(&world, 1));
    world.lose_power(1);
    let original = world.disks[1].clone();
    world.disks[1] = copy(&world, 1);
    world.moved.insert(1, "elsewhere:7".into());
    world.restart(1);
    assert_eq!((world.id(1), members(&world, 1)), (node, before));
    world.until(10 * SECOND, "all groups are whole", |world| world.is_whole(2, 3));

    world.lose_power(1);
    world.moved.clear();
    refuse(&mut world, 1, original, node, 1, 2);
    world.moved.insert(1, "elsewhere:7".into());
    world.restart(1);
    assert_eq!(world.run(read(world.fleet(1), name(0))), 10);
}

/// The cluster group has no leader yet that could tell, and the copy is one of those that are to elect one.
#[test]
fn a_copy_that_is_started_with_the_whole_cluster_is_refused_once_that_is_back() {
    for seed in 1420..1426 {
        let mut world = World::formed_on_disks(seed, 3);
        world.add_groups(&world.fleet(0), 2);
        let node = world.id(2);
        world.lose_power(2);
        let backup = copy(&world, 2);
        world.restart(2);
        assert_eq!(world.run(count_up(world.fleet(2), name(0), 10, MS)).applied, 10);
        world.until(10 * SECOND, "all groups are whole", |world| world.is_whole(2, 3));
        (0..3).for_each(|place| world.lose_power(place));
        (0..2).for_each(|place| world.begin(place));
        refuse(&mut world, 2, backup, node, 1, 2);
        (0..2).for_each(|place| world.finish(place, 30 * SECOND));
        world.restart(2);
        world.until(10 * SECOND, "all groups are whole", |world| world.is_whole(2, 3));
        assert_eq!(world.run(read(world.fleet(1), name(0))), 10, "seed {seed}");
    }
}

/// Without a leader nobody can tell, and as soon as there is one the copy ends.
#[test]
fn a_copy_that_came_back_without_a_leader_ends_once_there_is_one() {
    for seed in 1480..1484 {
        let mut world = World::formed_on_disks(seed, 3);
        world.add_groups(&world.fleet(0), 1);
        let node = world.id(2);
        world.lose_power(2);
        let backup = copy(&world, 2);
        world.restart(2);
        world.until(10 * SECOND, "all groups are whole", |world| world.is_whole(1, 3));
        (0..3).for_each(|place| world.lose_power(place));
        let original = std::mem::replace(&mut world.disks[2], backup);
        world.begin_without_leader(2);
        world.finish(2, 10 * SECOND);
        let copied = world.fleet(2);
        assert_eq!(lives(&world, 2, node), 1, "as its directory has it");
        (0..2).for_each(|place| world.begin(place));
        (0..2).for_each(|place| world.finish(place, 30 * SECOND));
        world.until(10 * SECOND, "it ends", |world| {
            let copied = copied.clone();
            world.run(async move { copied.host().expect("a full node").statuses().await }).is_empty()
        });
        world.lose_power(2);
        world.disks[2] = original;
        world.restart(2);
        assert_eq!(lives(&world, 2, node), 3, "seed {seed}");
        world.until(10 * SECOND, "all groups are whole", |world| world.is_whole(1, 3));
    }
}

#[test]
fn a_backup_of_a_node_that_was_purged_since_is_refused_and_the_newest_directory_is_taken_in() {
    let mut world = World::formed_on_disks(1430, 4);
    world.add_groups(&world.fleet(0), 2);
    let node = world.id(3);
    world.lose_power(3);
    let backup = copy(&world, 3);
    world.restart(3);
    world.lose_power(3);
    world.until(30 * SECOND, "it is purged", |world| !world.fleet(0).cluster().nodes().contains_key(&node));
    refuse(&mut world, 3, backup, node, 1, 2);
    assert!(!world.fleet(0).cluster().nodes().contains_key(&node), "it was not taken in");
    world.restart(3);
    assert_eq!(lives(&world, 3, node), 3);
    assert!(world.fleet(3).cluster().nodes()[&node].active);
}

/// A start that the cluster took in and the directory did not hear of is no other copy's.
#[test]
fn a_node_that_dies_at_any_moment_of_its_starts_is_no_copy_of_itself() {
    for seed in 1440..1460 {
        let mut world = World::formed_on_disks(seed, 3);
        let mut rng = world.sim.rng();
        world.add_groups(&world.fleet(0), 1);
        let node = world.id(2);
        world.lose_power(2);
        for _ in 0..6 {
            world.begin(2);
            world.sim.run_for(Duration::from_millis(rng.next_u64() % 400));
            world.lose_power(2);
        }
        world.restart(2);
        assert_eq!(world.id(2), node, "seed {seed}");
        world.until(10 * SECOND, "all groups are whole", |world| world.is_whole(1, 3));
    }
}

#[test]
fn nodes_without_directories_have_no_lives() {
    let mut world = World::formed(1460, 3);
    world.kill(2);
    world.restart(2);
    assert!(world.fleet(0).cluster().lives().is_empty());
}

/// It was cut off, or stopped for a while, when another process was started on a copy of its directory: what it holds is no
/// longer the node's.
#[test]
fn a_node_that_learns_of_a_next_life_of_its_own_in_another_process_ends() {
    let mut world = World::formed_on_disks(1470, 3);
    world.add_groups(&world.fleet(0), 1);
    let victim = world.fleet(2);
    let (node, state) = (victim.node(), victim.cluster());
    let from = state.lives()[&node];
    let life = Life { number: from.number + 1, mark: from.mark ^ 1 };
    let entry = &state.nodes()[&node];
    let info =
        NodeInfo { node, name: entry.name.clone(), zone: entry.zone.clone(), address: entry.address.clone() };
    let cluster = state.cluster().expect("it is formed");
    let join = ClusterCommand::JoinInLife { node: info, cluster, from: Some(from), life };
    let leader = world.leaders()[&CLUSTER_GROUP].0;
    let place = (0..3).find(|place| world.id(*place) == leader).expect("a node leads");
    let host = world.fleet(place).host().expect("a full node").clone();
    let now_ms = world.nodes[place].env.clone();
    let command = Command {
        session: SessionId::new(0, 77),
        sequence: 1,
        acknowledged: 1,
        retry_until_ms: raft_fleet::rafted_value::env::Env::wall_ms(now_ms.as_ref()) + 60_000,
        key_hash: 0,
        payload: encode(&join),
    };
    world.run(async move { host.command(CLUSTER_GROUP, command, SECOND).await.expect("it leads") });
    world.until(10 * SECOND, "it ends", |world| {
        let fleet = world.fleet(2);
        world.run(async move { fleet.host().expect("a full node").statuses().await }).is_empty()
    });
    world.lose_power(2);
    let disk = world.disks[2].clone();
    refuse(&mut world, 2, disk, node, 1, 2);
}
