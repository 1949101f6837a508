//! Scans, commands to all keys, and many keys at once, across splits and merges.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use raft_kv::raft_fleet::CallOptions;
use raft_kv::rafted_value::env::sleep;
use raft_kv::{
    BytesStore, Key, KeyRange, KeyspacePolicy, Kv, KvCommandError, KvNotApplied, KvQueryError, ListPosition,
};

use crate::cluster::{Cluster, SECOND, key, name, policy};

const KEYS: u32 = 400;

fn two_shards() -> KeyspacePolicy {
    KeyspacePolicy { shards: 2, ..policy() }
}

async fn fill(kv: &Kv) {
    kv.register_keyspace(&name("notes"), &two_shards()).await.expect("it is registered");
    for n in 0..KEYS {
        let at = key(&format!("key-{n}"));
        kv.command(&name("notes"), &at, b"x", &CallOptions::default()).await.expect("it is written");
    }
}

/// Splits shard 0, merges what came of it, and splits again, for as long as it takes.
async fn churn(kv: Kv) {
    let env = kv.fleet().env().clone();
    for _ in 0..3 {
        let shards = kv.keyspace(&name("notes")).await.expect("it is there").shards;
        drop(kv.split_shard(&name("notes"), shards[0].number, None).await);
        sleep(env.as_ref(), 3 * SECOND).await;
        let shards = kv.keyspace(&name("notes")).await.expect("it is there").shards;
        drop(kv.merge_shards(&name("notes"), shards[0].number, shards[1].number).await);
        sleep(env.as_ref(), 3 * SECOND).await;
    }
}

#[test]
fn a_scan_gives_every_key_once_while_shards_split_and_merge() {
    let cluster = Cluster::new(91);
    cluster.run(|kv| async move { fill(&kv).await });
    let churning = cluster.spawn(churn);
    let (scans, shards_seen) = cluster.run(|kv| async move {
        let (mut scans, mut shards_seen) = (Vec::new(), BTreeSet::new());
        for _ in 0..6 {
            let (mut keys, mut from) = (Vec::new(), ListPosition::default());
            loop {
                let page = kv.scan_keys(&name("notes"), b"key-1", &from, 7).await.unwrap();
                keys.extend(page.keys);
                shards_seen.insert(kv.keyspace(&name("notes")).await.unwrap().shards.len());
                sleep(kv.fleet().env().as_ref(), Duration::from_millis(100)).await;
                match page.next {
                    Some(next) => from = next,
                    None => break,
                }
            }
            scans.push(keys);
        }
        (scans, shards_seen)
    });
    cluster.wait(churning).unwrap();
    assert!(shards_seen.len() > 1, "nothing was split while the scans ran: {shards_seen:?}");
    let wanted: BTreeSet<Vec<u8>> =
        (0..KEYS).map(|n| format!("key-{n}").into_bytes()).filter(|key| key.starts_with(b"key-1")).collect();
    for scan in scans {
        assert_eq!(scan.len(), wanted.len());
        assert_eq!(scan.into_iter().collect::<BTreeSet<_>>(), wanted);
    }
}

/// In the original a command to all keys during a move was applied twice or never.
#[test]
fn a_command_to_all_keys_runs_once_on_each_while_shards_split_and_merge() {
    for seed in 100..104 {
        let mut cluster = Cluster::new(seed);
        let mut rng = cluster.sim.rng();
        cluster.run(|kv| async move { fill(&kv).await });
        let churning = cluster.spawn(churn);
        let running = cluster.spawn(|kv| async move {
            for text in ["a", "b", "c", "d", "e", "f"] {
                let options = CallOptions::default().with_timeout(30 * SECOND);
                let mut run = kv.all_keys(KeyRange::ALL, &options);
                while let Err(error) =
                    kv.command_all(&name("notes"), &mut run, text.as_bytes(), &options).await
                {
                    assert!(run.left().is_some(), "{error}");
                }
                sleep(kv.fleet().env().as_ref(), 2 * SECOND).await;
            }
        });
        cluster.sim.run_for(rng.duration(Duration::ZERO, 6 * SECOND));
        cluster.sim.kill(&cluster.nodes[0].0);
        cluster.sim.run_for(SECOND);
        cluster.restart(0);
        cluster.wait(churning).unwrap();
        cluster.wait(running).unwrap();
        let values = cluster.run(|kv| async move {
            let keys: Vec<Key> = (0..KEYS).map(|n| key(&format!("key-{n}"))).collect();
            kv.query_many(&name("notes"), &keys, b"", &CallOptions::default()).await
        });
        for value in values {
            assert_eq!(value.unwrap(), Bytes::from("xabcdef"), "seed {seed}");
        }
    }
}

