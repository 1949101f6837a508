//! Asks every node whether it lives, and has the cluster purge one that has been silent for too long.
//!
//! Only the leader of the cluster group does so: two observers that cannot see each other must not purge each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rafted_value::env::MonoTime;
use rafted_value::{NodeId, Role};

use crate::cluster_state::{CLUSTER_GROUP, ClusterCommand, ClusterReply};
use crate::core::Core;
use crate::wire::FleetRequest;

pub(crate) async fn run(core: Arc<Core>) {
    // It starts anew with each leadership: what a former leader heard is not known.
    let mut heard = Heard::default();
    loop {
        core.env.sleep_until(core.jittered(core.config.ping_interval)).await;
        if leads(&core).await {
            ping_all(&core, &mut heard).await;
            purge_silent(&core, &mut heard).await;
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
        let since = self.nodes.entry(node).or_insert(Since { at: now, silent: false });
        let before = *since;
        *since = Since { at: if answered { now } else { before.at }, silent: !answered };
        match (before.silent, answered) {
            (false, false) => News::Silent,
            (true, true) => News::Back(now.since(before.at)),
            _ => News::None,
        }
    }

    /// The nodes that have been silent for longer than `window`.
    fn silent_for(&self, window: Duration, now: MonoTime) -> Vec<NodeId> {
        let silent = self.nodes.iter().filter(|(_, since)| now.since(since.at) > window);
        silent.map(|(node, _)| *node).collect()
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

async fn purge_silent(core: &Core, heard: &mut Heard) {
    let now = core.env.now();
    let window = core.config.failure_window;
    for node in heard.silent_for(window, now) {
        tracing::warn!(%node, ?window, "a node was silent for too long and is purged");
        let purge = ClusterCommand::Purge { node, by: core.node };
        match core.change_cluster(&purge, &core.config.call).await {
            Ok(ClusterReply::Refused(refusal)) => tracing::info!(%node, %refusal, "the node is not purged"),
            Ok(_) => {
                metrics::counter!("raft_fleet_nodes_purged_total").increment(1);
                heard.nodes.remove(&node);
            }
            Err(error) => tracing::warn!(%node, %error, "the node is not purged yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that was away was once logged at every ping, for as long as it was.
    #[test]
    fn a_node_that_goes_and_comes_is_news_once_each() {
        let at = |seconds: u64| MonoTime::from_nanos(seconds * 1_000_000_000);
        let seconds = Duration::from_secs;
        let mut heard = Heard::default();
        assert_eq!(heard.note(NodeId(1), at(1), true), News::None);
        assert_eq!(heard.note(NodeId(1), at(2), false), News::Silent);
        assert_eq!(heard.note(NodeId(1), at(3), false), News::None);
        assert_eq!(heard.silent_for(seconds(1), at(3)), [NodeId(1)]);
        assert_eq!(heard.silent_for(seconds(2), at(3)), []);
        assert_eq!(heard.note(NodeId(1), at(4), true), News::Back(seconds(3)));
        assert_eq!(heard.note(NodeId(1), at(5), true), News::None);
        assert_eq!(
            heard.note(NodeId(2), at(5), false),
            News::Silent,
            "one that never answered counts from here"
        );
        assert_eq!(heard.silent_for(seconds(1), at(7)), [NodeId(1), NodeId(2)]);
    }
}
