//! The bounded queue of one lane to one peer: messages are encoded straight into what will be written.
//!
//! Batching is natural: whatever queued up while the last write was under way is taken as one batch. The queue
//! outlives connections, so that what was not taken when a connection broke goes through the next one.

mod batch;

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(crate) use self::batch::Batch;
use self::batch::{BUFFER_BYTES_MIN, Count, Piece};
use crate::calls::{Answer, CallTable};
use crate::error::Failure;
use crate::frame::Head;
use crate::hello::Features;
use crate::id::ServiceId;
use crate::lane::Lane;
use crate::lane_settings::LaneSettings;

/// A lane is flushed by the senders of casts and answers at most so often.
const FLUSH_INTERVAL_MIN: Duration = Duration::from_micros(50);

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
#[must_use]
pub(crate) enum Pushed {
    /// Nothing: a task will write it.
    Done,
    /// Nobody is dialling: start.
    MustDial,
    /// The lane is quiet: write it right away, which saves waking a task.
    MustFlush,
}

/// What a lane's writer has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Something waits.
    Write,
    /// Something waits for company, until then.
    Wait(Instant),
    /// Nothing waits and nothing more will come.
    Finish,
    /// The queue belongs to another connection by now.
    Stop,
}

/// The queue of one lane to one peer.
pub(crate) struct LaneQueue {
    lane: Lane,
    limits: QueueLimits,
    queue: Mutex<Queue>,
}

struct Queue {
    settings: LaneSettings,
    gate: Gate,
    /// The connection whose writer may take; 0 for none.
    link: u64,
    /// The writer's task while it waits.
    writer: Option<Waker>,
    /// A batch was taken that is not written completely: the writer must go on.
    is_unfinished: bool,
    /// The endpoint is about to close: the writer ends when nothing waits any more.
    is_finishing: bool,
    /// Readers that are handing out messages: what that brings about is flushed when they are done.
    corks: u32,
    /// The last batch had several messages: the next ones are worth gathering.
    is_busy: bool,
    flushed: Option<Instant>,
    /// Pieces in front of `buffer`, in order.
    pieces: VecDeque<Piece>,
    buffer: BytesMut,
    buffer_count: Count,
    buffer_bytes_next: usize,
    waiting: Count,
    waiting_bytes: usize,
    /// Since when the oldest message waits; known where it matters.
    oldest: Option<Instant>,
    /// Messages ever queued and ever taken.
    pushed: u64,
    taken: u64,
}

impl LaneQueue {
    pub(crate) fn new(lane: Lane, limits: QueueLimits, settings: LaneSettings) -> LaneQueue {
        let queue = Queue {
            settings,
            gate: Gate::Idle,
            link: 0,
            writer: None,
            is_unfinished: false,
            is_finishing: false,
            corks: 0,
            is_busy: false,
            flushed: None,
            pieces: VecDeque::new(),
            buffer: BytesMut::new(),
            buffer_count: Count::default(),
            buffer_bytes_next: BUFFER_BYTES_MIN,
            waiting: Count::default(),
            waiting_bytes: 0,
            oldest: None,
            pushed: 0,
            taken: 0,
        };
        LaneQueue { lane, limits, queue: Mutex::new(queue) }
    }

    /// Changes how the lane is written, from the next batch on.
    pub(crate) fn set_settings(&self, settings: LaneSettings) {
        let mut queue = self.queue.lock();
        queue.settings = settings;
        wake(queue);
    }

    /// How the lane is written.
    pub(crate) fn settings(&self) -> LaneSettings {
        self.queue.lock().settings
    }

    /// Queues one cast for several services.
    pub(crate) fn push_fan_out(&self, services: &[ServiceId], payload: &Bytes) -> Result<Pushed, PushError> {
        let mut queue = self.queue.lock();
        self.admit(&queue, payload.len())?;
        let listed: Vec<u8> = services.iter().flat_map(|service| service.0.to_le_bytes()).collect();
        queue.encode(Head::FanOut { services: services.len() }, &listed, payload, 1);
        Ok(announce(queue, Pace::Unknown))
    }

