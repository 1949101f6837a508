//! The replicated value of the engine scenario: lists of numbers by key, and a hash of everything that ever ran.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rafted_value::{CommandContext, Frozen, RawData, Refused, RestoreError, encode};
use serde::{Deserialize, Serialize};

use super::witness::Witness;
use crate::sim::history::{Version, append_hash};
use crate::sim::panics::ON_PURPOSE;

/// What a command does to a list. The padding makes logs grow.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Change {
    Append { key: u16, number: u32, padding: Bytes },
    AppendIf { key: u16, length: u32, number: u32, padding: Bytes },
    AppendAndPanic { key: u16, number: u32 },
}

/// What a command answers.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Changed {
    pub(super) version: Version,
    pub(super) appended: bool,
}

/// What can be asked.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum Question {
    /// The [`Version`] of one list.
    Version { key: u16 },
    /// Everything: a [`State`].
    Everything,
}

/// The lists, and what has happened to them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) lists: BTreeMap<u16, List>,
    /// How many commands ran to their end.
    pub(super) ran: u64,
    /// A hash of all of them, of what they were given by their context, and of what they answered.
    pub(super) digest: u64,
}

/// One list.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct List {
    pub(super) numbers: Vec<u32>,
    hash: u64,
}

/// One member's lists of one group, watched by a [`Witness`].
pub(super) struct Lists {
    group: u64,
    state: State,
    witness: Arc<Witness>,
    /// Whether it changes what nobody asked for.
    slips: bool,
}

impl List {
    fn version(&self) -> Version {
        Version { length: self.numbers.len() as u32, hash: self.hash }
    }

    fn append(&mut self, number: u32) {
        self.hash = append_hash(self.hash, number);
        self.numbers.push(number);
    }
}

impl Lists {
    /// Empty lists of a group.
    pub(super) fn new(group: u64, witness: Arc<Witness>) -> Self {
        Self { group, state: State::default(), witness, slips: false }
    }

    /// The same, with a fault that its witness does not see.
    pub(super) fn slipping(self) -> Self {
        Self { slips: true, ..self }
    }

    /// The name of the data type of a group.
    pub(super) fn name(group: u64) -> String {
        format!("lists-{group}")
    }

    fn run(&mut self, change: &Change) -> Changed {
        match *change {
            Change::Append { key, number, .. } => {
                let list = self.state.lists.entry(key).or_default();
                list.append(number);
                Changed { version: list.version(), appended: true }
            }
            Change::AppendIf { key, length, number, .. } => {
                let list = self.state.lists.entry(key).or_default();
                let appended = list.version().length == length;
                if appended {
                    list.append(number);
                }
                Changed { version: list.version(), appended }
            }
            Change::AppendAndPanic { key, number } => {
                self.state.lists.entry(key).or_default().append(number);
                self.state.digest ^= u64::from(number);
                panic!("{ON_PURPOSE}");
            }
        }
    }
}

impl Change {
    fn number(&self) -> u32 {
        match *self {
            Change::Append { number, .. }
            | Change::AppendIf { number, .. }
            | Change::AppendAndPanic { number, .. } => number,
        }
    }
}

impl RawData for Lists {
    fn command(&mut self, context: &CommandContext, payload: &Bytes) -> Result<Bytes, Refused> {
        let change: Change =
            postcard::from_bytes(payload).map_err(|error| Refused(format!("no change: {error}")))?;
        let changed = self.run(&change);
        if self.slips && change.number().is_multiple_of(4) {
            self.state.lists.entry(0).or_default().append(0);
        }
        self.state.ran += 1;
        for word in [context.index, context.now_ms, context.seed, changed.version.hash] {
            let low = append_hash(self.state.digest, word as u32);
            self.state.digest = append_hash(low, (word >> 32) as u32);
        }
        self.state.digest = append_hash(self.state.digest, change.number());
        self.witness.saw(self.group, self.state.ran, self.state.digest, change.number());
        Ok(encode(&changed))
    }

    fn query(&self, payload: &Bytes) -> Result<Bytes, Refused> {
        match postcard::from_bytes(payload).map_err(|error| Refused(format!("no question: {error}")))? {
            Question::Version { key } => {
                Ok(encode(&self.state.lists.get(&key).map(List::version).unwrap_or_default()))
            }
            Question::Everything => Ok(encode(&self.state)),
        }
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&encode(&self.state));
    }

    /// Every other group is encoded beside its loop.
    fn freeze(&self) -> Option<Frozen> {
        let state = self.group.is_multiple_of(2).then(|| self.state.clone())?;
        Some(Box::new(move |out| out.extend_from_slice(&encode(&state))))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.state = postcard::from_bytes(bytes)
            .map_err(|error| RestoreError { data: Self::name(self.group), reason: error.to_string() })?;
        Ok(())
    }
}
