//! What has no end, and bytes that no ledger wrote.

use super::*;

/// Each quota that is deleted is remembered for a quarter of an hour, in every snapshot; without an end, whoever makes and
/// deletes quotas filled the memory of every member.
#[test]
fn there_is_an_end_to_the_quotas_that_were_deleted_and_may_have_agents() {
    let mut ledger = Ledger::default();
    let make = |ledger: &mut Ledger, n: usize| {
        let command = LedgerCommand::Put { quota: name(&n.to_string()), limit: QuotaLimit::Unlimited };
        ledger.command(&at(1), command)
    };
    for n in 0..QUOTAS_MAX {
        assert_eq!(make(&mut ledger, n), LedgerReply::Done);
        ledger.command(&at(1), LedgerCommand::Delete { quota: name(&n.to_string()) });
    }
    let refused = LedgerReply::TooManyQuotas { limit: QUOTAS_MAX as u64 };
    assert_eq!(make(&mut ledger, 7), refused);
    // When no agent can come to be in any of them any more, all of them are forgotten.
    report(&mut ledger, 2 + PASS_MAX_MS, &[]);
    assert!(ledger.ended.is_empty());
    assert_eq!(make(&mut ledger, 7), LedgerReply::Done);
}

/// A deletion whose reply did not come was repeated; an attempt of the first, which arrived once the name was given anew,
/// deleted the quota that had it by then and ended its agents.
#[test]
fn a_quota_that_got_the_name_of_one_that_is_deleted_stays() {
    let mut ledger = Ledger::default();
    let generation = |ledger: &Ledger| match ledger.query(LedgerQuery::Generation { quota: name("q") }) {
        LedgerAnswer::Generation(generation) => generation,
        other => panic!("{other:?}"),
    };
    let delete = |generation| LedgerCommand::DeleteThis { quota: name("q"), generation };
    assert_eq!(generation(&ledger), None);
    put(&mut ledger, "q", 5);
    assert_eq!(generation(&ledger), Some(1));
    assert_eq!(ledger.command(&at(10), delete(1)), LedgerReply::Done);
    put(&mut ledger, "q", 7);
    assert_eq!(ledger.command(&at(20), delete(1)), LedgerReply::NoSuchQuota);
    assert_eq!(generation(&ledger), Some(2));
    // What its agents are counted under is alive too.
    assert_eq!(report(&mut ledger, 30, &[("q", 1, 1), ("q", 2, 1)]), [(name("q"), 1)]);
    assert_eq!(usage(&ledger, "q"), Some(QuotaUsage { agents: 1, limit: QuotaLimit::Agents(7) }));
}

/// Of one and the same shard the ledger is told in either way.
#[test]
fn a_report_without_names_says_what_one_with_names_says() {
    let mut ledger = Ledger::default();
    for quota in ["a", "b", "c"] {
        put(&mut ledger, quota, 5);
    }
    ledger.command(&at(10), LedgerCommand::Delete { quota: name("b") });
    put(&mut ledger, "b", 5);
    let named = vec![(name("a"), 1, 1), (name("b"), 2, 2), (name("b"), 4, 3), (name("c"), 3, u64::MAX)];
    let mut counts: Vec<_> = named.iter().map(|(_, life, count)| (*life, *count)).collect();
    // One that is counted twice, and one that was forgotten.
    counts.extend([(3, 1), (77, 1)]);
    let mut other = ledger.clone();
    let (first, last, at_ms) = (5, 90, 20);
    let command = LedgerCommand::Report(Report { first, last, at_ms, counts: named });
    let told = other.command(&at(30), command);
    let command = LedgerCommand::ReportUnnamed(UnnamedReport { first, last, at_ms, counts });
    assert_eq!(ledger.command(&at(30), command), told);
    assert_eq!(told, LedgerReply::Ended(vec![(name("b"), 2)]));
    assert_eq!(postcard::to_stdvec(&ledger).unwrap(), postcard::to_stdvec(&other).unwrap());
}

/// A reply that names all of a hundred thousand would be too large to be sent.
#[test]
fn a_report_is_told_of_some_of_the_quotas_that_ended_and_the_next_of_others() {
    let mut ledger = Ledger::default();
    let counts: Vec<_> = (0..ENDED_MAX as u64 + 5).map(|n| (name(&n.to_string()), n + 1, 1)).collect();
    for (quota, _, _) in &counts {
        let put = LedgerCommand::Put { quota: quota.clone(), limit: QuotaLimit::Unlimited };
        assert_eq!(ledger.command(&at(1), put), LedgerReply::Done);
        assert_eq!(ledger.command(&at(1), LedgerCommand::Delete { quota: quota.clone() }), LedgerReply::Done);
    }
    let mut tell = |at_ms: u64, counts: &[(QuotaName, u64, u64)]| {
        let report = Report { first: 0, last: u64::MAX, at_ms, counts: counts.to_vec() };
        match ledger.command(&at(at_ms), LedgerCommand::Report(report)) {
            LedgerReply::Ended(ended) => ended.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(tell(5, &counts), ENDED_MAX);
    assert_eq!(tell(6, &counts[ENDED_MAX..]), 5);
}

/// A lease without a place once ended the ledger when something was told of it.
#[test]
fn a_lease_of_nothing_is_over() {
    let mut places = Places::default();
    places.lease(3, 1, 0, 100);
    places.give_back_of((3, 0), 1);
    places.all_reported(101);
    assert_eq!((places.leases(), places.sum(1).places), (0, 0));
}
