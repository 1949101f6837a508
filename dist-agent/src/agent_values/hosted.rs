//! One agent in its shard: what the members agree on, and its bytes in a snapshot.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::changes::{Changes, KeptChange};
use crate::agent_type::{AgentType, LiveAgent};
use crate::on_tick::Timer;
use crate::wire::{AgentAnswer, AgentReply, join, split};

/// One agent in its shard. There may be millions of them, so what not every agent has is boxed.
pub(crate) struct Hosted {
    /// Commands and timeouts handled since the activation.
    pub(super) revision: u64,
    /// Which quota of its name it was activated under.
    pub(super) generation: u64,
    /// Differs from that of every other agent that there was under this identity.
    pub(super) life: u64,
    more: Option<Box<More>>,
    pub(super) state: State,
}

/// What not every agent has.
#[derive(Default)]
struct More {
    timer: Option<Timer>,
    /// The newest changes, where the type keeps any.
    changes: Changes,
}

static NO_CHANGES: Changes = Changes::new();

pub(super) enum State {
    Live(Box<dyn LiveAgent>),
    /// Two variants leave no room for a tag, three would take one of eight bytes.
    InBytes(Box<Away>),
}

/// A state in bytes.
pub(super) enum Away {
    /// Because the agent asked for it.
    Passive(InBytes),
    /// Because this node cannot make an agent of it.
    Kept(KeptState),
}

/// A state that this node cannot make an agent of.
pub(super) struct KeptState {
    state: InBytes,
    passive: bool,
    pub(super) why: Kept,
}

/// Bytes of a state.
pub(super) struct InBytes {
    /// The version of the type that wrote it.
    pub(super) version: u32,
    pub(super) bytes: Box<[u8]>,
}

/// Why an agent is kept in bytes.
pub(super) enum Kept {
    /// This node does not know the type.
    UnknownAgentType,
    /// The bytes do not decode as a state of the type.
    Unreadable(Box<str>),
}

impl Kept {
    pub(super) fn reply(&self) -> Bytes {
        match self {
            Kept::UnknownAgentType => join(&AgentReply::UnknownAgentType, &[]),
            Kept::Unreadable(reason) => join(&AgentReply::UnreadableState, reason.as_bytes()),
        }
    }

    pub(super) fn answer(&self) -> Bytes {
        match self {
            Kept::UnknownAgentType => join(&AgentAnswer::UnknownAgentType, &[]),
            Kept::Unreadable(reason) => join(&AgentAnswer::UnreadableState, reason.as_bytes()),
        }
    }
}

/// Opens an agent in a snapshot; its state's bytes follow. Append-only.
#[derive(Serialize, Deserialize)]
enum Head {
    V1 {
        revision: u64,
        generation: u64,
        timer: Option<Timer>,
        version: u32,
        passive: bool,
        life: u64,
        changes: Changes,
    },
}

impl State {
    fn away(away: Away) -> Self {
        Self::InBytes(Box::new(away))
    }

    /// Why the state is in bytes, where this node cannot make an agent of it.
    pub(super) fn kept(&self) -> Option<&Kept> {
        match self {
            Self::InBytes(away) => match &**away {
                Away::Kept(kept) => Some(&kept.why),
                Away::Passive(_) => None,
            },
            Self::Live(_) => None,
        }
    }

    /// A state in bytes, live if the type is known and reads it.
    pub(super) fn restore(
        agent_type: Option<&dyn AgentType>,
        version: u32,
        bytes: &[u8],
        passive: bool,
    ) -> Self {
        let state = || InBytes { version, bytes: bytes.into() };
        let keep = |why| Self::away(Away::Kept(KeptState { state: state(), passive, why }));
        let Some(agent_type) = agent_type else { return keep(Kept::UnknownAgentType) };
        // One agent that cannot be read must not take the others of its shard with it.
        match agent_type.restore(version, bytes) {
            Ok(_) if passive => Self::away(Away::Passive(state())),
            Ok(agent) => Self::Live(agent),
            Err(reason) => {
                agent_type.watch().report(&format!("the state of an agent does not decode: {reason}"));
                keep(Kept::Unreadable(reason.into()))
            }
        }
    }

