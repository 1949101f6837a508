//! Measures the endpoint beside bare quinn, between two processes on loopback, and prints JSON lines.
//!
//! ```text
//! cargo run --release -p batched-comm --example echo_bench [-- SECONDS [WORKERS]]
//! ```
//!
//! WORKERS is the number of tokio's threads in each of the two processes (default 2). The program starts itself
//! again as the server. Each figure of the endpoint is followed by its ratio to the
//! bare one of the same run; ratios are what counts, absolutes depend on the machine.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures real time and reports on standard output"
)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use batched_comm::{
    CertificateAuthority, Endpoint, EndpointConfig, Handler, Identity, Lane, NodeId, Reply, ServiceId,
};
use bytes::Bytes;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const PAYLOAD_BYTES: usize = 100;
const ECHO: ServiceId = ServiceId(1);
const SERVER: NodeId = NodeId(2);
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let is_server = arguments.get(1).map(String::as_str) == Some("serve");
    let workers =
        arguments.get(if is_server { 3 } else { 2 }).and_then(|text| text.parse().ok()).unwrap_or(2);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap();
    if is_server {
        runtime.block_on(async { tokio::spawn(serve(arguments[2].clone())).await.unwrap() });
        return;
    }
    let seconds = arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let directory = std::env::temp_dir().join(format!("batched-comm-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let authority = CertificateAuthority::new("bench");
    authority.save(&directory).unwrap();
    let server = Server::start(directory.to_str().unwrap(), workers);
    let duration = Duration::from_secs_f64(seconds);
    let task = measure_all(authority, server.bare, server.endpoint, duration);
    runtime.block_on(async { tokio::spawn(task).await.unwrap() });
    drop(server);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The other process.
struct Server {
    child: Child,
    bare: SocketAddr,
    endpoint: SocketAddr,
}

impl Server {
    fn start(directory: &str, workers: usize) -> Server {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .args(["serve", directory, &workers.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = || lines.next().unwrap().unwrap().parse().unwrap();
        Server { bare: address(), endpoint: address(), child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line of the report.
fn report(what: &str, unit: &str, value: f64, bare: Option<f64>) {
    let ratio = bare.map_or(String::new(), |bare| format!(",\"ratio_to_bare\":{:.3}", value / bare));
    println!("{{\"bench\":\"{what}\",\"unit\":\"{unit}\",\"value\":{value:.1}{ratio}}}");
}

/// Bare and endpoint take turns in slices, so that a busy moment of the machine hits both; medians count.
const SLICES: u32 = 8;

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn measure_all(
    authority: CertificateAuthority,
    bare: SocketAddr,
    endpoint: SocketAddr,
    duration: Duration,
) {
    let slice = duration / SLICES;
    let connection = bare_client(&authority, bare).await;
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = EndpointConfig::new(listen, NodeId(1), "client", authority.identity("client"));
    let client = Endpoint::bind(config).await.unwrap();
    client.set_address(SERVER, &endpoint.to_string());
    client.call(SERVER, Lane::Normal, ECHO, Bytes::new(), TIMEOUT).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..SLICES {
        theirs.push(bare_round_trip_p50(&connection, slice).await);
        ours.push(call_round_trip_p50(&client, slice).await);
    }
    report_pair(("bare_quinn_echo_p50", &mut theirs), ("call_p50", &mut ours), "us");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..SLICES {
        theirs.push(bare_round_trips(&connection, 64, slice).await);
        ours.push(calls(&client, 64, slice).await);
    }
    report_pair(
        ("bare_quinn_echo_64_in_flight", &mut theirs),
        ("calls_64_in_flight", &mut ours),
        "round_trips/s",
    );
    for in_flight in [256, 1024] {
        let rate = calls(&client, in_flight, duration).await;
        report(&format!("calls_{in_flight}_in_flight"), "round_trips/s", rate, None);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let before = client.counters();
    for _ in 0..SLICES {
        theirs.push(bare_one_way(&connection, slice).await / PAYLOAD_BYTES as f64);
        ours.push(casts(&client, slice).await);
    }
    report_pair(("bare_quinn_one_way_64_KiB_writes", &mut theirs), ("casts", &mut ours), "100_bytes/s");
    let after = client.counters();
    let messages = after.messages_sent - before.messages_sent;
    report(
        "casts_per_batch",
        "casts",
        messages as f64 / (after.batches_sent - before.batches_sent) as f64,
        None,
    );
}

fn report_pair(bare: (&str, &mut [f64]), ours: (&str, &mut [f64]), unit: &str) {
    let (bare_value, value) = (median(bare.1), median(ours.1));
    report(bare.0, unit, bare_value, None);
    report(ours.0, unit, value, Some(bare_value));
}

async fn call_round_trip_p50(client: &Endpoint, duration: Duration) -> f64 {
    let payload = Bytes::from(vec![1; PAYLOAD_BYTES]);
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < duration {
        let sent = Instant::now();
        client.call(SERVER, Lane::Normal, ECHO, payload.clone(), TIMEOUT).await.unwrap();
        times.push(sent.elapsed());
    }
    p50(times)
}

async fn calls(client: &Endpoint, in_flight: usize, duration: Duration) -> f64 {
    let answered = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let callers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, answered) = (client.clone(), answered.clone());
            tokio::spawn(async move {
                let payload = Bytes::from(vec![1; PAYLOAD_BYTES]);
                while start.elapsed() < duration {
                    client.call(SERVER, Lane::Normal, ECHO, payload.clone(), TIMEOUT).await.unwrap();
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    answered.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

/// Casts as fast as the queue takes them; a final call tells when all have arrived.
async fn casts(client: &Endpoint, duration: Duration) -> f64 {
    let payload = Bytes::from(vec![1; PAYLOAD_BYTES]);
    let mut count = 0u64;
    let start = Instant::now();
    while start.elapsed() < duration {
        for _ in 0..100 {
            match client.cast(SERVER, Lane::Normal, ECHO, payload.clone()) {
                Ok(()) => count += 1,
                Err(_) => tokio::time::sleep(Duration::from_micros(100)).await,
            }
        }
        tokio::task::yield_now().await;
    }
    while client.call(SERVER, Lane::Normal, ECHO, Bytes::new(), TIMEOUT).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    count as f64 / start.elapsed().as_secs_f64()
}

fn p50(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

// Bare quinn: its default configuration, one bidirectional stream, no framing.

async fn bare_client(authority: &CertificateAuthority, address: SocketAddr) -> quinn::Connection {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    client.connect_with(config, address, "server").unwrap().await.unwrap()
}

async fn bare_round_trip_p50(connection: &quinn::Connection, duration: Duration) -> f64 {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let mut buffer = [1; PAYLOAD_BYTES];
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < duration {
        let sent = Instant::now();
        send.write_all(&buffer).await.unwrap();
        receive.read_exact(&mut buffer).await.unwrap();
        times.push(sent.elapsed());
    }
    p50(times)
}

/// Keeps `in_flight` messages under way: whatever comes back is sent again in one write.
async fn bare_round_trips(connection: &quinn::Connection, in_flight: usize, duration: Duration) -> f64 {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let message = vec![1; PAYLOAD_BYTES * in_flight];
    send.write_all(&message).await.unwrap();
    let (mut bytes, mut owed) = (0u64, 0);
    let start = Instant::now();
    while start.elapsed() < duration {
        let chunk = receive.read_chunk(usize::MAX, true).await.unwrap().unwrap();
        bytes += chunk.bytes.len() as u64;
        owed += chunk.bytes.len();
        let whole = owed / PAYLOAD_BYTES * PAYLOAD_BYTES;
        if whole > 0 {
            send.write_all(&message[..whole]).await.unwrap();
            owed -= whole;
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let _ = send.finish();
    bytes as f64 / PAYLOAD_BYTES as f64 / elapsed
}

async fn bare_one_way(connection: &quinn::Connection, duration: Duration) -> f64 {
    let mut send = connection.open_uni().await.unwrap();
    let buffer = vec![1; 64 << 10];
    let mut bytes = 0u64;
    let start = Instant::now();
    while start.elapsed() < duration {
        send.write_all(&buffer).await.unwrap();
        bytes += buffer.len() as u64;
    }
    send.finish().unwrap();
    let _ = send.stopped().await;
    bytes as f64 / start.elapsed().as_secs_f64()
}

// The server's side.

struct Echo;

impl Handler for Echo {
    fn on_cast(&self, _from: NodeId, _payload: Bytes) {}

    fn on_call(&self, _from: NodeId, payload: Bytes, reply: Reply) {
        reply.send(payload);
    }
}

async fn serve(directory: String) {
    let path = |name: &str| format!("{directory}/{name}");
    let authority = CertificateAuthority::from_files(path("ca.pem"), path("ca.key")).unwrap();
    let node = authority.issue("server", 1, &[]).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(node.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(node.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let bare = quinn::Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), listen).unwrap();
    println!("{}", bare.local_addr().unwrap());
    let identity = Identity::from_pem(authority.ca_pem(), &node.cert_pem, &node.key_pem).unwrap();
    let endpoint = Endpoint::bind(EndpointConfig::new(listen, SERVER, "server", identity)).await.unwrap();
    endpoint.register(ECHO, Arc::new(Echo));
    println!("{}", endpoint.local_addr());
    while let Some(incoming) = bare.accept().await {
        let connection = incoming.await.unwrap();
        tokio::spawn(bare_echo(connection.clone()));
        tokio::spawn(bare_sink(connection));
    }
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
