//! What callers may ask at the edges: limits, times, many keys, names that change hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use raft_kv::raft_fleet::{CallOptions, CommandNumber};
use raft_kv::rafted_value::env::{sleep, timeout};
use raft_kv::rafted_value::{
    CommandContext, Freshness, GroupConfig, NotApplied, QueryError, Refused, SessionId,
};
use raft_kv::{
    Answer, BytesStore, Done, Key, KeyRange, KeyspacePolicy, Kv, KvCommandError, KvNotApplied, KvQueryError,
    KvTypes, ListPosition, RouteError, SplitMergePolicy, ValuePerKey,
};

use crate::cluster::{Cluster, SECOND, key, name, policy};
use crate::moves::{one_shard, settled};

fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|n| key(&format!("key-{n}"))).collect()
}

/// Small values before a large one once made a page that was larger than a command may be: such a shard could be neither
/// split nor merged.
#[test]
fn a_shard_with_small_and_large_values_is_split_and_merged() {
    let cluster = Cluster::new(201);
    cluster.run(|kv| async move {
        let (notes, options) = (name("notes"), CallOptions::default());
        let group = GroupConfig { command_bytes_max: 4000, ..policy().group };
        kv.register_keyspace(&notes, &KeyspacePolicy { group, ..one_shard() }).await.unwrap();
        for (n, key) in keys(30).iter().enumerate() {
            let text = vec![b'x'; [700, 3700][n % 2]];
            kv.command(&notes, key, &text, &options).await.unwrap();
        }
        kv.split_shard(&notes, 0, None).await.unwrap();
        assert_eq!(settled(&kv).await, [0, 1]);
        kv.merge_shards(&notes, 0, 1).await.unwrap();
        assert_eq!(settled(&kv).await, [1]);
        let statuses = kv.shard_statuses(&notes).await.unwrap();
        assert_eq!((statuses[0].keys, statuses[0].size), (30, 15 * (700 + 3700)));
    });
}

/// Keys that were asked alone once had the whole time of the call again, 64 of them at a time.
#[test]
fn many_keys_are_asked_within_the_time_of_one_call() {
    let cluster = Cluster::new(202);
    cluster.run(|kv| async move {
        kv.register_keyspace(&name("notes"), &policy()).await.unwrap();
        let missing = kv.query_many(&name("nowhere"), &keys(300), b"", &CallOptions::default()).await;
        let error = KvQueryError::Route(RouteError::NoSuchKeyspace(name("nowhere")));
        assert_eq!(missing, vec![Err(error); 300]);
        // The same key twice is asked twice.
        let twice = [key("a"), key("b"), key("a")];
        kv.command(&name("notes"), &key("a"), b"x", &CallOptions::default()).await.unwrap();
        let answers = kv.query_many(&name("notes"), &twice, b"", &CallOptions::default()).await;
        assert_eq!(answers, [Ok("x".into()), Err(KvQueryError::KeyNotFound), Ok("x".into())]);
        assert_eq!(kv.query_many(&name("notes"), &[], b"", &CallOptions::default()).await, []);
    });
    let nodes: Vec<_> = cluster.nodes.iter().map(|(env, _)| env.clone()).collect();
    cluster.sim.partition(&[cluster.client_env().clone()], &nodes);
    cluster.run(|kv| async move {
        let env = kv.fleet().env().clone();
        let (began, options) = (env.now(), CallOptions::default().with_timeout(SECOND));
        let answers = kv.query_many(&name("notes"), &keys(1000), b"", &options).await;
        assert_eq!(answers.len(), 1000);
        assert!(answers.iter().all(|answer| matches!(answer, Err(KvQueryError::Group(_)))), "{answers:?}");
        let took = env.now().since(began);
        assert!(took < Duration::from_millis(1100), "{took:?}");
    });
}

/// What is together more than a message holds once came only because each key was asked again alone.
#[test]
fn values_that_together_are_too_much_for_one_message_are_read_at_once() {
    let cluster = Cluster::new(203);
    cluster.run(|kv| async move {
        let store = BytesStore::new(kv, name("bytes"), CallOptions::default());
        store.register(&KeyspacePolicy { shards: 1, ..BytesStore::policy() }).await.unwrap();
        let value = Bytes::from(vec![7; 900 << 10]);
        let keys = keys(12);
        for key in &keys {
            store.set(key, value.clone()).await.unwrap();
        }
        for found in store.multi_get(&keys).await {
            assert!(found.unwrap().unwrap() == value);
        }
    });
}