    /// Queues a cast.
    pub(crate) fn push_cast(&self, service: ServiceId, payload: &Bytes) -> Result<Pushed, PushError> {
        let mut queue = self.queue.lock();
        self.admit(&queue, payload.len())?;
        queue.encode(Head::Cast { service }, &[], payload, 1);
        Ok(announce(queue, Pace::Unknown))
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
        deadline: Instant,
        waiter: oneshot::Sender<Answer>,
    ) -> Result<(u64, Pushed), PushError> {
        let mut queue = self.queue.lock();
        self.admit(&queue, payload.len())?;
        let entered = calls.insert(self.lane, queue.pushed, deadline, waiter);
        let (correlation, in_flight) = entered.ok_or(PushError::Calls)?;
        queue.encode(Head::Call { service, correlation }, &[], payload, 0);
        let pace = if in_flight == 1 { Pace::Lone } else { Pace::Many };
        Ok((correlation, announce(queue, pace)))
    }

    /// Queues an answer, for connection `link` only.
    ///
    /// Answers may use the queue to twice its limits: refusing them helps nobody, and their number is bounded by
    /// the calls in the hands of handlers.
    pub(crate) fn push_answer(&self, link: u64, head: Head, payload: &Bytes) -> Result<Pushed, PushError> {
        let queue = self.queue.lock();
        if queue.link != link {
            return Err(PushError::OtherLink);
        }
        let (messages, bytes) = (queue.waiting.messages, queue.waiting_bytes);
        let is_full = messages >= self.limits.messages_max.saturating_mul(2)
            || (messages > 0 && bytes + payload.len() > self.limits.bytes_max.saturating_mul(2));
        if is_full {
            return Err(PushError::Full { messages, bytes });
        }
        let mut queue = queue;
        queue.encode(head, &[], payload, 0);
        Ok(announce(queue, Pace::Unknown))
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
        queue.corks = 0;
        queue.is_unfinished = false;
        queue.is_finishing = false;
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

    /// Lets the writer of connection `link` end when it has written what waits.
    pub(crate) fn finish(&self, link: u64) {
        let mut queue = self.queue.lock();
        if queue.link == link {
            queue.is_finishing = true;
            wake(queue);
        }
    }

    /// How many messages wait, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.waiting.messages, queue.waiting_bytes)
    }

    /// Whether messages wait and a connection may still come for them.
    pub(crate) fn awaits_connection(&self) -> bool {
        let queue = self.queue.lock();
        queue.waiting.messages > 0 && queue.gate == Gate::Open
    }