#[test]
fn a_command_to_all_keys_of_one_shard_leaves_the_others_alone_and_passes_over_refusals() {
    let cluster = Cluster::new(110);
    cluster.run(|kv| async move {
        fill(&kv).await;
        let shards = kv.keyspace(&name("notes")).await.unwrap().shards;
        let options = CallOptions::default();
        let mut run = kv.all_keys(shards[1].range, &options);
        kv.command_all(&name("notes"), &mut run, b"y", &options).await.unwrap();
        let mut refused = kv.all_keys(shards[1].range, &options);
        kv.command_all(&name("notes"), &mut refused, b"refuse", &options).await.unwrap();
        assert_eq!((refused.keys, refused.refused), (0, run.keys));
        let keys: Vec<Key> = (0..KEYS).map(|n| key(&format!("key-{n}"))).collect();
        let values = kv.query_many(&name("notes"), &keys, b"", &options).await;
        for (key, value) in keys.iter().zip(values) {
            let wanted = if shards[1].range.contains(key.hash()) { "xy" } else { "x" };
            assert_eq!(value.unwrap(), Bytes::from(wanted));
        }
        let count = kv.keys_of(&name("notes"), shards[1].range, b"", 10_000).await.unwrap().keys.len();
        assert_eq!(count as u64, run.keys);
    });
}

#[test]
fn a_store_of_bytes_needs_no_callback() {
    let cluster = Cluster::new(120);
    cluster.run(|kv| async move {
        let store = BytesStore::new(kv, name("bytes"), CallOptions::default());
        let policy =
            KeyspacePolicy { shards: 2, key_bytes_max: 10, value_bytes_max: 100, ..BytesStore::policy() };
        store.register(&policy).await.unwrap();
        assert_eq!(store.get(&key("a")).await, Ok(None));
        assert_eq!(store.set(&key("a"), "1").await, Ok(false));
        assert_eq!(store.set(&key("a"), "2").await, Ok(true));
        let swapped = store.compare_and_set(&key("a"), Some("1".into()), Some("3".into())).await;
        assert_eq!(swapped, Ok(Err(Some("2".into()))));
        let swapped = store.compare_and_set(&key("a"), Some("2".into()), Some("3".into())).await;
        assert_eq!(swapped, Ok(Ok(())));
        assert_eq!(store.set(&key("b"), "4").await, Ok(false));
        let many = store.multi_get(&[key("b"), key("none"), key("a")]).await;
        assert_eq!(many, [Ok(Some("4".into())), Ok(None), Ok(Some("3".into()))]);
        let page = store.scan_keys(b"", &ListPosition::default(), 10).await.unwrap();
        assert_eq!(page.keys.into_iter().collect::<BTreeSet<_>>(), [b"a".to_vec(), b"b".to_vec()].into());
        assert_eq!(store.del(&key("a")).await, Ok(true));
        assert_eq!(store.del(&key("a")).await, Ok(false));
        // What is over a limit is named, and changes nothing.
        let long = store.set(&key("12345678901"), "x").await.unwrap_err();
        let (bytes, limit_bytes) = (11, 10);
        assert_eq!(long, KvCommandError::NotApplied(KvNotApplied::KeyTooLong { bytes, limit_bytes }));
        let large = store.set(&key("a"), vec![7; 101]).await.unwrap_err();
        let (bytes, limit_bytes) = (101, 100);
        assert_eq!(large, KvCommandError::NotApplied(KvNotApplied::ValueTooLarge { bytes, limit_bytes }));
        assert_eq!(store.get(&key("a")).await, Ok(None));
        let missing = BytesStore::new(store.kv().clone(), name("nowhere"), CallOptions::default());
        assert!(matches!(missing.get(&key("a")).await, Err(KvQueryError::Route(_))));
        assert!(matches!(missing.multi_get(&[key("a")]).await[0], Err(KvQueryError::Route(_))));
    });
}
