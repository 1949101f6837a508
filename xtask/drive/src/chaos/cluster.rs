//! The node processes of a chaos run, and what each last said of itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use batched_comm::{CertificateAuthority, Endpoint, EndpointConfig, Identity};
use dist_agent::{DistAgent, DistAgentConfig, QuotaLimit};
use parking_lot::Mutex;
use rafted_value::env::{Env, RealEnv, random_u64_from_os};

use super::clients::wait;
use super::network::Network;
use super::node::Standing;
use super::{Arguments, WHOLE_MAX};
use crate::bench::BoxError;
use crate::bench::children::{self, Owned};
use crate::sim::stack::load::QUOTA;

/// The clients' name in certificates.
const CLIENTS: &str = "clients";
/// A node whose last word is older than this is not heard.
const SILENT: Duration = Duration::from_secs(2);
/// Room on the disk of the node whose disk can be filled.
const SMALL_DISK_MIB: u32 = 192;
/// The node that has this disk.
pub(super) const SMALL: usize = 0;

/// Node processes; dropped, they end, and their directories are removed.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) on_disks: bool,
    small_disk: bool,
    /// Where the nodes' logs are.
    logs: PathBuf,
    /// Certificates, and a directory a node.
    folder: tempfile::TempDir,
}

/// One node, running or not.
pub(super) struct Node {
    address: SocketAddr,
    process: Option<Process>,
}

struct Process {
    /// Ended, and waited for, when it is dropped.
    _child: Owned,
    pid: u32,
    /// Closed, it tells the process to end.
    _input: ChildStdin,
    heard: Arc<Mutex<Option<(Instant, Standing)>>>,
}

impl Cluster {
    /// Starts all nodes.
    pub(super) fn start(arguments: &Arguments, network: Network) -> Result<Self, BoxError> {
        let folder = tempfile::tempdir()?;
        let count = arguments.nodes as usize;
        let addresses = network.addresses(count)?;
        let authority = CertificateAuthority::new("chaos");
        std::fs::write(folder.path().join("ca.pem"), authority.ca_pem())?;
        for (node, address) in addresses.iter().enumerate() {
            let host = address.ip().to_string();
            authority.issue(&name(node), 1, &[&host])?.save(folder.path(), &name(node))?;
        }
        authority.issue(CLIENTS, 1, &[&network.client().ip().to_string()])?.save(folder.path(), CLIENTS)?;
        let node = |address| Node { address, process: None };
        let nodes = addresses.into_iter().map(node).collect();
        let on_disks = !arguments.memory;
        let logs = arguments.logs.clone().unwrap_or_else(|| folder.path().to_owned());
        std::fs::create_dir_all(&logs)?;
        let mut cluster = Self { nodes, network, on_disks, small_disk: false, logs, folder };
        if on_disks && cluster.network.can_cut() {
            let directory = cluster.directory(SMALL)?;
            cluster.network.mount_small(&directory, SMALL_DISK_MIB)?;
            cluster.small_disk = true;
        }
        for node in 0..count {
            cluster.start_node(node)?;
        }
        Ok(cluster)
    }

    /// A client of the cluster.
    pub(super) async fn connect(&self) -> Result<(Arc<dyn Env>, DistAgent), BoxError> {
        let file = |end: &str| self.folder.path().join(format!("{CLIENTS}.{end}"));
        let identity = Identity::from_files(self.folder.path().join("ca.pem"), file("pem"), file("key"))?;
        let node = batched_comm::NodeId(random_u64_from_os().max(1));
        let mut config = EndpointConfig::new(self.network.client(), node, CLIENTS.to_owned(), identity);
        // Nobody needs to dial a client.
        config.advertise = Some(String::new());
        let env: Arc<dyn Env> = RealEnv::over_quic(Endpoint::bind(config).await?, CLIENTS);
        let mut config = DistAgentConfig::default();
        config.fleet.seeds = self.seeds();
        let connected = DistAgent::connect(env.clone(), config).await?;
        connected.put_quota(QUOTA, QuotaLimit::Unlimited).await?;
        Ok((env, connected))
    }

