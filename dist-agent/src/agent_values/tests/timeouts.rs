//! Ticks of agents in a shard of their own.

use super::*;
use crate::on_tick::OnTick;

/// Sets what it is told to; a timeout does what it was told to do then.
#[derive(Default, Serialize, Deserialize)]
struct Sleeper {
    /// When its timeouts came, and what they drew.
    timeouts: Vec<(u64, u64)>,
    then: Then,
}

#[derive(Clone, Default, Serialize, Deserialize)]
enum Then {
    #[default]
    Nothing,
    Again,
    End,
    Passivate,
    Panic,
}

impl Agent for Sleeper {
    const TYPE: &'static str = "sleeper";
    type Command = (Option<OnTick>, Then);
    type Reply = ();
    type Query = ();
    type Answer = Vec<(u64, u64)>;

    fn handle_command(&mut self, context: &mut AgentContext<'_>, (on_tick, then): (Option<OnTick>, Then)) {
        self.then = then;
        if let Some(on_tick) = on_tick {
            context.on_tick(on_tick);
        }
    }

    fn handle_timeout(&mut self, context: &mut AgentContext<'_>) {
        let drawn = rand_chacha::rand_core::RngCore::next_u64(context.rng());
        self.timeouts.push((context.now_ms(), drawn));
        match self.then {
            Then::Nothing => {}
            Then::Again => context.on_tick(OnTick::Timeout { ticks: 0 }),
            Then::End => context.deactivate(),
            Then::Passivate => context.passivate(),
            Then::Panic => panic!("as it was told"),
        }
    }

    fn handle_query(&self, _: &QueryContext<'_>, (): ()) -> Vec<(u64, u64)> {
        self.timeouts.clone()
    }
}

const KEY: &[u8] = b"quota\0sleeper\0key";

fn sleepers() -> AgentValues {
    AgentValues::new(AgentTypes::new().with::<Sleeper>())
}

fn at(now_ms: u64) -> CommandContext {
    CommandContext { now_ms, index: 1, seed: now_ms }
}

/// A new agent that was told this at 1,000 ms, with ticks of 100 ms.
fn told(on_tick: OnTick, then: Then) -> Option<Hosted> {
    let mut value = None;
    tell(&mut value, 1_000, Some(on_tick), then);
    value
}

fn tell(value: &mut Option<Hosted>, now_ms: u64, on_tick: Option<OnTick>, then: Then) {
    let payload = crate::wire::join_value(&RUN, &(on_tick, then)).unwrap();
    sleepers().command(&at(now_ms), KEY, value, &payload).unwrap();
}

fn due(value: &Option<Hosted>) -> Option<u64> {
    value.as_ref().and_then(|hosted| sleepers().wake_at(hosted))
}

fn wake(value: &mut Option<Hosted>, now_ms: u64) {
    sleepers().wake(&at(now_ms), KEY, value, false);
}

fn timeouts(value: &Option<Hosted>) -> Vec<u64> {
    let payload = crate::wire::join_value(&AgentQuery::User, &()).unwrap();
    let answer = sleepers().query(KEY, value.as_ref().unwrap(), &payload).unwrap().answer;
    let (AgentAnswer::User, answer) = split(&answer).unwrap() else { panic!("no answer of the agent") };
    postcard::from_bytes::<Vec<(u64, u64)>>(answer).unwrap().into_iter().map(|(at, _)| at).collect()
}

#[test]
fn a_timeout_gets_the_stamped_time_and_is_spent() {
    let mut value = told(OnTick::Timeout { ticks: 1 }, Then::Nothing);
    assert_eq!(due(&value), Some(1_200));
    tell(&mut value, 1_150, None, Then::Nothing);
    assert_eq!(due(&value), Some(1_200), "a command that keeps it does not put it off");
    wake(&mut value, 1_203);
    assert_eq!((due(&value), timeouts(&value)), (None, vec![1_203]));
}

#[test]
fn a_timeout_may_set_the_next_end_the_agent_or_let_it_leave_the_memory() {
    let mut value = told(OnTick::Timeout { ticks: 0 }, Then::Again);
    wake(&mut value, 1_100);
    assert_eq!(due(&value), Some(1_200));
    wake(&mut value, 1_200);
    assert_eq!((due(&value), timeouts(&value)), (Some(1_300), vec![1_100, 1_200]));

    let mut value = told(OnTick::Timeout { ticks: 0 }, Then::End);
    wake(&mut value, 1_100);
    assert!(value.is_none());

    let mut value = told(OnTick::Timeout { ticks: 0 }, Then::Passivate);
    wake(&mut value, 1_100);
    assert!(matches!(value.as_ref().unwrap().state, State::InBytes(_)));
    assert_eq!(timeouts(&value), [1_100]);
    tell(&mut value, 1_150, Some(OnTick::Timeout { ticks: 0 }), Then::Nothing);
    assert!(matches!(value.as_ref().unwrap().state, State::Live(_)));
}

