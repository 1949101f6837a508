//! What holds in the simulated world.

mod calls;
mod pair;
mod runtime;

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rafted_value::NodeId;
use rafted_value::env::{Env, sleep, timeout};
use rafted_value::sim::{ClockConfig, NetConfig, Sim, SimEnv};
use rafted_value::transport::{
    CallError, ClusterId, DownReason, Handler, Lane, PeerChange, PeerWatch, Reply, SendError, ServiceId,
};

use self::pair::*;

#[test]
fn casts_on_one_lane_arrive_once_and_in_order() {
    let pair = pair(1);
    let sent: Vec<Bytes> = (0..500_u32).map(|n| Bytes::from(n.to_le_bytes().to_vec())).collect();
    for payload in &sent {
        pair.cast(payload.clone()).expect("the address is known");
        if payload[0] % 16 == 0 {
            pair.sim.run_for(Duration::from_micros(70));
        }
    }
    pair.sim.run_for(ms(100));
    assert_eq!(pair.at_b.payloads(), sent);
}

#[test]
fn lanes_do_not_wait_for_each_other() {
    let pair = pair(1);
    pair.call(b"connect", LIMIT).0.expect("connected");
    let bulk = Bytes::from(vec![0; 60_000_000]);
    pair.a.transport().cast(pair.b.node(), Lane::Bulk, ECHO, bulk).expect("queued");
    pair.cast("small").expect("queued");
    pair.sim.run_for(ms(2));
    assert_eq!(pair.at_b.payloads(), ["small"]);
    pair.sim.run_for(ms(500));
    assert_eq!(pair.at_b.payloads().len(), 2);
}

#[test]
fn a_node_without_a_known_address_is_unreachable() {
    let pair = pair(1);
    let call = pair.a.transport().call(NodeId(5), Lane::Normal, ECHO, Bytes::new(), LIMIT);
    let error = pair.sim.run_until(LIMIT, call).expect("it ends").expect_err("nobody is there");
    assert!(matches!(error, CallError::NotSent(SendError::Unreachable { node: NodeId(5), .. })), "{error}");
    assert!(pair.a.transport().cast(NodeId(5), Lane::Normal, ECHO, Bytes::new()).is_err());
}

/// Raft steps itself from its own inbox: a message to oneself must not come back within the cast.
#[test]
fn messages_to_oneself_are_delivered_later_and_in_order() {
    let pair = pair(1);
    let own = pair.a.node();
    for payload in ["1", "2", "3"] {
        pair.a.transport().cast(own, Lane::Control, ECHO, payload.into()).expect("queued");
    }
    assert!(pair.at_a.payloads().is_empty());
    pair.sim.run_for(Duration::ZERO);
    assert_eq!(pair.at_a.payloads(), ["1", "2", "3"]);
    let call = pair.a.transport().call(own, Lane::Control, ECHO, "4".into(), LIMIT);
    assert_eq!(pair.sim.run_until(Duration::ZERO, call), Some(Ok("4".into())));
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_kill_drops_the_nodes_tasks_and_their_destructors_can_start_nothing() {
    let pair = pair(1);
    let (dropped, reborn) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let guard = {
        let (dropped, reborn, env) = (Arc::clone(&dropped), Arc::clone(&reborn), Arc::clone(&pair.a));
        let other = pair.b.node();
        OnDrop(move || {
            dropped.store(true, Ordering::Relaxed);
            let reborn = Arc::clone(&reborn);
            env.spawn("reborn", Box::pin(async move { reborn.store(true, Ordering::Relaxed) }));
            assert!(env.transport().cast(other, Lane::Normal, ECHO, Bytes::new()).is_err());
        })
    };
    let env = Arc::clone(&pair.a);
    let task = pair.sim.spawn_on(&pair.a, async move {
        let _guard = guard;
        loop {
            sleep(&*env, ms(10)).await;
        }
    });
    pair.sim.run_for(ms(100));
    assert!(!dropped.load(Ordering::Relaxed));
    pair.sim.kill(&pair.a);
    assert!(dropped.load(Ordering::Relaxed) && !pair.a.is_alive());
    let _: Option<()> = pair.sim.run_until(LIMIT, task).expect("the task ended");
    pair.sim.run_for(ms(100));
    assert!(!reborn.load(Ordering::Relaxed));
    assert!(pair.at_b.payloads().is_empty());
}

#[test]
fn a_node_can_be_killed_by_its_own_task() {
    let pair = pair(1);
    let (sim, env, polled_again) = (pair.sim.clone(), Arc::clone(&pair.a), Arc::new(AtomicBool::new(false)));
    let again = Arc::clone(&polled_again);
    let task = pair.sim.spawn_on(&pair.a, async move {
        sim.kill(&env);
        poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        })
        .await;
        again.store(true, Ordering::Relaxed);
    });
    assert_eq!(pair.sim.run_until(LIMIT, task), Some(None));
    assert!(!polled_again.load(Ordering::Relaxed));
}

