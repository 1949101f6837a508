//! The UDP socket with QUIC on it.

use std::sync::Arc;

use crate::config::EndpointConfig;
use crate::counters::LiveCounters;
use crate::error::BindError;
use crate::garbage::{CountingIdGenerator, FilteredSocket};
use crate::tls::server_config;

/// Opens the socket; QUIC runs on the current tokio runtime from here on.
pub(crate) fn open_socket(
    config: &EndpointConfig,
    counters: &Arc<LiveCounters>,
) -> Result<quinn::Endpoint, BindError> {
    let runtime: Arc<dyn quinn::Runtime> = Arc::new(quinn::TokioRuntime);
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(BindError::NoRuntime);
    }
    let server =
        server_config(config).map_err(|source| BindError::Identity { name: config.name.clone(), source })?;
    let listen_error = |source| BindError::Listen { listen: config.listen, source };
    let socket = std::net::UdpSocket::bind(config.listen).map_err(listen_error)?;
    size_buffers(&socket, config.socket_buffer_bytes);
    let socket = runtime.wrap_udp_socket(socket).map_err(listen_error)?;
    let socket = Arc::new(FilteredSocket::new(socket, config.datagram_bytes_max, counters.clone()));
    let mut quic = quinn::EndpointConfig::new(Arc::new(derived_key(config, b"stateless reset")));
    let id_key = ring::hmac::sign(&derived_key(config, b"connection ids"), b"");
    let id_key = id_key.as_ref().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte));
    let id_counters = counters.clone();
    quic.cid_generator(move || Box::new(CountingIdGenerator::new(id_key, id_counters.clone())));
    quic.grease_quic_bit(false);
    quic.max_udp_payload_size(config.datagram_bytes_max)
        .map_err(|error| BindError::Setting { setting: "datagram_bytes_max", problem: error.to_string() })?;
    quinn::Endpoint::new_with_abstract_socket(quic, Some(server), socket, runtime).map_err(listen_error)
}

/// Asks for buffers of that size; the system grants what its own limit allows.
fn size_buffers(socket: &std::net::UdpSocket, bytes: usize) {
    let socket = socket2::SockRef::from(socket);
    for result in [socket.set_recv_buffer_size(bytes), socket.set_send_buffer_size(bytes)] {
        if let Err(error) = result {
            tracing::debug!(%error, bytes, "UDP socket buffer keeps its size");
        }
    }
}

/// A key that survives the process: derived from the node's private key, for one purpose.
fn derived_key(config: &EndpointConfig, purpose: &[u8]) -> ring::hmac::Key {
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, config.identity.key().secret_der());
    ring::hmac::Key::new(ring::hmac::HMAC_SHA256, ring::hmac::sign(&secret, purpose).as_ref())
}
