//! What was done beside the loop, on its way back to the member that wanted it.

use super::{Clocks, Engine};
use crate::errand::{Done, Found};
use crate::outputs::Outputs;

impl Engine {
    /// Gives what was done to the member it was done for, if that is still here.
    pub(super) fn take_done(&mut self, done: Done, clocks: Clocks, out: &mut Outputs) {
        let Done { group, member, result } = done;
        let here = self.groups.get(&group).is_some_and(|group| group.member() == member);
        match result {
            Found::Encoded(Ok(snapshot)) => {
                self.with_member(group, member, clocks, out, |group, turn| group.encoded(turn, snapshot));
            }
            Found::Decoded { from, message, machine: Ok(machine) } => {
                tracing::debug!(%group, %from, "a leader's snapshot is decoded");
                self.with_member(group, member, clocks, out, |group, turn| {
                    group.take_decoded(turn, *message, machine);
                });
            }
            Found::Encoded(Err(reason)) | Found::Decoded { machine: Err(reason), .. } if here => {
                self.fence(group, reason, clocks, out);
            }
            Found::Encoded(Err(_)) | Found::Decoded { machine: Err(_), .. } => {}
        }
    }
}
