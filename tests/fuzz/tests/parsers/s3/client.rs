//! An endpoint over a store in memory, and a client that signs (AWS signature version 4) whatever it is given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use hmac::{Hmac, Mac as _};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use s3s::Body;
use s3s::service::S3Service;
use sha2::{Digest as _, Sha256};
use tidemill_base::Env;
use tidemill_blocks::grants::{Credential, Grants as _, Scope, Verbs};
use tidemill_blocks::memory::{self, MemoryGrants};
use tidemill_blocks::objects::Objects;
use tidemill_server::s3::{Settings, StaticKey, StaticKeys, s3_service};

use crate::block_on;

/// The one host there is.
pub(super) const HOST: &str = "mill:9000";
/// What the credential reaches.
pub(super) const SCOPE: &str = "photos/in";
/// Stands in the name of an object that the credential must not be shown.
pub(super) const NOBODYS: &str = "nobodys";
/// Stands in objects that the credential does not reach.
pub(super) const CANARY: &str = "nobody-may-see-this";

/// Nobody has lasting keys.
#[derive(Debug)]
struct NoKeys;

impl StaticKeys for NoKeys {
    fn lookup(&self, _: &str) -> Option<StaticKey> {
        None
    }
}

/// The endpoint with one credential.
pub(super) struct Mill {
    service: S3Service,
    pub(super) objects: Objects,
    pub(super) credential: Credential,
    env: Env,
}

/// A request as text: method, target, headers, body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// What the endpoint answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Mill {
    /// With a bucket, an object within the credential's reach and some beyond it.
    pub(super) fn new() -> Self {
        let env = Env::system();
        let (objects, grants) = (memory::objects(), Arc::new(MemoryGrants::new(env.clone())));
        let service = s3_service(objects.clone(), grants.clone(), Arc::new(NoKeys), env.clone(), Settings::default()).unwrap();
        let scopes = vec![Scope { prefix: SCOPE.to_owned(), verbs: Verbs::ALL }];
        let credential = block_on(grants.issue("ada", scopes, Duration::from_secs(3600))).unwrap();
        let mill = Self { service, objects, credential, env };
        for (path, bytes) in [
            ("system/buckets/photos", ""),
            ("system/buckets/secret", ""),
            ("system/grants.key", CANARY),
            ("photos/in/a.txt", "0123456789"),
            ("photos/inside.txt", CANARY),
            ("photos/in-nobodys.txt", CANARY),
            ("photos/other/b.txt", CANARY),
            ("secret/c.txt", CANARY),
        ] {
            mill.put(path, bytes.as_bytes());
        }
        mill
    }

    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        block_on(self.objects.put(&Path::parse(path).unwrap(), bytes.to_vec().into())).unwrap();
    }

    pub(super) fn get(&self, path: &str) -> Option<Bytes> {
        let path = Path::parse(path).ok()?;
        block_on(async { self.objects.get(&path).await.ok()?.bytes().await.ok() })
    }

    /// Every object that the credential must not change, with its tag.
    pub(super) fn beyond_reach(&self) -> BTreeMap<String, Option<String>> {
        let all: Vec<_> = block_on(self.objects.list(None).try_collect()).unwrap();
        let ours = |path: &str| path == SCOPE || path.starts_with("photos/in/") || path.starts_with("system/multipart/photos/");
        all.into_iter().map(|m| (m.location.to_string(), m.e_tag)).filter(|(path, _)| !ours(path)).collect()
    }

    /// Asks the endpoint. `None` when this is no request of HTTP at all.
    pub(super) fn send(&self, call: &Call) -> Option<Answer> {
        let uri: Uri = call.target.parse().ok()?;
        let mut request = hyper::Request::builder().method(Method::from_bytes(call.method.as_bytes()).ok()?).uri(uri);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if !call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            request = request.header("content-length", call.body.len());
        }
        let request = request.body(Body::from(call.body.clone())).ok()?;
        block_on(async {
            let response = self.service.call(request).await.unwrap();
            let (head, mut body) = response.into_parts();
            // A body that breaks off tells the client so; there is nothing to compare then.
            let body = body.store_all_limited(64 << 20).await.unwrap_or_default();
            Some(Answer { status: head.status, headers: head.headers, body })
        })
    }

    /// `20260131T120000Z`.
    pub(super) fn date(&self) -> String {
        jiff::Timestamp::from_microsecond(self.env.now().micros()).unwrap().strftime("%Y%m%dT%H%M%SZ").to_string()
    }

    /// Adds what a signed request carries, with the signature over every header. The payload's hash may be given in the headers.
    pub(super) fn sign(&self, call: &mut Call) {
        let date = self.date();
        call.headers.retain(|(name, _)| {
            !["authorization", "x-amz-date", "x-amz-security-token", "host"].contains(&name.to_ascii_lowercase().as_str())
        });
        if !call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-amz-content-sha256")) {
            call.headers.push(("x-amz-content-sha256".to_owned(), hex::encode(Sha256::digest(&call.body))));
        }
        call.headers.push(("host".to_owned(), HOST.to_owned()));
        call.headers.push(("x-amz-date".to_owned(), date.clone()));
        call.headers.push(("x-amz-security-token".to_owned(), self.credential.session_token.clone()));
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &call.headers {
            headers.entry(name.to_ascii_lowercase()).or_default().push(one_space(value));
        }
        let signed = headers.keys().cloned().collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, values)| format!("{name}:{}\n", values.join(","))).collect();
        let hash = headers["x-amz-content-sha256"].join(",");
        let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
        let request = format!("{}\n{}\n{}\n{lines}\n{signed}\n{hash}", call.method, encode_path(path), canonical_query(query));
        let signature = hex::encode(self.hmac_chain(&date, &request));
        let scope = format!("{}/{}/us-east-1/s3/aws4_request", self.credential.access_key, &date[..8]);
        let value = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={signed}, Signature={signature}");
        call.headers.push(("authorization".to_owned(), value));
    }

    /// A link: the query carries everything, and only the host among the headers is signed.
    pub(super) fn presign(&self, call: &mut Call, seconds: u64) {
        let date = self.date();
        let scope = format!("{}/{}/us-east-1/s3/aws4_request", self.credential.access_key, &date[..8]);
        let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
        let query = format!(
            "{query}{}X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={date}&X-Amz-Expires={seconds}&X-Amz-Security-Token={}&X-Amz-SignedHeaders=host",
            if query.is_empty() { "" } else { "&" },
            encode(&scope, false),
            encode(&self.credential.session_token, false),
        );
        let request = format!("{}\n{}\n{}\nhost:{HOST}\n\nhost\nUNSIGNED-PAYLOAD", call.method, encode_path(path), canonical_query(&query));
        let signature = hex::encode(self.hmac_chain(&date, &request));
        call.target = format!("{path}?{query}&X-Amz-Signature={signature}");
        call.headers = vec![("host".to_owned(), HOST.to_owned())];
    }

    fn signing_key(&self, date: &str) -> Vec<u8> {
        let secret = format!("AWS4{}", self.credential.secret_key);
        [&date[..8], "us-east-1", "s3", "aws4_request"].iter().fold(secret.into_bytes(), |key, part| hmac(&key, part.as_bytes()))
    }

    fn hmac_chain(&self, date: &str, request: &str) -> Vec<u8> {
        let digest = hex::encode(Sha256::digest(request));
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{}/us-east-1/s3/aws4_request\n{digest}", &date[..8]);
        hmac(&self.signing_key(date), text.as_bytes())
    }

    /// A body in chunks, each signed over the one before; `call` is signed already.
    pub(super) fn chunked(&self, call: &Call, chunks: &[&[u8]]) -> Vec<u8> {
        let header = |wanted: &str| call.headers.iter().find(|(name, _)| name == wanted).unwrap().1.clone();
        let date = header("x-amz-date");
        let mut before = header("authorization").rsplit('=').next().unwrap().to_owned();
        let mut out = Vec::new();
        for chunk in chunks.iter().chain([&&b""[..]]) {
            let scope = format!("{}/us-east-1/s3/aws4_request", &date[..8]);
            let (empty, digest) = (hex::encode(Sha256::digest("")), hex::encode(Sha256::digest(chunk)));
            let text = format!("AWS4-HMAC-SHA256-PAYLOAD\n{date}\n{scope}\n{before}\n{empty}\n{digest}");
            before = hex::encode(hmac(&self.signing_key(&date), text.as_bytes()));
            out.extend_from_slice(format!("{:x};chunk-signature={before}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out
    }
}

impl Call {
    /// Reads a request as it would stand on the wire.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let at = text.windows(2).position(|w| w == b"\n\n").unwrap_or(text.len());
        let head = std::str::from_utf8(&text[..at]).ok()?;
        let mut lines = head.lines();
        let (method, target) = lines.next()?.split_once(' ')?;
        let headers = lines.map(|l| l.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned()))).collect::<Option<_>>()?;
        let body = text.get(at + 2..).unwrap_or_default().to_vec();
        Some(Self { method: method.to_owned(), target: target.to_owned(), headers, body })
    }

    /// As it would stand on the wire.
    pub(super) fn written(&self) -> Vec<u8> {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        [format!("{} {}\n{headers}\n", self.method, self.target).as_bytes(), &self.body].concat()
    }
}

