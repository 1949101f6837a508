//! What this node knows of the cluster state, and how it keeps up with it.
//!
//! Everybody reads a view that may be a little old; nothing unsafe follows from that, because whatever is done to a
//! group goes through its leader, and whatever is done to the cluster through the cluster group. A view only ever
//! moves forward.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use rafted_value::env::Env;
use rafted_value::{GroupId, NodeId};
use tokio::sync::Notify;

use crate::cluster_state::{ClusterState, FIRST_GROUP};
use crate::group_name::GroupName;

/// One state of the cluster, with an index.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) state: Arc<ClusterState>,
    names: BTreeMap<GroupId, GroupName>,
}

impl View {
    fn new(state: ClusterState) -> Self {
        let names = state.groups().iter().map(|(name, entry)| (entry.id, name.clone())).collect();
        Self { state: Arc::new(state), names }
    }

    /// The name of a listed group.
    pub(crate) fn name_of(&self, group: GroupId) -> Option<&GroupName> {
        self.names.get(&group)
    }

    /// Whether a group is listed; the fleet's own always are.
    pub(crate) fn lists(&self, group: GroupId) -> bool {
        group < FIRST_GROUP || self.names.contains_key(&group)
    }

    /// Where the members of a listed group should be.
    pub(crate) fn desired(&self, group: GroupId) -> Option<Vec<NodeId>> {
        if group == crate::cluster_state::CLUSTER_GROUP {
            return self.state.cluster().map(|_| self.state.desired_of_cluster_group());
        }
        let name = self.names.get(&group)?;
        let entry = self.state.groups().get(name)?;
        Some(self.state.desired(name, entry.replicas))
    }
}

/// The newest view of a node, and who waits for a newer one.
pub(crate) struct Views {
    current: RwLock<Arc<View>>,
    /// Woken with each newer view. Not a `watch` channel: that one wakes its receivers in an order drawn from a random
    /// source of its own.
    changed: Notify,
    wake: Notify,
    waiting: AtomicUsize,
    /// Nodes to ask while the view lists none.
    contacts: RwLock<Vec<NodeId>>,
    /// The same as an earlier life of this node knew them.
    remembered: RwLock<Vec<NodeId>>,
}

impl Views {
    pub(crate) fn new() -> Self {
        Self {
            current: RwLock::new(Arc::new(View::default())),
            changed: Notify::new(),
            wake: Notify::new(),
            waiting: AtomicUsize::new(0),
            contacts: RwLock::new(Vec::new()),
            remembered: RwLock::new(Vec::new()),
        }
    }

    /// The newest view.
    pub(crate) fn current(&self) -> Arc<View> {
        self.current.read().clone()
    }

    /// Completes with a view that is newer than this revision.
    pub(crate) async fn newer_than(&self, revision: u64) -> Arc<View> {
        loop {
            // Made before the view is looked at, it misses no change after.
            let changed = self.changed.notified();
            let view = self.current();
            if view.state.revision() > revision {
                return view;
            }
            changed.await;
        }
    }

    /// Takes in a state, unless a newer one is known; says whether it did.
    pub(crate) fn learn(&self, env: &dyn Env, state: ClusterState) -> bool {
        let revision = state.revision();
        let fresh = Arc::new(View::new(state));
        let former = {
            let mut current = self.current.write();
            let known = current.state.cluster();
            if fresh.state.cluster().is_none() || revision <= current.state.revision() {
                return false;
            }
            if known.is_some() && known != fresh.state.cluster() {
                let (ours, theirs) = (known, fresh.state.cluster());
                tracing::warn!(?ours, ?theirs, "a state of another cluster is ignored");
                return false;
            }
            std::mem::replace(&mut *current, fresh.clone())
        };
        let me = env.transport().local().node;
        for (node, entry) in fresh.state.nodes().iter().filter(|(node, _)| **node != me) {
            if former.state.nodes().get(node).is_none_or(|before| before.address != entry.address) {
                env.transport().set_address(*node, &entry.address);
            }
        }
        self.changed.notify_waiters();
        true
    }

    /// Nodes to ask, the likely members of the cluster group first, this node not among them.
    pub(crate) fn sources(&self, me: NodeId) -> Vec<NodeId> {
        let view = self.current();
        let mut seen = BTreeSet::from([me]);
        let mut nodes = view.state.desired_of_cluster_group();
        nodes.extend(view.state.nodes().keys());
        nodes.extend(self.contacts());
        nodes.retain(|node| seen.insert(*node));
        nodes
    }

    /// Nodes that know the cluster, to be asked as long as the view lists none.
    pub(crate) fn set_contacts(&self, contacts: Vec<NodeId>) {
        *self.contacts.write() = contacts;
    }

    /// Nodes that an earlier life of this node knew.
    pub(crate) fn remember_contacts(&self, contacts: Vec<NodeId>) {
        *self.remembered.write() = contacts;
    }

    /// The nodes that were contacted first, and those of an earlier life.
    pub(crate) fn contacts(&self) -> Vec<NodeId> {
        let mut contacts = self.contacts.read().clone();
        contacts.extend(self.remembered.read().iter());
        contacts
    }

    /// Has the view refreshed soon.
    pub(crate) fn refresh_soon(&self) {
        self.wake.notify_one();
    }

    /// Completes when somebody wants a refresh.
    pub(crate) async fn wanted(&self) {
        self.wake.notified().await;
    }

    /// Whether somebody waits for a newer view.
    pub(crate) fn is_urgent(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Has the view refreshed often until the guard is dropped.
    pub(crate) fn urge(&self) -> Urgency<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.refresh_soon();
        Urgency(self)
    }
}

/// While it lives, the view is refreshed often.
pub(crate) struct Urgency<'a>(&'a Views);

impl Drop for Urgency<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
