//! The UDP socket with QUIC on it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::config::EndpointConfig;
use crate::counters::LiveCounters;
use crate::error::BindError;
use crate::garbage::{CountingIdGenerator, FilteredSocket};
use crate::tls::server_config;

/// A free port must be free for both protocols: so many are tried.
const FREE_PORTS_TRIED: usize = 16;

/// Opens the sockets; QUIC runs on the current tokio runtime from here on. The TCP socket of the same port is for
/// lifelines, and absent where it cannot be had.
pub(crate) fn open_socket(
    config: &EndpointConfig,
    counters: &Arc<LiveCounters>,
) -> Result<(quinn::Endpoint, Option<TcpListener>), BindError> {
    let runtime: Arc<dyn quinn::Runtime> = Arc::new(quinn::TokioRuntime);
    if !has_runtime(config) {
        return Err(BindError::NoRuntime);
    }
    let server = server_config(config, &config.identity)
        .map_err(|source| BindError::Identity { name: config.name.clone(), source })?;
    let listen_error = |source| BindError::Listen { listen: config.listen, source };
    let (socket, listener) = bind(config).map_err(listen_error)?;
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
    let endpoint = quinn::Endpoint::new_with_abstract_socket(quic, Some(server), socket, runtime)
        .map_err(listen_error)?;
    Ok((endpoint, listener))
}

/// Whether a tokio runtime with IO and time is here. tokio tells of the latter two in no other way than by a panic where
/// they are used first, which is better met here than in a task later on.
fn has_runtime(config: &EndpointConfig) -> bool {
    if tokio::runtime::Handle::try_current().is_err() {
        return false;
    }
    let has_time = catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok();
    let has_io = || {
        // A socket that cannot be had is the affair of whoever binds the one that is wanted.
        let Ok(socket) = UdpSocket::bind((config.listen.ip(), 0)) else { return };
        if socket.set_nonblocking(true).is_ok() {
            drop(tokio::net::UdpSocket::from_std(socket));
        }
    };
    has_time && catch_unwind(AssertUnwindSafe(has_io)).is_ok()
}

fn bind(config: &EndpointConfig) -> io::Result<(UdpSocket, Option<TcpListener>)> {
    let mut tries = if config.lifeline && config.listen.port() == 0 { FREE_PORTS_TRIED } else { 1 };
    loop {
        let socket = UdpSocket::bind(config.listen)?;
        if !config.lifeline {
            return Ok((socket, None));
        }
        tries -= 1;
        match listen_for_lifelines(socket.local_addr()?) {
            Ok(listener) => return Ok((socket, Some(listener))),
            Err(error) if tries == 0 => {
                let node = config.node;
                tracing::info!(%node, %error, "no TCP port for lifelines: dead peers show by missed beats");
                return Ok((socket, None));
            }
            Err(_) => {}
        }
    }
}

/// Opens the TCP port of lifelines.
pub(crate) fn listen_for_lifelines(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Asks for buffers of that size; the system grants what its own limit allows.
fn size_buffers(socket: &UdpSocket, bytes: usize) {
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
