//! Packs: stretches of a lane's frames, compressed.
//!
//! A pack is a frame whose content takes its place in the stream: the bytes inside are read as if they had come by
//! themselves, so that a frame may span packs, but nothing else may come in between. The algorithm stands where other
//! frames have their service, and the body is
//!
//! ```text
//! offset  bytes  field
//!      0      4  length of the content, little endian; 1 to 262,144
//!      4      …  the content, compressed
//! ```
//!
//! Content is bounded whatever the compressed bytes claim or do, so that a small pack never becomes a large one here.

use std::collections::VecDeque;
use std::io::{Read, Write};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{FrameError, HEADER_BYTES, Head};
use crate::lane_settings::Compression;

/// The longest content of a pack.
pub(crate) const PACK_BYTES_MAX: usize = 256 << 10;
/// Bytes of a pack's body in front of the compressed content.
pub(crate) const LENGTH_BYTES: usize = 4;
/// After batches that did not shrink, at most so many are not tried.
const SKIPPED_MAX: u32 = 64;
const ZSTD_LEVEL: i32 = 1;

/// How the content of a pack is stored, by its number on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Algorithm {
    /// As it is: a part that did not shrink, between others that did.
    Stored = 0,
    Lz4 = 1,
    Gzip = 2,
    Zstd = 3,
}

impl Algorithm {
    const ALL: [Algorithm; 4] = [Algorithm::Stored, Algorithm::Lz4, Algorithm::Gzip, Algorithm::Zstd];

    pub(crate) fn from_number(number: u16) -> Option<Algorithm> {
        Algorithm::ALL.get(usize::from(number)).copied()
    }

    /// The algorithm of a compression; `None` for none.
    pub(crate) fn of(compression: Compression) -> Option<Algorithm> {
        match compression {
            Compression::None => None,
            Compression::Lz4 => Some(Algorithm::Lz4),
            Compression::Gzip => Some(Algorithm::Gzip),
            Compression::Zstd => Some(Algorithm::Zstd),
        }
    }
}

/// The sending side of one lane: decides what is worth a try, and keeps what the algorithms need.
#[derive(Default)]
pub(crate) struct Packer {
    /// Batches that will not be tried.
    skipping: u32,
    /// How many are not tried after the next one that does not shrink.
    penalty: u32,
    content: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Packer {
    /// Whether the next batch is worth a try.
    pub(crate) fn tries(&mut self) -> bool {
        let tries = self.skipping == 0;
        self.skipping = self.skipping.saturating_sub(1);
        tries
    }

    /// Packs the beginning of a batch, or says that it does not pay: then the whole batch goes as it is.
    pub(crate) fn pack_first(&mut self, algorithm: Algorithm, part: &[Bytes]) -> Option<Bytes> {
        let packed = self.compress(algorithm, part);
        if packed.is_some() {
            self.penalty = 0;
        } else {
            self.penalty = (self.penalty * 2).clamp(1, SKIPPED_MAX);
            self.skipping = self.penalty;
        }
        packed
    }

    /// Packs a later part of a batch, as it is if need be.
    pub(crate) fn pack_next(&mut self, algorithm: Algorithm, part: Vec<Bytes>, into: &mut Vec<Bytes>) {
        match self.compress(algorithm, &part) {
            Some(packed) => into.push(packed),
            None => {
                let bytes: usize = part.iter().map(Bytes::len).sum();
                into.push(head(Algorithm::Stored, bytes, bytes).freeze());
                into.extend(part);
            }
        }
    }

    /// The whole pack; `None` when it would not be a tenth smaller than its content.
    fn compress(&mut self, algorithm: Algorithm, part: &[Bytes]) -> Option<Bytes> {
        self.content.clear();
        part.iter().for_each(|piece| self.content.extend_from_slice(piece));
        let content = &self.content[..];
        let body_max = content.len() - content.len() / 10;
        let body = match algorithm {
            Algorithm::Stored => return None,
            Algorithm::Lz4 => lz4_flex::block::compress(content),
            Algorithm::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content).ok()?;
                encoder.finish().ok()?
            }
            Algorithm::Zstd => {
                if self.zstd.is_none() {
                    self.zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
                }
                self.zstd.as_mut()?.compress(content).ok()?
            }
        };
        if HEADER_BYTES + LENGTH_BYTES + body.len() > body_max {
            return None;
        }
        let mut pack = head(algorithm, content.len(), body.len());
        pack.extend_from_slice(&body);
        Some(pack.freeze())
    }
}

