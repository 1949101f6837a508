//! A replicated queue of words: three nodes in one process, or three processes that talk QUIC.
//!
//! ```text
//! cargo run -p rafted-value --example queue                           # three nodes in one process
//!
//! cargo run -p rafted-value --example queue -- ca queue-data          # a throw-away CA and three certificates
//! cargo run -p rafted-value --example queue -- node --id 1 --dir queue-data --peers 127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003
//! ```
//!
//! and the last line again with `--id 2` and `--id 3` in two more terminals. A node reads `push WORD`, `pop` and `length`
//! from its standard input and prints one line for each; it ends with its input. What it knows is in `DIR/node-ID`, and
//! there again when it starts anew. Whoever removes that directory must not start the same id again: it would come back
//! without what it has acknowledged.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program of its own, with a thread that reads its terminal"
)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rafted_value::env::{Env, RealEnv, sleep};
use rafted_value::transport::memory::MemoryNetwork;
use rafted_value::{
    ClientSession, CommandContext, CommandError, Data, Found, GroupCaller, GroupConfig, GroupError, GroupId,
    Host, HostConfig, NodeId, NotApplied, Registry, SessionId, encode,
};
use serde::{Deserialize, Serialize};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const GROUP: GroupId = GroupId(1);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// How long a command is tried before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The replicated value.
#[derive(Default, Serialize, Deserialize)]
struct Queue(VecDeque<String>);

#[derive(Serialize, Deserialize)]
enum Change {
    Push(String),
    Pop,
    /// Changes nothing; as a command, every node may answer it.
    Length,
}

#[derive(Serialize, Deserialize, Debug)]
enum Reply {
    Length(u64),
    Popped(Option<String>),
}

impl Data for Queue {
    const NAME: &'static str = "queue";
    type Command = Change;
    type Reply = Reply;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, _: &CommandContext, change: Change) -> Reply {
        match change {
            Change::Push(word) => self.0.push_back(word),
            Change::Pop => return Reply::Popped(self.0.pop_front()),
            Change::Length => {}
        }
        Reply::Length(self.0.len() as u64)
    }

    fn query(&self, (): ()) -> u64 {
        self.0.len() as u64
    }
}

/// One user of the queue, at one of its nodes.
struct Client {
    host: Host,
    caller: GroupCaller,
    session: ClientSession,
    /// Which of the nodes is asked first.
    favourite: usize,
}

impl Client {
    fn new(host: &Host) -> Self {
        let env = host.env();
        let session = ClientSession::new(SessionId::new(env.random_u64(), env.random_u64()), 1);
        let favourite = NODES.iter().position(|node| *node == host.node()).unwrap_or(0);
        Self { host: host.clone(), caller: GroupCaller::new(env.clone()), session, favourite }
    }

    /// Sends a command until it is answered: it runs once, however often it was sent.
    async fn change(&mut self, change: &Change) -> Outcome<Reply> {
        let env = self.host.env().clone();
        let deadline = env.now() + PATIENCE;
        let command = self.session.begin(env.wall_ms() + 60_000, 0, encode(change)).ok_or("another waits")?;
        let reply = loop {
            let node = NODES[self.favourite % NODES.len()];
            match self.caller.command_at(node, GROUP, &command, Duration::from_secs(1)).await {
                Ok(reply) => break Ok(postcard::from_bytes(&reply)?),
                Err(error) if env.now() >= deadline => break Err(error.into()),
                Err(CommandError::NotApplied(NotApplied::NotLeader { leader: Some(leader), .. })) => {
                    self.favourite = NODES.iter().position(|node| *node == leader).unwrap_or(0);
                }
                Err(_) => self.favourite += 1,
            }
            sleep(env.as_ref(), Duration::from_millis(20)).await;
        };
        self.session.finish(command.sequence);
        reply
    }
}

