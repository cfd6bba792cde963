//! S3's requests where they leave and its answers where they come in: every attempt of every retry is counted, and refusals that
//! `object_store` has no word for become errors of ours.

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector};
use tidemill_base::{Error, ErrorKind};

use crate::Calls;

/// Makes HTTP clients that count into these calls.
#[derive(Debug)]
pub(super) struct Counted(pub(super) Calls);

impl HttpConnector for Counted {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Counting { inner, calls: self.0.clone() }))
    }
}

#[derive(Debug)]
struct Counting {
    inner: HttpClient,
    calls: Calls,
}

#[async_trait]
impl HttpService for Counting {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let copies = request.headers().contains_key("x-amz-copy-source");
        let operation = operation(request.method().as_str(), request.uri().query().unwrap_or_default(), copies);
        let answer = self.inner.execute(request).await;
        let status = answer.as_ref().map_or(0, |a| a.status().as_u16());
        let throttled = status == 503 || status == 429;
        let failed = !throttled && !(200..300).contains(&status);
        self.calls.note("s3", operation, throttled, failed);
        let answer = refusal(operation, answer?).await?;
        if operation == "ListObjectsV2" { separators(answer).await } else { Ok(answer) }
    }
}

/// The answer, or what it says when it is a refusal that would be taken for a passing failure: of a listing, whatever its reason, and
/// of any request whose token has expired, which S3 calls a bad request.
async fn refusal(operation: &str, answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let status = answer.status().as_u16();
    let of_listing = operation == "ListObjectsV2" && matches!(status, 401 | 403 | 404);
    if status != 400 && !of_listing {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let body = body.bytes().await?;
    let text = String::from_utf8_lossy(&body);
    let (code, said) = (element(&text, "Code"), element(&text, "Message"));
    let kind = match status {
        400 if ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"].contains(&code) => ErrorKind::Denied,
        400 => return Ok(HttpResponse::from_parts(head, body.into())),
        404 => ErrorKind::NotFound,
        _ => ErrorKind::Denied,
    };
    // A kind of HTTP error that is not tried again.
    Err(HttpError::new(HttpErrorKind::Unknown, Error::new(kind, format!("S3 refuses it ({status} {code}): {said}"))))
}

/// A listing whose names say their line separators by reference. The reader of XML that the object store uses takes U+0085 and U+2028 for
/// newlines, as XML 1.1 has it, whatever version the answer is in; and a name with a newline is none.
async fn separators(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (head, body) = answer.into_parts();
    let body = body.bytes().await?;
    let body = match std::str::from_utf8(&body) {
        Ok(text) if text.contains(['\u{85}', '\u{2028}']) => text.replace('\u{85}', "&#x85;").replace('\u{2028}', "&#x2028;").into(),
        _ => body,
    };
    Ok(HttpResponse::from_parts(head, body.into()))
}

/// The text of the first element of this name.
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let inner = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    inner.map_or("", |(text, _)| text)
}

/// S3's name for a request, from what tells it apart.
fn operation(method: &str, query: &str, copies: bool) -> &'static str {
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    match method {
        "GET" if has("list-type") => "ListObjectsV2",
        "GET" => "GetObject",
        "HEAD" => "HeadObject",
        "POST" if has("uploads") => "CreateMultipartUpload",
        "POST" if has("uploadId") => "CompleteMultipartUpload",
        "POST" if has("delete") => "DeleteObjects",
        "DELETE" if has("uploadId") => "AbortMultipartUpload",
        "DELETE" => "DeleteObject",
        "PUT" if has("partNumber") => {
            if copies {
                "UploadPartCopy"
            } else {
                "UploadPart"
            }
        }
        "PUT" if copies => "CopyObject",
        "PUT" => "PutObject",
        _ => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(operation: &str, status: u16, body: &str) -> Result<String, HttpError> {
        let mut answer = HttpResponse::new(bytes::Bytes::copy_from_slice(body.as_bytes()).into());
        *answer.status_mut() = status.try_into().expect("a status");
        let answer = refusal(operation, answer).await?;
        Ok(String::from_utf8_lossy(&answer.into_body().bytes().await?).into_owned())
    }

    fn xml(code: &str) -> String {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no, {code}</Message></Error>")
    }

    #[tokio::test]
    async fn refusals_become_errors_that_say_what_to_do() {
        use tidemill_blocks::objects;
        let path = object_store::path::Path::from("a");
        for (operation, status, code, kind) in [
            ("ListObjectsV2", 403, "AccessDenied", ErrorKind::Denied),
            ("ListObjectsV2", 404, "NoSuchBucket", ErrorKind::NotFound),
            ("ListObjectsV2", 400, "ExpiredToken", ErrorKind::Denied),
            ("GetObject", 400, "ExpiredToken", ErrorKind::Denied),
        ] {
            let e = refused(operation, status, &xml(code)).await.expect_err(code);
            let e = objects::error("list", &path, object_store::Error::Generic { store: "S3", source: Box::new(e) });
            assert_eq!(e.kind(), kind, "{code}");
            assert!(e.chain().contains(&format!("no, {code}")), "{}", e.chain());
        }
        for (operation, status, code) in [
            ("GetObject", 403, "AccessDenied"),
            ("GetObject", 404, "NoSuchKey"),
            ("PutObject", 400, "BadDigest"),
            ("ListObjectsV2", 503, "SlowDown"),
        ] {
            assert_eq!(refused(operation, status, &xml(code)).await.expect(code), xml(code), "left to object_store, with its body");
        }
        assert_eq!(element("<Code>x", "Code"), "");
    }

    #[test]
    fn requests_are_named_as_s3_names_them() {
        for (method, query, copies, name) in [
            ("PUT", "", false, "PutObject"),
            ("PUT", "", true, "CopyObject"),
            ("PUT", "partNumber=1&uploadId=x", false, "UploadPart"),
            ("PUT", "partNumber=1&uploadId=x", true, "UploadPartCopy"),
            ("GET", "list-type=2&prefix=a", false, "ListObjectsV2"),
            ("GET", "", false, "GetObject"),
            ("POST", "uploads", false, "CreateMultipartUpload"),
            ("POST", "uploadId=x", false, "CompleteMultipartUpload"),
            ("POST", "delete", false, "DeleteObjects"),
            ("DELETE", "uploadId=x", false, "AbortMultipartUpload"),
            ("DELETE", "versionId=list-type", false, "DeleteObject"),
            ("HEAD", "", false, "HeadObject"),
            ("OPTIONS", "", false, "Other"),
        ] {
            assert_eq!(operation(method, query, copies), name, "{method} {query}");
        }
    }
}
