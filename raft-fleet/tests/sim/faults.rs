//! Many seeds of everything at once: deaths, restarts, cuts and groups that come, under load.

use std::time::Duration;

use crate::support::{self, MS, SECOND, Told, World, name, read};
use raft_fleet::rafted_value::sim::NetConfig;

/// Nodes die and come back, and networks are cut, while clients count; then all is healed. Each count is exact: as much
/// as was told, or at most more by what nobody knows.
fn check(seed: u64) {
    let mut world = World::formed(seed, 3);
    let mut rng = world.sim.rng();
    world.add_groups(&world.fleet(0), 4);
    if seed.is_multiple_of(2) {
        // A network that keeps less than a QUIC connection does.
        let config = world.sim.net_config();
        world.sim.set_net_config(NetConfig { loss: 0.01, duplication: 0.01, reordering: 0.02, ..config });
    }
    let (client_env, client) = world.client("client");
    let tasks: Vec<_> = (0..4)
        .map(|group| {
            world.sim.spawn_on(&client_env, support::count_loosely(client.clone(), name(group), 300, 20 * MS))
        })
        .collect();
    for _ in 0..6 {
        world.sim.run_for(Duration::from_millis(rng.next_u64() % 1500));
        let place = (rng.next_u64() % 3) as usize;
        match rng.next_u64() % 3 {
            0 => {
                world.kill(place);
                world.sim.run_for(Duration::from_millis(rng.next_u64() % 3000));
                world.restart(place);
                // Another death before the group is whole would be a majority lost.
                world.until(60 * SECOND, "whole after a restart", |world| world.is_whole(4, 3));
            }
            1 => {
                world.sim.pause(&world.nodes[place].env);
                world.sim.run_for(Duration::from_millis(rng.next_u64() % 3000));
                world.sim.resume(&world.nodes[place].env);
            }
            _ => {
                let others: Vec<String> =
                    (0..3).filter(|other| *other != place).map(support::address).collect();
                world.sim.partition(&[support::address(place)], &others);
                world.sim.run_for(Duration::from_millis(rng.next_u64() % 3000));
                world.sim.heal();
            }
        }
    }
    let told: Vec<Told> = tasks
        .into_iter()
        .map(|task| world.sim.run_until(300 * SECOND, task).flatten().expect("the client ends"))
        .collect();
    world.until(60 * SECOND, "all groups are whole in the end", |world| world.is_whole(4, 3));
    for (group, told) in told.into_iter().enumerate() {
        let count = world.run(read(client.clone(), name(group)));
        let range = told.applied..=told.applied + told.unknown;
        assert!(range.contains(&count), "seed {seed}, group {group}: {count} of {told:?}");
    }
}

#[test]
fn no_fault_loses_or_doubles_a_command() {
    let seeds = std::env::var("RAFT_FLEET_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    for seed in 1000..1000 + seeds {
        check(seed);
    }
}

/// Nodes start at different times, one dies and starts again while they form, and networks are cut: in the end all are
/// in one cluster, and it works.
fn check_formation(seed: u64) {
    let mut world = World::new(seed, 3);
    let mut rng = world.sim.rng();
    for place in 0..3 {
        world.begin(place);
        world.sim.run_for(Duration::from_millis(rng.next_u64() % 600));
    }
    let cut = (rng.next_u64() % 3) as usize;
    let others: Vec<String> = (0..3).filter(|other| *other != cut).map(support::address).collect();
    world.sim.partition(&[support::address(cut)], &others);
    world.sim.run_for(Duration::from_millis(rng.next_u64() % 3000));
    world.sim.heal();
    world.sim.run_for(Duration::from_millis(rng.next_u64() % 800));
    let victim = (rng.next_u64() % 3) as usize;
    world.kill(victim);
    world.sim.run_for(Duration::from_millis(rng.next_u64() % 3000));
    world.begin(victim);
    (0..3).for_each(|place| world.finish(place, 60 * SECOND));
    let cluster = world.fleet(0).cluster().cluster();
    for place in 0..3 {
        assert_eq!(world.fleet(place).cluster().cluster(), cluster, "seed {seed}");
    }
    world.until(60 * SECOND, "the cluster group is whole", |world| world.is_whole(0, 3));
    world.add_groups(&world.fleet(1), 1);
    let told = world.run(support::count_up(world.fleet(2), name(0), 3, MS));
    assert_eq!(told.applied, 3, "seed {seed}");
}

#[test]
fn nodes_form_one_cluster_whenever_one_of_them_dies() {
    let seeds = std::env::var("RAFT_FLEET_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    for seed in 2000..2000 + seeds {
        check_formation(seed);
    }
}
