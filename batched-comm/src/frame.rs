//! Frames: how messages lie in a lane's stream, and the decoder that takes them out again.
//!
//! ```text
//! offset  bytes  field
//!      0      4  length of what follows the first 8 bytes, little endian
//!      4      1  kind
//!      5      1  flags, 0
//!      6      2  service, little endian; 0 where the kind has none. In a pack: the algorithm; in a fan-out: how many
//!                services, 2 bytes each, precede the payload
//!      8      8  correlation, little endian; absent in casts and cluster announcements
//!      …      …  payload
//! ```
//!
//! Packs and fan-outs are sent only to peers that have said that they take them.
//!
//! The fields have fixed places rather than variable-length integers: encoding and decoding them is a handful
//! of loads and stores, and a frame costs 8 bytes more than its payload (16 in calls).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::id::{ClusterId, ServiceId};
use crate::pack::{Algorithm, LENGTH_BYTES, PACK_BYTES_MAX};

/// Bytes in front of every frame's body.
pub(crate) const HEADER_BYTES: usize = 8;
/// Bytes of the correlation that starts the body of calls and answers.
pub(crate) const CORRELATION_BYTES: usize = 8;
/// A frame that spans chunks is collected in a buffer of at most this at first, so that a lie about its length costs nothing.
const RESERVE_BYTES_MAX: usize = 64 << 10;
/// Once so much of a frame has arrived, the buffer gets room for all of it: one that grows by doubling is copied as it grows,
/// and the last copy of a message of 64 MiB held up the whole runtime for 20 ms. The room costs addresses, not memory,
/// until it is filled.
const BELIEVED_BYTES: usize = 1 << 20;

const CAST: u8 = 0;
const CALL: u8 = 1;
const REPLY: u8 = 2;
const NO_HANDLER: u8 = 3;
const NO_REPLY: u8 = 4;
const OVERLOADED: u8 = 5;
const CLUSTER: u8 = 6;
pub(crate) const PACK: u8 = 7;
pub(crate) const FAN_OUT: u8 = 8;
/// Services in one fan-out.
pub(crate) const FAN_OUT_MAX: usize = 256;

/// How a call ended at the receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Reply(Bytes),
    NoHandler,
    NoReply,
    Overloaded,
}

/// One message of a lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Frame {
    Cast {
        service: ServiceId,
        payload: Bytes,
    },
    Call {
        service: ServiceId,
        correlation: u64,
        payload: Bytes,
    },
    Outcome {
        correlation: u64,
        outcome: Outcome,
    },
    /// The sender has learned which cluster it belongs to since the handshake.
    Cluster(ClusterId),
    /// Frames, or parts of them, compressed.
    Pack {
        algorithm: u16,
        body: Bytes,
    },
    /// One payload for several services.
    FanOut {
        services: Vec<ServiceId>,
        payload: Bytes,
    },
}

/// Everything of a frame but its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Head {
    Cast { service: ServiceId },
    Call { service: ServiceId, correlation: u64 },
    Reply { correlation: u64 },
    NoHandler { correlation: u64 },
    NoReply { correlation: u64 },
    Overloaded { correlation: u64 },
    Cluster,
    Pack { algorithm: Algorithm },
    FanOut { services: usize },
}

impl Head {
    /// Bytes in front of the payload.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Head::Cast { .. } | Head::Cluster | Head::Pack { .. } | Head::FanOut { .. } => HEADER_BYTES,
            _ => HEADER_BYTES + CORRELATION_BYTES,
        }
    }

    /// Writes everything in front of a payload of `payload_bytes`.
    pub(crate) fn encode(self, payload_bytes: usize, into: &mut BytesMut) {
        let (kind, service, correlation) = match self {
            Head::Cast { service } => (CAST, service.0, None),
            Head::Call { service, correlation } => (CALL, service.0, Some(correlation)),
            Head::Reply { correlation } => (REPLY, 0, Some(correlation)),
            Head::NoHandler { correlation } => (NO_HANDLER, 0, Some(correlation)),
            Head::NoReply { correlation } => (NO_REPLY, 0, Some(correlation)),
            Head::Overloaded { correlation } => (OVERLOADED, 0, Some(correlation)),
            Head::Cluster => (CLUSTER, 0, None),
            Head::Pack { algorithm } => (PACK, algorithm as u16, None),
            Head::FanOut { services } => {
                (FAN_OUT, u16::try_from(services).expect("a fan-out is at most 256 wide"), None)
            }
        };
        let body_bytes = payload_bytes + if correlation.is_some() { CORRELATION_BYTES } else { 0 };
        let body_bytes =
            u32::try_from(body_bytes).expect("payloads are limited to 1 GiB before they get here");
        let prefix = u64::from(body_bytes) | u64::from(kind) << 32 | u64::from(service) << 48;
        into.put_u64_le(prefix);
        if let Some(correlation) = correlation {
            into.put_u64_le(correlation);
        }
    }
}

