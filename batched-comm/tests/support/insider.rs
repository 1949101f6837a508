//! A peer of its own making: it has a certificate of the CA and says what a test wants.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use batched_comm::CertificateAuthority;
use quinn::{Connection, ConnectionError};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;

use super::{LONG, authority, loopback};

/// The TLS side of a client with a certificate of `authority`, which trusts the CA `trusted`.
pub(crate) fn client_tls(
    authority: &CertificateAuthority,
    trusted: &CertificateAuthority,
    name: &str,
    protocol: &[u8],
) -> rustls::ClientConfig {
    let node = authority.issue(name, 1, &[]).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(node.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(node.key_pem.as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![protocol.to_vec()];
    tls
}

/// A QUIC client with a certificate of `authority`, which trusts the CA `trusted`.
pub(crate) async fn stranger(
    authority: &CertificateAuthority,
    trusted: &CertificateAuthority,
    name: &str,
    protocol: &[u8],
    to: SocketAddr,
) -> Result<(quinn::Endpoint, Connection), ConnectionError> {
    let tls = client_tls(authority, trusted, name, protocol);
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connection = endpoint.connect_with(config, to, "node-1").unwrap().await?;
    Ok((endpoint, connection))
}

/// A handshake message as the wire has it.
pub(crate) fn control_message(version: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"BCOM".to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u16).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The body of a `Hello` without cluster and address; ids below 128 are one byte.
pub(crate) fn hello(node: u8, name: &str) -> Vec<u8> {
    let mut body = vec![0, node, 77, 0, name.len() as u8];
    body.extend_from_slice(name.as_bytes());
    body.push(0);
    body
}

/// Ends with the code and the reason of the victim's close.
pub(crate) async fn closed(connection: &Connection) -> (u64, String) {
    match timeout(LONG, connection.closed()).await.expect("the connection is closed in time") {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("{other}"),
    }
}

/// A peer of version 2 that has passed the handshake as node 9.
pub(crate) struct Insider {
    pub(crate) connection: Connection,
    pub(crate) send: quinn::SendStream,
    receive: quinn::RecvStream,
    _endpoint: quinn::Endpoint,
}

impl Insider {
    /// Node 9, which shows `features`, one byte of them.
    pub(crate) async fn connect(to: SocketAddr, features: u8) -> Insider {
        Insider::connect_as(9, "", to, features).await
    }

    /// Claims to be node `id`, one byte of it, and to live at `advertised`.
    pub(crate) async fn connect_as(id: u8, advertised: &str, to: SocketAddr, features: u8) -> Insider {
        assert!(features < 128, "a varint of one byte");
        let dialled = stranger(authority(), authority(), "node-9", b"batched-comm/2", to).await;
        let (endpoint, connection) = dialled.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        let mut insider = Insider { connection, send, receive, _endpoint: endpoint };
        let mut greeting = hello(id, "node-9");
        greeting[0] = 4;
        *greeting.last_mut().unwrap() = advertised.len() as u8;
        greeting.extend_from_slice(advertised.as_bytes());
        greeting.push(features);
        insider.send.write_all(&control_message(2, &greeting)).await.unwrap();
        assert_eq!(insider.read().await[0], 5, "a welcome");
        insider.send.write_all(&control_message(2, &[2, 5, 0])).await.unwrap();
        insider.expect(&[3, 0]).await;
        insider
    }

    /// The body of the next control message.
    pub(crate) async fn read(&mut self) -> Vec<u8> {
        let mut prefix = [0; 8];
        timeout(LONG, self.receive.read_exact(&mut prefix)).await.unwrap().unwrap();
        assert_eq!(prefix[..6], *b"BCOM\x02\0");
        let mut body = vec![0; usize::from(u16::from_le_bytes([prefix[6], prefix[7]]))];
        self.receive.read_exact(&mut body).await.unwrap();
        body
    }

    pub(crate) async fn expect(&mut self, body: &[u8]) {
        assert_eq!(self.read().await, body);
    }

    /// What the victim wants to see on a lifeline.
    pub(crate) async fn lifeline_nonce(&mut self) -> Vec<u8> {
        let body = self.read().await;
        assert_eq!((body[0], body.len()), (6, 17));
        body[1..].to_vec()
    }

    pub(crate) async fn closed(&self) -> (u64, String) {
        closed(&self.connection).await
    }
}
