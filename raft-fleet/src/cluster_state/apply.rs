//! What each command does to the cluster state.

use std::collections::BTreeSet;

use rafted_value::transport::ClusterId;
use rafted_value::{GroupConfig, GroupId, NodeId};

use super::command::{ClusterCommand, ClusterRefusal, ClusterReply};
use super::{ClusterState, GROUPS_MAX, GroupEntry, GroupState, NODES_MAX, PINS_MAX, RemovedGroup, Suspicion};
use crate::group_name::{GroupName, check_name, check_word};
use crate::life::Life;
use crate::node_info::NodeInfo;
use crate::placement::WEIGHT_MAX;

/// Lives that are remembered: those of as many nodes as can be listed, and of as many that are gone.
const LIVES_MAX: usize = 2 * NODES_MAX;

impl ClusterState {
    /// Applies one command in stamped time; the revision grows if it changes anything.
    pub(super) fn apply(&mut self, now_ms: u64, command: ClusterCommand) -> ClusterReply {
        let done = match command {
            ClusterCommand::Form { cluster, nodes, cluster_members_max } => {
                self.form(cluster, nodes, cluster_members_max)
            }
            ClusterCommand::Join { node, cluster } => self.join(node, cluster),
            ClusterCommand::Leave { node } => self.leave(node),
            ClusterCommand::Purge { node, by } => self.purge(node, by),
            ClusterCommand::AddGroup { name, data, replicas, config } => {
                self.add_group(name, data, replicas, config, BTreeSet::new())
            }
            ClusterCommand::RemoveGroup { name } => self.remove_group(name),
            ClusterCommand::GroupReady { name, id } => self.group_ready(name, id),
            ClusterCommand::CleanedUp { node, groups } => self.cleaned_up(node, &groups),
            ClusterCommand::Activate { node, cluster } => self.activate(node, cluster),
            ClusterCommand::Suspect { node, by, silent_ms } => self.suspect(now_ms, node, by, silent_ms),
            ClusterCommand::Hear { node, by } => self.hear(node, by),
            ClusterCommand::PurgeSilent { node, by, window_ms } => {
                self.purge_silent(now_ms, node, by, window_ms)
            }
            ClusterCommand::Weigh { node, weight } => self.weigh(node, weight),
            ClusterCommand::Pin { name, zones } => self.pin(name, zones),
            ClusterCommand::AddPinnedGroup { name, data, replicas, config, zones } => {
                self.add_group(name, data, replicas, config, zones)
            }
            ClusterCommand::Keep { node, group, rank } => self.keep(node, group, rank),
            ClusterCommand::DeleteGroup { name } => self.delete_group(name),
            ClusterCommand::JoinInLife { node, cluster, from, life } => {
                self.join_in_life(node, cluster, from, life)
            }
            ClusterCommand::GiveUpFounding { name, id, node, for_good } => {
                self.give_up_founding(name, id, node, for_good)
            }
        };
        match done {
            Ok(Change::None(reply)) => reply,
            Ok(Change::Some(reply)) => {
                self.revision += 1;
                reply
            }
            Err(refusal) => ClusterReply::Refused(refusal),
        }
    }

    fn form(&mut self, cluster: ClusterId, nodes: Vec<NodeInfo>, members_max: u32) -> Applied {
        match self.cluster {
            Some(formed) if formed == cluster => return Ok(Change::None(ClusterReply::Done)),
            Some(formed) => return Err(ClusterRefusal::OtherCluster { cluster: formed, asked: cluster }),
            None => (),
        }
        if nodes.len() > NODES_MAX {
            return Err(ClusterRefusal::TooManyNodes);
        }
        nodes.iter().try_for_each(NodeInfo::validate).map_err(ClusterRefusal::Name)?;
        self.cluster = Some(cluster);
        self.cluster_members_max = members_max.max(1);
        self.nodes = nodes.into_iter().map(<_>::from).collect();
        Ok(Change::Some(ClusterReply::Done))
    }

