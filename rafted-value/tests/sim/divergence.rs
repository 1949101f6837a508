//! Members whose states should be the same and are not: found by hashes in the log, and fenced.

use crate::support::{Change, Counters, GROUP, MS, SECOND, World, stale};
use bytes::Bytes;
use rafted_value::{CommandContext, Data, RawData, Refused, Registry, RestoreError, encode, stop_member};

/// [`Counters`] on a node whose memory, or compiler, or clock is not like that of the others: it adds `error` more to
/// what is called `odd`. With an error of [`CANNOT`] it knows that it cannot add to that.
#[derive(Default)]
struct Odd {
    value: Counters,
    error: i64,
}

impl RawData for Odd {
    fn command(&mut self, context: &CommandContext, payload: &Bytes) -> Result<Bytes, Refused> {
        let change = postcard::from_bytes(payload).map_err(|error| Refused(error.to_string()))?;
        let change = match change {
            Change::Add(name, _) if name == "odd" && self.error == CANNOT => {
                stop_member(format!("this build cannot add to {name:?}"))
            }
            Change::Add(name, amount) if name == "odd" => Change::Add(name, amount + self.error),
            other => other,
        };
        Ok(encode(&self.value.command(context, change)))
    }

    fn query(&self, _: &Bytes) -> Result<Bytes, Refused> {
        Ok(encode(&self.value.query(())))
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&encode(&self.value));
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.value = postcard::from_bytes(bytes)
            .map_err(|error| RestoreError { data: Counters::NAME.into(), reason: error.to_string() })?;
        Ok(())
    }

    fn command_kind(&self, payload: &Bytes) -> String {
        let change = postcard::from_bytes(payload).expect("the test's commands decode");
        Counters::command_kind(&change).to_owned()
    }
}

/// The error of a member that knows of it.
const CANNOT: i64 = i64::MIN;

/// A group whose members are off by these errors.
fn world(seed: u64, errors: &[i64], every: u64) -> World {
    let mut world = World::with_registry(seed, 0, Registry::new());
    world.host_config.divergence_check_commands = every;
    for &error in errors {
        let make = move || -> Box<dyn RawData> { Box::new(Odd { error, ..Odd::default() }) };
        world.registry = Registry::new().with_raw(Counters::NAME, make);
        world.start_node();
    }
    world.found_on_all();
    world
}

/// Adds `amount` under each of these names, one after the other.
fn add(world: &mut World, names: &[&'static str]) {
    let mut client = world.client();
    let names = names.to_vec();
    world.run(60 * SECOND, async move {
        for name in names {
            client.add(name, 1).await;
        }
    });
    world.sim.run_for(300 * MS);
}

fn fenced(world: &World, node: usize) -> Option<String> {
    world.status(node).fenced
}

#[test]
fn a_member_that_is_not_as_the_others_is_fenced_and_its_command_named() {
    for seed in 0..20 {
        let mut world = world(seed, &[0, 0, 1], 1);
        add(&mut world, &["even", "odd"]);
        let reason = fenced(&world, 2).expect("it diverged");
        assert!(reason.contains("commands between: add"), "{reason}");
        assert_eq!((fenced(&world, 0), fenced(&world, 1)), (None, None));
        add(&mut world, &["even", "odd"]);
        for node in [0, 1] {
            let host = world.nodes[node].host.clone();
            let counts = world.run(SECOND, async move { stale(&host).await }).counts;
            assert_eq!((counts["even"], counts["odd"]), (2, 2), "seed {seed}");
        }
    }
}

/// A build that cannot apply a command must not skip it: it would be lost from view when that member leads.
#[test]
fn a_member_that_cannot_apply_a_command_ends_and_the_others_have_it_once() {
    for (seed, errors) in [(300, [CANNOT, 0, 0]), (301, [0, CANNOT, 0]), (302, [0, 0, CANNOT])] {
        let cannot = errors.iter().position(|error| *error == CANNOT).unwrap();
        let mut world = world(seed, &errors, 0);
        add(&mut world, &["even", "odd", "even"]);
        let reason = fenced(&world, cannot).expect("it cannot go on");
        assert!(reason.contains("this build cannot add to \"odd\""), "{reason}");
        for node in (0..3).filter(|node| *node != cannot) {
            assert_eq!(fenced(&world, node), None);
            let host = world.nodes[node].host.clone();
            let counts = world.run(SECOND, async move { stale(&host).await }).counts;
            assert_eq!((counts["even"], counts["odd"]), (2, 1), "seed {seed}");
        }
    }
}

/// The leader writes down what the majority has, though it has something else itself.
#[test]
fn a_leader_that_is_not_as_the_others_is_fenced_and_another_goes_on() {
    for seed in 0..20 {
        let mut world = world(seed, &[1, 0, 0], 1);
        assert_eq!(world.leader(), 0);
        add(&mut world, &["odd"]);
        assert!(fenced(&world, 0).is_some(), "seed {seed}");
        assert_ne!(world.leader(), 0);
        add(&mut world, &["even"]);
        assert_eq!((fenced(&world, 1), fenced(&world, 2)), (None, None));
    }
}

#[test]
fn nobody_is_fenced_where_no_majority_is_alike() {
    let mut two = world(1, &[0, 1], 1);
    add(&mut two, &["odd", "even", "odd"]);
    let mut three = world(2, &[0, 1, 2], 1);
    add(&mut three, &["odd", "even", "odd"]);
    for (world, node) in [(&two, 0), (&two, 1), (&three, 0), (&three, 1), (&three, 2)] {
        assert_eq!(fenced(world, node), None);
    }
}

#[test]
fn nothing_is_compared_where_nobody_asked_for_it() {
    let mut world = world(3, &[0, 0, 1], 0);
    add(&mut world, &["odd"; 20]);
    assert_eq!(fenced(&world, 2), None);
}

/// Comparisons are entries too, and must not call for the next.
#[test]
fn an_idle_group_is_not_compared_again_and_again() {
    let mut world = world(4, &[0, 0, 0], 1);
    add(&mut world, &["even"; 5]);
    world.sim.run_for(SECOND);
    let before = world.status(0).last_index;
    world.sim.run_for(20 * SECOND);
    assert_eq!(world.status(0).last_index, before);
}

/// Panics are undone, replies are kept, a member comes in with a snapshot: all of it the same everywhere.
#[test]
fn panics_retries_snapshots_and_failovers_keep_members_alike() {
    for seed in 0..10 {
        let mut world = world(100 + seed, &[0, 0, 0, 0], 1);
        world.sim.run_for(100 * MS);
        let mut client = world.client();
        let task = world.sim.spawn(async move {
            for number in 0..60 {
                client.add("even", number).await;
                if number % 7 == 0 {
                    assert!(client.change(&Change::Panic).await.is_err());
                }
                if number % 20 == 0 {
                    client.change(&Change::Fill(3000 + number as usize)).await.unwrap();
                }
            }
        });
        world.sim.run_for(400 * MS);
        let leader = world.leader();
        world.kill(leader);
        let newcomer = world.start_node();
        world.sim.run_for(3 * SECOND);
        world.run(60 * SECOND, task).expect("nobody aborts it");
        let leader = world.leader();
        world.add_voter(leader, newcomer);
        add(&mut world, &["even"; 3]);
        for node in (0..world.nodes.len()).filter(|node| world.nodes[*node].alive) {
            assert_eq!(fenced(&world, node), None, "seed {seed}, group {GROUP}");
        }
    }
}
