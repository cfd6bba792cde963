//! The table of routes.

use tidemill_api::{
    CredentialRequest, CredentialResponse, DeadLetterList, DeletionProgress, Explanation, FileList, GroupList, JobDetail, JobList,
    JobReport, Overview, PriorityRequest, QueueList, RedriveRequest, RedriveResponse, RetryRequest, RetryResponse, SqlRequest, SqlResponse,
    SubmitRequest, SubmitResponse, TaskList, UploadResponse, WorkerList,
};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::doc::{Access, Body, RouteDoc};
use super::grid;
use crate::audit::Entry;
use crate::auth::{ChangeUser, CreatedToken, NewToken, NewUser, Principal, Role, SignIn, Token, User};
use crate::health::Readiness;

pub(super) const VIEWER: Access = Access::Role(Role::Viewer);
pub(super) const USER: Access = Access::Role(Role::User);
const OPERATOR: Access = Access::Role(Role::Operator);
const ADMIN: Access = Access::Role(Role::Admin);

pub(super) const AFTER: &str = "Where the page before ended: its `next`.";
pub(super) const LIMIT: &str = "How many at most.";

/// Every route of the public interface. The workers' own is between programs of one version and is not for others.
pub fn documented() -> Vec<RouteDoc> {
    let grid = [grid::sessions(), grid::looking(), grid::steering(), grid::data(), grid::packages()].concat();
    [jobs(), steering(), results(), grid, fleet(), queues(), objects(), auth(), server()].into_iter().flatten().collect()
}

fn jobs() -> Vec<RouteDoc> {
    const JOBS: &str = "/api/v1/batch/jobs";
    const JOB: &str = "/api/v1/batch/jobs/{id}";
    let job = |method, path, role, summary| RouteDoc::new(method, path, "batch", role, summary);
    vec![
        job("GET", JOBS, VIEWER, "Lists jobs, newest first.")
            .query("state", "Only those in this state.")
            .query("user", "Only those of this user.")
            .query("after", AFTER)
            .number("limit", LIMIT)
            .gives(200, Body::json::<JobList>()),
        job("POST", JOBS, USER, "Submits a job: as JSON, or the job file itself. 200 when the same token has made it before.")
            .query("client_token", "With a job file: a second submit with the same token gives the first one's job.")
            .takes(Body::json::<SubmitRequest>())
            .takes(Body::text("application/toml"))
            .gives(201, Body::json::<SubmitResponse>()),
        job("GET", JOB, VIEWER, "Shows a job.").gives(200, Body::json::<JobDetail>()),
        job("GET", "/api/v1/batch/jobs/{id}/events", VIEWER, "Follows a job: an event at once and at each change, to its final state.")
            .gives(200, Body::events::<JobDetail>()),
        job("GET", "/api/v1/batch/jobs/{id}/explain", VIEWER, "Why a job, a stage or a task is as it is, and what would move it on.")
            .number("stage", "A stage, from 0.")
            .number("task", "A task of that stage, from 0.")
            .gives(200, Body::json::<Explanation>()),
        job("GET", "/api/v1/batch/jobs/{id}/report", VIEWER, "Times, waste and cost of a job.").gives(200, Body::json::<JobReport>()),
    ]
}

fn steering() -> Vec<RouteDoc> {
    let job = |method, path, summary| RouteDoc::new(method, path, "batch", USER, summary);
    vec![
        job("POST", "/api/v1/batch/jobs/{id}/pause", "Releases nothing new of a job; what runs goes on.")
            .gives(202, Body::json::<Nothing>()),
        job("POST", "/api/v1/batch/jobs/{id}/resume", "Goes on with a paused job.").gives(202, Body::json::<Nothing>()),
        job("POST", "/api/v1/batch/jobs/{id}/cancel", "Ends a job, running tasks included.").gives(202, Body::json::<Nothing>()),
        job("PUT", "/api/v1/batch/jobs/{id}/priority", "Sets a job's priority.")
            .takes(Body::json::<PriorityRequest>())
            .gives(202, Body::json::<Nothing>()),
        job("POST", "/api/v1/batch/jobs/{id}/retry", "Tries failed tasks again.")
            .takes(Body::json::<RetryRequest>())
            .gives(202, Body::json::<RetryResponse>()),
        job("DELETE", "/api/v1/batch/jobs/{id}", "Deletes a job that has ended, with its results, logs and statistics.")
            .gives(202, Body::json::<Nothing>()),
        RouteDoc::new(
            "GET",
            "/api/v1/batch/jobs/{id}/deletion",
            "batch",
            VIEWER,
            "How far a job's deletion has come; 404 once it is gone.",
        )
        .gives(200, Body::json::<DeletionProgress>()),
    ]
}

fn results() -> Vec<RouteDoc> {
    let job = |path, summary| RouteDoc::new("GET", path, "batch", VIEWER, summary);
    vec![
        job("/api/v1/batch/jobs/{id}/tasks", "Lists attempts of a job's tasks.")
            .number("stage", "Only those of this stage, from 0.")
            .query("state", "`running`, `failed`, `succeeded`, `retrying` or `all`.")
            .query("after", AFTER)
            .number("limit", LIMIT)
            .gives(200, Body::json::<TaskList>()),
        job("/api/v1/batch/jobs/{id}/results", "Lists the files that a job's tasks left behind.")
            .query("stage", "A stage's number or name, or `all`; left out: the last.")
            .query("after", AFTER)
            .number("limit", LIMIT)
            .gives(200, Body::json::<FileList>()),
        job("/api/v1/batch/jobs/{id}/files/{stage}/{task}/{*name}", "The bytes of one result file.").gives(200, Body::bytes()),
        job("/api/v1/batch/jobs/{id}/logs/{stage}/{task}", "What a task wrote; `x-tidemill-live: true` while it runs.")
            .query("stream", "`stdout`, `stderr` or `both`.")
            .number("attempt", "Which try, from 1; left out: the running or the last one.")
            .gives(200, Body::text("text/plain")),
    ]
}

