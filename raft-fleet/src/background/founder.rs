//! Founds the groups that the cluster state gives this node to found. The adjuster then adds the other members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rafted_value::env::{MonoTime, timeout};
use rafted_value::{Found, GroupError, GroupId, Host, Keepsake};

use crate::cluster_state::{ClusterCommand, GroupState};
use crate::core::Core;
use crate::group_name::GroupName;
use crate::keepsakes;
use crate::view::View;

/// What became of the groups that this node was to found.
#[derive(Default)]
struct Done {
    founded: BTreeSet<GroupId>,
    /// Those that are fenced here, and since when.
    fenced: BTreeMap<GroupId, MonoTime>,
    /// When it was last looked whether those that were founded still work.
    looked: MonoTime,
}

pub(crate) async fn run(core: Arc<Core>) {
    let mut done = Done::default();
    loop {
        let view = core.views.current();
        found_all(&core, &view, &mut done).await;
        // What could not be founded is tried again even if the view does not change.
        let newer = core.views.newer_than(view.state.revision());
        let _ = timeout(core.env.as_ref(), core.config.balancing_interval, newer).await;
    }
}

/// What a removed group of this name had left on this node, where the new one is to begin with it.
async fn kept_for(
    core: &Core,
    view: &View,
    name: &GroupName,
    id: GroupId,
) -> Result<Option<Keepsake>, String> {
    let Some(kept) = view.state.kept().get(name).filter(|kept| kept.restored_as == Some(id)) else {
        return Ok(None);
    };
    if !kept.holders.contains_key(&core.node) {
        return Ok(None);
    }
    let keepsake = keepsakes::load(&core.env, kept.group).await?;
    keepsake.map(Some).ok_or_else(|| format!("nothing is left of group {} here", kept.group))
}

/// The groups that were founded here, are still to be, and whose member is fenced by now. One look at all members, once an
/// interval and only while there are such groups: the view may change many times in that time.
async fn look_for_lost(core: &Core, host: &Host, view: &View, done: &mut Done) -> BTreeSet<GroupId> {
    let founding = GroupState::Founding { founder: core.node };
    let waiting = view.state.groups().values().filter(|entry| entry.state == founding);
    let waiting: BTreeSet<GroupId> =
        waiting.map(|entry| entry.id).filter(|id| done.founded.contains(id)).collect();
    let now = core.env.now();
    if waiting.is_empty() || now.since(done.looked) < core.config.balancing_interval {
        return BTreeSet::new();
    }
    done.looked = now;
    let fenced = host.statuses().await.into_iter().filter(|status| status.fenced.is_some());
    fenced.map(|status| status.group).filter(|group| waiting.contains(group)).collect()
}

async fn found_all(core: &Core, view: &View, done: &mut Done) {
    let Some(host) = core.host.get() else { return };
    done.founded.retain(|group| view.lists(*group));
    done.fenced.retain(|group, _| view.lists(*group));
    let lost = look_for_lost(core, host, view, done).await;
    let Done { founded, fenced, .. } = done;
    for (name, entry) in view.state.groups() {
        let mine = entry.state == GroupState::Founding { founder: core.node };
        if !mine {
            continue;
        }
        if founded.contains(&entry.id) {
            // Until its other members are there, it depends on the one that was made here.
            if lost.contains(&entry.id) {
                tracing::error!(group = %entry.id, %name, "a group that was founded here is fenced before it is used");
                give_up_in_time(core, name, entry.id, fenced).await;
            }
            continue;
        }
        let (data, config, nodes) = (entry.data.clone(), entry.config.clone(), vec![core.node]);
        let found = Found { group: entry.id, data, config, nodes };
        let result = match kept_for(core, view, name, entry.id).await {
            Ok(None) => host.found(found).await,
            Ok(Some(keepsake)) => host.found_with(found, keepsake).await,
            Err(reason) => {
                tracing::error!(
                    group = %entry.id, %name, reason,
                    "a group waits for what one of its name had left; delete it to begin without"
                );
                continue;
            }
        };
        match result {
            Ok(_) | Err(GroupError::AlreadyExists(_)) => {
                tracing::info!(group = %entry.id, %name, "founded a group");
                founded.insert(entry.id);
            }
            Err(error @ (GroupError::NoSuchData(_) | GroupError::InvalidConfig(_))) => {
                // It would never come to be. Nobody has used it, so nothing is lost.
                tracing::error!(group = %entry.id, %name, %error, "a group that cannot be founded is removed");
                if let Some(member) = &core.member {
                    member.note_not_founded(entry.id, error.to_string());
                }
                give_up(core, name, entry.id, true).await;
            }
            Err(error @ GroupError::Fenced { .. }) => {
                tracing::error!(group = %entry.id, %name, %error, "a group cannot be founded here");
                give_up_in_time(core, name, entry.id, fenced).await;
            }
            Err(error) => tracing::warn!(group = %entry.id, %name, %error, "a group is not founded yet"),
        }
    }
}

/// Has another node found a group that this one cannot; not at once: where no node can, it should not go round in circles at
/// the speed of the network.
async fn give_up_in_time(
    core: &Core,
    name: &GroupName,
    id: GroupId,
    fenced: &mut BTreeMap<GroupId, MonoTime>,
) {
    let now = core.env.now();
    let since = *fenced.entry(id).or_insert(now);
    if now.since(since) >= core.config.balancing_interval {
        give_up(core, name, id, false).await;
    }
}

/// By its id: another group may have this name, and be in use, before the cluster hears of it.
async fn give_up(core: &Core, name: &GroupName, id: GroupId, for_good: bool) {
    let give_up = ClusterCommand::GiveUpFounding { name: name.clone(), id, node: core.node, for_good };
    if let Err(error) = core.change_cluster(&give_up, &core.config.call).await {
        tracing::warn!(%name, %error, "the cluster does not know yet that a group cannot be founded here");
    }
}
