//! Credentials of the embedded issuer: what they reach, and every way in which they must be refused.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{Env, ErrorKind, ManualClock, Result, Timestamp};
use tidemill_blocks::grants::{Granted, Grants, MAX_TTL, Scope, Verbs};
use tidemill_embedded::grants::{EmbeddedGrants, load_or_create_key};

const HOUR: Duration = MAX_TTL;

fn grants() -> (EmbeddedGrants, Arc<ManualClock>) {
    let (env, clock) = Env::manual(Timestamp::from_millis(1_700_000_000_000), 5);
    (EmbeddedGrants::new([7; 32], env, Some("http://127.0.0.1:8080".into())), clock)
}

fn scope(prefix: &str) -> Scope {
    Scope { prefix: prefix.into(), verbs: Verbs::READ }
}

#[track_caller]
fn denied(outcome: Result<Granted>, because: &str) {
    let e = outcome.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.message().contains(because), "`{e}` does not say `{because}`");
}

#[tokio::test]
async fn a_credential_says_whom_it_is_for_and_what_it_reaches() {
    let (grants, clock) = grants();
    let scopes = vec![scope("a/b"), Scope { prefix: "out/".into(), verbs: Verbs::WRITE }];
    let c = grants.issue("ada", scopes.clone(), HOUR).await.unwrap();
    assert!(c.access_key.starts_with("ASIA") && c.access_key.len() == 20, "{}", c.access_key);
    assert_eq!(c.secret_key.len(), 40);
    assert_eq!(c.endpoint.as_deref(), Some("http://127.0.0.1:8080"));
    let granted = grants.verify(&c.access_key, &c.session_token).unwrap();
    assert_eq!(granted, Granted { subject: "ada".into(), scopes, expires_at: c.expires_at });
    assert_eq!(grants.secret_of(&c.access_key).as_ref(), Some(&c.secret_key));

    clock.advance(HOUR - Duration::from_micros(1));
    assert!(grants.verify(&c.access_key, &c.session_token).is_ok());
    clock.advance(Duration::from_micros(1));
    denied(grants.verify(&c.access_key, &c.session_token), "expired");
}

#[tokio::test]
async fn another_access_keys_token_is_refused() {
    let (grants, _clock) = grants();
    let (mine, stolen) =
        (grants.issue("eve", vec![scope("e")], HOUR).await.unwrap(), grants.issue("ada", vec![scope("a")], HOUR).await.unwrap());
    assert_ne!(mine.access_key, stolen.access_key);
    assert_ne!(mine.secret_key, stolen.secret_key);
    denied(grants.verify(&mine.access_key, &stolen.session_token), "another access key");
}

#[tokio::test]
async fn a_token_changed_anywhere_is_refused() {
    let (grants, _clock) = grants();
    let c = grants.issue("ada", vec![scope("a/b")], HOUR).await.unwrap();
    let token = c.session_token.as_bytes();
    for at in 0..token.len() {
        for with in [b'A', b'B', b'_', b'!', b'='] {
            let mut changed = token.to_vec();
            if changed[at] == with {
                continue;
            }
            changed[at] = with;
            let changed = String::from_utf8(changed).unwrap();
            let e = grants.verify(&c.access_key, &changed).expect_err(&format!("byte {at} changed to {}", char::from(with)));
            assert_eq!(e.kind(), ErrorKind::Denied, "{at}");
            assert!(!e.chain().contains(&changed) && !e.chain().contains(&c.session_token));
        }
        denied(grants.verify(&c.access_key, &c.session_token[..at]), "session token");
    }
    denied(grants.verify(&c.access_key, &format!("{}A", c.session_token)), "session token");
    denied(grants.verify(&c.access_key, &"A".repeat(100_000)), "malformed");
}

#[tokio::test]
async fn another_masters_credentials_are_foreign() {
    let (grants, _clock) = grants();
    let (env, _other_clock) = Env::manual(Timestamp::from_millis(1_700_000_000_000), 6);
    let foreign = EmbeddedGrants::new([8; 32], env, None).issue("ada", vec![scope("a")], HOUR).await.unwrap();
    denied(grants.verify(&foreign.access_key, &foreign.session_token), "another key");
    assert_eq!(grants.secret_of(&foreign.access_key), None);
    for key in ["", "ASIA", "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE", "ASIA\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}"] {
        assert_eq!(grants.secret_of(key), None, "{key}");
    }
}

#[tokio::test]
async fn what_cannot_be_granted_is_refused_by_name() {
    let (grants, _clock) = grants();
    let ok = || vec![scope("a")];
    let long = "x".repeat(5000);
    let none = Scope { prefix: "a".into(), verbs: Verbs { read: false, write: false, delete: false, list: false } };
    let cases = [
        ("ada", ok(), Duration::ZERO, "0ns"),
        ("ada", ok(), HOUR + Duration::from_secs(1), "3601s"),
        ("ada", vec![], HOUR, "1 to 8 scopes"),
        ("ada", vec![scope("a"); 9], HOUR, "not 9"),
        ("ada", vec![scope(&long)], HOUR, "5000 bytes"),
        ("ada", vec![scope("a/../b")], HOUR, "a/../b"),
        ("ada", vec![scope("/a")], HOUR, "`/a`"),
        ("ada", vec![none], HOUR, "no verb"),
        ("", ok(), HOUR, "subject"),
    ];
    for (subject, scopes, ttl, says) in cases {
        let e = grants.issue(subject, scopes, ttl).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid, "{says}");
        assert!(e.message().contains(says), "`{e}` does not say `{says}`");
    }
    assert!(grants.issue("ada", vec![scope("a"); 8], Duration::from_secs(1)).await.is_ok());
}

#[test]
fn a_scope_ends_at_a_whole_segment() {
    for (prefix, path, covered) in [
        ("a/b", "a/b/c", true),
        ("a/b", "a/b", true),
        ("a/b/", "a/b/c", true),
        ("a/b", "a/bc", false),
        ("a/b", "a", false),
        ("a/b", "x/a/b", false),
        ("", "anything", true),
    ] {
        assert_eq!(scope(prefix).covers(path), covered, "{prefix} and {path}");
    }
}

#[tokio::test]
async fn neither_secret_nor_token_nor_key_prints() {
    let (grants, _clock) = grants();
    let c = grants.issue("ada", vec![scope("a")], HOUR).await.unwrap();
    let shown = format!("{c:?} {grants:?}");
    for secret in [&c.secret_key, &c.session_token, &hex::encode([7; 32]), &format!("{:?}", [7_u8; 32])] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn the_key_file_is_made_once_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grants.key");
    let keys: BTreeSet<[u8; 32]> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..16).map(|_| s.spawn(|| load_or_create_key(&path, &Env::system()).unwrap())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(keys.len(), 1, "all have the key of whoever was first");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left lying about");
    assert_eq!(load_or_create_key(&path, &Env::system()).unwrap(), *keys.first().unwrap());

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let e = load_or_create_key(&path, &Env::system()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.message().contains("chmod 600"), "{e}");

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, "short").unwrap();
    let e = load_or_create_key(&path, &Env::system()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(!e.chain().contains("short"), "{e:?}");
}
