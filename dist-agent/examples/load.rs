//! Drives a cluster of counters from many clients at once, and proves that no acknowledged command was lost or doubled.
//!
//! It makes the counters, or finds those of an earlier run and notes what they say, adds one to random ones for a while,
//! reads every counter and compares what came to it with what the clients were told. Lines of JSON on stdout say how it
//! goes; the exit code is 1 if anything was lost or doubled. Two that run at the same time take each other's commands for
//! doubled.

#[path = "demo/counter.rs"]
mod counter;
mod demo;
#[path = "load/tally.rs"]
mod tally;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use counter::{Add, Ask, Counter};
use demo::Membership;
use dist_agent::raft_kv::rafted_value::env::{Env, MonoTime, sleep};
use dist_agent::{AgentError, AgentHandle, AgentQueryError, DistAgent, DistAgentConfig, QuotaLimit};
use futures_util::future::{Either, select};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tally::Tally;
use tokio::sync::mpsc;

/// Drives a cluster of counters
#[derive(Parser)]
struct Options {
    /// How many counters
    #[arg(long, value_name = "N", default_value_t = 5000)]
    agents: usize,
    /// How many clients send commands at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    clients: usize,
    /// For how long
    #[arg(long, value_name = "S", default_value_t = 20)]
    seconds: u64,
    /// Ends the program, with nothing proven, when its standard input is closed
    #[arg(long)]
    exit_on_stdin_close: bool,
    /// Sends no more commands, and compares, when its standard input is closed
    #[arg(long, conflicts_with = "exit_on_stdin_close")]
    compare_on_stdin_close: bool,
    #[command(flatten)]
    membership: Membership,
}

/// Long enough to ride out the failover of a shard: the same command is tried again, and runs once.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a line of progress is printed.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// A client that was refused waits for this long.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);
/// How often a counter is made or read again before that is given up.
const TRIES_MAX: u32 = 8;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    demo::log_to_stderr();
    let told = demo::told_to_end(options.exit_on_stdin_close);
    let result = match select(Box::pin(run(options)), Box::pin(told)).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Err("it was ended before it had compared anything".into()),
    };
    demo::end("load", result)
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    if options.agents == 0 || options.clients == 0 || options.seconds == 0 {
        return Err("--agents, --clients and --seconds must be above 0".into());
    }
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    // It has no address: nobody needs to dial a client, or to look for one that has gone.
    let (endpoint, env) = options.membership.open(any_port, Some(String::new()), None, None).await?;
    let mut config = DistAgentConfig::default();
    config.fleet.seeds = options.membership.seeds;
    config.call.timeout = CALL_TIMEOUT;
    let cluster = DistAgent::connect(Arc::clone(&env), config).await?;
    cluster.put_quota("demo", QuotaLimit::Unlimited).await?;
    let agents = (0..options.agents)
        .map(|number| cluster.agent::<Counter>("demo", &format!("counter-{number}")))
        .collect::<Result<Vec<_>, _>>()?;
    let agents: Arc<[_]> = agents.into();

    let before = create(&agents, options.clients).await?;
    demo::print(&json!({ "event": "created", "agents": agents.len() }));
    let enough = Arc::new(AtomicBool::new(false));
    if options.compare_on_stdin_close {
        let enough = Arc::clone(&enough);
        let closed = demo::stdin_closed();
        env.spawn(
            "enough",
            Box::pin(async move {
                closed.await;
                enough.store(true, Ordering::Relaxed);
            }),
        );
    }
    let time = Duration::from_secs(options.seconds);
    let tally = drive(&env, &agents, options.clients, time, &enough).await;
    let after = read(&agents, options.clients).await?;
    let verdict = tally.compare(&before, &after);
    demo::print(&verdict.result);
    cluster.shutdown().await;
    // The nodes are told that this client is gone, and need not look for it.
    endpoint.close().await;
    match (verdict.lost, verdict.doubled) {
        (0, 0) => Ok(()),
        (lost, doubled) => Err(format!("{lost} commands lost, {doubled} doubled").into()),
    }
}

/// Activates every counter; what each says, which is more than zero after an earlier run.
async fn create(agents: &[AgentHandle<Counter>], at_a_time: usize) -> Result<Vec<u64>, Box<dyn Error>> {
    let create = |agent: AgentHandle<Counter>| async move {
        let mut tries = 0;
        loop {
            tries += 1;
            match agent.command(Add(0)).await {
                Ok(total) => return Ok(total),
                // Adding nothing may well happen twice.
                Err(_) if tries < TRIES_MAX => {}
                Err(error) => return Err(format!("{} was not created: {error}", agent.id())),
            }
        }
    };
    Ok(stream::iter(agents.to_vec()).map(create).buffered(at_a_time).try_collect().await?)
}

/// Lets the clients loose, and prints how it goes until they have ended.
async fn drive(
    env: &Arc<dyn Env>,
    agents: &Arc<[AgentHandle<Counter>]>,
    clients: usize,
    duration: Duration,
    enough: &Arc<AtomicBool>,
) -> Arc<Tally> {
    let start = env.now();
    let tally = Arc::new(Tally::new(agents.len(), start));
    let (running, mut ended) = mpsc::channel::<()>(1);
    for _ in 0..clients {
        let (env, agents, tally, running) = (env.clone(), agents.clone(), tally.clone(), running.clone());
        let (door, enough) = (Arc::clone(&env), Arc::clone(enough));
        let client = async move {
            drive_one(env.as_ref(), &agents, &tally, start + duration, &enough).await;
            drop(running);
        };
        door.spawn("client", Box::pin(client));
    }
    drop(running);
    let progress = async {
        loop {
            sleep(env.as_ref(), PROGRESS_INTERVAL).await;
            tally.progress(env.now()).iter().for_each(demo::print);
        }
    };
    let all_ended = Box::pin(ended.recv());
    select(all_ended, Box::pin(progress)).await;
    tally.finish(env.now());
    tally
}

/// One client: one command after the other.
async fn drive_one(
    env: &dyn Env,
    agents: &[AgentHandle<Counter>],
    tally: &Tally,
    end: MonoTime,
    enough: &AtomicBool,
) {
    loop {
        let begin = env.now();
        if begin >= end || enough.load(Ordering::Relaxed) {
            return;
        }
        let index = (env.random_u64() % agents.len() as u64) as usize;
        match agents[index].command(Add(1)).await {
            Ok(_) => tally.acknowledged(index, begin, env.now()),
            Err(AgentError::Unknown(error)) => {
                tracing::warn!(%error, "perhaps applied");
                tally.unknown(index);
            }
            Err(AgentError::NotApplied(error)) => {
                tracing::warn!(%error, "not applied");
                tally.not_applied();
                sleep(env, REFUSED_PAUSE).await;
            }
        }
    }
}

/// What every counter says.
async fn read(agents: &[AgentHandle<Counter>], at_a_time: usize) -> Result<Vec<u64>, Box<dyn Error>> {
    let read = |agent: AgentHandle<Counter>| async move {
        let mut tries = 0;
        loop {
            tries += 1;
            match agent.query(Ask::Total).await {
                Ok(value) => return Ok(value),
                // It was created: an agent that is gone has lost everything.
                Err(AgentQueryError::AgentNotFound(_)) => return Ok(0),
                Err(_) if tries < TRIES_MAX => {}
                Err(error) => return Err(format!("{} was not read: {error}", agent.id())),
            }
        }
    };
    Ok(stream::iter(agents.to_vec()).map(read).buffered(at_a_time).try_collect().await?)
}
