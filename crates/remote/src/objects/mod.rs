//! The objects block over the wire: an `object_store::ObjectStore` whose contents stream both ways.

mod list;
mod upload;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, TagSet,
};
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, RequestBuilder, Response};
use tidemill_base::ErrorKind;

#[cfg(feature = "fuzz")]
pub(crate) use self::list::frames;
use self::upload::RemoteUpload;
use crate::http::Http;
use crate::wire::objects::{self as wire, Failure, Mode, Options, PUT_PATH, Put, STORE, Written, error_from};
use crate::wire::{self as protocol, Call, VALUE_HEADER};

/// Paths in one call of delete.
const DELETES_A_CALL: usize = 500;

/// The manager's objects.
#[derive(Debug, Clone)]
pub(crate) struct RemoteObjects {
    http: Http,
}

impl fmt::Display for RemoteObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.http.base())
    }
}

impl RemoteObjects {
    pub(crate) const fn new(http: Http) -> Self {
        Self { http }
    }

    /// A call with a postcard answer, about `path`.
    async fn call<C: Call>(&self, call: &C, path: &str) -> Result<C::Answer> {
        let request = self.http.post(C::PATH).body(protocol::encode(call).map_err(|e| generic(Box::new(e)))?);
        let body = whole(self.answer(request, path).await?).await?;
        protocol::decode(&body).map_err(|e| generic(Box::new(e)))
    }

    /// Sends a request about `path` and turns anything but a success into `object_store`'s error for it.
    async fn answer(&self, request: RequestBuilder, path: &str) -> Result<Response> {
        let response = self.http.send(request).await.map_err(|e| generic(Box::new(e)))?;
        let status = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        let body = whole(response).await.unwrap_or_default();
        Err(error_from(status, path, Box::new(protocol::error_of(status, &body))))
    }

    async fn put_whole(&self, location: &Path, payload: PutPayload, mode: Mode, attributes: Vec<(String, String)>) -> Result<PutResult> {
        let put = Put { path: location.to_string(), mode, attributes };
        let value = protocol::encode_header(&put).map_err(|e| generic(Box::new(e)))?;
        let request = with_payload(self.http.post(PUT_PATH).header(VALUE_HEADER, value), payload);
        written(self.answer(request, location.as_ref()).await?).await
    }

    async fn put_in_parts(&self, location: &Path, payload: PutPayload, options: PutMultipartOptions) -> Result<PutResult> {
        let mut upload = self.put_multipart_opts(location, options).await?;
        let parts: Vec<_> = cut(payload, self.http.part_size()).into_iter().map(|part| upload.put_part(part)).collect();
        let sent = stream::iter(parts).buffered(4).try_collect::<Vec<()>>().await;
        match sent {
            Ok(_) => upload.complete().await,
            Err(e) => {
                // The upload's failure is what the caller must hear of; what cannot be aborted expires.
                drop(upload.abort().await);
                Err(e)
            }
        }
    }
}

