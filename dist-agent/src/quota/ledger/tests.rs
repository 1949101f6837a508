//! The ledger by itself, and against a world in which agents come and go and messages are lost and late.

use proptest::prelude::*;

mod edges;

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

fn places(ledger: &mut Ledger, now_ms: u64, asked: Vec<Ask>, told: Vec<Told>) -> Vec<Given> {
    match ledger.command(&at(now_ms), LedgerCommand::Places { asked, told, pass_ms: 100 }) {
        LedgerReply::Places(given) => given,
        other => panic!("{other:?}"),
    }
}

fn ask_for(ledger: &mut Ledger, now_ms: u64, quota: &str, hashes: &[u64]) -> Given {
    let ask = Ask { quota: name(quota), hashes: hashes.to_vec(), lease: None };
    places(ledger, now_ms, vec![ask], vec![])[0]
}

fn ask(ledger: &mut Ledger, now_ms: u64, quota: &str, hash: u64) -> Given {
    ask_for(ledger, now_ms, quota, &[hash])
}

fn lease(ledger: &mut Ledger, now_ms: u64, hashes: &[u64], places_max: u32, share: u32) -> Given {
    let lease = Some(LeaseTerms { places_max, share });
    let ask = Ask { quota: name("q"), hashes: hashes.to_vec(), lease };
    places(ledger, now_ms, vec![ask], vec![])[0]
}

fn tell(ledger: &mut Ledger, place: u64, fate: PlaceFate) {
    places(ledger, 1, vec![], vec![Told { place, fate }]);
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
        Given::Places { first, places: 1, .. } => first,
        other => panic!("{other:?}"),
    }
}

/// All that may be used, whether it is or not.
fn reserved(ledger: &Ledger, quota: &str) -> u64 {
    ledger.reserved(&(name(quota), ledger.quotas[&name(quota)].generation))
}

/// No place, of a quota that is full or may be.
fn none(limit: u64, unsure: bool) -> impl Fn(Given) -> bool {
    move |given| match given {
        Given::Places { places, limit: of, unsure: said, .. } => (places, of, said) == (0, limit, unsure),
        _ => false,
    }
}

#[test]
fn a_quota_is_full_when_its_places_are_taken_and_not_before() {
    let mut ledger = Ledger::default();
    assert_eq!(ask(&mut ledger, 1, "q", 1), Given::NoSuchQuota);
    put(&mut ledger, "q", 2);
    put(&mut ledger, "none", 0);
    put(&mut ledger, "any", QuotaLimit::Unlimited);
    let (generation, until_ms) = (1, 101);
    let given = ask_for(&mut ledger, 1, "q", &[1, 2, 3]);
    assert_eq!(given, Given::Places { first: 1, places: 2, generation, until_ms, limit: 2, unsure: false });
    assert!(none(0, false)(ask(&mut ledger, 1, "none", 1)));
    assert_eq!(ask(&mut ledger, 1, "any", 1), Given::Unlimited { generation: 3, until_ms });
    assert_eq!(usage(&ledger, "q"), Some(QuotaUsage { agents: 2, limit: QuotaLimit::Agents(2) }));
    assert_eq!(usage(&ledger, "nothing"), None);
    put(&mut ledger, "q", 3);
    assert_eq!(place(ask(&mut ledger, 1, "q", 3)), 3);
}

#[test]
fn a_lease_is_a_share_of_what_is_left_and_serves_all_who_asked_or_there_is_none() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 100);
    let of = |lease, places| Given::Lease { lease, places, generation: 1, until_ms: 101 };
    assert_eq!(lease(&mut ledger, 1, &[1], 1_000, 4), of(1, 25));
    assert_eq!(lease(&mut ledger, 1, &[1], 10, 4), of(2, 10));
    assert_eq!(lease(&mut ledger, 1, &[1, 2], 1_000, 30), of(3, 2));
    // Three ask, and a share is two; one asks, and a share is one; no leases.
    assert!(matches!(
        lease(&mut ledger, 1, &[1, 2, 3], 1_000, 30),
        Given::Places { first: 4, places: 3, .. }
    ));
    assert!(matches!(lease(&mut ledger, 1, &[1], 1_000, 50), Given::Places { first: 7, places: 1, .. }));
    assert!(matches!(lease(&mut ledger, 1, &[1], 0, 1), Given::Places { first: 8, places: 1, .. }));
    assert!(matches!(lease(&mut ledger, 1, &[1], 1_000, 0), Given::Places { first: 9, places: 1, .. }));
    assert_eq!(reserved(&ledger, "q"), 25 + 10 + 2 + 3 + 3);
    // What is leased is taken, and counts as an agent when it is used.
    assert_eq!(usage(&ledger, "q").unwrap().agents, 6);
    tell(&mut ledger, 1, PlaceFate::UsedOf { number: 0, hash: 8, at_ms: 9 });
    assert_eq!(usage(&ledger, "q").unwrap().agents, 7);
    assert_eq!(reserved(&ledger, "q"), 43);
}

