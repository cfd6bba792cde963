//! The calls of the objects block, and how `object_store`'s values travel.
//!
//! `object_store`'s errors are told apart by status, each by the one that HTTP has for it, so that a conditional write across the
//! wire answers just what it would answer beside the store.

use object_store::path::Path;
use object_store::{
    Attribute, AttributeValue, Attributes, Error, GetOptions, GetRange, ObjectMeta, PutMode, PutResult, Result, UpdateVersion,
};
use serde::{Deserialize, Serialize};

/// Where contents are written: a POST of the raw content with a [`Put`] in the value header. The answer is a [`Written`].
pub const PUT_PATH: &str = "/internal/v1/objects/put";
/// Where parts are written: a POST of the raw part to this path, `/`, the upload's id, `/`, the part's number from 0.
pub const PART_PATH: &str = "/internal/v1/objects/upload/part";
/// The name this driver goes by in `object_store`'s errors.
pub const STORE: &str = "manager";

calls! { "objects":
    /// `ObjectStore::get_opts`. The answer is the raw content with a [`Got`] in the value header.
    Get("get") -> () { path: String, options: Options };
    /// `ObjectStore::list_with_offset`. The answer is a run of frames, see [`Frame`].
    List("list") -> () { prefix: Option<String>, offset: Option<String> };
    /// `ObjectStore::list_with_delimiter`.
    ListFolder("list-folder") -> Folder { prefix: Option<String> };
    /// `ObjectStore::delete_stream`, a batch of it.
    Delete("delete") -> Vec<Result<(), Failure>> { paths: Vec<String> };
    /// `ObjectStore::copy_opts`; with `create`, only if `to` is not there.
    Copy("copy") -> () { from: String, to: String, create: bool };
    /// `ObjectStore::put_multipart_opts`. The answer is the upload's id.
    StartUpload("upload/start") -> String { path: String, attributes: Vec<(String, String)> };
    /// `MultipartUpload::complete`. Refused unless all `parts` have arrived.
    CompleteUpload("upload/complete") -> Written { id: String, parts: u64 };
    /// `MultipartUpload::abort`.
    AbortUpload("upload/abort") -> () { id: String };
}

/// A point in time at the precision of `object_store`: seconds since 1970 and nanoseconds within.
pub type Moment = (i64, u32);

/// A range of bytes, as `GetRange`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Span {
    /// From the first to before the second.
    Bounded(u64, u64),
    /// From here to the end.
    Offset(u64),
    /// The last so many.
    Suffix(u64),
}

/// `GetOptions`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Options {
    if_match: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<Moment>,
    if_unmodified_since: Option<Moment>,
    range: Option<Span>,
    version: Option<String>,
    head: bool,
}

/// What goes along with a put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// Where to.
    pub path: String,
    /// On what condition.
    pub mode: Mode,
    /// Content type, user metadata and so on.
    pub attributes: Vec<(String, String)>,
}

/// `PutMode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Over whatever is there.
    Overwrite,
    /// Only if nothing is there.
    Create,
    /// Only over this version.
    Update(Written),
}

/// `PutResult` and `UpdateVersion`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The entity tag.
    pub e_tag: Option<String>,
    /// The version, of stores that keep several.
    pub version: Option<String>,
}

/// `ObjectMeta`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    path: String,
    modified: Moment,
    size: u64,
    e_tag: Option<String>,
    version: Option<String>,
}

/// What goes along with a get's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Got {
    /// Of the whole object.
    pub meta: Meta,
    /// The range that the content is, from the first to before the second.
    pub range: (u64, u64),
    /// Content type, user metadata and so on.
    pub attributes: Vec<(String, String)>,
}

/// `ListResult`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// The folders in it.
    pub prefixes: Vec<String>,
    /// The objects in it.
    pub objects: Vec<Meta>,
}

/// A piece of a listing: four bytes of length, big endian, then this in postcard. A listing that ends without `End` was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// Some objects.
    Some(Vec<Meta>),
    /// That was all.
    End,
    /// It went wrong here.
    Failed(Failure),
}

/// An `object_store` error in an answer that is otherwise a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// See [`status_of`].
    pub status: u16,
    /// What happened.
    pub message: String,
}

impl Failure {
    /// As an error about `path`.
    pub fn into_error(self, path: &str) -> Error {
        error_from(self.status, path, self.message.into())
    }
}

impl From<&Error> for Failure {
    fn from(e: &Error) -> Self {
        Self { status: status_of(e), message: e.to_string() }
    }
}

/// The status that tells an error apart.
pub const fn status_of(e: &Error) -> u16 {
    match e {
        Error::NotFound { .. } => 404,
        Error::AlreadyExists { .. } => 409,
        Error::Precondition { .. } => 412,
        Error::NotModified { .. } => 304,
        Error::PermissionDenied { .. } => 403,
        Error::Unauthenticated { .. } => 401,
        Error::NotSupported { .. } | Error::NotImplemented { .. } => 501,
        Error::InvalidPath { .. } => 400,
        _ => 502,
    }
}

