//! What somebody tries who means no good, or does not know better: each is refused with an error that says why, or does what
//! it says, and what others do goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{Counter, MS, SECOND, World, address, count_up, name, read};
use raft_fleet::rafted_value::sim::SimTask;
use raft_fleet::rafted_value::transport::ClusterId;
use raft_fleet::{
    CallOptions, CommandError, Data, Fleet, FleetConfig, FleetError, Freshness, GroupConfig, GroupName,
    HostConfig, NameError, NodeId, NotApplied, QueryError, Registry, encode,
};

/// Adds a group of counters, which must go well.
fn add(world: &World, fleet: Fleet, group: GroupName, replicas: usize) {
    let config = GroupConfig::default();
    world.run(async move {
        fleet.add_group(group, Counter::NAME, replicas, config).await.expect("it is added");
    });
}

/// Intervals that never end and limits that are never reached leave only what is done at once.
#[test]
fn settings_at_their_upper_ends_do_no_harm() {
    let forever = Duration::MAX;
    let mut world = World::new(1500, 3);
    world.config = FleetConfig {
        adjustments_max: usize::MAX,
        snapshots_max: usize::MAX,
        snapshot_bytes_per_second_max: Some(u64::MAX),
        adjustment_wait_max: forever,
        leader_home_wait: forever,
        founding_wait: forever,
        failure_window: forever,
        add_group_wait: forever,
        formation_wait: forever,
        formation_report_interval: forever,
        connect_wait: forever,
        calls_max: usize::MAX,
        session_waiting_max: usize::MAX,
        hello_timeout: 10 * SECOND,
        seen_max: forever,
        proposal_max: forever,
        renounce_after: forever,
        addresses_max: usize::MAX,
        cluster_members_max: u32::MAX,
        call: CallOptions {
            timeout: forever,
            attempt_timeout: 10 * SECOND,
            retry_margin: forever,
            ..CallOptions::default()
        },
        host: HostConfig {
            loops: 2,
            turn_inputs_max: 65_536,
            entry_commands_max: 16_384,
            entry_bytes_max: 1 << 20,
            group_waiting_max: 1 << 20,
            uninitialised_max: 24 * 3600 * SECOND,
            snapshot_retry: 3600 * SECOND,
            quiet_after: forever,
            quiet_max: 3600 * SECOND,
            handover_max: 3600 * SECOND,
            ..HostConfig::default()
        },
        ..world.config
    };
    (0..3).for_each(|place| world.begin(place));
    (0..3).for_each(|place| world.finish(place, 30 * SECOND));
    add(&world, world.fleet(0), name(0), 3);
    assert_eq!(world.run(count_up(world.fleet(1), name(0), 10, MS)).applied, 10);
    let (_env, client) = world.client("client");
    assert_eq!(world.run(read(client, name(0))), 10);
    world.stop(2);
    assert_eq!(world.run(read(world.fleet(0), name(0))), 10);
}

#[test]
fn a_thousand_replicas_mean_one_on_each_node() {
    let world = World::formed(1510, 3);
    add(&world, world.fleet(0), name(0), 1000);
    add(&world, world.fleet(0), name(1), usize::MAX);
    world.until(10 * SECOND, "all have three members", |world| world.is_whole(2, 3));
    assert_eq!(world.run(count_up(world.fleet(1), name(1), 10, MS)).applied, 10);
}

/// Slashes and spaces mean nothing to a name, whatever it is used for below; what is no name never becomes one.
#[test]
fn a_name_is_taken_as_it_is_or_not_at_all() {
    let world = World::formed_on_disks(1520, 3);
    let odd = ["../../etc/passwd", "/", ".", " a b ", "\u{202e}esrever", "*"];
    for odd in odd {
        let odd = GroupName::new(odd).expect("odd, but a name");
        add(&world, world.fleet(0), odd.clone(), 3);
        assert_eq!(world.run(count_up(world.fleet(1), odd.clone(), 2, MS)).applied, 2, "{odd:?}");
    }
    assert_eq!(world.fleet(2).cluster().groups().len(), odd.len());
    let files: BTreeSet<String> = world.disks.iter().flat_map(|disk| disk.files().into_keys()).collect();
    assert!(files.iter().all(|file| !file.contains("..") && !file.contains("passwd")), "{files:?}");
    for (bad, at) in [("a\0b", 1), ("\n", 0), ("tab\t", 3), ("\u{85}", 0)] {
        let refused = GroupName::new(bad).expect_err("it is no name");
        assert!(matches!(refused, NameError::Character { at: found, .. } if found == at), "{refused}");
    }
}

