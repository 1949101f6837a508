//! Many clients activate agents in a quota that is too small for them: it is never overshot, and who was let in stays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dist_agent::{AgentError, AgentNotApplied, AgentPosition, DistAgent};
use parking_lot::Mutex;
use rafted_value::env::sleep;
use rafted_value::sim::{SimEnv, SimRng};

use super::ledger::{Ledger, Write};
use super::load::Surroundings;

/// The quota that is too small.
pub(super) const QUOTA: &str = "storm";
/// So many agents are tried for each that may be.
const TIMES: u64 = 4;
/// The longest pause of a client between two activations.
const THINK_MAX: Duration = Duration::from_millis(300);
/// Agents that are listed at a time.
const PAGE: u32 = 100;

/// A quota and what clients were told of it.
pub(super) struct Storm {
    pub(super) limit: u32,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    let_in: BTreeSet<String>,
    refused: u64,
}

impl Storm {
    /// A quota of so many agents.
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, told: Mutex::default() }
    }

    /// How often clients were told that the quota is full.
    pub(super) fn refused(&self) -> u64 {
        self.told.lock().refused
    }

    /// Activates agents until it is told to stop.
    pub(super) async fn work(
        self: Arc<Self>,
        env: Arc<SimEnv>,
        client: DistAgent,
        around: Arc<Surroundings>,
        mut rng: SimRng,
    ) {
        around.running.fetch_add(1, Ordering::Relaxed);
        while !around.stop.load(Ordering::Relaxed) {
            let key = format!("storm-{}", rng.below(TIMES * u64::from(self.limit)));
            let handle = client.agent::<Ledger>(QUOTA, &key).expect("a valid identity");
            match handle.command(Write::Append(0)).await {
                Ok(_) => {
                    self.told.lock().let_in.insert(key);
                }
                Err(AgentError::NotApplied(AgentNotApplied::QuotaLimitReached { .. })) => {
                    self.told.lock().refused += 1;
                }
                Err(_) => {}
            }
            sleep(env.as_ref(), rng.duration(Duration::ZERO, THINK_MAX)).await;
        }
        around.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Lists the agents that there are, and holds them against the limit and what clients were told.
    ///
    /// # Errors
    ///
    /// What does not fit, or why they cannot be listed.
    pub(super) async fn check(self: Arc<Self>, client: DistAgent) -> Result<(), String> {
        let mut listed = Vec::new();
        let mut from = AgentPosition::default();
        loop {
            let page = client.list_agents::<Ledger>(QUOTA, "", &from, PAGE).await;
            let page = page.map_err(|error| format!("the agents cannot be listed: {error}"))?;
            listed.extend(page.agents.into_iter().map(|agent| agent.key.as_str().to_owned()));
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        let there: BTreeSet<String> = listed.iter().cloned().collect();
        if there.len() < listed.len() {
            return Err(format!("an agent is in two shards: {listed:?}"));
        }
        if there.len() as u64 > u64::from(self.limit) {
            return Err(format!("{} agents are in a quota of {}: {there:?}", there.len(), self.limit));
        }
        let gone: Vec<String> = self.told.lock().let_in.difference(&there).cloned().collect();
        if gone.is_empty() { Ok(()) } else { Err(format!("agents that had answered are gone: {gone:?}")) }
    }
}
