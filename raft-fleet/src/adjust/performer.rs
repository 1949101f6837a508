//! Carries the plan out: for the groups that are led here, step after step, many groups at once with a limit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rafted_value::env::{MonoTime, sleep, timeout};
use rafted_value::{GroupError, GroupId, GroupStatus, Host, NodeId, Role};

use super::lost::{find_lost, silent};
use super::plan::{Step, is_complete, is_loading, is_waiting, leads_away, plan, serves};
use crate::cluster_state::{ClusterCommand, ClusterReply, GroupState};
use crate::core::Core;
use crate::view::View;

/// The first wait of a group for a member to catch up; each further one is twice as long.
const CATCH_UP_POLL_MIN: Duration = Duration::from_millis(5);
/// ... up to this.
const CATCH_UP_POLL_MAX: Duration = Duration::from_millis(200);

/// The first wait for a group that this node is to found to serve; each further one is twice as long, up to
/// `balancing_interval`.
const FOUNDED_POLL_MIN: Duration = Duration::from_millis(5);

/// After a transfer of a leadership did not come to its end, the next one of that group waits: during a transfer
/// commands wait too.
const TRANSFER_PAUSE: Duration = Duration::from_secs(5);
/// The same where the leader's node is to be left.
const TRANSFER_PAUSE_AWAY: Duration = Duration::from_secs(1);

/// Brings the members of the groups led on this node to where they should be.
pub(crate) struct Performer {
    core: Arc<Core>,
    work: Arc<Mutex<Work>>,
}

#[derive(Default)]
struct Work {
    /// Groups that wait for a worker.
    queue: VecDeque<GroupId>,
    /// Groups that have one.
    busy: BTreeSet<GroupId>,
    workers: usize,
    /// Since when each group that is being founded has been led here.
    founding: BTreeMap<GroupId, MonoTime>,
    /// Until when the leaderships of these groups stay where they are.
    transfers_after: BTreeMap<GroupId, MonoTime>,
    /// Since when nothing is missing in these groups but their leadership at its preferred node.
    settled: BTreeMap<GroupId, MonoTime>,
    /// Groups that bring a member up to date.
    loading: BTreeSet<GroupId>,
}

impl Work {
    /// Whether a group may bring a member up to date now; it counts until that is done.
    fn admit(&mut self, group: GroupId, loading_max: usize) -> bool {
        if self.loading.len() >= loading_max && !self.loading.contains(&group) {
            return false;
        }
        self.loading.insert(group);
        true
    }
}

