//! The invariant that members never diverge: the n-th command of a group is the same on all of them, with one outcome.
//!
//! It watches from inside the replicated value, so that not one command escapes it, replays after a panic included.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

/// Sees every command run on every member.
#[derive(Debug, Default)]
pub(super) struct Witness(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    groups: BTreeMap<u64, Group>,
    complaint: Option<String>,
}

#[derive(Debug, Default)]
struct Group {
    /// The digest after the first command, the second, and so on.
    digests: Vec<u64>,
    numbers: BTreeSet<u32>,
}

impl Witness {
    /// A member's `position`-th command (from one) was `number`, and its digest is now `digest`.
    pub(super) fn saw(&self, group: u64, position: u64, digest: u64, number: u32) {
        let mut seen = self.0.lock();
        let Seen { groups, complaint } = &mut *seen;
        let known = groups.entry(group).or_default();
        let problem = match known.digests.get(position as usize - 1) {
            Some(first) if *first == digest => return,
            Some(_) => "differs from what another member ran there".to_owned(),
            None if position as usize > known.digests.len() + 1 => {
                format!("follows {} that were ever seen", known.digests.len())
            }
            None => {
                known.digests.push(digest);
                if known.numbers.insert(number) {
                    return;
                }
                "ran before".to_owned()
            }
        };
        complaint.get_or_insert(format!("group {group}: command {position}, operation {number}, {problem}"));
    }

    /// Whether an operation has run on some member.
    pub(super) fn has_run(&self, group: u64, number: u32) -> bool {
        self.0.lock().groups.get(&group).is_some_and(|known| known.numbers.contains(&number))
    }

    /// How many commands of a group have run.
    pub(super) fn ran(&self, group: u64) -> u64 {
        self.0.lock().groups.get(&group).map_or(0, |known| known.digests.len() as u64)
    }

    /// # Errors
    ///
    /// The first divergence, if there was one.
    pub(super) fn check(&self) -> Result<(), String> {
        self.0.lock().complaint.clone().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(sightings: &[(u64, u64, u32)]) -> Result<(), String> {
        let witness = Witness::default();
        for &(position, digest, number) in sightings {
            witness.saw(1, position, digest, number);
        }
        witness.check()
    }

    #[test]
    fn members_that_agree_are_fine() {
        verdict(&[(1, 10, 5), (2, 11, 6), (1, 10, 5), (2, 11, 6)]).unwrap();
    }

    #[test]
    fn a_divergence_a_gap_and_a_repetition_are_found() {
        assert!(verdict(&[(1, 10, 5), (1, 12, 5)]).unwrap_err().contains("differs"));
        assert!(verdict(&[(1, 10, 5), (3, 12, 6)]).unwrap_err().contains("ever seen"));
        assert!(verdict(&[(1, 10, 5), (2, 12, 5)]).unwrap_err().contains("ran before"));
    }
}
