//! A bench node's part in a store of bytes: it is told to take part, to make keyspaces, and to load them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dist_agent::raft_kv::raft_fleet::{CallOptions, Durability, FleetConfig, GroupConfig, GroupName};
use dist_agent::raft_kv::{
    BytesStore, Key, Keyspace, KeyspaceName, KeyspacePolicy, Kv, KvConfig, KvTypes, SplitMergePolicy,
};
use hdrhistogram::Histogram;
use rafted_value::Freshness;
use rafted_value::env::{RealEnv, random_u64_from_os};

use super::BoxError;
use super::node::{LATENCY_MAX_NS, joined};
use super::protocol::{Answer, Kind, KvLoad, KvOrder, Loaded};

/// Writers that fill a keyspace.
const FILLERS: u64 = 64;

/// This node's part in the store.
pub(super) struct KvNode {
    kv: Kv,
}

impl KvNode {
    /// Forms the store with the nodes at these addresses.
    pub(super) async fn start(env: Arc<RealEnv>, seeds: Vec<String>) -> Result<Self, BoxError> {
        let fleet = FleetConfig { bootstrap_expect: seeds.len(), seeds, ..FleetConfig::default() };
        let kv = Kv::start(env, fleet, KvConfig::default(), KvTypes::new().with_bytes()).await?;
        Ok(Self { kv })
    }

    pub(super) async fn carry_out(&self, order: KvOrder) -> Result<Answer, BoxError> {
        match order {
            KvOrder::Start { .. } => Err("the store is started already".into()),
            KvOrder::Register { name, shards } => self.register(&name, shards).await,
            KvOrder::Fill { name, keys, bytes } => self.fill(&name, keys, bytes).await,
            KvOrder::Load(load) => self.load(load, None).await,
            KvOrder::LoadAndMove { load, merge } => self.load(load, Some(merge)).await,
        }
    }

    fn store(&self, name: &str) -> Result<BytesStore, BoxError> {
        let options = CallOptions { timeout: Duration::from_secs(10), ..CallOptions::default() };
        Ok(BytesStore::new(self.kv.clone(), KeyspaceName::new(name)?, options))
    }

    async fn register(&self, name: &str, shards: u32) -> Result<Answer, BoxError> {
        let began = Instant::now();
        let policy = BytesStore::policy();
        let group = GroupConfig { durability: Durability::Memory, ..policy.group };
        // Moves are ordered, not planned.
        let split_merge = SplitMergePolicy::default();
        self.store(name)?.register(&KeyspacePolicy { shards, group, split_merge, ..policy }).await?;
        Ok(Answer::Took { seconds: began.elapsed().as_secs_f64() })
    }

    async fn fill(&self, name: &str, keys: u64, bytes: usize) -> Result<Answer, BoxError> {
        let began = Instant::now();
        let tasks: Vec<_> = (0..FILLERS)
            .map(|filler| {
                let store = self.store(name)?;
                Ok(tokio::spawn(async move {
                    for n in (filler..keys).step_by(FILLERS as usize) {
                        store.set(&key(n), vec![7; bytes]).await?;
                    }
                    Ok::<_, BoxError>(())
                }))
            })
            .collect::<Result<_, BoxError>>()?;
        for task in tasks {
            task.await??;
        }
        Ok(Answer::Took { seconds: began.elapsed().as_secs_f64() })
    }

    /// Loads a keyspace for its time, or until a split, or a merge of its first two shards, is done.
    async fn load(&self, load: KvLoad, merge: Option<bool>) -> Result<Answer, BoxError> {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let began = Instant::now();
        let keyspace = self.kv.keyspace(&KeyspaceName::new(&load.name)?).await?;
        let tasks: Vec<_> = (0..load.clients)
            .map(|_| {
                let client =
                    Client { store: self.store(&load.name)?, keyspace: keyspace.clone(), load: load.clone() };
                Ok(tokio::spawn(client.run(stopped.clone())))
            })
            .collect::<Result<_, BoxError>>()?;
        let moved = match merge {
            None => {
                tokio::time::sleep(Duration::from_secs_f64(load.seconds)).await;
                None
            }
            Some(merge) => Some(self.move_shard(&keyspace, merge).await?),
        };
        stop.send_replace(true);
        let (all, errors) = joined(tasks).await?;
        let loaded = Loaded::of(&all, errors, began.elapsed());
        Ok(Answer::KvLoaded { loaded, moved })
    }

