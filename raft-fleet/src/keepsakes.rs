//! What members of removed groups had come to, in files of the node's directory, until the group is added again under the
//! same name or deleted.

use std::sync::Arc;

use rafted_value::env::Env;
use rafted_value::{GroupId, Keepsake};
use serde::{Deserialize, Serialize};

use crate::note::{on_disk, read, write};

const FOLDER: &str = "fleet-removed";
/// It was written by this node, and is as large as the value was.
const FILE_BYTES_MAX: usize = isize::MAX as usize;

/// What is on the disk; variants are only ever added at the end.
#[derive(Serialize, Deserialize)]
enum Kept {
    V1 { group: GroupId, keepsake: Keepsake },
}

fn file_of(group: GroupId) -> String {
    format!("{FOLDER}/{:016x}", group.0)
}

/// Writes down what a member had come to; it is durable then.
///
/// # Errors
///
/// When it cannot be written.
pub(crate) async fn save(env: &Arc<dyn Env>, group: GroupId, keepsake: Keepsake) -> Result<(), String> {
    write(env, file_of(group), &Kept::V1 { group, keepsake }).await
}

/// What was written down of a group; `None` if nothing was.
///
/// # Errors
///
/// When it cannot be read, or is damaged.
pub(crate) async fn load(env: &Arc<dyn Env>, group: GroupId) -> Result<Option<Keepsake>, String> {
    let file = file_of(group);
    let named = file.clone();
    match on_disk(env, move |disk| read(disk, &file, FILE_BYTES_MAX)).await?.flatten() {
        None => Ok(None),
        Some(Kept::V1 { group: written, keepsake }) if written == group => Ok(Some(keepsake)),
        Some(Kept::V1 { group: written, .. }) => Err(format!("file {named} is that of group {written}")),
    }
}

/// Whether anything is written down.
pub(crate) async fn any(env: &Arc<dyn Env>) -> bool {
    let listed = on_disk(env, |disk| Ok(disk.list(FOLDER).is_ok_and(|files| !files.is_empty())));
    listed.await == Ok(Some(true))
}

/// Removes what was written down of groups that are wanted no more.
pub(crate) async fn sweep(env: &Arc<dyn Env>, wanted: Vec<GroupId>) {
    let swept = on_disk(env, move |disk| {
        let wanted: Vec<String> = wanted.into_iter().map(file_of).collect();
        for entry in disk.list(FOLDER).map_err(|error| error.to_string())? {
            let file = format!("{FOLDER}/{}", entry.name);
            if !wanted.contains(&file) {
                tracing::info!(file, "what a removed group had left is removed");
                disk.remove(&file).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    });
    if let Err(reason) = swept.await {
        tracing::warn!(reason, "what a removed group had left is not removed yet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::{CHECKSUM_BYTES, seal};

    #[test]
    fn the_kept_bytes_never_change() {
        let keepsake = Keepsake { rank: 300, state: bytes::Bytes::from_static(b"s") };
        let bytes = seal(&Kept::V1 { group: GroupId(17), keepsake });
        assert_eq!(bytes[CHECKSUM_BYTES..], [0, 17, 172, 2, 1, b's']);
        assert_eq!(file_of(GroupId(17)), "fleet-removed/0000000000000011");
    }
}
