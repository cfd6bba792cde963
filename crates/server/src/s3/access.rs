//! Who asks, and whether they may.

use std::sync::Arc;

use async_trait::async_trait;
use hyper::StatusCode;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{CopyObjectInput, CopySource, ListMultipartUploadsInput, ListObjectsInput, ListObjectsV2Input, UploadPartCopyInput};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};
use tidemill_blocks::grants::{Grants, Scope, Verbs};

use super::buckets::is_built_in;
use super::errors::not_supported;
use super::keys::StaticKeys;
use super::names::not_system;
use super::query::{check_signature_kind, session_token};

/// What an operation does to what its path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Get and head an object.
    Read,
    /// Put an object, or a step of a multipart upload of it.
    Write,
    /// Delete an object.
    Delete,
    /// List the keys that begin with the path (`bucket/prefix`).
    List,
    /// Ask whether a bucket is there and how it is set.
    Look,
    /// Make or remove a bucket.
    Manage,
}

/// Who signed the request, and what they reach.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Whom the credential was given to.
    pub subject: String,
    /// What it reaches.
    pub scopes: Vec<Scope>,
    /// Temporary credentials are made by the systems and may write to built-in buckets.
    pub temporary: bool,
    /// May make and remove buckets.
    pub manage_buckets: bool,
}

/// Why a request is refused, in words for its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

impl From<Refusal> for S3Error {
    fn from(refusal: Refusal) -> Self {
        Self::with_message(S3ErrorCode::AccessDenied, refusal.0)
    }
}

/// Whether `who` may do `action` on `path`: `bucket/key` for objects, `bucket/prefix` for listings, `bucket` for the rest.
pub fn decide(who: &Identity, action: Action, path: &str) -> Result<(), Refusal> {
    let bucket = path.split('/').next().unwrap_or_default();
    let changes = matches!(action, Action::Write | Action::Delete | Action::Manage);
    if changes && is_built_in(bucket) && !who.temporary {
        return Err(Refusal(format!("bucket `{bucket}` is written by the systems; put your data into a bucket of your own")));
    }
    if action == Action::Manage && !who.manage_buckets {
        return Err(Refusal("this credential may not make or remove buckets".to_owned()));
    }
    if who.scopes.iter().any(|scope| reaches(scope, action, path)) {
        return Ok(());
    }
    let verb = match action {
        Action::Read => "read",
        Action::Write => "write",
        Action::Delete => "delete",
        Action::List => "list what begins with",
        Action::Look | Action::Manage => "reach",
    };
    Err(Refusal(format!("this credential may not {verb} `{}`", path.escape_debug())))
}

fn reaches(scope: &Scope, action: Action, path: &str) -> bool {
    let prefix = scope.prefix.trim_end_matches('/');
    let Verbs { read, write, delete, list } = scope.verbs;
    match action {
        Action::Read => read && scope.covers(path),
        Action::Write => write && scope.covers(path),
        Action::Delete => delete && scope.covers(path),
        // `a/b` as a prefix of names would show `a/bc` too, which the scope `a/b` does not hold.
        Action::List => list && (prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))),
        Action::Look => scope.covers(path) || prefix.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')),
        Action::Manage => scope.covers(path),
    }
}

/// What an operation does. `None`: it is not offered.
fn action_of(operation: &str) -> Option<Action> {
    Some(match operation {
        "GetObject" | "HeadObject" | "GetObjectAcl" | "GetObjectTagging" => Action::Read,
        "PutObject"
        | "CopyObject"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CompleteMultipartUpload"
        | "AbortMultipartUpload"
        | "ListParts" => Action::Write,
        "DeleteObject" => Action::Delete,
        // These say in their input what they touch, so they are decided once that is read.
        "ListObjects" | "ListObjectsV2" | "ListMultipartUploads" | "DeleteObjects" => Action::Look,
        "HeadBucket"
        | "ListBuckets"
        | "GetBucketLocation"
        | "GetBucketVersioning"
        | "GetBucketAcl"
        | "GetBucketTagging"
        | "GetBucketPolicy"
        | "GetBucketCors"
        | "GetBucketEncryption"
        | "GetBucketLifecycleConfiguration"
        | "GetBucketWebsite"
        | "GetBucketReplication"
        | "GetObjectLockConfiguration"
        | "GetPublicAccessBlock" => Action::Look,
        "CreateBucket" | "DeleteBucket" => Action::Manage,
        _ => return None,
    })
}

