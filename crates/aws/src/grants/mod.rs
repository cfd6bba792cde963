//! Grants by STS: a role, narrowed for each credential to prefixes and verbs by a session policy.
//!
//! The role (`role_arn`) has to allow what is granted from it (`s3:GetObject`, `s3:PutObject`, `s3:DeleteObject`, `s3:ListBucket`,
//! `s3:AbortMultipartUpload`, `s3:ListMultipartUploadParts` on the bucket), and to trust whoever this program is. A credential has what
//! both the role and the session policy allow, so a mistake here can take away and never add.
//!
//! STS makes no credential that lives for less than 15 minutes. For a shorter one the policy itself ends earlier
//! (`DateLessThan aws:CurrentTime`): it is refused from then on, as asked, though STS would still know it.
//!
//! S3 checks signatures and tokens itself. So [`Grants::secret_of`] knows no secret and [`Grants::verify`] denies everything: a
//! credential of STS is worth nothing at our own S3 endpoint.

mod policy;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sts::Client;
use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::check::{Finding, Found};
use tidemill_blocks::grants::{Credential, Granted, Grants, MAX_TTL, Scope, Verbs};

use crate::Aws;
use crate::error::error;
use policy::{Place, policy};

const MIN_TTL: Duration = Duration::from_secs(1);
/// STS makes none that live for less.
const STS_MIN_TTL: Duration = Duration::from_secs(900);
const MAX_SCOPES: usize = 8;
const MAX_SUBJECT_BYTES: usize = 256;
/// Of the name that a session has in CloudTrail.
const SESSION_NAME: std::ops::RangeInclusive<usize> = 2..=64;

impl Aws {
    /// The grants block.
    ///
    /// # Errors
    /// `Invalid` when the settings name no role, something that is none, or no bucket.
    pub fn grants(&self) -> Result<Arc<dyn Grants>> {
        Ok(Arc::new(StsGrants::new(self)?))
    }

    /// Whether grants can be made from the role: makes a credential and throws it away.
    pub async fn check_grants(&self) -> Vec<Finding> {
        check(self).await
    }
}

/// Issues credentials of STS for one bucket.
#[derive(Debug)]
pub struct StsGrants {
    aws: Aws,
    client: Client,
    role_arn: String,
    partition: String,
}

impl StsGrants {
    fn new(aws: &Aws) -> Result<Self> {
        let Some(role_arn) = aws.inner.settings.role_arn.clone() else {
            return Err(Error::invalid(
                "no role is named for grants; set `role_arn` in the settings to the role whose power is handed out",
            ));
        };
        let partition = partition(&role_arn)?;
        aws.bucket()?;
        let config = aws_sdk_sts::config::Builder::from(&aws.inner.config).interceptor(aws.inner.calls.counting("sts")).build();
        Ok(Self { aws: aws.clone(), client: Client::from_conf(config), role_arn, partition })
    }

    fn place(&self) -> Result<Place<'_>> {
        let key_prefix = self.aws.inner.settings.key_prefix.trim_matches('/');
        Ok(Place { partition: &self.partition, bucket: self.aws.bucket()?, key_prefix })
    }
}

#[async_trait]
impl Grants for StsGrants {
    async fn issue(&self, subject: &str, scopes: Vec<Scope>, ttl: Duration) -> Result<Credential> {
        check_subject(subject)?;
        check_scopes(&scopes)?;
        if ttl < MIN_TTL || ttl > MAX_TTL {
            return Err(Error::invalid(format!("a credential lives from 1 s to {} s, and {ttl:?} was asked for", MAX_TTL.as_secs())));
        }
        let asked_until = self.aws.inner.env.now() + ttl;
        let early_end = (ttl < STS_MIN_TTL).then_some(asked_until);
        let policy = policy(self.place()?, &scopes, early_end)?;
        let seconds = i32::try_from(ttl.max(STS_MIN_TTL).as_secs()).unwrap_or(i32::MAX);
        let call = self.client.assume_role().role_arn(&self.role_arn).role_session_name(session_name(subject));
        let answer = call
            .duration_seconds(seconds)
            .policy(policy)
            .send()
            .await
            .map_err(|e| error(format_args!("assume role {} for `{}`", self.role_arn, subject.escape_debug()), e))?;
        let made =
            answer.credentials().ok_or_else(|| Error::unavailable(format!("STS answered without credentials for {}", self.role_arn)))?;
        let end = made.expiration().to_millis().map_err(|e| Error::unavailable("STS answered with an end beyond time").with_source(e))?;
        Ok(Credential {
            access_key: made.access_key_id().to_owned(),
            secret_key: made.secret_access_key().to_owned(),
            session_token: made.session_token().to_owned(),
            expires_at: early_end.unwrap_or_else(|| Timestamp::from_millis(end)),
            endpoint: self.aws.s3_endpoint().map(str::to_owned),
            bucket: Some(self.aws.bucket()?.to_owned()),
        })
    }

    fn secret_of(&self, _: &str) -> Option<String> {
        None
    }