    fn seeds(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.to_string()).collect()
    }

    /// Where a node keeps what it has.
    pub(super) fn directory(&self, node: usize) -> Result<PathBuf, BoxError> {
        let directory = self.folder.path().join(format!("disk-{node}"));
        std::fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    fn log(&self, node: usize) -> PathBuf {
        self.logs.join(format!("{}.log", name(node)))
    }

    /// Whether the first node's disk can be filled.
    pub(super) fn has_small_disk(&self) -> bool {
        self.small_disk
    }

    /// Starts a node that does not run, on the directory that it had.
    pub(super) fn start_node(&mut self, node: usize) -> Result<(), BoxError> {
        let log = File::options().create(true).append(true).open(self.log(node))?;
        let mut command: Command = self.network.command()?;
        command
            .arg("chaos-node")
            .args(["--name", &name(node), "--listen", &self.nodes[node].address.to_string()])
            .args(["--seeds", &self.seeds().join(",")])
            .arg("--certificates")
            .arg(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        if self.on_disks {
            command.arg("--directory").arg(self.directory(node)?);
        }
        let mut child = command.spawn()?;
        let (input, output, pid) = (child.stdin.take(), child.stdout.take(), child.id());
        let child = Owned::new(child)?;
        let (input, output) = (input.ok_or("no pipe to the node")?, output.ok_or("no pipe from the node")?);
        let heard = Arc::new(Mutex::new(None));
        let slot = heard.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(standing) = serde_json::from_str(&line) {
                    *slot.lock() = Some((Instant::now(), standing));
                }
            }
        });
        self.network.connect(node, pid)?;
        self.nodes[node].process = Some(Process { _child: child, pid, _input: input, heard });
        Ok(())
    }

    /// Ends a node as `kill -9` does.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].process = None;
    }

    /// Takes away all that a node had on its disk.
    pub(super) fn wipe(&self, node: usize) -> Result<(), BoxError> {
        for entry in std::fs::read_dir(self.directory(node)?)? {
            let path = entry?.path();
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
        Ok(())
    }

    /// The process of a node that runs.
    pub(super) fn pid(&self, node: usize) -> Option<u32> {
        self.nodes[node].process.as_ref().map(|process| process.pid)
    }

    /// What a node said last, if that is not long ago.
    pub(super) fn heard(&self, node: usize) -> Option<Standing> {
        let process = self.nodes[node].process.as_ref()?;
        let heard = process.heard.lock().clone()?;
        (heard.0.elapsed() < SILENT).then_some(heard.1)
    }

    /// Memory of all nodes' processes, as they last said.
    pub(super) fn resident_bytes(&self) -> Vec<u64> {
        (0..self.nodes.len()).filter_map(|node| self.heard(node)).map(|heard| heard.resident_bytes).collect()
    }

    /// Whether every group has a leader that knows all its members to have caught up, on nodes that all live.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub(super) fn is_whole(&self) -> Result<(), String> {
        let mut led = BTreeMap::new();
        let mut groups = 0;
        for node in 0..self.nodes.len() {
            let standing = self.heard(node).ok_or_else(|| format!("node {node} is not heard"))?;
            if standing.nodes != self.nodes.len() as u64 {
                return Err(format!("node {node} knows {} nodes", standing.nodes));
            }
            if standing.fenced > 0 {
                return Err(format!("{} members on node {node} cannot go on", standing.fenced));
            }
            groups = groups.max(standing.groups);
            for (group, whole) in standing.led {
                *led.entry(group).or_insert(false) |= whole;
            }
        }
        let whole = led.values().filter(|whole| **whole).count() as u64;
        if whole == groups && groups > 1 {
            Ok(())
        } else {
            Err(format!("{whole} of {groups} groups are whole"))
        }
    }

    /// Waits until it is.
    pub(super) async fn until_whole(&self, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit.min(WHOLE_MAX);
        // What was said before the fault does not count.
        let begun = Instant::now();
        loop {
            if children::is_interrupted() {
                return Err("interrupted".into());
            }
            let fresh = self.nodes.iter().all(|node| {
                let heard =
                    node.process.as_ref().and_then(|process| process.heard.lock().as_ref().map(|at| at.0));
                heard.is_some_and(|at| at > begun)
            });
            let whole = if fresh { self.is_whole() } else { Err("not all nodes have spoken again".into()) };
            match whole {
                Ok(()) => return Ok(()),
                Err(why) if Instant::now() >= end => return Err(why),
                Err(_) => wait(Duration::from_millis(20)).await,
            }
        }
    }

    /// The last lines of the nodes' logs, for whoever must understand a failure.
    pub(super) fn print_logs(&self, lines: usize) {
        for node in 0..self.nodes.len() {
            let text = std::fs::read_to_string(self.log(node)).unwrap_or_default();
            let all: Vec<&str> = text.lines().collect();
            for line in &all[all.len().saturating_sub(lines)..] {
                println!("node {node}: {line}");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.process = None;
        }
        if self.small_disk
            && let Ok(directory) = self.directory(SMALL)
        {
            // Where it stays, it goes with the namespace that it is in.
            let _ = self.network.unmount(&directory);
        }
    }
}

fn name(node: usize) -> String {
    format!("node-{node}")
}
