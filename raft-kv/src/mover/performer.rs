//! Performs one move, from wherever it stands. What may be done, and that it may be done again, is decided by the two
//! shards and the list of keyspaces; this only asks them in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::{Either, select};
use raft_fleet::GroupName;
use raft_fleet::rafted_value::env::{MonoTime, sleep};
use raft_fleet::rafted_value::{Freshness, QueryError};

use super::catch_up::CatchUp;
use crate::config::{KvConfig, as_ms};
use crate::error::{KvError, is_final_command};
use crate::keyspace::Keyspace;
use crate::keyspace_list::KeyspaceList;
use crate::keyspaces::{KeyspacesCommand, KeyspacesReply, Move, MoveKind, MovePhase, MoveReport};
use crate::shard::{
    Cover, FinalAsk, FinalHead, MoveStep, Outcome, Progress, RecordsAsk, ShardAnswer, ShardCommand,
    ShardQuery, ShardReply, split_answer, split_reply,
};

/// Entries that a shard forgets in one command, beside which it serves others.
const FORGET_SLOTS_MAX: u32 = 2000;

/// One part in so many of the receiver's table of sessions is left free by what is copied: for the commands that it serves
/// meanwhile, for what comes with the last changes, and for the steps of the move themselves.
const TABLE_ROOM_PART: u64 = 4;

/// One node's performance of a move.
pub(super) struct Performer {
    list: Arc<KeyspaceList>,
    task: Move,
    step: AtomicU64,
    /// Whether the range is served by nobody just now.
    hands_over: AtomicBool,
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

/// The sessions and replies that both shards had when the copying began, and how many either may have.
#[derive(Clone, Copy)]
struct Tables {
    receiver: u64,
    sender: u64,
    limit: u64,
}

impl Performer {
    pub(super) fn new(list: Arc<KeyspaceList>, task: Move) -> Self {
        Self { list, task, step: AtomicU64::new(0), hands_over: AtomicBool::new(false) }
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
        let value_size_max = keyspace.policy.value_bytes_max;
        let receive = |step| ShardCommand::Receive { step, range, value_size_max };
        let progress = match self.tell(to, receive, &[]).await?.0 {
            ShardReply::Receiving(progress) => progress,
            ShardReply::Ended(Outcome::Done) => return Ok(()),
            other => return Err(refused("the receiver", &other)),
        };
        let progress = match self.tell(from, |step| ShardCommand::Send { step, range, to }, &[]).await?.0 {
            ShardReply::Sending { given_up: true } => progress,
            ShardReply::Sending { given_up: false } => {
                let (receiver, sender) = (self.count_records(to).await?, self.count_records(from).await?);
                let limit = keyspace.policy.group.session_replies_max;
                self.copy(progress, chunk_bytes, Tables { receiver, sender, limit }).await?
            }
            other => return Err(refused("the sender", &other)),
        };
        self.give_up(progress, chunk_bytes).await
    }

    /// Copies the range while it is served where it is, then what has changed, until hardly anything is left.
    ///
    /// Records come first, so that a move for which there is no room in the receiver's table ends before anything else is copied;
    /// later rounds bring those that are new since.
    async fn copy(&self, progress: Progress, bytes_max: u64, tables: Tables) -> Result<Progress, Halt> {
        let (progress, _) = self.copy_records(progress, bytes_max, tables).await?;
        let mut progress = self.copy_range(progress, bytes_max).await?;
        let mut catch_up = CatchUp::default();
        let KvConfig { move_tail_bytes, move_tail_rounds_max, .. } = *self.list.config();
        for _ in 0..=move_tail_rounds_max {
            let (records, changes);
            (progress, records) = self.copy_records(progress, bytes_max, tables).await?;
            (progress, changes) = self.copy_changes(progress, bytes_max, &mut catch_up).await?;
            // About as much will have changed when the range is given up.
            if records + changes <= move_tail_bytes {
                break;
            }
        }
        Ok(progress)
    }

