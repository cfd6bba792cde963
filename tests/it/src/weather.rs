//! Bad weather between processes and an engine: a relay that throttles, fails, loses answers, delays them, gives messages twice, and hangs up.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::patience::pause;
use crate::seed::Dice;

/// Of a thousand requests, so many meet each fault.
const THROTTLED: u64 = 25;
const BROKEN: u64 = 15;
const LOST: u64 = 15;
const CUT: u64 = 10;
const SLOW: u64 = 30;
/// Of a thousand requests for messages, so many are answered with messages that were given before, deleted since or not.
const TWICE: u64 = 100;
/// The longest that a slow answer takes, milliseconds.
const SLOWEST: u64 = 1_500;

/// What has happened so far.
#[derive(Debug, Default)]
struct Seen {
    passed: AtomicU64,
    faults: AtomicU64,
}

/// A relay in front of an engine. It ends with the test's process.
#[derive(Debug, Clone)]
pub struct Weather {
    address: SocketAddr,
    rough: Arc<AtomicBool>,
    down: Arc<AtomicBool>,
    expired: Arc<AtomicBool>,
    given: Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    seen: Arc<Seen>,
}

impl Weather {
    /// In front of a service that speaks HTTP, whose requests meet faults one by one.
    pub fn of_requests(engine: &str) -> Self {
        Self::start(engine, request)
    }

    /// In front of a service whose connections pass as they are, until [`Weather::outage`].
    pub fn of_connections(engine: &str) -> Self {
        Self::start(engine, |client, engine, weather, _| connection(client, engine, weather))
    }

    fn start(engine: &str, carry: fn(TcpStream, &str, &Weather, &Mutex<Dice>)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let rough = Arc::new(AtomicBool::new(true));
        let (down, expired) = (Arc::default(), Arc::default());
        let weather = Self { address, rough, down, expired, given: Arc::default(), open: Arc::default(), seen: Arc::default() };
        let dice = Arc::new(Mutex::new(Dice::new("weather")));
        let (engine, shared) = (engine.to_owned(), weather.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.down.load(Ordering::Relaxed) {
                    continue;
                }
                let (engine, shared, dice) = (engine.clone(), shared.clone(), Arc::clone(&dice));
                thread::spawn(move || carry(client, &engine, &shared, &dice));
            }
        });
        weather
    }

    /// Where to speak to instead of the engine: host and port.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Nothing goes wrong any more.
    pub fn calm(&self) {
        self.rough.store(false, Ordering::Relaxed);
    }

    /// The engine is restarted: every connection ends, and for so long it takes no new ones.
    pub fn outage(&self, span: Duration) {
        self.down.store(true, Ordering::Relaxed);
        for stream in self.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
        pause(span);
        self.down.store(false, Ordering::Relaxed);
        self.seen.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// For so long every request is told that its credentials have expired.
    pub fn expire(&self, span: Duration) {
        self.expired.store(true, Ordering::Relaxed);
        pause(span);
        self.expired.store(false, Ordering::Relaxed);
    }

    /// Requests or connections that passed, and faults.
    pub fn seen(&self) -> (u64, u64) {
        (self.seen.passed.load(Ordering::Relaxed), self.seen.faults.load(Ordering::Relaxed))
    }
}

/// Both directions of a connection, as they are.
fn connection(client: TcpStream, engine: &str, weather: &Weather) {
    let Ok(upstream) = TcpStream::connect(engine) else { return };
    weather.seen.passed.fetch_add(1, Ordering::Relaxed);
    let (mut from_client, mut to_engine) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
    weather.open.lock().unwrap().extend([client.try_clone().unwrap(), upstream.try_clone().unwrap()]);
    let back = thread::spawn(move || {
        let (mut from_engine, mut to_client) = (upstream, client);
        drop(std::io::copy(&mut from_engine, &mut to_client));
        drop(to_client.shutdown(Shutdown::Both));
    });
    drop(std::io::copy(&mut from_client, &mut to_engine));
    drop(to_engine.shutdown(Shutdown::Both));
    drop(back.join());
}