/// A caller with no end to its patience once had every shard remember its commands for ever, and after 256 of them none to
/// all keys was taken any more.
#[test]
fn commands_to_all_keys_are_remembered_for_no_longer_than_replies() {
    let cluster = Cluster::new(204);
    cluster.run(|kv| async move {
        let notes = name("notes");
        let group = GroupConfig { retry_window_max_ms: 20_000, ..policy().group };
        kv.register_keyspace(&notes, &KeyspacePolicy { group, ..one_shard() }).await.unwrap();
        let options = CallOptions::default().with_timeout(Duration::MAX);
        let run = async |kv: &Kv| {
            let mut run = kv.all_keys(KeyRange::ALL, &options);
            kv.command_all(&name("notes"), &mut run, b"x", &options).await
        };
        for _ in 0..256 {
            run(&kv).await.unwrap();
        }
        let full = KvCommandError::NotApplied(KvNotApplied::TooManyAllKeys);
        assert_eq!(run(&kv).await, Err(full));
        sleep(kv.fleet().env().as_ref(), 25 * SECOND).await;
        assert_eq!(run(&kv).await, Ok(()));
        // One that has no time at all says so.
        let options = CallOptions::default().with_timeout(Duration::ZERO);
        let mut late = kv.all_keys(KeyRange::ALL, &options);
        let error = kv.command_all(&notes, &mut late, b"x", &options).await.unwrap_err();
        assert_eq!(error, KvCommandError::NotApplied(KvNotApplied::TimeUp { limit_ms: 0 }));
    });
}

/// Shards whose weight lies in one place are the fullest of all, and no split helps; they once had every turn.
#[test]
fn shards_that_cannot_be_split_keep_no_other_from_it() {
    let cluster = Cluster::new(205);
    let shards = cluster.run(|kv| async move {
        let (notes, options) = (name("notes"), CallOptions::default());
        let split_merge = SplitMergePolicy { max_size: Some(40), ..SplitMergePolicy::default() };
        let policy = KeyspacePolicy { shards: 5, split_merge, ..policy() };
        kv.register_keyspace(&notes, &policy).await.unwrap();
        // As many as moves may be under way have one large value each, and the fifth has many small ones.
        for shard in 0..4 {
            let keys = keys(100);
            let one = keys.iter().find(|key| KeyRange::part(shard, 5).contains(key.hash())).unwrap();
            kv.command(&notes, one, &[b'x'; 1000], &options).await.unwrap();
        }
        for key in keys(60).iter().filter(|key| KeyRange::part(4, 5).contains(key.hash())) {
            kv.command(&notes, key, b"12345678", &options).await.unwrap();
        }
        sleep(kv.fleet().env().as_ref(), 30 * SECOND).await;
        kv.keyspace(&notes).await.unwrap().shards
    });
    assert!(shards.len() > 5 && shards[3].range == KeyRange::part(3, 5), "{shards:?}");
}

/// A reply that was lost once had the command sent again, and it removed the keyspace that had got the name meanwhile, with
/// all that was acknowledged there.
#[test]
fn a_deregistration_whose_reply_is_lost_leaves_the_next_keyspace_of_the_name_alone() {
    let cluster = Cluster::new(206);
    let nodes: Vec<_> = cluster.nodes.iter().map(|(env, _)| env.clone()).collect();
    let mut lost = 0;
    for round in 0..6_u32 {
        let notes = name(&format!("notes-{round}"));
        let first = notes.clone();
        let generation = cluster.run(|kv| async move {
            kv.register_keyspace(&first, &one_shard()).await.unwrap();
            kv.keyspace(&first).await.unwrap().generation
        });
        let gone = notes.clone();
        let removing = cluster.spawn(|kv| async move { kv.deregister_keyspace(&gone).await });
        cluster.sim.run_for(Duration::from_micros(600) * round);
        cluster.sim.partition_one_way(&nodes, &[cluster.client_env().clone()]);
        cluster.sim.run_for(SECOND);
        let again = notes.clone();
        let next = cluster.spawn_on(0, |kv| async move {
            kv.register_keyspace(&again, &one_shard()).await.unwrap();
            let options = CallOptions::default();
            kv.command(&again, &key("k"), b"x", &options).await.unwrap();
            kv.keyspace(&again).await.unwrap().generation
        });
        let next = cluster.wait(next).unwrap();
        // The first command has no reply, and its time is up.
        cluster.sim.run_for(6 * SECOND);
        cluster.sim.heal();
        let removed = cluster.wait(removing).unwrap();
        if next == generation {
            continue; // Nothing was removed by then; whatever came later meant this one.
        }
        lost += 1;
        removed.unwrap();
        let value = cluster.run(|kv| async move {
            kv.query(&notes, &key("k"), Freshness::Latest, b"", &CallOptions::default()).await
        });
        assert_eq!(value, Ok(Bytes::from("x")), "round {round}");
    }
    assert!(lost >= 2, "only {lost} replies were lost");
}