#[test]
fn a_call_in_flight_to_a_killed_node_is_lost_after_a_silence() {
    let pair = pair_with(1, NetConfig { death_notice: 0.0, ..NetConfig::default() });
    let call = pair.a.transport().call(pair.b.node(), Lane::Normal, ECHO, "keep".into(), LIMIT);
    let task = pair.sim.spawn_on(&pair.a, call);
    pair.sim.run_for(ms(100));
    pair.sim.kill(&pair.b);
    let before = pair.sim.elapsed();
    let result = pair.sim.run_until(LIMIT, task).expect("it ends").expect("the caller lives");
    assert_eq!(result, Err(CallError::Lost { node: pair.b.node() }));
    let took = pair.sim.elapsed() - before;
    assert!((ms(500)..=ms(1_000)).contains(&took), "{took:?}");
    assert!(!pair.a.transport().is_connected(pair.b.node()));
    let (result, _) = pair.call(b"late", LIMIT);
    assert!(matches!(result, Err(CallError::NotSent(SendError::Unreachable { .. }))), "{result:?}");
    let (result, took) = pair.call(b"at once", LIMIT);
    assert!(matches!(result, Err(CallError::NotSent(_))) && took == Duration::ZERO, "{result:?} {took:?}");
}

#[test]
fn a_restarted_node_is_another_one_at_the_same_address() {
    let pair = pair(1);
    let discover = |address: &str| {
        pair.sim.run_until(LIMIT, pair.a.transport().discover(address, LIMIT)).expect("it ends")
    };
    assert_eq!(discover("sim:b").expect("b is there").node, pair.b.node());
    pair.sim.kill(&pair.b);
    assert!(matches!(discover("sim:b"), Err(CallError::NoPeer { .. })));
    let reborn = pair.sim.start_node("b", "sim:b");
    let at_reborn = echo_on(&reborn);
    assert_ne!(reborn.node(), pair.b.node());
    let found = discover("sim:b").expect("b is back");
    assert_eq!((found.node, &found.name[..], &found.address[..]), (reborn.node(), "b", "sim:b"));
    pair.sim.run_for(ms(1_000));
    let (result, took) = pair.call(b"to the old one", LIMIT);
    assert!(matches!(result, Err(CallError::NotSent(SendError::Unreachable { .. }))), "{result:?}");
    assert!(took < ms(5), "{took:?}");
    pair.a.transport().cast(reborn.node(), Lane::Normal, ECHO, "new".into()).expect("discovery connected");
    pair.sim.run_for(ms(10));
    assert_eq!(at_reborn.payloads(), ["new"]);
    assert!(pair.at_b.payloads().is_empty());
}

#[test]
fn timers_fire_in_order_of_their_deadlines() {
    let sim = Sim::new(1, NetConfig::default());
    let env = sim.start_node("a", "sim:a");
    let fired = Arc::new(Mutex::new(Vec::new()));
    for wait in [30, 10, 20, 10, 0] {
        let (sleep, fired) = (sleep(&*env, ms(wait)), Arc::clone(&fired));
        sim.spawn_on(&env, async move {
            sleep.await;
            fired.lock().push(wait);
        });
    }
    sim.run_for(ms(20));
    assert_eq!(*fired.lock(), [0, 10, 10, 20]);
    sim.run_for(ms(20));
    assert_eq!(*fired.lock(), [0, 10, 10, 20, 30]);
}

