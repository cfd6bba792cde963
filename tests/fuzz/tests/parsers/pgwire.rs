//! PostgreSQL's protocol: messages, the few statements that are read before the engine does, values, and what is made of a statement.

use std::sync::Arc;
use std::time::Duration;

use tidemill_base::ByteSize;
use tidemill_blocks::memory;
use tidemill_fuzz::{Settings, fuzz, shape};
use tidemill_query::{Engine, EngineSettings, Limits};

use crate::{block_on, refused, text};

const WORDS: &[&str] = &[
    "SELECT ",
    "COPY (",
    ") TO STDOUT",
    "DECLARE c CURSOR FOR ",
    "FETCH ",
    "SET x = ",
    "SHOW ",
    "$1",
    "$$",
    "E'\\''",
    "/*",
    "*/",
    "--",
    ";",
    "pg_catalog.",
    "pg_class",
    "pg_index",
    "::regclass",
    "::oid[]",
    " = ANY(",
    "ARRAY(SELECT ",
    "'{a,b}'",
    "information_schema.columns",
    "EXISTS(",
    " LEFT JOIN pg_description d ON d.objoid = ",
    "OPERATOR(pg_catalog.~)",
    " COLLATE x",
    " LIKE 'a' ESCAPE '/'",
    "current_schemas(true)",
    "format_type(",
];

/// Whatever comes, no message is taken from bytes that are not there.
#[test]
fn pg_messages() {
    let settings = Settings { runs: 20_000, memory: 1 << 20, memory_per_byte: 200, ..Settings::default() };
    fuzz("pg_messages", settings, |input| {
        let (count, end) = tidemill_pgwire::fuzz::messages(input, 4096);
        assert!(count * 5 <= input.len());
        shape(format!("{}{end}", "m".repeat(count.min(4))))
    });
}

/// A text is cut into parts of itself, and what is said of them is a state that the protocol knows.
#[test]
fn pg_statements() {
    let settings = Settings { runs: 10_000, tokens: WORDS, memory: 4 << 20, memory_per_byte: 2_000, ..Settings::default() };
    fuzz("pg_statements", settings, |input| {
        let sql = text(input);
        let found = tidemill_pgwire::fuzz::statements(&sql);
        assert!(found.iter().all(|(statement, _)| sql.contains(statement) && !statement.trim().is_empty()));
        assert!(found.iter().filter_map(|(_, state)| *state).all(|state| state.len() == 5));
        let first = found.iter().find_map(|(_, state)| *state).unwrap_or("fine");
        shape(format!("{}{first}", "s".repeat(found.len().min(4))))
    });
}

/// The literal of a value is one token or one call of the engine's parser; no text gets out of its quotes.
#[test]
fn pg_values() {
    const OIDS: [u32; 18] = [0, 16, 17, 20, 21, 23, 25, 26, 700, 701, 1007, 1009, 1082, 1114, 1184, 1231, 1700, 2950];
    let settings = Settings { runs: 20_000, memory: 4 << 20, memory_per_byte: 2_000, ..Settings::default() };
    fuzz("pg_values", settings, |input| {
        let (Some((first, rest)), true) = (input.split_first(), input.len() < 500) else { return 0 };
        let which = usize::from(first / 2) % OIDS.len();
        match tidemill_pgwire::fuzz::value(OIDS[which], first % 2 == 1, rest) {
            Ok(literal) => {
                let statement = format!("SELECT {literal}");
                if let Ok(written) = tidemill_query::fuzz::check(&statement, 1 << 20) {
                    assert!(written.starts_with("SELECT "), "{written}");
                    assert!(!tidemill_query::fuzz::changes(&statement).unwrap(), "{statement}");
                }
                shape("o".repeat(which))
            }
            Err(state) => shape(format!("{}{state}", "o".repeat(which))),
        }
    });
}

/// From text through the change to rows: within the engine's limits whatever it is, and never an error of our own making.
#[test]
fn pg_engine() {
    let settings =
        Settings { runs: 400, max_len: 400, tokens: WORDS, memory: 256 << 20, time: Duration::from_secs(20), ..Settings::default() };
    let engine = block_on(async {
        let settings = EngineSettings {
            memory_limit: ByteSize(32 << 20),
            timeout: Duration::from_secs(5),
            max_rows: 1000,
            default_schema: "batch".to_owned(),
            ..EngineSettings::default()
        };
        let engine = Arc::new(Engine::new(memory::objects(), settings).unwrap());
        tidemill_pgwire::fuzz::register(&engine);
        engine
    });
    fuzz("pg_engine", settings, move |input| {
        let sql = text(input);
        let outcome = block_on(async {
            let limits = Limits { max_rows: Some(100), cut: true, ..Limits::default() };
            engine.query_as(&sql, limits, tidemill_pgwire::fuzz::change(input)).await?.to_json_rows().await
        });
        match outcome {
            Ok(rows) => shape("r".repeat(rows.len().min(3))),
            Err(e) => refused(&e),
        }
    });
}
