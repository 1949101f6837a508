//! A node process of a fleet that does what it is told, line by line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use batched_comm::{Endpoint, EndpointConfig, Identity};
use dist_agent::raft_kv::raft_fleet::{CallOptions, Fleet, FleetConfig, GroupConfig, GroupName};
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use rafted_value::env::{RealEnv, random_u64_from_os};
use rafted_value::transport::quic::QuicTransport;
use rafted_value::{Data, GroupId, Registry, encode};

use crate::bench::node::{Arguments, Asked, Counter, LATENCY_MAX_NS, drive, gather, orders, say};
use crate::bench::protocol::{Answer, FleetOrder, Kind, Order};
use crate::bench::{BoxError, usage};

/// Groups that one order to add them adds at a time.
const ADDED_AT_A_TIME: usize = 64;
/// How often a node looks whether all is where it should be.
const SETTLE_POLL: Duration = Duration::from_millis(200);
/// The most for a fleet to settle, or for a node to be empty.
const SETTLE_MAX: Duration = Duration::from_secs(240);

/// Starts the node, and does what it is told until its orders end.
pub(crate) async fn serve(arguments: &Arguments, founders: usize) -> Result<(), BoxError> {
    let name = format!("node-{}", arguments.number);
    let pem = |end: &str| arguments.certificates.join(format!("{name}.{end}"));
    let identity = Identity::from_files(arguments.certificates.join("ca.pem"), pem("pem"), pem("key"))?;
    let listen = *arguments.addresses.get(arguments.number as usize - 1).ok_or("the node has no address")?;
    // In memory, so that each life is another node.
    let node = batched_comm::NodeId(random_u64_from_os());
    let endpoint = Endpoint::bind(EndpointConfig::new(listen, node, name.clone(), identity)).await?;
    let env = RealEnv::new(QuicTransport::new(endpoint.clone(), name));
    let config = FleetConfig {
        zone: format!("zone-{}", arguments.number % 3),
        seeds: arguments.addresses.iter().map(ToString::to_string).collect(),
        bootstrap_expect: founders,
        add_group_wait: SETTLE_MAX,
        ..FleetConfig::default()
    };
    let fleet = Fleet::start(env.clone(), config, Registry::new().with::<Counter>()).await?;
    let node = FleetNode { env, fleet, endpoint };
    say(&Answer::Listening { echo: listen })?;
    let mut lines = orders();
    while let Some(line) = lines.recv().await {
        let answer = match serde_json::from_str(&line)? {
            Order::Usage => usage::of_this_process().map(Answer::Usage),
            Order::Fleet(order) => node.obey(order).await,
            other => Err(format!("a node of a fleet is told {other:?}").into()),
        };
        say(&answer.unwrap_or_else(|error| Answer::Failed { reason: error.to_string() }))?;
    }
    Ok(())
}

struct FleetNode {
    env: Arc<RealEnv>,
    fleet: Fleet,
    endpoint: Endpoint,
}

fn group(number: usize) -> GroupName {
    GroupName::new(&format!("group-{number}")).expect("a short name")
}

impl FleetNode {
    async fn obey(&self, order: FleetOrder) -> Result<Answer, BoxError> {
        let start = Instant::now();
        match order {
            FleetOrder::Add { groups } => self.add(groups).await?,
            FleetOrder::Settle => self.settle().await?,
            FleetOrder::Load { groups, clients, seconds } => {
                return self.load(groups, clients, seconds).await;
            }
            FleetOrder::Direct { group, clients, seconds } => {
                return self.direct(group, clients, seconds).await;
            }
            FleetOrder::Leader { group } => return self.leader(group).await,
            FleetOrder::Gap { group, seconds } => return self.gap(group, seconds).await,
            FleetOrder::Drain => {
                self.fleet.deactivate().await?;
                self.fleet.drained(SETTLE_MAX).await?;
            }
            FleetOrder::Activate => self.fleet.activate("zone-0").await?,
            FleetOrder::Sent => {
                let sent = self.endpoint.counters().each().find(|(name, _)| *name == "bytes_sent");
                let (_, bytes) = sent.ok_or("the endpoint does not count its bytes")?;
                return Ok(Answer::Sent { bytes });
            }
        }
        Ok(Answer::Took { seconds: start.elapsed().as_secs_f64() })
    }

