//! The next build of the program: the same agent, which keeps its state in another form and knows a command more.

use std::collections::VecDeque;

use dist_agent::{Agent, AgentContext, QueryContext};
use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, Look, Seen, Write, version_needed};
use crate::sim::history::Version;
use crate::sim::panics::ON_PURPOSE;

/// A list of operations' numbers.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct NextLedger {
    version: Version,
    newest_first: VecDeque<u32>,
}

impl Agent for NextLedger {
    const TYPE: &'static str = Ledger::TYPE;
    const VERSION: u32 = 1;
    const VERSION_MIN: u32 = 0;
    type Command = Write;
    type Reply = Version;
    type Query = Look;
    type Answer = Seen;

    fn handle_command(&mut self, context: &mut AgentContext<'_>, write: Write) -> Version {
        let number = match write {
            Write::Append(number) | Write::AppendAndPanic(number) | Write::AppendNext(number) => number,
            Write::End => {
                context.deactivate();
                return self.version;
            }
        };
        self.newest_first.push_front(number);
        self.version.append(number);
        if matches!(write, Write::AppendAndPanic(_)) {
            panic!("{ON_PURPOSE}");
        }
        self.version
    }

    fn handle_query(&self, _: &QueryContext<'_>, look: Look) -> Seen {
        match look {
            Look::Version => Seen::Version(self.version),
            Look::Whole => Seen::Whole(self.newest_first.iter().rev().copied().collect()),
        }
    }

    fn migrate(_: u32, bytes: &[u8]) -> Result<Self, String> {
        let (numbers, version) = Ledger::read(bytes)?;
        Ok(Self { version, newest_first: numbers.into_iter().rev().collect() })
    }

    fn write_as(&self, _: u32) -> Result<Vec<u8>, String> {
        Ledger::write(self.newest_first.iter().rev().copied().collect(), self.version)
    }

    fn version_needed(write: &Write) -> u32 {
        version_needed(write)
    }
}
