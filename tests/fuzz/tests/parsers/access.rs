//! Who may do what: tokens, credentials, the configuration, and the whole HTTP interface.

mod http;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use tidemill_base::{Env, ErrorKind, Timestamp};
use tidemill_blocks::grants::{Grants as _, Scope, Verbs};
use tidemill_blocks_test::SqliteMemoryLedger;
use tidemill_embedded::grants::EmbeddedGrants;
use tidemill_fuzz::{Settings, fuzz, shape};
use tidemill_runtime::Layers;
use tidemill_server::auth::{Auth, Role, same_origin};
use tidemill_server::config::{ServerConfig, parse_address};

use crate::{block_on, refused, text};

/// The text is edited from a real token: pieces of the input are `place, byte`.
#[test]
fn tokens() {
    let (env, _) = Env::manual(Timestamp::from_millis(1_700_000_000_000), 3);
    let auth = Auth::new(Arc::new(SqliteMemoryLedger::open().unwrap()), env);
    let token = block_on(async {
        auth.migrate().await.unwrap();
        auth.create_user("ada", Role::User).await.unwrap();
        auth.create_token("ada", Role::User, &[], None).await.unwrap().1.expose().to_owned()
    });
    let examples = vec![Vec::new(), vec![3, b'x'], vec![60, b'A'], vec![5, b'_'], token.clone().into_bytes(), b"tm_k1_00".to_vec()];
    let settings = Settings { runs: 8_000, examples, max_len: 200, tokens: &["tm_", "_", "tm__"], ..Settings::default() };
    fuzz("tokens", settings, move |input| {
        let mut forged = token.clone().into_bytes();
        if input.starts_with(b"tm") {
            forged = input.to_vec();
        } else {
            for edit in input.chunks_exact(2) {
                let at = usize::from(edit[0]) % forged.len();
                forged[at] = edit[1];
            }
        }
        let forged = text(&forged);
        match block_on(auth.authenticate(&forged)) {
            Ok(who) => {
                assert_eq!(*forged, *token, "another text is taken for the token");
                assert_eq!((who.user.as_str(), who.role), ("ada", Role::User));
                shape("in")
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Denied);
                assert!(!e.message().contains(&*forged) || forged.len() < 8, "a refusal repeats the token");
                shape("out")
            }
        }
    });
}

/// The session token is edited, or made of the input; whatever is not just what was issued is refused.
#[test]
fn grants() {
    let (env, clock) = Env::manual(Timestamp::from_millis(1_700_000_000_000), 7);
    let ours = EmbeddedGrants::new([7; 32], env.clone(), None);
    let theirs = EmbeddedGrants::new([8; 32], env, None);
    let scope = |prefix: &str| vec![Scope { prefix: prefix.to_owned(), verbs: Verbs::READ }];
    let hour = Duration::from_secs(3600);
    let issued = block_on(ours.issue("ada", scope("photos/in"), hour)).unwrap();
    let other = block_on(ours.issue("bob", scope("secret"), hour)).unwrap();
    let foreign = block_on(theirs.issue("ada", scope("photos/in"), hour)).unwrap();
    let examples = vec![
        Vec::new(),
        vec![0, 0, b'B'],
        vec![0, 90, b'_'],
        [b"=", issued.session_token.as_bytes()].concat(),
        [b"=", other.session_token.as_bytes()].concat(),
        [b"=", foreign.session_token.as_bytes()].concat(),
        b"=AQ".to_vec(),
    ];
    let _ = clock;
    fuzz("grants", Settings { runs: 20_000, examples, ..Settings::default() }, move |input| {
        let mut token = issued.session_token.clone().into_bytes();
        match input.split_first() {
            Some((b'=', made)) => token = made.to_vec(),
            _ => input.chunks_exact(3).for_each(|edit| {
                let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % token.len();
                token[at] = edit[2];
            }),
        }
        let token = text(&token);
        // An access key that was not issued here has no secret, and so no signature that could be right.
        let key = text(input);
        assert!(ours.secret_of(&key).is_none() || *key == *issued.access_key || *key == *other.access_key);
        match ours.verify(&issued.access_key, &token) {
            Ok(granted) => {
                assert_eq!(*token, *issued.session_token, "a token that was not issued is taken for the one that was");
                assert_eq!((granted.subject.as_str(), granted.scopes), ("ada", scope("photos/in")));
                shape("granted")
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Denied);
                refused(&e)
            }
        }
    });
}

/// A configuration file; below a line of dashes variables of the environment.
#[test]
fn config() {
    let tokens = &[
        "[server]\n",
        "[limits]\n",
        "[fleet]\n",
        "max-body",
        "\"64MiB\"",
        "workers",
        "\"0..8\"",
        "listen",
        "---\n",
        "TIDEMILL_FLEET_SLOTS=",
        "true",
        "[[tls]]",
        "inf",
        "nan",
        ".",
    ];
    let settings = Settings { runs: 4_000, tokens, memory: 8 << 20, memory_per_byte: 2048, ..Settings::default() };
    let layers = Layers::defaults(&ServerConfig::default()).unwrap();
    assert_eq!(layers.build::<ServerConfig>().unwrap(), ServerConfig::default(), "the defaults are not read as they are written");
    fuzz("config", settings, |input| {
        let text = text(input);
        let (file, vars) = text.split_once("---\n").unwrap_or((&text, ""));
        let vars = vars.lines().filter_map(|l| l.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned()));
        let layers = Layers::defaults(&ServerConfig::default()).and_then(|l| l.file("tidemill.toml", file)).and_then(|l| l.env(vars));
        let config = layers.and_then(|layers| Ok((layers.build::<ServerConfig>()?, layers)));
        let (config, layers) = match config {
            Ok(built) => built,
            Err(e) => return refused(&e),
        };
        // What is listed can be written to a file, and is the same configuration.
        let listed: String = layers.listing().into_iter().map(|(key, value, _)| format!("{key} = {value}\n")).collect();
        let again = Layers::defaults(&ServerConfig::default()).unwrap().file("again", &listed).unwrap().build::<ServerConfig>().unwrap();
        assert!(again == config || config.fleet.price_per_slot_hour.is_nan(), "{listed}");
        if let Err(e) = config.check() {
            return refused(&e);
        }
        for group in config.fleet.groups() {
            let (min, max) = group.bounds().unwrap();
            assert!(min <= max);
        }
        assert_eq!(parse_address("server.listen", &config.listen().unwrap().to_string()).unwrap(), config.listen().unwrap());
        shape("good")
    });
}

/// Lines: what the browser says the page is from, and the host.
#[test]
fn origins() {
    fuzz(
        "origins",
        Settings { runs: 30_000, tokens: &["https://", "http://", ":8080", "null", "mill", "."], ..Settings::default() },
        |input| {
            let text = text(input);
            let (origin, host) = text.split_once('\n').unwrap_or((&text, "mill:8080"));
            let (Ok(from), Ok(to)) = (HeaderValue::from_str(origin), HeaderValue::from_str(host)) else { return shape("no header") };
            let headers = HeaderMap::from_iter([(header::ORIGIN, from), (header::HOST, to)]);
            let same = same_origin(&headers, &Uri::from_static("/"));
            let origin = origin.to_ascii_lowercase();
            let expected = ["http://", "https://"].iter().any(|scheme| origin == format!("{scheme}{}", host.to_ascii_lowercase()));
            assert!(!same || expected, "{origin:?} is taken for {host:?}");
            shape(same)
        },
    );
}
