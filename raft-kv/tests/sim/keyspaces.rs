//! Registering keyspaces, once, many times, and half.

use std::time::Duration;

use raft_kv::raft_fleet::CallOptions;
use raft_kv::rafted_value::Freshness;
use raft_kv::{
    KeyRange, KeyspacePolicy, KeyspaceState, KvCommandError, KvError, KvNotApplied, KvQueryError, RouteError,
    SplitMergePolicy,
};

use crate::cluster::{Cluster, NODES, SECOND, key, name, policy};
use crate::moves::{settled, watch_shards};

/// In the original, a command to an unknown keyspace was an internal crash instead of an error (fault 13).
#[test]
fn an_unknown_keyspace_is_an_error_value() {
    let cluster = Cluster::new(1);
    let check = || {
        cluster.run(|kv| async move {
            let options = CallOptions::default();
            let missing = RouteError::NoSuchKeyspace(name("nowhere"));
            let error = kv.command(&name("nowhere"), &key("k"), b"x", &options).await.unwrap_err();
            assert_eq!(error, KvCommandError::NotApplied(KvNotApplied::Route(missing.clone())));
            let error =
                kv.query(&name("nowhere"), &key("k"), Freshness::Latest, b"", &options).await.unwrap_err();
            assert_eq!(error, KvQueryError::Route(missing));
        });
    };
    // Before there is any keyspace, and beside one.
    check();
    cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &policy()).await.unwrap() });
    check();
}

#[test]
fn three_nodes_and_a_client_register_one_keyspace_at_once() {
    let cluster = Cluster::new(2);
    let tasks: Vec<_> = (0..NODES)
        .map(|node| {
            cluster.spawn_on(node, |kv| async move { kv.register_keyspace(&name("notes"), &policy()).await })
        })
        .collect();
    cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &policy()).await.unwrap() });
    for task in tasks {
        cluster.wait(task).unwrap().unwrap();
    }
    cluster.run(|kv| async move {
        let keyspaces = kv.list_keyspaces().await.unwrap();
        assert_eq!(keyspaces.len(), 1);
        assert_eq!((keyspaces[0].generation, keyspaces[0].state), (1, KeyspaceState::Ready));
        let statuses = kv.shard_statuses(&name("notes")).await.unwrap();
        let ranges: Vec<_> = statuses.iter().map(|status| status.range.unwrap()).collect();
        assert_eq!(ranges, (0..4).map(|index| KeyRange::part(index, 4)).collect::<Vec<_>>());
    });
}

/// What a caller sends meanwhile waits; it is not refused.
#[test]
fn a_command_and_a_query_to_a_keyspace_that_is_being_made_wait_until_its_shards_serve() {
    let cluster = Cluster::new(4);
    let (notes, options) = (name("notes"), CallOptions::default().with_timeout(20 * SECOND));
    cluster.run(|kv| async move { kv.register_keyspace(&name("first"), &policy()).await.unwrap() });
    let making =
        cluster.spawn_on(0, |kv| async move { kv.register_keyspace(&name("notes"), &policy()).await });
    cluster.run(move |kv| async move {
        let mut states = Vec::new();
        while states.is_empty() {
            let listed = kv.list_keyspaces().await.unwrap();
            states.extend(listed.iter().find(|keyspace| keyspace.name == notes).map(|found| found.state));
        }
        assert_eq!(states, [KeyspaceState::Creating]);
        let missing = kv.query(&notes, &key("k"), Freshness::Latest, b"", &options).await;
        assert_eq!(missing, Err(KvQueryError::KeyNotFound));
        assert_eq!(kv.command(&notes, &key("k"), b"x", &options).await.unwrap(), "x");
    });
    cluster.wait(making).unwrap().unwrap();
}

#[test]
fn the_policy_of_a_keyspace_is_told_and_changed_while_it_lives() {
    let cluster = Cluster::new(5);
    cluster.run(|kv| async move {
        let (notes, wanted) =
            (name("notes"), SplitMergePolicy { max_keys: Some(7), ..SplitMergePolicy::default() });
        let error = kv.set_policy(&notes, &wanted).await.unwrap_err();
        assert!(matches!(error, KvError::NoSuchKeyspace(missing) if missing == notes));
        kv.register_keyspace(&notes, &policy()).await.unwrap();
        assert_eq!(kv.keyspace(&notes).await.unwrap().policy, policy());
        kv.set_policy(&notes, &wanted).await.unwrap();
        assert_eq!(kv.keyspace(&notes).await.unwrap().policy.split_merge, wanted);
        let contrary = SplitMergePolicy { min_shards: 9, max_shards: 8, ..wanted.clone() };
        let error = kv.set_policy(&notes, &contrary).await.unwrap_err();
        assert!(error.to_string().contains("min_shards 9 is above max_shards 8"), "{error}");
        let above_one = SplitMergePolicy { merge_percent: 101, ..wanted.clone() };
        let error = kv.set_policy(&notes, &above_one).await.unwrap_err();
        assert!(error.to_string().contains("merge_percent is 101"), "{error}");
        assert_eq!(kv.keyspace(&notes).await.unwrap().policy.split_merge, wanted);
        // Whoever registers it as it was first finds it.
        kv.register_keyspace(&notes, &policy()).await.unwrap();
        kv.deregister_keyspace(&notes).await.unwrap();
        assert_eq!(kv.list_keyspaces().await.unwrap(), []);
    });
}

