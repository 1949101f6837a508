//! What QUIC offers and is not taken up, and what is: no early data, connections that outlive a change of address.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use batched_comm::{CallError, Lane, NodeId};
use bytes::Bytes;
use support::insider::{client_tls, closed};
use support::{ECHO, LONG, Node, authority, config, eventually, hasty, loopback, node, node_with};
use tokio::net::UdpSocket;

/// Whoever keeps what early data said can say it again. A client that would like to is never given the means: no ticket comes.
#[tokio::test]
async fn nothing_is_said_before_the_handshake_even_by_a_client_that_would() {
    let victim = node(1).await;
    let mut tls = client_tls(authority(), authority(), "node-9", b"batched-comm/2");
    tls.enable_early_data = true;
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    for _ in 0..3 {
        let connecting =
            endpoint.connect_with(config.clone(), victim.endpoint.local_addr(), "node-1").unwrap();
        let Err(connecting) = connecting.into_0rtt() else { panic!("early data is possible") };
        let connection = connecting.await.unwrap();
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(b"no handshake of ours").await.unwrap();
        // Whatever the victim had to say in TLS has come by then.
        assert_eq!(closed(&connection).await.0, 8);
    }
}

/// A router between one client and one server that can give the client another port.
struct Router {
    address: SocketAddr,
    inside: Arc<UdpSocket>,
    outside: Arc<Mutex<Arc<UdpSocket>>>,
    client: Arc<Mutex<Option<SocketAddr>>>,
    server: SocketAddr,
}

impl Router {
    async fn before(server: SocketAddr) -> Router {
        let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let first = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let router = Router {
            address: inside.local_addr().unwrap(),
            inside,
            outside: Arc::new(Mutex::new(first)),
            client: Arc::default(),
            server,
        };
        router.change_port().await;
        let (inside, outside, client) =
            (router.inside.clone(), router.outside.clone(), router.client.clone());
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((bytes, from)) = inside.recv_from(&mut buffer).await {
                *client.lock().unwrap() = Some(from);
                let way = outside.lock().unwrap().clone();
                drop(way.send(&buffer[..bytes]).await);
            }
        });
        router
    }

    /// From now on the client is seen at another port.
    async fn change_port(&self) {
        let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        outside.connect(self.server).await.unwrap();
        *self.outside.lock().unwrap() = outside.clone();
        let (inside, client) = (self.inside.clone(), self.client.clone());
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok(bytes) = outside.recv(&mut buffer).await {
                let to = client.lock().unwrap().unwrap();
                drop(inside.send_to(&buffer[..bytes], to).await);
            }
        });
    }
}

async fn call(from: &Node) -> Result<Bytes, CallError> {
    from.endpoint.call(NodeId(2), Lane::Normal, ECHO, Bytes::from_static(b"x"), LONG).await
}

#[tokio::test]
async fn a_peer_whose_address_changes_keeps_its_connection_unless_that_is_off() {
    for migration in [true, false] {
        // Without it the connection is as good as silent, which must not take long to show.
        let times = if migration { config } else { hasty };
        let mut config_b = times(2);
        config_b.migration = migration;
        let (a, b) = (node_with(times(1)).await, node_with(config_b).await);
        let router = Router::before(b.endpoint.local_addr()).await;
        a.endpoint.set_address(NodeId(2), &router.address.to_string());
        assert_eq!(call(&a).await.unwrap(), "x");
        for _ in 0..3 {
            router.change_port().await;
            if !migration {
                break;
            }
            for _ in 0..20 {
                assert_eq!(call(&a).await.unwrap(), "x");
            }
        }
        if migration {
            assert_eq!(a.endpoint.counters().connections_established, 1);
            assert_eq!(b.endpoint.counters().connections_lost, 0);
        } else {
            assert_eq!(call(&a).await, Err(CallError::Lost { node: NodeId(2) }));
            eventually("a new connection", || a.endpoint.counters().connections_established == 2).await;
            assert_eq!(call(&a).await.unwrap(), "x");
        }
    }
}
