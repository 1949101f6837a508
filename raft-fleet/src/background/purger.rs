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
use crate::cluster_state::{CLUSTER_GROUP, ClusterCommand, ClusterReply, Suspicion};
use crate::core::Core;
use crate::wire::FleetRequest;

/// A node that has not answered for as long as so many pings is suspected.
const SUSPECT_PINGS: u32 = 3;

/// From the end of one round of pings to that of the next it takes up to two and a half intervals, the wait for the answers
/// included, and what is to be said of the nodes between them. After so many this process must have stood still.
const PAUSE_PINGS: u32 = SUSPECT_PINGS + 1;

pub(crate) async fn run(core: Arc<Core>) {
    // It starts anew with each leadership: what a former leader heard is not known.
    let mut heard = Heard::default();
    loop {
        core.env.sleep_until(core.jittered(core.config.ping_interval)).await;
        if leads(&core).await {
            ping_all(&core, &mut heard).await;
            judge(&core, &mut heard).await;
        } else {
            heard = Heard::default();
        }
    }
}

/// When each node was last heard of.
#[derive(Default)]
struct Heard {
    nodes: BTreeMap<NodeId, Since>,
    /// When the last round of pings ended.
    round: Option<MonoTime>,
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
    /// Takes in that a round of pings has ended. Where the last one is longer ago than `pause_max`, this process stood
    /// still, and perhaps all of them did: nobody was silent for as long as it seems, and all begin anew.
    fn end_round(&mut self, now: MonoTime, pause_max: Duration) {
        let last = self.round.replace(now);
        if last.is_some_and(|last| now.since(last) > pause_max) {
            self.nodes.values_mut().for_each(|since| since.at = now);
        }
    }

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

    /// What the cluster is to be told of the node, if anything.
    fn verdict(
        &self,
        node: NodeId,
        by: NodeId,
        suspicion: Option<&Suspicion>,
        (now, now_ms): (MonoTime, u64),
        Limits { suspect_after, window }: Limits,
    ) -> Option<ClusterCommand> {
        let silent = if self.silent { now.since(self.at) } else { Duration::ZERO };
        match suspicion {
            Some(_) if !self.silent => Some(ClusterCommand::Hear { node, by }),
            // A leader that is new, or that stood still, tries for itself before it believes what is listed.
            _ if silent < suspect_after => None,
            None => Some(ClusterCommand::Suspect { node, by, silent_ms: as_ms(silent) }),
            Some(suspicion) => {
                let is_due = now_ms.saturating_sub(suspicion.since_ms) >= as_ms(window);
                is_due.then(|| ClusterCommand::PurgeSilent { node, by, window_ms: as_ms(window) })
            }
        }
    }
}

/// For how long a node is silent before it is suspected, and for how long before it is purged.
#[derive(Clone, Copy)]
struct Limits {
    suspect_after: Duration,
    window: Duration,
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
    heard.end_round(now, core.config.ping_interval.saturating_mul(PAUSE_PINGS));
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
    let limits = Limits { suspect_after: suspect_after(core), window };
    for (node, since) in &mut heard.nodes {
        let suspicion = view.state.suspects().get(node);
        since.note_suspicion(now, suspicion.is_some());
        let (node, by) = (*node, core.node);
        let Some(command) = since.verdict(node, by, suspicion, (now, now_ms), limits) else { continue };
        if matches!(command, ClusterCommand::PurgeSilent { .. }) {
            tracing::warn!(%node, ?window, "a node was silent for too long and is purged");
        }
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

    const LIMITS: Limits = Limits { suspect_after: Duration::from_secs(3), window: Duration::from_secs(60) };

    /// All processes of a cluster were once stopped for a minute: the first ping that went wrong after it brought a suspicion
    /// of sixty seconds, and the next one the purge of a node that had not been given the time to wake up.
    #[test]
    fn a_pause_of_the_whole_cluster_is_nobodys_silence() {
        let at = |seconds: u64| MonoTime::from_nanos(seconds * 1_000_000_000);
        let seconds = Duration::from_secs;
        let (node, by) = (NodeId(2), NodeId(1));
        let mut heard = Heard::default();
        let mut round = |second: u64, answered: bool, listed: Option<Suspicion>| {
            heard.end_round(at(second), seconds(4));
            heard.note(node, at(second), answered);
            heard.nodes[&node].verdict(node, by, listed.as_ref(), (at(second), second * 1000), LIMITS)
        };
        assert_eq!((round(1, true, None), round(3, true, None)), (None, None));
        assert_eq!(round(65, false, None), None, "it was a pause");
        assert_eq!(round(67, false, None), None);
        let silent_ms = 4000;
        assert_eq!(round(69, false, None), Some(ClusterCommand::Suspect { node, by, silent_ms }));
        let listed = Some(Suspicion { by, since_ms: 65_000 });
        assert_eq!(round(71, false, listed), None);
        assert_eq!(round(140, false, listed), None, "another pause, which has outlasted the window");
        assert_eq!(round(142, false, listed), None);
        let window_ms = 60_000;
        assert_eq!(round(144, false, listed), Some(ClusterCommand::PurgeSilent { node, by, window_ms }));
        assert_eq!(round(146, true, listed), Some(ClusterCommand::Hear { node, by }));
    }

    /// The wait for answers and what the cluster is told between two rounds are no pause.
    #[test]
    fn a_round_that_takes_its_time_takes_nothing_from_a_silence() {
        let at = |seconds: u64| MonoTime::from_nanos(seconds * 1_000_000_000);
        let mut heard = Heard::default();
        for second in [2, 5, 9] {
            heard.end_round(at(second), Duration::from_secs(4));
            heard.note(NodeId(1), at(second), second == 2);
        }
        assert_eq!(heard.nodes[&NodeId(1)].at, at(2));
    }
}
