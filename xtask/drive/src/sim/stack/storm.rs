//! Many clients activate and end agents in a quota that is too small for them, and walk away from calls: it is never
//! overshot, who was let in stays, and in the end exactly what is alive is counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dist_agent::{AgentError, AgentHandle, AgentNotApplied, AgentPosition, DistAgent};
use futures_util::future::{Either, select};
use parking_lot::Mutex;
use rafted_value::env::sleep;
use rafted_value::sim::{SimEnv, SimRng};

use super::ledger::{Ledger, Write};
use super::load::Surroundings;
use crate::sim::history::Version;
use crate::sim::tally::Tally;

/// The quota that is too small.
pub(super) const QUOTA: &str = "storm";
/// So many guests want to come for each place.
const GUESTS: u64 = 4;
/// The longest pause of a client between two calls.
const THINK_MAX: Duration = Duration::from_millis(300);
/// A client that walks away from a call waits no longer than this for its end.
const PATIENCE_MAX: Duration = Duration::from_millis(20);
/// How often a client walks away.
const ABANDONED: f64 = 0.2;
/// Agents that are listed at a time.
const PAGE: u32 = 100;
/// Places of which nothing is heard any more are free after this time, however far clocks have jumped.
const COUNTED_MAX: Duration = Duration::from_secs(240);

/// A quota and what clients were told of it.
pub(super) struct Storm {
    limit: u32,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    let_in: BTreeSet<String>,
    tally: Tally,
}

/// What a client does with an agent.
#[derive(Clone, Copy)]
enum Visit {
    /// It comes, and nobody ever ends it.
    Resident,
    Guest,
    /// A guest goes.
    Leave,
}

