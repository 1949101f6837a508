//! Commands that are acknowledged once a majority has them on its disk, beside bare syncs of a file on the same disk.

use super::cluster::Cluster;
use super::report::Row;
use super::scenarios::{FIRST, Spread, THREADS, latencies};
use super::{Arguments, BoxError};

/// Some clients on the leaders of some groups.
struct Load {
    groups: u64,
    clients: u64,
    /// Commands a second that are wanted at least.
    target: Option<u64>,
}

const fn load(groups: u64, clients: u64, target: Option<u64>) -> Load {
    Load { groups, clients, target }
}

/// All loads, those on the same groups in a row.
const LOADS: &[Load] = &[
    load(1, 1, None),
    load(1, 16, None),
    load(1, 64, None),
    load(1, 256, Some(50_000)),
    load(1, 1024, None),
    load(8, 256, None),
    load(64, 256, Some(25_000)),
    load(512, 512, None),
];
/// The part of a load's time that bare syncs take before it, and again after it, as a disk's speed drifts.
const BARE_PART: f64 = 0.25;

/// All loads, the nodes new for each number of groups.
pub(super) fn fsync(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut rows = Vec::new();
    for loads in LOADS.chunk_by(|one, next| one.groups == next.groups) {
        let groups = loads[0].groups;
        let mut cluster = Cluster::start_durable(arguments, 3, THREADS)?;
        let spread = Spread { groups, first: FIRST };
        spread.found(&mut cluster)?;
        spread.load(&mut cluster, groups.max(16), 1.0)?;
        for &Load { clients, target, .. } in loads {
            let before = cluster.syncs_per_second(arguments.seconds * BARE_PART)?;
            let (total, worst) = spread.load(&mut cluster, clients, arguments.seconds)?;
            let bare = f64::midpoint(before, cluster.syncs_per_second(arguments.seconds * BARE_PART)?);
            let s = |count: u64| if count == 1 { "" } else { "s" };
            let name = format!(
                "fsync commands, {groups} group{}, {clients} client{} on the leader{}",
                s(groups),
                s(clients),
                s(groups)
            );
            let target = target.map_or(String::new(), |target| format!("; at least {target} is the target"));
            let row = Row::new(name, total, "1/s").against("bare append + fdatasync", bare);
            rows.push(row.detail(format!("{}{target}", latencies(&worst))));
        }
    }
    Ok(rows)
}
