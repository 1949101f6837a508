//! What this crate offers, line by line, each with the tests that hold it; and those tests that belong to no other file.
//!
//! | | holds by |
//! |---|---|
//! | 1. a group of one is started from its settings | `a_group_of_one_answers_at_once`, `a_group_cannot_be_founded_twice_or_of_an_unknown_type` |
//! | a node joins through any member, redirected to the leader | `a_node_joins_through_a_follower_and_holds_everything`, `a_node_joins_while_the_leader_changes` |
//! | no leader, or a join that times out half way: an error, and nothing left over | `without_a_leader_nothing_is_joined_and_nothing_is_left_over`, `a_join_that_times_out_half_way_leaves_no_learner`, `a_group_that_is_not_there_and_a_node_that_is_not_there_are_told_apart` |
//! | 2. commands, queries, stale queries on any member, with a time limit | `three_members_hold_the_same_value`, `a_call_that_is_not_answered_in_time_says_so`, `a_follower_points_to_the_leader_and_a_stranger_says_so` |
//! | errors say whether anything was applied | `every_refusal_of_a_command_says_that_nothing_was_applied`, `a_call_that_is_not_answered_in_time_says_so`, `the_stale_tail_of_a_deposed_leader_is_never_applied` |
//! | 3. a command that is sent again runs once, also after a change of leaders, a snapshot and a restart | `a_command_sent_again_after_hundreds_of_others_runs_once`, `a_command_sent_again_to_a_leader_that_came_by_snapshot_runs_once`, `a_command_that_is_sent_again_after_a_restart_runs_once` |
//! | records are bounded and expire alike on every member | `a_full_table_refuses_new_commands_and_forgets_nothing`, `a_command_past_its_window_is_refused_even_when_its_record_is_gone`, `limits_below_what_is_kept_refuse_what_is_new_and_forget_nothing` |
//! | 4. queries take no entry of the log | `queries_take_no_entry_of_the_log` |
//! | under a lease, past it by a round; a large margin switches it off | `without_a_lease_queries_are_confirmed_by_a_round`, `a_leader_that_is_cut_off_answers_no_query_once_its_lease_has_ended`, `a_margin_as_long_as_the_promise_switches_the_lease_off` |
//! | 5. no removal of the leader | `a_leader_is_not_removed_before_another_leads` |
//! | ... nor of who is no member | `a_follower_is_removed_once_and_was_gone_the_second_time` |
//! | ... nor while another change or a transfer is under way | `nothing_is_removed_while_another_change_or_a_transfer_is_under_way` |
//! | ... nor where it would break the healthy majority | `a_removal_that_would_break_the_healthy_majority_is_refused_with_its_numbers` |
//! | a change of the voters that was answered survives the leader | `a_leader_that_dies_right_after_a_promotion_leaves_members_who_can_elect_another`, `a_leader_that_dies_right_after_a_removal_leaves_members_who_can_elect_another`, `a_promotion_survives_a_loss_of_power_and_the_leader_that_does_not_come_back`, `a_promotion_of_an_async_member_survives_the_end_of_all_processes_and_the_leader_that_stays_away`, `a_promotion_of_an_async_member_survives_the_leader_whose_machine_loses_its_power` |
//! | a learner that lost its state, or whose node is gone | `a_learner_that_lost_its_state_is_never_promoted_and_makes_room_for_one_of_a_new_id`, `a_learner_whose_node_is_gone_costs_its_group_nothing_and_is_removed`, `a_former_member_is_ended_and_a_later_one_may_come` |
//! | 6. leadership moves where it is wanted | `leadership_moves_to_the_chosen_one_of_three_at_once`, `leadership_moves_to_the_chosen_one_of_five_at_once` |
//! | a later call overrides, `None` cancels | `a_later_call_overrides_an_earlier_one`, `a_command_that_comes_during_a_transfer_waits_and_is_applied_after_the_cancel` |
//! | an unresponsive target is refused, no command is lost | `leadership_is_given_to_nobody_who_could_not_take_it`, `commands_that_run_into_a_transfer_are_answered_once_and_in_order` |
//! | 7. a group that lost its majority is brought back by force | `the_last_of_three_members_serves_again_with_all_acknowledged_data`, `the_last_two_of_five_members_serve_again_with_all_acknowledged_data` |
//! | ... and its leader goes on without stepping down | `a_leader_that_removes_by_force_goes_on_without_an_election` |
//! | 8. new settings are in force on every member | `new_settings_are_in_force_on_every_member_and_change_no_leader`, `who_joins_later_and_who_was_away_has_the_new_settings`, `a_shorter_promise_cuts_none_that_an_old_leader_relies_on` |
//! | durability stays what it is, and the refusal says why | `settings_that_cannot_work_and_changes_in_each_others_way_are_refused` |
//! | 9. status | `a_leader_says_how_long_its_lease_lasts_and_who_is_silent`, `a_status_travels`, `an_overloaded_node_says_of_its_members_what_it_has_to_say` |
//! | 10. hooks, on the leader only, at least once, never at replay | `the_leader_tells_each_event_once_with_the_value_before_and_after`, `a_retry_a_refusal_and_a_stale_query_tell_nothing`, `every_command_is_told_at_least_once_whatever_leaders_do`, `a_new_leader_tells_that_its_value_was_restored_and_that_it_leads` |
//! | 11. a whole cluster that loses power keeps what it acknowledged | `a_whole_cluster_that_loses_power_comes_back_with_every_acknowledged_command`, `commands_under_way_when_power_fails_are_whole_or_not_there` |
//! | a restarted member goes on with its own log | `a_member_that_restarts_goes_on_with_its_own_log` |
//! | `Memory` and `Async` lose what they say, and no more | `an_async_member_survives_the_end_of_its_process_but_not_of_the_machine`, `a_member_in_memory_never_comes_back_on_a_node_that_does` |
//! | compaction by the ratio of sizes, the two newest snapshots are kept | `the_log_is_compacted_and_a_late_member_still_gets_everything`, `the_newest_two_and_the_one_in_use_are_kept`, `where_the_newest_snapshot_is_damaged_the_one_before_it_takes_its_place` |
//! | members on disks and in memory give each other snapshots | `members_on_disks_and_in_memory_give_each_other_snapshots` |
//! | `read_last_log_index`, `restore` | `a_group_is_founded_anew_from_the_directory_with_the_newest_log`, `what_cannot_be_restored_is_refused_and_says_why` |
//! | 12. a disruptive former member unseats nobody | `a_removed_member_that_does_not_know_it_unseats_nobody`, `a_busy_follower_does_not_depose_a_healthy_leader` |
//! | a leader that reaches no quorum steps down | `a_leader_that_is_cut_off_answers_no_query_once_its_lease_has_ended` |
//! | 13. three to seven members survive the loss of every minority, on disks or not | `a_group_survives_the_loss_of_every_minority`, `a_group_on_disks_survives_the_loss_of_every_minority` |
//! | ... and every split that leaves a majority together | `a_group_survives_every_split_that_leaves_a_majority_together`, `a_group_on_disks_survives_every_split_that_leaves_a_majority_together` |
//! | a handler that panics changes nothing on any member | `a_handler_that_panics_changes_nothing_on_any_member`, `a_burst_of_panics_costs_in_proportion_to_its_length` |
//! | a durable member's snapshot is in its file only, and pieces are read from there | `a_durable_member_holds_no_snapshot_in_memory`, `a_stream_goes_on_while_newer_snapshots_replace_its_file`, `a_snapshot_in_its_file_costs_no_memory` |
//! | a flipped bit in a snapshot that is sent costs a new one and is never sent | `a_flipped_bit_that_is_found_while_a_snapshot_is_sent_costs_a_new_snapshot_and_nothing_else`, `a_piece_of_a_damaged_snapshot_is_what_was_written_or_an_error`, `snapshots_that_are_damaged_again_and_again_are_taken_no_more_often_than_they_are_sent_again` |
//! | snapshots come in pieces, go on after a cut, and hold up nothing | `a_large_snapshot_comes_whole`, `a_transfer_goes_on_where_it_was_when_the_network_was_cut`, `commands_and_the_lease_go_on_beside_a_slow_transfer` |
//! | ... so many at a time, at a rate | `so_many_snapshots_come_to_a_node_at_a_time_and_the_others_wait_for_their_turn`, `what_is_sent_on_bulk_lanes_leaves_at_its_rate_and_a_pause_is_not_saved_up` |
//! | replication is pipelined | `thousands_of_entries_in_flight_make_no_storm` |
//! | one sync for all groups of a turn | `a_hundred_groups_that_write_together_cost_few_syncs` |
//! | members that differ are found and fenced | `a_member_that_is_not_as_the_others_is_fenced_and_its_command_named`, `a_leader_that_is_not_as_the_others_is_fenced_and_another_goes_on` |
//! | idle groups fall quiet and stay so | `an_idle_group_sends_nothing_but_its_loops_beats`, `a_group_that_is_quiet_for_long_stays_so`, `a_status_says_whether_its_group_is_quiet` |
//! | ... and answer as quickly as ever, without a lease that they have not | `a_command_wakes_a_group_and_is_answered_as_quickly_as_ever`, `a_query_of_a_quiet_leader_waits_for_a_round` |
//! | ... and wake when their leader's node dies, and on any doubt | `the_death_of_a_quiet_leader_that_nobody_reports_is_noticed_within_an_election_timeout`, `the_death_of_a_quiet_leader_that_is_reported_wakes_its_followers_at_once`, `a_leader_that_ends_while_its_loop_goes_on_wakes_its_group`, `a_cut_in_one_direction_wakes_a_quiet_group_and_unseats_nobody`, `a_follower_that_stood_still_unseats_nobody` |
//! | back-pressure instead of queues without end | `every_refusal_of_a_command_says_that_nothing_was_applied`, `an_overloaded_node_says_of_its_members_what_it_has_to_say` |
//! | a shutdown hands leadership over first | `a_leader_that_shuts_down_has_a_successor_before_it_stops`, `the_groups_of_a_node_are_spread_over_their_other_members` |
//! | the outage after a kill that is told | `a_killed_leader_is_replaced_in_time_though_its_followers_do_not_hold_the_same`, `a_killed_leader_of_five_is_replaced_in_time` |
//! | a full disk | `a_full_disk_fences_its_members_with_the_file_and_all_come_back_once_there_is_room`, `a_node_does_not_start_on_a_disk_that_is_full_from_the_start` |
//! | a directory that may not be written | `a_directory_that_may_not_be_written_is_a_typed_error_with_the_file` |
//! | a torn tail | `what_was_synced_is_there_and_nothing_is_half_there`, `a_flipped_bit_before_the_last_batch_is_no_torn_tail` |
//! | a flipped bit in the log or in a snapshot | `every_flipped_bit_gives_an_error_or_what_was_written`, `every_flipped_bit_is_corrupt_and_names_the_file`, `a_flipped_bit_in_the_log_is_named_and_nothing_is_overwritten` |
//! | two processes on one directory | `a_second_process_on_one_directory_is_refused_and_the_first_goes_on`, `a_directory_in_use_or_of_another_node_is_refused_and_left_as_it_is` |
//! | a directory of another node or cluster | `a_directory_of_another_node_or_cluster_is_refused_and_left_as_it_is` |
//! | a newer format | `a_snapshot_of_a_newer_format_fences_its_member_alone_and_names_the_file`, `a_newer_format_is_named_with_its_version` |
//!
//! The faults that the ancestor of this crate was seen to have are listed in `tests/faults.rs`.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::future::join_all;
use rafted_value::env::Env;
use rafted_value::{
    ClientSession, Command, CommandError, Found, Freshness, GroupConfig, GroupId, NotApplied, QueryError,
    Role, SessionId, Unknown, encode,
};
use support::{Change, GROUP, MS, SECOND, World, stale};

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

