//! Keyspaces: a name, what its values are, and how it is spread.

use std::fmt;
use std::sync::Arc;

use raft_fleet::GroupName;
use raft_fleet::rafted_value::GroupConfig;
use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::key_range::KeyRange;
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

    /// The name of the group that is a shard of this keyspace. It is never used again: a keyspace that is registered
    /// anew has another generation, and numbers of shards only grow.
    pub(crate) fn shard_group(&self, generation: u64, shard: u32) -> GroupName {
        GroupName::new(&format!("kv/{}/{generation}.{shard}", self.0))
            .expect("at most 200 + 35 bytes without control characters")
    }

    /// What [`shard_group`](Self::shard_group) was made of; `None` for names of other groups.
    pub(crate) fn parse_shard_group(group: &GroupName) -> Option<(KeyspaceName, u64, u32)> {
        let (name, numbers) = group.as_str().strip_prefix("kv/")?.rsplit_once('/')?;
        let (generation, shard) = numbers.split_once('.')?;
        Some((Self::new(name).ok()?, generation.parse().ok()?, shard.parse().ok()?))
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

/// What a keyspace is made of. All of it but [`split_merge`](Self::split_merge) is fixed when it is registered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyspacePolicy {
    /// The name under which every node registers the [`ValuePerKey`](crate::ValuePerKey) of its values.
    pub value_type: String,
    /// Into how many shards its keys are divided at first, each a group of its own. 1 to
    /// [`KeyspacePolicy::SHARDS_MAX`]; default 16.
    pub shards: u32,
    /// How many members each shard should have. 1 to [`KeyspacePolicy::REPLICAS_MAX`]; default 3.
    pub replicas: u32,
    /// The settings of each shard's group. Its `command_bytes_max` (1 MiB and 64 KiB by default) is the limit of a command
    /// with its key, and of a value that can be moved to another shard.
    pub group: GroupConfig,
    /// The longest key that a command may name, in bytes; at most [`Key::BYTES_MAX`](crate::Key::BYTES_MAX). Default
    /// 4,096.
    pub key_bytes_max: u32,
    /// The largest value, as the size that its type reports ([`Done::size`](crate::Done::size)): bytes in a
    /// [`BytesStore`](crate::BytesStore), elsewhere whatever unit the type counts in; one that reports 0 has no limit. A
    /// command that would leave a larger value changes nothing. What [`wake`](crate::ValuePerKey::wake) and
    /// [`sweep`](crate::ValuePerKey::sweep) leave is not limited. `command_bytes_max` must have room for a value and its
    /// key, or the larger ones are refused when they are sent. Default 1 MiB.
    pub value_bytes_max: u64,
    /// When shards are split and merged.
    pub split_merge: SplitMergePolicy,
}

impl KeyspacePolicy {
    /// The largest number of shards.
    pub const SHARDS_MAX: u32 = 4096;
    /// The largest number of members of a shard.
    pub const REPLICAS_MAX: u32 = 15;
    /// The smallest `command_bytes_max` of a shard's group: the store's own commands must have room.
    pub const COMMAND_BYTES_MIN: u64 = 1024;
    /// The smallest `retry_window_max_ms` of a shard's group: a command must be there before its window is over.
    pub const RETRY_WINDOW_MIN_MS: u64 = 1000;

    /// The defaults, for values of the type with this name.
    pub fn of(value_type: impl Into<String>) -> Self {
        let group = GroupConfig { command_bytes_max: (1 << 20) + (64 << 10), ..GroupConfig::default() };
        let split_merge = SplitMergePolicy::default();
        Self {
            value_type: value_type.into(),
            shards: 16,
            replicas: 3,
            group,
            key_bytes_max: 4096,
            value_bytes_max: 1 << 20,
            split_merge,
        }
    }

    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// A sentence that names the setting and its number.
    pub fn validate(&self) -> Result<(), String> {
        self.validate_as_listed()?;
        let GroupConfig { command_bytes_max, session_replies_max, retry_window_max_ms, .. } = self.group;
        if command_bytes_max < Self::COMMAND_BYTES_MIN {
            return Err(format!(
                "command_bytes_max is {command_bytes_max}, below {}",
                Self::COMMAND_BYTES_MIN
            ));
        }
        if session_replies_max == 0 {
            return Err("session_replies_max is 0".into());
        }
        if retry_window_max_ms < Self::RETRY_WINDOW_MIN_MS {
            let least = Self::RETRY_WINDOW_MIN_MS;
            return Err(format!("retry_window_max_ms is {retry_window_max_ms}, below {least}"));
        }
        Ok(())
    }

