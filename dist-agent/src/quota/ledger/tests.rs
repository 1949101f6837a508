//! The ledger by itself, and against a world in which agents come and go and messages are lost and late.

use proptest::prelude::*;

use super::super::versions::{Join, Span};
use super::*;
use crate::agent_id::AgentTypeName;
use crate::error::BuildMismatch;

fn at(now_ms: u64) -> CommandContext {
    CommandContext { now_ms, index: 1, seed: 1 }
}

fn name(name: &str) -> QuotaName {
    QuotaName::new(name).unwrap()
}

fn put(ledger: &mut Ledger, quota: &str, limit: impl Into<QuotaLimit>) {
    let command = LedgerCommand::Put { quota: name(quota), limit: limit.into() };
    assert_eq!(ledger.command(&at(1), command), LedgerReply::Done);
}

fn places(ledger: &mut Ledger, now_ms: u64, asked: &[(&str, u64)], told: Vec<Told>) -> Vec<Given> {
    let asked = asked.iter().map(|(quota, hash)| Ask { quota: name(quota), hash: *hash }).collect();
    match ledger.command(&at(now_ms), LedgerCommand::Places { asked, told, pass_ms: 100 }) {
        LedgerReply::Places(given) => given,
        other => panic!("{other:?}"),
    }
}

fn ask(ledger: &mut Ledger, now_ms: u64, quota: &str, hash: u64) -> Given {
    places(ledger, now_ms, &[(quota, hash)], vec![])[0]
}

fn tell(ledger: &mut Ledger, place: u64, fate: PlaceFate) {
    places(ledger, 1, &[], vec![Told { place, fate }]);
}

fn report(ledger: &mut Ledger, at_ms: u64, counts: &[(&str, u64, u64)]) -> Vec<(QuotaName, u64)> {
    let counts = counts.iter().map(|(quota, life, count)| (name(quota), *life, *count)).collect();
    let report = Report { first: 0, last: u64::MAX, at_ms, counts };
    match ledger.command(&at(at_ms), LedgerCommand::Report(report)) {
        LedgerReply::Ended(ended) => ended,
        other => panic!("{other:?}"),
    }
}

fn usage(ledger: &Ledger, quota: &str) -> Option<QuotaUsage> {
    match ledger.query(LedgerQuery::Usage { quota: name(quota) }) {
        LedgerAnswer::Usage(usage) => usage,
        other => panic!("{other:?}"),
    }
}

fn place(given: Given) -> u64 {
    match given {
        Given::Place { place, .. } => place,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_quota_is_full_when_its_places_are_taken_and_not_before() {
    let mut ledger = Ledger::default();
    assert_eq!(ask(&mut ledger, 1, "q", 1), Given::NoSuchQuota);
    put(&mut ledger, "q", 2);
    put(&mut ledger, "none", 0);
    put(&mut ledger, "any", QuotaLimit::Unlimited);
    let given = places(&mut ledger, 1, &[("q", 1), ("q", 2), ("q", 3), ("none", 1), ("any", 1)], vec![]);
    assert_eq!(given[0], Given::Place { place: 1, generation: 1, until_ms: 101 });
    assert_eq!(given[1], Given::Place { place: 2, generation: 1, until_ms: 101 });
    assert_eq!(given[2], Given::Full { limit: 2 });
    assert_eq!(given[3], Given::Full { limit: 0 });
    assert_eq!(given[4], Given::Place { place: 0, generation: 3, until_ms: 101 });
    assert_eq!(usage(&ledger, "q"), Some(QuotaUsage { agents: 2, limit: QuotaLimit::Agents(2) }));
    assert_eq!(usage(&ledger, "nothing"), None);
    put(&mut ledger, "q", 3);
    assert!(matches!(ask(&mut ledger, 1, "q", 3), Given::Place { .. }));
}

#[test]
fn a_place_says_whether_there_are_many_more() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", ROOM_MIN + 2);
    assert_eq!(ask(&mut ledger, 1, "q", 1), Given::PlaceOfMany { place: 1, generation: 1, until_ms: 101 });
    assert_eq!(ask(&mut ledger, 1, "q", 2), Given::PlaceOfMany { place: 2, generation: 1, until_ms: 101 });
    assert_eq!(ask(&mut ledger, 1, "q", 3), Given::Place { place: 3, generation: 1, until_ms: 101 });
    tell(&mut ledger, 1, PlaceFate::Returned);
    assert_eq!(ask(&mut ledger, 1, "q", 4), Given::Place { place: 4, generation: 1, until_ms: 101 });
    put(&mut ledger, "q", u64::MAX);
    assert!(matches!(ask(&mut ledger, 1, "q", 5), Given::PlaceOfMany { place: 5, .. }));
}

#[test]
fn a_place_that_is_returned_is_given_to_the_next() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 1);
    let first = place(ask(&mut ledger, 1, "q", 1));
    assert_eq!(ask(&mut ledger, 1, "q", 2), Given::Full { limit: 1 });
    tell(&mut ledger, first, PlaceFate::Returned);
    tell(&mut ledger, first, PlaceFate::Returned);
    assert!(matches!(ask(&mut ledger, 1, "q", 2), Given::Place { .. }));
}

