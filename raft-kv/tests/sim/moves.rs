//! Splits and merges while clients write, and while nodes die.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use raft_kv::raft_fleet::{CallOptions, CommandNumber};
use raft_kv::rafted_value::env::sleep;
use raft_kv::rafted_value::sim::{SimTask, WatchingShown, plant, watch_shown};
use raft_kv::rafted_value::{Freshness, GroupConfig, GroupId, SessionId};
use raft_kv::sim::{DROP_SESSIONS_AT_SPLIT, REPLAY_MERGE_BACKWARDS, ShardShown};
use raft_kv::{
    Key, KeyRange, KeyspacePolicy, Kv, KvCommandError, KvError, KvNotApplied, KvQueryError, ListPosition,
    RouteError, SplitMergePolicy,
};

use crate::cluster::{Cluster, NODES, SECOND, key, name, policy};

const KEYS: u64 = 24;

pub(crate) fn one_shard() -> KeyspacePolicy {
    KeyspacePolicy { shards: 1, ..policy() }
}

/// What one writer knows of its commands, each of which appends a text of its own to a key.
#[derive(Default)]
pub(crate) struct History {
    /// Key and text.
    done: Vec<(u64, String)>,
    unknown: Vec<(u64, String)>,
    not_applied: Vec<(u64, String)>,
    longest: Duration,
}

/// Writes `count` texts, one after another, to keys of its choice.
async fn write(kv: Kv, writer: u64, count: u64) -> History {
    let mut history = History::default();
    let (env, notes) = (kv.fleet().env().clone(), name("notes"));
    for n in 0..count {
        let (at, text) = (env.random_u64() % KEYS, format!("{writer}.{n};"));
        let began = env.now();
        let options = CallOptions::default().with_timeout(20 * SECOND);
        let reply = kv.command(&notes, &key(&format!("key-{at}")), text.as_bytes(), &options).await;
        history.longest = history.longest.max(env.now().since(began));
        match reply {
            Ok(reply) => {
                assert!(reply.ends_with(text.as_bytes()), "{reply:?} after {text}");
                if env.random_u64().is_multiple_of(3) {
                    // Nothing older may be read than what was written, through whichever node and shard.
                    let key = key(&format!("key-{at}"));
                    if let Ok(value) = kv.query(&notes, &key, Freshness::Latest, b"", &options).await {
                        assert!(value.starts_with(&reply), "{value:?} was read after {reply:?}");
                    }
                }
                history.done.push((at, text));
            }
            Err(KvCommandError::Unknown(_)) => history.unknown.push((at, text)),
            Err(KvCommandError::NotApplied(_)) => history.not_applied.push((at, text)),
        }
        sleep(env.as_ref(), Duration::from_millis(env.random_u64() % 20)).await;
    }
    history
}

pub(crate) fn writers(cluster: &Cluster, count: u64) -> Vec<SimTask<History>> {
    (0..6).map(|writer| cluster.spawn(move |kv| write(kv, writer, count))).collect()
}

/// Every command that has its reply is there once, in the order of its writer; one that was surely not applied is
/// not there; one of which nobody knows is there once at most.
pub(crate) fn check(cluster: &Cluster, histories: Vec<History>) -> Duration {
    let values = cluster.run(|kv| async move {
        let mut values = BTreeMap::new();
        for n in 0..KEYS {
            let options = CallOptions::default().with_timeout(30 * SECOND);
            let value =
                kv.query(&name("notes"), &key(&format!("key-{n}")), Freshness::Latest, b"", &options).await;
            let value = match value {
                Ok(value) => value,
                Err(KvQueryError::KeyNotFound) => Bytes::new(),
                Err(error) => panic!("key-{n}: {error}"),
            };
            values.insert(n, String::from_utf8(value.to_vec()).expect("a text"));
        }
        values
    });
    let times = |at: u64, text: &str| values[&at].split_inclusive(';').filter(|part| *part == text).count();
    let mut longest = Duration::ZERO;
    for history in histories {
        assert!(!history.done.is_empty(), "a writer got nowhere");
        for (at, text) in &history.done {
            assert_eq!(times(*at, text), 1, "{text} in key-{at}: {}", values[at]);
        }
        for (at, text) in &history.unknown {
            assert!(times(*at, text) <= 1, "{text} in key-{at}: {}", values[at]);
        }
        for (at, text) in &history.not_applied {
            assert_eq!(times(*at, text), 0, "{text} in key-{at}: {}", values[at]);
        }
        for at in 0..KEYS {
            let places =
                history.done.iter().filter(|(key, _)| *key == at).map(|(_, text)| values[&at].find(text));
            assert!(places.is_sorted(), "a writer's commands to key-{at} changed places: {}", values[&at]);
        }
        longest = longest.max(history.longest);
    }
    longest
}

