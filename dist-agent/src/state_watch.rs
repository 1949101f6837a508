//! Finds agents whose state would be another one after a failover: live values that their encoding does not bring back.
//!
//! A state is encoded when a snapshot is taken, long after the command that made it what it is, and decoded on another
//! node. What goes wrong there goes wrong for the whole shard, or silently. So it is looked for at once:
//!
//! - that a state *encodes* is made sure of after every command, by every member alike, at the price of one walk over it;
//! - that it *decodes* is made sure of by every member alike after the first commands of an agent, and ever more rarely;
//! - that it *behaves* the same is tried by each member for itself with the first commands of each type: a field that is
//!   not encoded at all (`serde(skip)`) leaves no trace in the bytes, so the command also runs on a decoded copy. What
//!   is found is logged; nothing that members agree on may depend on it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agent::Agent;
use crate::caught::caught;
use crate::context::AgentContext;
use crate::wire::try_encode;

/// Commands of one type that a member tries on a copy as well; in builds with debug assertions it is all of them.
const TRIALS_MAX: u32 = 1024;

/// After so many commands an agent's state is decoded only at every power of two.
const DECODED_FIRST: u64 = 16;

/// Whether the state that the command at this revision leaves behind is decoded too. Members must agree on it.
pub(crate) fn is_decoded(revision: u64) -> bool {
    revision < DECODED_FIRST || revision.is_power_of_two()
}

/// What one member has seen of the states of one type.
pub(crate) struct StateWatch {
    agent_type: &'static str,
    trials: AtomicU32,
    is_reported: AtomicBool,
}

impl StateWatch {
    pub(crate) fn new(agent_type: &'static str) -> Self {
        Self { agent_type, trials: AtomicU32::new(0), is_reported: AtomicBool::new(false) }
    }

    /// Logs that states of this type cannot be relied on: once, because it is true of every agent of the type.
    pub(crate) fn report(&self, reason: &str) {
        if !self.is_reported.swap(true, Ordering::Relaxed) {
            tracing::error!(
                agent_type = self.agent_type,
                reason,
                "the state of this agent type does not come back from its encoding as it was: it would change at a \
                 failover; serde(skip), an asymmetric Serialize, or a hash map may be the cause"
            );
        }
    }

    /// Whether anything was reported.
    #[cfg(test)]
    pub(crate) fn is_reported(&self) -> bool {
        self.is_reported.load(Ordering::Relaxed)
    }

    /// A copy of the agent as another member would restore it, for the next command to be tried on, while there are
    /// trials left.
    pub(crate) fn twin<A: Agent>(&self, agent: &A) -> Option<A> {
        // Both the count and the budget are of this member alone.
        if !cfg!(debug_assertions) && self.trials.load(Ordering::Relaxed) >= TRIALS_MAX {
            return None;
        }
        self.trials.fetch_add(1, Ordering::Relaxed);
        // Not every member tries: a panic must not undo the command on those that do.
        let twin = caught(|| postcard::from_bytes(&try_encode(agent).ok()?).ok());
        twin.unwrap_or_else(|_| {
            self.report("it panics when it is decoded");
            None
        })
    }

    /// Runs a command that `agent` has just handled on the copy that was made before, and reports any difference.
    pub(crate) fn compare<A: Agent>(
        &self,
        agent: &A,
        reply: &[u8],
        context: &AgentContext<'_>,
        twin: A,
        command: A::Command,
    ) {
        let mut again = context.again();
        let run = || {
            let mut twin = twin;
            let reply = try_encode(&twin.handle_command(&mut again, command));
            (reply, try_encode(&twin))
        };
        let difference = match caught(run) {
            Ok((twin_reply, _)) if twin_reply.as_deref() != Ok(reply) => {
                "a restored copy gives another reply"
            }
            Ok((_, state)) if !context.is_deactivated() && state != try_encode(agent) => {
                "a restored copy has another state after the same command"
            }
            Ok(_) if again.is_deactivated() != context.is_deactivated() => {
                "only one of an agent and its restored copy deactivates itself"
            }
            Ok(_) => return,
            Err(_) => "a restored copy panics at a command that the agent handles",
        };
        self.report(difference);
    }
}

/// How a state fails to come back from its encoding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RoundTrip {
    /// It does not encode, or what was encoded does not decode.
    Broken(String),
    /// It decodes to something else.
    Differs,
}

/// Encodes, decodes and encodes again.
pub(crate) fn round_trip<T: Serialize + DeserializeOwned>(value: &T) -> Result<(), RoundTrip> {
    let bytes = try_encode(value).map_err(|reason| broken("encode", &reason))?;
    let (again, rest) = postcard::take_from_bytes::<T>(&bytes)
        .map_err(|error| broken("decode from what it was encoded to", &error.to_string()))?;
    if !rest.is_empty() || postcard::serialize_with_flavor(&again, Same(&bytes)) != Ok(true) {
        return Err(RoundTrip::Differs);
    }
    Ok(())
}

/// Whether what is written is exactly this.
struct Same<'a>(&'a [u8]);

impl Flavor for Same<'_> {
    type Output = bool;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        // What error it is does not matter: the two differ.
        self.0 = self.0.strip_prefix(bytes).ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<bool> {
        Ok(self.0.is_empty())
    }
}

/// Makes sure that a value encodes, without keeping the bytes.
pub(crate) fn check_encodes<T: Serialize>(value: &T) -> Result<(), String> {
    let size = postcard::ser_flavors::Size::default();
    postcard::serialize_with_flavor(value, size).map(drop).map_err(|error| error.to_string())
}

fn broken(what: &str, reason: &str) -> RoundTrip {
    RoundTrip::Broken(format!("it does not {what}: {reason}"))
}
