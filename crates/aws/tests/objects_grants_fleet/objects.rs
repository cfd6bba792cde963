//! S3.

use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::client::{HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStoreExt as _};
use tidemill_aws::AwsSettings;
use tidemill_base::{Env, ErrorKind};
use tidemill_blocks::check::Found;
use tidemill_blocks::objects::{Objects, error, get, get_opt, put, put_new};
use tidemill_blocks_test::{Harness, Skip};
use tidemill_runtime::sleep;

use crate::support::{MINISTACK, MOTO, connect, or_skip, settings, with_bucket};

mod ministack {
    use super::*;

    async fn make(h: &Harness) -> Result<Objects, Skip> {
        Ok(with_bucket(MINISTACK, h.env()).await?.objects().unwrap())
    }

    tidemill_blocks_test::objects_suite!(real, make);
}

mod moto {
    use super::*;

    /// moto shares its state between threads without locks: overwriting one key at once answers 43 of 100 puts with
    /// `I/O operation on closed file`.
    const AT_ONCE: [&str; 3] = ["one_of_many_creators_wins", "concurrent_puts_leave_one_whole", "concurrent_uploads_leave_one_whole"];

    async fn make(h: &Harness) -> Result<Objects, Skip> {
        if AT_ONCE.contains(&h.behaviour()) {
            return Err(Skip("moto answers writes of one key at the same time with HTTP 500".to_owned()));
        }
        Ok(with_bucket(MOTO, h.env()).await?.objects().unwrap())
    }

    tidemill_blocks_test::objects_suite!(real, make);
}

/// The status of a request without a signature but the URL's own.
async fn plain(method: &str, url: &str, body: &str) -> (u16, String) {
    let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).unwrap();
    let mut request = HttpRequest::new(HttpRequestBody::from(body.to_owned()));
    *request.method_mut() = method.parse().unwrap();
    *request.uri_mut() = url.parse().unwrap();
    let answer = client.execute(request).await.unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8_lossy(&answer.into_body().bytes().await.unwrap()).into_owned())
}

