//! One call, attempt after attempt: the same command under the same number until it has its reply or its time is up.

use std::time::Duration;

use bytes::Bytes;
use rafted_value::env::{MonoTime, sleep};
use rafted_value::{
    Command, CommandError, Freshness, GroupConfig, GroupId, NodeId, NotApplied, QueryError, Unknown,
};

use super::chase::{Chase, Shown};
use super::gate::{Pass, refuse};
use super::line::Ticket;
use crate::cluster_state::{CLUSTER_GROUP, GroupState};
use crate::config::{CallOptions, CommandNumber};
use crate::core::Core;
use crate::group_name::GroupName;
use crate::view::View;

/// What a caller is told to wait when all numbers of a session are in use.
const SESSION_RETRY_MS: u64 = 10;

/// A group as a caller addresses it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) group: GroupId,
    /// The longest retry window that the group allows.
    pub(crate) retry_window_max_ms: u64,
    /// The largest payload that the group takes.
    pub(crate) command_bytes_max: u64,
}

impl Target {
    /// A group with these settings.
    pub(crate) fn new(group: GroupId, config: &GroupConfig) -> Self {
        let &GroupConfig { retry_window_max_ms, command_bytes_max, .. } = config;
        Self { group, retry_window_max_ms, command_bytes_max }
    }
}

/// A command that has its number and its time, and may go to one group after another: a layer above moves keys between
/// groups, with the records of their commands, and the command runs at most once among all groups that it is sent to.
pub struct BegunCommand {
    ticket: Ticket,
    options: CallOptions,
    deadline: MonoTime,
    /// What is not known of an attempt at any of the groups.
    unknown: Option<Unknown>,
    _pass: Pass,
}

impl BegunCommand {
    /// When its caller stops waiting.
    pub fn deadline(&self) -> MonoTime {
        self.deadline
    }

    /// An attempt of which it is not known whether it was applied, if there was one.
    pub fn unknown(&self) -> Option<&Unknown> {
        self.unknown.as_ref()
    }
}

/// Why a name leads to no group.
enum NoRoute {
    NoSuchName,
    StillFounding,
    /// The cluster group did not say whether there is one.
    Unread,
}

impl NoRoute {
    fn command_error(&self, name: &GroupName) -> CommandError {
        let error = match self {
            NoRoute::NoSuchName => NotApplied::NoSuchName(name.as_str().to_owned()),
            NoRoute::StillFounding => NotApplied::Unreachable(still_founding(name)),
            NoRoute::Unread => NotApplied::Unreachable(unread(name)),
        };
        error.into()
    }

    fn query_error(&self, name: &GroupName) -> QueryError {
        match self {
            NoRoute::NoSuchName => QueryError::NoSuchName(name.as_str().to_owned()),
            NoRoute::StillFounding => QueryError::Unreachable(still_founding(name)),
            NoRoute::Unread => QueryError::Unreachable(unread(name)),
        }
    }
}

fn still_founding(name: &GroupName) -> String {
    format!("the group named {name:?} is still being founded")
}

fn unread(name: &GroupName) -> String {
    format!("the cluster group did not say in time whether a group named {name:?} exists")
}