impl Performer {
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        Self { core: Arc::clone(core), work: Arc::default() }
    }

    /// Compares all groups led here with where they should be: now and then, and when the cluster state changes.
    pub(crate) async fn run(self) {
        let mut impatience = FOUNDED_POLL_MIN;
        loop {
            let view = self.core.views.current();
            let is_expecting = self.survey(&view).await;
            let mut wait = self.core.jittered(self.core.config.balancing_interval).since(self.core.env.now());
            if is_expecting {
                wait = wait.min(impatience);
                impatience = impatience.saturating_mul(2);
            } else {
                impatience = FOUNDED_POLL_MIN;
            }
            let newer = self.core.views.newer_than(view.state.revision());
            let _ = timeout(self.core.env.as_ref(), wait, newer).await;
        }
    }

    /// Queues what is due. Says whether a group that this node is to found does not serve yet: once it does, it wants its
    /// other members at once.
    async fn survey(&self, view: &View) -> bool {
        let Some(host) = self.core.host.get() else { return false };
        let statuses = host.statuses().await;
        let now = self.core.env.now();
        let mut work = self.work.lock();
        work.founding.retain(|group, _| is_founding(view, *group));
        work.transfers_after.retain(|_, after| now < *after);
        work.queue.clear();
        let mut settled = std::mem::take(&mut work.settled);
        // What a worker has begun is not seen yet.
        let Work { loading, busy, .. } = &mut *work;
        loading.retain(|group| busy.contains(group));
        let seen = statuses.iter().filter(|status| is_loading(status) && !is_founding(view, status.group));
        loading.extend(seen.map(|status| status.group));
        for status in statuses.iter().filter(|status| status.role == Role::Leader) {
            let group = status.group;
            if is_founding(view, group) {
                work.founding.entry(group).or_insert(now);
            }
            let Some(desired) = view.desired(group) else { continue };
            let silent = self.core.env.disk().is_some() && silent(status, &desired).next().is_some();
            let step = plan(status, &desired);
            let away = leads_away(status, &desired);
            // One that nobody may use yet does not wait for its leadership to go home.
            if !away && matches!(step, Some(Step::Transfer { .. })) && !is_founding(view, group) {
                let since = settled.remove(&group).unwrap_or(now);
                work.settled.insert(group, since);
                if now.since(since) < self.core.config.leader_home_wait {
                    continue;
                }
            }
            let due = silent || step.is_some() || is_waiting(status, &desired) || is_founding(view, group);
            if !due || work.busy.contains(&group) {
                continue;
            }
            // Whoever waits for a node to be left waits for its leaders first.
            if away {
                work.queue.push_front(group);
            } else {
                work.queue.push_back(group);
            }
        }
        let workers = self.core.config.adjustments_max.min(work.workers + work.queue.len());
        for _ in work.workers..workers {
            work.workers += 1;
            let worker = Worker { core: Arc::clone(&self.core), work: Arc::clone(&self.work), group: None };
            self.core.env.spawn("fleet adjustment", Box::pin(worker.run()));
        }
        let mine = GroupState::Founding { founder: self.core.node };
        let founding = view.state.groups().values().filter(|entry| entry.state == mine);
        let mut expected: BTreeSet<GroupId> = founding.map(|entry| entry.id).collect();
        for status in statuses.iter().filter(|status| serves(status)) {
            expected.remove(&status.group);
        }
        !expected.is_empty()
    }
}

/// Takes group after group from the queue until it is empty.
struct Worker {
    core: Arc<Core>,
    work: Arc<Mutex<Work>>,
    group: Option<GroupId>,
}

impl Worker {
    async fn run(mut self) {
        while let Some(group) = self.take() {
            adjust(&self.core, &self.work, group).await;
        }
    }

    fn take(&mut self) -> Option<GroupId> {
        let mut work = self.work.lock();
        if let Some(group) = self.group.take() {
            work.busy.remove(&group);
        }
        if self.core.is_closed() {
            return None;
        }
        self.group = work.queue.pop_front();
        work.busy.extend(self.group);
        self.group
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut work = self.work.lock();
        work.workers -= 1;
        if let Some(group) = self.group.take() {
            work.busy.remove(&group);
        }
    }
}

/// Takes one group as far as it will go for now.
async fn adjust(core: &Arc<Core>, work: &Mutex<Work>, group: GroupId) {
    let Some(host) = core.host.get() else { return };
    let give_up = core.env.now() + core.config.adjustment_wait_max;
    let mut poll = CATCH_UP_POLL_MIN;
    loop {
        let Some(status) = host.status(group).await else { return };
        let view = core.views.current();
        let Some(desired) = view.desired(group) else { return };
        let step = match plan(&status, &desired) {
            Some(step) => Some(step),
            None => find_lost(core, &status, &desired).await,
        };
        if !is_loading(&status) {
            work.lock().loading.remove(&group);
        }
        let founding = is_founding(&view, group);
        let is_there = matches!(step, None | Some(Step::Transfer { .. })) && !leads_away(&status, &desired);
        if founding && is_there && may_run(core, work, &status, &desired) {
            return announce(core, &view, group).await;
        }
        let progress = match step {
            Some(Step::AddLearner { .. })
                if !founding && !work.lock().admit(group, core.config.snapshots_max) =>
            {
                false
            }
            Some(step @ Step::Transfer { .. }) => {
                return transfer(core, work, host, &status, &desired, step).await;
            }
            Some(step) => perform(core, host, group, step).await,
            None => {
                if !is_waiting_for_the_living(&status, &desired) {
                    return;
                }
                false
            }
        };
        if progress {
            poll = CATCH_UP_POLL_MIN;
            continue;
        }
        if core.env.now() >= give_up {
            return;
        }
        sleep(core.env.as_ref(), poll).await;
        poll = (poll * 2).min(CATCH_UP_POLL_MAX);
    }
}

