//! `tidemill user`.

use clap::{Args, Subcommand};
use serde_json::Value;
use tidemill_base::Result;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Align, TextTable, View, note, to_json};

/// Users and their roles. For administrators.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Make a user.
    Create(Named),
    /// List the users.
    List,
    /// Give a user another role.
    Role(Named),
    /// Remove a user, and with it the user's tokens.
    Remove(Remove),
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The user's name.
    name: String,
    /// admin, operator, user, viewer or worker.
    #[arg(long, default_value = "user")]
    role: String,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The user's name.
    name: String,
}

struct Users(Vec<tidemill_client::User>);

impl User {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        match self {
            Self::Create(c) => {
                client.create_user(&c.name, &c.role).await?;
                note(&format!("user {} made", c.name));
                note(&format!(" next: `{}`", cx.command(&format!("token create --user {}", c.name))));
            }
            Self::List => cx.show(&Users(client.users().await?))?,
            Self::Role(c) => {
                client.set_role(&c.name, &c.role).await?;
                note(&format!("user {} has the role {}", c.name, c.role));
            }
            Self::Remove(c) => {
                client.remove_user(&c.name).await?;
                note(&format!("user {} removed", c.name));
            }
        }
        Ok(Exit::Success)
    }
}

impl View for Users {
    fn table(&self) -> String {
        let mut table = TextTable::new("no users", &[("NAME", Align::Left), ("ROLE", Align::Left), ("CREATED", Align::Left)]);
        for user in &self.0 {
            table.row([&user.name, &user.role, &user.created_at].map(String::clone));
        }
        table.render()
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.iter().map(|u| u.name.clone()).collect::<Vec<_>>().join("\n")
    }
}
