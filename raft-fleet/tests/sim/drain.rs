//! Nodes that are emptied before they stop: nobody notices.

use std::time::Duration;

use crate::support::{Counter, MS, SECOND, World, count_up, name, read};
use futures_util::future::join_all;
use raft_fleet::{CLUSTER_GROUP, Data, DrainStatus, Fleet, FleetError, GroupConfig, Presence};

fn drain_status(world: &World, place: usize) -> DrainStatus {
    let fleet = world.fleet(place);
    world.run(async move { fleet.drain_status().await.expect("a node") })
}

#[test]
fn a_deactivated_node_gives_its_leaders_away_first_and_ends_empty() {
    for seed in 0..4 {
        let world = World::formed(600 + seed, 4);
        world.add_groups(&world.fleet(0), 12);
        let (node, place) = (world.id(1), 1);
        world.until(10 * SECOND, "it leads something", |world| drain_status(world, place).leaders_left > 0);
        let before = drain_status(&world, place);
        assert!(before.active && !before.is_safe_to_stop() && before.members_left > before.leaders_left);

        let fleet = world.fleet(place);
        world.run(async move { fleet.deactivate().await.expect("it was active") });
        assert_eq!(world.fleet(place).presence(), Presence::Inactive);
        let mut seen = vec![drain_status(&world, place)];
        world.until(30 * SECOND, "the node is empty", |world| {
            seen.push(drain_status(world, place));
            seen.last().unwrap().is_safe_to_stop()
        });
        let led: Vec<usize> = seen.iter().map(|status| status.leaders_left).collect();
        assert!(led.is_sorted_by(|a, b| a >= b), "seed {seed}: leaderships came back: {seen:?}");
        assert!(
            seen.iter().any(|status| status.leaders_left == 0 && status.members_left > 0),
            "seed {seed}: {seen:?}"
        );
        for (group, (leader, voters, _)) in world.leaders() {
            assert!(leader != node && !voters.contains(&node) && voters.len() == 3, "seed {seed}: {group}");
        }
    }
}

#[test]
fn an_inactive_node_is_a_client_and_can_be_activated_again_in_another_zone() {
    let world = World::formed(610, 3);
    world.add_groups(&world.fleet(0), 4);
    let (node, fleet) = (world.id(2), world.fleet(2));
    let told = world.run(async move {
        assert_eq!(fleet.activate("zone-2").await, Err(FleetError::NotInactive));
        assert_eq!(fleet.drained(SECOND).await, Err(FleetError::NotInactive));
        fleet.deactivate().await.expect("it was active");
        assert_eq!(fleet.deactivate().await, Err(FleetError::Inactive));
        fleet.drained(30 * SECOND).await.expect("it is empty in time");
        let active = fleet.active_nodes().await.unwrap();
        assert!(!active.contains_key("zone-2") && active.len() == 2, "{active:?}");
        count_up(fleet, name(1), 5, MS).await
    });
    assert_eq!(told.applied, 5);
    assert_eq!(world.run(read(world.fleet(2), name(1))), 5);

    let fleet = world.fleet(2);
    let zones = world.run(async move {
        fleet.activate("zone 9").await.unwrap_err();
        fleet.activate("zone-9").await.unwrap();
        fleet.active_nodes().await.unwrap()
    });
    assert_eq!(zones["zone-9"], [node]);
    world.until(30 * SECOND, "its members are back", |world| world.is_whole(4, 3));
    assert!(world.leaders()[&CLUSTER_GROUP].1.contains(&node));
}

/// The node would never be empty, and must not say that it is.
#[test]
fn the_last_active_node_keeps_its_members_and_says_so() {
    let world = World::formed(611, 1);
    world.add_groups(&world.fleet(0), 2);
    let fleet = world.fleet(0);
    let error = world.run(async move {
        fleet.deactivate().await.expect("it was active");
        fleet.drained(5 * SECOND).await.unwrap_err()
    });
    let expected = "the drain of a node with 3 leaders and 3 members left took longer than 5s";
    assert_eq!(error.to_string(), expected);
    assert_eq!(world.run(count_up(world.fleet(0), name(0), 3, MS)).applied, 3);
}

#[test]
fn a_client_is_no_node_that_could_be_active() {
    let mut world = World::formed(612, 1);
    let (_env, client) = world.client("client");
    assert_eq!(client.presence(), Presence::Client);
    let refused = world.run(async move { (client.activate("z").await, client.drain_status().await) });
    assert_eq!(refused, (Err(FleetError::NotANode), Err(FleetError::NotANode)));
}

/// Two nodes of four go at the same time, under load.
#[test]
fn nodes_that_are_drained_at_the_same_time_end_empty_and_no_command_is_lost() {
    for seed in 650..654 {
        let mut world = World::formed(seed, 4);
        world.add_groups(&world.fleet(0), 6);
        let (client_env, client) = world.client("client");
        let tasks: Vec<_> = (0..6)
            .map(|group| world.sim.spawn_on(&client_env, count_up(client.clone(), name(group), 500, 10 * MS)))
            .collect();
        world.sim.run_for(SECOND);
        let leaving = [world.fleet(1), world.fleet(2)];
        world.run(async move {
            let deactivated = join_all(leaving.iter().map(Fleet::deactivate)).await;
            assert_eq!(deactivated, [Ok(()), Ok(())]);
            let drained = join_all(leaving.iter().map(|fleet| fleet.drained(30 * SECOND))).await;
            assert_eq!(drained, [Ok(()), Ok(())]);
        });
        world.stop(1);
        world.stop(2);
        for task in tasks {
            let told = world.sim.run_until(60 * SECOND, task).flatten().expect("the client ends");
            assert_eq!((told.applied, told.not_applied, told.unknown), (500, 0, 0), "seed {seed}");
            assert!(told.slowest < 300 * MS, "seed {seed}: {:?}", told.slowest);
        }
        world.until(30 * SECOND, "two hold all", |world| world.is_whole(6, 2));
    }
}

