//! The objects' calls. Contents stream; only what is put whole, and a part of an upload, is held in memory.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{CopyMode, CopyOptions, Error as StoreError, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload};
use tidemill_base::{Error, Result};
use tidemill_remote::wire::objects::{self as wire, Failure, Frame, Got, Meta, PART_PATH, PUT_PATH, Put, Written, status_of};
use tidemill_remote::wire::{self as protocol, Call, VALUE_HEADER};

use super::{Edge, Shared, call, postcard_answer};
use crate::auth::Principal;
use crate::error::{ApiError, ApiResult};

/// Objects in one frame of a listing.
const FRAME: usize = 500;
const CONTENT: &str = "application/octet-stream";

pub(super) fn routes(router: Router<Arc<Edge>>) -> Router<Arc<Edge>> {
    let router = call(router, |edge, who, c: wire::Delete| async move { delete(&edge, &who, c).await });
    router
        .route(wire::Get::PATH, post(get))
        .route(PUT_PATH, post(put))
        .route(wire::List::PATH, post(list))
        .route(wire::ListFolder::PATH, post(list_folder))
        .route(wire::Copy::PATH, post(copy))
        .route(wire::StartUpload::PATH, post(start_upload))
        .route(&format!("{PART_PATH}/{{id}}/{{number}}"), post(part))
        .route(wire::CompleteUpload::PATH, post(complete_upload))
        .route(wire::AbortUpload::PATH, post(abort_upload))
}

/// An error of the store with the status that tells it apart on the other side.
fn store_error(e: StoreError) -> ApiError {
    let status = StatusCode::from_u16(status_of(&e)).unwrap_or(StatusCode::BAD_GATEWAY);
    let kind = match status.as_u16() {
        404 => tidemill_base::ErrorKind::NotFound,
        304 | 409 | 412 => tidemill_base::ErrorKind::Conflict,
        401 | 403 => tidemill_base::ErrorKind::Denied,
        400 | 501 => tidemill_base::ErrorKind::Invalid,
        _ => tidemill_base::ErrorKind::Unavailable,
    };
    ApiError::from(Error::new(kind, e.to_string()).with_source(e)).with_status(status)
}

async fn readable(edge: &Edge, who: &Principal, text: &str) -> Result<Path> {
    edge.reach.read(who, text).await?;
    tidemill_blocks::objects::parse_path(text)
}

fn writable(edge: &Edge, who: &Principal, text: &str) -> Result<Path> {
    edge.reach.write(who, text)?;
    tidemill_blocks::objects::parse_path(text)
}

fn prefix_of(edge: &Edge, who: &Principal, text: Option<&str>) -> Result<Option<Path>> {
    edge.reach.list(who, text.unwrap_or_default())?;
    text.filter(|t| !t.is_empty()).map(tidemill_blocks::objects::parse_path).transpose()
}

async fn get(State(edge): Shared, who: Principal, body: Bytes) -> ApiResult<Response> {
    let c: wire::Get = protocol::decode(&body)?;
    let path = readable(&edge, &who, &c.path).await?;
    let options = c.options.into_options().map_err(store_error)?;
    let head = options.head;
    let result = edge.blocks.objects.get_opts(&path, options).await.map_err(store_error)?;
    let range = (result.range.start, result.range.end);
    let got = Got { meta: Meta::from(&result.meta), range, attributes: wire::pack_attributes(&result.attributes) };
    let length = if head { 0 } else { range.1.saturating_sub(range.0) };
    let content = if head { Body::empty() } else { Body::from_stream(result.into_stream()) };
    let mut response = content.into_response();
    let value = HeaderValue::from_str(&protocol::encode_header(&got)?).map_err(|e| Error::internal("header").with_source(e))?;
    response.headers_mut().extend([
        (CONTENT_TYPE, HeaderValue::from_static(CONTENT)),
        (CONTENT_LENGTH, HeaderValue::from(length)),
        (axum::http::HeaderName::from_static(VALUE_HEADER), value),
    ]);
    Ok(response)
}

async fn put(State(edge): Shared, who: Principal, headers: HeaderMap, request: Request) -> ApiResult<Response> {
    let value = headers.get(VALUE_HEADER).and_then(|v| v.to_str().ok());
    let put: Put = protocol::decode_header(value.ok_or_else(|| Error::invalid(format!("the header {VALUE_HEADER} is missing")))?)?;
    let path = writable(&edge, &who, &put.path)?;
    let attributes = wire::unpack_attributes(put.attributes).map_err(store_error)?;
    let payload = payload(request.into_body(), edge.max_body).await?;
    let options = PutOptions { mode: put.mode.into(), attributes, ..PutOptions::default() };
    let result = edge.blocks.objects.put_opts(&path, payload, options).await.map_err(store_error)?;
    postcard_answer(&Written::from(result))
}

/// The whole body, without copying it together, unless it is larger than `max` bytes.
async fn payload(body: Body, max: usize) -> ApiResult<PutPayload> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let (mut stream, mut length) = (body.into_data_stream(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|e| Error::unavailable("the body broke off").with_source(e))?;
        length += chunk.len();
        if length > max {
            let e = Error::new(tidemill_base::ErrorKind::Exhausted, format!("the content is larger than {max} bytes"));
            let hint = "upload it in parts, or raise `limits.max-worker-body`";
            return Err(ApiError::from(e).with_status(StatusCode::PAYLOAD_TOO_LARGE).with_hint(hint));
        }
        chunks.push(chunk);
    }
    Ok(PutPayload::from_iter(chunks))
}

