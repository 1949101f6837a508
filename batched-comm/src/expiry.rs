//! Tells ahead of time that a node's certificate will expire: the peers would only say that it has.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::shared::Shared;

/// A certificate that will expire is told of in the log at least so often.
const REPEAT: Duration = Duration::from_secs(24 * 3600);
/// A clock that is set may change everything: the certificate is looked at at least so often.
const LOOK_MAX: Duration = Duration::from_secs(3600);
/// A look that came a moment too early is not repeated at once.
const LOOK_MIN: Duration = Duration::from_millis(10);

/// From when until when a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Validity {
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
}

/// How far the certificate of a node is from its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[non_exhaustive]
pub enum IdentityPhase {
    /// There is time.
    Valid,
    /// It is time to renew it: see
    /// [`identity_expiry_warning`](crate::EndpointConfig::identity_expiry_warning).
    Expiring,
    /// It has expired: connections that stand go on, new ones are refused by every peer.
    Expired,
}

/// The certificate of a node has come into another phase, or has been replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct IdentityEvent {
    /// Where the certificate stands.
    pub phase: IdentityPhase,
    /// When it expires.
    pub expires_at: SystemTime,
}

/// What becomes of a node's certificate; see [`Endpoint::watch_identity`](crate::Endpoint::watch_identity).
#[derive(Debug)]
pub struct IdentityEvents(Option<watch::Receiver<IdentityEvent>>);

impl IdentityEvents {
    /// What holds now, at the first call; after that the next change. `None` once the endpoint is closed.
    ///
    /// A watch that is slow skips what is over: it gets the newest one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<IdentityEvent> {
        let receiver = self.0.as_mut()?;
        receiver.changed().await.ok()?;
        Some(*receiver.borrow_and_update())
    }
}

/// Where events of the identity come from.
pub(crate) struct IdentityEventSource {
    /// `None` once the endpoint is closed.
    sender: Mutex<Option<watch::Sender<IdentityEvent>>>,
}

impl IdentityEventSource {
    pub(crate) fn new(validity: Validity, now: SystemTime, warning: Duration) -> IdentityEventSource {
        let sender = watch::Sender::new(validity.event(now, warning));
        IdentityEventSource { sender: Mutex::new(Some(sender)) }
    }

    /// A watch whose first event is what holds now.
    pub(crate) fn watch(&self) -> IdentityEvents {
        IdentityEvents(self.sender.lock().as_ref().map(|sender| {
            let mut receiver = sender.subscribe();
            receiver.mark_changed();
            receiver
        }))
    }

    /// Tells whoever watches, if it is news.
    fn tell(&self, event: IdentityEvent) {
        if let Some(sender) = &*self.sender.lock() {
            sender.send_if_modified(|told| std::mem::replace(told, event) != event);
        }
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.sender.lock().take();
    }
}

impl Validity {
    fn event(&self, now: SystemTime, warning: Duration) -> IdentityEvent {
        IdentityEvent { phase: self.phase(now, warning), expires_at: self.until }
    }

    fn phase(&self, now: SystemTime, warning: Duration) -> IdentityPhase {
        if now >= self.until {
            IdentityPhase::Expired
        } else if now >= self.ending_from(warning) {
            IdentityPhase::Expiring
        } else {
            IdentityPhase::Valid
        }
    }

