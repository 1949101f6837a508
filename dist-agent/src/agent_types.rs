//! The agent types that a node knows, and live agents whose type is forgotten.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::agent::Agent;
use crate::agent_id::{AgentIdError, AgentTypeName};
use crate::context::{AgentContext, QueryContext};
use crate::state_watch::{RoundTrip, StateWatch, check_encodes, is_decoded, round_trip, try_encode};

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
        if let Err(mistake) = self.add::<A>() {
            self.mistake.get_or_insert(mistake);
        }
        self
    }

    fn add<A: Agent>(&mut self) -> Result<(), AgentTypesError> {
        match self.types.entry(AgentTypeName::new(A::TYPE)?) {
            btree_map::Entry::Occupied(_) => Err(AgentTypesError::Twice(A::TYPE)),
            btree_map::Entry::Vacant(place) => {
                check_default::<A>()?;
                place.insert(Arc::new(TypeOf::<A>::new()));
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

/// An agent type whose Rust type is forgotten.
pub(crate) trait AgentType: Send + Sync {
    /// A new agent.
    fn activate(&self) -> Box<dyn LiveAgent>;

    /// The agent that [`LiveAgent::encode`] wrote.
    fn restore(&self, bytes: &[u8]) -> Result<Box<dyn LiveAgent>, String>;

    /// What was seen of the states of this type.
    fn watch(&self) -> &StateWatch;
}

/// A live agent whose Rust type is forgotten.
pub(crate) trait LiveAgent: Send {
    /// Runs a command.
    fn command(
        &mut self,
        context: &mut AgentContext<'_>,
        command: &[u8],
        watch: &StateWatch,
    ) -> Result<Bytes, CommandFailure>;

    /// Runs a query; an error says that it does not decode, or that its answer does not encode.
    fn query(&self, context: &QueryContext<'_>, query: &[u8]) -> Result<Bytes, String>;

    /// The state in bytes, without its version head.
    fn encode(&self) -> Bytes;
}

/// Why a command gave no reply; the same on every member.
pub(crate) enum CommandFailure {
    /// It does not decode, and nothing has changed.
    NotRun(String),
    /// It ran, and left a state or gave a reply that cannot be encoded: it must be undone.
    Ran(String),
}

struct TypeOf<A> {
    watch: StateWatch,
    agent: std::marker::PhantomData<fn() -> A>,
}

impl<A: Agent> TypeOf<A> {
    fn new() -> Self {
        Self { watch: StateWatch::new(A::TYPE), agent: std::marker::PhantomData }
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

    fn watch(&self) -> &StateWatch {
        &self.watch
    }
}

struct Live<A>(A);

impl<A: Agent> Live<A> {
    fn check_state(&self, context: &AgentContext<'_>, watch: &StateWatch) -> Result<(), String> {
        if context.is_deactivated() {
            return Ok(());
        }
        if !is_decoded(context.revision()) {
            return check_encodes(&self.0).map_err(|error| format!("it does not encode: {error}"));
        }
        match round_trip(&self.0) {
            Err(RoundTrip::Broken(reason)) => Err(reason),
            Err(RoundTrip::Differs) => {
                // Not an error: the order of a hash map, which no handler looks at, does not come back either.
                watch.report("it encodes to other bytes once it was decoded");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

impl<A: Agent> LiveAgent for Live<A> {
    fn command(
        &mut self,
        context: &mut AgentContext<'_>,
        command: &[u8],
        watch: &StateWatch,
    ) -> Result<Bytes, CommandFailure> {
        let decode = || {
            postcard::from_bytes::<A::Command>(command)
                .map_err(|error| CommandFailure::NotRun(format!("the command does not decode: {error}")))
        };
        let value = decode()?;
        let twin = watch.twin(&self.0);
        let reply = try_encode(&self.0.handle_command(context, value))
            .map_err(|error| CommandFailure::Ran(format!("its reply does not encode: {error}")))?;
        self.check_state(context, watch).map_err(|reason| {
            CommandFailure::Ran(format!("the state that it leaves cannot be kept: {reason}"))
        })?;
        if let (Some(twin), Ok(command)) = (twin, decode()) {
            watch.compare(&self.0, &reply, context, twin, command);
        }
        Ok(reply)
    }

    fn query(&self, context: &QueryContext<'_>, query: &[u8]) -> Result<Bytes, String> {
        let query: A::Query =
            postcard::from_bytes(query).map_err(|error| format!("the query does not decode: {error}"))?;
        try_encode(&self.0.handle_query(context, query))
            .map_err(|error| format!("its answer does not encode: {error}"))
    }

    fn encode(&self) -> Bytes {
        try_encode(&self.0).expect("that the state encodes was made sure of when a command left it so")
    }
}
