//! The ledger of quotas: what it is told and asked, and its bytes in a snapshot.

use raft_kv::rafted_value::{CommandContext, Data, encode};

use super::whole;
use crate::agent_id::{AgentTypeName, QuotaName};
use crate::quota::{
    Ask, Join, LeaseTerms, Ledger, LedgerAnswer, LedgerCommand, LedgerQuery, LedgerReply, PlaceFate,
    QuotaLimit, Report, Span, Told, UnnamedReport,
};

fn at(now_ms: u64) -> CommandContext {
    CommandContext { now_ms, index: 1, seed: 1 }
}

pub(super) fn name(name: &str) -> QuotaName {
    QuotaName::new(name).expect("a name")
}

/// One of each thing that a ledger is told, in an order in which each has something to do.
pub(super) fn commands() -> Vec<(&'static str, LedgerCommand)> {
    let put = |quota, limit| LedgerCommand::Put { quota: name(quota), limit };
    let places = |asked, told| LedgerCommand::Places { asked, told, pass_ms: 100 };
    let ask = |quota, hashes: &[u64], lease| Ask { quota: name(quota), hashes: hashes.to_vec(), lease };
    let told = |place, fate| vec![Told { place, fate }];
    let terms = Some(LeaseTerms { places_max: 5, share: 2 });
    let report = |first, last, at_ms, counts| LedgerCommand::Report(Report { first, last, at_ms, counts });
    let unnamed =
        UnnamedReport { first: 0, last: u64::MAX, at_ms: 210, counts: vec![(1, 2), (2, 1), (7, 1)] };
    let types = [(AgentTypeName::new("c").expect("a name"), Span { first: 0, forms: vec![3, 4] })].into();
    vec![
        ("put", put("q", QuotaLimit::Agents(20))),
        ("put_unlimited", put("any", QuotaLimit::Unlimited)),
        ("put_gone", put("gone", QuotaLimit::Agents(3))),
        ("agree", LedgerCommand::Agree { tick_ms: 300 }),
        ("join", LedgerCommand::Join(Join { node: 6, revision: 7, listed: vec![6, 8], types })),
        (
            "ask",
            places(vec![ask("q", &[7, 8], None), ask("gone", &[9], None), ask("any", &[9], None)], vec![]),
        ),
        ("lease", places(vec![ask("q", &[5], terms)], vec![])),
        ("report_low", report(0, 99, 10, vec![(name("q"), 1, 2), (name("gone"), 3, 1)])),
        ("report_high", report(100, u64::MAX, 10, vec![(name("q"), 1, 1)])),
        ("returned", places(vec![], told(1, PlaceFate::Returned))),
        ("used", places(vec![], told(2, PlaceFate::Used { at_ms: 10 }))),
        ("used_of", places(vec![], told(4, PlaceFate::UsedOf { number: 0, hash: 9, at_ms: 11 }))),
        ("returned_of", places(vec![], told(4, PlaceFate::ReturnedOf { number: 1, places: 2 }))),
        ("delete", LedgerCommand::Delete { quota: name("gone") }),
        ("report_split", report(50, 99, 12, vec![(name("q"), 1, 1), (name("gone"), 3, 1)])),
        ("report_all", report(0, u64::MAX, 200, vec![(name("q"), 1, 3)])),
        ("delete_this", LedgerCommand::DeleteThis { quota: name("any"), generation: 2 }),
        ("report_unnamed", LedgerCommand::ReportUnnamed(unnamed)),
        ("put_free", put("free", QuotaLimit::Unlimited)),
        ("put_limited", put("free", QuotaLimit::Agents(4))),
    ]
}

/// One of each thing that it is asked.
pub(super) fn queries() -> [(&'static str, LedgerQuery); 6] {
    [
        ("list", LedgerQuery::List { after: Some(name("any")), max: 7 }),
        ("usage", LedgerQuery::Usage { quota: name("q") }),
        ("waiting", LedgerQuery::Waiting),
        ("agreed", LedgerQuery::Agreed),
        ("versions", LedgerQuery::Versions),
        ("generation", LedgerQuery::Generation { quota: name("q") }),
    ]
}

/// A ledger that was told so many of these.
pub(super) fn told_some(count: usize) -> Ledger {
    let mut ledger = Ledger::default();
    for (_, command) in commands().into_iter().take(count) {
        ledger.command(&at(5), command);
    }
    ledger
}

fn answers(ledger: &Ledger) -> Vec<LedgerAnswer> {
    queries().into_iter().map(|(_, query)| ledger.query(query)).collect()
}

/// What a ledger has summed up on its way is what one sums up that comes from its bytes.
fn comes_back(ledger: &Ledger) {
    let bytes = encode(ledger);
    let again: Ledger = postcard::from_bytes(&bytes).expect("it was just written");
    assert_eq!(encode(&again), bytes);
    assert_eq!(answers(&again), answers(ledger));
}

/// What a ledger is told and asked, behind a byte for how much it was told before.
pub fn ledger(bytes: &[u8]) {
    let Some((before, bytes)) = bytes.split_first() else { return };
    let mut ledger = told_some(usize::from(*before) % (commands().len() + 1));
    if let Some(command) = whole::<LedgerCommand>(bytes) {
        for now_ms in [20, 250] {
            let reply: LedgerReply = ledger.command(&at(now_ms), command.clone());
            whole::<LedgerReply>(&encode(&reply)).expect("it was just written");
            comes_back(&ledger);
        }
    }
    if let Some(query) = whole::<LedgerQuery>(bytes) {
        whole::<LedgerAnswer>(&encode(&ledger.query(query))).expect("it was just written");
    }
}

/// A ledger in bytes: what comes back is written down as what comes back again, and goes on.
pub fn stored(bytes: &[u8]) {
    let Ok(ledger) = postcard::from_bytes::<Ledger>(bytes) else { return };
    let written = encode(&ledger);
    let mut again: Ledger = postcard::from_bytes(&written).expect("it was just written");
    assert_eq!(encode(&again), written);
    for (_, command) in commands() {
        again.command(&at(30), command);
        answers(&again);
    }
    let written = encode(&again);
    let again: Ledger = postcard::from_bytes(&written).expect("it was just written");
    assert_eq!(encode(&again), written);
}
