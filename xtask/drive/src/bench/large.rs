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
/// A node must have come back in this time.
const BACK_MAX: Duration = Duration::from_secs(120);
const GIB: f64 = 1_073_741_824.0;

/// A snapshot of a large state in memory on all three nodes at once, encoded beside the loop and in it.
pub(super) fn snapshot(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut rows = Vec::new();
    for held in [false, true] {
        let mut cluster = Cluster::start(3, THREADS)?;
        let bytes = arguments.state_bytes;
        cluster.order(&[(0, Order::FoundLarge { group: FIRST, held, bytes, carried: false })])?;
        // The clients are on a follower's node, as an order to the leader's would wait for their end.
        let load = |seconds| Order::Load {
            first: FIRST,
            groups: 1,
            clients: CLIENTS,
            seconds,
            kind: Kind::Command,
            leader: 1,
        };
        let before = cluster.order(&[(1, load(arguments.seconds))])?.remove(0).loaded()?;
        let resident = resident(&mut cluster)?;
        cluster.tell(1, &load(DURING_SECONDS.max(arguments.seconds)))?;
        std::thread::sleep(LEAD);
        let took = match cluster.order(&[(0, Order::Snapshot { group: FIRST })])?.remove(0) {
            Answer::Took { seconds } => seconds,
            other => return Err(format!("a snapshot was answered by {other:?}").into()),
        };
        let during = cluster.answer(1)?.loaded()?;
        let grown = self::resident(&mut cluster)? - resident;
        let how = if held { "in the loop" } else { "beside it" };
        let gib = bytes as f64 / GIB;
        let said = |load: &Loaded| {
            format!("{:.0}/s, {}, max {:.1} ms", per_second(load), latencies(load), load.max_us / 1e3)
        };
        let detail = format!(
            "before: {}; during: {}; the snapshot took {took:.1} s; {:.2} GiB more resident on the leader's node",
            said(&before),
            said(&during),
            grown / GIB
        );
        let name =
            format!("the longest wait of {CLIENTS} clients beside a snapshot of {gib:.2} GiB, encoded {how}");
        let row = Row::new(name, during.max_us / 1e3, "ms").against("before it", before.max_us / 1e3);
        let p99 = Row::new(format!("their p99, encoded {how}"), during.p99_us, "us");
        rows.extend([row.detail(detail), p99.against("before it", before.p99_us)]);
    }
    Ok(rows)
}

fn resident(cluster: &mut Cluster) -> Result<f64, BoxError> {
    Ok(cluster.usage()?.first().map_or(0.0, |usage| usage.resident_bytes as f64))
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
    let detail =
        format!("{:.0} MB/s, process start included; bare: {:.0} MB/s", read / back / 1e6, read / bare / 1e6);
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
