//! A key-value store of three nodes in one process, with a line client.
//!
//! ```text
//! cargo run -p raft-kv --example store              # in memory
//! cargo run -p raft-kv --example store -- DIR       # kept in DIR, and there again the next time
//! ```
//!
//! It reads lines such as `set KEY VALUE`, `get KEY` and `shards` from its standard input, answers one line or more to
//! each, and ends with `quit` or its input; `help` names them all. A client that hosts nothing carries them out, so that any node may be
//! stopped and started in between.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of its own, with a thread that reads its terminal"
)]

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::BufRead;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use raft_kv::raft_fleet::{CallOptions, FleetConfig, NodeId};
use raft_kv::rafted_value::disk::{Disk, RealDisk};
use raft_kv::rafted_value::env::{Env, RealEnv, random_u64_from_os};
use raft_kv::rafted_value::node_on;
use raft_kv::rafted_value::transport::memory::MemoryNetwork;
use raft_kv::{
    BytesStore, Key, KeyspaceName, KeyspacePolicy, Kv, KvConfig, KvError, KvTypes, ListPosition,
    SplitMergePolicy,
};
use tokio::task::JoinHandle;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// Lines of the terminal that wait, at most.
const LINES_MAX: usize = 16;
/// Keys of one line of a scan.
const PAGE: u32 = 20;
/// How long the line that starts a node waits until it is part of the cluster.
const JOIN_WAIT: Duration = Duration::from_secs(10);

const HELP: &str = "\
set KEY VALUE | get KEY | del KEY
cas KEY OLD NEW      set NEW if the value is OLD; `-` is no value
scan [PREFIX]        the keys, in the order of their hashes
shards               what each shard holds
split SHARD          | merge SHARD NEIGHBOUR
policy               when shards are split and merged
policy max_keys N    split shards that have more keys than N; so with max_size, max_load, min_shards and max_shards,
                     several at a time; `policy off` for never
fill N               set as many keys, from key-0 on
stop NODE            | start NODE: node-1, node-2 or node-3
quit";

