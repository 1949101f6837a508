//! What this crate offers, line by line, each with the tests that hold it.
//!
//! | | holds by |
//! |---|---|
//! | 1. an agent is `(quota, agent type, key)` | `two_identities_never_share_a_store_key`, `the_store_key_never_changes`, `the_longest_identity_fits_into_a_store_key` |
//! | it is activated by its first command | `the_first_command_activates_the_agent_and_takes_effect`, `sixty_four_concurrent_first_commands_have_sixty_four_effects` |
//! | a query of one that is not active answers `AgentNotFound` | `an_agent_lives_from_its_first_command_until_it_ends_itself` |
//! | it ends when a handler says so | `an_agent_that_deactivates_itself_is_gone_and_its_reply_arrives`, `an_agent_may_deactivate_itself_at_its_first_command`, `a_timeout_may_set_the_next_end_the_agent_or_let_it_leave_the_memory` |
//! | 2. commands, queries and timeouts, the same on every member | `an_agent_is_what_its_handlers_make_of_it`, `a_follower_does_the_same_to_the_agent_and_tells_nothing` |
//! | hooks after each, on the leader, with the data before and after | `hooks_are_told_of_commands_timeouts_and_queries_with_the_state_before_and_after`, `what_took_effect_is_told_by_whoever_leads_though_nodes_die`, `a_timeout_that_fails_is_not_told` |
//! | without hooks nothing is paid for them | `types_without_hooks_ask_for_none`, `only_a_type_with_hooks_is_ever_copied` |
//! | 3. nothing, timeout after n ticks, deactivation after n ticks without a command, keep | `zero_ticks_is_the_next_tick_and_one_the_next_but_one`, `timeouts_come_at_every_tick_that_was_asked_for_and_no_other`, `an_agent_ends_only_when_it_had_no_command_for_all_of_its_ticks`, `a_command_that_keeps_a_timeout_does_not_put_it_off` |
//! | a timeout handler gets the time | `a_timeout_gets_the_stamped_time_and_is_spent` |
//! | none is lost or comes twice when a node dies | `no_timeout_is_lost_or_comes_twice_when_a_node_dies`, `a_timer_comes_back_from_a_snapshot_as_it_was` |
//! | the tick interval can be set, and a node with another one is told | `every_setting_at_every_time_is_due_after_at_least_its_ticks`, `a_node_with_another_tick_is_told_and_takes_that_of_the_cluster` |
//! | a tick costs in proportion to what is due | `a_tick_wakes_those_who_are_due_and_nobody_else` |
//! | 4. quotas are put, deleted, listed, and say how full they are | `an_agent_needs_a_quota_that_is_there_and_has_a_place`, `quotas_are_listed_in_order_page_after_page`, `the_agents_of_a_deleted_quota_end_and_those_of_its_successor_live` |
//! | unknown quota, full quota, unlimited quota | `an_agent_needs_a_quota_that_is_there_and_has_a_place` |
//! | they are looked at when an agent is activated and at no other time | `agents_over_a_lowered_limit_live_on_through_the_death_of_their_node_and_a_split` |
//! | what failed over still counts | `agents_count_on_when_the_node_that_led_them_dies`, `agents_their_timers_and_their_quota_survive_the_splits_of_their_shard` |
//! | what a dead node had reserved and not confirmed is free again | `what_a_dead_node_had_taken_and_not_used_is_free_again`, `a_place_of_which_nothing_is_heard_is_over_when_its_shard_is_past_its_time` |
//! | 5. rate limits: a query takes 1, a command 3, and the refusal says how long to wait | `a_rate_limit_refuses_what_is_over_it_and_says_how_long_to_wait` |
//! | ... for each node and agent by itself | `tokens_are_of_one_agent_on_one_node` |
//! | 6. timeouts and retries can be set | `a_call_that_reaches_nobody_ends_in_its_time_or_after_its_attempts` |
//! | split and merge policy at the start | `agents_their_timers_and_their_quota_survive_the_splits_of_their_shard` |
//! | a start is the same on every node, any number of times | `a_node_with_another_number_of_shards_takes_what_it_finds`, `after_a_restart_the_next_node_may_die`, `a_cluster_that_is_started_again_and_again_has_one_keyspace_and_one_ledger` |
//!
//! Faults that the ancestor of this crate was seen to have:
//!
//! | | what holds here is proven by |
//! |---|---|
//! | 15. commands of a new agent were numbered by the size of a map: one was lost, one ran for another | `sixty_four_concurrent_first_commands_have_sixty_four_effects`, `all_who_activate_one_agent_at_once_share_its_place` |
//! | 16. a first command that ends the agent told the next client an internal value | `an_agent_may_deactivate_itself_at_its_first_command`, `whoever_comes_beside_a_first_command_that_ends_the_agent_is_told_its_own_reply` |
//! | 17. a command equal to "nothing" could never activate | `no_value_of_a_user_is_taken_for_one_of_ours` |
//! | 18. who had seen no quota removed the agent of who saw one | `the_agents_of_a_deleted_quota_end_and_those_of_its_successor_live`, `who_saw_no_quota_harms_nobody_who_saw_it_made` |
//! | 19. a query during an activation got another error | `a_query_beside_a_first_command_finds_the_agent_or_does_not` |
//! | 20. an invalid answer about ticks ended the shard | `every_setting_at_every_time_is_due_after_at_least_its_ticks` |
//! | 21. a command that keeps a deactivation did not start its count anew | `a_command_that_keeps_a_deactivation_starts_its_countdown_anew`, `an_agent_ends_after_its_ticks_without_a_command` |
//! | 22. a value equal to an internal command was executed as one | `no_value_of_a_user_is_taken_for_one_of_ours` |
//! | 23. 300 concurrent activations under a limit of 10 were all accepted | `a_quota_of_1000_under_64_concurrent_activators_on_three_nodes_ends_at_exactly_1000`, `a_limit_holds_while_nodes_die_and_are_cut_off` |
//! | 24. a command of a type that a node does not know ended the shard | `a_command_for_a_type_that_no_node_knows_is_refused_and_the_shard_lives_on` |
//! | replies of ours and of users shared a namespace | `no_value_of_a_user_is_taken_for_one_of_ours`, `the_bytes_of_the_heads_never_change` |
//! | a client could spin for ever | `a_call_that_reaches_nobody_ends_in_its_time_or_after_its_attempts` |
//! | a failed or abandoned activation kept its place | `an_activation_that_fails_or_ends_at_once_gives_its_place_back`, `what_a_dead_node_had_taken_and_not_used_is_free_again` |
//! | timeouts fired in the middle of an activation | `an_activation_that_fails_leaves_no_timer` |
//!
//! Beyond it:
//!
//! | | holds by |
//! |---|---|
//! | typed handles, cheap and serialisable | `a_handle_serialises_as_the_identity_from_which_it_is_made_again` |
//! | options of a call: time, retries, rate, only if active, idempotency key, stale answers | `a_call_that_reaches_nobody_ends_in_its_time_or_after_its_attempts`, `a_rate_limit_refuses_what_is_over_it_and_says_how_long_to_wait`, `a_handle_that_shall_not_activate_says_so`, `a_command_with_an_idempotency_key_runs_once_whoever_sends_it_again`, `an_answer_that_may_be_stale_is_never_older_than_it_may_be` |
//! | errors of the user's own travel in the reply, those of the call say whether anything changed | `an_error_of_the_agents_own_is_in_its_reply_and_its_effects_stay`, `a_node_that_is_killed_takes_no_acknowledged_command_with_it` |
//! | `#[agent]` | `each_method_is_one_of_the_handles`, `a_message_is_its_tag_and_its_fields`, `the_options_and_the_migration_are_the_agents`, `what_cannot_be_an_agent_is_pointed_at_in_the_users_source` |
//! | handlers know who they are, the time, chance and their revision | `what_a_handler_knows_of_the_world_is_the_same_on_every_member`, `agents_that_are_woken_by_one_command_draw_different_numbers` |
//! | versions of states, `migrate` | `a_state_of_an_earlier_version_becomes_one_of_this_at_the_first_command_of_it`, `versions_that_do_not_come_back_are_refused_at_the_start` |
//! | a cluster runs each type as the newest version that all of its nodes know | `a_version_is_agreed_once_every_node_can_run_it`, `every_node_can_run_what_is_agreed`, `a_dead_node_holds_the_upgrade_up_only_until_it_is_given_up` |
//! | members of two builds are alike, and nothing is lost whichever leads | `members_of_two_builds_are_alike_before_and_after_the_raise`, `nothing_is_lost_in_an_upgrade_in_which_nodes_of_both_builds_die_and_lead` |
//! | a node that does not know a type or a version is refused, and its members end before they skip anything | `a_build_that_cannot_go_on_as_the_others_do_is_refused_and_nothing_is_lost`, `a_member_of_an_earlier_build_ends_at_what_only_a_later_one_can_run`, `one_version_in_two_forms_is_refused` |
//! | bytes that do not decode are kept, and said to be so | `an_unreadable_state_is_kept_and_answered_for_by_itself`, `a_state_that_only_an_earlier_build_can_read_ends_a_member_and_later_none` |
//! | `list_agents`, page after page, resumable | `agents_are_listed_by_quota_type_and_prefix_and_go_on_after_a_failover`, `agents_their_timers_and_their_quota_survive_the_splits_of_their_shard` |
//! | `watch`, in order, without a gap, or `Compacted` | `a_watch_gives_every_change_once_in_order_though_nodes_die`, `a_watch_that_falls_behind_is_told_so_and_one_that_resumes_in_time_misses_nothing`, `a_watch_does_not_take_another_life_of_the_agent_for_its_own` |
//! | `passivate` | `an_agent_that_left_the_memory_is_active_counts_and_comes_back_on_another_node` |
//! | a test kit | `a_game_goes_on_when_nodes_die`, `a_lobby_that_is_cut_off_rolls_no_dice_that_count`, `a_seed_goes_the_same_way_twice` |
//! | a node on its own, in one line, durable with a directory | `agents_and_quotas_are_there_again_when_the_program_starts_anew`, `two_nodes_of_one_program_know_nothing_of_each_other`, `a_directory_that_cannot_be_is_an_error_value` |
//! | examples | `the_program_runs_to_its_end`, `a_game_begins_when_the_seats_are_taken_and_ends_when_nobody_plays`, `a_tenant_has_as_many_sessions_as_it_may_and_a_place_for_another_when_one_ends`, `a_file_says_everything_and_flags_say_it_better` |
//!
//! Bad input:
//!
//! | | holds by |
//! |---|---|
//! | an empty or huge quota, type or key | `every_part_is_checked_where_it_comes_in`, `an_identity_that_cannot_be_is_refused_before_anything_is_sent`, `a_quota_that_cannot_be_is_refused_before_anything_is_sent`, `a_type_whose_name_cannot_be_is_refused_when_the_node_starts` |
//! | two types with one name | `two_types_with_one_name_are_refused_when_the_node_starts` |
//! | a handler that panics, of a command or of a timeout | `a_handler_that_panics_changes_nothing_and_harms_nobody`, `a_timeout_that_panics_harms_no_other_agent` |
//! | a reply above the limit | `a_reply_or_answer_that_is_too_large_changes_nothing` |
//! | a command that does not decode, or is too large | `a_command_or_query_that_does_not_decode_changes_nothing`, `a_command_that_is_too_large_is_not_sent`, `bytes_of_a_stranger_never_panic` |
//! | a state or a value that does not encode | `a_state_that_does_not_encode_is_undone_on_every_member_and_harms_nobody`, `a_query_or_answer_that_does_not_encode_is_an_error_value`, `a_default_state_that_its_encoding_loses_is_refused_at_the_start` |
//! | settings that cannot work | `settings_that_cannot_work_are_refused_before_the_node_joins` |

use std::collections::BTreeSet;
use std::path::Path;

/// A table that names a test which is no more proves nothing.
#[test]
fn every_test_that_the_table_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut there = BTreeSet::new();
    for folder in ["src", "tests", "examples", "macros"] {
        collect(&root.join(folder), &mut there);
    }
    let this = std::fs::read_to_string(root.join("tests/features.rs")).unwrap();
    let rows = this.lines().filter(|line| line.starts_with("//! |"));
    let named: Vec<&str> = rows.filter_map(|row| row.split('|').nth(2)).flat_map(quoted).collect();
    assert!(named.len() > 80, "only {} tests are named", named.len());
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