    /// What the list of keyspaces refuses itself. All of its members must refuse the same, whatever their version: this
    /// never changes.
    pub(crate) fn validate_as_listed(&self) -> Result<(), String> {
        value_type::check_name(&self.value_type)?;
        let Self { shards, replicas, .. } = *self;
        self.split_merge.validate()?;
        let SplitMergePolicy { min_shards, max_shards, .. } = self.split_merge;
        if shards < min_shards || shards > max_shards {
            return Err(format!("shards is {shards}, not {min_shards} to {max_shards}"));
        }
        if replicas == 0 || replicas > Self::REPLICAS_MAX {
            return Err(format!("replicas is {replicas}, not 1 to {}", Self::REPLICAS_MAX));
        }
        if self.key_bytes_max == 0 || self.key_bytes_max as usize > Key::BYTES_MAX {
            return Err(format!("key_bytes_max is {}, not 1 to {}", self.key_bytes_max, Key::BYTES_MAX));
        }
        self.group.validate()
    }

    /// What differs from another policy: each setting here, and there in brackets.
    pub fn differences(&self, other: &KeyspacePolicy) -> String {
        let Self { value_type, shards, replicas, group, key_bytes_max, value_bytes_max, split_merge } = self;
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
        if *key_bytes_max != other.key_bytes_max {
            differences.push(format!("key_bytes_max {key_bytes_max} ({})", other.key_bytes_max));
        }
        if *value_bytes_max != other.value_bytes_max {
            differences.push(format!("value_bytes_max {value_bytes_max} ({})", other.value_bytes_max));
        }
        if *split_merge != other.split_merge {
            differences.push(format!("split_merge {split_merge:?} ({:?})", other.split_merge));
        }
        differences.join(", ")
    }
}

/// When shards are split and merged. By default they never are: each threshold is optional.
///
/// A shard that is over any of its thresholds is split, the one that is furthest over it first. Two neighbours are
/// merged when together they are below `merge_percent` of every threshold, and there is one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SplitMergePolicy {
    /// No merge makes fewer shards than this. At least 1; default 1.
    pub min_shards: u32,
    /// No split makes more. At most [`KeyspacePolicy::SHARDS_MAX`]; default that.
    pub max_shards: u32,
    /// The keys of one shard. Default: no limit.
    pub max_keys: Option<u64>,
    /// The sum of the sizes of a shard's values, in the unit of the value type. Default: no limit.
    pub max_size: Option<u64>,
    /// The load of one shard a second, in the unit of the value type. Default: no limit.
    pub max_load: Option<u64>,
    /// The load of a query for a key without a value. Default 1.
    pub miss_load: u64,
    /// Neighbours that together have less than so many hundredths of each threshold are merged. At most 100, where a
    /// merge could be undone by the next split; 0 for never. Default 50.
    pub merge_percent: u32,
    /// A shard is left alone for so long after a split or a merge, in ms. Default 60,000.
    pub cooling_ms: u64,
}

impl Default for SplitMergePolicy {
    fn default() -> Self {
        Self {
            min_shards: 1,
            max_shards: KeyspacePolicy::SHARDS_MAX,
            max_keys: None,
            max_size: None,
            max_load: None,
            miss_load: 1,
            merge_percent: 50,
            cooling_ms: 60_000,
        }
    }
}

impl SplitMergePolicy {
    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// A sentence that names the setting and its number.
    pub fn validate(&self) -> Result<(), String> {
        let Self { min_shards, max_shards, max_keys, max_size, max_load, merge_percent, .. } = *self;
        if min_shards == 0 {
            return Err("min_shards is 0".into());
        }
        if max_shards > KeyspacePolicy::SHARDS_MAX {
            return Err(format!("max_shards is {max_shards}, over {}", KeyspacePolicy::SHARDS_MAX));
        }
        if min_shards > max_shards {
            return Err(format!("min_shards {min_shards} is above max_shards {max_shards}"));
        }
        for (name, limit) in [("max_keys", max_keys), ("max_size", max_size), ("max_load", max_load)] {
            if limit == Some(0) {
                return Err(format!("{name} is 0"));
            }
        }
        if merge_percent > 100 {
            return Err(format!("merge_percent is {merge_percent}, over 100"));
        }
        Ok(())
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
    /// Its shards, in the order of their ranges, which cover all hashes once.
    pub shards: Vec<ShardPlace>,
    /// Grows with every change of its shards.
    pub revision: u64,
    /// The number of the next shard that a split makes.
    pub(crate) next_shard: u32,
    /// The policy with which it was registered, which whoever registers it again still has.
    pub(crate) registered: KeyspacePolicy,
}

/// A shard of a keyspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardPlace {
    /// Its number in the keyspace; never used again.
    pub number: u32,
    /// The key hashes it is responsible for.
    pub range: KeyRange,
    /// The newest move that has changed its range; 0 if none has.
    pub moved: u64,
    /// When it last took part in a move that ended, in stamped time; 0 for never.
    pub changed_ms: u64,
}

impl Keyspace {
    pub(crate) fn new(name: KeyspaceName, policy: KeyspacePolicy, generation: u64) -> Self {
        let place = |number| ShardPlace {
            number,
            range: KeyRange::part(number, policy.shards),
            moved: 0,
            changed_ms: 0,
        };
        let shards = (0..policy.shards).map(place).collect();
        let (state, next_shard, registered) = (KeyspaceState::Creating, policy.shards, policy.clone());
        Self { name, policy, generation, state, shards, revision: 0, next_shard, registered }
    }

