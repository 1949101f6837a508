//! Large states and long logs: what a snapshot costs those who go on beside it, and how long a node needs to come back.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::protocol::{Answer, Kind, Loaded, Order};
use super::report::Row;
use super::scenarios::{FIRST, THREADS, latencies, per_second};
use super::{Arguments, BoxError};

/// Clients that go on beside a snapshot.
const CLIENTS: usize = 64;
/// A load begins so long before the snapshot, and goes on at least so long after it was ordered.
const LEAD: Duration = Duration::from_millis(500);
const DURING_SECONDS: f64 = 6.0;
/// A new member needs about so long for its state.
const RENEWAL_SECONDS_PER_GIB: f64 = 20.0;
/// The node of the clients.
const CLIENTS_ON: usize = 1;
/// A node must have come back in this time.
const BACK_MAX: Duration = Duration::from_secs(120);
const GIB: f64 = 1_073_741_824.0;

/// A large state on three nodes: all take a snapshot of it at once, then one of them gets a new member, which is given
/// it. In memory, encoded beside the loop and in it, and on disks.
pub(super) fn snapshot(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut rows = Vec::new();
    for (held, durable) in [(false, false), (true, false), (false, true)] {
        let cluster = if durable {
            Cluster::start_durable(arguments, 3, THREADS)?
        } else {
            Cluster::start(3, THREADS)?
        };
        let how = match (held, durable) {
            (true, _) => "in memory, encoded in the loop",
            (false, false) => "in memory, encoded beside the loop",
            (false, true) => "on disks, encoded beside the loop",
        };
        rows.extend(snapshot_of(arguments, cluster, held, how)?);
    }
    Ok(rows)
}

fn snapshot_of(
    arguments: &Arguments,
    mut cluster: Cluster,
    held: bool,
    how: &str,
) -> Result<Vec<Row>, BoxError> {
    let bytes = arguments.state_bytes;
    let gib = bytes as f64 / GIB;
    cluster.order(&[(0, Order::FoundLarge { group: FIRST, held, bytes, carried: false })])?;
    let before = cluster.order(&[(CLIENTS_ON, load(arguments.seconds))])?.remove(0).loaded()?;
    let mut rows = Vec::new();
    let orders = [
        (Order::Snapshot { group: FIRST }, "a snapshot is taken", DURING_SECONDS),
        (
            Order::Renew { group: FIRST, node: 3 },
            "a new member is given it",
            DURING_SECONDS + RENEWAL_SECONDS_PER_GIB * gib,
        ),
    ];
    for (order, what, seconds) in orders {
        have_first_lead(&mut cluster)?;
        let resident = cluster.usage()?;
        cluster.tell(CLIENTS_ON, &load(seconds.max(arguments.seconds)))?;
        std::thread::sleep(LEAD);
        let took = match cluster.order(&[(0, order)])?.remove(0) {
            Answer::Took { seconds } => seconds,
            other => return Err(format!("an order was answered by {other:?}").into()),
        };
        let during = cluster.answer(CLIENTS_ON)?.loaded()?;
        let said = |load: &Loaded| {
            format!("{:.0}/s, {}, max {:.1} ms", per_second(load), latencies(load), load.max_us / 1e3)
        };
        let nodes = resident.iter().zip(cluster.usage()?).map(|(before, after)| {
            let gib = |bytes: u64| bytes as f64 / GIB;
            let (before, after, peak) =
                (before.resident_bytes, after.resident_bytes, after.resident_peak_bytes);
            format!("{:.2} -> {:.2}, peak {:.2}", gib(before), gib(after), gib(peak))
        });
        let detail = format!(
            "before: {}; during: {}; it took {took:.1} s; GiB resident on each node: {}",
            said(&before),
            said(&during),
            nodes.collect::<Vec<_>>().join("; ")
        );
        let name = format!("the longest wait of {CLIENTS} clients while {what} ({gib:.2} GiB {how})");
        let row = Row::new(name, during.max_us / 1e3, "ms").against("before it", before.max_us / 1e3);
        let p99 = Row::new(format!("their p99 while {what}"), during.p99_us, "us");
        rows.extend([row.detail(detail), p99.against("before it", before.p99_us)]);
    }
    Ok(rows)
}

/// The first node is given the orders: where a standstill has cost it the lead, that comes back first.
fn have_first_lead(cluster: &mut Cluster) -> Result<(), BoxError> {
    let start = Instant::now();
    while !cluster.standing(0, FIRST)?.leads {
        if start.elapsed() > BACK_MAX {
            return Err(format!("the first node did not lead within {} s", BACK_MAX.as_secs()).into());
        }
        for node in 1..3 {
            if cluster.standing(node, FIRST)?.leads {
                cluster.order(&[(node, Order::HandOver { group: FIRST, to: 1 })])?;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The clients are on a follower's node, as an order to the leader's would wait for their end.
fn load(seconds: f64) -> Order {
    Order::Load { first: FIRST, groups: 1, clients: CLIENTS, seconds, kind: Kind::Command, leader: 1 }
}

/// A node that keeps one group comes back with a long log, beside the time to read its files.
pub(super) fn recovery(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut cluster = Cluster::start_durable(arguments, 1, THREADS)?;
    let bytes = arguments.state_bytes;
    cluster.order(&[(0, Order::FoundLarge { group: FIRST, held: false, bytes, carried: true })])?;
    cluster.kill(0);
    let directory = cluster.directory(0)?;
    let start = Instant::now();
    let read = read_all(&directory)?;
    let bare = start.elapsed().as_secs_f64();
    let start = Instant::now();
    cluster.restart(0)?;
    while !cluster.standing(0, FIRST)?.leads {
        if start.elapsed() > BACK_MAX {
            return Err(format!("the node was not back within {} s", BACK_MAX.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let back = start.elapsed().as_secs_f64();
    let peak = cluster.usage()?.first().map_or(0.0, |usage| usage.resident_peak_bytes as f64);
    let detail = format!(
        "{:.0} MB/s, process start included; bare: {:.0} MB/s; {:.2} GiB resident at the peak",
        read / back / 1e6,
        read / bare / 1e6,
        peak / GIB
    );
    let row = Row::new(format!("recovery from {:.2} GiB of log", read / GIB), back, "s");
    Ok(vec![row.against("reading the bare files", bare).detail(detail)])
}

/// Reads every file under a directory; how many bytes there are.
fn read_all(directory: &Path) -> Result<f64, BoxError> {
    let (mut bytes, mut buffer) = (0.0, vec![0; 1 << 20]);
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            bytes += read_all(&path)?;
            continue;
        }
        let mut file = std::fs::File::open(&path)?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => bytes += read as f64,
            }
        }
    }
    Ok(bytes)
}
