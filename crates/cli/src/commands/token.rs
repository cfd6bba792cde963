//! `tidemill token`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;
use tidemill_base::{Error, HumanDuration, Result};
use tidemill_client::NewToken;

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, note, to_json};

/// Tokens that programs and people use.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and show it, once.
    Create(Create),
    /// List tokens, without their secrets.
    List(List),
    /// End a token.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What it may do: admin, operator, user, viewer or worker; your own role if left out.
    #[arg(long)]
    role: Option<String>,
    /// Whose it is to be; yours if left out.
    #[arg(long)]
    user: Option<String>,
    /// Where it may do so, such as `batch`; everything that you may if left out.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How long it lasts, such as 12h; until revoked if left out.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<HumanDuration>,
    /// Write the token to this file, readable by you alone, instead of showing it.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Of this user only.
    #[arg(long)]
    user: Option<String>,
    /// Those that have ended, and sessions of the console, too.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The token's id, as listed.
    id: String,
}

struct Created(tidemill_client::CreatedToken);
struct Tokens(Vec<tidemill_client::Token>);

impl Token {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        match self {
            Self::Create(c) => {
                let ttl = c.ttl.map(|t| format!("{}s", t.0.as_secs().max(1)));
                let made = client.create_token(&NewToken { user: c.user, role: c.role, scopes: c.scopes, ttl }).await?;
                match c.to {
                    Some(file) => {
                        write_private(&file, &made.token)?;
                        note(&format!("token {} written to {}", made.id, file.display()));
                    }
                    None => cx.show(&Created(made))?,
                }
            }
            Self::List(c) => {
                let mut tokens = client.tokens(c.user.as_deref()).await?;
                tokens.retain(|t| c.all || (!t.session && t.revoked_at.is_none()));
                cx.show(&Tokens(tokens))?;
            }
            Self::Revoke(c) => {
                client.revoke_token(&c.id).await?;
                note(&format!("token {} has ended", c.id));
            }
        }
        Ok(Exit::Success)
    }
}

/// Writes a secret to a file that is not there yet and that only its owner may read.
fn write_private(file: &std::path::Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(file).and_then(|mut f| writeln!(f, "{text}"));
    written.map_err(|e| Error::from(e).context(format!("write {}", file.display())))
}

impl View for Created {
    fn table(&self) -> String {
        format!("{}\n", self.0.token)
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.token.clone()
    }
}

impl View for Tokens {
    fn table(&self) -> String {
        let columns = [
            ("ID", Align::Left),
            ("USER", Align::Left),
            ("ROLE", Align::Left),
            ("SCOPES", Align::Left),
            ("CREATED", Align::Left),
            ("ENDS", Align::Left),
        ];
        let mut table = TextTable::new("no tokens", &columns);
        for t in &self.0 {
            let ends = match (&t.revoked_at, &t.expires_at) {
                (Some(at), _) => format!("revoked {at}"),
                (None, Some(at)) => at.clone(),
                (None, None) => String::new(),
            };
            table.row([t.id.clone(), t.user.clone(), t.role.clone(), human::one_line(&t.scopes.join(","), 40), t.created_at.clone(), ends]);
        }
        table.render()
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.iter().map(|t| t.id.clone()).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_secret_is_written_for_its_owner_alone_and_never_over_a_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t");
        write_private(&file, "tm_x").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "tm_x\n");
        assert!(write_private(&file, "tm_y").is_err());
    }
}
