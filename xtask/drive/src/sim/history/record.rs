//! The record of all operations of one seed, in the order in which they began and ended.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// One list: the group it lives in and its key there.
pub(crate) type Key = (u64, u16);

/// What a client asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// Append the operation's number.
    Append,
    /// Append it if the list is this long.
    AppendIf { length: u32 },
    /// Append it and then panic, which must leave no trace.
    AppendAndPanic,
    /// Something the value refuses.
    Malformed,
    /// See the list as it is now.
    Read,
    /// See the list as it was at some time.
    ReadStale,
}

/// A list as somebody saw it: its length and the hash of its elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) length: u32,
    pub(crate) hash: u64,
}

impl Version {
    /// The version once `number` is appended.
    pub(crate) fn append(&mut self, number: u32) {
        self.length += 1;
        self.hash = append_hash(self.hash, number);
    }
}

/// The hash of a list with hash `hash` after `number` is appended (an xor-multiply step in the manner of SplitMix64).
pub(crate) fn append_hash(hash: u64, number: u32) -> u64 {
    let mixed = (hash ^ u64::from(number)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 29)).wrapping_add(0x9e37_79b9_7f4a_7c15)
}

/// What a client was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Nothing that says whether it ran; it may run at any time until the end.
    Perhaps,
    /// That it surely never ran and never will.
    Never,
    /// The list after it ran; for a conditional append, `appended` says whether its condition held.
    Done { version: Version, appended: bool },
}

/// One operation of one client. `invoked` and `returned` are places in the order of all such events of the seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) key: Key,
    /// Never used for another operation of the seed.
    pub(crate) number: u32,
    pub(crate) request: Request,
    pub(crate) invoked: u64,
    /// Absent while nobody was told anything, and for ever where the client gave up.
    pub(crate) returned: Option<u64>,
    pub(crate) outcome: Outcome,
}

/// Writes operations down as they begin and end.
#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<Recorded>);

#[derive(Debug, Default)]
struct Recorded {
    events: u64,
    operations: Vec<Operation>,
}

impl Record {
    /// An operation begins; its number.
    pub(crate) fn begin(&self, key: Key, request: Request) -> u32 {
        let mut recorded = self.0.lock();
        recorded.events += 1;
        let number = recorded.operations.len() as u32;
        let invoked = recorded.events;
        let (returned, outcome) = (None, Outcome::Perhaps);
        recorded.operations.push(Operation { key, number, request, invoked, returned, outcome });
        number
    }

    /// Its client is told something.
    pub(crate) fn end(&self, number: u32, outcome: Outcome) {
        let mut recorded = self.0.lock();
        recorded.events += 1;
        let returned = recorded.events;
        let operation = &mut recorded.operations[number as usize];
        assert!(operation.returned.is_none(), "operation {number} ended twice");
        operation.returned = Some(returned);
        operation.outcome = outcome;
    }

    /// All operations, by number.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.0.lock().operations.clone()
    }
}