/// Each merge and each keyspace that went once left all of its values on the disks for good, and a name in the state of the
/// cluster, which holds so many and then takes no group any more.
#[test]
fn shards_and_keyspaces_that_are_gone_leave_nothing_on_the_disks() {
    let cluster = Cluster::on_disks(211);
    cluster.run(|kv| async move {
        let (notes, options) = (name("notes"), CallOptions::default());
        kv.register_keyspace(&name("other"), &one_shard()).await.unwrap();
        kv.register_keyspace(&notes, &one_shard()).await.unwrap();
        for key in keys(20) {
            kv.command(&notes, &key, b"x", &options).await.unwrap();
        }
        kv.split_shard(&notes, 0, None).await.unwrap();
        settled(&kv).await;
        kv.merge_shards(&notes, 1, 0).await.unwrap();
        assert_eq!(settled(&kv).await, [0]);
        kv.deregister_keyspace(&name("other")).await.unwrap();
        sleep(kv.fleet().env().as_ref(), 5 * SECOND).await;
        let cluster = kv.fleet().cluster();
        assert_eq!(cluster.kept().keys().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
        let groups: Vec<String> = cluster.groups().keys().map(ToString::to_string).collect();
        assert_eq!(groups, ["kv-keyspaces", "kv/notes/2.0"]);
    });
}

/// The limits of the keyspace that had the name before were once taken for those of the next one.
#[test]
fn nothing_is_refused_by_the_limits_of_a_keyspace_that_is_gone() {
    let cluster = Cluster::new(207);
    let register = |key_bytes_max, value_bytes_max| {
        let task = cluster.spawn_on(0, move |kv| async move {
            let store = BytesStore::new(kv.clone(), name("bytes"), CallOptions::default());
            drop(kv.deregister_keyspace(&name("bytes")).await);
            let policy = KeyspacePolicy { shards: 1, key_bytes_max, value_bytes_max, ..BytesStore::policy() };
            store.register(&policy).await.unwrap();
        });
        cluster.wait(task).unwrap();
    };
    register(5, 10);
    cluster.run(|kv| async move {
        let store = BytesStore::new(kv, name("bytes"), CallOptions::default());
        store.set(&key("k"), "1").await.unwrap();
        let error = store.set(&key("k"), "12345678901").await.unwrap_err();
        let (bytes, limit_bytes) = (11, 10);
        assert_eq!(error, KvCommandError::NotApplied(KvNotApplied::ValueTooLarge { bytes, limit_bytes }));
    });
    register(50, 100);
    cluster.run(|kv| async move {
        let store = BytesStore::new(kv, name("bytes"), CallOptions::default());
        assert_eq!(store.set(&key("k"), "12345678901").await, Ok(false));
        assert_eq!(store.set(&key("longer than five"), "1").await, Ok(false));
    });
}

/// Once no attempt was made at all, and the error spoke of nodes that were not found.
#[test]
fn a_call_whose_options_cannot_work_is_made_with_the_least_that_can() {
    let cluster = Cluster::new(208);
    cluster.run(|kv| async move {
        let notes = name("notes");
        kv.register_keyspace(&notes, &policy()).await.unwrap();
        for key in keys(8) {
            kv.command(&notes, &key, b"x", &CallOptions::default()).await.unwrap();
        }
        let options =
            CallOptions { attempts_max: 0, retry_interval: Duration::ZERO, ..CallOptions::default() };
        assert_eq!(kv.command(&notes, &key("key-1"), b"y", &options).await, Ok(Bytes::from("xy")));
        let options = CallOptions { timeout: Duration::MAX, retry_margin: Duration::MAX, ..options };
        assert_eq!(kv.command(&notes, &key("key-1"), b"z", &options).await, Ok(Bytes::from("xyz")));
        let answer = kv.query(&notes, &key("key-1"), Freshness::Latest, b"", &options).await;
        assert_eq!(answer, Ok(Bytes::from("xyz")));
        let none = CallOptions { timeout: Duration::ZERO, ..options };
        let error = kv.query(&notes, &key("key-1"), Freshness::Latest, b"", &none).await;
        assert!(matches!(error, Ok(_) | Err(KvQueryError::Group(_))), "{error:?}");
    });
}

/// Each call once had the number of the first, whose reply it got: what was to be set was not.
#[test]
fn a_store_of_bytes_gives_each_call_a_number_of_its_own() {
    let cluster = Cluster::new(213);
    cluster.run(|kv| async move {
        let number = Some(CommandNumber { session: SessionId::new(1, 2), sequence: 3 });
        let options = CallOptions { number, ..CallOptions::default() };
        let store = BytesStore::new(kv, name("bytes"), options);
        store.register(&KeyspacePolicy { shards: 1, ..BytesStore::policy() }).await.unwrap();
        assert_eq!(store.set(&key("a"), "1").await, Ok(false));
        assert_eq!(store.set(&key("a"), "2").await, Ok(true));
        assert_eq!(store.get(&key("a")).await, Ok(Some("2".into())));
    });
}

/// There was once no way to the next page.
#[test]
fn the_keys_of_one_shard_are_listed_page_by_page() {
    let cluster = Cluster::new(214);
    cluster.run(|kv| async move {
        let (notes, options) = (name("notes"), CallOptions::default());
        kv.register_keyspace(&notes, &policy()).await.unwrap();
        for key in keys(60) {
            kv.command(&notes, &key, b"x", &options).await.unwrap();
        }
        let shard = KeyRange::part(2, 4);
        let (mut left, mut found, mut pages) = (Some(shard), Vec::new(), 0);
        while let Some(range) = left {
            let page = kv.keys_of(&notes, range, b"", 4).await.unwrap();
            found.extend(page.keys);
            pages += 1;
            left = page.next.and_then(|next| KeyRange::new(next.hash(), shard.last()));
        }
        let mut wanted: Vec<Key> = keys(60).into_iter().filter(|key| shard.contains(key.hash())).collect();
        wanted.sort_by_key(Key::hash);
        assert_eq!(found, wanted.iter().map(|key| key.as_bytes().to_vec()).collect::<Vec<_>>());
        assert!(pages > 2, "{pages} pages");
    });
}

#[test]
fn what_is_larger_than_a_message_is_refused_at_once() {
    let cluster = Cluster::new(215);
    cluster.run(|kv| async move {
        let (notes, options, large) = (name("notes"), CallOptions::default(), vec![7; 5 << 20]);
        kv.register_keyspace(&notes, &policy()).await.unwrap();
        kv.command(&notes, &key("k"), b"x", &options).await.unwrap();
        let env = kv.fleet().env().clone();
        let began = env.now();
        let error = kv.command(&notes, &key("k"), &large, &options).await.unwrap_err();
        assert!(
            matches!(error, KvCommandError::NotApplied(KvNotApplied::Group(NotApplied::TooLarge { .. }))),
            "{error}"
        );
        let error = kv.query(&notes, &key("k"), Freshness::Latest, &large, &options).await.unwrap_err();
        assert!(matches!(error, KvQueryError::Group(QueryError::TooLarge { .. })), "{error}");
        let error = kv.scan_keys(&notes, &large, &ListPosition::default(), 9).await.unwrap_err();
        assert!(error.to_string().contains("over the limit"), "{error}");
        let keys: Vec<Key> = (0..400_u32)
            .map(|n| Key::new([&n.to_le_bytes()[..], &vec![7; 16_000]].concat()).unwrap())
            .collect();
        let answers = kv.query_many(&notes, &keys, b"", &options).await;
        assert!(answers.iter().all(|answer| *answer == Err(KvQueryError::KeyNotFound)));
        let took = env.now().since(began);
        assert!(took < SECOND, "{took:?}");
    });
}

/// Who hosts nothing cannot know what the nodes know.
#[test]
fn a_client_that_registers_what_no_node_knows_is_told_by_whom() {
    let cluster = Cluster::new(209);
    cluster.run(|kv| async move {
        let error = kv.register_keyspace(&name("odd"), &KeyspacePolicy::of("unheard-of")).await.unwrap_err();
        assert!(
            error.to_string().ends_with("the node knows no data type named \"kv/unheard-of\""),
            "{error}"
        );
        kv.deregister_keyspace(&name("odd")).await.unwrap();
        kv.register_keyspace(&name("odd"), &policy()).await.unwrap();
    });
}

/// A caller may stop to wait at any moment: its command runs or not, and never twice.
#[test]
fn calls_that_are_dropped_anywhere_run_once_at_most_while_shards_split_and_merge() {
    let cluster = Cluster::new(220);
    cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &one_shard()).await.unwrap() });
    let churning = cluster.spawn(|kv| async move {
        kv.split_shard(&name("notes"), 0, None).await.unwrap();
        let shards = settled(&kv).await;
        kv.merge_shards(&name("notes"), shards[1], shards[0]).await.unwrap();
        settled(&kv).await;
    });
    let writing: Vec<_> =
        (0..4).map(|writer| cluster.spawn(move |kv| write_impatiently(kv, writer))).collect();
    cluster.wait(churning).unwrap();
    let histories: Vec<_> = writing.into_iter().map(|task| cluster.wait(task).unwrap()).collect();
    cluster.sim.run_for(SECOND);
    let values = cluster.run(|kv| async move {
        kv.query_many(&name("notes"), &keys(10), b"", &CallOptions::default()).await
    });
    let values: Vec<String> =
        values.into_iter().map(|value| String::from_utf8(value.unwrap().to_vec()).unwrap()).collect();
    let times = |at: usize, text: &str| values[at].split_inclusive(';').filter(|part| *part == text).count();
    let mut ran = 0;
    for (at, text, dropped) in histories.into_iter().flatten() {
        let times = times(at, &text);
        assert!(times == 1 || dropped && times == 0, "{text} of key-{at} ran {times} times");
        ran += usize::from(dropped && times == 1);
    }
    assert!(ran > 10, "only {ran} of the dropped ran: too early to tell");
}

