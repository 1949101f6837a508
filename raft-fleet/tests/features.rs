//! What this crate offers, line by line, each with the tests that hold it.
//!
//! | | holds by |
//! |---|---|
//! | 1. `activate(zone)`, `deactivate()`, with `NotInactive` and `Inactive` | `an_inactive_node_is_a_client_and_can_be_activated_again_in_another_zone`, `a_node_that_left_is_activated_once_in_any_zone` |
//! | an inactive node may be a client, a client is no node | `an_inactive_node_is_a_client_and_can_be_activated_again_in_another_zone`, `a_client_is_no_node_that_could_be_active` |
//! | `active_nodes()` by zone | `three_nodes_form_one_cluster_and_know_each_other`, `a_node_that_leaves_is_listed_but_gets_no_members` |
//! | 2. `add_group` waits until the group serves | `groups_are_founded_replicated_and_led_before_add_group_returns` |
//! | `AlreadyAdded` | `groups_are_founded_replicated_and_led_before_add_group_returns` |
//! | `CleanupOngoing` | `a_removed_group_ends_on_every_node_and_its_name_can_be_used_again`, `a_name_cannot_be_used_again_before_the_members_of_the_removed_group_are_gone` |
//! | `NoLeader` | `without_a_leader_of_the_cluster_group_nothing_is_changed_and_the_caller_is_told` |
//! | `NoActiveNode` | `nodes_that_are_all_drained_at_the_same_time_keep_what_the_last_of_them_holds` |
//! | a maker of settings by the name of the group | `a_group_that_is_added_by_name_alone_has_the_settings_that_are_made_for_its_name`, `makers_are_compared_by_what_they_were_given` |
//! | what each member keeps is its group's | `the_settings_made_for_a_name_decide_what_each_member_of_the_group_keeps` |
//! | more replicas than nodes means all nodes | `more_members_than_there_are_nodes_means_one_on_each_and_on_each_that_comes` |
//! | 3. `remove_group` ends all members, also on nodes that were away | `a_removed_group_ends_on_every_node_and_its_name_can_be_used_again`, `a_member_that_was_away_ends_too_and_the_newest_is_restored` |
//! | the same name meanwhile says `CleanupOngoing` | `a_member_that_was_away_ends_too_and_the_newest_is_restored` |
//! | files stay, and the name begins again with the newest of them | `a_removed_group_that_is_added_again_begins_with_what_it_had`, `a_group_that_is_added_again_is_founded_where_the_newest_was_kept`, `what_a_removed_group_had_survives_the_loss_of_power_at_any_moment`, `a_group_that_is_founded_away_from_its_preferred_node_is_used_at_once` |
//! | 4. `consensus_groups`, `whereis_leader` | `without_a_leader_of_the_cluster_group_nothing_is_changed_and_the_caller_is_told`, `a_cluster_over_quic_is_drained_restarted_and_keeps_what_it_acknowledged` |
//! | `command` and `query` with a time limit | `a_timeout_names_the_time_of_the_whole_call`, `a_call_may_take_for_ever` |
//! | ... with retries and an interval | `a_call_ends_after_the_attempts_that_it_may_take` |
//! | ... under one session across the retries | `a_killed_node_costs_no_command_and_comes_back_as_a_member`, `no_fault_loses_or_doubles_a_command` |
//! | what cannot succeed ends at once | `an_unknown_name_is_an_error_of_its_own`, `a_command_to_an_unknown_group_is_not_applied_and_says_so_at_once`, `a_command_over_its_groups_limit_is_refused_before_it_is_sent`, `a_reply_that_fits_no_message_says_so_at_once_and_that_the_command_was_applied`, `a_query_or_an_answer_that_fits_no_message_says_so_at_once` |
//! | 5. placement moves only what it must | `a_node_that_comes_or_goes_moves_only_what_it_must`, `more_replicas_keep_the_members_that_fewer_would_have`, `a_node_that_restarts_under_a_new_id_gets_its_place_back` |
//! | ... and spreads over zones | `members_are_spread_over_zones_as_far_as_there_are_zones` |
//! | ... the same on every machine | `the_hash_never_changes` |
//! | 6. one to eight nodes in one to three zones come and go | `members_and_leaders_follow_the_nodes_that_come_and_go`, `a_fourth_node_takes_its_share` |
//! | leaders at their preferred node | `leaderships_return_to_a_node_that_came_back`, `the_leadership_goes_home_once_all_members_are_where_they_should_be` |
//! | one safe step at a time | `from_any_members_to_any_nodes_it_converges_and_never_loses_its_majority`, `a_group_survives_the_replacement_of_all_its_nodes`, `a_living_voter_stays_while_the_group_needs_it_for_a_majority` |
//! | 7. `unreachable_nodes` | `everybody_sees_which_nodes_are_silent_and_since_when` |
//! | purge after the window, members replaced | `a_node_that_stays_away_is_purged_and_its_members_are_replaced`, `a_node_that_answers_again_within_the_window_is_not_purged` |
//! | one that fails right after its activation | `a_node_that_fails_right_after_it_joined_is_purged_as_well` |
//! | one that returns is told, and can be active again | `a_purged_node_is_told_so_and_can_be_activated_again`, `a_purged_node_that_was_only_cut_off_joins_again`, `a_node_that_comes_back_in_the_moment_of_its_purge_is_a_member_again` |
//! | ... and members that it should have no more end | `a_member_that_comes_back_when_all_that_it_knew_have_gone_ends_as_well` |
//! | members and learners that a node has lost | `members_that_a_disk_has_lost_are_replaced_under_new_ids`, `learners_that_a_disk_has_lost_are_replaced_under_new_ids`, `a_learner_whose_node_is_purged_is_replaced_on_another` |
//! | 8. a restart of the whole cluster | `a_cluster_that_loses_its_power_comes_back_as_the_same_with_every_acknowledged_command`, `power_that_is_lost_under_load_costs_no_acknowledged_command` |
//! | groups without a leader are found, the cluster's own too | `a_group_that_lost_its_majority_is_found_and_goes_on_by_a_plan_that_says_what_it_costs`, `a_cluster_that_lost_its_own_majority_goes_on_with_the_node_that_is_left` |
//! | the loss is spelled out, then the plan is carried out | `a_group_that_lost_its_majority_is_found_and_goes_on_by_a_plan_that_says_what_it_costs` |
//! | 9. a stale entry of the cache costs one redirect | `a_leadership_that_has_moved_costs_a_caller_one_redirect_and_no_wait`, `a_stale_entry_costs_one_redirect`, `two_nodes_that_name_each_other_do_not_keep_a_caller_spinning` |
//! | Beyond: formation cannot fork | `no_schedule_of_faults_and_restarts_makes_two_clusters`, `no_partition_makes_two_clusters_when_a_majority_is_expected`, `power_that_is_lost_in_the_middle_of_a_formation_never_makes_two_clusters`, `nodes_form_one_cluster_whenever_one_of_them_dies` |
//! | ... `bootstrap_expect` | `fewer_nodes_than_expected_wait`, `nodes_that_expect_different_numbers_do_not_found_together`, `one_expected_node_with_several_seeds_is_refused` |
//! | ... cluster id | `a_node_whose_directory_belongs_to_a_cluster_founds_no_other_while_it_is_alone`, `a_node_of_another_cluster_or_with_a_bad_zone_is_refused` |
//! | seeds by address or by name | `a_cluster_over_quic_is_drained_restarted_and_keeps_what_it_acknowledged`, `groups_over_four_processes_outlive_one_that_is_killed_and_one_that_is_drained` |
//! | a node id survives restarts on its directory | `a_node_that_restarts_on_its_disk_keeps_its_id_and_its_members`, `a_node_that_comes_back_at_another_address_is_listed_there_and_serves`, `a_node_without_seeds_finds_the_others_where_they_were` |
//! | a directory of another cluster is refused by its name | `a_directory_of_another_cluster_is_refused_by_name_and_left_as_it_is`, `a_log_of_another_cluster_is_refused_whatever_lies_beside_it`, `a_node_that_is_told_its_cluster_takes_part_in_no_other` |
//! | drain: leaders first, then members, with its progress | `a_deactivated_node_gives_its_leaders_away_first_and_ends_empty` |
//! | ... and it says when it is safe to stop | `the_last_active_node_keeps_its_members_and_says_so`, `a_group_of_one_member_moves_without_an_outage_above_a_transfer` |
//! | ... also of many at a time | `nodes_that_are_drained_at_the_same_time_end_empty_and_no_command_is_lost`, `nodes_that_are_all_drained_at_the_same_time_keep_what_the_last_of_them_holds` |
//! | a rolling restart under load | `a_rolling_restart_in_memory_loses_no_command_and_shows_no_outage_above_a_transfer`, `a_rolling_restart_on_disks_loses_no_command_and_shows_no_outage_above_a_transfer` |
//! | no group is deleted because its members look dead | `a_group_whose_members_all_look_dead_is_kept`, `a_group_whose_members_were_all_purged_is_reported_and_comes_back_with_its_nodes` |
//! | the death of a leader | `the_death_of_a_leader_costs_little_more_than_an_election` |
//! | movement is limited by number | `a_node_brings_few_members_up_to_date_at_a_time` |
//! | ... and by bytes a second | `the_states_of_groups_travel_at_no_more_than_their_bytes_a_second`, `a_cluster_over_quic_is_drained_restarted_and_keeps_what_it_acknowledged` |
//! | ... resumable | `a_move_goes_on_when_nodes_die_in_the_middle_of_it` |
//! | ... visible | `what_is_on_its_way_is_visible_and_comes_to_an_end`, `every_member_that_is_not_at_its_place_is_a_move` |
//! | weights and leader balance | `a_heavy_node_gets_the_larger_share`, `a_share_grows_with_the_weight`, `leaders_and_members_are_spread_evenly`, `a_weight_belongs_to_a_name_and_outlives_a_restart_but_not_a_purge` |
//! | a group pinned to zones | `a_pinned_group_stays_in_its_zones`, `a_pinned_group_is_placed_in_its_zones_only` |
//! | two observers never act against each other | `of_two_nodes_that_do_not_hear_each_other_the_first_to_say_so_is_believed`, `a_node_that_anybody_hears_of_is_not_purged`, `a_change_of_the_observer_does_not_lengthen_the_window`, `a_minority_purges_nobody`, `an_unlisted_node_purges_nobody` |
//! | the replicated state, told as stories | `nodes_come_are_suspected_and_go_as_the_story_says`, `groups_are_added_founded_anew_removed_and_restored_as_the_story_says`, `ids_are_never_reused_and_tables_never_contradict_each_other` |
//! | everything in simulation is decided by its seed | `the_same_seed_gives_the_same_run` |
//! | real processes | `groups_over_four_processes_outlive_one_that_is_killed_and_one_that_is_drained` |
//! | Bad input: duplicate node names | `nodes_of_one_name_form_no_cluster_and_say_who_they_are`, `a_node_with_a_name_that_is_taken_is_refused`, `a_name_or_an_address_is_held_by_one_node_at_a_time` |
//! | a zone with spaces, or of 10 KB | `a_zone_that_cannot_be_is_refused_before_anything_is_done` |
//! | a group name that is empty, or of 100 KB | `a_name_is_refused_with_a_sentence_that_names_what_is_wrong`, `a_name_off_the_wire_is_parsed_again` |
//! | a config that cannot work | `what_cannot_be_is_refused_with_a_sentence`, `the_defaults_work_and_what_cannot_is_named`, `an_address_that_no_machine_has_is_refused` |
//! | what peers send | `garbage_is_an_error_value`, `a_hello_in_the_name_of_another_node_is_refused` |
//! | what is sent and stored never changes | `the_sent_bytes_never_change`, `the_stored_bytes_never_change`, `the_kept_bytes_never_change`, `the_kept_bytes_never_change_and_damage_is_seen` |
//! | three nodes, a kill, a drain and a majority loss in the README | `the_readme_shows_what_the_example_prints` |
//!
//! The figures are in the README; `cargo xtask sim` runs many seeds of all this, and `cargo xtask bench raft-fleet`
//! measures it.

use std::collections::BTreeSet;
use std::path::Path;

/// A table that names a test which is no more proves nothing.
#[test]
fn every_test_that_the_table_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut there = BTreeSet::new();
    for folder in ["src", "tests"] {
        collect(&root.join(folder), &mut there);
    }
    let this = std::fs::read_to_string(root.join("tests/features.rs")).unwrap();
    let rows = this.lines().filter(|line| line.starts_with("//! |"));
    let named: Vec<&str> = rows.filter_map(|row| row.split('|').nth(2)).flat_map(quoted).collect();
    assert!(named.len() > 90, "only {} tests are named", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !there.contains(**name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The names of the functions that follow a test attribute in all files of a folder.
fn collect(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path).expect("a file of ours");
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let name = line.trim_start_matches("async ").strip_prefix("fn ");
                if let Some(name) = name.and_then(|rest| rest.split('(').next()).filter(|_| is_test) {
                    names.insert(name.to_owned());
                    is_test = false;
                }
            }
        }
    }
}
