//! Sessions of the console: a token in, a cookie out that scripts cannot read and other sites cannot use.

use axum::Json;
use axum::extract::State;
use axum::http::header::{HOST, ORIGIN, SET_COOKIE};
use axum::http::{Extensions, HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use serde::Deserialize;
use tidemill_base::Error;

use super::layer::session_token;
use super::{Auth, Principal, Secret, token};
use crate::AppState;
use crate::audit::Event;
use crate::error::{ApiError, ApiResult};

/// The cookie's name.
pub const SESSION_COOKIE: &str = "tidemill-session";

/// The body of a sign-in.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    token: String,
}

/// Whether a browser says that the request comes from a page of this very server. `Origin` cannot be set by scripts.
pub fn same_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(origin) = headers.get(ORIGIN).and_then(|v| v.to_str().ok()) else { return false };
    // HTTP/2 carries the host in the request's target.
    let host = headers.get(HOST).and_then(|v| v.to_str().ok()).or_else(|| uri.authority().map(|a| a.as_str()));
    let from = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    matches!((from, host), (Some(from), Some(host)) if from.eq_ignore_ascii_case(host))
}

/// `POST /api/v1/session`: opens a session with the token in the body.
pub(super) async fn open(
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
    Json(body): Json<SignIn>,
) -> ApiResult<impl IntoResponse> {
    // Without this another site could sign its visitor in as somebody else, and read what they then enter.
    if headers.contains_key(ORIGIN) && !same_origin(&headers, &uri) {
        return Err(Error::denied("sign in from the console's own page").into());
    }
    let principal = state.auth.authenticate(body.token.trim()).await.map_err(|e| ApiError::unauthenticated(e.message()))?;
    let ttl = state.config.auth.session_ttl.0;
    let secret = state.auth.open_session(&principal, ttl).await?;
    let opened = Event { outcome: "200".to_owned(), ..Event::of(&extensions, principal.clone(), "session.open", principal.user.clone()) };
    state.audit.record(opened).await?;
    let cookie = cookie(secret.expose(), ttl.as_secs(), state.secure);
    Ok(([(SET_COOKIE, cookie)], Json(principal)))
}

/// `GET /api/v1/session`: who one is.
pub(super) async fn show(principal: Principal) -> Json<Principal> {
    Json(principal)
}

/// `DELETE /api/v1/session`: ends the session and takes the cookie away. A bearer token is not ended by this.
pub(super) async fn close(State(state): State<AppState>, headers: HeaderMap, _: Principal) -> ApiResult<impl IntoResponse> {
    if let Some((id, _)) = session_token(&headers).and_then(token::parse) {
        state.auth.revoke(id).await?;
    }
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie("", 0, state.secure))]))
}

fn cookie(value: &str, max_age_seconds: u64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{SESSION_COOKIE}={value}; Path=/; Max-Age={max_age_seconds}; HttpOnly; SameSite=Strict{secure}")
}

impl Auth {
    /// A token for the session of whoever `principal` is: no more than the token it is opened with, and ended together with it.
    async fn open_session(&self, principal: &Principal, ttl: std::time::Duration) -> tidemill_base::Result<Secret> {
        let end = self.env.now() + ttl;
        let parents_end = self.stored(&principal.token_id).await?.and_then(|s| s.ends_at());
        let end = parents_end.map_or(end, |p| p.min(end));
        let opened = self.insert_token(&principal.user, principal.role, &principal.scopes, Some(end), Some(&principal.token_id)).await?;
        Ok(opened.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_the_servers_own_pages_have_its_origin() {
        let check = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("mill:8080"))]);
            headers.extend(origin.map(|o| (ORIGIN, HeaderValue::from_static(o))));
            same_origin(&headers, &Uri::from_static("/"))
        };
        assert!(check(Some("https://mill:8080")) && check(Some("http://MILL:8080")));
        for foreign in [None, Some("null"), Some("https://mill"), Some("https://mill:8080.evil"), Some("https://evil/mill:8080")] {
            assert!(!check(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn the_cookie_is_out_of_reach_of_scripts_and_other_sites() {
        let text = cookie("x", 60, true);
        assert!(text.contains("HttpOnly") && text.contains("SameSite=Strict") && text.ends_with("Secure"), "{text}");
    }
}
