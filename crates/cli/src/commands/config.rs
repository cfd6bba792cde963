//! `tidemill config`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tidemill_base::Result;
use tidemill_runtime::{Layers, Origin};
use tidemill_server::config::{ServerConfig, shown};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Align, TextTable, View};

/// Show every setting of the server with its value, where that comes from, and the variable that sets it.
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// The defaults, whatever file and environment say.
    #[arg(long)]
    defaults: bool,
    /// The configuration file; `tidemill.toml` in the data folder when it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Config {
    pub(crate) fn run(self, cx: &Context) -> Result<Exit> {
        let layers = if self.defaults {
            Layers::defaults(&ServerConfig::default())?
        } else {
            super::serve::options(cx, self.config, Vec::new()).layers()?
        };
        cx.show(&Listing::of(&layers)).map(|()| Exit::Success)
    }
}

/// Keys, values and origins.
struct Listing(Vec<(String, String, Origin)>);

impl Listing {
    /// Everything but passwords.
    fn of(layers: &Layers) -> Self {
        Self(layers.listing().into_iter().map(|(key, value, from)| (key.clone(), shown(&key, &value), from)).collect())
    }
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File(name) => name.clone(),
        Origin::Env(name) => name.clone(),
        Origin::Flag => "flag".to_owned(),
    }
}

fn variable(key: &str) -> String {
    format!("TIDEMILL_{}", key.replace(['.', '-'], "_").to_ascii_uppercase())
}

impl View for Listing {
    fn table(&self) -> String {
        let columns = [("KEY", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left), ("VARIABLE", Align::Left)];
        let mut table = TextTable::new("no settings", &columns);
        for (key, value, from) in &self.0 {
            table.row([key.clone(), value.clone(), origin(from), variable(key)]);
        }
        table.render()
    }

    fn json(&self) -> Value {
        let rows =
            self.0.iter().map(|(key, value, from)| json!({"key": key, "value": value, "from": origin(from), "variable": variable(key)}));
        rows.collect()
    }

    fn quiet(&self) -> String {
        self.0.iter().map(|(key, value, _)| format!("{key} = {value}")).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_listed_with_its_variable() {
        let listing = Listing::of(&Layers::defaults(&ServerConfig::default()).unwrap());
        assert!(listing.table().contains("TIDEMILL_SERVER_LISTEN"), "{}", listing.table());
        assert!(listing.quiet().contains("server.listen = \"127.0.0.1:8080\""), "{}", listing.quiet());
        assert_eq!(listing.json()[0]["from"], "default");
    }

    #[test]
    fn passwords_are_not_shown_wherever_they_come_from() {
        let defaults = Layers::defaults(&ServerConfig::default()).unwrap();
        let file = defaults.clone().file("t", "[postgres]\nurl = 'postgres://ada:hunter2@db/mill'").unwrap();
        let variable = defaults.env([("TIDEMILL_POSTGRES_URL".to_owned(), "postgres://ada:hunter2@db/mill".to_owned())]).unwrap();
        for layers in [file, variable] {
            let listing = Listing::of(&layers);
            let all = format!("{}{}{}", listing.table(), listing.quiet(), listing.json());
            assert!(!all.contains("hunter2") && all.contains("postgres://ada:***@db/mill"), "{all}");
        }
    }
}
