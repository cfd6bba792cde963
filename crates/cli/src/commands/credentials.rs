//! `tidemill credentials`.

use clap::Args;
use serde_json::{Value, json};
use tidemill_api::{CredentialRequest, CredentialResponse};
use tidemill_base::{Error, HumanDuration, Result};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{View, to_json, write_bytes};

/// S3 clients want a region; the endpoint takes any.
const REGION: &str = "us-east-1";

/// Get a temporary credential for S3 clients: `eval "$(tidemill credentials --prefix BUCKET)"` sets up aws, boto3 and rclone.
#[derive(Debug, Args)]
pub(crate) struct Credentials {
    /// A bucket, or a prefix in one: claims/2026.
    #[arg(long, value_name = "BUCKET/PREFIX")]
    prefix: String,
    /// How long it lasts, an hour at most.
    #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
    ttl: HumanDuration,
    /// It reads and lists, and changes nothing.
    #[arg(long)]
    read_only: bool,
    /// Print what the AWS tools read from a `credential_process`.
    #[arg(long)]
    process: bool,
}

struct Given(CredentialResponse);

impl Credentials {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let ttl = Some(format!("{}s", self.ttl.0.as_secs().max(1)));
        let wanted = CredentialRequest { prefix: self.prefix, read_only: self.read_only, ttl };
        let given = cx.client()?.credential(&wanted).await?;
        if self.process {
            let text = serde_json::to_string(&process(&given)).map_err(|e| Error::internal("encode a credential").with_source(e))?;
            write_bytes(text.as_bytes())?;
        } else {
            cx.show(&Given(given))?;
        }
        Ok(Exit::Success)
    }
}

fn process(given: &CredentialResponse) -> Value {
    json!({
        "Version": 1,
        "AccessKeyId": given.access_key,
        "SecretAccessKey": given.secret_key,
        "SessionToken": given.session_token,
        "Expiration": given.expires_at,
    })
}

fn variables(given: &CredentialResponse) -> Vec<(&'static str, &str)> {
    let mut out = vec![
        ("AWS_ACCESS_KEY_ID", given.access_key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", given.secret_key.as_str()),
        ("AWS_SESSION_TOKEN", given.session_token.as_str()),
        ("AWS_REGION", REGION),
        ("AWS_DEFAULT_REGION", REGION),
    ];
    if let Some(endpoint) = &given.endpoint {
        // rclone takes its credential from the variables above and its settings from those below.
        out.extend([("AWS_ENDPOINT_URL", endpoint.as_str()), ("RCLONE_S3_ENDPOINT", endpoint)]);
        out.extend([("RCLONE_S3_PROVIDER", "Other"), ("RCLONE_S3_ENV_AUTH", "true")]);
    }
    out
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl View for Given {
    fn table(&self) -> String {
        let lines = variables(&self.0).into_iter().map(|(name, value)| format!("export {name}={}\n", quoted(value)));
        lines.chain([format!("# until {}\n", self.0.expires_at)]).collect()
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.table()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> CredentialResponse {
        CredentialResponse {
            access_key: "TM1".into(),
            secret_key: "s3'cret".into(),
            session_token: "tok".into(),
            expires_at: "2026-01-01T00:00:00Z".into(),
            endpoint: Some("http://127.0.0.1:9000".into()),
            bucket: None,
        }
    }

    #[test]
    fn a_shell_reads_the_values_back() {
        let script = format!("{}printf '%s %s' \"$AWS_SECRET_ACCESS_KEY\" \"$RCLONE_S3_ENDPOINT\"", Given(given()).table());
        let out = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "s3'cret http://127.0.0.1:9000");
    }

    #[test]
    fn the_process_form_is_what_the_aws_tools_read() {
        let form = process(&given());
        assert_eq!((&form["Version"], &form["Expiration"]), (&json!(1), &json!("2026-01-01T00:00:00Z")));
    }
}
