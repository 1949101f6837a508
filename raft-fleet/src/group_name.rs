//! The names that operators see: parsed once at the edge, trusted inside.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name of a group, a node or a zone, and the longest address, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// The name of a group: 1 to 255 bytes, no control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// Parses a name.
    ///
    /// # Errors
    ///
    /// When the name is empty, longer than 255 bytes, or holds a control character.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check_name("group name", name)?;
        Ok(Self(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for GroupName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(&name)
    }
}

impl TryFrom<&str> for GroupName {
    type Error = NameError;

    fn try_from(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> String {
        name.as_str().to_owned()
    }
}

impl Borrow<str> for GroupName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// What is wrong with a name, a zone or an address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NameError {
    /// It has no characters.
    #[error("the {what} is empty")]
    Empty {
        /// What was to be named.
        what: String,
    },
    /// It is too long.
    #[error("the {what} has {bytes} bytes, over the limit of {NAME_BYTES_MAX}")]
    TooLong {
        /// What was to be named.
        what: String,
        /// Its length.
        bytes: usize,
    },
    /// It holds a control character, or white space where none may be.
    #[error("the {what} holds the character {character:?} at byte {at}")]
    Character {
        /// What was to be named.
        what: String,
        /// The first character that may not be there.
        character: char,
        /// Where it is.
        at: usize,
    },
}

/// Checks a name of a group or a node: spaces are fine, control characters are not.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), NameError> {
    check(what, name, char::is_control)
}

/// Checks a zone or an address: neither white space nor control characters.
pub(crate) fn check_word(what: &str, word: &str) -> Result<(), NameError> {
    check(what, word, |character| character.is_control() || character.is_whitespace())
}

fn check(what: &str, name: &str, refused: impl Fn(char) -> bool) -> Result<(), NameError> {
    let what = || what.to_owned();
    if name.is_empty() {
        return Err(NameError::Empty { what: what() });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { what: what(), bytes: name.len() });
    }
    match name.char_indices().find(|(_, character)| refused(*character)) {
        Some((at, character)) => Err(NameError::Character { what: what(), character, at }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_with_a_sentence_that_names_what_is_wrong() {
        assert_eq!(GroupName::new("").unwrap_err().to_string(), "the group name is empty");
        let long = GroupName::new(&"x".repeat(100_000)).unwrap_err().to_string();
        assert_eq!(long, "the group name has 100000 bytes, over the limit of 255");
        let control = GroupName::new("a\nb").unwrap_err().to_string();
        assert_eq!(control, "the group name holds the character '\\n' at byte 1");
        assert_eq!(
            check_word("zone", "rack 1").unwrap_err().to_string(),
            "the zone holds the character ' ' at byte 4"
        );
        assert!(GroupName::new("kv/users/17").is_ok());
    }

    #[test]
    fn a_name_off_the_wire_is_parsed_again() {
        let bytes = postcard::to_stdvec("").unwrap();
        assert!(postcard::from_bytes::<GroupName>(&bytes).is_err());
        let name = GroupName::new("g").unwrap();
        let bytes = postcard::to_stdvec(&name).unwrap();
        assert_eq!(postcard::from_bytes::<GroupName>(&bytes).unwrap(), name);
    }
}
