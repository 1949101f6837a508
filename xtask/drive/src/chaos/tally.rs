//! The agent that is flooded: it counts, each time after some work, and stays as small as it was.
//!
//! A list, as the agents of the other runs have, would grow with all that is done in a minute, and a command costs in
//! proportion to the state that it leaves: what would be measured is how long the lists have become.

use std::hint::black_box;
use std::time::{Duration, Instant};

use dist_agent::{Agent, AgentContext, QueryContext};
use serde::{Deserialize, Serialize};

/// How often it was called.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Tally(u64);

/// One more.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Count {
    /// How much there is to do for it, on every replica.
    pub(super) rounds: u32,
}

/// How many there were.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Total;

impl Agent for Tally {
    const TYPE: &'static str = "tally";
    type Command = Count;
    type Reply = u64;
    type Query = Total;
    type Answer = u64;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, count: Count) -> u64 {
        work(count.rounds);
        self.0 += 1;
        self.0
    }

    fn handle_query(&self, _: &QueryContext<'_>, _: Total) -> u64 {
        self.0
    }
}

/// Keeps a core busy.
fn work(rounds: u32) {
    let mut word = u64::from(rounds);
    for _ in 0..rounds {
        word = black_box(word.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (word >> 31));
    }
}

/// As many rounds as take this machine about so long: the shortest of some tries, as something else may run in one.
pub(super) fn rounds_in(time: Duration) -> u32 {
    const TRIED: u32 = 1_000_000;
    let took = |_| {
        let begun = Instant::now();
        work(TRIED);
        begun.elapsed()
    };
    let shortest = (0..10).map(took).min().unwrap_or_default();
    (f64::from(TRIED) * time.as_secs_f64() / shortest.as_secs_f64().max(1e-9)) as u32
}
