//! What this crate offers, line by line, each with the tests that hold it.
//!
//! | | holds by |
//! |---|---|
//! | 1. `cast` | `casts_keep_their_order_on_each_lane_whatever_their_size`, `messages_may_be_sent_from_outside_the_runtime` |
//! | `call` and `reply` | `a_call_comes_back_in_both_directions_over_one_connection`, `many_calls_in_flight_each_get_their_own_answer` |
//! | ... and why there is no answer | `a_call_nobody_answers_fails_at_once_with_what_is_known`, `a_call_that_takes_too_long_times_out_and_its_late_answer_is_counted`, `calls_end_at_their_own_time_whatever_the_order_of_their_deadlines` |
//! | `broadcast`: one copy a node, fanned out there | `a_broadcast_goes_once_to_each_node_and_to_each_of_its_services` |
//! | order between two nodes on a lane | `casts_keep_their_order_on_each_lane_whatever_their_size`, `batches_hold_whole_messages_in_order`, `messages_come_out_in_order_whether_packed_or_not` |
//! | ... also for what waits for a connection | `what_is_queued_during_the_first_dial_is_sent_when_it_succeeds` |
//! | local messages bypass everything | `messages_to_the_own_node_are_delivered_in_order_without_a_network` |
//! | 2. natural batching, no added wait | `a_lone_call_is_flushed_at_once_and_one_of_several_is_gathered`, `a_quiet_lane_is_flushed_by_its_sender_and_a_busy_one_by_its_writer` |
//! | `wait_max` | `a_message_that_may_wait_goes_when_its_time_has_come`, `what_may_wait_waits_for_company_or_its_time_and_a_full_batch_goes_at_once` |
//! | `batch_messages_max`, `batch_bytes_max` | `a_batch_holds_no_more_than_its_settings_allow_unless_a_message_does`, `statistics_tell_messages_raw_and_sent_bytes_of_each_batch` |
//! | settings at runtime, for all or one peer, with getters | `settings_are_changed_for_all_or_one_and_can_be_read_back`, `settings_out_of_range_are_named` |
//! | `collect_sending_stats` | `statistics_tell_messages_raw_and_sent_bytes_of_each_batch`, `a_collection_is_bounded_and_leaves_nothing_behind` |
//! | casts to a disconnected node are counted drops | `a_call_to_a_dead_node_fails_within_the_connect_timeout_and_then_at_once`, `a_full_queue_is_an_error_and_counted`, `a_refusing_queue_drops_what_waits_and_says_why` |
//! | a call to a node out of reach fails at once | `a_call_to_a_node_nobody_knows_fails_at_once`, `a_call_to_a_dead_node_fails_within_the_connect_timeout_and_then_at_once`, `calls_in_flight_to_a_node_that_closes_are_lost_at_once` |
//! | 3. mutual TLS only | `a_node_of_another_ca_is_refused_whichever_side_dials`, `a_certificate_of_another_ca_is_refused_by_the_accepting_side`, `a_name_that_is_not_in_the_certificate_is_refused` |
//! | cluster id in the handshake | `a_node_of_another_cluster_is_refused_whichever_side_dials`, `a_peer_that_turns_out_to_be_of_another_cluster_is_cut_off` |
//! | wire version in the handshake, and bytes that do not change | `a_node_of_another_wire_version_is_refused_with_both_numbers`, `the_dialler_says_that_the_other_side_speaks_another_wire_version`, `the_bytes_of_the_handshake_are_those_of_version_2`, `the_bytes_of_each_frame_are_those_of_version_1`, `the_bytes_of_packs_and_fan_outs_do_not_change` |
//! | an id is not taken from a node that holds it | `the_id_of_a_connected_node_is_not_given_to_one_of_another_name`, `a_node_that_claims_the_own_id_is_refused` |
//! | certificates by the library | `certificates_that_were_saved_are_read_back_and_work`, `nothing_that_exists_is_overwritten_and_nothing_is_left_half_done`, `private_keys_are_saved_for_their_owner_only`, `the_key_of_another_ca_is_not_taken` |
//! | ... reloaded without a restart, the CA too | `certificates_are_reloaded_under_load_without_a_failed_call`, `the_ca_of_running_nodes_is_replaced_without_losing_a_connection`, `an_identity_of_another_name_is_not_taken_and_the_old_one_stays` |
//! | ... whose end is told ahead of time | `that_a_certificate_ends_is_an_event_ahead_of_time_and_so_is_its_renewal`, `a_certificate_is_followed_through_its_life_after_a_reload_too`, `the_log_tells_of_it_when_it_is_new_and_once_a_day` |
//! | 4. separate lanes | `a_full_bulk_lane_does_not_hold_up_the_control_lane`, `a_large_message_goes_through_the_bulk_lane_and_not_through_the_others` |
//! | a rate cap for bulk | `the_bulk_lanes_keep_to_their_rate_and_the_others_do_not_wait`, `over_time_no_more_than_the_rate_is_sent`, `a_slice_is_what_the_rate_brings_in_a_millisecond` |
//! | bounded memory a peer | `the_worst_that_a_peer_can_do_costs_bounded_memory_and_no_friend`, `answers_to_a_peer_that_does_not_read_them_are_bounded`, `what_one_peer_can_make_a_node_hold_is_known_and_grows_with_the_limits` |
//! | no 0-RTT | `nothing_is_said_before_the_handshake_even_by_a_client_that_would` |
//! | connection migration | `a_peer_whose_address_changes_keeps_its_connection_unless_that_is_off` |
//! | 5. `Up`, `Suspect`, `Down` as a bounded stream | `a_process_that_is_stopped_is_suspected_then_cleared_or_given_up_as_silent`, `a_peer_is_suspected_once_for_each_silence_and_cleared_when_it_is_heard`, `a_slow_watch_is_told_how_much_it_missed_and_goes_on_with_the_rest` |
//! | a killed process is told of by its lifeline (two processes) | `the_death_of_a_process_that_was_dialled_shows_by_its_lifeline`, `the_death_of_a_process_that_dialled_shows_by_its_lifeline` |
//! | ... which is bound by a nonce and carries nothing | `a_nonce_works_once_and_the_end_of_the_first_lifeline_is_the_peers_death`, `a_nonce_that_nobody_waits_for_is_refused_without_a_word`, `a_peer_that_sends_anything_on_its_lifeline_loses_its_connection` |
//! | ... and is capped for strangers | `strangers_past_the_limit_are_hung_up_on_at_once`, `a_stranger_that_says_nothing_is_hung_up_on_after_the_connect_timeout` |
//! | ... and may be missing | `without_a_lifeline_a_death_shows_by_its_silence`, `a_node_whose_tcp_port_is_taken_does_without_a_lifeline_until_it_is_free` |
//! | a goodbye | `a_node_that_closes_has_left_at_once_and_everything_it_sent_has_arrived`, `a_client_that_ends_normally_causes_no_warning` |
//! | a suspicion changes nothing | `a_process_that_is_stopped_is_suspected_then_cleared_or_given_up_as_silent` |
//! | 6. jittered reconnect | `backoff_stays_between_half_the_minimum_and_the_maximum`, `a_node_that_comes_up_late_is_reached_without_being_named_again`, `a_node_that_moved_is_reached_at_its_new_address` |
//! | one connection a pair when both dial | `when_both_dial_at_once_one_connection_stays_and_every_message_is_answered`, `when_both_dial_over_a_slow_network_one_connection_stays_at_any_offset`, `when_both_discover_each_other_one_connection_stays` |
//! | restarts under the same and under another id | `through_a_storm_of_restarts_every_call_is_what_its_error_says`, `a_restarted_node_of_the_same_id_is_down_before_it_is_up_again`, `a_node_restarted_under_a_new_id_makes_the_old_one_unreachable_quickly`, `a_restarted_node_that_dials_replaces_its_predecessor_on_arrival` |
//! | 7. compression | `compressed_lanes_carry_the_same_messages_in_fewer_bytes`, `what_is_packed_comes_out_again_with_every_algorithm` |
//! | ... only where it pays | `what_does_not_shrink_is_not_packed_and_the_next_batches_are_not_tried`, `a_snapshot_of_many_packs_arrives_whole_whether_it_shrinks_or_not` |
//! | ... and never past a limit | `a_pack_that_claims_or_holds_too_much_is_refused`, `a_bomb_of_every_algorithm_is_refused` |
//! | payloads are received without a copy | `a_frame_inside_a_chunk_is_not_copied` |
//! | metrics, documented | `every_counter_is_in_the_readme`, `gauges_tell_what_is_held_now`, `every_counter_is_published_under_its_name_with_the_node_as_label`, `metrics_are_published_at_the_interval` |
//! | IPv4 and IPv6 | `nodes_talk_over_ipv6`, `a_node_that_listens_on_all_addresses_is_reached_by_both_kinds_and_has_its_lifelines` |
//! | a name is looked up again at each dial | `a_name_is_looked_up_anew_at_each_dial_and_its_addresses_are_tried_in_turn`, `a_node_is_reached_by_a_name_instead_of_an_address` |
//! | 8. bad input: every decoder is fuzzed, over a corpus here | `every_target_survives_its_seeds`, `every_target_survives_its_seeds_cut_off_anywhere_and_with_any_bit_turned`, `every_target_survives_mutations_of_its_seeds`, `the_seeds_reach_every_frame_and_every_message` |
//! | a bomb | `a_bomb_of_every_algorithm_is_refused` |
//! | a flood | `a_flood_of_calls_is_held_to_the_limit_of_those_in_the_hands_of_handlers`, `a_flood_of_packed_casts_leaves_room_for_others`, `a_flood_of_handshakes_that_never_end_does_not_keep_peers_out_for_long`, `garbage_on_the_port_is_counted_and_disturbs_nobody` |
//! | a stall in the middle of a frame | `a_frame_that_stalls_closes_its_connection_only`, `a_pack_that_stops_in_the_middle_of_a_message_stalls_like_any_other` |
//! | a thousand streams | `a_thousand_streams_are_three`, `a_lane_that_is_opened_twice_closes_its_connection_only` |
//! | lies about lengths | `an_oversized_frame_closes_its_connection_only`, `lies_inside_packs_and_fan_outs_are_refused`, `a_claimed_length_reserves_no_more_than_a_step`, `a_control_message_that_stalls_or_lies_about_its_length_costs_its_sender_only` |
//! | ever other ids | `a_member_that_comes_and_goes_under_ever_other_ids_leaves_a_bounded_number_behind`, `too_many_connections_are_refused_and_counted` |
//! | settings, addresses and certificates that make no sense | `a_setting_out_of_range_is_named`, `settings_at_the_ends_of_their_ranges_work`, `an_address_that_is_none_is_an_error_that_names_it`, `an_identity_that_does_not_fit_together_says_what_does_not`, `a_file_that_cannot_be_read_or_is_no_certificate_is_named` |
//! | every verb at once, nodes that close in the middle of it | `every_verb_at_once_on_nodes_that_close_ends_nothing_by_a_panic` |
//! | a handler that panics | `a_handler_that_panics_costs_its_message_only` |
//!
//! Figures are measured by `cargo xtask bench batched-comm`: how small messages fare beside a transfer, what each compression
//! saves and costs, what the outage after a kill is.

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
    assert!(named.len() > 110, "only {} tests are named", named.len());
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
