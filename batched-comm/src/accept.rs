//! Lets peers in: bounds how many try at one time, and how long each may take.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::handshake::{HandshakeError, answer};
use crate::refusal::Refusal;
use crate::shared::Shared;

/// Takes incoming connections until the endpoint closes.
pub(crate) async fn accept_connections(shared: Arc<Shared>) {
    let handshakes = Arc::new(());
    while let Some(incoming) = shared.quinn.accept().await {
        let under_way = Arc::strong_count(&handshakes) - 1;
        let config = &shared.config;
        if shared.quinn.open_connections() >= config.connections_max || under_way >= config.handshakes_max {
            shared.counters.refused_too_many_connections.increment();
            incoming.refuse();
            continue;
        }
        if under_way >= config.handshakes_max / 2 && !incoming.remote_address_validated() {
            // Nothing to be done when the address has been validated meanwhile.
            let _ = incoming.retry();
            continue;
        }
        let (shared, place) = (shared.clone(), handshakes.clone());
        tokio::spawn(async move {
            receive(shared, incoming).await;
            drop(place);
        });
    }
}

/// The accepting side: TLS, then the handshake, bounded in time.
async fn receive(shared: Arc<Shared>, incoming: quinn::Incoming) {
    let deadline = Instant::now() + shared.config.connect_timeout;
    let address = incoming.remote_address();
    let connection = match timeout_at(deadline, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return report_broken(&shared, address, &HandshakeError::of_connection(&error)),
        Err(_) => return report_broken(&shared, address, &HandshakeError::Broken("timed out".to_owned())),
    };
    match timeout_at(deadline, answer(&shared, &connection)).await {
        Ok(Ok(())) => {}
        Ok(Err(HandshakeError::Refusing(refusal, detail))) => shared.refuse(&connection, refusal, &detail),
        Ok(Err(error)) => report_broken(&shared, address, &error),
        Err(_) => shared.refuse(&connection, Refusal::Malformed, "the handshake timed out"),
    }
}

/// A handshake that ended before this side could refuse it.
fn report_broken(shared: &Shared, peer: SocketAddr, error: &HandshakeError) {
    match error {
        // The peer found that it does not need this connection.
        HandshakeError::Refused(Refusal::Superseded | Refusal::ShuttingDown, _) => {}
        HandshakeError::Refused(refusal, detail) => {
            shared.counters.count_refusal(*refusal);
            // A peer that looks for this node's predecessor comes again and again, and says so itself.
            if *refusal != Refusal::OtherNode && shared.may_log() {
                let node = shared.config.node;
                tracing::warn!(%node, %peer, %refusal, detail, "connection refused in its handshake");
            }
        }
        HandshakeError::Refusing(_, detail) | HandshakeError::Broken(detail) => {
            shared.counters.handshakes_broken.increment();
            tracing::debug!(node = %shared.config.node, %peer, detail, "handshake broken");
        }
    }
}
