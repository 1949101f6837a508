//! The agent types that a node knows.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;
use std::sync::Arc;

use crate::agent::Agent;
use crate::agent_id::{AgentIdError, AgentTypeName};
use crate::agent_type::{AgentType, TypeOf};
use crate::hooks::{AgentHooks, TypeHooks};
use crate::state_watch::{RoundTrip, round_trip};

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

    /// Adds an agent type. A name that cannot work or is there already, and a state that does not come back from its
    /// encoding as it was, are reported when the node starts.
    ///
    /// Only the type's default state is looked at here; states that agents come to later are looked at then, see
    /// [`Agent`].
    #[must_use]
    pub fn with<A: Agent>(mut self) -> Self {
        if let Err(mistake) = self.add::<A>(None) {
            self.mistake.get_or_insert(mistake);
        }
        self
    }

    /// The same for a type beside whose agents something happens: see [`AgentHooks`].
    #[must_use]
    pub fn with_hooks<A: Agent + Clone>(mut self, hooks: impl AgentHooks<A>) -> Self {
        if let Err(mistake) = self.add::<A>(Some(TypeHooks::new(hooks))) {
            self.mistake.get_or_insert(mistake);
        }
        self
    }

    fn add<A: Agent>(&mut self, hooks: Option<TypeHooks<A>>) -> Result<(), AgentTypesError> {
        match self.types.entry(AgentTypeName::new(A::TYPE)?) {
            btree_map::Entry::Occupied(_) => Err(AgentTypesError::Twice(A::TYPE)),
            btree_map::Entry::Vacant(place) => {
                check_default::<A>()?;
                place.insert(Arc::new(TypeOf::<A>::new(hooks)));
                Ok(())
            }
        }
    }

    /// Says what cannot work, if anything.
    ///
    /// # Errors
    ///
    /// When a name is no name of an agent type, two types share one, or a type's default state does not come back from
    /// its encoding as it was.
    pub fn validate(&self) -> Result<(), AgentTypesError> {
        self.mistake.clone().map_or(Ok(()), Err)
    }

    /// Whether a type of this name is known.
    pub fn contains(&self, agent_type: &AgentTypeName) -> bool {
        self.types.contains_key(agent_type)
    }

    pub(crate) fn have_hooks(&self) -> bool {
        self.types.values().any(|agent_type| agent_type.has_hooks())
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
    /// The default state of a type does not come back from its encoding as it was, so agents would change or be lost at
    /// a failover.
    #[error("the default state of agent type {agent_type:?} is lost in its encoding: {reason}")]
    Encoding {
        /// The type.
        agent_type: &'static str,
        /// What is wrong.
        reason: String,
    },
}

fn check_default<A: Agent>() -> Result<(), AgentTypesError> {
    let reason = match round_trip(&A::default()) {
        Ok(()) => return Ok(()),
        Err(RoundTrip::Broken(reason)) => reason,
        Err(RoundTrip::Differs) => "it decodes to another state".to_owned(),
    };
    let hint = "postcard knows no serde(flatten), untagged, tag or skip_serializing_if";
    Err(AgentTypesError::Encoding { agent_type: A::TYPE, reason: format!("{reason}; {hint}") })
}