fn command(env: &dyn Env, change: &Change) -> Command {
    let mut session = ClientSession::new(SessionId::new(env.random_u64(), env.random_u64()), 1);
    session.begin(env.wall_ms() + 60_000, 0, encode(change)).expect("nothing else waits")
}

fn send(world: &World, node: usize, group: GroupId, command: Command) -> Result<bytes::Bytes, CommandError> {
    let host = world.nodes[node].host.clone();
    world.run(5 * SECOND, async move { host.command(group, command, SECOND).await })
}

#[test]
fn every_refusal_of_a_command_says_that_nothing_was_applied() {
    let mut world = World::empty(1);
    world.config = GroupConfig {
        command_bytes_max: 1_000,
        session_replies_max: 4,
        retry_window_max_ms: 100_000,
        ..GroupConfig::default()
    };
    world.host_config.group_waiting_max = 4;
    for _ in 0..3 {
        world.start_node();
    }
    world.found_on_all();
    world.sim.run_for(SECOND);
    let leader = world.leader();
    let follower = (leader + 1) % 3;
    let env = world.nodes[leader].env.clone();
    let add = || command(env.as_ref(), &Change::Add("a".into(), 1));
    let refused = |node, group, command| match send(&world, node, group, command) {
        Err(CommandError::NotApplied(why)) => why,
        other => panic!("{other:?}"),
    };
    let hint = Some(world.nodes[leader].id());
    assert_eq!(refused(follower, GROUP, add()), NotApplied::NotLeader { group: GROUP, leader: hint });
    let stranger = GroupId(5);
    assert_eq!(refused(leader, stranger, add()), NotApplied::NoSuchGroup(stranger));
    let large = command(env.as_ref(), &Change::Add("x".repeat(2_000), 1));
    assert!(matches!(refused(leader, GROUP, large), NotApplied::TooLarge { limit_bytes: 1_000, .. }));
    let long = Command { retry_until_ms: env.wall_ms() + 200_000, ..add() };
    assert!(matches!(refused(leader, GROUP, long), NotApplied::RetryWindowTooLong { limit_ms: 100_000, .. }));
    let backwards = Command { sequence: 1, acknowledged: 2, ..add() };
    assert!(matches!(refused(leader, GROUP, backwards), NotApplied::Malformed(_)));
    let garbage = Command { payload: bytes::Bytes::from_static(&[255; 9]), ..add() };
    assert!(matches!(refused(leader, GROUP, garbage), NotApplied::Refused(_)));
    // More at a time than may wait: the others go through.
    let host = world.nodes[leader].host.clone();
    let flood: Vec<Command> = (0..20).map(|_| add()).collect();
    let sent = flood.into_iter().map(move |command| {
        let host = host.clone();
        async move { host.command(GROUP, command, SECOND).await }
    });
    let answers = world.run(5 * SECOND, join_all(sent));
    let overloaded = |answer: &&Result<_, CommandError>| {
        matches!(answer, Err(CommandError::NotApplied(NotApplied::Overloaded { retry_after_ms: 1.. })))
    };
    assert!(answers.iter().filter(overloaded).count() >= 10, "{answers:?}");
    // The table of sessions has room for four replies, which nobody acknowledges.
    assert!(matches!(refused(leader, GROUP, add()), NotApplied::SessionTableFull { limit: 4, .. }));
    let applied = answers.iter().filter(|answer| answer.is_ok()).count() as i64;
    world.sim.run_for(SECOND);
    let host = world.nodes[follower].host.clone();
    let value = world.run(SECOND, async move { stale(&host).await });
    assert_eq!(value.counts.get("a").copied().unwrap_or(0), applied, "{answers:?}");
    assert!((1..=4).contains(&applied), "{answers:?}");
}