/// Whoever leased places may tell once more what it could not know to have arrived, and the first word may arrive last.
#[test]
fn what_is_told_of_a_lease_twice_or_late_counts_once() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 8);
    assert!(matches!(lease(&mut ledger, 1, &[1], 4, 1), Given::Lease { lease: 1, places: 4, .. }));
    for fate in [
        PlaceFate::UsedOf { number: 0, hash: 8, at_ms: 9 },
        PlaceFate::UsedOf { number: 0, hash: 8, at_ms: 9 },
        PlaceFate::ReturnedOf { number: 1, places: 2 },
        PlaceFate::ReturnedOf { number: 1, places: 2 },
        PlaceFate::UsedOf { number: 0, hash: 8, at_ms: 9 },
    ] {
        tell(&mut ledger, 1, fate);
    }
    // One is used, one is out still.
    assert_eq!((reserved(&ledger, "q"), usage(&ledger, "q").unwrap().agents), (2, 1));
    tell(&mut ledger, 1, PlaceFate::ReturnedOf { number: 2, places: 7 });
    tell(&mut ledger, 1, PlaceFate::ReturnedOf { number: 3, places: 7 });
    assert_eq!((reserved(&ledger, "q"), usage(&ledger, "q").unwrap().agents), (1, 1));
}

/// A quota whose last places are leased may be full or not: whoever holds them may not need them.
#[test]
fn a_quota_is_not_called_full_while_places_of_a_lease_may_come_back() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 4);
    assert!(matches!(lease(&mut ledger, 1, &[1], 4, 1), Given::Lease { places: 4, .. }));
    assert!(none(4, true)(ask(&mut ledger, 1, "q", 2)));
    tell(&mut ledger, 1, PlaceFate::ReturnedOf { number: 0, places: 1 });
    assert_eq!(place(ask(&mut ledger, 1, "q", 2)), 2);
    for number in 1..4 {
        tell(&mut ledger, 1, PlaceFate::UsedOf { number, hash: u64::from(number), at_ms: 9 });
    }
    assert!(none(4, false)(ask(&mut ledger, 1, "q", 5)));
}

/// The client that holds a lease dies. Some of its places were used, which only the shards know.
#[test]
fn a_lease_of_which_nothing_is_heard_is_over_when_every_shard_is_past_its_time() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 4);
    assert!(matches!(lease(&mut ledger, 10, &[1], 4, 1), Given::Lease { until_ms: 110, .. }));
    report_part(&mut ledger, 0, 99, 200, 1);
    assert!(none(4, true)(ask(&mut ledger, 201, "q", 2)));
    report_part(&mut ledger, 100, u64::MAX, 110, 0);
    assert!(none(4, true)(ask(&mut ledger, 201, "q", 2)));
    assert_eq!(ledger.query(LedgerQuery::Waiting), LedgerAnswer::Waiting((0..=u8::MAX).collect()));
    report_part(&mut ledger, 100, u64::MAX, 111, 1);
    assert_eq!((reserved(&ledger, "q"), usage(&ledger, "q").unwrap().agents), (2, 2));
    assert_eq!(ledger.query(LedgerQuery::Waiting), LedgerAnswer::Waiting(vec![]));
    // What is told after that was counted.
    tell(&mut ledger, 1, PlaceFate::UsedOf { number: 0, hash: 8, at_ms: 100 });
    assert_eq!(usage(&ledger, "q").unwrap().agents, 2);
}

#[test]
fn a_lease_of_a_quota_that_was_deleted_is_over() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 4);
    assert!(matches!(lease(&mut ledger, 10, &[1], 4, 1), Given::Lease { lease: 1, .. }));
    ledger.command(&at(20), LedgerCommand::Delete { quota: name("q") });
    tell(&mut ledger, 1, PlaceFate::UsedOf { number: 0, hash: 8, at_ms: 15 });
    put(&mut ledger, "q", 4);
    assert_eq!(reserved(&ledger, "q"), 0);
}

#[test]
fn a_place_that_is_returned_is_given_to_the_next() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 1);
    let first = place(ask(&mut ledger, 1, "q", 1));
    assert!(none(1, false)(ask(&mut ledger, 1, "q", 2)));
    tell(&mut ledger, first, PlaceFate::Returned);
    tell(&mut ledger, first, PlaceFate::Returned);
    assert_eq!(place(ask(&mut ledger, 1, "q", 2)), 2);
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
    assert!(matches!(
        ask_for(&mut ledger, 21, "q", &[2]),
        Given::Places { places: 0, limit: 2, unsure: true, .. }
    ));
    report(&mut ledger, 22, &[("q", 1, 1)]);
    assert_eq!(usage(&ledger, "q").unwrap().agents, 1);
    assert_eq!(place(ask(&mut ledger, 23, "q", 2)), 2);
    // A report that comes before the word that the place is used.
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 1);
    let first = place(ask(&mut ledger, 10, "q", 1));
    report(&mut ledger, 30, &[("q", 1, 1)]);
    tell(&mut ledger, first, PlaceFate::Used { at_ms: 20 });
    assert_eq!(usage(&ledger, "q").unwrap().agents, 1);
    assert!(none(1, false)(ask(&mut ledger, 31, "q", 2)));
}