/// Why a stream is not a sequence of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max}")]
    Oversized { bytes: usize, bytes_max: usize },
    #[error("frame kind {0} is unknown")]
    UnknownKind(u8),
    #[error("frame flags {0:#x} are unknown")]
    UnknownFlags(u8),
    #[error("a frame of kind {kind} cannot be {bytes} bytes long")]
    Length { kind: u8, bytes: usize },
    #[error("{0} services in one fan-out are over the limit, or none")]
    FanOut(usize),
    #[error("compression algorithm {0} is unknown")]
    UnknownAlgorithm(u16),
    #[error("a pack of {bytes} bytes is empty or over the limit of {bytes_max}")]
    PackLength { bytes: usize, bytes_max: usize },
    #[error("a pack of algorithm {algorithm} does not hold the {bytes} bytes it claims")]
    Unpack { algorithm: u16, bytes: usize },
    #[error("a pack inside a pack")]
    Nested,
    #[error("a frame between the packs of another")]
    Interleaved,
    #[error("the stream ended inside a frame")]
    Truncated,
    #[error("the stream stalled inside a frame")]
    Stalled,
    #[error("lane tag {0} is unknown or in use")]
    Lane(u8),
}

/// The first 8 bytes of a frame.
#[derive(Clone, Copy)]
struct Prefix {
    body_bytes: usize,
    kind: u8,
    service: ServiceId,
}

impl Prefix {
    /// Reads and judges the first 8 bytes: everything is checked before a byte of the body is waited for.
    fn parse(bytes: &[u8], payload_bytes_max: usize) -> Result<Prefix, FrameError> {
        let mut bytes = &bytes[..HEADER_BYTES];
        let body_bytes = bytes.get_u32_le() as usize;
        let kind = bytes.get_u8();
        let flags = bytes.get_u8();
        let service = ServiceId(bytes.get_u16_le());
        if flags != 0 {
            return Err(FrameError::UnknownFlags(flags));
        }
        let (least, most) = match kind {
            CAST => (0, payload_bytes_max),
            CALL | REPLY => (CORRELATION_BYTES, CORRELATION_BYTES + payload_bytes_max),
            NO_HANDLER | NO_REPLY | OVERLOADED => (CORRELATION_BYTES, CORRELATION_BYTES),
            CLUSTER => (16, 16),
            PACK => (LENGTH_BYTES + 1, LENGTH_BYTES + PACK_BYTES_MAX),
            FAN_OUT => {
                let services = usize::from(service.0);
                if !(1..=FAN_OUT_MAX).contains(&services) {
                    return Err(FrameError::FanOut(services));
                }
                (2 * services, 2 * services + payload_bytes_max)
            }
            _ => return Err(FrameError::UnknownKind(kind)),
        };
        if body_bytes > most && most >= payload_bytes_max {
            return Err(FrameError::Oversized { bytes: body_bytes, bytes_max: most });
        }
        if body_bytes < least || body_bytes > most {
            return Err(FrameError::Length { kind, bytes: body_bytes });
        }
        Ok(Prefix { body_bytes, kind, service })
    }