#[test]
fn env_timeout_ends_at_the_limit_or_with_the_output() {
    let sim = Sim::new(1, NetConfig::default());
    let env = sim.start_node("a", "sim:a");
    let before = env.now();
    assert_eq!(sim.run_until(LIMIT, timeout(&*env, ms(50), pending::<()>())), Some(None));
    assert_eq!(env.now().since(before), ms(50));
    assert_eq!(sim.run_until(LIMIT, timeout(&*env, ms(50), async { 7 })), Some(Some(7)));
    assert_eq!(sim.run_until(ms(10), sleep(&*env, ms(20))), None);
    assert_eq!(env.now().since(before), ms(60));
}

#[test]
fn a_virtual_day_of_ticks_is_short() {
    let sim = Sim::new(1, NetConfig::default());
    let env = sim.start_node("a", "sim:a");
    let ticking = Arc::clone(&env);
    let task = sim.spawn_on(&env, async move {
        for _ in 0..24 * 3_600 {
            sleep(&*ticking, ms(1_000)).await;
        }
    });
    assert_eq!(sim.run_until(Duration::from_secs(86_400), task), Some(Some(())));
    assert_eq!(sim.stats().timers, 86_400);
}

/// Load with faults on three nodes.
fn busy_run(seed: u64) -> (u64, Vec<Vec<Bytes>>) {
    let faulty = NetConfig { loss: 0.05, duplication: 0.05, reordering: 0.05, ..NetConfig::default() };
    let sim = Sim::new(seed, faulty);
    let nodes: Vec<_> = (0..3).map(|n| sim.start_node("node", &format!("sim:{n}"))).collect();
    let echoes: Vec<_> = nodes.iter().map(|env| echo_on(env)).collect();
    for from in &nodes {
        for to in &nodes {
            from.transport().set_address(to.node(), to.address());
        }
        let (env, others) = (Arc::clone(from), nodes.iter().map(|node| node.node()).collect::<Vec<_>>());
        sim.spawn_on(from, async move {
            for _ in 0..200 {
                sleep(&*env, Duration::from_micros(env.random_u64() % 5_000)).await;
                let to = others[(env.random_u64() % 3) as usize];
                let payload = Bytes::from(env.random_u64().to_le_bytes().to_vec());
                let _ = env.transport().cast(to, Lane::Control, ECHO, payload.clone());
                let _ = env.transport().call(to, Lane::Normal, ECHO, payload, ms(20)).await;
            }
        });
    }
    sim.run_for(ms(100));
    sim.partition(&nodes[..1], &nodes[1..]);
    sim.run_for(ms(300));
    sim.heal();
    sim.kill(&nodes[2]);
    sim.run_for(ms(3_000));
    (sim.trace_hash(), echoes.iter().map(|echo| echo.payloads()).collect())
}

#[test]
fn a_seed_decides_everything() {
    let first = busy_run(1);
    assert_eq!(first, busy_run(1));
    assert_ne!(first.0, busy_run(2).0);
}

#[test]
fn a_one_way_partition_lets_the_other_way_through() {
    let pair = pair(1);
    pair.call(b"connect", LIMIT).0.expect("connected");
    pair.sim.partition_one_way(&[&pair.a], &[&pair.b]);
    pair.cast("there").expect("queued");
    pair.b.transport().cast(pair.a.node(), Lane::Normal, ECHO, "back".into()).expect("queued");
    pair.sim.run_for(ms(100));
    assert!(pair.at_b.payloads().is_empty());
    assert_eq!(pair.at_a.payloads(), ["back"]);
}

#[test]
fn a_short_partition_delays_and_a_long_one_loses() {
    let pair = pair(1);
    pair.call(b"connect", LIMIT).0.expect("connected");
    pair.sim.partition(&[&pair.a], &[&pair.b]);
    for payload in ["1", "2"] {
        pair.cast(payload).expect("queued");
    }
    pair.sim.run_for(ms(400));
    assert!(pair.at_b.payloads().is_empty());
    pair.sim.heal();
    pair.cast("3").expect("queued");
    pair.sim.run_for(ms(10));
    assert_eq!(pair.at_b.payloads(), ["1", "2", "3"]);
    pair.sim.partition(&["sim:a"], &["sim:b"]);
    pair.cast("4").expect("queued");
    pair.sim.run_for(ms(1_100));
    assert!(!pair.a.transport().is_connected(pair.b.node()));
    pair.sim.heal_between(&["sim:b"], &["sim:a"]);
    pair.cast("5").expect("queued");
    pair.sim.run_for(ms(10));
    assert_eq!(pair.at_b.payloads(), ["1", "2", "3", "5"]);
}

