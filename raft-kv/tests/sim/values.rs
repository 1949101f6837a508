//! Commands and queries for keys, through any node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use raft_kv::raft_fleet::{CallOptions, CommandNumber};
use raft_kv::rafted_value::env::sleep;
use raft_kv::rafted_value::{CommandContext, Freshness, NotApplied, Refused, SessionId};
use raft_kv::{
    Answer, Done, KeyspacePolicy, Kv, KvCommandError, KvNotApplied, KvQueryError, KvTypes, ValuePerKey,
};

use crate::cluster::{Cluster, NODES, SECOND, key, name, policy};

async fn moved(kv: &Kv) {
    while !kv.moves().await.expect("the list answers").is_empty() {
        sleep(kv.fleet().env().as_ref(), SECOND / 10).await;
    }
}

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
        moved(&kv).await;
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

/// The limit was once one of stores of bytes alone.
#[test]
fn a_value_of_any_type_that_would_be_too_large_changes_nothing_and_keys_beside_it_go_on() {
    let cluster = Cluster::new(24);
    cluster.run(|kv| async move {
        let (notes, options) = (name("notes"), CallOptions::default());
        let policy = KeyspacePolicy { shards: 1, value_bytes_max: 10, ..policy() };
        kv.register_keyspace(&notes, &policy).await.unwrap();
        let large = |bytes| {
            let limit_bytes = 10;
            Err(KvCommandError::NotApplied(KvNotApplied::ValueTooLarge { bytes, limit_bytes }))
        };
        let put = |at: &'static str, text: &'static [u8]| {
            let (kv, notes) = (kv.clone(), notes.clone());
            async move { kv.command(&notes, &key(at), text, &options).await }
        };
        assert_eq!(put("new", b"hello, world").await, large(12));
        assert_eq!(put("old", b"hello,").await.unwrap(), "hello,");
        for _ in 0..2 {
            assert_eq!(put("old", b" world").await, large(12));
            assert_eq!(put("beside", b"1").await.map(|reply| reply.len() < 3), Ok(true));
        }
        // A small one that jumps past the limit is undone by the engine.
        assert_eq!(put("small", b"abc").await.unwrap(), "abc");
        let panicked = put("small", b"defghijkl").await.unwrap_err();
        assert!(panicked.to_string().contains("limit of 10"), "{panicked}");
        // The limit goes along to the shard that a split makes.
        kv.split_shard(&notes, 0, None).await.unwrap();
        moved(&kv).await;
        for (at, before) in [("old", "hello,"), ("small", "abc")] {
            assert_eq!(kv.query(&notes, &key(at), Freshness::Latest, b"", &options).await.unwrap(), before);
        }
        for n in 0..20 {
            let at = key(&format!("key-{n}"));
            assert_eq!(kv.command(&notes, &at, b"hello, world", &options).await, large(12));
        }
        let missing = kv.query(&notes, &key("new"), Freshness::Latest, b"", &options).await;
        assert_eq!(missing, Err(KvQueryError::KeyNotFound));
    });
}

/// In the original a split lost what the shard remembered, and a retry ran twice (fault 14).
#[test]
fn a_command_that_is_sent_again_after_a_split_and_a_merge_gets_its_first_reply() {
    let cluster = Cluster::new(25);
    cluster.run(|kv| async move {
        let notes = name("notes");
        kv.register_keyspace(&notes, &KeyspacePolicy { shards: 1, ..policy() }).await.unwrap();
        let send = |n: u64| {
            let (kv, notes) = (kv.clone(), notes.clone());
            let number = Some(CommandNumber { session: SessionId::new(7, n), sequence: 1 });
            let options = CallOptions { number, ..CallOptions::default() };
            async move { kv.command(&notes, &key(&format!("key-{n}")), b"x", &options).await }
        };
        let check = async || {
            for n in 0..20 {
                assert_eq!(send(n).await.unwrap(), "x", "key-{n}");
            }
        };
        check().await;
        kv.split_shard(&notes, 0, None).await.unwrap();
        moved(&kv).await;
        check().await;
        kv.merge_shards(&notes, 0, 1).await.unwrap();
        moved(&kv).await;
        check().await;
        assert_eq!(kv.shard_statuses(&notes).await.unwrap()[0].size, 20);
    });
}

#[test]
fn a_call_that_nobody_answers_ends_at_its_timeout_and_says_whether_it_may_have_run() {
    let cluster = Cluster::new(26);
    cluster.run(|kv| async move { kv.register_keyspace(&name("notes"), &policy()).await.unwrap() });
    cluster.run(|kv| async move {
        kv.command(&name("notes"), &key("k"), b"x", &CallOptions::default()).await.unwrap();
    });
    let nodes: Vec<_> = cluster.nodes.iter().map(|(env, _)| env.clone()).collect();
    cluster.sim.partition(&[cluster.client_env().clone()], &nodes);
    cluster.run(|kv| async move {
        let env = kv.fleet().env().clone();
        let options = CallOptions::default().with_timeout(SECOND);
        let began = env.now();
        let error = kv.command(&name("notes"), &key("k"), b"x", &options).await.unwrap_err();
        assert!(matches!(error, KvCommandError::Unknown(_) | KvCommandError::NotApplied(_)), "{error}");
        let error = kv.query(&name("notes"), &key("k"), Freshness::Latest, b"", &options).await.unwrap_err();
        assert!(!matches!(error, KvQueryError::KeyNotFound), "{error}");
        let took = env.now().since(began);
        assert!((Duration::from_millis(1900)..3 * SECOND).contains(&took), "{took:?}");
    });
    cluster.sim.heal();
    cluster.run(|kv| async move {
        let value =
            kv.query(&name("notes"), &key("k"), Freshness::Latest, b"", &CallOptions::default()).await;
        assert!([b"x".as_slice(), b"xx"].contains(&&value.unwrap()[..]));
    });
}

