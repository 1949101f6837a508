//! Progress while seeds are played, failures as they happen, and the table at the end.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};

use super::limits::Limits;
use super::minimise::Smaller;
use super::scenario::Scenario;
use super::tally::Tally;
use super::workers::{Job, Played};
use crate::bench::BoxError;

/// Without a terminal a line is printed this often.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// What is printed of the journal of a seed that failed.
const JOURNAL_LINES: usize = 25;

/// What became of one scenario's seeds.
pub(super) struct Report {
    scenario: Scenario,
    whole_journal: bool,
    limits: Limits,
    begun: Instant,
    real_time: Duration,
    bar: Option<ProgressBar>,
    last_line: Instant,
    passed: u64,
    failed: u64,
    twice: u64,
    virtual_time: Duration,
    slowest_heal: (Duration, u64),
    tally: Tally,
}

impl Report {
    pub(super) fn begin(job: &Job, whole_journal: bool) -> Result<Self, BoxError> {
        let template = match job.seeds.count() {
            Some(_) => "{prefix} {bar:40} {pos}/{len} seeds, {per_sec}, {elapsed} {msg}",
            None => "{prefix} {spinner} {pos} seeds, {per_sec}, {elapsed} {msg}",
        };
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| ProgressBar::new(job.seeds.count().unwrap_or(0)).with_prefix(job.scenario.name()));
        if let Some(bar) = &bar {
            bar.set_style(ProgressStyle::with_template(template)?);
        }
        let now = Instant::now();
        Ok(Self {
            scenario: job.scenario,
            whole_journal,
            limits: job.limits.clone(),
            begun: now,
            real_time: Duration::ZERO,
            bar,
            last_line: now,
            passed: 0,
            failed: 0,
            twice: 0,
            virtual_time: Duration::ZERO,
            slowest_heal: (Duration::ZERO, 0),
            tally: Tally::default(),
        })
    }

    /// How many seeds failed.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Takes in one seed.
    pub(super) fn add(&mut self, played: &Played) {
        self.virtual_time += played.notes.virtual_time;
        self.slowest_heal = self.slowest_heal.max((played.notes.slowest_heal, played.seed));
        self.tally.merge(&played.notes.tally);
        self.twice += u64::from(played.twice);
        match &played.result {
            Ok(()) => self.passed += 1,
            Err(why) => {
                self.failed += 1;
                self.print_failure(played, why);
            }
        }
        self.show_progress();
    }

    fn print_failure(&self, played: &Played, why: &str) {
        let name = self.scenario.name();
        let seed = played.seed;
        let lines = if self.whole_journal { usize::MAX } else { JOURNAL_LINES };
        let journal: Vec<&str> = played.notes.journal.last(lines).collect();
        let command =
            |limits: &Limits| format!("cargo xtask sim --seeds {seed}..{} --only {name}{limits}", seed + 1);
        let smaller = played.smaller.as_ref().map_or(String::new(), |smaller| {
            let Smaller { limits, why, runs } = smaller;
            format!("smaller, found in {runs} runs: {}\n{why}\n", command(limits))
        });
        let text = format!(
            "seed {seed} of {name} failed at {:.4} s:\n{why}\nbefore that:\n{}\nreproduce: {}\n{smaller}",
            played.notes.virtual_time.as_secs_f64(),
            journal.join("\n"),
            command(&self.limits),
        );
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{text}")),
            None => println!("{text}"),
        }
    }

    fn show_progress(&mut self) {
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                if self.failed > 0 {
                    bar.set_message(format!("{} failed", self.failed));
                }
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                let (seeds, rate) = (self.passed + self.failed, self.rate(self.begun.elapsed()));
                println!(
                    "{}: {seeds} seeds, {rate:.0} a second, {} failed",
                    self.scenario.name(),
                    self.failed
                );
            }
            None => {}
        }
    }

    fn rate(&self, time: Duration) -> f64 {
        (self.passed + self.failed + self.twice) as f64 / time.as_secs_f64().max(0.001)
    }

    /// No more seeds will come.
    pub(super) fn end(&mut self, job: &Job) {
        self.real_time = self.begun.elapsed();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let played = self.passed + self.failed;
        if let Some(asked) = job.seeds.count().filter(|asked| played < *asked) {
            let (name, seconds) = (self.scenario.name(), self.real_time.as_secs_f64());
            println!("{name}: {played} of {asked} seeds were played in {seconds:.0} s");
        }
    }

    fn rows(&self, table: &mut Table) {
        let name = self.scenario.name();
        let mut row = |what: &str, value: String| {
            table.add_row([name.to_owned(), what.to_owned(), value]);
        };
        row("seeds", (self.passed + self.failed).to_string());
        row("of these played twice and compared", self.twice.to_string());
        row("seeds a second, second plays included", format!("{:.1}", self.rate(self.real_time)));
        row("virtual time", format!("{:.0} s", self.virtual_time.as_secs_f64()));
        let (slowest, seed) = self.slowest_heal;
        row("slowest to heal", format!("{:.1} s (seed {seed})", slowest.as_secs_f64()));
        for (what, times) in self.tally.iter() {
            row(what, times.to_string());
        }
    }
}

/// Prints the table and, alone on the last line, how many seeds passed and failed.
pub(super) fn print(reports: &[Report]) {
    let mut table = Table::new();
    table.set_header(["scenario", "what", "count"]);
    for report in reports {
        report.rows(&mut table);
    }
    println!("{table}");
    let passed: u64 = reports.iter().map(|report| report.passed).sum();
    let failed: u64 = reports.iter().map(|report| report.failed).sum();
    println!("{passed} passed, {failed} failed");
}