#[test]
fn a_partition_outlives_a_restart() {
    let pair = pair(1);
    pair.sim.partition(&[&pair.a], &[&pair.b]);
    pair.sim.kill(&pair.b);
    pair.sim.start_node("b", "sim:b");
    let found = pair.sim.run_until(LIMIT, pair.a.transport().discover("sim:b", LIMIT)).expect("it ends");
    assert!(matches!(found, Err(CallError::NoPeer { .. })), "{found:?}");
}

#[test]
fn a_paused_node_stands_still_while_its_clock_goes_on() {
    let pair = pair(1);
    pair.call(b"connect", LIMIT).0.expect("connected");
    let ticks = Arc::new(Mutex::new(Vec::new()));
    let (env, seen) = (Arc::clone(&pair.b), Arc::clone(&ticks));
    let start = pair.b.now();
    pair.sim.spawn_on(&pair.b, async move {
        loop {
            sleep(&*env, ms(100)).await;
            seen.lock().push(env.now().since(start).as_millis());
        }
    });
    pair.sim.run_for(ms(150));
    pair.sim.pause(&pair.b);
    pair.cast("1").expect("queued");
    pair.cast("2").expect("queued");
    pair.sim.run_for(ms(300));
    assert_eq!(*ticks.lock(), [100]);
    assert!(pair.at_b.payloads().is_empty());
    pair.sim.resume(&pair.b);
    pair.sim.run_for(ms(110));
    assert_eq!(*ticks.lock(), [100, 450, 550]);
    assert_eq!(pair.at_b.payloads(), ["1", "2"]);
}

#[test]
fn clocks_have_nothing_in_common_and_may_drift() {
    let sim = Sim::new(1, NetConfig::default());
    sim.set_clock_config(ClockConfig { drift_ppm_max: 500, ..ClockConfig::default() });
    let nodes: Vec<_> = (0..8).map(|n| sim.start_node("node", &format!("sim:{n}"))).collect();
    let starts: Vec<_> = nodes.iter().map(|env| env.now()).collect();
    sim.run_for(Duration::from_secs(1_000));
    let passed: Vec<_> = nodes.iter().zip(&starts).map(|(env, start)| env.now().since(*start)).collect();
    for (passed, start) in passed.iter().zip(&starts) {
        assert!((ms(999_500)..=ms(1_000_500)).contains(passed), "{passed:?}");
        assert!(starts.iter().filter(|other| *other == start).count() == 1);
    }
    assert!(passed.iter().any(|other| *other != passed[0]));
}

#[test]
fn a_sleep_follows_its_clock_when_the_drift_changes() {
    let sim = Sim::new(1, NetConfig::default());
    let env = sim.start_node("a", "sim:a");
    let deadline = env.now() + ms(10_000);
    let task = sim.spawn_on(&env, env.sleep_until(deadline));
    sim.run_for(ms(5_000));
    sim.set_drift(&env, 250_000);
    assert!(sim.run_until(LIMIT, task).is_some());
    assert_eq!(sim.elapsed(), ms(9_000));
    assert_eq!(env.now(), deadline);
}

#[test]
fn a_wall_clock_can_jump_both_ways() {
    let sim = Sim::new(1, NetConfig::default());
    let env = sim.start_node("a", "sim:a");
    let before = env.wall_ms();
    sim.run_for(ms(100));
    sim.advance_wall(&env, ms(1_000));
    assert_eq!(env.wall_ms(), before + 1_100);
    sim.set_back_wall(&env, ms(5_000));
    assert_eq!(env.wall_ms(), before - 3_900);
}

#[test]
fn clusters_keep_strangers_out() {
    let pair = pair(1);
    pair.call(b"connect", LIMIT).0.expect("nobody has a cluster yet");
    pair.a.transport().set_cluster(ClusterId(1));
    pair.call(b"still", LIMIT).0.expect("one of the two has none");
    let found = pair.sim.run_until(LIMIT, pair.b.transport().discover("sim:a", LIMIT)).expect("it ends");
    assert_eq!(found.expect("it is there").cluster, Some(ClusterId(1)), "who dials learns it");
    assert_eq!(pair.b.transport().local().cluster, None);
    pair.b.transport().set_cluster(ClusterId(2));
    assert_eq!(pair.b.transport().local().cluster, Some(ClusterId(2)));
    assert!(!pair.a.transport().is_connected(pair.b.node()));
    let (result, took) = pair.call(b"refused", LIMIT);
    assert!(matches!(result, Err(CallError::NotSent(SendError::Unreachable { .. }))), "{result:?}");
    assert!(took < ms(5), "{took:?}");
    let found = pair.sim.run_until(LIMIT, pair.a.transport().discover("sim:b", LIMIT)).expect("it ends");
    assert!(matches!(found, Err(CallError::NoPeer { .. })), "{found:?}");
}

