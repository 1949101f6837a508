//! Begins the splits and merges that are due. The node that leads the list of keyspaces does it; what it knows is soft,
//! and what it asks for is checked by the list.

use std::sync::Arc;

use raft_fleet::rafted_value::env::sleep;
use raft_fleet::rafted_value::{Freshness, NodeId};

use super::plan::{Plan, plan, split_point};
use super::stats::Collector;
use crate::keyspace::{KeyspaceName, SplitMergePolicy};
use crate::keyspace_list::KeyspaceList;
use crate::keyspaces::{KeyspacesCommand, KeyspacesReply, Listed, Move};
use crate::shard::{ShardAnswer, ShardQuery, split_answer};

/// Plans as long as the node runs.
pub(crate) async fn run(list: Arc<KeyspaceList>) {
    let mut collector = Collector::default();
    loop {
        sleep(list.fleet().env().as_ref(), list.config().stats_interval).await;
        let node: NodeId = list.fleet().node();
        if !list.is_led_here().await {
            collector = Collector::default();
            continue;
        }
        let Ok(Listed { keyspaces, mut moves, .. }) = list.read_all().await else { continue };
        if !keyspaces.iter().any(|keyspace| has_thresholds(&keyspace.policy.split_merge)) {
            continue;
        }
        let mut samples = collector.collect(&list, &keyspaces).await;
        let now_ms = list.fleet().env().wall_ms();
        for round in 0.. {
            let mut stuck = Vec::new();
            for plan in plan(&keyspaces, &moves, &samples, now_ms, list.config().moves_max) {
                if round > 0 && matches!(plan, Plan::HotKey { .. }) {
                    continue; // It was reported.
                }
                tracing::info!(%node, ?plan, "a plan for shards");
                match begin(&list, plan).await {
                    Begun::Moving(started) => moves.push(started),
                    Begun::Stuck(shard) => stuck.push(shard),
                    Begun::Nothing => {}
                }
            }
            if stuck.is_empty() {
                break;
            }
            // The others have the turn of those that no split helps.
            samples.retain(|shard, _| !stuck.contains(shard));
        }
    }
}

/// What has become of a plan.
enum Begun {
    Moving(Move),
    /// The shard, by generation and number, cannot be split anywhere.
    Stuck((u64, u32)),
    Nothing,
}

fn has_thresholds(policy: &SplitMergePolicy) -> bool {
    policy.max_keys.is_some() || policy.max_size.is_some() || policy.max_load.is_some()
}

async fn begin(list: &KeyspaceList, plan: Plan) -> Begun {
    let moves_max = list.config().moves_max;
    let command = match plan {
        Plan::Split { keyspace: name, generation, shard, because } => {
            let query = ShardQuery::Weights.encode(&[]);
            let group = name.shard_group(generation, shard);
            let answer = list.fleet().query(&group, Freshness::Latest, query, &list.config().call).await;
            let Ok(Ok((ShardAnswer::Weights(weights), _))) = answer.map(|answer| split_answer(&answer))
            else {
                return Begun::Nothing;
            };
            let Some(at) = split_point(&weights, because) else {
                tracing::warn!(keyspace = %name, shard, ?because, "a shard has too much of one thing in one place");
                return Begun::Stuck((generation, shard));
            };
            KeyspacesCommand::Split { name, generation, shard, at, moves_max }
        }
        Plan::Merge { keyspace: name, generation, from, to } => {
            KeyspacesCommand::Merge { name, generation, from, to, moves_max }
        }
        Plan::HotKey { keyspace, shard, hash } => {
            report_hot_key(&keyspace, shard, hash);
            return Begun::Nothing;
        }
    };
    match list.command_once("starting a move", &command).await {
        Ok(KeyspacesReply::Moving(started)) => Begun::Moving(started),
        other => {
            tracing::debug!(?other, "a move does not begin");
            Begun::Nothing
        }
    }
}

fn report_hot_key(keyspace: &KeyspaceName, shard: u32, hash: u64) {
    tracing::warn!(%keyspace, shard, hash = format_args!("{hash:016x}"), "one key has more load than a shard should");
    metrics::counter!("raft_kv_hot_keys_total").increment(1);
}
