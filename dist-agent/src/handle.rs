//! The address of one agent, with what is needed to talk to it.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use foretoken::{Rate, TakeError};
use raft_kv::raft_fleet::CallOptions;
use raft_kv::rafted_value::SessionId;
use raft_kv::rafted_value::env::MonoTime;
use raft_kv::{Key, KvNotApplied};
use serde::{Serialize, Serializer};
use twox_hash::XxHash3_128;

use crate::agent::Agent;
use crate::agent_id::AgentId;
use crate::call::{Call, Payload};
use crate::error::{AgentError, AgentNotApplied, AgentQueryError, AgentUnknown};
use crate::node::DistAgent;
use crate::rate_limits::{COMMAND_TOKENS, QUERY_TOKENS, RateLimit};
use crate::watch::{AgentWatch, WatchPosition};
use crate::wire::{AgentAnswer, AgentQuery, AgentReply, join, join_value, split};

/// Talks to one agent, wherever in the cluster it lives. Cheap to clone; making one sends nothing.
///
/// Its options are set by methods that give another handle of the same agent, for one call or for many:
///
/// ```
/// # use std::time::Duration;
/// # use dist_agent::{Agent, AgentError, AgentHandle, Rate};
/// # async fn example<A: Agent<Command = u64, Reply = u64>>(counter: AgentHandle<A>) -> Result<(), Box<dyn std::error::Error>> {
/// let total = counter.timeout(Duration::from_secs(1)).if_active().command(5).await?;
/// let careful = counter.rate_limit(Rate::per_second(30)?, 60);
/// # drop((total, careful));
/// # Ok(())
/// # }
/// ```
///
/// It serialises as its [`AgentId`], from which [`DistAgent::handle`] makes one again.
pub struct AgentHandle<A: Agent> {
    cluster: DistAgent,
    id: AgentId,
    key: Key,
    options: Options,
    agent: PhantomData<fn() -> A>,
}

/// How a handle calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) call: CallOptions,
    pub(crate) if_active: bool,
    rate_limit: Option<RateLimit>,
    /// How old an answer may be.
    pub(crate) stale_ok: Option<Duration>,
    /// The session of a command that may be sent again by somebody else.
    pub(crate) session: Option<SessionId>,
}

impl<A: Agent> AgentHandle<A> {
    pub(crate) fn new(cluster: DistAgent, id: AgentId) -> Self {
        let key = id.store_key();
        let options = Options {
            call: cluster.config().call,
            if_active: false,
            rate_limit: None,
            stale_ok: None,
            session: None,
        };
        Self { cluster, id, key, options, agent: PhantomData }
    }

