//! Performs one move, from wherever it stands. What may be done, and that it may be done again, is decided by the two
//! shards and the list of keyspaces; this only asks them in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use raft_fleet::GroupName;
use raft_fleet::rafted_value::env::{MonoTime, sleep};
use raft_fleet::rafted_value::{CommandError, Freshness, QueryError};

use crate::error::{KvError, is_final};
use crate::keyspace::Keyspace;
use crate::keyspace_list::KeyspaceList;
use crate::keyspaces::{KeyspacesCommand, KeyspacesReply, Move, MoveKind, MovePhase, MoveReport};
use crate::shard::{
    Cover, FinalAsk, FinalHead, MoveStep, Outcome, Progress, ShardAnswer, ShardCommand, ShardQuery,
    ShardReply, split_answer, split_reply,
};

/// Entries that a shard forgets in one command.
const FORGET_SLOTS_MAX: u32 = 2000;

/// One node's performance of a move.
pub(super) struct Performer {
    list: Arc<KeyspaceList>,
    task: Move,
    step: AtomicU64,
}

/// Why it stops before the end.
enum Halt {
    /// The move is another's, or nobody's.
    Lost,
    /// It cannot be done.
    Failed(String),
    /// The cluster does not answer; whoever claims the move later goes on.
    Unanswered(KvError),
}

impl Performer {
    pub(super) fn new(list: Arc<KeyspaceList>, task: Move) -> Self {
        Self { list, task, step: AtomicU64::new(0) }
    }

    /// Performs the move as long as it is this node's.
    pub(super) async fn run(self) {
        let Move { id, keyspace, kind, from, to, epoch, .. } = &self.task;
        tracing::info!(id, %keyspace, ?kind, from, to, epoch, "a move is performed");
        let ended = match select(Box::pin(self.perform()), Box::pin(self.keep_lease())).await {
            Either::Left((ended, _)) => ended,
            Either::Right((halt, _)) => Err(halt),
        };
        match ended {
            Ok(()) => tracing::info!(id, %keyspace, "the move has ended"),
            Err(Halt::Lost) => tracing::debug!(id, "the move is another's"),
            Err(Halt::Failed(reason)) => tracing::warn!(id, %keyspace, reason, "the move is stuck"),
            Err(Halt::Unanswered(error)) => tracing::warn!(id, %keyspace, %error, "the move waits"),
        }
    }

    async fn perform(&self) -> Result<(), Halt> {
        match &self.task.phase {
            MovePhase::Moving => {}
            MovePhase::Moved => return self.tidy_up().await,
            MovePhase::Aborting(_) => return self.abort().await,
        }
        let keyspace = self.keyspace().await?;
        match self.hand_over(&keyspace).await {
            Ok(()) => self.moved().await,
            Err(Halt::Failed(reason)) => {
                tracing::warn!(id = self.task.id, keyspace = %self.task.keyspace, reason, "the move is aborted");
                metrics::counter!("raft_kv_moves_aborted_total").increment(1);
                self.report(MoveReport::Abort(reason)).await?;
                self.abort().await
            }
            Err(halt) => Err(halt),
        }
    }

    /// Brings the range to its new owner.
    async fn hand_over(&self, keyspace: &Keyspace) -> Result<(), Halt> {
        let Move { from, to, range, kind, .. } = self.task;
        if kind == MoveKind::Split {
            let made = self.list.make_shard_group(keyspace, to, self.deadline()).await;
            made.map_err(|error| Halt::Failed(format!("the new shard's group: {error}")))?;
        }
        let chunk_bytes =
            self.list.config().move_chunk_bytes.min(keyspace.policy.group.command_bytes_max / 4);
        let progress = match self.tell(to, |step| ShardCommand::Receive { step, range }, &[]).await?.0 {
            ShardReply::Receiving(progress) => progress,
            ShardReply::Ended(Outcome::Done) => return Ok(()),
            other => return Err(refused("the receiver", &other)),
        };
        let progress = match self.tell(from, |step| ShardCommand::Send { step, range, to }, &[]).await?.0 {
            ShardReply::Sending { given_up: true } => progress,
            ShardReply::Sending { given_up: false } => self.copy(progress, chunk_bytes).await?,
            other => return Err(refused("the sender", &other)),
        };
        self.give_up(progress, chunk_bytes).await
    }

