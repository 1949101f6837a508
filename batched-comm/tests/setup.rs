//! Certificates and configs, good and bad.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use batched_comm::{
    AuthorityError, BindError, CallError, CertificateAuthority, Endpoint, EndpointConfig, Identity,
    IdentityError, Lane, NodeId,
};
use bytes::Bytes;
use support::{ECHO, LONG, authority, config, node, node_with};

#[tokio::test]
async fn a_port_in_use_is_named() {
    let a = node(1).await;
    let mut config = config(2);
    config.listen = a.endpoint.local_addr();
    let error = Endpoint::bind(config).await.unwrap_err();
    assert!(matches!(error, BindError::Listen { .. }), "{error:?}");
    assert!(error.to_string().contains(a.endpoint.advertised()), "{error}");
}

/// A runtime without IO or time ended the caller by a panic out of tokio.
#[test]
fn a_runtime_without_io_or_time_is_an_error() {
    type Build = fn(&mut tokio::runtime::Builder) -> &mut tokio::runtime::Builder;
    let builds: [(&str, Build); 3] = [
        ("neither", |builder| builder),
        ("no IO", |builder| builder.enable_time()),
        ("no time", |builder| builder.enable_io()),
    ];
    for (what, build) in builds {
        for lifeline in [false, true] {
            let mut config = config(1);
            config.lifeline = lifeline;
            let runtime = build(&mut tokio::runtime::Builder::new_current_thread()).build().unwrap();
            let error = runtime.block_on(Endpoint::bind(config)).unwrap_err();
            assert!(matches!(error, BindError::NoRuntime), "{what}: {error:?}");
            assert_eq!(error.to_string(), "no tokio runtime with IO and time is running here");
        }
    }
    let bind = std::pin::pin!(Endpoint::bind(config(1)));
    let nowhere = bind.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(nowhere, Poll::Ready(Err(BindError::NoRuntime))), "{nowhere:?}");
}

#[tokio::test]
async fn a_name_that_is_not_in_the_certificate_is_named() {
    let mut config = config(1);
    config.name = "somebody-else".to_owned();
    let error = Endpoint::bind(config).await.unwrap_err().to_string();
    assert!(error.contains("somebody-else") && error.contains("node-1"), "{error}");
}

/// The setting that binding with this change is refused for.
async fn refused(change: impl FnOnce(&mut EndpointConfig)) -> &'static str {
    let mut config = config(1);
    change(&mut config);
    match Endpoint::bind(config).await.unwrap_err() {
        BindError::Setting { setting, problem } => {
            assert!(!problem.is_empty());
            setting
        }
        error => panic!("{error:?}"),
    }
}

