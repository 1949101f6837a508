//! What a replicated value shows to a harness as it changes: what its group has committed, once, in the order of the log,
//! whichever member applies it first.

use std::cell::RefCell;
use std::rc::Rc;

use crate::support::{Change, Counters, GROUP, MS, SECOND, World};
use rafted_value::sim::{WatchingShown, show, watch_shown};
use rafted_value::{CommandContext, Data, GroupId, Registry};
use serde::{Deserialize, Serialize};

/// [`Counters`] that show after every command in which order their commands came.
#[derive(Default, Serialize, Deserialize, Clone)]
struct Showing(Counters);

impl Data for Showing {
    const NAME: &'static str = Counters::NAME;
    type Command = Change;
    type Reply = i64;
    type Query = ();
    type Answer = Counters;

    fn command(&mut self, context: &CommandContext, change: Change) -> i64 {
        let reply = self.0.command(context, change);
        show(|| self.0.log.clone());
        reply
    }

    fn query(&self, (): ()) -> Counters {
        self.0.clone()
    }

    fn command_kind(change: &Change) -> &'static str {
        Counters::command_kind(change)
    }
}

type Seen = Rc<RefCell<Vec<(GroupId, Vec<i64>)>>>;

fn watch() -> (Seen, WatchingShown) {
    let seen = Seen::default();
    let watching = watch_shown({
        let seen = seen.clone();
        move |group, shown| {
            let log = shown.downcast_ref::<Vec<i64>>().expect("nothing else is shown");
            seen.borrow_mut().push((group, log.clone()));
        }
    });
    (seen, watching)
}

fn world(seed: u64, nodes: usize) -> World {
    let world = World::with_registry(seed, nodes, Registry::new().with::<Showing>());
    world.found_on_all();
    world
}

/// Everything from `first` to `last`, one after the other.
fn add(world: &mut World, first: i64, last: i64) {
    let mut client = world.client();
    world.run(60 * SECOND, async move {
        for amount in first..=last {
            client.add("all", amount).await;
        }
    });
}

/// The numbers up to each of these, in turn.
fn growing(last: i64) -> Vec<(GroupId, Vec<i64>)> {
    (1..=last).map(|last| (GROUP, (1..=last).collect())).collect()
}

/// Three members apply every command, a fourth all of them again; a panic makes each run its log anew; a leader dies. Each
/// command is shown once all the same, and what was shown last is what a reader is told.
#[test]
fn what_a_group_has_committed_is_shown_once_and_in_order_whoever_applies_it() {
    for seed in 0..4 {
        let mut world = world(500 + seed, 3);
        let (seen, _watching) = watch();
        add(&mut world, 1, 10);
        let mut client = world.client();
        world.run(60 * SECOND, async move { client.change(&Change::Panic).await.unwrap_err() });
        add(&mut world, 11, 20);
        world.sim.run_for(300 * MS);
        let newcomer = world.start_node();
        world.add_voter(world.leader(), newcomer);
        let leader = world.leader();
        world.kill(leader);
        add(&mut world, 21, 30);
        world.sim.run_for(SECOND);
        assert_eq!(*seen.borrow(), growing(30), "seed {seed}");
        let mut client = world.client();
        let told = world.run(60 * SECOND, async move { client.read().await });
        assert_eq!(told.log, (1..=30).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn a_watcher_sees_what_is_applied_from_when_it_comes_until_it_goes() {
    let mut world = world(510, 3);
    add(&mut world, 1, 3);
    world.sim.run_for(300 * MS);
    let (seen, watching) = watch();
    add(&mut world, 4, 5);
    world.sim.run_for(300 * MS);
    drop(watching);
    add(&mut world, 6, 7);
    assert_eq!(*seen.borrow(), growing(5)[3..]);
}
