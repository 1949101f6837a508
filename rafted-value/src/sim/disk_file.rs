//! One file of a simulated disk: what it reads as, what of it is durable, and what a crash makes of the difference.

use super::random::SimRng;

/// What is written as a whole, or not at all.
const SECTOR_BYTES: usize = 512;

/// A file's contents.
#[derive(Default)]
pub(super) struct FileState {
    /// As it reads.
    pub(super) bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

struct Pending {
    id: u64,
    /// A sync failed over it: none will make it durable.
    doomed: bool,
    write: Write,
}

/// A change of a file's contents.
pub(super) enum Write {
    Bytes { offset: u64, bytes: Vec<u8> },
    Cut { bytes: u64 },
}

impl Write {
    /// The length that the file has at least, or exactly, after it.
    pub(super) fn end(&self) -> u64 {
        match self {
            Write::Bytes { offset, bytes } => offset.saturating_add(bytes.len() as u64),
            Write::Cut { bytes } => *bytes,
        }
    }

    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Write::Bytes { offset, bytes } => overwrite(to, *offset as usize, bytes),
            Write::Cut { bytes } => to.resize(*bytes as usize, 0),
        }
    }

    /// What is left of it after a crash.
    fn survive(&self, to: &mut Vec<u8>, rng: &mut SimRng) {
        let (offset, bytes) = match self {
            Write::Bytes { offset, bytes } => (*offset as usize, bytes),
            Write::Cut { .. } if rng.chance(0.5) => return self.apply(to),
            Write::Cut { .. } => return,
        };
        match rng.below(4) {
            0 => {}
            1 => self.apply(to),
            2 => overwrite(to, offset, &bytes[..rng.below(bytes.len() as u64 + 1) as usize]),
            _ => {
                to.resize(to.len().max(offset + bytes.len()), 0);
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min(at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES);
                    if rng.chance(0.5) {
                        overwrite(to, offset + at, &bytes[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}

fn overwrite(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    to.resize(to.len().max(offset + bytes.len()), 0);
    to[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl FileState {
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self { durable: bytes.clone(), bytes, pending: Vec::new() }
    }

    pub(super) fn write(&mut self, id: u64, write: Write) {
        write.apply(&mut self.bytes);
        self.pending.push(Pending { id, doomed: false, write });
    }

    /// Makes writes up to `upto` durable, or dooms them.
    pub(super) fn sync(&mut self, upto: u64, succeeds: bool) {
        for mut pending in std::mem::take(&mut self.pending) {
            if pending.id > upto || pending.doomed {
                self.pending.push(pending);
            } else if succeeds {
                pending.write.apply(&mut self.durable);
            } else {
                pending.doomed = true;
                self.pending.push(pending);
            }
        }
    }

    pub(super) fn crash(&mut self, rng: &mut SimRng) {
        for pending in std::mem::take(&mut self.pending) {
            pending.write.survive(&mut self.durable, rng);
        }
        self.bytes.clone_from(&self.durable);
    }

    /// Whether a crash decides about anything here.
    pub(super) fn is_unsynced(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn flip_bit(&mut self, bit: u64) -> bool {
        let (at, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        if let Some(byte) = self.durable.get_mut(at) {
            *byte ^= mask;
        }
        self.bytes.get_mut(at).map(|byte| *byte ^= mask).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Stream;
    use super::*;

    fn bytes(offset: u64, bytes: &[u8]) -> Write {
        Write::Bytes { offset, bytes: bytes.to_vec() }
    }

    fn crashed(seed: u64) -> Vec<u8> {
        let mut file = FileState::durable(vec![b'a'; 700]);
        file.write(1, bytes(700, &[b'b'; 1_200]));
        file.crash(&mut SimRng::new(seed, Stream::Test(0)));
        assert_eq!(file.bytes[..700], [b'a'; 700]);
        file.bytes.split_off(700)
    }

    #[test]
    fn an_unsynced_write_is_lost_kept_or_torn() {
        let outcomes: Vec<_> = (0..64).map(crashed).collect();
        let whole = vec![b'b'; 1_200];
        assert!(outcomes.iter().any(Vec::is_empty));
        assert!(outcomes.contains(&whole));
        assert!(outcomes.iter().any(|left| !left.is_empty() && left.len() < 1_200));
        assert!(
            outcomes
                .iter()
                .any(|left| left.len() == 1_200 && left[..324] == [0; 324] && left.contains(&b'b'))
        );
    }

    #[test]
    fn a_synced_write_survives_and_one_whose_sync_failed_need_not() {
        let mut lost = 0;
        for seed in 0..64 {
            let mut file = FileState::default();
            file.write(1, bytes(0, b"one"));
            file.sync(1, true);
            file.write(2, bytes(3, b"two"));
            file.sync(2, false);
            file.sync(2, true);
            assert_eq!(file.bytes, b"onetwo");
            file.crash(&mut SimRng::new(seed, Stream::Test(0)));
            assert_eq!(file.bytes[..3], *b"one");
            lost += u32::from(file.bytes != b"onetwo");
        }
        assert!(lost > 0);
    }
}
