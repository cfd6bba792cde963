//! Listings arrive as frames on one answer, so that a long one costs one request and little memory.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, Result};

use super::{RemoteObjects, generic};
use crate::wire::objects::{Frame, List, Meta};
use crate::wire::{self as protocol, Call};

/// No frame is longer; a longer one is not a frame.
const MAX_FRAME: usize = 16 << 20;

enum State {
    Start,
    Reading { body: BoxStream<'static, Result<Bytes>>, buffer: BytesMut, ready: VecDeque<Meta> },
    Ended,
}

/// The objects under `prefix` after `offset`, in order.
pub(super) fn stream(store: RemoteObjects, prefix: Option<Path>, offset: Option<Path>) -> BoxStream<'static, Result<ObjectMeta>> {
    let call = List { prefix: prefix.map(|p| p.to_string()), offset: offset.map(|p| p.to_string()) };
    stream::try_unfold(State::Start, move |state| {
        let (store, call) = (store.clone(), call.clone());
        async move {
            let state = match state {
                State::Start => start(&store, &call).await?,
                other => other,
            };
            next(state, call.prefix.as_deref().unwrap_or_default()).await
        }
    })
    .boxed()
}

async fn start(store: &RemoteObjects, call: &List) -> Result<State> {
    let request = store.http.post(List::PATH).body(protocol::encode(call).map_err(|e| generic(Box::new(e)))?);
    let response = store.answer(request, call.prefix.as_deref().unwrap_or_default()).await?;
    let body = response.bytes_stream().map_err(|e| generic(Box::new(e.without_url()))).boxed();
    Ok(State::Reading { body, buffer: BytesMut::new(), ready: VecDeque::new() })
}

async fn next(mut state: State, prefix: &str) -> Result<Option<(ObjectMeta, State)>> {
    loop {
        let State::Reading { body, buffer, ready } = &mut state else { return Ok(None) };
        if let Some(meta) = ready.pop_front() {
            return Ok(Some((ObjectMeta::try_from(meta)?, state)));
        }
        match take_frame(buffer)? {
            Some(Frame::Some(metas)) => ready.extend(metas),
            Some(Frame::End) => state = State::Ended,
            Some(Frame::Failed(failure)) => return Err(failure.into_error(prefix)),
            None => match body.next().await {
                Some(bytes) => buffer.extend_from_slice(&bytes?),
                None => return Err(generic(format!("the listing of `{prefix}` was cut off").into())),
            },
        }
    }
}

/// The first whole frame of `buffer`, if there is one.
fn take_frame(buffer: &mut BytesMut) -> Result<Option<Frame>> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(generic(format!("a listing's frame claims {length} bytes; this is no listing").into()));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    protocol::decode(&buffer.split_to(length)).map(Some).map_err(|e| generic(Box::new(e)))
}

/// The whole frames of a listing that arrives in these pieces.
#[cfg(feature = "fuzz")]
pub(crate) fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Frame>> {
    let (mut buffer, mut out) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(frame) = take_frame(&mut buffer)? {
            out.push(frame);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let mut wire = Vec::new();
        for frame in [Frame::Some(Vec::new()), Frame::End] {
            let body = protocol::encode(&frame).unwrap();
            wire.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
            wire.extend_from_slice(&body);
        }
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for byte in wire {
            buffer.extend_from_slice(&[byte]);
            frames.extend(take_frame(&mut buffer).unwrap());
        }
        assert_eq!(frames, [Frame::Some(Vec::new()), Frame::End]);
        buffer.extend_from_slice(b"<html>");
        assert!(take_frame(&mut buffer).is_err());
    }
}