/// Waits until no move is under way; gives the shards' numbers in the order of their ranges.
pub(crate) async fn settled(kv: &Kv) -> Vec<u32> {
    let env = kv.fleet().env().clone();
    let deadline = env.now() + 120 * SECOND;
    loop {
        match kv.moves().await {
            Ok(moves) if moves.is_empty() => break,
            other => assert!(env.now() < deadline, "a move does not end: {other:?}"),
        }
        sleep(env.as_ref(), Duration::from_millis(50)).await;
    }
    let keyspace = kv.keyspace(&name("notes")).await.expect("it is there");
    keyspace.shards.iter().map(|shard| shard.number).collect()
}

#[test]
fn a_shard_is_split_and_merged_again_while_clients_write() {
    let cluster = Cluster::new(31);
    cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &one_shard()).await.unwrap() });
    let writing = writers(&cluster, 300);
    let shards = cluster.run(|kv| async move {
        kv.split_shard(&name("notes"), 0, None).await.unwrap();
        settled(&kv).await
    });
    assert_eq!(shards, [0, 1]);
    let statuses = cluster.run(|kv| async move { kv.shard_statuses(&name("notes")).await.unwrap() });
    assert!(statuses.iter().all(|status| status.keys > 0 && !status.moving), "{statuses:?}");
    let shards = cluster.run(|kv| async move {
        kv.merge_shards(&name("notes"), 0, 1).await.unwrap();
        settled(&kv).await
    });
    assert_eq!(shards, [1]);
    let histories: Vec<History> = writing.into_iter().map(|task| cluster.wait(task).unwrap()).collect();
    assert!(histories.iter().all(|history| history.unknown.is_empty() && history.not_applied.is_empty()));
    let longest = check(&cluster, histories);
    assert!(longest < Duration::from_millis(250), "a command took {longest:?}");
    // The group of the shard that ended is removed, and the rest of it is forgotten.
    let groups = cluster.run(|kv| async move { kv.fleet().cluster().groups().len() });
    assert_eq!(groups, 2, "the list of keyspaces and one shard");
}

/// A node dies at a time of the seed's choice while a shard is split, or while two are merged; another goes on.
#[test]
fn a_move_whose_performer_or_leader_dies_is_finished_by_another() {
    let mut interrupted = 0;
    for seed in 40..52 {
        let mut cluster = Cluster::new(seed);
        let mut rng = cluster.sim.rng();
        cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &one_shard()).await.unwrap() });
        let writing = writers(&cluster, 400);
        cluster.sim.run_for(SECOND);
        let merges = seed % 2 == 1;
        cluster.run(move |kv| async move {
            kv.split_shard(&name("notes"), 0, None).await.unwrap();
            if merges {
                settled(&kv).await;
                kv.merge_shards(&name("notes"), 1, 0).await.unwrap();
            }
        });
        let node = (rng.duration(Duration::ZERO, SECOND).as_nanos() % NODES as u128) as usize;
        cluster.sim.run_for(rng.duration(Duration::ZERO, Duration::from_millis(1500)));
        cluster.sim.kill(&cluster.nodes[node].0);
        interrupted += cluster.run(|kv| async move { kv.moves().await.map_or(0, |moves| moves.len()) });
        cluster.sim.run_for(rng.duration(Duration::ZERO, 2 * SECOND));
        cluster.restart(node);
        let shards = cluster.run(|kv| async move { settled(&kv).await });
        assert_eq!(shards, if merges { vec![0] } else { vec![0, 1] }, "seed {seed}");
        let histories = writing.into_iter().map(|task| cluster.wait(task).unwrap()).collect();
        check(&cluster, histories);
    }
    assert!(interrupted >= 4, "only {interrupted} moves were under way when a node died");
}

