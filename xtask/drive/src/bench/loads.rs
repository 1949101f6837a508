//! Commands a second of few and many groups under few and many clients, in memory and on disks, where the groups are led and
//! on other nodes.

use super::cluster::Cluster;
use super::report::Row;
use super::scenarios::{FIRST, Spread, THREADS, latencies};
use super::{Arguments, BoxError};

/// So many groups, the nodes new for each number.
const GROUPS: [u64; 4] = [1, 8, 64, 512];
/// So many clients for each number of groups.
const CLIENTS: [u64; 5] = [1, 16, 64, 256, 1024];
/// What is wanted at least on disks: groups, clients, commands a second.
const FSYNC_TARGETS: [(u64, u64, u64); 2] = [(1, 256, 50_000), (64, 256, 25_000)];
/// The part of a load's time that bare syncs take before it, and again after it, as a disk's speed drifts.
const BARE_PART: f64 = 0.25;

/// All loads on groups in memory, beside one client of one group.
pub(super) fn memory(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut rows = Vec::new();
    let mut alone = None;
    for groups in GROUPS {
        let (spread, mut cluster) = warm(groups, Cluster::start(3, THREADS)?)?;
        for clients in CLIENTS {
            let (total, worst) = spread.load(&mut cluster, clients, arguments.seconds, 0)?;
            let row = Row::new(name("commands", groups, clients), total, "1/s");
            let row = row.against("1 client of 1 group", *alone.get_or_insert(total));
            rows.push(row.detail(latencies(&worst)));
            rows.push(elsewhere(arguments, &spread, &mut cluster, clients, total)?);
        }
    }
    Ok(rows)
}

/// All loads on groups that are acknowledged once a majority has them on its disk, beside bare syncs of a file on the same
/// disk.
pub(super) fn fsync(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut rows = Vec::new();
    for groups in GROUPS {
        let (spread, mut cluster) = warm(groups, Cluster::start_durable(arguments, 3, THREADS)?)?;
        for clients in CLIENTS {
            let before = cluster.syncs_per_second(arguments.seconds * BARE_PART)?;
            let (total, worst) = spread.load(&mut cluster, clients, arguments.seconds, 0)?;
            let bare = f64::midpoint(before, cluster.syncs_per_second(arguments.seconds * BARE_PART)?);
            let target = FSYNC_TARGETS.iter().find(|target| (target.0, target.1) == (groups, clients));
            let target =
                target.map_or(String::new(), |target| format!("; at least {} is the target", target.2));
            let row = Row::new(name("fsync commands", groups, clients), total, "1/s");
            let row = row.against("bare append + fdatasync", bare);
            rows.push(row.detail(format!("{}{target}", latencies(&worst))));
            rows.push(elsewhere(arguments, &spread, &mut cluster, clients, total)?);
        }
    }
    Ok(rows)
}

fn warm(groups: u64, mut cluster: Cluster) -> Result<(Spread, Cluster), BoxError> {
    let spread = Spread { groups, first: FIRST };
    spread.found(&mut cluster)?;
    spread.load(&mut cluster, groups.max(16), 1.0, 0)?;
    Ok((spread, cluster))
}

/// The same load from the nodes that do not lead the groups.
fn elsewhere(
    arguments: &Arguments,
    spread: &Spread,
    cluster: &mut Cluster,
    clients: u64,
    here: f64,
) -> Result<Row, BoxError> {
    let (total, worst) = spread.load(cluster, clients, arguments.seconds, 1)?;
    let row = Row::new("... from a follower's node", total, "1/s").against("from the leader's", here);
    Ok(row.detail(latencies(&worst)))
}

fn name(what: &str, groups: u64, clients: u64) -> String {
    let s = |count: u64| if count == 1 { "" } else { "s" };
    format!("{what}, {groups} group{}, {clients} client{} beside the leader{0}", s(groups), s(clients))
}
