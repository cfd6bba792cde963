//! Finding the principal of a request, and refusing requests without one.

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tidemill_base::{Error, ErrorKind};

use super::session::{SESSION_COOKIE, same_origin};
use super::{Principal, Role};
use crate::AppState;
use crate::error::ApiError;

/// Why a request that brought a credential has no principal.
#[derive(Debug, Clone)]
struct Refused(String);

/// The layer that looks at the credential, if there is one, and leaves the [`Principal`] in the request's extensions. It refuses nothing
/// by itself except a cookie used from another site, and a check that could not be made.
pub async fn authenticate(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let found = match credential(request.headers()) {
        None => return next.run(request).await,
        Some(Credential::Bearer(token)) => state.auth.authenticate(token).await,
        Some(Credential::Cookie(token)) => match refuse_foreign(&request) {
            Ok(()) => state.auth.authenticate(token).await,
            Err(e) => return ApiError::from(e).into_response(),
        },
    };
    match found {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
        }
        Err(e) if e.kind() == ErrorKind::Denied => {
            request.extensions_mut().insert(Refused(e.message().to_owned()));
        }
        Err(e) => return ApiError::from(e.context("the credential could not be checked")).into_response(),
    }
    next.run(request).await
}

enum Credential<'r> {
    Bearer(&'r str),
    Cookie(&'r str),
}

/// The token in a request's headers. A bearer token goes before a cookie.
fn credential(headers: &HeaderMap) -> Option<Credential<'_>> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| Credential::Bearer(token.trim()));
    }
    session_token(headers).map(Credential::Cookie)
}

/// The token in the session's cookie.
pub(super) fn session_token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
    cookies.filter_map(|c| c.trim().split_once('=')).find(|(name, _)| *name == SESSION_COOKIE).map(|(_, token)| token)
}

/// A browser sends cookies along whichever page makes it ask. What changes something, or opens a socket, must come from our own pages.
fn refuse_foreign(request: &Request) -> Result<(), Error> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if (reads && !request.headers().contains_key("upgrade")) || same_origin(request.headers(), request.uri()) {
        return Ok(());
    }
    Err(Error::denied("a session's cookie counts only on requests from the console's own pages; use a bearer token elsewhere"))
}

/// The layer that answers 401 to requests without a principal.
pub async fn signed_in(request: Request, next: Next) -> Response {
    match request.extensions().get::<Principal>() {
        Some(_) => next.run(request).await,
        None => unauthenticated(request.extensions().get::<Refused>()).into_response(),
    }
}

fn unauthenticated(refused: Option<&Refused>) -> ApiError {
    ApiError::unauthenticated(refused.map_or("this needs a token", |r| &r.0))
}

/// `router` for those alone whose role includes `role`.
pub fn guard(router: Router<AppState>, role: Role) -> Router<AppState> {
    router.route_layer(from_fn(move |principal: Principal, request: Request, next: Next| async move {
        match principal.require(role) {
            Ok(()) => next.run(request).await,
            Err(e) => ApiError::from(e).into_response(),
        }
    }))
}

/// `router` for those alone whose token has a scope that covers `scope`.
pub fn guard_scope(router: Router<AppState>, scope: &'static str) -> Router<AppState> {
    router.route_layer(from_fn(move |principal: Principal, request: Request, next: Next| async move {
        match principal.require_scope(scope) {
            Ok(()) => next.run(request).await,
            Err(e) => ApiError::from(e).into_response(),
        }
    }))
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| unauthenticated(parts.extensions.get::<Refused>()))
    }
}
