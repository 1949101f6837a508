//! A shard in bytes: a versioned head, then the entries in the order of their keys.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ShardData;
use crate::key;
use crate::key_range::KeyRange;
use crate::value_type::ValuePerKey;

/// Opens a snapshot; append-only.
#[derive(Serialize, Deserialize)]
enum Head {
    /// `entries` times an [`EntryHead`] and its value's bytes, in ascending order of keys.
    V1 { range: Option<KeyRange>, entries: u64 },
}

/// Opens an entry; the bytes of its value follow.
#[derive(Serialize, Deserialize)]
struct EntryHead<'a> {
    #[serde(borrow)]
    key: &'a [u8],
    size: u64,
    value_bytes: u64,
}

impl<V: ValuePerKey> ShardData<V> {
    /// Appends the whole shard to `out`.
    pub(super) fn write_snapshot(&self, out: &mut Vec<u8>) {
        append(out, &Head::V1 { range: self.range, entries: self.entries.len() as u64 });
        let mut scratch = Vec::new();
        for (key, entry) in &self.entries {
            let value = entry.value.as_ref().expect("between commands every entry has a value");
            scratch.clear();
            self.value_type.encode(key, value, &mut scratch);
            append(out, &EntryHead { key, size: entry.size, value_bytes: scratch.len() as u64 });
            out.extend_from_slice(&scratch);
        }
    }

    /// The shard that [`write_snapshot`](Self::write_snapshot) wrote.
    pub(super) fn read_snapshot(value_type: Arc<V>, bytes: &[u8]) -> Result<Self, String> {
        let (Head::V1 { range, entries }, mut rest) = take::<Head>("head", bytes)?;
        let mut shard = Self::new(value_type);
        shard.range = range;
        for _ in 0..entries {
            rest = shard.read_entry(rest)?;
        }
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the last entry", rest.len()));
        }
        Ok(shard)
    }

    fn read_entry<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let (EntryHead { key, size, value_bytes }, rest) = take::<EntryHead<'_>>("entry", bytes)?;
        key::check(key).map_err(|error| error.to_string())?;
        if !self.range.is_some_and(|range| range.contains(key::hash(key))) {
            return Err(format!("the key \"{}\" is outside of the shard's range", key.escape_ascii()));
        }
        if self.entries.last_key_value().is_some_and(|(last, _)| **last >= *key) {
            return Err(format!("the key \"{}\" is out of order", key.escape_ascii()));
        }
        let (value, rest) = usize::try_from(value_bytes)
            .ok()
            .and_then(|bytes| rest.split_at_checked(bytes))
            .ok_or_else(|| format!("a value of {value_bytes} bytes is cut off"))?;
        let value = self
            .value_type
            .decode(key, value)
            .map_err(|reason| format!("the value of \"{}\": {reason}", key.escape_ascii()))?;
        self.insert(key, Some(value), size);
        Ok(rest)
    }
}

fn append(out: &mut Vec<u8>, value: &impl Serialize) {
    *out = postcard::to_extend(value, std::mem::take(out)).expect("the head serialises");
}

fn take<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<(T, &'a [u8]), String> {
    postcard::take_from_bytes(bytes).map_err(|error| format!("the {what} does not decode: {error}"))
}
