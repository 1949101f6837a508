//! One small error enum per operation, each saying whether the message may have been handled.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{NodeId, ServiceId};
use crate::identity::IdentityError;
use crate::lane::Lane;
use crate::lane_settings::SettingError;
use crate::refusal::Refusal;

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The UDP socket could not be bound: the port is in use, the address is not this machine's.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The identity cannot be used for TLS.
    #[error("identity of node {name:?}: {source}")]
    Identity {
        /// The configured node name.
        name: String,
        /// What is wrong with it.
        source: IdentityError,
    },
    /// The certificate is not for the configured name, so that every peer would refuse this node.
    #[error("node name {name:?} is not among the names of its certificate: {certified:?}")]
    NameNotCertified {
        /// The configured node name.
        name: String,
        /// The names in the certificate.
        certified: Vec<String>,
    },
    /// A setting is out of its range.
    #[error("setting {setting}: {problem}")]
    Setting {
        /// The field of the config.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no tokio runtime with IO and time here.
    #[error("no tokio runtime with IO and time is running here")]
    NoRuntime,
}

impl From<SettingError> for BindError {
    fn from(error: SettingError) -> BindError {
        match error {
            SettingError::OutOfRange { setting, problem } => BindError::Setting { setting, problem },
            SettingError::UnknownNode(_) => {
                BindError::Setting { setting: "lanes", problem: error.to_string() }
            }
        }
    }
}

/// Why a cast was not taken. The message has surely not been sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Nobody has said where that node lives.
    #[error("no address is known for node {node}")]
    UnknownAddress {
        /// The receiver.
        node: NodeId,
    },
    /// There is no connection and the last attempt to make one went wrong.
    #[error("node {node} is disconnected: {reason}")]
    Disconnected {
        /// The receiver.
        node: NodeId,
        /// How the last connection or attempt ended.
        reason: Arc<str>,
    },
    /// The lane to that node has as much waiting as it may.
    #[error("the {lane} lane to node {node} is full with {messages} messages of {bytes} bytes")]
    QueueFull {
        /// The receiver.
        node: NodeId,
        /// The lane.
        lane: Lane,
        /// Messages waiting.
        messages: usize,
        /// Bytes waiting.
        bytes: usize,
    },
    /// The payload is larger than the lane's limit.
    #[error("a payload of {bytes} bytes is over the {lane} lane's limit of {bytes_max}")]
    TooLarge {
        /// The lane.
        lane: Lane,
        /// The payload's size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The endpoint is closed.
    #[error("the endpoint is closed")]
    Closed,
}

/// Whom a call or a dial was for: a node, or whoever lives at an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// A node by id.
    Node(NodeId),
    /// A `host:port`.
    Address(Arc<str>),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Node(node) => write!(f, "node {node}"),
            Destination::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Why a call has no answer; [`surely_not_delivered`](CallError::surely_not_delivered) tells whether it may have run.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No connection could be made, or there is no address to dial. Surely not delivered.
    #[error("{to} is unreachable: {reason}")]
    Unreachable {
        /// Whom it was for.
        to: Destination,
        /// How the attempt ended.
        reason: Arc<str>,
    },
    /// One of the two nodes refused the connection. Surely not delivered.
    #[error("connection with {to} refused: {refusal} ({detail})")]
    Refused {
        /// Whom it was for.
        to: Destination,
        /// Why.
        refusal: Refusal,
        /// The particulars.
        detail: Arc<str>,
    },
    /// The receiver has no handler for the service. Surely not handled.
    #[error("node {node} has no handler for service {service}")]
    NoHandler {
        /// The receiver.
        node: NodeId,
        /// The service called.
        service: ServiceId,
    },
    /// A limit of calls in flight or of queued messages is reached, here or at the receiver. Surely not handled.
    #[error("too much in flight to node {node}: {detail}")]
    Overloaded {
        /// The receiver.
        node: NodeId,
        /// Which limit.
        detail: Arc<str>,
    },
    /// The payload is larger than the lane's limit. Surely not sent.
    #[error("a payload of {bytes} bytes is over the {lane} lane's limit of {bytes_max}")]
    TooLarge {
        /// The lane.
        lane: Lane,
        /// The payload's size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The connection broke with the call under way. It may or may not have been handled.
    #[error("the connection to node {node} broke with the call in flight")]
    Lost {
        /// The receiver.
        node: NodeId,
    },
    /// No answer in time. It may or may not have been handled.
    #[error("no answer from {to} within {timeout:?}")]
    Timeout {
        /// Whom it was for.
        to: Destination,
        /// The caller's limit.
        timeout: Duration,
    },
    /// The handler dropped its [`Reply`](crate::Reply) unused, or what it sent could not be carried.
    /// It may or may not have been handled.
    #[error("node {node} handled the call without a reply")]
    NoReply {
        /// The receiver.
        node: NodeId,
    },
    /// This endpoint is closed. A call that was in flight when it closed fails with `Lost` instead.
    #[error("the endpoint is closed")]
    Closed,
}

impl CallError {
    /// Whether the call has surely not reached a handler, so that trying again elsewhere cannot run it twice.
    pub fn surely_not_delivered(&self) -> bool {
        match self {
            CallError::Unreachable { .. }
            | CallError::Refused { .. }
            | CallError::NoHandler { .. }
            | CallError::Overloaded { .. }
            | CallError::TooLarge { .. }
            | CallError::Closed => true,
            CallError::Lost { .. } | CallError::Timeout { .. } | CallError::NoReply { .. } => false,
        }
    }
}

/// Why there is no connection, kept with the peer and turned into either error when somebody asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// Nobody has said where the node lives.
    NoAddress,
    /// The dial or the connection went wrong.
    Unreachable(Arc<str>),
    /// One side refused.
    Refused(Refusal, Arc<str>),
    /// The endpoint is closed.
    Closed,
}

impl Failure {
    /// The error of a call to `to`.
    pub(crate) fn call_error(&self, to: Destination) -> CallError {
        match self {
            Failure::NoAddress => {
                CallError::Unreachable { to, reason: Arc::from("no address is known for it") }
            }
            Failure::Unreachable(reason) => CallError::Unreachable { to, reason: reason.clone() },
            Failure::Refused(refusal, detail) => {
                CallError::Refused { to, refusal: *refusal, detail: detail.clone() }
            }
            Failure::Closed => CallError::Closed,
        }
    }

    /// The error of a cast to `node`.
    pub(crate) fn send_error(&self, node: NodeId) -> SendError {
        match self {
            Failure::NoAddress => SendError::UnknownAddress { node },
            Failure::Unreachable(reason) => SendError::Disconnected { node, reason: reason.clone() },
            Failure::Refused(refusal, detail) => {
                SendError::Disconnected { node, reason: Arc::from(format!("{refusal} ({detail})")) }
            }
            Failure::Closed => SendError::Closed,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoAddress => f.write_str("no address is known"),
            Failure::Unreachable(reason) => f.write_str(reason),
            Failure::Refused(refusal, detail) => write!(f, "{refusal} ({detail})"),
            Failure::Closed => f.write_str("the endpoint is closed"),
        }
    }
}
