//! What groups cost of which nothing is asked: the time to found them, CPU, and memory.

use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::protocol::{Order, Usage};
use super::report::Row;
use super::scenarios::{FIRST, THREADS};
use super::{Arguments, BoxError};

/// Groups fall quiet after five seconds by default, and are left alone for a little longer.
const SETTLE: Duration = Duration::from_secs(8);
/// The processor time of idle groups is so small that less of it could not be told from nothing.
const MEASURE_SECONDS_MIN: f64 = 10.0;
/// What a node may use of a core, with ten thousand groups or fewer.
const CORES_MAX: f64 = 0.02;
/// What a group of three may hold in memory.
const BYTES_MAX: f64 = 20_000.0;

/// As many groups as asked for, of which each node leads a third.
pub(super) fn idle_groups(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut rows = Vec::new();
    for groups in &arguments.idle_groups {
        rows.extend(measure(*groups, arguments.seconds.max(MEASURE_SECONDS_MIN))?);
    }
    Ok(rows)
}

fn measure(groups: u64, seconds: f64) -> Result<[Row; 3], BoxError> {
    let mut cluster = Cluster::start(3, THREADS)?;
    let before = cluster.usage()?;
    let begun = Instant::now();
    cluster.order(&found(groups))?;
    let founded = begun.elapsed().as_secs_f64();
    std::thread::sleep(SETTLE);
    let idle = cluster.usage()?;
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let after = cluster.usage()?;
    let cpu = |(after, idle): (&Usage, &Usage)| (after.cpu_seconds - idle.cpu_seconds) / seconds;
    let cores: Vec<f64> = after.iter().zip(&idle).map(cpu).collect();
    let worst = cores.iter().copied().fold(0.0, f64::max);
    let resident = |usages: &[Usage]| usages.iter().map(|usage| usage.resident_bytes as f64).sum::<f64>();
    let bytes = resident(&idle) - resident(&before);
    let cores: Vec<String> = cores.iter().map(|cores| format!("{cores:.4}")).collect();
    Ok([
        Row::new(format!("{groups} groups of three members, founded one by one"), founded, "s")
            .detail(format!("{:.0} a second, each with two learners promoted", groups as f64 / founded)),
        Row::new(format!("{groups} idle groups, CPU of the busiest node"), worst, "cores")
            .against("target", CORES_MAX)
            .detail(format!("cores: {}", cores.join(", "))),
        Row::new(format!("{groups} idle groups, memory a group"), bytes / groups as f64, "bytes")
            .against("target", BYTES_MAX)
            .detail(format!("three members, resident; {:.1} MB in all", bytes / 1e6)),
    ])
}

fn found(groups: u64) -> Vec<(usize, Order)> {
    let part = |node: u64| {
        let (start, end) = (groups * node / 3, groups * (node + 1) / 3);
        (node as usize, Order::Found { first: FIRST + start, groups: end - start, lease: true })
    };
    (0..3).map(part).collect()
}
