//! Which crate may use which. Everything that is not here is forbidden, and every line says why it is allowed.
//!
//! `docs/decisions/0001-shape-of-the-workspace.md` explains the whole.

/// Whether an arrow is for everybody who uses the crate or for its tests alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    /// Only as a dev-dependency.
    Tests,
}

/// `from` may use `to`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrow {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) when: When,
    pub(crate) why: &'static str,
}

const fn always(from: &'static str, to: &'static str, why: &'static str) -> Arrow {
    Arrow { from, to, when: When::Always, why }
}

const fn tests(from: &'static str, to: &'static str, why: &'static str) -> Arrow {
    Arrow { from, to, when: When::Tests, why }
}

/// The allowed arrows inside the workspace, from the bottom up.
pub(crate) const ARROWS: &[Arrow] = &[
    always("tidemill-runtime", "tidemill-base", "errors and sizes"),
    always("tidemill-blocks", "tidemill-base", "errors, ids, time"),
    always("tidemill-blocks", "tidemill-runtime", "waiting, in decorators and in-memory drivers"),
    always("tidemill-api", "tidemill-base", "error kinds on the wire"),
    always("tidemill-blocks-test", "tidemill-base", "seeded randomness"),
    always("tidemill-blocks-test", "tidemill-runtime", "time that can be moved"),
    always("tidemill-blocks-test", "tidemill-blocks", "what the suites test"),
    // Drivers: they implement blocks, know no system and not each other.
    always("tidemill-embedded", "tidemill-base", "errors, ids, time"),
    always("tidemill-embedded", "tidemill-runtime", "the writer's thread, supervised tasks"),
    always("tidemill-embedded", "tidemill-blocks", "the traits it implements"),
    tests("tidemill-embedded", "tidemill-blocks-test", "conformance"),
    always("tidemill-remote", "tidemill-base", "errors"),
    always("tidemill-remote", "tidemill-runtime", "waiting between attempts"),
    always("tidemill-remote", "tidemill-blocks", "the traits it implements"),
    tests("tidemill-remote", "tidemill-blocks-test", "conformance"),
    always("tidemill-aws", "tidemill-base", "errors, ids, time"),
    always("tidemill-aws", "tidemill-runtime", "waiting between attempts"),
    always("tidemill-aws", "tidemill-blocks", "the traits it implements"),
    tests("tidemill-aws", "tidemill-blocks-test", "conformance"),
    always("tidemill-postgres", "tidemill-base", "errors, ids, time"),
    always("tidemill-postgres", "tidemill-runtime", "waiting, supervised tasks"),
    always("tidemill-postgres", "tidemill-blocks", "the traits it implements"),
    tests("tidemill-postgres", "tidemill-blocks-test", "conformance"),
    // Systems: they hold blocks and never learn which driver it is. What two systems both need moves down into blocks.
    always("tidemill-batch", "tidemill-base", "errors, ids, time"),
    always("tidemill-batch", "tidemill-runtime", "supervised tasks"),
    always("tidemill-batch", "tidemill-blocks", "everything it does goes through them"),
    tests("tidemill-batch", "tidemill-blocks-test", "faulty blocks, simulated time"),
    // A session is an open job: the grid stands on batch's ranges instead of proving them a second time (decision 0009).
    always("tidemill-grid", "tidemill-base", "errors"),
    always("tidemill-grid", "tidemill-batch", "a session is a job whose tasks come in submissions"),
    always("tidemill-grid", "tidemill-blocks", "packages lie in objects"),
    always("tidemill-grid", "tidemill-runtime", "waiting"),
    always("tidemill-server", "tidemill-grid", "its HTTP edge"),
    always("tidemill-worker", "tidemill-grid", "packages of files, as they are stored"),
    // The worker speaks the systems' inner protocols; both ends ship together.
    always("tidemill-worker", "tidemill-base", "errors, ids, time"),
    always("tidemill-worker", "tidemill-runtime", "supervised tasks"),
    always("tidemill-worker", "tidemill-blocks", "queue, table and objects"),
    always("tidemill-worker", "tidemill-batch", "ranges, claims and reports"),
    always("tidemill-worker", "tidemill-engine", "the grid's tasks run in engines"),
    tests("tidemill-worker", "tidemill-blocks-test", "faulty blocks, simulated time"),
    // Engines: the protocol, the host and the kit. Programs of users link it, so it stays small.
    always("tidemill-engine", "tidemill-base", "errors"),
    always("tidemill-engine", "tidemill-runtime", "supervised tasks, waiting, measuring"),
    // Formulas stand on nothing but errors: whoever serves them brings the rest.
    always("tidemill-pricing", "tidemill-base", "errors"),
    always("tidemill-pricing-engine", "tidemill-base", "errors"),
    always("tidemill-pricing-engine", "tidemill-pricing", "what its functions value"),
    always("tidemill-pricing-engine", "tidemill-engine", "the kit that it is built with"),
    // The query engine is most of the build, so one crate links it and one uses that.
    always("tidemill-query", "tidemill-base", "errors"),
    always("tidemill-query", "tidemill-runtime", "limits on time"),
    // Another face of the engine, a leaf: it knows no users and no system, the server opens it.
    always("tidemill-pgwire", "tidemill-base", "errors, secrets"),
    always("tidemill-pgwire", "tidemill-runtime", "supervised connections, limits on time"),
    always("tidemill-pgwire", "tidemill-query", "every statement goes through the engine"),
    always("tidemill-client", "tidemill-base", "errors"),
    always("tidemill-client", "tidemill-api", "the wire"),
    // The server assembles: it alone names drivers and hands traits to systems.
    always("tidemill-server", "tidemill-base", "errors, ids, time"),
    always("tidemill-server", "tidemill-runtime", "supervised tasks, configuration"),
    always("tidemill-server", "tidemill-blocks", "what it assembles"),
    always("tidemill-server", "tidemill-embedded", "assembly of drivers"),
    always("tidemill-server", "tidemill-aws", "assembly of drivers"),
    always("tidemill-server", "tidemill-postgres", "assembly of drivers"),
    always("tidemill-server", "tidemill-remote", "the listening end of the workers' wire"),
    always("tidemill-server", "tidemill-batch", "a system it serves"),
    always("tidemill-server", "tidemill-query", "SQL over HTTP"),
    always("tidemill-server", "tidemill-pgwire", "SQL over the PostgreSQL wire"),
    always("tidemill-server", "tidemill-api", "the wire"),
    tests("tidemill-server", "tidemill-blocks-test", "the remote driver's conformance, through a real listener"),
    tests("tidemill-server", "tidemill-client", "edges as a client sees them"),
    // The program: commands over the client, and two assemblies, `serve` and `worker`.
    always("tidemill", "tidemill-base", "errors, sizes"),
    always("tidemill", "tidemill-runtime", "configuration, logs, shutdown"),
    always("tidemill", "tidemill-api", "what commands show"),
    always("tidemill", "tidemill-client", "commands speak to a server"),
    always("tidemill", "tidemill-server", "`tidemill serve`"),
    always("tidemill", "tidemill-worker", "`tidemill worker`"),
    always("tidemill", "tidemill-remote", "`tidemill worker` on another machine"),
    always("tidemill", "tidemill-blocks", "handed from the remote driver to the worker"),
    always("tidemill", "tidemill-pricing", "value at risk of the tour's portfolio"),
    always("tidemill", "tidemill-pricing-engine", "`tidemill engine pricing`"),
    always("tidemill", "tidemill-engine", "`tidemill engine program`"),
    always("tidemill", "tidemill-batch", "job files are checked before they are sent; `fleet simulate`"),
];

