//! raft-fleet on real nodes: what the facade costs, how fast groups are placed and moved, and what a drain costs beside a
//! kill.

pub(crate) mod node;

use std::time::Duration;

use super::cluster::Cluster;
use super::protocol::{Answer, FleetOrder, Order};
use super::report::{Row, number};
use super::scenarios::{THREADS, latencies, per_second};
use super::{Arguments, BoxError};

/// Clients of one group, as in rafted-value's own scenario.
const CLIENTS: usize = 256;
/// Clients of a fleet that is being rebalanced: enough to be in the way, and not to be all that the machine does.
const CLIENTS_MEANWHILE: usize = 16;
/// Turns in which the facade and the bare host are measured one after the other, as the machine's speed drifts.
const TURNS: u32 = 4;
/// From a client's start to the drain or the kill.
const BEFORE: Duration = Duration::from_millis(700);
/// How long the client goes on.
const GAP_SECONDS: f64 = 4.0;
/// Drains and kills.
const OUTAGES: usize = 5;
/// Groups of the outage scenario.
const OUTAGE_GROUPS: usize = 32;

/// Commands by name on the leader's node against commands to the host there.
pub(super) fn facade(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut cluster = Cluster::start_fleet(3, 0, THREADS)?;
    cluster.took(0, FleetOrder::Add { groups: 1 })?;
    cluster.took(0, FleetOrder::Settle)?;
    let leader = leader(&mut cluster, 1, 0)?;
    let (mut by_name, mut direct) = (0.0, 0.0);
    let mut said = String::new();
    let seconds = arguments.seconds / f64::from(TURNS);
    for _ in 0..TURNS {
        let bare = FleetOrder::Direct { group: 0, clients: CLIENTS, seconds };
        direct += per_second(&cluster.fleet(leader, bare)?.loaded()?);
        let named = FleetOrder::Load { groups: 1, clients: CLIENTS, seconds };
        let load = cluster.fleet(leader, named)?.loaded()?;
        by_name += per_second(&load);
        said = latencies(&load);
    }
    let turns = f64::from(TURNS);
    let row = Row::new("commands by name, 1 group, 256 clients on the leader's node", by_name / turns, "1/s");
    Ok(vec![
        row.against("the bare host", direct / turns).detail(format!("{said}; at least 0.85 is the target")),
    ])
}

/// How long it takes to add many groups to three nodes.
pub(super) fn place(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let groups = arguments.fleet_groups;
    let mut cluster = Cluster::start_fleet(3, 0, THREADS)?;
    let added = cluster.took(0, FleetOrder::Add { groups })?;
    let settled = cluster.took(0, FleetOrder::Settle)?;
    let detail = format!("64 at a time; all leaders are at their preferred nodes {settled:.1} s later");
    Ok(vec![Row::new(format!("{groups} groups of 3 members serve on 3 nodes"), added, "s").detail(detail)])
}

/// How long it takes until a fourth node has its share, what is sent for it, and what clients notice.
pub(super) fn rebalance(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let groups = arguments.fleet_groups;
    let mut cluster = Cluster::start_fleet(3, 1, THREADS)?;
    cluster.took(0, FleetOrder::Add { groups })?;
    cluster.took(0, FleetOrder::Settle)?;
    let clients = CLIENTS_MEANWHILE;
    let quiet =
        cluster.fleet(1, FleetOrder::Load { groups, clients, seconds: arguments.seconds })?.loaded()?;
    let per_operation = {
        let before = sent(&mut cluster, 3)?;
        let load =
            cluster.fleet(1, FleetOrder::Load { groups, clients, seconds: arguments.seconds })?.loaded()?;
        (sent(&mut cluster, 3)? - before) as f64 / load.operations as f64
    };
    let before = sent(&mut cluster, 3)?;
    // Long enough for the whole of it.
    let seconds = 8.0 + groups as f64 / 20.0;
    cluster.tell(1, &Order::Fleet(FleetOrder::Load { groups, clients, seconds }))?;
    let newcomer = cluster.add_node()?;
    let took = cluster.took(newcomer, FleetOrder::Settle)?;
    let load = cluster.answer(1)?.loaded()?;
    let bytes = (sent(&mut cluster, 4)? - before) as f64;
    let of_load = per_operation * load.operations as f64;
    let row = |name: &str, value: f64, unit| {
        Row::new(format!("{groups} groups, 3 -> 4 nodes under load, {name}"), value, unit)
    };
    let load_said = format!("{} clients, {:.0}/s; {}", clients, per_second(&load), latencies(&load));
    Ok(vec![
        row("time until all is at its place", took, "s").detail(load_said),
        row("p99 of commands meanwhile", load.p99_us, "us").against("before", quiet.p99_us),
        row("bytes sent beyond what the load itself costs", (bytes - of_load).max(0.0), "B").detail(format!(
            "{} in all, {} for the load",
            number(bytes),
            number(of_load)
        )),
    ])
}

