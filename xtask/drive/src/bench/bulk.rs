//! A gibibyte on the bulk lane, and what it does to small messages beside it.
//!
//! Small calls are sent at fixed times, whether or not the last one was answered, and are timed from when they were due:
//! what a stall delays is counted in full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use batched_comm::{Endpoint, Handler, Lane, NodeId, Reply, ServiceId};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::report::Row;
use super::transport::{LIMIT, Pair, SERVER, SERVICE, payload, run, start, times};
use super::{Arguments, BoxError};

const BULK_SERVICE: ServiceId = ServiceId(101);
const BULK_BYTES: usize = 1 << 30;
/// It goes in messages of this size. Larger ones are taken too, but to give 64 MiB back to the system takes whoever receives
/// them 5 to 10 ms, on the task that reads the lane if it does not go elsewhere.
const MESSAGE_BYTES: usize = 1 << 20;
/// Messages under way at one time.
const UNDER_WAY: usize = 8;
/// Between two small messages, on the two lanes in turn.
const PERIOD: Duration = Duration::from_micros(500);

/// Answers with nothing.
struct Swallow;

impl Handler for Swallow {
    fn on_cast(&self, _: NodeId, _: Bytes) {}

    fn on_call(&self, _: NodeId, _: Bytes, reply: Reply) {
        reply.send(Bytes::new());
    }
}

/// The p99 of small messages alone, beside a transfer at the default cap, and beside one without a cap.
pub(crate) fn scenario(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let pair = start()?;
    pair.server.register(BULK_SERVICE, Arc::new(Swallow));
    // Half before and half after, as the machine's speed drifts.
    let mut quiet = alone(&pair, arguments.seconds / 2.0)?;
    let capped = beside_bulk(&pair)?;
    quiet.add(alone(&pair, arguments.seconds / 2.0)?)?;
    pair.client.set_bulk_bytes_per_second_max(None)?;
    let uncapped = beside_bulk(&pair)?;
    let us = |times: &Histogram<u64>, share| times.value_at_quantile(share) as f64 / 1e3;
    let row = |name: &str, times: &Histogram<u64>, detail: String| {
        let detail = format!("p50 {:.0} us, p99.9 {:.0} us{detail}", us(times, 0.5), us(times, 0.999));
        Row::new(format!("batched-comm small calls {name}, p99"), us(times, 0.99), "us").detail(detail)
    };
    let rate = |seconds: f64| BULK_BYTES as f64 / seconds / f64::from(1 << 20);
    let bulk = |seconds, target| format!("; 1 GiB at {:.0} MiB/s; {target}", rate(seconds));
    let beside = row("beside 1 GiB at the default cap", &capped.0, bulk(capped.1, "at most 2 is the target"));
    let without = row("beside 1 GiB without a cap", &uncapped.0, bulk(uncapped.1, "below 1 is the target"));
    Ok(vec![
        row("alone", &quiet, String::new()),
        beside.against("alone", us(&quiet, 0.99)),
        without.against("target", 5_000.0),
    ])
}

/// Small messages for some time.
fn alone(pair: &Pair, seconds: f64) -> Result<Histogram<u64>, BoxError> {
    let small = Small::start(pair);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    small.end()
}

/// Small messages as long as a transfer takes, and its seconds.
fn beside_bulk(pair: &Pair) -> Result<(Histogram<u64>, f64), BoxError> {
    let content = Bytes::from(vec![7; MESSAGE_BYTES]);
    let small = Small::start(pair);
    let client = pair.client.clone();
    let seconds = run(&pair.clients, async move {
        let start = Instant::now();
        let calls = (0..BULK_BYTES / MESSAGE_BYTES)
            .map(|_| client.call(SERVER, Lane::Bulk, BULK_SERVICE, content.clone(), 6 * LIMIT));
        stream::iter(calls).buffered(UNDER_WAY).try_for_each(|_| async { Ok(()) }).await?;
        Ok(start.elapsed().as_secs_f64())
    })?;
    Ok((small.end()?, seconds))
}

/// Small messages under way: a thread with a clock of its own sends them, so that nothing that holds up a runtime holds up
/// the sending.
struct Small {
    is_over: Arc<AtomicBool>,
    times: Arc<Mutex<Histogram<u64>>>,
    sender: JoinHandle<Result<(), BoxError>>,
}

impl Small {
    fn start(pair: &Pair) -> Small {
        let (is_over, times) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(times())));
        let paced = Paced {
            client: pair.client.clone(),
            runtime: pair.clients.handle().clone(),
            is_over: Arc::clone(&is_over),
            times: Arc::clone(&times),
        };
        Small { is_over, times, sender: std::thread::spawn(move || paced.run()) }
    }

    /// Ends the sending; the times of all messages, those that were still under way included.
    fn end(self) -> Result<Histogram<u64>, BoxError> {
        self.is_over.store(true, Ordering::Relaxed);
        self.sender.join().map_err(|_| "the sender of small messages panicked")??;
        Ok(self.times.lock().clone())
    }
}

struct Paced {
    client: Endpoint,
    runtime: Handle,
    is_over: Arc<AtomicBool>,
    times: Arc<Mutex<Histogram<u64>>>,
}

impl Paced {
    fn run(&self) -> Result<(), BoxError> {
        let (start, payload, mut calls) = (Instant::now(), payload(1), Vec::new());
        for number in 0.. {
            let due = start + PERIOD * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let lane = [Lane::Control, Lane::Normal][number as usize % 2];
            let call = self.client.call(SERVER, lane, SERVICE, payload.clone(), LIMIT);
            let times = Arc::clone(&self.times);
            calls.push(self.runtime.spawn(async move {
                call.await?;
                times.lock().record(due.elapsed().as_nanos() as u64)?;
                Ok::<(), BoxError>(())
            }));
        }
        calls.into_iter().try_for_each(|call| self.runtime.block_on(call)?)
    }
}