/// A learner that is heard of will catch up; one that is not is looked at again in the next survey.
fn is_waiting_for_the_living(status: &GroupStatus, desired: &[NodeId]) -> bool {
    let heard = |node: NodeId| {
        let member = status.members.iter().find(|member| member.node == node);
        member.is_some_and(|member| !member.voter && member.responsive == Some(true))
    };
    status.role == Role::Leader && !is_complete(status, desired) && desired.iter().any(|node| heard(*node))
}

/// Hands a leadership over, unless that was just tried in vain, or may wait. Whatever comes of it, the rest is for the
/// next survey of whoever leads then.
async fn transfer(
    core: &Core,
    work: &Mutex<Work>,
    host: &Host,
    status: &GroupStatus,
    desired: &[NodeId],
    step: Step,
) {
    let group = status.group;
    let away = leads_away(status, desired);
    {
        let (work, now) = (work.lock(), core.env.now());
        let waits = work.transfers_after.get(&group).is_some_and(|after| now < *after);
        let settled = work.settled.get(&group);
        if waits || !(away || settled.is_some_and(|at| now.since(*at) >= core.config.leader_home_wait)) {
            return;
        }
    }
    if !perform(core, host, group, step).await {
        let pause = if away { TRANSFER_PAUSE_AWAY } else { TRANSFER_PAUSE };
        work.lock().transfers_after.insert(group, core.env.now() + pause);
    }
}

/// Takes a step; says whether the group has changed.
async fn perform(core: &Core, host: &Host, group: GroupId, step: Step) -> bool {
    tracing::debug!(%group, ?step, "a step of a group's membership");
    let limit = core.config.call.timeout;
    let change = async {
        match step {
            Step::AddLearner { node } => host.add_learner(group, node).await.map(drop),
            Step::Promote { member, .. } => host.promote(group, member).await,
            Step::Remove { member, .. } => host.remove_member(group, member).await.map(drop),
            Step::Transfer { member, .. } => host.replace_leader(group, Some(member)).await,
        }
    };
    match timeout(core.env.as_ref(), limit, change).await {
        Some(Ok(())) => {
            metrics::counter!("raft_fleet_membership_steps_total").increment(1);
            true
        }
        Some(Err(error @ (GroupError::NotCaughtUp { .. } | GroupError::ChangeInProgress(_)))) => {
            tracing::trace!(%group, ?step, %error, "a step has to wait");
            false
        }
        Some(Err(error)) => {
            tracing::info!(%group, ?step, %error, "a step of a group's membership was not taken");
            false
        }
        None => {
            tracing::info!(%group, ?step, ?limit, "a step of a group's membership takes too long");
            false
        }
    }
}

fn is_founding(view: &View, group: GroupId) -> bool {
    let entry = view.name_of(group).and_then(|name| view.state.groups().get(name));
    entry.is_some_and(|entry| matches!(entry.state, GroupState::Founding { .. }))
}

/// A new group may be used with all its voters, or, when nodes are away for long, with a majority of them.
fn may_run(core: &Core, work: &Mutex<Work>, status: &GroupStatus, desired: &[NodeId]) -> bool {
    if is_complete(status, desired) {
        return true;
    }
    let voters = status.members.iter().filter(|member| member.voter).count();
    let since = work.lock().founding.get(&status.group).copied();
    let waited = since.is_some_and(|since| core.env.now().since(since) >= core.config.founding_wait);
    waited && status.role == Role::Leader && status.ready && voters > desired.len() / 2
}

/// Tells the cluster that a group may be used.
async fn announce(core: &Core, view: &View, group: GroupId) {
    let Some(name) = view.name_of(group) else { return };
    let ready = ClusterCommand::GroupReady { name: name.clone(), id: group };
    match core.change_cluster(&ready, &core.config.call).await {
        Ok(ClusterReply::Refused(refusal)) => {
            tracing::info!(%group, %name, %refusal, "a group is not wanted any more");
        }
        Ok(_) => tracing::info!(%group, %name, "a group is ready"),
        Err(error) => {
            tracing::warn!(%group, %name, %error, "the cluster does not know yet that a group is ready");
        }
    }
}
