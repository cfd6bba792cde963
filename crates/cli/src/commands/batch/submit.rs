//! `tidemill batch submit`.

use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use tidemill_api::SubmitResponse;
use tidemill_base::{Error, ErrorKind, Result, RetryPolicy};
use tidemill_batch::spec::{from_json, from_toml, parse_at};
use tidemill_client::Client;
use tidemill_runtime::sleep;

use super::closing::{Closing, close};
use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{View, note, to_json};
use crate::progress::Subject;
use crate::watch::{Watched, watch};

/// Submit a job file (TOML, or JSON of the same shape) and print the job's id.
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// The job file; `-` is standard input.
    file: PathBuf,
    /// Start at this moment, whatever the file says: 2026-01-31T22:00:00Z, or +10m.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// A word of your own: a second submit with the same one answers with the first one's job.
    #[arg(long, value_name = "WORD")]
    token: Option<String>,
    /// Wait for the job, with progress; exits 1 when tasks failed.
    #[arg(long)]
    wait: bool,
}

/// The answer to a submit.
pub(crate) struct Submitted(pub(crate) SubmitResponse);

impl Submit {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let text = self.read()?;
        let job = self.job(cx, &text).map_err(|e| e.context(self.file.display()))?;
        let client = cx.client()?;
        let submitted = match self.token.clone() {
            Some(token) => client.submit(job, Some(token)).await?,
            None => submit(cx, &client, job).await?,
        };
        if submitted.existing {
            note(&format!("this token has submitted job {} before", submitted.id));
        }
        if !self.wait {
            return cx.show(&Submitted(submitted)).map(|()| Exit::Success);
        }
        note(&format!("job {}", submitted.id));
        match watch(&client, Subject::Job(&submitted.id), cx.progress()).await? {
            Watched::Ended(job) => close(cx, &client, *job, None).await,
            Watched::Interrupted => Ok(Closing::interrupted(cx, &submitted.id)),
        }
    }

    fn read(&self) -> Result<String> {
        let mut text = String::new();
        let read = if self.file.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text).map(drop)
        } else {
            std::fs::read_to_string(&self.file).map(|content| text = content)
        };
        read.map_err(|e| Error::invalid(format!("the job file {} cannot be read", self.file.display())).with_source(e))?;
        Ok(text)
    }

    /// The job in the shape of a job file, checked here so that errors name line and column.
    fn job(&self, cx: &Context, text: &str) -> Result<Value> {
        let now = cx.env.now();
        let is_json = text.trim_start().starts_with('{');
        let mut job: Value = if is_json {
            from_json(text, now)?;
            serde_json::from_str(text).map_err(|e| Error::invalid("this is not JSON").with_source(e))?
        } else {
            from_toml(text, now)?;
            let table: toml::Table = toml::from_str(text).map_err(|e| Error::invalid(format!("this is not TOML: {}", e.message())))?;
            json_of(toml::Value::Table(table))
        };
        if let (Some(at), Value::Object(map)) = (&self.at, &mut job) {
            parse_at(at, now).map_err(|e| e.context("--at"))?;
            map.insert("at".to_owned(), Value::String(at.clone()));
        }
        Ok(job)
    }
}

/// TOML as JSON; a date is its text.
fn json_of(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(n) => n.into(),
        toml::Value::Float(n) => n.into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(list) => list.into_iter().map(json_of).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, json_of(value))).collect(),
    }
}

/// Submits with a token made for this one job, so that a request whose answer was lost can be made again.
pub(crate) async fn submit(cx: &Context, client: &Client, job: Value) -> Result<SubmitResponse> {
    let token = cx.env.id("cli-");
    let policy = RetryPolicy::default();
    let mut attempt = 1;
    loop {
        match client.submit(job.clone(), Some(token.clone())).await {
            Err(e) if e.kind() == ErrorKind::Unavailable && policy.allows_another(attempt) => {
                sleep(policy.delay(attempt, &cx.env)).await;
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

impl View for Submitted {
    fn table(&self) -> String {
        if self.0.tasks > 0 {
            note(&human::plural(self.0.tasks, "task"));
        }
        format!("{}\n", self.0.id)
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;
    use tidemill_base::Timestamp;

    const FILE: &str =
        "name = \"n\"\nat = 2026-01-31T22:00:00Z\n[[stage]]\narray = \"1-3\"\ncommand = [\"echo\", \"{index}\"]\n[stage.env]\nA = \"1\"\n";

    fn submit_of(at: Option<&str>) -> Submit {
        Submit { file: PathBuf::from("job.toml"), at: at.map(str::to_owned), token: None, wait: false }
    }

    #[test]
    fn a_file_sent_as_json_is_the_same_job() {
        let cx = Context::new(None, Format::Table);
        let job = submit_of(None).job(&cx, FILE).unwrap();
        let now = Timestamp::ZERO;
        assert_eq!(from_json(&job.to_string(), now).unwrap(), from_toml(FILE, now).unwrap());
    }

    #[test]
    fn at_overrides_the_file_and_mistakes_have_a_place() {
        let cx = Context::new(None, Format::Table);
        assert_eq!(submit_of(Some("+5m")).job(&cx, FILE).unwrap()["at"], "+5m");
        assert!(submit_of(Some("soon")).job(&cx, FILE).unwrap_err().message().starts_with("--at"));
        let error = submit_of(None).job(&cx, "name = \"n\"\nstgae = 1\n").unwrap_err();
        assert!(error.message().contains("line 2"), "{error}");
    }
}