/// Times of zero or without end once ended tasks of the endpoint by a panic, long after it was bound.
#[tokio::test]
async fn a_setting_out_of_range_is_named() {
    const ZERO: Duration = Duration::ZERO;
    const MAX: Duration = Duration::MAX;
    assert_eq!(
        refused(|config| config.keep_alive_interval = config.idle_timeout).await,
        "keep_alive_interval"
    );
    assert_eq!(refused(|config| config.reconnect_backoff_min = LONG).await, "reconnect_backoff_min");
    for time in [ZERO, MAX] {
        assert_eq!(refused(|config| config.connect_timeout = time).await, "connect_timeout");
        assert_eq!(refused(|config| config.keep_alive_interval = time).await, "keep_alive_interval");
        assert_eq!(refused(|config| config.idle_timeout = time).await, "idle_timeout");
        assert_eq!(refused(|config| config.stall_timeout = time).await, "stall_timeout");
        assert_eq!(refused(|config| config.reconnect_backoff_min = time).await, "reconnect_backoff_min");
        assert_eq!(refused(|config| config.reconnect_backoff_max = time).await, "reconnect_backoff_max");
        assert_eq!(refused(|config| config.metrics_interval = Some(time)).await, "metrics_interval");
    }
    assert_eq!(refused(|config| config.lanes[1].wait_max = Some(MAX)).await, "wait_max");
    assert_eq!(refused(|config| config.lanes[2].batch_bytes_max = usize::MAX).await, "batch_bytes_max");
    assert_eq!(refused(|config| config.lanes[0].batch_messages_max = 0).await, "batch_messages_max");
    assert_eq!(refused(|config| config.connections_max = 0).await, "connections_max");
    assert_eq!(refused(|config| config.handshakes_max = 0).await, "handshakes_max");
    assert_eq!(refused(|config| config.queue_messages_max = 0).await, "queue_messages_max");
    assert_eq!(refused(|config| config.suspect_after_beats_missed = 1).await, "suspect_after_beats_missed");
    for size in [0, usize::MAX] {
        assert_eq!(refused(|config| config.calls_in_flight_max = size).await, "calls_in_flight_max");
        assert_eq!(refused(|config| config.peer_events_max = size).await, "peer_events_max");
        assert_eq!(refused(|config| config.lane_window_bytes = size as u32).await, "lane_window_bytes");
        assert_eq!(refused(|config| config.datagram_bytes_max = size as u16).await, "datagram_bytes_max");
    }
    assert_eq!(refused(|config| config.bulk_message_bytes_max = usize::MAX).await, "message_bytes_max");
    assert_eq!(
        refused(|config| config.bulk_bytes_per_second_max = Some(0)).await,
        "bulk_bytes_per_second_max"
    );
    for name in ["", "two words", &"x".repeat(256)] {
        assert_eq!(refused(|config| config.name = name.to_owned()).await, "name");
    }
    for address in ["node-1", ":7000", "node-1:0", "node-1:70000", &format!("{}:1", "x".repeat(254))] {
        assert_eq!(refused(|config| config.advertise = Some(address.to_owned())).await, "advertise");
    }
}

/// Everything that may be, at its least and at its most, is lived with.
#[tokio::test]
async fn settings_at_the_ends_of_their_ranges_work() {
    let (millisecond, day) = (Duration::from_millis(1), Duration::from_secs(24 * 3600));
    let mut least = config(1);
    least.message_bytes_max = 0;
    least.bulk_message_bytes_max = 0;
    least.bulk_bytes_per_second_max = Some(1);
    least.stats_batches_max = 0;
    least.lane_window_bytes = 16 << 10;
    least.queue_messages_max = 1;
    least.queue_bytes_max = 0;
    least.calls_in_flight_max = 1;
    least.reconnect_backoff_min = millisecond;
    least.reconnect_backoff_max = millisecond;
    least.reconnect_give_up = Duration::ZERO;
    least.keep_alive_interval = millisecond;
    least.identity_expiry_warning = Duration::ZERO;
    least.metrics_interval = Some(millisecond);
    least.peer_events_max = 1;
    least.close_timeout = Duration::ZERO;
    least.connections_max = 1;
    least.handshakes_max = 1;
    least.socket_buffer_bytes = 0;
    least.datagram_bytes_max = 1200;
    least.advertise = Some(String::new());
    let mut most = config(2);
    most.message_bytes_max = 1 << 30;
    most.bulk_message_bytes_max = 1 << 30;
    most.bulk_bytes_per_second_max = Some(u64::MAX);
    most.stats_batches_max = usize::MAX;
    most.lane_window_bytes = 256 << 20;
    most.queue_messages_max = usize::MAX;
    most.queue_bytes_max = usize::MAX;
    most.calls_in_flight_max = 1 << 24;
    most.connect_timeout = day;
    most.reconnect_backoff_min = day;
    most.reconnect_backoff_max = day;
    most.reconnect_give_up = Duration::MAX;
    most.idle_timeout = day;
    most.keep_alive_interval = day - millisecond;
    most.suspect_after_beats_missed = u32::MAX;
    most.identity_expiry_warning = Duration::MAX;
    most.metrics_interval = Some(day);
    most.peer_events_max = 1 << 20;
    most.close_timeout = Duration::MAX;
    most.stall_timeout = day;
    most.connections_max = usize::MAX;
    most.handshakes_max = usize::MAX;
    most.socket_buffer_bytes = usize::MAX;
    most.datagram_bytes_max = 65_527;
    assert!(least.memory_bytes_per_peer_max() > 0);
    assert_eq!(most.memory_bytes_per_peer_max(), usize::MAX);
    let (least, most) = (node_with(least).await, node_with(most).await);
    most.endpoint.set_address(NodeId(1), &least.endpoint.local_addr().to_string());
    for (from, to) in [(&most, NodeId(1)), (&least, NodeId(2))] {
        for timeout in [LONG, Duration::MAX] {
            let answer = from.endpoint.call(to, Lane::Normal, ECHO, Bytes::new(), timeout).await;
            assert_eq!(answer, Ok(Bytes::new()));
        }
        let at_once = from.endpoint.call(to, Lane::Bulk, ECHO, Bytes::new(), Duration::ZERO).await;
        assert!(matches!(at_once, Err(CallError::Timeout { .. })), "{at_once:?}");
        let stats = from.endpoint.collect_sending_stats(to, Duration::ZERO).await;
        assert!(stats.unwrap().batches.is_empty());
    }
    least.endpoint.close().await;
    most.endpoint.close().await;
}

