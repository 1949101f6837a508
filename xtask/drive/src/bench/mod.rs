//! `bench`: three node processes on loopback, measured from outside and beside a bare baseline of the same run.

pub(crate) mod agents;
mod bare;
mod blob;
mod bulk;
pub(crate) mod children;
mod cluster;
mod echo;
mod fleet;
mod foretoken;
mod idle;
mod kv;
mod kv_node;
mod large;
mod loads;
pub(crate) mod node;
mod node_large;
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
    /// Groups of the raft-fleet scenarios.
    #[arg(long, default_value_t = 1000)]
    fleet_groups: usize,
    /// How many groups are idle; one run for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    idle_groups: Vec<u64>,
    /// Bytes of a large state, and of a long log.
    #[arg(long, default_value_t = 1 << 30)]
    state_bytes: u64,
    /// Agents on one node, to measure what an idle one costs.
    #[arg(long, default_value_t = 1_000_000)]
    agents: u64,
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