/// All that has a name or a number of its own, with ones that mean nothing: nothing changes.
#[test]
fn operators_that_ask_for_what_is_not_there_are_told_and_change_nothing() {
    let world = World::formed(1530, 3);
    world.add_groups(&world.fleet(0), 1);
    let (fleet, other) = (world.fleet(0), world.id(1));
    let revision = fleet.cluster().revision();
    let asked = fleet.clone();
    world.run(async move {
        let fleet = asked;
        let said = |result: Result<(), FleetError>| result.expect_err("it cannot be").to_string();
        let nowhere = NodeId(12345);
        assert_eq!(said(fleet.set_weight(nowhere, 2).await), "the cluster refused: no node n3039 is listed");
        for weight in [0, 65, u32::MAX] {
            let expected =
                format!("the cluster refused: a weight of {weight} is not in the range from 1 to 64");
            assert_eq!(said(fleet.set_weight(other, weight).await), expected);
        }
        let unknown = Err(FleetError::NoSuchGroup { name: name(7) });
        assert_eq!(fleet.remove_group(&name(7)).await, unknown);
        assert_eq!(fleet.delete_group(&name(7)).await, unknown);
        assert_eq!(fleet.pin_group(&name(7), ["zone-0"]).await, unknown);
        assert_eq!(fleet.await_group(&name(7)).await.map(drop), unknown);
        assert_eq!(fleet.whereis_leader(&name(7)).await.map(drop), unknown);
        assert_eq!(
            said(fleet.pin_group(&name(0), ["a b"]).await),
            "the zone holds the character ' ' at byte 1"
        );
        let zones: Vec<String> = (0..65).map(|zone| format!("z{zone}")).collect();
        let pinned = fleet.pin_group(&name(0), zones.iter().map(String::as_str)).await;
        assert_eq!(
            said(pinned),
            "the cluster refused: a group cannot be pinned to 65 zones; the limit is 64"
        );
        let config = GroupConfig::default();
        let nowhere = fleet.add_pinned_group(name(1), Counter::NAME, 3, config, ["no-zone"]).await;
        assert_eq!(nowhere.map(drop), Err(FleetError::NoActiveNode));
        assert_eq!(fleet.activate("zone-0").await, Err(FleetError::NotInactive));
        assert_eq!(fleet.activate("").await, Err(FleetError::Name(NameError::Empty { what: "zone".into() })));
        let (itself, living) = (fleet.node(), other);
        for nodes in [vec![itself], vec![living], vec![living, itself]] {
            let plan = fleet.plan_removal(&nodes).await;
            assert_eq!(fleet.remove_dead_members(&plan).await, Err(FleetError::NodeAlive(plan.nodes[0])));
        }
        let options = CallOptions::default();
        let command = fleet.command(&name(7), 0, encode(&1_u64), &options).await;
        assert_eq!(command, Err(CommandError::NotApplied(NotApplied::NoSuchName(name(7).to_string()))));
        let query = fleet.query(&name(7), Freshness::Latest, encode(&()), &options).await;
        assert_eq!(query, Err(QueryError::NoSuchName(name(7).to_string())));
        let none = CallOptions { timeout: Duration::ZERO, ..options };
        let command = fleet.command(&name(0), 0, encode(&1_u64), &none).await;
        assert!(
            matches!(command, Err(CommandError::NotApplied(_) | CommandError::Unknown(_))),
            "{command:?}"
        );
    });
    world.sim.run_for(2 * SECOND);
    assert_eq!(fleet.cluster().revision(), revision, "nothing has changed");
    assert!(fleet.unreachable_nodes().is_empty());
}

/// What one of those who add and remove one and the same name was told.
type Told = Vec<Result<(), FleetError>>;

