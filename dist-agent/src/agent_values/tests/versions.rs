//! Members of two builds in one shard: a rolling upgrade, seen from their values.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft_kv::rafted_value::stopped_because;

use super::*;
use crate::on_tick::OnTick;

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

/// The agent of a build that cannot read names with a `!`, nor write those with a `?` as they were.
#[derive(Default, Serialize, Deserialize)]
struct Hasty(New);

/// What both builds make of a command.
fn handle(context: &mut AgentContext<'_>, name: &mut String, order: String) {
    match order.as_str() {
        "sleep" => context.passivate(),
        "tick" => context.on_tick(OnTick::Timeout { ticks: 0 }),
        "random" => *name = rand_chacha::rand_core::RngCore::next_u32(context.rng()).to_string(),
        _ => *name = order,
    }
}

impl Agent for Old {
    const TYPE: &'static str = "evolving";
    type Command = String;
    type Reply = ();
    type Query = ();
    type Answer = (String, u64);

    fn handle_command(&mut self, context: &mut AgentContext<'_>, order: String) {
        handle(context, &mut self.name, order);
    }

    fn handle_timeout(&mut self, _: &mut AgentContext<'_>) {
        self.name.push_str(" in time");
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> (String, u64) {
        (self.name.clone(), 0)
    }
}

impl New {
    fn count(&mut self) {
        self.letters = self.name.len() as u64;
    }
}

impl Agent for New {
    const TYPE: &'static str = "evolving";
    const VERSION: u32 = 1;
    const VERSION_MIN: u32 = 0;
    type Command = String;
    type Reply = ();
    type Query = ();
    type Answer = (String, u64);

    fn handle_command(&mut self, context: &mut AgentContext<'_>, order: String) {
        handle(context, &mut self.name, order);
        if context.version() > 0 {
            self.name.push('\'');
        }
        self.count();
    }

    fn handle_timeout(&mut self, _: &mut AgentContext<'_>) {
        self.name.push_str(" in time");
        self.count();
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> (String, u64) {
        (self.name.clone(), self.letters)
    }

    fn migrate(from: u32, bytes: &[u8]) -> Result<Self, String> {
        let 0 = from else { return Err(format!("there was no version {from}")) };
        let Old { name } = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(Self { letters: name.len() as u64, name })
    }

    fn write_as(&self, version: u32) -> Result<Vec<u8>, String> {
        let 0 = version else { return Err(format!("there was no version {version}")) };
        postcard::to_stdvec(&Old { name: self.name.clone() }).map_err(|error| error.to_string())
    }
}

impl Agent for Hasty {
    const TYPE: &'static str = "evolving";
    const VERSION: u32 = 1;
    const VERSION_MIN: u32 = 0;
    type Command = String;
    type Reply = ();
    type Query = ();
    type Answer = (String, u64);

    fn handle_command(&mut self, context: &mut AgentContext<'_>, order: String) {
        self.0.handle_command(context, order);
    }

    fn handle_query(&self, context: &QueryContext<'_>, (): ()) -> (String, u64) {
        self.0.handle_query(context, ())
    }

    fn migrate(from: u32, bytes: &[u8]) -> Result<Self, String> {
        let state = New::migrate(from, bytes)?;
        if state.name.contains('!') { Err("there were no such names".to_owned()) } else { Ok(Self(state)) }
    }

    fn write_as(&self, version: u32) -> Result<Vec<u8>, String> {
        if self.0.name.contains('?') {
            return Err("there were no such names".to_owned());
        }
        self.0.write_as(version)
    }
}

const KEY: &[u8] = b"quota\0evolving\0key";

fn of<A: Agent>() -> AgentValues {
    AgentValues::new(AgentTypes::new().with::<A>())
}

/// What a member does with a command, or why it ends.
fn run(
    values: &AgentValues,
    value: &mut Option<Hosted>,
    version: u32,
    command: &str,
) -> Result<AgentReply, String> {
    let AgentCommand::Run { tick_ms, pass, .. } = RUN else { unreachable!("it is said above") };
    let payload = crate::wire::join_value(&AgentCommand::Run { tick_ms, pass, version }, &command).unwrap();
    or_ended(|| {
        let done = values.command(&CONTEXT, KEY, value, &payload).unwrap();
        split::<AgentReply>(&done.reply).unwrap().0
    })
}

/// What comes of it, or why the member ends.
pub(super) fn or_ended<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|panic| stopped_because(&*panic).expect("it was no other panic").to_owned())
}

fn asked(values: &AgentValues, value: &Hosted) -> Result<(String, u64), AgentAnswer> {
    let payload = crate::wire::join_value(&AgentQuery::User, &()).unwrap();
    let answer = values.query(KEY, value, &payload).unwrap().answer;
    match split::<AgentAnswer>(&answer).unwrap() {
        (AgentAnswer::User, answer) => Ok(postcard::from_bytes(answer).unwrap()),
        (other, _) => Err(other),
    }
}

/// The agent on a member that is given the bytes of another.
fn given(values: &AgentValues, bytes: &[u8]) -> Result<Option<Hosted>, String> {
    or_ended(|| Some(values.decode(KEY, bytes).unwrap()))
}

