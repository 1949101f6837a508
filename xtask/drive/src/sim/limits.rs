//! What a run of a seed leaves out, so that a failure can be shown with less around it, and what it breaks on purpose.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rafted_value::sim::{Planted, plant};

use super::sabotage::Sabotage;

/// What is left out of a seed; by default nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Limits {
    /// Kinds of faults that do not happen, by name.
    pub(crate) without: BTreeSet<String>,
    /// Faults end after this time.
    pub(crate) faults_max: Option<Duration>,
    /// A fault in a crate or in the harness itself, which the checks must find.
    pub(crate) plant: Option<Sabotage>,
}

impl Limits {
    /// Whether faults of this name happen.
    pub(crate) fn allow(&self, kind: &str) -> bool {
        !self.without.contains(kind)
    }

    /// Plants the fault that a crate itself is to have, for as long as what this gives is there.
    pub(crate) fn planted(&self) -> Option<Planted> {
        match self.plant {
            Some(Sabotage::InTheEngine(mutation) | Sabotage::Above(mutation)) => Some(plant(mutation)),
            _ => None,
        }
    }

    /// Whether this rule is broken.
    pub(crate) fn breaks(&self, sabotage: Sabotage) -> bool {
        self.plant == Some(sabotage)
    }

    /// For how long faults happen that would go on for `planned`.
    pub(crate) fn time(&self, planned: Duration) -> Duration {
        self.faults_max.map_or(planned, |max| max.min(planned))
    }
}

impl fmt::Display for Limits {
    /// As arguments of the command line, each with a space before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.without.is_empty() {
            let names: Vec<&str> = self.without.iter().map(String::as_str).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if let Some(max) = self.faults_max {
            write!(f, " --faults-ms {}", max.as_millis())?;
        }
        if let Some(plant) = self.plant {
            write!(f, " --plant {plant}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_print_as_the_arguments_that_make_them() {
        assert_eq!(Limits::default().to_string(), "");
        let limits = Limits {
            without: ["pause", "drift"].map(str::to_owned).into(),
            faults_max: Some(Duration::from_millis(750)),
            plant: Some(Sabotage::KillsWithoutCare),
        };
        let text = " --without drift,pause --faults-ms 750 --plant kills-without-care";
        assert_eq!(limits.to_string(), text);
    }
}
