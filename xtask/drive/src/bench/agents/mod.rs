//! Agents on three node processes, beside the bare store in the same run; and many agents on one node.

pub(crate) mod node;

use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::outage::Ordered;
use super::protocol::{Answer, Kind, Loaded, Order};
use super::report::Row;
use super::scenarios::{THREADS, latencies, per_second};
use super::{Arguments, BoxError};

const NODES: usize = 3;
/// Agents that are called.
const AGENTS: u64 = 10_000;
/// Activations at a time.
const ACTIVATORS: u64 = 256;
/// Agents whose timeout comes at each tick.
const DUE: u64 = 100;
/// Ticks over which their cost is measured.
const TICKS: u64 = 10;
/// From the client's start to the kill.
const KILL_AFTER: Duration = Duration::from_millis(300);
/// The most for a cluster to form, or to be whole again.
const WHOLE_MAX: Duration = Duration::from_secs(60);

/// What the nodes host.
#[derive(Clone, Copy)]
enum Host {
    Agents,
    Keys,
}

impl Host {
    fn verb(self) -> &'static str {
        match self {
            Host::Agents => "bench-agents",
            Host::Keys => "bench-keys",
        }
    }
}

/// Commands, queries and activations, and the same of the bare store.
pub(super) fn calls(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut rows = Vec::new();
    let bare = measure(Host::Keys, arguments)?;
    let agents = measure(Host::Agents, arguments)?;
    for (of_agents, of_keys) in agents.iter().zip(&bare) {
        let row = Row::new(format!("{}, {AGENTS} agents", of_agents.what), of_agents.per_second, "1/s");
        rows.push(row.against("raft-kv", of_keys.per_second).detail(of_agents.detail.clone()));
    }
    Ok(rows)
}

/// A figure of a load.
struct Figure {
    what: String,
    per_second: f64,
    detail: String,
}

impl Figure {
    /// The sum over all nodes, and the latencies of the worst.
    fn of(what: String, loaded: &[Loaded]) -> Self {
        let worst = loaded.iter().max_by(|a, b| a.p99_us.total_cmp(&b.p99_us));
        let detail = worst.map_or(String::new(), |worst| format!("worst node: {}", latencies(worst)));
        Self { what, per_second: loaded.iter().map(per_second).sum(), detail }
    }
}

fn measure(host: Host, arguments: &Arguments) -> Result<Vec<Figure>, BoxError> {
    let mut cluster = Cluster::start_hosting(host.verb(), NODES, THREADS)?;
    let share = |node: u64, of: u64| (of * node / NODES as u64, of * (node + 1) / NODES as u64);
    let activate = |node: u64| {
        let (first, end) = share(node, AGENTS);
        let clients = (ACTIVATORS / NODES as u64) as usize;
        (node as usize, Order::Activate { first, agents: end - first, clients })
    };
    let activated = cluster.load(&[activate(0), activate(1), activate(2)])?;
    let mut figures = vec![Figure::of("activations".into(), &activated)];
    for (kind, what) in [(Kind::Command, "commands"), (Kind::Query, "queries")] {
        for clients in [64, 256] {
            let load = |node: u64, seconds: f64| {
                let (first, end) = share(node, clients);
                let clients = (end - first) as usize;
                (node as usize, Order::Call { agents: AGENTS, clients, seconds, kind })
            };
            cluster.load(&[load(0, 1.0), load(1, 1.0), load(2, 1.0)])?;
            let seconds = arguments.seconds;
            let loaded = cluster.load(&[load(0, seconds), load(1, seconds), load(2, seconds)])?;
            figures.push(Figure::of(format!("{what}, {clients} clients"), &loaded));
        }
    }
    Ok(figures)
}

