//! What this crate offers, line by line, each with the tests that hold it.
//!
//! | | holds by |
//! |---|---|
//! | 1. keyspaces are registered, by any number of nodes, any number of times | `three_nodes_and_a_client_register_one_keyspace_at_once`, `a_registration_that_is_repeated_finds_the_keyspace_as_it_is`, `a_keyspace_whose_maker_died_is_finished_by_the_others` |
//! | ... listed, and their policy told and changed | `the_policy_of_a_keyspace_is_told_and_changed_while_it_lives`, `a_policy_is_changed_and_whoever_registers_with_the_first_one_finds_the_keyspace` |
//! | `InvalidPolicy`, `AlreadyRegistered`, `NoSuchKeyspace` | `a_policy_that_cannot_work_registers_nothing`, `a_keyspace_with_another_policy_is_refused`, `the_policy_of_a_keyspace_is_told_and_changed_while_it_lives` |
//! | a command to an unknown keyspace is an error | `an_unknown_keyspace_is_an_error_value` |
//! | 2. a command gets the value or none, and leaves one or none; sizes and loads are summed | `a_command_creates_changes_and_removes_the_value_of_its_key`, `a_command_that_leaves_no_value_adds_no_key`, `the_load_of_commands_queries_and_misses_is_counted_and_not_replicated` |
//! | a query of a key without a value is `KeyNotFound`, with a load of its own | `a_value_lives_from_its_first_command_until_it_is_removed`, `misses_are_load_where_they_are`, `a_shard_with_too_much_load_is_split_and_one_hot_key_is_told_and_not_split` |
//! | 3. calls mask that a shard is being made | `a_command_and_a_query_to_a_keyspace_that_is_being_made_wait_until_its_shards_serve` |
//! | ... split and merged | `a_shard_is_split_and_merged_again_while_clients_write` |
//! | ... and that its leader changes | `a_move_whose_performer_or_leader_dies_is_finished_by_another` |
//! | ... and end at their timeout, saying whether anything may have run | `a_call_that_nobody_answers_ends_at_its_timeout_and_says_whether_it_may_have_run` |
//! | 4. shards are split and merged by thresholds of keys, size and load, within their limits | `shards_follow_their_policy`, `a_shard_with_too_much_load_is_split_and_one_hot_key_is_told_and_not_split`, `no_split_goes_over_the_limit_of_shards_and_no_merge_under_it`, `neighbours_are_merged_when_all_that_they_have_together_is_little`, `without_thresholds_nothing_is_done` |
//! | the hottest first | `the_hottest_of_all_keyspaces_is_split_first_up_to_the_limit` |
//! | a cooling period | `a_shard_that_moves_or_cools_down_is_left_alone` |
//! | 5. a move is performed by one node at a time | `a_move_is_held_by_one_performer_and_another_takes_it_over_when_that_is_silent`, `a_step_that_was_overtaken_is_refused` |
//! | ... and gone on with by another after a crash at any point | `a_split_whose_performer_dies_at_any_step_goes_on_at_once`, `a_merge_whose_performer_dies_at_any_step_goes_on_at_once`, `a_performer_that_stands_still_while_nobody_serves_the_range_is_replaced_soon`, `a_move_is_taken_from_a_performer_that_is_known_to_be_gone_and_from_no_other`, `a_store_on_disks_that_loses_its_power_during_a_move_comes_back_with_every_command` |
//! | an abort leaves no shard locked | `a_split_that_cannot_be_done_leaves_the_shard_as_it_was`, `an_abort_is_performed_to_its_end_by_whoever_claims_it` |
//! | 6. shards are walked, and the keys of one listed and commanded | `a_command_to_all_keys_of_one_shard_leaves_the_others_alone_and_passes_over_refusals` |
//! | 7. hooks of each key, on the leader only | `the_hooks_of_a_key_run_where_its_shard_is_led_and_nowhere_else`, `only_a_command_that_runs_on_the_leader_has_effects` |
//! | what shards hold is collected from their leaders | `shards_follow_their_policy`, `every_node_reaches_every_key_and_the_keys_are_spread` |
//! | 8. a keyspace that is deregistered leaves no group and no route behind | `a_keyspace_that_is_deregistered_during_a_split_leaves_nothing_behind`, `groups_that_are_nobodys_are_told_from_those_in_use` |
//! | routes heal by themselves | `routes_of_the_past_heal_by_themselves`, `what_a_shard_says_of_its_range_heals_the_route_until_the_list_says_more` |
//! | fault 10: commands during a merge keep their order | `a_shard_is_split_and_merged_again_while_clients_write`, `a_store_that_splits_and_merges_is_a_map` |
//! | fault 11: a keyspace may be deregistered while its shards move | `a_keyspace_may_be_deregistered_while_its_shards_move`, `a_keyspace_that_is_deregistered_during_a_split_leaves_nothing_behind` |
//! | fault 12: an aborted move leaves no shard locked | `an_abort_is_performed_to_its_end_by_whoever_claims_it`, `a_split_that_cannot_be_done_leaves_the_shard_as_it_was` |
//! | fault 13: an unknown keyspace is an error value | `an_unknown_keyspace_is_an_error_value` |
//! | fault 14: a retry after a split or a merge gets its first reply | `a_command_that_is_sent_again_after_a_split_and_a_merge_gets_its_first_reply`, `a_store_that_splits_and_merges_is_a_map` |
//! | load is no part of what is replicated | `the_load_of_commands_queries_and_misses_is_counted_and_not_replicated` |
//! | a command to all keys runs once on each during moves | `a_command_to_all_keys_runs_once_on_each_while_shards_split_and_merge`, `a_store_that_splits_and_merges_is_a_map` |
//! | a pause of 100 ms (measured by `cargo xtask bench raft-kv`), in which hardly anything is left to bring | `a_shard_is_split_and_merged_again_while_clients_write`, `what_is_handed_over_in_the_pause_is_what_changed_just_before` |
//! | commands to other keys never pause | `commands_to_keys_that_stay_are_not_held_up_by_a_split` |
//! | data moves in chunks, in the background | `a_store_that_splits_and_merges_is_a_map`, `what_is_handed_over_in_the_pause_is_what_changed_just_before` |
//! | split where it halves what there is too much of | `a_split_halves_the_load_and_not_the_range` |
//! | a single hot key is told | `a_key_that_is_over_the_threshold_alone_is_reported_and_not_split`, `a_hash_with_most_of_the_load_is_found_among_others`, `load_that_is_spread_has_no_hash_with_half_of_it`, `load_that_is_long_over_says_nothing_of_the_present` |
//! | several moves at once, up to a limit | `several_shards_are_split_at_once`, `a_move_that_cannot_be_is_refused_by_name` |
//! | exactly once across moves, whatever interleaves | `a_store_that_splits_and_merges_is_a_map` |
//! | scans over all shards, paged and resumable | `a_scan_gives_every_key_once_while_shards_split_and_merge` |
//! | `multi_get`, `compare_and_set`, no callback | `a_store_of_bytes_needs_no_callback`, `a_value_is_set_only_if_it_is_what_is_expected` |
//! | `examples/store.rs` | `the_store_answers_its_lines_and_keeps_what_it_was_told` |
//! | large shards are written down beside their loop | `a_frozen_shard_is_written_as_it_was_whatever_is_done_to_it_meanwhile` |
//! | keys over the limit | `a_store_of_bytes_needs_no_callback`, `a_head_that_does_not_decode_is_refused` |
//! | values over the limit, of every type | `a_value_of_any_type_that_would_be_too_large_changes_nothing_and_keys_beside_it_go_on`, `a_value_that_would_be_too_large_stays_as_it_was_and_its_size_and_the_limit_are_told`, `a_small_value_that_has_no_copy_and_grows_past_the_limit_at_once_is_undone_by_the_engine` |
//! | a policy with min over max, or a ratio over 1 | `the_policy_of_a_keyspace_is_told_and_changed_while_it_lives`, `a_policy_names_the_setting_that_cannot_work` |
//! | a callback that panics | `a_command_that_panics_changes_nothing_and_keys_beside_it_go_on` |
//! | a divergence that is found all the same | `a_member_whose_values_are_not_as_the_others_is_fenced_and_the_store_goes_on` |
//! | bytes of a stranger, of a peer and of a damaged disk | `bytes_of_a_stranger_never_panic`, `a_keyspace_whose_shards_leave_a_hash_out_or_share_one_is_told`, `the_seeds_are_what_the_code_writes`, `every_target_survives_mutations_of_its_seeds`, `a_snapshot_that_is_damaged_is_refused_and_leaves_the_shard_as_it_was` |

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
    assert!(named.len() > 60, "only {} tests are named", named.len());
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
