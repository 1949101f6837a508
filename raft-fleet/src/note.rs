//! Small files beside a node's log: whole or not at all, with a checksum. They are read and written where blocking does no
//! harm.

use std::sync::Arc;

use rafted_value::disk::{Disk, DiskReason, replace};
use rafted_value::encode;
use rafted_value::env::Env;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use twox_hash::XxHash3_64;

use crate::core::decode;

/// What comes before the payload.
pub(crate) const CHECKSUM_BYTES: usize = 8;

/// A value as it is on the disk.
pub(crate) fn seal(value: &impl Serialize) -> Vec<u8> {
    let payload = encode(value);
    let mut bytes = checksum(&payload).to_vec();
    bytes.extend_from_slice(&payload);
    bytes
}

/// The value of what is on the disk, or what is wrong with it.
pub(crate) fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (sum, payload) = bytes.split_at_checked(CHECKSUM_BYTES).ok_or("it is too short")?;
    if sum != checksum(payload) {
        return Err("its checksum is wrong".into());
    }
    decode(payload)
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    XxHash3_64::oneshot(payload).to_le_bytes()
}

/// What a file holds; `None` where there is none.
pub(crate) fn read<T: DeserializeOwned>(
    disk: &dyn Disk,
    file: &str,
    bytes_max: usize,
) -> Result<Option<T>, String> {
    match disk.read_at(file, 0, bytes_max) {
        Ok(bytes) => unseal(&bytes).map(Some).map_err(|reason| format!("file {file}: {reason}")),
        Err(error) if error.reason == DiskReason::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Does something with the node's disk; `None` without one.
pub(crate) async fn on_disk<T: Send + 'static>(
    env: &Arc<dyn Env>,
    work: impl FnOnce(&dyn Disk) -> Result<T, String> + Send + 'static,
) -> Result<Option<T>, String> {
    let Some(disk) = env.disk().cloned() else { return Ok(None) };
    let (tell, told) = oneshot::channel();
    // Whoever asked may have gone.
    let task = async move { drop(tell.send(work(disk.as_ref()))) };
    drop(env.spawn_blocking("fleet read", Box::pin(task)));
    told.await.unwrap_or_else(|_| Err(ended())).map(Some)
}

/// Replaces a file by one that holds a value; it is durable then. Without a disk there is nothing to do.
pub(crate) async fn write(
    env: &Arc<dyn Env>,
    file: impl Into<String>,
    value: &impl Serialize,
) -> Result<(), String> {
    let Some(disk) = env.disk().cloned() else { return Ok(()) };
    let (file, bytes) = (file.into(), seal(value));
    let (tell, told) = oneshot::channel();
    let task = async move {
        let written = replace(disk.as_ref(), &file, &bytes).await;
        drop(tell.send(written.map_err(|error| error.to_string())));
    };
    drop(env.spawn_blocking("fleet write", Box::pin(task)));
    told.await.unwrap_or_else(|_| Err(ended()))
}

fn ended() -> String {
    "the node ended before its disk answered".into()
}
