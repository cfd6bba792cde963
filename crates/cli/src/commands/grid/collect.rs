//! `tidemill grid collect`.

use clap::{Args, ValueEnum};
use serde_json::Value;
use tidemill_api::{CollectRequest, Collected};
use tidemill_base::Result;

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, to_json};

/// Write a session's results, or what a query finds in them, to objects.
#[derive(Debug, Args)]
pub(crate) struct Collect {
    /// The session's id.
    id: String,
    /// The folder of objects that the files go to, such as `data/out/`.
    #[arg(long, value_name = "FOLDER")]
    to: String,
    /// How they are written.
    #[arg(long, value_enum, default_value_t)]
    format: FileKind,
    /// Write the rows of this query, in its order [default: all results, in the order of their tasks].
    #[arg(long, value_name = "QUERY")]
    sql: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum FileKind {
    #[default]
    Parquet,
    Arrow,
    Csv,
    Jsonl,
}

struct Written(Collected);

impl Collect {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let format = match self.format {
            FileKind::Parquet => "parquet",
            FileKind::Arrow => "arrow",
            FileKind::Csv => "csv",
            FileKind::Jsonl => "jsonl",
        };
        let request = CollectRequest { to: self.to, format: format.to_owned(), sql: self.sql };
        let collected = cx.client()?.collect_session(&self.id, &request).await?;
        cx.show(&Written(collected)).map(|()| Exit::Success)
    }
}

impl View for Written {
    fn table(&self) -> String {
        let columns = [("ROWS", Align::Right), ("BYTES", Align::Right), ("SHA-256", Align::Left), ("OBJECT", Align::Left)];
        let mut table = TextTable::new("no files", &columns);
        for f in &self.0.files {
            table.row([human::count(f.rows), human::count(f.bytes), f.sha256.clone(), f.path.clone()]);
        }
        format!("{}manifest: {}\n", table.render(), self.0.manifest)
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.files.iter().map(|f| f.path.clone()).collect::<Vec<_>>().join("\n")
    }
}
