//! The bounded queue of one lane to one peer: messages are encoded straight into what will be written.
//!
//! Batching is natural: whatever queued up while the last write was under way is taken as one batch. The queue
//! outlives connections, so that what was not taken when a connection broke goes through the next one.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::calls::{Answer, CallTable};
use crate::error::Failure;
use crate::frame::Head;
use crate::id::ServiceId;
use crate::lane::Lane;

/// Payloads of at least this size are handed on as they are; smaller ones are copied together.
const WHOLE_PAYLOAD_BYTES: usize = 16 << 10;
/// Small messages are collected in buffers of about this size.
const BUFFER_BYTES: usize = 64 << 10;
/// The first buffer of a quiet lane.
const BUFFER_BYTES_MIN: usize = 2 << 10;
/// A batch takes no further piece once it has this much.
const BATCH_BYTES: usize = 256 << 10;

/// The limits of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) payload_bytes_max: usize,
}

/// Whether messages are taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    /// There is a connection, or one is being made.
    Open,
    /// There is none and nobody has tried: the first message must start a dial.
    Idle,
    /// There is none, and this is why.
    Refusing(Failure),
}

/// Why a message was not queued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PushError {
    Gate(Failure),
    Full {
        messages: usize,
        bytes: usize,
    },
    TooLarge {
        bytes: usize,
        bytes_max: usize,
    },
    /// The table of calls is full.
    Calls,
    /// The connection the answer belongs to is gone.
    OtherLink,
}

/// What the pusher has to do after the message is queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pushed {
    /// Nobody is dialling: start.
    pub(crate) must_dial: bool,
}

/// What [`LaneQueue::poll_take`] took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Batch {
    pub(crate) messages: usize,
    pub(crate) casts: usize,
    pub(crate) bytes: usize,
}

/// The queue of one lane to one peer.
pub(crate) struct LaneQueue {
    lane: Lane,
    limits: QueueLimits,
    queue: Mutex<Queue>,
}

struct Queue {
    gate: Gate,
    /// The connection whose writer may take; 0 for none.
    link: u64,
    writer: Option<Waker>,
    /// Pieces in front of `buffer`, in order.
    pieces: VecDeque<Piece>,
    buffer: BytesMut,
    buffer_count: Count,
    buffer_bytes_next: usize,
    waiting: Count,
    waiting_bytes: usize,
    /// Messages ever queued and ever taken.
    pushed: u64,
    taken: u64,
}

/// How many messages, and how many of them are casts.
#[derive(Clone, Copy, Default)]
struct Count {
    messages: usize,
    casts: usize,
}

struct Piece {
    bytes: Bytes,
    /// Messages that end in this piece.
    count: Count,
    /// Whether the next piece starts with a header.
    ends_message: bool,
}

impl LaneQueue {
    pub(crate) fn new(lane: Lane, limits: QueueLimits) -> LaneQueue {
        let queue = Queue {
            gate: Gate::Idle,
            link: 0,
            writer: None,
            pieces: VecDeque::new(),
            buffer: BytesMut::new(),
            buffer_count: Count::default(),
            buffer_bytes_next: BUFFER_BYTES_MIN,
            waiting: Count::default(),
            waiting_bytes: 0,
            pushed: 0,
            taken: 0,
        };
        LaneQueue { lane, limits, queue: Mutex::new(queue) }
    }

    /// Queues a cast.
    pub(crate) fn push_cast(&self, service: ServiceId, payload: &Bytes) -> Result<Pushed, PushError> {
        let mut queue = self.queue.lock();
        self.admit(&queue, payload.len())?;
        queue.encode(Head::Cast { service }, payload, 1);
        Ok(wake(queue))
    }

    /// Queues a call and enters it in the table; returns its correlation.
    ///
    /// Both under the queue's lock: a call that is in the table before its number is taken is either queued or
    /// sent, never in between.
    pub(crate) fn push_call(
        &self,
        service: ServiceId,
        payload: &Bytes,
        calls: &CallTable,
        waiter: oneshot::Sender<Answer>,
    ) -> Result<(u64, Pushed), PushError> {
        let mut queue = self.queue.lock();
        self.admit(&queue, payload.len())?;
        let correlation = calls.insert(self.lane, queue.pushed, waiter).ok_or(PushError::Calls)?;
        queue.encode(Head::Call { service, correlation }, payload, 0);
        Ok((correlation, wake(queue)))
    }

    /// Queues an answer, for connection `link` only.
    ///
    /// Answers may use the queue to twice its limits: refusing them helps nobody, and their number is bounded by
    /// the calls in the hands of handlers.
    pub(crate) fn push_answer(&self, link: u64, head: Head, payload: &Bytes) -> Result<(), PushError> {
        let queue = self.queue.lock();
        if queue.link != link {
            return Err(PushError::OtherLink);
        }
        let (messages, bytes) = (queue.waiting.messages, queue.waiting_bytes);
        let is_full = messages >= 2 * self.limits.messages_max
            || (messages > 0 && bytes + payload.len() > 2 * self.limits.bytes_max);
        if is_full {
            return Err(PushError::Full { messages, bytes });
        }
        let mut queue = queue;
        queue.encode(head, payload, 0);
        wake(queue);
        Ok(())
    }

