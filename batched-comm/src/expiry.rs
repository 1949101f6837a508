//! Tells ahead of time that a node's certificate will expire: the peers would only say that it has.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use crate::shared::Shared;

/// A certificate that will expire is told of at least so often.
const REPEAT: Duration = Duration::from_secs(24 * 3600);
/// A clock that is set may change everything: the certificate is looked at at least so often.
const LOOK: Duration = Duration::from_secs(3600);

/// From when until when a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Validity {
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
}

impl Validity {
    /// Whether it is time to renew: `ahead` of the end, but not before two thirds of the time have passed.
    fn is_ending(&self, now: SystemTime, ahead: Duration) -> bool {
        let whole = self.until.duration_since(self.from).unwrap_or_default();
        let left = self.until.duration_since(now).unwrap_or_default();
        left <= ahead.min(whole / 3)
    }
}

/// Looks at the endpoint's certificate now and then, as long as there is an endpoint.
pub(crate) async fn watch_expiry(shared: Weak<Shared>) {
    let mut told: Option<SystemTime> = None;
    while let Some(shared) = shared.upgrade().filter(|shared| !shared.is_closed()) {
        let now = SystemTime::now();
        let is_news = told.is_none_or(|told| now.duration_since(told).is_ok_and(|since| since >= REPEAT));
        if is_news && tell(&shared, now) {
            told = Some(now);
        }
        let replaced = shared.identity_replaced.clone();
        drop(shared);
        tokio::select! {
            () = sleep(LOOK) => {}
            () = replaced.notified() => told = None,
        }
    }
}

fn tell(shared: &Arc<Shared>, now: SystemTime) -> bool {
    let validity = shared.identity_validity();
    let is_ending = validity.is_ending(now, shared.config.identity_expiry_warning);
    if is_ending {
        let hours_left = validity.until.duration_since(now).unwrap_or_default().as_secs() / 3600;
        let (node, name) = (shared.config.node, &shared.config.name);
        tracing::warn!(%node, name, hours_left, "the node's certificate is about to expire");
    }
    is_ending
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn check(valid_days: u32, days_left: u32) -> bool {
        let until = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let validity = Validity { from: until - valid_days * DAY, until };
        validity.is_ending(until - days_left * DAY, 7 * DAY)
    }

    #[test]
    fn the_end_is_near_a_week_before_it_and_for_short_lives_in_their_last_third() {
        assert!(!check(365, 8) && check(365, 7) && check(365, 0));
        assert!(!check(9, 4) && check(9, 3));
        let until = SystemTime::UNIX_EPOCH + DAY;
        let expired = Validity { from: SystemTime::UNIX_EPOCH, until };
        assert!(expired.is_ending(until + DAY, 7 * DAY));
    }
}
