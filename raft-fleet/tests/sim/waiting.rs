//! Nodes and clients that find no cluster: they end with an error that says what they saw.

use crate::support::{SECOND, World, address, name};
use raft_fleet::{CallOptions, Fleet, FleetConfig, FleetError, Registry};
use rafted_value::{Freshness, encode};

/// What a node says that gave up.
fn gave_up(world: &mut World, place: usize) -> String {
    let result = world.try_finish(place, 60 * SECOND).expect("it ends");
    let error = result.map(drop).expect_err("there is no cluster");
    assert!(matches!(error, FleetError::NotPartOfACluster { .. }), "{error}");
    error.to_string()
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(error.contains(part), "{part:?} is not in {error:?}"));
}

fn impatient(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, count);
    world.config.formation_wait = 20 * SECOND;
    world
}

/// It once waited for ever, and said how many it had seen at a level that nobody looks at.
#[test]
fn a_node_that_lacks_others_gives_up_and_says_who_was_there() {
    let mut world = impatient(51, 3);
    world.begin(0);
    world.begin(1);
    let error = gave_up(&mut world, 0);
    says(&error, &["in 20s", "2 of the 3 nodes of bootstrap_expect are seen", "host-1:1 is node \"node-1\""]);
    says(&error, &["host-2:1 has nobody for us: "]);
    assert!(world.sim.elapsed() >= 20 * SECOND);
}

#[test]
fn nodes_that_expect_different_numbers_say_so() {
    let mut world = impatient(52, 2);
    world.begin(0);
    world.config.bootstrap_expect = 3;
    world.begin(1);
    let errors = [gave_up(&mut world, 0), gave_up(&mut world, 1)];
    // The one with the lower id proposes or does not, as the seed has it; each has something to say.
    assert!(
        errors.iter().any(|error| error.contains("another number of nodes") || error.contains("expects"))
    );
    says(&errors[0], &["2 of the 2 nodes of bootstrap_expect are seen"]);
    says(&errors[1], &["2 of the 3 nodes of bootstrap_expect are seen"]);
}

/// They once formed a cluster in which two nodes had one name, and neither could ever come back.
#[test]
fn nodes_of_one_name_form_no_cluster_and_say_who_they_are() {
    let mut world = impatient(54, 3);
    world.names.insert(2, "node-1".into());
    (0..3).for_each(|place| world.begin(place));
    for place in 0..3 {
        let error = gave_up(&mut world, place);
        says(&error, &["are both named \"node-1\"", "host-1:1", "host-2:1"]);
    }
}

#[test]
fn a_zone_that_cannot_be_is_refused_before_anything_is_done() {
    let mut world = World::new(55, 1);
    let long = "z".repeat(10_000);
    for (zone, expected) in [
        ("rack 1", "the zone holds the character ' ' at byte 4"),
        ("", "the zone is empty"),
        (long.as_str(), "the zone has 10000 bytes, over the limit of 255"),
    ] {
        let env = world.sim.start_node("node", "host:1");
        let (door, config) = (env.clone(), FleetConfig { zone: zone.into(), ..FleetConfig::default() });
        let start = async move { Fleet::start(door, config, Registry::new()).await };
        let error = world.sim.run_until(SECOND, world.sim.spawn_on(&env, start)).flatten().expect("at once");
        let error = error.map(drop).unwrap_err().to_string();
        assert_eq!(error, format!("the configuration cannot work: {expected}"));
        world.sim.kill(&env);
    }
    world.begin(0);
    world.finish(0, SECOND);
}

#[test]
fn founders_whose_others_died_at_the_worst_moment_give_up() {
    for seed in 60..64 {
        let mut world = impatient(seed, 3);
        (0..3).for_each(|place| world.begin(place));
        world.sim.run_for(SECOND / 4);
        world.kill(1);
        world.kill(2);
        gave_up(&mut world, 0);
    }
}

/// It once said only how many seeds there were.
#[test]
fn a_client_that_finds_no_cluster_says_what_was_at_each_seed() {
    let mut world = impatient(53, 3);
    world.begin(0);
    let env = world.sim.start_node("client", "client:1");
    let (door, config) = (env.clone(), world.config.clone());
    let connect = world.sim.spawn_on(&env, async move { Fleet::connect(door, config).await });
    let error = world.sim.run_until(60 * SECOND, connect).flatten().expect("it ends").map(drop).unwrap_err();
    let error = error.to_string();
    let alive = format!("{} is node \"node-0\": it did not tell of a cluster", address(0));
    says(&error, &["none of 3 seeds told", "in 30s: ", &alive, "host-1:1 has nobody for us: "]);
}

/// It once waited for every seed as long as for one that answers nothing, and then asked that node first for each group.
#[test]
fn a_client_waits_for_no_seed_that_does_not_answer_once_another_has() {
    let mut world = World::formed(55, 3);
    world.add_groups(&world.fleet(0), 8);
    world.sim.pause(&world.nodes[2].env.clone());
    // Until the others lead what it led.
    world.sim.run_for(20 * SECOND);
    let began = world.sim.elapsed();
    let (_, client) = world.client("client");
    let connected = world.sim.elapsed() - began;
    assert!(connected < world.config.hello_timeout, "{connected:?}");
    world.run(async move {
        for group in (0..8).map(name) {
            let answer = client.query(&group, Freshness::Latest, encode(&()), &CallOptions::default()).await;
            answer.expect("the others lead it");
        }
    });
    let took = world.sim.elapsed() - began - connected;
    // A node to which there is no connection is waited for as long as a retry; it is asked for no group first.
    assert!(took < CallOptions::default().retry_interval, "eight groups answered after {took:?}");
}