#[test]
fn a_call_that_is_not_answered_in_time_says_so() {
    let world = World::with_group(2, 3);
    world.sim.run_for(SECOND);
    let leader = world.leader();
    world.cut_off(leader);
    let env = world.nodes[leader].env.clone();
    let command = command(env.as_ref(), &Change::Add("a".into(), 1));
    let host = world.nodes[leader].host.clone();
    let limit = 50 * MS;
    let answer = world.run(SECOND, async move { host.command(GROUP, command, limit).await });
    assert_eq!(
        answer,
        Err(CommandError::Unknown(Unknown::Timeout { limit_ms: 50 })),
        "it may be applied yet"
    );
    world.sim.run_for(200 * MS);
    let host = world.nodes[leader].host.clone();
    let latest =
        world.run(SECOND, async move { host.query(GROUP, Freshness::Latest, encode(&()), limit).await });
    assert_eq!(latest, Err(QueryError::Timeout { limit_ms: 50 }));
    // Whoever asks for an old value gets it, from any member that is there.
    for node in 0..3 {
        let host = world.nodes[node].host.clone();
        assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts.get("a"), None);
    }
}

/// The records of the sessions are in the snapshot that a new member begins with.
#[test]
fn a_command_sent_again_to_a_leader_that_came_by_snapshot_runs_once() {
    let mut world = World::with_group(3, 1);
    let env = world.nodes[0].env.clone();
    let command = command(env.as_ref(), &Change::Add("a".into(), 5));
    let first = send(&world, 0, GROUP, command.clone());
    world.start_node();
    world.add_voter(0, 1);
    world.sim.run_for(SECOND);
    let moved = world.replace_leader(0, Some(1));
    world.end(moved).unwrap();
    world.sim.run_for(100 * MS);
    assert_eq!(send(&world, 1, GROUP, command), first);
    let host = world.nodes[1].host.clone();
    assert_eq!(world.run(SECOND, async move { stale(&host).await }).counts["a"], 5);
}

