//! From the options of `grid run` to a session.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};
use tidemill_api::OpenSessionRequest;
use tidemill_base::{ByteSize, Error, HumanDuration, Result};
use tidemill_client::Client;

use super::limits::Limits;
use crate::commands::serve::key_value;

/// What a session is like, whatever its tasks are.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SessionOptions {
    /// The kind of engine: python, pricing, or another that workers know.
    #[arg(long, default_value = "python", value_name = "NAME")]
    pub(crate) engine: String,
    /// The function, which the engine imports: math:sqrt.
    #[arg(long, value_name = "MODULE:FUNCTION", required_unless_present = "name", conflicts_with = "name")]
    pub(crate) module: Option<String>,
    /// The function, by the name that the engine has for it: european.
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) name: Option<String>,
    /// A file with what the function keeps warm: JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) setup: Option<PathBuf>,
    /// A function that makes, once in each engine, what is kept warm; it is given what `--setup` holds.
    #[arg(long, value_name = "MODULE:FUNCTION")]
    pub(crate) setup_module: Option<String>,
    /// The session's name [default: the function's].
    #[arg(long, value_name = "NAME")]
    pub(crate) title: Option<String>,
    /// How often a failed task is tried again.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=19))]
    pub(crate) retries: Option<u32>,
    /// How long a task may take, such as 30s.
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<HumanDuration>,
    /// Memory that an engine may take, such as 2GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// A parameter that function and engine know.
    #[arg(long = "param", value_name = "K=V", value_parser = key_value)]
    pub(crate) parameters: Vec<(String, String)>,
    /// A variable of the engines.
    #[arg(long = "env", short, value_name = "K=V", value_parser = key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// A package that engines get, such as calendars@2026-01; without a version, the one published last.
    #[arg(long = "package", value_name = "NAME[@VERSION]")]
    pub(crate) packages: Vec<String>,
    /// A label of the session.
    #[arg(long = "label", value_name = "K=V", value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// Higher goes first, -1000 to 1000.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_name = "N")]
    pub(crate) priority: i32,
    /// The class of workers.
    #[arg(long)]
    pub(crate) class: Option<String>,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// Set-up data longer than this goes through an object.
const INLINE_SETUP: usize = 1 << 20;

impl SessionOptions {
    /// What is to be kept warm, read and checked.
    pub(crate) fn setup(&self) -> Result<Option<Vec<u8>>> {
        self.setup.as_deref().map(read_setup).transpose()
    }

    /// The request that opens it.
    pub(crate) async fn request(&self, client: &Client, setup: Option<Vec<u8>>, input: &str, token: String) -> Result<OpenSessionRequest> {
        let mut request = OpenSessionRequest { session: self.session(input), client_token: Some(token), ..OpenSessionRequest::default() };
        match setup {
            Some(data) if data.len() > INLINE_SETUP => {
                let object = format!("{}/setup.json", client.new_upload().await?.prefix.trim_end_matches('/'));
                client.put_object(&object, data).await?;
                request.setup_object = Some(object);
            }
            Some(data) => request.setup = Some(base64(&data)),
            None => {}
        }
        Ok(request)
    }

    /// The session as the server takes it: `input` goes in, JSON comes out.
    fn session(&self, input: &str) -> Value {
        let function = match (&self.module, &self.name) {
            (Some(module), _) => json!({"module": module}),
            (None, name) => json!({"name": name}),
        };
        let title = self.title.as_ref().or(self.module.as_ref()).or(self.name.as_ref());
        let mut session = Map::new();
        let mut put = |key: &str, value: Value| {
            if !value.is_null() && value != json!({}) && value != json!([]) {
                session.insert(key.to_owned(), value);
            }
        };
        put("name", json!(title));
        put("engine", json!(self.engine));
        put("function", function);
        put("setup_function", self.setup_module.as_ref().map_or(Value::Null, |m| json!({"module": m})));
        put("input", json!(input));
        put("output", json!("json"));
        put("class", json!(self.class));
        put("priority", json!(self.priority));
        put("timeout", json!(self.timeout));
        put("memory", json!(self.memory.map(ByteSize::bytes)));
        put("retry", self.retries.map_or(Value::Null, |n| json!({"attempts": n + 1})));
        put("env", map(&self.env));
        put("parameters", map(&self.parameters));
        put("packages", json!(self.packages));
        put("labels", map(&self.labels));
        self.limits.put(&mut session);
        Value::Object(session)
    }
}

fn map(pairs: &[(String, String)]) -> Value {
    pairs.iter().cloned().collect()
}

fn read_setup(file: &Path) -> Result<Vec<u8>> {
    let data = std::fs::read(file).map_err(|e| Error::invalid(format!("--setup {} cannot be read", file.display())).with_source(e))?;
    serde_json::from_slice::<serde::de::IgnoredAny>(&data)
        .map_err(|e| Error::invalid(format!("--setup {} is not JSON: {e}", file.display())))?;
    Ok(data)
}

/// As the interface takes bytes.
pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_sent_and_nothing_else() {
        let options = SessionOptions { engine: "pricing".into(), name: Some("european".into()), ..SessionOptions::default() };
        let plain = json!({"name": "european", "engine": "pricing", "function": {"name": "european"}, "input": "json", "output": "json", "priority": 0});
        assert_eq!(options.session("json"), plain);
        let full = SessionOptions {
            module: Some("risk:value".into()),
            name: None,
            setup_module: Some("risk:load".into()),
            retries: Some(2),
            timeout: Some("30s".parse().unwrap()),
            memory: Some(ByteSize(1 << 30)),
            parameters: vec![("desk".into(), "EQ".into())],
            packages: vec!["calendars@2026-01".into()],
            ..options
        };
        let sent = full.session("arrow");
        assert_eq!(sent["input"], json!("arrow"));
        assert_eq!((&sent["function"], &sent["setup_function"]), (&json!({"module": "risk:value"}), &json!({"module": "risk:load"})));
        assert_eq!(
            (&sent["retry"], &sent["memory"], &sent["parameters"]),
            (&json!({"attempts": 3}), &json!(1 << 30), &json!({"desk": "EQ"}))
        );
        assert_eq!((&sent["timeout"], &sent["packages"]), (&json!("30s"), &json!(["calendars@2026-01"])));
    }

    #[test]
    fn set_up_data_is_checked_before_anything_is_sent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{").unwrap();
        let options = SessionOptions { setup: Some(file.path().to_owned()), ..SessionOptions::default() };
        assert!(options.setup().unwrap_err().message().contains("is not JSON"));
        assert!(read_setup(Path::new("/none")).unwrap_err().message().contains("--setup /none cannot be read"));
    }
}
