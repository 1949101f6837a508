//! batched-comm beside bare quinn: two endpoints on loopback, each on a runtime of one thread, in this process.
//!
//! Both sides of the comparison take turns in slices of one run, and the medians count: ratios survive a busy machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use batched_comm::{
    CertificateAuthority, Compression, Endpoint, EndpointConfig, Handler, Lane, LaneSettings, NodeId, Reply,
    ServiceId,
};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::runtime::Runtime;

use super::report::Row;
use super::{Arguments, BoxError, bare, usage};

pub(super) const PAYLOAD_BYTES: usize = 100;
pub(super) const SERVICE: ServiceId = ServiceId(100);
pub(super) const SERVER: NodeId = NodeId(2);
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// Different payloads of casts: more than a pack holds, so that none repeats inside one.
const PAYLOADS: u64 = 20_000;
/// How often bare and ours take turns.
const SLICES: u32 = 4;

/// Answers calls with their payload and lets casts go.
struct Echo;

impl Handler for Echo {
    fn on_cast(&self, _: NodeId, _: Bytes) {}

    fn on_call(&self, _: NodeId, payload: Bytes, reply: Reply) {
        reply.send(payload);
    }
}

/// Two endpoints and two bare connections' ends.
pub(super) struct Pair {
    pub(super) client: Endpoint,
    bare: quinn::Connection,
    pub(super) clients: Runtime,
    pub(super) server: Endpoint,
    _servers: Runtime,
}

/// Round trips, casts, bytes and CPU of batched-comm.
pub(crate) fn batched_comm(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let pair = start()?;
    let slice = Duration::from_secs_f64(arguments.seconds / f64::from(SLICES));
    let mut rows = latency(&pair, slice)?;
    for in_flight in [1, 64] {
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..SLICES {
            bare.push(run(&pair.clients, bare::round_trips(pair.bare.clone(), in_flight, slice))?);
            ours.push(run(&pair.clients, calls(pair.client.clone(), in_flight, slice))?);
        }
        let row = Row::new(format!("batched-comm calls, {in_flight} in flight"), median(&mut ours), "1/s");
        rows.push(row.against("bare quinn echo", median(&mut bare)));
    }
    let many = run(&pair.clients, calls(pair.client.clone(), 1024, slice))?;
    rows.push(Row::new("batched-comm calls, 1024 in flight", many, "1/s"));
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    let (mut cpu_seconds, mut casts) = (0.0, 0.0);
    for _ in 0..SLICES {
        bare.push(run(&pair.clients, bare::one_way(pair.bare.clone(), slice))?);
        let before = usage::of_this_process()?.cpu_seconds;
        let sent = run(&pair.clients, cast_for(pair.client.clone(), slice))?;
        cpu_seconds += usage::of_this_process()?.cpu_seconds - before;
        casts += sent.count;
        ours.push(sent.count / sent.seconds);
    }
    let row = Row::new("batched-comm casts of 100 bytes", median(&mut ours), "1/s");
    rows.push(row.against("bare stream, 64 KiB writes", median(&mut bare)));
    rows.push(Row::new("batched-comm CPU a cast, both sides", cpu_seconds / casts * 1e9, "ns"));
    for compression in [Compression::None, Compression::Lz4, Compression::Gzip, Compression::Zstd] {
        rows.push(compressed(&pair, compression, slice)?);
    }
    Ok(rows)
}

/// What a lone round trip takes longer than bare.
fn latency(pair: &Pair, slice: Duration) -> Result<Vec<Row>, BoxError> {
    let (mut bare, mut ours) = (times(), times());
    for _ in 0..SLICES {
        bare.add(run(&pair.clients, bare::latencies(pair.bare.clone(), slice))?)?;
        ours.add(run(&pair.clients, latencies(pair.client.clone(), slice))?)?;
    }
    let us = |times: &Histogram<u64>, share| times.value_at_quantile(share) as f64 / 1e3;
    let row = |share, name: &str| {
        let (bare, ours) = (us(&bare, share), us(&ours, share));
        let added = format!("{:.1} us added; at least 0.7 of its round trips is the target", ours - bare);
        let row = Row::new(format!("batched-comm call, 1 in flight, {name}"), ours, "us");
        row.against("bare quinn echo", bare).detail(added)
    };
    Ok(vec![row(0.5, "p50"), row(0.99, "p99")])
}

/// An empty record of times in nanoseconds.
pub(super) fn times() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are in range")
}

/// The times of calls, one after the other.
async fn latencies(client: Endpoint, time: Duration) -> Result<Histogram<u64>, BoxError> {
    let (mut times, payload, start) = (times(), payload(1), Instant::now());
    while start.elapsed() < time {
        let sent = Instant::now();
        client.call(SERVER, Lane::Normal, SERVICE, payload.clone(), LIMIT).await?;
        times.record(sent.elapsed().as_nanos() as u64)?;
    }
    Ok(times)
}

