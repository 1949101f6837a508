//! Timeouts and deactivations: at their tick, once, whoever leads.

use std::time::Duration;

use dist_agent::AgentQueryError;

use crate::agents::Sleep;
use crate::cluster::{Cluster, NODES, SECOND, TICK};

/// How late a tick may be looked at: how often nodes look, and a round through the log.
const LATE_MAX_MS: u64 = 300;

#[test]
fn timeouts_come_at_every_tick_that_was_asked_for_and_no_other() {
    let cluster = Cluster::new(61);
    let sleepers: Vec<_> = (0..8).map(|n| cluster.sleeper(&format!("{n}"))).collect();
    let tick_ms = TICK.as_millis() as u64;
    let asked = sleepers.clone();
    let set_at = cluster.run(async move {
        let mut set_at = Vec::new();
        for sleeper in &asked {
            set_at.push(sleeper.command(Sleep::Timeouts(3)).await.unwrap());
        }
        set_at
    });
    cluster.sim.run_for(8 * TICK);
    cluster.run(async move {
        for (sleeper, set_at) in sleepers.iter().zip(set_at) {
            let timeouts = sleeper.query(()).await.unwrap();
            assert_eq!(timeouts.len(), 3, "{timeouts:?}");
            let first = (set_at / tick_ms + 1) * tick_ms;
            for (n, at) in timeouts.into_iter().enumerate() {
                let due = first + n as u64 * tick_ms;
                assert!((due..due + LATE_MAX_MS).contains(&at), "{at} is not {due}");
            }
        }
    });
}

/// Timers are part of the agent: whoever leads its shard next has them.
#[test]
fn no_timeout_is_lost_or_comes_twice_when_a_node_dies() {
    for seed in 62..66 {
        let mut cluster = Cluster::new(seed);
        let sleepers: Vec<_> = (0..12).map(|n| cluster.sleeper(&format!("{n}"))).collect();
        let asked = sleepers.clone();
        cluster.run(async move {
            for sleeper in &asked {
                sleeper.command(Sleep::Timeouts(12)).await.unwrap();
            }
        });
        let mut rng = cluster.sim.rng();
        cluster.sim.run_for(rng.duration(Duration::ZERO, 4 * TICK));
        let victim = rng.below(NODES as u64) as usize;
        cluster.kill(victim);
        cluster.sim.run_for(3 * SECOND);
        cluster.restart(victim);
        cluster.sim.run_for(30 * TICK);
        let tick_ms = TICK.as_millis() as u64;
        cluster.run(async move {
            for sleeper in &sleepers {
                let timeouts = sleeper.query(()).await.unwrap();
                assert_eq!(timeouts.len(), 12, "seed {seed}: {timeouts:?}");
                // Each was due at a tick after the one before.
                let ticks: Vec<_> = timeouts.iter().map(|at| at / tick_ms).collect();
                assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {timeouts:?}");
            }
        });
    }
}

/// In the original, a command that kept the setting did not restart the countdown (fault 21).
#[test]
fn an_agent_ends_after_its_ticks_without_a_command() {
    let cluster = Cluster::new(66);
    let (busy, idle) = (cluster.sleeper("busy"), cluster.sleeper("idle"));
    let (first, second) = (busy.clone(), idle.clone());
    cluster.run(async move {
        first.command(Sleep::EndAfter(2)).await.unwrap();
        second.command(Sleep::EndAfter(2)).await.unwrap();
    });
    for _ in 0..4 {
        cluster.sim.run_for(TICK);
        let busy = busy.clone();
        cluster.run(async move { busy.command(Sleep::Keep).await.unwrap() });
    }
    cluster.run(async move {
        assert_eq!(busy.query(()).await, Ok(vec![]));
        assert_eq!(idle.query(()).await, Err(AgentQueryError::AgentNotFound(idle.id().clone())));
    });
}

/// Agents that are due together are woken by one command, and one of them panics.
#[test]
fn a_timeout_that_panics_harms_no_other_agent() {
    let cluster = Cluster::new(67);
    let sleepers: Vec<_> = (0..16).map(|n| cluster.sleeper(&format!("{n}"))).collect();
    let asked = sleepers.clone();
    cluster.run(async move {
        for (n, sleeper) in asked.iter().enumerate() {
            let order = if n % 4 == 0 { Sleep::Panic } else { Sleep::Timeouts(1) };
            sleeper.command(order).await.unwrap();
        }
    });
    cluster.sim.run_for(4 * TICK);
    cluster.run(async move {
        for (n, sleeper) in sleepers.iter().enumerate() {
            let timeouts = sleeper.query(()).await.unwrap();
            assert_eq!(timeouts.len(), usize::from(n % 4 != 0), "{n}: {timeouts:?}");
            assert!(sleeper.command(Sleep::Keep).await.is_ok());
        }
    });
}
