//! Waiting in line for tokens, on a clock that the test moves.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use crate::crowd::Crowd;
use foretoken::{Clock, Config, Foretoken, ManualClock, Rate, Sleep, Take, TakeError};

const MS: Duration = Duration::from_millis(1);
const NANO: Duration = Duration::from_nanos(1);

fn every(period: Duration) -> Rate {
    Rate::one_per(period).expect("the test's period is above zero")
}

/// A bucket "b" of five tokens, one per ms, that is empty now.
fn emptied(config: &Config) -> (Foretoken<&'static str>, ManualClock, Take) {
    let clock = ManualClock::new();
    let buckets = Foretoken::with(config, Arc::new(clock.clone()), RandomState::new());
    let take = Take::new(every(MS), 5);
    buckets.take_with(&"b", take.tokens(5)).expect("a new bucket is full");
    (buckets, clock, take)
}

fn wait_of(answer: Result<(), TakeError>) -> Duration {
    answer.expect_err("the bucket is empty").wait().expect("waiting helps")
}

#[test]
fn waiters_are_served_in_the_order_of_coming_each_as_soon_as_its_tokens_are_there() {
    let (buckets, clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    let first = crowd.join(buckets.take_or_wait(&"b", take.tokens(2)));
    let second = crowd.join(buckets.take_or_wait(&"b", take));
    let third = crowd.join(buckets.take_or_wait(&"b", take.tokens(3)));
    clock.advance(2 * MS - NANO);
    assert_eq!(crowd.run(), []);
    clock.advance(NANO);
    assert_eq!(crowd.run(), [(first, Ok(()))]);
    clock.advance(MS);
    assert_eq!(crowd.run(), [(second, Ok(()))]);
    clock.advance(3 * MS);
    assert_eq!(crowd.run(), [(third, Ok(()))]);
    assert_eq!(buckets.waiting(), 0);
    assert_eq!(clock.next_wake_nanos(), None, "nobody sleeps any more");
}

#[test]
fn tokens_at_hand_are_had_without_waiting() {
    let (buckets, clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    let other = crowd.join(buckets.take_or_wait(&"new", take.tokens(5)));
    clock.advance(MS);
    let same = crowd.join(buckets.take_or_wait(&"b", take));
    let none = crowd.join(buckets.take_or_wait(&"b", take.tokens(0)));
    assert_eq!(crowd.run(), [(other, Ok(())), (same, Ok(())), (none, Ok(()))]);
}

#[test]
fn neither_small_requests_nor_plain_takes_overtake_a_large_one_in_front() {
    let (buckets, clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    let large = crowd.join(buckets.take_or_wait(&"b", take.tokens(5)));
    let small = crowd.join(buckets.take_or_wait(&"b", take));
    clock.advance(4 * MS);
    assert_eq!(crowd.run(), []);
    assert_eq!(
        wait_of(buckets.take_with(&"b", take)),
        3 * MS,
        "one ms for the large one, and two tokens more"
    );
    let peek = buckets.peek(&"b", take).unwrap();
    assert_eq!((peek.tokens, peek.waiters, peek.wait), (4, 2, 3 * MS));
    clock.advance(MS);
    assert_eq!(crowd.run(), [(large, Ok(()))]);
    clock.advance(MS);
    assert_eq!(crowd.run(), [(small, Ok(()))]);
}

#[test]
fn a_waiter_that_is_polled_out_of_turn_does_not_overtake() {
    let (buckets, clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    let large = crowd.join(buckets.take_or_wait(&"b", take.tokens(5)));
    let small = crowd.join(buckets.take_or_wait(&"b", take));
    clock.advance(4 * MS);
    crowd.poll(small);
    assert_eq!(crowd.run(), []);
    clock.advance(MS);
    crowd.poll(small);
    assert_eq!(crowd.run(), [(large, Ok(()))]);
}

/// A bucket that is full does not go on filling: the line's tokens beyond the capacity come later.
#[test]
fn a_line_that_wants_more_than_the_capacity_is_waited_for_although_the_bucket_is_full() {
    let (buckets, clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    crowd.join(buckets.take_or_wait(&"b", take.tokens(4)));
    clock.advance(100 * MS);
    assert_eq!(wait_of(buckets.take_with(&"b", take.tokens(4))), 3 * MS);
    assert_eq!(buckets.take_with(&"b", take), Ok(()));
}

#[test]
fn a_plain_take_gets_what_those_in_line_leave_over() {
    let (buckets, clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    let waiter = crowd.join(buckets.take_or_wait(&"b", take.tokens(2)));
    clock.advance(3 * MS);
    // The waiter has been woken and not polled yet: its two tokens stay for it.
    assert_eq!(buckets.take_with(&"b", take), Ok(()));
    assert_eq!(wait_of(buckets.take_with(&"b", take)), MS);
    assert_eq!(crowd.run(), [(waiter, Ok(()))]);
}

#[test]
fn a_dropped_waiter_gives_back_its_place_and_takes_nothing() {
    let (buckets, clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    let callers = [3, 4, 1, 1].map(|n| crowd.join(buckets.take_or_wait(&"b", take.tokens(n))));
    assert!(crowd.give_up(callers[1]), "from the middle");
    assert_eq!(buckets.peek(&"b", take).unwrap().waiters, 3);
    assert!(crowd.give_up(callers[0]), "from the front: the third moves up at once");
    clock.advance(MS);
    assert_eq!(crowd.run(), [(callers[2], Ok(()))]);
    clock.advance(MS);
    // Woken and dropped before it looked: its token is still there.
    assert!(crowd.give_up(callers[3]));
    assert_eq!(buckets.take_with(&"b", take), Ok(()));
    assert_eq!(buckets.waiting(), 0);
}

#[test]
fn a_wait_is_refused_at_once_if_it_would_take_too_long_and_ends_when_its_time_is_over() {
    let (buckets, clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    let refused = crowd.join(buckets.take_or_wait_for(&"b", take.tokens(3), 3 * MS - NANO));
    let first = crowd.join(buckets.take_or_wait_for(&"b", take.tokens(3), 3 * MS));
    let second = crowd.join(buckets.take_or_wait_for(&"b", take.tokens(2), 5 * MS));
    let too_late = crowd.join(buckets.take_or_wait_for(&"b", take, 6 * MS - NANO));
    let answers = crowd.run();
    assert_eq!(answers.iter().map(|(caller, _)| *caller).collect::<Vec<_>>(), [refused, too_late]);
    assert_eq!(wait_of(answers[0].1), 3 * MS);
    assert_eq!(wait_of(answers[1].1), 6 * MS, "those in line are counted in");
    clock.advance(3 * MS);
    assert_eq!(crowd.run(), [(first, Ok(()))], "to the nanosecond");
    // The rate falls: what would have been two ms is twenty.
    assert!(buckets.take(&"b", every(10 * MS), 5, 1).is_err());
    clock.advance(2 * MS);
    let answers = crowd.run();
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].0, wait_of(answers[0].1)), (second, 18 * MS));
}

#[test]
fn a_waiter_behind_another_leaves_when_its_time_is_over() {
    let (buckets, clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    let first = crowd.join(buckets.take_or_wait(&"b", take.tokens(2)));
    let second = crowd.join(buckets.take_or_wait_for(&"b", take, 4 * MS));
    assert!(buckets.take(&"b", every(10 * MS), 5, 1).is_err());
    clock.advance(4 * MS);
    let answers = crowd.run();
    assert_eq!(
        (answers[0].0, wait_of(answers[0].1)),
        (second, 26 * MS),
        "three tokens, less what has come in"
    );
    clock.advance(16 * MS);
    assert_eq!(crowd.run(), [(first, Ok(()))]);
}

#[test]
fn lines_are_bounded_and_whoever_gives_up_makes_room() {
    let config = Config { waiters_per_bucket_max: 2, waiters_max: 3, ..Config::default() };
    let (buckets, _clock, take) = emptied(&config);
    buckets.take_with(&"c", take.tokens(5)).unwrap();
    let mut crowd = Crowd::default();
    let first = crowd.join(buckets.take_or_wait(&"b", take));
    crowd.join(buckets.take_or_wait(&"b", take));
    let of_bucket = crowd.join(buckets.take_or_wait(&"b", take));
    crowd.join(buckets.take_or_wait(&"c", take));
    let of_all = crowd.join(buckets.take_or_wait(&"c", take));
    let refused = |limit| Err(TakeError::TooManyWaiters { limit });
    assert_eq!(crowd.run(), [(of_bucket, refused(2)), (of_all, refused(3))]);
    assert_eq!(buckets.waiting(), 3);
    crowd.give_up(first);
    crowd.join(buckets.take_or_wait(&"b", take));
    assert_eq!(crowd.run(), []);
    drop(crowd);
    assert_eq!(buckets.waiting(), 0);
    assert_eq!(buckets.peek(&"b", take).unwrap().waiters, 0);
}

#[test]
fn a_new_rate_reaches_those_who_wait_already() {
    let (buckets, clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    let hourly = Take::new(every(Duration::from_secs(3600)), 5);
    let waiters = [1, 2].map(|n| crowd.join(buckets.take_or_wait(&"b", hourly.tokens(n))));
    clock.advance(10 * MS);
    assert_eq!(crowd.run(), []);
    assert_eq!(
        wait_of(buckets.take_with(&"b", take)),
        4 * MS - Duration::from_nanos(2),
        "an hourly token's 10 ms"
    );
    clock.advance(MS);
    assert_eq!(crowd.run(), [(waiters[0], Ok(()))]);
    clock.advance(2 * MS);
    assert_eq!(crowd.run(), [(waiters[1], Ok(()))]);
}

#[test]
fn a_smaller_capacity_sends_away_whoever_waits_for_more_and_the_next_is_served() {
    let (buckets, clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    let large = crowd.join(buckets.take_or_wait(&"b", take.tokens(4)));
    let small = crowd.join(buckets.take_or_wait(&"b", take));
    assert!(buckets.take(&"b", every(MS), 3, 1).is_err());
    assert_eq!(crowd.run(), [(large, Err(TakeError::MoreThanCapacity { n: 4, capacity: 3 }))]);
    clock.advance(MS);
    assert_eq!(crowd.run(), [(small, Ok(()))]);
}

#[test]
fn what_can_never_be_had_is_refused_without_waiting() {
    let (buckets, _clock, take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    let too_many = crowd.join(buckets.take_or_wait(&"b", take.tokens(6)));
    let missing = crowd.join(buckets.take_or_wait(&"missing", take.existing_only()));
    let refused = TakeError::MoreThanCapacity { n: 6, capacity: 5 };
    assert_eq!(crowd.run(), [(too_many, Err(refused)), (missing, Err(TakeError::NoSuchBucket))]);
}

#[test]
fn a_bucket_that_somebody_waits_for_is_not_forgotten() {
    let config = Config { buckets_max: 1, idle_threshold: Duration::ZERO, ..Config::default() };
    let (buckets, clock, take) = emptied(&config);
    let mut crowd = Crowd::default();
    let waiter = crowd.join(buckets.take_or_wait(&"b", take.tokens(2)));
    // Full, because the waiter has been woken and not polled.
    clock.advance(100 * MS);
    assert_eq!(buckets.drop_idle(), 0);
    for other in ["c", "d", "e", "f"] {
        assert_eq!(buckets.take_with(&other, take), Err(TakeError::TooManyBuckets { limit: 1 }));
    }
    assert_eq!(crowd.run(), [(waiter, Ok(()))]);
    clock.advance(100 * MS);
    assert_eq!(buckets.drop_idle(), 1);
}

#[test]
fn idle_buckets_are_dropped_by_a_task_while_nothing_is_taken() {
    let (buckets, clock, _take) = emptied(&Config::default());
    let mut crowd = Crowd::default();
    crowd.join(async { match buckets.keep_dropping_idle().await {} });
    for (minutes, left) in [(9, 1), (1, 1), (10, 0)] {
        clock.advance(Duration::from_secs(60 * minutes));
        assert_eq!(crowd.run(), []);
        assert_eq!(buckets.len(), left, "full since 5 ms after the start");
    }
}

/// Sleeps that are over at once, before their time has come.
struct Hasty(ManualClock);

impl Clock for Hasty {
    fn now_nanos(&self) -> u64 {
        self.0.now_nanos()
    }

    fn sleep_until(&self, _at_nanos: u64) -> Sleep {
        Box::pin(std::future::ready(()))
    }
}

#[test]
fn a_clock_whose_sleeps_end_early_gives_no_token_early_and_keeps_no_thread_busy_for_ever() {
    let clock = ManualClock::new();
    let buckets = Foretoken::with(&Config::default(), Arc::new(Hasty(clock.clone())), RandomState::new());
    buckets.take(&1, every(MS), 1, 1).unwrap();
    let mut waiter = Box::pin(buckets.take_or_wait(&1, Take::new(every(MS), 1)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..10 {
        assert!(waiter.as_mut().poll(&mut context).is_pending());
    }
    clock.advance(MS);
    assert!(waiter.as_mut().poll(&mut context).is_ready());
}

#[test]
fn waiting_moves_between_threads() {
    fn check(_future: impl Future<Output = Result<(), TakeError>> + Send) {}
    let (buckets, _clock, take) = emptied(&Config::default());
    check(buckets.take_or_wait(&"b", take));
    check(buckets.take_or_wait_for(&"b", take, MS));
}