    /// Brings a state that is only in bytes back into the memory.
    pub(super) fn revive(&mut self, agent_type: Option<&dyn AgentType>) {
        if let Self::InBytes(away) = self
            && let Away::Passive(state) = &**away
        {
            *self = Self::restore(agent_type, state.version, &state.bytes, false);
        }
    }

    /// Lets a live state leave the memory.
    pub(super) fn passivate(&mut self, agent_type: &dyn AgentType) {
        if let Self::Live(agent) = self {
            let (version, bytes) = (agent_type.version(), agent.encode());
            *self = Self::away(Away::Passive(InBytes { version, bytes: bytes[..].into() }));
        }
    }
}

impl Hosted {
    /// A new agent.
    pub(super) fn new(generation: u64, life: u64, state: State) -> Self {
        Self { revision: 0, generation, life, more: None, state }
    }

    /// What it waits for.
    pub(super) fn timer(&self) -> Option<Timer> {
        self.more.as_ref()?.timer
    }

    pub(super) fn set_timer(&mut self, timer: Option<Timer>) {
        if timer.is_some() || self.more.is_some() {
            self.more.get_or_insert_default().timer = timer;
            self.more.take_if(|more| more.timer.is_none() && more.changes.is_empty());
        }
    }

    /// The newest changes.
    pub(super) fn changes(&self) -> &Changes {
        self.more.as_ref().map_or(&NO_CHANGES, |more| &more.changes)
    }

    /// A handler has run: what it did is one change more.
    pub(super) fn changed(&mut self, of: &dyn AgentType, at_ms: u64, command: Option<&[u8]>) {
        self.revision += 1;
        let retained = of.changes_retained();
        if retained > 0 {
            let command = command.map(<[u8]>::to_vec);
            let change = KeptChange { revision: self.revision, at_ms, command };
            self.more.get_or_insert_default().changes.push(change, retained);
        }
    }

    /// Appends the agent to a snapshot.
    pub(super) fn encode(&self, agent_type: Option<&dyn AgentType>, out: &mut Vec<u8>) {
        let live;
        let (version, passive, bytes) = match &self.state {
            State::Live(agent) => {
                live = agent.encode();
                (agent_type.map_or(0, AgentType::version), false, &live[..])
            }
            State::InBytes(away) => match &**away {
                Away::Passive(state) => (state.version, true, &state.bytes[..]),
                Away::Kept(kept) => (kept.state.version, kept.passive, &kept.state.bytes[..]),
            },
        };
        let Self { revision, generation, life, .. } = *self;
        let (timer, changes) = (self.timer(), self.changes().clone());
        let head = Head::V1 { revision, generation, timer, version, passive, life, changes };
        *out = postcard::to_extend(&head, std::mem::take(out)).expect("the head serialises");
        out.extend_from_slice(bytes);
    }

    /// The agent that [`encode`](Self::encode) wrote.
    pub(super) fn decode(agent_type: Option<&dyn AgentType>, bytes: &[u8]) -> Result<Self, String> {
        let (Head::V1 { revision, generation, timer, version, passive, life, changes }, bytes) =
            split(bytes)?;
        let any = timer.is_some() || !changes.is_empty();
        let more = any.then(|| Box::new(More { timer, changes }));
        let state = State::restore(agent_type, version, bytes, passive);
        Ok(Self { revision, generation, life, more, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle agent has this much in the memory of each member, beside its state, its key and its place in the map.
    #[test]
    fn an_agent_is_small() {
        assert!(size_of::<Option<Hosted>>() <= 56, "{} bytes", size_of::<Option<Hosted>>());
    }
}
