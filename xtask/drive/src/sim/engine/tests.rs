//! The harness finds what is broken on purpose: a check that never fails proves nothing.

use rafted_value::sim::Mutation;

use super::play;
use super::sabotage::Sabotage;
use crate::sim::limits::Limits;
use crate::sim::notes::Notes;
use crate::sim::panics;

/// Seeds that are tried until one notices.
const SEEDS_MAX: u64 = 60;

/// Plays sabotaged seeds until one fails with one of these words.
fn check_is_noticed(sabotage: Sabotage, words: &[&str]) {
    check_is_noticed_within(SEEDS_MAX, sabotage, words);
}

fn check_is_noticed_within(seeds_max: u64, sabotage: Sabotage, words: &[&str]) {
    panics::install();
    let limits = Limits { plant: Some(sabotage), ..Limits::default() };
    let mut seen = Vec::new();
    for seed in 0..seeds_max {
        let result = panics::catch(|| play(seed, &limits, &mut Notes::default()));
        if let Err(why) = result {
            if words.iter().any(|word| why.contains(word)) {
                println!("{sabotage:?}: seed {seed}: {why}");
                return;
            }
            seen.push(why);
        }
    }
    panic!("{sabotage:?} was not noticed in {seeds_max} seeds; what was: {seen:?}");
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

/// Plants a fault in the engine itself.
fn check_is_found(mutation: Mutation, seeds_max: u64, words: &[&str]) {
    check_is_noticed_within(seeds_max, Sabotage::InTheEngine(mutation), words);
}

#[test]
fn a_lease_that_is_not_looked_at_is_found() {
    check_is_found(Mutation::SkipLeaseCheck, 60, &["comes after"]);
}

#[test]
fn an_entry_that_is_committed_before_a_quorum_has_it_is_found() {
    check_is_found(Mutation::AcknowledgeBeforeQuorum, 5, &["commits entry"]);
}

#[test]
fn an_entry_that_is_acknowledged_before_the_disk_has_it_is_found() {
    check_is_found(Mutation::AcknowledgeBeforeDisk, 60, &["said it keeps", "has spoken in", "votes for"]);
}

#[test]
fn a_vote_that_is_forgotten_across_a_restart_is_found() {
    check_is_found(Mutation::ForgetVote, 200, &["votes for", "changed its vote"]);
}

#[test]
fn a_term_that_is_forgotten_across_a_restart_is_found() {
    check_is_found(Mutation::ForgetTerm, 60, &["has spoken in", "votes for"]);
}

#[test]
fn an_entry_that_is_forgotten_across_a_restart_is_found() {
    check_is_found(Mutation::ForgetNewestEntry, 60, &["said it keeps"]);
}

#[test]
fn a_promise_that_is_forgotten_across_a_restart_is_found() {
    check_is_found(Mutation::ForgetPromise, 200, &["holds a lease", "hold a lease", "comes after"]);
}

#[test]
fn a_promise_that_is_broken_is_found() {
    check_is_found(Mutation::BreakPromise, 60, &["holds a lease", "hold a lease", "comes after"]);
}

#[test]
fn an_append_that_fits_nowhere_is_found() {
    check_is_found(
        Mutation::AppendAnywhere,
        60,
        &["differs up to entry", "says that it keeps", "out of bound"],
    );
}

#[test]
fn records_of_sessions_that_a_snapshot_lacks_are_found() {
    check_is_found(Mutation::DropSessions, 60, &["ran before", "twice", "is not that of a majority"]);
}

/// The old leader answers beside its successor, whose voters were freed of their promises.
#[test]
fn a_lease_that_is_kept_while_the_leadership_is_handed_over_is_found() {
    check_is_found(Mutation::KeepLeaseInTransfer, 60, &["holds a lease", "hold a lease", "comes after"]);
}

#[test]
fn a_reply_that_changes_is_found() {
    check_is_found(Mutation::MixUpReplies, 10, &["and then"]);
}