/// Bytes on the wire a message, of messages that look like those of agents.
fn compressed(pair: &Pair, compression: Compression, time: Duration) -> Result<Row, BoxError> {
    let settings = LaneSettings { compression, ..LaneSettings::of(Lane::Normal) };
    pair.client.set_lane_settings(Lane::Normal, settings)?;
    let (counted, used) = (pair.client.counters(), usage::of_this_process()?);
    let sent = run(&pair.clients, cast_for(pair.client.clone(), time))?;
    let (after, used_after) = (pair.client.counters(), usage::of_this_process()?);
    let bytes = (after.bytes_sent - counted.bytes_sent) as f64;
    let raw = (after.bytes_sent_raw - counted.bytes_sent_raw) as f64;
    let cpu = (used_after.cpu_seconds - used.cpu_seconds) / sent.count * 1e9;
    let row = Row::new(format!("batched-comm bytes a cast, {compression:?}"), bytes / sent.count, "bytes");
    let detail = format!("{:.0} casts/s, {cpu:.0} ns of CPU each, both sides", sent.count / sent.seconds);
    Ok(row.against("before compression", raw / sent.count).detail(detail))
}

/// A payload like a small command: fields that repeat around a key and a number that do not.
pub(super) fn payload(number: u64) -> Bytes {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut text = format!(
        "agent counter/{:08} adds {} at the request of client 4711",
        number % 100_000_000,
        number >> 32
    );
    text.extend(std::iter::repeat_n('.', PAYLOAD_BYTES.saturating_sub(text.len())));
    text.into()
}

pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn runtime() -> Result<Runtime, BoxError> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// Runs a load on the runtime's own thread: this one would be a second, and each message would wake the other.
pub(super) fn run<T: Send + 'static>(
    runtime: &Runtime,
    load: impl Future<Output = Result<T, BoxError>> + Send + 'static,
) -> Result<T, BoxError> {
    runtime.block_on(runtime.spawn(load))?
}

pub(super) fn start() -> Result<Pair, BoxError> {
    let authority = CertificateAuthority::new("bench");
    let (clients, servers) = (runtime()?, runtime()?);
    let config = |node, name: &str| {
        EndpointConfig::new(([127, 0, 0, 1], 0).into(), node, name, authority.identity(name))
    };
    let server = servers.block_on(Endpoint::bind(config(SERVER, "server")))?;
    server.register(SERVICE, Arc::new(Echo));
    let client = clients.block_on(Endpoint::bind(config(NodeId(1), "client")))?;
    client.set_address(SERVER, server.advertised());
    clients.block_on(async { client.call(SERVER, Lane::Normal, SERVICE, Bytes::new(), LIMIT).await })?;
    let address = servers.block_on(async { bare::serve(&authority) })?;
    let bare = clients.block_on(bare::dial(&authority, address))?;
    Ok(Pair { client, bare, clients, server, _servers: servers })
}

/// Calls per second.
async fn calls(client: Endpoint, in_flight: usize, time: Duration) -> Result<f64, BoxError> {
    // One look at the clock for all: bare quinn looks once a chunk, not once a message.
    let is_over = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let callers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, is_over) = (client.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let (payload, mut answered) = (payload(1), 0_u64);
                while !is_over.load(Ordering::Relaxed) {
                    client.call(SERVER, Lane::Normal, SERVICE, payload.clone(), LIMIT).await?;
                    answered += 1;
                }
                Ok::<u64, batched_comm::CallError>(answered)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    is_over.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for caller in callers {
        answered += caller.await??;
    }
    Ok(answered as f64 / start.elapsed().as_secs_f64())
}

/// What was cast and has arrived.
struct Sent {
    count: f64,
    seconds: f64,
}

/// Casts as fast as the queue takes them; a call at the end tells when all have arrived.
async fn cast_for(client: Endpoint, time: Duration) -> Result<Sent, BoxError> {
    let payloads: Vec<Bytes> = (0..PAYLOADS).map(payload).collect();
    let mut count = 0_u32;
    let start = Instant::now();
    for some in payloads.chunks(100).cycle() {
        if start.elapsed() >= time {
            break;
        }
        for payload in some {
            match client.cast(SERVER, Lane::Normal, SERVICE, payload.clone()) {
                Ok(()) => count += 1,
                Err(_) => tokio::time::sleep(Duration::from_micros(100)).await,
            }
        }
        tokio::task::yield_now().await;
    }
    while let Err(error) = client.call(SERVER, Lane::Normal, SERVICE, Bytes::new(), LIMIT).await {
        if !error.surely_not_delivered() {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(Sent { count: f64::from(count), seconds: start.elapsed().as_secs_f64() })
}