/// Packages that nothing uses and that may use anything.
pub(crate) const FREE: &[&str] = &["tidemill-fuzz", "tidemill-it", "tidemill-sim", "tidemill-benches", "xtask"];

/// A dependency from outside that only some crates may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Foreign {
    pub(crate) name: &'static str,
    pub(crate) users: &'static [&'static str],
    pub(crate) why: &'static str,
}

const fn only(name: &'static str, users: &'static [&'static str], why: &'static str) -> Foreign {
    Foreign { name, users, why }
}

/// Heavy dependencies, and those that would let a layer leak. Tests may use them anywhere.
pub(crate) const FOREIGN: &[Foreign] = &[
    only("datafusion", &["tidemill-query"], "most of the build; nobody else waits for it"),
    only("fjall", &["tidemill-embedded"], "one crate knows the storage engine"),
    only("rusqlite", &["tidemill-embedded", "tidemill-blocks-test"], "the ledger's driver, and its copy without threads for the simulator"),
    only("aws-config", &["tidemill-aws"], "one crate knows the cloud's interface"),
    only("aws-sdk-sqs", &["tidemill-aws"], "one crate knows the cloud's interface"),
    only("aws-sdk-dynamodb", &["tidemill-aws"], "one crate knows the cloud's interface"),
    only("aws-sdk-dynamodbstreams", &["tidemill-aws"], "one crate knows the cloud's interface"),
    only("aws-sdk-sts", &["tidemill-aws"], "one crate knows the cloud's interface"),
    only("aws-sdk-autoscaling", &["tidemill-aws"], "one crate knows the cloud's interface"),
    only("axum", &["tidemill-server"], "HTTP edges live in one place"),
    only("hyper", &["tidemill-server"], "HTTP edges live in one place"),
    only("s3s", &["tidemill-server"], "the S3 endpoint"),
    only("rust-embed", &["tidemill-server"], "the console's bundle"),
    only("utoipa", &["tidemill-api", "tidemill-server"], "wire types and routes are documented, inner types are not"),
    only(
        "reqwest",
        &["tidemill-client", "tidemill-remote", "tidemill-server"],
        "systems reach the outside through blocks; the server sends traces",
    ),
    only("clap", &["tidemill"], "libraries have no command line"),
    only("indicatif", &["tidemill"], "libraries draw nothing"),
    only("anyhow", &[], "libraries and the program have kinds of errors that a caller can act on"),
];