    /// Only one process can hold an address, so a node that joins under the name and the address of another is the
    /// next life of it, and the former is gone for sure.
    fn join(&mut self, info: NodeInfo, asked: ClusterId) -> Applied {
        let cluster = self.cluster.ok_or(ClusterRefusal::NotFormed)?;
        if cluster != asked {
            return Err(ClusterRefusal::OtherCluster { cluster, asked });
        }
        info.validate().map_err(ClusterRefusal::Name)?;
        let mut superseded = None;
        for (node, entry) in self.nodes.iter().filter(|(node, _)| **node != info.node) {
            let NodeInfo { name, address, .. } = &info;
            let (name, address) = (name.clone(), address.clone());
            match (entry.name == name, entry.address == address) {
                (true, true) => superseded = Some(*node),
                (true, false) => {
                    let address = entry.address.clone();
                    return Err(ClusterRefusal::DuplicateName { name, node: *node, address });
                }
                (false, true) => {
                    let name = entry.name.clone();
                    return Err(ClusterRefusal::DuplicateAddress { address, node: *node, name });
                }
                (false, false) => (),
            }
        }
        if superseded.is_none() && !self.nodes.contains_key(&info.node) && self.nodes.len() >= NODES_MAX {
            return Err(ClusterRefusal::TooManyNodes);
        }
        let (node, entry) = info.into();
        let known = self.nodes.get(&node) == Some(&entry) && superseded.is_none();
        if known && !self.suspects.contains_key(&node) {
            return Ok(Change::None(ClusterReply::Joined { superseded: None }));
        }
        if let Some(former) = superseded {
            self.forget_node(former);
            // What it kept went with it.
            self.kept.values_mut().for_each(|kept| _ = kept.holders.remove(&former));
            self.forget_the_empty();
            self.found_unfinished_again();
        }
        if let Some(former) = self.nodes.get(&node).filter(|former| former.name != entry.name) {
            self.weights.remove(&former.name);
        }
        self.suspects.remove(&node);
        self.nodes.insert(node, entry);
        self.found_orphans_again();
        Ok(Change::Some(ClusterReply::Joined { superseded }))
    }

    fn join_in_life(
        &mut self,
        info: NodeInfo,
        cluster: ClusterId,
        from: Option<Life>,
        life: Life,
    ) -> Applied {
        let node = info.node;
        let known = self.lives.get(&node).copied();
        if !life.follows(known, from) {
            let known = known.map_or(0, |known| known.number);
            return Err(ClusterRefusal::OtherLife { node, asked: life.number, known });
        }
        let joined = self.join(info, cluster)?;
        if self.lives.insert(node, life) == Some(life) {
            return Ok(joined);
        }
        if self.lives.len() > LIVES_MAX {
            let gone = self.lives.keys().find(|node| !self.nodes.contains_key(node)).copied();
            self.lives.remove(&gone.expect("fewer nodes than this are listed"));
        }
        if known.is_some() {
            // What it had founded, or was to vote in, may have gone with its former process.
            self.found_unfinished_again();
        }
        let (Change::None(reply) | Change::Some(reply)) = joined;
        Ok(Change::Some(reply))
    }

    fn leave(&mut self, node: NodeId) -> Applied {
        let entry = self.nodes.get_mut(&node).ok_or(ClusterRefusal::NoSuchNode(node))?;
        if !entry.active {
            return Err(ClusterRefusal::Inactive(node));
        }
        entry.active = false;
        self.found_orphans_again();
        Ok(Change::Some(ClusterReply::Done))
    }

    fn activate(&mut self, info: NodeInfo, cluster: ClusterId) -> Applied {
        if self.nodes.get(&info.node).is_some_and(|entry| entry.active) {
            return Err(ClusterRefusal::NotInactive(info.node));
        }
        self.join(info, cluster)
    }

