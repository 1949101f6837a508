//! The agents of the tests.

use dist_agent::{Agent, AgentContext, QueryContext};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

/// Numbers that encode as long as there are not seven of them.
#[derive(Default, PartialEq, Debug)]
pub(crate) struct Fragile(pub Vec<u8>);

impl Serialize for Fragile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let length = (self.0.len() != 7).then_some(self.0.len());
        let mut sequence = serializer.serialize_seq(length)?;
        self.0.iter().try_for_each(|number| sequence.serialize_element(number))?;
        sequence.end()
    }
}

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

impl Agent for Fragile {
    const TYPE: &'static str = "fragile";
    type Command = Vec<u8>;
    type Reply = usize;
    type Query = Fragile;
    type Answer = Fragile;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, mut more: Vec<u8>) -> usize {
        self.0.append(&mut more);
        self.0.len()
    }

    fn handle_query(&self, _: &QueryContext<'_>, more: Fragile) -> Fragile {
        Fragile([&self.0[..], &more.0].concat())
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
