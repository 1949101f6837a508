//! Replies of the list of keyspaces that are lost.

use std::time::Duration;

use raft_kv::raft_fleet::CallOptions;
use raft_kv::{KvConfig, KvError, SplitMergePolicy};

use crate::cluster::{Cluster, SECOND, config, name};
use crate::moves::{one_shard, settled};

const MS: Duration = Duration::from_millis(1);

/// A cluster whose calls have few attempts, so that a command is without a reply long before its time is up.
fn impatient(seed: u64) -> Cluster {
    let call = CallOptions { attempts_max: 3, attempt_timeout: 200 * MS, ..CallOptions::default() };
    Cluster::with_config(seed, KvConfig { call, ..config() })
}

/// Nothing comes to the client from now on, while all that it sends arrives.
fn lose_replies(cluster: &Cluster) {
    let nodes: Vec<_> = cluster.nodes.iter().map(|(env, _)| env.clone()).collect();
    cluster.sim.partition_one_way(&nodes, &[cluster.client_env().clone()]);
}

/// It was once sent again as another command, and refused because its shard took part in a move: its own.
#[test]
fn a_split_whose_reply_is_lost_is_not_told_as_refused() {
    let mut lost = 0;
    for round in 0..8 {
        let cluster = impatient(260 + u64::from(round));
        cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &one_shard()).await.unwrap() });
        let splitting = cluster.spawn(|kv| async move {
            let began = kv.fleet().env().now();
            let split = kv.split_shard(&name("notes"), 0, None).await;
            (split, kv.fleet().env().now().since(began))
        });
        cluster.sim.run_for(MS / 2 * round);
        lose_replies(&cluster);
        cluster.sim.run_for(2 * SECOND);
        cluster.sim.heal();
        let (split, took) = cluster.wait(splitting).unwrap();
        let shards = cluster.run(|kv| async move { settled(&kv).await });
        match split {
            Ok(moving) => {
                assert_eq!((moving.from, moving.to, shards), (0, 1, vec![0, 1]), "round {round}");
                lost += u32::from(took > SECOND);
            }
            // Nothing was begun: the list did not even say which shards there are.
            Err(KvError::Route(_)) => assert_eq!(shards, [0], "round {round}"),
            Err(error) => panic!("round {round}: {error}"),
        }
    }
    assert!(lost >= 2, "only {lost} replies were lost");
}

/// It was once set once more when others had set another one.
#[test]
fn a_policy_whose_reply_is_lost_is_not_set_over_a_newer_one() {
    let cluster = impatient(270);
    cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &one_shard()).await.unwrap() });
    let policy = |max_keys| SplitMergePolicy { max_keys: Some(max_keys), ..SplitMergePolicy::default() };
    let setting = cluster.spawn(move |kv| async move { kv.set_policy(&name("notes"), &policy(100)).await });
    lose_replies(&cluster);
    cluster.sim.run_for(SECOND / 10);
    let newer =
        cluster.spawn_on(0, move |kv| async move { kv.set_policy(&name("notes"), &policy(200)).await });
    cluster.wait(newer).unwrap().unwrap();
    cluster.sim.run_for(2 * SECOND);
    cluster.sim.heal();
    cluster.wait(setting).unwrap().unwrap();
    let keyspace = cluster.run(|kv| async move { kv.keyspace(&name("notes")).await.unwrap() });
    assert_eq!(keyspace.policy.split_merge, policy(200));
}
