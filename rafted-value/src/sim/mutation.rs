//! Faults planted in the engine itself and in the layers above, so that a harness can show that its checks find them.
//! Nothing but a test of a harness plants one.

use std::cell::Cell;

/// A rule that is broken while it is planted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mutation {
    /// A leader answers queries without looking whether it still leads.
    SkipLeaseCheck,
    /// A leader counts an entry as committed as soon as its own log has it.
    AcknowledgeBeforeQuorum,
    /// A member acknowledges entries and gives votes before its disk has them.
    AcknowledgeBeforeDisk,
    /// A member that comes back from its disk does not know whom it voted for.
    ForgetVote,
    /// A member that comes back from its disk does not know its term.
    ForgetTerm,
    /// A member that comes back from its disk does not know the newest entry that it wrote.
    ForgetNewestEntry,
    /// A member that comes back from its disk keeps none of its promises.
    ForgetPromise,
    /// A member votes although it has promised not to.
    BreakPromise,
    /// A follower appends entries whatever its log holds before them.
    AppendAnywhere,
    /// A snapshot has no records of the commands that sessions have sent.
    DropSessions,
    /// A command that comes again is told what another command of its session was told.
    MixUpReplies,
    /// A leader keeps its lease while it hands its leadership over.
    KeepLeaseInTransfer,
    /// A rule of a layer above, by the name that it gives it.
    Above(&'static str),
}

thread_local! {
    static PLANTED: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Plants a fault on this thread until what is returned is dropped.
pub fn plant(mutation: Mutation) -> Planted {
    PLANTED.set(Some(mutation));
    Planted(())
}

/// As long as it lives, a fault is planted on this thread.
#[derive(Debug)]
#[must_use]
pub struct Planted(());

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(None);
    }
}

/// Whether this fault is planted on this thread: what has it asks this, and nobody else.
pub fn is_planted(mutation: Mutation) -> bool {
    PLANTED.get() == Some(mutation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_planted_on_its_thread_until_what_plants_it_is_dropped() {
        let above = Mutation::Above("a rule of somebody else");
        assert!(!is_planted(above));
        let planted = plant(above);
        assert!(is_planted(above));
        assert!(!is_planted(Mutation::Above("another")) && !is_planted(Mutation::ForgetVote));
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| is_planted(above)).join());
        assert!(!elsewhere.expect("it does not panic"));
        drop(planted);
        assert!(!is_planted(above));
    }
}