async fn list(State(edge): Shared, who: Principal, body: Bytes) -> ApiResult<Response> {
    let c: wire::List = protocol::decode(&body)?;
    let prefix = prefix_of(&edge, &who, c.prefix.as_deref())?;
    let offset = c.offset.as_deref().map(tidemill_blocks::objects::parse_path).transpose()?;
    let store = &edge.blocks.objects;
    let objects = match &offset {
        Some(offset) => store.list_with_offset(prefix.as_ref(), offset),
        None => store.list(prefix.as_ref()),
    };
    Ok(([(CONTENT_TYPE, CONTENT)], Body::from_stream(frames(objects))).into_response())
}

/// A listing as frames, ended by `End` or by what went wrong.
fn frames(objects: BoxStream<'static, object_store::Result<ObjectMeta>>) -> BoxStream<'static, Result<Bytes>> {
    let some = objects.try_ready_chunks(FRAME).map(|chunk| match chunk {
        Ok(metas) => (Some(Frame::Some(metas.iter().map(Meta::from).collect())), false),
        // What was listed before the failure is of no use to whoever gets an error.
        Err(e) => (Some(Frame::Failed(Failure::from(&e.1))), true),
    });
    some.chain(stream::iter([(Some(Frame::End), true)]))
        .scan(false, |over, (frame, last)| {
            let frame = if *over { None } else { frame };
            *over |= last;
            futures::future::ready(frame)
        })
        .map(|frame| {
            let body = protocol::encode(&frame)?;
            let length = u32::try_from(body.len()).map_err(|_| Error::internal("a frame of a listing is over 4 GiB"))?;
            Ok(Bytes::from([&length.to_be_bytes(), body.as_slice()].concat()))
        })
        .boxed()
}

async fn list_folder(State(edge): Shared, who: Principal, body: Bytes) -> ApiResult<Response> {
    let c: wire::ListFolder = protocol::decode(&body)?;
    let prefix = prefix_of(&edge, &who, c.prefix.as_deref())?;
    let listed = edge.blocks.objects.list_with_delimiter(prefix.as_ref()).await.map_err(store_error)?;
    postcard_answer(&wire::Folder {
        prefixes: listed.common_prefixes.iter().map(Path::to_string).collect(),
        objects: listed.objects.iter().map(Meta::from).collect(),
    })
}

async fn delete(edge: &Edge, who: &Principal, c: wire::Delete) -> Result<Vec<Result<(), Failure>>> {
    let paths: Vec<Path> = c.paths.iter().map(|p| writable(edge, who, p)).collect::<Result<_>>()?;
    let one = |path: Path| {
        let store = edge.blocks.objects.clone();
        async move {
            let mut outcome = store.delete_stream(stream::iter([Ok(path)]).boxed());
            outcome.try_next().await.map(drop).map_err(|e| Failure::from(&e))
        }
    };
    Ok(stream::iter(paths).map(one).buffered(8).collect().await)
}

async fn copy(State(edge): Shared, who: Principal, body: Bytes) -> ApiResult<Response> {
    let c: wire::Copy = protocol::decode(&body)?;
    let (from, to) = (readable(&edge, &who, &c.from).await?, writable(&edge, &who, &c.to)?);
    let mode = if c.create { CopyMode::Create } else { CopyMode::Overwrite };
    let options = CopyOptions { mode, ..CopyOptions::default() };
    edge.blocks.objects.copy_opts(&from, &to, options).await.map_err(store_error)?;
    postcard_answer(&())
}

async fn start_upload(State(edge): Shared, who: Principal, body: Bytes) -> ApiResult<Response> {
    let c: wire::StartUpload = protocol::decode(&body)?;
    let path = writable(&edge, &who, &c.path)?;
    let attributes = wire::unpack_attributes(c.attributes).map_err(store_error)?;
    let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
    edge.uploads.make_room().await?;
    let upload = edge.blocks.objects.put_multipart_opts(&path, options).await.map_err(store_error)?;
    postcard_answer(&edge.uploads.start(&who.token_id, upload))
}

async fn part(State(edge): Shared, who: Principal, UrlPath((id, number)): UrlPath<(String, u64)>, request: Request) -> ApiResult<Response> {
    let upload = edge.uploads.find(&who.token_id, &id)?;
    let payload = payload(request.into_body(), edge.max_body).await?;
    upload.part(number, payload).await?;
    postcard_answer(&())
}

async fn complete_upload(State(edge): Shared, who: Principal, body: Bytes) -> ApiResult<Response> {
    let c: wire::CompleteUpload = protocol::decode(&body)?;
    let written = edge.uploads.find(&who.token_id, &c.id)?.complete(c.parts).await?;
    edge.uploads.forget(&c.id);
    postcard_answer(&written)
}

async fn abort_upload(State(edge): Shared, who: Principal, body: Bytes) -> ApiResult<Response> {
    let c: wire::AbortUpload = protocol::decode(&body)?;
    let upload = edge.uploads.find(&who.token_id, &c.id)?;
    edge.uploads.forget(&c.id);
    upload.abort().await?;
    postcard_answer(&())
}
