//! An agent in its shard: what it is told and asked, and its bytes in a snapshot.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use bytes::Bytes;
use raft_kv::ValuePerKey;
use raft_kv::rafted_value::{CommandContext, stopped_because};
use serde::{Deserialize, Serialize};

use super::head;
use crate::agent::Agent;
use crate::agent_id::AgentTypeName;
use crate::agent_types::AgentTypes;
use crate::agent_values::{AgentValues, Hosted};
use crate::context::{AgentContext, QueryContext};
use crate::hooks::AgentHooks;
use crate::on_tick::OnTick;
use crate::wire::{AgentAnswer, AgentCommand, AgentQuery, AgentReply, Pass, join, join_value};

/// A number with its double, which its earlier version did not have.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Number {
    number: u8,
    double: u16,
}

/// What a number is told; also what it does at its timeout.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    #[default]
    Keep,
    Set(u8),
    Wait(OnTick),
    Sleep,
    End,
}

impl Number {
    fn obey(&mut self, context: &mut AgentContext<'_>, order: Order) {
        match order {
            Order::Keep => {}
            Order::Set(number) => (self.number, self.double) = (number, 2 * u16::from(number)),
            Order::Wait(on_tick) => context.on_tick(on_tick),
            Order::Sleep => context.passivate(),
            Order::End => context.deactivate(),
        }
    }
}

impl Agent for Number {
    const TYPE: &'static str = "number";
    const VERSION: u32 = 1;
    const VERSION_MIN: u32 = 0;
    const CHANGES_RETAINED: u32 = 3;
    type Command = Order;
    type Reply = u16;
    type Query = bool;
    type Answer = (u16, u64);

    fn handle_command(&mut self, context: &mut AgentContext<'_>, order: Order) -> u16 {
        self.obey(context, order);
        self.double
    }

    fn handle_timeout(&mut self, context: &mut AgentContext<'_>) {
        let order = match self.number % 5 {
            0 => Order::Set(self.number / 2 + 1),
            1 => Order::Wait(OnTick::Timeout { ticks: u32::from(self.number) }),
            2 => Order::Sleep,
            3 => Order::End,
            _ => Order::Keep,
        };
        self.obey(context, order);
    }

    fn migrate(_: u32, bytes: &[u8]) -> Result<Self, String> {
        let number: u8 = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(Self { number, double: 2 * u16::from(number) })
    }

    fn write_as(&self, _: u32) -> Result<Vec<u8>, String> {
        postcard::to_stdvec(&self.number).map_err(|error| error.to_string())
    }

    fn version_needed(_: &Order) -> u32 {
        0
    }

    fn handle_query(&self, context: &QueryContext<'_>, double: bool) -> (u16, u64) {
        (if double { self.double } else { self.number.into() }, context.revision())
    }
}

/// Hooks that hear everything.
struct Hears;

impl AgentHooks<Number> for Hears {}

const KEY: &[u8] = b"quota\0number\0key";

fn at(now_ms: u64) -> CommandContext {
    CommandContext { now_ms, index: 1, seed: 7 }
}

/// What every member of the cluster hosts.
fn numbers() -> AgentValues {
    let types = AgentTypes::new().with_hooks::<Number>(Hears);
    types.agree(&[(AgentTypeName::new(Number::TYPE).expect("a name"), Number::VERSION)].into());
    AgentValues::new(types)
}

/// What comes of it, unless the member ends.
fn unless_ended<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => Some(done),
        Err(panic) if stopped_because(&*panic).is_some() => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// The states in which an agent may be when something comes.
pub(super) const STATES: u8 = 7;

/// None, one that is live, passive, of the earlier version, not readable, waits for its timeout, or for its end.
fn hosted(values: &AgentValues, state: u8) -> Option<Hosted> {
    let mut agent = None;
    let mut tell = |version, order| {
        values.command(&at(5), KEY, &mut agent, &run(version, order)).expect("it decodes");
    };
    match state % STATES {
        0 => return None,
        1 => tell(1, Order::Set(9)),
        2 => tell(1, Order::Sleep),
        3 => tell(0, Order::Set(11)),
        4 => tell(1, Order::Wait(OnTick::Timeout { ticks: 1 })),
        5 => tell(1, Order::Wait(OnTick::Timeout { ticks: 0 })),
        _ => tell(1, Order::Wait(OnTick::Deactivate { ticks: 3 })),
    }
    if state % STATES == 4 {
        let mut bytes = written(values, agent.as_ref());
        bytes.pop();
        return Some(values.decode(KEY, &bytes).expect("its head decodes"));
    }
    agent
}

