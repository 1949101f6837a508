//! A node process of the bench: a host over QUIC that does what it is told, line by line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use batched_comm::{Endpoint, EndpointConfig, Identity};
use bytes::Bytes;
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use rafted_value::disk::RealDisk;
use rafted_value::env::{Env, RealEnv, random_u64_from_os};
use rafted_value::transport::quic::QuicTransport;
use rafted_value::{
    ClientSession, Command, CommandContext, CommandError, Data, Found, Freshness, GroupCaller, GroupConfig,
    GroupError, GroupId, Host, HostConfig, NodeId, NotApplied, Registry, SessionId, encode,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

use super::blob::{Blob, Held};
use super::kv_node::KvNode;
use super::protocol::{Answer, Kind, Loaded, Order, Standing};
use super::{echo, usage};
use crate::bench::BoxError;

/// Latencies above a minute are counted as a minute.
pub(super) const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Orders that may wait.
const ORDERS_MAX: usize = 16;
/// A client of a group whose leader ends waits this long for one answer before it asks the next member.
const TRY_MAX: Duration = Duration::from_millis(50);
/// ... and gives up after this long.
const OUTLAST_MAX: Duration = Duration::from_secs(30);

/// Which node this process is.
#[derive(clap::Args, Clone)]
pub(crate) struct Arguments {
    /// Its number, from 1.
    #[arg(long)]
    pub(super) number: u64,
    /// The addresses of all nodes, in the order of their numbers.
    #[arg(long, value_delimiter = ',')]
    pub(super) addresses: Vec<SocketAddr>,
    /// A node of a fleet that so many found; a bare host, if not given.
    #[arg(long)]
    pub(super) fleet: Option<usize>,
    /// Threads of its runtime.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Where the certificates are.
    #[arg(long)]
    pub(super) certificates: PathBuf,
    /// Where it keeps its groups; in memory, if not given.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// A counter, as small as a value can be.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Counter(u64);

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

/// Runs the node until its orders end.
///
/// What it logs goes to the standard error output, where `RUST_LOG` asks for it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BoxError> {
    arguments.run(|arguments| async move {
        match arguments.fleet {
            Some(founders) => super::fleet::node::serve(&arguments, founders).await,
            None => serve(&arguments).await,
        }
    })
}

impl Arguments {
    /// Runs a node of any kind on a runtime of its own.
    pub(super) fn run<F: Future<Output = Result<(), BoxError>> + Send + 'static>(
        &self,
        serve: impl FnOnce(Self) -> F,
    ) -> Result<(), BoxError> {
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(self.threads).enable_all().build()?;
        // On a worker, where tasks wake each other without crossing threads.
        let node = serve(self.clone());
        runtime.block_on(async { tokio::spawn(node).await? })
    }
}

async fn serve(arguments: &Arguments) -> Result<(), BoxError> {
    let name = format!("node-{}", arguments.number);
    let pem = |end: &str| arguments.certificates.join(format!("{name}.{end}"));
    let identity = Identity::from_files(arguments.certificates.join("ca.pem"), pem("pem"), pem("key"))?;
    let listen = *arguments.addresses.get(arguments.number as usize - 1).ok_or("the node has no address")?;
    let config = EndpointConfig::new(listen, batched_comm::NodeId(arguments.number), name.clone(), identity);
    let transport = QuicTransport::new(Endpoint::bind(config).await?, name);
    let env = match &arguments.directory {
        Some(directory) => RealEnv::with_disk(transport, Arc::new(RealDisk::open(directory.join("store"))?)),
        None => RealEnv::new(transport),
    };
    for (number, address) in (1..).zip(&arguments.addresses) {
        env.transport().set_address(NodeId(number), &address.to_string());
    }
    let registry = Registry::new().with::<Counter>().with::<Blob>().with::<Held>();
    let host = Host::open(env.clone(), HostConfig::default(), registry).await?;
    let node = BenchNode { env, host, nodes: arguments.addresses.len() as u64 };
    say(&Answer::Listening {
        echo: echo::serve(&arguments.certificates, &format!("node-{}", arguments.number))?,
    })?;
    let mut kv = None;
    let mut lines = orders();
    while let Some(line) = lines.recv().await {
        let answer = match serde_json::from_str(&line)? {
            Order::Found { first, groups, lease } => node.found_all(first, groups, lease).await,
            Order::FoundLarge { group, held, bytes, carried } => {
                node.found_large(GroupId(group), held, bytes, carried).await
            }
            Order::Snapshot { group } => node.take_snapshot(GroupId(group)).await,
            Order::Renew { group, node: of } => node.renew(GroupId(group), NodeId(of)).await,
            Order::HandOver { group, to } => node.hand_over(GroupId(group), NodeId(to)).await,
            Order::Load { first, groups, clients, seconds, kind, leader } => {
                let time = Duration::from_secs_f64(seconds);
                node.load(first, groups, clients, time, kind, NodeId(leader)).await
            }
            Order::Sync { seconds } => sync(arguments, seconds).await,
            Order::Outlast { group, leader } => node.outlast(GroupId(group), NodeId(leader)).await,
            Order::Status { group } => Ok(Answer::Status(node.standing(GroupId(group)).await)),
            Order::Echo { to, seconds } => {
                let time = Duration::from_secs_f64(seconds);
                let p50 = echo::round_trip_p50_us(&arguments.certificates, to, time).await;
                p50.map(|p50_us| Answer::Echoed { p50_us })
            }
            Order::Usage => usage::of_this_process().map(Answer::Usage),
            Order::Kv(order) => match &kv {
                Some(node) => KvNode::carry_out(node, order).await,
                None => {
                    // The store has a host of its own, which takes over what others send to this node.
                    let seeds = arguments.addresses.iter().map(ToString::to_string).collect();
                    KvNode::start(node.env.clone(), seeds).await.map(|started| {
                        kv = Some(started);
                        Answer::Took { seconds: 0.0 }
                    })
                }
            },
            other => Err(format!("{other:?} is for another kind of node").into()),
        };
        say(&answer.unwrap_or_else(|error| Answer::Failed { reason: error.to_string() }))?;
    }
    Ok(())
}