#[test]
fn switched_on_faults_lose_double_and_reorder() {
    let run = |config: NetConfig| {
        let pair = pair_with(1, config);
        for n in 0..100_u8 {
            pair.cast(vec![n]).expect("queued");
            pair.sim.run_for(ms(2));
        }
        pair.sim.run_for(ms(200));
        pair.at_b.payloads().iter().map(|payload| payload[0]).collect::<Vec<_>>()
    };
    let all: Vec<u8> = (0..100).collect();
    assert!(run(NetConfig { loss: 0.5, ..NetConfig::default() }).len() < 80);
    let mut doubled = run(NetConfig { duplication: 0.5, ..NetConfig::default() });
    assert!(doubled.len() > 120);
    doubled.sort_unstable();
    doubled.dedup();
    assert_eq!(doubled, all);
    let mut reordered = run(NetConfig { reordering: 0.5, ..NetConfig::default() });
    assert_ne!(reordered, all);
    reordered.sort_unstable();
    assert_eq!(reordered, all);
}

#[test]
fn queues_and_messages_have_limits() {
    let config = NetConfig { queue_messages_max: 2, message_bytes_max: 10, ..NetConfig::default() };
    let pair = pair_with(1, config);
    let full = Err(SendError::QueueFull { node: pair.b.node() });
    assert_eq!(pair.cast(vec![0; 11]), Err(SendError::TooLarge { bytes: 11, limit_bytes: 10 }));
    for _ in 0..2 {
        assert_eq!([pair.cast("1"), pair.cast("2"), pair.cast("3")], [Ok(()), Ok(()), full.clone()]);
        pair.sim.run_for(ms(10));
    }
    assert_eq!(pair.at_b.payloads().len(), 4);
}

#[test]
fn an_aborted_task_ends_and_the_world_can_be_dropped_with_tasks_in_it() {
    let pair = pair(1);
    let dropped = Arc::new(AtomicBool::new(false));
    let (aborted, env, seen) = (pair.sim.spawn(pending::<()>()), Arc::clone(&pair.a), Arc::clone(&dropped));
    aborted.abort();
    assert_eq!(pair.sim.run_until(LIMIT, aborted), Some(None));
    pair.sim.spawn_on(&pair.a, async move {
        let _guard = OnDrop(move || seen.store(true, Ordering::Relaxed));
        sleep(&*env, LIMIT).await;
    });
    pair.sim.run_for(ms(1));
    let (a, b) = (Arc::downgrade(&pair.a), Arc::downgrade(&pair.b));
    drop(pair);
    assert!(dropped.load(Ordering::Relaxed));
    assert_eq!((a.strong_count(), b.strong_count()), (0, 0));
}

/// A handler that casts to its own node once kept the network busy within a single event.
#[test]
fn a_message_that_sends_itself_again_leaves_room_for_others() {
    struct Again(Arc<SimEnv>);
    impl Handler for Again {
        fn on_cast(&self, from: NodeId, payload: Bytes) {
            self.0.transport().cast(from, Lane::Normal, ServiceId(101), payload).expect("queued");
        }
        fn on_call(&self, _from: NodeId, _payload: Bytes, _reply: Reply) {}
    }
    let pair = pair(1);
    pair.a.transport().register(ServiceId(101), Arc::new(Again(Arc::clone(&pair.a))));
    pair.a.transport().cast(pair.a.node(), Lane::Normal, ServiceId(101), Bytes::new()).expect("queued");
    assert_eq!(pair.sim.run_until(LIMIT, pair.sim.spawn(async { 1 })), Some(Some(1)));
}

#[test]
fn a_dial_under_way_follows_a_newer_address() {
    let pair = pair(1);
    pair.a.transport().set_address(pair.b.node(), "sim:nowhere");
    pair.cast("patient").expect("queued");
    pair.sim.run_for(ms(50));
    pair.a.transport().set_address(pair.b.node(), "sim:b");
    pair.sim.run_for(ms(200));
    assert_eq!(pair.at_b.payloads(), ["patient"]);
}

