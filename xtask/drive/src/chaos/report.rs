//! What a chaos run has tried, how long each thing took to mend, and the verdict.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};

use super::Arguments;
use super::clients::{Clients, Waits};
use super::cluster::Cluster;
use super::faults::Broken;
use crate::bench::{BoxError, children};

/// Lines of each node's log that are printed after a failure.
const LOG_LINES: usize = 15;

/// The run so far.
pub(super) struct Report {
    seed: u64,
    begun: Instant,
    time: Duration,
    bar: Option<ProgressBar>,
    kinds: BTreeMap<&'static str, Kind>,
    faults: u64,
    not_tried: Option<&'static str>,
    failure: Option<String>,
}

#[derive(Default)]
struct Kind {
    outages: Vec<Duration>,
    slowest: Duration,
    whole: Vec<Duration>,
}

impl Report {
    pub(super) fn begin(arguments: &Arguments, seed: u64, cluster: &Cluster) -> Result<Self, BoxError> {
        let time = Duration::from_secs_f64(arguments.minutes * 60.0);
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(time.as_secs()));
        if let Some(bar) = &bar {
            bar.set_style(ProgressStyle::with_template("{bar:40} {elapsed} of {len} s, {wide_msg}")?);
        }
        let not_tried = match (cluster.network.can_cut(), cluster.on_disks) {
            (true, true) => None,
            (true, false) => Some("nothing that concerns disks: --memory"),
            (false, _) => Some("cut links and full disks: no network namespace can be made here, or --plain"),
        };
        Ok(Self {
            seed,
            begun: Instant::now(),
            time,
            bar,
            kinds: BTreeMap::new(),
            faults: 0,
            not_tried,
            failure: None,
        })
    }

    /// What is left of the time; none when it is over.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.time.checked_sub(self.begun.elapsed()).filter(|left| !left.is_zero())
    }

    /// One fault is over.
    pub(super) fn add(&mut self, broken: Broken, whole: Result<Duration, String>, waits: Waits, told: u64) {
        self.faults += 1;
        let kind = self.kinds.entry(broken.what).or_default();
        kind.outages.push(waits.outage);
        kind.slowest = kind.slowest.max(waits.slowest);
        let line = match &whole {
            Ok(after) => {
                kind.whole.push(*after);
                format!("whole again after {:.2} s", after.as_secs_f64())
            }
            Err(why) => {
                self.failure = Some(format!("after {} the cluster does not heal: {why}", broken.what));
                format!("not whole: {why}")
            }
        };
        let text = format!(
            "{:>6.1} s  {} for {:.2} s: {told} answers, the slowest after {:.2} s, {:.2} s without any; {line}",
            self.begun.elapsed().as_secs_f64(),
            broken.what,
            broken.length.as_secs_f64(),
            waits.slowest.as_secs_f64(),
            waits.outage.as_secs_f64(),
        );
        match &self.bar {
            Some(bar) => {
                bar.println(text);
                bar.set_position(self.begun.elapsed().as_secs());
                bar.set_message(format!("{} faults", self.faults));
            }
            None => println!("{text}"),
        }
    }

    /// Why there is no sense in going on.
    pub(super) fn gave_up(&self) -> Option<String> {
        self.failure.clone()
    }

    pub(super) fn print(&mut self, clients: &Clients, cluster: &Cluster, verdict: &Result<(), BoxError>) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let resident_max = cluster.resident_bytes().into_iter().max().unwrap_or(0);
        let mut table = Table::new();
        table.set_header([
            "fault",
            "times",
            "s without any answer: p50",
            "max",
            "slowest answer, s",
            "s until whole: p50",
            "max",
        ]);
        for (what, Kind { outages, slowest, whole }) in &mut self.kinds {
            let times = outages.len().to_string();
            let (outage, outage_max) = quantiles(outages);
            let (whole, whole_max) = quantiles(whole);
            let slowest = format!("{:.2}", slowest.as_secs_f64());
            table.add_row([(*what).to_owned(), times, outage, outage_max, slowest, whole, whole_max]);
        }
        println!("{table}");
        let seconds = self.begun.elapsed().as_secs_f64();
        let told = clients.told();
        println!(
            "{} faults in {seconds:.0} s; {told} operations answered ({:.0}/s), {} of unknown fate, {} refused; \
             largest process {} MiB at the end",
            self.faults,
            told as f64 / seconds,
            clients.unknown(),
            clients.refused(),
            resident_max >> 20,
        );
        if let Some(what) = self.not_tried {
            println!("not tried: {what}");
        }
        match verdict {
            Ok(()) => {
                println!("the history of all clients is linearizable, and nothing acknowledged is lost");
            }
            Err(_) if children::is_interrupted() => {}
            Err(_) => {
                cluster.print_logs(LOG_LINES);
                println!(
                    "repeat the faults, if not what comes of them: cargo xtask chaos --seed {}",
                    self.seed
                );
            }
        }
    }
}

/// The median and the longest, in seconds.
fn quantiles(times: &mut [Duration]) -> (String, String) {
    times.sort_unstable();
    let text = |time: Option<&Duration>| time.map_or("-".into(), |time| format!("{:.2}", time.as_secs_f64()));
    (text(times.get(times.len().saturating_sub(1) / 2)), text(times.last()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_longest_of_some_times_are_told() {
        let mut times = [3, 1, 2].map(Duration::from_secs);
        assert_eq!(quantiles(&mut times), ("2.00".into(), "3.00".into()));
        assert_eq!(quantiles(&mut []), ("-".into(), "-".into()));
    }
}
