#![doc = include_str!("../README.md")]

mod config;
mod error;
mod key;
mod key_range;
mod keyspace;
mod keyspace_list;
mod keyspaces;
mod kv;
mod routes;
#[allow(dead_code, unused_imports, reason = "the performer of moves comes next")]
mod shard;
mod value_type;

pub use raft_fleet;
pub use raft_fleet::rafted_value;

pub use self::config::KvConfig;
pub use self::error::{KvCommandError, KvError, KvNotApplied, KvQueryError, KvUnknown, RouteError};
pub use self::key::{Key, KeyError};
pub use self::key_range::KeyRange;
pub use self::keyspace::{Keyspace, KeyspaceName, KeyspaceNameError, KeyspacePolicy, KeyspaceState};
pub use self::kv::Kv;
pub use self::shard::ShardStatus;
pub use self::value_type::{Answer, Done, KvTypes, ValuePerKey};
