//! What the server asks of every request: tokens, origin, limits, readiness, TLS.
#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod support;

use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use reqwest::{Certificate, Client, StatusCode};
use serde_json::{Value, json};
use support::{Mill, envelope, start, start_with};
use tidemill_base::{ByteSize, Env, HumanDuration};
use tidemill_blocks_test::run_real;
use tidemill_remote::{Remote, RemoteSettings};
use tidemill_server::auth::{Principal, Role};
use tidemill_server::listen;
use tidemill_server::{AppState, Edges};

async fn echo(me: Principal, Json(body): Json<Value>) -> Json<Value> {
    Json(json!({ "user": me.user, "body": body }))
}

async fn slow() -> &'static str {
    tidemill_runtime::sleep(Duration::from_secs(60)).await;
    "late"
}

fn edges() -> Edges {
    let routes: Router<AppState> =
        Router::new().route("/api/v1/echo", post(echo).get(|| async { "hello" })).route("/api/v1/slow", get(slow));
    Edges::new().api(routes)
}

async fn mill() -> Mill {
    start_with(|_| {}, edges(), None).await
}

#[test]
fn without_a_good_token_there_is_nothing_but_health() {
    run_real(async |_| {
        let (mill, http) = (mill().await, Client::new());
        let (status, kind, message) = envelope(http.get(mill.at("/api/v1/echo")).send().await.unwrap()).await;
        assert_eq!((status, kind.as_str(), message.as_str()), (401, "denied", "this needs a token"));
        let last = if mill.admin.ends_with('0') { '1' } else { '0' };
        let wrong = format!("{}{last}", &mill.admin[..mill.admin.len() - 1]);
        for token in ["x", "tm_k1_00", &wrong, ""] {
            let response = http.get(mill.at("/api/v1/echo")).bearer_auth(token).send().await.unwrap();
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            let (status, _, message) = envelope(response).await;
            assert_eq!(status, 401);
            assert!(token.len() < 5 || !message.contains(token), "{message}");
        }
        let good = http.get(mill.at("/api/v1/echo")).bearer_auth(&mill.admin).send().await.unwrap();
        assert_eq!(good.text().await.unwrap(), "hello");
        let live = http.get(mill.at("/livez")).send().await.unwrap();
        assert_eq!(live.status(), 200);
    });
}

#[test]
fn every_answer_is_hardened_and_every_error_has_the_envelope() {
    run_real(async |_| {
        let (mill, http) = (mill().await, Client::new());
        let response = http.get(mill.at("/nowhere")).header("x-request-id", "mine-1").send().await.unwrap();
        for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("x-request-id", "mine-1")] {
            assert_eq!(response.headers()[name], value, "{name}");
        }
        assert!(response.headers()["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["request_id"], "mine-1");
        assert_eq!(body["error"]["message"], "there is no route GET /nowhere");

        let post = |body: &'static str| {
            http.post(mill.at("/api/v1/echo")).bearer_auth(&mill.admin).header("content-type", "application/json").body(body).send()
        };
        let (status, kind, message) = envelope(post("{").await.unwrap()).await;
        assert_eq!((status, kind.as_str()), (400, "invalid"), "{message}");
        let put = http.put(mill.at("/api/v1/echo")).bearer_auth(&mill.admin).send().await.unwrap();
        let (status, _, message) = envelope(put).await;
        assert_eq!((status, message.as_str()), (405, "/api/v1/echo does not take PUT"));
    });
}

#[test]
fn limits_on_body_time_and_rate_hold() {
    run_real(async |_| {
        let tight = |c: &mut tidemill_server::config::ServerConfig| {
            c.limits.max_body = ByteSize(1000);
            c.limits.request_timeout = HumanDuration(Duration::from_millis(200));
            c.limits.requests_per_second = 10;
        };
        let (mill, http) = (start_with(tight, edges(), None).await, Client::new());
        let large = json!({ "x": "y".repeat(2000) });
        let response = http.post(mill.at("/api/v1/echo")).bearer_auth(&mill.admin).json(&large).send().await.unwrap();
        let (status, kind, message) = envelope(response).await;
        assert_eq!((status, kind.as_str()), (413, "exhausted"), "{message}");
        let response = http.get(mill.at("/api/v1/slow")).bearer_auth(&mill.admin).send().await.unwrap();
        let (status, kind, _) = envelope(response).await;
        assert_eq!((status, kind.as_str()), (503, "unavailable"));
        let mut refused = 0;
        for _ in 0..40 {
            let response = http.get(mill.at("/api/v1/echo")).bearer_auth(&mill.admin).send().await.unwrap();
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                refused += 1;
                assert!(envelope(response).await.2.contains("10 requests a second"));
            }
        }
        assert!(refused > 0);
        let other = mill.token(Role::Viewer).await;
        let response = http.get(mill.at("/api/v1/echo")).bearer_auth(other).send().await.unwrap();
        assert_eq!(response.status(), 200);
    });
}

