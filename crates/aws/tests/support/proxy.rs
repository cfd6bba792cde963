//! An HTTP/1.1 proxy between the SDK and an engine that throttles, fails, loses or delays answers as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemill_runtime::sleep;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is refused unseen, with this code.
    Refused(u16, &'static str),
    /// The engine carries it out, and nobody hears of it.
    AnswerLost,
    /// The engine carries it out, and the answer comes late.
    Late(Duration),
    /// The engine does not see it, and the connection ends.
    Cut,
    /// The engine does not see it; a batch is answered as if it had failed each entry.
    EntriesFailed,
    /// The engine does not see it; this is the answer.
    Said(serde_json::Value),
    /// It passes.
    None,
}

/// Throttled, as DynamoDB and SQS say it.
pub const THROTTLED: Fault = Fault::Refused(400, "ThrottlingException");
/// Broken on the engine's side.
pub const BROKEN: Fault = Fault::Refused(500, "InternalServerError");
/// The credentials have expired.
pub const EXPIRED: Fault = Fault::Refused(400, "ExpiredTokenException");

#[derive(Debug, Default)]
struct Plan {
    faults: BTreeMap<String, VecDeque<Fault>>,
    seen: BTreeMap<String, u64>,
}

/// The proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: std::net::SocketAddr,
    plan: Arc<Mutex<Plan>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub async fn start(engine: &str) -> Self {
        let engine = engine.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let mut tasks = JoinSet::new();
        let shared = plan.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (engine, plan) = (engine.clone(), shared.clone());
                connections.spawn(async move {
                    // A client that goes away is no failure of the test.
                    let _ = serve(client, &engine, &plan).await;
                });
            }
        });
        Self { address, plan, _tasks: tasks }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens to the next requests of `operation`, one after the other; later ones pass.
    pub fn next(&self, operation: &str, faults: impl IntoIterator<Item = Fault>) {
        self.plan.lock().unwrap().faults.entry(operation.to_owned()).or_default().extend(faults);
    }

    /// Requests of `operation` so far.
    pub fn seen(&self, operation: &str) -> u64 {
        self.plan.lock().unwrap().seen.get(operation).copied().unwrap_or(0)
    }

    /// Whether all that was planned has happened.
    pub fn is_done(&self) -> bool {
        self.plan.lock().unwrap().faults.values().all(VecDeque::is_empty)
    }
}

/// One HTTP message: its head and its body.
struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head).into_owned();
        head.lines().filter_map(|l| l.split_once(':')).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned())
    }

    fn operation(&self) -> String {
        let target = self.header("x-amz-target").unwrap_or_default();
        target.rsplit('.').next().unwrap_or_default().to_owned()
    }
}

async fn serve(mut client: TcpStream, engine: &str, plan: &Mutex<Plan>) -> io::Result<()> {
    let mut rest = Vec::new();
    while let Some(request) = read(&mut client, &mut rest).await? {
        let operation = request.operation();
        let fault = {
            let mut plan = plan.lock().unwrap();
            *plan.seen.entry(operation.clone()).or_default() += 1;
            plan.faults.get_mut(&operation).and_then(VecDeque::pop_front).unwrap_or(Fault::None)
        };
        match fault {
            Fault::Cut => return Ok(()),
            Fault::Refused(status, code) => {
                answer(&mut client, status, &format!(r#"{{"__type":"{code}","message":"{code} by the test"}}"#)).await?
            }
            Fault::Said(said) => answer(&mut client, 200, &said.to_string()).await?,
            Fault::EntriesFailed => answer(&mut client, 200, &failed_entries(&operation, &request.body)).await?,
            Fault::AnswerLost => {
                forward(engine, &request).await?;
                return Ok(());
            }
            Fault::Late(by) => {
                let reply = forward(engine, &request).await?;
                sleep(by).await;
                send(&mut client, &reply).await?;
            }
            Fault::None => send(&mut client, &forward(engine, &request).await?).await?,
        }
    }
    Ok(())
}

/// A batch's answer in which each entry has failed on the engine's side.
fn failed_entries(operation: &str, body: &[u8]) -> String {
    let asked: serde_json::Value = serde_json::from_slice(body).unwrap();
    match operation {
        "BatchWriteItem" => serde_json::json!({ "UnprocessedItems": asked["RequestItems"] }).to_string(),
        "BatchGetItem" => serde_json::json!({ "Responses": {}, "UnprocessedKeys": asked["RequestItems"] }).to_string(),
        _ => {
            let entries = asked["Entries"].as_array().unwrap();
            let failed = entries.iter().map(|e| serde_json::json!({ "Id": e["Id"], "Code": "InternalError", "SenderFault": false }));
            serde_json::json!({ "Successful": [], "Failed": failed.collect::<Vec<_>>() }).to_string()
        }
    }
}

async fn answer(client: &mut TcpStream, status: u16, body: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await
}

async fn send(to: &mut TcpStream, message: &Message) -> io::Result<()> {
    to.write_all(&message.head).await?;
    to.write_all(&message.body).await
}

/// What the engine answers. The request goes as it came, since its head is signed.
async fn forward(engine: &str, request: &Message) -> io::Result<Message> {
    let mut upstream = TcpStream::connect(engine).await?;
    send(&mut upstream, request).await?;
    let mut rest = Vec::new();
    read(&mut upstream, &mut rest).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The next message of a connection; `rest` keeps what was read beyond it. `None`: the connection ended.
async fn read(from: &mut TcpStream, rest: &mut Vec<u8>) -> io::Result<Option<Message>> {
    let end = loop {
        if let Some(at) = find(rest, b"\r\n\r\n") {
            break at + 4;
        }
        if from.read_buf(rest).await? == 0 {
            return Ok(None);
        }
    };
    let mut message = Message { head: rest.drain(..end).collect(), body: Vec::new() };
    let chunked = message.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    let length: usize = message.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let whole = |rest: &[u8]| if chunked { find(rest, b"0\r\n\r\n").map(|at| at + 5) } else { (rest.len() >= length).then_some(length) };
    loop {
        if let Some(len) = whole(rest) {
            message.body = rest.drain(..len).collect();
            return Ok(Some(message));
        }
        if from.read_buf(rest).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}