    /// Which agent this is.
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// The same agent, with this much time for a whole call, every retry included.
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        let mut handle = self.clone();
        handle.options.call.timeout = timeout;
        handle
    }

    /// The same agent, with at most this many further attempts where the first at something has no reply; without a limit
    /// it is the timeout that ends a call.
    #[must_use]
    pub fn retries(&self, retries: u32) -> Self {
        let mut handle = self.clone();
        handle.options.call.attempts_max = retries.saturating_add(1);
        handle
    }

    /// The same agent, called from this node or client no more often than `tokens_max` tokens at once and `rate` in the
    /// long run: a query takes one token, a command three. What is over that is refused with `RateLimitReached` and not
    /// sent. All handles of one agent in this process that have a limit share its tokens.
    #[must_use]
    pub fn rate_limit(&self, rate: Rate, tokens_max: u32) -> Self {
        let mut handle = self.clone();
        handle.options.rate_limit = Some(RateLimit { rate, tokens_max });
        handle
    }

    /// The same agent, which commands do not activate: where it is not active they are refused with
    /// [`NotActive`](AgentNotApplied::NotActive).
    #[must_use]
    pub fn if_active(&self) -> Self {
        let mut handle = self.clone();
        handle.options.if_active = true;
        handle
    }

    /// The same agent, whose queries may be answered by what this node or client was told before, if that was asked for at
    /// most `age_max` ago by a handle that said so too. What is not known here is asked for as always.
    #[must_use]
    pub fn stale_ok(&self, age_max: Duration) -> Self {
        let mut handle = self.clone();
        handle.options.stale_ok = Some(age_max);
        handle
    }

    /// The same agent, for one command that runs once however often it is sent with this key, by whichever client: whoever
    /// sends it again gets the reply that the first one got. This holds for about eight minutes from the first time that it was
    /// sent, also where that was refused; from then on it may run again, whatever became of it since. A key is good for one
    /// command of one agent, and nothing but the key tells two commands apart.
    #[must_use]
    pub fn idempotency_key(&self, key: impl AsRef<[u8]>) -> Self {
        let mut handle = self.clone();
        handle.options.session = Some(session_of(&self.key, key.as_ref()));
        handle.options.call.retry_margin = IDEMPOTENT;
        handle
    }

    /// Sends a command and waits for its reply; an agent that is not active is activated by it, where its quota has a
    /// place for one more.
    ///
    /// It is tried again until the handle's timeout where that helps, and runs at most once however often it is tried.
    ///
    /// # Errors
    ///
    /// Whether the command surely changed nothing, or perhaps something. Errors of the agent's own are in its reply.
    pub async fn command(&self, command: A::Command) -> Result<A::Reply, AgentError> {
        // Before anything is spent on it, tokens included: under overload most calls end here.
        let room = self.cluster.fleet().check_room();
        room.map_err(|refused| AgentNotApplied::Store(KvNotApplied::Group(refused)))?;
        if let Err(error) = self.take_tokens(COMMAND_TOKENS) {
            let agent = self.id.clone();
            return Err(match error {
                TakeError::NotEnoughTokens { wait } => AgentNotApplied::RateLimitReached { agent, wait },
                error => AgentNotApplied::RateLimit { agent, reason: error.to_string() },
            }
            .into());
        }
        let payload = Payload::of(&command)
            .map_err(|reason| AgentNotApplied::Unencodable { agent: self.id.clone(), reason })?;
        let deadline = self.deadline();
        let version = self.version_for(A::version_needed(&command)).await;
        drop(command);
        let reply = self.call(version?, deadline).command(&payload).await?;
        match split::<AgentReply>(&reply).map_err(|reason| self.reply_error(reason))? {
            (AgentReply::User | AgentReply::Activated { .. }, reply) => {
                postcard::from_bytes(reply).map_err(|error| self.reply_error(error.to_string()).into())
            }
            (AgentReply::UnknownAgentType, _) => {
                Err(AgentNotApplied::UnknownAgentType(self.id.clone()).into())
            }
            (AgentReply::UnreadableState, reason) => {
                let (agent, reason) = (self.id.clone(), text(reason));
                Err(AgentNotApplied::UnreadableState { agent, reason }.into())
            }
            (AgentReply::NotActive | AgentReply::NotActiveFor { .. } | AgentReply::PassExpired, _) => {
                Err(AgentNotApplied::NotActive(self.id.clone()).into())
            }
        }
    }

    /// Asks the agent, and gets an answer that is no older than the question, unless the handle allows for an older one
    /// ([`stale_ok`](Self::stale_ok)).
    ///
    /// # Errors
    ///
    /// [`AgentQueryError::AgentNotFound`] when the agent is not active; anything else says why there is no answer.
    pub async fn query(&self, query: A::Query) -> Result<A::Answer, AgentQueryError> {
        if let Err(error) = self.take_tokens(QUERY_TOKENS) {
            let agent = self.id.clone();
            return Err(match error {
                TakeError::NotEnoughTokens { wait } => AgentQueryError::RateLimitReached { agent, wait },
                error => AgentQueryError::RateLimit { agent, reason: error.to_string() },
            });
        }
        let payload = join_value(&AgentQuery::User, &query)
            .map_err(|reason| AgentQueryError::Unencodable { agent: self.id.clone(), reason })?;
        drop(query);
        let answer = self.call(0, self.deadline()).query(&payload).await?;
        match split::<AgentAnswer>(&answer).map_err(|reason| self.answer_error(reason))? {
            (AgentAnswer::User, answer) => {
                postcard::from_bytes(answer).map_err(|error| self.answer_error(error.to_string()))
            }
            (AgentAnswer::UnknownAgentType, _) => Err(AgentQueryError::UnknownAgentType(self.id.clone())),
            (AgentAnswer::UnreadableState, reason) => {
                Err(AgentQueryError::UnreadableState { agent: self.id.clone(), reason: text(reason) })
            }
            (other, _) => Err(self.answer_error(format!("{other:?}"))),
        }
    }

    /// Every change of the agent from a position on, in order: see [`AgentWatch`].
    pub fn watch(&self, from: WatchPosition) -> AgentWatch<A> {
        let mut handle = self.clone();
        // What was new a while ago is of no use to it.
        handle.options.stale_ok = None;
        AgentWatch::new(handle, from)
    }

    pub(crate) async fn ask(&self, query: &AgentQuery) -> Result<Bytes, AgentQueryError> {
        self.call(0, self.deadline()).query(&join(query, &[])).await
    }

    pub(crate) fn cluster(&self) -> &DistAgent {
        &self.cluster
    }

    fn call(&self, version: u32, deadline: MonoTime) -> Call<'_> {
        let Self { cluster, id, key, options, .. } = self;
        Call { cluster, id, key, options, version, deadline }
    }

    /// When the time of a call that begins now is over.
    fn deadline(&self) -> MonoTime {
        self.cluster.fleet().env().now() + self.options.call.timeout
    }

    /// The version as which all nodes can run the agent, if a command that needs this one may be sent.
    async fn version_for(&self, needed: u32) -> Result<u32, AgentNotApplied> {
        let (fleet, versions) = (self.cluster.fleet(), self.cluster.versions());
        let agent = || self.id.clone();
        match versions.of(fleet, &self.options.call, A::TYPE, needed).await {
            Ok(Some(agreed)) if agreed >= needed => Ok(agreed),
            Ok(Some(agreed)) => Err(AgentNotApplied::Upgrading { agent: agent(), needed, agreed }),
            Ok(None) => Err(AgentNotApplied::UnknownAgentType(agent())),
            Err(error) => Err(AgentNotApplied::NoVersion { agent: agent(), reason: error.to_string() }),
        }
    }

    fn take_tokens(&self, tokens: u32) -> Result<(), TakeError> {
        let Some(limit) = self.options.rate_limit else { return Ok(()) };
        self.cluster.rate_limits().take(&self.id, limit, tokens)
    }

    fn reply_error(&self, reason: String) -> AgentUnknown {
        AgentUnknown::Reply { agent: self.id.clone(), reason }
    }

    fn answer_error(&self, reason: String) -> AgentQueryError {
        AgentQueryError::Answer { agent: self.id.clone(), reason }
    }
}

/// For how long the reply to a command with an idempotency key is kept.
const IDEMPOTENT: Duration = Duration::from_secs(8 * 60);

/// The session of an idempotency key: the same for every client, in every version (XXH3, 128 bits).
fn session_of(agent: &Key, key: &[u8]) -> SessionId {
    let bytes = [&(agent.as_bytes().len() as u64).to_le_bytes(), agent.as_bytes(), key].concat();
    let hash = XxHash3_128::oneshot(&bytes);
    SessionId::new((hash >> 64) as u64, hash as u64)
}

/// A text of another node's.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<A: Agent> Clone for AgentHandle<A> {
    fn clone(&self) -> Self {
        let Self { cluster, id, key, options, agent } = self;
        Self { cluster: cluster.clone(), id: id.clone(), key: key.clone(), options: *options, agent: *agent }
    }
}

impl<A: Agent> fmt::Debug for AgentHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentHandle").field(&self.id).finish()
    }
}

impl<A: Agent> Serialize for AgentHandle<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.id.serialize(serializer)
    }
}
