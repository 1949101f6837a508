#![doc = include_str!("../README.md")]

/// Whether a test has planted this fault: never outside of a simulation.
macro_rules! planted {
    ($mutation:ident) => {{
        #[cfg(feature = "sim")]
        {
            crate::sim::is_planted(crate::sim::Mutation::$mutation)
        }
        #[cfg(not(feature = "sim"))]
        {
            false
        }
    }};
}

mod arrivals;
mod caller;
mod client_session;
mod config;
mod data;
pub mod disk;
mod driver;
mod engine;
mod entry;
pub mod env;
mod errand;
mod error;
mod fenced;
#[cfg(any(feature = "fuzzing", all(test, feature = "sim")))]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod handover;
mod hooks;
mod host;
mod id;
mod join;
mod keepsake;
mod lease;
mod message;
mod neighbours;
mod open;
mod outputs;
mod raft;
mod registry;
mod request;
mod restore;
mod service;
mod session;
#[cfg(feature = "sim")]
pub mod sim;
mod status;
mod store;
mod timers;
pub mod transport;
mod waiter;
mod writer;

pub use self::caller::GroupCaller;
pub use self::client_session::ClientSession;
pub use self::config::{Durability, GroupConfig, HostConfig, HostConfigError};
pub use self::data::{
    CommandContext, Data, Frozen, RawData, Refused, RestoreError, Typed, encode, stop_member, stopped_because,
};
pub use self::engine::Found;
pub use self::error::{CommandError, GroupError, NotApplied, QueryError, Unknown};
pub use self::group::change::Removal;
pub use self::hooks::{LeaderHook, RawLeaderHook};
pub use self::host::Host;
pub use self::id::{FOUNDER, GroupId, MemberId, NodeId, SessionId};
pub use self::keepsake::Keepsake;
pub use self::registry::Registry;
pub use self::request::{Command, Freshness};
pub use self::restore::{RestoreGroupError, read_log_rank};
pub use self::session::{ReadRecords, RecordPosition, RecordTable, Records, RecordsPage};
pub use self::status::{GroupStatus, MemberStatus, Role};
#[doc(hidden)]
pub use self::store::bench::LogBench;
pub use self::store::{StoreConfig, StoreError, node_on};
