//! The messages in a queue, encoded, and the batches that are taken from them.

use bytes::Bytes;
use tokio::time::Instant;

use super::Queue;
use crate::frame::Head;
use crate::lane_settings::LaneSettings;

/// Payloads of at least this size are handed on as they are; smaller ones are copied together.
const WHOLE_PAYLOAD_BYTES: usize = 16 << 10;
/// Small messages are collected in buffers of about this size.
const BUFFER_BYTES: usize = 64 << 10;
/// The first buffer of a quiet lane.
pub(super) const BUFFER_BYTES_MIN: usize = 2 << 10;

/// What [`LaneQueue::take`] took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Batch {
    pub(crate) messages: usize,
    pub(crate) casts: usize,
    pub(crate) bytes: usize,
    /// How the lane is written now.
    pub(crate) settings: LaneSettings,
}

/// How many messages, and how many of them are casts.
#[derive(Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) messages: usize,
    pub(super) casts: usize,
}

/// A stretch of what will be written.
pub(super) struct Piece {
    bytes: Bytes,
    /// Messages that end in this piece.
    count: Count,
    /// Whether the next piece starts with a header.
    ends_message: bool,
}

impl Queue {
    /// Appends a message: `prefix` and `payload` after its head.
    pub(super) fn encode(&mut self, head: Head, prefix: &[u8], payload: &Bytes, casts: usize) {
        let is_whole = payload.len() >= WHOLE_PAYLOAD_BYTES;
        let message_bytes = head.bytes() + prefix.len() + payload.len();
        if self.waiting.messages == 0 && self.settings.wait_max.is_some() {
            self.oldest = Some(Instant::now());
        }
        let is_over = self.buffer_count.messages >= self.settings.batch_messages_max
            || self.buffer.len() + message_bytes > self.settings.batch_bytes_max;
        if is_over {
            self.seal(true);
        }
        self.reserve(if is_whole { head.bytes() + prefix.len() } else { message_bytes });
        head.encode(prefix.len() + payload.len(), &mut self.buffer);
        self.buffer.extend_from_slice(prefix);
        let count = Count { messages: 1, casts };
        if is_whole {
            self.seal(false);
            self.pieces.push_back(Piece { bytes: payload.clone(), count, ends_message: true });
        } else {
            self.buffer.extend_from_slice(payload);
            self.buffer_count.add(count);
        }
        self.waiting.add(count);
        self.waiting_bytes += message_bytes;
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

    pub(super) fn take(&mut self, into: &mut Vec<Bytes>) -> Batch {
        let mut batch = Batch { messages: 0, casts: 0, bytes: 0, settings: self.settings };
        while let Some((pieces, count, bytes)) = self.front_messages() {
            if !batch.has_room(count, bytes) {
                break;
            }
            batch.add(count, bytes);
            into.extend(self.pieces.drain(..pieces).map(|piece| piece.bytes));
        }
        if self.pieces.is_empty()
            && !self.buffer.is_empty()
            && batch.has_room(self.buffer_count, self.buffer.len())
        {
            batch.add(std::mem::take(&mut self.buffer_count), self.buffer.len());
            into.push(self.buffer.split().freeze());
        }
        self.oldest = None;
        self.waiting.messages -= batch.messages;
        self.waiting.casts -= batch.casts;
        self.waiting_bytes -= batch.bytes;
        self.taken += batch.messages as u64;
        batch
    }
}

impl Queue {
    /// The pieces at the front that end together with a message: how many, with what in them.
    fn front_messages(&self) -> Option<(usize, Count, usize)> {
        let (mut count, mut bytes) = (Count::default(), 0);
        for (index, piece) in self.pieces.iter().enumerate() {
            count.add(piece.count);
            bytes += piece.bytes.len();
            if piece.ends_message {
                return Some((index + 1, count, bytes));
            }
        }
        // A head is never sealed without its payload behind it.
        debug_assert!(self.pieces.is_empty());
        None
    }
}

impl Batch {
    /// Whether more fits; the first always does.
    fn has_room(&self, count: Count, bytes: usize) -> bool {
        self.messages == 0
            || (self.messages + count.messages <= self.settings.batch_messages_max
                && self.bytes + bytes <= self.settings.batch_bytes_max)
    }

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