    fn frame(self, mut body: Bytes) -> Frame {
        let service = self.service;
        if self.kind == CAST {
            return Frame::Cast { service, payload: body };
        }
        if self.kind == CLUSTER {
            return Frame::Cluster(ClusterId(body.get_u128_le()));
        }
        if self.kind == PACK {
            return Frame::Pack { algorithm: service.0, body };
        }
        if self.kind == FAN_OUT {
            let services = (0..service.0).map(|_| ServiceId(body.get_u16_le())).collect();
            return Frame::FanOut { services, payload: body };
        }
        let correlation = body.get_u64_le();
        let outcome = match self.kind {
            CALL => return Frame::Call { service, correlation, payload: body },
            REPLY => Outcome::Reply(body),
            NO_HANDLER => Outcome::NoHandler,
            NO_REPLY => Outcome::NoReply,
            _ => Outcome::Overloaded,
        };
        Frame::Outcome { correlation, outcome }
    }
}

/// Takes frames out of the chunks of a stream.
///
/// A frame that lies inside one chunk is a slice of it; only frames that span chunks are copied. What is held
/// never exceeds what has arrived, whatever lengths the sender claims.
pub(crate) struct Decoder {
    payload_bytes_max: usize,
    chunk: Bytes,
    partial: BytesMut,
}

impl Decoder {
    pub(crate) fn new(payload_bytes_max: usize) -> Decoder {
        Decoder { payload_bytes_max, chunk: Bytes::new(), partial: BytesMut::new() }
    }

