//! What the QUIC transport says behind the port.
#![cfg(feature = "quic")]

use std::time::Duration;

use rafted_value::NodeId;
use rafted_value::transport::quic::QuicTransport;
use rafted_value::transport::quic::batched_comm::{self, CertificateAuthority, Endpoint, EndpointConfig};
use rafted_value::transport::{DownReason, PeerChange, PeerEvent, Transport};

#[tokio::test]
async fn a_peer_that_comes_and_leaves_is_told_of_with_the_reason() {
    let authority = CertificateAuthority::new("test");
    let endpoint = async |node: u64, name: &str| {
        let listen = ([127, 0, 0, 1], 0).into();
        let identity = authority.identity(name);
        let mut config = EndpointConfig::new(listen, batched_comm::NodeId(node), name, identity);
        // A machine that is busy elsewhere must not pass for a silent peer.
        config.idle_timeout = Duration::from_secs(60);
        config.keep_alive_interval = Duration::from_secs(20);
        Endpoint::bind(config).await.expect("loopback has a free port")
    };
    let here = QuicTransport::new(endpoint(1, "here").await, "here");
    let there = QuicTransport::new(endpoint(2, "there").await, "there");
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