/// The lines of orders. Where they end, so does the process, whatever it is doing: the bench is gone.
pub(super) fn orders() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(ORDERS_MAX);
    tokio::spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if sender.send(line).await.is_err() {
                return;
            }
        }
        std::process::exit(0);
    });
    receiver
}

pub(super) fn say(answer: &Answer) -> Result<(), BoxError> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(())
}

/// How often a second 100 bytes are appended to a file and synced, in the directory that holds the store.
async fn sync(arguments: &Arguments, seconds: f64) -> Result<Answer, BoxError> {
    let path = arguments.directory.as_ref().ok_or("the node has no directory")?.join("bare");
    let per_second = tokio::task::spawn_blocking(move || -> std::io::Result<f64> {
        let mut file = std::fs::File::create(path)?;
        let (start, time, mut syncs) = (Instant::now(), Duration::from_secs_f64(seconds), 0_u32);
        while start.elapsed() < time {
            file.write_all(&[7; 100])?;
            file.sync_data()?;
            syncs += 1;
        }
        Ok(f64::from(syncs) / start.elapsed().as_secs_f64())
    });
    Ok(Answer::Synced { per_second: per_second.await?? })
}

pub(super) struct BenchNode {
    env: Arc<RealEnv>,
    pub(super) host: Host,
    nodes: u64,
}

impl BenchNode {
    async fn found_all(&self, first: u64, groups: u64, lease: bool) -> Result<Answer, BoxError> {
        for batch in (first..first + groups).collect::<Vec<_>>().chunks(64) {
            for result in join_all(batch.iter().map(|group| self.found(GroupId(*group), lease))).await {
                result?;
            }
        }
        Ok(Answer::Founded)
    }

    async fn found(&self, group: GroupId, lease: bool) -> Result<(), BoxError> {
        let mut config = GroupConfig::default();
        if !lease {
            config.clock_drift_margin_ms = config.promise_ms;
        }
        let nodes = vec![self.host.node()];
        self.host.found(Found { group, data: Counter::NAME.into(), config, nodes }).await?;
        self.add_voters(group).await
    }

    /// A voter on every other node.
    pub(super) async fn add_voters(&self, group: GroupId) -> Result<(), BoxError> {
        for node in (1..=self.nodes).map(NodeId).filter(|node| *node != self.host.node()) {
            self.add_voter(group, node, Duration::from_secs(30)).await?;
        }
        Ok(())
    }