/// Everything of a pack in front of `body_bytes` of compressed content.
fn head(algorithm: Algorithm, content_bytes: usize, body_bytes: usize) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + LENGTH_BYTES + body_bytes);
    Head::Pack { algorithm }.encode(LENGTH_BYTES + body_bytes, &mut bytes);
    bytes.put_u32_le(u32::try_from(content_bytes).expect("a pack holds at most 256 KiB"));
    bytes
}

/// Splits the next part, at most as long as a pack's content, off a batch.
pub(crate) fn take_part(batch: &mut VecDeque<Bytes>) -> Vec<Bytes> {
    take_bytes(batch, PACK_BYTES_MAX)
}

/// Splits at most so many bytes off a batch; less when there is no more.
pub(crate) fn take_bytes(batch: &mut VecDeque<Bytes>, bytes_max: usize) -> Vec<Bytes> {
    let (mut part, mut room) = (Vec::new(), bytes_max);
    while room > 0
        && let Some(piece) = batch.front_mut()
    {
        let taken = piece.split_to(piece.len().min(room));
        room -= taken.len();
        if piece.is_empty() {
            batch.pop_front();
        }
        part.push(taken);
    }
    part
}

/// The receiving side: unpacks the body of a pack.
pub(crate) fn unpack(algorithm: u16, mut body: Bytes) -> Result<Bytes, FrameError> {
    let known = Algorithm::from_number(algorithm).ok_or(FrameError::UnknownAlgorithm(algorithm))?;
    let bytes = body.get_u32_le() as usize;
    if !(1..=PACK_BYTES_MAX).contains(&bytes) {
        return Err(FrameError::PackLength { bytes, bytes_max: PACK_BYTES_MAX });
    }
    let broken = FrameError::Unpack { algorithm, bytes };
    let content = match known {
        Algorithm::Stored => body,
        Algorithm::Lz4 => {
            let mut content = vec![0; bytes];
            let unpacked = lz4_flex::block::decompress_into(&body, &mut content).map_err(|_| broken)?;
            content.truncate(unpacked);
            content.into()
        }
        Algorithm::Gzip => {
            let mut content = Vec::new();
            let mut limited = flate2::read::GzDecoder::new(&body[..]).take(bytes as u64 + 1);
            limited.read_to_end(&mut content).map_err(|_| broken)?;
            content.into()
        }
        Algorithm::Zstd => {
            let mut content = vec![0; bytes];
            let unpacked = zstd::bulk::decompress_to_buffer(&body, &mut content).map_err(|_| broken)?;
            content.truncate(unpacked);
            content.into()
        }
    };
    if content.len() == bytes { Ok(content) } else { Err(broken) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMPRESSING: [Algorithm; 3] = [Algorithm::Lz4, Algorithm::Gzip, Algorithm::Zstd];

    /// A pack's body.
    fn body(algorithm: Algorithm, content: &[u8]) -> Bytes {
        let part = [Bytes::copy_from_slice(content)];
        let mut pack = Packer::default().compress(algorithm, &part).expect("it shrinks");
        pack.advance(HEADER_BYTES);
        pack
    }

    #[test]
    fn what_is_packed_comes_out_again_with_every_algorithm() {
        let content: Vec<u8> = (0..100_000u32).flat_map(|i| (i / 7).to_le_bytes()).take(200_000).collect();
        for algorithm in COMPRESSING {
            let body = body(algorithm, &content);
            assert!(body.len() < content.len() * 9 / 10, "{algorithm:?}");
            assert_eq!(unpack(algorithm as u16, body).unwrap(), content);
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_packed_and_the_next_batches_are_not_tried() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(10_000)
        .collect();
        for algorithm in COMPRESSING {
            let mut packer = Packer::default();
            let mut tried = 0;
            for _ in 0..1000 {
                if packer.tries() {
                    tried += 1;
                    assert_eq!(packer.pack_first(algorithm, &[Bytes::from(noise.clone())]), None);
                }
            }
            assert!((10..30).contains(&tried), "{tried}");
            while !packer.tries() {}
            assert!(packer.pack_first(algorithm, &[Bytes::from(vec![0; 1000])]).is_some());
            assert!(packer.tries(), "one that shrinks makes up for all");
        }
    }

    #[test]
    fn a_part_that_does_not_shrink_is_stored_between_others() {
        let part = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let mut pieces = Vec::new();
        Packer::default().pack_next(Algorithm::Lz4, part, &mut pieces);
        assert_eq!(pieces.concat(), b"\x07\0\0\0\x07\0\0\0\x03\0\0\0abc");
        assert_eq!(unpack(0, Bytes::from_static(b"\x03\0\0\0abc")).unwrap(), "abc");
    }

    /// A bomb: little on the wire, much in memory.
    #[test]
    fn a_pack_that_claims_or_holds_too_much_is_refused() {
        for algorithm in COMPRESSING {
            let number = algorithm as u16;
            let honest = body(algorithm, &vec![0; PACK_BYTES_MAX]);
            assert!(honest.len() < PACK_BYTES_MAX / 50, "{} bytes hold 256 KiB", honest.len());
            for (claim, is_lie) in [(PACK_BYTES_MAX, false), (100, true), (PACK_BYTES_MAX - 1, true)] {
                let mut bytes = BytesMut::from(&honest[..]);
                bytes[..4].copy_from_slice(&(claim as u32).to_le_bytes());
                let expected = FrameError::Unpack { algorithm: number, bytes: claim };
                assert_eq!(unpack(number, bytes.freeze()).err(), is_lie.then_some(expected));
            }
            for claim in [0, PACK_BYTES_MAX + 1, u32::MAX as usize] {
                let mut bytes = BytesMut::from(&honest[..]);
                bytes[..4].copy_from_slice(&(claim as u32).to_le_bytes());
                let refused = FrameError::PackLength { bytes: claim, bytes_max: PACK_BYTES_MAX };
                assert_eq!(unpack(number, bytes.freeze()), Err(refused));
            }
        }
    }

    #[test]
    fn an_unknown_algorithm_is_refused() {
        assert_eq!(unpack(4, Bytes::from_static(&[1; 10])), Err(FrameError::UnknownAlgorithm(4)));
    }

    #[test]
    fn parts_hold_the_batch_in_order_and_are_never_longer_than_a_pack() {
        let pieces = [10, PACK_BYTES_MAX, 3, 2 * PACK_BYTES_MAX + 1];
        let mut batch: VecDeque<Bytes> =
            pieces.iter().enumerate().map(|(i, size)| Bytes::from(vec![i as u8; *size])).collect();
        let whole: Vec<u8> = batch.iter().flatten().copied().collect();
        let mut parts = Vec::new();
        while !batch.is_empty() {
            parts.push(take_part(&mut batch).concat());
        }
        assert!(parts.iter().all(|part| part.len() <= PACK_BYTES_MAX));
        assert_eq!(parts.len(), 4);
        assert!(parts.concat() == whole);
    }

    proptest! {
        #[test]
        fn arbitrary_packs_never_panic(algorithm in 0u16..5, body in proptest::collection::vec(any::<u8>(), 4..300)) {
            let _ = unpack(algorithm, Bytes::from(body));
        }

        #[test]
        fn a_damaged_pack_gives_at_most_what_it_claims(place: prop::sample::Index, value: u8) {
            for algorithm in COMPRESSING {
                let content: Vec<u8> = (0..2000u32).map(|i| (i / 9) as u8).collect();
                let mut bytes = BytesMut::from(&body(algorithm, &content)[..]);
                let place = place.index(bytes.len() - LENGTH_BYTES) + LENGTH_BYTES;
                bytes[place] = value;
                if let Ok(unpacked) = unpack(algorithm as u16, bytes.freeze()) {
                    prop_assert_eq!(unpacked.len(), content.len());
                }
            }
        }
    }
}
