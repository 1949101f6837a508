//! What can be broken on purpose, in the engine or in the harness around it: a check that never fails proves nothing.

use std::fmt;

use rafted_value::sim::Mutation;

/// What breaks a rule that the engine leans on: the checks must notice. For tests of the harness itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sabotage {
    /// Clocks run apart by more than the drift margin.
    ClocksBeyondTheMargin,
    /// Nodes are killed however little state is left.
    KillsWithoutCare,
    /// Clients send a command anew in another session.
    RetriesInNewSessions,
    /// Clients take any member's answer for the leader's.
    ReadsFromAnybody,
    /// The members at the first place change more than they were told, now and then.
    OneMemberSlips,
    /// Nothing wakes a quiet group but what is asked of it.
    QuietGroupsSleepOn,
    /// The engine itself breaks one of its rules.
    InTheEngine(Mutation),
}

const MUTATIONS: [Mutation; 12] = [
    Mutation::SkipLeaseCheck,
    Mutation::AcknowledgeBeforeQuorum,
    Mutation::AcknowledgeBeforeDisk,
    Mutation::ForgetVote,
    Mutation::ForgetTerm,
    Mutation::ForgetNewestEntry,
    Mutation::ForgetPromise,
    Mutation::BreakPromise,
    Mutation::AppendAnywhere,
    Mutation::DropSessions,
    Mutation::MixUpReplies,
    Mutation::KeepLeaseInTransfer,
];

impl Sabotage {
    /// All there are.
    pub(crate) fn all() -> impl Iterator<Item = Sabotage> {
        let harness = [
            Sabotage::ClocksBeyondTheMargin,
            Sabotage::KillsWithoutCare,
            Sabotage::RetriesInNewSessions,
            Sabotage::ReadsFromAnybody,
            Sabotage::OneMemberSlips,
            Sabotage::QuietGroupsSleepOn,
        ];
        harness.into_iter().chain(MUTATIONS.map(Sabotage::InTheEngine))
    }
}

impl fmt::Display for Sabotage {
    /// As the command line takes it: the words of its name with hyphens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Sabotage::InTheEngine(mutation) => format!("{mutation:?}"),
            harness => format!("{harness:?}"),
        };
        for (place, letter) in name.chars().enumerate() {
            if letter.is_ascii_uppercase() && place > 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_called_by_the_words_of_its_name() {
        assert_eq!(Sabotage::InTheEngine(Mutation::SkipLeaseCheck).to_string(), "skip-lease-check");
        assert_eq!(Sabotage::KillsWithoutCare.to_string(), "kills-without-care");
    }
}
