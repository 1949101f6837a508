//! Reports groups that do not work. It only ever speaks: a group whose members all look dead keeps its entry and its
//! bytes, because they may come back, and a person decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rafted_value::GroupId;
use rafted_value::env::MonoTime;

use crate::cluster_state::GroupState;
use crate::core::Core;

/// A group that had no leader for this long is reported, and again after each time as long.
const LEADERLESS_MAX: Duration = Duration::from_secs(10);

/// How often the groups are looked at; on a node with thousands that is not free.
const INTERVAL: Duration = Duration::from_secs(5);

pub(crate) async fn run(core: Arc<Core>) {
    let mut since = BTreeMap::<GroupId, MonoTime>::new();
    loop {
        core.env.sleep_until(core.jittered(INTERVAL)).await;
        report(&core, &mut since).await;
    }
}

/// Looks after the groups whose preferred leader this node is, and after its own members that failed.
async fn report(core: &Core, since: &mut BTreeMap<GroupId, MonoTime>) {
    let Some(host) = core.host.get() else { return };
    let view = core.views.current();
    let now = core.env.now();
    let statuses: BTreeMap<GroupId, _> =
        host.statuses().await.into_iter().map(|status| (status.group, status)).collect();
    let mut leaderless = BTreeMap::new();
    for (name, entry) in view.state.groups() {
        let status = statuses.get(&entry.id);
        let led = status.is_some_and(|status| status.leader.is_some() && status.fenced.is_none());
        let mine = view.state.desired(name, 1).first() == Some(&core.node);
        if entry.state != GroupState::Running || led || !mine {
            continue;
        }
        let at = *since.get(&entry.id).unwrap_or(&now);
        leaderless.insert(entry.id, at);
        if now.since(at) >= LEADERLESS_MAX {
            leaderless.insert(entry.id, now);
            let fenced = status.and_then(|status| status.fenced.as_deref()).unwrap_or("");
            let member = status.is_some();
            tracing::error!(
                group = %entry.id, %name, member, fenced, waited = ?now.since(at),
                "a group has no leader as far as its preferred node knows; its entry and its members are kept"
            );
            metrics::counter!("raft_fleet_leaderless_reports_total").increment(1);
        }
    }
    *since = leaderless;
}
