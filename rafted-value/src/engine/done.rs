//! What was done beside the loop, by the disk or on another thread, on its way back to the member that wanted it.

use super::{Clocks, DiskEvent, Engine};
use crate::errand::{Done, Found};
use crate::outputs::{Ack, Outputs};
use crate::store::Record;

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

    pub(super) fn hear_of_disk(&mut self, event: DiskEvent, clocks: Clocks, out: &mut Outputs) {
        match event {
            DiskEvent::Kept(acks) => {
                for Ack { group, member, number, begins, .. } in acks {
                    self.with_member(group, member, clocks, out, |group, turn| {
                        group.kept(turn, number, begins);
                    });
                }
            }
            DiskEvent::SnapshotKept { group, member, file } => {
                // It ended while its snapshot was written: whatever else it had on the disk is gone already.
                if let Some(newest) = self.buried.get(&group).copied().filter(|newest| member <= *newest) {
                    return out.keep(Record::Ended { group, newest }, None);
                }
                self.with_member(group, member, clocks, out, |group, turn| group.snapshot_kept(turn, file));
            }
            DiskEvent::PieceRead { piece, read } => {
                self.with_member(piece.group, piece.member, clocks, out, |group, turn| {
                    group.piece_read(turn, piece, read);
                });
            }
            DiskEvent::Rewrite(groups) => {
                for id in groups {
                    if let Some(fenced) = self.fenced.get(&id) {
                        match &fenced.kept {
                            Some(record) => out.keep(record.clone(), None),
                            None => {
                                tracing::warn!(group = %id, node = %self.node, "a fenced member holds up the log");
                            }
                        }
                    }
                    self.with(id, clocks, out, |group, turn| group.rewrite(turn));
                }
            }
            DiskEvent::Refused { group, reason } => {
                self.fence(group, format!("its log does not take a record: {reason}"), clocks, out);
            }
            DiskEvent::Failed(reason) => {
                self.disk_failed = Some(reason.clone());
                let kept = self.groups.iter().filter(|(_, group)| group.is_kept());
                for id in kept.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.fence(id, format!("its node can keep nothing: {reason}"), clocks, out);
                }
            }
        }
    }
}
