//! What hooks are told, by a shard of their own.

use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::hooks::{AgentHooks, HookContext};
use crate::on_tick::OnTick;

/// A number; zero ends it, a negative one it refuses by a panic, and its timeout doubles it.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Number(i64);

impl Agent for Number {
    const TYPE: &'static str = "number";
    type Command = i64;
    type Reply = i64;
    type Query = ();
    type Answer = i64;

    fn handle_command(&mut self, context: &mut AgentContext<'_>, add: i64) -> i64 {
        if add == 0 {
            context.deactivate();
        }
        self.0 += add;
        context.on_tick(OnTick::Timeout { ticks: 0 });
        self.0
    }

    fn handle_timeout(&mut self, _: &mut AgentContext<'_>) {
        self.0 *= 2;
        assert!(self.0 < 100, "too large");
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> i64 {
        self.0
    }
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl AgentHooks<Number> for Told {
    fn after_command(
        &self,
        context: &HookContext<'_>,
        before: Option<&Number>,
        command: &i64,
        reply: &i64,
        after: Option<&Number>,
    ) {
        let number = |number: Option<&Number>| number.map(|number| number.0);
        let (before, after) = (number(before), number(after));
        let told = format!("{}: {before:?} {command:+} = {reply} {after:?}", context.key());
        self.0.lock().push(told);
        assert!(*command != 13, "the hook cannot bear 13");
    }

    fn after_query(&self, _: &HookContext<'_>, agent: &Number, (): &(), answer: &i64) {
        self.0.lock().push(format!("asked {} {answer}", agent.0));
    }

    fn after_timeout(&self, context: &HookContext<'_>, before: &Number, after: Option<&Number>) {
        let after = after.map(|number| number.0);
        self.0.lock().push(format!("timeout at {:?}: {} {after:?}", context.now_ms(), before.0));
    }
}

const KEY: &[u8] = b"quota\0number\0key";

fn run(values: &AgentValues, value: &mut Option<Hosted>, add: i64, leads: bool) -> Done {
    let payload = crate::wire::join_value(&RUN, &add).unwrap();
    if leads {
        values.command_led(&CONTEXT, KEY, value, &payload).unwrap()
    } else {
        values.command(&CONTEXT, KEY, value, &payload).unwrap()
    }
}

#[test]
fn hooks_are_told_of_commands_timeouts_and_queries_with_the_state_before_and_after() {
    let told = Told::default();
    let values = AgentValues::new(AgentTypes::new().with_hooks::<Number>(told.clone()));
    assert!(values.has_hooks());
    let mut value = None;
    run(&values, &mut value, 5, true);
    run(&values, &mut value, 2, true);
    assert_eq!(told.take(), ["key: None +5 = 5 Some(5)", "key: Some(5) +2 = 7 Some(7)"]);
    values.wake(&CommandContext { now_ms: 100, ..CONTEXT }, KEY, &mut value, true);
    assert_eq!(told.take(), ["timeout at Some(100): 7 Some(14)"]);
    let query = crate::wire::join_value(&AgentQuery::User, &()).unwrap();
    let answer = values.query(KEY, value.as_ref().unwrap(), &query).unwrap().answer;
    assert_eq!(told.take(), [""; 0], "only the leader tells");
    values.answered(KEY, value.as_ref().unwrap(), &query, &answer);
    assert_eq!(told.take(), ["asked 14 14"]);
    run(&values, &mut value, 0, true);
    assert_eq!(told.take(), ["key: Some(14) +0 = 14 None"]);
}

#[test]
fn a_follower_does_the_same_to_the_agent_and_tells_nothing() {
    let told = Told::default();
    let values = AgentValues::new(AgentTypes::new().with_hooks::<Number>(told.clone()));
    let (mut led, mut followed) = (None, None);
    for add in [5, 13, -3] {
        let reply = run(&values, &mut led, add, true);
        assert_eq!(run(&values, &mut followed, add, false), reply);
    }
    // The hook has panicked at 13, which harmed nobody.
    assert_eq!(told.take().len(), 3);
    let bytes = |value: &Option<Hosted>| encoded(&values, KEY, value.as_ref().unwrap());
    assert_eq!(bytes(&led), bytes(&followed));
}

#[test]
fn a_timeout_that_fails_is_not_told() {
    let told = Told::default();
    let values = AgentValues::new(AgentTypes::new().with_hooks::<Number>(told.clone()));
    let mut value = None;
    run(&values, &mut value, 60, true);
    told.take();
    values.wake(&CommandContext { now_ms: 100, ..CONTEXT }, KEY, &mut value, true);
    assert_eq!(told.take(), [""; 0]);
}

#[test]
fn types_without_hooks_ask_for_none() {
    assert!(!super::values().has_hooks());
}