/// Shards are split while they hold too many keys, and merged when the keys are gone.
#[test]
fn shards_follow_their_policy() {
    let cluster = Cluster::new(61);
    let put = |kv: Kv, text: &'static [u8]| async move {
        for n in 0..200 {
            let options = CallOptions::default();
            kv.command(&name("notes"), &key(&format!("key-{n}")), text, &options)
                .await
                .expect("it is written");
        }
    };
    let shards = cluster.run(move |kv| async move {
        let split_merge = SplitMergePolicy {
            max_keys: Some(40),
            cooling_ms: 3000,
            max_shards: 12,
            min_shards: 2,
            ..SplitMergePolicy::default()
        };
        let policy = KeyspacePolicy { shards: 2, split_merge, ..policy() };
        kv.register_keyspace(&name("notes"), &policy).await.unwrap();
        put(kv.clone(), b"x").await;
        sleep(kv.fleet().env().as_ref(), 60 * SECOND).await;
        let statuses = kv.shard_statuses(&name("notes")).await.unwrap();
        assert!(statuses.iter().all(|status| status.keys <= 40), "{statuses:?}");
        assert_eq!(statuses.iter().map(|status| status.keys).sum::<u64>(), 200);
        // An empty command removes a text.
        put(kv.clone(), b"").await;
        sleep(kv.fleet().env().as_ref(), 100 * SECOND).await;
        kv.keyspace(&name("notes")).await.unwrap().shards
    });
    assert_eq!(shards.len(), 2, "{shards:?}");
}

/// In the original this killed the group of the keyspaces (fault 11).
#[test]
fn a_keyspace_that_is_deregistered_during_a_split_leaves_nothing_behind() {
    for seed in 70..76 {
        let cluster = Cluster::new(seed);
        let mut rng = cluster.sim.rng();
        cluster.run(|kv| async move {
            kv.register_keyspace(&name("other"), &one_shard()).await.unwrap();
            kv.register_keyspace(&name("notes"), &one_shard()).await.unwrap();
            kv.command(&name("notes"), &key("k"), b"x", &CallOptions::default()).await.unwrap();
            kv.split_shard(&name("notes"), 0, None).await.unwrap();
        });
        cluster.sim.run_for(rng.duration(Duration::ZERO, 2 * SECOND));
        cluster.run(|kv| async move {
            kv.deregister_keyspace(&name("notes")).await.unwrap();
            let missing = RouteError::NoSuchKeyspace(name("notes"));
            let error =
                kv.command(&name("notes"), &key("k"), b"x", &CallOptions::default()).await.unwrap_err();
            assert_eq!(error, KvCommandError::NotApplied(KvNotApplied::Route(missing)));
            let again = kv.deregister_keyspace(&name("notes")).await.unwrap_err();
            assert!(matches!(again, KvError::NoSuchKeyspace(_)), "{again}");
            // The name is free at once, and what was there is not there any more.
            kv.register_keyspace(&name("notes"), &one_shard()).await.unwrap();
            let options = CallOptions::default();
            let answer = kv.query(&name("notes"), &key("k"), Freshness::Latest, b"", &options).await;
            assert_eq!(answer.unwrap_err(), KvQueryError::KeyNotFound);
        });
        // A performer that had just made the new shard's group is found out by whoever looks next.
        cluster.sim.run_for(20 * SECOND);
        let groups = cluster.run(|kv| async move {
            assert_eq!(kv.list_keyspaces().await.unwrap().len(), 2);
            kv.command(&name("other"), &key("k"), b"x", &CallOptions::default()).await.unwrap();
            kv.fleet().cluster().groups().keys().map(ToString::to_string).collect::<Vec<_>>()
        });
        assert_eq!(groups, ["kv-keyspaces", "kv/notes/3.0", "kv/other/1.0"], "seed {seed}");
    }
}

