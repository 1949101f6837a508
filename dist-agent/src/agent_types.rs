//! The agent types that a node knows.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;
use std::sync::Arc;

use crate::agent::Agent;
use crate::agent_id::{AgentIdError, AgentTypeName};
use crate::agent_type::{AgentType, TypeOf, write};
use crate::hooks::{AgentHooks, TypeHooks};
use crate::quota::{NodeTypes, TYPES_MAX, VERSIONS_MAX};
use crate::state_watch::{RoundTrip, round_trip};
use crate::wire::try_encode;

/// The agent types that a node can host.
///
/// Every node of a cluster must know the same types. One that is new is answered for with
/// [`UnknownAgentType`](crate::AgentNotApplied::UnknownAgentType) until every node knows it; a node that lacks one which the
/// cluster runs is refused ([`BuildMismatch`](crate::BuildMismatch)).
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
        let count = self.types.len();
        match self.types.entry(AgentTypeName::new(A::TYPE)?) {
            btree_map::Entry::Occupied(_) => Err(AgentTypesError::Twice(A::TYPE)),
            btree_map::Entry::Vacant(_) if count >= TYPES_MAX => Err(AgentTypesError::TooMany(TYPES_MAX)),
            btree_map::Entry::Vacant(place) => {
                check_default::<A>()?;
                check_versions::<A>()?;
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

    /// What this build can run.
    pub(crate) fn spans(&self) -> NodeTypes {
        self.types.iter().map(|(name, agent_type)| (name.clone(), agent_type.span())).collect()
    }

    /// Takes note of what the cluster has agreed on.
    pub(crate) fn agree(&self, agreed: &BTreeMap<AgentTypeName, u32>) {
        for (name, version) in agreed {
            if let Some(agent_type) = self.types.get(name) {
                agent_type.agree(*version);
            }
        }
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
    /// The versions that a type says it can run do not work: there are too many or none of them, or its default state does not
    /// come back from the form of one of them.
    #[error("agent type {agent_type:?} cannot be run as version {version}: {reason}")]
    Version {
        /// The type.
        agent_type: &'static str,
        /// The version.
        version: u32,
        /// What is wrong.
        reason: String,
    },
    /// There are more types than a node can have.
    #[error("there are more than {0} agent types")]
    TooMany(usize),
}

/// Tries every earlier version that a type says it can run with its default state.
fn check_versions<A: Agent>() -> Result<(), AgentTypesError> {
    let (first, last) = (A::VERSION_MIN, A::VERSION);
    let wrong = |version, reason: String| AgentTypesError::Version { agent_type: A::TYPE, version, reason };
    if first > last || last - first >= VERSIONS_MAX as u32 {
        let reason =
            format!("VERSION_MIN is {first}, VERSION is {last}, and at most {VERSIONS_MAX} can be run");
        return Err(wrong(first, reason));
    }
    let default = A::default();
    for version in first..last {
        let bytes = write(&default, version).map_err(|reason| wrong(version, reason))?;
        let again = A::migrate(version, &bytes).map_err(|reason| wrong(version, reason))?;
        if try_encode(&again) != try_encode(&default) {
            return Err(wrong(version, "its default state becomes another one".to_owned()));
        }
    }
    Ok(())
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
