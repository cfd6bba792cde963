//! The manager's half of `tidemill-remote`: queue, table and objects for workers, as far as they reach.
//!
//! Each call of a block is a POST; see `tidemill_remote::wire`. A request must carry the protocol's version and a token of the role
//! `worker` (or of an administrator, who reaches everything). The ledger, the grants and the fleet are not here: a worker that could
//! write those could make itself an administrator. Of the grants there is one call: the credential of a task that the worker holds.

mod objects;
mod queue;
mod reach;
mod table;
mod tasks;
mod uploads;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tidemill_base::{Env, Error, Result};
use tidemill_batch::service::FencedGrants;
use tidemill_blocks::Blocks;
use tidemill_remote::wire::{self, Call, Hello, POSTCARD, PROTOCOL, PROTOCOL_HEADER, QueueCapabilities, Welcome};
use tidemill_runtime::Shutdown;

pub use self::reach::WorkerReach;
pub(crate) use self::tasks::usable;
use self::uploads::Uploads;
use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::{ApiError, ApiResult};

/// What the handlers share.
#[derive(Debug)]
struct Edge {
    blocks: Blocks,
    reach: WorkerReach,
    shutdown: Shutdown,
    uploads: Uploads,
    grants: FencedGrants,
    max_body: usize,
}

type Shared = State<Arc<Edge>>;

/// The routes, for [`crate::Edges::workers`]. `max_body` bounds each request's body, in bytes.
pub fn routes(blocks: Blocks, reach: WorkerReach, env: Env, shutdown: Shutdown, max_body: usize) -> Router<AppState> {
    let (issuer, table, objects) = (blocks.grants.clone(), blocks.table.clone(), blocks.objects.clone());
    let grants = FencedGrants::new(issuer, table, objects, env.clone());
    let edge = Edge { blocks, reach, shutdown, uploads: Uploads::new(env), grants, max_body };
    let router = call(Router::new(), hello);
    let router = tasks::routes(objects::routes(table::routes(queue::routes(router))));
    router.layer(DefaultBodyLimit::max(max_body)).route_layer(from_fn(admit)).with_state(Arc::new(edge))
}

/// Adds the route of one kind of call.
fn call<C, F, Fut>(router: Router<Arc<Edge>>, handler: F) -> Router<Arc<Edge>>
where
    C: Call + 'static,
    F: Fn(Arc<Edge>, Principal, C) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<C::Answer>> + Send,
{
    let route = post(move |State(edge): Shared, who: Principal, body: Bytes| async move {
        let answer = handler(edge, who, wire::decode::<C>(&body)?).await?;
        postcard_answer(&answer)
    });
    router.route(C::PATH, route)
}

fn postcard_answer<T: serde::Serialize>(answer: &T) -> ApiResult<Response> {
    Ok(([(CONTENT_TYPE, POSTCARD)], wire::encode(answer)?).into_response())
}

async fn hello(edge: Arc<Edge>, _: Principal, _: Hello) -> Result<Welcome> {
    let c = edge.blocks.queue.capabilities();
    let queue = QueueCapabilities { strict_leases: c.strict_leases, exact_stats: c.exact_stats, exact_browse: c.exact_browse };
    Ok(Welcome { version: env!("CARGO_PKG_VERSION").to_owned(), queue })
}

/// The layer that lets in workers of our protocol and nobody else.
async fn admit(who: Principal, request: Request, next: Next) -> Response {
    let theirs = request.headers().get(PROTOCOL_HEADER).and_then(|v| v.to_str().ok());
    match check_protocol(theirs).and_then(|()| who.require(Role::Worker)) {
        Ok(()) => next.run(request).await,
        Err(e) => ApiError::from(e).into_response(),
    }
}

fn check_protocol(theirs: Option<&str>) -> Result<()> {
    if theirs.and_then(|t| t.parse().ok()) == Some(PROTOCOL) {
        return Ok(());
    }
    let said = theirs.map_or_else(|| "names no protocol".to_owned(), |t| format!("speaks protocol {}", t.escape_debug()));
    Err(Error::invalid(format!(
        "the worker {said} and the manager (tidemill {}) speaks protocol {PROTOCOL}; install the same version on both",
        env!("CARGO_PKG_VERSION")
    )))
}
