//! Token buckets beside keyed governor, whose decision they share: what the rate at each call costs.
//!
//! Both take turns on the same keys, in rounds of a few milliseconds: most of them then end before the scheduler gives
//! the core to another program, and the medians are those of a core of its own.

use std::num::NonZeroU32;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use foretoken::{Config, Foretoken, ManualClock, MonotonicClock, Rate, Take};
use futures_util::future::{join_all, poll_immediate};
use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use super::report::Row;
use super::usage::of_this_process;
use super::{Arguments, BoxError};

type Governor = RateLimiter<u64, DashMapStateStore<u64>, DefaultClock>;

/// Rounds of each side; the median is told.
const ROUNDS: usize = 601;
/// Lines of a thousand that are served.
const LINES: usize = 9;
/// Takes between two looks at the time.
const CHUNK: usize = 1_000;
/// Keys from one turn's start to the next one's.
const STRIDE: usize = 30_011;
/// The buckets of the large case and of the measurement of memory.
const MANY: u64 = 100_000;
const VERY_MANY: u64 = 1_000_000;
/// Callers in one line.
const WAITERS: usize = 1_000;

/// Every figure of the crate.
pub(crate) fn scenario(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let mut rows = Vec::new();
    let round = Duration::from_secs_f64(arguments.seconds / (2 * ROUNDS) as f64);
    for buckets in [1, MANY] {
        for threads in [1, 2] {
            rows.push(takes(buckets, threads, round)?);
        }
    }
    rows.push(waiting_for_nothing(round)?);
    rows.push(served_in_line()?);
    rows.push(paced(arguments.seconds)?);
    // Last, as it leaves the heap in pieces.
    rows.push(memory()?);
    Ok(rows)
}

/// A rate and a capacity that never run out during a run.
fn plenty() -> Result<Take, BoxError> {
    Ok(Take::new(Rate::per_second(1_000_000_000)?, u32::MAX))
}

fn governor_of_plenty() -> Result<Governor, BoxError> {
    let quota = Quota::with_period(Duration::from_nanos(1)).ok_or("a nanosecond is above zero")?;
    Ok(RateLimiter::keyed(quota.allow_burst(NonZeroU32::MAX)))
}

fn takes(buckets: u64, threads: usize, round: Duration) -> Result<Row, BoxError> {
    let (take, keys) = (plenty()?, shuffled(buckets));
    let (ours, theirs) = (Foretoken::new(), governor_of_plenty()?);
    let take_ours = |key: &u64| ours.take_with(key, take).is_ok();
    let take_theirs = |key: &u64| theirs.check_key(key).is_ok();
    for key in &keys {
        if !(take_ours(key) && take_theirs(key)) {
            return Err("a new bucket was not full".into());
        }
    }
    let (mut per_second_ours, mut per_second_theirs) = (Vec::new(), Vec::new());
    for turn in 0..ROUNDS {
        per_second_ours.push(per_second(&keys, turn, threads, round, take_ours)?);
        per_second_theirs.push(per_second(&keys, turn, threads, round, take_theirs)?);
    }
    let (ours, theirs) = (Spread::of(per_second_ours), Spread::of(per_second_theirs));
    let s = |count: usize| if count == 1 { "" } else { "s" };
    let name =
        format!("takes, {buckets} bucket{}, {threads} thread{}", s(usize::try_from(buckets)?), s(threads));
    let detail = format!("at least 0.7 is the target; ours {}, governor {}", ours.range(), theirs.range());
    Ok(Row::new(name, ours.median, "1/s").against("keyed governor", theirs.median).detail(detail))
}

/// How often `take` is granted in a second, by `threads` threads together.
fn per_second(
    keys: &[u64],
    turn: usize,
    threads: usize,
    round: Duration,
    take: impl Fn(&u64) -> bool + Sync,
) -> Result<f64, BoxError> {
    let barrier = Barrier::new(threads);
    let run = |thread: usize| {
        // Each thread walks the keys from a place of its own, and not from where it was in the turn before.
        let from = (thread * keys.len() / threads + turn * STRIDE) % keys.len();
        let (before, after) = keys.split_at(from);
        let mut keys = after.iter().chain(before).cycle();
        barrier.wait();
        let start = Instant::now();
        let (mut granted, mut asked) = (0_usize, 0_usize);
        while start.elapsed() < round {
            granted += keys.by_ref().take(CHUNK).filter(|key| take(key)).count();
            asked += CHUNK;
        }
        (granted == asked).then(|| granted as f64 / start.elapsed().as_secs_f64())
    };
    let rates: Vec<Option<f64>> = std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or(None)).collect()
    });
    let rates: Option<Vec<f64>> = rates.into_iter().collect();
    Ok(rates.ok_or("a take was refused, or its thread panicked")?.iter().sum())
}