/// In the original, what shards held was counted every five minutes, and whoever came in between was let in (fault 23).
#[test]
fn an_agent_is_counted_once_before_and_after_its_shard_reports_it() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 2);
    let first = place(ask(&mut ledger, 10, "q", 1));
    tell(&mut ledger, first, PlaceFate::Used { at_ms: 20 });
    assert_eq!(usage(&ledger, "q").unwrap().agents, 1);
    // The report was taken in the same millisecond: whether the agent is in it cannot be told.
    report(&mut ledger, 20, &[("q", 1, 1)]);
    assert_eq!(usage(&ledger, "q").unwrap().agents, 2);
    assert_eq!(ask(&mut ledger, 21, "q", 2), Given::MayBeFull { limit: 2 });
    report(&mut ledger, 22, &[("q", 1, 1)]);
    assert_eq!(usage(&ledger, "q").unwrap().agents, 1);
    assert!(matches!(ask(&mut ledger, 23, "q", 2), Given::Place { .. }));
    // A report that comes before the word that the place is used.
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 1);
    let first = place(ask(&mut ledger, 10, "q", 1));
    report(&mut ledger, 30, &[("q", 1, 1)]);
    tell(&mut ledger, first, PlaceFate::Used { at_ms: 20 });
    assert_eq!(usage(&ledger, "q").unwrap().agents, 1);
    assert_eq!(ask(&mut ledger, 31, "q", 2), Given::Full { limit: 1 });
}

/// What a dead client had taken is over once it cannot be used any longer, and not before.
#[test]
fn a_place_of_which_nothing_is_heard_is_over_when_its_shard_is_past_its_time() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 1);
    assert_eq!(ask(&mut ledger, 10, "q", 1), Given::Place { place: 1, generation: 1, until_ms: 110 });
    report(&mut ledger, 110, &[]);
    assert!(!matches!(ask(&mut ledger, 111, "q", 2), Given::Place { .. }));
    assert_eq!(ledger.query(LedgerQuery::Waiting), LedgerAnswer::Waiting(vec![0]));
    report(&mut ledger, 111, &[]);
    assert!(matches!(ask(&mut ledger, 112, "q", 2), Given::Place { .. }));
}

/// In the original, whoever had seen that there was no quota removed an agent that another client had activated after the
/// quota was made (fault 18).
#[test]
fn the_agents_of_a_quota_that_was_deleted_end_and_those_of_its_successor_do_not() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 5);
    report(&mut ledger, 10, &[("q", 1, 3)]);
    let delete = LedgerCommand::Delete { quota: name("q") };
    assert_eq!(ledger.command(&at(20), delete.clone()), LedgerReply::Done);
    assert_eq!(ledger.command(&at(20), delete), LedgerReply::NoSuchQuota);
    assert_eq!(ask(&mut ledger, 20, "q", 1), Given::NoSuchQuota);
    put(&mut ledger, "q", 2);
    assert_eq!(usage(&ledger, "q").unwrap().agents, 0);
    let counts = [("q", 1, 3), ("q", 2, 1), ("unheard-of", 7, 1)];
    assert_eq!(report(&mut ledger, 30, &counts), [(name("q"), 1)]);
    assert_eq!(usage(&ledger, "q").unwrap().agents, 1);
    // An agent that was on its way when the quota was deleted still ends.
    report(&mut ledger, 40, &[("q", 2, 1)]);
    assert_eq!(report(&mut ledger, 50, &[("q", 1, 1), ("q", 2, 1)]), [(name("q"), 1)]);
    report(&mut ledger, 21 + PASS_MAX_MS, &[("q", 2, 1)]);
    assert!(ledger.ended.is_empty());
}

#[test]
fn quotas_are_listed_in_order_page_after_page() {
    let mut ledger = Ledger::default();
    for quota in ["c", "a", "b"] {
        put(&mut ledger, quota, 1);
    }
    let list = |after: Option<&str>, max| ledger.query(LedgerQuery::List { after: after.map(name), max });
    assert_eq!(list(None, 2), LedgerAnswer::List(vec![name("a"), name("b")]));
    assert_eq!(list(Some("b"), 2), LedgerAnswer::List(vec![name("c")]));
}

