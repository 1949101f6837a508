//! The example `counters` as its user runs it: four real processes on loopback, one of which is killed and one drained.
#![cfg(feature = "quic")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// How long a line of a node's output may take, with a machine that is busy.
const LINE_MAX: Duration = Duration::from_secs(60);
/// How often ports are drawn anew when somebody else has taken one.
const PORTS_TRIES_MAX: u32 = 5;
/// How often a node is asked for what takes a while to hold, and how long after each answer it is asked again.
const ASKS_MAX: u32 = 300;
const ASK_PAUSE: Duration = Duration::from_millis(100);

const NODES: usize = 4;
const GROUPS: usize = 6;

/// The program that is built beside this test.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("it is in deps/ of its profile");
    let program = profile.join("examples").join(format!("counters{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "no {}: examples are built with all tests, not with one", program.display());
    program
}

fn run(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).stdin(Stdio::null()).output().expect("it runs")
}

/// The command line of a node at one of these ports, with the others as its seeds.
fn node(place: usize, directory: &Path, ports: &[u16]) -> Command {
    command("node", place, directory, ports)
}

fn command(verb: &str, place: usize, directory: &Path, ports: &[u16]) -> Command {
    let seeds: Vec<String> = ports.iter().map(|port| format!("localhost:{port}")).collect();
    let mut command = Command::new(program());
    command.args([verb, "--name", &format!("node-{place}"), "--dir"]).arg(directory);
    command.args(["--listen", &format!("127.0.0.1:{}", ports[place]), "--seeds", &seeds.join(",")]);
    command.args(["--expect", &NODES.to_string(), "--failure-window", "3"]);
    command
}

/// As `cp -r` does.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("it can be made");
    for entry in std::fs::read_dir(from).expect("it can be read") {
        let path = entry.expect("it can be read").path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("it can be copied");
        }
    }
}

/// A process of the example, which ends with this value.
struct Node {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Node {
    fn start(place: usize, directory: &Path, ports: &[u16]) -> Self {
        Self::start_by(node(place, directory, ports))
    }

    fn start_by(mut command: Command) -> Self {
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
            Err(RecvTimeoutError::Disconnected) => None,
            Err(error) => panic!("the node says nothing: {error}"),
        }
    }

    fn say(&mut self, line: &str) -> String {
        let input = self.input.as_mut().expect("it was not closed");
        writeln!(input, "{line}").expect("it listens");
        self.line().expect("it goes on")
    }

    /// Asks again and again until this is the answer.
    fn until(&mut self, question: &str, expected: &str) {
        let mut last = String::new();
        for _ in 0..ASKS_MAX {
            last = self.say(question);
            if last == expected {
                return;
            }
            #[allow(clippy::disallowed_methods, reason = "other processes have clocks of their own")]
            std::thread::sleep(ASK_PAUSE);
        }
        panic!("{question}: {last:?} instead of {expected:?}");
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it has ended");
    }

