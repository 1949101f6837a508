//! TLS 1.3 with certificates on both sides, all checked against the cluster's CA.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::config::EndpointConfig;
use crate::hello::WireVersion;
use crate::identity::{Identity, IdentityError};

/// The name asked for in TLS: peers are known by CA and node name, not by where they live.
pub(crate) const SERVER_NAME: &str = "batched-comm";

/// The QUIC configuration of the accepting side.
pub(crate) fn server_config(
    config: &EndpointConfig,
    identity: &Identity,
) -> Result<quinn::ServerConfig, IdentityError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(identity.roots().clone(), provider.clone())
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain().to_vec(), identity.key().clone_key())
        .map_err(|error| unusable(error.to_string()))?;
    tls.alpn_protocols = protocols();
    // No resumption and no 0-RTT: every connection proves its certificate, and nothing can be replayed.
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| unusable(error.to_string()))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(transport_config(config));
    server.migration(config.migration);
    server.max_incoming(config.handshakes_max);
    Ok(server)
}

/// The QUIC configuration of the dialling side.
pub(crate) fn client_config(
    config: &EndpointConfig,
    identity: &Identity,
) -> Result<quinn::ClientConfig, IdentityError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = AuthorityVerifier { roots: identity.roots().clone(), provider: provider.clone() };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.chain().to_vec(), identity.key().clone_key())
        .map_err(|error| unusable(error.to_string()))?;
    tls.alpn_protocols = protocols();
    tls.resumption = rustls::client::Resumption::disabled();
    tls.enable_early_data = false;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| unusable(error.to_string()))?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(transport_config(config));
    Ok(client)
}

/// The names of the wire versions, the best one first: the accepting side takes the first that both know.
fn protocols() -> Vec<Vec<u8>> {
    WireVersion::ALL.map(|version| version.alpn().to_vec()).into()
}

fn unusable(detail: String) -> IdentityError {
    IdentityError::Certificate { origin: "node certificate".to_owned(), detail }
}

/// How QUIC itself behaves: tuned for few, busy connections inside a data centre.
fn transport_config(config: &EndpointConfig) -> Arc<TransportConfig> {
    let idle_millis = u32::try_from(config.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(config.datagram_bytes_max);
    let connection_window = config.connection_window_bytes();
    let mut transport = TransportConfig::default();
    transport
        // The handshake's stream, and one stream a lane.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(3))
        .stream_receive_window(VarInt::from_u32(config.lane_window_bytes))
        .receive_window(VarInt::from_u32(connection_window))
        .send_window(u64::from(connection_window))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_millis))))
        .keep_alive_interval(Some(config.keep_alive_interval))
        .initial_rtt(Duration::from_millis(50))
        .mtu_discovery_config(Some(mtu));
    Arc::new(transport)
}

/// Checks the accepting side's certificate against the CA alone; its name is compared in the handshake.
#[derive(Debug)]
struct AuthorityVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AuthorityVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