/// In the original an aborted workflow left its shards locked for ever (fault 12).
#[test]
fn a_split_that_cannot_be_done_leaves_the_shard_as_it_was() {
    let cluster = Cluster::new(81);
    cluster.run(|kv| async move {
        // A value grows beyond what a command of the group may carry, so that it cannot be moved.
        let group = GroupConfig { command_bytes_max: 4000, ..policy().group };
        let policy = KeyspacePolicy { group, ..one_shard() };
        kv.register_keyspace(&name("notes"), &policy).await.unwrap();
        let options = CallOptions::default();
        for _ in 0..3 {
            kv.command(&name("notes"), &key("large"), &[b'x'; 2000], &options).await.unwrap();
        }
        kv.split_shard(&name("notes"), 0, Some(1)).await.unwrap();
        assert_eq!(settled(&kv).await, [0]);
        let statuses = kv.shard_statuses(&name("notes")).await.unwrap();
        assert!(!statuses[0].moving);
        let reply = kv.command(&name("notes"), &key("large"), b"!", &options).await.unwrap();
        assert_eq!(reply.len(), 6001);
        // ... and it may be split where the value stays.
        let hash = key("large").hash();
        kv.split_shard(&name("notes"), 0, Some(hash + 1)).await.unwrap();
        assert_eq!(settled(&kv).await.len(), 2);
    });
}

/// The power goes while a shard is split or two are merged; the move goes on from what the disks hold.
#[test]
fn a_store_on_disks_that_loses_its_power_during_a_move_comes_back_with_every_command() {
    for seed in 130..134 {
        let mut cluster = Cluster::on_disks(seed);
        let mut rng = cluster.sim.rng();
        cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &one_shard()).await.unwrap() });
        let writing = writers(&cluster, 250);
        cluster.sim.run_for(SECOND);
        let merges = seed % 2 == 1;
        cluster.run(move |kv| async move {
            kv.split_shard(&name("notes"), 0, None).await.unwrap();
            if merges {
                settled(&kv).await;
                kv.merge_shards(&name("notes"), 1, 0).await.unwrap();
            }
        });
        cluster.sim.run_for(rng.duration(Duration::ZERO, Duration::from_millis(1500)));
        cluster.lose_power();
        let shards = cluster.run(|kv| async move { settled(&kv).await });
        assert_eq!(shards, if merges { vec![0] } else { vec![0, 1] }, "seed {seed}");
        let histories = writing.into_iter().map(|task| cluster.wait(task).unwrap()).collect();
        check(&cluster, histories);
    }
}

/// Only the range that goes is served by nobody for a moment.
#[test]
fn commands_to_keys_that_stay_are_not_held_up_by_a_split() {
    let cluster = Cluster::new(139);
    cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &one_shard()).await.unwrap() });
    let middle = u64::MAX / 2;
    let write = |splits: bool| {
        move |kv: Kv| async move {
            let env = kv.fleet().env().clone();
            let stay: Vec<_> =
                (0..40).map(|n| key(&format!("key-{n}"))).filter(|key| key.hash() <= middle).collect();
            if splits {
                kv.split_shard(&name("notes"), 0, None).await.unwrap();
            }
            let (mut longest, mut shards) = (Duration::ZERO, 0);
            for n in 0..600 {
                let began = env.now();
                let (key, options) = (&stay[n % stay.len()], CallOptions::default());
                kv.command(&name("notes"), key, b"x", &options).await.unwrap();
                longest = longest.max(env.now().since(began));
                if n % 100 == 99 {
                    shards = kv.keyspace(&name("notes")).await.unwrap().shards.len();
                }
            }
            (longest, shards)
        }
    };
    let (undisturbed, one) = cluster.run(write(false));
    let (disturbed, two) = cluster.run(write(true));
    assert_eq!((one, two), (1, 2), "it was split meanwhile");
    assert!(disturbed < undisturbed * 2, "{disturbed:?} with a split, {undisturbed:?} without");
}

