//! The agents of the tests.

use dist_agent::{Agent, AgentContext, OnTick, QueryContext};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    total: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// Notes when its timeouts come.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Sleeper {
    timeouts: Vec<u64>,
    /// How many more timeouts it sets by itself.
    more: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Sleep {
    /// Its timeout comes at each of so many ticks.
    Timeouts(u32),
    /// It ends after so many ticks without a command.
    EndAfter(u32),
    /// Whatever was set before.
    Keep,
    /// Its timeout comes at the next tick, and panics.
    Panic,
}

const PANICS: u32 = u32::MAX;

impl Agent for Sleeper {
    const TYPE: &'static str = "sleeper";
    const CHANGES_RETAINED: u32 = 16;
    type Command = Sleep;
    type Reply = u64;
    type Query = ();
    type Answer = Vec<u64>;

    fn handle_command(&mut self, context: &mut AgentContext<'_>, command: Sleep) -> u64 {
        match command {
            Sleep::Timeouts(count) => {
                self.more = count - 1;
                context.on_tick(OnTick::Timeout { ticks: 0 });
            }
            Sleep::EndAfter(ticks) => context.on_tick(OnTick::Deactivate { ticks }),
            Sleep::Keep => {}
            Sleep::Panic => {
                self.more = PANICS;
                context.on_tick(OnTick::Timeout { ticks: 0 });
            }
        }
        context.now_ms()
    }

    fn handle_timeout(&mut self, context: &mut AgentContext<'_>) {
        self.timeouts.push(context.now_ms());
        assert!(self.more != PANICS, "it cannot bear the tick");
        if self.more > 0 {
            self.more -= 1;
            context.on_tick(OnTick::Timeout { ticks: 0 });
        }
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> Vec<u64> {
        self.timeouts.clone()
    }
}