/// What a dead client had taken is over once it cannot be used any longer, and not before.
#[test]
fn a_place_of_which_nothing_is_heard_is_over_when_its_shard_is_past_its_time() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 1);
    assert!(matches!(ask(&mut ledger, 10, "q", 1), Given::Places { first: 1, until_ms: 110, .. }));
    report(&mut ledger, 110, &[]);
    assert!(none(1, true)(ask(&mut ledger, 111, "q", 2)));
    assert_eq!(ledger.query(LedgerQuery::Waiting), LedgerAnswer::Waiting(vec![0]));
    report(&mut ledger, 111, &[]);
    assert_eq!(place(ask(&mut ledger, 112, "q", 2)), 2);
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
    let terms = Some(LeaseTerms { places_max: 300, share: 4 });
    let asked = vec![
        Ask { quota: name("q"), hashes: vec![7, 8], lease: None },
        Ask { quota: name("r"), hashes: vec![], lease: terms },
    ];
    let told = vec![
        Told { place: 8, fate: PlaceFate::Returned },
        Told { place: 9, fate: PlaceFate::Used { at_ms: 10 } },
        Told { place: 3, fate: PlaceFate::UsedOf { number: 4, hash: 5, at_ms: 6 } },
        Told { place: 3, fate: PlaceFate::ReturnedOf { number: 5, places: 300 } },
    ];
    let command = LedgerCommand::Places { asked, told, pass_ms: 11 };
    let asked = [2, 2, 1, b'q', 2, 7, 8, 0, 1, b'r', 0, 1, 0xac, 2, 4];
    let told = [4, 8, 0, 9, 1, 10, 3, 2, 4, 5, 6, 3, 3, 5, 0xac, 2];
    assert_eq!(bytes(&command), [&asked[..], &told, &[11]].concat());
    let report = Report { first: 1, last: 2, at_ms: 3, counts: vec![(name("q"), 4, 5)] };
    assert_eq!(bytes(&LedgerCommand::Report(report)), [3, 1, 2, 3, 1, 1, b'q', 4, 5]);
    assert_eq!(bytes(&LedgerCommand::Agree { tick_ms: 300 }), [4, 0xac, 2]);
    assert_eq!(postcard::to_stdvec(&LedgerReply::Agreed { tick_ms: 300 }).unwrap(), [5, 0xac, 2]);
    let given = |given: Given| postcard::to_stdvec(&given).unwrap();
    assert_eq!(given(Given::NoSuchQuota), [0]);
    assert_eq!(given(Given::Unlimited { generation: 1, until_ms: 2 }), [1, 1, 2]);
    let some = Given::Places { first: 1, places: 2, generation: 3, until_ms: 4, limit: 5, unsure: true };
    assert_eq!(given(some), [2, 1, 2, 3, 4, 5, 1]);
    assert_eq!(given(Given::Lease { lease: 1, places: 2, generation: 3, until_ms: 4 }), [3, 1, 2, 3, 4]);
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
    assert_eq!(
        bytes(&LedgerCommand::DeleteThis { quota: name("q"), generation: 300 }),
        [6, 1, b'q', 0xac, 2]
    );
    let unnamed = UnnamedReport { first: 1, last: 2, at_ms: 3, counts: vec![(4, 5)] };
    assert_eq!(bytes(&LedgerCommand::ReportUnnamed(unnamed)), [7, 1, 2, 3, 1, 4, 5]);
    assert_eq!(postcard::to_stdvec(&LedgerQuery::Generation { quota: name("q") }).unwrap(), [5, 1, b'q']);
    assert_eq!(postcard::to_stdvec(&LedgerAnswer::Generation(Some(300))).unwrap(), [5, 1, 0xac, 2]);
    let versions = LedgerAnswer::Versions { agreed: [(counter, 2)].into(), nodes: vec![6] };
    assert_eq!(postcard::to_stdvec(&versions).unwrap(), [4, 1, 1, b'c', 2, 1, 6]);

    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 3);
    ledger.command(&at(1), join);
    ask(&mut ledger, 10, "q", 7);
    put(&mut ledger, "q", 300);
    lease(&mut ledger, 10, &[7], 299, 1);
    tell(&mut ledger, 2, PlaceFate::UsedOf { number: 0, hash: 9, at_ms: 11 });
    tell(&mut ledger, 2, PlaceFate::ReturnedOf { number: 1, places: 1 });
    put(&mut ledger, "q", 3);
    report_part(&mut ledger, 8, 9, 10, 1);
    ledger.command(&at(1), LedgerCommand::Agree { tick_ms: 300 });
    let stored = [
        &[0, 1, 1, b'q', 0, 3, 1][..],
        // One part, 8 to 9 at 10, with one agent of the first life of `q`.
        &[1, 8, 9, 10, 1, 1, b'q', 1, 1],
        // One place: hash 7, place 1, of the first life of any quota, until 110, not used.
        &[1, 7, 1, 1, 110, 0, 0],
        // One that was used: hash 9, of the same, at 11, not counted.
        &[1, 9, 1, 11, 0],
        // One lease, 2, of the same, 297 places, of which two things were told, until 110.
        &[1, 2, 1, 0xa9, 2, 2, 110],
        // No quota that has ended; one generation, two places.
        &[0, 1, 2],
        &[1, 0xac, 2],
        // One type, first and now agreed at version 2; one node, listed at revision 7.
        &[1, 1, b'c', 2, 2, 1, 6, 7, 1, 1, b'c', 2, 1, 0xac, 2],
    ];
    let bytes = postcard::to_stdvec(&ledger).unwrap();
    assert_eq!(bytes, stored.concat());
    let again: Ledger = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(usage(&again, "q"), Some(QuotaUsage { agents: 3, limit: QuotaLimit::Agents(3) }));
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
    /// Some places are leased.
    Lease(u32),
    /// One of a lease is used for an agent, and the ledger is told, or the word is lost.
    UseLeased(usize, u64, bool),
    /// What is not used of a lease is returned.
    Close(usize),
    /// Word of leases arrives, some of it, and perhaps not for the last time.
    Hear(usize, bool),
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
        1 => (0_u32..5).prop_map(Event::Lease),
        5 => (0_usize..3, 0..AGENTS, any::<bool>()).prop_map(|(of, agent, told)| Event::UseLeased(of, agent, told)),
        1 => (0_usize..3).prop_map(Event::Close),
        3 => (0_usize..4, any::<bool>()).prop_map(|(words, again)| Event::Hear(words, again)),
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
    leases: Vec<HeldLease>,
    /// Word of leases on its way, in the order in which it was said.
    words: Vec<Told>,
    reports: Vec<Report>,
    /// The first hash of the second and of the third shard; agents are their own hashes.
    borders: [u64; 2],
}