/// Nobody is left to take what the last of them holds, whichever that is.
#[test]
fn nodes_that_are_all_drained_at_the_same_time_keep_what_the_last_of_them_holds() {
    for seed in 660..664 {
        let world = World::formed(seed, 3);
        world.add_groups(&world.fleet(0), 4);
        assert_eq!(world.run(count_up(world.fleet(0), name(1), 5, MS)).applied, 5);
        let leaving: Vec<Fleet> = (0..3).map(|place| world.fleet(place)).collect();
        let all = leaving.clone();
        world.run(async move {
            let deactivated = join_all(leaving.iter().map(Fleet::deactivate)).await;
            assert_eq!(deactivated, [Ok(()), Ok(()), Ok(())]);
            let drained = join_all(leaving.iter().map(|fleet| fleet.drained(10 * SECOND))).await;
            assert!(drained.iter().any(Result::is_err), "seed {seed}: somebody must hold it all");
            let (config, data) = (GroupConfig::default(), Counter::NAME);
            let added = leaving[1].add_group(name(7), data, 3, config).await;
            assert_eq!(added, Err(FleetError::NoActiveNode), "seed {seed}");
        });
        assert_eq!(world.run(read(world.fleet(2), name(1))), 5, "seed {seed}");
        world.run(async move {
            for (place, fleet) in all.iter().enumerate() {
                fleet.activate(&format!("zone-{place}")).await.expect("it was inactive");
            }
        });
        world.until(60 * SECOND, "all is whole", |world| world.is_whole(4, 3));
        assert_eq!(world.run(read(world.fleet(2), name(1))), 5, "seed {seed}");
    }
}

/// A client was once redirected to a node that was so new that nobody had told it the node's address.
///
/// All nodes are restarted one after the other while clients count on every group. Each reply must be the next number;
/// the longest wait is that of one transfer, where an election would take 600 ms at least.
fn check_rolling_restart(mut world: World, seed: u64) {
    world.add_groups(&world.fleet(0), 4);
    let (client_env, client) = world.client("client");
    let tasks: Vec<_> = (0..4)
        .map(|group| world.sim.spawn_on(&client_env, count_up(client.clone(), name(group), 1500, 10 * MS)))
        .collect();
    world.sim.run_for(SECOND);
    for place in 0..3 {
        let fleet = world.fleet(place);
        world.run(async move {
            fleet.deactivate().await.expect("it was active");
            fleet.drained(30 * SECOND).await.expect("it is empty in time");
        });
        world.stop(place);
        world.sim.run_for(SECOND / 2);
        world.restart(place);
        world.until(30 * SECOND, "it is whole again", |world| world.is_whole(4, 3));
    }
    let busy = world.sim.elapsed();
    let mut slowest = Duration::ZERO;
    for task in tasks {
        let told = world.sim.run_until(120 * SECOND, task).flatten().expect("the client ends");
        assert_eq!((told.applied, told.not_applied, told.unknown), (1500, 0, 0), "seed {seed}");
        slowest = slowest.max(told.slowest);
    }
    assert!(world.sim.elapsed() > busy, "the load went on through all restarts");
    assert!(slowest < 150 * MS, "seed {seed}: {slowest:?}");
}

#[test]
fn a_rolling_restart_in_memory_loses_no_command_and_shows_no_outage_above_a_transfer() {
    for seed in 620..624 {
        check_rolling_restart(World::formed(seed, 3), seed);
    }
}

#[test]
fn a_rolling_restart_on_disks_loses_no_command_and_shows_no_outage_above_a_transfer() {
    for seed in 630..634 {
        check_rolling_restart(World::formed_on_disks(seed, 3), seed);
    }
}

#[test]
fn a_group_of_one_member_moves_without_an_outage_above_a_transfer() {
    for seed in 640..648 {
        let mut world = World::formed(seed, 3);
        let fleet = world.fleet(0);
        world.run(async move {
            fleet.add_group(name(0), Counter::NAME, 1, GroupConfig::default()).await.unwrap()
        });
        let id = world.fleet(0).cluster().groups()[&name(0)].id;
        let holder = world.leaders()[&id].0;
        let place = (0..3).find(|place| world.id(*place) == holder).unwrap();
        let (client_env, client) = world.client("client");
        let task = world.sim.spawn_on(&client_env, count_up(client, name(0), 300, 10 * MS));
        world.sim.run_for(SECOND);
        let fleet = world.fleet(place);
        world.run(async move {
            fleet.deactivate().await.expect("it was active");
            fleet.drained(30 * SECOND).await.expect("it is empty in time");
        });
        world.stop(place);
        let told = world.sim.run_until(60 * SECOND, task).flatten().unwrap();
        assert_eq!((told.applied, told.unknown), (300, 0), "seed {seed}");
        assert!(told.slowest < 150 * MS, "seed {seed}: {:?}", told.slowest);
    }
}