    /// Copies what there is, in the order of the hashes.
    async fn copy_range(&self, mut progress: Progress, bytes_max: u64) -> Result<Progress, Halt> {
        let Move { id: move_id, from, range, .. } = self.task;
        while progress.copied != Some(range.last()) {
            let next = progress.copied.map_or(range.first(), |copied| copied + 1);
            let query = ShardQuery::Chunk { move_id, from: next, bytes_max };
            let (page, slots) = match self.ask(from, &query).await? {
                (ShardAnswer::Chunk { page }, slots) => (page, slots),
                (other, _) => return Err(no_copy(&other)),
            };
            let rest = FinalHead::default().encode(&slots);
            progress = self.install(Cover::Range(page), &rest).await?;
            self.rest().await;
        }
        Ok(progress)
    }

    /// Copies the records of commands that are new; how many bytes that were.
    async fn copy_records(
        &self,
        mut progress: Progress,
        bytes_max: u64,
        tables: Tables,
    ) -> Result<(Progress, u64), Halt> {
        let Tables { receiver, sender, limit } = tables;
        let count_max = limit - limit / TABLE_ROOM_PART;
        let mut ask = RecordsAsk { since_ms: progress.records_ms, after: None, bytes_max };
        let (mut began_ms, mut bytes) = (None, 0);
        loop {
            let step = |step| ShardCommand::Records { step, ask };
            let (stamp_ms, next, head) = match self.tell(self.task.from, step, &[]).await? {
                (ShardReply::Records { stamp_ms, next }, head) => (stamp_ms, next, head),
                (other, _) => return Err(refused("the sender", &other)),
            };
            bytes += head.len() as u64;
            let began_ms = *began_ms.get_or_insert(stamp_ms);
            let until_ms = next.is_none().then_some(began_ms);
            let cover = Cover::RecordsWithin { until_ms, count_max };
            let install = |step| ShardCommand::Install { step, cover, last: false };
            progress = match self.tell(self.task.to, install, &head).await?.0 {
                ShardReply::Receiving(progress) => progress,
                ShardReply::TooManyRecords => {
                    return Err(Halt::Failed(format!(
                        "the sessions of both do not fit into one table: {receiver} and {sender} of {limit}"
                    )));
                }
                other => return Err(refused("the receiver", &other)),
            };
            if next.is_none() {
                return Ok((progress, bytes));
            }
            ask.after = next;
            self.rest().await;
        }
    }

    /// How many sessions and replies a shard has.
    async fn count_records(&self, shard: u32) -> Result<u64, Halt> {
        match self.tell(shard, |_| ShardCommand::CountRecords, &[]).await?.0 {
            ShardReply::RecordsCounted { count } => Ok(count),
            other => Err(Halt::Failed(format!("shard {shard} answers {other:?}"))),
        }
    }

    /// Copies what has changed until nothing is left of it; how many bytes the last round had.
    async fn copy_changes(
        &self,
        mut progress: Progress,
        bytes_max: u64,
        catch_up: &mut CatchUp,
    ) -> Result<(Progress, u64), Halt> {
        let Move { id: move_id, from, .. } = self.task;
        let rounds_max = self.list.config().move_rounds_max;
        catch_up.begin_pass();
        loop {
            let query = ShardQuery::Changes { move_id, after: progress.changes, bytes_max };
            let (to, left, slots) = match self.ask(from, &query).await? {
                (ShardAnswer::Changes { to, left }, slots) => (to, left, slots),
                (other, _) => return Err(no_copy(&other)),
            };
            let rest = FinalHead::default().encode(&slots);
            progress = self.install(Cover::Changes { to }, &rest).await?;
            if left == 0 {
                return Ok((progress, slots.len() as u64));
            }
            if !catch_up.goes_on(left, rounds_max) {
                return Err(Halt::Failed(format!(
                    "it changes faster than it is copied: no less of {left} changes was left in over {rounds_max} rounds"
                )));
            }
            self.rest().await;
        }
    }

    /// Brings something to the receiver that is not the last.
    async fn install(&self, cover: Cover, rest: &[u8]) -> Result<Progress, Halt> {
        let install = |step| ShardCommand::Install { step, cover, last: false };
        match self.tell(self.task.to, install, rest).await?.0 {
            ShardReply::Receiving(progress) => Ok(progress),
            other => Err(refused("the receiver", &other)),
        }
    }

    async fn rest(&self) {
        let pause = self.list.config().move_chunk_pause;
        if !pause.is_zero() {
            sleep(self.list.fleet().env().as_ref(), pause).await;
        }
    }

