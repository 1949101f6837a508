//! A node of a cluster of counters: joins through its seeds, hosts agents, says once a second how it is.
//!
//! `node --name node-1 --listen 127.0.0.1:7001 --seed 127.0.0.1:7001 --seed 127.0.0.1:7002 --expect 2 --ca ca.pem
//! --cert node-1.pem --key node-1.key`, or the same in the environment or a TOML file; the `certs` example makes the
//! certificates.

#[path = "demo/counter.rs"]
mod counter;
mod demo;
#[path = "node/program.rs"]
mod program;

use std::process::ExitCode;

use counter::Counter;
use dist_agent::AgentTypes;

#[tokio::main]
async fn main() -> ExitCode {
    program::main(AgentTypes::new().with::<Counter>()).await
}