    fn admit(&self, queue: &Queue, payload_bytes: usize) -> Result<(), PushError> {
        if let Gate::Refusing(failure) = &queue.gate {
            return Err(PushError::Gate(failure.clone()));
        }
        let limits = &self.limits;
        if payload_bytes > limits.payload_bytes_max {
            return Err(PushError::TooLarge { bytes: payload_bytes, bytes_max: limits.payload_bytes_max });
        }
        let (messages, bytes) = (queue.waiting.messages, queue.waiting_bytes);
        if messages >= limits.messages_max || (messages > 0 && bytes + payload_bytes > limits.bytes_max) {
            return Err(PushError::Full { messages, bytes });
        }
        Ok(())
    }

    /// Opens or closes the gate. What waits is kept.
    pub(crate) fn set_gate(&self, gate: Gate) {
        self.queue.lock().gate = gate;
    }

    /// Closes the gate and drops what waits; returns how many casts were among it.
    pub(crate) fn refuse(&self, failure: &Failure) -> u64 {
        let mut queue = self.queue.lock();
        queue.gate = Gate::Refusing(failure.clone());
        let casts = queue.waiting.casts as u64;
        queue.taken = queue.pushed;
        queue.pieces.clear();
        queue.buffer.clear();
        queue.buffer_count = Count::default();
        queue.waiting = Count::default();
        queue.waiting_bytes = 0;
        casts
    }

    /// Gives the queue to the writer of connection `link`, and opens the gate.
    pub(crate) fn attach(&self, link: u64) {
        let mut queue = self.queue.lock();
        queue.gate = Gate::Open;
        queue.link = link;
        wake(queue);
    }

    /// Takes the queue away from its connection; returns the number up to which messages have been taken.
    pub(crate) fn detach(&self) -> u64 {
        let mut queue = self.queue.lock();
        queue.link = 0;
        let taken = queue.taken;
        wake(queue);
        taken
    }

    /// Ready when something waits for the writer of connection `link` (true), or when the queue belongs to
    /// another connection by now (false). One task at a time.
    pub(crate) fn poll_ready(&self, link: u64, context: &Context<'_>) -> Poll<bool> {
        let mut queue = self.queue.lock();
        if queue.link != link {
            return Poll::Ready(false);
        }
        if queue.waiting.messages == 0 {
            queue.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(true)
    }

    /// Takes the next batch for the writer of connection `link` and appends it to `into`; `None` when the queue
    /// belongs to another connection by now.
    pub(crate) fn take(&self, link: u64, into: &mut Vec<Bytes>) -> Option<Batch> {
        let mut queue = self.queue.lock();
        (queue.link == link).then(|| queue.take(into))
    }
}

/// Wakes the writer after the lock is released.
fn wake(mut queue: MutexGuard<'_, Queue>) -> Pushed {
    let must_dial = queue.gate == Gate::Idle;
    let writer = queue.writer.take();
    drop(queue);
    if let Some(writer) = writer {
        writer.wake();
    }
    Pushed { must_dial }
}

impl Queue {
    fn encode(&mut self, head: Head, payload: &Bytes, casts: usize) {
        let is_whole = payload.len() >= WHOLE_PAYLOAD_BYTES;
        let buffered = head.bytes() + if is_whole { 0 } else { payload.len() };
        self.reserve(buffered);
        head.encode(payload.len(), &mut self.buffer);
        let count = Count { messages: 1, casts };
        if is_whole {
            self.seal(false);
            self.pieces.push_back(Piece { bytes: payload.clone(), count, ends_message: true });
        } else {
            self.buffer.extend_from_slice(payload);
            self.buffer_count.add(count);
        }
        self.waiting.add(count);
        self.waiting_bytes += head.bytes() + payload.len();
        self.pushed += 1;
    }

    /// Makes room in the buffer; a full one becomes a piece.
    fn reserve(&mut self, bytes: usize) {
        if self.buffer.capacity() - self.buffer.len() >= bytes {
            return;
        }
        if self.buffer.len() + bytes > BUFFER_BYTES {
            self.seal(true);
        }
        // Buffers grow with the traffic, so that a quiet lane holds little.
        self.buffer.reserve(bytes.max(self.buffer_bytes_next));
        self.buffer_bytes_next = (self.buffer_bytes_next * 2).min(BUFFER_BYTES);
    }

    /// Turns the buffer into a piece.
    fn seal(&mut self, ends_message: bool) {
        if !self.buffer.is_empty() {
            let count = std::mem::take(&mut self.buffer_count);
            self.pieces.push_back(Piece { bytes: self.buffer.split().freeze(), count, ends_message });
        }
    }

