//! The decoder of a whole lane: frames, and the frames inside packs, in the order in which they were sent.

use bytes::Bytes;

use crate::frame::{Decoder, Frame, FrameError};
use crate::hello::Features;
use crate::pack::unpack;

/// Takes frames out of the chunks of a lane's stream, and out of packs on the way. It never yields a pack.
pub(crate) struct LaneDecoder {
    outer: Decoder,
    /// What packs hold: one stream of its own.
    inner: Decoder,
    features: Features,
    /// What has been done since the last turn ended.
    work: usize,
}

/// Messages taken out before other tasks have their turn: a packet of packs may hold a hundred thousand.
const TURN_WORK: usize = 2048;
/// What unpacking costs, in messages.
const PACK_WORK: usize = 64;

impl LaneDecoder {
    /// `features` are those that both sides have: the others' frames are refused.
    pub(crate) fn new(payload_bytes_max: usize, features: Features) -> LaneDecoder {
        let decoder = || Decoder::new(payload_bytes_max);
        LaneDecoder { outer: decoder(), inner: decoder(), features, work: 0 }
    }

    /// Gives the decoder the next chunk; the previous one has been drained through [`next`](LaneDecoder::next).
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.outer.push(chunk);
    }

    /// Whether the stream may not end here.
    pub(crate) fn is_inside_frame(&self) -> bool {
        self.outer.is_inside_frame() || self.inner.is_inside_frame()
    }

    /// The next frame, or `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            match self.inner.next()? {
                Some(Frame::Pack { .. }) => return Err(FrameError::Nested),
                Some(frame) => return self.check(frame).map(Some),
                None => {}
            }
            match self.outer.next()? {
                Some(Frame::Pack { algorithm, body }) => {
                    if !self.features.takes_packs() {
                        return Err(FrameError::UnknownKind(crate::frame::PACK));
                    }
                    self.inner.push(unpack(algorithm, body)?);
                    self.work += PACK_WORK;
                }
                Some(_) if self.inner.is_inside_frame() => return Err(FrameError::Interleaved),
                Some(frame) => return self.check(frame).map(Some),
                None => return Ok(None),
            }
        }
    }

    /// Whether it is time for other tasks to have their turn; after that a new one begins.
    pub(crate) fn ends_turn(&mut self) -> bool {
        let ends = self.work >= TURN_WORK;
        if ends {
            self.work = 0;
        }
        ends
    }

    fn check(&mut self, frame: Frame) -> Result<Frame, FrameError> {
        self.work += if let Frame::FanOut { services, .. } = &frame { services.len() } else { 1 };
        match frame {
            Frame::FanOut { .. } if !self.features.has(Features::FAN_OUT) => {
                Err(FrameError::UnknownKind(crate::frame::FAN_OUT))
            }
            frame => Ok(frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Head;
    use crate::id::ServiceId;
    use crate::pack::{Algorithm, PACK_BYTES_MAX, Packer, take_part};
    use bytes::BytesMut;
    use proptest::prelude::*;

    const BYTES_MAX: usize = 1 << 20;

    fn cast(payload: &[u8]) -> Bytes {
        let mut bytes = BytesMut::new();
        Head::Cast { service: ServiceId(1) }.encode(payload.len(), &mut bytes);
        bytes.extend_from_slice(payload);
        bytes.freeze()
    }

    fn decode(features: Features, stream: &[u8], cut: usize) -> Result<Vec<Bytes>, FrameError> {
        let mut decoder = LaneDecoder::new(BYTES_MAX, features);
        let mut payloads = Vec::new();
        for chunk in stream.chunks(cut) {
            decoder.push(Bytes::copy_from_slice(chunk));
            while let Some(frame) = decoder.next()? {
                let Frame::Cast { payload, .. } = frame else { panic!("a cast") };
                payloads.push(payload);
            }
        }
        if decoder.is_inside_frame() { Err(FrameError::Truncated) } else { Ok(payloads) }
    }

    fn packed(algorithm: Algorithm, batch: &[u8]) -> Vec<u8> {
        let mut batch = std::collections::VecDeque::from([Bytes::copy_from_slice(batch)]);
        let (mut packer, mut pieces) = (Packer::default(), Vec::new());
        while !batch.is_empty() {
            packer.pack_next(algorithm, take_part(&mut batch), &mut pieces);
        }
        pieces.concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn messages_come_out_in_order_whether_packed_or_not(
            batches in proptest::collection::vec(
                (proptest::collection::vec(0usize..100_000, 1..8), 0usize..5),
                1..6,
            ),
            cut in 1usize..100_000,
        ) {
            let (mut stream, mut sent) = (Vec::new(), Vec::new());
            for (i, (sizes, how)) in batches.iter().enumerate() {
                let mut batch = Vec::new();
                for size in sizes {
                    let payload = vec![i as u8; *size];
                    batch.extend_from_slice(&cast(&payload));
                    sent.push(Bytes::from(payload));
                }
                match Algorithm::from_number(*how as u16) {
                    Some(algorithm) => stream.extend(packed(algorithm, &batch)),
                    None => stream.extend(batch),
                }
            }
            prop_assert!(decode(Features::ALL, &stream, cut) == Ok(sent));
        }

        #[test]
        fn arbitrary_bytes_never_panic(stream in proptest::collection::vec(any::<u8>(), 1..400)) {
            let mut decoder = LaneDecoder::new(BYTES_MAX, Features::ALL);
            decoder.push(Bytes::from(stream));
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn what_was_not_agreed_on_is_unknown() {
        let pack = packed(Algorithm::Stored, &cast(b"x"));
        assert_eq!(decode(Features::default(), &pack, 99), Err(FrameError::UnknownKind(7)));
        assert_eq!(decode(Features::LZ4, &pack, 99), Ok(vec![Bytes::from_static(b"x")]));
        let fan_out = b"\x03\0\0\0\x08\0\x01\0\x02\0x";
        assert_eq!(decode(Features::LZ4, fan_out, 99), Err(FrameError::UnknownKind(8)));
    }

    #[test]
    fn a_turn_ends_after_some_messages_or_packs() {
        let mut decoder = LaneDecoder::new(BYTES_MAX, Features::ALL);
        let pack = packed(Algorithm::Lz4, &cast(b"").repeat(3000));
        let mut turns = 0;
        for _ in 0..40 {
            decoder.push(Bytes::from(pack.clone()));
            while decoder.next().unwrap().is_some() {
                turns += u32::from(decoder.ends_turn());
            }
        }
        assert_eq!(turns, 40 * (3000 + 64) / 2048);
    }

    #[test]
    fn packs_do_not_nest_and_nothing_comes_between_those_of_one_frame() {
        let nested = packed(Algorithm::Stored, &packed(Algorithm::Stored, &cast(b"x")));
        assert_eq!(decode(Features::ALL, &nested, 99), Err(FrameError::Nested));
        let large = packed(Algorithm::Stored, &cast(&vec![7; PACK_BYTES_MAX]));
        let mut interleaved = large[..PACK_BYTES_MAX + 12].to_vec();
        assert_eq!(decode(Features::ALL, &interleaved, 99), Err(FrameError::Truncated));
        interleaved.extend_from_slice(&cast(b"x"));
        assert_eq!(decode(Features::ALL, &interleaved, 99), Err(FrameError::Interleaved));
    }

    #[test]
    fn a_claim_inside_a_pack_is_bounded_like_any_other() {
        let mut lie = BytesMut::new();
        Head::Cast { service: ServiceId(1) }.encode(BYTES_MAX + 1, &mut lie);
        let pack = packed(Algorithm::Stored, &lie);
        let refused = FrameError::Oversized { bytes: BYTES_MAX + 1, bytes_max: BYTES_MAX };
        assert_eq!(decode(Features::ALL, &pack, 99), Err(refused));
    }
}