/// A lease of somebody who may give its places to agents.
struct HeldLease {
    lease: u64,
    left: u32,
    number: u32,
    until_ms: u64,
}

impl HeldLease {
    fn number(&mut self) -> u32 {
        self.number += 1;
        self.number - 1
    }
}

impl World {
    fn lease(&mut self, given: Given) {
        if let Given::Lease { lease, places, until_ms, .. } = given {
            self.leases.push(HeldLease { lease, left: places, number: 0, until_ms });
        }
    }

    fn use_leased(&mut self, of: usize, agent: u64, told: bool) {
        let Some(of) = self.leases.get_mut(of) else { return };
        if of.left > 0 && self.now_ms <= of.until_ms && self.active.insert(agent) {
            of.left -= 1;
            let fate = PlaceFate::UsedOf { number: of.number(), hash: agent, at_ms: self.now_ms };
            if told {
                self.words.push(Told { place: of.lease, fate });
            }
        }
    }

    fn close(&mut self, of: usize) {
        if of < self.leases.len() {
            let mut of = self.leases.remove(of);
            let fate = PlaceFate::ReturnedOf { number: of.number(), places: of.left };
            self.words.push(Told { place: of.lease, fate });
        }
    }

    /// What of the words on their way arrives; they may be said again from the first of them on.
    fn hear(&mut self, words: usize, again: bool) -> Vec<Told> {
        let heard = self.words[..words.min(self.words.len())].to_vec();
        if !again {
            self.words.drain(..heard.len());
        }
        heard
    }

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
            if let Given::Places { first, places: 1, until_ms, .. } = ask(ledger, world.now_ms, "q", agent) {
                world.passes.push((agent, first, until_ms));
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
        Event::Lease(places_max) => world.lease(lease(ledger, world.now_ms, &[0], places_max, 1)),
        Event::UseLeased(of, agent, told) => world.use_leased(of, agent, told),
        Event::Close(of) => world.close(of),
        Event::Hear(words, again) => {
            let told = world.hear(words, again);
            places(ledger, world.now_ms, vec![], told);
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
            prop_assert!(reserved(&ledger, "q") >= active, "{} agents are {:?}", active, reserved(&ledger, "q"));
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