    /// From the first of these commands to the last nobody serves the range.
    async fn give_up(&self, progress: Progress, bytes_max: u64) -> Result<(), Halt> {
        let Move { from, to, .. } = self.task;
        // Should this node die in between, others are to know soon.
        self.hands_over.store(true, Ordering::Relaxed);
        self.report(MoveReport::AtWork { lease_ms: self.lease_ms() }).await?;
        let began = self.list.fleet().env().now();
        let Progress { changes, records_ms, .. } = progress;
        let records = RecordsAsk { since_ms: records_ms, after: None, bytes_max };
        let mut ask = FinalAsk { changes_after: changes, records };
        loop {
            let (complete, rest) =
                match self.tell(from, |step| ShardCommand::GiveUp { step, ask }, &[]).await? {
                    (ShardReply::GivenUp { changes, records_next, complete }, rest) => {
                        (ask.changes_after, ask.records.after) = (changes, records_next);
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
                    self.hands_over.store(false, Ordering::Relaxed);
                    metrics::histogram!("raft_kv_move_pause_seconds").record(pause.as_secs_f64());
                    tracing::info!(
                        id = self.task.id,
                        ?pause,
                        bytes = rest.len(),
                        "the range has its new owner"
                    );
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
                // So that no snapshot is taken of what it had: it has nothing to do from now on, and much in its log.
                match self.forget(from, u32::MAX).await {
                    Ok(()) | Err(Halt::Failed(_)) => {}
                    Err(halt) => return Err(halt),
                }
                // Until everybody knows the new routes it sends callers on; a group that is gone only keeps them waiting.
                sleep(self.list.fleet().env().as_ref(), self.list.config().move_linger).await;
                self.list.remove_group(&self.group(from)).await;
            }
            MoveKind::Split => self.forget(from, FORGET_SLOTS_MAX).await?,
        }
        self.report(MoveReport::Ended).await
    }

    /// The range stays where it was. The receiver is told first: once it has heard, it never serves the range.
    async fn abort(&self) -> Result<(), Halt> {
        let Move { from, to, kind, .. } = self.task;
        // The sender may have given the range up already.
        self.hands_over.store(true, Ordering::Relaxed);
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
        self.hands_over.store(false, Ordering::Relaxed);
        match kind {
            MoveKind::Split => self.list.remove_group(&self.group(to)).await,
            MoveKind::Merge => self.forget(to, FORGET_SLOTS_MAX).await?,
        }
        self.report(MoveReport::Ended).await
    }

    /// Has a shard remove the entries that are not its own, so many at a time.
    async fn forget(&self, shard: u32, slots_max: u32) -> Result<(), Halt> {
        let command = |_| ShardCommand::Forget { slots_max };
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

    /// For how long the move is this node's after each report.
    fn lease_ms(&self) -> u64 {
        let KvConfig { move_lease, move_pause_lease, .. } = *self.list.config();
        let hands_over = self.hands_over.load(Ordering::Relaxed);
        as_ms(if hands_over { move_pause_lease.min(move_lease) } else { move_lease })
    }

    /// Tells the list now and then that the move is performed; ends when it is not this node's any more.
    async fn keep_lease(&self) -> Halt {
        let env = self.list.fleet().env();
        let KvConfig { move_lease, move_pause_lease, .. } = *self.list.config();
        let mut reported = env.now();
        loop {
            sleep(env.as_ref(), move_pause_lease.min(move_lease) / 3).await;
            let hands_over = self.hands_over.load(Ordering::Relaxed);
            if !hands_over && env.now().since(reported) < move_lease / 3 {
                continue;
            }
            reported = env.now();
            match self.report(MoveReport::AtWork { lease_ms: self.lease_ms() }).await {
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
            Err(KvError::Command { error, .. }) if is_final_command(&error) => {
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

fn no_copy(answer: &ShardAnswer) -> Halt {
    match answer {
        ShardAnswer::NoSuchMove => Halt::Lost,
        other => Halt::Failed(format!("the sender answers {other:?}")),
    }
}

fn refused(who: &str, reply: &ShardReply) -> Halt {
    match reply {
        ShardReply::Stale => Halt::Lost,
        other => Halt::Failed(format!("{who} answers {other:?}")),
    }
}