/// In the original, a command that kept the setting did not restart the countdown (fault 21).
#[test]
fn an_agent_ends_only_when_it_had_no_command_for_all_of_its_ticks() {
    let mut value = told(OnTick::Deactivate { ticks: 1 }, Then::Nothing);
    assert_eq!(due(&value), Some(1_200));
    tell(&mut value, 1_199, None, Then::Nothing);
    assert_eq!(due(&value), Some(1_300));
    wake(&mut value, 1_300);
    assert!(value.is_none());
}

/// Agents that are due together are woken by one command; one that panics must not undo the others. In the original, an
/// answer that cannot be killed the shard at its next use (fault 20).
#[test]
fn a_timeout_that_panics_leaves_the_agent_as_it_was_with_nothing_set() {
    let mut value = told(OnTick::Timeout { ticks: 0 }, Then::Panic);
    wake(&mut value, 1_100);
    assert_eq!((due(&value), timeouts(&value)), (None, vec![]));
    tell(&mut value, 1_150, Some(OnTick::Timeout { ticks: 0 }), Then::Nothing);
    wake(&mut value, 1_200);
    assert_eq!(timeouts(&value), [1_200]);
}

#[test]
fn agents_that_are_woken_by_one_command_draw_different_numbers() {
    let drawn = |key: &[u8]| {
        let mut value = told(OnTick::Timeout { ticks: 0 }, Then::Nothing);
        sleepers().wake(&at(1_100), key, &mut value, false);
        let payload = crate::wire::join_value(&AgentQuery::User, &()).unwrap();
        sleepers().query(key, value.as_ref().unwrap(), &payload).unwrap().answer
    };
    assert_eq!(drawn(KEY), drawn(KEY));
    assert_ne!(drawn(KEY), drawn(b"quota\0sleeper\0other"));
}

/// No member can run the handler of a state that does not decode, and none must be asked for ever.
#[test]
fn a_timeout_of_a_state_that_cannot_be_read_waits_as_long_again() {
    let value = told(OnTick::Timeout { ticks: 0 }, Then::Nothing);
    let mut bytes = encoded(&sleepers(), KEY, &value.unwrap());
    bytes.pop();
    let mut kept = Some(sleepers().decode(KEY, &bytes).unwrap());
    sleepers().wake(&at(1_100), KEY, &mut kept, false);
    assert_eq!(due(&kept), Some(1_200));
    assert_eq!(encoded(&sleepers(), KEY, kept.as_ref().unwrap())[..2], bytes[..2]);
}

/// An agent whose state no member could read (a migration that was wrong) once ended after its ticks however often it was
/// called, and with it the bytes that the next build could have read.
#[test]
fn an_agent_that_cannot_be_read_does_not_end_while_it_is_called() {
    let value = told(OnTick::Deactivate { ticks: 1 }, Then::Nothing);
    let mut bytes = encoded(&sleepers(), KEY, &value.unwrap());
    bytes.pop();
    let mut kept = Some(sleepers().decode(KEY, &bytes).unwrap());
    assert_eq!(due(&kept), Some(1_200));
    tell(&mut kept, 1_199, None, Then::Nothing);
    assert_eq!(due(&kept), Some(1_300));
    wake(&mut kept, 1_300);
    assert!(kept.is_none(), "nobody has called it for all of its ticks");
}

#[test]
fn a_timer_comes_back_from_a_snapshot_as_it_was() {
    let value = told(OnTick::Deactivate { ticks: 3 }, Then::Nothing).unwrap();
    let bytes = encoded(&sleepers(), KEY, &value);
    // Revision 1, generation 1, deactivate after 3 ticks of 100 ms, due at 1,400; version 0, not passive.
    assert_eq!(bytes[..10], [0, 1, 1, 1, 2, 3, 100, 0xf8, 0x0a, 0]);
    assert_eq!(due(&Some(sleepers().decode(KEY, &bytes).unwrap())), Some(1_400));
}
