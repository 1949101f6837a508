#![doc = include_str!("../README.md")]

mod caller;
mod client_session;
mod config;
mod data;
pub mod disk;
mod driver;
mod engine;
mod entry;
pub mod env;
mod error;
mod group;
mod handover;
mod hooks;
mod host;
mod id;
mod join;
mod keepsake;
mod lease;
mod message;
mod open;
mod outputs;
mod raft;
mod registry;
mod request;
mod service;
mod session;
#[cfg(feature = "sim")]
pub mod sim;
mod status;
#[allow(dead_code, unused_imports, reason = "some of what it offers is for repairs that are not written yet")]
mod store;
pub mod transport;
mod waiter;
mod writer;

pub use self::caller::GroupCaller;
pub use self::client_session::ClientSession;
pub use self::config::{Durability, GroupConfig, HostConfig};
pub use self::data::{CommandContext, Data, RawData, Refused, RestoreError, Typed, encode};
pub use self::engine::Found;
pub use self::error::{CommandError, GroupError, NotApplied, QueryError, Unknown};
pub use self::group::change::Removal;
pub use self::hooks::{LeaderHook, RawLeaderHook};
pub use self::host::Host;
pub use self::id::{FOUNDER, GroupId, MemberId, NodeId, SessionId};
pub use self::keepsake::Keepsake;
pub use self::registry::Registry;
pub use self::request::{Command, Freshness};
pub use self::session::{RecordPosition, RecordTable, Records, RecordsPage};
pub use self::status::{GroupStatus, MemberStatus, Role};
#[doc(hidden)]
pub use self::store::bench::LogBench;
pub use self::store::{StoreConfig, StoreError, node_on};
