//! Where the tasks of a session come from, and what their payloads are: one JSON value each.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tidemill_base::{Error, Result};
use tidemill_batch::model::InputSpec;
use tidemill_batch::spec::parse_array;

use super::from::{From, Rows};

/// What the function is called on, once each.
#[derive(Debug, Args)]
pub(crate) struct Input {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    rows: Rows,
}

/// Where it is.
#[derive(Debug, Default, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// Values, one a line, in JSON; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Lines of text; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    lines: Option<PathBuf>,
    /// Rows under a header, each an object; fields that are numbers in JSON become numbers. `-` is standard input.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Numbers: 1-100.
    #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
    range: Option<String>,
    /// Files of rows that the grid divides into tasks: CSV with a header line, Parquet, Arrow. Objects of the store as
    /// 's3://trades/2026/*.parquet'; other patterns are files here, which are uploaded.
    #[arg(long, num_args = 1.., value_name = "PATTERN")]
    from: Vec<String>,
    /// A database that the server's configuration names, asked with `--query`; its rows are divided likewise.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

/// Tasks, not sent yet.
#[derive(Debug)]
pub(crate) enum Tasks {
    Payloads(Vec<Bytes>),
    /// From, and how many.
    Numbers(i64, u64),
    /// Made by the grid itself.
    Rows(Box<From>),
}

impl Input {
    /// How the session takes payloads.
    pub(crate) const fn encoding(&self) -> &'static str {
        self.rows.encoding()
    }

    /// Reads them. `Invalid` names option, file and line.
    pub(crate) fn read(&self) -> Result<Tasks> {
        let place = &self.place;
        if !place.from.is_empty() {
            return self.rows.of_files(&place.from).map(|from| Tasks::Rows(Box::new(from)));
        }
        if let Some(source) = &place.source {
            return self.rows.of_source(source).map(|from| Tasks::Rows(Box::new(from)));
        }
        self.rows.check_unused()?;
        if let Some(file) = &place.json {
            return from_lines("--json", file, |line| {
                serde_json::from_slice::<IgnoredAny>(&line).map_err(|e| Error::invalid(format!("is not JSON: {e}")))?;
                Ok(line)
            });
        }
        if let Some(file) = &place.lines {
            return from_lines("--lines", file, |line| {
                let text = std::str::from_utf8(&line).map_err(|_| Error::invalid("is not UTF-8"))?;
                Ok(Value::from(text).to_string().into())
            });
        }
        if let Some(file) = &place.csv {
            return rows(file);
        }
        match parse_array(place.range.as_deref().unwrap_or_default()).map_err(|e| e.context("--range"))? {
            InputSpec::Array { first, last } if last < first => {
                Err(Error::invalid(format!("--range: {first}-{last} ends before it begins; write the smaller number first")))
            }
            InputSpec::Array { first, last } => Ok(Tasks::Numbers(first, last.abs_diff(first) + 1)),
            other => Err(Error::internal(format!("a range was read as {other:?}"))),
        }
    }
}

impl Tasks {
    /// How many there are, as far as that is known here.
    pub(crate) const fn len(&self) -> u64 {
        match self {
            Self::Rows(_) => 0,
            Self::Payloads(payloads) => payloads.len() as u64,
            Self::Numbers(_, count) => *count,
        }
    }

    /// The payloads from task `from` on, at most so many, and no more than about so many bytes. At least one, if there is one.
    pub(crate) fn part(&self, from: u64, most: usize, bytes: usize) -> Vec<Bytes> {
        match self {
            Self::Rows(_) => Vec::new(),
            Self::Payloads(payloads) => {
                let mut sum = 0;
                let rest = payloads.iter().skip(usize::try_from(from).unwrap_or(usize::MAX)).take(most);
                let fits = |p: &&Bytes| {
                    let before = sum;
                    sum += p.len();
                    before < bytes
                };
                rest.take_while(fits).cloned().collect()
            }
            Self::Numbers(first, count) => {
                let n = count.saturating_sub(from).min(most as u64);
                (from..from + n).map(|i| Bytes::from(first.saturating_add_unsigned(i).to_string())).collect()
            }
        }
    }
}

fn read(option: &str, file: &Path) -> Result<Bytes> {
    let mut text = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).map(drop)
    } else {
        std::fs::read(file).map(|content| text = content)
    };
    read.map_err(|e| Error::invalid(format!("{option} {} cannot be read", file.display())).with_source(e))?;
    Ok(text.into())
}

