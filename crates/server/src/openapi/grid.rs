//! The grid's part of the table of routes.

use tidemill_api::{
    ArchiveDetail, ArchiveRequest, CancelTasksRequest, CancelTasksResponse, CollectRequest, Collected, OpenSessionRequest,
    OpenSessionResponse, PackageDetail, PackageList, PackageManifest, PriorityRequest, PublishPackageResponse, RetryRequest, RetryResponse,
    SessionDetail, SessionEngines, SessionFailures, SessionList, SessionProgress, SubmitTasksResponse, TaskFailureDetail, TasksFromRequest,
    TasksFromResponse,
};

use super::doc::{Access, Body, RouteDoc};
use super::routes::{AFTER, LIMIT, Nothing, USER, VIEWER};

const UNKNOWN: &str = "There is no such session.";
const NOT_ONES_OWN: &str = "The session is somebody else's, and the caller is no operator.";
const NO_MORE: &str = "The session has ended, is being cancelled, or is closed: it takes no more tasks.";
const UNKNOWN_ARCHIVE: &str = "There is no archive of such a session.";

const DETAIL: &str = r#"{"id":"j1m8034gkhk1hgzn","name":"overnight","user":"ann","engine":"python","function":"risk:value","class":"default",
    "priority":0,"state":"running","reason":"","open":true,"tasks":{"total":501000,"succeeded":120000,"failed":1,"running":20,"waiting":380979,
    "retrying":0,"cancelled":0,"skipped":0},"attempts":120001,"deliveries":412,"run_seconds":10.9,"mean_seconds":0.00009,"cost":0.0,
    "labels":{"desk":"rates"},"opened_at":"2026-01-30T22:00:00.000000Z","started_at":"2026-01-30T22:00:00.004120Z","finished_at":null}"#;

const ARCHIVED: &str = r#"{"session":"j1m8034gkhk1hgzn","state":"archived","tasks":501000,"records":501000,"parts":9,"bytes":7340032,
    "archived_at":"2026-02-06T03:00:00.000000Z","due_at":null,"readable_until":null,"facts":{"name":"overnight","user":"ann"}}"#;

fn route(method: &'static str, path: &'static str, role: Access, summary: &'static str) -> RouteDoc {
    RouteDoc::new(method, path, "grid", role, summary)
}

/// What is done to one's own session.
fn change(method: &'static str, path: &'static str, summary: &'static str) -> RouteDoc {
    route(method, path, USER, summary).error(403, NOT_ONES_OWN).error(404, UNKNOWN)
}

