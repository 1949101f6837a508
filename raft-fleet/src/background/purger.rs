//! Asks every node whether it lives, and has the cluster purge one that has been silent for too long.
//!
//! Only the leader of the cluster group does so, and what it believes is part of the replicated state: a suspicion is
//! proposed first, everybody sees it, anybody who hears of the node can take it back, the node itself above all, and only
//! a suspicion that has stood for the failure window ends in a purge. So two observers never act against each other, and
//! the window does not begin anew with each new leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rafted_value::env::MonoTime;
use rafted_value::{NodeId, Role};

use crate::call::as_ms;
use crate::cluster_state::{CLUSTER_GROUP, ClusterCommand, ClusterReply};
use crate::core::Core;
use crate::wire::FleetRequest;

/// A node that has not answered for as long as so many pings is suspected.
const SUSPECT_PINGS: u32 = 3;

pub(crate) async fn run(core: Arc<Core>) {
    // It starts anew with each leadership: what a former leader heard is not known.
    let mut heard = Heard::default();
    loop {
        core.env.sleep_until(core.jittered(core.config.ping_interval)).await;
        if leads(&core).await {
            ping_all(&core, &mut heard).await;
            judge(&core, &mut heard).await;
        } else {
            heard.nodes.clear();
        }
    }
}

/// When each node was last heard of.
#[derive(Default)]
struct Heard {
    nodes: BTreeMap<NodeId, Since>,
}

#[derive(Clone, Copy)]
struct Since {
    at: MonoTime,
    silent: bool,
    /// Whether the cluster state lists it as a suspect.
    suspected: bool,
}

/// What is new about a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    None,
    /// It has stopped to answer.
    Silent,
    /// It answers again, after this time.
    Back(Duration),
}

impl Heard {
    /// Takes in whether a node has answered; news is told once.
    fn note(&mut self, node: NodeId, now: MonoTime, answered: bool) -> News {
        let since = self.nodes.entry(node).or_insert(Since { at: now, silent: false, suspected: false });
        let before = *since;
        *since = Since { at: if answered { now } else { before.at }, silent: !answered, ..before };
        match (before.silent, answered) {
            (false, false) => News::Silent,
            (true, true) => News::Back(now.since(before.at)),
            _ => News::None,
        }
    }
}

impl Since {
    /// Takes in whether the cluster state lists the node as a suspect; one that was taken back by others, who hear more
    /// than this leader, begins anew.
    fn note_suspicion(&mut self, now: MonoTime, suspected: bool) {
        if self.suspected && !suspected {
            self.at = now;
        }
        self.suspected = suspected;
    }
}

async fn leads(core: &Core) -> bool {
    let Some(host) = core.host.get() else { return false };
    host.status(CLUSTER_GROUP).await.is_some_and(|status| status.role == Role::Leader && status.ready)
}

async fn ping_all(core: &Core, heard: &mut Heard) {
    let view = core.views.current();
    let nodes: Vec<NodeId> = view.state.nodes().keys().copied().filter(|node| *node != core.node).collect();
    let limit = core.config.ping_interval;
    let ping = |node: NodeId| async move { core.ask(node, &FleetRequest::Ping, limit).await.is_ok() };
    let answered = join_all(nodes.iter().map(|node| ping(*node))).await;
    let now = core.env.now();
    heard.nodes.retain(|node, _| view.state.nodes().contains_key(node));
    for (node, answered) in nodes.into_iter().zip(answered) {
        let name = || view.state.nodes().get(&node).map_or("", |entry| entry.name.as_str());
        match heard.note(node, now, answered) {
            News::None => (),
            News::Silent => {
                let purged_after = core.config.failure_window;
                tracing::warn!(%node, name = name(), ?purged_after, "a node does not answer");
            }
            News::Back(silent) => tracing::info!(%node, name = name(), ?silent, "a node answers again"),
        }
    }
}

/// Tells the cluster whom this leader hears of and whom not, and has it purge a node that nobody has heard of for the
/// failure window.
async fn judge(core: &Core, heard: &mut Heard) {
    let view = core.views.current();
    let (now, now_ms) = (core.env.now(), core.env.wall_ms());
    let window = core.config.failure_window;
    for (node, since) in &mut heard.nodes {
        let suspicion = view.state.suspects().get(node);
        since.note_suspicion(now, suspicion.is_some());
        let node = *node;
        let by = core.node;
        let silent = if since.silent { now.since(since.at) } else { Duration::ZERO };
        let command = match suspicion {
            Some(_) if !since.silent => ClusterCommand::Hear { node, by },
            None if silent >= suspect_after(core) => {
                ClusterCommand::Suspect { node, by, silent_ms: as_ms(silent) }
            }
            // A leader that is new has tried for itself before it believes its predecessor.
            Some(suspicion) if silent >= core.config.ping_interval => {
                if now_ms.saturating_sub(suspicion.since_ms) < as_ms(window) {
                    continue;
                }
                tracing::warn!(%node, ?window, "a node was silent for too long and is purged");
                ClusterCommand::PurgeSilent { node, by, window_ms: as_ms(window) }
            }
            _ => continue,
        };
        match core.change_cluster(&command, &core.config.call).await {
            Ok(ClusterReply::Refused(refusal)) => {
                tracing::info!(%node, %refusal, "the cluster thinks otherwise");
            }
            Ok(_) if matches!(command, ClusterCommand::PurgeSilent { .. }) => {
                metrics::counter!("raft_fleet_nodes_purged_total").increment(1);
            }
            Ok(_) => (),
            Err(error) => tracing::warn!(%node, %error, "the cluster does not know yet how a node is"),
        }
    }
}

/// For how long a node is silent before everybody is told.
fn suspect_after(core: &Core) -> Duration {
    core.config.ping_interval.saturating_mul(SUSPECT_PINGS).min(core.config.failure_window / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was once accused again at once, with the whole of its silence.
    #[test]
    fn a_suspicion_that_others_took_back_begins_anew() {
        let at = |seconds: u64| MonoTime::from_nanos(seconds * 1_000_000_000);
        let mut since = Since { at: at(1), silent: true, suspected: false };
        since.note_suspicion(at(5), true);
        assert_eq!(since.at, at(1));
        since.note_suspicion(at(9), false);
        assert_eq!(since.at, at(9));
        since.note_suspicion(at(10), false);
        assert_eq!(since.at, at(9));
    }

    /// A node that was away was once logged at every ping, for as long as it was.
    #[test]
    fn a_node_that_goes_and_comes_is_news_once_each() {
        let at = |seconds: u64| MonoTime::from_nanos(seconds * 1_000_000_000);
        let seconds = Duration::from_secs;
        let mut heard = Heard::default();
        assert_eq!(heard.note(NodeId(1), at(1), true), News::None);
        assert_eq!(heard.note(NodeId(1), at(2), false), News::Silent);
        assert_eq!(heard.note(NodeId(1), at(3), false), News::None);
        assert_eq!(heard.nodes[&NodeId(1)].at, at(1), "it counts from the last answer");
        assert_eq!(heard.note(NodeId(1), at(4), true), News::Back(seconds(3)));
        assert_eq!(heard.note(NodeId(1), at(5), true), News::None);
        assert_eq!(
            heard.note(NodeId(2), at(5), false),
            News::Silent,
            "one that never answered counts from here"
        );
        assert_eq!(heard.nodes[&NodeId(2)].at, at(5));
    }
}