/// The longest wait of a client while the node that leads its group is drained, and while it is killed.
pub(super) fn outage(_: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut cluster = Cluster::start_fleet(3, 0, THREADS)?;
    cluster.took(0, FleetOrder::Add { groups: OUTAGE_GROUPS })?;
    let (mut drains, mut empty, mut kills) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..OUTAGES {
        let (leader, witness) = begin(&mut cluster, turn)?;
        empty.push(cluster.took(leader, FleetOrder::Drain)?);
        drains.push(gap(&mut cluster, witness)?);
        cluster.took(leader, FleetOrder::Activate)?;
    }
    for turn in 0..OUTAGES {
        let (leader, witness) = begin(&mut cluster, turn)?;
        cluster.kill(leader);
        kills.push(gap(&mut cluster, witness)?);
        cluster.restart(leader)?;
    }
    let middle = |figures: &mut Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        (figures[figures.len() / 2], figures[figures.len() - 1])
    };
    let ((drain, drain_max), (kill, kill_max)) = (middle(&mut drains), middle(&mut kills));
    let (empty, empty_max) = middle(&mut empty);
    let row = Row::new("longest wait while the leader's node is drained, median", drain, "ms");
    let detail = format!(
        "{OUTAGES} drains of a third of {OUTAGE_GROUPS} groups, max {drain_max:.1} ms; the node was empty after \
         {empty:.1} s, at most {empty_max:.1} s; kill -9: max {kill_max:.0} ms"
    );
    Ok(vec![row.against("kill -9, median", kill).detail(detail)])
}

/// Has a client send to a group from a node that does not lead it; the leader's index and the client's.
fn begin(cluster: &mut Cluster, group: usize) -> Result<(usize, usize), BoxError> {
    cluster.took(0, FleetOrder::Settle)?;
    let leader = leader(cluster, 0, group)?;
    let witness = (leader + 1) % 3;
    cluster.tell(witness, &Order::Fleet(FleetOrder::Gap { group, seconds: GAP_SECONDS }))?;
    std::thread::sleep(BEFORE);
    Ok((leader, witness))
}

fn gap(cluster: &mut Cluster, witness: usize) -> Result<f64, BoxError> {
    match cluster.answer(witness)? {
        Answer::Gap { longest_ms } => Ok(longest_ms),
        other => Err(format!("a gap was answered by {other:?}").into()),
    }
}

fn leader(cluster: &mut Cluster, asked: usize, group: usize) -> Result<usize, BoxError> {
    match cluster.fleet(asked, FleetOrder::Leader { group })? {
        Answer::Led { node } => Ok(node as usize - 1),
        other => Err(format!("a question for a leader was answered by {other:?}").into()),
    }
}

/// Bytes that the first `nodes` nodes have sent.
fn sent(cluster: &mut Cluster, nodes: usize) -> Result<u64, BoxError> {
    let mut bytes = 0;
    for node in 0..nodes {
        match cluster.fleet(node, FleetOrder::Sent)? {
            Answer::Sent { bytes: sent } => bytes += sent,
            other => return Err(format!("a question for bytes was answered by {other:?}").into()),
        }
    }
    Ok(bytes)
}
