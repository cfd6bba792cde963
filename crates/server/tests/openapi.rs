//! The document and the server agree: every documented route answers, and every route in the sources is documented.
#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tidemill_base::Env;
use tidemill_batch::service::{BatchSettings, Manager};
use tidemill_blocks_test::run_real;
use tidemill_query::EngineSettings;
use tidemill_runtime::{Kind, Shutdown, Tasks};
use tidemill_server::assembly::{Started, edges};
use tidemill_server::auth::Role;
use tidemill_server::config::ServerConfig;
use tidemill_server::fleet::{Scaler, ScalerSettings};
use tidemill_server::openapi::{Access, RouteDoc, documented};
use tidemill_server::sql::{self, ParquetSink};
use tidemill_server::{AppState, listen, router};

/// The server as the assembly puts it together, over in-memory drivers. Nothing of it runs but the listener.
struct Assembled {
    url: String,
    admin: String,
}

async fn assembled() -> Assembled {
    let (env, tasks) = (Env::system(), Tasks::new("server", Shutdown::new()));
    let blocks = support::blocks(&env);
    let manager = Manager::new(blocks.clone(), env.clone(), BatchSettings::default(), Arc::new(ParquetSink { price: 0.0 })).await.unwrap();
    let engine = sql::engine(&blocks, &manager, env.clone(), EngineSettings::default(), 0.0).unwrap();
    let scaler = Scaler::new(blocks.clone(), env.clone(), ScalerSettings::default());
    let state = AppState::new(blocks, env.clone(), tasks.clone(), ServerConfig::default(), false).await.unwrap();
    let state = state.with_service(manager).with_service(engine).with_service(scaler).with_service(Started(env.now()));
    state.auth.create_user("root", Role::Admin).await.unwrap();
    let (_, admin) = state.auth.create_token("root", Role::Admin, &[], None).await.unwrap();
    let app = router(state.clone(), edges(&state));
    let listener = listen::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn("http", Kind::Essential, async move { listen::serve(listener, app, None, &state).await });
    Assembled { url, admin: admin.expose().to_owned() }
}

/// The path with something in the place of its parameters.
fn filled(path: &str) -> String {
    let mut out = String::new();
    for (at, piece) in path.split('{').enumerate() {
        let (name, rest) = if at == 0 { ("", piece) } else { piece.split_once('}').unwrap() };
        out.push_str(match name {
            "" => "",
            "stage" | "task" => "0",
            "*path" | "*name" => "bucket/none",
            _ => "none",
        });
        out.push_str(rest);
    }
    out
}

