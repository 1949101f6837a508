//! Keys: what a value is stored under, and the hash that decides which shard stores it.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

/// The name of a value in its keyspace: 1 to [`Key::BYTES_MAX`] bytes of any kind; a keyspace may allow fewer
/// ([`KeyspacePolicy::key_bytes_max`](crate::KeyspacePolicy::key_bytes_max)).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct Key(Bytes);

impl Key {
    /// The longest key of any keyspace, in bytes.
    pub const BYTES_MAX: usize = 1 << 14;

    /// Checks the length of a key.
    ///
    /// # Errors
    ///
    /// When it is empty or longer than [`Key::BYTES_MAX`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        check(&bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Where the key lies in the space that shards divide: XXH3, 64 bits, seed zero. Part of the stored format: it
    /// decides where a key is looked for.
    pub fn hash(&self) -> u64 {
        hash(&self.0)
    }
}

/// The hash of a key's bytes; see [`Key::hash`].
pub(crate) fn hash(key: &[u8]) -> u64 {
    XxHash3_64::oneshot(key)
}

/// Refuses what is no key.
pub(crate) fn check(key: &[u8]) -> Result<(), KeyError> {
    match key.len() {
        0 => Err(KeyError::Empty),
        bytes if bytes > Key::BYTES_MAX => Err(KeyError::TooLong { bytes }),
        _ => Ok(()),
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl TryFrom<Bytes> for Key {
    type Error = KeyError;

    fn try_from(bytes: Bytes) -> Result<Self, KeyError> {
        Self::new(bytes)
    }
}

impl From<Key> for Bytes {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// Why bytes are no key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A key has at least one byte.
    #[error("the key is empty")]
    Empty,
    /// A key has at most [`Key::BYTES_MAX`] bytes.
    #[error("a key of {bytes} bytes is over the limit of {}", Key::BYTES_MAX)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_to_16384_bytes() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert!(Key::new("k").is_ok());
        assert!(Key::new(vec![7; 16_384]).is_ok());
        assert_eq!(Key::new(vec![7; 16_385]), Err(KeyError::TooLong { bytes: 16_385 }));
    }

    #[test]
    fn a_key_from_outside_is_checked_when_it_is_decoded() {
        let empty = postcard::to_stdvec(&Bytes::new()).unwrap();
        assert!(postcard::from_bytes::<Key>(&empty).is_err());
        let key = Key::new("room-42").unwrap();
        let bytes = postcard::to_stdvec(&key).unwrap();
        assert_eq!(postcard::from_bytes::<Key>(&bytes).unwrap(), key);
    }

    /// A changed hash would look for every stored key in the wrong shard.
    #[test]
    fn the_hash_of_a_key_never_changes() {
        // The published value for the empty input.
        assert_eq!(hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(Key::new("room-42").unwrap().hash(), 3_361_420_088_866_276_715);
    }
}
