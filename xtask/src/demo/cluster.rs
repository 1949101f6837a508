//! The node processes: started, killed, started again, and what each last said of itself.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::event::{Event, Inbox, NodeLine, NodeStatus, ProgramId};
use super::folder::Folder;
use super::ports::free_addresses;
use super::program::Program;

/// The nodes of one play.
pub(crate) struct Cluster<'a> {
    folder: &'a Folder,
    inbox: &'a Inbox,
    nodes: Vec<Node>,
    next_id: ProgramId,
}

/// One node, running or not.
struct Node {
    name: String,
    address: SocketAddr,
    /// What it is started as.
    path: PathBuf,
    /// Whether it hands over what it holds before it ends.
    drains: bool,
    program: Option<Program>,
    ready: bool,
    /// Whether it was told to end, and how long it took to hand over what it held, once it has said so.
    ending: bool,
    drained: Option<Duration>,
    status: NodeStatus,
    /// How often it has said so since its start.
    statuses: u32,
}

impl<'a> Cluster<'a> {
    /// Nodes with names and addresses, none of them started.
    pub(crate) fn new(
        node_path: &Path,
        count: u32,
        folder: &'a Folder,
        inbox: &'a Inbox,
    ) -> Result<Cluster<'a>, Box<dyn Error>> {
        let node = |(index, address)| Node {
            name: format!("node-{}", index + 1),
            address,
            path: node_path.to_owned(),
            drains: false,
            program: None,
            ready: false,
            ending: false,
            drained: None,
            status: NodeStatus::default(),
            statuses: 0,
        };
        let nodes = free_addresses(count)?.into_iter().enumerate().map(node).collect();
        Ok(Cluster { folder, inbox, nodes, next_id: 1 })
    }

    /// The names of all nodes.
    pub(crate) fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// A number for one more start of a program.
    pub(crate) fn new_id(&mut self) -> ProgramId {
        self.next_id += 1;
        self.next_id
    }

    /// Options that name all nodes as seeds, and the files that let `name` into the cluster.
    pub(crate) fn membership(&self, name: &str, command: &mut Command) {
        for node in &self.nodes {
            command.arg("--seed").arg(node.address.to_string());
        }
        let file = |file: &str| self.folder.path().join(file);
        command.arg("--ca").arg(file("ca.pem"));
        command.arg("--cert").arg(file(&format!("{name}.pem")));
        command.arg("--key").arg(file(&format!("{name}.key")));
    }

    /// The same, and each node hands over what it holds before it ends.
    pub(crate) fn draining(mut self) -> Cluster<'a> {
        self.nodes.iter_mut().for_each(|node| node.drains = true);
        self
    }

    /// Has a node be another program from its next start on.
    pub(crate) fn replace(&mut self, index: usize, path: &Path) {
        path.clone_into(&mut self.nodes[index].path);
    }

    /// Starts one node with nothing in its memory.
    pub(crate) fn start(&mut self, index: usize) -> Result<(), Box<dyn Error>> {
        let id = self.new_id();
        let node = &self.nodes[index];
        let mut command = Command::new(&node.path);
        command.arg("--name").arg(&node.name).arg("--listen").arg(node.address.to_string());
        command.arg("--expect").arg(self.nodes.len().to_string()).arg("--exit-on-stdin-close");
        if node.drains {
            command.arg("--drain");
        }
        self.membership(&node.name, &mut command);
        let log = self.folder.log_of(&node.name);
        let program = Program::start(&node.name, id, command, Some(&log), self.inbox)?;
        let node = &mut self.nodes[index];
        (node.program, node.ready, node.status) = (Some(program), false, NodeStatus::default());
        (node.ending, node.drained, node.statuses) = (false, None, 0);
        Ok(())
    }

    /// Starts all nodes.
    pub(crate) fn start_all(&mut self) -> Result<(), Box<dyn Error>> {
        (0..self.nodes.len()).try_for_each(|index| self.start(index))
    }

    /// Takes in an event of a node; events of anything else are no concern of the cluster.
    ///
    /// # Errors
    /// A node that was not killed has ended.
    pub(crate) fn hear(&mut self, event: &Event) -> Result<(), Box<dyn Error>> {
        let (Event::Line { from, .. } | Event::Closed { from }) = event else { return Ok(()) };
        let all = self.nodes.len();
        let from_node = |node: &&mut Node| node.program.as_ref().is_some_and(|program| program.id() == *from);
        let Some(node) = self.nodes.iter_mut().find(from_node) else { return Ok(()) };
        let Event::Line { line, .. } = event else {
            let by_itself = if node.ending { "" } else { " by itself" };
            return match node.program.take().map(Program::wait) {
                Some(Ok(status)) if node.ending && status.success() => Ok(()),
                Some(Ok(status)) => Err(format!("{} ended{by_itself} with {status}", node.name).into()),
                _ => Err(format!("{} ended{by_itself}", node.name).into()),
            };
        };
        match serde_json::from_str(line) {
            Ok(NodeLine::Ready { nodes }) => node.ready |= nodes as usize >= all,
            Ok(NodeLine::Status(status)) => {
                node.status = status;
                node.statuses += 1;
            }
            Ok(NodeLine::Drained { ms }) => node.drained = Some(Duration::from_millis(ms)),
            Ok(NodeLine::Other) => {}
            Err(error) => return Err(format!("{} printed {line:?}: {error}", node.name).into()),
        }
        Ok(())
    }

    /// The nodes that do not see the whole cluster yet.
    pub(crate) fn unready(&self) -> Vec<&str> {
        self.nodes.iter().filter(|node| !node.ready).map(|node| node.name.as_str()).collect()
    }

    /// The node that leads most groups, by what the nodes last said.
    pub(crate) fn busiest(&self) -> Option<(usize, &str, NodeStatus)> {
        let leaders = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.program.is_some() && node.status.leading > 0);
        leaders
            .max_by_key(|(_, node)| node.status.leading)
            .map(|(index, node)| (index, node.name.as_str(), node.status))
    }

    /// Kills one node as the kernel would, without a word.
    pub(crate) fn kill(&mut self, index: usize) {
        self.nodes[index].program = None;
    }

    /// How often a node has said since its start what it hosts.
    pub(crate) fn statuses_of(&self, index: usize) -> u32 {
        self.nodes[index].statuses
    }

    /// Tells a node to end.
    pub(crate) fn tell_to_end(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.ending = true;
        node.program.iter_mut().for_each(Program::close_input);
    }

    /// Whether a node that was told to end has ended.
    pub(crate) fn has_ended(&self, index: usize) -> bool {
        self.nodes[index].program.is_none()
    }

    /// How long it took a node that was told to end to hand over all that it held, if it has.
    pub(crate) fn drained(&self, index: usize) -> Option<Duration> {
        self.nodes[index].drained
    }

    /// The groups that a node has members of, by what it last said.
    pub(crate) fn groups_of(&self, index: usize) -> u32 {
        self.nodes[index].status.groups
    }

    /// Lets all nodes end by themselves, and kills those that have not ended in time.
    ///
    /// # Errors
    /// The play was interrupted.
    pub(crate) fn stop(&mut self, wait_max: Duration) -> Result<(), Box<dyn Error>> {
        let mut running: Vec<Program> =
            self.nodes.iter_mut().filter_map(|node| node.program.take()).collect();
        running.iter_mut().for_each(Program::close_input);
        let deadline = Instant::now() + wait_max;
        while !running.is_empty() {
            match self.inbox.next(deadline)? {
                Some(Event::Closed { from }) => running.retain(|program| program.id() != from),
                Some(_) => {}
                None => return Ok(()),
            }
        }
        Ok(())
    }
}
