//! Keeps the groups at their size: adds members where some are missing, removes dead and surplus ones, one step at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rafted_value::sim::{SimEnv, SimRng};
use rafted_value::{GroupError, GroupId, Host, MemberId, MemberStatus, NodeId};

use super::cluster::{Cluster, voters_of};
use super::invariants::Sighting;
use super::plan::{DiskPlan, GroupPlan};
use super::quorum::{Memberships, VoterChange, has_majority};
use super::storage::End;
use crate::sim::tally::Tally;

/// One step of a group's membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Add(NodeId),
    Promote(MemberId),
    Remove(MemberId),
}

impl Step {
    /// Whether it is in force as far as this member knows.
    fn is_known_to(self, view: &Sighting) -> bool {
        match self {
            Step::Add(_) => true,
            Step::Promote(member) => voters_of(view).contains(&member),
            Step::Remove(member) => !voters_of(view).contains(&member),
        }
    }
}

/// Looks after one group.
pub(super) struct Operator {
    group: u64,
    voters: usize,
    under_way: Option<UnderWay>,
    /// Steps that are not known to be in force or never to be.
    uncertain: Vec<Uncertain>,
    /// How long it takes at most until what all members know is on their disks.
    settling: Duration,
}

/// A step whose fate may be known to too few.
struct Uncertain {
    step: Step,
    /// The highest term known when it ended.
    term: u64,
    /// Since when all members know that it is in force.
    known: Option<Duration>,
}

/// A step that a leader's host was asked for.
struct UnderWay {
    step: Step,
    env: Arc<SimEnv>,
    answer: Arc<Mutex<Option<Result<(), GroupError>>>>,
}

impl Operator {
    /// The operator of a group.
    pub(super) fn new(group: &GroupPlan, disks: Option<&DiskPlan>) -> Self {
        let settling = disks.map_or(Duration::ZERO, |disks| 12 * disks.sync_max);
        Self { group: group.id, voters: group.voters, under_way: None, uncertain: Vec::new(), settling }
    }

    /// The group it looks after.
    pub(super) fn group(&self) -> u64 {
        self.group
    }

    /// Takes in what became of the last step, as of the newest look at the cluster.
    pub(super) fn follow_up(&mut self, cluster: &Cluster, tally: &mut Tally) {
        self.settle(cluster);
        let Some(under_way) = &self.under_way else { return };
        let answer = under_way.answer.lock().take();
        let answer = match answer {
            None if under_way.env.is_alive() => return,
            None => Err(GroupError::Unknown(GroupId(self.group))),
            Some(answer) => answer,
        };
        let step = under_way.step;
        self.under_way = None;
        match answer {
            Ok(()) => {
                // What is done is known to a quorum of the new voters, and survives whoever asked for it.
                tally.one(match step {
                    Step::Add(_) => "learners added",
                    Step::Promote(_) => "learners promoted",
                    Step::Remove(_) => "members removed",
                });
                return;
            }
            Err(GroupError::Unknown(_)) => tally.one("membership changes of unknown fate"),
            Err(_) => return,
        }
        let terms = cluster.views(self.group).map(|(_, sighting)| sighting.status.term);
        self.uncertain.push(Uncertain { step, term: terms.max().unwrap_or(u64::MAX), known: None });
    }

    /// Forgets steps that all members know to be in force. What a leader of a later term has not applied when it serves
    /// is overwritten for ever.
    fn settle(&mut self, cluster: &Cluster) {
        let Some((_, leader)) = cluster.leader(self.group) else { return };
        let members = &leader.status.members;
        let mut views = Vec::new();
        for (_, view) in cluster.views(self.group) {
            if members.iter().any(|member| member.member == view.status.member) {
                views.push(view);
            }
        }
        let (now, settling) = (cluster.sim.elapsed(), self.settling);
        self.uncertain.retain_mut(|of| {
            let overwritten = leader.status.term > of.term && !of.step.is_known_to(leader);
            let all_know = views.iter().all(|view| of.step.is_known_to(view));
            of.known = of.known.or(Some(now)).filter(|_| all_know);
            !overwritten && of.known.is_none_or(|since| now < since + settling)
        });
    }