    fn purge(&mut self, node: NodeId, by: NodeId) -> Applied {
        self.check_listed([by, node])?;
        let entry = self.nodes.get(&node).expect("it was looked for above");
        self.weights.remove(&entry.name);
        self.forget_node(node);
        self.found_unfinished_again();
        Ok(Change::Some(ClusterReply::Done))
    }

    /// Of two nodes that do not hear each other, the one that reaches the cluster group first is believed, and the other
    /// cannot accuse it: whoever is suspected must be heard of first.
    fn suspect(&mut self, now_ms: u64, node: NodeId, by: NodeId, silent_ms: u64) -> Applied {
        self.check_listed([by, node])?;
        if by == node || self.suspects.contains_key(&by) {
            return Err(ClusterRefusal::Suspected(by));
        }
        if self.suspects.contains_key(&node) {
            return Ok(Change::None(ClusterReply::Done));
        }
        self.suspects.insert(node, Suspicion { by, since_ms: now_ms.saturating_sub(silent_ms) });
        self.found_again(self.foundable_without(node));
        Ok(Change::Some(ClusterReply::Done))
    }

    fn hear(&mut self, node: NodeId, by: NodeId) -> Applied {
        self.check_listed([by, node])?;
        if by != node && self.suspects.contains_key(&by) {
            return Err(ClusterRefusal::Suspected(by));
        }
        let suspected = self.suspects.remove(&node).is_some();
        Ok(if suspected { Change::Some(ClusterReply::Done) } else { Change::None(ClusterReply::Done) })
    }

    fn purge_silent(&mut self, now_ms: u64, node: NodeId, by: NodeId, window_ms: u64) -> Applied {
        self.check_listed([by, node])?;
        if by == node || self.suspects.contains_key(&by) {
            return Err(ClusterRefusal::Suspected(by));
        }
        let since_ms = self.suspects.get(&node).map_or(now_ms, |suspicion| suspicion.since_ms);
        let silent_ms = now_ms.saturating_sub(since_ms);
        if silent_ms < window_ms || !self.suspects.contains_key(&node) {
            return Err(ClusterRefusal::NotSilent { node, silent_ms, window_ms });
        }
        self.purge(node, by)
    }

    fn weigh(&mut self, node: NodeId, weight: u32) -> Applied {
        if weight == 0 || weight > WEIGHT_MAX {
            return Err(ClusterRefusal::Weight(weight));
        }
        let entry = self.nodes.get(&node).ok_or(ClusterRefusal::NoSuchNode(node))?;
        let before = match weight {
            1 => self.weights.remove(&entry.name),
            weight => self.weights.insert(entry.name.clone(), weight),
        };
        let changed = before.unwrap_or(1) != weight;
        Ok(if changed { Change::Some(ClusterReply::Done) } else { Change::None(ClusterReply::Done) })
    }

    fn pin(&mut self, name: GroupName, zones: BTreeSet<String>) -> Applied {
        if !self.groups.contains_key(&name) {
            return Err(ClusterRefusal::NoSuchGroup(name));
        }
        check_zones(&zones)?;
        if self.pins.get(&name).map_or(zones.is_empty(), |before| *before == zones) {
            return Ok(Change::None(ClusterReply::Done));
        }
        self.check_room(self.pin_more_bytes(&name, &zones))?;
        self.set_pin(&name, zones);
        // One that waited for a node of its zones may have some now.
        self.found_orphans_again();
        Ok(Change::Some(ClusterReply::Done))
    }

    fn set_pin(&mut self, name: &GroupName, zones: BTreeSet<String>) {
        if zones.is_empty() {
            self.pins.remove(name);
        } else {
            self.pins.insert(name.clone(), zones);
        }
    }

    fn check_listed(&self, nodes: [NodeId; 2]) -> Result<(), ClusterRefusal> {
        let unknown = nodes.into_iter().find(|node| !self.nodes.contains_key(node));
        unknown.map_or(Ok(()), |node| Err(ClusterRefusal::NoSuchNode(node)))
    }

