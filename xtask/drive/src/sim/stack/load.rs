//! Clients that write to and read from agents, and write down what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dist_agent::{AgentError, AgentNotApplied, AgentQueryError, DistAgent};
use rafted_value::env::sleep;
use rafted_value::sim::{SimEnv, SimRng};

use super::ledger::{Ledger, Look, Seen, Write};
use crate::sim::history::{Outcome, Record, Request, Version};

/// The quota of all agents.
pub(crate) const QUOTA: &str = "simulated";

/// The longest pause of a client between two operations.
const THINK_MAX: Duration = Duration::from_millis(40);

/// What all clients of a seed share.
pub(crate) struct Surroundings {
    pub(crate) agents: u16,
    pub(crate) record: Record,
    pub(crate) stop: AtomicBool,
    pub(crate) running: AtomicU64,
}

/// The key under which the clients find agent `index`.
pub(crate) fn key(index: u16) -> String {
    format!("ledger-{index}")
}

/// Works until it is told to stop.
pub(crate) async fn work(env: Arc<SimEnv>, client: DistAgent, around: Arc<Surroundings>, mut rng: SimRng) {
    around.running.fetch_add(1, Ordering::Relaxed);
    while !around.stop.load(Ordering::Relaxed) {
        let agent = rng.below(u64::from(around.agents)) as u16;
        let handle = client.agent::<Ledger>(QUOTA, &key(agent)).expect("a valid identity");
        let request = match rng.below(100) {
            0..70 => Request::Append,
            70..72 => Request::AppendAndPanic,
            _ => Request::Read,
        };
        let number = around.record.begin((0, agent), request);
        let outcome = match request {
            Request::Append => told(handle.command(Write::Append(number)).await),
            Request::AppendAndPanic => told(handle.command(Write::AppendAndPanic(number)).await),
            _ => seen(handle.query(Look::Version).await),
        };
        around.record.end(number, outcome);
        sleep(env.as_ref(), rng.duration(Duration::ZERO, THINK_MAX)).await;
    }
    around.running.fetch_sub(1, Ordering::Relaxed);
}

pub(crate) fn told(result: Result<Version, AgentError>) -> Outcome {
    match result {
        Ok(version) => Outcome::Done { version, appended: true },
        Err(AgentError::NotApplied(_)) => Outcome::Never,
        Err(_) => Outcome::Perhaps,
    }
}

pub(crate) fn seen(result: Result<Seen, AgentQueryError>) -> Outcome {
    match result {
        Ok(Seen::Version(version)) => Outcome::Done { version, appended: false },
        // Before its first command there is no agent, and so no number in it.
        Err(AgentQueryError::AgentNotFound(_)) => {
            Outcome::Done { version: Version::default(), appended: false }
        }
        Ok(Seen::Whole(_)) | Err(_) => Outcome::Perhaps,
    }
}

/// The whole list of an agent, empty if it was never activated.
///
/// # Errors
///
/// What the query answered.
pub(crate) async fn whole(client: DistAgent, agent: u16) -> Result<Vec<u32>, String> {
    let handle = client.agent::<Ledger>(QUOTA, &key(agent)).map_err(|error| error.to_string())?;
    match handle.query(Look::Whole).await {
        Ok(Seen::Whole(numbers)) => Ok(numbers),
        Ok(Seen::Version(_)) => Err("a question for the whole list was answered by its version".into()),
        Err(AgentQueryError::AgentNotFound(_)) => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// One command to an agent beside those of the load.
///
/// # Errors
///
/// What the command answered.
pub(crate) async fn probe(client: DistAgent, agent: u16, around: Arc<Surroundings>) -> Result<(), String> {
    let handle = client.agent::<Ledger>(QUOTA, &key(agent)).map_err(|error| error.to_string())?;
    let number = around.record.begin((0, agent), Request::Append);
    let result = handle.command(Write::Append(number)).await;
    let error = match &result {
        Ok(_) => Ok(()),
        Err(AgentError::NotApplied(AgentNotApplied::Panicked { .. })) => {
            Err("a plain command was told that it panicked".into())
        }
        Err(error) => Err(error.to_string()),
    };
    around.record.end(number, told(result));
    error
}
