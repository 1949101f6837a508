//! Watches one connection as a whole: its beats, its lifeline, and the goodbye of either side.
//!
//! All of it runs in one task, in a fixed order: what the peer has said is heard before the end of its lifeline is
//! judged. A goodbye that was acknowledged before the process ended is therefore never taken for a death.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::{Mutex, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::handshake::{Control, ControlReceiver, ControlSender, HandshakeError};
use crate::hello::{ControlMessage, Features, Nonce};
use crate::lifeline::{LifelineEnd, dial_lifeline, lifeline_end};
use crate::link::Link;
use crate::peer::Ending;
use crate::peer_event::PeerChange;
use crate::refusal::Refusal;

/// Counts the beats of a connection.
#[derive(Debug)]
pub(crate) struct Beats {
    missed: u32,
    missed_max: u32,
}

impl Beats {
    pub(crate) fn new(missed_max: u32) -> Beats {
        Beats { missed: 0, missed_max }
    }

    /// An interval has passed in which something was heard of the peer, or nothing; what that changes.
    pub(crate) fn beat(&mut self, was_heard: bool) -> Option<PeerChange> {
        let was_suspect = self.missed >= self.missed_max;
        self.missed = if was_heard { 0 } else { self.missed.saturating_add(1) };
        let is_suspect = self.missed >= self.missed_max;
        match (was_suspect, is_suspect) {
            (false, true) => Some(PeerChange::Suspect),
            (true, false) => Some(PeerChange::Up),
            _ => None,
        }
    }
}

/// Watches a connection until it ends. A peer of version 1 has no control stream.
pub(crate) async fn watch_link(link: Arc<Link>, control: Option<Control>) {
    match control {
        Some(control) => watch_all(&link, control).await,
        None => tokio::select! {
            () = watch_beats(&link) => {}
            () = leave(&link, None) => {}
            _ = link.connection.closed() => {}
        },
    }
}

async fn watch_all(link: &Arc<Link>, control: Control) {
    let (send, receive) = control.split();
    let send = Mutex::new(send);
    let (nonce_sender, nonce) = oneshot::channel();
    let (held_sender, held) = oneshot::channel();
    let promises = Promises { nonce: Some(nonce_sender), held: Some(held_sender) };
    tokio::select! {
        biased;
        () = hear(link, receive, promises) => {}
        () = watch_lifeline(link, &send, nonce, held) => {}
        () = watch_beats(link) => {}
        () = leave(link, Some(&send)) => {}
        // The task that accepts lanes sees to the consequences.
        _ = link.connection.closed() => {}
    }
}

/// What the dialling side's lifeline waits for.
struct Promises {
    nonce: Option<oneshot::Sender<Nonce>>,
    held: Option<oneshot::Sender<()>>,
}

/// Takes what the peer says of the connection as a whole.
async fn hear(link: &Arc<Link>, mut receive: ControlReceiver, mut promises: Promises) {
    loop {
        match receive.read().await {
            Ok(ControlMessage::Lifeline(nonce)) if promises.nonce.is_some() => {
                // Without the feature nobody waits for it.
                promises.nonce.take().map(|promise| promise.send(nonce));
            }
            Ok(ControlMessage::LifelineHeld) if promises.held.is_some() => {
                promises.held.take().map(|promise| promise.send(()));
            }
            Ok(ControlMessage::Goodbye) => {
                // What it has sent before may still be read; it closes the connection itself, or is made to.
                link.peer.lost(link, &Ending::Left);
                sleep(link.shared.config.stall_timeout).await;
                return link.shared.close_superseded(&link.connection);
            }
            Ok(other) => {
                let detail = format!("control message out of turn: {other:?}");
                return link.shared.refuse(&link.connection, Refusal::Malformed, &detail);
            }
            Err(HandshakeError::Refusing(refusal, detail)) => {
                return link.shared.refuse(&link.connection, refusal, &detail);
            }
            // The connection is gone.
            Err(_) => return pending().await,
        }
    }
}