    fn take(&mut self, into: &mut Vec<Bytes>) -> Batch {
        let mut batch = Batch { messages: 0, casts: 0, bytes: 0 };
        let mut is_between_messages = true;
        while let Some(piece) = self.pieces.front() {
            if batch.bytes >= BATCH_BYTES && is_between_messages {
                break;
            }
            batch.add(piece.count, piece.bytes.len());
            is_between_messages = piece.ends_message;
            into.extend(self.pieces.pop_front().map(|piece| piece.bytes));
        }
        if self.pieces.is_empty()
            && !self.buffer.is_empty()
            && (batch.bytes < BATCH_BYTES || !is_between_messages)
        {
            batch.add(std::mem::take(&mut self.buffer_count), self.buffer.len());
            into.push(self.buffer.split().freeze());
        }
        self.waiting.messages -= batch.messages;
        self.waiting.casts -= batch.casts;
        self.waiting_bytes -= batch.bytes;
        self.taken += batch.messages as u64;
        batch
    }
}

impl Batch {
    fn add(&mut self, count: Count, bytes: usize) {
        self.messages += count.messages;
        self.casts += count.casts;
        self.bytes += bytes;
    }
}

impl Count {
    fn add(&mut self, other: Count) {
        self.messages += other.messages;
        self.casts += other.casts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Decoder, Frame};
    use proptest::prelude::*;

    const LIMITS: QueueLimits =
        QueueLimits { messages_max: 100, bytes_max: 1 << 20, payload_bytes_max: 1 << 19 };
    const LINK: u64 = 7;

    fn take(queue: &LaneQueue, link: u64) -> Option<(Batch, Vec<Bytes>)> {
        let mut pieces = Vec::new();
        match queue.poll_ready(link, &Context::from_waker(Waker::noop())) {
            Poll::Ready(true) => queue.take(link, &mut pieces).map(|batch| (batch, pieces)),
            Poll::Ready(false) | Poll::Pending => None,
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
            let queue = LaneQueue::new(Lane::Normal, QueueLimits { bytes_max: 1 << 30, ..LIMITS });
            queue.attach(LINK);
            let mut received = Vec::new();
            let mut sent = Vec::new();
            for (i, size) in sizes.into_iter().enumerate() {
                let payload = Bytes::from(vec![i as u8; size]);
                queue.push_cast(ServiceId(0), &payload).unwrap();
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
        let queue = LaneQueue::new(Lane::Normal, LIMITS);
        let payload = Bytes::from_static(&[0; 92]);
        for _ in 0..100 {
            queue.push_cast(ServiceId(0), &payload).unwrap();
        }
        let full = queue.push_cast(ServiceId(0), &payload);
        assert_eq!(full, Err(PushError::Full { messages: 100, bytes: 10_000 }));
    }

    #[test]
    fn an_empty_queue_takes_one_message_over_its_byte_limit() {
        let queue = LaneQueue::new(Lane::Normal, QueueLimits { bytes_max: 10, ..LIMITS });
        let payload = Bytes::from_static(&[0; 92]);
        assert!(queue.push_cast(ServiceId(0), &payload).is_ok());
        assert!(matches!(queue.push_cast(ServiceId(0), &payload), Err(PushError::Full { messages: 1, .. })));
    }

    #[test]
    fn only_the_writer_of_the_current_connection_takes() {
        let queue = LaneQueue::new(Lane::Normal, LIMITS);
        assert_eq!(queue.push_cast(ServiceId(0), &Bytes::new()), Ok(Pushed { must_dial: true }));
        queue.attach(LINK);
        assert_eq!(queue.push_cast(ServiceId(0), &Bytes::new()), Ok(Pushed { must_dial: false }));
        assert!(take(&queue, LINK + 1).is_none());
        assert_eq!(take(&queue, LINK).unwrap().0.messages, 2);
        assert_eq!(queue.detach(), 2);
        assert!(take(&queue, LINK).is_none());
    }

    #[test]
    fn an_answer_goes_through_its_own_connection_only() {
        let queue = LaneQueue::new(Lane::Normal, LIMITS);
        queue.attach(LINK);
        let head = Head::Reply { correlation: 1 };
        assert_eq!(queue.push_answer(LINK - 1, head, &Bytes::new()), Err(PushError::OtherLink));
        assert_eq!(queue.push_answer(LINK, head, &Bytes::new()), Ok(()));
    }

    #[test]
    fn a_refusing_queue_drops_what_waits_and_says_why() {
        let queue = LaneQueue::new(Lane::Normal, LIMITS);
        queue.push_cast(ServiceId(0), &Bytes::new()).unwrap();
        assert_eq!(queue.refuse(&Failure::NoAddress), 1);
        assert_eq!(queue.push_cast(ServiceId(0), &Bytes::new()), Err(PushError::Gate(Failure::NoAddress)));
        queue.attach(LINK);
        assert!(take(&queue, LINK).is_none());
    }
}
