//! The processes that a bench has started: none outlives it, neither after an error nor after Ctrl-C.
//!
//! A signal does not end the bench itself while it has nodes: it ends them, and the bench, which waits for an answer of
//! one of them, then ends by its error and removes its directories on the way out.

use std::process::Child;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::BoxError;

/// What lives at the moment, and whether the bench was told to end.
static CHILDREN: Mutex<Children> = Mutex::new(Children { interrupted: false, living: Vec::new() });

/// What a shell says of a program that was ended by Ctrl-C.
const EXIT_CODE: i32 = 130;

struct Children {
    interrupted: bool,
    living: Vec<Weak<Mutex<Child>>>,
}

/// A process of the bench; dropped, it ends.
pub(crate) struct Owned(Arc<Mutex<Child>>);

impl Owned {
    /// Owns a process that was just started.
    ///
    /// # Errors
    ///
    /// When the bench was told to end; the process has ended then.
    pub(crate) fn new(child: Child) -> Result<Self, BoxError> {
        let owned = Self(Arc::new(Mutex::new(child)));
        let mut children = CHILDREN.lock();
        children.living.retain(|child| child.strong_count() > 0);
        children.living.push(Arc::downgrade(&owned.0));
        if children.interrupted {
            return Err("interrupted".into());
        }
        Ok(owned)
    }

    /// Ends the process as `kill -9` does, and waits until the system has let go of what it held.
    pub(crate) fn kill(&self) {
        end(&mut self.0.lock());
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the bench was told to end.
pub(crate) fn is_interrupted() -> bool {
    CHILDREN.lock().interrupted
}

fn end(child: &mut Child) {
    // It may have ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// From now on Ctrl-C, or a wish of the system that this process ends, ends all children first.
pub(crate) fn end_on_a_signal() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminate = {
        let _entered = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        });
        end_all();
    });
    Ok(())
}

fn end_all() {
    let mut children = CHILDREN.lock();
    children.interrupted = true;
    let living: Vec<_> = children.living.iter().filter_map(Weak::upgrade).collect();
    drop(children);
    if living.is_empty() {
        // Nothing is on disk, and nobody waits for an answer.
        std::process::exit(EXIT_CODE);
    }
    for child in living {
        end(&mut child.lock());
    }
}
