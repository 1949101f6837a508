//! The queue of the README over three processes, word for word: `tests/readme.rs` compares the two.
//!
//! `cargo run -p rafted-value --example words` makes certificates in `queue-data`; the same with `-- 1`, `-- 2` and `-- 3` runs
//! a node that takes `push WORD` from its terminal, and gives out a word for any other line.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program of its own, which reads its terminal"
)]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rafted_value::disk::RealDisk;
use rafted_value::env::{RealEnv, sleep};
use rafted_value::transport::Transport;
use rafted_value::transport::quic::QuicTransport;
use rafted_value::transport::quic::batched_comm::{
    self, CertificateAuthority, Endpoint, EndpointConfig, Identity,
};
use rafted_value::{
    ClientSession, CommandContext, Data, Found, GroupCaller, GroupConfig, GroupError, GroupId, Host,
    HostConfig, NodeId, Registry, SessionId, encode,
};
use serde::{Deserialize, Serialize};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The group, and the nodes that its three members live on.
const QUEUE: GroupId = GroupId(1);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// The replicated value: words that wait.
#[derive(Default, Serialize, Deserialize)]
struct Queue(VecDeque<String>);

#[derive(Serialize, Deserialize)]
enum Change {
    Push(String),
    Pop,
}

impl Data for Queue {
    const NAME: &'static str = "queue";
    type Command = Change;
    type Reply = Option<String>;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, _: &CommandContext, change: Change) -> Option<String> {
        match change {
            Change::Push(word) => {
                self.0.push_back(word);
                None
            }
            Change::Pop => self.0.pop_front(),
        }
    }

    fn query(&self, (): ()) -> u64 {
        self.0.len() as u64
    }
}

/// Every node founds the group, whenever it starts; the group works once two of them have.
async fn found(host: &Host) -> Outcome<()> {
    let (data, config, nodes) = (Queue::NAME.into(), GroupConfig::default(), NODES.to_vec());
    match host.found(Found { group: QUEUE, data, config, nodes }).await {
        Ok(_) | Err(GroupError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A client, who numbers what it sends: a command that is sent again runs once.
fn client(host: &Host) -> ClientSession {
    ClientSession::new(SessionId::new(host.env().random_u64(), host.env().random_u64()), 16)
}

/// Tries one node after the other until the leader has answered.
async fn send(host: &Host, client: &mut ClientSession, change: &Change) -> Outcome<Option<String>> {
    let (env, caller) = (host.env(), GroupCaller::new(host.env().clone()));
    let retry_until_ms = env.wall_ms() + 60_000;
    let command = client.begin(retry_until_ms, 0, encode(change)).ok_or("too much is under way")?;
    for node in NODES.into_iter().cycle().take(300) {
        if let Ok(reply) = caller.command_at(node, QUEUE, &command, Duration::from_secs(1)).await {
            client.finish(command.sequence);
            return Ok(postcard::from_bytes(&reply)?);
        }
        sleep(env.as_ref(), Duration::from_millis(20)).await;
    }
    Err("nobody has answered".into())
}

/// A certificate for each node, of an authority whose key is thrown away: nobody else gets in.
fn certify(directory: &Path) -> Outcome<()> {
    let authority = CertificateAuthority::new("queue");
    for NodeId(id) in NODES {
        let name = format!("node-{id}");
        authority.issue(&name, 30, &[])?.save(directory, &name)?;
    }
    Ok(std::fs::write(directory.join("ca.pem"), authority.ca_pem())?)
}

/// One of the nodes, which keeps what it knows in the directory.
async fn start(id: u64, directory: &Path) -> Outcome<Host> {
    let (name, address) = (format!("node-{id}"), |id| format!("127.0.0.1:{}", 7000 + id));
    let path = |ending| directory.join(format!("{name}.{ending}"));
    let identity = Identity::from_files(directory.join("ca.pem"), path("pem"), path("key"))?;
    let (listen, node) = (address(id).parse()?, batched_comm::NodeId(id));
    let endpoint = Endpoint::bind(EndpointConfig::new(listen, node, name.clone(), identity)).await?;
    let transport = QuicTransport::new(endpoint, name.clone());
    for node in NODES {
        transport.set_address(node, &address(node.0));
    }
    let env = RealEnv::with_disk(transport, Arc::new(RealDisk::open(directory.join(&name))?));
    Ok(Host::open(env, HostConfig::default(), Registry::new().with::<Queue>()).await?)
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let directory = Path::new("queue-data");
    let Some(id) = std::env::args().nth(1) else { return certify(directory) };
    let host = start(id.parse()?, directory).await?;
    found(&host).await?;
    let mut client = client(&host);
    for line in std::io::stdin().lines() {
        let change = match line?.strip_prefix("push ") {
            Some(word) => Change::Push(word.to_owned()),
            None => Change::Pop,
        };
        println!("{:?}", send(&host, &mut client, &change).await?);
    }
    host.shutdown().await;
    Ok(())
}