/// What is no address is told by whoever is dialled there, not by a panic.
#[tokio::test]
async fn an_address_that_is_none_is_an_error_that_names_it() {
    let a = node(1).await;
    for (node, address) in
        ["", ":", "nowhere", "127.0.0.1", "127.0.0.1:99999", "[::1", "a\0b:1", "\u{1f980}:1"]
            .into_iter()
            .enumerate()
    {
        let node = NodeId(10 + node as u64);
        a.endpoint.set_address(node, address);
        let called = a.endpoint.call(node, Lane::Normal, ECHO, Bytes::new(), LONG).await.unwrap_err();
        let discovered = a.endpoint.discover(address, LONG).await.unwrap_err();
        for error in [called, discovered] {
            assert!(matches!(error, CallError::Unreachable { .. }), "{address:?}: {error:?}");
            assert!(error.to_string().contains(address), "{address:?}: {error}");
        }
    }
}

#[tokio::test]
async fn certificates_that_were_saved_are_read_back_and_work() {
    let dir = tempfile::tempdir().unwrap();
    let made = CertificateAuthority::new("saved");
    // A folder that is not there is made: the first thing a newcomer does.
    let dir = dir.path().join("tls/of/the cluster");
    made.save(&dir).unwrap();
    let read = CertificateAuthority::from_files(dir.join("ca.pem"), dir.join("ca.key")).unwrap();
    assert_eq!(read.ca_pem(), made.ca_pem());
    made.issue("first", 1, &["127.0.0.1", "localhost"]).unwrap().save(&dir, "first").unwrap();
    read.issue("second", 1, &[]).unwrap().save(&dir, "second").unwrap();
    let mut endpoints = Vec::new();
    for (node, name) in [(1, "first"), (2, "second")] {
        let path = |extension| dir.join(format!("{name}.{extension}"));
        let mut config = config(node);
        config.name = name.to_owned();
        config.identity = Identity::from_files(dir.join("ca.pem"), path("pem"), path("key")).unwrap();
        endpoints.push(node_with(config).await);
    }
    let info = endpoints[0].endpoint.discover(endpoints[1].endpoint.advertised(), LONG).await.unwrap();
    assert_eq!((info.node, info.name.as_str()), (NodeId(2), "second"));
}

#[cfg(unix)]
#[test]
fn private_keys_are_saved_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    authority().save(dir.path()).unwrap();
    authority().issue("one", 1, &[]).unwrap().save(dir.path(), "one").unwrap();
    for key in ["ca.key", "one.key"] {
        let mode = std::fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

/// A second CA in the same folder once took the place of the first: no node of the cluster was let in any more. And a key
/// that replaced a file which everybody may read was a key that everybody may read.
#[test]
fn nothing_that_exists_is_overwritten_and_nothing_is_left_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let files = || {
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let node = authority().issue("one", 1, &[]).unwrap();
    std::fs::write(dir.path().join("one.pem"), "mine").unwrap();
    let error = node.save(dir.path(), "one").unwrap_err();
    assert!(matches!(&error, AuthorityError::Exists { path } if path.ends_with("one.pem")), "{error}");
    assert_eq!(files(), ["one.pem"], "no key without its certificate");
    assert_eq!(std::fs::read_to_string(dir.path().join("one.pem")).unwrap(), "mine");
    authority().save(dir.path()).unwrap();
    let key = std::fs::read(dir.path().join("ca.key")).unwrap();
    let error = CertificateAuthority::new("second").save(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("ca.key\" exists already and is not overwritten"), "{error}");
    assert_eq!(std::fs::read(dir.path().join("ca.key")).unwrap(), key);
    assert_eq!(std::fs::read_to_string(dir.path().join("ca.pem")).unwrap(), authority().ca_pem());
    for name in ["../one", "a/b", "a\\b", "..", ""] {
        let error = node.save(dir.path(), name).unwrap_err();
        assert!(matches!(error, AuthorityError::FileName { .. }), "{name}: {error}");
    }
}

/// Certificates signed with the wrong key were issued without a word, and every peer refused them.
#[test]
fn the_key_of_another_ca_is_not_taken() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    authority().save(one.path()).unwrap();
    CertificateAuthority::new("other").save(two.path()).unwrap();
    let error =
        CertificateAuthority::from_files(one.path().join("ca.pem"), two.path().join("ca.key")).unwrap_err();
    assert!(matches!(&error, AuthorityError::OtherKey { origin } if origin.ends_with("ca.key")), "{error}");
}

