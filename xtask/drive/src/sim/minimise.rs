//! Makes a failing seed smaller: kinds of faults are left out and the time of the faults is halved as long as it fails.

use std::time::{Duration, Instant};

use super::limits::Limits;
use super::scenario::Scenario;

/// No further run is tried after this time.
const TIME_MAX: Duration = Duration::from_secs(120);
/// The time of the faults is not cut below this.
const FAULTS_MIN: Duration = Duration::from_millis(50);

/// A seed that fails with less around it.
pub(super) struct Smaller {
    pub(super) limits: Limits,
    pub(super) why: String,
    /// Runs that it took to find it.
    pub(super) runs: u32,
}

/// The least that was found of what fails; none where every part of the seed is needed.
pub(super) fn minimise(
    scenario: Scenario,
    seed: u64,
    limits: &Limits,
    faults_time: Duration,
) -> Option<Smaller> {
    let play = |limits: &Limits| scenario.play(seed, limits).1.err();
    minimise_with(scenario.kinds(), limits, faults_time, play)
}

fn minimise_with(
    kinds: &[&str],
    limits: &Limits,
    faults_time: Duration,
    mut play: impl FnMut(&Limits) -> Option<String>,
) -> Option<Smaller> {
    let begun = Instant::now();
    let mut smaller = Smaller { limits: limits.clone(), why: String::new(), runs: 0 };
    let mut attempt = |limits: Limits, smaller: &mut Smaller| {
        if begun.elapsed() > TIME_MAX {
            return false;
        }
        smaller.runs += 1;
        let Some(why) = play(&limits) else { return false };
        (smaller.limits, smaller.why) = (limits, why);
        true
    };
    for kind in kinds {
        let mut fewer = smaller.limits.clone();
        if fewer.without.insert((*kind).to_owned()) {
            attempt(fewer, &mut smaller);
        }
    }
    let mut time = faults_time;
    while time / 2 >= FAULTS_MIN {
        time /= 2;
        let shorter = Limits { faults_max: Some(time), ..smaller.limits.clone() };
        if !attempt(shorter, &mut smaller) {
            break;
        }
    }
    (!smaller.why.is_empty()).then_some(smaller)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 4] = ["kill", "pause", "drift", "cut"];

    #[test]
    fn what_a_failure_does_not_need_is_left_out() {
        let needs = |limits: &Limits| {
            let fails = limits.allow("kill") && limits.allow("cut");
            (fails && limits.time(Duration::from_secs(4)) >= Duration::from_secs(1)).then(|| "broken".into())
        };
        let smaller = minimise_with(&KINDS, &Limits::default(), Duration::from_secs(4), needs).unwrap();
        assert_eq!(smaller.limits.to_string(), " --without drift,pause --faults-ms 1000");
        assert_eq!((smaller.why.as_str(), smaller.runs), ("broken", 7));
    }

    #[test]
    fn a_failure_that_needs_everything_stays_as_it_is() {
        let whole = |limits: &Limits| (*limits == Limits::default()).then(|| "broken".to_owned());
        assert!(minimise_with(&KINDS, &Limits::default(), Duration::from_secs(4), whole).is_none());
    }
}
