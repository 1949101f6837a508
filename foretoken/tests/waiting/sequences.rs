//! Everything at once against the dumb twin: takes, lines, deadlines, callers that give up, takes of several buckets,
//! new rates, forgetting.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use foretoken::{Clock, Config, Foretoken, ManualClock};
use proptest::prelude::*;

use crate::crowd::Crowd;
use crate::twin::{Ask, Twin, WAITERS_MAX, WAITERS_PER_BUCKET_MAX, Waiter};

#[derive(Debug, Clone)]
enum Step {
    Advance(u64),
    /// Time passes, and nobody who is woken gets to look before the next step has begun.
    Stall(u64),
    /// Somebody is polled who has not been woken, as an executor may.
    PollAgain(usize),
    Take(Ask),
    Peek(Ask),
    Wait(Ask, Option<u64>),
    GiveUp(usize),
    TakeAll(Vec<Ask>),
    DropIdle,
}

fn ask() -> impl Strategy<Value = Ask> {
    // Mostly the same rate, so that lines grow; sometimes another.
    let limits = prop_oneof![
        6 => Just((1_000_003, 5)),
        1 => Just((2_500_000, 5)),
        1 => Just((1_000_003, 3)),
        1 => Just((700_001, 8)),
    ];
    (0..3_u8, limits, prop_oneof![9 => 1..=3_u32, 1 => 0..=9_u32], prop::bool::weighted(0.95))
        .prop_map(|(key, (period, capacity), n, create)| Ask { key, period, capacity, n, create })
}

fn step() -> impl Strategy<Value = Step> {
    let wait_max = prop::option::weighted(0.4, 0..15_000_000_u64);
    prop_oneof![
        4 => (0..4_000_000_u64).prop_map(Step::Advance),
        1 => (0..20_000_000_u64).prop_map(Step::Stall),
        2 => any::<usize>().prop_map(Step::PollAgain),
        3 => ask().prop_map(Step::Take),
        1 => ask().prop_map(Step::Peek),
        6 => (ask(), wait_max).prop_map(|(ask, wait_max)| Step::Wait(ask, wait_max)),
        1 => any::<usize>().prop_map(Step::GiveUp),
        2 => prop::collection::vec(ask(), 0..=3).prop_map(|mut asks| {
            asks.sort_by_key(|ask| ask.key);
            asks.dedup_by_key(|ask| ask.key);
            Step::TakeAll(asks)
        }),
        1 => Just(Step::DropIdle),
    ]
}

fn check(steps: &[Step]) -> Result<(), TestCaseError> {
    let config = Config {
        idle_threshold: Duration::ZERO,
        waiters_per_bucket_max: WAITERS_PER_BUCKET_MAX,
        waiters_max: WAITERS_MAX,
        ..Config::default()
    };
    let clock = ManualClock::new();
    let buckets = Foretoken::with(&config, Arc::new(clock.clone()), RandomState::new());
    let keys: Vec<u8> = (0..3).collect();
    let key = |ask: &Ask| &keys[usize::from(ask.key)];
    let (mut crowd, mut twin) = (Crowd::default(), Twin::default());
    for step in steps {
        match step {
            Step::Advance(nanos) => {
                let end = clock.now_nanos() + nanos;
                while clock.now_nanos() < end {
                    // From one wake-up to the next, so that the order of two of them is that of the clock.
                    let stop = clock.next_wake_nanos().map_or(end, |at| at.min(end));
                    clock.advance(Duration::from_nanos(stop - clock.now_nanos()));
                    twin.now = u128::from(stop);
                    for (caller, answer) in crowd.run() {
                        twin.came_back(caller, answer)?;
                    }
                    twin.check_nobody_is_forgotten()?;
                }
            }
            Step::Stall(nanos) => {
                clock.advance(Duration::from_nanos(*nanos));
                twin.now = u128::from(clock.now_nanos());
                continue;
            }
            Step::PollAgain(which) => {
                if let Some(waiter) = twin.waiters.get(which % twin.waiters.len().max(1)) {
                    crowd.poll(waiter.caller);
                }
            }
            Step::Take(ask) => {
                prop_assert_eq!(buckets.take_with(key(ask), ask.take()), twin.take(*ask));
            }
            Step::Peek(ask) => {
                let mut copy = Twin { now: twin.now, buckets: twin.buckets.clone(), waiters: Vec::new() };
                let waiters = twin.line(ask.key).count();
                std::mem::swap(&mut copy.waiters, &mut twin.waiters);
                let told = copy.ask(*ask);
                let held = copy.bucket(ask.key).map_or(u128::from(ask.capacity), |b| b.held / b.period);
                twin.waiters = copy.waiters;
                let peek = buckets.peek(key(ask), ask.take());
                let wait = peek.as_ref().map(|peek| peek.wait.as_nanos()).map_err(|error| *error);
                prop_assert_eq!(wait, told);
                if let Ok(peek) = peek {
                    prop_assert_eq!((u128::from(peek.tokens), peek.waiters as usize), (held, waiters));
                }
            }
            Step::Wait(ask, wait_max) => {
                let told = twin.wait(*ask, *wait_max);
                let caller = match wait_max {
                    None => crowd.join(buckets.take_or_wait(key(ask), ask.take())),
                    Some(nanos) => {
                        let wait_max = Duration::from_nanos(*nanos);
                        crowd.join(buckets.take_or_wait_for(key(ask), ask.take(), wait_max))
                    }
                };
                match told {
                    Some(told) => prop_assert_eq!(crowd.answer_of(caller), Some(told)),
                    None => {
                        let deadline = wait_max.map(|wait_max| twin.now + u128::from(wait_max));
                        twin.waiters.push(Waiter { caller, key: ask.key, n: u128::from(ask.n), deadline });
                    }
                }
            }
            Step::GiveUp(which) => {
                if !twin.waiters.is_empty() {
                    let waiter = twin.waiters.remove(which % twin.waiters.len());
                    prop_assert!(crowd.give_up(waiter.caller));
                }
            }
            Step::TakeAll(asks) => {
                let list: Vec<_> = asks.iter().map(|ask| (key(ask), ask.take())).collect();
                prop_assert_eq!(buckets.take_all(&list), twin.take_all(asks));
            }
            Step::DropIdle => prop_assert_eq!(buckets.drop_idle(), twin.drop_idle()),
        }
        for (caller, answer) in crowd.run() {
            twin.came_back(caller, answer)?;
        }
        twin.check_nobody_is_forgotten()?;
        prop_assert_eq!((buckets.len(), buckets.waiting()), (twin.buckets.len(), twin.waiters.len()));
    }
    let answers = crowd.run();
    answers.into_iter().try_for_each(|(caller, answer)| twin.came_back(caller, answer))?;
    drop(crowd);
    prop_assert_eq!(buckets.waiting(), 0, "whoever was dropped has given back its place");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn takes_lines_and_takes_of_several_do_what_a_dumb_twin_says(steps in prop::collection::vec(step(), 1..120)) {
        check(&steps)?;
    }
}
