//! `bench`: three node processes on loopback, measured from outside and beside a bare baseline of the same run.

mod bare;
mod bulk;
pub(crate) mod children;
mod cluster;
mod durable;
mod echo;
mod fleet;
mod foretoken;
pub(crate) mod node;
mod outage;
mod protocol;
mod report;
mod scenarios;
mod transport;
pub(crate) mod usage;

use indicatif::{ProgressBar, ProgressStyle};

use self::report::Report;

/// Any error of a program that only reports it.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is measured, and for how long.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only scenarios whose name contains this, such as `rafted-value`, `rafted-value/fsync` or `outage`.
    #[arg(default_value = "")]
    only: String,
    /// Seconds of each load.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Idle groups.
    #[arg(long, default_value_t = 1000)]
    idle_groups: u64,
    /// Groups of the raft-fleet scenarios.
    #[arg(long, default_value_t = 1000)]
    fleet_groups: usize,
    /// How often the outage scenario kills the leader's process.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Where nodes that keep their groups on disk get their directories, which are removed at the end; where temporary
    /// files go, if not given.
    #[arg(long)]
    directory: Option<std::path::PathBuf>,
}

/// Runs the scenarios and prints a JSON line each, then the table.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BoxError> {
    children::end_on_a_signal()?;
    let mut report = Report::default();
    for (name, scenario) in scenarios::ALL {
        if !name.contains(&arguments.only) {
            continue;
        }
        let progress = ProgressBar::new_spinner().with_message(*name);
        progress.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
        progress.enable_steady_tick(std::time::Duration::from_millis(120));
        let rows = scenario(arguments)?;
        progress.finish_and_clear();
        for row in rows {
            report.add(row)?;
        }
    }
    report.print();
    Ok(())
}
