//! How long a client gets no answer after `kill -9` of the leader's process.
//!
//! The client is on a node that stays, sends one command after the other, and counts from the last reply of the old
//! leader to the first one of the new. The killed node starts again on its directory before the next kill.

use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::protocol::{Answer, Order};
use super::report::Row;
use super::scenarios::{FIRST, THREADS};
use super::{Arguments, BoxError};

const NODES: usize = 3;
/// From the client's start to the kill; kills fall into different moments between two heartbeats.
const KILL_AFTER: Duration = Duration::from_millis(300);
const KILL_STEP: Duration = Duration::from_millis(17);
const HEARTBEAT: Duration = Duration::from_millis(50);
/// An outage above this, in ms, took more than the promise and one round of votes.
const SLOW_MS: f64 = 400.0;
/// The most for a group to be whole again.
const WHOLE_MAX: Duration = Duration::from_secs(30);

/// Kills the leader's process again and again.
pub(super) fn outage(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut cluster = Cluster::start_durable(arguments, NODES, THREADS)?;
    cluster.order(&[(0, Order::Found { first: FIRST, groups: 1, lease: true })])?;
    let (mut outages, mut returns) = (Vec::new(), Vec::new());
    for kill in 0..arguments.kills {
        let leader = whole(&mut cluster)?;
        let witness = (leader + 1 + kill as usize % (NODES - 1)) % NODES;
        cluster.tell(witness, &Order::Outlast { group: FIRST, leader: leader as u64 + 1 })?;
        let step = KILL_STEP * kill;
        std::thread::sleep(
            KILL_AFTER + Duration::from_nanos((step.as_nanos() % HEARTBEAT.as_nanos()) as u64),
        );
        let killed = Instant::now();
        cluster.kill(leader);
        let outage_ms = match cluster.answer(witness)? {
            Answer::Outlasted { outage_ms } => outage_ms,
            other => return Err(format!("an outage was answered by {other:?}").into()),
        };
        if killed.elapsed().as_secs_f64() * 1000.0 < outage_ms / 2.0 {
            return Err(format!("node {} had lost the leadership before it was killed", leader + 1).into());
        }
        outages.push(outage_ms);
        let start = Instant::now();
        cluster.restart(leader)?;
        whole(&mut cluster)?;
        returns.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let outages = Ordered::of(outages)?;
    let returns = Ordered::of(returns)?;
    let (kills, slow) = (arguments.kills, outages.over(SLOW_MS));
    let row =
        |name: &str, value: f64| Row::new(format!("outage after kill -9 of the leader, {name}"), value, "ms");
    let back = format!("the killed node is a voter with everything again after {}", returns.said());
    Ok(vec![
        row("p50", outages.quantile(0.5)).detail(format!("{kills} kills, {slow} over {SLOW_MS} ms; {back}")),
        row("p99", outages.quantile(0.99)),
        row("max", outages.quantile(1.0)),
    ])
}

/// Waits until the group has a leader that knows all members to have everything; its index.
fn whole(cluster: &mut Cluster) -> Result<usize, BoxError> {
    let deadline = Instant::now() + WHOLE_MAX;
    while Instant::now() < deadline {
        for node in 0..NODES {
            let standing = cluster.standing(node, FIRST)?;
            if standing.leads && standing.whole {
                return Ok(node);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("the group was not whole within {} s", WHOLE_MAX.as_secs()).into())
}

/// Figures in their order; at least one.
pub(super) struct Ordered(Vec<f64>);

impl Ordered {
    pub(super) fn of(mut figures: Vec<f64>) -> Result<Self, BoxError> {
        if figures.is_empty() {
            return Err("an outage needs a kill".into());
        }
        figures.sort_by(f64::total_cmp);
        Ok(Self(figures))
    }

    /// The smallest figure that at least this part of all figures does not exceed (the nearest rank).
    pub(super) fn quantile(&self, part: f64) -> f64 {
        let rank = (self.0.len() as f64 * part).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    fn over(&self, limit: f64) -> usize {
        self.0.iter().filter(|figure| **figure > limit).count()
    }

    fn said(&self) -> String {
        format!("p50 {:.0} ms, max {:.0} ms", self.quantile(0.5), self.quantile(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let figures = Ordered::of((1..=20).rev().map(f64::from).collect()).unwrap();
        assert_eq!(
            [0.0, 0.5, 0.95, 0.99, 1.0].map(|part| figures.quantile(part)),
            [1.0, 10.0, 19.0, 20.0, 20.0]
        );
        assert_eq!(figures.over(18.0), 2);
        assert!(Ordered::of(Vec::new()).is_err());
    }
}
