//! `cargo xtask upgrade`: a cluster of real processes goes from one build of its program to the next, node after node, and
//! clients that work meanwhile notice nothing.
//!
//! The builds are the examples `node` and `node_next` of `dist-agent`: the second has counters of another form, which it
//! makes of the old ones, and one more type of agents.

mod play;
#[cfg(all(test, unix))]
mod tests;
mod verdict;

use std::time::Duration;

use crate::Outcome;
use crate::demo;
use crate::demo::stage::Pace;

use play::Play;

/// Options of `cargo xtask upgrade`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Counter agents to create
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) agents: u32,
    /// Clients that send commands at the same time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub(crate) clients: u32,
    /// Keep the folder with certificates and logs
    #[arg(long)]
    pub(crate) keep: bool,
}

/// A node that hands over what it holds takes longer to end than one that does not.
const STOP_MAX: Duration = Duration::from_secs(75);

/// Builds the programs and upgrades a cluster.
///
/// # Errors
/// Whatever kept the upgrade from its end, a lost or doubled command, a state that was not migrated, or Ctrl-C.
pub(crate) fn run(options: &Options) -> Outcome {
    let pace = Pace { stop_max: STOP_MAX, ..Pace::default() };
    demo::on_stage(options.keep, pace, |stage| {
        let verdict = Play::new(stage, options).run()?;
        Ok((verdict.table(), verdict.judge()))
    })
}