    async fn add(&self, groups: usize) -> Result<(), BoxError> {
        let numbers: Vec<usize> = (0..groups).collect();
        for some in numbers.chunks(ADDED_AT_A_TIME) {
            let add = |number: &usize| {
                self.fleet.add_group(group(*number), Counter::NAME, 3, GroupConfig::default())
            };
            for added in join_all(some.iter().map(add)).await {
                added?;
            }
        }
        Ok(())
    }

    async fn settle(&self) -> Result<(), BoxError> {
        let start = Instant::now();
        loop {
            let moves = self.fleet.moves().await.len();
            match moves {
                0 => return Ok(()),
                _ if start.elapsed() > SETTLE_MAX => {
                    return Err(format!("{moves} moves are left after {SETTLE_MAX:?}").into());
                }
                _ => tokio::time::sleep(SETTLE_POLL).await,
            }
        }
    }

    async fn load(&self, groups: usize, clients: usize, seconds: f64) -> Result<Answer, BoxError> {
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(seconds);
        let tasks = (0..clients).map(|client| {
            let fleet = self.fleet.clone();
            tokio::spawn(async move { by_name(&fleet, &group(client % groups), end).await })
        });
        gather(tasks.collect(), start).await
    }

    /// The same clients as a load's, with sessions of their own and no fleet in between.
    async fn direct(&self, number: usize, clients: usize, seconds: f64) -> Result<Answer, BoxError> {
        let id = self.id_of(number)?;
        let host = self.fleet.host().ok_or("a node has a host")?;
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(seconds);
        let asked = || Asked::Here(host.clone());
        let tasks =
            (0..clients).map(|_| tokio::spawn(drive(self.env.clone(), asked(), id, end, Kind::Command)));
        gather(tasks.collect(), start).await
    }

    fn id_of(&self, number: usize) -> Result<GroupId, BoxError> {
        let cluster = self.fleet.cluster();
        Ok(cluster.groups().get(&group(number)).ok_or("there is no such group")?.id)
    }

    async fn leader(&self, number: usize) -> Result<Answer, BoxError> {
        self.fleet.command(&group(number), 0, encode(&1_u64), &CallOptions::default()).await?;
        let leader = self.fleet.cached_leader(&group(number)).ok_or("nobody leads")?;
        let cluster = self.fleet.cluster();
        let name = &cluster.nodes().get(&leader).ok_or("a stranger leads")?.name;
        Ok(Answer::Led { node: name.trim_start_matches("node-").parse()? })
    }

    async fn gap(&self, number: usize, seconds: f64) -> Result<Answer, BoxError> {
        let (name, options) = (group(number), CallOptions::default().with_timeout(Duration::from_secs(30)));
        let start = Instant::now();
        let (mut last, mut longest) = (start, Duration::ZERO);
        while start.elapsed().as_secs_f64() < seconds {
            self.fleet.command(&name, 0, encode(&1_u64), &options).await?;
            let now = Instant::now();
            longest = longest.max(now - last);
            last = now;
        }
        Ok(Answer::Gap { longest_ms: longest.as_secs_f64() * 1000.0 })
    }
}

/// One client in a closed loop; latencies in ns, and how many operations failed.
async fn by_name(fleet: &Fleet, name: &GroupName, end: Instant) -> (Histogram<u64>, u64) {
    let mut latencies = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("the bounds are in order");
    let mut errors = 0;
    let (add, options) = (encode(&1_u64), CallOptions::default().with_timeout(Duration::from_secs(10)));
    let mut now = Instant::now();
    while now < end {
        let ok = fleet.command(name, 0, add.clone(), &options).await.is_ok();
        let after = Instant::now();
        if ok {
            let nanos = u64::try_from((after - now).as_nanos()).unwrap_or(u64::MAX);
            latencies.saturating_record(nanos.max(1));
        } else {
            errors += 1;
        }
        now = after;
    }
    (latencies, errors)
}
