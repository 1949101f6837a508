//! The harness finds what is broken on purpose: a check that never fails proves nothing.

use super::plan::Sabotage;
use super::play_with;
use crate::sim::notes::Notes;
use crate::sim::panics;

/// Seeds that are tried until one notices.
const SEEDS_MAX: u64 = 60;

/// Plays sabotaged seeds until one fails with one of these words.
fn check_is_noticed(sabotage: Sabotage, words: &[&str]) {
    panics::install();
    let mut seen = Vec::new();
    for seed in 0..SEEDS_MAX {
        let result = panics::catch(|| play_with(seed, Some(sabotage), &mut Notes::default()));
        if let Err(why) = result {
            if words.iter().any(|word| why.contains(word)) {
                return;
            }
            seen.push(why);
        }
    }
    panic!("{sabotage:?} was not noticed in {SEEDS_MAX} seeds; what was: {seen:?}");
}

#[test]
fn clocks_that_run_apart_by_more_than_the_margin_are_noticed() {
    check_is_noticed(Sabotage::ClocksBeyondTheMargin, &["hold a lease", "comes after"]);
}

#[test]
fn a_command_that_is_sent_again_in_another_session_is_noticed() {
    check_is_noticed(Sabotage::RetriesInNewSessions, &["ran before", "twice"]);
}

#[test]
fn state_that_is_lost_with_its_majority_is_noticed() {
    check_is_noticed(Sabotage::KillsWithoutCare, &["no leader", "lost"]);
}

/// The check is the engine's own: it compares hashes through the log.
#[test]
fn a_member_that_comes_to_another_state_is_noticed() {
    check_is_noticed(Sabotage::OneMemberSlips, &["is not that of a majority"]);
}

#[test]
fn a_quiet_group_that_misses_its_leader_too_late_is_noticed() {
    check_is_noticed(Sabotage::QuietGroupsSleepOn, &["has no leader"]);
}

#[test]
fn a_read_from_a_member_that_lags_behind_is_noticed() {
    check_is_noticed(Sabotage::ReadsFromAnybody, &["comes after"]);
}
