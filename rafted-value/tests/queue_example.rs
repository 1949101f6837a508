//! The example `queue` as its user runs it: in one process, and as three real ones over loopback.
#![cfg(feature = "quic")]

use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long a line of a node's output may take, with a machine that is busy.
const LINE_MAX: Duration = Duration::from_secs(60);
/// How often ports are drawn anew when somebody else has taken one.
const PORTS_TRIES_MAX: u32 = 5;

/// The program that is built beside this test.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("it is in deps/ of its profile");
    let program = profile.join("examples").join(format!("queue{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "no {}: examples are built with all tests, not with one", program.display());
    program
}

/// A process of the example, which ends with this value.
struct Node {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Node {
    fn start(id: usize, directory: &Path, peers: &str) -> Self {
        let mut command = Command::new(program());
        command.args(["node", "--id", &id.to_string(), "--dir"]).arg(directory).args(["--peers", peers]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("it is piped"));
        let (send, lines) = channel();
        #[allow(clippy::disallowed_methods, reason = "a pipe has no limit on how long it blocks")]
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The test may have ended.
                let _ = send.send(line);
            }
        });
        Self { child, input, lines }
    }

    /// The next line of its output; `None` once it has ended.
    fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(LINE_MAX) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(error) => panic!("the node says nothing: {error}"),
        }
    }

    fn say(&mut self, line: &str) -> String {
        let input = self.input.as_mut().expect("it was not closed");
        writeln!(input, "{line}").expect("it listens");
        self.line().expect("it goes on")
    }

    fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it has ended");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three ports that were free a moment ago.
fn addresses() -> String {
    let sockets: Vec<UdpSocket> =
        (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port")).collect();
    let address = |socket: &UdpSocket| socket.local_addr().expect("it is bound").to_string();
    sockets.iter().map(address).collect::<Vec<_>>().join(",")
}

/// Three processes that listen, and what they were told of each other.
fn three_nodes(directory: &Path) -> (Vec<Node>, String) {
    for _ in 0..PORTS_TRIES_MAX {
        let peers = addresses();
        let nodes: Vec<Node> = (1..=3).map(|id| Node::start(id, directory, &peers)).collect();
        if nodes.iter().all(|node| node.line().is_some_and(|line| line.starts_with("listening on"))) {
            return (nodes, peers);
        }
    }
    panic!("the ports were taken {PORTS_TRIES_MAX} times");
}

#[test]
fn a_queue_over_three_nodes_in_one_process_gives_the_first_word() {
    let output = Command::new(program()).stdin(Stdio::null()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "push replicated: 1 waiting\npush queue: 2 waiting\npop: replicated\n", "{output:?}");
    assert!(output.status.success());
}

#[test]
fn a_queue_over_three_processes_outlives_one_that_is_killed_and_takes_it_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let made = Command::new(program()).arg("ca").arg(directory.path()).status().expect("it runs");
    assert!(made.success());
    let (mut nodes, peers) = three_nodes(directory.path());
    assert_eq!(nodes[1].say("push one"), "1 waiting");
    assert_eq!(nodes[2].say("push two"), "2 waiting");
    assert_eq!(nodes[0].say("push three"), "3 waiting");
    nodes[0].kill();
    assert_eq!(nodes[1].say("pop"), "one");
    nodes[0] = Node::start(1, directory.path(), &peers);
    assert_eq!(nodes[0].line(), Some(format!("listening on {}", peers.split(',').next().unwrap())));
    // Without one of the others, the one that came back is needed.
    nodes[2].kill();
    assert_eq!(nodes[0].say("pop"), "two");
    assert_eq!(nodes[1].say("length"), "1 waiting");
    // A node whose input ends hands over and stops in order.
    drop(nodes[0].input.take());
    assert_eq!(nodes[0].line(), None);
    assert!(nodes[0].child.wait().expect("it ends").success());
}

#[test]
fn arguments_that_mean_nothing_are_refused_with_those_that_do() {
    let output = Command::new(program()).arg("nodes").stdin(Stdio::null()).output().expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--peers"), "{output:?}");
}