fn bytes_of(values: &AgentValues, value: &Option<Hosted>) -> Vec<u8> {
    encoded(values, KEY, value.as_ref().expect("it is active"))
}

#[test]
fn a_state_of_an_earlier_version_becomes_one_of_this_at_the_first_command_of_it() {
    let mut value = None;
    run(&of::<Old>(), &mut value, 0, "ann").unwrap();
    let bytes = bytes_of(&of::<Old>(), &value);
    let mut value = given(&of::<New>(), &bytes).unwrap();
    assert_eq!(asked(&of::<New>(), value.as_ref().unwrap()), Ok(("ann".to_owned(), 3)));
    // Until then it is written as it was.
    assert_eq!(bytes_of(&of::<New>(), &value), bytes);
    run(&of::<New>(), &mut value, 1, "ben").unwrap();
    let value = given(&of::<New>(), &bytes_of(&of::<New>(), &value)).unwrap();
    assert_eq!(asked(&of::<New>(), value.as_ref().unwrap()), Ok(("ben'".to_owned(), 4)));
    // A caller that has not heard of it yet takes nothing back.
    let mut value = value;
    run(&of::<New>(), &mut value, 0, "eve").unwrap();
    assert_eq!(asked(&of::<New>(), value.as_ref().unwrap()), Ok(("eve'".to_owned(), 4)));
}

/// It once kept the bytes and skipped the command that the other members ran; when it led, the command was lost from view.
#[test]
fn a_member_of_an_earlier_build_ends_at_what_only_a_later_one_can_run() {
    let mut new = None;
    run(&of::<New>(), &mut new, 1, "ann").unwrap();
    let ended = given(&of::<Old>(), &bytes_of(&of::<New>(), &new)).err().unwrap();
    assert_eq!(ended, "an agent of type \"evolving\" runs as version 1, and this build runs versions 0 to 0");
    let mut old = None;
    assert!(run(&of::<Old>(), &mut old, 1, "ann").unwrap_err().contains("runs as version 1"));
    run(&of::<Old>(), &mut old, 0, "ann").unwrap();
    assert!(run(&of::<Old>(), &mut old, 1, "ben").unwrap_err().contains("runs as version 1"));
    assert!(run(&values(), &mut None, 0, "ann").unwrap_err().contains("does not know agent type"));
}

/// A state that this build cannot read may be read by an earlier one; once there is none, no member can, and all say so.
#[test]
fn a_state_that_only_an_earlier_build_can_read_ends_a_member_and_later_none() {
    let mut old = None;
    run(&of::<Old>(), &mut old, 0, "ann!").unwrap();
    let bytes = bytes_of(&of::<Old>(), &old);
    let types = AgentTypes::new().with::<Hasty>();
    let hasty = AgentValues::new(types.clone());
    let mut kept = given(&hasty, &bytes).unwrap();
    assert_eq!(asked(&hasty, kept.as_ref().unwrap()), Err(AgentAnswer::UnreadableState));
    assert!(run(&hasty, &mut kept, 0, "ben").unwrap_err().contains("there were no such names"));
    let mut kept = given(&hasty, &bytes).unwrap();
    assert_eq!(run(&hasty, &mut kept, 1, "ben"), Ok(AgentReply::UnreadableState));
    types.agree(&[(crate::AgentTypeName::new("evolving").unwrap(), 1)].into());
    assert_eq!(run(&hasty, &mut kept, 0, "ben"), Ok(AgentReply::UnreadableState));
    assert_eq!(bytes_of(&hasty, &kept), bytes);
}

#[test]
fn a_state_that_cannot_be_written_as_the_earlier_build_writes_it_ends_a_member() {
    let mut value = None;
    run(&of::<Hasty>(), &mut value, 0, "ann").unwrap();
    let ended = run(&of::<Hasty>(), &mut value, 0, "who?").unwrap_err();
    assert!(ended.contains("must be written as version 0: there were no such names"), "{ended}");
    let mut value = None;
    assert_eq!(run(&of::<Hasty>(), &mut value, 1, "who?"), Ok(AgentReply::Activated { at_ms: 5 }));
}

/// A command that does not decode changes nothing, whoever sends it. It once brought an agent that had left the memory back,
/// and raised its version.
#[test]
fn a_command_that_does_not_run_leaves_a_passive_or_earlier_state_as_it_was() {
    for passive in [true, false] {
        let mut value = None;
        run(&of::<New>(), &mut value, 0, "ann").unwrap();
        if passive {
            run(&of::<New>(), &mut value, 0, "sleep").unwrap();
        }
        let before = bytes_of(&of::<New>(), &value);
        for version in [0, 1] {
            let AgentCommand::Run { tick_ms, pass, .. } = RUN else { unreachable!("it is said above") };
            let nonsense = join(&AgentCommand::Run { tick_ms, pass, version }, &[0xff; 3]);
            assert!(of::<New>().command(&CONTEXT, KEY, &mut value, &nonsense).is_err());
            assert_eq!(bytes_of(&of::<New>(), &value), before, "passive: {passive}, version {version}");
            let is_live = matches!(value.as_ref().unwrap().state, State::Live(_));
            assert_eq!(is_live, !passive);
        }
        run(&of::<New>(), &mut value, 1, "ben").unwrap();
        assert_eq!(asked(&of::<New>(), value.as_ref().unwrap()), Ok(("ben'".to_owned(), 4)));
    }
}

