//! Clients of a chaos run, and the history of what they were told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dist_agent::DistAgent;
use parking_lot::Mutex;
use rafted_value::env::{Env, sleep};

use super::Arguments;
use crate::bench::{BoxError, children};
use crate::sim::history::{self, Outcome, Record, Request};
use crate::sim::stack::ledger::{Ledger, Look, Write};
use crate::sim::stack::load::{QUOTA, key, seen, told, whole};

/// How long one call may take: the failover of a shard is ridden out within it.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest pause of a client between two operations.
const THINK_MS_MAX: u64 = 80;
/// Everything that clients have under way ends within this time.
const END_MAX: Duration = Duration::from_secs(60);

/// All clients.
pub(super) struct Clients(Arc<Shared>);

struct Shared {
    agents: u16,
    record: Record,
    stop: AtomicBool,
    running: AtomicU64,
    told: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    pace: Mutex<Pace>,
}

/// When an operation last ended well.
struct Pace {
    last: Instant,
    longest: Duration,
    slowest: Duration,
}

/// How long clients had to wait since somebody asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// The longest time in which nobody got an answer.
    pub(super) outage: Duration,
    /// The slowest answer.
    pub(super) slowest: Duration,
}

/// Lets time pass; for the program beside the nodes, whose clock is the machine's.
pub(super) async fn wait(time: Duration) {
    let until = tokio::time::Instant::now() + time;
    tokio::time::sleep_until(until).await;
}

impl Clients {
    /// Lets them loose.
    pub(super) fn start(env: Arc<dyn Env>, client: &DistAgent, arguments: &Arguments, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            agents: arguments.agents.max(1),
            record: Record::default(),
            stop: false.into(),
            running: 0.into(),
            told: 0.into(),
            unknown: 0.into(),
            refused: 0.into(),
            pace: Mutex::new(Pace { last: Instant::now(), longest: Duration::ZERO, slowest: Duration::ZERO }),
        });
        for _ in 0..arguments.clients {
            shared.running.fetch_add(1, Ordering::Relaxed);
            let work = work(env.clone(), client.clone(), shared.clone(), seed);
            env.spawn("client", Box::pin(work));
        }
        Self(shared)
    }

    /// Operations that ended with an answer so far.
    pub(super) fn told(&self) -> u64 {
        self.0.told.load(Ordering::Relaxed)
    }

    /// Operations so far whose clients know nothing of their fate.
    pub(super) fn unknown(&self) -> u64 {
        self.0.unknown.load(Ordering::Relaxed)
    }

    /// Operations so far that surely did nothing.
    pub(super) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// How long they had to wait since the last question.
    pub(super) fn waits(&self) -> Waits {
        let pace = &mut *self.0.pace.lock();
        let outage = std::mem::take(&mut pace.longest).max(pace.last.elapsed());
        Waits { outage, slowest: std::mem::take(&mut pace.slowest) }
    }

    /// Stops them and waits for what they have under way.
    pub(super) async fn stop(&self) -> Result<(), BoxError> {
        self.0.stop.store(true, Ordering::Relaxed);
        let end = Instant::now() + END_MAX;
        while !children::is_interrupted() && self.0.running.load(Ordering::Relaxed) > 0 {
            if Instant::now() > end {
                return Err("a client does not come to an end".into());
            }
            wait(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Reads every agent's list, which must explain what the clients were told.
    pub(super) async fn compare(&self, client: &DistAgent) -> Result<(), BoxError> {
        let mut lists = BTreeMap::new();
        for agent in 0..self.0.agents {
            let list = whole(client.clone(), agent).await;
            lists.insert((0, agent), list.map_err(|why| format!("agent {agent} is not read: {why}"))?);
        }
        let violations = history::check(&self.0.record.operations(), &lists);
        if violations.is_empty() { Ok(()) } else { Err(violations.join("\n").into()) }
    }
}

async fn work(env: Arc<dyn Env>, client: DistAgent, shared: Arc<Shared>, seed: u64) {
    while !shared.stop.load(Ordering::Relaxed) {
        let draw = env.random_u64() ^ seed;
        let agent = (draw % u64::from(shared.agents)) as u16;
        let handle = client.agent::<Ledger>(QUOTA, &key(agent)).expect("a valid identity");
        let handle = handle.timeout(CALL_TIMEOUT);
        let request = match (draw >> 16) % 100 {
            0..70 => Request::Append,
            70..71 => Request::AppendAndPanic,
            _ => Request::Read,
        };
        let begun = Instant::now();
        let number = shared.record.begin((0, agent), request);
        let outcome = match request {
            Request::Append => told(handle.command(Write::Append(number)).await),
            Request::AppendAndPanic => told(handle.command(Write::AppendAndPanic(number)).await),
            _ => seen(handle.query(Look::Version).await),
        };
        shared.record.end(number, outcome);
        shared.note(outcome, request, begun.elapsed());
        sleep(env.as_ref(), Duration::from_millis(1 + (draw >> 32) % THINK_MS_MAX)).await;
    }
    shared.running.fetch_sub(1, Ordering::Relaxed);
}

impl Shared {
    fn note(&self, outcome: Outcome, request: Request, took: Duration) {
        match outcome {
            Outcome::Done { .. } => {
                self.told.fetch_add(1, Ordering::Relaxed);
                let pace = &mut *self.pace.lock();
                pace.longest = pace.longest.max(pace.last.elapsed());
                pace.last = Instant::now();
                pace.slowest = pace.slowest.max(took);
            }
            Outcome::Perhaps => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Never if request == Request::AppendAndPanic => {}
            Outcome::Never => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