/// Secrets to check signatures with.
pub(super) struct Secrets {
    pub(super) grants: Arc<dyn Grants>,
    pub(super) keys: Arc<dyn StaticKeys>,
}

#[async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let secret = self.grants.secret_of(access_key).or_else(|| self.keys.lookup(access_key).map(|k| k.secret));
        secret.map(SecretKey::from).ok_or_else(|| s3_error!(InvalidAccessKeyId, "this access key is not known here"))
    }
}

/// Decides about every request before its body is read.
pub(super) struct Gate {
    pub(super) grants: Arc<dyn Grants>,
    pub(super) keys: Arc<dyn StaticKeys>,
}

impl Gate {
    fn identify(&self, access_key: &str, token: Option<String>) -> S3Result<Identity> {
        if self.grants.secret_of(access_key).is_some() {
            let Some(token) = token else {
                return Err(s3_error!(AccessDenied, "the session token that belongs to this access key is missing"));
            };
            let granted = self.grants.verify(access_key, &token).map_err(token_error)?;
            return Ok(Identity { subject: granted.subject, scopes: granted.scopes, temporary: true, manage_buckets: false });
        }
        if token.is_some() {
            return Err(forbidden(S3ErrorCode::InvalidToken, "this access key has no session token"));
        }
        let key = self.keys.lookup(access_key).ok_or_else(|| s3_error!(InvalidAccessKeyId, "this access key is not known here"))?;
        Ok(Identity { subject: key.subject, scopes: key.scopes, temporary: false, manage_buckets: key.manage_buckets })
    }
}

/// The grants block says in its message that a token is expired, as opposed to forged or foreign.
fn token_error(e: tidemill_base::Error) -> S3Error {
    let code = if e.message().contains("expired") { S3ErrorCode::ExpiredToken } else { S3ErrorCode::InvalidToken };
    forbidden(code, e.message())
}

fn forbidden(code: S3ErrorCode, message: &str) -> S3Error {
    let mut e = S3Error::with_message(code, message.to_owned());
    e.set_status_code(StatusCode::FORBIDDEN);
    e
}

/// The identity that the gate found.
pub(super) fn identity<T>(req: &S3Request<T>) -> S3Result<&Identity> {
    req.extensions.get::<Identity>().ok_or_else(|| s3_error!(AccessDenied, "the request is not signed"))
}

/// The bucket and key that a copy reads from, which the sender must be allowed to read.
pub(super) fn copy_source<'a, T>(req: &'a S3Request<T>, source: &'a CopySource) -> S3Result<(&'a str, &'a str)> {
    let CopySource::Bucket { bucket, key, version_id } = source else {
        return Err(not_supported("copying from an access point"));
    };
    if version_id.as_deref().is_some_and(|v| v != "null") {
        return Err(s3_error!(NoSuchVersion, "objects have no versions here"));
    }
    not_system(bucket)?;
    decide(identity(req)?, Action::Read, &format!("{bucket}/{key}"))?;
    Ok((bucket, key))
}

fn may_list<T>(req: &S3Request<T>, bucket: &str, prefix: Option<&str>) -> S3Result<()> {
    Ok(decide(identity(req)?, Action::List, &format!("{bucket}/{}", prefix.unwrap_or_default()))?)
}

