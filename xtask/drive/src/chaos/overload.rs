//! Ten times what the cluster can do, for a while: it must go on doing nearly as much as before, refuse the rest at once,
//! not grow, and have counted each command once that it said was done, and none that it refused.
//!
//! Commands do some work, as those of users do: else whoever sends them is busier than the nodes, and what is measured is
//! what the flood costs its sender. Several clients send them, each of which lets a limited number be under way: what they
//! let through together is more than the nodes can do in the time that a command has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use comfy_table::Table;
use dist_agent::raft_kv::KvNotApplied;
use dist_agent::{AgentError, AgentHandle, AgentNotApplied, AgentQueryError, DistAgent};
use futures_util::FutureExt;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use rafted_value::NotApplied;
use rafted_value::env::Env;

use super::Arguments;
use super::clients::wait;
use super::cluster::Cluster;
use super::tally::{Count, Tally, Total, rounds_in};
use crate::bench::BoxError;
use crate::bench::usage::of_this_process;
use crate::sim::stack::load::{QUOTA, key};

/// Agents that the load is spread over.
const AGENTS: u64 = 256;
/// Clients that send it.
const CLIENTS: u64 = 8;
/// Commands under way at a time while the peak is looked for.
const CLOSED: [u64; 4] = [64, 256, 1_024, 2_048];
/// How long each of them is measured.
const CLOSED_TIME: Duration = Duration::from_secs(4);
/// How long a command may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How many times the peak is sent.
const TIMES: u64 = 10;
/// What must be left of the peak.
const GOODPUT_MIN: f64 = 0.7;
/// By how much the largest node may grow, in MiB, beside what its values and its log need.
const GROWTH_MAX_MIB: u64 = 1_024;
/// A refusal takes longer than this only where the machine is the bottleneck, and not the cluster.
const REFUSED_MAX: Duration = Duration::from_millis(100);
/// Latencies above a minute are counted as a minute.
const MICROS_MAX: u64 = 60_000_000;
/// How often it is looked how large the nodes are.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the flood is poured.
const POUR_EVERY: Duration = Duration::from_millis(2);

/// What came of many commands.
struct Told {
    done: Mutex<Histogram<u64>>,
    refused: Mutex<Histogram<u64>>,
    other: AtomicU64,
    under_way: AtomicU64,
    under_way_max: AtomicU64,
}

impl Told {
    fn new() -> Arc<Self> {
        let histogram =
            || Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are far enough apart");
        Arc::new(Self {
            done: Mutex::new(histogram()),
            refused: Mutex::new(histogram()),
            other: 0.into(),
            under_way: 0.into(),
            under_way_max: 0.into(),
        })
    }