    /// A node whose input ends stops in order.
    fn end(mut self) {
        drop(self.input.take());
        assert_eq!(self.line(), None);
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that were free a moment ago.
fn free_ports() -> Vec<u16> {
    let bind = |_| UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
    let sockets: Vec<UdpSocket> = (0..NODES).map(bind).collect();
    sockets.iter().map(|socket| socket.local_addr().expect("it is bound").port()).collect()
}

/// As many processes, all part of one cluster, and where they are.
fn cluster(directory: &Path) -> (Vec<Node>, Vec<u16>) {
    for _ in 0..PORTS_TRIES_MAX {
        let ports = free_ports();
        let nodes: Vec<Node> = (0..NODES).map(|place| Node::start(place, directory, &ports)).collect();
        if nodes.iter().all(|node| node.line().is_some_and(|line| line.starts_with("listening on"))) {
            let formed = format!("part of a cluster of {NODES} nodes");
            nodes.iter().for_each(|node| assert_eq!(node.line().as_ref(), Some(&formed)));
            return (nodes, ports);
        }
    }
    panic!("the ports were taken {PORTS_TRIES_MAX} times");
}

/// Adds one to each counter through this node, which must come to `expected`.
fn count(node: &mut Node, expected: u64) {
    for group in 0..GROUPS {
        assert_eq!(node.say(&format!("count group-{group}")), expected.to_string(), "group-{group}");
    }
}

#[test]
fn groups_over_four_processes_outlive_one_that_is_killed_and_one_that_is_drained() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("a plain path");
    assert!(run(&["ca", path, "node-0", "node-1", "node-2", "node-3"]).status.success());
    let (mut nodes, ports) = cluster(directory.path());
    for group in 0..GROUPS {
        assert_eq!(nodes[group % NODES].say(&format!("add group-{group} 3")), "added");
    }
    assert_eq!(nodes[0].say("add group-0 3"), "error: a group named \"group-0\" exists already");
    count(&mut nodes[1], 1);

    nodes[3].kill();
    count(&mut nodes[2], 2);
    nodes[0].until("nodes", "3 nodes");
    nodes[0].until("held", &format!("{} members", GROUPS + 1));

    assert_eq!(nodes[1].say("drain"), "safe to stop");
    assert_eq!((nodes[1].say("nodes"), nodes[1].say("held")), ("2 nodes".into(), "0 members".into()));
    count(&mut nodes[1], 3);
    nodes.remove(1).end();
    count(&mut nodes[0], 4);

    // The one that was killed comes back on its directory, although it was purged meanwhile.
    nodes[2] = Node::start(3, directory.path(), &ports);
    assert!(nodes[2].line().is_some_and(|line| line.starts_with("listening on")));
    assert!(nodes[2].line().is_some_and(|line| line.starts_with("part of a cluster")));
    nodes[2].until("held", &format!("{} members", GROUPS + 1));
    count(&mut nodes[2], 5);
    assert_eq!(nodes[1].say("read group-0"), "5");
    nodes.into_iter().for_each(Node::end);
}

/// It waited for a leader that nobody could be, and nobody could give the others up but a client.
#[test]
fn the_last_of_four_processes_goes_on_alone_once_it_is_told_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("a plain path");
    assert!(run(&["ca", path, "node-0", "node-1", "node-2", "node-3"]).status.success());
    let (mut nodes, ports) = cluster(directory.path());
    for group in 0..GROUPS {
        assert_eq!(nodes[group % NODES].say(&format!("add group-{group} 4")), "added");
    }
    count(&mut nodes[1], 1);
    // A leadership may be on its way to where it belongs.
    nodes[0].until("lost", "every group has a leader");
    nodes.iter_mut().for_each(Node::kill);

    let mut last = Node::start_by(command("repair", 2, directory.path(), &ports));
    assert!(last.line().is_some_and(|line| line.starts_with("listening on")));
    assert!(last.line().is_some_and(|line| line.starts_with("back in a cluster of 4 nodes")));
    let lost = last.say("lost");
    assert!(lost.starts_with("the cluster's own group has no leader: members on [n"), "{lost}");
    let plan = last.say("plan node-0 node-1 node-3");
    assert!(plan.contains("the cluster's own group has 1 of 4 voters left"), "{plan}");
    assert_eq!(last.say("give-up node-0 node-1 node-3"), "done");
    last.until("nodes", "1 nodes");
    last.until("lost", "every group has a leader");
    for group in 0..GROUPS {
        // What only the others held may be gone with them.
        let counted: u64 = last.say(&format!("count group-{group}")).parse().expect("a number");
        assert!((1..=2).contains(&counted), "group-{group}: {counted}");
    }
    last.end();
}

/// A machine image, or a backup that somebody restores: what it holds is a few starts old.
#[test]
fn a_copy_of_a_directory_is_refused_and_the_original_goes_on() {
    let (directory, elsewhere) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let path = directory.path().to_str().expect("a plain path");
    assert!(run(&["ca", path, "node-0", "node-1", "node-2", "node-3"]).status.success());
    let (mut nodes, ports) = cluster(directory.path());
    for group in 0..GROUPS {
        assert_eq!(nodes[group % NODES].say(&format!("add group-{group} 3")), "added");
    }
    nodes.remove(3).end();
    copy(directory.path(), elsewhere.path());
    let mut original = Node::start(3, directory.path(), &ports);
    assert!(original.line().is_some_and(|line| line.starts_with("listening on")));
    assert!(original.line().is_some_and(|line| line.starts_with("part of a cluster")));
    count(&mut original, 1);
    original.kill();

    let mut moved = ports.clone();
    moved[3] = free_ports()[0];
    let refused = node(3, elsewhere.path(), &moved).stdin(Stdio::null()).output().expect("it runs");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    for part in ["is a copy or an old backup", "up to life 1", "has life 2", "empty this directory"] {
        assert!(said.contains(part), "{said}");
    }
    count(&mut nodes[0], 2);

    let mut original = Node::start(3, directory.path(), &ports);
    assert!(original.line().is_some_and(|line| line.starts_with("listening on")));
    assert!(original.line().is_some_and(|line| line.starts_with("part of a cluster")));
    count(&mut original, 3);
    original.end();
    nodes.into_iter().for_each(Node::end);
}

