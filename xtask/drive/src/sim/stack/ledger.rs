//! The agent of this scenario: a list of numbers, so that its end tells the order of everything that happened to it.

use dist_agent::{Agent, AgentContext, QueryContext};
use serde::{Deserialize, Serialize};

use crate::sim::history::Version;
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
    /// The agent ends.
    End,
    /// The same as the first, and known only to the next build.
    AppendNext(u32),
}

/// The version of the agent that knows a command.
pub(super) fn version_needed(write: &Write) -> u32 {
    u32::from(matches!(write, Write::AppendNext(_)))
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

    fn handle_command(&mut self, context: &mut AgentContext<'_>, write: Write) -> Version {
        let number = match write {
            Write::Append(number) | Write::AppendAndPanic(number) => number,
            Write::End => {
                context.deactivate();
                return self.version;
            }
            Write::AppendNext(_) => panic!("this build has no such command"),
        };
        self.numbers.push(number);
        self.version.append(number);
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

    fn version_needed(write: &Write) -> u32 {
        version_needed(write)
    }
}

impl Ledger {
    /// What a state in bytes holds.
    pub(super) fn read(bytes: &[u8]) -> Result<(Vec<u32>, Version), String> {
        let Self { numbers, version } = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok((numbers, version))
    }

    /// The state that holds this, in bytes.
    pub(super) fn write(numbers: Vec<u32>, version: Version) -> Result<Vec<u8>, String> {
        postcard::to_stdvec(&Self { numbers, version }).map_err(|error| error.to_string())
    }
}

/// The same agent on a member that is broken on purpose: now and then it changes more than it was told.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Slipping(Ledger);

impl Agent for Slipping {
    const TYPE: &'static str = Ledger::TYPE;
    type Command = Write;
    type Reply = Version;
    type Query = Look;
    type Answer = Seen;

    fn handle_command(&mut self, context: &mut AgentContext<'_>, write: Write) -> Version {
        let version = self.0.handle_command(context, write);
        if version.length.is_multiple_of(16) {
            self.0.numbers.extend(self.0.numbers.last().copied());
        }
        version
    }

    fn handle_query(&self, context: &QueryContext<'_>, look: Look) -> Seen {
        self.0.handle_query(context, look)
    }
}
