//! A node of a cluster of counters: joins through its seeds, hosts agents, says once a second how it is.
//!
//! `node --name node-1 --listen 127.0.0.1:7001 --seed 127.0.0.1:7001 --seed 127.0.0.1:7002 --expect 2 --ca ca.pem
//! --cert node-1.pem --key node-1.key`; the `certs` example makes the files.

mod demo;

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use demo::Membership;
use demo::counter::Counter;
use dist_agent::raft_kv::rafted_value::Role;
use dist_agent::raft_kv::rafted_value::env::{Env, sleep};
use dist_agent::{AgentTypes, DistAgent, DistAgentConfig};
use futures_util::future::{Either, select};
use serde_json::json;

/// A node of a cluster of counters
#[derive(Parser)]
struct Options {
    /// The node's name, as its certificate says
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where this node listens
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Where others reach it, if not where it listens
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// How many nodes must see each other before a new cluster is formed
    #[arg(long, value_name = "N")]
    expect: usize,
    /// The zone (rack, data centre) over which the members of a shard are spread
    #[arg(long, value_name = "ZONE", default_value = "zone-1")]
    zone: String,
    /// Into how many shards the agents are divided; the same on every node
    #[arg(long, value_name = "N", default_value_t = 16)]
    shards: u32,
    /// Ends the node when its standard input is closed
    #[arg(long)]
    exit_on_stdin_close: bool,
    #[command(flatten)]
    membership: Membership,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    demo::log_to_stderr();
    demo::end("node", run(options).await)
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    if options.listen.ip().is_unspecified() && options.advertise.is_none() {
        let listen = options.listen;
        return Err(format!(
            "--listen {listen} is no address that others can reach: name one with --advertise"
        )
        .into());
    }
    let mut told = pin!(demo::told_to_end(options.exit_on_stdin_close));
    let (endpoint, env) =
        options.membership.open(options.listen, options.advertise, Some(&options.name)).await?;
    let local = env.transport().local();
    demo::print(&json!({ "event": "listening", "node": local.node.to_string(), "address": local.address }));

    let mut config = DistAgentConfig::default();
    config.fleet.zone = options.zone;
    config.fleet.seeds = options.membership.seeds;
    config.fleet.bootstrap_expect = options.expect;
    config.agents.shards = options.shards;
    let start = DistAgent::start(env.clone(), config, AgentTypes::new().with::<Counter>());
    let Either::Left((node, _)) = select(Box::pin(start), &mut told).await else { return Ok(()) };
    let node = node?;
    select(Box::pin(serve(&node, env.as_ref(), options.expect)), told).await;
    // First the agents' part, then the connections: the other nodes are told that this one is gone.
    node.shutdown().await;
    endpoint.close().await;
    Ok(())
}

/// Says how the node is, for as long as it runs.
async fn serve(node: &DistAgent, env: &dyn Env, expect: usize) {
    let mut ready = false;
    loop {
        if !ready {
            let nodes = node.fleet().cluster().nodes().values().filter(|node| node.active).count();
            ready = nodes >= expect;
            if ready {
                demo::print(&json!({ "event": "ready", "nodes": nodes }));
            }
        }
        report(node).await;
        sleep(env, Duration::from_secs(1)).await;
    }
}

/// Says what this node hosts and leads.
async fn report(node: &DistAgent) {
    let Some(host) = node.fleet().host() else { return };
    let members = host.statuses().await;
    let leading = members.iter().filter(|member| member.role == Role::Leader).count();
    let agents = node.local_agents().await;
    demo::print(&json!({ "event": "status", "groups": members.len(), "leading": leading, "agents": agents }));
}