/// What is wrong with an identity made of these texts.
fn check(ca: &str, cert: &str, key: &str) -> IdentityError {
    Identity::from_pem(ca, cert, key).unwrap_err()
}

#[test]
fn an_identity_that_does_not_fit_together_says_what_does_not() {
    let ca = authority().ca_pem();
    let (one, two) = (authority().issue("one", 1, &[]).unwrap(), authority().issue("two", 1, &[]).unwrap());
    assert!(Identity::from_pem(ca, &one.cert_pem, &one.key_pem).is_ok());
    assert!(matches!(check(ca, &one.cert_pem, &two.key_pem), IdentityError::Key { .. }), "another's key");
    assert!(matches!(check(ca, &one.cert_pem, "nonsense"), IdentityError::Key { .. }));
    assert!(matches!(check(ca, "nonsense", &one.key_pem), IdentityError::NoCertificate { .. }));
    assert!(matches!(check("", &one.cert_pem, &one.key_pem), IdentityError::NoCertificate { .. }));
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(check(ca, garbage, &one.key_pem), IdentityError::Certificate { .. }));
    assert!(matches!(check(garbage, &one.cert_pem, &one.key_pem), IdentityError::Certificate { .. }));
    let stranger = CertificateAuthority::new("stranger");
    let error = check(stranger.ca_pem(), &one.cert_pem, &one.key_pem);
    assert!(matches!(error, IdentityError::NotIssued { .. }), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_or_is_no_certificate_is_named() {
    let dir = tempfile::tempdir().unwrap();
    authority().save(dir.path()).unwrap();
    authority().issue("one", 1, &[]).unwrap().save(dir.path(), "one").unwrap();
    let path = |name: &str| dir.path().join(name);
    let missing = Identity::from_files(path("ca.pem"), path("missing.pem"), path("one.key")).unwrap_err();
    assert!(missing.to_string().contains("missing.pem"), "{missing}");
    std::fs::write(path("broken.pem"), "not a certificate").unwrap();
    let broken = Identity::from_files(path("ca.pem"), path("broken.pem"), path("one.key")).unwrap_err();
    assert!(broken.to_string().contains("broken.pem"), "{broken}");
}

#[test]
fn a_certificate_is_not_issued_for_an_impossible_name_or_time() {
    for name in ["", "two words", "k\u{f6}ln", "127.0.0.1", &"x".repeat(256)] {
        assert!(authority().issue(name, 1, &[]).is_err(), "{name}");
    }
    assert!(authority().issue("one", 0, &[]).is_err());
    assert!(authority().issue("one", 1_000_000, &[]).is_err());
    assert!(CertificateAuthority::new_for("ca", 0).is_err());
}

#[test]
fn secrets_are_not_shown() {
    let node = authority().issue("one", 1, &[]).unwrap();
    let identity = Identity::from_pem(authority().ca_pem(), &node.cert_pem, &node.key_pem).unwrap();
    let shown = format!("{:?} {node:?} {identity:?}", authority());
    assert!(!shown.contains("PRIVATE KEY") && shown.contains("one"), "{shown}");
}
