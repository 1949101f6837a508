//! The bare baseline: one byte string over one QUIC stream and back, with nothing of ours in between.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::BoxError;

/// What travels; about as large as a small command.
const PAYLOAD: [u8; 64] = [7; 64];
/// The name in every bench node's certificate besides its own.
const SERVER_NAME: &str = "127.0.0.1";

/// A bare quinn endpoint on a free port.
pub(super) fn bare_server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<quinn::Endpoint, BoxError> {
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    Ok(quinn::Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0)))?)
}

/// Serves echoes on a free port until the process ends.
pub(crate) fn serve(certificates: &Path, name: &str) -> Result<SocketAddr, BoxError> {
    let chain = vec![CertificateDer::from_pem_file(certificates.join(format!("{name}.pem")))?];
    let key = PrivateKeyDer::from_pem_file(certificates.join(format!("{name}.key")))?;
    let endpoint = bare_server(chain, key)?;
    let address = endpoint.local_addr()?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                if let Err(error) = echo(incoming).await {
                    eprintln!("echo: {error}");
                }
            });
        }
    });
    Ok(address)
}

async fn echo(incoming: quinn::Incoming) -> Result<(), BoxError> {
    let connection = incoming.await?;
    // Ends with the client.
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let mut payload = PAYLOAD;
        while receive.read_exact(&mut payload).await.is_ok() {
            send.write_all(&payload).await?;
        }
    }
    Ok(())
}

/// A bare quinn endpoint that dials, and believes whoever has a certificate of this authority.
pub(super) fn bare_client(authority: CertificateDer<'static>) -> Result<quinn::Endpoint, BoxError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority)?;
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)));
    Ok(endpoint)
}

/// The median round trip in us with one in flight.
pub(crate) async fn round_trip_p50_us(
    certificates: &Path,
    to: SocketAddr,
    time: Duration,
) -> Result<f64, BoxError> {
    let endpoint = bare_client(CertificateDer::from_pem_file(certificates.join("ca.pem"))?)?;
    let connection = endpoint.connect(to, SERVER_NAME)?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let mut times = Vec::new();
    let end = Instant::now() + time;
    let mut payload = PAYLOAD;
    while Instant::now() < end {
        let start = Instant::now();
        send.write_all(&PAYLOAD).await?;
        receive.read_exact(&mut payload).await?;
        times.push(start.elapsed());
    }
    connection.close(0u32.into(), b"done");
    times.sort_unstable();
    Ok(times.get(times.len() / 2).ok_or("no echo came back")?.as_secs_f64() * 1e6)
}
