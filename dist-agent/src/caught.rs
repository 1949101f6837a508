//! Panics of what a user wrote, where they must not undo a command: on one member alone, or of agents beside it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use raft_kv::rafted_value::stopped_because;

/// Runs something of a user's. It must leave nothing half done that is used afterwards.
///
/// # Errors
///
/// When it panicked. What the panic said is in the log, and not in the error: members may have to agree on that.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        // A member that ends must not go on.
        if stopped_because(&*panic).is_some() {
            resume_unwind(panic);
        }
        "it panicked".to_owned()
    })
}
