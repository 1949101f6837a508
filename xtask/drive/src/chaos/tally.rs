//! The agent that is flooded: it counts, and stays as small as it was.
//!
//! A list, as the agents of the other runs have, would grow with all that is done in a minute, and a command costs in
//! proportion to the state that it leaves: what would be measured is how long the lists have become.

use dist_agent::{Agent, AgentContext, QueryContext};
use serde::{Deserialize, Serialize};

/// How often it was called.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Tally(u64);

/// One more.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Count;

/// How many there were.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Total;

impl Agent for Tally {
    const TYPE: &'static str = "tally";
    type Command = Count;
    type Reply = u64;
    type Query = Total;
    type Answer = u64;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, _: Count) -> u64 {
        self.0 += 1;
        self.0
    }

    fn handle_query(&self, _: &QueryContext<'_>, _: Total) -> u64 {
        self.0
    }
}
