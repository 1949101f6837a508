//! The task that has the values woken that are due, in the shards that this node leads.
//!
//! Timers live in stamped time and in the values; this only proposes a command once the first of them is due. Whoever
//! leads a shard does so, and a command that comes twice, or from a leader of the past, finds nothing to do.

use std::sync::Arc;

use futures_util::future::join_all;
use raft_fleet::rafted_value::env::{Env, sleep};
use raft_fleet::rafted_value::{Command, CommandError, Freshness, GroupId, Host, NotApplied, SessionId};
use raft_fleet::{CallOptions, Fleet};

use crate::config::KvConfig;
use crate::shard::{Alarm, ShardAnswer, ShardCommand, ShardQuery, ShardReply, split_answer, split_reply};
use crate::value_type::{KvTypes, SHARD_DATA};

/// Shards that are woken at a time.
const SHARDS_MAX: usize = 16;
/// How long a shard is left alone whose values panic when they are woken.
const PANIC_PAUSE_MS: u64 = 5_000;
/// How long the reply of a wake is kept; nobody needs it twice.
const RETRY_MS: u64 = 1_000;

/// Looks for what is due.
pub(crate) struct Waker {
    fleet: Fleet,
    config: KvConfig,
    alarm: Alarm,
    session: SessionId,
}

impl Waker {
    /// None where nothing is hosted.
    pub(crate) fn new(fleet: &Fleet, config: &KvConfig, types: &KvTypes) -> Option<Self> {
        fleet.host()?;
        let env = fleet.env();
        let session = SessionId::new(env.random_u64(), env.random_u64());
        Some(Self { fleet: fleet.clone(), config: config.clone(), alarm: types.alarm().clone(), session })
    }

    pub(crate) async fn run(self) {
        let env = Arc::clone(self.fleet.env());
        let mut turn = 0;
        loop {
            sleep(env.as_ref(), self.config.wake_interval).await;
            let Some(host) = self.fleet.host() else { return };
            if self.alarm.rings(env.wall_ms()) {
                turn += 1;
                self.look(host, env.as_ref(), turn).await;
            }
        }
    }

    /// Asks every shard on this node when its first value is due, and wakes what is due where this node leads.
    async fn look(&self, host: &Host, env: &dyn Env, turn: u64) {
        let members = host.statuses().await;
        let shards: Vec<_> = members.iter().filter(|member| member.data.starts_with(SHARD_DATA)).collect();
        for some in shards.chunks(SHARDS_MAX) {
            let look = |group, leads| self.look_at(host, env, turn, group, leads);
            join_all(some.iter().map(|member| look(member.group, member.ready))).await;
        }
    }

    async fn look_at(&self, host: &Host, env: &dyn Env, turn: u64, group: GroupId, leads: bool) {
        let limit = self.options().attempt_timeout;
        let answer = host.query(group, Freshness::Stale, ShardQuery::NextWake.encode(&[]), limit).await;
        let next = match answer.as_ref().map(split_answer) {
            Ok(Ok((ShardAnswer::NextWake(next), _))) => next,
            // It may have ended, or be too busy to answer.
            _ => Some(0),
        };
        let Some(next) = next else { return };
        if next > env.wall_ms() {
            return self.alarm.ring_at(next);
        }
        if leads && let Err(error) = self.wake(host, env, turn, group).await {
            tracing::debug!(%group, %error, "a shard was not woken");
            if matches!(error, CommandError::NotApplied(NotApplied::Panicked(_))) {
                // It would do so again; each time the shard is built anew.
                return self.alarm.ring_at(env.wall_ms() + PANIC_PAUSE_MS);
            }
        }
        // Whether it is led elsewhere, or has more to wake: it is looked at again.
        self.alarm.ring_at(next.max(1));
    }

    /// Wakes everything in a shard that is due, one bounded command after the other.
    async fn wake(&self, host: &Host, env: &dyn Env, turn: u64, group: GroupId) -> Result<(), CommandError> {
        let payload = ShardCommand::Wake { keys_max: self.config.wake_keys_max }.encode(&[]);
        for round in 0..ROUNDS_MAX {
            // No reply is asked for twice, so each number acknowledges those before it.
            let sequence = turn * ROUNDS_MAX + round;
            let command = Command {
                session: self.session,
                sequence,
                acknowledged: sequence,
                retry_until_ms: env.wall_ms() + RETRY_MS,
                key_hash: 0,
                payload: payload.clone(),
            };
            let reply = host.command(group, command, self.options().attempt_timeout).await?;
            if !matches!(split_reply(&reply), Ok((ShardReply::Woken { more: true, .. }, _))) {
                break;
            }
        }
        Ok(())
    }

    fn options(&self) -> &CallOptions {
        &self.config.call
    }
}

/// Commands that wake one shard before the others have their turn again.
const ROUNDS_MAX: u64 = 1_000;