/// A command that activates its agent, if it is not there.
pub(super) fn run(version: u32, order: Order) -> Bytes {
    let pass = Some(Pass { generation: 1, until_ms: 1_000 });
    join_value(&AgentCommand::Run { tick_ms: 100, pass, version }, &order).expect("it serialises")
}

/// The agent in a snapshot.
fn written(values: &AgentValues, agent: Option<&Hosted>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(agent) = agent {
        values.encode(KEY, agent, &mut bytes);
    }
    bytes
}

/// The agent of a state in a snapshot.
#[cfg(test)]
pub(super) fn in_state(state: u8) -> Vec<u8> {
    let values = numbers();
    written(&values, hosted(&values, state).as_ref())
}

/// What an agent is told, behind a byte for what it is just then: what is refused changes nothing, all members come to the
/// same, and it is what comes back from its bytes.
pub fn command(bytes: &[u8]) {
    let Some((state, payload)) = bytes.split_first() else { return };
    head::<AgentCommand>(payload);
    let (values, payload) = (numbers(), Bytes::copy_from_slice(payload));
    let (mut led, mut followed) = (hosted(&values, *state), hosted(&values, *state));
    let before = written(&values, led.as_ref());
    let told = unless_ended(|| values.command_led(&at(500), KEY, &mut led, &payload));
    let also = unless_ended(|| values.command(&at(500), KEY, &mut followed, &payload));
    assert_eq!(told, also);
    let Some(told) = told else { return };
    let after = written(&values, led.as_ref());
    assert_eq!(after, written(&values, followed.as_ref()));
    match told {
        Ok(done) => head::<AgentReply>(&done.reply),
        Err(_) => assert_eq!(before, after, "a refused command has changed something"),
    }
    if led.is_some() {
        agent(&after);
    }
}

/// What an agent is asked, behind such a byte.
pub fn query(bytes: &[u8]) {
    let Some((state, payload)) = bytes.split_first() else { return };
    head::<AgentQuery>(payload);
    let (values, payload) = (numbers(), Bytes::copy_from_slice(payload));
    let Some(agent) = hosted(&values, *state) else { return };
    if let Ok(answer) = values.query(KEY, &agent, &payload) {
        head::<AgentAnswer>(&answer.answer);
        values.answered(KEY, &agent, &payload, &answer.answer);
    }
    // What a hook is told is an answer of its own member, whatever that is.
    values.answered(KEY, &agent, &payload, &payload);
}

/// An agent in bytes: what comes back is written down as what comes back again, answers, sleeps, and takes commands.
pub fn agent(bytes: &[u8]) {
    let values = numbers();
    let Some(Ok(agent)) = unless_ended(|| values.decode(KEY, bytes)) else { return };
    let before = written(&values, Some(&agent));
    let again = values.decode(KEY, &before).expect("it was just written");
    assert_eq!(before, written(&values, Some(&again)));
    for asked in [AgentQuery::IsActive, AgentQuery::User, AgentQuery::Changes { life: 0, revision: 1 }] {
        let answer = values.query(KEY, &agent, &join(&asked, &[1])).expect("it decodes");
        head::<AgentAnswer>(&answer.answer);
    }
    let due = values.wake_at(&agent);
    let (mut woken, mut told) = (Some(agent), Some(again));
    if let Some(due) = due {
        values.wake(&at(due), KEY, &mut woken, true);
        let next = woken.as_ref().and_then(|agent| values.wake_at(agent));
        assert!(next.is_none_or(|next| next > due || due == u64::MAX), "it would be woken for ever");
    }
    drop(unless_ended(|| values.command_led(&at(9), KEY, &mut told, &run(1, Order::Set(3)))));
    for agent in [woken, told].iter().flatten() {
        let bytes = written(&values, Some(agent));
        let again = values.decode(KEY, &bytes).expect("it was just written");
        assert_eq!(bytes, written(&values, Some(&again)));
    }
}
