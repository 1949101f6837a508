//! Ticks: timeouts, and agents that end because nobody called them.

use raft_kv::rafted_value::CommandContext;

use super::hosted::{Hosted, State, in_bytes};
use super::{AgentValues, parse};
use crate::agent_id::AgentIdRef;
use crate::agent_type::{AgentType, Run};
use crate::caught::caught;
use crate::context::{AgentContext, Fate};
use crate::on_tick::{OnTick, Timer};

impl AgentValues {
    /// The tick has come that an agent waited for. Always leaves the agent with a later timer, or none.
    pub(super) fn tick(&self, context: &CommandContext, key: &[u8], value: &mut Option<Hosted>, leads: bool) {
        let Some(hosted) = value.as_mut() else { return };
        let Some(timer) = hosted.timer() else { return };
        hosted.set_timer(None);
        if matches!(timer.on_tick, OnTick::Deactivate { .. }) {
            *value = None;
            return;
        }
        let Ok(id) = parse(key) else { return };
        // Agents that are woken by one command have each a random source of their own.
        let context = CommandContext { seed: context.seed ^ key_seed(key), ..*context };
        let of = self.type_of(id.agent_type);
        let version = hosted.version(of);
        hosted.raise(of, version);
        let fate = if hosted.state.kept().is_some() {
            // It waits as long again, whatever this node has heard of the others' builds: what woke it is in the log, and a
            // member that ended for it would do so at every start, as would all others once they are of this build.
            hosted.set_timer(timer.again(context.now_ms));
            Fate::Stay
        } else {
            time_out(&context, id, of, hosted, timer, leads)
        };
        if fate == Fate::Deactivate {
            *value = None;
        }
    }
}

/// Runs the timeout handler of a live agent, which is as it was before if the handler fails.
///
/// Agents that are due together are woken by one command: one that panics must not undo the others. So a copy of its
/// state is kept, in bytes; timeouts are rare beside commands.
fn time_out(
    context: &CommandContext,
    id: AgentIdRef<'_>,
    of: &dyn AgentType,
    hosted: &mut Hosted,
    timer: Timer,
    leads: bool,
) -> Fate {
    let version = hosted.version(of);
    let State::Live(agent) = &mut hosted.state else { unreachable!("the caller has looked") };
    let before = in_bytes(&**agent, version);
    let mut agent_context = AgentContext::new(id, context, hosted.revision, version);
    let run = Run { of, leads, activates: false };
    let ran = caught(|| agent.timeout(&mut agent_context, run));
    let failure = match ran {
        Ok(Ok(())) => {
            let asked = agent_context.asked();
            hosted.changed(of, context.now_ms, None);
            let on_tick = asked.on_tick.unwrap_or_default();
            hosted.set_timer(Timer::set(on_tick, context.now_ms, timer.interval_ms()));
            if asked.fate == Fate::Passivate {
                hosted.passivate(of);
            }
            return asked.fate;
        }
        Ok(Err(reason)) => format!("the state that it leaves cannot be kept: {reason}"),
        Err(panicked) => panicked,
    };
    tracing::error!(
        quota = id.quota,
        agent_type = id.agent_type,
        key = id.key,
        failure,
        "a timeout handler failed; its agent is as it was before"
    );
    hosted.state = State::restore(of, version, &before, false);
    Fate::Stay
}

/// A hash of a key that is the same on every member and in every version (FNV-1a; Fowler, Noll and Vo).
fn key_seed(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