    /// How long the move took, from the order until nothing is left of it.
    async fn move_shard(&self, keyspace: &Keyspace, merge: bool) -> Result<f64, BoxError> {
        let began = Instant::now();
        let (name, shards) = (&keyspace.name, &keyspace.shards);
        if merge {
            self.kv.merge_shards(name, shards[0].number, shards[1].number).await?;
        } else {
            self.kv.split_shard(name, shards[0].number, None).await?;
        }
        while !self.kv.moves().await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(began.elapsed().as_secs_f64())
    }
}

fn key(n: u64) -> Key {
    Key::new(format!("key-{n}")).expect("a short key")
}

/// One client in a closed loop.
struct Client {
    store: BytesStore,
    keyspace: Keyspace,
    load: KvLoad,
}

impl Client {
    async fn run(self, stopped: tokio::sync::watch::Receiver<bool>) -> (Histogram<u64>, u64) {
        let mut latencies =
            Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("the bounds are in order");
        let mut errors = 0;
        let value = Bytes::from(vec![7; self.load.bytes]);
        let groups: Vec<(u64, GroupName)> = self.groups();
        while !*stopped.borrow() {
            let key = key(random_u64_from_os() % self.load.keys);
            let now = Instant::now();
            let ok = if self.load.bare {
                self.bare(&groups, &key, &value).await
            } else {
                match self.load.kind {
                    Kind::Command => self.store.set(&key, value.clone()).await.is_ok(),
                    Kind::Query => self.store.get(&key).await.is_ok(),
                }
            };
            if ok {
                let nanos = u64::try_from(now.elapsed().as_nanos()).unwrap_or(u64::MAX);
                latencies.saturating_record(nanos.max(1));
            } else {
                errors += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        (latencies, errors)
    }

    /// The groups of the shards, behind the last hash of each.
    fn groups(&self) -> Vec<(u64, GroupName)> {
        let Keyspace { name, generation, shards, .. } = &self.keyspace;
        let group = |number: u32| GroupName::new(&format!("kv/{name}/{generation}.{number}"));
        let groups = shards.iter().map(|shard| (shard.range.last(), group(shard.number)));
        groups.map(|(last, group)| (last, group.expect("a short name"))).collect()
    }

    /// The same command or query straight to the shard's group, as the fleet below would send it.
    async fn bare(&self, groups: &[(u64, GroupName)], key: &Key, value: &Bytes) -> bool {
        let hash = key.hash();
        let at = groups.partition_point(|(last, _)| *last < hash);
        let (fleet, options) = (self.store.kv().fleet(), CallOptions::default());
        let mut payload = Vec::with_capacity(32 + value.len());
        match self.load.kind {
            Kind::Command => {
                payload.push(1);
                put(&mut payload, key.as_bytes());
                payload.push(0);
                put(&mut payload, value);
                fleet.command(&groups[at].1, hash, payload.into(), &options).await.is_ok()
            }
            Kind::Query => {
                payload.push(0);
                put(&mut payload, key.as_bytes());
                fleet.query(&groups[at].1, Freshness::Latest, payload.into(), &options).await.is_ok()
            }
        }
    }
}

/// Bytes behind their length, as postcard writes them.
fn put(payload: &mut Vec<u8>, bytes: &[u8]) {
    payload.extend(postcard::to_stdvec(bytes).expect("bytes serialise"));
}
