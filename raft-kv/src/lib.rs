#![doc = include_str!("../README.md")]

/// Whether a test has planted this fault: never outside of a simulation.
macro_rules! planted {
    ($mutation:ident) => {{
        #[cfg(feature = "sim")]
        {
            raft_fleet::rafted_value::sim::is_planted(crate::sim::$mutation)
        }
        #[cfg(not(feature = "sim"))]
        {
            false
        }
    }};
}

mod all_keys;
mod bytes_store;
mod call;
mod config;
mod error;
#[cfg(any(feature = "fuzzing", test))]
#[doc(hidden)]
pub mod fuzzing;
mod key;
mod key_range;
mod keyspace;
mod keyspace_list;
mod keyspaces;
mod kv;
mod led_shard;
mod list;
mod mover;
mod routes;
mod shard;
#[cfg(feature = "sim")]
pub mod sim;
mod trail;
mod value_type;
mod waker;

pub use raft_fleet;
pub use raft_fleet::rafted_value;

pub use self::all_keys::AllKeysRun;
pub use self::bytes_store::{BytesStore, BytesValue};
pub use self::config::KvConfig;
pub use self::error::{KvCommandError, KvError, KvNotApplied, KvQueryError, KvUnknown, RouteError};
pub use self::key::{Key, KeyError};
pub use self::key_range::KeyRange;
pub use self::keyspace::{
    Keyspace, KeyspaceName, KeyspaceNameError, KeyspacePolicy, KeyspaceState, ShardPlace, SplitMergePolicy,
};
pub use self::keyspaces::{Move, MoveKind, MovePhase, MoveRefusal};
pub use self::kv::Kv;
pub use self::led_shard::LedShard;
pub use self::list::{KeyPage, ListPosition};
pub use self::shard::{ClassCount, ShardStatus, Tally};
pub use self::value_type::{Answer, Done, KvTypes, ValuePerKey, Woken};
