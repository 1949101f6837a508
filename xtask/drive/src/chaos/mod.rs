//! `chaos`: real node processes that are killed, stopped, cut off and deprived of their disks, and clients whose history
//! must still have one explanation.
//!
//! Where this program may make network namespaces it runs itself in a new one (`unshare`), with a node in each of its
//! own: links can be cut then, a small file system filled, and nothing is left behind when the last process has ended.
//! Elsewhere the nodes share the loopback interface, and the report says what was not tried.

mod clients;
mod cluster;
mod cores;
mod faults;
mod network;
pub(crate) mod node;
mod overload;
mod report;
mod slow_disk;
mod tally;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use dist_agent::DistAgent;
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use self::clients::Clients;
use self::cluster::Cluster;
use self::cores::Apart;
use self::network::Network;
use self::report::Report;
use crate::bench::{BoxError, children};

/// How rough it gets, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// For how long things break.
    #[arg(long, value_name = "M", default_value_t = 2.0)]
    minutes: f64,
    /// Node processes.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(3..=9))]
    nodes: u32,
    /// Clients that have one operation under way each.
    #[arg(long, value_name = "N", default_value_t = 16)]
    clients: u32,
    /// Agents that they speak to.
    #[arg(long, value_name = "N", default_value_t = 12)]
    agents: u16,
    /// Decides which faults happen and when; what follows from them is up to the machine.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Keep groups in memory; then a node dies only when every group has all its members.
    #[arg(long)]
    memory: bool,
    /// Cut no links and fill no disk, even where it is possible.
    #[arg(long)]
    plain: bool,
    /// Break only this, as often as it is named; all kinds if none is.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    only: Vec<faults::Kind>,
    /// Break nothing, and send ten times what the cluster can do.
    #[arg(long)]
    overload: bool,
    /// How long a command of the overload keeps a core of each of its replicas busy, in microseconds.
    #[arg(long, value_name = "N", default_value_t = 50, requires = "overload")]
    work_us: u32,
    /// Write the logs of the nodes and of the clients there, and leave them; RUST_LOG says what is in them.
    #[arg(long, value_name = "DIRECTORY")]
    logs: Option<PathBuf>,
    /// Already in a namespace of its own.
    #[arg(long, hide = true)]
    inside: bool,
}

/// A cluster forms, and is whole again after a fault, within this time.
const WHOLE_MAX: Duration = Duration::from_secs(120);
/// The longest and the shortest calm between two faults.
const CALM_MS: (u64, u64) = (500, 4_000);

/// Breaks things for as long as it is told to, and judges what clients were told.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BoxError> {
    if !arguments.inside && !arguments.plain && network::is_possible() {
        return Err(network::go_inside());
    }
    children::end_on_a_signal()?;
    log_clients(arguments)?;
    let seed = arguments.seed.unwrap_or_else(rafted_value::env::random_u64_from_os) % 1_000_000_000;
    println!("seed {seed}; a run with it breaks the same things at the same times");
    let network = if arguments.inside { Network::of_namespaces()? } else { Network::of_loopback() };
    let apart = if arguments.overload { Apart::new()? } else { None };
    apart.as_ref().map_or(Ok(()), Apart::be_with_nodes)?;
    let cluster = Cluster::start(arguments, network)?;
    apart.as_ref().map_or(Ok(()), Apart::be_with_clients)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if arguments.overload {
        match apart.as_ref().map(Apart::counts) {
            Some((clients, nodes)) => println!("clients run on {clients} cores, nodes on {nodes} others"),
            None => println!("clients and nodes share the one core"),
        }
    }
    let result = runtime.block_on(play(arguments, cluster, seed));
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

/// The clients say what they do beside the nodes' logs, where somebody wants those.
fn log_clients(arguments: &Arguments) -> Result<(), BoxError> {
    let Some(logs) = &arguments.logs else { return Ok(()) };
    std::fs::create_dir_all(logs)?;
    let file = Mutex::new(File::create(logs.join("clients.log"))?);
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(file).init();
    Ok(())
}

async fn play(arguments: &Arguments, mut cluster: Cluster, seed: u64) -> Result<(), BoxError> {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let begun = Instant::now();
    cluster.until_whole(WHOLE_MAX).await.map_err(|why| format!("no cluster forms: {why}"))?;
    println!("{} nodes form a cluster after {} ms", arguments.nodes, begun.elapsed().as_millis());
    if arguments.overload {
        return overload::run(arguments, &cluster).await;
    }
    let (env, client) = cluster.connect().await?;
    let clients = Clients::start(env, &client, arguments, seed);
    let mut report = Report::begin(arguments, seed, &cluster)?;
    while let Some(left) = report.time_left() {
        let calm = CALM_MS.0 + rng.next_u64() % (CALM_MS.1 - CALM_MS.0);
        clients::wait(Duration::from_millis(calm).min(left)).await;
        if children::is_interrupted() || report.time_left().is_none() {
            break;
        }
        let told = clients.told();
        let broken = faults::break_something(&mut cluster, &mut rng, &arguments.only).await?;
        let mended = Instant::now();
        let whole = cluster.until_whole(WHOLE_MAX).await;
        report.add(broken, whole.map(|()| mended.elapsed()), clients.waits(), clients.told() - told);
        if let Some(why) = report.gave_up() {
            return finish(clients, client, cluster, report, Err(why.into())).await;
        }
    }
    finish(clients, client, cluster, report, Ok(())).await
}

/// Ends the clients, reads every agent and compares.
async fn finish(
    clients: Clients,
    client: DistAgent,
    cluster: Cluster,
    mut report: Report,
    so_far: Result<(), BoxError>,
) -> Result<(), BoxError> {
    clients.stop().await?;
    let verdict = match so_far {
        _ if children::is_interrupted() => {
            Err("interrupted: the nodes are gone, and nothing is compared".into())
        }
        Ok(()) => clients.compare(&client).await,
        Err(why) => Err(why),
    };
    report.print(&clients, &cluster, &verdict);
    client.shutdown().await;
    verdict
}