    /// What came of a command.
    fn note(&self, result: &Result<(), AgentError>, begun: Instant) {
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(MICROS_MAX);
        match result {
            Ok(()) => self.done.lock().saturating_record(took),
            Err(error) if try_again_after(error).is_some() => self.refused.lock().saturating_record(took),
            Err(_) => {
                self.other.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn done(&self) -> u64 {
        self.done.lock().len()
    }

    /// How many commands must have been counted, and how many at most: those that ended otherwise may have been.
    fn counted(&self) -> (u64, u64) {
        (self.done(), self.done() + self.other.load(Ordering::Relaxed))
    }
}

/// After how long a command that was refused as too much may be tried again.
fn try_again_after(error: &AgentError) -> Option<Duration> {
    match error {
        AgentError::NotApplied(AgentNotApplied::Store(KvNotApplied::Group(NotApplied::Overloaded {
            retry_after_ms,
        }))) => Some(Duration::from_millis(*retry_after_ms)),
        _ => None,
    }
}

/// Who sends, and what.
#[derive(Clone)]
struct Senders {
    /// Every client's handles of all agents.
    agents: Arc<[Vec<AgentHandle<Tally>>]>,
    command: Count,
}

impl Senders {
    fn new(clients: &[DistAgent], command: Count) -> Self {
        Self { agents: clients.iter().map(agents).collect(), command }
    }

    /// One command, and what came of it. Where it was refused, after how long it may be tried again.
    async fn send(self, number: u64, told: Arc<Told>) -> Option<Duration> {
        let under_way = told.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        told.under_way_max.fetch_max(under_way, Ordering::Relaxed);
        let begun = Instant::now();
        let agents = &self.agents[(number % CLIENTS) as usize];
        let result = agents[(number / CLIENTS % AGENTS) as usize].command(self.command).await.map(|_| ());
        told.note(&result, begun);
        told.under_way.fetch_sub(1, Ordering::Relaxed);
        result.err().as_ref().and_then(try_again_after)
    }
}

fn agents(client: &DistAgent) -> Vec<AgentHandle<Tally>> {
    let agent = |number| {
        let handle = client.agent::<Tally>(QUOTA, &key(number as u16)).expect("a valid identity");
        handle.timeout(CALL_TIMEOUT)
    };
    (0..AGENTS).map(agent).collect()
}

/// What was seen.
struct Seen {
    peak: f64,
    sent: u64,
    time: Duration,
    told: Arc<Told>,
    /// Memory of the largest node in bytes, before the flood and at most.
    largest: (u64, u64),
    /// Commands a second afterwards.
    recovered: f64,
    /// What the agents have counted, and what they had to count at least and at most.
    counted: (u64, (u64, u64)),
}

/// Looks for the peak, then sends ten times as much, and judges.
///
/// # Errors
///
/// What did not hold.
pub(super) async fn run(arguments: &Arguments, cluster: &Cluster) -> Result<(), BoxError> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(cluster.connect().await?);
    }
    let (env, clients): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
    let env = &env[0];
    let rounds = rounds_in(Duration::from_micros(arguments.work_us.into()));
    println!("a command is {rounds} rounds of work, about {} us", arguments.work_us);
    let senders = Senders::new(&clients, Count { rounds });
    let (mut peak, mut all) = (0.0_f64, Vec::new());
    for workers in CLOSED {
        let (rate, told) = closed(env, &senders, workers).await;
        println!("{workers} commands under way at a time: {rate:.0}/s");
        peak = peak.max(rate);
        all.push(told);
    }
    let before = largest_node(cluster);
    let time = Duration::from_secs_f64(arguments.minutes * 60.0);
    let per_second = (peak * TIMES as f64) as u64;
    println!("{per_second} commands a second are sent for {:.0} s", time.as_secs_f64());
    let told = Told::new();
    let (sent, largest) = flood(env, &senders, cluster, (per_second, time), &told).await;
    while told.under_way.load(Ordering::Relaxed) > 0 {
        wait(POUR_EVERY).await;
    }
    let (recovered, last) = closed(env, &senders, CLOSED[1]).await;
    all.extend([told.clone(), last]);
    let expected =
        all.iter().map(|told| told.counted()).fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    let counted = (total(&clients[0]).await?, expected);
    let seen = Seen { peak, sent, time, told, largest: (before, largest), recovered, counted };
    seen.print()?;
    for client in &clients {
        client.shutdown().await;
    }
    seen.judge()
}

impl Seen {
    /// Commands a second that were done in the flood.
    fn goodput(&self) -> f64 {
        self.told.done() as f64 / self.time.as_secs_f64()
    }

    fn print(&self) -> Result<(), BoxError> {
        let Self { peak, sent, time, told, largest: (before, largest), recovered, counted } = self;
        let quantiles = |histogram: &Mutex<Histogram<u64>>| {
            let quantile = |at| histogram.lock().value_at_quantile(at) as f64 / 1_000.0;
            format!("{:.1} / {:.1} ms", quantile(0.5), quantile(0.99))
        };
        let goodput = self.goodput();
        let refused = told.refused.lock().len();
        let clients = of_this_process()?.resident_bytes >> 20;
        let (counted, (least, most)) = counted;
        let mut table = Table::new();
        for (what, figure) in [
            ("peak, commands/s", format!("{peak:.0}")),
            ("sent, commands/s", format!("{:.0}", *sent as f64 / time.as_secs_f64())),
            ("done, commands/s", format!("{goodput:.0} ({:.0} %)", 100.0 * goodput / peak)),
            ("done, p50 / p99", quantiles(&told.done)),
            ("refused as overloaded", refused.to_string()),
            ("refused after, p50 / p99", quantiles(&told.refused)),
            ("told otherwise", told.other.load(Ordering::Relaxed).to_string()),
            ("under way at a time at most", told.under_way_max.load(Ordering::Relaxed).to_string()),
            ("largest node before / at most, MiB", format!("{} / {}", before >> 20, largest >> 20)),
            ("the clients' process at the end, MiB", clients.to_string()),
            ("afterwards, commands/s", format!("{recovered:.0}")),
            ("counted / at least / at most", format!("{counted} / {least} / {most}")),
        ] {
            table.add_row([what.to_owned(), figure]);
        }
        println!("{table}");
        Ok(())
    }

