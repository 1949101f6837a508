//! Many seeds of everything at once: deaths, restarts, cuts and groups that come, under load.

mod support;

use std::time::Duration;

use support::{MS, SECOND, Told, World, name, read};

/// Nodes die and come back, and networks are cut, while clients count; then all is healed. Each count is exact: as much
/// as was told, or at most more by what nobody knows.
fn check(seed: u64) {
    let mut world = World::formed(seed, 3);
    let mut rng = world.sim.rng();
    world.add_groups(&world.fleet(0), 4);
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
