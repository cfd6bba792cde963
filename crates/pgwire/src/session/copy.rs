//! The three forms of COPY TO STDOUT: <https://www.postgresql.org/docs/current/sql-copy.html>.

use bytes::{BufMut, BytesMut};
use tidemill_base::Result;

use crate::error::{SqlError, SqlResult};
use crate::value::{Column, Format};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyFormat {
    Text,
    Csv,
    Binary,
}

/// The options of a COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyOptions {
    pub(crate) format: CopyFormat,
    pub(crate) header: bool,
    pub(crate) delimiter: u8,
    null: Option<String>,
    quote: u8,
    given: bool,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { format: CopyFormat::Text, header: false, delimiter: b'\t', null: None, quote: b'"', given: false }
    }
}

impl CopyOptions {
    pub(crate) fn set_format(&mut self, name: &str) -> SqlResult<()> {
        self.format = match name {
            "text" => CopyFormat::Text,
            "csv" => CopyFormat::Csv,
            "binary" => CopyFormat::Binary,
            other => return Err(SqlError::new("22023", format!("COPY format \"{other}\" is none of text, csv, binary"))),
        };
        Ok(())
    }

    pub(crate) fn set(&mut self, option: &str, value: &str) -> SqlResult<()> {
        let one = || match value.as_bytes() {
            [byte] if !matches!(byte, b'\n' | b'\r' | b'\\') => Ok(*byte),
            _ => Err(SqlError::new("22023", format!("COPY {option} must be one plain character"))),
        };
        match option {
            "delimiter" => (self.delimiter, self.given) = (one()?, true),
            "null" => self.null = Some(value.to_owned()),
            "quote" => self.quote = one()?,
            // Quotes are escaped by doubling them; the text is always UTF-8.
            "escape" if value != "\"" => return Err(SqlError::new("0A000", "COPY escapes quotes by doubling them")),
            "encoding" if !value.eq_ignore_ascii_case("utf8") && !value.eq_ignore_ascii_case("utf-8") => {
                return Err(SqlError::new("0A000", "COPY writes UTF-8 and nothing else"));
            }
            _ => {}
        }
        Ok(())
    }

    /// What follows from the format where nothing was said.
    pub(crate) const fn settle(&mut self) {
        if matches!(self.format, CopyFormat::Csv) && !self.given {
            self.delimiter = b',';
        }
    }

    const fn null(&self) -> &str {
        match (&self.null, self.format) {
            (Some(null), _) => null.as_str(),
            (None, CopyFormat::Csv) => "",
            (None, _) => "\\N",
        }
    }

    /// What goes before the rows, if anything.
    pub(crate) fn head(&self, names: &[&str], out: &mut BytesMut) {
        match self.format {
            CopyFormat::Binary => {
                out.put_slice(b"PGCOPY\n\xff\r\n\0");
                out.put_u64(0);
            }
            _ if self.header => {
                for (i, name) in names.iter().enumerate() {
                    self.separate(i, out);
                    self.field(name.as_bytes(), out);
                }
                out.put_u8(b'\n');
            }
            _ => {}
        }
    }

    pub(crate) fn row(&self, columns: &[Column], row: usize, out: &mut BytesMut) -> Result<()> {
        if self.format == CopyFormat::Binary {
            out.put_u16(u16::try_from(columns.len()).unwrap_or(u16::MAX));
            return columns.iter().try_for_each(|column| column.write_sized(row, Format::Binary, out));
        }
        let mut value = BytesMut::new();
        for (i, column) in columns.iter().enumerate() {
            self.separate(i, out);
            if column.is_null(row) {
                out.put_slice(self.null().as_bytes());
                continue;
            }
            value.clear();
            column.write(row, Format::Text, &mut value)?;
            self.field(&value, out);
        }
        out.put_u8(b'\n');
        Ok(())
    }

    /// What goes after the rows, if anything.
    pub(crate) fn tail(&self, out: &mut BytesMut) {
        if self.format == CopyFormat::Binary {
            out.put_i16(-1);
        }
    }

    fn separate(&self, i: usize, out: &mut BytesMut) {
        if i > 0 {
            out.put_u8(self.delimiter);
        }
    }

    fn field(&self, value: &[u8], out: &mut BytesMut) {
        if self.format == CopyFormat::Csv {
            let special = |b: &u8| *b == self.delimiter || *b == self.quote || matches!(b, b'\n' | b'\r');
            if value.iter().any(special) || value == self.null().as_bytes() || value == b"\\." {
                out.put_u8(self.quote);
                for byte in value {
                    if *byte == self.quote {
                        out.put_u8(self.quote);
                    }
                    out.put_u8(*byte);
                }
                out.put_u8(self.quote);
            } else {
                out.put_slice(value);
            }
            return;
        }
        for byte in value {
            match byte {
                b'\\' => out.put_slice(b"\\\\"),
                b'\n' => out.put_slice(b"\\n"),
                b'\r' => out.put_slice(b"\\r"),
                b'\t' => out.put_slice(b"\\t"),
                0x08 => out.put_slice(b"\\b"),
                0x0b => out.put_slice(b"\\v"),
                0x0c => out.put_slice(b"\\f"),
                b if *b == self.delimiter => {
                    out.put_u8(b'\\');
                    out.put_u8(*b);
                }
                b => out.put_u8(*b),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(options: &CopyOptions, value: &str) -> String {
        let mut out = BytesMut::new();
        options.field(value.as_bytes(), &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn csv_quotes_what_must_be_and_tells_empty_from_null() {
        let mut csv = CopyOptions::default();
        csv.set_format("csv").unwrap();
        csv.settle();
        for (value, expected) in
            [("a", "a"), ("", "\"\""), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), ("a\nb", "\"a\nb\""), ("a\tb", "a\tb")]
        {
            assert_eq!(written(&csv, value), expected);
        }
    }

    #[test]
    fn text_escapes_what_would_end_a_field() {
        assert_eq!(written(&CopyOptions::default(), "a\tb\\c\nd"), "a\\tb\\\\c\\nd");
        let mut options = CopyOptions::default();
        assert!(options.set("delimiter", "ab").is_err());
        options.set("delimiter", "|").unwrap();
        assert_eq!(written(&options, "a|b"), "a\\|b");
    }
}
