//! Clients that write to and read from agents, and write down what they were told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dist_agent::{AgentError, AgentHandle, AgentNotApplied, AgentQueryError, DistAgent};
use parking_lot::Mutex;
use rafted_value::env::{Env, MonoTime, sleep};
use rafted_value::sim::{SimEnv, SimRng};

use super::CALL_TIMEOUT;
use super::invariants::RepliesStay;
use super::ledger::{Ledger, Look, Seen, Write};
use crate::sim::history::{Outcome, Record, Request, Version};
use crate::sim::tally::Tally;

/// The quota of all agents.
pub(crate) const QUOTA: &str = "simulated";

/// The longest pause of a client between two operations.
const THINK_MAX: Duration = Duration::from_millis(40);

/// How often a command has a key under which it is sent again.
const KEYED: f64 = 0.5;
/// How often a client sends one of its last commands again instead of a new one, and of how many.
const SENT_AGAIN: f64 = 0.1;
const LAST_MAX: usize = 20;
/// ... and for how long: groups keep replies for eight minutes, by clocks that jump.
const SENT_AGAIN_WITHIN: Duration = Duration::from_secs(180);
/// How often a client tries a command that only the next build knows.
const TRIES_NEXT: f64 = 0.1;
/// How old an answer may be where that rule is broken.
const STALE: Duration = Duration::from_secs(1);
/// How many calls end so soon that often nobody knows what became of their commands,
const IMPATIENT: f64 = 0.2;
/// ... after no more than one of these: while a message is on its way, a member is slow, a leader is missing.
const IMPATIENT_MAX: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(300), Duration::from_secs(3)];
/// All others wait at least this long, and at most up to the timeout of the whole scenario.
const PATIENT_MIN: Duration = Duration::from_secs(10);
/// How long the second attempt at a command may take of which nothing is known.
const SECOND_ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// What all clients of a seed share.
#[derive(Default)]
pub(crate) struct Surroundings {
    pub(crate) agents: u16,
    pub(super) rules: Rules,
    /// Whether clients try what only the next build knows.
    pub(super) two_builds: bool,
    pub(super) replies: Mutex<RepliesStay>,
    pub(super) tally: Mutex<Tally>,
    /// The first thing that a client was told and must not have been.
    pub(super) complaint: Mutex<Option<String>>,
    pub(crate) record: Record,
    pub(crate) stop: AtomicBool,
    /// Whether nobody asks the cluster for anything but service any more.
    pub(crate) calm: AtomicBool,
    pub(crate) running: AtomicU64,
}

/// The rules that clients keep, unless one is broken on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// A command is sent again under another key.
    pub(super) retries_in_new_sessions: bool,
    /// Reads are answered by what was answered before.
    pub(super) reads_from_anybody: bool,
}

/// A command that can be sent again.
#[derive(Clone, Copy)]
struct Sent {
    agent: u16,
    number: u32,
    at: MonoTime,
}

impl Surroundings {
    fn key(&self, number: u32, again: bool) -> String {
        match again && self.rules.retries_in_new_sessions {
            true => format!("{number} again"),
            false => number.to_string(),
        }
    }

    /// A command that was told before is told the same now.
    async fn send_again(&self, handle: AgentHandle<Ledger>, number: u32) {
        let handle = handle.idempotency_key(self.key(number, true)).timeout(SECOND_ATTEMPT_MAX);
        let result = handle.command(Write::Append(number)).await;
        if let Err(AgentError::NotApplied(AgentNotApplied::Panicked { .. })) = result {
            let complaint = format!("operation {number} was told that it panicked, after it had run");
            self.complaint.lock().get_or_insert(complaint);
        }
        let outcome @ Outcome::Done { .. } = told(result) else { return };
        self.tally.lock().one("replies given twice and compared");
        self.note_reply(number, outcome);
    }

    fn note_reply(&self, number: u32, outcome: Outcome) {
        if let Err(complaint) = self.replies.lock().told(number, outcome) {
            self.complaint.lock().get_or_insert(complaint);
        }
    }
}

