//! The queue alone: batches, limits, who writes when.

use super::*;
use crate::frame::{Decoder, Frame};
use proptest::prelude::*;

const LIMITS: QueueLimits = QueueLimits { messages_max: 100, bytes_max: 1 << 20, payload_bytes_max: 1 << 19 };
const LINK: u64 = 7;

fn take(queue: &LaneQueue, link: u64) -> Option<(Batch, Vec<Bytes>)> {
    let mut pieces = Vec::new();
    match queue.poll_ready(link, &Context::from_waker(Waker::noop()), false) {
        Poll::Ready(Turn::Write) => queue.take(link, &mut pieces).map(|batch| (batch, pieces)),
        Poll::Ready(_) | Poll::Pending => None,
    }
}

fn decode(pieces: Vec<Bytes>) -> Vec<Bytes> {
    let mut decoder = Decoder::new(1 << 20);
    let mut payloads = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        while let Some(frame) = decoder.next().unwrap() {
            let Frame::Cast { payload, .. } = frame else { panic!("a cast") };
            payloads.push(payload);
        }
    }
    assert!(!decoder.is_inside_frame(), "a batch ends where a message ends");
    payloads
}

proptest! {
    #[test]
    fn batches_hold_whole_messages_in_order(
        sizes in proptest::collection::vec(prop_oneof![0usize..200, 16_000usize..17_000, 100_000usize..200_000], 1..40),
        takes in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let queue = LaneQueue::new(Lane::Normal, QueueLimits { bytes_max: 1 << 30, ..LIMITS }, LaneSettings::of(Lane::Normal));
        queue.attach(LINK);
        let mut received = Vec::new();
        let mut sent = Vec::new();
        for (i, size) in sizes.into_iter().enumerate() {
            let payload = Bytes::from(vec![i as u8; size]);
            let _ = queue.push_cast(ServiceId(0), &payload).unwrap();
            sent.push(payload);
            if takes[i] {
                received.extend(take(&queue, LINK).into_iter().flat_map(|(_, pieces)| decode(pieces)));
            }
        }
        while let Some((batch, pieces)) = take(&queue, LINK) {
            prop_assert_eq!(batch.bytes, pieces.iter().map(Bytes::len).sum::<usize>());
            received.extend(decode(pieces));
        }
        prop_assert!(received == sent);
        let queue = queue.queue.lock();
        prop_assert_eq!((queue.waiting.messages, queue.waiting_bytes, queue.taken), (0, 0, sent.len() as u64));
    }
}

#[test]
fn a_full_queue_refuses_and_tells_its_fill() {
    let queue = LaneQueue::new(Lane::Normal, LIMITS, LaneSettings::of(Lane::Normal));
    let payload = Bytes::from_static(&[0; 92]);
    for _ in 0..100 {
        let _ = queue.push_cast(ServiceId(0), &payload).unwrap();
    }
    let full = queue.push_cast(ServiceId(0), &payload);
    assert_eq!(full, Err(PushError::Full { messages: 100, bytes: 10_000 }));
}

#[test]
fn an_empty_queue_takes_one_message_over_its_byte_limit() {
    let queue =
        LaneQueue::new(Lane::Normal, QueueLimits { bytes_max: 10, ..LIMITS }, LaneSettings::of(Lane::Normal));
    let payload = Bytes::from_static(&[0; 92]);
    assert!(queue.push_cast(ServiceId(0), &payload).is_ok());
    assert!(matches!(queue.push_cast(ServiceId(0), &payload), Err(PushError::Full { messages: 1, .. })));
}

#[test]
fn only_the_writer_of_the_current_connection_takes() {
    let queue = LaneQueue::new(Lane::Normal, LIMITS, LaneSettings::of(Lane::Normal));
    assert_eq!(queue.push_cast(ServiceId(0), &Bytes::new()), Ok(Pushed::MustDial));
    queue.attach(LINK);
    assert_eq!(queue.push_cast(ServiceId(0), &Bytes::new()), Ok(Pushed::Done));
    assert!(take(&queue, LINK + 1).is_none());
    assert_eq!(take(&queue, LINK).unwrap().0.messages, 2);
    assert_eq!(queue.detach(), 2);
    assert!(take(&queue, LINK).is_none());
}

