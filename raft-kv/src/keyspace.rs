//! Keyspaces: a name, what its values are, and how it is spread.

use std::fmt;
use std::sync::Arc;

use raft_fleet::GroupName;
use raft_fleet::rafted_value::GroupConfig;
use serde::{Deserialize, Serialize};

use crate::value_type;

/// The name of a keyspace: 1 to [`KeyspaceName::BYTES_MAX`] bytes without control characters and slashes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyspaceName(Arc<str>);

impl KeyspaceName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 200;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// When it is empty, too long, or holds a control character or a slash.
    pub fn new(name: impl AsRef<str>) -> Result<Self, KeyspaceNameError> {
        let name = name.as_ref();
        if name.is_empty() {
            return Err(KeyspaceNameError::Empty);
        }
        if name.len() > Self::BYTES_MAX {
            return Err(KeyspaceNameError::TooLong { bytes: name.len() });
        }
        match name.chars().find(|char| char.is_control() || *char == '/') {
            Some(char) => Err(KeyspaceNameError::Character { name: name.to_owned(), char }),
            None => Ok(Self(name.into())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the group that is shard `index` of this keyspace.
    pub(crate) fn shard_group(&self, index: u32) -> GroupName {
        GroupName::new(&format!("kv/{}/{index}", self.0))
            .expect("at most 200 + 14 bytes without control characters")
    }
}

impl fmt::Display for KeyspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl TryFrom<String> for KeyspaceName {
    type Error = KeyspaceNameError;

    fn try_from(name: String) -> Result<Self, KeyspaceNameError> {
        Self::new(name)
    }
}

impl From<KeyspaceName> for String {
    fn from(name: KeyspaceName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// Why a text is no name of a keyspace.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyspaceNameError {
    /// A name has at least one byte.
    #[error("the name of the keyspace is empty")]
    Empty,
    /// A name has at most [`KeyspaceName::BYTES_MAX`] bytes.
    #[error("a keyspace name of {bytes} bytes is over the limit of {}", KeyspaceName::BYTES_MAX)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Slashes and control characters have no place in a name.
    #[error("the keyspace name {name:?} holds {char:?}")]
    Character {
        /// The name.
        name: String,
        /// The first character that must not be there.
        char: char,
    },
}

/// What a keyspace is made of; fixed when it is registered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyspacePolicy {
    /// The name under which every node registers the [`ValuePerKey`](crate::ValuePerKey) of its values.
    pub value_type: String,
    /// Into how many shards its keys are divided, each a group of its own. 1 to [`KeyspacePolicy::SHARDS_MAX`];
    /// default 16.
    pub shards: u32,
    /// How many members each shard should have. 1 to [`KeyspacePolicy::REPLICAS_MAX`]; default 3.
    pub replicas: u32,
    /// The settings of each shard's group.
    pub group: GroupConfig,
}

impl KeyspacePolicy {
    /// The largest number of shards.
    pub const SHARDS_MAX: u32 = 4096;
    /// The largest number of members of a shard.
    pub const REPLICAS_MAX: u32 = 15;

    /// The defaults, for values of the type with this name.
    pub fn of(value_type: impl Into<String>) -> Self {
        Self { value_type: value_type.into(), shards: 16, replicas: 3, group: GroupConfig::default() }
    }

    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// A sentence that names the setting and its number.
    pub fn validate(&self) -> Result<(), String> {
        value_type::check_name(&self.value_type)?;
        let Self { shards, replicas, .. } = *self;
        if shards == 0 || shards > Self::SHARDS_MAX {
            return Err(format!("shards is {shards}, not 1 to {}", Self::SHARDS_MAX));
        }
        if replicas == 0 || replicas > Self::REPLICAS_MAX {
            return Err(format!("replicas is {replicas}, not 1 to {}", Self::REPLICAS_MAX));
        }
        self.group.validate()
    }

    /// What differs from another policy: each setting here, and there in brackets.
    pub fn differences(&self, other: &KeyspacePolicy) -> String {
        let Self { value_type, shards, replicas, group } = self;
        let mut differences = Vec::new();
        if *value_type != other.value_type {
            differences.push(format!("value_type {value_type:?} ({:?})", other.value_type));
        }
        if *shards != other.shards {
            differences.push(format!("shards {shards} ({})", other.shards));
        }
        if *replicas != other.replicas {
            differences.push(format!("replicas {replicas} ({})", other.replicas));
        }
        if *group != other.group {
            differences.push(format!("group {group:?} ({:?})", other.group));
        }
        differences.join(", ")
    }
}

/// How far a keyspace has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KeyspaceState {
    /// It is registered, and its shards are being made.
    Creating,
    /// Every shard serves.
    Ready,
}

/// A keyspace as the cluster knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Keyspace {
    /// Its name.
    pub name: KeyspaceName,
    /// What it is made of.
    pub policy: KeyspacePolicy,
    /// Differs from every other keyspace that ever was, of the same name too.
    pub generation: u64,
    /// How far it has come.
    pub state: KeyspaceState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_checked_where_it_comes_in() {
        assert_eq!(KeyspaceName::new(""), Err(KeyspaceNameError::Empty));
        assert_eq!(KeyspaceName::new("x".repeat(201)), Err(KeyspaceNameError::TooLong { bytes: 201 }));
        assert!(matches!(KeyspaceName::new("a/b"), Err(KeyspaceNameError::Character { char: '/', .. })));
        assert!(matches!(KeyspaceName::new("a\nb"), Err(KeyspaceNameError::Character { char: '\n', .. })));
        let name = KeyspaceName::new("x".repeat(200)).unwrap();
        assert!(name.shard_group(KeyspacePolicy::SHARDS_MAX).to_string().ends_with("/4096"));
    }

    #[test]
    fn a_policy_names_the_setting_that_cannot_work() {
        let policy = KeyspacePolicy::of("bytes");
        assert_eq!(policy.validate(), Ok(()));
        let check = |policy: KeyspacePolicy, setting: &str| {
            let reason = policy.validate().unwrap_err();
            assert!(reason.contains(setting), "{reason}");
        };
        check(KeyspacePolicy { shards: 0, ..policy.clone() }, "shards is 0");
        check(KeyspacePolicy { shards: 4097, ..policy.clone() }, "shards is 4097");
        check(KeyspacePolicy { replicas: 0, ..policy.clone() }, "replicas is 0");
        check(KeyspacePolicy { value_type: String::new(), ..policy }, "value type");
    }

    #[test]
    fn only_what_differs_between_two_policies_is_told() {
        let policy = KeyspacePolicy::of("bytes");
        assert_eq!(policy.differences(&policy), "");
        let other = KeyspacePolicy { shards: 4, ..KeyspacePolicy::of("text") };
        assert_eq!(policy.differences(&other), "value_type \"bytes\" (\"text\"), shards 16 (4)");
    }
}
