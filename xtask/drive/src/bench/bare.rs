//! Bare quinn, in its default configuration and without framing: what batched-comm is held against.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use batched_comm::CertificateAuthority;
use hdrhistogram::Histogram;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::BoxError;
use super::echo::{bare_client, bare_server};
use super::transport::{PAYLOAD_BYTES, times};

/// Serves echoes and sinks on a free port, on the current runtime.
pub(super) fn serve(authority: &CertificateAuthority) -> Result<SocketAddr, BoxError> {
    let node = authority.issue("server", 1, &[])?;
    let chain = vec![CertificateDer::from_pem_slice(node.cert_pem.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(node.key_pem.as_bytes())?;
    let endpoint = bare_server(chain, key)?;
    let address = endpoint.local_addr()?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else { continue };
            tokio::spawn(echo(connection.clone()));
            tokio::spawn(sink(connection));
        }
    });
    Ok(address)
}

async fn echo(connection: quinn::Connection) {
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

async fn sink(connection: quinn::Connection) {
    while let Ok(mut receive) = connection.accept_uni().await {
        tokio::spawn(async move { while let Ok(Some(_)) = receive.read_chunk(usize::MAX, true).await {} });
    }
}

/// A connection to there; whoever answers with a certificate of the authority is believed.
pub(super) async fn dial(
    authority: &CertificateAuthority,
    to: SocketAddr,
) -> Result<quinn::Connection, BoxError> {
    let endpoint = bare_client(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes())?)?;
    Ok(endpoint.connect(to, "server")?.await?)
}

/// Keeps `in_flight` messages under way: whatever comes back is sent again in one write.
pub(super) async fn round_trips(
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
pub(super) async fn one_way(connection: quinn::Connection, time: Duration) -> Result<f64, BoxError> {
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

/// The times of round trips, one after the other.
pub(super) async fn latencies(
    connection: quinn::Connection,
    time: Duration,
) -> Result<Histogram<u64>, BoxError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let (mut buffer, mut times, start) = ([1; PAYLOAD_BYTES], times(), Instant::now());
    while start.elapsed() < time {
        let sent = Instant::now();
        send.write_all(&buffer).await?;
        receive.read_exact(&mut buffer).await?;
        times.record(sent.elapsed().as_nanos() as u64)?;
    }
    send.finish()?;
    Ok(times)
}
