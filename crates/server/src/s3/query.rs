//! What the query and headers of a request say about its authentication.

use hyper::{HeaderMap, Uri};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::names::url_decode;

/// The longest life of a presigned link, in seconds: seven days, as on AWS.
const MAX_PRESIGN_SECONDS: u64 = 7 * 24 * 3600;

/// The values of a query parameter whose name is compared without regard to case. `Err`: a value is malformed.
fn values(uri: &Uri, name: &str) -> S3Result<Vec<String>> {
    let mut out = Vec::new();
    for pair in uri.query().unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if url_decode(key).is_some_and(|k| k.eq_ignore_ascii_case(name)) {
            out.push(url_decode(value).ok_or_else(|| s3_error!(InvalidURI, "the parameter `{}` is malformed", name))?);
        }
    }
    Ok(out)
}

/// The session token, from the header or the query. More than one is refused: which one was signed would be a guess.
pub(super) fn session_token(uri: &Uri, headers: &HeaderMap) -> S3Result<Option<String>> {
    let mut tokens = values(uri, "X-Amz-Security-Token")?;
    for value in headers.get_all("x-amz-security-token") {
        let text = value.to_str().map_err(|_| s3_error!(InvalidToken, "the session token is not ASCII text"))?;
        tokens.push(text.to_owned());
    }
    match tokens.len() {
        0 | 1 => Ok(tokens.pop()),
        _ => Err(s3_error!(InvalidRequest, "the request carries more than one session token")),
    }
}

/// Refuses signatures of version 2 and presigned links that live longer than seven days.
pub(super) fn check_signature_kind(uri: &Uri, headers: &HeaderMap) -> S3Result<()> {
    let header_v2 = headers.get(hyper::header::AUTHORIZATION).is_some_and(|v| v.as_bytes().starts_with(b"AWS "));
    if header_v2 || !values(uri, "AWSAccessKeyId")?.is_empty() || !values(uri, "Signature")?.is_empty() {
        return Err(s3_error!(
            InvalidRequest,
            "signature version 2 is not accepted; set the client to version 4 (boto3: Config(signature_version=\"s3v4\"))"
        ));
    }
    for expires in values(uri, "X-Amz-Expires")? {
        if !expires.parse::<u64>().is_ok_and(|s| s <= MAX_PRESIGN_SECONDS) {
            return Err(S3Error::with_message(
                S3ErrorCode::AuthorizationQueryParametersError,
                format!("X-Amz-Expires is `{}`; a presigned link lives at most {MAX_PRESIGN_SECONDS} seconds", expires.escape_debug()),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(query: &str) -> Uri {
        format!("http://127.0.0.1/photos/a?{query}").parse().unwrap()
    }

    #[test]
    fn two_session_tokens_are_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(session_token(&uri("x=1"), &headers).unwrap(), None);
        assert_eq!(session_token(&uri("X-Amz-Security-Token=a%2Fb"), &headers).unwrap().as_deref(), Some("a/b"));
        headers.insert("x-amz-security-token", "other".parse().unwrap());
        assert!(session_token(&uri("x-amz-security-token=a"), &headers).is_err());
    }

    #[test]
    fn links_end_after_seven_days_and_version_two_is_not_taken() {
        let none = HeaderMap::new();
        assert!(check_signature_kind(&uri("X-Amz-Expires=604800"), &none).is_ok());
        for bad in ["X-Amz-Expires=604801", "X-Amz-Expires=-1", "AWSAccessKeyId=K&Signature=s", "Signature=s"] {
            assert!(check_signature_kind(&uri(bad), &none).is_err(), "{bad}");
        }
    }
}
