//! One call of an agent: straight to it where it is active, by way of its quota where it is not.

use std::time::Duration;

use bytes::Bytes;
use raft_kv::raft_fleet::{CallOptions, CommandNumber};
use raft_kv::rafted_value::Freshness;
use raft_kv::rafted_value::env::MonoTime;
use raft_kv::{Key, KvCommandError, KvNotApplied, KvQueryError};
use serde::Serialize;

use crate::agent_id::AgentId;
use crate::error::{AgentError, AgentNotApplied, AgentQueryError};
use crate::handle::Options;
use crate::node::{DistAgent, keyspace};
use crate::quota::{NoPlace, Place};
use crate::state_watch::try_encode;
use crate::wire::{AgentCommand, AgentQuery, AgentReply, Pass, join, split};

/// For how long a caller waits for the shards to be counted anew before it is told that its quota is full.
const UNSURE_MAX: Duration = Duration::from_secs(3);

/// A call of one agent.
pub(crate) struct Call<'a> {
    pub(crate) cluster: &'a DistAgent,
    pub(crate) id: &'a AgentId,
    pub(crate) key: &'a Key,
    pub(crate) options: &'a Options,
    /// The version as which a command lets the agent run.
    pub(crate) version: u32,
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
    /// Where the last agents that were called from here were not active, whether this one is is asked first: a question takes
    /// no entry of a log, and the first of the two commands would.
    pub(crate) async fn command(&self, payload: &Payload) -> Result<Bytes, AgentError> {
        let deadline = self.cluster.fleet().env().now() + self.options.call.timeout;
        let quota = &self.id.quota;
        let desk = self.cluster.desk();
        let reusable = desk.reusable(quota).filter(|_| !self.options.if_active);
        let activates = reusable.is_none() && !self.options.if_active;
        // Whoever sends a command with an idempotency key again must go the same way.
        let asks = activates && self.options.session.is_none() && desk.expects_new();
        let mut reply = if asks && self.is_absent(deadline).await {
            let place = self.take_place(deadline).await?;
            self.send_with(payload, place, deadline, 0).await
        } else {
            self.send(payload, reusable, deadline, 0).await
        };
        for sequence in 1.. {
            match reply.as_ref().map(|reply| head(reply)) {
                Ok(Some(AgentReply::NotActive)) if !self.options.if_active => desk.was_new(true),
                Ok(Some(AgentReply::PassExpired)) => desk.forget(quota),
                Ok(Some(AgentReply::User)) if activates && sequence == 1 => {
                    desk.was_new(false);
                    return reply.map_err(|error| AgentError::of_store(self.id, error));
                }
                _ => return reply.map_err(|error| AgentError::of_store(self.id, error)),
            }
            let place = self.take_place(deadline).await?;
            reply = self.send_with(payload, place, deadline, sequence).await;
        }
        unreachable!("the numbers do not end")
    }

    /// Whether the agent is surely not active at this moment. What cannot be told in one attempt is told by the command.
    async fn is_absent(&self, deadline: MonoTime) -> bool {
        let left = deadline.since(self.cluster.fleet().env().now());
        let options = CallOptions { attempts_max: 1, ..self.options.call.with_timeout(left) };
        let query = join(&AgentQuery::IsActive, &[]);
        let answer = self.cluster.kv().query(keyspace(), self.key, Freshness::Latest, &query, &options).await;
        matches!(answer, Err(KvQueryError::KeyNotFound))
    }

    async fn take_place(&self, deadline: MonoTime) -> Result<Place, AgentNotApplied> {
        let (quota, agent) = (self.id.quota.clone(), self.id.clone());
        let unsure_until = deadline.min(self.cluster.fleet().env().now() + UNSURE_MAX);
        let place = self.cluster.desk().take(&quota, self.key.hash(), unsure_until).await;
        place.map_err(|none| match none {
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
        deadline: MonoTime,
        sequence: u64,
    ) -> Result<Bytes, KvCommandError> {
        let reply = self.send(payload, Some(place.show()), deadline, sequence).await;
        match reply.as_ref().map(|reply| head(reply)) {
            Ok(Some(AgentReply::Activated { at_ms })) => place.used(at_ms),
            Ok(Some(_)) | Err(KvCommandError::NotApplied(_)) => place.give_back(),
            Ok(None) | Err(KvCommandError::Unknown(_)) => {}
        }
        reply
    }

    async fn send(
        &self,
        payload: &Payload,
        pass: Option<Pass>,
        deadline: MonoTime,
        sequence: u64,
    ) -> Result<Bytes, KvCommandError> {
        let kv = self.cluster.kv();
        let left = deadline.since(self.cluster.fleet().env().now());
        if left.is_zero() {
            // Nothing was sent.
            let what = "the call's time was over before the command could be sent".to_owned();
            return Err(KvNotApplied::Group(raft_kv::rafted_value::NotApplied::Unreachable(what)).into());
        }
        let command =
            AgentCommand::Run { tick_ms: self.cluster.config().tick_ms(), pass, version: self.version };
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