/// A build that keeps no changes any more once left those of the build before where they were: whoever watched the agent was
/// told that nothing had happened since.
#[test]
fn changes_that_are_not_kept_any_more_are_not_the_newest() {
    /// The agent when it could be watched.
    #[derive(Default, Serialize, Deserialize)]
    struct Watched(Old);

    impl Agent for Watched {
        const TYPE: &'static str = "evolving";
        const CHANGES_RETAINED: u32 = 4;
        type Command = String;
        type Reply = ();
        type Query = ();
        type Answer = ();

        fn handle_command(&mut self, context: &mut AgentContext<'_>, order: String) {
            self.0.handle_command(context, order);
        }

        fn handle_query(&self, _: &QueryContext<'_>, (): ()) {}
    }

    let mut value = None;
    for name in ["ann", "ben"] {
        run(&of::<Watched>(), &mut value, 0, name).unwrap();
    }
    let mut value = given(&of::<Old>(), &bytes_of(&of::<Watched>(), &value)).unwrap();
    run(&of::<Old>(), &mut value, 0, "eve").unwrap();
    let query = join(&AgentQuery::Changes { life: 0, revision: 2 }, &[]);
    let answer = of::<Old>().query(KEY, value.as_ref().unwrap(), &query).unwrap().answer;
    assert_eq!(split::<AgentAnswer>(&answer), Ok((AgentAnswer::Compacted { oldest: 4 }, &[][..])));
}

#[test]
fn versions_that_do_not_come_back_are_refused_at_the_start() {
    /// It says that it can go on as version 0, and cannot.
    #[derive(Default, Serialize, Deserialize)]
    struct Boasting;

    impl Agent for Boasting {
        const TYPE: &'static str = "boasting";
        const VERSION: u32 = 1;
        const VERSION_MIN: u32 = 0;
        type Command = ();
        type Reply = ();
        type Query = ();
        type Answer = ();

        fn handle_command(&mut self, _: &mut AgentContext<'_>, (): ()) {}

        fn handle_query(&self, _: &QueryContext<'_>, (): ()) {}
    }

    let error = AgentTypes::new().with::<Boasting>().validate().unwrap_err().to_string();
    assert!(
        error.starts_with("agent type \"boasting\" cannot be run as version 0: version 1 cannot"),
        "{error}"
    );
    assert_eq!(AgentTypes::new().with::<New>().validate(), Ok(()));
}

/// What happens to an agent in the middle of an upgrade.
#[derive(Clone, Debug)]
enum Event {
    Command(&'static str),
    Tick,
    /// This member is given the bytes of another.
    Snapshot {
        to: usize,
        from: usize,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let command = prop_oneof![Just("ann"), Just("benjamin"), Just("sleep"), Just("tick"), Just("random")];
    let event = prop_oneof![
        4 => command.prop_map(Event::Command),
        1 => Just(Event::Tick),
        2 => (0_usize..3, 0_usize..3).prop_map(|(to, from)| Event::Snapshot { to, from }),
    ];
    proptest::collection::vec(event, 0..30)
}

proptest! {
    /// Members of two builds hold the same bytes after everything that happens, so that any of them may lead, or be
    /// compared with the others.
    #[test]
    fn members_of_two_builds_are_alike_before_and_after_the_raise(before in events(), after in events()) {
        let run_all = |members: &[AgentValues], agents: &mut Vec<Option<Hosted>>, version, events: Vec<Event>| {
            for event in events {
                match event {
                    Event::Command(command) => {
                        for (values, agent) in members.iter().zip(agents.iter_mut()) {
                            run(values, agent, version, command).unwrap();
                        }
                    }
                    Event::Tick => {
                        for (values, agent) in members.iter().zip(agents.iter_mut()) {
                            values.tick(&CONTEXT, KEY, agent, false);
                        }
                    }
                    Event::Snapshot { to, from } => {
                        let bytes = bytes_of(&members[from], &agents[from]);
                        agents[to] = given(&members[to], &bytes).unwrap();
                    }
                }
                let bytes = bytes_of(&members[0], &agents[0]);
                for (values, agent) in members.iter().zip(agents.iter()) {
                    assert_eq!(bytes_of(values, agent), bytes);
                }
            }
        };
        let members = [of::<Old>(), of::<New>(), of::<Old>()];
        let mut agents = vec![None, None, None];
        run_all(&members, &mut agents, 0, vec![Event::Command("first")]);
        run_all(&members, &mut agents, 0, before);
        let bytes = bytes_of(&members[0], &agents[0]);
        let new = [of::<New>(), of::<New>(), of::<New>()];
        let mut agents =
            vec![given(&new[0], &bytes).unwrap(), agents.swap_remove(1), given(&new[2], &bytes).unwrap()];
        run_all(&new, &mut agents, 1, after);
    }
}