    fn add_group(
        &mut self,
        name: GroupName,
        data: String,
        replicas: u32,
        config: GroupConfig,
        zones: BTreeSet<String>,
    ) -> Applied {
        if self.cluster.is_none() {
            return Err(ClusterRefusal::NotFormed);
        }
        if self.groups.contains_key(&name) {
            return Err(ClusterRefusal::AlreadyAdded(name));
        }
        if replicas == 0 {
            return Err(ClusterRefusal::Replicas(replicas));
        }
        check_name("name of the data type", &data).map_err(ClusterRefusal::Name)?;
        if let Some(removed) = self.removed.values().find(|removed| removed.name == name) {
            let pending = u32::try_from(removed.pending.len()).unwrap_or(u32::MAX);
            return Err(ClusterRefusal::CleanupOngoing { name, pending });
        }
        if self.groups.len() + self.removed.len() + self.kept.len() >= GROUPS_MAX {
            return Err(ClusterRefusal::TooManyGroups);
        }
        check_zones(&zones)?;
        self.check_room(self.group_bytes(&name, &data, replicas, &config, Some(&zones)))?;
        self.set_pin(&name, zones);
        let founder = self.founder(&name, &data).inspect_err(|_| _ = self.pins.remove(&name))?;
        let id = self.new_id(&name);
        let state = GroupState::Founding { founder };
        self.groups.insert(name, GroupEntry { id, data, replicas, config, state });
        Ok(Change::Some(ClusterReply::GroupAdded { id, founder }))
    }

    pub(super) fn remove_group(&mut self, name: GroupName) -> Applied {
        let entry = self.groups.get(&name).ok_or_else(|| ClusterRefusal::NoSuchGroup(name.clone()))?;
        self.check_room_to_remove(&name, entry)?;
        let entry = self.groups.remove(&name).expect("it was looked for above");
        self.pins.remove(&name);
        self.leave_behind(&name, &entry);
        // Without nodes there is nobody who could have members to clean up.
        if !self.nodes.is_empty() {
            let pending = self.nodes.keys().copied().collect();
            self.removed.insert(entry.id, RemovedGroup { name, pending });
        }
        Ok(Change::Some(ClusterReply::GroupRemoved { id: entry.id }))
    }

    fn group_ready(&mut self, name: GroupName, id: GroupId) -> Applied {
        let entry = self.groups.get_mut(&name).filter(|entry| entry.id == id);
        let entry = entry.ok_or(ClusterRefusal::NoSuchGroup(name))?;
        if entry.state == GroupState::Running {
            return Ok(Change::None(ClusterReply::Done));
        }
        entry.state = GroupState::Running;
        self.kept.retain(|_, kept| kept.restored_as != Some(id));
        Ok(Change::Some(ClusterReply::Done))
    }

    fn give_up_founding(&mut self, name: GroupName, id: GroupId, node: NodeId, for_good: bool) -> Applied {
        let founder = GroupState::Founding { founder: node };
        if self.groups.get(&name).is_none_or(|entry| entry.id != id || entry.state != founder) {
            return Err(ClusterRefusal::NoSuchGroup(name));
        }
        if for_good {
            return self.remove_group(name);
        }
        if self.kept.get(&name).is_some_and(|kept| kept.restored_as == Some(id)) {
            // What it is to begin with is there.
            return Ok(Change::None(ClusterReply::Done));
        }
        let ranked = self.desired(&name, self.nodes.len() as u32);
        let other = ranked.into_iter().find(|other| *other != node && !self.suspects.contains_key(other));
        self.give_to(&name, other.ok_or(ClusterRefusal::NoActiveNode)?);
        Ok(Change::Some(ClusterReply::Done))
    }

