//! From an answer, or the lack of one, to the error that callers know.

use std::fmt;

use tidemill_api::ErrorEnvelope;
use tidemill_base::{Error, ErrorKind};

/// The next step that came with an error: the cause of the [`Error`], so that it is printed with it and found again.
#[derive(Debug)]
struct NextStep(String);

impl fmt::Display for NextStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NextStep {}

/// The next step that the server, or the client itself, named with an error.
pub fn hint(error: &Error) -> Option<&str> {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(step) = cause.downcast_ref::<NextStep>() {
            return Some(&step.0);
        }
        next = cause.source();
    }
    None
}

/// Adds the next step to an error.
pub(crate) fn with_hint(error: Error, step: impl Into<String>) -> Error {
    error.with_source(NextStep(step.into()))
}

/// The error in an answer of status `status` with this body.
pub(crate) fn answered(status: u16, body: &[u8]) -> Error {
    let Ok(envelope) = serde_json::from_slice::<ErrorEnvelope>(body) else {
        let text: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
        let said = if text.is_empty() { String::new() } else { format!(": {text}") };
        return Error::new(kind_of(status), format!("the server answered with status {status}{said}"));
    };
    let said = envelope.error;
    let error = Error::new(ErrorKind::from_word(&said.kind), said.message);
    match (said.hint, error.kind()) {
        (Some(step), _) => with_hint(error, step),
        (None, ErrorKind::Internal) if !said.request_id.is_empty() => {
            with_hint(error, format!("the server's log has more under the request `{}`", said.request_id))
        }
        _ => error,
    }
}

/// The kind of an answer that is not ours, from a proxy for example.
const fn kind_of(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 | 412 => ErrorKind::Conflict,
        413 | 429 => ErrorKind::Exhausted,
        408 | 502..=504 => ErrorKind::Unavailable,
        500.. => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    }
}

/// The error of a request that got no answer.
pub(crate) fn unanswered(url: &str, error: reqwest::Error) -> Error {
    // The URL in reqwest's own text is the full one of the request; ours is what the user gave.
    let error = error.without_url();
    if error.is_connect() {
        let message = format!("cannot reach the server at {url}");
        let cause = root(&error).to_string();
        return with_hint(Error::unavailable(format!("{message} ({cause})")), "start one with `tidemill serve`");
    }
    if error.is_timeout() {
        return Error::unavailable(format!("the server at {url} did not answer in time")).with_source(error);
    }
    if error.is_builder() {
        return Error::invalid(format!("`{url}` cannot be asked")).with_source(error);
    }
    Error::unavailable(format!("the connection to {url} broke")).with_source(error)
}

fn root<'e>(error: &'e (dyn std::error::Error + 'static)) -> &'e (dyn std::error::Error + 'static) {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_keeps_kind_message_and_hint() {
        let body = br#"{"error":{"kind":"not_found","message":"there is no job `j1`","hint":"`tidemill batch list`","request_id":"r1"}}"#;
        let error = answered(404, body);
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.message(), "there is no job `j1`");
        assert_eq!(hint(&error), Some("`tidemill batch list`"));
    }

    #[test]
    fn an_internal_error_names_the_request() {
        let error = answered(500, br#"{"error":{"kind":"internal","message":"a bug","request_id":"r7"}}"#);
        assert!(hint(&error).is_some_and(|h| h.contains("`r7`")));
    }

    #[test]
    fn what_a_proxy_says_is_judged_by_its_status() {
        let error = answered(502, b"<html>Bad Gateway</html>");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.message(), "the server answered with status 502: <html>Bad Gateway</html>");
        assert_eq!(hint(&error), None);
        assert_eq!(answered(404, b"").message(), "the server answered with status 404");
    }
}
