//! Conditions on what is there: `If-Match` and its kin.

use object_store::ObjectMeta;
use s3s::dto::{ETag, ETagCondition, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::errors::{not_supported, precondition_failed};

/// The entity tag that clients see: the store's, without quotes.
pub(super) fn e_tag(meta: &ObjectMeta) -> ETag {
    strong(meta.e_tag.as_deref())
}

/// As [`e_tag`], of a write's answer.
pub(super) fn strong(tag: Option<&str>) -> ETag {
    ETag::Strong(tag.unwrap_or("-").trim_matches('"').to_owned())
}

/// When the object was written, in whole seconds, as HTTP has it.
pub(super) fn modified(meta: &ObjectMeta) -> Timestamp {
    let seconds = u64::try_from(meta.last_modified.timestamp()).unwrap_or(0);
    Timestamp::from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

/// Conditions on reading.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadConditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

impl ReadConditions {
    pub(super) const fn any(&self) -> bool {
        self.if_match.is_some() || self.if_none_match.is_some() || self.if_modified_since.is_some() || self.if_unmodified_since.is_some()
    }

    /// In the order of RFC 9110: a tag that is given decides alone, the date beside it is not looked at.
    pub(super) fn check(&self, meta: &ObjectMeta) -> S3Result<()> {
        let (tag, at) = (e_tag(meta), modified(meta));
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) if !matches(condition, &tag) => return Err(precondition_failed()),
            (None, Some(since)) if at > *since => return Err(precondition_failed()),
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) if matches(condition, &tag) => Err(not_modified(&tag)),
            (None, Some(since)) if at <= *since => Err(not_modified(&tag)),
            _ => Ok(()),
        }
    }

    /// As [`Self::check`] for the source of a copy, where every refusal is 412.
    pub(super) fn check_source(&self, meta: &ObjectMeta) -> S3Result<()> {
        self.check(meta).map_err(|_| precondition_failed())
    }
}

fn matches(condition: &ETagCondition, tag: &ETag) -> bool {
    condition.as_etag().is_none_or(|wanted| wanted.value() == tag.value())
}

fn not_modified(tag: &ETag) -> S3Error {
    let mut e = S3Error::new(S3ErrorCode::NotModified);
    if let Ok(value) = tag.to_http_header() {
        e.set_headers([(hyper::header::ETAG, value)].into_iter().collect());
    }
    e
}

/// The condition on what a write replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WriteCondition {
    /// Nothing.
    Any,
    /// There is no object.
    Absent,
    /// There is one with this tag.
    Match(String),
}

impl WriteCondition {
    pub(super) fn of(if_match: Option<ETagCondition>, if_none_match: Option<ETagCondition>) -> S3Result<Self> {
        match (if_match, if_none_match) {
            (None, None) => Ok(Self::Any),
            (None, Some(ETagCondition::Any)) => Ok(Self::Absent),
            (Some(ETagCondition::ETag(tag)), None) => Ok(Self::Match(tag.into_value())),
            (Some(_), Some(_)) => Err(s3_error!(InvalidRequest, "If-Match and If-None-Match exclude each other")),
            (None, Some(_)) => Err(not_supported("a write with If-None-Match other than `*`")),
            (Some(ETagCondition::Any), None) => Err(not_supported("a write with If-Match: *")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn meta(tag: &str, seconds: u64) -> ObjectMeta {
        let last_modified = (UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 700)).into();
        ObjectMeta { location: "a".into(), last_modified, size: 1, e_tag: Some(tag.into()), version: None }
    }

    fn tag(t: &str) -> Option<ETagCondition> {
        Some(ETagCondition::ETag(ETag::Strong(t.into())))
    }

    #[test]
    fn dates_count_by_whole_seconds_and_only_without_a_tag() {
        let m = meta("\"x\"", 100);
        let outcome = |c: ReadConditions| c.check(&m).map_err(|e| e.code().clone());
        assert_eq!(outcome(ReadConditions { if_modified_since: Some(at(100)), ..Default::default() }), Err(S3ErrorCode::NotModified));
        assert_eq!(outcome(ReadConditions { if_modified_since: Some(at(99)), ..Default::default() }), Ok(()));
        assert_eq!(outcome(ReadConditions { if_unmodified_since: Some(at(100)), ..Default::default() }), Ok(()));
        let stale = ReadConditions { if_unmodified_since: Some(at(99)), ..Default::default() };
        assert_eq!(outcome(stale.clone()), Err(S3ErrorCode::PreconditionFailed));
        assert_eq!(outcome(ReadConditions { if_match: tag("x"), ..stale }), Ok(()));
        assert_eq!(outcome(ReadConditions { if_match: tag("y"), ..Default::default() }), Err(S3ErrorCode::PreconditionFailed));
        assert_eq!(outcome(ReadConditions { if_none_match: tag("x"), ..Default::default() }), Err(S3ErrorCode::NotModified));
        let both = ReadConditions { if_none_match: tag("y"), if_modified_since: Some(at(100)), ..Default::default() };
        assert_eq!(outcome(both), Ok(()));
    }

    #[test]
    fn a_write_takes_one_condition() {
        assert_eq!(WriteCondition::of(None, Some(ETagCondition::Any)).unwrap(), WriteCondition::Absent);
        assert_eq!(WriteCondition::of(tag("x"), None).unwrap(), WriteCondition::Match("x".into()));
        assert!(WriteCondition::of(tag("x"), Some(ETagCondition::Any)).is_err());
        assert!(WriteCondition::of(None, tag("x")).is_err());
    }
}