    /// Whether all of it held.
    fn judge(&self) -> Result<(), BoxError> {
        let (counted, (least, most)) = self.counted;
        if !(least..=most).contains(&counted) {
            return Err(format!("{counted} commands were counted, of {least} to {most} that ran").into());
        }
        let (goodput, peak, (before, largest)) = (self.goodput(), self.peak, self.largest);
        if goodput < GOODPUT_MIN * peak {
            return Err(format!("{goodput:.0} commands/s are left of {peak:.0}").into());
        }
        if (largest.saturating_sub(before)) >> 20 > GROWTH_MAX_MIB {
            return Err(format!("a node grew from {} to {} MiB", before >> 20, largest >> 20).into());
        }
        let refused = self.told.refused.lock();
        let median = Duration::from_micros(refused.value_at_quantile(0.5));
        if !refused.is_empty() && median > REFUSED_MAX {
            return Err(format!("half of the refusals took longer than {median:?}").into());
        }
        Ok(())
    }
}

fn largest_node(cluster: &Cluster) -> u64 {
    cluster.resident_bytes().into_iter().max().unwrap_or(0)
}

/// What the agents have counted.
async fn total(client: &DistAgent) -> Result<u64, AgentQueryError> {
    let mut total = 0;
    for agent in agents(client) {
        total += agent.query(Total).await?;
    }
    Ok(total)
}

/// Commands a second with so many under way at a time, and what came of them.
async fn closed(env: &Arc<dyn Env>, senders: &Senders, workers: u64) -> (f64, Arc<Told>) {
    let (told, stop) = (Told::new(), Arc::new(AtomicBool::new(false)));
    for worker in 0..workers {
        let (senders, told, stop) = (senders.clone(), told.clone(), stop.clone());
        env.spawn(
            "client",
            Box::pin(async move {
                let mut number = worker;
                while !stop.load(Ordering::Relaxed) {
                    number = number.wrapping_add(workers);
                    if let Some(after) = senders.clone().send(number, told.clone()).await {
                        wait(after).await;
                    }
                }
            }),
        );
    }
    // Agents are activated, and leaders found, before it counts.
    wait(CLOSED_TIME / 4).await;
    let (begun, before) = (Instant::now(), told.done());
    wait(CLOSED_TIME).await;
    let rate = (told.done() - before) as f64 / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    while told.under_way.load(Ordering::Relaxed) > 0 {
        wait(POUR_EVERY).await;
    }
    (rate, told)
}

/// Sends so many a second whatever comes of them; how many that were, and how large a node became.
async fn flood(
    env: &Arc<dyn Env>,
    senders: &Senders,
    cluster: &Cluster,
    (per_second, time): (u64, Duration),
    told: &Arc<Told>,
) -> (u64, u64) {
    let begun = Instant::now();
    let (mut sent, mut passed, mut largest, mut look) = (0, 0, 0, Duration::ZERO);
    while begun.elapsed() < time {
        let due = (begun.elapsed().as_secs_f64() * per_second as f64) as u64;
        // What the clients' machine does not get done in time is not caught up with: it would be one burst.
        let burst = (due - passed).min(per_second / 50 + 1);
        for number in sent..sent + burst {
            // A task is made only for those that have to wait, and each takes its room before the next is looked at.
            let mut call = Box::pin(senders.clone().send(number, told.clone()).map(|_| ()));
            if call.as_mut().now_or_never().is_none() {
                env.spawn("client", call);
            }
        }
        sent += burst;
        passed = due;
        if begun.elapsed() >= look {
            largest = largest_node(cluster).max(largest);
            look += LOOK_EVERY;
        }
        wait(POUR_EVERY).await;
    }
    (sent, largest)
}
