#![doc = include_str!("../README.md")]
#![allow(
    clippy::disallowed_methods,
    reason = "this crate is the real side of the transport port: it owns sockets, tasks and timers, and nothing that is simulated goes through it"
)]

mod accept;
mod admission;
mod authority;
mod backoff;
mod calls;
mod config;
mod config_check;
mod counters;
mod deadlines;
mod dial;
mod endpoint;
mod error;
mod expiry;
mod frame;
#[cfg(any(feature = "fuzzing", test))]
#[doc(hidden)]
pub mod fuzzing;
mod garbage;
mod handler;
mod handshake;
mod hello;
mod id;
mod identity;
mod lane;
mod lane_decoder;
mod lane_settings;
mod lifeline;
mod link;
mod liveness;
mod local;
mod log_limit;
mod metrics;
mod pack;
mod peer;
mod peer_event;
mod peer_info;
mod queue;
mod reader;
mod refusal;
mod resolver;
mod sending_stats;
mod services;
mod shared;
mod socket;
mod tls;
mod token_bucket;
mod tuning;
mod writer;

pub use authority::{AuthorityError, CertificateAuthority, NodeCertificate};
pub use config::EndpointConfig;
pub use counters::Counters;
pub use endpoint::Endpoint;
pub use error::{BindError, CallError, Destination, SendError};
pub use expiry::{IdentityEvent, IdentityEvents, IdentityPhase};
pub use handler::{Handler, Reply};
pub use id::{ClusterId, NodeId, ServiceId};
pub use identity::{Identity, IdentityError};
pub use lane::Lane;
pub use lane_settings::{Compression, LaneSettings, SettingError};
pub use peer_event::{DownReason, EventsMissed, PeerChange, PeerEvent, PeerEvents};
pub use peer_info::PeerInfo;
pub use refusal::Refusal;
pub use resolver::{Resolver, Resolving, SystemResolver};
pub use sending_stats::{BatchStats, SendingStats, StatsError};
