//! `sim`: many seeds of simulated worlds, each decided by one number, checked against what must hold.

mod counters;
mod engine;
mod fleet;
pub(crate) mod history;
mod journal;
mod leaders;
mod limits;
mod minimise;
mod notes;
#[cfg(test)]
mod noticed;
pub(crate) mod panics;
mod report;
mod sabotage;
mod scenario;
mod seeds;
pub(crate) mod stack;
mod steps;
mod tally;
mod workers;

use std::ops::Range;
use std::time::Duration;

use self::limits::Limits;
use self::report::Report;
use self::sabotage::Sabotage;
use self::scenario::Scenario;
use self::seeds::Seeds;
use self::workers::Job;
use crate::bench::BoxError;

/// Which seeds of which scenarios.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seeds to play, from A up to but not including B; 0..1000 where nothing says otherwise.
    #[arg(long, value_name = "A..B", value_parser = parse_seeds)]
    seeds: Option<Range<u64>>,
    /// Play those first that once showed a fault which is mended.
    #[arg(long)]
    once_failed: bool,
    /// Only this scenario.
    #[arg(long, value_enum)]
    only: Option<Scenario>,
    /// Start no new seed of a scenario after this many seconds.
    #[arg(long, value_name = "N")]
    seconds_max: Option<u64>,
    /// The same in minutes, over all scenarios together; without --seeds as many seeds as fit.
    #[arg(long, value_name = "M", conflicts_with = "seconds_max")]
    minutes: Option<f64>,
    /// Kinds of faults to leave out, as a failure names them.
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    without: Vec<String>,
    /// End the faults of each seed after this time.
    #[arg(long, value_name = "N")]
    faults_ms: Option<u64>,
    /// Break a rule on purpose, to see the checks find it.
    #[arg(long, value_name = "RULE", value_parser = parse_sabotage)]
    plant: Option<Sabotage>,
    /// Do not look for a smaller run of a seed that failed.
    #[arg(long)]
    as_it_is: bool,
    /// Threads that play seeds; by default one for each core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
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

fn parse_sabotage(text: &str) -> Result<Sabotage, String> {
    Sabotage::all().find(|sabotage| sabotage.to_string() == text).ok_or_else(|| {
        let names: Vec<String> = Sabotage::all().map(|sabotage| sabotage.to_string()).collect();
        format!("no rule of this name; there are {}", names.join(", "))
    })
}

impl Arguments {
    fn limits(&self) -> Result<Limits, BoxError> {
        let known = |name: &str| scenario::ALL.iter().any(|scenario| scenario.kinds().contains(&name));
        if let Some(unknown) = self.without.iter().find(|name| !known(name)) {
            return Err(format!("no kind of fault is called {unknown:?}").into());
        }
        if let (Some(plant), None) = (self.plant, self.scenarios().next()) {
            return Err(format!("{plant} breaks nothing in this kind of world").into());
        }
        Ok(Limits {
            without: self.without.iter().cloned().collect(),
            faults_max: self.faults_ms.map(Duration::from_millis),
            plant: self.plant,
        })
    }

    /// Those that were asked for, and in which what is planted breaks anything.
    fn scenarios(&self) -> impl Iterator<Item = Scenario> {
        let asked = |scenario: &Scenario| self.only.is_none_or(|only| only == *scenario);
        let broken = |scenario: &Scenario| self.plant.is_none_or(|plant| plant.acts_in(*scenario));
        scenario::ALL.into_iter().filter(asked).filter(broken)
    }

    /// How long one scenario's seeds may take.
    fn time_max(&self) -> Option<Duration> {
        let share = |minutes: f64| Duration::from_secs_f64(60.0 * minutes / self.scenarios().count() as f64);
        self.minutes.map(share).or(self.seconds_max.map(Duration::from_secs))
    }

    fn seeds(&self, scenario: Scenario) -> Seeds {
        let all = if self.minutes.is_some() { 0..u64::MAX } else { 0..1000 };
        let seeds = Seeds::new(self.seeds.clone().unwrap_or(all));
        if self.once_failed { seeds.behind_once_failed(scenario) } else { seeds }
    }
}

/// Plays the seeds, reports each failure when it happens and everything in a table.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BoxError> {
    panics::install();
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    let limits = arguments.limits()?;
    let mut reports = Vec::new();
    for scenario in arguments.scenarios() {
        let job = Job {
            scenario,
            seeds: arguments.seeds(scenario),
            twice: arguments.twice,
            time_max: arguments.time_max(),
            limits: limits.clone(),
            minimises: !arguments.as_it_is,
            threads: arguments.threads,
        };
        let mut report = Report::begin(&job, arguments.journal)?;
        workers::play(&job, |played| report.add(&played));
        report.end(&job);
        reports.push(report);
    }
    report::print(&reports);
    let failed: u64 = reports.iter().map(Report::failed).sum();
    if failed == 0 { Ok(()) } else { Err(format!("{failed} simulated worlds broke what must hold").into()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn a_range_of_seeds_is_read() {
        assert_eq!(parse_seeds("3..7"), Ok(3..7));
        assert!(parse_seeds("7..3").unwrap_err().contains("no seed"));
        assert!(parse_seeds("3").unwrap_err().contains("A..B"));
        assert!(parse_seeds("a..b").unwrap_err().contains("A..B"));
    }

    #[test]
    fn every_planted_fault_is_found_by_its_name() {
        for sabotage in Sabotage::all() {
            assert_eq!(parse_sabotage(&sabotage.to_string()), Ok(sabotage));
        }
        assert!(parse_sabotage("nothing").unwrap_err().contains("skip-lease-check"));
    }

    #[test]
    fn what_is_planted_is_played_where_it_breaks_something_and_refused_elsewhere() {
        let limits = |line: &str| Line::parse_from(line.split(' ')).arguments.limits();
        let played = |line: &str| Line::parse_from(line.split(' ')).arguments.scenarios().collect::<Vec<_>>();
        assert_eq!(played("sim --plant reserve-no-quota"), [Scenario::Stack]);
        assert_eq!(played("sim --plant quiet-groups-sleep-on"), [Scenario::Engine]);
        assert_eq!(played("sim --plant skip-lease-check"), scenario::ALL);
        let refused = limits("sim --only fleet --plant one-member-slips").unwrap_err().to_string();
        assert_eq!(refused, "one-member-slips breaks nothing in this kind of world");
        limits("sim --only stack --plant one-member-slips").unwrap();
    }

    /// Not one line of a run may depend on anything but its seed.
    #[test]
    fn a_seed_of_the_engine_passes_and_goes_the_same_way_twice() {
        panics::install();
        let (first, result) = Scenario::Engine.play(1, &Limits::default());
        assert_eq!(result, Ok(()));
        let (second, _) = Scenario::Engine.play(1, &Limits::default());
        assert_eq!(first.trace_hash, second.trace_hash);
    }

    #[test]
    fn a_seed_of_the_fleet_passes_and_goes_the_same_way_twice() {
        panics::install();
        let (first, result) = Scenario::Fleet.play(1, &Limits::default());
        assert_eq!(result, Ok(()));
        let (second, _) = Scenario::Fleet.play(1, &Limits::default());
        assert_eq!(first.trace_hash, second.trace_hash);
    }

    #[test]
    fn a_seed_of_the_whole_stack_passes_and_goes_the_same_way_twice() {
        panics::install();
        let (first, result) = Scenario::Stack.play(1, &Limits::default());
        assert_eq!(result, Ok(()));
        let (second, _) = Scenario::Stack.play(1, &Limits::default());
        assert_eq!(first.trace_hash, second.trace_hash);
    }
}
