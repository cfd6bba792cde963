//! Tasks that the grid makes of rows: of objects, of files that are uploaded first, or of a database that the server knows.

use clap::{Args, ValueEnum};
use tidemill_api::TasksFromRequest;
use tidemill_base::{Error, Result};
use tidemill_client::Client;

use crate::context::Context;
use crate::transfer::{LocalFile, expand, object_names, upload};

/// What an object's name begins with that is in the store already.
const IN_STORE: &str = "s3://";

/// Which rows, and how they are divided.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Rows {
    /// Rows that a task gets [default: 1000].
    #[arg(long, value_name = "N", conflicts_with = "group_by", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rows: Option<u64>,
    /// A task gets all rows with one value of this column.
    #[arg(long, value_name = "COLUMN")]
    group_by: Option<String>,
    /// The columns that tasks get [default: all].
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    columns: Vec<String>,
    /// How a task gets its rows: as a JSON array of objects, or as an Arrow IPC stream.
    #[arg(long = "as", value_name = "FORM", value_enum, default_value_t)]
    form: Form,
    /// A statement that reads, for `--source`.
    #[arg(long, value_name = "SQL")]
    query: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    #[default]
    Json,
    Arrow,
}

/// Rows to make tasks of, not asked for yet.
#[derive(Debug, Clone)]
pub(crate) struct From {
    request: TasksFromRequest,
    files: Vec<LocalFile>,
}

impl Rows {
    /// How sessions take payloads of such rows.
    pub(crate) const fn encoding(&self) -> &'static str {
        match self.form {
            Form::Json => "json",
            Form::Arrow => "arrow",
        }
    }

    /// `Invalid` when something is given that means nothing without `--from` or `--source`.
    pub(crate) fn check_unused(&self) -> Result<()> {
        let given = [
            ("--rows", self.rows.is_some()),
            ("--group-by", self.group_by.is_some()),
            ("--columns", !self.columns.is_empty()),
            ("--query", self.query.is_some()),
            ("--as", self.form != Form::Json),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(Error::invalid(format!("{option} is about rows of --from or --source; name one of them"))),
            None => Ok(()),
        }
    }

    fn request(&self) -> TasksFromRequest {
        TasksFromRequest { rows: self.rows, group_by: self.group_by.clone(), columns: self.columns.clone(), ..TasksFromRequest::default() }
    }

    /// Rows of `--from`. `Invalid` for a mixture of objects and files, whose order nobody could tell, and for a pattern that matches no file.
    pub(crate) fn of_files(&self, patterns: &[String]) -> Result<From> {
        if self.query.is_some() {
            return Err(Error::invalid("--query is for --source; to choose columns of files use --columns"));
        }
        let in_store: Vec<String> = patterns.iter().filter_map(|p| p.strip_prefix(IN_STORE)).map(str::to_owned).collect();
        if in_store.len() == patterns.len() {
            return Ok(From { request: TasksFromRequest { objects: in_store, ..self.request() }, files: Vec::new() });
        }
        if let Some(object) = in_store.first() {
            let what =
                format!("--from names the object `{IN_STORE}{object}` and files of this machine; make two calls, or upload the files");
            return Err(Error::invalid(what));
        }
        let files = expand(patterns)?;
        let names = object_names(&files)?;
        let files = files.into_iter().zip(names).map(|(path, name)| LocalFile { path, name }).collect();
        Ok(From { request: self.request(), files })
    }

    /// Rows of `--source`.
    pub(crate) fn of_source(&self, source: &str) -> Result<From> {
        let Some(query) = &self.query else {
            return Err(Error::invalid(format!("--source {source} needs --query: what to ask of it, such as 'SELECT * FROM trades'")));
        };
        let request = TasksFromRequest { source: Some(source.to_owned()), query: Some(query.clone()), ..self.request() };
        Ok(From { request, files: Vec::new() })
    }
}

impl From {
    /// Uploads what is to be uploaded. What comes of it can be asked for any number of times, and makes its tasks once.
    pub(crate) async fn request(&self, cx: &Context, client: &Client) -> Result<TasksFromRequest> {
        let mut request = self.request.clone();
        if !self.files.is_empty() {
            let prefix = upload(client, &cx.env, &self.files, cx.progress()).await?;
            request.objects = self.files.iter().map(|f| format!("{prefix}/{}", f.name)).collect();
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        rows: Rows,
    }

    fn rows(words: &str) -> Rows {
        Only::try_parse_from(std::iter::once("run").chain(words.split_whitespace())).unwrap().rows
    }

    #[test]
    fn objects_files_and_sources_become_requests() {
        let given = rows("--group-by desk --columns id,notional --as arrow");
        let from = given.of_files(&["s3://data/trades/*.parquet".into()]).unwrap();
        assert_eq!((from.request.objects.as_slice(), from.files.len()), (["data/trades/*.parquet".to_owned()].as_slice(), 0));
        assert_eq!((from.request.group_by.as_deref(), from.request.columns.len(), given.encoding()), (Some("desk"), 2, "arrow"));
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.csv"] {
            std::fs::write(folder.path().join(name), "id\n1\n").unwrap();
        }
        let from = rows("--rows 7").of_files(&[format!("{}/*.csv", folder.path().display())]).unwrap();
        let names: Vec<&str> = from.files.iter().map(|f| f.name.as_str()).collect();
        assert_eq!((names, from.request.rows, from.request.objects.len()), (vec!["a.csv", "b.csv"], Some(7), 0));
        let mut asked = rows("");
        asked.query = Some("SELECT 1".into());
        let from = asked.of_source("book").unwrap();
        assert_eq!((from.request.source.as_deref(), from.request.query.as_deref()), (Some("book"), Some("SELECT 1")));
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let said = |result: Result<From>| result.unwrap_err().message().to_owned();
        assert!(said(rows("").of_source("book")).contains("--source book needs --query"));
        assert!(said(rows("--query x").of_files(&["s3://a/b.csv".into()])).contains("--query is for --source"));
        assert!(said(rows("").of_files(&["s3://a/b.csv".into(), "c.csv".into()])).contains("`s3://a/b.csv`"));
        assert!(said(rows("").of_files(&["/nowhere/*.csv".into()])).contains("/nowhere/*.csv` matches no file"));
        for (words, option) in [("--rows 3", "--rows"), ("--as arrow", "--as"), ("--group-by x", "--group-by"), ("--query x", "--query")] {
            assert!(rows(words).check_unused().unwrap_err().message().starts_with(option), "{words}");
        }
        rows("").check_unused().unwrap();
        assert!(Only::try_parse_from(["run", "--rows", "1", "--group-by", "x"]).is_err());
        assert!(Only::try_parse_from(["run", "--rows", "0"]).is_err());
    }
}
