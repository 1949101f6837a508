//! The agent types that a node knows, and live agents whose type is forgotten.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use raft_kv::rafted_value::encode;

use crate::agent::Agent;
use crate::agent_id::{AgentIdError, AgentTypeName};
use crate::context::{AgentContext, QueryContext};

/// The agent types that a node can host.
///
/// Every node of a cluster must know the same types. A node that lacks one keeps the bytes of its agents, answers
/// their commands with [`UnknownAgentType`](crate::AgentNotApplied::UnknownAgentType), and changes nothing.
#[derive(Clone, Default)]
pub struct AgentTypes {
    types: BTreeMap<AgentTypeName, Arc<dyn AgentType>>,
    mistake: Option<AgentTypesError>,
}

impl AgentTypes {
    /// A set that is empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an agent type. A name that cannot work or is there already is reported when the node starts.
    #[must_use]
    pub fn with<A: Agent>(mut self) -> Self {
        if let Err(mistake) = self.add::<A>() {
            self.mistake.get_or_insert(mistake);
        }
        self
    }

    fn add<A: Agent>(&mut self) -> Result<(), AgentTypesError> {
        match self.types.entry(AgentTypeName::new(A::TYPE)?) {
            btree_map::Entry::Occupied(_) => Err(AgentTypesError::Twice(A::TYPE)),
            btree_map::Entry::Vacant(place) => {
                place.insert(Arc::new(TypeOf::<A>::new()));
                Ok(())
            }
        }
    }

    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// When a name is no name of an agent type, or two types share one.
    pub fn validate(&self) -> Result<(), AgentTypesError> {
        self.mistake.clone().map_or(Ok(()), Err)
    }

    /// Whether a type of this name is known.
    pub fn contains(&self, agent_type: &AgentTypeName) -> bool {
        self.types.contains_key(agent_type)
    }

    pub(crate) fn get(&self, agent_type: &str) -> Option<&dyn AgentType> {
        self.types.get(agent_type).map(AsRef::as_ref)
    }
}

impl fmt::Debug for AgentTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.types.keys()).finish()
    }
}

/// Why a set of agent types cannot work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentTypesError {
    /// A type's name cannot work.
    #[error(transparent)]
    Name(#[from] AgentIdError),
    /// Two types share a name.
    #[error("two agent types are named {0:?}")]
    Twice(&'static str),
}

/// An agent type whose Rust type is forgotten.
pub(crate) trait AgentType: Send + Sync {
    /// A new agent.
    fn activate(&self) -> Box<dyn LiveAgent>;

    /// The agent that [`LiveAgent::encode`] wrote.
    fn restore(&self, bytes: &[u8]) -> Result<Box<dyn LiveAgent>, String>;
}

/// A live agent whose Rust type is forgotten.
pub(crate) trait LiveAgent: Send {
    /// Runs a command; an error says that it does not decode, and nothing has changed.
    fn command(&mut self, context: &mut AgentContext<'_>, command: &[u8]) -> Result<Bytes, String>;

    /// Runs a query; an error says that it does not decode.
    fn query(&self, context: &QueryContext<'_>, query: &[u8]) -> Result<Bytes, String>;

    /// The state in bytes, without its version head.
    fn encode(&self) -> Bytes;
}

struct TypeOf<A>(std::marker::PhantomData<fn() -> A>);

impl<A> TypeOf<A> {
    fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<A: Agent> AgentType for TypeOf<A> {
    fn activate(&self) -> Box<dyn LiveAgent> {
        Box::new(Live(A::default()))
    }

    fn restore(&self, bytes: &[u8]) -> Result<Box<dyn LiveAgent>, String> {
        let agent: A = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(Box::new(Live(agent)))
    }
}

struct Live<A>(A);

impl<A: Agent> LiveAgent for Live<A> {
    fn command(&mut self, context: &mut AgentContext<'_>, command: &[u8]) -> Result<Bytes, String> {
        let command: A::Command = postcard::from_bytes(command).map_err(|error| error.to_string())?;
        Ok(encode(&self.0.handle_command(context, command)))
    }

    fn query(&self, context: &QueryContext<'_>, query: &[u8]) -> Result<Bytes, String> {
        let query: A::Query = postcard::from_bytes(query).map_err(|error| error.to_string())?;
        Ok(encode(&self.0.handle_query(context, query)))
    }

    fn encode(&self) -> Bytes {
        encode(&self.0)
    }
}