    /// Ready when the writer of connection `link` has something to do; `is_due` when it has waited for company. One
    /// task at a time.
    pub(crate) fn poll_ready(&self, link: u64, context: &Context<'_>, is_due: bool) -> Poll<Turn> {
        let mut queue = self.queue.lock();
        if queue.link != link {
            return Poll::Ready(Turn::Stop);
        }
        if queue.waiting.messages > 0 || queue.is_unfinished {
            return Poll::Ready(match queue.due() {
                Some(due) if !is_due => Turn::Wait(due),
                _ => Turn::Write,
            });
        }
        if queue.is_finishing {
            return Poll::Ready(Turn::Finish);
        }
        queue.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Ready when the writer of connection `link` has to wait for company no longer.
    pub(crate) fn poll_company(&self, link: u64, context: &Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
        if queue.link != link || queue.due().is_none() {
            return Poll::Ready(());
        }
        queue.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Whether the next batch is worth gathering.
    pub(crate) fn is_busy(&self) -> bool {
        self.queue.lock().is_busy
    }

    /// Takes the next batch for connection `link` and appends it to `into`; `None` when nothing waits, or the
    /// queue belongs to another connection by now. Whoever takes holds the lane's stream.
    pub(crate) fn take(&self, link: u64, into: &mut Vec<Bytes>) -> Option<Batch> {
        let mut queue = self.queue.lock();
        if queue.link != link || queue.waiting.messages == 0 {
            return None;
        }
        let batch = queue.take(into);
        queue.is_busy = batch.messages > 1;
        Some(batch)
    }

    /// Says whether a taken batch is still to be written, and wakes the writer if it has anything to do.
    pub(crate) fn flushed(&self, link: u64, is_unfinished: bool) {
        let mut queue = self.queue.lock();
        if queue.link == link {
            queue.is_unfinished = is_unfinished;
            if is_unfinished || queue.waiting.messages > 0 {
                wake(queue);
            }
        }
    }

    /// Until [`uncork`](LaneQueue::uncork), what is pushed waits: the reader that corks is about to bring about
    /// more of it.
    pub(crate) fn cork(&self, link: u64) {
        let mut queue = self.queue.lock();
        if queue.link == link {
            queue.corks += 1;
        }
    }

    /// Undoes a [`cork`](LaneQueue::cork); true when something waits and is to be flushed.
    pub(crate) fn uncork(&self, link: u64) -> bool {
        let mut queue = self.queue.lock();
        if queue.link != link {
            return false;
        }
        queue.corks = queue.corks.saturating_sub(1);
        let waits = queue.corks == 0 && queue.waiting.messages > 0;
        if waits && queue.settings.wait_max.is_some() {
            wake(queue);
            return false;
        }
        waits
    }

    /// Whether a flush may write what waits now, without packing it.
    pub(crate) fn may_flush(&self, features: Features) -> bool {
        let queue = self.queue.lock();
        !features.takes(queue.settings.compression)
            || queue.waiting_bytes < queue.settings.compression_bytes_min
    }

    /// Wakes the writer.
    pub(crate) fn wake_writer(&self) {
        wake(self.queue.lock());
    }
}

/// Wakes the writer after the lock is released.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let writer = queue.writer.take();
    drop(queue);
    if let Some(writer) = writer {
        writer.wake();
    }
}

/// What is known about the traffic that a message belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Nothing else is under way: its latency is what counts.
    Lone,
    /// More is to be expected: batches are what counts.
    Many,
    Unknown,
}

/// Sees to it that what was just pushed is written.
fn announce(mut queue: MutexGuard<'_, Queue>, pace: Pace) -> Pushed {
    if queue.gate == Gate::Idle {
        return Pushed::MustDial;
    }
    if queue.corks > 0 || queue.writer.is_none() {
        return Pushed::Done;
    }
    if queue.settings.wait_max.is_some() {
        // The first one starts the writer's clock, the last one stops it.
        if queue.waiting.messages == 1 || queue.is_full_batch() {
            wake(queue);
        }
        return Pushed::Done;
    }
    let must_flush = match pace {
        Pace::Lone => true,
        Pace::Many => false,
        Pace::Unknown => !queue.is_busy && queue.is_quiet(),
    };
    if must_flush {
        return Pushed::MustFlush;
    }
    wake(queue);
    Pushed::Done
}

impl Queue {
    /// Whether the last flush was long ago; if so the next one is now.
    ///
    /// A sender in a loop would flush each message, and a peer that answers each one would keep both sides at
    /// it: a batch of one costs ten times its share of a large one.
    fn is_quiet(&mut self) -> bool {
        let now = Instant::now();
        let is_quiet = self.flushed.is_none_or(|flushed| now.duration_since(flushed) >= FLUSH_INTERVAL_MIN);
        if is_quiet {
            self.flushed = Some(now);
        }
        is_quiet
    }

    /// Whether the next batch is as large as it may be.
    fn is_full_batch(&self) -> bool {
        self.waiting.messages >= self.settings.batch_messages_max
            || self.waiting_bytes >= self.settings.batch_bytes_max
    }

    /// Until when the oldest message may wait for company; `None` when nothing may wait.
    fn due(&self) -> Option<Instant> {
        let wait = self.settings.wait_max?;
        if self.is_unfinished || self.is_finishing || self.is_full_batch() {
            return None;
        }
        self.oldest.map(|oldest| oldest + wait)
    }
}

#[cfg(test)]
mod tests;
