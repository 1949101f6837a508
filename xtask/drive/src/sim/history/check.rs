//! Whether the lists at the end explain everything that clients were told.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Key, Operation, Outcome, Request, Version, append_hash};

/// Violations that are reported at most.
const REPORTED_MAX: usize = 8;

/// What cannot be explained, one sentence each; empty for a linearizable history.
pub(crate) fn check(operations: &[Operation], lists: &BTreeMap<Key, Vec<u32>>) -> Vec<String> {
    let mut by_key: BTreeMap<Key, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        by_key.entry(operation.key).or_default().push(operation);
    }
    let nothing = Vec::new();
    let keys: BTreeSet<Key> = by_key.keys().chain(lists.keys()).copied().collect();
    let mut violations = Vec::new();
    for key in keys {
        let operations = by_key.get(&key).map_or(&[][..], Vec::as_slice);
        let order = Order::new(key, lists.get(&key).unwrap_or(&nothing));
        order.check_elements(operations, &mut violations);
        let placed = order.place(operations, &mut violations);
        check_real_time(key, placed, &mut violations);
        if violations.len() >= REPORTED_MAX {
            break;
        }
    }
    violations.truncate(REPORTED_MAX);
    violations
}

/// An operation with its place in the order: after which version of the list it comes, or which one it makes.
#[derive(Clone, Copy)]
struct Placed<'a> {
    operation: &'a Operation,
    version: u32,
    writes: bool,
}

/// The order of writes that a list at the end names.
struct Order<'a> {
    key: Key,
    list: &'a [u32],
    positions: BTreeMap<u32, u32>,
    /// The hash of each prefix, the empty one first.
    hashes: Vec<u64>,
}

impl<'a> Order<'a> {
    fn new(key: Key, list: &'a [u32]) -> Self {
        let mut hashes = vec![Version::default().hash];
        for number in list {
            hashes.push(append_hash(hashes[hashes.len() - 1], *number));
        }
        let positions = list.iter().zip(1..).map(|(number, position)| (*number, position)).collect();
        Self { key, list, positions, hashes }
    }

    /// The version that `operation` made, if it did.
    fn made_by(&self, operation: &Operation) -> Option<u32> {
        self.positions.get(&operation.number).copied()
    }

    /// Nothing twice, nothing that nobody appended, nothing that surely never ran.
    fn check_elements(&self, operations: &[&Operation], violations: &mut Vec<String>) {
        let key = self.key;
        if self.positions.len() < self.list.len() {
            let mut seen = BTreeSet::new();
            let twice = self.list.iter().filter(|number| !seen.insert(**number));
            for number in twice {
                violations.push(format!("{key:?}: operation {number} was applied twice"));
            }
        }
        let appending: BTreeMap<u32, &Operation> =
            operations.iter().map(|operation| (operation.number, *operation)).collect();
        for number in self.list {
            match appending.get(number) {
                None => violations.push(format!("{key:?}: nobody appended {number}")),
                Some(operation) if operation.outcome == Outcome::Never => {
                    violations
                        .push(format!("{key:?}: applied although it was told never to be: {operation:?}"));
                }
                Some(operation)
                    if !matches!(operation.request, Request::Append | Request::AppendIf { .. }) =>
                {
                    violations.push(format!("{key:?}: left a trace: {operation:?}"));
                }
                Some(_) => {}
            }
        }
    }

    /// Gives every operation that ran its place, and says where what it was told differs from it.
    fn place<'o>(&self, operations: &[&'o Operation], violations: &mut Vec<String>) -> Vec<Placed<'o>> {
        let mut placed = Vec::with_capacity(operations.len());
        for operation in operations {
            match self.place_one(operation) {
                Ok(Some(place)) if operation.request != Request::ReadStale => placed.push(place),
                Ok(_) => {}
                Err(violation) => violations.push(format!("{:?}: {violation}: {operation:?}", self.key)),
            }
        }
        placed
    }

    fn place_one<'o>(&self, operation: &'o Operation) -> Result<Option<Placed<'o>>, &'static str> {
        let made = self.made_by(operation);
        if let (Some(version), Request::AppendIf { length }) = (made, operation.request)
            && version != length + 1
        {
            return Err("appended to a list of another length");
        }
        let Outcome::Done { version, appended } = operation.outcome else {
            return Ok(made.map(|version| Placed { operation, version, writes: true }));
        };
        if self.hashes.get(version.length as usize) != Some(&version.hash) {
            return Err("saw a list that is no prefix of the one at the end");
        }
        match operation.request {
            Request::AppendAndPanic | Request::Malformed => return Err("was told that it ran"),
            Request::Append if !appended => return Err("was told that it did not append"),
            Request::AppendIf { length } if !appended && version.length == length => {
                return Err("did not append although its condition held");
            }
            _ => {}
        }
        match (appended, made) {
            (true, None) => Err("was acknowledged and lost"),
            (true, Some(made)) if made != version.length => Err("stands at another place than it was told"),
            (false, Some(_)) => Err("appended although it was told that it did not"),
            _ => Ok(Some(Placed { operation, version: version.length, writes: appended })),
        }
    }
}

/// An operation that began after another had returned must come after it. What a client gave up on may run at any
/// later time, so it has not returned in this sense.
///
/// That is all: sorted by version, a write before the reads of what it wrote and those by their beginnings, the
/// operations are in an order that respects real time exactly if each pair does.
fn check_real_time(key: Key, mut placed: Vec<Placed<'_>>, violations: &mut Vec<String>) {
    let told = |place: &&Placed<'_>| matches!(place.operation.outcome, Outcome::Done { .. });
    let mut returned: Vec<Placed<'_>> = placed.iter().filter(told).copied().collect();
    returned.sort_by_key(|place| place.operation.returned);
    placed.sort_by_key(|place| place.operation.invoked);
    let mut before = returned.into_iter().peekable();
    let mut newest: Option<Placed<'_>> = None;
    for place in placed {
        while let Some(earlier) =
            before.next_if(|earlier| earlier.operation.returned < Some(place.operation.invoked))
        {
            if newest.is_none_or(|newest| newest.version < earlier.version) {
                newest = Some(earlier);
            }
        }
        let Some(newest) = newest else { continue };
        let ordered =
            if place.writes { place.version > newest.version } else { place.version >= newest.version };
        if !ordered {
            violations.push(format!(
                "{key:?}: {:?} with version {} comes after {:?} with version {}",
                place.operation, place.version, newest.operation, newest.version
            ));
        }
    }
}
