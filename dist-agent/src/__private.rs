//! What code that `#[agent]` generates needs; not for anybody else.

pub use serde;
use serde::de::{DeserializeOwned, Error, SeqAccess};

use crate::agent_id::AgentId;
use crate::error::{AgentError, AgentQueryError, AgentUnknown};

/// The next field of a message.
///
/// # Errors
///
/// When it is missing, or does not decode.
pub fn field<'de, T: DeserializeOwned, A: SeqAccess<'de>>(fields: &mut A) -> Result<T, A::Error> {
    fields.next_element()?.ok_or_else(|| A::Error::custom("a field is missing"))
}

/// A tag that this version does not know.
pub fn unknown_tag<E: Error>(message: &str, tag: u32) -> E {
    E::custom(format_args!("{message} has no variant with tag {tag}"))
}

/// The reply is that of another method.
#[must_use]
pub fn wrong_command(agent: &AgentId) -> AgentError {
    let reason = "it is that of another method".to_owned();
    AgentUnknown::Reply { agent: agent.clone(), reason }.into()
}

/// The answer is that of another method.
#[must_use]
pub fn wrong_query(agent: &AgentId) -> AgentQueryError {
    let reason = "it is that of another method".to_owned();
    AgentQueryError::Answer { agent: agent.clone(), reason }
}
