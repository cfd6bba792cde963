//! Errors as every HTTP edge answers them: a status and one JSON envelope.
//!
//! `{"error":{"kind":"invalid","message":"...","hint":"...","request_id":"r..."}}`, with `kind` a word of
//! [`ErrorKind::as_str`]. Handlers return [`ApiResult`]; the layer [`envelope`] adds the request's id, and turns what axum and tower
//! answer by themselves (no such route, body too large) into the same shape.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tidemill_base::{Error, ErrorKind};
use tidemill_remote::wire::{Envelope, EnvelopeBody};

use crate::request::RequestId;

/// What a handler returns.
pub type ApiResult<T> = Result<T, ApiError>;

/// An error on its way to a caller: made from an [`Error`] by `?`.
#[derive(Debug)]
pub struct ApiError {
    error: Error,
    status: StatusCode,
    hint: Option<String>,
}

impl ApiError {
    /// No credential, or none that is known: status 401.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        let hint = "send `Authorization: Bearer TOKEN`; on the manager's machine the token is in the data folder's `admin-token`";
        Self::from(Error::denied(message)).with_status(StatusCode::UNAUTHORIZED).with_hint(hint)
    }

    /// Another status than the kind's own.
    #[must_use]
    pub const fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// What the caller should do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error inside.
    pub const fn error(&self) -> &Error {
        &self.error
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self { status: status_of(error.kind()), error, hint: None }
    }
}

/// The status of a kind.
pub const fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Corrupt | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What the envelope will say; rides in the response's extensions until the layer knows the request's id.
#[derive(Debug, Clone)]
struct Said {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    chain: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let said = Said { kind: self.error.kind(), message: self.error.message().to_owned(), hint: self.hint, chain: self.error.chain() };
        let mut response = render(self.status, &said, None);
        response.extensions_mut().insert(said);
        response
    }
}

fn render(status: StatusCode, said: &Said, request_id: Option<String>) -> Response {
    let body = EnvelopeBody { kind: said.kind.as_str().to_owned(), message: said.message.clone(), hint: said.hint.clone(), request_id };
    let mut response = (status, axum::Json(Envelope { error: body })).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The layer that gives every error its envelope. Failures of our own are logged with their causes, which the caller is not told.
pub async fn envelope(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let said = match parts.extensions.remove::<Said>() {
        Some(said) => said,
        None if has_own_body(&parts.headers) || method == Method::HEAD => return Response::from_parts(parts, body),
        None => foreign(status, &method, &path, body).await,
    };
    if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
        tracing::error!(request_id = id, %method, path, error = said.chain, "request failed");
    }
    let mut rendered = render(status, &said, id);
    for (name, value) in &parts.headers {
        if !matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH) {
            rendered.headers_mut().insert(name, value.clone());
        }
    }
    rendered
}

fn has_own_body(headers: &axum::http::HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|t| !t.as_bytes().starts_with(b"text/plain"))
}

/// What axum or tower said in plain text, in our words.
async fn foreign(status: StatusCode, method: &Method, path: &str, body: Body) -> Said {
    let text = to_bytes(body, 4096).await.map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let (kind, message, hint) = match status {
        StatusCode::NOT_FOUND if text.is_empty() => (ErrorKind::NotFound, format!("there is no route {method} {path}"), None),
        StatusCode::METHOD_NOT_ALLOWED => (ErrorKind::Invalid, format!("{path} does not take {method}"), None),
        StatusCode::PAYLOAD_TOO_LARGE => {
            let hint = "send less at once, store large data as objects, or raise `limits.max-body`";
            (ErrorKind::Exhausted, "the body is larger than this route takes".to_owned(), Some(hint.to_owned()))
        }
        _ if text.is_empty() => (kind_of(status), status.to_string(), None),
        _ => (kind_of(status), text, None),
    };
    Said { kind, chain: message.clone(), message, hint }
}

const fn kind_of(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 | 412 => ErrorKind::Conflict,
        413 | 429 => ErrorKind::Exhausted,
        408 | 503 | 504 => ErrorKind::Unavailable,
        500.. => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    }
}
