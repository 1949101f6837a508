//! Small files beside a node's log: whole or not at all, with a checksum. They are read and written where blocking does no
//! harm.

use std::sync::Arc;

use rafted_value::disk::{Disk, replace};
use rafted_value::env::Env;
use tokio::sync::oneshot;
use twox_hash::XxHash3_64;

/// What comes before the payload.
pub(crate) const CHECKSUM_BYTES: usize = 8;

/// A payload as it is on the disk.
pub(crate) fn seal(payload: &[u8]) -> Vec<u8> {
    let mut bytes = checksum(payload).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of what is on the disk, or what is wrong with it.
pub(crate) fn unseal(bytes: &[u8]) -> Result<&[u8], String> {
    let (sum, payload) = bytes.split_at_checked(CHECKSUM_BYTES).ok_or("it is too short")?;
    if sum != checksum(payload) {
        return Err("its checksum is wrong".into());
    }
    Ok(payload)
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    XxHash3_64::oneshot(payload).to_le_bytes()
}

/// Does something with the node's disk; `None` without one, and within when the node ended first.
pub(crate) async fn on_disk<T: Send + 'static>(
    env: &Arc<dyn Env>,
    work: impl FnOnce(&dyn Disk) -> T + Send + 'static,
) -> Option<Option<T>> {
    let disk = env.disk().cloned()?;
    let (tell, told) = oneshot::channel();
    // Whoever asked may have gone.
    let task = async move { drop(tell.send(work(disk.as_ref()))) };
    drop(env.spawn_blocking("fleet read", Box::pin(task)));
    Some(told.await.ok())
}

/// Replaces a file; it is durable then. Without a disk there is nothing to do.
pub(crate) async fn write(env: &Arc<dyn Env>, file: &'static str, bytes: Vec<u8>) -> Result<(), String> {
    write_named(env, file.to_owned(), bytes).await
}

/// The same for a file whose name is made.
pub(crate) async fn write_named(env: &Arc<dyn Env>, file: String, bytes: Vec<u8>) -> Result<(), String> {
    let Some(disk) = env.disk().cloned() else { return Ok(()) };
    let (tell, told) = oneshot::channel();
    let task = async move {
        let written = replace(disk.as_ref(), &file, &bytes).await;
        drop(tell.send(written.map_err(|error| error.to_string())));
    };
    drop(env.spawn_blocking("fleet write", Box::pin(task)));
    told.await.unwrap_or_else(|_| Err(ended()))
}

pub(crate) fn ended() -> String {
    "the node ended before its disk answered".into()
}