fn quarrel(world: &World, place: usize, rounds: usize) -> SimTask<Told> {
    let (fleet, env) = (world.fleet(place), world.nodes[place].env.clone());
    world.sim.spawn_on(&env.clone(), async move {
        let mut told = Vec::new();
        for round in 0..rounds {
            let result = if (place + round).is_multiple_of(2) {
                fleet.add_group(name(0), Counter::NAME, 3, GroupConfig::default()).await.map(drop)
            } else {
                fleet.remove_group(&name(0)).await
            };
            told.push(result);
            raft_fleet::rafted_value::env::sleep(env.as_ref(), (place as u32 + 1) * 7 * MS).await;
        }
        told
    })
}

#[test]
fn those_who_add_and_remove_one_name_at_a_time_are_each_told_what_holds() {
    for (seed, on_disks) in [(1540, false), (1541, false), (1542, true), (1543, true)] {
        let world = if on_disks { World::formed_on_disks(seed, 3) } else { World::formed(seed, 3) };
        world.add_groups(&world.fleet(0), 0);
        add(&world, world.fleet(0), name(1), 3);
        let tasks: Vec<_> = (0..3).map(|place| quarrel(&world, place, 40)).collect();
        let bystander =
            world.sim.spawn_on(&world.nodes[0].env, count_up(world.fleet(0), name(1), 200, 10 * MS));
        let mut succeeded = 0;
        for task in tasks {
            for result in world.sim.run_until(300 * SECOND, task).flatten().expect("it ends") {
                match result {
                    Ok(()) => succeeded += 1,
                    Err(
                        FleetError::AlreadyAdded { .. }
                        | FleetError::CleanupOngoing { .. }
                        | FleetError::NoSuchGroup { .. },
                    ) => (),
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
        }
        assert!(succeeded > 4, "seed {seed}: {succeeded}");
        let told = world.sim.run_until(60 * SECOND, bystander).flatten().expect("it ends");
        assert_eq!((told.applied, told.unknown), (200, 0), "seed {seed}");
        let fleet = world.fleet(0);
        world.run(async move { drop(fleet.remove_group(&name(0)).await) });
        world.until(30 * SECOND, "nothing is left of it", |world| {
            world.fleet(0).cluster().removed().is_empty() && world.is_whole(1, 3)
        });
        add(&world, world.fleet(1), name(0), 3);
        world.until(10 * SECOND, "it is there again", |world| world.is_whole(2, 3));
    }
}

#[test]
fn a_dead_seed_keeps_nobody_out_who_has_a_living_one() {
    let mut world = World::formed(1550, 3);
    world.config.seeds = vec!["nowhere:1".into(), address(1), "nobody:2".into()];
    world.begin(3);
    world.finish(3, 10 * SECOND);
    assert_eq!(world.fleet(3).cluster().nodes().len(), 4);
}

/// Places 0 and 1 are one cluster, 2 and 3 another.
fn two_clusters(seed: u64) -> (World, ClusterId, ClusterId) {
    let mut world = World::new(seed, 2);
    for pair in [[0, 1], [2, 3]] {
        world.config.seeds = pair.into_iter().map(address).collect();
        pair.into_iter().for_each(|place| world.begin(place));
        pair.into_iter().for_each(|place| world.finish(place, 30 * SECOND));
    }
    let (one, other) = (cluster(&world, 0), cluster(&world, 2));
    (world, one, other)
}

fn cluster(world: &World, place: usize) -> ClusterId {
    world.fleet(place).cluster().cluster().expect("it is formed")
}

/// It once took whichever of the two answered first, and nobody was told.
#[test]
fn a_client_whose_seeds_are_of_two_clusters_is_told_so() {
    let (mut world, one, other) = two_clusters(1561);
    let mut clients = 0;
    let mut connect = |world: &World| {
        clients += 1;
        let env = world.sim.start_node("client", &format!("client-{clients}:1"));
        let (door, config) = (env.clone(), world.config.clone());
        let connect = world.sim.spawn_on(&env, async move { Fleet::connect(door, config).await });
        let connected = world.sim.run_until(60 * SECOND, connect).flatten().expect("it ends");
        connected.map(|fleet| fleet.cluster().cluster().expect("it knows its cluster"))
    };
    world.config.seeds = vec!["nowhere:1".into(), address(1), address(2)];
    let begun = world.sim.elapsed();
    let refused = connect(&world).expect_err("it cannot know which is meant");
    let seen = [(address(1), one), (address(2), other)];
    assert_eq!(refused, FleetError::SeveralClusters { seen });
    assert!(world.sim.elapsed() - begun < 2 * SECOND, "it is told at once");
    for (own, clusters) in [(one, [1, 0]), (other, [2, 3])] {
        world.config.seeds = clusters.into_iter().map(address).collect();
        assert_eq!(connect(&world), Ok(own));
        world.config.seeds = vec![address(1), address(2)];
        world.config.host.cluster = Some(own);
        assert_eq!(connect(&world), Ok(own));
        world.config.host.cluster = None;
    }
    // Nobody of the one that is meant answers.
    world.config.seeds = vec![address(1)];
    world.config.host.cluster = Some(other);
    world.config.connect_wait = 5 * SECOND;
    let refused = connect(&world).expect_err("it is another one's node").to_string();
    assert!(refused.contains(&one.to_string()), "{refused}");
}

/// It once joined the one whose node had the lowest id, and nobody was told.
#[test]
fn a_node_whose_seeds_are_of_two_clusters_is_told_so() {
    let (mut world, one, other) = two_clusters(1560);
    world.config.seeds = vec![address(1), address(2)];
    let begun = world.sim.elapsed();
    world.begin(4);
    let refused = world.try_finish(4, 30 * SECOND).expect("it ends").map(drop).unwrap_err();
    let FleetError::SeveralClusters { seen } = &refused else { panic!("{refused}") };
    let mut sorted = seen.clone();
    sorted.sort();
    assert_eq!(sorted, [(address(1), one), (address(2), other)]);
    assert!(world.sim.elapsed() - begun < 2 * SECOND, "it is told at once");
    assert!(refused.to_string().contains("host.cluster"), "{refused}");
    world.kill(4);

    // It has told each of the other's addresses; whoever is given those of one joins that one.
    for (seed, expected) in [(1, one), (2, other)] {
        world.config.seeds = vec![address(seed)];
        world.begin(4);
        world.finish(4, 30 * SECOND);
        assert_eq!(cluster(&world, 4), expected);
        world.kill(4);
    }
    world.config.seeds = vec![address(1), address(2)];
    world.config.host.cluster = Some(other);
    world.begin(4);
    world.finish(4, 30 * SECOND);
    assert_eq!(cluster(&world, 4), other);
}

/// A node whose registry lacks what the cluster has.
fn ignorant(world: &World) -> Fleet {
    let env = world.sim.start_node("stranger", "stranger:1");
    let (door, config) = (env.clone(), FleetConfig { zone: "z".into(), ..world.config.clone() });
    let start = world.sim.spawn_on(&env, async move { Fleet::start(door, config, Registry::new()).await });
    world.sim.run_until(30 * SECOND, start).flatten().expect("in time").expect("it joins")
}

#[test]
fn a_node_that_does_not_know_a_data_type_adds_none_of_it() {
    let world = World::formed(1570, 3);
    let fleet = ignorant(&world);
    world.run(async move {
        let config = GroupConfig::default();
        let unknown = fleet.add_group(name(0), Counter::NAME, 3, config).await.map(drop);
        assert_eq!(unknown, Err(FleetError::NoSuchData { data: Counter::NAME.into() }));
    });
    assert!(world.fleet(0).cluster().groups().is_empty());
}

/// The caller was once told that no group of this name exists.
#[test]
fn a_group_whose_founder_does_not_know_its_data_names_both() {
    let mut world = World::formed(1580, 3);
    let stranger = ignorant(&world).node();
    let (_env, client) = world.client("client");
    let (mut added, mut refused) = (0, 0);
    for number in 0..16 {
        let fleet = if number % 2 == 0 { world.fleet(0) } else { client.clone() };
        let config = GroupConfig::default();
        let told = world.run(async move { fleet.add_group(name(number), Counter::NAME, 1, config).await });
        match told {
            Ok(_) => added += 1,
            Err(error) => {
                let says = format!(
                    "node {stranger} cannot found the group named \"group-{number}\": the node knows no data type \
                     named \"counter\""
                );
                assert_eq!(error.to_string(), says);
                refused += 1;
            }
        }
    }
    assert!(added > 0 && refused > 1, "{added} added, {refused} refused");
    assert_eq!(world.fleet(0).cluster().groups().len(), added);
}
