//! What holds of a call.

use bytes::Bytes;
use rafted_value::env::Env;
use rafted_value::sim::NetConfig;
use rafted_value::transport::{CallError, Lane, ServiceId};

use crate::pair::*;

#[test]
fn calls_are_answered() {
    let pair = pair(1);
    let (reply, took) = pair.call(b"hello", LIMIT);
    assert_eq!(reply, Ok(Bytes::from_static(b"hello")));
    assert!(took < ms(5), "{took:?}");
    assert!(pair.a.transport().is_connected(pair.b.node()));
    assert!(pair.b.transport().is_connected(pair.a.node()));
}

#[test]
fn a_dropped_reply_ends_the_call_at_once() {
    let pair = pair(1);
    let (reply, took) = pair.call(b"drop", LIMIT);
    assert_eq!(reply, Err(CallError::Lost { node: pair.b.node() }));
    assert!(took < ms(5), "{took:?}");
}

#[test]
fn a_call_without_a_reply_times_out_on_the_callers_clock() {
    let pair = pair(1);
    let (reply, took) = pair.call(b"keep", ms(250));
    assert_eq!(reply, Err(CallError::Timeout { limit_ms: 250 }));
    assert_eq!(took, ms(250));
    pair.at_b.kept.lock().pop().expect("it was kept").send(Bytes::new());
    pair.sim.run_for(ms(10));
}

#[test]
fn a_call_to_an_unknown_service_is_surely_not_handled() {
    let pair = pair(1);
    let call = pair.a.transport().call(pair.b.node(), Lane::Normal, ServiceId(9), Bytes::new(), LIMIT);
    let error = pair.sim.run_until(LIMIT, call).expect("it ends").expect_err("nobody is there");
    assert_eq!(error, CallError::NoService { node: pair.b.node(), service: ServiceId(9) });
}

#[test]
fn a_call_that_never_found_a_connection_was_surely_not_handled() {
    let pair = pair(1);
    pair.sim.partition(&[&pair.a], &[&pair.b]);
    let (result, took) = pair.call(b"early", ms(300));
    assert!(result.as_ref().is_err_and(CallError::surely_not_handled), "{result:?}");
    assert_eq!(took, ms(300));
    pair.sim.heal();
    pair.sim.run_for(ms(2_000));
    let (result, _) = pair.call(b"late", ms(300));
    assert_eq!(result, Ok("late".into()));
}

/// Whoever was refused is told that the request never ran, so that it must not run when its handler has changed its mind.
#[test]
fn a_request_is_handled_once_also_where_messages_arrive_twice() {
    let pair = pair_with(1, NetConfig { duplication: 0.5, ..NetConfig::default() });
    for _ in 0..100 {
        assert_eq!(pair.call(b"keep", ms(5)).0, Err(CallError::Timeout { limit_ms: 5 }));
    }
    pair.sim.run_for(ms(200));
    assert_eq!(pair.at_b.kept.lock().len(), 100);
}
