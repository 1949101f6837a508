//! Agents whose state, reply or command does not come back from its encoding.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use super::super::*;
use super::{CONTEXT, RUN};
use crate::agent::Agent;
use crate::wire::join_value;

/// An agent that counts its commands with `$count` and keeps the last in a field with these attributes.
macro_rules! agent {
    ($name:ident, $value:ty, $(#[$attribute:meta])*) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $name {
            $(#[$attribute])*
            kept: $value,
            count: u64,
        }

        impl Agent for $name {
            const TYPE: &'static str = stringify!($name);
            type Command = $value;
            type Reply = ($value, u64);
            type Query = ();
            type Answer = u64;

            fn handle_command(&mut self, _: &mut AgentContext<'_>, kept: $value) -> ($value, u64) {
                let before = std::mem::replace(&mut self.kept, kept);
                self.count += 1;
                (before, self.count)
            }

            fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> u64 {
                self.count
            }
        }
    };
}

agent!(Whole, Vec<String>,);
agent!(Skipping, u64, #[serde(skip)]);
agent!(SkippingSome, Option<u64>, #[serde(skip_serializing_if = "Option::is_none")]);
agent!(Flat, BTreeMap<String, u64>, #[serde(flatten)]);
agent!(Fragile, Sequence,);
agent!(OneWay, Late,);

/// A sequence that does not say how long it is, which postcard cannot encode; the empty one it can.
#[derive(Default)]
struct Sequence(u8);

impl Serialize for Sequence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let length = (self.0 != 7).then_some(usize::from(self.0));
        let mut sequence = serializer.serialize_seq(length)?;
        (0..self.0).try_for_each(|value| sequence.serialize_element(&value))?;
        sequence.end()
    }
}

impl<'de> Deserialize<'de> for Sequence {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|values| Self(values.len() as u8))
    }
}

/// It encodes, and decodes only while it is `None`.
#[derive(Default, Serialize, Deserialize)]
struct Late(Option<Untagged>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
}

fn types() -> AgentTypes {
    AgentTypes::new().with::<Whole>().with::<Skipping>().with::<Fragile>().with::<OneWay>()
}

fn run<A: Agent>(
    values: &AgentValues,
    value: &mut Option<Hosted>,
    command: &[u8],
) -> Result<(AgentReply, Vec<u8>), Refused> {
    let key = format!("quota\0{}\0key", A::TYPE);
    let payload = join(&RUN, command);
    let done = values.command(&CONTEXT, key.as_bytes(), value, &payload)?;
    let (head, reply) = split::<AgentReply>(&done.reply).map_err(Refused)?;
    Ok((head, reply.to_vec()))
}

fn is_reported(values: &AgentValues, agent_type: &str) -> bool {
    values.types.get(agent_type).unwrap().watch().is_reported()
}

#[test]
fn a_default_state_that_its_encoding_loses_is_refused_at_the_start() {
    let check = |types: AgentTypes, reason: &str| {
        let error = types.validate().unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("no serde(flatten)"), "{error}");
    };
    check(
        AgentTypes::new().with::<SkippingSome>(),
        "agent type \"SkippingSome\" is lost in its encoding: it",
    );
    check(
        AgentTypes::new().with::<Flat>(),
        "agent type \"Flat\" is lost in its encoding: it does not encode",
    );
    assert_eq!(types().validate(), Ok(()));
}

/// A field that is not encoded leaves no trace in the bytes; only a restored copy that answers otherwise shows it.
#[test]
fn a_field_that_is_not_encoded_is_found_when_it_first_matters() {
    let values = AgentValues::new(types());
    let (mut skipping, mut whole) = (None, None);
    for number in [0_u8, 5, 6] {
        assert!(!is_reported(&values, "Skipping"));
        run::<Skipping>(&values, &mut skipping, &[number]).unwrap();
        run::<Whole>(&values, &mut whole, &[1, 1, b'a' + number]).unwrap();
    }
    assert!(is_reported(&values, "Skipping"));
    assert!(!is_reported(&values, "Whole"));
}

/// Such a state once stopped its shard on every member, when the next snapshot was taken.
#[test]
fn a_state_that_does_not_encode_is_undone_or_never_there() {
    let values = AgentValues::new(types());
    let mut value = None;
    let refused = run::<Fragile>(&values, &mut value, &[7; 8]).unwrap_err();
    assert!(
        refused.0.contains("agent of type \"Fragile\": the state that it leaves cannot be kept"),
        "{refused}"
    );
    assert!(value.is_none());

    run::<Fragile>(&values, &mut value, &[0]).unwrap();
    // The engine catches it, and undoes the command.
    let undone = catch_unwind(AssertUnwindSafe(|| run::<Fragile>(&values, &mut value, &[7; 8])));
    let message = *undone.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("Fragile") && message.contains("does not encode"), "{message}");
}

#[test]
fn a_reply_that_does_not_encode_is_refused() {
    let values = AgentValues::new(types());
    let mut value = None;
    run::<Fragile>(&values, &mut value, &[0]).unwrap();
    let Some(Hosted { state: State::Live(agent), .. }) = &mut value else { panic!("not live") };
    // The reply is the state before, which a command cannot make so.
    *agent = values.types.get("Fragile").unwrap().restore(0, &[[7; 8].as_slice(), &[1]].concat()).unwrap();
    let undone = catch_unwind(AssertUnwindSafe(|| run::<Fragile>(&values, &mut value, &[0])));
    let message = *undone.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("its reply does not encode"), "{message}");
}

#[test]
fn a_state_that_would_not_decode_is_never_there() {
    let values = AgentValues::new(types());
    let mut value = None;
    run::<OneWay>(&values, &mut value, &[0]).unwrap();
    // No command brings such a value: it does not decode itself.
    assert!(run::<OneWay>(&values, &mut value, &[1, 5]).unwrap_err().0.contains("does not decode"));
    let late = OneWay { kept: Late(Some(Untagged::Number(5))), count: 1 };
    let broken = crate::state_watch::round_trip(&late).unwrap_err();
    assert!(
        matches!(&broken, crate::state_watch::RoundTrip::Broken(why) if why.contains("decode")),
        "{broken:?}"
    );
}

/// One agent whose bytes cannot be read once kept its whole shard from being restored.
#[test]
fn an_unreadable_state_is_kept_and_answered_for_by_itself() {
    let (values, key) = (AgentValues::new(types()), b"quota\0Whole\0key");
    let bytes = [0, 1, 1, 0, 0, 0, 1, 0, 200];
    let mut value = Some(values.decode(key, &bytes).unwrap());
    assert!(is_reported(&values, "Whole"));
    let (head, reason) = run::<Whole>(&values, &mut value, &[0]).unwrap();
    assert_eq!(head, AgentReply::UnreadableState);
    assert!(!reason.is_empty());
    let payload = join(&AgentQuery::User, &[]);
    let answer = values.query(key, value.as_ref().unwrap(), &payload).unwrap().answer;
    assert_eq!(split::<AgentAnswer>(&answer).unwrap().0, AgentAnswer::UnreadableState);
    let mut again = Vec::new();
    values.encode(key, value.as_ref().unwrap(), &mut again);
    assert_eq!(again, bytes);
}

#[test]
fn a_callers_value_that_does_not_encode_is_an_error_value() {
    assert!(join_value(&AgentQuery::User, &Sequence(7)).is_err());
    assert_eq!(join_value(&AgentQuery::User, &Sequence(1)).unwrap(), &[0, 1, 0][..]);
}
