//! The group's settings while it lives: changed by an entry of the log, in force on each member when it applies that.

use raft::eraftpb::Entry;

use super::machine::MachineError;
use super::{Group, Turn};
use crate::config::GroupConfig;
use crate::entry::EntryBody;
use crate::error::GroupError;
use crate::id::MemberId;
use crate::waiter::Waiter;

impl Group {
    /// Proposes new settings, or says why not.
    pub(super) fn request_config(
        &mut self,
        turn: &mut Turn<'_>,
        config: GroupConfig,
        waiter: Waiter<Result<MemberId, GroupError>>,
    ) {
        let checked = config.validate().and_then(|()| self.check_durability(&config));
        let checked = checked.map_err(GroupError::InvalidConfig).and_then(|()| {
            self.check_may_change()?;
            Ok(())
        });
        if let Err(error) = checked {
            turn.out.member(waiter, Err(error));
        } else if config == self.config {
            turn.out.member(waiter, Ok(self.member));
        } else {
            let data = crate::data::encode(&EntryBody::Config(config));
            self.propose_change_entry(turn, Entry { data, ..Entry::default() }, self.member, waiter);
        }
    }

    /// What the disks of the members hold says how durable the group is, and must be believed after a loss of power.
    fn check_durability(&self, config: &GroupConfig) -> Result<(), String> {
        let (old, new) = (self.config.durability, config.durability);
        if old == new {
            Ok(())
        } else {
            Err(format!("durability is {old:?} for ever, and {new:?} was asked"))
        }
    }

    /// Applies committed settings.
    pub(super) fn apply_settings(&mut self, turn: &mut Turn<'_>, entry: &Entry) -> Result<(), MachineError> {
        let machine =
            self.machine.as_mut().expect("settings are applied after the snapshot that precedes them");
        machine.apply_config(entry)?;
        let config = machine.config().clone();
        tracing::info!(group = %self.id, member = %self.member, ?config, "settings changed");
        self.take_settings(config);
        // Rounds sent so far may have asked for shorter promises than the lease counts with from now on.
        self.rounds.disown(turn.now);
        self.settle_change(turn, entry, false);
        Ok(())
    }

    /// From now on these settings count; a promise that runs is not touched by them.
    pub(super) fn take_settings(&mut self, config: GroupConfig) {
        self.config = config;
        self.config_is_new = true;
    }

    /// Starts the timers anew where the settings have changed. A leader says so at once: its followers would hear of it
    /// with the next heartbeat only, and may wait for that less patiently than it waits now.
    pub(super) fn adopt_config(&mut self, turn: &mut Turn<'_>) {
        if !std::mem::take(&mut self.config_is_new) {
            return;
        }
        self.plan_tick(turn.now);
        self.draw_election_deadline(turn);
        self.raw.ping();
    }
}
