//! One call of an agent: straight to it where it is active, by way of its quota where it is not.

use std::time::Duration;

use bytes::Bytes;
use raft_kv::raft_fleet::{CallOptions, CommandNumber};
use raft_kv::rafted_value::Freshness;
use raft_kv::rafted_value::env::{MonoTime, sleep, timeout};
use raft_kv::{Key, KvCommandError, KvNotApplied, KvQueryError};
use serde::Serialize;

use crate::agent_id::AgentId;
use crate::error::{AgentError, AgentNotApplied, AgentQueryError};
use crate::handle::Options;
use crate::node::{DistAgent, keyspace};
use crate::quota::{NoPlace, Place};
use crate::wire::{AgentCommand, AgentQuery, AgentReply, Pass, join, split, try_encode};

/// For how long a caller waits for the shards to be counted anew before it is told that its quota is full. A quota that got a
/// limit and had none is unsure for two seconds and until all shards are counted after that.
const UNSURE_MAX: Duration = Duration::from_secs(4);
/// The pause after the second place of a call that was not good any more; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest of these pauses.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A call of one agent.
pub(crate) struct Call<'a> {
    pub(crate) cluster: &'a DistAgent,
    pub(crate) id: &'a AgentId,
    pub(crate) key: &'a Key,
    pub(crate) options: &'a Options,
    /// The version as which a command lets the agent run.
    pub(crate) version: u32,
    /// When the time of the whole call is over.
    pub(crate) deadline: MonoTime,
}

/// A user's command in bytes, which may go out several times.
pub(crate) struct Payload(Bytes);

impl Payload {
    pub(crate) fn of(command: &impl Serialize) -> Result<Self, String> {
        try_encode(command).map(Self)
    }
}