/// Splits of different shards go on at once, up to the limit.
#[test]
fn several_shards_are_split_at_once() {
    let cluster = Cluster::new(140);
    cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &policy()).await.unwrap() });
    let writing = writers(&cluster, 200);
    let at_once = cluster.run(|kv| async move {
        for shard in 0..4 {
            kv.split_shard(&name("notes"), shard, None).await.unwrap();
        }
        let full = kv.split_shard(&name("notes"), 4, None).await.unwrap_err();
        assert!(matches!(full, KvError::Move { .. }), "{full}");
        let mut at_once = 0;
        loop {
            let moves = kv.moves().await.unwrap();
            at_once = at_once.max(moves.iter().filter(|moving| moving.epoch > 0).count());
            if moves.is_empty() {
                break at_once;
            }
            sleep(kv.fleet().env().as_ref(), Duration::from_millis(10)).await;
        }
    });
    assert!(at_once > 1, "only {at_once} was performed at a time");
    let shards = cluster.run(|kv| async move { kv.keyspace(&name("notes")).await.unwrap().shards });
    assert_eq!(shards.len(), 8);
    check(&cluster, writing.into_iter().map(|task| cluster.wait(task).unwrap()).collect());
}

/// A client that was cut off while a shard was split and merged still has the routes of before; it finds every key.
#[test]
fn routes_of_the_past_heal_by_themselves() {
    let cluster = Cluster::new(150);
    let put = |kv: Kv| async move {
        for n in 0..40 {
            let options = CallOptions::default();
            let reply = kv.command(&name("notes"), &key(&format!("key-{n}")), b"x", &options).await;
            assert!(reply.is_ok(), "key-{n}: {reply:?}");
        }
    };
    cluster.run(move |kv| async move {
        kv.register_keyspace(&name("notes"), &policy()).await.unwrap();
        put(kv).await;
    });
    let nodes: Vec<_> = cluster.nodes.iter().map(|(env, _)| env.clone()).collect();
    let client = [cluster.client_env().clone()];
    cluster.sim.partition(&client, &nodes);
    let moved = cluster.spawn_on(0, |kv| async move {
        kv.split_shard(&name("notes"), 0, None).await.unwrap();
        kv.split_shard(&name("notes"), 3, None).await.unwrap();
        settled(&kv).await;
        kv.merge_shards(&name("notes"), 1, 2).await.unwrap();
        settled(&kv).await
    });
    assert_eq!(cluster.wait(moved), Some(vec![0, 4, 2, 3, 5]));
    cluster.sim.heal();
    cluster.run(put);
}

