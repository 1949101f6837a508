//! Identities of agents: parsed once where they come in, trusted inside.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use raft_kv::Key;
use serde::{Deserialize, Serialize};

/// The name of a quota: 1 to [`QuotaName::BYTES_MAX`] bytes without control characters. Cheap to clone.
///
/// Every agent belongs to one, which must be there before the agent is activated: see
/// [`DistAgent::put_quota`](crate::DistAgent::put_quota).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QuotaName(Arc<str>);

impl QuotaName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// When it is empty, too long, or holds a control character.
    pub fn new(name: impl AsRef<str>) -> Result<Self, AgentIdError> {
        let name = name.as_ref();
        check_name("quota name", name, Self::BYTES_MAX)?;
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key of an agent, unique for its quota and type: 1 to [`AgentKey::BYTES_MAX`] bytes of text. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentKey(Arc<str>);

impl AgentKey {
    /// The longest key, in bytes.
    pub const BYTES_MAX: usize = 1024;

    /// Checks a key.
    ///
    /// # Errors
    ///
    /// When it is empty or too long.
    pub fn new(key: impl AsRef<str>) -> Result<Self, AgentIdError> {
        let key = key.as_ref();
        check_length("agent key", key, Self::BYTES_MAX)?;
        Ok(Self(key.into()))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an agent type, checked; see [`Agent::TYPE`](crate::Agent::TYPE). Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentTypeName(Arc<str>);

impl AgentTypeName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// When it is empty, too long, or holds a control character.
    pub fn new(name: impl AsRef<str>) -> Result<Self, AgentIdError> {
        let name = name.as_ref();
        check_name("agent type", name, Self::BYTES_MAX)?;
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for AgentTypeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Which agent: one per quota, type and key in a cluster. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct AgentId {
    /// The quota that it belongs to.
    pub quota: QuotaName,
    /// Its type.
    pub agent_type: AgentTypeName,
    /// Its key.
    pub key: AgentKey,
}

/// A byte that neither quotas nor types can hold, so that the parts of a store key can be told apart. It sorts below
/// every other, which keeps the agents of one quota and type side by side.
const SEPARATOR: char = '\0';

impl AgentId {
    /// The key under which the store keeps the agent. Part of the stored format.
    pub(crate) fn store_key(&self) -> Key {
        let Self { quota, agent_type, key } = self;
        let text = [quota.as_str(), agent_type.as_str(), key.as_str()].join("\0");
        Key::new(text).expect("255 + 1 + 255 + 1 + 1024 bytes are below the store's limit")
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.quota.as_str(), self.agent_type.as_str(), self.key.as_str())
    }
}

/// An identity as it lies in a store key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AgentIdRef<'a> {
    pub(crate) quota: &'a str,
    pub(crate) agent_type: &'a str,
    pub(crate) key: &'a str,
}

impl<'a> AgentIdRef<'a> {
    /// What the store keys of all agents of the same quota begin with, and no others.
    pub(crate) fn quota_prefix(store_key: &'a [u8]) -> Option<&'a [u8]> {
        let end = store_key.iter().position(|byte| *byte == SEPARATOR as u8)?;
        Some(&store_key[..=end])
    }

    /// The name of the type in what [`AgentId::store_key`] wrote.
    pub(crate) fn type_in(store_key: &'a [u8]) -> Option<&'a str> {
        let name = store_key.splitn(3, |byte| *byte == SEPARATOR as u8).nth(1)?;
        std::str::from_utf8(name).ok()
    }

    /// Reads what [`AgentId::store_key`] wrote; the bytes may be a stranger's.
    pub(crate) fn parse(store_key: &'a [u8]) -> Result<Self, AgentIdError> {
        let text = std::str::from_utf8(store_key).map_err(|_| AgentIdError::StoreKey)?;
        let mut parts = text.splitn(3, SEPARATOR);
        let (Some(quota), Some(agent_type), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(AgentIdError::StoreKey);
        };
        check_name("quota name", quota, QuotaName::BYTES_MAX)?;
        check_name("agent type", agent_type, AgentTypeName::BYTES_MAX)?;
        check_length("agent key", key, AgentKey::BYTES_MAX)?;
        Ok(Self { quota, agent_type, key })
    }
}

/// Why a text is no part of an identity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentIdError {
    /// Every part has at least one byte.
    #[error("the {what} is empty")]
    Empty {
        /// Which part.
        what: &'static str,
    },
    /// Every part has a longest length.
    #[error("the {what} has {bytes} bytes, over the limit of {limit}")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Names hold no control characters.
    #[error("the {what} {name:?} holds a control character")]
    ControlCharacter {
        /// Which part.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The bytes are no identity in the form of the store.
    #[error("the store key is no identity of an agent")]
    StoreKey,
    /// This node hosts agents, and this type is not among those it was started with.
    #[error("this node does not know the agent type {0:?}")]
    UnknownAgentType(String),
    /// The identity is that of an agent of another type.
    #[error("the identity names an agent of type {named:?}, not {wanted:?}")]
    OtherType {
        /// The type that it names.
        named: String,
        /// The type that was asked for.
        wanted: &'static str,
    },
}

fn check_length(what: &'static str, text: &str, limit: usize) -> Result<(), AgentIdError> {
    match text.len() {
        0 => Err(AgentIdError::Empty { what }),
        bytes if bytes > limit => Err(AgentIdError::TooLong { what, bytes, limit }),
        _ => Ok(()),
    }
}

fn check_name(what: &'static str, name: &str, limit: usize) -> Result<(), AgentIdError> {
    check_length(what, name, limit)?;
    // Looked at whenever a store key is read; nearly all names are plain.
    let is_plain = name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !is_plain && name.chars().any(char::is_control) {
        return Err(AgentIdError::ControlCharacter { what, name: name.to_owned() });
    }
    Ok(())
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl TryFrom<String> for $name {
            type Error = AgentIdError;

            fn try_from(text: String) -> Result<Self, AgentIdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0.as_ref().to_owned()
            }
        }
    };
}

text!(QuotaName);
text!(AgentKey);
text!(AgentTypeName);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_part_is_checked_where_it_comes_in() {
        assert_eq!(QuotaName::new(""), Err(AgentIdError::Empty { what: "quota name" }));
        let too_long = AgentIdError::TooLong { what: "quota name", bytes: 256, limit: 255 };
        assert_eq!(QuotaName::new("q".repeat(256)), Err(too_long));
        assert!(matches!(QuotaName::new("a\0b"), Err(AgentIdError::ControlCharacter { .. })));
        assert!(matches!(AgentTypeName::new("a\0b"), Err(AgentIdError::ControlCharacter { .. })));
        assert_eq!(AgentKey::new(""), Err(AgentIdError::Empty { what: "agent key" }));
        assert!(matches!(AgentKey::new("k".repeat(1025)), Err(AgentIdError::TooLong { bytes: 1025, .. })));
        assert!(AgentKey::new("any\0thing\n").is_ok());
    }

    #[test]
    fn a_part_from_outside_is_checked_when_it_is_decoded() {
        let bytes = postcard::to_stdvec(&("", "counter", "key")).unwrap();
        assert!(postcard::from_bytes::<AgentId>(&bytes).is_err());
    }

    fn id(quota: &str, agent_type: &str, key: &str) -> AgentId {
        AgentId {
            quota: QuotaName::new(quota).unwrap(),
            agent_type: AgentTypeName::new(agent_type).unwrap(),
            key: AgentKey::new(key).unwrap(),
        }
    }

    /// A changed form would look for every stored agent in the wrong place.
    #[test]
    fn the_store_key_never_changes() {
        let key = id("tenant-a", "counter", "room-42").store_key();
        assert_eq!(key.as_bytes(), b"tenant-a\0counter\0room-42");
    }

    #[test]
    fn the_longest_identity_fits_into_a_store_key() {
        let key = id(&"q".repeat(255), &"t".repeat(255), &"k".repeat(1024)).store_key();
        assert_eq!(key.as_bytes().len(), 255 + 255 + 1024 + 2);
    }

    proptest! {
        #[test]
        fn two_identities_never_share_a_store_key(
            quota in "[a-c/]{1,3}", agent_type in "[a-c/]{1,3}", key in "[a-c/\0]{1,3}",
        ) {
            let store_key = id(&quota, &agent_type, &key).store_key();
            let read = AgentIdRef::parse(store_key.as_bytes()).unwrap();
            prop_assert_eq!(read, AgentIdRef { quota: &quota, agent_type: &agent_type, key: &key });
            prop_assert_eq!(AgentIdRef::type_in(store_key.as_bytes()), Some(&*agent_type));
        }

        #[test]
        fn a_strangers_store_key_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = AgentIdRef::parse(&bytes);
        }
    }
}
