//! Breaks something of a running cluster, and mends it again.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_core::RngCore;
use rustix::process::{Pid, Signal, kill_process};

use super::clients::wait;
use super::cluster::{Cluster, SMALL};
use crate::bench::BoxError;

/// How long a fault lasts.
const LENGTH_MS: (u64, u64) = (50, 4_000);
/// How long each sync of a slow disk takes at most.
const SYNC_MS_MAX: u64 = 400;

/// What was broken.
pub(super) struct Broken {
    pub(super) what: &'static str,
    /// For how long, until it was mended.
    pub(super) length: Duration,
}

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Kind {
    /// A node ends as `kill -9` ends it, and is started again.
    Kill,
    /// The same for the node that leads most groups.
    KillLeader,
    /// All nodes end at once.
    KillAll,
    /// A node ends and its disk is lost.
    Wipe,
    /// A node stands still for a while.
    Stop,
    /// A node reaches nobody, and nobody reaches it.
    Cut,
    /// A node is cut off in one direction.
    OneWay,
    /// Every link is cut with some probability.
    Partial,
    /// Syncs take long.
    SlowDisk,
    /// A disk is full; its node is started again with room.
    FullDisk,
}

/// The kinds that can happen in this cluster, of those that are wanted; all are if none is named.
fn possible(cluster: &Cluster, wanted: &[Kind]) -> Vec<Kind> {
    let mut kinds = vec![Kind::Kill, Kind::KillLeader, Kind::KillLeader, Kind::Stop, Kind::Stop];
    if cluster.on_disks {
        kinds.extend([Kind::KillAll, Kind::Wipe, Kind::SlowDisk]);
    }
    if cluster.network.can_cut() {
        kinds.extend([Kind::Cut, Kind::OneWay, Kind::Partial, Kind::Partial]);
    }
    if cluster.has_small_disk() {
        kinds.push(Kind::FullDisk);
    }
    kinds.retain(|kind| wanted.is_empty() || wanted.contains(kind));
    kinds
}

/// One fault from its beginning until it is mended.
///
/// # Errors
///
/// When a process cannot be started, a tool fails, or no kind that is wanted can happen here.
pub(super) async fn break_something(
    cluster: &mut Cluster,
    rng: &mut ChaCha12Rng,
    wanted: &[Kind],
) -> Result<Broken, BoxError> {
    let kinds = possible(cluster, wanted);
    if kinds.is_empty() {
        return Err(format!("none of {wanted:?} can happen here").into());
    }
    let kind = kinds[(rng.next_u64() % kinds.len() as u64) as usize];
    let all = cluster.nodes.len();
    let mut node = (rng.next_u64() % all as u64) as usize;
    if kind == Kind::KillLeader {
        let led = |node: &usize| cluster.heard(*node).map_or(0, |heard| heard.led.len());
        node = (0..all).max_by_key(led).unwrap_or(node);
    }
    let length = Duration::from_millis(LENGTH_MS.0 + rng.next_u64() % (LENGTH_MS.1 - LENGTH_MS.0));
    let begun = Instant::now();
    let what = match kind {
        Kind::Kill | Kind::KillLeader => {
            cluster.kill(node);
            wait(length).await;
            cluster.start_node(node)?;
            if kind == Kind::Kill { "kill -9 of a node" } else { "kill -9 of the busiest leader" }
        }
        Kind::KillAll => {
            (0..all).for_each(|node| cluster.kill(node));
            for node in 0..all {
                cluster.start_node(node)?;
            }
            "kill -9 of all nodes at once"
        }
        Kind::Wipe => {
            cluster.kill(node);
            cluster.wipe(node)?;
            wait(length).await;
            cluster.start_node(node)?;
            "kill -9 and loss of the disk"
        }
        Kind::Stop => {
            signal(cluster, node, Signal::STOP)?;
            wait(length).await;
            signal(cluster, node, Signal::CONT)?;
            "SIGSTOP, then SIGCONT"
        }
        Kind::Cut | Kind::OneWay => {
            let others = (0..all).filter(|other| *other != node);
            let here = others.clone().map(|other| (node, other));
            let there = others.clone().map(|other| (other, node));
            let mut links: Vec<(usize, usize)> = here.collect();
            if kind == Kind::Cut {
                links.extend(there);
            } else if rng.next_u64().is_multiple_of(2) {
                links = there.collect();
            }
            cut(cluster, &links, length).await?;
            if kind == Kind::Cut { "a node cut off" } else { "a node cut off in one direction" }
        }
        Kind::Partial => {
            let pairs = (0..all).flat_map(|from| (0..all).map(move |to| (from, to)));
            let links: Vec<_> =
                pairs.filter(|(from, to)| from != to && rng.next_u64().is_multiple_of(4)).collect();
            cut(cluster, &links, length).await?;
            "every link cut with probability 1/4"
        }
        Kind::SlowDisk => {
            let file = cluster.directory(node)?.join("slow");
            std::fs::write(&file, (20 + rng.next_u64() % SYNC_MS_MAX).to_string())?;
            wait(length).await;
            std::fs::remove_file(&file)?;
            "a slow disk"
        }
        Kind::FullDisk => {
            fill(cluster, length).await?;
            "a full disk, then a restart"
        }
    };
    Ok(Broken { what, length: begun.elapsed() })
}

fn signal(cluster: &Cluster, node: usize, signal: Signal) -> Result<(), BoxError> {
    let pid = cluster.pid(node).ok_or("the node does not run")?;
    let pid = Pid::from_raw(pid.cast_signed()).ok_or("no such process")?;
    kill_process(pid, signal)?;
    Ok(())
}

/// Cuts links, each in one direction, for a while.
async fn cut(cluster: &Cluster, links: &[(usize, usize)], length: Duration) -> Result<(), BoxError> {
    let with_pids = links.iter().filter_map(|(from, to)| Some((cluster.pid(*from)?, *to)));
    let cut: Vec<(u32, usize)> = with_pids.collect();
    for (pid, to) in &cut {
        cluster.network.cut(*pid, *to)?;
    }
    wait(length).await;
    for (pid, to) in &cut {
        cluster.network.mend(*pid, *to)?;
    }
    Ok(())
}

/// Takes all room on the small disk, gives it back, and starts its node anew: what its disk refused, it does not try
/// again.
async fn fill(cluster: &mut Cluster, length: Duration) -> Result<(), BoxError> {
    let path = cluster.directory(SMALL)?.join("ballast");
    let mut ballast = std::fs::File::create(&path)?;
    let block = vec![0; 1 << 20];
    while ballast.write_all(&block).is_ok() {}
    wait(length).await;
    std::fs::remove_file(&path)?;
    drop(ballast);
    cluster.kill(SMALL);
    cluster.start_node(SMALL)
}
