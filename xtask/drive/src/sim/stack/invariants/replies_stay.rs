//! A command that is sent again under the same key is told what it was told first, wherever its agent is by then.

use std::collections::BTreeMap;

use crate::sim::history::Outcome;

/// What commands were told, by operation.
#[derive(Debug, Default)]
pub(in crate::sim::stack) struct RepliesStay(BTreeMap<u32, Outcome>);

impl RepliesStay {
    /// An operation was told something for sure.
    ///
    /// # Errors
    ///
    /// When it was told something else before.
    pub(in crate::sim::stack) fn told(&mut self, operation: u32, outcome: Outcome) -> Result<(), String> {
        let first = *self.0.entry(operation).or_insert(outcome);
        if first == outcome {
            return Ok(());
        }
        Err(format!("operation {operation} was told {first:?} and then {outcome:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::history::Version;

    #[test]
    fn a_reply_that_changes_is_found() {
        let done = |length| {
            let version = Version { length, hash: 7 };
            Outcome::Done { version, appended: true }
        };
        let mut replies = RepliesStay::default();
        for (operation, length) in [(1, 4), (2, 5), (1, 4)] {
            replies.told(operation, done(length)).unwrap();
        }
        assert!(replies.told(1, done(6)).unwrap_err().contains("operation 1 was told"));
    }
}