/// Resident bytes of a bucket, with keys of eight bytes.
fn memory() -> Result<Row, BoxError> {
    let take = plenty()?;
    let start = of_this_process()?.resident_bytes;
    let ours = Foretoken::new();
    let granted = (0..VERY_MANY).filter(|key| ours.take_with(key, take).is_ok()).count();
    let between = of_this_process()?.resident_bytes;
    let theirs = governor_of_plenty()?;
    let granted_too = (0..VERY_MANY).filter(|key| theirs.check_key(key).is_ok()).count();
    let end = of_this_process()?.resident_bytes;
    if (granted, granted_too) != (VERY_MANY as usize, VERY_MANY as usize) || ours.len() != granted {
        return Err("not every bucket was made".into());
    }
    let per_bucket = |from: u64, to: u64| to.saturating_sub(from) as f64 / VERY_MANY as f64;
    let row = Row::new(format!("memory a bucket, {VERY_MANY} buckets"), per_bucket(start, between), "bytes");
    let detail = "resident, 8 bytes of key included; ours keeps rate and capacity too".to_owned();
    Ok(row.against("keyed governor", per_bucket(between, end)).detail(detail))
}

/// `take_or_wait` where nobody has to wait, against `take`.
fn waiting_for_nothing(round: Duration) -> Result<Row, BoxError> {
    let (take, keys) = (plenty()?, shuffled(MANY));
    let buckets = Foretoken::new();
    let (mut waiting, mut plain) = (Vec::new(), Vec::new());
    let take_or_wait = |key: &u64| {
        let answer = std::pin::pin!(poll_immediate(buckets.take_or_wait(key, take)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        matches!(std::future::Future::poll(answer, &mut context), std::task::Poll::Ready(Some(Ok(()))))
    };
    for turn in 0..ROUNDS {
        waiting.push(per_second(&keys, turn, 1, round, take_or_wait)?);
        plain.push(per_second(&keys, turn, 1, round, |key| buckets.take_with(key, take).is_ok())?);
    }
    let (waiting, plain) = (Spread::of(waiting), Spread::of(plain));
    let row = Row::new("take_or_wait, tokens at hand, 1 thread", waiting.median, "1/s");
    Ok(row.against("take", plain.median).detail(waiting.range()))
}

/// What one caller costs that joins a line of a thousand, is woken, takes and leaves; no clock in between.
fn served_in_line() -> Result<Row, BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let every_ms = Take::new(Rate::one_per(Duration::from_millis(1))?, u32::MAX);
    let mut nanos = Vec::new();
    for _ in 0..LINES {
        let clock = ManualClock::new();
        let buckets: Foretoken<u64> =
            Foretoken::with(&Config::default(), Arc::new(clock.clone()), Default::default());
        buckets.take_with(&1, every_ms.tokens(u32::MAX))?;
        let start = Instant::now();
        let served = runtime.block_on(async {
            let waiters = join_all((0..WAITERS).map(|_| buckets.take_or_wait(&1, every_ms)));
            let mover = async {
                tokio::task::yield_now().await;
                clock.advance(Duration::from_millis(WAITERS as u64));
            };
            futures_util::future::join(waiters, mover).await.0
        });
        nanos.push(start.elapsed().as_nanos() as f64 / WAITERS as f64);
        if !served.iter().all(Result::is_ok) {
            return Err("a waiting caller was refused".into());
        }
    }
    let nanos = Spread::of(nanos);
    Ok(Row::new(format!("a caller in a line of {WAITERS}"), nanos.median, "ns").detail(nanos.range()))
}

/// How near to its rate a bucket serves a line on the machine's own clock.
fn paced(seconds: f64) -> Result<Row, BoxError> {
    const RATE: u32 = 10_000;
    const CALLERS: usize = 64;
    /// Ten milliseconds of the rate: a timer that is later than that wastes tokens.
    const CAPACITY: u32 = 100;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let clock = Arc::new(MonotonicClock::new());
    let buckets: Arc<Foretoken<u64>> =
        Arc::new(Foretoken::with(&Config::default(), clock, Default::default()));
    let take = Take::new(Rate::per_second(RATE)?, CAPACITY);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let before = of_this_process()?.cpu_seconds;
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let buckets = Arc::clone(&buckets);
            runtime.spawn(async move {
                let mut taken = 0_u64;
                while Instant::now() < end && buckets.take_or_wait(&1, take).await.is_ok() {
                    taken += 1;
                }
                taken
            })
        })
        .collect();
    let mut taken = 0;
    for caller in callers {
        taken += runtime.block_on(caller)?;
    }
    let cores = (of_this_process()?.cpu_seconds - before) / seconds;
    let row =
        Row::new(format!("served by the clock, {CALLERS} callers in line"), taken as f64 / seconds, "1/s");
    Ok(row.against("rate", f64::from(RATE)).detail(format!("capacity {CAPACITY}; {cores:.2} cores")))
}

/// The keys below `count` in an order without pattern, the same in every run.
fn shuffled(count: u64) -> Vec<u64> {
    let mut keys: Vec<u64> = (0..count).collect();
    // SplitMix64 (Steele, Lea, Flood 2014) as the order.
    keys.sort_by_key(|key| {
        let mixed =
            (key.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ (key << 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
    });
    keys
}

/// Figures of several rounds: the median and the quartiles.
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Spread {
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        Spread { median: at(figures.len() / 2), low: at(figures.len() / 4), high: at(figures.len() * 3 / 4) }
    }

    fn range(&self) -> String {
        format!("{} to {}", super::report::number(self.low), super::report::number(self.high))
    }
}