#[test]
fn a_keyspace_with_another_policy_is_refused() {
    let cluster = Cluster::new(3);
    cluster.run(|kv| async move {
        kv.register_keyspace(&name("notes"), &policy()).await.unwrap();
        let other = KeyspacePolicy { shards: 5, ..policy() };
        let error = kv.register_keyspace(&name("notes"), &other).await.unwrap_err();
        assert!(matches!(error, KvError::AlreadyRegistered { present, .. } if present.shards == 4));
        let invalid = KeyspacePolicy { shards: 0, ..policy() };
        let error = kv.register_keyspace(&name("other"), &invalid).await.unwrap_err();
        assert!(matches!(error, KvError::InvalidPolicy { .. }));
    });
    let task = cluster.spawn_on(0, |kv| async move {
        kv.register_keyspace(&name("other"), &KeyspacePolicy::of("unheard-of")).await.unwrap_err()
    });
    assert!(matches!(cluster.wait(task).unwrap(), KvError::UnknownValueType(name) if name == "unheard-of"));
}

/// The maker dies at a time of the seed's choice; the others finish what it has begun, without being asked.
#[test]
fn a_keyspace_whose_maker_died_is_finished_by_the_others() {
    for seed in 10..16 {
        let cluster = Cluster::new(seed);
        let mut rng = cluster.sim.rng();
        // The list is there before, so that the registration itself comes early.
        cluster.run(|kv| async move { kv.register_keyspace(&name("first"), &policy()).await.unwrap() });
        cluster.spawn_on(0, |kv| async move { kv.register_keyspace(&name("notes"), &policy()).await });
        cluster.sim.run_for(rng.duration(Duration::ZERO, Duration::from_secs(1)));
        cluster.sim.kill(&cluster.nodes[0].0);
        // A shard whose founder died is founded again once that node is purged.
        cluster.sim.run_for(60 * SECOND);
        cluster.run(move |kv| async move {
            let keyspaces = kv.list_keyspaces().await.unwrap();
            let Some(keyspace) = keyspaces.iter().find(|keyspace| keyspace.name == name("notes")) else {
                return; // It died before it had asked.
            };
            assert_eq!(keyspace.state, KeyspaceState::Ready, "seed {seed}");
            let options = CallOptions::default();
            for n in 0..20 {
                kv.command(&name("notes"), &key(&format!("key-{n}")), b"x", &options).await.unwrap();
            }
        });
    }
}

/// Lets a client be cut off while it makes a keyspace, until others have made it, merged its shards, and removed the group
/// of the one that ended.
fn hold_up_a_maker(seed: u64, later: Duration) {
    let cluster = Cluster::new(seed);
    let (seen, _watching) = watch_shards();
    let policy = || KeyspacePolicy { shards: 2, ..policy() };
    cluster.run(|kv| async move {
        kv.register_keyspace(&name("first"), &policy()).await.expect("nothing fails here");
    });
    let making =
        cluster.spawn(move |kv| async move { kv.register_keyspace(&name("notes"), &policy()).await });
    let on_a_node =
        |kv: raft_kv::Kv| async move { kv.list_keyspaces().await.expect("nothing fails here").len() };
    while cluster.wait(cluster.spawn_on(0, on_a_node)).expect("nothing fails here") < 2 {}
    cluster.sim.run_for(later);
    let nodes: Vec<_> = cluster.nodes.iter().map(|(env, _)| env.clone()).collect();
    cluster.sim.partition(&[cluster.client_env().clone()], &nodes);
    let merging = cluster.spawn_on(0, move |kv| async move {
        kv.register_keyspace(&name("notes"), &policy()).await.expect("nothing fails here");
        kv.merge_shards(&name("notes"), 0, 1).await.expect("nothing fails here");
        settled(&kv).await
    });
    assert_eq!(cluster.wait(merging).expect("nothing fails here"), [1]);
    let groups = || -> Vec<String> {
        let state = cluster.nodes[0].1.fleet().cluster();
        let kept = state.kept().keys().chain(state.groups().keys());
        kept.map(ToString::to_string).filter(|group| group.starts_with("kv/notes/")).collect()
    };
    cluster.sim.run_for(5 * SECOND);
    assert_eq!(groups(), ["kv/notes/2.1"]);
    let before: Vec<_> = seen.borrow().keys().copied().collect();
    cluster.sim.heal();
    cluster.wait(making).expect("nothing fails here").expect("nothing fails here");
    cluster.sim.run_for(10 * SECOND);
    let seen = seen.borrow();
    let newer = seen.iter().filter(|(group, _)| !before.contains(group));
    let serving = newer.filter(|(_, shown)| shown.iter().any(|shown| shown.serves.is_some()));
    assert_eq!(serving.count(), 0, "two shards served one range, seed {seed}");
    assert_eq!(groups(), ["kv/notes/2.1"], "seed {seed}");
}

/// It once founded the group of a shard anew that was merged away since, and gave it the range that it had at first: two
/// shards served it.
#[test]
fn a_maker_that_was_held_up_makes_no_shard_that_is_gone_since() {
    for step in 0..8 {
        hold_up_a_maker(280 + u64::from(step), Duration::from_millis(1) * step);
    }
}