#[test]
fn a_cut_that_is_mended_at_once_holds_nothing_up() {
    let pair = pair(1);
    pair.call(b"connect", LIMIT).0.expect("connected");
    for n in 0..200_u8 {
        pair.cast(vec![n]).expect("queued");
        pair.sim.partition(&[&pair.a], &[&pair.b]);
        pair.sim.run_for(Duration::from_micros(u64::from(n)));
        pair.sim.heal();
        pair.sim.run_for(Duration::from_micros(50));
    }
    pair.sim.run_for(ms(10));
    assert_eq!(pair.at_b.payloads(), (0..200_u8).map(|n| vec![n]).collect::<Vec<_>>());
}

#[test]
fn a_peer_that_is_paused_for_long_loses_its_connections() {
    let pair = pair(1);
    pair.call(b"connect", LIMIT).0.expect("connected");
    pair.sim.pause(&pair.b);
    let (result, took) = pair.call(b"hello", LIMIT);
    assert_eq!(result, Err(CallError::Lost { node: pair.b.node() }));
    assert!((ms(500)..=ms(1_000)).contains(&took), "{took:?}");
    pair.sim.resume(&pair.b);
    assert_eq!(pair.call(b"again", LIMIT).0, Ok("again".into()));
}

#[test]
#[should_panic(expected = "from within itself")]
fn a_simulation_does_not_run_itself() {
    let sim = Sim::new(1, NetConfig::default());
    let inner = sim.clone();
    sim.run_until(LIMIT, async move { inner.run_for(LIMIT) });
}

/// What the watch has to say by now.
fn told(pair: &Pair, watch: &mut PeerWatch) -> Vec<PeerChange> {
    let mut told = Vec::new();
    while let Some(Some(Ok(event))) = pair.sim.run_until(Duration::ZERO, watch.next()) {
        assert_eq!(event.node, pair.b.node());
        told.push(event.change);
    }
    told
}

/// A pair that is connected, and the first node's watch, after `fault`; what the watch told within `time`.
fn told_after(config: NetConfig, time: Duration, fault: impl FnOnce(&Pair)) -> Vec<PeerChange> {
    let pair = pair_with(1, config);
    let mut watch = pair.a.transport().watch_peers();
    pair.call(b"connect", LIMIT).0.expect("connected");
    assert_eq!(told(&pair, &mut watch), [PeerChange::Up]);
    fault(&pair);
    pair.sim.run_for(time);
    told(&pair, &mut watch)
}

#[test]
fn a_kill_is_told_to_the_peers_at_once_and_ends_their_calls() {
    let told = told_after(NetConfig::default(), ms(2), |pair| pair.sim.kill(&pair.b));
    assert_eq!(told, [PeerChange::Down(DownReason::Died)]);
    let pair = pair(1);
    pair.call(b"connect", LIMIT).0.expect("connected");
    pair.sim.kill(&pair.b);
    let (reply, took) = pair.call(b"hello", LIMIT);
    assert_eq!(reply, Err(CallError::Lost { node: pair.b.node() }));
    assert!(took < ms(2), "{took:?}");
    let (reply, took) = pair.call(b"hello", LIMIT);
    assert!(matches!(reply, Err(CallError::NotSent(_))) && took == Duration::ZERO, "{reply:?} {took:?}");
}

#[test]
fn a_kill_that_is_not_told_and_a_cut_are_noticed_by_their_silence() {
    let untold = NetConfig { death_notice: 0.0, ..NetConfig::default() };
    let silent = [PeerChange::Down(DownReason::Silent)];
    assert_eq!(told_after(untold.clone(), ms(499), |pair| pair.sim.kill(&pair.b)), []);
    assert_eq!(told_after(untold, ms(1001), |pair| pair.sim.kill(&pair.b)), silent);
    let cut = |pair: &Pair| {
        pair.sim.partition(&[&pair.a], &[&pair.b]);
        pair.sim.kill(&pair.b);
    };
    assert_eq!(told_after(NetConfig::default(), ms(499), cut), []);
    assert_eq!(told_after(NetConfig::default(), ms(1001), cut), silent);
}