    /// Copies the range while it is served where it is, then what has changed, until hardly anything is left.
    async fn copy(&self, mut progress: Progress, bytes_max: u64) -> Result<Progress, Halt> {
        let Move { id: move_id, from, to, range, .. } = self.task;
        let mut rounds = 0;
        loop {
            let (query, changes) = match progress.copied {
                Some(copied) if copied == range.last() => {
                    (ShardQuery::Changes { move_id, after: progress.changes, bytes_max }, true)
                }
                copied => {
                    let from = copied.map_or(range.first(), |copied| copied + 1);
                    (ShardQuery::Chunk { move_id, from, bytes_max }, false)
                }
            };
            let (cover, left, slots) = match self.ask(from, &query).await? {
                (ShardAnswer::Chunk { page }, slots) => (Cover::Range(page), 0, slots),
                (ShardAnswer::Changes { to, left }, slots) => (Cover::Changes { to }, left, slots),
                (ShardAnswer::NoSuchMove, _) => return Err(Halt::Lost),
                (other, _) => return Err(Halt::Failed(format!("the sender answers {other:?}"))),
            };
            let rest = FinalHead::default().encode(&slots);
            let install = |step| ShardCommand::Install { step, cover, last: false };
            progress = match self.tell(to, install, &rest).await?.0 {
                ShardReply::Receiving(progress) => progress,
                other => return Err(refused("the receiver", &other)),
            };
            if changes && left == 0 {
                return Ok(progress);
            }
            rounds += u64::from(changes);
            if rounds > self.list.config().move_rounds_max {
                return Err(Halt::Failed(format!(
                    "it changes faster than it is copied, after {rounds} rounds"
                )));
            }
            let pause = self.list.config().move_chunk_pause;
            if !pause.is_zero() {
                sleep(self.list.fleet().env().as_ref(), pause).await;
            }
        }
    }

    /// From the first of these commands to the last nobody serves the range.
    async fn give_up(&self, progress: Progress, bytes_max: u64) -> Result<(), Halt> {
        let Move { from, to, .. } = self.task;
        let began = self.list.fleet().env().now();
        let mut ask = FinalAsk { changes_after: progress.changes, records_after: None, bytes_max };
        loop {
            let (complete, rest) =
                match self.tell(from, |step| ShardCommand::GiveUp { step, ask }, &[]).await? {
                    (ShardReply::GivenUp { changes, records_next, complete }, rest) => {
                        (ask.changes_after, ask.records_after) = (changes, records_next);
                        (complete, rest)
                    }
                    (other, _) => return Err(refused("the sender", &other)),
                };
            let cover = Cover::Changes { to: ask.changes_after };
            let install = |step| ShardCommand::Install { step, cover, last: complete };
            match self.tell(to, install, &rest).await?.0 {
                ShardReply::Receiving(_) if !complete => {}
                ShardReply::Ended(Outcome::Done) => {
                    let pause = self.list.fleet().env().now().since(began);
                    metrics::histogram!("raft_kv_move_pause_seconds").record(pause.as_secs_f64());
                    tracing::info!(id = self.task.id, ?pause, "the range has its new owner");
                    return Ok(());
                }
                other => return Err(refused("the receiver", &other)),
            }
        }
    }

    async fn moved(&self) -> Result<(), Halt> {
        self.report(MoveReport::Moved).await?;
        metrics::counter!("raft_kv_moves_total").increment(1);
        // What this node knows of the routes may as well be right; others ask when a shard sends them on.
        drop(self.list.read_one(&self.task.keyspace, &self.list.config().call, false).await);
        self.tidy_up().await
    }

    /// The range has its new owner: the old one forgets it, or ends.
    async fn tidy_up(&self) -> Result<(), Halt> {
        let Move { from, kind, .. } = self.task;
        match self.tell(from, |step| ShardCommand::Finish { step }, &[]).await {
            Ok((ShardReply::Ended(Outcome::Done), _)) => {}
            // Its group is gone already.
            Err(Halt::Failed(_)) if kind == MoveKind::Merge => {}
            Ok((other, _)) => return Err(refused("the sender", &other)),
            Err(halt) => return Err(halt),
        }
        match kind {
            MoveKind::Merge => {
                // Until everybody knows the new routes it sends callers on; a group that is gone only keeps them waiting.
                sleep(self.list.fleet().env().as_ref(), self.list.config().move_linger).await;
                self.list.remove_group(&self.group(from)).await;
            }
            MoveKind::Split => self.forget(from).await?,
        }
        self.report(MoveReport::Ended).await
    }

    /// The range stays where it was. The receiver is told first: once it has heard, it never serves the range.
    async fn abort(&self) -> Result<(), Halt> {
        let Move { from, to, kind, .. } = self.task;
        match self.tell_if_there(to, |step| ShardCommand::Abort { step }).await? {
            // It serves the range already.
            Some(ShardReply::Ended(Outcome::Done)) => return self.moved().await,
            Some(ShardReply::Ended(Outcome::Aborted)) | None => {}
            Some(other) => return Err(refused("the receiver", &other)),
        }
        match self.tell_if_there(from, |step| ShardCommand::Abort { step }).await? {
            Some(ShardReply::Ended(Outcome::Aborted)) | None => {}
            Some(other) => return Err(refused("the sender", &other)),
        }
        match kind {
            MoveKind::Split => self.list.remove_group(&self.group(to)).await,
            MoveKind::Merge => self.forget(to).await?,
        }
        self.report(MoveReport::Ended).await
    }

