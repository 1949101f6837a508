//! Callers that ask for more than a group can do.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{Counter, MS, SECOND, World, address, name, read};
use futures_util::future::join_all;
use raft_fleet::rafted_value::env::{Env, sleep};
use raft_fleet::rafted_value::sim::SimEnv;
use raft_fleet::{CallOptions, CommandError, Data, Fleet, GroupConfig, NotApplied, encode};

/// Three nodes on which four commands of a group may wait at a time, and a client of them.
struct Narrow {
    world: World,
    env: Arc<SimEnv>,
    client: Fleet,
}

/// What became of commands that were sent together.
#[derive(Debug, Default)]
struct Told {
    done: u64,
    refused: u64,
    /// How long the refused ones waited at least and at most.
    waited: Option<(Duration, Duration)>,
}

impl Narrow {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed, 3);
        world.config.host.group_waiting_max = 4;
        (0..3).for_each(|place| world.begin(place));
        (0..3).for_each(|place| world.finish(place, 30 * SECOND));
        let fleet = world.fleet(0);
        world.run(async move {
            fleet.add_group(name(0), Counter::NAME, 3, GroupConfig::default()).await.expect("a new name");
        });
        let (env, client) = world.client("client");
        Self { world, env, client }
    }

    /// Sends so many commands at once.
    fn send(&self, count: usize, options: CallOptions) -> Told {
        let (env, client) = (self.env.clone(), self.client.clone());
        let all = async move {
            let call = |_| async {
                let begin = env.now();
                let reply = client.command(&name(0), 0, encode(&1_u64), &options).await;
                (reply, env.now().since(begin))
            };
            let mut told = Told::default();
            for (reply, took) in join_all((0..count).map(call)).await {
                match reply {
                    Ok(_) => told.done += 1,
                    Err(CommandError::NotApplied(NotApplied::Overloaded { retry_after_ms: 1.. })) => {
                        told.refused += 1;
                        let (least, most) = told.waited.unwrap_or((took, took));
                        told.waited = Some((least.min(took), most.max(took)));
                    }
                    other => panic!("{other:?}"),
                }
            }
            told
        };
        let task = self.world.sim.spawn_on(&self.env, all);
        self.world.sim.run_until(120 * SECOND, task).flatten().expect("they end")
    }

    /// How many commands have run.
    fn ran(&self) -> u64 {
        self.world.run(read(self.world.fleet(0), name(0)))
    }
}

/// Each of them was once sent again every 50 ms for its whole time, which was more than what its group was too busy for.
#[test]
fn who_asks_too_much_is_told_so_soon_and_what_was_refused_has_not_run() {
    let narrow = Narrow::new(50);
    let told = narrow.send(3_000, CallOptions::default());
    assert!(told.done >= 4 && told.refused >= 1_000, "{told:?}");
    assert!(told.waited.is_some_and(|(_, most)| most < SECOND), "{told:?}");
    assert_eq!(narrow.ran(), told.done);
    let patient = CallOptions { refusals_max: u32::MAX, ..CallOptions::default() }.with_timeout(60 * SECOND);
    let more = narrow.send(20, patient);
    assert_eq!(narrow.ran(), told.done + more.done);
}

#[test]
fn what_a_group_would_refuse_is_refused_where_it_costs_nothing_until_the_group_takes_all() {
    let narrow = Narrow::new(51);
    narrow.send(200, CallOptions::default());
    let told = narrow.send(200, CallOptions::default());
    assert!(told.refused >= 100, "{told:?}");
    assert!(told.waited.is_some_and(|(least, _)| least.is_zero()), "{told:?}");
    // As few as the group takes are let in again and again, and more with time.
    let few: u64 = (0..50).map(|_| narrow.send(4, CallOptions::default()).done).sum();
    assert!(few >= 100, "{few}");
    narrow.world.sim.run_for(11 * SECOND);
    let told = narrow.send(4, CallOptions::default());
    assert_eq!((told.done, told.refused), (4, 0));
}

#[test]
fn an_essential_call_goes_on_until_it_is_done() {
    let narrow = Narrow::new(52);
    narrow.send(200, CallOptions::default());
    let told = narrow.send(60, CallOptions::default().as_essential().with_timeout(60 * SECOND));
    assert_eq!((told.done, told.refused), (60, 0));
}

/// Whose first attempt was in the log, and found the group busy when it asked again, was soon told that nobody knows what became
/// of it, though its reply was there a moment later.
#[test]
fn what_may_have_been_applied_is_asked_for_however_busy_the_group_is() {
    let narrow = Narrow::new(54);
    let world = &narrow.world;
    world.sim.run_for(5 * SECOND);
    let (leader, ..) = world.leaders().into_values().next_back().expect("a group was added");
    let (led, others): (Vec<usize>, Vec<usize>) = (0..3).partition(|place| world.id(*place) == leader);
    let addresses = |places: Vec<usize>| places.into_iter().map(address).collect::<Vec<_>>();
    let (led, others) = (addresses(led), addresses(others));
    world.sim.partition(&led, &others);
    let sim = world.sim.clone();
    drop(world.sim.spawn_on(&narrow.env, {
        let env = narrow.env.clone();
        async move {
            sleep(env.as_ref(), 1_500 * MS).await;
            sim.heal();
        }
    }));
    let told = narrow.send(4, CallOptions::default());
    assert_eq!((told.done, told.refused), (4, 0));
    assert_eq!(narrow.ran(), 4);
}

/// Commands that come one after the other are never too many, however slow the links are.
#[test]
fn a_slow_link_is_no_overload() {
    let narrow = Narrow::new(53);
    narrow.world.sim.run_for(5 * SECOND);
    for _ in 0..50 {
        let told = narrow.send(3, CallOptions::default());
        assert_eq!((told.done, told.refused), (3, 0));
        narrow.world.sim.run_for(20 * MS);
    }
}
