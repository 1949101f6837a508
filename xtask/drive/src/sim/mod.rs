//! `sim`: many seeds of simulated worlds, each decided by one number, checked against what must hold.

mod counters;
mod engine;
mod history;
mod journal;
mod notes;
mod panics;
mod report;
mod scenario;
mod stack;
mod steps;
mod tally;
mod workers;

use std::ops::Range;
use std::time::Duration;

use self::report::Report;
use self::scenario::Scenario;
use self::workers::Job;
use crate::bench::BoxError;

/// Which seeds of which scenarios.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seeds to play, from A up to but not including B.
    #[arg(long, value_name = "A..B", default_value = "0..1000", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// Only this scenario.
    #[arg(long, value_enum)]
    only: Option<Scenario>,
    /// Start no new seed of a scenario after this many seconds.
    #[arg(long, value_name = "N")]
    seconds_max: Option<u64>,
    /// Play every seed twice and compare the two; some are in any case.
    #[arg(long)]
    twice: bool,
    /// Print what the harness did in each seed that failed, in full.
    #[arg(long)]
    journal: bool,
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let bad = || format!("{text:?} is not of the form A..B");
    let (first, end) = text.split_once("..").ok_or_else(bad)?;
    let seeds = first.parse().map_err(|_| bad())?..end.parse().map_err(|_| bad())?;
    if seeds.is_empty() { Err(format!("{text:?} holds no seed")) } else { Ok(seeds) }
}

/// Plays the seeds, reports each failure when it happens and everything in a table.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BoxError> {
    panics::install();
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    let mut reports = Vec::new();
    for scenario in scenario::ALL {
        if arguments.only.is_some_and(|only| only != scenario) {
            continue;
        }
        let job = Job {
            scenario,
            seeds: arguments.seeds.clone(),
            twice: arguments.twice,
            time_max: arguments.seconds_max.map(Duration::from_secs),
        };
        let mut report = Report::begin(&job, arguments.journal)?;
        workers::play(&job, |played| report.add(&played));
        report.end(job.seeds.end - job.seeds.start);
        reports.push(report);
    }
    report::print(&reports);
    let failed: u64 = reports.iter().map(Report::failed).sum();
    if failed == 0 { Ok(()) } else { Err(format!("{failed} simulated worlds broke what must hold").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_seeds_is_read() {
        assert_eq!(parse_seeds("3..7"), Ok(3..7));
        assert!(parse_seeds("7..3").unwrap_err().contains("no seed"));
        assert!(parse_seeds("3").unwrap_err().contains("A..B"));
        assert!(parse_seeds("a..b").unwrap_err().contains("A..B"));
    }

    /// Not one line of a run may depend on anything but its seed.
    #[test]
    fn a_seed_of_the_engine_passes_and_goes_the_same_way_twice() {
        panics::install();
        let (first, result) = Scenario::Engine.play(1);
        assert_eq!(result, Ok(()));
        let (second, _) = Scenario::Engine.play(1);
        assert_eq!(first.trace_hash, second.trace_hash);
    }

    #[test]
    fn a_seed_of_the_whole_stack_passes_and_goes_the_same_way_twice() {
        panics::install();
        let (first, result) = Scenario::Stack.play(1);
        assert_eq!(result, Ok(()));
        let (second, _) = Scenario::Stack.play(1);
        assert_eq!(first.trace_hash, second.trace_hash);
    }
}
