//! What happened to an agent lately, for those who watch it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A change of an agent. Stored and sent; append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct KeptChange {
    /// The agent's revision after it.
    pub(crate) revision: u64,
    pub(crate) at_ms: u64,
    /// The command in bytes; none for a timeout.
    pub(crate) command: Option<Vec<u8>>,
}

/// What a change takes beside its command, at most.
const CHANGE_BYTES: usize = 32;

/// The newest changes of an agent, without a gap.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Changes(VecDeque<KeptChange>);

impl Changes {
    /// None.
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Adds the newest, and forgets the oldest beyond so many.
    pub(super) fn push(&mut self, change: KeptChange, retained: u32) {
        self.0.push_back(change);
        while self.0.len() > retained as usize {
            self.0.pop_front();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those behind a revision, at most so many and no more than so many bytes, but one at least; `Err` with the oldest
    /// revision that is kept where there is a gap. `newest` is the agent's revision.
    pub(super) fn after(
        &self,
        revision: u64,
        newest: u64,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<KeptChange>, u64> {
        let oldest = self.0.front().map_or(newest.saturating_add(1), |change| change.revision);
        if revision.saturating_add(1) < oldest {
            return Err(oldest);
        }
        let mut bytes: usize = 0;
        let behind = self.0.iter().skip_while(|change| change.revision <= revision);
        let fits = |change: &&KeptChange| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(CHANGE_BYTES + change.command.as_ref().map_or(0, Vec::len));
            is_first || bytes <= bytes_max
        };
        Ok(behind.take(changes_max).take_while(fits).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64) -> KeptChange {
        KeptChange { revision, at_ms: revision * 10, command: Some(vec![7; 4]) }
    }

    fn revisions(
        changes: &Changes,
        after: u64,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<u64>, u64> {
        let found = changes.after(after, 6, changes_max, bytes_max)?;
        Ok(found.into_iter().map(|change| change.revision).collect())
    }

    #[test]
    fn changes_are_given_in_order_without_a_gap_or_not_at_all() {
        let mut changes = Changes::default();
        (1..=6).for_each(|revision| changes.push(change(revision), 4));
        assert_eq!(revisions(&changes, 2, 10, 1_000), Ok(vec![3, 4, 5, 6]));
        assert_eq!(revisions(&changes, 4, 10, 100), Ok(vec![5, 6]));
        assert_eq!(revisions(&changes, 2, 1, 100), Ok(vec![3]));
        let size = CHANGE_BYTES + 4;
        assert_eq!(revisions(&changes, 2, 10, 3 * size - 1), Ok(vec![3, 4]));
        assert_eq!(revisions(&changes, 2, 10, 0), Ok(vec![3]));
        assert_eq!(revisions(&changes, 6, 10, 100), Ok(vec![]));
        assert_eq!(revisions(&changes, 1, 10, 100), Err(3));
        assert_eq!(revisions(&Changes::default(), 5, 10, 100), Err(7));
        assert_eq!(revisions(&Changes::default(), 6, 10, 100), Ok(vec![]));
    }
    /// The largest command once came behind almost as many bytes as an answer may have: no answer was small enough to be
    /// sent, and whoever watched the agent went no further.
    #[test]
    fn no_answer_is_larger_than_it_may_be_unless_one_change_is() {
        let mut changes = Changes::default();
        for (revision, bytes) in [(1, 999), (2, 3_000), (3, 1), (4, 1)] {
            let command = Some(vec![7; bytes]);
            changes.push(KeptChange { revision, at_ms: 1, command }, 9);
        }
        assert_eq!(revisions(&changes, 0, 10, 1_000), Ok(vec![1]));
        assert_eq!(revisions(&changes, 1, 10, 1_000), Ok(vec![2]));
        assert_eq!(revisions(&changes, 2, 10, 1_000), Ok(vec![3, 4]));
    }
}
