//! Settings of a host at their least and at their most: none of them panics, hangs, or takes memory without end.
#![allow(clippy::print_stdout, reason = "which setting it was, where something below panics")]

use std::time::Duration;

use crate::support::{Counters, SECOND, World};
use rafted_value::sim::SimDisk;
use rafted_value::{Host, HostConfig, NodeId, Registry, StoreConfig, StoreError};

/// The values that a time may be given, sense or none.
const TIMES: [Duration; 4] =
    [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX];
const COUNTS: [usize; 4] = [0, 1, usize::MAX / 2, usize::MAX];

type Set<T> = fn(&mut HostConfig, T);

const TIME_SETTINGS: [(&str, Set<Duration>); 7] = [
    ("uninitialised_max", |config, time| config.uninitialised_max = time),
    ("snapshot_retry", |config, time| config.snapshot_retry = time),
    ("handover_max", |config, time| config.handover_max = time),
    ("quiet_after", |config, time| config.quiet_after = time),
    ("loop_beat", |config, time| config.loop_beat = time),
    ("loop_silence_max", |config, time| config.loop_silence_max = time),
    ("quiet_max", |config, time| config.quiet_max = time),
];

const COUNT_SETTINGS: [(&str, Set<usize>); 10] = [
    ("loops", |config, count| config.loops = count),
    ("inbox_max", |config, count| config.inbox_max = count),
    ("turn_inputs_max", |config, count| config.turn_inputs_max = count),
    ("entry_commands_max", |config, count| config.entry_commands_max = count),
    ("entry_bytes_max", |config, count| config.entry_bytes_max = count),
    ("group_waiting_max", |config, count| config.group_waiting_max = count),
    ("snapshots_incoming_max", |config, count| config.snapshots_incoming_max = count),
    ("snapshot_beside_bytes", |config, count| config.snapshot_beside_bytes = count as u64),
    ("snapshot_bytes_max", |config, count| config.snapshot_bytes_max = count as u64),
    ("divergence_check_commands", |config, count| config.divergence_check_commands = count as u64),
];

/// A group of three on hosts with these settings takes commands, awake and after a rest, and its hosts shut down.
fn check(seed: u64, config: &HostConfig, what: &str) {
    println!("{what}");
    let mut world = World::empty(seed);
    world.host_config = config.clone();
    for _ in 0..3 {
        world.start_node();
    }
    world.found_on_all();
    let mut client = world.client();
    let sum = world.run(30 * SECOND, async move {
        for _ in 0..10 {
            client.add("a", 1).await;
        }
        client.read().await.counts["a"]
    });
    assert_eq!(sum, 10, "{what}");
    // Long enough to fall quiet, and to be asked anew.
    world.sim.run_for(3 * SECOND);
    let mut client = world.client();
    let sum = world.run(30 * SECOND, async move { client.add("a", 1).await });
    assert_eq!(sum, 11, "{what}");
    for node in 0..3 {
        let status = world.status(node);
        assert_eq!(status.fenced, None, "{what}");
        let host = world.nodes[node].host.clone();
        world.run(60 * SECOND, async move { host.shutdown().await });
    }
}

#[test]
fn every_time_at_its_ends_still_lets_a_group_of_three_run_commands() {
    for (name, set) in TIME_SETTINGS {
        for (seed, time) in (1..).zip(TIMES) {
            // So that what concerns a rest is tried as well.
            let mut config = HostConfig { loops: 2, quiet_after: SECOND, ..HostConfig::default() };
            set(&mut config, time);
            check(seed, &config, &format!("{name} {time:?}"));
        }
    }
}

#[test]
fn every_count_and_size_at_its_ends_still_lets_a_group_of_three_run_commands() {
    for (name, set) in COUNT_SETTINGS {
        for (seed, count) in (1..).zip(COUNTS) {
            let mut config = HostConfig { loops: 2, quiet_after: SECOND, ..HostConfig::default() };
            set(&mut config, count);
            check(seed, &config, &format!("{name} {count}"));
        }
    }
}

#[test]
fn all_settings_at_the_same_end_still_let_a_group_of_three_run_commands() {
    for (seed, (time, count)) in (1..).zip(TIMES.into_iter().zip(COUNTS)) {
        let mut config = HostConfig::default();
        TIME_SETTINGS.into_iter().for_each(|(_, set)| set(&mut config, time));
        COUNT_SETTINGS.into_iter().for_each(|(_, set)| set(&mut config, count));
        check(seed, &config, &format!("all {time:?} and {count}"));
    }
}

/// A host on a disk whose store has these settings, with a group that took commands and was there again after a restart.
fn check_store(seed: u64, store: &StoreConfig, what: &str) {
    println!("{what}");
    let mut world = World::empty(seed);
    world.host_config.store = store.clone();
    world.start_durable_nodes(3);
    world.found_on_all();
    for restart in [false, true] {
        if restart {
            for node in 0..3 {
                world.lose_power(node);
            }
            for node in 0..3 {
                world.restart(node);
            }
        }
        let mut client = world.client();
        let sum = world.run(60 * SECOND, async move {
            for _ in 0..10 {
                client.add("a", 1).await;
            }
            client.read().await.counts["a"]
        });
        assert_eq!(sum, if restart { 20 } else { 10 }, "{what}");
    }
}

/// What opening a host whose store has these settings comes to.
fn open(seed: u64, store: &StoreConfig) -> Result<(), StoreError> {
    let world = World::empty(seed);
    let disk = SimDisk::new(world.sim.rng());
    let env = world.sim.start_node_on(NodeId(1), disk.disk(), "node", "sim:0");
    let config = HostConfig { store: store.clone(), ..HostConfig::default() };
    world.run(10 * SECOND, Host::open(env, config, Registry::new().with::<Counters>())).map(drop)
}

/// The store reads what it wrote under other settings, and a node that cannot read its disk must not start: there a
/// setting without sense is an error, and everything else works.
#[test]
fn every_setting_of_a_store_at_its_ends_is_refused_by_its_name_or_works() {
    type Set = fn(&mut StoreConfig, usize);
    let settings: [(&str, Set); 7] = [
        ("segment_bytes", |store, number| store.segment_bytes = number as u64),
        ("batch_bytes", |store, number| store.batch_bytes = number),
        ("record_bytes_max", |store, number| store.record_bytes_max = number),
        ("log_garbage_ratio", |store, number| store.log_garbage_ratio = number as u64),
        ("segments_max", |store, number| store.segments_max = number),
        ("rewrites_max", |store, number| store.rewrites_max = number),
        ("snapshot_chunk_bytes", |store, number| store.snapshot_chunk_bytes = number),
    ];
    let (mut worked, mut refused) = (0, 0);
    for (name, set) in settings {
        for (seed, number) in (1..).zip(COUNTS) {
            let mut store = StoreConfig::default();
            set(&mut store, number);
            match open(seed, &store) {
                Ok(()) => check_store(seed, &store, &format!("{name} {number}")),
                Err(StoreError::InvalidConfig(problem)) => {
                    assert!(problem.starts_with(&format!("{name} {number} is ")), "{problem}");
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{name} {number}: {error}"),
            }
            worked += 1;
        }
    }
    assert_eq!((worked, refused), (11, 17));
    for (seed, mark_idle) in (1..).zip(TIMES) {
        check_store(
            seed,
            &StoreConfig { mark_idle, ..StoreConfig::default() },
            &format!("mark_idle {mark_idle:?}"),
        );
    }
}
