//! What an error of the SDK means to a caller.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tidemill_base::{Error, ErrorKind};

use crate::calls::is_throttling;

/// AWS does not know us, or does not believe us.
const UNKNOWN: [&str; 10] = [
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "InvalidSecurity",
    "NotAuthorized",
];

/// The kind of an error that a service answered with `code` and the HTTP status `status`.
pub(crate) fn kind_of(code: &str, status: u16) -> ErrorKind {
    let code = code.rsplit(['#', '.']).next().unwrap_or(code);
    match code {
        "QueueDoesNotExist" | "NonExistentQueue" | "ResourceNotFoundException" => ErrorKind::NotFound,
        "ConditionalCheckFailedException" | "QueueNameExists" | "QueueAlreadyExists" => ErrorKind::Conflict,
        "OverLimit" => ErrorKind::Exhausted,
        // Passing states: a transaction on the same item, a table that is being made, a queue that has just been removed.
        "TransactionConflictException"
        | "TransactionInProgressException"
        | "ResourceInUseException"
        | "LimitExceededException"
        | "QueueDeletedRecently"
        | "PurgeQueueInProgress"
        | "InternalServerError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "RequestTimeout" => ErrorKind::Unavailable,
        _ if is_throttling(code) || status >= 500 || status == 429 => ErrorKind::Unavailable,
        _ if is_denial(code) || status == 401 || status == 403 => ErrorKind::Denied,
        _ => ErrorKind::Invalid,
    }
}

fn is_denial(code: &str) -> bool {
    code.contains("AccessDenied") || is_expired(code) || UNKNOWN.contains(&code)
}

fn is_expired(code: &str) -> bool {
    code.contains("ExpiredToken") || code == "RequestExpired"
}

/// What to do about a denial, for the end of its message.
fn advice(code: &str) -> &'static str {
    if is_expired(code) {
        "the credentials have expired; renew them (`aws sso login`, or let the instance's role do it)"
    } else if UNKNOWN.contains(&code) {
        "AWS does not take these credentials; see that AWS_PROFILE, or AWS_ACCESS_KEY_ID with its secret and token, is the one meant"
    } else {
        "the role lacks a permission for this; allow the action that is named"
    }
}

/// Turns an error of any of the SDK's clients into ours; `doing` names the call and what it was made on.
pub(crate) fn error<E>(doing: impl std::fmt::Display, e: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let SdkError::ServiceError(service) = &e else {
        return unanswered(doing, e);
    };
    let status = service.raw().status().as_u16();
    let code = service.err().code().unwrap_or("unknown").to_owned();
    let said = service.err().message().unwrap_or("no more is said").to_owned();
    let kind = kind_of(&code, status);
    let message = match kind {
        ErrorKind::Denied => format!("{doing}: {} ({code}: {said})", advice(&code)),
        ErrorKind::Unavailable if is_throttling(&code) => format!("{doing}: throttled, also after pauses ({code}: {said})"),
        _ => format!("{doing}: {said} ({code})"),
    };
    Error::new(kind, message).with_source(e)
}

/// No answer came, or none that can be read: whether the request took effect is not known, unless it was never sent.
fn unanswered<E>(doing: impl std::fmt::Display, e: SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    let chain = causes(&e);
    // The request is signed before it is sent, so a failure to find credentials comes as a failure to send.
    if chain.contains("credential") || chain.contains("identity") {
        let message = format!("{doing}: no AWS credentials were found; set AWS_PROFILE, or run where a role is attached");
        return Error::denied(message).with_source(e);
    }
    match &e {
        SdkError::ConstructionFailure(_) => Error::invalid(format!("{doing}: the request could not be made")).with_source(e),
        SdkError::TimeoutError(_) => Error::unavailable(format!("{doing}: no answer in time")).with_source(e),
        _ => Error::unavailable(format!("{doing}: AWS cannot be reached, or its answer was cut off")).with_source(e),
    }
}

/// An error with all its causes, on one line.
fn causes(e: &dyn std::error::Error) -> String {
    let (mut out, mut next) = (e.to_string(), e.source());
    while let Some(cause) = next {
        out.push_str(": ");
        out.push_str(&cause.to_string());
        next = cause.source();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_kinds() {
        for (code, status, kind) in [
            ("com.amazonaws.sqs#QueueDoesNotExist", 400, ErrorKind::NotFound),
            ("AWS.SimpleQueueService.NonExistentQueue", 400, ErrorKind::NotFound),
            ("ThrottlingException", 400, ErrorKind::Unavailable),
            ("ProvisionedThroughputExceededException", 400, ErrorKind::Unavailable),
            ("RequestThrottled", 403, ErrorKind::Unavailable),
            ("anything", 503, ErrorKind::Unavailable),
            ("AccessDeniedException", 400, ErrorKind::Denied),
            ("ExpiredTokenException", 400, ErrorKind::Denied),
            ("KMS.AccessDeniedException", 400, ErrorKind::Denied),
            ("UnrecognizedClientException", 400, ErrorKind::Denied),
            ("ConditionalCheckFailedException", 400, ErrorKind::Conflict),
            ("TransactionInProgressException", 400, ErrorKind::Unavailable),
            ("ValidationException", 400, ErrorKind::Invalid),
            ("OverLimit", 403, ErrorKind::Exhausted),
        ] {
            assert_eq!(kind_of(code, status), kind, "{code}");
        }
    }

    #[test]
    fn a_denial_says_what_to_do() {
        assert!(advice("ExpiredTokenException").contains("renew"));
        assert!(advice("InvalidClientTokenId").contains("AWS_PROFILE"));
        assert!(advice("AccessDenied").contains("permission"));
    }
}