#[tokio::test]
async fn presigned_urls_reach_one_object_for_a_while() {
    let env = Env::system();
    let aws = or_skip!("presigned_urls_reach_one_object_for_a_while", with_bucket(MINISTACK, &env).await);
    let (path, minute) = (Path::from("files/a b"), Duration::from_secs(60));
    let put_url = aws.presigned_put(&path, minute).await.unwrap();
    assert_eq!(plain("PUT", &put_url, "content").await.0, 200);
    let get_url = aws.presigned_get(&path, minute).await.unwrap();
    assert_eq!(plain("GET", &get_url, "").await, (200, "content".to_owned()));
    assert_eq!(plain("PUT", &get_url, "other").await.0, 403, "a URL to read does not write");
    assert_eq!(plain("GET", &get_url.replace("a%20b", "a%20c"), "").await.0, 403, "nor does it reach another object");
    let brief = aws.presigned_get(&path, Duration::from_secs(1)).await.unwrap();
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(plain("GET", &brief, "").await.0, 403, "and it ends");
    for bad in [Duration::ZERO, Duration::from_secs(8 * 24 * 3600)] {
        assert_eq!(aws.presigned_get(&path, bad).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(get(aws.objects().unwrap().as_ref(), &path).await.unwrap(), "content");
}

#[tokio::test]
async fn installations_in_one_bucket_do_not_meet() {
    let env = Env::system();
    let of = or_skip!("installations_in_one_bucket_do_not_meet", settings(MINISTACK, &env));
    let one = connect(AwsSettings { key_prefix: "team/one".to_owned(), ..of.clone() }, &env).await;
    assert_eq!(one.check_objects(true).await.iter().map(|f| f.found).collect::<Vec<_>>(), [Found::Made, Found::Ready]);
    let two = connect(AwsSettings { key_prefix: "team/two".to_owned(), ..of.clone() }, &env).await.objects().unwrap();
    let path = Path::from("jobs/j1");
    put(one.objects().unwrap().as_ref(), &path, "one").await.unwrap();
    assert_eq!(get_opt(two.as_ref(), &path).await.unwrap(), None);
    assert!(put_new(two.as_ref(), &path, "two").await.unwrap());
    let whole = connect(of, &env).await.objects().unwrap();
    assert_eq!(get(whole.as_ref(), &Path::from("team/one/jobs/j1")).await.unwrap(), "one");
    let url = one.presigned_get(&path, Duration::from_secs(60)).await.unwrap();
    assert_eq!(plain("GET", &url, "").await, (200, "one".to_owned()));
}

#[tokio::test]
async fn every_request_is_counted() {
    let env = Env::system();
    let aws = or_skip!("every_request_is_counted", with_bucket(MINISTACK, &env).await);
    let (objects, path) = (aws.objects().unwrap(), Path::from("a"));
    let before = aws.calls();
    let attempts = |operation: &str| before.attempts("s3", operation);
    let counted = [attempts("PutObject"), attempts("GetObject"), attempts("CopyObject")];
    put(objects.as_ref(), &path, "x").await.unwrap();
    for _ in 0..3 {
        get(objects.as_ref(), &path).await.unwrap();
    }
    objects.copy(&path, &Path::from("b")).await.unwrap();
    assert!(!put_new(objects.as_ref(), &path, "y").await.unwrap());
    assert_eq!([attempts("PutObject"), attempts("GetObject"), attempts("CopyObject")], [counted[0] + 2, counted[1] + 3, counted[2] + 1]);
    assert!(aws.calls().list_price_usd() > 0.0);
}

#[tokio::test]
async fn a_bucket_that_is_missing_is_named_and_made_when_asked() {
    let env = Env::system();
    let aws = connect(or_skip!("a_bucket_that_is_missing_is_named_and_made_when_asked", settings(MINISTACK, &env)), &env).await;
    let found = aws.check_objects(false).await;
    assert_eq!((found.len(), found[0].found), (1, Found::Missing));
    assert!(found[0].what.contains("t-b") && found[0].note.contains("--create"), "{found:?}");
    for expected in [Found::Made, Found::Ready] {
        let found = aws.check_objects(true).await;
        assert_eq!(found.iter().map(|f| f.found).collect::<Vec<_>>(), [expected, Found::Ready], "{found:?}");
    }
}

#[tokio::test]
async fn strangers_are_denied_and_an_engine_that_is_away_is_unavailable() {
    let env = Env::system();
    let there = or_skip!("strangers_are_denied_and_an_engine_that_is_away_is_unavailable", with_bucket(MINISTACK, &env).await);
    let of = settings(MINISTACK, &env).unwrap();
    drop(there);
    let stranger = AwsSettings { access_key: Some("AKIAIOSFODNN7EXAMPLE".to_owned()), ..of.clone() };
    let stranger = connect(stranger, &env).await;
    let (objects, path) = (stranger.objects().unwrap(), Path::from("a"));
    let listed: Result<Vec<_>, _> = objects.list(None).try_collect().await;
    for (what, e) in [
        ("put", put(objects.as_ref(), &path, "x").await.unwrap_err()),
        ("get", get(objects.as_ref(), &path).await.unwrap_err()),
        ("list", error("list", &path, listed.unwrap_err())),
    ] {
        assert_eq!(e.kind(), ErrorKind::Denied, "{what}: {e:?}");
    }
    assert_eq!(stranger.check_objects(false).await[0].found, Found::Denied);
    // Nobody listens on the port of discard.
    let away = connect(AwsSettings { endpoint: Some("http://127.0.0.1:9".to_owned()), ..of }, &env).await;
    let found = away.check_objects(true).await;
    assert_eq!(found[0].found, Found::Unreachable, "{found:?}");
}
