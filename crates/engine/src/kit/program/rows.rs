//! CSV and JSON rows (RFC 4180, RFC 8259). Numbers go through as they are written, digit for digit.

use serde_json::Value;

use super::invalid;
use crate::session::TaskError;

/// A table with a header line as a JSON array of objects.
pub(super) fn to_json(name: &str, csv: &[u8]) -> Result<String, TaskError> {
    let wrong = |e: csv::Error| invalid(&format!("what the program wrote to `{name}` is no CSV: {e}"));
    let mut reader = csv::Reader::from_reader(csv);
    let keys: Vec<String> = reader.headers().map_err(wrong)?.iter().map(|column| format!("{}:", Value::from(column))).collect();
    let mut out = String::from("[");
    for row in reader.records() {
        out.push_str(if out.len() > 1 { ",{" } else { "{" });
        for (at, (key, field)) in keys.iter().zip(&row.map_err(wrong)?).enumerate() {
            out.push_str(if at > 0 { "," } else { "" });
            out.push_str(key);
            match field {
                "" => out.push_str("null"),
                number if is_number(number) => out.push_str(number),
                text => out.push_str(&Value::from(text).to_string()),
            }
        }
        out.push('}');
    }
    out.push(']');
    Ok(out)
}

/// Whether the text is a number as JSON writes it, of a size that can be told.
fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && serde_json::from_str::<serde_json::Number>(text).is_ok()
}

/// Objects as a table. Its columns are those of the first object, and later ones that others have, in the order in which they come.
pub(super) fn to_csv(rows: &[Value]) -> Result<Vec<u8>, TaskError> {
    let mut columns: Vec<&str> = Vec::new();
    let mut objects = Vec::with_capacity(rows.len());
    for row in rows {
        let Value::Object(fields) = row else {
            return Err(invalid(&format!("a row of a table is `{row}`; it must be a JSON object")));
        };
        columns.extend(fields.keys().map(String::as_str).filter(|k| !columns.contains(k)).collect::<Vec<_>>());
        objects.push(fields);
    }
    let wrong = |e: csv::Error| invalid(&format!("the rows cannot be written as CSV: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    if !columns.is_empty() {
        writer.write_record(&columns).map_err(wrong)?;
    }
    for fields in objects {
        let texts = columns.iter().map(|column| match fields.get(*column) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        });
        writer.write_record(texts).map_err(wrong)?;
    }
    writer.into_inner().map_err(|e| invalid(&format!("the rows cannot be written as CSV: {e}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_go_through_digit_for_digit() {
        let csv = "id,name,value,day\r\n1,\"a, \"\"b\"\"\",0.10000000000000000555,2026-01-01\r\n-2,,1e3,007\r\n";
        let json = to_json("x.csv", csv.as_bytes()).unwrap();
        assert_eq!(
            json,
            r#"[{"id":1,"name":"a, \"b\"","value":0.10000000000000000555,"day":"2026-01-01"},{"id":-2,"name":null,"value":1e3,"day":"007"}]"#
        );
        assert_eq!(to_json("x.csv", b"id,name\n").unwrap(), "[]");
        assert_eq!(to_json("x.csv", b"").unwrap(), "[]");
        assert!(to_json("x.csv", b"a,b\n1\n").unwrap_err().message.contains("`x.csv` is no CSV"));
        for text in ["nan", "inf", "+1", ".5", "1.", "0x1", "1e999", "-", " 1"] {
            assert!(!is_number(text), "{text}");
        }
    }

    #[test]
    fn objects_become_a_table() {
        let rows = json!([{"id": 1, "name": "a,b"}, {"id": 2, "rate": 0.5, "name": null}, {"ok": true}]);
        let csv = to_csv(rows.as_array().unwrap()).unwrap();
        assert_eq!(String::from_utf8(csv).unwrap(), "id,name,rate,ok\n1,\"a,b\",,\n2,,0.5,\n,,,true\n");
        assert_eq!(to_csv(&[]).unwrap(), b"");
        assert!(to_csv(&[json!([1])]).unwrap_err().message.contains("`[1]`"));
    }
}
