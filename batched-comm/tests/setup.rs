//! Certificates and configs, good and bad.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of real sockets run on real time; a panic is a failed test"
)]

mod support;

use batched_comm::{
    AuthorityError, BindError, CertificateAuthority, Endpoint, Identity, IdentityError, NodeId,
};
use support::{LONG, authority, config, node, node_with};

#[tokio::test]
async fn a_port_in_use_is_named() {
    let a = node(1).await;
    let mut config = config(2);
    config.listen = a.endpoint.local_addr();
    let error = Endpoint::bind(config).await.unwrap_err();
    assert!(matches!(error, BindError::Listen { .. }), "{error:?}");
    assert!(error.to_string().contains(a.endpoint.advertised()), "{error}");
}

#[tokio::test]
async fn a_name_that_is_not_in_the_certificate_is_named() {
    let mut config = config(1);
    config.name = "somebody-else".to_owned();
    let error = Endpoint::bind(config).await.unwrap_err().to_string();
    assert!(error.contains("somebody-else") && error.contains("node-1"), "{error}");
}

#[tokio::test]
async fn a_setting_out_of_range_is_named() {
    let mut config = config(1);
    config.keep_alive_interval = config.idle_timeout;
    let error = Endpoint::bind(config).await.unwrap_err();
    assert!(matches!(error, BindError::Setting { setting: "keep_alive_interval", .. }), "{error:?}");
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
