//! `tidemill sql`.

use std::io::Read as _;

use clap::Args;
use serde_json::Value;
use tidemill_api::SqlResponse;
use tidemill_base::{Error, Result};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Align, Format, TextTable, View, to_json, write_bytes};

/// Ask in SQL: jobs, tasks, workers and their history.
#[derive(Debug, Args)]
pub(crate) struct Sql {
    /// One query, such as "SELECT state, count(*) FROM batch.tasks GROUP BY state"; `-` reads it from standard input.
    query: String,
}

/// The answer to a query.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) SqlResponse);

impl Sql {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let query = if self.query == "-" { read_stdin()? } else { self.query };
        let client = cx.client()?;
        if cx.format == Format::Csv {
            let csv = client.sql_as(&query, "text/csv").await?;
            return write_bytes(&csv).map(|()| Exit::Success);
        }
        let answer = client.sql(&query).await?;
        cx.show(&Answer(answer)).map(|()| Exit::Success)
    }
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|e| Error::from(e).context("standard input"))?;
    Ok(text)
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => crate::human::one_line(text, 200),
        Some(other) => other.to_string(),
    }
}

fn is_number(kind: &str) -> bool {
    ["Int", "UInt", "Float", "Decimal"].iter().any(|k| kind.starts_with(k))
}

impl View for Answer {
    fn table(&self) -> String {
        let columns: Vec<(&str, Align)> =
            self.0.columns.iter().map(|c| (c.name.as_str(), if is_number(&c.kind) { Align::Right } else { Align::Left })).collect();
        let mut table = TextTable::new("no rows", &columns);
        for row in &self.0.rows {
            table.row(self.0.columns.iter().map(|c| cell(row.get(&c.name))));
        }
        table.render()
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        let row = |r: &serde_json::Map<String, Value>| {
            let cells: Vec<String> = self.0.columns.iter().map(|c| cell(r.get(&c.name)).replace('\t', " ")).collect();
            cells.join("\t")
        };
        self.0.rows.iter().map(row).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shown_in_each_form() {
        let json = r#"{"columns":[{"name":"state","type":"Utf8"},{"name":"n","type":"Int64"}],
            "rows":[{"state":"failed","n":3},{"state":null,"n":12}]}"#;
        let answer = Answer(serde_json::from_str(json).unwrap());
        assert_eq!(answer.table(), "state    n\nfailed   3\n        12\n");
        assert_eq!(answer.quiet(), "failed\t3\n\t12");
        assert_eq!(answer.json()["rows"][1]["n"], 12);
    }
}
