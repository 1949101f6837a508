//! One agent in its shard: what the members agree on, and its bytes in a snapshot.

use serde::{Deserialize, Serialize};

use super::changes::{Changes, KeptChange};
use crate::agent_type::{AgentType, LiveAgent};
use crate::on_tick::Timer;
use crate::wire::split;

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
    /// The version as which a live agent runs, where that is not the newest of this build.
    behind: Option<u32>,
}

impl More {
    fn is_nothing(&self) -> bool {
        self.timer.is_none() && self.changes.is_empty() && self.behind.is_none()
    }
}

static NO_CHANGES: Changes = Changes::new();

pub(super) enum State {
    Live(Box<dyn LiveAgent>),
    /// Two variants leave no room for a tag, three would take one of eight bytes.
    InBytes(Box<Away>),
}

/// What an agent was before it was raised.
pub(super) struct Before {
    state: State,
    version: u32,
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
    /// What is wrong with the bytes.
    pub(super) why: Box<str>,
}

/// Bytes of a state.
pub(super) struct InBytes {
    /// The version of the type that wrote it.
    pub(super) version: u32,
    pub(super) bytes: Box<[u8]>,
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
    pub(super) fn kept(&self) -> Option<&str> {
        match self {
            Self::InBytes(away) => match &**away {
                Away::Kept(kept) => Some(&kept.why),
                Away::Passive(_) => None,
            },
            Self::Live(_) => None,
        }
    }

    /// A state in bytes of a version that this build runs, live if it reads them.
    pub(super) fn restore(agent_type: &dyn AgentType, version: u32, bytes: &[u8], passive: bool) -> Self {
        let state = || InBytes { version, bytes: bytes.into() };
        let keep = |why| Self::away(Away::Kept(KeptState { state: state(), passive, why }));
        // One agent that cannot be read must not take the others of its shard with it.
        match agent_type.restore(version, bytes) {
            Ok(_) if passive => Self::away(Away::Passive(state())),
            Ok(agent) => Self::Live(agent),
            Err(reason) => {
                agent_type.watch().report(&format!("the state of an agent does not decode: {reason}"));
                keep(reason.into())
            }
        }
    }
}

impl Hosted {
    /// A new agent.
    pub(super) fn new(generation: u64, life: u64, state: State) -> Self {
        Self { revision: 0, generation, life, more: None, state }
    }

    /// The version as which it runs, or ran when it went into bytes.
    pub(super) fn version(&self, agent_type: &dyn AgentType) -> u32 {
        match &self.state {
            State::Live(_) => {
                let behind = self.more.as_ref().and_then(|more| more.behind);
                behind.unwrap_or_else(|| agent_type.version())
            }
            State::InBytes(away) => match &**away {
                Away::Passive(state) => state.version,
                Away::Kept(kept) => kept.state.version,
            },
        }
    }

    /// A live agent runs as this version from now on.
    pub(super) fn set_version(&mut self, agent_type: &dyn AgentType, version: u32) {
        let behind = (version != agent_type.version()).then_some(version);
        if behind.is_some() || self.more.is_some() {
            self.more.get_or_insert_default().behind = behind;
            self.more.take_if(|more| more.is_nothing());
        }
    }

    /// Brings an agent whose state is only in bytes back into the memory, unless it cannot be read, and lets it run as this
    /// version, if it runs as an earlier one; what it was before, if that is another state now.
    ///
    /// One that is raised goes through the bytes of its earlier version. So all members go on from the same state, those that
    /// have had it live in a later form and those that were given the bytes.
    pub(super) fn raise(&mut self, agent_type: &dyn AgentType, version: u32) -> Option<Before> {
        let own = self.version(agent_type);
        let restored = match &self.state {
            State::Live(_) if own >= version => return None,
            State::Live(agent) => State::restore(agent_type, own, &in_bytes(&**agent, own), false),
            State::InBytes(away) => match &**away {
                Away::Passive(state) => State::restore(agent_type, own, &state.bytes, false),
                Away::Kept(_) => return None,
            },
        };
        let is_live = matches!(restored, State::Live(_));
        let before = std::mem::replace(&mut self.state, restored);
        if is_live {
            self.set_version(agent_type, own.max(version));
        }
        Some(Before { state: before, version: own })
    }