#[test]
fn queries_take_no_entry_of_the_log() {
    for margin in [20, 1_000] {
        let mut world = World::empty(4);
        world.config = GroupConfig { clock_drift_margin_ms: margin, ..GroupConfig::default() };
        for _ in 0..3 {
            world.start_node();
        }
        world.found_on_all();
        world.sim.run_for(SECOND);
        let leader = world.leader();
        let before = world.status(leader);
        assert_eq!(before.leased, margin < before.config.promise_ms);
        let mut client = world.client();
        world.run(10 * SECOND, async move {
            for _ in 0..100 {
                client.read().await;
            }
        });
        let after = world.status(leader);
        assert_eq!((after.last_index, after.term), (before.last_index, before.term));
    }
}

/// It hears nothing and is heard: it campaigns as a voter that it is no more.
#[test]
fn a_removed_member_that_does_not_know_it_unseats_nobody() {
    for seed in 10..20 {
        let mut world = World::with_group(seed, 4);
        world.sim.run_for(SECOND);
        let leader = world.leader();
        let removed = (leader + 1) % 4;
        let others: Vec<String> =
            (0..4).filter(|node| *node != removed).map(|node| world.nodes[node].address()).collect();
        world.sim.partition_one_way(&others, &[world.nodes[removed].address()]);
        let (host, member) = (world.nodes[leader].host.clone(), world.member_on(leader, removed).unwrap());
        world.run(5 * SECOND, async move { host.remove_member(GROUP, member).await }).unwrap();
        let term = world.status(leader).term;
        let mut client = world.client();
        client.favourite = leader;
        let total = world.run(30 * SECOND, async move {
            for _ in 0..300 {
                client.add("a", 1).await;
                rafted_value::env::sleep(client.env.as_ref(), 20 * MS).await;
            }
            client.read().await.counts["a"]
        });
        assert_eq!(total, 300);
        assert_ne!(world.status(removed).role, Role::Leader);
        let status = world.status(leader);
        assert_eq!((status.role, status.term), (Role::Leader, term), "seed {seed}: it was unseated");
    }
}