/// Key, text, and whether its call was dropped.
async fn write_impatiently(kv: Kv, writer: u64) -> Vec<(usize, String, bool)> {
    let env = kv.fleet().env().clone();
    let mut history = Vec::new();
    for n in 0..150 {
        let (at, text) = ((env.random_u64() % 10) as usize, format!("{writer}.{n};"));
        let (key, notes) = (key(&format!("key-{at}")), name("notes"));
        let options = CallOptions::default().with_timeout(20 * SECOND);
        let call = kv.command(&notes, &key, text.as_bytes(), &options);
        let patience = Duration::from_micros(env.random_u64() % 6000);
        let reply = timeout(env.as_ref(), patience, call).await;
        let dropped = reply.map(Result::unwrap).is_none();
        history.push((at, text, dropped));
    }
    history
}

/// Callers whose routes are those of a keyspace that is gone find the one that has its name.
#[test]
fn what_is_written_while_a_name_changes_hands_is_there_as_long_as_its_keyspace() {
    let cluster = Cluster::new(231);
    let generation = Arc::new(AtomicU64::new(0));
    let seen = generation.clone();
    let churning = cluster.spawn_on(0, move |kv| async move {
        for shards in [1, 3, 2] {
            let policy = KeyspacePolicy { shards, ..policy() };
            kv.register_keyspace(&name("notes"), &policy).await.unwrap();
            seen.fetch_add(1, Ordering::SeqCst);
            sleep(kv.fleet().env().as_ref(), SECOND / 2).await;
            seen.fetch_add(1, Ordering::SeqCst);
            kv.deregister_keyspace(&name("notes")).await.unwrap();
        }
    });
    let read = cluster.run(move |kv| async move {
        let (notes, options, mut read) = (name("notes"), CallOptions::default(), 0);
        let env = kv.fleet().env().clone();
        for n in 0..1000 {
            let key = key(&format!("key-{n}"));
            let before = generation.load(Ordering::SeqCst);
            let written = kv.command(&notes, &key, b"x", &options).await.is_ok();
            sleep(env.as_ref(), Duration::from_millis(1)).await;
            let answer = kv.query(&notes, &key, Freshness::Latest, b"", &options).await;
            let stays = before % 2 == 1 && generation.load(Ordering::SeqCst) == before;
            assert!(!(written && stays) || answer == Ok("x".into()), "{answer:?} for key-{n}");
            read += u32::from(written && stays);
        }
        read
    });
    cluster.wait(churning).unwrap();
    assert!(read > 100, "only {read} were written and read");
}