    fn cleaned_up(&mut self, node: NodeId, groups: &[GroupId]) -> Applied {
        let mut changed = false;
        for group in groups {
            if let Some(removed) = self.removed.get_mut(group) {
                changed |= removed.pending.remove(&node);
            }
        }
        self.removed.retain(|_, removed| !removed.pending.is_empty());
        self.forget_the_empty();
        Ok(if changed { Change::Some(ClusterReply::Done) } else { Change::None(ClusterReply::Done) })
    }

    fn forget_node(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        self.suspects.remove(&node);
        self.removed.retain(|_, removed| {
            removed.pending.remove(&node);
            !removed.pending.is_empty()
        });
        self.forget_the_empty();
    }

    /// A group whose founder is gone before any client could use it starts anew under another id, so that whatever the
    /// former founder still does under the old id is nobody's business. Without any active node it waits.
    pub(super) fn found_orphans_again(&mut self) {
        let nodes = &self.nodes;
        let is_gone = |founder: NodeId| !nodes.get(&founder).is_some_and(|node| node.active);
        self.found_again(self.unfinished(is_gone));
    }

    /// The same for every group that no client could use yet, once a node has gone for good: it may have been the second
    /// of two voters, so that what its founder has made so far could never elect a leader again.
    fn found_unfinished_again(&mut self) {
        self.found_again(self.unfinished(|_| true));
    }

    /// The groups that a node is to found and another could: whoever waits for them need not wait until it is purged.
    fn foundable_without(&self, node: NodeId) -> Vec<GroupName> {
        let mut groups = self.unfinished(|founder| founder == node);
        groups
            .retain(|name| self.founder(name, &self.groups[name].data).is_ok_and(|founder| founder != node));
        groups
    }

    /// The groups that are being founded by such a founder.
    fn unfinished(&self, by: impl Fn(NodeId) -> bool) -> Vec<GroupName> {
        let unfinished = self.groups.iter().filter(|(_, entry)| match entry.state {
            GroupState::Founding { founder } => by(founder),
            GroupState::Running => false,
        });
        unfinished.map(|(name, _)| name.clone()).collect()
    }

    fn found_again(&mut self, names: Vec<GroupName>) {
        for name in names {
            let data = self.groups[&name].data.clone();
            // One that is to begin with what another has left waits for whoever keeps that.
            if let Ok(founder) = self.founder(&name, &data) {
                self.give_to(&name, founder);
            }
        }
    }

    /// Another node founds a group that is listed, under another id.
    fn give_to(&mut self, name: &GroupName, founder: NodeId) {
        let id = self.new_id(name);
        let entry = self.groups.get_mut(name).expect("the name was taken from the table");
        (entry.id, entry.state) = (id, GroupState::Founding { founder });
    }

    /// Who founds a group of this name: the node that keeps the newest of what one of its name has left; else the one that
    /// placement prefers of those that answer, and of all where none does.
    fn founder(&self, name: &GroupName, data: &str) -> Result<NodeId, ClusterRefusal> {
        if let Some(restorer) = self.restorer(name, data)? {
            return Ok(restorer);
        }
        let ranked = self.desired(name, self.nodes.len() as u32);
        let answering = ranked.iter().find(|node| !self.suspects.contains_key(node));
        answering.or(ranked.first()).copied().ok_or(ClusterRefusal::NoActiveNode)
    }

    /// A new id for the group of this name.
    fn new_id(&mut self, name: &GroupName) -> GroupId {
        let id = GroupId(self.next_group);
        self.next_group += 1;
        if let Some(kept) = self.kept.get_mut(name) {
            kept.restored_as = Some(id);
        }
        id
    }
}

fn check_zones(zones: &BTreeSet<String>) -> Result<(), ClusterRefusal> {
    if zones.len() > PINS_MAX {
        return Err(ClusterRefusal::TooManyZones(zones.len()));
    }
    zones.iter().try_for_each(|zone| check_word("zone", zone)).map_err(ClusterRefusal::Name)
}

pub(super) enum Change {
    None(ClusterReply),
    Some(ClusterReply),
}

pub(super) type Applied = Result<Change, ClusterRefusal>;