/// Brings a lifeline about, if both sides can, and waits for its end.
async fn watch_lifeline(
    link: &Arc<Link>,
    send: &Mutex<ControlSender>,
    nonce: oneshot::Receiver<Nonce>,
    held: oneshot::Receiver<()>,
) {
    if !link.features.has(Features::LIFELINE) {
        return pending().await;
    }
    let end = if link.is_dialled_here() {
        hold_dialled(link, nonce, held).await
    } else {
        hold_accepted(link, send).await
    };
    match end {
        Some(LifelineEnd::Closed) => {
            link.peer.lost(link, &Ending::Died);
            // Should it live after all, it learns that this connection has ended.
            link.shared.close_superseded(&link.connection);
        }
        Some(LifelineEnd::Misused) => {
            let detail = "data on a lifeline";
            return link.shared.refuse(&link.connection, Refusal::Malformed, detail);
        }
        Some(LifelineEnd::Broken) | None => {
            link.shared.counters.lifelines_missing.increment();
            if link.shared.is_first_missing_lifeline() {
                let (node, peer) = (link.shared.config.node, link.peer.node);
                tracing::info!(%node, %peer, "no lifeline to this peer: its death shows by missed beats only");
            }
        }
    }
    pending::<()>().await;
}

/// The side that dialled the connection dials the lifeline too.
async fn hold_dialled(
    link: &Link,
    nonce: oneshot::Receiver<Nonce>,
    held: oneshot::Receiver<()>,
) -> Option<LifelineEnd> {
    let limit = link.shared.config.connect_timeout;
    // The peer may have no port for lifelines: then none is ever offered.
    let nonce = nonce.await.ok()?;
    let dialled = timeout(limit, dial_lifeline(link.connection.remote_address(), nonce)).await;
    let mut stream = dialled.ok()?.ok()?;
    // Until the peer has said so through the connection, anybody may be at the other end.
    timeout(limit, held).await.ok()?.ok()?;
    link.shared.counters.lifelines_held.increment();
    Some(lifeline_end(&mut stream).await)
}

/// The side that accepted the connection waits for the lifeline.
async fn hold_accepted(link: &Link, send: &Mutex<ControlSender>) -> Option<LifelineEnd> {
    if !link.shared.takes_lifelines() {
        return None;
    }
    let mut expected = link.shared.lifelines.expect()?;
    send.lock().await.write(&ControlMessage::Lifeline(expected.nonce)).await.ok()?;
    let limit = 2 * link.shared.config.connect_timeout;
    let mut stream = timeout(limit, &mut expected.stream).await.ok()?.ok()?;
    drop(expected);
    send.lock().await.write(&ControlMessage::LifelineHeld).await.ok()?;
    link.shared.counters.lifelines_held.increment();
    Some(lifeline_end(&mut stream).await)
}

/// Suspects a silent peer, until it is heard again.
async fn watch_beats(link: &Arc<Link>) {
    let config = &link.shared.config;
    let mut beats = Beats::new(config.suspect_after_beats_missed);
    let mut interval = interval(config.keep_alive_interval);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval.tick().await;
    let mut heard = link.datagrams_heard();
    loop {
        interval.tick().await;
        let now = link.datagrams_heard();
        let was_heard = std::mem::replace(&mut heard, now) != now;
        if let Some(change) = beats.beat(was_heard) {
            link.peer.suspected(link, change);
        }
    }
}

/// Says goodbye when the endpoint is about to close, and waits until the peer has it.
async fn leave(link: &Link, send: Option<&Mutex<ControlSender>>) {
    link.leaving.notified().await;
    if let Some(send) = send {
        send.lock().await.say_goodbye().await;
    }
    link.left.notify_one();
    pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_suspected_once_for_each_silence_and_cleared_when_it_is_heard() {
        let mut beats = Beats::new(3);
        let heard = [true, false, false, true, false, false, false, false, true, true];
        let changes: Vec<_> = heard.into_iter().map(|was_heard| beats.beat(was_heard)).collect();
        let mut expected = [None; 10];
        expected[6] = Some(PeerChange::Suspect);
        expected[8] = Some(PeerChange::Up);
        assert_eq!(changes, expected);
    }
}