#[test]
fn who_says_first_how_long_a_tick_is_decides_for_all() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.query(LedgerQuery::Agreed), LedgerAnswer::Agreed { tick_ms: None });
    for said in [500, 60_000, 500] {
        let agreed = ledger.command(&at(1), LedgerCommand::Agree { tick_ms: said });
        assert_eq!(agreed, LedgerReply::Agreed { tick_ms: 500 });
    }
    assert_eq!(ledger.query(LedgerQuery::Agreed), LedgerAnswer::Agreed { tick_ms: Some(500) });
}

/// Old logs and snapshots are read again.
#[test]
fn the_bytes_of_the_ledger_and_its_commands_never_change() {
    let bytes = |command: &LedgerCommand| postcard::to_stdvec(command).unwrap();
    let limit = QuotaLimit::Agents(300);
    assert_eq!(bytes(&LedgerCommand::Put { quota: name("q"), limit }), [0, 1, b'q', 0, 0xac, 2]);
    assert_eq!(bytes(&LedgerCommand::Delete { quota: name("q") }), [1, 1, b'q']);
    let asked = vec![Ask { quota: name("q"), hash: 7 }];
    let told = vec![
        Told { place: 8, fate: PlaceFate::Returned },
        Told { place: 9, fate: PlaceFate::Used { at_ms: 10 } },
    ];
    let command = LedgerCommand::Places { asked, told, pass_ms: 11 };
    assert_eq!(bytes(&command), [2, 1, 1, b'q', 7, 2, 8, 0, 9, 1, 10, 11]);
    let report = Report { first: 1, last: 2, at_ms: 3, counts: vec![(name("q"), 4, 5)] };
    assert_eq!(bytes(&LedgerCommand::Report(report)), [3, 1, 2, 3, 1, 1, b'q', 4, 5]);
    assert_eq!(bytes(&LedgerCommand::Agree { tick_ms: 300 }), [4, 0xac, 2]);
    assert_eq!(postcard::to_stdvec(&LedgerReply::Agreed { tick_ms: 300 }).unwrap(), [5, 0xac, 2]);
    assert_eq!(postcard::to_stdvec(&LedgerQuery::Agreed).unwrap(), [3]);
    assert_eq!(postcard::to_stdvec(&LedgerAnswer::Agreed { tick_ms: Some(300) }).unwrap(), [3, 1, 0xac, 2]);

    let counter = AgentTypeName::new("c").unwrap();
    let types = [(counter.clone(), Span { first: 2, forms: vec![300] })].into();
    let join = LedgerCommand::Join(Join { node: 6, revision: 7, listed: vec![6, 8], types });
    assert_eq!(bytes(&join), [5, 6, 7, 2, 6, 8, 1, 1, b'c', 2, 1, 0xac, 2]);
    let reply = |reply: LedgerReply| postcard::to_stdvec(&reply).unwrap();
    assert_eq!(reply(LedgerReply::Joined([(counter.clone(), 2)].into())), [6, 1, 1, b'c', 2]);
    let mismatch = BuildMismatch::Form { agent_type: "c".into(), version: 2 };
    assert_eq!(reply(LedgerReply::Mismatch(mismatch)), [7, 2, 1, b'c', 2]);
    assert_eq!(postcard::to_stdvec(&LedgerQuery::Versions).unwrap(), [4]);
    let versions = LedgerAnswer::Versions { agreed: [(counter, 2)].into(), nodes: vec![6] };
    assert_eq!(postcard::to_stdvec(&versions).unwrap(), [4, 1, 1, b'c', 2, 1, 6]);

    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 3);
    ledger.command(&at(1), join);
    ask(&mut ledger, 10, "q", 7);
    report_part(&mut ledger, 8, 9, 10, 1);
    ledger.command(&at(1), LedgerCommand::Agree { tick_ms: 300 });
    let stored = [
        &[0, 1, 1, b'q', 0, 3, 1][..],
        // One part, 8 to 9 at 10, with one agent of the first life of `q`.
        &[1, 8, 9, 10, 1, 1, b'q', 1, 1],
        // One place: hash 7, place 1, until 110, not used.
        &[1, 7, 1, 1, b'q', 1, 110, 0, 0],
        &[0, 1, 1],
        &[1, 0xac, 2],
        // One type, first and now agreed at version 2; one node, listed at revision 7.
        &[1, 1, b'c', 2, 2, 1, 6, 7, 1, 1, b'c', 2, 1, 0xac, 2],
    ];
    let bytes = postcard::to_stdvec(&ledger).unwrap();
    assert_eq!(bytes, stored.concat());
    let again: Ledger = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(usage(&again, "q"), Some(QuotaUsage { agents: 2, limit: QuotaLimit::Agents(3) }));
}

fn report_part(ledger: &mut Ledger, first: u64, last: u64, at_ms: u64, agents: u64) {
    let counts = if agents == 0 { vec![] } else { vec![(name("q"), 1, agents)] };
    ledger.command(&at(at_ms), LedgerCommand::Report(Report { first, last, at_ms, counts }));
}

