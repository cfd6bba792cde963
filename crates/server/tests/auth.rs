//! Users and tokens: expiry, scopes, revocation, roles, the first start.
#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use support::{envelope, start};
use tidemill_base::{Env, ErrorKind, ManualClock, Timestamp};
use tidemill_blocks::ledger::Ledger;
use tidemill_blocks_test::{SqliteMemoryLedger, run_real};
use tidemill_server::auth::{Auth, CACHE_TTL, Role};

async fn auth() -> (Auth, Arc<ManualClock>, Arc<dyn Ledger>) {
    let (env, clock) = Env::manual(Timestamp::from_millis(1_700_000_000_000), 5);
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteMemoryLedger::open().unwrap());
    let auth = Auth::new(ledger.clone(), env);
    auth.migrate().await.unwrap();
    (auth, clock, ledger)
}

async fn refused(auth: &Auth, text: &str) {
    let e = auth.authenticate(text).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert_eq!(e.message(), "the token is not valid, has expired or was revoked", "each refusal says the same");
}

#[test]
fn a_token_is_good_until_it_expires() {
    run_real(async |_| {
        let (auth, clock, _) = auth().await;
        auth.create_user("ann", Role::User).await.unwrap();
        let (id, token) = auth.create_token("ann", Role::User, &["batch".to_owned()], Some(Duration::from_secs(60))).await.unwrap();
        let me = auth.authenticate(token.expose()).await.unwrap();
        assert_eq!((me.user.as_str(), me.role, me.token_id), ("ann", Role::User, id));
        clock.advance(Duration::from_secs(59));
        auth.authenticate(token.expose()).await.unwrap();
        clock.advance(Duration::from_secs(1));
        refused(&auth, token.expose()).await;
    });
}

#[test]
fn the_ledger_holds_no_secret_and_a_wrong_one_does_not_pass() {
    run_real(async |_| {
        let (auth, _, ledger) = auth().await;
        auth.create_user("ann", Role::User).await.unwrap();
        let (id, token) = auth.create_token("ann", Role::User, &[], None).await.unwrap();
        let secret = token.expose().rsplit('_').next().unwrap().to_owned();
        for row in ledger.query("SELECT * FROM auth_tokens", vec![]).await.unwrap() {
            assert!(!format!("{row:?}").contains(&secret));
        }
        // The right id with another's secret, warm in the cache and not.
        let (_, other) = auth.create_token("ann", Role::User, &[], None).await.unwrap();
        let foreign = format!("tm_{id}_{}", other.expose().rsplit('_').next().unwrap());
        refused(&auth, &foreign).await;
        auth.authenticate(token.expose()).await.unwrap();
        refused(&auth, &foreign).await;
        refused(&auth, &format!("tm_kunknown_{secret}")).await;
        refused(&auth, "").await;
    });
}

#[test]
fn a_revoked_token_ends_at_once_here_and_within_seconds_elsewhere() {
    run_real(async |_| {
        let (here, clock, ledger) = auth().await;
        let elsewhere = Auth::new(ledger, here_env(&clock));
        here.create_user("ann", Role::User).await.unwrap();
        let (id, token) = here.create_token("ann", Role::User, &[], None).await.unwrap();
        here.authenticate(token.expose()).await.unwrap();
        elsewhere.authenticate(token.expose()).await.unwrap();
        here.revoke(&id).await.unwrap();
        refused(&here, token.expose()).await;
        clock.advance(CACHE_TTL);
        refused(&elsewhere, token.expose()).await;
        assert_eq!(here.revoke(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(here.tokens(Some("ann")).await.unwrap()[0].revoked_at.is_some());
    });
}

fn here_env(clock: &Arc<ManualClock>) -> Env {
    Env::seeded(clock.clone(), 6)
}

#[test]
fn nobody_holds_more_than_their_role() {
    run_real(async |_| {
        let (auth, _, _) = auth().await;
        auth.create_user("ann", Role::User).await.unwrap();
        for role in [Role::Operator, Role::Admin, Role::Worker] {
            assert_eq!(auth.create_token("ann", role, &[], None).await.unwrap_err().kind(), ErrorKind::Denied, "{role}");
        }
        let (_, token) = auth.create_token("ann", Role::User, &[], None).await.unwrap();
        auth.authenticate(token.expose()).await.unwrap();
        auth.set_role("ann", Role::Viewer).await.unwrap();
        refused(&auth, token.expose()).await;
        auth.set_role("ann", Role::User).await.unwrap();
        auth.remove_user("ann").await.unwrap();
        refused(&auth, token.expose()).await;
        assert_eq!(auth.create_user("ann", Role::User).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert!(auth.create_user("An n", Role::User).await.unwrap_err().message().contains("`An n`"));
        assert_eq!(auth.create_token("bob", Role::User, &[], None).await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn the_first_start_leaves_a_private_token_and_later_ones_keep_it() {
    run_real(async |h| {
        let (auth, _, _) = auth().await;
        let path = auth.ensure_admin_token(h.folder()).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(auth.authenticate(text.trim()).await.unwrap().role, Role::Admin);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        auth.ensure_admin_token(h.folder()).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        auth.revoke(&auth.authenticate(text.trim()).await.unwrap().token_id).await.unwrap();
        auth.ensure_admin_token(h.folder()).await.unwrap();
        let anew = std::fs::read_to_string(&path).unwrap();
        assert_ne!(anew, text);
        auth.authenticate(anew.trim()).await.unwrap();
    });
}

#[test]
fn over_http_a_token_makes_no_stronger_one() {
    run_real(async |_| {
        let (mill, http) = (start().await, Client::new());
        let post = |path: &str, token: &str, body: Value| http.post(mill.at(path)).bearer_auth(token).json(&body).send();
        let made = post("/api/v1/users", &mill.admin, json!({ "name": "ann", "role": "user" })).await.unwrap();
        assert_eq!(made.status(), 201);
        let made = post("/api/v1/tokens", &mill.admin, json!({ "user": "ann", "role": "user", "scopes": ["batch"], "ttl": "1h" }));
        let made: Value = made.await.unwrap().json().await.unwrap();
        let ann = made["token"].as_str().unwrap().to_owned();
        for body in [json!({ "role": "operator" }), json!({ "scopes": ["sql"] }), json!({ "scopes": ["*"] }), json!({ "user": "root" })] {
            let (status, kind, message) = envelope(post("/api/v1/tokens", &ann, body.clone()).await.unwrap()).await;
            assert_eq!((status, kind.as_str()), (403, "denied"), "{body}: {message}");
        }
        let narrower = post("/api/v1/tokens", &ann, json!({ "scopes": ["batch:read"] })).await.unwrap();
        assert_eq!(narrower.status(), 201);
        assert_eq!(post("/api/v1/users", &ann, json!({ "name": "eve", "role": "admin" })).await.unwrap().status(), 403);
        // A token of an administrator that is scoped to one system does not reach the users.
        let scoped = mill.state.auth.create_token("root", Role::Admin, &["batch".to_owned()], None).await.unwrap().1;
        let denied = post("/api/v1/users", scoped.expose(), json!({ "name": "eve", "role": "admin" })).await.unwrap();
        assert!(envelope(denied).await.2.contains("scope `auth`"));
        let listed = http.get(mill.at("/api/v1/tokens")).bearer_auth(&ann).send().await.unwrap().text().await.unwrap();
        assert!(!listed.contains("root") && !listed.contains("hash") && !listed.contains(ann.rsplit('_').next().unwrap()), "{listed}");
    });
}
