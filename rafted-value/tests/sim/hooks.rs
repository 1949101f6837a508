//! What leaders do beside the value: told on the leader only, of everything that took effect, at least once.

use std::any::Any;
use std::sync::Arc;

use crate::support::{self, Change, Counters, GROUP, MS, SECOND, World, stale};
use parking_lot::Mutex;
use rafted_value::{
    Freshness, GroupId, LeaderHook, MemberId, NodeId, RawData, RawLeaderHook, Registry, Typed, encode,
};

/// What the hooks of all nodes were told, in order: the simulation has one thread.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn note(&self, what: String) {
        self.0.lock().push(what);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }

    fn registry(&self) -> Registry {
        Registry::new().with::<Counters>().with_hook::<Counters>(self.clone())
    }
}

fn sum(value: &Counters) -> i64 {
    value.counts.values().sum()
}

impl LeaderHook<Counters> for Told {
    type Before = i64;

    fn before(&self, value: &Counters, _: &Change) -> i64 {
        sum(value)
    }

    fn command_committed(&self, _: GroupId, before: i64, value: &Counters, change: &Change, reply: &i64) {
        self.note(format!("{before} then {} by {change:?}: {reply}", sum(value)));
        if matches!(change, Change::Add(name, _) if name == "bad hook") {
            panic!("the hook is told to panic");
        }
    }

    fn query_answered(&self, _: GroupId, value: &Counters, (): &(), answer: &Counters) {
        assert_eq!(value, answer);
        self.note(format!("answered {}", sum(answer)));
    }

    fn follower_added(&self, _: GroupId, value: &Counters, follower: MemberId, _: NodeId) {
        self.note(format!("added {follower} at {}", sum(value)));
    }

    fn follower_removed(&self, _: GroupId, value: &Counters, follower: MemberId, _: NodeId) {
        self.note(format!("removed {follower} at {}", sum(value)));
    }

    fn elected(&self, group: GroupId, value: &Counters) {
        assert_eq!(group, GROUP);
        self.note(format!("elected at {}", sum(value)));
    }

    fn restored(&self, _: GroupId, value: &Counters) {
        self.note(format!("restored at {}", sum(value)));
    }
}

fn world(seed: u64, nodes: usize) -> (World, Told) {
    let told = Told::default();
    let world = World::with_registry(seed, nodes, told.registry());
    world.found_on_all();
    (world, told)
}

#[test]
fn the_leader_tells_each_event_once_with_the_value_before_and_after() {
    let (mut world, told) = world(1, 3);
    assert_eq!(told.take(), ["elected at 0", "added m2 at 0", "added m3 at 0"]);
    let mut client = world.client();
    world.run(10 * SECOND, async move {
        client.add("a", 2).await;
        client.add("a", 3).await;
        client.change(&Change::Panic).await.unwrap_err();
        client.read().await;
    });
    assert_eq!(told.take(), ["0 then 2 by Add(\"a\", 2): 2", "2 then 5 by Add(\"a\", 3): 5", "answered 5"]);
    let (host, member) = (world.nodes[0].host.clone(), world.member(2));
    world.run(SECOND, async move { host.remove_member(GROUP, member).await.unwrap() });
    assert_eq!(told.take(), ["removed m3 at 5"]);
}

#[test]
fn a_retry_a_refusal_and_a_stale_query_tell_nothing() {
    let (mut world, told) = world(2, 3);
    told.take();
    let mut client = world.client();
    let host = world.nodes[0].host.clone();
    let until = rafted_value::env::Env::wall_ms(client.env.as_ref()) + 60_000;
    let command = client.session.begin(until, 0, encode(&Change::Add("a".into(), 1))).unwrap();
    let garbage = client.session.begin(until, 0, bytes::Bytes::from_static(&[250, 250])).unwrap();
    world.run(SECOND, async move {
        host.command(GROUP, command.clone(), SECOND).await.unwrap();
        host.command(GROUP, command, SECOND).await.unwrap();
        host.command(GROUP, garbage, SECOND).await.unwrap_err();
        stale(&host).await
    });
    assert_eq!(told.take(), ["0 then 1 by Add(\"a\", 1): 1"]);
}

