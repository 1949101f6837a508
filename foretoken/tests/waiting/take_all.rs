//! Takes from several buckets at once.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use crate::crowd::Crowd;
use foretoken::{Config, Foretoken, ManualClock, Rate, Take, TakeAllError, TakeError};

const MS: Duration = Duration::from_millis(1);

fn buckets(config: &Config) -> (Foretoken<&'static str>, ManualClock) {
    let clock = ManualClock::new();
    (Foretoken::with(config, Arc::new(clock.clone()), RandomState::new()), clock)
}

fn every_ms(capacity: u32) -> Take {
    Take::new(Rate::one_per(MS).expect("a millisecond is above zero"), capacity)
}

fn refused(key: &'static str, index: usize, error: TakeError) -> Result<(), TakeAllError<&'static str>> {
    Err(TakeAllError::Refused { key, index, error })
}

fn lacks(key: &'static str, index: usize, wait: Duration) -> Result<(), TakeAllError<&'static str>> {
    refused(key, index, TakeError::NotEnoughTokens { wait })
}

#[test]
fn all_buckets_give_or_none_does() {
    let (buckets, clock) = buckets(&Config::default());
    let (tenant, agent) = (every_ms(3), every_ms(1));
    assert_eq!(buckets.take_all(&[(&"tenant", tenant), (&"agent 1", agent)]), Ok(()));
    assert_eq!(buckets.take_all(&[(&"tenant", tenant), (&"agent 1", agent)]), lacks("agent 1", 1, MS));
    assert_eq!(buckets.peek(&"tenant", tenant).unwrap().tokens, 2, "the tenant's token has not been taken");
    assert_eq!(buckets.take_all(&[(&"tenant", tenant.tokens(2)), (&"agent 2", agent)]), Ok(()));
    assert_eq!(buckets.take_all(&[(&"agent 3", agent), (&"tenant", tenant)]), lacks("tenant", 1, MS));
    assert_eq!(buckets.len(), 3, "no bucket is made for a refused agent");
    clock.advance(MS);
    assert_eq!(buckets.take_all(&[(&"agent 3", agent), (&"tenant", tenant)]), Ok(()));
}

#[test]
fn the_bucket_with_the_longest_wait_is_named() {
    let (buckets, clock) = buckets(&Config::default());
    let all = [(&"a", every_ms(2).tokens(2)), (&"b", every_ms(4).tokens(4)), (&"c", every_ms(4).tokens(4))];
    assert_eq!(buckets.take_all(&all), Ok(()));
    assert_eq!(buckets.take_all(&all), lacks("b", 1, 4 * MS));
    clock.advance(4 * MS);
    assert_eq!(buckets.take_all(&all), Ok(()), "the wait was true for all of them");
}

#[test]
fn a_refusal_that_waiting_does_not_help_comes_before_all_waits() {
    let (buckets, _clock) = buckets(&Config::default());
    let take = every_ms(2).tokens(2);
    assert_eq!(buckets.take_with(&"a", take), Ok(()));
    let missing = [(&"a", take), (&"none", take.existing_only())];
    assert_eq!(buckets.take_all(&missing), refused("none", 1, TakeError::NoSuchBucket));
    let too_many = TakeError::MoreThanCapacity { n: 3, capacity: 2 };
    assert_eq!(buckets.take_all(&[(&"a", take), (&"b", take.tokens(3))]), refused("b", 1, too_many));
    assert_eq!(buckets.take_all(&missing).unwrap_err().wait(), None);
    assert_eq!(buckets.take_all(&[(&"a", take)]).unwrap_err().wait(), Some(2 * MS));
    assert_eq!(buckets.len(), 1);
}

#[test]
fn a_list_is_bounded_and_names_each_bucket_once() {
    let (buckets, _clock) = buckets(&Config { take_all_max: 2, ..Config::default() });
    let take = every_ms(2);
    let three = [(&"a", take), (&"b", take), (&"c", take)];
    assert_eq!(buckets.take_all(&three), Err(TakeAllError::TooManyBuckets { buckets: 3, limit: 2 }));
    assert_eq!(
        buckets.take_all(&[(&"a", take), (&"a", take)]),
        Err(TakeAllError::SameBucketTwice { key: "a" })
    );
    assert_eq!(buckets.take_all(&[]), Ok(()));
    assert!(buckets.is_empty());
}

#[test]
fn at_the_limit_of_buckets_nothing_is_taken() {
    let (buckets, clock) = buckets(&Config { buckets_max: 2, ..Config::default() });
    let take = every_ms(2);
    assert_eq!(buckets.take_with(&"a", take.tokens(2)), Ok(()));
    clock.advance(MS);
    let three = [(&"a", take), (&"b", take), (&"c", take)];
    assert_eq!(buckets.take_all(&three), refused("c", 2, TakeError::TooManyBuckets { limit: 2 }));
    assert_eq!(buckets.len(), 1);
    assert_eq!(buckets.peek(&"a", take).unwrap().tokens, 1);
    assert_eq!(buckets.take_all(&three[..2]), Ok(()));
    assert_eq!(buckets.len(), 2);
}

#[test]
fn those_in_line_keep_their_tokens_and_learn_of_a_new_rate() {
    let (buckets, clock) = buckets(&Config::default());
    let (take, faster) = (every_ms(2), Take::new(Rate::one_per(MS / 2).unwrap(), 2));
    assert_eq!(buckets.take_with(&"a", take.tokens(2)), Ok(()));
    let mut crowd = Crowd::default();
    let waiter = crowd.join(buckets.take_or_wait(&"a", take.tokens(2)));
    assert_eq!(buckets.take_all(&[(&"b", take), (&"a", take)]), lacks("a", 1, 3 * MS));
    assert_eq!(buckets.take_all(&[(&"b", take), (&"a", faster)]), lacks("a", 1, 3 * MS / 2));
    clock.advance(MS);
    assert_eq!(crowd.run(), [(waiter, Ok(()))]);
    let leaver = crowd.join(buckets.take_or_wait(&"a", faster));
    clock.advance(MS / 2);
    assert_eq!(buckets.take_all(&[(&"b", take), (&"a", faster)]), lacks("a", 1, MS));
    crowd.give_up(leaver);
    assert_eq!(buckets.take_all(&[(&"b", take), (&"a", faster)]), Ok(()));
}

/// Lists in opposite orders would deadlock if buckets were locked in the order of the list.
#[test]
fn takes_in_opposite_orders_end_and_take_exactly_what_is_there() {
    let keys: Vec<u32> = (0..8).collect();
    let clock = ManualClock::new();
    let buckets = Foretoken::with(&Config::default(), Arc::new(clock), RandomState::new());
    let take = Take::new(Rate::one_per(Duration::from_secs(3600)).unwrap(), 1_000);
    let run = |thread: usize| {
        let mut granted = 0_u32;
        for round in 0..2_000 {
            let mut list: Vec<_> = keys.iter().map(|key| (key, take)).collect();
            list.rotate_left(round % 8);
            if thread % 2 == 1 {
                list.reverse();
            }
            granted += u32::from(buckets.take_all(&list).is_ok());
        }
        granted
    };
    let granted: u32 = std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(granted, 1_000);
    for key in &keys {
        assert_eq!(buckets.peek(key, take).unwrap().tokens, 0);
    }
}
