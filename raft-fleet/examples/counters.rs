//! A node of a cluster over QUIC that keeps its groups in a directory, to be started in as many terminals as you like.
//!
//! ```text
//! cargo run -p raft-fleet --example counters -- ca fleet-data node-1 node-2 node-3
//! cargo run -p raft-fleet --example counters -- node --name node-1 --dir fleet-data --listen 127.0.0.1:7001 \
//!     --seeds localhost:7001,localhost:7002,localhost:7003 --expect 3
//! ```
//!
//! and the last command again with the names and ports of the others. Further options are `--zone` (else a zone of its own,
//! by its name), and `--failure-window`, in seconds. Once it is part of the cluster, a node reads lines from its standard
//! input and prints one line for each; it ends with its input. `help` names what it understands.
//!
//! Where so many nodes are lost for good that nobody leads the cluster any more, `lost` tells what does not work, `plan NAMES`
//! what it costs to go on without some nodes, and `give-up NAMES` does it. A node that is started in that state waits for a
//! leader; with `repair` in place of `node` it reads its lines at once.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of its own, with a thread that reads its terminal"
)]

use std::error::Error;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use raft_fleet::rafted_value::disk::{Disk, RealDisk};
use raft_fleet::rafted_value::env::{RealEnv, random_u64_from_os};
use raft_fleet::rafted_value::node_on;
use raft_fleet::rafted_value::transport::quic::QuicTransport;
use raft_fleet::rafted_value::transport::quic::batched_comm::{
    CertificateAuthority, Endpoint, EndpointConfig, Identity, NodeId,
};
use raft_fleet::{
    CallOptions, CommandContext, Data, Fleet, FleetConfig, Freshness, GroupConfig, GroupName, Registry,
    encode,
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Lines of the terminal that wait for the node, at most.
const LINES_MAX: usize = 16;
/// How long a call is tried, and how long a drain may take, before it is given up.
const PATIENCE: Duration = Duration::from_secs(20);

const USAGE: &str =
    "arguments: `ca DIR NAME...`, or `node` or `repair` with --name, --dir, --listen, --seeds and --expect";

const HELP: &str = "add NAME REPLICAS | count NAME | read NAME | nodes (that hold members) | held (members here) | drain \
    (empties this node) | lost (groups without a leader) | plan NODES | give-up NODES";

/// The replicated value.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Counter(u64);

impl Data for Counter {
    const NAME: &'static str = "counter";
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn command(&mut self, _: &CommandContext, add: u64) -> u64 {
        self.0 += add;
        self.0
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }
}

/// What the command line says of a node.
struct Options {
    name: String,
    directory: PathBuf,
    listen: String,
    fleet: FleetConfig,
}

impl Options {
    fn parse(arguments: &[&str]) -> Outcome<Self> {
        let mut options = Self {
            name: String::new(),
            directory: PathBuf::new(),
            listen: String::new(),
            fleet: FleetConfig { zone: String::new(), ..FleetConfig::default() },
        };
        for pair in arguments.chunks(2) {
            let &[option, value] = pair else { return Err(format!("{} has no value", pair[0]).into()) };
            match option {
                "--name" => options.name = value.to_owned(),
                "--dir" => options.directory = PathBuf::from(value),
                "--listen" => options.listen = value.to_owned(),
                "--zone" => options.fleet.zone = value.to_owned(),
                "--seeds" => options.fleet.seeds = value.split(',').map(str::to_owned).collect(),
                "--expect" => options.fleet.bootstrap_expect = value.parse()?,
                "--failure-window" => {
                    options.fleet.failure_window = Duration::from_secs(value.parse()?);
                }
                other => return Err(format!("there is no option {other}").into()),
            }
        }
        if options.fleet.zone.is_empty() {
            options.fleet.zone.clone_from(&options.name);
        }
        Ok(options)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["ca", directory, names @ ..] => make_certificates(Path::new(directory), names),
        ["node", options @ ..] => node(Options::parse(options)?, false).await,
        ["repair", options @ ..] => node(Options::parse(options)?, true).await,
        _ => Err(USAGE.into()),
    }
}

fn make_certificates(directory: &Path, names: &[&str]) -> Outcome<()> {
    std::fs::create_dir_all(directory)?;
    let authority = CertificateAuthority::new("fleet");
    for name in names {
        authority.issue(name, 30, &[])?.save(directory, name)?;
    }
    // Its key is thrown away: nobody else gets in.
    Ok(std::fs::write(directory.join("ca.pem"), authority.ca_pem())?)
}

async fn node(options: Options, repair: bool) -> Outcome<()> {
    let Options { name, directory, listen, fleet } = options;
    let path = |end: &str| directory.join(format!("{name}.{end}"));
    let identity = Identity::from_files(directory.join("ca.pem"), path("pem"), path("key"))?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(directory.join(&name))?);
    // Its id is that of its directory, and a new one in a new directory.
    let node = NodeId(node_on(disk.as_ref())?.map_or_else(random_u64_from_os, |node| node.0));
    let endpoint = Endpoint::bind(EndpointConfig::new(listen.parse()?, node, name.clone(), identity)).await?;
    println!("listening on {listen}");
    let env = RealEnv::with_disk(QuicTransport::new(endpoint.clone(), name), disk);
    let registry = Registry::new().with::<Counter>();
    let (fleet, part) = if repair {
        (Fleet::start_without_leader(env, fleet, registry).await?, "back in")
    } else {
        (Fleet::start(env, fleet, registry).await?, "part of")
    };
    println!("{part} a cluster of {} nodes", fleet.cluster().nodes().len());
    serve(&fleet).await;
    fleet.shutdown().await;
    endpoint.close().await;
    Ok(())
}