    /// Every membership that may be in force.
    pub(super) fn memberships(&self, cluster: &Cluster) -> Memberships {
        let current: Option<BTreeSet<MemberId>> = cluster
            .leader(self.group)
            .map(|(_, leader)| leader.status.members.iter().map(|member| member.member).collect());
        let mut memberships = Memberships::default();
        let views = cluster.views(self.group).map(|(_, sighting)| sighting);
        for sighting in views.chain(cluster.asleep(self.group)) {
            // Who was removed and has not heard of it finds no votes any more.
            if current.as_ref().is_none_or(|members| members.contains(&sighting.status.member)) {
                memberships.add(voters_of(sighting));
            }
        }
        let steps = self.under_way.iter().map(|under_way| under_way.step);
        for step in steps.chain(self.uncertain.iter().map(|of| of.step)) {
            match step {
                Step::Add(_) => {}
                Step::Promote(member) => memberships.perhaps(VoterChange::Gain(member)),
                Step::Remove(member) => memberships.perhaps(VoterChange::Lose(member)),
            }
        }
        memberships
    }

    /// Takes one of the steps that bring the group to its size, or when `churn` is set, one that need not.
    pub(super) fn operate(&mut self, cluster: &Cluster, churn: bool, rng: &mut SimRng) -> Option<Step> {
        if self.under_way.is_some() {
            return None;
        }
        let (place, leader) = cluster.leader(self.group)?;
        let steps = self.possible_steps(cluster, leader, churn, rng);
        let step = *rng.pick(&steps)?;
        let life = cluster.places[place].life.as_ref()?;
        let answer = Arc::new(Mutex::new(None));
        let (host, group, slot) = (life.host.clone(), GroupId(self.group), answer.clone());
        drop(cluster.sim.spawn_on(&life.env, async move {
            let result = take(&host, group, step).await;
            *slot.lock() = Some(result);
        }));
        self.under_way = Some(UnderWay { step, env: life.env.clone(), answer });
        Some(step)
    }

    fn possible_steps(
        &self,
        cluster: &Cluster,
        leader: &Sighting,
        churn: bool,
        rng: &mut SimRng,
    ) -> Vec<Step> {
        let members = &leader.status.members;
        let mut present = BTreeSet::new();
        for member in members {
            // A node may have come back without its member; a new learner may only be late.
            let there = cluster.is_there(self.group, member.node, member.member);
            let late = !member.voter && cluster.place_of(member.node).is_some() && rng.chance(0.8);
            if there || late {
                present.insert(member.member);
            }
        }
        let lives = |member: &MemberStatus| present.contains(&member.member);
        let left = cluster.members_left(self.group, &[], End::Process);
        let voters = voters_of(leader);
        let safe = |change: VoterChange| has_majority(&change.apply(&voters), &left);
        let live_voters = members.iter().filter(|member| member.voter && lives(member)).count();
        let live_learners = members.iter().filter(|member| !member.voter && lives(member)).count();
        let mut steps = Vec::new();
        for member in members {
            let (id, alive) = (member.member, lives(member));
            let surplus = if member.voter {
                live_voters > self.voters
            } else {
                live_voters + live_learners > self.voters
            };
            if alive && !member.voter && (churn || live_voters < self.voters) && safe(VoterChange::Gain(id)) {
                steps.push(Step::Promote(id));
            }
            let unwanted = !alive || surplus || churn;
            let spared = id == leader.status.member || (member.voter && !safe(VoterChange::Lose(id)));
            if unwanted && !spared {
                steps.push(Step::Remove(id));
            }
        }
        if churn || live_voters + live_learners < self.voters {
            let nodes = cluster.lives().map(|life| life.env.node());
            let free = nodes.filter(|node| members.iter().all(|member| member.node != *node));
            steps.extend(free.map(Step::Add));
        }
        steps
    }

    /// Whether the group has exactly the members it should, all on living nodes.
    pub(super) fn is_content(&self, cluster: &Cluster) -> Result<(), String> {
        let (_, leader) = cluster.leader(self.group).ok_or("it has no leader that serves")?;
        let members = &leader.status.members;
        let there = |member: &MemberStatus| cluster.is_there(self.group, member.node, member.member);
        if self.under_way.is_some()
            || members.len() != self.voters
            || !members.iter().all(|member| member.voter && there(member))
        {
            return Err(format!("its members are {members:?}, with {:?} under way", self.step_under_way()));
        }
        Ok(())
    }

    /// Whether a step is under way.
    pub(super) fn is_at_work(&self) -> bool {
        self.under_way.is_some()
    }

    fn step_under_way(&self) -> Option<Step> {
        self.under_way.as_ref().map(|under_way| under_way.step)
    }
}

async fn take(host: &Host, group: GroupId, step: Step) -> Result<(), GroupError> {
    match step {
        Step::Add(node) => host.add_learner(group, node).await.map(drop),
        Step::Promote(member) => host.promote(group, member).await,
        Step::Remove(member) => host.remove_member(group, member).await.map(drop),
    }
}