/// One request a connection, so that what happens to it is one decision.
fn request(mut client: TcpStream, engine: &str, weather: &Weather, dice: &Mutex<Dice>) {
    let Some(request) = read_request(&mut client) else { return };
    let (chance, again, late) = {
        let mut dice = dice.lock().unwrap();
        let rough = weather.rough.load(Ordering::Relaxed);
        let mut chance = || if rough { dice.below(1_000) } else { 999 };
        (chance(), chance(), dice.millis(50, SLOWEST))
    };
    let bounds = [THROTTLED, BROKEN, LOST, CUT, SLOW].iter().scan(0, |sum, share| {
        *sum += share;
        Some(*sum)
    });
    let fault = bounds.take_while(|bound| *bound <= chance).count();
    weather.seen.faults.fetch_add(u64::from(fault < 5), Ordering::Relaxed);
    let answer = match fault {
        _ if weather.expired.load(Ordering::Relaxed) => refusal(&request, 400, "ExpiredTokenException", 400, "ExpiredToken"),
        0 => refusal(&request, 400, "ThrottlingException", 503, "SlowDown"),
        1 => refusal(&request, 500, "InternalServerError", 500, "InternalError"),
        // The engine does it, and nobody hears of it.
        2 => {
            drop(ask(engine, &request));
            return;
        }
        3 => return,
        _ => {
            let Some(answer) = given_before(weather, &request, again).or_else(|| ask(engine, &request)) else { return };
            weather.seen.passed.fetch_add(1, Ordering::Relaxed);
            remember(weather, &request, &answer);
            answer
        }
    };
    if fault == 4 {
        pause(late);
    }
    drop(client.write_all(&answer));
    drop(client.shutdown(Shutdown::Write));
}

/// What is asked for, where that is messages of a queue: the parameters, which name the queue.
fn asks_for_messages(request: &[u8]) -> Option<Vec<u8>> {
    let end = request.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    head.contains("x-amz-target: amazonsqs.receivemessage").then(|| request[end..].to_vec())
}

/// Messages that the same question was answered with before, as a queue may give them that promises at least one delivery.
fn given_before(weather: &Weather, request: &[u8], chance: u64) -> Option<Vec<u8>> {
    let asked = asks_for_messages(request).filter(|_| chance < TWICE)?;
    let answer = weather.given.lock().unwrap().remove(&asked)?;
    weather.seen.faults.fetch_add(1, Ordering::Relaxed);
    Some(answer)
}

fn remember(weather: &Weather, request: &[u8], answer: &[u8]) {
    let Some(asked) = asks_for_messages(request) else { return };
    if answer.windows(15).any(|w| w == b"\"ReceiptHandle\"") {
        weather.given.lock().unwrap().insert(asked, answer.to_vec());
    }
}

/// What the service would say itself: JSON where the operation is in a header, XML from S3.
fn refusal(request: &[u8], json_status: u16, json_code: &str, s3_status: u16, s3_code: &str) -> Vec<u8> {
    let head = String::from_utf8_lossy(request).to_ascii_lowercase();
    let (status, kind, body) = if head.contains("x-amz-target:") {
        (json_status, "application/x-amz-json-1.0", format!("{{\"__type\":\"{json_code}\",\"message\":\"bad weather\"}}"))
    } else {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{s3_code}</Code><Message>bad weather</Message></Error>");
        (s3_status, "application/xml", body)
    };
    format!("HTTP/1.1 {status} Weather\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// Head and body of a request, told to close the connection behind itself.
fn read_request(client: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 16 * 1024]);
    let end = loop {
        let n = client.read(&mut piece).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 2;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().filter_map(|l| l.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(Some(0), |(_, value)| value.trim().parse().ok())?;
    while bytes.len() < end + 2 + length {
        let n = client.read(&mut piece).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
    }
    bytes.splice(end..end, *b"connection: close\r\n");
    Some(bytes)
}

fn ask(engine: &str, request: &[u8]) -> Option<Vec<u8>> {
    let mut upstream = TcpStream::connect(engine).ok()?;
    upstream.write_all(request).ok()?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}
