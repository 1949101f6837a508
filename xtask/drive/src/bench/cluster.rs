//! The node processes of a bench, and the lines to and from them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use batched_comm::CertificateAuthority;

use super::protocol::{Answer, FleetOrder, Loaded, Order, Standing, Usage};
use super::{Arguments, BoxError, children::Owned};

/// The kind of node that hosts bare groups.
const NODE: &str = "bench-node";

/// Some node processes on loopback; dropped, they end, and then their directories are removed.
pub(crate) struct Cluster {
    nodes: Vec<Process>,
    layout: Layout,
}

/// What a node is started with, the first time and again.
struct Layout {
    addresses: Vec<SocketAddr>,
    threads: usize,
    durable: bool,
    /// How many nodes found a fleet, where they are nodes of one.
    fleet: Option<usize>,
    /// The verb of this program that a node is.
    verb: &'static str,
    /// Certificates, and a directory a node.
    folder: tempfile::TempDir,
}

struct Process {
    child: Owned,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    echo: Option<SocketAddr>,
}

impl Cluster {
    /// Starts `count` nodes that keep everything in memory, with certificates of a new authority.
    pub(crate) fn start(count: usize, threads: usize) -> Result<Self, BoxError> {
        Self::start_in(tempfile::tempdir()?, count, count, threads, false, None, NODE)
    }

    /// Starts nodes in memory that form a fleet; [`add_node`](Self::add_node) starts up to `spare` more.
    pub(crate) fn start_fleet(count: usize, spare: usize, threads: usize) -> Result<Self, BoxError> {
        Self::start_in(tempfile::tempdir()?, count, count + spare, threads, false, Some(count), NODE)
    }

    /// Starts one more node of a fleet, and waits until it is part of it; its index.
    pub(crate) fn add_node(&mut self) -> Result<usize, BoxError> {
        let node = self.nodes.len();
        self.nodes.push(self.layout.start(node + 1)?);
        self.listening(node)?;
        Ok(node)
    }

    /// Starts nodes of another kind, which find each other, and waits until they have.
    pub(crate) fn start_hosting(verb: &'static str, count: usize, threads: usize) -> Result<Self, BoxError> {
        Self::start_in(tempfile::tempdir()?, count, count, threads, false, None, verb)
    }

    /// Starts nodes that keep their groups on disk.
    pub(crate) fn start_durable(
        arguments: &Arguments,
        count: usize,
        threads: usize,
    ) -> Result<Self, BoxError> {
        let folder = match &arguments.directory {
            Some(directory) => tempfile::tempdir_in(directory)?,
            None => tempfile::tempdir()?,
        };
        Self::start_in(folder, count, count, threads, true, None, NODE)
    }

    fn start_in(
        folder: tempfile::TempDir,
        count: usize,
        certified: usize,
        threads: usize,
        durable: bool,
        fleet: Option<usize>,
        verb: &'static str,
    ) -> Result<Self, BoxError> {
        let authority = CertificateAuthority::new("bench");
        std::fs::write(folder.path().join("ca.pem"), authority.ca_pem())?;
        for number in 1..=certified {
            let name = format!("node-{number}");
            authority.issue(&name, 1, &["127.0.0.1"])?.save(folder.path(), &name)?;
        }
        let layout = Layout { addresses: free_addresses(certified)?, threads, durable, fleet, verb, folder };
        let mut cluster = Self { nodes: Vec::new(), layout };
        for number in 1..=count {
            cluster.nodes.push(cluster.layout.start(number)?);
        }
        for node in 0..count {
            cluster.listening(node)?;
        }
        Ok(cluster)
    }