#[test]
fn arguments_that_mean_nothing_are_refused_with_those_that_do() {
    for (arguments, says) in [
        (&["nodes"][..], "`ca DIR NAME...`"),
        (&["node", "--names", "node-1"][..], "there is no option --names"),
        (&["node", "--name"][..], "--name has no value"),
    ] {
        let output = run(arguments);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(says), "{output:?}");
    }
}

/// The command line of a node as the README has it.
fn of_the_readme(name: &str, directory: &Path, ports: &[u16]) -> Command {
    let place: usize = name.strip_prefix("node-").and_then(|number| number.parse().ok()).expect("node-N");
    let seeds: Vec<String> = ports.iter().map(|port| format!("localhost:{port}")).collect();
    let mut command = Command::new(program());
    command.args(["node", "--name", name, "--dir"]).arg(directory);
    command.args(["--listen", &format!("127.0.0.1:{}", ports[place - 1]), "--seeds", &seeds.join(",")]);
    command.args(["--expect", &ports.len().to_string()]);
    command
}

/// An answer without the ids of nodes and the indexes of logs, which are others each time.
fn without_ids(answer: &str) -> String {
    let mut out = String::new();
    let mut after_index = false;
    for word in answer.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_id =
            bare.len() > 8 && bare.starts_with('n') && bare[1..].chars().all(|c| c.is_ascii_hexdigit());
        let is_index = after_index && bare.chars().all(|c| c.is_ascii_digit());
        out.push_str(if is_id || is_index { "#" } else { bare });
        out.push_str(&word[bare.len()..]);
        after_index = bare == "index";
    }
    out
}

#[test]
fn three_processes_answer_as_the_readme_says() {
    const NAMES: [&str; 3] = ["node-1", "node-2", "node-3"];
    let readme = include_str!("../README.md");
    let (_, rest) =
        readme.split_once("are others each time.\n\n```text\n").expect("the README has the session");
    let (session, _) = rest.split_once("```").expect("it ends");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("a plain path");
    assert!(run(&[&["ca", path][..], &NAMES].concat()).status.success());
    let ports = &free_ports()[..NAMES.len()];
    let start = |name: &str| {
        let node = Node::start_by(of_the_readme(name, directory.path(), ports));
        assert!(node.line().is_some_and(|line| line.starts_with("listening on")), "somebody has its port");
        node
    };
    let mut nodes: BTreeMap<&str, Node> = NAMES.into_iter().map(|name| (name, start(name))).collect();
    for node in nodes.values() {
        assert_eq!(node.line(), Some("part of a cluster of 3 nodes".into()));
    }
    let mut lines = session.lines();
    while let Some(line) = lines.next() {
        if let Some(event) = line.strip_prefix('(') {
            let (name, event) = event.split_once(' ').expect("who it is about");
            if event.starts_with("is ended by kill -9") {
                nodes.remove(name).expect("it runs").kill();
            } else if event.starts_with("ends with its input") {
                nodes.remove(name).expect("it runs").end();
            } else {
                assert!(event.starts_with("is started again"), "{event}");
                let name = NAMES.into_iter().find(|known| *known == name).expect("one of the three");
                nodes.insert(name, start(name));
                let part = nodes[name].line().expect("it goes on");
                assert!(part.starts_with("part of a cluster of"), "{part}");
            }
            continue;
        }
        let (name, asked) = line.split_once("> ").expect("who is asked what");
        let expected = without_ids(lines.next().expect("an answer"));
        let node = nodes.get_mut(name).expect("it runs");
        // What only asks is asked until the others have noticed what has happened.
        let asks = !["add", "count", "drain", "give-up"].iter().any(|verb| asked.starts_with(verb));
        let mut answer = without_ids(&node.say(asked));
        for _ in 0..if asks { ASKS_MAX } else { 0 } {
            if answer == expected {
                break;
            }
            #[allow(clippy::disallowed_methods, reason = "other processes have clocks of their own")]
            std::thread::sleep(ASK_PAUSE);
            answer = without_ids(&node.say(asked));
        }
        assert_eq!(answer, expected, "{line}");
    }
}
