//! Bytes that no driver would send.

use std::time::Duration;

use tidemill_runtime::sleep;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{PASSWORD, Running, plain, soon};

fn framed(tag: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    tag.into_iter().chain(length).chain(body.iter().copied()).collect()
}

fn hello() -> Vec<u8> {
    framed(None, b"\0\x03\0\0user\0ada\0\0")
}

async fn everything(stream: &mut TcpStream) -> Vec<u8> {
    let mut out = Vec::new();
    // A reset connection has ended as well.
    let _ = soon("the end of the connection", stream.read_to_end(&mut out)).await;
    out
}

async fn signed_in(running: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&hello()).await.unwrap();
    stream.write_all(&framed(Some(b'p'), format!("{PASSWORD}\0").as_bytes())).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"Z\0\0\0\x05I") {
        let mut part = [0; 512];
        let n = soon("the welcome", stream.read(&mut part)).await.unwrap();
        assert!(n > 0, "the server hung up");
        seen.extend_from_slice(&part[..n]);
    }
    stream
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_ends_the_connection_with_a_word_and_nothing_else() {
    let running = plain().await;
    for first in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\0\0\0\x03",
        b"\0\0\0\x08\0\x02\0\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\0\0\0\x09\0\x03\0\0x",
    ] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(first).await.unwrap();
        assert!(everything(&mut stream).await.is_empty(), "{first:?}");
    }
    for (tag, body) in [
        (b'?', &b""[..]),
        (b'B', b"\0\0\xff\xff"),
        (b'P', b"no end"),
        (b'Q', b"\xff\xfe\0"),
        (b'E', b"\0\0"),
        (b'D', b"X\0"),
        (b'S', b"more than nothing"),
    ] {
        let mut stream = signed_in(&running).await;
        stream.write_all(&framed(Some(tag), body)).await.unwrap();
        let said = everything(&mut stream).await;
        assert!(contains(&said, b"C08P01\0"), "{tag}: {}", String::from_utf8_lossy(&said));
    }
    let mut stream = signed_in(&running).await;
    stream.write_all(b"Q\x7f\xff\xff\xff").await.unwrap();
    assert!(contains(&everything(&mut stream).await, b"longer than is taken"));
    running.client().await.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_password_little_is_taken_and_nothing_is_run() {
    let running = plain().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&hello()).await.unwrap();
    stream.write_all(&framed(Some(b'Q'), b"SELECT 1\0")).await.unwrap();
    let said = everything(&mut stream).await;
    assert!(contains(&said, b"a password was asked for") && !contains(&said, b"SELECT 1"), "{}", String::from_utf8_lossy(&said));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&hello()).await.unwrap();
    stream.write_all(b"p\0\x01\0\0").await.unwrap();
    assert!(contains(&everything(&mut stream).await, b"longer than is taken"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encryption_that_is_not_there_is_declined_and_the_session_goes_on() {
    let running = plain().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for code in [80_877_104_u32, 80_877_103] {
        stream.write_all(&framed(None, &code.to_be_bytes())).await.unwrap();
        assert_eq!(soon("an answer", stream.read_u8()).await.unwrap(), b'N');
    }
    stream.write_all(&hello()).await.unwrap();
    assert_eq!(soon("the question for a password", stream.read_u8()).await.unwrap(), b'R');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_error_messages_are_passed_over_until_sync() {
    let running = plain().await;
    let mut stream = signed_in(&running).await;
    let mut out = framed(Some(b'P'), b"a\0SELECT nothing FROM jobs\0\0\0");
    out.extend(framed(Some(b'D'), b"Sa\0"));
    out.extend(framed(Some(b'P'), b"b\0SELECT 2\0\0\0"));
    out.extend(framed(Some(b'S'), b""));
    out.extend(framed(Some(b'D'), b"Sb\0"));
    out.extend(framed(Some(b'S'), b""));
    out.extend(framed(Some(b'X'), b""));
    stream.write_all(&out).await.unwrap();
    let said = everything(&mut stream).await;
    assert!(contains(&said, b"C42703\0") && contains(&said, b"C26000\0"), "{}", String::from_utf8_lossy(&said));
    assert_eq!(said.iter().filter(|b| **b == b'Z').count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_cancels_nothing() {
    let running = plain().await;
    let client = running.client().await;
    for process in [0_u32, 1, u32::MAX] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let body = [&80_877_102_u32.to_be_bytes()[..], &process.to_be_bytes(), &7_u32.to_be_bytes()].concat();
        stream.write_all(&framed(None, &body)).await.unwrap();
        assert!(everything(&mut stream).await.is_empty());
    }
    sleep(Duration::from_millis(50)).await;
    client.batch_execute("SELECT 1").await.unwrap();
}