    /// Takes back what [`raise`](Self::raise) did, for the sake of a command that does not run.
    pub(super) fn put_back(&mut self, agent_type: &dyn AgentType, before: Option<Before>) {
        let Some(Before { state, version }) = before else { return };
        // The version of a state in bytes stands beside them.
        let live = if matches!(state, State::Live(_)) { version } else { agent_type.version() };
        self.state = state;
        self.set_version(agent_type, live);
    }

    /// Lets a live state leave the memory.
    pub(super) fn passivate(&mut self, agent_type: &dyn AgentType) {
        let version = self.version(agent_type);
        if let State::Live(agent) = &self.state {
            let bytes = in_bytes(&**agent, version).into();
            self.set_version(agent_type, agent_type.version());
            self.state = State::away(Away::Passive(InBytes { version, bytes }));
        }
    }

    /// What it waits for.
    pub(super) fn timer(&self) -> Option<Timer> {
        self.more.as_ref()?.timer
    }

    pub(super) fn set_timer(&mut self, timer: Option<Timer>) {
        if timer.is_some() || self.more.is_some() {
            self.more.get_or_insert_default().timer = timer;
            self.more.take_if(|more| more.is_nothing());
        }
    }

    /// The newest changes.
    pub(super) fn changes(&self) -> &Changes {
        self.more.as_ref().map_or(&NO_CHANGES, |more| &more.changes)
    }

    /// A handler has run: what it did is one change more.
    pub(super) fn changed(&mut self, of: &dyn AgentType, at_ms: u64, command: Option<&[u8]>) {
        self.revision = self.revision.saturating_add(1);
        let retained = of.changes_retained(self.version(of));
        if retained > 0 {
            let command = command.map(<[u8]>::to_vec);
            let change = KeptChange { revision: self.revision, at_ms, command };
            self.more.get_or_insert_default().changes.push(change, retained);
        } else if let Some(more) = &mut self.more {
            // Those of a version that kept some: what follows them is not kept, and nobody is to take them for the newest.
            more.changes = Changes::new();
            self.more.take_if(|more| more.is_nothing());
        }
    }

    /// Appends the agent to a snapshot.
    pub(super) fn encode(&self, agent_type: &dyn AgentType, out: &mut Vec<u8>) {
        let version = self.version(agent_type);
        let Self { revision, generation, life, .. } = *self;
        let (timer, changes) = (self.timer(), self.changes().clone());
        let open = |out: &mut Vec<u8>, passive| {
            let head = Head::V1 { revision, generation, timer, version, passive, life, changes };
            *out = postcard::to_extend(&head, std::mem::take(out)).expect("the head serialises");
        };
        match &self.state {
            State::Live(agent) => {
                open(out, false);
                agent.encode(version, out);
            }
            State::InBytes(away) => {
                let (passive, bytes) = match &**away {
                    Away::Passive(state) => (true, &state.bytes),
                    Away::Kept(kept) => (kept.passive, &kept.state.bytes),
                };
                open(out, passive);
                out.extend_from_slice(bytes);
            }
        }
    }

    /// The agent of type `name` that [`encode`](Self::encode) wrote; ends this member if its build cannot run its version.
    pub(super) fn decode(agent_type: &dyn AgentType, name: &str, bytes: &[u8]) -> Result<Self, String> {
        let (Head::V1 { revision, generation, timer, version, passive, life, changes }, bytes) =
            split(bytes)?;
        agent_type.must_run(name, version);
        let state = State::restore(agent_type, version, bytes, passive);
        let is_behind = matches!(state, State::Live(_)) && version != agent_type.version();
        let more = More { timer, changes, behind: is_behind.then_some(version) };
        let more = (!more.is_nothing()).then(|| Box::new(more));
        Ok(Self { revision, generation, life, more, state })
    }
}

/// A live agent's state in the form of a version.
pub(super) fn in_bytes(agent: &dyn LiveAgent, version: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    agent.encode(version, &mut bytes);
    bytes
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
