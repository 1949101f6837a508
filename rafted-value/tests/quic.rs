//! What the QUIC transport says behind the port.
#![cfg(feature = "quic")]

use std::time::Duration;

use rafted_value::NodeId;
use rafted_value::transport::quic::QuicTransport;
use rafted_value::transport::quic::batched_comm::{self, CertificateAuthority, Endpoint, EndpointConfig};
use rafted_value::transport::{ClusterId, DownReason, PeerChange, PeerEvent, Transport};

/// An endpoint on loopback.
async fn endpoint(authority: &CertificateAuthority, node: u64, name: &str) -> Endpoint {
    let listen = ([127, 0, 0, 1], 0).into();
    let identity = authority.identity(name);
    let mut config = EndpointConfig::new(listen, batched_comm::NodeId(node), name, identity);
    // A machine that is busy elsewhere must not pass for a silent peer.
    config.idle_timeout = Duration::from_secs(60);
    config.keep_alive_interval = Duration::from_secs(20);
    Endpoint::bind(config).await.expect("loopback has a free port")
}

#[tokio::test]
async fn a_peer_that_comes_and_leaves_is_told_of_with_the_reason() {
    let authority = CertificateAuthority::new("test");
    let here = QuicTransport::new(endpoint(&authority, 1, "here").await, "here");
    let there = QuicTransport::new(endpoint(&authority, 2, "there").await, "there");
    let mut watch = here.watch_peers();
    let limit = Duration::from_secs(10);
    there.discover(&here.local().address, limit).await.expect("it is there");
    there.endpoint().close().await;
    for change in [PeerChange::Up, PeerChange::Down(DownReason::Left)] {
        assert_eq!(watch.next().await, Some(Ok(PeerEvent { node: NodeId(2), change })));
    }
    here.endpoint().close().await;
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn whoever_dials_a_node_learns_of_which_cluster_it_is() {
    let authority = CertificateAuthority::new("test");
    let here = QuicTransport::new(endpoint(&authority, 1, "here").await, "here");
    let there = QuicTransport::new(endpoint(&authority, 2, "there").await, "there");
    let (address, limit) = (here.local().address, Duration::from_secs(10));
    assert_eq!(there.discover(&address, limit).await.map(|found| found.cluster), Ok(None));
    here.set_cluster(ClusterId(5));
    assert_eq!(there.discover(&address, limit).await.map(|found| found.cluster), Ok(Some(ClusterId(5))));
    assert_eq!((here.local().cluster, there.local().cluster), (Some(ClusterId(5)), None));
    there.endpoint().close().await;
    here.endpoint().close().await;
}
