//! The decoders that read bytes of a peer, as functions that a fuzzer calls. Behind the feature `fuzzing`, for nobody else.

use bytes::Bytes;

use crate::authority::CertificateAuthority;
use crate::frame::{Frame, FrameError};
use crate::garbage::is_garbage;
use crate::hello::{ControlMessage, Features, WireVersion, body_bytes};
use crate::identity::Identity;
use crate::lane_decoder::LaneDecoder;
use crate::pack::{PACK_BYTES_MAX, unpack};

/// Small, so that a fuzzer reaches it.
const PAYLOAD_BYTES_MAX: usize = 4096;

/// The stream of a lane; the first byte says how it is cut. However it is cut, it means the same.
pub fn lane(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let whole = frames(stream, stream.len());
    let cut = frames(stream, usize::from(*cut) + 1);
    assert_eq!(whole, cut);
}

fn frames(stream: &[u8], cut: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = LaneDecoder::new(PAYLOAD_BYTES_MAX, Features::ALL);
    let mut frames = Vec::new();
    for chunk in stream.chunks(cut.max(1)) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    for frame in &frames {
        let payload = match frame {
            Frame::Cast { payload, .. } | Frame::Call { payload, .. } | Frame::FanOut { payload, .. } => {
                payload
            }
            Frame::Outcome { .. } | Frame::Cluster(_) | Frame::Pack { .. } => continue,
        };
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "{} bytes", payload.len());
    }
    (frames, None)
}

/// A message of the handshake: what is understood is what would be said.
pub fn handshake(bytes: &[u8]) {
    let Some((prefix, body)) = bytes.split_first_chunk::<8>() else { return };
    for version in WireVersion::ALL {
        let Ok(length) = body_bytes(*prefix, version) else { continue };
        let Some(body) = body.get(..length) else { continue };
        if let Ok(message) = ControlMessage::decode(body) {
            let encoded = message.encode(version);
            let again = ControlMessage::decode(&encoded[8..]).ok();
            assert_eq!(again, Some(message));
        }
    }
}

/// The body of a pack; the first byte names the algorithm. What comes out is as long as it claims.
pub fn pack(bytes: &[u8]) {
    let Some((algorithm, body)) = bytes.split_first() else { return };
    if body.len() < 5 {
        return;
    }
    let claim = u32::from_le_bytes([body[0], body[1], body[2], body[3]]) as usize;
    if let Ok(content) = unpack(u16::from(*algorithm), Bytes::copy_from_slice(body)) {
        assert!(content.len() == claim && claim <= PACK_BYTES_MAX);
    }
}

/// A datagram at the UDP port.
pub fn datagram(bytes: &[u8]) {
    let _ = is_garbage(bytes);
}

/// Three PEM texts, cut at the first bytes that are zero: of a node, and the first and last of an authority.
pub fn identity(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(3, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let (ca, cert, key) = (part(), part(), part());
    let _ = Identity::from_pem(ca, cert, key);
    let _ = CertificateAuthority::from_pem(ca, key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 5] = [
        ("lane", lane),
        ("handshake", handshake),
        ("pack", pack),
        ("datagram", datagram),
        ("identity", identity),
    ];

    /// The seeds of a target.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    #[test]
    fn every_target_survives_its_seeds() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name} has no seeds");
            seeds.iter().for_each(|seed| target(seed));
        }
    }

    /// Seeds that mean nothing would lead a fuzzer nowhere.
    #[test]
    fn the_seeds_reach_every_frame_and_every_message() {
        let decoded: Vec<Frame> = seeds("lane").iter().flat_map(|seed| frames(&seed[1..], 99).0).collect();
        let has = |matches: fn(&Frame) -> bool| decoded.iter().any(matches);
        assert!(has(|frame| matches!(frame, Frame::Cast { .. })));
        assert!(has(|frame| matches!(frame, Frame::Call { .. })));
        assert!(has(|frame| matches!(frame, Frame::Outcome { .. })));
        assert!(has(|frame| matches!(frame, Frame::Cluster(_))));
        assert!(has(|frame| matches!(frame, Frame::FanOut { .. })));
        let messages = seeds("handshake");
        let good = messages.iter().filter(|seed| ControlMessage::decode(&seed[8..]).is_ok());
        assert!(good.count() >= 9);
        let packs = seeds("pack");
        let good = packs
            .iter()
            .filter(|seed| unpack(u16::from(seed[0]), Bytes::copy_from_slice(&seed[1..])).is_ok());
        assert!(good.count() >= 4);
    }

    /// The same mutations in every run: each seed cut off at every length, and with every bit of its beginning turned.
    #[test]
    fn every_target_survives_its_seeds_cut_off_anywhere_and_with_any_bit_turned() {
        const BYTES_MAX: usize = 400;
        for (name, target) in TARGETS {
            for seed in seeds(name) {
                let mut bytes = seed[..seed.len().min(2 * BYTES_MAX)].to_vec();
                (0..=bytes.len()).for_each(|kept| target(&bytes[..kept]));
                for bit in 0..8 * bytes.len().min(BYTES_MAX) {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    target(&bytes);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn every_target_survives_mutations_of_its_seeds(
            seed: prop::sample::Index,
            places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            kept: prop::sample::Index,
        ) {
            for (name, target) in TARGETS {
                let seeds = seeds(name);
                let mut bytes = seeds[seed.index(seeds.len())].clone();
                for (place, value) in &places {
                    let place = place.index(bytes.len());
                    bytes[place] = *value;
                }
                target(&bytes);
                bytes.truncate(kept.index(bytes.len() + 1));
                target(&bytes);
            }
        }
    }
}
