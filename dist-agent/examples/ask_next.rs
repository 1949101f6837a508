//! A client of the next build: asks each counter what only that build can answer, and writes a note, which the build before
//! does not know. A line of JSON says what came of it.
//!
//! `cargo xtask upgrade` runs it before the upgrade, when nobody can answer, and after it, when everybody must. In between
//! it would be wrong: a command that some members of a shard know and others do not would make them differ.

#[path = "node_next/counter.rs"]
mod counter;
mod demo;
#[path = "node_next/note.rs"]
mod note;

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use counter::{Ask, Counter};
use demo::Membership;
use dist_agent::{Agent, AgentError, AgentNotApplied, DistAgent, DistAgentConfig};
use futures_util::future::{Either, select};
use futures_util::{StreamExt, stream};
use note::Note;
use serde_json::json;

/// Asks the counters of a cluster what only the next build knows
#[derive(Parser)]
struct Options {
    /// How many counters
    #[arg(long, value_name = "N", default_value_t = 5000)]
    agents: usize,
    /// Ends the program when its standard input is closed
    #[arg(long)]
    exit_on_stdin_close: bool,
    #[command(flatten)]
    membership: Membership,
}

/// Questions at a time.
const AT_A_TIME: usize = 64;
const TEXT: &str = "written after the upgrade";

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    demo::log_to_stderr();
    let told = demo::told_to_end(options.exit_on_stdin_close);
    let result = match select(Box::pin(run(options)), Box::pin(told)).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Err("it was ended before it had asked everybody".into()),
    };
    demo::end("ask_next", result)
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let (endpoint, env) = options.membership.open(any_port, Some(String::new()), None, None).await?;
    let mut config = DistAgentConfig::default();
    config.fleet.seeds = options.membership.seeds;
    let cluster = DistAgent::connect(env, config).await?;
    let counters = (0..options.agents).map(|n| cluster.agent::<Counter>("demo", &format!("counter-{n}")));
    let counters = counters.collect::<Result<Vec<_>, _>>()?;
    let ask = |counter: dist_agent::AgentHandle<Counter>| async move { counter.query(Ask::Version).await };
    let mut answers = stream::iter(counters).map(ask).buffer_unordered(AT_A_TIME);
    let (mut migrated, mut refused) = (0, BTreeMap::<String, u64>::new());
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(version) if version == u64::from(Counter::VERSION) => migrated += 1,
            Ok(version) => return Err(format!("a state of version {version}").into()),
            Err(error) => *refused.entry(error.to_string()).or_default() += 1,
        }
    }
    let note = cluster.agent::<Note>("demo", "note")?;
    let told = match note.command(TEXT.to_owned()).await {
        Ok(()) if note.query(()).await? == TEXT => "written".to_owned(),
        Ok(()) => "written, and not there".to_owned(),
        Err(AgentError::NotApplied(AgentNotApplied::UnknownAgentType(_))) => "unknown agent type".to_owned(),
        Err(error) => error.to_string(),
    };
    let unanswered: u64 = refused.values().sum();
    let why = refused.into_keys().next();
    demo::print(&json!({
        "event": "asked", "migrated": migrated, "unanswered": unanswered, "why": why, "note": told,
    }));
    cluster.shutdown().await;
    endpoint.close().await;
    Ok(())
}