    /// Gives the decoder the next chunk; the previous one has been drained through [`next`](Decoder::next).
    pub(crate) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "the previous chunk is drained first");
        self.chunk = chunk;
    }

    /// Whether the stream may not end here.
    pub(crate) fn is_inside_frame(&self) -> bool {
        !self.partial.is_empty() || !self.chunk.is_empty()
    }

    /// The next frame, or `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if !self.partial.is_empty() {
            return self.next_spanning();
        }
        if self.chunk.len() < HEADER_BYTES {
            self.keep_rest();
            return Ok(None);
        }
        let prefix = Prefix::parse(&self.chunk, self.payload_bytes_max)?;
        let frame_bytes = HEADER_BYTES + prefix.body_bytes;
        if self.chunk.len() < frame_bytes {
            self.partial.reserve(frame_bytes.min(RESERVE_BYTES_MAX).max(self.chunk.len()));
            self.keep_rest();
            return Ok(None);
        }
        let mut body = self.chunk.split_to(frame_bytes);
        body.advance(HEADER_BYTES);
        Ok(Some(prefix.frame(body)))
    }

    /// Goes on with a frame whose beginning came in an earlier chunk.
    fn next_spanning(&mut self) -> Result<Option<Frame>, FrameError> {
        if !self.fill(HEADER_BYTES) {
            return Ok(None);
        }
        let prefix = Prefix::parse(&self.partial, self.payload_bytes_max)?;
        let frame_bytes = HEADER_BYTES + prefix.body_bytes;
        if self.partial.len() >= BELIEVED_BYTES {
            self.partial.reserve(frame_bytes - self.partial.len());
        }
        if !self.fill(frame_bytes) {
            return Ok(None);
        }
        let mut body = std::mem::take(&mut self.partial).freeze();
        body.advance(HEADER_BYTES);
        Ok(Some(prefix.frame(body)))
    }

    /// Moves bytes over until `partial` holds `bytes`; false when the chunk ends before.
    fn fill(&mut self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.partial.len());
        let taken = self.chunk.split_to(missing.min(self.chunk.len()));
        self.partial.extend_from_slice(&taken);
        self.partial.len() >= bytes
    }

    fn keep_rest(&mut self) {
        self.partial.extend_from_slice(&self.chunk);
        self.chunk = Bytes::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAYLOAD_BYTES_MAX: usize = 300;

    fn encode(frame: &Frame) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        let (head, payload) = match frame.clone() {
            Frame::Cast { service, payload } => (Head::Cast { service }, payload),
            Frame::Call { service, correlation, payload } => (Head::Call { service, correlation }, payload),
            Frame::Outcome { correlation, outcome } => match outcome {
                Outcome::Reply(payload) => (Head::Reply { correlation }, payload),
                Outcome::NoHandler => (Head::NoHandler { correlation }, Bytes::new()),
                Outcome::NoReply => (Head::NoReply { correlation }, Bytes::new()),
                Outcome::Overloaded => (Head::Overloaded { correlation }, Bytes::new()),
            },
            Frame::Cluster(id) => (Head::Cluster, Bytes::copy_from_slice(&id.0.to_le_bytes())),
            Frame::Pack { algorithm, body } => {
                (Head::Pack { algorithm: Algorithm::from_number(algorithm).unwrap() }, body)
            }
            Frame::FanOut { services, payload } => {
                let listed = services.iter().flat_map(|service| service.0.to_le_bytes());
                (Head::FanOut { services: services.len() }, listed.chain(payload).collect())
            }
        };
        head.encode(payload.len(), &mut bytes);
        assert_eq!(bytes.len(), head.bytes());
        bytes.extend_from_slice(&payload);
        bytes.to_vec()
    }

    /// Decodes `stream` cut at `cuts`.
    fn decode(stream: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::new(PAYLOAD_BYTES_MAX);
        let mut frames = Vec::new();
        let mut rest = stream;
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let cut = cuts.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
            decoder.push(Bytes::copy_from_slice(&rest[..cut]));
            rest = &rest[cut..];
            while let Some(frame) = decoder.next()? {
                frames.push(frame);
            }
        }
        if decoder.is_inside_frame() { Err(FrameError::Truncated) } else { Ok(frames) }
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let payload = || proptest::collection::vec(any::<u8>(), 0..PAYLOAD_BYTES_MAX).prop_map(Bytes::from);
        let service = || any::<u16>().prop_map(ServiceId);
        prop_oneof![
            (service(), payload()).prop_map(|(service, payload)| Frame::Cast { service, payload }),
            (service(), any::<u64>(), payload()).prop_map(|(service, correlation, payload)| Frame::Call {
                service,
                correlation,
                payload
            }),
            (any::<u64>(), payload()).prop_map(|(correlation, payload)| Frame::Outcome {
                correlation,
                outcome: Outcome::Reply(payload)
            }),
            any::<u64>().prop_map(|correlation| Frame::Outcome { correlation, outcome: Outcome::NoHandler }),
            any::<u64>().prop_map(|correlation| Frame::Outcome { correlation, outcome: Outcome::NoReply }),
            any::<u64>().prop_map(|correlation| Frame::Outcome { correlation, outcome: Outcome::Overloaded }),
            any::<u128>().prop_map(|id| Frame::Cluster(ClusterId(id))),
            (0u16..4, proptest::collection::vec(any::<u8>(), 5..PAYLOAD_BYTES_MAX))
                .prop_map(|(algorithm, body)| Frame::Pack { algorithm, body: body.into() }),
            (proptest::collection::vec(service(), 1..9), payload())
                .prop_map(|(services, payload)| Frame::FanOut { services, payload }),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            frames in proptest::collection::vec(any_frame(), 0..20),
            cuts in proptest::collection::vec(1usize..400, 1..10),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(encode).collect();
            prop_assert_eq!(decode(&stream, &cuts), Ok(frames));
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_mean_the_same_however_they_are_cut(
            stream in proptest::collection::vec(any::<u8>(), 0..600),
            cuts in proptest::collection::vec(1usize..40, 1..10),
        ) {
            prop_assert_eq!(decode(&stream, &cuts), decode(&stream, &[usize::MAX]));
        }

        #[test]
        fn a_damaged_stream_never_panics(
            frames in proptest::collection::vec(any_frame(), 1..5),
            cuts in proptest::collection::vec(1usize..400, 1..10),
            place: prop::sample::Index,
            value: u8,
        ) {
            let mut stream: Vec<u8> = frames.iter().flat_map(encode).collect();
            let place = place.index(stream.len());
            stream[place] = value;
            let _ = decode(&stream, &cuts);
        }
    }

    /// The bytes of version 1: they may never change.
    #[test]
    fn the_bytes_of_each_frame_are_those_of_version_1() {
        let payload = Bytes::from_static(b"hi");
        let service = ServiceId(0x0102);
        let correlation = 0x1112_1314_1516_1718;
        let answer = |outcome| Frame::Outcome { correlation, outcome };
        let golden: [(Frame, &[u8]); 7] = [
            (Frame::Cast { service, payload: payload.clone() }, b"\x02\0\0\0\x00\0\x02\x01hi"),
            (
                Frame::Call { service, correlation, payload: payload.clone() },
                b"\x0a\0\0\0\x01\0\x02\x01\x18\x17\x16\x15\x14\x13\x12\x11hi",
            ),
            (answer(Outcome::Reply(payload)), b"\x0a\0\0\0\x02\0\0\0\x18\x17\x16\x15\x14\x13\x12\x11hi"),
            (answer(Outcome::NoHandler), b"\x08\0\0\0\x03\0\0\0\x18\x17\x16\x15\x14\x13\x12\x11"),
            (answer(Outcome::NoReply), b"\x08\0\0\0\x04\0\0\0\x18\x17\x16\x15\x14\x13\x12\x11"),
            (answer(Outcome::Overloaded), b"\x08\0\0\0\x05\0\0\0\x18\x17\x16\x15\x14\x13\x12\x11"),
            (Frame::Cluster(ClusterId(7)), b"\x10\0\0\0\x06\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ];
        for (frame, bytes) in golden {
            assert_eq!(encode(&frame), bytes, "{frame:?}");
            assert_eq!(decode(bytes, &[3]), Ok(vec![frame]));
        }
    }

    /// The bytes of the frames that are agreed on one by one: they may never change.
    #[test]
    fn the_bytes_of_packs_and_fan_outs_do_not_change() {
        let golden: [(Frame, &[u8]); 2] = [
            (
                Frame::Pack { algorithm: 3, body: Bytes::from_static(b"\x09\0\0\0zzz") },
                b"\x07\0\0\0\x07\0\x03\0\x09\0\0\0zzz",
            ),
            (
                Frame::FanOut {
                    services: vec![ServiceId(5), ServiceId(0x0102)],
                    payload: Bytes::from_static(b"hi"),
                },
                b"\x06\0\0\0\x08\0\x02\0\x05\0\x02\x01hi",
            ),
        ];
        for (frame, bytes) in golden {
            assert_eq!(encode(&frame), bytes, "{frame:?}");
            assert_eq!(decode(bytes, &[3]), Ok(vec![frame]));
        }
    }

    #[test]
    fn a_fan_out_to_nobody_or_to_too_many_is_refused_by_its_header_alone() {
        for services in [0u16, 257, 65_535] {
            let mut header = b"\x06\0\0\0\x08\0".to_vec();
            header.extend_from_slice(&services.to_le_bytes());
            assert_eq!(decode(&header, &[8]), Err(FrameError::FanOut(usize::from(services))));
        }
    }

    #[test]
    fn a_frame_inside_a_chunk_is_not_copied() {
        let frame = Frame::Cast { service: ServiceId(1), payload: Bytes::from_static(b"payload") };
        let chunk = Bytes::from(encode(&frame));
        let place = chunk.as_ptr().wrapping_add(HEADER_BYTES);
        let mut decoder = Decoder::new(PAYLOAD_BYTES_MAX);
        decoder.push(chunk);
        let Ok(Some(Frame::Cast { payload, .. })) = decoder.next() else { panic!("a cast") };
        assert_eq!(payload.as_ptr(), place);
    }

    #[test]
    fn an_oversized_frame_is_refused_by_its_header_alone() {
        let mut header = BytesMut::new();
        Head::Cast { service: ServiceId(1) }.encode(PAYLOAD_BYTES_MAX + 1, &mut header);
        let error = decode(&header, &[usize::MAX]);
        assert_eq!(
            error,
            Err(FrameError::Oversized { bytes: PAYLOAD_BYTES_MAX + 1, bytes_max: PAYLOAD_BYTES_MAX })
        );
    }

    #[test]
    fn a_claimed_length_reserves_no_more_than_a_step() {
        let mut decoder = Decoder::new(1 << 30);
        let mut header = BytesMut::new();
        Head::Cast { service: ServiceId(1) }.encode(1 << 30, &mut header);
        decoder.push(header.freeze());
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.partial.capacity() <= 2 * RESERVE_BYTES_MAX);
    }
}
