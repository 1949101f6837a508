//! The harness finds what is broken on purpose: a check that never fails proves nothing.

use std::ops::Range;

use rafted_value::sim::Mutation;

use super::play;
use crate::sim::noticed;
use crate::sim::sabotage::Sabotage;

/// Seeds that are tried until one notices.
const SEEDS_MAX: u64 = 60;

/// Plays sabotaged seeds until one fails with one of these words.
fn check_is_noticed(sabotage: Sabotage, words: &[&str]) {
    check_is_noticed_within(0..SEEDS_MAX, sabotage, words);
}

fn check_is_noticed_within(seeds: Range<u64>, sabotage: Sabotage, words: &[&str]) {
    noticed::check_is_noticed(play, sabotage, seeds, words);
}

#[test]
fn clocks_that_run_apart_by_more_than_the_margin_are_noticed() {
    check_is_noticed(Sabotage::ClocksBeyondTheMargin, &["holds a lease", "hold a lease", "comes after"]);
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
    check_is_noticed_within(60..120, Sabotage::QuietGroupsSleepOn, &["has no leader"]);
}

#[test]
fn a_read_from_a_member_that_lags_behind_is_noticed() {
    check_is_noticed(Sabotage::ReadsFromAnybody, &["comes after"]);
}

/// Plants a fault in the engine itself, which one of so many seeds must find.
fn check_is_found(mutation: Mutation, seeds: Range<u64>, words: &[&str]) {
    check_is_noticed_within(seeds, Sabotage::InTheEngine(mutation), words);
}

#[test]
fn a_lease_that_is_not_looked_at_is_found() {
    check_is_found(Mutation::SkipLeaseCheck, 100..150, &["comes after"]);
}

#[test]
fn an_entry_that_is_committed_before_a_quorum_has_it_is_found() {
    check_is_found(Mutation::AcknowledgeBeforeQuorum, 0..5, &["commits entry"]);
}

#[test]
fn an_entry_that_is_acknowledged_before_the_disk_has_it_is_found() {
    let words = ["said it keeps", "has spoken in", "votes for"];
    check_is_found(Mutation::AcknowledgeBeforeDisk, 0..60, &words);
}

/// It takes two candidates and a restart in one term.
#[test]
fn a_vote_that_is_forgotten_across_a_restart_is_found() {
    check_is_found(Mutation::ForgetVote, 0..60, &["votes for", "changed its vote"]);
}

#[test]
fn a_term_that_is_forgotten_across_a_restart_is_found() {
    check_is_found(Mutation::ForgetTerm, 0..60, &["has spoken in", "votes for"]);
}

#[test]
fn an_entry_that_is_forgotten_across_a_restart_is_found() {
    check_is_found(Mutation::ForgetNewestEntry, 0..30, &["said it keeps"]);
}

#[test]
fn a_promise_that_is_broken_is_found() {
    check_is_found(Mutation::BreakPromise, 0..60, &["holds a lease", "hold a lease", "comes after"]);
}

#[test]
fn a_promise_that_is_forgotten_across_a_restart_is_found() {
    check_is_found(Mutation::ForgetPromise, 0..20, &["promised to give no vote"]);
}

#[test]
fn an_append_that_fits_nowhere_is_found() {
    let words = ["differs up to entry", "says that it keeps", "out of bound"];
    check_is_found(Mutation::AppendAnywhere, 0..30, &words);
}

#[test]
fn records_of_sessions_that_a_snapshot_lacks_are_found() {
    check_is_found(Mutation::DropSessions, 0..30, &["ran before", "twice", "is not that of a majority"]);
}

/// The old leader answers beside its successor, whose voters were freed of their promises.
#[test]
fn a_lease_that_is_kept_while_the_leadership_is_handed_over_is_found() {
    check_is_found(Mutation::KeepLeaseInTransfer, 0..60, &["holds a lease", "hold a lease", "comes after"]);
}

#[test]
fn a_reply_that_changes_is_found() {
    check_is_found(Mutation::MixUpReplies, 0..30, &["and then"]);
}
