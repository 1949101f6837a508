//! What can be simulated, by name.

use super::limits::Limits;
use super::notes::Notes;
use super::{counters, engine, fleet, panics, stack};

/// A kind of world with its faults and its checks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Hosts with replicated groups, and nothing above them.
    Engine,
    /// A fleet of nodes that come, die and are drained, while groups are added and removed.
    Fleet,
    /// Agents on nodes that run the whole stack.
    Stack,
}

/// All of them.
pub(crate) const ALL: [Scenario; 3] = [Scenario::Engine, Scenario::Fleet, Scenario::Stack];

impl Scenario {
    /// Its name, as the command line takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Engine => "engine",
            Scenario::Fleet => "fleet",
            Scenario::Stack => "stack",
        }
    }

    /// The kinds of its faults, by name.
    pub(crate) fn kinds(self) -> &'static [&'static str] {
        match self {
            Scenario::Engine => &engine::KIND_NAMES,
            Scenario::Fleet => &fleet::KIND_NAMES,
            Scenario::Stack => &stack::KIND_NAMES,
        }
    }

    /// Plays one seed on this thread.
    ///
    /// # Errors
    ///
    /// What did not hold; a panic counts.
    pub(crate) fn play(self, seed: u64, limits: &Limits) -> (Notes, Result<(), String>) {
        let mut notes = Notes::default();
        let counters = counters::Counters::default();
        let result = panics::catch(|| {
            metrics::with_local_recorder(&counters, || match self {
                Scenario::Engine => engine::play(seed, limits, &mut notes),
                Scenario::Fleet => fleet::play(seed, limits, &mut notes),
                Scenario::Stack => stack::play(seed, limits, &mut notes),
            })
        });
        counters.read_out(&mut notes.tally);
        (notes, result)
    }
}
