//! What the harness did in one seed, for whoever must understand its failure.

use std::collections::VecDeque;
use std::time::Duration;

/// No more lines than this are kept; the oldest go.
const LINES_MAX: usize = 400;

/// The last things that happened, with their virtual time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    lines: VecDeque<String>,
}

impl Journal {
    /// Writes a line.
    pub(crate) fn note(&mut self, at: Duration, what: &str) {
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>9.4}s {what}", at.as_secs_f64()));
    }

    /// The last `count` lines.
    pub(crate) fn last(&self, count: usize) -> impl Iterator<Item = &str> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count)).map(String::as_str)
    }
}