#[tokio::main]
async fn main() -> ExitCode {
    match run(std::env::args().nth(1)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(directory: Option<String>) -> Outcome<()> {
    if directory.as_ref().is_some_and(|directory| directory.starts_with('-')) {
        return Err("usage: store [DIR], the directory that the nodes keep what they have in".into());
    }
    let mut nodes = Nodes {
        network: MemoryNetwork::new(),
        directory,
        running: BTreeMap::new(),
        starting: BTreeMap::new(),
    };
    let starts: Vec<_> = NODES.into_iter().map(|name| nodes.begin(name)).collect::<Outcome<_>>()?;
    let started = futures_util::future::try_join_all(starts).await?;
    nodes.running = NODES.into_iter().zip(started).collect();
    let client = RealEnv::new(nodes.network.join(fresh_id(), "client"));
    let client = Kv::connect(client, nodes.fleet(), KvConfig::default()).await?;
    let store = BytesStore::new(client, KeyspaceName::new("store")?, CallOptions::default());
    store.register(&KeyspacePolicy { shards: 2, ..BytesStore::policy() }).await?;
    println!("three nodes serve; say `help` for what they understand");

    let mut lines = lines();
    loop {
        tokio::select! {
            joined = nodes.joined() => println!("{joined}"),
            line = lines.recv() => match line.as_deref().map(str::trim) {
                None | Some("quit") => break,
                Some(line) => match answer(&store, &mut nodes, line).await {
                    Ok(answer) => println!("{answer}"),
                    Err(error) => println!("error: {error}"),
                },
            },
        }
    }
    nodes.starting.values().for_each(JoinHandle::abort);
    for node in nodes.running.into_values() {
        node.shutdown().await;
    }
    Ok(())
}

fn fresh_id() -> NodeId {
    NodeId(random_u64_from_os().max(1))
}

/// The nodes of this process.
struct Nodes {
    network: MemoryNetwork,
    directory: Option<String>,
    running: BTreeMap<&'static str, Kv>,
    /// Those that were not part of the cluster when their line was answered.
    starting: BTreeMap<&'static str, JoinHandle<Result<Kv, KvError>>>,
}

impl Nodes {
    fn fleet(&self) -> FleetConfig {
        FleetConfig {
            seeds: NODES.map(|name| format!("memory:{name}")).into(),
            bootstrap_expect: NODES.len(),
            ..FleetConfig::default()
        }
    }

    /// A start of the node of this name; it has the id that its directory remembers, if it has one.
    fn begin(&self, name: &str) -> Outcome<impl Future<Output = Result<Kv, KvError>> + use<>> {
        let env: Arc<dyn Env> = match &self.directory {
            None => RealEnv::new(self.network.join(fresh_id(), name)),
            Some(directory) => {
                let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(Path::new(directory).join(name))?);
                let node = node_on(disk.as_ref())?.unwrap_or_else(fresh_id);
                RealEnv::with_disk(self.network.join(node, name), disk)
            }
        };
        Ok(Kv::start(env, self.fleet(), KvConfig::default(), KvTypes::new().with_bytes()))
    }

    async fn start(&mut self, name: &str) -> Outcome<String> {
        let known = NODES.into_iter().find(|known| *known == name);
        let known = known.ok_or_else(|| format!("there is no node {name}"))?;
        if self.running.contains_key(known) || self.starting.contains_key(known) {
            return Err(format!("{name} runs").into());
        }
        let mut start = tokio::spawn(self.begin(known)?);
        // Without a majority of the others it may wait for minutes, and for another line that starts one of them.
        if let Ok(started) = tokio::time::timeout(JOIN_WAIT, &mut start).await {
            self.running.insert(known, started??);
            return Ok("started".to_owned());
        }
        self.starting.insert(known, start);
        Ok(format!("{name} is not part of the cluster after {JOIN_WAIT:?}; it goes on trying"))
    }

    /// Waits for the next of those that go on trying, and tells what became of it.
    async fn joined(&mut self) -> String {
        let next = poll_fn(|context| {
            let mut starting = self.starting.iter_mut();
            let ended = starting.find_map(|(name, start)| match Pin::new(start).poll(context) {
                Poll::Ready(started) => Some((*name, started)),
                Poll::Pending => None,
            });
            ended.map_or(Poll::Pending, Poll::Ready)
        });
        let (name, started) = next.await;
        self.starting.remove(name);
        match started {
            Ok(Ok(node)) => {
                self.running.insert(name, node);
                format!("{name} is part of the cluster")
            }
            Ok(Err(error)) => format!("{name} gave up: {error}"),
            Err(error) => format!("{name} ended: {error}"),
        }
    }

    async fn stop(&mut self, name: &str) -> Outcome<String> {
        if self.starting.contains_key(name) {
            return Err(format!("{name} can be stopped when it is part of the cluster").into());
        }
        let node = self.running.remove(name).ok_or_else(|| format!("no node {name} runs"))?;
        node.shutdown().await;
        Ok("stopped".to_owned())
    }
}

/// The lines of the standard input.
fn lines() -> tokio::sync::mpsc::Receiver<String> {
    let (send, lines) = tokio::sync::mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

async fn answer(store: &BytesStore, nodes: &mut Nodes, line: &str) -> Outcome<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let kv = store.kv();
    Ok(match words.as_slice() {
        ["set", name, value] => {
            let existed = store.set(&key(name)?, (*value).to_owned()).await?;
            if existed { "changed" } else { "new" }.to_owned()
        }
        ["get", name] => show(store.get(&key(name)?).await?.as_ref()),
        ["del", name] => if store.del(&key(name)?).await? { "gone" } else { "was not there" }.to_owned(),
        ["cas", name, old, new] => {
            let value = |word: &str| (word != "-").then(|| Bytes::copy_from_slice(word.as_bytes()));
            match store.compare_and_set(&key(name)?, value(old), value(new)).await? {
                Ok(()) => "set".to_owned(),
                Err(present) => format!("not set; it is {}", show(present.as_ref())),
            }
        }
        ["scan"] => scan(store, "").await?,
        ["scan", prefix] => scan(store, prefix).await?,
        ["fill", count] => {
            for n in 0..number::<u32>(count)? {
                store.set(&key(&format!("key-{n}"))?, n.to_string()).await?;
            }
            "filled".to_owned()
        }
        ["shards"] => shards(store).await?,
        ["split", shard] => {
            let begun = kv.split_shard(store.keyspace(), number(shard)?, None).await?;
            format!("shard {} gets the hashes {}", begun.to, begun.range)
        }
        ["merge", from, to] => {
            let begun = kv.merge_shards(store.keyspace(), number(from)?, number(to)?).await?;
            format!("shard {} gets the hashes {}", begun.to, begun.range)
        }
        ["policy"] => in_words(&kv.keyspace(store.keyspace()).await?.policy.split_merge),
        ["policy", "off"] => set_policy(store, &[]).await?,
        ["policy", settings @ ..] if settings.len().is_multiple_of(2) => set_policy(store, settings).await?,
        ["stop", node] => nodes.stop(node).await?,
        ["start", node] => nodes.start(node).await?,
        [] => String::new(),
        _ => HELP.to_owned(),
    })
}

fn number<T: FromStr>(word: &str) -> Outcome<T> {
    word.parse().map_err(|_| format!("{word:?} is not a number that could be meant").into())
}

async fn set_policy(store: &BytesStore, settings: &[&str]) -> Outcome<String> {
    let mut policy = SplitMergePolicy { cooling_ms: 5_000, ..SplitMergePolicy::default() };
    for pair in settings.chunks(2) {
        match pair[0] {
            "max_keys" => policy.max_keys = Some(number(pair[1])?),
            "max_size" => policy.max_size = Some(number(pair[1])?),
            "max_load" => policy.max_load = Some(number(pair[1])?),
            "min_shards" => policy.min_shards = number(pair[1])?,
            "max_shards" => policy.max_shards = number(pair[1])?,
            other => return Err(format!("there is no setting {other}").into()),
        }
    }
    store.kv().set_policy(store.keyspace(), &policy).await?;
    Ok("set".to_owned())
}

fn in_words(policy: &SplitMergePolicy) -> String {
    let thresholds = [
        policy.max_keys.map(|keys| format!("{keys} keys")),
        policy.max_size.map(|bytes| format!("{bytes} bytes")),
        policy.max_load.map(|calls| format!("{calls} calls a second")),
    ];
    let thresholds: Vec<String> = thresholds.into_iter().flatten().collect();
    if thresholds.is_empty() {
        return "shards are split and merged by hand only".to_owned();
    }
    let SplitMergePolicy { min_shards, max_shards, merge_percent, cooling_ms, .. } = policy;
    format!(
        "a shard is split above {}, up to {max_shards} shards\n\
         neighbours below {merge_percent} % of that are merged, down to {min_shards}\n\
         after either a shard is left alone for {} s",
        thresholds.join(" or "),
        cooling_ms / 1_000
    )
}

async fn scan(store: &BytesStore, prefix: &str) -> Outcome<String> {
    let (mut out, mut from, mut count) = (Vec::new(), ListPosition::default(), 0);
    loop {
        let page = store.scan_keys(prefix.as_bytes(), &from, PAGE).await?;
        count += page.keys.len();
        let keys: Vec<String> = page.keys.iter().map(|key| key.escape_ascii().to_string()).collect();
        if !keys.is_empty() {
            out.push(keys.join(" "));
        }
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    out.push(format!("{count} keys"));
    Ok(out.join("\n"))
}

async fn shards(store: &BytesStore) -> Outcome<String> {
    let kv = store.kv();
    let keyspace = kv.keyspace(store.keyspace()).await?;
    let statuses = kv.shard_statuses(store.keyspace()).await?;
    let mut lines: Vec<String> = keyspace
        .shards
        .iter()
        .zip(statuses)
        .map(|(shard, status)| {
            format!("shard {}: {}, {} keys, {} bytes", shard.number, shard.range, status.keys, status.size)
        })
        .collect();
    for under_way in kv.moves().await? {
        let raft_kv::Move { kind, from, to, phase, .. } = under_way;
        lines.push(format!("{kind:?} of shard {from} into {to}: {phase:?}"));
    }
    Ok(lines.join("\n"))
}

fn key(word: &str) -> Outcome<Key> {
    Ok(Key::new(word.to_owned())?)
}

fn show(value: Option<&Bytes>) -> String {
    value.map_or("no value".to_owned(), |value| value.escape_ascii().to_string())
}