#[async_trait]
impl ObjectStore for RemoteObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        refuse_tags(&opts.tags)?;
        if opts.mode == PutMode::Overwrite && payload.content_length() > self.http.part_size() {
            let options = PutMultipartOptions { attributes: opts.attributes, ..PutMultipartOptions::default() };
            return self.put_in_parts(location, payload, options).await;
        }
        // A conditional put has to be one request: there is no conditional upload in parts.
        self.put_whole(location, payload, opts.mode.into(), wire::pack_attributes(&opts.attributes)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        refuse_tags(&opts.tags)?;
        let start = wire::StartUpload { path: location.to_string(), attributes: wire::pack_attributes(&opts.attributes) };
        let id = self.call(&start, location.as_ref()).await?;
        Ok(Box::new(RemoteUpload::new(self.clone(), location.clone(), id)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let call = wire::Get { path: location.to_string(), options: Options::of(&options) };
        let request = self.http.post(wire::Get::PATH).body(protocol::encode(&call).map_err(|e| generic(Box::new(e)))?);
        let response = self.answer(request, location.as_ref()).await?;
        let value = response.headers().get(VALUE_HEADER).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let got: wire::Got = protocol::decode_header(value).map_err(|e| generic(Box::new(e)))?;
        let path = location.clone();
        let expected = if options.head { 0 } else { got.range.1.saturating_sub(got.range.0) };
        let content = response.bytes_stream().map_err(|e| generic(Box::new(e.without_url())));
        Ok(GetResult {
            payload: GetResultPayload::Stream(whole_length(content.boxed(), expected, path)),
            meta: ObjectMeta::try_from(got.meta)?,
            range: got.range.0..got.range.1,
            attributes: wire::unpack_attributes(got.attributes)?,
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .try_ready_chunks(DELETES_A_CALL)
            .then(move |paths| {
                let store = store.clone();
                async move {
                    match paths {
                        Ok(paths) => store.delete_batch(paths).await,
                        Err(e) => vec![Err(e.1)],
                    }
                }
            })
            .flat_map(stream::iter)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        list::stream(self.clone(), prefix.cloned(), None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        list::stream(self.clone(), prefix.cloned(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let call = wire::ListFolder { prefix: prefix.map(Path::to_string) };
        let folder = self.call(&call, call.prefix.as_deref().unwrap_or_default()).await?;
        Ok(ListResult {
            common_prefixes: folder.prefixes.iter().map(Path::parse).collect::<Result<_, _>>()?,
            objects: folder.objects.into_iter().map(ObjectMeta::try_from).collect::<Result<_>>()?,
        })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let create = options.mode == CopyMode::Create;
        let call = wire::Copy { from: from.to_string(), to: to.to_string(), create };
        // What can be missing is the source; what can be in the way is the target.
        self.call(&call, from.as_ref()).await.map_err(|e| match e {
            Error::AlreadyExists { source, .. } => Error::AlreadyExists { path: to.to_string(), source },
            other => other,
        })
    }
}

impl RemoteObjects {
    async fn delete_batch(&self, paths: Vec<Path>) -> Vec<Result<Path>> {
        let call = wire::Delete { paths: paths.iter().map(Path::to_string).collect() };
        match self.call(&call, "").await {
            Ok(outcomes) if outcomes.len() == paths.len() => paths
                .into_iter()
                .zip(outcomes)
                .map(|(path, outcome)| outcome.map_err(|f: Failure| f.into_error(path.as_ref())).map(|()| path))
                .collect(),
            Ok(outcomes) => vec![Err(generic(format!("{} outcomes for {} deletions", outcomes.len(), paths.len()).into()))],
            Err(e) => vec![Err(e)],
        }
    }
}

/// Fails at the end when fewer or more bytes came than were announced, so that a cut-off content never passes for a whole one.
fn whole_length(content: BoxStream<'static, Result<Bytes>>, expected: u64, path: Path) -> BoxStream<'static, Result<Bytes>> {
    let state = (content, 0_u64, false);
    stream::unfold(state, move |(mut content, seen, ended)| {
        let path = path.clone();
        async move {
            if ended {
                return None;
            }
            match content.next().await {
                Some(Ok(bytes)) => {
                    let seen = seen + bytes.len() as u64;
                    Some((Ok(bytes), (content, seen, false)))
                }
                Some(Err(e)) => Some((Err(e), (content, seen, true))),
                None if seen == expected => None,
                None => {
                    let cut_off = generic(format!("`{path}` ended after {seen} of {expected} bytes").into());
                    Some((Err(cut_off), (content, seen, true)))
                }
            }
        }
    })
    .fuse()
    .boxed()
}

/// Cuts a payload into parts of `size` bytes without copying.
fn cut(payload: PutPayload, size: usize) -> Vec<PutPayload> {
    let (mut parts, mut current, mut room) = (Vec::new(), Vec::new(), size);
    for mut chunk in payload {
        while !chunk.is_empty() {
            let piece = chunk.split_to(room.min(chunk.len()));
            room -= piece.len();
            current.push(piece);
            if room == 0 {
                parts.push(PutPayload::from_iter(std::mem::take(&mut current)));
                room = size;
            }
        }
    }
    if !current.is_empty() {
        parts.push(PutPayload::from_iter(current));
    }
    parts
}

fn with_payload(request: RequestBuilder, payload: PutPayload) -> RequestBuilder {
    let length = payload.content_length();
    let body = Body::wrap_stream(stream::iter(payload.into_iter().map(Ok::<Bytes, std::convert::Infallible>)));
    request.header(CONTENT_LENGTH, length).body(body)
}

async fn whole(response: Response) -> Result<Bytes> {
    response.bytes().await.map_err(|e| generic(Box::new(e.without_url())))
}

async fn written(response: Response) -> Result<PutResult> {
    let answer: Written = protocol::decode(&whole(response).await?).map_err(|e| generic(Box::new(e)))?;
    Ok(answer.into())
}

fn refuse_tags(tags: &TagSet) -> Result<()> {
    if tags.encoded().is_empty() { Ok(()) } else { Err(Error::NotSupported { source: "object tags are not kept; use attributes".into() }) }
}

/// An error of the transport. One that says which request was wrong keeps saying so in its chain.
fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match source.downcast::<tidemill_base::Error>() {
        Ok(ours) if ours.kind() == ErrorKind::Denied => Error::PermissionDenied { path: String::new(), source: ours },
        Ok(ours) => Error::Generic { store: STORE, source: ours },
        Err(source) => Error::Generic { store: STORE, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_every_byte_in_order_and_only_the_last_is_short() {
        let payload = PutPayload::from_iter([Bytes::from(vec![1; 10]), Bytes::from(vec![2; 7]), Bytes::new(), Bytes::from(vec![3; 4])]);
        let whole: Vec<u8> = payload.iter().flatten().copied().collect();
        let parts = cut(payload, 8);
        assert_eq!(parts.iter().map(PutPayload::content_length).collect::<Vec<_>>(), [8, 8, 5]);
        assert_eq!(parts.iter().flat_map(|p| p.iter().flatten().copied()).collect::<Vec<u8>>(), whole);
    }

    #[test]
    fn a_content_that_was_cut_off_is_an_error() {
        let content = || stream::iter([Ok(Bytes::from_static(b"half"))]).boxed();
        let read = |expected| futures::executor::block_on(whole_length(content(), expected, Path::from("a")).try_collect::<Vec<_>>());
        assert_eq!(read(4).unwrap().concat(), b"half");
        assert!(read(8).unwrap_err().to_string().contains("ended after 4 of 8 bytes"));
    }
}
