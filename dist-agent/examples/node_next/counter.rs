//! The counter of the next build: the same number in another form, and one more question.

use dist_agent::{Agent, AgentContext, QueryContext};
use serde::{Deserialize, Serialize};

/// A number in two parts.
///
/// While nodes of both builds live together, members of both run each command and give each other their states in the old
/// form. So each form is a function of the other, and both builds make the same of each command.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    thousands: u64,
    rest: u16,
}

/// The state as the build before this wrote it.
#[derive(Serialize, Deserialize)]
struct CounterV0 {
    total: u64,
}

/// What changes it; as it was.
#[derive(Serialize, Deserialize)]
pub(crate) struct Add(pub u64);

/// What it can be asked; what is new comes at the end.
#[derive(Serialize, Deserialize)]
pub(crate) enum Ask {
    Total,
    /// The version of the state that answers.
    Version,
}

impl Counter {
    fn of(total: u64) -> Self {
        Self { thousands: total / 1_000, rest: (total % 1_000) as u16 }
    }

    fn total(&self) -> u64 {
        self.thousands.saturating_mul(1_000).saturating_add(self.rest.into())
    }
}

impl Agent for Counter {
    const TYPE: &'static str = "counter";
    const VERSION: u32 = 1;
    const VERSION_MIN: u32 = 0;
    type Command = Add;
    type Reply = u64;
    type Query = Ask;
    type Answer = u64;

    fn handle_command(&mut self, _: &mut AgentContext<'_>, Add(amount): Add) -> u64 {
        *self = Self::of(self.total().saturating_add(amount));
        self.total()
    }

    fn handle_query(&self, _: &QueryContext<'_>, ask: Ask) -> u64 {
        match ask {
            Ask::Total => self.total(),
            Ask::Version => Self::VERSION.into(),
        }
    }

    fn migrate(from: u32, bytes: &[u8]) -> Result<Self, String> {
        let 0 = from else { return Err(format!("there was no version {from}")) };
        let CounterV0 { total } = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(Self::of(total))
    }

    fn write_as(&self, version: u32) -> Result<Vec<u8>, String> {
        let 0 = version else { return Err(format!("there was no version {version}")) };
        postcard::to_stdvec(&CounterV0 { total: self.total() }).map_err(|error| error.to_string())
    }

    /// Both builds know all of its commands.
    fn version_needed(_: &Add) -> u32 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_of_the_build_before_keeps_its_number() {
        for total in [0, 999, 1_000, u64::MAX] {
            let before = postcard::to_stdvec(&CounterV0 { total }).unwrap();
            let counter = Counter::migrate(0, &before).unwrap();
            assert_eq!((counter.total(), counter.write_as(0).unwrap()), (total, before));
        }
        assert!(Counter::migrate(7, &[0]).is_err());
    }
}