async fn ask(http: &Client, server: &Assembled, route: &RouteDoc, token: &str) -> (StatusCode, String) {
    let method: Method = route.method.parse().unwrap();
    let response = http.request(method, format!("{}{}", server.url, filled(route.path))).bearer_auth(token).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

#[test]
fn every_documented_route_is_there_and_asks_for_a_token_when_it_says_so() {
    run_real(async |_| {
        let (server, http) = (assembled().await, Client::new());
        let nowhere = http.get(format!("{}/api/v1/nowhere", server.url)).bearer_auth(&server.admin).send().await.unwrap();
        assert_eq!(nowhere.status(), 404);
        assert!(nowhere.text().await.unwrap().contains("there is no route"), "the words that this test looks for");
        for route in documented() {
            let name = format!("{} {}", route.method, route.path);
            let (status, text) = ask(&http, &server, &route, &server.admin).await;
            let missing = status == 405 || text.contains("there is no route");
            assert!(!missing && (status.as_u16() < 500 || route.path == "/readyz"), "{name} answers {status}: {text}");
            let (status, text) = ask(&http, &server, &route, "tm_wrong").await;
            if route.access == Access::Anybody {
                assert_ne!(status, 403, "{name}: {text}");
            } else {
                assert_eq!(status, 401, "{name}: {text}");
            }
        }
    });
}

#[test]
fn the_document_is_served_without_a_token() {
    run_real(async |_| {
        let server = assembled().await;
        let response = reqwest::get(format!("{}/api/v1/openapi.json", server.url)).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        let served: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(served, serde_json::to_value(tidemill_server::openapi()).unwrap());
        assert!(served["openapi"].as_str().unwrap().starts_with("3.1"));
    });
}

#[test]
fn every_reference_leads_somewhere_and_operations_have_names_of_their_own() {
    let document = serde_json::to_value(tidemill_server::openapi()).unwrap();
    let (mut refs, mut ids) = (Vec::new(), Vec::new());
    walk(&document, &mut |key, value| match (key, value.as_str()) {
        ("$ref", Some(to)) => refs.push(to.to_owned()),
        ("operationId", Some(id)) => ids.push(id.to_owned()),
        _ => {}
    });
    assert!(refs.len() > 40, "{}", refs.len());
    for to in refs {
        let pointer = to.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
    }
    assert_eq!(ids.len(), documented().len(), "each route is in the document");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

#[test]
fn every_example_is_what_it_is_an_example_of_and_every_error_has_its_meaning() {
    let (mut examples, mut errors) = (0, 0);
    let document = serde_json::to_value(tidemill_server::openapi()).unwrap();
    for route in documented() {
        let name = format!("{} {}", route.method, route.path);
        for example in route.examples() {
            (example.read)(example.json).unwrap_or_else(|e| panic!("an example of {name} does not read: {e}"));
            examples += 1;
        }
        let operation = &document["paths"][route.openapi_path()][route.method.to_ascii_lowercase()];
        for (status, answer) in operation["responses"].as_object().unwrap() {
            if status.starts_with('4') {
                assert!(answer["description"].as_str().unwrap().ends_with('.'), "{name} {status}");
                assert!(answer["content"]["application/json"]["schema"]["$ref"].is_string(), "{name} {status}");
                errors += 1;
            }
        }
        if route.path.starts_with("/api/v1/grid/") && route.path.contains('{') && !route.path.contains("{sha256}") {
            assert!(operation["responses"].get("404").is_some(), "{name}: what when it is not there?");
        }
    }
    assert!(examples > 15 && errors > 30, "{examples} examples, {errors} errors");
    let open = &document["paths"]["/api/v1/grid/sessions"]["post"];
    assert_eq!(open["requestBody"]["content"]["application/json"]["example"]["session"]["engine"], "python");
}

fn walk(value: &Value, see: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                see(key, inner);
                walk(inner, see);
            }
        }
        Value::Array(items) => items.iter().for_each(|inner| walk(inner, see)),
        _ => {}
    }
}

#[test]
fn every_route_in_the_sources_is_documented_and_the_other_way_round() {
    let mut found = BTreeSet::new();
    let mut files = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.extend(routes_in(&path));
        }
    }
    let documented: BTreeSet<(String, String)> = documented().iter().map(|r| (r.method.to_owned(), r.path.to_owned())).collect();
    let missing: Vec<_> = found.difference(&documented).collect();
    assert!(missing.is_empty(), "in the sources and not in the table of src/openapi/routes.rs: {missing:?}");
    let gone: Vec<_> = documented.difference(&found).collect();
    assert!(gone.is_empty(), "in the table of src/openapi/routes.rs and not in the sources: {gone:?}");
}

/// Method and path of every `.route("/...", get(..).post(..))`. Routes whose path is no literal are the workers' own.
fn routes_in(file: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut out = Vec::new();
    for piece in code.split(".route(").skip(1) {
        let Some((path, rest)) = piece.trim_start().strip_prefix('"').and_then(|p| p.split_once('"')) else { continue };
        // The console's pages are not part of the interface.
        if !path.starts_with("/api/") && !["/livez", "/readyz", "/metrics"].contains(&path) {
            continue;
        }
        for (word, method) in [("get(", "GET"), ("post(", "POST"), ("put(", "PUT"), ("patch(", "PATCH"), ("delete(", "DELETE")] {
            let handlers = closed(rest);
            let starts =
                handlers.match_indices(word).filter(|(at, _)| !handlers[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if starts.count() > 0 {
                out.push((method.to_owned(), path.to_owned()));
            }
        }
    }
    out
}

/// The text up to the parenthesis that closes the call.
fn closed(text: &str) -> &str {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}