fn from_lines(option: &str, file: &Path, payload: impl Fn(Bytes) -> Result<Bytes>) -> Result<Tasks> {
    let text = read(option, file)?;
    let mut payloads = Vec::new();
    let mut start = 0;
    for (i, piece) in text.split(|b| *b == b'\n').enumerate() {
        let line = text.slice(start..start + piece.len());
        start += piece.len() + 1;
        let line = line.strip_suffix(b"\r").map_or_else(|| line.clone(), |l| line.slice_ref(l));
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let read = payload(line).map_err(|e| Error::invalid(format!("{option} {}: line {} {}", file.display(), i + 1, e.message())));
        payloads.push(read?);
    }
    some(payloads, option, file)
}

fn some(payloads: Vec<Bytes>, option: &str, file: &Path) -> Result<Tasks> {
    if payloads.is_empty() {
        return Err(Error::invalid(format!("{option} {} has no tasks", file.display())));
    }
    Ok(Tasks::Payloads(payloads))
}

fn rows(file: &Path) -> Result<Tasks> {
    let text = read("--csv", file)?;
    let wrong = |e: csv::Error| Error::invalid(format!("--csv {} cannot be read: {e}", file.display()));
    let mut reader = csv::Reader::from_reader(&text[..]);
    let header = reader.headers().map_err(wrong)?.clone();
    let mut payloads = Vec::new();
    for row in reader.records() {
        let row = row.map_err(wrong)?;
        let fields: Map<String, Value> = header.iter().zip(&row).map(|(name, text)| (name.to_owned(), field(text))).collect();
        payloads.push(Value::Object(fields).to_string().into());
    }
    some(payloads, "--csv", file)
}

/// A number if the text is one in JSON, so that `007` and `NaN` stay as they are; else the text.
fn field(text: &str) -> Value {
    match serde_json::from_str::<serde_json::Number>(text) {
        Ok(number) => Value::Number(number),
        Err(_) => Value::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(kind: &str, text: &str) -> Result<Vec<String>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = |name: &str| (name == kind).then(|| file.path().to_owned());
        let range = (kind == "range").then(|| text.to_owned());
        let place = Place { json: path("json"), lines: path("lines"), csv: path("csv"), range, ..Place::default() };
        let tasks = Input { place, rows: Rows::default() }.read()?;
        Ok(tasks.part(0, 100, 1 << 20).iter().map(|p| String::from_utf8(p.to_vec()).unwrap()).collect())
    }

    #[test]
    fn each_source_gives_json() {
        assert_eq!(input("json", "{\"a\": 1.50}\n\n[2]\r\n\"x\"").unwrap(), ["{\"a\": 1.50}", "[2]", "\"x\""]);
        assert_eq!(input("lines", "one \"two\"\n7\n").unwrap(), ["\"one \\\"two\\\"\"", "\"7\""]);
        let rows = input("csv", "id,price,when\n007,1.5e2,\"a, b\"\nx,-3,\n").unwrap();
        assert_eq!(rows, [r#"{"id":"007","price":150.0,"when":"a, b"}"#, r#"{"id":"x","price":-3,"when":""}"#]);
        assert_eq!(input("range", "-1-2").unwrap(), ["-1", "0", "1", "2"]);
    }

    #[test]
    fn parts_are_cut_by_number_and_size() {
        let tasks = Tasks::Payloads(["aaaa", "bb", "c"].map(Bytes::from).to_vec());
        let lens = |from, most, bytes| tasks.part(from, most, bytes).iter().map(Bytes::len).collect::<Vec<_>>();
        assert_eq!((lens(0, 9, 9), lens(0, 9, 4), lens(0, 9, 5), lens(1, 1, 9)), (vec![4, 2, 1], vec![4], vec![4, 2], vec![2]));
        assert_eq!((Tasks::Numbers(5, 3).part(2, 9, 0), Tasks::Numbers(5, 3).len()), (vec![Bytes::from("7")], 3));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (kind, text, want) in [
            ("json", "1\n\n{a}", "line 3 is not JSON"),
            ("json", " \n", "has no tasks"),
            ("csv", "a,b\n1\n", "cannot be read"),
            ("csv", "a,b\n", "has no tasks"),
            ("range", "9-1", "--range"),
        ] {
            let error = input(kind, text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