/// A header's value as it is signed: without blanks at its ends, and with one space for several.
pub(super) fn one_space(value: &str) -> String {
    value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// Percent-encodes as signature version 4 does.
fn encode(text: &str, keep_slash: bool) -> String {
    encode_bytes(text.as_bytes(), keep_slash)
}

fn encode_bytes(bytes: &[u8], keep_slash: bool) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || (keep_slash && b == b'/');
    bytes.iter().map(|b| if plain(*b) { char::from(*b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Undoes percent-encoding; what is malformed stays as it is.
pub(super) fn decode(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((b, tail)) = rest.split_first() {
        match (b, tail.first_chunk::<2>().and_then(|digits| hex::decode(digits).ok())) {
            (b'%', Some(byte)) => {
                out.extend(byte);
                rest = &tail[2..];
            }
            _ => {
                out.push(*b);
                rest = tail;
            }
        }
    }
    out
}

fn encode_path(path: &str) -> String {
    encode_bytes(&decode(path), true)
}

/// Name and value of each parameter, decoded, in order.
pub(super) fn query_pairs(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs: Vec<_> = query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(n, v)| (decode(n), decode(v)))
        .collect();
    pairs.sort();
    pairs
}

fn canonical_query(query: &str) -> String {
    let pairs = query_pairs(query).into_iter().map(|(n, v)| (encode_bytes(&n, false), encode_bytes(&v, false)));
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort();
    pairs.into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("&")
}
