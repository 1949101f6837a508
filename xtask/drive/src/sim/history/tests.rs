//! The checker accepts what is linearizable and finds each planted violation.

use std::collections::BTreeMap;

use super::{Key, Operation, Outcome, Record, Request, Version, append_hash, check};

const KEY: Key = (1, 0);

fn version(list: &[u32]) -> Version {
    Version {
        length: list.len() as u32,
        hash: list.iter().fold(0, |hash, number| append_hash(hash, *number)),
    }
}

fn done(list: &[u32]) -> Outcome {
    Outcome::Done { version: version(list), appended: true }
}

fn saw(list: &[u32]) -> Outcome {
    Outcome::Done { version: version(list), appended: false }
}

fn operation(number: u32, request: Request, times: (u64, u64), outcome: Outcome) -> Operation {
    Operation { key: KEY, number, request, invoked: times.0, returned: Some(times.1), outcome }
}

fn verdict(operations: &[Operation], list: &[u32]) -> String {
    check(operations, &BTreeMap::from([(KEY, list.to_vec())])).join("; ")
}

/// Two appends one after the other, and a read of both.
fn plain() -> Vec<Operation> {
    vec![
        operation(10, Request::Append, (1, 2), done(&[10])),
        operation(11, Request::Append, (3, 4), done(&[10, 11])),
        operation(12, Request::Read, (5, 6), saw(&[10, 11])),
    ]
}

#[test]
fn a_plain_history_is_linearizable() {
    assert_eq!(verdict(&plain(), &[10, 11]), "");
    assert_eq!(verdict(&[], &[]), "");
}

#[test]
fn concurrent_operations_may_come_in_any_order() {
    let operations = [
        operation(1, Request::Append, (1, 10), done(&[2, 1])),
        operation(2, Request::Append, (2, 9), done(&[2])),
        operation(3, Request::Read, (3, 8), saw(&[])),
        operation(4, Request::Read, (4, 7), saw(&[2, 1])),
    ];
    assert_eq!(verdict(&operations, &[2, 1]), "");
}

#[test]
fn an_operation_that_nobody_heard_of_may_run_late_or_never() {
    let mut operations = plain();
    operations.push(Operation { returned: None, ..operation(20, Request::Append, (1, 0), Outcome::Perhaps) });
    assert_eq!(verdict(&operations, &[10, 11]), "");
    assert_eq!(verdict(&operations, &[10, 11, 20]), "");
    operations.push(operation(21, Request::Append, (1, 2), Outcome::Perhaps));
    assert_eq!(verdict(&operations, &[10, 11, 20, 21]), "");
}

#[test]
fn a_lost_append_is_found() {
    assert!(verdict(&plain()[..1], &[]).contains("no prefix"));
    let mut operations = plain();
    operations.truncate(2);
    assert!(verdict(&operations, &[10]).contains("no prefix"));
    let lost = [
        operation(10, Request::Append, (1, 2), done(&[11])),
        operation(11, Request::Append, (1, 3), done(&[11])),
    ];
    assert!(verdict(&lost, &[11]).contains("acknowledged and lost"));
}

#[test]
fn a_doubled_append_is_found() {
    assert!(verdict(&plain()[..1], &[10, 10]).contains("applied twice"));
}

#[test]
fn an_element_from_nowhere_is_found() {
    assert!(verdict(&plain(), &[10, 11, 99]).contains("nobody appended 99"));
    let elsewhere = Operation { key: (2, 0), ..operation(7, Request::Append, (1, 2), Outcome::Perhaps) };
    assert!(verdict(&[elsewhere], &[7]).contains("nobody appended 7"));
}

#[test]
fn a_stale_read_is_found() {
    let mut operations = plain();
    operations.push(operation(13, Request::Read, (7, 8), saw(&[10])));
    assert!(verdict(&operations, &[10, 11]).contains("comes after"));
    let allowed = Operation { request: Request::ReadStale, ..operations[3] };
    operations[3] = allowed;
    assert_eq!(verdict(&operations, &[10, 11]), "");
}