    /// The shard of this number.
    pub fn shard(&self, number: u32) -> Option<&ShardPlace> {
        self.shards.iter().find(|shard| shard.number == number)
    }

    /// Says what is wrong with its shards, if anything: they are to cover all hashes once, in order. The bytes may be a
    /// stranger's, and a route needs a shard for every hash.
    pub(crate) fn check_shards(&self) -> Result<(), String> {
        let name = &self.name;
        let mut next = Some(0);
        for place in &self.shards {
            if next != Some(place.range.first()) {
                let (number, range) = (place.number, place.range);
                return Err(format!(
                    "shard {number} of keyspace {name} does not begin where the one before ends: {range}"
                ));
            }
            next = place.range.last().checked_add(1);
        }
        match next {
            None => Ok(()),
            Some(hash) => Err(format!("keyspace {name} has no shard for the hash {hash:016x}")),
        }
    }

    /// The group of a shard of this keyspace.
    pub(crate) fn group(&self, shard: u32) -> GroupName {
        self.name.shard_group(self.generation, shard)
    }
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
        let group = name.shard_group(u64::MAX, u32::MAX);
        assert_eq!(KeyspaceName::parse_shard_group(&group), Some((name, u64::MAX, u32::MAX)));
        for other in ["kv-keyspaces", "kv/a", "kv/a/1", "kv/a/1.x", "xx/a/1.2"] {
            assert_eq!(KeyspaceName::parse_shard_group(&GroupName::new(other).unwrap()), None);
        }
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
        // A keyspace with one of these once stayed half made for ever.
        let group = |group| KeyspacePolicy { group, ..policy.clone() };
        let groups = policy.group.clone();
        check(group(GroupConfig { command_bytes_max: 9, ..groups.clone() }), "command_bytes_max is 9");
        check(group(GroupConfig { session_replies_max: 0, ..groups.clone() }), "session_replies_max is 0");
        check(group(GroupConfig { retry_window_max_ms: 9, ..groups }), "retry_window_max_ms is 9");
        check(KeyspacePolicy { value_type: String::new(), ..policy.clone() }, "value type");
        let split_merge = |split_merge| KeyspacePolicy { split_merge, ..policy.clone() };
        let rules = SplitMergePolicy::default();
        check(split_merge(SplitMergePolicy { min_shards: 0, ..rules.clone() }), "min_shards is 0");
        let contrary = SplitMergePolicy { min_shards: 9, max_shards: 8, ..rules.clone() };
        check(split_merge(contrary), "min_shards 9 is above max_shards 8");
        check(split_merge(SplitMergePolicy { max_shards: 5000, ..rules.clone() }), "max_shards is 5000");
        check(split_merge(SplitMergePolicy { max_shards: 8, ..rules.clone() }), "shards is 16, not 1 to 8");
        check(split_merge(SplitMergePolicy { max_size: Some(0), ..rules.clone() }), "max_size is 0");
        check(split_merge(SplitMergePolicy { merge_percent: 101, ..rules }), "merge_percent is 101");
    }

    /// The first of them once had to begin at the hash 0, or a caller panicked.
    #[test]
    fn a_keyspace_whose_shards_leave_a_hash_out_or_share_one_is_told() {
        let range = |first, last| KeyRange::new(first, last).unwrap();
        let check = |ranges: &[KeyRange]| {
            let shards = (0..).zip(ranges);
            let shards =
                shards.map(|(number, range)| ShardPlace { number, range: *range, moved: 0, changed_ms: 0 });
            let (name, policy) = (KeyspaceName::new("n").unwrap(), KeyspacePolicy::of("bytes"));
            let shards = shards.collect();
            let (generation, revision, next_shard, state) = (1, 1, 9, KeyspaceState::Ready);
            let registered = policy.clone();
            Keyspace { name, policy, generation, revision, shards, next_shard, state, registered }
                .check_shards()
        };
        assert_eq!(check(&[KeyRange::ALL]), Ok(()));
        assert_eq!(check(&[range(0, 9), range(10, u64::MAX)]), Ok(()));
        let none = "keyspace n has no shard for the hash 0000000000000000";
        assert_eq!(check(&[]), Err(none.into()));
        assert_eq!(
            check(&[range(0, 9)]),
            Err("keyspace n has no shard for the hash 000000000000000a".into())
        );
        for wrong in [
            &[range(1, u64::MAX)][..],
            &[range(0, 9), range(9, u64::MAX)],
            &[range(0, 9), range(11, u64::MAX)],
            &[KeyRange::ALL, range(0, 9)],
        ] {
            let reason = check(wrong).unwrap_err();
            assert!(reason.contains("does not begin where the one before ends"), "{reason}");
        }
    }

    #[test]
    fn only_what_differs_between_two_policies_is_told() {
        let policy = KeyspacePolicy::of("bytes");
        assert_eq!(policy.differences(&policy), "");
        let other = KeyspacePolicy { shards: 4, ..KeyspacePolicy::of("text") };
        assert_eq!(policy.differences(&other), "value_type \"bytes\" (\"text\"), shards 16 (4)");
    }
}
