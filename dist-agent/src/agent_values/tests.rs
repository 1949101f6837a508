//! Agents in a shard of their own, without a cluster.

mod encoding;
mod hooks;
mod panics;
mod timeouts;
mod versions;

use proptest::prelude::*;

use serde::{Deserialize, Serialize};

use super::*;
use crate::agent::Agent;

/// Adds up numbers; zero is its last command, and 13 it cannot bear.
#[derive(Default, Serialize, Deserialize)]
struct Adder {
    total: i64,
    log: Vec<(u64, u64)>,
}

impl Agent for Adder {
    const TYPE: &'static str = "adder";
    type Command = i64;
    type Reply = i64;
    type Query = ();
    type Answer = (i64, u64);

    fn handle_command(&mut self, context: &mut AgentContext<'_>, add: i64) -> i64 {
        if add == 0 {
            context.deactivate();
        }
        self.total += add;
        self.log.push((context.revision(), context.now_ms()));
        self.total
    }

    fn handle_query(&self, context: &QueryContext<'_>, (): ()) -> (i64, u64) {
        (self.total, context.revision())
    }
}

/// An agent whose command is nothing and whose reply looks like anything.
#[derive(Default, Serialize, Deserialize)]
struct Bare;

impl Agent for Bare {
    const TYPE: &'static str = "bare";
    type Command = Option<()>;
    type Reply = Vec<u8>;
    type Query = ();
    type Answer = ();

    fn handle_command(&mut self, _: &mut AgentContext<'_>, _: Option<()>) -> Vec<u8> {
        // What `AgentReply::UnknownAgentType` looks like.
        vec![1]
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) {}
}

const CONTEXT: CommandContext = CommandContext { now_ms: 5, index: 1, seed: 1 };

/// A command that may activate its agent.
const RUN: AgentCommand =
    AgentCommand::Run { tick_ms: 100, pass: Some(Pass { generation: 1, until_ms: 1_000_000 }), version: 0 };

fn values() -> AgentValues {
    AgentValues::new(AgentTypes::new().with::<Adder>().with::<Bare>())
}

fn command<A: Agent>(value: &mut Option<Hosted>, command: &A::Command) -> Result<A::Reply, AgentReply> {
    let key = format!("quota\0{}\0key", A::TYPE);
    let payload = crate::wire::join_value(&RUN, command).unwrap();
    let done = values().command(&CONTEXT, key.as_bytes(), value, &payload).unwrap();
    match split::<AgentReply>(&done.reply).unwrap() {
        (AgentReply::User | AgentReply::Activated { .. }, reply) => Ok(postcard::from_bytes(reply).unwrap()),
        (other, _) => Err(other),
    }
}

fn query(value: &Hosted) -> (i64, u64) {
    let payload = crate::wire::join_value(&AgentQuery::User, &()).unwrap();
    let answer = values().query(b"quota\0adder\0key", value, &payload).unwrap().answer;
    let (AgentAnswer::User, answer) = split(&answer).unwrap() else { panic!("no answer of the agent") };
    postcard::from_bytes(answer).unwrap()
}

fn encoded(values: &AgentValues, key: &[u8], value: &Hosted) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.encode(key, value, &mut bytes);
    bytes
}

#[test]
fn the_first_command_activates_the_agent_and_takes_effect() {
    let mut value = None;
    assert_eq!(command::<Adder>(&mut value, &5), Ok(5));
    assert_eq!(command::<Adder>(&mut value, &-7), Ok(-2));
    assert_eq!(query(value.as_ref().unwrap()), (-2, 2));
}

#[test]
fn a_sweep_ends_the_agents_of_the_quotas_that_it_names_and_no_others() {
    let list = try_encode(&[7_u64, 1].as_slice()).unwrap();
    let others = try_encode(&[7_u64, 2].as_slice()).unwrap();
    for (sweep, ends) in [
        (join(&AgentSweep::EndQuota { generation: 1 }, &[]), true),
        (join(&AgentSweep::EndQuota { generation: 2 }, &[]), false),
        (join(&AgentSweep::EndQuotas, &list), true),
        (join(&AgentSweep::EndQuotas, &others), false),
        (join(&AgentSweep::EndQuotas, &list[..2]), false),
        (Bytes::from_static(&[9]), false),
    ] {
        let mut value = None;
        assert_eq!(command::<Adder>(&mut value, &5), Ok(5));
        values().sweep(&CONTEXT, b"quota\0adder\0key", &mut value, &sweep);
        assert_eq!(value.is_none(), ends, "{sweep:?}");
    }
}

