//! Which connection between two nodes stays, decided alike on both sides and without IO.
//!
//! The dialling side confirms a connection only while it has none to that node, and the accepting side has the
//! last word. So two connections meet only when both nodes dial at the same time, or when one side lost a
//! connection that the other still believes in. No message is written before the verdict: the loser of a
//! double dial costs nothing.

use crate::hello::Confirm;
use crate::id::NodeId;

/// The accepting side's view of its current connection to the node that confirms another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CurrentLink {
    pub(crate) id: u64,
    pub(crate) dialled_here: bool,
    /// The peer's endpoint at that time.
    pub(crate) instance: u64,
}

/// Whether the accepting side takes a confirmed connection, instead of its current one if it has one.
///
/// `confirming_here`: a connection that this side dialled waits for the peer's verdict right now.
pub(crate) fn admits(
    here: NodeId,
    peer: NodeId,
    current: Option<CurrentLink>,
    confirming_here: bool,
    instance: u64,
    confirm: Confirm,
) -> bool {
    match current {
        // Both dialled: the one dialled by the lower id stays.
        None => !(confirming_here && here < peer),
        Some(current) => {
            let is_restarted = current.instance != instance;
            let is_dead_at_peer = confirm.previous == Some(current.id);
            // The peer dialled both and confirms only while it has none: it never got the current one.
            is_restarted || is_dead_at_peer || !current.dialled_here
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: NodeId = NodeId(1);
    const HIGH: NodeId = NodeId(2);
    const INSTANCE: u64 = 50;
    const FRESH: Confirm = Confirm { link: 9, previous: None };

    fn current(dialled_here: bool) -> Option<CurrentLink> {
        Some(CurrentLink { id: 8, dialled_here, instance: INSTANCE })
    }

    #[test]
    fn the_connection_dialled_by_the_lower_id_wins_when_both_dial() {
        assert!(!admits(LOW, HIGH, None, true, INSTANCE, FRESH), "the lower one keeps its own");
        assert!(admits(HIGH, LOW, None, true, INSTANCE, FRESH), "the higher one gives way");
    }

    #[test]
    fn a_connection_both_sides_agreed_on_is_not_replaced_by_a_late_double() {
        assert!(!admits(LOW, HIGH, current(true), false, INSTANCE, FRESH));
        assert!(!admits(HIGH, LOW, current(true), false, INSTANCE, FRESH));
    }

    #[test]
    fn a_peer_that_lost_the_connection_gets_a_new_one() {
        let confirm = Confirm { link: 9, previous: Some(8) };
        assert!(admits(LOW, HIGH, current(true), false, INSTANCE, confirm));
        assert!(admits(LOW, HIGH, current(false), false, INSTANCE, FRESH), "dialled by the peer, both times");
    }

    #[test]
    fn a_restarted_endpoint_replaces_its_old_connection() {
        assert!(admits(LOW, HIGH, current(true), false, INSTANCE + 1, FRESH));
    }

    #[test]
    fn without_another_connection_any_is_taken() {
        assert!(admits(LOW, HIGH, None, false, INSTANCE, FRESH));
    }
}
