#![doc = include_str!("../README.md")]

mod client_session;
mod config;
mod data;
pub mod env;
mod error;
mod id;
mod registry;
mod request;
mod status;
pub mod transport;

pub use self::client_session::ClientSession;
pub use self::config::{GroupConfig, HostConfig};
pub use self::data::{CommandContext, Data, RawData, Refused, RestoreError, Typed, encode};
pub use self::error::{CommandError, GroupError, NotApplied, QueryError, Unknown};
pub use self::id::{FOUNDER, GroupId, MemberId, NodeId, SessionId};
pub use self::registry::Registry;
pub use self::request::{Command, Freshness};
pub use self::status::{GroupStatus, MemberStatus, Role};