/// What many idle agents cost in memory, and what a tick costs when few of them are due.
pub(super) fn many_on_one_node(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let agents = arguments.agents;
    let mut cluster = Cluster::start_hosting(Host::Agents.verb(), 1, THREADS)?;
    // The node's own needs, before any of the agents.
    cluster.load(&[(0, Order::Activate { first: 0, agents: 1, clients: 1 })])?;
    let before = cluster.usage()?.remove(0);
    let order = Order::Activate { first: 1, agents, clients: ACTIVATORS as usize };
    let activated = cluster.load(&[(0, order)])?.remove(0);
    // What was kept for clients is gone after its window.
    std::thread::sleep(Duration::from_secs(5));
    let after = cluster.usage()?.remove(0);
    let bytes = after.resident_bytes.saturating_sub(before.resident_bytes) as f64 / agents as f64;
    let per_agent = bytes - node::STATE_BYTES as f64;
    let mut rows = vec![
        Row::new(format!("bytes an idle agent beside its state, {agents} agents on a node"), per_agent, "B")
            .against("target", 250.0)
            .detail(format!("key of {} bytes included", node::KEY_BYTES)),
        Row::new("activations, one node alone", per_second(&activated), "1/s").detail(latencies(&activated)),
    ];
    let mut cpu = |due| -> Result<f64, BoxError> {
        cluster.load(&[(0, Order::Ticks { agents: due, ticks: TICKS as u32 })])?;
        let before = cluster.usage()?.remove(0).cpu_seconds;
        std::thread::sleep(node::TICK * TICKS as u32);
        Ok(cluster.usage()?.remove(0).cpu_seconds - before)
    };
    let idle = cpu(0)?;
    let busy = cpu(DUE)?;
    let tick_ms = (busy - idle).max(0.0) * 1000.0 / TICKS as f64;
    rows.push(
        Row::new(format!("CPU of a tick, {DUE} of {agents} agents due"), tick_ms, "ms")
            .against("target", 5.0)
            .detail(format!("over {TICKS} ticks; idle {:.0} ms a tick", idle * 1000.0 / TICKS as f64)),
    );
    Ok(rows)
}

/// How long an agent does not answer after `kill -9` of the node that leads it. State is in memory: the killed node comes
/// back empty.
pub(super) fn outage(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut cluster = Cluster::start_hosting(Host::Agents.verb(), NODES, THREADS)?;
    cluster.load(&[(0, Order::Activate { first: 0, agents: 1, clients: 1 })])?;
    let mut outages = Vec::new();
    for kill in 0..arguments.kills {
        let leader = whole(&mut cluster)?;
        let witness = (leader + 1 + kill as usize % (NODES - 1)) % NODES;
        cluster.tell(witness, &Order::Outlast { group: 0, leader: leader as u64 + 1 })?;
        std::thread::sleep(KILL_AFTER + Duration::from_millis(u64::from(kill) * 17 % 50));
        cluster.kill(leader);
        match cluster.answer(witness)? {
            Answer::Outlasted { outage_ms } => outages.push(outage_ms),
            other => return Err(format!("an outage was answered by {other:?}").into()),
        }
        cluster.restart(leader)?;
    }
    let outages = Ordered::of(outages)?;
    let row = |name: &str, value: f64| {
        Row::new(format!("outage of an agent after kill -9 of its node, {name}"), value, "ms")
    };
    Ok(vec![
        row("p50", outages.quantile(0.5)).detail(format!("{} kills", arguments.kills)),
        row("p99", outages.quantile(0.99)),
        row("max", outages.quantile(1.0)),
    ])
}

/// Waits until a node leads the first agent's shard and all groups have all their members, those of the ledger and of the
/// lists too: state is in memory, and a group that loses a second member before the first is replaced is lost. The
/// leader's index.
fn whole(cluster: &mut Cluster) -> Result<usize, BoxError> {
    let deadline = Instant::now() + WHOLE_MAX;
    let mut standings = Vec::new();
    while Instant::now() < deadline {
        standings = (0..NODES).map(|node| cluster.standing(node, 0)).collect::<Result<Vec<_>, _>>()?;
        let led: u64 = standings.iter().map(|standing| standing.led).sum();
        let all_led = standings.iter().all(|standing| led > standing.groups && standing.groups > 0);
        let leader = standings.iter().position(|standing| standing.leads);
        if let Some(leader) = leader
            && all_led
            && standings.iter().all(|standing| standing.whole)
        {
            return Ok(leader);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("the cluster was not whole within {} s: {standings:?}", WHOLE_MAX.as_secs()).into())
}
