//! DataFusion's errors as ours: what the caller must do, where in the statement, and which names there are.

use datafusion::common::{Column, DataFusionError, SchemaError};
use tidemill_base::{Error, ErrorKind};

/// Names listed in a message before it says how many more there are.
const LISTED: usize = 30;

/// An error of the parser.
pub(crate) fn from_parser(sql: &str, e: DataFusionError) -> Error {
    let root = e.find_root();
    if let DataFusionError::SQL(parser, _) = root {
        use datafusion::sql::sqlparser::parser::ParserError;
        let text = match &**parser {
            ParserError::RecursionLimitExceeded => {
                return Error::exhausted("the statement is nested too deeply; split it with WITH");
            }
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        };
        return Error::invalid(format!("syntax error: {}", with_place(sql, text)));
    }
    from_datafusion(e)
}

/// Turns the parser's `... at Line: 2, Column: 17` into `... at line 2, column 17, near "..."`.
fn with_place(sql: &str, text: &str) -> String {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else { return text.to_owned() };
    let Some((line, column)) = place.split_once(", Column: ") else { return text.to_owned() };
    match (line.trim().parse::<u64>(), column.trim().parse::<u64>()) {
        (Ok(line), Ok(column)) => format!("{message} at {}", place_of(sql, line, column)),
        _ => text.to_owned(),
    }
}

fn place_of(sql: &str, line: u64, column: u64) -> String {
    let skip = |n: u64| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
    let rest: String = sql.lines().nth(skip(line)).unwrap_or_default().chars().skip(skip(column)).take(24).collect();
    let near = rest.trim_end();
    if near.is_empty() { format!("line {line}, column {column}") } else { format!("line {line}, column {column}, near \"{near}\"") }
}

/// An error from planning `sql`. `missing` are the tables that it names and that are not there, `known` those that are.
pub(crate) fn from_planner(sql: &str, e: DataFusionError, missing: &[String], known: &[String]) -> Error {
    if let Some(name) = missing.first() {
        let hint = nearest(name, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        let place = find_name(sql, name).map_or_else(String::new, |place| format!(" at {place}"));
        return Error::invalid(format!("there is no table `{name}`{place}{hint} {}", list("the tables are", known)));
    }
    let place = e.diagnostic().and_then(|d| d.span.as_ref()).map(|span| place_of(sql, span.start.line, span.start.column));
    let error = from_datafusion(e);
    match place {
        Some(place) if error.kind() == ErrorKind::Invalid => Error::invalid(format!("{} (at {place})", error.message())),
        _ => error,
    }
}

/// An error from anywhere in DataFusion.
pub(crate) fn from_datafusion(e: DataFusionError) -> Error {
    if let Some(own) = own(&e) {
        return own;
    }
    let root = e.find_root();
    match root {
        DataFusionError::SchemaError(schema, _) => from_schema(schema),
        DataFusionError::Plan(text) | DataFusionError::Execution(text) | DataFusionError::Configuration(text) => {
            Error::invalid(text.trim())
        }
        DataFusionError::SQL(parser, _) => Error::invalid(parser.to_string()),
        DataFusionError::NotImplemented(text) => Error::invalid(format!("not supported: {text}")),
        DataFusionError::ArrowError(arrow, _) => Error::invalid(arrow.to_string()),
        DataFusionError::ResourcesExhausted(text) => Error::exhausted(format!(
            "the statement needs more memory than SQL may use; read fewer rows or columns, or raise the memory limit of SQL ({})",
            text.lines().next().unwrap_or_default().trim()
        )),
        DataFusionError::ParquetError(parquet) => Error::corrupt(format!("a Parquet segment cannot be read: {parquet}")),
        DataFusionError::ObjectStore(store) => match &**store {
            object_store::Error::NotFound { path, .. } => Error::corrupt(format!("segment `{path}` is missing from the object store")),
            other => Error::unavailable(format!("the object store does not answer: {other}")),
        },
        // Functions hand on what others say of their arguments: of a regular expression in several lines, the last of which says why.
        DataFusionError::External(e) => {
            let text = e.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Error::invalid(format!("a function refuses what it was given: {why}"))
        }
        DataFusionError::IoError(io) => Error::unavailable(format!("the statement could not use its files: {io}")),
        other => Error::internal(format!("the statement failed: {}", other.strip_backtrace())),
    }
}

/// The error of a source, which went through DataFusion and back.
fn own(e: &DataFusionError) -> Option<Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(e);
    while let Some(error) = next {
        if let Some(own) = error.downcast_ref::<Error>() {
            return Some(Error::new(own.kind(), own.chain()));
        }
        next = error.source();
    }
    None
}

fn from_schema(e: &SchemaError) -> Error {
    match e {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known: Vec<String> = valid_fields.iter().map(short).collect();
            let name = short(field);
            let hint = nearest(&name, &known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            Error::invalid(format!("there is no column `{name}`{hint} {}", list("the columns are", &known)))
        }
        SchemaError::AmbiguousReference { field } => {
            Error::invalid(format!("column `{}` is in more than one table; write `table.{}`", field.name, field.name))
        }
        other => Error::invalid(other.to_string()),
    }
}

/// A column as people write it: the catalog's name left out.
fn short(column: &Column) -> String {
    match &column.relation {
        Some(table) => format!("{}.{}", table.table(), column.name),
        None => column.name.clone(),
    }
}

fn list(what: &str, names: &[String]) -> String {
    if names.is_empty() {
        return format!("({what} none)");
    }
    let shown = names[..names.len().min(LISTED)].join(", ");
    let more = names.len().saturating_sub(LISTED);
    if more == 0 { format!("({what} {shown})") } else { format!("({what} {shown} and {more} more)") }
}

/// The known name that differs least, if it differs little. The last part is enough, so that `jobs` finds `batch.jobs`.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    let last = |s: &str| s.rsplit('.').next().unwrap_or_default().to_lowercase();
    let wanted = last(name);
    let near = known.iter().map(|k| (distance(&wanted, &last(k)), k)).min()?;
    (near.0 <= wanted.chars().count() / 3).then_some(near.1)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Where the last part of a table's name stands in the statement.
fn find_name(sql: &str, name: &str) -> Option<String> {
    let last = name.rsplit('.').next()?.to_ascii_lowercase();
    let at = sql.to_ascii_lowercase().find(&last)?;
    let before = &sql[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Some(format!("line {line}, column {column}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_offered_and_a_far_one_is_not() {
        let known = vec!["batch.jobs".to_owned(), "batch.tasks".to_owned()];
        assert_eq!(nearest("jobz", &known), Some(&known[0]));
        assert_eq!(nearest("public.task", &known), Some(&known[1]));
        assert_eq!(nearest("warehouse", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(list("the tables are", &[]), "(the tables are none)");
    }

    #[test]
    fn the_place_of_a_name_counts_characters() {
        assert_eq!(find_name("SELECT 'ä',\n x FROM Jobs", "a.jobs").as_deref(), Some("line 2, column 9"));
        assert_eq!(place_of("SELECT 'ä', x", 1, 13), "line 1, column 13, near \"x\"");
        assert_eq!(place_of("SELECT", 9, 9), "line 9, column 9");
    }
}