/// Queries are load too, those for keys that are not there as much as the policy says.
#[test]
fn a_shard_with_too_much_load_is_split_and_one_hot_key_is_told_and_not_split() {
    let cluster = Cluster::new(160);
    let read = |kv: Kv, keys: u64, seconds: u32| async move {
        let env = kv.fleet().env().clone();
        let end = env.now() + SECOND * seconds;
        while env.now() < end {
            let at = key(&format!("key-{}", env.random_u64() % keys));
            drop(kv.query(&name("notes"), &at, Freshness::Latest, b"", &CallOptions::default()).await);
        }
    };
    let shards = |kv: Kv| async move { kv.keyspace(&name("notes")).await.expect("it is there").shards.len() };
    cluster.run(move |kv| async move {
        let split_merge = SplitMergePolicy {
            max_load: Some(100),
            miss_load: 3,
            max_shards: 3,
            merge_percent: 0,
            cooling_ms: 1000,
            ..SplitMergePolicy::default()
        };
        kv.register_keyspace(&name("notes"), &KeyspacePolicy { split_merge, ..one_shard() }).await.unwrap();
        let at = key("key-0");
        kv.command(&name("notes"), &at, b"x", &CallOptions::default()).await.unwrap();
        read(kv.clone(), 1, 40).await;
        let statuses = kv.shard_statuses(&name("notes")).await.unwrap();
        assert_eq!(statuses.len(), 1, "one key was split");
        assert_eq!(statuses[0].hot_hash, Some(at.hash()));
        assert!(statuses[0].load > 4000, "{statuses:?}");
        read(kv.clone(), 200, 120).await;
        assert_eq!(shards(kv).await, 3);
    });
}

/// What is shown of shards as they change, by group, the newest last.
pub(crate) type Seen = Rc<RefCell<BTreeMap<GroupId, Vec<ShardShown>>>>;

pub(crate) fn watch_shards() -> (Seen, WatchingShown) {
    let seen = Seen::default();
    let watching = watch_shown({
        let seen = seen.clone();
        move |group, shown| {
            if let Some(shard) = shown.downcast_ref::<ShardShown>() {
                seen.borrow_mut().entry(group).or_default().push(shard.clone());
            }
        }
    });
    (seen, watching)
}

/// What a harness judges must be what there is: ranges and keys as everybody else is told of them, before a split, after it
/// and after a merge, and each range on its way at both of its ends.
#[test]
fn shards_show_the_ranges_and_keys_that_they_have_and_what_is_on_its_way() {
    let cluster = Cluster::new(170);
    let (seen, _watching) = watch_shards();
    cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &one_shard()).await.unwrap() });
    let change = |keys: std::ops::Range<u64>, text: &'static [u8]| {
        cluster.run(move |kv| async move {
            for n in keys {
                let options = CallOptions::default();
                kv.command(&name("notes"), &key(&format!("key-{n}")), text, &options).await.unwrap();
            }
        });
    };
    let check = || {
        let mut listed = cluster.run(|kv| async move {
            let ranges: Vec<KeyRange> =
                kv.keyspace(&name("notes")).await.unwrap().shards.iter().map(|shard| shard.range).collect();
            let page = kv.scan_keys(&name("notes"), b"", &ListPosition::default(), 1000).await.unwrap();
            (ranges, page.keys)
        });
        let seen = seen.borrow();
        let serving = seen.values().filter_map(|shown| shown.last()).filter(|shown| shown.serves.is_some());
        let mut shown: Vec<&ShardShown> = serving.collect();
        shown.sort_by_key(|shown| shown.range.map(|range| range.first()));
        assert!(shown.iter().all(|shown| shown.serves == shown.range), "{shown:?}");
        assert_eq!(shown.iter().filter_map(|shown| shown.range).collect::<Vec<_>>(), listed.0);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for (hash, shown) in shown.iter().flat_map(|shown| &shown.keys) {
            assert_eq!(*hash, Key::new(shown.to_vec()).expect("a valid key").hash());
            keys.push(shown.to_vec());
        }
        keys.sort();
        listed.1.sort();
        assert_eq!(keys, listed.1);
        listed.0.len()
    };
    change(0..30, b"x");
    assert_eq!(check(), 1);
    cluster.run(|kv| async move { kv.split_shard(&name("notes"), 0, None).await.unwrap() });
    cluster.run(|kv| async move { settled(&kv).await });
    // An empty command removes a text.
    change(0..10, b"");
    change(30..40, b"x");
    assert_eq!(check(), 2);
    let moved = cluster.run(|kv| async move { kv.merge_shards(&name("notes"), 0, 1).await.unwrap().range });
    cluster.run(|kv| async move { settled(&kv).await });
    change(10..15, b"");
    assert_eq!(check(), 1);
    for range in [KeyRange::part(1, 2), moved] {
        let seen = seen.borrow();
        let ends = |end: fn(&ShardShown) -> Option<KeyRange>| {
            seen.values().filter(|shown| shown.iter().any(|shown| end(shown) == Some(range))).count()
        };
        assert_eq!((ends(|shown| shown.sends), ends(|shown| shown.receives)), (1, 1), "{range}");
    }
}

