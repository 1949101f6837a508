//! The agent of the demo.

use dist_agent::{Agent, AgentContext, QueryContext};
use serde::{Deserialize, Serialize};

/// A number that lives in the cluster.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    total: u64,
}

/// What changes it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Add(pub u64);

/// What it can be asked; what is new comes at the end.
#[derive(Serialize, Deserialize)]
pub(crate) enum Ask {
    Total,
}

impl Agent for Counter {
    const TYPE: &'static str = "counter";
    type Command = Add;
    type Reply = u64;
    type Query = Ask;
    type Answer = u64;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, Add(amount): Add) -> u64 {
        self.total = self.total.saturating_add(amount);
        self.total
    }

    fn handle_query(&self, _: &QueryContext<'_>, Ask::Total: Ask) -> u64 {
        self.total
    }
}
