//! Bytes in and bytes out, a piece at a time.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, MultipartUpload, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, UpdateVersion,
};
use s3s::dto::{Checksum, ETag, StreamingBlob};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, s3_error};

use super::Endpoint;
use super::attributes::Described;
use super::checksums::Checks;
use super::conditions::{WriteCondition, strong};
use super::errors::{custom, precondition_failed, store_error};
use super::names::SYSTEM;

/// Bodies up to this size go to the store in one piece, larger ones in pieces of it, in bytes.
const PIECE: usize = 8 << 20;
/// The largest body that may carry `If-Match`, in bytes: the store replaces by version only what it is given whole.
const MAX_MATCHED: usize = 64 << 20;
/// The largest body of one put, in bytes, as on AWS.
const MAX_PUT: u64 = 5 << 30;

/// A body on its way in.
pub(super) type Incoming = BoxStream<'static, S3Result<Bytes>>;

/// A body and what must be true of it.
pub(super) struct Upload {
    pub(super) body: Incoming,
    /// What the sender said it would be, in bytes.
    pub(super) length: Option<u64>,
    pub(super) checks: Checks,
    pub(super) described: Described,
    pub(super) condition: WriteCondition,
}

/// What a write came to.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) e_tag: ETag,
    pub(super) sums: Checksum,
}

/// The body of a request, its errors in S3's words.
pub(super) fn incoming(body: Option<StreamingBlob>) -> Incoming {
    body.map_or_else(|| futures::stream::empty().boxed(), |body| body.map(|piece| piece.map_err(body_error)).boxed())
}

/// Refuses bodies over the limit before a byte of them is read.
pub(super) fn check_length(length: Option<i64>) -> S3Result<Option<u64>> {
    let length = length.map(|l| u64::try_from(l).map_err(|_| s3_error!(InvalidArgument, "Content-Length is negative"))).transpose()?;
    if length.is_some_and(|l| l > MAX_PUT) {
        return Err(s3_error!(EntityTooLarge, "one put holds at most 5 GiB; send more as a multipart upload"));
    }
    Ok(length)
}

/// s3s keeps the types of these errors to itself; their words are all there is to tell them by.
fn body_error(e: StdError) -> S3Error {
    let text = e.to_string();
    if text.contains("Sha256Mismatch") || text.contains("ChecksumMismatch") {
        custom("XAmzContentSHA256Mismatch", hyper::StatusCode::BAD_REQUEST, "what arrived differs from the SHA-256 that was signed")
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "a chunk of the body is not signed as it should be")
    } else {
        let mut out = s3_error!(IncompleteBody, "the body ended early or is malformed");
        out.set_source(e);
        out
    }
}

/// Counts, checks and cuts a body.
struct Cutter {
    body: Incoming,
    checks: Checks,
    length: Option<u64>,
    received: u64,
    done: bool,
}

impl Cutter {
    /// Up to `limit` bytes, less only at the end.
    async fn next(&mut self, limit: usize) -> S3Result<Vec<Bytes>> {
        let (mut pieces, mut size) = (Vec::new(), 0);
        while size < limit && !self.done {
            match self.body.next().await {
                Some(piece) => {
                    let piece = piece?;
                    self.checks.update(&piece);
                    self.received += piece.len() as u64;
                    size += piece.len();
                    pieces.push(piece);
                }
                None => self.done = true,
            }
        }
        Ok(pieces)
    }

    fn verify(self) -> S3Result<Checksum> {
        if self.length.is_some_and(|l| l != self.received) {
            return Err(s3_error!(IncompleteBody, "the body has {} bytes and not as many as announced", self.received));
        }
        self.checks.verify()
    }
}

/// Small pieces of the network become one; what is large already is passed on as it is.
fn payload(pieces: Vec<Bytes>) -> PutPayload {
    const SMALL: usize = 64 << 10;
    let total: usize = pieces.iter().map(Bytes::len).sum();
    if total > SMALL && total / pieces.len().max(1) >= SMALL {
        return pieces.into_iter().collect();
    }
    let mut joined = BytesMut::with_capacity(total);
    pieces.iter().for_each(|p| joined.extend_from_slice(p));
    joined.freeze().into()
}

impl Endpoint {
    /// Writes a body under `target`. Nothing of it shows before all of it is there and every check has held.
    pub(super) async fn store(&self, target: &Path, upload: Upload) -> S3Result<Stored> {
        let Upload { body, length, checks, mut described, condition } = upload;
        let mode = self.put_mode(target, &condition).await?;
        let mut cutter = Cutter { body, checks, length, received: 0, done: false };
        let mut pieces = cutter.next(PIECE + 1).await?;
        if !cutter.done && matches!(condition, WriteCondition::Match(_)) {
            pieces.extend(cutter.next(MAX_MATCHED - PIECE).await?);
            if !cutter.done {
                return Err(s3_error!(EntityTooLarge, "a write with If-Match holds at most 64 MiB"));
            }
        }
        if cutter.done {
            let sums = cutter.verify()?;
            described.keep(&sums);
            let options = PutOptions { mode, attributes: described.to_attributes(), ..Default::default() };
            let put = self.objects.put_opts(target, payload(pieces), options).await.map_err(store_error)?;
            return Ok(Stored { e_tag: strong(put.e_tag.as_deref()), sums });
        }
        if condition == WriteCondition::Absent {
            return self.store_absent(target, pieces, cutter, &described).await;
        }
        let (put, sums) = self.store_pieces(target, pieces, cutter, described.to_attributes()).await?;
        Ok(Stored { e_tag: strong(put.e_tag.as_deref()), sums })
    }

