//! Tasks from the lines of a text object, read as a stream.

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::objects;

use super::manifest::Writer;
use super::{CutResult, Cutting};
use crate::model::TaskInput;
use crate::spec::limits::MAX_ARG_BYTES;

/// Cuts lines from chunks of bytes. A line ends at a newline; a carriage return before it belongs to the ending.
#[derive(Debug, Default)]
struct LineCutter {
    rest: BytesMut,
    number: u64,
}

impl LineCutter {
    /// Calls `each` with every line that is complete with this chunk.
    fn feed(&mut self, chunk: &Bytes, mut each: impl FnMut(u64, &str) -> Result<()>) -> Result<()> {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', chunk) {
            if self.rest.is_empty() {
                self.line(&chunk[start..end], &mut each)?;
            } else {
                self.rest.extend_from_slice(&chunk[start..end]);
                let whole = self.rest.split();
                self.line(&whole, &mut each)?;
            }
            start = end + 1;
        }
        self.rest.extend_from_slice(&chunk[start..]);
        if self.rest.len() > MAX_ARG_BYTES + 1 { Err(too_long(self.number + 1)) } else { Ok(()) }
    }

    /// What follows the last newline is a line too.
    fn finish(&mut self, mut each: impl FnMut(u64, &str) -> Result<()>) -> Result<()> {
        let rest = self.rest.split();
        if rest.is_empty() { Ok(()) } else { self.line(&rest, &mut each) }
    }

    fn line(&mut self, bytes: &[u8], each: &mut impl FnMut(u64, &str) -> Result<()>) -> Result<()> {
        self.number += 1;
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.len() > MAX_ARG_BYTES {
            return Err(too_long(self.number));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let what =
                format!("line {} is not UTF-8 from byte {} on; convert the file, or cut it with `parts`", self.number, e.valid_up_to() + 1);
            Error::invalid(what)
        })?;
        if memchr::memchr(0, bytes).is_some() {
            return Err(Error::invalid(format!("line {} holds a zero byte, so this is no text; cut the object with `parts`", self.number)));
        }
        each(self.number, text)
    }
}

fn too_long(number: u64) -> Error {
    let what = format!("line {number} is longer than {MAX_ARG_BYTES} bytes, the most one argument may have; cut the object with `parts`");
    Error::new(ErrorKind::Exhausted, what)
}

/// Lines joined until a task has its number of them.
#[derive(Debug)]
struct Grouper {
    per_task: u64,
    held: u64,
    text: String,
    ready: Vec<TaskInput>,
}

impl Grouper {
    fn add(&mut self, line: &str) {
        if self.held > 0 {
            self.text.push('\n');
        }
        self.text.push_str(line);
        self.held += 1;
        if self.held == self.per_task {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.held > 0 {
            self.ready.push(TaskInput::Lines(std::mem::take(&mut self.text)));
            self.held = 0;
        }
    }
}

pub(super) async fn cut(object: &str, per_task: u64, cx: &mut Cutting<'_>) -> Result<CutResult> {
    let path = objects::parse_path(object)?;
    let got = cx.objects.get(&path).await.map_err(|e| match e {
        object_store::Error::NotFound { .. } => Error::invalid(format!("lines: there is no object `{path}`; upload it first")),
        e => objects::error("read", &path, e),
    })?;
    let mut stream = got.into_stream();
    let mut writer = Writer::new(cx.objects, cx.job, cx.stage);
    let mut cutter = LineCutter::default();
    let mut grouper = Grouper { per_task, held: 0, text: String::new(), ready: Vec::new() };
    let mut bytes = 0;
    let named = |e: Error| e.context(format!("`{path}`"));
    loop {
        let chunk = stream.try_next().await.map_err(|e| objects::error("read", &path, e))?;
        let mut each = |_, line: &str| {
            grouper.add(line);
            Ok(())
        };
        if let Some(chunk) = &chunk {
            cutter.feed(chunk, &mut each).map_err(named)?;
            bytes += chunk.len() as u64;
        } else {
            cutter.finish(&mut each).map_err(named)?;
            grouper.flush();
        }
        for task in grouper.ready.drain(..) {
            writer.push(&task).await?;
        }
        cx.check_tasks(writer.entries())?;
        cx.tell(writer.entries(), bytes, 1);
        if chunk.is_none() {
            break;
        }
    }
    if writer.entries() == 0 {
        return Err(Error::invalid(format!("lines: `{path}` is empty, so there is nothing to do")));
    }
    CutResult::of(writer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Result<Vec<String>> {
        let mut cutter = LineCutter::default();
        let mut out = Vec::new();
        let mut each = |_, line: &str| {
            out.push(line.to_owned());
            Ok(())
        };
        for chunk in chunks {
            cutter.feed(&Bytes::copy_from_slice(chunk), &mut each)?;
        }
        cutter.finish(&mut each)?;
        Ok(out)
    }

    #[test]
    fn lines_do_not_depend_on_how_the_bytes_arrive() {
        let text = "a\n\nb c\r\n\u{e9}\u{1F600}\nlast".as_bytes();
        let want = ["a", "", "b c", "\u{e9}\u{1F600}", "last"];
        for cut in 0..=text.len() {
            assert_eq!(lines(&[&text[..cut], &text[cut..]]).unwrap(), want, "{cut}");
        }
        assert_eq!(lines(&[b"x\n"]).unwrap(), ["x"]);
        assert_eq!(lines(&[b""]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_line() {
        assert_eq!(
            lines(&[b"a\nb\xff\n"]).unwrap_err().to_string(),
            "line 2 is not UTF-8 from byte 2 on; convert the file, or cut it with `parts`"
        );
        assert!(lines(&[b"a\0"]).unwrap_err().to_string().starts_with("line 1 holds a zero byte"));
        let long = vec![b'x'; MAX_ARG_BYTES + 2];
        assert!(lines(&[b"a\n", &long]).unwrap_err().to_string().starts_with("line 2 is longer than 131071 bytes"));
    }
}
