//! What a play waits for: lines of its programs, their ends, Ctrl-C.

use std::error::Error;
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

use serde::Deserialize;

/// The number of one start of a program; a program that is started again gets another one.
pub(crate) type ProgramId = u32;

/// Something that happened outside.
#[derive(Debug)]
pub(crate) enum Event {
    /// A program printed a line.
    Line { from: ProgramId, line: String },
    /// A program closed its output: it ends, or has ended.
    Closed { from: ProgramId },
    /// Ctrl-C, or the polite signal to end.
    Interrupted,
}

/// Somebody wants the demo to end now.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl Error for Interrupted {}

/// Where events arrive.
pub(crate) struct Inbox {
    events: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Inbox {
    /// An inbox that receives what is sent to `events`.
    pub(crate) fn new(events: Sender<Event>, receiver: Receiver<Event>) -> Inbox {
        Inbox { events, receiver }
    }

    /// A sender for one more source of events.
    pub(crate) fn sender(&self) -> Sender<Event> {
        self.events.clone()
    }

    /// The next event; `None` at the deadline.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub(crate) fn next(&self, deadline: Instant) -> Result<Option<Event>, Box<dyn Error>> {
        match self.receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Interrupted) => Err(Interrupted.into()),
            Ok(event) => Ok(Some(event)),
            // This inbox holds a sender itself, so that the channel stays connected.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(None),
        }
    }
}

/// A line of a node.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum NodeLine {
    /// The node is a part of the cluster and sees this many nodes.
    Ready { nodes: u32 },
    /// What the node hosts now.
    Status(NodeStatus),
    /// It has handed over all that it held, and ends.
    Drained { ms: u64 },
    /// Lines that the demo has no use for.
    #[serde(other)]
    Other,
}

/// What a node hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct NodeStatus {
    /// Groups with a member on this node.
    pub(crate) groups: u32,
    /// Groups led by this node.
    pub(crate) leading: u32,
}

/// A line of the client.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum LoadLine {
    /// All agents exist; commands begin.
    Created { agents: u64 },
    /// How it goes.
    Progress { commands: u64, per_second: f64, p99_us: f64 },
    /// The longest time so far in which no client completed a command.
    Outage { ms: f64 },
    /// All counters were read and compared with what the clients were told.
    Result(LoadResult),
    /// Lines that the demo has no use for.
    #[serde(other)]
    Other,
}

impl LoadLine {
    /// Reads a line that the client printed.
    pub(crate) fn read(line: &str) -> Result<LoadLine, String> {
        serde_json::from_str(line).map_err(|error| format!("the client printed {line:?}: {error}"))
    }
}

/// The end of the client.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct LoadResult {
    /// Commands that completed.
    pub(crate) commands: u64,
    /// Completed commands per second.
    pub(crate) per_second: f64,
    /// Half of the commands took at most this long.
    pub(crate) p50_us: f64,
    /// 99 of 100 commands took at most this long.
    pub(crate) p99_us: f64,
    /// Commands whose success a client was told.
    pub(crate) acknowledged: u64,
    /// Commands of which a client was told that they may have happened or not.
    pub(crate) unknown: u64,
    /// Acknowledged commands that the counters do not show.
    pub(crate) lost: u64,
    /// Commands that the counters show more than once.
    pub(crate) doubled: u64,
    /// The longest time in which no client completed a command.
    pub(crate) outage_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_node_are_read_and_strange_ones_passed_over() {
        let read = |line: &str| serde_json::from_str::<NodeLine>(line).unwrap();
        assert_eq!(read(r#"{"event":"ready","nodes":3}"#), NodeLine::Ready { nodes: 3 });
        assert_eq!(
            read(r#"{"event":"status","groups":32,"leading":12,"agents":5}"#),
            NodeLine::Status(NodeStatus { groups: 32, leading: 12 })
        );
        assert_eq!(read(r#"{"event":"listening","node":"0f","address":"127.0.0.1:1"}"#), NodeLine::Other);
    }

    #[test]
    fn the_lines_of_the_client_are_read() {
        let read = |line: &str| serde_json::from_str::<LoadLine>(line).unwrap();
        assert_eq!(read(r#"{"event":"created","agents":5000}"#), LoadLine::Created { agents: 5_000 });
        let progress = r#"{"event":"progress","elapsed_ms":200,"commands":9,"per_second":45,"p50_us":1,"p99_us":2.5,
            "errors":0,"unknown":0}"#;
        assert_eq!(read(progress), LoadLine::Progress { commands: 9, per_second: 45.0, p99_us: 2.5 });
        assert_eq!(read(r#"{"event":"outage","ms":310,"stall_ms":400}"#), LoadLine::Outage { ms: 310.0 });
    }
}