/// The same on each of the three nodes; the group works once two of them have done it.
async fn found(host: &Host) -> Outcome<()> {
    let config = GroupConfig::default();
    match host.found(Found { group: GROUP, data: Queue::NAME.into(), config, nodes: NODES.to_vec() }).await {
        Ok(_) | Err(GroupError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => in_one_process().await,
        #[cfg(feature = "quic")]
        ["ca", directory] => processes::make_certificates(directory),
        #[cfg(feature = "quic")]
        ["node", "--id", id, "--dir", directory, "--peers", peers] => {
            processes::node(id.parse()?, directory, peers).await
        }
        _ => {
            Err("arguments: none, `ca DIR` or `node --id N --dir DIR --peers ADDRESS,ADDRESS,ADDRESS`".into())
        }
    }
}

async fn in_one_process() -> Outcome<()> {
    let network = MemoryNetwork::new();
    let start = |node: &NodeId| {
        let env: Arc<dyn Env> = RealEnv::new(network.join(*node, format!("node-{}", node.0)));
        Host::start(env, HostConfig::default(), Registry::new().with::<Queue>())
    };
    let hosts: Vec<Host> = NODES.iter().map(start).collect();
    for host in &hosts {
        found(host).await?;
    }
    let (mut first, mut second) = (Client::new(&hosts[0]), Client::new(&hosts[1]));
    for word in ["replicated", "queue"] {
        println!("push {word}: {}", show(&first.change(&Change::Push(word.into())).await?));
    }
    println!("pop: {}", show(&second.change(&Change::Pop).await?));
    for host in &hosts {
        host.shutdown().await;
    }
    Ok(())
}

fn show(reply: &Reply) -> String {
    match reply {
        Reply::Length(length) => format!("{length} waiting"),
        Reply::Popped(Some(word)) => word.clone(),
        Reply::Popped(None) => "empty".into(),
    }
}

/// The same queue over real processes.
#[cfg(feature = "quic")]
mod processes {
    use std::io::BufRead;
    use std::path::Path;

    use rafted_value::disk::RealDisk;
    use rafted_value::transport::Transport;
    use rafted_value::transport::quic::QuicTransport;
    use rafted_value::transport::quic::batched_comm::{
        self, CertificateAuthority, Endpoint, EndpointConfig, Identity,
    };

    use super::*;

    /// Lines of the terminal that wait for the node, at most.
    const LINES_MAX: usize = 16;

    pub(super) fn make_certificates(directory: &str) -> Outcome<()> {
        std::fs::create_dir_all(directory)?;
        let authority = CertificateAuthority::new("queue");
        for node in NODES {
            let name = format!("node-{}", node.0);
            authority.issue(&name, 30, &[])?.save(directory, &name)?;
        }
        // Its key is thrown away: nobody else gets in.
        std::fs::write(Path::new(directory).join("ca.pem"), authority.ca_pem())?;
        Ok(())
    }

    pub(super) async fn node(id: u64, directory: &str, peers: &str) -> Outcome<()> {
        let peers: Vec<&str> = peers.split(',').collect();
        let place = NODES.iter().position(|node| node.0 == id).ok_or("an id is 1, 2 or 3")?;
        let listen = peers.get(place).ok_or("there are three peers, in the order of their ids")?.parse()?;
        let (name, directory) = (format!("node-{id}"), Path::new(directory));
        let path = |end: &str| directory.join(format!("{name}.{end}"));
        let identity = Identity::from_files(directory.join("ca.pem"), path("pem"), path("key"))?;
        let config = EndpointConfig::new(listen, batched_comm::NodeId(id), name.clone(), identity);
        let transport = QuicTransport::new(Endpoint::bind(config).await?, name.clone());
        for (node, address) in NODES.iter().zip(&peers) {
            transport.set_address(*node, address);
        }
        let disk = Arc::new(RealDisk::open(directory.join(&name))?);
        let env = RealEnv::with_disk(transport.clone(), disk);
        let host = Host::open(env, HostConfig::default(), Registry::new().with::<Queue>()).await?;
        found(&host).await?;
        println!("listening on {listen}");
        serve(&host).await?;
        host.shutdown().await;
        transport.endpoint().close().await;
        Ok(())
    }

    /// Does what the lines of the standard input say, until they end.
    async fn serve(host: &Host) -> Outcome<()> {
        let (send, mut lines) = tokio::sync::mpsc::channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if send.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        let mut client = Client::new(host);
        while let Some(line) = lines.recv().await {
            let change = match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["push", word] => Change::Push((*word).to_owned()),
                ["pop"] => Change::Pop,
                ["length"] => Change::Length,
                _ => {
                    println!("say `push WORD`, `pop` or `length`");
                    continue;
                }
            };
            match client.change(&change).await {
                Ok(reply) => println!("{}", show(&reply)),
                Err(error) => println!("error: {error}"),
            }
        }
        Ok(())
    }
}
