//! A lobby in which players wait for a game.

use std::collections::BTreeMap;

use dist_agent::{AgentContext, OnTick, agent};
use serde::{Deserialize, Serialize};

/// A game begins with so many players.
pub(crate) const SEATS: usize = 4;
/// With fewer, it begins after so many ticks, if there are two.
pub(crate) const PATIENCE_TICKS: u32 = 2;
/// A game in which nobody does anything for so many ticks is over.
pub(crate) const IDLE_TICKS: u32 = 3;

/// Waits for players, is a game, and ends.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lobby {
    players: BTreeMap<String, u32>,
    phase: Phase,
}

/// How far a lobby has come.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) enum Phase {
    #[default]
    Waiting,
    Playing,
}

/// Why somebody does not get what they want.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum LobbyError {
    AlreadyPlaying,
    NotPlaying,
    NoSuchPlayer,
}

#[agent(name = "lobby")]
impl Lobby {
    /// A player comes in; how many there are.
    #[command(tag = 1)]
    pub(crate) fn join(
        &mut self,
        context: &mut AgentContext<'_>,
        player: String,
    ) -> Result<usize, LobbyError> {
        if self.phase == Phase::Playing {
            return Err(LobbyError::AlreadyPlaying);
        }
        if self.players.is_empty() {
            // The first one waits for others only for so long.
            context.on_tick(OnTick::Timeout { ticks: PATIENCE_TICKS });
        }
        self.players.insert(player, 0);
        if self.players.len() >= SEATS {
            self.begin(context);
        }
        Ok(self.players.len())
    }

    /// A player rolls a die; their points.
    #[command(tag = 2)]
    pub(crate) fn roll(&mut self, context: &mut AgentContext<'_>, player: String) -> Result<u32, LobbyError> {
        if self.phase == Phase::Waiting {
            return Err(LobbyError::NotPlaying);
        }
        let points = self.players.get_mut(&player).ok_or(LobbyError::NoSuchPlayer)?;
        // Every member of the cluster rolls the same.
        *points += dist_agent::rand_core::RngCore::next_u32(context.rng()) % 6 + 1;
        Ok(*points)
    }

    #[query(tag = 1)]
    pub(crate) fn look(&self) -> (Phase, BTreeMap<String, u32>) {
        (self.phase, self.players.clone())
    }

    /// The patience of whoever waits is over.
    #[timeout]
    fn give_up_waiting(&mut self, context: &mut AgentContext<'_>) {
        if self.players.len() < 2 {
            // Nobody to play with: the lobby is gone, and the next who comes begins another.
            context.deactivate();
        } else {
            self.begin(context);
        }
    }

    fn begin(&mut self, context: &mut AgentContext<'_>) {
        self.phase = Phase::Playing;
        context.on_tick(OnTick::Deactivate { ticks: IDLE_TICKS });
    }
}