#[test]
fn an_agent_that_deactivates_itself_is_gone_and_its_reply_arrives() {
    let mut value = None;
    assert_eq!(command::<Adder>(&mut value, &5), Ok(5));
    assert_eq!(command::<Adder>(&mut value, &0), Ok(5));
    assert!(value.is_none());
    assert_eq!(command::<Adder>(&mut value, &1), Ok(1));
}

/// In the original, an agent that ended at its first command told the next caller an internal value (fault 16).
#[test]
fn an_agent_may_deactivate_itself_at_its_first_command() {
    let mut value = None;
    assert_eq!(command::<Adder>(&mut value, &0), Ok(0));
    assert!(value.is_none());
}

/// In the original, a command equal to the language's "nothing" could never activate an agent: its caller spun and the
/// shard died (fault 17). One that equalled an internal value was executed as such (fault 22).
#[test]
fn no_value_of_a_user_is_taken_for_one_of_ours() {
    let mut value = None;
    assert_eq!(command::<Bare>(&mut value, &None), Ok(vec![1]));
    assert_eq!(command::<Bare>(&mut value, &Some(())), Ok(vec![1]));
    assert!(value.is_some());
}

#[test]
fn a_command_that_does_not_decode_activates_nothing_and_changes_nothing() {
    let mut value = None;
    let nonsense = join(&RUN, &[0xff; 3]);
    let refused = values().command(&CONTEXT, b"quota\0adder\0key", &mut value, &nonsense).unwrap_err();
    assert!(refused.0.contains("adder"), "{refused}");
    assert!(value.is_none());
    command::<Adder>(&mut value, &5).unwrap();
    values().command(&CONTEXT, b"quota\0adder\0key", &mut value, &nonsense).unwrap_err();
    assert_eq!(query(&value.unwrap()), (5, 1));
}

/// Snapshots are read by later versions.
#[test]
fn the_bytes_of_an_agent_in_a_snapshot_never_change() {
    let mut value = None;
    command::<Adder>(&mut value, &3).unwrap();
    let bytes = encoded(&values(), b"quota\0adder\0key", &value.unwrap());
    // Head: variant 0, revision 1, generation 1, no timer, version 0, not passive, life 1, no changes. State: total 3 in
    // zigzag, a log of one entry (0, 5).
    assert_eq!(bytes, [0, 1, 1, 0, 0, 0, 1, 0, 6, 1, 0, 5]);
}

#[test]
fn two_types_with_one_name_are_refused() {
    assert!(AgentTypes::new().with::<Adder>().with::<Bare>().validate().is_ok());
    let error = AgentTypes::new().with::<Adder>().with::<Adder>().validate().unwrap_err();
    assert_eq!(error.to_string(), "two agent types are named \"adder\"");
}

proptest! {
    #[test]
    fn an_agent_is_what_its_handlers_make_of_it(commands in proptest::collection::vec(-3_i64..4, 0..40)) {
        let mut value = None;
        let mut total = None;
        for add in commands {
            let expected = total.unwrap_or(0) + add;
            prop_assert_eq!(command::<Adder>(&mut value, &add), Ok(expected));
            total = (add != 0).then_some(expected);
            value = value.map(|value| {
                values().decode(b"quota\0adder\0key", &encoded(&values(), b"quota\0adder\0key", &value)).unwrap()
            });
            prop_assert_eq!(value.as_ref().map(|value| query(value).0), total);
        }
    }

    #[test]
    fn bytes_of_a_stranger_never_panic(
        key in proptest::collection::vec(any::<u8>(), 1..20), bytes in proptest::collection::vec(any::<u8>(), 0..30),
    ) {
        let payload = Bytes::from(bytes);
        for key in [&key[..], b"quota\0adder\0key"] {
            let mut value = None;
            // A member may end: the bytes name a type or a version that its build does not know. Nothing else unwinds.
            let done = versions::or_ended(|| values().command(&CONTEXT, key, &mut value, &payload));
            if let (Ok(_), Some(value)) = (done, &value) {
                let _ = values().query(key, value, &payload);
            }
            let _ = versions::or_ended(|| values().decode(key, &payload));
        }
    }
}
