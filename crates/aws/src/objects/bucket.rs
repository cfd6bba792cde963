//! The bucket itself: whether it is there, whether what the drivers do with it is allowed, and how it is made.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpConnector as _, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::{CredentialProvider as _, ObjectStore as _};
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::check::{Finding, Found};
use tidemill_blocks::objects;
use tidemill_runtime::timeout;

use super::client_options;
use super::credentials::Provider;
use super::http::Counted;
use crate::Aws;

/// A check is for a person who waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// The bucket, and a small object that is created, read, listed and removed.
pub(super) async fn check(aws: &Aws, create: bool) -> Vec<Finding> {
    let what = format!("S3 bucket {}", aws.inner.settings.bucket);
    let found = match timeout(PATIENCE, &what, look(aws, create)).await.and_then(|found| found) {
        Ok(Found::Missing) => {
            let note = "it is not there; `tidemill check --create` makes it, or set `bucket` to another";
            return vec![Finding::new(what, Found::Missing, note)];
        }
        Ok(Found::Denied) => {
            let note = "it is somebody else's, or s3:ListBucket is not allowed; allow it, or set `bucket` to one of your own";
            return vec![Finding::new(what, Found::Denied, note)];
        }
        Ok(found) => found,
        Err(e) => return vec![Finding::new(what, kind(&e), e.chain())],
    };
    let mut findings = vec![Finding::new(what.clone(), found, "")];
    let using = format!("objects in {what}");
    findings.push(match timeout(PATIENCE, &using, probe(aws)).await.and_then(|used| used) {
        Ok(()) => Finding::ready(using),
        Err(e) => Finding::new(using, kind(&e), e.chain()),
    });
    findings
}

fn kind(e: &Error) -> Found {
    match e.kind() {
        ErrorKind::Denied => Found::Denied,
        ErrorKind::NotFound | ErrorKind::Invalid => Found::Missing,
        _ => Found::Unreachable,
    }
}

async fn look(aws: &Aws, create: bool) -> Result<Found> {
    match status(aws, "HEAD", String::new()).await? {
        200..=299 => Ok(Found::Ready),
        404 if !create => Ok(Found::Missing),
        404 => make(aws).await,
        // Another region's: the bucket is there, and the client would be sent elsewhere on each request.
        301 | 307 | 308 => Err(Error::invalid(format!("it is not in the region {}; set `region` to the bucket's", aws.region()))),
        401 | 403 => Ok(Found::Denied),
        other => Err(Error::unavailable(format!("S3 answered with status {other}"))),
    }
}

async fn make(aws: &Aws) -> Result<Found> {
    let body = match aws.region() {
        // The one region that must not be named.
        "us-east-1" => String::new(),
        region => format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        ),
    };
    match status(aws, "PUT", body).await? {
        200..=299 => Ok(Found::Made),
        401 | 403 => Err(Error::denied("it is not there, and s3:CreateBucket is not allowed; allow it, or make the bucket by hand")),
        409 => Err(Error::denied("its name is taken by another account; set `bucket` to another")),
        other => Err(Error::unavailable(format!("making the bucket was answered with status {other}"))),
    }
}

/// The status that a request for the bucket itself is answered with.
async fn status(aws: &Aws, method: &str, body: String) -> Result<u16> {
    let credential = Provider::new(aws)?.get_credential().await.map_err(|e| objects::error("reach", &Path::default(), e))?;
    let client = Counted(aws.calls()).connect(&client_options(aws)?).map_err(|e| objects::error("reach", &Path::default(), e))?;
    let request = signed(aws, &credential, method, body)?;
    let answer = client.execute(request).await;
    Ok(answer.map_err(|e| Error::unavailable("S3 cannot be reached").with_source(e))?.status().as_u16())
}

fn signed(aws: &Aws, credential: &AwsCredential, method: &str, body: String) -> Result<HttpRequest> {
    let (bucket, region) = (aws.bucket()?, aws.region());
    let url = match aws.s3_endpoint() {
        Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
        None => format!("https://s3.{region}.amazonaws.com/{bucket}"),
    };
    let mut request = HttpRequest::new(if body.is_empty() { HttpRequestBody::empty() } else { body.into() });
    *request.method_mut() = method.parse().map_err(|e| Error::internal("no such method").with_source(e))?;
    *request.uri_mut() = url.parse().map_err(|e| Error::invalid(format!("`{url}` is no URL")).with_source(e))?;
    AwsAuthorizer::new(credential, "s3", region).authorize(&mut request, None);
    Ok(request)
}

/// Does with an object what the drivers do with theirs.
async fn probe(aws: &Aws) -> Result<()> {
    let store = aws.objects()?;
    let path = Path::from(format!("system/check/{}", aws.inner.env.id("c")));
    let content = Bytes::from_static(b"tidemill check");
    // A write whose answer was lost is sent again, and then finds itself.
    if !objects::put_new(store.as_ref(), &path, content.clone()).await? && objects::get(store.as_ref(), &path).await? != content {
        return Err(Error::internal(format!("object `{path}` is there already, and not with what was written")));
    }
    if objects::put_new(store.as_ref(), &path, content.clone()).await? {
        let advice = "two writers would overwrite each other; use a store that honours `If-None-Match: *`";
        return Err(Error::invalid(format!("an object that is there was created again: {advice}")));
    }
    let read = objects::get(store.as_ref(), &path).await?;
    let folder = Path::from("system/check");
    let listed: Vec<_> = store.list(Some(&folder)).try_collect().await.map_err(|e| objects::error("list", &folder, e))?;
    objects::delete(store.as_ref(), &path).await?;
    if read != content || !listed.iter().any(|m| m.location == path) {
        return Err(Error::corrupt(format!("object `{path}` was not read or listed as it was written")));
    }
    Ok(())
}