#[test]
fn an_answer_goes_through_its_own_connection_only() {
    let queue = LaneQueue::new(Lane::Normal, LIMITS, LaneSettings::of(Lane::Normal));
    queue.attach(LINK);
    let head = Head::Reply { correlation: 1 };
    assert_eq!(queue.push_answer(LINK - 1, head, &Bytes::new()), Err(PushError::OtherLink));
    assert_eq!(queue.push_answer(LINK, head, &Bytes::new()), Ok(Pushed::Done));
}

#[test]
fn a_refusing_queue_drops_what_waits_and_says_why() {
    let queue = LaneQueue::new(Lane::Normal, LIMITS, LaneSettings::of(Lane::Normal));
    let _ = queue.push_cast(ServiceId(0), &Bytes::new()).unwrap();
    assert_eq!(queue.refuse(&Failure::NoAddress), 1);
    assert_eq!(queue.push_cast(ServiceId(0), &Bytes::new()), Err(PushError::Gate(Failure::NoAddress)));
    queue.attach(LINK);
    assert!(take(&queue, LINK).is_none());
}

#[test]
fn a_quiet_lane_is_flushed_by_its_sender_and_a_busy_one_by_its_writer() {
    let queue = LaneQueue::new(Lane::Normal, LIMITS, LaneSettings::of(Lane::Normal));
    queue.attach(LINK);
    let push = || queue.push_cast(ServiceId(0), &Bytes::new()).unwrap();
    assert!(take(&queue, LINK).is_none(), "the writer waits");
    assert_eq!(push(), Pushed::MustFlush);
    assert_eq!(push(), Pushed::Done, "right after it the writer is woken");
    assert_eq!(take(&queue, LINK).unwrap().0.messages, 2);
    assert!(queue.is_busy());
    assert!(take(&queue, LINK).is_none(), "the writer waits");
    std::thread::yield_now();
    assert_eq!(push(), Pushed::Done, "after a larger batch the next one is gathered");
}

#[test]
fn what_is_pushed_while_corked_waits_for_the_last_reader() {
    let queue = LaneQueue::new(Lane::Normal, LIMITS, LaneSettings::of(Lane::Normal));
    queue.attach(LINK);
    assert!(take(&queue, LINK).is_none(), "the writer waits");
    queue.cork(LINK);
    queue.cork(LINK);
    let pushed = queue.push_cast(ServiceId(0), &Bytes::new());
    assert_eq!(pushed, Ok(Pushed::Done));
    assert!(queue.queue.lock().writer.is_some(), "nobody was woken");
    assert!(!queue.uncork(LINK));
    assert!(queue.uncork(LINK), "to be flushed");
}

#[test]
fn a_batch_that_is_not_written_completely_calls_the_writer() {
    let queue = LaneQueue::new(Lane::Normal, LIMITS, LaneSettings::of(Lane::Normal));
    queue.attach(LINK);
    assert!(take(&queue, LINK).is_none(), "the writer waits");
    let _ = queue.push_cast(ServiceId(0), &Bytes::new()).unwrap();
    let mut pieces = Vec::new();
    assert!(queue.take(LINK, &mut pieces).is_some());
    queue.flushed(LINK, true);
    assert!(queue.queue.lock().writer.is_none(), "the writer was woken");
    assert_eq!(queue.poll_ready(LINK, &Context::from_waker(Waker::noop()), false), Poll::Ready(Turn::Write));
    queue.flushed(LINK, false);
    assert_eq!(queue.poll_ready(LINK, &Context::from_waker(Waker::noop()), false), Poll::Pending);
}

/// Each of 1,024 calls in flight was once flushed on its own, answered on its own and replaced on its own: a
/// state that kept itself up, at an eighth of the throughput.
#[test]
fn a_lone_call_is_flushed_at_once_and_one_of_several_is_gathered() {
    let queue = LaneQueue::new(Lane::Normal, LIMITS, LaneSettings::of(Lane::Normal));
    let calls = CallTable::new(10, 0);
    queue.attach(LINK);
    let due = Instant::now();
    let push = || queue.push_call(ServiceId(0), &Bytes::new(), &calls, due, oneshot::channel().0).unwrap().1;
    assert!(take(&queue, LINK).is_none(), "the writer waits");
    assert_eq!(push(), Pushed::MustFlush);
    assert_eq!(take(&queue, LINK).unwrap().0.messages, 1);
    assert!(take(&queue, LINK).is_none(), "the writer waits");
    assert_eq!(push(), Pushed::Done);
    assert!(queue.queue.lock().writer.is_none(), "the writer was woken");
}

