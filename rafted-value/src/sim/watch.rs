//! What members do, told to a harness as they do it: no status shows every step, and invariants hold at every step.
//!
//! A simulation runs in one thread, so its watcher belongs to the thread. Without one, telling costs a look at a cell.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::env::MonoTime;
use crate::id::{GroupId, MemberId, NodeId};

/// Something that a member did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Its log begins anew behind this entry; what it holds follows as [`Deed::Appends`].
    Begins {
        /// The index of that entry.
        index: u64,
        /// Its term.
        term: u64,
        /// Whether it came back from its disk with all this. Else it was founded, or took a leader's snapshot.
        recovered: bool,
    },
    /// It is back, with all that was told since it began.
    Returns {
        /// For how long it gives no vote, whatever it promised before.
        promise: Duration,
    },
    /// An entry takes its place in the log; whatever stood there and behind it is gone.
    Appends {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
        /// A hash of what it holds.
        digest: u64,
    },
    /// It tells a candidate of this term, itself perhaps, that it has its vote.
    Votes {
        /// The term of the election.
        term: u64,
        /// Who has the vote.
        candidate: MemberId,
    },
    /// It tells a leader that it keeps every entry up to this one.
    Keeps {
        /// The leader's term.
        term: u64,
        /// The index of the newest of them.
        index: u64,
    },
    /// It acknowledges a beat of a leader, and every promise that it was ever asked for.
    Promises {
        /// The longest of them.
        promise: Duration,
    },
    /// A turn of it has ended.
    Stands(Standing),
    /// It ends on this node.
    Ends,
}

/// Where a member stands when its turn has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its node.
    pub node: NodeId,
    /// Its term.
    pub term: u64,
    /// Whom it votes for in this term.
    pub vote: Option<MemberId>,
    /// Whether it leads this term.
    pub leads: bool,
    /// The newest entry that it knows to be committed.
    pub commit: u64,
    /// The newest entry that it has applied.
    pub applied: u64,
    /// The newest entry of its log.
    pub last: u64,
    /// Whose votes it counts.
    pub voters: Vec<MemberId>,
    /// When its lease ends by its node's clock, if it ever had one in this term.
    pub lease_end: Option<MonoTime>,
}

type Watcher = Rc<dyn Fn(GroupId, MemberId, Deed)>;

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// Lets `watcher` see every deed of members on this thread until what is returned is dropped.
///
/// It must not reach into the simulation, which is in the middle of a step, except for what its nodes' clocks show.
pub fn watch(watcher: impl Fn(GroupId, MemberId, Deed) + 'static) -> Watching {
    WATCHER.set(Some(Rc::new(watcher)));
    Watching(())
}

/// As long as it lives, members on this thread are watched.
#[derive(Debug)]
#[must_use]
pub struct Watching(());

impl Drop for Watching {
    fn drop(&mut self) {
        WATCHER.set(None);
    }
}

pub(crate) fn is_watched() -> bool {
    WATCHER.with_borrow(Option::is_some)
}

pub(crate) fn tell(group: GroupId, member: MemberId, deed: Deed) {
    let watcher = WATCHER.with_borrow(Option::clone);
    if let Some(watcher) = watcher {
        tracing::trace!(%group, %member, ?deed, "deed");
        watcher(group, member, deed);
    }
}