    fn verify(&self, _: &str, _: &str) -> Result<Granted> {
        Err(Error::denied("credentials of STS are checked by S3 itself; speak to S3 with this one, or set drivers.grants to `embedded`"))
    }
}

async fn check(aws: &Aws) -> Vec<Finding> {
    let Some(role) = aws.inner.settings.role_arn.clone() else {
        return vec![Finding::new(
            "STS role",
            Found::Missing,
            "set `role_arn` to the role whose power is handed out to tasks and uploaders",
        )];
    };
    let what = format!("STS role {role}");
    let scope = Scope { prefix: "system/check".to_owned(), verbs: Verbs::READ };
    let issued = match StsGrants::new(aws) {
        Ok(grants) => grants.issue("tidemill-check", vec![scope], STS_MIN_TTL).await,
        Err(e) => Err(e),
    };
    vec![match issued {
        Ok(_) => Finding::ready(what),
        Err(e) => {
            let found = match e.kind() {
                tidemill_base::ErrorKind::Unavailable => Found::Unreachable,
                tidemill_base::ErrorKind::Denied => Found::Denied,
                _ => Found::Missing,
            };
            let advice = "the role must be there, and its trust policy must name whoever this program is";
            Finding::new(what, found, format!("{}; {advice}", e.chain()))
        }
    }]
}

/// `aws` in `arn:aws:iam::000000000000:role/NAME`.
fn partition(role_arn: &str) -> Result<String> {
    let parts: Vec<&str> = role_arn.splitn(6, ':').collect();
    match parts[..] {
        ["arn", partition, "iam", "", _, role] if !partition.is_empty() && role.starts_with("role/") => Ok(partition.to_owned()),
        _ => Err(Error::invalid(format!(
            "role_arn `{}` names no role; it looks like arn:aws:iam::123456789012:role/NAME",
            role_arn.escape_debug()
        ))),
    }
}

/// The subject as STS takes it, for the trail: letters, digits and `=,.@-_`, everything else a `-`.
fn session_name(subject: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || "=,.@-_".contains(c) { c } else { '-' };
    let name: String = subject.chars().map(clean).take(*SESSION_NAME.end()).collect();
    if name.len() < *SESSION_NAME.start() { format!("{name}--") } else { name }
}

fn check_subject(subject: &str) -> Result<()> {
    if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES {
        return Err(Error::invalid(format!("the subject of a credential has 1 to {MAX_SUBJECT_BYTES} bytes, not {}", subject.len())));
    }
    Ok(())
}

fn check_scopes(scopes: &[Scope]) -> Result<()> {
    if scopes.is_empty() || scopes.len() > MAX_SCOPES {
        return Err(Error::invalid(format!("a credential has 1 to {MAX_SCOPES} scopes, not {}", scopes.len())));
    }
    scopes.iter().try_for_each(check_scope)
}

fn check_scope(scope: &Scope) -> Result<()> {
    let bad = |why: &str| Err(Error::invalid(format!("scope `{}`: {why}", scope.prefix.escape_debug())));
    let v = scope.verbs;
    if !(v.read || v.write || v.delete || v.list) {
        return bad("it allows no verb; name at least one of read, write, delete and list");
    }
    let path = scope.prefix.strip_suffix('/').unwrap_or(&scope.prefix);
    if !scope.prefix.is_empty() && path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return bad("a prefix is segments joined by `/`, none of them empty, `.` or `..`");
    }
    if path.chars().any(char::is_control) {
        return bad("a prefix holds no control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_told_from_other_names() {
        assert_eq!(partition("arn:aws:iam::000000000000:role/tidemill").expect("a role"), "aws");
        assert_eq!(partition("arn:aws-us-gov:iam::123456789012:role/path/to").expect("a role"), "aws-us-gov");
        for bad in ["", "tidemill", "arn:aws:iam::1:user/x", "arn:aws:sts::1:role/x", "arn::iam::1:role/x"] {
            assert!(partition(bad).expect_err(bad).message().contains("role_arn"), "{bad}");
        }
    }

    #[test]
    fn session_names_are_what_sts_takes() {
        assert_eq!(session_name("user:ada@example.com"), "user-ada@example.com");
        assert_eq!(session_name("a"), "a--");
        assert_eq!(session_name("\u{1F30A} x"), "--x");
        assert_eq!(session_name(&"x".repeat(200)).len(), 64);
    }

    #[test]
    fn scopes_are_checked() {
        let scope = |prefix: &str, verbs| vec![Scope { prefix: prefix.to_owned(), verbs }];
        let none = Verbs { read: false, write: false, delete: false, list: false };
        for (bad, says) in [
            (scope("a/../b", Verbs::READ), "a/../b"),
            (scope("/a", Verbs::READ), "`/a`"),
            (scope("a\n", Verbs::READ), "control"),
            (scope("a", none), "no verb"),
            (vec![], "not 0"),
        ] {
            let e = check_scopes(&bad).expect_err(says);
            assert!(e.message().contains(says), "{e}");
        }
        assert!(check_scopes(&scope("", Verbs::READ)).is_ok() && check_scopes(&scope("a/b/", Verbs::ALL)).is_ok());
    }
}
