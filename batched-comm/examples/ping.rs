//! Two nodes in two terminals, or one program with both: makes a CA and certificates, pings, prints round trips.
//!
//! ```text
//! cargo run -p batched-comm --example ping                                    # both in one process
//! cargo run -p batched-comm --example ping -- ca DIR                          # a CA and two certificates
//! cargo run -p batched-comm --example ping -- serve DIR 127.0.0.1:7000        # terminal 1
//! cargo run -p batched-comm --example ping -- ping DIR 127.0.0.1:7000         # terminal 2
//! ```
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program of its own, with real time and a terminal"
)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use batched_comm::{
    CertificateAuthority, Endpoint, EndpointConfig, Handler, Identity, Lane, NodeId, Reply, ServiceId,
};
use bytes::Bytes;

const PING: ServiceId = ServiceId(1);

/// Answers a ping with its payload, and shows what is cast to it.
struct Pong;

impl Handler for Pong {
    fn on_cast(&self, from: NodeId, payload: Bytes) {
        println!("node {from} says: {}", String::from_utf8_lossy(&payload));
    }

    fn on_call(&self, _from: NodeId, payload: Bytes, reply: Reply) {
        reply.send(payload);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => both().await,
        ["ca", directory] => {
            let authority = CertificateAuthority::new("ping");
            authority.save(directory)?;
            for name in ["server", "client"] {
                authority.issue(name, 365, &[])?.save(directory, name)?;
            }
            Ok(())
        }
        ["serve", directory, listen] => {
            let server = bind(listen, NodeId(1), "server", identity(directory, "server")?).await?;
            println!("listening on {}", server.local_addr());
            std::future::pending().await
        }
        ["ping", directory, address] => {
            let client = bind("0.0.0.0:0", NodeId(2), "client", identity(directory, "client")?).await?;
            ping(&client, address).await
        }
        _ => Err("arguments: none, `ca DIR`, `serve DIR ADDRESS` or `ping DIR ADDRESS`".into()),
    }
}

async fn both() -> Result<(), Box<dyn Error>> {
    let authority = CertificateAuthority::new("ping");
    let server = bind("127.0.0.1:0", NodeId(1), "server", authority.identity("server")).await?;
    let client = bind("127.0.0.1:0", NodeId(2), "client", authority.identity("client")).await?;
    ping(&client, server.advertised()).await
}

fn identity(directory: &str, name: &str) -> Result<Identity, Box<dyn Error>> {
    let path = |file: String| Path::new(directory).join(file);
    Ok(Identity::from_files(path("ca.pem".into()), path(format!("{name}.pem")), path(format!("{name}.key")))?)
}

async fn bind(
    listen: &str,
    node: NodeId,
    name: &str,
    identity: Identity,
) -> Result<Endpoint, Box<dyn Error>> {
    let endpoint = Endpoint::bind(EndpointConfig::new(listen.parse()?, node, name, identity)).await?;
    endpoint.register(PING, Arc::new(Pong));
    Ok(endpoint)
}

async fn ping(client: &Endpoint, address: &str) -> Result<(), Box<dyn Error>> {
    let there = client.discover(address, Duration::from_secs(1)).await?;
    println!("{address} is node {} called {:?}", there.node, there.name);
    client.cast(there.node, Lane::Normal, PING, Bytes::from_static(b"hello"))?;
    for _ in 0..5 {
        let sent = Instant::now();
        let payload = Bytes::from_static(b"ping");
        client.call(there.node, Lane::Normal, PING, payload, Duration::from_secs(1)).await?;
        println!("answered in {:?}", sent.elapsed());
    }
    client.close().await;
    Ok(())
}