/// Does what the lines of the standard input say, until they end.
async fn serve(fleet: &Fleet) {
    let (send, mut lines) = tokio::sync::mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        match obey(fleet, &line).await {
            Ok(answer) => println!("{answer}"),
            Err(error) => println!("error: {error}"),
        }
    }
}

async fn obey(fleet: &Fleet, line: &str) -> Outcome<String> {
    let options = CallOptions::default().with_timeout(PATIENCE);
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["add", name, replicas] => {
            let (name, replicas) = (GroupName::new(name)?, replicas.parse()?);
            fleet.add_group(name, Counter::NAME, replicas, GroupConfig::default()).await?;
            Ok("added".into())
        }
        ["count", name] => {
            let reply = fleet.command(&GroupName::new(name)?, 0, encode(&1_u64), &options).await?;
            Ok(postcard::from_bytes::<u64>(&reply)?.to_string())
        }
        ["read", name] => {
            let name = GroupName::new(name)?;
            let answer = fleet.query(&name, Freshness::Latest, encode(&()), &options).await?;
            Ok(postcard::from_bytes::<u64>(&answer)?.to_string())
        }
        ["nodes"] => {
            let active = fleet.active_nodes().await?.into_values().map(|nodes| nodes.len());
            Ok(format!("{} nodes", active.sum::<usize>()))
        }
        ["held"] => Ok(format!("{} members", fleet.drain_status().await?.members_left)),
        ["drain"] => {
            fleet.deactivate().await?;
            fleet.drained(PATIENCE).await?;
            Ok("safe to stop".into())
        }
        ["lost"] => {
            let lost: Vec<String> =
                fleet.find_groups_without_leader().await.iter().map(ToString::to_string).collect();
            Ok(if lost.is_empty() { "every group has a leader".into() } else { lost.join("; ") })
        }
        ["plan", names @ ..] => Ok(fleet.plan_removal(&nodes(fleet, names)?).await.to_string()),
        ["give-up", names @ ..] => {
            let plan = fleet.plan_removal(&nodes(fleet, names)?).await;
            fleet.remove_dead_members(&plan).await?;
            Ok("done".into())
        }
        _ => Ok(HELP.into()),
    }
}

/// The ids of the nodes of these names.
fn nodes(fleet: &Fleet, names: &[&str]) -> Outcome<Vec<raft_fleet::NodeId>> {
    let cluster = fleet.cluster();
    let of_name = |name: &&str| {
        let node = cluster.nodes().iter().find(|(_, entry)| entry.name == *name);
        node.map(|(node, _)| *node).ok_or_else(|| format!("no node named {name} is listed").into())
    };
    names.iter().map(of_name).collect()
}
