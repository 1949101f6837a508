#![doc = include_str!("../README.md")]
#![allow(dead_code, unused_imports, reason = "the planner of moves and listings come next")]

mod call;
mod config;
mod error;
mod key;
mod key_range;
mod keyspace;
mod keyspace_list;
mod keyspaces;
mod kv;
mod mover;
mod routes;
mod shard;
mod value_type;

pub use raft_fleet;
pub use raft_fleet::rafted_value;

pub use self::config::KvConfig;
pub use self::error::{KvCommandError, KvError, KvNotApplied, KvQueryError, KvUnknown, RouteError};
pub use self::key::{Key, KeyError};
pub use self::key_range::KeyRange;
pub use self::keyspace::{
    Keyspace, KeyspaceName, KeyspaceNameError, KeyspacePolicy, KeyspaceState, ShardPlace, SplitMergePolicy,
};
pub use self::keyspaces::{Move, MoveKind, MovePhase, MoveRefusal};
pub use self::kv::Kv;
pub use self::shard::ShardStatus;
pub use self::value_type::{Answer, Done, KvTypes, ValuePerKey};