impl Storm {
    /// A quota of so many agents.
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, told: Mutex::default() }
    }

    /// Adds what clients were told.
    pub(super) fn read_out(&self, tally: &mut Tally) {
        tally.merge(&self.told.lock().tally);
    }

    /// Activates and ends agents until it is told to stop.
    pub(super) async fn work(
        self: Arc<Self>,
        env: Arc<SimEnv>,
        client: DistAgent,
        around: Arc<Surroundings>,
        mut rng: SimRng,
    ) {
        around.running.fetch_add(1, Ordering::Relaxed);
        while !around.stop.load(Ordering::Relaxed) {
            self.visit(&env, &client, &mut rng).await;
            sleep(env.as_ref(), rng.duration(Duration::ZERO, THINK_MAX)).await;
        }
        around.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// One visit beside those of the load, of many at once.
    pub(super) async fn surge(
        self: Arc<Self>,
        env: Arc<SimEnv>,
        client: DistAgent,
        around: Arc<Surroundings>,
        mut rng: SimRng,
    ) {
        around.running.fetch_add(1, Ordering::Relaxed);
        self.visit(&env, &client, &mut rng).await;
        around.running.fetch_sub(1, Ordering::Relaxed);
    }

    async fn visit(&self, env: &SimEnv, client: &DistAgent, rng: &mut SimRng) {
        let residents = u64::from(self.limit / 2);
        let (visit, key) = match rng.below(4) {
            0 if residents > 0 => (Visit::Resident, format!("resident-{}", rng.below(residents))),
            3 => (Visit::Leave, self.guest(rng)),
            _ => (Visit::Guest, self.guest(rng)),
        };
        let handle = client.agent::<Ledger>(QUOTA, &key).expect("a valid identity");
        let result = if rng.chance(ABANDONED) {
            let patience = rng.duration(Duration::ZERO, PATIENCE_MAX);
            match select(Box::pin(call(handle, visit)), sleep(env, patience)).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => return self.told.lock().tally.one("calls that were walked away from"),
            }
        } else {
            call(handle, visit).await
        };
        let mut told = self.told.lock();
        match (visit, result) {
            (Visit::Resident, Ok(_)) => {
                told.let_in.insert(key);
            }
            (Visit::Guest, Ok(_)) => {}
            (Visit::Leave, Ok(_)) => told.tally.one("agents ended"),
            (_, Err(AgentError::NotApplied(AgentNotApplied::QuotaLimitReached { .. }))) => {
                told.tally.one("activations refused by a full quota");
            }
            (_, Err(_)) => {}
        }
    }

    fn guest(&self, rng: &mut SimRng) -> String {
        format!("guest-{}", rng.below(GUESTS * u64::from(self.limit)))
    }

    /// Lists the agents that there are, holds them against the limit and what clients were told, and fills the quota to its
    /// last place.
    ///
    /// # Errors
    ///
    /// What does not fit, or why it cannot be told.
    pub(super) async fn check(self: Arc<Self>, env: Arc<SimEnv>, client: DistAgent) -> Result<(), String> {
        let there = listed(&client).await?;
        if there.len() as u64 > u64::from(self.limit) {
            return Err(format!("{} agents are in a quota of {}: {there:?}", there.len(), self.limit));
        }
        let gone: Vec<String> = self.told.lock().let_in.difference(&there).cloned().collect();
        if !gone.is_empty() {
            return Err(format!("agents that had answered are gone: {gone:?}"));
        }
        counted(&env, &client, there.len() as u64).await?;
        self.fill(&env, &client).await
    }

    /// Activates agents until the quota is full. A call that was walked away from may have its place, or bring its agent, for
    /// as long as its pass lasts: a refusal is held against the agents that there are once that is over.
    async fn fill(&self, env: &SimEnv, client: &DistAgent) -> Result<(), String> {
        let limit = u64::from(self.limit);
        let (mut waited, mut number) = (Duration::ZERO, 0);
        loop {
            let handle = client.agent::<Ledger>(QUOTA, &format!("last-{number}")).expect("a valid identity");
            let told = call(handle, Visit::Guest).await;
            let there = listed(client).await?.len() as u64;
            match told {
                Ok(_) if there <= limit => number += 1,
                Err(AgentError::NotApplied(AgentNotApplied::QuotaLimitReached { .. })) if there == limit => {
                    return Ok(());
                }
                Err(AgentError::NotApplied(AgentNotApplied::QuotaLimitReached { .. }))
                    if there < limit && waited < COUNTED_MAX =>
                {
                    let pause = Duration::from_secs(1);
                    sleep(env, pause).await;
                    waited += pause;
                }
                told => {
                    return Err(format!(
                        "of {limit} places {there} are taken after {waited:?}, and agent {number} of the last was told \
                         {told:?}"
                    ));
                }
            }
        }
    }
}

async fn call(handle: AgentHandle<Ledger>, visit: Visit) -> Result<Version, AgentError> {
    match visit {
        Visit::Resident | Visit::Guest => handle.command(Write::Append(0)).await,
        Visit::Leave => handle.if_active().command(Write::End).await,
    }
}

/// Waits until the ledger counts exactly as many agents as there are.
async fn counted(env: &SimEnv, client: &DistAgent, there: u64) -> Result<(), String> {
    let mut waited = Duration::ZERO;
    loop {
        let usage = client.quota_usage(QUOTA).await.map_err(|error| error.to_string())?;
        if usage.agents == there {
            return Ok(());
        }
        if waited >= COUNTED_MAX {
            return Err(format!("{there} agents are active, and after {waited:?} {} count", usage.agents));
        }
        let pause = Duration::from_secs(1);
        sleep(env, pause).await;
        waited += pause;
    }
}

async fn listed(client: &DistAgent) -> Result<BTreeSet<String>, String> {
    let (mut keys, mut from) = (BTreeSet::new(), AgentPosition::default());
    loop {
        let page = client.list_agents::<Ledger>(QUOTA, "", &from, PAGE).await;
        let page = page.map_err(|error| format!("the agents cannot be listed: {error}"))?;
        for agent in page.agents {
            let key = agent.key.as_str().to_owned();
            if !keys.insert(key) {
                return Err(format!("the agent {} is listed twice", agent.key));
            }
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(keys),
        }
    }
}
