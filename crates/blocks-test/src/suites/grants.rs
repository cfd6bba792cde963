//! What an issuer of temporary credentials must do.

use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::grants::{Grants, MAX_TTL, Scope, Verbs};

use crate::Harness;
use crate::suites::fails;

/// Tests a grants driver that checks credentials itself: `grants_suite!(real, make)` or `grants_suite!(simulated, make)`, `make`
/// being `async fn(&Harness) -> Arc<dyn Grants>`.
#[macro_export]
macro_rules! grants_suite {
    ($mode:ident $(, $make:path)?) => {
        $crate::__behaviours! {grants, $mode, $($make,)?
            a_grant_says_what_was_asked credentials_are_all_different lifetimes_are_limited scopes_are_counted
            expired_credentials_are_denied stolen_tokens_are_denied changed_tokens_are_denied foreign_keys_are_denied
            secrets_do_not_print a_scope_covers_whole_segments
        }
    };
}

const HOUR: Duration = Duration::from_secs(3600);

fn scope(prefix: &str) -> Scope {
    Scope { prefix: prefix.to_owned(), verbs: Verbs::READ }
}

/// The token stands for the subject, the scopes with their verbs and the end that were asked for.
pub async fn a_grant_says_what_was_asked(g: &Arc<dyn Grants>, h: &Harness) -> Result<()> {
    let scopes = vec![scope("jobs/j1/in"), Scope { prefix: "jobs/j1/out \u{1F30A}".into(), verbs: Verbs::ALL }];
    let before = h.env().now();
    let c = g.issue("user:ada", scopes.clone(), HOUR / 2).await?;
    let granted = g.verify(&c.access_key, &c.session_token)?;
    assert_eq!((granted.subject.as_str(), &granted.scopes, granted.expires_at), ("user:ada", &scopes, c.expires_at));
    assert!(c.expires_at >= before + HOUR / 2 - Duration::from_secs(1), "it lives as long as asked");
    assert!(c.expires_at <= h.env().now() + HOUR / 2 + Duration::from_secs(1), "and no longer");
    assert_eq!(g.secret_of(&c.access_key).as_ref(), Some(&c.secret_key), "the secret to check signatures with");
    Ok(())
}

/// Two credentials share neither key, secret nor token, though they were asked for alike.
pub async fn credentials_are_all_different(g: &Arc<dyn Grants>, _: &Harness) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let c = g.issue("ada", vec![scope("a")], HOUR).await?;
        assert!(c.access_key.len() >= 16 && c.secret_key.len() >= 32 && c.session_token.len() >= 32, "too short to be safe");
        for part in [c.access_key, c.secret_key, c.session_token] {
            assert!(seen.insert(part), "used twice");
        }
    }
    Ok(())
}

/// A credential lives for 1 s to an hour; anything else is `Invalid`.
pub async fn lifetimes_are_limited(g: &Arc<dyn Grants>, _: &Harness) -> Result<()> {
    for bad in [Duration::ZERO, Duration::from_millis(999), MAX_TTL + Duration::from_secs(1), Duration::MAX] {
        fails(ErrorKind::Invalid, &format!("{bad:?}"), g.issue("ada", vec![scope("a")], bad).await);
    }
    for good in [Duration::from_secs(1), MAX_TTL] {
        g.issue("ada", vec![scope("a")], good).await?;
    }
    Ok(())
}

/// A credential has one to eight scopes.
pub async fn scopes_are_counted(g: &Arc<dyn Grants>, _: &Harness) -> Result<()> {
    let scopes = |n: usize| (0..n).map(|i| scope(&format!("p/{i}"))).collect::<Vec<_>>();
    fails(ErrorKind::Invalid, "none", g.issue("ada", scopes(0), HOUR).await);
    fails(ErrorKind::Invalid, "nine", g.issue("ada", scopes(9), HOUR).await);
    let c = g.issue("ada", scopes(8), HOUR).await?;
    assert_eq!(g.verify(&c.access_key, &c.session_token)?.scopes, scopes(8));
    Ok(())
}

