//! The scenarios, one function each: start what is needed, load it, give the figures.

use super::cluster::Cluster;
use super::protocol::{Kind, Loaded, Order};
use super::report::Row;
use super::{Arguments, BoxError};

/// A scenario: the run's arguments in, its figures out.
type Scenario = fn(&Arguments) -> Result<Vec<Row>, BoxError>;

/// Threads of a node's runtime, one a core of the machine the targets are for.
pub(super) const THREADS: usize = 2;
/// The first group of every scenario.
pub(super) const FIRST: u64 = 100;

/// All scenarios by name, in the order in which they run.
pub(crate) const ALL: &[(&str, Scenario)] = &[
    ("rafted-value/one-client", one_client),
    ("rafted-value/one-group", one_group),
    ("rafted-value/many-groups", many_groups),
    ("rafted-value/other-node", other_node),
    ("rafted-value/queries", queries),
    ("rafted-value/idle-groups", super::idle::idle_groups),
    ("rafted-value/memory", super::loads::memory),
    ("rafted-value/fsync", super::loads::fsync),
    ("rafted-value/snapshot", super::large::snapshot),
    ("rafted-value/recovery", super::large::recovery),
    ("rafted-value/outage", super::outage::outage),
    ("raft-fleet/facade", super::fleet::facade),
    ("raft-fleet/place", super::fleet::place),
    ("raft-fleet/rebalance", super::fleet::rebalance),
    ("raft-fleet/outage", super::fleet::outage),
    ("raft-kv/throughput", super::kv::throughput),
    ("raft-kv/moves", super::kv::moves),
    ("dist-agent/calls", super::agents::calls),
    ("dist-agent/many", super::agents::many_on_one_node),
    ("dist-agent/outage", super::agents::outage),
    ("foretoken", super::foretoken::scenario),
    ("batched-comm/messages", super::transport::batched_comm),
    ("batched-comm/bulk", super::bulk::scenario),
];

fn load_order(groups: u64, clients: usize, seconds: f64, kind: Kind) -> Order {
    Order::Load { first: FIRST, groups, clients, seconds, kind, leader: 1 }
}

pub(super) fn per_second(loaded: &Loaded) -> f64 {
    loaded.operations as f64 / loaded.seconds
}

pub(super) fn latencies(loaded: &Loaded) -> String {
    format!(
        "p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, {} errors",
        loaded.p50_us, loaded.p99_us, loaded.p999_us, loaded.errors
    )
}

/// Three nodes with one group led by the first, warmed up.
fn one_group_cluster(threads: usize) -> Result<Cluster, BoxError> {
    let mut cluster = Cluster::start(3, threads)?;
    cluster.order(&[(0, Order::Found { first: FIRST, groups: 1, lease: true })])?;
    cluster.load(&[(0, load_order(1, 16, 1.0, Kind::Command))])?;
    Ok(cluster)
}

fn one_client(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut rows = Vec::new();
    for threads in [1, THREADS] {
        let mut cluster = one_group_cluster(threads)?;
        // Half before and half after, as the machine's speed drifts.
        let before = cluster.echo_p50_us(arguments.seconds / 2.0)?;
        let loaded = cluster.load(&[(0, load_order(1, 1, arguments.seconds, Kind::Command))])?.remove(0);
        let echo = f64::midpoint(before, cluster.echo_p50_us(arguments.seconds / 2.0)?);
        let s = if threads == 1 { "" } else { "s" };
        let row =
            Row::new(format!("command, 1 client, p50, {threads} thread{s} a node"), loaded.p50_us, "us");
        let detail = format!("{}, {:.0}/s; at most 3 is the target", latencies(&loaded), per_second(&loaded));
        rows.push(row.against("bare QUIC echo", echo).detail(detail));
    }
    Ok(rows)
}

fn one_group(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut cluster = one_group_cluster(THREADS)?;
    let loaded = cluster.load(&[(0, load_order(1, 256, arguments.seconds, Kind::Command))])?.remove(0);
    let row = Row::new("commands, 1 group, 256 clients on the leader", per_second(&loaded), "1/s");
    Ok(vec![row.against("target", 100_000.0).detail(latencies(&loaded))])
}

fn many_groups(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut cluster = Cluster::start(3, THREADS)?;
    let spread = Spread { groups: 64, first: FIRST };
    spread.found(&mut cluster)?;
    spread.load(&mut cluster, 256, 1.0, 0)?;
    let (total, worst) = spread.load(&mut cluster, 256, arguments.seconds, 0)?;
    let row = Row::new("commands, 64 groups, 256 clients on the leaders", total, "1/s");
    Ok(vec![row.against("target", 60_000.0).detail(format!("worst node: {}", latencies(&worst)))])
}

