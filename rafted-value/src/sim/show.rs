//! What the replicated values of the layers above show to a harness as they change: only they know what must hold of them.
//!
//! The engine says which command is being applied, and the value what it has come to. Members apply one command at
//! different times; it is shown once, when the first of them does, so that what was shown last of each group is what the
//! group has committed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::id::GroupId;

/// The index of an entry, and the position of a command in it.
type Position = (u64, usize);

/// What looks at the values that are shown.
type See = Box<dyn Fn(GroupId, &dyn Any)>;

struct Watcher {
    newest: RefCell<BTreeMap<GroupId, Position>>,
    see: See,
}

thread_local! {
    static APPLYING: Cell<Option<(GroupId, Position)>> = const { Cell::new(None) };
    static WATCHER: RefCell<Option<Rc<Watcher>>> = const { RefCell::new(None) };
}

/// Lets `see` see what values on this thread show, until what is returned is dropped.
///
/// It must not reach into the simulation, which is in the middle of a step.
pub fn watch_shown(see: impl Fn(GroupId, &dyn Any) + 'static) -> WatchingShown {
    let newest = RefCell::default();
    WATCHER.set(Some(Rc::new(Watcher { newest, see: Box::new(see) })));
    WatchingShown(())
}

/// As long as it lives, what values on this thread show is watched.
#[derive(Debug)]
#[must_use]
pub struct WatchingShown(());

impl Drop for WatchingShown {
    fn drop(&mut self) {
        WATCHER.set(None);
    }
}

/// Called by a value that has just run a command: shows what `make` gives, if anybody watches and no member has shown this
/// before.
pub fn show<T: Any>(make: impl FnOnce() -> T) {
    let Some(watcher) = WATCHER.with_borrow(Option::clone) else { return };
    let Some((group, position)) = APPLYING.get() else { return };
    if watcher.newest.borrow().get(&group).is_some_and(|newest| *newest >= position) {
        return;
    }
    watcher.newest.borrow_mut().insert(group, position);
    (watcher.see)(group, &make());
}

/// The command at this position of an entry is about to run on a member of a group.
pub(crate) fn applies(group: GroupId, index: u64, position: usize) {
    APPLYING.set(Some((group, (index, position))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_once_and_only_to_who_watches() {
        let seen: Rc<RefCell<Vec<(u64, u32)>>> = Rc::default();
        let shown = |index, position, value: u32| {
            applies(GroupId(7), index, position);
            show(|| value);
        };
        shown(1, 0, 1);
        let watching = watch_shown({
            let seen = seen.clone();
            move |group, value| seen.borrow_mut().push((group.0, *value.downcast_ref().unwrap()))
        });
        shown(2, 0, 2);
        shown(2, 1, 3);
        // Another member, which is behind, and a replay.
        shown(1, 0, 9);
        shown(2, 1, 9);
        shown(3, 0, 4);
        drop(watching);
        shown(4, 0, 5);
        assert_eq!(*seen.borrow(), [(7, 2), (7, 3), (7, 4)]);
    }

    #[test]
    fn how_far_one_group_is_says_nothing_of_another() {
        let seen: Rc<RefCell<Vec<u64>>> = Rc::default();
        let _watching = watch_shown({
            let seen = seen.clone();
            move |group, _| seen.borrow_mut().push(group.0)
        });
        for (group, index) in [(7, 5), (8, 2), (8, 2), (7, 4), (8, 3), (7, 6)] {
            applies(GroupId(group), index, 0);
            show(|| ());
        }
        assert_eq!(*seen.borrow(), [7, 8, 8, 7]);
    }
}