/// Every group writes in the same turn: they share writes and syncs.
#[test]
fn a_hundred_groups_that_write_together_cost_few_syncs() {
    const GROUPS: u64 = 100;
    let mut world = World::empty(5);
    world.host_config.loops = 1;
    world.start_durable_nodes(1);
    let (host, node) = (world.nodes[0].host.clone(), world.nodes[0].id());
    for group in 1..=GROUPS {
        let config = GroupConfig::default();
        let found = Found { group: GroupId(group), data: "counters".into(), config, nodes: vec![node] };
        let host = host.clone();
        world.run(SECOND, async move { host.found(found).await }).unwrap();
    }
    world.sim.run_for(SECOND);
    let before = world.nodes[0].disk().syncs();
    let env = world.nodes[0].env.clone();
    let sent = (1..=GROUPS).map(|group| {
        let (host, command) = (host.clone(), command(env.as_ref(), &Change::Add("a".into(), 1)));
        async move { host.command(GroupId(group), command, SECOND).await }
    });
    let sent: Vec<_> = sent.collect();
    let answers = world.run(5 * SECOND, join_all(sent));
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let syncs = world.nodes[0].disk().syncs() - before;
    assert!((1..=5).contains(&syncs), "{syncs} syncs for {GROUPS} groups");
}