impl Core {
    /// Sends a command to the group of this name, as often as it takes; where `id` is given, only to the group that has it.
    pub(crate) async fn command(
        &self,
        name: &GroupName,
        id: Option<GroupId>,
        key_hash: u64,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<Bytes, CommandError> {
        let _pass = self.gate.enter(options.essential)?;
        let options = &options.within_limits();
        let deadline = self.env.now() + options.timeout;
        match self.route(name, deadline).await {
            Ok(target) if id.is_some_and(|id| id != target.group) => {
                Err(NoRoute::NoSuchName.command_error(name))
            }
            Ok(target) => self.command_to(target, key_hash, payload, options, deadline).await,
            Err(no) => Err(no.command_error(name)),
        }
    }

    /// Numbers a command that may go to one group after another; see [`Fleet::begin`](crate::Fleet::begin).
    pub(crate) async fn begin(
        &self,
        name: &GroupName,
        key_hash: u64,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<BegunCommand, CommandError> {
        let pass = self.gate.enter(options.essential)?;
        let options = &options.within_limits();
        let deadline = self.env.now() + options.timeout;
        let target = self.route(name, deadline).await.map_err(|no| no.command_error(name))?;
        let ticket = self.number(target, key_hash, payload, options, deadline).await?;
        Ok(BegunCommand { ticket, options: *options, deadline, unknown: None, _pass: pass })
    }

    /// Sends it to one group.
    pub(crate) async fn send(
        &self,
        name: &GroupName,
        command: &mut BegunCommand,
    ) -> Result<Bytes, CommandError> {
        let BegunCommand { ticket, options, deadline, unknown, .. } = command;
        let target = match self.route(name, *deadline).await {
            Ok(target) => target,
            Err(no) => {
                return Err(unknown.clone().map_or_else(|| no.command_error(name), CommandError::Unknown));
            }
        };
        check_size(target, &ticket.command().payload).map_err(|error| final_error(error, unknown.clone()))?;
        self.attempt(target, ticket, options, *deadline, unknown).await
    }

    /// Asks the group of this name, as often as it takes.
    pub(crate) async fn query(
        &self,
        name: &GroupName,
        freshness: Freshness,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<Bytes, QueryError> {
        let _pass = self.gate.enter(options.essential)?;
        let options = &options.within_limits();
        let deadline = self.env.now() + options.timeout;
        match self.route(name, deadline).await {
            Ok(target) => self.query_to(target, freshness, payload, options, deadline).await,
            Err(no) => Err(no.query_error(name)),
        }
    }

    /// The group of this name once it is in use. A name that the view does not list is looked up in the cluster group.
    async fn route(&self, name: &GroupName, deadline: MonoTime) -> Result<Target, NoRoute> {
        let mut view = self.views.current();
        if let Some((GroupState::Running, target)) = target_of(&view, name) {
            return Ok(target);
        }
        if target_of(&view, name).is_none() {
            let limit = deadline.since(self.env.now());
            if self.refresh_latest(limit).await.is_ok() {
                view = self.views.current();
                if target_of(&view, name).is_none() {
                    return Err(NoRoute::NoSuchName);
                }
            }
        }
        let _urgency = self.views.urge();
        loop {
            if let Some((GroupState::Running, target)) = target_of(&view, name) {
                return Ok(target);
            }
            let limit = deadline.since(self.env.now());
            let newer = self.views.newer_than(view.state.revision());
            view = match rafted_value::env::timeout(self.env.as_ref(), limit, newer).await {
                Some(view) => view,
                None if target_of(&view, name).is_some() => return Err(NoRoute::StillFounding),
                None => return Err(NoRoute::Unread),
            };
        }
    }

    /// Sends a command to a group until `deadline`.
    pub(crate) async fn command_to(
        &self,
        target: Target,
        key_hash: u64,
        payload: Bytes,
        options: &CallOptions,
        deadline: MonoTime,
    ) -> Result<Bytes, CommandError> {
        // The group would refuse it, and what is larger than a message could not even be sent to be refused.
        check_size(target, &payload)?;
        let ticket = self.number(target, key_hash, payload, options, deadline).await?;
        self.attempt(target, &ticket, options, deadline, &mut None).await
    }

    /// Gives a command its number in this node's line to a group.
    async fn number(
        &self,
        target: Target,
        key_hash: u64,
        payload: Bytes,
        options: &CallOptions,
        deadline: MonoTime,
    ) -> Result<Ticket, CommandError> {
        let line = self.lines.of(self.env.as_ref(), target.group);
        let mut place = line.enter(self.env.now(), options.essential);
        if place.is_none() {
            return Err(refuse().into());
        }
        // The group measures the window by its own clock: leave room for one that is behind ours.
        let allowed = millis(target.retry_window_max_ms / 10 * 9);
        let window = options.timeout.saturating_add(options.retry_margin).min(allowed);
        let retry_until_ms = self.env.wall_ms().saturating_add(as_ms(window));
        if let Some(CommandNumber { session, sequence }) = options.number {
            let acknowledged = 0;
            let command = Command { session, sequence, acknowledged, retry_until_ms, key_hash, payload };
            return Ok(Ticket::of(command, place));
        }
        loop {
            if let Some(ticket) = line.begin(&mut place, retry_until_ms, key_hash, payload.clone()) {
                return Ok(ticket);
            }
            if self.env.now() >= deadline {
                return Err(NotApplied::Overloaded { retry_after_ms: SESSION_RETRY_MS }.into());
            }
            sleep(self.env.as_ref(), millis(SESSION_RETRY_MS)).await;
        }
    }

    /// Sends a command that has its number until `deadline`. `unknown` is what it is not known of an earlier attempt, and
    /// stays so whatever a later one shows, unless that one has the reply.
    async fn attempt(
        &self,
        target: Target,
        ticket: &Ticket,
        options: &CallOptions,
        deadline: MonoTime,
        unknown: &mut Option<Unknown>,
    ) -> Result<Bytes, CommandError> {
        let line = self.lines.of(self.env.as_ref(), target.group);
        let mut chase = Chase::new(options.retry_interval);
        let mut last = None;
        let mut attempts = 0;
        loop {
            let left = deadline.since(self.env.now());
            if left.is_zero() {
                break;
            }
            let candidates = || self.candidates(target.group);
            let Some(node) = chase.target(line.leader(), candidates) else {
                self.views.refresh_soon();
                sleep(self.env.as_ref(), options.retry_interval.min(left)).await;
                continue;
            };
            if attempts == options.attempts_max {
                break;
            }
            attempts += 1;
            let limit = self.patience(node, options, candidates).min(left);
            // Whoever stops to wait meanwhile does not know what becomes of it either.
            let before = unknown.clone();
            unknown.get_or_insert(Unknown::Timeout { limit_ms: as_ms(limit) });
            let result = self.command_once(node, target.group, ticket, limit).await;
            *unknown = before;
            let error = match result {
                Ok(reply) => {
                    line.set_leader(node);
                    line.window.widen();
                    return Ok(reply);
                }
                Err(error) => error,
            };
            let shown = Shown::by_command(&error);
            if shown == Shown::Final {
                if matches!(error, CommandError::NotApplied(NotApplied::Refused(_) | NotApplied::Panicked(_)))
                {
                    // It took its turn like any other.
                    line.window.widen();
                }
                return Err(final_error(error, unknown.clone()));
            }
            tracing::debug!(group = %target.group, %node, %error, "an attempt at a command ended without a reply");
            // An attempt that the deadline cut short says less than one before it.
            let cut = limit < options.attempt_timeout;
            match error {
                CommandError::Unknown(error) if !cut || unknown.is_none() => *unknown = Some(error),
                CommandError::NotApplied(error) if !cut || last.is_none() => last = Some(error),
                _ => (),
            }
            self.learn_of_stranger(node, shown, limit).await;
            if matches!(shown, Shown::Overloaded(_)) {
                line.window.narrow(self.env.now());
            }
            let pause = self.learn_from(&line, target.group, node, shown, &mut chase);
            // What may have been applied has a reply that is worth waiting for.
            let refusals_max = if unknown.is_some() { u32::MAX } else { options.refusals_max };
            if !self.pause(pause, &chase, (options, refusals_max), left).await {
                break;
            }
        }
        Err(self.give_up(target.group, unknown.clone(), last, options))
    }

    /// Asks a group until `deadline`.
    pub(crate) async fn query_to(
        &self,
        target: Target,
        freshness: Freshness,
        payload: Bytes,
        options: &CallOptions,
        deadline: MonoTime,
    ) -> Result<Bytes, QueryError> {
        let group = target.group;
        if freshness == Freshness::Stale
            && let Some(host) = self.host.get()
            && let Ok(answer) = host.query(group, freshness, payload.clone(), options.attempt_timeout).await
        {
            return Ok(answer);
        }
        let line = self.lines.of(self.env.as_ref(), group);
        let mut chase = Chase::new(options.retry_interval);
        let mut last = None;
        let mut attempts = 0;
        loop {
            let left = deadline.since(self.env.now());
            if left.is_zero() {
                break;
            }
            let Some(node) = chase.target(line.leader(), || self.candidates(group)) else {
                self.views.refresh_soon();
                sleep(self.env.as_ref(), options.retry_interval.min(left)).await;
                continue;
            };
            if attempts == options.attempts_max {
                break;
            }
            attempts += 1;
            let limit = self.patience(node, options, || self.candidates(group)).min(left);
            let error = match self.query_once(node, group, freshness, payload.clone(), limit).await {
                Ok(answer) => {
                    if freshness == Freshness::Latest {
                        line.set_leader(node);
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let shown = Shown::by_query(&error);
            if shown == Shown::Final {
                return Err(error);
            }
            tracing::debug!(%group, %node, %error, "an attempt at a query ended without an answer");
            // An attempt that the deadline cut short says less than one before it.
            if limit == options.attempt_timeout || last.is_none() {
                last = Some(error);
            }
            self.learn_of_stranger(node, shown, limit).await;
            let pause = self.learn_from(&line, group, node, shown, &mut chase);
            if !self.pause(pause, &chase, (options, options.refusals_max), left).await {
                break;
            }
        }
        let limit_ms = as_ms(options.timeout);
        Err(match last {
            // The caller waited for the whole call, not for its last attempt.
            Some(QueryError::Timeout { .. }) | None => QueryError::Timeout { limit_ms },
            Some(error) => error,
        })
    }

    /// A redirect to a node that the view does not list cannot be followed: its address is not known yet. Whoever
    /// redirects most likely knows it.
    async fn learn_of_stranger(&self, asked: NodeId, shown: Shown, limit: Duration) {
        let Shown::Redirect(leader) = shown else { return };
        if asked != self.node && !self.views.current().state.nodes().contains_key(&leader) {
            self.refresh_from(asked, limit).await;
        }
    }

    /// Notes what an attempt has shown. The pause before the next one, or `None` when the group is gone for good.
    fn learn_from(
        &self,
        line: &super::line::Line,
        group: GroupId,
        asked: NodeId,
        shown: Shown,
        chase: &mut Chase,
    ) -> Option<Duration> {
        match shown {
            Shown::Redirect(leader) => line.set_leader(leader),
            Shown::Leaderless => line.forget_leader(asked),
            Shown::Absent => {
                line.forget_leader(asked);
                self.views.refresh_soon();
            }
            Shown::Busy(_) | Shown::Overloaded(_) | Shown::Final => (),
        }
        let pause = chase.pause(asked, shown);
        if let Shown::Redirect(leader) = shown
            && !pause.is_zero()
        {
            // The redirect is not followed, so that others should not be sent there either.
            line.forget_leader(leader);
        }
        self.views.current().lists(group).then_some(pause)
    }

    /// Waits before the next attempt; whether there is one.
    async fn pause(
        &self,
        pause: Option<Duration>,
        chase: &Chase,
        (options, refusals_max): (&CallOptions, u32),
        left: Duration,
    ) -> bool {
        let Some(pause) = pause else { return false };
        let refusals = chase.refusals();
        if refusals > refusals_max && !options.essential {
            return false;
        }
        // Those that were refused together should not come together again.
        let pause = if refusals > 0 { self.half_and_up_to(pause, 1) } else { pause };
        if !pause.is_zero() {
            sleep(self.env.as_ref(), pause.min(left)).await;
        }
        true
    }

    async fn command_once(
        &self,
        node: NodeId,
        group: GroupId,
        ticket: &Ticket,
        limit: Duration,
    ) -> Result<Bytes, CommandError> {
        match self.host.get() {
            Some(host) if node == self.node => host.command(group, ticket.command().clone(), limit).await,
            _ => self.caller.command_at(node, group, ticket.command(), limit).await,
        }
    }

    async fn query_once(
        &self,
        node: NodeId,
        group: GroupId,
        freshness: Freshness,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Bytes, QueryError> {
        match self.host.get() {
            Some(host) if node == self.node => host.query(group, freshness, payload, limit).await,
            _ => self.caller.query_at(node, group, freshness, payload, limit).await,
        }
    }

    /// The nodes that may know the leader: where members should be, then everybody else. Of the former those to which there
    /// is no connection come last: most likely they have ended.
    fn candidates(&self, group: GroupId) -> Vec<NodeId> {
        let (view, transport) = (self.views.current(), self.env.transport());
        let mut nodes = view.desired(group).unwrap_or_default();
        nodes.sort_by_key(|node| *node != self.node && !transport.is_connected(*node));
        nodes.extend(view.state.nodes().keys());
        if group == CLUSTER_GROUP {
            nodes.extend(self.views.contacts());
        }
        let mut seen = std::collections::BTreeSet::new();
        nodes.retain(|node| seen.insert(*node));
        // A node that hosts nothing cannot ask itself.
        nodes.retain(|node| *node != self.node || self.host.get().is_some());
        nodes
    }

    fn give_up(
        &self,
        group: GroupId,
        unknown: Option<Unknown>,
        last: Option<NotApplied>,
        options: &CallOptions,
    ) -> CommandError {
        let limit_ms = as_ms(options.timeout);
        let error = match (unknown, last) {
            // The caller waited for the whole call, not for its last attempt.
            (Some(Unknown::Timeout { .. }), _) => Unknown::Timeout { limit_ms }.into(),
            (Some(unknown), _) => CommandError::Unknown(unknown),
            (None, Some(last)) => CommandError::NotApplied(last),
            (None, None) => {
                NotApplied::Unreachable(format!("no node of group {group} was found in {limit_ms} ms")).into()
            }
        };
        tracing::debug!(%group, %error, limit_ms, "a command has no reply");
        metrics::counter!("raft_fleet_commands_without_reply_total").increment(1);
        error
    }
}

fn check_size(target: Target, payload: &Bytes) -> Result<(), CommandError> {
    let (bytes, limit_bytes) = (payload.len() as u64, target.command_bytes_max);
    if bytes > limit_bytes {
        return Err(NotApplied::TooLarge { bytes, limit_bytes }.into());
    }
    Ok(())
}

/// A refusal that is not kept in the group's state speaks of one attempt only: an earlier one may still be applied.
fn final_error(error: CommandError, earlier: Option<Unknown>) -> CommandError {
    match (error, earlier) {
        (
            CommandError::NotApplied(
                NotApplied::RetryWindowTooLong { .. }
                | NotApplied::TooLarge { .. }
                | NotApplied::Malformed(_),
            ),
            Some(unknown),
        ) => unknown.into(),
        (error, _) => error,
    }
}

fn target_of(view: &View, name: &GroupName) -> Option<(GroupState, Target)> {
    let entry = view.state.groups().get(name)?;
    Some((entry.state, Target::new(entry.id, &entry.config)))
}

pub(crate) fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
