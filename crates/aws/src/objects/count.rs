//! Counts S3's requests where they leave, so that every attempt of every retry is counted.

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector};

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
        answer
    }
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
