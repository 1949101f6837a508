//! The scenarios, one function each: start what is needed, load it, give the figures.

use std::time::Duration;

use super::cluster::Cluster;
use super::protocol::{Kind, Loaded, Order};
use super::report::Row;
use super::{Arguments, BoxError};

/// A scenario: the run's arguments in, its figures out.
type Scenario = fn(&Arguments) -> Result<Vec<Row>, BoxError>;

/// Threads of a node's runtime, one a core of the machine the targets are for.
const THREADS: usize = 2;
/// The first group of every scenario.
const FIRST: u64 = 100;

/// All scenarios by name, in the order in which they run.
pub(crate) const ALL: &[(&str, Scenario)] = &[
    ("one-client", one_client),
    ("one-group", one_group),
    ("many-groups", many_groups),
    ("lease-queries", lease_queries),
    ("idle-groups", idle_groups),
    ("foretoken", super::foretoken::scenario),
    ("batched-comm", super::transport::batched_comm),
];

fn load_order(groups: u64, clients: usize, seconds: f64, kind: Kind) -> Order {
    Order::Load { first: FIRST, groups, clients, seconds, kind }
}

fn per_second(loaded: &Loaded) -> f64 {
    loaded.operations as f64 / loaded.seconds
}

fn latencies(loaded: &Loaded) -> String {
    format!(
        "p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, {} errors",
        loaded.p50_us, loaded.p99_us, loaded.p999_us, loaded.errors
    )
}

/// Three nodes with one group led by the first, warmed up.
fn one_group_cluster(threads: usize) -> Result<Cluster, BoxError> {
    let mut cluster = Cluster::start(3, threads)?;
    cluster.order(&[(0, Order::Found { first: FIRST, groups: 1 })])?;
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
    const GROUPS: u64 = 64;
    const CLIENTS: usize = 256;
    let mut cluster = Cluster::start(3, THREADS)?;
    // A third of the groups each, and each node's clients drive the groups that it leads.
    let shares: Vec<(usize, u64, u64, usize)> = (0..3)
        .map(|node| {
            let from = GROUPS * node / 3;
            let to = GROUPS * (node + 1) / 3;
            let clients = CLIENTS * (node as usize + 1) / 3 - CLIENTS * node as usize / 3;
            (node as usize, FIRST + from, to - from, clients)
        })
        .collect();
    let found: Vec<_> =
        shares.iter().map(|&(node, first, groups, _)| (node, Order::Found { first, groups })).collect();
    cluster.order(&found)?;
    let orders = |seconds: f64| -> Vec<_> {
        let order = |&(node, first, groups, clients): &(usize, u64, u64, usize)| {
            (node, Order::Load { first, groups, clients, seconds, kind: Kind::Command })
        };
        shares.iter().map(order).collect()
    };
    cluster.load(&orders(1.0))?;
    let loaded = cluster.load(&orders(arguments.seconds))?;
    let total: f64 = loaded.iter().map(per_second).sum();
    let worst = loaded.iter().max_by(|a, b| a.p99_us.total_cmp(&b.p99_us)).ok_or("no node was loaded")?;
    let row = Row::new("commands, 64 groups, 256 clients on the leaders", total, "1/s");
    Ok(vec![row.against("target", 60_000.0).detail(format!("worst node: {}", latencies(worst)))])
}

fn lease_queries(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut cluster = one_group_cluster(THREADS)?;
    let loaded = cluster.load(&[(0, load_order(1, 256, arguments.seconds, Kind::Query))])?.remove(0);
    let row = Row::new("lease queries, 1 group, 256 clients on the leader", per_second(&loaded), "1/s");
    Ok(vec![row.against("target", 500_000.0).detail(latencies(&loaded))])
}

fn idle_groups(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut cluster = Cluster::start(3, THREADS)?;
    let before = cluster.usage()?;
    let share = arguments.idle_groups / 3;
    let counts = [arguments.idle_groups - 2 * share, share, share];
    let mut first = FIRST;
    let mut found = Vec::new();
    for (node, groups) in counts.into_iter().enumerate() {
        found.push((node, Order::Found { first, groups }));
        first += groups;
    }
    cluster.order(&found)?;
    std::thread::sleep(Duration::from_secs(3));
    let idle = cluster.usage()?;
    let seconds = arguments.seconds.max(5.0);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let after = cluster.usage()?;
    let cores: Vec<f64> = after
        .iter()
        .zip(&idle)
        .map(|(after, idle)| (after.cpu_seconds - idle.cpu_seconds) / seconds)
        .collect();
    let worst = cores.iter().copied().fold(0.0, f64::max);
    let bytes: f64 = idle
        .iter()
        .zip(&before)
        .map(|(idle, before)| idle.resident_bytes as f64 - before.resident_bytes as f64)
        .sum();
    let groups = arguments.idle_groups;
    let cpu = Row::new(format!("{groups} idle groups, CPU of the busiest node"), worst, "cores");
    let memory = Row::new(format!("{groups} idle groups, memory a group"), bytes / groups as f64, "bytes");
    let all: Vec<String> = cores.iter().map(|cores| format!("{cores:.3}")).collect();
    Ok(vec![
        cpu.against("target", 0.05).detail(format!("cores: {}", all.join(", "))),
        memory.against("target", 20_000.0).detail("three members, resident".into()),
    ])
}
