//! Plays seeds on all cores, one seed a thread at a time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::limits::Limits;
use super::minimise::{Smaller, minimise};
use super::notes::Notes;
use super::scenario::Scenario;
use super::seeds::Seeds;

/// The first seeds, and every one of so many, are played twice in any case.
const TWICE_FIRST: u64 = 3;
const TWICE_EVERY: u64 = 100;
/// After so many failures no new seeds are started.
const FAILURES_MAX: u64 = 10;

/// What is played.
pub(super) struct Job {
    pub(super) scenario: Scenario,
    pub(super) seeds: Seeds,
    /// Play every seed twice and compare.
    pub(super) twice: bool,
    /// No new seeds are started after this time.
    pub(super) time_max: Option<Duration>,
    pub(super) limits: Limits,
    /// Look for a smaller run of the first seed that fails.
    pub(super) minimises: bool,
    pub(super) threads: Option<usize>,
}

/// One seed that was played.
pub(super) struct Played {
    pub(super) seed: u64,
    pub(super) notes: Notes,
    pub(super) result: Result<(), String>,
    /// Whether it was played a second time.
    pub(super) twice: bool,
    /// What fails with less around it.
    pub(super) smaller: Option<Smaller>,
}

/// Plays all seeds of a job and hands each to `report` when it is done.
pub(super) fn play(job: &Job, mut report: impl FnMut(Played)) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = job.threads.unwrap_or(cores).max(1);
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let minimises = AtomicBool::new(job.minimises);
    let (sender, played) = mpsc::sync_channel(threads * 4);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, stop, minimises) = (sender.clone(), &next, &stop, &minimises);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed)
                    && job.time_max.is_none_or(|time_max| begun.elapsed() < time_max)
                {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = job.seeds.nth(n) else { return };
                    let mut played = play_one(job, seed, job.twice || n < TWICE_FIRST);
                    // One failure in full is enough to understand; it takes as long as many seeds.
                    if played.result.is_err() && minimises.swap(false, Ordering::Relaxed) {
                        let time = played.notes.faults_time;
                        played.smaller = minimise(job.scenario, seed, &job.limits, time);
                    }
                    if sender.send(played).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut failures = 0;
        for played in played {
            failures += u64::from(played.result.is_err());
            if failures >= FAILURES_MAX {
                stop.store(true, Ordering::Relaxed);
            }
            report(played);
        }
    });
}

fn play_one(job: &Job, seed: u64, twice: bool) -> Played {
    let (notes, mut result) = job.scenario.play(seed, &job.limits);
    let twice = twice || seed.is_multiple_of(TWICE_EVERY);
    if twice && result.is_ok() {
        let (again, _) = job.scenario.play(seed, &job.limits);
        if again.trace_hash != notes.trace_hash {
            result = Err(format!(
                "not deterministic: trace {:016x} and then {:016x}",
                notes.trace_hash, again.trace_hash
            ));
        }
    }
    Played { seed, notes, result, twice, smaller: None }
}
