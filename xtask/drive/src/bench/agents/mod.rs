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
/// How often each of two clusters is loaded, one after the other.
const TURNS: u64 = 5;
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
///
/// Both clusters are there all the while and are loaded in turns, one idle while the other works: the speed of a machine
/// drifts by more than what is looked for.
pub(super) fn calls(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut keys = Cluster::start_hosting(Host::Keys.verb(), NODES, THREADS)?;
    let mut agents = Cluster::start_hosting(Host::Agents.verb(), NODES, THREADS)?;
    let mut take_turns = |what: String, order: &dyn Fn(u64, u64) -> Order| -> Result<Row, BoxError> {
        let (mut of_keys, mut of_agents) = (Figure::default(), Figure::default());
        for turn in 0..TURNS {
            let orders: Vec<_> = (0..NODES).map(|node| (node, order(node as u64, turn))).collect();
            of_keys.add(&mut keys, &orders)?;
            of_agents.add(&mut agents, &orders)?;
        }
        Ok(of_agents.against(&format!("{what}, {AGENTS} agents"), &of_keys))
    };
    let mut rows = Vec::new();
    for (from, what) in [(0, "activations"), (node::TIGHT, "activations in a quota with little room")] {
        let activate = |node: u64, turn: u64| {
            let (first, end) = share(node, AGENTS);
            let clients = (ACTIVATORS / NODES as u64) as usize;
            Order::Activate { first: from + turn * AGENTS + first, agents: end - first, clients }
        };
        rows.push(take_turns(what.into(), &activate)?);
    }
    for (kind, what) in [(Kind::Command, "commands"), (Kind::Query, "queries")] {
        for clients in [64, 256] {
            let load = |seconds: f64| {
                move |node: u64, _| {
                    let (first, end) = share(node, clients);
                    Order::Call { agents: AGENTS, clients: (end - first) as usize, seconds, kind }
                }
            };
            take_turns("warming up".into(), &load(1.0 / TURNS as f64))?;
            let seconds = arguments.seconds / TURNS as f64;
            rows.push(take_turns(format!("{what}, {clients} clients"), &load(seconds))?);
        }
    }
    Ok(rows)
}

/// A node's part of so many things.
fn share(node: u64, of: u64) -> (u64, u64) {
    (of * node / NODES as u64, of * (node + 1) / NODES as u64)
}

/// What the turns of a load come to.
#[derive(Default)]
struct Figure {
    operations: u64,
    /// The sum of what was done in a second, over all turns.
    per_second: f64,
    cpu_seconds: f64,
    /// Of the slowest node in any turn.
    worst: Loaded,
}

impl Figure {
    /// One more turn.
    fn add(&mut self, cluster: &mut Cluster, orders: &[(usize, Order)]) -> Result<(), BoxError> {
        let cpu_before = cpu_seconds(cluster)?;
        let loaded = cluster.load(orders)?;
        self.cpu_seconds += cpu_seconds(cluster)? - cpu_before;
        self.per_second += loaded.iter().map(per_second).sum::<f64>();
        for loaded in loaded {
            self.operations += loaded.operations;
            if loaded.p99_us > self.worst.p99_us {
                self.worst = loaded;
            }
        }
        Ok(())
    }

    /// CPU time of all nodes for each operation.
    fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.operations.max(1) as f64
    }

    fn against(&self, what: &str, keys: &Figure) -> Row {
        let detail = format!(
            "CPU {:.1} us each, raft-kv {:.1} us; worst node: {}",
            self.cpu_us(),
            keys.cpu_us(),
            latencies(&self.worst)
        );
        let row = Row::new(what, self.per_second / TURNS as f64, "1/s");
        row.against("raft-kv", keys.per_second / TURNS as f64).detail(detail)
    }
}

fn cpu_seconds(cluster: &mut Cluster) -> Result<f64, BoxError> {
    Ok(cluster.usage()?.iter().map(|usage| usage.cpu_seconds).sum())
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
    let standing = cluster.standing(0, 0)?;
    let each = |bytes: u64| bytes as f64 / agents as f64;
    let mut rows = vec![
        Row::new(format!("bytes an idle agent beside its state, {agents} agents on a node"), per_agent, "B")
            .against("target", 250.0)
            .detail(format!(
                "key of {} bytes included, {:.0} bytes of logs, {:.0} of snapshots",
                node::KEY_BYTES,
                each(standing.log_bytes),
                each(standing.snapshot_bytes)
            )),
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