    /// When it is time to renew: `warning` ahead of the end, but not before two thirds of the time have passed.
    fn ending_from(&self, warning: Duration) -> SystemTime {
        let whole = self.until.duration_since(self.from).unwrap_or_default();
        self.until.checked_sub(warning.min(whole / 3)).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// How long until the phase must be looked at again.
    fn next_look(&self, now: SystemTime, warning: Duration) -> Duration {
        let next = match self.phase(now, warning) {
            IdentityPhase::Valid => self.ending_from(warning),
            IdentityPhase::Expiring => self.until,
            IdentityPhase::Expired => return LOOK_MAX,
        };
        next.duration_since(now).unwrap_or_default().clamp(LOOK_MIN, LOOK_MAX)
    }
}

/// Looks at the endpoint's certificate now and then, as long as there is an endpoint.
pub(crate) async fn watch_expiry(shared: Weak<Shared>) {
    let mut logged = Logged::default();
    while let Some(shared) = shared.upgrade().filter(|shared| !shared.is_closed()) {
        let (now, validity) = (SystemTime::now(), shared.identity_validity());
        let warning = shared.config.identity_expiry_warning;
        let event = validity.event(now, warning);
        shared.identity_events.tell(event);
        if logged.is_due(event, now) {
            log(&shared, event, now);
        }
        let replaced = shared.identity_replaced.clone();
        drop(shared);
        tokio::select! {
            () = sleep(validity.next_look(now, warning)) => {}
            () = replaced.notified() => {}
        }
    }
}

/// What was logged last, and when.
#[derive(Default)]
struct Logged(Option<(IdentityEvent, SystemTime)>);

impl Logged {
    /// Whether a certificate that ends is to be told of: when that is new, and again every day.
    fn is_due(&mut self, event: IdentityEvent, now: SystemTime) -> bool {
        if event.phase == IdentityPhase::Valid {
            self.0 = None;
            return false;
        }
        let is_due = self.0.is_none_or(|(told, at)| {
            told != event || now.duration_since(at).is_ok_and(|since| since >= REPEAT)
        });
        if is_due {
            self.0 = Some((event, now));
        }
        is_due
    }
}

fn log(shared: &Arc<Shared>, event: IdentityEvent, now: SystemTime) {
    let (node, name) = (shared.config.node, &shared.config.name);
    match event.expires_at.duration_since(now) {
        Ok(left) if event.phase == IdentityPhase::Expiring => {
            let hours_left = left.as_secs() / 3600;
            tracing::warn!(%node, name, hours_left, "the node's certificate is about to expire");
        }
        _ => tracing::error!(%node, name, "the node's certificate has expired: no peer lets it in"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn validity(days: u32) -> Validity {
        let until = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        Validity { from: until - days * DAY, until }
    }

    #[track_caller]
    fn check(valid_days: u32, days_left: u32, phase: IdentityPhase) {
        let validity = validity(valid_days);
        assert_eq!(validity.phase(validity.until - days_left * DAY, WEEK), phase);
    }

    #[test]
    fn the_end_is_near_a_week_before_it_and_for_short_lives_in_their_last_third() {
        check(365, 8, IdentityPhase::Valid);
        check(365, 7, IdentityPhase::Expiring);
        check(9, 4, IdentityPhase::Valid);
        check(9, 3, IdentityPhase::Expiring);
        check(365, 0, IdentityPhase::Expired);
        let nonsense = Validity { from: SystemTime::UNIX_EPOCH + DAY, until: SystemTime::UNIX_EPOCH };
        assert_eq!(nonsense.phase(SystemTime::UNIX_EPOCH, Duration::MAX), IdentityPhase::Expired);
    }

    /// Certificates of some minutes were looked at once an hour, and told of long after their end.
    #[test]
    fn the_next_look_is_when_the_phase_changes_and_at_the_latest_in_an_hour() {
        let minute = Duration::from_secs(60);
        let until = SystemTime::UNIX_EPOCH + DAY;
        let short = Validity { from: until - 9 * minute, until };
        assert_eq!(short.next_look(until - 8 * minute, WEEK), 5 * minute);
        assert_eq!(short.next_look(until - 3 * minute, WEEK), 3 * minute);
        assert_eq!(short.next_look(until, WEEK), LOOK_MAX);
        assert_eq!(short.next_look(until - Duration::from_nanos(1), WEEK), LOOK_MIN);
        assert_eq!(validity(365).next_look(SystemTime::UNIX_EPOCH, WEEK), LOOK_MAX);
    }

    #[test]
    fn the_log_tells_of_it_when_it_is_new_and_once_a_day() {
        let now = SystemTime::UNIX_EPOCH + 19_995 * DAY;
        let mut logged = Logged::default();
        let event = |phase| IdentityEvent { phase, expires_at: validity(365).until };
        assert!(!logged.is_due(event(IdentityPhase::Valid), now));
        assert!(logged.is_due(event(IdentityPhase::Expiring), now));
        assert!(!logged.is_due(event(IdentityPhase::Expiring), now + DAY / 2));
        assert!(logged.is_due(event(IdentityPhase::Expiring), now + DAY));
        assert!(logged.is_due(event(IdentityPhase::Expired), now + DAY));
        assert!(!logged.is_due(event(IdentityPhase::Valid), now + DAY), "renewed");
        assert!(logged.is_due(event(IdentityPhase::Expiring), now + DAY), "and about to end again");
    }
}