/// Some groups, led in equal parts by three nodes; a single one is led by the first.
pub(super) struct Spread {
    pub(super) first: u64,
    pub(super) groups: u64,
}

impl Spread {
    /// Which part of `of` things is the node's.
    fn part(&self, node: u64, of: u64) -> std::ops::Range<u64> {
        match (self.groups, node) {
            (1, 0) => 0..of,
            (1, _) => of..of,
            _ => of * node / 3..of * (node + 1) / 3,
        }
    }

    pub(super) fn found(&self, cluster: &mut Cluster) -> Result<(), BoxError> {
        let order = |node: u64| {
            let part = self.part(node, self.groups);
            let (first, groups) = (self.first + part.start, part.end - part.start);
            (node as usize, Order::Found { first, groups, lease: true })
        };
        cluster.order(&[order(0), order(1), order(2)]).map(drop)
    }

    /// Each node's share of the clients drives the groups that it leads, or those of the node that is `away` places before
    /// it: commands a second, and the worst node's figures.
    pub(super) fn load(
        &self,
        cluster: &mut Cluster,
        clients: u64,
        seconds: f64,
        away: u64,
    ) -> Result<(f64, Loaded), BoxError> {
        let order = |node: u64| {
            let (part, clients) = (self.part(node, self.groups), self.part(node, clients));
            let (first, groups) = (self.first + part.start, part.end - part.start);
            let (clients, kind) = ((clients.end - clients.start) as usize, Kind::Command);
            let driver = ((node + away) % 3) as usize;
            (driver, Order::Load { first, groups, clients, seconds, kind, leader: node + 1 })
        };
        let orders: Vec<_> =
            (0..3).filter(|node| !self.part(*node, self.groups).is_empty()).map(order).collect();
        let loaded = cluster.load(&orders)?;
        let total = loaded.iter().map(per_second).sum();
        let worst = loaded.into_iter().max_by(|a, b| a.p99_us.total_cmp(&b.p99_us));
        Ok((total, worst.ok_or("no node was loaded")?))
    }
}

/// The clients beside the leader, and the same ones on a follower's node.
fn other_node(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut rows = Vec::new();
    for clients in [1, 256] {
        let mut cluster = one_group_cluster(THREADS)?;
        let order = load_order(1, clients, arguments.seconds, Kind::Command);
        let here = cluster.load(&[(0, order.clone())])?.remove(0);
        let there = cluster.load(&[(1, order)])?.remove(0);
        let s = if clients == 1 { "" } else { "s" };
        let name = format!("commands, 1 group, {clients} client{s} on a follower's node");
        let row = Row::new(name, per_second(&there), "1/s").against("on the leader's", per_second(&here));
        let detail = format!("{}; on the leader's: {}", latencies(&there), latencies(&here));
        rows.push(row.detail(detail));
    }
    Ok(rows)
}

/// Queries under the lease, and the same where each takes a round of heartbeats.
fn queries(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let order = load_order(1, 256, arguments.seconds, Kind::Query);
    let mut cluster = one_group_cluster(THREADS)?;
    let leased = cluster.load(&[(0, order.clone())])?.remove(0);
    let there = cluster.load(&[(1, order.clone())])?.remove(0);
    drop(cluster);
    let mut cluster = Cluster::start(3, THREADS)?;
    cluster.order(&[(0, Order::Found { first: FIRST, groups: 1, lease: false })])?;
    cluster.load(&[(0, load_order(1, 16, 1.0, Kind::Command))])?;
    let confirmed = cluster.load(&[(0, order)])?.remove(0);
    let row = |name: &str, loaded: &Loaded| {
        let name = format!("{name}, 1 group, 256 clients on ");
        (name, per_second(loaded), latencies(loaded))
    };
    let (name, lease, detail) = row("lease queries", &leased);
    let beside = Row::new(name + "the leader", lease, "1/s").against("target", 500_000.0).detail(detail);
    let (name, value, detail) = row("lease queries", &there);
    let away =
        Row::new(name + "a follower's node", value, "1/s").against("on the leader", lease).detail(detail);
    let (name, value, detail) = row("ReadIndex queries", &confirmed);
    let round = Row::new(name + "the leader", value, "1/s").against("lease queries", lease).detail(detail);
    Ok(vec![beside, away, round])
}
