//! The outcome of a task as it is written and shown.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tidemill_client::TaskOutcome;

use super::options::base64;

/// Why a task failed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Failure {
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) traceback: String,
}

/// Reads the error of a failed task.
pub(crate) fn failure(outcome: &TaskOutcome) -> Failure {
    serde_json::from_slice(&outcome.bytes).unwrap_or_else(|_| Failure {
        kind: "error".to_owned(),
        message: String::from_utf8_lossy(&outcome.bytes).into_owned(),
        traceback: String::new(),
    })
}

/// A result in JSON: as the engine wrote it, so that no digit of a number changes. Other results are text or base64 under their names.
fn member(outcome: &TaskOutcome) -> String {
    if !outcome.ok {
        let f = failure(outcome);
        return format!("\"error\":{}", json!({"kind": f.kind, "message": f.message, "traceback": f.traceback}));
    }
    match std::str::from_utf8(&outcome.bytes) {
        // A line's end within JSON is white space; in strings it is escaped.
        Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => format!("\"value\":{}", text.trim().replace(['\n', '\r'], " ")),
        Ok(text) => format!("\"text\":{}", Value::from(text)),
        Err(_) => format!("\"base64\":{}", Value::from(base64(&outcome.bytes))),
    }
}

/// One line of JSON.
pub(crate) fn line(outcome: &TaskOutcome) -> String {
    format!("{{\"task\":{},\"run_us\":{},{}}}\n", outcome.task, outcome.run_us, member(outcome))
}

/// The content of a file of its own, and how the file's name ends.
pub(crate) fn file(outcome: &TaskOutcome) -> (&'static str, Vec<u8>) {
    if !outcome.ok {
        return ("error.json", format!("{}\n", member(outcome).trim_start_matches("\"error\":")).into_bytes());
    }
    let is_json = serde_json::from_slice::<IgnoredAny>(&outcome.bytes).is_ok();
    (if is_json { "json" } else { "bin" }, outcome.bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn outcome(ok: bool, bytes: &'static [u8]) -> TaskOutcome {
        TaskOutcome { task: 3, run_us: 9, ok, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn results_are_written_with_every_digit_and_errors_with_their_traceback() {
        assert_eq!(line(&outcome(true, b"0.10000000000000000555")), "{\"task\":3,\"run_us\":9,\"value\":0.10000000000000000555}\n");
        assert_eq!(line(&outcome(true, b"{\n \"a\": 1}\n")), "{\"task\":3,\"run_us\":9,\"value\":{  \"a\": 1}}\n");
        assert_eq!(line(&outcome(true, b"NaN")), "{\"task\":3,\"run_us\":9,\"text\":\"NaN\"}\n");
        assert_eq!(line(&outcome(true, b"\x80\x05")), "{\"task\":3,\"run_us\":9,\"base64\":\"gAU=\"}\n");
        let failed = outcome(false, br#"{"kind": "ValueError", "message": "no", "traceback": "tb", "value": ""}"#);
        let read: Value = serde_json::from_str(&line(&failed)).unwrap();
        assert_eq!(read["error"], json!({"kind": "ValueError", "message": "no", "traceback": "tb"}));
        assert_eq!((file(&failed).0, file(&outcome(true, b"1")).0, file(&outcome(true, b"\x80")).0), ("error.json", "json", "bin"));
        assert_eq!(failure(&outcome(false, b"broken")).message, "broken");
    }
}