/// Runs every command twice that a split has moved to another shard, where its record stayed behind; gives how many.
fn run_twice(plants: bool) -> usize {
    let cluster = Cluster::new(171);
    cluster.run(|kv| async move {
        kv.register_keyspace(&name("notes"), &one_shard()).await.expect("nothing fails here");
    });
    let send_all = || {
        cluster.run(|kv| async move {
            let mut replies = Vec::new();
            for n in 0..20 {
                let number = Some(CommandNumber { session: SessionId::new(7, n), sequence: 1 });
                let options = CallOptions { number, ..CallOptions::default() };
                replies.push(
                    kv.command(&name("notes"), &key(&format!("key-{n}")), b"x", &options)
                        .await
                        .expect("nothing fails here"),
                );
            }
            replies
        })
    };
    assert!(send_all().iter().all(|reply| reply == "x"));
    let planted = plants.then(|| plant(DROP_SESSIONS_AT_SPLIT));
    cluster
        .run(|kv| async move { kv.split_shard(&name("notes"), 0, None).await.expect("nothing fails here") });
    assert_eq!(cluster.run(|kv| async move { settled(&kv).await }), [0, 1]);
    drop(planted);
    send_all().iter().filter(|reply| *reply != "x").count()
}

#[test]
fn records_stay_behind_at_a_split_only_while_that_is_planted() {
    assert_eq!(run_twice(false), 0);
    let twice = run_twice(true);
    assert!((1..20).contains(&twice), "{twice} of 20 commands ran twice");
}

/// Writes while two shards are merged; gives how many keys lack something that was written.
fn older_values(plants: bool) -> usize {
    /// To each key.
    const WRITES: usize = 200;
    let cluster = Cluster::new(172);
    let policy = KeyspacePolicy { shards: 2, ..policy() };
    cluster.run(|kv| async move {
        kv.register_keyspace(&name("notes"), &policy).await.expect("nothing fails here");
    });
    let write = |kv: Kv, writer: u64| async move {
        for n in 0..4 * WRITES {
            let at = format!("key-{writer}-{}", n % 4);
            let options = CallOptions::default();
            kv.command(&name("notes"), &key(&at), b"x", &options).await.expect("nothing fails here");
        }
    };
    let writing: Vec<_> = (0..4).map(|writer| cluster.spawn(move |kv| write(kv, writer))).collect();
    cluster.sim.run_for(SECOND / 10);
    let planted = plants.then(|| plant(REPLAY_MERGE_BACKWARDS));
    cluster.run(|kv| async move { kv.merge_shards(&name("notes"), 0, 1).await.expect("nothing fails here") });
    assert_eq!(cluster.run(|kv| async move { settled(&kv).await }), [1]);
    drop(planted);
    writing.into_iter().for_each(|task| cluster.wait(task).expect("the client lives"));
    cluster.run(|kv| async move {
        let mut older = 0;
        for at in (0..4).flat_map(|writer| (0..4).map(move |n| format!("key-{writer}-{n}"))) {
            let options = CallOptions::default();
            let value = kv
                .query(&name("notes"), &key(&at), Freshness::Latest, b"", &options)
                .await
                .expect("nothing fails here");
            older += usize::from(value.len() != WRITES);
        }
        older
    })
}

#[test]
fn the_older_value_wins_at_a_merge_only_while_that_is_planted() {
    assert_eq!(older_values(false), 0);
    let older = older_values(true);
    assert!(older > 0, "no key lost a command");
}
