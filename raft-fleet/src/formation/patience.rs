//! How long a node looks for its cluster, and that it says meanwhile what it sees. Pure, time an argument.

use std::time::Duration;

use rafted_value::env::MonoTime;

use crate::error::FleetError;

/// One search for a cluster.
#[derive(Debug)]
pub(crate) struct Patience {
    begun: MonoTime,
    told: MonoTime,
    limit: Duration,
    interval: Duration,
}

/// What is to be done about the waiting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    /// Nothing.
    On,
    /// People should be told.
    Tell {
        /// For how long it has gone on.
        waited: Duration,
    },
    /// It has gone on for too long.
    Over {
        /// The limit.
        limit: Duration,
    },
}

impl Patience {
    /// A search that begins now.
    pub(crate) fn new(now: MonoTime, limit: Duration, interval: Duration) -> Self {
        Self { begun: now, told: now, limit, interval }
    }

    /// Whether to wait on, and whether it is time to speak.
    pub(crate) fn look(&mut self, now: MonoTime) -> Waiting {
        let waited = now.since(self.begun);
        if waited >= self.limit {
            return Waiting::Over { limit: self.limit };
        }
        if now.since(self.told) < self.interval {
            return Waiting::On;
        }
        self.told = now;
        Waiting::Tell { waited }
    }
}

impl Waiting {
    /// Logs what is seen when it is time to; the error once the time is over.
    pub(crate) fn tell(
        self,
        node: rafted_value::NodeId,
        seen: impl FnOnce() -> String,
    ) -> Result<(), FleetError> {
        match self {
            Waiting::On => Ok(()),
            Waiting::Tell { waited } => {
                tracing::warn!(%node, ?waited, seen = seen(), "this node is not part of a cluster yet");
                Ok(())
            }
            Waiting::Over { limit } => Err(FleetError::NotPartOfACluster { limit, seen: seen() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_speaks_at_every_interval_and_ends_at_its_limit() {
        let at = |seconds: u64| MonoTime::from_nanos(seconds * 1_000_000_000);
        let seconds = Duration::from_secs;
        let mut patience = Patience::new(at(100), seconds(12), seconds(5));
        assert_eq!(patience.look(at(104)), Waiting::On);
        assert_eq!(patience.look(at(106)), Waiting::Tell { waited: seconds(6) });
        assert_eq!(patience.look(at(110)), Waiting::On);
        assert_eq!(patience.look(at(111)), Waiting::Tell { waited: seconds(11) });
        assert_eq!(patience.look(at(112)), Waiting::Over { limit: seconds(12) });
    }
}
