//! How many calls may be under way at a node or client at a time. A caller that sends more than the cluster can do must
//! hear so at once, and before it has cost anybody anything: calls that pile up end at their timeout all together, and
//! what the groups do for them meanwhile is for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rafted_value::{CommandError, NotApplied, QueryError};

/// What a caller is told to wait: about as long as a busy group takes for what it has.
const RETRY_AFTER_MS: u64 = 50;

/// The gate.
#[derive(Debug)]
pub(crate) struct Gate {
    calls_max: usize,
    under_way: Arc<AtomicUsize>,
}

/// One call under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Pass {
    under_way: Arc<AtomicUsize>,
}

/// So many calls are under way that one more is refused.
#[derive(Debug)]
pub(crate) struct Full;

impl From<Full> for NotApplied {
    fn from(Full: Full) -> Self {
        NotApplied::Overloaded { retry_after_ms: RETRY_AFTER_MS }
    }
}

impl From<Full> for CommandError {
    fn from(full: Full) -> Self {
        NotApplied::from(full).into()
    }
}

impl From<Full> for QueryError {
    fn from(Full: Full) -> Self {
        QueryError::Overloaded { retry_after_ms: RETRY_AFTER_MS }
    }
}

impl Gate {
    /// A gate for so many calls at a time.
    pub(crate) fn new(calls_max: usize) -> Self {
        Self { calls_max, under_way: Arc::default() }
    }

    /// Whether there is room for a call that is not essential.
    pub(crate) fn check_room(&self) -> Result<(), Full> {
        if self.under_way.load(Ordering::Relaxed) < self.calls_max { Ok(()) } else { Err(refuse()) }
    }

    /// Lets one call in, if there is room. An essential one always finds room, and takes it.
    pub(super) fn enter(&self, essential: bool) -> Result<Pass, Full> {
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        let pass = Pass { under_way: self.under_way.clone() };
        if essential || before < self.calls_max {
            return Ok(pass);
        }
        Err(refuse())
    }
}

/// One call is refused.
pub(super) fn refuse() -> Full {
    metrics::counter!("raft_fleet_calls_refused_total").increment(1);
    Full
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_too_many_is_refused_until_another_has_ended() {
        let gate = Gate::new(2);
        let first = gate.enter(false).expect("there is room");
        let _second = gate.enter(false).expect("there is room");
        assert!(gate.enter(false).is_err());
        assert!(gate.enter(false).is_err());
        drop(first);
        let _third = gate.enter(false).expect("one has ended");
        assert!(gate.enter(false).is_err());
    }

    #[test]
    fn an_essential_call_finds_room_and_takes_it() {
        let gate = Gate::new(1);
        let first = gate.enter(false).expect("there is room");
        let essential = gate.enter(true).expect("it is essential");
        drop(first);
        assert!(gate.enter(false).is_err());
        drop(essential);
        assert!(gate.enter(false).is_ok());
    }
}