/// The new leader's value came by entries, or out of a snapshot when it joined: then the hook must begin anew.
#[test]
fn a_new_leader_tells_that_its_value_was_restored_and_that_it_leads() {
    let (world, told) = world(3, 3);
    told.take();
    let moved = world.replace_leader(0, Some(1));
    world.end(moved).unwrap();
    world.sim.run_for(100 * MS);
    assert_eq!(told.take(), ["restored at 0", "elected at 0"]);
    let back = world.replace_leader(1, Some(0));
    world.end(back).unwrap();
    world.sim.run_for(100 * MS);
    assert_eq!(told.take(), ["elected at 0"], "the founder's value never came out of a snapshot");
    let again = world.replace_leader(0, Some(1));
    world.end(again).unwrap();
    world.sim.run_for(100 * MS);
    assert_eq!(told.take(), ["elected at 0"], "it is told once");
}

#[test]
fn every_command_is_told_at_least_once_whatever_leaders_do() {
    for seed in 10..30 {
        let (mut world, told) = world(seed, 3);
        let mut client = world.client();
        let task = world.sim.spawn(async move {
            for i in 1..=200 {
                assert_eq!(client.add("a", 1).await, i);
            }
        });
        for step in 0..4 {
            world.sim.run_for((50 + 7 * seed as u32) * MS);
            let leader = world.leader();
            if step == 2 {
                world.kill(leader);
            } else {
                let alive = (1..3).map(|by| (leader + by) % 3).find(|node| world.nodes[*node].alive);
                drop(world.end(world.replace_leader(leader, alive)));
            }
        }
        world.run(60 * SECOND, task).expect("the client ends");
        let told = told.take();
        for i in 0..200 {
            let line = format!("{i} then {} by Add(\"a\", 1): {}", i + 1, i + 1);
            assert!(told.contains(&line), "seed {seed}: {line}");
        }
    }
}

#[test]
fn a_hook_that_panics_harms_neither_the_command_nor_the_group() {
    let (mut world, told) = world(4, 3);
    told.take();
    let mut client = world.client();
    world.run(10 * SECOND, async move {
        assert_eq!(client.add("bad hook", 1).await, 1);
        assert_eq!(client.add("bad hook", 1).await, 2);
        assert_eq!(client.add("a", 1).await, 1);
    });
    assert_eq!(told.take().len(), 3);
    world.sim.run_for(SECOND);
    for node in 0..3 {
        assert_eq!(world.status(node).fenced, None);
        let host = world.nodes[node].host.clone();
        assert_eq!(sum(&world.run(SECOND, async move { stale(&host).await })), 3);
    }
}

/// A hook in bytes sees the value as its own type.
#[derive(Clone, Default)]
struct Raw(Told);

impl RawLeaderHook for Raw {
    fn before(&self, value: &dyn RawData, _: &bytes::Bytes) -> Option<Box<dyn Any>> {
        let typed = (value as &dyn Any).downcast_ref::<Typed<Counters>>();
        Some(Box::new(typed.is_some()))
    }

    fn command_committed(
        &self,
        _: GroupId,
        before: Option<Box<dyn Any>>,
        _: &dyn RawData,
        command: &bytes::Bytes,
        reply: &bytes::Bytes,
    ) {
        let known = *before.expect("it looked").downcast::<bool>().expect("at this");
        self.0.note(format!("{known} {} {reply:?}", command.len()));
    }
}

#[test]
fn a_hook_in_bytes_is_told_in_bytes() {
    let raw = Raw::default();
    let registry = Registry::new().with::<Counters>().with_raw_hook("counters", raw.clone());
    let world = World::with_registry(5, 1, registry);
    world.found(0);
    let host = world.nodes[0].host.clone();
    let env = world.nodes[0].env.clone();
    let mut client = support::Client::new(env, vec![world.nodes[0].id()]);
    assert_eq!(world.run(SECOND, async move { client.add("a", 3).await }), 3);
    assert_eq!(raw.0.take(), ["true 4 b\"\\x06\""]);
    let answer =
        world.run(SECOND, async move { host.query(GROUP, Freshness::Latest, encode(&()), SECOND).await });
    assert!(answer.is_ok());
}