#[async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let Some(credentials) = cx.credentials() else {
            return Err(s3_error!(AccessDenied, "the request is not signed"));
        };
        check_signature_kind(cx.uri(), cx.headers())?;
        let identity = self.identify(&credentials.access_key, session_token(cx.uri(), cx.headers())?)?;
        let operation = cx.s3_op().name();
        let Some(action) = action_of(operation) else {
            return Err(not_supported(operation));
        };
        let bucket = cx.s3_path().get_bucket_name().unwrap_or_default();
        if !bucket.is_empty() {
            not_system(bucket)?;
            match cx.s3_path().get_object_key() {
                Some(key) => decide(&identity, action, &format!("{bucket}/{key}"))?,
                None => decide(&identity, action, bucket)?,
            }
        }
        tracing::debug!(subject = %identity.subject, operation, bucket, "s3 request");
        cx.extensions_mut().insert(identity);
        Ok(())
    }

    async fn list_objects(&self, req: &mut S3Request<ListObjectsInput>) -> S3Result<()> {
        may_list(req, &req.input.bucket, req.input.prefix.as_deref())
    }

    async fn list_objects_v2(&self, req: &mut S3Request<ListObjectsV2Input>) -> S3Result<()> {
        may_list(req, &req.input.bucket, req.input.prefix.as_deref())
    }

    async fn list_multipart_uploads(&self, req: &mut S3Request<ListMultipartUploadsInput>) -> S3Result<()> {
        may_list(req, &req.input.bucket, req.input.prefix.as_deref())
    }

    async fn copy_object(&self, req: &mut S3Request<CopyObjectInput>) -> S3Result<()> {
        copy_source(req, &req.input.copy_source).map(drop)
    }

    async fn upload_part_copy(&self, req: &mut S3Request<UploadPartCopyInput>) -> S3Result<()> {
        copy_source(req, &req.input.copy_source).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(prefix: &str, verbs: Verbs) -> Identity {
        Identity { subject: "j1".into(), scopes: vec![Scope { prefix: prefix.into(), verbs }], temporary: true, manage_buckets: false }
    }

    fn key(prefix: &str) -> Identity {
        Identity { temporary: false, manage_buckets: true, ..granted(prefix, Verbs::ALL) }
    }

    #[test]
    fn a_grant_reaches_its_prefix_by_whole_segments_and_nothing_else() {
        let who = granted("jobs/j1/out", Verbs::ALL);
        for action in [Action::Read, Action::Write, Action::Delete] {
            assert!(decide(&who, action, "jobs/j1/out/a").is_ok());
            for foreign in ["jobs/j1/outside", "jobs/j1", "jobs/j2/out/a", "photos/jobs/j1/out/a", "system/grants.key"] {
                assert!(decide(&who, action, foreign).is_err(), "{action:?} {foreign}");
            }
        }
        assert!(decide(&who, Action::Manage, "jobs").is_err());
        assert!(decide(&who, Action::Look, "jobs").is_ok());
        assert!(decide(&who, Action::Look, "job").is_err());
        assert!(decide(&who, Action::Look, "photos").is_err());
    }

    #[test]
    fn verbs_are_told_apart() {
        let reader = granted("photos", Verbs::READ);
        assert!(decide(&reader, Action::Read, "photos/a").is_ok());
        assert!(decide(&reader, Action::List, "photos/").is_ok());
        assert!(decide(&reader, Action::Write, "photos/a").is_err());
        assert!(decide(&reader, Action::Delete, "photos/a").is_err());
        let writer = granted("photos", Verbs::WRITE);
        assert!(decide(&writer, Action::Write, "photos/a").is_ok());
        assert!(decide(&writer, Action::Read, "photos/a").is_err());
        assert!(decide(&writer, Action::List, "photos/").is_err());
    }

    #[test]
    fn a_listing_must_lie_within_the_scope() {
        let who = granted("photos/2026", Verbs::READ);
        assert!(decide(&who, Action::List, "photos/2026/").is_ok());
        assert!(decide(&who, Action::List, "photos/2026/ju").is_ok());
        for wider in ["photos/", "photos/2026", "photos/2025/", "photos/20266"] {
            assert!(decide(&who, Action::List, wider).is_err(), "{wider}");
        }
    }

    #[test]
    fn built_in_buckets_are_written_with_grants_alone() {
        assert!(decide(&key(""), Action::Write, "photos/a").is_ok());
        assert!(decide(&key(""), Action::Manage, "photos").is_ok());
        assert!(decide(&key(""), Action::Read, "jobs/j1/a").is_ok());
        assert!(decide(&key(""), Action::List, "jobs/").is_ok());
        for action in [Action::Write, Action::Delete, Action::Manage] {
            assert!(decide(&key(""), action, "jobs/j1/a").is_err(), "{action:?}");
        }
        assert!(decide(&key("photos"), Action::Manage, "video").is_err());
        assert!(decide(&granted("jobs/j1", Verbs::WRITE), Action::Write, "jobs/j1/a").is_ok());
    }

    #[test]
    fn operations_that_are_not_offered_have_no_action() {
        for operation in ["PutBucketPolicy", "PutObjectAcl", "PostObject", "SelectObjectContent", "PutObjectTagging"] {
            assert_eq!(action_of(operation), None, "{operation}");
        }
    }
}
