//! batched-comm beside bare quinn: two endpoints on loopback, each on a runtime of one thread, in this process.
//!
//! Both sides of the comparison take turns in slices of one run, and the medians count: ratios survive a busy machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use batched_comm::{
    CertificateAuthority, Compression, Endpoint, EndpointConfig, Handler, Lane, LaneSettings, NodeId, Reply,
    ServiceId,
};
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Runtime;

use super::report::Row;
use super::{Arguments, BoxError, usage};

const PAYLOAD_BYTES: usize = 100;
const SERVICE: ServiceId = ServiceId(100);
const SERVER: NodeId = NodeId(2);
const LIMIT: Duration = Duration::from_secs(10);
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
struct Pair {
    client: Endpoint,
    bare: quinn::Connection,
    clients: Runtime,
    _server: Endpoint,
    _servers: Runtime,
}

/// Round trips, casts, bytes and CPU of batched-comm.
pub(crate) fn batched_comm(arguments: &Arguments) -> Result<Vec<Row>, BoxError> {
    let pair = start()?;
    let slice = Duration::from_secs_f64(arguments.seconds / f64::from(SLICES));
    let mut rows = Vec::new();
    for in_flight in [1, 64] {
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..SLICES {
            bare.push(run(&pair.clients, bare_round_trips(pair.bare.clone(), in_flight, slice))?);
            ours.push(run(&pair.clients, calls(pair.client.clone(), in_flight, slice))?);
        }
        let row = Row::new(format!("batched-comm calls, {in_flight} in flight"), median(&mut ours), "1/s");
        rows.push(row.against("bare quinn echo", median(&mut bare)));
    }
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    let (mut cpu_seconds, mut casts) = (0.0, 0.0);
    for _ in 0..SLICES {
        bare.push(run(&pair.clients, bare_one_way(pair.bare.clone(), slice))?);
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
fn payload(number: u64) -> Bytes {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut text = format!(
        "agent counter/{:08} adds {} at the request of client 4711",
        number % 100_000_000,
        number >> 32
    );
    text.extend(std::iter::repeat_n('.', PAYLOAD_BYTES.saturating_sub(text.len())));
    text.into()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn runtime() -> Result<Runtime, BoxError> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// Runs a load on the runtime's own thread: this one would be a second, and each message would wake the other.
fn run<T: Send + 'static>(
    runtime: &Runtime,
    load: impl Future<Output = Result<T, BoxError>> + Send + 'static,
) -> Result<T, BoxError> {
    runtime.block_on(runtime.spawn(load))?
}

fn start() -> Result<Pair, BoxError> {
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
    let address = servers.block_on(async { serve_bare(&authority) })?;
    let bare = clients.block_on(dial_bare(&authority, address))?;
    Ok(Pair { client, bare, clients, _server: server, _servers: servers })
}

/// Calls per second.
async fn calls(client: Endpoint, in_flight: usize, time: Duration) -> Result<f64, BoxError> {
    let answered = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let callers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, answered) = (client.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                let payload = payload(1);
                while start.elapsed() < time {
                    client.call(SERVER, Lane::Normal, SERVICE, payload.clone(), LIMIT).await?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), batched_comm::CallError>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok(answered.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
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

fn serve_bare(authority: &CertificateAuthority) -> Result<SocketAddr, BoxError> {
    let node = authority.issue("server", 1, &[])?;
    let chain = vec![CertificateDer::from_pem_slice(node.cert_pem.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(node.key_pem.as_bytes())?;
    let endpoint = super::echo::bare_server(chain, key)?;
    let address = endpoint.local_addr()?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else { continue };
            tokio::spawn(bare_echo(connection.clone()));
            tokio::spawn(bare_sink(connection));
        }
    });
    Ok(address)
}

async fn bare_echo(connection: quinn::Connection) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        tokio::spawn(async move {
            while let Ok(Some(chunk)) = receive.read_chunk(usize::MAX, true).await {
                if send.write_chunk(chunk.bytes).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn bare_sink(connection: quinn::Connection) {
    while let Ok(mut receive) = connection.accept_uni().await {
        tokio::spawn(async move { while let Ok(Some(_)) = receive.read_chunk(usize::MAX, true).await {} });
    }
}

async fn dial_bare(authority: &CertificateAuthority, to: SocketAddr) -> Result<quinn::Connection, BoxError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes())?)?;
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)));
    Ok(endpoint.connect(to, "server")?.await?)
}

/// Keeps `in_flight` messages under way: whatever comes back is sent again in one write.
async fn bare_round_trips(
    connection: quinn::Connection,
    in_flight: usize,
    time: Duration,
) -> Result<f64, BoxError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let messages = vec![1; PAYLOAD_BYTES * in_flight];
    send.write_all(&messages).await?;
    let (mut bytes, mut owed) = (0, 0);
    let start = Instant::now();
    while start.elapsed() < time {
        let chunk = receive.read_chunk(usize::MAX, true).await?.ok_or("the echo has ended")?;
        bytes += chunk.bytes.len();
        owed += chunk.bytes.len();
        let whole = owed / PAYLOAD_BYTES * PAYLOAD_BYTES;
        send.write_all(&messages[..whole]).await?;
        owed -= whole;
    }
    let rate = (bytes / PAYLOAD_BYTES) as f64 / start.elapsed().as_secs_f64();
    send.finish()?;
    Ok(rate)
}

/// Messages per second of one stream in writes of 64 KiB.
async fn bare_one_way(connection: quinn::Connection, time: Duration) -> Result<f64, BoxError> {
    let mut send = connection.open_uni().await?;
    let buffer = vec![1; 64 << 10];
    let mut bytes = 0;
    let start = Instant::now();
    while start.elapsed() < time {
        send.write_all(&buffer).await?;
        bytes += buffer.len();
    }
    send.finish()?;
    send.stopped().await?;
    Ok((bytes / PAYLOAD_BYTES) as f64 / start.elapsed().as_secs_f64())
}