/// Values that a test makes as bad as it likes.
struct Odd;

impl ValuePerKey for Odd {
    type Value = Vec<u8>;

    fn command(
        &self,
        _: &CommandContext,
        _: &[u8],
        value: &mut Option<Vec<u8>>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        *value = Some(command.to_vec());
        let reply = if command == "large reply" { vec![7; 3 << 20].into() } else { Bytes::new() };
        // Sums run over, and nothing comes of it.
        Ok(Done { reply, load: u64::MAX, size: u64::MAX / 2 })
    }

    fn query(&self, _: &[u8], value: &Vec<u8>, _: &Bytes) -> Result<Answer, Refused> {
        assert!(value != b"no query", "as it was told");
        Ok(Answer { answer: value.clone().into(), load: u64::MAX })
    }

    fn encode(&self, _: &[u8], value: &Vec<u8>, out: &mut Vec<u8>) {
        assert!(value != b"no encode", "as it was told");
        out.extend_from_slice(value);
    }

    fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<Vec<u8>, String> {
        assert!(bytes != b"no decode", "as it was told");
        if bytes == b"bad" { Err("as it was told".into()) } else { Ok(bytes.to_vec()) }
    }
}

#[test]
fn a_value_or_a_reply_that_cannot_move_keeps_its_shard_whole_for_as_long_as_it_is_there() {
    let cluster = Cluster::with_types(212, |_| KvTypes::new().with("odd", Odd));
    cluster.run(|kv| async move {
        let (notes, options) = (name("notes"), CallOptions::default());
        let policy = KeyspacePolicy { shards: 1, value_bytes_max: u64::MAX, ..KeyspacePolicy::of("odd") };
        kv.register_keyspace(&notes, &policy).await.unwrap();
        for key in keys(10) {
            kv.command(&notes, &key, b"fine", &options).await.unwrap();
        }
        let goes = keys(10).into_iter().find(|key| key.hash() > u64::MAX / 2).unwrap();
        for text in ["no encode", "no decode", "bad", "large reply"] {
            kv.command(&notes, &goes, text.as_bytes(), &options).await.unwrap();
            kv.split_shard(&notes, 0, None).await.unwrap();
            assert_eq!(settled(&kv).await, [0], "{text}");
            let answer = kv.query(&notes, &goes, Freshness::Latest, b"", &options).await;
            assert_eq!(answer.unwrap(), text);
        }
        kv.command(&notes, &goes, b"no query", &options).await.unwrap();
        let answers = kv.query_many(&notes, &keys(10), b"", &options).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 9, "{answers:?}");
        // The large reply is kept until the time is over in which its command may come again.
        sleep(kv.fleet().env().as_ref(), 70 * SECOND).await;
        kv.split_shard(&notes, 0, None).await.unwrap();
        assert_eq!(settled(&kv).await.len(), 2);
    });
}