impl Call<'_> {
    /// Sends a command. An agent that is not active says so and nothing has happened; then a place is taken for it, and the
    /// command goes out once more with the place, as another command. Each of them runs at most once, and not both.
    ///
    /// Where there is a place at hand, or the last agents that were called from here were not active, the first of the two
    /// commands is left out, which would be an entry of a log for nothing.
    pub(crate) async fn command(&self, payload: &Payload) -> Result<Bytes, AgentError> {
        if self.options.if_active && self.options.session.is_some() {
            // What was sent under the key before may have activated it, under a later number.
            let why = AgentNotApplied::NotActive(self.id.clone());
            return self.send_without_place(payload, 0, why).await;
        }
        let desk = self.cluster.desk();
        let place = if self.options.if_active { Ok(None) } else { self.place_early().await };
        let place = match place {
            Ok(place) => place,
            Err(why) => return self.send_without_place(payload, 0, why).await,
        };
        let mut reply = match place {
            Some(place) => self.send_with(payload, place, 0).await,
            None => self.send(payload, self.run(None), 0).await,
        };
        if !self.options.if_active {
            match reply.as_ref().map(|reply| head(reply)) {
                Ok(Some(AgentReply::NotActive | AgentReply::Activated { .. })) => desk.was_new(true),
                Ok(Some(AgentReply::User)) => desk.was_new(false),
                _ => {}
            }
        }
        let mut pause = Duration::ZERO;
        for sequence in 1.. {
            match reply.as_ref().map(|reply| head(reply)) {
                _ if self.options.if_active => break,
                // Who is told of another call has an idempotency key in common with it.
                Ok(Some(AgentReply::NotActive | AgentReply::NotActiveFor { .. })) => {}
                Ok(Some(AgentReply::PassExpired)) => {
                    desk.forget(&self.id.quota);
                    self.pause(&mut pause).await;
                }
                _ => break,
            }
            reply = match self.take_place().await {
                Ok(place) => self.send_with(payload, place, sequence).await,
                Err(why) => return self.send_without_place(payload, sequence, why).await,
            };
        }
        reply.map_err(|error| AgentError::of_store(self.id, error))
    }

    /// Sends a command for whose agent there is no place. The agent may be active all the same: somebody else may have activated
    /// it just now, and so may an earlier call with the same idempotency key, whose reply is the one to give then. So the
    /// refusal counts only once a command that activates nothing has found the agent not active, under a number whose
    /// reply was not an earlier call's: which it was, the number that the reply repeats shows.
    async fn send_without_place(
        &self,
        payload: &Payload,
        from: u64,
        why: AgentNotApplied,
    ) -> Result<Bytes, AgentError> {
        // Nobody but this call sends its command: a question, which takes no entry of a log, is enough for most.
        let is_over = || self.deadline.since(self.cluster.fleet().env().now()).is_zero();
        if self.options.session.is_none() && (is_over() || self.is_absent().await) {
            return Err(why.into());
        }
        for sequence in from.. {
            let call = self.cluster.fleet().env().random_u64();
            let reply = self.send(payload, self.run_if_active(call), sequence).await;
            match reply.as_ref().map(|reply| head(reply)) {
                Ok(Some(AgentReply::NotActiveFor { call: of })) if of == call => return Err(why.into()),
                Ok(Some(
                    AgentReply::NotActive | AgentReply::NotActiveFor { .. } | AgentReply::PassExpired,
                )) => {}
                _ => return reply.map_err(|error| AgentError::of_store(self.id, error)),
            }
        }
        unreachable!("the numbers do not end")
    }

    /// Waits before the next place is taken where the last was not good any more: once is nothing, for a place that is used
    /// again may be of a quota that has changed. Again and again, the clocks of two nodes are further apart than places last.
    async fn pause(&self, pause: &mut Duration) {
        let env = self.cluster.fleet().env();
        sleep(env.as_ref(), (*pause).min(self.deadline.since(env.now()))).await;
        *pause = (*pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
    }

    /// Whether the agent is surely not active at this moment. What cannot be told in one attempt is told by the command.
    async fn is_absent(&self) -> bool {
        let left = self.deadline.since(self.cluster.fleet().env().now());
        let options = CallOptions { attempts_max: 1, ..self.options.call.with_timeout(left) };
        let query = join(&AgentQuery::IsActive, &[]);
        let answer = self.cluster.kv().query(keyspace(), self.key, Freshness::Latest, &query, &options).await;
        matches!(answer, Err(KvQueryError::KeyNotFound))
    }

    /// A place for an agent before it has said that it is not active; none where it may well be.
    ///
    /// One that is at hand costs nothing. In a quota with much room another is taken on the chance, and goes back if it was not
    /// needed. Elsewhere somebody could be refused for it, so the agent is asked first: a question takes no entry of a log.
    async fn place_early(&self) -> Result<Option<Place>, AgentNotApplied> {
        let desk = self.cluster.desk();
        if let Some(place) = desk.at_hand(&self.id.quota, self.key.hash()) {
            return Ok(Some(place));
        }
        // Whoever sends a command with an idempotency key again must go the same way.
        if self.options.session.is_some() || !desk.expects_new() {
            return Ok(None);
        }
        if desk.has_room(&self.id.quota) {
            return Ok(self.take_place().await.ok());
        }
        if self.is_absent().await { self.take_place().await.map(Some) } else { Ok(None) }
    }

    async fn take_place(&self) -> Result<Place, AgentNotApplied> {
        let (quota, agent) = (self.id.quota.clone(), self.id.clone());
        let unsure_until = self.deadline.min(self.cluster.fleet().env().now() + UNSURE_MAX);
        let env = self.cluster.fleet().env();
        let take = self.cluster.desk().take(&quota, self.key.hash(), unsure_until);
        // The ledger is asked for many at once, in a time of its own.
        let place = timeout(env.as_ref(), self.deadline.since(env.now()), take).await;
        let late = || Err(NoPlace::Unheard("it did not answer in the time of the call".to_owned()));
        place.unwrap_or_else(late).map_err(|none| match none {
            NoPlace::NoSuchQuota => AgentNotApplied::QuotaNotFound(quota),
            NoPlace::Full { limit } => AgentNotApplied::QuotaLimitReached { quota, limit },
            NoPlace::Unheard(reason) => AgentNotApplied::NoPlace { agent, reason },
        })
    }

    /// Sends a command with a place in its quota, and tells the ledger what became of that. Where it is not known what
    /// became of the command, nothing is told: the shard's own count will show.
    async fn send_with(
        &self,
        payload: &Payload,
        mut place: Place,
        sequence: u64,
    ) -> Result<Bytes, KvCommandError> {
        let reply = self.send(payload, self.run(Some(place.show())), sequence).await;
        match reply.as_ref().map(|reply| head(reply)) {
            Ok(Some(AgentReply::Activated { at_ms })) => place.used(at_ms),
            Ok(Some(_)) | Err(KvCommandError::NotApplied(_)) => place.give_back(),
            Ok(None) | Err(KvCommandError::Unknown(_)) => {}
        }
        reply
    }

    fn run(&self, pass: Option<Pass>) -> AgentCommand {
        AgentCommand::Run { tick_ms: self.cluster.config().tick_ms(), pass, version: self.version }
    }

    fn run_if_active(&self, call: u64) -> AgentCommand {
        AgentCommand::RunIfActive { tick_ms: self.cluster.config().tick_ms(), version: self.version, call }
    }

    async fn send(
        &self,
        payload: &Payload,
        command: AgentCommand,
        sequence: u64,
    ) -> Result<Bytes, KvCommandError> {
        let kv = self.cluster.kv();
        let left = self.deadline.since(self.cluster.fleet().env().now());
        if left.is_zero() {
            // Nothing was sent.
            let what = "the call's time was over before the command could be sent".to_owned();
            return Err(KvNotApplied::Group(raft_kv::rafted_value::NotApplied::Unreachable(what)).into());
        }
        let command = join(&command, &payload.0);
        // A command with an idempotency key is a line of commands: whoever sends it again goes the same way.
        let number = self.options.session.map(|session| CommandNumber { session, sequence });
        let options = CallOptions { number, ..self.options.call.with_timeout(left) };
        kv.command(keyspace(), self.key, &command, &options).await
    }

    pub(crate) async fn query(&self, payload: &Bytes) -> Result<Bytes, AgentQueryError> {
        let (kv, answers) = (self.cluster.kv(), self.cluster.answers());
        let asked = self.cluster.fleet().env().now();
        if let Some(age_max) = self.options.stale_ok
            && let Some(answer) = answers.get(self.key, payload, age_max, asked)
        {
            return Ok(answer);
        }
        let answer = kv.query(keyspace(), self.key, Freshness::Latest, payload, &self.options.call).await;
        let answer = answer.map_err(|error| AgentQueryError::of_store(self.id, error))?;
        if self.options.stale_ok.is_some() {
            answers.put(self.key, payload, asked, &answer);
        }
        Ok(answer)
    }
}

fn head(reply: &[u8]) -> Option<AgentReply> {
    split::<AgentReply>(reply).ok().map(|(reply, _)| reply)
}
