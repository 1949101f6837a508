//! What the shards of the cluster hold and have to do, as the leaders on each node tell.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use raft_fleet::rafted_value::env::MonoTime;
use raft_fleet::rafted_value::transport::{Handler, Lane, Reply, ServiceId};
use raft_fleet::rafted_value::{GroupId, GroupStatus, NodeId, Role, encode};
use serde::{Deserialize, Serialize};

use super::plan::{Sample, Samples};
use crate::keyspace::{Keyspace, KeyspaceName};
use crate::keyspace_list::KeyspaceList;
use crate::kv::local_statuses;
use crate::shard::ShardStatus;
use crate::value_type::SHARD_DATA;

/// The store's own service on a node.
const KV_SERVICE: ServiceId = ServiceId(32);
/// How long a node may take for all of its leaders.
const NODE_LIMIT: Duration = Duration::from_secs(5);
/// Measurements that follow each other more closely than this say nothing of a rate.
const RATE_MIN: Duration = Duration::from_millis(100);

/// What one node asks another; append-only.
#[derive(Serialize, Deserialize)]
enum KvRequest {
    /// What the leaders on it hold.
    Leaders,
}

/// What a node answers; append-only.
#[derive(Serialize, Deserialize)]
enum KvReply {
    Leaders(Vec<(GroupId, ShardStatus)>),
}

/// Answers other nodes.
pub(crate) struct KvService {
    /// Weak, because the transport keeps its handlers.
    list: Weak<KeyspaceList>,
}

impl KvService {
    /// From now on this node answers.
    pub(crate) fn register(list: &Arc<KeyspaceList>) {
        let service = Arc::new(Self { list: Arc::downgrade(list) });
        list.fleet().env().transport().register(KV_SERVICE, service);
    }
}

impl Handler for KvService {
    fn on_cast(&self, from: NodeId, _: Bytes) {
        tracing::debug!(%from, "a cast to a service that takes none");
    }

    fn on_call(&self, from: NodeId, payload: Bytes, reply: Reply) {
        let Some(list) = self.list.upgrade() else { return };
        match postcard::from_bytes(&payload) {
            Ok(KvRequest::Leaders) => {
                let env = Arc::clone(list.fleet().env());
                let answer = async move { reply.send(encode(&KvReply::Leaders(local_leaders(&list).await))) };
                env.spawn("kv-stats", Box::pin(answer));
            }
            Err(error) => tracing::debug!(%from, %error, "a request that does not decode"),
        }
    }
}

/// What the shards hold that are led on this node.
async fn local_leaders(list: &KeyspaceList) -> Vec<(GroupId, ShardStatus)> {
    let leads = |member: &GroupStatus| member.role == Role::Leader && member.data.starts_with(SHARD_DATA);
    local_statuses(list.fleet(), leads).await
}

/// Counters become rates from one collection to the next.
#[derive(Default)]
pub(super) struct Collector {
    last: BTreeMap<GroupId, Counted>,
}

#[derive(Clone, Copy)]
struct Counted {
    node: NodeId,
    load: u64,
    at: MonoTime,
}

impl Collector {
    /// Asks every node what its leaders hold.
    pub(super) async fn collect(&mut self, list: &KeyspaceList, keyspaces: &[Keyspace]) -> Samples {
        let cluster = list.fleet().cluster();
        let mut shards = BTreeMap::new();
        for (name, entry) in cluster.groups() {
            if let Some((_, generation, shard)) = KeyspaceName::parse_shard_group(name) {
                shards.insert(entry.id, (generation, shard));
            }
        }
        let transport = list.fleet().env().transport();
        let calls = cluster.nodes().keys().map(|node| async move {
            let request = encode(&KvRequest::Leaders);
            (*node, transport.call(*node, Lane::Normal, KV_SERVICE, request, NODE_LIMIT).await)
        });
        let mut samples = Samples::new();
        for (node, answer) in futures_util::future::join_all(calls).await {
            let Ok(answer) = answer else { continue };
            let Ok(KvReply::Leaders(leaders)) = postcard::from_bytes(&answer) else { continue };
            for (group, status) in leaders {
                let Some((generation, shard)) = shards.get(&group) else { continue };
                let keyspace = keyspaces.iter().find(|keyspace| keyspace.generation == *generation);
                let Some(keyspace) = keyspace else { continue };
                let miss_load = keyspace.policy.split_merge.miss_load;
                let counted = Counted {
                    node,
                    load: status.load.saturating_add(status.misses.saturating_mul(miss_load)),
                    at: list.fleet().env().now(),
                };
                samples.insert((*generation, *shard), self.sample(group, counted, &status));
            }
        }
        self.last.retain(|group, _| shards.contains_key(group));
        samples
    }

    fn sample(&mut self, group: GroupId, counted: Counted, status: &ShardStatus) -> Sample {
        let before = self.last.insert(group, counted);
        // A new leader counts from zero, and so does a shard with a new range.
        let before = before.filter(|before| before.node == counted.node && before.load <= counted.load);
        let load = before.and_then(|before| {
            let passed = counted.at.since(before.at);
            (passed >= RATE_MIN).then(|| {
                let load = u128::from(counted.load - before.load) * 1000 / passed.as_millis();
                u64::try_from(load).unwrap_or(u64::MAX)
            })
        });
        let hot = status.hot_hash.map(|hash| (hash, status.hot_permille));
        Sample { keys: status.keys, size: status.size, load, hot }
    }
}

#[cfg(any(feature = "fuzzing", test))]
pub(crate) mod fuzzing {
    use super::{KvReply, KvRequest};

    /// What nodes ask and answer.
    pub(crate) fn bytes(bytes: &[u8]) {
        let _ = postcard::from_bytes::<KvRequest>(bytes);
        let _ = postcard::from_bytes::<KvReply>(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of two versions ask each other.
    #[test]
    fn the_bytes_of_requests_and_replies_never_change() {
        assert_eq!(encode(&KvRequest::Leaders)[..], [0]);
        let (range, hot_hash) = (None, None);
        let status = ShardStatus {
            range,
            keys: 1,
            size: 2,
            load: 3,
            misses: 4,
            moving: false,
            hot_hash,
            hot_permille: 5,
            hands_over: false,
        };
        let reply = KvReply::Leaders(vec![(GroupId(9), status)]);
        assert_eq!(encode(&reply)[..], [0, 1, 9, 0, 1, 2, 3, 4, 0, 0, 5, 0]);
    }
}
