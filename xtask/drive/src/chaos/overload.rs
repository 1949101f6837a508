//! Ten times what the cluster can do, for a while: it must go on doing nearly as much as before, refuse the rest at once,
//! and not grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use comfy_table::Table;
use dist_agent::raft_kv::KvNotApplied;
use dist_agent::{AgentError, AgentHandle, AgentNotApplied, DistAgent};
use futures_util::FutureExt;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use rafted_value::NotApplied;
use rafted_value::env::Env;

use super::Arguments;
use super::clients::wait;
use super::cluster::Cluster;
use crate::bench::BoxError;
use crate::bench::usage::of_this_process;
use crate::sim::stack::ledger::{Ledger, Write};
use crate::sim::stack::load::{QUOTA, key};

/// Agents that the load is spread over.
const AGENTS: u64 = 256;
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
    fn note(&self, result: Result<(), AgentError>, begun: Instant) {
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(MICROS_MAX);
        match result {
            Ok(()) => self.done.lock().saturating_record(took),
            Err(AgentError::NotApplied(AgentNotApplied::Store(KvNotApplied::Group(
                NotApplied::Overloaded { .. },
            )))) => self.refused.lock().saturating_record(took),
            Err(_) => {
                self.other.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn done(&self) -> u64 {
        self.done.lock().len()
    }
}

/// The agents that are called.
type Agents = Arc<[AgentHandle<Ledger>]>;

fn agents(client: &DistAgent) -> Agents {
    let agent = |number| {
        let handle = client.agent::<Ledger>(QUOTA, &key(number as u16)).expect("a valid identity");
        handle.timeout(CALL_TIMEOUT)
    };
    (0..AGENTS).map(agent).collect()
}

/// One command, and what came of it.
async fn send(agents: Agents, number: u64, told: Arc<Told>) {
    let under_way = told.under_way.fetch_add(1, Ordering::Relaxed) + 1;
    told.under_way_max.fetch_max(under_way, Ordering::Relaxed);
    let begun = Instant::now();
    let result = agents[(number % AGENTS) as usize].command(Write::Append(number as u32)).await;
    told.note(result.map(|_| ()), begun);
    told.under_way.fetch_sub(1, Ordering::Relaxed);
}

/// One command that most likely is refused at once, and then needs no task; whether it has come to its end. One that has not
/// is walked away from before it was sent.
fn is_refused(agents: &Agents, number: u64, told: &Told) -> bool {
    let begun = Instant::now();
    let result = agents[(number % AGENTS) as usize].command(Write::Append(number as u32)).now_or_never();
    result.map(|result| told.note(result.map(|_| ()), begun)).is_some()
}

/// Looks for the peak, then sends ten times as much, and judges.
///
/// # Errors
///
/// What did not hold.
pub(super) async fn run(arguments: &Arguments, cluster: &Cluster) -> Result<(), BoxError> {
    let (env, client) = cluster.connect().await?;
    let mut peak = 0.0_f64;
    for workers in CLOSED {
        let rate = closed(&env, &client, workers).await;
        println!("{workers} commands under way at a time: {rate:.0}/s");
        peak = peak.max(rate);
    }
    let before = largest_node(cluster);
    let time = Duration::from_secs_f64(arguments.minutes * 60.0);
    let per_second = (peak * TIMES as f64) as u64;
    println!("{per_second} commands a second are sent for {:.0} s", time.as_secs_f64());
    let told = Told::new();
    let (sent, largest) = flood(&env, &client, cluster, (per_second, time), &told).await;
    let goodput = told.done() as f64 / time.as_secs_f64();
    while told.under_way.load(Ordering::Relaxed) > 0 {
        wait(POUR_EVERY).await;
    }
    let recovered = closed(&env, &client, CLOSED[1]).await;
    let (own, refused) = (of_this_process()?.resident_bytes >> 20, told.refused.lock().len());
    let quantile = |histogram: &Mutex<Histogram<u64>>, quantile: f64| {
        format!("{:.1} ms", histogram.lock().value_at_quantile(quantile) as f64 / 1_000.0)
    };
    let mut table = Table::new();
    table.add_row(["peak, commands/s".to_owned(), format!("{peak:.0}")]);
    table.add_row(["sent, commands/s".to_owned(), format!("{:.0}", sent as f64 / time.as_secs_f64())]);
    table.add_row(["done, commands/s".to_owned(), format!("{goodput:.0} ({:.0} %)", 100.0 * goodput / peak)]);
    table.add_row([
        "done, p50 / p99".to_owned(),
        format!("{} / {}", quantile(&told.done, 0.5), quantile(&told.done, 0.99)),
    ]);
    table.add_row(["refused as overloaded".to_owned(), refused.to_string()]);
    table.add_row([
        "refused after, p50 / p99".to_owned(),
        format!("{} / {}", quantile(&told.refused, 0.5), quantile(&told.refused, 0.99)),
    ]);
    table.add_row(["told otherwise".to_owned(), told.other.load(Ordering::Relaxed).to_string()]);
    let most = told.under_way_max.load(Ordering::Relaxed);
    table.add_row(["under way at a time at most".to_owned(), most.to_string()]);
    table.add_row([
        "largest node before / at most, MiB".to_owned(),
        format!("{} / {}", before >> 20, largest >> 20),
    ]);
    table.add_row(["the clients' process at the end, MiB".to_owned(), own.to_string()]);
    table.add_row(["afterwards, commands/s".to_owned(), format!("{recovered:.0}")]);
    println!("{table}");
    client.shutdown().await;
    if goodput < GOODPUT_MIN * peak {
        return Err(format!("{goodput:.0} commands/s are left of {peak:.0}").into());
    }
    if (largest.saturating_sub(before)) >> 20 > GROWTH_MAX_MIB {
        return Err(format!("a node grew from {} to {} MiB", before >> 20, largest >> 20).into());
    }
    let median = Duration::from_micros(told.refused.lock().value_at_quantile(0.5));
    if refused > 0 && median > REFUSED_MAX {
        return Err(format!("half of the refusals took longer than {median:?}").into());
    }
    Ok(())
}

fn largest_node(cluster: &Cluster) -> u64 {
    cluster.resident_bytes().into_iter().max().unwrap_or(0)
}

/// Commands a second with so many under way at a time.
async fn closed(env: &Arc<dyn Env>, client: &DistAgent, workers: u64) -> f64 {
    let (told, stop) = (Told::new(), Arc::new(AtomicBool::new(false)));
    let agents = agents(client);
    for worker in 0..workers {
        let (agents, told, stop) = (agents.clone(), told.clone(), stop.clone());
        env.spawn(
            "client",
            Box::pin(async move {
                let mut number = worker;
                while !stop.load(Ordering::Relaxed) {
                    number = number.wrapping_add(workers);
                    send(agents.clone(), number, told.clone()).await;
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
    rate
}

/// Sends so many a second whatever comes of them; how many that were, and how large a node became.
async fn flood(
    env: &Arc<dyn Env>,
    client: &DistAgent,
    cluster: &Cluster,
    (per_second, time): (u64, Duration),
    told: &Arc<Told>,
) -> (u64, u64) {
    let (agents, begun) = (agents(client), Instant::now());
    let (mut sent, mut passed, mut largest, mut look) = (0, 0, 0, Duration::ZERO);
    while begun.elapsed() < time {
        let due = (begun.elapsed().as_secs_f64() * per_second as f64) as u64;
        // What the clients' machine does not get done in time is not caught up with: it would be one burst.
        let burst = (due - passed).min(per_second / 50 + 1);
        for number in sent..sent + burst {
            // What costs the flood time is missing to the cluster, which runs on the same machine.
            if client.fleet().check_room().is_ok() || !is_refused(&agents, number, told) {
                env.spawn("client", Box::pin(send(agents.clone(), number, told.clone())));
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
