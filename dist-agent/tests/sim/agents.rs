//! The agents of the tests.

use dist_agent::{Agent, AgentContext, QueryContext};
use serde::{Deserialize, Serialize};

/// A number.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    total: u64,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Count {
    Add(u64),
    /// Adds, and then panics.
    AddAndPanic(u64),
    /// Ends the agent.
    End,
}

impl Agent for Counter {
    const TYPE: &'static str = "counter";
    type Command = Count;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn handle_command(&mut self, context: &mut AgentContext<'_>, command: Count) -> u64 {
        match command {
            Count::Add(amount) => self.total += amount,
            Count::AddAndPanic(amount) => {
                self.total += amount;
                panic!("it cannot bear {amount}");
            }
            Count::End => context.deactivate(),
        }
        self.total
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> u64 {
        self.total
    }
}

/// A type that the nodes of the tests do not know.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Stranger;

impl Agent for Stranger {
    const TYPE: &'static str = "stranger";
    type Command = ();
    type Reply = ();
    type Query = ();
    type Answer = ();

    fn handle_command(&mut self, _: &mut AgentContext<'_>, (): ()) {}

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) {}
}
