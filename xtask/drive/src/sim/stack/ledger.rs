//! The agent of this scenario: a list of numbers, so that its end tells the order of everything that happened to it.

use dist_agent::{Agent, AgentContext, QueryContext};
use serde::{Deserialize, Serialize};

use crate::sim::history::{Version, append_hash};
use crate::sim::panics::ON_PURPOSE;

/// A list of operations' numbers.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    numbers: Vec<u32>,
    version: Version,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Write {
    Append(u32),
    /// Must leave no trace.
    AppendAndPanic(u32),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Look {
    Version,
    Whole,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Seen {
    Version(Version),
    Whole(Vec<u32>),
}

impl Agent for Ledger {
    const TYPE: &'static str = "ledger";
    type Command = Write;
    type Reply = Version;
    type Query = Look;
    type Answer = Seen;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, write: Write) -> Version {
        let (Write::Append(number) | Write::AppendAndPanic(number)) = write;
        self.numbers.push(number);
        self.version.length += 1;
        self.version.hash = append_hash(self.version.hash, number);
        if matches!(write, Write::AppendAndPanic(_)) {
            panic!("{ON_PURPOSE}");
        }
        self.version
    }

    fn handle_query(&self, _: &QueryContext<'_>, look: Look) -> Seen {
        match look {
            Look::Version => Seen::Version(self.version),
            Look::Whole => Seen::Whole(self.numbers.clone()),
        }
    }
}