/// Its records could not be told to another shard, and nor could what changed last: the move waited for them, with the range
/// served by nobody.
#[test]
fn a_reply_that_fits_no_message_ends_the_move_that_it_would_go_along_with() {
    let cluster = Cluster::new(232);
    cluster.run(|kv| async move {
        let (notes, options) = (name("notes"), CallOptions::default());
        kv.register_keyspace(&notes, &KeyspacePolicy { value_bytes_max: 8 << 20, ..one_shard() })
            .await
            .unwrap();
        let part = vec![b'x'; 900_000];
        for n in 0..5 {
            let reply = kv.command(&notes, &key("large"), &part, &options).await;
            let fits = n < 4;
            assert_eq!(reply.is_ok(), fits, "{n}: {:?}", reply.map(|reply| reply.len()));
        }
        // Only what it answered is large by now.
        kv.command(&notes, &key("large"), b"", &options).await.unwrap();
        let env = kv.fleet().env().clone();
        let began = env.now();
        kv.split_shard(&notes, 0, None).await.unwrap();
        assert_eq!(settled(&kv).await, [0], "it is undone");
        let took = env.now().since(began);
        assert!(took < 10 * SECOND, "{took:?}");
        for n in 0..10 {
            kv.command(&notes, &key(&format!("key-{n}")), b"x", &options).await.unwrap();
        }
    });
}