    /// Refuses what fails already now.
    pub(super) async fn check_condition(&self, target: &Path, condition: &WriteCondition) -> S3Result<()> {
        self.put_mode(target, condition).await.map(drop)
    }

    /// The store's own condition. What fails already now is refused before the body is read.
    async fn put_mode(&self, target: &Path, condition: &WriteCondition) -> S3Result<PutMode> {
        if *condition == WriteCondition::Any {
            return Ok(PutMode::Overwrite);
        }
        match (self.objects.head(target).await, condition) {
            (Ok(meta), WriteCondition::Match(tag)) if strong(meta.e_tag.as_deref()).value() == tag => {
                Ok(PutMode::Update(UpdateVersion { e_tag: meta.e_tag, version: meta.version }))
            }
            (Ok(_), _) => Err(precondition_failed()),
            (Err(object_store::Error::NotFound { .. }), WriteCondition::Absent) => Ok(PutMode::Create),
            (Err(e), _) => Err(store_error(e)),
        }
    }

    /// Large and conditional: written aside, then put in place by a copy that fails where something is.
    async fn store_absent(&self, target: &Path, first: Vec<Bytes>, rest: Cutter, described: &Described) -> S3Result<Stored> {
        let aside = Path::from(format!("{SYSTEM}/staging/{}", self.env.id("s")));
        let (_, sums) = self.store_pieces(&aside, first, rest, described.to_attributes()).await?;
        let placed = self.objects.copy_opts(&aside, target, CopyOptions::new().with_mode(CopyMode::Create)).await;
        if let Err(e) = self.objects.delete(&aside).await {
            tracing::warn!(object = %aside, error = %e, "staged object stays until it is swept");
        }
        placed.map_err(store_error)?;
        let meta = self.objects.head(target).await.map_err(store_error)?;
        Ok(Stored { e_tag: strong(meta.e_tag.as_deref()), sums })
    }

    async fn store_pieces(
        &self,
        path: &Path,
        first: Vec<Bytes>,
        mut rest: Cutter,
        attributes: Attributes,
    ) -> S3Result<(PutResult, Checksum)> {
        let options = PutMultipartOptions { attributes, ..Default::default() };
        let mut upload = self.objects.put_multipart_opts(path, options).await.map_err(store_error)?;
        let outcome = async {
            send_pieces(upload.as_mut(), first, &mut rest).await?;
            let sums = rest.verify()?;
            let put = upload.complete().await.map_err(store_error)?;
            Ok((put, sums))
        }
        .await;
        if outcome.is_err()
            && let Err(e) = upload.abort().await
        {
            tracing::debug!(object = %path, error = %e, "upload to the store not taken back");
        }
        outcome
    }
}

/// Reads the next piece from the client while the last one is written.
async fn send_pieces(upload: &mut dyn MultipartUpload, first: Vec<Bytes>, rest: &mut Cutter) -> S3Result<()> {
    let mut pieces = first;
    while !pieces.is_empty() {
        let (written, next) = futures::join!(upload.put_part(payload(pieces)), rest.next(PIECE));
        written.map_err(store_error)?;
        pieces = next?;
    }
    Ok(())
}

/// A body on its way out. The mutex is never locked: it is what makes a stream that one task polls shareable by type.
struct Outgoing {
    inner: Mutex<BoxStream<'static, object_store::Result<Bytes>>>,
    remaining: u64,
}

/// The body of a response of `length` bytes.
pub(super) fn outgoing(stream: BoxStream<'static, object_store::Result<Bytes>>, length: u64) -> StreamingBlob {
    StreamingBlob::new(Outgoing { inner: Mutex::new(stream), remaining: length })
}

impl Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let inner = self.inner.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let polled = inner.poll_next_unpin(cx);
        if let Poll::Ready(Some(Ok(piece))) = &polled {
            self.remaining = self.remaining.saturating_sub(piece.len() as u64);
        }
        polled.map_err(|e| {
            tracing::warn!(error = %e, "object store failed while an object was read");
            Box::new(e) as StdError
        })
    }
}

impl ByteStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.remaining).map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

/// An object that is being read, as a body to be written.
pub(super) fn reading(stream: BoxStream<'static, object_store::Result<Bytes>>) -> Incoming {
    stream.map(|piece| piece.map_err(store_error)).boxed()
}

/// Marks errors that mean that a source vanished while it was read.
pub(super) fn source_gone(e: S3Error) -> S3Error {
    if *e.code() == S3ErrorCode::NoSuchKey { s3_error!(NoSuchUpload, "the upload was ended by another request") } else { e }
}
