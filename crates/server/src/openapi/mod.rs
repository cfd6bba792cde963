//! The OpenAPI document of the public interface: one table of routes ([`documented`]) and the types of `tidemill_api`.
//!
//! It is served at `/api/v1/openapi.json`. A test asks the assembled server for every documented route, and reads the sources for
//! routes that are not documented.

mod doc;
mod grid;
mod routes;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder, PathsBuilder, Ref, RefOr, Response, ResponseBuilder,
    Schema, Tag,
};
use utoipa::{PartialSchema as _, ToSchema as _};

pub use doc::{Access, Example, RouteDoc};
pub use routes::documented;

use crate::AppState;
use crate::auth::SESSION_COOKIE;

/// The whole document. It depends on nothing but the version, so it can be generated without a server.
pub fn openapi() -> OpenApi {
    let table = documented();
    let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
    tidemill_api::ErrorEnvelope::schemas(&mut schemas);
    schemas.push((tidemill_api::ErrorEnvelope::name().into_owned(), tidemill_api::ErrorEnvelope::schema()));
    let mut paths = PathsBuilder::new();
    for route in &table {
        route.schemas(&mut schemas);
        paths = paths.path(route.openapi_path(), route.path_item());
    }
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .response("Error", error())
        .security_scheme("token", bearer())
        .security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(SESSION_COOKIE))))
        .build();
    let info = InfoBuilder::new().title("Tidemill").version(env!("CARGO_PKG_VERSION")).description(Some(ABOUT)).license(Some(license()));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).tags(Some(tags())).build()
}

const ABOUT: &str = "Jobs, sessions, workers, queues, objects and SQL over HTTP. All times are RFC 3339 text in UTC unless said otherwise, all spans \
are microseconds (`_us`), all sizes bytes. Every answer that is not a success has the body `ErrorEnvelope`, whose `kind` says what to do.";

fn license() -> License {
    let mut license = License::new("Apache-2.0");
    license.identifier = Some("Apache-2.0".to_owned());
    license
}

fn bearer() -> SecurityScheme {
    let text = "A token: `tidemill token create`; on the manager's machine there is one in the data folder's `admin-token`.";
    SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text)).build())
}

fn error() -> Response {
    let schema = Ref::from_schema_name(tidemill_api::ErrorEnvelope::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description("What went wrong, and the next step.").content("application/json", content).build()
}

fn tags() -> Vec<Tag> {
    let tags = [
        ("batch", "Jobs: submit, follow, steer, results, logs."),
        ("grid", "Sessions: open, hand tasks over, follow results, steer; files of results, the archive, packages."),
        ("fleet", "Workers, groups of workers, the overview."),
        ("queues", "Queues and dead letters."),
        ("objects", "Objects, uploads and credentials for S3 clients."),
        ("sql", "Everything the systems know, in SQL."),
        ("auth", "Sessions, users, tokens, the audit log."),
        ("server", "Health, metrics, this document."),
    ];
    let tag = |(name, about): (&str, &str)| {
        let mut tag = Tag::new(name);
        tag.description = Some(about.to_owned());
        tag
    };
    tags.map(tag).into()
}

/// The route. The document is no secret and needs no token.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/openapi.json", get(serve))
}

async fn serve() -> impl IntoResponse {
    // Making it takes well under a millisecond, and it is asked for seldom.
    ([(header::CONTENT_TYPE, "application/json")], openapi().to_json().unwrap_or_default())
}