pub(super) fn sessions() -> Vec<RouteDoc> {
    vec![
        route("GET", "/api/v1/grid/sessions", VIEWER, "Lists sessions, newest first.")
            .query("state", "Only those in this state.")
            .query("user", "Only those of this user.")
            .query("after", AFTER)
            .number("limit", LIMIT)
            .gives(200, Body::json::<SessionList>())
            .error(400, "`state` is no state of a session."),
        route("POST", "/api/v1/grid/sessions", USER, "Opens a session. 200 when the same token has opened it before.")
            .takes(Body::such_as::<OpenSessionRequest>(
                r#"{"session":{"name":"overnight","engine":"python","function":{"module":"risk:value"},"setup_function":{"module":"risk:load"},
                "input":"json","output":"json","timeout":"30s","retry":{"attempts":3},"parameters":{"as-of":"2026-01-30"},
                "packages":["calendars@2026-01"],"labels":{"desk":"rates"}},"setup":"eyJjdXJ2ZXMiOiB7fX0=","client_token":"4f1c9a"}"#,
            ))
            .gives(201, Body::such_as::<OpenSessionResponse>(r#"{"id":"j1m8034gkhk1hgzn","existing":false}"#))
            .error(400, "The session does not read or cannot be; the message names the field.")
            .error(404, "A package that it names, or the object of `setup_object`, does not exist."),
        route("GET", "/api/v1/grid/sessions/{id}", VIEWER, "Shows a session: state, counts of tasks, deliveries, times, cost.")
            .gives(200, Body::such_as::<SessionDetail>(DETAIL))
            .error(404, UNKNOWN),
        change("POST", "/api/v1/grid/sessions/{id}/tasks", "Hands tasks over: a submission (`TMS1`, see the guide to streams of the grid).")
            .query("client_token", "A second call with the same token answers with the first one's tasks. Send one, and repeat after a broken call.")
            .takes(Body::bytes())
            .gives(201, Body::such_as::<SubmitTasksResponse>(r#"{"first":0,"count":100000,"existing":false}"#))
            .error(400, "The bytes are no submission, it is longer than 256 MiB, or a task needs one that does not come before it.")
            .error(409, NO_MORE),
        route("GET", "/api/v1/grid/sessions/{id}/results", VIEWER, "Follows results: frames of deliveries in the order of their numbers.")
            .number("after", "Only deliveries after this one: the number of the last one seen.")
            .number("wait", "Go on for so many seconds, 300 at most; 0: what there is.")
            .query("early", "`true`: give results of single calls ahead of their delivery, under the number of the one before. For clients that keep no cursor.")
            .gives(200, Body::bytes_of(tidemill_grid::stream::MEDIA_TYPE))
            .error(404, UNKNOWN),
    ]
}

pub(super) fn looking() -> Vec<RouteDoc> {
    let look = |path, summary| route("GET", path, VIEWER, summary).error(404, UNKNOWN);
    vec![
        look("/api/v1/grid/sessions/{id}/progress", "How a session went: tasks that ended in each of equal steps of time.")
            .number("points", "Into how many steps, 1 to 1,000.")
            .gives(200, Body::json::<SessionProgress>()),
        look("/api/v1/grid/sessions/{id}/failures", "Why tasks failed for good, in groups, the largest first.")
            .gives(200, Body::json::<SessionFailures>()),
        look("/api/v1/grid/sessions/{id}/tasks/{task}/failure", "Why one task failed for good, with its traceback.")
            .gives(200, Body::json::<TaskFailureDetail>())
            .error(404, "There is no such session, or the task has not failed for good."),
        look("/api/v1/grid/sessions/{id}/engines", "Engines that run a session's tasks, as their workers last told.")
            .gives(200, Body::json::<SessionEngines>()),
    ]
}

pub(super) fn steering() -> Vec<RouteDoc> {
    vec![
        change("POST", "/api/v1/grid/sessions/{id}/close", "Takes no more tasks: the session ends when those that it has have ended.")
            .gives(202, Body::json::<Nothing>()),
        change("POST", "/api/v1/grid/sessions/{id}/pause", "Releases nothing new of a session; what runs goes on.")
            .gives(202, Body::json::<Nothing>()),
        change("POST", "/api/v1/grid/sessions/{id}/resume", "Goes on with a paused session.").gives(202, Body::json::<Nothing>()),
        change("POST", "/api/v1/grid/sessions/{id}/cancel", "Ends a session, running tasks included.").gives(202, Body::json::<Nothing>()),
        change("PUT", "/api/v1/grid/sessions/{id}/priority", "Sets a session's priority.")
            .takes(Body::such_as::<PriorityRequest>(r#"{"priority":5}"#))
            .gives(202, Body::json::<Nothing>())
            .error(400, "The priority is not within -1000 to 1000."),
        change("POST", "/api/v1/grid/sessions/{id}/retry", "Tries failed tasks again: those named, or all.")
            .takes(Body::such_as::<RetryRequest>(r#"{"tasks":[{"stage":0,"task":7}]}"#))
            .gives(202, Body::such_as::<RetryResponse>(r#"{"tasks":1}"#))
            .error(409, "The session is such that nothing of it can be tried again; the message says why."),
        change(
            "POST",
            "/api/v1/grid/sessions/{id}/tasks/cancel",
            "Gives up tasks of a session that have not begun, or with `running` those that run as well. Asking again changes nothing.",
        )
        .takes(Body::such_as::<CancelTasksRequest>(r#"{"tasks":[{"first":100,"count":50},{"first":7}],"running":false}"#))
        .gives(202, Body::such_as::<CancelTasksResponse>(r#"{"cancelled":49,"asked":1,"ended":1}"#))
        .error(400, "The session has no such tasks."),
        change(
            "POST",
            "/api/v1/grid/sessions/{id}/keep-alive",
            "Says that the session's client is there. Submitting tasks and following results says so too.",
        )
        .gives(202, Body::json::<Nothing>()),
        change("DELETE", "/api/v1/grid/sessions/{id}", "Deletes a session that has ended, with its tasks and results.")
            .gives(202, Body::json::<Nothing>())
            .error(409, "The session has not ended."),
    ]
}

pub(super) fn data() -> Vec<RouteDoc> {
    vec![
        change(
            "POST",
            "/api/v1/grid/sessions/{id}/tasks-from",
            "Makes tasks from rows: of objects, or of a database that the configuration names.",
        )
        .takes(Body::such_as::<TasksFromRequest>(r#"{"objects":["data/trades/*.parquet"],"rows":1000,"columns":["id","notional"]}"#))
        .gives(201, Body::such_as::<TasksFromResponse>(r#"{"runs":[[0,412]],"count":412,"existing":0}"#))
        .error(400, "The request, a pattern, a column or the data cannot be; the session takes neither `json` nor `arrow`.")
        .error(409, NO_MORE)
        .error(429, "The query answers more than 2 GiB."),
        route("POST", "/api/v1/grid/sessions/{id}/collect", USER, "Writes results, or the rows of a query, to objects, with a manifest.")
            .takes(Body::such_as::<CollectRequest>(
                r#"{"to":"data/out/","format":"parquet","sql":"SELECT * FROM grid.j1m8034gkhk1hgzn ORDER BY _task"}"#,
            ))
            .gives(201, Body::such_as::<Collected>(COLLECTED))
            .error(400, "`to` or `format` cannot be, or the statement is refused.")
            .error(404, UNKNOWN),
        change("POST", "/api/v1/grid/sessions/{id}/archive", "Puts a session that has ended into the archive, and reads it back.")
            .takes(Body::such_as::<ArchiveRequest>(r#"{"delete":true}"#))
            .gives(201, Body::such_as::<ArchiveDetail>(ARCHIVED))
            .error(409, "The session has not ended, or went on meanwhile."),
        route("GET", "/api/v1/grid/archives/{id}", VIEWER, "Shows an archived session.")
            .gives(200, Body::such_as::<ArchiveDetail>(ARCHIVED))
            .error(404, UNKNOWN_ARCHIVE),
        change("DELETE", "/api/v1/grid/archives/{id}", "Removes an archive.")
            .gives(202, Body::json::<Nothing>())
            .error(404, UNKNOWN_ARCHIVE),
        change(
            "POST",
            "/api/v1/grid/archives/{id}/restore",
            "Asks for an archived session: its results can be read after `archive.delay`.",
        )
        .gives(202, Body::json::<ArchiveDetail>())
        .error(404, UNKNOWN_ARCHIVE),
        change("POST", "/api/v1/grid/archives/{id}/rerun", "Opens a session with what an archived one had, and hands it the same tasks.")
            .gives(201, Body::json::<OpenSessionResponse>())
            .error(404, UNKNOWN_ARCHIVE)
            .error(409, "The archive has not been brought back; ask for it with `restore`, and wait until `due_at`."),
    ]
}

const COLLECTED: &str = r#"{"session":"j1m8034gkhk1hgzn","sql":"SELECT * FROM grid.j1m8034gkhk1hgzn ORDER BY _task","format":"parquet","rows":501000,
    "files":[{"path":"data/out/j1m8034gkhk1hgzn-00000.parquet","rows":501000,"bytes":4194304,
    "sha256":"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}],"manifest":"data/out/j1m8034gkhk1hgzn.manifest.json"}"#;

const DIGEST: &str = r#"{"published":false,"existing":false,"digest":"fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9",
    "missing":["2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"]}"#;

pub(super) fn packages() -> Vec<RouteDoc> {
    vec![
        route("GET", "/api/v1/grid/packages", VIEWER, "Lists versions of packages, each package's newest last.")
            .query("name", "Only those of this package.")
            .gives(200, Body::json::<PackageList>()),
        route(
            "POST",
            "/api/v1/grid/packages",
            USER,
            "Publishes a version, or says which files have to be sent first. 200 when nothing was new.",
        )
        .takes(Body::such_as::<PackageManifest>(
            r#"{"name":"calendars","version":"2026-01","files":[{"path":"nyse.csv","size":3,
                "sha256":"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae","executable":false}]}"#,
        ))
        .gives(201, Body::such_as::<PublishPackageResponse>(DIGEST))
        .error(400, "A name, a path, a size or a hash cannot be; the message names it.")
        .error(409, "The version is there with other files: a version never changes."),
        route("PUT", "/api/v1/grid/packages/blobs/{sha256}", USER, "Takes a file's bytes, which have to be what their name says.")
            .takes(Body::bytes())
            .empty(201)
            .error(400, "The bytes have another hash, or are more than 4 GiB."),
        route("GET", "/api/v1/grid/packages/{name}/{version}", VIEWER, "Shows a version with its files.")
            .gives(200, Body::json::<PackageDetail>())
            .error(404, "There is no such version."),
        route("DELETE", "/api/v1/grid/packages/{name}/{version}", USER, "Removes a version.")
            .empty(204)
            .error(403, "Somebody else has published it, and the caller is no operator.")
            .error(404, "There is no such version.")
            .error(409, "A session that has not ended pins it."),
    ]
}
