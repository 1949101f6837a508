#![doc = include_str!("../README.md")]

mod key;
mod key_range;
mod keyspace;
mod keyspaces;
mod routes;
mod shard;
mod value_type;

pub use raft_fleet;
pub use raft_fleet::rafted_value;

pub use self::key::{Key, KeyError};
pub use self::key_range::KeyRange;
pub use self::keyspace::{Keyspace, KeyspaceName, KeyspaceNameError, KeyspacePolicy, KeyspaceState};
pub use self::shard::ShardStatus;
pub use self::value_type::{Answer, Done, KvTypes, ValuePerKey};
