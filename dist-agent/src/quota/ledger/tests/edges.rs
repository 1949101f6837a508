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

/// No place is taken of an unlimited quota: its agents are known by reports alone. The ledger once counted too few of them, right
/// after it got a limit, and gave places that there were not.
#[test]
fn a_quota_that_had_no_limit_has_no_place_before_all_of_its_agents_are_counted() {
    let limited = |agents: [u64; 2]| {
        let mut ledger = Ledger::default();
        put(&mut ledger, "q", QuotaLimit::Unlimited);
        report_part(&mut ledger, 0, 99, 900, 1);
        report_part(&mut ledger, 100, u64::MAX, 900, 1);
        let limit = LedgerCommand::Put { quota: name("q"), limit: QuotaLimit::Agents(10) };
        assert_eq!(ledger.command(&at(1_000), limit), LedgerReply::Done);
        let over_ms = 1_000 + UNLIMITED_MS;
        for (at_ms, [low, high]) in [(1_001, [1, 1]), (over_ms, [5, 1])] {
            assert!(none(10, true)(ask(&mut ledger, at_ms, "q", 1)));
            assert!(none(10, true)(lease(&mut ledger, at_ms, &[1], 4, 1)));
            let bytes = postcard::to_stdvec(&ledger).unwrap();
            ledger = postcard::from_bytes(&bytes).unwrap();
            report_part(&mut ledger, 0, 99, at_ms, low);
            report_part(&mut ledger, 100, u64::MAX, at_ms, high);
        }
        assert_eq!(ledger.query(LedgerQuery::Waiting), LedgerAnswer::Waiting((0..=u8::MAX).collect()));
        report_part(&mut ledger, 0, 99, over_ms + 1, agents[0]);
        assert!(none(10, agents[0] < 9)(ask(&mut ledger, over_ms + 2, "q", 1)));
        report_part(&mut ledger, 100, u64::MAX, over_ms + 1, agents[1]);
        assert_eq!(ledger.query(LedgerQuery::Waiting), LedgerAnswer::Waiting(vec![]));
        ask(&mut ledger, over_ms + 3, "q", 1)
    };
    assert!(none(10, false)(limited([9, 900])));
    assert_eq!(place(limited([5, 4])), 1);
}

/// One whose limit only changes counts its places all along, and one that has a limit no longer waits for nothing.
#[test]
fn only_a_quota_that_had_no_limit_waits_for_the_count_of_its_agents() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", 3);
    put(&mut ledger, "q", 4);
    assert_eq!(place(ask(&mut ledger, 1, "q", 1)), 1);
    put(&mut ledger, "q", QuotaLimit::Unlimited);
    put(&mut ledger, "q", 4);
    assert!(none(4, true)(ask(&mut ledger, 1, "q", 1)));
    put(&mut ledger, "q", 5);
    assert!(none(5, true)(ask(&mut ledger, 1, "q", 1)));
    put(&mut ledger, "q", QuotaLimit::Unlimited);
    assert!(matches!(ask(&mut ledger, 1, "q", 1), Given::Unlimited { .. }));
    assert!(ledger.limited.is_empty());
    put(&mut ledger, "q", 4);
    ledger.command(&at(1), LedgerCommand::Delete { quota: name("q") });
    assert!(ledger.limited.is_empty());
}

/// Old snapshots are read again.
#[test]
fn the_bytes_of_a_ledger_of_quotas_that_just_got_a_limit_never_change() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "q", QuotaLimit::Unlimited);
    put(&mut ledger, "q", 3);
    let first_form = [1, 1, b'q', 0, 3, 1, 0, 0, 0, 0, 0, 1, 0, 0];
    let bytes = postcard::to_stdvec(&ledger).unwrap();
    let limited = [1, 1, 0xd1, 0xf];
    assert_eq!(bytes[..1 + first_form.len()], [&[1][..], &first_form].concat());
    assert!(bytes.ends_with(&limited), "{bytes:?}");
    let again: Ledger = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(again.limited, ledger.limited);
    ledger.limited.clear();
    let older = postcard::to_stdvec(&ledger).unwrap();
    assert_eq!([&[1], &older[1..], &limited].concat(), bytes);
    assert_eq!(older[0], 0);
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

/// Every shard was once reported every second for a quarter of an hour after a quota was deleted, whether it had had agents or
/// not, which was an entry in the log of each.
#[test]
fn a_quota_that_was_deleted_waits_for_reports_only_while_it_has_agents() {
    let mut ledger = Ledger::default();
    let waiting = |ledger: &Ledger| match ledger.query(LedgerQuery::Waiting) {
        LedgerAnswer::Waiting(parts) => parts.len(),
        other => panic!("{other:?}"),
    };
    for quota in ["empty", "some"] {
        put(&mut ledger, quota, 5);
    }
    report(&mut ledger, 10, &[("some", 2, 3)]);
    ledger.command(&at(20), LedgerCommand::Delete { quota: name("empty") });
    assert_eq!(waiting(&ledger), 0);
    ledger.command(&at(20), LedgerCommand::Delete { quota: name("some") });
    assert_eq!(waiting(&ledger), 256);
    report(&mut ledger, 30, &[]);
    assert_eq!(waiting(&ledger), 0);
    // One that was on its way is reported as what has changed, ends, and is waited for until it has.
    assert_eq!(report(&mut ledger, 40, &[("empty", 1, 1)]), [(name("empty"), 1)]);
    assert_eq!(waiting(&ledger), 256);
    report(&mut ledger, 50, &[]);
    assert_eq!((waiting(&ledger), ledger.ended.len()), (0, 2));
    report(&mut ledger, 21 + PASS_MAX_MS, &[]);
    assert_eq!((waiting(&ledger), ledger.ended.len()), (0, 0));
}
