//! What the clients were told, and how fast.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dist_agent::raft_kv::rafted_value::env::MonoTime;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Counts for each agent what was acknowledged and what may have happened, and times every command.
pub(crate) struct Tally {
    agents: Box<[Told]>,
    times: Mutex<Times>,
}

/// What the clients were told of one agent.
#[derive(Default)]
struct Told {
    acknowledged: AtomicU64,
    unknown: AtomicU64,
}

struct Times {
    start: MonoTime,
    end: MonoTime,
    /// Since the last line of progress.
    recent: Histogram<u64>,
    recent_start: MonoTime,
    all: Histogram<u64>,
    /// When a command last completed, of any client.
    last: MonoTime,
    /// The longest time in which no command completed at all.
    outage: Duration,
    outage_told: Duration,
    /// The worst single command.
    stall: Duration,
    unknown: u64,
    errors: u64,
}

/// The end of the comparison.
pub(crate) struct Verdict {
    /// Commands that were acknowledged and are not in the counters.
    pub(crate) lost: u64,
    /// Additions in the counters that no command accounts for.
    pub(crate) doubled: u64,
    /// The line to print.
    pub(crate) result: Value,
}

/// An outage shorter than this is not worth a line of its own.
const OUTAGE_TOLD_MIN: Duration = Duration::from_millis(100);

/// The longest latency that is told from longer ones: a minute.
const MICROS_MAX: u64 = 60_000_000;

impl Tally {
    /// A tally of `agents` counters that starts now.
    pub(crate) fn new(agents: usize, now: MonoTime) -> Self {
        // With bounds: without them it would not grow for values that are clamped, and show 2 ms for anything above.
        let histogram =
            || Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are far enough apart");
        let times = Times {
            start: now,
            end: now,
            recent: histogram(),
            recent_start: now,
            all: histogram(),
            last: now,
            outage: Duration::ZERO,
            outage_told: Duration::ZERO,
            stall: Duration::ZERO,
            unknown: 0,
            errors: 0,
        };
        Self { agents: (0..agents).map(|_| Told::default()).collect(), times: Mutex::new(times) }
    }

    /// A command that added one has its reply.
    pub(crate) fn acknowledged(&self, agent: usize, begin: MonoTime, now: MonoTime) {
        self.agents[agent].acknowledged.fetch_add(1, Ordering::Relaxed);
        let times = &mut *self.times.lock();
        let took = now.since(begin);
        times.recent.saturating_record(micros(took));
        times.all.saturating_record(micros(took));
        times.stall = times.stall.max(took);
        times.outage = times.outage.max(now.since(times.last));
        times.last = times.last.max(now);
    }

    /// A command may or may not have added one.
    pub(crate) fn unknown(&self, agent: usize) {
        self.agents[agent].unknown.fetch_add(1, Ordering::Relaxed);
        self.times.lock().unknown += 1;
    }

    /// A command surely changed nothing.
    pub(crate) fn not_applied(&self) {
        self.times.lock().errors += 1;
    }

    /// The clients have ended.
    pub(crate) fn finish(&self, now: MonoTime) {
        let times = &mut *self.times.lock();
        times.end = now;
        times.outage = times.outage.max(now.since(times.last));
    }

    /// The lines since the last progress.
    pub(crate) fn progress(&self, now: MonoTime) -> Vec<Value> {
        let times = &mut *self.times.lock();
        let mut lines = vec![json!({
            "event": "progress",
            "elapsed_ms": now.since(times.start).as_millis() as u64,
            "commands": times.all.len(),
            "per_second": rate(times.recent.len(), now.since(times.recent_start)),
            "p50_us": times.recent.value_at_quantile(0.5),
            "p99_us": times.recent.value_at_quantile(0.99),
            "errors": times.errors,
            "unknown": times.unknown,
        })];
        times.recent.reset();
        times.recent_start = now;
        if times.outage > times.outage_told.max(OUTAGE_TOLD_MIN) {
            times.outage_told = times.outage;
            lines.push(
                json!({ "event": "outage", "ms": millis(times.outage), "stall_ms": millis(times.stall) }),
            );
        }
        lines
    }

    /// Holds what came to every counter against what the clients were told:
    /// acknowledged <= after - before <= acknowledged + unknown.
    pub(crate) fn compare(&self, before: &[u64], after: &[u64]) -> Verdict {
        assert_eq!(
            (before.len(), after.len()),
            (self.agents.len(), self.agents.len()),
            "every counter is read twice"
        );
        let (mut acknowledged, mut lost, mut doubled) = (0, 0, 0);
        for ((told, &before), &after) in self.agents.iter().zip(before).zip(after) {
            // A counter that says less than it did has lost what it had, and all that was added.
            let gone = before.saturating_sub(after);
            let value = after.saturating_sub(before);
            lost += gone;
            let least = told.acknowledged.load(Ordering::Relaxed);
            let most = least + told.unknown.load(Ordering::Relaxed);
            acknowledged += least;
            lost += least.saturating_sub(value);
            doubled += value.saturating_sub(most);
        }
        let times = &*self.times.lock();
        let result = json!({
            "event": "result",
            "commands": times.all.len(),
            "per_second": rate(times.all.len(), times.end.since(times.start)),
            "p50_us": times.all.value_at_quantile(0.5),
            "p99_us": times.all.value_at_quantile(0.99),
            "acknowledged": acknowledged,
            "unknown": times.unknown,
            "errors": times.errors,
            "lost": lost,
            "doubled": doubled,
            "outage_ms": millis(times.outage),
            "stall_ms": millis(times.stall),
        });
        Verdict { lost, doubled, result }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn rate(count: u64, over: Duration) -> u64 {
    if over.is_zero() { 0 } else { (count as f64 / over.as_secs_f64()) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second run against the same cluster once took what the first had added for doubled.
    #[test]
    fn what_was_there_before_is_neither_lost_nor_doubled() {
        let tally = Tally::new(2, MonoTime::ZERO);
        (0..3).for_each(|_| tally.acknowledged(0, MonoTime::ZERO, MonoTime::ZERO));
        tally.unknown(0);
        let check = |before: [u64; 2], after: [u64; 2], lost: u64, doubled: u64| {
            let verdict = tally.compare(&before, &after);
            assert_eq!((verdict.lost, verdict.doubled), (lost, doubled), "{before:?} {after:?}");
        };
        check([0, 0], [3, 0], 0, 0);
        check([100, 7], [103, 7], 0, 0);
        check([100, 7], [104, 7], 0, 0);
        check([100, 7], [102, 7], 1, 0);
        check([100, 7], [105, 8], 0, 2);
        check([100, 7], [0, 7], 103, 0);
    }
}
