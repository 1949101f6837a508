//! Commands and queries for keys, through any node.

use bytes::Bytes;
use raft_kv::raft_fleet::CallOptions;
use raft_kv::rafted_value::env::sleep;
use raft_kv::rafted_value::{Freshness, NotApplied};
use raft_kv::{KeyspacePolicy, KvCommandError, KvNotApplied, KvQueryError};

use crate::cluster::{Cluster, NODES, SECOND, key, name, policy};

#[test]
fn a_value_lives_from_its_first_command_until_it_is_removed() {
    let cluster = Cluster::new(21);
    cluster.run(|kv| async move {
        let (notes, key, options) = (name("notes"), key("groceries"), CallOptions::default());
        kv.register_keyspace(&notes, &policy()).await.unwrap();
        let query = || kv.query(&notes, &key, Freshness::Latest, b"", &options);
        let command = |text: &'static [u8]| kv.command(&notes, &key, text, &options);
        assert_eq!(query().await, Err(KvQueryError::KeyNotFound));
        assert_eq!(command(b"milk").await, Ok(Bytes::from("milk")));
        assert_eq!(command(b" bread").await, Ok(Bytes::from("milk bread")));
        let refused = KvNotApplied::Group(NotApplied::Refused("as it was told".into()));
        assert_eq!(command(b"refuse").await, Err(KvCommandError::NotApplied(refused)));
        assert_eq!(query().await, Ok(Bytes::from("milk bread")));
        assert_eq!(command(b"").await, Ok(Bytes::new()));
        assert_eq!(query().await, Err(KvQueryError::KeyNotFound));
    });
}

#[test]
fn every_node_reaches_every_key_and_the_keys_are_spread() {
    let cluster = Cluster::new(22);
    cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &policy()).await.unwrap() });
    for node in 0..NODES {
        let task = cluster.spawn_on(node, move |kv| async move {
            for n in 0..40 {
                let reply = kv
                    .command(&name("notes"), &key(&format!("key-{n}")), b"x", &CallOptions::default())
                    .await;
                assert_eq!(reply.unwrap().len(), node + 1);
            }
        });
        cluster.wait(task).unwrap();
    }
    cluster.run(|kv| async move {
        let statuses = kv.shard_statuses(&name("notes")).await.unwrap();
        assert_eq!(statuses.iter().map(|status| status.keys).sum::<u64>(), 40);
        assert_eq!(statuses.iter().map(|status| status.size).sum::<u64>(), 40 * NODES as u64);
        assert!(statuses.iter().all(|status| status.keys > 0), "{statuses:?}");
    });
    cluster.sim.run_for(SECOND);
    let local = cluster.spawn_on(0, |kv| async move { kv.local_shards("texts").await });
    let local = cluster.wait(local).unwrap();
    assert_eq!(local.iter().map(|shard| shard.keys).sum::<u64>(), 40);
}

/// A handler that panics: its command changes nothing on any member, keys beside it go on, and so do splits.
#[test]
fn a_command_that_panics_changes_nothing_and_keys_beside_it_go_on() {
    let cluster = Cluster::new(23);
    cluster.run(|kv| async move {
        let (notes, options) = (name("notes"), CallOptions::default());
        kv.register_keyspace(&notes, &KeyspacePolicy { shards: 1, ..policy() }).await.unwrap();
        for n in 0..20 {
            kv.command(&notes, &key(&format!("key-{n}")), b"x", &options).await.unwrap();
        }
        let panicked = kv.command(&notes, &key("key-3"), b"panic", &options).await.unwrap_err();
        let KvCommandError::NotApplied(KvNotApplied::Group(NotApplied::Panicked(_))) = panicked else {
            panic!("{panicked}");
        };
        kv.split_shard(&notes, 0, None).await.unwrap();
        while !kv.moves().await.unwrap().is_empty() {
            sleep(kv.fleet().env().as_ref(), SECOND / 10).await;
        }
        for n in 0..20 {
            let reply = kv.command(&notes, &key(&format!("key-{n}")), b"y", &options).await;
            assert_eq!(reply, Ok(Bytes::from("xy")));
        }
        let statuses = kv.shard_statuses(&notes).await.unwrap();
        assert_eq!(statuses.len(), 2);
    });
    for node in 0..NODES {
        let host = cluster.spawn_on(node, |kv| async move {
            let host = kv.fleet().host().expect("a node").clone();
            host.statuses().await.into_iter().filter(|status| status.fenced.is_some()).count()
        });
        assert_eq!(cluster.wait(host), Some(0), "nobody is fenced");
    }
}