/// After its end a credential is refused; another that still lives is not.
pub async fn expired_credentials_are_denied(g: &Arc<dyn Grants>, h: &Harness) -> Result<()> {
    let brief = g.issue("ada", vec![scope("a")], Duration::from_secs(2)).await?;
    let long = g.issue("ada", vec![scope("a")], HOUR).await?;
    g.verify(&brief.access_key, &brief.session_token)?;
    h.pass(Duration::from_secs(2)).await;
    fails(ErrorKind::Denied, "verify", g.verify(&brief.access_key, &brief.session_token));
    g.verify(&long.access_key, &long.session_token)?;
    Ok(())
}

/// A token used with another's access key is refused, though both are good.
pub async fn stolen_tokens_are_denied(g: &Arc<dyn Grants>, _: &Harness) -> Result<()> {
    let ada = g.issue("ada", vec![scope("ada")], HOUR).await?;
    let eve = g.issue("eve", vec![scope("eve")], HOUR).await?;
    fails(ErrorKind::Denied, "eve's key with ada's token", g.verify(&eve.access_key, &ada.session_token));
    fails(ErrorKind::Denied, "ada's key with eve's token", g.verify(&ada.access_key, &eve.session_token));
    assert_eq!(g.verify(&ada.access_key, &ada.session_token)?.subject, "ada");
    Ok(())
}

/// A token changed, cut or lengthened anywhere is refused.
pub async fn changed_tokens_are_denied(g: &Arc<dyn Grants>, _: &Harness) -> Result<()> {
    let c = g.issue("ada", vec![scope("a")], HOUR).await?;
    let token = c.session_token.as_bytes();
    for at in 0..token.len() {
        let mut changed = token.to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8_lossy(&changed).into_owned();
        fails(ErrorKind::Denied, &format!("changed at {at}"), g.verify(&c.access_key, &changed));
        fails(ErrorKind::Denied, &format!("cut at {at}"), g.verify(&c.access_key, &c.session_token[..at]));
    }
    for longer in [format!("{}A", c.session_token), format!(" {}", c.session_token), "x".repeat(100_000)] {
        fails(ErrorKind::Denied, "lengthened", g.verify(&c.access_key, &longer));
    }
    Ok(())
}

/// A key that was not issued here has no secret and is refused, with any token.
pub async fn foreign_keys_are_denied(g: &Arc<dyn Grants>, _: &Harness) -> Result<()> {
    let c = g.issue("ada", vec![scope("a")], HOUR).await?;
    for foreign in ["", "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE", &c.secret_key, &c.access_key.to_lowercase(), "\u{1F30A}"] {
        assert_eq!(g.secret_of(foreign), None, "{foreign}");
        fails(ErrorKind::Denied, foreign, g.verify(foreign, &c.session_token));
    }
    Ok(())
}

/// Neither the credential nor the driver shows a secret in debug output, and errors hold no token.
pub async fn secrets_do_not_print(g: &Arc<dyn Grants>, _: &Harness) -> Result<()> {
    let c = g.issue("ada", vec![scope("a")], HOUR).await?;
    let other = g.issue("eve", vec![scope("a")], HOUR).await?;
    let error = g.verify(&other.access_key, &c.session_token).expect_err("the token belongs to another key");
    for shown in [format!("{c:?}"), format!("{g:?}"), format!("{error:?}")] {
        assert!(!shown.contains(&c.secret_key) && !shown.contains(&c.session_token), "a secret shows");
    }
    Ok(())
}

/// A granted scope holds what lies under it by whole segments, and nothing beside it.
pub async fn a_scope_covers_whole_segments(g: &Arc<dyn Grants>, _: &Harness) -> Result<()> {
    let c = g.issue("ada", vec![scope("bucket/a/b")], HOUR).await?;
    let granted = g.verify(&c.access_key, &c.session_token)?;
    for (path, within) in [
        ("bucket/a/b", true),
        ("bucket/a/b/c", true),
        ("bucket/a/b/c/d", true),
        ("bucket/a/bc", false),
        ("bucket/a", false),
        ("bucket/a/c", false),
        ("other/bucket/a/b/c", false),
        ("", false),
    ] {
        assert_eq!(granted.scopes.iter().any(|s| s.covers(path)), within, "{path}");
    }
    Ok(())
}
