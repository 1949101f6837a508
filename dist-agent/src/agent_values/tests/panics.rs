//! Agents whose decoding, migration or clone panics: what would undo a command on one member alone, or end a shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::hooks::{AgentHooks, HookContext};
use crate::on_tick::OnTick;

/// A number that no member can decode while it is 7, nor copy while it is 8.
#[derive(Default, Serialize)]
struct Brittle(u64);

impl<'de> Deserialize<'de> for Brittle {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        assert!(number != 7, "it cannot bear 7");
        Ok(Self(number))
    }
}

impl Clone for Brittle {
    fn clone(&self) -> Self {
        assert!(self.0 != 8, "it cannot bear 8");
        Self(self.0)
    }
}

impl Agent for Brittle {
    const TYPE: &'static str = "brittle";
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn handle_command(&mut self, context: &mut AgentContext<'_>, number: u64) -> u64 {
        context.on_tick(OnTick::Timeout { ticks: 0 });
        std::mem::replace(&mut self.0, number)
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> u64 {
        self.0
    }
}

/// The brittle one in its next version, whose migration panics at 5.
#[derive(Default, Serialize, Deserialize)]
struct Migrated(u64);

impl Agent for Migrated {
    const TYPE: &'static str = "brittle";
    const VERSION: u32 = 1;
    const VERSION_MIN: u32 = 0;
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn migrate(_: u32, bytes: &[u8]) -> Result<Self, String> {
        let number = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        assert!(number != 5, "it cannot bear 5");
        Ok(Self(number))
    }

    fn write_as(&self, _: u32) -> Result<Vec<u8>, String> {
        postcard::to_stdvec(&self.0).map_err(|error| error.to_string())
    }

    fn handle_command(&mut self, _: &mut AgentContext<'_>, number: u64) -> u64 {
        std::mem::replace(&mut self.0, number)
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> u64 {
        self.0
    }
}

const KEY: &[u8] = b"quota\0brittle\0key";

fn of<A: Agent>() -> AgentValues {
    AgentValues::new(AgentTypes::new().with::<A>())
}

/// The agent after so many commands that its states are not decoded any more, and one more that leaves it so.
fn old_and_then(number: u64) -> Option<Hosted> {
    let mut value = None;
    for n in 100..117 {
        command::<Brittle>(&of::<Brittle>(), &mut value, n, false).unwrap();
    }
    command::<Brittle>(&of::<Brittle>(), &mut value, number, false).unwrap();
    value
}

fn command<A: Agent<Command = u64>>(
    values: &AgentValues,
    value: &mut Option<Hosted>,
    number: u64,
    leads: bool,
) -> Result<AgentReply, Refused> {
    let AgentCommand::Run { tick_ms, pass, .. } = RUN else { unreachable!("it is said above") };
    let run = AgentCommand::Run { tick_ms, pass, version: A::VERSION };
    let payload = crate::wire::join_value(&run, &number).unwrap();
    let done = if leads {
        values.command_led(&CONTEXT, KEY, value, &payload)?
    } else {
        values.command(&CONTEXT, KEY, value, &payload)?
    };
    Ok(split::<AgentReply>(&done.reply).map_err(Refused)?.0)
}

fn asked(values: &AgentValues, value: &Hosted) -> Result<u64, AgentAnswer> {
    let payload = crate::wire::join_value(&AgentQuery::User, &()).unwrap();
    let answer = values.query(KEY, value, &payload).unwrap().answer;
    match split::<AgentAnswer>(&answer).unwrap() {
        (AgentAnswer::User, answer) => Ok(postcard::from_bytes(answer).unwrap()),
        (other, _) => Err(other),
    }
}

/// A snapshot is read where there is no command to undo: such a state once ended its whole shard on every member that was
/// given one. It is kept and answered for as one that does not decode.
#[test]
fn a_state_whose_decoding_panics_is_kept_and_answered_for_by_itself() {
    let values = of::<Brittle>();
    let value = old_and_then(7).unwrap();
    assert_eq!(asked(&values, &value), Ok(7));
    let bytes = encoded(&values, KEY, &value);
    let mut kept = Some(values.decode(KEY, &bytes).unwrap());
    assert_eq!(asked(&values, kept.as_ref().unwrap()), Err(AgentAnswer::UnreadableState));
    assert_eq!(command::<Brittle>(&values, &mut kept, 1, false), Ok(AgentReply::UnreadableState));
    assert_eq!(encoded(&values, KEY, kept.as_ref().unwrap()), bytes);
}

/// Members try the first commands of a type on a decoded copy, each as often as it likes. Where that copy could not be
/// made, the command was once undone on those members and on no other.
#[test]
fn a_copy_that_cannot_be_decoded_undoes_no_command() {
    let mut value = old_and_then(7);
    assert_eq!(command::<Brittle>(&of::<Brittle>(), &mut value, 6, false), Ok(AgentReply::User));
    assert_eq!(asked(&of::<Brittle>(), &value.unwrap()), Ok(6));
}

/// Agents that are due together are woken by one command, which once panicked with the migration of one of them, for ever.
#[test]
fn a_migration_that_panics_keeps_the_state_and_the_other_timeouts_go_on() {
    let bytes = encoded(&of::<Brittle>(), KEY, &old_and_then(5).unwrap());
    // A node that has started just now has not heard yet what the cluster has agreed on, and applies what is in its log: its
    // member once ended itself at the first tick, at every start anew.
    let values = of::<Migrated>();
    let mut kept = Some(values.decode(KEY, &bytes).unwrap());
    assert_eq!(asked(&values, kept.as_ref().unwrap()), Err(AgentAnswer::UnreadableState));
    assert_eq!(command::<Migrated>(&values, &mut kept, 1, false), Ok(AgentReply::UnreadableState));
    assert_eq!(encoded(&values, KEY, kept.as_ref().unwrap()), bytes);
    let due = values.wake_at(kept.as_ref().unwrap()).expect("it waits for a tick");
    values.wake(&CommandContext { now_ms: due, ..CONTEXT }, KEY, &mut kept, true);
    assert!(values.wake_at(kept.as_ref().unwrap()).is_some_and(|next| next > due), "it waits as long again");
}

/// Counts what it is told.
#[derive(Clone, Default)]
struct Told(Arc<AtomicU64>);

impl AgentHooks<Brittle> for Told {
    fn after_command(&self, _: &HookContext<'_>, _: Option<&Brittle>, _: &u64, _: &u64, _: Option<&Brittle>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Only the member that leads makes a copy for the hooks: a copy that panicked once undid the command there and nowhere else.
#[test]
fn a_state_that_cannot_be_copied_for_the_hooks_undoes_no_command_and_is_told_to_none() {
    let told = Told::default();
    let values = AgentValues::new(AgentTypes::new().with_hooks::<Brittle>(told.clone()));
    let (mut led, mut followed) = (None, None);
    for number in [1, 8, 9, 10] {
        let reply = command::<Brittle>(&values, &mut led, number, true);
        assert_eq!(reply, command::<Brittle>(&values, &mut followed, number, false));
    }
    let bytes = |value: &Option<Hosted>| encoded(&values, KEY, value.as_ref().unwrap());
    assert_eq!(bytes(&led), bytes(&followed));
    assert_eq!(told.0.load(Ordering::Relaxed), 3, "nobody is told of the command that found an 8");
}
