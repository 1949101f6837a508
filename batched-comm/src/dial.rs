//! Makes connections: the dial of an address, and the loop that dials until a peer is connected.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::error::Failure;
use crate::handshake::{HandshakeError, greet};
use crate::id::NodeId;
use crate::peer::Peer;
use crate::peer_info::PeerInfo;
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::tls::SERVER_NAME;

/// A name may stand for several addresses; at most so many are tried.
const ADDRESSES_MAX: usize = 4;

/// Dials a peer until it is connected, by whichever side, or until nobody wants it any more.
pub(crate) async fn dial_until_connected(shared: Arc<Shared>, peer: Arc<Peer>) {
    let _dialling = Dialling { shared: &shared, peer: &peer };
    let mut last_failure = None;
    while let Some(wait) = peer.next_dial(&shared) {
        let changed = peer.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if !wait.is_zero() {
            // Cut short by a connection from the other side or a new address.
            let _ = timeout(wait, changed.as_mut()).await;
            if peer.link().is_some() {
                continue;
            }
        }
        let Some(address) = peer.address() else { continue };
        let deadline = Instant::now() + shared.config.connect_timeout;
        let Err(failure) = dial(&shared, &address, Some(peer.node), deadline).await else { continue };
        if last_failure.as_ref() != Some(&failure) {
            let (node, peer) = (shared.config.node, peer.node);
            tracing::warn!(%node, %peer, %address, reason = %failure, "peer is out of reach");
        }
        peer.dial_failed(&shared, &address, &failure);
        last_failure = Some(failure);
    }
}

/// A dial under way, in which a resolver of the user's may panic.
struct Dialling<'a> {
    shared: &'a Shared,
    peer: &'a Peer,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.peer.dialling_broke(self.shared);
        }
    }
}

/// Dials an address and greets whoever is there; `target` is who should be.
///
/// On return the node is connected, by this connection or by another.
pub(crate) async fn dial(
    shared: &Arc<Shared>,
    address: &str,
    target: Option<NodeId>,
    deadline: Instant,
) -> Result<PeerInfo, Failure> {
    let result = match timeout_at(deadline, dial_all(shared, address, target, deadline)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Unreachable(Arc::from(format!("no answer from {address} in time")))),
    };
    if let Err(Failure::Unreachable(_)) = &result {
        shared.counters.dials_unreachable.increment();
    }
    result
}

async fn dial_all(
    shared: &Arc<Shared>,
    address: &str,
    target: Option<NodeId>,
    deadline: Instant,
) -> Result<PeerInfo, Failure> {
    let addresses = resolve(shared, address).await?;
    let mut failure = Failure::NoAddress;
    for (i, resolved) in addresses.iter().enumerate() {
        // Each address gets its share of what is left.
        let share = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - i) as u32;
        match dial_one(shared, *resolved, target, share).await {
            Ok(info) => return Ok(info),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Looks the name up, anew at each dial; keeps the addresses that this socket can reach.
async fn resolve(shared: &Shared, address: &str) -> Result<Vec<SocketAddr>, Failure> {
    let unreachable = |reason: String| Failure::Unreachable(Arc::from(reason));
    let resolver = &shared.config.resolver;
    let resolved = resolver
        .resolve(address)
        .await
        .map_err(|error| unreachable(format!("cannot resolve {address}: {error}")))?;
    let is_v6_socket = shared.config.listen.is_ipv6();
    let addresses: Vec<_> = resolved
        .into_iter()
        .filter(|address| is_v6_socket || address.is_ipv4())
        .take(ADDRESSES_MAX)
        .collect();
    if addresses.is_empty() {
        return Err(unreachable(format!("{address} has no address this socket can reach")));
    }
    Ok(addresses)
}

async fn dial_one(
    shared: &Arc<Shared>,
    address: SocketAddr,
    target: Option<NodeId>,
    share: Duration,
) -> Result<PeerInfo, Failure> {
    let attempt = async {
        let connecting = shared
            .quinn
            .connect_with(shared.client_config(), address, SERVER_NAME)
            .map_err(|error| HandshakeError::Broken(error.to_string()))?;
        let connection = connecting.await.map_err(|error| HandshakeError::of_connection(&error))?;
        let result = greet(shared, &connection, target).await;
        match &result {
            Err(HandshakeError::Refusing(refusal, detail)) if target.is_none() => {
                shared.refuse(&connection, *refusal, detail);
            }
            // The loop that dials for a target logs what is new.
            Err(HandshakeError::Refusing(refusal, detail)) => {
                shared.refuse_silently(&connection, *refusal, detail);
            }
            _ => {}
        }
        result
    };
    match timeout(share, attempt).await {
        Ok(Ok(info)) => Ok(info),
        Ok(Err(error)) => Err(failure_of(shared, address, error)),
        Err(_) => Err(Failure::Unreachable(Arc::from(format!("no answer from {address} within {share:?}")))),
    }
}

fn failure_of(shared: &Shared, address: SocketAddr, error: HandshakeError) -> Failure {
    match error {
        HandshakeError::Refusing(refusal, detail) => Failure::Refused(refusal, Arc::from(detail)),
        HandshakeError::Refused(Refusal::ShuttingDown, _) => {
            Failure::Unreachable(Arc::from(format!("{address} is shutting down")))
        }
        HandshakeError::Refused(refusal, detail) => {
            shared.counters.count_refusal(refusal);
            Failure::Refused(refusal, Arc::from(format!("says {address}: {detail}")))
        }
        HandshakeError::Broken(detail) => Failure::Unreachable(Arc::from(format!("{address}: {detail}"))),
    }
}