/// The key under which the clients find agent `index`.
pub(crate) fn key(index: u16) -> String {
    format!("ledger-{index}")
}

/// Works until it is told to stop.
pub(crate) async fn work(env: Arc<SimEnv>, client: DistAgent, around: Arc<Surroundings>, mut rng: SimRng) {
    around.running.fetch_add(1, Ordering::Relaxed);
    let handle = |agent| client.agent::<Ledger>(QUOTA, &key(agent)).expect("a valid identity");
    let mut last: VecDeque<Sent> = VecDeque::new();
    while !around.stop.load(Ordering::Relaxed) {
        sleep(env.as_ref(), rng.duration(Duration::ZERO, THINK_MAX)).await;
        let again = rng.below(last.len().max(1) as u64) as usize;
        let again = last.get(again).copied().filter(|sent| env.now().since(sent.at) < SENT_AGAIN_WITHIN);
        if let Some(Sent { agent, number, .. }) = again.filter(|_| rng.chance(SENT_AGAIN)) {
            around.send_again(handle(agent), number).await;
            continue;
        }
        let agent = rng.below(u64::from(around.agents)) as u16;
        let handle = handle(agent).timeout(draw_timeout(&mut rng));
        let request = match rng.below(100) {
            0..70 => Request::Append,
            70..72 => Request::AppendAndPanic,
            _ => Request::Read,
        };
        let (number, at) = (around.record.begin((0, agent), request), env.now());
        let outcome = match request {
            Request::Append if rng.chance(KEYED) => {
                let outcome = append(&around, handle, number).await;
                if let Outcome::Done { .. } = outcome {
                    around.note_reply(number, outcome);
                    last.truncate(LAST_MAX - 1);
                    last.push_front(Sent { agent, number, at });
                }
                outcome
            }
            Request::Append if around.two_builds && rng.chance(TRIES_NEXT) => {
                let result = handle.command(Write::AppendNext(number)).await;
                around.tally.lock().one(match result {
                    Err(AgentError::NotApplied(AgentNotApplied::Upgrading { .. })) => {
                        "commands of the next build refused while a node is of the old one"
                    }
                    _ => "commands of the next build",
                });
                told(result)
            }
            Request::Append => told(handle.command(Write::Append(number)).await),
            Request::AppendAndPanic => told(handle.command(Write::AppendAndPanic(number)).await),
            _ if around.rules.reads_from_anybody => seen(handle.stale_ok(STALE).query(Look::Version).await),
            _ => seen(handle.query(Look::Version).await),
        };
        around.record.end(number, outcome);
    }
    around.running.fetch_sub(1, Ordering::Relaxed);
}

/// How long a client waits for an answer.
fn draw_timeout(rng: &mut SimRng) -> Duration {
    let (min, max) = match rng.chance(IMPATIENT) {
        true => (Duration::from_millis(1), *rng.pick(&IMPATIENT_MAX).unwrap_or(&CALL_TIMEOUT)),
        false => (PATIENT_MIN, CALL_TIMEOUT),
    };
    rng.duration(min, max)
}

/// Sends a command under a key, and once more if nobody knows what became of it.
async fn append(around: &Surroundings, handle: AgentHandle<Ledger>, number: u32) -> Outcome {
    let first = handle.idempotency_key(around.key(number, false));
    let outcome = told(first.command(Write::Append(number)).await);
    if outcome != Outcome::Perhaps {
        return outcome;
    }
    let second = handle.idempotency_key(around.key(number, true)).timeout(SECOND_ATTEMPT_MAX);
    let outcome = told(second.command(Write::Append(number)).await);
    if let Outcome::Done { .. } = outcome {
        around.tally.lock().one("commands of unknown fate whose reply a second attempt brought");
        return outcome;
    }
    // That the second surely did nothing says nothing of the first.
    Outcome::Perhaps
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