#[test]
fn a_batch_holds_no_more_than_its_settings_allow_unless_a_message_does() {
    let settings =
        LaneSettings { batch_messages_max: 3, batch_bytes_max: 20_000, ..LaneSettings::of(Lane::Normal) };
    let queue = LaneQueue::new(Lane::Normal, LIMITS, settings);
    queue.attach(LINK);
    for size in [10, 10, 10, 10, 19_000, 19_000, 10, 30_000, 10, 10] {
        let _ = queue.push_cast(ServiceId(0), &Bytes::from(vec![0; size])).unwrap();
    }
    let mut batches = Vec::new();
    while let Some((batch, pieces)) = take(&queue, LINK) {
        batches.push((batch.messages, batch.bytes));
        assert_eq!(decode(pieces).len(), batch.messages);
    }
    assert_eq!(batches, [(3, 54), (2, 19_026), (2, 19_026), (1, 30_008), (2, 36)]);
}

#[test]
fn what_may_wait_waits_for_company_or_its_time_and_a_full_batch_goes_at_once() {
    let wait = Duration::from_secs(60);
    let settings =
        LaneSettings { wait_max: Some(wait), batch_messages_max: 3, ..LaneSettings::of(Lane::Normal) };
    let queue = LaneQueue::new(Lane::Normal, LIMITS, settings);
    queue.attach(LINK);
    let poll = |is_due| queue.poll_ready(LINK, &Context::from_waker(Waker::noop()), is_due);
    let push = || queue.push_cast(ServiceId(0), &Bytes::new()).unwrap();
    assert_eq!(poll(false), Poll::Pending);
    let start = Instant::now();
    assert_eq!(push(), Pushed::Done);
    let Poll::Ready(Turn::Wait(due)) = poll(false) else { panic!("it waits") };
    assert!((start + wait..=Instant::now() + wait).contains(&due));
    assert!(queue.queue.lock().writer.is_none(), "the first one wakes the writer to start its clock");
    assert_eq!(push(), Pushed::Done);
    assert_eq!(poll(false), Poll::Ready(Turn::Wait(due)), "the oldest one counts");
    assert_eq!(poll(true), Poll::Ready(Turn::Write));
    let company = || queue.poll_company(LINK, &Context::from_waker(Waker::noop()));
    assert_eq!(company(), Poll::Pending);
    assert_eq!(push(), Pushed::Done);
    assert!(queue.queue.lock().writer.is_none(), "a full batch wakes the writer");
    assert_eq!((company(), poll(false)), (Poll::Ready(()), Poll::Ready(Turn::Write)));
    assert_eq!(take(&queue, LINK).unwrap().0.messages, 3);
    assert_eq!(push(), Pushed::Done);
    queue.set_settings(LaneSettings { wait_max: None, ..settings });
    assert_eq!(poll(false), Poll::Ready(Turn::Write), "settings change at once");
}

#[test]
fn a_lane_that_is_finishing_writes_what_waits_first() {
    let settings = LaneSettings { wait_max: Some(Duration::from_secs(1)), ..LaneSettings::of(Lane::Normal) };
    let queue = LaneQueue::new(Lane::Normal, LIMITS, settings);
    queue.attach(LINK);
    let poll = || queue.poll_ready(LINK, &Context::from_waker(Waker::noop()), false);
    let _ = queue.push_cast(ServiceId(0), &Bytes::new()).unwrap();
    queue.finish(LINK + 1);
    assert!(matches!(poll(), Poll::Ready(Turn::Wait(_))), "that was another connection");
    queue.finish(LINK);
    assert_eq!(poll(), Poll::Ready(Turn::Write), "and waits for nobody");
    assert_eq!(take(&queue, LINK).unwrap().0.messages, 1);
    assert_eq!(poll(), Poll::Ready(Turn::Finish));
}
