//! What goes over the wire between a worker and its manager: paths, headers and bodies. Both halves compile against these types.
//!
//! Every call is a POST of a postcard body to the path of its [`Call`]; the answer is a postcard body with status 200, or the
//! JSON error envelope of the manager's every edge. Object contents are raw bodies; what goes along with them is a postcard value
//! in base 64 in a header, since user metadata may hold any character.

/// Declares the calls of one block: a struct each, with its path below `/internal/v1/`, its answer, and how long it may be parked.
macro_rules! calls {
    ($block:literal: $(
        $(#[$doc:meta])* $name:ident($path:literal) -> $answer:ty { $($field:ident: $t:ty),* $(,)? } $(parked for |$this:ident| $wait:expr)?;
    )*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $name { $(
            #[doc = concat!("The argument `", stringify!($field), "`.")]
            pub $field: $t,
        )* }

        impl $crate::wire::Call for $name {
            const PATH: &'static str = concat!("/internal/v1/", $block, "/", $path);
            type Answer = $answer;
            $( fn wait(&self) -> std::time::Duration {
                let $this = self;
                $wait
            } )?
        }
    )* };
}

pub mod objects;
pub mod queue;
pub mod table;
pub mod tasks;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidemill_base::{Error, ErrorKind, Result};

/// The version of everything in this module. Raised whenever a type or a meaning changes.
pub const PROTOCOL: u32 = 2;
/// The request header that carries [`PROTOCOL`].
pub const PROTOCOL_HEADER: &str = "tidemill-protocol";
/// The header of what goes along with an object's content: [`objects::Put`] up, [`objects::Got`] down.
pub const VALUE_HEADER: &str = "tidemill-value";
/// The media type of postcard bodies.
pub const POSTCARD: &str = "application/x-postcard";

/// One kind of call: the type of its request, its path and the type of its answer.
pub trait Call: Serialize + DeserializeOwned + Send + Sync {
    /// Where it is posted to, from the manager's root.
    const PATH: &'static str;
    /// What comes back.
    type Answer: Serialize + DeserializeOwned + Send;

    /// How long the manager may park the request before it answers.
    fn wait(&self) -> Duration {
        Duration::ZERO
    }
}

/// Asks the manager who it is. The first call on a connection, so that a wrong token or version shows at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {}

/// The manager's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The manager's version, for logs.
    pub version: String,
    /// What the queue driver behind the manager does beyond the common promise.
    pub queue: QueueCapabilities,
}

/// `tidemill_blocks::queue::Capabilities` as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCapabilities {
    /// See the block.
    pub strict_leases: bool,
    /// See the block.
    pub exact_stats: bool,
    /// See the block.
    pub exact_browse: bool,
}

impl Call for Hello {
    const PATH: &'static str = "/internal/v1/hello";
    type Answer = Welcome;
}

/// The error envelope: the JSON body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The one field.
    pub error: EnvelopeBody,
}

/// What the envelope holds. Later versions may add fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeBody {
    /// A word of [`ErrorKind::as_str`].
    pub kind: String,
    /// What happened.
    pub message: String,
    /// What to do next, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Names the request in the manager's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// The error that an answer with `status` and `body` stands for. Without an envelope the status alone decides, and a failure of
/// the server (or of a proxy in front of it) is `Unavailable`.
pub fn error_of(status: u16, body: &[u8]) -> Error {
    match serde_json::from_slice::<Envelope>(body) {
        Ok(Envelope { error }) => {
            let id = error.request_id.map(|id| format!(" (request {id})")).unwrap_or_default();
            let hint = error.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            Error::new(ErrorKind::from_word(&error.kind), format!("{}{hint}{id}", error.message))
        }
        Err(_) => Error::new(kind_of(status), format!("the manager answered with status {status}")),
    }
}

fn kind_of(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 | 412 => ErrorKind::Conflict,
        413 | 507 => ErrorKind::Exhausted,
        408 | 425 | 429 | 500.. => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    }
}

/// A value as a body.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|e| Error::internal("value does not encode for the wire").with_source(e))
}

/// The value in a body.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    postcard::from_bytes(body)
        .map_err(|e| Error::invalid(format!("body is not a {} of protocol {PROTOCOL}", std::any::type_name::<T>())).with_source(e))
}

/// A value as a header's text.
pub fn encode_header<T: Serialize>(value: &T) -> Result<String> {
    encode(value).map(|bytes| BASE64.encode(bytes))
}

/// The value in a header's text.
pub fn decode_header<T: DeserializeOwned>(text: &str) -> Result<T> {
    let bytes = BASE64.decode(text).map_err(|e| Error::invalid(format!("header {VALUE_HEADER} is not base 64")).with_source(e))?;
    decode(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_keeps_its_kind_and_a_bare_status_gets_one() {
        let body = br#"{"error":{"kind":"corrupt","message":"segment 3 is torn","request_id":"r1","later":1}}"#;
        let e = error_of(500, body);
        assert_eq!((e.kind(), e.message()), (ErrorKind::Corrupt, "segment 3 is torn (request r1)"));
        for (status, kind) in [(502, ErrorKind::Unavailable), (500, ErrorKind::Unavailable), (403, ErrorKind::Denied)] {
            assert_eq!(error_of(status, b"<html>").kind(), kind, "{status}");
        }
    }

    #[test]
    fn header_values_survive_and_rubbish_is_refused() {
        let text = encode_header(&Hello {}).unwrap();
        assert_eq!(decode_header::<Hello>(&text).unwrap(), Hello {});
        assert_eq!(decode_header::<Welcome>("!!").unwrap_err().kind(), ErrorKind::Invalid);
    }
}
