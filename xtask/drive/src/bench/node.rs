//! A node process of the bench: a host over QUIC that does what it is told, line by line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use batched_comm::{Endpoint, EndpointConfig, Identity};
use bytes::Bytes;
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use rafted_value::env::{Env, RealEnv, random_u64_from_os};
use rafted_value::{
    ClientSession, CommandContext, Data, Found, Freshness, GroupConfig, GroupError, GroupId, Host,
    HostConfig, NodeId, Registry, SessionId, encode,
};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::protocol::{Answer, Kind, Loaded, Order};
use super::{echo, usage};
use crate::bench::BoxError;

/// Latencies above a minute are counted as a minute.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Which node this process is.
#[derive(clap::Args, Clone)]
pub(crate) struct Arguments {
    /// Its number, from 1.
    #[arg(long)]
    number: u64,
    /// The addresses of all nodes, in the order of their numbers.
    #[arg(long, value_delimiter = ',')]
    addresses: Vec<SocketAddr>,
    /// Threads of its runtime.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Where the certificates are.
    #[arg(long)]
    certificates: PathBuf,
}

/// A counter, as small as a value can be.
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

/// Runs the node until it is told to quit, or its orders end.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BoxError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(arguments.threads).enable_all().build()?;
    // On a worker, where tasks wake each other without crossing threads.
    let arguments = arguments.clone();
    runtime.block_on(async { tokio::spawn(async move { serve(&arguments).await }).await? })
}

async fn serve(arguments: &Arguments) -> Result<(), BoxError> {
    let name = format!("node-{}", arguments.number);
    let pem = |end: &str| arguments.certificates.join(format!("{name}.{end}"));
    let identity = Identity::from_files(arguments.certificates.join("ca.pem"), pem("pem"), pem("key"))?;
    let listen = *arguments.addresses.get(arguments.number as usize - 1).ok_or("the node has no address")?;
    let config = EndpointConfig::new(listen, batched_comm::NodeId(arguments.number), name.clone(), identity);
    let env = RealEnv::over_quic(Endpoint::bind(config).await?, name);
    for (number, address) in (1..).zip(&arguments.addresses) {
        env.transport().set_address(NodeId(number), &address.to_string());
    }
    let host = Host::start(env.clone(), HostConfig::default(), Registry::new().with::<Counter>());
    let node = BenchNode { env, host, nodes: arguments.addresses.len() as u64 };
    say(&Answer::Listening {
        echo: echo::serve(&arguments.certificates, &format!("node-{}", arguments.number))?,
    })?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match serde_json::from_str(&line)? {
            Order::Quit => return Ok(()),
            Order::Found { first, groups } => node.found_all(first, groups).await,
            Order::Load { first, groups, clients, seconds, kind } => {
                node.load(first, groups, clients, Duration::from_secs_f64(seconds), kind).await
            }
            Order::Echo { to, seconds } => {
                let time = Duration::from_secs_f64(seconds);
                let p50 = echo::round_trip_p50_us(&arguments.certificates, to, time).await;
                p50.map(|p50_us| Answer::Echoed { p50_us })
            }
            Order::Usage => usage::of_this_process().map(Answer::Usage),
        };
        say(&answer.unwrap_or_else(|error| Answer::Failed { reason: error.to_string() }))?;
    }
    Ok(())
}

fn say(answer: &Answer) -> Result<(), BoxError> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(())
}

struct BenchNode {
    env: Arc<RealEnv>,
    host: Host,
    nodes: u64,
}

impl BenchNode {
    async fn found_all(&self, first: u64, groups: u64) -> Result<Answer, BoxError> {
        for batch in (first..first + groups).collect::<Vec<_>>().chunks(64) {
            for result in join_all(batch.iter().map(|group| self.found(GroupId(*group)))).await {
                result?;
            }
        }
        Ok(Answer::Founded)
    }

    async fn found(&self, group: GroupId) -> Result<(), BoxError> {
        let config = GroupConfig::default();
        let nodes = vec![self.host.node()];
        self.host.found(Found { group, data: Counter::NAME.into(), config, nodes }).await?;
        for node in (1..=self.nodes).map(NodeId).filter(|node| *node != self.host.node()) {
            self.add_voter(group, node).await?;
        }
        Ok(())
    }

    async fn add_voter(&self, group: GroupId, node: NodeId) -> Result<(), BoxError> {
        let deadline = Instant::now() + Duration::from_secs(30);
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

    async fn load(
        &self,
        first: u64,
        groups: u64,
        clients: usize,
        time: Duration,
        kind: Kind,
    ) -> Result<Answer, BoxError> {
        let end = Instant::now() + time;
        let start = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let group = GroupId(first + client as u64 % groups);
                tokio::spawn(drive(self.env.clone(), self.host.clone(), group, end, kind))
            })
            .collect();
        let mut all = Histogram::<u64>::new_with_bounds(1, LATENCY_MAX_NS, 3)?;
        let mut errors = 0;
        for task in tasks {
            let (latencies, failed) = task.await?;
            all.add(latencies)?;
            errors += failed;
        }
        let us = |quantile: f64| all.value_at_quantile(quantile) as f64 / 1000.0;
        Ok(Answer::Loaded(Loaded {
            operations: all.len(),
            errors,
            seconds: start.elapsed().as_secs_f64(),
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
        }))
    }
}

/// One client in a closed loop; latencies in ns, and how many operations failed.
async fn drive(
    env: Arc<RealEnv>,
    host: Host,
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
                let result = host.command(group, command, limit).await;
                session.finish(sequence);
                result.is_ok()
            }
            Kind::Query => host.query(group, Freshness::Latest, Bytes::new(), limit).await.is_ok(),
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
