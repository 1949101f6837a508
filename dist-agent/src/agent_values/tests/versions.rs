//! States of other versions of their type: a rolling upgrade, seen from one shard.

use super::*;

/// The agent as it was.
#[derive(Default, Serialize, Deserialize)]
struct Old {
    name: String,
}

/// The agent as it is: it counts the letters, too.
#[derive(Default, Serialize, Deserialize)]
struct New {
    name: String,
    letters: u64,
}

impl Agent for Old {
    const TYPE: &'static str = "evolving";
    type Command = String;
    type Reply = ();
    type Query = ();
    type Answer = (String, u64);

    fn handle_command(&mut self, context: &mut AgentContext<'_>, name: String) {
        if name == "sleep" {
            context.passivate();
        } else {
            self.name = name;
        }
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> (String, u64) {
        (self.name.clone(), 0)
    }
}

impl Agent for New {
    const TYPE: &'static str = "evolving";
    const VERSION: u32 = 1;
    type Command = String;
    type Reply = ();
    type Query = ();
    type Answer = (String, u64);

    fn handle_command(&mut self, _: &mut AgentContext<'_>, name: String) {
        self.letters = name.len() as u64;
        self.name = name;
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> (String, u64) {
        (self.name.clone(), self.letters)
    }

    fn migrate(from: u32, bytes: &[u8]) -> Result<Self, String> {
        let 0 = from else { return Err(format!("there was no version {from}")) };
        let Old { name } = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(Self { letters: name.len() as u64, name })
    }
}

const KEY: &[u8] = b"quota\0evolving\0key";

fn of<A: Agent>() -> AgentValues {
    AgentValues::new(AgentTypes::new().with::<A>())
}

fn told(values: &AgentValues, value: &mut Option<Hosted>, command: &str) -> AgentReply {
    let payload = crate::wire::join_value(&RUN, &command).unwrap();
    let done = values.command(&CONTEXT, KEY, value, &payload).unwrap();
    split::<AgentReply>(&done.reply).unwrap().0
}

fn asked(values: &AgentValues, value: &Hosted) -> Result<(String, u64), AgentAnswer> {
    let payload = crate::wire::join_value(&AgentQuery::User, &()).unwrap();
    let answer = values.query(KEY, value, &payload).unwrap().answer;
    match split::<AgentAnswer>(&answer).unwrap() {
        (AgentAnswer::User, answer) => Ok(postcard::from_bytes(answer).unwrap()),
        (other, _) => Err(other),
    }
}

#[test]
fn a_state_of_an_earlier_version_becomes_one_of_this() {
    let mut value = None;
    told(&of::<Old>(), &mut value, "ann");
    let bytes = encoded(&of::<Old>(), KEY, &value.unwrap());
    let migrated = of::<New>().decode(KEY, &bytes).unwrap();
    assert_eq!(asked(&of::<New>(), &migrated), Ok(("ann".to_owned(), 3)));
    // From now on it is one of this version.
    let bytes = encoded(&of::<New>(), KEY, &migrated);
    assert_eq!(asked(&of::<New>(), &of::<New>().decode(KEY, &bytes).unwrap()), Ok(("ann".to_owned(), 3)));
}

/// A state that is only kept in bytes keeps the version that wrote it, whatever the node knows by then.
#[test]
fn a_passive_state_is_migrated_when_it_comes_back() {
    let mut value = None;
    told(&of::<Old>(), &mut value, "ann");
    told(&of::<Old>(), &mut value, "sleep");
    let bytes = encoded(&of::<Old>(), KEY, &value.unwrap());
    let mut value = Some(of::<New>().decode(KEY, &bytes).unwrap());
    assert_eq!(encoded(&of::<New>(), KEY, value.as_ref().unwrap()), bytes);
    assert_eq!(asked(&of::<New>(), value.as_ref().unwrap()), Ok(("ann".to_owned(), 3)));
    assert_eq!(told(&of::<New>(), &mut value, "benjamin"), AgentReply::User);
    assert_eq!(asked(&of::<New>(), value.as_ref().unwrap()), Ok(("benjamin".to_owned(), 8)));
}

/// In the middle of an upgrade a node of the earlier build meets states of the later one: it must keep them.
#[test]
fn a_node_of_an_earlier_build_keeps_the_bytes_of_a_later_one_and_says_so() {
    let mut value = None;
    told(&of::<New>(), &mut value, "ann");
    let bytes = encoded(&of::<New>(), KEY, &value.unwrap());
    let mut kept = Some(of::<Old>().decode(KEY, &bytes).unwrap());
    assert_eq!(told(&of::<Old>(), &mut kept, "ben"), AgentReply::UnreadableState);
    assert_eq!(asked(&of::<Old>(), kept.as_ref().unwrap()), Err(AgentAnswer::UnreadableState));
    assert_eq!(encoded(&of::<Old>(), KEY, kept.as_ref().unwrap()), bytes);
    assert_eq!(asked(&of::<New>(), &of::<New>().decode(KEY, &bytes).unwrap()), Ok(("ann".to_owned(), 3)));
}
