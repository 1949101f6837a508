//! raft-kv over three node processes: throughput by clients and shards, what routing costs, and a shard that is split and
//! merged while clients write.

use super::cluster::Cluster;
use super::protocol::{Answer, Kind, KvLoad, KvOrder, Loaded, Order};
use super::report::Row;
use super::scenarios::{THREADS, latencies, per_second};
use super::{Arguments, BoxError};

/// Keys of the loads.
const KEYS: u64 = 10_000;
/// Bytes of their values.
const BYTES: usize = 100;
/// The shard that is moved.
const MOVED_KEYS: u64 = 100_000;
const MOVED_BYTES: usize = 1000;
const MOVED_CLIENTS: usize = 64;
/// Splits and merges, half of each.
const MOVES: usize = 12;

fn start() -> Result<Cluster, BoxError> {
    let mut cluster = Cluster::start(3, THREADS)?;
    let orders: Vec<_> = (0..3).map(|node| (node, Order::Kv(KvOrder::Start {}))).collect();
    cluster.order(&orders)?;
    Ok(cluster)
}

fn took(cluster: &mut Cluster, order: KvOrder) -> Result<f64, BoxError> {
    match cluster.order(&[(0, Order::Kv(order))])?.remove(0) {
        Answer::Took { seconds } => Ok(seconds),
        other => Err(format!("an order was answered by {other:?}").into()),
    }
}

/// The clients are spread over the nodes; the figures of all together, with the latencies of the slowest.
fn load(cluster: &mut Cluster, load: &KvLoad) -> Result<Loaded, BoxError> {
    let orders: Vec<_> = (0..3)
        .map(|node| {
            let clients = (load.clients + 2 - node) / 3;
            (node, Order::Kv(KvOrder::Load(KvLoad { clients, ..load.clone() })))
        })
        .collect();
    let mut all = Loaded::default();
    for answer in cluster.order(&orders)? {
        let Answer::KvLoaded { loaded, .. } = answer else {
            return Err(format!("a load was answered by {answer:?}").into());
        };
        all.operations += loaded.operations;
        all.errors += loaded.errors;
        all.seconds = all.seconds.max(loaded.seconds);
        all.p50_us = all.p50_us.max(loaded.p50_us);
        all.p99_us = all.p99_us.max(loaded.p99_us);
        all.p999_us = all.p999_us.max(loaded.p999_us);
    }
    Ok(all)
}

/// Commands and queries a second at 64 and 256 clients with 1, 8 and 32 shards, beside the fleet below.
pub(super) fn throughput(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut cluster = start()?;
    let mut rows = Vec::new();
    let mut one_shard = 0.0;
    for shards in [1, 8, 32] {
        let name = format!("bench-{shards}");
        took(&mut cluster, KvOrder::Register { name: name.clone(), shards })?;
        took(&mut cluster, KvOrder::Fill { name: name.clone(), keys: KEYS, bytes: BYTES })?;
        for (clients, kind, verb) in [
            (64, Kind::Command, "commands"),
            (256, Kind::Command, "commands"),
            (64, Kind::Query, "queries"),
            (256, Kind::Query, "queries"),
        ] {
            let wanted = KvLoad {
                name: name.clone(),
                clients,
                seconds: arguments.seconds / 2.0,
                kind,
                keys: KEYS,
                bytes: BYTES,
                bare: false,
            };
            // Before and after, as the machine's speed drifts.
            let bare = KvLoad { bare: true, ..wanted.clone() };
            let before = per_second(&load(&mut cluster, &bare)?);
            let loaded = load(&mut cluster, &wanted)?;
            let after = per_second(&load(&mut cluster, &bare)?);
            let figure = format!("raft-kv/throughput {verb} {shards} shards {clients} clients");
            let row = Row::new(figure, per_second(&loaded), "1/s");
            rows.push(row.against("raft-fleet", f64::midpoint(before, after)).detail(latencies(&loaded)));
            if (clients, kind) == (256, Kind::Command) {
                match shards {
                    1 => one_shard = per_second(&loaded),
                    8 => {
                        let row =
                            Row::new("raft-kv/scaling 8 shards, 256 clients", per_second(&loaded), "1/s");
                        rows.push(row.against("1 shard", one_shard));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(rows)
}

/// A shard of 100,000 keys of 1 KB is split and merged again, time after time, while 64 clients write.
pub(super) fn moves(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut cluster = start()?;
    let name = "moved".to_owned();
    took(&mut cluster, KvOrder::Register { name: name.clone(), shards: 1 })?;
    took(&mut cluster, KvOrder::Fill { name: name.clone(), keys: MOVED_KEYS, bytes: MOVED_BYTES })?;
    let load = KvLoad {
        name,
        clients: MOVED_CLIENTS,
        seconds: arguments.seconds,
        kind: Kind::Command,
        keys: MOVED_KEYS,
        bytes: MOVED_BYTES,
        bare: false,
    };
    let (undisturbed, _) = load_and_move(&mut cluster, KvOrder::Load(load.clone()))?;
    let mut rows = vec![longest("undisturbed", std::slice::from_ref(&undisturbed))];
    let (mut splits, mut merges) = (Vec::new(), Vec::new());
    let (mut split_seconds, mut merge_seconds) = (Vec::new(), Vec::new());
    for _ in 0..MOVES / 2 {
        for (merge, loads, seconds) in
            [(false, &mut splits, &mut split_seconds), (true, &mut merges, &mut merge_seconds)]
        {
            let order = KvOrder::LoadAndMove { load: load.clone(), merge };
            let (loaded, took) = load_and_move(&mut cluster, order)?;
            loads.push(loaded);
            seconds.push(took.ok_or("a move took no time")?);
        }
    }
    for (figure, loads, seconds) in [("split", splits, split_seconds), ("merge", merges, merge_seconds)] {
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        rows.push(Row::new(format!("raft-kv/moves {figure} of 100,000 keys of 1 KB"), mean, "s"));
        let undisturbed_ms = undisturbed.max_us / 1000.0;
        rows.push(longest(figure, &loads).against("undisturbed", undisturbed_ms));
    }
    Ok(rows)
}

fn load_and_move(cluster: &mut Cluster, order: KvOrder) -> Result<(Loaded, Option<f64>), BoxError> {
    match cluster.order(&[(0, Order::Kv(order))])?.remove(0) {
        Answer::KvLoaded { loaded, moved } => Ok((loaded, moved)),
        other => Err(format!("a load was answered by {other:?}").into()),
    }
}

/// The longest that any command took in any of the loads, which is at least as long as any pause was.
fn longest(figure: &str, loads: &[Loaded]) -> Row {
    let mut longest: Vec<f64> = loads.iter().map(|loaded| loaded.max_us / 1000.0).collect();
    longest.sort_by(f64::total_cmp);
    let each: Vec<String> = longest.iter().map(|ms| format!("{ms:.0}")).collect();
    let (speed, last) = (loads.iter().map(per_second).sum::<f64>() / loads.len() as f64, loads.last());
    let latencies = last.map_or_else(String::new, latencies);
    let detail = format!("each {} ms; {speed:.0} commands/s, {latencies}", each.join(" "));
    let max = longest.last().copied().unwrap_or(0.0);
    Row::new(format!("raft-kv/moves {figure} longest"), max, "ms").detail(detail)
}
