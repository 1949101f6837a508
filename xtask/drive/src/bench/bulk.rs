//! A gibibyte on the bulk lane, and what it does to small messages beside it.
//!
//! Small calls are sent at fixed times, whether or not the last one was answered, and are timed from when they were due:
//! what a stall delays is counted in full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use batched_comm::{Endpoint, Handler, Lane, NodeId, Reply, ServiceId};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::report::Row;
use super::transport::{LIMIT, Pair, SERVER, SERVICE, payload, run, start, times};
use super::{Arguments, BoxError};

const BULK_SERVICE: ServiceId = ServiceId(101);
const BULK_BYTES: usize = 1 << 30;
/// The largest message that the bulk lane takes by default.
const MESSAGE_BYTES: usize = 64 << 20;
/// Between two small messages on a lane.
const PERIOD: Duration = Duration::from_millis(1);

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
    let alone = [alone(&pair, arguments.seconds)?, beside_bulk(&pair)?, alone(&pair, arguments.seconds)?];
    let [before, capped, after] = alone;
    let mut quiet = before.0;
    quiet.add(after.0)?;
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
fn alone(pair: &Pair, seconds: f64) -> Result<(Histogram<u64>, f64), BoxError> {
    let client = pair.client.clone();
    let times = run(&pair.clients, async move {
        let end = watch::Sender::new(false);
        let small = small_messages(&client, &end);
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        end.send_replace(true);
        small.times().await
    })?;
    Ok((times, seconds))
}

/// Small messages as long as a transfer takes, and its seconds.
fn beside_bulk(pair: &Pair) -> Result<(Histogram<u64>, f64), BoxError> {
    let client = pair.client.clone();
    run(&pair.clients, async move {
        let end = watch::Sender::new(false);
        let small = small_messages(&client, &end);
        let (content, start) = (Bytes::from(vec![7; MESSAGE_BYTES]), Instant::now());
        for _ in 0..BULK_BYTES / MESSAGE_BYTES {
            client.call(SERVER, Lane::Bulk, BULK_SERVICE, content.clone(), 6 * LIMIT).await?;
        }
        let seconds = start.elapsed().as_secs_f64();
        end.send_replace(true);
        Ok((small.times().await?, seconds))
    })
}

/// Callers under way.
struct Small(Vec<tokio::task::JoinHandle<Result<Histogram<u64>, BoxError>>>);

impl Small {
    async fn times(self) -> Result<Histogram<u64>, BoxError> {
        let mut all = times();
        for caller in self.0 {
            all.add(caller.await??)?;
        }
        Ok(all)
    }
}

/// A caller a lane, until told to end.
fn small_messages(client: &Endpoint, end: &watch::Sender<bool>) -> Small {
    let callers =
        [Lane::Control, Lane::Normal].map(|lane| tokio::spawn(paced(client.clone(), lane, end.subscribe())));
    Small(callers.into())
}

async fn paced(
    client: Endpoint,
    lane: Lane,
    mut end: watch::Receiver<bool>,
) -> Result<Histogram<u64>, BoxError> {
    let (mut times, payload) = (times(), payload(1));
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            due = ticks.tick() => {
                let call = client.call(SERVER, lane, SERVICE, payload.clone(), LIMIT);
                under_way.spawn(async move { call.await.map(|_| due.elapsed()) });
            }
            Some(answered) = under_way.join_next() => times.record(answered??.as_nanos() as u64)?,
            _ = end.changed() => break,
        }
    }
    while let Some(answered) = under_way.join_next().await {
        times.record(answered??.as_nanos() as u64)?;
    }
    Ok(times)
}
