//! What stands in the way of messages: cuts, pauses and deaths, and the silence that ends a connection.

use std::collections::{BTreeMap, BTreeSet};

use super::dial::Dial;
use super::link::{CallId, LinkKey};
use super::network::{NetEvent, NetState};
use super::random::after;
use crate::id::NodeId;
use crate::transport::{CallError, DownReason, PeerChange, PeerEvent};

/// Ways, from one address to another, on which nothing gets through.
#[derive(Debug, Default)]
pub(super) struct Cuts(BTreeMap<String, BTreeSet<String>>);

impl Cuts {
    /// Whether nothing gets from one address to the other.
    pub(super) fn contains(&self, from: &str, to: &str) -> bool {
        from != to && self.0.get(from).is_some_and(|ways| ways.contains(to))
    }

    /// Cuts a way.
    pub(super) fn cut(&mut self, from: &str, to: &str) {
        self.0.entry(from.to_owned()).or_default().insert(to.to_owned());
    }

    /// Mends a way.
    pub(super) fn mend(&mut self, from: &str, to: &str) {
        if let Some(ways) = self.0.get_mut(from) {
            ways.remove(to);
        }
    }

    /// Mends all ways.
    pub(super) fn mend_all(&mut self) {
        self.0.clear();
    }
}

impl NetState {
    /// Lets a node speak this version of the wire format.
    pub(super) fn speak(&mut self, node: NodeId, wire_version: u16) {
        if let Some(station) = self.stations.get_mut(&node) {
            station.wire_version = wire_version;
        }
    }

    /// Stops a node or lets it go on.
    pub(super) fn set_paused(&mut self, node: NodeId, paused: bool) {
        if let Some(station) = self.stations.get_mut(&node) {
            station.paused = paused;
            self.review_links();
        }
    }

    /// Starts and ends silences, and sends on what waited. Must follow every change of who is cut off, paused or dead.
    pub(super) fn review_links(&mut self) {
        let stations = &self.stations;
        let abandoned = |key: &LinkKey| !stations.contains_key(&key.0) && !stations.contains_key(&key.1);
        self.links.retain(|key, _| !abandoned(key));
        let keys: Vec<LinkKey> = self.links.keys().copied().collect();
        for key in keys {
            self.review_silence(key);
            self.send_on(key);
        }
    }

    fn review_silence(&mut self, key: LinkKey) {
        let (silent, fresh, now) = (self.is_silent(key), self.draw_id(), self.executor.now());
        let Some(link) = self.links.get_mut(&key) else { return };
        match (silent, link.silence) {
            (true, None) => {
                let wait = self.silences.duration(self.config.silence_min, self.config.silence_max);
                link.silence = Some(fresh);
                self.executor.schedule(after(now, wait), NetEvent::Silence { link: key, silence: fresh });
            }
            (false, Some(_)) => link.silence = None,
            _ => {}
        }
    }

    /// What could not arrive in time tries again, as a packet that is sent anew.
    fn send_on(&mut self, key: LinkKey) {
        let now = self.executor.now();
        let Some(link) = self.links.get_mut(&key) else { return };
        for (from, lane, arrival) in link.postpone(now, after(now, self.config.delay_max)) {
            let to = if from == key.0 { key.1 } else { key.0 };
            self.executor.schedule(arrival, NetEvent::Arrival { from, to, lane });
        }
    }

    /// Whether one end of a connection hears nothing of the other.
    fn is_silent(&self, key: LinkKey) -> bool {
        if !self.links.contains_key(&key) {
            return false;
        }
        let up = |node| self.stations.get(&node).is_some_and(|station| !station.paused);
        key.0 != key.1 && (self.is_cut(key) || !up(key.0) || !up(key.1))
    }

    /// Gives a connection up if the same silence still lasts.
    pub(super) fn end_silence(&mut self, key: LinkKey, silence: u64) {
        if self.links.get(&key).is_some_and(|link| link.silence == Some(silence)) {
            self.disconnect(key, DownReason::Silent);
        }
    }

    /// The system of a killed node tells its peers, as far as they can be reached.
    pub(super) fn announce_death(&mut self, node: NodeId) {
        let (min, max, now) = (self.config.delay_min, self.config.delay_max, self.executor.now());
        let keys: Vec<LinkKey> =
            self.links.keys().copied().filter(|key| key.0 == node || key.1 == node).collect();
        for key in keys {
            let (is_told, delay) =
                (self.deaths.chance(self.config.death_notice), self.deaths.duration(min, max));
            if is_told && !self.is_cut(key) {
                self.executor.schedule(after(now, delay), NetEvent::Death(key));
            }
        }
    }

    /// The peer of a killed node learns of it, unless it has been cut off meanwhile.
    pub(super) fn tell_death(&mut self, key: LinkKey) {
        // A node that has come back meanwhile, under the same id, has told of its former life's end itself.
        let both_live = self.stations.contains_key(&key.0) && self.stations.contains_key(&key.1);
        if !both_live && !self.is_cut(key) {
            self.disconnect(key, DownReason::Died);
            let retry_at = after(self.executor.now(), self.config.redial_wait);
            for (at, node) in [(key.0, key.1), (key.1, key.0)] {
                if let Some(station) = self.stations.get_mut(&at) {
                    let reason = "its process has ended".to_owned();
                    station.dials.insert(node, Dial::Failed { reason, retry_at });
                }
            }
        }
    }

    fn is_cut(&self, key: LinkKey) -> bool {
        self.links.get(&key).is_some_and(|link| {
            let (low, high) = (&link.addresses.0, &link.addresses.1);
            self.cuts.contains(low, high) || self.cuts.contains(high, low)
        })
    }

    /// Tells a node's watchers what became of its peer.
    pub(super) fn tell_watchers(&self, at: NodeId, node: NodeId, change: PeerChange) {
        if let Some(station) = self.stations.get(&at) {
            // Nobody may be watching.
            let _ = station.events.send(PeerEvent { node, change });
        }
    }

    /// Ends a connection: what is under way on it is lost, and calls that went over it end.
    pub(super) fn disconnect(&mut self, key: LinkKey, reason: DownReason) {
        let Some(link) = self.links.remove(&key) else { return };
        self.executor.record(b'd', [key.0.0, key.1.0], &[]);
        self.executor.count(|stats| {
            stats.disconnected += 1;
            stats.lost += link.under_way() as u64;
        });
        for (caller, callee) in [(key.0, key.1), (key.1, key.0)] {
            self.tell_watchers(caller, callee, PeerChange::Down(reason));
            let Some(station) = self.stations.get_mut(&caller) else { continue };
            let sent = station.calls.iter().filter(|(_, call)| call.sent && call.to == callee);
            let calls: Vec<CallId> = sent.map(|(id, _)| *id).collect();
            for call in calls {
                station.finish(call, Err(CallError::Lost { node: callee }));
            }
        }
    }
}