/// Counts what is told of, and adds `error` to what is written on one node.
struct Told {
    led: Arc<AtomicU64>,
    ran: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    error: u8,
}

impl ValuePerKey for Told {
    type Value = u8;

    fn command(
        &self,
        _: &CommandContext,
        _: &[u8],
        value: &mut Option<u8>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        self.ran.fetch_add(1, Ordering::Relaxed);
        *value = Some(command[0] + self.error);
        Ok(Done { reply: Bytes::new(), load: 1, size: 1 })
    }

    fn command_led(
        &self,
        context: &CommandContext,
        key: &[u8],
        value: &mut Option<u8>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        self.led.fetch_add(1, Ordering::Relaxed);
        self.command(context, key, value, command)
    }

    fn has_hooks(&self) -> bool {
        true
    }

    fn answered(&self, key: &[u8], value: &u8, _: &Bytes, answer: &Bytes) {
        assert_eq!((key, &answer[..]), (&b"k"[..], &[*value][..]));
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn query(&self, _: &[u8], value: &u8, _: &Bytes) -> Result<Answer, Refused> {
        Ok(Answer { answer: vec![*value].into(), load: 1 })
    }

    fn encode(&self, _: &[u8], value: &u8, out: &mut Vec<u8>) {
        out.push(*value);
    }

    fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<u8, String> {
        bytes.first().copied().ok_or_else(|| "no byte".to_owned())
    }
}

/// A store of them on nodes that are off by these errors; what it was told of: led, ran, answered.
fn told(seed: u64, errors: [u8; NODES]) -> (Cluster, [Arc<AtomicU64>; 3]) {
    let counts: [Arc<AtomicU64>; 3] = Default::default();
    let [led, ran, answered] = counts.clone();
    let cluster = Cluster::with_types(seed, move |node| {
        let (led, ran, answered) = (led.clone(), ran.clone(), answered.clone());
        KvTypes::new().with("told", Told { led, ran, answered, error: errors[node] })
    });
    cluster.run(|kv| async move {
        let policy = KeyspacePolicy { shards: 1, ..KeyspacePolicy::of("told") };
        kv.register_keyspace(&name("notes"), &policy).await.expect("a new name");
    });
    (cluster, counts)
}

#[test]
fn the_hooks_of_a_key_run_where_its_shard_is_led_and_nowhere_else() {
    let (cluster, counts) = told(27, [0; NODES]);
    cluster.run(|kv| async move {
        let (notes, options) = (name("notes"), CallOptions::default());
        for n in 1..=10 {
            kv.command(&notes, &key("k"), &[n], &options).await.unwrap();
            let answer = kv.query(&notes, &key("k"), Freshness::Latest, b"", &options).await;
            assert_eq!(answer.unwrap()[..], [n]);
        }
        // Nobody was once told of keys that are asked with others.
        let answers = kv.query_many(&notes, &[key("k"), key("none"), key("k")], b"", &options).await;
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    });
    cluster.sim.run_for(SECOND);
    let counts = counts.map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [10, 10 * NODES as u64, 12]);
}

/// A divergence that is found all the same fences the odd member, and says so.
#[test]
fn a_member_whose_values_are_not_as_the_others_is_fenced_and_the_store_goes_on() {
    let (cluster, _) = told(28, [0, 0, 1]);
    cluster.run(|kv| async move {
        let (notes, options) = (name("notes"), CallOptions::default().with_timeout(20 * SECOND));
        for n in 0..120 {
            kv.command(&notes, &key(&format!("key-{n}")), &[n], &options).await.unwrap();
        }
        sleep(kv.fleet().env().as_ref(), SECOND).await;
        for n in 0..120 {
            let answer = kv.query(&notes, &key(&format!("key-{n}")), Freshness::Latest, b"", &options).await;
            assert_eq!(answer.unwrap()[..], [n]);
        }
    });
    let fenced: Vec<Vec<String>> = (0..NODES)
        .map(|node| {
            let task = cluster.spawn_on(node, |kv| async move {
                let host = kv.fleet().host().expect("a node").clone();
                host.statuses().await.into_iter().filter_map(|status| status.fenced).collect()
            });
            cluster.wait(task).expect("it is there")
        })
        .collect();
    assert_eq!((fenced[0].len(), fenced[1].len()), (0, 0), "{fenced:?}");
    assert!(fenced[2].iter().any(|why| why.contains("command")), "{fenced:?}");
}
