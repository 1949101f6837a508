//! What this crate offers, line by line, each with the tests that hold it.
//!
//! | | holds by |
//! |---|---|
//! | 1. `take(bucket, rate, capacity, n)`: a full bucket on demand | `a_new_bucket_is_full_and_an_empty_one_tells_when_to_come_back`, `a_bucket_holds_what_an_exact_count_of_its_tokens_says` |
//! | `NotEnoughTokens { wait }`, and the wait is true | `a_new_bucket_is_full_and_an_empty_one_tells_when_to_come_back`, `no_input_panics_and_what_is_taken_is_gone` |
//! | without creation: `NoSuchBucket` | `a_bucket_that_must_not_be_made_is_reported_missing` |
//! | more than the capacity is an error, not a panic (fault 26) | `taking_three_tokens_from_a_bucket_of_two_is_an_error_value_and_takes_none`, `taking_no_token_always_succeeds_and_makes_no_bucket` |
//! | any hashable key | `any_key_that_can_be_hashed_and_compared_names_a_bucket` |
//! | a key is no pattern (fault 25) | `a_key_that_looks_like_a_pattern_touches_no_bucket_but_its_own` |
//! | idle buckets are cleaned up, by takes and by a task | `idle_buckets_are_dropped_by_the_takes_of_others`, `idle_buckets_are_dropped_by_a_task_while_nothing_is_taken` |
//! | ... which never forgets spent tokens | `a_bucket_that_is_not_full_again_is_never_forgotten`, `forgetting_full_buckets_makes_no_difference_while_rate_and_capacity_stay`, `a_bucket_that_somebody_waits_for_is_not_forgotten` |
//! | concurrent use | `many_threads_take_exactly_the_capacity`, `takes_in_opposite_orders_end_and_take_exactly_what_is_there`, `a_waker_that_panics_silences_nobody_else` |
//! | 2. the rate comes with each call: no fresh bucket, no old debt reinterpreted | `a_new_rate_neither_refills_an_empty_bucket_nor_makes_its_debt_longer_than_in_tokens`, `time_that_has_passed_counts_at_the_rate_that_was_in_force` |
//! | ... nor by another capacity | `a_larger_capacity_is_not_filled_for_free`, `a_refused_take_with_a_small_capacity_does_not_wipe_out_what_was_spent` |
//! | ... as an exact count and a dumb twin say | `a_bucket_holds_what_an_exact_count_of_its_tokens_says`, `takes_lines_and_takes_of_several_do_what_a_dumb_twin_says` |
//! | rates are what they say, rounded to the caller's loss | `a_period_is_rounded_up_so_that_no_bucket_fills_faster_than_asked`, `a_rate_of_zero_is_an_error_value` |
//! | 3. `take_or_wait` | `tokens_at_hand_are_had_without_waiting`, `many_threads_in_one_line_are_all_served_and_no_faster_than_the_rate`, `waiting_moves_between_threads` |
//! | ... fair | `waiters_are_served_in_the_order_of_coming_each_as_soon_as_its_tokens_are_there`, `neither_small_requests_nor_plain_takes_overtake_a_large_one_in_front`, `a_waiter_that_is_polled_out_of_turn_does_not_overtake` |
//! | ... safe to cancel | `a_dropped_waiter_gives_back_its_place_and_takes_nothing`, `callers_that_come_and_go_on_many_threads_leave_no_place_behind` |
//! | ... bounded, in callers and in time | `lines_are_bounded_and_whoever_gives_up_makes_room`, `a_wait_is_refused_at_once_if_it_would_take_too_long_and_ends_when_its_time_is_over` |
//! | ... under a rate that changes | `a_new_rate_reaches_those_who_wait_already`, `a_smaller_capacity_sends_away_whoever_waits_for_more_and_the_next_is_served` |
//! | 4. `peek` | `a_look_takes_nothing_makes_no_bucket_and_leaves_the_rate_in_force` |
//! | 5. the clock is injected | `on_tokio_a_paused_clock_stands_still_and_moves_on_when_all_wait`, `a_sleep_wakes_its_task_and_never_ends_early`, `a_clock_whose_sleeps_end_early_gives_no_token_early_and_keeps_no_thread_busy_for_ever` |
//! | 6. takes of several buckets: all or nothing | `all_buckets_give_or_none_does`, `at_the_limit_of_buckets_nothing_is_taken` |
//! | ... and who refuses is named | `the_bucket_with_the_longest_wait_is_named`, `a_refusal_that_waiting_does_not_help_comes_before_all_waits`, `a_list_is_bounded_and_names_each_bucket_once` |
//! | 7. bounded memory | `at_the_limit_full_buckets_make_room_and_others_do_not`, `what_a_take_needs_of_a_shard_lies_in_one_line_of_the_cache` |
//! | 8. bad input: extreme rates, capacities, times, limits | `extreme_rates_capacities_and_times_are_answered_without_a_panic`, `the_slowest_rate_and_the_largest_capacity_can_be_waited_for_and_looked_at`, `no_input_panics_and_what_is_taken_is_gone`, `a_rate_that_cannot_be_counted_in_nanoseconds_is_an_error_value`, `limits_of_nothing_and_of_everything_are_kept_without_a_panic` |
//! | ... a clock that jumps | `a_clock_that_goes_back_hands_out_no_token_twice` |
//! | ... keys whose own code panics | `a_key_that_panics_when_it_is_copied_leaves_everything_as_it_was` |
//!
//! There is no decoder here, so nothing is fuzzed. What is measured is measured by `cargo xtask bench foretoken`.

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
    assert!(named.len() > 45, "only {} tests are named", named.len());
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
