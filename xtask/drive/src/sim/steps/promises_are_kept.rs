//! Whatever a member promised, it gives no vote for as long after a restart: it does not know when it promised last.

use std::time::Duration;

/// The longest promise that one member made.
#[derive(Debug, Default)]
pub(super) struct Promised(Duration);

impl Promised {
    /// It makes a promise of this length, or a shorter one.
    pub(super) fn promises(&mut self, promise: Duration) {
        self.0 = self.0.max(promise);
    }

    /// It comes back, and gives no vote for so long.
    ///
    /// # Errors
    ///
    /// When it promised more.
    pub(super) fn comes_back(&self, keeps: Duration) -> Result<(), String> {
        if keeps >= self.0 {
            return Ok(());
        }
        Err(format!("promised to give no vote for {:?}, and keeps {keeps:?} of it after a restart", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_is_forgotten_or_cut_short_is_found() {
        let ms = Duration::from_millis;
        let mut promised = Promised::default();
        promised.comes_back(Duration::ZERO).unwrap();
        promised.promises(ms(200));
        promised.promises(ms(50));
        promised.comes_back(ms(200)).unwrap();
        assert!(promised.comes_back(ms(50)).unwrap_err().contains("promised"));
    }
}