#[test]
fn a_session_counts_only_from_the_consoles_own_pages() {
    run_real(async |_| {
        let (mill, http) = (mill().await, Client::new());
        let sign_in = |token: &str, origin: &str| {
            http.post(mill.at("/api/v1/session")).header("origin", origin).json(&json!({ "token": token })).send()
        };
        assert_eq!(sign_in("tm_k1_00", &mill.url).await.unwrap().status(), 401);
        assert_eq!(sign_in(&mill.admin, "https://evil.example").await.unwrap().status(), 403);
        let response = sign_in(&mill.admin, &mill.url).await.unwrap();
        assert_eq!(response.status(), 200);
        let set = response.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
        let cookie = set.split(';').next().unwrap().to_owned();
        assert!(!cookie.contains(&mill.admin), "the cookie is a token of its own");

        let read = http.get(mill.at("/api/v1/echo")).header("cookie", &cookie).send().await.unwrap();
        assert_eq!(read.status(), 200);
        let change = |origin: Option<&str>| {
            let mut request = http.post(mill.at("/api/v1/echo")).header("cookie", &cookie).json(&json!(1));
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            request.send()
        };
        assert_eq!(change(Some("https://evil.example")).await.unwrap().status(), 403);
        assert_eq!(change(None).await.unwrap().status(), 403);
        assert_eq!(change(Some(&mill.url)).await.unwrap().status(), 200);

        let out = http.delete(mill.at("/api/v1/session")).header("cookie", &cookie).header("origin", &mill.url).send().await.unwrap();
        assert_eq!(out.status(), 204);
        let after = http.get(mill.at("/api/v1/echo")).header("cookie", &cookie).send().await.unwrap();
        assert_eq!(after.status(), 401);
        let lines = mill.state.audit.read(Some("root"), None, 10).await.unwrap();
        let actions: Vec<_> = lines.iter().rev().map(|l| (l.action.as_str(), l.outcome.as_str())).collect();
        assert_eq!(actions, [("session.open", "200"), ("POST /api/v1/echo", "200"), ("DELETE /api/v1/session", "204")]);
        assert!(lines.iter().all(|l| l.address.starts_with("127.0.0.1:") && !l.request_id.is_empty()));
    });
}

#[test]
fn ready_while_all_is_up_and_not_when_draining() {
    run_real(async |_| {
        let (mill, http) = (start().await, Client::new());
        let state = async || {
            let response = http.get(mill.at("/readyz")).send().await.unwrap();
            (response.status().as_u16(), response.json::<Value>().await.unwrap()["state"].as_str().unwrap().to_owned())
        };
        let batch = mill.state.health.component("batch");
        assert_eq!(state().await, (503, "starting".to_owned()));
        batch.up();
        assert_eq!(state().await, (200, "ready".to_owned()));
        mill.state.shutdown.drain();
        assert_eq!(state().await, (503, "draining".to_owned()));
    });
}

#[test]
fn metrics_are_open_on_loopback_and_closed_behind_a_proxy() {
    run_real(async |_| {
        let (mill, http) = (mill().await, Client::new());
        http.get(mill.at("/livez")).send().await.unwrap();
        let text = http.get(mill.at("/metrics")).send().await.unwrap().text().await.unwrap();
        assert!(text.contains("tidemill_http_requests_total{"), "{text}");
        let mill = start_with(|c| c.server.insecure = true, edges(), None).await;
        assert_eq!(http.get(mill.at("/metrics")).send().await.unwrap().status(), 401);
        let viewer = mill.token(Role::Viewer).await;
        assert_eq!(http.get(mill.at("/metrics")).bearer_auth(viewer).send().await.unwrap().status(), 200);
        let worker = mill.token(Role::Worker).await;
        assert_eq!(http.get(mill.at("/metrics")).bearer_auth(worker).send().await.unwrap().status(), 403);
    });
}

#[test]
fn a_generated_certificate_serves_those_who_trust_it_and_no_others() {
    run_real(async |h| {
        let identity = listen::generated(&h.folder().join("tls"), &["127.0.0.1".to_owned()], &Env::system()).unwrap();
        let pem = identity.certificates.clone();
        let mill = start_with(|_| {}, edges(), Some(identity)).await;
        assert!(Client::new().get(mill.at("/livez")).send().await.is_err());
        let trusting = Client::builder().add_root_certificate(Certificate::from_pem(pem.as_bytes()).unwrap()).build().unwrap();
        let response = trusting.get(mill.at("/livez")).send().await.unwrap();
        assert_eq!(response.version(), reqwest::Version::HTTP_2);
        assert!(response.headers().contains_key("strict-transport-security"));
        Remote::connect(RemoteSettings::new(&mill.url, &mill.admin).with_ca(pem)).await.unwrap();
        assert!(Remote::connect(RemoteSettings::new(&mill.url, &mill.admin)).await.is_err());
    });
}

#[test]
fn a_request_under_way_ends_well_when_the_server_closes() {
    run_real(async |_| {
        let routes: Router<AppState> = Router::new().route(
            "/api/v1/short",
            get(|| async {
                tidemill_runtime::sleep(Duration::from_millis(400)).await;
                "done"
            }),
        );
        let (mill, http) = (start_with(|_| {}, Edges::new().api(routes), None).await, Client::new());
        let close = async {
            tidemill_runtime::sleep(Duration::from_millis(100)).await;
            mill.state.shutdown.drain();
            mill.state.shutdown.close();
        };
        let (answer, ()) = tokio::join!(http.get(mill.at("/api/v1/short")).bearer_auth(&mill.admin).send(), close);
        assert_eq!(answer.unwrap().text().await.unwrap(), "done");
        support::eventually("the listener's end", async || http.get(mill.at("/livez")).send().await.is_err()).await;
    });
}
