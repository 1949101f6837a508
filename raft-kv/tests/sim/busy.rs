//! Moves of ranges that are busy.

use std::time::Duration;

use raft_kv::raft_fleet::{CallOptions, CommandNumber};
use raft_kv::rafted_value::env::sleep;
use raft_kv::rafted_value::{GroupConfig, SessionId};
use raft_kv::{KeyspacePolicy, Kv, KvConfig, MovePhase};

use crate::cluster::{Cluster, config, key, name, policy};
use crate::moves::{one_shard, settled};

/// Appends a text to each of so many keys.
async fn write_all(kv: &Kv, keys: usize) {
    for n in 0..keys {
        let options = CallOptions::default();
        kv.command(&name("notes"), &key(&format!("key-{n}")), b"x", &options).await.expect("it is written");
    }
}

/// Splits a shard whose values of 40 keys change `times` while it is copied hash by hash; the shards afterwards.
fn split_while_values_change(seed: u64, times: usize) -> Vec<u32> {
    let pause = Duration::from_millis(50);
    let slow = KvConfig { move_chunk_bytes: 1, move_chunk_pause: pause, move_rounds_max: 5, ..config() };
    let cluster = Cluster::with_config(seed, slow);
    cluster.run(move |kv| async move {
        let notes = name("notes");
        kv.register_keyspace(&notes, &one_shard()).await.expect("nothing fails here");
        write_all(&kv, 40).await;
        kv.split_shard(&notes, 0, None).await.expect("nothing fails here");
        let env = kv.fleet().env().clone();
        while !kv.shard_statuses(&notes).await.expect("nothing fails here")[0].moving {
            sleep(env.as_ref(), pause).await;
        }
        for _ in 0..times {
            write_all(&kv, 40).await;
            if kv.moves().await.expect("nothing fails here").is_empty() {
                break;
            }
        }
        settled(&kv).await
    })
}

/// Each chunk of changes but the last once counted as a round, so that a move of which much had changed while it was copied
/// was given up, though nothing changed any more.
#[test]
fn a_range_that_changed_much_while_it_was_copied_is_split_once_it_changes_less() {
    assert_eq!(split_while_values_change(250, 1), [0, 1]);
}

#[test]
fn a_range_that_changes_faster_than_it_is_copied_stays_where_it_is() {
    assert_eq!(split_while_values_change(251, 400), [0]);
}

/// Merges two shards, whose tables hold 200 sessions and replies, after so many callers have sent them one command each; the
/// shards afterwards, and why the move was undone if it was. After each chunk that is copied the move pauses so long.
fn merge_after(seed: u64, callers: u64, pause: Duration) -> (Vec<u32>, Option<String>) {
    let cluster = Cluster::with_config(seed, KvConfig { move_chunk_pause: pause, ..config() });
    cluster.run(move |kv| async move {
        let notes = name("notes");
        let group = GroupConfig { session_replies_max: 200, ..policy().group };
        let two = KeyspacePolicy { shards: 2, group, ..policy() };
        kv.register_keyspace(&notes, &two).await.expect("nothing fails here");
        for n in 0..callers {
            let number = Some(CommandNumber { session: SessionId::new(7, n), sequence: 1 });
            let options = CallOptions { number, ..CallOptions::default() };
            kv.command(&notes, &key(&format!("key-{n}")), b"x", &options).await.expect("nothing fails here");
        }
        let moving = kv.merge_shards(&notes, 0, 1).await.expect("nothing fails here");
        let env = kv.fleet().env().clone();
        let mut reason = None;
        while let Some(present) =
            kv.moves().await.expect("nothing fails here").into_iter().find(|other| other.id == moving.id)
        {
            if let MovePhase::Aborting(why) = present.phase {
                reason = Some(why);
            }
            sleep(env.as_ref(), Duration::from_millis(1)).await;
        }
        write_all(&kv, 10).await;
        (settled(&kv).await, reason)
    })
}

/// The receiver's table was once filled beyond its limit, and it refused all further commands, with them those that were to
/// end the move.
#[test]
fn shards_whose_sessions_do_not_fit_into_one_table_are_not_merged() {
    let (shards, reason) = merge_after(252, 120, Duration::ZERO);
    assert_eq!(shards, [0, 1]);
    let reason = reason.expect("the move is undone");
    assert!(reason.starts_with("the sessions of both do not fit into one table: "), "{reason}");
    assert!(reason.ends_with(" of 200"), "{reason}");
    assert_eq!(merge_after(253, 20, Duration::ZERO), (vec![1], None));
}

/// All of the range was once copied before it was found that there is no room for its records, and again at every attempt of a
/// planner that had reason enough for the move.
#[test]
fn a_move_that_finds_no_room_for_records_is_aborted_before_any_of_the_range_is_copied() {
    // A move that had copied a chunk would not have ended when this test gives up.
    let (shards, reason) = merge_after(254, 120, Duration::from_secs(1_000));
    assert_eq!(shards, [0, 1]);
    assert!(
        reason.is_some_and(|reason| reason.starts_with("the sessions of both do not fit into one table: "))
    );
}
