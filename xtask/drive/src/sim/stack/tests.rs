//! The harness finds what is broken on purpose in the layers above the engine, and in itself.

use std::ops::Range;

use dist_agent::raft_kv::sim::{DROP_SESSIONS_AT_SPLIT, REPLAY_MERGE_BACKWARDS};
use dist_agent::sim::RESERVE_NO_QUOTA;

use super::play;
use crate::sim::noticed;
use crate::sim::sabotage::Sabotage;

fn check_is_noticed(sabotage: Sabotage, seeds: Range<u64>, words: &[&str]) {
    noticed::check_is_noticed(play, sabotage, seeds, words);
}

#[test]
fn records_of_sessions_that_a_split_leaves_behind_are_found() {
    check_is_noticed(Sabotage::Above(DROP_SESSIONS_AT_SPLIT), 3..9, &["applied twice", "and then"]);
}

#[test]
fn a_merge_in_which_the_older_value_wins_is_found() {
    let words = ["acknowledged and lost", "no prefix", "without [", "with ["];
    check_is_noticed(Sabotage::Above(REPLAY_MERGE_BACKWARDS), 0..6, &words);
}

#[test]
fn places_that_are_given_to_many_are_found() {
    check_is_noticed(Sabotage::Above(RESERVE_NO_QUOTA), 0..5, &["agents are active in the quota"]);
}

#[test]
fn a_command_of_an_agent_that_is_sent_again_under_another_key_is_found() {
    check_is_noticed(Sabotage::RetriesInNewSessions, 0..5, &["applied twice", "and then"]);
}

#[test]
fn an_answer_of_before_is_found() {
    check_is_noticed(Sabotage::ReadsFromAnybody, 0..5, &["comes after"]);
}

#[test]
fn a_member_whose_agents_change_more_than_they_were_told_is_found() {
    check_is_noticed(Sabotage::OneMemberSlips, 0..5, &["is not that of a majority"]);
}
