//! Uploads in parts. Every part but the last has 5 MiB, which S3 asks for.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Attribute, Attributes, MultipartUpload, ObjectStoreExt, PutMultipartOptions};
use tidemill_base::Result;
use tidemill_blocks::objects::{Objects, error, get, get_opt, put};

use super::{at, bytes, list};
use crate::Harness;

const PART: usize = 5 << 20;

async fn begin(o: &Objects, path: &Path) -> Result<Box<dyn MultipartUpload>> {
    o.put_multipart(path).await.map_err(|e| error("begin", path, e))
}

async fn finish(mut upload: Box<dyn MultipartUpload>, path: &Path) -> Result<()> {
    upload.complete().await.map(drop).map_err(|e| error("complete", path, e))
}

/// Parts sent one after the other are the object, with the attributes that the upload began with.
pub async fn parts_are_joined_in_the_order_given(o: &Objects, h: &Harness) -> Result<()> {
    let path = at(&h.name("b"), "dir/object");
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, "video/mp4".into());
    let options = PutMultipartOptions { attributes: attributes.clone(), ..PutMultipartOptions::default() };
    let mut upload = o.put_multipart_opts(&path, options).await.map_err(|e| error("begin", &path, e))?;
    let parts = [bytes(PART, 1), bytes(PART, 2), bytes(1234, 3)];
    for part in &parts {
        upload.put_part(part.clone().into()).await.map_err(|e| error("send part of", &path, e))?;
    }
    finish(upload, &path).await?;
    assert!(get(o.as_ref(), &path).await? == parts.concat());
    let got = o.get(&path).await.map_err(|e| error("get", &path, e))?;
    assert_eq!((got.meta.size, got.attributes), (2 * PART as u64 + 1234, attributes));
    Ok(())
}

/// The order is that of the calls, not that in which the parts arrive.
pub async fn parts_may_arrive_in_any_order(o: &Objects, h: &Harness) -> Result<()> {
    let path = at(&h.name("b"), "object");
    let parts = [bytes(PART, 1), bytes(PART, 2), bytes(PART, 3), bytes(10, 4)];
    let mut upload = begin(o, &path).await?;
    let mut sending: Vec<_> = parts.iter().map(|p| upload.put_part(p.clone().into())).collect();
    sending.rotate_left(2);
    for part in sending.drain(..2).rev() {
        part.await.map_err(|e| error("send part of", &path, e))?;
    }
    futures::future::try_join_all(sending).await.map_err(|e| error("send part of", &path, e))?;
    finish(upload, &path).await?;
    assert!(get(o.as_ref(), &path).await? == parts.concat());
    Ok(())
}

/// Until it is complete there is nothing to read or list.
pub async fn multipart_is_invisible_until_complete(o: &Objects, h: &Harness) -> Result<()> {
    let base = h.name("b");
    let path = at(&base, "object");
    let mut upload = begin(o, &path).await?;
    upload.put_part(bytes(PART, 1).into()).await.map_err(|e| error("send part of", &path, e))?;
    assert_eq!(get_opt(o.as_ref(), &path).await?, None);
    assert_eq!(list(o.as_ref(), &Path::from(base.clone())).await?, []);
    finish(upload, &path).await?;
    assert_eq!(list(o.as_ref(), &Path::from(base)).await?.len(), 1);
    Ok(())
}

/// An aborted upload, and one that was dropped, leave what was there before.
pub async fn aborted_uploads_leave_nothing(o: &Objects, h: &Harness) -> Result<()> {
    let base = h.name("b");
    let (fresh, old) = (at(&base, "fresh"), at(&base, "old"));
    put(o.as_ref(), &old, Bytes::from_static(b"old")).await?;
    for path in [&fresh, &old] {
        let mut upload = begin(o, path).await?;
        upload.put_part(bytes(PART, 1).into()).await.map_err(|e| error("send part of", path, e))?;
        upload.abort().await.map_err(|e| error("abort", path, e))?;
        let mut dropped = begin(o, path).await?;
        dropped.put_part(bytes(PART, 1).into()).await.map_err(|e| error("send part of", path, e))?;
    }
    assert_eq!((get_opt(o.as_ref(), &fresh).await?, get(o.as_ref(), &old).await?), (None, "old".into()));
    assert_eq!(list(o.as_ref(), &Path::from(base)).await?.len(), 1);
    Ok(())
}

/// The old object is there until the upload is complete, then it is the new one.
pub async fn multipart_replaces_whole_objects(o: &Objects, h: &Harness) -> Result<()> {
    let path = at(&h.name("b"), "object");
    put(o.as_ref(), &path, Bytes::from_static(b"old")).await?;
    let mut upload = begin(o, &path).await?;
    upload.put_part(Bytes::from_static(b"new").into()).await.map_err(|e| error("send part of", &path, e))?;
    assert_eq!(get(o.as_ref(), &path).await?, "old");
    finish(upload, &path).await?;
    assert_eq!(get(o.as_ref(), &path).await?, "new");
    Ok(())
}

/// An upload of one empty part is an empty object.
pub async fn multipart_of_nothing_is_empty(o: &Objects, h: &Harness) -> Result<()> {
    let path = at(&h.name("b"), "object");
    let mut upload = begin(o, &path).await?;
    upload.put_part(Bytes::new().into()).await.map_err(|e| error("send part of", &path, e))?;
    finish(upload, &path).await?;
    assert_eq!(get_opt(o.as_ref(), &path).await?, Some(Bytes::new()));
    Ok(())
}

/// Several uploads to one name do not mix: the object is one of them, whole.
pub async fn concurrent_uploads_leave_one_whole(o: &Objects, h: &Harness) -> Result<()> {
    let path = at(&h.name("b"), "object");
    let body = |n: usize| [bytes(PART, n as u64), bytes(1000 + n, n as u64)];
    let call = |n: usize| {
        let (o, path) = (o.clone(), path.clone());
        async move {
            let mut upload = begin(&o, &path).await?;
            let parts: Vec<_> = body(n).into_iter().map(|p| upload.put_part(p.into())).collect();
            futures::future::try_join_all(parts).await.map_err(|e| error("send part of", &path, e))?;
            finish(upload, &path).await
        }
    };
    h.all_at_once(4, call).await.into_iter().collect::<Result<()>>()?;
    let got = get(o.as_ref(), &path).await?;
    assert!((0..4).any(|n| got == body(n).concat()), "the object of {} bytes is none of those sent", got.len());
    Ok(())
}
