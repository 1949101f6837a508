//! The value of this scenario, and the client of each group: it counts, and its replies must be the numbers in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dist_agent::raft_kv::raft_fleet::{
    CallOptions, CommandContext, CommandError, Data, Fleet, Freshness, GroupName, NotApplied, encode,
};
use parking_lot::Mutex;
use rafted_value::env::sleep;
use rafted_value::sim::{SimEnv, SimRng};

/// The longest pause of a client between two commands.
const THINK_MAX: Duration = Duration::from_millis(60);
/// How long a call may take before its client gives up.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// An integer that can be added to.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Counter(u64);

impl Data for Counter {
    const NAME: &'static str = "counter";
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, _: &CommandContext, add: u64) -> u64 {
        self.0 += add;
        self.0
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }
}

/// One group and what its client was told.
pub(super) struct Counted {
    pub(super) name: GroupName,
    pub(super) stop: AtomicBool,
    /// Whether it is removed to be added again.
    pub(super) away: AtomicBool,
    pub(super) told: Mutex<Told>,
}

/// What a client was told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Told {
    pub(super) applied: u64,
    pub(super) unknown: u64,
    /// Whether the client has ended.
    pub(super) ended: bool,
    /// What it was told and must not have been.
    pub(super) wrong: Option<String>,
}

impl Counted {
    pub(super) fn new(name: GroupName) -> Arc<Self> {
        Arc::new(Self {
            name,
            stop: AtomicBool::new(false),
            away: AtomicBool::new(false),
            told: Mutex::default(),
        })
    }
}

fn options() -> CallOptions {
    CallOptions::default().with_timeout(CALL_TIMEOUT)
}

/// Counts until it is told to stop. Each reply is one more than all that was told before, or more by no more than the
/// commands whose end is unknown.
pub(super) async fn work(env: Arc<SimEnv>, client: Fleet, counted: Arc<Counted>, mut rng: SimRng) {
    while !counted.stop.load(Ordering::Relaxed) {
        let reply = client.command(&counted.name, 0, encode(&1_u64), &options()).await;
        {
            let mut told = counted.told.lock();
            match reply {
                Ok(reply) => {
                    told.applied += 1;
                    let total: u64 = postcard::from_bytes(&reply).unwrap_or(0);
                    if !(told.applied..=told.applied + told.unknown).contains(&total) {
                        told.wrong = Some(format!("the reply {total} after {told:?}"));
                    }
                }
                Err(CommandError::Unknown(_)) => told.unknown += 1,
                Err(CommandError::NotApplied(NotApplied::NoSuchName(_)))
                    if !counted.away.load(Ordering::Relaxed) =>
                {
                    break;
                }
                Err(CommandError::NotApplied(_)) => (),
            }
        }
        sleep(env.as_ref(), rng.duration(Duration::ZERO, THINK_MAX)).await;
    }
    counted.told.lock().ended = true;
}

/// The value of a group.
///
/// # Errors
///
/// What the query answered.
pub(super) async fn total(client: Fleet, name: GroupName) -> Result<u64, String> {
    let answer = client.query(&name, Freshness::Latest, encode(&()), &options()).await;
    let answer = answer.map_err(|error| error.to_string())?;
    postcard::from_bytes(&answer).map_err(|error| error.to_string())
}