/// What happens in the world.
#[derive(Clone, Debug)]
enum Event {
    /// Some time passes.
    Time(u64),
    /// A client asks for a place for an agent.
    Ask(u64),
    /// One of the held passes is used, and the ledger is told, or not.
    Use(usize, bool),
    /// One of them is returned.
    Return(usize),
    /// An agent ends.
    End(u64),
    /// A shard is counted; the report is on its way.
    Count(usize),
    /// A report arrives.
    Arrive(usize),
    /// The shards are divided in another way.
    Divide(u64),
}

const AGENTS: u64 = 12;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => (0_u64..60).prop_map(Event::Time),
        6 => (0..AGENTS).prop_map(Event::Ask),
        6 => (0_usize..8, any::<bool>()).prop_map(|(pass, told)| Event::Use(pass, told)),
        1 => (0_usize..8).prop_map(Event::Return),
        2 => (0..AGENTS).prop_map(Event::End),
        3 => (0_usize..3).prop_map(Event::Count),
        4 => (0_usize..4).prop_map(Event::Arrive),
        1 => (0..AGENTS).prop_map(Event::Divide),
    ];
    proptest::collection::vec(event, 0..120)
}

/// What is true, as nobody in it can know: which agents are active, and what is under way.
#[derive(Default)]
struct World {
    now_ms: u64,
    active: std::collections::BTreeSet<u64>,
    passes: Vec<(u64, u64, u64)>,
    reports: Vec<Report>,
    /// The first hash of the second and of the third shard; agents are their own hashes.
    borders: [u64; 2],
}

impl World {
    fn shards(&self) -> [(u64, u64); 3] {
        let [second, third] = self.borders;
        [(0, second - 1), (second, third - 1), (third, u64::MAX)]
    }

    fn count(&self, shard: usize) -> Report {
        let (first, last) = self.shards()[shard];
        let agents = self.active.range(first..=last).count() as u64;
        let counts = if agents == 0 { vec![] } else { vec![(name("q"), 1, agents)] };
        Report { first, last, at_ms: self.now_ms, counts }
    }
}

fn happen(world: &mut World, ledger: &mut Ledger, event: Event) {
    match event {
        Event::Time(ms) => world.now_ms += ms,
        Event::Ask(agent) => {
            if let Given::Place { place, until_ms, .. } = ask(ledger, world.now_ms, "q", agent) {
                world.passes.push((agent, place, until_ms));
            }
        }
        Event::Use(pass, told) if pass < world.passes.len() => {
            let (agent, place, until_ms) = world.passes.remove(pass);
            let fate = if world.now_ms <= until_ms && world.active.insert(agent) {
                PlaceFate::Used { at_ms: world.now_ms }
            } else {
                PlaceFate::Returned
            };
            if told {
                tell(ledger, place, fate);
            }
        }
        Event::Return(pass) if pass < world.passes.len() => {
            let (_, place, _) = world.passes.remove(pass);
            tell(ledger, place, PlaceFate::Returned);
        }
        Event::End(agent) => drop(world.active.remove(&agent)),
        Event::Count(shard) => world.reports.push(world.count(shard)),
        Event::Arrive(report) if report < world.reports.len() => {
            let report = world.reports.remove(report);
            ledger.command(&at(world.now_ms), LedgerCommand::Report(report));
        }
        Event::Divide(border) => {
            // A shard that moves has stamped time of its own, which goes on.
            world.now_ms += 1;
            world.borders = [1 + border / 2, 2 + border];
        }
        Event::Use(..) | Event::Return(_) | Event::Arrive(_) => {}
    }
}

proptest! {
    #[test]
    fn a_limit_is_never_passed_and_in_the_end_everything_is_counted_once(
        events in events(), limit in 0_u64..6,
    ) {
        let mut ledger = Ledger::default();
        put(&mut ledger, "q", limit);
        let mut world = World { now_ms: 1_000, borders: [4, 8], ..World::default() };
        for event in events {
            happen(&mut world, &mut ledger, event);
            let active = world.active.len() as u64;
            prop_assert!(active <= limit, "{} agents under a limit of {}", active, limit);
            prop_assert!(usage(&ledger, "q").unwrap().agents >= active.min(limit));
            let bytes = postcard::to_stdvec(&ledger).unwrap();
            ledger = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(postcard::to_stdvec(&ledger).unwrap(), bytes);
        }
        // Every pass runs out, and every shard is counted after that.
        world.now_ms += 1_000;
        for shard in 0..3 {
            let report = world.count(shard);
            ledger.command(&at(world.now_ms), LedgerCommand::Report(report));
        }
        prop_assert_eq!(usage(&ledger, "q").unwrap().agents, world.active.len() as u64);
        prop_assert_eq!(ledger.query(LedgerQuery::Waiting), LedgerAnswer::Waiting(vec![]));
    }
}