    /// Ends a node as `kill -9` does.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].child.kill();
    }

    /// Starts a node that was killed, with the address and the directory that it had.
    pub(crate) fn restart(&mut self, node: usize) -> Result<(), BoxError> {
        self.kill(node);
        self.nodes[node] = self.layout.start(node + 1)?;
        self.listening(node)
    }

    /// Where a node keeps its groups.
    pub(crate) fn directory(&self, node: usize) -> Result<PathBuf, BoxError> {
        self.layout.directory(node + 1)
    }

    fn listening(&mut self, node: usize) -> Result<(), BoxError> {
        match self.answer(node)? {
            Answer::Listening { echo } => {
                self.nodes[node].echo = Some(echo);
                Ok(())
            }
            other => Err(format!("a node started with {other:?}").into()),
        }
    }

    /// Gives all `orders` (a node and what it shall do) before it waits for the first answer.
    pub(crate) fn order(&mut self, orders: &[(usize, Order)]) -> Result<Vec<Answer>, BoxError> {
        for (node, order) in orders {
            self.tell(*node, order)?;
        }
        orders.iter().map(|(node, _)| self.answer(*node)).collect()
    }

    /// As [`order`](Self::order), for loads.
    pub(crate) fn load(&mut self, orders: &[(usize, Order)]) -> Result<Vec<Loaded>, BoxError> {
        self.order(orders)?.into_iter().map(Answer::loaded).collect()
    }

    /// The median round trip in us of bare QUIC from the first node to the second.
    pub(crate) fn echo_p50_us(&mut self, seconds: f64) -> Result<f64, BoxError> {
        let to = self.nodes.get(1).and_then(|node| node.echo).ok_or("an echo needs two nodes")?;
        match self.order(&[(0, Order::Echo { to, seconds })])?.remove(0) {
            Answer::Echoed { p50_us } => Ok(p50_us),
            other => Err(format!("an echo was answered by {other:?}").into()),
        }
    }

    /// How often a second the first node appends to a bare file and syncs it.
    pub(crate) fn syncs_per_second(&mut self, seconds: f64) -> Result<f64, BoxError> {
        match self.order(&[(0, Order::Sync { seconds })])?.remove(0) {
            Answer::Synced { per_second } => Ok(per_second),
            other => Err(format!("a sync was answered by {other:?}").into()),
        }
    }

    /// How a group stands, as `node` sees it.
    pub(crate) fn standing(&mut self, node: usize, group: u64) -> Result<Standing, BoxError> {
        match self.order(&[(node, Order::Status { group })])?.remove(0) {
            Answer::Status(standing) => Ok(standing),
            other => Err(format!("a question for a status was answered by {other:?}").into()),
        }
    }

    /// Gives one order to a node of a fleet and waits for the answer.
    pub(crate) fn fleet(&mut self, node: usize, order: FleetOrder) -> Result<Answer, BoxError> {
        Ok(self.order(&[(node, Order::Fleet(order))])?.remove(0))
    }

    /// As [`fleet`](Self::fleet), for what takes time: the seconds that it took.
    pub(crate) fn took(&mut self, node: usize, order: FleetOrder) -> Result<f64, BoxError> {
        match self.fleet(node, order)? {
            Answer::Took { seconds } => Ok(seconds),
            other => Err(format!("an order to a fleet was answered by {other:?}").into()),
        }
    }

    /// What each node has used so far.
    pub(crate) fn usage(&mut self) -> Result<Vec<Usage>, BoxError> {
        let orders: Vec<_> = (0..self.nodes.len()).map(|node| (node, Order::Usage)).collect();
        let answers = self.order(&orders)?.into_iter();
        answers
            .map(|answer| match answer {
                Answer::Usage(usage) => Ok(usage),
                other => Err(format!("a question for usage was answered by {other:?}").into()),
            })
            .collect()
    }

    /// Gives an order whose [`answer`](Self::answer) is fetched later.
    pub(crate) fn tell(&mut self, node: usize, order: &Order) -> Result<(), BoxError> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        Ok(self.nodes[node].orders.write_all(&line)?)
    }

    /// Waits for a node's next answer.
    pub(crate) fn answer(&mut self, node: usize) -> Result<Answer, BoxError> {
        let mut line = String::new();
        if self.nodes[node].answers.read_line(&mut line)? == 0 {
            return Err(format!("node {} ended", node + 1).into());
        }
        match serde_json::from_str(&line)? {
            Answer::Failed { reason } => Err(format!("node {}: {reason}", node + 1).into()),
            answer => Ok(answer),
        }
    }
}

impl Layout {
    fn start(&self, number: usize) -> Result<Process, BoxError> {
        let listed: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(self.verb)
            .args(["--number", &number.to_string(), "--addresses", &listed.join(",")])
            .args(["--threads", &self.threads.to_string()])
            .arg("--certificates")
            .arg(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(founders) = self.fleet {
            command.args(["--fleet", &founders.to_string()]);
        }
        if self.durable {
            command.arg("--directory").arg(self.directory(number)?);
        }
        let mut child = command.spawn()?;
        let orders = child.stdin.take();
        let answers = child.stdout.take();
        // Owned before anything can go wrong, so that it ends with the bench.
        let child = Owned::new(child)?;
        let orders = orders.ok_or("no pipe to the node")?;
        let answers = BufReader::new(answers.ok_or("no pipe from the node")?);
        Ok(Process { child, orders, answers, echo: None })
    }

    fn directory(&self, number: usize) -> Result<PathBuf, BoxError> {
        let directory = self.folder.path().join(format!("disk-{number}"));
        std::fs::create_dir_all(&directory)?;
        Ok(directory)
    }
}

/// Ports that were free a moment ago.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, BoxError> {
    let sockets: Vec<UdpSocket> =
        (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    sockets.iter().map(|socket| Ok(socket.local_addr()?)).collect()
}
