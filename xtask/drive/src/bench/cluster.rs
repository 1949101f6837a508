//! The node processes of a bench, and the lines to and from them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use batched_comm::CertificateAuthority;

use super::BoxError;
use super::protocol::{Answer, Loaded, Order, Usage};

/// Some node processes on loopback; dropped, they end.
pub(crate) struct Cluster {
    nodes: Vec<Process>,
    echoes: Vec<SocketAddr>,
    _certificates: tempfile::TempDir,
}

struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// Starts `count` nodes with certificates of a new authority.
    pub(crate) fn start(count: usize, threads: usize) -> Result<Self, BoxError> {
        let certificates = tempfile::tempdir()?;
        let authority = CertificateAuthority::new("bench");
        std::fs::write(certificates.path().join("ca.pem"), authority.ca_pem())?;
        let addresses = free_addresses(count)?;
        let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let mut nodes = Vec::new();
        for number in 1..=count {
            let name = format!("node-{number}");
            authority.issue(&name, 1, &["127.0.0.1"])?.save(certificates.path(), &name)?;
            let mut child = Command::new(std::env::current_exe()?)
                .arg("bench-node")
                .args(["--number", &number.to_string(), "--addresses", &listed.join(",")])
                .args(["--threads", &threads.to_string()])
                .arg("--certificates")
                .arg(certificates.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let orders = child.stdin.take().ok_or("no pipe to the node")?;
            let answers = BufReader::new(child.stdout.take().ok_or("no pipe from the node")?);
            nodes.push(Process { child, orders, answers });
        }
        let mut cluster = Self { nodes, echoes: Vec::new(), _certificates: certificates };
        for node in 0..count {
            match cluster.answer(node)? {
                Answer::Listening { echo } => cluster.echoes.push(echo),
                other => return Err(format!("a node started with {other:?}").into()),
            }
        }
        Ok(cluster)
    }

    /// Gives all `orders` (a node and what it shall do) before it waits for the first answer.
    pub(crate) fn order(&mut self, orders: &[(usize, Order)]) -> Result<Vec<Answer>, BoxError> {
        for (node, order) in orders {
            let mut line = serde_json::to_vec(order)?;
            line.push(b'\n');
            self.nodes[*node].orders.write_all(&line)?;
        }
        orders.iter().map(|(node, _)| self.answer(*node)).collect()
    }

    /// As [`order`](Self::order), for loads.
    pub(crate) fn load(&mut self, orders: &[(usize, Order)]) -> Result<Vec<Loaded>, BoxError> {
        let answers = self.order(orders)?.into_iter();
        answers
            .map(|answer| match answer {
                Answer::Loaded(loaded) => Ok(loaded),
                other => Err(format!("a load was answered by {other:?}").into()),
            })
            .collect()
    }

    /// The median round trip in us of bare QUIC from the first node to the second.
    pub(crate) fn echo_p50_us(&mut self, seconds: f64) -> Result<f64, BoxError> {
        let to = *self.echoes.get(1).ok_or("an echo needs two nodes")?;
        match self.order(&[(0, Order::Echo { to, seconds })])?.remove(0) {
            Answer::Echoed { p50_us } => Ok(p50_us),
            other => Err(format!("an echo was answered by {other:?}").into()),
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

    fn answer(&mut self, node: usize) -> Result<Answer, BoxError> {
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

/// Ports that were free a moment ago.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, BoxError> {
    let sockets: Vec<UdpSocket> =
        (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    sockets.iter().map(|socket| Ok(socket.local_addr()?)).collect()
}
