//! Waiting on real clocks: without a runtime, from many threads, and on tokio's paused clock.

use std::future::Future;
use std::hash::RandomState;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use foretoken::{Clock, Config, Foretoken, MonotonicClock, Rate, Take};

const MS: Duration = Duration::from_millis(1);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor there is.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

fn every_ms(capacity: u32) -> Take {
    Take::new(Rate::one_per(MS).expect("a millisecond is above zero"), capacity)
}

#[test]
fn many_threads_in_one_line_are_all_served_and_no_faster_than_the_rate() {
    let clock = Arc::new(MonotonicClock::new());
    let buckets = Foretoken::with(&Config::default(), clock.clone(), RandomState::new());
    let start_nanos = clock.now_nanos();
    let (threads, rounds) = (4, 12);
    // Some give up early, and their places go back.
    let is_served = |caller: u64| match caller % 3 {
        0 => block_on(buckets.take_or_wait_for(&"b", every_ms(2), MS)).is_ok(),
        _ => block_on(buckets.take_or_wait(&"b", every_ms(2))).is_ok(),
    };
    let serve = |thread: u64| (0..rounds).filter(|round| is_served(thread + round)).count();
    let served: usize = std::thread::scope(|scope| {
        let serve = &serve;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || serve(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let elapsed_ms = (clock.now_nanos() - start_nanos) / 1_000_000;
    assert!(served >= (threads * rounds * 2 / 3) as usize, "whoever waits without limit is served: {served}");
    assert!(served as u64 <= 2 + elapsed_ms, "{served} tokens in {elapsed_ms} ms");
    assert_eq!(buckets.waiting(), 0);
}

#[test]
fn callers_that_come_and_go_on_many_threads_leave_no_place_behind() {
    let buckets: Foretoken<u32> = Foretoken::new();
    let come_and_go = |thread: u32| {
        for round in 0..300 {
            let key = (thread + round) % 3;
            let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
            let mut waiting = pin!(buckets.take_or_wait(&key, every_ms(1)));
            for _ in 0..round % 3 {
                if waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    break;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let come_and_go = &come_and_go;
        (0..4).for_each(|thread| drop(scope.spawn(move || come_and_go(thread))));
    });
    assert_eq!(buckets.waiting(), 0);
    for key in 0..3 {
        assert_eq!(block_on(buckets.take_or_wait(&key, every_ms(1))), Ok(()), "the line of {key} goes on");
    }
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn on_tokio_a_paused_clock_stands_still_and_moves_on_when_all_wait() {
    let clock = foretoken::TokioClock::new();
    let buckets = Foretoken::with(&Config::default(), Arc::new(clock.clone()), RandomState::new());
    let hourly = Take::new(Rate::one_per(Duration::from_secs(3600)).unwrap(), 1);
    assert_eq!(buckets.take_or_wait(&1, hourly).await, Ok(()));
    let (first, second, third) = tokio::join!(
        buckets.take_or_wait(&1, hourly),
        buckets.take_or_wait(&1, hourly),
        buckets.take_or_wait_for(&1, hourly, Duration::from_secs(7200)),
    );
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(third.unwrap_err().wait(), Some(Duration::from_secs(3 * 3600)));
    assert_eq!(clock.now_nanos() / 1_000_000, 2 * 3_600_000, "to the millisecond of tokio's timer");
}