    pub(super) async fn add_voter(
        &self,
        group: GroupId,
        node: NodeId,
        time: Duration,
    ) -> Result<(), BoxError> {
        let deadline = Instant::now() + time;
        let mut learner = None;
        loop {
            let done = match learner {
                None => self.host.add_learner(group, node).await.map(|member| {
                    learner = Some(member);
                    false
                }),
                Some(member) => self.host.promote(group, member).await.map(|()| true),
            };
            match done {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(GroupError::NotCaughtUp { .. } | GroupError::ChangeInProgress(_))
                    if Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What its wall clock says.
    pub(super) fn now_ms(&self) -> u64 {
        self.env.wall_ms()
    }

    fn asked(&self, leader: NodeId) -> Asked {
        if leader == self.host.node() {
            Asked::Here(self.host.clone())
        } else {
            Asked::There(GroupCaller::new(self.env.clone()), leader)
        }
    }

    pub(super) async fn standing(&self, group: GroupId) -> Standing {
        let Some(status) = self.host.status(group).await else { return Standing::default() };
        let whole = status.members.len() as u64 == self.nodes
            && status.members.iter().all(|member| {
                member.member == status.member
                    || (member.voter
                        && member.responsive == Some(true)
                        && member.matched >= Some(status.commit_index))
            });
        Standing { leads: status.ready, whole, ..Standing::default() }
    }

    /// The time from the last reply of `leader`, which is about to end, to the first one of another.
    async fn outlast(&self, group: GroupId, leader: NodeId) -> Result<Answer, BoxError> {
        let caller = GroupCaller::new(self.env.clone());
        let mut session = ClientSession::new(SessionId::new(random_u64_from_os(), random_u64_from_os()), 1);
        let deadline = Instant::now() + OUTLAST_MAX;
        let (mut asked, mut last) = (leader, None::<Instant>);
        while Instant::now() < deadline {
            let until = self.env.wall_ms() + 60_000;
            let command = session.begin(until, 0, encode(&1u64)).expect("one at a time");
            // The same command until it is answered, as a client does.
            while Instant::now() < deadline {
                match caller.command_at(asked, group, &command, TRY_MAX).await {
                    Ok(_) => break,
                    Err(CommandError::NotApplied(NotApplied::NotLeader { leader: Some(node), .. }))
                        if node != asked && node != leader =>
                    {
                        asked = node;
                    }
                    Err(_) => {
                        asked = NodeId(asked.0 % self.nodes + 1);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            }
            session.finish(command.sequence);
            let now = Instant::now();
            match last {
                Some(before) if asked != leader => {
                    let outage_ms = (now - before).as_secs_f64() * 1000.0;
                    return Ok(Answer::Outlasted { outage_ms });
                }
                _ => last = Some(now),
            }
        }
        Err(format!("nobody else led group {group} within {} s", OUTLAST_MAX.as_secs()).into())
    }

    async fn load(
        &self,
        first: u64,
        groups: u64,
        clients: usize,
        time: Duration,
        kind: Kind,
        leader: NodeId,
    ) -> Result<Answer, BoxError> {
        let end = Instant::now() + time;
        let start = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let group = GroupId(first + client as u64 % groups);
                tokio::spawn(drive(self.env.clone(), self.asked(leader), group, end, kind))
            })
            .collect();
        gather(tasks, start).await
    }
}

/// What all clients of a load have measured.
pub(super) async fn gather(
    tasks: Vec<tokio::task::JoinHandle<(Histogram<u64>, u64)>>,
    start: Instant,
) -> Result<Answer, BoxError> {
    let (latencies, errors) = joined(tasks).await?;
    Ok(Answer::Loaded(Loaded::of(&latencies, errors, start.elapsed())))
}

/// The latencies and the failures of all clients together.
pub(super) async fn joined(
    tasks: Vec<tokio::task::JoinHandle<(Histogram<u64>, u64)>>,
) -> Result<(Histogram<u64>, u64), BoxError> {
    let mut all = Histogram::<u64>::new_with_bounds(1, LATENCY_MAX_NS, 3)?;
    let mut errors = 0;
    for task in tasks {
        let (latencies, failed) = task.await?;
        all.add(latencies)?;
        errors += failed;
    }
    Ok((all, errors))
}

/// Whom a client asks.
pub(super) enum Asked {
    /// The member on its own node.
    Here(Host),
    /// The member on another node.
    There(GroupCaller, NodeId),
}

impl Asked {
    async fn command(&self, group: GroupId, command: Command, limit: Duration) -> bool {
        match self {
            Asked::Here(host) => host.command(group, command, limit).await.is_ok(),
            Asked::There(caller, node) => caller.command_at(*node, group, &command, limit).await.is_ok(),
        }
    }

    async fn query(&self, group: GroupId, limit: Duration) -> bool {
        let (freshness, nothing) = (Freshness::Latest, Bytes::new());
        match self {
            Asked::Here(host) => host.query(group, freshness, nothing, limit).await.is_ok(),
            Asked::There(caller, node) => {
                caller.query_at(*node, group, freshness, nothing, limit).await.is_ok()
            }
        }
    }
}

/// One client in a closed loop; latencies in ns, and how many operations failed.
pub(super) async fn drive(
    env: Arc<RealEnv>,
    asked: Asked,
    group: GroupId,
    end: Instant,
    kind: Kind,
) -> (Histogram<u64>, u64) {
    let mut latencies = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("the bounds are in order");
    let mut errors = 0;
    let mut session = ClientSession::new(SessionId::new(random_u64_from_os(), random_u64_from_os()), 1);
    let add: Bytes = encode(&1u64);
    let limit = Duration::from_secs(10);
    let mut now = Instant::now();
    while now < end {
        let ok = match kind {
            Kind::Command => {
                let until = env.wall_ms() + 60_000;
                let command = session.begin(until, 0, add.clone()).expect("one at a time");
                let sequence = command.sequence;
                let ok = asked.command(group, command, limit).await;
                session.finish(sequence);
                ok
            }
            Kind::Query => asked.query(group, limit).await,
        };
        let after = Instant::now();
        if ok {
            let nanos = u64::try_from((after - now).as_nanos()).unwrap_or(u64::MAX);
            latencies.saturating_record(nanos.max(1));
        } else {
            errors += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        now = after;
    }
    (latencies, errors)
}
