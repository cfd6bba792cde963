//! From payloads to the files that a program reads, and from the files that it writes to results.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};

use serde_json::Value;

use super::{failed, invalid, rows, write};
use crate::session::{Format, TaskError};

/// A name of a file in a folder of ours: no path, nothing hidden.
pub(super) fn check(name: &str) -> Result<(), TaskError> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) if !name.starts_with('.') && !name.ends_with('/') => Ok(()),
        _ => Err(invalid(&format!("`{}` is no name for a file of a task; use one without a path", name.escape_debug()))),
    }
}

fn is_table(name: &Path) -> bool {
    name.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("csv"))
}

/// Writes the payload to one file.
pub(super) fn write_payload(file: &Path, payload: &[u8], format: Format) -> Result<(), TaskError> {
    if format != Format::Json || !is_table(file) {
        return write(file, payload);
    }
    write_value(file, &parse("the payload", payload)?)
}

/// Writes the files that the payload names.
pub(super) fn write_folder(folder: &Path, payload: &[u8]) -> Result<(), TaskError> {
    fs::create_dir(folder).map_err(|e| failed("make the folder", folder, &e))?;
    let Value::Object(files) = parse("the payload", payload)? else {
        return Err(invalid("the payload is no JSON object of file names and contents"));
    };
    for (name, value) in &files {
        check(name)?;
        write_value(&folder.join(name), value)?;
    }
    Ok(())
}

/// Text as it is, rows as CSV where the name says so, and anything else as JSON.
fn write_value(file: &Path, value: &Value) -> Result<(), TaskError> {
    match value {
        Value::String(text) => write(file, text.as_bytes()),
        Value::Array(array) if is_table(file) => write(file, &rows::to_csv(array)?),
        other => write(file, other.to_string().as_bytes()),
    }
}

fn parse(what: &str, bytes: &[u8]) -> Result<Value, TaskError> {
    serde_json::from_slice(bytes).map_err(|e| invalid(&format!("{what} is no JSON: {e}")))
}

/// The result that is in one file.
pub(super) fn read_result(file: &Path, format: Format) -> Result<Vec<u8>, TaskError> {
    let bytes = fs::read(file).map_err(|e| failed("read the output", file, &e))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    as_result(&name, bytes, format)
}

/// Bytes as a result of this format. `name` is where they come from.
pub(super) fn as_result(name: &str, bytes: Vec<u8>, format: Format) -> Result<Vec<u8>, TaskError> {
    match format {
        Format::Json if is_table(Path::new(name)) => rows::to_json(name, &bytes).map(String::into_bytes),
        Format::Json => match serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
            Ok(_) => Ok(bytes),
            Err(e) => Err(invalid(&format!(
                "what the program wrote to `{name}` is no JSON: {e}; call the file *.csv if it holds rows, or open the session with the output `bytes`"
            ))),
        },
        _ => Ok(bytes),
    }
}

/// All files of a folder, by name. Rows where the name says so, JSON where it says that, and text.
pub(super) fn read_folder(folder: &Path) -> Result<Vec<u8>, TaskError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|e| failed("list", folder, &e))? {
        let path = entry.map_err(|e| failed("list", folder, &e))?.path();
        let bytes = fs::read(&path).map_err(|e| failed("read the output", &path, &e))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let json = match path.extension().is_some_and(|suffix| suffix == "json") || is_table(&path) {
            true => as_result(&name, bytes, Format::Json)?,
            false => match String::from_utf8(bytes) {
                Ok(text) => Value::String(text).to_string().into_bytes(),
                Err(_) => {
                    return Err(invalid(&format!(
                        "what the program wrote to `{name}` is no text; name the file that is the result with the parameter `out`"
                    )));
                }
            },
        };
        found.insert(name, json);
    }
    let mut out = b"{".to_vec();
    for (name, json) in found {
        out.extend_from_slice(if out.len() > 1 { b"," } else { b"" });
        out.extend_from_slice(Value::String(name).to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(&json);
    }
    out.push(b'}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for good in ["in", "a b.csv", "portfolio.xml"] {
            check(good).unwrap();
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "/etc/passwd", "../x", "a/"] {
            assert!(check(bad).unwrap_err().message.contains("without a path"), "{bad}");
        }
    }
}