fn fleet() -> Vec<RouteDoc> {
    let fleet = |method, path, role, summary| RouteDoc::new(method, path, "fleet", role, summary);
    vec![
        fleet("GET", "/api/v1/fleet/workers", VIEWER, "Lists workers and what they run.").gives(200, Body::json::<WorkerList>()),
        fleet("POST", "/api/v1/fleet/workers/{id}/drain", OPERATOR, "Lets a worker finish what it has and go.")
            .gives(202, Body::json::<Nothing>()),
        fleet("GET", "/api/v1/fleet/groups", VIEWER, "Lists groups of workers, and why they have their size.")
            .gives(200, Body::json::<GroupList>()),
        fleet("GET", "/api/v1/overview", VIEWER, "Everything at a glance.").gives(200, Body::json::<Overview>()),
    ]
}

fn queues() -> Vec<RouteDoc> {
    let queue = |method, path, role, summary| RouteDoc::new(method, path, "queues", role, summary);
    vec![
        queue("GET", "/api/v1/queues", VIEWER, "Lists queues and their counts.").gives(200, Body::json::<QueueList>()),
        queue("GET", "/api/v1/queues/{name}/messages", VIEWER, "Looks at messages without taking them.")
            .number("limit", LIMIT)
            .gives(200, Body::json::<DeadLetterList>()),
        queue("POST", "/api/v1/queues/{name}/redrive", OPERATOR, "Sends dead letters back to where they died.")
            .takes(Body::json::<RedriveRequest>())
            .gives(200, Body::json::<RedriveResponse>()),
    ]
}

fn objects() -> Vec<RouteDoc> {
    let object = |method, path, role, summary| RouteDoc::new(method, path, "objects", role, summary);
    vec![
        object("POST", "/api/v1/uploads", USER, "A fresh prefix to upload input under.").gives(201, Body::json::<UploadResponse>()),
        object("GET", "/api/v1/objects/{*path}", VIEWER, "The bytes of an object.").gives(200, Body::bytes()),
        object("PUT", "/api/v1/objects/{*path}", USER, "Stores an object; it is visible when all of it is there.")
            .takes(Body::bytes())
            .empty(201),
        object("POST", "/api/v1/credentials", USER, "A temporary credential for S3 clients; a viewer may have one that only reads.")
            .takes(Body::json::<CredentialRequest>())
            .gives(201, Body::json::<CredentialResponse>()),
        RouteDoc::new("POST", "/api/v1/sql", "sql", VIEWER, "Asks in SQL. The `Accept` header chooses the form of the answer.")
            .takes(Body::json::<SqlRequest>())
            .gives(200, Body::json::<SqlResponse>())
            .gives(200, Body::text("text/csv"))
            .gives(200, Body::text("text/plain")),
    ]
}

fn auth() -> Vec<RouteDoc> {
    let auth = |method, path, role, summary| RouteDoc::new(method, path, "auth", role, summary);
    vec![
        auth("POST", "/api/v1/session", Access::Anybody, "Signs in: a token for a cookie.")
            .takes(Body::json::<SignIn>())
            .gives(200, Body::json::<Principal>()),
        auth("GET", "/api/v1/session", Access::SignedIn, "Who the caller is.").gives(200, Body::json::<Principal>()),
        auth("DELETE", "/api/v1/session", Access::SignedIn, "Signs out.").empty(204),
        auth("GET", "/api/v1/tokens", Access::SignedIn, "Lists one's own tokens, an administrator everybody's.")
            .query("user", "Only those of this user.")
            .gives(200, Body::list::<Token>()),
        auth("POST", "/api/v1/tokens", Access::SignedIn, "Makes a token no greater than one's own; its secret is shown once.")
            .takes(Body::json::<NewToken>())
            .gives(201, Body::json::<CreatedToken>()),
        auth("DELETE", "/api/v1/tokens/{id}", Access::SignedIn, "Revokes a token.").empty(204),
        auth("GET", "/api/v1/users", ADMIN, "Lists users.").gives(200, Body::list::<User>()),
        auth("POST", "/api/v1/users", ADMIN, "Makes a user.").takes(Body::json::<NewUser>()).empty(201),
        auth("PATCH", "/api/v1/users/{name}", ADMIN, "Sets a user's role.").takes(Body::json::<ChangeUser>()).empty(204),
        auth("DELETE", "/api/v1/users/{name}", ADMIN, "Removes a user and the user's tokens.").empty(204),
        auth("GET", "/api/v1/audit", ADMIN, "Who changed what, newest first.")
            .query("user", "Only what this user did.")
            .query("before", "Only lines before the line with this id.")
            .number("limit", LIMIT)
            .gives(200, Body::list::<Entry>()),
    ]
}

fn server() -> Vec<RouteDoc> {
    let server = |path, summary| RouteDoc::new("GET", path, "server", Access::Anybody, summary);
    vec![
        server("/livez", "Whether the process lives.").gives(200, Body::text("text/plain")),
        server("/readyz", "Whether the server is ready; 503 with what it waits for when it is not.").gives(200, Body::json::<Readiness>()),
        server("/metrics", "Prometheus metrics. Beyond loopback this needs a viewer's token.").gives(200, Body::text("text/plain")),
        server("/api/v1/openapi.json", "This document.").gives(200, Body::text("application/json")),
    ]
}

/// An empty object: there is nothing to tell.
pub(super) struct Nothing;

impl PartialSchema for Nothing {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Object).description(Some("Nothing to tell.")).into()
    }
}

impl ToSchema for Nothing {}