/// The error that a status stands for.
pub fn error_from(status: u16, path: &str, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    let path = path.to_owned();
    match status {
        404 => Error::NotFound { path, source },
        409 => Error::AlreadyExists { path, source },
        412 => Error::Precondition { path, source },
        304 => Error::NotModified { path, source },
        403 => Error::PermissionDenied { path, source },
        401 => Error::Unauthenticated { path, source },
        501 => Error::NotSupported { source },
        _ => Error::Generic { store: STORE, source },
    }
}

impl Options {
    /// For the wire.
    pub fn of(options: &GetOptions) -> Self {
        Self {
            if_match: options.if_match.clone(),
            if_none_match: options.if_none_match.clone(),
            if_modified_since: options.if_modified_since.map(moment),
            if_unmodified_since: options.if_unmodified_since.map(moment),
            range: options.range.as_ref().map(|range| match range {
                GetRange::Bounded(r) => Span::Bounded(r.start, r.end),
                GetRange::Offset(n) => Span::Offset(*n),
                GetRange::Suffix(n) => Span::Suffix(*n),
            }),
            version: options.version.clone(),
            head: options.head,
        }
    }

    /// For the store.
    pub fn into_options(self) -> Result<GetOptions> {
        Ok(GetOptions {
            if_match: self.if_match,
            if_none_match: self.if_none_match,
            if_modified_since: self.if_modified_since.map(date).transpose()?,
            if_unmodified_since: self.if_unmodified_since.map(date).transpose()?,
            range: self.range.map(|span| match span {
                Span::Bounded(from, until) => GetRange::Bounded(from..until),
                Span::Offset(n) => GetRange::Offset(n),
                Span::Suffix(n) => GetRange::Suffix(n),
            }),
            version: self.version,
            head: self.head,
            ..GetOptions::default()
        })
    }
}

impl From<PutMode> for Mode {
    fn from(mode: PutMode) -> Self {
        match mode {
            PutMode::Overwrite => Self::Overwrite,
            PutMode::Create => Self::Create,
            PutMode::Update(v) => Self::Update(Written { e_tag: v.e_tag, version: v.version }),
        }
    }
}

impl From<Mode> for PutMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Overwrite => Self::Overwrite,
            Mode::Create => Self::Create,
            Mode::Update(v) => Self::Update(UpdateVersion { e_tag: v.e_tag, version: v.version }),
        }
    }
}

impl From<PutResult> for Written {
    fn from(r: PutResult) -> Self {
        Self { e_tag: r.e_tag, version: r.version }
    }
}

impl From<Written> for PutResult {
    fn from(w: Written) -> Self {
        Self { e_tag: w.e_tag, version: w.version }
    }
}

impl From<&ObjectMeta> for Meta {
    fn from(m: &ObjectMeta) -> Self {
        let path = m.location.to_string();
        Self { path, modified: moment(m.last_modified), size: m.size, e_tag: m.e_tag.clone(), version: m.version.clone() }
    }
}

impl TryFrom<Meta> for ObjectMeta {
    type Error = Error;
    fn try_from(m: Meta) -> Result<Self> {
        let location = Path::parse(&m.path)?;
        Ok(Self { location, last_modified: date(m.modified)?, size: m.size, e_tag: m.e_tag, version: m.version })
    }
}

fn moment(at: chrono::DateTime<chrono::Utc>) -> Moment {
    (at.timestamp(), at.timestamp_subsec_nanos())
}

fn date((seconds, nanos): Moment) -> Result<chrono::DateTime<chrono::Utc>> {
    chrono::DateTime::from_timestamp(seconds, nanos)
        .ok_or_else(|| error_from(400, "", format!("{seconds} seconds and {nanos} nanoseconds is no date").into()))
}

/// Attributes for the wire, in order of their names.
pub fn pack_attributes(attributes: &Attributes) -> Vec<(String, String)> {
    let mut out: Vec<_> = attributes
        .iter()
        .map(|(name, value)| {
            let name = match name {
                Attribute::ContentDisposition => "content-disposition".to_owned(),
                Attribute::ContentEncoding => "content-encoding".to_owned(),
                Attribute::ContentLanguage => "content-language".to_owned(),
                Attribute::ContentType => "content-type".to_owned(),
                Attribute::CacheControl => "cache-control".to_owned(),
                Attribute::StorageClass => "storage-class".to_owned(),
                Attribute::Metadata(key) => format!("meta:{key}"),
                // The enum is open; a kind that this version does not know cannot be kept under any name.
                other => format!("unknown:{other:?}"),
            };
            (name, value.to_string())
        })
        .collect();
    out.sort();
    out
}

/// Attributes for the store. `NotSupported` for one that this version does not know.
pub fn unpack_attributes(packed: Vec<(String, String)>) -> Result<Attributes> {
    packed
        .into_iter()
        .map(|(name, value)| {
            let attribute = match name.as_str() {
                "content-disposition" => Attribute::ContentDisposition,
                "content-encoding" => Attribute::ContentEncoding,
                "content-language" => Attribute::ContentLanguage,
                "content-type" => Attribute::ContentType,
                "cache-control" => Attribute::CacheControl,
                "storage-class" => Attribute::StorageClass,
                other => match other.strip_prefix("meta:") {
                    Some(key) => Attribute::Metadata(key.to_owned().into()),
                    None => return Err(Error::NotSupported { source: format!("object attribute `{other}`").into() }),
                },
            };
            Ok((attribute, AttributeValue::from(value)))
        })
        .collect()
}