#[test]
fn a_read_that_another_read_overtook_is_found() {
    let operations = [
        operation(1, Request::Append, (1, 20), done(&[1])),
        operation(2, Request::Read, (2, 3), saw(&[1])),
        operation(3, Request::Read, (4, 5), saw(&[])),
    ];
    assert!(verdict(&operations, &[1]).contains("comes after"));
}

#[test]
fn a_read_of_what_never_was_is_found() {
    let mut operations = plain();
    operations[2].outcome = saw(&[11]);
    assert!(verdict(&operations, &[10, 11]).contains("no prefix"));
    operations[2].request = Request::ReadStale;
    assert!(verdict(&operations, &[10, 11]).contains("no prefix"));
}

#[test]
fn a_reordering_is_found() {
    let operations = [
        operation(10, Request::Append, (1, 2), done(&[11, 10])),
        operation(11, Request::Append, (3, 4), done(&[11])),
    ];
    assert!(verdict(&operations, &[11, 10]).contains("comes after"));
    assert!(verdict(&plain(), &[11, 10]).contains("no prefix"));
}

#[test]
fn an_append_that_comes_before_its_beginning_is_found() {
    let late = Operation { returned: None, ..operation(30, Request::Append, (9, 0), Outcome::Perhaps) };
    let mut operations = vec![late, operation(10, Request::Append, (1, 2), done(&[30, 10]))];
    assert!(verdict(&operations, &[30, 10]).contains("comes after"));
    operations[0].invoked = 1;
    assert_eq!(verdict(&operations, &[30, 10]), "");
}

#[test]
fn what_was_told_never_to_run_and_did_is_found() {
    let mut operations = plain();
    operations.push(operation(14, Request::Append, (7, 8), Outcome::Never));
    assert_eq!(verdict(&operations, &[10, 11]), "");
    assert!(verdict(&operations, &[10, 11, 14]).contains("told never"));
}

#[test]
fn a_trace_of_a_panic_is_found() {
    let panics = [operation(5, Request::AppendAndPanic, (1, 2), Outcome::Perhaps)];
    assert_eq!(verdict(&panics, &[]), "");
    assert!(verdict(&panics, &[5]).contains("left a trace"));
    let told = [operation(5, Request::AppendAndPanic, (1, 2), saw(&[]))];
    assert!(verdict(&told, &[]).contains("was told that it ran"));
}

#[test]
fn a_conditional_append_that_ignores_its_condition_is_found() {
    let conditional =
        |number, length, times, outcome| operation(number, Request::AppendIf { length }, times, outcome);
    let mut operations = plain();
    operations.push(conditional(15, 2, (7, 8), done(&[10, 11, 15])));
    operations.push(conditional(16, 2, (9, 10), saw(&[10, 11, 15])));
    assert_eq!(verdict(&operations, &[10, 11, 15]), "");
    operations[3].request = Request::AppendIf { length: 1 };
    assert!(verdict(&operations, &[10, 11, 15]).contains("another length"));
    operations[3].request = Request::AppendIf { length: 2 };
    operations[4].request = Request::AppendIf { length: 3 };
    assert!(verdict(&operations, &[10, 11, 15]).contains("although its condition held"));
    operations[4].outcome = done(&[10, 11, 15]);
    assert!(verdict(&operations, &[10, 11, 15]).contains("acknowledged and lost"));
}

#[test]
fn the_record_orders_beginnings_and_ends() {
    let record = Record::default();
    let first = record.begin(KEY, Request::Append);
    let second = record.begin(KEY, Request::Read);
    record.end(first, done(&[first]));
    let operations = record.operations();
    assert_eq!((first, second), (0, 1));
    assert!(operations[0].invoked < operations[1].invoked);
    assert!(operations[0].returned > Some(operations[1].invoked));
    assert_eq!(operations[1].returned, None);
}
