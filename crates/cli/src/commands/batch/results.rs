//! `tidemill batch results`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tidemill_api::ResultFile;
use tidemill_base::{Error, Result};

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, to_json, write_bytes};
use crate::transfer::{all_results, download};

/// List or download a job's result files.
#[derive(Debug, Args)]
pub(crate) struct Results {
    /// The job's id.
    id: String,
    /// Of this stage: its name or number, or `all` [default: the last that keeps outputs].
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Download into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "cat")]
    to: Option<PathBuf>,
    /// Write the contents to standard output, one after the other in order of their tasks.
    #[arg(long)]
    cat: bool,
}

struct Files(Vec<ResultFile>);

impl Results {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        let files = all_results(&client, &self.id, self.stage.as_deref()).await?;
        if let Some(folder) = &self.to {
            if files.is_empty() {
                return Err(Error::not_found(format!("job {} has no result files yet", self.id)));
            }
            download(&client, &cx.env, &files, folder, cx.progress()).await?;
        } else if self.cat {
            for file in &files {
                write_bytes(&client.get_href(&file.href).await?)?;
            }
        } else {
            cx.show(&Files(files))?;
        }
        Ok(Exit::Success)
    }
}

impl View for Files {
    fn table(&self) -> String {
        let columns = [("STAGE", Align::Right), ("TASK", Align::Right), ("BYTES", Align::Right), ("NAME", Align::Left)];
        let mut table = TextTable::new("no result files", &columns);
        for f in &self.0 {
            table.row([f.stage.to_string(), f.task.to_string(), human::count(f.bytes), human::one_line(&f.name, 120)]);
        }
        table.render()
    }

    fn json(&self) -> Value {
        json!({"files": to_json(&self.0)})
    }

    fn quiet(&self) -> String {
        self.0.iter().map(|f| f.name.clone()).collect::<Vec<_>>().join("\n")
    }
}