    /// Has a shard remove the entries that are not its own, some at a time.
    async fn forget(&self, shard: u32) -> Result<(), Halt> {
        let command = |_| ShardCommand::Forget { slots_max: FORGET_SLOTS_MAX };
        while self.tell(shard, command, &[]).await?.0 == (ShardReply::Forgotten { left: true }) {}
        Ok(())
    }

    /// The keyspace, unless it is gone with its moves.
    async fn keyspace(&self) -> Result<Keyspace, Halt> {
        let listed = self.list.read_all().await.map_err(Halt::Unanswered)?;
        let mut keyspaces = listed.keyspaces.into_iter();
        keyspaces.find(|keyspace| keyspace.generation == self.task.generation).ok_or(Halt::Lost)
    }

    /// Tells the list how far the move is.
    async fn report(&self, report: MoveReport) -> Result<(), Halt> {
        let Move { id, epoch, .. } = self.task;
        let command = KeyspacesCommand::Report { id, epoch, report };
        match self.list.command("reporting on a move", &command, self.deadline()).await {
            Ok(KeyspacesReply::Moving(_)) => Ok(()),
            Ok(_) => Err(Halt::Lost),
            Err(error) => Err(Halt::Unanswered(error)),
        }
    }

    /// Tells the list now and then that the move is performed; ends when it is not this node's any more.
    async fn keep_lease(&self) -> Halt {
        let lease_ms = self.list.config().move_lease_ms();
        loop {
            sleep(self.list.fleet().env().as_ref(), Duration::from_millis(lease_ms / 3)).await;
            match self.report(MoveReport::AtWork { lease_ms }).await {
                Ok(()) | Err(Halt::Unanswered(_)) => {}
                Err(halt) => return halt,
            }
        }
    }

    async fn tell_if_there(
        &self,
        shard: u32,
        command: impl Fn(MoveStep) -> ShardCommand<'static>,
    ) -> Result<Option<ShardReply>, Halt> {
        match self.tell(shard, command, &[]).await {
            Ok((reply, _)) => Ok(Some(reply)),
            Err(Halt::Failed(_)) => match self.list.fleet().group(&self.group(shard)).await {
                Ok(None) => Ok(None),
                Ok(Some(_)) => Err(Halt::Failed(format!("shard {shard} does not take the step"))),
                Err(error) => Err(Halt::Unanswered(KvError::Fleet(error))),
            },
            Err(halt) => Err(halt),
        }
    }

    /// Takes a step at a shard, as often as it takes to know that it was taken.
    async fn tell(
        &self,
        shard: u32,
        command: impl Fn(MoveStep) -> ShardCommand<'static>,
        rest: &[u8],
    ) -> Result<(ShardReply, Bytes), Halt> {
        let Move { id: move_id, epoch, .. } = self.task;
        let step = self.step.fetch_add(1, Ordering::Relaxed) + 1;
        let payload = command(MoveStep { move_id, epoch, step }).encode(rest);
        let (group, deadline) = (self.group(shard), self.deadline());
        let what = "a step of a move";
        let reply = match self.list.send(what, &group, 0, &payload, deadline).await {
            Ok(reply) => reply,
            Err(KvError::Command { error: CommandError::NotApplied(error), .. }) if is_final(&error) => {
                return Err(Halt::Failed(format!("shard {shard}: {error}")));
            }
            Err(error) => return Err(Halt::Unanswered(error)),
        };
        match split_reply(&reply) {
            Ok((ShardReply::Stale, _)) => Err(Halt::Lost),
            Ok(reply) => Ok(reply),
            Err(reason) => Err(Halt::Failed(reason)),
        }
    }

    /// Asks a shard.
    async fn ask(&self, shard: u32, query: &ShardQuery<'_>) -> Result<(ShardAnswer, Bytes), Halt> {
        let (group, deadline) = (self.group(shard), self.deadline());
        let env = self.list.fleet().env();
        let payload = query.encode(&[]);
        loop {
            let call = &self.list.config().call;
            match self.list.fleet().query(&group, Freshness::Latest, payload.clone(), call).await {
                Ok(answer) => return split_answer(&answer).map_err(Halt::Failed),
                Err(
                    error @ (QueryError::NoSuchName(_)
                    | QueryError::Refused(_)
                    | QueryError::Panicked(_)
                    | QueryError::AnswerTooLarge { .. }),
                ) => return Err(Halt::Failed(format!("shard {shard}: {error}"))),
                Err(error) if env.now() >= deadline => {
                    return Err(Halt::Unanswered(KvError::Query { what: "reading a range", error }));
                }
                Err(_) => sleep(env.as_ref(), call.retry_interval).await,
            }
        }
    }

    fn group(&self, shard: u32) -> GroupName {
        self.task.keyspace.shard_group(self.task.generation, shard)
    }

    fn deadline(&self) -> MonoTime {
        self.list.fleet().env().now() + self.list.config().move_step_timeout
    }
}

fn refused(who: &str, reply: &ShardReply) -> Halt {
    match reply {
        ShardReply::Stale => Halt::Lost,
        other => Halt::Failed(format!("{who} answers {other:?}")),
    }
}
